// SPDX-License-Identifier: Apache-2.0
//
// Services as they may be written: everything here is a Handler, and a Reactor takes it.
#include <reactor/net/tcp.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/reactor.hpp>

#include <string>
#include <utility>

using namespace reactor;

namespace {

/// The two callbacks that every service has to write.
struct Events : Service<TcpListener, TcpStream> {
    void handle_listener_event(ResourceId, TcpListener::Event accepted, Actions& actions) {
        actions.register_transport(std::move(accepted.stream));
    }
    void handle_transport_event(ResourceId id, TcpStream::Event event, Actions& actions) {
        if (const auto* const bytes = event.data()) {
            actions.send(id, *bytes);
        } else if (event.eof()) {
            actions.close_write(id);
        }
    }
};
static_assert(Handler<Events>);

// By reference to const where the service does not keep it, by rvalue where it may.
struct ByReference : Service<TcpListener, TcpStream, std::string> {
    void handle_start(Actions&) noexcept {}
    void handle_listener_event(ResourceId, TcpListener::Event&&, Actions&) {}
    void handle_transport_event(const ResourceId&, const TcpStream::Event&, Actions&) {}
    void handle_command(const std::string&, Actions&) {}
    void handle_error(const Error&, Actions&) {}
    void handle_timer(const TimerId&, Actions&) const {}
    void handover_listener(ResourceId, TcpListener&&, Actions&) {}
    void handover_transport(ResourceId, const TcpStream&, Actions&) {}
};
static_assert(Handler<ByReference>);

struct Sealed final : Events {
    static void tick(Actions&) {}
    void handle_timer(auto, Actions&) {}
};
static_assert(Handler<Sealed>);

struct TakesLeave : Events {
    void handle_drain(Timestamp deadline, Actions& actions) { actions.set_timer_at(deadline); }
};
static_assert(Handler<TakesLeave>);
static_assert(detail::answers_drain<TakesLeave> && !detail::answers_drain<Events>);

// The state of a service may be anything that can be moved, and its own.
class Keeper : public Events {
  public:
    explicit Keeper(std::unique_ptr<int> kept) : kept_(std::move(kept)) {}
    Keeper(Keeper&&) = default;

  private:
    std::unique_ptr<int> kept_;
};
static_assert(Handler<Keeper>);

// Overloads: one of them answers.
struct Overloaded : Events {
    using Events::handle_transport_event;

    void handle_timer(TimerId, Actions&) {}
    void handle_timer(int, Actions&) {}
    void handle_transport_event(int) {}
};
static_assert(Handler<Overloaded>);

// Without one of the roles: no event function for it.
struct Dialler : Service<NoListener, TcpStream> {
    void handle_transport_event(ResourceId, TcpStream::Event, Actions&) {}
};
static_assert(Handler<Dialler>);

struct Acceptor : Service<TcpListener, NoTransport> {
    void handle_listener_event(ResourceId, TcpListener::Event, Actions&) {}
};
static_assert(Handler<Acceptor>);

struct Ticker : Service<NoListener, NoTransport> {};
static_assert(Handler<Ticker>);

// A service over any kernel, for the simulator.
template <class Kernel = os::Kernel>
struct Chat : Service<BasicTcpListener<Kernel>, BasicTcpStream<Kernel>, std::string> {
    using typename Chat::Service::Actions;
    using typename Chat::Service::Error;
    using typename Chat::Service::Listener;
    using typename Chat::Service::Transport;

    void handle_listener_event(ResourceId, typename Listener::Event accepted, Actions& actions) {
        actions.register_transport(std::move(accepted.stream));
    }
    void handle_transport_event(ResourceId id, typename Transport::Event event, Actions& actions) {
        if (event.eof()) {
            actions.unregister_transport(id);
        }
    }
    void handle_command(std::string, Actions&) {}
    void handle_error(Error, Actions&) {}
};
static_assert(Handler<Chat<>>);

template <class S, class P = EpollPoller>
void serve(S service) {
    Reactor<S, P> reactor{std::move(service)};
    reactor.controller().shutdown();
    reactor.join();
}

} // namespace

int main() {
    serve(Events{});
    serve(ByReference{});
    serve(Sealed{});
    serve<TakesLeave, PollPoller>(TakesLeave{});
    serve(Keeper{nullptr});
    serve(Overloaded{});
    serve(Dialler{});
    serve(Acceptor{});
    serve(Ticker{});
    serve(Chat{});
}
