// SPDX-License-Identifier: Apache-2.0
//
// Contracts: the service, a state machine that gets events and answers with actions.
//
// Every callback is called on the loop's thread, one at a time, never from within another, and must
// not block. It changes the reactor only through the Actions it is given. A Handler answers all of
// them; `Service` is a base that answers safely what a service leaves out, so that only the two
// event functions have to be written. A callback is found by name: a derived class hides the base's
// answer. One with a wrong signature does not compile, and the first error says which it is.
#pragma once

#include <reactor/action.hpp>
#include <reactor/error.hpp>

namespace reactor::inline v0 {

template <class Listener, class Transport, class Command>
class Controller; // controller.hpp

/// The Command of a service that takes none; there is no value of it.
struct NoCommand {
    NoCommand() = delete;
};

/// The role that a service does not use: a Resource of which there is no value.
struct NoListener {
    /// @{
    /// As the concept Resource asks; never called.
    using Event = NoCommand;

    NoListener() = delete;
    [[nodiscard]] int fd() const noexcept { return -1; }
    [[nodiscard]] Interest interest() const noexcept { return {}; }
    std::optional<Event> handle_io(Io) noexcept { return std::nullopt; }
    /// @}
};

/// The same for transports.
struct NoTransport : NoListener {
    /// @{
    /// As the concept Writable asks; never called.
    WriteStatus write_atomic(std::span<const std::byte>) noexcept { return WriteStatus::ended; }
    [[nodiscard]] bool is_ready_to_write() const noexcept { return false; }
    void flush() noexcept {}
    void close_write() noexcept {}
    [[nodiscard]] std::size_t unsent() const noexcept { return 0; }
    /// @}
};

/// A base for services: names the associated types and answers every callback but the two for
/// events (and `handle_command` where a Command is named). Add `handle_drain(Timestamp, Actions&)`
/// to take leave of the peers in your own way; without it a drain does `close_write` on every
/// transport.
template <class ListenerType, class TransportType, class CommandType = NoCommand>
struct Service {
    /// @{
    /// The names that the concept Handler asks for.
    using Listener = ListenerType;
    using Transport = TransportType;
    using Command = CommandType;
    using Actions = BasicActions<Listener, Transport>;
    using Error = BasicError<Listener, Transport>;
    using Controller = reactor::Controller<Listener, Transport, Command>;
    /// @}

