// SPDX-License-Identifier: Apache-2.0
//
// Work that would block the loop is done by other threads: each result comes back once, to a
// service as a command, to an executor as a callback; at the limit and at the end nothing is lost.
#include "calm.hpp"
#include "catch.hpp"
#include "polling_parts.hpp"
#include "turns.hpp"

#include <reactor/executor.hpp>
#include <reactor/offload.hpp>
#include <reactor/poller/poll.hpp>

#include <atomic>
#include <memory>
#include <new>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>
#include <sys/wait.h>

namespace {

using namespace reactor;
using test::until;
using namespace std::chrono_literals;

/// What was thrown, as text.
template <class T>
std::string told_by(Outcome<T>& outcome) {
    try {
        std::rethrow_exception(outcome.thrown());
    } catch (const std::exception& error) {
        return error.what();
    }
}

/// A gate that work waits at.
class Gate {
  public:
    void open() { open_ = true; }
    void pass() {
        ++waiting_;
        while (!open_) {
            os::Kernel::sleep(100us);
        }
    }
    [[nodiscard]] int waiting() const { return waiting_; }
    void await(int count) const {
        while (waiting_ < count) {
            os::Kernel::sleep(100us);
        }
    }

  private:
    std::atomic<bool> open_{false};
    std::atomic<int> waiting_{0};
};

struct Number {
    std::uint32_t number = 0;
};

/// Has every number from 0 on checked by the pool, and counts how often each comes back.
struct Counting : Service<NoListener, NoTransport, Number> {
    Counting(Offload& with, std::uint32_t of) : pool(&with), all(of), seen(of) {}

    void handle_listener_event(ResourceId, NoCommand, Actions&) {}
    void handle_transport_event(ResourceId, NoCommand, Actions&) {}
    void tick(Actions&) { submit(); }
    void handle_command(Number result, Actions& actions) {
        seen[result.number] = static_cast<std::uint8_t>(seen[result.number] + 1);
        submit(); // not in tick() alone: in a turn that comes before the commands
        if (++returned == all) {
            actions.shutdown();
        }
    }
    void submit() {
        while (submitted < all) {
            const std::uint32_t number = submitted;
            auto answer = pool->submit(
                self, [number] { return number; },
                [](Outcome<std::uint32_t>&& outcome) { return Number{outcome.value()}; });
            if (!answer) {
                full += answer.full() ? 1U : 0U;
                const auto back = answer.take();
                given_back += back.has_value() && (*back)() == number ? 1U : 0U;
                return; // until something comes back
            }
            ++submitted;
        }
    }

    Offload* pool;
    Controller self;
    std::uint32_t all;
    std::uint32_t submitted = 0;
    std::uint32_t returned = 0;
    std::uint32_t full = 0;
    std::uint32_t given_back = 0;
    std::vector<std::uint8_t> seen; ///< how often each came back
};

/// Notes what comes back.
template <class T>
struct Notes : Service<NoListener, NoTransport, Outcome<T>> {
    using typename Notes::Service::Actions;

    void handle_listener_event(ResourceId, NoCommand, Actions&) {}
    void handle_transport_event(ResourceId, NoCommand, Actions&) {}
    void handle_command(Outcome<T> outcome, Actions&) {
        thread = ::pthread_self();
        outcomes.push_back(std::move(outcome));
    }

    std::vector<Outcome<T>> outcomes;
    pthread_t thread{};
};

Placement some_placement() { return GENERATE(Placement::in_loop, Placement::beside); }

} // namespace

#define POLLERS EpollPoller, PollPoller

TEST_CASE("Of a million jobs that a loop submits each result comes back exactly once") {
    Offload pool({2, 1000});
    Runtime<Counting> runtime(Counting(pool, 1'000'000));
    runtime.service().self = runtime.controller();
    runtime.run();
    const Counting& service = runtime.service();
    CHECK(service.returned == 1'000'000);
    CHECK(std::count(service.seen.begin(), service.seen.end(), 1) == 1'000'000);
    CHECK(service.full > 0);
    CHECK(service.given_back == service.full);
    CHECK(pool.undeliverable() == 0);
}

