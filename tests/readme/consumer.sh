#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# consumer.sh WAY SOURCE BUILD SAMPLE SCRATCH CMAKE GENERATOR COMPILER: builds SAMPLE in a project
# of its own that finds the library by WAY; the program is SCRATCH/build/sample, or SCRATCH/sample
# where no CMake is involved.
#
#   add_subdirectory   the source tree within another project
#   find_package       an installed copy that was moved; fmt need not be there
#   fmt                the same, with the component fmt
#   pkg_config         an installed copy that was moved
#   deb                the Debian package, installed into a root of its own, then removed
#   system             the Debian package that dpkg has installed on this machine: no hints
set -eu
way=$1 source=$2 build=$3 sample=$4 scratch=$5 cmake=$6 generator=$7 compiler=$8

rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch"
cp "$sample" sample.cpp
version=$(sed -n 's/^  VERSION //p' "$source/CMakeLists.txt")
# What the environment of a user may hold is no part of the test.
unset CMAKE_PREFIX_PATH PKG_CONFIG_PATH reactor_DIR reactor_ROOT REACTOR_ROOT 2>/dev/null || true

fail() {
    echo "$way: $1" >&2
    exit 1
}

# Installed, and then moved: the package must find itself.
install_and_move() {
    "$cmake" --install "$build" --prefix "$scratch/first" >/dev/null
    mv first second
}

build_project() { # build_project PREFIX [OPTION...]: the package is found there
    prefix=$1
    shift
    rm -rf build
    "$cmake" -S . -B build -G "$generator" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_CXX_FLAGS= \
        -DCMAKE_BUILD_TYPE= "$@"
    # CMake has looked where it was told to, and not found another copy of the library.
    [ -z "$prefix" ] ||
        grep -qx "reactor_DIR:PATH=$prefix/share/cmake/reactor" build/CMakeCache.txt ||
        fail "found $(grep reactor_DIR build/CMakeCache.txt), not the one in $prefix"
    "$cmake" --build build
    [ -x build/sample ]
}

by_find_package() { # by_find_package PREFIX [OPTION...]: as most users write it
    cat >CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.23)
project(consumer LANGUAGES CXX)
find_package(reactor 0.1 REQUIRED)
add_executable(sample sample.cpp)
target_link_libraries(sample PRIVATE reactor::reactor)
END
    build_project "$@"
}

refuses() { # refuses PREFIX: what is not there, fmt or a version, is not found
    cat >CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.23)
project(consumer LANGUAGES CXX)
find_package(reactor REQUIRED)
if(TARGET reactor::fmt)
  message(FATAL_ERROR "reactor::fmt without fmt")
endif()
find_package(reactor QUIET COMPONENTS fmt)
if(reactor_FOUND)
  message(FATAL_ERROR "the component fmt without fmt")
endif()
# A version of another minor number does not do.
find_package(reactor 0.2 QUIET)
if(reactor_FOUND)
  message(FATAL_ERROR "0.1 passed for 0.2")
endif()
END
    rm -rf build
    "$cmake" -S . -B build -G "$generator" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_CXX_FLAGS= \
        -DCMAKE_BUILD_TYPE= -DCMAKE_PREFIX_PATH="$1" -DCMAKE_DISABLE_FIND_PACKAGE_fmt=ON
}

by_pkg_config() { # by_pkg_config PREFIX: where PREFIX/share/pkgconfig is looked into
    [ "$(pkg-config --modversion reactor)" = "$version" ] || fail "pkg-config: not version $version"
    [ "$(realpath "$(pkg-config --variable=includedir reactor)")" = "$(realpath "$1/include")" ] ||
        fail "pkg-config: the headers are not those in $1/include"
    # shellcheck disable=SC2046 # one word a flag
    "$compiler" -std=c++20 $(pkg-config --cflags reactor) sample.cpp -o sample \
        $(pkg-config --libs reactor)
    [ -x sample ]
}

