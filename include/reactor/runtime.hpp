// SPDX-License-Identifier: Apache-2.0
//
// Story: the loop. It has no thread of its own: whoever calls run() or turn() is the loop's thread.
//
// A turn: wait -> tick -> due timers -> readiness -> commands -> flush. The Runtime owns
// everything: its Dispatcher the service, its Holdings the resources, timers and poller, its Line
// the mailbox that other threads send to. Every stage stands on a cursor or a queue that is a
// member, moved on before user code is called: a throw leaves all as it was behind the callback
// that threw, and the next turn goes on from there. Nothing here is done for a resource that was
// not touched.
#pragma once

#include <reactor/controller.hpp>
#include <reactor/detail/dispatcher.hpp>
#include <reactor/poller/epoll.hpp>

#include <algorithm>
#include <memory>

namespace reactor::inline v0 {

/// How a run ended.
struct Farewell {
    /// Nothing was forced, and nothing was left unsent by the end.
    bool clean = true;
    /// Transports that were still registered at the end, and were handed over by force.
    std::size_t forced = 0;
    /// Bytes accepted for sending that the kernel had not taken when their transport left.
    std::size_t unsent_bytes = 0;
};

/// Chosen for a Service that is no Handler, or a Poller that is none: says what is missing.
template <class Service, class Poller = EpollPoller>
class Runtime {
    static_assert(detail::ExplainHandler<Service>::explained);
    static_assert(detail::ExplainPoller<Poller>::explained);
};

/// The loop of one service. One thread at a time; only what `controller()` gives is for others.
template <class S, class P>
requires Handler<S> && Poller<P>
class Runtime<S, P> {
    using Listener = typename S::Listener;
    using Transport = typename S::Transport;
    using Command = typename S::Command;
    using Error = typename S::Error;
    using Kernel = typename P::Kernel;
    using Line = detail::Line<Listener, Transport, Command>;
    using Dispatcher = detail::Dispatcher<S, P>;

  public:
    /// What another thread may hold.
    using Controller = reactor::Controller<Listener, Transport, Command>;

#ifdef __cpp_exceptions
    /// Throws std::system_error if the poller or the waker cannot be made.
    explicit Runtime(S service, const Options& options = {}, P poller = P{})
        : Runtime(std::move(service), options, std::move(poller), Unchecked{}) {
        if (failure_) {
            throw std::system_error(failure_, "reactor::Runtime");
        }
    }
#endif
    /// The same, with the failure as a value; the run has then ended before it began.
    Runtime(S service, const Options& options, std::error_code& error)
        : Runtime(std::move(service), options, make_poller(error), Unchecked{}) {
        error = error ? error : failure_;
    }
    /// The same, over this poller.
    Runtime(S service, const Options& options, P poller, std::error_code& error)
        : Runtime(std::move(service), options, std::move(poller), Unchecked{}) {
        error = failure_;
    }
    Runtime(const Runtime&) = delete;
    Runtime& operator=(const Runtime&) = delete;
    /// Destroys what is registered, without a callback; shut down first to have it handed over.
    [[gnu::cold]] ~Runtime() {
        ended_ = true; // for the destructors of resources, should they call back
        line_->mailbox.close();
        line_->mailbox.collect();
        while (line_->mailbox.has_next()) {
            line_->mailbox.drop_next(); // a controller may keep the line
        }
    }

    /// Registers a listener, before the run or between turns. A failure comes to `handle_error`.
    /// After the end it is closed, and the id names nothing.
    ResourceId listen(Listener listener) {
        return ended_ ? ResourceId{}
                      : dispatcher_.actions.register_listener(std::move(listener));
    }

#ifdef __cpp_exceptions
    /// Turns until the end: a shutdown(), or a drain that is done; after that it returns at once.
    /// What a callback throws passes through and leaves the runtime fit to run on. Throws
    /// std::system_error in a forked child and when called within a callback.
    Farewell run() {
        std::error_code error;
        const Farewell farewell = run(error);
        if (error) {
            throw std::system_error(error, "reactor::Runtime::run");
        }
        return farewell;
    }
    /// One turn, waiting at most `max_wait`. False once the run has ended. Throws as run() does.
    bool turn(Duration max_wait) {
        std::error_code error;
        const bool goes_on = turn(max_wait, error);
        if (error) [[unlikely]] {
            throw std::system_error(error, "reactor::Runtime::turn");
        }
        return goes_on;
    }
#endif
    /// As run(), with the refusal as a value: operation_not_permitted in a forked child,
    /// resource_deadlock_would_occur within a callback.
    Farewell run(std::error_code& error) {
        error.clear();
        while (may_turn(error) && turn_once(Duration::max())) {
        }
        return farewell_;
    }
    /// As turn(), with the refusal as a value.
    bool turn(Duration max_wait, std::error_code& error) {
        error.clear();
        return may_turn(error) && turn_once(max_wait);
    }

