// SPDX-License-Identifier: Apache-2.0
// expect: a Resource must have a public std::optional<Event> handle_io(Io), or with a second
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Wrong = Without<ReadsByItself, MinimalResource>;

struct Served : Service<Wrong, MinimalWritable> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
