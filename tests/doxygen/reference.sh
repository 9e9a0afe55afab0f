#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# reference.sh DOXYGEN CONFIGURATION SCRATCH [whole]: makes the API reference into SCRATCH, and
# tells which public names have no contract, and whatever else doxygen has to say. `whole`: and the main
# names of the library are in it.
set -eu
doxygen=$1 configuration=$2 scratch=$3

rm -rf "$scratch"
mkdir -p "$scratch"
# The paths in it are relative to the directory of the sources.
{
    cat "$configuration"
    echo "OUTPUT_DIRECTORY = \"$scratch\""
} >"$scratch/Doxyfile"
"$doxygen" "$scratch/Doxyfile" >"$scratch/log" 2>&1 && status=0 || status=$?

# `file:line: error: Member f() (function) of class C is not documented.`
sed -n 's/^\(.*\): [a-z]*: \([A-Z][a-z]* .*\) is not documented\.$/\1: \2/p' "$scratch/log" |
    sort -u -t: -k1,1 -k2,2n >"$scratch/undocumented"
grep -v -e ' is not documented\.$' -e '^$' "$scratch/log" >"$scratch/other" || true
if [ -s "$scratch/undocumented" ]; then
    echo "public names without a contract (///):"
    cat "$scratch/undocumented"
fi
cat "$scratch/other"
[ "$status" -eq 0 ] && [ ! -s "$scratch/undocumented" ] && [ ! -s "$scratch/other" ] || exit 1

# Nothing said of nothing read is no good sign.
pages=$(find "$scratch/html" -name 'class*.html' -o -name 'struct*.html' \
    -o -name 'concept*.html')
[ -n "$pages" ] || { echo "the reference is empty"; exit 1; }
if [ "${4-}" = whole ]; then
    for page in Runtime Reactor Controller BasicActions BasicError Service TimerWheel Handler \
        Resource Writable Poller BasicExecutor ExecutorController Registry Offload Outcome; do
        echo "$pages" | grep -q "/[a-z]*reactor_1_1${page}[._]" ||
            { echo "no page of $page"; exit 1; }
    done
    for name in ResourceId TimerId EventId Executor Duration TcpStream raise_descriptor_limit; do
        grep -q ">$name<" "$scratch/html/namespacereactor.html" ||
            { echo "nothing of $name"; exit 1; }
    done
    ! find "$scratch/html" -name '*detail*.html' | grep . || exit 1
fi
echo "the reference is complete: $(echo "$pages" | wc -l) pages"
