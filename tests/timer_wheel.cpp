// SPDX-License-Identifier: Apache-2.0
#include <reactor/timer_wheel.hpp>

#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "catch.hpp"
#include "sanitized.hpp"

using namespace reactor;
using namespace std::chrono_literals;

namespace {

constexpr Duration tick{1 << 19};
constexpr Timestamp start = Timestamp{} + 1000h;

/// Bytes in use by malloc and operator new.
std::uint64_t malloced() {
    const auto info = mallinfo2();
    return info.uordblks + info.hblkhd; // nothing under a sanitizer
}

std::vector<TimerId> popped(TimerWheel& wheel) {
    std::vector<TimerId> ids;
    while (const auto due = wheel.pop_due()) {
        ids.push_back(due->id);
    }
    return ids;
}

std::vector<TimerId> fired_by(TimerWheel& wheel, Timestamp now) {
    wheel.advance(now);
    return popped(wheel);
}

using Ids = std::vector<TimerId>;

} // namespace

TEST_CASE("a timer fires at its deadline and never a nanosecond before") {
    for (const Timestamp now : {start, Timestamp{}, Timestamp{} - 1h, Timestamp{} - 1ns}) {
        for (const Duration span : {Duration{1ns}, tick - 1ns, tick, tick + 1ns, Duration{1ms},
                                    Duration{60s}, Duration{24h * 365 * 100}}) {
            TimerWheel wheel;
            wheel.advance(now);
            const auto id = wheel.set(now + span);
            REQUIRE(wheel.next_deadline() == now + span);
            REQUIRE(fired_by(wheel, now + span - 1ns).empty());
            REQUIRE(wheel.alive(id));
            REQUIRE(wheel.next_deadline() == now + span);
            wheel.advance(now + span);
            REQUIRE(wheel.has_due());
            const auto due = wheel.pop_due();
            REQUIRE(due);
            CHECK(due->id == id);
            CHECK(due->deadline == now + span);
            CHECK_FALSE(wheel.alive(id));
            CHECK_FALSE(wheel.has_due());
            CHECK_FALSE(wheel.pop_due());
            CHECK(wheel.empty());
            CHECK_FALSE(wheel.next_deadline());
        }
    }
}

TEST_CASE("a tag comes back with its timer") {
    TimerWheel wheel;
    wheel.set(start, 0ns, 42);
    wheel.set(start, 1s, ~std::uint64_t{0});
    wheel.set(start);
    wheel.advance(start);
    CHECK(wheel.pop_due()->tag == 42);
    CHECK(wheel.pop_due()->tag == ~std::uint64_t{0});
    CHECK(wheel.pop_due()->tag == 0);
    wheel.advance(start + 1s);
    CHECK(wheel.pop_due()->tag == ~std::uint64_t{0});
}

TEST_CASE("a thousand timers with one deadline all fire, first set first") {
    TimerWheel wheel;
    wheel.advance(start);
    Ids ids;
    for (int i = 0; i < 1000; ++i) {
        ids.push_back(wheel.set(start + 20s));
        wheel.advance(start + i * 10ms); // so that they meet from different levels
    }
    CHECK(fired_by(wheel, start + 20s) == ids);
}

TEST_CASE("a reset is a setting: it goes behind its equals") {
    TimerWheel wheel;
    const auto a = wheel.set(start + 5s);
    const auto b = wheel.set(start + 5s);
    const auto c = wheel.set(start + 9s);
    CHECK(wheel.reset(c, start + 5s));
    CHECK(wheel.reset(a, start + 5s));
    CHECK(fired_by(wheel, start + 5s) == Ids{b, c, a});
}

