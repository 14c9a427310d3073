export LANG=C.UTF-8
tmux new-session -d -s zoo -x 80 -y 24 'echo in $TERM; tty >tty; exec sleep 30'
tries=0
until [ -s tty ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || exit 1
    sleep 0.1
done
tmux capture-pane -p -t zoo | grep .
echo "sessions: $(tmux list-sessions | wc -l), at $(cat tty)"
tmux kill-server
