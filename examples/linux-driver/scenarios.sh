#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# The first program of the kernel that `cargo xtask linux-driver test` boots: uses the driver as
# user space does.
# Prints "scenario NAME: ok" or "scenario NAME: FAILED, why" for each, "figure NAME: VALUE" for
# what was measured, and "the end".
# The first module is version 1.5.05 in /images; the updates install 1.5.16. The files that are
# read at the end contain the scenarios.

/bin/busybox --install -s /bin
PATH=/bin
mkdir -p /proc /sys /dev /tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
# Messages of all levels may belong to a test, so none goes to the console.
echo 1 > /proc/sys/kernel/printk
echo 0 > /proc/sys/kernel/printk_ratelimit

device=/sys/devices/faux/tdx_host
upload=/sys/class/firmware/tdx_module
parameters=/sys/module/tdx_host_rs/parameters
race_seconds=$(sed -n 's/.*race_seconds=\([0-9]*\).*/\1/p' /proc/cmdline)
only=$(sed -n 's/.* only=\([^ ]*\).*/\1/p' /proc/cmdline)
install=0x8000000000000001
bad_signature=0x8000000000020000
bad_hash=0x8000000000020001
module_busy=0x8000020200000000

problem=
# wants WHAT FOUND WANTED
wants() { [ "$2" = "$3" ] || problem="$problem; $1 is \"$2\", not \"$3\""; }
# said WORDS: the module has logged these words since the scenario began
said() { messages | grep -q -- "$1" || problem="$problem; nothing was said of \"$1\""; }
messages() { dmesg | sed "1,/scenario $scenario begins/d" | grep tdx_host_rs; }

scenario() {
    case $1 in *"$only"*) ;; *) return ;; esac
    scenario=$1 problem=
    echo "scenario $1 begins" > /dev/kmsg
    shift
    "$@"
    if [ -z "$problem" ]; then
        echo "scenario $scenario: ok"
    else
        echo "scenario $scenario: FAILED$problem"
        messages
    fi
}

start() {
    insmod /tdx_host_rs.ko backend=mock image=1.5.05 "$@" 2> /tmp/insmod || problem="$problem; $(cat /tmp/insmod)"
}
end() { rmmod tdx_host_rs 2> /tmp/rmmod || problem="$problem; $(cat /tmp/rmmod)"; }

# upload IMAGE: uploads the image, and stores the kernel's error in $error
upload() {
    error="the device does not exist"
    [ -e $upload ] || return
    echo 1 > $upload/loading && cat "/images/$1" > $upload/data && echo 0 > $upload/loading
    for _ in $(seq 600); do
        [ "$(cat $upload/status)" = idle ] && break
        usleep 100000
    done
    error=$(cat $upload/error)
}
# uploaded IMAGE ERROR: an upload ends like this
uploaded() {
    upload "$1"
    wants "the error" "$error" "$2"
}
# state VERSION UPDATES TDS: checks the values in sysfs
state() {
    wants version "$(cat $device/version 2>&1 | sed 's/.*: //')" "$1"
    wants num_remaining_updates "$(cat $device/num_remaining_updates)" "$2"
    wants tds_alive "$(cat $parameters/tds_alive)" "$3"
}
fault() { echo "$*" > $parameters/fault; }

# The kernel itself has logged no problem.
log() {
    complaints=$(dmesg | grep -v tdx_host_rs: |
        grep -E "BUG:|WARNING:|Oops|Call Trace|rcu.*stall|lockup|blocked for more|protection fault|page fault|deadlock" | head -n 3)
    [ -z "$complaints" ] || problem="$problem; $complaints"
    if [ -e /proc/lockdep_stats ]; then
        wants "debug_locks at the end" "$(sed -n 's/.*debug_locks: *//p' /proc/lockdep_stats)" 1
        echo "figure kernel: watched by lockdep to the end"
    fi
}

echo "figure kernel: $(uname -r)"
echo "figure CPUs: $(nproc)"
. /driver.sh
. /command.sh
. /firmware_upload.sh
scenario log log
echo "the log, as the module wrote it:"
dmesg | grep tdx_host_rs | sed 's/^\[[^]]*\] //' | sort | uniq -c | sort -rn | head -n 60
echo "the end"
poweroff -f
