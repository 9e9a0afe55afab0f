// SPDX-License-Identifier: Apache-2.0
//
// A turn costs what is ready, never what is registered: the same echo turns, beside nobody and
// beside 2 000 idle resources, make the same calls of the kernel, each as often. On poll(2), whose
// wait must be shown all that is watched, that showing grows and nothing else.
#include "catch.hpp"
#include "polling_parts.hpp"

#include <reactor/net/stream.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/runtime.hpp>

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace {

using namespace reactor;

/// How often each function of the kernel was called.
using Calls = std::map<std::string, std::size_t>;

/// The Linux kernel, counted. It does not inherit: what is not counted here cannot be called.
struct CountingKernel {
    using Base = os::Kernel;
    using Result = os::Result;
    using Bytes = std::span<std::byte>;
    inline static Calls calls;

    static void count(const char* call, std::size_t times = 1) { calls[call] += times; }

    static Timestamp now() noexcept { return count("now"), Base::now(); }
    static int process_id() noexcept { return count("process_id"), Base::process_id(); }
    static void sleep(Duration span) noexcept { count("sleep"), Base::sleep(span); }
    static void close(int fd) noexcept { count("close"), Base::close(fd); }
    static Result set_non_blocking(int fd) noexcept {
        return count("set_non_blocking"), Base::set_non_blocking(fd);
    }
    static Result set_close_on_exec(int fd) noexcept {
        return count("set_close_on_exec"), Base::set_close_on_exec(fd);
    }
    static Result traits(int fd, os::FdTraits& out) noexcept {
        return count("traits"), Base::traits(fd, out);
    }
    static Result read(int fd, Bytes into) noexcept { return count("read"), Base::read(fd, into); }
    static Result recv(int fd, Bytes into) noexcept { return count("recv"), Base::recv(fd, into); }
    static Result send(int fd, std::span<const std::byte> bytes) noexcept {
        return count("send"), Base::send(fd, bytes);
    }
    static Result send(int fd, std::span<const iovec> parts) noexcept {
        return count("send of parts"), Base::send(fd, parts);
    }
    static Result write(int fd, std::span<const iovec> parts) noexcept {
        return count("write"), Base::write(fd, parts);
    }
    static Result shutdown_write(int fd) noexcept {
        return count("shutdown_write"), Base::shutdown_write(fd);
    }
    static Result epoll_create() noexcept { return count("epoll_create"), Base::epoll_create(); }
    static Result epoll_control(int epoll, int operation, int fd, std::uint32_t events,
                                std::uint64_t data) noexcept {
        return count("epoll_control"), Base::epoll_control(epoll, operation, fd, events, data);
    }
    static Result epoll_wait(int epoll, std::span<epoll_event> into, int milliseconds) noexcept {
        return count("epoll_wait"), Base::epoll_wait(epoll, into, milliseconds);
    }
    static Result epoll_wait_precise(int epoll, std::span<epoll_event> into,
                                     Duration timeout) noexcept {
        return count("epoll_wait_precise"), Base::epoll_wait_precise(epoll, into, timeout);
    }
    static Result poll(std::span<pollfd> fds, Duration timeout) noexcept {
        count("shown to poll", fds.size());
        return count("poll"), Base::poll(fds, timeout);
    }
    static Result event_fd() noexcept { return count("event_fd"), Base::event_fd(); }
    static void ring(int fd) noexcept { count("ring"), Base::ring(fd); }
    static void silence(int fd) noexcept { count("silence"), Base::silence(fd); }
};

using CountedStream = BasicStream<CountingKernel>;

/// Registers what it was given, and sends back what comes.
struct Echo : Service<NoListener, CountedStream> {
    void handle_start(Actions& actions) {
        for (CountedStream& stream : given) {
            actions.register_transport(std::move(stream));
        }
    }
    void handle_registered(ResourceId, Role, int, Actions&) { ++registered; }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        if (const auto* const bytes = event.data()) {
            actions.send(id, *bytes);
        }
    }

    std::vector<CountedStream> given;
    std::size_t registered = 0;
};

constexpr std::size_t turns = 1'000;
constexpr std::size_t many = 2'000;

/// What so many echoes call, each in a turn of its own, beside so many resources for which nothing
/// comes.
template <class Poller>
Calls calls_beside(std::size_t idle) {
    os::Kernel::raise_descriptor_limit();
    const Pair active = socket_pair();
    const Pair silent = socket_pair();
    Echo echo;
    for (std::size_t n = 0; n <= idle; ++n) {
        const Pair& pair = n < idle ? silent : active;
        echo.given.emplace_back(
            os::BasicFd<CountingKernel>(os::Kernel::duplicate(pair.ours.get()).fd_or_none()));
    }
    Runtime<Echo, Poller> runtime{std::move(echo)};
    for (int n = 0; n < 5; ++n) {
        runtime.turn(Duration::zero());
    }
    REQUIRE(runtime.service().registered == idle + 1);

    CountingKernel::calls.clear();
    const std::string message(64, 'x');
    std::size_t echoes = 0;
    for (std::size_t n = 0; n < turns; ++n) {
        write_to(active.theirs, message);
        runtime.turn(Duration::max());
        echoes += read_from(active.theirs, 2 * message.size()) == message.size() ? 1U : 0U;
    }
    Calls calls = CountingKernel::calls;
    REQUIRE(echoes == turns);
    return calls;
}

} // namespace

TEST_CASE("on epoll an idle resource costs nothing", "[idle]") {
    using Poller = BasicEpollPoller<CountingKernel>;
    const Calls alone = calls_beside<Poller>(0);
    CHECK(calls_beside<Poller>(many) == alone);
    for (const char* const call : {"epoll_wait", "recv", "send"}) {
        INFO(call);
        CHECK(alone.at(call) == turns);
    }
}

TEST_CASE("on poll an idle resource is shown to each wait, and costs nothing else", "[idle]") {
    using Poller = BasicPollPoller<CountingKernel>;
    Calls alone = calls_beside<Poller>(0);
    CHECK(alone.at("poll") == turns);
    CHECK(alone.at("shown to poll") == turns * 2); // the waker and one
    alone["shown to poll"] += turns * many;
    CHECK(calls_beside<Poller>(many) == alone);
}
