#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Coverage of include/reactor by line and by outcome of each condition: installs what is missing,
# builds the test programs with clang's counters, runs them, and prints a table; build/coverage/html
# has it line by line. What is not covered must be explained in tests/coverage/uncovered.txt:
# otherwise, and where a test fails, the status is not zero. Stale explanations are told.
#
#   sh tests/coverage.sh           all of it
#   sh tests/coverage.sh --again   only reads anew what the last run has counted
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
build=$root/build/coverage
. "$root/tests/setup.sh"

again=
while [ $# -gt 0 ]; do
    case $1 in
    --again) again=yes ;;
    -h | --help)
        sed -n '8,9s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *) echo "tests/coverage.sh: unknown argument '$1'" >&2 && exit 2 ;;
    esac
    shift
done

# shellcheck disable=SC2086 # the lists are to be split into words
need $packages_build $packages_examples $packages_tests $packages_clang $packages_clang_sanitizers

run_tests() { # run_tests PATTERN NAMES: with the counters in files that are named so
    LLVM_PROFILE_FILE=$build/profiles/$1.profraw ctest --test-dir "$build" --no-tests=error \
        --output-on-failure --timeout 300 -j "$(nproc)" \
        -R "^($(echo "$2" | tr '\n' '|' | sed 's/|$//'))\$" </dev/null 9>&- || status=1
}

mkdir -p "$build"
exec 9>"$build/lock"
flock -n 9 || { echo "Waiting for another run in $build" && flock 9; }

# Counters that stand in the file itself count in a forked child and in a process that is killed as
# well. Some counts are differences of others, so that none may be lost where threads count at once:
# atomic. Optimisation would only confuse; warnings are tests/run.sh's concern.
cmake -S "$root" -B "$build" -G Ninja --log-level=NOTICE \
    -DCMAKE_CXX_COMPILER=clang++ \
    -DCMAKE_BUILD_TYPE= \
    -DCMAKE_CXX_FLAGS="-O0 -w -fprofile-instr-generate -fcoverage-mapping -mllvm \
-runtime-counter-relocation -fprofile-update=atomic" \
    -DCMAKE_EXE_LINKER_FLAGS= \
    -DCMAKE_CXX_COMPILER_LAUNCHER= \
    -DREACTOR_TESTS=ON \
    -DREACTOR_EXAMPLES=OFF \
    -DREACTOR_INSTALL=OFF \
    -DREACTOR_SANITIZE= 9>&-

# The unit tests: those whose program bears their name.
names=$(awk '$2 == "test_" $1 { print $1 }' "$build/tests/programs.txt")
status=0
if [ -z "$again" ]; then
    targets=$(echo "$names" | sed 's/^/test_/')
    # shellcheck disable=SC2086 # the list is to be split into words
    cmake --build "$build" --target $targets 9>&-

    rm -rf "$build/profiles"
    mkdir "$build/profiles"
    # Counters in the file keep a descriptor open, which those notice that look for what they were
    # started with; these write the file at their end.
    run_tests %p%c "$(echo "$names" | grep -vx inherited)"
    run_tests %p inherited
    llvm-profdata merge -sparse "$build/profiles" -o "$build/all.profdata"
    rm -rf "$build/profiles"
fi

set --
for name in $names; do
    set -- "$@" "$build/tests/$name"
done
python3 "$root/tests/coverage/report.py" --root "$root" --profile "$build/all.profdata" \
    --uncovered "$root/tests/coverage/uncovered.txt" --html "$build/html" "$@" || status=1
[ "$status" -eq 0 ] || echo "FAILED"
exit "$status"
