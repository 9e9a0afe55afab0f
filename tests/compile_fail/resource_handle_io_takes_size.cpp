// SPDX-License-Identifier: Apache-2.0
// expect: a Resource must have: std::optional<Event> handle_io(Io), or with a second parameter
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : Without<ReadsByItself, MinimalResource> {
    std::optional<Event> handle_io(Io, std::byte*, std::size_t) { return std::nullopt; }
};

struct Served : Service<Wrong, MinimalWritable> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
