// SPDX-License-Identifier: Apache-2.0
//
// Timers as a service meets them: never early, in order, gone when cancelled, and no load on the
// loop. The wheel behind them has tests of its own.
#include <reactor/poller/epoll.hpp>
#include <reactor/poller/poll.hpp>

#include <sys/time.h>

#include <csignal>
#include <ctime>
#include <thread>

#include "calm.hpp"
#include "catch.hpp"
#include "scripted.hpp"

using namespace scripted;

namespace {

/// A world whose timers have names, noted when they fire.
struct TimerWorld : World {
    explicit TimerWorld(const Options& options = {}) : World(options) {
        answers.timer = [this](TimerId timer, ToyActions& actions) {
            noted.erase(noted.rfind("timer")); // its name instead
            if (!noted.empty()) {
                noted.pop_back();
            }
            note(names[timer]);
            if (at_fire) {
                at_fire(names[timer], timer, actions);
            }
        };
    }
    TimerId set(ToyActions& actions, const std::string& name, Duration span) {
        return named(actions.set_timer(span), name);
    }
    TimerId named(TimerId timer, const std::string& name) {
        names[timer] = name;
        return timer;
    }

    std::map<TimerId, std::string> names;
    std::function<void(const std::string&, TimerId, ToyActions&)> at_fire;
};

} // namespace

// -- order ----------------------------------------------------------------------------------------

TEST_CASE("a thousand timers with one deadline all fire, in the order of setting") {
    TimerWorld world;
    std::string expected;
    world.act([&](ToyActions& actions) {
        for (int n = 0; n < 1000; ++n) {
            world.set(actions, std::to_string(n), 5ms);
            expected += (n == 0 ? "" : " ") + std::to_string(n);
        }
    });
    CHECK(world.names.size() == 1000); // each has an id of its own
    take_notes();
    CHECK(world.timeout_of_turn() <= 5ms);
    while (world.poller().now() < Timestamp{1h} + 5ms) {
        CHECK(noted.empty());
        world.runtime.turn(1h);
    }
    CHECK(take_notes() == expected);
    CHECK(world.timeout_of_turn() == 1h);
}

TEST_CASE("due timers fire in the order of exact deadline, then of setting; a reset is a setting") {
    TimerWorld world;
    world.act([&](ToyActions& actions) {
        const TimerId moved = world.set(actions, "moved", 3ms + 7ns);
        world.set(actions, "c", 3ms + 7ns);
        world.set(actions, "b", 3ms + 6ns);
        world.set(actions, "d", 3ms + 8ns);
        const TimerId earlier = world.set(actions, "a", 9ms);
        world.named(actions.set_timer_at(actions.now() + 3ms + 7ns), "at");
        CHECK(actions.reset_timer(moved, 3ms + 7ns));
        CHECK(actions.reset_timer(earlier, 1ms));
    });
    take_notes();
    world.poller().advance(10ms);
    world.runtime.turn(0s);
    CHECK(take_notes() == "a b c at moved d");
}

TEST_CASE("after an hour's suspension each due timer fires once, in order") {
    TimerWorld world;
    world.act([&](ToyActions& actions) {
        world.set(actions, "late", 50min);
        world.set(actions, "early", 1s);
        world.named(actions.set_interval(10s), "tick");
        world.set(actions, "never", 2h);
    });
    take_notes();
    world.poller().advance(1h);
    world.runtime.turn(0s);
    CHECK(take_notes() == "early tick late");
    CHECK(world.runtime.until_next() == 10s);
}

TEST_CASE("a timer and what its resource has to read come in one turn: the timer first") {
    TimerWorld world;
    Wire& a = world.wires.add("a");
    const ResourceId id = world.begin({&a}).front();
    world.act([&](ToyActions& actions) { world.set(actions, "timer", 1ms); });
    a.deadline = world.poller().now() + 1ms;
    a.at_deadline = [](Wire&) { note("deadline"); };
    world.act([&](ToyActions& actions) { actions.resume(id); }); // touched: its deadline is seen
    world.runtime.turn(0s);
    a.input = {"x"};
    take_notes();
    world.poller().advance(1ms);
    world.poller().report_read(id);
    world.runtime.turn(0s);
    CHECK(take_notes() == "timer deadline event(a x)");
}

// -- when -----------------------------------------------------------------------------------------

