#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# style.sh LIST INCLUDE: each header opens with the SPDX line and a prologue, is guarded, keeps
# within 100 columns, and has neither tabs nor blanks at the end of a line.
set -eu
list=$(realpath "$1")
cd "$2"

while read -r header; do
    # awk counts bytes; a letter of two bytes is one column.
    awk '
        function complain(what) {
            printf "%s:%d: %s\n", FILENAME, FNR, what
            status = 1
        }
        FNR == 1 && $0 != "// SPDX-License-Identifier: Apache-2.0" {
            complain("the first line is not the SPDX line")
        }
        FNR == 1 { in_prologue = 1; next }
        in_prologue && /^\/\// { if ($0 != "//") prologue++ }
        in_prologue && !/^\/\// {
            in_prologue = 0
            if (prologue < 3) complain("the prologue has fewer than three lines")
        }
        $0 == "#pragma once" { guarded = 1 }
        /\t/ { complain("a tab") }
        /[ \t]$/ { complain("blanks at the end of the line") }
        {
            columns = $0
            gsub(/[\200-\277]/, "", columns)
            if (length(columns) > 100) complain("longer than 100 columns")
        }
        END {
            if (!guarded) complain("no #pragma once")
            exit status
        }
    ' "$header" || failed=1
done <"$list"
exit "${failed:-0}"
