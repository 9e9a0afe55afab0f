// SPDX-License-Identifier: Apache-2.0
// expect: the service's handle_start must read: void handle_start(Actions&)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    int handle_start(Actions&) { return 0; }
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
