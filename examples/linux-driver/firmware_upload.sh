# SPDX-License-Identifier: MIT OR Apache-2.0
# The kernel's own test of its firmware upload, test_firmware: a second implementation of what the driver's `tdx_module` is, which fails
# where it is told to. `scenarios.sh` reads this file.

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

# What this kernel's interface does, by a shell.
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

scenario upload-errors upload_errors
