// SPDX-License-Identifier: Apache-2.0
//
// EINTR at every call of the kernel that can have it. Our own descriptors never block, so here they
// do: each call has to wait for the other side, which does its part only when several signals have
// come to a handler without SA_RESTART. close() is for interrupted.sh.
#include <reactor/os/fd.hpp>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#include "calm.hpp"
#include "peers.hpp"
#include "polling_parts.hpp"

using namespace test;

namespace {

using os::Kernel;
using os::Result;

/// Blocks the signals in the thread that it is made on.
struct NoSignals {
    NoSignals() {
        sigset_t all{};
        sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
    }
};

/// Makes the call on this thread, under a storm; when five signals have come, another thread does
/// what it waits for.
template <class Call>
auto interrupted(Call call, const std::function<void()>& other_side) {
    const SignalStorm storm(std::chrono::microseconds{500});
    std::thread other([&, begin = SignalStorm::count()] {
        const NoSignals none;
        // A checker that holds signals back until a call that it knows (TSan) counts none.
        for (int n = 0; n < 100 && SignalStorm::count() < begin + 5; ++n) {
            Kernel::sleep(std::chrono::microseconds{500});
        }
        other_side();
    });
    // The thread has the signals too until it has said no; that does not matter.
    auto result = call();
    other.join();
    return result;
}

struct BlockingEnds {
    Fd ours;
    Fd theirs;
};
BlockingEnds blocking_pipe() {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    return {Fd(ends[0]), Fd(ends[1])};
}
BlockingEnds blocking_sockets() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    return {Fd(ends[0]), Fd(ends[1])};
}
void put(const Fd& fd, char byte) { static_cast<void>(::write(fd.get(), &byte, 1) + 0); }
/// Fills it until the next byte would have to wait.
void fill(const Fd& fd) {
    const int flags = ::fcntl(fd.get(), F_GETFL);
    REQUIRE(::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) == 0);
    const std::string piece(4096, '.');
    while (::write(fd.get(), piece.data(), piece.size()) > 0) {
    }
    REQUIRE(errno == EAGAIN);
    REQUIRE(::fcntl(fd.get(), F_SETFL, flags) == 0);
}
/// Reads all that is there, and lets the writer go on.
void drain(const Fd& fd) {
    std::string room(1 << 20, '\0');
    static_cast<void>(::read(fd.get(), room.data(), room.size()) + 0);
}
iovec part_of(std::string& text) { return {text.data(), text.size()}; }

} // namespace

TEST_CASE("interrupted: read goes on until there is a byte") {
    const BlockingEnds pipe = blocking_pipe();
    std::byte room[8];
    const Result result = interrupted([&] { return Kernel::read(pipe.ours.get(), room); },
                                      [&] { put(pipe.theirs, 'r'); });
    CHECK(result.error == 0);
    CHECK(result.value == 1);
    CHECK(room[0] == std::byte{'r'});
}

TEST_CASE("interrupted: recv goes on until there is a byte") {
    const BlockingEnds sockets = blocking_sockets();
    std::byte room[8];
    const Result result = interrupted([&] { return Kernel::recv(sockets.ours.get(), room); },
                                      [&] { put(sockets.theirs, 'v'); });
    CHECK(result.error == 0);
    CHECK(result.value == 1);
    CHECK(room[0] == std::byte{'v'});
}

TEST_CASE("interrupted: send goes on until there is room") {
    const BlockingEnds sockets = blocking_sockets();
    std::string text = "text";
    fill(sockets.ours);
    SECTION("of one piece") {
        const Result result = interrupted(
            [&] { return Kernel::send(sockets.ours.get(), std::as_bytes(std::span(text))); },
            [&] { drain(sockets.theirs); });
        CHECK(result.error == 0);
        CHECK(result.value == 4);
    }
    SECTION("of several") {
        std::string more = "more";
        const iovec parts[] = {part_of(text), part_of(more)};
        const Result result =
            interrupted([&] { return Kernel::send(sockets.ours.get(), std::span(parts)); },
                        [&] { drain(sockets.theirs); });
        CHECK(result.error == 0);
        CHECK(result.value == 8);
    }
}

namespace {

/// pwritev2(2) is not there any more (ENOSYS) for this thread and those it starts.
bool take_pwritev2_away() {
    sock_filter program[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_pwritev2},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | ENOSYS},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
    };
    const sock_fprog filter{4, program};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

} // namespace

TEST_CASE("interrupted: write goes on until there is room") {
    // In a child: what it finds out about its kernel is for all of a process.
    const bool old_kernel = GENERATE(false, true);
    CAPTURE(old_kernel);
    const BlockingEnds pipe = blocking_pipe();
    fill(pipe.theirs);
    const int status = in_child([&] {
        if (old_kernel && !take_pwritev2_away()) {
            return 77;
        }
        std::string text = "text";
        const iovec part = part_of(text);
        const Result result =
            interrupted([&] { return Kernel::write(pipe.theirs.get(), {&part, 1}); },
                        [&] { drain(pipe.ours); });
        return result.ok() ? static_cast<int>(result.value) : 100;
    });
    REQUIRE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        WARN("seccomp is not allowed here: only the kernel's own pwritev2 was seen");
        return;
    }
    CHECK(WEXITSTATUS(status) == 4);
}

