// SPDX-License-Identifier: Apache-2.0
// expect: the service's handle_start must be public and read: void handle_start(Actions&)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

class Served : public MinimalService {
    void handle_start(Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
