// SPDX-License-Identifier: Apache-2.0
#include <reactor/runtime.hpp>
#include <reactor/testing/fake_poller.hpp>
#include <reactor/testing/scripted.hpp>

#include <memory>
#include <string>
#include <vector>

#include "catch.hpp"

using namespace reactor;
using namespace std::chrono_literals;
using testing::FakePoller;
using testing::PollerCall;
using testing::ScriptedListener;
using testing::ScriptedTransport;
using testing::Wire;

namespace {

constexpr Readiness readable{true, false, false, false};
constexpr Readiness writable{false, true, false, false};
constexpr Interest reading{true, false};

ResourceId id(std::uint32_t slot) { return ResourceId::of(slot, 1); }

std::vector<PollEvent> wait(FakePoller& poller, std::size_t most = 100) {
    const PollResult result = poller.wait(Duration::zero(), most);
    CHECK_FALSE(result.error);
    std::vector<PollEvent> events;
    for (std::size_t n = 0; n < result.count; ++n) {
        events.push_back(poller.event(n));
    }
    return events;
}
using Events = std::vector<PollEvent>;

/// Echoes, counts, and writes down what happens.
struct Echo : Service<ScriptedListener, ScriptedTransport> {
    explicit Echo(std::vector<std::string>& to) : log(&to) {}

    void handle_start(Actions& actions) { interval = actions.set_interval(1s); }
    void handle_timer(TimerId timer, Actions& actions) {
        CHECK(timer == interval);
        log->push_back("timer");
        times.push_back(actions.now());
        if (times.size() == 3) {
            actions.shutdown();
        }
    }
    void handle_listener_event(ResourceId, ScriptedListener::Event client, Actions& actions) {
        log->push_back("client " + client.peer.to_string());
        actions.register_transport(std::move(client.stream));
    }
    void handle_transport_event(ResourceId from, StreamEvent event, Actions& actions) {
        if (const auto* const bytes = event.data()) {
            log->push_back("data " + std::string(text_of(*bytes)));
            actions.send(from, *bytes);
        } else if (event.eof()) {
            log->push_back("eof");
            actions.close_write(from);
        } else if (event.drained()) {
            log->push_back("drained");
        }
    }
    void handle_registered(ResourceId, Role role, int fd, Actions&) {
        log->push_back((role == Role::listener ? "listener " : "transport ") + std::to_string(fd));
    }
    void handle_error(Error error, Actions& actions) {
        log->push_back("error " + error.code().message());
        Service::handle_error(std::move(error), actions);
    }
    void handover_transport(ResourceId, ScriptedTransport, Actions&) { log->push_back("handover"); }

    std::vector<std::string>* log;
    std::vector<Timestamp> times;
    TimerId interval;
};

using Log = std::vector<std::string>;

} // namespace

TEST_CASE("FakePoller: reports are told by the next wait, batch by batch") {
    FakePoller poller;
    CHECK(wait(poller).empty());
    poller.report(id(2), readable);
    poller.report(id(4), writable);
    poller.next_batch();
    poller.report(id(6), readable);
    CHECK_FALSE(poller.is_done());
    CHECK(wait(poller) == Events{{id(2), readable}, {id(4), writable}});
    CHECK(wait(poller) == Events{{id(6), readable}});
    CHECK(poller.is_done());
    CHECK(wait(poller).empty());
    poller.report(id(8), readable);
    CHECK(wait(poller) == Events{{id(8), readable}});
    CHECK(poller.waits() == 5);

    // An empty batch is a wait with nothing to tell.
    poller.report(id(2), readable);
    poller.next_batch();
    poller.next_batch();
    poller.report(id(4), readable);
    CHECK(wait(poller).size() == 1);
    CHECK(wait(poller).empty());
    CHECK(wait(poller).size() == 1);
}

TEST_CASE("FakePoller: what a wait has no room for comes with the next") {
    FakePoller poller;
    for (std::uint32_t slot = 0; slot < 10; slot += 2) {
        poller.report(id(slot), readable);
    }
    poller.next_batch();
    poller.report(id(20), readable);
    CHECK(wait(poller, 2).size() == 2);
    CHECK(wait(poller, 2) == Events{{id(4), readable}, {id(6), readable}});
    CHECK(wait(poller, 2) == Events{{id(8), readable}});
    CHECK(wait(poller, 2) == Events{{id(20), readable}});
}

