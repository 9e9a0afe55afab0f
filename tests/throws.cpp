// SPDX-License-Identifier: Apache-2.0
//
// What a callback throws passes through run() and leaves everything else as it was: what it had
// asked for is performed, what was not dispatched comes with the next turn, nothing comes twice.
#include <reactor/net/stream.hpp>
#include <reactor/poller/epoll.hpp>
#include <reactor/poller/poll.hpp>

#include <sys/socket.h>

#include <sstream>

#include "catch.hpp"
#include "scripted.hpp"

using namespace scripted;

namespace {

struct Bomb : std::runtime_error {
    Bomb() : std::runtime_error("thrown by a test") {}
};

/// Split at the blanks that are not in brackets.
[[nodiscard]] std::vector<std::string> words_of(const std::string& text) {
    std::istringstream in(text);
    std::vector<std::string> words;
    for (std::string word; in >> word;) {
        if (!words.empty() && words.back().find('(') != std::string::npos &&
            words.back().back() != ')') {
            words.back() += " " + word;
        } else {
            words.push_back(word);
        }
    }
    return words;
}
/// The words about each resource in their order, and what is about none by kind; what reading
/// yields and what writing causes have no order between them.
[[nodiscard]] std::map<std::string, std::vector<std::string>> traces(const std::string& text) {
    std::map<std::string, std::vector<std::string>> traces;
    for (const std::string& word : words_of(text)) {
        const std::size_t name = word.find('(');
        const bool of_writing = word.find("drained") != std::string::npos;
        traces[name == std::string::npos || of_writing ? word : word.substr(name + 1, 1)].push_back(
            word);
    }
    return traces;
}
[[nodiscard]] std::vector<std::string> sorted(std::vector<std::string> words) {
    std::sort(words.begin(), words.end());
    return words;
}

/// What a whole life of a runtime left behind.
struct Outcome {
    std::string notes;
    std::string sent;
    int callbacks = 0;
    int thrown = 0;
    bool waited = false; ///< a turn after a throw
    Farewell farewell;
};

/// A life with every callback in it, from the start to the end of a drain. The callback, or the
/// handle_io, of this number throws, when it has asked for what it wants.
Outcome live(int throwing, bool in_handle_io, bool ends_by_shutdown) {
    Outcome outcome;
    Options options;
    options.events_per_resource = 3;
    options.commands_per_turn = 2;
    options.action_queue = 20;
    Token::live = 0;
    {
        DrainingWorld world(options);
        auto& answers = world.answers;
        Wire& p = world.wires.add("p"); // whom everybody writes to
        Wire& a = world.wires.add("a");
        Wire& b = world.wires.add("b");
        Wire& c = world.wires.add("c"); // leaves early
        Wire& d = world.wires.add("d"); // cannot be registered: its descriptor is a's
        Wire& l = world.wires.add("l");
        Wire& m = world.wires.add("m"); // leaves early
        Wire& n = world.wires.add("n"); // comes from another thread
        d.fd = a.fd;
        std::map<std::string, ResourceId> ids;
        bool draining = false;
        int left = 0; // since then

        const auto explode = [&](bool is_handle_io) {
            if (is_handle_io == in_handle_io && ++outcome.callbacks == throwing) {
                ++outcome.thrown;
                throw Bomb();
            }
        };
        const auto finish = [&](ToyActions& actions, const std::string& word) {
            actions.send(ids["p"], word + " ");
            explode(false);
        };
        for (Wire* const wire : {&p, &a, &b, &c, &l, &m, &n}) {
            wire->on_io = [&](Io) { explode(true); };
        }
        bool started = false;
        answers.start = [&](ToyActions& actions) {
            started = true;
            for (Wire* const wire : {&p, &a, &b, &c, &d}) {
                ids[wire->name] = add_transport(answers, actions, *wire);
            }
            for (Wire* const wire : {&l, &m}) {
                ids[wire->name] = add_listener(answers, actions, *wire);
            }
            static_cast<void>(actions.set_timer(1ms));
            static_cast<void>(actions.set_timer(1ms));
            finish(actions, "start");
        };
        answers.registered = [&](ResourceId id, Role, int, ToyActions& actions) {
            finish(actions, "registered" + answers.name(id));
        };
        const auto controller = world.runtime.controller();
        answers.timer = [&](TimerId, ToyActions& actions) { finish(actions, "timer"); };
        answers.listener_event = [&](ResourceId id, std::string& event, ToyActions& actions) {
            finish(actions, answers.name(id) + event);
        };
        answers.transport_event = [&](ResourceId id, std::string& event, ToyActions& actions) {
            if (event == "a2") {
                actions.pause(id);
                actions.resume(id);
            }
            if (event == "b2") {
                a.caused = {"drained"};
                actions.resume(ids["a"]); // touches it
            }
            finish(actions, answers.name(id) + event);
        };
        answers.command = [&](int command, ToyActions& actions) {
            if (command == 2) {
                actions.unregister_transport(ids["c"]);
                actions.unregister_listener(ids["m"]);
                actions.send(ids["c"], "dead");
            }
            if (command == 3) {
                b.trouble = std::make_error_code(std::errc::too_many_files_open);
                actions.resume(ids["b"]);
                static_cast<void>(actions.set_timer(0ns));
            }
            if (command == 4) {
                ends_by_shutdown ? actions.shutdown() : actions.drain(24h);
            }
            finish(actions, "command" + std::to_string(command));
        };
        answers.error = [&](auto& error, ToyActions& actions) {
            if (error.id() == ids["p"]) {
                return explode(false);
            }
            finish(actions, name_of(error.kind()) + answers.name(error.id()));
        };
        answers.drain = [&](Timestamp, ToyActions& actions) {
            draining = true;
            for (Wire* const wire : {&a, &b, &n}) {
                wire->end = std::error_code();
            }
            for (const auto& [id, name] : std::map(answers.names)) {
                if (name == "a" || name == "b" || name == "n") {
                    actions.close_write(id);
                }
            }
            finish(actions, "drain");
        };
        answers.listener_back = [&](ResourceId id, Toy&, ToyActions& actions) {
            finish(actions, "back" + answers.name(id));
        };
        answers.transport_back = [&](ResourceId id, Toy& toy, ToyActions& actions) {
            actions.send(ids["p"], "back" + answers.name(id) + " ");
            if (draining && toy.wire().name != "p" && ++left == 3) {
                actions.unregister_transport(ids["p"]);
            }
            explode(false);
        };

        int turns = 0;
        bool sent = false;
        bool idle = false;
        bool after_throw = false;
        for (bool goes_on = true; goes_on && turns < 100; ++turns) {
            if (started && world.poller().is_watched(ids["m"]) && !std::exchange(sent, true)) {
                world.poller().advance(1ms);
                a.input = {"a1", "a2", "a3", "a4"};
                b.input = {"b1", "b2"};
                l.input = {"l1", "l2"};
                for (const char* name : {"a", "b", "l"}) {
                    world.poller().report_read(ids[name]);
                }
                for (int command = 1; command <= 3; ++command) {
                    REQUIRE(controller.command(int{command}));
                    if (command == 1) {
                        REQUIRE(controller.register_transport(Toy(n)));
                    }
                }
            }
            try {
                goes_on = world.runtime.turn(1h);
                outcome.waited |= after_throw && world.poller().last_timeout() > 0s;
                if (sent && world.poller().last_timeout() > 0s && !std::exchange(idle, true)) {
                    REQUIRE(controller.command(4)); // once all the rest has been done
                }
                after_throw = false;
            } catch (const Bomb&) {
                after_throw = true;
            }
            for (const auto& [id, name] : answers.names) {
                ids[name] = id;
            }
            if (const ResourceId id = world.poller().id_of(n.fd)) {
                answers.names[id] = "n";
            }
        }
        CHECK(turns < 100);
        CHECK(world.poller().watched() == 0);
        outcome.farewell = world.runtime.farewell();
        outcome.notes = take_notes();
        outcome.sent = p.sent;
    }
    CHECK(Token::live == 0);
    return outcome;
}

} // namespace

