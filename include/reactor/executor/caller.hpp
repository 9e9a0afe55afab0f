// SPDX-License-Identifier: Apache-2.0
//
// Annex, behind the scenes: between the loop and the callbacks.
//
// A Caller runs callbacks, for readiness, for time and for what was posted, and when one has
// returned, or thrown, carries out what it asked for: orders go to the Watches of this loop or to
// the Feeder of another. What the loop does not take now is offered again later. It owns the tables
// of the executor; the loop owns the descriptors' Watches. ExecutorService is how a Runtime calls
// it. On the executor's thread.
#pragma once

#include <reactor/executor/controller.hpp>
#include <reactor/executor/registry.hpp>
#include <reactor/executor/timers.hpp>
#include <reactor/executor/watches.hpp>

#include <utility>
#include <variant>

namespace reactor::inline v0 {
namespace detail {

/// The service behind an executor: hands everything on.
template <class Caller>
struct ExecutorService
    : Service<Watch<typename Caller::Fd>, NoTransport, typename Caller::Command> {
    using Watch = detail::Watch<typename Caller::Fd>;
    using typename ExecutorService::Service::Actions;
    using typename ExecutorService::Service::Error;

    explicit ExecutorService(Caller& of) noexcept : caller(&of) {}

    void tick(Actions& actions) { caller->tick(actions); }
    void handle_timer(TimerId timer, Actions& actions) { caller->fire(timer, actions); }
    void handle_listener_event(ResourceId, Fired fired, Actions& actions) {
        caller->fire(fired, fired.link, actions);
    }
    void handle_command(typename Caller::Command command, Actions& actions) {
        caller->handle(std::move(command), actions);
    }
    void handle_error(Error error, Actions& actions) {
        if (const auto watch = error.take_listener()) {
            caller->lose(*watch, error.code(), actions);
        }
    }
    void handover_listener(ResourceId, Watch watch, Actions& actions) {
        caller->lose(watch, {}, actions);
    }

    Caller* caller;
};

/// What an Executor does behind its public names.
template <class Executor>
class Caller {
  public:
    using Fd = typename Executor::Fd;
    using Callback = typename Executor::Callback;
    using Command = ExecutorCommand<Callback>;
    using Service = ExecutorService<Caller>;
    using Actions = typename Service::Actions;

    Caller(Executor& executor, std::size_t limit, bool disarms)
        : registry(limit, disarms), executor_(executor) {}

    reactor::Registry<Callback, Fd> registry;
    Watches<Fd> watches;

    // -- asking -----------------------------------------------------------------------------------

    Awaited await(Event event, Times times, Callback&& callback) {
        if (ended_) [[unlikely]] {
            return refused(std::errc::operation_canceled);
        }
        const Awaited awaited =
            registry.await(event, times, std::move(callback), [](int fd) -> std::error_code {
                return Executor::Kernel::set_non_blocking(fd).code();
            });
        has_asked();
        return awaited;
    }
    Awaited await(Duration span, Times times, Callback&& callback) {
        if (ended_) {
            return refused(std::errc::operation_canceled);
        }
        if (actions_ == nullptr) {
            timers_.make_room_to_set();
        }
        const Timed timed{registry.add(times, std::move(callback)),
                          saturating_add(executor_.clock(), span),
                          times == Times::keep ? span : Duration::zero()};
        if (!timed.event) {
            return refused(std::errc::no_buffer_space);
        }
        if (actions_ == nullptr) {
            timers_.set_later(timed);
            has_asked();
        } else if (!set(timed, *actions_)) {
            registry.cancel(timed.event);
            return refused(std::errc::no_buffer_space);
        }
        return {timed.event, {}};
    }
    bool cancel(EventId event) {
        if (const TimerId timer = registry.timer(event)) {
            if (actions_ != nullptr) {
                actions_->cancel_timer(timer);
            } else {
                timers_.cancel_later(timer);
            }
        }
        const bool found = registry.cancel(event);
        has_asked();
        return found;
    }
    /// Something may have changed that the loop has to hear of.
    void has_asked() {
        if (actions_ == nullptr && (registry.has_orders() || timers_.any_later())) {
            executor_.wake(); // the next turn is to begin at once
        }
    }
    /// Nothing can be awaited any more.
    void end() noexcept { ended_ = true; }
    /// What can be asked of the loop; null while none of its callbacks runs.
    [[nodiscard]] Actions* actions() const noexcept { return actions_; }
    [[nodiscard]] EventId current() const noexcept { return current_; }
    [[nodiscard]] std::error_code cause() const noexcept { return cause_; }

    // -- being called by the loop -----------------------------------------------------------------

