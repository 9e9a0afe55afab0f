// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: what was asked of the kernel, and what it answered.
//
// Every call with its answer goes into one running hash: two histories are the same if and only if
// their hashes are, which is how replay is checked (invariant I20). The entries themselves are kept
// only if somebody wants to read them, and then the last ones: a run that failed is run again with
// the trace kept, as it will be the same run.
#pragma once

#include <reactor/os/kernel.hpp>

#include <charconv>
#include <deque>
#include <span>
#include <string>

namespace reactor::inline v0 {
namespace sim {

/// The calls of a sim::Kernel.
enum class Call : std::uint8_t {
    now,
    sleep,
    random,
    close,
    traits,
    set_flag,
    duplicate,
    read,
    recv,
    peek,
    write,
    send,
    socket,
    pair,
    bind,
    connect,
    listen,
    accept,
    shutdown_write,
    name,
    set_option,
    option,
    epoll_create,
    epoll_control,
    epoll_wait,
    poll,
    event_fd,
    ring,
    silence,
    note,
};

/// One call: when, which, of what, and the answer.
struct TraceEntry {
    Timestamp at{};
    Call call = Call::now;
    int fd = -1;
    std::uint64_t argument = 0; ///< the size asked for, the bits, the name of an option
    os::Result result;
    std::string text{}; ///< of a note

    /// As a line to read.
    [[nodiscard]] std::string to_string() const {
        static constexpr const char* names[] = {
            "now",      "sleep",         "random",     "close",  "traits",       "set_flag",
            "dup",      "read",          "recv",   "peek",   "write",  "send",         "socket",
            "pair",     "bind",          "connect",    "listen", "accept",       "shutdown_write",
            "name",     "set_option",    "option",     "epoll_create",           "epoll_control",
            "epoll_wait", "poll",        "event_fd",   "ring",   "silence",      "--"};
        const auto since = std::chrono::duration_cast<std::chrono::microseconds>(
            at.time_since_epoch());
        std::string line = std::to_string(since.count()) + "us ";
        line += names[static_cast<std::size_t>(call)];
        if (call == Call::note) {
            return line + " " + text;
        }
        line += "(" + std::to_string(fd) + ", " + std::to_string(argument) + ") = ";
        line += result.ok() ? std::to_string(result.value)
                            : "errno " + std::to_string(result.error) + " (" +
                                  result.code().message() + ")";
        return line;
    }
};

/// The history of one world, as a hash and, if it is kept, as entries.
class Trace {
  public:
    /// From now on the last `most` entries are kept.
    void keep(std::size_t most) { most_ = most; }
    /// Of all calls and answers so far.
    [[nodiscard]] std::uint64_t hash() const noexcept { return hash_; }
    [[nodiscard]] std::uint64_t calls() const noexcept { return calls_; }
    [[nodiscard]] const std::deque<TraceEntry>& entries() const noexcept { return entries_; }
    /// The entries that were kept, a line each.
    [[nodiscard]] std::string to_string() const {
        std::string all;
        for (const TraceEntry& entry : entries_) {
            all += entry.to_string() + "\n";
        }
        return all;
    }

    // -- for the world ----------------------------------------------------------------------------

    void add(Timestamp at, Call call, int fd, std::uint64_t argument, os::Result result) {
        ++calls_;
        mix(static_cast<std::uint64_t>(at.time_since_epoch().count()));
        mix(static_cast<std::uint64_t>(call) << 32 | static_cast<std::uint32_t>(fd));
        mix(argument);
        mix(static_cast<std::uint64_t>(result.value) << 16 ^
            static_cast<std::uint32_t>(result.error));
        if (most_ != 0) {
            push({at, call, fd, argument, result});
        }
    }
    void add(std::span<const std::byte> bytes) noexcept {
        for (const std::byte byte : bytes) {
            hash_ = (hash_ ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3U;
        }
    }
    void add(Timestamp at, std::string text) {
        ++calls_;
        for (const char letter : text) {
            mix(static_cast<unsigned char>(letter));
        }
        if (most_ != 0) {
            push({at, Call::note, -1, 0, {}, std::move(text)});
        }
    }

  private:
    void mix(std::uint64_t value) noexcept {
        hash_ = (hash_ ^ value) * 0x9e3779b97f4a7c15U;
        hash_ ^= hash_ >> 29;
    }
    void push(TraceEntry&& entry) {
        entries_.push_back(std::move(entry));
        if (entries_.size() > most_) {
            entries_.pop_front();
        }
    }

    std::uint64_t hash_ = 0xcbf29ce484222325U;
    std::uint64_t calls_ = 0;
    std::size_t most_ = 0;
    std::deque<TraceEntry> entries_;
};

} // namespace sim
} // namespace reactor::inline v0