TEST_CASE("timers fire in the order of their exact deadlines, also within a tick") {
    TimerWheel wheel;
    wheel.advance(start);
    std::mt19937 random{7};
    std::vector<std::pair<Duration, TimerId>> timers;
    for (int i = 0; i < 5000; ++i) {
        const Duration span{random() % 3'000'000};
        timers.emplace_back(span, wheel.set(start + span));
    }
    std::stable_sort(timers.begin(), timers.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    Ids expected;
    for (const auto& timer : timers) {
        expected.push_back(timer.second);
    }
    Ids fired;
    for (Duration passed{0}; passed <= 3ms; passed += 777ns) {
        for (const auto id : fired_by(wheel, start + passed)) {
            fired.push_back(id);
        }
    }
    CHECK(fired == expected);
}

TEST_CASE("a timer set while a batch is handled waits for the next advance") {
    TimerWheel wheel;
    wheel.advance(start);
    wheel.set(start - 1h);
    wheel.set(start);
    for (int turn = 0; turn < 100; ++turn) {
        wheel.advance(start); // the same time is a time told, too
        int fired = 0;
        while (wheel.pop_due()) {
            ++fired;
            wheel.set(turn % 2 == 0 ? start : start - 1s);
        }
        REQUIRE(fired == 2);
        REQUIRE_FALSE(wheel.has_due());
        REQUIRE(*wheel.next_deadline() <= start);
    }
}

TEST_CASE("a timer in the past fires once and leaves nothing to wake for") {
    TimerWheel wheel;
    const auto id = wheel.set(start - 3h);
    CHECK(*wheel.next_deadline() <= start);
    CHECK(fired_by(wheel, start) == Ids{id});
    CHECK_FALSE(wheel.next_deadline());
    const auto oldest = wheel.set(Timestamp::min());
    const auto old = wheel.set(Timestamp{});
    CHECK(*wheel.next_deadline() <= start);
    CHECK(fired_by(wheel, start) == Ids{oldest, old});
}

TEST_CASE("the ends of time are deadlines like others") {
    for (const bool told : {false, true}) {
        TimerWheel wheel;
        if (told) {
            wheel.advance(start);
        }
        const auto last = wheel.set(Timestamp::max());
        CHECK(wheel.next_deadline() == Timestamp::max());
        const auto early = wheel.set(Timestamp::max() - 1ns);
        const auto first = wheel.set(Timestamp::min());
        CHECK(fired_by(wheel, start) == Ids{first});
        CHECK(wheel.next_deadline() == Timestamp::max() - 1ns);
        CHECK(fired_by(wheel, Timestamp::max() - 2ns).empty());
        CHECK(fired_by(wheel, Timestamp::max() - 1ns) == Ids{early});
        CHECK(fired_by(wheel, Timestamp::max()) == Ids{last});
        wheel.set(Timestamp::max());
        CHECK(fired_by(wheel, Timestamp::max()).size() == 1);
    }
}

TEST_CASE("the count of ticks passes 2^32 and zero unnoticed") {
    for (const Timestamp edge : {Timestamp{} + tick * (std::int64_t{1} << 32), Timestamp{},
                                 Timestamp{} - tick * (std::int64_t{1} << 32)}) {
        TimerWheel wheel;
        wheel.advance(edge - 3 * tick);
        Ids ids;
        for (int i = -2; i < 200; ++i) {
            ids.push_back(wheel.set(edge + i * tick));
        }
        for (int i = -2; i < 200; ++i) {
            REQUIRE(wheel.next_deadline() <= edge + i * tick);
            REQUIRE(fired_by(wheel, edge + i * tick) == Ids{ids[static_cast<std::size_t>(i + 2)]});
        }
    }
}

TEST_CASE("a time that is lower than the last is taken for the last") {
    TimerWheel wheel;
    wheel.advance(start);
    const auto id = wheel.set(start + 1s);
    wheel.advance(start - 24h * 3650);
    wheel.advance(Timestamp::min());
    CHECK_FALSE(wheel.has_due());
    const auto past = wheel.set(start - 1ms);
    CHECK(fired_by(wheel, start - 1h) == Ids{past});
    CHECK(fired_by(wheel, start + 1s) == Ids{id});
}

TEST_CASE("after a long sleep each due timer fires once and in order") {
    TimerWheel wheel;
    wheel.advance(start);
    Ids ids;
    std::vector<Duration> spans;
    for (int i = 0; i < 600; ++i) {
        spans.push_back((i * 7919) % 600 * 5999ms);
        ids.push_back(wheel.set(start + spans.back()));
    }
    const auto later = wheel.set(start + 2h);
    const auto period = wheel.set(start + 1h, 1s);
    wheel.advance(start + 1h);
    std::optional<Timestamp> last;
    std::size_t count = 0;
    while (const auto due = wheel.pop_due()) {
        CHECK((!last || *last <= due->deadline));
        last = due->deadline;
        ++count;
    }
    CHECK(count == 601);
    CHECK(wheel.alive(later));
    CHECK(wheel.alive(period));
    CHECK(wheel.size() == 2);
    CHECK(fired_by(wheel, start + 24h * 365 * 200) == Ids{period, later});
}

TEST_CASE("a cancelled timer never fires, not even one that is due") {
    TimerWheel wheel;
    wheel.advance(start);
    const auto before = wheel.set(start + 1s);
    const auto a = wheel.set(start + 2s);
    const auto b = wheel.set(start + 2s);
    const auto c = wheel.set(start + 2s);
    CHECK(wheel.cancel(before));
    CHECK_FALSE(wheel.cancel(before));
    wheel.advance(start + 3s);
    CHECK(wheel.pop_due()->id == a);
    CHECK_FALSE(wheel.cancel(a)); // in its own callback: it is gone by then
    CHECK(wheel.cancel(c));       // a sibling of the same batch
    CHECK_FALSE(wheel.cancel(c));
    CHECK_FALSE(wheel.alive(c));
    CHECK(wheel.cancel(b));
    CHECK_FALSE(wheel.has_due());
    CHECK_FALSE(wheel.pop_due());
    CHECK(wheel.empty());
}

TEST_CASE("a due timer that is reset is due no longer, whatever the deadline") {
    TimerWheel wheel;
    wheel.advance(start);
    const auto a = wheel.set(start + 1s);
    const auto b = wheel.set(start + 1s);
    const auto c = wheel.set(start + 1s);
    wheel.advance(start + 1s);
    CHECK(wheel.reset(b, start + 2s));
    CHECK(wheel.reset(a, start - 2s));
    CHECK(popped(wheel) == Ids{c});
    CHECK(*wheel.next_deadline() <= start - 2s);
    CHECK(fired_by(wheel, start + 1s) == Ids{a});
    CHECK(fired_by(wheel, start + 2s - 1ns).empty());
    CHECK(fired_by(wheel, start + 2s) == Ids{b});
    CHECK_FALSE(wheel.reset(b, start + 9s));
}

TEST_CASE("a timer can be reset earlier after it was reset later, and the other way round") {
    for (const Duration first : {Duration{3ms}, Duration{1s}, Duration{60s}}) {
        for (const Duration other : {Duration{1us}, Duration{2ms}, Duration{900ms}, Duration{2h}}) {
            TimerWheel wheel;
            wheel.advance(start);
            const auto id = wheel.set(start + first);
            CHECK(wheel.reset(id, start + 10h));
            CHECK(wheel.next_deadline() == start + 10h);
            CHECK(wheel.reset(id, start + other));
            CHECK(wheel.next_deadline() == start + other);
            CHECK(fired_by(wheel, start + other - 1ns).empty());
            CHECK(wheel.reset(id, start + 20h));
            CHECK(fired_by(wheel, start + 20h - 1ns).empty());
            CHECK(fired_by(wheel, start + 20h) == Ids{id});
        }
    }
}

TEST_CASE("an interval skips the periods it missed and keeps its beat") {
    TimerWheel wheel;
    wheel.advance(start);
    const auto id = wheel.set(start + 10ms, 10ms);
    wheel.advance(start + 35ms);
    auto due = wheel.pop_due();
    REQUIRE(due);
    CHECK(due->deadline == start + 10ms);
    CHECK(wheel.alive(id));
    CHECK_FALSE(wheel.pop_due()); // no burst
    CHECK(wheel.next_deadline() == start + 40ms);
    CHECK(fired_by(wheel, start + 40ms - 1ns).empty());
    CHECK(fired_by(wheel, start + 40ms) == Ids{id});
    CHECK(wheel.next_deadline() == start + 50ms);
    CHECK(fired_by(wheel, start + 60ms) == Ids{id}); // exactly a period late
    CHECK(wheel.next_deadline() == start + 70ms);
}

TEST_CASE("an interval may be reset or cancelled in its own callback") {
    TimerWheel wheel;
    const auto id = wheel.set(start, 10ms);
    wheel.advance(start);
    CHECK(wheel.pop_due()->id == id);
    CHECK(wheel.reset(id, start + 15ms));
    CHECK(wheel.next_deadline() == start + 15ms);
    wheel.advance(start + 15ms);
    CHECK(wheel.pop_due()->id == id);
    CHECK(wheel.next_deadline() == start + 25ms);
    CHECK(wheel.cancel(id));
    CHECK(fired_by(wheel, start + 1h).empty());
    CHECK(wheel.empty());
}

TEST_CASE("intervals of a nanosecond and of centuries cost one step") {
    TimerWheel wheel;
    wheel.advance(start);
    const auto brief = wheel.set(Timestamp::min(), 1ns);
    const auto vast = wheel.set(start, Duration::max());
    const auto odd = wheel.set(Timestamp::min(), 3ns);
    const auto none = wheel.set(start, -1ns); // no interval at all
    CHECK(fired_by(wheel, start + 1s) == Ids{brief, odd, vast, none});
    CHECK(wheel.size() == 3);
    CHECK(wheel.next_deadline() == start + 1s + 1ns);
    CHECK(wheel.cancel(brief));
    const auto next = *wheel.next_deadline();
    CHECK(next > start + 1s);
    CHECK(next <= start + 1s + 3ns);
    CHECK((next.time_since_epoch().count() - Timestamp::min().time_since_epoch().count() % 3) % 3 ==
          0);
    CHECK(wheel.cancel(odd));
    CHECK(wheel.next_deadline() == Timestamp::max()); // saturated
    CHECK(fired_by(wheel, Timestamp::max() - 1ns).empty());
    CHECK(fired_by(wheel, Timestamp::max()) == Ids{vast});
    CHECK(wheel.alive(vast));
    CHECK_FALSE(wheel.has_due());
}

TEST_CASE("what stays unpopped keeps its order when later advances add to it") {
    TimerWheel wheel;
    wheel.advance(start);
    Ids ids;
    for (int i = 0; i < 10; ++i) {
        ids.push_back(wheel.set(start + (i + 1) * 1ms));
    }
    wheel.advance(start + 6ms);
    CHECK(wheel.pop_due()->id == ids[0]);
    const auto past = wheel.set(start + 4ms);
    const auto oldest = wheel.set(start);
    CHECK(wheel.pop_due()->id == ids[1]);
    CHECK(wheel.cancel(ids[2]));
    CHECK(*wheel.next_deadline() <= start + 4ms);
    wheel.advance(start + 20ms);
    CHECK(popped(wheel) ==
          Ids{oldest, ids[3], past, ids[4], ids[5], ids[6], ids[7], ids[8], ids[9]});
}

TEST_CASE("the moment to wake at is the earliest deadline when few timers are set") {
    TimerWheel wheel;
    wheel.advance(start);
    CHECK_FALSE(wheel.next_deadline());
    const auto late = wheel.set(start + 1h + 1ns);
    CHECK(wheel.next_deadline() == start + 1h + 1ns);
    const auto early = wheel.set(start + 17s + 3ns);
    CHECK(wheel.next_deadline() == start + 17s + 3ns);
    CHECK(wheel.cancel(early)); // no wake is left behind
    CHECK(wheel.next_deadline() == start + 1h + 1ns);
    CHECK(wheel.reset(late, start + 2h));
    CHECK(wheel.next_deadline() == start + 2h);
    wheel.advance(start + 1h + 59min);
    CHECK(wheel.next_deadline() == start + 2h);
}

TEST_CASE("with many timers the wakes stay before the deadlines and soon meet them") {
    TimerWheel wheel;
    wheel.advance(start);
    for (int i = 0; i < 10'000; ++i) {
        wheel.set(start + 40s + i * 10us);
    }
    int wakes = 0;
    Timestamp last = start;
    while (!wheel.has_due()) {
        const auto next = *wheel.next_deadline();
        REQUIRE(next > last);
        REQUIRE(next <= start + 40s);
        wheel.advance(last = next);
        ++wakes;
    }
    CHECK(last == start + 40s);
    CHECK(wakes <= 6);
}

TEST_CASE("an id is dead once its timer is, also when the slot has a new one") {
    TimerWheel wheel;
    const auto first = wheel.set(start);
    CHECK(first);
    CHECK(wheel.cancel(first));
    const auto second = wheel.set(start);
    REQUIRE(second.slot() == first.slot());
    CHECK(second.generation() == first.generation() + 1);
    CHECK_FALSE(wheel.alive(first));
    CHECK_FALSE(wheel.cancel(first));
    CHECK_FALSE(wheel.reset(first, start + 1s));
    CHECK(wheel.alive(second));
    CHECK(fired_by(wheel, start) == Ids{second});
    CHECK_FALSE(wheel.alive(second));
    CHECK_FALSE(wheel.alive(TimerId::of(second.slot(), second.generation() + 1)));
    CHECK_FALSE(wheel.cancel(TimerId{}));
    CHECK_FALSE(wheel.alive(TimerId::of(12345, 1)));
    CHECK_FALSE(TimerWheel{}.alive(TimerId::of(0, 1)));
    CHECK_FALSE(TimerWheel{}.cancel(TimerId{}));
}

TEST_CASE("a slot whose generations are used up is retired") {
    TimerWheel wheel{1, TimerId::last_generation - 1};
    const auto a = wheel.set(start);
    CHECK(a.generation() == TimerId::last_generation - 1);
    CHECK(wheel.cancel(a));
    const auto b = wheel.set(start);
    CHECK(b == TimerId::of(a.slot(), TimerId::last_generation));
    CHECK(fired_by(wheel, start) == Ids{b});
    const auto c = wheel.set(start);
    CHECK(c == TimerId::of(a.slot() + 1, TimerId::last_generation - 1));
    CHECK_FALSE(wheel.alive(b));
    CHECK_FALSE(wheel.set(start)); // retired slots do not count for the limit, live timers do
    std::set<TimerId> seen{a, b, c};
    auto last = c;
    for (int i = 0; i < 1000; ++i) {
        REQUIRE(wheel.cancel(last));
        REQUIRE((last = wheel.set(start)));
        REQUIRE(seen.insert(last).second);
    }
}

TEST_CASE("at the limit a set answers with the null id and changes nothing") {
    TimerWheel wheel{3};
    Ids ids;
    for (int i = 0; i < 3; ++i) {
        ids.push_back(wheel.set(start + 1s));
        REQUIRE(ids.back());
    }
    CHECK_FALSE(wheel.set(start));
    CHECK(wheel.size() == 3);
    CHECK(wheel.next_deadline() == start + 1s);
    wheel.advance(start + 1s);
    CHECK_FALSE(wheel.set(start)); // due, but still alive
    CHECK(wheel.cancel(ids[1]));
    CHECK(wheel.set(start + 2s));
    CHECK_FALSE(wheel.set(start));
    CHECK(popped(wheel) == Ids{ids[0], ids[2]});
    CHECK_FALSE(TimerWheel{0}.set(start));
}

TEST_CASE("a million timers come and go without memory growing") {
    const std::size_t many = sanitized ? 100'000 : 1'000'000;
    const auto base = malloced();
    {
        TimerWheel wheel;
        wheel.advance(start);
        std::mt19937_64 random{3};
        Ids ids(many);
        std::uint64_t high = 0;
        for (int round = 0; round < 3; ++round) {
            for (auto& id : ids) {
                id = wheel.set(start + Duration{1ms} * static_cast<int>(random() % 60'000));
            }
            REQUIRE(wheel.size() == many);
            if (round == 0) {
                high = malloced();
            }
            for (const auto id : ids) {
                REQUIRE(wheel.cancel(id));
            }
            REQUIRE(wheel.empty());
            REQUIRE_FALSE(wheel.next_deadline());
            REQUIRE_FALSE(wheel.alive(ids[round == 0 ? 0 : many - 1]));
            CHECK(malloced() == high);
        }
    }
    CHECK(malloced() <= base + 4096);
}

TEST_CASE("a steady state allocates nothing, and neither does a reserved wheel") {
    TimerWheel wheel;
    REQUIRE(wheel.reserve(5000));
    CHECK(wheel.reserve(10));
    Ids ids(5000);
    std::mt19937_64 random{5};
    auto now = start;
    const auto span = [&] { return Duration{static_cast<std::int64_t>(random() % 2'000'000'000)}; };
    const auto malloced_before = malloced();
    for (int step = 0; step < 300'000; ++step) {
        auto& id = ids[random() % ids.size()];
        if (!wheel.alive(id)) {
            id = wheel.set(now + span(), random() % 4 == 0 ? Duration{50ms} : Duration{0});
        } else if (random() % 2 == 0) {
            wheel.reset(id, now + span());
        } else {
            wheel.cancel(id);
        }
        if (step % 64 == 0) {
            wheel.advance(now += 1ms);
            while (wheel.pop_due()) {
            }
            static_cast<void>(wheel.next_deadline());
        }
    }
    CHECK(malloced() == malloced_before);
}

// --- The wheel beside a sorted reference
// ----------------------------------------------------------

namespace {

__extension__ typedef __int128 Wide;

class Reference {
  public:
    struct Timer {
        std::int64_t deadline;
        std::uint64_t order;
        TimerId id;
        friend auto operator<=>(const Timer& a, const Timer& b) {
            return std::tie(a.deadline, a.order) <=> std::tie(b.deadline, b.order);
        }
    };
    struct State {
        Timer timer{};
        std::int64_t interval = 0;
        bool due = false;
    };

    void set(TimerId id, std::int64_t deadline, std::int64_t interval) {
        if (id.slot() >= states.size()) {
            states.resize(id.slot() + 1);
        }
        states[id.slot()] = {{deadline, ++order_, id}, interval, false};
        waiting.insert(states[id.slot()].timer);
    }
    void reset(TimerId id, std::int64_t deadline) {
        const auto interval = states[id.slot()].interval;
        erase(id);
        set(id, deadline, interval);
    }
    void erase(TimerId id) {
        const auto& state = states[id.slot()];
        (state.due ? due : waiting).erase(state.timer);
    }
    void advance(std::int64_t told) {
        now = std::max(now, told);
        while (!waiting.empty() && waiting.begin()->deadline <= now) {
            auto node = waiting.extract(waiting.begin());
            states[node.value().id.slot()].due = true;
            due.insert(due.end(), std::move(node));
        }
    }
    Timer pop() {
        const auto timer = *due.begin();
        const auto interval = states[timer.id.slot()].interval;
        erase(timer.id);
        if (interval > 0) {
            const Wide late = static_cast<Wide>(now) - timer.deadline;
            const Wide next = timer.deadline + (late / interval + 1) * interval;
            set(timer.id, static_cast<std::int64_t>(std::min<Wide>(next, INT64_MAX)), interval);
        }
        return timer;
    }
    std::size_t size() const { return waiting.size() + due.size(); }
    std::int64_t earliest() const {
        return std::min(due.empty() ? INT64_MAX : due.begin()->deadline,
                        waiting.empty() ? INT64_MAX : waiting.begin()->deadline);
    }

    std::set<Timer> waiting;
    std::set<Timer> due;
    std::vector<State> states;
    std::int64_t now = INT64_MIN;

  private:
    std::uint64_t order_ = 0;
};

Timestamp at(std::int64_t count) {
    return Timestamp{Duration{count}};
}

std::int64_t saturated(std::int64_t base, std::int64_t span) {
    return saturating_add(at(base), Duration{span}).time_since_epoch().count();
}

class Comparison {
  public:
    Comparison(std::uint64_t seed, std::int64_t begin) : random_{seed}, now_{begin} {
        most_ = std::size_t{4} << random_() % 9;
        widest_ = 1 + random_() % 45;
        pace_ = std::uint64_t{1} << (10 + random_() % 30);
    }

    /// The first difference between wheel and reference, or null.
    const char* run(int steps) {
        if (random_() % 4 != 0) {
            advance(now_);
        }
        for (int step = 0; step < steps && wrong_ == nullptr; ++step) {
            act();
        }
        return wrong_;
    }

  private:
    void expect(bool fine, const char* what) { wrong_ = fine ? wrong_ : what; }

    // Around the edges of levels and ticks, or any length, or the shortest.
    std::int64_t span() {
        const auto ticks = std::int64_t{1} << random_() % widest_;
        switch (random_() % 8) {
        case 0:
            return static_cast<std::int64_t>(random_() % 1'000'000);
        case 1:
        case 2:
            return static_cast<std::int64_t>(random_() % (static_cast<std::uint64_t>(ticks) << 18));
        case 3:
            return 0;
        default: {
            const auto near = ticks + static_cast<std::int64_t>(random_() % 3) - 1;
            const auto fine = random_() % 2 == 0 ? static_cast<std::int64_t>(random_() % 3) - 1
                                                 : static_cast<std::int64_t>(random_() % 600'000);
            const auto sum = saturating_add(
                at(fine), Duration{near <= INT64_MAX >> 19 ? near << 19 : INT64_MAX});
            return sum.time_since_epoch().count();
        }
        }
    }

    std::int64_t deadline() {
        switch (random_() % 64) {
        case 0:
            return INT64_MAX;
        case 1:
            return INT64_MIN;
        case 2:
        case 3:
            return saturated(now_, -span());
        default:
            return saturated(now_, span());
        }
    }

    TimerId any() { return ids_[random_() % ids_.size()]; }

    void act() {
        const auto choice = random_() % 32;
        if (choice < 11 && model_.size() < most_) {
            set();
        } else if (choice < 18 && !ids_.empty()) {
            reset();
        } else if (choice < 23 && !ids_.empty()) {
            cancel();
        } else if (choice < 27) {
            move_on();
        } else {
            pop(random_() % 3 == 0 ? 1'000'000 : random_() % 4);
        }
        if (choice % 4 == 0) {
            look();
        }
    }

    void set() {
        const auto when = deadline();
        const auto interval = random_() % 8 == 0 ? span() : 0;
        const auto id = wheel_.set(at(when), Duration{interval}, random_());
        expect(static_cast<bool>(id), "a set timer has an id");
        model_.set(id, when, interval);
        if (id.slot() >= ids_.size()) {
            ids_.resize(id.slot() + 1);
        }
        expect(ids_[id.slot()] != id, "an id is never used again");
        ids_[id.slot()] = id;
    }

    bool lives(TimerId id) const {
        const auto& state = model_.states[id.slot()];
        return (state.due ? model_.due : model_.waiting).count(state.timer) != 0;
    }

    void reset() {
        const auto id = any();
        const auto when = random_() % 4 == 0
                              ? saturated(model_.states[id.slot()].timer.deadline, span() / 2)
                              : deadline();
        const bool live = lives(id);
        expect(wheel_.reset(id, at(when)) == live, "reset knows who lives");
        if (live) {
            model_.reset(id, when);
        }
    }

    void cancel() {
        const auto id = any();
        const bool live = lives(id);
        expect(wheel_.alive(id) == live, "alive knows who lives");
        expect(wheel_.cancel(id) == live, "cancel knows who lives");
        if (live) {
            model_.erase(id);
        }
    }

    void advance(std::int64_t now) {
        wheel_.advance(at(now));
        model_.advance(now);
        now_ = std::max(now_, now);
    }

    void move_on() {
        const auto next = wheel_.next_deadline();
        switch (random_() % 8) {
        case 0:
            advance(saturated(now_, -span()));
            break;
        case 2:
            advance(next ? next->time_since_epoch().count() : now_);
            break;
        case 3:
            if (next && *next > at(model_.now)) {
                const auto had = model_.due.size();
                advance(next->time_since_epoch().count() - 1);
                expect(model_.due.size() == had, "nothing is due before the wake");
                break;
            }
            [[fallthrough]];
        case 1:
            advance(now_);
            break;
        case 4:
            advance(saturated(now_, random_() % 16 == 0 ? span() / 64 : 1'000'000));
            break;
        default:
            advance(saturated(now_, static_cast<std::int64_t>(random_() % pace_)));
            break;
        }
        if (model_.due.empty() && !model_.waiting.empty()) {
            expect(*wheel_.next_deadline() > at(model_.now), "no hot turn after all is told");
        }
    }

    void pop(std::uint64_t most) {
        for (; most > 0 && !model_.due.empty() && wrong_ == nullptr; --most) {
            const auto expected = model_.pop();
            const auto due = wheel_.pop_due();
            expect(due && due->id == expected.id && due->deadline == at(expected.deadline),
                   "the next due is the first by deadline and setting");
        }
        expect(wheel_.has_due() == !model_.due.empty(), "has_due says what pop_due does");
    }

    void look() {
        expect(wheel_.size() == model_.size(), "the sizes agree");
        expect(wheel_.has_due() == !model_.due.empty(), "what is due agrees");
        const auto next = wheel_.next_deadline();
        expect(next.has_value() == (model_.size() != 0), "there is a deadline if a timer is set");
        if (next) {
            expect(*next <= at(model_.earliest()), "the wake is not late");
            expect(model_.size() > 32 || *next == at(model_.earliest()), "few timers: it is exact");
        }
    }

    std::mt19937_64 random_;
    std::int64_t now_;
    std::size_t most_ = 0;
    std::uint64_t widest_ = 0;
    std::uint64_t pace_ = 1;
    TimerWheel wheel_;
    Reference model_;
    Ids ids_; // by slot, the last one
    const char* wrong_ = nullptr;
};

} // namespace

TEST_CASE("the wheel does what a sorted list does, whatever is asked of it") {
    const bool thorough = std::getenv("REACTOR_LONG") != nullptr;
    constexpr int steps = 50'000;
    const std::uint64_t runs = (sanitized  ? 1'000'000
                                : thorough ? 100'000'000
                                           : 10'000'000) /
                               steps;
    constexpr std::int64_t century = std::chrono::nanoseconds{24h * 36'525}.count();
    for (std::uint64_t seed = 1; seed <= runs; ++seed) {
        const std::int64_t begins[] = {0,
                                       1'000'000'000'000,
                                       -5'000'000'000,
                                       -century,
                                       INT64_MIN,
                                       INT64_MAX - century,
                                       (std::int64_t{1} << 51) - 1'000'000};
        CAPTURE(seed);
        Comparison comparison{seed, begins[seed % std::size(begins)]};
        const auto* const wrong = comparison.run(steps);
        CAPTURE(wrong);
        REQUIRE(wrong == nullptr);
    }
}

TEST_CASE("each level's edges are met exactly, from any offset within a tick") {
    for (unsigned bits = 0; bits < 44; ++bits) {
        for (const std::int64_t offset : {0, 1, (1 << 19) - 1, 12'345}) {
            TimerWheel wheel;
            const auto now = Timestamp{} + 31 * 33 * tick + Duration{offset};
            wheel.advance(now);
            std::map<Timestamp, TimerId> expected;
            for (const std::int64_t ticks : {-1, 0, 1}) {
                for (const std::int64_t nanoseconds : {-1, 0, 1}) {
                    const auto span =
                        ((std::int64_t{1} << bits) + ticks) * tick + Duration{nanoseconds};
                    if (span > Duration{0}) {
                        expected[now + span] = wheel.set(now + span);
                    }
                }
            }
            for (const auto& [deadline, id] : expected) {
                REQUIRE(wheel.next_deadline() == deadline);
                REQUIRE(fired_by(wheel, deadline - 1ns).empty());
                REQUIRE(fired_by(wheel, deadline) == Ids{id});
            }
            REQUIRE(wheel.empty());
        }
    }
}
