// SPDX-License-Identifier: Apache-2.0
//
// The corners of the loop: what is refused, what comes at an unlucky moment, and what a service
// leaves to its base.
#include "catch.hpp"
#include "planned_kernel.hpp"
#include "scripted.hpp"

#include <reactor/poller/epoll.hpp>
#include <reactor/reactor.hpp>

#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>
#include <thread>
#include <unistd.h>

using namespace scripted;

namespace {

/// A transport that is never ready to take anything.
struct Reluctant : Toy {
    using Toy::Toy;
    [[nodiscard]] WriteStatus write_atomic(std::span<const std::byte>) {
        return WriteStatus::not_ready;
    }
};
/// A listener that could bring transports, and does not.
struct Fruitless : Toy {
    using Toy::Toy;
    [[nodiscard]] bool brings_transports() const noexcept { return false; }
};

/// Answers nothing that it need not.
struct Idle : Service<NoListener, NoTransport> {
    void handle_listener_event(ResourceId, NoCommand, Actions&) {}
    void handle_transport_event(ResourceId, NoCommand, Actions&) {}
    void handle_start(Actions& actions) {
        actions.set_timer(1ms);
        actions.set_timer(2ms);
    }
    void tick(Actions& actions) {
        if (++ticks == 10) {
            actions.shutdown();
        }
    }
    int ticks = 0;
};

/// A poller that can be made in one way only.
struct PlainPoller : ScriptedPoller {};
static_assert(!std::constructible_from<PlainPoller, std::error_code&>);

} // namespace

TEST_CASE("what was unregistered in answer to its trouble is not asked for its end") {
    World world;
    Wire& wire = world.wires.add("a");
    const auto id = world.begin({&wire})[0];
    wire.trouble = std::make_error_code(std::errc::too_many_files_open);
    wire.end = std::make_error_code(std::errc::broken_pipe);
    world.answers.error = [&](ToyAnswers::Error& error, ToyActions& actions) {
        if (error.kind() == ErrorKind::trouble) {
            actions.unregister_transport(id);
        }
    };
    world.poller().report_read(id);
    world.runtime.turn(0s);
    CHECK(take_notes() == "trouble(a) back(a)");
    world.runtime.turn(0s);
    CHECK(take_notes().empty());
}

TEST_CASE("a send to a transport that is not ready comes back, and says so") {
    Answers<Toy, Reluctant, int> answers;
    Wires wires;
    Runtime<ScriptedService<Toy, Reluctant>, ScriptedPoller> runtime(
        ScriptedService<Toy, Reluctant>(answers), Options{});
    noted.clear();
    std::error_code told;
    std::string came_back;
    answers.start = [&](auto& actions) {
        actions.send(actions.register_transport(Reluctant(wires.add("a"))),
                     std::string_view("text"));
    };
    answers.error = [&](auto& error, auto&) {
        told = error.code();
        came_back = text_of(error.take_payload().bytes());
    };
    runtime.turn(0s);
    CHECK(take_notes() == "start registered(?) send_returned(?)");
    CHECK(told == std::errc::resource_unavailable_try_again);
    CHECK(came_back == "text");
}

TEST_CASE("a listener that brings no transports is asked on when there is no room for more") {
    Answers<Fruitless, Toy, int> answers;
    Wires wires;
    Options options;
    options.transports = 1;
    Runtime<ScriptedService<Fruitless, Toy>, ScriptedPoller> runtime(
        ScriptedService<Fruitless, Toy>(answers), options);
    noted.clear();
    Wire& door = wires.add("door");
    ResourceId id;
    answers.start = [&](auto& actions) {
        actions.register_transport(Toy(wires.add("full")));
        id = actions.register_listener(Fruitless(door));
    };
    runtime.turn(0s);
    take_notes();
    door.input = {"knock"};
    runtime.poller().report_read(id);
    runtime.turn(0s);
    CHECK(take_notes() == "accept(? knock)");
}

