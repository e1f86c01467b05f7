# SPDX-License-Identifier: MIT OR Apache-2.0
# The command tdx-seamldr, used as an operator would. `scenarios.sh` reads this file.
# The driver behaves like Linux's own (policy=linux): it checks nothing before it shuts the module
# down, and the first later failure loses the TDs. So each refusal by the command saves TDs.
# `loses` proves this: it makes the same upload without the command.

hooks=/etc/tdx-seamldr
mkdir -p /run /var/lib $hooks/pre-update.d $hooks/post-update.d
printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' > /etc/passwd
# The command checks whether the processor is unlocked for debugging.
insmod /msr.ko
images="--image-dir /images/intel"
gone="No such device or address"
cpu3=/sys/devices/system/cpu/cpu3/online

start_linux() {
    start policy=linux "$@"
    rm -rf /var/lib/tdx-seamldr $hooks/*/* /tmp/hook.* /tmp/go
}
# tool CODE ARGUMENT...: the command ends with this exit code. Its output is in /tmp/said.
tool() {
    wanted=$1
    shift
    timeout -s KILL 100 tdx-seamldr "$@" > /tmp/said 2>&1
    ended $? "$wanted"
}
# ended CODE WANTED
ended() {
    [ "$1" = "$2" ] || problem="$problem; the command ended with $1, not $2: $(tail -n 3 /tmp/said | tr '\n' ' ')"
}
# updates CODE ARGUMENT...
updates() {
    wanted=$1
    shift
    tool "$wanted" update $images --no-td-launches "$@"
}
# tells WORDS: the output of the command contains these words
tells() { grep -q -e "$1" /tmp/said || problem="$problem; \"$1\" is not in what the command says: $(tr '\n' ' ' < /tmp/said)"; }
# refuses WORDS ARGUMENT...: an update is refused for this reason, and nothing changes
refuses() {
    before=$(values) words=$1
    shift
    updates 1 "$@"
    tells "$words"
    wants "what can be read" "$(values)" "$before"
}
values() {
    for file in $device/version $device/num_remaining_updates $parameters/tds_alive $upload/loading $upload/status $upload/error; do
        cat $file 2>&1
    done | tr '\n' ' '
}
# loses IMAGE: without the command, this upload costs the TDs, and TDX until a reboot
loses() {
    uploaded "$1" "transferring:firmware-invalid"
    are_lost
    uploaded 1.5.16.v2 "transferring:firmware-invalid"
    are_lost
}
are_lost() {
    wants version "$(cat $device/version 2>&1 | sed 's/.*: //')" "$gone"
    wants tds_alive "$(cat $parameters/tds_alive)" 0
}
# hook NAME TEXT: the hook of the folder NAME.d
hook() {
    printf '#!/bin/sh\n%s\n' "$2" > $hooks/$1.d/hook
    chmod 755 $hooks/$1.d/hook
}
# comes TEST: waits until the test succeeds
comes() {
    for _ in $(seq 300); do
        eval "$1" && return
        usleep 100000
    done
    problem="$problem; this did not come: $1"
}
# The command writes `data` into a pipe, which is smaller than the image.
hold_data() {
    rm -f /tmp/pipe
    mkfifo /tmp/pipe
    mount --bind /tmp/pipe $upload/data
    sleep 1000 <> /tmp/pipe &
    holder=$!
}
# The command continues: the pipe is read, and its data is discarded.
drain_data() { cat /tmp/pipe > /dev/null & drain=$!; }
release_data() {
    kill $holder $drain
    wait $holder $drain 2> /dev/null
    drain=
    umount $upload/data
}
is_loading() { [ "$(cat $upload/loading)" = 1 ]; }
begins_to_update() {
    tdx-seamldr update $images --no-td-launches "$@" > /tmp/said 2>&1 &
    command=$!
}
awaits() {
    wait $command
    ended $? "$1"
}

# An upload to Linux's own driver by shell commands.
linux_update() {
    start_linux
    # Linux 7.2 takes only format v2.
    uploaded 1.5.16 "transferring:firmware-invalid"
    state 1.5.05 20 3
    uploaded 1.5.16.v2 ""
    state 1.5.16 19 3
    end
}

without_driver() {
    tool 0 status
    tells tdx_host
    tool 0 status --json
    tool 1 plan $images
    tells tdx_host
    updates 1
    tool 2 update --no-such-option
}
update_by_command() {
    start_linux
    tool 0 status
    tells 1.5.05
    tool 0 plan $images --no-td-launches
    tells 1.5.16
    state 1.5.05 20 3
    updates 0
    state 1.5.16 19 3
    wants loading "$(cat $upload/loading)" 0
    tool 0 history
    tells "1.5.05.*1.5.16"
    updates 0 --json
    tells '"nothing-to-do"'
    updates 0
    tells "Nothing to do"
    updates 0 1.5.16
    state 1.5.16 19 3
    end
}
cpu_offline_refused() {
    start_linux
    echo 0 > $cpu3
    refuses "\[lps-missing\]"
    loses 1.5.16.v2
    echo 1 > $cpu3
    end
}
no_updates_left() {
    start_linux updates=0
    refuses "\[no-remaining-updates\]"
    loses 1.5.16.v2
    end
}
# wrong IMAGE WORDS
wrong_image() {
    start_linux
    refuses "$2" "/images/$1"
    [ ! -e "/images/$1.v2" ] || loses "$1.v2"
    end
}
downgrade() {
    start_linux image=1.5.16
    refuses "\[minor-svn\]" 1.5.05
    refuses "\[minor-svn\]" /images/1.5.05.v2
    loses 1.5.05.v2
    end
}
same_module_again() {
    start_linux
    updates 0 1.5.05
    tells "Nothing to do"
    state 1.5.05 20 3
    updates 0 1.5.05 --allow-same-module
    state 1.5.05 19 3
    end
}
not_vouched() {
    start_linux
    tool 1 update $images
    tells "--no-td-launches"
    state 1.5.05 20 3
    hook pre-update "echo vouch no-td-launches"
    tool 0 update $images
    state 1.5.16 19 3
    end
}
# SHUTDOWN fails: the kernel reports the same error as for every failure, and the TDs stay alive.
kept() {
    start_linux
    fault 52 0 1 $module_busy 0
    updates 3
    tells firmware-invalid
    state 1.5.05 20 3
    fault
    updates 0
    state 1.5.16 19 3
    tool 0 history
    tells failed-kept
    end
}
# lost STATUS FAULT...: a call after SHUTDOWN fails. The log has this status.
lost() {
    status=$1
    shift
    start_linux
    hook post-update 'env > /tmp/hook.after'
    fault "$@"
    updates 4
    tells reboot
    are_lost
    wants "what the hook is told" "$(grep OUTCOME= /tmp/hook.after)" TDX_SEAMLDR_OUTCOME=lost
    messages > /tmp/log
    tdx-seamldr explain - < /tmp/log > /tmp/said 2>&1
    ended $? 0
    tells "$status"
    fault
    tool 0 status
    tells reboot
    tool 0 report
    tells "lost"
    updates 1
    tells "\[no-module\]"
    are_lost
    end
}
two_at_once() {
    start_linux
    hook pre-update 'touch /tmp/hook.runs; while [ ! -e /tmp/go ]; do usleep 10000; done'
    begins_to_update
    comes '[ -e /tmp/hook.runs ]'
    mv /tmp/said /tmp/said.first
    cp /bin/tdx-seamldr /tmp/copy
    /tmp/copy update $images --no-td-launches --state-dir /tmp/other > /tmp/said 2>&1
    ended $? 1
    tells "process $command"
    state 1.5.05 20 3
    touch /tmp/go
    awaits 0
    state 1.5.16 19 3
    end
}
killed() {
    start_linux
    for _ in 1 2; do
        hold_data
        begins_to_update
        comes is_loading
        usleep 300000
        kill -9 $command
        awaits 137 2> /dev/null
        release_data
        wants loading "$(cat $upload/loading)" 1
        state 1.5.05 20 3
    done
    updates 0
    tells "cancelled the upload"
    state 1.5.16 19 3
    end
}
# Another program has an open upload. The command cannot know whether that upload continues.
other_upload() {
    start_linux
    echo 1 > $upload/loading
    printf half > $upload/data
    refuses "another program has an open upload"
    wants "the upload of the other program" "$(cat $upload/data)" half
    echo -1 > $upload/loading
    updates 0
    state 1.5.16 19 3
    end
}
# Another program ends the command's upload.
other_end() {
    start_linux
    hold_data
    begins_to_update
    comes is_loading
    echo -1 > $upload/loading
    drain_data
    awaits 1
    tells "another program changed the upload"
    release_data
    wants loading "$(cat $upload/loading)" 0
    state 1.5.05 20 3
    end
}
# Another program writes into the command's upload.
other_data() {
    start_linux
    while [ ! -e /tmp/go ]; do printf x > $upload/data; done 2> /dev/null & writer=$!
    refuses "another program changed the upload"
    touch /tmp/go
    wait $writer
    updates 0
    state 1.5.16 19 3
    end
}
# The time since boot in ms, in steps of 10 ms
now() { sed 's/\([0-9]*\)\.\([0-9]*\) .*/\1\20/' /proc/uptime; }
killed_at_any_time() {
    start_linux
    begin=$(now)
    updates 0
    took=$(($(now) - begin))
    end
    went_on=0
    for part in $(seq 0 23); do
        start_linux
        begins_to_update
        usleep $((took * 1000 * part / 16))
        kill -9 $command 2> /dev/null
        wait $command 2> /dev/null
        comes '[ "$(cat $upload/status)" = idle ]'
        [ "$(cat $device/version)" = 1.5.05 ] || went_on=$((went_on + 1))
        updates 0
        state 1.5.16 19 3
        end
    done
    [ $went_on -gt 0 ] && [ $went_on -lt 24 ] || problem="$problem; $went_on of 24 updates went on"
    echo "figure updates that the kernel ended although the command was killed, of 24: $went_on"
}
interrupted() {
    start_linux
    hook post-update 'env > /tmp/hook.after'
    hold_data
    begins_to_update
    comes is_loading
    usleep 300000
    kill -"$1" $command
    drain_data
    awaits 1
    release_data
    wants loading "$(cat $upload/loading)" 0
    wants "what the hook is told" "$(grep OUTCOME= /tmp/hook.after)" TDX_SEAMLDR_OUTCOME=aborted
    state 1.5.05 20 3
    updates 0
    state 1.5.16 19 3
    end
}
not_root() {
    start_linux
    chmod 711 /var/lib
    su nobody -c "tdx-seamldr status" > /tmp/said 2>&1
    ended $? 0
    tells root
    su nobody -c "tdx-seamldr plan $images --no-td-launches" > /tmp/said 2>&1
    ended $? 1
    tells root
    before=$(values)
    su nobody -c "tdx-seamldr update $images --no-td-launches" > /tmp/said 2>&1
    ended $? 1
    tells root
    wants "what can be read" "$(values)" "$before"
    end
}
hotplug_in_hook() {
    start_linux
    hook pre-update "echo 0 > $cpu3"
    hook post-update 'env > /tmp/hook.after'
    updates 1
    tells "\[lps-missing\]"
    wants "what the hook is told" "$(grep OUTCOME= /tmp/hook.after)" TDX_SEAMLDR_OUTCOME=refused
    state 1.5.05 20 3
    echo 1 > $cpu3
    end
}
hotplug_in_upload() {
    start_linux
    hold_data
    begins_to_update
    comes is_loading
    echo 0 > $cpu3
    drain_data
    awaits 1
    tells "\[changed\]"
    release_data
    wants loading "$(cat $upload/loading)" 0
    state 1.5.05 20 3
    loses 1.5.16.v2
    echo 1 > $cpu3
    end
}
hooks() {
    start_linux
    hook pre-update 'env > /tmp/hook.before; exit 7'
    updates 1
    tells "\[hook\]"
    wants "what the hook is told" "$(grep TO= /tmp/hook.before)" TDX_SEAMLDR_TO=1.5.16
    state 1.5.05 20 3
    hook pre-update 'exit 0'
    chmod 757 $hooks/pre-update.d/hook
    refuses "\[hooks\]"
    hook pre-update 'echo TDs are drained'
    hook post-update 'env > /tmp/hook.after; exit 1'
    updates 0
    tells "TDs are drained"
    wants "what the hook is told" "$(grep -E '(OUTCOME|VERSION)=' /tmp/hook.after | sort | tr '\n' ' ')" \
        "TDX_SEAMLDR_OUTCOME=updated TDX_SEAMLDR_VERSION=1.5.16 "
    state 1.5.16 19 3
    end
}
no_record() {
    start_linux
    refuses "\[record\]" --state-dir /proc/none
    end
}
until_none_remain_by_command() {
    start_linux
    for left in $(seq 19 -1 0); do
        updates 0 1.5.16 --allow-same-module
        state 1.5.16 "$left" 3
    done
    refuses "\[no-remaining-updates\]" 1.5.16 --allow-same-module
    wants "updates in the record" "$(grep -c '"outcome":"updated"' /var/lib/tdx-seamldr/history.jsonl)" 20
    end
}

scenario linux-update linux_update
scenario command-without-driver without_driver
scenario command-update update_by_command
scenario command-cpu-offline cpu_offline_refused
scenario command-no-updates-left no_updates_left
scenario command-wrong-cpu wrong_image 2.0.08 "\[cpu\]"
scenario command-flipped-bit wrong_image flipped "\[image-hash\]"
scenario command-flipped-bit-v2 wrong_image flipped.v2 "\[image-hash\]"
scenario command-truncated wrong_image truncated "bytes"
scenario command-downgrade downgrade
scenario command-same-module same_module_again
scenario command-not-vouched not_vouched
scenario command-kernel-error kept
scenario command-lost-in-install lost EBADHASH $install 3 1 $bad_hash 1
scenario command-lost-in-init lost SYS_BUSY 33 0 100000 $module_busy 0
scenario command-lost-in-update lost SYS_BUSY 53 0 100000 $module_busy 0
scenario command-two-at-once two_at_once
scenario command-other-upload other_upload
scenario command-other-ends-it other_end
scenario command-other-writes-to-it other_data
scenario command-killed killed
scenario command-killed-at-any-time killed_at_any_time
scenario command-ctrl-c interrupted INT
scenario command-terminated interrupted TERM
scenario command-not-root not_root
scenario command-hotplug-in-hook hotplug_in_hook
scenario command-hotplug-in-upload hotplug_in_upload
scenario command-hooks hooks
scenario command-no-record no_record
scenario command-until-none-remain until_none_remain_by_command
rmmod msr
