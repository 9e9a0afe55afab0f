// SPDX-License-Identifier: Apache-2.0
//
// The clients of the soak: a process with threads that block, each of which has one connection
// after another. They talk and check every byte of the answers; then they half-close, reset, leave
// in the middle, stall, or vanish with their process. They go and rest as the parent says.
#pragma once

#include "wire.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#ifndef IP_BIND_ADDRESS_NO_PORT
#error "a kernel header with IP_BIND_ADDRESS_NO_PORT is wanted"
#endif

namespace soak {

class Clients {
  public:
    /// Serves the parent at the other end of `control` until it says that it is over.
    static void live(const Doors& doors, int control) { Clients(doors, control).serve(); }

  private:
    using Random = std::minstd_rand;
    static constexpr unsigned talkers = 20;
    static constexpr unsigned silent_ones = 2;
    static constexpr int patience_seconds = 20;

    Clients(const Doors& doors, int control) : doors_(doors), control_(control) {
        std::signal(SIGPIPE, SIG_IGN);
        noise_.resize(1 << 20);
        Random random(1);
        for (char& byte : noise_) {
            byte = static_cast<char>(random() >> 8U);
        }
    }

    void serve() {
        std::vector<std::thread> threads;
        for (unsigned n = 0; n < talkers; ++n) {
            threads.emplace_back([this, n] { work(n, [&](Random& r) { have_a_talk(n, r); }); });
        }
        for (unsigned n = talkers; n < talkers + silent_ones; ++n) {
            threads.emplace_back([this, n] { work(n, [&](Random& r) { be_silent(n, r); }); });
        }
        const unsigned last = talkers + silent_ones;
        threads.emplace_back([this] { work(last, [&](Random& r) { vanish(last, r); }); });

        char word = 0;
        while (::read(control_, &word, 1) == 1 && word != 'q') {
            if (word == 'r') {
                resting_ = true;
                while (busy_ != 0) {
                    std::this_thread::sleep_for(std::chrono::milliseconds{1});
                }
            } else if (word == 'g') {
                resting_ = false;
            }
            const Tally tally = tally_.read();
            if (::write(control_, &tally, sizeof tally) != sizeof tally) {
                break;
            }
        }
        over_ = true;
        for (auto& thread : threads) {
            thread.join();
        }
    }

    template <class Round>
    void work(unsigned number, Round round) {
        Random random(number + 1);
        while (!over_) {
            ++busy_;
            if (resting_) {
                --busy_;
                std::this_thread::sleep_for(std::chrono::milliseconds{2});
                continue;
            }
            round(random);
            --busy_;
        }
    }

    // -- what a client does ---------------------------------------------------------------------

    void have_a_talk(unsigned number, Random& random) {
        const int fd = open(number, random);
        if (fd < 0) {
            return;
        }
        const unsigned way = static_cast<unsigned>(random() % 100);
        if (way < 20) {
            leave_at_once(fd, random);
        } else if (way < 22) {
            stall(fd, random);
        } else if (const bool well = talk(fd, random); !well) {
            expect(false, "had another answer, or none");
            close_with_reset(fd);
        } else if (way < 45) {
            half_close(fd);
        } else if (way < 60) {
            be_closed(fd);
        } else {
            if (random() % 2 == 0) {
                send_all(fd, frame('e', piece(random, 5000))); // its answer is never read
            }
            ++tally_.reset;
            close_with_reset(fd);
        }
        ++tally_.closed;
    }

