// SPDX-License-Identifier: Apache-2.0
// expect: a Poller must have a public PollResult wait(Duration timeout, std::size_t most)
#include "../archetypes.hpp"

#include <reactor/reactor.hpp>

using namespace archetypes;

using Wrong = Without<Waits, MinimalPoller>;

void run(reactor::Reactor<MinimalService, Wrong>& reactor) { reactor.join(); }
