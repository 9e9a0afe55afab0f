// SPDX-License-Identifier: Apache-2.0
//
// Contracts: what a service may ask for, as values.
//
// Every callback is given Actions. What it asks for waits there and is performed, in order, as soon
// as the callback has returned, never while it runs. Two shortcuts cannot be told apart from that:
// when nothing waits before it, a send goes straight into the transport's gathering area; and a
// timer is set at once, as it cannot fire within the callback. Behind Actions stands the runtime,
// seen as a Desk; where none stands, in a test, they count their own ids, keep their own time, and
// simply hold what was asked, to be read back.
//
// Bounded: at Options::action_queue the answer is false, or an id that names nothing; what was
// offered is then untouched, and the runtime tells `handle_error` (actions_refused) once.
#pragma once

#include <reactor/detail/fifo.hpp>
#include <reactor/detail/gather.hpp>
#include <reactor/detail/ledger.hpp>
#include <reactor/resource.hpp>
#include <reactor/resource_id.hpp>

#include <algorithm>
#include <limits>
#include <string_view>
#include <vector>

namespace reactor::inline v0 {

/// What an Action asks for.
enum class ActionKind : std::uint8_t {
    register_listener,
    register_transport,
    unregister_listener,
    unregister_transport,
    send,
    set_timer,
    set_timer_at,
    set_interval,
    reset_timer,
    cancel_timer,
    pause,
    resume,
    close_write,
    shutdown,
    drain,
};

/// One thing that was asked for: a value, to be performed by a runtime or looked at by a test.
class Action {
  public:
    /// What is asked for; it decides which of the others have a meaning.
    [[nodiscard]] ActionKind kind() const noexcept { return kind_; }
    /// Which resource; names nothing where the action has none.
    [[nodiscard]] ResourceId id() const noexcept { return id_; }
    /// Which timer; names nothing where the action has none.
    [[nodiscard]] TimerId timer() const noexcept { return timer_; }
    /// What to send.
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return payload_.bytes(); }
    /// The same, as the handle it travels in.
    [[nodiscard]] const Buffer& payload() const noexcept { return payload_; }
    /// The span of set_timer, set_interval (the period), reset_timer or drain.
    [[nodiscard]] Duration duration() const noexcept { return duration_; }
    /// The moment of set_timer_at.
    [[nodiscard]] Timestamp deadline() const noexcept { return deadline_; }

  private:
    template <class Listener, class Transport>
    friend class BasicActions;

    explicit Action(ActionKind kind, ResourceId id = {}) noexcept : kind_(kind), id_(id) {}

    ActionKind kind_;
    ResourceId id_;
    TimerId timer_;
    Duration duration_{};
    Timestamp deadline_{};
    Buffer payload_;
};

namespace detail {

/// What stands behind Actions while a runtime runs: the part of it that may be used at once.
template <class Listener, class Transport>
class Desk {
  public:
    Desk(std::size_t gather_limit, std::size_t owed_limit)
        : gather(gather_limit), ledger(owed_limit) {}
    Desk(const Desk&) = delete;
    Desk& operator=(const Desk&) = delete;

    /// An id for what will be registered; names nothing at the limit.
    virtual ResourceId reserve(Role role) = 0;
    /// The live transport of that id, marked as touched in this turn; null if there is none.
    virtual Transport* reach(ResourceId id) = 0;
    /// A send to this one was refused for want of room: its stream has a hole, which it must hear.
    virtual void leave_hole(ResourceId id) noexcept = 0;
    virtual TimerId set_timer(Timestamp deadline, Duration interval) = 0;
    virtual bool reset_timer(TimerId timer, Timestamp deadline) noexcept = 0;
    virtual bool cancel_timer(TimerId timer) noexcept = 0;
    /// A fresh reading of the clock.
    virtual Timestamp clock() = 0;

    /// The turn's time: read when it is first asked for.
    [[nodiscard]] Timestamp turn_time() {
        if (!turn_time_known) {
            turn_time_value = clock();
            turn_time_known = true;
        }
        return turn_time_value;
    }

    /// The transport whose event is being handled, already reached; null at other times.
    Transport* current = nullptr;
    ResourceId current_id;
    Gather gather;
    Ledger ledger;
    Timestamp turn_time_value{};
    bool turn_time_known = false;

