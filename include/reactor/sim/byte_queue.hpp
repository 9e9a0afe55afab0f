// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: bytes in the order of their coming.
//
// A buffer of the simulated kernel: written at the end, read at the front, in one piece of memory,
// so that what waits can be looked at without being taken.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace reactor::inline v0 {
namespace sim {

/// Bytes, first in, first out.
class ByteQueue {
  public:
    /// Whether nothing waits.
    [[nodiscard]] bool empty() const noexcept { return begin_ == bytes_.size(); }
    /// How many wait.
    [[nodiscard]] std::size_t size() const noexcept { return bytes_.size() - begin_; }
    /// All that wait; valid until the next change.
    [[nodiscard]] std::span<const std::byte> front() const noexcept {
        return std::span(bytes_).subspan(begin_);
    }
    /// Puts these behind all others.
    void push(std::span<const std::byte> more) {
        bytes_.insert(bytes_.end(), more.begin(), more.end());
    }
    /// Takes so many away. Precondition: there are so many.
    void pop(std::size_t count) {
        begin_ += count;
        if (begin_ == bytes_.size()) {
            clear();
        } else if (begin_ > 4096 && begin_ * 2 > bytes_.size()) {
            bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(begin_));
            begin_ = 0;
        }
    }
    /// Takes from the front as much as there is and fits; returns how much.
    std::size_t pop_into(std::span<std::byte> into) {
        const std::size_t count = std::min(into.size(), size());
        std::copy_n(front().begin(), count, into.begin());
        pop(count);
        return count;
    }
    /// Forgets all.
    void clear() noexcept {
        bytes_.clear();
        begin_ = 0;
    }

  private:
    std::vector<std::byte> bytes_;
    std::size_t begin_ = 0;
};

} // namespace sim
} // namespace reactor::inline v0
