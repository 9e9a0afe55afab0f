// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: calls that wait, and the bell that ends a wait.
//
// A wait lets the world go on until something is ready or the time is over, and makes room for
// another actor that is awake. The weather may end it early with nothing, as a signal does (this is
// EINTR, as os::Kernel tells it), fail it, shuffle what it reports, or report what is not ready.
#pragma once

#include <reactor/sim/calls/gate.hpp>

namespace reactor::inline v0 {
namespace sim {

/// Calls of os::Kernel, as they are in the current World; each contract there holds here. A wait
/// throws what a condition of World::run_until throws.
struct WaitCalls {
    // -- demultiplexers ---------------------------------------------------------------------------

    /// An epoll set.
    static os::Result epoll_create() noexcept {
        return detail::answer(Call::epoll_create, -1, 0, [](World& world) {
            return detail::made(world, File::Kind::epoll);
        });
    }
    /// To add may meet ENOMEM.
    static os::Result epoll_control(int epoll, int operation, int fd, std::uint32_t events,
                                    std::uint64_t data) noexcept {
        const auto bits = static_cast<std::uint64_t>(operation) << 32 | events;
        return detail::answer(Call::epoll_control, fd, bits, [&](World& world) {
            return operation == EPOLL_CTL_ADD && world.random.chance(world.weather.no_memory)
                       ? Result{0, ENOMEM}
                       : world.epoll_control(epoll, operation, fd, events, data);
        });
    }
    /// Milliseconds; -1 waits without end.
    static os::Result epoll_wait(int epoll, std::span<epoll_event> into, int milliseconds) {
        return wait_for(epoll, into,
                        milliseconds < 0 ? Duration::max()
                                         : Duration{std::chrono::milliseconds{milliseconds}});
    }
    /// Nanoseconds.
    static os::Result epoll_wait_precise(int epoll, std::span<epoll_event> into,
                                         Duration timeout) {
        return wait_for(epoll, into, timeout);
    }
    /// Nanoseconds; Duration::max() waits without end. One that only looks is left alone by the
    /// weather.
    static os::Result poll(std::span<pollfd> fds, Duration timeout) {
        const bool only_looks = timeout == Duration::zero();
        return detail::answer(Call::poll, -1, fds.size(), [&](World& world) {
            if (!only_looks && world.random.chance(world.weather.failing_wait)) {
                return Result{0, ENOMEM};
            }
            const Duration span = detail::early(world, timeout);
            const std::size_t count =
                world.wait(span, [&] { return world.collect(fds, only_looks); });
            for (const pollfd& each : fds) {
                if (each.revents != 0) {
                    world.trace.add(world.time(), Call::poll, each.fd,
                                    static_cast<std::uint64_t>(each.revents), {});
                }
            }
            return Result{static_cast<long>(count), 0};
        });
    }

    // -- the bell ---------------------------------------------------------------------------------

    /// An eventfd.
    static os::Result event_fd() noexcept {
        return detail::answer(Call::event_fd, -1, 0, [](World& world) {
            return detail::made(world, File::Kind::event);
        });
    }
    /// Makes an eventfd readable, with a new edge.
    static void ring(int fd) noexcept {
        detail::on(Call::ring, fd, 0, [](World&, File& file) {
            file.count = file.count == File::most_count ? 1 : file.count + 1;
            ++file.rings;
            return Result{};
        });
    }
    /// Takes back what was rung.
    static void silence(int fd) noexcept {
        detail::on(Call::silence, fd, 0, [](World&, File& file) {
            file.count = 0;
            return Result{};
        });
    }

  private:
    using Result = os::Result;

    static Result wait_for(int epoll, std::span<epoll_event> into, Duration timeout) {
        const auto span = static_cast<std::uint64_t>(timeout.count());
        return detail::answer(Call::epoll_wait, epoll, span, [&](World& world) {
            File* const set = world.find(epoll);
            if (set == nullptr || set->kind != File::Kind::epoll || into.empty()) {
                return Result{0, set == nullptr ? EBADF : EINVAL};
            }
            if (world.random.chance(world.weather.failing_wait)) {
                return Result{0, ENOMEM};
            }
            const std::size_t count = world.wait(detail::early(world, timeout), [&] {
                return world.collect(*set, into);
            });
            for (const epoll_event& event : into.first(count)) {
                world.trace.add(world.time(), Call::epoll_wait, epoll,
                                event.events ^ event.data.u64, {});
            }
            return Result{static_cast<long>(count), 0};
        });
    }
};

} // namespace sim
} // namespace reactor::inline v0
