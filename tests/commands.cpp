// SPDX-License-Identifier: Apache-2.0
//
// What other threads send: each command once, in each sender's order, whatever else happens; and
// the thread that runs the loop, from its start to its end.
#include <reactor/net/stream.hpp>
#include <reactor/net/tcp.hpp>
#include <reactor/poller/epoll.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/reactor.hpp>

#include <sys/socket.h>

#include <array>
#include <csignal>
#include <thread>

#include "calm.hpp"
#include "catch.hpp"
#include "sanitized.hpp"
#include "scripted.hpp"

using namespace scripted;

namespace {

constexpr int senders = 8;
constexpr int commands = sanitized ? 100'000 : 1'000'000;

using Epoll = BasicEpollPoller<RungKernel>;
using Poll = BasicPollPoller<RungKernel>;

/// A command of which every object is counted, on any thread.
class Order {
  public:
    Order(int from, int counted) noexcept : sender(from), number(counted) { ++live; }
    Order(Order&& other) noexcept
        : sender(other.sender),
          number(other.number),
          stands_(std::exchange(other.stands_, false)) {}
    Order& operator=(Order&& other) noexcept {
        live -= stands_ ? 1 : 0;
        sender = other.sender;
        number = other.number;
        stands_ = std::exchange(other.stands_, false);
        return *this;
    }
    ~Order() { live -= stands_ ? 1 : 0; }

    inline static std::atomic<int> live{0};

    int sender;
    int number;

  private:
    bool stands_ = true;
};

/// Handles orders and looks at their order.
struct Foreman : Service<NoListener, NoTransport, Order> {
    struct Books {
        std::array<int, senders> next{};
        int handled = 0;
        int out_of_order = 0;
        int stop_at = -1;
        int drain_at = -1;
    };
    explicit Foreman(Books& with) noexcept : books(&with) {}

    void handle_command(Order order, Actions& actions) {
        int& next = books->next[static_cast<std::size_t>(order.sender)];
        books->out_of_order += order.number >= next ? 0 : 1;
        next = order.number + 1;
        ++books->handled;
        if (books->handled == books->stop_at) {
            actions.shutdown();
        }
        if (books->handled == books->drain_at) {
            actions.drain(1h);
        }
    }
    Books* books;
};

/// What became of all that one thread sent.
struct Tally {
    int accepted = 0;
    int given_back = 0;
    int lost = 0;
    bool closed = false;
};

/// Sends `count` orders; where there is no room tries again, after the end gives up.
Tally send_all(const Foreman::Controller& controller, int sender, int count) {
    Tally tally;
    for (int number = 0; number < count && !tally.closed;) {
        auto answer = controller.command(Order(sender, number));
        if (answer) {
            ++tally.accepted;
            ++number;
            continue;
        }
        const auto order = answer.take();
        const bool whole = order && order->sender == sender && order->number == number;
        ++(whole ? tally.given_back : tally.lost);
        tally.closed = answer.closed();
        if (answer.full()) {
            std::this_thread::yield();
        }
    }
    return tally;
}

} // namespace

namespace {

/// Counts its waits: how often the loop may have slept.
template <class P>
struct WaitCountingPoller : P {
    inline static int waits = 0;
    [[nodiscard]] PollResult wait(Duration timeout, std::size_t most) {
        ++waits;
        return P::wait(timeout, most);
    }
};

using CountedEpoll = WaitCountingPoller<Epoll>;
using CountedPoll = WaitCountingPoller<Poll>;

/// Eight threads send `count` orders each, while `meanwhile` goes on here.
template <class Meanwhile>
std::array<Tally, senders> send_from_all(const Foreman::Controller& controller, int count,
                                         Meanwhile&& meanwhile) {
    std::array<Tally, senders> tallies;
    std::vector<std::thread> threads;
    for (int n = 0; n < senders; ++n) {
        threads.emplace_back([&tallies, n, count, controller] {
            tallies[static_cast<std::size_t>(n)] = send_all(controller, n, count);
        });
    }
    meanwhile();
    for (std::thread& thread : threads) {
        thread.join();
    }
    return tallies;
}
[[nodiscard]] int accepted_of(const std::array<Tally, senders>& tallies) {
    int accepted = 0;
    for (const Tally& tally : tallies) {
        accepted += tally.accepted;
    }
    return accepted;
}
[[nodiscard]] int lost_of(const std::array<Tally, senders>& tallies) {
    int lost = 0;
    for (const Tally& tally : tallies) {
        lost += tally.lost;
    }
    return lost;
}

/// Waits for what only a broken library does not bring about.
template <class Condition>
void wait_until(Condition&& condition) {
    while (!condition()) {
        std::this_thread::yield();
    }
}

} // namespace

