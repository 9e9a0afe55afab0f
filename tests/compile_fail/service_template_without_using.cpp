// SPDX-License-Identifier: Apache-2.0
// expect-gcc: 'Actions' has not been declared
// expect-clang: unknown type name 'Actions'
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

template <class Kernel = os::Kernel>
struct Served : Service<MinimalResource, MinimalWritable> {
    void handle_listener_event(ResourceId, archetypes::Event, Actions&) {}
};