    /// How long an outer loop may wait before the next turn; Duration::max(): until fd() is ready.
    /// To be asked after each turn: from then on a command shows at fd().
    [[nodiscard]] Duration until_next() {
        return ended_ || !dispatcher_.actions.empty() || never_waits() || !fall_asleep()
                   ? Duration::zero()
                   : idle_span();
    }
    /// Readable when a turn would not wait; where the poller has such a descriptor.
    [[nodiscard]] int fd() const noexcept requires detail::can_be_nested<P> {
        return own_.poller.fd();
    }
    /// The service; between turns, on the loop's thread.
    [[nodiscard]] S& service() noexcept { return dispatcher_.service; }
    /// The poller; between turns, on the loop's thread.
    [[nodiscard]] P& poller() noexcept { return own_.poller; }
    /// From now on controllers say `closed`. For whoever will not run it any more.
    void refuse_commands() noexcept { line_->mailbox.close(); }
    /// The handle for other threads; it may outlive the runtime.
    [[nodiscard]] Controller controller() const noexcept { return Controller(line_); }
    /// How the run ended, once it has.
    [[nodiscard]] const Farewell& farewell() const noexcept { return farewell_; }
    /// Reports that named nothing live: of what was unregistered in the same batch, or of a
    /// descriptor that somebody closed behind the reactor's back.
    [[nodiscard]] std::uint64_t stale_reports() const noexcept { return stale_reports_; }

  private:
    static constexpr Duration ghost_rest = std::chrono::milliseconds{10};

    struct Unchecked {};

    [[gnu::cold]] Runtime(S&& service, const Options& options, P&& poller, Unchecked)
        : dispatcher_(std::move(service), options, std::move(poller)),
          own_(dispatcher_.own),
          options_(dispatcher_.options) {
        const os::Result made = Kernel::event_fd();
        failure_ = made.code();
        os::BasicFd<Kernel> bell(made.fd_or_none()); // until the line stands, which closes it
        line_ = std::make_shared<Line>(
            options_.command_queue, detail::Doorbell{bell.get(), &Kernel::ring, &Kernel::close});
        const int fd = bell.release();
        if (!failure_ && !line_->mailbox.has_memory()) {
            failure_ = std::make_error_code(std::errc::not_enough_memory);
        }
        if (!failure_) {
            failure_ = own_.poller.watch_waker(fd);
        }
        if (failure_) {
            ended_ = true;
            line_->mailbox.close();
        }
    }
    [[nodiscard]] static P make_poller(std::error_code& error) {
        if constexpr (std::constructible_from<P, std::error_code&>) {
            return P(error);
        } else {
            error.clear();
            return P{};
        }
    }

    bool turn_once(Duration max_wait) {
        const detail::Flag turn(in_turn_);
        start();
        wait(max_wait);
        tick();
        fire_timers();
        serve_readiness();
        take_commands();
        flush();
        completed_ = true;
        return !reach_end();
    }

    /// False after the end, and where a turn is refused.
    [[nodiscard]] bool may_turn(std::error_code& error) const noexcept {
        if (in_turn_) [[unlikely]] {
            error = std::make_error_code(std::errc::resource_deadlock_would_occur);
            return false;
        }
        if (own_.is_foreign()) [[unlikely]] {
            error = std::make_error_code(std::errc::operation_not_permitted);
            return false;
        }
        return !ended_;
    }
    [[nodiscard]] bool stopping() const noexcept { return dispatcher_.stopping; }

