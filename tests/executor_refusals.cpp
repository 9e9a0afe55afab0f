// SPDX-License-Identifier: Apache-2.0
//
// What an executor says to what cannot be done, and how it bears a system that fails it.
#include <reactor/executor.hpp>

#include "catch.hpp"
#include "planned_kernel.hpp"
#include "scripted.hpp"

#include <reactor/poller/epoll.hpp>
#include <reactor/poller/poll.hpp>

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <unistd.h>
#include <vector>

namespace {

using namespace reactor;
using namespace std::chrono_literals;

using PlannedEpoll = BasicEpollPoller<PlannedKernel>;

struct Pair {
    Pair() {
        int ends[2] = {-1, -1};
        REQUIRE(os::Kernel::stream_pair(ends[0], ends[1]).ok());
        near.reset(ends[0]);
        far.reset(ends[1]);
    }
    os::Fd near;
    os::Fd far;
};

/// A poller of which the first one that was made gives up in its second wait, or does not.
template <bool first_gives_up>
struct Desperate : PollPoller {
    Desperate() : number(++made) {}
    PollResult wait(Duration timeout, std::size_t most) {
        if ((number == 1) == first_gives_up && ++waits == 2) {
            throw std::runtime_error("no more");
        }
        return PollPoller::wait(timeout, most);
    }
    static inline int made = 0;
    int number;
    int waits = 0;
};
/// The executor's own loop is made first, then the one beside it.
using DesperateBeside = Desperate<false>;

/// A poller whose second wait finds nothing but an error; of two, the one beside.
struct Failing : PollPoller {
    Failing() : number(++made) {}
    PollResult wait(Duration timeout, std::size_t most) {
        if (number == 2 && waits.fetch_add(1) == 1) {
            return {0, std::make_error_code(std::errc::not_enough_memory)};
        }
        return PollPoller::wait(timeout, most);
    }
    static inline std::atomic<int> made{0};
    static inline std::atomic<int> waits{0};
    int number;
};

} // namespace

TEST_CASE("an executor runs and turns with its refusals as values") {
    Executor executor;
    std::error_code error;
    int runs = 0;
    std::error_code within;
    REQUIRE(executor.await_after(0s, [&](Executor& inside) {
        ++runs;
        inside.turn(0s, within);
    }));
    while (runs == 0) {
        REQUIRE(executor.turn(1ms, error));
        REQUIRE_FALSE(error);
    }
    CHECK(within == std::errc::resource_deadlock_would_occur);
    REQUIRE(executor.await_after(0s, [&](Executor& inside) { inside.shutdown(); }));
    CHECK(executor.run(error).clean);
    CHECK_FALSE(error);
    CHECK_FALSE(executor.turn(0s, error));
    CHECK_FALSE(error);
    CHECK(executor.await_after(1s, [](Executor&) {}).error == std::errc::operation_canceled);
    CHECK_FALSE(executor.turn(0s));
}

TEST_CASE("a run that is refused within a callback leaves what is awaited alone") {
    Executor executor;
    std::error_code within;
    int runs = 0;
    REQUIRE(executor.await_after(0s, [&](Executor& inside) { inside.run(within); }));
    REQUIRE(executor.await_after(2ms, [&](Executor& inside) {
        ++runs;
        inside.shutdown();
    }));
    executor.run();
    CHECK(within == std::errc::resource_deadlock_would_occur);
    CHECK(runs == 1);
}

