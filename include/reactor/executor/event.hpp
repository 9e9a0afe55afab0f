// SPDX-License-Identifier: Apache-2.0
//
// Annex: the words of the executor.
//
// An Event says which readiness of which descriptor somebody awaits; an EventId names one wait for
// it, from await to cancel. What the side of the callbacks wants of the side of the poller is an
// Order; what that one has to tell is a Fired. Both are values, so that they go by a call where the
// two are one thread, and over a channel where they are two. A Link names what both sides know of
// one descriptor; unlike a descriptor it is never used twice.
#pragma once

#include <reactor/io.hpp>
#include <reactor/os/fd.hpp>
#include <reactor/resource_id.hpp>

#include <system_error>

namespace reactor::inline v0 {

namespace detail {
struct EventTag;
struct LinkTag;
/// Names a descriptor for as long as somebody awaits it.
using LinkId = Id<LinkTag>;
} // namespace detail

/// Names one wait, for a descriptor or for time, until it was fulfilled for the last time or was
/// cancelled. Comes from the library; never reused.
using EventId = detail::Id<detail::EventTag>;

/// What can be awaited of a descriptor.
struct Event {
    int fd = -1;
    Interest interest;
};
/// There is something to read, or to accept, or the end.
[[nodiscard]] constexpr Event readable(int fd) noexcept { return {fd, {true, false}}; }
/// There is room to write, or the connection stands, or has failed.
[[nodiscard]] constexpr Event writable(int fd) noexcept { return {fd, {false, true}}; }
/// Either of them.
[[nodiscard]] constexpr Event ready(int fd) noexcept { return {fd, {true, true}}; }

/// How often.
enum class Times : std::uint8_t { once, keep };

/// The answer to an await: the id of the event; or it names nothing, and the error says why.
struct Awaited {
    EventId id;
    std::error_code error;

    [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(id); }
    operator EventId() const noexcept { return id; } // NOLINT: meant to convert
};

namespace detail {

/// What the callbacks' side wants: to hear of this interest from now on, or of nothing any more.
template <class Fd>
struct Order {
    LinkId link;
    int fd = -1;
    Interest interest;       ///< none: the descriptor leaves the poller
    std::uint32_t round = 0; ///< comes back with what is fired
    Fd to_close;             ///< closed once the descriptor has left
};

/// What the poller's side tells: the link's descriptor is ready, or cannot be watched.
struct Fired {
    LinkId link;
    std::uint32_t round = 0;
    Readiness readiness;
    std::error_code error;
};

} // namespace detail
} // namespace reactor::inline v0
