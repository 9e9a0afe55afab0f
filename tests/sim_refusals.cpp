// SPDX-License-Identifier: Apache-2.0
//
// What Linux refuses, and how it answers what is odd, the simulated kernel refuses and answers
// alike: each case runs on both. What only a world can do is in sim_kernel.cpp.
#include "calm.hpp"
#include "catch.hpp"

#include <reactor/buffer.hpp>
#include <reactor/net/address.hpp>
#include <reactor/net/tcp_options.hpp>
#include <reactor/os/fd.hpp>
#include <reactor/sim/kernel.hpp>

#include <string>

using namespace reactor;
using namespace std::chrono_literals;

namespace {

/// The real kernel, with what a simulated world has besides.
struct Real : os::Kernel {
    struct World {};
    static os::Result pipe(int& reading, int& writing) {
        int ends[2] = {-1, -1};
        const int failed = ::pipe2(ends, O_NONBLOCK | O_CLOEXEC);
        reading = ends[0];
        writing = ends[1];
        return {0, failed != 0 ? errno : 0};
    }
};
struct Simulated : sim::Kernel {
    struct World : sim::World {
        World() : sim::World(1) {}
    };
    static os::Result pipe(int& reading, int& writing) {
        return sim::World::current()->pipe(reading, writing);
    }
};

constexpr int nobodys = 1'000'000; ///< beyond any table of descriptors

template <class Kernel>
using FdOf = os::BasicFd<Kernel>;

template <class Kernel>
FdOf<Kernel> tcp(int family = AF_INET) {
    return FdOf<Kernel>(Kernel::stream_socket(family).fd_or_none());
}
template <class Kernel>
FdOf<Kernel> unix_socket() {
    return tcp<Kernel>(AF_UNIX);
}
template <class Kernel>
int bind_errno(const FdOf<Kernel>& fd, const Address& at) {
    return Kernel::bind(fd.get(), at.data(), at.size()).error;
}
template <class Kernel>
int connect_errno(const FdOf<Kernel>& fd, const Address& to) {
    return Kernel::connect(fd.get(), to.data(), to.size()).error;
}
template <class Kernel>
Address name_of(const FdOf<Kernel>& fd) {
    return Address::filled(
        [&](sockaddr* at, socklen_t* size) { Kernel::local_name(fd.get(), at, size); });
}
template <class Kernel>
bool becomes(const FdOf<Kernel>& fd, short events) {
    pollfd probe{fd.get(), events, 0};
    return Kernel::poll({&probe, 1}, 10s).value == 1;
}
template <class Kernel>
os::Result read_some(const FdOf<Kernel>& fd, std::size_t most) {
    std::string room(most, '\0');
    return Kernel::read(fd.get(), std::as_writable_bytes(std::span(room)));
}
template <class Kernel>
os::Result write_some(const FdOf<Kernel>& fd, std::string text) {
    const iovec part{text.data(), text.size()};
    return Kernel::write(fd.get(), {&part, 1});
}
/// Bound to a free port of this machine, and listening.
template <class Kernel>
FdOf<Kernel> listening(int backlog = 8) {
    FdOf<Kernel> fd = tcp<Kernel>();
    REQUIRE(bind_errno(fd, Address::loopback_ipv4(0)) == 0);
    REQUIRE(Kernel::listen(fd.get(), backlog).ok());
    return fd;
}
template <class Kernel>
struct EndsOf {
    FdOf<Kernel> client;
    FdOf<Kernel> server;
};
template <class Kernel>
EndsOf<Kernel> connected() {
    const FdOf<Kernel> listener = listening<Kernel>();
    EndsOf<Kernel> ends{tcp<Kernel>(), {}};
    REQUIRE(connect_errno(ends.client, name_of(listener)) == EINPROGRESS);
    REQUIRE(becomes(listener, POLLIN));
    ends.server.reset(Kernel::accept(listener.get(), nullptr, nullptr).fd_or_none());
    REQUIRE(becomes(ends.client, POLLOUT));
    return ends;
}
/// A listener without room, and a client whom it does not answer.
template <class Kernel>
struct Crowded {
    FdOf<Kernel> listener = listening<Kernel>(0);
    FdOf<Kernel> first = tcp<Kernel>();
    FdOf<Kernel> client = tcp<Kernel>();

