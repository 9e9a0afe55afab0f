// SPDX-License-Identifier: Apache-2.0
//
// The end, gentle or at once: who leaves when, what is counted, and that nothing is left behind.
#include <reactor/net/tcp.hpp>
#include <reactor/poller/epoll.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/reactor.hpp>

#include <sys/socket.h>

#include <filesystem>
#include <thread>

#include "calm.hpp"
#include "catch.hpp"
#include "scripted.hpp"

using namespace scripted;

namespace {

[[nodiscard]] std::size_t open_descriptors() {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        count += entry.exists() ? 1U : 0U;
    }
    return count;
}

/// Blocking, with a patience that only a broken library needs.
[[nodiscard]] std::string read_to_end(int fd) {
    const test::Calm calm; // recv(2)
    const timeval patience{20, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    std::string text;
    char bytes[16 * 1024];
    ssize_t count = 0;
    while ((count = ::recv(fd, bytes, sizeof bytes, 0)) > 0) {
        text.append(bytes, static_cast<std::size_t>(count));
    }
    return count == 0 ? text : text + " and no end";
}

/// Connects to a listener of ours; blocking.
[[nodiscard]] os::Fd connected_to(const Address& address) {
    os::Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const test::Calm calm; // connect(2)
    REQUIRE(::connect(fd.get(), address.data(), address.size()) == 0);
    return fd;
}

/// A toy that has said all it will, and whose other side has too.
void finish(Wire& wire) { wire.end = std::error_code(); }

} // namespace

// -- drain ----------------------------------------------------------------------------------------

TEST_CASE("a drain: listeners leave, then handle_drain is told once, then transports as they end") {
    DrainingWorld world;
    Wire& a = world.wires.add("a");
    Wire& b = world.wires.add("b");
    Wire& l = world.wires.add("l");
    Wire& m = world.wires.add("m");
    const auto ids = world.begin({&a, &b}, {&l, &m});
    Timestamp deadline;
    world.answers.drain = [&](Timestamp until, ToyActions& actions) {
        deadline = until;
        for (const ResourceId id : {ids[0], ids[1]}) {
            actions.send(id, "bye");
            actions.close_write(id);
        }
    };
    const Timestamp asked_at = world.poller().now();
    CHECK(world.act([](ToyActions& actions) { actions.drain(5s); }));
    CHECK(take_notes() == "back(l) back(m) drain");
    CHECK(deadline == asked_at + 5s);
    CHECK(a.sent == "bye");
    CHECK(b.closing);

    world.poller().advance(1s);
    finish(a);
    world.poller().report_read(ids[0]);
    CHECK(world.runtime.turn(0s));
    CHECK(take_notes() == "back(a)");
    CHECK(world.runtime.until_next() == 4s);

    finish(b);
    world.poller().report_read(ids[1]);
    CHECK_FALSE(world.runtime.turn(0s));
    CHECK(take_notes() == "back(b)");
    CHECK(world.runtime.farewell().clean);
    CHECK(world.runtime.farewell().forced == 0);
    CHECK(world.runtime.farewell().unsent_bytes == 0);
    CHECK(world.poller().watched() == 0);
}

TEST_CASE("without a handle_drain a drain closes the writing half of every transport") {
    World world;
    Wire& a = world.wires.add("a");
    Wire& b = world.wires.add("b");
    Wire& l = world.wires.add("l");
    const auto ids = world.begin({&a, &b}, {&l});
    world.act([](ToyActions& actions) { actions.drain(1h); });
    CHECK(take_notes() == "back(l)");
    CHECK(a.closing);
    CHECK(b.closing);
    CHECK_FALSE(l.closing);
    finish(a);
    finish(b);
    world.poller().report_read(ids[0]);
    world.poller().report_read(ids[1]);
    CHECK(world.runtime.run().clean);
    CHECK(take_notes() == "back(a) back(b)");
}

