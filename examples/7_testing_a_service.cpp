// SPDX-License-Identifier: Apache-2.0
//
// 7 of 8: how to test a service: first with no reactor at all, then in a whole runtime whose poller
// and whose clock are the test's. No socket is opened, no thread is started, and no time passes.
#include <reactor/net/tcp.hpp>
#include <reactor/reactor.hpp>
#include <reactor/testing/fake_poller.hpp>
#include <reactor/testing/scripted.hpp>

#include <cstdio>
#include <string>

using namespace reactor;
using namespace std::chrono_literals;

/// Greets whoever says a name, and takes leave of whoever says nothing for ten seconds. What it is
/// made for is Doorman<TcpListener, TcpStream>; what it is tested with has the same events.
template <class Listener, class Transport>
struct Doorman : Service<Listener, Transport> {
    using typename Doorman::Service::Actions;

    void handle_listener_event(ResourceId, typename Listener::Event guest, Actions& actions) {
        const ResourceId id = actions.register_transport(std::move(guest.stream));
        patience[id] = actions.set_timer(10s);
    }
    void handle_transport_event(ResourceId id, typename Transport::Event event, Actions& actions) {
        if (const auto timer = patience.take(id)) {
            actions.cancel_timer(*timer);
        }
        if (const auto* const name = event.data()) {
            actions.send(id, "Good evening, " + std::string(text_of(*name)) + ".\n");
        } else if (event.eof()) {
            actions.close_write(id);
        }
    }
    void handle_timer(TimerId timer, Actions& actions) {
        for (auto [id, waited_for] : patience) {
            if (waited_for == timer) {
                actions.send(id, "Good night.\n");
                actions.close_write(id);
                patience.erase(id);
            }
        }
    }

    ResourceMap<TimerId> patience;
};

using InTheHouse = Doorman<TcpListener, TcpStream>; // as the program would use it
using OnTrial = Doorman<testing::ScriptedListener, testing::ScriptedTransport>;
static_assert(Handler<InTheHouse>);

namespace {

int failures = 0;

void check(bool right, const char* what) {
    std::printf("%s  %s\n", right ? "ok    " : "FAILED", what);
    failures += right ? 0 : 1;
}

/// A callback is a function, and what it asks for is a list of values.
void by_its_actions_alone() {
    OnTrial doorman;
    OnTrial::Actions actions; // no runtime stands behind them
    const ResourceId guest = ResourceId::of(4, 1);
    doorman.patience[guest] = TimerId::of(7, 1);

    doorman.handle_transport_event(guest, StreamEvent(bytes_of("Ada")), actions);
    check(actions.size() == 2, "a name is answered with two actions");
    const Action patience = actions.take();
    check(patience.kind() == ActionKind::cancel_timer && patience.timer() == TimerId::of(7, 1),
          "one is to stop the clock");
    const Action greeting = actions.take();
    check(greeting.kind() == ActionKind::send && greeting.id() == guest, "the other is to send");
    check(text_of(greeting.bytes()) == "Good evening, Ada.\n", "and it has the name in it");

    doorman.handle_transport_event(guest, StreamEvent(StreamEvent::Kind::eof), actions);
    check(actions.take().kind() == ActionKind::close_write, "who leaves is let go");
    check(actions.empty(), "and that is all");
}

/// The runtime is the real one; its poller says what the script says.
void in_a_runtime() {
    const auto wire = std::make_shared<testing::Wire>(); // our end of the guest's connection
    const auto guests = std::make_shared<testing::ScriptedListener::Clients>();
    Runtime<OnTrial, testing::FakePoller> runtime{OnTrial{}};
    auto& poller = runtime.poller();
    runtime.listen(testing::ScriptedListener(100, guests)); // 100, 101: as if they were descriptors
    runtime.turn(Duration::zero());

    guests->push_back({testing::ScriptedTransport(101, wire), Address::loopback_ipv4(4000)});
    poller.report(100, {true, false, false, false});
    runtime.turn(Duration::zero());
    check(poller.is_watched(poller.id_of(101)), "a guest is let in");

    poller.advance(10s - 1ns);
    runtime.turn(Duration::zero());
    check(wire->written.empty(), "for ten seconds nobody is sent away");
    poller.advance(1ns);
    runtime.turn(Duration::zero());
    check(wire->written == "Good night.\n", "and then the silent one is");
    check(wire->closed_write && !wire->gone, "whom we hear out");

    wire->say_eof();
    poller.report(101, {true, false, false, false});
    runtime.turn(Duration::zero());
    check(wire->gone && poller.watched() == 1, "before the door is shut");
}

} // namespace

int main() {
    by_its_actions_alone();
    in_a_runtime();
    return failures == 0 ? 0 : 1;
}
