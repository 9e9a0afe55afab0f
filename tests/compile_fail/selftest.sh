#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# selftest.sh SCRATCH COMPILER FLAGS... : the check beside this file can tell right from wrong.
set -eu
check=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/check.sh
scratch=$1
shift
rm -rf "$scratch"
mkdir -p "$scratch/plain sentence"
cd "$scratch"

status=0
try() { # try passes|fails OUTCOME FILE COMPILER... : FILE's text comes on standard input
    verdict=$1
    outcome=$2
    file=$3
    shift 3
    cat >"$file"
    result=passes
    sh "$check" "$outcome" "$file" "$@" >out 2>&1 || result=fails
    [ "$result" = "$verdict" ] && return
    echo "This $result, but should not (as compile_$outcome): $(cat "$file")"
    cat out
    status=1
}

try passes pass a.cpp "$@" <<'END'
int main() {}
END
try fails pass a.cpp "$@" <<'END'
int main() { return "text"; }
END
try fails pass a.cpp "$@" <<'END'
int main() { int warned; }
END
try passes fail a.cpp "$@" <<'END'
// expect: a plain (sentence) [with] signs*
static_assert(false, "this is a plain (sentence) [with] signs*, read by a user");
END
try fails fail a.cpp "$@" <<'END'
// expect: a plain sentence
int main() {}
END
try fails fail a.cpp "$@" <<'END'
// expect: another sentence
static_assert(false, "a plain sentence");
END
try fails fail a.cpp "$@" <<'END'
// expect: a plain sentence
int a = missing;
static_assert(false, "a plain sentence");
END
try fails fail a.cpp "$@" <<'END'
static_assert(false, "a plain sentence");
END
try fails fail "plain sentence/a.cpp" "$@" <<'END'
// expect: plain sentence
int a = missing;
END
exit $status
