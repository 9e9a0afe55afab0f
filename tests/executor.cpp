// SPDX-License-Identifier: Apache-2.0
//
// Callbacks instead of a service: what is awaited, when it is told, by whom it is closed; on both
// pollers, with the callbacks in the loop and beside it.
#include "calm.hpp"
#include "catch.hpp"
#include "polling_parts.hpp"
#include "turns.hpp"

#include <reactor/executor.hpp>
#include <reactor/poller/poll.hpp>

#include <sys/socket.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

std::atomic<std::size_t> allocations{0};

} // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    if (void* const memory = std::malloc(size == 0 ? 1 : size)) {
        return memory;
    }
    throw std::bad_alloc{};
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    allocations.fetch_add(1, std::memory_order_relaxed);
    return std::malloc(size == 0 ? 1 : size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using namespace reactor;
using test::until;
using namespace std::chrono_literals;

/// Counts what becomes of one descriptor, and can refuse to have it watched. Any thread.
struct CountingKernel : os::Kernel {
    static inline std::atomic<int> looked_at{-1};
    static inline std::atomic<int> refused{-1};
    static inline std::atomic<int> added{0};
    static inline std::atomic<int> closed{0};

    static void look_at(int fd) {
        looked_at = fd;
        refused = -1;
        added = closed = 0;
    }
    static os::Result epoll_control(int epoll, int operation, int fd, std::uint32_t events,
                                    std::uint64_t data) noexcept {
        if (operation == EPOLL_CTL_ADD && fd == refused) {
            return {0, ENOSPC};
        }
        added += operation == EPOLL_CTL_ADD && fd == looked_at ? 1 : 0;
        return os::Kernel::epoll_control(epoll, operation, fd, events, data);
    }
    /// A look at one descriptor, without a wait, is how a PollPoller begins to watch it.
    static os::Result poll(std::span<pollfd> fds, Duration timeout) noexcept {
        if (fds.size() == 1 && timeout == Duration::zero()) {
            if (fds[0].fd == refused) {
                return {0, ENOSPC};
            }
            added += fds[0].fd == looked_at ? 1 : 0;
        }
        return os::Kernel::poll(fds, timeout);
    }
    static void close(int fd) noexcept {
        closed += fd == looked_at ? 1 : 0;
        os::Kernel::close(fd);
    }
};
using CountingEpoll = BasicEpollPoller<CountingKernel>;
using CountingPoll = BasicPollPoller<CountingKernel>;

/// Turns often enough for whatever is on its way to arrive: until timers that are set one after
/// another have fired so often.
template <class Tested>
void settle(Tested& executor) {
    for (int n = 0; n < 5; ++n) {
        bool fired = false;
        executor.await_after(2ms, [&](auto&) { fired = true; });
        REQUIRE(until(executor, [&] { return fired; }));
    }
}
Placement some_placement() { return GENERATE(Placement::in_loop, Placement::beside); }

} // namespace

#define POLLERS EpollPoller, PollPoller

TEMPLATE_TEST_CASE("A callback is told what became ready: reading, writing, hang-ups and errors "
                   "are told apart",
                   "", POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    std::optional<Readiness> told;
    const auto note = [&told](Tested&, Readiness readiness) { told = readiness; };

    SECTION("something to read") {
        const Pair pair = full_pipe();
        REQUIRE(executor.await_once(readable(pair.ours.get()), note));
        REQUIRE(until(executor, [&] { return told.has_value(); }));
        CHECK(*told == Readiness{true, false, false, false});
    }
    SECTION("room to write") {
        const Pair pair = socket_pair();
        REQUIRE(executor.await_once(writable(pair.ours.get()), note));
        REQUIRE(until(executor, [&] { return told.has_value(); }));
        CHECK(*told == Readiness{false, true, false, false});
    }
    SECTION("both at once") {
        const Pair pair = socket_pair();
        write_to(pair.theirs, "x");
        REQUIRE(executor.await_once(ready(pair.ours.get()), note));
        REQUIRE(until(executor, [&] { return told.has_value(); }));
        CHECK(*told == Readiness{true, true, false, false});
    }
    SECTION("a hang-up") {
        Pair pair = socket_pair();
        pair.theirs.reset();
        REQUIRE(executor.await_once(readable(pair.ours.get()), note));
        REQUIRE(until(executor, [&] { return told.has_value(); }));
        CHECK(told->read);
        CHECK(told->hangup);
        CHECK_FALSE(told->error);
    }
    SECTION("an error") {
        Pair pair = pipe_pair();
        pair.ours.reset(); // nobody reads any more
        REQUIRE(executor.await_once(writable(pair.theirs.get()), note));
        REQUIRE(until(executor, [&] { return told.has_value(); }));
        CHECK(told->error);
        CHECK_FALSE(told->read);
        CHECK_FALSE(executor.cause());
    }
}