TEST_CASE("a timer fires at its deadline, and not a nanosecond before") {
    TimerWorld world;
    const Duration span = GENERATE(Duration(1), Duration(1us), Duration(524'287), Duration(524'288),
                                   Duration(1ms), Duration(16ms), Duration(1s), Duration(24h));
    const Timestamp begun = world.poller().now();
    world.act([&](ToyActions& actions) { world.set(actions, "x", span); });
    take_notes();
    CHECK(world.runtime.until_next() == span);
    world.poller().set_now(begun + span - 1ns);
    world.runtime.turn(0s);
    CHECK(take_notes().empty());
    CHECK(world.runtime.until_next() == 1ns);
    world.poller().advance(1ns);
    world.runtime.turn(0s);
    CHECK(take_notes() == "x");
}

TEST_CASE("a timer counts from the moment it is asked for, not from the start of the turn") {
    TimerWorld world;
    TimerId reset;
    world.act([&](ToyActions& actions) { reset = world.set(actions, "reset", 1h); });
    const Timestamp begun = world.poller().now();
    world.act([&](ToyActions& actions) {
        const Timestamp turn = actions.now();
        CHECK(turn == begun);
        world.poller().advance(120ms); // work
        world.set(actions, "x", 100ms);
        world.named(actions.set_interval(101ms), "interval");
        CHECK(actions.reset_timer(reset, 102ms));
        CHECK(actions.now() == turn);
    });
    take_notes();
    CHECK(world.runtime.until_next() == 100ms);
    world.runtime.turn(1h);
    CHECK(take_notes() == "x");
    CHECK(world.poller().now() == begun + 220ms);
    world.runtime.turn(1h);
    CHECK(take_notes() == "interval");
    world.runtime.turn(1h);
    CHECK(take_notes() == "reset");
    CHECK(world.poller().now() == begun + 222ms);
}

TEST_CASE("huge spans and deadlines saturate: they neither fire nor shorten a wait") {
    TimerWorld world;
    world.begin({});
    world.act([&](ToyActions& actions) {
        world.set(actions, "for ever", Duration::max());
        world.named(actions.set_timer_at(Timestamp::max()), "at the end of time");
        world.named(actions.set_interval(Duration::max()), "every eternity");
        world.set(actions, "30 days", 24h * 30);
    });
    CHECK(world.runtime.until_next() == 24h * 30);
    for (int n = 0; n < 20; ++n) { // the wheel may look at it on the way
        world.runtime.turn(24h * 10);
        CHECK(world.poller().last_timeout() > 0s);
    }
    CHECK(take_notes() == "30 days");
    for (int n = 0; n < 100; ++n) {
        world.runtime.turn(24h * 365);
        CHECK(world.poller().last_timeout() > 0s);
    }
    CHECK(take_notes().empty());
}

TEST_CASE("a timer whose moment has passed fires in the next turn, once, and does not spin") {
    TimerWorld world;
    world.answers.start = [&](ToyActions& actions) {
        world.set(actions, "zero", 0ns);
        world.set(actions, "negative", -5s);
        world.set(actions, "least", Duration::min());
        world.named(actions.set_timer_at(Timestamp{}), "past");
        world.named(actions.set_timer_at(Timestamp::min()), "least at");
    };
    CHECK(world.runtime.turn(1h));
    CHECK(world.poller().last_timeout() == 0s);
    CHECK(take_notes() == "start least at least past negative zero");
    CHECK(world.timeout_of_turn() == 1h);
    CHECK(take_notes().empty());
}

TEST_CASE("a zero timer that sets itself again fires once a turn, and keeps nobody from his turn") {
    TimerWorld world;
    Wire& a = world.wires.add("a");
    const ResourceId id = world.begin({&a}).front();
    world.at_fire = [&](const std::string& name, TimerId, ToyActions& actions) {
        world.set(actions, name, 0ns);
    };
    world.act([&](ToyActions& actions) { world.set(actions, "z", 1ms); });
    world.poller().advance(1ms);
    take_notes();
    for (int n = 0; n < 3; ++n) {
        a.input = {"x"};
        world.poller().report_read(id);
        REQUIRE(world.runtime.controller().command(1));
        world.runtime.turn(1h);
        CHECK(take_notes() == "z event(a x) command(1)");
    }
    CHECK(world.timeout_of_turn() == 0s);
}

