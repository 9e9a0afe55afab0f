// SPDX-License-Identifier: Apache-2.0
// expect-gcc: 'Actions' has not been declared
// expect-clang: unknown type name 'Actions'
// The base depends on a parameter: `using typename Chat::Service::Actions;` is what is missing.
#include <reactor/net/tcp.hpp>
#include <reactor/runtime.hpp>

using namespace reactor;

template <class Kernel = os::Kernel>
struct Chat : Service<BasicTcpListener<Kernel>, BasicTcpStream<Kernel>> {
    void handle_transport_event(ResourceId, StreamEvent, Actions&) {}
};
