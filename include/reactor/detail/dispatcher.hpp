// SPDX-License-Identifier: Apache-2.0
//
// Story, behind the scenes: between the holdings and the service.
//
// The Dispatcher turns readiness into events, calls the service back, and performs what it asks
// for. A callback's actions are performed as soon as it has returned; what performing causes is
// told at once, and the actions asked for there go to the back of the same queue: nothing nests. An
// action has left the queue, and a report its batch, before user code sees it, so a throw loses
// nothing else. After each callback the slot's id is compared: then, and only then, the resource is
// there. Cold paths are kept out of line, so that the path of a byte is short.
#pragma once

#include <reactor/detail/guards.hpp>
#include <reactor/detail/holdings.hpp>
#include <reactor/detail/shedding.hpp>
#include <reactor/handler.hpp>

#include <utility>

namespace reactor::inline v0 {
namespace detail {

template <class S, class P>
class Dispatcher {
  public:
    using Listener = typename S::Listener;
    using Transport = typename S::Transport;
    using Actions = typename S::Actions;
    using Error = typename S::Error;
    using Own = Holdings<Listener, Transport, P>;

    Dispatcher(S&& with, const Options& limits, P&& poller)
        : own(limits, std::move(poller)),
          actions(own, limits.action_queue),
          service(std::move(with)),
          options(usable(limits)),
          scratch_(new std::byte[options.read_buffer]) {}

    // -- calling the service ----------------------------------------------------------------------

    /// Calls back, then performs what was asked for.
    template <class Callback>
    void call(Callback&& callback) {
        callback();
        if (!actions.empty()) {
            perform_waiting();
        }
    }
    [[gnu::cold]] void tell(Error&& error) {
        call([&] { service.handle_error(std::move(error), actions); });
    }

    /// Performs what waits, within the turn's budget; the next turn begins with the rest. Called
    /// from within itself it does nothing: the outer one goes on with what came.
    [[gnu::noinline]] void perform_waiting() {
        if (performing_) {
            return;
        }
        const Flag performing(performing_);
        tell_shed(); // a throw may have left some
        while (!actions.empty() && !stopping && performed_ < options.actions_per_turn) {
            ++performed_;
            perform(actions.take());
            tell_shed();
        }
    }

    /// Tells who has left to make room.
    void tell_shed() {
        while (!ashore_.empty()) [[unlikely]] {
            tell(ashore_.take());
        }
    }
    [[nodiscard]] bool has_shed() const noexcept { return !ashore_.empty(); }

    /// A new turn: new budgets, and nothing is under way, even if the last turn was thrown out of.
    void begin_turn() noexcept {
        ++own.turn;
        performed_ = 0;
        own.current = nullptr;
        own.current_id = {};
        own.turn_time_known = false;
    }

    // -- readiness --------------------------------------------------------------------------------

    /// Gives a resource its turn. False: nothing of that id is here.
    bool serve(ResourceId id, Readiness readiness) {
        if (role_of(id) == Role::listener) {
            return serve(own.listeners, id, readiness);
        }
        return serve(own.transports, id, readiness);
    }
    /// Gives those their turn that had more to yield than their budget, or whom nobody reports.
    void serve_left_over() {
        for (std::size_t n = own.left_over.size(); n > 0 && !stopping; --n) {
            with_any(own.left_over.take(),
                     [&](auto& registry, auto& slot) { serve_left_over(registry, slot); });
        }
    }
    /// What the turn ends with for who was touched: one write, what that caused, the new interest.
    /// One pass; who is touched by that has the next turn, which is at once.
    template <class R, Role role>
    void finish_turn(Registry<R, role>& registry) {
        const auto* const last = registry.last_touched();
        bool goes_on = true;
        while (goes_on && !stopping) {
            Slot<R, role>& slot = registry.take_touched();
            goes_on = &slot != last;
            if (slot.live) [[likely]] {
                Unfinished<R, role> unfinished(registry, slot);
                finish_turn_of(registry, slot);
                unfinished.finished = true;
            }
        }
        own.restless |= registry.any_touched();
    }
    /// A resource's lazy timer rang.
    void fire_deadline(ResourceId id) {
        --own.lazy_timers;
        with_any(id, [&](auto& registry, auto& slot) { fire_deadline(registry, slot); });
    }

    // -- coming and going -------------------------------------------------------------------------

