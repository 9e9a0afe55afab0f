#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shows that the two commands need nothing but Debian: makes a minimal Debian 12 in a temporary
# directory, copies this checkout into it, and runs both there, then both again without a network.
# Needs root and mmdebstrap; not part of the suite.
#
#   sh tests/fresh_root.sh             tests/run.sh and examples/run.sh
#   sh tests/fresh_root.sh COMMAND...  these instead, e.g. "sh tests/run.sh --asan"
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
[ "$(id -u)" -eq 0 ] || { echo "tests/fresh_root.sh needs root" >&2; exit 2; }
. "$root/tests/setup.sh"
need mmdebstrap iproute2

fresh=$(mktemp -d)
settings=$fresh.conf
trap 'rm -rf --one-file-system "$fresh" "$settings"' EXIT
chmod 755 "$fresh"

# The archive and the settings of apt are those of this machine.
sources=
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    [ -f "$file" ] && grep -q debian-archive-keyring "$file" && sources="$sources $file"
done
apt-config dump --format '%F "%v";%n' Acquire |
    grep -E '^Acquire::(https?|Check-|Retries)' >"$settings"

echo "=== a fresh Debian 12"
# shellcheck disable=SC2086 # one word a file
mmdebstrap --quiet --variant=minbase --mode=root --aptopt="$settings" bookworm "$fresh" $sources
cp /etc/resolv.conf "$fresh/etc/resolv.conf"

mkdir "$fresh/checkout"
(cd "$root" && tar -c --exclude=./build --exclude=./.git .) | tar -x -C "$fresh/checkout"

# inside NETWORK COMMAND: in namespaces of its own, so that nothing outlives it, no process and no
# mount. Without the network only the loopback device is left.
inside() {
    net=
    [ "$1" = yes ] || net=--net
    # shellcheck disable=SC2086 # empty or one word
    unshare --mount --pid --fork --kill-child --propagation private $net sh -euc '
        ip link set lo up
        mount -t proc proc "$1/proc"
        mount -t sysfs sysfs "$1/sys"
        mount --rbind /dev "$1/dev"
        mount -t tmpfs tmpfs "$1/tmp"
        exec chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb \
            sh -c "cd /checkout && $2"
    ' sh "$fresh" "$2" </dev/null
}

[ $# -gt 0 ] || set -- "sh tests/run.sh" "sh examples/run.sh"
for network in yes no; do
    for command; do
        echo "=== network: $network; $command"
        began=$(date +%s)
        inside "$network" "$command"
        echo "=== network: $network; $command: passed in $(($(date +%s) - began)) s"
    done
done