TEST_CASE("an interval of nothing fires once a turn, and keeps nobody from his turn") {
    TimerWorld world;
    Wire& a = world.wires.add("a");
    const ResourceId id = world.begin({&a}).front();
    world.act([&](ToyActions& actions) { world.named(actions.set_interval(0ns), "i"); });
    world.poller().advance(1ms);
    take_notes();
    for (int n = 0; n < 3; ++n) {
        a.input = {"x"};
        world.poller().report_read(id);
        world.poller().advance(1ms);
        world.runtime.turn(1h);
        CHECK(take_notes() == "i event(a x)");
    }
}

TEST_CASE("a clock that stands still or steps back fires nothing early and nothing twice") {
    TimerWorld world;
    world.act([&](ToyActions& actions) {
        world.set(actions, "a", 1s);
        world.set(actions, "b", 2s);
    });
    take_notes();
    world.poller().advance(1s);
    world.runtime.turn(0s);
    CHECK(take_notes() == "a");
    world.poller().advance(-10s);
    world.runtime.turn(0s);
    world.runtime.turn(0s);
    CHECK(take_notes().empty());
    world.poller().advance(11s - 1ns);
    world.runtime.turn(0s);
    CHECK(take_notes().empty());
    world.poller().advance(1ns);
    world.runtime.turn(0s);
    CHECK(take_notes() == "b");
}

// -- cancel and reset -----------------------------------------------------------------------------

TEST_CASE("a cancelled timer does not fire, not even one that is due in this turn") {
    TimerWorld world;
    TimerId first;
    TimerId second;
    TimerId third;
    world.act([&](ToyActions& actions) {
        first = world.set(actions, "first", 1ms);
        second = world.set(actions, "second", 1ms);
        third = world.set(actions, "third", 1ms);
    });
    SECTION("before it is due") {
        world.act([&](ToyActions& actions) {
            CHECK(actions.cancel_timer(first));
            CHECK_FALSE(actions.cancel_timer(first));
            CHECK_FALSE(actions.reset_timer(first, 1ms));
        });
        take_notes();
        world.poller().advance(1ms);
        world.runtime.turn(0s);
        CHECK(take_notes() == "second third");
    }
    SECTION("by a sibling that is due with it, or by itself") {
        world.at_fire = [&](const std::string&, TimerId timer, ToyActions& actions) {
            CHECK(actions.cancel_timer(timer == first ? second : first) == (timer == first));
            CHECK_FALSE(actions.cancel_timer(timer)); // a timer that fires is gone
            CHECK_FALSE(actions.reset_timer(timer, 0ns));
        };
        take_notes();
        world.poller().advance(1ms);
        world.runtime.turn(0s);
        CHECK(take_notes() == "first third");
    }
    SECTION("in tick, when it is due already") {
        take_notes();
        world.poller().advance(1ms);
        world.act([&](ToyActions& actions) {
            CHECK(actions.cancel_timer(first));
            CHECK(actions.cancel_timer(third));
        });
        CHECK(take_notes() == "second");
    }
    SECTION("between two turns of one batch, by a command") {
        world.answers.command = [&](int, ToyActions& actions) {
            CHECK(actions.cancel_timer(second));
        };
        world.at_fire = [&](const std::string& name, TimerId, ToyActions& actions) {
            if (name == "first") {
                CHECK(actions.reset_timer(second, 1ms)); // due, and moved
                REQUIRE(world.runtime.controller().command(1));
            }
        };
        take_notes();
        world.poller().advance(1ms);
        world.runtime.turn(0s);
        world.poller().advance(1s);
        world.runtime.turn(0s);
        CHECK(take_notes() == "first third command(1)");
    }
    CHECK(world.timeout_of_turn() == 1h);
    CHECK(take_notes().empty());
}