    Crowded() {
        REQUIRE(connect_errno(first, name_of(listener)) == EINPROGRESS);
        REQUIRE(becomes(first, POLLOUT));
        REQUIRE(becomes(listener, POLLIN));
        REQUIRE(connect_errno(client, name_of(listener)) == EINPROGRESS);
    }
};
/// A name in the abstract space that no other process has.
Address abstract_name(const char* what) {
    return Address::parse("unix:@reactor-sim-refusals-" + std::to_string(::getpid()) + what);
}
int tcp_state(const os::Result& asked, const os::TcpInfoFields& info) {
    return asked.ok() ? info.kernel.tcpi_state : -1;
}

} // namespace

TEMPLATE_TEST_CASE("what is no descriptor, or one of another kind, is refused as in Linux", "",
                   Real, Simulated) {
    using Kernel = TestType;
    const test::Calm calm;
    [[maybe_unused]] typename Kernel::World world;
    const FdOf<Kernel> epoll(Kernel::epoll_create().fd_or_none());
    const FdOf<Kernel> bell(Kernel::event_fd().fd_or_none());
    sigset_t set;
    sigemptyset(&set);
    const FdOf<Kernel> signals(Kernel::signal_fd(set).fd_or_none());
    REQUIRE((epoll && bell && signals));
    epoll_event events[1];

    CHECK(Kernel::epoll_wait(nobodys, events, 0).error == EBADF);
    CHECK(Kernel::epoll_wait(bell.get(), events, 0).error == EINVAL);
    CHECK(Kernel::epoll_wait(epoll.get(), {}, 0).error == EINVAL);
    CHECK(Kernel::epoll_control(bell.get(), EPOLL_CTL_ADD, epoll.get(), 0, 0).error == EINVAL);
    CHECK(Kernel::duplicate(nobodys).error == EBADF);
    CHECK(read_some(epoll, 8).error == EINVAL);
    CHECK(write_some(epoll, "12345678").error == EINVAL);
    CHECK(write_some(signals, "12345678").error == EINVAL);
}

TEMPLATE_TEST_CASE("a record is read and written whole, and nothing is nothing, as in Linux", "",
                   Real, Simulated) {
    using Kernel = TestType;
    const test::Calm calm;
    [[maybe_unused]] typename Kernel::World world;
    const FdOf<Kernel> bell(Kernel::event_fd().fd_or_none());
    sigset_t set;
    sigemptyset(&set);
    const FdOf<Kernel> signals(Kernel::signal_fd(set).fd_or_none());
    CHECK(read_some(bell, 7).error == EINVAL);
    CHECK(write_some(bell, "1234567").error == EINVAL);
    CHECK(read_some(signals, sizeof(signalfd_siginfo) - 1).error == EINVAL);
    CHECK(read_some(signals, sizeof(signalfd_siginfo)).error == EAGAIN);

    int ends[2] = {-1, -1};
    REQUIRE(Kernel::pipe(ends[0], ends[1]).ok());
    const FdOf<Kernel> reading(ends[0]);
    const FdOf<Kernel> writing(ends[1]);
    CHECK(write_some(writing, "").ok());
    CHECK(read_some(reading, 0).ok());
    CHECK(write_some(writing, "x").value == 1);
    CHECK(write_some(writing, std::string(4096, 'y')).value == 4096); // a page of its own
    CHECK(read_some(reading, 5000).value == 4097);

    const EndsOf<Kernel> sockets = connected<Kernel>();
    CHECK(Kernel::send(sockets.client.get(), std::span<const iovec>{}).value == 0);
    CHECK(Kernel::send(sockets.client.get(), bytes_of("hello")).value == 5);
    REQUIRE(becomes(sockets.server, POLLIN));
    CHECK(Kernel::peek(sockets.server.get(), {}).ok());
    CHECK(read_some(sockets.server, 100).value == 5);
}

TEMPLATE_TEST_CASE("a bell that was rung as often as it counts rings on, as in Linux", "", Real,
                   Simulated) {
    using Kernel = TestType;
    const test::Calm calm;
    [[maybe_unused]] typename Kernel::World world;
    const FdOf<Kernel> bell(Kernel::event_fd().fd_or_none());
    std::uint64_t count = ~std::uint64_t{0} - 1;
    const iovec most{&count, sizeof count};
    REQUIRE(Kernel::write(bell.get(), {&most, 1}).ok());
    Kernel::ring(bell.get());
    REQUIRE(Kernel::read(bell.get(), std::as_writable_bytes(std::span(&count, 1))).ok());
    CHECK(count == 1);
}