TEST_CASE("whichever callback throws, all others come once, and all that was asked for is done") {
    const bool in_handle_io = GENERATE(false, true);
    const bool ends_by_shutdown = GENERATE(false, true);
    const Outcome calm = live(0, in_handle_io, ends_by_shutdown);
    for (const char* what : {"start", "registered(p)", "registration_failed(d)", "timer",
                             "accept(l", "event(a", "command(4)", "back(c)", "back(m)",
                             "unknown_id(c)", "trouble(b)", "back(l)", "back(a)"}) {
        CHECK_THAT(calm.notes, Catch::Matchers::ContainsSubstring(what));
    }
    CHECK(calm.callbacks > 20);
    for (int throwing = 1; throwing <= calm.callbacks; ++throwing) {
        const Outcome outcome = live(throwing, in_handle_io, ends_by_shutdown);
        INFO("throws: " << throwing << "\ncalm: " << calm.notes << "\nhere: " << outcome.notes
                        << "\ncalm sent: " << calm.sent << "\nhere sent: " << outcome.sent);
        CHECK(outcome.thrown == 1);
        CHECK_FALSE(outcome.waited);
        CHECK(traces(outcome.notes) == traces(calm.notes));
        CHECK(sorted(words_of(outcome.sent)) == sorted(words_of(calm.sent)));
        CHECK(outcome.farewell.clean == calm.farewell.clean);
        CHECK(outcome.farewell.forced == calm.farewell.forced);
    }
}

