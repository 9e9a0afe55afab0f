// SPDX-License-Identifier: Apache-2.0
//
// Words: time. A Timestamp is a point on the monotonic clock, which no administrator and no leap
// second moves; a Duration is a span in nanoseconds. Arithmetic that could overflow saturates:
// "for ever" plus a second is still for ever, and never a moment in the past.
#pragma once

#include <chrono>

namespace reactor::inline v0 {

/// A span of time; nanoseconds.
using Duration = std::chrono::nanoseconds;

/// A moment on the monotonic clock (CLOCK_MONOTONIC, clock_gettime(2)).
using Timestamp = std::chrono::steady_clock::time_point;

static_assert(std::chrono::steady_clock::duration{1} == Duration{1});

/// `when + span`, held at the ends of the clock's range instead of wrapping round.
[[nodiscard]] constexpr Timestamp saturating_add(Timestamp when, Duration span) noexcept {
    const auto since = when.time_since_epoch();
    if (span > Duration::zero() && since > Duration::max() - span) {
        return Timestamp::max();
    }
    if (span < Duration::zero() && since < Duration::min() - span) {
        return Timestamp::min();
    }
    return when + span;
}

/// The time from `from` to `to`, held at the ends of Duration's range.
[[nodiscard]] constexpr Duration saturating_sub(Timestamp to, Timestamp from) noexcept {
    const auto a = to.time_since_epoch();
    const auto b = from.time_since_epoch();
    if (b < Duration::zero() && a > Duration::max() + b) {
        return Duration::max();
    }
    if (b > Duration::zero() && a < Duration::min() + b) {
        return Duration::min();
    }
    return to - from;
}

} // namespace reactor::inline v0
