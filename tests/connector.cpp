// SPDX-License-Identifier: Apache-2.0
//
// Connecting to whichever of several addresses answers first: who is tried when, who wins, and with
// what cause it ends when nobody does. Time stands still here but where a test puts it forward, so
// that what happens "at once" or "after the delay" is told apart by the clock and by nothing else.
#include <reactor/net/connector.hpp>
#include <reactor/net/either.hpp>
#include <reactor/poller/epoll.hpp>

#include <algorithm>
#include <filesystem>
#include <new>
#include <variant>

#include "faulty_kernel.hpp"
#include "peers.hpp"

using namespace test;

namespace {

thread_local bool out_of_memory = false;

} // namespace

/// Where a connector has its list from.
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
    return out_of_memory ? nullptr : ::operator new[](size);
}

namespace {

// -- the stage ------------------------------------------------------------------------------------

/// What a test lays out on its thread: the time, and what lies behind some addresses.
class Stage {
  public:
    enum class Place {
        real,        ///< as the operating system has it
        fails,       ///< connect(2) fails at once, with this error
        answers_now, ///< connect(2) succeeds at once
        is_itself,   ///< the socket is connected to itself
        vanishes,    ///< connect(2) says that it begins, and forgets it
    };
    struct Scene {
        Place place = Place::real;
        int error = 0;
    };

    Stage() { current() = this; }
    Stage(const Stage&) = delete;
    Stage& operator=(const Stage&) = delete;
    ~Stage() { current() = nullptr; }

    [[nodiscard]] static Stage*& current() {
        static thread_local Stage* stage = nullptr;
        return stage;
    }
    [[nodiscard]] Scene at(const Address& address) const {
        const auto found = std::find_if(scenes.begin(), scenes.end(),
                                        [&](const auto& scene) { return scene.first == address; });
        return found == scenes.end() ? elsewhere : found->second;
    }
    /// Those that were tried, in that order: a 4 or a 6 for the family, and the port.
    [[nodiscard]] std::string order() const {
        std::string text;
        for (const Address& address : tried) {
            text += (text.empty() ? "" : " ") + std::string(address.is_ipv6() ? "6" : "4") + '.' +
                    std::to_string(address.port());
        }
        return text;
    }

    Timestamp time = os::Kernel::now();
    std::vector<Address> tried;
    std::vector<std::pair<Address, Scene>> scenes;
    Scene elsewhere;
    int epoll_error = 0; ///< of epoll_create1
    Faults faults;
};

struct StagedKernel : FaultyKernel {
    [[nodiscard]] static Timestamp now() noexcept {
        return Stage::current() == nullptr ? Real::now() : Stage::current()->time;
    }
    static Result connect(int fd, const sockaddr* address, socklen_t size) noexcept {
        Stage* const stage = Stage::current();
        if (stage == nullptr) {
            return Real::connect(fd, address, size);
        }
        const Address to = Address::from(address, size);
        stage->tried.push_back(to);
        const Stage::Scene scene = stage->at(to);
        switch (scene.place) {
        case Stage::Place::real:
            break;
        case Stage::Place::fails:
            return {0, scene.error};
        case Stage::Place::answers_now: {
            Result result = Real::connect(fd, address, size);
            pollfd look{fd, POLLOUT, 0};
            result = result.error == EINPROGRESS ? Real::poll({&look, 1}, 10s) : result;
            return result.ok() ? Result{} : result;
        }
        case Stage::Place::is_itself: {
            const Result bound = Real::bind(fd, address, size);
            return bound.ok() ? Real::connect(fd, address, size) : bound;
        }
        case Stage::Place::vanishes:
            return {0, EINPROGRESS};
        }
        return FaultyKernel::connect(fd, address, size);
    }
    static Result epoll_create() noexcept {
        const int error = Stage::current() == nullptr ? 0 : Stage::current()->epoll_error;
        return error != 0 ? Result{0, error} : Real::epoll_create();
    }
};

using StagedEpoll = BasicEpollPoller<StagedKernel>;
using StagedPoll = BasicPollPoller<StagedKernel>;
using Connector = BasicTcpConnector<StagedKernel>;
using Stream = BasicTcpStream<StagedKernel>;
using Place = Stage::Place;

// -- the world ------------------------------------------------------------------------------------

/// A socket on a loopback port of its own.
struct Host {
    explicit Host(int backlog) : fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        require_ok(static_cast<bool>(fd), "socket");
        const Address any = Address::loopback_ipv4(0);
        require_ok(::bind(fd.get(), any.data(), any.size()) == 0, "bind");
        if (backlog >= 0) {
            require_ok(::listen(fd.get(), backlog) == 0, "listen");
        }
        require_ok(os::Kernel::set_non_blocking(fd.get()).ok(), "fcntl");
        at = Address::filled(
            [&](sockaddr* into, socklen_t* size) { ::getsockname(fd.get(), into, size); });
    }
    /// How many wait to be accepted (tcp(7) has it there for a socket that listens).
    [[nodiscard]] std::size_t waiting() const {
        tcp_info info{};
        socklen_t size = sizeof info;
        require_ok(::getsockopt(fd.get(), IPPROTO_TCP, TCP_INFO, &info, &size) == 0, "TCP_INFO");
        return info.tcpi_unacked;
    }
    [[nodiscard]] os::Fd accept() const {
        require_ok(eventually([&] { return waiting() > 0; }), "nobody came");
        os::Fd peer(::accept4(fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        require_ok(static_cast<bool>(peer), "accept4");
        return peer;
    }

    os::Fd fd;
    Address at;
};
/// Somebody answers there.
struct Answering : Host {
    Answering() : Host(16) {}
};
/// Nobody does, and the machine says so.
struct Refusing : Host {
    Refusing() : Host(-1) {}
};
/// Nobody does, and nobody says so: its queue is full, so the kernel lets every SYN fall.
struct Silent : Host {
    Silent() : Host(0), first(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        const Calm calm; // connect(2)
        require_ok(::connect(first.get(), at.data(), at.size()) == 0, "connect");
        require_ok(eventually([&] { return waiting() == 1; }), "the queue");
    }
    os::Fd first;
};

std::size_t descriptors() {
    std::size_t count = 0;
    const std::filesystem::directory_iterator all("/proc/self/fd");
    for ([[maybe_unused]] const auto& entry : all) {
        ++count;
    }
    return count;
}
bool is(std::optional<std::error_code> code, int error) {
    return code == std::error_code(error, std::system_category());
}
/// Whether this socket's other side is closed, without a byte.
bool is_closed(const os::Fd& peer) {
    Reader reader;
    return eventually([&] {
               reader.read(peer);
               return reader.at_end();
           }) &&
           reader.bytes.empty();
}
/// Waits until an attempt's outcome is known: the connector's own descriptor says so.
template <class ConnectorType>
bool is_ready(const ConnectorType& connector) {
    return eventually([&] {
        pollfd look{connector.fd(), POLLIN, 0};
        return ::poll(&look, 1, 0) == 1;
    });
}

Address ipv4(std::uint16_t port) { return Address::loopback_ipv4(port); }
Address ipv6(std::uint16_t port) { return Address::loopback_ipv6(port); }

// -- the service ----------------------------------------------------------------------------------

/// Notes what connectors and listeners yield, and registers it if it `serves`.
template <class ListenerType, class StreamType>
struct Caller : Service<ListenerType, StreamType> {
    using Listener = ListenerType;
    using Transport = StreamType;
    using typename Caller::Service::Actions;
    using typename Caller::Service::Error;

    struct Notes {
        /// A letter each: c a connection, x an end, h handover, t trouble, u unknown id, f not
        /// registered.
        std::string trace;
        std::optional<std::error_code> code;
        std::optional<Listener> back;
    };

    void tick(Actions& actions) {
        if (const auto job = std::exchange(next, nullptr)) {
            job(actions);
        }
    }
    void handle_listener_event(ResourceId id, typename Listener::Event event, Actions& actions) {
        of[id].trace += 'c';
        peers.push_back(event.peer);
        if (serves) {
            ids.push_back(actions.register_transport(std::move(event.stream)));
        } else {
            streams.push_back(std::move(event.stream));
        }
        if (reaction) {
            reaction(id, actions);
        }
    }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        if (const auto* const data = event.data()) {
            bytes[id] += text_of(*data);
        } else if (event.eof()) {
            actions.close_write(id);
        }
    }
    void handle_error(Error error, Actions&) {
        Notes& notes = of[error.id()];
        notes.trace += error.kind() == ErrorKind::ended                 ? 'x'
                       : error.kind() == ErrorKind::trouble             ? 't'
                       : error.kind() == ErrorKind::unknown_id          ? 'u'
                       : error.kind() == ErrorKind::registration_failed ? 'f'
                                                                        : '?';
        notes.code = error.code();
        if (auto listener = error.take_listener()) {
            notes.back.emplace(std::move(*listener));
        }
    }
    void handover_listener(ResourceId id, Listener listener, Actions&) {
        of[id].trace += 'h';
        of[id].back.emplace(std::move(listener));
    }
    void handover_transport(ResourceId id, Transport, Actions&) { of[id].trace += 'h'; }

    bool serves = false;
    std::function<void(Actions&)> next; ///< done once, in the next tick
    std::function<void(ResourceId, Actions&)> reaction;
    std::map<ResourceId, Notes> of;
    std::map<ResourceId, std::string> bytes;
    std::vector<Address> peers;
    std::vector<ResourceId> ids;
    std::vector<Transport> streams;
};

/// A runtime with a Caller.
template <class Poller, class ListenerType = BasicTcpConnector<typename Poller::Kernel>>
struct Office : Driver<Office<Poller, ListenerType>> {
    using Driver<Office>::perform;
    using Driver<Office>::service;
    using Driver<Office>::until;
    using Kernel = typename Poller::Kernel;
    using Service = Caller<ListenerType, BasicTcpStream<Kernel>>;
    using Actions = typename Service::Actions;