TEMPLATE_TEST_CASE("Where the channel is smaller than what comes back, the pool waits and nothing "
                   "is lost",
                   "", POLLERS) {
    Offload pool({3, 100});
    Options options;
    options.command_queue = 2;
    Runtime<Counting, TestType> runtime(Counting(pool, 2000), options);
    runtime.service().self = runtime.controller();
    runtime.run();
    const Counting& service = runtime.service();
    CHECK(std::count(service.seen.begin(), service.seen.end(), 1) == 2000);
}

TEMPLATE_TEST_CASE("A service gets results and what was thrown as commands, on its own thread", "",
                   POLLERS) {
    Offload pool;
    Runtime<Notes<int>, TestType> runtime(Notes<int>{});
    auto& notes = runtime.service();

    SECTION("a result") {
        REQUIRE(pool.submit(runtime.controller(), [] { return 42; }));
        REQUIRE(until(runtime, [&] { return notes.outcomes.size() == 1; }));
        REQUIRE(notes.outcomes[0]);
        CHECK(notes.outcomes[0].value() == 42);
        CHECK(notes.outcomes[0].thrown() == nullptr);
    }
    SECTION("an exception") {
        REQUIRE(pool.submit(runtime.controller(),
                            []() -> int { throw std::runtime_error("no such name"); }));
        REQUIRE(until(runtime, [&] { return notes.outcomes.size() == 1; }));
        REQUIRE_FALSE(notes.outcomes[0]);
        CHECK(told_by(notes.outcomes[0]) == "no such name");
    }
    SECTION("work that can only be moved") {
        REQUIRE(pool.submit(runtime.controller(),
                            [own = std::make_unique<int>(7)] { return *own; }));
        REQUIRE(until(runtime, [&] { return notes.outcomes.size() == 1; }));
        CHECK(notes.outcomes[0].value() == 7);
    }
    CHECK(::pthread_equal(notes.thread, ::pthread_self()) != 0);
}

TEMPLATE_TEST_CASE("An executor gets results and what was thrown as callbacks, on its own thread",
                   "", POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    Offload pool;
    const pthread_t here = ::pthread_self();
    int called = 0;
    bool elsewhere = false;

    SECTION("a result that can only be moved") {
        std::unique_ptr<std::string> result;
        REQUIRE(pool.submit(
            executor.controller(),
            [&elsewhere, here] {
                elsewhere = ::pthread_equal(::pthread_self(), here) == 0;
                return std::make_unique<std::string>("resolved");
            },
            [&](Tested&, Outcome<std::unique_ptr<std::string>> outcome) {
                CHECK(::pthread_equal(::pthread_self(), here) != 0);
                result = std::move(outcome.value());
                ++called;
            }));
        REQUIRE(until(executor, [&] { return called == 1; }));
        CHECK(*result == "resolved");
    }
    SECTION("no result, and the callback asks for more") {
        REQUIRE(pool.submit(
            executor.controller(),
            [&elsewhere, here] { elsewhere = ::pthread_equal(::pthread_self(), here) == 0; },
            [&](Tested& self, Outcome<std::monostate> outcome) {
                CHECK(outcome);
                self.await_after(1us, [&](Tested&) { ++called; });
            }));
        REQUIRE(until(executor, [&] { return called == 1; }));
    }
    SECTION("an exception") {
        REQUIRE(pool.submit(
            executor.controller(),
            [&elsewhere, here]() -> int {
                elsewhere = ::pthread_equal(::pthread_self(), here) == 0;
                throw std::runtime_error("disk full");
            },
            [&](Tested&, Outcome<int> outcome) {
                CHECK_FALSE(outcome);
                CHECK(told_by(outcome) == "disk full");
                ++called;
            }));
        REQUIRE(until(executor, [&] { return called == 1; }));
    }
    CHECK(elsewhere);
}

