// SPDX-License-Identifier: Apache-2.0
//
// Story, behind the scenes: what a runtime owns, and the one place where it is kept in step.
//
// Listeners and transports stand in two registries, their timers in the wheel, their interest in
// the poller; here a resource comes in, leaves, and has its interest and its lazy timer brought up
// to date, with no service in sight: nothing here calls user code but the resource's own. A
// resource leaves the poller before its descriptor can close. Who was touched in this turn stands
// in a list; nobody else is looked at. As the Desk, this is what stands behind Actions.
#pragma once

#include <reactor/action.hpp>
#include <reactor/detail/registry.hpp>
#include <reactor/poller.hpp>
#include <reactor/timer_wheel.hpp>

#include <new>
#include <utility>

namespace reactor::inline v0 {
namespace detail {

template <class Listener, class Transport, class Poller>
class Holdings final : public Desk<Listener, Transport> {
  public:
    using Kernel = typename Poller::Kernel;
    using Listeners = Registry<Listener, Role::listener>;
    using Transports = Registry<Transport, Role::transport>;

    /// Marks the end of a drain among the timers; no resource id has this value.
    static constexpr std::uint64_t drain_tag = 1;

    Holdings(const Options& options, Poller&& with)
        : Desk<Listener, Transport>(options.gather_buffer, options.owed_bytes),
          poller(std::move(with)),
          listeners(options.listeners),
          transports(options.transports),
          stream_limits_(options.stream),
          auto_pause_(options.auto_pause),
          timer_limit_(options.timers),
          owner_(Kernel::process_id()) {}
    [[gnu::cold]] ~Holdings() {
        drop_all(listeners);
        drop_all(transports);
    }

    // -- the Desk ---------------------------------------------------------------------------------

    [[nodiscard]] ResourceId reserve(Role role) override {
        return role == Role::listener ? listeners.reserve() : transports.reserve();
    }
    [[nodiscard]] Transport* reach(ResourceId id) override {
        typename Transports::Slot* const slot = transports.find(id);
        if (slot == nullptr || slot->hole || is_parting) [[unlikely]] {
            return nullptr;
        }
        transports.touch(*slot);
        return std::addressof(slot->resource);
    }
    void leave_hole(ResourceId id) noexcept override {
        if (typename Transports::Slot* const slot = transports.find(id);
            slot != nullptr && !slot->hole) {
            slot->hole = true;
            restless = true;
            if (id == this->current_id) {
                this->current = nullptr; // what follows is to come back as well
            }
            ++holes;
        }
    }
    TimerId set_timer(Timestamp deadline, Duration interval) override {
        return wheel.size() - lazy_timers < timer_limit_ ? wheel.set(deadline, interval)
                                                         : TimerId{};
    }
    bool reset_timer(TimerId timer, Timestamp deadline) noexcept override {
        return wheel.reset(timer, deadline);
    }
    bool cancel_timer(TimerId timer) noexcept override { return wheel.cancel(timer); }
    [[nodiscard]] Timestamp clock() override { return poller.now(); }

    /// Whether this is a forked child: the kernel's registrations are the parent's, and stay.
    [[nodiscard]] bool is_foreign() const noexcept { return Kernel::process_id() != owner_; }

    // -- coming and going -------------------------------------------------------------------------

    /// Puts the resource under its reserved id. On an error it is untouched, and the id is free.
    template <class R, Role role>
    [[nodiscard]] std::error_code admit(Registry<R, role>& registry, ResourceId id, R& resource) {
        if constexpr (!born_non_blocking<R>) {
            if (const auto set = Kernel::set_non_blocking(resource.fd()); !set.ok()) {
                registry.cancel(id);
                return set.code();
            }
        }
        if constexpr (takes_stream_limits<R>) {
            resource.inherit_limits(stream_limits_);
        }
        if (is_foreign()) {
            registry.cancel(id);
            return std::make_error_code(std::errc::operation_not_permitted);
        }
        const Interest interest = resource.interest();
        if (!interest.none()) {
            if (const auto error = watch(resource.fd(), id, interest)) {
                registry.cancel(id);
                return error;
            }
        }
        Slot<R, role>& slot = registry.occupy(id, std::move(resource));
        slot.armed = interest;
        slot.served = turn; // no event in the turn of its registration
        registry.touch(slot);
        return {};
    }

    /// Takes a resource out: first from the poller and the wheel, then from its slot.
    template <class R, Role role>
    [[nodiscard]] R take_out(Registry<R, role>& registry, Slot<R, role>& slot) {
        left.push(ResourceId(slot.id));
        forget(slot);
        return registry.extract(slot);
    }

    /// The resource has, or may have, more than it was asked for: the next wait returns at once.
    template <class R, Role role>
    [[gnu::noinline]] void leave_over(Slot<R, role>& slot) {
        if (!slot.left_over) {
            left_over.push(ResourceId(slot.id));
            slot.left_over = true;
            restless = true;
        }
    }

    /// Sets the account of a transport right.
    void count_owed(typename Transports::Slot& slot) noexcept {
        const std::size_t now = held_by(slot.resource);
        if (now != slot.owed) [[unlikely]] {
            owing_since(slot, now);
        }
    }
    /// Whether the listeners know if there is room for more transports. To be asked once a turn.
    [[nodiscard]] bool listeners_are_told() noexcept {
        if (transports.full() == listeners_wait_) [[likely]] {
            return true;
        }
        listeners_wait_ = transports.full();
        std::size_t index = 0;
        while (auto* const slot = listeners.next(index)) {
            listeners.touch(*slot);
        }
        return false;
    }

