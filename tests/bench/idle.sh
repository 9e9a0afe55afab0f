#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What 9 000 idle connections cost 50 active ones (row B3): echo throughput beside them against
# that without, in one run of one server. Each round measures without, with, with, without, so that
# drift is no matter; its ratio is what was served with to what was served without. Beside it, the
# same for processor time an echo, which another program on the machine disturbs less, and as the
# noise the second measurement without to the first. Rounds in which the server was less than 90 %
# busy say little about throughput: they are left out, and if fewer than three are kept, processor
# time decides. Server on processor 0, client on 1.
#
# usage: sh tests/bench/idle.sh [--reactor] [ROUNDS, 9] [SECONDS a measurement, 1]
#                               [IDLE, 9000] [ACTIVE, 50]
# Status 1 if the ratio is below 0.95.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
mode=
[ "${1:-}" != --reactor ] || { mode=$1 && shift; }
rounds=${1:-9}
seconds=${2:-1}
idle=${3:-9000}
active=${4:-50}

work=$(mktemp -d)
server=
leave() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap leave EXIT
trap 'exit 143' INT TERM

"${CXX:-g++}" -std=c++20 -O2 -I"$here/../../include" "$here/echo.cpp" -o "$work/echo"
"${CXX:-g++}" -std=c++20 -O2 "$here/echo_client.cpp" -o "$work/echo_client"

taskset -c 0 "$work/echo" $mode >"$work/log" &
server=$!
until grep -q '^listening on ' "$work/log"; do
    kill -0 "$server"
    sleep 0.05
done
port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$work/log")
taskset -c 1 "$work/echo_client" "$port" --connections "$active" --idle "$idle" \
    --rounds "$rounds" --seconds "$seconds" --warm-up 0.2 --server "$server" >"$work/lines"
kill -TERM "$server"
wait "$server"
server=

# Lines: idle connections, messages, seconds, processor seconds of the server.
awk -v idle="$idle" -v active="$active" '
    function sort(a, n,    i, j, x) {
        for (i = 2; i <= n; i++) {
            x = a[i]
            for (j = i - 1; j > 0 && a[j] > x; j--) a[j + 1] = a[j]
            a[j + 1] = x
        }
    }
    function spread(what, a, n) {
        sort(a, n)
        printf "%-34s %.3f (%.3f to %.3f, %d rounds)\n", what, a[int((n + 1) / 2)], a[1], a[n], n
        return a[int((n + 1) / 2)]
    }
    {
        k = (NR - 1) % 4
        rate[k] = $2 / $3
        cost[k] = $4 / $2
        busy[k] = $4 / $3
    }
    k == 3 {
        ++all
        without[all] = (rate[0] + rate[3]) / 2
        share = (busy[0] + busy[1] + busy[2] + busy[3]) / 4
        ratio = (rate[1] + rate[2]) / (rate[0] + rate[3])
        costs[all] = (cost[0] + cost[3]) / (cost[1] + cost[2])
        noise[all] = rate[3] / rate[0]
        cost_noise[all] = cost[0] / cost[3]
        printf "round %d: %6.0f echoes/s without, %6.0f with; ratio %.3f; processor time %.3f; " \
            "server %.0f %% busy\n", all, without[all], (rate[1] + rate[2]) / 2, ratio, costs[all],
            100 * share
        if (share >= 0.9) kept[++count] = ratio
    }
    END {
        if (!all) exit 1
        printf "\n%d idle beside %d active, to none\n", idle, active
        verdict = spread("processor time an echo, inverse", costs, all)
        spread("  the same, without to without", cost_noise, all)
        if (count) median = spread("throughput", kept, count)
        spread("  the same, without to without", noise, all)
        if (count >= 3) verdict = median
        else print "The machine was too busy for throughput: processor time decides."
        exit verdict < 0.95
    }
' "$work/lines"
