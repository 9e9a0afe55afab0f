#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds the examples, runs them against their real clients and prints
# a table of what was seen.
#
#   sh examples/run.sh                 every check
#   sh examples/run.sh --check NAME    only that one; may be given several times
#   sh examples/run.sh --trace ...     shows each command of a check that fails
#   sh examples/run.sh NAME [ARGS]     that example in the foreground, to play with
#
# The check of an example is the shell function check_NAME in examples/checks/NAME.sh. That file may
# set packages="..." (the Debian packages of its clients) and seconds=N (its limit, 120 if unset).
# The function ends with a status other than 0, or calls `failed REASON`, if something is wrong. What
# it can use stands below, from `start` on.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
here=$root/examples
build=$root/build/examples
. "$root/tests/setup.sh"

# --- What a check can use -------------------------------------------------------------------------
# It runs in an empty directory of its own, $work, under `set -eu`.

# start NAME [ARGS]: runs an example in the background and waits until it says
# "listening on 127.0.0.1:PORT"; sets $server, its process id, and $port.
start() {
    launch "$@"
    await 10 grep -q '^listening on ' "$log" || failed "$1 does not listen: $(tail -n 3 "$log")"
    port=$(sed -n 's/^listening on .*:\([0-9][0-9]*\)$/\1/p' "$log" | head -n 1)
}

# launch NAME [ARGS]: as start, for an example that listens to nobody; its output is in $log, its
# standard input is $input (empty if not set).
launch() {
    launched=$((${launched:-0} + 1))
    log=$work/$1.$launched.log
    launch_program=$build/examples/$1
    shift
    "$launch_program" "$@" <"${input:-/dev/null}" >"$log" 2>&1 &
    server=$!
    echo "$server" >>"$work/servers"
}

# stop: SIGTERM to $server, which must leave with status 0.
stop() {
    kill -TERM "$server" 2>/dev/null || failed "the server had left by itself"
    stopped=0
    wait "$server" || stopped=$?
    [ "$stopped" -eq 0 ] || failed "the server left with status $stopped: $(tail -n 3 "$log")"
}

# await SECONDS COMMAND...: until the command succeeds.
await() {
    await_left=$(($1 * 20))
    shift
    until "$@"; do
        await_left=$((await_left - 1))
        [ "$await_left" -gt 0 ] || return 1
        sleep 0.05
    done
}

# The columns of the table. `figure` may be called several times.
did() { printf '%s' "$*" >"$work/did"; }
figure() { printf '%s\n' "$*" >>"$work/figures"; }

# failed REASON: ends the check.
failed() {
    printf '%s' "$*" >"$work/reason"
    exit 1
}

# --- One check, in a process of its own that `timeout` can end ------------------------------------

if [ "${1:-}" = --inside ]; then
    name=$2
    work=$3
    cd "$work"
    leave() {
        set +x
        # What was started and not stopped is ours to end.
        [ ! -f servers ] || while read -r pid; do kill -KILL "$pid" 2>/dev/null || true; done <servers
    }
    trap leave EXIT
    trap 'exit 143' TERM
    . "$here/checks/$name.sh"
    [ -z "${4:-}" ] || set -x
    "check_$name"
    exit 0
fi

# --- All of it ------------------------------------------------------------------------------------

usage() {
    sed -n '6,9s/^# \{0,1\}//p' "$0"
    exit "$1"
}

chosen=
play=
trace=
while [ $# -gt 0 ]; do
    case $1 in
    --check)
        [ $# -ge 2 ] || usage 2 >&2
        [ -f "$here/checks/$2.sh" ] || { echo "There is no examples/checks/$2.sh" >&2; exit 2; }
        chosen="$chosen $2"
        shift 2
        ;;
    --trace)
        trace=yes
        shift
        ;;
    -h | --help) usage 0 ;;
    -*) usage 2 >&2 ;;
    *)
        play=$1
        [ -f "$here/$play.cpp" ] || [ -f "$here/$play/main.cpp" ] || { echo "There is no examples/$play.cpp" >&2; exit 2; }
        break
        ;;
    esac
done

if [ -z "$play$chosen" ]; then
    for file in "$here"/checks/*.sh; do
        [ ! -f "$file" ] || chosen="$chosen $(basename "$file" .sh)"
    done
fi

# shellcheck disable=SC2086 # the lists are to be split into words
need $packages_build $packages_examples
needed=$(for name in $chosen; do (packages= && . "$here/checks/$name.sh" && echo "$packages"); done)
# shellcheck disable=SC2086
need $needed

mkdir -p "$build"
exec 9>"$build/lock"
flock -n 9 || { echo "Waiting for another run in $build" && flock 9; }
cmake -S "$root" -B "$build" -G Ninja --log-level=NOTICE \
    -DCMAKE_CXX_COMPILER=g++ \
    -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_CXX_FLAGS= \
    -DCMAKE_EXE_LINKER_FLAGS= \
    -DCMAKE_CXX_COMPILER_LAUNCHER= \
    -DREACTOR_TESTS=OFF \
    -DREACTOR_EXAMPLES=ON \
    -DREACTOR_INSTALL=OFF \
    -DREACTOR_SANITIZE= 9>&-
target=all
[ -z "$play" ] || target=example_$play
cmake --build "$build" --target "$target" 9>&-
exec 9>&-

if [ -n "$play" ]; then
    shift
    exec "$build/examples/$play" "$@"
fi

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
: >"$results/table"
status=0
for name in $chosen; do
    work=$results/$name
    mkdir "$work"
    : >"$work/did"
    : >"$work/figures"
    : >"$work/reason"
    seconds=$(seconds=120 && . "$here/checks/$name.sh" && echo "$seconds")
    echo "checking $name ..."
    ended=0
    timeout -k 5 "$seconds" sh "$0" --inside "$name" "$work" $trace \
        >"$work/output" 2>&1 </dev/null || ended=$?
    verdict=ok
    if [ "$ended" -ne 0 ]; then
        verdict=FAILED
        status=1
        [ "$ended" -ne 124 ] || echo "not done after $seconds s" >>"$work/output"
        echo "--- $name: status $ended, $(cat "$work/reason")"
        [ -s "$work/reason" ] || [ -n "$trace" ] || echo "(--trace shows the command)"
        tail -n 30 "$work/output"
        for log in "$work"/*.log; do
            [ ! -s "$log" ] || { echo "--- $(basename "$log"):" && tail -n 10 "$log"; }
        done
        echo "---"
    fi
    printf '%s\t%s\t%s\t%s\n' "$name" "$(cat "$work/did")" "$(head -n 1 "$work/figures")" \
        "$verdict" >>"$results/table"
    sed -n '2,$s/.*/\t\t&\t/p' "$work/figures" >>"$results/table"
done

[ -s "$results/table" ] || { echo "There are no checks." >&2; exit 1; }
# As wide as the widest cell.
awk -F '\t' '
    BEGIN { split("example\twhat was done\tfigures\t", head); rows = 1
        for (c = 1; c <= 4; c++) { cell[1, c] = head[c]; width[c] = length(head[c]) } }
    { rows++
        for (c = 1; c <= 4; c++) { cell[rows, c] = $c; if (length($c) > width[c]) width[c] = length($c) } }
    END {
        print ""
        for (r = 1; r <= rows; r++)
            printf "%-" width[1] "s  %-" width[2] "s  %-" width[3] "s  %s\n",
                cell[r, 1], cell[r, 2], cell[r, 3], cell[r, 4]
    }
' "$results/table" | sed 's/ *$//'
exit $status
