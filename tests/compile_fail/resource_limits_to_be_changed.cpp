// SPDX-License-Identifier: Apache-2.0
// expect: the optional power of a Resource must read: void inherit_limits(const StreamLimits&)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : MinimalResource {
    void inherit_limits(StreamLimits&) {}
};

struct Served : Service<Wrong, MinimalWritable> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
