// SPDX-License-Identifier: Apache-2.0
//
// What every Poller promises (poller.hpp), tried on each of them alone: no runtime stands here.
#include "catch.hpp"
#include "planned_kernel.hpp"
#include "polling_parts.hpp"

#include <reactor/poller/epoll.hpp>
#include <reactor/poller/poll.hpp>

#include <sys/inotify.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include <atomic>
#include <climits>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace reactor;
using namespace std::chrono_literals;

namespace {

using PlannedEpollPoller = BasicEpollPoller<PlannedKernel>;
using PlannedPollPoller = BasicPollPoller<PlannedKernel>;

constexpr Interest reading{true, false};
constexpr Interest writing{false, true};
constexpr Interest both{true, true};

ResourceId id_of(unsigned number) { return ResourceId::of(number, 1); }
unsigned number_of(ResourceId id) { return id.slot(); }

/// A poller with its waker, as a runtime has it.
template <class P>
struct Rig {
    P poller;
    Fd waker{os::Kernel::event_fd().fd()};

    Rig() {
        REQUIRE(waker);
        REQUIRE(!poller.watch_waker(waker.get()));
    }

    void watch(const Fd& fd, unsigned number, Interest interest) {
        REQUIRE(!poller.watch(fd.get(), id_of(number), interest));
    }
    /// The reports of one wait by number; those of nobody are left out.
    std::map<unsigned, Readiness> wait(Duration timeout = 0ns, std::size_t most = 64) {
        const PollResult result = poller.wait(timeout, most);
        REQUIRE(!result.error);
        return reports(result);
    }
    std::map<unsigned, Readiness> reports(const PollResult& result) {
        std::map<unsigned, Readiness> found;
        for (std::size_t n = 0; n < result.count; ++n) {
            const PollEvent event = poller.event(n);
            if (event.id) {
                REQUIRE(found.emplace(number_of(event.id), event.readiness).second);
            }
        }
        return found;
    }
    bool is_quiet() { return wait().empty(); }
};

std::size_t resident_kib() {
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages >> pages;
    return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) / 1024;
}

} // namespace

// -- the wait and its timeout ---------------------------------------------------------------------

TEMPLATE_TEST_CASE("a wait of zero returns at once, with what is ready", "[poller]", EpollPoller,
                   PollPoller) {
    Rig<TestType> rig;
    CHECK(rig.wait(0ns).empty());

    const Pair pipe = pipe_pair();
    rig.watch(pipe.ours, 1, reading);
    CHECK(rig.wait(0ns).empty());

    write_to(pipe.theirs, "x");
    CHECK(rig.wait(0ns) == std::map<unsigned, Readiness>{{1, {true, false, false, false}}});
}

