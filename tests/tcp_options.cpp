// SPDX-License-Identifier: Apache-2.0
//
// What is set on TCP sockets, as the kernel then answers, and how it comes to those accepted.

#include <reactor/poller/epoll.hpp>

#include "peers.hpp"

using namespace test;

namespace {

int option(int fd, int level, int name) {
    int value = -1;
    socklen_t size = sizeof value;
    require_ok(::getsockopt(fd, level, name, &value, &size) == 0, "getsockopt");
    return value;
}

TcpOptions all() {
    TcpOptions options;
    options.keep_alive = {.idle = 20s, .interval = 1500ms, .probes = 3};
    options.user_timeout = 1234567us;
    options.linger = Duration::zero();
    options.receive_buffer = 30'000;
    options.send_buffer = 40'000;
    return options;
}
void check_all(int fd) {
    CHECK(option(fd, IPPROTO_TCP, TCP_NODELAY) == 1);
    CHECK(option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
    CHECK(option(fd, IPPROTO_TCP, TCP_KEEPIDLE) == 20);
    CHECK(option(fd, IPPROTO_TCP, TCP_KEEPINTVL) == 2); // rounded up
    CHECK(option(fd, IPPROTO_TCP, TCP_KEEPCNT) == 3);
    CHECK(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == 1235);
    linger value{};
    socklen_t size = sizeof value;
    ::getsockopt(fd, SOL_SOCKET, SO_LINGER, &value, &size);
    CHECK((value.l_onoff == 1 && value.l_linger == 0));
    CHECK(option(fd, SOL_SOCKET, SO_RCVBUF) == 60'000); // doubled, socket(7)
    CHECK(option(fd, SOL_SOCKET, SO_SNDBUF) == 80'000);
}

/// A client's socket that is connected, without a reactor.
os::Fd client_of(const Address& at) {
    os::Fd fd(::socket(at.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Calm calm; // connect(2)
    require_ok(::connect(fd.get(), at.data(), at.size()) == 0, "connect");
    return fd;
}
/// Accepts one, without a reactor.
TcpStream accept_from(TcpListener& listener) {
    std::optional<TcpListener::Event> event;
    require_ok(eventually([&] {
                   event = listener.handle_io(Io::read);
                   return event.has_value();
               }),
               "nobody came");
    return std::move(event->stream);
}

} // namespace

TEST_CASE("tcp options: a listener's are those of all that it accepts") {
    ListenOptions options;
    options.tcp = all();
    TcpListener listener = TcpListener::bind("127.0.0.1:0", options);
    check_all(listener.fd());
    const os::Fd client = client_of(listener.local());
    const TcpStream stream = accept_from(listener);
    check_all(stream.fd());
}

TEST_CASE("tcp options: those of a connect are set before it") {
    const TcpListener listener = TcpListener::bind("127.0.0.1:0");
    ConnectOptions options;
    options.tcp = all();
    const TcpStream stream = TcpStream::connect(listener.local(), 10s, options);
    check_all(stream.fd());
}

TEST_CASE("tcp options: without any, only Nagle's algorithm is off; with it off, it is on") {
    const TcpListener listener = TcpListener::bind("127.0.0.1:0");
    const TcpStream plain = TcpStream::connect(listener.local(), 10s);
    CHECK(option(plain.fd(), IPPROTO_TCP, TCP_NODELAY) == 1);
    CHECK(option(plain.fd(), SOL_SOCKET, SO_KEEPALIVE) == 0);
    CHECK(option(plain.fd(), IPPROTO_TCP, TCP_USER_TIMEOUT) == 0);
    ConnectOptions options;
    options.tcp.no_delay = false;
    TcpStream other = TcpStream::connect(listener.local(), 10s, options);
    CHECK(option(other.fd(), IPPROTO_TCP, TCP_NODELAY) == 0);
    CHECK_FALSE(other.set_options(all()));
    check_all(other.fd());
    TcpOptions late;
    late.no_delay = false;
    CHECK_FALSE(other.set_options(late));
    CHECK(option(other.fd(), IPPROTO_TCP, TCP_NODELAY) == 0);
}

TEST_CASE("tcp options: spans beyond what the kernel counts to are held, not wrapped") {
    const TcpListener listener = TcpListener::bind("127.0.0.1:0");
    TcpOptions options;
    options.user_timeout = Duration::max();
    TcpStream stream = TcpStream::connect(listener.local(), 10s);
    CHECK_FALSE(stream.set_options(options));
    CHECK(option(stream.fd(), IPPROTO_TCP, TCP_USER_TIMEOUT) > 2'000'000'000);
    options = {};
    options.user_timeout = Duration{1};
    CHECK_FALSE(stream.set_options(options));
    CHECK(option(stream.fd(), IPPROTO_TCP, TCP_USER_TIMEOUT) == 1);
    // The kernel's own limit is an error, not a silence.
    options = {};
    options.keep_alive.idle = Duration::max();
    CHECK(stream.set_options(options) == std::errc::invalid_argument);
}

TEST_CASE("tcp options: an IPv6 listener takes IPv4 clients or does not, as asked") {
    std::error_code error;
    ListenOptions options;
    options.only_ipv6 = false;
    TcpListener both = TcpListener::bind("[::]:0", error, options);
    REQUIRE_FALSE(error);
    const os::Fd mapped = client_of(Address::loopback_ipv4(both.local().port()));
    const TcpStream stream = accept_from(both);
    CHECK(stream.peer().to_string().starts_with("[::ffff:127.0.0.1]:"));

    // The same port is free for a listener of IPv4, unless another program just has it there.
    options.only_ipv6 = true;
    error = std::make_error_code(std::errc::address_in_use);
    for (int tries = 0; tries < 20 && error == std::errc::address_in_use; ++tries) {
        const TcpListener six = TcpListener::bind("[::]:0", error, options);
        REQUIRE_FALSE(error);
        const Address at = Address::loopback_ipv4(six.local().port());
        const TcpListener four = TcpListener::bind(at, error);
    }
    CHECK_FALSE(error);
    const TcpListener six = TcpListener::bind("[::]:0", error, options);
    REQUIRE_FALSE(error);
    const Address at = Address::loopback_ipv4(six.local().port());
    const os::Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK(calmly([&] { return ::connect(client.get(), at.data(), at.size()); }) == -1);
    CHECK(errno == ECONNREFUSED);
}

TEST_CASE("tcp options: a listener of one device has no other clients; one that is not there is "
          "an error") {
    std::error_code error;
    ListenOptions options;
    options.device = "lo";
    TcpListener listener = TcpListener::bind("127.0.0.1:0", error, options);
    REQUIRE_FALSE(error);
    const os::Fd client = client_of(listener.local());
    CHECK(accept_from(listener).fd() >= 0);
    options.device = "no-such-device";
    CHECK(TcpListener::bind("127.0.0.1:0", error, options).fd() == -1);
    CHECK(error == std::errc::no_such_device);
}

TEST_CASE("tcp options: shards share a port, and every client has one of them") {
    ListenOptions options;
    options.reuse_port = true;
    TcpListener first = TcpListener::bind("127.0.0.1:0", options);
    TcpListener second = TcpListener::bind(first.local(), options);
    std::vector<os::Fd> clients;
    for (int n = 0; n < 200; ++n) {
        clients.push_back(client_of(first.local()));
    }
    std::vector<TcpListener::Event> accepted[2];
    REQUIRE(eventually([&] {
        if (auto event = first.handle_io(Io::read)) {
            accepted[0].push_back(std::move(*event));
        }
        if (auto event = second.handle_io(Io::read)) {
            accepted[1].push_back(std::move(*event));
        }
        return accepted[0].size() + accepted[1].size() == clients.size();
    }));
    CHECK(accepted[0].size() > 20); // spread by a hash: 100 on average, deviation 7
    CHECK(accepted[1].size() > 20);
}

TEST_CASE("tcp info: tells the state, the times and the bytes of a connection") {
    TcpListener listener = TcpListener::bind("127.0.0.1:0");
    const os::Fd client = client_of(listener.local());
    const TcpStream stream = accept_from(listener);
    write_some(client, pattern(10'000));
    REQUIRE(has_arrived(client));
    std::error_code error;
    const TcpInfo info = stream.info(error);
    REQUIRE_FALSE(error);
    CHECK(info.state == TCP_ESTABLISHED);
    CHECK(info.bytes_received == 10'000);
    CHECK(info.segment_size > 500);
    CHECK(info.congestion_window > 0);
    CHECK(info.retransmission_timeout > 0s);
    CHECK(info.bytes_unsent == 0);

    const TcpStream none = TcpStream::connect("nowhere", 1s);
    CHECK(none.info(error).state == 0);
    CHECK(error == std::errc::bad_file_descriptor);
}

TEST_CASE("tcp: a listener that somebody else made is adopted, with who waits") {
    os::Fd socket(::socket(AF_INET, SOCK_STREAM, 0)); // neither non-blocking nor close-on-exec
    const Address any = Address::loopback_ipv4(0);
    require_ok(::bind(socket.get(), any.data(), any.size()) == 0, "bind");
    std::error_code error;
    {
        const TcpListener not_yet(os::Fd(::dup(socket.get())), error);
        CHECK(error == std::errc::invalid_argument); // it does not listen
        CHECK(not_yet.fd() == -1);
    }
    require_ok(::listen(socket.get(), 10) == 0, "listen");
    const Address at = Address::filled(
        [&](sockaddr* into, socklen_t* size) { ::getsockname(socket.get(), into, size); });
    const os::Fd client = client_of(at);
    TcpListener listener(std::move(socket));
    CHECK(listener.local() == at);
    CHECK((::fcntl(listener.fd(), F_GETFL) & O_NONBLOCK) != 0);
    CHECK((::fcntl(listener.fd(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(accept_from(listener).peer().is_ipv4());
}

TEST_CASE("tcp: what is no TCP listener is not adopted, and closed") {
    std::error_code error;
    int ends[2];
    require_ok(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
    const os::Fd other(ends[1]);
    CHECK(TcpListener(os::Fd(ends[0]), error).fd() == -1);
    CHECK(error == std::errc::address_family_not_supported);
    CHECK(::fcntl(ends[0], F_GETFD) == -1);

    const TcpListener listening = TcpListener::bind("127.0.0.1:0");
    CHECK(TcpListener(client_of(listening.local()), error).fd() == -1);
    CHECK(error == std::errc::invalid_argument);
    CHECK(TcpListener(os::Fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), error).fd() == -1);
    CHECK(error);
    CHECK(TcpListener(os::Fd(), error).fd() == -1);
    CHECK(error == std::errc::bad_file_descriptor);
    CHECK_THROWS_AS(TcpListener(os::Fd()), std::system_error);
}
