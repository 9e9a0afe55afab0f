// SPDX-License-Identifier: Apache-2.0
// expect: the optional power of a Resource must read: bool brings_transports() const
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : MinimalResource {
    bool brings_transports() { return true; }
};

struct Served : Service<Wrong, MinimalWritable> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
