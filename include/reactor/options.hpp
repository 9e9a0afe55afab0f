// SPDX-License-Identifier: Apache-2.0
//
// Words: the limits. Everything in the library that could grow or go on has its bound here, with a
// finite default; at the bound the answer is a value, never an abort and never a silent loss. A
// Runtime copies its Options when it is made. Counts are "at most", sizes are bytes; a zero is read
// as one where nothing at all would stop the loop.
#pragma once

#include <reactor/time.hpp>

#include <cstddef>
#include <cstdint>

namespace reactor::inline v0 {

/// What may wait in the out-buffer of one stream. Wanted: low <= high <= cap.
struct StreamLimits {
    /// Above this the stream is blocked: it says so once, and its reading pauses (auto_pause).
    std::size_t high_watermark = 64 * 1024;
    /// At or below this a blocked stream has drained: it says so once, and its reading resumes.
    std::size_t low_watermark = 16 * 1024;
    /// A send that would pass this is given back whole.
    std::size_t cap = 1024 * 1024;
};

/// How long a stream may take; each counts by itself, zero is for ever. None runs while the service
/// keeps the stream from what it measures: what is paused is not awaited.
struct StreamDeadlines {
    /// Nothing came and nothing left for this long.
    Duration idle{};
    /// Within this at least `read_bytes` must come, again and again until the peer's end.
    Duration read{};
    /// While bytes wait to be sent, the peer must take at least `write_bytes` of them within this.
    /// A kernel takes bytes by the kilobyte, so one that reads a byte a second is slower still.
    Duration write{};
    /// From the first byte of a request until an answer has left whole.
    Duration exchange{};
    /// What must come within `read`; bytes.
    std::size_t read_bytes = 1;
    /// What must be taken within `write`; bytes.
    std::size_t write_bytes = 1;
};

/// Which deadline it was that ended a stream (with the code timed_out).
enum class StreamTimeout : std::uint8_t { none, connect, idle, read, write, exchange };

/// Who makes room when all transports together owe more than Options::owed_bytes.
enum class Shedding : std::uint8_t {
    /// The sender: the send that does not fit comes back. Whom it would rather serve is for the
    /// service: it ends one that owes, and sends again.
    give_back,
    end_largest, ///< those that owe most leave, unsent bytes and all
    end_longest, ///< those that have owed something without a break for longest leave
};

/// The limits of one Runtime.
struct Options {
    /// Readiness reports that one wait takes from the kernel; what is more comes with the next.
    std::size_t events_per_wait = 256;
    /// Events that one transport may yield a turn before the next has its turn.
    std::size_t events_per_resource = 16;
    /// Bytes that one transport may yield a turn (told of events whose `data()` has a size).
    std::size_t bytes_per_resource = 256 * 1024;
    /// Events that one listener may yield a turn. A failing accept4(2) costs 2.7 us, hence so few.
    std::size_t accepts_per_turn = 4;
    /// Commands handled a turn; the rest comes in the next, which does not wait.
    std::size_t commands_per_turn = 1024;
    /// Timers fired a turn; the rest comes in the next, which does not wait.
    std::size_t timers_per_turn = 1024;
    /// Actions performed a turn; the rest comes in the next, which does not wait.
    std::size_t actions_per_turn = 65'536;

    /// Commands that may wait in the channel; then Controller::command() says full.
    std::size_t command_queue = 65'536;
    /// Actions that may wait to be performed; then Actions says no (see there).
    std::size_t action_queue = 65'536;
    /// Timers alive at once; then set_timer() returns an id that names nothing.
    std::size_t timers = 1'000'000;
    /// Listeners registered at once; then a registration is given back.
    std::size_t listeners = 65'536;
    /// Transports registered at once; then a registration is given back, and listeners that bring
    /// transports accept no more until one has left.
    std::size_t transports = 1'000'000;

    /// The loop's one read buffer: the most that one event of a stream carries.
    std::size_t read_buffer = 64 * 1024;
    /// Bytes sent in a turn that are gathered in the loop's memory until its flush; what is more is
    /// copied into the out-buffers of the transports at once.
    std::size_t gather_buffer = 256 * 1024;
    /// Given to each stream as it is registered, unless it was given its own.
    StreamLimits stream;
    /// Bytes that all transports together may owe their peers; then `shedding` says who makes room.
    /// What one turn gathers (gather_buffer) comes on top.
    std::size_t owed_bytes = 1024 * 1024 * 1024;
    /// Who makes room when `owed_bytes` are owed.
    Shedding shedding = Shedding::give_back;
    /// Whether memory that a burst of owed bytes took (16 MiB or more) is given back to the system
    /// when it is over, where the C library would keep it: about 0.1 ms a MiB, once a burst.
    bool return_memory = true;
    /// Whether a transport above its high watermark is not read until it has drained.
    bool auto_pause = true;

    /// Waits that may fail one after another, with a growing pause between them, until the runtime
    /// shuts down. The first one of a row is told to handle_error.
    std::size_t poll_failures = 10;
};

} // namespace reactor::inline v0