    /// Once, at the beginning of the first turn.
    void handle_start(Actions&) {}
    /// Every turn, after the wait.
    void tick(Actions&) {}
    /// Once for each due timer, in order of exact deadline, then of setting.
    void handle_timer(TimerId, Actions&) {}
    /// The resource is in the poller from now on.
    void handle_registered(ResourceId, Role, int, Actions&) {}
    /// What the error gives back is closed; a live transport whose send came back leaves, so that
    /// no stream gets a silent hole.
    void handle_error(Error error, Actions& actions) {
        if (error.kind() == ErrorKind::send_returned) {
            actions.unregister_transport(error.id());
        }
    }
    /// The service asked for it to leave; here it is closed.
    void handover_listener(ResourceId, Listener, Actions&) {}
    /// The service asked for it to leave; here it is closed.
    void handover_transport(ResourceId, Transport, Actions&) {}
};

namespace detail {

template <class S>
concept is_complete = requires { sizeof(S); };
template <class S>
concept is_movable = is_complete<S> && std::move_constructible<S>;

template <class S>
concept names_listener = requires { typename S::Listener; } && Resource<typename S::Listener>;
template <class S>
concept names_transport = requires { typename S::Transport; } && Writable<typename S::Transport>;
template <class S>
concept names_command = requires { typename S::Command; } &&
                        std::is_nothrow_destructible_v<typename S::Command> &&
                        (std::move_constructible<typename S::Command>);
template <class S>
concept names_actions =
    std::same_as<typename S::Actions, BasicActions<typename S::Listener, typename S::Transport>>;
template <class S>
concept names_error =
    std::same_as<typename S::Error, BasicError<typename S::Listener, typename S::Transport>>;

// Each is the call that the runtime makes.

template <class S>
concept answers_start = requires(S& s, typename S::Actions& actions) {
    { s.handle_start(actions) } -> std::same_as<void>;
};
template <class S>
concept answers_tick = requires(S& s, typename S::Actions& actions) {
    { s.tick(actions) } -> std::same_as<void>;
};
template <class S>
concept answers_timer = requires(S& s, TimerId timer, typename S::Actions& actions) {
    { s.handle_timer(timer, actions) } -> std::same_as<void>;
};
template <class S>
concept answers_listener_event =
    std::same_as<typename S::Listener, NoListener> ||
    requires(S& s, ResourceId id, typename S::Listener::Event&& event,
             typename S::Actions& actions) {
        { s.handle_listener_event(id, std::move(event), actions) } -> std::same_as<void>;
    };
template <class S>
concept answers_transport_event =
    std::same_as<typename S::Transport, NoTransport> ||
    requires(S& s, ResourceId id, typename S::Transport::Event&& event,
             typename S::Actions& actions) {
        { s.handle_transport_event(id, std::move(event), actions) } -> std::same_as<void>;
    };
template <class S>
concept answers_registered =
    requires(S& s, ResourceId id, Role role, int fd, typename S::Actions& actions) {
        { s.handle_registered(id, role, fd, actions) } -> std::same_as<void>;
    };
template <class S>
concept answers_command =
    (std::same_as<typename S::Command, NoCommand> && !requires { &S::handle_command; }) ||
    requires(S& s, typename S::Command&& command, typename S::Actions& actions) {
        { s.handle_command(std::move(command), actions) } -> std::same_as<void>;
    };
template <class S>
concept answers_error =
    requires(S& s, typename S::Error&& error, typename S::Actions& actions) {
        { s.handle_error(std::move(error), actions) } -> std::same_as<void>;
    };
template <class S>
concept takes_listener = requires(S& s, ResourceId id, typename S::Listener&& listener,
                                  typename S::Actions& actions) {
    { s.handover_listener(id, std::move(listener), actions) } -> std::same_as<void>;
};
template <class S>
concept takes_transport = requires(S& s, ResourceId id, typename S::Transport&& transport,
                                   typename S::Actions& actions) {
    { s.handover_transport(id, std::move(transport), actions) } -> std::same_as<void>;
};
template <class S>
concept answers_drain = requires(S& s, Timestamp deadline, typename S::Actions& actions) {
    { s.handle_drain(deadline, actions) } -> std::same_as<void>;
};
template <class S>
concept drain_is_well_formed = answers_drain<S> || !requires { &S::handle_drain; };

} // namespace detail

/// What a service must answer. Its associated types are Listener (a Resource), Transport (a
/// Writable), Command (movable), Actions and Error; its callbacks are those of `Service`, with
/// `handle_listener_event(ResourceId, Listener::Event, Actions&)`,
/// `handle_transport_event(ResourceId, Transport::Event, Actions&)`: views in the event live until
/// it returns, `handle_command(Command, Actions&)` where a Command is named, and optionally
/// `handle_drain(Timestamp deadline, Actions&)`: once, when a drain began and the listeners have
/// left. All are public, return void, and may throw: see Runtime::run().
template <class S>
concept Handler =
    detail::is_movable<S> && detail::names_listener<S> && detail::names_transport<S> &&
    detail::names_command<S> && detail::names_actions<S> && detail::names_error<S> &&
    detail::answers_listener_event<S> && detail::answers_transport_event<S> &&
    detail::answers_command<S> && detail::answers_start<S> && detail::answers_tick<S> &&
    detail::answers_timer<S> && detail::answers_registered<S> && detail::answers_error<S> &&
    detail::takes_listener<S> && detail::takes_transport<S> && detail::drain_is_well_formed<S>;

namespace detail {

/// True; where the type is named but is no Resource, instantiating this says what it lacks.
template <class S>
constexpr bool listener_explained() {
    if constexpr (requires { typename S::Listener; }) {
        return ExplainResource<typename S::Listener>::explained;
    }
    return true;
}
template <class S>
constexpr bool transport_explained() {
    if constexpr (requires { typename S::Transport; }) {
        return ExplainWritable<typename S::Transport>::explained;
    }
    return true;
}

/// Instantiated where S names the right types but is no Handler.
template <class S>
struct ExplainCallbacks {
    static_assert(answers_listener_event<S>,
                  "the service must have a public void handle_listener_event(ResourceId, "
                  "Listener::Event, Actions&)");
    static_assert(answers_transport_event<S>,
                  "the service must have a public void handle_transport_event(ResourceId, "
                  "Transport::Event, Actions&)");
    static_assert(answers_command<S> || std::same_as<typename S::Command, NoCommand>,
                  "the service names a Command, so it must have a public void "
                  "handle_command(Command, Actions&)");
    static_assert(answers_command<S>, "the service has a handle_command, so it must name a type "
                                      "Command, as Service<Listener, Transport, Command> does");
    static_assert(answers_start<S>, "the service's handle_start must be public and read: void "
                                    "handle_start(Actions&)");
    static_assert(answers_tick<S>,
                  "the service's tick must be public and read: void tick(Actions&)");
    static_assert(answers_timer<S>, "the service's handle_timer must be public and read: void "
                                    "handle_timer(TimerId, Actions&)");
    static_assert(answers_registered<S>,
                  "the service's handle_registered must be public and read: void "
                  "handle_registered(ResourceId, Role, int fd, Actions&)");
    static_assert(answers_error<S>, "the service's handle_error must be public and read: void "
                                    "handle_error(Error, Actions&)");
    static_assert(takes_listener<S>,
                  "the service's handover_listener must be public and read: void "
                  "handover_listener(ResourceId, Listener, Actions&)");
    static_assert(takes_transport<S>,
                  "the service's handover_transport must be public and read: void "
                  "handover_transport(ResourceId, Transport, Actions&)");
    static_assert(drain_is_well_formed<S>,
                  "the service's handle_drain must be public and read: void "
                  "handle_drain(Timestamp deadline, Actions&)");
    static constexpr bool explained = true;
};

/// Instantiated where a Handler was wanted and S is none: the first error is a plain sentence.
template <class S>
struct ExplainHandler {
    static_assert(is_complete<S>, "the service is not complete here: define it before the Runtime "
                                  "or Reactor that runs it");
    static_assert(!is_complete<S> || std::move_constructible<S>,
                  "the service must be movable: the Runtime owns it by value");
    static_assert(!is_complete<S> || requires { typename S::Listener; },
                  "the service must name a type Listener: derive it publicly from "
                  "Service<Listener, Transport>");
    static_assert(!is_complete<S> || requires { typename S::Transport; },
                  "the service must name a type Transport: derive it publicly from "
                  "Service<Listener, Transport>");
    static_assert(listener_explained<S>());
    static_assert(transport_explained<S>());
    static_assert(!is_complete<S> || names_command<S>,
                  "the service must name a movable type Command (NoCommand if it takes none)");
    static_assert(!is_complete<S> || names_actions<S>,
                  "the service must name Actions: BasicActions<Listener, Transport>");
    static_assert(!is_complete<S> || names_error<S>,
                  "the service must name Error: BasicError<Listener, Transport>");
    static constexpr bool types_are_right = names_listener<S> && names_transport<S> &&
                                            names_command<S> && names_actions<S> && names_error<S>;
    static constexpr bool explained = [] {
        if constexpr (types_are_right) {
            return ExplainCallbacks<S>::explained;
        }
        return true;
    }();
};

} // namespace detail

} // namespace reactor::inline v0
