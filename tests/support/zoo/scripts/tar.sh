mkdir -p from/inner
echo one >from/inner/one
ln -s inner/one from/link
cp -a from copy
tar -czf all.tar.gz from
mkdir to
tar -xpzf all.tar.gz -C to
install -d -m 755 installed
install -m 644 from/inner/one installed/
zip -qr all.zip from
unzip -q all.zip -d unzipped
diff -r from copy && diff -r from to/from && diff -r from unzipped/from && echo "all three are alike"