    explicit Office(const Options& options = {}) : runtime(Service{}, options) {}

    ResourceId add(ListenerType listener) {
        ResourceId id;
        perform([&](Actions& actions) { id = actions.register_listener(std::move(listener)); });
        return id;
    }
    bool until_gone(ResourceId id) {
        return until([&] { return trace(id).find_first_of("xh") != std::string::npos; });
    }
    /// Turns enough for whatever is due at this time.
    void settle() {
        for (int turns = 0; turns < 5; ++turns) {
            runtime.turn(1ms);
        }
    }
    std::string& trace(ResourceId id) { return service().of[id].trace; }
    std::optional<std::error_code>& code(ResourceId id) { return service().of[id].code; }

    Runtime<Service, Poller> runtime;
};

/// What a connector ends with that does so before anybody has looked at it.
std::optional<std::error_code> end_of(std::vector<Address> addresses) {
    return Connector::connect(addresses, 1h).ended();
}

} // namespace

// -- who wins -------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("connector: the first address that answers is one event and a clean end", "",
                   StagedEpoll, StagedPoll) {
    Stage stage;
    const Answering host;
    const std::size_t before = descriptors();
    {
        Office<TestType> office;
        office.service().serves = true;
        const ResourceId id = office.add(Connector::connect({host.at, ipv6(1)}, 1h));
        REQUIRE(office.until_gone(id));
        CHECK(office.trace(id) == "cx");
        CHECK(is(office.code(id), 0));
        CHECK(office.service().of[id].back->ended() == std::error_code());
        CHECK(office.service().peers == std::vector{host.at});
        CHECK(stage.tried == std::vector{host.at});

        const os::Fd peer = host.accept();
        const ResourceId stream = office.service().ids.at(0);
        office.perform([&](auto& actions) { actions.send(stream, "there"); });
        write_some(peer, "back");
        Reader reader;
        REQUIRE(office.until([&] {
            reader.read(peer);
            return reader.bytes == "there" && office.service().bytes[stream] == "back";
        }));
        office.settle();
        CHECK(office.trace(id) == "cx");
    }
    CHECK(descriptors() == before);
}

