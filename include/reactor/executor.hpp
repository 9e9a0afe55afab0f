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
#include <reactor/executor/caller.hpp>
#include <reactor/executor/feeder.hpp>
#include <reactor/reactor.hpp>

#include <algorithm>
#include <memory>

namespace reactor::inline v0 {

/// Where the callbacks run.
enum class Placement : std::uint8_t {
    in_loop, ///< in the loop, on the thread that calls run()
    beside,  ///< on the thread that calls run(), fed by a loop that has a thread of its own
};

/// Runs callbacks. One thread, but for what `controller()` gives. `P`: the poller of its loop.
template <class P = EpollPoller>
class BasicExecutor {
  public:
    /// What the loop waits with.
    using Poller = P;
    /// By which system calls are made.
    using Kernel = typename P::Kernel;
    /// What owns an adopted descriptor.
    using Fd = os::BasicFd<Kernel>;
    /// What runs: called with the executor and the readiness. Any callable that moves; one of up
    /// to 56 bytes needs no allocation. The readiness of a timer, or of what was posted, is none.
    using Callback = detail::Callback<void(BasicExecutor&, Readiness)>;
    /// The handle for other threads: post(), shutdown(), wake().
    using Controller =
        ExecutorController<Callback, reactor::Controller<detail::Watch<Fd>, NoTransport,
                                                         detail::ExecutorCommand<Callback>>>;

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
    /// Destroys what is awaited, without running it, and closes what it owns. Not in a callback.
    ~BasicExecutor() {
        caller_.end();
        runtime_.refuse_commands();
        caller_.registry.clear();
    }

    // -- awaiting; in a callback, or when none runs -----------------------------------------------

    /// Runs the callback once, when the event is there. The descriptor is set non-blocking, and
    /// stays the caller's, who cancels or forgets it before closing it (or see adopt()). Each half
    /// of a descriptor is awaited by one event at most. Errors: those of Registry::await() and of
    /// fcntl(2); operation_canceled after the end of the run. That the poller refuses the
    /// descriptor is told to the callback: see cause().
    Awaited await_once(Event event, Callback callback) {
        return caller_.await(event, Times::once, std::move(callback));
    }
    /// Runs the callback each time the event is there, until cancelled: again and again, as long as
    /// it is there (level-triggered). Errors as await_once().
    Awaited await_keep(Event event, Callback callback) {
        return caller_.await(event, Times::keep, std::move(callback));
    }
    /// Runs the callback (with the executor, or that and the readiness) once, so long after this
    /// call, never early. Errors: no_buffer_space (Options::timers), operation_canceled after the
    /// end of the run. Where a timer that was asked for outside of callbacks cannot be set, its
    /// callback is told: an error, and see cause().
    template <class F>
    Awaited await_after(Duration span, F&& callback) {
        return caller_.await(span, Times::once, timed(std::forward<F>(callback)));
    }
    /// The same, every `period` (at least 1 ns) until cancelled. Missed periods are skipped.
    template <class F>
    Awaited await_every(Duration period, F&& callback) {
        return caller_.await(std::max(period, Duration{1}), Times::keep,
                             timed(std::forward<F>(callback)));
    }
    /// The event is not fulfilled any more, not even if it is due; its callback is destroyed, or,
    /// if it is the one that runs, when it has returned. False: the event is over already.
    bool cancel(EventId event) { return caller_.cancel(event); }
    /// The event has another callback from now on; a callback may do so to itself. False: it is
    /// over already.
    bool replace(EventId event, Callback callback) {
        return caller_.registry.replace(event, std::move(callback));
    }
    /// Whether it may still be fulfilled. An event that is awaited once is over when its callback
    /// runs.
    [[nodiscard]] bool awaits(EventId event) noexcept { return caller_.registry.awaits(event); }
    /// What is awaited of this descriptor, by all together.
    [[nodiscard]] Interest interest(int fd) noexcept { return caller_.registry.interest(fd); }
    /// The event whose callback is running; names nothing at other times.
    [[nodiscard]] EventId current() const noexcept { return caller_.current(); }
    /// Why the callback that is running was told an error by the library: the descriptor cannot be
    /// watched, or the timer not be set, and the event is over. Zero: the error is the
    /// descriptor's own.
    [[nodiscard]] std::error_code cause() const noexcept { return caller_.cause(); }

    // -- descriptors ------------------------------------------------------------------------------