    /// Registers what came from another thread.
    template <class R, Role role>
    void register_sent(Registry<R, role>& registry, R&& resource) {
        if (const ResourceId id = registry.reserve()) {
            register_now(registry, id, std::move(resource));
        } else {
            turn_away(registry, id, std::move(resource), std::errc::no_buffer_space);
        }
    }
    /// Gives back a resource that is not registered.
    template <class R, Role role>
    [[gnu::cold]] void turn_away(Registry<R, role>& registry, ResourceId id, R&& resource,
                                     std::error_code code) {
        Error error(ErrorKind::registration_failed, id, code);
        put(registry, error, std::move(resource));
        tell(std::move(error));
    }
    template <class R, Role role>
    void turn_away(Registry<R, role>& registry, ResourceId id, R&& resource, std::errc code) {
        turn_away(registry, id, std::move(resource), std::make_error_code(code));
    }

    /// The resource leaves as the service asked, or as the end wants it; one flush is tried.
    template <class R, Role role>
    [[gnu::cold]] void hand_over(Registry<R, role>& registry, Slot<R, role>& slot) {
        const ResourceId id = slot.id;
        if constexpr (role == Role::transport) {
            slot.resource.flush();
            R resource = own.take_out(registry, slot);
            count_unsent(resource.unsent());
            call([&] { service.handover_transport(id, std::move(resource), actions); });
        } else {
            R resource = own.take_out(registry, slot);
            call([&] { service.handover_listener(id, std::move(resource), actions); });
        }
    }

    /// No more is sent to this peer; the transport leaves when it has nothing more to say either.
    void close_write(Slot<Transport, Role::transport>& slot) {
        slot.closing = true;
        slot.resource.close_write();
        own.transports.touch(slot);
    }

    /// A send was refused for want of room: its transport hears of it. So does the service, of
    /// whatever was refused, once a turn.
    [[gnu::cold]] void tell_refusals() {
        if (actions.take_refused() != 0 && !stopping) {
            tell(Error(ErrorKind::actions_refused, {},
                       std::make_error_code(std::errc::no_buffer_space)));
        }
        std::size_t index = 0;
        while (own.holes != 0 && !stopping) {
            auto* const slot = own.transports.next(index);
            if (slot == nullptr) {
                return;
            }
            if (slot->hole) {
                slot->hole = false;
                slot->returns_until = actions.asked();
                --own.holes;
                tell(Error(ErrorKind::send_returned, slot->id,
                           std::make_error_code(std::errc::no_buffer_space)));
            }
        }
    }

    Own own;
    Actions actions;
    S service;
    Options options;
    /// Bytes that left the reactor unsent since its end began.
    std::size_t unsent_bytes = 0;
    /// The service asked for the end: nothing more is served or performed.
    bool stopping = false;
    /// A drain is on: no listener comes in any more.
    bool draining = false;
    /// The service asked for a drain within this.
    std::optional<Duration> drain_asked;

  private:
    /// A zero is read as one where nothing at all would get on.
    [[nodiscard]] static Options usable(Options limits) noexcept {
        for (std::size_t* const limit :
             {&limits.events_per_wait, &limits.events_per_resource, &limits.bytes_per_resource,
              &limits.accepts_per_turn, &limits.commands_per_turn, &limits.timers_per_turn,
              &limits.actions_per_turn, &limits.command_queue, &limits.read_buffer}) {
            *limit = std::max<std::size_t>(*limit, 1);
        }
        return limits;
    }
    template <class R, Role role>
    static void put(Registry<R, role>&, Error& error, R&& resource) noexcept {
        if constexpr (role == Role::transport) {
            error.put_transport(std::move(resource));
        } else {
            error.put_listener(std::move(resource));
        }
    }
    template <class Act>
    bool with_any(ResourceId id, Act&& act) {
        if (role_of(id) == Role::listener) {
            if (auto* const slot = own.listeners.find(id)) {
                act(own.listeners, *slot);
                return true;
            }
        } else if (auto* const slot = own.transports.find(id)) {
            act(own.transports, *slot);
            return true;
        }
        return false;
    }

    void count_unsent(std::size_t bytes) noexcept {
        if (draining || stopping) {
            unsent_bytes += bytes;
        }
    }

    // -- performing -------------------------------------------------------------------------------

