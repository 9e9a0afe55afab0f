// SPDX-License-Identifier: Apache-2.0
//
// TimerWheel against a list: set, reset, cancel, intervals and the time told, at any distance and
// at both ends of time. The list keeps every timer and looks at all of them each time.
#include <reactor/timer_wheel.hpp>

#include <limits>
#include <set>
#include <vector>

#include "fuzz.hpp"

using namespace reactor;
using fuzz::require;

namespace {

__extension__ typedef __int128 Wide; // neither end of time is an end here

Wide wide(Timestamp when) { return when.time_since_epoch().count(); }
Timestamp narrow(Wide when) {
    constexpr Wide most = std::numeric_limits<std::int64_t>::max();
    constexpr Wide least = std::numeric_limits<std::int64_t>::min();
    return Timestamp{Duration{static_cast<std::int64_t>(std::clamp(when, least, most))}};
}

struct Timer {
    TimerId id;
    Timestamp deadline;
    std::int64_t interval;
    std::uint64_t tag;
    std::uint64_t order;
    bool due;
};

class Trial {
  public:
    explicit Trial(fuzz::Tape& tape)
        : tape_(tape),
          limit_(tape.below(4) == 0 ? 1 + tape.below(40) : 200),
          wheel_(limit_, tape.below(4) == 0 ? TimerId::last_generation - tape.below(3) : 1) {
        if (tape.below(4) != 0) {
            advance();
        }
    }

    void run() {
        while (!tape_.at_end()) {
            step();
            require(wheel_.size() == timers_.size(), "it counts its timers");
            require(wheel_.empty() == timers_.empty(), "it knows when it is empty");
            require(wheel_.has_due() == (first_due() != nullptr), "it knows what is due");
            check_wake();
        }
        now_ = Timestamp::max();
        tell();
        for (Timer* timer = first_due(); timer != nullptr; timer = first_due()) {
            timer->interval = 0; // an interval would come again at the end of time
            require(wheel_.cancel(timer->id), "what is due can still be cancelled");
            forget(timer);
        }
        require(wheel_.empty(), "at the end of time all are due");
    }

  private:
    void step() {
        switch (tape_.below(9)) {
        case 0:
        case 1:
            return set(0);
        case 2:
            return set(static_cast<std::int64_t>(std::uint64_t{1} << tape_.below(63)) -
                       tape_.byte());
        case 3:
            return reset();
        case 4: {
            Timer* const timer = any();
            const TimerId id = timer != nullptr ? timer->id : TimerId{};
            require(wheel_.alive(id) == (timer != nullptr), "who is set is alive");
            require(wheel_.cancel(id) == (timer != nullptr), "what is set can be cancelled");
            if (timer != nullptr) {
                forget(timer);
                require(!wheel_.cancel(id) && !wheel_.reset(id, now_) && !wheel_.alive(id),
                        "a cancelled timer is gone");
            }
            return;
        }
        case 5:
        case 6:
            return advance();
        default:
            for (std::size_t n = tape_.below(16); n > 0; --n) {
                pop();
            }
        }
    }

    /// Near the present mostly, at any magnitude; now and then at an end of time.
    Timestamp moment() {
        const unsigned kind = tape_.byte();
        if (kind < 4) {
            return kind < 2 ? Timestamp::max() - Duration{kind} : Timestamp::min() + Duration{kind};
        }
        Wide away = tape_.byte();
        away <<= kind % 60;
        away += tape_.byte();
        return narrow(wide(now_) + (kind >= 224 ? -away : away));
    }
    void set(std::int64_t interval) {
        const Timestamp deadline = moment();
        const std::uint64_t tag = tape_.byte();
        const TimerId id = wheel_.set(deadline, Duration{interval}, tag);
        require(static_cast<bool>(id) == (timers_.size() < limit_), "set up to the limit");
        if (id) {
            require(ids_.insert(id.value()).second, "no id is given out twice");
            timers_.push_back({id, deadline, interval, tag, ++order_, false});
            most_ = std::max(most_, timers_.size());
        }
    }
    void reset() {
        Timer* const timer = any();
        const Timestamp deadline = moment();
        require(wheel_.reset(timer != nullptr ? timer->id : TimerId::of(5000, 1), deadline) ==
                    (timer != nullptr),
                "what is set can be reset");
        if (timer != nullptr) {
            timer->deadline = deadline;
            timer->order = ++order_;
            timer->due = false;
        }
    }
    void advance() {
        const Timestamp told = moment();
        now_ = std::max(now_, told);
        wheel_.advance(told);
        note_due();
    }
    void tell() {
        wheel_.advance(now_);
        note_due();
    }
    void note_due() {
        for (Timer& timer : timers_) {
            timer.due = timer.due || timer.deadline <= now_;
        }
    }
    void pop() {
        Timer* const timer = first_due();
        const auto due = wheel_.pop_due();
        require(due.has_value() == (timer != nullptr), "what is due is popped, and nothing else");
        if (timer == nullptr) {
            return;
        }
        require(due->id == timer->id, "the earliest first, of equals the one set first");
        require(due->deadline == timer->deadline, "with the deadline it was set to");
        require(due->tag == timer->tag, "and its tag");
        if (timer->interval <= 0) {
            return forget(timer);
        }
        const Wide passed = wide(now_) - wide(timer->deadline);
        timer->deadline =
            narrow(wide(timer->deadline) + (passed / timer->interval + 1) * timer->interval);
        timer->order = ++order_;
        timer->due = false;
    }
    void check_wake() {
        const std::optional<Timestamp> wake = wheel_.next_deadline();
        require(wake.has_value() == !timers_.empty(), "it wakes if there is a timer");
        if (!wake) {
            return;
        }
        Timestamp earliest = Timestamp::max();
        for (const Timer& timer : timers_) {
            earliest = std::min(earliest, timer.deadline);
        }
        require(*wake <= earliest, "it never wakes too late");
        require(first_due() == nullptr || *wake <= now_, "it does not sleep on what is due");
        // It may remember a moment from when there were more.
        require(most_ > few || *wake == earliest, "with few timers it wakes in time");
    }

    Timer* any() { return timers_.empty() ? nullptr : &timers_[tape_.below(timers_.size())]; }
    Timer* first_due() {
        Timer* first = nullptr;
        for (Timer& timer : timers_) {
            if (timer.due && (first == nullptr || timer.deadline < first->deadline ||
                              (timer.deadline == first->deadline && timer.order < first->order))) {
                first = &timer;
            }
        }
        return first;
    }
    void forget(Timer* timer) {
        require(wheel_.alive(timer->id) == false, "who has fired is gone");
        timers_.erase(timers_.begin() + (timer - timers_.data()));
    }

    static constexpr std::size_t few = 32;

    fuzz::Tape& tape_;
    std::size_t limit_;
    TimerWheel wheel_;
    Timestamp now_ = Timestamp::min();
    std::vector<Timer> timers_;
    std::size_t most_ = 0; ///< timers at once
    std::set<std::uint64_t> ids_;
    std::uint64_t order_ = 0;
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Tape tape(data, std::min<std::size_t>(size, 1024));
    Trial(tape).run();
    return 0;
}
