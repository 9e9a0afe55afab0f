// SPDX-License-Identifier: Apache-2.0
//
// The shapes that programs elsewhere are compiled against: names, parameters, results.
#include <reactor/net/tcp.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/reactor.hpp>

#include <chrono>
#include <concepts>
#include <string>
#include <utility>

using namespace reactor;

namespace {

template <class T, class Value>
constexpr bool is = std::same_as<T, Value>;

// --- Words ---------------------------------------------------------------------------------------

static_assert(Io::read != Io::write && Role::listener != Role::transport);
static_assert(Interest{true, false}.read && !Interest{true, false}.write);
static_assert(!std::convertible_to<Interest, Readiness>);
static_assert(!std::convertible_to<Readiness, Interest>);
static_assert(!std::convertible_to<ResourceId, TimerId>);
static_assert(!std::convertible_to<int, ResourceId> && !std::convertible_to<int, TimerId>);
static_assert(sizeof(ResourceId) == 8 && sizeof(TimerId) == 8);
static_assert(is<Duration, std::chrono::nanoseconds>);
static_assert(is<Timestamp, std::chrono::steady_clock::time_point>);

// --- Models and aliases --------------------------------------------------------------------------

static_assert(Poller<EpollPoller> && is<EpollPoller, BasicEpollPoller<os::Kernel>>);
static_assert(Poller<PollPoller> && is<PollPoller, BasicPollPoller<os::Kernel>>);
static_assert(is<EpollPoller::Kernel, os::Kernel> && is<PollPoller::Kernel, os::Kernel>);
static_assert(Resource<TcpListener> && is<TcpListener, BasicTcpListener<os::Kernel>>);
static_assert(Writable<TcpStream> && is<TcpStream, BasicTcpStream<os::Kernel>>);

// --- Service -------------------------------------------------------------------------------------

using Base = Service<TcpListener, TcpStream, std::string>;
static_assert(is<Service<TcpListener, TcpStream>::Command, NoCommand>);
static_assert(is<Base::Listener, TcpListener> && is<Base::Transport, TcpStream>);
static_assert(is<Base::Command, std::string>);
static_assert(is<Base::Actions, BasicActions<TcpListener, TcpStream>>);
static_assert(is<Base::Error, BasicError<TcpListener, TcpStream>>);
static_assert(is<Base::Controller, Controller<TcpListener, TcpStream, std::string>>);

struct Whole : Base {
    void handle_start(Actions&) {}
    void tick(Actions&) {}
    void handle_timer(TimerId, Actions&) {}
    void handle_listener_event(ResourceId, TcpListener::Event event, Actions&) {
        const Address peer(event.peer);
        const TcpStream stream(std::move(event.stream));
        static_cast<void>(peer);
    }
    void handle_transport_event(ResourceId, TcpStream::Event event, Actions&) {
        const std::span<const std::byte>* const data = event.data();
        const bool told = event.eof() || event.blocked() || event.drained() || event.connected();
        static_cast<void>(data != nullptr || told);
    }
    void handle_registered(ResourceId, Role, int, Actions&) {}
    void handle_command(std::string, Actions&) {}
    void handle_drain(Timestamp, Actions&) {}
    void handle_error(Error error, Actions&) {
        const ResourceId id = error.id();
        const std::error_code code = error.code();
        const bool end = error.is_end();
        const std::size_t unsent = error.unsent();
        const std::optional<TcpListener> listener = error.take_listener();
        const std::optional<TcpStream> transport = error.take_transport();
        const Buffer payload = error.take_payload();
        static_cast<void>(error.kind() == ErrorKind::ended && id && code && end && unsent == 0);
    }
    void handover_listener(ResourceId, TcpListener, Actions&) {}
    void handover_transport(ResourceId, TcpStream, Actions&) {}
};
static_assert(Handler<Whole>);

// --- Actions -------------------------------------------------------------------------------------

void ask(Whole::Actions& actions, TcpListener listener, TcpStream stream) {
    const Timestamp now = actions.now();
    const ResourceId from = actions.register_listener(std::move(listener));
    const ResourceId to = actions.register_transport(std::move(stream));
    const std::byte bytes[1]{};
    actions.send(to, std::span<const std::byte>(bytes));
    Buffer shared{std::span<const std::byte>(bytes)};
    actions.send(to, shared);
    actions.send(to, std::move(shared));
    const TimerId timer = actions.set_timer(Duration{1});
    const TimerId at = actions.set_timer_at(now);
    const TimerId interval = actions.set_interval(std::chrono::seconds{1});
    actions.reset_timer(timer, std::chrono::milliseconds{1});
    actions.cancel_timer(at);
    actions.cancel_timer(interval);
    actions.pause(from);
    actions.resume(from);
    actions.close_write(to);
    actions.unregister_transport(to);
    actions.unregister_listener(from);
    actions.drain(std::chrono::seconds{1});
    actions.shutdown();
    for (const Action& action : actions) {
        static_cast<void>(action.kind() == ActionKind::send && action.id() == to &&
                          action.bytes().empty() && action.duration() == Duration::zero());
    }
}

// --- Another thread ------------------------------------------------------------------------------

void steer(Controller<TcpListener, TcpStream, std::string> controller, TcpListener listener,
           TcpStream stream) {
    if (auto answer = controller.command("text"); !answer && (answer.full() || answer.closed())) {
        const std::optional<std::string> back = answer.take();
    }
    if (auto answer = controller.register_listener(std::move(listener)); !answer) {
        const std::optional<TcpListener> back = answer.take();
    }
    if (auto answer = controller.register_transport(std::move(stream)); !answer) {
        const std::optional<TcpStream> back = answer.take();
    }
    controller.drain(std::chrono::seconds{1});
    controller.shutdown();
    controller.wake();
}

// --- Runtime and Reactor -------------------------------------------------------------------------

void run() {
    Runtime<Whole> runtime{Whole{}, Options{}};
    runtime.listen(TcpListener::bind("127.0.0.1:0"));
    while (runtime.turn(std::chrono::milliseconds{1})) {
        const Duration until = runtime.until_next();
        static_cast<void>(until > Duration::zero() && runtime.fd() >= 0);
    }
    Whole& service = runtime.service();
    static_cast<void>(service);
    steer(runtime.controller(), TcpListener::bind("127.0.0.1:0"),
          TcpStream::connect("127.0.0.1:1", std::chrono::seconds{1}));
    const Farewell farewell = runtime.run();
    static_cast<void>(farewell.clean && farewell.forced == 0 && farewell.unsent_bytes == 0);

    Runtime<Whole, PollPoller> other{Whole{}};
    other.run();
}

void thread() {
    Reactor<Whole> reactor{Whole{}, Options{}};
    reactor.listen(TcpListener::bind("127.0.0.1:0"));
    reactor.controller().wake();
    Farewell farewell = reactor.join();
    farewell = reactor.join_until_signal();
    farewell = reactor.join_until_signal(std::chrono::seconds{1});

    Reactor<Whole, PollPoller> other{Whole{}};
    other.join();
}

void rest() {
    raise_descriptor_limit();
    ResourceMap<std::string> names;
    names[ResourceId::of(0, 1)] = "name";
    std::error_code error;
    const TcpListener listener = TcpListener::bind("127.0.0.1:0", error);
    const TcpStream stream = TcpStream(os::Fd(), error);
}

} // namespace

int main(int argc, char**) {
    if (argc > 1) {
        run();
        thread();
        rest();
        Whole::Actions actions;
        ask(actions, TcpListener::bind("127.0.0.1:0"),
            TcpStream::connect("127.0.0.1:1", std::chrono::seconds{1}));
    }
}
