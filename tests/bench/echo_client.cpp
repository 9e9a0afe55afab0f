// SPDX-License-Identifier: Apache-2.0
//
// The other side of an echo server, written by hand on epoll, for every server alike. A closed
// loop: each connection has `depth` messages on their way and sends the next when one is back.
//
// Usage: echo_client PORT [options]
//   --connections N  50
//   --size N         bytes a message, 64
//   --depth N        messages on their way a connection, 1
//   --messages N     stops after so many (rounded up to a whole wave), or
//   --seconds S      after so long, 1
//   --lockstep       sends on all connections, waits for all answers, then sends again: so that a
//                    server which is not let in between finds all of them ready at once
//   --idle N         measures beside N idle connections as well, in the order: without, with, with,
//                    without; so that a machine that grows slower is no matter
//   --rounds N       of that, 1; or of the one measurement without --idle
//   --warm-up S      before each measurement, 0
//   --server PID     whose processor time is measured too
//   --visits N       no loop: N connections one after another; by turns an echo and a close, a
//                    close at once, bytes and a reset, a half-close before the echo is read
//
// A line each measurement: idle connections, messages, seconds, processor seconds of the server (0
// if not asked for). Ends with status 1 if an answer takes 10 seconds.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <getopt.h>
#include <string>
#include <vector>

namespace {

constexpr int patience = 10'000; // milliseconds

struct Settings {
    std::uint16_t port = 0;
    std::size_t connections = 50;
    std::size_t size = 64;
    std::size_t depth = 1;
    std::uint64_t messages = 0;
    double seconds = 1;
    bool lockstep = false;
    std::size_t idle = 0;
    int rounds = 1;
    double warm_up = 0;
    std::string server;
    std::size_t visits = 0;
};

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "echo_client: %s: %s\n", what, std::strerror(errno));
    std::exit(1);
}
void require(bool ok, const char* what) {
    if (!ok) {
        fail(what);
    }
}

[[nodiscard]] double now() {
    const auto since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(since).count();
}

/// What all threads of the process have spent, in seconds.
[[nodiscard]] double processor_time(const std::string& process) {
    double nanoseconds = 0;
    if (!process.empty()) {
        for (const auto& thread : std::filesystem::directory_iterator("/proc/" + process + "/task")) {
            double spent = 0;
            std::ifstream(thread.path() / "schedstat") >> spent;
            nanoseconds += spent;
        }
    }
    return nanoseconds / 1e9;
}

// -- sockets --------------------------------------------------------------------------------------

