// SPDX-License-Identifier: Apache-2.0
//
// A TCP listener: how it is made, what it accepts, and what it does when it cannot.
#include <dirent.h>
#include <sys/resource.h>

#include <algorithm>
#include <set>
#include <stdexcept>

#include "faulty_kernel.hpp"
#include "peers.hpp"

using namespace test;

namespace {

using FaultyEpoll = BasicEpollPoller<FaultyKernel>;
using FaultyPoll = BasicPollPoller<FaultyKernel>;

bool is(std::error_code code, int error) {
    return code == std::error_code(error, std::system_category());
}

std::size_t open_descriptors() {
    DIR* const directory = ::opendir("/proc/self/fd");
    require_ok(directory != nullptr, "opendir");
    std::size_t count = 0;
    while (::readdir(directory) != nullptr) {
        ++count;
    }
    ::closedir(directory);
    return count;
}

/// A client that has connected, and never blocks.
os::Fd connected(const Address& to) {
    const Calm calm; // connect(2)
    os::Fd client(::socket(to.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    require_ok(static_cast<bool>(client), "socket");
    require_ok(::connect(client.get(), to.data(), to.size()) == 0, "connect");
    require_ok(os::Kernel::set_non_blocking(client.get()).ok(), "fcntl");
    return client;
}
Address local_of(const os::Fd& fd) {
    return Address::filled(
        [&](sockaddr* at, socklen_t* size) { ::getsockname(fd.get(), at, size); });
}
Address peer_of(const os::Fd& fd) {
    return Address::filled(
        [&](sockaddr* at, socklen_t* size) { ::getpeername(fd.get(), at, size); });
}

/// How many clients wait to be accepted (tcp(7) has it there for a socket that listens).
std::size_t backlog(int listener) {
    tcp_info info{};
    socklen_t size = sizeof info;
    require_ok(::getsockopt(listener, IPPROTO_TCP, TCP_INFO, &info, &size) == 0, "TCP_INFO");
    return info.tcpi_unacked;
}

/// Notes what listeners yield. Registers what they accept if `serves`, else keeps it.
template <class Kernel>
struct Door : Service<BasicTcpListener<Kernel>, BasicTcpStream<Kernel>> {
    using typename Door::Service::Actions;
    using typename Door::Service::Error;
    using Listener = BasicTcpListener<Kernel>;
    using Stream = BasicTcpStream<Kernel>;
    using Accepted = typename Listener::Event;

    struct Notes {
        /// A letter each: a accepted, t trouble, h handover, x an end, u unknown id.
        std::string trace;
        std::error_code code;
        std::optional<Listener> back;
    };

    void tick(Actions& actions) {
        if (const auto job = std::exchange(next, nullptr)) {
            job(actions);
        }
    }
    void handle_listener_event(ResourceId id, Accepted accepted, Actions& actions) {
        of[id].trace += 'a';
        peers.push_back(accepted.peer);
        if (before) {
            before(id, actions);
        }
        if (serves) {
            ids.push_back(actions.register_transport(std::move(accepted.stream)));
        } else {
            streams.push_back(std::move(accepted.stream));
        }
    }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        if (const auto* const data = event.data()) {
            bytes[id] += text_of(*data);
        } else if (event.eof()) {
            actions.close_write(id);
        }
    }
    void handle_error(Error error, Actions& actions) {
        Notes& notes = of[error.id()];
        notes.trace += error.is_end()                          ? 'x'
                       : error.kind() == ErrorKind::trouble    ? 't'
                       : error.kind() == ErrorKind::unknown_id ? 'u'
                                                               : '?';
        notes.code = error.code();
        if (auto listener = error.take_listener()) {
            notes.back.emplace(std::move(*listener));
        }
        if (error.is_end()) {
            gone(error.id(), actions);
        }
    }
    void handover_listener(ResourceId id, Listener listener, Actions&) {
        of[id].trace += 'h';
        of[id].back.emplace(std::move(listener));
    }
    void handover_transport(ResourceId id, Stream, Actions& actions) {
        of[id].trace += 'h';
        gone(id, actions);
    }
    void gone(ResourceId id, Actions& actions) {
        if (after) {
            after(id, actions);
        }
    }

    bool serves = false;
    std::function<void(Actions&)> next;               ///< done once, in the next tick
    std::function<void(ResourceId, Actions&)> before; ///< as a client has been accepted
    std::function<void(ResourceId, Actions&)> after;  ///< as a resource has left
    std::map<ResourceId, Notes> of;
    std::map<ResourceId, std::string> bytes;
    std::vector<Address> peers;
    std::vector<ResourceId> ids;
    std::vector<Stream> streams;
};

/// A runtime with a Door.
template <class Poller>
struct House : Driver<House<Poller>> {
    using Driver<House>::perform;
    using Driver<House>::service;
    using Kernel = typename Poller::Kernel;
    using Listener = BasicTcpListener<Kernel>;
    using Service = Door<Kernel>;
    using Actions = typename Service::Actions;

    explicit House(const Options& options = {}) : runtime(Service{}, options) {}

    /// Listens on a port of its own.
    ResourceId listen() { return listen(Listener::bind("127.0.0.1:0")); }
    ResourceId listen(Listener listener) {
        at = listener.local();
        listeners[at.port()] = listener.fd();
        ResourceId id;
        perform([&](Actions& actions) { id = actions.register_listener(std::move(listener)); });
        return id;
    }
    /// A client that stands in the backlog, of the last listener or of that one.
    os::Fd client() { return client(at); }
    os::Fd client(const Address& to) {
        const int listener = listeners[to.port()];
        const std::size_t before = backlog(listener);
        os::Fd fd = connected(to);
        require_ok(eventually([&] { return backlog(listener) > before; }), "backlog");
        return fd;
    }
    std::string& trace(ResourceId id) { return service().of[id].trace; }
    /// How many clients were accepted.
    std::size_t accepted() { return service().peers.size(); }

    Runtime<Service, Poller> runtime;
    Address at; ///< of the last listener
    std::map<std::uint16_t, int> listeners;
};

Options accepting(std::size_t most) {
    Options options;
    options.accepts_per_turn = most;
    return options;
}

/// Whether this client was turned away without a reset.
bool turned_away(const os::Fd& client) {
    Reader reader;
    return eventually([&] {
               reader.read(client);
               return reader.at_end();
           }) &&
           reader.error == 0;
}
bool waits(const os::Fd& client) {
    Reader reader;
    reader.read(client);
    return !reader.at_end();
}

} // namespace

// -- how it is made -------------------------------------------------------------------------------

TEST_CASE("listener: what it cannot listen on is an error, and costs no descriptor") {
    const std::size_t before = open_descriptors();
    std::error_code error;
    {
        const TcpListener first = TcpListener::bind("127.0.0.1:0", error);
        REQUIRE_FALSE(error);
        const TcpListener second = TcpListener::bind(first.local(), error);
        CHECK(is(error, EADDRINUSE));
        CHECK(second.fd() == -1);
        CHECK(second.local().empty());
        try {
            static_cast<void>(TcpListener::bind(first.local()));
            FAIL("bound twice");
        } catch (const std::system_error& thrown) {
            CHECK(is(thrown.code(), EADDRINUSE));
            CHECK_THAT(thrown.what(),
                       Catch::Matchers::ContainsSubstring(first.local().to_string()));
        }
    }
    for (const char* const text : {"", "7000", "localhost:7000", "127.0.0.1", "127.0.0.1:65536"}) {
        CAPTURE(text);
        CHECK(TcpListener::bind(text, error).fd() == -1);
        CHECK(error == std::errc::invalid_argument);
        CHECK_THROWS_AS(TcpListener::bind(text), std::system_error);
    }
    for (const char* const text : {"unix:/tmp/reactor-listener-test", "unix:@reactor-listener"}) {
        CAPTURE(text);
        CHECK(TcpListener::bind(text, error).fd() == -1);
        CHECK(error == std::errc::address_family_not_supported);
        CHECK_THROWS_AS(TcpListener::bind(text), std::system_error);
    }
    CHECK(TcpListener::bind(Address(), error).fd() == -1);
    CHECK(error == std::errc::address_family_not_supported);
    // An address for documentation (RFC 5737), which no machine has.
    CHECK(TcpListener::bind("192.0.2.1:0", error).fd() == -1);
    CHECK(is(error, EADDRNOTAVAIL));
    {
        Faults faults;
        faults.then_fails(Call::bind, EACCES); // a privileged port
        CHECK(BasicTcpListener<FaultyKernel>::bind("127.0.0.1:1", error).fd() == -1);
        CHECK(is(error, EACCES));
        faults.then(Call::set_option, {});
        faults.then_fails(Call::set_option, ENOPROTOOPT);
        CHECK(BasicTcpListener<FaultyKernel>::bind("127.0.0.1:0", error).fd() == -1);
        CHECK(is(error, ENOPROTOOPT));
        CHECK_FALSE(BasicTcpListener<FaultyKernel>::bind("127.0.0.1:0", error).fd() == -1);
        CHECK_FALSE(error);
    }
    CHECK(open_descriptors() == before);
}

TEMPLATE_TEST_CASE("listener: one that could not be made is given back when it is registered", "",
                   EpollPoller, PollPoller) {
    House<TestType> house;
    std::error_code error;
    const ResourceId id = house.listen(TcpListener::bind("192.0.2.1:0", error));
    CHECK(house.trace(id) == "x");
    CHECK(is(house.service().of[id].code, EBADF));
    CHECK(house.service().of[id].back.has_value());
    CHECK(house.rests());
}

TEST_CASE("listener: port 0 lets the kernel choose, and local() says what it chose") {
    const TcpListener a = TcpListener::bind("127.0.0.1:0");
    const TcpListener b = TcpListener::bind(Address::loopback_ipv4(0));
    CHECK(a.local().port() != 0);
    CHECK(b.local().port() != 0);
    CHECK(a.local() != b.local());
    CHECK(a.local().with_port(0) == Address::loopback_ipv4(0));
    CHECK(connected(a.local()));
    CHECK((::fcntl(a.fd(), F_GETFL) & O_NONBLOCK) != 0);
    CHECK((::fcntl(a.fd(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("listener: several may share a port if all of them say so") {
    ListenOptions shared;
    shared.reuse_port = true;
    std::error_code error;
    const TcpListener a = TcpListener::bind("127.0.0.1:0", error, shared);
    REQUIRE_FALSE(error);
    const TcpListener b = TcpListener::bind(a.local(), error, shared);
    CHECK_FALSE(error);
    CHECK(b.local() == a.local());
    const TcpListener c = TcpListener::bind(a.local(), error);
    CHECK(is(error, EADDRINUSE));
}

TEST_CASE("listener: may come back at once although connections linger, unless it is told not to") {
    const Address at = [] {
        const TcpListener listener = TcpListener::bind("127.0.0.1:0");
        const os::Fd client = connected(listener.local());
        os::Fd server(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
        require_ok(static_cast<bool>(server), "accept4");
        server.reset(); // our side closes first, and so remembers the connection
        return listener.local();
    }();
    std::error_code error;
    ListenOptions strict;
    strict.reuse_address = false;
    CHECK(TcpListener::bind(at, error, strict).fd() == -1);
    CHECK(is(error, EADDRINUSE));
    CHECK(TcpListener::bind(at, error).fd() != -1);
    CHECK_FALSE(error);
}

// -- what it accepts ------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("listener: a client comes with its address, on a socket that is ready for use",
                   "", EpollPoller, PollPoller) {
    for (const char* const address : {"127.0.0.1:0", "[::1]:0"}) {
        CAPTURE(address);
        std::error_code error;
        TcpListener listener = TcpListener::bind(address, error);
        if (error) {
            WARN("no " << address << " here: " << error.message());
            continue;
        }
        House<TestType> house;
        const ResourceId id = house.listen(std::move(listener));
        const os::Fd client = house.client();
        REQUIRE(house.until([&] { return house.accepted() == 1; }));
        CHECK(house.trace(id) == "a");
        CHECK(house.service().peers[0] == local_of(client));
        const TcpStream& stream = house.service().streams[0];
        CHECK(stream.peer() == local_of(client));
        CHECK(stream.local() == house.at);
        CHECK((::fcntl(stream.fd(), F_GETFL) & O_NONBLOCK) != 0);
        CHECK((::fcntl(stream.fd(), F_GETFD) & FD_CLOEXEC) != 0);
        CHECK(os::Kernel::option(stream.fd(), IPPROTO_TCP, TCP_NODELAY).value != 0);
        CHECK(house.rests());
    }
}

TEMPLATE_TEST_CASE("listener: a client may have written and left before it is accepted", "",
                   EpollPoller, PollPoller) {
    House<TestType> house;
    house.service().serves = true;
    const ResourceId id = house.listen();
    os::Fd client = house.client();
    write_some(client, "hello");
    SECTION("in peace") {
        client.reset();
        REQUIRE(house.until([&] { return house.accepted() == 1; }));
        const ResourceId transport = house.service().ids[0];
        REQUIRE(house.until([&] { return house.trace(transport) == "h"; }));
        CHECK(house.service().bytes[transport] == "hello");
    }
    SECTION("with a reset") {
        reset(client);
        REQUIRE(house.until([&] { return house.accepted() == 1; }));
        const ResourceId transport = house.service().ids[0];
        REQUIRE(house.until([&] { return house.trace(transport) == "x"; }));
        CHECK(is(house.service().of[transport].code, ECONNRESET));
        CHECK(house.service().bytes[transport] == "hello");
    }
    client = house.client();
    REQUIRE(house.until([&] { return house.accepted() == 2; }));
    CHECK(house.trace(id) == "aa");
}

TEMPLATE_TEST_CASE("listener: it accepts its budget a turn, and others are served meanwhile", "",
                   EpollPoller, PollPoller) {
    House<TestType> house(accepting(3));
    house.service().serves = true;
    const ResourceId id = house.listen();
    const os::Fd early = house.client();
    REQUIRE(house.until([&] { return house.accepted() == 1; }));
    std::vector<os::Fd> clients;
    for (int n = 0; n < 10; ++n) {
        clients.push_back(house.client());
    }
    const std::size_t expected[] = {4, 7, 10, 11, 11};
    std::size_t letters = 0;
    for (const std::size_t accepted : expected) {
        write_some(early, "x");
        REQUIRE(has_arrived(early));
        house.turn();
        CHECK(house.accepted() == accepted);
        CHECK(house.service().bytes[house.service().ids[0]].size() == ++letters);
    }
    CHECK(house.trace(id) == std::string(11, 'a'));
    CHECK(house.rests());
    std::set<std::uint16_t> ports;
    for (const Address& peer : house.service().peers) {
        ports.insert(peer.port());
    }
    CHECK(ports.size() == 11);
}

TEMPLATE_TEST_CASE("listener: what went wrong with one connection does not touch the next", "",
                   FaultyEpoll, FaultyPoll) {
    Faults faults;
    House<TestType> house;
    const ResourceId id = house.listen();
    const int errors[] = {ECONNABORTED, ECONNRESET,  EPROTO,    EPERM,  ENETDOWN,    EHOSTUNREACH,
                          ETIMEDOUT,    ENETUNREACH, EHOSTDOWN, ENONET, ENOPROTOOPT, EOPNOTSUPP};
    std::size_t clients = 0;
    std::vector<os::Fd> keep;
    for (const int error : errors) {
        CAPTURE(error);
        faults.then_fails(Call::accept, error);
        keep.push_back(house.client());
        house.turn();
        CHECK(house.accepted() == ++clients);
    }
    // A whole row of them, longer than one call bears.
    faults.then_fails(Call::accept, ECONNABORTED, 200);
    keep.push_back(house.client());
    REQUIRE(house.until([&] { return house.accepted() == clients + 1; }));
    CHECK(house.trace(id) == std::string(clients + 1, 'a'));
    CHECK(house.rests());
}

// -- out of descriptors ---------------------------------------------------------------------------

TEMPLATE_TEST_CASE("listener: out of descriptors it turns one client away, says so once and rests",
                   "", FaultyEpoll, FaultyPoll) {
    const int error = GENERATE(EMFILE, ENFILE);
    CAPTURE(error);
    Faults faults;
    House<TestType> house;
    const ResourceId id = house.listen();
    const os::Fd first = house.client();
    const os::Fd second = house.client();
    const os::Fd third = house.client();
    const std::size_t descriptors = open_descriptors();

    faults.then_fails(Call::accept, error);
    house.turn();
    CHECK(house.trace(id) == "t");
    CHECK(is(house.service().of[id].code, error));
    CHECK(turned_away(first));
    CHECK(open_descriptors() == descriptors);
    CHECK(house.rests());
    CHECK(house.accepted() == 0);
    CHECK(waits(second));

    // Still none, when it has rested: another client goes, and nobody is told again.
    faults.then_fails(Call::accept, error);
    faults.ahead += 100ms;
    REQUIRE(house.until([&] { return faults.done(Call::accept); }));
    CHECK(house.trace(id) == "t");
    CHECK(turned_away(second));
    CHECK(waits(third));

    // The second rest is longer than the first.
    faults.ahead += 100ms;
    CHECK(house.rests());
    CHECK(house.accepted() == 0);
    faults.ahead += 100ms;
    REQUIRE(house.until([&] { return house.accepted() == 1; }));
    CHECK(house.service().peers[0] == local_of(third));
    CHECK(house.trace(id) == "ta");
    CHECK(open_descriptors() == descriptors + 1);
    CHECK(house.rests());

    // It has recovered: the next time is a first time.
    faults.then_fails(Call::accept, error);
    const os::Fd fourth = house.client();
    const os::Fd fifth = house.client();
    house.turn();
    CHECK(house.trace(id) == "tat");
    CHECK(turned_away(fourth));
    faults.ahead += 100ms;
    REQUIRE(house.until([&] { return house.accepted() == 2; }));
    CHECK(house.service().peers[1] == local_of(fifth));
}

TEMPLATE_TEST_CASE("listener: out of memory it rests and keeps everybody waiting", "", FaultyEpoll,
                   FaultyPoll) {
    const int error = GENERATE(ENOBUFS, ENOMEM);
    CAPTURE(error);
    Faults faults;
    House<TestType> house;
    const ResourceId id = house.listen();
    const os::Fd client = house.client();
    faults.then_fails(Call::accept, error);
    house.turn();
    CHECK(house.trace(id) == "t");
    CHECK(is(house.service().of[id].code, error));
    CHECK(house.rests());
    CHECK(waits(client));
    CHECK(faults.calls(Call::accept) == 1);
    faults.ahead += 100ms;
    REQUIRE(house.until([&] { return house.accepted() == 1; }));
    CHECK(house.trace(id) == "ta");
}

TEMPLATE_TEST_CASE("listener: a shortage that lasts costs no ten attempts a second", "",
                   FaultyEpoll, FaultyPoll) {
    Faults faults;
    faults.otherwise = [](Call call) -> Fault { return {call == Call::accept ? ENFILE : 0}; };
    House<TestType> house;
    const ResourceId id = house.listen();
    const os::Fd client = house.client();
    for (int n = 0; n < 1'000; ++n) { // ten seconds, a hundredth each
        house.turn();
        house.turn();
        faults.ahead += 10ms;
    }
    CHECK(house.trace(id) == "t");
    const std::size_t attempts = faults.calls(Call::accept) / 2; // one more for who is turned away
    CHECK(attempts >= 9);                                        // at least one a second
    CHECK(attempts <= 20);
    faults.otherwise = nullptr;
    faults.ahead += 1s;
    REQUIRE(house.until([&] { return house.accepted() == 1; }));
}

TEMPLATE_TEST_CASE("listener: out of descriptors with nobody waiting is no storm", "", FaultyEpoll,
                   FaultyPoll) {
    Faults faults;
    House<TestType> house;
    const ResourceId id = house.listen();
    const os::Fd client = house.client();
    // The kernel says so even with an empty backlog, so behind the last client there was.
    faults.then(Call::accept, {});
    faults.then_fails(Call::accept, EMFILE);
    house.turn();
    REQUIRE(faults.done(Call::accept));
    CHECK(house.accepted() == 1);
    CHECK(waits(client));
    CHECK(house.trace(id).find('t') == house.trace(id).rfind('t'));
    CHECK(house.rests());
    const std::size_t calls = faults.calls(Call::accept);
    for (int n = 0; n < 100; ++n) {
        faults.ahead += 100ms;
        house.turn();
    }
    CHECK(faults.calls(Call::accept) - calls <= 2);
    const os::Fd next = house.client();
    REQUIRE(house.until([&] { return house.accepted() == 2; }));
}

namespace {

/// 0: all went as it should.
template <class Poller>
int run_out_of_descriptors() {
    House<Poller> house;
    const ResourceId id = house.listen();
    std::vector<os::Fd> clients;
    for (int n = 0; n < 3; ++n) {
        clients.push_back(house.client());
    }
    if (!house.rests() && house.accepted() != 3) {
        return 1;
    }
    house.service().streams.clear();
    clients.clear();
    for (int n = 0; n < 3; ++n) {
        clients.push_back(house.client());
    }
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const rlim_t whole = limit.rlim_cur;
    limit.rlim_cur = static_cast<rlim_t>(os::Fd(::dup(0)).get()); // the lowest that is free
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 2;
    }
    house.turn();
    if (house.trace(id) != "aaat" || !is(house.service().of[id].code, EMFILE)) {
        return 3;
    }
    if (!turned_away(clients[0]) || !waits(clients[1]) || !waits(clients[2])) {
        return 4;
    }
    if (!house.rests() || house.accepted() != 3) {
        return 5;
    }
    limit.rlim_cur = whole;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    if (!house.until([&] { return house.accepted() == 5; }) || house.trace(id) != "aaataa") {
        return 6;
    }
    return 0;
}

} // namespace

TEMPLATE_TEST_CASE("listener: a process that has used up its descriptors recovers", "", EpollPoller,
                   PollPoller) {
    const int status = in_child([] { return run_out_of_descriptors<TestType>(); });
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
}

TEMPLATE_TEST_CASE("listener: handed over while it rests, it goes on where it is registered next",
                   "", FaultyEpoll, FaultyPoll) {
    Faults faults;
    House<TestType> house;
    House<TestType> other;
    const ResourceId id = house.listen();
    const os::Fd first = house.client();
    const os::Fd second = house.client();
    faults.then_fails(Call::accept, EMFILE);
    house.turn();
    REQUIRE(house.trace(id) == "t");
    house.perform([&](auto& actions) {
        actions.pause(id);
        actions.resume(id);
        actions.unregister_listener(id);
    });
    REQUIRE(house.trace(id) == "th");
    const ResourceId next = other.listen(std::move(*house.service().of[id].back));
    CHECK(other.rests());
    CHECK(other.accepted() == 0);
    faults.ahead += 100ms;
    REQUIRE(other.until([&] { return other.accepted() == 1; }));
    CHECK(other.trace(next) == "a");
    CHECK(house.rests());
    CHECK(house.trace(id) == "th");
}

// -- the service ----------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("listener: a throw from the accept event costs that client and no other", "",
                   EpollPoller, PollPoller) {
    House<TestType> house;
    const ResourceId id = house.listen();
    const os::Fd first = house.client();
    const os::Fd second = house.client();
    house.service().before = [&](ResourceId, auto&) {
        if (house.accepted() == 1) {
            throw std::runtime_error("accepted");
        }
    };
    CHECK_THROWS_AS(house.turn(), std::runtime_error);
    CHECK(turned_away(first));
    REQUIRE(house.until([&] { return house.accepted() == 2; }));
    CHECK(house.service().peers[1] == local_of(second));
    CHECK(waits(second));
    CHECK(house.trace(id) == "aa");
    CHECK(house.rests());
}

TEMPLATE_TEST_CASE("listener: paused in its own event it accepts no more until it is resumed", "",
                   EpollPoller, PollPoller) {
    House<TestType> house;
    const ResourceId id = house.listen();
    std::vector<os::Fd> clients;
    for (int n = 0; n < 3; ++n) {
        clients.push_back(house.client());
    }
    house.service().before = [&](ResourceId whose, auto& actions) { actions.pause(whose); };
    for (std::size_t n = 1; n <= 3; ++n) {
        REQUIRE(house.until([&] { return house.accepted() == n; }));
        CHECK(house.rests());
        CHECK(house.accepted() == n);
        house.perform([&](auto& actions) { actions.resume(id); });
    }
    CHECK(house.rests());
    CHECK(house.trace(id) == "aaa");
}

TEMPLATE_TEST_CASE("listener: unregistered in its own event it comes back open, with who waits", "",
                   EpollPoller, PollPoller) {
    House<TestType> house;
    const ResourceId id = house.listen();
    const os::Fd first = house.client();
    const os::Fd second = house.client();
    house.service().before = [&](ResourceId whose, auto& actions) {
        actions.unregister_listener(whose);
        actions.unregister_listener(whose);
        actions.pause(whose);
    };
    REQUIRE(house.until([&] { return house.accepted() == 1; }));
    CHECK(house.rests());
    CHECK(house.trace(id) == "ahuu");
    CHECK(waits(second));
    const os::Fd third = house.client(); // it listens still
    house.service().before = nullptr;
    const ResourceId next = house.listen(std::move(*house.service().of[id].back));
    CHECK(next != id);
    REQUIRE(house.until([&] { return house.accepted() == 3; }));
    CHECK(house.trace(next) == "aa");
    CHECK(house.trace(id) == "ahuu");
}

TEMPLATE_TEST_CASE("listener: one that the event of another unregisters yields nothing any more",
                   "", EpollPoller, PollPoller) {
    House<TestType> house;
    const ResourceId a = house.listen();
    const Address at_a = house.at;
    const ResourceId b = house.listen();
    const os::Fd to_a = house.client(at_a);
    const os::Fd to_b = house.client();
    house.service().before = [&](ResourceId whose, auto& actions) {
        actions.unregister_listener(whose == a ? b : a);
    };
    house.turn();
    CHECK(house.rests());
    CHECK(house.accepted() == 1);
    CHECK(house.trace(a).size() == 1);
    CHECK(house.trace(b).size() == 1);
    CHECK(house.trace(a) != house.trace(b));
}

TEMPLATE_TEST_CASE("listener: a service that keeps to a number of clients, with two listeners", "",
                   EpollPoller, PollPoller) {
    House<TestType> house;
    house.service().serves = true;
    const ResourceId a = house.listen();
    const Address at_a = house.at;
    const ResourceId b = house.listen();
    const Address at_b = house.at;
    constexpr std::size_t most = 2;
    std::size_t here = 0;
    std::size_t most_here = 0;
    std::vector<Address> came_to;
    house.service().before = [&](ResourceId whose, auto& actions) {
        came_to.push_back(whose == a ? at_a : at_b);
        most_here = std::max(most_here, ++here);
        if (here == most) {
            actions.pause(a);
            actions.pause(b);
        }
    };
    house.service().after = [&](ResourceId, auto& actions) {
        if (here-- == most) {
            actions.resume(a);
            actions.resume(b);
        }
    };
    std::vector<os::Fd> clients;
    for (int n = 0; n < 4; ++n) {
        clients.push_back(house.client(at_a));
        clients.push_back(house.client(at_b));
    }
    for (std::size_t served = 0; served < 8; ++served) {
        REQUIRE(
            house.until([&] { return house.accepted() >= std::min<std::size_t>(served + 2, 8); }));
        CHECK(house.rests());
        CHECK(house.accepted() == std::min<std::size_t>(served + 2, 8));
        // Clients of two listeners may have one port: the kernel tells them apart by both ends.
        const Address whose = house.service().peers[served];
        const auto client = std::find_if(clients.begin(), clients.end(), [&](const os::Fd& fd) {
            return fd && local_of(fd) == whose && peer_of(fd) == came_to[served];
        });
        REQUIRE(client != clients.end());
        client->reset();
        REQUIRE(house.until([&] { return !house.trace(house.service().ids[served]).empty(); }));
    }
    CHECK(most_here == most);
    CHECK(here == 0);
    CHECK(house.trace(a) == "aaaa");
    CHECK(house.trace(b) == "aaaa");
}

TEMPLATE_TEST_CASE("listener: one that fails for good leaves with its cause, and nothing else does",
                   "", FaultyEpoll, FaultyPoll) {
    const int error = GENERATE(EBADF, EINVAL, ENOTSOCK);
    CAPTURE(error);
    Faults faults;
    House<TestType> house;
    const ResourceId a = house.listen();
    const Address at_a = house.at;
    const ResourceId b = house.listen();
    const os::Fd to_a = house.client(at_a);
    faults.then_fails(Call::accept, error);
    house.turn();
    CHECK(house.trace(a) == "x");
    CHECK(is(house.service().of[a].code, error));
    CHECK(house.service().of[a].back.has_value());
    const os::Fd to_b = house.client();
    REQUIRE(house.until([&] { return house.accepted() == 1; }));
    CHECK(house.rests());
    CHECK(house.trace(a) == "x");
    CHECK(house.trace(b) == "a");
}

TEMPLATE_TEST_CASE(
    "listener: what is sent when one fails in the end of a turn leaves the next turn", "",
    FaultyEpoll, FaultyPoll) {
    Faults faults;
    House<TestType> house;
    house.service().serves = true;
    const ResourceId id = house.listen();
    const os::Fd client = house.client();
    REQUIRE(house.until([&] { return house.accepted() == 1; }));
    faults.then_fails(Call::accept, ENFILE);
    const os::Fd turned = house.client();
    house.turn();
    REQUIRE(house.rests());
    house.service().after = [&](ResourceId, auto& actions) {
        actions.send(house.service().ids[0], "the door is closed");
    };
    // As its rest ends, the poller cannot watch it.
    faults.then_fails(Call::watch, ENOMEM);
    faults.ahead += 100ms;
    house.turn();
    CHECK(house.trace(id) == "atx");
    CHECK(is(house.service().of[id].code, ENOMEM));
    CHECK(house.runtime.until_next() == Duration::zero());
    house.turn();
    Reader reader;
    CHECK(eventually([&] {
        reader.read(client);
        return reader.bytes == "the door is closed";
    }));
}

TEMPLATE_TEST_CASE("listener: connections that all go wrong are no storm, and are told once", "",
                   FaultyEpoll, FaultyPoll) {
    Faults faults;
    faults.otherwise = [](Call call) -> Fault { return {call == Call::accept ? EPERM : 0}; };
    House<TestType> house;
    const ResourceId id = house.listen();
    const os::Fd client = house.client();
    house.turn();
    CHECK(house.trace(id) == "t");
    CHECK(is(house.service().of[id].code, EPERM));
    CHECK(house.rests());
    faults.otherwise = nullptr; // the filter has been taken away
    faults.ahead += 1s;
    REQUIRE(house.until([&] { return house.accepted() == 1; }));
    CHECK(house.trace(id) == "ta");
}
