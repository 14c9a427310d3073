strace -f -e trace=execve -o calls sh -c '/bin/true; /bin/echo traced'
grep -c 'execve("/bin' calls | sed 's/^/calls: /'
