// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: the kernel that a program on trial runs on.
//
// sim::Kernel has the static functions of os::Kernel, over the World of this thread; give it to
// anything that is a template over a Kernel, and that runs unchanged. The functions stand by family
// in sim/calls/. What has no meaning in a world of one thread is absent (start_thread, join_thread,
// await_ring): to use it does not compile.
//
// Where it is not Linux: nothing ever blocks, whether a descriptor is non-blocking or not; a UNIX
// socket counts bytes where Linux counts the memory they take, so it is full at another number; TCP
// has no half of a second to lose packets in (what is sent arrives, late or never), and buffers
// that stay as they are; a TCP socket that calls itself is refused, and one whose connection is
// over begins no other; every IP address is the machine's own, directories are taken to be there,
// permissions to be given; what a service manager would have left at descriptor 3 is not there.
// Without a world every call answers ENOSYS, and close() does nothing.
#pragma once

#include <reactor/sim/calls/bytes.hpp>
#include <reactor/sim/calls/connections.hpp>
#include <reactor/sim/calls/descriptors.hpp>
#include <reactor/sim/calls/options.hpp>
#include <reactor/sim/calls/process.hpp>
#include <reactor/sim/calls/sockets.hpp>
#include <reactor/sim/calls/waits.hpp>

namespace reactor::inline v0 {
namespace sim {

/// The kernel of the current World.
struct Kernel : ProcessCalls,
                DescriptorCalls,
                ByteCalls,
                SocketCalls,
                ConnectionCalls,
                OptionCalls,
                WaitCalls {
    /// What a call answers.
    using Result = os::Result;
};

} // namespace sim
} // namespace reactor::inline v0
