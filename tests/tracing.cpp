// SPDX-License-Identifier: Apache-2.0
#include <reactor/poller/poll.hpp>
#include <reactor/testing/fake_poller.hpp>
#include <reactor/testing/scripted.hpp>
#include <reactor/tracing.hpp>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "catch.hpp"

using namespace reactor;
using namespace std::chrono_literals;
using testing::FakePoller;
using testing::ScriptedListener;
using testing::ScriptedTransport;
using testing::Wire;

namespace {

using Lines = std::vector<std::string>;

/// Collects lines.
struct Collect {
    Lines* lines;
    void operator()(std::string_view line) const { lines->emplace_back(line); }
};

struct Echo : Service<ScriptedListener, ScriptedTransport, int> {
    void handle_start(Actions& actions) { timer = actions.set_timer(5ms); }
    void handle_timer(TimerId, Actions&) {}
    void handle_listener_event(ResourceId, ScriptedListener::Event event, Actions& actions) {
        actions.register_transport(std::move(event.stream));
    }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        if (const auto* const bytes = event.data()) {
            if (text_of(*bytes) == "throw") {
                actions.pause(id);
                throw std::runtime_error("as asked");
            }
            actions.send(id, *bytes);
            actions.reset_timer(timer, 7ms);
        } else if (event.eof()) {
            actions.close_write(id);
        }
    }
    void handle_command(int command, Actions& actions) {
        command == 0 ? actions.shutdown() : actions.drain(1s);
    }

    TimerId timer;
};

struct PoliteEcho : Echo {
    void handle_drain(Timestamp, Actions& actions) { actions.shutdown(); }
};

using Handled = TracingHandler<Echo, Collect>;
using Polled = TracingPoller<FakePoller, Collect>;

static_assert(Handler<Handled>);
static_assert(Handler<TracingHandler<PoliteEcho, Collect>>);
static_assert(!detail::answers_drain<Handled>);
static_assert(detail::answers_drain<TracingHandler<PoliteEcho, Collect>>);

static_assert(Poller<Polled>);
static_assert(!detail::can_be_nested<Polled>);
static_assert(!detail::can_start_afresh<Polled>);
static_assert(detail::can_be_nested<TracingPoller<EpollPoller, Collect>>);
static_assert(detail::can_start_afresh<TracingPoller<EpollPoller, Collect>>);
static_assert(!detail::can_be_nested<TracingPoller<PollPoller, Collect>>);

struct NothingAtAll : Service<NoListener, NoTransport> {};
static_assert(Handler<TracingHandler<NothingAtAll, Collect>>);

constexpr Readiness readable{true, false, false, false};

} // namespace

TEST_CASE("Tracing: handler and poller tell each turn in one line") {
    Lines lines;
    const auto clients = std::make_shared<ScriptedListener::Clients>();
    const auto wire = std::make_shared<Wire>();
    {
        Trace trace(Collect{&lines});
        TracingHandler service(Echo{}, trace);
        TracingPoller poller(FakePoller{}, trace);
        Runtime<decltype(service), decltype(poller)> runtime(std::move(service), {},
                                                             std::move(poller));
        FakePoller& fake = runtime.poller().inner();
        const auto turn = [&] {
            lines.clear();
            CHECK(runtime.turn(Duration::zero()));
            trace.flush();
        };

        runtime.listen(ScriptedListener(1000, clients));
        turn();
        const std::string timer = fmt::to_string(runtime.service().inner().timer);
        CHECK(lines ==
              Lines{"start -> set_timer " + timer +
                        " 5ms | watch #1.1 fd 1000 read | registered listener #1.1 fd 1000",
                    "wait 0 | tick"});

        clients->push_back({ScriptedTransport(1001, wire), Address::loopback_ipv4(4000)});
        fake.report(1000, readable);
        turn();
        CHECK(lines ==
              Lines{"wait 1 | tick | #1.1 peer 127.0.0.1:4000 -> register_transport #0.1 | "
                    "watch #0.1 fd 1001 read | registered transport #0.1 fd 1001"});

        wire->say("hello");
        wire->takes = 2;
        fake.report(1001, readable);
        fake.advance(5ms);
        turn();
        CHECK(lines ==
              Lines{"wait 1 | tick | timer " + timer + " | #0.1 data(5) -> send #0.1 5 B, " +
                    "reset_timer " + timer + " 7ms | interest #0.1 fd 1001 read+write"});

        wire->takes = 10;
        wire->cause(StreamEvent::Kind::drained);
        wire->say_eof();
        fake.report(1001, {true, true, false, false});
        turn();
        CHECK(lines == Lines{"wait 1 | tick | #0.1 eof -> close_write #0.1 | #0.1 drained | "
                             "unwatch #0.1 fd 1001 | handover #0.1, 0 B unsent"});

        const auto other = std::make_shared<Wire>();
        CHECK(runtime.controller().register_transport(ScriptedTransport(1002, other)));
        CHECK(runtime.controller().command(0));
        lines.clear();
        CHECK_FALSE(runtime.turn(Duration::zero()));
        trace.flush();
        CHECK(lines == Lines{"wait 0 | tick | watch #0.2 fd 1002 read | "
                             "registered transport #0.2 fd 1002 | command -> shutdown | "
                             "unwatch #1.1 fd 1000 | handover #1.1 | "
                             "unwatch #0.2 fd 1002 | handover #0.2, 0 B unsent"});
    }
    CHECK(lines.size() == 1);
}

