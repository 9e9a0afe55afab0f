// SPDX-License-Identifier: Apache-2.0
//
// Contracts, behind the scenes: what all transports of a runtime together owe their peers.
//
// Each transport has its cap; thousands of caps are more than a machine has. So unsent bytes are
// also counted in one sum, against Options::owed_bytes. A transport is asked what it owes when a
// turn that touched it ends; what is promised within the turn is counted at once, and dropped when
// all have been asked. Bytes that the loop gathers and the kernel takes at once never show here.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>

namespace reactor::inline v0 {
namespace detail {

/// How much more all transports together may owe. What was promised within a turn is set right when
/// the turn ends, transport by transport.
class Ledger {
  public:
    explicit Ledger(std::size_t limit) noexcept
        : limit_(static_cast<std::ptrdiff_t>(std::min(limit, most))), room_(limit_) {}

    [[nodiscard]] bool admits(std::size_t bytes) const noexcept {
        return static_cast<std::ptrdiff_t>(std::min(bytes, most)) <= room_;
    }
    [[nodiscard]] std::ptrdiff_t room() const noexcept { return room_; }
    [[nodiscard]] std::ptrdiff_t limit() const noexcept { return limit_; }
    /// Bytes were taken that no transport was asked about yet.
    void promise(std::size_t bytes) noexcept {
        promised_ += static_cast<std::ptrdiff_t>(bytes);
        room_ -= static_cast<std::ptrdiff_t>(bytes);
    }
    /// Every transport that was promised something is about to be asked, but for what is promised
    /// from now on.
    void begin_pass() noexcept { asked_about_ += std::exchange(promised_, 0); }
    /// They have been asked.
    void end_pass() noexcept { room_ += std::exchange(asked_about_, 0); }
    /// Both at once: all have been asked.
    void settle() noexcept {
        begin_pass();
        end_pass();
    }
    /// One owed this much, and owes that much now.
    void correct(std::size_t before, std::size_t now) noexcept {
        room_ += static_cast<std::ptrdiff_t>(before) - static_cast<std::ptrdiff_t>(now);
        if (limit_ - room_ > most_owed_) {
            most_owed_ = limit_ - room_;
            mark_ = most_owed_ / 16;
        }
    }
    /// Whether so much less is owed than was that it is worth having the memory given back. To be
    /// asked when all is settled; true at a sixteenth of the most, and once more at nothing.
    [[nodiscard]] bool burst_is_over() noexcept {
        if (most_owed_ < worth_returning) [[likely]] {
            return false;
        }
        const std::ptrdiff_t owed = limit_ - room_;
        if (owed > mark_) {
            return false;
        }
        mark_ = 0;
        most_owed_ = owed == 0 ? 0 : most_owed_;
        return true;
    }

  private:
    static constexpr std::size_t most = std::numeric_limits<std::size_t>::max() / 4;

    static constexpr std::ptrdiff_t worth_returning = 16 * 1024 * 1024;

    std::ptrdiff_t limit_;
    std::ptrdiff_t room_;
    std::ptrdiff_t promised_ = 0;    ///< since the last pass began
    std::ptrdiff_t asked_about_ = 0; ///< before that
    std::ptrdiff_t most_owed_ = 0; ///< in this burst
    std::ptrdiff_t mark_ = 0;      ///< down to here it has to go
};

} // namespace detail
} // namespace reactor::inline v0
