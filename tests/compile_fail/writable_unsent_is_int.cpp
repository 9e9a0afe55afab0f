// SPDX-License-Identifier: Apache-2.0
// expect: a Writable must have: std::size_t unsent() const
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : Without<CountsUnsent, MinimalWritable> {
    int unsent() const { return 0; }
};

struct Served : Service<MinimalResource, Wrong> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
