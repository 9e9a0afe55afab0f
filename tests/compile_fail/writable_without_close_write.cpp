// SPDX-License-Identifier: Apache-2.0
// expect: a Writable must have a public void close_write()
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Wrong = Without<ClosesWrite, MinimalWritable>;

struct Served : Service<MinimalResource, Wrong> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
