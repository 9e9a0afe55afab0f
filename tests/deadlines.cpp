// SPDX-License-Identifier: Apache-2.0
//
// The deadlines of a stream, on a clock that the test moves: who does not get on is ended, whoever
// gets on, or is kept from it by us, is not.

#include <reactor/poller/epoll.hpp>

#include "faulty_kernel.hpp"
#include "peers.hpp"

using namespace test;

namespace {

using FaultyEpoll = BasicEpollPoller<FaultyKernel>;
using FaultyPoll = BasicPollPoller<FaultyKernel>;

/// One stream with deadlines, its peer, and a clock.
template <class Poller>
struct Timed {
    explicit Timed(const StreamDeadlines& deadlines, const Options& options = {}) : party(options) {
        party.service().stays = true;
        Ends ends = unix_ends();
        make_small(ends.ours);
        peer = std::move(ends.theirs);
        BasicStream<FaultyKernel> stream{os::BasicFd<FaultyKernel>(ends.ours.release())};
        REQUIRE_FALSE(stream.set_deadlines(deadlines));
        id = party.add(std::move(stream));
    }
    /// Puts the clock forward and lets the loop see what that brings.
    void pass(Duration span) {
        faults.ahead += span;
        for (int turns = 0; turns < 4; ++turns) {
            party.turn();
        }
    }
    void peer_sends(std::size_t bytes) { write_some(peer, std::string(bytes, 'p')); }
    void we_send(std::size_t bytes) {
        party.perform([&](auto& actions) { actions.send(id, std::string(bytes, 'w')); });
    }
    [[nodiscard]] bool is_there() { return !party.heard(id).gone(); }
    /// It has ended, once, by this deadline.
    void check_ended_by(StreamTimeout timeout) {
        INFO(party.heard(id).trace);
        REQUIRE(party.heard(id).trace.ends_with('x'));
        CHECK(party.heard(id).code == std::errc::timed_out);
        REQUIRE(party.heard(id).back);
        CHECK(party.heard(id).back->timeout() == timeout);
        const std::string trace = party.heard(id).trace;
        CHECK(party.rests());
        CHECK(party.heard(id).trace == trace);
    }

    Faults faults;
    Watched<Poller> party;
    os::Fd peer;
    ResourceId id;
};

} // namespace

TEMPLATE_TEST_CASE("deadlines: without any, nothing ends and no timer is set", "", FaultyEpoll,
                   FaultyPoll) {
    Timed<TestType> timed({});
    timed.pass(std::chrono::hours{24 * 365});
    CHECK(timed.is_there());
    CHECK(timed.party.runtime.until_next() == Duration::max());
}

TEMPLATE_TEST_CASE("deadlines: idle ends who neither sends nor takes, from the last byte on", "",
                   FaultyEpoll, FaultyPoll) {
    Timed<TestType> timed({.idle = 10s});
    timed.pass(9s);
    CHECK(timed.is_there());
    timed.peer_sends(1);
    timed.pass(2s); // 11 s from the beginning, but a byte came
    CHECK(timed.is_there());
    timed.pass(9s);
    CHECK(timed.is_there());
    timed.we_send(1);
    timed.pass(9s);
    CHECK(timed.is_there());
    timed.pass(2s);
    timed.check_ended_by(StreamTimeout::idle);
}

TEMPLATE_TEST_CASE("deadlines: what came in time but is read late counts, and is delivered", "",
                   FaultyEpoll, FaultyPoll) {
    Timed<TestType> timed({.idle = 10s});
    timed.peer_sends(5);
    timed.pass(1h); // the loop was kept from its work for an hour
    CHECK(timed.is_there());
    CHECK(timed.party.heard(timed.id).bytes == "ppppp");
    timed.pass(11s);
    timed.check_ended_by(StreamTimeout::idle);
}

TEMPLATE_TEST_CASE("deadlines: what came in time is read before the end although others are ahead",
                   "", FaultyEpoll, FaultyPoll) {
    Options options;
    options.events_per_wait = 1; // the report of it need not be in the batch of that turn
    Timed<TestType> timed({.idle = 10s}, options);
    std::vector<os::Fd> others;
    for (int n = 0; n < 5; ++n) {
        Ends ends = unix_ends();
        timed.party.add(std::move(ends.ours));
        write_some(ends.theirs, "x");
        others.push_back(std::move(ends.theirs));
    }
    timed.peer_sends(5);
    timed.pass(1h);
    CHECK(timed.is_there());
    CHECK(timed.party.heard(timed.id).bytes == "ppppp");
}

