// SPDX-License-Identifier: Apache-2.0
// expect: a Poller must have a public std::error_code watch_waker(int fd)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Wrong = Without<WatchesWaker, MinimalPoller>;

void run(reactor::Runtime<MinimalService, Wrong>& runtime) { runtime.run(); }
