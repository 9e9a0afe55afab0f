#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# echo_leaks.sh ECHO_SERVER ECHO_CLIENT HEARTBEAT
#
# The examples under valgrind: no memory is lost or still held at the end, and no descriptor is left
# open.
#   the echo server, on its thread: 1000 clients, by turns with an echo and a close, with a close at
#   once, with bytes and a reset, with a half-close first; then SIGTERM
#   the heartbeat, whose deadlines are so near that it would rather wait by epoll_pwait2(2), which
#   valgrind 3.19 does not have (ENOSYS): it must beat all the same
# valgrind counts an open descriptor as an error only from 3.21 on, so its report is read here.
set -eu
echo_server=$1
echo_client=$2
heartbeat=$3
work=$(mktemp -d)
server=
leave() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap leave EXIT
trap 'exit 143' INT TERM

failed() {
    echo "$1"
    tail -n 60 "$work/report" "$work/output"
    exit 1
}

# watch PROGRAM [ARGUMENTS]: runs it in place of this shell, its report in $work/report.
watch() {
    exec valgrind --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=all \
        --track-fds=yes --error-exitcode=9 --log-file="$work/report" "$@" \
        >"$work/output" 2>&1 </dev/null
}

# clean STATUS: what a report must say after a run that ended so.
clean() {
    [ "$1" -eq 0 ] || failed "status $1"
    grep -q 'All heap blocks were freed' "$work/report" || failed "memory is still in use"
    grep -q 'FILE DESCRIPTORS: [0-9]* open' "$work/report" || failed "nothing of descriptors"
    # Of each open descriptor or socket the next line says whether it was there before.
    awk '
        open && !/<inherited from parent>/ { print open; status = 1 }
        { open = "" }
        / Open .*(descriptor|socket) [0-9]+:/ { open = $0 }
        END { exit status }
    ' "$work/report" || failed "descriptors are left open"
}

await() { # await SECONDS COMMAND...
    left=$(($1 * 20))
    shift
    until "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.05
    done
}

(watch "$echo_server" 127.0.0.1:0) &
server=$!
await 20 grep -q '^listening on ' "$work/output" || failed "the server does not listen"
port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$work/output")
"$echo_client" "$port" --visits 1000 || failed "the client was not served"
kill -TERM "$server"
status=0
wait "$server" || status=$?
server=
clean "$status"
sed -n 's/^==[0-9]*== *\(total heap usage\)/echo server: \1/p' "$work/report"

status=0
(watch "$heartbeat" 20 1) || status=$?
clean "$status"
[ "$(grep -c '^beat after' "$work/output")" -eq 20 ] || failed "not 20 beats"
grep -q 'unhandled .* syscall: 441' "$work/report" ||
    echo "This valgrind knows epoll_pwait2: what is done without it was not seen here."
echo "no leak, no descriptor left"
