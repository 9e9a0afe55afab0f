// SPDX-License-Identifier: Apache-2.0
//
// Signals as events: what is told, what the kernel puts together, who hears, and the mask: while a
// Signals stands, when it goes, and in a program that is started meanwhile.
#include <reactor/reactor.hpp>
#include <reactor/signals.hpp>

#include <spawn.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>
#include <set>
#include <thread>

#include "peers.hpp"

using namespace test;

extern char** environ;

namespace {

sigset_t mask() {
    sigset_t now{};
    ::pthread_sigmask(SIG_SETMASK, nullptr, &now);
    return now;
}
bool holds_back(const sigset_t& set, int signal) { return sigismember(&set, signal) == 1; }
bool holds_back(int signal) { return holds_back(mask(), signal); }
bool same(const sigset_t& one, const sigset_t& other) {
    for (int n = 1; n < _NSIG; ++n) {
        if (holds_back(one, n) != holds_back(other, n)) {
            return false;
        }
    }
    return true;
}
/// Blocks or unblocks a signal without a Signals.
void set_mask(int how, int signal) {
    sigset_t set{};
    sigaddset(&set, signal);
    ::pthread_sigmask(how, &set, nullptr);
}
void send_to_us(int signal) { require_ok(::kill(::getpid(), signal) == 0, "kill"); }
void queue_to_us(int signal, int value) {
    sigval with{};
    with.sival_int = value;
    require_ok(::sigqueue(::getpid(), signal, with) == 0, "sigqueue");
}

/// What is pending, read without a loop; all zero: nothing.
SignalEvent next_of(Signals& signals) {
    return signals.handle_io(Io::read).value_or(SignalEvent{});
}

/// Notes the signals it hears.
struct Ear : Service<Signals, NoTransport> {
    void tick(Actions& actions) {
        if (const auto job = std::exchange(next, nullptr)) {
            job(actions);
        }
    }
    void handle_listener_event(ResourceId id, SignalEvent event, Actions& actions) {
        heard.push_back(event);
        if (reaction) {
            reaction(id, event, actions);
        }
    }
    void handle_error(Error error, Actions&) {
        codes.push_back(error.code());
        if (auto signals = error.take_listener()) {
            back.emplace(std::move(*signals)); // to go on the thread that made it
        }
    }
    void handover_listener(ResourceId, Signals signals, Actions&) {
        back.emplace(std::move(signals));
    }

    std::function<void(Actions&)> next; ///< done once, in the next tick
    std::function<void(ResourceId, const SignalEvent&, Actions&)> reaction;
    std::vector<SignalEvent> heard;
    std::vector<std::error_code> codes;
    std::optional<Signals> back;
};

template <class Poller>
struct Post {
    ResourceId listen(std::initializer_list<int> numbers) { return listen(Signals(numbers)); }
    ResourceId listen(Signals signals) {
        ResourceId id;
        perform([&](Ear::Actions& actions) {
            id = actions.register_listener(std::move(signals));
        });
        return id;
    }
    void perform(std::function<void(Ear::Actions&)> job) {
        ear().next = std::move(job);
        turn();
    }
    /// What was pending before is heard then, and what comes of it is done.
    void turn() {
        runtime.turn(Duration::zero());
        runtime.turn(Duration::zero());
    }
    std::size_t count() { return ear().heard.size(); }
    Ear& ear() { return runtime.service(); }

    Runtime<Ear, Poller> runtime{Ear{}};
};

/// Waits until this child has ended, and leaves it to be reaped.
void await_end(pid_t child) {
    siginfo_t info{};
    while (::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) != 0) {
        require_ok(errno == EINTR, "waitid");
    }
}
pid_t child_that_exits(int status) {
    const pid_t child = ::fork();
    require_ok(child >= 0, "fork");
    if (child == 0) {
        ::_exit(status);
    }
    return child;
}

} // namespace