// -- exactly once ---------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("eight threads send a million commands: each comes once, in its sender's order",
                   "", CountedEpoll, CountedPoll) {
    RungKernel::rings = 0;
    TestType::waits = 0;
    Order::live = 0;
    Foreman::Books books;
    books.stop_at = commands;
    {
        Reactor<Foreman, TestType> reactor{Foreman(books)};
        const auto tallies = send_from_all(reactor.controller(), commands / senders, [] {});
        CHECK(reactor.join().clean);
        CHECK(accepted_of(tallies) == commands);
        CHECK(lost_of(tallies) == 0);
    }
    CHECK(books.handled == commands);
    CHECK(books.out_of_order == 0);
    CHECK(Order::live == 0);
    CHECK(RungKernel::rings <= TestType::waits + 1); // one a sleep at most, none while awake
    CHECK(RungKernel::rings < commands / 2);
}

TEMPLATE_TEST_CASE("a shutdown in the middle: each is handled, destroyed by the end, or given back",
                   "", CountedEpoll, CountedPoll) {
    Order::live = 0;
    Foreman::Books books;
    const bool from_inside = GENERATE(true, false);
    std::array<Tally, senders> tallies;
    Foreman::Controller controller;
    {
        Reactor<Foreman, TestType> reactor{[&] {
            books.stop_at = from_inside ? commands / 8 : -1;
            return Foreman(books);
        }()};
        controller = reactor.controller();
        tallies = send_from_all(controller, commands, [&] {
            if (!from_inside) {
                controller.shutdown();
            }
        });
        reactor.join();
        CHECK(Order::live == 0); // destroyed by the end, not by the last controller
    }
    for (const Tally& tally : tallies) {
        CHECK(tally.closed);
        CHECK(tally.lost == 0);
    }
    CHECK(books.handled <= accepted_of(tallies));
    if (from_inside) {
        CHECK(books.handled == books.stop_at);
    }
    CHECK(books.out_of_order == 0);
    CHECK(Order::live == 0);
}

TEST_CASE("a runtime may be destroyed while others are sending to it") {
    Order::live = 0;
    int out_of_order = 0;
    int lost = 0;
    for (int round = 0; round < (sanitized ? 10 : 100); ++round) {
        Foreman::Books books;
        auto reactor = std::make_unique<Reactor<Foreman, Epoll>>(Foreman(books));
        const auto controller = reactor->controller();
        const auto tallies = send_from_all(controller, 2'000, [&] {
            for (int n = 0; n < round; ++n) {
                std::this_thread::yield();
            }
            reactor.reset();
        });
        out_of_order += books.out_of_order;
        lost += lost_of(tallies);
        CHECK(Order::live == 0);
    }
    CHECK(out_of_order == 0);
    CHECK(lost == 0);
}

TEMPLATE_TEST_CASE("no wake is lost, however a send falls between the loop's look and its sleep",
                   "", Epoll, Poll) {
    struct Counting : Service<NoListener, NoTransport, int> {
        explicit Counting(std::atomic<int>& to) noexcept : handled(&to) {}
        void handle_command(int command, Actions&) {
            handled->store(command, std::memory_order_release);
        }
        std::atomic<int>* handled;
    };
    std::atomic<int> handled{0};
    Reactor<Counting, TestType> reactor{Counting(handled)};
    const auto controller = reactor.controller();
    bool refused = false;
    for (int n = 1; n <= (sanitized ? 2'000 : 20'000); ++n) {
        refused |= !controller.command(int{n});
        for (int spin = 0; handled.load(std::memory_order_acquire) != n; ++spin) {
            if (spin > n % 64) { // a loss would leave us here
                std::this_thread::yield();
            }
        }
    }
    CHECK_FALSE(refused);
}