/// A connection that blocks, for at most `patience`.
[[nodiscard]] int connected(std::uint16_t port) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    require(fd >= 0, "socket");
    const int on = 1;
    const timeval longest{patience / 1000, 0};
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &longest, sizeof longest);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const auto* const at = reinterpret_cast<const sockaddr*>(&address);
    require(::connect(fd, at, sizeof address) == 0, "connect");
    return fd;
}
/// Closes with a reset, so that no port lingers.
void reset(int fd) {
    const linger at_once{1, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    ::close(fd);
}
void send_all(int fd, const std::string& message) {
    const ssize_t sent = ::send(fd, message.data(), message.size(), MSG_NOSIGNAL);
    require(sent == static_cast<ssize_t>(message.size()), "send");
}
/// Reads until so many bytes have come, or the end; how many came.
std::size_t receive(int fd, std::size_t size) {
    char piece[4096];
    std::size_t got = 0;
    while (got < size) {
        const ssize_t count = ::recv(fd, piece, std::min(sizeof piece, size - got), 0);
        require(count >= 0, "recv");
        if (count == 0) {
            break;
        }
        got += static_cast<std::size_t>(count);
    }
    return got;
}
/// One echo: then the server has accepted this connection, and all that were made before it.
void await_accepted(int fd) {
    send_all(fd, "?");
    require(receive(fd, 1) == 1, "no echo");
}
[[nodiscard]] std::vector<int> connections_to(std::uint16_t port, std::size_t count) {
    std::vector<int> fds;
    while (fds.size() < count) {
        fds.push_back(connected(port));
        if (fds.size() % 512 == 0 || fds.size() == count) {
            await_accepted(fds.back());
        }
    }
    return fds;
}
void reset_all(std::vector<int>& fds) {
    std::for_each(fds.begin(), fds.end(), reset);
    fds.clear();
}

// -- the closed loop ------------------------------------------------------------------------------

class Loop {
  public:
    explicit Loop(const Settings& settings)
        : settings_(settings), bytes_(std::max<std::size_t>(settings.size, 1 << 16), 'x') {
        require(epoll_ >= 0, "epoll_create1");
        std::uint32_t number = 0;
        for (const int fd : connections_to(settings.port, settings.connections)) {
            connections_.push_back({fd, 0, 0, 0});
            watch(EPOLL_CTL_ADD, number++, EPOLLIN);
        }
    }

    /// Runs until `messages` have come back, or, if that is zero, for `seconds`.
    std::uint64_t run(std::uint64_t messages, double seconds) {
        const double end = now() + seconds;
        started_ = done_ = answered_ = 0;
        going_on_ = true;
        most_ = messages;
        for (std::uint32_t number = 0; number < connections_.size(); ++number) {
            for (std::size_t n = 0; n < (settings_.lockstep ? 1 : settings_.depth); ++n) {
                start_message(number);
            }
        }
        while (done_ < started_) {
            turn();
            going_on_ = going_on_ && (messages != 0 || now() < end);
        }
        return done_;
    }

  private:
    struct Connection {
        int fd;
        std::size_t on_their_way; ///< messages
        std::size_t to_send;
        std::size_t received; ///< of the message that comes
    };

    void watch(int operation, std::uint32_t number, std::uint32_t events) {
        epoll_event event{};
        event.events = events;
        event.data.u32 = number;
        const int fd = connections_[number].fd;
        require(::epoll_ctl(epoll_, operation, fd, &event) == 0, "epoll_ctl");
    }

    void start_message(std::uint32_t number) {
        if (!going_on_ || (most_ != 0 && started_ >= most_ && !settings_.lockstep)) {
            return;
        }
        ++started_;
        ++connections_[number].on_their_way;
        const bool was_blocked = connections_[number].to_send != 0;
        connections_[number].to_send += settings_.size;
        if (!was_blocked && !send_some(number)) {
            watch(EPOLL_CTL_MOD, number, EPOLLIN | EPOLLOUT);
        }
    }
    /// Whether all is sent.
    bool send_some(std::uint32_t number) {
        Connection& connection = connections_[number];
        while (connection.to_send != 0) {
            const ssize_t sent =
                ::send(connection.fd, bytes_.data(), std::min(connection.to_send, bytes_.size()),
                       MSG_NOSIGNAL | MSG_DONTWAIT);
            if (sent < 0) {
                require(errno == EAGAIN, "send");
                return false;
            }
            connection.to_send -= static_cast<std::size_t>(sent);
        }
        return true;
    }

    void turn() {
        epoll_event events[256];
        const int ready = ::epoll_wait(epoll_, events, 256, patience);
        require(ready > 0, "no answer");
        for (int n = 0; n < ready; ++n) {
            const std::uint32_t number = events[n].data.u32;
            if ((events[n].events & EPOLLOUT) != 0 && send_some(number)) {
                watch(EPOLL_CTL_MOD, number, EPOLLIN);
            }
            if ((events[n].events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) {
                receive_some(number);
            }
        }
    }
    void receive_some(std::uint32_t number) {
        static char room[1 << 16];
        Connection& connection = connections_[number];
        const ssize_t count = ::recv(connection.fd, room, sizeof room, MSG_DONTWAIT);
        require(count >= 0 || errno == EAGAIN, "recv");
        if (count == 0) { // the server has had enough
            require(connection.on_their_way == 0, "no answer, but the end");
            watch(EPOLL_CTL_DEL, number, 0);
        }
        connection.received += count > 0 ? static_cast<std::size_t>(count) : 0;
        while (connection.received >= settings_.size) {
            connection.received -= settings_.size;
            --connection.on_their_way;
            ++done_;
            if (!settings_.lockstep) {
                start_message(number);
            } else if (++answered_ == connections_.size()) {
                start_wave();
            }
        }
    }
    void start_wave() {
        answered_ = 0;
        going_on_ = going_on_ && (most_ == 0 || started_ < most_);
        for (std::uint32_t number = 0; number < connections_.size(); ++number) {
            start_message(number);
        }
    }

    const Settings& settings_;
    std::string bytes_;
    int epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
    std::vector<Connection> connections_;
    std::uint64_t started_ = 0;
    std::uint64_t done_ = 0;
    std::size_t answered_ = 0; ///< of this wave
    std::uint64_t most_ = 0;
    bool going_on_ = false;
};

void measure(const Settings& settings, Loop& loop, std::size_t idle) {
    if (settings.warm_up > 0) {
        loop.run(0, settings.warm_up);
    }
    const double spent = processor_time(settings.server);
    const double began = now();
    const std::uint64_t messages = loop.run(settings.messages, settings.seconds);
    const double seconds = now() - began;
    std::printf("%zu %llu %.6f %.6f\n", idle, static_cast<unsigned long long>(messages), seconds,
                processor_time(settings.server) - spent);
    std::fflush(stdout);
}

void measure_all(const Settings& settings) {
    Loop loop(settings);
    for (int round = 0; round < settings.rounds; ++round) {
        measure(settings, loop, 0);
        if (settings.idle != 0) {
            std::vector<int> idle = connections_to(settings.port, settings.idle);
            measure(settings, loop, settings.idle);
            measure(settings, loop, settings.idle);
            reset_all(idle);
            measure(settings, loop, 0);
        }
    }
}

// -- visits ---------------------------------------------------------------------------------------

void visit(const Settings& settings, std::size_t kind) {
    const int fd = connected(settings.port);
    const std::string message(settings.size, 'x');
    switch (kind % 4) {
    case 0:
        send_all(fd, message);
        require(receive(fd, message.size()) == message.size(), "no echo");
        break;
    case 1:
        break;
    case 2:
        send_all(fd, message);
        return reset(fd);
    case 3:
        send_all(fd, message);
        ::shutdown(fd, SHUT_WR);
        require(receive(fd, message.size() + 1) == message.size(), "not the echo and its end");
        break;
    }
    ::close(fd);
}

// -- the command line -----------------------------------------------------------------------------

[[noreturn]] void refuse() {
    std::fprintf(stderr, "usage: see the head of echo_client.cpp\n");
    std::exit(2);
}

Settings settings_of(int argc, char** argv) {
    const option known[] = {
        {"connections", required_argument, nullptr, 'c'}, {"size", required_argument, nullptr, 's'},
        {"depth", required_argument, nullptr, 'd'},       {"messages", required_argument, nullptr, 'm'},
        {"seconds", required_argument, nullptr, 't'},     {"lockstep", no_argument, nullptr, 'l'},
        {"idle", required_argument, nullptr, 'i'},        {"rounds", required_argument, nullptr, 'r'},
        {"warm-up", required_argument, nullptr, 'w'},     {"server", required_argument, nullptr, 'p'},
        {"visits", required_argument, nullptr, 'v'},      {}};
    Settings settings;
    for (int which; (which = ::getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        const auto count = optarg != nullptr ? std::strtoull(optarg, nullptr, 10) : 0;
        switch (which) {
        case 'c': settings.connections = count; break;
        case 's': settings.size = count; break;
        case 'd': settings.depth = count; break;
        case 'm': settings.messages = count; break;
        case 't': settings.seconds = std::strtod(optarg, nullptr); break;
        case 'l': settings.lockstep = true; break;
        case 'i': settings.idle = count; break;
        case 'r': settings.rounds = static_cast<int>(count); break;
        case 'w': settings.warm_up = std::strtod(optarg, nullptr); break;
        case 'p': settings.server = optarg; break;
        case 'v': settings.visits = count; break;
        default: refuse();
        }
    }
    if (optind + 1 != argc || settings.size == 0 || settings.connections == 0) {
        refuse();
    }
    settings.port = static_cast<std::uint16_t>(std::strtoul(argv[optind], nullptr, 10));
    return settings;
}

} // namespace

int main(int argc, char** argv) {
    const Settings settings = settings_of(argc, argv);
    rlimit descriptors{};
    ::getrlimit(RLIMIT_NOFILE, &descriptors);
    descriptors.rlim_cur = descriptors.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &descriptors);
    if (settings.visits == 0) {
        measure_all(settings);
    }
    for (std::size_t number = 0; number < settings.visits; ++number) {
        visit(settings, number);
    }
}