TEST_CASE("a transport that another thread sends during a drain is closed as the others are") {
    World world;
    Wire& stays = world.wires.add("a");
    Wire& late = world.wires.add("late");
    stays.room = late.room = 0;
    world.begin({&stays});
    auto controller = world.runtime.controller();
    world.act([](ToyActions& actions) { actions.drain(1h); });
    CHECK(stays.closing);
    REQUIRE(controller.register_transport(Toy(late)));
    world.runtime.turn(0s);
    CHECK(late.closing);
}

TEST_CASE("of many refusals in a turn the service hears once, and of more in the next turn again") {
    Options options;
    options.action_queue = 1;
    World world(options);
    world.begin({});
    const auto ask_too_much = [](ToyActions& actions) {
        for (int n = 0; n < 3; ++n) {
            actions.pause(ResourceId::of(77, 1));
        }
    };
    world.answers.error = [&](ToyAnswers::Error& error, ToyActions& actions) {
        if (error.kind() == ErrorKind::actions_refused) {
            ask_too_much(actions);
        }
    };
    for (int turn = 0; turn < 3; ++turn) {
        world.act(ask_too_much);
        const std::string notes = take_notes();
        const std::string word = "actions_refused";
        std::size_t count = 0;
        for (auto at = notes.find(word); at != notes.npos; at = notes.find(word, at + 1)) {
            ++count;
        }
        CHECK(count == 1);
    }
}

TEST_CASE("after the end listen() closes the listener, and its id names nothing") {
    World world;
    Wire& wire = world.wires.add("a");
    world.act([](ToyActions& actions) { actions.shutdown(); });
    CHECK_FALSE(world.runtime.listen(Toy(wire)));
    CHECK(Token::live == 0);
}

TEST_CASE("a runtime whose poller cannot fail to be made takes an error code all the same") {
    ToyAnswers answers;
    std::error_code error = std::make_error_code(std::errc::io_error);
    Runtime<ScriptedService<>, PlainPoller> runtime(ScriptedService<>(answers), Options{}, error);
    CHECK_FALSE(error);
    CHECK(runtime.turn(0s));
}

TEST_CASE("timers that a service does not answer fire without harm") {
    Runtime<Idle> runtime{Idle{}};
    std::size_t turns = 0;
    while (runtime.turn(1ms)) {
        ++turns;
    }
    CHECK(turns == 9);
}

TEST_CASE("memory that a burst took is kept where the options say so") {
    Options options;
    options.return_memory = GENERATE(false, true);
    World world(options);
    Wire& wire = world.wires.add("a");
    wire.cap = 100'000'000;
    wire.room = 0;
    const auto id = world.begin({&wire})[0];
    world.act([&](ToyActions& actions) {
        for (int n = 0; n < 20; ++n) {
            actions.send(id, std::string(1'000'000, 'x'));
        }
    });
    CHECK(wire.waiting.size() == 20'000'000);
    wire.room = std::string::npos;
    world.act([&](ToyActions& actions) { actions.send(id, std::string_view("y")); });
    world.runtime.turn(0s);
    CHECK(wire.sent.size() == 20'000'001);
}

