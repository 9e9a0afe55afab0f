// SPDX-License-Identifier: Apache-2.0
// expect: a Poller must have a public std::error_code watch(int fd, ResourceId, Interest)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Wrong = Without<Watches, MinimalPoller>;

void run(reactor::Runtime<MinimalService, Wrong>& runtime) { runtime.run(); }