TEMPLATE_TEST_CASE("a wait is never early, however short", "[poller]", EpollPoller, PollPoller) {
    Rig<TestType> rig;
    const Pair pipe = pipe_pair();
    rig.watch(pipe.ours, 1, reading);
    for (const Duration timeout : std::initializer_list<Duration>{
             1ns, 50us, 999'999ns, 1ms, 1500us, 9'999'999ns, 10ms, 10'000'001ns, 25ms}) {
        const test::Calm calm; // a signal may end a wait
        const Timestamp begin = rig.poller.now();
        CHECK(rig.wait(timeout).empty());
        CHECK(rig.poller.now() - begin >= timeout);
    }
}

TEST_CASE("a timeout that epoll can only take in milliseconds is rounded up", "[poller]") {
    const Plans plans;
    Rig<PlannedEpollPoller> rig;
    rig.wait(50us);
    rig.wait(9'999'999ns);
    CHECK(PlannedKernel::precise.calls == 2);
    CHECK(PlannedKernel::timeout == 9'999'999ns);
    rig.wait(10'000'001ns);
    CHECK(PlannedKernel::milliseconds == 11);
    CHECK(PlannedKernel::precise.calls == 2);
    CHECK(PlannedKernel::waiting.calls == 1);
}

TEST_CASE("a kernel without the precise epoll wait is asked for it once, and then rounds up",
          "[poller]") {
    const int refusal = GENERATE(ENOSYS, EPERM); // a seccomp filter that is older than the call
    const Plans plans;
    PlannedKernel::precise.fail(refusal);
    Rig<PlannedEpollPoller> rig;
    for (const Duration timeout : std::initializer_list<Duration>{1ns, 50us, 1'000'001ns}) {
        const test::Calm calm; // a signal may end a wait
        const Timestamp begin = rig.poller.now();
        const PollResult result = rig.poller.wait(timeout, 8);
        CHECK(!result.error);
        CHECK(rig.poller.now() - begin >= timeout);
    }
    CHECK(PlannedKernel::milliseconds == 2);
    CHECK(PlannedKernel::precise.calls == 1);
    CHECK(PlannedKernel::waiting.calls == 3);
}

TEMPLATE_TEST_CASE("extreme timeouts saturate", "[poller]", PlannedEpollPoller, PlannedPollPoller) {
    const Plans plans;
    Rig<TestType> rig;
    const Pair pipe = full_pipe();
    rig.watch(pipe.ours, 1, reading);
    const auto longest = std::chrono::milliseconds{INT_MAX};
    for (const Duration timeout : std::initializer_list<Duration>{
             Duration::max(), Duration::max() - 1ns, Duration(longest) - 1ms, longest,
             Duration(longest) + 1ns, Duration(longest) + 1ms, std::chrono::hours{24 * 30},
             0ns, -1ns, -1ms, -Duration(longest) - 1ms, Duration::min()}) {
        CHECK(rig.wait(timeout).count(1) == 1);
        if (std::is_same_v<TestType, PlannedEpollPoller>) {
            const int asked = PlannedKernel::milliseconds;
            CHECK((timeout == Duration::max() ? asked == -1 : asked >= 0));
            CHECK((timeout < Duration(longest) || asked == -1 || asked == INT_MAX));
        } else {
            CHECK(PlannedKernel::timeout == std::max(timeout, 0ns));
        }
    }
    CHECK(read_from(pipe.ours, 8) == 1);
    // Nothing is ready now: what has passed does not wait.
    for (const Duration timeout : {Duration::min(), Duration{-1}, Duration{0}}) {
        CHECK(rig.wait(timeout).empty());
    }
}

TEMPLATE_TEST_CASE("an endless wait lasts until the waker is rung", "[poller]", EpollPoller,
                   PollPoller) {
    Rig<TestType> rig;
    std::atomic<bool> rung{false};
    std::thread ringer([&] {
        std::this_thread::sleep_for(5ms);
        rung = true;
        os::Kernel::ring(rig.waker.get());
    });
    const test::Calm calm; // a signal may end a wait
    const auto found = rig.wait(Duration::max());
    const bool was_rung = rung;
    ringer.join();
    CHECK(was_rung);
    CHECK(found.empty());
}

TEMPLATE_TEST_CASE("a signal may end a wait early, but nothing else does, and it is no error",
                   "[poller]", EpollPoller, PollPoller) {
    Rig<TestType> rig;
    const Pair pipe = pipe_pair();
    rig.watch(pipe.ours, 1, reading);
    const test::Calm calm; // but for the storm that it counts
    const SignalStorm storm(300us);
    const int at_first = SignalStorm::count();
    for (const Duration timeout : std::initializer_list<Duration>{100us, 2ms, 15ms}) {
        for (int n = 0; n < 5; ++n) {
            const int before = SignalStorm::count();
            const Timestamp begin = rig.poller.now();
            const PollResult result = rig.poller.wait(timeout, 8);
            const bool early = rig.poller.now() - begin < timeout;
            const bool interrupted = SignalStorm::count() != before;
            CHECK(!result.error);
            CHECK(result.count == 0);
            CHECK((!early || interrupted));
        }
    }
    while (SignalStorm::count() == at_first) {
        rig.wait(1ms);
    }
}

TEMPLATE_TEST_CASE("a wait that fails is a value, and the next one works", "[poller]",
                   PlannedEpollPoller, PlannedPollPoller) {
    const Plans plans;
    Rig<TestType> rig;
    const Pair pipe = full_pipe();
    rig.watch(pipe.ours, 1, reading);
    CHECK(rig.wait().size() == 1);
    for (const int error : {EBADF, EFAULT, ENOMEM, EINVAL}) {
        for (const Duration timeout : std::initializer_list<Duration>{0ns, 1us, 1h}) {
            PlannedKernel::fail_waits(error, 1);
            const PollResult result = rig.poller.wait(timeout, 8);
            CHECK(result.error == std::error_code(error, std::system_category()));
            CHECK(result.count == 0);
            PlannedKernel::heal_waits();
        }
    }
    CHECK(rig.wait(Duration::max()).count(1) == 1);
}

// -- reports --------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("an id comes back with all its 64 bits", "[poller]", EpollPoller, PollPoller) {
    Rig<TestType> rig;
    const Pair first = full_pipe();
    const Pair second = full_pipe();
    const auto large = ResourceId::from_value(~std::uint64_t{0});
    const auto odd = ResourceId::of(3, (std::uint64_t{1} << 32) + 5);
    REQUIRE(!rig.poller.watch(first.ours.get(), large, reading));
    REQUIRE(!rig.poller.watch(second.ours.get(), odd, reading));
    const PollResult result = rig.poller.wait(0ns, 8);
    REQUIRE(result.count == 2);
    const std::set<ResourceId> ids{rig.poller.event(0).id, rig.poller.event(1).id};
    CHECK(ids == std::set<ResourceId>{large, odd});
}

