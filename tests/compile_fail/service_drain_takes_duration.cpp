// SPDX-License-Identifier: Apache-2.0
// expect: the service's handle_drain must be public and read: void handle_drain(Timestamp deadline,
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    void handle_drain(Duration, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
