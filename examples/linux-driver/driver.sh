# SPDX-License-Identifier: MIT OR Apache-2.0
# The driver, used from a shell. `scenarios.sh` reads this file.

without_tdx() {
    insmod /tdx_host_rs.ko "$@" 2> /tmp/insmod && problem="$problem; the module was loaded"
    [ -e $device ] && problem="$problem; there is a device"
    said "no TDX"
}
seamcall_without_tdx() {
    without_tdx try_seamcall=1
    said "SEAMCALL.*#UD"
}
# unknown PARAMETER
unknown() {
    insmod /tdx_host_rs.ko backend=mock "$1" 2> /tmp/insmod && problem="$problem; the module was loaded"
    said "$1"
}

attributes() {
    start
    state 1.5.05 20 3
    wants seamldr_version "$(cat $device/seamldr_version)" 1.5.00
    for file in version:444 seamldr_version:400 num_remaining_updates:400; do
        wants "the mode of ${file%:*}" "$(stat -c %a $device/${file%:*})" "${file#*:}"
    done
    for file in loading data status error remaining_size; do
        [ -e $upload/$file ] || problem="$problem; there is no $file"
    done
    end
}
update() {
    start
    uploaded "$1" ""
    state 1.5.16 19 3
    said updated
    end
}
bad_image() {
    start
    uploaded "$1" "transferring:firmware-invalid"
    state 1.5.05 20 3
    said "$2"
    end
}
lower_svn() {
    start
    uploaded 1.5.16 ""
    uploaded 1.5.05 "transferring:firmware-invalid"
    state 1.5.16 19 3
    said minor-svn
    end
}
same_module() {
    start
    uploaded 1.5.05 "transferring:firmware-invalid"
    said same-module
    state 1.5.05 20 3
    end
}
until_none_remain() {
    start allow_same_module=1
    for left in $(seq 19 -1 0); do
        uploaded 1.5.16 ""
        state 1.5.16 "$left" 3
    done
    # Version 6 of the patch series has no word for this error.
    uploaded 1.5.16 "transferring:hw-error"
    said no-remaining-updates
    said "nothing was done"
    state 1.5.16 0 3
    end
}
fallback() {
    start
    # After preflight a bit flips in memory.
    fault flip-sigstruct
    uploaded 1.5.16 "transferring:hw-error"
    state 1.5.05 19 3
    said EBADSIG
    # The cause of the failure is gone.
    fault
    uploaded 1.5.16 ""
    state 1.5.16 18 3
    end
}
resumed() {
    start
    fault $install 0 100000 $bad_signature 0
    uploaded 1.5.16 "transferring:hw-error"
    state "No such device or address" 20 0
    rmmod tdx_host_rs 2> /tmp/rmmod && problem="$problem; the module can be unloaded while the TDs are paused"
    fault
    # An image with one wrong bit and a valid signature would lose the TDs.
    uploaded flipped.v2 "transferring:firmware-invalid"
    said image-hash
    uploaded 1.5.16 ""
    state 1.5.16 19 3
    end
}
finished() {
    start
    fault 33 0 100000 $module_busy 0
    uploaded 1.5.16 "transferring:hw-error"
    state "No such device or address" 19 0
    fault
    uploaded 1.5.16 ""
    state 1.5.16 19 3
    end
}
bad_load() {
    start
    fault $install 2 1 $bad_hash 1
    uploaded 1.5.16 "transferring:hw-error"
    fault
    # Preflight refuses what P-SEAMLDR would refuse.
    uploaded 2.0.08 "transferring:firmware-invalid"
    said seamldr-too-old
    said "nothing was done"
    uploaded 1.5.16 ""
    state 1.5.16 20 3
    end
}
unrecoverable() {
    start
    fault $install 2 1 $bad_hash 1
    uploaded 1.5.16 "transferring:hw-error"
    state "No such device or address" 20 0
    said "TDs are lost"
    said "the next image that is uploaded will be loaded afresh"
    fault
    uploaded 1.5.16 ""
    state 1.5.16 20 3
    end
}
cpu_offline() {
    start
    echo 0 > /sys/devices/system/cpu/cpu3/online
    uploaded 1.5.16 "transferring:device-busy"
    state 1.5.05 20 3
    said lps-missing
    said "nothing was done"
    echo 1 > /sys/devices/system/cpu/cpu3/online
    uploaded 1.5.16 ""
    state 1.5.16 19 3
    end
}

