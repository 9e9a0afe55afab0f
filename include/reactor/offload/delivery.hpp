// SPDX-License-Identifier: Apache-2.0
//
// Annex, behind the scenes: the way home of an outcome.
//
// A Delivery brings outcomes from a pool's threads to loops, over their channels. Where a channel
// is full it waits for room, until it is abandoned; where it is closed the outcome is destroyed and
// counted. Each outcome is delivered once, or counted once: what is thrown on the way (by who wraps
// it, by moving it, for want of memory) is delivered in its stead. Any number of threads.
#pragma once

#include <reactor/io.hpp>
#include <reactor/os/kernel.hpp>
#include <reactor/time.hpp>

#include <atomic>
#include <cstddef>
#include <exception>
#include <optional>
#include <utility>

namespace reactor::inline v0 {
namespace detail {

/// Calls back with an outcome. That is moved first: if it throws, `then` is still here.
template <class Outcome, class Then>
struct Reply {
    Outcome outcome;
    Then then;

    Reply(Outcome&& with, Then&& next) : outcome(std::move(with)), then(std::move(next)) {}
    template <class Executor>
    void operator()(Executor& executor, Readiness) {
        then(executor, std::move(outcome));
    }
};

/// What the threads of a pool share to deliver with.
class Delivery {
  public:
    /// Delivers, by the first; what that throws, by the second; or counts that it could not.
    template <class Deliver, class Instead>
    void bring(Deliver&& deliver_it, Instead&& deliver_instead) noexcept {
#ifdef __cpp_exceptions
        std::exception_ptr thrown;
        try {
            return deliver_it();
        } catch (...) {
            thrown = std::current_exception();
        }
        try { // behind the handler: from here on it belongs to whoever gets it
            deliver_instead(std::move(thrown));
        } catch (...) {
            undeliverable_.fetch_add(1, std::memory_order_relaxed);
        }
#else
        static_cast<void>(deliver_instead);
        deliver_it();
#endif
    }
    /// Sends until there is room.
    template <class Parcel, class Send>
    void deliver(Parcel&& first, const Send& send) {
        std::optional<Parcel> parcel(std::move(first));
        for (;;) {
            auto answer = send(std::move(*parcel));
            if (answer) {
                return;
            }
            if (answer.closed() || abandoned_.load(std::memory_order_relaxed)) {
                undeliverable_.fetch_add(1, std::memory_order_relaxed);
                return;
            }
            parcel.emplace(std::move(*answer.take())); // it may not be assignable
            os::Kernel::sleep(rest_when_full);
        }
    }

    /// From now on nobody waits for room.
    void abandon() noexcept { abandoned_.store(true, std::memory_order_relaxed); }
    [[nodiscard]] std::size_t undeliverable() const noexcept {
        return undeliverable_.load(std::memory_order_relaxed);
    }

  private:
    static constexpr Duration rest_when_full = std::chrono::microseconds{100};

    std::atomic<bool> abandoned_{false};
    std::atomic<std::size_t> undeliverable_{0};
};

} // namespace detail
} // namespace reactor::inline v0