TEST_CASE("at its deadline a drain forces the rest, and counts it and what it could not send") {
    World world;
    Wire& a = world.wires.add("a");
    Wire& b = world.wires.add("b");
    Wire& c = world.wires.add("c");
    const auto ids = world.begin({&a, &b, &c});
    a.room = 2;
    b.room = 0;
    const Timestamp asked_at = world.poller().now();
    world.act([&](ToyActions& actions) {
        actions.send(ids[0], "12345");
        actions.send(ids[1], "1234567");
        actions.drain(5s);
    });
    finish(c);
    world.poller().report_read(ids[2]);
    b.room = 3; // though nobody reports it: one flush is tried before it leaves
    const Farewell farewell = world.runtime.run();
    CHECK(world.poller().now() == asked_at + 5s);
    CHECK(take_notes() == "back(c) back(a) back(b)");
    CHECK_FALSE(farewell.clean);
    CHECK(farewell.forced == 2);
    CHECK(farewell.unsent_bytes == 7);
    CHECK(b.sent == "123");
}

TEST_CASE("a drain that loses bytes on the way is not clean, though nobody was forced") {
    World world;
    Wire& a = world.wires.add("a");
    const ResourceId id = world.begin({&a}).front();
    a.room = 0;
    world.act([&](ToyActions& actions) {
        actions.send(id, "12345");
        actions.drain(5s);
    });
    a.end = std::make_error_code(std::errc::connection_reset);
    world.poller().report_read(id);
    const Farewell farewell = world.runtime.run();
    CHECK(take_notes() == "ended(a)");
    CHECK_FALSE(farewell.clean);
    CHECK(farewell.forced == 0);
    CHECK(farewell.unsent_bytes == 5);
}

TEST_CASE("bytes that were lost before the end began are not counted to it") {
    World world;
    Wire& a = world.wires.add("a");
    const ResourceId id = world.begin({&a}).front();
    a.room = 0;
    world.act([&](ToyActions& actions) { actions.send(id, "12345"); });
    a.end = std::make_error_code(std::errc::connection_reset);
    world.poller().report_read(id);
    world.runtime.turn(0s);
    CHECK_FALSE(world.act([&](ToyActions& actions) { actions.drain(5s); }));
    CHECK(world.runtime.farewell().clean);
}

TEST_CASE("what the service itself unregisters in a drain is not forced") {
    DrainingWorld world;
    Wire& a = world.wires.add("a");
    const ResourceId id = world.begin({&a}).front();
    world.answers.drain = [&](Timestamp, ToyActions& actions) { actions.unregister_transport(id); };
    CHECK_FALSE(world.act([](ToyActions& actions) { actions.drain(5s); }));
    CHECK(take_notes() == "drain back(a)");
    CHECK(world.runtime.farewell().clean);
}

TEST_CASE("a drain of a runtime in which nothing is registered ends at once") {
    DrainingWorld world;
    world.begin({});
    CHECK_FALSE(world.act([](ToyActions& actions) { actions.drain(Duration::max()); }));
    CHECK(take_notes() == "drain");
    CHECK(world.runtime.farewell().clean);
}

TEST_CASE("of several drains the shortest counts, and handle_drain is told once") {
    DrainingWorld world;
    Wire& a = world.wires.add("a");
    world.begin({&a});
    std::vector<Timestamp> told;
    world.answers.drain = [&](Timestamp until, ToyActions&) { told.push_back(until); };
    const Timestamp asked_at = world.poller().now();
    const auto controller = world.runtime.controller();
    SECTION("at once, shorter first") {
        world.act([](ToyActions& actions) {
            actions.drain(3s);
            actions.drain(9s);
        });
        CHECK(told == std::vector<Timestamp>{asked_at + 3s});
    }
    SECTION("at once, longer first") {
        world.act([](ToyActions& actions) {
            actions.drain(9s);
            actions.drain(3s);
        });
        CHECK(told == std::vector<Timestamp>{asked_at + 3s});
    }
    SECTION("by controllers") {
        controller.drain(9s);
        controller.drain(3s);
        controller.drain(7s);
        world.runtime.turn(0s);
        CHECK(told == std::vector<Timestamp>{asked_at + 3s});
    }
    SECTION("a shorter one while the first is on") {
        controller.drain(9s);
        world.runtime.turn(0s);
        CHECK(world.runtime.until_next() == 9s);
        world.act([](ToyActions& actions) { actions.drain(3s); });
        CHECK(told == std::vector<Timestamp>{asked_at + 9s});
    }
    SECTION("a longer one while the first is on") {
        world.act([](ToyActions& actions) { actions.drain(3s); });
        controller.drain(9s);
        world.runtime.turn(0s);
        CHECK(told == std::vector<Timestamp>{asked_at + 3s});
    }
    SECTION("from handle_drain itself") {
        world.answers.drain = [&](Timestamp, ToyActions& actions) { actions.drain(3s); };
        controller.drain(9s);
        world.runtime.turn(0s);
        CHECK(noted == "drain");
    }
    world.runtime.turn(0s);
    CHECK(world.runtime.until_next() == 3s);
    const Farewell farewell = world.runtime.run();
    CHECK(take_notes() == "drain back(a)");
    CHECK(world.poller().now() == asked_at + 3s);
    CHECK(farewell.forced == 1);
}

