// SPDX-License-Identifier: Apache-2.0
// expect: the service is not complete here: define it before the Runtime or Reactor that runs it
#include "../archetypes.hpp"

#include <reactor/reactor.hpp>

using namespace archetypes;

struct Served;

void run(reactor::Reactor<Served>& reactor) { reactor.join(); }
