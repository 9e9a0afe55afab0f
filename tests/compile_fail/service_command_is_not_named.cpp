// SPDX-License-Identifier: Apache-2.0
// expect: the service has a handle_command, so it must name a type Command
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    void handle_command(int, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
