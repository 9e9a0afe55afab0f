#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Random schedules under the shadow model (sim_runtime.cpp), on every core: so many seeds, or for so
# long. The same seeds are the same schedules. The last line is "N passed, N failed".
set -eu

usage() {
    cat <<'END'
usage: sh tests/sim.sh [--seeds N | --seconds N] [--first SEED]

  --seeds N     so many seeds (1000), each on every poller
  --seconds N   as many as this time allows, 1 000 000 at most
  --first SEED  begins with this one (1)
END
}

refuse() {
    echo "tests/sim.sh: $1" >&2
    exit 2
}

seeds=1000
seconds=0
first=1
while [ $# -gt 0 ]; do
    case $1 in
    --seeds | --seconds | --first)
        [ $# -ge 2 ] || refuse "$1 needs a number"
        case $2 in '' | 0* | *[!0-9]*) refuse "$1 needs a number, not '$2'" ;; esac
        case $1 in
        --seeds) seeds=$2 ;;
        --seconds) seconds=$2 seeds=1000000 ;;
        *) first=$2 ;;
        esac
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        refuse "unknown argument '$1'"
        ;;
    esac
    shift
done

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/tests/setup.sh"
# shellcheck disable=SC2086 # the lists are to be split into words
need $packages_build $packages_tests

build=$root/build/sim
mkdir -p "$build"
exec 9>"$build/lock"
flock -n 9 || { echo "Waiting for another run in $build" && flock 9; }
not_built() {
    echo "0 passed, 1 failed"
    exit 1
}
cmake -S "$root" -B "$build" -G Ninja --log-level=NOTICE -DCMAKE_CXX_COMPILER=g++ \
    -DCMAKE_BUILD_TYPE= -DCMAKE_CXX_FLAGS="-O2 -g1" -DCMAKE_EXE_LINKER_FLAGS= \
    -DCMAKE_CXX_COMPILER_LAUNCHER= -DREACTOR_TESTS=ON -DREACTOR_EXAMPLES=OFF -DREACTOR_INSTALL=OFF \
    -DREACTOR_SANITIZE= 9>&- || not_built
cmake --build "$build" --target test_sim_runtime 9>&- || not_built

# Chunks of seeds, dealt out to the workers in turn. Whoever fails tells the others by a file.
chunk=500
workers=$(nproc)
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
began=$(date +%s)

work() { # work NUMBER
    place=$(($1 * chunk))
    done_here=0
    while [ "$place" -lt "$seeds" ] && [ ! -e "$logs/failed" ]; do
        [ "$seconds" -eq 0 ] || [ $(($(date +%s) - began)) -lt "$seconds" ] || break
        size=$((seeds - place < chunk ? seeds - place : chunk))
        if ! REACTOR_SIM_SEEDS=$size REACTOR_SIM_FIRST=$((first + place)) \
            "$build/tests/sim_runtime" --warn NoAssertions >"$logs/output.$1" 2>&1; then
            mv "$logs/output.$1" "$logs/failed"
            break
        fi
        done_here=$((done_here + size))
        echo "$done_here" >"$logs/done.$1"
        place=$((place + chunk * workers))
    done
}

number=0
children=
while [ "$number" -lt "$workers" ]; do
    echo 0 >"$logs/done.$number"
    work "$number" 9>&- &
    children="$children $!"
    number=$((number + 1))
done
trap 'kill $children 2>/dev/null; rm -rf "$logs"; exit 130' INT TERM
# shellcheck disable=SC2086 # the numbers are to be split into words
wait $children

all=$(cat "$logs"/done.* | awk '{ all += $1 } END { print all }')
span=$(($(date +%s) - began))
echo "$all seeds from $first on, each on every poller, a tenth of them twice: $span s," \
    "$((all * 22 / 10 / (span > 0 ? span : 1) / workers)) schedules a second and core"
if [ -e "$logs/failed" ]; then
    cat "$logs/failed"
    echo "0 passed, 1 failed"
    exit 1
fi
echo "1 passed, 0 failed"
