// SPDX-License-Identifier: Apache-2.0
// expect: a Writable must have a public WriteStatus write_atomic(std::span<const std::byte>)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Wrong = MinimalResource;

struct Served : Service<MinimalResource, Wrong> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