    /// A few requests, each answered before the next.
    bool talk(int fd, Random& random) {
        for (auto left = 1 + random() % 6; left > 0; --left) {
            const auto kind = random() % 20;
            const std::string_view payload = piece(random, kind == 0 ? 200'000 : 4'000);
            char letter = 'e';
            std::string wanted;
            if (kind == 1) {
                letter = 'o';
                wanted = frame('o', checksum_text(payload));
                ++tally_.offloaded;
            } else if (kind == 2) {
                letter = 'h';
                wanted = frame('h', {});
                ++tally_.handed_over;
            } else {
                wanted = frame('e', payload);
            }
            if (!exchange(fd, frame(letter, letter == 'h' ? std::string_view() : payload),
                          wanted, 0)) {
                return false;
            }
        }
        return true;
    }
    /// Connects and leaves: with nothing sent, or with half a request.
    void leave_at_once(int fd, Random& random) {
        if (random() % 2 == 0) {
            send_all(fd, half_a_request(random));
        }
        ++tally_.left_at_once;
        if (random() % 4 == 0) {
            ::close(fd);
        } else {
            close_with_reset(fd);
        }
    }
    /// Sends until nothing goes any more, and reads only then; or never.
    void stall(int fd, Random& random) {
        std::string all;
        while (all.size() < 3'000'000) {
            all += frame('e', piece(random, 60'000));
        }
        ++tally_.stalled_reading;
        const int rest = 20 + static_cast<int>(random() % 100);
        if (random() % 2 == 0) {
            expect(exchange(fd, all, all, rest), "that stalled had another answer, or none");
            close_with_reset(fd);
            return;
        }
        std::string_view left = all;
        while (!left.empty() && may(fd, POLLOUT, rest)) {
            const auto sent = ::send(fd, left.data(), left.size(), MSG_DONTWAIT);
            left.remove_prefix(sent > 0 ? static_cast<std::size_t>(sent) : 0);
            if (sent < 0 && errno != EAGAIN && errno != EINTR) {
                break;
            }
        }
        close_with_reset(fd);
    }
    /// Our half ends; all that comes then is the end.
    void half_close(int fd) {
        char byte = 0;
        ::shutdown(fd, SHUT_WR);
        expect(::recv(fd, &byte, 1, 0) == 0, "that half-closed met no end");
        ++tally_.half_closed;
        ::close(fd);
    }
    void be_closed(int fd) {
        char byte = 0;
        send_all(fd, frame('c', {}));
        expect(::recv(fd, &byte, 1, 0) == 0, "that is to be closed met no end");
        ++tally_.closed_by_server;
        ::close(fd);
    }
    /// Connections that say half a request, and wait until the server has had enough.
    void be_silent(unsigned number, Random& random) {
        std::vector<int> fds;
        for (int n = 0; n < 8; ++n) {
            if (const int fd = open(number, random); fd >= 0) {
                send_all(fd, half_a_request(random));
                fds.push_back(fd);
            }
        }
        for (const int fd : fds) {
            char byte = 0;
            const auto got = ::recv(fd, &byte, 1, 0);
            expect(got == 0 || (got < 0 && errno == ECONNRESET), "that was silent was left alone");
            ++tally_.timed_out;
            ++tally_.closed;
            ::close(fd);
        }
    }
    /// A process with connections in all states is killed.
    void vanish(unsigned number, Random& random) {
        std::vector<int> fds;
        const std::string half = half_a_request(random);
        const std::string whole = frame('e', piece(random, 3000));
        for (int n = 0; n < 6; ++n) {
            if (const int fd = open(number, random); fd >= 0) {
                fds.push_back(fd);
            }
        }
        const pid_t child = ::fork();
        if (child == 0) { // of a process with threads: system calls only
            for (std::size_t n = 0; n < fds.size(); ++n) {
                const std::string& text = n % 2 == 0 ? half : whole;
                static_cast<void>(::send(fds[n], text.data(), text.size(), MSG_NOSIGNAL));
            }
            ::kill(::getpid(), SIGKILL);
            ::_exit(1);
        }
        for (const int fd : fds) {
            ::close(fd);
            ++tally_.vanished;
            ++tally_.closed;
        }
        int status = 0;
        expect(child > 0 && ::waitpid(child, &status, 0) == child && WIFSIGNALED(status),
               "could not vanish");
        std::this_thread::sleep_for(std::chrono::milliseconds{10});
    }

    /// What must not happen; the first of it is told at once.
    void expect(bool fulfilled, const char* what) {
        const int error = errno;
        if (!fulfilled && ++tally_.wrong <= 20) {
            std::fprintf(stderr, "wrong: a client %s (errno %d)\n", what, error);
        }
    }

    // -- connections ----------------------------------------------------------------------------

    /// A connected socket with a limit on its waits; -1 where the system has no port left.
    int open(unsigned number, Random& random) {
        const bool tcp = random() % 5 < 2;
        const int fd = ::socket(tcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const timeval patience{patience_seconds, 0};
        ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        int connected = -1;
        if (tcp) {
            // Each thread has an address of its own, and so ports of its own: those that end with
            // both halves linger for a minute.
            const int one = 1;
            ::setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
            ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            sockaddr_in address{};
            address.sin_family = AF_INET;
            address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + number);
            ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
            address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            address.sin_port = htons(doors_.port);
            connected = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
        } else {
            sockaddr_un address{};
            address.sun_family = AF_UNIX;
            std::copy(std::begin(doors_.path), std::end(doors_.path), address.sun_path);
            connected = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
        }
        if (connected == 0) {
            ++tally_.opened;
            return fd;
        }
        if (errno == EADDRNOTAVAIL) {
            ++tally_.no_port;
        } else {
            expect(false, "could not connect");
        }
        ::close(fd);
        std::this_thread::sleep_for(std::chrono::milliseconds{5});
        return -1;
    }
    static void close_with_reset(int fd) {
        const linger at_once{1, 0};
        ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        ::close(fd);
    }
    static bool may(int fd, short events, int milliseconds) {
        pollfd asked{fd, events, 0};
        return ::poll(&asked, 1, milliseconds) > 0;
    }
    static void send_all(int fd, std::string_view bytes) {
        while (!bytes.empty()) {
            const auto sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (sent <= 0) {
                return;
            }
            bytes.remove_prefix(static_cast<std::size_t>(sent));
        }
    }
    /// Sends one thing and reads the other, at the same time, comparing. With a `rest` it reads
    /// nothing until nothing could be sent for so many milliseconds.
    bool exchange(int fd, std::string_view out, std::string_view wanted, int rest) {
        char got[32 * 1024];
        while (rest > 0 && !out.empty() && may(fd, POLLOUT, rest)) {
            const auto sent = ::send(fd, out.data(), out.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            if (sent < 0 && errno != EAGAIN) {
                return false;
            }
            out.remove_prefix(sent > 0 ? static_cast<std::size_t>(sent) : 0);
        }
        while (!wanted.empty()) {
            pollfd asked{fd, static_cast<short>(out.empty() ? POLLIN : POLLIN | POLLOUT), 0};
            if (::poll(&asked, 1, patience_seconds * 1000) <= 0) {
                return false;
            }
            if ((asked.revents & POLLOUT) != 0 && !out.empty()) {
                const auto sent = ::send(fd, out.data(), out.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
                if (sent < 0 && errno != EAGAIN) {
                    return false;
                }
                out.remove_prefix(sent > 0 ? static_cast<std::size_t>(sent) : 0);
            }
            if ((asked.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
                const auto count = ::recv(fd, got, sizeof got, MSG_DONTWAIT);
                if (count < 0 && errno == EAGAIN) {
                    continue;
                }
                const auto size = static_cast<std::size_t>(std::max<ssize_t>(count, 0));
                if (count <= 0 || size > wanted.size() ||
                    std::memcmp(got, wanted.data(), size) != 0) {
                    return false;
                }
                wanted.remove_prefix(size);
                tally_.bytes_checked += size;
            }
        }
        return out.empty();
    }
    std::string half_a_request(Random& random) const {
        return frame('e', std::string_view(noise_).substr(0, 1000)).substr(0, 1 + random() % 500);
    }
    /// Some of the noise, at most so much.
    std::string_view piece(Random& random, std::size_t most) const {
        const std::size_t size = random() % most;
        return std::string_view(noise_).substr(random() % (noise_.size() - size), size);
    }

    struct Counts {
        std::atomic<std::uint64_t> opened{0}, closed{0}, bytes_checked{0}, half_closed{0},
            reset{0}, left_at_once{0}, closed_by_server{0}, stalled_reading{0}, timed_out{0},
            vanished{0}, handed_over{0}, offloaded{0}, no_port{0}, wrong{0};

        [[nodiscard]] Tally read() const {
            return {opened,           closed,          bytes_checked, half_closed, reset,
                    left_at_once,     closed_by_server, stalled_reading, timed_out, vanished,
                    handed_over,      offloaded,       no_port,       wrong};
        }
    };

    const Doors doors_;
    const int control_;
    std::string noise_;
    Counts tally_;
    std::atomic<unsigned> busy_{0};
    std::atomic<bool> resting_{true};
    std::atomic<bool> over_{false};
};

} // namespace soak
