#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# amalgamate.sh [--annexes] [--fmt] : writes the library as one header, for those who would rather
# copy a file than install. It holds the headers of the one list in CMakeLists.txt, in that order,
# each once: the core up to the roof with all of net, and, if asked for, the annexes and what needs
# fmt. Instead of <reactor/...> a user then includes that file.
#
#   sh tests/amalgamate.sh >reactor.hpp
set -eu

annexes=0
fmt=0
for argument; do
    case $argument in
    --annexes) annexes=1 ;;
    --fmt) fmt=1 ;;
    *)
        echo "usage: sh tests/amalgamate.sh [--annexes] [--fmt] >reactor.hpp" >&2
        exit 2
        ;;
    esac
done
cd "$(dirname -- "$0")/.."

# shellcheck disable=SC2016 # $1 is awk's
headers=$(awk -v annexes=$annexes -v fmt=$fmt '
    /^target_sources\(reactor / { listing = 1; wanted = 1 }
    /^target_sources\(reactor_fmt / { listing = 1; wanted = fmt }
    /^\)/ { listing = 0 }
    listing && /^  # annexes/ { wanted = annexes }
    listing && wanted && /^  include\/reactor\/.*\.hpp$/ { print $1 }
' CMakeLists.txt)
[ -n "$headers" ] || { echo "amalgamate.sh: found no list in CMakeLists.txt" >&2; exit 1; }
version=$(sed -n 's/^  VERSION //p' CMakeLists.txt)

# Twice over the headers: first for the includes, which come once at the top if no condition
# depends on them, then for what is left.
# shellcheck disable=SC2086 # one word a header
awk -v version="$version" '
    function fail(why) {
        print "amalgamate.sh: " FILENAME ":" FNR ": " why > "/dev/stderr"
        status = 1
        exit 1
    }
    BEGIN { half = (ARGC - 1) / 2 }
    FNR == 1 {
        file++
        name = FILENAME
        sub(/^include\//, "", name)
        depth = 0
        empty = 1
        if (file == half + 1) begin()
        if (file > half) print "\n// --- " name
    }
    /^[ \t]*#[ \t]*if/ { depth++ }
    /^[ \t]*#[ \t]*endif/ { depth-- }
    /^[ \t]*#[ \t]*pragma once/ { next }
    FNR == 1 && /SPDX-License-Identifier/ { next }
    /^[ \t]*#[ \t]*include/ {
        if (!match($0, /<[^>]*>/)) fail("not an include of <...>")
        header = substr($0, RSTART + 1, RLENGTH - 2)
        if (header ~ /^reactor\//) {
            if (file > half && !(header in done)) fail(header " is not in what comes before")
            if (depth > 0) fail("a header of ours under a condition")
            next
        }
        if (depth == 0) {
            if (file <= half && !(header in seen)) {
                seen[header] = 1
                # Those of C and of the system before those of C++.
                if (header ~ /\.h$/) system_headers[++systems] = header
                else if (header !~ /\//) standard[++standards] = header
                else fail("neither ours, nor the standard library, nor the system")
            }
            next
        }
    }
    file <= half { next }
    # No two empty lines in a row where includes stood.
    /^$/ && empty { next }
    {
        empty = /^$/
        print
        done[name] = 1
    }
    function sort(list, count,    i, j, one) {
        for (i = 2; i <= count; i++) {
            one = list[i]
            for (j = i - 1; j > 0 && list[j] > one; j--) list[j + 1] = list[j]
            list[j + 1] = one
        }
    }
    function begin(    i) {
        print "// SPDX-License-Identifier: Apache-2.0"
        print "//"
        print "// reactor " version ", the whole library in one header. Made by tests/amalgamate.sh from the"
        print "// headers under include/reactor: read, change and report those."
        print "#pragma once\n"
        sort(system_headers, systems)
        sort(standard, standards)
        for (i = 1; i <= systems; i++) print "#include <" system_headers[i] ">"
        print ""
        for (i = 1; i <= standards; i++) print "#include <" standard[i] ">"
    }
    END { exit status }
' $headers $headers
