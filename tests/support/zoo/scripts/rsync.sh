mkdir -p from/inner
echo one >from/one
ln -s one from/link
ln from/one from/hard
echo two >from/inner/two
chmod 600 from/inner/two
rsync --archive --hard-links --itemize-changes from/ to/
rsync --archive --hard-links --itemize-changes --dry-run from/ to/ >again
# Nothing is left to do: also modes and groups are the same.
echo "left: $(wc -l <again), mode $(stat -c %a to/inner/two)"
