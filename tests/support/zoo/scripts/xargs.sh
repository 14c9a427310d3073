mkdir many
seq 1 3000 | (cd many && xargs touch)
echo "names: $(find many -type f -print0 | xargs -0 ls | wc -l)"
long=$(head -c 120000 /dev/zero | tr '\0' x)
env printf '%s\n' "$long" "$long" "$long" "$long" "$long" "$long" "$long" "$long" | wc -c | sed 's/^/bytes: /'
