// SPDX-License-Identifier: Apache-2.0
//
// Parts of the library asked directly, with no loop around them: what they answer where a loop
// would not ask, or only on a bad day.
#include "catch.hpp"
#include "faulty_kernel.hpp"

#include <reactor/detail/mailbox.hpp>
#include <reactor/net/tcp.hpp>
#include <reactor/net/unix.hpp>
#include <reactor/offload.hpp>
#include <reactor/poller/epoll.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/reactor.hpp>
#include <reactor/signals.hpp>
#include <reactor/testing/fake_poller.hpp>
#include <reactor/testing/scripted.hpp>

#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace reactor;
using namespace std::chrono_literals;
using test::Call;
using test::FaultyKernel;
using test::Faults;

/// The faulty kernel, with faults where a descriptor or a file is looked at.
struct SternKernel : FaultyKernel {
    static inline thread_local int fails_close_on_exec = 0;
    static inline thread_local int fails_pair = 0;
    static inline thread_local int fails_type = 0;
    static inline thread_local int fails_blocking = 0;
    static inline thread_local int fails_duplicate = 0;
    static inline thread_local int looks = 0;         ///< at a file, so far
    static inline thread_local int changes_at = 0;    ///< from this look on it is another file
    static inline thread_local int gone_at = 0;       ///< at this look there is none
    static inline thread_local bool no_socket = false; ///< the file is no socket's

    static void heal() noexcept {
        fails_close_on_exec = fails_pair = fails_type = fails_blocking = fails_duplicate = 0;
        looks = changes_at = gone_at = 0;
        no_socket = false;
    }
    static Result set_close_on_exec(int fd) noexcept {
        return fails_close_on_exec != 0 ? Result{0, fails_close_on_exec}
                                        : Real::set_close_on_exec(fd);
    }
    static Result set_non_blocking(int fd) noexcept {
        return fails_blocking != 0 ? Result{0, fails_blocking} : Real::set_non_blocking(fd);
    }
    static Result duplicate(int fd) noexcept {
        return fails_duplicate != 0 ? Result{0, fails_duplicate} : Real::duplicate(fd);
    }
    static Result stream_pair(int& first, int& second) noexcept {
        return fails_pair != 0 ? Result{0, fails_pair} : Real::stream_pair(first, second);
    }
    static Result option(int fd, int level, int name) noexcept {
        return name == SO_TYPE && fails_type != 0 ? Result{0, fails_type}
                                                  : FaultyKernel::option(fd, level, name);
    }
    static Result file_traits(const char* path, os::FileTraits& out) noexcept {
        ++looks;
        if (looks == gone_at) {
            return {0, ENOENT};
        }
        const Result result = Real::file_traits(path, out);
        if (changes_at != 0 && looks >= changes_at) {
            ++out.device;
        }
        out.socket = out.socket && !no_socket;
        return result;
    }
};
/// It is healed when this goes.
struct Stern {
    Stern() { SternKernel::heal(); }
    Stern(const Stern&) = delete;
    Stern& operator=(const Stern&) = delete;
    ~Stern() { SternKernel::heal(); }
    Faults faults;
};

using FaultyTcp = BasicTcpStream<FaultyKernel>;
using SternUnix = BasicUnixStream<SternKernel>;
using SternListener = BasicUnixListener<SternKernel>;

struct Directory {
    Directory() { REQUIRE(::mkdtemp(path) != nullptr); }
    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;
    ~Directory() {
        ::unlink(socket().c_str());
        ::rmdir(path);
    }
    [[nodiscard]] std::string socket() const { return std::string(path) + "/s"; }
    [[nodiscard]] std::string address() const { return "unix:" + socket(); }
    [[nodiscard]] bool has_file() const { return ::access(socket().c_str(), F_OK) == 0; }
    char path[32] = "/tmp/reactor-alone-XXXXXX";
};

