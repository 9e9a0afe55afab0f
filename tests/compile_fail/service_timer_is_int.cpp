// SPDX-License-Identifier: Apache-2.0
// expect: the service's handle_timer must be public and read: void handle_timer(TimerId, Actions&)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    void handle_timer(int, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
