#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Thousands of connections at once, over loopback: installs what is missing, builds the programs of
# tests/load, and prints a table of what was wanted and what was seen.
#
#   sh tests/load.sh                   every check: descriptors, nonreaders, slow, handover,
#                                      silence, flood
#   sh tests/load.sh --check NAME      only that one; may be given several times
#   sh tests/load.sh --silence SECONDS how long that check listens (60)
#   sh tests/load.sh --trace ...       shows each command of a check that fails
#
# Wants a machine that is not too busy, 16 000 descriptors a process, and about 1 GB of memory.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
build=$root/build/load
. "$root/tests/setup.sh"
all_checks="descriptors nonreaders slow handover silence flood"

# --- What a check can use -------------------------------------------------------------------------
# It runs in an empty directory of its own, $work, under `set -eu`.

# launch LOG PROGRAM [ARGS]: in the background, with its output in LOG; sets $launched, its id.
launch() {
    launch_log=$1
    shift
    : >"$launch_log" # now, or who looks for a line in it may find one of the last program's
    "$@" >"$launch_log" 2>&1 </dev/null &
    launched=$!
    echo "$launched" >>"$work/pids"
}

# serve [ARGS]: starts the server; sets $server, its process id.
serve() {
    launch server.log "$build/server" "$@"
    server=$launched
    await 10 grep -q '^ready' server.log || failed "the server does not listen"
}

# port DOOR: where the server listens for this.
port() { sed -n "s/^$1 listening on .*:\([0-9][0-9]*\)\$/\1/p" server.log; }

# said LOG PATTERN: the line of this log that begins so, once it is there.
said() {
    await "${patience:-30}" grep -q "^$2" "$1" || failed "no '$2' in $1: $(tail -n 3 "$1")"
    grep "^$2" "$1" | tail -n 1
}

# end PID LOG: SIGTERM; it must leave with status 0.
end() {
    end_status=0
    kill -TERM "$1" 2>/dev/null || true
    wait "$1" || end_status=$?
    [ "$end_status" -eq 0 ] || failed "status $end_status: $(tail -n 3 "$2")"
}

# counts: asks the server for its counts; they are in $work/counts, one a line.
counts() {
    counts_before=$(grep -c '^counts: ' server.log || true)
    kill -USR1 "$server"
    await 10 counts_are_more || failed "the server does not answer"
    grep '^counts: ' server.log | tail -n 1 | cut -d ' ' -f 2- | tr ' ' '\n' >counts
}
counts_are_more() { [ "$(grep -c '^counts: ' server.log || true)" -gt "$counts_before" ]; }
count() { sed -n "s/^$1=//p" counts; }
live_is() { counts && [ "$(count live)" -eq "$1" ]; }

# memory FIELD: of the server, in KiB (proc(5)): VmRSS now, VmHWM the most since `forget_peak`.
memory() { sed -n "s/^$1:[^0-9]*\([0-9]*\) kB/\1/p" "/proc/$server/status"; }
forget_peak() { echo 5 >"/proc/$server/clear_refs"; }

