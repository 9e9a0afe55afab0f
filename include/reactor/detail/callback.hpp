// SPDX-License-Identifier: Apache-2.0
//
// Annex, behind the scenes: a callable that is kept by value.
//
// A Callback owns anything that can be called with these arguments; it moves and is not copied.
// What has up to 56 bytes stands in the Callback itself and costs no allocation; what moves by
// copying its bytes costs no call when it is moved either. Empty after it was moved from.
// The road not taken: std::function, which wants its callable copyable and allocates from 16 bytes.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace reactor::inline v0 {
namespace detail {

template <class Signature>
class Callback;

template <class R, class... Args>
class Callback<R(Args...)> {
  public:
    /// A callable of at most so many bytes stands within.
    static constexpr std::size_t room = 56;

    template <class F>
    static constexpr bool fits = sizeof(F) <= room && alignof(F) <= alignof(void*) &&
                                 std::is_nothrow_move_constructible_v<F>;

    /// Holds nothing.
    Callback() noexcept = default;
    /// Takes `callable` over. Throws what its move throws, and std::bad_alloc if it is large.
    template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, Callback>) &&
            std::is_invocable_r_v<R, std::decay_t<F>&, Args...>
    Callback(F&& callable) { // NOLINT: meant to convert
        using Held = std::decay_t<F>;
        if constexpr (fits<Held>) {
            ::new (static_cast<void*>(bytes_)) Held(std::forward<F>(callable));
            operations_ = &small<Held>;
        } else {
            auto* const held = new Held(std::forward<F>(callable));
            std::memcpy(bytes_, &held, sizeof held);
            operations_ = &large<Held>;
        }
    }
    Callback(Callback&& other) noexcept { take(other); }
    Callback& operator=(Callback&& other) noexcept {
        if (this != &other) {
            reset();
            take(other);
        }
        return *this;
    }
    ~Callback() { reset(); }

    [[nodiscard]] explicit operator bool() const noexcept { return operations_ != nullptr; }
    /// Precondition: it holds something.
    R operator()(Args... args) { return operations_->call(bytes_, std::forward<Args>(args)...); }
    /// Destroys what it holds; this is empty already when that one's destructor runs.
    void reset() noexcept {
        if (const Operations* const operations = std::exchange(operations_, nullptr);
            operations != nullptr && operations->destroy != nullptr) {
            operations->destroy(bytes_);
        }
    }

  private:
    struct Operations {
        R (*call)(void*, Args&&...);
        void (*move)(void* to, void* from) noexcept; ///< null: copying the bytes is moving
        void (*destroy)(void*) noexcept;             ///< null: there is nothing to do
    };

    template <class Held>
    static Held& in_place(void* bytes) noexcept {
        return *std::launder(static_cast<Held*>(bytes));
    }
    template <class Held>
    static Held* elsewhere(void* bytes) noexcept {
        Held* held;
        std::memcpy(&held, bytes, sizeof held);
        return held;
    }
    template <class Held>
    static constexpr bool moves_as_bytes =
        std::is_trivially_copyable_v<Held> && std::is_trivially_destructible_v<Held>;

    template <class Held>
    static R call_small(void* bytes, Args&&... args) {
        return static_cast<R>(in_place<Held>(bytes)(std::forward<Args>(args)...));
    }
    template <class Held>
    static void move_small(void* to, void* from) noexcept {
        Held& held = in_place<Held>(from);
        ::new (to) Held(std::move(held));
        held.~Held();
    }
    template <class Held>
    static void destroy_small(void* bytes) noexcept {
        in_place<Held>(bytes).~Held();
    }
    template <class Held>
    static R call_large(void* bytes, Args&&... args) {
        return static_cast<R>((*elsewhere<Held>(bytes))(std::forward<Args>(args)...));
    }
    template <class Held>
    static void destroy_large(void* bytes) noexcept {
        delete elsewhere<Held>(bytes);
    }

    template <class Held>
    static constexpr Operations small{
        &call_small<Held>, moves_as_bytes<Held> ? nullptr : &move_small<Held>,
        std::is_trivially_destructible_v<Held> ? nullptr : &destroy_small<Held>};
    template <class Held>
    static constexpr Operations large{&call_large<Held>, nullptr, &destroy_large<Held>};

    void take(Callback& other) noexcept {
        operations_ = std::exchange(other.operations_, nullptr);
        if (operations_ == nullptr) {
            return;
        }
        if (operations_->move != nullptr) {
            operations_->move(bytes_, other.bytes_);
        } else {
            std::memcpy(bytes_, other.bytes_, room);
        }
    }

    const Operations* operations_ = nullptr;
    alignas(void*) std::byte bytes_[room];
};

} // namespace detail
} // namespace reactor::inline v0
