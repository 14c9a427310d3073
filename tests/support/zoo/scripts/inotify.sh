mkdir watched
inotifywait --quiet --monitor --format '%e %f' --outfile events watched &
watcher=$!
cat >watch.cjs <<'END'
const fs = require('node:fs');
fs.watch('watched', (event, name) => { console.log(`node saw ${name}`); process.exit(); });
setTimeout(() => process.exit(1), 10000);
setInterval(() => fs.writeFileSync('watched/file', 'text'), 100);
END
node watch.cjs
tries=0
until grep -s 'CLOSE_WRITE,CLOSE file' events; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || exit 1
    sleep 0.1
done
kill $watcher