TEMPLATE_TEST_CASE("what is more than a batch comes with the next waits, all in turn", "[poller]",
                   EpollPoller, PollPoller) {
    Rig<TestType> rig;
    std::vector<Pair> pipes;
    for (unsigned n = 0; n < 50; ++n) {
        pipes.push_back(full_pipe());
        rig.watch(pipes.back().ours, n, reading);
    }
    for (int round = 0; round < 3; ++round) {
        std::map<unsigned, int> served;
        for (int wait = 0; wait < 5; ++wait) {
            const auto found = rig.wait(0ns, 10);
            CHECK(found.size() == 10);
            for (const auto& report : found) {
                ++served[report.first];
            }
        }
        CHECK(served.size() == 50);
    }
}

TEMPLATE_TEST_CASE("a wait gives at most as many reports as it was asked for, and at least one",
                   "[poller]", EpollPoller, PollPoller) {
    Rig<TestType> rig;
    const Fd file = memory_file();
    const Pair pipe = full_pipe();
    const Pair other = full_pipe();
    rig.watch(file, 1, reading);
    rig.watch(pipe.ours, 2, reading);
    rig.watch(other.ours, 3, reading);
    for (const std::size_t most : {0U, 1U, 2U, 3U, 1U}) {
        std::set<unsigned> served;
        for (int wait = 0; wait < 6; ++wait) {
            const PollResult result = rig.poller.wait(0ns, most);
            CHECK(result.count >= 1);
            CHECK(result.count <= std::max<std::size_t>(most, 1));
            for (const auto& report : rig.reports(result)) {
                served.insert(report.first);
            }
        }
        CHECK(served == std::set<unsigned>{1, 2, 3});
    }
}

TEMPLATE_TEST_CASE("what was read in part is reported again", "[poller]", EpollPoller, PollPoller) {
    Rig<TestType> rig;
    const Pair pair = socket_pair();
    rig.watch(pair.ours, 1, reading);
    write_to(pair.theirs, "123456789");
    for (int n = 0; n < 3; ++n) {
        CHECK(rig.wait().count(1) == 1);
        CHECK(read_from(pair.ours, 3) == 3);
    }
    CHECK(rig.is_quiet());
}

TEMPLATE_TEST_CASE("reading and writing are reported as asked for, in one report", "[poller]",
                   EpollPoller, PollPoller) {
    Rig<TestType> rig;
    const Pair pair = socket_pair();
    write_to(pair.theirs, "x");
    rig.watch(pair.ours, 1, both);
    CHECK(rig.wait()[1] == Readiness{true, true, false, false});
    REQUIRE(!rig.poller.set_interest(pair.ours.get(), id_of(1), writing));
    CHECK(rig.wait()[1] == Readiness{false, true, false, false});
    REQUIRE(!rig.poller.set_interest(pair.ours.get(), id_of(1), reading));
    CHECK(rig.wait()[1] == Readiness{true, false, false, false});
}

TEMPLATE_TEST_CASE("a hang-up is reported with what can still be read", "[poller]", EpollPoller,
                   PollPoller) {
    Rig<TestType> rig;
    Pair pair = socket_pair();
    Pair pipe = pipe_pair();
    rig.watch(pair.ours, 1, reading);
    rig.watch(pipe.ours, 2, reading);
    write_to(pair.theirs, "five!");
    write_to(pipe.theirs, "five!");
    pair.theirs.reset();
    pipe.theirs.reset();
    auto found = rig.wait();
    CHECK(found[1] == Readiness{true, false, true, false});
    CHECK(found[2] == Readiness{true, false, true, false});
    CHECK(read_from(pair.ours, 8) == 5);
    CHECK(read_from(pipe.ours, 8) == 5);
    found = rig.wait();
    CHECK(found[1].hangup);
    CHECK(found[2].hangup);
}

TEMPLATE_TEST_CASE("a peer that only stops sending is reported as readable and hung up", "[poller]",
                   EpollPoller, PollPoller) {
    Rig<TestType> rig;
    const Pair pair = socket_pair();
    rig.watch(pair.ours, 1, reading);
    REQUIRE(::shutdown(pair.theirs.get(), SHUT_WR) == 0);
    CHECK(rig.wait()[1] == Readiness{true, false, true, false});
}