TEST_CASE("the id of a timer that is gone stays strange, although its place is used again") {
    TimerWorld world;
    std::vector<TimerId> gone;
    world.act([&](ToyActions& actions) {
        for (int n = 0; n < 10'000; ++n) {
            const TimerId timer = actions.set_timer(1h);
            gone.push_back(timer);
            CHECK(actions.cancel_timer(timer));
        }
        static_cast<void>(world.set(actions, "x", 1ms));
    });
    std::sort(gone.begin(), gone.end());
    CHECK(std::adjacent_find(gone.begin(), gone.end()) == gone.end());
    world.act([&](ToyActions& actions) {
        for (const TimerId timer : gone) {
            CHECK_FALSE(actions.cancel_timer(timer));
            CHECK_FALSE(actions.reset_timer(timer, 0ns));
        }
        CHECK_FALSE(actions.cancel_timer(TimerId{}));
        CHECK_FALSE(actions.cancel_timer(TimerId::of(5, 5)));
    });
    take_notes();
    world.poller().advance(1ms);
    world.runtime.turn(0s);
    CHECK(take_notes() == "x");
}

TEST_CASE("a timer may be moved earlier and later, from other callbacks and while it is due") {
    TimerWorld world;
    TimerId a;
    TimerId b;
    world.act([&](ToyActions& actions) {
        a = world.set(actions, "a", 10ms);
        b = world.set(actions, "b", 20ms);
    });
    world.at_fire = [&](const std::string& name, TimerId, ToyActions& actions) {
        if (name == "b") {
            CHECK(actions.reset_timer(a, 7ms)); // which is due too
        }
    };
    world.act([&](ToyActions& actions) {
        CHECK(actions.reset_timer(b, 5ms));
        CHECK(actions.reset_timer(a, 6ms));
    });
    CHECK(world.runtime.until_next() == 5ms);
    take_notes();
    world.poller().advance(30ms);
    world.runtime.turn(0s);
    CHECK(take_notes() == "b");
    CHECK(world.runtime.until_next() == 7ms);
    world.runtime.turn(1h);
    CHECK(take_notes() == "a");
}

TEST_CASE("an earlier timer shortens the wait, and one that is removed leaves no wake behind") {
    TimerWorld world;
    world.begin({});
    TimerId first;
    world.act([&](ToyActions& actions) { world.set(actions, "hour", 1h); });
    CHECK(world.runtime.until_next() == 1h);
    world.act([&](ToyActions& actions) { first = world.set(actions, "minute", 1min); });
    CHECK(world.runtime.until_next() == 1min);
    REQUIRE(world.runtime.controller().command(1));
    world.answers.command = [&](int, ToyActions& actions) { world.set(actions, "second", 1s); };
    world.runtime.turn(1h);
    CHECK(world.runtime.until_next() == 1s);
    CHECK(world.timeout_of_turn() == 1s);
    world.act([&](ToyActions& actions) { CHECK(actions.cancel_timer(first)); });
    take_notes();
    world.poller().sleeps = 0;
    while (noted.empty()) {
        world.runtime.turn(2h);
    }
    CHECK(take_notes() == "hour");
    CHECK(world.poller().sleeps == 1);
}

// -- intervals ------------------------------------------------------------------------------------

TEST_CASE("an interval keeps its beat, and skips the periods that were missed") {
    TimerWorld world;
    const Timestamp begun = world.poller().now();
    std::vector<Duration> fired;
    Duration work = 0ms;
    world.at_fire = [&](const std::string&, TimerId, ToyActions&) {
        fired.push_back(world.poller().now() - begun);
        world.poller().advance(work);
    };
    world.act([&](ToyActions& actions) { world.named(actions.set_interval(10ms), "i"); });
    for (int n = 0; n < 3; ++n) {
        world.runtime.turn(1h);
    }
    work = 35ms; // slower than its period
    for (int n = 0; n < 2; ++n) {
        world.runtime.turn(1h);
    }
    work = 0ms;
    for (int n = 0; n < 3; ++n) {
        world.runtime.turn(1h);
    }
    // The one at 40 ms works until 75 ms: what was missed fires once, at once, without a burst,
    // and works until 110 ms. Then the beat goes on.
    const std::vector<Duration> expected{10ms, 20ms, 30ms, 40ms, 75ms, 110ms, 120ms, 130ms};
    CHECK(fired == expected);
}

TEST_CASE("an interval can be cancelled and moved by its own callback") {
    TimerWorld world;
    int fired = 0;
    world.at_fire = [&](const std::string&, TimerId timer, ToyActions& actions) {
        ++fired;
        if (fired == 2) {
            CHECK(actions.reset_timer(timer, 3s));
        }
        if (fired == 4) {
            CHECK(actions.cancel_timer(timer));
            CHECK_FALSE(actions.cancel_timer(timer));
        }
    };
    const Timestamp begun = world.poller().now();
    world.act([&](ToyActions& actions) { world.named(actions.set_interval(1s), "i"); });
    while (fired < 4) {
        world.runtime.turn(1h);
    }
    CHECK(world.poller().now() == begun + 1s + 1s + 3s + 1s);
    CHECK(world.timeout_of_turn() == 1h);
    CHECK(fired == 4);
}

