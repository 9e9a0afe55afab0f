#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# reading_order.sh LIST INCLUDE: the headers of LIST are those under INCLUDE, each once, and each
# includes only headers above it.
set -eu
list=$(realpath "$1")
include=$2

status=0
repeated=$(sort "$list" | uniq -d)
[ -z "$repeated" ] || { echo "listed twice: $repeated"; status=1; }

on_disk=$(cd "$include" && find . -type f | sed 's|^\./||' | sort)
for header in $on_disk; do
    grep -qxF "$header" "$list" || { echo "$header: is not in the list in CMakeLists.txt"; status=1; }
done
while read -r header; do
    [ -f "$include/$header" ] || { echo "$header: is in the list, but not on disk"; status=1; }
done <"$list"

cd "$include"
# shellcheck disable=SC2046 # one word a header
awk '
    FNR == NR { position[$0] = FNR; next }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        printf "%s:%d: a header of ours is included as <reactor/...>\n", FILENAME, FNR
        status = 1
    }
    /^[ \t]*#[ \t]*include[ \t]*<reactor\// {
        match($0, /<[^>]*>/)
        name = substr($0, RSTART + 1, RLENGTH - 2)
        if (!(name in position)) {
            printf "%s:%d: includes %s, which is not in the list\n", FILENAME, FNR, name
            status = 1
        } else if (position[name] >= position[FILENAME]) {
            printf "%s:%d: includes %s, which does not stand above it\n", FILENAME, FNR, name
            status = 1
        }
    }
    END { exit status }
' "$list" $(while read -r header; do [ ! -f "$header" ] || echo "$header"; done <"$list") || status=1
exit $status