TEMPLATE_TEST_CASE("a hang-up cannot be masked, and is silent once it is unwatched", "[poller]",
                   EpollPoller, PollPoller) {
    Rig<TestType> rig;
    Pair pipe = pipe_pair();
    rig.watch(pipe.theirs, 1, writing);
    pipe.ours.reset();
    CHECK(rig.wait()[1].error);
    Pair pair = socket_pair();
    rig.watch(pair.ours, 2, writing);
    pair.theirs.reset();
    CHECK(rig.wait()[2].hangup);

    rig.poller.unwatch(pipe.theirs.get(), id_of(1));
    rig.poller.unwatch(pair.ours.get(), id_of(2));
    const test::Calm calm; // a signal may end a wait
    const Timestamp begin = rig.poller.now();
    CHECK(rig.wait(5ms).empty());
    CHECK(rig.poller.now() - begin >= 5ms);
}

// -- registering ----------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("no report after unwatch, and reports again under a new id", "[poller]",
                   EpollPoller, PollPoller) {
    Rig<TestType> rig;
    const Pair pipe = full_pipe();
    rig.watch(pipe.ours, 1, reading);
    CHECK(rig.wait().count(1) == 1);
    rig.poller.unwatch(pipe.ours.get(), id_of(1));
    CHECK(rig.is_quiet());
    rig.watch(pipe.ours, 2, reading);
    CHECK(rig.wait() == std::map<unsigned, Readiness>{{2, {true, false, false, false}}});
}

TEMPLATE_TEST_CASE("watching a descriptor twice is EEXIST, and does the first one no harm",
                   "[poller]", EpollPoller, PollPoller) {
    Rig<TestType> rig;
    const Pair pipe = full_pipe();
    const Fd file = memory_file();
    rig.watch(pipe.ours, 1, reading);
    rig.watch(file, 2, reading);
    const std::error_code exists(EEXIST, std::system_category());
    CHECK(rig.poller.watch(pipe.ours.get(), id_of(3), both) == exists);
    CHECK(rig.poller.watch(file.get(), id_of(4), both) == exists);
    CHECK(rig.poller.watch(rig.waker.get(), id_of(5), reading) == exists);
    const Readiness readable{true, false, false, false};
    CHECK(rig.wait() == std::map<unsigned, Readiness>{{1, readable}, {2, readable}});
}

TEMPLATE_TEST_CASE("a duplicate beside its original has reports and an end of its own", "[poller]",
                   EpollPoller, PollPoller) {
    Rig<TestType> rig;
    const Pair pipe = full_pipe();
    Fd duplicate(os::Kernel::duplicate(pipe.ours.get()).fd());
    rig.watch(pipe.ours, 1, reading);
    rig.watch(duplicate, 2, reading);
    CHECK(rig.wait().size() == 2);
    rig.poller.unwatch(duplicate.get(), id_of(2));
    duplicate.reset();
    CHECK(rig.wait() == std::map<unsigned, Readiness>{{1, {true, false, false, false}}});
}

TEMPLATE_TEST_CASE("unwatching what is not watched, or twice, does nothing", "[poller]",
                   EpollPoller, PollPoller) {
    Rig<TestType> rig;
    const Pair pipe = full_pipe();
    const Pair other = full_pipe();
    const Fd file = memory_file();
    rig.watch(pipe.ours, 1, reading);
    rig.poller.unwatch(other.ours.get(), id_of(2));
    rig.poller.unwatch(other.ours.get(), id_of(2));
    rig.poller.unwatch(file.get(), id_of(3));
    rig.poller.unwatch(-1, id_of(4));
    rig.poller.unwatch(1'000'000, id_of(5));
    CHECK(rig.wait() == std::map<unsigned, Readiness>{{1, {true, false, false, false}}});
}

TEMPLATE_TEST_CASE("another interest for what is not watched is an error", "[poller]", EpollPoller,
                   PollPoller) {
    Rig<TestType> rig;
    const Pair pipe = full_pipe();
    CHECK(rig.poller.set_interest(pipe.ours.get(), id_of(1), reading).value() == ENOENT);
    CHECK(rig.poller.set_interest(-1, id_of(1), reading));
    CHECK(rig.is_quiet());
}

TEMPLATE_TEST_CASE("what is no descriptor is EBADF, and costs nothing", "[poller]", EpollPoller,
                   PollPoller) {
    Rig<TestType> rig;
    const std::error_code bad(EBADF, std::system_category());
    int closed = -1;
    {
        const Pair pipe = pipe_pair();
        closed = pipe.ours.get();
    }
    CHECK(rig.poller.watch(-1, id_of(1), reading) == bad);
    CHECK(rig.poller.watch(closed, id_of(1), reading) == bad);
    const std::size_t before = resident_kib();
    CHECK(rig.poller.watch(20'000'000, id_of(1), reading) == bad);
    CHECK(resident_kib() < before + 16 * 1024);
    CHECK(rig.is_quiet());

    // The refused one left nothing behind.
    const Pair pipe = full_pipe();
    rig.watch(pipe.ours, 1, reading);
    CHECK(rig.wait().size() == 1);
}

