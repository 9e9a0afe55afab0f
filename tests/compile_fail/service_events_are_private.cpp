// SPDX-License-Identifier: Apache-2.0
// expect: the service must have a public void handle_listener_event(ResourceId, Listener::Event,
// As a class is, unless told otherwise.
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

class Served : public Service<MinimalResource, MinimalWritable> {
    void handle_listener_event(ResourceId, Event, Actions&) {}
    void handle_transport_event(ResourceId, Event, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
