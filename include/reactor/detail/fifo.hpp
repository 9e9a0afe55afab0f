// SPDX-License-Identifier: Apache-2.0
//
// Contracts, behind the scenes: a queue in one block of memory. Pushed at the back, taken at the
// front; in a steady state it allocates nothing, and after a burst it gives its memory back once it
// is empty. Not bounded by itself: whoever pushes looks at size() first. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace reactor::inline v0 {
namespace detail {

template <class T>
class Fifo {
    static_assert(std::is_nothrow_move_constructible_v<T>);

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
    /// How many have been pushed, and how many of these were taken, since the beginning: the n-th
    /// pushed is the n-th taken.
    [[nodiscard]] std::uint64_t pushed() const noexcept { return taken_ + size_; }
    [[nodiscard]] std::uint64_t taken() const noexcept { return taken_; }
    /// The oldest one. Precondition: not empty.
    [[nodiscard]] const T& front() const noexcept { return items_[head_]; }
    /// Takes the oldest one. Precondition: not empty.
    [[nodiscard]] T take() noexcept {
        T item = std::move(items_[head_]);
        ++head_;
        ++taken_;
        if (--size_ == 0) {
            clear();
        }
        return item;
    }
    void clear() noexcept {
        items_.clear();
        taken_ += size_;
        head_ = size_ = 0;
        if (items_.capacity() * sizeof(T) > kept_bytes) {
            std::vector<T>().swap(items_);
        }
    }

  private:
    static constexpr std::size_t kept_bytes = 64 * 1024;

    /// Room at the back: where much was taken, by moving up, else in a larger block. T need not be
    /// assignable.
    [[gnu::cold]] void grow() {
        if (head_ > size_) {
            for (std::size_t n = 0; n < size_; ++n) {
                items_[n].~T();
                ::new (static_cast<void*>(items_.data() + n)) T(std::move(items_[head_ + n]));
            }
            while (items_.size() > size_) {
                items_.pop_back();
            }
            head_ = 0;
            return;
        }
        std::vector<T> larger;
        larger.reserve(2 * size_ + 8);
        for (std::size_t n = head_; n < items_.size(); ++n) {
            larger.push_back(std::move(items_[n]));
        }
        items_.swap(larger);
        head_ = 0;
    }

    std::vector<T> items_;
    std::size_t head_ = 0; ///< where the oldest stands; what is before was taken
    std::uint64_t taken_ = 0;
    std::size_t size_ = 0; ///< items_.size() - head_, without the division
};

} // namespace detail
} // namespace reactor::inline v0