  protected:
    ~Desk() = default;
};

/// Offers bytes that live only now. What a transport borrows is kept until the flush.
template <class Transport, class Desk>
[[nodiscard]] WriteStatus offer(Transport& transport, std::span<const std::byte> bytes,
                                Desk& desk) {
    if (!desk.ledger.admits(bytes.size())) [[unlikely]] {
        return WriteStatus::full;
    }
    if constexpr (borrows<Transport>) {
        if (const auto kept = desk.gather.keep(bytes); !kept.empty()) [[likely]] {
            return transport.write_borrowed(kept);
        }
    }
    const WriteStatus status = transport.write_atomic(bytes);
    if (status == WriteStatus::accepted) {
        desk.ledger.promise(bytes.size());
    }
    return status;
}

/// Offers bytes that may be shared.
template <class Transport, class Desk>
[[nodiscard]] WriteStatus offer(Transport& transport, const Buffer& buffer, Desk& desk) {
    if constexpr (shares_buffers<Transport>) {
        constexpr std::size_t worth_sharing = 4096; // below this a copy is cheaper than a handle
        if (buffer.size() >= worth_sharing) {
            if (!desk.ledger.admits(buffer.size())) [[unlikely]] {
                return WriteStatus::full;
            }
            const WriteStatus status = transport.write_shared(buffer);
            if (status == WriteStatus::accepted) {
                desk.ledger.promise(buffer.size());
            }
            return status;
        }
    }
    return offer(transport, buffer.bytes(), desk);
}

} // namespace detail

/// What a service may ask for. Given to each callback; used within it, on the loop's thread, and
/// not kept. A test makes one of its own: `MyService::Actions actions;`.
template <class Listener, class Transport>
class BasicActions {
  public:
    /// For runtimes: what stands behind.
    using Desk = detail::Desk<Listener, Transport>;

    /// For tests of a service: no runtime stands behind; what is asked for is only held.
    BasicActions() noexcept = default;
    /// For a runtime: `limit` is how many actions may wait.
    BasicActions(Desk& desk, std::size_t limit) noexcept
        : desk_(&desk), limit_(std::max<std::size_t>(limit, 1)) {}
    BasicActions(const BasicActions&) = delete;
    BasicActions& operator=(const BasicActions&) = delete;

    /// The turn's time: one reading, the same for a whole turn.
    [[nodiscard]] Timestamp now() { return desk_ != nullptr ? desk_->turn_time() : now_; }

    /// Registers a resource. Its id is known at once; it is in the poller from `handle_registered`
    /// on. A failure gives it back through `handle_error`. At a limit: an id that names nothing,
    /// and the resource is not moved from.
    ResourceId register_listener(Listener&& listener) {
        return add(ActionKind::register_listener, Role::listener, listeners_, std::move(listener));
    }
    /// As `register_listener`. Sends to the new id may follow at once.
    ResourceId register_transport(Transport&& transport) {
        return add(ActionKind::register_transport, Role::transport, transports_,
                   std::move(transport));
    }
    /// The listener leaves through `handover_listener`, open.
    bool unregister_listener(ResourceId id) {
        return push(Action(ActionKind::unregister_listener, id));
    }
    /// The transport leaves through `handover_transport`, open; one flush is tried first.
    bool unregister_transport(ResourceId id) {
        return push(Action(ActionKind::unregister_transport, id));
    }

    /// Sends bytes, whole and in order, in one write at the end of the turn; they are copied. What
    /// cannot be sent comes back through `handle_error`. No bytes: nothing happens.
    bool send(ResourceId id, std::span<const std::byte> bytes) {
        return bytes.empty() || send_now(id, bytes) || send_later(id, bytes);
    }
    /// The same for text.
    bool send(ResourceId id, std::string_view text) { return send(id, bytes_of(text)); }
    /// The same without a copy; give each of many transports a copy of the handle, and the bytes
    /// stand in memory once. At the limit the handle is not moved from.
    bool send(ResourceId id, Buffer&& buffer) {
        return buffer.empty() || send_now(id, buffer) || send_later(id, std::move(buffer));
    }
    /// The same, sharing the block.
    bool send(ResourceId id, const Buffer& buffer) { return send(id, Buffer(buffer)); }

