// SPDX-License-Identifier: Apache-2.0
// expect: a Resource must have a public std::optional<Event> handle_io(Io), or with a second
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : Without<ReadsByItself, MinimalResource> {
    Event handle_io(Io) { return Event(0); }
};

struct Served : Service<Wrong, MinimalWritable> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