// -- rings ----------------------------------------------------------------------------------------

namespace {

/// Lets a test do something while the loop sleeps.
struct SleepingPoller : ScriptedPoller {
    [[nodiscard]] PollResult wait(Duration timeout, std::size_t most) {
        if (timeout > Duration::zero() && asleep) {
            std::exchange(asleep, nullptr)();
        }
        return ScriptedPoller::wait(timeout == Duration::max() ? Duration(1h) : timeout, most);
    }
    std::function<void()> asleep;
};

using SleepingRuntime = Runtime<ScriptedService<>, SleepingPoller>;

} // namespace

TEST_CASE("a burst rings once, and only while the loop sleeps") {
    noted.clear();
    ToyAnswers answers;
    SleepingRuntime runtime{ScriptedService<>(answers)};
    const auto controller = runtime.controller();
    RungKernel::rings = 0;
    for (int n = 0; n < 100; ++n) {
        REQUIRE(controller.command(int{n})); // before the run
    }
    runtime.turn(1h);
    CHECK(RungKernel::rings == 0);
    CHECK(runtime.poller().sleeps == 0);

    runtime.poller().asleep = [&] {
        for (int n = 0; n < 100; ++n) {
            REQUIRE(controller.command(int{n}));
        }
        controller.wake();
        CHECK(RungKernel::rings == 1);
    };
    runtime.turn(1h);
    CHECK(RungKernel::rings == 1);
    CHECK_FALSE(runtime.poller().asleep);

    for (int n = 0; n < 100; ++n) {
        REQUIRE(controller.command(int{n})); // between two turns
        controller.wake();
    }
    runtime.poller().sleeps = 0;
    runtime.turn(1h);
    CHECK(RungKernel::rings == 1);
    CHECK(runtime.poller().sleeps == 0);
}

TEST_CASE("a command from a handler on the loop's own thread never rings, and comes next turn") {
    noted.clear();
    ToyAnswers answers;
    SleepingRuntime runtime{ScriptedService<>(answers)};
    const auto controller = runtime.controller();
    RungKernel::rings = 0;
    answers.start = [&](ToyActions&) { REQUIRE(controller.command(0)); };
    answers.command = [&](int command, ToyActions&) {
        if (command < 3) {
            REQUIRE(controller.command(command + 1));
            controller.wake();
        }
    };
    for (int n = 0; n < 4; ++n) {
        runtime.turn(1h);
        CHECK(runtime.poller().last_timeout() == 0s);
    }
    bool first = true;
    answers.tick = [&](ToyActions&) {
        if (std::exchange(first, false)) {
            REQUIRE(controller.command(3)); // just awake from a sleep
        }
    };
    runtime.turn(1h);
    CHECK(runtime.poller().last_timeout() == 1h);
    CHECK(take_notes() == "start command(0) command(1) command(2) command(3) command(3)");
    CHECK(RungKernel::rings == 0);
}

TEST_CASE("a wake ends the wait under way, or the next one") {
    noted.clear();
    ToyAnswers answers;
    SleepingRuntime runtime{ScriptedService<>(answers)};
    const auto controller = runtime.controller();
    runtime.turn(0s);
    RungKernel::rings = 0;
    controller.wake();
    controller.wake();
    runtime.turn(1h);
    CHECK(runtime.poller().last_timeout() == 0s);
    CHECK(RungKernel::rings == 0);
    runtime.poller().asleep = [&] { controller.wake(); };
    runtime.turn(1h);
    CHECK(runtime.poller().last_timeout() == 1h);
    CHECK(RungKernel::rings == 1);
    runtime.turn(1h);
    CHECK(RungKernel::rings == 1);
}

namespace {

Controller<Toy, Toy, int>* woken_by_signal = nullptr;
void wake_in_handler(int) { woken_by_signal->wake(); }

} // namespace