// -- what is told ---------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("signals: one that comes is an event, with its number, sender and user",
                   "[signals]", EpollPoller, PollPoller) {
    Post<TestType> post;
    post.listen({SIGUSR1, SIGUSR2});
    post.turn();
    REQUIRE(post.count() == 0);

    send_to_us(SIGUSR2);
    post.turn();
    REQUIRE(post.count() == 1);
    CHECK(post.ear().heard[0] == SignalEvent{SIGUSR2, SI_USER, ::getpid(), ::getuid(), 0, 0});

    // Of another process, and of this thread alone.
    const int status = in_child([parent = ::getpid()] { return ::kill(parent, SIGUSR1); });
    REQUIRE(status == 0);
    post.turn();
    REQUIRE(post.count() == 2);
    CHECK(post.ear().heard[1].number == SIGUSR1);
    CHECK(post.ear().heard[1].sender != ::getpid());
    CHECK(post.ear().heard[1].sender > 0);
    ::raise(SIGUSR1);
    post.turn();
    REQUIRE(post.count() == 3);
    CHECK(post.ear().heard[2].number == SIGUSR1);
    CHECK(post.ear().codes.empty());
}

TEMPLATE_TEST_CASE("signals: five kills may be one event, five real-time signals are five",
                   "[signals]", EpollPoller, PollPoller) {
    Post<TestType> post;
    const int number = SIGRTMIN + 3;
    post.listen({SIGUSR1, number});
    SECTION("five kills before the first is read") {
        for (int n = 0; n < 5; ++n) {
            send_to_us(SIGUSR1);
        }
        post.turn();
        CHECK(post.count() == 1);
    }
    SECTION("five that are read one by one") {
        for (int n = 0; n < 5; ++n) {
            send_to_us(SIGUSR1);
            post.turn();
        }
        CHECK(post.count() == 5);
    }
    SECTION("real-time ones queue, with their values, in order") {
        for (int n = 1; n <= 5; ++n) {
            queue_to_us(number, 10 * n);
        }
        post.turn();
        REQUIRE(post.count() == 5);
        for (int n = 1; n <= 5; ++n) {
            CHECK(post.ear().heard[static_cast<std::size_t>(n - 1)] ==
                  SignalEvent{number, SI_QUEUE, ::getpid(), ::getuid(), 0, 10 * n});
        }
    }
    SECTION("more of them than a turn's budget come with the turns that follow") {
        Options options;
        options.accepts_per_turn = 4;
        Runtime<Ear, TestType> runtime{Ear{}, options};
        runtime.listen(Signals{number});
        runtime.turn(Duration::zero());
        for (int n = 0; n < 10; ++n) {
            queue_to_us(number, n);
        }
        std::size_t turns = 0;
        for (; runtime.service().heard.size() < 10 && turns < 100; ++turns) {
            const std::size_t before = runtime.service().heard.size();
            runtime.turn(Duration::zero());
            CHECK(runtime.service().heard.size() - before <= 4);
        }
        CHECK(runtime.service().heard.size() == 10);
        CHECK(turns >= 3);
    }
}

TEMPLATE_TEST_CASE("signals: one that is paused is not read, and comes when it is resumed",
                   "[signals]", EpollPoller, PollPoller) {
    Post<TestType> post;
    const ResourceId id = post.listen({SIGUSR1});
    post.perform([&](Ear::Actions& actions) { actions.pause(id); });
    send_to_us(SIGUSR1);
    post.turn();
    CHECK(post.count() == 0);
    post.perform([&](Ear::Actions& actions) { actions.resume(id); });
    post.turn();
    CHECK(post.count() == 1);
}

// -- children -------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("signals: SIGCHLD of many children is one event, and waitpid finds them all",
                   "[signals]", EpollPoller, PollPoller) {
    Post<TestType> post;
    std::map<pid_t, int> reaped;
    post.ear().reaction = [&](ResourceId, const SignalEvent&, Ear::Actions&) {
        int status = 0;
        for (pid_t child; (child = ::waitpid(-1, &status, WNOHANG)) > 0;) {
            reaped[child] = WEXITSTATUS(status);
        }
    };
    post.listen({SIGCHLD});
    std::map<pid_t, int> children;
    for (int n = 1; n <= 5; ++n) {
        children[child_that_exits(n)] = n;
    }
    for (const auto& [child, status] : children) {
        await_end(child);
    }
    post.turn();
    REQUIRE(post.count() == 1); // it names one of them only
    CHECK(post.ear().heard[0].code == CLD_EXITED);
    CHECK(children.count(post.ear().heard[0].sender) == 1);
    CHECK(children[post.ear().heard[0].sender] == post.ear().heard[0].status);
    CHECK(reaped == children);
}

namespace {

/// A child as a resource: its pidfd, which can be read when it has ended.
class Child {
  public:
    struct Event {
        int status;
    };

