#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# happy_eyeballs.sh CONNECTOR_CLIENT
#
# A TcpConnector where IPv6 is broken, in a network namespace of its own. On both pollers:
#   IPv6 leads into a black hole (routed, sent, never answered), IPv4 answers: connected by IPv4,
#   after the delay of 250 ms and within 400 ms
#   IPv6 has no route, IPv4 answers: connected by IPv4, without the delay
#   the black hole alone: timed out at the deadline (so it is one)
# Each time one end, at most one event, and of all attempts only the winner's descriptor is left.
# A busy machine is late now and then: "within" is asked of the best of five runs, all else of each.
# Ends with 77, and says why, where there can be no such namespace.
set -eu
client=$1

if [ "${2-}" != inside ]; then
    for how in -n -rn; do
        if unshare "$how" true 2>/dev/null; then
            exec unshare "$how" sh "$0" "$client" inside
        fi
    done
    echo "SKIPPED: this machine lets nobody here make a network namespace (unshare -n)"
    exit 77
fi
skip() {
    echo "SKIPPED: in a network namespace of its own, $1"
    exit 77
}
[ -e /proc/net/if_inet6 ] || skip "this machine has no IPv6"
command -v ip >/dev/null || skip "there is no command ip (package iproute2)"
ip link set lo up
# What is sent to the black hole goes out at one end of a cable and in at the other, where it is
# meant for somebody else, by its hardware address, and is dropped.
ip link add out type veth peer name in 2>/dev/null || skip "there is no veth device"
ip link set out up
ip link set in up
ip -6 addr add fd00:1::1/64 dev out nodad || skip "there are no IPv6 addresses"
ip -6 neigh add fd00:1::2 lladdr 02:00:00:00:00:02 dev out nud permanent
ip addr add 10.77.0.1/24 dev out

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed() {
    echo "$1"
    cat "$work/output"
    exit 1
}
answering=10.77.0.1:7777
hole="[fd00:1::2]:7777"
unroutable="[2001:db8::1]:7777"

value() { sed -n "s/^$1 //p" "$work/output"; }
# attempt POLLER DEADLINE EVENTS END ADDRESS...: runs the client, looks at all but the time.
attempt() {
    poller=$1
    deadline=$2
    events=$3
    end=$4
    shift 4
    timeout 30 "$client" "$poller" "$deadline" "$answering" "$@" >"$work/output" 2>&1 ||
        failed "$poller: the client failed"
    [ "$(value event)" = "$events" ] || failed "$poller: the events are not: $events"
    [ "$(value end)" = "$end" ] || failed "$poller: the end is not $end"
    # The winner's, if there is one.
    [ "$(value descriptors)" -eq "$(grep -c '^event ' "$work/output")" ] ||
        failed "$poller: attempts were left open"
    milliseconds=$(value milliseconds)
}
# best LEAST MOST POLLER...: of five attempts, which never take less than LEAST.
best() {
    least=$1
    most=$2
    shift 2
    times=
    for _ in 1 2 3 4 5; do
        attempt "$@"
        times="$times $milliseconds"
        [ "$milliseconds" -ge "$least" ] || failed "$1: after $milliseconds ms, too early"
        [ "$milliseconds" -ge "$most" ] || return 0
    done
    failed "$1: never within $most ms, but after$times ms"
}
received() { awk '$1 == "in:" { print $3 }' /proc/net/dev; }

for poller in epoll poll; do
    before=$(received)
    best 250 400 "$poller" 10000 "$answering" 0 "$hole" "$answering"
    echo "$poller: IPv6 in a black hole: connected by IPv4 after$times ms"
    [ "$(received)" -gt "$before" ] || failed "nothing was sent into the black hole"
    best 0 250 "$poller" 10000 "$answering" 0 "$unroutable" "$answering"
    echo "$poller: no route for IPv6: connected by IPv4 after$times ms"
    attempt "$poller" 1000 "" 110 "$hole"
    [ "$milliseconds" -ge 1000 ] || failed "$poller: timed out after $milliseconds ms, too early"
    echo "$poller: the black hole alone: timed out after $milliseconds ms"
done
