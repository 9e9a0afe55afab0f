// SPDX-License-Identifier: Apache-2.0
// expect: a Poller must have: PollResult wait(Duration timeout, std::size_t most)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : Without<Waits, MinimalPoller> {
    PollResult wait(int, std::size_t) { return {}; }
};

void run(reactor::Runtime<MinimalService, Wrong>& runtime) { runtime.run(); }
