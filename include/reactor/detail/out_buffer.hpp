// SPDX-License-Identifier: Apache-2.0
//
// Net, behind the scenes: the bytes that a stream could not send yet.
//
// A chain of blocks: small sends are copied one behind the other into blocks of 4 to 64 KiB, a
// large shared Buffer is hung in as a handle. Sent bytes leave at the front, and with the last of
// them the last block: a stream that has nothing to send owns nothing, and no byte is ever moved to
// make room. Not bounded by itself; the stream knows its cap. Out of memory is an answer, not a
// throw.
#pragma once

#include <reactor/buffer.hpp>
#include <reactor/os/kernel.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>
#include <span>
#include <utility>

namespace reactor::inline v0 {
namespace detail {

class OutBuffer {
  public:
    OutBuffer() noexcept = default;
    OutBuffer(OutBuffer&& other) noexcept
        : first_(std::exchange(other.first_, nullptr)),
          last_(std::exchange(other.last_, nullptr)),
          size_(std::exchange(other.size_, 0)) {}
    OutBuffer& operator=(OutBuffer&& other) noexcept {
        std::swap(first_, other.first_);
        std::swap(last_, other.last_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~OutBuffer() {
        if (first_ != nullptr) {
            clear();
        }
    }

    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    /// What the blocks hold in memory: more than `size()`, as a block is given up whole.
    [[nodiscard]] std::size_t held() const noexcept {
        return first_ == nullptr ? 0 : size_ + first_->begin + last_->room();
    }

    /// Copies the bytes behind what is here. False: no memory, and nothing was taken.
    [[nodiscard, gnu::noinline]] bool append(std::span<const std::byte> bytes) noexcept {
        const std::size_t fits = last_ == nullptr ? 0 : std::min(last_->room(), bytes.size());
        const std::span<const std::byte> rest = bytes.subspan(fits);
        if (!rest.empty()) {
            const std::size_t capacity =
                std::max(rest.size(), std::clamp(size_, smallest, largest));
            Block* const block = make(capacity);
            if (block == nullptr) {
                return false;
            }
            block->write(rest);
            write_to_last(bytes.first(fits));
            link(block);
        } else {
            write_to_last(bytes);
        }
        size_ += bytes.size();
        return true;
    }
    /// Hangs the buffer in behind what is here, as a handle. False: as above.
    [[nodiscard, gnu::noinline]] bool append(const Buffer& buffer) noexcept {
        Block* const block = make(0);
        if (block == nullptr) {
            return false;
        }
        block->shared = buffer;
        block->data = const_cast<std::byte*>(buffer.bytes().data()); // never written: no room
        block->end = block->capacity = buffer.size();
        link(block);
        size_ += buffer.size();
        return true;
    }

    /// The parts at the front, for one gathering write. Returns how many.
    [[nodiscard]] std::size_t parts(std::span<iovec> into) const noexcept {
        std::size_t count = 0;
        for (const Block* block = first_; block != nullptr && count < into.size();
             block = block->next) {
            into[count++] = {block->data + block->begin, block->end - block->begin};
        }
        return count;
    }
    /// The first `count` bytes were sent.
    void consume(std::size_t count) noexcept {
        size_ -= count;
        while (count > 0) {
            const std::size_t here = first_->end - first_->begin;
            if (count < here) {
                first_->begin += count;
                return;
            }
            count -= here;
            drop_first();
        }
    }
    [[gnu::noinline]] void clear() noexcept {
        while (first_ != nullptr) {
            drop_first();
        }
        size_ = 0;
    }

  private:
    static constexpr std::size_t largest = 64 * 1024;

    struct Block {
        Block* next = nullptr;
        std::byte* data = nullptr;
        std::size_t begin = 0;
        std::size_t end = 0;
        std::size_t capacity = 0;
        Buffer shared;

        [[nodiscard]] std::size_t room() const noexcept { return capacity - end; }
        void write(std::span<const std::byte> bytes) noexcept {
            std::memcpy(data + end, bytes.data(), bytes.size());
            end += bytes.size();
        }
    };

    static constexpr std::size_t smallest = 4096 - sizeof(Block);

    [[nodiscard]] static Block* make(std::size_t capacity) noexcept {
        void* const memory = ::operator new(sizeof(Block) + capacity, std::nothrow);
        if (memory == nullptr) {
            return nullptr;
        }
        auto* const block = new (memory) Block;
        block->data = static_cast<std::byte*>(memory) + sizeof(Block);
        block->capacity = capacity;
        return block;
    }
    void write_to_last(std::span<const std::byte> bytes) noexcept {
        if (!bytes.empty()) {
            last_->write(bytes);
        }
    }
    void link(Block* block) noexcept {
        (last_ == nullptr ? first_ : last_->next) = block;
        last_ = block;
    }
    void drop_first() noexcept {
        Block* const block = std::exchange(first_, first_->next);
        if (first_ == nullptr) {
            last_ = nullptr;
        }
        block->~Block();
        ::operator delete(block);
    }

    Block* first_ = nullptr;
    Block* last_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace detail
} // namespace reactor::inline v0