    /// How long the next wait may take.
    [[nodiscard]] Duration idle_span() {
        if (!completed_ || own_.restless || dispatcher_.actions.refused() != 0 || stopping()) {
            return Duration::zero(); // refused: by the last callbacks of the turn, and not told yet
        }
        const std::optional<Timestamp> deadline = own_.wheel.next_deadline();
        return deadline ? std::max(saturating_sub(*deadline, own_.clock()), Duration::zero())
                        : Duration::max();
    }
    /// From now on who sends rings. False: something is there already.
    bool fall_asleep() noexcept {
        asleep_ = line_->mailbox.prepare_sleep();
        return asleep_;
    }
    /// From now on nobody rings.
    void wake_up() noexcept {
        if (std::exchange(asleep_, false)) {
            line_->mailbox.awake();
        }
    }
    [[nodiscard]] bool never_waits() const noexcept {
        if constexpr (detail::tells_that_it_never_waits<P>) {
            return own_.poller.never_waits();
        } else {
            return false;
        }
    }

    // -- the stages of a turn, in their order -----------------------------------------------------

    void start() {
        dispatcher_.begin_turn();
        if (!started_) [[unlikely]] {
            take_requests();
            started_ = true;
            if (!stopping()) {
                dispatcher_.call([&] { service().handle_start(dispatcher_.actions); });
            }
        }
        if (!dispatcher_.actions.empty() || dispatcher_.has_shed()) [[unlikely]] {
            own_.restless = true; // what was asked for now has its flush before the loop sleeps
            dispatcher_.perform_waiting();
        }
    }

    void wait(Duration max_wait) {
        if (next_report_ != reported_) [[unlikely]] { // a throw left these behind
            wake_up();
            return;
        }
        Duration timeout = std::clamp(max_wait, Duration::zero(), idle_span());
        if (timeout > Duration::zero() && !fall_asleep()) {
            timeout = Duration::zero();
        }
        if (std::exchange(ghost_rests_, false)) [[unlikely]] {
            Kernel::sleep(std::clamp<Duration>(max_wait, Duration::zero(), ghost_rest));
        }
        own_.left.clear();
        const PollResult result = own_.poller.wait(timeout, options_.events_per_wait);
        wake_up();
        if (line_->mailbox.collect()) [[unlikely]] {
            take_requests();
        }
        own_.restless = completed_ = false;
        own_.turn_time_known = false;
        next_report_ = 0;
        reported_ = result.count;
        if (result.error || failed_waits_ != 0) [[unlikely]] {
            poll_failed(result.error, max_wait);
        }
    }

    void tick() {
        if (!stopping()) {
            dispatcher_.call([&] { service().tick(dispatcher_.actions); });
        }
    }

    void fire_timers() {
        if (own_.wheel.empty()) {
            return;
        }
        own_.wheel.advance(own_.turn_time());
        for (std::size_t n = 0; n < options_.timers_per_turn && !stopping(); ++n) {
            const auto due = own_.wheel.pop_due();
            if (!due) {
                return;
            }
            if (due->tag == 0) {
                dispatcher_.call([&] { service().handle_timer(due->id, dispatcher_.actions); });
            } else if (due->tag == own_.drain_tag) {
                --own_.lazy_timers;
                dispatcher_.stopping = true;
            } else {
                dispatcher_.fire_deadline(ResourceId::from_value(due->tag));
            }
        }
        own_.restless |= own_.wheel.has_due();
    }

    void serve_readiness() {
        while (next_report_ != reported_ && !stopping()) {
            const PollEvent event = own_.poller.event(next_report_++);
            if (!dispatcher_.serve(event.id, event.readiness)) [[unlikely]] {
                nobody_there(event.id);
            }
        }
        if (!own_.left_over.empty()) {
            dispatcher_.serve_left_over();
        }
    }

    void take_commands() {
        if (line_->mailbox.collect()) [[unlikely]] {
            take_requests();
            own_.restless = true; // who woke us meanwhile is owed a whole turn
        }
        if (line_->mailbox.has_next()) {
            take_messages();
        }
    }

    void flush() {
        if (dispatcher_.draining || dispatcher_.drain_asked) [[unlikely]] {
            lead_out();
        }
        if (dispatcher_.actions.refused() != 0 || own_.holes != 0) [[unlikely]] {
            dispatcher_.tell_refusals();
        }
        if (own_.transports.any_touched()) {
            own_.ledger.begin_pass();
            dispatcher_.finish_turn(own_.transports);
            own_.ledger.end_pass();
        }
        if (own_.listeners.any_touched()) {
            dispatcher_.finish_turn(own_.listeners);
        }
        if (own_.transports.any_touched()) [[unlikely]] {
            own_.restless = true;
        } else {
            own_.gather.clear(); // nobody borrows any more
        }
        if (!own_.listeners_are_told()) [[unlikely]] {
            own_.restless = true;
        }
        own_.listeners.trim();
        own_.transports.trim();
        if (own_.ledger.burst_is_over() && options_.return_memory) [[unlikely]] {
            return_memory();
        }
    }