namespace {

/// What a loop saw while a resolver was at work for it.
struct Seen {
    int rounds = 0;   ///< of a post, a readiness and a timer
    int late = 0;     ///< callbacks that had not run when the turn they were due for was over
    int in_vain = 0;  ///< turns that were waited for something in vain
    bool elsewhere = false;
    std::string name;
};

/// Looks a name up with a resolver that sleeps, and goes on meanwhile: a post, a timer and, in the
/// loop itself, a readiness each have to be told in the first turn that begins when they are due.
template <class Tested>
Seen resolve_meanwhile(Offload& pool, Placement placement, Duration resolver_sleeps) {
    Tested executor(placement);
    Seen seen;
    const pthread_t here = ::pthread_self();
    const auto getaddrinfo = [&seen, here, resolver_sleeps] { // as the one of the C library: blocks
        const Timestamp until = os::Kernel::now() + resolver_sleeps;
        while (os::Kernel::now() < until) {
            os::Kernel::sleep(until - os::Kernel::now());
        }
        seen.elsewhere = ::pthread_equal(::pthread_self(), here) == 0;
        return std::string("192.0.2.1");
    };
    if (!pool.submit(executor.controller(), getaddrinfo, [&](Tested&, Outcome<std::string> found) {
            seen.name = found.value();
        })) {
        return seen;
    }
    Pair pair = pipe_pair();
    int told = 0;
    executor.await_keep(readable(pair.ours.get()), [&](Tested&, Readiness) {
        told += static_cast<int>(read_from(pair.ours, 1));
    });
    executor.turn(Duration::zero());
    while (seen.name.empty()) {
        ++seen.rounds;
        bool posted = false;
        executor.controller().post([&](Tested&, Readiness) { posted = true; });
        write_to(pair.theirs, "x");
        executor.turn(1h);
        seen.late += posted ? 0 : 1;
        seen.late += placement == Placement::in_loop && told != seen.rounds ? 1 : 0;
        for (int turns = 0; told != seen.rounds && turns < 1000; ++turns) {
            executor.turn(1s); // from the other thread it comes when that has run
        }
        seen.in_vain += told == seen.rounds ? 0 : 1;
        bool fired = false;
        executor.await_after(5ms, [&](Tested&) { fired = true; });
        const Timestamp due = os::Kernel::now() + 5ms; // or a little earlier
        bool was_due = false;
        while (!fired) {
            seen.late += was_due ? 1 : 0;
            was_due = os::Kernel::now() >= due;
            executor.turn(1h);
        }
    }
    return seen;
}

} // namespace

TEST_CASE("A resolver that sleeps for 3 s delays no other callback by more than one turn, on both "
          "pollers and in both placements") {
    Offload pool({4, 10});
    Seen seen[4];
    const Timestamp began = os::Kernel::now();
    {
        std::thread loops[] = {
            std::thread([&] {
                seen[0] = resolve_meanwhile<BasicExecutor<EpollPoller>>(
                    pool, Placement::in_loop, 3s);
            }),
            std::thread([&] {
                seen[1] = resolve_meanwhile<BasicExecutor<EpollPoller>>(
                    pool, Placement::beside, 3s);
            }),
            std::thread([&] {
                seen[2] = resolve_meanwhile<BasicExecutor<PollPoller>>(
                    pool, Placement::in_loop, 3s);
            }),
            std::thread([&] {
                seen[3] = resolve_meanwhile<BasicExecutor<PollPoller>>(
                    pool, Placement::beside, 3s);
            })};
        for (std::thread& loop : loops) {
            loop.join();
        }
    }
    CHECK(os::Kernel::now() - began >= 3s);
    for (const Seen& each : seen) {
        CHECK(each.name == "192.0.2.1");
        CHECK(each.elsewhere);
        CHECK(each.rounds > 1);
        CHECK(each.late == 0);
        CHECK(each.in_vain == 0);
    }
}

TEMPLATE_TEST_CASE("What a callback with a result throws leaves run(), which goes on with the next",
                   "", POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    Offload pool({1, 10});
    int came = 0;
    for (int n = 0; n < 3; ++n) {
        REQUIRE(pool.submit(
            executor.controller(), [n] { return n; },
            [&came](Tested& self, Outcome<int> outcome) {
                ++came;
                if (outcome.value() == 0) {
                    throw std::runtime_error("not this one");
                }
                if (outcome.value() == 2) {
                    self.shutdown();
                }
            }));
    }
    CHECK_THROWS_WITH(executor.run(), "not this one");
    CHECK(came == 1);
    CHECK(executor.run().clean);
    CHECK(came == 3);
    CHECK(pool.undeliverable() == 0);
}

