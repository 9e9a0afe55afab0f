// SPDX-License-Identifier: Apache-2.0
// expect: the service names a Command, so it must have a public void handle_command(Command,
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : Service<MinimalResource, MinimalWritable, archetypes::Command> {
    void handle_listener_event(ResourceId, Event, Actions&) {}
    void handle_transport_event(ResourceId, Event, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