TEST_CASE("a drain with no time, or less, forces what does not leave at once") {
    const Duration limit = GENERATE(Duration(0), Duration(-1), Duration::min());
    DrainingWorld world;
    Wire& a = world.wires.add("a");
    world.begin({&a});
    const Timestamp asked_at = world.poller().now();
    if (GENERATE(true, false)) {
        world.runtime.controller().drain(limit);
    } else {
        world.act([&](ToyActions& actions) { actions.drain(limit); });
    }
    CHECK(world.runtime.run().forced == 1);
    CHECK(take_notes() == "drain back(a)");
    CHECK(world.poller().now() == asked_at);
}

TEST_CASE("the loop goes on during a drain: events, timers and commands come") {
    DrainingWorld world;
    Wire& a = world.wires.add("a");
    const ResourceId id = world.begin({&a}).front();
    world.act([](ToyActions& actions) {
        actions.drain(1h);
        static_cast<void>(actions.set_timer(1s));
    });
    a.input = {"x"};
    world.poller().report_read(id);
    REQUIRE(world.runtime.controller().command(1));
    world.runtime.turn(0s);
    world.runtime.turn(1s);
    world.runtime.turn(0s);
    CHECK(take_notes() == "drain event(a x) command(1) timer");
}

TEST_CASE("a listener that comes during a drain is given back") {
    DrainingWorld world;
    Wire& a = world.wires.add("a");
    Wire& l = world.wires.add("l");
    Wire& m = world.wires.add("m");
    world.begin({&a});
    world.act([](ToyActions& actions) { actions.drain(1h); });
    noted.clear();
    std::vector<Wire*> returned;
    world.answers.error = [&](auto& error, ToyActions&) {
        CHECK(error.kind() == ErrorKind::registration_failed);
        CHECK(error.code() == std::errc::operation_canceled);
        CHECK(error.is_end());
        auto listener = error.take_listener();
        REQUIRE(listener);
        returned.push_back(&listener->wire());
    };
    ResourceId id;
    world.act([&](ToyActions& actions) { id = add_listener(world.answers, actions, l); });
    CHECK(take_notes() == "registration_failed(l)");
    REQUIRE(world.runtime.controller().register_listener(Toy(m)));
    world.runtime.turn(0s);
    CHECK(take_notes() == "registration_failed(?)");
    CHECK(returned == std::vector<Wire*>{&l, &m});
    CHECK(world.poller().watched() == 1);
}

TEST_CASE("a drain may be asked for before the run, and comes after handle_start") {
    DrainingWorld world;
    Wire& l = world.wires.add("l");
    world.answers.names[world.runtime.listen(Toy(l))] = "l";
    world.runtime.controller().drain(1h);
    CHECK(world.runtime.run().clean);
    CHECK(take_notes() == "start registered(l) back(l) drain");
}

