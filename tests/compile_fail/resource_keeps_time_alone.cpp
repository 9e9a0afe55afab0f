// SPDX-License-Identifier: Apache-2.0
// expect: the optional power of a Resource must read: bool keeps_time() const, with void
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : MinimalResource {
    bool keeps_time() const { return true; }
};

struct Served : Service<Wrong, MinimalWritable> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