/// A socket file that nobody listens on.
void leave_stale(const Directory& directory) {
    std::error_code error;
    UnixListener listener = UnixListener::bind(directory.address(), error);
    REQUIRE_FALSE(error);
    const os::Fd closed_without_its_file = listener.release();
}

int tcp_socket() { return os::Kernel::stream_socket(AF_INET).fd(); }

ResourceId id_of(std::uint32_t slot) { return ResourceId::of(slot, 1); }

} // namespace

// -- streams --------------------------------------------------------------------------------------

TEST_CASE("a TCP stream is made of a TCP socket, or the descriptor is closed and it is said why") {
    std::error_code error;
    const FaultyTcp good(FaultyTcp::Fd(tcp_socket()), error);
    CHECK_FALSE(error);
    CHECK(good.fd() >= 0);
    const FaultyTcp none(FaultyTcp::Fd(), error);
    CHECK(error == std::errc::bad_file_descriptor);
    CHECK(none.fd() == -1);
    Faults faults;
    faults.then_fails(Call::set_option, ENOPROTOOPT);
    const FaultyTcp refused(FaultyTcp::Fd(tcp_socket()), error);
    CHECK(error == std::errc::no_protocol_option);
    CHECK(refused.fd() == -1);
}

TEST_CASE("a TCP stream connects to IPv6, and to nothing that is no IP address") {
    const TcpStream six = TcpStream::connect("[::1]:1", 1s);
    const TcpStream local = TcpStream::connect(Address::parse("unix:/nowhere"), 1s);
    CHECK(local.fd() == -1);
    CHECK(local.ended() == std::error_code(EAFNOSUPPORT, std::system_category()));
    CHECK((six.fd() >= 0 || six.ended()));
}

TEST_CASE("a socket lingers as long as it was told, in whole seconds, and not if another option "
          "failed before") {
    TcpOptions options;
    options.linger = 1500ms;
    os::Fd socket(tcp_socket());
    REQUIRE(detail::apply<FaultyKernel>(socket.get(), options).ok());
    ::linger found{};
    socklen_t size = sizeof found;
    REQUIRE(::getsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &found, &size) == 0);
    CHECK(found.l_onoff == 1);
    CHECK(found.l_linger == 2);

    Faults faults;
    faults.then_fails(Call::set_option, ENOPROTOOPT);
    os::Fd other(tcp_socket());
    CHECK(detail::apply<FaultyKernel>(other.get(), options).error == ENOPROTOOPT);
    REQUIRE(::getsockopt(other.get(), SOL_SOCKET, SO_LINGER, &found, &size) == 0);
    CHECK(found.l_onoff == 0);
}

TEST_CASE("a socket that could not be prepared is not bound to its own address") {
    ConnectOptions options;
    options.local = Address::parse("127.0.0.1:0");
    Faults faults;
    faults.then_fails(Call::set_option, ENOPROTOOPT);
    const os::Fd socket(tcp_socket());
    CHECK(detail::prepare_connect<FaultyKernel>(socket.get(), options).error == ENOPROTOOPT);
    CHECK(faults.calls(Call::bind) == 0);
}

TEST_CASE("a connecting stream is asked about writing only, and has a deadline of its own") {
    const Directory directory;
    const Stern stern;
    auto listener = SternListener::bind(directory.address());
    StreamDeadlines deadlines;
    deadlines.idle = 1h;
    std::byte scratch[16];

    // As if the listener had no room: it is to be tried again.
    Faults faults;
    faults.then_fails(Call::connect, EAGAIN);
    auto stream = SternUnix::connect(directory.address(), 1h);
    REQUIRE_FALSE(stream.set_deadlines(deadlines));
    REQUIRE(stream.is_connecting());
    CHECK_FALSE(stream.keeps_time());
    CHECK_FALSE(stream.handle_io(Io::read, scratch).has_value());
    const auto first = stream.deadline();
    REQUIRE(first.has_value());

    // Asked before its time it does nothing.
    faults.ahead = -1h;
    stream.handle_deadline();
    CHECK(faults.calls(Call::connect) == 1);
    CHECK(stream.deadline() == first);
    faults.ahead = 1s;
    stream.handle_deadline();
    CHECK(faults.calls(Call::connect) == 2);
    faults.ahead = {};
    std::optional<SternUnix::Event> event;
    for (int tries = 0; tries < 3 && !event; ++tries) {
        event = stream.handle_io(Io::write, scratch);
    }
    REQUIRE(event.has_value());
    CHECK(event->connected());
    CHECK(stream.keeps_time());
}

