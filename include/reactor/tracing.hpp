// SPDX-License-Identifier: Apache-2.0
//
// Annex: what a runtime does, a line a turn. Needs fmt.
//
// A TracingPoller is a Poller around a Poller, a TracingHandler a service around a service; both
// forward everything, and write down what they forward in a Trace that they share. Together they
// tell each turn in one line, which is given to a sink just before the next wait:
//
//     wait 2 | tick | timer #2.1 | #4.1 data(5) -> send #4.1 5 B | command -> shutdown
//
// After the arrow stands what the callback asked for. Each is useful alone too: the handler then
// gives a line a callback, and the poller tells what was reported. The loop knows nothing of this:
// who does not trace pays nothing.
//
//     Trace trace([](std::string_view line) { fmt::print(stderr, "{}\n", line); });
//     TracingHandler service(MyService(), trace);
//     TracingPoller poller(EpollPoller(), trace);
//     Runtime<decltype(service), decltype(poller)> loop(std::move(service), {}, std::move(poller));
#pragma once

#include <reactor/fmt.hpp>

#include <concepts>
#include <exception>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace reactor::inline v0 {

/// A handle on the line that is being written, and on the sink: anything that can be called with a
/// std::string_view. Copies share. On the loop's thread; the sink is called there and must not
/// throw.
template <class Sink>
class Trace {
  public:
    /// Begins with an empty line. Throws std::bad_alloc.
    explicit Trace(Sink sink) : state_(std::make_shared<State>(std::move(sink))) {}

    /// Gives what is written so far to the sink as a line; nothing if nothing is. Happens by itself
    /// before each wait and when the last handle goes.
    void flush() const { state_->flush(); }

  private:
    template <class P, class S>
    friend class TracingPoller;
    template <class H, class S>
    friend class TracingHandler;

    struct State {
        explicit State(Sink&& with) : sink(std::move(with)) {}
        State(const State&) = delete;
        State& operator=(const State&) = delete;
        ~State() { flush(); }

        void flush() {
            if (line.size() != 0) {
                sink(detail::view(line));
                line.clear();
            }
        }
        /// Begins an entry of the line.
        detail::Text& entry() {
            detail::add(line, line.size() == 0 ? "" : " | ");
            return line;
        }

        Sink sink;
        detail::Text line;
        bool has_poller = false;
        bool has_handler = false;
    };

    std::shared_ptr<State> state_;
};

/// A Poller that traces one.
template <class P, class Sink>
class TracingPoller {
  public:
    /// As Poller says.
    using Kernel = typename P::Kernel;

    /// Traces this one.
    TracingPoller(P poller, Trace<Sink> trace)
        : poller_(std::move(poller)), trace_(std::move(trace)) {
        trace_.state_->has_poller = true;
    }

    /// The poller that is traced.
    [[nodiscard]] P& inner() noexcept { return poller_; }

    /// @{
    /// As Poller says, of the poller that is traced.
    [[nodiscard]] Timestamp now() { return poller_.now(); }
    [[nodiscard]] std::error_code watch(int fd, ResourceId id, Interest interest) {
        return told("watch", fd, id, interest, poller_.watch(fd, id, interest));
    }
    [[nodiscard]] std::error_code set_interest(int fd, ResourceId id, Interest interest) {
        return told("interest", fd, id, interest, poller_.set_interest(fd, id, interest));
    }
    void unwatch(int fd, ResourceId id) {
        poller_.unwatch(fd, id);
        detail::add(trace_.state_->entry(), "unwatch {} fd {}", id, fd);
    }
    [[nodiscard]] std::error_code watch_waker(int fd) { return poller_.watch_waker(fd); }
    [[nodiscard]] PollResult wait(Duration timeout, std::size_t most) {
        auto& state = *trace_.state_;
        state.flush();
        const PollResult result = poller_.wait(timeout, most);
        detail::Text& line = state.entry();
        detail::add(line, "wait {}", result.count);
        if (result.error) {
            detail::add(line, " failed: {}", result.error.message());
        }
        for (std::size_t n = 0; n < result.count && !state.has_handler; ++n) {
            detail::add(line, "{} {}", n == 0 ? ":" : ",", poller_.event(n));
        }
        return result;
    }
    [[nodiscard]] PollEvent event(std::size_t index) const { return poller_.event(index); }

    [[nodiscard]] int fd() const noexcept requires detail::can_be_nested<P> { return poller_.fd(); }
    [[nodiscard]] bool never_waits() const noexcept
        requires detail::tells_that_it_never_waits<P> {
        return poller_.never_waits();
    }
    [[nodiscard]] std::error_code start_afresh() requires detail::can_start_afresh<P> {
        detail::add(trace_.state_->entry(), "start afresh");
        return poller_.start_afresh();
    }
    /// @}

  private:
    std::error_code told(std::string_view what, int fd, ResourceId id, Interest interest,
                         std::error_code error) {
        detail::Text& line = trace_.state_->entry();
        detail::add(line, "{} {} fd {} {}", what, id, fd, interest);
        if (error) {
            detail::add(line, " failed: {}", error.message());
        }
        return error;
    }

    P poller_;
    Trace<Sink> trace_;
};

