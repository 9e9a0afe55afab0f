// SPDX-License-Identifier: Apache-2.0
// expect: the service must name a type Listener: derive it publicly from Service<
// As a class does, unless told otherwise.
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

class Served : Service<MinimalResource, MinimalWritable> {
  public:
    void handle_listener_event(ResourceId, archetypes::Event, Actions&) {}
    void handle_transport_event(ResourceId, archetypes::Event, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
