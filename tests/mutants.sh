#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# mutants.sh [--seeds N] [--sim] [--check] [NAME...] : who watches the watchmen. Each file
# tests/mutants/NAME.mutant is one deliberate bug. It is put into a copy of the headers, and the
# schedules of tests/sim_runtime.cpp must find it within N seeds a poller (2000 unless said
# otherwise); or the test that it names, where the simulation cannot see it. Prints a table: by
# what each was found, and at which seed. Ends with status 1 if one survives that is not listed as
# equivalent, with 2 if the list is out of date. Builds one program at a time: about ten seconds a
# mutant.
#
#   --sim    tries the simulation also on those that name another test
#   --check  only sees whether each text stands where it should, once
#
# A mutant: lines `KEY: VALUE`, then one or more times the text and what takes its place.
#
#   breaks: what goes wrong, and which promise that is
#   header: below include/reactor
#   by: TEST [ARGUMENT]    found by tests/TEST.cpp (run with that), not by the simulation
#   because: why the simulation does not see it, or why no test can
#   flags: for the compiler
#   equivalent: yes        nobody can tell it from what is right
#   <<<<
#   the exact text, which must stand there once
#   ====
#   what takes its place
#   >>>>
set -u

usage() {
    echo "usage: sh tests/mutants.sh [--seeds N] [--sim] [--check] [NAME...]" >&2
    exit 2
}
seeds=2000
try_sim=no
only_check=no
while [ $# -gt 0 ]; do
    case $1 in
    --seeds)
        [ $# -ge 2 ] || usage
        seeds=$2
        shift
        ;;
    --sim) try_sim=yes ;;
    --check) only_check=yes ;;
    -*) usage ;;
    *) break ;;
    esac
    shift
done
case $seeds in '' | 0* | *[!0-9]*) usage ;; esac

tests=$(cd "$(dirname -- "$0")" && pwd)
compiler=${CXX:-g++}
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
if [ $# -eq 0 ]; then
    for file in "$tests"/mutants/*.mutant; do
        file=${file##*/}
        set -- "$@" "${file%.mutant}"
    done
fi

# The headers and the tests as they are now: they may change while this runs.
cp -r "$tests/../include" "$work/right" || exit 2
mkdir "$work/tests" || exit 2
cp "$tests"/*.cpp "$tests"/*.hpp "$work/tests/" || exit 2
if [ -d "$tests/sim" ]; then cp -r "$tests/sim" "$work/tests/sim" || exit 2; fi

value_of() { # KEY FILE
    awk -v key="$1: " '
        /^<<<<$/ { exit }
        index($0, key) == 1 { print substr($0, length(key) + 1) }
    ' "$2"
}

# mutate FILE HEADER : writes the header as the mutant has it; says why if it cannot.
mutate() {
    awk -v out="$3" '
        function fail(why) { print why; status = 1; exit 1 }
        FILENAME == ARGV[1] { # the mutant
            if ($0 == "<<<<") { part = "from"; from[++pairs] = ""; to[pairs] = ""; lines = 0 }
            else if ($0 == "====" && part == "from") { part = "to"; lines = 0 }
            else if ($0 == ">>>>" && part == "to") part = ""
            else if (part == "from") from[pairs] = from[pairs] (lines++ ? "\n" : "") $0
            else if (part == "to") to[pairs] = to[pairs] (lines++ ? "\n" : "") $0
            next
        }
        { text = text $0 "\n" }
        END {
            if (status) exit status
            if (!pairs || part != "") fail("no text, or one without an end")
            for (n = 1; n <= pairs; ++n) {
                at = from[n] == "" ? 0 : index(text, from[n])
                if (!at) fail("its text is not there: " from[n])
                rest = substr(text, at + length(from[n]))
                if (index(rest, from[n])) fail("its text is there more than once: " from[n])
                text = substr(text, 1, at - 1) to[n] rest
            }
            printf "%s", text > out
        }
    ' "$1" "$2"
}

# build INCLUDE SOURCE FLAGS : makes the program $work/mutant.
build() {
    # shellcheck disable=SC2086 # the flags are to be split into words
    nice "$compiler" -std=c++20 -g0 -w $3 "-I$1" "-I$work/tests" "$work/tests/$2" \
        -o "$work/mutant" -lCatch2WithMain -lfmt -lpthread >"$work/log" 2>&1
}

# guarded SECONDS COMMAND... : at most so much of a processor, ten times as long, and 4 GB.
# shellcheck disable=SC3045 # limits that POSIX does not name; dash and bash have them
guarded() {
    (
        ulimit -c 0
        ulimit -t "$1" || exit 125
        case $flags in *sanitize*) ;; *) ulimit -v 4000000 ;; esac
        limit=$1
        shift
        nice timeout -k 5 $((10 * limit)) "$@"
        exit $? # not exec: what the shell says of a crash belongs to the output
    ) >"$work/out" 2>&1
}

# schedules FIRST COUNT : runs so many seeds from that one. True if nothing was found.
schedules() {
    REACTOR_SIM_FIRST=$1 REACTOR_SIM_SEEDS=$2 guarded $((10 + $2 / 50)) "$work/mutant"
}

# What the last run found, from its output and its status.
what_was_found() {
    found=$(sed -n 's/^ *seed [0-9]*, after [0-9]* calls: //p' "$work/out" | head -n 1)
    [ -n "$found" ] || found=$(sed -n 's/.*Assertion .\(.*\). failed.*/assert: \1/p' "$work/out" |
        head -n 1)
    [ -n "$found" ] || found=$(grep -E -m 1 'nothing will ever happen' "$work/out" |
        sed 's/.*reactor::sim: //; s/;.*//; s/seed [0-9]*/this seed/')
    [ -n "$found" ] || found=$(sed -n 's/^ *\(SIG[A-Z]* - .*\)/\1/p' "$work/out" | head -n 1)
    [ -n "$found" ] || case $1 in
    124 | 137 | 152) found="it never comes back" ;;
    *) found="ends with status $1" ;;
    esac
}

