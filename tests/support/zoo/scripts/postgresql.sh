PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
initdb --pgdata=data --auth=trust --username=zoo >initialized
pg_ctl --pgdata=data --log=log --wait -o "-c listen_addresses=127.0.0.1 -c unix_socket_directories=/tmp" start ||
    { cat log; exit 1; }
psql --host=/tmp --username=zoo --dbname=postgres --tuples-only --no-align <<'END'
create table animals (name text, legs int);
insert into animals select 'animal ' || n, n % 5 from generate_series(1, 1000) n;
select 'legs: ' || sum(legs) from animals;
END
createdb --host=127.0.0.1 --username=zoo second
pg_ctl --pgdata=data --wait --mode=fast stop
