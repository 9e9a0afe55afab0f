#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shows that the library needs a compiler and nothing else: makes a minimal Debian 12 with g++,
# cmake, ninja and pkg-config, but without fmt and Catch2, in a temporary directory; packs this
# checkout there; builds the README's first sample by add_subdirectory, find_package, pkg-config and
# from the .deb; installs the .deb by dpkg -i and builds the sample against that without any hint;
# runs each of these programs, with a client outside; then removes the package.
# Needs root, mmdebstrap and a network; not part of the suite.
#
#   sh tests/package/bare_root.sh
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
[ "$(id -u)" -eq 0 ] || { echo "tests/package/bare_root.sh needs root" >&2; exit 2; }
# shellcheck source=tests/setup.sh
. "$root/tests/setup.sh"
need mmdebstrap socat

bare=$(mktemp -d)
settings=$bare.conf
trap 'rm -rf --one-file-system "$bare" "$settings"' EXIT
chmod 755 "$bare"

# The archive and the settings of apt are those of this machine.
sources=
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    [ -f "$file" ] && grep -q debian-archive-keyring "$file" && sources="$sources $file"
done
apt-config dump --format '%F "%v";%n' Acquire |
    grep -E '^Acquire::(https?|Check-|Retries)' >"$settings"

echo "=== a bare Debian 12: g++, cmake, ninja, pkg-config"
# shellcheck disable=SC2086 # one word a file
mmdebstrap --quiet --variant=minbase --mode=root --aptopt="$settings" \
    --aptopt='APT::Install-Recommends "false"' --include=g++,cmake,ninja-build,pkgconf \
    bookworm "$bare" $sources

inside() { # inside COMMAND: in the root, with the environment of a login
    chroot "$bare" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb \
        sh -euc "cd /work && $1" </dev/null
}

mkdir -p "$bare/work/checkout"
(cd "$root" && tar -c --exclude=./build --exclude=./.git .) | tar -x -C "$bare/work/checkout"
mknod -m 666 "$bare/dev/null" c 1 3 2>/dev/null || true

# What must not be there is not there.
for absent in /usr/include/fmt /usr/include/catch2 /usr/include/reactor /usr/bin/make \
    /usr/bin/clang++; do
    [ ! -e "$bare$absent" ] || { echo "$absent is in the bare root" >&2; exit 1; }
done

# consume WAY PROGRAM...: builds by that way, and runs each of the programs that this has made.
consume() {
    way=$1
    shift
    echo "=== $way"
    inside "sh checkout/tests/readme/consumer.sh $way /work/checkout /work/build /work/sample.cpp \
        /work/$way /usr/bin/cmake Ninja /usr/bin/g++" >"$bare/work/$way.log" 2>&1 || {
        cat "$bare/work/$way.log" >&2
        exit 1
    }
    for program; do
        # A process of its own name, so that its sockets can be found and it can be told to leave.
        printf '#!/bin/sh\nexec chroot "%s" /work/%s/%s\n' "$bare" "$way" "$program" \
            >"$bare/work/run"
        chmod 755 "$bare/work/run"
        echo "$way/$program: $(sh "$root/tests/readme/serves.sh" "$bare/work/run")"
    done
}

echo "=== the library, without tests and examples"
# mawk and sed are all it takes to have the sample on a port that the kernel picks.
inside 'awk -f checkout/tests/readme/first_sample.awk checkout/README.md >first_sample.cpp
    sed "s/127\.0\.0\.1:[0-9]*/127.0.0.1:0/" first_sample.cpp >sample.cpp
    cmake -S checkout -B build -G Ninja -DREACTOR_TESTS=OFF -DREACTOR_EXAMPLES=OFF
    cmake --build build' >"$bare/work/configure.log" 2>&1 || {
    cat "$bare/work/configure.log" >&2
    exit 1
}

consume add_subdirectory build/sample
consume find_package build/sample
consume pkg_config sample
consume deb build/sample sample

echo "=== dpkg -i"
inside 'dpkg -i deb/libreactor-dev_*_all.deb && dpkg --verify libreactor-dev'
consume system build/sample sample
inside 'dpkg -r libreactor-dev && [ ! -e /usr/include/reactor ] && [ ! -e /usr/share/cmake/reactor ]'
echo "every way works without fmt and Catch2"