TEST_CASE("FakePoller: a report by descriptor finds who is watched when the wait comes") {
    FakePoller poller;
    poller.report(7, readable);
    poller.report(8, readable);
    REQUIRE_FALSE(poller.watch(7, id(2), reading));
    CHECK(wait(poller) == Events{{id(2), readable}});
    poller.report(7, readable);
    poller.unwatch(7, id(2));
    REQUIRE_FALSE(poller.watch(7, id(4), reading));
    CHECK(wait(poller) == Events{{id(4), readable}});
}

TEST_CASE("FakePoller: it knows what it watches, and refuses what a kernel would") {
    FakePoller poller;
    CHECK_FALSE(poller.watch_waker(3));
    CHECK_FALSE(poller.is_watched(id(2)));
    CHECK_FALSE(poller.watch(7, id(2), reading));
    CHECK(poller.is_watched(id(2)));
    CHECK(poller.id_of(7) == id(2));
    CHECK(poller.interest_of(id(2)) == reading);
    CHECK(poller.watched() == 1);
    CHECK(poller.watch(7, id(4), reading) == std::errc::file_exists);
    CHECK(poller.watch(-1, id(4), reading) == std::errc::bad_file_descriptor);
    CHECK(poller.id_of(7) == id(2));

    CHECK_FALSE(poller.set_interest(7, id(2), {true, true}));
    CHECK(poller.interest_of(id(2)) == Interest{true, true});
    CHECK(poller.set_interest(7, id(4), {true, true}) == std::errc::no_such_file_or_directory);
    CHECK(poller.set_interest(8, id(2), {true, true}) == std::errc::no_such_file_or_directory);

    poller.unwatch(7, id(4));
    CHECK(poller.is_watched(id(2)));
    poller.unwatch(7, id(2));
    CHECK_FALSE(poller.is_watched(id(2)));
    CHECK(poller.interest_of(id(2)).none());
    CHECK_FALSE(poller.id_of(7));
    poller.unwatch(7, id(2));
    CHECK(poller.watched() == 0);
}

TEST_CASE("FakePoller: failures are scripted too") {
    FakePoller poller;
    const auto bad = std::make_error_code(std::errc::bad_file_descriptor);
    poller.report(id(2), readable);
    poller.fail_next_wait(bad);
    poller.report(id(4), readable);
    CHECK(wait(poller) == Events{{id(2), readable}});
    const PollResult failed = poller.wait(1s, 10);
    CHECK(failed.error == bad);
    CHECK(failed.count == 0);
    CHECK(wait(poller) == Events{{id(4), readable}});

    poller.fail_next_wait(bad);
    poller.fail_next_wait(bad);
    CHECK(poller.wait(1s, 10).error == bad);
    CHECK(poller.wait(1s, 10).error == bad);
    CHECK_FALSE(poller.wait(1s, 10).error);

    const auto full = std::make_error_code(std::errc::no_space_on_device);
    poller.refuse_watch(7, full);
    poller.refuse_interest(7, bad);
    CHECK(poller.watch(7, id(2), reading) == full);
    CHECK_FALSE(poller.is_watched(id(2)));
    CHECK_FALSE(poller.watch(7, id(2), reading));
    CHECK(poller.set_interest(7, id(2), {true, true}) == bad);
    CHECK(poller.interest_of(id(2)) == reading);
    CHECK_FALSE(poller.set_interest(7, id(2), {true, true}));
}

TEST_CASE("FakePoller: the clock is the test's") {
    FakePoller poller;
    const Timestamp start = poller.now();
    CHECK_FALSE(poller.wait(1h, 10).error);
    CHECK(poller.now() == start);
    CHECK(poller.last_timeout() == 1h);
    poller.advance(3s);
    CHECK(poller.now() == start + 3s);
    poller.set_now(Timestamp{} + 1min);
    CHECK(poller.now() == Timestamp{} + 1min);

    poller.jump_to_deadline(true);
    CHECK_FALSE(poller.wait(1h, 10).error);
    CHECK(poller.now() == Timestamp{} + 61min);
    CHECK_FALSE(poller.wait(Duration::max(), 10).error); // no deadline to jump to
    CHECK(poller.now() == Timestamp{} + 61min);
    poller.report(id(2), readable);
    CHECK(poller.wait(1h, 10).count == 1); // did not have to wait
    CHECK(poller.now() == Timestamp{} + 61min);
    poller.fail_next_wait(std::make_error_code(std::errc::bad_file_descriptor));
    CHECK(poller.wait(1h, 10).error);
    CHECK(poller.now() == Timestamp{} + 61min);
}