# readers NUMBER: logs the attributes to /tmp/versions.NUMBER until /tmp/stop exists
readers() {
    while [ ! -e /tmp/stop ]; do
        version=$(cat $device/version 2>&1)
        echo "$version" >> "/tmp/versions.$1"
        cat $device/seamldr_version $device/num_remaining_updates > /dev/null || echo failed >> "/tmp/versions.$1"
    done
}
hotplug() {
    while [ ! -e /tmp/stop ]; do
        echo 0 > /sys/devices/system/cpu/cpu3/online && echo off >> /tmp/hotplugs
        usleep 50000
        # An update in between blocks CPU hotplug.
        until echo 1 > /sys/devices/system/cpu/cpu3/online; do usleep 10000; done
        usleep 150000
    done 2> /dev/null
}
race() {
    start allow_same_module=1 updates=9000
    rm -f /tmp/stop /tmp/versions.* /tmp/hotplugs
    readers 1 & one=$!
    readers 2 & two=$!
    hotplug & three=$!
    updates=0 refusals=0 end=$(($(date +%s) + race_seconds))
    while [ "$(date +%s)" -lt "$end" ]; do
        upload 1.5.16
        case $error in
        "") updates=$((updates + 1)) ;;
        transferring:device-busy) refusals=$((refusals + 1)) ;;
        *) problem="$problem; the error is \"$error\"" ;;
        esac
    done
    touch /tmp/stop
    wait $one $two $three
    state 1.5.16 $((9000 - updates)) 3
    wants "what could be read" "$(cat /tmp/versions.* | sort -u | tr '\n' ' ')" "1.5.05 1.5.16 "
    [ $updates -gt 0 ] && [ $refusals -gt 0 ] || problem="$problem; $updates updates, $refusals refusals"
    end
    echo "figure updates in the race: $updates"
    echo "figure refusals in the race, a CPU being offline: $refusals"
    echo "figure times that a CPU went offline in the race: $(wc -l < /tmp/hotplugs)"
    echo "figure readings in the race: $(cat /tmp/versions.* | wc -l)"
}
again_and_again() {
    for _ in $(seq 20); do
        start
        uploaded 1.5.16 ""
        state 1.5.16 19 3
        end
    done
}
measure() {
    start allow_same_module=1 updates=100
    for _ in $(seq 21); do
        uploaded 1.5.16 ""
        stopped=$(cat $parameters/stopped_ns) firmware=$(cat $parameters/firmware_ns)
        echo "$stopped" >> /tmp/stopped
        echo $((stopped - firmware)) >> /tmp/without
    done
    end
    echo "figure ms with all CPUs stopped, median of 21: $(sort -n /tmp/stopped | sed -n 11p | thousandths)"
    echo "figure ms of these outside the simulated firmware: $(sort -n /tmp/without | sed -n 11p | thousandths)"
}
thousandths() { awk '{ printf "%.3f", $1 / 1000000 }'; }

scenario no-tdx without_tdx
scenario seamcall-without-tdx seamcall_without_tdx
scenario unknown-backend unknown backend=other
scenario unknown-policy unknown policy=other
scenario attributes attributes
scenario update-v1 update 1.5.16
scenario update-v2 update 1.5.16.v2
scenario flipped-bit bad_image flipped checksum
scenario flipped-bit-and-no-checksum bad_image flipped.v2 image-hash
scenario truncated bad_image truncated "refused"
scenario wrong-cpu bad_image 2.0.08 "cpu: "
scenario lower-svn lower_svn
scenario same-module same_module
scenario until-none-remain until_none_remain
scenario fallback fallback
scenario resumed resumed
scenario finished finished
scenario unrecoverable unrecoverable
scenario bad-image-afterwards bad_load
scenario cpu-offline cpu_offline
scenario race race
scenario again-and-again again_and_again
scenario measure measure
