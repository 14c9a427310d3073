git init -q -b main repository
cd repository
echo one >a
git add a
git commit -qm first
git switch -qc side
echo two >b
git add b
git commit -qm second
git switch -q main
git merge -q --no-ff -m merged side
git worktree add -q ../tree side
git clone -q "file://$PWD" ../copy
git -C ../copy gc -q
git -C ../copy fsck --no-progress
echo "commits: $(git -C ../copy rev-list --count HEAD), by $(git -C ../copy log -1 --format=%an)"
