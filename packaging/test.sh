#!/bin/sh
# Installs, uses and removes the packages in FOLDER in a fresh root of Debian. On Debian, as root.
# Usage: packaging/test.sh FOLDER
set -eu
cd "$(dirname "$0")"
packages=$(cd "$1" && pwd)
fresh=$(mktemp -d)
say() { printf '== %s\n' "$*"; }
end() {
    umount "$fresh/debian/proc" 2>/dev/null || true
    rm -rf "$fresh"
}
trap end EXIT
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

say "lintian finds no error"
lintian --fail-on error --allow-root "$packages"/*.deb

say "systemd accepts the units and finds their exposure low"
ln -s "$packages/bin/tdx-seamldr" "$fresh/tdx-seamldr"
mkdir "$fresh/units"
for unit in systemd/*; do
    # The command is not installed here.
    sed "s,/usr/sbin/tdx-seamldr,$fresh/tdx-seamldr,; /^Documentation=/d" "$unit" \
        >"$fresh/units/${unit#systemd/}"
done
systemd-analyze verify "$fresh"/units/*
for unit in systemd/*.service; do
    # A pipe would hide the exit status.
    systemd-analyze security --offline=true --threshold=25 --no-pager "$unit" >"$fresh/exposure" ||
        { cat "$fresh/exposure"; exit 1; }
    tail -n 1 "$fresh/exposure"
done

say "a fresh root of Debian"
root=$fresh/debian
debootstrap --variant=minbase --include=man-db,systemd,gcc,libc6-dev,pkgconf stable "$root" \
    >"$fresh/debootstrap.log" || { tail "$fresh/debootstrap.log"; exit 1; }
mount -t proc proc "$root/proc"
cp "$packages"/*.deb "$root/root/"
inside() { chroot "$root" "$@"; }
files() { (cd "$root" && find etc usr/sbin usr/lib var/lib -xdev \( -path var/lib/dpkg -o \
    -path var/lib/systemd -o -path var/lib/apt \) -prune -o -type f -print | sort); }
files >"$fresh/before"

say "install the command"
inside sh -c 'dpkg --install /root/tdx-seamldr_*.deb'
inside tdx-seamldr --version
inside tdx-seamldr status
inside sh -c 'zcat /usr/share/man/man8/tdx-seamldr.8.gz | grep -q "^.TH tdx-seamldr"'
inside man --warnings -l /usr/share/man/man8/tdx-seamldr-update.8.gz >"$fresh/page" 2>"$fresh/said"
grep -q no-td-launches "$fresh/page"
[ ! -s "$fresh/said" ]
[ "$(inside systemctl is-enabled tdx-seamldr-apply.service)" = enabled ]
[ "$(inside systemctl is-enabled tdx-seamldr-metrics.timer)" = enabled ]
inside systemd-analyze verify /lib/systemd/system/tdx-seamldr-apply.service \
    /lib/systemd/system/tdx-seamldr-metrics.timer
[ -d "$root/etc/tdx-seamldr/pre-update.d" ]
[ -d "$root/etc/tdx-seamldr/post-update.d" ]
inside tdx-seamldr apply | grep "names no policy"

say "metrics are what Prometheus reads"
inside tdx-seamldr metrics --output /root/tdx-seamldr.prom
python3 -m venv "$fresh/venv"
"$fresh/venv/bin/pip" --quiet install prometheus-client
"$fresh/venv/bin/python" metrics.py "$root/root/tdx-seamldr.prom"

say "an upgrade keeps the operator's configuration"
echo 'timeout = 60' >>"$root/etc/tdx-seamldr.toml"
inside sh -c 'dpkg --install /root/tdx-seamldr_*.deb' >/dev/null
grep -qx 'timeout = 60' "$root/etc/tdx-seamldr.toml"

say "remove and purge the command"
inside dpkg --remove tdx-seamldr
[ ! -e "$root/usr/sbin/tdx-seamldr" ]
[ -e "$root/etc/tdx-seamldr.toml" ]
inside dpkg --purge tdx-seamldr
files >"$fresh/after"
diff "$fresh/before" "$fresh/after"
[ ! -e "$root/etc/tdx-seamldr" ]

say "install, use and purge the library for C"
inside sh -c 'dpkg --install /root/tdx-sim_*.deb'
inside sh -c 'cd /root && cc /usr/share/doc/tdx-sim/examples/update.c \
    $(pkg-config --cflags --libs tdx-sim) -o update && ./update'
inside dpkg --purge tdx-sim
rm -f "$root/root/update"
files >"$fresh/after"
diff "$fresh/before" "$fresh/after"

say "the packages for rpm"
for package in "$packages"/*.rpm; do
    rpm --query --package --list "$package"
    rpm --root "$fresh/rpm" --initdb
    rpm --root "$fresh/rpm" --install --nodeps --noscripts --ignoreos "$package"
done
"$fresh/rpm/usr/sbin/tdx-seamldr" --version
[ -e "$fresh/rpm/usr/lib64/libtdx_sim.so" ]
[ "$(rpm --query --package --configfiles "$packages"/tdx-seamldr-*.rpm)" = /etc/tdx-seamldr.toml ]

say "done"
