// SPDX-License-Identifier: Apache-2.0
// expect: the service must have a public void handle_transport_event(ResourceId, Transport::Event,
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    void handle_transport_event(ResourceId, std::span<const std::byte>, Actions&) {}
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