# The package is what it says, and holds what is installed, readable by all, and nothing else.
check_package() { # check_package FILE
    for line in "Package libreactor-dev" "Version $version" "Architecture all" "Section libdevel" \
        "Suggests libfmt-dev" "Depends" "Pre-Depends" "Recommends"; do
        field=${line%% *}
        found=$(dpkg-deb -f "$1" "$field")
        [ "$found" = "$(echo "${line#"$field"}" | sed 's/^ //')" ] ||
            fail "$field is '$found', it should read '$line'"
    done
    dpkg-deb -c "$1" >contents
    awk '
        $2 != "root/root" || $1 != (/\/$/ ? "drwxr-xr-x" : "-rw-r--r--") { print; status = 1 }
        END { exit status }
    ' contents >odd || fail "owners and modes: $(cat odd)"
    {
        sed -n 's/^ *include\/\(reactor\/.*\.hpp\)$/.\/usr\/include\/\1/p' "$source/CMakeLists.txt"
        for file in config config-version targets fmt-targets; do
            echo "./usr/share/cmake/reactor/reactor-$file.cmake"
        done
        echo ./usr/share/doc/libreactor-dev/copyright
        echo ./usr/share/pkgconfig/reactor.pc
    } | sort >wanted
    awk '!/\/$/ { print $6 }' contents | sort >packed
    diff wanted packed || fail "the files of the package (>) are not those it should hold (<)"
    # It is of the tree as it is, and speaks of no place on the machine that made it.
    dpkg-deb -x "$1" unpacked
    sed -n 's|^\./usr/include/||p' wanted >headers
    while read -r header; do
        cmp "$source/include/$header" "unpacked/usr/include/$header"
    done <headers
    cmp "$source/LICENSE" unpacked/usr/share/doc/libreactor-dev/copyright
    ! grep -rlF -e "$source" -e "$build" -e "$scratch" unpacked/usr/share/cmake \
        unpacked/usr/share/pkgconfig || fail "these files hold a path of this machine"
}

# dpkg with a root and a database of its own; the user need not be root.
dpkg_there() {
    PATH=$PATH:/usr/sbin:/sbin dpkg --root="$scratch/root" --log=/dev/null --force-not-root "$@"
}

case $way in
add_subdirectory)
    cat >CMakeLists.txt <<END
cmake_minimum_required(VERSION 3.23)
project(consumer LANGUAGES CXX)
add_subdirectory("$source" reactor)
add_executable(sample sample.cpp)
target_link_libraries(sample PRIVATE reactor::reactor)
END
    build_project ""
    # A guest brings no tests, examples or install rules along.
    if grep -E '^REACTOR_[A-Z]*:BOOL=ON' build/CMakeCache.txt ||
        [ -e build/reactor/cmake_install.cmake ] && grep -q 'reactor/io.hpp' \
            build/reactor/cmake_install.cmake; then
        exit 1
    fi
    ;;
find_package)
    install_and_move
    refuses "$scratch/second"
    by_find_package "$scratch/second" -DCMAKE_PREFIX_PATH="$scratch/second"
    ;;
fmt)
    install_and_move
    cat >CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.23)
project(consumer LANGUAGES CXX)
find_package(reactor 0.1 REQUIRED)
# Asked for a second time, with the component.
find_package(reactor 0.1.0 REQUIRED COMPONENTS fmt)
file(WRITE ${CMAKE_BINARY_DIR}/printing.cpp "#include <reactor/fmt.hpp>\n#include \"sample.cpp\"\n")
add_executable(sample ${CMAKE_BINARY_DIR}/printing.cpp)
target_include_directories(sample PRIVATE ${CMAKE_SOURCE_DIR})
target_link_libraries(sample PRIVATE reactor::fmt)
END
    build_project "$scratch/second" -DCMAKE_PREFIX_PATH="$scratch/second"
    ;;
pkg_config)
    install_and_move
    PKG_CONFIG_PATH=$scratch/second/share/pkgconfig
    export PKG_CONFIG_PATH
    by_pkg_config "$scratch/second"
    ;;
deb)
    # A package is the same whatever umask its maker had.
    (umask 077 && "$(dirname "$cmake")/cpack" --config "$build/CPackConfig.cmake" -G DEB -B packed)
    package=$(echo packed/*.deb)
    [ "$package" = "packed/libreactor-dev_${version}_all.deb" ] || fail "packed $package"
    mv "$package" .
    package=${package#*/}
    rm -r packed
    check_package "$package"

    mkdir -p root/var/lib/dpkg/info root/var/lib/dpkg/updates
    : >root/var/lib/dpkg/status
    : >root/var/lib/dpkg/available
    dpkg_there -i "$package"
    by_find_package "$scratch/root/usr" -DCMAKE_PREFIX_PATH="$scratch/root/usr"
    PKG_CONFIG_PATH=$scratch/root/usr/share/pkgconfig
    export PKG_CONFIG_PATH
    by_pkg_config "$scratch/root/usr"
    dpkg_there -r libreactor-dev
    [ ! -e root/usr ] || [ -z "$(find root/usr -type f)" ] || fail "left behind: $(find root/usr)"
    ;;
system)
    [ "$(dpkg-query -W -f '${db:Status-Status}' libreactor-dev)" = installed ]
    by_find_package /usr
    by_pkg_config /usr
    ;;
*) fail "no such way" ;;
esac