TEST_CASE("FakePoller: every call is kept, within bounds") {
    FakePoller poller;
    CHECK_FALSE(poller.watch_waker(3));
    CHECK_FALSE(poller.watch(7, id(2), reading));
    CHECK_FALSE(poller.set_interest(7, id(2), {true, true}));
    CHECK(poller.wait(5ms, 10).count == 0);
    poller.unwatch(7, id(2));
    using Kind = PollerCall::Kind;
    CHECK(poller.calls() == std::vector<PollerCall>{
                                {Kind::watch_waker, 3, {}, {}, {}},
                                {Kind::watch, 7, id(2), reading, {}},
                                {Kind::set_interest, 7, id(2), {true, true}, {}},
                                {Kind::wait, -1, {}, {}, 5ms},
                                {Kind::unwatch, 7, id(2), {}, {}},
                            });
    poller.forget_calls();
    CHECK(poller.calls().empty());
    for (std::size_t n = 0; n < FakePoller::most_calls + 10; ++n) {
        static_cast<void>(poller.wait(Duration::zero(), 1));
    }
    CHECK(poller.calls().size() == FakePoller::most_calls);
    CHECK(poller.waits() == FakePoller::most_calls + 11);
}

TEST_CASE("FakePoller: a runtime is driven turn by turn, with no descriptor and no time") {
    Log log;
    const auto clients = std::make_shared<ScriptedListener::Clients>();
    const auto wire = std::make_shared<Wire>();
    Runtime<Echo, FakePoller> runtime{Echo{log}};
    FakePoller& poller = runtime.poller();
    runtime.listen(ScriptedListener(1000, clients));
    CHECK(runtime.turn(Duration::zero()));
    CHECK(log == Log{"listener 1000"});

    clients->push_back({ScriptedTransport(1001, wire), Address::loopback_ipv4(40000)});
    poller.report(1000, readable);
    CHECK(runtime.turn(Duration::zero()));
    CHECK(log == Log{"listener 1000", "client 127.0.0.1:40000", "transport 1001"});
    CHECK(poller.interest_of(poller.id_of(1001)) == reading);

    log.clear();
    wire->say("one ");
    wire->say("two");
    poller.report(1001, readable);
    CHECK(runtime.turn(Duration::zero()));
    CHECK(log == Log{"data one ", "data two"});
    CHECK(wire->written == "one two");
    CHECK(wire->writes == 1); // gathered

    // The wire takes no more: what waits is wished to be written, and goes when it can.
    log.clear();
    wire->takes = 3;
    wire->say("hello");
    poller.report(1001, readable);
    CHECK(runtime.turn(Duration::zero()));
    CHECK(wire->written == "one twohel");
    CHECK(poller.interest_of(poller.id_of(1001)) == Interest{true, true});
    wire->takes = 100;
    wire->cause(StreamEvent::Kind::drained);
    poller.report(1001, writable);
    CHECK(runtime.turn(Duration::zero()));
    CHECK(wire->written == "one twohello");
    CHECK(poller.interest_of(poller.id_of(1001)) == reading);
    CHECK(log == Log{"data hello", "drained"});

    // A send beyond the cap comes back; the service unregisters by default.
    log.clear();
    wire->cap = 4;
    wire->say("too long");
    poller.report(1001, readable);
    CHECK(runtime.turn(Duration::zero()));
    CHECK(log == Log{"data too long",
                     "error " + std::make_error_code(std::errc::no_buffer_space).message(),
                     "handover"});
    CHECK(wire->gone);
    CHECK(poller.watched() == 1);
}

TEST_CASE("FakePoller: a transport ends behind what its peer said") {
    Log log;
    const auto wire = std::make_shared<Wire>();
    Runtime<Echo, FakePoller> runtime{Echo{log}};
    CHECK(runtime.controller().register_transport(ScriptedTransport(1001, wire)));
    CHECK(runtime.turn(Duration::zero()));
    wire->say("last words");
    wire->end_with(std::make_error_code(std::errc::connection_reset));
    runtime.poller().report(1001, {true, false, true, false});
    CHECK(runtime.turn(Duration::zero()));
    CHECK(log == Log{"transport 1001", "data last words",
                     "error " + std::make_error_code(std::errc::connection_reset).message()});
    CHECK(wire->written == "last words");
    CHECK(wire->gone);
}