TEST_CASE("tick may throw in every other turn, and the stages behind it come with the next") {
    World world;
    Wire& a = world.wires.add("a");
    const ResourceId id = world.begin({&a}).front();
    bool throws = true;
    world.answers.tick = [&](ToyActions&) {
        if (std::exchange(throws, !throws)) {
            throw Bomb();
        }
    };
    for (int n = 0; n < 5; ++n) {
        a.input = {"x"};
        world.poller().report_read(id);
        REQUIRE(world.runtime.controller().command(1));
        CHECK_THROWS_AS(world.runtime.turn(1h), Bomb);
        CHECK(take_notes().empty());
        const std::size_t waits = world.poller().waits();
        CHECK(world.runtime.turn(1h));
        CHECK(take_notes() == "event(a x) command(1)");
        CHECK(world.poller().waits() == waits); // there was a batch left
    }
}

TEST_CASE("what was asked for before a throw is performed, before what is asked later") {
    World world;
    Wire& a = world.wires.add("a");
    Wire& b = world.wires.add("b");
    const ResourceId id = world.begin({&a}).front();
    world.answers.command = [&](int command, ToyActions& actions) {
        actions.send(id, std::to_string(command));
        if (command == 1) {
            actions.pause(id); // from here on what is asked for waits
            actions.send(id, "b");
            add_transport(world.answers, actions, b);
            throw Bomb();
        }
    };
    REQUIRE(world.runtime.controller().command(1));
    REQUIRE(world.runtime.controller().command(2));
    CHECK_THROWS_AS(world.runtime.turn(0s), Bomb);
    CHECK(world.timeout_of_turn() == 0s);
    CHECK(take_notes() == "command(1) registered(b) command(2)");
    CHECK(a.sent == "1b2");
}

TEST_CASE("an interval whose callback throws goes on") {
    World world;
    int fired = 0;
    world.answers.timer = [&](TimerId, ToyActions&) {
        ++fired;
        throw Bomb();
    };
    world.act([](ToyActions& actions) { static_cast<void>(actions.set_interval(1s)); });
    for (int n = 1; n <= 3; ++n) {
        CHECK_THROWS_AS(world.runtime.turn(1s), Bomb);
        CHECK(fired == n);
        world.runtime.turn(0s);
        CHECK(fired == n);
    }
}

