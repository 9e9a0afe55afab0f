#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# selftest.sh REFERENCE DOXYGEN CONFIGURATION SCRATCH: reference.sh names each public name that has
# no contract, and none that is private, an implementation's, or a specialisation of other people's.
set -eu
reference=$1 doxygen=$2 configuration=$3 scratch=$4

rm -rf "$scratch"
mkdir -p "$scratch/reactor"
cd "$scratch"

# The configuration of the library, for one header of our own.
{
    cat "$configuration"
    echo "INPUT = \"$scratch/reactor/a.hpp\" \"${reference%/*}/reference.dox\""
} >Doxyfile

header() { # header LINE...: a header with these lines in the namespace
    {
        echo "#pragma once"
        echo "namespace reactor::inline v0 {"
        printf '%s\n' "$@"
        echo "} // namespace reactor::inline v0"
        echo "template <> struct fmt::formatter<reactor::A> : reactor::detail::TextFormatter {};"
        echo "template <> struct std::hash<reactor::A> { int operator()(reactor::A) const; };"
    } >reactor/a.hpp
}

status=0
finds() { # finds NAME LINE...
    wanted=$1
    shift
    header "$@"
    if sh "$reference" "$doxygen" Doxyfile "$scratch/out" >said 2>&1; then
        echo "should have told of $wanted"
        status=1
    elif ! grep -qF -- "$wanted" said; then
        echo "should have told of $wanted; said: $(cat said)"
        status=1
    fi
}
passes() { # passes LINE...
    header "$@"
    if ! sh "$reference" "$doxygen" Doxyfile "$scratch/out" >said 2>&1; then
        echo "should have passed; said: $(cat said)"
        status=1
    fi
}

passes '/// A.' 'struct A {' '    int a = 0; ///< An a.' '};'
passes '/// A.' 'class A {' '    int a_ = 0;' '    void f();' '};' \
    'namespace detail {' 'struct B { int b; };' 'void g();' '} // namespace detail'
passes '/// A.' 'struct A {' '    /// @{' '    /// Both.' '    int a = 0;' '    int b = 0;' \
    '    /// @}' '};'
passes '/// A.' 'struct A {};' '#ifdef __cpp_exceptions' '/// Throws.' 'void f();' '#endif'
finds 'a.hpp:4: Member b (variable) of struct reactor::A' '/// A.' 'struct A { int b; };'
finds 'Compound reactor::A' 'struct A {' '/// An a.' 'int a;' '};'
finds 'Member f() (function) of namespace reactor' 'void f();'
finds 'Member f() (function) of class reactor::A' '/// A.' 'class A {' 'public:' 'void f();' '};'
finds 'Member Name (typedef) of struct reactor::A' '/// A.' 'struct A {' 'using Name = int;' '};'
finds 'Member one (variable) of struct reactor::A' '/// A.' 'struct A {' 'int one = 1;' '};'
finds 'Member f() (function) of class reactor::A' \
    '#ifdef __cpp_exceptions' '/// A.' 'class A {' 'protected:' 'void f();' '};' '#endif'
# Whatever else doxygen says is a failure too.
finds 'nothing_of_the_kind' '/// @copydoc nothing_of_the_kind' 'struct A {};'
exit $status
