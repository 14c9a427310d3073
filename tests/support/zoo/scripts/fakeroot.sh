mkdir -p package/DEBIAN package/usr/share/zoo
printf 'Package: zoo\nVersion: 1.0\nArchitecture: all\nMaintainer: zoo <zoo@example.test>\nDescription: zoo\n' \
    >package/DEBIAN/control
echo content >package/usr/share/zoo/file
chmod -R g-s package
chmod 755 package/DEBIAN
fakeroot sh -c 'chown -R root:root package && stat -c "owner: %U" package/usr && dpkg-deb --build package zoo.deb'
dpkg-deb --contents zoo.deb | grep -o 'root/root.*file'