TEST_CASE("what throws in the flush keeps nobody from being flushed, nor from being watched") {
    // `blocked` is told in the flush: the transport that throws there, and the one behind it.
    World world;
    Wire& a = world.wires.add("a");
    Wire& b = world.wires.add("b");
    const auto ids = world.begin({&a, &b});
    a.room = b.room = 0;
    a.caused = {"blocked"};
    world.answers.transport_event = [](ResourceId, std::string&, ToyActions&) { throw Bomb(); };
    const auto send_to_both = [&](ToyActions& actions) {
        actions.send(ids[0], "1");
        actions.send(ids[1], "2");
    };
    CHECK_THROWS_AS(world.act(send_to_both), Bomb);
    world.answers.tick = nullptr;
    world.timeout_of_turn();
    CHECK(world.poller().interest_of(ids[0]) == Interest{true, true});
    CHECK(world.poller().interest_of(ids[1]) == Interest{true, true});
    world.timeout_of_turn();
    world.timeout_of_turn();
    CHECK(world.poller().last_timeout() == 1h);
}

TEST_CASE("a resource that yields more than it was asked for does so after a throw as well") {
    // It holds input of its own: the kernel has nothing more to report.
    World world;
    Wire& a = world.wires.add("a");
    Wire& l = world.wires.add("l");
    const auto ids = world.begin({&a}, {&l});
    a.input = l.input = {"1", "2", "3"};
    const auto throwing = [](ResourceId, std::string& event, ToyActions&) {
        if (event == "2") {
            throw Bomb();
        }
    };
    world.answers.transport_event = world.answers.listener_event = throwing;
    world.poller().report_read(ids[0]);
    world.poller().report_read(ids[1]);
    CHECK_THROWS_AS(world.runtime.turn(0s), Bomb);
    CHECK_THROWS_AS(world.runtime.turn(0s), Bomb);
    world.runtime.turn(0s);
    world.runtime.turn(0s);
    CHECK(traces(take_notes()) == traces("event(a 1) event(a 2) event(a 3) "
                                         "accept(l 1) accept(l 2) accept(l 3)"));
}

TEST_CASE("a resource whose every event throws keeps nobody else from his turn") {
    World world;
    Wire& t = world.wires.add("t");
    Wire& a = world.wires.add("a");
    Wire& b = world.wires.add("b");
    const bool from_itself = GENERATE(true, false);
    t.endless = true;
    t.input = {"."};
    const auto ids = world.begin({&t, &a, &b});
    if (from_itself) {
        t.on_io = [](Io io) {
            if (io == Io::read) {
                throw Bomb();
            }
        };
    }
    world.answers.transport_event = [&](ResourceId id, std::string&, ToyActions&) {
        if (id == ids[0]) {
            throw Bomb();
        }
    };
    world.act([](ToyActions& actions) { static_cast<void>(actions.set_timer(1ms)); });
    world.poller().advance(1ms);
    a.input = b.input = {"x"};
    REQUIRE(world.runtime.controller().command(1));
    world.poller().report_read(ids[1]);
    for (int n = 0; n < 20; ++n) {
        world.poller().report_read(ids[0]); // as a level-triggered poller does
        world.poller().report_read(ids[2]);
        try {
            world.runtime.turn(0s);
        } catch (const Bomb&) {
        }
    }
    const std::string notes = take_notes();
    for (const char* word : {"timer", "event(a x)", "event(b x)", "command(1)"}) {
        CHECK_THAT(notes, Catch::Matchers::ContainsSubstring(word));
    }
}

TEST_CASE("a lazy timer goes on after its resource or its error has thrown") {
    World world;
    Wire& a = world.wires.add("a");
    Wire& b = world.wires.add("b");
    const Timestamp begun = world.poller().now();
    a.deadline = b.deadline = begun + 1s;
    int handled = 0;
    a.at_deadline = b.at_deadline = [&](Wire& wire) {
        wire.deadline = world.poller().now() + 1s;
        ++handled;
        if (&wire == &a) {
            throw Bomb();
        }
        wire.trouble = std::make_error_code(std::errc::timed_out);
    };
    world.answers.error = [](auto&, ToyActions&) { throw Bomb(); };
    world.begin({&a}, {&b});
    int thrown = 0;
    for (int n = 0; n < 50 && world.poller().now() < begun + 5s; ++n) {
        try {
            world.runtime.turn(1h);
        } catch (const Bomb&) {
            ++thrown;
        }
    }
    CHECK(world.poller().now() == begun + 5s);
    CHECK(handled >= 8);
    CHECK(thrown >= 8);
}