// -- limits ---------------------------------------------------------------------------------------

TEST_CASE("at the limit of timers the answer is an id of nothing, told once a turn") {
    Options options;
    options.timers = 3;
    TimerWorld world(options);
    Wire& a = world.wires.add("a");
    a.deadline = world.poller().now() + 1h; // a resource's own is not counted
    world.begin({&a});
    TimerId one;
    world.act([&](ToyActions& actions) {
        one = world.set(actions, "one", 1s);
        world.set(actions, "two", 2s);
        CHECK(world.named(actions.set_interval(3s), "three"));
        CHECK_FALSE(actions.set_timer(1s));
        CHECK_FALSE(actions.set_timer_at(Timestamp{}));
        CHECK_FALSE(actions.set_interval(1s));
    });
    CHECK(take_notes() == "actions_refused");
    world.act([&](ToyActions& actions) {
        CHECK(actions.reset_timer(one, 1s));
        CHECK(actions.cancel_timer(one));
        CHECK(world.set(actions, "again", 1s));
        CHECK_FALSE(actions.set_timer(1s));
    });
    CHECK(take_notes() == "actions_refused");
    world.runtime.turn(1s);
    CHECK(take_notes() == "again");
    world.act([&](ToyActions& actions) { CHECK(world.set(actions, "more", 1h)); });
    CHECK(take_notes().empty());
}

// -- the deadline of a resource -------------------------------------------------------------------

TEST_CASE("a resource with a deadline is asked when it has come, though nothing is ready") {
    TimerWorld world;
    Wire& a = world.wires.add("a");
    Wire& l = world.wires.add("l");
    const Timestamp begun = world.poller().now();
    a.deadline = begun + 1s;
    l.deadline = begun + 2s;
    a.at_deadline = l.at_deadline = [&](Wire& wire) {
        note(wire.name + "!");
        CHECK(world.poller().now() >= begun + (wire.name == "a" ? 1s : 2s));
    };
    world.begin({&a}, {&l});
    CHECK(world.runtime.until_next() == 1s);
    world.runtime.turn(1h);
    world.runtime.turn(1h);
    while (noted.size() < 5) {
        world.runtime.turn(1h);
    }
    CHECK(take_notes() == "a! l!");
    world.runtime.turn(0s);
    CHECK(world.timeout_of_turn() == 1h);
}

TEST_CASE("a deadline that moves on with every event costs no wakes, and never rings early") {
    TimerWorld world;
    Wire& a = world.wires.add("a");
    const Timestamp begun = world.poller().now();
    a.deadline = begun + 10s; // an idle timeout
    a.at_deadline = [&](Wire&) { note("idle"); };
    const ResourceId id = world.begin({&a}).front();
    world.answers.transport_event = [&](ResourceId, std::string&, ToyActions&) {
        a.deadline = world.poller().now() + 10s;
    };
    world.runtime.turn(0s);
    for (int n = 0; n < 100; ++n) {
        world.poller().advance(1s);
        a.input = {"x"};
        world.poller().report_read(id);
        world.runtime.turn(0s);
    }
    CHECK(noted.find("idle") == std::string::npos);
    take_notes();
    world.poller().sleeps = 0;
    while (noted.empty()) {
        world.runtime.turn(1h);
    }
    CHECK(take_notes() == "idle");
    CHECK(world.poller().now() == begun + 110s);
    CHECK(world.poller().sleeps <= 2); // the old moment at most, then the new
}