TEMPLATE_TEST_CASE("a registration that the kernel refuses changes nothing", "[poller]",
                   PlannedEpollPoller, PlannedPollPoller) {
    const Plans plans;
    Rig<TestType> rig;
    const Pair first = full_pipe();
    const Pair second = full_pipe();
    rig.watch(first.ours, 1, reading);
    for (const int error : {ENOSPC, ENOMEM, EPERM}) {
        if (std::is_same_v<TestType, PlannedEpollPoller> && error == EPERM) {
            continue; // says that it is always ready
        }
        PlannedKernel::controlling.fail(error, 0, 1);
        PlannedKernel::polling.fail(error, 0, 1);
        CHECK(rig.poller.watch(second.ours.get(), id_of(2), reading).value() == error);
        PlannedKernel::controlling.heal();
        PlannedKernel::polling.heal();
        CHECK(rig.wait() == std::map<unsigned, Readiness>{{1, {true, false, false, false}}});
    }
    rig.watch(second.ours, 2, reading);
    CHECK(rig.wait().size() == 2);
    if (std::is_same_v<TestType, PlannedEpollPoller>) {
        PlannedKernel::controlling.fail(ENOMEM, 0, 1);
        CHECK(rig.poller.set_interest(second.ours.get(), id_of(2), writing).value() == ENOMEM);
        CHECK(rig.wait().size() == 2);
    }
}

TEMPLATE_TEST_CASE("what is ready when it is registered is reported by the next wait", "[poller]",
                   EpollPoller, PollPoller) {
    Rig<TestType> rig;
    const Pair pair = socket_pair();
    write_to(pair.theirs, "x");
    rig.watch(pair.ours, 1, reading);
    CHECK(rig.wait(Duration::max()).count(1) == 1);
    rig.watch(pair.theirs, 2, writing);
    CHECK(rig.wait(Duration::max())[2].write);
}

TEMPLATE_TEST_CASE("many come and go, and the others stay what they are", "[poller]", EpollPoller,
                   PollPoller) {
    Rig<TestType> rig;
    std::vector<Pair> pipes;
    std::set<unsigned> expected;
    for (unsigned n = 0; n < 60; ++n) {
        pipes.push_back(full_pipe());
        rig.watch(pipes.back().ours, n, reading);
        expected.insert(n);
    }
    for (unsigned step = 1; step < 60; step += 7) {
        for (unsigned n = step % 5; n < 60; n += step) {
            if (expected.erase(n) != 0) {
                rig.poller.unwatch(pipes[n].ours.get(), id_of(n));
            } else {
                rig.watch(pipes[n].ours, n, reading);
                expected.insert(n);
            }
        }
        std::set<unsigned> reported;
        for (const auto& report : rig.wait(0ns, 100)) {
            reported.insert(report.first);
        }
        CHECK(reported == expected);
    }
}

TEMPLATE_TEST_CASE("a descriptor closed behind the poller's back harms no other", "[poller]",
                   EpollPoller, PollPoller) {
    Rig<TestType> rig;
    const Pair pipe = full_pipe();
    rig.watch(pipe.ours, 1, reading);
    int closed = -1;
    {
        const Pair gone = full_pipe();
        closed = gone.ours.get();
        rig.watch(gone.ours, 2, reading);
        CHECK(rig.wait().size() == 2);
    }
    CHECK(rig.wait().count(1) == 1);
    rig.poller.unwatch(closed, id_of(2));
    CHECK(rig.wait() == std::map<unsigned, Readiness>{{1, {true, false, false, false}}});
}

TEMPLATE_TEST_CASE("a poller that is moved keeps what it watches", "[poller]", EpollPoller,
                   PollPoller) {
    Rig<TestType> rig;
    const Pair pipe = full_pipe();
    const Fd file = memory_file();
    rig.watch(pipe.ours, 1, reading);
    rig.watch(file, 2, reading);
    rig.poller = TestType(std::move(rig.poller));
    CHECK(rig.wait().size() == 2);
    os::Kernel::ring(rig.waker.get());
    CHECK(rig.wait(Duration::max()).size() == 2);
}