TEST_CASE("a throw in the middle of the end leaves the rest to a next run that does not wait") {
    DrainingWorld world;
    std::vector<Wire*> transports;
    std::vector<Wire*> listeners;
    for (int n = 0; n < 3; ++n) {
        transports.push_back(&world.wires.add(std::to_string(n)));
        listeners.push_back(&world.wires.add(std::to_string(n + 3)));
    }
    world.begin(transports, listeners);
    const bool gently = GENERATE(true, false);
    const bool from_outside = GENERATE(true, false);
    world.answers.drain = [&](Timestamp, ToyActions& actions) {
        for (const auto& [id, name] : std::map(world.answers.names)) {
            if (name < "3") {
                actions.unregister_transport(id);
            }
        }
        throw Bomb();
    };
    world.answers.listener_back =
        world.answers.transport_back = [](ResourceId, Toy&, ToyActions&) { throw Bomb(); };
    const auto end = [&](const auto& asked) {
        gently ? asked.drain(Duration::max()) : asked.shutdown();
    };
    const int expected = gently ? 7 : 6;
    int thrown = 0;
    const auto run = [&](auto&& work) {
        try {
            work();
            return true;
        } catch (const Bomb&) {
            ++thrown;
            return false;
        }
    };
    if (from_outside) {
        end(world.runtime.controller());
    } else {
        run([&] {
            world.act([&](ToyActions& actions) {
                gently ? actions.drain(Duration::max()) : actions.shutdown();
            });
        });
        world.answers.tick = nullptr;
    }
    const Timestamp before = world.poller().now();
    while (thrown < 20 && !run([&] { world.runtime.run(); })) {
    }
    CHECK(thrown == expected);
    CHECK(world.poller().now() == before);
    CHECK(world.poller().sleeps == 0);
    CHECK(world.runtime.farewell().forced == (gently ? 0 : 3));
    CHECK(Token::live == 0);
    const auto notes = traces(take_notes());
    for (int n = 0; n < 6; ++n) {
        const std::string name = std::to_string(n);
        CHECK(notes.at(name) == std::vector<std::string>{"back(" + name + ")"});
    }
}

// -- a run within a run ---------------------------------------------------------------------------

TEST_CASE("a run within a callback is refused, whichever callback it is, and does no harm") {
    DrainingWorld world;
    Wire& a = world.wires.add("a");
    Wire& l = world.wires.add("l");
    int tried = 0;
    const auto attempt = [&](auto&&...) {
        ++tried;
        std::error_code error;
        CHECK_FALSE(world.runtime.turn(0s, error));
        CHECK(error == std::errc::resource_deadlock_would_occur);
        error.clear();
        world.runtime.run(error);
        CHECK(error == std::errc::resource_deadlock_would_occur);
        try {
            world.runtime.run();
            FAIL_CHECK("not refused");
        } catch (const std::system_error& refusal) {
            CHECK(refusal.code() == std::errc::resource_deadlock_would_occur);
        }
        CHECK_THROWS_AS(world.runtime.turn(1h), std::system_error);
    };
    const auto ids = world.begin({&a}, {&l});
    auto& answers = world.answers;
    answers.tick = answers.start = attempt;
    answers.timer = attempt;
    answers.listener_event = answers.transport_event = attempt;
    answers.command = attempt;
    answers.drain = attempt;
    answers.error = attempt;
    answers.listener_back = answers.transport_back = attempt;
    a.on_io = attempt;
    a.input = l.input = {"x"};
    world.poller().report_read(ids[0]);
    world.poller().report_read(ids[1]);
    REQUIRE(world.runtime.controller().command(1));
    answers.command = [&](int, ToyActions& actions) {
        attempt();
        static_cast<void>(actions.set_timer(1ms));
        actions.pause(ResourceId{});
        actions.unregister_listener(ids[1]);
    };
    world.runtime.turn(0s);
    CHECK(world.runtime.turn(1h));
    world.runtime.controller().drain(1s);
    CHECK(world.runtime.run().forced == 1);
    CHECK(take_notes() ==
          "event(a x) accept(l x) command(1) unknown_id back(l) timer drain back(a)");
    CHECK(tried >= 12);
}

