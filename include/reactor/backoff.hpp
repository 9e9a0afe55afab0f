// SPDX-License-Identifier: Apache-2.0
//
// Net: how long to wait before the next attempt, for whoever reconnects.
//
// Each step is `factor` times the one before, up to a longest; the answer lies anywhere in the
// upper half of the step. So a thousand clients of a server that came back do not return in the
// same instant, and none of them ever comes back at once. The road not taken is "full jitter"
// (anywhere from nothing to the step): its shortest waits are no waits.
//
// A value: it has no clock and sets no timer. A service asks `next()`, gives the answer to
// Actions::set_timer, and says `reset()` when a connection has proved good. One thread at a time.
#pragma once

#include <reactor/os/kernel.hpp>
#include <reactor/time.hpp>

#include <algorithm>
#include <cstdint>

namespace reactor::inline v0 {

/// Between what a Backoff stays. A span below zero is read as zero, a factor of zero as one; with
/// `first` zero there is no wait at all, ever.
struct BackoffLimits {
    /// The first step; no longer than `longest`.
    Duration first = std::chrono::milliseconds{100};
    /// No step is longer.
    Duration longest = std::chrono::seconds{30};
    /// By what each step is longer than the one before.
    std::uint32_t factor = 2;
};

/// Waits that grow: exponential, jittered, capped. Does not allocate; never overflows.
template <class KernelType = os::Kernel>
class BasicBackoff {
  public:
    /// Where the seed comes from.
    using Kernel = KernelType;

    /// Waits that nobody can foresee.
    explicit BasicBackoff(const BackoffLimits& limits = {}) noexcept
        : BasicBackoff(limits, Kernel::random()) {}
    /// The same `seed` gives the same waits.
    BasicBackoff(const BackoffLimits& limits, std::uint64_t seed) noexcept
        : longest_(std::max(limits.longest, Duration::zero())),
          first_(std::clamp(limits.first, Duration::zero(), longest_)),
          factor_(std::max(limits.factor, std::uint32_t{1})),
          step_(first_),
          state_(seed) {}

    /// What to wait before the next attempt: the n-th answer since the last reset lies between half
    /// a step and the step, which is the lesser of `longest` and `first` * `factor`^(n-1).
    [[nodiscard]] Duration next() noexcept {
        const Duration least = step_ / 2;
        const auto choices = static_cast<std::uint64_t>((step_ - least).count()) + 1;
        const Duration wait = least + Duration{static_cast<Duration::rep>(number() % choices)};
        step_ = step_ > longest_ / factor_ ? longest_ : step_ * factor_;
        ++attempts_;
        return wait;
    }
    /// An attempt succeeded: the next wait is of the first step again.
    void reset() noexcept {
        step_ = first_;
        attempts_ = 0;
    }
    /// How often next() was asked since the last reset.
    [[nodiscard]] std::uint64_t attempts() const noexcept { return attempts_; }

  private:
    /// A generator of its own (splitmix64): small, and the same everywhere.
    [[nodiscard]] std::uint64_t number() noexcept {
        std::uint64_t bits = state_ += 0x9E3779B97F4A7C15U;
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9U;
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBU;
        return bits ^ (bits >> 31);
    }

    Duration longest_;
    Duration first_;
    std::uint32_t factor_;
    Duration step_; ///< of the next answer
    std::uint64_t state_;
    std::uint64_t attempts_ = 0;
};

/// A Backoff seeded by the operating system.
using Backoff = BasicBackoff<os::Kernel>;

} // namespace reactor::inline v0
