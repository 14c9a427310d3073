echo "init: $(ps -p 1 -o pid= | tr -d ' ')"
free -m | grep -o '^Mem:'
top -b -n 1 | grep -o '^Tasks:.*total'
lscpu | grep -E '^CPU\(s\):'
df . | tail -n 1 | grep -o '[0-9]*%'
echo "processors: $(nproc) $(getconf _NPROCESSORS_ONLN) $(python3 -c 'import os; print(os.cpu_count())')"
sleep 20 &
sleep 0.2
pkill -x -n sleep && echo "one was ended"