TEST_CASE("who is connected only after its limit is not connected in time") {
    const Directory directory;
    const Stern stern;
    auto listener = SternListener::bind(directory.address());
    auto stream = SternUnix::connect(directory.address(), 1s);
    REQUIRE(stream.is_connecting());
    Faults faults;
    faults.ahead = 2s;
    std::byte scratch[16];
    for (int tries = 0; tries < 3; ++tries) {
        CHECK_FALSE(stream.handle_io(Io::write, scratch).has_value());
    }
    CHECK_FALSE(stream.is_connecting());
    CHECK(stream.timeout() == StreamTimeout::connect);
    CHECK(stream.ended() == std::error_code(ETIMEDOUT, std::system_category()));
}

TEST_CASE("what a terminal or another device cannot read ends the stream with the cause") {
    std::error_code error;
    using FaultyStream = BasicStream<FaultyKernel>;
    FaultyStream stream(os::BasicFd<FaultyKernel>(::open("/dev/null", O_RDWR | O_CLOEXEC)), error);
    REQUIRE_FALSE(error);
    Faults faults;
    const int cause = GENERATE(EINVAL, EIO);
    faults.then_fails(Call::read, cause);
    std::byte scratch[16];
    const auto event = stream.handle_io(Io::read, scratch);
    if (cause == EIO) { // as a terminal whose other side is closed: the end of input
        REQUIRE(event.has_value());
        CHECK(event->eof());
    } else {
        CHECK_FALSE(event.has_value());
        CHECK(stream.ended() == std::error_code(EINVAL, std::system_category()));
    }
    CHECK_FALSE(stream.handle_io(Io::read, scratch).has_value());
    CHECK(faults.calls(Call::read) == 1);
}

TEST_CASE("EAGAIN from connect is a full backlog to a UNIX socket, and a failure to TCP") {
    Faults faults;
    faults.then_fails(Call::connect, EAGAIN);
    const auto stream = FaultyTcp::connect("127.0.0.1:1", 1h);
    CHECK_FALSE(stream.is_connecting());
    CHECK(stream.ended() == std::error_code(EAGAIN, std::system_category()));
}

TEST_CASE("a stream says which limits it keeps to, and takes nothing while it owes more than they "
          "allow") {
    auto [ours, theirs] = UnixStream::pair();
    ours.set_limits({.high_watermark = 5000, .low_watermark = 6000, .cap = 1000});
    CHECK(ours.limits().cap == 1000);
    CHECK(ours.limits().high_watermark == 1000);
    CHECK(ours.limits().low_watermark == 1000);
    const std::vector<std::byte> bytes(900);
    CHECK(ours.write_borrowed({}) == WriteStatus::accepted);
    CHECK(ours.unsent() == 0);
    REQUIRE(ours.write_atomic(bytes) == WriteStatus::accepted);
    ours.set_limits({.high_watermark = 100, .low_watermark = 100, .cap = 100});
    CHECK(ours.write_atomic(std::span(bytes).first(1)) == WriteStatus::full);
    CHECK(ours.unsent() == 900);
    CHECK(theirs.fd() >= 0);
}

TEST_CASE("a stream without deadlines does not mind being told that one has come") {
    auto [ours, theirs] = UnixStream::pair();
    CHECK_FALSE(ours.keeps_time());
    CHECK_FALSE(ours.deadline().has_value());
    ours.handle_deadline();
    CHECK_FALSE(ours.ended().has_value());
    CHECK(ours.timeout() == StreamTimeout::none);
    CHECK(theirs.fd() >= 0);
}