TEST_CASE("a shutdown during a drain ends it at once") {
    DrainingWorld world;
    Wire& a = world.wires.add("a");
    Wire& l = world.wires.add("l");
    Wire& m = world.wires.add("m");
    world.begin({&a}, {&l, &m});
    std::string expected;
    SECTION("from another thread, later") {
        CHECK(world.act([](ToyActions& actions) { actions.drain(1h); }));
        world.runtime.controller().shutdown();
        expected = "back(l) back(m) drain back(a)";
    }
    SECTION("from handle_drain") {
        CHECK(noted.empty());
        world.answers.drain = [](Timestamp, ToyActions& actions) { actions.shutdown(); };
        world.runtime.controller().drain(1h);
        expected = "back(l) back(m) drain back(a)";
    }
    SECTION("from the first handover of a listener") {
        CHECK(noted.empty());
        world.answers.listener_back = [](ResourceId, Toy&, ToyActions& actions) {
            actions.shutdown();
        };
        world.runtime.controller().drain(1h);
        expected = "back(l) back(m) back(a)";
    }
    SECTION("asked for together") {
        CHECK(noted.empty());
        world.runtime.controller().drain(1h);
        world.runtime.controller().shutdown();
        expected = "back(l) back(m) back(a)";
    }
    const Timestamp before = world.poller().now();
    CHECK(world.runtime.run().forced == 1);
    CHECK(take_notes() == expected);
    CHECK(world.poller().now() == before);
}

// -- shutdown -------------------------------------------------------------------------------------

TEST_CASE("a shutdown hands everything over, and tells nothing else") {
    DrainingWorld world;
    Wire& a = world.wires.add("a");
    Wire& b = world.wires.add("b");
    Wire& l = world.wires.add("l");
    const auto ids = world.begin({&a, &b}, {&l});
    const auto controller = world.runtime.controller();
    b.room = 0;
    a.input = b.input = {"1", "2"};
    bool sent = false;
    std::string expected = "back(l) back(a) back(b)";
    const auto end = [&](ToyActions& actions) {
        if (!std::exchange(sent, true)) {
            actions.send(ids[0], "last");
            actions.send(ids[1], "words");
        }
        actions.shutdown();
        actions.shutdown();
        actions.drain(1h);
        actions.unregister_transport(ids[0]); // after the shutdown: not performed
    };
    world.answers.transport_event = [&](ResourceId, std::string&, ToyActions& actions) {
        end(actions);
    };
    SECTION("from an event, in the middle of a batch") {
        world.poller().report_read(ids[0]);
        world.poller().report_read(ids[1]);
        expected = "event(a 1) " + expected;
        CHECK_FALSE(world.runtime.turn(0s));
    }
    SECTION("from tick") {
        world.poller().report_read(ids[0]);
        CHECK_FALSE(world.act(end));
    }
    SECTION("from a timer, before another that is due") {
        world.answers.timer = [&](TimerId, ToyActions& actions) { end(actions); };
        world.answers.start = nullptr;
        world.act([](ToyActions& actions) {
            static_cast<void>(actions.set_timer(1ms));
            static_cast<void>(actions.set_timer(1ms));
        });
        CHECK_FALSE(world.runtime.turn(1h));
        expected = "timer " + expected;
    }
    SECTION("from a command, before another") {
        world.answers.command = [&](int, ToyActions& actions) { end(actions); };
        REQUIRE(controller.command(1));
        REQUIRE(controller.command(2));
        CHECK_FALSE(world.runtime.turn(1h));
        expected = "command(1) " + expected;
    }
    SECTION("from an error") {
        world.answers.error = [&](auto&, ToyActions& actions) { end(actions); };
        CHECK_FALSE(world.act([](ToyActions& actions) {
            actions.pause(ResourceId{});
            actions.pause(ResourceId{});
        }));
        expected = "unknown_id unknown_id " + expected; // both were asked for before the shutdown
    }
    SECTION("from a handover") {
        world.answers.listener_back = [&](ResourceId, Toy&, ToyActions& actions) { end(actions); };
        CHECK_FALSE(world.act([&](ToyActions& actions) { actions.unregister_listener(ids[2]); }));
    }
    CHECK(take_notes() == expected);
    CHECK(a.sent == "last");
    const Farewell farewell = world.runtime.run();
    CHECK_FALSE(farewell.clean);
    CHECK(farewell.forced == 2);
    CHECK(farewell.unsent_bytes == 5);
    CHECK(Token::live == 0);
}

