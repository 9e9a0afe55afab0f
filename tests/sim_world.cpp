// SPDX-License-Identifier: Apache-2.0
//
// What only a simulated world has: its absence, its shortages, packets that are still on their way
// when somebody changes his mind, its trace, and the search for a seed that fails.
#include "catch.hpp"

#include <reactor/buffer.hpp>
#include <reactor/net/tcp.hpp>
#include <reactor/sim/runtime.hpp>
#include <reactor/sim/storm.hpp>

#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>
#include <set>
#include <stdexcept>
#include <string>

using namespace reactor;
using namespace std::chrono_literals;

namespace {

using Kernel = sim::Kernel;

const Address address = Address::loopback_ipv4(7000);

int listening(const Address& at = address, int backlog = 8, bool shares = false) {
    const int fd = Kernel::stream_socket(AF_INET).fd();
    REQUIRE(Kernel::set_option(fd, SOL_SOCKET, SO_REUSEPORT, shares ? 1 : 0).ok());
    REQUIRE(Kernel::bind(fd, at.data(), at.size()).ok());
    REQUIRE(Kernel::listen(fd, backlog).ok());
    return fd;
}
int calling(const Address& to = address) {
    const int fd = Kernel::stream_socket(AF_INET).fd();
    REQUIRE(Kernel::connect(fd, to.data(), to.size()).error == EINPROGRESS);
    return fd;
}
os::Result accepted(int listener) { return Kernel::accept(listener, nullptr, nullptr); }
os::Result connect_again(int fd) {
    return Kernel::connect(fd, address.data(), address.size());
}
int socket_error(int fd) {
    return static_cast<int>(Kernel::option(fd, SOL_SOCKET, SO_ERROR).value);
}
int tcp_state(int fd) {
    os::TcpInfoFields info{};
    REQUIRE(Kernel::option_into(fd, IPPROTO_TCP, TCP_INFO, info).ok());
    return info.kernel.tcpi_state;
}
os::Result read_some(int fd) {
    std::byte room[100];
    return Kernel::read(fd, room);
}
sigset_t set_of(int signal) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    return set;
}

/// Does nothing.
struct Idle : Service<BasicTcpListener<Kernel>, BasicTcpStream<Kernel>> {
    void handle_listener_event(ResourceId, Listener::Event, Actions&) {}
    void handle_transport_event(ResourceId, Transport::Event, Actions&) {}
};
/// Lets the world run in the middle of its own turn, which must not be.
struct Nested : Idle {
    void handle_start(Actions&) { sim::World::current()->run_for(1s); }
};

} // namespace

TEST_CASE("without a world every call answers ENOSYS, and nothing happens") {
    REQUIRE(sim::World::current() == nullptr);
    CHECK(Kernel::stream_socket(AF_INET).error == ENOSYS);
    CHECK(Kernel::epoll_create().error == ENOSYS);
    CHECK(read_some(sim::World::first_descriptor).error == ENOSYS);
    CHECK(Kernel::raise_descriptor_limit().error == ENOSYS);
    CHECK(Kernel::environment("PATH") == nullptr);
    CHECK(Kernel::now() == Timestamp{});
    CHECK(Kernel::random() == 0);
    Kernel::close(0); // no descriptor of the test's
    CHECK(os::Kernel::set_close_on_exec(0).ok());
}

TEST_CASE("a world knows its seed, its limit, and the first thing that went wrong") {
    sim::World world{77};
    CHECK(world.seed() == 77);
    CHECK(Kernel::raise_descriptor_limit().value ==
          static_cast<long>(world.weather.descriptors));
    const std::uint64_t calls = world.trace.calls();
    Kernel::return_memory();
    CHECK(world.trace.calls() == calls);
    CHECK(Kernel::random() != Kernel::random());
    world.fail("this");
    world.fail("and that");
    CHECK(world.failure() == "this");
    CHECK(!world.run_until([] { return false; }, 1min)); // it does not go on
}

