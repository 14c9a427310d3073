cat >ask.sh <<'END'
printf 'name? '
read -r name
echo "hello $name"
END
expect -c '
    set timeout 20
    spawn sh ask.sh
    expect "name? " { send "zoo\r" }
    expect { "hello zoo" {} timeout { exit 1 } }
'
