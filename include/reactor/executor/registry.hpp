// SPDX-License-Identifier: Apache-2.0
//
// Annex: who awaits what. The one place of the executor that knows descriptors and callbacks.
//
// A descriptor has two halves, to read and to write; each has at most one event that awaits it, and
// one event may hold both. Whatever the halves want together is the descriptor's one interest, so
// that asking to write forgets no wish to read. The events stand in Slots, the descriptors in
// Links, where what changed waits as orders to the poller's side. A callback stands outside of all
// tables while it runs, so it may cancel or replace itself, and anything else; what it throws
// leaves the tables as if it had returned. It needs no loop: what is fired comes from whoever has
// one.
#pragma once

#include <reactor/executor/links.hpp>
#include <reactor/executor/slots.hpp>
#include <reactor/os/fd.hpp>

namespace reactor::inline v0 {

/// The events of one executor. One thread. `Callback` is movable, can be empty, and is given to
/// whoever runs it; `Fd` owns a descriptor.
template <class Callback, class Fd = os::Fd>
class Registry {
    using LinkId = detail::LinkId;
    using Fired = detail::Fired;
    using Links = detail::Links<Fd>;
    using Link = typename Links::Link;
    using Slots = detail::Slots<Callback>;
    using Slot = typename Slots::Slot;

  public:
    /// What the poller's side is to do; see next_order().
    using Order = detail::Order<Fd>;

    /// `limit`: descriptors at once. `disarms`: what has fired is not armed any more, and must be
    /// ordered again (it fires to another thread). `first_generation`: of ids, for tests of what
    /// happens when they are used up.
    explicit Registry(std::size_t limit, bool disarms = false,
                      std::uint64_t first_generation = 1) noexcept
        : links_(limit, disarms, first_generation), slots_(first_generation) {}
    Registry(const Registry&) = delete;
    Registry& operator=(const Registry&) = delete;
    /// Destroys the callbacks and closes what it owns.
    ~Registry() { clear(); }

    // -- asking -----------------------------------------------------------------------------------

    /// Awaits this event. Errors, with `callback` untouched: bad_file_descriptor; invalid_argument
    /// (no interest); device_or_resource_busy: one of the halves is awaited already;
    /// no_buffer_space: the limit.
    [[nodiscard]] Awaited await(Event event, Times times, Callback&& callback) {
        return await(event, times, std::move(callback), [](int) { return std::error_code{}; });
    }
    /// The same. `prepare(fd)` is asked first where the poller's side does not know the descriptor;
    /// an error of it is the answer.
    template <class Prepare>
    [[nodiscard]] Awaited await(Event event, Times times, Callback&& callback, Prepare&& prepare) {
        Link* link = links_.of(event.fd);
        if (link == nullptr || !link->known) [[unlikely]] {
            if (const std::error_code error = introduce(event.fd, prepare)) {
                return {{}, error};
            }
            link = links_.of(event.fd);
        }
        const auto [reads, writes] = event.interest;
        if ((reads && link->reader) || (writes && link->writer)) [[unlikely]] {
            return refused(std::errc::device_or_resource_busy);
        }
        if (!reads && !writes) [[unlikely]] {
            return refused(std::errc::invalid_argument);
        }
        Slot* const slot = slot_of(*link, reads ? link->reads_at : link->writes_at);
        if (slot == nullptr) [[unlikely]] {
            return refused(std::errc::no_buffer_space);
        }
        const EventId id = slots_.fill(*slot, times, std::move(callback));
        if (reads) {
            link->reader = id;
        }
        if (writes) {
            link->writer = id;
        }
        links_.mark(*link);
        return {id, {}};
    }
    /// An event that no descriptor causes: a timer's. Names nothing if there is no room for more.
    [[nodiscard]] EventId add(Times times, Callback&& callback) {
        const std::uint32_t number = slots_.take();
        return number == Slots::none
                   ? EventId{}
                   : slots_.fill(slots_.at(number), times, std::move(callback));
    }
    /// Whether it was there. From now on it is not fulfilled any more.
    bool cancel(EventId id) noexcept {
        Slot* const slot = slots_.find(id);
        if (slot == nullptr) {
            return false;
        }
        const Callback last = release(*slot); // its destructor may ask for something
        return true;
    }
    /// Another callback for the same event. False, with `callback` untouched: there is none.
    bool replace(EventId id, Callback&& callback) noexcept {
        Slot* const slot = slots_.find(id);
        if (slot == nullptr) {
            return false;
        }
        const Callback last = std::exchange(slot->callback, std::move(callback));
        return true;
    }
    /// Cancels all. Destructors of callbacks may cancel others.
    void clear() noexcept {
        for (std::uint32_t n = 0; n < slots_.size(); ++n) {
            if (slots_.at(n).live) {
                const Callback last = release(slots_.at(n));
            }
        }
    }
    /// Whether it may still be fulfilled.
    [[nodiscard]] bool awaits(EventId id) noexcept { return slots_.find(id) != nullptr; }
    /// The timer that fulfils this event, as it was set by set_timer(); names nothing if there is
    /// none.
    [[nodiscard]] TimerId timer(EventId id) noexcept {
        const Slot* const slot = slots_.find(id);
        return slot == nullptr ? TimerId{} : slot->timer;
    }
    /// For whoever sets timers: this one fulfils the event, if that is there.
    void set_timer(EventId id, TimerId timer) noexcept {
        if (Slot* const slot = slots_.find(id)) {
            slot->timer = timer;
        }
    }

