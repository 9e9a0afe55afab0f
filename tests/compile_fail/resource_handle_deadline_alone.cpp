// SPDX-License-Identifier: Apache-2.0
// expect: the optional power of a Resource must read: std::optional<Timestamp> deadline() const,
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : MinimalResource {
    void handle_deadline() {}
};

struct Served : Service<Wrong, MinimalWritable> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
