// SPDX-License-Identifier: Apache-2.0
//
// Words: bytes that travel. A Buffer is a handle on a block of bytes; moving it moves the handle,
// copying it shares the block (an atomic count), so that one message to ten thousand transports
// stands in memory once. The bytes are written while the handle is the only one, and are constant
// from the first share on. Handles of one block may live on different threads.
//
// The road not taken: std::vector, which copies when it is shared, and zeroes what will be read
// into.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstring>
#include <limits>
#include <new>
#include <span>
#include <string_view>
#include <utility>

namespace reactor::inline v0 {

/// The bytes of a text, without a copy: they live as long as the text.
[[nodiscard]] inline std::span<const std::byte> bytes_of(std::string_view text) noexcept {
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

/// The text that bytes spell, without a copy: it lives as long as the bytes.
[[nodiscard]] inline std::string_view text_of(std::span<const std::byte> bytes) noexcept {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// A handle on a block of bytes. Copies share; see the prologue. Any thread, one at a time a
/// handle.
class Buffer {
  public:
    /// Empty; owns nothing.
    Buffer() noexcept = default;
    /// A block with a copy of these bytes. Throws std::bad_alloc.
    explicit Buffer(std::span<const std::byte> bytes) : Buffer(uninitialized(bytes.size())) {
        if (!bytes.empty()) {
            std::memcpy(block_->bytes(), bytes.data(), bytes.size());
        }
    }
    /// A block with a copy of this text. Throws std::bad_alloc.
    explicit Buffer(std::string_view text) : Buffer(bytes_of(text)) {}
    /// A block of `size` bytes to be written through `writable()`. Throws std::bad_alloc.
    [[nodiscard]] static Buffer uninitialized(std::size_t size) {
        Buffer buffer;
        if (size != 0) {
            constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
            const std::size_t whole = size < most - sizeof(Block) ? sizeof(Block) + size : most;
            buffer.block_ = new (::operator new(whole)) Block{{1}, size};
        }
        return buffer;
    }

    /// Shares the block.
    Buffer(const Buffer& other) noexcept : block_(other.block_) {
        if (block_ != nullptr) {
            block_->users.fetch_add(1, std::memory_order_relaxed);
        }
    }
    /// Moves the handle; the other one is empty then.
    Buffer(Buffer&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
    /// Lets go of its block, and shares or takes over the other.
    Buffer& operator=(Buffer other) noexcept {
        std::swap(block_, other.block_);
        return *this;
    }
    ~Buffer() {
        if (block_ != nullptr && block_->users.fetch_sub(1, std::memory_order_acq_rel) == 1) {
            block_->~Block();
            ::operator delete(block_);
        }
    }

    /// The bytes; they live as long as any handle on the block.
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept {
        return block_ == nullptr ? std::span<const std::byte>{}
                                 : std::span<const std::byte>{block_->bytes(), block_->size};
    }
    /// The bytes as text.
    [[nodiscard]] std::string_view text() const noexcept { return text_of(bytes()); }
    /// The bytes to write to; empty once the block is shared.
    [[nodiscard]] std::span<std::byte> writable() noexcept {
        return block_ == nullptr || shared() ? std::span<std::byte>{}
                                             : std::span<std::byte>{block_->bytes(), block_->size};
    }
    /// How many bytes.
    [[nodiscard]] std::size_t size() const noexcept { return bytes().size(); }
    /// Whether there are none, and no block.
    [[nodiscard]] bool empty() const noexcept { return block_ == nullptr; }
    /// Whether another handle stands on the same block.
    [[nodiscard]] bool shared() const noexcept {
        return block_ != nullptr && block_->users.load(std::memory_order_acquire) > 1;
    }

  private:
    struct Block {
        std::atomic<std::size_t> users;
        std::size_t size;

        std::byte* bytes() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
    };

    Block* block_ = nullptr;
};

} // namespace reactor::inline v0
