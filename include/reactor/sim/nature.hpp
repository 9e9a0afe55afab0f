// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: time, chance and what is due.
//
// Time passes only as somebody waits, or as the weather has it, and jumps from one due thing to the
// next; ten minutes in which little happens cost nothing. What is due at one moment happens in the
// order in which it was put down, so the order is part of the seed's history. The clock that a
// program reads may stand still for a while, but never goes back.
#pragma once

#include <reactor/sim/random.hpp>
#include <reactor/sim/trace.hpp>
#include <reactor/sim/weather.hpp>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace reactor::inline v0 {
namespace sim {

/// What all parts of a world have in common. One thread.
class Nature {
  public:
    /// Time begins, and chance with this seed.
    Nature(std::uint64_t seed, const Weather& today) : weather(today), random(seed) {}
    Nature(const Nature&) = delete;
    Nature& operator=(const Nature&) = delete;
    ~Nature() { agenda_.clear(); }

    /// The true time; a program's clock may stand still.
    [[nodiscard]] Timestamp time() const noexcept { return time_; }
    /// What a program reads; the weather may move it by that.
    [[nodiscard]] Timestamp clock() noexcept {
        if (random.chance(weather.leap)) {
            time_ += random.between(Duration{1}, weather.leap_most);
        }
        if (random.chance(weather.stand_still) && time_ >= still_until_) {
            shown_ = std::max(shown_, time_);
            still_until_ = time_ + weather.still_for;
        }
        if (time_ >= still_until_) {
            shown_ = std::max(shown_, time_);
        }
        return shown_;
    }
    /// Lets time pass; nothing happens meanwhile.
    void pass(Duration span) noexcept { time_ += span; }

    /// `act()` is called when `at` has come; a moment that is past: as soon as anything happens.
    template <class Act>
    void at(Timestamp when, Act&& act) {
        agenda_.push_back({when, ++order_, std::make_unique<Doing<std::decay_t<Act>>>(
                                               std::forward<Act>(act))});
        std::push_heap(agenda_.begin(), agenda_.end(), later);
    }
    /// The same, so much from now.
    template <class Act>
    void after(Duration span, Act&& act) {
        at(saturating_add(time_, span), std::forward<Act>(act));
    }
    /// When the next thing is due; Timestamp::max() if nothing is.
    [[nodiscard]] Timestamp next_due() const noexcept {
        return agenda_.empty() ? Timestamp::max() : agenda_.front().at;
    }
    /// Lets everything happen whose time has come.
    void catch_up() {
        while (next_due() <= time_) {
            happen();
        }
    }
    /// Goes on to `until`, or to the next due thing if that comes before, and lets it happen.
    void go_on(Timestamp until) {
        if (const Timestamp due = next_due(); due <= until) {
            time_ = std::max(time_, due);
            happen();
        } else {
            time_ = std::max(time_, until);
        }
    }

    /// How long something is on its way.
    [[nodiscard]] Duration latency() noexcept {
        return random.between(weather.latency_least, weather.latency_most);
    }

    Weather weather; ///< may be changed at any time
    Random random;   ///< all chance there is; a scenario that draws from it is replayed with it
    Trace trace;     ///< what has happened

  private:
    struct Deed {
        virtual ~Deed() = default;
        virtual void act() = 0;
    };
    template <class Act>
    struct Doing final : Deed {
        template <class From>
        explicit Doing(From&& from) : doing(std::forward<From>(from)) {}
        void act() override { doing(); }
        Act doing;
    };
    struct Due {
        Timestamp at;
        std::uint64_t order;
        std::unique_ptr<Deed> deed;
    };

    static bool later(const Due& one, const Due& other) noexcept {
        return one.at != other.at ? one.at > other.at : one.order > other.order;
    }
    void happen() {
        std::pop_heap(agenda_.begin(), agenda_.end(), later);
        const std::unique_ptr<Deed> deed = std::move(agenda_.back().deed);
        agenda_.pop_back();
        deed->act();
    }

    // Not zero, where a mistake with a default Timestamp would not show.
    Timestamp time_{std::chrono::seconds{1000}};
    Timestamp shown_{time_};
    Timestamp still_until_{};
    std::uint64_t order_ = 0;
    std::vector<Due> agenda_;
};

} // namespace sim
} // namespace reactor::inline v0
