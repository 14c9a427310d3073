redis-server --port 6390 --unixsocket "$PWD/redis.sock" --dir "$PWD" --daemonize yes --logfile "$PWD/log"
tries=0
until redis-cli -p 6390 ping >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { cat log; exit 1; }
    sleep 0.1
done
redis-cli -p 6390 rpush animals ape bear cat >/dev/null
echo "animals: $(redis-cli -s redis.sock llen animals)"
redis-cli -p 6390 bgsave
tries=0
until [ -s dump.rdb ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { cat log; exit 1; }
    sleep 0.1
done
redis-cli -p 6390 shutdown
redis-check-rdb dump.rdb | grep -o "RDB looks OK"
