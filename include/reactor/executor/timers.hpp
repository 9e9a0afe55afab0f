// SPDX-License-Identifier: Apache-2.0
//
// Annex, behind the scenes: the time that an executor's events await.
//
// Timers know which of the loop's timers fulfils which event. A loop can be asked for timers only
// in its callbacks: what is asked for at other times waits here until the next turn begins, and
// counts from when it was asked for all the same. The loop's own wheel fires; nothing here knows a
// clock. One thread.
#pragma once

#include <reactor/detail/fifo.hpp>
#include <reactor/executor/event.hpp>
#include <reactor/time.hpp>

#include <algorithm>
#include <vector>

namespace reactor::inline v0 {
namespace detail {

/// A wait for time.
struct Timed {
    EventId event{};
    Timestamp deadline{}; ///< the first time
    Duration period{};    ///< zero: only once
};

/// The timers of one executor.
class Timers {
  public:
    /// Asks the loop for the timer of this event; names nothing if there is no room for more.
    template <class Actions>
    [[nodiscard]] TimerId set(const Timed& timed, Actions& actions) {
        const TimerId timer = timed.period > Duration::zero()
                                  ? actions.set_interval(timed.period)
                                  : actions.set_timer_at(timed.deadline);
        if (!timer) {
            return timer;
        }
        if (timer.slot() >= events_.size()) {
            Unset<Actions> unset{timer, actions};
            events_.resize(std::max<std::size_t>(timer.slot() + 1, 2 * events_.size()));
            unset.is_set = true;
        }
        events_[timer.slot()] = timed.event;
        return timer;
    }
    /// The event that a timer which fires fulfils; the registry knows whether it is over.
    [[nodiscard]] EventId event_of(TimerId timer) const noexcept {
        return timer.slot() < events_.size() ? events_[timer.slot()] : EventId{};
    }

    // -- while the loop cannot be asked -----------------------------------------------------------

    /// What set_later() needs not to throw.
    void make_room_to_set() { to_set_.make_room(); }
    void set_later(const Timed& timed) { to_set_.push(Timed(timed)); }
    void cancel_later(TimerId timer) { to_cancel_.push(TimerId(timer)); }
    [[nodiscard]] bool any_later() const noexcept {
        return !to_set_.empty() || !to_cancel_.empty();
    }
    template <class Actions>
    void cancel_now(Actions& actions) {
        while (!to_cancel_.empty()) {
            actions.cancel_timer(to_cancel_.take());
        }
    }
    [[nodiscard]] bool any_to_set() const noexcept { return !to_set_.empty(); }
    /// Precondition: there is one.
    [[nodiscard]] const Timed& next_to_set() const noexcept { return to_set_.front(); }
    void drop_to_set() noexcept { static_cast<void>(to_set_.take()); }

  private:
    /// A timer of which nobody would know whose it is.
    template <class Actions>
    struct Unset {
        TimerId timer;
        Actions& actions;
        bool is_set = false;

        ~Unset() {
            if (!is_set) {
                actions.cancel_timer(timer);
            }
        }
    };
    std::vector<EventId> events_; ///< by the slot of the timer
    Fifo<Timed> to_set_;
    Fifo<TimerId> to_cancel_;
};

} // namespace detail
} // namespace reactor::inline v0
