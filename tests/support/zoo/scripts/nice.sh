before=$(nice)
nice -n 3 taskset -c 0 ionice -t -c 3 setsid -w timeout 10 stdbuf -oL flock lock sh -c 'nice; taskset -p $$' >said
echo "nicer by $(($(head -n 1 said) - before))"
grep -o 'affinity mask: 1$' said