    // -- descriptors ------------------------------------------------------------------------------

    /// What is wanted of this descriptor, by all events together.
    [[nodiscard]] Interest interest(int fd) noexcept {
        const Link* const link = links_.of(fd);
        return link == nullptr ? Interest{} : link->interest();
    }
    /// The descriptor is the registry's from now on: closed by close(), or with the registry.
    /// False, with `fd` untouched: it owns it already, or is full.
    bool adopt(Fd&& fd) {
        Link* const link = fd.get() < 0 ? nullptr : links_.make(fd.get());
        if (link == nullptr || link->owned) {
            return false;
        }
        link->owned = std::move(fd);
        return true;
    }
    /// Nothing of this descriptor is awaited any more; what the registry owns is given back. What
    /// is awaited of that number from now on is a new descriptor's.
    Fd forget(int fd) {
        Link* const link = links_.of(fd);
        if (link == nullptr) {
            return Fd{};
        }
        links_.make_room_to_part();
        Fd owned = std::move(link->owned);
        part(*link, Fd{});
        return owned;
    }
    /// The same, but what the registry owns is closed, once it has left the poller. False: it owns
    /// no such descriptor; nothing of it is awaited any more even so.
    bool close(int fd) {
        Link* const link = links_.of(fd);
        if (link == nullptr) {
            return false;
        }
        links_.make_room_to_part();
        Fd owned = std::move(link->owned);
        const bool is_ours = static_cast<bool>(owned);
        part(*link, std::move(owned));
        return is_ours;
    }

    // -- firing -----------------------------------------------------------------------------------

    /// Runs the callbacks that this fulfils, each by `call(EventId, Callback&, Readiness)`. An
    /// error ends the events of the link: they are told so, with the readiness `error`.
    template <class Call>
    void fire(const Fired& fired, Call&& call) {
        Link* const link = links_.find(fired.link);
        if (link == nullptr || link->round != fired.round) {
            return; // forgotten, or asked otherwise since
        }
        const bool failed = fired.has_failed();
        links_.disarm(*link, failed);
        const typename Links::Serving serving(links_, *link);
        Readiness told = fired.readiness;
        if (failed) [[unlikely]] {
            told = {false, false, false, true};
        }
        const EventId reader = told.calls_for(Io::read) ? link->reader : EventId{};
        const EventId writer = told.calls_for(Io::write) ? link->writer : EventId{};
        if (!writer) {
            told.write = false;
        } else if (!reader) {
            told.read = false;
        } else if (reader != writer) [[unlikely]] {
            return run_both(reader, writer, told, failed, call);
        }
        if (Slot* const slot = slots_.find(reader ? reader : writer)) {
            run_now(*slot, link, told, failed, call);
        }
    }
    /// Runs the callback of this event, if it is still there. `is_last`: it is over then.
    template <class Call>
    void run(EventId id, Readiness readiness, bool is_last, Call&& call) {
        if (Slot* const slot = slots_.find(id)) {
            run_now(*slot, link_of(*slot), readiness, is_last, call);
        }
    }

