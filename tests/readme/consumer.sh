#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# consumer.sh WAY SOURCE BUILD SAMPLE SCRATCH CMAKE GENERATOR COMPILER: builds SAMPLE in a project
# of its own that finds the library by WAY.
set -eu
way=$1 source=$2 build=$3 sample=$4 scratch=$5 cmake=$6 generator=$7 compiler=$8

rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch"
cp "$sample" sample.cpp

# Installed, and then moved: the package must find itself.
install_and_move() {
    "$cmake" --install "$build" --prefix "$scratch/first" >/dev/null
    mv first second
}

build_project() {
    "$cmake" -S . -B build -G "$generator" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_CXX_FLAGS= \
        -DCMAKE_BUILD_TYPE= "$@"
    "$cmake" --build build
    [ -x build/sample ]
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
    build_project
    # A guest brings no tests, examples or install rules along.
    if grep -E '^REACTOR_[A-Z]*:BOOL=ON' build/CMakeCache.txt ||
        [ -e build/reactor/cmake_install.cmake ] && grep -q 'reactor/io.hpp' \
            build/reactor/cmake_install.cmake; then
        exit 1
    fi
    ;;
find_package)
    install_and_move
    cat >CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.23)
project(consumer LANGUAGES CXX)
find_package(reactor 0.1 REQUIRED)
add_executable(sample sample.cpp)
target_link_libraries(sample PRIVATE reactor::reactor)
# Asked for a second time, with the component; a version of another minor number does not do.
find_package(reactor 0.1.0 REQUIRED COMPONENTS fmt)
if(NOT TARGET reactor::fmt)
  message(FATAL_ERROR "no reactor::fmt")
endif()
find_package(reactor 0.2 QUIET)
if(reactor_FOUND)
  message(FATAL_ERROR "0.1 passed for 0.2")
endif()
END
    build_project -DCMAKE_PREFIX_PATH="$scratch/second"
    # The same package without fmt: the library is there, reactor::fmt is not.
    cat >CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.23)
project(consumer LANGUAGES CXX)
find_package(reactor REQUIRED)
add_executable(sample sample.cpp)
target_link_libraries(sample PRIVATE reactor::reactor)
if(TARGET reactor::fmt)
  message(FATAL_ERROR "reactor::fmt without fmt")
endif()
END
    build_project -DCMAKE_PREFIX_PATH="$scratch/second" -DCMAKE_DISABLE_FIND_PACKAGE_fmt=ON
    ;;
pkg_config)
    install_and_move
    PKG_CONFIG_PATH=$scratch/second/share/pkgconfig
    export PKG_CONFIG_PATH
    [ "$(pkg-config --modversion reactor)" = "$(sed -n 's/^  VERSION //p' "$source/CMakeLists.txt")" ]
    # shellcheck disable=SC2046 # one word a flag
    "$compiler" -std=c++20 $(pkg-config --cflags reactor) sample.cpp -o sample $(pkg-config --libs reactor)
    [ -x sample ]
    ;;
esac