    /// Fires once, `span` from this call on (a fresh reading of the clock), never early.
    TimerId set_timer(Duration span) {
        Action action(ActionKind::set_timer);
        action.duration_ = span;
        return set(std::move(action), saturating_add(clock(), span), Duration::zero());
    }
    /// Fires once, at `deadline`, never early.
    TimerId set_timer_at(Timestamp deadline) {
        Action action(ActionKind::set_timer_at);
        action.deadline_ = deadline;
        return set(std::move(action), deadline, Duration::zero());
    }
    /// Fires every `period` (at least 1 ns) until cancelled. Missed periods are skipped.
    TimerId set_interval(Duration period) {
        period = std::max(period, Duration{1});
        Action action(ActionKind::set_interval);
        action.duration_ = period;
        return set(std::move(action), saturating_add(clock(), period), period);
    }
    /// Lets the timer fire `span` from this call on instead. A timer that is gone stays gone:
    /// false.
    bool reset_timer(TimerId timer, Duration span) {
        Action action(ActionKind::reset_timer);
        action.timer_ = timer;
        action.duration_ = span;
        if (desk_ == nullptr) {
            return push(std::move(action));
        }
        record(action);
        return desk_->reset_timer(timer, saturating_add(desk_->clock(), span));
    }
    /// The timer does not fire any more, not even if it is due. Gone already: false, and no harm.
    bool cancel_timer(TimerId timer) {
        Action action(ActionKind::cancel_timer);
        action.timer_ = timer;
        if (desk_ == nullptr) {
            return push(std::move(action));
        }
        record(action);
        return desk_->cancel_timer(timer);
    }

    /// Stops reading this resource (or accepting from it); the kernel keeps what comes. Where
    /// Options::actions_per_turn is used up it has to wait as any action, and is read until then.
    bool pause(ResourceId id) { return push(Action(ActionKind::pause, id)); }
    /// Reads on. The resource is asked once even if the kernel is silent.
    bool resume(ResourceId id) { return push(Action(ActionKind::resume, id)); }
    /// No more is sent: half-closes once the buffer is out. When the peer's end has been told as
    /// well, the transport leaves by itself through `handover_transport`.
    bool close_write(ResourceId id) { return push(Action(ActionKind::close_write, id)); }

    /// Ends the run now: everything leaves through `handover_*`, and nothing else is told.
    bool shutdown() { return push(Action(ActionKind::shutdown)); }
    /// Ends the run gently: listeners leave, transports finish; at `limit` the rest is forced.
    bool drain(Duration limit) {
        Action action(ActionKind::drain);
        action.duration_ = limit;
        return push(std::move(action));
    }

    // -- reading back, for tests and for whoever performs ----------------------------------------

    /// What waits to be performed, in order, as `Action` values.
    [[nodiscard]] auto begin() const noexcept { return waiting_.waiting().begin(); }
    /// Behind the last of them.
    [[nodiscard]] auto end() const noexcept { return waiting_.waiting().end(); }
    /// How many wait.
    [[nodiscard]] std::size_t size() const noexcept { return waiting_.size(); }
    /// Whether none waits.
    [[nodiscard]] bool empty() const noexcept { return waiting_.empty(); }
    /// Sets the time of Actions that no runtime stands behind.
    void set_now(Timestamp now) noexcept { now_ = now; }
    /// Takes the action that waits longest. Precondition: not empty.
    [[nodiscard]] Action take() noexcept { return waiting_.take(); }
    /// The number of the action taken last, and of the one asked for last; they count from one.
    [[nodiscard]] std::uint64_t taken() const noexcept { return waiting_.taken(); }
    /// See `taken()`.
    [[nodiscard]] std::uint64_t asked() const noexcept { return waiting_.pushed(); }
    /// Takes what the oldest `register_listener` brought. Precondition: there is one.
    [[nodiscard]] Listener take_listener() noexcept { return listeners_.take(); }
    /// Takes what the oldest `register_transport` brought. Precondition: there is one.
    [[nodiscard]] Transport take_transport() noexcept { return transports_.take(); }
    /// How many actions were refused and not asked about yet.
    [[nodiscard]] std::size_t refused() const noexcept { return refused_; }
    /// How many actions were refused since this was last asked.
    [[nodiscard]] std::size_t take_refused() noexcept { return std::exchange(refused_, 0); }
    /// Forgets everything that waits.
    void clear() noexcept {
        waiting_.clear();
        listeners_.clear();
        transports_.clear();
    }
    /// From now on every action is also copied to `log` as it is asked for (null: no more). For
    /// tracing: with a runtime behind, sends and timers do not wait here to be read back.
    void record_to(std::vector<Action>* log) noexcept { log_ = log; }