# search INCLUDE FLAGS : looks for a seed that finds what is wrong in these headers. Most are found
# soon: so first a program that is built quickly, then one that runs quickly. Sets `found` and
# `seed`; true if there is one. False with `found` set: does not build.
search() {
    first=1
    optimised=
    for count in 100 1000 "$seeds"; do
        [ "$count" -le "$seeds" ] || count=$seeds
        [ "$first" -le "$count" ] || continue
        if [ "$optimised" != -O1 ]; then
            [ -z "$optimised" ] && optimised=-O0 || optimised=-O1
            if ! build "$1" sim_runtime.cpp "$optimised $2"; then
                found="does not build: $(grep -m 1 error "$work/log")"
                return 1
            fi
        fi
        schedules "$first" $((count - first + 1))
        status=$?
        if [ $status -ne 0 ]; then
            what_was_found $status
            seed=$(sed -n 's/^ *seed \([0-9]*\), after [0-9]* calls: .*/\1/p' "$work/out" |
                sort -n | head -n 1)
            [ -n "$seed" ] || narrow "$first" "$count"
            return 0
        fi
        first=$((count + 1))
    done
    return 1
}
# narrow FIRST LAST : a crash does not say at which seed; sets `seed`.
narrow() {
    from=$1
    last=$2
    while [ "$from" -lt "$last" ]; do
        step=$(((last - from) / 8 + 1))
        if schedules "$from" $step; then
            from=$((from + step))
        else
            last=$((from + step - 1))
        fi
        [ $step -gt 1 ] || [ "$from" -le "$last" ] || break
    done
    seed=$from
}

# by_test TEST ARGUMENT : true if that test fails.
by_test() {
    if [ -n "$2" ]; then
        guarded 60 "$work/mutant" --abort "$2"
    else
        guarded 60 "$work/mutant" --abort
    fi
    status=$?
    [ $status -ne 0 ] || return 1
    if grep -q 'ThreadSanitizer: data race' "$work/out"; then
        found="data race"
    else
        found=$(awk '/^-----/ { getline; sub(/ - (Basic)?(reactor::)?[A-Za-z]*Poller.*/, ""); print
            exit }' "$work/out")
        [ -n "$found" ] || what_was_found $status
    fi
    found="tests/$1: $found"
    seed=-
}
# Once for each test: what is right must pass, or a failure says nothing.
passes_right() { # TEST ARGUMENT FLAGS
    key=$(printf '%s' "$1 $2 $3" | cksum | tr -d ' ')
    [ ! -e "$work/passes.$key" ] || return 0
    build "$work/right" "$1.cpp" "-O0 $3" || return 1
    ! by_test "$1" "$2" || return 1
    : >"$work/passes.$key"
}

