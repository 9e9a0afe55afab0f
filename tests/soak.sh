#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A soak on the real kernel: two reactors, two executors and a pool of threads serve clients over
# TCP and UNIX sockets that connect, talk, half-close, reset, stall and vanish, as fast as the
# machine lets them. Prints a table; the status is not zero if a byte or an answer was wrong, if at
# a rest there were more descriptors than after the warm-up, or if memory grew by more than noise.
# What was seen each second is in build/soak/samples.csv.
#
#   sh tests/soak.sh                 for ten minutes
#   sh tests/soak.sh --seconds N     for so long, after ten seconds of warm-up; 60 at least
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
build=$root/build/soak
. "$root/tests/setup.sh"

usage() {
    sed -n '9,10s/^# \{0,1\}//p' "$0"
    exit "$1"
}

seconds=600
while [ $# -gt 0 ]; do
    case $1 in
    --seconds)
        [ $# -ge 2 ] || usage 2 >&2
        seconds=$2
        case $seconds in '' | 0* | *[!0-9]*) usage 2 >&2 ;; esac
        [ "$seconds" -ge 60 ] || usage 2 >&2
        shift
        ;;
    -h | --help) usage 0 ;;
    *) usage 2 >&2 ;;
    esac
    shift
done

# shellcheck disable=SC2086 # the list is to be split into words
need $packages_build
mkdir -p "$build"
exec 9>"$build/lock"
flock -n 9 || { echo "Waiting for another run in $build" && flock 9; }
cmake -S "$root/tests/soak" -B "$build" -G Ninja --log-level=NOTICE \
    -DCMAKE_CXX_COMPILER=g++ \
    -DCMAKE_BUILD_TYPE= \
    -DCMAKE_CXX_FLAGS="-O2 -g1" \
    -DCMAKE_EXE_LINKER_FLAGS= \
    -DCMAKE_CXX_COMPILER_LAUNCHER= 9>&-
cmake --build "$build" 9>&-

# It rests at times until nothing is alive, for which a busy machine may need a while.
timeout -k 10 $((3 * seconds + 300)) "$build/soak" "$seconds" "$build/samples.csv" 9>&-
