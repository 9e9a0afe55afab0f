#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# interrupted.sh PROGRAM: a close(2) that says EINTR is not asked again. On Linux the descriptor is
# gone by then, and its number may be another thread's. PROGRAM is tests/interrupted.cpp, which
# closes descriptor 777.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log

failed() {
    cat "$work/output" "$log"
    echo "$1"
    exit 1
}
run() { # run INJECT...: strace's options
    strace -f -qq -o "$log" -e trace=close "$@" "$program" "interrupted: close is asked once*" \
        >"$work/output" 2>&1 || failed "the program failed"
}

# The loader closes files as well, and would not bear it: the first run tells which call is ours.
program=$1
run
ours=$(grep -n 'close(777)' "$log" | sed 's/:.*//')
[ -n "$ours" ] || failed "777 was not closed"
run -e inject=close:error=EINTR:when="$ours+"
grep -q 'close(777).*EINTR.*INJECTED' "$log" || failed "close(777) was not interrupted"
[ "$(grep -c 'close(777)' "$log")" -eq 1 ] || failed "close was asked again"
echo "close: asked once"
