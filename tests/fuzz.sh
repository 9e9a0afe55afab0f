#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the fuzz targets of tests/fuzz under libFuzzer, AddressSanitizer and
# UndefinedBehaviorSanitizer, one after the other, and prints a line for each. Exits with 1 at a
# finding and says how to replay it, with 2 where it cannot run. The last line is "N passed, N
# failed".
set -eu

usage() {
    cat <<'END'
usage: sh tests/fuzz.sh [--seconds N] [--seed N] [--merge] [TARGET...]

  --seconds N  of each target, 30 if not given; 0: only its corpus, once
  --seed N     of the mutations, 1 if not given: a longer run begins like a shorter one; 0: any
  --merge      afterwards puts into tests/fuzz/corpus what reaches anything new, minimised
  TARGET       only these; by default each tests/fuzz/TARGET.cpp
END
}

refuse() {
    echo "tests/fuzz.sh: $1" >&2
    exit 2
}

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
rooms=$root/tests/fuzz
build=$root/build/fuzz
seconds=30
seed=1
merge=
targets=
while [ $# -gt 0 ]; do
    case $1 in
    --seconds)
        [ $# -ge 2 ] || refuse "--seconds needs a number"
        case $2 in '' | *[!0-9]*) refuse "--seconds needs a number, not '$2'" ;; esac
        seconds=$2
        shift
        ;;
    --seed)
        [ $# -ge 2 ] || refuse "--seed needs a number"
        case $2 in '' | *[!0-9]*) refuse "--seed needs a number, not '$2'" ;; esac
        seed=$2
        shift
        ;;
    --merge) merge=yes ;;
    -h | --help)
        usage
        exit 0
        ;;
    -*)
        usage >&2
        refuse "unknown argument '$1'"
        ;;
    *)
        if [ "$1" = replay ] || ! [ -f "$rooms/$1.cpp" ]; then
            refuse "there is no target '$1'"
        fi
        targets="$targets $1"
        ;;
    esac
    shift
done
if [ -z "$targets" ]; then
    for source in "$rooms"/*.cpp; do
        name=$(basename "$source" .cpp)
        [ "$name" = replay ] || targets="$targets $name"
    done
fi

# shellcheck source=tests/setup.sh
. "$root/tests/setup.sh"
# shellcheck disable=SC2086 # lists of packages
need g++ $packages_clang $packages_clang_sanitizers node-llhttp

sanitizers="-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all"
mkdir -p "$build/found"
echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' \
    >"$build/probe.cc"
# shellcheck disable=SC2086 # flags
clang++ $sanitizers "$build/probe.cc" -o "$build/probe" 2>"$build/probe.log" || {
    cat "$build/probe.log" >&2
    refuse "clang++ has no libFuzzer here (Debian: libclang-rt-14-dev)"
}

# build_target NAME: unless nothing that it might be made of has changed.
build_target() {
    program=$build/$1
    if [ -x "$program" ] && [ -z "$(find "$root/include" "$rooms" "$root/tests/sim" \
        "$root/examples/http_upload" -name '*.[ch]pp' -newer "$program" 2>/dev/null)" ]; then
        return 0
    fi
    more=
    if [ "$1" = request ]; then # its coverage counts as well
        for source in api http llhttp; do
            clang -O1 -g1 -fsanitize=fuzzer-no-link,address -I/usr/share/include/llhttp \
                -c "/usr/share/llhttp/$source.c" -o "$build/$source.o" || return 1
        done
        more="-isystem /usr/share/include/llhttp $build/api.o $build/http.o $build/llhttp.o"
    fi
    # shellcheck disable=SC2086 # flags
    clang++ -std=c++20 -O1 -g1 -fno-omit-frame-pointer $sanitizers -I"$root/include" \
        -I"$root/tests" -I"$root/examples" "$rooms/$1.cpp" $more -o "$program.new" &&
        mv "$program.new" "$program"
}

# run_target NAME
run_target() {
    seeds=$rooms/corpus/$1
    corpus=$build/corpus/$1
    log=$build/$1.log
    mkdir -p "$corpus" "$seeds"
    set -- "$1" -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 -seed="$seed" \
        -artifact_prefix="$build/found/$1-" "$corpus" "$seeds"
    [ ! -f "$rooms/$1.dict" ] || set -- "$@" -dict="$rooms/$1.dict"
    # Slow, so it would take hours to come to schedules that are long enough to be read.
    [ "$1" != runtime ] || set -- "$@" -len_control=0 -max_len=256
    if [ "$seconds" -eq 0 ]; then
        set -- "$@" -runs=0
    else
        set -- "$@" -max_total_time="$seconds"
    fi
    name=$1
    shift
    status=0
    ASAN_OPTIONS=detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1 \
        "$build/$name" "$@" >"$log" 2>&1 || status=$?
    of_stats() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
    coverage=$(sed -n 's/.* cov: \([0-9]*\) ft: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    printf '%-14s %12s %10s %10s %10s  ' "$name" "$(of_stats number_of_executed_units)" \
        "$(of_stats average_exec_per_sec)" "$coverage" "$(of_stats new_units_added)"
    if [ "$status" -eq 0 ]; then
        echo ok
        return 0
    fi
    echo FINDING
    grep -E '^fuzz: |ERROR: |runtime error: |SUMMARY: ' "$log" | head -n 5 | sed 's/^/    /'
    found=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    echo "    replay: $build/$name ${found:-(no input was kept; see $log)}"
    return 1
}

# merge_target NAME: by edges alone, not by how often: dozens of files in place of hundreds.
merge_target() {
    merged=$build/merged/$1
    rm -rf "$merged"
    mkdir -p "$merged"
    "$build/$1" -merge=1 -use_counters=0 -rss_limit_mb=2048 -timeout=20 "$merged" \
        "$rooms/corpus/$1" "$build/corpus/$1" >"$build/$1.merge.log" 2>&1
    rm -rf "$rooms/corpus/$1"
    mv "$merged" "$rooms/corpus/$1"
    echo "    corpus: $(find "$rooms/corpus/$1" -type f | wc -l) files"
}

# report NAME PROCESS: waits for the run of a target, and shows what it said.
report() {
    if wait "$2"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
    cat "$build/$1.report"
}

# While one is built, those before it run: as many at once as there are processors.
passed=0
failed=0
children=
trap 'kill $children 2>/dev/null; exit 130' INT TERM
printf '%-14s %12s %10s %10s %10s\n' target executions "a second" edges "new units"
set -- # the runs that are under way: NAME PROCESS ...
for target in $targets; do
    if ! build_target "$target"; then
        echo "$target does not build"
        failed=$((failed + 1))
        continue
    fi
    { run_target "$target" && { [ -z "$merge" ] || merge_target "$target"; }; } \
        >"$build/$target.report" 2>&1 &
    children="$children $!"
    set -- "$@" "$target" "$!"
    if [ $# -ge $((2 * $(nproc))) ]; then
        report "$1" "$2"
        shift 2
    fi
done
while [ $# -gt 0 ]; do
    report "$1" "$2"
    shift 2
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