TEMPLATE_TEST_CASE("a signal handler may wake the loop", "", Epoll, Poll) {
    noted.clear();
    ToyAnswers answers;
    std::atomic<int> ticks{0};
    answers.tick = [&](ToyActions&) { ++ticks; };
    Reactor<ScriptedService<>, TestType> reactor{ScriptedService<>(answers)};
    auto controller = reactor.controller();
    woken_by_signal = &controller;
    struct sigaction action {};
    struct sigaction before {};
    action.sa_handler = wake_in_handler;
    REQUIRE(::sigaction(SIGUSR1, &action, &before) == 0);
    for (int n = 0; n < 100; ++n) {
        const int seen = ticks;
        ::pthread_kill(::pthread_self(), SIGUSR1); // to this thread: the loop's wait is not hit
        wait_until([&] { return ticks != seen; });
    }
    REQUIRE(::sigaction(SIGUSR1, &before, nullptr) == 0);
    controller.shutdown();
    reactor.join();
    CHECK(ticks >= 100);
    noted.clear();
}

namespace {

/// Remembers the bell.
struct BellKernel : os::Kernel {
    inline static int bell = -1;
    static os::Result event_fd() noexcept {
        const os::Result made = os::Kernel::event_fd();
        bell = made.fd_or_none();
        return made;
    }
};

} // namespace

TEMPLATE_TEST_CASE("a bell that can count no further rings all the same", "",
                   BasicEpollPoller<BellKernel>, BasicPollPoller<BellKernel>) {
    struct Counting : Service<NoListener, NoTransport, int> {
        explicit Counting(std::atomic<int>& to) noexcept : handled(&to) {}
        void handle_command(int command, Actions&) { handled->store(command); }
        std::atomic<int>* handled;
    };
    std::atomic<int> handled{0};
    Reactor<Counting, TestType> reactor{Counting(handled)};
    for (int n = 1; n <= 100; ++n) {
        std::uint64_t count = 0;
        static_cast<void>(::read(BellKernel::bell, &count, sizeof count));
        count = ~std::uint64_t{0} - 1;
        REQUIRE(::write(BellKernel::bell, &count, sizeof count) == sizeof count);
        REQUIRE(reactor.controller().command(int{n}));
        wait_until([&] { return handled == n; });
    }
    CHECK(handled == 100);
}

// -- full and closed ------------------------------------------------------------------------------

TEST_CASE("a full channel gives back, and takes again when a place is free") {
    Order::live = 0;
    Foreman::Books books;
    Options options;
    options.command_queue = 4;
    options.commands_per_turn = 3;
    Runtime<Foreman, ScriptedPoller> runtime{Foreman(books), options};
    const auto controller = runtime.controller();
    for (int n = 0; n < 4; ++n) {
        REQUIRE(controller.command(Order(0, n)));
    }
    auto answer = controller.command(Order(0, 99));
    CHECK_FALSE(answer);
    CHECK(answer.full());
    CHECK_FALSE(answer.closed());
    CHECK(answer.status() == SendStatus::full);
    CHECK(answer.take()->number == 99);
    CHECK_FALSE(answer.take().has_value());
    CHECK(Order::live == 4);
    runtime.turn(0s);
    CHECK(books.handled == 3);
    for (int n = 4; n < 7; ++n) {
        CHECK(controller.command(Order(0, n)));
    }
    CHECK(controller.command(Order(0, 7)).full());
    runtime.turn(0s);
    runtime.turn(0s);
    runtime.turn(0s);
    CHECK(books.handled == 7);
    CHECK(books.out_of_order == 0);
    CHECK(Order::live == 0);
}

TEST_CASE("a handler may send even at the limit: its own command has left its place") {
    noted.clear();
    ToyAnswers answers;
    Options options;
    options.command_queue = 1;
    Runtime<ScriptedService<>, ScriptedPoller> runtime{ScriptedService<>(answers), options};
    const auto controller = runtime.controller();
    answers.command = [&](int command, ToyActions&) {
        CHECK(controller.command(command + 1));
        CHECK(controller.command(0).full());
    };
    REQUIRE(controller.command(1));
    runtime.turn(0s);
    runtime.turn(0s);
    CHECK(take_notes() == "start command(1) command(2)");
}