    explicit Child(pid_t child) : fd_(static_cast<int>(::syscall(SYS_pidfd_open, child, 0))) {
        require_ok(static_cast<bool>(fd_), "pidfd_open");
    }
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    [[nodiscard]] Interest interest() const noexcept { return {!reaped_, false}; }
    std::optional<Event> handle_io(Io) noexcept {
        siginfo_t info{};
        const auto process_by_fd = static_cast<idtype_t>(3); // P_PIDFD, as the kernel has it
        if (reaped_ ||
            ::waitid(process_by_fd, static_cast<id_t>(fd()), &info, WEXITED | WNOHANG) != 0 ||
            info.si_pid == 0) {
            return std::nullopt;
        }
        reaped_ = true;
        return Event{info.si_status};
    }
    [[nodiscard]] std::optional<std::error_code> ended() const noexcept {
        return reaped_ ? std::optional(std::error_code()) : std::nullopt;
    }

  private:
    os::Fd fd_;
    bool reaped_ = false;
};
static_assert(Resource<Child>);

struct Parent : Service<Child, NoTransport> {
    void handle_listener_event(ResourceId id, Child::Event event, Actions&) {
        told[id].push_back(event.status);
    }
    void handle_error(Error error, Actions&) { ended.insert(error.id()); }

    std::map<ResourceId, std::vector<int>> told;
    std::set<ResourceId> ended;
};

} // namespace

TEMPLATE_TEST_CASE("signals: a pidfd tells of one child, once, and needs no SIGCHLD", "[signals]",
                   EpollPoller, PollPoller) {
    Runtime<Parent, TestType> runtime{Parent{}};
    std::map<ResourceId, std::vector<int>> expected;
    std::set<ResourceId> ids;
    for (int n = 1; n <= 5; ++n) {
        const ResourceId id = runtime.listen(Child(child_that_exits(n)));
        expected[id] = {n};
        ids.insert(id);
    }
    for (int turns = 0; turns < 10'000 && runtime.service().ended.size() < 5; ++turns) {
        runtime.turn(1ms);
    }
    CHECK(runtime.service().told == expected);
    CHECK(runtime.service().ended == ids);
    CHECK(::waitpid(-1, nullptr, WNOHANG) == -1); // none is left to be reaped
}

