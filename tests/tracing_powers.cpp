// SPDX-License-Identifier: Apache-2.0
//
// What is traced keeps the powers of what it wraps, and every kind of event has a word.
#include "catch.hpp"

#include <reactor/poller/epoll.hpp>
#include <reactor/testing/scripted.hpp>
#include <reactor/tracing.hpp>

#include <fcntl.h>

#include <string>
#include <vector>

using namespace reactor;
using namespace std::chrono_literals;
using testing::ScriptedListener;
using testing::ScriptedTransport;

namespace {

using Lines = std::vector<std::string>;

/// Collects lines.
struct Collect {
    Lines* lines;
    void operator()(std::string_view line) const { lines->emplace_back(line); }
};

/// Counts what it is told.
struct Counting : Service<ScriptedListener, ScriptedTransport> {
    void handle_listener_event(ResourceId, ScriptedListener::Event, Actions&) {}
    void handle_transport_event(ResourceId, StreamEvent, Actions&) { ++events; }
    int events = 0;
};

} // namespace

TEST_CASE("a traced poller never waits when the one inside does not, and starts afresh with it") {
    Lines lines;
    const Trace trace(Collect{&lines});
    TracingPoller poller(EpollPoller{}, trace);
    const os::Fd always_ready(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const os::Fd waker(os::Kernel::event_fd().fd_or_none());
    REQUIRE((always_ready && waker));
    REQUIRE_FALSE(poller.watch_waker(waker.get()));
    CHECK_FALSE(poller.never_waits());
    REQUIRE_FALSE(poller.watch(always_ready.get(), ResourceId::of(1, 1), {true, false}));
    CHECK(poller.never_waits());
    CHECK_FALSE(poller.start_afresh());
    trace.flush();
    CHECK(lines == Lines{"watch " + fmt::to_string(ResourceId::of(1, 1)) + " fd " +
                         std::to_string(always_ready.get()) + " read | start afresh"});
}

TEST_CASE("a traced handler has a word for every kind of event, and passes each on") {
    Lines lines;
    const Trace trace(Collect{&lines});
    TracingHandler handler(Counting{}, trace);
    Counting::Actions actions;
    const ResourceId id = ResourceId::of(1, 1);
    const std::pair<StreamEvent::Kind, const char*> kinds[] = {
        {StreamEvent::Kind::eof, "eof"},
        {StreamEvent::Kind::blocked, "blocked"},
        {StreamEvent::Kind::drained, "drained"},
        {StreamEvent::Kind::connected, "connected"},
    };
    for (const auto& [kind, word] : kinds) {
        lines.clear();
        handler.handle_transport_event(id, StreamEvent(kind), actions);
        trace.flush();
        CHECK(lines == Lines{fmt::to_string(id) + " " + word});
    }
    CHECK(handler.inner().events == 4);
}