TEMPLATE_TEST_CASE("Asking to write forgets no wish to read, and both are one registration in the "
                   "poller",
                   "", CountingEpoll, CountingPoll) {
    using Tested = BasicExecutor<TestType>;
    const Placement placement = some_placement();
    const Pair pair = socket_pair();
    const int fd = pair.ours.get();
    CountingKernel::look_at(fd);
    Tested executor(placement);
    int reads = 0;
    int writes = 0;
    REQUIRE(executor.await_keep(readable(fd), [&](Tested&, Readiness readiness) {
        CHECK_FALSE(readiness.write);
        reads += static_cast<int>(read_from(pair.ours, 1));
    }));
    REQUIRE(executor.await_once(writable(fd), [&](Tested&, Readiness readiness) {
        CHECK_FALSE(readiness.read);
        ++writes;
    }));
    CHECK(executor.interest(fd) == Interest{true, true});
    REQUIRE(until(executor, [&] { return writes == 1; }));
    CHECK(executor.interest(fd) == Interest{true, false});
    write_to(pair.theirs, "x");
    REQUIRE(until(executor, [&] { return reads == 1; }));

    executor.await_once(writable(fd), [&](Tested&, Readiness) { ++writes; });
    write_to(pair.theirs, "x");
    REQUIRE(until(executor, [&] { return writes == 2 && reads == 2; }));
    settle(executor);
    CHECK(writes == 2);
    CHECK(reads == 2);
    if (placement == Placement::in_loop) {
        CHECK(CountingKernel::added == 1); // beside, each fact is told once and asked for again
    }
}

TEMPLATE_TEST_CASE("Signals that interrupt every wait end nothing, and nothing is lost", "",
                   POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    const SignalStorm storm(200us);
    const int before = SignalStorm::count();
    const Pair pair = socket_pair();
    int heard = 0;
    executor.await_keep(readable(pair.ours.get()), [&](Tested& self, Readiness) {
        heard += static_cast<int>(read_from(pair.ours, 1));
        self.await_after(300us, [&](Tested&) { write_to(pair.theirs, "x"); });
    });
    write_to(pair.theirs, "x");
    REQUIRE(until(executor, [&] { return heard >= 50 && SignalStorm::count() > before + 10; }));
    std::error_code error;
    CHECK(executor.turn(Duration::zero(), error));
    CHECK_FALSE(error);
}

TEMPLATE_TEST_CASE("The end of what is read is noticed, behind the last byte", "", POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    Pair pair = socket_pair();
    write_to(pair.theirs, "last words");
    pair.theirs.reset();
    std::string text;
    bool ended = false;
    executor.await_keep(readable(pair.ours.get()), [&](Tested& self, Readiness readiness) {
        char piece[4];
        const ssize_t count = ::read(pair.ours.get(), piece, sizeof piece);
        if (count > 0) {
            text.append(piece, static_cast<std::size_t>(count));
        } else {
            ended = count == 0 && readiness.hangup;
            self.cancel(self.current());
        }
    });
    REQUIRE(until(executor, [&] { return ended; }));
    CHECK(text == "last words");
    settle(executor); // nobody is told of the hang-up any more
    CHECK(executor.interest(pair.ours.get()).none());
}

namespace {

/// Sends back all that comes, as the kernel takes it: what it does not take waits for room, and
/// until then nothing is read.
template <class Tested>
struct Echo {
    int fd;
    std::string rest{};

