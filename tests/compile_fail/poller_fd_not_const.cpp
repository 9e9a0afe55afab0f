// SPDX-License-Identifier: Apache-2.0
// expect: the optional power of a Poller must read: int fd() const
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : MinimalPoller {
    int fd() { return -1; }
};

void run(reactor::Runtime<MinimalService, Wrong>& runtime) { runtime.run(); }
