// SPDX-License-Identifier: Apache-2.0
// expect: the service must name a movable type Command (NoCommand if it takes none)
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Pinned {
    Pinned(Pinned&&) = delete;
};

struct Served : Service<MinimalResource, MinimalWritable, Pinned> {
    void handle_listener_event(ResourceId, Event, Actions&) {}
    void handle_transport_event(ResourceId, Event, Actions&) {}
    void handle_command(const Pinned&, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
