#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# selftest.sh SCRATCH: the checks beside this file find what they are there to find.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
rm -rf "$1"
mkdir -p "$1"
cd "$1"

good='// SPDX-License-Identifier: Apache-2.0
//
// A prologue
// of three
// lines.
#pragma once
'
status=0
cases=0

fresh() { # a tree of two good headers
    rm -rf include list
    mkdir -p include/reactor/net include/reactor/os
    printf '%s\n#include <vector>\n' "$good" >include/reactor/a.hpp
    printf '%s\n#include <reactor/a.hpp>\n' "$good" >include/reactor/b.hpp
    printf 'reactor/a.hpp\nreactor/b.hpp\n' >list
}

passes() { # passes SCRIPT
    cases=$((cases + 1))
    sh "$here/$1" list include >out 2>&1 && return
    echo "$1 should pass, but says: $(cat out)"
    status=1
}

fails() { # fails SCRIPT WORDS
    cases=$((cases + 1))
    if sh "$here/$1" list include >out 2>&1; then
        echo "$1 should have said: $2"
        status=1
    elif ! grep -qF -- "$2" out; then
        echo "$1 should have said: $2; it says: $(cat out)"
        status=1
    fi
}

add() { # add LINE: to b.hpp
    fresh
    printf '%s\n' "$1" >>include/reactor/b.hpp
}

fresh
for script in reading_order.sh style.sh system_calls.sh includes.sh; do passes $script; done

add '#include <reactor/c.hpp>';         fails reading_order.sh "which is not in the list"
add '#include <reactor/b.hpp>';         fails reading_order.sh "does not stand above"
add '#include "a.hpp"';                 fails reading_order.sh "included as <reactor/"
fresh; echo reactor/c.hpp >>list;       fails reading_order.sh "not on disk"
fresh; echo reactor/a.hpp >>list;       fails reading_order.sh "listed twice"
fresh; : >include/reactor/c.hpp;        fails reading_order.sh "c.hpp: is not in the list"

add "// $(printf '%098d' 0)";           fails style.sh "b.hpp:9: longer than 100 columns"
add "// $(printf '%097d' 0)";           passes style.sh
add "// $(printf '%096d' 0)ü";          passes style.sh
add "int a; ";                          fails style.sh "blanks"
add "$(printf '\tint a;')";             fails style.sh "a tab"
fresh; echo '#pragma once' >include/reactor/b.hpp; fails style.sh "SPDX"
fresh; printf '%s' "$good" | grep -v three >include/reactor/b.hpp; fails style.sh "prologue"
fresh; printf '%s' "$good" | grep -v once >include/reactor/b.hpp; fails style.sh "pragma once"

add '#include <sys/socket.h>';          fails system_calls.sh "includes <sys/socket.h>"
add '#include <unistd.h>';              fails system_calls.sh "includes <unistd.h>"
add 'int n = ::read(0, p, 1);';         fails system_calls.sh "calls ::read()"
add 'return ::syscall(1);';             fails system_calls.sh "calls ::syscall()"
add 'f(::epoll_wait (a));';             fails system_calls.sh "calls ::epoll_wait()"
add 'int n = getsockopt(1);';           fails system_calls.sh "calls getsockopt() without"
add '/* a */ ::close(1); // b';         fails system_calls.sh "calls ::close()"
add 'int n = Kernel::getsockopt(1);';   passes system_calls.sh
add 'int n = kernel.getsockopt(1);';    passes system_calls.sh
add 'auto n = std::move(1);';           passes system_calls.sh
add '::new (place) int(::operator new(1));'; passes system_calls.sh
add '// ::read(0) and epoll_wait(1)';   passes system_calls.sh
add 'f("::read(0)");';                  passes system_calls.sh
fresh; printf '#include <sys/epoll.h>\n::read(0);\n' >include/reactor/os/kernel.hpp
echo reactor/os/kernel.hpp >>list;      passes system_calls.sh
fresh; printf '#include <arpa/inet.h>\n::inet_pton(0);\n' >include/reactor/net/address.hpp
echo reactor/net/address.hpp >>list;    passes system_calls.sh
printf '::bind(0);\n' >>include/reactor/net/address.hpp; fails system_calls.sh "calls ::bind()"

for name in future condition_variable iostream ranges functional thread fmt/format.h; do
    add "#include <$name>";             fails includes.sh "<$name>"
done
add 'std::function<void()> f;';         fails includes.sh "std::function"
fresh; echo '#include <thread>' >include/reactor/reactor.hpp
echo reactor/reactor.hpp >>list;        passes includes.sh
fresh; echo '#include <fmt/format.h>' >include/reactor/fmt.hpp
echo reactor/fmt.hpp >>list;            passes includes.sh
echo '#include <future>' >include/reactor/fmt.hpp; fails includes.sh "<future>"

# The map of scenarios.
map() { # map LINES...
    rm -rf tests
    mkdir tests
    printf 'TEST_CASE("one", "[a]") {}\nTEMPLATE_TEST_CASE("two "\n    "lines", "", int) {}\n' \
        >tests/a.cpp
    echo 'SCENARIO_METHOD(Fixture, "three")' >>tests/a.cpp
    echo '# a text' >tests/b.sh
    printf '%s\n' '# all: A1-A3 B1' "$@" >tests/scenarios.txt
}
map_passes() {
    cases=$((cases + 1))
    if ! sh "$here/scenarios.sh" tests >out 2>&1 || ! grep -qF -- "$1" out; then
        echo "scenarios.sh should pass and say: $1; it says: $(cat out)"
        status=1
    fi
}
map_fails() {
    cases=$((cases + 1))
    if sh "$here/scenarios.sh" tests >out 2>&1 || ! grep -qF -- "$1" out; then
        echo "scenarios.sh should fail and say: $1; it says: $(cat out)"
        status=1
    fi
}
map;                                             map_passes "0 covered, 0 with a reason, 4 open"
map 'A1 | a.cpp | one' 'A1 | a.cpp | two lines'; map_passes "1 covered, 0 with a reason, 3 open"
map 'A1 | a.cpp | three' 'A2 | b.sh | a text';   map_passes "2 covered, 0 with a reason, 2 open"
map 'A1 | - | no such poller' '' '# text';       map_passes "0 covered, 1 with a reason, 3 open"
map 'A1 | a.cpp | four';                         map_fails "no test case 'four' in a.cpp"
map 'A1 | a.cpp | Fixture';                      map_fails "no test case"
map 'A1 | c.cpp | one';                          map_fails "no file c.cpp"
map 'A1 | b.sh | b text';                        map_fails "b.sh does not hold"
map 'A4 | a.cpp | one';                          map_fails "A4 is not among"
map 'A1 | a.cpp';                                map_fails "scenarios.txt:2: not ID | file | test"
map 'A1 | a.cpp |';                              map_fails "scenarios.txt:2: not ID | file | test"
map 'a1 | a.cpp | one';                          map_fails "not ID | file | test"
map 'A1 | - | why' 'A1 | a.cpp | one';           map_fails "A1 has a test and a reason"
map 'A1 | a.cpp | one' 'A1 | a.cpp | one';       map_fails "twice"

echo "$cases cases"
exit $status