namespace {

/// A transport whose end does something.
struct Meddler {
    using Event = std::string;
    static constexpr bool born_non_blocking = true;
    explicit Meddler(std::function<void()> act) noexcept
        : at_end(std::make_unique<std::function<void()>>(std::move(act))) {}
    Meddler(Meddler&&) noexcept = default;
    Meddler& operator=(Meddler&&) noexcept = default;
    ~Meddler() {
        if (at_end) {
            (*at_end)();
        }
    }
    [[nodiscard]] int fd() const noexcept { return 1'000'000; }
    [[nodiscard]] Interest interest() const noexcept { return {true, false}; }
    [[nodiscard]] std::optional<Event> handle_io(Io) { return std::nullopt; }
    [[nodiscard]] WriteStatus write_atomic(std::span<const std::byte>) {
        return WriteStatus::accepted;
    }
    [[nodiscard]] bool is_ready_to_write() const noexcept { return true; }
    void flush() {}
    void close_write() noexcept {}
    [[nodiscard]] std::size_t unsent() const noexcept { return 0; }

    std::unique_ptr<std::function<void()>> at_end;
};

} // namespace

TEST_CASE("a destructor that calls into the runtime is refused, or safe") {
    using MeddlerAnswers = Answers<NoListener, Meddler, int>;
    using MeddlerService = ScriptedService<NoListener, Meddler, int>;
    noted.clear();
    MeddlerAnswers answers;
    int ends = 0;
    {
        Runtime<MeddlerService, ScriptedPoller> runtime{MeddlerService(answers)};
        const auto controller = runtime.controller();
        const auto act = [&, controller] { // the last end comes when nothing else here is left
            ++ends;
            std::error_code error;
            const bool goes_on = runtime.turn(0s, error);
            CHECK_FALSE(goes_on);
            static_cast<void>(controller.command(1));
            controller.wake();
        };
        ResourceId first;
        answers.start = [&](MeddlerAnswers::Actions& actions) {
            first = actions.register_transport(Meddler(act));
            static_cast<void>(actions.register_transport(Meddler(act))); // has the same descriptor
        };
        runtime.turn(0s);
        CHECK(ends == 1);
        answers.tick = [&](MeddlerAnswers::Actions& actions) {
            actions.unregister_transport(first);
        };
        runtime.turn(0s);
        answers.tick = nullptr;
        CHECK(ends == 2);
        answers.command = [&](int, MeddlerAnswers::Actions& actions) {
            static_cast<void>(actions.register_transport(Meddler(act)));
        };
        REQUIRE(controller.command(1));
        runtime.turn(0s);
        CHECK(ends == 2);
        ends = 0;
        noted.clear();
    }
    CHECK(ends == 1);
    CHECK(take_notes().empty());
}

namespace {

/// An event whose move throws when told so.
struct Fragile {
    Fragile() = default;
    Fragile(Fragile&&) {
        if (armed) {
            armed = false;
            throw Bomb();
        }
    }
    Fragile& operator=(Fragile&&) = default;
    inline static bool armed = false;
};

struct FragileToy : Toy {
    using Event = Fragile;
    using Toy::Toy;
    [[nodiscard]] std::optional<Event> handle_io(Io io) {
        return Toy::handle_io(io) ? std::optional<Event>(std::in_place) : std::nullopt;
    }
};

} // namespace

TEST_CASE("an event whose move throws is lost, and nothing else") {
    using FragileAnswers = Answers<NoListener, FragileToy, int>;
    noted.clear();
    FragileAnswers answers;
    Wires wires;
    Wire& a = wires.add("a");
    Runtime<ScriptedService<NoListener, FragileToy, int>, ScriptedPoller> runtime{
        ScriptedService<NoListener, FragileToy, int>(answers)};
    answers.start = [&](FragileAnswers::Actions& actions) {
        answers.names[actions.register_transport(FragileToy(a))] = "a";
    };
    runtime.turn(0s);
    a.input = {"1", "2", "3"};
    Fragile::armed = true;
    runtime.poller().report_read(answers.names.begin()->first);
    take_notes();
    CHECK_THROWS_AS(runtime.turn(0s), Bomb);
    runtime.poller().report_read(answers.names.begin()->first);
    runtime.turn(0s);
    runtime.turn(0s);
    CHECK(take_notes() == "event(a) event(a)");
}