    void tick(Actions& actions) {
        if (timers_.any_later()) [[unlikely]] {
            set_waiting(actions);
        }
        if (registry.has_orders() && !orders_wait_) [[unlikely]] {
            give_orders(actions, {});
        }
    }
    /// `served`: the link whose Watch has yielded this, if it was one of this loop.
    void fire(const Fired& fired, LinkId served, Actions& actions) {
        Asking asking(*this, actions, served);
        if (fired.has_failed()) [[unlikely]] {
            cause_ = fired.cause();
        }
        registry.fire(fired, how());
        asking.done();
    }
    void fire(TimerId timer, Actions& actions) {
        if (timer == orders_wait_) {
            orders_wait_ = {};
            return give_orders(actions, {});
        }
        Asking asking(*this, actions, {});
        registry.run(timers_.event_of(timer), {}, false, how());
        asking.done();
    }
    void handle(Command&& command, Actions& actions) {
        if (auto* const fired = std::get_if<Fired>(&command)) {
            return fire(*fired, {}, actions);
        }
        Asking asking(*this, actions, {});
        std::get<Callback>(command)(executor_, {});
        asking.done();
    }
    /// A Watch has left the loop.
    void lose(const Watch<Fd>& watch, std::error_code error, Actions& actions) {
        if (const auto fired = watches.left(watch, error); fired && error) {
            fire(*fired, {}, actions);
        }
    }

  private:
    /// Lets a callback ask, and carries out what it asked for.
    class Asking {
      public:
        Asking(Caller& caller, Actions& actions, LinkId served) noexcept
            : caller_(caller), served_(served) {
            caller_.actions_ = &actions;
        }
        Asking(const Asking&) = delete;
        Asking& operator=(const Asking&) = delete;
        ~Asking() {
            caller_.actions_ = nullptr;
            caller_.current_ = {};
            if (caller_.cause_) [[unlikely]] {
                caller_.cause_.clear();
            }
        }
        /// Not after a throw: then the next turn does it.
        void done() {
            if (caller_.registry.has_orders() && !caller_.orders_wait_) {
                caller_.give_orders(*caller_.actions_, served_);
            }
        }

      private:
        Caller& caller_;
        LinkId served_;
    };

    /// An order that was not carried out, be it by a throw, is the next one again.
    struct Untaken {
        reactor::Registry<Callback, Fd>& registry;
        typename reactor::Registry<Callback, Fd>::Order& order;
        bool taken = false;

        ~Untaken() {
            if (!taken) {
                registry.put_back(std::move(order));
            }
        }
    };

    [[nodiscard]] static Awaited refused(std::errc why) noexcept {
        return {{}, std::make_error_code(why)};
    }
    [[nodiscard]] auto how() noexcept {
        return [this](EventId event, Callback& callback, Readiness readiness) {
            current_ = event;
            callback(executor_, readiness);
        };
    }
    TimerId set(const Timed& timed, Actions& actions) {
        const TimerId timer = timers_.set(timed, actions);
        registry.set_timer(timed.event, timer);
        return timer;
    }
    [[gnu::noinline]] void give_orders(Actions& actions, LinkId served) {
        while (auto order = registry.next_order()) {
            Untaken untaken{registry, *order};
            if (!executor_.carry_out(*order, served, actions)) {
                orders_wait_ = actions.set_timer(std::chrono::milliseconds{1});
                if (!orders_wait_) {
                    executor_.wake(); // no timer to be had: in the next turn
                }
                return;
            }
            untaken.taken = true;
        }
    }
    [[gnu::cold]] void set_waiting(Actions& actions) {
        timers_.cancel_now(actions);
        while (timers_.any_to_set()) {
            const Timed timed = timers_.next_to_set();
            const bool awaits = registry.awaits(timed.event); // or it was cancelled since
            const TimerId timer = awaits ? set(timed, actions) : TimerId{};
            timers_.drop_to_set(); // not before: a throw would lose it
            if (!awaits) {
                continue;
            }
            if (!timer) {
                expire(timed.event, std::make_error_code(std::errc::no_buffer_space), actions);
            } else if (timed.period > Duration::zero()) { // it counts from when it was asked for
                actions.reset_timer(timer, saturating_sub(timed.deadline, executor_.clock()));
            }
        }
    }
    /// A timer that cannot be set after all.
    void expire(EventId event, std::error_code why, Actions& actions) {
        Asking asking(*this, actions, {});
        cause_ = why;
        registry.run(event, {false, false, false, true}, true, how());
        asking.done();
    }

    Executor& executor_;
    Actions* actions_ = nullptr;
    EventId current_;
    std::error_code cause_;
    TimerId orders_wait_; ///< set while they could not be given: for the next try
    bool ended_ = false;
    Timers timers_;
};

} // namespace detail
} // namespace reactor::inline v0