TEST_CASE("full and closed give back listeners and transports as well, open") {
    Options options;
    options.command_queue = 2;
    const auto pair = [] {
        std::array<int, 2> ends{};
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
        return ends;
    };
    using Tcp = ScriptedService<TcpListener, Stream, int>;
    Answers<TcpListener, Stream, int> answers;
    auto runtime = std::make_unique<Runtime<Tcp, EpollPoller>>(Tcp(answers), options);
    const Tcp::Controller controller = runtime->controller();
    REQUIRE(controller.command(1));
    REQUIRE(controller.command(2));
    const auto ends = pair();
    const os::Fd theirs(ends[1]);
    auto refused = controller.register_transport(Stream(os::Fd(ends[0])));
    CHECK(refused.full());
    auto refused_listener = controller.register_listener(TcpListener::bind("127.0.0.1:0"));
    CHECK(refused_listener.full());
    runtime.reset();
    auto late = controller.register_transport(*refused.take());
    CHECK(late.closed());
    auto late_listener = controller.register_listener(*refused_listener.take());
    CHECK(late_listener.closed());
    const Stream stream = *late.take();
    CHECK(::write(stream.fd(), "x", 1) == 1);
    CHECK_FALSE(late_listener.take()->local().empty());
    const Tcp::Controller unconnected;
    CHECK(unconnected.command(1).closed());
    unconnected.shutdown();
    unconnected.drain(1s);
    unconnected.wake();
}

TEST_CASE("who sends after the runtime is gone gets his own back, and touches no descriptor") {
    Order::live = 0;
    RungKernel::rings = 0;
    Foreman::Books books;
    Foreman::Controller controller;
    {
        Runtime<Foreman, BasicEpollPoller<RungKernel>> runtime{Foreman(books)};
        controller = runtime.controller();
        runtime.turn(0s);
    }
    int foreign[16];
    for (int& fd : foreign) { // whatever numbers have become free
        fd = os::Kernel::event_fd().fd();
    }
    std::vector<std::thread> late;
    std::atomic<int> closed{0};
    for (int n = 0; n < 4; ++n) {
        late.emplace_back([&, copy = controller] {
            for (int again = 0; again < 1000; ++again) {
                auto answer = copy.command(Order(0, again));
                closed += answer.closed() && answer.take()->number == again ? 1 : 0;
                copy.wake();
                copy.shutdown();
            }
        });
    }
    for (std::thread& thread : late) {
        thread.join();
    }
    CHECK(closed == 4000);
    CHECK(Order::live == 0);
    CHECK(RungKernel::rings == 0);
    for (const int fd : foreign) {
        pollfd look{fd, POLLIN, 0};
        CHECK(test::calmly([&] { return ::poll(&look, 1, 0); }) == 0);
        ::close(fd);
    }
}

TEST_CASE("a drain handles the commands that were accepted before it was asked for") {
    Order::live = 0;
    Foreman::Books books;
    Options options;
    options.commands_per_turn = 2;
    Runtime<Foreman, ScriptedPoller> runtime{Foreman(books), options};
    const auto controller = runtime.controller();
    for (int n = 0; n < 10; ++n) {
        REQUIRE(controller.command(Order(0, n)));
    }
    controller.drain(1h);
    CHECK(runtime.run().clean);
    CHECK(books.handled == 10);
    CHECK(Order::live == 0);
}

// -- kinds of command -----------------------------------------------------------------------------

namespace {

struct Large {
    std::array<char, 64 * 1024> bytes{};
};

/// Its move throws when told so.
struct Touchy {
    explicit Touchy(int count) noexcept : number(count) {}
    Touchy(Touchy&& other) : number(other.number) {
        if (armed) {
            armed = false;
            throw std::runtime_error("touched");
        }
    }
    Touchy& operator=(Touchy&& other) noexcept {
        number = other.number;
        return *this;
    }
    int number;
    inline static bool armed = false;
};

} // namespace

