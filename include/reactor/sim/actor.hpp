// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: who lives in a world.
//
// An Actor has turns, one at a time, as the world gives them: a runtime is one. An Onlooker has
// none: it is called in the middle of other people's turns, and so plays the other threads of a
// program, of which a world has none.
#pragma once

#include <reactor/sim/call.hpp>
#include <reactor/time.hpp>

namespace reactor::inline v0 {
namespace sim {

/// Somebody who lives in a world and has turns: a runtime.
class Actor {
  public:
    /// One turn, which may wait. False: there will be no more.
    virtual bool act() = 0;
    /// Whether a turn would not wait.
    [[nodiscard]] virtual bool is_awake() = 0;
    /// When it will be awake if nothing happens until then: nobody sleeps past that moment.
    [[nodiscard]] virtual Timestamp due() const { return Timestamp::max(); }

  protected:
    ~Actor() = default;
};

/// Is shown what the program asks of the kernel, while it asks: to do, in the middle of a turn,
/// what another thread could do at any time.
class Onlooker {
  public:
    /// Before the call is performed; `fd` is -1 where there is none yet. May use what any thread
    /// may: a Controller, World::note, fail, peers. Calls that it makes itself are not shown. Must
    /// not throw, nor touch the runtime or the service behind the program's back.
    virtual void look(Call call, int fd) = 0;

  protected:
    ~Onlooker() = default;
};

} // namespace sim
} // namespace reactor::inline v0