TEST_CASE("a UNIX stream is made of a UNIX stream socket only; what is not is closed") {
    const Stern stern;
    std::error_code error;
    int first = -1;
    int second = -1;
    SECTION("not if it cannot be told what it is") {
        REQUIRE(os::Kernel::stream_pair(first, second).ok());
        const os::Fd other(second);
        SternKernel::fails_type = EBADF;
        const SternUnix stream(SternUnix::Fd(first), error);
        CHECK(error == std::errc::bad_file_descriptor);
        CHECK(stream.fd() == -1);
    }
    SECTION("a pair that cannot be had") {
        SternKernel::fails_pair = EMFILE;
        const auto [one, two] = SternUnix::pair(error);
        CHECK(error == std::errc::too_many_files_open);
        CHECK(one.fd() == -1);
        CHECK(two.fd() == -1);
        CHECK_THROWS_AS(SternUnix::pair(), std::system_error);
    }
    SECTION("the throwing form") {
        CHECK_THROWS_AS(UnixStream(UnixStream::Fd(tcp_socket())), std::system_error);
        REQUIRE(os::Kernel::stream_pair(first, second).ok());
        const UnixStream one{UnixStream::Fd(first)};
        const UnixStream two{UnixStream::Fd(second)};
        CHECK(one.fd() == first);
        CHECK(two.fd() == second);
    }
}

// -- listeners ------------------------------------------------------------------------------------

TEST_CASE("a listener has nothing to write") {
    auto listener = TcpListener::bind("127.0.0.1:0");
    CHECK_FALSE(listener.handle_io(Io::write).has_value());
    CHECK_FALSE(listener.ended().has_value());
}

TEST_CASE("a listener that is refused every accept rests, whichever way a filter says no") {
    const int refusal = GENERATE(EPERM, EOPNOTSUPP);
    auto listener = BasicTcpListener<FaultyKernel>::bind("127.0.0.1:0");
    Faults faults;
    faults.otherwise = [&](Call call) {
        return call == Call::accept ? test::Fault{refusal} : test::Fault{};
    };
    CHECK_FALSE(listener.handle_io(Io::read).has_value());
    CHECK(faults.calls(Call::accept) == 64);
    CHECK(listener.interest().none());
    CHECK(listener.deadline().has_value());
    CHECK(listener.trouble() == std::error_code(refusal, std::system_category()));
    CHECK_FALSE(listener.handle_io(Io::read).has_value());
    CHECK(faults.calls(Call::accept) == 64);
}

TEST_CASE("a listener that has ended accepts no more") {
    auto listener = BasicTcpListener<FaultyKernel>::bind("127.0.0.1:0");
    Faults faults;
    faults.then_fails(Call::accept, EINVAL);
    CHECK_FALSE(listener.handle_io(Io::read).has_value());
    CHECK(listener.ended() == std::error_code(EINVAL, std::system_category()));
    CHECK_FALSE(listener.handle_io(Io::read).has_value());
    CHECK(faults.calls(Call::accept) == 1);
}