TEST_CASE("FakePoller: a half-close waits for what is unsent, and for the peer") {
    Log log;
    const auto wire = std::make_shared<Wire>();
    Runtime<Echo, FakePoller> runtime{Echo{log}};
    CHECK(runtime.controller().register_transport(ScriptedTransport(1001, wire)));
    CHECK(runtime.turn(Duration::zero()));
    wire->takes = 2;
    wire->say("bye");
    wire->say_eof();
    runtime.poller().report(1001, readable);
    CHECK(runtime.turn(Duration::zero()));
    CHECK(wire->written == "by");
    CHECK_FALSE(wire->closed_write);
    wire->takes = 1;
    runtime.poller().report(1001, writable);
    CHECK(runtime.turn(Duration::zero()));
    CHECK(wire->written == "bye");
    CHECK(wire->closed_write);
    CHECK(log == Log{"transport 1001", "data bye", "eof", "handover"});
}

TEST_CASE("FakePoller: timers fire when the test moves the clock") {
    Log log;
    Runtime<Echo, FakePoller> runtime{Echo{log}};
    FakePoller& poller = runtime.poller();
    CHECK(runtime.turn(Duration::max())); // the first one, which does not wait
    CHECK(runtime.turn(Duration::max()));
    CHECK(poller.last_timeout() == 1s);
    CHECK(log.empty());
    poller.advance(1s - 1ns);
    CHECK(runtime.turn(Duration::max()));
    CHECK(poller.last_timeout() == 1ns);
    CHECK(log.empty());
    poller.advance(1ns);
    CHECK(runtime.turn(Duration::max()));
    CHECK(log == Log{"timer"});
    CHECK(runtime.until_next() == 1s);
}

TEST_CASE("FakePoller: with jumps, a whole run takes no time") {
    Log log;
    FakePoller poller;
    poller.jump_to_deadline(true);
    Runtime<Echo, FakePoller> runtime{Echo{log}, {}, std::move(poller)};
    CHECK(runtime.run().clean);
    const std::vector<Timestamp> times{Timestamp{} + 1s, Timestamp{} + 2s, Timestamp{} + 3s};
    CHECK(runtime.service().times == times);
    CHECK(runtime.poller().waits() <= 4);
}

TEST_CASE("FakePoller: a refused registration is given back") {
    Log log;
    const auto wire = std::make_shared<Wire>();
    const auto full = std::make_error_code(std::errc::no_space_on_device);
    Runtime<Echo, FakePoller> runtime{Echo{log}};
    runtime.poller().refuse_watch(1001, full);
    CHECK(runtime.controller().register_transport(ScriptedTransport(1001, wire)));
    CHECK(runtime.turn(Duration::zero()));
    CHECK(log == Log{"error " + full.message()});
    CHECK(wire->gone);

    // And a change of interest that is refused is the end.
    log.clear();
    const auto other = std::make_shared<Wire>();
    other->takes = 0;
    CHECK(runtime.controller().register_transport(ScriptedTransport(1002, other)));
    CHECK(runtime.turn(Duration::zero()));
    runtime.poller().refuse_interest(1002, full);
    other->say("x");
    runtime.poller().report(1002, readable);
    CHECK(runtime.turn(Duration::zero()));
    CHECK(log == Log{"transport 1002", "data x", "error " + full.message()});
    CHECK(other->gone);
    CHECK(runtime.poller().watched() == 0);
}

TEST_CASE("FakePoller: late reports of who has left reach nobody") {
    Log log;
    const auto wire = std::make_shared<Wire>();
    Runtime<Echo, FakePoller> runtime{Echo{log}};
    CHECK(runtime.controller().register_transport(ScriptedTransport(1001, wire)));
    CHECK(runtime.turn(Duration::zero()));
    const ResourceId gone = runtime.poller().id_of(1001);
    wire->end_with();
    runtime.poller().report(gone, readable);
    runtime.poller().report(gone, readable);
    CHECK(runtime.turn(Duration::zero()));
    runtime.poller().report(gone, readable);
    CHECK(runtime.turn(Duration::zero()));
    CHECK(runtime.stale_reports() == 2);
}