    // -- what the poller is to be told ------------------------------------------------------------

    /// Whether next_order() has one, or has to look.
    [[nodiscard]] bool has_orders() const noexcept { return links_.has_orders(); }
    /// The next order, in the order in which they have to be carried out; nothing: no more.
    [[nodiscard]] std::optional<Order> next_order() { return links_.next_order(); }
    /// It could not be carried out now: it is the next one again.
    void put_back(Order&& order) noexcept { links_.put_back(std::move(order)); }

  private:
    /// A callback that runs goes back to its event, if that is there and has no other.
    struct Outside {
        Registry& registry;
        EventId id;
        Callback callback;

        Outside(Registry& of, EventId event, Callback&& with) noexcept
            : registry(of), id(event), callback(std::move(with)) {}
        Outside(const Outside&) = delete;
        Outside& operator=(const Outside&) = delete;
        ~Outside() {
            if (Slot* const slot = registry.slots_.find(id); slot != nullptr && !slot->callback) {
                slot->callback = std::move(callback);
            }
        }
    };

    template <class Call>
    [[gnu::always_inline]] void run_now(Slot& slot, Link* link, Readiness readiness, bool is_last,
                                        Call& call) {
        const EventId id = slot.id;
        if (slot.times == Times::once || is_last) {
            detach(id, link);
            Callback callback = slots_.vacate(slot);
            call(id, callback, readiness);
        } else {
            Outside outside{*this, id, std::move(slot.callback)};
            call(id, outside.callback, readiness);
        }
    }
    /// The two halves are awaited by two events; the first may end the second.
    template <class Call>
    [[gnu::noinline]] void run_both(EventId reader, EventId writer, Readiness told, bool is_last,
                                    Call& call) {
        Readiness to_reader = told;
        to_reader.write = false;
        run(reader, to_reader, is_last, call);
        told.read = false;
        run(writer, told, is_last, call);
    }

    [[nodiscard, gnu::cold]] static Awaited refused(std::errc why) noexcept {
        return {{}, std::make_error_code(why)};
    }
    /// There is a link of this descriptor afterwards, or an error.
    template <class Prepare>
    [[nodiscard, gnu::noinline]] std::error_code introduce(int fd, Prepare& prepare) {
        if (fd < 0) {
            return std::make_error_code(std::errc::bad_file_descriptor);
        }
        std::error_code error = prepare(fd);
        if (!error && links_.make(fd) == nullptr) {
            error = std::make_error_code(std::errc::no_buffer_space);
        }
        return error;
    }
    /// The slot that stays with this half of the link; null if there are no more.
    [[nodiscard]] Slot* slot_of(const Link& link, std::uint32_t& number) {
        Slot* const slot = number == Slots::none ? nullptr : &slots_.at(number);
        return slot != nullptr && slot->id ? slot : another_slot(link, number);
    }
    /// The first, or the one after it is retired.
    [[gnu::noinline]] Slot* another_slot(const Link& link, std::uint32_t& number) {
        number = slots_.take(link.id.slot());
        return number == Slots::none ? nullptr : &slots_.at(number);
    }
    [[nodiscard]] Link* link_of(const Slot& slot) noexcept {
        return slot.link == Slots::none ? nullptr : &links_.at(slot.link);
    }
    /// The event is over; its callback is the caller's.
    [[nodiscard]] Callback release(Slot& slot) noexcept {
        detach(slot.id, link_of(slot));
        return slots_.vacate(slot);
    }
    /// The link is not awaited by this event any more.
    void detach(EventId id, Link* link) noexcept {
        if (link == nullptr) {
            return;
        }
        if (link->reader == id) {
            link->reader = {};
        }
        if (link->writer == id) {
            link->writer = {};
        }
        links_.mark(*link);
    }
    /// Takes leave of the descriptor: its events are over, the poller's side lets go.
    void part(Link& link, Fd&& to_close) noexcept {
        Callback last[2]; // their destructors may ask for something
        const EventId events[2] = {link.reader, link.writer};
        for (std::size_t n = 0; n < 2; ++n) {
            if (Slot* const slot = slots_.find(events[n])) {
                last[n] = release(*slot);
            }
        }
        links_.part(link, std::move(to_close));
    }

    Links links_;
    Slots slots_;
};

} // namespace reactor::inline v0
