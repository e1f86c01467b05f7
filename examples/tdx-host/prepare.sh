#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Inside a root of Debian's unstable distribution: QEMU, and an unmodified Linux kernel that is a TDX
# host. `cargo xtask tdx-host FOLDER prepare` runs it:
#   prepare-tdx-host.sh NAME FRAGMENT...
# builds tinyconfig with these fragments of a configuration, and leaves in /build/NAME:
# arch/x86/boot/bzImage and drivers/virt/coco/tdx-host/tdx-host.ko.
set -euo pipefail
. /build/source.sh
name=${1:-tdx-host}
shift || true
[ $# != 0 ] || set -- /build/kernel.config

if [ ! -d /build/source ] || [ ! -x /usr/bin/qemu-system-x86_64 ]; then
    apt-get update
    apt-get install -y --no-install-recommends $kernel_packages qemu-system-x86
    newest=$(ls /usr/src/linux-source-*.tar.xz | sed 's/.*source-\(.*\)\.tar\.xz/\1/' |
        sort -V | tail -n 1)
    unpack "$newest"
fi

mkdir -p "/build/$name"
cd "/build/$name"
kernel() { make -C /build/source "O=/build/$name" -s -j"$(nproc)" "$@"; }
kernel tinyconfig
(cd /build/source &&
    scripts/kconfig/merge_config.sh -m -O "/build/$name" "/build/$name/.config" "$@") > merge.log
kernel olddefconfig
# Every symbol of the fragments has to be there: a dependency that is missing drops it silently.
lost=$(grep -hx 'CONFIG_[A-Z0-9_]*=[ym]' "$@" | grep -vxFf .config || true)
if [ -n "$lost" ]; then
    echo "the kernel's configuration lost these, see their dependencies: $lost" >&2
    exit 1
fi
kernel bzImage
kernel modules_prepare
kernel drivers/virt/coco/tdx-host/tdx-host.ko