TEST_CASE("a deadline may come nearer, go away, and leave with its resource") {
    TimerWorld world;
    Wire& a = world.wires.add("a");
    const Timestamp begun = world.poller().now();
    a.deadline = begun + 1h;
    a.at_deadline = [](Wire&) { note("rang"); };
    const ResourceId id = world.begin({&a}).front();
    world.runtime.turn(0s);
    CHECK(world.runtime.until_next() == 1h);
    const auto touched = [&] {
        world.poller().report_read(id);
        world.runtime.turn(0s);
        world.runtime.turn(0s);
    };
    a.deadline = begun + 1s;
    touched();
    CHECK(world.runtime.until_next() == 1s);
    SECTION("it comes") {
        world.runtime.turn(1h);
        CHECK(take_notes() == "rang");
    }
    SECTION("it goes away") {
        a.deadline.reset();
        touched();
        world.runtime.turn(1s);
        world.runtime.turn(1s);
        CHECK(take_notes().empty());
    }
    SECTION("its resource leaves") {
        world.act([&](ToyActions& actions) { actions.unregister_transport(id); });
        CHECK(take_notes() == "back(a)");
        CHECK(world.runtime.until_next() == Duration::max());
        world.runtime.turn(1h);
        CHECK(take_notes().empty());
    }
    world.runtime.turn(0s);
    CHECK(world.runtime.until_next() == Duration::max());
}

TEST_CASE("a deadline may end its resource, or make it yield") {
    TimerWorld world;
    Wire& a = world.wires.add("a");
    Wire& b = world.wires.add("b");
    a.deadline = b.deadline = world.poller().now() + 1s;
    a.at_deadline = [](Wire& wire) { wire.end = std::make_error_code(std::errc::timed_out); };
    b.at_deadline = [](Wire& wire) {
        wire.caused = {"asked"};
        wire.trouble = std::make_error_code(std::errc::too_many_files_open);
    };
    world.answers.error = [&](auto& error, ToyActions&) {
        CHECK(error.code() ==
              (error.is_end() ? std::errc::timed_out : std::errc::too_many_files_open));
    };
    world.begin({&a, &b});
    world.runtime.turn(1h);
    world.runtime.turn(1h);
    CHECK(take_notes() == "ended(a) trouble(b) event(b asked)");
    CHECK(Token::live == 1);
}

// -- on every poller ------------------------------------------------------------------------------

namespace {

/// Sets one timer after another, and looks at the clock when each fires.
struct Punctual : Service<NoListener, NoTransport> {
    void handle_start(Actions& actions) { next(actions); }
    void tick(Actions&) { ++*turns; }
    void handle_timer(TimerId, Actions& actions) {
        *early |= os::Kernel::now() < due;
        *early |= actions.now() < due;
        ++*fired;
        next(actions);
    }
    void next(Actions& actions) {
        if (left.empty()) {
            actions.shutdown();
            return;
        }
        const Timestamp asked = os::Kernel::now();
        static_cast<void>(actions.set_timer(left.back()));
        due = asked + left.back();
        left.pop_back();
    }

    std::vector<Duration> left;
    bool* early;
    int* fired;
    int* turns;
    Timestamp due{};
};

} // namespace

TEMPLATE_TEST_CASE("on the real clock no timer is early, and no wait ends in a hot loop", "",
                   EpollPoller, PollPoller) {
    bool early = false;
    int fired = 0;
    int turns = 0;
    Punctual service;
    for (int n = 0; n < 5; ++n) {
        for (const Duration span : {Duration(1us), Duration(50us), Duration(999us), Duration(1ms),
                                    Duration(1001us), Duration(3'333us), Duration(11'111us)}) {
            service.left.push_back(span);
        }
    }
    service.early = &early;
    service.fired = &fired;
    service.turns = &turns;
    Runtime<Punctual, TestType> runtime{std::move(service)};
    const test::Calm calm; // a signal may end a turn
    runtime.run();
    CHECK_FALSE(early);
    CHECK(fired == 35);
    CHECK(turns <= 3 * 35);
}

TEMPLATE_TEST_CASE("signals that end a wait neither fire a timer early nor put it off", "",
                   EpollPoller, PollPoller) {
    static volatile std::sig_atomic_t signals = 0;
    struct sigaction action {};
    struct sigaction before {};
    action.sa_handler = [](int) { signals = signals + 1; }; // without SA_RESTART
    signals = 0;
    REQUIRE(::sigaction(SIGALRM, &action, &before) == 0);
    const itimerval every{{0, 2'000}, {0, 2'000}};
    const itimerval never{};

    bool early = false;
    int fired = 0;
    int turns = 0;
    Punctual service;
    service.left = {Duration(60ms), Duration(30ms)}; // if each signal began it anew: never
    service.early = &early;
    service.fired = &fired;
    service.turns = &turns;
    Runtime<Punctual, TestType> runtime{std::move(service)};
    REQUIRE(::setitimer(ITIMER_REAL, &every, nullptr) == 0);
    runtime.run();
    REQUIRE(::setitimer(ITIMER_REAL, &never, nullptr) == 0);
    REQUIRE(::sigaction(SIGALRM, &before, nullptr) == 0);
    CHECK_FALSE(early);
    CHECK(fired == 2);
    CHECK(signals > 0);
}