TEST_CASE("a world keeps as much of its trace as it is asked to") {
    sim::World world{1};
    world.note("nobody reads this");
    CHECK(world.trace.entries().empty());
    world.trace.keep(2);
    Kernel::event_fd();
    world.note("a line");
    Kernel::duplicate(3);
    REQUIRE(world.trace.entries().size() == 2);
    CHECK(world.trace.entries()[0].text == "a line");
    CHECK(world.trace.to_string().find(" -- a line\n") != std::string::npos);
    CHECK(world.trace.to_string().find("duplicate(3, 0) = errno 9 (") != std::string::npos);
    CHECK(world.trace.to_string().find("event_fd") == std::string::npos);
    CHECK(world.trace.calls() == 4);
}

TEST_CASE("a search finds the first seed that fails, and shows how") {
    const auto scenario = [](sim::World& world) {
        world.note("this is seed " + std::to_string(world.seed()));
        if (world.seed() == 7) {
            world.fail("seven");
        } else if (world.seed() == 9) {
            throw std::runtime_error("nine");
        }
    };
    CHECK(!sim::search(1, 6, sim::Weather{}, scenario));
    const auto seven = sim::search(1, 100, sim::Weather{}, scenario);
    REQUIRE(seven);
    CHECK(seven->seed == 7);
    CHECK(seven->failure == "seven");
    CHECK(seven->to_string().find("-- this is seed 7\n") != std::string::npos);
    CHECK(seven->to_string().find("seed 7, after 2 calls: seven\n") != std::string::npos);
    const auto nine = sim::search(8, 100, sim::Weather{}, scenario);
    REQUIRE(nine);
    CHECK(nine->seed == 9);
    CHECK(nine->failure == "thrown: nine");
}

TEST_CASE("who waits for ever for what will never come is told so, and the program ends") {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        const rlimit no_core{0, 0};
        ::setrlimit(RLIMIT_CORE, &no_core);
        ::signal(SIGABRT, SIG_DFL); // else it would be Catch's
        const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
        ::dup2(nowhere, STDERR_FILENO);
        sim::World world{1};
        const int epoll = Kernel::epoll_create().fd();
        epoll_event events[1];
        for (int n = 0; n < 1000; ++n) { // it may be about to do something else
            if (Kernel::epoll_wait(epoll, events, -1).value != 0) {
                ::_exit(1);
            }
        }
        Kernel::epoll_wait(epoll, events, -1);
        ::_exit(2);
    }
    int status = 0;
    pid_t ended = -1;
    do {
        ended = ::waitpid(child, &status, 0);
    } while (ended < 0 && errno == EINTR);
    REQUIRE(ended == child);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGABRT);
}

TEST_CASE("who looks on is not shown what he asks himself") {
    struct Curious final : sim::Onlooker {
        void look(sim::Call call, int) override {
            shown.push_back(call);
            static_cast<void>(Kernel::now());
        }
        std::vector<sim::Call> shown{};
    };
    sim::World world{1};
    Curious curious;
    world.show_to(&curious);
    Kernel::event_fd();
    Kernel::duplicate(3);
    world.show_to(nullptr);
    Kernel::event_fd();
    CHECK(curious.shown == std::vector<sim::Call>{sim::Call::event_fd, sim::Call::duplicate});
}

TEST_CASE("an actor that is late and not awake keeps nobody from sleeping") {
    struct Sleeper final : sim::Actor {
        bool act() override {
            Kernel::sleep(1h);
            ++turns;
            return turns < 2;
        }
        bool is_awake() override { return false; }
        [[nodiscard]] Timestamp due() const override { return {}; }
        int turns = 0;
    };
    sim::World world{1};
    Sleeper one;
    Sleeper other;
    world.enter(one);
    world.enter(other);
    const Timestamp before = world.time();
    CHECK(world.run_until([&] { return one.turns == 2 && other.turns == 2; }));
    CHECK(world.time() >= before + 4h);
    CHECK(world.time() < before + 5h);
}

