// SPDX-License-Identifier: Apache-2.0
// expect: a Poller must have a public PollEvent event(std::size_t index) const
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Wrong = Without<GivesEvents, MinimalPoller>;

void run(reactor::Runtime<MinimalService, Wrong>& runtime) { runtime.run(); }