TEST_CASE("an epoll instance that cannot be made is a value, or a throw", "[poller]") {
    const Plans plans;
    for (const int error : {EMFILE, ENFILE, ENOMEM}) {
        PlannedKernel::creating.fail(error, 0, 2);
        std::error_code code;
        PlannedEpollPoller poller(code);
        CHECK(code.value() == error);
        CHECK(poller.watch(0, id_of(1), reading));
        CHECK(poller.wait(0ns, 8).error);
        CHECK_THROWS_AS(PlannedEpollPoller(), std::system_error);
    }
    std::error_code code = std::make_error_code(std::errc::io_error);
    PlannedEpollPoller poller(code);
    CHECK(!code);
    code = std::make_error_code(std::errc::io_error);
    PlannedPollPoller needs_nothing(code);
    CHECK(!code);
}

// -- kinds of descriptors -------------------------------------------------------------------------

TEMPLATE_TEST_CASE("what is always ready is reported by every wait, on every poller", "[poller]",
                   EpollPoller, PollPoller) {
    Rig<TestType> rig;
    const Fd file = memory_file();
    const Fd directory = opened("/", O_RDONLY | O_DIRECTORY);
    const Fd null = opened("/dev/null", O_RDWR);
    const Fd program = opened("/proc/self/exe", O_RDONLY);
    rig.watch(file, 1, reading);
    rig.watch(directory, 2, reading);
    rig.watch(null, 3, both);
    rig.watch(program, 4, both);
    const std::map<unsigned, Readiness> all{{1, {true, false, false, false}},
                                            {2, {true, false, false, false}},
                                            {3, {true, true, false, false}},
                                            {4, {true, true, false, false}}};
    CHECK(rig.wait(Duration::max()) == all);
    CHECK(rig.wait(1h) == all);
    CHECK(rig.wait(0ns) == all);

    REQUIRE(!rig.poller.set_interest(null.get(), id_of(3), writing));
    CHECK(rig.wait(1h)[3] == Readiness{false, true, false, false});
    rig.poller.unwatch(null.get(), id_of(3));
    CHECK(rig.wait(1h).size() == 3);
    rig.watch(null, 5, reading);
    CHECK(rig.wait(1h).count(5) == 1);
    for (const auto& [number, fd] : {std::pair{1U, &file}, {2U, &directory}, {4U, &program},
                                     {5U, &null}}) {
        rig.poller.unwatch(fd->get(), id_of(number));
    }
    const test::Calm calm; // a signal may end a wait
    const Timestamp begin = rig.poller.now();
    CHECK(rig.wait(5ms).empty());
    CHECK(rig.poller.now() - begin >= 5ms);
}

TEMPLATE_TEST_CASE("the always ready and the others share a batch, and none starves", "[poller]",
                   EpollPoller, PollPoller) {
    Rig<TestType> rig;
    std::vector<Fd> files;
    std::vector<Pair> pipes;
    for (unsigned n = 0; n < 8; ++n) {
        files.push_back(memory_file());
        rig.watch(files.back(), n, reading);
        pipes.push_back(full_pipe());
        rig.watch(pipes.back().ours, 100 + n, reading);
    }
    for (int round = 0; round < 3; ++round) {
        std::set<unsigned> served;
        for (int wait = 0; wait < 4; ++wait) {
            const auto found = rig.wait(0ns, 4);
            CHECK(found.size() == 4);
            for (const auto& report : found) {
                served.insert(report.first);
            }
        }
        CHECK(served.size() == 16);
    }
}

