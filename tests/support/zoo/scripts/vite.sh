# As `npm ci` leaves it; the image has what the registry would give.
cp -r /opt/zoo/node_modules .
echo '{"name": "zoo", "private": true, "type": "module"}' >package.json
echo '<!doctype html><div id="app"></div><script type="module" src="/main.js"></script>' >index.html
echo 'import { answer } from "./answer.js"; document.querySelector("#app").textContent = `answer ${answer}`;' >main.js
echo 'export const answer = 6 * 7;' >answer.js
node_modules/.bin/vite build
ls dist/index.html
node_modules/.bin/vite --port 5173 >served 2>&1 &
tries=0
until curl -sf http://localhost:5173/answer.js >answered; do
    tries=$((tries + 1))
    [ $tries -lt 150 ] || { cat served; exit 1; }
    sleep 0.2
done
grep -o 'const answer = 6 \* 7' answered
kill $!
