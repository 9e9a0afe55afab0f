// SPDX-License-Identifier: Apache-2.0
// expect: a Poller must have a public void unwatch(int fd, ResourceId)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Wrong = Without<Unwatches, MinimalPoller>;

void run(reactor::Runtime<MinimalService, Wrong>& runtime) { runtime.run(); }
