#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What an echo costs a server, in figures that repeat (rows B5 and B6): user instructions, counted
# by callgrind, and system calls, counted by strace, each as the difference of two run lengths, over
# TCP on the loopback, 64 bytes, depth 1, on 1 and on 50 connections. Beside ours stands the limit,
# raw_epoll.c. The client sends on all connections before it waits for the answers; it shares a
# processor with the server, which runs as SCHED_BATCH and so is not let in before the client
# waits: every wait of the server finds all connections ready.
#
# usage: sh tests/bench/instructions.sh [MESSAGES, 10000]
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
short=1000
long=$((short + ${1:-10000}))

work=$(mktemp -d)
server=
leave() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap leave EXIT
trap 'exit 143' INT TERM

"${CC:-gcc}" -O2 "$here/raw_epoll.c" -o "$work/raw"
"${CXX:-g++}" -std=c++20 -O2 -g1 -I"$here/../../include" "$here/echo.cpp" -o "$work/echo"
"${CXX:-g++}" -std=c++20 -O2 -g1 -I"$here/../../include" "$here/echo_executor.cpp" -o "$work/echo_executor"
"${CXX:-g++}" -std=c++20 -O2 "$here/echo_client.cpp" -o "$work/echo_client"

# serve CONNECTIONS MESSAGES CHECKER... SERVER...: one run, to its end. The client asks for one echo
# more, to know that it is there.
serve() {
    connections=$1
    messages=$2
    shift 2
    : >"$work/log"
    taskset -c 0 chrt -b 0 "$@" $((messages + 1)) >"$work/log" 2>"$work/report" &
    server=$!
    until grep -q '^listening on ' "$work/log"; do
        kill -0 "$server"
        sleep 0.1
    done
    port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$work/log")
    taskset -c 0 "$work/echo_client" "$port" --connections "$connections" --lockstep \
        --messages "$messages" >/dev/null
    wait "$server"
    server=
}

instructions() { # instructions CONNECTIONS MESSAGES SERVER...
    count=$1
    of=$2
    shift 2
    serve "$count" "$of" valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@"
    sed -n 's/^==[0-9]*== Collected : \([0-9]*\)$/\1/p' "$work/report"
}

system_calls() { # system_calls CONNECTIONS MESSAGES SERVER...
    count=$1
    of=$2
    shift 2
    serve "$count" "$of" strace -f -c -U calls,name -o "$work/calls" "$@"
    awk '$2 == "total" { print $1 }' "$work/calls"
}

# difference WHAT CONNECTIONS SERVER...: of the two run lengths, an echo.
difference() {
    what=$1
    on=$2
    shift 2
    few=$("$what" "$on" "$short" "$@")
    much=$("$what" "$on" "$long" "$@")
    echo "$few $much $((long - short))" | awk '{ printf "%.2f", ($2 - $1) / $3 }'
}

row() { # row NAME SERVER...
    name=$1
    shift
    printf '%-14s %10s %10s %12s %10s\n' "$name" \
        "$(difference instructions 1 "$@")" "$(difference instructions 50 "$@")" \
        "$(difference system_calls 1 "$@")" "$(difference system_calls 50 "$@")"
}

printf '%-14s %21s %23s\n' 'an echo' 'instructions, 1 and 50' 'system calls, 1 and 50'
row 'raw epoll' "$work/raw"
row Runtime "$work/echo"
row Reactor "$work/echo" --reactor
row Executor "$work/echo_executor"
row 'Executor once' "$work/echo_executor" --once