TEST_CASE("interrupted: accept goes on until there is a client") {
    const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Address any = Address::loopback_ipv4(0);
    REQUIRE(::bind(listener.get(), any.data(), any.size()) == 0);
    REQUIRE(::listen(listener.get(), 1) == 0);
    const Address at = Address::filled(
        [&](sockaddr* into, socklen_t* size) { ::getsockname(listener.get(), into, size); });
    const Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Result result =
        interrupted([&] { return Kernel::accept(listener.get(), nullptr, nullptr); },
                    [&] { static_cast<void>(::connect(client.get(), at.data(), at.size()) + 0); });
    CHECK(result.error == 0);
    const Fd accepted(result.fd_or_none());
    CHECK(accepted);
}

TEST_CASE("interrupted: connect is under way, and comes to its end without being asked again") {
    const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Address any = Address::loopback_ipv4(0);
    REQUIRE(::bind(listener.get(), any.data(), any.size()) == 0);
    REQUIRE(::listen(listener.get(), 0) == 0);
    const Address at = Address::filled(
        [&](sockaddr* into, socklen_t* size) { ::getsockname(listener.get(), into, size); });
    const auto client = [] { return Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); };
    // The queue holds one; the next one's SYN falls, and is sent again after a second.
    const Fd first = client();
    REQUIRE(calmly([&] { return ::connect(first.get(), at.data(), at.size()); }) == 0);
    const Fd second = client();
    const Result result =
        interrupted([&] { return Kernel::connect(second.get(), at.data(), at.size()); }, [] {});
    CHECK(result.error == EINPROGRESS);
    const Fd accepted_first(calmly([&] { return ::accept(listener.get(), nullptr, nullptr); }));
    REQUIRE(accepted_first);
    pollfd writable{second.get(), POLLOUT, 0};
    REQUIRE(calmly([&] { return ::poll(&writable, 1, 30'000); }) == 1);
    CHECK(Kernel::option(second.get(), SOL_SOCKET, SO_ERROR).value == 0);
    const Fd accepted_second(calmly([&] { return ::accept(listener.get(), nullptr, nullptr); }));
    CHECK(accepted_second);
}

TEST_CASE("interrupted: a bell is rung, heard and silenced all the same") {
    const Fd bell(::eventfd(0, EFD_CLOEXEC)); // it blocks
    REQUIRE(bell);
    const auto done = [](auto call) {
        return [call] {
            call();
            return errno;
        };
    };
    SECTION("ring, which waits for room in the counter") {
        const std::uint64_t most = ~std::uint64_t{0} - 1;
        REQUIRE(::write(bell.get(), &most, sizeof most) == sizeof most);
        std::uint64_t taken = 0;
        errno = 42;
        const int kept = interrupted(done([&] { Kernel::ring(bell.get()); }), [&] {
            static_cast<void>(::read(bell.get(), &taken, sizeof taken) + 0);
        });
        CHECK(kept == 42);
        CHECK(taken == most);
        CHECK(is_readable(bell.get()));
    }
    SECTION("silence, which waits for a ring") {
        errno = 42;
        const int kept = interrupted(done([&] { Kernel::silence(bell.get()); }),
                                     [&] { Kernel::ring(bell.get()); });
        CHECK(kept == 42);
        CHECK_FALSE(is_readable(bell.get()));
    }
    SECTION("the wait for a ring") {
        interrupted(done([&] { Kernel::await_ring(bell.get()); }),
                    [&] { Kernel::ring(bell.get()); });
        CHECK(is_readable(bell.get()));
    }
}

TEST_CASE("interrupted: a wait ends early, with nothing, and is no error") {
    const BlockingEnds pipe = blocking_pipe();
    pollfd entry{pipe.ours.get(), POLLIN, 0};
    const Fd epoll(Kernel::epoll_create().fd_or_none());
    REQUIRE(Kernel::epoll_control(epoll.get(), EPOLL_CTL_ADD, pipe.ours.get(), EPOLLIN, 1).ok());
    epoll_event events[4];
    const std::vector<std::function<Result()>> waits{
        [&] { return Kernel::poll({&entry, 1}, Duration::max()); },
        [&] { return Kernel::epoll_wait(epoll.get(), events, -1); },
        [&] { return Kernel::epoll_wait_precise(epoll.get(), events, std::chrono::hours{1}); }};
    for (const auto& wait : waits) {
        const Result result = interrupted(wait, [] {});
        CHECK((result.error == 0 || result.error == ENOSYS));
        CHECK(result.value == 0);
    }
}

TEST_CASE("interrupted: close is asked once [interrupted.sh counts]") {
    Fd fd(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 777));
    REQUIRE(fd.get() == 777);
    fd.reset();
    CHECK(fd.get() == -1);
}