    /// The descriptor is the executor's from now on: closed by close(), or with the executor, once.
    /// Returns it, to be awaited; -1, and it is closed, if there is no room for more
    /// (Options::listeners).
    int adopt(Fd fd) {
        const int number = fd.get();
        return caller_.registry.adopt(std::move(fd)) ? number : -1;
    }
    /// Ends all events of this descriptor, and closes it once it has left the poller: behind the
    /// callback, with Placement::beside a little later. False: it is not the executor's to close,
    /// only its events are over.
    bool close(int fd) {
        const bool closes = caller_.registry.close(fd);
        caller_.has_asked();
        return closes;
    }
    /// Ends all events of this descriptor. What was adopted is given back.
    Fd forget(int fd) {
        Fd owned = caller_.registry.forget(fd);
        caller_.has_asked();
        return owned;
    }

    // -- running ----------------------------------------------------------------------------------

#ifdef __cpp_exceptions
    /// Runs callbacks until shutdown(); after that it returns at once. Does not end because nothing
    /// is awaited. What a callback throws passes through, and run() can be called again: the event
    /// goes on if it is kept, and what the callback had asked for is done. Throws
    /// std::system_error in a forked child and when called within a callback.
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
    /// As run(), with the refusal as a value: operation_not_permitted in a forked child,
    /// resource_deadlock_would_occur within a callback.
    Farewell run(std::error_code& error) {
        const Farewell farewell = runtime_.run(error);
        if (!error) {
            end();
        }
        return farewell;
    }
    /// As turn(), with the refusal as a value.
    bool turn(Duration max_wait, std::error_code& error) {
        const bool goes_on = runtime_.turn(max_wait, error);
        if (!goes_on && !error) {
            end();
        }
        return goes_on;
    }
    /// How long an outer loop may wait before the next turn; Duration::max(): until fd() is ready.
    /// To be asked after each turn.
    [[nodiscard]] Duration until_next() { return runtime_.until_next(); }
    /// Readable when a turn would not wait; where the poller has such a descriptor.
    [[nodiscard]] int fd() const noexcept requires detail::can_be_nested<P> {
        return runtime_.fd();
    }
    /// Ends the run, when the callback has returned. What is still awaited is not fulfilled.
    void shutdown() {
        if (caller_.actions() == nullptr || !caller_.actions()->shutdown()) {
            runtime_.controller().shutdown();
        }
    }
    /// The turn's time in a callback; else the clock's.
    [[nodiscard]] Timestamp now() {
        return caller_.actions() != nullptr ? caller_.actions()->now() : clock();
    }
    /// The handle for other threads; it may outlive the executor.
    [[nodiscard]] Controller controller() const noexcept {
        return Controller(runtime_.controller());
    }

  private:
    using Caller = detail::Caller<BasicExecutor>;
    friend Caller;
    using Loop = Runtime<typename Caller::Service, detail::NotingPoller<P>>;
    using Feeder = detail::Feeder<BasicExecutor>;
    struct Unchecked {};

    BasicExecutor(Placement placement, const Options& options, Unchecked)
        : caller_(*this, options.listeners, placement == Placement::beside),
          runtime_(typename Caller::Service(caller_), options,
                   detail::NotingPoller<P>(caller_.watches.note, make_poller(poller_failure_)),
                   failure_) {
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
    template <class F>
    static auto timed(F&& callback) {
        if constexpr (std::is_invocable_v<std::decay_t<F>&, BasicExecutor&, Readiness>) {
            return Callback(std::forward<F>(callback));
        } else {
            return Callback([held = std::decay_t<F>(std::forward<F>(callback))](
                                BasicExecutor& executor, Readiness) mutable { held(executor); });
        }
    }

    // What the Caller needs of the loop.
    [[nodiscard]] Timestamp clock() { return runtime_.poller().now(); }
    void wake() noexcept { runtime_.controller().wake(); }
    template <class Actions>
    [[nodiscard]] bool carry_out(typename Registry<Callback, Fd>::Order& order,
                                 detail::LinkId served, Actions& actions) {
        return feeder_ != nullptr ? feeder_->send(order)
                                  : caller_.watches.carry_out(order, served, actions);
    }
    /// The run is over: so is the feeding loop.
    void end() {
        caller_.end();
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

    Caller caller_;
    std::error_code poller_failure_;
    std::error_code failure_;
    Loop runtime_;
    std::unique_ptr<Feeder> feeder_;
};

/// Runs callbacks, on the operating system.
using Executor = BasicExecutor<EpollPoller>;

} // namespace reactor::inline v0