TEMPLATE_TEST_CASE("an address that is taken, or comes too late, is refused as in Linux", "", Real,
                   Simulated) {
    using Kernel = TestType;
    const test::Calm calm;
    [[maybe_unused]] typename Kernel::World world;

    SECTION("of TCP") {
        CHECK(Kernel::stream_socket(AF_UNSPEC).error == EAFNOSUPPORT);
        const FdOf<Kernel> one = tcp<Kernel>();
        const FdOf<Kernel> other = tcp<Kernel>();
        REQUIRE(bind_errno(one, Address::loopback_ipv4(0)) == 0);
        CHECK(bind_errno(one, Address::loopback_ipv4(0)) == EINVAL);
        CHECK(bind_errno(other, name_of(one)) == EADDRINUSE);
        const FdOf<Kernel> wide = tcp<Kernel>();
        CHECK(bind_errno(wide, Address::any_ipv4(name_of(one).port())) == EADDRINUSE);
        const EndsOf<Kernel> ends = connected<Kernel>();
        CHECK(bind_errno(ends.server, Address::loopback_ipv4(0)) == EINVAL);
    }
    SECTION("where both may reuse it only one listens") {
        const FdOf<Kernel> one = tcp<Kernel>();
        const FdOf<Kernel> other = tcp<Kernel>();
        const FdOf<Kernel> late = tcp<Kernel>();
        for (const FdOf<Kernel>* const each : {&one, &other, &late}) {
            REQUIRE(Kernel::set_option(each->get(), SOL_SOCKET, SO_REUSEADDR, 1).ok());
        }
        REQUIRE(bind_errno(one, Address::loopback_ipv4(0)) == 0);
        CHECK(bind_errno(other, name_of(one)) == 0);
        CHECK(Kernel::listen(one.get(), 1).ok());
        CHECK(Kernel::listen(other.get(), 1).error == EADDRINUSE);
        CHECK(bind_errno(late, name_of(one)) == EADDRINUSE);
    }
    SECTION("where one shares its port and the other does not, it is taken") {
        const FdOf<Kernel> one = tcp<Kernel>();
        const FdOf<Kernel> other = tcp<Kernel>();
        REQUIRE(Kernel::set_option(one.get(), SOL_SOCKET, SO_REUSEPORT, 1).ok());
        REQUIRE(bind_errno(one, Address::loopback_ipv4(0)) == 0);
        REQUIRE(Kernel::listen(one.get(), 1).ok());
        CHECK(bind_errno(other, name_of(one)) == EADDRINUSE);
        REQUIRE(Kernel::set_option(other.get(), SOL_SOCKET, SO_REUSEPORT, 1).ok());
        CHECK(bind_errno(other, name_of(one)) == 0);
        CHECK(Kernel::listen(other.get(), 1).ok());
        const FdOf<Kernel> alone = listening<Kernel>();
        const FdOf<Kernel> sharing = tcp<Kernel>();
        REQUIRE(Kernel::set_option(sharing.get(), SOL_SOCKET, SO_REUSEPORT, 1).ok());
        CHECK(bind_errno(sharing, name_of(alone)) == EADDRINUSE);
    }
    SECTION("an IPv6 socket and an IPv4 socket meet where the one is for all") {
        const FdOf<Kernel> six = tcp<Kernel>(AF_INET6);
        const FdOf<Kernel> four = tcp<Kernel>();
        REQUIRE(bind_errno(six, Address::any_ipv6(0)) == 0);
        CHECK(bind_errno(four, Address::loopback_ipv4(name_of(six).port())) == EADDRINUSE);
        CHECK(Kernel::set_option(six.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1).error == EINVAL);
    }
    SECTION("an address of all of IPv4 leaves IPv6 alone") {
        // Another process may just have the port of the other family.
        int error = EADDRINUSE;
        for (int tries = 0; tries < 20 && error == EADDRINUSE; ++tries) {
            const FdOf<Kernel> four = tcp<Kernel>();
            const FdOf<Kernel> six = tcp<Kernel>(AF_INET6);
            REQUIRE(bind_errno(four, Address::any_ipv4(0)) == 0);
            error = bind_errno(six, Address::loopback_ipv6(name_of(four).port()));
        }
        CHECK(error == 0);
    }
    SECTION("a port may be found as late as in listen, for a host that is known") {
        const FdOf<Kernel> fd = tcp<Kernel>();
        REQUIRE(Kernel::set_option(fd.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1).ok());
        REQUIRE(bind_errno(fd, Address::loopback_ipv4(0)) == 0);
        CHECK(name_of(fd).port() == 0);
        REQUIRE(Kernel::listen(fd.get(), 1).ok());
        CHECK(name_of(fd).port() != 0);
        CHECK(name_of(fd) == Address::loopback_ipv4(name_of(fd).port()));
    }
    SECTION("who is bound to every host and connects has the one that it reaches") {
        const FdOf<Kernel> listener = listening<Kernel>();
        const FdOf<Kernel> client = tcp<Kernel>();
        REQUIRE(bind_errno(client, Address::any_ipv4(0)) == 0);
        REQUIRE(connect_errno(client, name_of(listener)) == EINPROGRESS);
        CHECK(name_of(client) == Address::loopback_ipv4(name_of(client).port()));
    }
    SECTION("of UNIX sockets") {
        const Address at = abstract_name("a");
        const FdOf<Kernel> listener = unix_socket<Kernel>();
        const FdOf<Kernel> client = unix_socket<Kernel>();
        const FdOf<Kernel> other = unix_socket<Kernel>();
        REQUIRE(bind_errno(listener, at) == 0);
        CHECK(bind_errno(other, at) == EADDRINUSE);
        REQUIRE(Kernel::listen(listener.get(), 4).ok());
        REQUIRE(connect_errno(client, at) == 0);
        CHECK(connect_errno(client, at) == EISCONN);
        CHECK(connect_errno(listener, at) == EINVAL);
        const sockaddr unnamed{AF_UNIX, {}};
        CHECK(connect_errno(other, Address::from(&unnamed, sizeof unnamed.sa_family)) == EINVAL);
        const FdOf<Kernel> server(
            Kernel::accept(listener.get(), nullptr, nullptr).fd_or_none());
        REQUIRE(server);
        CHECK(bind_errno(server, abstract_name("b")) == EINVAL); // it has the listener's
    }
}

