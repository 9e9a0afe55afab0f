// SPDX-License-Identifier: Apache-2.0
// expect: the service's handle_error must be public and read: void handle_error(Error, Actions&)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    void handle_error(Error&, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