// -- who hears ------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("signals: of two loops in two threads that read one signal, one hears each",
                   "[signals]", EpollPoller, PollPoller) {
    const int number = SIGRTMIN + 4;
    constexpr int amount = 300;
    constexpr int loops = 2;
    std::atomic<int> heard{0};
    std::array<std::vector<int>, loops> values;
    {
        std::vector<std::unique_ptr<Runtime<Ear, TestType>>> runtimes;
        for (auto& own : values) {
            runtimes.push_back(std::make_unique<Runtime<Ear, TestType>>(Ear{}));
            runtimes.back()->listen(Signals{number, SIGUSR1});
            runtimes.back()->service().reaction = [&](ResourceId, const SignalEvent& event,
                                                      Ear::Actions&) {
                own.push_back(event.number == SIGUSR1 ? -1 : event.value);
                ++heard;
            };
        }
        std::vector<std::thread> threads;
        for (auto& runtime : runtimes) {
            threads.emplace_back([&] { runtime->run(); });
        }
        for (int n = 0; n < amount; ++n) {
            queue_to_us(number, n);
        }
        const bool all = eventually([&] { return heard == amount; });
        send_to_us(SIGUSR1);
        const bool one_more = eventually([&] { return heard == amount + 1; });
        for (auto& runtime : runtimes) {
            runtime->controller().shutdown();
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
        CHECK(all);
        CHECK(one_more);
    }
    CHECK_FALSE(holds_back(number));
    CHECK_FALSE(holds_back(SIGUSR1));
    std::vector<int> together = values[0];
    together.insert(together.end(), values[1].begin(), values[1].end());
    std::sort(together.begin(), together.end());
    std::vector<int> expected;
    for (int n = -1; n < amount; ++n) {
        expected.push_back(n);
    }
    CHECK(together == expected);
    // What one loop hears, it hears in order.
    for (auto& own : values) {
        own.erase(std::remove(own.begin(), own.end(), -1), own.end());
        CHECK(std::is_sorted(own.begin(), own.end()));
    }
}

TEMPLATE_TEST_CASE("signals: of two in one loop that read one signal, one hears it", "[signals]",
                   EpollPoller, PollPoller) {
    Post<TestType> post;
    const ResourceId first = post.listen({SIGUSR1});
    const ResourceId second = post.listen({SIGUSR1, SIGUSR2});
    std::vector<ResourceId> who;
    post.ear().reaction = [&](ResourceId id, const SignalEvent&, Ear::Actions&) {
        who.push_back(id);
    };
    for (int n = 1; n <= 10; ++n) {
        send_to_us(SIGUSR1);
        post.turn();
        CHECK(post.count() == static_cast<std::size_t>(n));
    }
    CHECK(std::all_of(who.begin(), who.end(),
                      [&](ResourceId id) { return id == first || id == second; }));
    CHECK(post.ear().codes.empty());
}

TEMPLATE_TEST_CASE("signals: a reactor made afterwards hears them on its thread", "[signals]",
                   EpollPoller, PollPoller) {
    std::atomic<int> heard{0};
    std::atomic<bool> elsewhere{false};
    {
        Ear ear;
        ear.reaction = [&, here = std::this_thread::get_id()](
                           ResourceId, const SignalEvent& event, Ear::Actions& actions) {
            elsewhere = std::this_thread::get_id() != here;
            heard = event.number;
            actions.shutdown();
        };
        Signals signals{SIGUSR1}; // before the thread, which inherits the mask
        Reactor<Ear, TestType> reactor{std::move(ear)};
        reactor.listen(std::move(signals));
        send_to_us(SIGUSR1);
        CHECK(reactor.join().clean);
        CHECK(holds_back(SIGUSR1)); // the service has it back
    }
    CHECK(heard == SIGUSR1);
    CHECK(elsewhere);
    CHECK_FALSE(holds_back(SIGUSR1)); // it went with the reactor, on the thread that made it
}

// -- leaving --------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("signals: unregistered in its own event it comes back with what is pending",
                   "[signals]", EpollPoller, PollPoller) {
    const int number = SIGRTMIN + 5;
    Post<TestType> post;
    post.ear().reaction = [](ResourceId id, const SignalEvent&, Ear::Actions& actions) {
        actions.unregister_listener(id);
    };
    post.listen({number});
    for (int n = 1; n <= 3; ++n) {
        queue_to_us(number, n);
    }
    post.turn();
    post.turn();
    REQUIRE(post.count() == 1);
    CHECK(post.ear().heard[0].value == 1);
    REQUIRE(post.ear().back);
    CHECK(next_of(*post.ear().back).value == 2);
    CHECK(holds_back(number));

    SECTION("registered again, it is heard again") {
        post.ear().reaction = nullptr;
        post.listen(std::move(*post.ear().back));
        post.turn();
        REQUIRE(post.count() == 2);
        CHECK(post.ear().heard[1].value == 3);
    }
    SECTION("destroyed, it lets in what comes from then on") {
        post.ear().back.reset();
        CHECK_FALSE(holds_back(number));
    }
}

TEMPLATE_TEST_CASE("signals: what is pending at the end cannot strike", "[signals]", EpollPoller,
                   PollPoller) {
    // The default action of these is to kill the process.
    const auto strikes = [](auto body) { return WIFSIGNALED(in_child(body)); };
    CHECK(strikes([] {
        send_to_us(SIGUSR1);
        return 0;
    }));
    CHECK_FALSE(strikes([] {
        Signals signals{SIGUSR1, SIGTERM};
        send_to_us(SIGUSR1);
        send_to_us(SIGTERM);
        return 0;
    }));
    CHECK_FALSE(strikes([] {
        Post<TestType> post;
        post.listen({SIGUSR1, SIGRTMIN});
        send_to_us(SIGUSR1);
        for (int n = 0; n < 5; ++n) {
            queue_to_us(SIGRTMIN, n);
        }
        return 0;
    }));
    CHECK_FALSE(strikes([] {
        Post<TestType> post;
        post.ear().reaction = [](ResourceId, const SignalEvent&, Ear::Actions& actions) {
            send_to_us(SIGUSR1);
            actions.shutdown();
        };
        post.listen({SIGUSR1});
        send_to_us(SIGUSR1);
        post.turn();
        return 0;
    }));
    // What comes when it has gone does what it did before.
    CHECK(strikes([] {
        { Signals signals{SIGUSR1}; }
        send_to_us(SIGUSR1);
        return 0;
    }));
}

// -- the mask -------------------------------------------------------------------------------------