TEST_CASE("Tracing: the last line is told when the last handle goes") {
    Lines lines;
    {
        TracingPoller poller(FakePoller{}, Trace(Collect{&lines}));
        CHECK(poller.wait(Duration::zero(), 10).count == 0);
        CHECK(lines.empty());
    }
    CHECK(lines == Lines{"wait 0"});
}

TEST_CASE("Tracing: failures are told") {
    Lines lines;
    const auto full = std::make_error_code(std::errc::no_space_on_device);
    const auto wire = std::make_shared<Wire>();
    const Trace trace(Collect{&lines});
    Runtime<Handled, Polled> runtime(Handled(Echo{}, trace), {}, Polled(FakePoller{}, trace));
    CHECK(runtime.turn(Duration::zero()));
    trace.flush();
    lines.clear();

    runtime.poller().inner().fail_next_wait(full);
    runtime.poller().inner().refuse_watch(1001, full);
    CHECK(runtime.controller().register_transport(ScriptedTransport(1001, wire)));
    CHECK(runtime.turn(Duration::zero()));
    trace.flush();
    CHECK(lines == Lines{"wait 0 failed: No space left on device | "
                         "error poll_failed: No space left on device | tick | "
                         "watch #0.1 fd 1001 read failed: No space left on device | "
                         "error registration_failed #0.1: No space left on device"});
}

TEST_CASE("Tracing: what a callback throws passes through, and its line is whole") {
    Lines lines;
    const auto wire = std::make_shared<Wire>();
    const Trace trace(Collect{&lines});
    Runtime<Handled, Polled> runtime(Handled(Echo{}, trace), {}, Polled(FakePoller{}, trace));
    CHECK(runtime.controller().register_transport(ScriptedTransport(1001, wire)));
    CHECK(runtime.turn(Duration::zero()));
    const ResourceId id = runtime.poller().inner().id_of(1001);
    trace.flush();
    lines.clear();

    wire->say("throw");
    runtime.poller().inner().report(id, readable);
    CHECK_THROWS_AS(runtime.turn(Duration::zero()), std::runtime_error);
    CHECK(runtime.turn(Duration::zero()));
    trace.flush();
    REQUIRE(lines.size() >= 1);
    CHECK_THAT(lines[0],
               Catch::Matchers::StartsWith("wait 1 | tick | #0.1 data(5) -> pause #0.1 threw"));
}

TEST_CASE("Tracing: a handler alone gives a line a callback") {
    Lines lines;
    const auto wire = std::make_shared<Wire>();
    const Trace trace(Collect{&lines});
    Runtime<Handled, FakePoller> runtime(Handled(Echo{}, trace));
    CHECK(runtime.controller().register_transport(ScriptedTransport(1001, wire)));
    CHECK(runtime.turn(Duration::zero()));
    const std::string timer = fmt::to_string(runtime.service().inner().timer);
    CHECK(lines == Lines{"start -> set_timer " + timer + " 5ms", "tick",
                         "registered transport #0.1 fd 1001"});
}

TEST_CASE("Tracing: a poller alone tells what was reported") {
    Lines lines;
    const auto wire = std::make_shared<Wire>();
    const auto other = std::make_shared<Wire>();
    const Trace trace(Collect{&lines});
    Runtime<Echo, Polled> runtime(Echo{}, {}, Polled(FakePoller{}, trace));
    CHECK(runtime.controller().register_transport(ScriptedTransport(1001, wire)));
    CHECK(runtime.controller().register_transport(ScriptedTransport(1002, other)));
    CHECK(runtime.turn(Duration::zero()));
    runtime.poller().inner().report(1001, readable);
    runtime.poller().inner().report(1002, {true, false, true, false});
    CHECK(runtime.turn(Duration::zero()));
    trace.flush();
    CHECK(lines == Lines{"wait 0 | watch #0.1 fd 1001 read | watch #2.1 fd 1002 read",
                         "wait 2: #0.1 read, #2.1 read+hangup"});
}

TEST_CASE("Tracing: a traced drain keeps the service's farewell, or the runtime's") {
    const auto trace_of = [](auto service) {
        Lines lines;
        const Trace trace(Collect{&lines});
        const auto wire = std::make_shared<Wire>();
        Runtime<TracingHandler<decltype(service), Collect>, FakePoller> runtime(
            TracingHandler(std::move(service), trace));
        CHECK(runtime.controller().register_transport(ScriptedTransport(1001, wire)));
        CHECK(runtime.turn(Duration::zero()));
        CHECK(runtime.controller().command(1));
        lines.clear();
        static_cast<void>(runtime.turn(Duration::zero()));
        static_cast<void>(runtime.turn(Duration::zero()));
        return lines;
    };
    CHECK(trace_of(Echo{}) == Lines{"tick", "command -> drain 1s", "tick"});
    CHECK(trace_of(PoliteEcho{}) == Lines{"tick", "command -> drain 1s",
                                          "drain until t+1.000000s -> shutdown",
                                          "handover #0.1, 0 B unsent"});
}

TEST_CASE("Tracing: round a real poller") {
    Lines lines;
    const Trace trace(Collect{&lines});
    Runtime<TracingHandler<NothingAtAll, Collect>, TracingPoller<EpollPoller, Collect>> runtime(
        TracingHandler(NothingAtAll{}, trace), {}, TracingPoller(EpollPoller{}, trace));
    CHECK(runtime.fd() == runtime.poller().inner().fd());
    CHECK(runtime.turn(Duration::zero()));
    trace.flush();
    CHECK(lines == Lines{"start", "wait 0 | tick"});
}
