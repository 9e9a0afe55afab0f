// SPDX-License-Identifier: Apache-2.0
// expect: the service's handle_drain must read: void handle_drain(Timestamp deadline, Actions&)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    void handle_drain(Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
