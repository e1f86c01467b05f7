#!/bin/sh
# Lets an update begin only if this node has the annotation tdx-seamldr/update with this target,
# takes no new pods, and no node has lost its TDs.
set -eu

refuse() {
    echo "refused: $1" >&2
    exit 1
}

kubectl get node "$NODE_NAME" -o json > /tmp/node
wanted=$(jq -r '.metadata.annotations["tdx-seamldr/update"] // "nothing"' /tmp/node)
[ "$wanted" = "$TARGET" ] ||
    refuse "the annotation tdx-seamldr/update of $NODE_NAME says $wanted, but should say $TARGET"
[ "$(jq -r '.spec.unschedulable // false' /tmp/node)" = true ] ||
    refuse "$NODE_NAME takes new pods: run kubectl cordon, so that no TD is built"
failed=$(kubectl get nodes -l 'tdx-seamldr/last-outcome in (lost, unknown)' -o name)
[ -z "$failed" ] || refuse "TDs are lost, or their fate is unknown, on $failed: look there first"
