#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds, runs every test. The last line is "N passed, N failed".
set -eu

usage() {
    cat <<'END'
usage: sh tests/run.sh [--asan | --tsan | --storm] [--clang] [--filter REGEX] [--repeat N]
       sh tests/run.sh --sim N | --fuzz SECONDS | --soak SECONDS | --coverage

  --asan          under AddressSanitizer and UndefinedBehaviorSanitizer
  --tsan          under ThreadSanitizer
  --storm         only the test programs, under 10 000 signals a second
  --clang         with clang instead of gcc; builds the examples too
  --filter REGEX  builds and runs only the tests whose name matches
  --repeat N      runs the tests N times over, until one fails

  --sim N         only the simulator: N seeds; Ns (like 180s) is that many seconds of them
  --fuzz SECONDS  only the fuzz targets, so long each
  --soak SECONDS  only a server in traffic: descriptors and memory must not drift
  --coverage      lines and branches of include/reactor that the tests reach
END
}

refuse() {
    echo "tests/run.sh: $1" >&2
    exit 2
}

sanitize=
sanitizer_name=
selection=
compiler=g++
filter=
repeat=1
while [ $# -gt 0 ]; do
    case $1 in
    --asan | --tsan)
        [ -z "$sanitize" ] || refuse "one sanitizer at a time: --asan or --tsan"
        sanitizer_name=${1#--}
        if [ "$1" = --asan ]; then sanitize=address,undefined; else sanitize=thread; fi
        ;;
    --storm) selection="-C Storm -L storm" ;;
    --clang) compiler=clang++ ;;
    --filter)
        [ $# -ge 2 ] || refuse "--filter needs a regular expression"
        filter=$2
        shift
        ;;
    --repeat)
        [ $# -ge 2 ] || refuse "--repeat needs a number"
        case $2 in '' | 0* | *[!0-9]*) refuse "--repeat needs a number, not '$2'" ;; esac
        repeat=$2
        shift
        ;;
    --sim | --fuzz | --soak)
        [ $# -eq 2 ] || refuse "$1 stands alone, with a number"
        case $1$2 in
        --sim*[0-9]s) exec sh "$(dirname -- "$0")/sim.sh" --seconds "${2%s}" ;;
        --sim*) exec sh "$(dirname -- "$0")/sim.sh" --seeds "$2" ;;
        *) exec sh "$(dirname -- "$0")/${1#--}.sh" --seconds "$2" ;;
        esac
        ;;
    --coverage)
        [ $# -eq 1 ] || refuse "--coverage stands alone"
        exec sh "$(dirname -- "$0")/coverage.sh"
        ;;
    --bench) refuse "$1 is reserved and does nothing yet" ;;
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

[ -z "$selection" ] || [ -z "$sanitize" ] || refuse "no storm under a sanitizer"
[ "$compiler$sanitizer_name" != clang++tsan ] ||
    refuse "clang's ThreadSanitizer brings an operator new, and so do some tests: --tsan without --clang"

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/tests/setup.sh"

# shellcheck disable=SC2086 # the lists are to be split into words
{
    need $packages_build $packages_examples $packages_tests
    if [ "$compiler" = clang++ ]; then
        need $packages_clang
        [ -z "$sanitize" ] || need $packages_clang_sanitizers
    fi
}

# One build directory a purpose, every option explicit: the cache and the environment remember.
build=$root/build/tests
examples=OFF
if [ "$compiler" = clang++ ]; then
    build=$build-clang
    [ -n "$sanitize" ] || examples=ON
fi
[ -z "$sanitizer_name" ] || build=$build-$sanitizer_name
mkdir -p "$build"

not_built() {
    echo "$1"
    echo "0 passed, 1 failed"
    exit 1
}

# Two runs in one directory take turns.
exec 9>"$build/lock"
flock -n 9 || { echo "Waiting for another run in $build" && flock 9; }

# What makes build and run together shortest.
flags="-Og -g1"
[ "$compiler" = g++ ] || flags="-O0 -g1"
cmake -S "$root" -B "$build" -G Ninja --log-level=NOTICE \
    -DCMAKE_CXX_COMPILER="$compiler" \
    -DCMAKE_BUILD_TYPE= \
    -DCMAKE_CXX_FLAGS="$flags" \
    -DCMAKE_EXE_LINKER_FLAGS= \
    -DCMAKE_CXX_COMPILER_LAUNCHER= \
    -DREACTOR_TESTS=ON \
    -DREACTOR_EXAMPLES=$examples \
    -DREACTOR_INSTALL=ON \
    -DREACTOR_SANITIZE="$sanitize" 9>&- || not_built "The configuration failed."

targets=all
if [ -n "$filter" ]; then
    # Lines "TEST TARGET"; the tests that are not there need no building.
    targets=$(while read -r test target; do
        ! echo "$test" | grep -qE -- "$filter" || echo "$target"
    done <"$build/tests/programs.txt")
elif [ -z "$sanitize" ]; then
    targets="all all_verify_interface_header_sets"
fi
if [ -n "$targets" ]; then
    # shellcheck disable=SC2086 # the targets are to be split into words
    cmake --build "$build" --target $targets -- -k 0 9>&- || not_built "The build failed."
fi

# halt_on_error: a finding is a failure. There are no suppression files.
ASAN_OPTIONS=halt_on_error=1:detect_leaks=1:detect_stack_use_after_return=1
ASAN_OPTIONS=$ASAN_OPTIONS:strict_string_checks=1:check_initialization_order=1
UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
LSAN_OPTIONS=
export ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS LSAN_OPTIONS

count() { # count ATTRIBUTE: of the last run
    tr '\n\t' '  ' <"$build/junit.xml" | sed -n "s/.*<testsuite [^>]* $1=\"\([0-9]*\)\".*/\1/p"
}

passed=0
failed=0
skipped=0
status=0
round=1
while [ "$round" -le "$repeat" ] && [ "$status" -eq 0 ]; do
    rm -f "$build/junit.xml"
    # One more than processors: several tests wait for time to pass.
    # shellcheck disable=SC2086 # to be split into words
    ctest $selection --test-dir "$build" --no-tests=error --output-on-failure --timeout 120 \
        -j "$(($(nproc) + 1))" -R "${filter:-.}" --output-junit "$build/junit.xml" </dev/null 9>&- ||
        status=1
    if [ -f "$build/junit.xml" ]; then
        failed=$((failed + $(count failures)))
        skipped=$((skipped + $(count skipped) + $(count disabled)))
        passed=$((passed + $(count tests) - $(count failures) - $(count skipped) - $(count disabled)))
    fi
    round=$((round + 1))
done
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
    failed=1 # no test was run, or ctest itself failed
fi

sh "$root/tests/structure/scenarios.sh" "$root/tests" | tail -n 1
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
exit "$status"
