# SPDX-License-Identifier: MIT OR Apache-2.0
# The kernel's own test of its firmware upload, test_firmware: a second implementation of the
# driver's `tdx_module`, with failures at chosen stages. `scenarios.sh` reads this file.

tests=/sys/devices/virtual/misc/test_firmware
stages="preparing transferring programming"
errors="hw-error timeout device-busy invalid-file-size read-write-error flash-wearout firmware-invalid"

register() {
    insmod /test_firmware.ko 2> /tmp/insmod || problem="$problem; $(cat /tmp/insmod)"
    printf tdx_module > $tests/upload_register
}
unregister() {
    printf tdx_module > $tests/upload_unregister
    rmmod test_firmware 2> /tmp/rmmod || problem="$problem; $(cat /tmp/rmmod)"
}

# The kernel's interface, used by shell commands.
upload_errors() {
    register
    for stage in $stages; do
        for error in $errors; do
            printf 'inject:%s:%s' "$stage" "$error" > /images/inject
            uploaded inject "$stage:$error"
        done
    done
    uploaded 1.5.16.v2 preparing:invalid-file-size
    printf x > /images/inject
    uploaded inject ""
    unregister
}

# A host for the command, whose upload is test_firmware's. test_firmware takes at most 2 KiB, and
# the data names the stage to fail. So `data` is a pipe, and the kernel gets other data instead of
# the image.
tree=/tmp/host
tree_device=$tree/sys/devices/faux/tdx_host
tree_upload=$tree/sys/class/firmware/tdx_module
# host_tree PREFIX: of the files that Linux has since version 7.2 (seamldr_), or had in the series
# before it (seamldr/)
host_tree() {
    register
    mkdir -p $tree/proc/sys/kernel $tree/sys/devices/system/cpu $tree/sys/firmware/acpi/tables $tree_device $tree_upload $tree/dev/cpu/0
    for file in /proc/cpuinfo /proc/cmdline /proc/sys/kernel/osrelease /sys/devices/system/cpu/present /sys/devices/system/cpu/online \
        /sys/firmware/acpi/tables/APIC; do
        cat $file > $tree$file
    done
    mknod $tree/dev/cpu/0/msr c 202 0
    folder=$tree_device
    [ "$1" = seamldr_ ] || folder=$tree_device/seamldr
    mkdir -p $folder
    remaining=$folder/num_remaining_updates
    echo 1.5.05 > $tree_device/version
    echo 1.5.00 > "$tree_device/$1version"
    echo 20 > $remaining
    for file in loading status error cancel remaining_size; do
        touch $tree_upload/$file
        mount --bind $upload/$file $tree_upload/$file
    done
    mkfifo $tree_upload/data
}
no_host_tree() {
    umount $tree_upload/* $tree_device/version 2> /dev/null
    rm -rf $tree
    unregister
}
# stands_in DATA CHANGE: the kernel gets this data. The image goes to /tmp/sent. CHANGE happens
# before the command ends the upload.
stands_in() {
    (
        comes is_loading
        printf "$1" > $upload/data
        eval "$2"
        exec cat $tree_upload/data > /tmp/sent
    ) &
    feeder=$!
}
# updates_tree CODE ARGUMENT...
updates_tree() {
    updates "$@" --root $tree
    # A command that refuses opens no pipe.
    [ -z "$problem" ] || kill $feeder
    wait $feeder
}

errors_for_command() {
    host_tree seamldr_
    for stage in $stages; do
        for error in $errors; do
            stands_in "inject:$stage:$error"
            updates_tree 3
            tells "$stage:$error"
        done
    done
    no_host_tree
}
# The version changes in the middle of the upload, so another program must be updating.
changed() {
    host_tree seamldr_
    stands_in inject:transferring:hw-error "echo 1.5.16 > $tree_device/version"
    updates_tree 1
    tells "\[changed\]"
    wants "what can be read" "$(cat $upload/loading $upload/status $upload/error | tr '\n' ' ')" "0 idle "
    no_host_tree
}
# sent_by_command PREFIX IMAGE: the kernel gets this image. The version of the module is 1.5.05,
# and 1.5.16 after the upload.
sent_by_command() {
    host_tree "$1"
    printf tdx_module > $tests/config_upload_name
    echo 1.5.05 > /images/first
    uploaded first ""
    mount --bind $tests/upload_read $tree_device/version
    # No file of the kernel counts the updates.
    echo unknown > $remaining
    stands_in '1.5.16\n'
    updates_tree 0 --accept unknown-remaining-updates
    tells "1.5.05 -> 1.5.16: updated"
    cmp /tmp/sent "/images/$2" || problem="$problem; this is not what was sent: $2"
    no_host_tree
}
too_large() {
    host_tree seamldr_
    rm $tree_upload/data
    touch $tree_upload/data
    mount --bind $upload/data $tree_upload/data
    updates 3 --root $tree
    tells preparing:invalid-file-size
    wants "bytes that the kernel did not take" "$(cat $upload/remaining_size)" "$(stat -c %s /images/1.5.16.v2)"
    no_host_tree
}
# The kernel reports no error, and the old module runs.
not_updated() {
    host_tree seamldr_
    stands_in x
    updates_tree 3
    tells "no error, but module .* still runs"
    no_host_tree
}
# stuck STAGE: only the driver can stop the kernel
stuck() {
    host_tree seamldr_
    stands_in "inject:$1:user-abort"
    begins_to_update --root $tree
    comes '[ "$(cat $upload/status)" = '"$1"' ]'
    kill -INT $command
    comes 'grep -q "cannot be stopped any more: waiting" /tmp/said'
    kill -0 $command || problem="$problem; the command does not wait for the kernel"
    # Another command must wait.
    mv /tmp/said /tmp/said.first
    tool 1 update $images --no-td-launches --root $tree
    tells "process $command"
    mv /tmp/said.first /tmp/said
    echo 1 > $upload/cancel
    awaits 3
    tells "$1:user-abort"
    no_host_tree
}
never_ends() {
    host_tree seamldr_
    stands_in inject:transferring:user-abort
    updates_tree 4 --timeout 10
    tells "did not finish in time"
    # The kernel still processes the upload.
    updates 1 --root $tree
    tells "another upload"
    wants status "$(cat $upload/status)" transferring
    echo 1 > $upload/cancel
    comes '[ "$(cat $upload/status)" = idle ]'
    no_host_tree
}

scenario upload-errors upload_errors
insmod /msr.ko
scenario upload-errors-for-command errors_for_command
scenario upload-changed changed
scenario upload-sent sent_by_command seamldr_ 1.5.16.v2
scenario upload-sent-v1 sent_by_command seamldr/ 1.5.16
scenario upload-too-large too_large
scenario upload-not-updated not_updated
for stage in $stages; do
    scenario upload-stuck-in-$stage stuck $stage
done
scenario upload-never-ends never_ends
rmmod msr
