// SPDX-License-Identifier: Apache-2.0
// expect: the optional power of a Writable must read: WriteStatus write_borrowed(std::span<const
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : MinimalWritable {
    bool write_borrowed(std::span<const std::byte>) { return true; }
};

struct Served : Service<MinimalResource, Wrong> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
