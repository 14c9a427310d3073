ip -brief address show lo
python3 -m http.server --bind 127.0.0.1 8123 >served 2>&1 &
server=$!
tries=0
until curl -sf http://127.0.0.1:8123/ >page; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { cat served; exit 1; }
    sleep 0.1
done
ss -ltn | grep -o '127.0.0.1:8123'
kill $server
