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

#include <stdexcept>
#include <unistd.h>

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

/// A poller that gives up in its second wait.
struct Desperate : PollPoller {
    using PollPoller::PollPoller;
    PollResult wait(Duration timeout, std::size_t most) {
        if (++waits == 2) {
            throw std::runtime_error("no more");
        }
        return PollPoller::wait(timeout, most);
    }
    int waits = 0;
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
    BasicExecutor<Desperate> executor(Placement::beside);
    Pair pair;
    REQUIRE(executor.await_keep(readable(pair.near.get()),
                                [](BasicExecutor<Desperate>&, Readiness) {}));
    CHECK_THROWS_AS(executor.run(), std::runtime_error);
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
