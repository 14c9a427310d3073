nice -n 5 taskset -c 0 ionice -c 3 setsid -w timeout 10 stdbuf -oL flock lock sh -c 'nice; taskset -p $$' >said
sed -n 's/^5$/nice: 5/p; s/.*affinity mask: 1$/on one processor/p' said