TEST_CASE("two ends are made together or not at all") {
    sim::World world{1};
    int one = 5;
    int other = 5;
    for (const std::size_t room : {0U, 1U}) {
        world.weather.descriptors = world.open_descriptors() + room;
        CHECK(Kernel::stream_pair(one, other).error == EMFILE);
        CHECK((one == -1 && other == -1));
        CHECK(world.pipe(one, other).error == EMFILE);
        CHECK(world.open_descriptors() == 0);
    }
    world.weather.descriptors = 2;
    CHECK(Kernel::stream_pair(one, other).ok());
}

TEST_CASE("a close is careless if its own file is watched by that number, and only then") {
    sim::World world{1};
    const int epoll = Kernel::epoll_create().fd();
    const int first = Kernel::event_fd().fd();
    REQUIRE(Kernel::duplicate(first).ok());
    REQUIRE(Kernel::epoll_control(epoll, EPOLL_CTL_ADD, first, EPOLLIN, 1).ok());
    Kernel::close(first);
    CHECK(world.careless_closes() == 1);
    REQUIRE(Kernel::event_fd().fd() == first); // watched twice by one number, for two files
    REQUIRE(Kernel::epoll_control(epoll, EPOLL_CTL_ADD, first, EPOLLIN, 2).ok());
    REQUIRE(Kernel::epoll_control(epoll, EPOLL_CTL_DEL, first, 0, 0).ok());
    const int second = Kernel::epoll_create().fd();
    REQUIRE(Kernel::epoll_control(second, EPOLL_CTL_ADD, first, EPOLLIN, 2).ok());
    REQUIRE(Kernel::epoll_control(epoll, EPOLL_CTL_ADD, first, EPOLLIN, 2).ok());
    REQUIRE(Kernel::epoll_control(second, EPOLL_CTL_DEL, first, 0, 0).ok());
    Kernel::close(first);
    CHECK(world.careless_closes() == 2);
}

TEST_CASE("a call that was refused is told so once, and then that it is over") {
    sim::World world{1};
    const int client = calling();
    CHECK(connect_again(client).error == ECONNREFUSED);
    CHECK(connect_again(client).error == ECONNABORTED);
    CHECK(Kernel::send(client, bytes_of("x")).error == EPIPE);

    world.weather.refused = 1;
    const Address name = Address::parse("unix:/run/there");
    const int there = Kernel::stream_socket(AF_UNIX).fd();
    REQUIRE(Kernel::bind(there, name.data(), name.size()).ok());
    REQUIRE(Kernel::listen(there, 1).ok());
    const int caller = Kernel::stream_socket(AF_UNIX).fd();
    CHECK(Kernel::connect(caller, name.data(), name.size()).error == ECONNREFUSED);
}

TEST_CASE("who changes his mind while packets are on their way gets no connection") {
    sim::World world{1};
    world.weather.latency_least = world.weather.latency_most = 100ms;
    const int listener = listening();

    SECTION("before his call has arrived") {
        const int client = calling();
        CHECK(tcp_state(client) == TCP_SYN_SENT);
        REQUIRE(Kernel::shutdown_write(client).ok());
        world.run_for(1s);
        CHECK(accepted(listener).error == EAGAIN);
        CHECK(tcp_state(client) == TCP_CLOSE);
    }
    SECTION("before it is answered") {
        const int client = calling();
        world.run_for(150ms);
        REQUIRE(Kernel::shutdown_write(client).ok());
        world.run_for(1s);
        CHECK(tcp_state(client) == TCP_CLOSE);
        CHECK(connect_again(client).error == ECONNABORTED);
    }
    SECTION("before it is refused: then he does not hear of it") {
        const int client = calling(Address::loopback_ipv4(7001));
        world.run_for(150ms);
        REQUIRE(Kernel::shutdown_write(client).ok());
        world.run_for(1s);
        CHECK(socket_error(client) == 0);
    }
    SECTION("who vanishes is never heard of") {
        const int client = calling();
        world.find(client)->connection->vanish();
        world.run_for(1min);
        CHECK(accepted(listener).error == EAGAIN);
        CHECK(tcp_state(client) == TCP_SYN_SENT);
    }
}

