// SPDX-License-Identifier: Apache-2.0
//
// Archetypes: types that satisfy a concept of the library and nothing more. What compiles with them
// compiles with every model. Each is put together from parts, one a clause, so that it can also be
// built with one part left out, which must not satisfy the concept.
//
// All of them can be moved and destroyed. They cannot be copied, assigned, compared, made from
// nothing, or have their address taken with `&`: no concept asks for that.
#pragma once

#include <reactor/handler.hpp>
#include <reactor/os/kernel.hpp>
#include <reactor/poller.hpp>

#include <cstddef>
#include <optional>
#include <span>
#include <system_error>
#include <type_traits>

namespace archetypes {

using namespace reactor;

/// Can be moved from place to place, and no more.
struct Movable {
    explicit Movable(int) noexcept {}
    Movable(Movable&&) noexcept {}
    Movable& operator=(Movable&&) = delete;
    ~Movable() noexcept {}
    void operator&() const = delete;
};

/// The same, where the concept does not ask for a move that never throws.
struct ThrowingMovable {
    explicit ThrowingMovable(int) noexcept {}
    ThrowingMovable(ThrowingMovable&&) noexcept(false) {}
    ThrowingMovable& operator=(ThrowingMovable&&) = delete;
    void operator&() const = delete;
};

/// A type made of these parts.
template <class... Parts>
struct Made : Movable, Parts... {
    using Movable::Movable;
};

/// The same type, that can also be made from nothing.
template <class T>
struct FromNothing : T {
    FromNothing() : T(0) {}
};

/// Stands where a part was left out.
template <class Part>
struct Absent {};

template <class Gone, class Model>
struct Remake;
template <class Gone, class... Parts>
struct Remake<Gone, Made<Parts...>> {
    using Type = Made<std::conditional_t<std::is_same_v<Gone, Parts>, Absent<Parts>, Parts>...>;
};

/// The model with one of its parts left out.
template <class Gone, class Model>
using Without = typename Remake<Gone, Model>::Type;

/// Whether it is a model, and a model no more when any one of its parts is left out.
template <template <class> class IsModel, class Model>
constexpr bool each_part_is_needed = false;
template <template <class> class IsModel, class... Parts>
constexpr bool each_part_is_needed<IsModel, Made<Parts...>> =
    IsModel<Made<Parts...>>::value && (!IsModel<Without<Parts, Made<Parts...>>>::value && ...);

// --- Resource ------------------------------------------------------------------------------------

struct Event : ThrowingMovable {
    using ThrowingMovable::ThrowingMovable;
};

struct NamesEvent {
    using Event = archetypes::Event;
};
struct AnswersFd {
    int fd() const { return -1; }
};
struct AnswersInterest {
    Interest interest() const { return {}; }
};
struct ReadsByItself {
    std::optional<Event> handle_io(Io) { return std::nullopt; }
};
struct ReadsIntoScratch {
    std::optional<Event> handle_io(Io, std::span<std::byte>) { return std::nullopt; }
};

// The optional powers of a Resource.
struct TellsEnd {
    std::optional<std::error_code> ended() const { return std::nullopt; }
};
struct TellsTrouble {
    std::error_code trouble() { return {}; }
};
struct HasDeadline {
    std::optional<Timestamp> deadline() const { return std::nullopt; }
    void handle_deadline() {}
};
struct TakesStreamLimits {
    void inherit_limits(const StreamLimits&) {}
};
struct BornNonBlocking {
    static constexpr bool born_non_blocking = true;
};

/// A Resource with these powers besides.
template <class... Powers>
using ResourceWith = Made<NamesEvent, AnswersFd, AnswersInterest, ReadsByItself, Powers...>;
using MinimalResource = ResourceWith<>;
using ScratchResource = Made<NamesEvent, AnswersFd, AnswersInterest, ReadsIntoScratch>;

template <class R>
struct IsResource : std::bool_constant<Resource<R>> {};

static_assert(each_part_is_needed<IsResource, MinimalResource>);
static_assert(each_part_is_needed<IsResource, ScratchResource>);
static_assert(!Writable<MinimalResource>);

// No power comes unasked.
static_assert(!detail::reads_into_scratch<MinimalResource>);
static_assert(!detail::reads_by_itself<ScratchResource>);
static_assert(!detail::tells_end<MinimalResource>);
static_assert(!detail::tells_trouble<MinimalResource>);
static_assert(!detail::has_deadline<MinimalResource>);
static_assert(!detail::takes_stream_limits<MinimalResource>);
static_assert(!detail::born_non_blocking<MinimalResource>);

// Each power is seen, alone.
static_assert(Resource<ResourceWith<TellsEnd>> && detail::tells_end<ResourceWith<TellsEnd>>);
static_assert(Resource<ResourceWith<TellsTrouble>> &&
              detail::tells_trouble<ResourceWith<TellsTrouble>>);
static_assert(Resource<ResourceWith<HasDeadline>> &&
              detail::has_deadline<ResourceWith<HasDeadline>>);
static_assert(Resource<ResourceWith<TakesStreamLimits>> &&
              detail::takes_stream_limits<ResourceWith<TakesStreamLimits>>);
static_assert(Resource<ResourceWith<BornNonBlocking>> &&
              detail::born_non_blocking<ResourceWith<BornNonBlocking>>);

// --- Writable ------------------------------------------------------------------------------------

struct WritesAtomically {
    WriteStatus write_atomic(std::span<const std::byte>) { return WriteStatus::ended; }
};
struct TellsReadinessToWrite {
    bool is_ready_to_write() const { return false; }
};
struct Flushes {
    void flush() {}
};
struct ClosesWrite {
    void close_write() {}
};
struct CountsUnsent {
    std::size_t unsent() const { return 0; }
};

// The optional powers of a Writable.
struct Borrows {
    WriteStatus write_borrowed(std::span<const std::byte>) { return WriteStatus::ended; }
};
struct SharesBuffers {
    WriteStatus write_shared(const Buffer&) { return WriteStatus::ended; }
};

/// A Writable with these powers besides.
template <class... Powers>
using WritableWith = ResourceWith<WritesAtomically, TellsReadinessToWrite, Flushes, ClosesWrite,
                                  CountsUnsent, Powers...>;
using MinimalWritable = WritableWith<>;
using ScratchWritable =
    Made<NamesEvent, AnswersFd, AnswersInterest, ReadsIntoScratch, WritesAtomically,
         TellsReadinessToWrite, Flushes, ClosesWrite, CountsUnsent>;

template <class W>
struct IsWritable : std::bool_constant<Writable<W>> {};

static_assert(each_part_is_needed<IsWritable, MinimalWritable>);
static_assert(Writable<ScratchWritable>);
static_assert(!detail::borrows<MinimalWritable> && !detail::shares_buffers<MinimalWritable>);
static_assert(Writable<WritableWith<Borrows>> && detail::borrows<WritableWith<Borrows>>);
static_assert(Writable<WritableWith<SharesBuffers>> &&
              detail::shares_buffers<WritableWith<SharesBuffers>>);

// --- Poller --------------------------------------------------------------------------------------

/// What the concept Poller asks of a Kernel.
struct MinimalKernel {
    static Timestamp now() { return {}; }
};

struct NamesMinimalKernel {
    using Kernel = MinimalKernel;
};

/// What a Runtime takes from its Poller's Kernel: the waker, the owner's process, and so on.
struct RuntimeKernel : MinimalKernel {
    static int process_id() { return 1; }
    static void sleep(Duration) {}
    static void close(int) noexcept {}
    static os::Result set_non_blocking(int) { return {}; }
    static os::Result event_fd() { return {}; }
    static void ring(int) noexcept {}
};

struct NamesKernel {
    using Kernel = RuntimeKernel;
};
struct TellsTime {
    Timestamp now() { return {}; }
};
struct Watches {
    std::error_code watch(int, ResourceId, Interest) { return {}; }
};
struct SetsInterest {
    std::error_code set_interest(int, ResourceId, Interest) { return {}; }
};
struct Unwatches {
    void unwatch(int, ResourceId) {}
};
struct WatchesWaker {
    std::error_code watch_waker(int) { return {}; }
};
struct Waits {
    PollResult wait(Duration, std::size_t) { return {}; }
};
struct GivesEvents {
    PollEvent event(std::size_t) const { return {}; }
};

// The optional powers of a Poller.
struct CanBeNested {
    int fd() const { return -1; }
};
struct TellsThatItNeverWaits {
    bool never_waits() const { return false; }
};
struct CanStartAfresh {
    std::error_code start_afresh() { return {}; }
};

/// A Poller for a Runtime, with these powers besides.
template <class... Powers>
using PollerWith = Made<NamesKernel, TellsTime, Watches, SetsInterest, Unwatches, WatchesWaker,
                        Waits, GivesEvents, Powers...>;
using MinimalPoller = PollerWith<>;

template <class P>
struct IsPoller : std::bool_constant<Poller<P>> {};

static_assert(each_part_is_needed<IsPoller, MinimalPoller>);
static_assert(Poller<Made<NamesMinimalKernel, TellsTime, Watches, SetsInterest, Unwatches,
                          WatchesWaker, Waits, GivesEvents>>);
static_assert(!detail::can_be_nested<MinimalPoller> && !detail::can_start_afresh<MinimalPoller>);
static_assert(Poller<PollerWith<CanBeNested>> && detail::can_be_nested<PollerWith<CanBeNested>>);
static_assert(!detail::tells_that_it_never_waits<MinimalPoller>);
static_assert(Poller<PollerWith<TellsThatItNeverWaits>> &&
              detail::tells_that_it_never_waits<PollerWith<TellsThatItNeverWaits>>);
static_assert(Poller<PollerWith<CanStartAfresh>> &&
              detail::can_start_afresh<PollerWith<CanStartAfresh>>);

// --- Handler -------------------------------------------------------------------------------------
// Put together from its callbacks, not derived from Service: that is a convenience.

struct Command : Movable {
    using Movable::Movable;
};

template <class L>
struct NamesListener {
    using Listener = L;
};
template <class T>
struct NamesTransport {
    using Transport = T;
};
struct NamesNoCommand {
    using Command = NoCommand;
};
struct NamesCommand {
    using Command = archetypes::Command;
};
template <class L, class T>
struct NamesActions {
    using Actions = BasicActions<L, T>;
};
template <class L, class T>
struct NamesError {
    using Error = BasicError<L, T>;
};

template <class L, class T>
struct HandlesStart {
    void handle_start(BasicActions<L, T>&) {}
};
template <class L, class T>
struct Ticks {
    void tick(BasicActions<L, T>&) {}
};
template <class L, class T>
struct HandlesTimer {
    void handle_timer(TimerId, BasicActions<L, T>&) {}
};
template <class L, class T>
struct HandlesListenerEvent {
    void handle_listener_event(ResourceId, typename L::Event, BasicActions<L, T>&) {}
};
template <class L, class T>
struct HandlesTransportEvent {
    void handle_transport_event(ResourceId, typename T::Event, BasicActions<L, T>&) {}
};
template <class L, class T>
struct HandlesRegistered {
    void handle_registered(ResourceId, Role, int, BasicActions<L, T>&) {}
};
template <class L, class T>
struct HandlesError {
    void handle_error(BasicError<L, T>, BasicActions<L, T>&) {}
};
template <class L, class T>
struct HandsOverListener {
    void handover_listener(ResourceId, L, BasicActions<L, T>&) {}
};
template <class L, class T>
struct HandsOverTransport {
    void handover_transport(ResourceId, T, BasicActions<L, T>&) {}
};
template <class L, class T>
struct HandlesCommand {
    void handle_command(Command, BasicActions<L, T>&) {}
};
template <class L, class T>
struct HandlesDrain {
    void handle_drain(Timestamp, BasicActions<L, T>&) {}
};

/// A Handler of these resources that takes no command, with more parts.
template <class L, class T, class... More>
using HandlerOf =
    Made<NamesListener<L>, NamesTransport<T>, NamesNoCommand, NamesActions<L, T>, NamesError<L, T>,
         HandlesStart<L, T>, Ticks<L, T>, HandlesTimer<L, T>, HandlesListenerEvent<L, T>,
         HandlesTransportEvent<L, T>, HandlesRegistered<L, T>, HandlesError<L, T>,
         HandsOverListener<L, T>, HandsOverTransport<L, T>, More...>;
using MinimalHandler = HandlerOf<MinimalResource, MinimalWritable>;

/// The same, with a Command.
template <class L, class T, class... More>
using CommandedHandlerOf =
    Made<NamesListener<L>, NamesTransport<T>, NamesCommand, NamesActions<L, T>, NamesError<L, T>,
         HandlesStart<L, T>, Ticks<L, T>, HandlesTimer<L, T>, HandlesListenerEvent<L, T>,
         HandlesTransportEvent<L, T>, HandlesCommand<L, T>, HandlesRegistered<L, T>,
         HandlesError<L, T>, HandsOverListener<L, T>, HandsOverTransport<L, T>, More...>;
using CommandedHandler = CommandedHandlerOf<MinimalResource, MinimalWritable>;

template <class S>
struct IsHandler : std::bool_constant<Handler<S>> {};

static_assert(each_part_is_needed<IsHandler, MinimalHandler>);
static_assert(each_part_is_needed<IsHandler, CommandedHandler>);
static_assert(!detail::answers_drain<MinimalHandler>);
static_assert(
    Handler<HandlerOf<MinimalResource, MinimalWritable,
                      HandlesDrain<MinimalResource, MinimalWritable>>>);

/// The least that is written with Service as the base.
struct MinimalService : Service<MinimalResource, MinimalWritable> {
    void handle_listener_event(ResourceId, Event, Actions&) {}
    void handle_transport_event(ResourceId, Event, Actions&) {}
};

static_assert(Handler<MinimalService>);

} // namespace archetypes
