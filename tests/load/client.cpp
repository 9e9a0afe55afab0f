// SPDX-License-Identifier: Apache-2.0
//
// The clients of tests/load.sh: plain sockets and poll(2), nothing of the library. Every program
// is one of the functions named in main(); each ends with status 0 if all was as it must be.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

volatile std::sig_atomic_t ended = 0;

[[noreturn]] void fail(const std::string& what) {
    std::printf("failed: %s\n", what.c_str());
    std::exit(1);
}
void say(const std::string& what) {
    std::printf("%s\n", what.c_str());
    std::fflush(stdout);
}
double since(Clock::time_point then) { return Seconds(Clock::now() - then).count(); }
void rest(double seconds) { ::usleep(static_cast<useconds_t>(seconds * 1e6)); }

sockaddr_in loopback(unsigned host, int port) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(0x7F000000U + host);
    at.sin_port = htons(static_cast<std::uint16_t>(port));
    return at;
}
/// A socket for the n-th connection: each 5000 have an address of their own to come from, as the
/// ports of one would not last.
int make_socket(int n, int receive_buffer = 0) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        fail(std::string("socket: ") + std::strerror(errno));
    }
    if (receive_buffer > 0) {
        ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    }
    const int on = 1;
    ::setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const sockaddr_in own = loopback(2 + static_cast<unsigned>(n) / 5000, 0);
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0) {
        fail(std::string("bind: ") + std::strerror(errno));
    }
    return fd;
}
int connect_to(int port, int n = 0, int receive_buffer = 0) {
    const int fd = make_socket(n, receive_buffer);
    const sockaddr_in to = loopback(1, port);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
        fail(std::string("connect: ") + std::strerror(errno));
    }
    return fd;
}
void set_non_blocking(int fd) { ::fcntl(fd, F_SETFL, O_NONBLOCK); }
void reset(int fd) {
    const linger at_once{1, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    ::close(fd);
}
bool wait_for(int fd, short what, double seconds) {
    pollfd one{fd, what, 0};
    int ready = -1;
    do {
        ready = ::poll(&one, 1, static_cast<int>(seconds * 1000) + 1);
    } while (ready < 0 && errno == EINTR); // SIGTERM ends no round trip
    return ready == 1;
}
/// Sends all and reads as much again, within this time. Empty: not answered.
std::string exchange(int fd, std::string_view text, double limit) {
    const auto begin = Clock::now();
    if (::send(fd, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) {
        return {};
    }
    std::string answer;
    while (answer.size() < text.size()) {
        const double left = limit - since(begin);
        if (left <= 0 || !wait_for(fd, POLLIN, left)) {
            return {};
        }
        char piece[8192];
        const ssize_t got = ::recv(fd, piece, sizeof piece, MSG_DONTWAIT);
        if (got <= 0) {
            return {};
        }
        answer.append(piece, static_cast<std::size_t>(got));
    }
    return answer;
}
/// What a quiet connection has come to.
enum class State { waits, eof, reset };
State state_of(int fd) {
    char byte;
    const ssize_t got = ::recv(fd, &byte, 1, MSG_DONTWAIT);
    return got == 0 ? State::eof : got < 0 && errno == EAGAIN ? State::waits : State::reset;
}
void wait_for_end() {
    while (ended == 0) {
        rest(0.05);
    }
}

// -- the programs ---------------------------------------------------------------------------------

/// An ordinary client: round trips of lines of changing length, one every 5 ms, each verified.
int probe(int port, int) {
    const int fd = connect_to(port);
    constexpr std::size_t sizes[] = {2, 64, 700, 4000, 20'000};
    double worst = 0;
    double sum = 0;
    std::size_t trips = 0;
    for (; ended == 0; ++trips) {
        std::string line(sizes[trips % 5], static_cast<char>('a' + trips % 26));
        line.replace(0, std::min<std::size_t>(line.size() - 1, 8), std::to_string(trips), 0,
                     std::min<std::size_t>(line.size() - 1, 8));
        line.back() = '\n';
        const auto begin = Clock::now();
        const std::string answer = exchange(fd, line, 10);
        const double took = since(begin);
        if (answer != line) {
            fail("round trip " + std::to_string(trips) + " came back with " +
                 std::to_string(answer.size()) + " of " + std::to_string(line.size()) + " bytes");
        }
        if (trips == 0) {
            say("probing");
        }
        worst = std::max(worst, took);
        sum += took;
        rest(0.005);
    }
    std::printf("round trips %zu, mean %.0f us, worst %.1f ms\n", trips,
                sum / static_cast<double>(std::max<std::size_t>(trips, 1)) * 1e6, worst * 1e3);
    return 0;
}

/// Opens so many, each with the smallest receive buffer, reads none, and holds them.
int hold(int port, int count) {
    for (int n = 0; n < count; ++n) {
        connect_to(port, n, 2048);
    }
    say("open " + std::to_string(count));
    wait_for_end();
    return 0;
}

/// The server has few descriptors: fills it, has others wait, then makes room.
int descriptors(int port, int) {
    std::vector<int> served;
    std::vector<int> talkers;
    while (talkers.size() < 2) { // the last ones are not answered
        const int fd = connect_to(port);
        const bool answered = exchange(fd, "x\n", served.size() < 20 ? 5 : 0.1) == "x\n";
        (answered ? served : talkers).push_back(fd);
    }
    std::vector<int> waiters;
    while (waiters.size() < 40) {
        waiters.push_back(connect_to(port));
    }
    say("full with " + std::to_string(served.size()));
    rest(11);
    const auto count = [](const std::vector<int>& of, State state) {
        return std::to_string(
            std::count_if(of.begin(), of.end(), [&](int fd) { return state_of(fd) == state; }));
    };
    // A verdict is taken by whoever reads it: so each is asked once.
    std::size_t eof = 0;
    std::size_t resets = 0;
    std::vector<int> still;
    for (const int fd : waiters) {
        const State state = state_of(fd);
        eof += state == State::eof ? 1 : 0;
        resets += state == State::reset ? 1 : 0;
        if (state == State::waits) {
            still.push_back(fd);
        }
    }
    say("waiters: eof " + std::to_string(eof) + " reset " + std::to_string(resets) + " waiting " +
        std::to_string(still.size()));
    say("talkers: reset " + count(talkers, State::reset));
    for (const int fd : served) {
        if (exchange(fd, "y\n", 5) != "y\n") {
            fail("one that is inside is not served");
        }
    }
    for (std::size_t n = 0; n < 10; ++n) {
        ::close(served[n]);
    }
    const auto begin = Clock::now();
    for (const int fd : still) {
        static_cast<void>(::send(fd, "z\n", 2, MSG_NOSIGNAL));
    }
    bool answered = false;
    while (!answered) {
        if (since(begin) > 10) {
            fail("the service does not come back");
        }
        for (const int fd : still) {
            char byte;
            answered = answered || ::recv(fd, &byte, 1, MSG_DONTWAIT) == 1;
        }
        rest(0.002);
    }
    std::printf("resumed after %.0f ms\n", since(begin) * 1e3);
    return 0;
}

/// Half-open clients: by turns a few bytes and then nothing, or a byte a second (not through the
/// third door). All must be gone after three seconds, and not before.
int slow(const std::vector<int>& ports, int count) {
    struct Slow {
        int fd;
        bool dribbles;
        Clock::time_point begin;
        double lasted;
    };
    std::vector<Slow> all;
    for (int n = 0; n < count; ++n) {
        const auto door = static_cast<std::size_t>(n % 5) / 2;
        const auto begin = Clock::now();
        const int fd = connect_to(ports[door], n);
        set_non_blocking(fd);
        static_cast<void>(::send(fd, "GET", 3, MSG_NOSIGNAL));
        all.push_back({fd, n % 5 == 1 || n % 5 == 3, begin, 0});
    }
    say("open " + std::to_string(count));
    const auto opened = Clock::now();
    auto next_byte = opened + std::chrono::seconds{1};
    std::size_t left = all.size();
    while (left != 0 && since(opened) < 20) {
        for (Slow& one : all) {
            if (one.lasted == 0 && state_of(one.fd) != State::waits) {
                one.lasted = since(one.begin);
                ::close(one.fd);
                --left;
            }
        }
        if (Clock::now() >= next_byte) {
            next_byte += std::chrono::seconds{1};
            for (const Slow& one : all) {
                if (one.dribbles && one.lasted == 0) {
                    static_cast<void>(::send(one.fd, "x", 1, MSG_NOSIGNAL));
                }
            }
        }
        rest(0.02);
    }
    const auto earlier = [](const Slow& a, const Slow& b) { return a.lasted < b.lasted; };
    std::printf("gone %zu of %d, after %.3f to %.3f s\n", all.size() - left, count,
                std::min_element(all.begin(), all.end(), earlier)->lasted,
                std::max_element(all.begin(), all.end(), earlier)->lasted);
    return left == 0 ? 0 : 1;
}

/// Connections in every state in which nothing happens; holds them.
int silence(const std::vector<int>& ports, int count) {
    constexpr int kinds = 12;
    for (int n = 0; n < count; ++n) {
        // What the server is asked to do, and what the client does then.
        constexpr char letters[kinds] = {'i', 'i', 'w', 'p', 'p', 'p',
                                         'P', 'p', 'b', 'B', 'i', 'p'};
        const int kind = n % kinds;
        const bool owed = kind == 8 || kind == 9;
        const int fd = connect_to(kind >= 10 ? ports[1] : ports[0], n, owed ? 2048 : 0);
        char answer = 0;
        if (::send(fd, &letters[kind], 1, MSG_NOSIGNAL) != 1 || !wait_for(fd, POLLIN, 10) ||
            ::recv(fd, &answer, 1, 0) != 1 || answer != 'k') {
            fail("connection " + std::to_string(n) + " is not answered");
        }
        const auto send_on = [fd] { static_cast<void>(::send(fd, "unread", 6, MSG_NOSIGNAL)); };
        switch (kind) {
        case 1: // half-closed by us; the server stays
            ::shutdown(fd, SHUT_WR);
            break;
        case 3: // paused, data waits
        case 11:
            send_on();
            break;
        case 4: // paused, data waits, we are gone
            send_on();
            ::close(fd);
            break;
        case 5: // paused, data waits, half-closed
            send_on();
            ::shutdown(fd, SHUT_WR);
            break;
        case 6: // paused, half-closed by the server, data waits, we are gone: a hang-up
            send_on();
            ::shutdown(fd, SHUT_WR);
            ::close(fd);
            break;
        case 7: // paused, data waits, reset
            send_on();
            reset(fd);
            break;
        case 9: // paused, owed more than we take, reset
            ::close(fd);
            break;
        default: // idle; half-closed by the server; owed more than we take; distant deadlines
            break;
        }
    }
    for (int n = 0; n < 100; ++n) { // those leave
        const int fd = connect_to(ports[0]);
        static_cast<void>(::send(fd, "i", 1, MSG_NOSIGNAL));
        static_cast<void>(wait_for(fd, POLLIN, 10));
        reset(fd);
    }
    say("open " + std::to_string(count));
    wait_for_end();
    return 0;
}

/// So many connect at once; each sends a line when it is in, and has its answer.
int flood(int port, int count) {
    std::vector<pollfd> all;
    for (int n = 0; n < count; ++n) {
        all.push_back({make_socket(n), POLLOUT, 0});
        set_non_blocking(all.back().fd);
    }
    const sockaddr_in to = loopback(1, port);
    const auto begin = Clock::now();
    for (const pollfd& one : all) {
        if (::connect(one.fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 &&
            errno != EINPROGRESS) {
            fail(std::string("connect: ") + std::strerror(errno));
        }
    }
    int answered = 0;
    while (answered < count && since(begin) < 30) {
        static_cast<void>(::poll(all.data(), all.size(), 1000));
        for (pollfd& one : all) {
            if ((one.revents & POLLOUT) != 0) {
                one.events = POLLIN;
                if (::send(one.fd, "f\n", 2, MSG_NOSIGNAL) != 2) {
                    fail(std::string("send: ") + std::strerror(errno));
                }
            } else if (one.revents != 0) {
                char line[2];
                if (::recv(one.fd, line, 2, 0) != 2) {
                    fail("a client is not answered");
                }
                one.fd = -1 - one.fd; // poll passes it over
                ++answered;
            }
        }
    }
    std::printf("answered %d of %d within %.2f s\n", answered, count, since(begin));
    return answered == count ? 0 : 1;
}

} // namespace

// client PROGRAM COUNT PORT...
int main(int count, char** arguments) {
    if (count < 4) {
        return 2;
    }
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    struct sigaction action {};
    action.sa_handler = [](int) { ended = 1; };
    ::sigaction(SIGTERM, &action, nullptr);
    const std::string_view program = arguments[1];
    const int number = std::atoi(arguments[2]);
    std::vector<int> ports;
    for (int n = 3; n < count; ++n) {
        ports.push_back(std::atoi(arguments[n]));
    }
    return program == "probe"         ? probe(ports[0], number)
           : program == "hold"        ? hold(ports[0], number)
           : program == "descriptors" ? descriptors(ports[0], number)
           : program == "slow"        ? slow(ports, number)
           : program == "silence"     ? silence(ports, number)
           : program == "flood"       ? flood(ports[0], number)
                                      : 2;
}
