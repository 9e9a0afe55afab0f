#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# one_file.sh SOURCE SAMPLE SCRATCH COMPILER: the library as one file compiles with the strict
# flags: whole, under the README's sample, which is then run, and in two translation units of one
# program.
set -eu
source=$1 sample=$2 scratch=$3 compiler=$4
flags="-std=c++20 -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast
    -Werror"

fail() {
    echo "$1" >&2
    exit 1
}

rm -rf "$scratch"
mkdir -p "$scratch/all"
cd "$scratch"
sh "$source/tests/amalgamate.sh" >reactor.hpp
sh "$source/tests/amalgamate.sh" --annexes --fmt >all/reactor.hpp

# holds FILE: the headers of the list `wanted`, whole, in that order, and each once.
holds() {
    sed -n 's|^// --- \(.*\)|\1|p' "$1" >names
    diff wanted names >difference ||
        fail "$1 does not hold the headers of the list: $(cat difference)"
    [ "$(grep -c 'SPDX-License-Identifier' "$1")" -eq 1 ] || fail "$1: the licence, not once"
    [ "$(grep -c '#pragma once' "$1")" -eq 1 ] || fail "$1: #pragma once, not once"
    ! grep -nE '#[[:space:]]*include[[:space:]]*[<"]reactor/' "$1" || fail "$1 includes its parts"
    twice=$(grep '^#include' "$1" | sort | uniq -d)
    [ -z "$twice" ] || fail "$1 includes twice: $twice"
    # Nothing is lost of a header but its opening line and its includes.
    while read -r header; do
        grep -vE -e '^// SPDX-' -e '^#pragma once' -e '^#include <' -e '^$' \
            "$source/include/$header"
    done <wanted >lines
    grep -vE -e '^#include <' -e '^$' -e '^// --- ' "$1" | tail -n +6 >kept
    diff lines kept >difference || fail "$1 differs from the headers: $(head -n 20 difference)"
}
sed -n 's|^  include/\(reactor/.*\.hpp\)$|\1|p' "$source/CMakeLists.txt" >every
sed -e '/^  # annexes/,/^)/d' -e '/^target_sources(reactor_fmt/,/^)/d' "$source/CMakeLists.txt" |
    sed -n 's|^  include/\(reactor/.*\.hpp\)$|\1|p' >wanted
grep -qx reactor/reactor.hpp wanted || fail "the roof is not in the list"
grep -qx reactor/net/tcp.hpp wanted || fail "net is not in the list"
holds reactor.hpp
mv every wanted
holds all/reactor.hpp

# The sample as it stands, but for the includes and the port, which the kernel picks.
sed 's|^#include <reactor/.*>|#include "reactor.hpp"|' "$sample" |
    sed 's|127\.0\.0\.1:[0-9]*|127.0.0.1:0|' >sample.cpp
grep -q '#include "reactor.hpp"' sample.cpp || fail "the sample includes nothing of ours"
echo '#include "reactor.hpp"' >all/alone.cpp
# A second unit that uses what the first does, with the other poller as well.
{
    echo '#include "reactor.hpp"'
    echo 'namespace second {'
    sed -n '/^struct /,/^};/p' sample.cpp | sed 's/^struct/using namespace reactor;\nstruct/'
    cat <<'END'
} // namespace second
int turns_of_another_runtime();
int turns_of_another_runtime() {
    reactor::Runtime<second::Echo, reactor::PollPoller> runtime{second::Echo{}};
    runtime.listen(reactor::TcpListener::bind("127.0.0.1:0"));
    runtime.turn(reactor::Duration::zero());
    reactor::Reactor<second::Echo> other{second::Echo{}};
    return 1;
}
END
} >second.cpp
# The first unit calls the second before it serves.
another=turns_of_another_runtime
sed "s/^int main() {/int $another();\nint main() {\n    if ($another() != 1) return 1;/" \
    sample.cpp >first.cpp
grep -q 'turns_of_another_runtime() != 1' first.cpp || fail "the sample has no main() to add to"

# shellcheck disable=SC2086 # one word a flag
{
    "$compiler" $flags -fsyntax-only all/alone.cpp
    "$compiler" $flags sample.cpp -o sample
    "$compiler" $flags first.cpp second.cpp -o two_units
}
echo "one unit: $(sh "$source/tests/readme/serves.sh" ./sample)"
echo "two units: $(sh "$source/tests/readme/serves.sh" ./two_units)"

# A list whose order is broken is refused: the roof before everything it stands on.
mkdir broken
cp -r "$source/include" broken/
mkdir broken/tests
cp "$source/tests/amalgamate.sh" broken/tests/
awk '/^  include\/reactor\/io\.hpp$/ { print "  include/reactor/reactor.hpp" }
    !/^  include\/reactor\/reactor\.hpp$/' "$source/CMakeLists.txt" >broken/CMakeLists.txt
! sh broken/tests/amalgamate.sh >broken/reactor.hpp 2>broken/said || fail "a broken order passed"
grep -q 'is not in what comes before' broken/said || fail "a broken order: $(cat broken/said)"