    // -- interest and deadline --------------------------------------------------------------------

    /// What the poller should be told: the wish of the resource, less what the service paused and
    /// what its own unsent bytes hold back.
    template <class R, Role role>
    [[nodiscard]] Interest wanted(const Slot<R, role>& slot) const noexcept {
        Interest interest = slot.resource.interest();
        if (is_held_back(slot)) [[unlikely]] {
            interest.read = false;
        }
        return interest;
    }
    /// The read half of that.
    template <class R, Role role>
    [[nodiscard]] bool may_read(const Slot<R, role>& slot) const noexcept {
        return !is_held_back(slot) && slot.resource.interest().read;
    }
    template <class R, Role role>
    [[nodiscard]] bool is_held_back(const Slot<R, role>& slot) const noexcept {
        if constexpr (role == Role::transport) {
            if (!slot.resource.is_ready_to_write() && auto_pause_) [[unlikely]] {
                return slot.paused || slot.resource.interest().write;
            }
        } else if constexpr (brings_transports<R>) {
            if (transports.full() && slot.resource.brings_transports()) [[unlikely]] {
                return true;
            }
        }
        return slot.paused;
    }

    /// Tells the poller what is wanted now.
    template <class R, Role role>
    [[nodiscard, gnu::noinline]] std::error_code renew_interest(Slot<R, role>& slot) {
        if (is_foreign()) {
            return {};
        }
        const Interest interest = wanted(slot);
        const int fd = slot.resource.fd();
        std::error_code error;
        if (interest.none()) {
            poller.unwatch(fd, slot.id);
        } else if (slot.armed.none()) {
            error = watch(fd, slot.id, interest);
        } else {
            error = poller.set_interest(fd, slot.id, interest);
        }
        if (!error) {
            slot.armed = interest;
        }
        return error;
    }

    /// Sets the resource's lazy timer, if it must ring earlier than it would.
    template <class R, Role role>
    void renew_deadline(Slot<R, role>& slot) {
        if constexpr (has_deadline<R>) {
            const std::optional<Timestamp> deadline = slot.resource.deadline();
            if (!deadline || (slot.lazy.timer && slot.lazy.set_for <= *deadline)) [[likely]] {
                return;
            }
            if (!slot.lazy.timer || !wheel.reset(slot.lazy.timer, *deadline)) {
                slot.lazy.timer = wheel.set(*deadline, Duration::zero(), slot.id.value());
                if (!slot.lazy.timer) {
                    return leave_over(slot); // no memory: tried again in the next turn
                }
                ++lazy_timers;
            }
            slot.lazy.set_for = *deadline;
        }
    }

    /// Watches everything again in a poller that started afresh. What it refuses has no interest
    /// from then on, and is told so when it is next touched.
    template <class R, Role role>
    [[gnu::cold]] void watch_again(Registry<R, role>& registry) {
        std::size_t index = 0;
        while (auto* const slot = registry.next(index)) {
            if (!slot->armed.none() && watch(slot->resource.fd(), slot->id, slot->armed)) {
                slot->armed = {};
                registry.touch(*slot);
            }
        }
    }

    Poller poller;
    TimerWheel wheel;
    Listeners listeners;
    Transports transports;
    Fifo<ResourceId> left_over;
    std::size_t holes = 0;
    /// Who has left since the last wait: what that one reported of them is no surprise.
    Fifo<ResourceId> left;
    /// The number of this turn, to know who had its share of it.
    std::uint32_t turn = 0;
    /// Something is left to do: the next wait does not sleep. Who leaves something sets it.
    bool restless = false;
    /// How many of the wheel's timers are those of resources and of the drain.
    std::size_t lazy_timers = 0;
    /// Set at the end: nothing that a callback asks for is done any more.
    bool is_parting = false;

  private:
    /// A poller that finds no memory of its own answers as the kernel would: who is between two
    /// rooms then has a door to leave by.
    [[nodiscard]] std::error_code watch(int fd, ResourceId id, Interest interest) {
#ifdef __cpp_exceptions
        try {
            return poller.watch(fd, id, interest);
        } catch (const std::bad_alloc&) {
            return std::make_error_code(std::errc::not_enough_memory);
        }
#else
        return poller.watch(fd, id, interest);
#endif
    }
    [[gnu::noinline]] void owing_since(typename Transports::Slot& slot, std::size_t now) noexcept {
        slot.owing_since = slot.owed == 0 ? turn : slot.owing_since;
        this->ledger.correct(slot.owed, now);
        slot.owed = now;
    }
    template <class R, Role role>
    void forget(Slot<R, role>& slot) noexcept {
        if (!slot.armed.none() && !is_foreign()) {
            poller.unwatch(slot.resource.fd(), slot.id);
        }
        if constexpr (has_deadline<R>) {
            lazy_timers -= wheel.cancel(slot.lazy.timer) ? 1U : 0U;
        }
        if (slot.hole) {
            --holes;
        }
        this->ledger.correct(std::exchange(slot.owed, 0), 0);
    }
    template <class R, Role role>
    [[gnu::cold]] void drop_all(Registry<R, role>& registry) noexcept {
        std::size_t index = 0;
        while (auto* const slot = registry.next(index)) {
            static_cast<void>(take_out(registry, *slot));
        }
    }

    StreamLimits stream_limits_;
    bool auto_pause_;
    bool listeners_wait_ = false;
    std::size_t timer_limit_;
    int owner_;
};

} // namespace detail
} // namespace reactor::inline v0