TEST_CASE("a shutdown that comes from another thread is like one that is asked for") {
    World world;
    Wire& a = world.wires.add("a");
    world.begin({&a});
    const auto controller = world.runtime.controller();
    controller.shutdown();
    controller.shutdown();
    CHECK(world.runtime.run().forced == 1);
    CHECK(take_notes() == "back(a)");
    CHECK(world.poller().sleeps == 0);
    controller.shutdown();
    controller.drain(1s);
    controller.wake();
    CHECK(world.runtime.run().forced == 1);
    CHECK(take_notes().empty());
}

TEST_CASE("a shutdown before the run gives back what was to be registered") {
    DrainingWorld world;
    Wire& l = world.wires.add("l");
    world.answers.names[world.runtime.listen(Toy(l))] = "l";
    world.answers.error = [&](auto& error, ToyActions&) {
        CHECK(error.code() == std::errc::operation_canceled);
        CHECK(error.take_listener().has_value());
    };
    REQUIRE(world.runtime.controller().command(1));
    world.runtime.controller().shutdown();
    CHECK(world.runtime.run().clean);
    CHECK(take_notes() == "registration_failed(l)");
    CHECK(world.poller().waits() <= 1);
}

TEST_CASE("what was asked for behind a shutdown comes back or is counted") {
    World world;
    Wire& a = world.wires.add("a");
    Wire& b = world.wires.add("b");
    Wire& l = world.wires.add("l");
    const ResourceId id = world.begin({&a}).front();
    Token::live = 1;
    REQUIRE(world.runtime.controller().register_transport(Toy(b)));
    REQUIRE(world.runtime.controller().register_listener(Toy(l)));
    world.answers.error = [&](auto& error, ToyActions&) {
        CHECK(error.code() == std::errc::operation_canceled);
        CHECK(error.is_end());
        CHECK((error.take_transport() || error.take_listener()));
    };
    world.act([&](ToyActions& actions) {
        actions.shutdown();
        add_transport(world.answers, actions, b);
        actions.send(id, "not any more");
        add_listener(world.answers, actions, l);
    });
    CHECK(take_notes() == "registration_failed(b) registration_failed(l) registration_failed "
                          "registration_failed back(a)");
    CHECK(a.sent.empty());
    CHECK(world.runtime.farewell().unsent_bytes == 12);
    CHECK(Token::live == 0);
}

TEST_CASE("what a handover asks for in the end is ignored") {
    World world;
    Wire& a = world.wires.add("a");
    Wire& b = world.wires.add("b");
    Wire& c = world.wires.add("c");
    const auto ids = world.begin({&a, &b});
    world.answers.transport_back = [&](ResourceId, Toy& toy, ToyActions& actions) {
        actions.send(ids[1], "late");
        actions.send(ids[0], "late");
        static_cast<void>(actions.register_transport(std::move(toy)));
        static_cast<void>(actions.register_transport(Toy(c)));
        static_cast<void>(actions.set_timer(0ns));
    };
    CHECK_FALSE(world.act([](ToyActions& actions) { actions.shutdown(); }));
    CHECK(take_notes() == "back(a) back(b)");
    CHECK(a.sent + b.sent == "");
    CHECK(Token::live == 0);
    CHECK(world.runtime.farewell().forced == 2);
    CHECK(world.runtime.farewell().unsent_bytes == 0);
}

TEST_CASE("after the end nothing is told any more, and run returns at once") {
    const bool gently = GENERATE(true, false);
    World world;
    Wire& a = world.wires.add("a");
    Wire& l = world.wires.add("l");
    const ResourceId id = world.begin({&a}, {&l}).front();
    finish(a);
    if (gently) {
        world.poller().report_read(id);
    }
    world.act([&](ToyActions& actions) { gently ? actions.drain(1h) : actions.shutdown(); });
    const Farewell farewell = world.runtime.run();
    take_notes();
    const std::size_t waits = world.poller().waits();
    world.answers.notes_ticks = true;
    for (int n = 0; n < 3; ++n) {
        const Farewell again = world.runtime.run();
        CHECK(again.clean == farewell.clean);
        CHECK(again.forced == farewell.forced);
        CHECK_FALSE(world.runtime.turn(1h));
        CHECK(world.runtime.until_next() == 0s);
    }
    CHECK(take_notes().empty());
    CHECK(world.poller().waits() == waits);
    CHECK(Token::live == 0);
}

