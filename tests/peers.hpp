// SPDX-License-Identifier: Apache-2.0
//
// The other side of a transport, for tests: pairs of descriptors, a peer that writes and reads
// without a reactor, a service that notes what it is told, and turns until something is so. All on
// the thread of the test.
#pragma once

#include <reactor/handler.hpp>
#include <reactor/net/stream.hpp>
#include <reactor/net/tcp.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/runtime.hpp>

#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "calm.hpp"
#include "catch.hpp"
#include "turns.hpp"

namespace test {

using namespace reactor;
using namespace std::chrono_literals;

// -- bytes ----------------------------------------------------------------------------------------

/// A source of numbers that are the same for a seed, everywhere.
class Random {
  public:
    explicit Random(std::uint64_t seed) noexcept : state_(seed) {}
    [[nodiscard]] std::uint64_t next() noexcept {
        std::uint64_t z = state_ += 0x9E3779B97F4A7C15U;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
        return z ^ (z >> 31);
    }
    /// 0 to `end` - 1.
    [[nodiscard]] std::size_t below(std::size_t end) noexcept { return next() % end; }
    /// Often small, sometimes as large as `most`.
    [[nodiscard]] std::size_t size(std::size_t most) noexcept {
        return 1 + below(std::size_t{1} << below(1 + bits(most))) % most;
    }