TEST_CASE("signals: the mask is what it was when the last one goes", "[signals]") {
    const sigset_t before = mask();
    REQUIRE_FALSE(holds_back(before, SIGUSR1));
    SECTION("of one") {
        {
            Signals signals{SIGUSR1, SIGUSR2};
            CHECK(holds_back(SIGUSR1));
            CHECK(holds_back(SIGUSR2));
            CHECK_FALSE(holds_back(SIGHUP));
        }
        CHECK(same(mask(), before));
    }
    SECTION("of one that is moved about") {
        {
            Signals first{SIGUSR1};
            Signals second(std::move(first));
            CHECK(holds_back(SIGUSR1));
            second = Signals{SIGUSR2};
            CHECK_FALSE(holds_back(SIGUSR1));
            CHECK(holds_back(SIGUSR2));
        }
        CHECK(same(mask(), before));
    }
    SECTION("of two that share a signal, whichever goes first") {
        const bool older_first = GENERATE(true, false);
        auto older = std::optional<Signals>(Signals{SIGUSR1, SIGUSR2});
        auto younger = std::optional<Signals>(Signals{SIGUSR1, SIGHUP});
        (older_first ? older : younger).reset();
        CHECK(holds_back(SIGUSR1));
        CHECK(holds_back(SIGUSR2) != older_first);
        CHECK(holds_back(SIGHUP) == older_first);
        send_to_us(SIGUSR1);
        CHECK(next_of(*(older_first ? younger : older)).number == SIGUSR1);
        (older_first ? younger : older).reset();
        CHECK(same(mask(), before));
    }
    SECTION("of one whose signal is named twice") {
        { Signals signals{SIGUSR1, SIGUSR1}; }
        CHECK(same(mask(), before));
    }
    SECTION("what somebody else held back stays held back, and pending") {
        set_mask(SIG_BLOCK, SIGUSR1);
        {
            Signals signals{SIGUSR1};
            send_to_us(SIGUSR1);
        }
        CHECK(holds_back(SIGUSR1));
        sigset_t pending{};
        ::sigpending(&pending);
        CHECK(holds_back(pending, SIGUSR1));
        Signals later{SIGUSR1};
        CHECK(next_of(later).number == SIGUSR1);
        set_mask(SIG_UNBLOCK, SIGUSR1);
        CHECK(same(mask(), before));
    }
}

TEST_CASE("signals: one that goes on another thread leaves the masks of both", "[signals]") {
    std::optional<Signals> signals;
    bool held_after = false;
    bool let_in_again = true;
    std::atomic<int> step{0};
    const auto await = [&](int wanted) {
        while (step != wanted) {
            std::this_thread::yield();
        }
    };
    SECTION("while the one that made it lives") {
        std::thread maker([&] {
            signals.emplace(Signals{SIGUSR1});
            step = 1;
            await(2);
            held_after = holds_back(SIGUSR1);
        });
        await(1);
        signals.reset();
        step = 2;
        maker.join();
        CHECK(held_after);
    }
    SECTION("when the one that made it has ended, and another stands in its place") {
        std::thread([&] { signals.emplace(Signals{SIGUSR1}); }).join();
        std::thread([&] {
            Signals own{SIGUSR1};
            signals.reset();
            let_in_again = !holds_back(SIGUSR1);
        }).join();
        CHECK_FALSE(let_in_again);
    }
    CHECK_FALSE(signals);
    CHECK_FALSE(holds_back(SIGUSR1));
}

TEST_CASE("signals: what cannot be held back is refused, and no mask changes", "[signals]") {
    const sigset_t before = mask();
    std::error_code error;
    const std::vector<std::vector<int>> lists{
        {}, {SIGKILL}, {SIGUSR1, SIGSTOP}, {SIGUSR1, 0}, {-1}, {_NSIG}, {INT_MAX}, {32}};
    for (const std::vector<int>& numbers : lists) {
        const Signals signals(numbers, error);
        CHECK(error == std::errc::invalid_argument);
        CHECK(signals.fd() == -1);
        CHECK_THROWS_AS(Signals(std::span<const int>(numbers)), std::system_error);
    }
    CHECK(same(mask(), before));

    // An empty one comes back.
    Post<EpollPoller> post;
    post.listen(Signals({SIGKILL}, error));
    post.turn();
    REQUIRE(post.ear().codes.size() == 1);
    CHECK(post.ear().codes[0] == std::errc::bad_file_descriptor);
}