// -- commands and other threads -------------------------------------------------------------------

namespace {

struct CountedCommand {
    explicit CountedCommand(int& handled) noexcept : handled_(&handled) {}
    void handle() const { ++*handled_; }

    int* handled_;
    Token token;
};

using CountingAnswers = Answers<NoListener, NoTransport, CountedCommand>;
using CountingService = ScriptedService<NoListener, NoTransport, CountedCommand>;

} // namespace

TEST_CASE("a command is handled, or destroyed by the end, or given back: never kept") {
    CountingAnswers answers;
    int handled = 0;
    int asked = 0;
    answers.command = [&](CountedCommand& command, CountingAnswers::Actions& actions) {
        command.handle();
        if (++asked == 3) {
            actions.shutdown();
        }
    };
    Token::live = 0;
    Options options;
    options.command_queue = 5;
    CountingService::Controller controller;
    {
        Runtime<CountingService, ScriptedPoller> runtime(CountingService(answers), options);
        controller = runtime.controller();
        for (int n = 0; n < 5; ++n) {
            REQUIRE(controller.command(CountedCommand(handled)));
        }
        auto refused = controller.command(CountedCommand(handled));
        CHECK(refused.full());
        REQUIRE(refused.take().has_value());
        CHECK(Token::live == 5);
        SECTION("the end comes") {
            runtime.run();
            CHECK(handled == 3);
            CHECK(Token::live == 0);
        }
        SECTION("the runtime never runs") { CHECK(handled == 0); }
    }
    CHECK(Token::live == 0); // although a controller is left
    auto late = controller.command(CountedCommand(handled));
    CHECK(late.closed());
    CHECK(Token::live == 1);
    late.take()->handle();
    controller.drain(1s);
    controller.shutdown();
    controller.wake();
}

TEST_CASE("a runtime that is destroyed in mid-run tells nothing and leaves nothing") {
    Token::live = 0;
    std::optional<Service<Toy, Toy, int>::Controller> controller;
    {
        World world;
        Wire& a = world.wires.add("a");
        Wire& b = world.wires.add("b");
        Wire& l = world.wires.add("l");
        world.begin({&a}, {&l});
        controller = world.runtime.controller();
        REQUIRE(controller->register_transport(Toy(b)));
        REQUIRE(controller->register_listener(Toy(b)));
        static_cast<void>(world.runtime.listen(Toy(b)));
        CHECK(Token::live == 5);
    }
    CHECK(take_notes().empty());
    CHECK(Token::live == 0); // although a controller is left
}

// -- on every poller ------------------------------------------------------------------------------

namespace {

using TcpAnswers = Answers<TcpListener, TcpStream, int>;
using TcpActions = TcpAnswers::Actions;
using TcpService = ScriptedService<TcpListener, TcpStream, int>;

} // namespace

TEMPLATE_TEST_CASE("a drain lets everything that was sent arrive, and ends clean", "", EpollPoller,
                   PollPoller) {
    const std::size_t descriptors = open_descriptors();
    {
        TcpAnswers answers;
        answers.notes_registered = false;
        const std::string large(3'000'000, 'x');
        int accepted = 0;
        answers.listener_event = [&](ResourceId, TcpListener::Event& event, TcpActions& actions) {
            const ResourceId id = actions.register_transport(std::move(event.stream));
            actions.send(id, large.substr(0, 1'000'000));
            if (++accepted == 3) {
                actions.drain(1h);
            }
        };
        Runtime<TcpService, TestType> runtime{TcpService(answers)};
        TcpListener listener = TcpListener::bind("127.0.0.1:0");
        const Address address = listener.local();
        static_cast<void>(runtime.listen(std::move(listener)));
        std::vector<std::string> got(3);
        std::vector<std::thread> clients;
        for (std::string& text : got) {
            clients.emplace_back(
                [&text, client = connected_to(address)] { text = read_to_end(client.get()); });
        }
        const Farewell farewell = runtime.run();
        for (std::thread& client : clients) {
            client.join();
        }
        for (const std::string& text : got) {
            CHECK(text.size() == 1'000'000);
        }
        CHECK(farewell.clean);
    }
    CHECK(open_descriptors() == descriptors);
}

