// SPDX-License-Identifier: Apache-2.0
//
// Contracts, behind the scenes: a queue in one block of memory. Pushed at the back, taken at the
// front; in a steady state it allocates nothing, and after a burst it gives its memory back once it
// is empty. Not bounded by itself: whoever pushes looks at size() first. One thread.
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace reactor::inline v0 {
namespace detail {

template <class T>
class Fifo {
  public:
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    /// What waits, in order.
    [[nodiscard]] std::span<const T> waiting() const noexcept {
        return {items_.data() + head_, size_};
    }

    /// The next push will not throw. Throws std::bad_alloc, with nothing changed.
    void make_room() {
        if (items_.size() == items_.capacity()) [[unlikely]] {
            grow();
        }
    }
    /// Throws std::bad_alloc, with nothing changed.
    void push(T&& item) {
        make_room();
        items_.push_back(std::move(item));
        ++size_;
    }
    /// The oldest one. Precondition: not empty.
    [[nodiscard]] T take() noexcept {
        T item = std::move(items_[head_]);
        ++head_;
        if (--size_ == 0) {
            clear();
        }
        return item;
    }
    void clear() noexcept {
        items_.clear();
        head_ = size_ = 0;
        if (items_.capacity() * sizeof(T) > kept_bytes) {
            std::vector<T>().swap(items_);
        }
    }

  private:
    static constexpr std::size_t kept_bytes = 64 * 1024;

    [[gnu::cold]] void grow() {
        if (head_ > items_.size() / 2) {
            items_.erase(items_.begin(), items_.begin() + static_cast<std::ptrdiff_t>(head_));
            head_ = 0;
        } else {
            items_.reserve(items_.empty() ? 8 : 2 * items_.size());
        }
    }

    std::vector<T> items_;
    std::size_t head_ = 0; ///< where the oldest stands; what is before was taken
    std::size_t size_ = 0; ///< items_.size() - head_, without the division
};

} // namespace detail
} // namespace reactor::inline v0
