# SPDX-License-Identifier: Apache-2.0
# Prints the first block of C++ of a Markdown text, of the section of that name if one is given
# (-v section=NAME), and fails if there is none.
BEGIN { in_section = section == "" }
/^## / && section != "" { in_section = substr($0, 4) == section }
/^```cpp/ && in_section { inside = 1; next }
/^```/ && inside { complete = 1; exit }
inside { print; lines++ }
END {
    if (!complete || !lines) {
        print FILENAME ": has no ```cpp block" (section ? " in " section : "") > "/dev/stderr"
        exit 1
    }
}