TEMPLATE_TEST_CASE("deadlines: read ends who sends nothing, whatever we send him", "", FaultyEpoll,
                   FaultyPoll) {
    Timed<TestType> timed({.read = 10s});
    for (int n = 0; n < 3; ++n) {
        timed.we_send(1);
        timed.pass(3s);
    }
    CHECK(timed.is_there());
    timed.peer_sends(1);
    timed.pass(0s);
    timed.pass(9s);
    CHECK(timed.is_there());
    timed.we_send(1);
    timed.pass(2s);
    timed.check_ended_by(StreamTimeout::read);
}

TEMPLATE_TEST_CASE("deadlines: read ends who sends by dribs and drabs", "", FaultyEpoll,
                   FaultyPoll) {
    Timed<TestType> timed({.read = 10s, .read_bytes = 100});
    timed.peer_sends(100);
    for (int n = 0; n < 9; ++n) { // a byte a second
        timed.pass(1s);
        timed.peer_sends(1);
    }
    CHECK(timed.is_there());
    timed.pass(2s);
    timed.check_ended_by(StreamTimeout::read);
    CHECK(timed.party.heard(timed.id).bytes.size() == 109);
}

TEMPLATE_TEST_CASE("deadlines: read waits for nobody whom the service does not read", "",
                   FaultyEpoll, FaultyPoll) {
    Timed<TestType> timed({.idle = 10s, .read = 10s});
    timed.party.perform([&](auto& actions) { actions.pause(timed.id); });
    timed.pass(1h);
    CHECK(timed.is_there());
    timed.party.perform([&](auto& actions) { actions.resume(timed.id); });
    timed.pass(9s);
    CHECK(timed.is_there());
    timed.pass(2s);
    CHECK_FALSE(timed.is_there());
}

TEMPLATE_TEST_CASE("deadlines: read waits for nobody who has sent his end", "", FaultyEpoll,
                   FaultyPoll) {
    Timed<TestType> timed({.idle = 10s, .read = 10s});
    ::shutdown(timed.peer.get(), SHUT_WR);
    REQUIRE(timed.party.until([&] { return timed.party.heard(timed.id).trace == "e"; }));
    timed.pass(1h);
    CHECK(timed.is_there());
    timed.we_send(3);
    Reader reader;
    reader.read(timed.peer);
    CHECK(reader.bytes == "www");
    timed.pass(1h);
    CHECK(timed.is_there());
}

TEMPLATE_TEST_CASE("deadlines: write ends who does not take what waits for him, and counts it", "",
                   FaultyEpoll, FaultyPoll) {
    Timed<TestType> timed({.write = 10s});
    timed.pass(1h); // nothing waits
    CHECK(timed.is_there());
    timed.we_send(200'000);
    const std::size_t left = 200'000 - [&] {
        int bytes = 0;
        ::ioctl(timed.peer.get(), FIONREAD, &bytes);
        return static_cast<std::size_t>(bytes);
    }();
    REQUIRE(left > 0);
    for (int n = 0; n < 3; ++n) {
        timed.pass(4s);
        timed.peer_sends(1); // that he sends does not count
    }
    timed.check_ended_by(StreamTimeout::write);
    CHECK(timed.party.heard(timed.id).unsent == left);
}

