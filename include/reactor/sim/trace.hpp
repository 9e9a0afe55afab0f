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
#include <reactor/sim/call.hpp>

#include <cstring>
#include <deque>
#include <span>
#include <string>

namespace reactor::inline v0 {
namespace sim {

/// One call: when, which, of what, and the answer.
struct TraceEntry {
    Timestamp at{};             ///< of the world
    Call call = Call::now;      ///< which
    int fd = -1;                ///< of what; -1: of nothing that was there
    std::uint64_t argument = 0; ///< the size asked for, the bits, the name of an option
    os::Result result;          ///< what the program was told
    std::string text{};         ///< of a note

    /// As a line to read.
    [[nodiscard]] std::string to_string() const {
        const auto since = std::chrono::duration_cast<std::chrono::microseconds>(
            at.time_since_epoch());
        std::string line = std::to_string(since.count()) + "us ";
        line += name_of(call);
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

/// The history of one world, as a hash and, if it is kept, as entries. The world writes it; one
/// thread.
class Trace {
  public:
    /// From now on the last `most` entries are kept; 0: none, and what was kept stays.
    void keep(std::size_t most) noexcept { most_ = most; }
    /// Of all calls and answers so far, and of the bytes that went to and fro.
    [[nodiscard]] std::uint64_t hash() const noexcept { return hash_; }
    /// How many calls there were, notes among them.
    [[nodiscard]] std::uint64_t calls() const noexcept { return calls_; }
    /// What was kept, the oldest first.
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

    /// A call and its answer.
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
    /// Bytes that a call read or wrote; they count for the hash alone.
    void add(std::span<const std::byte> bytes) noexcept {
        while (bytes.size() >= sizeof(std::uint64_t)) {
            mix(word(bytes.first(sizeof(std::uint64_t))));
            bytes = bytes.subspan(sizeof(std::uint64_t));
        }
        mix(word(bytes) ^ bytes.size() << 56);
    }
    /// A note.
    void add(Timestamp at, std::string text) {
        ++calls_;
        add(std::as_bytes(std::span(text)));
        if (most_ != 0) {
            push({at, Call::note, -1, 0, {}, std::move(text)});
        }
    }

  private:
    [[nodiscard]] static std::uint64_t word(std::span<const std::byte> bytes) noexcept {
        std::uint64_t value = 0;
        if (!bytes.empty()) {
            std::memcpy(&value, bytes.data(), bytes.size());
        }
        return value;
    }
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
