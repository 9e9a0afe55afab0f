#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the first sample of README.md costs to compile and to keep (row B14), at -O2: seconds of the
# compiler's own time (median of 5, user and system), lines that it reads (preprocessed, without
# blank ones and line markers), and bytes of .text, of the object and of the linked program. Beside
# it an empty program with the same standard and system headers.
#
# usage: sh tests/bench/footprint.sh [COMPILER, g++] [RUNS, 5]
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$here/../..
compiler=${1:-g++}
runs=${2:-5}
flags="-std=c++20 -O2 -I$root/include"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

awk -f "$root/tests/readme/first_sample.awk" "$root/README.md" >"$work/sample.cpp"
# shellcheck disable=SC2086 # the flags are to be split into words
"$compiler" $flags -MM "$work/sample.cpp" | tr -d '\\' | tr -s ' ' '\n' |
    grep '/reactor/' | xargs sed -n '/^#include <reactor\//d; s/^\(#include <[^>]*>\).*/\1/p' |
    sort -u >"$work/alone.cpp"
echo 'int main() {}' >>"$work/alone.cpp"

seconds() { # seconds FILE
    for run in $(seq "$runs"); do
        # shellcheck disable=SC2086
        bash -c 'TIMEFORMAT="%3U %3S"; time "$@"' - "$compiler" $flags -c "$1" -o "$work/object" \
            2>&1 || echo "run $run failed" >&2
    done | awk '{ print $1 + $2 }' | sort -n | sed -n "$(((runs + 1) / 2))p"
}

text() { size -A "$1" | awk '/^\.text/ { bytes += $2 } END { print bytes }'; }

row() { # row NAME FILE
    # shellcheck disable=SC2086
    lines=$("$compiler" $flags -E -P "$2" | grep -c .)
    time=$(seconds "$2")
    object=$(text "$work/object")
    "$compiler" "$work/object" -o "$work/program"
    printf '%-16s %8s %8s %8s %8s\n' "$1" "$time" "$lines" "$object" "$(text "$work/program")"
}

printf '%-16s %8s %8s %8s %8s\n' "$("$compiler" -dumpversion)" seconds lines object program
row 'headers alone' "$work/alone.cpp"
row 'first sample' "$work/sample.cpp"
