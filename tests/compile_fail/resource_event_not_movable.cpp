// SPDX-License-Identifier: Apache-2.0
// expect: a Resource must name a movable type Event: what it yields
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : Without<NamesEvent, MinimalResource> {
    struct Event {
        Event(Event&&) = delete;
    };
};

struct Served : Service<Wrong, MinimalWritable> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
