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

#include <deque>

namespace reactor::inline v0 {
namespace sim {

struct File;

/// Who waits to be accepted, and at which address.
struct Backlog {
    Address address;
    std::size_t limit = 0;
    bool reuse_port = false;
    std::deque<std::shared_ptr<Connection>> waiting{};
    std::uint64_t changes = 0;
    Watcher* watcher = nullptr;
};

/// A pipe: sixteen pages (pipe(7)). A write begins a page of its own unless its odd bytes fit into
/// the last one, so a pipe of few bytes can be full.
struct Pipe {
    static constexpr std::size_t page_size = 4096;
    static constexpr std::size_t most_pages = 16;

    std::deque<std::vector<std::byte>> pages{};
    std::size_t begin = 0;     ///< in the first page
    std::size_t last_room = 0; ///< behind the last page
    bool readable_end = true;  ///< somebody has it
    bool writable_end = true;
    std::uint64_t changes = 0;

    [[nodiscard]] std::size_t write(std::span<const std::byte> bytes) {
        std::size_t done = 0;
        const std::size_t odd = bytes.size() % page_size;
        if (!pages.empty() && odd != 0 && odd <= last_room) {
            pages.back().insert(pages.back().end(), bytes.begin(),
                                bytes.begin() + static_cast<std::ptrdiff_t>(odd));
            last_room -= odd;
            done = odd;
        }
        while (done < bytes.size() && pages.size() < most_pages) {
            const auto part = bytes.subspan(done, std::min(page_size, bytes.size() - done));
            pages.emplace_back(part.begin(), part.end());
            last_room = page_size - part.size();
            done += part.size();
        }
        changes += done != 0 ? 1U : 0U;
        return done;
    }
    [[nodiscard]] std::size_t read(std::span<std::byte> into) {
        std::size_t done = 0;
        while (done < into.size() && !pages.empty()) {
            const std::vector<std::byte>& page = pages.front();
            const std::size_t count = std::min(into.size() - done, page.size() - begin);
            std::copy_n(page.begin() + static_cast<std::ptrdiff_t>(begin), count,
                        into.begin() + static_cast<std::ptrdiff_t>(done));
            done += count;
            begin += count;
            if (begin == page.size()) {
                pages.pop_front();
                begin = 0;
            }
        }
        changes += done != 0 ? 1U : 0U;
        return done;
    }
};

/// One registration in an epoll set: named by descriptor and file, as in Linux, so it lives as long
/// as the file does.
struct Watch {
    int fd;
    File* file;
    std::uint32_t events;
    std::uint64_t data;
    std::uint64_t seen = 0; ///< of the file's changes, when it was last reported
};

/// One open file description.
struct File {
    enum class Kind : std::uint8_t {
        socket,     ///< of TCP: fresh, then `backlog` or `connection`
        pair,       ///< one of two UNIX sockets: `connection`
        pipe_read,  ///< `pipe`
        pipe_write, ///< `pipe`
        event,      ///< `count`
        epoll,      ///< `watches`
        always,     ///< a file or /dev/null
    };

    explicit File(Kind of) noexcept : kind(of) {}

    [[nodiscard]] bool is_socket() const noexcept {
        return kind == Kind::socket || kind == Kind::pair;
    }
    [[nodiscard]] Side* side() const noexcept {
        return connection ? &connection->side(which) : nullptr;
    }
    /// Grows with everything that may make it ready.
    [[nodiscard]] std::uint64_t changes() const noexcept {
        return backlog      ? backlog->changes
               : connection ? side()->changes
               : pipe       ? pipe->changes
                            : rings;
    }
    /// The bits of epoll(7) and poll(2) that are true now.
    [[nodiscard]] std::uint32_t readiness() const noexcept {
        switch (kind) {
        case Kind::socket:
        case Kind::pair:
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
            return EPOLLOUT | (count != 0 ? EPOLLIN : 0U);
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
        if ((watch.events & EPOLLET) != 0 && watch.seen == watch.file->changes()) {
            return 0;
        }
        return watch.file->readiness() & (watch.events | always_told);
    }

    Kind kind;
    bool non_blocking = true;
    int descriptors = 0;
    std::vector<File*> watched_by{}; ///< epoll sets; one entry a watch

    std::shared_ptr<Connection> connection{};
    int which = 0;
    std::unique_ptr<Backlog> backlog{};
    Address bound{};
    bool reuse_address = false;
    bool reuse_port = false;
    bool lingers = true;
    std::size_t receive_buffer = 0; ///< asked for; zero: the weather's
    std::size_t send_buffer = 0;
    bool was_connecting = false; ///< connect() was answered with EINPROGRESS

    std::shared_ptr<Pipe> pipe{};
    std::uint64_t count = 0; ///< of an eventfd
    std::uint64_t rings = 0; ///< writes to it
    std::vector<Watch> watches{};
    std::size_t next_watch = 0; ///< whose turn it is in a batch
};

} // namespace sim
} // namespace reactor::inline v0
