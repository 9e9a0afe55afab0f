// SPDX-License-Identifier: Apache-2.0
//
// Scripted peers, one against the other: what a script says and does not come true fails the
// world, with the peer's name; what it says too early or too late does nothing.
#include "catch.hpp"

#include <reactor/sim/peer.hpp>

#include <memory>
#include <string>

using namespace reactor;
using namespace std::chrono_literals;

namespace {

constexpr const char* at = "127.0.0.1:7000";

/// A world, and two who live there.
struct Two {
    sim::World world{1};
    sim::Peer server{world, "server"};
    sim::Peer client{world, "client"};

    /// What went wrong within a minute.
    const std::string& failure() {
        world.run_for(1min);
        return world.failure();
    }
};

} // namespace

TEST_CASE("a peer that cannot be where its script says fails the world") {
    Two two;
    SECTION("it connects to what is no address") {
        two.client.connect("nonsense");
        CHECK(two.failure() == "client: cannot read the address nonsense");
    }
    SECTION("it listens at what is no address") {
        two.server.listen("nonsense");
        CHECK(two.failure() == "server: cannot listen at nonsense");
    }
    SECTION("somebody listens there") {
        two.server.listen(at);
        two.client.pause(1ms).listen(at);
        CHECK(two.failure() == "client: cannot listen at 127.0.0.1:7000");
    }
    SECTION("a file stands there") {
        REQUIRE(two.world.make_path("/run/taken", false, 0644) != nullptr);
        two.server.listen("unix:/run/taken");
        CHECK(two.failure() == "server: cannot listen at unix:/run/taken");
    }
    SECTION("nobody is there") {
        two.client.connect(at);
        CHECK(two.failure() == "client: the connection broke: Connection refused");
        CHECK(two.client.error() == ECONNREFUSED);
        CHECK(two.client.is_done());
    }
    SECTION("it says something and is not connected") {
        two.client.send("hello");
        CHECK(two.failure() == "client: is not connected");
    }
    SECTION("it says something in pieces and is not connected") {
        two.client.send_in_pieces("hello", 1ms);
        CHECK(two.failure() == "client: is not connected");
    }
}

TEST_CASE("a peer that hears something else than its script says fails the world") {
    Two two;
    two.server.listen(at);
    two.client.connect(at);
    SECTION("something where it expects the end") {
        two.server.send("hi").shut();
        two.client.expect_end();
        CHECK(two.failure() == "client: did not expect \"hi\"");
    }
    SECTION("the end where it expects something") {
        two.server.send("hi").shut();
        two.client.expect("his");
        CHECK(two.failure() == "client: expected \"his\", and there came \"hi\" and the end");
        CHECK(two.client.has_end());
    }
    SECTION("unless it may fail") {
        two.server.send("hi").shut();
        two.client.may_fail().expect("his").send("this is left out");
        CHECK(two.failure().empty());
        CHECK(two.client.is_done());
        CHECK(two.server.received().empty());
    }
    SECTION("a reset where it expects something") {
        two.server.reset();
        two.client.expect("hi");
        CHECK(two.failure() == "client: the connection broke: Connection reset by peer");
    }
    SECTION("a reset while it speaks in pieces") {
        two.server.await(1).reset();
        two.client.send_in_pieces(std::string(100'000, 'x'), 1ms);
        CHECK(two.failure() == "client: the connection broke: Connection reset by peer");
    }
    SECTION("it speaks when it has said that it would not") {
        two.client.shut().send("hello");
        CHECK(two.failure() == "client: the connection broke: Broken pipe");
    }
    SECTION("it speaks in pieces then") {
        two.client.shut().send_in_pieces("hello", 1ms);
        CHECK(two.failure() == "client: the connection broke: Broken pipe");
        CHECK(two.client.error() == EPIPE);
    }
}

TEST_CASE("what a peer says too early or in vain does nothing") {
    Two two;
    SECTION("to part from nobody") {
        two.client.shut().reset().vanish().close().read_slowly(1, 1ms);
        CHECK(two.failure().empty());
        CHECK(two.client.is_done());
        CHECK(!two.client.is_connected());
    }
    SECTION("to say nothing in pieces") {
        two.server.listen(at).expect_end();
        two.client.connect(at).send_in_pieces("", 1ms).close();
        CHECK(two.failure().empty());
        CHECK((two.client.is_done() && two.server.is_done()));
    }
    SECTION("to go while something is still to be done") {
        auto gone = std::make_unique<sim::Peer>(two.world);
        gone->pause(1s);
        two.world.run_for(1ms);
        gone.reset();
        CHECK(two.failure().empty());
    }
    SECTION("to be told more while it waits to be called, or to be answered") {
        two.world.weather.latency_least = two.world.weather.latency_most = 100ms;
        two.server.listen(at);
        two.world.run_for(1s);
        two.server.send("hello");
        two.world.run_for(1s);
        two.client.connect(at);
        two.world.run_for(150ms); // it is called, and its caller does not know
        CHECK(!two.client.is_connected());
        two.client.expect("hello");
        CHECK(two.failure().empty());
        CHECK(two.client.received() == "hello");
        CHECK((two.client.is_done() && two.server.is_done()));
    }
    SECTION("to stop reading: what comes stays in the network") {
        two.server.listen(at).send("hello");
        two.client.stop_reading().connect(at);
        CHECK(two.failure().empty());
        CHECK(two.server.is_done());
        CHECK(two.client.received().empty());
    }
}

TEST_CASE("a peer listens at the name of a UNIX socket, and takes it away with itself") {
    Two two;
    two.server.listen("unix:/run/peer").expect("hello");
    two.client.pause(1ms).connect("unix:/run/peer").send("hello");
    CHECK(two.world.find_path("/run/peer") == nullptr);
    two.world.run_until([&] { return two.world.find_path("/run/peer") != nullptr; }, 1s);
    CHECK(two.world.find_path("/run/peer") != nullptr);
    CHECK(two.failure().empty());
    CHECK((two.client.is_done() && two.server.is_done()));
    CHECK(two.world.find_path("/run/peer") == nullptr); // it takes one client
}
