echo '<title>zoo</title><p id=p></p><script>p.textContent = `answer ${6 * 7}`</script>' >page.html
# Its own sandbox needs namespaces, which commands cannot make: the runner's sandbox is around it already.
chromium --headless --no-sandbox --disable-gpu --dump-dom --screenshot=page.png "file://$PWD/page.html" 2>complaints ||
    { cat complaints; exit 1; }
file page.png
