// SPDX-License-Identifier: Apache-2.0
//
// Annex: callbacks instead of a service.
//
// An Executor runs callbacks for what is awaited: readiness of descriptors, once or for good, and
// time. It is a service on the library's Runtime, whose turn, timers, channel and end it has; each
// descriptor is one Watch there, however many wait for it. It reads and writes nothing itself.
// The thread that calls run() runs the callbacks. With Placement::in_loop it is the loop's; with
// Placement::beside the loop has another thread, which feeds it over the library's channel: see
// executor/feeder.hpp.
// A callback is told of what it awaited and of hang-ups and errors; it may await, cancel, replace
// and close what it likes, itself too: that takes effect for the poller when it has returned. What
// it throws leaves run(), which can be called again.
// The executor belongs to one thread, the one that calls run(); others have its Controller.
// The road not taken: a lock around the tables, for callbacks on any thread.
#pragma once

#include <reactor/detail/callback.hpp>
#include <reactor/executor/feeder.hpp>
#include <reactor/executor/registry.hpp>
#include <reactor/executor/watches.hpp>
#include <reactor/reactor.hpp>

#include <algorithm>
#include <exception>
#include <memory>
#include <variant>

namespace reactor::inline v0 {

/// Where the callbacks run.
enum class Placement : std::uint8_t {
    in_loop, ///< in the loop, on the thread that calls run()
    beside,  ///< on the thread that calls run(), fed by a loop that has a thread of its own
};

template <class P>
class BasicExecutor;

namespace detail {

/// The service behind an executor: hands everything on.
template <class Executor>
struct ExecutorService
    : Service<Watch<typename Executor::Fd>, NoTransport, typename Executor::Command> {
    using Watch = detail::Watch<typename Executor::Fd>;
    using typename ExecutorService::Service::Actions;
    using typename ExecutorService::Service::Error;

    explicit ExecutorService(Executor& of) noexcept : executor(&of) {}

    void tick(Actions& actions) { executor->tick(actions); }
    void handle_timer(TimerId timer, Actions& actions) { executor->fire_timer(timer, actions); }
    void handle_listener_event(ResourceId, Fired fired, Actions& actions) {
        executor->serve(fired, fired.link, actions);
    }
    void handle_command(typename Executor::Command command, Actions& actions) {
        executor->handle(std::move(command), actions);
    }
    void handle_error(Error error, Actions& actions) {
        if (const auto watch = error.take_listener()) {
            executor->lose(*watch, error.code(), actions);
        }
    }
    void handover_listener(ResourceId, Watch watch, Actions& actions) {
        executor->lose(watch, {}, actions);
    }

    Executor* executor;
};

} // namespace detail

/// Runs callbacks. One thread, but for what `controller()` gives.
template <class P = EpollPoller>
class BasicExecutor {
  public:
    using Poller = P;
    using Kernel = typename P::Kernel;
    using Fd = os::BasicFd<Kernel>;
    /// What runs: called with the executor and the readiness; small ones need no allocation. The
    /// readiness of a timer, or of what was posted, is none.
    using Callback = detail::Callback<void(BasicExecutor&, Readiness)>;
    /// What comes over the channel: readiness, from the feeding loop, or a callback.
    using Command = std::variant<detail::Fired, Callback>;
    using Line = reactor::Controller<detail::Watch<Fd>, NoTransport, Command>;

    /// The only thing that another thread may hold; copies are alike, and may outlive the executor.
    class Controller {
      public:
        using Callback = BasicExecutor::Callback;

        /// Is not connected: says `closed`.
        Controller() noexcept = default;
        /// Runs the callback in the executor's thread. Given back when the channel is full or the
        /// run has ended.
        SendAnswer<Callback> post(Callback callback) const {
            auto answer = line_.command(Command(std::move(callback)));
            if (answer) {
                return SendAnswer<Callback>(answer.status());
            }
            return {answer.status(), std::get<Callback>(*answer.take())};
        }
        /// Ends the run. Never refused.
        void shutdown() const noexcept { line_.shutdown(); }
        /// Ends the present wait, or the next. May be called in a signal handler.
        void wake() const noexcept { line_.wake(); }

      private:
        friend class BasicExecutor;
        explicit Controller(Line line) noexcept : line_(std::move(line)) {}
        Line line_;
    };

#ifdef __cpp_exceptions
    /// Throws std::system_error if a poller, a waker or the thread cannot be made. At most
    /// Options::listeners descriptors can be awaited at once.
    explicit BasicExecutor(Placement placement = Placement::in_loop, const Options& options = {})
        : BasicExecutor(placement, options, Unchecked{}) {
        if (failure_) {
            throw std::system_error(failure_, "reactor::Executor");
        }
    }
#endif
    /// The same, with the failure as a value; the run has then ended before it began.
    BasicExecutor(Placement placement, const Options& options, std::error_code& error)
        : BasicExecutor(placement, options, Unchecked{}) {
        error = failure_;
    }
    BasicExecutor(const BasicExecutor&) = delete;
    BasicExecutor& operator=(const BasicExecutor&) = delete;
    /// Destroys what is awaited, without running it, and closes what it owns.
    ~BasicExecutor() {
        ended_ = true;
        runtime_.refuse_commands();
        registry_.clear();
    }

