// SPDX-License-Identifier: Apache-2.0
//
// The operating system under a plan, as pollers and loops see it: counts their calls, fails those
// that a test wants to fail, and remembers how long a wait was asked for. Each thread has plans of
// its own; with a Plans at its beginning a test begins and ends without any.
#pragma once

#include <reactor/os/kernel.hpp>

#include <limits>

/// What became of one function of the kernel, and what will.
struct CallSite {
    static constexpr std::size_t for_ever = std::numeric_limits<std::size_t>::max();

    std::size_t calls = 0;
    int error = 0;
    std::size_t passes = 0; ///< calls that succeed before it fails
    std::size_t times = 0;  ///< how often it fails then

    /// After `first` good calls, `often` fail with this errno.
    void fail(int with, std::size_t first = 0, std::size_t often = for_ever) noexcept {
        error = with;
        passes = first;
        times = often;
    }
    void heal() noexcept { error = 0; }
    /// Counts a call; gives the error that it is to fail with, or zero.
    int arrive() noexcept {
        ++calls;
        if (error == 0 || times == 0) {
            return 0;
        }
        if (passes != 0) {
            --passes;
            return 0;
        }
        times -= times == for_ever ? 0 : 1;
        return error;
    }
};

struct PlannedKernel : reactor::os::Kernel {
    using Base = reactor::os::Kernel;
    using Result = reactor::os::Result;
    using Duration = reactor::Duration;

    static inline thread_local CallSite creating;    // epoll_create1
    static inline thread_local CallSite bell_making; // eventfd
    static inline thread_local CallSite controlling; // epoll_ctl
    static inline thread_local CallSite waiting;     // epoll_pwait: milliseconds
    static inline thread_local CallSite precise;     // epoll_pwait2: nanoseconds
    static inline thread_local CallSite polling;     // ppoll
    static inline thread_local CallSite sleeping;    // rests of the loop: counted, not slept
    static inline thread_local int milliseconds = 0; // what epoll_pwait was last asked for
    static inline thread_local Duration timeout{};   // what any kind of wait was last asked for
    static inline thread_local Duration slept{};     // all rests together

    /// No plans, all counters zero.
    static void heal() noexcept {
        creating = bell_making = controlling = waiting = precise = polling = sleeping = CallSite{};
        milliseconds = 0;
        timeout = slept = Duration::zero();
    }
    /// How often somebody waited, by whatever means (PollPoller also does so at a registration).
    static std::size_t waits() noexcept { return waiting.calls + precise.calls + polling.calls; }
    /// Lets waits of all kinds fail.
    static void fail_waits(int error, std::size_t often = CallSite::for_ever) noexcept {
        waiting.fail(error, 0, often);
        precise.fail(error, 0, often);
        polling.fail(error, 0, often);
    }
    static void heal_waits() noexcept {
        waiting.heal();
        precise.heal();
        polling.heal();
    }

    static Result epoll_create() noexcept {
        const int error = creating.arrive();
        return error != 0 ? Result{0, error} : Base::epoll_create();
    }
    static Result event_fd() noexcept {
        const int error = bell_making.arrive();
        return error != 0 ? Result{0, error} : Base::event_fd();
    }
    static Result epoll_control(int epoll, int operation, int fd, std::uint32_t events,
                                std::uint64_t data) noexcept {
        const int error = controlling.arrive();
        return error != 0 ? Result{0, error}
                          : Base::epoll_control(epoll, operation, fd, events, data);
    }
    static Result epoll_wait(int epoll, std::span<epoll_event> into, int longest) noexcept {
        milliseconds = longest;
        timeout = longest < 0 ? Duration::max() : std::chrono::milliseconds{longest};
        const int error = waiting.arrive();
        return error != 0 ? Result{0, error} : Base::epoll_wait(epoll, into, longest);
    }
    static Result epoll_wait_precise(int epoll, std::span<epoll_event> into,
                                     Duration longest) noexcept {
        timeout = longest;
        const int error = precise.arrive();
        return error != 0 ? Result{0, error} : Base::epoll_wait_precise(epoll, into, longest);
    }
    static Result poll(std::span<pollfd> fds, Duration longest) noexcept {
        timeout = longest;
        const int error = polling.arrive();
        return error != 0 ? Result{0, error} : Base::poll(fds, longest);
    }
    static void sleep(Duration span) noexcept {
        sleeping.arrive();
        slept += span;
    }
};

/// No plans while a test begins, and none when it ends.
struct Plans {
    Plans() noexcept { PlannedKernel::heal(); }
    Plans(const Plans&) = delete;
    Plans& operator=(const Plans&) = delete;
    ~Plans() { PlannedKernel::heal(); }
};