row() { printf '%-40s %-9s %6s  %s\n' "$1" "$2" "$3" "$4"; }
out_of_date() {
    row "$1" ERROR - "$2"
    result=2
}

# --- the list ------------------------------------------------------------------------------------

result=0
mutants=0
for name; do
    file=$tests/mutants/$name.mutant
    mutants=$((mutants + 1))
    if [ ! -f "$file" ]; then
        out_of_date "$name" "there is no $file"
        continue
    fi
    for key in breaks header; do
        [ -n "$(value_of $key "$file")" ] || out_of_date "$name" "has no line '$key: ...'"
    done
    if [ -n "$(value_of by "$file")$(value_of equivalent "$file")" ] &&
        [ -z "$(value_of because "$file")" ]; then
        out_of_date "$name" "does not say because of what"
    fi
    header=$(value_of header "$file")
    if ! why=$(mutate "$file" "$work/right/reactor/$header" "$work/mutated" 2>&1); then
        out_of_date "$name" "$why"
    fi
done
[ $result -eq 0 ] || exit $result
if [ $only_check = yes ]; then
    echo "$mutants mutants, each text is there once"
    exit 0
fi

# --- what is right, and then each mutant ---------------------------------------------------------

flags=
found=
# What takes longest to read, for the builds that are not optimised; others pass it over.
"$compiler" -std=c++20 -g0 -w -O0 -x c++-header "$work/tests/catch.hpp" \
    -o "$work/tests/catch.hpp.gch" || exit 2
if search "$work/right" "" || [ -n "$found" ]; then
    cat "$work/log" "$work/out"
    echo "mutants.sh: what is right does not pass: $found" >&2
    exit 2
fi
row MUTANT FOUND SEED BY
survivors=0
hits=0
equal=0
for name; do
    file=$tests/mutants/$name.mutant
    header=$(value_of header "$file")
    by=$(value_of by "$file")
    by_what=${by#* }
    [ "$by_what" != "$by" ] || by_what=
    flags=$(value_of flags "$file")
    equivalent=$(value_of equivalent "$file")
    rm -rf "$work/wrong"
    cp -r "$work/right" "$work/wrong" || exit 2
    mutate "$file" "$work/right/reactor/$header" "$work/wrong/reactor/$header" || exit 2
    found=
    if [ -z "$by" ] || [ $try_sim = yes ]; then
        if ! search "$work/wrong" "$flags" && [ -n "$found" ]; then
            out_of_date "$name" "$found"
            continue
        fi
    fi
    if [ -z "$found" ] && [ -n "$by" ]; then
        if ! passes_right "${by%% *}" "$by_what" "$flags"; then
            out_of_date "$name" "tests/${by%% *} does not pass or build with what is right"
            continue
        fi
        if ! build "$work/wrong" "${by%% *}.cpp" "-O0 $flags"; then
            out_of_date "$name" "does not build: $(grep -m 1 error "$work/log")"
            continue
        fi
        by_test "${by%% *}" "$by_what" || found=
    fi
    if [ -n "$found" ] && [ -n "$equivalent" ]; then
        row "$name" yes "$seed" "and is listed as equivalent: $found"
        result=1
    elif [ -n "$found" ]; then
        row "$name" yes "$seed" "$found"
        hits=$((hits + 1))
    elif [ -n "$equivalent" ]; then
        row "$name" no - "equivalent: $(value_of because "$file")"
        equal=$((equal + 1))
    else
        row "$name" SURVIVES - "$(value_of breaks "$file")"
        survivors=$((survivors + 1))
        result=1
    fi
done
echo "$mutants mutants: $hits found, $survivors survive, $equal equivalent"
exit $result
