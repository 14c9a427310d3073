sqlite3 zoo.db <<'END'
pragma journal_mode = wal;
create table animals (name text, legs int);
insert into animals select 'animal ' || value, value % 5 from generate_series(1, 100);
END
for part in 1 2 3; do
    sqlite3 -cmd '.timeout 10000' zoo.db "update animals set legs = legs + 1" &
done
wait
sqlite3 zoo.db "select 'legs: ' || sum(legs) from animals"