TEST_CASE("a client that is turned away and talks on and on is not listened to for ever") {
    auto listener = BasicTcpListener<FaultyKernel>::bind("127.0.0.1:0");
    const os::Fd client(tcp_socket());
    const Address to = listener.local();
    REQUIRE(::connect(client.get(), to.data(), to.size()) == -1); // in progress
    Faults faults;
    faults.then_fails(Call::accept, EMFILE);
    SECTION("one that is silent is read once") {
        CHECK_FALSE(listener.handle_io(Io::read).has_value());
        CHECK(faults.calls(Call::recv) <= 1);
    }
    SECTION("one that floods is read 16 times") {
        const std::string flood(256 * 1024, 'x');
        pollfd ready{client.get(), POLLOUT, 0};
        REQUIRE(::poll(&ready, 1, 10'000) == 1);
        REQUIRE(::send(client.get(), flood.data(), flood.size(), MSG_NOSIGNAL) > 16 * 4096);
        CHECK_FALSE(listener.handle_io(Io::read).has_value());
        CHECK(faults.calls(Call::recv) == 16);
    }
    CHECK(listener.trouble() == std::errc::too_many_files_open);
}

TEST_CASE("a shortage is borne where there is nobody left to turn away") {
    auto listener = BasicTcpListener<FaultyKernel>::bind("127.0.0.1:0");
    Faults faults;
    faults.then_fails(Call::accept, EMFILE);
    faults.then_fails(Call::accept, EAGAIN);
    CHECK_FALSE(listener.handle_io(Io::read).has_value());
    CHECK(faults.calls(Call::accept) == 2); // the second, to turn one away
    CHECK(listener.interest().none());
}

TEST_CASE("a listener that could keep no descriptor in reserve turns nobody away") {
    const Stern stern;
    const Directory directory;
    SternKernel::fails_duplicate = EMFILE;
    auto listener = SternListener::bind(directory.address());
    Faults faults;
    faults.then_fails(Call::accept, EMFILE);
    CHECK_FALSE(listener.handle_io(Io::read).has_value());
    CHECK(faults.calls(Call::accept) == 1);
    CHECK(listener.trouble() == std::errc::too_many_files_open);
    CHECK(listener.interest().none());
}

TEST_CASE("a listener that was inherited is made non-blocking and close-on-exec, or is not taken") {
    const Stern stern;
    const Directory directory;
    auto bound = UnixListener::bind(directory.address());
    const auto copy = [&] { return SternListener::Fd(::dup(bound.fd())); };
    std::error_code error;
    SECTION("as it should be") {
        const SternListener listener(copy(), error);
        CHECK_FALSE(error);
        CHECK(::fcntl(listener.fd(), F_GETFD) == FD_CLOEXEC);
    }
    SECTION("it cannot be made non-blocking") {
        SternKernel::fails_blocking = EBADF;
        const SternListener listener(copy(), error);
        CHECK(error == std::errc::bad_file_descriptor);
        CHECK(listener.fd() == -1);
    }
    SECTION("it cannot be made close-on-exec") {
        SternKernel::fails_close_on_exec = EBADF;
        const SternListener listener(copy(), error);
        CHECK(error == std::errc::bad_file_descriptor);
        CHECK(listener.fd() == -1);
    }
}

TEST_CASE("a listener's address that cannot be read or has no socket is told, and binds nothing") {
    std::error_code error;
    SECTION("an address that makes no sense") {
        CHECK(UnixListener::bind("unix:", error).fd() == -1);
        CHECK(error);
        CHECK_THROWS_AS(UnixListener::bind("unix:"), std::system_error);
    }
    SECTION("in text, the throwing form") {
        const Directory directory;
        const UnixListener listener = UnixListener::bind(directory.address());
        CHECK(listener.local() == Address::parse(directory.address()));
    }
    SECTION("no socket to be had") {
        const Stern stern;
        Faults faults;
        faults.then_fails(Call::socket, EMFILE, 2);
        CHECK(SternListener::bind("unix:@alone", error).fd() == -1);
        CHECK(error == std::errc::too_many_files_open);
        CHECK(BasicTcpListener<FaultyKernel>::bind("127.0.0.1:0", error).fd() == -1);
        CHECK(error == std::errc::too_many_files_open);
    }
}

TEST_CASE("a stale socket file is replaced, unless anything about it is doubtful") {
    const Stern stern;
    const Directory directory;
    std::error_code error;
    const auto bind = [&] { return SternListener::bind(directory.address(), error).fd() >= 0; };
    leave_stale(directory);
    SECTION("it is what it seems") { CHECK(bind()); }
    SECTION("it is gone when it is looked at") {
        SternKernel::gone_at = 1;
        CHECK_FALSE(bind()); // it stands there after all
        CHECK(error == std::errc::address_in_use);
    }
    SECTION("it is gone when it is looked at again") {
        SternKernel::gone_at = 2;
        CHECK_FALSE(bind()); // it stands there after all
        CHECK(error == std::errc::address_in_use);
        CHECK(directory.has_file());
    }
    SECTION("it is another one when it is looked at again") {
        SternKernel::changes_at = 2;
        CHECK_FALSE(bind());
        CHECK(directory.has_file());
    }
    SECTION("it is no socket") {
        SternKernel::no_socket = true;
        CHECK_FALSE(bind());
        CHECK(directory.has_file());
    }
    SECTION("there is no socket to ask with") {
        Faults faults;
        faults.then_takes(Call::socket, 0);      // the listener's own
        faults.then_fails(Call::socket, EMFILE); // the one that asks whether anybody listens
        CHECK_FALSE(bind());
        CHECK(directory.has_file());
    }
}

TEST_CASE("a listener whose file is gone, or no socket, as soon as it is bound is not made") {
    const Stern stern;
    const Directory directory;
    std::error_code error;
    SternKernel::no_socket = GENERATE(false, true);
    SternKernel::gone_at = SternKernel::no_socket ? 0 : 1;
    CHECK(SternListener::bind(directory.address(), error).fd() == -1);
    CHECK(error);
}

TEST_CASE("a listener whose file was replaced by another's leaves that one alone") {
    const Stern stern;
    const Directory directory;
    {
        auto listener = SternListener::bind(directory.address());
        SternKernel::changes_at = 1;
    }
    CHECK(directory.has_file());
}

// -- pollers --------------------------------------------------------------------------------------

TEST_CASE("an EpollPoller that watches a file tells it from what merely has its number") {
    std::error_code error;
    EpollPoller poller(error);
    REQUIRE_FALSE(error);
    const os::Fd file(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const os::Fd bell(os::Kernel::event_fd().fd());
    REQUIRE_FALSE(poller.watch(file.get(), id_of(1), {true, false}));
    CHECK(poller.never_waits());
    // Of other descriptors, and of other ids, the kernel is asked.
    CHECK(poller.set_interest(bell.get(), id_of(2), {true, false}) ==
          std::errc::no_such_file_or_directory);
    CHECK(poller.set_interest(file.get(), id_of(3), {true, false}));
    poller.unwatch(file.get(), id_of(3));
    CHECK(poller.never_waits());
    CHECK_FALSE(poller.set_interest(file.get(), id_of(1), {true, true}));
    poller.unwatch(file.get(), id_of(1));
    CHECK_FALSE(poller.never_waits());
}

TEST_CASE("a PollPoller is not told of a descriptor by anybody but its owner") {
    PollPoller poller;
    const os::Fd one(os::Kernel::event_fd().fd());
    const os::Fd two(os::Kernel::event_fd().fd());
    REQUIRE_FALSE(poller.watch(std::max(one.get(), two.get()), id_of(1), {true, false}));
    const int watched = std::max(one.get(), two.get());
    const int other = std::min(one.get(), two.get());
    CHECK(poller.set_interest(watched, id_of(2), {}) == std::errc::no_such_file_or_directory);
    CHECK(poller.set_interest(other, id_of(1), {}) == std::errc::no_such_file_or_directory);
    poller.unwatch(watched, id_of(2));
    poller.unwatch(other, id_of(1));
    CHECK_FALSE(poller.set_interest(watched, id_of(1), {false, false}));
    poller.unwatch(watched, id_of(1));
    CHECK(poller.set_interest(watched, id_of(1), {}) == std::errc::no_such_file_or_directory);
}

TEST_CASE("a FakePoller is done when all that was scripted has been told") {
    testing::FakePoller poller;
    CHECK(poller.is_done());
    poller.refuse_watch(5, std::make_error_code(std::errc::io_error));
    CHECK_FALSE(poller.watch(6, id_of(1), {true, false}));
    CHECK(poller.watch(5, id_of(2), {true, false}) == std::errc::io_error);
    poller.report(id_of(1), {true, false, false, false});
    CHECK_FALSE(poller.is_done());
    CHECK(poller.wait(0s, 10).count == 1);
    CHECK(poller.is_done());
    poller.fail_next_wait(std::make_error_code(std::errc::not_enough_memory));
    CHECK_FALSE(poller.is_done());
    CHECK(poller.wait(0s, 10).error == std::errc::not_enough_memory);
    CHECK(poller.is_done());
}

// -- the rest -------------------------------------------------------------------------------------

TEST_CASE("a scripted transport takes nothing once it is closed, or its wire has ended") {
    const auto wire = std::make_shared<testing::Wire>();
    testing::ScriptedTransport transport(5, wire);
    const std::string text = "abc";
    const auto bytes = std::as_bytes(std::span(text));
    wire->cap = 3;
    wire->takes = 0;
    CHECK(transport.is_ready_to_write());
    CHECK(transport.write_atomic(bytes) == WriteStatus::accepted);
    CHECK_FALSE(transport.is_ready_to_write());
    CHECK(transport.write_atomic(bytes) == WriteStatus::full);
    SECTION("closed") {
        transport.close_write();
        CHECK(transport.write_atomic(bytes) == WriteStatus::ended);
        CHECK_FALSE(transport.is_ready_to_write());
    }
    SECTION("ended") {
        wire->end_with(std::make_error_code(std::errc::broken_pipe));
        CHECK_FALSE(transport.handle_io(Io::read).has_value());
        CHECK_FALSE(transport.handle_io(Io::read).has_value());
        CHECK(transport.write_atomic(bytes) == WriteStatus::ended);
        CHECK_FALSE(transport.is_ready_to_write());
        CHECK_FALSE(transport.interest().read);
        CHECK(transport.ended() == std::make_error_code(std::errc::broken_pipe));
    }
    SECTION("replaced by another one") {
        transport = testing::ScriptedTransport(6, std::make_shared<testing::Wire>());
        CHECK(transport.fd() == 6);
        CHECK(transport.unsent() == 0);
    }
}

TEST_CASE("a scripted listener has nothing to write") {
    const auto clients = std::make_shared<testing::ScriptedListener::Clients>();
    testing::ScriptedListener listener(5, clients);
    CHECK_FALSE(listener.handle_io(Io::write).has_value());
    CHECK_FALSE(listener.handle_io(Io::read).has_value());
}

TEST_CASE("signals have nothing to write") {
    std::error_code error;
    const int numbers[] = {SIGUSR2};
    Signals signals(numbers, error);
    REQUIRE_FALSE(error);
    REQUIRE(::raise(SIGUSR2) == 0);
    CHECK_FALSE(signals.handle_io(Io::write).has_value());
    const auto event = signals.handle_io(Io::read);
    REQUIRE(event.has_value());
    CHECK(event->number == SIGUSR2);
}

TEST_CASE("signals that cannot be read have ended, and are not read again") {
    std::error_code error;
    const int numbers[] = {SIGUSR2};
    BasicSignals<FaultyKernel> signals(numbers, error);
    REQUIRE_FALSE(error);
    Faults faults;
    faults.then_fails(Call::read, EBADF);
    CHECK_FALSE(signals.handle_io(Io::read).has_value());
    CHECK(signals.ended() == std::error_code(EBADF, std::system_category()));
    CHECK_FALSE(signals.handle_io(Io::read).has_value());
    CHECK(faults.calls(Call::read) == 1);
}

TEST_CASE("of several signals the first that cannot be had is told") {
    std::error_code error;
    const int numbers[] = {SIGKILL, SIGUSR2};
    const Signals signals(numbers, error);
    CHECK(error == std::errc::invalid_argument);
    CHECK(signals.fd() == -1);
}

TEST_CASE("eight may await a stop signal at once; who comes then is told so") {
    std::vector<std::unique_ptr<detail::StopSignal>> standing;
    std::error_code error;
    for (int n = 0; n < 8; ++n) {
        standing.push_back(std::make_unique<detail::StopSignal>(error));
        REQUIRE_FALSE(error);
    }
    {
        const detail::StopSignal one_more(error);
        CHECK(error == std::errc::device_or_resource_busy);
    }
    standing.pop_back();
    const detail::StopSignal instead(error);
    CHECK_FALSE(error);
}

TEST_CASE("without a descriptor for its bell a stop signal cannot be awaited") {
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    rlimit none = before;
    none.rlim_cur = 0;
    struct sigaction handler {};
    REQUIRE(::sigaction(SIGTERM, nullptr, &handler) == 0);
    std::error_code error;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    {
        const detail::StopSignal signal(error);
    }
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(error == std::errc::too_many_files_open);
    struct sigaction now {};
    REQUIRE(::sigaction(SIGTERM, nullptr, &now) == 0);
    CHECK(now.sa_handler == handler.sa_handler);
}

TEST_CASE("a mailbox without a bell takes messages in silence, and gives back what cannot be "
          "assigned") {
    struct Fixed {
        explicit Fixed(int with) noexcept : value(with) {}
        Fixed(Fixed&&) noexcept = default;
        Fixed& operator=(Fixed&&) = delete;
        int value;
    };
    detail::Mailbox<Fixed> mailbox(2, {});
    CHECK(mailbox.prepare_sleep());
    CHECK(mailbox.send(Fixed(1)) == detail::SendStatus::accepted);
    mailbox.awake();
    mailbox.close();
    Fixed late(2);
    CHECK(mailbox.send(std::move(late)) == detail::SendStatus::closed);
    CHECK(late.value == 2);
    static_cast<void>(mailbox.collect());
    REQUIRE(mailbox.has_next());
    CHECK(mailbox.take_next().value == 1);
}

TEST_CASE("a pool of no threads has one, and a queue of no places has one") {
    std::error_code error;
    Offload pool({.threads = 0, .queue = 0}, error);
    REQUIRE_FALSE(error);
    struct Sum {
        int value = 0;
    };
    struct Waits : Service<NoListener, NoTransport, Sum> {
        void handle_listener_event(ResourceId, NoCommand, Actions&) {}
        void handle_transport_event(ResourceId, NoCommand, Actions&) {}
        void handle_command(Sum sum, Actions& actions) {
            seen = sum.value;
            actions.shutdown();
        }
        int seen = 0;
    };
    Runtime<Waits> runtime{Waits{}};
    const auto answer = pool.submit(
        runtime.controller(), [] { return 6 * 7; },
        [](Outcome<int>&& outcome) { return Sum{outcome.value()}; });
    REQUIRE(answer);
    runtime.run();
    CHECK(runtime.service().seen == 42);
}

TEST_CASE("a pool that goes while a channel is full destroys what finds no room") {
    struct Sum {
        int value = 0;
    };
    struct Deaf : Service<NoListener, NoTransport, Sum> {
        void handle_listener_event(ResourceId, NoCommand, Actions&) {}
        void handle_transport_event(ResourceId, NoCommand, Actions&) {}
        void handle_command(Sum, Actions&) {}
    };
    Options options;
    options.command_queue = 1;
    Runtime<Deaf> runtime(Deaf{}, options);
    REQUIRE(runtime.controller().command(Sum{1})); // nobody takes it
    std::atomic<bool> begun{false};
    {
        Offload pool({.threads = 1});
        REQUIRE(pool.submit(
            runtime.controller(), [&] { begun = true; return 1; },
            [](Outcome<int>&& outcome) { return Sum{outcome.value()}; }));
        while (!begun) {
            os::Kernel::sleep(100us);
        }
    } // does not wait for room that never comes
    CHECK(begun);
}
