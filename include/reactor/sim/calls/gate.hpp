// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator, behind the scenes: what every simulated call goes through.
//
// A call finds its world, lets time pass, is shown to whoever looks on, does its work, and leaves
// its answer in the trace. The weather that several families of calls have in common is here too.
#pragma once

#include <reactor/sim/world.hpp>

namespace reactor::inline v0 {
namespace sim {
namespace detail {

using Result = os::Result;

/// Performs `body(world)` as a call; ENOSYS where there is no world.
template <class Body>
Result answer(Call call, int fd, std::uint64_t argument, Body&& body) {
    World* const world = World::current();
    if (world == nullptr) {
        return {0, ENOSYS};
    }
    world->begin(call, fd);
    const Result result = body(*world);
    world->trace.add(world->time(), call, fd, argument, result);
    return result;
}
/// The same for a file: `body(world, file)`; EBADF where there is none.
template <class Body>
Result on(Call call, int fd, std::uint64_t argument, Body&& body) {
    return answer(call, fd, argument, [&](World& world) {
        File* const file = world.find(fd);
        return file == nullptr ? Result{0, EBADF} : body(world, *file);
    });
}
/// The same for a socket; ENOTSOCK where it is none.
template <class Body>
Result on_socket(Call call, int fd, std::uint64_t argument, Body&& body) {
    return on(call, fd, argument, [&](World& world, File& file) {
        return file.is_socket() ? body(world, file) : Result{0, ENOTSOCK};
    });
}

/// The errno that what makes something meets today; zero: none.
[[nodiscard]] inline int shortage(World& world) noexcept {
    const Weather& weather = world.weather;
    return world.random.chance(weather.no_descriptors) ? EMFILE
           : world.random.chance(weather.no_files)     ? ENFILE
           : world.random.chance(weather.no_memory)    ? ENOMEM
                                                       : 0;
}
/// The same of sockets, where too little memory may be called ENOBUFS.
[[nodiscard]] inline int shortage_of_sockets(World& world) noexcept {
    const int error = shortage(world);
    return error == ENOMEM && world.random.below(2) == 0 ? ENOBUFS : error;
}
/// Makes a file of this kind, if nothing is short.
[[nodiscard]] inline Result made(World& world, File::Kind kind) {
    const int error = shortage(world);
    return error != 0 ? Result{0, error} : world.open(kind);
}
/// A network that cuts what was connected.
inline void strike(World& world, File& file) {
    const Weather& weather = world.weather;
    if (!file.is_socket() || !file.connection || !file.connection->is_tcp() ||
        !file.side()->established) {
        return;
    }
    if (world.random.chance(weather.reset)) {
        file.connection->fail(file.which, ECONNRESET);
    } else if (world.random.chance(weather.timed_out)) {
        file.connection->fail(file.which, ETIMEDOUT);
    }
}
/// How many of so many bytes a call moves.
[[nodiscard]] inline std::size_t part(World& world, double probability,
                                      std::size_t whole) noexcept {
    return whole > 1 && world.random.chance(probability) ? world.random.between(1, whole - 1)
                                                         : whole;
}
/// How long a wait lasts that may be as long as that.
[[nodiscard]] inline Duration early(World& world, Duration timeout) noexcept {
    return timeout > Duration::zero() && world.random.chance(world.weather.early_wait)
               ? world.random.between(Duration::zero(),
                                      std::min<Duration>(timeout, std::chrono::seconds{1}))
               : timeout;
}

} // namespace detail
} // namespace sim
} // namespace reactor::inline v0
