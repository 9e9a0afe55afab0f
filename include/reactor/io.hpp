// SPDX-License-Identifier: Apache-2.0
//
// Words: the two directions, the wish and the fact.
//
// A resource states an Interest (what it would like to hear of); a poller reports a Readiness (what
// the kernel said). They are two types so that the compiler keeps them apart: a wish is never
// delivered, a fact is never registered. Nothing here owns anything; all are values.
#pragma once

#include <cstdint>

namespace reactor::inline v0 {

/// The two halves of a descriptor. A half is offered to a resource as `handle_io(Io)`.
enum class Io : std::uint8_t { read, write };

/// The two roles a service names: a listener spawns resources, a transport is read and written.
enum class Role : std::uint8_t { listener, transport };

/// The wish: of what a resource wants to hear. Empty means: leave me out of the poll set, so that
/// a hang-up, which no mask can silence, cannot wake the loop either.
struct Interest {
    bool read = false;  ///< bytes, an end, or a client to accept
    bool write = false; ///< room for bytes, or the end of connecting

    /// Whether there is no wish at all.
    [[nodiscard]] constexpr bool none() const noexcept { return !read && !write; }
    /// Whether this half is wished for.
    [[nodiscard]] constexpr bool has(Io io) const noexcept { return io == Io::read ? read : write; }

    /// The same wish.
    friend constexpr bool operator==(Interest, Interest) noexcept = default;
};

/// The fact: what the kernel reported. `hangup` and `error` are hints to read and to write, never
/// an end by themselves: the end is what reading says.
struct Readiness {
    bool read = false;   ///< reading would not block (EPOLLIN, POLLIN)
    bool write = false;  ///< writing would not block (EPOLLOUT, POLLOUT)
    bool hangup = false; ///< EPOLLHUP, POLLHUP
    bool error = false;  ///< EPOLLERR, POLLERR

    /// Whether nothing was reported.
    [[nodiscard]] constexpr bool none() const noexcept {
        return !read && !write && !hangup && !error;
    }
    /// Whether this half is worth a try. A hang-up or an error shows in either half, so it calls
    /// for both: the resource then hears of it from its own system call.
    [[nodiscard]] constexpr bool calls_for(Io io) const noexcept {
        return hangup || error || (io == Io::read ? read : write);
    }

    /// The same report.
    friend constexpr bool operator==(Readiness, Readiness) noexcept = default;
};

} // namespace reactor::inline v0
