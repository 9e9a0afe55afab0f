// SPDX-License-Identifier: Apache-2.0
// expect: a Poller must name its Kernel, with: static Timestamp now()
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : Without<NamesKernel, MinimalPoller> {
    struct Kernel {};
};

void run(reactor::Runtime<MinimalService, Wrong>& runtime) { runtime.run(); }
