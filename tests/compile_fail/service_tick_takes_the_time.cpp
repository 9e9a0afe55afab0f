// SPDX-License-Identifier: Apache-2.0
// expect: the service's tick must be public and read: void tick(Actions&)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    void tick(Timestamp, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
