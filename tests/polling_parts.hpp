// SPDX-License-Identifier: Apache-2.0
//
// What the tests of pollers and of the loop have in common: descriptors of many kinds, and a storm
// of signals.
#pragma once

#include "calm.hpp"
#include "catch.hpp"

#include <reactor/os/fd.hpp>

#include <sys/time.h>

#include <atomic>
#include <chrono>
#include <dirent.h>
#include <string>
#include <string_view>

using reactor::os::Fd;

struct Pair {
    Fd ours;
    Fd theirs;
};
/// Two ends of a UNIX stream.
inline Pair socket_pair() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    return {Fd(ends[0]), Fd(ends[1])};
}
/// `ours` is read from, `theirs` written to.
inline Pair pipe_pair() {
    int ends[2];
    REQUIRE(::pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
    return {Fd(ends[0]), Fd(ends[1])};
}
inline void write_to(const Fd& fd, std::string_view text) {
    const test::Calm calm; // a terminal's write(2) can be interrupted before it begins
    REQUIRE(::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}
inline std::size_t read_from(const Fd& fd, std::size_t most) {
    std::string room(most, '\0');
    const ssize_t got = ::read(fd.get(), room.data(), most);
    return got < 0 ? 0 : static_cast<std::size_t>(got);
}
/// A pipe that can be read.
inline Pair full_pipe() {
    Pair pair = pipe_pair();
    write_to(pair.theirs, "x");
    return pair;
}
inline Fd opened(const char* path, int flags) {
    Fd fd(::open(path, flags | O_CLOEXEC));
    REQUIRE(fd);
    return fd;
}
inline Fd memory_file() {
    Fd fd(::memfd_create("test", MFD_CLOEXEC));
    REQUIRE(fd);
    return fd;
}
inline bool is_readable(int fd) {
    pollfd probe{fd, POLLIN, 0};
    return ::poll(&probe, 1, 0) == 1;
}
/// How many descriptors this process has open.
inline std::size_t open_descriptors() {
    std::size_t count = 0;
    DIR* const directory = ::opendir("/proc/self/fd");
    REQUIRE(directory != nullptr);
    while (::readdir(directory) != nullptr) {
        ++count;
    }
    ::closedir(directory);
    return count;
}

/// SIGALRM after each `period`, its handler without SA_RESTART.
class SignalStorm {
  public:
    explicit SignalStorm(std::chrono::microseconds period) {
        struct sigaction action {};
        action.sa_handler = [](int) { ++count_; };
        ::sigaction(SIGALRM, &action, &before_);
        const itimerval every{{0, period.count()}, {0, period.count()}};
        ::setitimer(ITIMER_REAL, &every, nullptr);
    }
    SignalStorm(const SignalStorm&) = delete;
    SignalStorm& operator=(const SignalStorm&) = delete;
    ~SignalStorm() {
        const itimerval never{};
        ::setitimer(ITIMER_REAL, &never, nullptr);
        ::sigaction(SIGALRM, &before_, nullptr);
    }
    static int count() { return count_.load(); }

  private:
    static inline std::atomic<int> count_{0};
    struct sigaction before_ {};
};
