#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checks the model of the mailbox and the runtime's sleep (tests/spin/mailbox.pml) with Spin: as it
# is, with each kind of bell, and with one mistake at a time, each of which must be found. Prints a
# table. Exits with 1 if the right one fails or a wrong one passes, with 2 where it cannot run.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
model=$root/tests/spin/mailbox.pml

small=
if [ "${1:-}" = --installed ]; then # as a test: installs nothing, and sends a message less
    small=-DSMALL
    if ! command -v spin >/dev/null || ! command -v gcc >/dev/null; then
        echo "tests/spin.sh: spin and gcc are needed" >&2
        exit 2
    fi
else
    . "$root/tests/setup.sh"
    need spin gcc libc6-dev
fi

room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
trap 'exit 2' HUP INT TERM
cd "$room"
failed=0

# run_model KIND FLAG... : every state (KIND safety) or every cycle (KIND cycles). Sets `outcome`.
run_model() {
    kind=$1
    shift
    options=-DSAFETY
    search=
    if [ "$kind" = cycles ]; then
        options=-DNP
        search=-l
    fi
    rm -f pan pan.* ./*.trail
    if ! spin -a "$@" "$model" >spin.log 2>&1 ||
        ! gcc "$optimize" -w "$options" -DNOFAIR -DMEMLIM=2048 -o pan pan.c >gcc.log 2>&1; then
        cat spin.log gcc.log >&2
        outcome="does not build"
        return
    fi
    # shellcheck disable=SC2086 # a flag or none
    ./pan $search -m100000 >pan.log 2>&1 || true
    states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' pan.log | head -n 1)
    if grep -q 'errors: 0$' pan.log && ! grep -qE 'max search depth too small|not completed' pan.log
    then
        outcome=holds
    elif grep -qE '^pan:1: ' pan.log; then
        outcome=$(sed -n 's/^pan:1: \(.*\) (at depth [0-9]*)$/\1/p' pan.log | head -n 1)
    else
        cat pan.log >&2
        outcome="was not searched"
    fi
}

# right NAME KIND FLAG...
right() {
    name=$1
    optimize=-O1
    shift
    run_model "$@"
    printf '%-46s %-7s %9s  %s\n' "$name" "$1" "${states:-}" "$outcome"
    [ "$outcome" = holds ] || failed=1
}

# wrong NAME KIND FLAG...
wrong() {
    name=$1
    optimize=-O0 # the search is shorter than the build
    shift
    run_model "$@"
    case $outcome in
    assertion* | non-progress* | "invalid end state"*) verdict="found: $outcome" ;;
    *)
        verdict="NOT FOUND: $outcome"
        failed=1
        ;;
    esac
    printf '%-46s %-7s %9s  %s\n' "$name" "$1" "${states:-}" "$verdict"
}

# shellcheck disable=SC2086 # a flag or none
{
    printf '%-46s %-7s %9s\n' "as it is" search states
    right "a bell that is read (poll)" safety $small
    right "a bell that tells edges (epoll)" safety -DEDGE $small
    right "within another loop" safety -DEMBEDDED -DEDGE $small
    right "a bell that is read: no loop is hot" cycles -DSMALL
    right "a bell that tells edges: no loop is hot" cycles -DSMALL -DEDGE
}

printf '\n%-46s\n' "with one mistake"
wrong "the inbox is looked at before the mark is set" safety -DWRONG_CHECK_BEFORE_THE_MARK
wrong "... with edges" safety -DEDGE -DWRONG_CHECK_BEFORE_THE_MARK
wrong "a message is pushed and nobody rings" safety -DWRONG_PUSH_WITHOUT_RING
wrong "wake() clears the mark and does not ring" safety -DWRONG_WAKE_WITHOUT_RING
wrong "a push leaves the mark of the sleep" safety -DWRONG_PUSH_KEEPS_THE_MARK
wrong "the mark of the sleep stays after it" safety -DWRONG_MARK_STAYS
wrong "a push wipes out a wake" safety -DWRONG_PUSH_DROPS_A_WAKE
wrong "the flag of shutdown is set behind the wake" safety -DWRONG_FLAG_BEHIND_THE_WAKE
wrong "a wake within the turn is not heard" safety -DWRONG_SECOND_WAKE_IS_NOT_HEARD
wrong "the inbox is emptied after it was read" safety -DWRONG_INBOX_IS_EMPTIED_LATER
wrong "the newest message comes first" safety -DWRONG_NEWEST_FIRST
wrong "what a turn left over sleeps" safety -DWRONG_LEFT_OVERS_SLEEP
wrong "the bell is read before the sleep" safety -DWRONG_BELL_IS_READ_BEFORE_THE_SLEEP
wrong "the bell is never read" cycles -DSMALL -DWRONG_BELL_IS_NEVER_READ
wrong "close is a load and a store" safety -DWRONG_CLOSE_IS_A_STORE
wrong "close comes after the last collect" safety -DWRONG_CLOSE_COMES_LAST
wrong "collect opens again what was closed" safety -DWRONG_COLLECT_OPENS_AGAIN
wrong "closed is looked at once, before the push" safety -DWRONG_CLOSED_IS_CHECKED_ONCE

exit "$failed"
