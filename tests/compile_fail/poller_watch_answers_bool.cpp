// SPDX-License-Identifier: Apache-2.0
// expect: a Poller must have: std::error_code watch(int fd, ResourceId, Interest)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : Without<Watches, MinimalPoller> {
    bool watch(int, ResourceId, Interest) { return true; }
};

void run(reactor::Runtime<MinimalService, Wrong>& runtime) { runtime.run(); }
