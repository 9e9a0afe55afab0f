// SPDX-License-Identifier: Apache-2.0
#include <reactor/fmt.hpp>
#include <reactor/testing/scripted.hpp>

#include <fmt/chrono.h> // nothing of ours is in the way of these
#include <fmt/ranges.h>

#include <string>
#include <vector>

#include "catch.hpp"

using namespace reactor;
using namespace std::chrono_literals;
using namespace std::string_literals;

namespace {

template <class T>
std::string text(const T& value) {
    return fmt::format("{}", value);
}

using Actions = BasicActions<testing::ScriptedListener, testing::ScriptedTransport>;
using Error = BasicError<testing::ScriptedListener, testing::ScriptedTransport>;

} // namespace

TEST_CASE("fmt: ids") {
    CHECK(text(ResourceId::of(5, 1)) == "#5.1");
    CHECK(text(ResourceId::of(4, 123456789)) == "#4.123456789");
    CHECK(text(TimerId::of(7, 2)) == "#7.2");
    CHECK(text(ResourceId{}) == "#-");
    CHECK(text(TimerId{}) == "#-");
}

TEST_CASE("fmt: words") {
    CHECK(text(Io::read) == "read");
    CHECK(text(Io::write) == "write");
    CHECK(text(Role::listener) == "listener");
    CHECK(text(Role::transport) == "transport");
    CHECK(text(Interest{}) == "none");
    CHECK(text(Interest{true, false}) == "read");
    CHECK(text(Interest{true, true}) == "read+write");
    CHECK(text(Readiness{}) == "none");
    CHECK(text(Readiness{false, true, false, false}) == "write");
    CHECK(text(Readiness{true, true, true, true}) == "read+write+hangup+error");
    CHECK(text(PollEvent{ResourceId::of(4, 1), {true, false, true, false}}) == "#4.1 read+hangup");
    CHECK(text(WriteStatus::accepted) == "accepted");
    CHECK(text(WriteStatus::not_ready) == "not_ready");
    CHECK(text(WriteStatus::full) == "full");
    CHECK(text(WriteStatus::ended) == "ended");
    CHECK(text(SendStatus::accepted) == "accepted");
    CHECK(text(SendStatus::full) == "full");
    CHECK(text(SendStatus::closed) == "closed");
    CHECK(text(static_cast<WriteStatus>(77)) == "?");
}

TEST_CASE("fmt: kinds of errors and actions, each by its name") {
    CHECK(text(ErrorKind::ended) == "ended");
    CHECK(text(ErrorKind::registration_failed) == "registration_failed");
    CHECK(text(ErrorKind::interest_failed) == "interest_failed");
    CHECK(text(ErrorKind::trouble) == "trouble");
    CHECK(text(ErrorKind::send_returned) == "send_returned");
    CHECK(text(ErrorKind::unknown_id) == "unknown_id");
    CHECK(text(ErrorKind::actions_refused) == "actions_refused");
    CHECK(text(ErrorKind::poll_failed) == "poll_failed");

    CHECK(text(ActionKind::register_listener) == "register_listener");
    CHECK(text(ActionKind::register_transport) == "register_transport");
    CHECK(text(ActionKind::unregister_listener) == "unregister_listener");
    CHECK(text(ActionKind::unregister_transport) == "unregister_transport");
    CHECK(text(ActionKind::send) == "send");
    CHECK(text(ActionKind::set_timer) == "set_timer");
    CHECK(text(ActionKind::set_timer_at) == "set_timer_at");
    CHECK(text(ActionKind::set_interval) == "set_interval");
    CHECK(text(ActionKind::reset_timer) == "reset_timer");
    CHECK(text(ActionKind::cancel_timer) == "cancel_timer");
    CHECK(text(ActionKind::pause) == "pause");
    CHECK(text(ActionKind::resume) == "resume");
    CHECK(text(ActionKind::close_write) == "close_write");
    CHECK(text(ActionKind::shutdown) == "shutdown");
    CHECK(text(ActionKind::drain) == "drain");
}

