gpg --batch --quiet --passphrase '' --quick-generate-key 'Zoo <zoo@example.test>' ed25519 sign never
echo text >text
gpg --batch --quiet --sign text
gpg --batch --verify text.gpg 2>&1 | grep -o 'Good signature from "Zoo'
git init -q -b main repository
cd repository
git config user.signingkey zoo@example.test
git commit -q -S --allow-empty -m signed
git log -1 --format='signature: %G?'
gpgconf --kill all