TEMPLATE_TEST_CASE("a socket that listens, calls or has neither done answers as in Linux", "",
                   Real, Simulated) {
    using Kernel = TestType;
    const test::Calm calm;
    [[maybe_unused]] typename Kernel::World world;

    SECTION("one that listens") {
        const FdOf<Kernel> listener = listening<Kernel>();
        CHECK(connect_errno(listener, name_of(listener)) == EISCONN);
        CHECK(Kernel::shutdown_write(listener.get()).ok());
        const FdOf<Kernel> at_name = unix_socket<Kernel>();
        REQUIRE(bind_errno(at_name, abstract_name("l")) == 0);
        REQUIRE(Kernel::listen(at_name.get(), 1).ok());
        CHECK(Kernel::shutdown_write(at_name.get()).ok());
        ::ucred credentials{};
        CHECK(Kernel::option_into(at_name.get(), SOL_SOCKET, SO_PEERCRED, credentials).ok());
        CHECK(credentials.pid == (std::same_as<Kernel, Real> ? ::getpid() : 1));
    }
    SECTION("one that is fresh") {
        CHECK(Kernel::shutdown_write(tcp<Kernel>().get()).error == ENOTCONN);
        CHECK(Kernel::shutdown_write(unix_socket<Kernel>().get()).ok());
    }
    SECTION("one that calls and is not answered") {
        const Crowded<Kernel> crowd;
        CHECK(connect_errno(crowd.client, name_of(crowd.listener)) == EALREADY);
        CHECK(Kernel::send(crowd.client.get(), bytes_of("x")).error == EAGAIN);
        os::TcpInfoFields info{};
        const os::Result asked =
            Kernel::option_into(crowd.client.get(), IPPROTO_TCP, TCP_INFO, info);
        CHECK(tcp_state(asked, info) == TCP_SYN_SENT);
        CHECK(Kernel::shutdown_write(crowd.client.get()).ok());
        CHECK(Kernel::option_into(crowd.client.get(), IPPROTO_TCP, TCP_INFO, info).ok());
        CHECK(info.kernel.tcpi_state == TCP_CLOSE);
    }
}

