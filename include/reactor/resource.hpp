// SPDX-License-Identifier: Apache-2.0
//
// Contracts: what the runtime owns and asks.
//
// A Resource is anything with a descriptor that turns readiness into events. The runtime owns it by
// value from registration to handover, tells the poller its interest, and when the descriptor is
// ready asks `handle_io` until it yields nothing. A Writable is a Resource that also takes bytes,
// whole or not at all. All members are called on the loop's thread and must not block.
//
// Optional powers are members that a resource may have besides; the runtime uses what is there. A
// power with another signature than here does not compile: it would be left unused in silence.
#pragma once

#include <reactor/buffer.hpp>
#include <reactor/io.hpp>
#include <reactor/options.hpp>
#include <reactor/time.hpp>

#include <concepts>
#include <cstddef>
#include <optional>
#include <span>
#include <system_error>
#include <type_traits>

namespace reactor::inline v0 {

/// What became of bytes that were offered; whatever it is, it is so for all of them.
enum class WriteStatus : std::uint8_t {
    accepted,  ///< they are in the stream, in order
    not_ready, ///< not now; nothing was taken
    full,      ///< they would pass the cap; nothing was taken
    ended,     ///< there is no stream any more to take them
};

namespace detail {

// One concept a clause, so that the sentence a user reads can name the one that fails.

template <class R>
concept owned_by_value = std::is_object_v<R> && std::is_nothrow_move_constructible_v<R> &&
                         std::is_nothrow_destructible_v<R>;
template <class R>
concept names_event = requires { typename R::Event; } && std::move_constructible<typename R::Event>;
template <class R>
concept answers_fd = requires(const R& r) {
    { r.fd() } -> std::same_as<int>;
};
template <class R>
concept answers_interest = requires(const R& r) {
    { r.interest() } -> std::same_as<Interest>;
};
template <class R>
concept reads_into_scratch = requires(R& r, Io io, std::span<std::byte> scratch) {
    { r.handle_io(io, scratch) } -> std::same_as<std::optional<typename R::Event>>;
};
template <class R>
concept reads_by_itself = requires(R& r, Io io) {
    { r.handle_io(io) } -> std::same_as<std::optional<typename R::Event>>;
};
template <class R>
concept handles_io = reads_into_scratch<R> || reads_by_itself<R>;

template <class R>
concept tells_end = requires(const R& r) {
    { r.ended() } -> std::same_as<std::optional<std::error_code>>;
};
template <class R>
concept tells_trouble = requires(R& r) {
    { r.trouble() } -> std::same_as<std::error_code>;
};
template <class R>
concept has_deadline = requires(R& r, const R& c) {
    { c.deadline() } -> std::same_as<std::optional<Timestamp>>;
    r.handle_deadline();
};
template <class R>
concept keeps_time = has_deadline<R> && requires(R& r, const R& c, Timestamp now, bool reads) {
    { c.keeps_time() } -> std::same_as<bool>;
    r.keep_time(now, reads);
};
template <class R>
concept brings_transports = requires(const R& r) {
    { r.brings_transports() } -> std::same_as<bool>;
};
template <class R>
concept takes_stream_limits = requires(R& r, const StreamLimits& limits) {
    r.inherit_limits(limits);
};
template <class R>
concept born_non_blocking = requires { requires R::born_non_blocking; };

// A member of that name, whatever its signature: then it must be the power.
template <class R>
concept end_is_well_formed = tells_end<R> || !requires { &R::ended; };
template <class R>
concept trouble_is_well_formed = tells_trouble<R> || !requires { &R::trouble; };
template <class R>
concept deadline_is_well_formed =
    has_deadline<R> || (!requires { &R::deadline; } && !requires { &R::handle_deadline; });
template <class R>
concept time_is_well_formed =
    keeps_time<R> || (!requires { &R::keeps_time; } && !requires { &R::keep_time; });
template <class R>
concept bringing_is_well_formed = brings_transports<R> || !requires { &R::brings_transports; };
template <class R>
concept limits_are_well_formed = takes_stream_limits<R> || !requires { &R::inherit_limits; };

template <class W>
concept writes_atomically = requires(W& w, std::span<const std::byte> bytes) {
    { w.write_atomic(bytes) } -> std::same_as<WriteStatus>;
};
template <class W>
concept tells_readiness_to_write = requires(const W& w) {
    { w.is_ready_to_write() } -> std::same_as<bool>;
};
template <class W>
concept flushes = requires(W& w) { w.flush(); };
template <class W>
concept closes_write = requires(W& w) { w.close_write(); };
template <class W>
concept counts_unsent = requires(const W& w) {
    { w.unsent() } -> std::same_as<std::size_t>;
};
template <class W>
concept borrows = requires(W& w, std::span<const std::byte> bytes) {
    { w.write_borrowed(bytes) } -> std::same_as<WriteStatus>;
};
template <class W>
concept shares_buffers = requires(W& w, const Buffer& buffer) {
    { w.write_shared(buffer) } -> std::same_as<WriteStatus>;
};
template <class W>
concept tells_held = requires(const W& w) {
    { w.held() } -> std::same_as<std::size_t>;
};
/// The memory in which the unsent bytes of a transport stand.
template <class W>
[[nodiscard]] std::size_t held_by(const W& transport) noexcept {
    if constexpr (tells_held<W>) {
        return transport.held();
    } else {
        return transport.unsent();
    }
}
template <class W>
concept borrowing_is_well_formed = borrows<W> || !requires { &W::write_borrowed; };
template <class W>
concept sharing_is_well_formed = shares_buffers<W> || !requires { &W::write_shared; };

} // namespace detail

/// Anything with a descriptor that turns readiness into events.
///
/// - `typename R::Event`: what it yields; movable. Views in it must live until the next call.
/// - `int fd() const`: the descriptor, the same from registration to handover.
/// - `Interest interest() const`: what it wants to hear now. Asked after each turn that touched it;
///   no interest at all takes the descriptor out of the poll set.
/// - `std::optional<Event> handle_io(Io)`, or, preferred where a resource has it,
///   `handle_io(Io, std::span<std::byte> scratch)`, with the loop's one read buffer: that half is
///   ready (or worth a try: a hang-up is told as both). Yields one event or nothing; it is asked
///   again while it yields, within the budgets of Options. Never blocks, never closes `fd()`.
///
/// What only answers (`fd`, `interest`, and of the powers `is_ready_to_write`, `unsent`, `held`)
/// must not throw: it is asked where nothing can be undone.
///
/// Optional powers:
/// - `std::optional<std::error_code> ended() const`: asked when `handle_io` yielded nothing, and at
///   the end of each turn that touched it; a value is the end of this resource, with its cause
///   (zero: clean). It leaves the reactor then.
/// - `std::error_code trouble()`: asked then too; a cause is told to `handle_error` and is no end.
///   It must be told once: asked again it answers zero.
/// - `std::optional<Timestamp> deadline() const`, `void handle_deadline()`: the next moment at
///   which it wants to be asked although nothing is ready; costs one lazy timer a resource. Before
///   the turn in which that moment came is over it is read once more, if it is read at all.
/// - `bool keeps_time() const`, `void keep_time(Timestamp now, bool reads)`, with a deadline: if it
///   does, it is told the turn's time at the end of each turn that touched it, before it is asked
///   for its end and its deadline, and whether the loop reads it (not paused, not held back).
/// - `bool brings_transports() const`: it is not read while Options::transports are registered.
/// - `void inherit_limits(const StreamLimits&)`: is given `Options::stream` as it is registered.
/// - `static constexpr bool born_non_blocking = true`: spares the runtime the check of O_NONBLOCK.
template <class R>
concept Resource = detail::owned_by_value<R> && detail::names_event<R> && detail::answers_fd<R> &&
                   detail::answers_interest<R> && detail::handles_io<R> &&
                   detail::end_is_well_formed<R> && detail::trouble_is_well_formed<R> &&
                   detail::deadline_is_well_formed<R> && detail::time_is_well_formed<R> &&
                   detail::bringing_is_well_formed<R> && detail::limits_are_well_formed<R>;

/// A Resource that also takes bytes.
///
/// - `WriteStatus write_atomic(std::span<const std::byte>)`: takes all of it or none of it. It
///   gathers; the runtime calls `flush()` at the end of the turn.
/// - `bool is_ready_to_write() const`: false while connecting, from the high watermark until the
///   low one, and after the end. Under Options::auto_pause a transport that is not ready while
///   `interest().write` says that bytes wait is not read.
/// - `void flush()`: one write of what was gathered, as far as the descriptor takes it; the runtime
///   then asks `handle_io(Io::write)` for what that caused (blocked, drained, connected). A failure
///   is not told before reading has met its end (invariant I5).
/// - `void close_write()`: no more bytes will come; half-close once the gathered ones are out.
/// - `std::size_t unsent() const`: bytes accepted and not taken by the kernel.
///
/// Optional powers:
/// - `WriteStatus write_borrowed(std::span<const std::byte>)`: as `write_atomic`, but the bytes
///   stay where they are until the next `flush()`: only what the kernel leaves need be copied.
/// - `WriteStatus write_shared(const Buffer&)`: as `write_atomic`, keeping the handle, not a copy.
/// - `std::size_t held() const`: the memory in which unsent bytes stand, which Options::owed_bytes
///   bounds; `unsent()` where it is left out.
template <class W>
concept Writable =
    Resource<W> && detail::writes_atomically<W> && detail::tells_readiness_to_write<W> &&
    detail::flushes<W> && detail::closes_write<W> && detail::counts_unsent<W> &&
    detail::borrowing_is_well_formed<W> && detail::sharing_is_well_formed<W>;

namespace detail {

/// Instantiated where a Resource was wanted and R is none: the first error names the clause.
template <class R>
struct ExplainResource {
    static_assert(owned_by_value<R>, "a Resource must be an object type with noexcept move "
                                     "construction: the runtime owns it by value");
    static_assert(names_event<R>, "a Resource must name a movable type Event: what it yields");
    static_assert(answers_fd<R>, "a Resource must have a public int fd() const");
    static_assert(answers_interest<R>, "a Resource must have a public Interest interest() const");
    static_assert(handles_io<R>, "a Resource must have a public std::optional<Event> "
                                 "handle_io(Io), or with a second parameter std::span<std::byte> "
                                 "scratch");
    static_assert(end_is_well_formed<R>, "the optional power of a Resource must read: "
                                         "std::optional<std::error_code> ended() const");
    static_assert(trouble_is_well_formed<R>,
                  "the optional power of a Resource must read: std::error_code trouble()");
    static_assert(deadline_is_well_formed<R>,
                  "the optional power of a Resource must read: std::optional<Timestamp> deadline() "
                  "const, with void handle_deadline()");
    static_assert(time_is_well_formed<R>,
                  "the optional power of a Resource must read: bool keeps_time() const, with void "
                  "keep_time(Timestamp, bool) and a deadline()");
    static_assert(bringing_is_well_formed<R>,
                  "the optional power of a Resource must read: bool brings_transports() const");
    static_assert(limits_are_well_formed<R>, "the optional power of a Resource must read: void "
                                             "inherit_limits(const StreamLimits&)");
    static constexpr bool explained = true;
};

/// Instantiated where a Writable was wanted and W is none.
template <class W>
struct ExplainWritable : ExplainResource<W> {
    static_assert(writes_atomically<W>, "a Writable must have a public WriteStatus "
                                        "write_atomic(std::span<const std::byte>)");
    static_assert(tells_readiness_to_write<W>,
                  "a Writable must have a public bool is_ready_to_write() const");
    static_assert(flushes<W>, "a Writable must have a public void flush()");
    static_assert(closes_write<W>, "a Writable must have a public void close_write()");
    static_assert(counts_unsent<W>, "a Writable must have a public std::size_t unsent() const");
    static_assert(borrowing_is_well_formed<W>,
                  "the optional power of a Writable must read: WriteStatus "
                  "write_borrowed(std::span<const std::byte>)");
    static_assert(sharing_is_well_formed<W>, "the optional power of a Writable must read: "
                                             "WriteStatus write_shared(const Buffer&)");
};

} // namespace detail

} // namespace reactor::inline v0
