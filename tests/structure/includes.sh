#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# includes.sh LIST INCLUDE: no header includes what costs every user compile time. <thread> is for
# the roof alone, fmt for the annex that is made of it.
set -eu
list=$(realpath "$1")
cd "$2"

status=0
while read -r header; do
    heavy='future|condition_variable|iostream|ranges|functional|regex|fmt/[a-z]*\.h'
    case $header in
    reactor/reactor.hpp) ;;
    reactor/fmt.hpp) heavy="${heavy%|fmt*}|thread" ;;
    *) heavy="$heavy|thread" ;;
    esac
    ! grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*<($heavy)>" "$header" |
        sed "s|^|$header:|; s|\$|  <- too heavy for a header|" | grep . || status=1
    ! grep -nF "std::function<" "$header" | sed "s|^|$header:|" | grep . || status=1
done <"$list"
exit $status
