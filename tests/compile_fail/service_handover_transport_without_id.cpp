// SPDX-License-Identifier: Apache-2.0
// expect: the service's handover_transport must read: void handover_transport(ResourceId,
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    void handover_transport(Transport, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
