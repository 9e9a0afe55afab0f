// SPDX-License-Identifier: Apache-2.0
//
// The small values of the library: they are equal in every field or not at all, survive being
// assigned to themselves, and read well.
#include "catch.hpp"

#include <reactor/detail/callback.hpp>
#include <reactor/fmt.hpp>
#include <reactor/net/stream.hpp>
#include <reactor/poller.hpp>
#include <reactor/reactor.hpp>
#include <reactor/signals.hpp>
#include <reactor/testing/fake_poller.hpp>

#include <sys/resource.h>

#include <csignal>
#include <string>

namespace {

using namespace reactor;
using namespace std::chrono_literals;

ResourceId id_of(std::uint32_t slot, std::uint64_t generation) {
    return ResourceId::of(slot, generation);
}

/// Assigns a value to itself, without the compiler's noticing.
template <class T>
void assign_to_itself(T& value) {
    T& same = value;
    value = std::move(same);
}

} // namespace

TEST_CASE("interests and readiness are equal in every field or not at all") {
    for (const bool read : {false, true}) {
        for (const bool write : {false, true}) {
            const Interest one{read, write};
            CHECK(one == Interest{read, write});
            CHECK_FALSE(one == Interest{!read, write});
            CHECK_FALSE(one == Interest{read, !write});
            CHECK(one.none() == (!read && !write));
        }
    }
    const Readiness one{true, false, true, false};
    CHECK(one == Readiness{true, false, true, false});
    CHECK_FALSE(one == Readiness{false, false, true, false});
    CHECK_FALSE(one == Readiness{true, true, true, false});
    CHECK_FALSE(one == Readiness{true, false, false, false});
    CHECK_FALSE(one == Readiness{true, false, true, true});
}

TEST_CASE("ids and reports are equal in every field or not at all") {
    CHECK(id_of(1, 2) == id_of(1, 2));
    CHECK_FALSE(id_of(1, 2) == id_of(2, 2));
    CHECK_FALSE(id_of(1, 2) == id_of(1, 3));

    const PollEvent report{id_of(1, 2), {true, false, false, false}};
    CHECK(report == PollEvent{id_of(1, 2), {true, false, false, false}});
    CHECK_FALSE(report == PollEvent{id_of(1, 3), {true, false, false, false}});
    CHECK_FALSE(report == PollEvent{id_of(1, 2), {}});

    SignalEvent signal;
    signal.value = 5;
    CHECK(signal == SignalEvent(signal));
    CHECK_FALSE(signal == SignalEvent{});

    testing::PollerCall call;
    call.fd = 7;
    CHECK(call == testing::PollerCall(call));
    CHECK_FALSE(call == testing::PollerCall{});
}

TEST_CASE("what owns something keeps it when it is assigned to itself") {
    SECTION("a descriptor") {
        os::Fd fd(os::Kernel::event_fd().fd());
        const int number = fd.get();
        assign_to_itself(fd);
        CHECK(fd.get() == number);
        CHECK(::fcntl(number, F_GETFD) >= 0);
    }
    SECTION("a callback") {
        detail::Callback<int()> callback([] { return 5; });
        assign_to_itself(callback);
        CHECK(callback() == 5);
    }
    SECTION("held signals") {
        sigset_t set{};
        ::sigaddset(&set, SIGUSR2);
        detail::HeldSignals<os::Kernel> held(set);
        assign_to_itself(held);
        sigset_t mask;
        ::pthread_sigmask(SIG_BLOCK, nullptr, &mask);
        CHECK(::sigismember(&mask, SIGUSR2) == 1);
    }
}

TEST_CASE("a stream's event says which it is") {
    using Kind = StreamEvent::Kind;
    for (const Kind kind : {Kind::eof, Kind::blocked, Kind::drained, Kind::connected}) {
        const StreamEvent event(kind);
        CHECK(event.kind() == kind);
        CHECK(event.data() == nullptr);
        CHECK(event.eof() == (kind == Kind::eof));
        CHECK(event.blocked() == (kind == Kind::blocked));
        CHECK(event.drained() == (kind == Kind::drained));
        CHECK(event.connected() == (kind == Kind::connected));
    }
    const std::string text = "x";
    CHECK(StreamEvent(std::as_bytes(std::span(text))).kind() == Kind::data);
}

TEST_CASE("a duration is printed in the unit that fits it") {
    struct Nothing : Service<NoListener, NoTransport> {
        void handle_listener_event(ResourceId, NoCommand, Actions&) {}
        void handle_transport_event(ResourceId, NoCommand, Actions&) {}
    };
    Nothing::Actions actions;
    actions.drain(1500ns);
    actions.drain(-1500ns);
    actions.drain(-15ms);
    std::string printed;
    for (const auto& action : actions) {
        printed += fmt::format("{};", action);
    }
    CHECK(printed == "drain 1.5us;drain -1.5us;drain -15ms;");
}

TEST_CASE("the limit of descriptors can be raised to the hard one") {
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    rlimit lower = before;
    lower.rlim_cur = before.rlim_max / 2;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &lower) == 0);
    CHECK(raise_descriptor_limit() == before.rlim_max);
    rlimit after{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &after) == 0);
    CHECK(after.rlim_cur == before.rlim_max);
    CHECK(::setrlimit(RLIMIT_NOFILE, &before) == 0);
}