  private:
    [[nodiscard]] Timestamp clock() { return desk_ != nullptr ? desk_->clock() : now_; }

    void record(const Action& action) {
        if (log_ != nullptr) [[unlikely]] {
            log_->push_back(action);
        }
    }
    bool refuse() noexcept {
        ++refused_;
        return false;
    }
    bool push(Action&& action) {
        if (waiting_.size() >= limit_) [[unlikely]] {
            return refuse();
        }
        record(action);
        waiting_.push(std::move(action));
        return true;
    }

    template <class Resource>
    ResourceId add(ActionKind kind, Role role, detail::Fifo<Resource>& queue, Resource&& resource) {
        if (waiting_.size() >= limit_) [[unlikely]] {
            refuse();
            return {};
        }
        queue.make_room();
        waiting_.make_room();
        const ResourceId id = desk_ != nullptr ? desk_->reserve(role) : next_id(role);
        if (!id) [[unlikely]] {
            refuse();
            return {};
        }
        queue.push(std::move(resource));
        push(Action(kind, id));
        return id;
    }
    /// Ids as a runtime gives them out: even slots for transports, odd ones for listeners.
    [[nodiscard]] ResourceId next_id(Role role) noexcept {
        std::uint32_t& slot = role == Role::listener ? next_listener_ : next_transport_;
        const ResourceId id = ResourceId::of(slot, 1);
        slot += 2;
        return id;
    }

    /// Into the gathering area, if nothing waits that has to be done before.
    template <class Bytes>
    bool send_now(ResourceId id, const Bytes& bytes) {
        if (!waiting_.empty() || desk_ == nullptr) [[unlikely]] {
            return false;
        }
        Transport* const transport = id == desk_->current_id ? desk_->current : desk_->reach(id);
        if (transport == nullptr ||
            detail::offer(*transport, bytes, *desk_) != WriteStatus::accepted) [[unlikely]] {
            return false;
        }
        if (log_ != nullptr) [[unlikely]] {
            Action action(ActionKind::send, id);
            action.payload_ = Buffer(bytes);
            record(action);
        }
        return true;
    }
    template <class Bytes>
    bool send_later(ResourceId id, Bytes&& bytes) {
        if (waiting_.size() >= limit_) [[unlikely]] {
            if (desk_ != nullptr) {
                desk_->leave_hole(id);
            }
            return refuse();
        }
        Action action(ActionKind::send, id);
        action.payload_ = Buffer(std::forward<Bytes>(bytes));
        return push(std::move(action));
    }

    TimerId set(Action&& action, Timestamp deadline, Duration interval) {
        action.timer_ =
            desk_ != nullptr ? desk_->set_timer(deadline, interval) : TimerId::of(next_timer_++, 1);
        const TimerId timer = action.timer_;
        if (!timer) [[unlikely]] {
            refuse();
        } else if (desk_ != nullptr) {
            record(action);
        } else {
            push(std::move(action));
        }
        return timer;
    }

    Desk* desk_ = nullptr;
    std::size_t limit_ = std::numeric_limits<std::size_t>::max();
    std::size_t refused_ = 0;
    std::vector<Action>* log_ = nullptr;
    detail::Fifo<Action> waiting_;
    detail::Fifo<Listener> listeners_;
    detail::Fifo<Transport> transports_;
    Timestamp now_{};
    std::uint32_t next_transport_ = 0;
    std::uint32_t next_listener_ = 1;
    std::uint32_t next_timer_ = 0;
};

} // namespace reactor::inline v0
