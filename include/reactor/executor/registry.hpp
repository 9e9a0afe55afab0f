// SPDX-License-Identifier: Apache-2.0
//
// Annex: who awaits what. The one place of the executor that knows descriptors and callbacks.
//
// A descriptor has two halves, to read and to write; each has at most one event that awaits it, and
// one event may hold both. Whatever the halves want together is the descriptor's one interest, so
// that asking to write forgets no wish to read. The Registry makes no system call but to close what
// it owns: what changed waits as Orders, of which each descriptor has at most one, until somebody
// takes them to the poller. A callback stands outside of all tables while it runs, so it may cancel
// or replace itself, and anything else; what it throws leaves the tables as if it had returned.
#pragma once

#include <reactor/detail/fifo.hpp>
#include <reactor/executor/event.hpp>

#include <algorithm>
#include <optional>
#include <vector>

namespace reactor::inline v0 {

/// The events of one executor. One thread. `Callback` is movable, can be empty, and is given to
/// whoever runs it.
template <class Callback, class Fd = os::Fd>
class Registry {
    using LinkId = detail::LinkId;
    using Fired = detail::Fired;

  public:
    using Order = detail::Order<Fd>;

    /// `limit`: descriptors at once. `disarms`: what has fired is not armed any more, and must be
    /// ordered again (it fires to another thread).
    explicit Registry(std::size_t limit, bool disarms = false) noexcept
        : limit_(limit), disarms_(disarms) {}

    Registry(const Registry&) = delete;
    Registry& operator=(const Registry&) = delete;
    ~Registry() { clear(); }

    // -- asking -----------------------------------------------------------------------------------

    /// Awaits this event. Errors, with `callback` untouched: bad_file_descriptor; invalid_argument
    /// (no interest); device_or_resource_busy: one of the halves is awaited already;
    /// no_buffer_space: the limit.
    [[nodiscard]] Awaited await(Event event, Times times, Callback&& callback) {
        if (event.fd < 0) {
            return refused(std::errc::bad_file_descriptor);
        }
        if (event.interest.none()) {
            return refused(std::errc::invalid_argument);
        }
        Link* const link = link_for(event.fd);
        if (link == nullptr) {
            return refused(std::errc::no_buffer_space);
        }
        if ((event.interest.read && link->reader) || (event.interest.write && link->writer)) {
            return refused(std::errc::device_or_resource_busy);
        }
        const LinkId of = link->id;
        const EventId id = occupy(times, std::move(callback));
        if (!id) {
            mark(*link);
            return refused(std::errc::no_buffer_space);
        }
        at(id).link = of;
        link->reader = event.interest.read ? id : link->reader;
        link->writer = event.interest.write ? id : link->writer;
        mark(*link);
        return {id, {}};
    }
    /// An event that no descriptor causes: a timer's.
    [[nodiscard]] EventId add(Times times, Callback&& callback) {
        return occupy(times, std::move(callback));
    }
    /// Whether it was there. From now on it is not fulfilled any more.
    bool cancel(EventId id) noexcept {
        Slot* const slot = find(id);
        if (slot == nullptr) {
            return false;
        }
        const Callback last = release(*slot); // its destructor may ask for something
        return true;
    }
    /// Another callback for the same event. False, with `callback` untouched: there is none.
    bool replace(EventId id, Callback&& callback) noexcept {
        Slot* const slot = find(id);
        if (slot == nullptr) {
            return false;
        }
        const Callback last = std::exchange(slot->callback, std::move(callback));
        return true;
    }
    /// Cancels all. Destructors of callbacks may cancel others.
    void clear() noexcept {
        for (std::size_t n = 0; n < slots_.size(); ++n) {
            if (slots_[n].live) {
                const Callback last = release(slots_[n]);
            }
        }
    }
    [[nodiscard]] bool awaits(EventId id) noexcept { return find(id) != nullptr; }
    /// The timer that fulfils this event, as it was set by set_timer(); names nothing if there is
    /// none.
    [[nodiscard]] TimerId timer(EventId id) noexcept {
        const Slot* const slot = find(id);
        return slot == nullptr ? TimerId{} : slot->timer;
    }
    void set_timer(EventId id, TimerId timer) noexcept {
        if (Slot* const slot = find(id)) {
            slot->timer = timer;
        }
    }
    /// What is wanted of this descriptor, by all events together.
    [[nodiscard]] Interest interest(int fd) noexcept {
        const Link* const link = link_of(fd);
        return link == nullptr ? Interest{} : interest_of(*link);
    }