TEMPLATE_TEST_CASE("deadlines: write lets live who takes some, and ends who takes too little", "",
                   FaultyEpoll, FaultyPoll) {
    Timed<TestType> lives({.write = 10s});
    Timed<TestType> ends({.write = 10s, .write_bytes = 1'000'000});
    for (auto* const timed : {&lives, &ends}) {
        Faults::current() = &timed->faults;
        timed->we_send(500'000);
        Reader reader;
        for (int n = 0; n < 5; ++n) {
            timed->pass(4s);
            reader.read(timed->peer, 5'000);
            timed->pass(0s);
        }
        if (timed == &lives) {
            CHECK(timed->is_there());
        } else {
            timed->check_ended_by(StreamTimeout::write);
        }
    }
    Faults::current() = nullptr;
}

TEMPLATE_TEST_CASE("deadlines: exchange ends a request that gets no whole answer in time", "",
                   FaultyEpoll, FaultyPoll) {
    Timed<TestType> timed({.exchange = 10s});
    timed.pass(1h); // no request, no exchange
    CHECK(timed.is_there());
    timed.peer_sends(1);
    timed.pass(0s);
    timed.pass(9s);
    timed.we_send(1); // answered
    timed.pass(1h);
    CHECK(timed.is_there());
    for (int n = 0; n < 4; ++n) { // a byte every three seconds: slowloris
        timed.peer_sends(1);
        timed.pass(0s);
        timed.pass(3s);
    }
    timed.check_ended_by(StreamTimeout::exchange);
}

TEMPLATE_TEST_CASE("deadlines: exchange includes the answer's way to the peer", "", FaultyEpoll,
                   FaultyPoll) {
    Timed<TestType> timed({.exchange = 10s});
    timed.peer_sends(1);
    timed.pass(0s);
    timed.we_send(200'000);
    Reader reader;
    for (int n = 0; n < 5; ++n) {
        timed.pass(2s);
        reader.read(timed.peer, 1'000);
    }
    timed.check_ended_by(StreamTimeout::exchange);
    CHECK(timed.party.heard(timed.id).unsent > 0);
}

TEMPLATE_TEST_CASE("deadlines: while bytes move, one timer a stream stands and is seldom touched",
                   "", FaultyEpoll, FaultyPoll) {
    Timed<TestType> timed({.idle = 10s, .read = 20s, .exchange = 30s});
    for (int n = 0; n < 100; ++n) {
        timed.peer_sends(1);
        timed.we_send(1);
        timed.pass(100ms);
    }
    CHECK(timed.is_there());
    // Lazy: it rings at most when the first deadline of a row is met, not once a byte.
    CHECK(timed.party.runtime.until_next() <= 20s);
    CHECK(timed.party.rests());
}

TEMPLATE_TEST_CASE("deadlines: a stream that is handed over keeps them, and its time", "",
                   FaultyEpoll, FaultyPoll) {
    Timed<TestType> timed({.idle = 10s});
    timed.pass(6s);
    timed.party.perform([&](auto& actions) { actions.unregister_transport(timed.id); });
    REQUIRE(timed.party.heard(timed.id).back);
    timed.id = timed.party.add(std::move(*timed.party.heard(timed.id).back));
    timed.pass(3s);
    CHECK(timed.is_there());
    timed.pass(2s);
    timed.check_ended_by(StreamTimeout::idle);
}

TEMPLATE_TEST_CASE("deadlines: all that a listener accepts have those it was given", "",
                   FaultyEpoll, FaultyPoll) {
    Faults faults;
    using Listener = BasicTcpListener<FaultyKernel>;
    struct Served : Service<Listener, BasicTcpStream<FaultyKernel>> {
        using typename Served::Service::Actions;
        using typename Served::Service::Error;
        void handle_listener_event(ResourceId, typename Listener::Event event, Actions& actions) {
            actions.register_transport(std::move(event.stream));
            ++accepted;
        }
        void handle_transport_event(ResourceId, StreamEvent, Actions&) {}
        void handle_error(Error error, Actions&) {
            timed_out += error.is_end() && error.code() == std::errc::timed_out ? 1 : 0;
        }
        int accepted = 0;
        int timed_out = 0;
    };
    ListenOptions options;
    options.deadlines.idle = 10s;
    Runtime<Served, TestType> runtime(Served{});
    auto listener = Listener::bind("127.0.0.1:0", options);
    const Address at = listener.local();
    runtime.listen(std::move(listener));
    std::vector<os::Fd> clients;
    for (int n = 0; n < 20; ++n) {
        clients.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const Calm calm; // connect(2)
        require_ok(::connect(clients.back().get(), at.data(), at.size()) == 0, "connect");
    }
    for (int turns = 0; turns < 10'000 && runtime.service().accepted < 20; ++turns) {
        runtime.turn(1ms);
    }
    REQUIRE(runtime.service().accepted == 20);
    faults.ahead = 9s;
    runtime.turn(0s);
    runtime.turn(0s);
    CHECK(runtime.service().timed_out == 0);
    faults.ahead = 12s;
    for (int turns = 0; turns < 100; ++turns) {
        runtime.turn(0s);
    }
    CHECK(runtime.service().timed_out == 20);
}