namespace {

/// Looks at the timeouts instead of waiting.
struct TimeoutKernel : os::Kernel {
    inline static std::vector<Duration> timeouts;

    static os::Result epoll_wait(int, std::span<epoll_event>, int milliseconds) {
        timeouts.push_back(milliseconds < 0 ? Duration::max()
                                            : Duration(std::chrono::milliseconds(milliseconds)));
        return {};
    }
    static os::Result epoll_wait_precise(int, std::span<epoll_event>, Duration timeout) {
        timeouts.push_back(timeout);
        return {};
    }
    static os::Result poll(std::span<pollfd> fds, Duration timeout) {
        if (fds.size() == 1 && timeout == Duration::zero()) {
            return os::Kernel::poll(fds, timeout); // a look at whether a descriptor is open
        }
        timeouts.push_back(timeout);
        return {};
    }
};

} // namespace

TEMPLATE_TEST_CASE("no timeout wraps round, is rounded down, or is left out", "",
                   BasicEpollPoller<TimeoutKernel>, BasicPollPoller<TimeoutKernel>) {
    Answers<NoListener, NoTransport, int> answers;
    using Quiet = ScriptedService<NoListener, NoTransport, int>;
    Runtime<Quiet, TestType> runtime{Quiet(answers)};
    const Duration span =
        GENERATE(Duration(1), Duration(1'500us), Duration(10'900us), Duration(500'900us),
                 Duration(24h * 30), Duration(std::chrono::milliseconds{2'147'483'647}) + 1ms,
                 Duration(24h * 365 * 200), Duration::max());
    answers.start = [&](auto& actions) { static_cast<void>(actions.set_timer(span)); };
    const Timestamp asked = os::Kernel::now();
    runtime.turn(0s);
    TimeoutKernel::timeouts.clear();
    runtime.turn(Duration::max());
    const Duration passed = os::Kernel::now() - asked;
    REQUIRE(TimeoutKernel::timeouts.size() == 1);
    const Duration timeout = TimeoutKernel::timeouts.front();
    // It may be cut short, but not to less than the most that a poller can wait at once.
    CHECK(timeout >= std::min(std::max(span - passed, 0ns), Duration(24h * 24)));
    take_notes();
}

TEMPLATE_TEST_CASE("a timer set by a command from another thread shortens the wait under way", "",
                   EpollPoller, PollPoller) {
    Answers<NoListener, NoTransport, int> answers;
    using Waiting = ScriptedService<NoListener, NoTransport, int>;
    Runtime<Waiting, TestType> runtime{Waiting(answers)};
    answers.start = [](auto& actions) { static_cast<void>(actions.set_timer(1h)); };
    answers.command = [](int, auto& actions) { static_cast<void>(actions.set_timer(1ms)); };
    answers.timer = [](TimerId, auto& actions) { actions.shutdown(); };
    std::thread other([controller = runtime.controller()] {
        std::this_thread::sleep_for(5ms); // most probably it waits by then
        static_cast<void>(controller.command(1));
    });
    runtime.run();
    other.join();
    CHECK(take_notes() == "start command(1) timer");
}

TEMPLATE_TEST_CASE("the clock is the monotonic one, which no change of the date moves", "",
                   EpollPoller, PollPoller) {
    const auto monotonic = [] {
        timespec time{};
        ::clock_gettime(CLOCK_MONOTONIC, &time);
        return Timestamp{std::chrono::seconds{time.tv_sec} + Duration{time.tv_nsec}};
    };
    TestType poller;
    const Timestamp before = monotonic();
    const Timestamp now = poller.now();
    const Timestamp kernel_now = TestType::Kernel::now();
    const Timestamp after = monotonic();
    CHECK(before <= now);
    CHECK(now <= kernel_now);
    CHECK(kernel_now <= after);
}