    void perform(Action&& action) {
        const ResourceId id = action.id();
        switch (action.kind()) {
        case ActionKind::register_listener:
            return register_now(own.listeners, id, actions.take_listener());
        case ActionKind::register_transport:
            return register_now(own.transports, id, actions.take_transport());
        case ActionKind::unregister_listener:
            return on(own.listeners, id, [&](auto& slot) { hand_over(own.listeners, slot); });
        case ActionKind::unregister_transport:
            return on(own.transports, id, [&](auto& slot) { hand_over(own.transports, slot); });
        case ActionKind::send:
            return perform_send(action);
        case ActionKind::pause:
        case ActionKind::resume:
            return pause(id, action.kind() == ActionKind::pause);
        case ActionKind::close_write:
            return on(own.transports, id, [&](auto& slot) { close_write(slot); });
        case ActionKind::shutdown:
            stopping = own.restless = true;
            return;
        case ActionKind::drain:
            own.restless = true;
            drain_asked = std::min(drain_asked.value_or(Duration::max()), action.duration());
            return;
        case ActionKind::set_timer: // timers are set at once, see BasicActions
        case ActionKind::set_timer_at:
        case ActionKind::set_interval:
        case ActionKind::reset_timer:
        case ActionKind::cancel_timer:
            return;
        }
    }
    template <class R, Role role, class Act>
    void on(Registry<R, role>& registry, ResourceId id, Act&& act) {
        if (auto* const slot = role_of(id) == role ? registry.find(id) : nullptr) {
            act(*slot);
        } else {
            tell_unknown(id);
        }
    }
    [[gnu::cold]] void tell_unknown(ResourceId id) {
        tell(unknown(id));
    }
    [[nodiscard]] static Error unknown(ResourceId id) {
        return Error(ErrorKind::unknown_id, id,
                     std::make_error_code(std::errc::no_such_device_or_address));
    }
    void perform_send(const Action& action) {
        const ResourceId id = action.id();
        Slot<Transport, Role::transport>* const slot =
            role_of(id) == Role::transport ? own.transports.find(id) : nullptr;
        if (slot == nullptr) {
            Error error = unknown(id);
            error.put_payload(action.payload());
            return tell(std::move(error));
        }
        if (const WriteStatus status = offer(*slot, action); status != WriteStatus::accepted) {
            return_send(id, *slot, action, status);
        }
    }
    /// Behind a send that came back, what was asked for before the service knew comes back too.
    WriteStatus offer(Slot<Transport, Role::transport>& slot, const Action& action) {
        if (slot.hole || actions.taken() <= slot.returns_until) [[unlikely]] {
            return WriteStatus::full;
        }
        own.transports.touch(slot);
        WriteStatus status = detail::offer(slot.resource, action.payload(), own);
        if (status == WriteStatus::full) {
            slot.resource.flush();
            const ResourceId id = slot.id;
            if (!own.ledger.admits(action.bytes().size())) {
                make_room(action.bytes().size());
            }
            status = slot.id == id ? detail::offer(slot.resource, action.payload(), own)
                                   : WriteStatus::ended;
        }
        return status;
    }
    /// All transports together owe too much: first what the kernel takes, then as Options say.
    [[gnu::cold]] void make_room(std::size_t bytes) {
        own.transports.each_touched([&](auto& slot) {
            slot.resource.flush();
            own.count_owed(slot);
        });
        own.ledger.settle();
        const std::ptrdiff_t limit = own.ledger.limit();
        if (options.shedding == Shedding::give_back || bytes > static_cast<std::size_t>(limit)) {
            return;
        }
        // More than this send needs, or each one would look through all of them.
        const std::ptrdiff_t wanted =
            std::min(static_cast<std::ptrdiff_t>(bytes) + limit / 8, limit);
        bool found = true;
        while (found && own.ledger.room() < wanted && !stopping) {
            found = shed(wanted);
        }
    }
    /// Ends some of those that weigh most, until there is room. False: nobody owes anything.
    bool shed(std::ptrdiff_t wanted) {
        const auto heaviest = find_heaviest(own.transports, options.shedding, own.turn);
        for (const Weighed& each : heaviest) {
            auto* const slot = each.weight == 0 ? nullptr : own.transports.find(each.id);
            if (slot != nullptr && own.ledger.room() < wanted) {
                put_ashore(*slot);
            }
        }
        return heaviest[0].weight != 0;
    }
    /// The service hears of it when the send that wanted room has been decided on: what it throws
    /// then can lose nothing.
    void put_ashore(Slot<Transport, Role::transport>& slot) {
        ashore_.make_room();
        Error error(ErrorKind::shed, slot.id, std::make_error_code(std::errc::no_buffer_space));
        slot.resource.flush();
        count_unsent(slot.resource.unsent());
        error.put_unsent(slot.resource.unsent());
        error.put_transport(own.take_out(own.transports, slot));
        ashore_.push(std::move(error));
    }
    [[gnu::cold]] void return_send(ResourceId id, Slot<Transport, Role::transport>& slot,
                                   const Action& action, WriteStatus status) {
        if (slot.id != id) { // it had to make room
            Error error = unknown(id);
            error.put_payload(action.payload());
            return tell(std::move(error));
        }
        if (status == WriteStatus::ended) {
            slot.returns_until = 0; // what follows meets the same end
        } else if (actions.taken() > slot.returns_until) {
            slot.returns_until = actions.asked();
        }
        Error error(ErrorKind::send_returned, id, std::make_error_code(cause_of(status)));
        error.put_payload(action.payload());
        tell(std::move(error));
    }
    [[nodiscard]] static std::errc cause_of(WriteStatus status) noexcept {
        switch (status) {
        case WriteStatus::full:
            return std::errc::no_buffer_space;
        case WriteStatus::not_ready:
            return std::errc::resource_unavailable_try_again;
        case WriteStatus::accepted:
        case WriteStatus::ended:
            break;
        }
        return std::errc::broken_pipe;
    }
    void pause(ResourceId id, bool paused) {
        const bool found = with_any(id, [&](auto& registry, auto& slot) {
            slot.paused = paused;
            registry.touch(slot);
            if (!paused) {
                own.leave_over(slot);
            }
        });
        if (!found) {
            tell_unknown(id);
        }
    }
    template <class R, Role role>
    void register_now(Registry<R, role>& registry, ResourceId id, R&& resource) {
        if (role == Role::listener && draining) {
            registry.cancel(id);
            return turn_away(registry, id, std::move(resource), std::errc::operation_canceled);
        }
        const int fd = resource.fd();
        if (const std::error_code error = own.admit(registry, id, resource)) {
            return turn_away(registry, id, std::move(resource), error);
        }
        if constexpr (role == Role::transport && !answers_drain<S>) {
            if (draining) {
                close_write(*registry.find(id)); // as those that were here when it began
            }
        }
        call([&] { service.handle_registered(id, role, fd, actions); });
    }

