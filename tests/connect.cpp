// SPDX-License-Identifier: Apache-2.0
//
// Connecting out: a transport from the first moment, connected once or ended once.

#include <reactor/poller/epoll.hpp>

#include "faulty_kernel.hpp"
#include "peers.hpp"

#include <filesystem>

using namespace test;

namespace {

using FaultyEpoll = BasicEpollPoller<FaultyKernel>;
using FaultyPoll = BasicPollPoller<FaultyKernel>;

template <class Poller>
using Party = Watched<Poller, BasicTcpStream>;

/// A socket that listens on a loopback port, without a reactor.
struct Host {
    explicit Host(int backlog = 16) : fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        const Address any = Address::loopback_ipv4(0);
        require_ok(::bind(fd.get(), any.data(), any.size()) == 0, "bind");
        if (backlog > 0) {
            require_ok(::listen(fd.get(), backlog) == 0, "listen");
        }
        at = Address::filled(
            [&](sockaddr* into, socklen_t* size) { ::getsockname(fd.get(), into, size); });
    }
    [[nodiscard]] os::Fd accept() const {
        os::Fd peer;
        require_ok(eventually([&] {
                       pollfd look{fd.get(), POLLIN, 0};
                       return ::poll(&look, 1, 0) == 1;
                   }),
                   "nobody came");
        peer.reset(::accept4(fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        require_ok(static_cast<bool>(peer), "accept4");
        return peer;
    }
    os::Fd fd;
    Address at;
};

std::size_t descriptors() {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::directory_iterator("/proc/self/fd")) {
        ++count;
    }
    return count;
}
bool is(std::error_code code, int error) {
    return code == std::error_code(error, std::system_category());
}

/// Answers EINPROGRESS and lets nothing come of it.
void black_hole(Faults& faults) {
    faults.otherwise = [](Call call) {
        return call == Call::connect     ? Fault{EINPROGRESS}
               : call == Call::peer_name ? Fault{ENOTCONN}
                                         : Fault{};
    };
}

} // namespace

TEMPLATE_TEST_CASE("connect: connected is told once, and then bytes go both ways", "", EpollPoller,
                   PollPoller) {
    const Host host;
    Party<TestType> party;
    const ResourceId id = party.add(TcpStream::connect(host.at, 10s));
    CHECK(party.heard(id).trace.empty()); // not in the turn of its registration
    REQUIRE(party.until([&] { return !party.heard(id).trace.empty(); }));
    CHECK(party.heard(id).trace == "c");
    const os::Fd peer = host.accept();
    party.perform([&](auto& actions) { actions.send(id, "there"); });
    write_some(peer, "back");
    Reader reader;
    REQUIRE(party.read_until(peer, reader, 5));
    CHECK(reader.bytes == "there");
    REQUIRE(party.until([&] { return party.heard(id).bytes == "back"; }));
    CHECK(party.rests());
    CHECK(party.heard(id).trace == "cd");
}

