// SPDX-License-Identifier: Apache-2.0
// expect: the service must have a public void handle_listener_event(ResourceId, Listener::Event,
// The event is the service's: it is moved in.
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    void handle_listener_event(ResourceId, Event&, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