# wakeups SECONDS: how often a wait of the server returned in that time. It begins a second after
# strace attached, which may itself end a wait.
wakeups() {
    rm -f strace.log
    launch strace.out strace -ttt -e trace=epoll_wait,epoll_pwait,epoll_pwait2,poll,ppoll \
        -o strace.log -p "$server"
    wakeups_tracer=$launched
    await 10 grep -q attached strace.out || failed "strace: $(cat strace.out)"
    wakeups_from=$(date +%s.%N)
    sleep $(($1 + 2))
    kill -INT "$wakeups_tracer" 2>/dev/null || true
    kill -TERM "$wakeups_tracer" 2>/dev/null || true
    wait "$wakeups_tracer" || true
    awk -v from="$wakeups_from" -v seconds="$1" '
        $1 >= from + 1 && $1 < from + 1 + seconds && / = -?[0-9]+/ { n++ } END { print n + 0 }
    ' strace.log
}
# switches: how often the server has gone to sleep (its voluntary context switches).
switches() { sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' "/proc/$server/status"; }

# await SECONDS COMMAND...: until the command succeeds.
await() {
    await_left=$(($1 * 10))
    shift
    until "$@"; do
        await_left=$((await_left - 1))
        [ "$await_left" -gt 0 ] || return 1
        sleep 0.1
    done
}

# wanted WHAT SEEN TEST...: a row of the table; it failed if the test does.
wanted() {
    wanted_what=$1
    wanted_seen=$2
    shift 2
    wanted_verdict=passed
    "$@" || wanted_verdict=FAILED
    printf '%s\t%s\t%s\t%s\n' "$name" "$wanted_what" "$wanted_seen" "$wanted_verdict" >>"$work/rows"
}
# note SEEN: a row that is only told.
note() { printf '%s\t%s\t%s\t%s\n' "$name" "" "$1" "" >>"$work/rows"; }

# failed REASON: ends the check.
failed() {
    printf '%s\t%s\t%s\t%s\n' "$name" "to go through" "$*" FAILED >>"$work/rows"
    exit 1
}

# number TEXT N: the N-th number in a text.
number() { echo "$1" | grep -o '[0-9][0-9.]*' | sed -n "${2}p"; }
within() {
    awk -v value="$1" -v low="$2" -v high="$3" 'BEGIN { exit !(value >= low && value <= high) }'
}
percent() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f %%", 100 * a / b }'; }
mib() { awk -v kib="$1" 'BEGIN { printf "%.1f MiB", kib / 1024 }'; }

# --- The checks -----------------------------------------------------------------------------------

# Out of descriptors: neither hot nor deaf.
check_descriptors() {
    launch server.log prlimit --nofile=64 "$build/server"
    server=$launched
    await 10 grep -q '^ready' server.log || failed "the server does not listen"
    launch client.log "$build/client" descriptors 0 "$(port lines)"
    client=$launched
    inside=$(number "$(said client.log 'full with')" 1)
    woken=$(wakeups 5)
    wanted "at most 10 wake-ups a second with $inside served, 42 waiting" \
        "$woken in 5 s" [ "$woken" -le 50 ]
    counts
    told=$(count trouble)
    wanted "the service is told (EMFILE) once until it accepts again" "$told times" \
        [ "$told" -eq 1 ]
    wait "$client" || failed "$(tail -n 1 client.log)"
    waiters=$(said client.log waiters)
    wanted "who waits is turned away cleanly, or waits" "$waiters" \
        [ "$(number "$waiters" 2)" -eq 0 ]
    talkers=$(said client.log talkers)
    wanted "so are two that have said something" "$talkers" [ "$(number "$talkers" 1)" -eq 0 ]
    took=$(number "$(said client.log 'resumed after')" 1)
    wanted "service again within 1 s of room" "$took ms" within "$took" 0 1100
    end "$server" server.log
}

# Peers that never read, and a budget for what is owed to all of them.
check_nonreaders() {
    peers=15000
    budget=$((256 * 1024)) # KiB
    for policy in give_back end_largest end_longest; do
        serve --owed $((budget * 1024)) --shedding $policy --push 100000 --send-buffer 2048
        # Warm: so many were here before, on another door, were owed nothing, and left.
        launch hold.log "$build/client" hold $peers "$(port lines)"
        hold=$launched
        patience=60 said hold.log open >said.log
        end "$hold" hold.log
        await 20 live_is 0 || failed "$(count live) stay"
        before=$(memory VmRSS)
        launch probe.log "$build/client" probe 0 "$(port lines)"
        probe=$launched
        said probe.log probing >said.log
        forget_peak
        launch hold.log "$build/client" hold $peers "$(port push)"
        hold=$launched
        patience=60 said hold.log open >said.log
        sleep 2
        counts
        kernel=$(awk '/^TCP:/ { print int($NF * 4 / 1024) }' /proc/net/sockstat)
        peak=$(memory VmHWM)
        used=$((peak - before))
        limit="$(mib "$budget") + 5 % over $(mib "$before")"
        wanted "$policy: $peers times 100 KB: at most $limit" \
            "$(mib "$used") more ($(percent "$used" "$budget"))" \
            [ "$used" -le $((budget * 105 / 100)) ]
        note "live $(count live), sends given back $(count returned), shed $(count shed)"
        note "kernel memory of all TCP: $kernel MiB"
        wanted "$policy: and at least 90 % of it: it was the limit" "$(percent "$used" "$budget")" \
            [ "$used" -ge $((budget * 90 / 100)) ]
        end "$hold" hold.log
        await 20 live_is 1 || failed "$(count live) stay"
        sleep 1
        after=$(memory VmRSS)
        wanted "$policy: all gone: back to $(mib "$before") + 2 %" "$(mib "$after")" \
            [ "$after" -le $((before * 102 / 100)) ]
        served=0
        kill -TERM "$probe" || true
        wait "$probe" || served=$?
        wanted "$policy: an ordinary client is served throughout" "$(tail -n 1 probe.log)" \
            [ "$served" -eq 0 ]
        end "$server" server.log
    done
}

# Half-open slow clients are gone after their deadline.
check_slow() {
    clients=5000
    serve --deadline 3
    launch probe.log "$build/client" probe 0 "$(port exchange)"
    probe=$launched
    said probe.log probing >said.log
    launch slow.log "$build/client" slow $clients "$(port read)" "$(port exchange)" "$(port idle)"
    gone=0
    wait "$launched" || gone=$?
    lines=$(tail -n 1 slow.log)
    wanted "$clients half-open clients are gone" "$lines" [ "$gone" -eq 0 ]
    wanted "never early" "the first after $(number "$lines" 3) s" \
        within "$(number "$lines" 3)" 3 60
    wanted "the last within 2 s more" "$(number "$lines" 4) s" within "$(number "$lines" 4)" 3 5
    counts
    wanted "each ended with timed_out" "$(count timed_out)" [ "$(count timed_out)" -eq $clients ]
    end "$probe" probe.log
    note "an ordinary client: $(tail -n 1 probe.log)"
    end "$server" server.log
}

# A listener and its connections go from one thread to another.
check_handover() {
    HANDOVER_CONNECTIONS=1000 "$build/handover" >handover.log ||
        failed "$(grep -m 3 -A 3 FAILED handover.log)"
    grep '^handover: ' handover.log >lines.log || true
    wanted "1000 live connections: every byte, in order; every newcomer served" \
        "$(grep 'tests passed' handover.log)" grep -q 'All tests passed' handover.log
    sed 's/^handover: //' lines.log >told.log
    while read -r line; do note "$line"; done <told.log
}

# Nothing happens.
check_silence() {
    resources=10000
    serve --push 200000 --send-buffer 2048
    launch hold.log "$build/client" silence $resources "$(port states)" "$(port distant)"
    hold=$launched
    patience=60 said hold.log open >said.log
    await 20 live_is $resources || failed "$(count live) are registered, not $resources"
    sleep 2
    slept=$(switches)
    woken=$(wakeups "$silence")
    slept=$(($(switches) - slept))
    wanted "$resources registered in 12 states, $silence s: no wake-up" "$woken" [ "$woken" -eq 0 ]
    note "the process went to sleep $slept times, with strace attaching and leaving"
    counts
    wanted "all of them are still there" "$(count live)" [ "$(count live)" -eq $resources ]
    end "$hold" hold.log
    end "$server" server.log
}

# Many connect at once.
check_flood() {
    serve
    launch probe.log "$build/client" probe 0 "$(port lines)"
    probe=$launched
    said probe.log probing >said.log
    flooded=0
    "$build/client" flood 10000 "$(port lines)" >flood.log || flooded=$?
    wanted "10000 at once: each is answered" "$(tail -n 1 flood.log)" [ "$flooded" -eq 0 ]
    served=0
    kill -TERM "$probe" || true
    wait "$probe" || served=$?
    wanted "an ordinary client is served throughout" "$(tail -n 1 probe.log)" [ "$served" -eq 0 ]
    end "$server" server.log
}

# --- One check, in a process of its own that `timeout` can end ------------------------------------

if [ "${1:-}" = --inside ]; then
    name=$2
    work=$3
    silence=$4
    cd "$work"
    leave() {
        set +x
        # What was started and not ended is ours to end.
        [ ! -f pids ] || while read -r pid; do kill -KILL "$pid" 2>/dev/null || true; done <pids
    }
    trap leave EXIT
    trap 'exit 143' TERM
    [ -z "${5:-}" ] || set -x
    "check_$name"
    exit 0
fi

# --- All of it ------------------------------------------------------------------------------------

usage() {
    sed -n '6,10s/^# \{0,1\}//p' "$0"
    exit "$1"
}

chosen=
silence=60
trace=
while [ $# -gt 0 ]; do
    case $1 in
    --check)
        [ $# -ge 2 ] || usage 2 >&2
        case " $all_checks " in
        *" $2 "*) chosen="$chosen $2" ;;
        *) echo "There is no check $2" >&2 && exit 2 ;;
        esac
        shift 2
        ;;
    --silence)
        [ $# -ge 2 ] || usage 2 >&2
        silence=$2
        shift 2
        ;;
    --trace)
        trace=yes
        shift
        ;;
    -h | --help) usage 0 ;;
    *) usage 2 >&2 ;;
    esac