    // -- serving ----------------------------------------------------------------------------------

    template <class R, Role role>
    void serve_left_over(Registry<R, role>& registry, Slot<R, role>& slot) {
        if (!slot.left_over) {
            return; // it had its share since
        }
        if (slot.served == own.turn) { // and still has more
            slot.left_over = false;
            return own.leave_over(slot);
        }
        slot.left_over = false;
        serve(registry, slot.id, Readiness{true, true, false, false});
    }

    template <class R, Role role>
    bool serve(Registry<R, role>& registry, ResourceId id, Readiness readiness) {
        auto* const slot = registry.find(id);
        if (slot == nullptr) [[unlikely]] {
            return false;
        }
        slot->served = own.turn;
        registry.touch(*slot);
        Interrupted<R, role> interrupted(*slot);
        if (readiness.calls_for(Io::read)) {
            if (!own.may_read(*slot)) [[unlikely]] {
                slot->held_back = !slot->paused;
            } else if (!pump<Io::read>(registry, *slot, id)) {
                interrupted.over = true;
                return true;
            }
        }
        // A transport writes at the end of the turn, once: it has been touched. A listener has no
        // flush, so its write half is offered here.
        if constexpr (role == Role::listener) {
            if (readiness.calls_for(Io::write) && own.wanted(*slot).write) [[unlikely]] {
                pump<Io::write>(registry, *slot, id);
            }
        }
        interrupted.over = true;
        return true;
    }