TEST_CASE("a network cuts only what is connected") {
    sim::World world{1};
    world.weather.latency_least = world.weather.latency_most = 100ms;
    const int listener = listening();
    const int client = calling();
    world.weather.reset = 1;
    CHECK(read_some(client).error == EAGAIN);
    world.run_for(1s);
    CHECK(read_some(client).error == ECONNRESET);
    CHECK(accepted(listener).ok());
}

TEST_CASE("TCP_INFO tells how far a close has come") {
    sim::World world{1};
    world.weather.latency_least = world.weather.latency_most = 100ms;
    const int listener = listening();
    const int client = calling();
    world.run_for(1s);
    const int server = accepted(listener).fd();
    REQUIRE(Kernel::shutdown_write(client).ok());
    CHECK(tcp_state(client) == TCP_FIN_WAIT1);
    CHECK(tcp_state(server) == TCP_ESTABLISHED);
    world.run_for(1s);
    CHECK(tcp_state(client) == TCP_FIN_WAIT2);
    CHECK(tcp_state(server) == TCP_CLOSE_WAIT);
    REQUIRE(Kernel::shutdown_write(server).ok());
    CHECK(tcp_state(server) == TCP_LAST_ACK);
    world.run_for(1s);
    CHECK(tcp_state(server) == TCP_CLOSE);
    CHECK(tcp_state(client) == TCP_CLOSE);
}

TEST_CASE("a call that finds no room is tried again, later each time, and at last given up") {
    sim::World world{1};
    const int listener = listening(address, 0);
    calling();
    const int client = calling();
    SECTION("it gets in when there is room") {
        world.run_for(10s);
        CHECK(tcp_state(client) == TCP_SYN_SENT);
        CHECK(accepted(listener).ok());
        world.run_for(10s);
        CHECK(tcp_state(client) == TCP_ESTABLISHED);
        CHECK(accepted(listener).ok());
    }
    SECTION("else it is given up after a minute") {
        world.run_for(62s);
        CHECK(tcp_state(client) == TCP_SYN_SENT);
        world.run_for(2s);
        CHECK(tcp_state(client) == TCP_CLOSE);
        CHECK(socket_error(client) == ETIMEDOUT);
    }
}

TEST_CASE("clients of a port that several share come to each of them") {
    sim::World world{1};
    const int one = listening(address, 100, true);
    const int other = listening(address, 100, true);
    for (int n = 0; n < 40; ++n) {
        calling();
    }
    int to_one = 0;
    int to_other = 0;
    while (accepted(one).ok()) {
        ++to_one;
    }
    while (accepted(other).ok()) {
        ++to_other;
    }
    CHECK(to_one > 0);
    CHECK(to_other > 0);
    CHECK(to_one + to_other == 40);
}

