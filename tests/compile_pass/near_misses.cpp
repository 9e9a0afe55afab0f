// SPDX-License-Identifier: Apache-2.0
//
// What is nearly a model is none: a const that is missing, another type, another order. The
// sentence that a user reads is the same for all misses of one clause; compile_fail has each.
#include "../archetypes.hpp"

#include <chrono>

using namespace archetypes;

// --- Resource ------------------------------------------------------------------------------------

struct DestructorMayThrow : NamesEvent, AnswersFd, AnswersInterest, ReadsByItself {
    DestructorMayThrow(DestructorMayThrow&&) noexcept {}
    ~DestructorMayThrow() noexcept(false) {}
};
static_assert(!Resource<DestructorMayThrow>);
static_assert(!Resource<MinimalResource&>);
static_assert(!Resource<const MinimalResource>); // it could not be moved
static_assert(!Resource<void>);
static_assert(!Resource<int>);
static_assert(!Resource<int()>);

struct EventNotMovable : Without<NamesEvent, MinimalResource> {
    struct Event {
        Event(Event&&) = delete;
    };
};
static_assert(!Resource<EventNotMovable>);

struct FdIsLong : Without<AnswersFd, MinimalResource> {
    long fd() const { return -1; }
};
static_assert(!Resource<FdIsLong>);

struct FdIsReference : Without<AnswersFd, MinimalResource> {
    const int& fd() const { return fd_; }
    int fd_ = -1;
};
static_assert(!Resource<FdIsReference>);

struct InterestNotConst : Without<AnswersInterest, MinimalResource> {
    Interest interest() { return {}; }
};
static_assert(!Resource<InterestNotConst>);

struct YieldsNothing : Without<ReadsByItself, MinimalResource> {
    void handle_io(Io) {}
};
static_assert(!Resource<YieldsNothing>);

struct YieldsAnotherEvent : Without<ReadsByItself, MinimalResource> {
    std::optional<int> handle_io(Io) { return std::nullopt; }
};
static_assert(!Resource<YieldsAnotherEvent>);

struct TakesReadiness : Without<ReadsByItself, MinimalResource> {
    std::optional<Event> handle_io(Readiness) { return std::nullopt; }
};
static_assert(!Resource<TakesReadiness>);

struct TakesPointerAndSize : Without<ReadsByItself, MinimalResource> {
    std::optional<Event> handle_io(Io, std::byte*, std::size_t) { return std::nullopt; }
};
static_assert(!Resource<TakesPointerAndSize>);

struct EndedIsBool : MinimalResource {
    bool ended() const { return false; }
};
static_assert(!Resource<EndedIsBool>);

struct EndedIsErrorCode : MinimalResource {
    std::error_code ended() const { return {}; }
};
static_assert(!Resource<EndedIsErrorCode>);

struct EndedIsData : MinimalResource {
    std::optional<std::error_code> ended;
};
static_assert(!Resource<EndedIsData>);

struct TroubleIsBool : MinimalResource {
    bool trouble() { return false; }
};
static_assert(!Resource<TroubleIsBool>);

struct DeadlineNotConst : MinimalResource {
    std::optional<Timestamp> deadline() { return std::nullopt; }
    void handle_deadline() {}
};
static_assert(!Resource<DeadlineNotConst>);

struct DeadlineIsDuration : MinimalResource {
    std::optional<Duration> deadline() const { return std::nullopt; }
    void handle_deadline() {}
};
static_assert(!Resource<DeadlineIsDuration>);

struct HandleDeadlineAlone : MinimalResource {
    void handle_deadline() {}
};
static_assert(!Resource<HandleDeadlineAlone>);

// What is private is the resource's own, whatever its name.
class KeepsToItself : public MinimalResource {
    bool ended() const { return false; }
    [[maybe_unused]] Timestamp deadline;
};
static_assert(Resource<KeepsToItself>);

// --- Writable ------------------------------------------------------------------------------------

struct AnswersBool : Without<WritesAtomically, MinimalWritable> {
    bool write_atomic(std::span<const std::byte>) { return true; }
};
static_assert(!Writable<AnswersBool>);

struct TakesMutableBytes : Without<WritesAtomically, MinimalWritable> {
    WriteStatus write_atomic(std::span<std::byte>) { return WriteStatus::full; }
};
static_assert(!Writable<TakesMutableBytes>);

struct ReadinessNotConst : Without<TellsReadinessToWrite, MinimalWritable> {
    bool is_ready_to_write() { return true; }
};
static_assert(!Writable<ReadinessNotConst>);

struct ReadinessIsStatus : Without<TellsReadinessToWrite, MinimalWritable> {
    WriteStatus is_ready_to_write() const { return WriteStatus::full; }
};
static_assert(!Writable<ReadinessIsStatus>);

struct FlushWantsBytes : Without<Flushes, MinimalWritable> {
    void flush(std::span<const std::byte>) {}
};
static_assert(!Writable<FlushWantsBytes>);

struct CloseWantsReason : Without<ClosesWrite, MinimalWritable> {
    void close_write(std::error_code) {}
};
static_assert(!Writable<CloseWantsReason>);

struct UnsentIsInt : Without<CountsUnsent, MinimalWritable> {
    int unsent() const { return 0; }
};
static_assert(!Writable<UnsentIsInt>);

struct UnsentNotConst : Without<CountsUnsent, MinimalWritable> {
    std::size_t unsent() { return 0; }
};
static_assert(!Writable<UnsentNotConst>);

// --- Poller --------------------------------------------------------------------------------------