    void operator()(Tested& executor, Readiness) {
        if (rest.empty()) {
            char piece[3000];
            const ssize_t count = ::read(fd, piece, sizeof piece);
            if (count == 0) {
                ::shutdown(fd, SHUT_WR);
                return;
            }
            rest.assign(piece, static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
        }
        const ssize_t sent = ::write(fd, rest.data(), rest.size());
        rest.erase(0, static_cast<std::size_t>(std::max<ssize_t>(sent, 0)));
        executor.await_once(rest.empty() ? readable(fd) : writable(fd), std::move(*this));
    }
};

void make_small(const Fd& fd) {
    const int size = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}

} // namespace

TEMPLATE_TEST_CASE("Bytes that take many short writes and short reads come back whole and in order",
                   "", POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    const Pair pair = socket_pair();
    make_small(pair.ours);
    make_small(pair.theirs);
    std::string text;
    for (std::size_t n = 0; text.size() < 200'000; ++n) {
        text += std::to_string(n * n) + ' ';
    }
    executor.await_once(readable(pair.ours.get()), Echo<Tested>{pair.ours.get()});
    std::size_t written = 0;
    std::size_t short_writes = 0;
    std::string back;
    bool ended = false;
    REQUIRE(until(executor, [&] {
        const std::size_t left = text.size() - written;
        if (left != 0) {
            const ssize_t sent = ::write(pair.theirs.get(), text.data() + written, left);
            short_writes += sent > 0 && static_cast<std::size_t>(sent) < left ? 1 : 0;
            written += static_cast<std::size_t>(std::max<ssize_t>(sent, 0));
            if (written == text.size()) {
                ::shutdown(pair.theirs.get(), SHUT_WR);
            }
        }
        char piece[1700];
        ssize_t count = 0;
        while ((count = ::read(pair.theirs.get(), piece, sizeof piece)) > 0) {
            back.append(piece, static_cast<std::size_t>(count));
        }
        ended = count == 0;
        return ended;
    }));
    CHECK(short_writes > 0);
    CHECK(back == text);
}

TEMPLATE_TEST_CASE("What the executor owns is closed once, and what it does not own never", "",
                   CountingEpoll, CountingPoll) {
    using Tested = BasicExecutor<TestType>;
    using TestFd = typename Tested::Fd;
    const Placement placement = some_placement();
    Pair pair = socket_pair();
    const int fd = pair.ours.get();
    CountingKernel::look_at(fd);
    std::optional<Tested> executor(std::in_place, placement);
    const auto adopt = [&] { REQUIRE(executor->adopt(TestFd(pair.ours.release())) == fd); };
    const auto nothing = [](Tested&, Readiness) {};

    SECTION("by its owner's word, said twice") {
        adopt();
        executor->await_keep(readable(fd), nothing);
        settle(*executor);
        CHECK(executor->close(fd));
        CHECK_FALSE(executor->close(fd));
        REQUIRE(until(*executor, [] { return CountingKernel::closed == 1; }));
    }
    SECTION("before it was ever awaited") {
        adopt();
        CHECK(executor->close(fd));
        CHECK(CountingKernel::closed == 1);
    }
    SECTION("in its own callback") {
        adopt();
        executor->await_keep(ready(fd), [fd](Tested& self, Readiness) {
            self.close(fd);
            CHECK(self.interest(fd).none());
        });
        REQUIRE(until(*executor, [] { return CountingKernel::closed == 1; }));
        settle(*executor);
    }
    SECTION("with the executor") {
        adopt();
        executor->await_keep(readable(fd), nothing);
        settle(*executor);
        CHECK(CountingKernel::closed == 0);
    }
    SECTION("with the executor, when it was cancelled before") {
        adopt();
        const EventId event = executor->await_keep(readable(fd), nothing);
        settle(*executor);
        CHECK(executor->cancel(event));
        settle(*executor);
        CHECK(CountingKernel::closed == 0);
    }
    SECTION("after it was awaited in the end of the run") {
        adopt();
        executor->await_keep(readable(fd), nothing);
        settle(*executor);
        executor->shutdown();
        executor->run();
        executor->close(fd);
    }
    SECTION("by whoever gets it back") {
        adopt();
        executor->await_keep(readable(fd), nothing);
        settle(*executor);
        {
            const TestFd back = executor->forget(fd);
            CHECK(back.get() == fd);
            settle(*executor);
            CHECK(CountingKernel::closed == 0);
        }
        CHECK(CountingKernel::closed == 1);
    }
    executor.reset();
    if (pair.ours) {
        CHECK(CountingKernel::closed == 0);
    } else {
        CHECK(CountingKernel::closed == 1);
    }
    SECTION("not if it was only lent") {
        executor.emplace(placement);
        executor->await_keep(readable(fd), nothing);
        settle(*executor);
        CHECK_FALSE(executor->close(fd));
        settle(*executor);
        executor.reset();
        CHECK(CountingKernel::closed == 0);
    }
}

TEMPLATE_TEST_CASE("Ids are the library's: the same for the same calls, and never used twice", "",
                   POLLERS) {
    using Tested = BasicExecutor<TestType>;
    const Placement placement = some_placement();
    const Pair pairs[2] = {socket_pair(), socket_pair()};
    const auto ids_of_a_run = [&] {
        Tested executor(placement);
        std::vector<EventId> ids;
        for (int n = 0; n < 500; ++n) {
            const auto nothing = [](Tested&, Readiness) {};
            ids.push_back(executor.await_keep(readable(pairs[n % 2].ours.get()), nothing));
            ids.push_back(executor.await_once(writable(pairs[n % 2].ours.get()), nothing));
            ids.push_back(executor.await_after(1h, nothing));
            ids.push_back(executor.await_every(1h, nothing));
            for (std::size_t back = 1; back <= 4; ++back) {
                executor.cancel(ids[ids.size() - back]);
            }
            if (n % 50 == 0) {
                executor.turn(Duration::zero());
            }
        }
        return ids;
    };
    const std::vector<EventId> ids = ids_of_a_run();
    CHECK(ids == ids_of_a_run());
    CHECK(std::set<EventId>(ids.begin(), ids.end()).size() == 2000);
    CHECK(std::find(ids.begin(), ids.end(), EventId{}) == ids.end());
}

TEMPLATE_TEST_CASE("A kept callback can be removed, by others and by itself, with what it holds",
                   "", POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    const Pair pair = full_pipe(); // and nobody reads it: it stays ready
    const auto held = std::make_shared<int>(0);

    SECTION("by somebody else") {
        const EventId event = executor.await_keep(readable(pair.ours.get()),
                                                  [held](Tested&, Readiness) { ++*held; });
        REQUIRE(until(executor, [&] { return *held >= 3; }));
        CHECK(executor.awaits(event));
        CHECK(executor.cancel(event));
        CHECK(held.use_count() == 1);
        CHECK_FALSE(executor.awaits(event));
        CHECK_FALSE(executor.cancel(event));
    }
    SECTION("by itself") {
        executor.await_keep(readable(pair.ours.get()), [held](Tested& self, Readiness) {
            CHECK(self.cancel(self.current()));
            CHECK_FALSE(self.cancel(self.current()));
            ++*held; // it still has what it holds
        });
        REQUIRE(until(executor, [&] { return *held == 1; }));
        CHECK(held.use_count() == 1);
    }
    SECTION("by the callback of the other half, in the midst of one readiness") {
        const Pair both = socket_pair();
        write_to(both.theirs, "x");
        EventId writing;
        executor.await_keep(readable(both.ours.get()), [&](Tested& self, Readiness) {
            self.cancel(writing);
            self.cancel(self.current());
        });
        writing = executor.await_keep(writable(both.ours.get()),
                                      [held](Tested&, Readiness) { ++*held; });
        REQUIRE(until(executor, [&] { return held.use_count() == 1; }));
        CHECK(*held == 0);
    }
    const int ran = *held;
    settle(executor);
    CHECK(*held == ran);
}

TEMPLATE_TEST_CASE("A callback that blocks holds up no other executor: they share no lock", "",
                   POLLERS) {
    using Tested = BasicExecutor<TestType>;
    const Placement placement = some_placement();
    std::atomic<bool> entered{false};
    std::atomic<bool> let_go{false};
    std::thread other([&] {
        Tested executor(placement);
        executor.await_after(0ms, [&](Tested& self) {
            entered = true;
            while (!let_go) {
                os::Kernel::sleep(100us);
            }
            self.shutdown();
        });
        executor.run();
    });
    Tested executor(placement);
    const Pair pair = full_pipe();
    int ran = 0;
    executor.await_keep(readable(pair.ours.get()), [&](Tested&, Readiness) { ++ran; });
    const bool went_on = until(executor, [&] { return entered && ran >= 100; });
    let_go = true;
    other.join();
    CHECK(went_on);
}

TEMPLATE_TEST_CASE("An event is told as often as it was asked for", "", POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    const Pair pair = pipe_pair();
    int told = 0;

    SECTION("once, however long it lasts") {
        write_to(pair.theirs, "x");
        const EventId event = executor.await_once(readable(pair.ours.get()),
                                                  [&](Tested&, Readiness) { ++told; });
        REQUIRE(until(executor, [&] { return told == 1; }));
        settle(executor);
        CHECK(told == 1);
        CHECK_FALSE(executor.awaits(event));
    }
    SECTION("each time, and never when there is nothing: not again while its callback is to run") {
        write_to(pair.theirs, std::string(100, 'x'));
        int in_vain = 0;
        executor.await_keep(readable(pair.ours.get()), [&](Tested&, Readiness) {
            (read_from(pair.ours, 1) == 1 ? told : in_vain) += 1;
        });
        REQUIRE(until(executor, [&] { return told == 100; }));
        settle(executor);
        CHECK(told == 100);
        CHECK(in_vain == 0);
    }
    SECTION("not at all, if nothing happens") {
        executor.await_keep(readable(pair.ours.get()), [&](Tested&, Readiness) { ++told; });
        settle(executor);
        CHECK(told == 0);
    }
}

TEMPLATE_TEST_CASE("A callback may replace itself, await anew and await others", "", POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    const Pair pair = full_pipe();
    const int fd = pair.ours.get();
    std::string trace;

    SECTION("replaces itself under the same id") {
        EventId first;
        EventId second;
        executor.await_keep(readable(fd), [&](Tested& self, Readiness) {
            trace += 'a';
            first = self.current();
            CHECK(self.replace(self.current(), [&](Tested& again, Readiness) {
                trace += 'b';
                second = again.current();
                again.cancel(again.current());
            }));
        });
        REQUIRE(until(executor, [&] { return trace == "ab"; }));
        CHECK(first == second);
        CHECK_FALSE(executor.replace(first, [](Tested&, Readiness) {}));
    }
    SECTION("awaits the same event anew, once and once more") {
        executor.await_once(readable(fd), [&](Tested& self, Readiness) {
            trace += 'a';
            self.await_once(readable(fd), [&](Tested&, Readiness) { trace += 'b'; });
        });
        REQUIRE(until(executor, [&] { return trace == "ab"; }));
    }
    SECTION("awaits others, and time") {
        const Pair other = full_pipe();
        executor.await_once(readable(fd), [&](Tested& self, Readiness) {
            trace += 'a';
            self.await_once(readable(other.ours.get()), [&](Tested& again, Readiness) {
                trace += 'b';
                again.await_after(1us, [&](Tested&) { trace += 'c'; });
            });
        });
        REQUIRE(until(executor, [&] { return trace == "abc"; }));
    }
    SECTION("changes another event") {
        const Pair other = full_pipe();
        const EventId event = executor.await_keep(
            readable(other.ours.get()), [&](Tested& self, Readiness) {
                trace += trace.ends_with('a') ? 'b' : ' ';
                static_cast<void>(self);
            });
        executor.await_once(readable(fd), [&, event](Tested& self, Readiness) {
            trace = "a";
            CHECK(self.replace(event, [&](Tested& again, Readiness) {
                trace += 'c';
                again.cancel(again.current());
            }));
        });
        REQUIRE(until(executor, [&] { return trace == "ac"; }));
    }
    settle(executor);
    CHECK(executor.interest(fd).none());
}

TEMPLATE_TEST_CASE("What cannot be awaited is refused with the reason", "", POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Options options;
    options.listeners = 2;
    options.timers = 2;
    Tested executor(some_placement(), options);
    const Pair pair = socket_pair();
    const Pair other = socket_pair();
    const auto nothing = [](Tested&, Readiness) {};

    CHECK(executor.await_once(readable(-1), nothing).error == std::errc::bad_file_descriptor);
    CHECK(executor.await_once(readable(19'999), nothing).error == std::errc::bad_file_descriptor);
    CHECK(executor.await_once(Event{pair.ours.get(), {}}, nothing).error ==
          std::errc::invalid_argument);
    REQUIRE(executor.await_once(readable(pair.ours.get()), nothing));
    CHECK(executor.await_keep(readable(pair.ours.get()), nothing).error ==
          std::errc::device_or_resource_busy);
    CHECK(executor.await_keep(ready(pair.ours.get()), nothing).error ==
          std::errc::device_or_resource_busy);
    REQUIRE(executor.await_once(readable(pair.theirs.get()), nothing));
    const Awaited one_more = executor.await_once(readable(other.ours.get()), nothing);
    CHECK(one_more.error == std::errc::no_buffer_space);
    CHECK_FALSE(one_more.id);

    int told = 0;
    std::error_code cause;
    for (int n = 0; n < 3; ++n) { // nothing runs yet: the third is told when it cannot be set
        executor.await_after(1h, [&](Tested& self, Readiness readiness) {
            told += readiness.error ? 1 : 0;
            cause = self.cause();
        });
    }
    REQUIRE(until(executor, [&] { return told == 1; }));
    CHECK(cause == std::errc::no_buffer_space);
}

TEMPLATE_TEST_CASE("A descriptor that the poller refuses is told to its callbacks, and is over", "",
                   CountingEpoll, CountingPoll) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    const Pair pair = full_pipe();
    const int fd = pair.ours.get();
    CountingKernel::look_at(fd);
    CountingKernel::refused = fd;
    std::error_code cause;
    const EventId event = executor.await_keep(readable(fd), [&](Tested& self, Readiness told) {
        cause = told.error && !told.read ? self.cause() : std::error_code{};
    });
    REQUIRE(until(executor, [&] { return static_cast<bool>(cause); }));
    CHECK(cause == std::error_code(ENOSPC, std::system_category()));
    CHECK_FALSE(executor.awaits(event));

    CountingKernel::refused = -1;
    bool told = false;
    REQUIRE(executor.await_once(readable(fd), [&](Tested& self, Readiness readiness) {
        told = readiness.read && !self.cause();
    }));
    CHECK(until(executor, [&] { return told; }));
}

TEMPLATE_TEST_CASE("Time is awaited: never early, as often as asked, and not when cancelled", "",
                   POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    const Timestamp began = os::Kernel::now();
    std::vector<Timestamp> fired;

    SECTION("once") {
        executor.await_after(5ms, [&](Tested&) { fired.push_back(os::Kernel::now()); });
        REQUIRE(until(executor, [&] { return fired.size() == 1; }));
        CHECK(fired[0] - began >= 5ms);
        settle(executor);
        CHECK(fired.size() == 1);
    }
    SECTION("every so often, until it cancels itself") {
        executor.await_every(2ms, [&](Tested& self) {
            fired.push_back(os::Kernel::now());
            if (fired.size() == 4) {
                CHECK(self.cancel(self.current()));
            }
        });
        REQUIRE(until(executor, [&] { return fired.size() == 4; }));
        for (std::size_t n = 0; n < fired.size(); ++n) {
            CHECK(fired[n] - began >= 2ms * (n + 1));
        }
        settle(executor);
        CHECK(fired.size() == 4);
    }
    SECTION("from within a callback") {
        executor.await_after(0ns, [&](Tested& self) {
            self.await_every(1ms, [&](Tested& again) {
                fired.push_back(again.now());
                again.cancel(again.current());
            });
        });
        REQUIRE(until(executor, [&] { return fired.size() == 1; }));
        CHECK(os::Kernel::now() - began >= 1ms);
    }
    SECTION("not when it was cancelled, even if it is due") {
        const EventId before_the_run = executor.await_after(0ns, [&](Tested&) {
            fired.push_back({});
        });
        CHECK(executor.cancel(before_the_run));
        EventId second;
        executor.await_after(1ms, [&](Tested& self) { CHECK(self.cancel(second)); });
        second = executor.await_after(1ms, [&](Tested&) { fired.push_back({}); });
        REQUIRE(until(executor, [&] { return !executor.awaits(second); }));
        EventId third;
        do { // until it has been set, and was not due yet when that turn was over
            fired.clear();
            third = executor.await_after(2ms, [&](Tested&) { fired.push_back({}); });
            executor.turn(Duration::zero());
        } while (!executor.awaits(third));
        os::Kernel::sleep(3ms);
        CHECK(executor.cancel(third));
        settle(executor);
        CHECK(fired.empty());
    }
}

TEMPLATE_TEST_CASE("Callables of 48 bytes need no allocation, to be awaited, run or given up", "",
                   POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    const Pair pair = full_pipe();
    const int fd = pair.ours.get();
    struct Small {
        int fd;
        std::size_t* runs;
        std::array<std::byte, 32> more;

        void operator()(Tested& self, Readiness) {
            ++*runs;
            self.await_once(readable(fd), *this);
            self.cancel(self.await_once(writable(fd), *this));
            self.cancel(self.await_after(1h, *this));
        }
    };
    static_assert(sizeof(Small) == 48);
    static_assert(Tested::Callback::template fits<Small>);
    std::size_t runs = 0;
    executor.await_once(readable(fd), Small{fd, &runs, {}});
    REQUIRE(until(executor, [&] { return runs >= 200; })); // all tables have their room by then
    const std::size_t before = allocations;
    REQUIRE(until(executor, [&] { return runs >= 1200; }));
    CHECK(allocations == before);
}

TEST_CASE("A Callback owns what it was given, however large, and destroys it once") {
    using Callback = detail::Callback<int(int)>;
    const auto held = std::make_shared<int>(1);
    SECTION("small") {
        Callback callback([held](int n) { return *held + n; });
        Callback other(std::move(callback));
        CHECK_FALSE(callback); // NOLINT: that is what is asked
        CHECK(other(2) == 3);
        CHECK(held.use_count() == 2);
        callback = std::move(other);
        CHECK(callback(3) == 4);
    }
    SECTION("large") {
        Callback callback([held, more = std::array<char, 500>{}](int n) mutable {
            more[0] = static_cast<char>(more[0] + n);
            return *held + more[0];
        });
        Callback other(std::move(callback));
        CHECK(other(2) == 3);
        CHECK(other(2) == 5); // it has a state
        CHECK(held.use_count() == 2);
        other = Callback([](int n) { return n; });
        CHECK(other(7) == 7);
    }
    SECTION("only movable") {
        Callback callback([own = std::make_unique<int>(5), held](int n) { return *own + n; });
        Callback other;
        other = std::move(callback);
        CHECK(other(1) == 6);
        other.reset();
        CHECK_FALSE(other);
    }
    CHECK(held.use_count() == 1);
}

TEMPLATE_TEST_CASE("A callback that throws leaves run() with all in order, and run() goes on", "",
                   POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    const Pair pair = full_pipe();
    const Pair other = full_pipe();
    int kept = 0;
    int once = 0;
    int asked_before = 0;
    const EventId keeps = executor.await_keep(
        readable(pair.ours.get()), [&](Tested& self, Readiness) {
            if (++kept == 1) {
                self.await_once(readable(other.ours.get()), [&](Tested&, Readiness) {
                    ++asked_before;
                });
                throw std::runtime_error("kept");
            }
            if (kept == 5) {
                self.shutdown();
            }
        });
    CHECK_THROWS_WITH(executor.run(), "kept");
    CHECK(executor.awaits(keeps));
    CHECK_FALSE(executor.current());
    const EventId throws_once = executor.await_after(0ns, [&](Tested&) {
        ++once;
        throw std::runtime_error("once");
    });
    CHECK_THROWS_WITH([&] {
        for (;;) {
            executor.turn(1ms);
        }
    }(), "once");
    CHECK_FALSE(executor.awaits(throws_once));
    const Farewell farewell = executor.run();
    CHECK(farewell.clean);
    CHECK(kept >= 5);
    CHECK(once == 1);
    CHECK(asked_before == 1);
}

TEMPLATE_TEST_CASE("What fires while the channel is full is told later, and none of it is lost", "",
                   POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Options options;
    options.command_queue = 2;
    Tested executor(some_placement(), options);
    std::vector<Pair> pairs;
    std::map<int, int> told;
    for (int n = 0; n < 60; ++n) {
        pairs.push_back(full_pipe());
        const int fd = pairs.back().ours.get();
        REQUIRE(executor.await_keep(readable(fd), [&, fd](Tested& self, Readiness readiness) {
            CHECK(readiness.read);
            if (++told[fd] == 10) {
                self.cancel(self.current());
            }
        }));
    }
    const auto all_told = [&] {
        return told.size() == 60 &&
               std::all_of(told.begin(), told.end(), [](auto& each) { return each.second == 10; });
    };
    REQUIRE(until(executor, all_told));
    settle(executor);
    CHECK(all_told());
}

TEMPLATE_TEST_CASE("Other threads may post callbacks and end the run; afterwards they get them "
                   "back",
                   "", POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    const auto controller = executor.controller();
    constexpr int threads = 4;
    constexpr int each = 500;
    int ran = 0;
    std::atomic<int> accepted{0};
    std::vector<std::thread> posters;
    for (int n = 0; n < threads; ++n) {
        posters.emplace_back([&, controller] {
            for (int i = 0; i < each; ++i) {
                accepted += controller.post([&ran](Tested&, Readiness) { ++ran; }) ? 1 : 0;
            }
        });
    }
    std::thread ender([&, controller] {
        for (auto& poster : posters) {
            poster.join();
        }
        while (!controller.post([](Tested& self, Readiness) { self.shutdown(); })) {
        }
    });
    executor.run();
    ender.join();
    CHECK(accepted == threads * each);
    CHECK(ran == threads * each);
    auto answer = controller.post([&ran](Tested&, Readiness) { ++ran; });
    REQUIRE(answer.closed());
    auto back = answer.take();
    REQUIRE(back.has_value());
    (*back)(executor, {});
    CHECK(ran == threads * each + 1);
    CHECK_FALSE(executor.turn(Duration::max()));
    const auto never = [](Tested&, Readiness) {};
    CHECK(executor.await_after(0ns, never).error == std::errc::operation_canceled);
    CHECK(executor.await_once(readable(0), never).error == std::errc::operation_canceled);
}

TEMPLATE_TEST_CASE("Callbacks may cancel others from their destructors, to the very end", "",
                   POLLERS) {
    using Tested = BasicExecutor<TestType>;
    struct Guard {
        Tested* executor;
        std::shared_ptr<std::vector<EventId>> others;
        std::shared_ptr<int> held;

        Guard(Tested& of, std::shared_ptr<std::vector<EventId>> with, std::shared_ptr<int> more)
            : executor(&of), others(std::move(with)), held(std::move(more)) {}
        Guard(Guard&&) noexcept = default;
        ~Guard() {
            for (std::size_t n = 0; others != nullptr && n < others->size(); ++n) {
                executor->cancel((*others)[n]);
            }
        }
        void operator()(Tested&, Readiness) {}
    };
    const auto others = std::make_shared<std::vector<EventId>>();
    const auto held = std::make_shared<int>(0);
    {
        Tested executor(some_placement());
        for (int n = 0; n < 20; ++n) {
            others->push_back(executor.await_after(1h, Guard(executor, others, held)));
        }
        executor.turn(Duration::zero());
        CHECK(held.use_count() == 21);
    }
    CHECK(held.use_count() == 1);
}

TEMPLATE_TEST_CASE("A descriptor may be forgotten, closed and come again under the same number "
                   "within one callback",
                   "", POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    Pair old = full_pipe();
    Pair fresh = pipe_pair();
    const int number = old.ours.get();
    std::string trace;
    executor.await_keep(readable(number), [&](Tested& self, Readiness) {
        trace += 'a';
        self.forget(number);
        old.ours.reset();
        REQUIRE(::dup3(fresh.ours.get(), number, O_CLOEXEC) == number);
        CHECK(self.await_keep(readable(number), [&](Tested& again, Readiness) {
            trace += 'b';
            again.cancel(again.current());
        }));
    });
    REQUIRE(until(executor, [&] { return trace == "a"; }));
    settle(executor);
    CHECK(trace == "a"); // the new one has nothing to read
    write_to(fresh.theirs, "x");
    REQUIRE(until(executor, [&] { return trace == "ab"; }));
    ::close(number);
}

TEMPLATE_TEST_CASE("An executor leaves no descriptor behind, and destroys what was never run", "",
                   POLLERS) {
    using Tested = BasicExecutor<TestType>;
    const Placement placement = some_placement();
    const std::size_t before = open_descriptors();
    const auto held = std::make_shared<int>(0);
    for (int n = 0; n < 3; ++n) {
        Tested executor(placement);
        Pair pair = socket_pair();
        const int fd = executor.adopt(Fd(pair.ours.release()));
        executor.await_keep(readable(fd), [held](Tested&, Readiness) { ++*held; });
        executor.await_every(1h, [held](Tested&) { ++*held; });
        executor.controller().post([held](Tested&, Readiness) { ++*held; });
        if (n > 0) {
            settle(executor);
        }
        if (n > 1) {
            executor.shutdown();
            CHECK(executor.run().unsent_bytes == 0);
        }
    }
    CHECK(held.use_count() == 1);
    CHECK(*held == 2); // what was posted ran where turns were taken
    CHECK(open_descriptors() == before);
}

TEMPLATE_TEST_CASE("A forked child is refused and does not harm its parent's executor", "",
                   POLLERS) {
    using Tested = BasicExecutor<TestType>;
    std::optional<Tested> executor(std::in_place, some_placement());
    const Pair pair = pipe_pair();
    int told = 0;
    executor->await_keep(readable(pair.ours.get()), [&](Tested&, Readiness) {
        told += static_cast<int>(read_from(pair.ours, 1));
    });
    settle(*executor);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        std::error_code error;
        const bool went_on = executor->turn(Duration::zero(), error);
        executor.reset();
        ::_exit(!went_on && error == std::errc::operation_not_permitted ? 0 : 1);
    }
    int status = -1;
    REQUIRE(test::calmly([&] { return ::waitpid(child, &status, 0); }) == child);
    CHECK(status == 0);
    write_to(pair.theirs, "x");
    CHECK(until(*executor, [&] { return told == 1; }));
}

TEMPLATE_TEST_CASE("What is asked for between turns shows to an outer loop at once", "", POLLERS) {
    using Tested = BasicExecutor<TestType>;
    Tested executor(some_placement());
    executor.turn(Duration::zero());
    const Pair pair = full_pipe();
    bool told = false;
    executor.await_once(readable(pair.ours.get()), [&](Tested&, Readiness) { told = true; });
    CHECK(executor.until_next() == Duration::zero());
    REQUIRE(until(executor, [&] { return told; }));
    bool fired = false;
    executor.await_after(1h, [&](Tested&) { fired = true; });
    executor.turn(Duration::zero());
    executor.turn(Duration::zero());
    CHECK(executor.until_next() > 50min);
    CHECK_FALSE(fired);
}

TEST_CASE("An executor that cannot be made says why") {
    struct Poorer : os::Kernel {
        static os::Result event_fd() noexcept { return {0, EMFILE}; }
    };
    const Placement placement = some_placement();
    std::error_code error;
    BasicExecutor<BasicEpollPoller<Poorer>> executor(placement, {}, error);
    CHECK(error == std::errc::too_many_files_open);
    CHECK_FALSE(executor.turn(Duration::max(), error));
    using Wanted = BasicExecutor<BasicEpollPoller<Poorer>>;
    CHECK_THROWS_AS(Wanted(placement), std::system_error);
}
