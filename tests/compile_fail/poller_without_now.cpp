// SPDX-License-Identifier: Apache-2.0
// expect: a Poller must have a public Timestamp now()
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Wrong = Without<TellsTime, MinimalPoller>;

void run(reactor::Runtime<MinimalService, Wrong>& runtime) { runtime.run(); }