TEST_CASE("fmt: times") {
    CHECK(text(Timestamp{}) == "t+0.000000s");
    CHECK(text(Timestamp{} + 12345678901ns) == "t+12.345678s");
    CHECK(text(Timestamp{} - 1500ms) == "t-1.500000s");
    CHECK(text(Timestamp{} - 1ms) == "t-0.001000s");
    CHECK(text(Timestamp::max()) == "never");
    CHECK(text(Timestamp::min()) == "t-9223372036.854775s");
}

TEST_CASE("fmt: addresses") {
    CHECK(text(Address::loopback_ipv6(80)) == "[::1]:80");
    CHECK(text(Address::parse("unix:@a")) == "unix:@a");
    CHECK(text(Address{}) == "none");
}

TEST_CASE("fmt: actions") {
    Actions actions;
    CHECK(text(actions) == "[]");
    const ResourceId listener = actions.register_listener({3, nullptr});
    const ResourceId transport = actions.register_transport({4, nullptr});
    const TimerId timer = actions.set_timer(1500us);
    actions.set_timer_at(Timestamp{} + 90s);
    actions.set_interval(250ns);
    actions.reset_timer(timer, 2s);
    actions.cancel_timer(timer);
    actions.send(transport, "hello\r\n");
    actions.send(transport, std::string(40, 'x'));
    actions.send(transport, "\t\"\\\0\x7f\xc3"s);
    actions.pause(transport);
    actions.resume(transport);
    actions.close_write(transport);
    actions.unregister_listener(listener);
    actions.unregister_transport(transport);
    actions.drain(Duration::max());
    actions.shutdown();

    std::vector<std::string> printed;
    for (const Action& action : actions) {
        printed.push_back(text(action));
    }
    CHECK(printed == std::vector<std::string>{
                         "register_listener #1.1",
                         "register_transport #0.1",
                         "set_timer #0.1 1.5ms",
                         "set_timer_at #1.1 t+90.000000s",
                         "set_interval #2.1 250ns",
                         "reset_timer #0.1 2s",
                         "cancel_timer #0.1",
                         "send #0.1 \"hello\\r\\n\" (7 B)",
                         "send #0.1 \"" + std::string(32, 'x') + "\"... (40 B)",
                         "send #0.1 \"\\t\\\"\\\\\\x00\\x7f\\xc3\" (6 B)",
                         "pause #0.1",
                         "resume #0.1",
                         "close_write #0.1",
                         "unregister_listener #1.1",
                         "unregister_transport #0.1",
                         "drain for ever",
                         "shutdown",
                     });
    actions.clear();
    actions.pause(transport);
    actions.shutdown();
    CHECK(text(actions) == "[pause #0.1, shutdown]");
}

TEST_CASE("fmt: errors") {
    Error error(ErrorKind::ended, ResourceId::of(4, 1), {EPIPE, std::system_category()});
    CHECK(text(error) == "ended #4.1: Broken pipe");
    error.put_unsent(12);
    CHECK(text(error) == "ended #4.1: Broken pipe, 12 B unsent");
    CHECK(text(Error(ErrorKind::ended, ResourceId::of(4, 1))) == "ended #4.1");
    CHECK(text(Error(ErrorKind::poll_failed, {}, {EBADF, std::system_category()})) ==
          "poll_failed: Bad file descriptor");
}

TEST_CASE("fmt: farewells") {
    Farewell farewell;
    CHECK(text(farewell) == "clean");
    farewell.clean = false;
    farewell.forced = 2;
    farewell.unsent_bytes = 30;
    CHECK(text(farewell) == "2 forced, 30 B unsent");
}

TEST_CASE("fmt: all are text to the format") {
    CHECK(fmt::format("{:>6}|{:<6}|{:^6}", ResourceId::of(5, 1), Io::read, Role::transport) ==
          "  #5.1|read  |transport");
    CHECK(fmt::format("{:*^10}", Timestamp::max()) == "**never***");
    CHECK(fmt::format("{:.3}", ActionKind::shutdown) == "shu");
    CHECK(fmt::format("{}", std::vector{ResourceId::of(2, 1), ResourceId{}}) == "[#2.1, #-]");
    CHECK(fmt::format("{}", 5ms) == "5ms");
}