// -- on every poller ------------------------------------------------------------------------------

namespace {

using StreamAnswers = Answers<NoListener, Stream, int>;
using StreamService = ScriptedService<NoListener, Stream, int>;
using StreamActions = StreamAnswers::Actions;

} // namespace

TEMPLATE_TEST_CASE("a service that throws in every other callback loses no byte", "", EpollPoller,
                   PollPoller) {
    Options options;
    options.read_buffer = 256;
    options.stream.high_watermark = 4096;
    options.stream.low_watermark = 1024;
    StreamAnswers answers;
    Runtime<StreamService, TestType> runtime{StreamService(answers), options};
    constexpr std::size_t pairs = 4;
    constexpr std::size_t size = 100'000;
    int theirs[pairs];
    std::map<ResourceId, std::size_t> index;
    answers.start = [&](StreamActions& actions) {
        for (std::size_t n = 0; n < pairs; ++n) {
            int ends[2];
            REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) ==
                    0);
            const int small = 4096; // so that ours are blocked
            REQUIRE(::setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
            theirs[n] = ends[1];
            index[actions.register_transport(Stream(os::Fd(ends[0])))] = n;
        }
    };
    int callbacks = 0;
    int blocked = 0;
    int drained = 0;
    answers.transport_event = [&](ResourceId id, StreamEvent& event, StreamActions& actions) {
        blocked += event.blocked() ? 1 : 0;
        drained += event.drained() ? 1 : 0;
        if (const auto* const bytes = event.data()) {
            actions.send(id, *bytes);
        }
        if (++callbacks % 2 == 0) {
            throw Bomb();
        }
    };
    const std::string text = [] {
        std::string bytes;
        for (std::size_t n = 0; n < size; ++n) {
            bytes.push_back(static_cast<char>('a' + n * n % 23));
        }
        return bytes;
    }();
    std::size_t written[pairs] = {};
    std::string got[pairs];
    const auto done = [&] {
        return std::all_of(got, got + pairs,
                           [](const auto& bytes) { return bytes.size() >= size; });
    };
    int thrown = 0;
    for (int turn = 0; turn < 200'000 && !done(); ++turn) {
        try {
            runtime.turn(0s);
        } catch (const Bomb&) {
            ++thrown;
            continue;
        }
        for (std::size_t n = 0; n < pairs; ++n) {
            const ssize_t count = ::write(theirs[n], text.data() + written[n], size - written[n]);
            written[n] += count > 0 ? static_cast<std::size_t>(count) : 0;
            char bytes[16 * 1024];
            if (turn % 8 == 0) {
                const ssize_t read = ::read(theirs[n], bytes, sizeof bytes);
                got[n].append(bytes, read > 0 ? static_cast<std::size_t>(read) : 0);
            }
        }
    }
    for (std::size_t n = 0; n < pairs; ++n) {
        CHECK(got[n].size() == size);
        CHECK((got[n] == text)); // in brackets: not to be printed
        ::close(theirs[n]);
    }
    CHECK(thrown > 100);
    CHECK(blocked > 0);
    CHECK(drained > 0);
    noted.clear();
}

TEST_CASE("what a callback before the wait has sent leaves although it throws") {
    World world;
    Wire& a = world.wires.add("a");
    Wire& b = world.wires.add("b");
    const ResourceId id = world.begin({&a}).front();
    world.runtime.turn(0s);
    static_cast<void>(world.runtime.listen(Toy(b)));
    world.answers.registered = [&](ResourceId, Role, int, ToyActions& actions) {
        actions.send(id, "x");
        throw std::runtime_error("thrown");
    };
    CHECK_THROWS(world.runtime.turn(0s));
    world.answers.registered = nullptr;
    CHECK(world.timeout_of_turn() == 0s);
    CHECK(a.sent == "x");
}