/// A service that traces one.
template <class S, class Sink>
class TracingHandler {
  public:
    /// @{
    /// The names that the concept Handler asks for.
    using Listener = typename S::Listener;
    using Transport = typename S::Transport;
    using Command = typename S::Command;
    using Actions = typename S::Actions;
    using Error = typename S::Error;
    using Controller = reactor::Controller<Listener, Transport, Command>;
    /// @}

    /// Traces this one.
    TracingHandler(S service, Trace<Sink> trace)
        : service_(std::move(service)), trace_(std::move(trace)) {
        trace_.state_->has_handler = true;
    }

    /// The service that is traced.
    [[nodiscard]] S& inner() noexcept { return service_; }

    /// @{
    /// As Handler says; writes it down and passes it on.
    void handle_start(Actions& actions) {
        const Entry entry(*this, actions, "start");
        service_.handle_start(actions);
    }
    void tick(Actions& actions) {
        const Entry entry(*this, actions, "tick");
        service_.tick(actions);
    }
    void handle_timer(TimerId timer, Actions& actions) {
        const Entry entry(*this, actions, "timer {}", timer);
        service_.handle_timer(timer, actions);
    }
    void handle_listener_event(ResourceId id, typename Listener::Event event,
                               Actions& actions) requires(!std::same_as<Listener, NoListener>) {
        const Entry entry(*this, actions, "{} ", id);
        describe(event);
        service_.handle_listener_event(id, std::move(event), actions);
    }
    void handle_transport_event(ResourceId id, typename Transport::Event event,
                                Actions& actions) requires(!std::same_as<Transport, NoTransport>) {
        const Entry entry(*this, actions, "{} ", id);
        describe(event);
        service_.handle_transport_event(id, std::move(event), actions);
    }
    void handle_registered(ResourceId id, Role role, int fd, Actions& actions) {
        const Entry entry(*this, actions, "registered {} {} fd {}", role, id, fd);
        service_.handle_registered(id, role, fd, actions);
    }
    void handle_command(Command command,
                        Actions& actions) requires(!std::same_as<Command, NoCommand>) {
        const Entry entry(*this, actions, "command");
        service_.handle_command(std::move(command), actions);
    }
    void handle_drain(Timestamp deadline, Actions& actions) requires detail::answers_drain<S> {
        const Entry entry(*this, actions, "drain until {}", deadline);
        service_.handle_drain(deadline, actions);
    }
    void handle_error(Error error, Actions& actions) {
        const Entry entry(*this, actions, "error {}", error);
        service_.handle_error(std::move(error), actions);
    }
    void handover_listener(ResourceId id, Listener listener, Actions& actions) {
        const Entry entry(*this, actions, "handover {}", id);
        service_.handover_listener(id, std::move(listener), actions);
    }
    void handover_transport(ResourceId id, Transport transport, Actions& actions) {
        const Entry entry(*this, actions, "handover {}, {} B unsent", id, transport.unsent());
        service_.handover_transport(id, std::move(transport), actions);
    }
    /// @}

  private:
    /// Lasts while a callback does, however it is left: then tells what was asked for.
    class Entry {
      public:
        template <class... Args>
        Entry(TracingHandler& of, Actions& actions, fmt::format_string<Args...> format,
              Args&&... args)
            : handler_(of), actions_(actions), in_flight_(std::uncaught_exceptions()) {
            handler_.asked_.clear();
            detail::add(handler_.trace_.state_->entry(), format, std::forward<Args>(args)...);
            actions_.record_to(&handler_.asked_);
        }
        Entry(const Entry&) = delete;
        Entry& operator=(const Entry&) = delete;
        ~Entry() {
            actions_.record_to(nullptr);
            auto& state = *handler_.trace_.state_;
            std::string_view between = " -> ";
            for (const Action& action : handler_.asked_) {
                detail::add(state.line, between);
                detail::write(state.line, action, false);
                between = ", ";
            }
            if (std::uncaught_exceptions() != in_flight_) {
                detail::add(state.line, " threw");
            }
            if (!state.has_poller) {
                state.flush();
            }
        }

      private:
        TracingHandler& handler_;
        Actions& actions_;
        int in_flight_;
    };

    /// What the event is, as far as it lets us know.
    template <class Event>
    void describe(const Event& event) {
        detail::Text& line = trace_.state_->line;
        std::string_view what = "event";
        if constexpr (requires { event.data()->size(); }) {
            if (const auto* const data = event.data()) {
                return detail::add(line, "data({})", data->size());
            }
        }
        if constexpr (requires { Address(event.peer); }) {
            return detail::add(line, "peer {}", Address(event.peer));
        }
        if constexpr (requires { bool(event.eof()); }) {
            what = event.eof() ? "eof" : what;
        }
        if constexpr (requires { bool(event.connected()); }) {
            what = event.connected() ? "connected" : what;
        }
        if constexpr (requires { bool(event.blocked()) && bool(event.drained()); }) {
            what = event.blocked() ? "blocked" : event.drained() ? "drained" : what;
        }
        detail::add(line, what);
    }

    S service_;
    Trace<Sink> trace_;
    std::vector<Action> asked_;
};

} // namespace reactor::inline v0