TEMPLATE_TEST_CASE("a peer that does not read is forced at the deadline, and its loss is counted",
                   "", EpollPoller, PollPoller) {
    const std::size_t descriptors = open_descriptors();
    {
        TcpAnswers answers;
        Options options;
        options.stream.cap = 64 * 1024 * 1024;
        std::size_t missed = 0;
        answers.listener_event = [&](ResourceId, TcpListener::Event& event, TcpActions& actions) {
            const ResourceId id = actions.register_transport(std::move(event.stream));
            actions.send(id, Buffer(std::string(32 * 1024 * 1024, 'x')));
            actions.drain(20ms);
        };
        answers.transport_back = [&](ResourceId, TcpStream& stream, TcpActions&) {
            missed = stream.unsent();
        };
        Runtime<TcpService, TestType> runtime{TcpService(answers), options};
        TcpListener listener = TcpListener::bind("127.0.0.1:0");
        const os::Fd client = connected_to(listener.local());
        static_cast<void>(runtime.listen(std::move(listener)));
        const Timestamp asked = os::Kernel::now();
        const Farewell farewell = runtime.run();
        CHECK(os::Kernel::now() - asked >= 20ms);
        CHECK_FALSE(farewell.clean);
        CHECK(farewell.forced == 1);
        CHECK(farewell.unsent_bytes == missed);
        CHECK(missed > 0);
    }
    CHECK(open_descriptors() == descriptors);
}

TEMPLATE_TEST_CASE("whatever state a connection is in, a shutdown hands it over open", "",
                   EpollPoller, PollPoller) {
    const std::size_t descriptors = open_descriptors();
    {
        TcpAnswers answers;
        Options options;
        options.stream.cap = 64 * 1024 * 1024;
        std::vector<ResourceId> ids;
        std::map<ResourceId, std::size_t> unsent;
        int eofs = 0;
        answers.listener_event = [&](ResourceId, TcpListener::Event& event, TcpActions& actions) {
            ids.push_back(actions.register_transport(std::move(event.stream)));
            if (ids.size() == 4) {
                actions.send(ids[1], Buffer(std::string(32 * 1024 * 1024, 'x'))); // blocked
                actions.close_write(ids[2]);                                      // half-closed
                actions.pause(ids[3]);
                actions.send(ids[3], "bytes");
            }
        };
        answers.transport_event = [&](ResourceId, StreamEvent& event, TcpActions& actions) {
            if (event.eof() && ++eofs == 1) { // which the peer half-closed
                actions.shutdown();
            }
        };
        answers.transport_back = [&](ResourceId id, TcpStream& stream, TcpActions&) {
            CHECK(::fcntl(stream.fd(), F_GETFD) == FD_CLOEXEC);
            unsent[id] = stream.unsent();
        };
        Runtime<TcpService, TestType> runtime{TcpService(answers), options};
        TcpListener listener = TcpListener::bind("127.0.0.1:0");
        std::vector<os::Fd> clients;
        for (int n = 0; n < 4; ++n) {
            clients.push_back(connected_to(listener.local()));
        }
        static_cast<void>(runtime.listen(std::move(listener)));
        while (ids.size() < 4) {
            runtime.turn(1h);
        }
        REQUIRE(::shutdown(clients[0].get(), SHUT_WR) == 0);
        const Farewell farewell = runtime.run();
        CHECK(farewell.forced == 4);
        CHECK(unsent.size() == 4);
        CHECK(unsent[ids[1]] > 0);
        CHECK(farewell.unsent_bytes == unsent[ids[1]]);
    }
    CHECK(open_descriptors() == descriptors);
}

namespace {

/// Looks whether a descriptor is still open when it leaves the poller.
template <class P>
struct LookingPoller : P {
    inline static int open = 0;
    inline static int closed = 0;
    void unwatch(int fd, ResourceId id) noexcept {
        ++(::fcntl(fd, F_GETFD) == -1 ? closed : open);
        P::unwatch(fd, id);
    }
};

} // namespace

