// SPDX-License-Identifier: Apache-2.0
//
// Contracts: the demultiplexer, and the turn's clock.
//
// A Poller watches descriptors for the runtime, which calls it on the loop's thread only. It names
// the Kernel it stands on; from there the runtime takes its waker. One `wait` leaves a batch inside
// the poller, read by index until the next wait: nothing is copied, and the runtime can stop in the
// middle and go on later. Pollers differ only in cost (invariant I19): level-triggered, an id given
// back as it was given, readiness never invented but for hang-ups and errors.
//
// The road not taken: one `poll(callback)`; a batch that can be resumed survives a throw.
#pragma once

#include <reactor/io.hpp>
#include <reactor/options.hpp>
#include <reactor/resource_id.hpp>
#include <reactor/time.hpp>

#include <concepts>
#include <cstddef>
#include <system_error>

namespace reactor::inline v0 {

/// One report of a wait: who, and what the kernel said.
struct PollEvent {
    ResourceId id;       ///< as it was given to watch()
    Readiness readiness; ///< as the kernel said

    /// The same report of the same resource.
    friend constexpr bool operator==(const PollEvent&, const PollEvent&) noexcept = default;
};

/// What a wait answered.
struct PollResult {
    /// Reports in the batch.
    std::size_t count = 0;
    /// Why the wait failed; zero if it did not.
    std::error_code error;
};

namespace detail {

template <class P>
concept names_kernel = requires {
    typename P::Kernel;
    { P::Kernel::now() } -> std::same_as<Timestamp>;
};
template <class P>
concept tells_time = requires(P& p) {
    { p.now() } -> std::same_as<Timestamp>;
};
template <class P>
concept watches = requires(P& p, int fd, ResourceId id, Interest interest) {
    { p.watch(fd, id, interest) } -> std::same_as<std::error_code>;
};
template <class P>
concept sets_interest = requires(P& p, int fd, ResourceId id, Interest interest) {
    { p.set_interest(fd, id, interest) } -> std::same_as<std::error_code>;
};
template <class P>
concept unwatches = requires(P& p, int fd, ResourceId id) { p.unwatch(fd, id); };
template <class P>
concept watches_waker = requires(P& p, int fd) {
    { p.watch_waker(fd) } -> std::same_as<std::error_code>;
};
template <class P>
concept waits = requires(P& p, Duration timeout, std::size_t most) {
    { p.wait(timeout, most) } -> std::same_as<PollResult>;
};
template <class P>
concept gives_events = requires(const P& p, std::size_t index) {
    { p.event(index) } -> std::same_as<PollEvent>;
};
template <class P>
concept can_be_nested = requires(const P& p) {
    { p.fd() } -> std::same_as<int>;
};
template <class P>
concept tells_that_it_never_waits = requires(const P& p) {
    { p.never_waits() } -> std::same_as<bool>;
};
template <class P>
concept can_start_afresh = requires(P& p) {
    { p.start_afresh() } -> std::same_as<std::error_code>;
};
template <class P>
concept nesting_is_well_formed = can_be_nested<P> || !requires { &P::fd; };
template <class P>
concept never_waiting_is_well_formed =
    tells_that_it_never_waits<P> || !requires { &P::never_waits; };
template <class P>
concept afresh_is_well_formed =
    can_start_afresh<P> || !requires { &P::start_afresh; };

} // namespace detail

/// The demultiplexer of a runtime.
///
/// - `typename P::Kernel`: what its system calls go through, and the runtime's: that one takes
///   `process_id`, `sleep`, `close`, `set_non_blocking`, `event_fd` and `ring` (see os::Kernel).
/// - `Timestamp now()`: a fresh reading of the monotonic clock.
/// - `std::error_code watch(int fd, ResourceId, Interest)`: from now on the descriptor's readiness
///   is reported under that id. The interest is not empty. EEXIST if it is watched already. On an
///   error nothing has changed. Regular files count as always ready.
/// - `std::error_code set_interest(int fd, ResourceId, Interest)`: another interest, not empty.
/// - `void unwatch(int fd, ResourceId)`: no report of that id comes from a later wait. Called
///   before the descriptor is closed; must bear that somebody closed it before.
/// - `std::error_code watch_waker(int fd)`: an eventfd(2) that ends the wait when it is rung, and
///   is not reported. Called once, first.
/// - `PollResult wait(Duration timeout, std::size_t most)`: waits until something is ready, the
///   waker rings, or the timeout has passed: rounded up, never early; a signal may end it early;
///   zero does not wait, Duration::max() waits without end. At most `most` reports.
/// - `PollEvent event(std::size_t index) const`: report `index` of the last batch.
///
/// Optional powers:
/// - `int fd() const`: readable when a wait would not block; lets a runtime live in another loop.
/// - `bool never_waits() const`: the next wait returns at once although nothing shows at `fd()`.
/// - `std::error_code start_afresh()`: forgets every registration but the waker's, even those that
///   cannot be named any more; the runtime watches everything again (see BasicEpollPoller).
template <class P>
concept Poller = std::move_constructible<P> && detail::names_kernel<P> && detail::tells_time<P> &&
                 detail::watches<P> && detail::sets_interest<P> && detail::unwatches<P> &&
                 detail::watches_waker<P> &&
                 detail::waits<P> && detail::gives_events<P> &&
                 detail::nesting_is_well_formed<P> && detail::never_waiting_is_well_formed<P> &&
                 detail::afresh_is_well_formed<P>;

namespace detail {

/// Instantiated where a Poller was wanted and P is none: the first error names the clause.
template <class P>
struct ExplainPoller {
    static_assert(std::move_constructible<P>,
                  "a Poller must be movable: the runtime owns it by value");
    static_assert(names_kernel<P>, "a Poller must name its Kernel, with: static Timestamp now()");
    static_assert(tells_time<P>, "a Poller must have a public Timestamp now()");
    static_assert(watches<P>, "a Poller must have a public std::error_code watch(int fd, "
                              "ResourceId, Interest)");
    static_assert(sets_interest<P>, "a Poller must have a public std::error_code set_interest(int "
                                    "fd, ResourceId, Interest)");
    static_assert(unwatches<P>, "a Poller must have a public void unwatch(int fd, ResourceId)");
    static_assert(watches_waker<P>,
                  "a Poller must have a public std::error_code watch_waker(int fd)");
    static_assert(waits<P>, "a Poller must have a public PollResult wait(Duration timeout, "
                            "std::size_t most)");
    static_assert(gives_events<P>,
                  "a Poller must have a public PollEvent event(std::size_t index) const");
    static_assert(nesting_is_well_formed<P>,
                  "the optional power of a Poller must read: int fd() const");
    static_assert(never_waiting_is_well_formed<P>,
                  "the optional power of a Poller must read: bool never_waits() const");
    static_assert(afresh_is_well_formed<P>, "the optional power of a Poller must read: "
                                            "std::error_code start_afresh()");
    static constexpr bool explained = true;
};

} // namespace detail

} // namespace reactor::inline v0
