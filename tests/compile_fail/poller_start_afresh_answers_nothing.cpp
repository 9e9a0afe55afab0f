// SPDX-License-Identifier: Apache-2.0
// expect: the optional power of a Poller must read: std::error_code start_afresh()
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : MinimalPoller {
    void start_afresh() {}
};

void run(reactor::Runtime<MinimalService, Wrong>& runtime) { runtime.run(); }
