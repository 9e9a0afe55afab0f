// SPDX-License-Identifier: Apache-2.0
//
// A loop that a test turns itself: until something is so, or until it comes to rest. And what every
// house with a runtime in it does alike: a Driver, as the base of one that has a `runtime`, whose
// service does its `next` once, in the next tick.
#pragma once

#include "calm.hpp"

#include <reactor/os/kernel.hpp>
#include <reactor/time.hpp>

#include <utility>

namespace test {

/// Turns until this is so; false: it will never be.
template <class Loop, class Condition>
bool until(Loop& loop, Condition condition) {
    for (int turns = 0; turns < 10'000; ++turns) {
        if (condition()) {
            return true;
        }
        loop.turn(std::chrono::milliseconds{1});
    }
    return condition();
}

/// Whether the loop comes to rest: waits, several times in a row, for all of its time.
template <class Loop>
bool rests(Loop& loop) {
    using reactor::os::Kernel;
    constexpr std::chrono::milliseconds span{1};
    const Calm calm; // a signal may end a turn
    int waits = 0;
    for (int turns = 0; turns < 1'000 && waits < 3; ++turns) {
        const reactor::Timestamp before = Kernel::now();
        loop.turn(span);
        waits = Kernel::now() - before >= span ? waits + 1 : 0;
    }
    return waits == 3;
}

template <class House>
struct Driver {
    auto& service() { return house().runtime.service(); }
    void turn() { house().runtime.turn(reactor::Duration::zero()); }
    /// One turn, which begins with this.
    template <class Job>
    void perform(Job&& job) {
        service().next = std::forward<Job>(job);
        turn();
    }
    template <class Condition>
    bool until(Condition condition) {
        return test::until(house().runtime, std::move(condition));
    }
    bool rests() { return test::rests(house().runtime); }

  private:
    House& house() { return static_cast<House&>(*this); }
};

} // namespace test
