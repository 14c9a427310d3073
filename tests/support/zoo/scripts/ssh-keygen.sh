ssh-keygen -q -t ed25519 -N '' -C zoo -f key
echo text >text
ssh-keygen -q -Y sign -f key -n file text
echo "zoo $(cat key.pub)" >signers
ssh-keygen -Y verify -f signers -I zoo -n file -s text.sig <text
eval "$(ssh-agent -s)" >/dev/null
ssh-add -q key
ssh-add -l
kill "$SSH_AGENT_PID"
