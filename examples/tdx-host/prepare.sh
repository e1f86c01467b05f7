#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Inside a root of Debian's unstable distribution: QEMU, and an unmodified Linux kernel that is a TDX host. `cargo xtask tdx-host prepare`
# runs it. Leaves in /build/tdx-host: arch/x86/boot/bzImage and drivers/virt/coco/tdx-host/tdx-host.ko.
set -euo pipefail
. /build/source.sh

apt-get update
apt-get install -y --no-install-recommends $kernel_packages qemu-system-x86
newest=$(ls /usr/src/linux-source-*.tar.xz | sed 's/.*source-\(.*\)\.tar\.xz/\1/' | sort -V | tail -n 1)
unpack "$newest"

mkdir -p /build/tdx-host
cd /build/tdx-host
kernel() { make -C /build/source O=/build/tdx-host -s -j"$(nproc)" "$@"; }
kernel tinyconfig
(cd /build/source && scripts/kconfig/merge_config.sh -m -O /build/tdx-host /build/tdx-host/.config /build/kernel.config) > merge.log
kernel olddefconfig
for symbol in INTEL_TDX_HOST FW_UPLOAD; do
    grep -q "^CONFIG_$symbol=y" .config || { echo "the kernel's configuration lost CONFIG_$symbol" >&2; exit 1; }
done
kernel bzImage
kernel modules_prepare
kernel drivers/virt/coco/tdx-host/tdx-host.ko
