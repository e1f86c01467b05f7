# SPDX-License-Identifier: MIT OR Apache-2.0
# The command tdx-seamldr, used as an operator would. `scenarios.sh` reads this file.
# The driver does what Linux's own does (policy=linux): it looks at nothing before it shuts the module down, and loses the TDs by the first
# failure afterwards. So what the command does not refuse is lost. Each refusal comes with the proof: the same upload without the command.

mkdir -p /run /etc /var/lib /etc/tdx-seamldr/pre-update /etc/tdx-seamldr/post-update
images="--image-dir /images/intel"
gone="No such device or address"

start_linux() { start policy=linux "$@"; }
# tool CODE ARGUMENTS: the command ends with this exit code. What it says is in /tmp/said.
tool() {
    wanted=$1
    shift
    tdx-seamldr "$@" > /tmp/said 2>&1
    code=$?
    wants "the exit code of $1" $code "$wanted"
    [ $code = "$wanted" ] || problem="$problem: $(tail -n 3 /tmp/said | tr '\n' ' ')"
}
# updates CODE ARGUMENTS
updates() {
    wanted=$1
    shift
    tool "$wanted" update --no-td-launches $images "$@"
}
# tells WORDS: the command has said this
tells() { grep -q -- "$1" /tmp/said || problem="$problem; the command does not say \"$1\" but \"$(tail -n 3 /tmp/said | tr '\n' ' ')\""; }
# refuses WORDS ARGUMENTS: an update is refused for this reason, and nothing is touched
refuses() {
    before=$(values)
    words=$1
    shift
    updates 1 "$@"
    tells "$words"
    wants "what can be read" "$(values)" "$before"
}
values() { cat $device/version $device/num_remaining_updates $parameters/tds_alive $upload/loading $upload/status $upload/error | tr '\n' ' '; }
# loses IMAGE: without the command, this upload costs the TDs, and TDX until a reboot
loses() {
    uploaded "$1" "transferring:firmware-invalid"
    wants version "$(cat $device/version 2>&1 | sed 's/.*: //')" "$gone"
    wants tds_alive "$(cat $parameters/tds_alive)" 0
    uploaded 1.5.16.v2 "transferring:firmware-invalid"
    wants "version after another upload" "$(cat $device/version 2>&1 | sed 's/.*: //')" "$gone"
}
# hook FOLDER TEXT: the hook of this folder does this
hook() {
    printf '#!/bin/sh\n%s\n' "$2" > "/etc/tdx-seamldr/$1/hook"
    chmod 755 "/etc/tdx-seamldr/$1/hook"
}
no_hooks() { rm -f /etc/tdx-seamldr/*/hook; }
# until_it WORDS: waits until this command succeeds
until_it() {
    for _ in $(seq 300); do
        eval "$1" && return
        usleep 100000
    done
    problem="$problem; this did not come: $1"
}

linux_update() {
    start_linux
    # Linux 7.2 takes the second format only.
    uploaded 1.5.16 "transferring:firmware-invalid"
    state 1.5.05 20 3
    uploaded 1.5.16.v2 ""
    state 1.5.16 19 3
    end
}
linux_loses() {
    start_linux
    loses "$1"
    end
}
linux_shutdown_refused() {
    start_linux
    fault 52 0 1 $module_busy 0
    uploaded 1.5.16.v2 "transferring:firmware-invalid"
    state 1.5.05 20 3
    fault
    uploaded 1.5.16.v2 ""
    state 1.5.16 19 3
    end
}
# linux_fails_in FAULT
linux_fails_in() {
    start_linux
    fault "$@"
    loses 1.5.16.v2
    end
}
linux_cpu_offline() {
    start_linux
    echo 0 > /sys/devices/system/cpu/cpu3/online
    loses 1.5.16.v2
    echo 1 > /sys/devices/system/cpu/cpu3/online
    end
}
scenario linux-update linux_update
scenario linux-flipped linux_loses flipped.v2
scenario linux-wrong-cpu linux_loses 2.0.08.v2
scenario linux-shutdown-refused linux_shutdown_refused
scenario linux-fails-in-install linux_fails_in $install 3 1 $bad_hash 1
scenario linux-fails-in-init linux_fails_in 33 0 100000 $module_busy 0
scenario linux-fails-in-update linux_fails_in 53 0 100000 $module_busy 0
scenario linux-cpu-offline linux_cpu_offline