TEST_CASE("connector: the stream is connected, non-blocking, close-on-exec, and has its options") {
    const Answering host;
    for (const bool no_delay : {true, false}) {
        CAPTURE(no_delay);
        ConnectorOptions options;
        options.tcp.no_delay = no_delay;
        options.tcp.keep_alive.idle = 7s;
        TcpConnector connector = TcpConnector::connect({host.at}, 1h, options);
        REQUIRE(is_ready(connector));
        const auto event = connector.handle_io(Io::read);
        REQUIRE(event);
        const int fd = event->stream.fd();
        CHECK(event->peer == host.at);
        CHECK(event->stream.peer() == host.at);
        CHECK_FALSE(event->stream.is_connecting());
        CHECK(event->stream.is_ready_to_write());
        CHECK((::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
        CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
        CHECK((::fcntl(connector.fd(), F_GETFD) & FD_CLOEXEC) != 0);
        CHECK((os::Kernel::option(fd, IPPROTO_TCP, TCP_NODELAY).value != 0) == no_delay);
        CHECK(os::Kernel::option(fd, IPPROTO_TCP, TCP_KEEPIDLE).value == 7);
    }
}

TEMPLATE_TEST_CASE("connector: after a refusal the next address is tried at once", "", StagedEpoll,
                   StagedPoll) {
    Stage stage; // the time never moves: nothing but the refusal can have begun the second attempt
    const Refusing first;
    const Refusing second;
    const Answering third;
    Office<TestType> office;
    const ResourceId id = office.add(Connector::connect({first.at, second.at, third.at}, 1h));
    REQUIRE(office.until_gone(id));
    CHECK(office.trace(id) == "cx");
    CHECK(is(office.code(id), 0));
    CHECK(stage.tried == std::vector{first.at, second.at, third.at});
    CHECK(office.service().peers == std::vector{third.at});
}

TEMPLATE_TEST_CASE("connector: behind a silent address the next is tried after the delay", "",
                   StagedEpoll, StagedPoll) {
    Stage stage;
    const Silent first;
    const Answering second;
    Office<TestType> office;
    const std::size_t before = descriptors();
    const ResourceId id = office.add(Connector::connect({first.at, second.at}, 1h));
    office.settle();
    CHECK(stage.tried == std::vector{first.at});
    stage.time += 250ms - 1ns;
    office.settle();
    CHECK(stage.tried == std::vector{first.at}); // not early

    stage.time += 1ns;
    REQUIRE(office.until_gone(id));
    CHECK(stage.tried == std::vector{first.at, second.at});
    CHECK(office.trace(id) == "cx");
    CHECK(is(office.code(id), 0));
    CHECK(office.service().peers == std::vector{second.at});
    CHECK(descriptors() == before + 2); // the stream, and the connector that was given back
    office.service().of[id].back.reset();
    CHECK(descriptors() == before + 1);
    office.service().streams.clear();
    CHECK(descriptors() == before);
}

TEMPLATE_TEST_CASE("connector: of several that are connected in one turn the preferred one wins",
                   "", StagedEpoll, StagedPoll) {
    Stage stage;
    const Answering hosts[3];
    Office<TestType> office;
    Connector connector = Connector::connect({hosts[0].at, hosts[1].at, hosts[2].at}, 1h);
    for (int n = 0; n < 2; ++n) { // before anybody looked, the others have their turn
        stage.time = *connector.deadline();
        connector.handle_deadline();
    }
    CHECK(stage.tried == std::vector{hosts[0].at, hosts[1].at, hosts[2].at});
    const os::Fd winner = hosts[0].accept();
    const os::Fd losers[] = {hosts[1].accept(), hosts[2].accept()};
    const ResourceId id = office.add(std::move(connector));
    REQUIRE(office.until_gone(id));
    CHECK(office.trace(id) == "cx");
    CHECK(office.service().peers == std::vector{hosts[0].at});
    CHECK(is_closed(losers[0]));
    CHECK(is_closed(losers[1]));
    Reader reader;
    reader.read(winner);
    CHECK_FALSE(reader.at_end());
}

TEMPLATE_TEST_CASE("connector: a connect that succeeds at once is an event as any other", "",
                   StagedEpoll, StagedPoll) {
    Stage stage;
    const Answering host;
    stage.scenes = {{host.at, {Place::answers_now}}};
    Office<TestType> office;
    const ResourceId id = office.add(Connector::connect({host.at}, 1h));
    REQUIRE(office.until_gone(id));
    CHECK(office.trace(id) == "cx");
    CHECK(office.service().peers == std::vector{host.at});
}

TEMPLATE_TEST_CASE("connector: attempts that fail at once are passed over in one go", "",
                   StagedEpoll, StagedPoll) {
    Stage stage;
    const Answering host;
    stage.scenes = {{ipv6(1), {Place::fails, ENETUNREACH}},
                    {ipv4(2), {Place::fails, EADDRNOTAVAIL}},
                    {ipv6(3), {Place::fails, EHOSTUNREACH}}};
    Office<TestType> office;
    Connector connector = Connector::connect({ipv6(1), ipv4(2), ipv6(3), host.at}, 1h);
    CHECK(stage.tried == std::vector{ipv6(1), ipv4(2), ipv6(3), host.at});
    const ResourceId id = office.add(std::move(connector));
    REQUIRE(office.until_gone(id));
    CHECK(office.trace(id) == "cx");
    CHECK(is(office.code(id), 0));
}

TEMPLATE_TEST_CASE("connector: a peer that writes and leaves before the first look loses nothing",
                   "", StagedEpoll, StagedPoll) {
    Stage stage;
    const Answering host;
    Office<TestType> office;
    office.service().serves = true;
    Connector connector = Connector::connect({host.at}, 1h);
    {
        const os::Fd peer = host.accept();
        write_some(peer, "farewell");
    }
    const ResourceId id = office.add(std::move(connector));
    REQUIRE(office.until([&] { return !office.service().ids.empty(); }));
    const ResourceId stream = office.service().ids.at(0);
    REQUIRE(office.until_gone(stream));
    CHECK(office.service().bytes[stream] == "farewell");
    CHECK(office.trace(id) == "cx");
}

TEST_CASE("connector: writable without a peer's name is not connected, but it may come to be") {
    Stage stage;
    const Answering host;
    Connector connector = Connector::connect({host.at}, 1h);
    REQUIRE(is_ready(connector));
    stage.faults.then_fails(Call::peer_name, ENOTCONN);
    CHECK_FALSE(connector.handle_io(Io::read));
    CHECK_FALSE(connector.ended());
    const auto event = connector.handle_io(Io::read);
    REQUIRE(event);
    CHECK(event->peer == host.at);
}

TEST_CASE("connector: nobody is connected to himself") {
    Stage stage;
    Address nowhere;
    {
        const Refusing place;
        nowhere = place.at;
    }
    const Answering host;
    stage.scenes = {{nowhere, {Place::is_itself}}};
    SECTION("it counts as refused, and the next address is tried") {
        Connector connector = Connector::connect({nowhere, host.at}, 1h);
        REQUIRE(is_ready(connector));
        CHECK_FALSE(connector.handle_io(Io::read));
        CHECK_FALSE(connector.ended());
        CHECK(stage.tried == std::vector{nowhere, host.at});
        REQUIRE(is_ready(connector));
        const auto event = connector.handle_io(Io::read);
        REQUIRE(event);
        CHECK(event->peer == host.at);
    }
    SECTION("without another address it is the end") {
        Connector connector = Connector::connect({nowhere}, 1h);
        REQUIRE(is_ready(connector));
        CHECK_FALSE(connector.handle_io(Io::read));
        CHECK(is(connector.ended(), ECONNREFUSED));
    }
}

// -- who is tried when ----------------------------------------------------------------------------

TEST_CASE("connector: families take turns, and within a family the order stays") {
    Stage stage;
    stage.elsewhere = {Place::fails, ECONNREFUSED};
    const auto order = [&](std::vector<Address> addresses, std::size_t head = 1) {
        stage.tried.clear();
        ConnectorOptions options;
        options.first_family_count = head;
        static_cast<void>(Connector::connect(addresses, 1h, options));
        return stage.order();
    };
    const std::vector<Address> sixes_first = {ipv6(1), ipv6(2), ipv6(3), ipv4(4), ipv4(5)};
    CHECK(order(sixes_first) == "6.1 4.4 6.2 4.5 6.3");
    CHECK(order(sixes_first, 0) == "6.1 4.4 6.2 4.5 6.3");
    CHECK(order(sixes_first, 2) == "6.1 6.2 4.4 6.3 4.5");
    CHECK(order(sixes_first, 3) == "6.1 6.2 6.3 4.4 4.5");
    CHECK(order(sixes_first, 99) == "6.1 6.2 6.3 4.4 4.5");
    CHECK(order({ipv4(1), ipv4(2), ipv4(3), ipv6(4)}) == "4.1 6.4 4.2 4.3");
    CHECK(order({ipv4(1), ipv6(2), ipv6(3), ipv6(4)}) == "4.1 6.2 6.3 6.4");
    CHECK(order({ipv4(1), ipv6(2), ipv4(3), ipv6(4)}) == "4.1 6.2 4.3 6.4");
    CHECK(order({ipv4(1), ipv6(2), ipv6(3), ipv4(4)}) == "4.1 6.2 4.4 6.3");
    CHECK(order({ipv6(1), ipv6(2), ipv6(3)}) == "6.1 6.2 6.3");
    CHECK(order({ipv4(1)}) == "4.1");
    CHECK(order({ipv4(1), ipv4(1)}) == "4.1 4.1");
}

TEST_CASE("connector: of a long list as many as its limit are tried, of both families") {
    Stage stage;
    stage.elsewhere = {Place::fails, ECONNREFUSED};
    std::vector<Address> addresses;
    for (std::uint16_t n = 1; n <= 1'000; ++n) {
        addresses.push_back(n <= 999 ? ipv6(n) : ipv4(n));
    }
    CHECK(is(end_of(addresses), ECONNREFUSED));
    REQUIRE(stage.tried.size() == Connector::most_addresses);
    CHECK(stage.tried[0] == ipv6(1));
    CHECK(stage.tried[1] == ipv4(1'000));
    CHECK(stage.tried[2] == ipv6(2));
    CHECK(stage.tried.back() == ipv6(Connector::most_addresses - 1));
}

TEST_CASE("connector: each attempt has its delay, within the bounds of the RFC") {
    Stage stage;
    const Silent hosts[3];
    const auto check_delay = [&](Duration asked, Duration kept) {
        ConnectorOptions options;
        options.attempt_delay = asked;
        stage.tried.clear();
        const Timestamp start = stage.time;
        Connector connector =
            Connector::connect({hosts[0].at, hosts[1].at, hosts[2].at}, 1h, options);
        CHECK(connector.deadline() == start + kept);
        stage.time = start + kept + 1ms;
        connector.handle_deadline();
        CHECK(stage.tried.size() == 2);
        CHECK(connector.deadline() == start + 2 * kept + 1ms);
        stage.time = *connector.deadline();
        connector.handle_deadline();
        CHECK(stage.tried.size() == 3);
        CHECK(connector.deadline() == start + 1h);
    };
    check_delay(ConnectorOptions().attempt_delay, 250ms);
    check_delay(100ms, 100ms);
    check_delay(0ms, 10ms);
    check_delay(-1h, 10ms);
    check_delay(Duration::max(), 2s);
}

TEST_CASE("connector: after a failure the delay of the next attempt begins anew") {
    Stage stage;
    const Refusing first;
    const Silent second;
    const Silent third;
    Connector connector = Connector::connect({first.at, second.at, third.at}, 1h);
    stage.time += 200ms;
    REQUIRE(is_ready(connector));
    CHECK_FALSE(connector.handle_io(Io::read));
    CHECK(stage.tried == std::vector{first.at, second.at});
    CHECK(connector.deadline() == stage.time + 250ms);
}

TEST_CASE("connector: a late failure of one attempt does not disturb those under way") {
    Stage stage;
    const Silent first;
    Answering second;
    Connector connector = Connector::connect({first.at, second.at}, 1h);
    stage.time += 250ms;
    connector.handle_deadline();
    REQUIRE(is_ready(connector));
    stage.faults.then_fails(Call::option, ECONNRESET); // that one, though it is connected
    CHECK_FALSE(connector.handle_io(Io::read));
    CHECK_FALSE(connector.ended());
    CHECK(connector.deadline() == stage.time - 250ms + 1h);
    CHECK(is_closed(second.accept()));
    const os::Fd room = first.accept(); // the kernel tries again by itself, after a second
    REQUIRE(is_ready(connector));
    const auto event = connector.handle_io(Io::read);
    REQUIRE(event);
    CHECK(event->peer == first.at);
}

// -- how it ends ----------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("connector: when all addresses fail there is one end, with its cause", "",
                   StagedEpoll, StagedPoll) {
    Stage stage;
    const Refusing hosts[3];
    const std::size_t before = descriptors();
    {
        Office<TestType> office;
        const ResourceId late =
            office.add(Connector::connect({hosts[0].at, hosts[1].at, hosts[2].at}, 1h));
        REQUIRE(office.until_gone(late));
        CHECK(stage.tried.size() == 3);
        CHECK(office.trace(late) == "x");
        CHECK(is(office.code(late), ECONNREFUSED));

        stage.elsewhere = {Place::fails, ENETUNREACH};
        const ResourceId at_once = office.add(Connector::connect({ipv4(1), ipv6(1)}, 1h));
        REQUIRE(office.until_gone(at_once));
        CHECK(office.trace(at_once) == "x");
        CHECK(is(office.code(at_once), ENETUNREACH));
        office.settle();
        CHECK(office.trace(late) == "x");
        CHECK(office.trace(at_once) == "x");
    }
    CHECK(descriptors() == before);
}

TEST_CASE("connector: the cause of its end is the most telling one, and of those the first") {
    Stage stage;
    const auto cause = [&](std::vector<int> errors) {
        stage.scenes.clear();
        std::vector<Address> addresses;
        for (const int error : errors) {
            addresses.push_back(ipv4(static_cast<std::uint16_t>(addresses.size() + 1)));
            stage.scenes.push_back({addresses.back(), {Place::fails, error}});
        }
        return end_of(addresses);
    };
    CHECK(is(cause({ECONNREFUSED, EACCES}), ECONNREFUSED));
    CHECK(is(cause({EACCES, ECONNREFUSED}), EACCES));
    CHECK(is(cause({ENETUNREACH, ECONNREFUSED}), ECONNREFUSED));
    CHECK(is(cause({ETIMEDOUT, ENETUNREACH, EADDRNOTAVAIL}), ENETUNREACH));
    CHECK(is(cause({EHOSTUNREACH, ETIMEDOUT}), EHOSTUNREACH));
    CHECK(is(cause({ETIMEDOUT, ETIMEDOUT}), ETIMEDOUT));
}

TEST_CASE("connector: the first of equal causes is that of the preferred address, not the sooner") {
    Stage stage;
    const Silent first;
    stage.scenes = {{ipv4(1), {Place::fails, EACCES}}};
    Connector connector = Connector::connect({first.at, ipv4(1)}, 1h);
    stage.time += 250ms;
    connector.handle_deadline();
    CHECK(stage.tried.size() == 2);
    CHECK_FALSE(connector.ended());
    stage.faults.then_fails(Call::option, ECONNREFUSED);
    const os::Fd room = first.accept();
    REQUIRE(is_ready(connector));
    CHECK_FALSE(connector.handle_io(Io::read));
    CHECK(is(connector.ended(), ECONNREFUSED));
}

TEMPLATE_TEST_CASE("connector: at the deadline it has timed out, and all attempts are closed", "",
                   StagedEpoll, StagedPoll) {
    Stage stage;
    const Silent hosts[2];
    Office<TestType> office;
    const std::size_t before = descriptors();
    const ResourceId id = office.add(Connector::connect({hosts[0].at, hosts[1].at}, 400ms));
    stage.time += 250ms;
    office.settle();
    CHECK(stage.tried.size() == 2);
    CHECK(descriptors() == before + 3);
    stage.time += 150ms - 1ns;
    office.settle();
    CHECK(office.trace(id).empty());
    stage.time += 1ns;
    REQUIRE(office.until_gone(id));
    CHECK(office.trace(id) == "x");
    CHECK(is(office.code(id), ETIMEDOUT));
    CHECK(descriptors() == before + 1);
    office.service().of[id].back.reset();
    CHECK(descriptors() == before);
    office.settle();
    CHECK(office.trace(id) == "x");
}

TEMPLATE_TEST_CASE("connector: a success that is noticed after the deadline is none", "",
                   StagedEpoll, StagedPoll) {
    Stage stage;
    const Answering host;
    SECTION("by the loop") {
        Office<TestType> office;
        const ResourceId id = office.add(Connector::connect({host.at}, 1s));
        const os::Fd peer = host.accept();
        stage.time += 1s;
        REQUIRE(office.until_gone(id));
        CHECK(office.trace(id) == "x");
        CHECK(is(office.code(id), ETIMEDOUT));
        CHECK(is_closed(peer));
    }
    SECTION("by whoever asks it first") {
        Connector connector = Connector::connect({host.at}, 1s);
        const os::Fd peer = host.accept();
        REQUIRE(is_ready(connector));
        stage.time += 1s;
        CHECK_FALSE(connector.handle_io(Io::read));
        CHECK(is(connector.ended(), ETIMEDOUT));
        CHECK(is_closed(peer));
        connector.handle_deadline();
        CHECK(is(connector.ended(), ETIMEDOUT));
    }
    SECTION("one just before it is one") {
        Connector connector = Connector::connect({host.at}, 1s);
        REQUIRE(is_ready(connector));
        stage.time += 1s - 1ns;
        CHECK(connector.handle_io(Io::read));
        CHECK(is(connector.ended(), 0));
    }
}

TEST_CASE("connector: the shortest and the longest deadline are kept") {
    Stage stage;
    const Silent host;
    for (const Duration none : {Duration::zero(), Duration{-1h}, Duration::min()}) {
        Connector connector = Connector::connect({host.at}, none);
        CHECK(connector.deadline() == stage.time);
        connector.handle_deadline();
        CHECK(is(connector.ended(), ETIMEDOUT));
    }
    Connector connector = Connector::connect({host.at}, Duration::max());
    CHECK(connector.deadline() == Timestamp::max());
    CHECK_FALSE(connector.handle_io(Io::read));
    CHECK_FALSE(connector.ended());
}

TEST_CASE("connector: a loop on a clock of its own is believed that the moment has come") {
    Stage stage;
    const Silent hosts[2];
    Connector connector = Connector::connect({hosts[0].at, hosts[1].at}, 1h);
    connector.handle_deadline(); // though the kernel's time stands still
    CHECK(stage.tried.size() == 2);
    connector.handle_deadline();
    CHECK(is(connector.ended(), ETIMEDOUT));
}

TEST_CASE("connector: what has ended says nothing more, and wants nothing") {
    Stage stage;
    const Answering host;
    Connector connector = Connector::connect({host.at, ipv4(1)}, 1h);
    const int fd = connector.fd();
    CHECK(connector.interest() == Interest{true, false});
    REQUIRE(is_ready(connector));
    CHECK_FALSE(connector.handle_io(Io::write));
    CHECK(connector.handle_io(Io::read));
    CHECK(is(connector.ended(), 0));
    CHECK_FALSE(connector.handle_io(Io::read));
    CHECK(connector.interest().none());
    CHECK_FALSE(connector.deadline());
    connector.handle_deadline();
    CHECK(is(connector.ended(), 0));
    CHECK(connector.fd() == fd);
    CHECK(stage.tried.size() == 1);
}

TEMPLATE_TEST_CASE("connector: a list that leads nowhere is an end, not a throw", "", StagedEpoll,
                   StagedPoll) {
    Stage stage;
    const std::size_t before = descriptors();
    const Address path = Address::parse("unix:/nowhere");
    CHECK(is(end_of({}), EINVAL));
    CHECK(end_of({}) == std::errc::invalid_argument);
    CHECK(is(end_of({Address()}), EINVAL));
    CHECK(end_of({path}) == std::errc::address_family_not_supported);
    CHECK(is(end_of({path, Address()}), EINVAL));
    CHECK(stage.tried.empty());
    CHECK(descriptors() == before);
    {
        Office<TestType> office;
        const ResourceId id = office.add(Connector::connect({}, 1h));
        REQUIRE(office.until_gone(id));
        CHECK(office.trace(id) == "x");
        CHECK(is(office.code(id), EINVAL));
        // Among good ones they are passed over.
        const Answering host;
        const ResourceId mixed = office.add(Connector::connect({path, Address(), host.at}, 1h));
        REQUIRE(office.until_gone(mixed));
        CHECK(office.trace(mixed) == "cx");
    }
    CHECK(descriptors() == before);
}

TEST_CASE("connector: an attempt that the kernel forgot is not waited for") {
    Stage stage;
    stage.scenes = {{ipv4(1), {Place::vanishes}}};
    Connector connector = Connector::connect({ipv4(1)}, 1h);
    REQUIRE(is_ready(connector)); // it hangs up at once, for ever, and has no error to tell
    CHECK_FALSE(connector.handle_io(Io::read));
    CHECK(is(connector.ended(), ECONNABORTED));
}

// -- shortages ------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("connector: out of descriptors or memory from the first it ends, and says so",
                   "", StagedEpoll, StagedPoll) {
    Stage stage;
    const Answering host;
    Office<TestType> office;
    const std::size_t before = descriptors();
    SECTION("for its own") {
        stage.epoll_error = EMFILE;
        Connector connector = Connector::connect({host.at}, 1h);
        stage.epoll_error = 0;
        CHECK(connector.fd() == -1);
        const ResourceId id = office.add(std::move(connector));
        REQUIRE(office.until_gone(id));
        CHECK(office.trace(id) == "x");
        CHECK(is(office.code(id), EMFILE));
        CHECK(descriptors() == before);
    }
    SECTION("or of memory, for its list") {
        out_of_memory = true;
        Connector connector = Connector::connect({host.at}, 1h);
        out_of_memory = false;
        CHECK(connector.fd() == -1);
        const ResourceId id = office.add(std::move(connector));
        REQUIRE(office.until_gone(id));
        CHECK(office.trace(id) == "x");
        CHECK(is(office.code(id), ENOMEM));
    }
    SECTION("for every attempt") {
        stage.faults.then_fails(Call::socket, EMFILE, 2);
        const ResourceId id = office.add(Connector::connect({host.at, host.at}, 1h));
        REQUIRE(office.until_gone(id));
        CHECK(office.trace(id) == "x");
        CHECK(is(office.code(id), EMFILE));
        CHECK(stage.faults.done(Call::socket));
        CHECK(stage.tried.empty());
    }
    SECTION("for room in the epoll set") {
        Connector connector = [&] {
            stage.faults.then_fails(Call::watch, ENOSPC);
            return Connector::connect({host.at}, 1h);
        }();
        CHECK(stage.faults.done(Call::watch));
        CHECK(descriptors() == before + 1);
        CHECK(is(connector.ended(), ENOSPC));
    }
    SECTION("for an option") {
        stage.faults.then_fails(Call::set_option, ENOMEM);
        const Connector connector = Connector::connect({host.at}, 1h);
        CHECK(stage.faults.done(Call::set_option));
        CHECK(descriptors() == before + 1);
        CHECK(is(connector.ended(), ENOMEM));
    }
}

TEST_CASE("connector: out of descriptors with attempts under way it tries that address later") {
    Stage stage;
    const Silent first;
    const Answering second;
    Connector connector = Connector::connect({first.at, second.at}, 1h);
    stage.faults.then_fails(Call::socket, EMFILE, 2);
    for (int n = 0; n < 2; ++n) {
        stage.time += 250ms;
        CHECK(connector.deadline() == stage.time);
        connector.handle_deadline();
        CHECK(stage.tried == std::vector{first.at});
    }
    stage.time += 250ms;
    connector.handle_deadline();
    CHECK(stage.tried == std::vector{first.at, second.at});
    REQUIRE(is_ready(connector));
    const auto event = connector.handle_io(Io::read);
    REQUIRE(event);
    CHECK(event->peer == second.at);
}

// -- coming and going -----------------------------------------------------------------------------

TEMPLATE_TEST_CASE("connector: unregistered meanwhile it goes on in another loop", "",
                   (std::pair<StagedEpoll, StagedPoll>), (std::pair<StagedPoll, StagedEpoll>)) {
    Stage stage;
    const Silent first;
    const Answering second;
    Office<typename TestType::first_type> one;
    Office<typename TestType::second_type> other;
    const ResourceId id = one.add(Connector::connect({first.at, second.at}, 1h));
    one.settle();
    one.perform([&](auto& actions) { actions.unregister_listener(id); });
    REQUIRE(one.trace(id) == "h");
    stage.time += 250ms;
    one.settle();
    CHECK(one.trace(id) == "h");
    CHECK(stage.tried == std::vector{first.at});

    Connector connector = std::move(*one.service().of[id].back);
    CHECK_FALSE(connector.ended());
    const ResourceId again = other.add(std::move(connector));
    REQUIRE(other.until_gone(again));
    CHECK(other.trace(again) == "cx");
    CHECK(stage.tried == std::vector{first.at, second.at});
    CHECK(other.service().peers == std::vector{second.at});
}

TEMPLATE_TEST_CASE("connector: destroyed with attempts under way it leaves no descriptor", "",
                   StagedEpoll, StagedPoll) {
    Stage stage;
    const Silent hosts[2];
    const std::size_t before = descriptors();
    const auto two_under_way = [&] {
        Connector connector = Connector::connect({hosts[0].at, hosts[1].at}, 1h);
        stage.time += 250ms;
        connector.handle_deadline();
        return connector;
    };
    {
        const Connector connector = two_under_way();
        CHECK(descriptors() == before + 3);
    }
    CHECK(descriptors() == before);
    {
        Connector connector = two_under_way();
        Connector other = two_under_way();
        connector = std::move(other);
        CHECK(descriptors() == before + 3);
    }
    CHECK(descriptors() == before);
    {
        Office<TestType> office;
        const ResourceId id = office.add(two_under_way());
        office.settle();
        CHECK(office.trace(id).empty());
    }
    CHECK(descriptors() == before);
}

TEMPLATE_TEST_CASE("connector: unregistered by its own event it is handed over, ended", "",
                   StagedEpoll, StagedPoll) {
    Stage stage;
    const Answering host;
    Office<TestType> office;
    office.service().reaction = [](ResourceId id, auto& actions) {
        actions.unregister_listener(id);
    };
    const ResourceId id = office.add(Connector::connect({host.at}, 1h));
    REQUIRE(office.until_gone(id));
    office.settle();
    CHECK(office.trace(id) == "ch");
    CHECK(is(office.service().of[id].back->ended(), 0));
}

TEMPLATE_TEST_CASE("connector: with all transports that there may be, it waits for room", "",
                   StagedEpoll, StagedPoll) {
    Stage stage;
    const Answering host;
    Options options;
    options.transports = 1;
    Office<TestType> office(options);
    office.service().serves = true;
    const ResourceId first = office.add(Connector::connect({host.at}, 1h));
    REQUIRE(office.until_gone(first));
    const os::Fd peer = host.accept();
    office.settle();
    const ResourceId second = office.add(Connector::connect({host.at}, 1h));
    const os::Fd next = host.accept();
    office.settle();
    CHECK(office.trace(second).empty());
    office.perform(
        [&](auto& actions) { actions.unregister_transport(office.service().ids.at(0)); });
    REQUIRE(office.until_gone(second));
    CHECK(office.trace(second) == "cx");
    CHECK(office.service().ids.size() == 2);
}

TEST_CASE("connector: a forked child that destroys its copy does not disturb the parent's") {
    const Answering host;
    TcpConnector connector = TcpConnector::connect({host.at}, 1h);
    const int status = in_child([&] {
        { const TcpConnector gone = std::move(connector); }
        return 0;
    });
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    REQUIRE(is_ready(connector));
    const auto event = connector.handle_io(Io::read);
    REQUIRE(event);
    CHECK(event->peer == host.at);
}

TEST_CASE("connector: a failed attempt that a forked child holds open keeps nobody awake") {
    const Refusing first;
    const Silent second;
    TcpConnector connector = TcpConnector::connect({first.at, second.at}, 1h);
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    os::Fd until(ends[0]);
    os::Fd release(ends[1]);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) { // it has a copy of every socket until the parent lets it go
        const Calm calm; // read(2)
        release.reset();
        char byte = 0;
        const auto ended = ::read(until.get(), &byte, 1);
        ::_exit(ended == 0 ? 0 : 1);
    }
    REQUIRE(is_ready(connector));
    CHECK_FALSE(connector.handle_io(Io::read));
    CHECK_FALSE(connector.ended());
    pollfd look{connector.fd(), POLLIN, 0};
    CHECK(::poll(&look, 1, 0) == 0);
    release.reset();
    int status = 0;
    REQUIRE(calmly([&] { return ::waitpid(child, &status, 0); }) == child);
    CHECK(WEXITSTATUS(status) == 0);
}

// -- one of two -----------------------------------------------------------------------------------

namespace {

/// The least that a Resource can be; `Number` makes its Event one of its own.
template <int Number>
struct Plain {
    struct Event {
        int number = Number;
    };
    [[nodiscard]] int fd() const { return 100 + Number; }
    [[nodiscard]] Interest interest() const { return {Number == 1, Number == 2}; }
    std::optional<Event> handle_io(Io io) {
        return io == Io::read ? std::optional(Event{}) : std::nullopt;
    }
};
/// One that has every power.
struct Mighty {
    using Event = int;
    [[nodiscard]] int fd() const { return 200; }
    [[nodiscard]] Interest interest() const { return {true, true}; }
    std::optional<Event> handle_io(Io, std::span<std::byte> scratch) {
        return static_cast<int>(scratch.size());
    }
    [[nodiscard]] std::optional<std::error_code> ended() const { return std::error_code(); }
    std::error_code trouble() { return std::make_error_code(std::errc::too_many_files_open); }
    [[nodiscard]] std::optional<Timestamp> deadline() const { return Timestamp::max(); }
    void handle_deadline() { log += 'd'; }
    [[nodiscard]] bool keeps_time() const { return true; }
    void keep_time(Timestamp, bool reads) { log += reads ? 'R' : 'r'; }
    [[nodiscard]] bool brings_transports() const { return true; }
    void inherit_limits(const StreamLimits& limits) { log += std::to_string(limits.cap); }
    static constexpr bool born_non_blocking = true;

    std::string log;
};

template <class R>
constexpr bool has_no_power =
    !detail::tells_end<R> && !detail::tells_trouble<R> && !detail::has_deadline<R> &&
    !detail::keeps_time<R> && !detail::brings_transports<R> && !detail::takes_stream_limits<R> &&
    !detail::born_non_blocking<R> && !detail::reads_into_scratch<R>;
template <class R>
constexpr bool has_every_power =
    detail::tells_end<R> && detail::tells_trouble<R> && detail::has_deadline<R> &&
    detail::keeps_time<R> && detail::brings_transports<R> && detail::takes_stream_limits<R> &&
    detail::reads_into_scratch<R> && !detail::reads_by_itself<R>;

template <class Kernel>
using Gate = Either<BasicTcpListener<Kernel>, BasicTcpConnector<Kernel>>;

static_assert(Resource<Gate<os::Kernel>> && !Writable<Gate<os::Kernel>>);
static_assert(std::same_as<Gate<os::Kernel>::Event, TcpListener::Event>);
static_assert(detail::born_non_blocking<Gate<os::Kernel>>);

} // namespace

TEST_CASE("either: it has a power if one of the two has it, and is born non-blocking if both are") {
    using Weak = Either<Plain<1>, Plain<2>>;
    using Strong = Either<Plain<1>, Mighty>;
    STATIC_REQUIRE(Resource<Weak>);
    STATIC_REQUIRE(has_no_power<Weak>);
    STATIC_REQUIRE(Resource<Strong>);
    STATIC_REQUIRE(has_every_power<Strong>);
    STATIC_REQUIRE(!detail::born_non_blocking<Strong>);
    STATIC_REQUIRE(detail::born_non_blocking<Either<TcpListener, Mighty>>);
    STATIC_REQUIRE(!Writable<Strong>);
    STATIC_REQUIRE(!Writable<Either<TcpStream, Mighty>>);
    STATIC_REQUIRE(std::is_convertible_v<Mighty, Strong>);
    STATIC_REQUIRE(std::is_convertible_v<Plain<1>, Strong>);
    STATIC_REQUIRE(!std::is_convertible_v<Plain<2>, Strong>);
}

TEST_CASE("either: what is asked of it is asked of the one that it holds") {
    using Strong = Either<Plain<1>, Mighty>;
    StreamLimits limits;
    limits.cap = 77;
    std::byte scratch[5];

    Strong weak = Plain<1>();
    CHECK(weak.fd() == 101);
    CHECK(weak.interest() == Interest{true, false});
    CHECK(std::get<0>(*weak.handle_io(Io::read, scratch)).number == 1);
    CHECK_FALSE(weak.handle_io(Io::write, scratch));
    CHECK_FALSE(weak.ended());
    CHECK_FALSE(weak.trouble());
    CHECK_FALSE(weak.deadline());
    weak.handle_deadline();
    CHECK_FALSE(weak.keeps_time());
    weak.keep_time({}, true);
    CHECK_FALSE(weak.brings_transports());
    weak.inherit_limits(limits);
    CHECK(weak.get_if<Plain<1>>() != nullptr);
    CHECK(weak.get_if<Mighty>() == nullptr);

    Strong strong = Mighty();
    CHECK(strong.fd() == 200);
    CHECK(strong.interest() == Interest{true, true});
    CHECK(std::get<1>(*strong.handle_io(Io::read, scratch)) == 5);
    CHECK(strong.ended() == std::error_code());
    CHECK(strong.trouble() == std::errc::too_many_files_open);
    CHECK(strong.deadline() == Timestamp::max());
    strong.handle_deadline();
    CHECK(strong.keeps_time());
    strong.keep_time({}, true);
    strong.keep_time({}, false);
    CHECK(strong.brings_transports());
    strong.inherit_limits(limits);
    REQUIRE(std::as_const(strong).get_if<Mighty>() != nullptr);
    CHECK(std::as_const(strong).get_if<Mighty>()->log == "dRr77");
    CHECK(std::as_const(strong).get_if<Plain<1>>() == nullptr);

    Strong moved = std::move(strong);
    CHECK(moved.get_if<Mighty>()->log == "dRr77");
    moved = std::move(weak);
    CHECK(moved.fd() == 101);
}

TEMPLATE_TEST_CASE("either: a service that listens and connects hears itself on both ends", "",
                   EpollPoller, PollPoller) {
    const std::size_t before = descriptors();
    {
        Office<TestType, Gate<os::Kernel>> office;
        office.service().serves = true;
        TcpListener door = TcpListener::bind(Address::loopback_ipv4(0));
        const Address at = door.local();
        const ResourceId listener = office.add(std::move(door));
        const ResourceId connector = office.add(TcpConnector::connect({at}, 1h));
        REQUIRE(office.until([&] { return office.service().ids.size() == 2; }));
        REQUIRE(office.until_gone(connector));
        CHECK(office.trace(listener) == "c");
        CHECK(office.trace(connector) == "cx");
        CHECK(is(office.code(connector), 0));
        CHECK(office.service().of[connector].back->template get_if<TcpConnector>() != nullptr);

        const ResourceId one = office.service().ids[0];
        const ResourceId other = office.service().ids[1];
        office.perform([&](auto& actions) {
            actions.send(one, "ping");
            actions.send(other, "pong");
        });
        auto& bytes = office.service().bytes;
        REQUIRE(office.until([&] { return bytes[one] == "pong" && bytes[other] == "ping"; }));
        office.perform([&](auto& actions) { actions.unregister_listener(listener); });
        CHECK(office.trace(listener) == "ch");
        auto& back = office.service().of[listener].back;
        REQUIRE(back);
        CHECK(back->template get_if<TcpConnector>() == nullptr);
        REQUIRE(back->template get_if<TcpListener>() != nullptr);
        CHECK(back->template get_if<TcpListener>()->local() == at);
    }
    CHECK(descriptors() == before);
}

TEMPLATE_TEST_CASE("either: of two transports it is one", "", EpollPoller, PollPoller) {
    using Wire = Either<TcpStream, reactor::Stream>;
    STATIC_REQUIRE(Writable<Wire>);
    STATIC_REQUIRE(std::same_as<Wire::Event, StreamEvent>);
    Runtime<Watcher<Wire>, TestType> runtime{Watcher<Wire>{}};
    Watcher<Wire>& service = runtime.service();
    Ends tcp = tcp_ends();
    Ends local = unix_ends();
    ResourceId ids[2];
    const Buffer shared(std::string_view("shared"));
    service.next = [&](auto& actions) {
        ids[0] = actions.register_transport(TcpStream(std::move(tcp.ours)));
        ids[1] = actions.register_transport(reactor::Stream(std::move(local.ours)));
        for (const ResourceId id : ids) {
            actions.send(id, "borrowed ");
            actions.send(id, Buffer(shared));
        }
    };
    runtime.turn(Duration::zero());
    const os::Fd* const peers[] = {&tcp.theirs, &local.theirs};
    for (std::size_t n = 0; n < 2; ++n) {
        Reader reader;
        CHECK(eventually([&] {
            runtime.turn(Duration::zero());
            reader.read(*peers[n]);
            return reader.bytes == "borrowed shared";
        }));
        write_some(*peers[n], "answer");
        CHECK(::shutdown(peers[n]->get(), SHUT_WR) == 0);
        CHECK(eventually([&] {
            runtime.turn(Duration::zero());
            return service.heard[ids[n]].gone();
        }));
        CHECK(service.heard[ids[n]].bytes == "answer");
        CHECK(service.heard[ids[n]].trace == "deh");
        CHECK(service.heard[ids[n]].unsent == 0);
    }
}