    // -- awaiting; in a callback, or when none runs -----------------------------------------------

    /// Runs the callback once, when the event is there. The descriptor is set non-blocking, and
    /// stays the caller's, who cancels or forgets it before closing it (or see adopt()). Each half
    /// of a descriptor is awaited by one event at most. Errors: those of Registry::await() and of
    /// fcntl(2); operation_canceled after the end of the run. That the poller refuses the
    /// descriptor is told to the callback: see cause().
    Awaited await_once(Event event, Callback callback) {
        return await(event, Times::once, std::move(callback));
    }
    /// Runs the callback each time the event is there, until cancelled: again and again, as long as
    /// it is there (level-triggered).
    Awaited await_keep(Event event, Callback callback) {
        return await(event, Times::keep, std::move(callback));
    }
    /// Runs the callback (with the executor, or that and the readiness) once, so long after this
    /// call, never early. Errors: no_buffer_space, operation_canceled.
    template <class F>
    Awaited await_after(Duration span, F&& callback) {
        return await_time(Times::once, span, timed(std::forward<F>(callback)));
    }
    /// The same, every `period` (at least 1 ns) until cancelled. Missed periods are skipped.
    template <class F>
    Awaited await_every(Duration period, F&& callback) {
        return await_time(Times::keep, std::max(period, Duration{1}),
                          timed(std::forward<F>(callback)));
    }
    /// The event is not fulfilled any more, not even if it is due. False: it is over already.
    bool cancel(EventId event) {
        if (const TimerId timer = registry_.timer(event)) {
            unset(timer);
        }
        const bool found = registry_.cancel(event);
        has_asked();
        return found;
    }
    /// The event has another callback from now on; a callback may do so to itself. False: it is
    /// over already.
    bool replace(EventId event, Callback callback) {
        return registry_.replace(event, std::move(callback));
    }
    /// Whether it may still be fulfilled.
    [[nodiscard]] bool awaits(EventId event) noexcept { return registry_.awaits(event); }
    /// What is awaited of this descriptor, by all together.
    [[nodiscard]] Interest interest(int fd) noexcept { return registry_.interest(fd); }
    /// The event whose callback is running; names nothing at other times.
    [[nodiscard]] EventId current() const noexcept { return current_; }
    /// Why the callback that is running was told an error by the library: the descriptor cannot be
    /// watched, and the event is over. Zero: the error is the descriptor's own.
    [[nodiscard]] std::error_code cause() const noexcept { return cause_; }

    // -- descriptors ------------------------------------------------------------------------------

    /// The descriptor is the executor's from now on: closed by close(), or with the executor, once.
    /// Returns it, to be awaited; -1, and it is closed, if there is no room for more.
    int adopt(Fd fd) {
        const int number = fd.get();
        return registry_.adopt(std::move(fd)) ? number : -1;
    }
    /// Ends all events of this descriptor, and closes it once it has left the poller. False: it is
    /// not the executor's to close, only its events are over.
    bool close(int fd) {
        const bool closes = registry_.close(fd);
        has_asked();
        return closes;
    }
    /// Ends all events of this descriptor. What was adopted is given back.
    Fd forget(int fd) {
        Fd owned = registry_.forget(fd);
        has_asked();
        return owned;
    }

    // -- running ----------------------------------------------------------------------------------

#ifdef __cpp_exceptions
    /// Runs callbacks until shutdown(); after that it returns at once. Does not end because nothing
    /// is awaited. What a callback throws passes through. Throws as Runtime::run().
    Farewell run() {
        const Farewell farewell = runtime_.run();
        end();
        return farewell;
    }
    /// One turn, waiting at most `max_wait`. False once the run has ended. Throws as run().
    bool turn(Duration max_wait) {
        const bool goes_on = runtime_.turn(max_wait);
        if (!goes_on) {
            end();
        }
        return goes_on;
    }
#endif
    /// The same, with a refusal (see Runtime::run()) as a value.
    Farewell run(std::error_code& error) {
        const Farewell farewell = runtime_.run(error);
        if (!error) {
            end();
        }
        return farewell;
    }
    bool turn(Duration max_wait, std::error_code& error) {
        const bool goes_on = runtime_.turn(max_wait, error);
        if (!goes_on && !error) {
            end();
        }
        return goes_on;
    }
    /// For an outer loop: how long it may wait before the next turn, and what shows by then.
    [[nodiscard]] Duration until_next() { return runtime_.until_next(); }
    [[nodiscard]] int fd() const noexcept requires detail::can_be_nested<P> {
        return runtime_.fd();
    }
    /// Ends the run, when the callback has returned. What is still awaited is not fulfilled.
    void shutdown() {
        if (actions_ == nullptr || !actions_->shutdown()) {
            runtime_.controller().shutdown();
        }
    }
    /// The turn's time in a callback; else the clock's.
    [[nodiscard]] Timestamp now() {
        return actions_ != nullptr ? actions_->now() : runtime_.poller().now();
    }
    /// The handle for other threads.
    [[nodiscard]] Controller controller() const noexcept {
        return Controller(runtime_.controller());
    }

