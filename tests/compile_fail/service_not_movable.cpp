// SPDX-License-Identifier: Apache-2.0
// expect: the service must be movable: the Runtime owns it by value
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    Served(Served&&) = delete;
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
