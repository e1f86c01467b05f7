#!/bin/sh
# Labels this node with its module and its plan, every INTERVAL seconds.
set -eu

# A label's value: what Kubernetes does not allow in one becomes "_".
value() {
    jq -r "$1 // \"unknown\" | tostring | gsub(\"[^A-Za-z0-9._-]\"; \"_\") | .[:63]" "$2"
}

# How the last update of this boot ended.
outcome() {
    jq -r --rawfile boot "$host/proc/sys/kernel/random/boot_id" '
        .last_attempt
        | if . == null or .boot != ($boot | rtrimstr("\n")) then "none"
          else .outcome // "unknown" end' "$work/status"
}

host=${HOST:-/host}
work=${WORK:-/tmp}

label() {
    tdx-seamldr status --json --root "$host" > "$work/status"
    planned=0
    tdx-seamldr plan --json --root "$host" > "$work/plan" || planned=$?
    available=unknown
    case $planned in
        0) available=$(jq -r '.verdict != "nothing-to-do"' "$work/plan") ;;
        1) available=refused ;;
    esac
    kubectl label node "$NODE_NAME" --overwrite \
        "tdx-seamldr/version=$(value .module.version "$work/status")" \
        "tdx-seamldr/svn=$(value .module.svn "$work/status")" \
        "tdx-seamldr/remaining-updates=$(value .host.remaining_updates.value "$work/status")" \
        "tdx-seamldr/last-outcome=$(outcome)" \
        "tdx-seamldr/update-available=$available"
}

if [ "${1:-}" = once ]; then
    label
    exit
fi
while true; do
    # The labels of the last time stay if the API does not answer.
    sh "$0" once || echo "the node was not labelled" >&2
    sleep "${INTERVAL:-300}"
done
