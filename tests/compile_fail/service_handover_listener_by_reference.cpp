// SPDX-License-Identifier: Apache-2.0
// expect: the service's handover_listener must be public and read: void
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    void handover_listener(ResourceId, Listener&, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