TEST_CASE("the ports of a world come round, and none is below 20000") {
    sim::World world{1};
    std::set<std::uint16_t> ports;
    for (int n = 0; n < 50'000; ++n) {
        ports.insert(world.free_port());
    }
    CHECK(ports.size() > 40'000);
    CHECK(*ports.begin() >= 20'000);
    CHECK(*ports.rbegin() <= 60'000);
}

TEST_CASE("signals of a world are held, told with what there is to say, or ignored") {
    sim::World world{1};
    struct sigaction before {};
    SECTION("who holds back more is told what was held before") {
        sigset_t held{};
        Kernel::hold_signals(set_of(SIGUSR1), held);
        CHECK(sigismember(&held, SIGUSR1) == 0);
        Kernel::hold_signals(set_of(SIGUSR2), held);
        CHECK(sigismember(&held, SIGUSR1) == 1);
        CHECK(sigismember(&held, SIGUSR2) == 0);
        Kernel::release_signals(set_of(SIGUSR1));
        Kernel::hold_signals(set_of(SIGUSR2), held);
        CHECK(sigismember(&held, SIGUSR1) == 0);
        CHECK(sigismember(&held, SIGUSR2) == 1);
    }
    SECTION("the sender is told as the scenario has it") {
        sigset_t held{};
        Kernel::hold_signals(set_of(SIGUSR1), held);
        const int signals = Kernel::signal_fd(set_of(SIGUSR1)).fd();
        signalfd_siginfo record{};
        record.ssi_pid = 4711;
        world.raise(SIGUSR1, record);
        signalfd_siginfo read{};
        REQUIRE(Kernel::read(signals, std::as_writable_bytes(std::span(&read, 1))).ok());
        CHECK(read.ssi_pid == 4711);
        CHECK(read.ssi_signo == static_cast<std::uint32_t>(SIGUSR1));
    }
    SECTION("what is ignored, by wish or by default, ends nothing") {
        REQUIRE(Kernel::handle_signal(SIGTERM, SIG_IGN, before).ok());
        for (const int signal : {SIGTERM, SIGCHLD, SIGURG, SIGWINCH, SIGCONT}) {
            world.raise(signal);
            CHECK(world.failure().empty());
        }
        Kernel::restore_signal(SIGTERM, before);
        world.raise(SIGTERM);
        CHECK(world.failure() == "signal 15 would have ended the program");
    }
}

TEST_CASE("the portable poller of a world knows what a wait would find") {
    sim::World world{1};
    std::error_code error;
    sim::PollPoller poller;
    const int waker = Kernel::event_fd().fd();
    const int bell = Kernel::event_fd().fd();
    const ResourceId its = ResourceId::of(1, 1);
    const ResourceId anothers = ResourceId::of(2, 1);
    REQUIRE_FALSE(poller.watch_waker(waker));
    REQUIRE_FALSE(poller.watch(bell, its, {true, false}));
    CHECK(poller.watch(bell, anothers, {true, true}) == std::errc::file_exists);
    CHECK(poller.set_interest(bell, anothers, {true, true}));
    CHECK(!poller.is_ready(world));
    Kernel::ring(waker);
    CHECK(poller.is_ready(world));
    Kernel::silence(waker);

    Kernel::ring(bell);
    CHECK(poller.is_ready(world));
    REQUIRE_FALSE(poller.set_interest(bell, its, {}));
    CHECK(!poller.is_ready(world));
    REQUIRE_FALSE(poller.set_interest(bell, its, {false, true}));
    CHECK(poller.is_ready(world));
    poller.unwatch(bell, anothers); // not this one's to take away
    CHECK(poller.is_ready(world));
    Kernel::close(bell); // a wait would say so
    CHECK(poller.is_ready(world));
    poller.unwatch(bell, its);
    CHECK(!poller.is_ready(world));
}

TEST_CASE("a runtime whose epoll set was closed behind its back has turns, and an end") {
    sim::World world{1};
    sim::Runtime<Idle> runtime{Idle{}};
    CHECK(&runtime.world() == &world);
    world.run_for(1s);
    Kernel::close(runtime.fd());
    world.run_for(1s);
    CHECK(!runtime.has_ended());
    runtime.controller().shutdown();
    world.run_for(1s);
    CHECK(runtime.has_ended());
}

TEST_CASE("a callback that lets its own world run fails the world, and no more") {
    sim::World world{1};
    sim::Runtime<Nested> runtime{Nested{}};
    world.run_for(1s);
    CHECK(world.failure().find("a turn was refused: ") == 0);
    CHECK(!runtime.has_ended());
}
