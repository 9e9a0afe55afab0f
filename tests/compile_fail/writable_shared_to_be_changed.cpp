// SPDX-License-Identifier: Apache-2.0
// expect: the optional power of a Writable must read: WriteStatus write_shared(const Buffer&)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : MinimalWritable {
    WriteStatus write_shared(Buffer&) { return WriteStatus::full; }
};

struct Served : Service<MinimalResource, Wrong> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