    /// Ends the run if it is time. True once it has ended.
    bool reach_end() {
        if (dispatcher_.draining && led_out_ && own_.transports.live() == 0 &&
            dispatcher_.actions.empty() && !line_->mailbox.has_next()) {
            dispatcher_.stopping = true;
        }
        if (stopping()) [[unlikely]] {
            part();
        }
        return ended_;
    }

    // -- what a stage needs now and then ----------------------------------------------------------

    void take_messages() {
        for (std::size_t n = 0; n < options_.commands_per_turn && !stopping(); ++n) {
            if (!line_->mailbox.has_next()) {
                return;
            }
            auto message = line_->mailbox.take_next();
            if (auto* const command = std::get_if<0>(&message)) {
                handle_command(std::move(*command));
            } else if (auto* const listener = std::get_if<1>(&message)) {
                dispatcher_.register_sent(own_.listeners, std::move(*listener));
            } else if (auto* const transport = std::get_if<2>(&message)) {
                dispatcher_.register_sent(own_.transports, std::move(*transport));
            }
        }
        own_.restless |= line_->mailbox.has_next();
    }
    void handle_command(Command&& command) {
        if constexpr (!std::same_as<Command, NoCommand>) {
            dispatcher_.call(
                [&] { service().handle_command(std::move(command), dispatcher_.actions); });
        }
    }

    /// Thousands of buffers were freed; an allocator may keep them all below one that still lives.
    [[gnu::cold]] static void return_memory() noexcept {
        if constexpr (requires { Kernel::return_memory(); }) {
            Kernel::return_memory();
        }
    }

    /// What a controller asked for besides sending.
    [[gnu::cold]] void take_requests() {
        if (line_->shutdown.load(std::memory_order_acquire)) {
            dispatcher_.stopping = true;
        }
        if (const auto limit = line_->drain.exchange(-1, std::memory_order_acq_rel); limit >= 0) {
            dispatcher_.drain_asked =
                std::min(dispatcher_.drain_asked.value_or(Duration::max()), Duration{limit});
        }
    }

    /// Tells the first failure of a row, rests longer after each, and ends the run after too many.
    [[gnu::cold]] void poll_failed(std::error_code error, Duration max_wait) {
        if (!error) {
            failed_waits_ = 0;
            return;
        }
        const std::size_t failures = ++failed_waits_;
        if (failures == 1) {
            dispatcher_.tell(Error(ErrorKind::poll_failed, {}, error));
        }
        if (failures > options_.poll_failures) {
            dispatcher_.stopping = true;
            return;
        }
        const Duration rest =
            std::chrono::milliseconds{1} * (1 << std::min<std::size_t>(failures, 10));
        Kernel::sleep(std::min(rest, max_wait));
    }

    /// A report of nobody. Of who has left since the wait it is no surprise. Of anybody else it is
    /// a ghost: a descriptor that was closed behind our back and lives on in a duplicate, which the
    /// kernel will report for ever. Then the poller starts afresh with who is really here.
    [[gnu::cold]] void nobody_there(ResourceId id) {
        if (!id) {
            return; // the waker
        }
        ++stale_reports_;
        const auto left = own_.left.waiting();
        if (std::find(left.begin(), left.end(), id) != left.end()) {
            return;
        }
        if constexpr (detail::can_start_afresh<P>) {
            if (const std::error_code error = own_.poller.start_afresh()) {
                return bear_ghost(error);
            }
            ghost_told_ = false;
            own_.watch_again(own_.listeners);
            own_.watch_again(own_.transports);
        }
    }
    /// It cannot be driven out now: told once, and no reason to spin.
    void bear_ghost(std::error_code error) {
        if (!std::exchange(ghost_told_, true)) {
            dispatcher_.tell(Error(ErrorKind::poll_failed, {}, error));
        }
        ghost_rests_ = true;
    }