namespace {

/// Throws when it is moved for the n-th time.
struct Brittle {
    explicit Brittle(int moves) : left(moves) {}
    Brittle(Brittle&& other) : left(other.left - 1) { // NOLINT: that it throws is what it is for
        if (left < 0) {
            throw std::runtime_error("broken");
        }
    }
    Brittle& operator=(Brittle&& other) { // NOLINT
        left = Brittle(std::move(other)).left;
        return *this;
    }
    int left;

    int operator()() const { return 7; }
};

} // namespace

TEMPLATE_TEST_CASE("What moving a result throws, or what wraps it, comes back in its stead", "",
                   POLLERS) {
    Offload pool({1, 20});

    SECTION("a result on its way to an executor, wherever it breaks") {
        using Tested = BasicExecutor<TestType>;
        Tested executor(some_placement());
        int whole = 0;
        int broken = 0;
        for (int moves = 0; moves < 12; ++moves) {
            REQUIRE(pool.submit(
                executor.controller(), [moves] { return Brittle(moves); },
                [&](Tested&, Outcome<Brittle>&& outcome) {
                    whole += outcome ? 1 : 0;
                    broken += !outcome && told_by(outcome) == "broken" ? 1 : 0;
                }));
        }
        REQUIRE(until(executor, [&] { return whole + broken == 12; }));
        CHECK(whole > 0);
        CHECK(broken > 0);
    }
    SECTION("a result on its way to a service, wherever it breaks") {
        Runtime<Notes<Brittle>, TestType> runtime(Notes<Brittle>{});
        for (int moves = 0; moves < 4; ++moves) { // as few as break before the command is sent
            REQUIRE(pool.submit(runtime.controller(), [moves] { return Brittle(moves); }));
        }
        REQUIRE(until(runtime, [&] { return runtime.service().outcomes.size() == 4; }));
        for (auto& outcome : runtime.service().outcomes) {
            REQUIRE_FALSE(outcome);
            CHECK(told_by(outcome) == "broken");
        }
    }
    SECTION("what wraps") {
        Runtime<Notes<int>, TestType> runtime(Notes<int>{});
        REQUIRE(pool.submit(
            runtime.controller(), [] { return 1; },
            [](Outcome<int>&& outcome) {
                if (outcome) {
                    throw std::runtime_error("cannot wrap this");
                }
                return std::move(outcome);
            }));
        REQUIRE(until(runtime, [&] { return runtime.service().outcomes.size() == 1; }));
        CHECK(told_by(runtime.service().outcomes[0]) == "cannot wrap this");
        CHECK(pool.undeliverable() == 0);

        REQUIRE(pool.submit(runtime.controller(), [] { return 1; },
                            [](Outcome<int>&&) -> Outcome<int> { throw 1; }));
        CHECK(pool.shutdown(1h).running == 0);
        CHECK(pool.undeliverable() == 1); // and nothing else came of it
    }
}

TEST_CASE("Work whose move throws goes to who submits it, and the pool goes on") {
    Runtime<Notes<int>> runtime(Notes<int>{});
    Offload pool({1, 10});
    int refused = 0;
    int accepted = 0;
    for (int moves = 0; moves < 10; ++moves) {
        try {
            accepted += pool.submit(runtime.controller(), Brittle(moves)) ? 1 : 0;
        } catch (const std::runtime_error&) {
            ++refused;
        }
    }
    CHECK(refused > 0);
    CHECK(accepted > 0);
    REQUIRE(until(runtime, [&] {
        return runtime.service().outcomes.size() == static_cast<std::size_t>(accepted);
    }));
    for (auto& outcome : runtime.service().outcomes) {
        CHECK(outcome.value() == 7);
    }
    CHECK(pool.shutdown(1h).given_back.empty());
}