TEST_CASE("an executor shows at its descriptor that there is something to do") {
    Executor executor;
    Pair pair;
    int runs = 0;
    REQUIRE(executor.await_once(readable(pair.near.get()),
                                [&](Executor&, Readiness) { ++runs; }));
    executor.turn(0s);
    CHECK(executor.until_next() > Duration::zero());
    pollfd shown{executor.fd(), POLLIN, 0};
    CHECK(::poll(&shown, 1, 0) == 0);
    REQUIRE(::write(pair.far.get(), "x", 1) == 1);
    CHECK(::poll(&shown, 1, 10'000) == 1);
    executor.turn(0s);
    CHECK(runs == 1);
}

TEST_CASE("an executor's time is the clock's outside of a callback, and the turn's inside") {
    Executor executor;
    const Timestamp before = os::Kernel::now();
    CHECK(executor.now() >= before);
    Timestamp first;
    Timestamp second;
    REQUIRE(executor.await_after(0s, [&](Executor& inside) {
        first = inside.now();
        os::Kernel::sleep(1ms);
        second = inside.now();
        inside.shutdown();
    }));
    executor.run();
    CHECK(first >= before);
    CHECK(first == second);
    CHECK(executor.now() > second);
}

TEST_CASE("what is no descriptor, or is owned already, is not adopted") {
    Executor executor;
    Pair pair;
    const int number = pair.near.get();
    CHECK(executor.adopt(os::Fd()) == -1);
    CHECK(executor.adopt(std::move(pair.near)) == number);
    CHECK(executor.adopt(os::Fd(number)) == -1); // and closed, as it was promised
    CHECK_FALSE(executor.forget(999'999));
    CHECK_FALSE(executor.close(999'999));
    os::Fd back = executor.forget(number);
    CHECK(back.get() == number);
    static_cast<void>(back.release()); // closed above
}

TEST_CASE("each half of a descriptor is awaited by one event at most") {
    Executor executor;
    Pair pair;
    const auto nothing = [](Executor&, Readiness) {};
    REQUIRE(executor.await_once(writable(pair.near.get()), nothing));
    CHECK(executor.await_once(writable(pair.near.get()), nothing).error ==
          std::errc::device_or_resource_busy);
    CHECK(executor.await_once(ready(pair.near.get()), nothing).error ==
          std::errc::device_or_resource_busy);
    REQUIRE(executor.await_once(readable(pair.near.get()), nothing));
    CHECK(executor.interest(pair.near.get()) == Interest{true, true});
}

TEST_CASE("a timer for which there is no room is refused at once, or when it is asked for") {
    Options options;
    options.timers = 1;
    Executor executor(Placement::in_loop, options);
    std::error_code inside_error;
    bool other_is_awaited = true;
    int runs = 0;
    REQUIRE(executor.await_after(1ms, [&](Executor& inside) {
        ++runs;
        const auto first = inside.await_after(1ms, [&](Executor& last) {
            ++runs;
            last.shutdown();
        });
        const auto second = inside.await_after(1ms, [&](Executor&) { runs += 100; });
        inside_error = first.error ? first.error : second.error;
        other_is_awaited = inside.awaits(second.id);
        if (first.error) {
            inside.shutdown();
        }
    }));
    executor.run();
    CHECK(inside_error == std::errc::no_buffer_space);
    CHECK_FALSE(other_is_awaited);
    CHECK(runs <= 2);
}

TEST_CASE("an executor that cannot be made says why, whatever it lacked") {
    const Plans plans;
    std::error_code error;
    SECTION("its own poller") {
        PlannedKernel::creating.fail(EMFILE, 0, 1);
        const BasicExecutor<PlannedEpoll> executor(Placement::in_loop, Options{}, error);
        CHECK(error == std::errc::too_many_files_open);
    }
    SECTION("the poller of the loop beside it") {
        PlannedKernel::creating.fail(EMFILE, 1, 1);
        const BasicExecutor<PlannedEpoll> executor(Placement::beside, Options{}, error);
        CHECK(error == std::errc::too_many_files_open);
    }
    SECTION("its own waker") {
        PlannedKernel::bell_making.fail(EMFILE, 0, 1);
        const BasicExecutor<PlannedEpoll> executor(Placement::beside, Options{}, error);
        CHECK(error == std::errc::too_many_files_open);
    }
    SECTION("the waker of the loop beside it") {
        PlannedKernel::bell_making.fail(EMFILE, 1, 1);
        const BasicExecutor<PlannedEpoll> executor(Placement::beside, Options{}, error);
        CHECK(error == std::errc::too_many_files_open);
    }
    SECTION("nothing") {
        const BasicExecutor<PlannedEpoll> executor(Placement::beside, Options{}, error);
        CHECK_FALSE(error);
    }
    SECTION("the throwing form") {
        PlannedKernel::creating.fail(EMFILE, 0, 1);
        CHECK_THROWS_AS(BasicExecutor<PlannedEpoll>(), std::system_error);
    }
}

TEST_CASE("an executor may have a poller that cannot fail to be made") {
    scripted::noted.clear();
    BasicExecutor<scripted::ScriptedPoller> executor;
    int runs = 0;
    REQUIRE(executor.await_after(5s, [&](auto& inside) {
        ++runs;
        inside.shutdown();
    }));
    executor.run();
    CHECK(runs == 1);
}

TEST_CASE("what the loop beside an executor throws leaves run()") {
    DesperateBeside::made = 0;
    BasicExecutor<DesperateBeside> executor(Placement::beside);
    REQUIRE(DesperateBeside::made == 2);
    Pair pair;
    const auto never = [](BasicExecutor<DesperateBeside>&, Readiness) {};
    REQUIRE(executor.await_keep(readable(pair.near.get()), never));
    CHECK_THROWS_AS(executor.run(), std::runtime_error);
    CHECK(executor.await_once(writable(pair.near.get()), never).error ==
          std::errc::operation_canceled);
    CHECK(executor.run().clean); // once
}

TEST_CASE("what its own loop throws leaves run(), and it can be run again") {
    using Poller = Desperate<true>;
    Poller::made = 0;
    BasicExecutor<Poller> executor;
    int runs = 0;
    REQUIRE(executor.await_after(1ms, [&](BasicExecutor<Poller>& inside) {
        ++runs;
        inside.shutdown();
    }));
    CHECK_THROWS_AS(executor.run(), std::runtime_error);
    CHECK(runs == 0);
    executor.run();
    CHECK(runs == 1);
}

TEST_CASE("a wait that fails in the loop beside an executor ends nothing") {
    Failing::made = 0;
    Failing::waits = 0;
    BasicExecutor<Failing> executor(Placement::beside);
    Pair pair;
    int runs = 0;
    REQUIRE(executor.await_keep(readable(pair.near.get()),
                                [&](BasicExecutor<Failing>& inside, Readiness) {
                                    char byte = 0;
                                    runs += ::read(pair.near.get(), &byte, 1) == 1 ? 1 : 0;
                                    if (runs == 1) {
                                        runs += ::write(pair.far.get(), "x", 1) == 1 ? 0 : 100;
                                    } else if (Failing::waits > 2) {
                                        inside.shutdown();
                                    }
                                }));
    REQUIRE(::write(pair.far.get(), "xyz", 3) == 3);
    CHECK(executor.run().clean);
    CHECK(runs >= 2);
    CHECK(Failing::waits > 2);
}

TEST_CASE("orders for which the actions have no room are given in later turns, none is lost") {
    Options options;
    options.action_queue = 1;
    options.timers = GENERATE(std::size_t{2}, std::size_t{1}); // for the next try, or not
    Executor executor(Placement::in_loop, options);
    REQUIRE(executor.await_after(1h, [](Executor&) {})); // has one of them
    constexpr std::size_t count = 8;
    std::vector<Pair> pairs(count);
    std::vector<int> runs(count);
    for (std::size_t n = 0; n < count; ++n) {
        REQUIRE(::write(pairs[n].far.get(), "x", 1) == 1);
        REQUIRE(executor.await_once(readable(pairs[n].near.get()), [&, n](Executor& inside,
                                                                          Readiness told) {
            runs[n] += told.read ? 1 : 100;
            if (std::count(runs.begin(), runs.end(), 1) == static_cast<std::ptrdiff_t>(count)) {
                inside.shutdown();
            }
        }));
    }
    executor.run();
    CHECK(runs == std::vector<int>(count, 1));
}

TEST_CASE("a run ends when a callback says so, even if the actions have no room for that") {
    Options options;
    options.action_queue = 1;
    options.timers = 1;
    Executor executor(Placement::in_loop, options);
    Pair pair;
    std::vector<std::error_code> causes;
    REQUIRE(executor.await_after(1h, [](Executor&) {})); // has the one timer
    REQUIRE(executor.await_after(1h, [&](Executor& inside) {
        causes.push_back(inside.cause());
        static_cast<void>(inside.await_once(readable(pair.near.get()),
                                            [](Executor&, Readiness) {})); // fills the queue
    }));
    REQUIRE(executor.await_after(1h, [&](Executor& inside) {
        causes.push_back(inside.cause());
        inside.shutdown();
    }));
    CHECK(executor.run().clean);
    CHECK(causes == std::vector<std::error_code>(
                        2, std::make_error_code(std::errc::no_buffer_space)));
}

TEST_CASE("a descriptor that was closed behind the executor's back does not make it spin or deaf") {
    BasicExecutor<PlannedEpoll> executor;
    const Plans plans;
    Pair gone;
    Pair stays;
    int runs = 0;
    const int number = ::dup(gone.near.get());
    const auto ghost =
        executor.await_keep(readable(number), [](BasicExecutor<PlannedEpoll>&, Readiness) {});
    REQUIRE(ghost);
    REQUIRE(executor.await_keep(readable(stays.near.get()),
                                [&](BasicExecutor<PlannedEpoll>&, Readiness) {
                                    char byte = 0;
                                    runs += ::read(stays.near.get(), &byte, 1) == 1 ? 1 : 0;
                                }));
    executor.turn(0s);
    ::close(number);
    executor.cancel(ghost);
    REQUIRE(::write(gone.far.get(), "x", 1) == 1); // the registration is still there
    for (int turns = 0; turns < 6; ++turns) {
        executor.turn(0s);
    }
    CHECK(PlannedKernel::creating.calls == 1); // afresh
    REQUIRE(::write(stays.far.get(), "x", 1) == 1);
    executor.turn(0s);
    executor.turn(0s);
    CHECK(runs == 1);
    CHECK(executor.until_next() > Duration::zero());
}
