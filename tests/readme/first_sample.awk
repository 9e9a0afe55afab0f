# SPDX-License-Identifier: Apache-2.0
# Prints the first block of C++ of a Markdown text, and fails if there is none.
/^```cpp/ { inside = 1; next }
/^```/ && inside { complete = 1; exit }
inside { print; lines++ }
END {
    if (!complete || !lines) {
        print FILENAME ": has no ```cpp block" > "/dev/stderr"
        exit 1
    }
}
