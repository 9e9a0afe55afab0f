#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# scenarios.sh TESTS: every line of TESTS/scenarios.txt is well-formed and names a test that
# exists. Tells how many scenarios are covered; those that are still open are only counted.
set -eu
cd "$1"

awk '
    function complain(what) {
        printf "scenarios.txt:%d: %s\n", FNR, what
        status = 1
    }
    function trim(text) {
        sub(/^[ \t]+/, "", text)
        sub(/[ \t]+$/, "", text)
        return text
    }
    # The whole of a file, with adjacent string literals joined; "" if there is none.
    function contents(file,    line, text) {
        if (file in cache) return cache[file]
        text = ""
        while ((getline line < file) > 0) text = text line "\n"
        close(file)
        if (file ~ /\.[ch]pp$/) gsub(/"[ \t\n]+"/, "", text)
        return cache[file] = text
    }
    function has_test_case(text, name,    at, before) {
        name = "\"" name "\""
        while ((at = index(text, name)) > 0) {
            before = substr(text, at > 200 ? at - 200 : 1, at > 200 ? 200 : at - 1)
            if (before ~ /(TEST_CASE|SCENARIO)[A-Z_]*\([^"()]*$/) return 1
            text = substr(text, at + length(name))
        }
        return 0
    }
    /^# all:/ {
        for (i = 3; i <= NF; i++) {
            count = split($i, ends, "-")
            letter = substr($i, 1, 1)
            last = count == 2 ? substr(ends[2], 2) : substr(ends[1], 2)
            for (n = substr(ends[1], 2) + 0; n <= last + 0; n++) {
                ids[++total] = letter n
                known[letter n] = 1
            }
        }
        next
    }
    /^#/ || /^[ \t]*$/ { next }
    {
        fields = split($0, field, "|")
        id = trim(field[1])
        file = trim(field[2])
        name = trim(field[3])
        # A name may hold the separator.
        for (i = 4; i <= fields; i++) name = trim(name "|" field[i])
        if (fields < 3 || id !~ /^[A-Z][0-9]+$/ || file == "" || name == "") {
            complain("not ID | file | test")
            next
        }
        if (!(id in known)) complain(id " is not among the scenarios")
        if (seen[id, file, name]++) complain("the same line twice")
        if (file == "-") {
            excused[id] = 1
        } else {
            covered[id] = 1
            text = contents(file)
            if (text == "") complain("no file " file)
            else if (file !~ /^[a-z_0-9]+\.cpp$/) {
                if (!index(text, name)) complain(file " does not hold \"" name "\"")
            } else if (!has_test_case(text, name))
                complain("no test case '\''" name "'\'' in " file)
        }
        if (id in excused && id in covered) complain(id " has a test and a reason for having none")
    }
    END {
        for (i = 1; i <= total; i++) {
            if (ids[i] in covered) tested++
            else if (ids[i] in excused) reasoned++
            else open = open " " ids[i]
        }
        if (open != "") print "open:" open
        printf "scenarios: %d covered, %d with a reason, %d open\n", tested, reasoned,
            total - tested - reasoned
        exit status
    }
' scenarios.txt
