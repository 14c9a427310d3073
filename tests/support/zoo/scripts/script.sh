script --quiet --return --command 'tty; stty size >/dev/null && echo "a terminal"' typescript