TEMPLATE_TEST_CASE("a resource leaves the poller before its descriptor closes, whatever the end",
                   "", EpollPoller, PollPoller) {
    using Looking = LookingPoller<TestType>;
    Looking::open = Looking::closed = 0;
    enum class End { shutdown, drain, destroyed, thrown };
    const End end = GENERATE(End::shutdown, End::drain, End::destroyed, End::thrown);
    {
        TcpAnswers answers;
        int accepted = 0;
        answers.listener_event = [&](ResourceId, TcpListener::Event& event, TcpActions& actions) {
            static_cast<void>(actions.register_transport(std::move(event.stream)));
            ++accepted;
        };
        Runtime<TcpService, Looking> runtime{TcpService(answers)};
        TcpListener listener = TcpListener::bind("127.0.0.1:0");
        const os::Fd first = connected_to(listener.local());
        const os::Fd second = connected_to(listener.local());
        static_cast<void>(runtime.listen(std::move(listener)));
        while (accepted < 2) {
            runtime.turn(1h);
        }
        answers.transport_back = [&](ResourceId, TcpStream&, TcpActions&) {
            if (end == End::thrown) {
                throw std::runtime_error("on the way out");
            }
        };
        if (end == End::drain) {
            runtime.controller().drain(0s);
        } else if (end != End::destroyed) {
            runtime.controller().shutdown();
        }
        if (end == End::thrown) {
            CHECK_THROWS_AS(runtime.run(), std::runtime_error);
        } else if (end != End::destroyed) {
            CHECK(runtime.run().forced == 2);
        }
    }
    CHECK(Looking::open == 3);
    CHECK(Looking::closed == 0);
}

TEMPLATE_TEST_CASE("drain and shutdown may come from any thread at any time", "", EpollPoller,
                   PollPoller) {
    const std::size_t descriptors = open_descriptors();
    for (int round = 0; round < 20; ++round) {
        TcpAnswers answers;
        answers.listener_event = [&](ResourceId, TcpListener::Event& event, TcpActions& actions) {
            static_cast<void>(actions.register_transport(std::move(event.stream)));
        };
        TcpListener listener = TcpListener::bind("127.0.0.1:0");
        const os::Fd client = connected_to(listener.local());
        Reactor<TcpService, TestType> reactor{TcpService(answers)};
        reactor.listen(std::move(listener));
        const auto controller = reactor.controller();
        std::vector<std::thread> others;
        for (int n = 0; n < 3; ++n) {
            others.emplace_back([&controller, n, round] {
                for (int again = 0; again < 3; ++again) {
                    if ((n + again + round) % 3 == 0) {
                        controller.shutdown();
                    } else {
                        controller.drain(std::chrono::microseconds(n * 100));
                    }
                }
            });
        }
        const Farewell farewell = reactor.join();
        for (std::thread& other : others) {
            other.join();
        }
        CHECK(farewell.forced <= 1);
        CHECK(controller.command(1).closed());
        CHECK(controller.register_listener(TcpListener::bind("127.0.0.1:0")).closed());
    }
    noted.clear();
    CHECK(open_descriptors() == descriptors);
}

TEST_CASE("of a drain by a callback and one by a controller in one turn the shorter counts") {
    DrainingWorld world;
    Wire& a = world.wires.add("a");
    world.begin({&a});
    std::vector<Timestamp> told;
    world.answers.drain = [&](Timestamp until, ToyActions&) { told.push_back(until); };
    const Timestamp asked_at = world.poller().now();
    const auto controller = world.runtime.controller();
    world.act([&](ToyActions& actions) {
        actions.drain(3s);
        controller.drain(9s);
    });
    CHECK(told == std::vector<Timestamp>{asked_at + 3s});
}

TEST_CASE("who leaves at the limit of a drain may still set a timer") {
    DrainingWorld world;
    Wire& a = world.wires.add("a");
    world.begin({&a});
    bool is_set = false;
    world.answers.transport_back = [&](ResourceId, Toy&, ToyActions& actions) {
        is_set = static_cast<bool>(actions.set_timer(1s));
    };
    world.runtime.controller().drain(3s);
    CHECK(world.runtime.run().forced == 1);
    CHECK(take_notes() == "drain back(a)");
    CHECK(is_set);
}