TEST_CASE("a command may be large") {
    Answers<NoListener, NoTransport, Large> answers;
    using Heavy = ScriptedService<NoListener, NoTransport, Large>;
    Runtime<Heavy, ScriptedPoller> runtime{Heavy(answers)};
    int handled = 0;
    answers.command = [&](Large& large, auto&) {
        handled += large.bytes.front() == 'a' && large.bytes.back() == 'z' ? 1 : 0;
    };
    for (int n = 0; n < 300; ++n) {
        auto large = std::make_unique<Large>();
        large->bytes.front() = 'a';
        large->bytes.back() = 'z';
        REQUIRE(runtime.controller().command(std::move(*large)));
    }
    runtime.turn(0s);
    CHECK(handled == 300);
    take_notes();
}

TEST_CASE("a command whose move throws stays with its sender, or stays the next") {
    Answers<NoListener, NoTransport, Touchy> answers;
    using Careful = ScriptedService<NoListener, NoTransport, Touchy>;
    Runtime<Careful, ScriptedPoller> runtime{Careful(answers)};
    std::vector<int> handled;
    answers.command = [&](Touchy& command, auto&) { handled.push_back(command.number); };
    const auto controller = runtime.controller();
    REQUIRE(controller.command(Touchy(1)));
    Touchy::armed = true;
    CHECK_THROWS(controller.command(Touchy(2)));
    REQUIRE(controller.command(Touchy(3)));
    Touchy::armed = true;
    CHECK_THROWS(runtime.turn(0s));
    runtime.turn(0s);
    CHECK(handled == std::vector<int>{1, 3});
    take_notes();
}

TEMPLATE_TEST_CASE("listeners and transports come from other threads, and are served", "",
                   EpollPoller, PollPoller) {
    using Tcp = ScriptedService<TcpListener, TcpStream, int>;
    Answers<TcpListener, TcpStream, int> answers;
    answers.listener_event = [](ResourceId, TcpListener::Event& event, auto& actions) {
        static_cast<void>(actions.register_transport(std::move(event.stream)));
    };
    answers.transport_event = [](ResourceId id, StreamEvent& event, auto& actions) {
        if (const auto* const bytes = event.data()) {
            actions.send(id, *bytes);
        } else if (event.eof()) {
            actions.close_write(id);
        }
    };
    Reactor<Tcp, TestType> reactor{Tcp(answers)};
    const auto controller = reactor.controller();
    TcpListener listener = TcpListener::bind("127.0.0.1:0");
    const Address address = listener.local();
    bool accepted = false;
    std::thread([&] {
        accepted = static_cast<bool>(controller.register_listener(std::move(listener)));
    }).join();
    CHECK(accepted);

    const os::Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const test::Calm calm; // what blocks here are calls of the test
    REQUIRE(::connect(client.get(), address.data(), address.size()) == 0);
    TcpListener own = TcpListener::bind("127.0.0.1:0"); // to make a pair of TCP ends
    const os::Fd other(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(other.get(), own.local().data(), own.local().size()) == 0);
    std::optional<TcpListener::Event> ours;
    wait_until([&] { return (ours = own.handle_io(Io::read)).has_value(); });
    REQUIRE(controller.register_transport(std::move(ours->stream)));
    for (const os::Fd* fd : {&client, &other}) {
        REQUIRE(::write(fd->get(), "hello", 5) == 5);
        char bytes[8];
        CHECK(::recv(fd->get(), bytes, 5, MSG_WAITALL) == 5);
        REQUIRE(::shutdown(fd->get(), SHUT_WR) == 0);
        CHECK(::recv(fd->get(), bytes, 5, MSG_WAITALL) == 0);
    }
    controller.drain(1h);
    CHECK(reactor.join().clean);
    noted.clear();
}

// -- the thread -----------------------------------------------------------------------------------

namespace {

struct Failing : Service<NoListener, NoTransport, int> {
    void handle_command(int, Actions&) { throw std::runtime_error("as a test wants it"); }
};

/// Handlers that do nothing, for a while: others that are there then are the library's.
class NoHandlers {
  public:
    NoHandlers() {
        struct sigaction none {};
        none.sa_handler = &do_nothing;
        REQUIRE(::sigaction(SIGINT, &none, &interrupt_) == 0);
        REQUIRE(::sigaction(SIGTERM, &none, &terminate_) == 0);
    }
    ~NoHandlers() {
        ::sigaction(SIGINT, &interrupt_, nullptr);
        ::sigaction(SIGTERM, &terminate_, nullptr);
    }
    NoHandlers(const NoHandlers&) = delete;
    NoHandlers& operator=(const NoHandlers&) = delete;