TEMPLATE_TEST_CASE("connect: what is sent before is kept, and arrives first and in order", "",
                   EpollPoller, PollPoller) {
    const Host host;
    Party<TestType> party;
    const std::string large = pattern(500'000);
    ResourceId id;
    party.perform([&](auto& actions) {
        id = actions.register_transport(TcpStream::connect(host.at, 10s));
        actions.send(id, "first ");
        actions.send(id, Buffer(large));
        actions.send(id, "last");
    });
    const os::Fd peer = host.accept();
    Reader reader;
    REQUIRE(party.read_until(peer, reader, large.size() + 10));
    CHECK((reader.bytes == "first " + large + "last"));
    CHECK(party.heard(id).trace.find('c') != std::string::npos);
    CHECK(party.heard(id).trace.find('s') == std::string::npos);
}

TEMPLATE_TEST_CASE("connect: sends before it is connected keep to the cap, whole or given back", "",
                   FaultyEpoll, FaultyPoll) {
    Faults faults;
    black_hole(faults);
    Party<TestType> party;
    auto stream = BasicTcpStream<FaultyKernel>::connect("127.0.0.1:9", 10s);
    stream.set_limits({.high_watermark = 100, .low_watermark = 50, .cap = 1000});
    CHECK_FALSE(stream.is_ready_to_write());
    const ResourceId id = party.add(std::move(stream));
    party.perform([&](auto& actions) { actions.send(id, std::string(900, 'a')); });
    CHECK(party.heard(id).trace == "b");
    party.perform([&](auto& actions) { actions.send(id, std::string(101, 'b')); });
    CHECK(party.heard(id).trace == "bs");
    REQUIRE(party.heard(id).returned.size() == 1);
    CHECK(party.heard(id).returned[0].size() == 101);
    party.perform([&](auto& actions) { actions.send(id, std::string(100, 'c')); });
    CHECK(party.heard(id).trace == "bs");
    faults.ahead = 11s;
    REQUIRE(party.until_gone(id));
    CHECK(party.heard(id).trace == "bsx");
    CHECK(party.heard(id).unsent == 1000);
    CHECK(is(party.heard(id).code, ETIMEDOUT));
}

TEMPLATE_TEST_CASE("connect: a peer that has written and left before the first look loses nothing",
                   "", EpollPoller, PollPoller) {
    const Host host;
    Party<TestType> party;
    auto stream = TcpStream::connect(host.at, 10s);
    {
        os::Fd peer = host.accept();
        write_some(peer, "short visit");
    }
    REQUIRE(eventually([&] {
        pollfd look{stream.fd(), POLLRDHUP, 0};
        return ::poll(&look, 1, 0) == 1;
    }));
    const ResourceId id = party.add(std::move(stream));
    REQUIRE(party.until_gone(id));
    CHECK(party.heard(id).trace == "cdeh");
    CHECK(party.heard(id).bytes == "short visit");
}

TEMPLATE_TEST_CASE("connect: whatever goes wrong is one end, with its cause and what was unsent",
                   "", FaultyEpoll, FaultyPoll) {
    using Tested = BasicTcpStream<FaultyKernel>;
    const std::size_t before = descriptors();
    {
        const Host nobody(0); // bound, so that nobody else listens there
        Faults faults;
        Party<TestType> party;
        int expected = 0;
        const auto end_of = [&](Tested stream) {
            ResourceId id;
            party.perform([&](auto& actions) {
                id = actions.register_transport(std::move(stream));
                actions.send(id, "unsent");
            });
            REQUIRE(party.until_gone(id));
            CHECK(party.rests());
            CAPTURE(expected);
            CHECK(is(party.heard(id).code, expected));
            // A send to what has ended already comes back; to what is connecting it is counted.
            CHECK(((party.heard(id).trace == "x" && party.heard(id).unsent == 6) ||
                   party.heard(id).trace == "sx"));
            REQUIRE(party.heard(id).back);
            CHECK(party.heard(id).back->timeout() == StreamTimeout::none);
        };
        SECTION("refused") {
            expected = ECONNREFUSED;
            end_of(Tested::connect(nobody.at, 10s));
        }
        SECTION("refused at once, unreachable, no route, no port, no permission, no memory") {
            for (const int error : {ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL,
                                    EADDRINUSE, EACCES, EPERM, ENOBUFS, ENOMEM}) {
                expected = error;
                faults.then_fails(Call::connect, error);
                end_of(Tested::connect("127.0.0.1:9", 10s));
            }
        }
        SECTION("told later by SO_ERROR") {
            for (const int error : {ENETUNREACH, EHOSTUNREACH, ETIMEDOUT, ECONNRESET}) {
                expected = error;
                faults.then_fails(Call::option, error);
                end_of(Tested::connect(nobody.at, 10s));
            }
        }
        SECTION("no descriptor") {
            expected = EMFILE;
            faults.then_fails(Call::socket, EMFILE);
            end_of(Tested::connect("127.0.0.1:9", 10s));
        }
        SECTION("an option that cannot be set") {
            expected = ENOPROTOOPT;
            faults.then_fails(Call::set_option, ENOPROTOOPT);
            end_of(Tested::connect("127.0.0.1:9", 10s));
        }
        SECTION("a local address that is not ours") {
            expected = EADDRNOTAVAIL;
            ConnectOptions options;
            options.local = Address::parse("192.0.2.1:0");
            end_of(Tested::connect(nobody.at, 10s, options));
        }
        SECTION("a device that is not there") {
            expected = ENODEV;
            ConnectOptions options;
            options.device = "no-such-device";
            end_of(Tested::connect(nobody.at, 10s, options));
        }
        SECTION("a bad address") {
            expected = EINVAL;
            end_of(Tested::connect("localhost:80", 10s));
            end_of(Tested::connect("", 10s));
        }
        SECTION("an address of another family") {
            expected = EAFNOSUPPORT;
            end_of(Tested::connect("unix:@name", 10s));
            end_of(Tested::connect(Address(), 10s));
        }
    }
    CHECK(descriptors() == before);
}

TEMPLATE_TEST_CASE("connect: writable without a peer's name is not connected", "", FaultyEpoll,
                   FaultyPoll) {
    Faults faults;
    const Host host;
    Party<TestType> party;
    faults.then_fails(Call::peer_name, ENOTCONN, 2);
    const ResourceId id = party.add(BasicTcpStream<FaultyKernel>::connect(host.at, 10s));
    REQUIRE(party.until([&] { return faults.done(Call::peer_name); }));
    CHECK(party.heard(id).trace.empty());
    REQUIRE(party.until([&] { return !party.heard(id).trace.empty(); }));
    CHECK(party.heard(id).trace == "c");
}

TEMPLATE_TEST_CASE("connect: at its deadline it ends, with timed_out", "",
                   FaultyEpoll, FaultyPoll) {
    Faults faults;
    black_hole(faults);
    const std::size_t before = descriptors();
    {
        Party<TestType> party;
        const ResourceId id = party.add(BasicTcpStream<FaultyKernel>::connect("127.0.0.1:9", 1h));
        faults.ahead = 2h;
        REQUIRE(party.until_gone(id));
        CHECK(party.heard(id).trace == "x");
        CHECK(is(party.heard(id).code, ETIMEDOUT));
        CHECK(party.heard(id).back->timeout() == StreamTimeout::connect);
        CHECK(party.rests());
    }
    CHECK(descriptors() == before);
}

TEMPLATE_TEST_CASE("connect: a success that is seen after the deadline is none", "", FaultyEpoll,
                   FaultyPoll) {
    Faults faults;
    const Host host;
    Party<TestType> party;
    const ResourceId id = party.add(BasicTcpStream<FaultyKernel>::connect(host.at, 1h));
    const os::Fd peer = host.accept();
    faults.ahead = 1h; // both are due in one turn now
    REQUIRE(party.until_gone(id));
    CHECK(party.heard(id).trace == "x");
    CHECK(is(party.heard(id).code, ETIMEDOUT));
    party.heard(id).back.reset();
    Reader reader;
    CHECK(party.read_to_end(peer, reader));
    CHECK(reader.bytes.empty());
    CHECK(party.heard(id).trace == "x");
}

TEMPLATE_TEST_CASE("connect: who unregisters it meanwhile has it back, and it goes on elsewhere",
                   "", EpollPoller, PollPoller) {
    const Host host;
    Party<TestType> first;
    ResourceId id;
    first.perform([&](auto& actions) {
        id = actions.register_transport(TcpStream::connect(host.at, 10s));
        actions.send(id, "kept");
        actions.unregister_transport(id);
    });
    REQUIRE(first.until_gone(id));
    CHECK(first.heard(id).trace == "h");
    CHECK(first.heard(id).unsent == 4);
    CHECK(first.heard(id).back->is_connecting());
    CHECK(first.rests());

    Party<TestType> second;
    const ResourceId there = second.add(std::move(*first.heard(id).back));
    REQUIRE(second.until([&] { return second.heard(there).trace == "c"; }));
    const os::Fd peer = host.accept();
    Reader reader;
    REQUIRE(second.read_until(peer, reader, 4));
    CHECK(reader.bytes == "kept");
    CHECK(first.heard(id).trace == "h");
}

TEMPLATE_TEST_CASE("connect: close_write meanwhile sends what waits, and then the end", "",
                   EpollPoller, PollPoller) {
    const Host host;
    Party<TestType> party;
    ResourceId id;
    party.perform([&](auto& actions) {
        id = actions.register_transport(TcpStream::connect(host.at, 10s));
        actions.send(id, "all");
        actions.close_write(id);
        actions.send(id, "too late");
    });
    os::Fd peer = host.accept();
    Reader reader;
    REQUIRE(party.read_to_end(peer, reader));
    CHECK(reader.bytes == "all");
    peer.reset();
    REQUIRE(party.until_gone(id));
    CHECK(party.heard(id).trace == "sceh");
}

TEMPLATE_TEST_CASE("connect: nobody is connected to himself", "", EpollPoller, PollPoller) {
    // A client whose own port is the one that it calls: TCP opens it simultaneously, to itself.
    Host nobody(0);
    const Address at = nobody.at;
    ConnectOptions options;
    options.local = at;
    nobody.fd.reset();
    Party<TestType> party;
    const ResourceId id = party.add(TcpStream::connect(at, 10s, options));
    REQUIRE(party.until_gone(id));
    CHECK(party.heard(id).trace == "x");
    CHECK(is(party.heard(id).code, ECONNREFUSED));
}

TEMPLATE_TEST_CASE("connect: a transport that connects at a shutdown is handed over, open", "",
                   EpollPoller, PollPoller) {
    const Host host;
    Party<TestType> party;
    ResourceId id;
    party.perform([&](auto& actions) {
        id = actions.register_transport(TcpStream::connect(host.at, 10s));
        actions.send(id, "12345");
        actions.shutdown();
    });
    const Farewell farewell = party.runtime.run();
    CHECK(party.heard(id).trace == "h");
    CHECK(party.heard(id).unsent == 5);
    CHECK(farewell.forced == 1);
    CHECK(farewell.unsent_bytes == 5);
    CHECK(party.heard(id).back->fd() >= 0);
}

TEMPLATE_TEST_CASE("connect: thousands at once are all connected, once each", "", EpollPoller,
                   PollPoller) {
    const Host host(4096);
    Party<TestType> party;
    constexpr std::size_t count = 500;
    std::vector<ResourceId> ids;
    party.perform([&](auto& actions) {
        for (std::size_t n = 0; n < count; ++n) {
            ids.push_back(actions.register_transport(TcpStream::connect(host.at, 60s)));
        }
    });
    std::vector<os::Fd> peers;
    for (std::size_t n = 0; n < count; ++n) {
        peers.push_back(host.accept());
        party.turn();
    }
    REQUIRE(party.until([&] {
        std::size_t connected = 0;
        for (const ResourceId id : ids) {
            connected += party.heard(id).trace == "c" ? 1U : 0U;
        }
        return connected == count;
    }));
    CHECK(party.rests());
    CHECK(peers.size() == count);
}

TEST_CASE("connect: a local address and port are what it is connected from") {
    const Host host;
    Host here(0);
    Party<EpollPoller> party;
    ConnectOptions options;
    options.local = Address::parse("127.0.0.5:0");
    const ResourceId any_port = party.add(TcpStream::connect(host.at, 10s, options));
    options.local = here.at;
    here.fd.reset();
    const ResourceId that_port = party.add(TcpStream::connect(host.at, 10s, options));
    REQUIRE(party.until([&] {
        return party.heard(any_port).trace == "c" && party.heard(that_port).trace == "c";
    }));
    party.perform([&](auto& actions) {
        actions.unregister_transport(any_port);
        actions.unregister_transport(that_port);
    });
    REQUIRE(party.until_gone(that_port));
    CHECK(party.heard(any_port).back->local().to_string().starts_with("127.0.0.5:"));
    CHECK(party.heard(that_port).back->local() == here.at);
    CHECK(party.heard(that_port).back->peer() == host.at);
}

TEMPLATE_TEST_CASE("connect: a peer that has written and reset before the first look loses nothing",
                   "", EpollPoller, PollPoller) {
    const Host host;
    Party<TestType> party;
    auto stream = TcpStream::connect(host.at, 10s);
    os::Fd peer = host.accept();
    write_some(peer, "short visit");
    REQUIRE(has_arrived(peer));
    reset(peer);
    REQUIRE(has_hung_up(stream.fd()));
    const ResourceId id = party.add(std::move(stream));
    REQUIRE(party.until_gone(id));
    CHECK(party.heard(id).trace == "cdx");
    CHECK(party.heard(id).bytes == "short visit");
    CHECK(is(party.heard(id).code, ECONNRESET));
    CHECK(party.rests());
}
