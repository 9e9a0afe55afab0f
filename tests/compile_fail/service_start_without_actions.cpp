// SPDX-License-Identifier: Apache-2.0
// expect: the service's handle_start must be public and read: void handle_start(Actions&)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    void handle_start() {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