    [[nodiscard]] static bool still() { return is_ours(SIGINT) && is_ours(SIGTERM); }
    /// Of both: between the first and the second a signal would still be lost on ours.
    [[nodiscard]] static bool replaced() { return !is_ours(SIGINT) && !is_ours(SIGTERM); }

  private:
    [[nodiscard]] static bool is_ours(int signal) {
        struct sigaction now {};
        ::sigaction(signal, nullptr, &now);
        return now.sa_handler == &do_nothing;
    }
    static void do_nothing(int) {}
    struct sigaction interrupt_ {};
    struct sigaction terminate_ {};
};
[[nodiscard]] bool handlers_stand() { return NoHandlers::replaced(); }

using Idle = ScriptedService<NoListener, NoTransport, int>;
using IdleAnswers = Answers<NoListener, NoTransport, int>;

} // namespace

TEMPLATE_TEST_CASE("join rethrows what a callback threw, once; from then on commands are refused",
                   "", EpollPoller, PollPoller) {
    Reactor<Failing, TestType> reactor{Failing{}};
    const auto controller = reactor.controller();
    REQUIRE(controller.command(1));
    CHECK_THROWS_WITH(reactor.join(), "as a test wants it");
    static_cast<void>(reactor.join());
    CHECK(controller.command(2).closed()); // nobody will ever handle it
}

TEST_CASE("a reactor whose callback threw may be destroyed without a join") {
    Foreman::Controller kept;
    auto reactor = std::make_unique<Reactor<Failing>>(Failing{});
    const auto controller = reactor->controller();
    REQUIRE(controller.command(1));
    reactor.reset();
    CHECK(controller.command(2).closed());
}