namespace {

struct NoDescriptors : os::Kernel {
    static os::Result signal_fd(const sigset_t&) noexcept { return {0, EMFILE}; }
};
struct BrokenRead : os::Kernel {
    static os::Result read(int, std::span<std::byte>) noexcept { return answer; }
    static inline os::Result answer;
};

} // namespace

TEST_CASE("signals: without a descriptor there is none, and no mask changes", "[signals]") {
    const sigset_t before = mask();
    std::error_code error;
    const BasicSignals<NoDescriptors> signals({SIGUSR1}, error);
    CHECK(error == std::errc::too_many_files_open);
    CHECK(signals.fd() == -1);
    CHECK_THROWS_AS(BasicSignals<NoDescriptors>({SIGUSR1}), std::system_error);
    CHECK(same(mask(), before));
}

TEST_CASE("signals: a descriptor that cannot be read is its end, with the cause", "[signals]") {
    BasicSignals<BrokenRead> signals({SIGUSR1});
    BrokenRead::answer = {0, EAGAIN};
    CHECK_FALSE(signals.handle_io(Io::read));
    CHECK_FALSE(signals.ended());
    CHECK(signals.interest() == Interest{true, false});
    const int error = GENERATE(EBADF, 0); // 0: an end of file, which there cannot be
    BrokenRead::answer = {0, error};
    CHECK_FALSE(signals.handle_io(Io::read));
    REQUIRE(signals.ended());
    CHECK(signals.ended()->value() == (error == 0 ? EIO : error));
    CHECK(signals.interest().none());
}

// -- programs that are started --------------------------------------------------------------------

namespace {

/// What this prints, run in place of a copy of this process.
std::string printed_by(const std::function<pid_t(int out)>& start) {
    int ends[2];
    require_ok(::pipe2(ends, O_CLOEXEC) == 0, "pipe2");
    const os::Fd in(ends[0]);
    os::Fd out(ends[1]);
    const pid_t child = start(out.get());
    require_ok(child > 0, "start");
    out.reset();
    std::string text;
    char piece[1024];
    for (;;) {
        const ssize_t count = ::read(in.get(), piece, sizeof piece);
        if (count > 0) {
            text.append(piece, static_cast<std::size_t>(count));
        } else if (count == 0 || errno != EINTR) {
            break;
        }
    }
    while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
    return text;
}
/// grep(1), which prints what it holds back.
const std::array<const char*, 4> prints_its_mask{"grep", "SigBlk", "/proc/self/status", nullptr};

std::string mask_of_spawned(bool with_empty_mask) {
    return printed_by([=](int out) {
        posix_spawn_file_actions_t files;
        posix_spawnattr_t how;
        ::posix_spawn_file_actions_init(&files);
        ::posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
        ::posix_spawnattr_init(&how);
        if (with_empty_mask) {
            sigset_t none;
            sigemptyset(&none);
            ::posix_spawnattr_setsigmask(&how, &none);
            ::posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK);
        }
        pid_t child = -1;
        ::posix_spawnp(&child, prints_its_mask[0], &files, &how,
                       const_cast<char**>(prints_its_mask.data()), environ);
        ::posix_spawnattr_destroy(&how);
        ::posix_spawn_file_actions_destroy(&files);
        return child;
    });
}
std::string mask_of_forked() {
    return printed_by([](int out) {
        const pid_t child = ::fork();
        if (child == 0) {
            sigset_t none;
            sigemptyset(&none);
            ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
            ::dup2(out, STDOUT_FILENO);
            ::execvp(prints_its_mask[0], const_cast<char**>(prints_its_mask.data()));
            ::_exit(127);
        }
        return child;
    });
}

} // namespace

TEST_CASE("signals: a program that is given an empty mask starts with one", "[signals]") {
    const std::string empty = "SigBlk:\t0000000000000000\n";
    CHECK(mask_of_spawned(false) == empty);
    Signals signals{SIGUSR1, SIGCHLD};
    CHECK(mask_of_spawned(false) != empty); // inherited
    CHECK(mask_of_spawned(true) == empty);
    CHECK(mask_of_forked() == empty);
    CHECK(holds_back(SIGUSR1));
}

TEST_CASE("signals: the descriptor is closed by exec and does not block", "[signals]") {
    const Signals signals{SIGUSR1};
    CHECK((::fcntl(signals.fd(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((::fcntl(signals.fd(), F_GETFL) & O_NONBLOCK) != 0);
}
