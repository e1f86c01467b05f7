#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Packages and source of each kernel that this project builds, in a root of Debian unstable.
# Leaves the kernel's source in /build/source. The scripts that prepare kernels read this file.
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

kernel_packages="linux-source make gcc libc6-dev bc bison flex libelf-dev libssl-dev kmod cpio
    busybox-static xz-utils python3-minimal"

# unpack VERSION: the source of this line, e.g. 7.2
unpack() {
    if [ ! -d /build/source ]; then
        tar xf "/usr/src/linux-source-$1.tar.xz" -C /build
        mv "/build/linux-source-$1" /build/source
    fi
}