TEMPLATE_TEST_CASE("the destructor of a reactor shuts down, joins, and leaves nothing", "",
                   EpollPoller, PollPoller) {
    const int before = os::Kernel::event_fd().fd();
    ::close(before);
    using Streams = ScriptedService<NoListener, Stream, int>;
    for (int round = 0; round < 50; ++round) {
        Answers<NoListener, Stream, int> answers;
        int back = 0;
        answers.transport_back = [&](ResourceId, Stream&, auto&) { ++back; };
        int ends[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
        const os::Fd theirs(ends[1]);
        std::atomic<bool> registered{false};
        answers.registered = [&](ResourceId, Role, int, auto&) { registered = true; };
        {
            Reactor<Streams, TestType> reactor{Streams(answers)};
            REQUIRE(reactor.controller().register_transport(Stream(os::Fd(ends[0]))));
            wait_until([&] { return registered.load(); });
        }
        CHECK(back == 1);
        char byte = 0;
        CHECK(::read(theirs.get(), &byte, 1) == 0);
    }
    const int after = os::Kernel::event_fd().fd();
    ::close(after);
    CHECK(after == before);
    noted.clear();
}

TEST_CASE("a thousand runtimes come and go, and share nothing") {
    const int before = os::Kernel::event_fd().fd();
    ::close(before);
    IdleAnswers answers;
    IdleAnswers others;
    others.notes_ticks = answers.notes_ticks = false;
    for (int round = 0; round < 1000; ++round) {
        Runtime<Idle> one{Idle(answers)};
        Runtime<Idle, PollPoller> two{Idle(others)};
        REQUIRE(one.controller().command(1));
        two.controller().shutdown();
        two.run();
        one.turn(0s);
        CHECK(take_notes() == "start command(1)");
        one.controller().shutdown();
        one.run();
    }
    const int after = os::Kernel::event_fd().fd();
    ::close(after);
    CHECK(after == before);
}

TEMPLATE_TEST_CASE("listen says when it cannot reach the loop any more", "", EpollPoller,
                   PollPoller) {
    using Tcp = ScriptedService<TcpListener, TcpStream, int>;
    Answers<TcpListener, TcpStream, int> answers;
    std::error_code error = std::make_error_code(std::errc::address_in_use);
    Reactor<Tcp, TestType> reactor{Tcp(answers), Options{}, error};
    CHECK_FALSE(error);
    reactor.listen(TcpListener::bind("127.0.0.1:0"), error);
    CHECK_FALSE(error);
    reactor.controller().shutdown();
    static_cast<void>(reactor.join());
    reactor.listen(TcpListener::bind("127.0.0.1:0"), error);
    CHECK(error == std::errc::operation_canceled);
    CHECK_THROWS_AS(reactor.listen(TcpListener::bind("127.0.0.1:0")), std::system_error);
    noted.clear();
}

TEMPLATE_TEST_CASE("SIGINT and SIGTERM end join_until_signal cleanly, and their handlers come back",
                   "", EpollPoller, PollPoller) {
    const int signal = GENERATE(SIGINT, SIGTERM);
    const NoHandlers no_handlers;
    IdleAnswers answers;
    Reactor<Idle, TestType> reactor{Idle(answers)};
    std::thread killer([signal] {
        wait_until(handlers_stand);
        ::kill(::getpid(), signal);
    });
    const Farewell farewell = reactor.join_until_signal();
    killer.join();
    CHECK(farewell.clean);
    CHECK(NoHandlers::still());
    noted.clear();
}

TEMPLATE_TEST_CASE("with a grace a signal drains, and a second one forces the end", "", EpollPoller,
                   PollPoller) {
    using Streams = DrainingService<NoListener, Stream, int>;
    const NoHandlers no_handlers;
    Answers<NoListener, Stream, int> answers;
    std::atomic<bool> draining{false};
    std::atomic<bool> registered{false};
    answers.registered = [&](ResourceId, Role, int, auto&) { registered = true; };
    answers.drain = [&](Timestamp, auto&) { draining = true; };
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    const os::Fd theirs(ends[1]);
    Reactor<Streams, TestType> reactor{Streams(answers)};
    REQUIRE(reactor.controller().register_transport(Stream(os::Fd(ends[0]))));
    std::thread killer([&] {
        wait_until([&] { return handlers_stand() && registered; });
        ::kill(::getpid(), SIGTERM);
        wait_until([&] { return draining.load(); });
        ::kill(::getpid(), SIGTERM);
    });
    const Farewell farewell = reactor.join_until_signal(1h);
    killer.join();
    CHECK(farewell.forced == 1);
    CHECK(NoHandlers::still());
    noted.clear();
}

TEMPLATE_TEST_CASE("join_until_signal ends with the run, and rethrows as join does", "",
                   EpollPoller, PollPoller) {
    const NoHandlers no_handlers;
    IdleAnswers answers;
    {
        Reactor<Idle, TestType> reactor{Idle(answers)};
        std::thread other([controller = reactor.controller()] {
            wait_until(handlers_stand);
            controller.shutdown();
        });
        CHECK(reactor.join_until_signal().clean);
        other.join();
        CHECK(reactor.join_until_signal().clean);
    }
    Reactor<Failing, TestType> failing{Failing{}};
    REQUIRE(failing.controller().command(1));
    CHECK_THROWS_WITH(failing.join_until_signal(), "as a test wants it");
    CHECK(NoHandlers::still());
    noted.clear();
}

TEST_CASE("several reactors may wait for a signal at once: it ends them all") {
    const NoHandlers no_handlers;
    std::atomic<int> ended{0};
    std::atomic<int> begun{0};
    std::vector<std::thread> threads;
    for (int n = 0; n < 3; ++n) {
        threads.emplace_back([&] {
            struct Quiet : Service<NoListener, NoTransport> {};
            Reactor<Quiet> reactor{Quiet{}};
            ++begun;
            ended += reactor.join_until_signal().clean ? 1 : 0;
        });
    }
    wait_until([&] { return begun == 3 && handlers_stand(); });
    while (ended < 3) { // one may not wait for it yet when the first signal comes
        if (handlers_stand()) {
            ::kill(::getpid(), SIGTERM);
        }
        std::this_thread::sleep_for(1ms);
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(ended == 3);
}