TEMPLATE_TEST_CASE("an option that a socket does not have is refused as in Linux", "", Real,
                   Simulated) {
    using Kernel = TestType;
    const test::Calm calm;
    [[maybe_unused]] typename Kernel::World world;
    constexpr int unknown = 9999;
    const FdOf<Kernel> four = tcp<Kernel>();
    const FdOf<Kernel> six = tcp<Kernel>(AF_INET6);
    const FdOf<Kernel> local = unix_socket<Kernel>();
    const int at_four = four.get();
    const int at_local = local.get();

    SECTION("a number") {
        CHECK(Kernel::set_option(at_four, SOL_SOCKET, unknown, 1).error == ENOPROTOOPT);
        CHECK(Kernel::set_option(at_four, IPPROTO_TCP, unknown, 1).error == ENOPROTOOPT);
        CHECK(Kernel::set_option(at_four, IPPROTO_IP, unknown, 1).error == ENOPROTOOPT);
        CHECK(Kernel::set_option(six.get(), IPPROTO_IPV6, unknown, 1).error == ENOPROTOOPT);
        CHECK(Kernel::set_option(at_local, SOL_SOCKET, unknown, 1).error == ENOPROTOOPT);
        CHECK(Kernel::set_option(at_local, IPPROTO_TCP, TCP_NODELAY, 1).error == EOPNOTSUPP);
        CHECK(Kernel::option(at_four, SOL_SOCKET, unknown).error == ENOPROTOOPT);
        CHECK(Kernel::option(at_four, IPPROTO_TCP, unknown).error == ENOPROTOOPT);
    }
    SECTION("a text") {
        CHECK(Kernel::set_text_option(at_four, SOL_SOCKET, unknown, "eth0").error == ENOPROTOOPT);
        CHECK(Kernel::set_text_option(at_four, IPPROTO_TCP, unknown, "eth0").error == ENOPROTOOPT);
    }
    SECTION("a record") {
        ::linger linger{1, 5};
        CHECK(Kernel::set_option_to(at_four, SOL_SOCKET, unknown, linger).error == ENOPROTOOPT);
        CHECK(Kernel::set_option_to(at_four, IPPROTO_TCP, unknown, linger).error == ENOPROTOOPT);
        CHECK(Kernel::option_into(at_four, SOL_SOCKET, unknown, linger).error == ENOPROTOOPT);
        CHECK(Kernel::option_into(at_four, IPPROTO_TCP, unknown, linger).error == ENOPROTOOPT);
        os::TcpInfoFields info{};
        CHECK(Kernel::option_into(at_local, IPPROTO_TCP, TCP_INFO, info).error == EOPNOTSUPP);
        CHECK(Kernel::option_into(at_four, IPPROTO_TCP, unknown, info).error == ENOPROTOOPT);
        CHECK(Kernel::option_into(at_four, SOL_SOCKET, unknown, info).error == ENOPROTOOPT);
        ::ucred credentials{};
        CHECK(Kernel::option_into(at_local, SOL_SOCKET, unknown, credentials).error ==
              ENOPROTOOPT);
        CHECK(Kernel::option_into(at_four, IPPROTO_TCP, unknown, credentials).error ==
              ENOPROTOOPT);
    }
    SECTION("and one that it has comes back as it was set") {
        REQUIRE(Kernel::set_option_to(at_four, SOL_SOCKET, SO_LINGER, ::linger{1, 5}).ok());
        ::linger told{};
        REQUIRE(Kernel::option_into(at_four, SOL_SOCKET, SO_LINGER, told).ok());
        CHECK((told.l_onoff != 0 && told.l_linger == 5));
        REQUIRE(Kernel::set_option_to(at_four, SOL_SOCKET, SO_LINGER, ::linger{0, 0}).ok());
        REQUIRE(Kernel::option_into(at_four, SOL_SOCKET, SO_LINGER, told).ok());
        CHECK(told.l_onoff == 0);
    }
}
