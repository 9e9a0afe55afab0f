// SPDX-License-Identifier: Apache-2.0
// expect: the service's handover_listener must read: void handover_listener(ResourceId, Listener,
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    void handover_listener(ResourceId, Transport, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
