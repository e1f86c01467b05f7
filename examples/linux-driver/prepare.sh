#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Inside a root of Debian's unstable distribution: installs the tools to build Rust modules for
# its stock kernel, and that kernel.
# `cargo xtask linux-driver tree` runs it. Leaves in /build: source/, stock/ (to build against),
# vmlinuz, and make.sh.
set -euo pipefail
. /build/source.sh

apt-get update
apt-get install -y --no-install-recommends $kernel_packages linux-headers-amd64 rustc rust-src bindgen

headers=$(ls -d /usr/src/linux-headers-*-amd64 | grep -v -e cloud -e -rt- | head -n 1)
release=$(cat "$headers/include/config/kernel.release")
upstream=${release%%+*}
mkdir -p /build/stock
cd /build
unpack "${upstream%.*}"
cat > make.sh <<END
#!/bin/sh
# make.sh stock|debug ARGUMENT...
kernel=\$1
shift
[ "\$kernel" = stock ] && set -- LOCALVERSION="${release#"$upstream"}" "\$@"
exec make -C /build/source O=/build/\$kernel CC=$(sed -n 's/^CONFIG_CC_VERSION_TEXT="\([^ ]*\) .*/\1/p' "$headers/.config") "\$@"
END
chmod +x make.sh

# The configuration must match, because the hashes in Rust's symbol names depend on it. Modules
# with other hashes do not load.
cp "$headers/.config" "$headers/Module.symvers" stock/
./make.sh stock olddefconfig
diff "$headers/.config" stock/.config
./make.sh stock -j"$(nproc)" modules_prepare
cp "$headers/vmlinux" stock/
[ "$(cat stock/include/config/kernel.release)" = "$release" ]
grep -hoE '_R[A-Za-z0-9_]+' stock/rust/exports_*_generated.h | sort -u > here.sym
awk '$2 ~ /^_R/ && $3 == "vmlinux" { print $2 }' stock/Module.symvers | sort -u > stock.sym
missing=$(comm -13 here.sym stock.sym)
if [ -n "$missing" ]; then
    echo "the prepared tree does not have these symbols of the stock kernel: $missing" >&2
    exit 1
fi

mkdir -p image
cd image
apt-get download -q "linux-binary-$release"
dpkg-deb -x linux-binary-*.deb .
cp "usr/lib/modules/$release/vmlinuz" ../vmlinuz