TEMPLATE_TEST_CASE("timers, processes, watched directories and random numbers can be watched",
                   "[poller]", EpollPoller, PollPoller) {
    Rig<TestType> rig;
    SECTION("timerfd") {
        const Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
        rig.watch(timer, 1, reading);
        CHECK(rig.is_quiet());
        const itimerspec soon{{}, {0, 1'000'000}};
        REQUIRE(::timerfd_settime(timer.get(), 0, &soon, nullptr) == 0);
        CHECK(test::calmly([&] { return rig.wait(Duration::max()); })[1] ==
              Readiness{true, false, false, false});
        CHECK(read_from(timer, 8) == 8);
        CHECK(rig.is_quiet());
    }
    SECTION("pidfd") {
        const Pair hold = pipe_pair();
        const pid_t child = ::fork();
        if (child == 0) {
            char byte;
            pollfd wanted{hold.ours.get(), POLLIN, 0};
            test::calmly([&] { return ::poll(&wanted, 1, -1); });
            static_cast<void>(::read(hold.ours.get(), &byte, 1) + 0);
            ::_exit(0);
        }
        REQUIRE(child > 0);
        const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
        REQUIRE(process);
        rig.watch(process, 1, reading);
        CHECK(rig.is_quiet());
        write_to(hold.theirs, "x");
        const test::Calm calm; // a signal may end a wait
        CHECK(rig.wait(Duration::max())[1].read);
        CHECK(::waitpid(child, nullptr, 0) == child);
    }
    SECTION("inotify") {
        char directory[] = "/tmp/pollers.XXXXXX";
        REQUIRE(::mkdtemp(directory) != nullptr);
        const Fd notices(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
        REQUIRE(::inotify_add_watch(notices.get(), directory, IN_DELETE_SELF) >= 0);
        rig.watch(notices, 1, reading);
        CHECK(rig.is_quiet());
        REQUIRE(::rmdir(directory) == 0);
        const test::Calm calm; // a signal may end a wait
        CHECK(rig.wait(Duration::max())[1].read);
    }
    SECTION("random") {
        const Fd random = opened("/dev/random", O_RDONLY | O_NONBLOCK);
        rig.watch(random, 1, reading);
        CHECK(rig.wait(Duration::max())[1].read);
    }
    SECTION("terminal") {
        const Fd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
        if (master && ::grantpt(master.get()) == 0 && ::unlockpt(master.get()) == 0) {
            const Fd terminal = opened(::ptsname(master.get()), O_RDWR | O_NOCTTY | O_NONBLOCK);
            rig.watch(terminal, 1, reading);
            CHECK(rig.is_quiet());
            const test::Calm calm; // a signal may end a wait
            write_to(master, "line\n");
            CHECK(rig.wait(Duration::max())[1] == Readiness{true, false, false, false});
        }
    }
}

TEMPLATE_TEST_CASE("a descriptor above 1023 is like any other", "[poller]", EpollPoller,
                   PollPoller) {
    Rig<TestType> rig;
    const Pair pipe = full_pipe();
    const Fd high(::fcntl(pipe.ours.get(), F_DUPFD_CLOEXEC, 1024));
    REQUIRE(high.get() >= 1024);
    rig.watch(high, 1, reading);
    CHECK(rig.wait().count(1) == 1);
    rig.poller.unwatch(high.get(), id_of(1));
    CHECK(rig.is_quiet());
}

TEMPLATE_TEST_CASE("an epoll instance can be watched like any descriptor", "[poller]", EpollPoller,
                   PollPoller) {
    Rig<TestType> outer;
    Rig<EpollPoller> inner;
    const Pair pipe = pipe_pair();
    inner.watch(pipe.ours, 1, reading);
    REQUIRE(!outer.poller.watch(inner.poller.fd(), id_of(2), reading));
    CHECK(outer.is_quiet());
    write_to(pipe.theirs, "x");
    CHECK(outer.wait(Duration::max())[2].read);
    CHECK(inner.wait().count(1) == 1);
    CHECK(read_from(pipe.ours, 8) == 1);
    CHECK(outer.is_quiet());
}

TEST_CASE("an epoll instance will not watch itself", "[poller]") {
    Rig<EpollPoller> rig;
    CHECK(rig.poller.watch(rig.poller.fd(), id_of(1), reading).value() == EINVAL);
    CHECK(rig.is_quiet());
}

TEST_CASE("the descriptor of a poller is readable when the kernel has something to report",
          "[poller]") {
    Rig<EpollPoller> rig;
    CHECK(!is_readable(rig.poller.fd()));
    const Pair pipe = full_pipe();
    rig.watch(pipe.ours, 1, reading);
    CHECK(is_readable(rig.poller.fd()));
    read_from(pipe.ours, 8);
    CHECK(!is_readable(rig.poller.fd()));

    os::Kernel::ring(rig.waker.get());
    CHECK(is_readable(rig.poller.fd()));
    rig.wait();
    CHECK(!is_readable(rig.poller.fd()));
}

// -- the waker ------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("the waker ends one wait, and is no report of anybody", "[poller]", EpollPoller,
                   PollPoller) {
    Rig<TestType> rig;
    const Pair pipe = full_pipe();
    for (int round = 0; round < 3; ++round) {
        for (int rings = 0; rings <= round * 10; ++rings) {
            os::Kernel::ring(rig.waker.get());
        }
        CHECK(rig.wait(Duration::max()).empty());
        const test::Calm calm; // a signal may end a wait
        const Timestamp begin = rig.poller.now();
        CHECK(rig.wait(3ms).empty());
        CHECK(rig.poller.now() - begin >= 3ms);
    }
    os::Kernel::ring(rig.waker.get());
    rig.watch(pipe.ours, 1, reading);
    CHECK(rig.wait(Duration::max(), 8).size() == 1);
}