    /// Whether the poller's side has heard of this descriptor, and not that it may let go of it.
    [[nodiscard]] bool is_known(int fd) noexcept {
        const Link* const link = link_of(fd);
        return link != nullptr && link->known;
    }

    /// The descriptor is the registry's from now on: closed by close(), or with the registry.
    /// False, with `fd` untouched: it owns it already, or is full.
    bool adopt(Fd&& fd) {
        Link* const link = fd.get() < 0 ? nullptr : link_for(fd.get());
        if (link == nullptr || link->owned) {
            return false;
        }
        link->owned = std::move(fd);
        return true;
    }
    /// Nothing of this descriptor is awaited any more; what the registry owns is given back. What
    /// is awaited of that number from now on is a new descriptor's.
    Fd forget(int fd) {
        Link* const link = link_of(fd);
        if (link == nullptr) {
            return Fd{};
        }
        leaving_.make_room();
        Fd owned = std::move(link->owned);
        part(*link, Fd{});
        return owned;
    }
    /// The same, but what the registry owns is closed, once it has left the poller. False: it owns
    /// no such descriptor; nothing of it is awaited any more even so.
    bool close(int fd) {
        Link* const link = link_of(fd);
        if (link == nullptr) {
            return false;
        }
        leaving_.make_room();
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
        Link* const link = find(fired.link);
        if (link == nullptr || link->round != fired.round) {
            return; // forgotten, or asked otherwise since
        }
        const bool failed = static_cast<bool>(fired.error);
        if (disarms_ || failed) {
            link->armed = {};
            link->known = link->known && !failed;
            mark(*link);
        }
        const Readiness readiness = failed ? Readiness{false, false, false, true} : fired.readiness;
        const EventId reader = readiness.calls_for(Io::read) ? link->reader : EventId{};
        const EventId writer = readiness.calls_for(Io::write) ? link->writer : EventId{};
        if (reader && reader == writer) {
            return run(reader, readiness, failed, call);
        }
        if (reader) {
            run(reader, {readiness.read, false, readiness.hangup, readiness.error}, failed, call);
        }
        if (writer && awaits(writer)) {
            run(writer, {false, readiness.write, readiness.hangup, readiness.error}, failed, call);
        }
    }
    /// Runs the callback of this event, if it is still there.
    template <class Call>
    void run(EventId id, Readiness readiness, bool is_last, Call&& call) {
        Slot* const slot = find(id);
        if (slot == nullptr) {
            return;
        }
        if (slot->times == Times::once || is_last) {
            Callback callback = release(*slot);
            call(id, callback, readiness);
            return;
        }
        Outside outside{*this, id, std::move(slot->callback)};
        call(id, outside.callback, readiness);
    }

    // -- what the poller is to be told ------------------------------------------------------------

    [[nodiscard]] bool has_orders() const noexcept {
        return returned_ || !leaving_.empty() || first_changed_ != none;
    }
    /// The next order, in the order in which they have to be carried out; nothing: no more.
    [[nodiscard]] std::optional<Order> next_order() {
        if (returned_) {
            return std::exchange(returned_, std::nullopt);
        }
        if (!leaving_.empty()) {
            return leaving_.take();
        }
        while (first_changed_ != none) {
            Link& link = links_[first_changed_];
            first_changed_ = link.next_changed;
            link.changed = false;
            if (link.fd >= 0) {
                if (auto order = order_for(link)) {
                    return order;
                }
            }
        }
        return std::nullopt;
    }
    /// It could not be carried out now: it is the next one again.
    void put_back(Order&& order) noexcept { returned_.emplace(std::move(order)); }

