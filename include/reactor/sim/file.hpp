// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: what a descriptor stands for.
//
// One File is one open file description (open(2)): duplicates share it, and it is released with the
// last of them. What it can be is told by `kind`; the rest of its members belong to one kind each.
// Readiness is worked out when somebody asks, from the state of the thing itself, so it can never
// be stale; only edges are counted.
#pragma once

#include <reactor/sim/connection.hpp>
#include <reactor/sim/pipe.hpp>
#include <reactor/sim/process.hpp>

#include <deque>

namespace reactor::inline v0 {
namespace sim {

struct File;

/// Who waits to be accepted, and at which address.
struct Backlog {
    Address address;            ///< where it listens
    std::uint64_t inode = 0;    ///< of the file that is the name of a UNIX socket
    std::size_t limit = 0;      ///< one more than this may wait, as in Linux
    bool reuse_port = false;    ///< shares the port with others that say so
    bool only_ipv6 = false;     ///< takes no IPv4 clients
    std::deque<std::shared_ptr<Connection>> waiting{}; ///< to be accepted
    std::uint64_t changes = 0;                         ///< for edges
    Watcher* watcher = nullptr;                        ///< hears of each client

    /// Somebody waits to be accepted from now on.
    void push(std::shared_ptr<Connection> connection) {
        waiting.push_back(std::move(connection));
        ++changes;
        if (watcher != nullptr) {
            watcher->changed();
        }
    }
    /// Whether nobody more may wait.
    [[nodiscard]] bool is_full() const noexcept { return waiting.size() > limit; }
};

/// One registration in an epoll set: named by descriptor and file, as in Linux, so it lives as long
/// as the file does.
struct Watch {
    int fd;                 ///< as it was when it was registered
    File* file;             ///< what it stood for then
    std::uint32_t events;   ///< what was asked for
    std::uint64_t data;     ///< what comes back with each report
    std::uint64_t seen = 0; ///< of the file's changes, when it was last reported
    bool spent = false;     ///< reported once, and not to be any more (EPOLLONESHOT)
};

/// One open file description.
struct File {
    /// What it is.
    enum class Kind : std::uint8_t {
        socket,     ///< fresh, then `backlog` or `connection`
        pipe_read,  ///< `pipe`
        pipe_write, ///< `pipe`
        event,      ///< `count`
        signals,    ///< `process`, `signals`
        epoll,      ///< `watches`
        always,     ///< always ready: /dev/null
    };

    /// Fresh, with no descriptor.
    explicit File(Kind of) noexcept : kind(of) {}

    /// Whether recv and send work on it.
    [[nodiscard]] bool is_socket() const noexcept { return kind == Kind::socket; }
    /// Whether it is a socket of UNIX.
    [[nodiscard]] bool is_unix() const noexcept { return is_socket() && family == AF_UNIX; }
    /// Its end of its connection; null if it has none.
    [[nodiscard]] Side* side() const noexcept {
        return connection ? &connection->side(which) : nullptr;
    }
    /// Grows with everything that may make it ready.
    [[nodiscard]] std::uint64_t changes() const noexcept {
        return backlog      ? backlog->changes
               : connection ? side()->changes
               : pipe       ? pipe->changes
               : process    ? process->changes
                            : rings;
    }
    /// The bits of epoll(7) and poll(2) that are true now.
    [[nodiscard]] std::uint32_t readiness() const noexcept {
        switch (kind) {
        case Kind::socket:
            if (backlog) {
                return backlog->waiting.empty() ? 0U : EPOLLIN;
            }
            return connection ? connection->readiness(which) : EPOLLOUT | EPOLLHUP;
        case Kind::pipe_read:
            return (pipe->pages.empty() ? 0U : EPOLLIN) | (pipe->writable_end ? 0U : EPOLLHUP);
        case Kind::pipe_write:
            return (pipe->pages.size() < Pipe::most_pages ? EPOLLOUT : 0U) |
                   (pipe->readable_end ? 0U : EPOLLERR);
        case Kind::event:
            return (count < most_count ? EPOLLOUT : 0U) | (count != 0 ? EPOLLIN : 0U);
        case Kind::signals:
            return process->is_pending(signals) ? EPOLLIN : 0U;
        case Kind::epoll:
            return std::any_of(watches.begin(), watches.end(),
                               [](const Watch& watch) { return ready_bits(watch) != 0; })
                       ? EPOLLIN
                       : 0U;
        case Kind::always:
            break;
        }
        return EPOLLIN | EPOLLOUT;
    }
    /// What a wait would report of this watch.
    [[nodiscard]] static std::uint32_t ready_bits(const Watch& watch) noexcept {
        constexpr std::uint32_t always_told = EPOLLERR | EPOLLHUP;
        if (watch.spent ||
            ((watch.events & EPOLLET) != 0 && watch.seen == watch.file->changes())) {
            return 0;
        }
        return watch.file->readiness() & (watch.events | always_told);
    }

    static constexpr std::uint64_t most_count = ~std::uint64_t{0} - 1; ///< of an eventfd

    Kind kind;                      ///< never changes
    bool non_blocking = true;       ///< noted, and no more: nothing blocks here
    int family = AF_INET;           ///< of a socket
    int which = 0;                  ///< of the sides of `connection`
    int descriptors = 0;            ///< how many stand for it
    unsigned mode = 0777;           ///< of a socket: its file will be born with these bits
    std::uint64_t inode = 0;        ///< of the file that is its name
    bool was_connecting = false;    ///< connect() was answered with EINPROGRESS
    std::vector<File*> watched_by{}; ///< epoll sets; one entry a watch

    std::shared_ptr<Connection> connection{}; ///< of a socket that was connected or accepted
    std::unique_ptr<Backlog> backlog{};       ///< of a socket that listens
    Address bound{};                          ///< of a socket that was bound
    SocketOptions options{};                  ///< of a socket

    std::shared_ptr<Pipe> pipe{};   ///< what both ends share
    Process* process = nullptr;     ///< whose signals a signalfd reads
    SignalMask signals{};           ///< which of them
    std::uint64_t count = 0;        ///< of an eventfd
    std::uint64_t rings = 0;        ///< writes to it
    std::vector<Watch> watches{};   ///< of an epoll set
    std::size_t next_watch = 0;     ///< whose turn it is in a batch
};

} // namespace sim
} // namespace reactor::inline v0