TEMPLATE_TEST_CASE("a waker whose counter is full still rings", "[poller]", EpollPoller,
                   PollPoller) {
    Rig<TestType> rig;
    const std::uint64_t full = ~std::uint64_t{0} - 1;
    for (int round = 0; round < 3; ++round) {
        if (round != 1) {
            os::Kernel::silence(rig.waker.get());
            REQUIRE(::write(rig.waker.get(), &full, sizeof full) == sizeof full);
            CHECK(rig.wait(Duration::max()).empty());
        }
        os::Kernel::ring(rig.waker.get());
        CHECK(rig.wait(Duration::max()).empty());
    }
}

TEMPLATE_TEST_CASE("no ring is lost between one wait and the next", "[poller]", EpollPoller,
                   PollPoller) {
    Rig<TestType> rig;
    constexpr int rounds = 2'000;
    std::atomic<int> rung{0};
    std::atomic<int> answered{0};
    std::thread ringer([&] {
        for (int n = 1; n <= rounds; ++n) {
            rung = n;
            os::Kernel::ring(rig.waker.get());
            while (answered < n) {
                std::this_thread::yield();
            }
        }
    });
    bool failed = false;
    for (int n = 1; n <= rounds; ++n) {
        while (rung < n) { // a late ring of the round before may end one wait more
            failed = failed || rig.poller.wait(Duration::max(), 8).error;
        }
        answered = n;
    }
    ringer.join();
    CHECK(!failed);
    CHECK(rung == rounds);
}

TEMPLATE_TEST_CASE("a waker that rings all the time keeps nobody from being served", "[poller]",
                   EpollPoller, PollPoller) {
    Rig<TestType> rig;
    std::vector<Pair> pipes;
    for (unsigned n = 0; n < 5; ++n) {
        pipes.push_back(full_pipe());
        rig.watch(pipes.back().ours, n, reading);
    }
    std::set<unsigned> served;
    for (int wait = 0; wait < 12; ++wait) {
        os::Kernel::ring(rig.waker.get());
        for (const auto& report : rig.wait(0ns, 1)) {
            served.insert(report.first);
        }
    }
    CHECK(served.size() == 5);
}

// -- ghosts: registrations that cannot be named any more ------------------------------------------

namespace {

/// A poller that reports `1`, the original of which was closed while a duplicate lives.
struct HauntedRig : Rig<PlannedEpollPoller> {
    Pair pipe = full_pipe();
    Fd duplicate{os::Kernel::duplicate(pipe.ours.get()).fd()};

    HauntedRig() {
        watch(pipe.ours, 1, reading);
        const int number = pipe.ours.get();
        pipe.ours.reset();
        CHECK(wait().count(1) == 1);
        CHECK(!poller.haunted());
        poller.unwatch(number, id_of(1));
    }
};

} // namespace

TEST_CASE("a poller knows that it is haunted, and starts afresh without the ghost", "[poller]") {
    const Plans plans;
    HauntedRig rig;
    CHECK(rig.poller.haunted());
    CHECK(rig.wait().count(1) == 1);

    const Fd file = memory_file();
    rig.watch(file, 2, reading);
    REQUIRE(!rig.poller.start_afresh());
    CHECK(!rig.poller.haunted());
    CHECK(rig.is_quiet());
    os::Kernel::ring(rig.waker.get());
    CHECK(rig.wait(Duration::max()).empty());
    rig.watch(file, 2, reading);
    rig.watch(rig.duplicate, 3, reading);
    CHECK(rig.wait().size() == 2);
}

TEST_CASE("a poller that cannot start afresh stays as it was", "[poller]") {
    const Plans plans;
    HauntedRig rig;
    const Pair pipe = full_pipe();
    const Fd file = memory_file();
    rig.watch(pipe.ours, 2, reading);
    rig.watch(file, 3, reading);
    SECTION("no descriptor") {
        PlannedKernel::creating.fail(EMFILE, 0, 1);
        REQUIRE(rig.poller.haunted());
    }
    SECTION("the waker is refused") {
        PlannedKernel::controlling.fail(ENOSPC, 0, 1);
        REQUIRE(rig.poller.haunted());
    }
    const int before = rig.poller.fd();
    CHECK(rig.poller.start_afresh());
    CHECK(rig.poller.fd() == before);
    CHECK(rig.poller.haunted());
    CHECK(rig.wait().count(2) == 1);
    CHECK(rig.wait().count(3) == 1);
    CHECK(!is_readable(rig.waker.get()));
    rig.poller.unwatch(pipe.ours.get(), id_of(2));
    rig.poller.unwatch(file.get(), id_of(3));
    REQUIRE(!rig.poller.start_afresh());
    CHECK(rig.is_quiet());
}