  private:
    using Service = detail::ExecutorService<BasicExecutor>;
    friend Service;
    using Actions = typename Service::Actions;
    using Watch = detail::Watch<Fd>;
    using Feeder = detail::Feeder<BasicExecutor>;
    struct Unchecked {};

    /// Lets callbacks ask, and carries out what they asked for.
    class Asking {
      public:
        Asking(BasicExecutor& executor, Actions& actions, detail::LinkId served) noexcept
            : executor_(executor), served_(served) {
            executor_.actions_ = &actions;
        }
        Asking(const Asking&) = delete;
        Asking& operator=(const Asking&) = delete;
        ~Asking() {
            executor_.actions_ = nullptr;
            executor_.current_ = {};
            executor_.cause_ = {};
        }
        void done() {
            if (executor_.registry_.has_orders() && !executor_.orders_wait_) {
                executor_.give_orders(*executor_.actions_, served_);
            }
        }

      private:
        BasicExecutor& executor_;
        detail::LinkId served_;
    };
    /// What a timer of an event is, or will be once the loop can be asked.
    struct Timed {
        EventId event{};
        Timestamp deadline{};
        Duration period{};
    };

    BasicExecutor(Placement placement, const Options& options, Unchecked)
        : registry_(options.listeners, placement == Placement::beside),
          runtime_(Service(*this), options,
                   detail::NotingPoller<P>(watches_.note, make_poller(poller_failure_)), failure_) {
        failure_ = poller_failure_ ? poller_failure_ : failure_;
        if (placement == Placement::beside && !failure_) {
            P poller = make_poller(failure_);
            if (!failure_) {
                feeder_ = std::make_unique<Feeder>(options, std::move(poller),
                                                   runtime_.controller(), failure_);
            }
        }
    }
    [[nodiscard]] static P make_poller(std::error_code& error) {
        if constexpr (std::constructible_from<P, std::error_code&>) {
            return P(error);
        } else {
            return P{};
        }
    }

    // -- asking -----------------------------------------------------------------------------------

    Awaited await(Event event, Times times, Callback&& callback) {
        if (ended_) {
            return {{}, std::make_error_code(std::errc::operation_canceled)};
        }
        if (!registry_.is_known(event.fd) && event.fd >= 0) {
            if (const auto set = Kernel::set_non_blocking(event.fd); !set.ok()) {
                return {{}, set.code()};
            }
        }
        const Awaited awaited = registry_.await(event, times, std::move(callback));
        has_asked();
        return awaited;
    }
    template <class F>
    static auto timed(F&& callback) {
        if constexpr (std::is_invocable_v<std::decay_t<F>&, BasicExecutor&, Readiness>) {
            return Callback(std::forward<F>(callback));
        } else {
            return Callback([held = std::decay_t<F>(std::forward<F>(callback))](
                                BasicExecutor& executor, Readiness) mutable { held(executor); });
        }
    }
    Awaited await_time(Times times, Duration span, Callback&& callback) {
        if (ended_) {
            return {{}, std::make_error_code(std::errc::operation_canceled)};
        }
        const Timed timer{registry_.add(times, std::move(callback)),
                          saturating_add(runtime_.poller().now(), span),
                          times == Times::keep ? span : Duration::zero()};
        if (!timer.event) {
            return {{}, std::make_error_code(std::errc::no_buffer_space)};
        }
        if (actions_ == nullptr) {
            waiting_.push(Timed(timer));
            has_asked();
        } else if (!set(timer, *actions_)) {
            registry_.cancel(timer.event);
            return {{}, std::make_error_code(std::errc::no_buffer_space)};
        }
        return {timer.event, {}};
    }
    /// Sets the timer of an event; names nothing if there is no room for more.
    TimerId set(const Timed& timer, Actions& actions) {
        const TimerId id = timer.period > Duration::zero() ? actions.set_interval(timer.period)
                                                           : actions.set_timer_at(timer.deadline);
        if (id && id.slot() >= timers_.size()) {
            timers_.resize(std::max<std::size_t>(id.slot() + 1, 2 * timers_.size()));
        }
        if (id) {
            timers_[id.slot()] = {id, timer.event};
            registry_.set_timer(timer.event, id);
        }
        return id;
    }
    void unset(TimerId timer) {
        if (actions_ != nullptr) {
            actions_->cancel_timer(timer);
        } else {
            unset_.push(TimerId(timer));
        }
    }
    /// Something may have changed that the loop has to hear of.
    void has_asked() noexcept {
        if (actions_ == nullptr &&
            (registry_.has_orders() || !waiting_.empty() || !unset_.empty())) {
            runtime_.controller().wake(); // the next turn is to begin at once
        }
    }