  private:
    [[nodiscard]] static std::size_t bits(std::size_t number) noexcept {
        std::size_t count = 0;
        for (; number > 1; number /= 2) {
            ++count;
        }
        return count;
    }
    std::uint64_t state_;
};

/// So many bytes in which every piece is unlike every other.
[[nodiscard]] inline std::string pattern(std::size_t size, std::uint64_t seed = 1) {
    Random random(seed);
    std::string text(size, '\0');
    for (std::size_t at = 0; at < size; at += 8) {
        std::uint64_t word = random.next();
        for (std::size_t n = at; n < size && n < at + 8; ++n, word >>= 8) {
            text[n] = static_cast<char>(word & 0xff);
        }
    }
    return text;
}

// -- ends -----------------------------------------------------------------------------------------

inline void require_ok(bool ok, const char* what) {
    if (!ok) {
        throw std::system_error(errno, std::system_category(), what);
    }
}

/// One descriptor is given to a stream, the other is the peer's, which never blocks.
struct Ends {
    os::Fd ours;
    os::Fd theirs;
};

[[nodiscard]] inline Ends tcp_ends() {
    const Calm calm; // connect(2)
    const os::Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Address any = Address::loopback_ipv4(0);
    require_ok(::bind(listener.get(), any.data(), any.size()) == 0, "bind");
    require_ok(::listen(listener.get(), 1) == 0, "listen");
    const Address at = Address::filled(
        [&](sockaddr* into, socklen_t* size) { ::getsockname(listener.get(), into, size); });
    os::Fd theirs(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    require_ok(::connect(theirs.get(), at.data(), at.size()) == 0, "connect");
    os::Fd ours(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    require_ok(static_cast<bool>(ours), "accept4");
    require_ok(os::Kernel::set_non_blocking(theirs.get()).ok(), "fcntl");
    return {std::move(ours), std::move(theirs)};
}
[[nodiscard]] inline Ends unix_ends() {
    int ends[2];
    require_ok(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
    require_ok(os::Kernel::set_non_blocking(ends[1]).ok(), "fcntl");
    return {os::Fd(ends[0]), os::Fd(ends[1])};
}
/// The peer writes to it.
[[nodiscard]] inline Ends pipe_to_us() {
    int ends[2];
    require_ok(::pipe2(ends, O_CLOEXEC) == 0, "pipe2");
    require_ok(os::Kernel::set_non_blocking(ends[1]).ok(), "fcntl");
    return {os::Fd(ends[0]), os::Fd(ends[1])};
}
/// The peer reads from it.
[[nodiscard]] inline Ends pipe_from_us() {
    int ends[2];
    require_ok(::pipe2(ends, O_CLOEXEC) == 0, "pipe2");
    require_ok(os::Kernel::set_non_blocking(ends[0]).ok(), "fcntl");
    return {os::Fd(ends[1]), os::Fd(ends[0])};
}
/// Makes the socket's buffers small: of a UNIX socket as small as can be, of TCP as small as it is
/// still quick with.
inline void make_small(const os::Fd& fd) {
    int domain = 0;
    socklen_t length = sizeof domain;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_DOMAIN, &domain, &length);
    const int size = domain == AF_UNIX ? 1 : 400 * 1024;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
}
/// Closes a TCP socket with a reset.
inline void reset(os::Fd& fd) {
    const linger at_once{1, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    fd.reset();
}
/// Waits until this is so, for what the kernel does behind our back; false: it will never be.
template <class Condition>
[[nodiscard]] bool eventually(Condition condition) {
    for (int tries = 0; tries < 50'000; ++tries) {
        if (condition()) {
            return true;
        }
        os::Kernel::sleep(100us);
    }
    return condition();
}
/// Bytes in the send queue of this TCP socket that the other side has not acknowledged.
[[nodiscard]] inline int unacknowledged(const os::Fd& fd) {
    int bytes = 0;
    ::ioctl(fd.get(), TIOCOUTQ, &bytes);
    return bytes;
}
/// What was written to this TCP socket stands on the other side.
[[nodiscard]] inline bool has_arrived(const os::Fd& fd) {
    return eventually([&] { return unacknowledged(fd) == 0; });
}
/// The other side's end has come to this descriptor.
[[nodiscard]] inline bool has_hung_up(int fd) {
    return eventually([&] {
        pollfd look{fd, 0, 0};
        return ::poll(&look, 1, 0) == 1;
    });
}

/// Writes as much as the descriptor takes; how much that was.
inline std::size_t write_some(const os::Fd& fd, std::string_view text) {
    const Calm calm; // a terminal can be interrupted although it never blocks
    std::size_t done = 0;
    while (done < text.size()) {
        const ssize_t count = ::write(fd.get(), text.data() + done, text.size() - done);
        if (count <= 0) {
            break;
        }
        done += static_cast<std::size_t>(count);
    }
    return done;
}

/// What a peer has read.
struct Reader {
    std::string bytes;
    bool eof = false;
    int error = 0;

    [[nodiscard]] bool at_end() const { return eof || error != 0; }
    /// Reads what is there, `most` bytes at most. Whether anything came.
    bool read(const os::Fd& fd, std::size_t most = std::numeric_limits<std::size_t>::max()) {
        const Calm calm; // as above
        const std::size_t before = bytes.size();
        char piece[16 * 1024];
        while (!at_end() && most > 0) {
            const ssize_t count = ::read(fd.get(), piece, std::min(sizeof piece, most));
            if (count > 0) {
                bytes.append(piece, static_cast<std::size_t>(count));
                most -= static_cast<std::size_t>(count);
            } else if (count == 0) {
                eof = true;
            } else if (errno == EAGAIN) {
                break;
            } else {
                error = errno;
            }
        }
        return bytes.size() != before;
    }
};

// -- the service ----------------------------------------------------------------------------------

/// What was told of one transport.
template <class Transport>
struct Heard {
    /// A letter each: c connected, d data (a row is one), e eof, b blocked, r drained, s a send that
    /// came back, u unknown id, h handover, x an end by itself.
    std::string trace;
    std::string bytes;
    std::error_code code; ///< of the last error
    std::size_t unsent = 0;
    std::vector<Buffer> returned;
    std::optional<Transport> back; ///< once it has left

    void note(char what) {
        if (what != 'd' || trace.empty() || trace.back() != 'd') {
            trace += what;
        }
    }
    [[nodiscard]] bool gone() const { return trace.find_first_of("hx") != std::string::npos; }
};

/// Notes everything; at the end of a stream it closes its own half, unless `stays`.
template <class TransportType>
struct Watcher : Service<NoListener, TransportType> {
    using Transport = TransportType;
    using typename Watcher::Service::Actions;
    using typename Watcher::Service::Error;
    using Notes = Heard<Transport>;

    void tick(Actions& actions) {
        if (const auto job = std::exchange(next, nullptr)) {
            job(actions);
        }
        if (every_turn) {
            every_turn(actions);
        }
    }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        Notes& notes = heard[id];
        if (const auto* const data = event.data()) {
            notes.note('d');
            notes.bytes += text_of(*data);
        } else {
            notes.note(event.eof() ? 'e' : event.blocked() ? 'b' : event.drained() ? 'r' : 'c');
        }
        if (event.eof() && !stays) {
            actions.close_write(id);
        }
        if (reaction) {
            reaction(id, event, actions);
        }
    }
    void handle_error(Error error, Actions&) {
        Notes& notes = heard[error.id()];
        notes.code = error.code();
        notes.note(error.is_end()                             ? 'x'
                   : error.kind() == ErrorKind::send_returned ? 's'
                   : error.kind() == ErrorKind::unknown_id    ? 'u'
                                                              : '?');
        notes.unsent += error.is_end() ? error.unsent() : 0;
        if (Buffer payload = error.take_payload(); !payload.empty()) {
            notes.returned.push_back(std::move(payload));
        }
        if (auto transport = error.take_transport()) {
            notes.back.emplace(std::move(*transport));
        }
    }
    void handover_transport(ResourceId id, Transport transport, Actions&) {
        Notes& notes = heard[id];
        notes.note('h');
        notes.unsent += transport.unsent();
        notes.back.emplace(std::move(transport));
    }

    bool stays = false;
    std::function<void(Actions&)> next;       ///< done once, in the next tick
    std::function<void(Actions&)> every_turn; ///< done in each tick
    std::function<void(ResourceId, StreamEvent&, Actions&)> reaction;
    std::map<ResourceId, Notes> heard;
};

/// A runtime with a Watcher, and what tests do with it.
template <class Poller, template <class> class TransportTemplate = BasicStream>
struct Watched : Driver<Watched<Poller, TransportTemplate>> {
    using Driver<Watched>::perform;
    using Driver<Watched>::service;
    using Driver<Watched>::until;
    using Kernel = typename Poller::Kernel;
    using Transport = TransportTemplate<Kernel>;
    using Service = Watcher<Transport>;
    using Actions = typename Service::Actions;

    explicit Watched(const Options& options = {}) : runtime(Service{}, options) {}

    /// Registers a stream over this descriptor.
    ResourceId add(os::Fd fd, std::optional<StreamLimits> limits = std::nullopt) {
        Transport transport{os::BasicFd<Kernel>(fd.release())};
        if (limits) {
            transport.set_limits(*limits);
        }
        return add(std::move(transport));
    }
    ResourceId add(Transport transport) {
        ResourceId id;
        perform([&](Actions& actions) { id = actions.register_transport(std::move(transport)); });
        return id;
    }
    bool until_gone(ResourceId id) {
        return until([&] { return heard(id).gone(); });
    }
    /// The peer writes all of this, with turns in between where it must.
    bool write_all(const os::Fd& peer, std::string_view text) {
        return until([&] {
            text.remove_prefix(write_some(peer, text));
            return text.empty();
        });
    }
    /// The peer reads until it has so many bytes, or the end.
    bool read_until(const os::Fd& peer, Reader& reader, std::size_t size) {
        return until([&] {
            while (reader.read(peer)) {
            }
            return reader.at_end() || reader.bytes.size() >= size;
        });
    }
    bool read_to_end(const os::Fd& peer, Reader& reader) {
        return read_until(peer, reader, std::numeric_limits<std::size_t>::max());
    }

    Heard<Transport>& heard(ResourceId id) { return service().heard[id]; }

    Runtime<Service, Poller> runtime;
};

// -- processes ------------------------------------------------------------------------------------

/// Runs this in a forked child, which ends with the number it answers; how it ended: see waitpid.
template <class Body>
[[nodiscard]] int in_child(Body body) {
    const pid_t child = ::fork();
    require_ok(child >= 0, "fork");
    if (child == 0) {
        int answer = 99;
        try {
            answer = body();
        } catch (...) {
        }
        ::_exit(answer);
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

} // namespace test
