// SPDX-License-Identifier: Apache-2.0
// expect: a Writable must have a public void flush()
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Wrong = Without<Flushes, MinimalWritable>;

struct Served : Service<MinimalResource, Wrong> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