done

# shellcheck disable=SC2086 # the list is to be split into words
need $packages_build catch2 strace util-linux
mkdir -p "$build"
exec 9>"$build/lock"
flock -n 9 || { echo "Waiting for another run in $build" && flock 9; }
cmake -S "$root/tests/load" -B "$build" -G Ninja --log-level=NOTICE \
    -DCMAKE_CXX_COMPILER=g++ \
    -DCMAKE_BUILD_TYPE= \
    -DCMAKE_CXX_FLAGS=-O2 \
    -DCMAKE_EXE_LINKER_FLAGS= \
    -DCMAKE_CXX_COMPILER_LAUNCHER= 9>&-
cmake --build "$build" 9>&-
exec 9>&-

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
: >"$results/table"
status=0
for name in ${chosen:-$all_checks}; do
    work=$results/$name
    mkdir "$work"
    : >"$work/rows"
    echo "checking $name ..."
    ended=0
    timeout -k 5 $((120 + silence)) sh "$0" --inside "$name" "$work" "$silence" $trace \
        >"$work/output" 2>&1 </dev/null || ended=$?
    if [ "$ended" -ne 0 ]; then
        status=1
        echo "--- $name: status $ended"
        tail -n 30 "$work/output"
        for log in "$work"/*.log; do
            [ ! -s "$log" ] || { echo "--- $(basename "$log"):" && tail -n 5 "$log"; }
        done
        [ -s "$work/rows" ] && grep -q FAILED "$work/rows" ||
            printf '%s\t%s\t%s\t%s\n' "$name" "to go through" "status $ended" FAILED >>"$work/rows"
    fi
    ! grep -q FAILED "$work/rows" || status=1
    cat "$work/rows" >>"$results/table"
done

# As wide as the widest cell.
awk -F '\t' '
    BEGIN { split("check\twanted\tseen\t", head); rows = 1
        for (c = 1; c <= 4; c++) { cell[1, c] = head[c]; width[c] = length(head[c]) } }
    { rows++
        for (c = 1; c <= 4; c++) {
            cell[rows, c] = $c
            if (length($c) > width[c]) width[c] = length($c)
        } }
    END {
        print ""
        for (r = 1; r <= rows; r++)
            printf "%-" width[1] "s  %-" width[2] "s  %-" width[3] "s  %s\n",
                cell[r, 1], cell[r, 2], cell[r, 3], cell[r, 4]
    }
' "$results/table"
exit $status
