// SPDX-License-Identifier: Apache-2.0
//
// Annex: the words of the executor.
//
// An Event says which readiness of which descriptor somebody awaits; an EventId names one wait for
// it, from await to cancel, and Awaited is the answer that brings it. All are values; none owns the
// descriptor.
// The road not taken: ids that a user draws at random, which may meet one that is in use.
#pragma once

#include <reactor/io.hpp>
#include <reactor/resource_id.hpp>

#include <system_error>

namespace reactor::inline v0 {

namespace detail {
struct EventTag;
} // namespace detail

/// Names one wait, for a descriptor or for time, until it was fulfilled for the last time or was
/// cancelled. Comes from the library; never reused.
using EventId = detail::Id<detail::EventTag>;

/// What can be awaited of a descriptor.
struct Event {
    /// Whose it is: the caller's, or adopted by the executor.
    int fd = -1;
    /// Reading, writing, or both; with both, one callback is told of either.
    Interest interest;
};
/// There is something to read, or to accept, or the end.
[[nodiscard]] constexpr Event readable(int fd) noexcept { return {fd, {true, false}}; }
/// There is room to write, or the connection stands, or has failed.
[[nodiscard]] constexpr Event writable(int fd) noexcept { return {fd, {false, true}}; }
/// Either of them.
[[nodiscard]] constexpr Event ready(int fd) noexcept { return {fd, {true, true}}; }

/// How often an event is fulfilled.
enum class Times : std::uint8_t {
    once, ///< the first time; then it is over
    keep, ///< each time, until it is cancelled
};

/// The answer to an await: true, and the id of the event; or false, and why it is not awaited.
struct Awaited {
    /// Names nothing if it is not awaited.
    EventId id;
    /// Zero if it is.
    std::error_code error;

    /// Whether it is awaited.
    [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(id); }
    /// The id, for whoever knows that it is.
    operator EventId() const noexcept { return id; } // NOLINT: meant to convert
};

} // namespace reactor::inline v0