TEST_CASE("a child that a callback forks can register nothing") {
    World world;
    Wire& wire = world.wires.add("a");
    world.begin({});
    std::error_code told;
    world.answers.error = [&](ToyAnswers::Error& error, ToyActions&) { told = error.code(); };
    pid_t child = -1;
    world.act([&](ToyActions& actions) {
        child = ::fork();
        if (child == 0) {
            add_transport(world.answers, actions, wire);
        }
    });
    if (child == 0) {
        ::_exit(told == std::errc::operation_not_permitted && Token::live == 0 ? 0 : 1);
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(take_notes().empty());
}

TEST_CASE("what a poller that starts afresh refuses has no interest, and is told so when touched") {
    const Plans plans;
    using Poller = BasicEpollPoller<PlannedKernel>;
    Answers<Toy, Toy, int> answers;
    Wires wires;
    Wire& watched = wires.add("a");
    Wire& ghost = wires.add("ghost");
    Wire& silent = wires.add("silent");
    int ends[2] = {-1, -1};
    REQUIRE(os::Kernel::stream_pair(ends[0], ends[1]).ok());
    const os::Fd near(ends[0]);
    const os::Fd far(ends[1]);
    const os::Fd copy(::dup(far.get()));
    os::Fd closed(::dup(near.get()));
    watched.fd = near.get();
    ghost.fd = closed.get();
    silent.fd = far.get();
    std::error_code error;
    Runtime<ScriptedService<>, Poller> runtime(ScriptedService<>(answers), Options{}, error);
    REQUIRE_FALSE(error);
    noted.clear();
    ResourceId haunted;
    answers.start = [&](ToyActions& actions) {
        add_transport(answers, actions, watched);
        haunted = add_transport(answers, actions, ghost);
        const ResourceId id = add_transport(answers, actions, silent);
        actions.pause(id); // of no interest to the poller
    };
    runtime.turn(0s);
    // Somebody closes the descriptor behind the reactor's back; its registration stays, as `near`
    // is the same socket, and cannot be removed.
    closed.reset();
    answers.tick = [&](ToyActions& actions) { actions.unregister_transport(haunted); };
    REQUIRE(::write(copy.get(), "x", 1) == 1);
    PlannedKernel::controlling.fail(ENOSPC, 2, 1); // the DEL, the waker, then what is watched
    for (int turns = 0; turns < 6; ++turns) {
        runtime.turn(0s);
        answers.tick = nullptr;
    }
    PlannedKernel::controlling.heal();
    CHECK(watched.reads > 0);
    CHECK(PlannedKernel::creating.calls >= 2);
    const int reads = watched.reads;
    runtime.turn(0s);
    CHECK(watched.reads > reads); // it is watched again
}

TEST_CASE("a reactor whose channel is full takes no listener, and says so") {
    Options options;
    options.command_queue = 1;
    std::atomic<bool> may_go{false};
    std::atomic<bool> waits{false};
    struct Stuck : Service<Toy, NoTransport> {
        void handle_listener_event(ResourceId, Toy::Event, Actions&) {}
        void handle_transport_event(ResourceId, NoCommand, Actions&) {}
        void handle_start(Actions&) {
            *waiting = true;
            while (!*go) {
                os::Kernel::sleep(100us);
            }
        }
        std::atomic<bool>* go = nullptr;
        std::atomic<bool>* waiting = nullptr;
    };
    Stuck stuck;
    stuck.go = &may_go;
    stuck.waiting = &waits;
    std::error_code error;
    Wires wires;
    {
        Reactor<Stuck> reactor(std::move(stuck), options, error);
        REQUIRE_FALSE(error);
        while (!waits) {
            os::Kernel::sleep(100us);
        }
        reactor.listen(Toy(wires.add("a")), error);
        CHECK_FALSE(error);
        reactor.listen(Toy(wires.add("b")), error);
        CHECK(error == std::errc::no_buffer_space);
        CHECK_THROWS_AS(reactor.listen(Toy(wires.add("c"))), std::system_error);
        may_go = true;
    }
    CHECK(Token::live == 0);
}

TEST_CASE("a reactor whose poller cannot be made says why, and has no thread") {
    const Plans plans;
    PlannedKernel::creating.fail(EMFILE, 0, 1);
    std::error_code error;
    Reactor<Idle, BasicEpollPoller<PlannedKernel>> reactor(Idle{}, Options{}, error);
    CHECK(error == std::errc::too_many_files_open);
    CHECK(reactor.join().clean);
}

TEST_CASE("a reactor that cannot have its signals waits for its end") {
    Reactor<Idle> reactor{Idle{}};
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    rlimit none = before;
    none.rlim_cur = 0;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    reactor.controller().shutdown();
    const Farewell farewell = reactor.join_until_signal();
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(farewell.clean);
}
