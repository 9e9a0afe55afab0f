// SPDX-License-Identifier: Apache-2.0
// expect: a Poller must have: PollEvent event(std::size_t index) const
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : Without<GivesEvents, MinimalPoller> {
    PollEvent event(std::size_t) { return {}; }
};

void run(reactor::Runtime<MinimalService, Wrong>& runtime) { runtime.run(); }
