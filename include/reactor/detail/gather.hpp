// SPDX-License-Identifier: Apache-2.0
//
// Contracts, behind the scenes: where the bytes of this turn's sends stand until its flush.
//
// A service may send from a buffer that is gone when its callback returns. So the bytes are copied
// once, into the loop's own memory, and the transport borrows them from there: an idle transport
// owns no buffer, and what the kernel takes at once is never copied again. Sends that follow one
// another stand one behind the other, so that a transport sees them as one piece. Emptied when no
// transport borrows any more. At its limit keep() says no, and the transport copies for itself.
#pragma once

#include <reactor/buffer.hpp>

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

namespace reactor::inline v0 {
namespace detail {

class Gather {
  public:
    /// The memory is touched, and so costs, only as far as it is used. Throws std::bad_alloc.
    explicit Gather(std::size_t limit) : room_(new std::byte[limit]), left_(limit), limit_(limit) {}

    /// A copy of the bytes that stays until clear(); empty when there is no room for it.
    [[nodiscard]] std::span<const std::byte> keep(std::span<const std::byte> bytes) noexcept {
        if (bytes.size() > left_) [[unlikely]] {
            return {};
        }
        std::byte* const at = room_.get() + (limit_ - left_);
        std::memcpy(at, bytes.data(), bytes.size());
        left_ -= bytes.size();
        return {at, bytes.size()};
    }
    /// Nobody borrows any more.
    void clear() noexcept { left_ = limit_; }

  private:
    std::unique_ptr<std::byte[]> room_;
    std::size_t left_;
    std::size_t limit_;
};

} // namespace detail
} // namespace reactor::inline v0
