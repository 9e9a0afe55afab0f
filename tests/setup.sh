# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2034
# Sourced by tests/run.sh and examples/run.sh: installs what is missing. POSIX sh; relies on
# nothing that a minimal Debian does not have.

# What each purpose needs, as Debian packages. An example's check names its clients itself.
packages_build="g++ cmake ninja-build libfmt-dev"
packages_examples="node-llhttp libssl-dev"
packages_tests="catch2 pkgconf socat ncat strace valgrind doxygen iproute2 python3 spin"
packages_clang="clang"
packages_clang_sanitizers="libclang-rt-14-dev llvm"

# need PACKAGE... : makes sure that the packages are installed. Asks the network only if one is
# missing, so that a second run works offline. Ends the script with status 2 where it cannot help.
need() {
    need_missing=
    for need_package; do
        dpkg-query -W -f '${db:Status-Status}\n' "$need_package" 2>/dev/null |
            grep -qx installed || need_missing="$need_missing $need_package"
    done
    [ -n "$need_missing" ] || return 0
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        echo "There is no apt here. Please install what these Debian packages hold:$need_missing" >&2
        exit 2
    fi
    if [ "$(id -u)" -eq 0 ]; then
        need_sudo=
    elif command -v sudo >/dev/null; then
        need_sudo=sudo
    else
        echo "Not root, and there is no sudo. Please install:$need_missing" >&2
        exit 2
    fi
    echo "Installing:$need_missing"
    need_log=$(mktemp)
    # Lists that are empty, or old and name what the archive no longer has, are fetched anew.
    # shellcheck disable=SC2086 # the names are to be split into words
    if ! need_apt install -y --no-install-recommends $need_missing >"$need_log" 2>&1 &&
        ! { need_apt update && need_apt install -y --no-install-recommends $need_missing; } \
            >"$need_log" 2>&1; then
        cat "$need_log" >&2
        rm -f "$need_log"
        echo "Could not install:$need_missing" >&2
        exit 2
    fi
    rm -f "$need_log"
}

need_apt() {
    # shellcheck disable=SC2086 # empty where the user is root
    $need_sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 "$@" </dev/null
}