    // -- performing -------------------------------------------------------------------------------

    void give_orders(Actions& actions, detail::LinkId served) {
        while (auto order = registry_.next_order()) {
            const bool taken = feeder_ != nullptr ? feeder_->send(*order)
                                                  : watches_.carry_out(*order, served, actions);
            if (!taken) {
                registry_.put_back(std::move(*order));
                orders_wait_ = actions.set_timer(std::chrono::milliseconds{1});
                if (!orders_wait_) {
                    runtime_.controller().wake(); // no timer to be had: in the next turn
                }
                return;
            }
        }
    }
    void tick(Actions& actions) {
        if (!waiting_.empty() || !unset_.empty()) [[unlikely]] {
            set_waiting(actions);
        }
        if (registry_.has_orders() && !orders_wait_) [[unlikely]] {
            give_orders(actions, {});
        }
    }
    void set_waiting(Actions& actions) {
        while (!unset_.empty()) {
            actions.cancel_timer(unset_.take());
        }
        while (!waiting_.empty()) {
            const Timed timer = waiting_.take();
            if (!registry_.awaits(timer.event)) {
                continue; // cancelled since
            }
            const TimerId id = set(timer, actions);
            if (!id) {
                expire(timer.event, std::make_error_code(std::errc::no_buffer_space), actions);
            } else if (timer.period > Duration::zero()) { // it counts from when it was asked for
                actions.reset_timer(id, saturating_sub(timer.deadline, runtime_.poller().now()));
            }
        }
    }
    void serve(const detail::Fired& fired, detail::LinkId served, Actions& actions) {
        Asking asking(*this, actions, served);
        cause_ = fired.error;
        registry_.fire(fired, caller());
        asking.done();
    }
    void fire_timer(TimerId timer, Actions& actions) {
        if (timer == orders_wait_) {
            orders_wait_ = {};
            return give_orders(actions, {});
        }
        const EventId event = timers_[timer.slot()].event;
        Asking asking(*this, actions, {});
        registry_.run(event, {}, false, caller());
        asking.done();
    }
    /// A timer that cannot be set after all.
    void expire(EventId event, std::error_code why, Actions& actions) {
        Asking asking(*this, actions, {});
        cause_ = why;
        registry_.run(event, {false, false, false, true}, true, caller());
        asking.done();
    }
    void handle(Command&& command, Actions& actions) {
        if (auto* const fired = std::get_if<detail::Fired>(&command)) {
            return serve(*fired, {}, actions);
        }
        Asking asking(*this, actions, {});
        std::get<Callback>(command)(*this, {});
        asking.done();
    }
    /// A Watch has left the loop.
    void lose(const Watch& watch, std::error_code error, Actions& actions) {
        if (const auto fired = watches_.left(watch, error); fired && error) {
            serve(*fired, {}, actions);
        }
    }
    [[nodiscard]] auto caller() noexcept {
        return [this](EventId event, Callback& callback, Readiness readiness) {
            current_ = event;
            callback(*this, readiness);
        };
    }
    /// The run is over: so is the feeding loop.
    void end() {
        ended_ = true;
        if (feeder_ == nullptr) {
            return;
        }
        feeder_->stop();
#ifdef __cpp_exceptions
        if (const auto thrown = feeder_->take_thrown()) {
            std::rethrow_exception(thrown);
        }
#endif
    }

    struct TimerOf {
        TimerId timer;
        EventId event;
    };

    Registry<Callback, Fd> registry_;
    detail::Watches<Fd> watches_;
    std::vector<TimerOf> timers_; ///< by the slot of the timer
    detail::Fifo<Timed> waiting_; ///< asked for while no callback ran
    detail::Fifo<TimerId> unset_; ///< cancelled while no callback ran
    Actions* actions_ = nullptr;
    EventId current_;
    std::error_code cause_;
    bool ended_ = false;
    TimerId orders_wait_; ///< set while they could not be given: for the next try
    std::error_code poller_failure_;
    std::error_code failure_;
    Runtime<Service, detail::NotingPoller<P>> runtime_;
    std::unique_ptr<Feeder> feeder_;
};

/// Runs callbacks, on the operating system.
using Executor = BasicExecutor<EpollPoller>;

} // namespace reactor::inline v0
