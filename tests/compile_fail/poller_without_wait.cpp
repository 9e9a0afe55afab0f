// SPDX-License-Identifier: Apache-2.0
// expect: a Poller must have a public PollResult wait(Duration timeout, std::size_t most)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Wrong = Without<Waits, MinimalPoller>;

void run(reactor::Runtime<MinimalService, Wrong>& runtime) { runtime.run(); }
