// SPDX-License-Identifier: Apache-2.0
// expect: the service must name a movable type Command (NoCommand if it takes none)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Served = Without<NamesNoCommand, MinimalHandler>;

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