TEST_CASE("A pool may be shut down twice, by two threads at once, and by a job of its own") {
    Runtime<Notes<int>> runtime(Notes<int>{});
    auto& outcomes = runtime.service().outcomes;
    Gate gate;
    Offload pool({1, 100});
    const auto held = std::make_shared<int>(0);

    SECTION("by two threads at once: each job is given back to one of them") {
        for (int n = 0; n < 50; ++n) {
            REQUIRE(pool.submit(runtime.controller(), [&gate, n, held] {
                gate.pass();
                return n;
            }));
        }
        gate.await(1);
        Offload::Rest other;
        std::thread thread([&] { other = pool.shutdown(Duration::zero()); });
        Offload::Rest rest = pool.shutdown(Duration::zero());
        thread.join();
        CHECK(rest.given_back.size() + other.given_back.size() == 49);
        CHECK(pool.shutdown(Duration::zero()).given_back.empty());
        CHECK(pool.shutdown(Duration::zero()).running == 1);
        gate.open();
        CHECK(pool.shutdown(1h).running == 0);
        for (auto& job : rest.given_back) {
            job();
        }
        for (auto& job : other.given_back) {
            job();
        }
        REQUIRE(until(runtime, [&] { return outcomes.size() == 50; }));
    }
    SECTION("by a job of its own, with nothing to wait for") {
        std::atomic<std::size_t> running{0};
        std::atomic<std::size_t> given_back{0};
        REQUIRE(pool.submit(runtime.controller(), [&] {
            gate.pass();
            const Offload::Rest rest = pool.shutdown(Duration::zero());
            running = rest.running;
            given_back = rest.given_back.size();
            return 1;
        }));
        REQUIRE(pool.submit(runtime.controller(), [held] { return 2; }));
        gate.open();
        REQUIRE(until(runtime, [&] { return outcomes.size() == 1; }));
        CHECK(running == 1);
        CHECK(given_back == 1);
        CHECK(outcomes[0].value() == 1);
        CHECK(pool.submit(runtime.controller(), [] { return 3; }).closed());
        CHECK(pool.shutdown(1h).running == 0);
    }
    CHECK(held.use_count() == 1);
}

TEST_CASE("A full queue says so and gives the work back, as does a pool that is shut down") {
    Runtime<Notes<int>> runtime(Notes<int>{});
    Gate gate;
    Offload pool({1, 2});
    const auto job = [&gate](int number) {
        return [&gate, number, only_moved = std::make_unique<int>(number)] {
            gate.pass();
            return number + *only_moved - *only_moved;
        };
    };
    REQUIRE(pool.submit(runtime.controller(), job(0)));
    gate.await(1); // it is being run; two may wait
    REQUIRE(pool.submit(runtime.controller(), job(1)));
    REQUIRE(pool.submit(runtime.controller(), job(2)));
    auto refused = pool.submit(runtime.controller(), job(3));
    CHECK(refused.full());
    auto back = refused.take();
    REQUIRE(back.has_value());
    gate.open();
    CHECK((*back)() == 3);

    const Offload::Rest rest = pool.shutdown(1h);
    CHECK(rest.given_back.empty());
    CHECK(rest.running == 0);
    REQUIRE(until(runtime, [&] { return runtime.service().outcomes.size() == 3; }));
    auto closed = pool.submit(runtime.controller(), job(4));
    CHECK(closed.closed());
    CHECK(closed.take().has_value());
}

TEST_CASE("A shutdown with work in flight finishes and delivers it, or gives it back in time") {
    Runtime<Notes<int>> runtime(Notes<int>{});
    auto& outcomes = runtime.service().outcomes;
    Gate gate;
    std::optional<Offload> pool(std::in_place, OffloadOptions{1, 10});
    const auto destroyed = std::make_shared<int>(0);
    for (int n = 0; n < 4; ++n) {
        REQUIRE(pool->submit(runtime.controller(), [&gate, n, destroyed] {
            gate.pass();
            return n;
        }));
    }
    gate.await(1);

    SECTION("in time: all of it is delivered") {
        gate.open();
        const Offload::Rest rest = pool->shutdown(1h);
        CHECK(rest.given_back.empty());
        CHECK(rest.running == 0);
    }
    SECTION("too late: what has not begun is given back, and can be run by whoever has it") {
        Offload::Rest rest = pool->shutdown(2ms);
        CHECK(rest.running == 1);
        REQUIRE(rest.given_back.size() == 3);
        gate.open();
        for (auto& job : rest.given_back) {
            job();
        }
    }
    SECTION("not at all: what was begun is delivered, the rest is destroyed") {
        gate.open();
        pool.reset();
        while (destroyed.use_count() != 1) {
            os::Kernel::sleep(100us);
        }
        REQUIRE(until(runtime, [&] { return !outcomes.empty(); }));
        return;
    }
    REQUIRE(until(runtime, [&] { return outcomes.size() == 4; }));
    std::set<int> values;
    for (auto& outcome : outcomes) {
        values.insert(outcome.value());
    }
    CHECK(values == std::set<int>{0, 1, 2, 3});
    pool.reset();
    CHECK(destroyed.use_count() == 1);
}

