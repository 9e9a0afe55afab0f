// SPDX-License-Identifier: Apache-2.0
// expect: a Poller must be movable: the runtime owns it by value
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : MinimalPoller {
    Wrong(Wrong&&) = delete;
};

void run(reactor::Runtime<MinimalService, Wrong>& runtime) { runtime.run(); }