    /// The gentle end: listeners leave, the service (or we) takes leave of the transports.
    [[gnu::cold]] void lead_out() {
        if (dispatcher_.drain_asked) {
            begin_drain(*std::exchange(dispatcher_.drain_asked, std::nullopt));
        }
        std::size_t index = 0;
        while (auto* const slot = stopping() ? nullptr : own_.listeners.next(index)) {
            dispatcher_.hand_over(own_.listeners, *slot);
        }
        if (led_out_ || stopping()) {
            return;
        }
        led_out_ = true;
        if constexpr (detail::answers_drain<S>) {
            dispatcher_.call([&] { service().handle_drain(drain_deadline_, dispatcher_.actions); });
        } else {
            index = 0;
            while (auto* const slot = own_.transports.next(index)) {
                dispatcher_.close_write(*slot);
            }
        }
    }
    [[gnu::cold]] void begin_drain(Duration limit) {
        const Timestamp deadline = saturating_add(own_.clock(), std::max(limit, Duration::zero()));
        drain_deadline_ = dispatcher_.draining ? std::min(drain_deadline_, deadline) : deadline;
        if (!dispatcher_.draining) {
            drain_timer_ = own_.wheel.set(drain_deadline_, Duration::zero(), own_.drain_tag);
            own_.lazy_timers += drain_timer_ ? 1U : 0U;
            if (!drain_timer_) {
                dispatcher_.stopping = true; // no memory to wait with: forced now
            }
            dispatcher_.draining = true;
        } else {
            own_.wheel.reset(drain_timer_, drain_deadline_);
        }
    }

    /// The end: everything leaves through its handover; what the service asks for now is dropped.
    /// A throw leaves the rest for the next turn.
    [[gnu::cold]] void part() {
        line_->mailbox.close();
        own_.is_parting = true;
        dispatcher_.tell_shed();
        give_back_waiting();
        std::size_t index = 0;
        while (auto* const slot = own_.listeners.next(index)) {
            dispatcher_.hand_over(own_.listeners, *slot);
            dispatcher_.actions.clear();
        }
        index = 0;
        while (auto* const slot = own_.transports.next(index)) {
            ++farewell_.forced;
            dispatcher_.hand_over(own_.transports, *slot);
            dispatcher_.actions.clear();
        }
        farewell_.unsent_bytes = dispatcher_.unsent_bytes;
        farewell_.clean = farewell_.forced == 0 && farewell_.unsent_bytes == 0;
        ended_ = true;
    }
    /// What was still to be registered comes back, what was still to be sent is counted; commands
    /// are destroyed.
    [[gnu::cold]] void give_back_waiting() {
        auto& actions = dispatcher_.actions;
        const auto cancelled = std::make_error_code(std::errc::operation_canceled);
        for (std::size_t n = actions.size(); n > 0; --n) {
            const Action action = actions.take();
            if (action.kind() == ActionKind::register_listener) {
                dispatcher_.turn_away(own_.listeners, action.id(), actions.take_listener(),
                                      cancelled);
            } else if (action.kind() == ActionKind::register_transport) {
                dispatcher_.turn_away(own_.transports, action.id(), actions.take_transport(),
                                      cancelled);
            } else {
                dispatcher_.unsent_bytes += action.bytes().size();
            }
        }
        actions.clear();
        line_->mailbox.collect();
        while (line_->mailbox.has_next()) {
            auto message = line_->mailbox.take_next();
            if (auto* const listener = std::get_if<1>(&message)) {
                dispatcher_.turn_away(own_.listeners, {}, std::move(*listener), cancelled);
            } else if (auto* const transport = std::get_if<2>(&message)) {
                dispatcher_.turn_away(own_.transports, {}, std::move(*transport), cancelled);
            }
            actions.clear();
        }
    }

    std::shared_ptr<Line> line_;
    Dispatcher dispatcher_;
    typename Dispatcher::Own& own_;
    const Options& options_;
    std::size_t reported_ = 0;    ///< reports in the poller's batch,
    std::size_t next_report_ = 0; ///< and which comes next
    std::size_t failed_waits_ = 0;
    std::uint64_t stale_reports_ = 0;
    Timestamp drain_deadline_ = Timestamp::max();
    TimerId drain_timer_;
    Farewell farewell_;
    std::error_code failure_;
    bool in_turn_ = false;
    bool asleep_ = false; ///< who sends will ring
    bool ghost_told_ = false;
    bool ghost_rests_ = false; ///< the next wait comes a little later
    bool started_ = false;
    bool completed_ = false; ///< the last turn was not thrown out of
    bool led_out_ = false;
    bool ended_ = false;
};

} // namespace reactor::inline v0
