#!/bin/sh
# Lays out the image's file system: rootfs.sh BINARY ROOT. The image's second step.
set -eu
binary=$1 root=$2
umask 022
mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/tmp" "$root/run/pgsluice"
install -m 0755 "$binary" "$root/usr/bin/pgsluice"

# The libraries that the binary is linked with, its loader among them, at the paths where it looks for them.
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done

# 65532 is "nonroot" in distroless images too.
echo 'pgsluice:x:65532:65532:pgsluice:/:/sbin/nologin' > "$root/etc/passwd"
echo 'pgsluice:x:65532:' > "$root/etc/group"
# /etc/hosts before DNS, as everywhere; both are in glibc itself since 2.34.
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
if [ -r /etc/ssl/certs/ca-certificates.crt ]; then cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"; fi
chmod 1777 "$root/tmp"
# For Unix sockets shared with the application's container.
chown 65532:65532 "$root/run/pgsluice" 2>/dev/null || echo "not root: /run/pgsluice keeps its owner" >&2
