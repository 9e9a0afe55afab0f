#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check.sh fail|pass FILE COMPILER FLAGS... : compiles FILE for syntax only. `pass`: it must compile,
# without a word. `fail`: it must not, and the first error must hold the sentence after "// expect:".
# Where the compilers word it differently, "// expect-gcc:" and "// expect-clang:" say so.
set -eu
outcome=$1
file=$2
shift 2
LC_ALL=C
export LC_ALL

compiled=0
output=$("$@" -fsyntax-only -fdiagnostics-color=never "$file" 2>&1) || compiled=$?

if [ "$outcome" = pass ]; then
    [ "$compiled" -eq 0 ] && [ -z "$output" ] && exit 0
    echo "$file should compile:"
    echo "$output"
    exit 1
fi

case $("$1" --version) in *clang*) kind=clang ;; *) kind=gcc ;; esac
expected=$(sed -n "s|^// expect-$kind: *||p" "$file")
[ -n "$expected" ] || expected=$(sed -n 's|^// expect: *||p' "$file")
if [ "$(printf '%s' "$expected" | grep -c .)" -ne 1 ]; then
    echo "$file needs one line '// expect: SENTENCE'"
    exit 1
fi
if [ "$compiled" -eq 0 ]; then
    echo "$file compiles, but should not: $expected"
    exit 1
fi
first=$(printf '%s\n' "$output" | grep -m 1 'error: ' || true)
# Only what follows "error: " counts, so that the name of a file cannot satisfy it.
case ${first#*error: } in
*"$expected"*) exit 0 ;;
esac
echo "$file: the first error should say: $expected"
echo "It says: $first"
echo "All of it:"
printf '%s\n' "$output" | head -n 60
exit 1