    /// Offers one half until nothing comes of it, or the budget is spent. False: it has left.
    template <Io io, class R, Role role>
    bool pump(Registry<R, role>& registry, Slot<R, role>& slot, ResourceId id) {
        std::size_t events =
            role == Role::transport ? options.events_per_resource : options.accepts_per_turn;
        std::size_t bytes = options.bytes_per_resource;
        if constexpr (io == Io::read) {
            slot.held_back = false;
        }
        do {
            std::optional<typename R::Event> event = ask(slot.resource, io);
            if (!event) {
                if constexpr (io == Io::read) {
                    slot.left_over = false;
                }
                return settle(registry, slot);
            }
            if constexpr (requires { event->data()->size(); }) {
                if (const auto* const data = event->data()) {
                    bytes -= std::min(bytes, data->size());
                }
            }
            if constexpr (io == Io::write) {
                registry.touch(slot); // what is sent from this event has a flush of its own
            }
            deliver(slot, id, std::move(*event));
            if (slot.id != id || stopping) [[unlikely]] {
                return false;
            }
            if (io == Io::read && !own.may_read(slot)) [[unlikely]] {
                slot.held_back = !slot.paused;
                return true;
            }
        } while (--events != 0 && bytes != 0);
        own.leave_over(slot);
        return true;
    }
    template <class R>
    [[nodiscard]] std::optional<typename R::Event> ask(R& resource, Io io) {
        if constexpr (reads_into_scratch<R>) {
            return resource.handle_io(io, std::span(scratch_.get(), options.read_buffer));
        } else {
            return resource.handle_io(io);
        }
    }
    template <class R, Role role>
    void deliver(Slot<R, role>& slot, ResourceId id, typename R::Event&& event) {
        if constexpr (std::same_as<R, NoTransport> || std::same_as<R, NoListener>) {
            return;
        } else if constexpr (role == Role::transport) {
            own.current = slot.hole ? nullptr : std::addressof(slot.resource);
            own.current_id = id;
            service.handle_transport_event(id, std::move(event), actions);
            own.current = nullptr;
            own.current_id = {};
        } else {
            service.handle_listener_event(id, std::move(event), actions);
        }
        if (!actions.empty()) {
            perform_waiting();
        }
    }
    /// Asks a resource that yielded nothing for its trouble and its end. False: it has left.
    template <class R, Role role>
    bool settle(Registry<R, role>& registry, Slot<R, role>& slot) {
        const ResourceId id = slot.id;
        if constexpr (tells_trouble<R>) {
            if (const std::error_code trouble = slot.resource.trouble()) [[unlikely]] {
                tell(Error(ErrorKind::trouble, id, trouble));
                if (slot.id != id) {
                    return false;
                }
            }
        }
        if constexpr (tells_end<R>) {
            if (const std::optional<std::error_code> end = slot.resource.ended()) [[unlikely]] {
                leave(registry, slot, ErrorKind::ended, *end);
                return false;
            }
        }
        return true;
    }
    /// A resource leaves by itself: as it was asked to, or with an error.
    template <class R, Role role>
    [[gnu::cold]] void leave(Registry<R, role>& registry, Slot<R, role>& slot, ErrorKind kind,
                                 std::error_code code) {
        if (slot.closing && kind == ErrorKind::ended && !code) {
            return hand_over(registry, slot);
        }
        Error error(kind, slot.id, code);
        if constexpr (role == Role::transport) {
            slot.resource.flush(); // whatever it borrowed is its own from here on
            count_unsent(slot.resource.unsent());
            error.put_unsent(slot.resource.unsent());
        }
        put(registry, error, own.take_out(registry, slot));
        tell(std::move(error));
    }

    template <class R, Role role>
    void finish_turn_of(Registry<R, role>& registry, Slot<R, role>& slot) {
        if constexpr (role == Role::transport) {
            slot.resource.flush();
        }
        if constexpr (keeps_time<R>) {
            if (slot.resource.keeps_time()) [[unlikely]] {
                slot.resource.keep_time(own.turn_time(), own.may_read(slot));
            }
        }
        if constexpr (role == Role::transport) {
            if (!pump<Io::write>(registry, slot, slot.id)) [[unlikely]] {
                return;
            }
            own.count_owed(slot);
        } else if (!settle(registry, slot)) {
            return;
        }
        if (own.wanted(slot) != slot.armed) [[unlikely]] {
            if (const std::error_code error = own.renew_interest(slot)) {
                return leave(registry, slot, ErrorKind::interest_failed, error);
            }
        }
        if (slot.held_back && own.may_read(slot)) [[unlikely]] {
            slot.held_back = false;
            own.leave_over(slot); // the kernel may have nothing more to report
        }
        own.renew_deadline(slot);
    }
    template <class R, Role role>
    void fire_deadline(Registry<R, role>& registry, Slot<R, role>& slot) {
        if constexpr (has_deadline<R>) {
            slot.lazy = {};
            registry.touch(slot);
            const std::optional<Timestamp> deadline = slot.resource.deadline();
            if (deadline && *deadline <= own.turn_time()) {
                slot.resource.handle_deadline();
                if (!settle(registry, slot)) {
                    return;
                }
                if constexpr (keeps_time<R>) {
                    if (own.may_read(slot)) {
                        own.leave_over(slot); // what stands in the kernel counts
                    }
                }
            }
            own.renew_deadline(slot);
        }
    }

    std::unique_ptr<std::byte[]> scratch_;
    Fifo<Error> ashore_; ///< who was shed, until the service has heard of it
    std::size_t performed_ = 0;
    bool performing_ = false;
};

} // namespace detail
} // namespace reactor::inline v0