  private:
    static constexpr std::uint32_t none = ~std::uint32_t{0};

    struct Slot {
        EventId id; ///< whose slot it is, or will be next
        LinkId link;
        TimerId timer;
        Times times = Times::once;
        bool live = false;
        Callback callback; ///< empty while it runs
    };
    struct Link {
        LinkId id;
        EventId reader;
        EventId writer;
        Interest armed;          ///< what was ordered last
        std::uint32_t round = 0; ///< which order that was
        int fd = -1;             ///< negative: nobody's
        bool known = false;      ///< the poller's side has heard of it
        bool changed = false;    ///< stands in the list of those, whoever has the link by then
        std::uint32_t next_changed = none;
        Fd owned;
    };
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
            if (Slot* const slot = registry.find(id); slot != nullptr && !slot->callback) {
                slot->callback = std::move(callback);
            }
        }
    };

    [[nodiscard]] static Awaited refused(std::errc why) noexcept {
        return {{}, std::make_error_code(why)};
    }

    // -- events -----------------------------------------------------------------------------------

    [[nodiscard]] Slot& at(EventId id) noexcept { return slots_[id.slot()]; }
    [[nodiscard]] Slot* find(EventId id) noexcept {
        if (id.slot() >= slots_.size()) {
            return nullptr;
        }
        Slot& slot = slots_[id.slot()];
        return slot.live && slot.id == id ? &slot : nullptr;
    }
    [[nodiscard]] EventId occupy(Times times, Callback&& callback) {
        if (free_slots_.empty()) {
            if (slots_.size() == EventId::slot_count) {
                return {};
            }
            free_slots_.reserve(slots_.size() + 1);
            if (slots_.size() == slots_.capacity()) {
                slots_.reserve(2 * slots_.size() + 8);
                free_slots_.reserve(slots_.capacity()); // so that giving back allocates nothing
            }
            const auto number = static_cast<std::uint32_t>(slots_.size());
            slots_.emplace_back();
            slots_.back().id = EventId::of(number, 1);
            free_slots_.push_back(number);
        }
        Slot& slot = slots_[free_slots_.back()];
        free_slots_.pop_back();
        slot.link = {};
        slot.timer = {};
        slot.times = times;
        slot.live = true;
        slot.callback = std::move(callback);
        return slot.id;
    }
    /// The event is over; its callback is the caller's.
    [[nodiscard]] Callback release(Slot& slot) noexcept {
        Callback callback = std::move(slot.callback);
        if (Link* const link = find(slot.link)) {
            link->reader = link->reader == slot.id ? EventId{} : link->reader;
            link->writer = link->writer == slot.id ? EventId{} : link->writer;
            mark(*link);
        }
        slot.live = false;
        if (slot.id.generation() < EventId::last_generation) {
            slot.id = EventId::of(slot.id.slot(), slot.id.generation() + 1);
            free_slots_.push_back(slot.id.slot());
        }
        return callback;
    }

    // -- descriptors ------------------------------------------------------------------------------

    [[nodiscard]] Link* find(LinkId id) noexcept {
        if (!id || id.slot() >= links_.size()) {
            return nullptr;
        }
        Link& link = links_[id.slot()];
        return link.fd >= 0 && link.id == id ? &link : nullptr;
    }
    [[nodiscard]] Link* link_of(int fd) noexcept {
        const auto number = static_cast<std::size_t>(fd);
        return fd < 0 || number >= by_fd_.size() || by_fd_[number] == none
                   ? nullptr
                   : &links_[by_fd_[number]];
    }
    /// The link of this descriptor, made if there is none; null at the limit.
    [[nodiscard]] Link* link_for(int fd) {
        if (Link* const link = link_of(fd)) {
            return link;
        }
        const auto number = static_cast<std::size_t>(fd);
        if (linked_ >= limit_ || number >= LinkId::slot_count) {
            return nullptr;
        }
        if (number >= by_fd_.size()) {
            by_fd_.resize(std::max(number + 1, 2 * by_fd_.size()), none);
        }
        if (free_links_.empty()) {
            if (links_.size() == links_.capacity()) {
                links_.reserve(2 * links_.size() + 8);
                free_links_.reserve(links_.capacity());
            }
            const auto at = static_cast<std::uint32_t>(links_.size());
            links_.emplace_back();
            links_.back().id = LinkId::of(at, 1);
            free_links_.push_back(at);
        }
        Link& link = links_[free_links_.back()];
        by_fd_[number] = free_links_.back();
        free_links_.pop_back();
        link.fd = fd;
        ++linked_;
        return &link;
    }
    /// The link is nobody's from now on.
    void unlink(Link& link) noexcept {
        by_fd_[static_cast<std::size_t>(link.fd)] = none;
        --linked_;
        link.reader = link.writer = {};
        link.armed = {};
        link.fd = -1;
        link.known = false;
        if (link.id.generation() < LinkId::last_generation) {
            link.id = LinkId::of(link.id.slot(), link.id.generation() + 1);
            free_links_.push_back(link.id.slot());
        }
    }
    /// Takes leave of the descriptor: its events are over, the poller's side lets go. Precondition:
    /// there is room for one that leaves.
    void part(Link& link, Fd&& to_close) noexcept {
        Callback last[2]; // their destructors may ask for something
        const EventId events[2] = {link.reader, link.writer};
        for (std::size_t n = 0; n < 2; ++n) {
            if (Slot* const slot = find(events[n])) {
                last[n] = release(*slot);
            }
        }
        if (link.known) {
            leaving_.push(Order{link.id, link.fd, {}, link.round, std::move(to_close)});
        }
        unlink(link);
    }
    [[nodiscard]] static Interest interest_of(const Link& link) noexcept {
        return {static_cast<bool>(link.reader), static_cast<bool>(link.writer)};
    }
    void mark(Link& link) noexcept {
        if (link.changed) {
            return;
        }
        const std::uint32_t number = link.id.slot();
        link.changed = true;
        link.next_changed = none;
        (first_changed_ == none ? first_changed_ : links_[last_changed_].next_changed) = number;
        last_changed_ = number;
    }
    /// What has to be ordered for a link that may have changed.
    [[nodiscard]] std::optional<Order> order_for(Link& link) noexcept {
        const Interest wish = interest_of(link);
        if (wish.none()) {
            std::optional<Order> order;
            if (link.known) {
                order.emplace(Order{link.id, link.fd, {}, link.round, Fd{}});
            }
            link.armed = {};
            link.known = false;
            if (!link.owned) {
                unlink(link);
            }
            return order;
        }
        if (wish == link.armed && link.known) {
            return std::nullopt;
        }
        link.armed = wish;
        link.known = true;
        link.round += disarms_ ? 1 : 0;
        return Order{link.id, link.fd, wish, link.round, Fd{}};
    }

    std::size_t limit_;
    bool disarms_;
    std::vector<Slot> slots_;
    std::vector<std::uint32_t> free_slots_;
    std::vector<Link> links_;
    std::vector<std::uint32_t> free_links_;
    std::vector<std::uint32_t> by_fd_;
    std::size_t linked_ = 0;
    std::uint32_t first_changed_ = none;
    std::uint32_t last_changed_ = none;
    detail::Fifo<Order> leaving_;
    std::optional<Order> returned_;
};

} // namespace reactor::inline v0