struct WallClock : Without<NamesKernel, MinimalPoller> {
    using Kernel = std::chrono::system_clock;
};
static_assert(!Poller<WallClock>);

struct ToldTheWallTime : Without<TellsTime, MinimalPoller> {
    std::chrono::system_clock::time_point now() { return {}; }
};
static_assert(!Poller<ToldTheWallTime>);

struct WatchAnswersBool : Without<Watches, MinimalPoller> {
    bool watch(int, ResourceId, Interest) { return true; }
};
static_assert(!Poller<WatchAnswersBool>);

struct WatchesReadiness : Without<Watches, MinimalPoller> {
    std::error_code watch(int, ResourceId, Readiness) { return {}; }
};
static_assert(!Poller<WatchesReadiness>);

struct SetsInterestById : Without<SetsInterest, MinimalPoller> {
    std::error_code set_interest(ResourceId, Interest) { return {}; }
};
static_assert(!Poller<SetsInterestById>);

struct UnwatchesByFd : Without<Unwatches, MinimalPoller> {
    void unwatch(int) {}
};
static_assert(!Poller<UnwatchesByFd>);

struct WakerAnswersNothing : Without<WatchesWaker, MinimalPoller> {
    void watch_waker(int) {}
};
static_assert(!Poller<WakerAnswersNothing>);

struct WaitsForMilliseconds : Without<Waits, MinimalPoller> {
    PollResult wait(int, std::size_t) { return {}; }
};
static_assert(!Poller<WaitsForMilliseconds>);

struct WaitAnswersCount : Without<Waits, MinimalPoller> {
    std::size_t wait(Duration, std::size_t) { return 0; }
};
static_assert(!Poller<WaitAnswersCount>);

struct EventNotConst : Without<GivesEvents, MinimalPoller> {
    PollEvent event(std::size_t) { return {}; }
};
static_assert(!Poller<EventNotConst>);
static_assert(!Poller<MinimalPoller*>);

// --- Handler -------------------------------------------------------------------------------------

static_assert(!Handler<int>);
static_assert(!Handler<MinimalService&>);

struct RolesAreSwapped : Service<MinimalWritable, MinimalResource> {};
static_assert(!Handler<RolesAreSwapped>);

struct Pinned {
    Pinned(Pinned&&) = delete;
};
struct CommandNotMovable : Service<MinimalResource, MinimalWritable, Pinned> {
    void handle_listener_event(ResourceId, Event, Actions&) {}
    void handle_transport_event(ResourceId, Event, Actions&) {}
    void handle_command(const Pinned&, Actions&) {}
};
static_assert(!Handler<CommandNotMovable>);

struct ActionsOfAnother : MinimalService {
    using Actions = BasicActions<MinimalWritable, MinimalWritable>;
};
static_assert(!Handler<ActionsOfAnother>);

struct ErrorOfAnother : MinimalService {
    using Error = std::error_code;
};
static_assert(!Handler<ErrorOfAnother>);

struct ListenerEventWithoutId : MinimalService {
    void handle_listener_event(Event, Actions&) {}
};
static_assert(!Handler<ListenerEventWithoutId>);

struct ListenerEventByReference : MinimalService {
    void handle_listener_event(ResourceId, Event&, Actions&) {} // it is the service's: moved in
};
static_assert(!Handler<ListenerEventByReference>);

struct TransportEventWithTimer : MinimalService {
    void handle_transport_event(TimerId, Event, Actions&) {}
};
static_assert(!Handler<TransportEventWithTimer>);

template <class Taken>
struct Commanded : Service<MinimalResource, MinimalWritable, archetypes::Command> {
    void handle_listener_event(ResourceId, Event, Actions&) {}
    void handle_transport_event(ResourceId, Event, Actions&) {}
    void handle_command(Taken, Actions&) {}
};
static_assert(Handler<Commanded<archetypes::Command>>);
static_assert(!Handler<Commanded<int>>);
static_assert(!Handler<Commanded<archetypes::Command&>>);

struct StartTakesAValue : MinimalService {
    void handle_start(Actions) {}
};
static_assert(!Handler<StartTakesAValue>);

struct StartAnswers : MinimalService {
    int handle_start(Actions&) { return 0; }
};
static_assert(!Handler<StartAnswers>);

struct TickAnswers : MinimalService {
    Duration tick(Actions&) { return {}; }
};
static_assert(!Handler<TickAnswers>);

struct TimerIsResourceId : MinimalService {
    void handle_timer(ResourceId, Actions&) {}
};
static_assert(!Handler<TimerIsResourceId>);

struct TimerIsNumber : MinimalService {
    void handle_timer(std::uint64_t, Actions&) {}
};
static_assert(!Handler<TimerIsNumber>);

struct RegisteredInAnotherOrder : MinimalService {
    void handle_registered(Role, ResourceId, int, Actions&) {}
};
static_assert(!Handler<RegisteredInAnotherOrder>);

struct ErrorIsErrorCode : MinimalService {
    void handle_error(std::error_code, Actions&) {}
};
static_assert(!Handler<ErrorIsErrorCode>);

struct HandoverOfTheOther : MinimalService {
    void handover_listener(ResourceId, Transport, Actions&) {}
};
static_assert(!Handler<HandoverOfTheOther>);

struct DrainWithoutDeadline : MinimalService {
    void handle_drain(Actions&) {}
};
static_assert(!Handler<DrainWithoutDeadline>);

struct DrainAnswers : MinimalService {
    bool handle_drain(Timestamp, Actions&) { return true; }
};
static_assert(!Handler<DrainAnswers>);
