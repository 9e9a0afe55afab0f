// SPDX-License-Identifier: Apache-2.0
// expect: the service's handle_registered must be public and read: void
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    void handle_registered(ResourceId, Role, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