TEST_CASE("Results for a loop that has ended are counted and destroyed, and hold up nobody") {
    const auto held = std::make_shared<int>(0);
    Gate gate;
    Offload pool({2, 10});
    {
        Executor executor;
        for (int n = 0; n < 5; ++n) {
            REQUIRE(pool.submit(
                executor.controller(),
                [&gate] {
                    gate.pass();
                    return 1;
                },
                [held](Executor&, Outcome<int>) { ++*held; }));
        }
        executor.shutdown();
        executor.run();
    }
    gate.open();
    const Offload::Rest rest = pool.shutdown(1h);
    CHECK(rest.running == 0);
    CHECK(pool.undeliverable() == 5);
    CHECK(*held == 0);
    CHECK(held.use_count() == 1);
}

TEST_CASE("A pool that is destroyed waits for no loop that has stopped taking results") {
    Options options;
    options.command_queue = 1;
    Runtime<Notes<int>> runtime(Notes<int>{}, options);
    {
        Offload pool({2, 10});
        for (int n = 0; n < 6; ++n) {
            REQUIRE(pool.submit(runtime.controller(), [] { return 1; }));
        }
    }
    runtime.turn(Duration::zero());
    CHECK(runtime.service().outcomes.size() <= 1);
}

TEST_CASE("A pool whose threads cannot be had says so, and accepts nothing") {
    pthread_attr_t before;
    pthread_attr_t greedy;
    REQUIRE(::pthread_getattr_default_np(&before) == 0);
    REQUIRE(::pthread_attr_init(&greedy) == 0);
    REQUIRE(::pthread_attr_setstacksize(&greedy, std::size_t{1} << 46) == 0);
    REQUIRE(::pthread_setattr_default_np(&greedy) == 0);
    std::error_code error;
    Offload pool({2, 10}, error);
    CHECK_THROWS_AS(Offload(OffloadOptions{1, 1}), std::system_error);
    ::pthread_setattr_default_np(&before);
    ::pthread_attr_destroy(&greedy);
    ::pthread_attr_destroy(&before);
    CHECK(error == std::errc::resource_unavailable_try_again);
    Runtime<Notes<int>> runtime(Notes<int>{});
    CHECK(pool.submit(runtime.controller(), [] { return 1; }).closed());
    CHECK(pool.shutdown(1h).given_back.empty());
}

TEST_CASE("A forked child may destroy its copy of a pool, which goes on for its parent") {
    Runtime<Notes<int>> runtime(Notes<int>{});
    std::optional<Offload> pool(std::in_place, OffloadOptions{1, 10});
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        pool.reset();
        ::_exit(0);
    }
    int status = -1;
    REQUIRE(test::calmly([&] { return ::waitpid(child, &status, 0); }) == child);
    CHECK(status == 0);
    REQUIRE(pool->submit(runtime.controller(), [] { return 1; }));
    CHECK(until(runtime, [&] { return runtime.service().outcomes.size() == 1; }));
}

TEST_CASE("A child that is forked while threads are at the queue may destroy its copy") {
    Runtime<Notes<int>> runtime(Notes<int>{});
    std::optional<Offload> pool(std::in_place, OffloadOptions{2, 100});
    std::atomic<bool> over{false};
    std::thread submitter([&] {
        while (!over) {
            static_cast<void>(pool->submit(runtime.controller(), [] { return 1; }));
        }
    });
    int clean = 0;
    for (int n = 0; n < 20; ++n) {
        const pid_t child = ::fork();
        if (child == 0) {
            pool.reset();
            ::_exit(0);
        }
        int status = -1;
        clean += child > 0 &&
                         test::calmly([&] { return ::waitpid(child, &status, 0); }) == child &&
                         status == 0
                     ? 1
                     : 0;
        runtime.turn(Duration::zero());
    }
    over = true;
    submitter.join();
    CHECK(clean == 20);
    CHECK(pool->submit(runtime.controller(), [] { return 2; }).closed() == false);
    pool.reset();
    CHECK(until(runtime, [&] { return !runtime.service().outcomes.empty(); }));
}
