// SPDX-License-Identifier: Apache-2.0
//
// What a service sees of polling, registration and identity through a Runtime, on every Poller.
#include "catch.hpp"
#include "planned_kernel.hpp"
#include "polling_parts.hpp"

#include <reactor/net/stream.hpp>
#include <reactor/poller/epoll.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/runtime.hpp>

#include <sys/resource.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace reactor;
using namespace std::chrono_literals;

namespace {

using PlannedEpollPoller = BasicEpollPoller<PlannedKernel>;
using PlannedPollPoller = BasicPollPoller<PlannedKernel>;

std::error_code system_code(int error) { return {error, std::system_category()}; }

/// What handle_error was told.
struct Told {
    ErrorKind kind;
    ResourceId id;
    std::error_code code;
    std::string payload;
};

using ProbeActions = BasicActions<NoListener, Stream>;
using Task = std::function<void(ProbeActions&)>;

/// Writes down what happens to it, and does what it is told: a command is a task.
struct Probe : Service<NoListener, Stream, Task> {
    Task at_start;
    std::function<void(ResourceId, const StreamEvent&, Actions&)> at_event;
    std::function<void(const Told&, Actions&)> at_error;
    std::function<void(TimerId, Actions&)> at_timer;

    /// By id: the bytes that came, $ end of input, b blocked, d drained, ! ended, ^ handed over.
    std::map<ResourceId, std::string> trace;
    std::vector<ResourceId> registered;
    std::vector<Told> errors;
    std::map<ResourceId, Stream> gone; ///< given back, by whatever way
    std::vector<TimerId> fired;

    void handle_start(Actions& actions) {
        if (at_start) {
            at_start(actions);
        }
    }
    void handle_command(Task task, Actions& actions) { task(actions); }
    void handle_registered(ResourceId id, Role, int, Actions&) { registered.push_back(id); }
    void handle_timer(TimerId timer, Actions& actions) {
        fired.push_back(timer);
        if (at_timer) {
            at_timer(timer, actions);
        }
    }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        if (const auto* const bytes = event.data()) {
            trace[id] += text_of(*bytes);
        } else {
            trace[id] += event.eof() ? '$' : event.blocked() ? 'b' : event.drained() ? 'd' : '?';
        }
        if (at_event) {
            at_event(id, event, actions);
        }
    }
    void handle_error(Error error, Actions& actions) {
        errors.push_back({error.kind(), error.id(), error.code(), {}});
        errors.back().payload = error.take_payload().text();
        if (error.is_end()) {
            trace[error.id()] += '!';
        }
        if (auto stream = error.take_transport()) {
            gone.emplace(error.id(), std::move(*stream));
        }
        if (at_error) {
            const Told told = errors.back();
            at_error(told, actions);
        }
    }
    void handover_transport(ResourceId id, Stream stream, Actions&) {
        trace[id] += '^';
        gone.emplace(id, std::move(stream));
    }

    std::size_t count(ErrorKind kind) const {
        return static_cast<std::size_t>(std::count_if(
            errors.begin(), errors.end(), [kind](const Told& told) { return told.kind == kind; }));
    }
};

template <class P>
struct Loop {
    Runtime<Probe, P> runtime;
    Probe& probe = runtime.service();

    explicit Loop(const Options& options = {}) : runtime(Probe{}, options) {}

    bool turn(Duration longest = 0ns) { return runtime.turn(longest); }
    void turns(int count) {
        for (int n = 0; n < count; ++n) {
            runtime.turn(0ns);
        }
    }
    /// Performs what the task asks for.
    void ask(Task task) {
        REQUIRE(runtime.controller().command(std::move(task)));
        turn();
    }
    ResourceId add(Stream stream) {
        ResourceId id;
        ask([&](ProbeActions& actions) { id = actions.register_transport(std::move(stream)); });
        return id;
    }
    ResourceId add(Fd fd) { return add(Stream(std::move(fd))); }
    /// Leaves, and is closed.
    void remove(ResourceId id) {
        ask([id](ProbeActions& actions) { actions.unregister_transport(id); });
        probe.gone.erase(id);
    }
    /// A turn that nothing ends before its time; whoever spins or wakes would end it.
    bool sleeps(Duration span = 8ms) {
        const test::Calm calm; // a signal may end a turn
        const Timestamp begin = os::Kernel::now();
        turn(span);
        return os::Kernel::now() - begin >= span;
    }
};

/// A listener on a descriptor of any kind. It notes the halves that it was asked for, reads what
/// makes it readable, and has an event for each piece.
struct Watch {
    using Event = char;

    Fd descriptor;
    Interest wish{true, false};
    std::shared_ptr<std::string> asked = std::make_shared<std::string>();

    [[nodiscard]] int fd() const noexcept { return descriptor.get(); }
    [[nodiscard]] Interest interest() const noexcept { return wish; }
    std::optional<Event> handle_io(Io io) {
        *asked += io == Io::read ? 'r' : 'w';
        char room[64];
        const bool got = io == Io::read && ::read(descriptor.get(), room, sizeof room) > 0;
        return got ? std::optional(room[0]) : std::nullopt;
    }
};

struct Watcher : Service<Watch, NoTransport> {
    std::function<void(ResourceId, Actions&)> at_event;
    std::function<void(ResourceId, Watch, Actions&)> at_leave;
    std::map<ResourceId, int> events;
    std::vector<ResourceId> left;
    std::vector<Told> errors;

    void handle_listener_event(ResourceId id, char, Actions& actions) {
        ++events[id];
        if (at_event) {
            at_event(id, actions);
        }
    }
    void handover_listener(ResourceId id, Watch watch, Actions& actions) {
        left.push_back(id);
        if (at_leave) {
            at_leave(id, std::move(watch), actions);
        }
    }
    void handle_error(Error error, Actions&) {
        errors.push_back({error.kind(), error.id(), error.code(), {}});
    }
};

Fd bell(std::uint64_t rung = 0) {
    Fd fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    REQUIRE(fd);
    if (rung != 0) {
        REQUIRE(::write(fd.get(), &rung, sizeof rung) == sizeof rung);
    }
    return fd;
}
std::string all_of(const Fd& fd) {
    std::string text;
    char room[4096];
    for (ssize_t got; (got = ::read(fd.get(), room, sizeof room)) > 0;) {
        text.append(room, static_cast<std::size_t>(got));
    }
    return text;
}
/// Runs `body` in a forked child; its exit status.
template <class Body>
int in_child(Body body) {
    const pid_t child = ::fork();
    if (child == 0) {
        ::_exit(body());
    }
    REQUIRE(child > 0);
    int status = 0;
    REQUIRE(test::calmly([&] { return ::waitpid(child, &status, 0); }) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

} // namespace

// -- waiting --------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("timers are never early under a storm of signals, nor is a turn", "[runtime]",
                   EpollPoller, PollPoller) {
    Loop<TestType> loop;
    std::map<TimerId, Timestamp> wanted;
    bool early = false;
    loop.probe.at_timer = [&](TimerId timer, ProbeActions&) {
        early = early || os::Kernel::now() < wanted[timer];
    };
    const SignalStorm storm(250us);
    loop.ask([&](ProbeActions& actions) {
        for (const Duration span : std::initializer_list<Duration>{50us, 1ms, 1500us, 12ms, 30ms}) {
            const Timestamp begin = os::Kernel::now();
            wanted[actions.set_timer(span)] = begin + span;
        }
    });
    while (loop.probe.fired.size() < 5) {
        loop.turn(Duration::max());
    }
    CHECK(!early);
    CHECK(SignalStorm::count() > 0);
}

TEMPLATE_TEST_CASE("a due timer takes one wait, not a row of short ones", "[runtime]",
                   PlannedEpollPoller, PlannedPollPoller) {
    const Plans plans;
    Loop<TestType> loop;
    for (const Duration span : std::initializer_list<Duration>{200us, 3ms, 15ms}) {
        loop.ask([span](ProbeActions& actions) { actions.set_timer(span); });
        const test::Calm calm; // a signal may end a wait
        const std::size_t before = PlannedKernel::waits();
        loop.probe.fired.clear();
        while (loop.probe.fired.empty()) {
            loop.turn(Duration::max());
        }
        CHECK(PlannedKernel::waits() == before + 1);
    }
}

TEMPLATE_TEST_CASE("times beyond all measure neither fire, nor spin, nor fail", "[runtime]",
                   PlannedEpollPoller, PlannedPollPoller) {
    const Plans plans;
    Loop<TestType> loop;
    loop.ask([](ProbeActions& actions) {
        actions.set_timer(Duration::max());
        actions.set_timer_at(Timestamp::max());
        actions.set_timer(std::chrono::hours{24 * 30});
        actions.set_interval(Duration::max());
    });
    CHECK(loop.runtime.until_next() > std::chrono::hours{24 * 29});
    std::size_t before = PlannedKernel::waits();
    CHECK(loop.sleeps());
    CHECK(PlannedKernel::waits() == before + 1);
    loop.turn(Duration::min());
    loop.turn(-1ns);
    loop.runtime.controller().wake();
    loop.turn(Duration::max());
    loop.runtime.controller().wake();
    loop.turn(std::chrono::milliseconds{std::numeric_limits<int>::max()} + 1ms);
    CHECK(loop.probe.fired.empty());
    CHECK(loop.probe.errors.empty());
}

TEMPLATE_TEST_CASE("an idle loop waits once and for all, before and after traffic", "[runtime]",
                   PlannedEpollPoller, PlannedPollPoller) {
    const Plans plans;
    Loop<TestType> loop;
    Pair pair = socket_pair();
    const ResourceId id = loop.add(std::move(pair.ours)); // could be written to all the time
    loop.probe.at_event = [](ResourceId from, const StreamEvent& event, ProbeActions& actions) {
        actions.send(from, *event.data());
    };
    loop.turns(2);
    const std::size_t told = PlannedKernel::controlling.calls;
    for (int round = 0; round < 2; ++round) {
        const std::size_t before = PlannedKernel::waits();
        CHECK(loop.sleeps());
        CHECK(PlannedKernel::waits() == before + 1);

        write_to(pair.theirs, "ping");
        loop.turns(3);
        CHECK(all_of(pair.theirs) == "ping");
    }
    CHECK(loop.sleeps());
    CHECK(PlannedKernel::controlling.calls == told); // what can be written at once arms nothing
    CHECK(loop.probe.trace[id] == "pingping");
}

TEMPLATE_TEST_CASE("write interest lasts as long as bytes wait", "[runtime]", EpollPoller,
                   PollPoller) {
    Options options;
    options.stream.cap = 64 * 1024 * 1024;
    Loop<TestType> loop(options);
    Pair pair = socket_pair();
    const ResourceId id = loop.add(std::move(pair.ours));
    const std::string much(8 * 1024 * 1024, 'm');
    loop.ask([&](ProbeActions& actions) { actions.send(id, much); });
    std::size_t got = all_of(pair.theirs).size();
    while (got < much.size()) {
        loop.turn(Duration::max()); // would hang if writing were not wished for
        got += all_of(pair.theirs).size();
    }
    loop.turns(2);
    CHECK(loop.sleeps());
    CHECK(loop.probe.trace[id] == "bd");
}

TEMPLATE_TEST_CASE("a hang-up of what is not read does not wake the loop, and loses no byte",
                   "[runtime]", PlannedEpollPoller, PlannedPollPoller) {
    const Plans plans;
    Loop<TestType> loop;
    Pair quiet = socket_pair();
    Pair broken = socket_pair();
    const ResourceId first = loop.add(std::move(quiet.ours));
    const ResourceId second = loop.add(std::move(broken.ours));
    loop.ask([&](ProbeActions& actions) {
        actions.send(second, "never read"); // so that the peer's close is a reset
        actions.pause(first);
        actions.pause(second);
    });
    write_to(quiet.theirs, "last words");
    write_to(broken.theirs, "more");
    quiet.theirs.reset();
    broken.theirs.reset();
    const std::size_t before = PlannedKernel::waits();
    CHECK(loop.sleeps());
    CHECK(PlannedKernel::waits() == before + 1);
    CHECK(loop.probe.trace.empty());

    loop.ask([&](ProbeActions& actions) {
        actions.resume(first);
        actions.resume(second);
    });
    loop.turns(4);
    CHECK(loop.probe.trace[first] == "last words$");
    CHECK(loop.probe.trace[second].substr(0, 4) == "more");
    CHECK(loop.probe.trace[second].back() == '!');
    CHECK(loop.sleeps());
}

TEMPLATE_TEST_CASE("a stream whose peer has ended is silent while our half is open", "[runtime]",
                   EpollPoller, PollPoller) {
    Loop<TestType> loop;
    Pair pair = socket_pair();
    Pair pipe = pipe_pair();
    const ResourceId half = loop.add(std::move(pair.ours));
    const ResourceId read_only = loop.add(std::move(pipe.ours));
    REQUIRE(::shutdown(pair.theirs.get(), SHUT_WR) == 0);
    pipe.theirs.reset();
    loop.turns(3);
    CHECK(loop.probe.trace[half] == "$");
    CHECK(loop.probe.trace[read_only] == "$!");
    CHECK(loop.sleeps());
    pair.theirs.reset(); // now hung up as well
    CHECK(loop.sleeps());
    CHECK(loop.probe.trace[half] == "$");
}

TEMPLATE_TEST_CASE("a poller that cannot wait is told once, rests, and ends the run", "[runtime]",
                   PlannedEpollPoller, PlannedPollPoller) {
    const Plans plans;
    Loop<TestType> loop;
    Pair pair = socket_pair();
    const ResourceId id = loop.add(std::move(pair.ours));
    const int error = GENERATE(EBADF, EFAULT, ENOMEM);
    const std::size_t before = PlannedKernel::waits();
    PlannedKernel::fail_waits(error);
    const Farewell farewell = loop.runtime.run();
    CHECK(loop.probe.count(ErrorKind::poll_failed) == 1);
    CHECK(loop.probe.errors.size() == 1);
    CHECK(loop.probe.errors.front().code == system_code(error));
    CHECK(!loop.probe.errors.front().id);
    CHECK(PlannedKernel::waits() == before + Options{}.poll_failures + 1);
    CHECK(PlannedKernel::sleeping.calls == Options{}.poll_failures);
    CHECK(PlannedKernel::slept > 1s);
    CHECK(loop.probe.trace[id] == "^");
    CHECK(farewell.forced == 1);
    CHECK(!loop.turn());
}

TEMPLATE_TEST_CASE("a poller that fails now and then is told once a row, and the run goes on",
                   "[runtime]", PlannedEpollPoller, PlannedPollPoller) {
    const Plans plans;
    Loop<TestType> loop;
    Pair pair = socket_pair();
    const ResourceId id = loop.add(std::move(pair.ours));
    loop.turns(2);
    for (std::size_t row = 1; row <= 4; ++row) {
        PlannedKernel::fail_waits(ENOMEM, 4);
        loop.turns(3);
        PlannedKernel::heal_waits();
        write_to(pair.theirs, "x");
        loop.turns(2);
        CHECK(loop.probe.count(ErrorKind::poll_failed) == row);
        CHECK(loop.probe.trace[id] == std::string(row, 'x'));
    }
    CHECK(PlannedKernel::slept == 0ns); // these turns may not wait at all
}

TEMPLATE_TEST_CASE("a run that bears no failed wait says why it ends", "[runtime]",
                   PlannedEpollPoller, PlannedPollPoller) {
    const Plans plans;
    Options options;
    options.poll_failures = 0;
    Loop<TestType> loop(options);
    loop.turns(1);
    PlannedKernel::fail_waits(EBADF);
    CHECK(!loop.turn());
    CHECK(loop.probe.count(ErrorKind::poll_failed) == 1);
}

TEMPLATE_TEST_CASE("timers and commands go on while waits fail", "[runtime]", PlannedEpollPoller,
                   PlannedPollPoller) {
    const Plans plans;
    Loop<TestType> loop;
    loop.turns(1);
    PlannedKernel::fail_waits(ENOMEM, 3);
    loop.ask([](ProbeActions& actions) { actions.set_timer(0ns); });
    loop.turns(1);
    CHECK(loop.probe.fired.size() == 1);
}

TEST_CASE("an outer loop hears of a command through the descriptor, and of work through the time",
          "[runtime]") {
    Loop<EpollPoller> loop;
    CHECK(loop.runtime.until_next() == 0ns); // handle_start is due
    loop.turns(3);
    CHECK(loop.runtime.until_next() == Duration::max());
    CHECK(!is_readable(loop.runtime.fd()));
    std::thread other([controller = loop.runtime.controller()] {
        static_cast<void>(controller.command([](ProbeActions& actions) { actions.set_timer(1h); }));
    });
    other.join();
    CHECK(is_readable(loop.runtime.fd()));
    loop.turns(2);
    CHECK(!is_readable(loop.runtime.fd()));
    CHECK(loop.runtime.until_next() > 59min);
    CHECK(loop.runtime.until_next() <= 1h);

    // What came after the question, too, and what came before it at the latest with the answer.
    loop.runtime.controller().wake();
    CHECK((is_readable(loop.runtime.fd()) || loop.runtime.until_next() == 0ns));
    loop.turns(2);
    static_cast<void>(loop.runtime.controller().command([](ProbeActions&) {}));
    CHECK(loop.runtime.until_next() == 0ns);
    loop.turns(2);

    Pair pair = socket_pair();
    loop.add(std::move(pair.ours));
    loop.turns(2);
    CHECK(loop.runtime.until_next() > 0ns);
    CHECK(!is_readable(loop.runtime.fd()));
    write_to(pair.theirs, "x");
    CHECK(is_readable(loop.runtime.fd()));
    loop.turns(2);
}

TEST_CASE("an outer loop that asks how long to wait misses nothing that is always ready",
          "[runtime]") {
    Loop<EpollPoller> loop;
    loop.turns(2);
    Fd file = memory_file();
    write_to(file, "text");
    REQUIRE(::lseek(file.get(), 0, SEEK_SET) == 0);
    const ResourceId id = loop.add(std::move(file));
    for (int n = 0; n < 6 && loop.probe.trace[id] != "text$"; ++n) {
        CHECK((loop.runtime.until_next() == 0ns || is_readable(loop.runtime.fd())));
        loop.turn();
    }
    CHECK(loop.probe.trace[id] == "text$");
    loop.turns(2);
    CHECK(loop.runtime.until_next() == Duration::max());
}

TEMPLATE_TEST_CASE("a listener that comes between turns is work for the next one", "[runtime]",
                   EpollPoller, PollPoller) {
    Runtime<Watcher, TestType> runtime(Watcher{});
    runtime.turn(0ns);
    runtime.turn(0ns);
    CHECK(runtime.until_next() == Duration::max());
    const ResourceId id = runtime.listen(Watch{bell(1)});
    CHECK(runtime.until_next() == 0ns);
    runtime.turn(Duration::max());
    runtime.turn(0ns);
    CHECK(runtime.service().events[id] == 1);
}

// -- one report -----------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("of one report, reading is served before writing", "[runtime]", EpollPoller,
                   PollPoller) {
    Options options;
    options.auto_pause = false;
    options.stream.cap = 64 * 1024 * 1024;
    Loop<TestType> loop(options);
    Pair pair = socket_pair();
    const ResourceId id = loop.add(std::move(pair.ours));
    const std::string much(1024 * 1024, 'm');
    loop.ask([&](ProbeActions& actions) { actions.send(id, much); });
    CHECK(loop.probe.trace[id] == "b");
    std::size_t got = all_of(pair.theirs).size();
    while (loop.probe.trace[id] == "b") {
        loop.turn();
        const std::size_t more = all_of(pair.theirs).size();
        got += more;
        if (got + 200'000 > much.size() && more != 0) {
            write_to(pair.theirs, "now");
            break;
        }
    }
    loop.turns(4);
    CHECK(loop.probe.trace[id] == "bnowd");
}

TEMPLATE_TEST_CASE("a half that unregisters takes the other half of its report with it",
                   "[runtime]", EpollPoller, PollPoller) {
    Runtime<Watcher, TestType> runtime(Watcher{});
    Watcher& watcher = runtime.service();
    const auto asked = std::make_shared<std::string>();
    const auto asked_after = std::make_shared<std::string>();
    watcher.at_event = [](ResourceId id, auto& actions) { actions.unregister_listener(id); };
    watcher.at_leave = [&](ResourceId, Watch watch, auto& actions) {
        // Its number is used again at once.
        const int number = watch.fd();
        const Fd quiet = bell();
        watch.descriptor.reset();
        Fd reused(::fcntl(quiet.get(), F_DUPFD_CLOEXEC, number));
        REQUIRE(reused.get() == number);
        actions.register_listener(Watch{std::move(reused), Interest{true, true}, asked_after});
    };
    runtime.listen(Watch{bell(1), Interest{true, true}, asked});
    while (watcher.left.empty()) {
        REQUIRE(asked_after->empty());
        runtime.turn(Duration::max());
    }
    CHECK(*asked == "r");
    CHECK(*asked_after == "");
    runtime.turn(Duration::max());
    CHECK(*asked == "r");
    CHECK(*asked_after == "w"); // its own report: it can be written to
}

TEMPLATE_TEST_CASE("what is paused within a batch gets nothing more of that batch", "[runtime]",
                   EpollPoller, PollPoller) {
    Loop<TestType> loop;
    Pair first = socket_pair();
    Pair second = socket_pair();
    const ResourceId one = loop.add(std::move(first.ours));
    const ResourceId two = loop.add(std::move(second.ours));
    loop.turns(2);
    loop.probe.at_event = [&](ResourceId id, const StreamEvent&, ProbeActions& actions) {
        actions.pause(id == one ? two : one);
    };
    write_to(first.theirs, "1");
    write_to(second.theirs, "2");
    loop.turns(3);
    CHECK(loop.probe.trace.size() == 1); // whoever came first
    CHECK(loop.sleeps());
    loop.probe.at_event = {};
    loop.ask([&](ProbeActions& actions) {
        actions.resume(one);
        actions.resume(two);
    });
    loop.turns(2);
    CHECK(loop.probe.trace[one] == "1");
    CHECK(loop.probe.trace[two] == "2");
}

TEMPLATE_TEST_CASE("whoever is unregistered in a batch gets nothing of it, be it 2500",
                   "[runtime]", EpollPoller, PollPoller) {
    constexpr std::size_t many = 2'500;
    Options options;
    options.events_per_wait = 2 * many;
    Runtime<Watcher, TestType> runtime(Watcher{}, options);
    Watcher& watcher = runtime.service();
    std::vector<ResourceId> ids;
    for (std::size_t n = 0; n < many; ++n) {
        ids.push_back(runtime.listen(Watch{bell(1)}));
    }
    watcher.at_event = [&](ResourceId self, auto& actions) {
        for (const ResourceId id : ids) {
            if (id != self) {
                actions.unregister_listener(id);
            }
        }
    };
    runtime.turn(0ns); // registers them
    runtime.turn(0ns);
    runtime.turn(0ns);
    CHECK(watcher.events.size() == 1);
    CHECK(watcher.left.size() == many - 1);
    CHECK(watcher.errors.empty());
    CHECK(runtime.until_next() == Duration::max());
}

TEMPLATE_TEST_CASE("who opens with the number of one that closed gets nothing of it", "[runtime]",
                   EpollPoller, PollPoller) {
    Runtime<Watcher, TestType> runtime(Watcher{});
    Watcher& watcher = runtime.service();
    const Fd quiet = bell();
    const std::vector<ResourceId> ids{runtime.listen(Watch{bell(1)}),
                                      runtime.listen(Watch{bell(1)})};
    ResourceId served;
    ResourceId successor;
    watcher.at_event = [&](ResourceId id, auto& actions) {
        served = id;
        actions.unregister_listener(id == ids[0] ? ids[1] : ids[0]);
    };
    watcher.at_leave = [&](ResourceId, Watch watch, auto& actions) {
        const int number = watch.fd();
        watch.descriptor.reset();
        Fd reused(::fcntl(quiet.get(), F_DUPFD_CLOEXEC, number));
        REQUIRE(reused.get() == number);
        successor = actions.register_listener(Watch{std::move(reused)});
    };
    for (int n = 0; n < 4; ++n) {
        runtime.turn(0ns);
    }
    REQUIRE(successor);
    CHECK(watcher.events == std::map<ResourceId, int>{{served, 1}});
    CHECK(std::set<ResourceId>{ids[0], ids[1], successor}.size() == 3);
    watcher.at_event = {};
    os::Kernel::ring(quiet.get());
    runtime.turn(Duration::max());
    CHECK(watcher.events[successor] == 1);
}

TEMPLATE_TEST_CASE("a callback may unregister itself, an earlier and a later one", "[runtime]",
                   EpollPoller, PollPoller) {
    Runtime<Watcher, TestType> runtime(Watcher{});
    Watcher& watcher = runtime.service();
    std::vector<ResourceId> ids;
    for (int n = 0; n < 5; ++n) {
        ids.push_back(runtime.listen(Watch{bell(1)}));
    }
    std::vector<ResourceId> served;
    watcher.at_event = [&](ResourceId id, auto& actions) {
        served.push_back(id);
        if (served.size() == 2) { // an earlier one, itself, and one that is still to come
            actions.unregister_listener(served[0]);
            actions.unregister_listener(id);
            for (const ResourceId other : ids) {
                if (other != served[0] && other != id) {
                    actions.unregister_listener(other);
                    break;
                }
            }
        }
    };
    for (int n = 0; n < 4; ++n) {
        runtime.turn(0ns);
    }
    CHECK(served.size() == 4);
    CHECK(watcher.left.size() == 3);
    CHECK(std::set<ResourceId>(served.begin(), served.end()).size() == 4);
    CHECK(watcher.errors.empty());
}

TEMPLATE_TEST_CASE("what a callback registers is ready in a later turn, not in this one",
                   "[runtime]", EpollPoller, PollPoller) {
    Runtime<Watcher, TestType> runtime(Watcher{});
    Watcher& watcher = runtime.service();
    const ResourceId first = runtime.listen(Watch{bell(1)});
    std::vector<ResourceId> more;
    watcher.at_event = [&](ResourceId id, auto& actions) {
        if (id == first) {
            // So many that every table has to grow under the one that is being served.
            for (int n = 0; n < 300; ++n) {
                more.push_back(actions.register_listener(Watch{bell(1)}));
            }
        }
    };
    while (more.empty()) {
        runtime.turn(0ns);
    }
    CHECK(watcher.events == std::map<ResourceId, int>{{first, 1}});
    runtime.turn(0ns);
    runtime.turn(0ns);
    CHECK(watcher.events.size() == 301);
    for (const auto& [id, count] : watcher.events) {
        CHECK(count == 1);
    }
}

TEMPLATE_TEST_CASE("tables that grow within a callback leave the stream that it serves intact",
                   "[runtime]", EpollPoller, PollPoller) {
    Loop<TestType> loop;
    Pair pair = socket_pair();
    const ResourceId first = loop.add(std::move(pair.ours));
    std::vector<Pair> others;
    std::vector<ResourceId> ids;
    loop.probe.at_event = [&](ResourceId id, const StreamEvent& event, ProbeActions& actions) {
        if (id == first && others.empty()) {
            actions.send(id, "before ");
            for (int n = 0; n < 200; ++n) {
                others.push_back(socket_pair());
                ids.push_back(actions.register_transport(Stream(std::move(others.back().ours))));
                actions.send(ids.back(), "hello");
            }
            actions.send(id, *event.data());
        }
    };
    write_to(pair.theirs, "data");
    loop.turns(4);
    CHECK(loop.probe.trace[first] == "data");
    CHECK(all_of(pair.theirs) == "before data");
    bool all_greeted = true;
    for (const Pair& other : others) {
        all_greeted = all_greeted && all_of(other.theirs) == "hello";
    }
    CHECK(all_greeted);
    CHECK(std::set<ResourceId>(ids.begin(), ids.end()).size() == 200);
}

// -- registering ----------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("no event after unregister, and events again under a new id", "[runtime]",
                   EpollPoller, PollPoller) {
    Loop<TestType> loop;
    Pair pair = socket_pair();
    const ResourceId first = loop.add(std::move(pair.ours));
    write_to(pair.theirs, "a");
    loop.turns(1);
    loop.ask([&](ProbeActions& actions) { actions.unregister_transport(first); });
    write_to(pair.theirs, "b");
    loop.turns(2);
    CHECK(loop.probe.trace[first] == "a^");
    const ResourceId second = loop.add(std::move(loop.probe.gone.at(first)));
    CHECK(second != first);
    loop.turns(2);
    CHECK(loop.probe.trace[first] == "a^");
    CHECK(loop.probe.trace[second] == "b");
}

TEMPLATE_TEST_CASE("one descriptor under two ids is refused, and the first one lives on",
                   "[runtime]", EpollPoller, PollPoller) {
    Loop<TestType> loop;
    Pair pair = socket_pair();
    const int number = pair.ours.get();
    const ResourceId first = loop.add(std::move(pair.ours));
    const ResourceId second = loop.add(Stream(Fd(number)));
    REQUIRE(loop.probe.errors.size() == 1);
    CHECK(loop.probe.errors[0].kind == ErrorKind::registration_failed);
    CHECK(loop.probe.errors[0].id == second);
    CHECK(loop.probe.errors[0].code == system_code(EEXIST));
    CHECK(loop.probe.gone.at(second).release().release() == number);
    write_to(pair.theirs, "x");
    loop.turns(2);
    CHECK(loop.probe.trace[first] == "x");
}

TEMPLATE_TEST_CASE("a duplicate and its original are two, and one may leave", "[runtime]",
                   EpollPoller, PollPoller) {
    Loop<TestType> loop;
    Pair pair = socket_pair();
    Fd twin(os::Kernel::duplicate(pair.ours.get()).fd());
    const ResourceId first = loop.add(std::move(pair.ours));
    const ResourceId second = loop.add(std::move(twin));
    CHECK(first != second);
    write_to(pair.theirs, "to one of you");
    loop.turns(2);
    CHECK(loop.probe.trace[first] + loop.probe.trace[second] == "to one of you");
    loop.probe.trace.clear();
    loop.remove(second);
    write_to(pair.theirs, "to the other");
    loop.turns(2);
    CHECK(loop.probe.trace[first] == "to the other");
    CHECK(loop.probe.trace[second] == "^");
    pair.theirs.reset();
    loop.turns(2);
    CHECK(loop.probe.trace[first] == "to the other$");
    CHECK(loop.runtime.stale_reports() == 0);
}

TEMPLATE_TEST_CASE("unregistering what is unknown, or twice, is told, and nothing else happens",
                   "[runtime]", EpollPoller, PollPoller) {
    Loop<TestType> loop;
    Pair pair = socket_pair();
    Pair other = socket_pair();
    const ResourceId id = loop.add(std::move(pair.ours));
    const ResourceId stays = loop.add(std::move(other.ours));
    const std::vector<ResourceId> strangers{
        {}, id, ResourceId::of(0xfffffe, 7), ResourceId::of(stays.slot(), stays.generation() + 1),
        ResourceId::from_value(~std::uint64_t{0}), ResourceId::of(stays.slot() | 1, 1)};
    loop.ask([&](ProbeActions& actions) {
        actions.unregister_transport(id);
        for (const ResourceId stranger : strangers) {
            actions.unregister_transport(stranger);
            actions.unregister_listener(stranger);
        }
        actions.unregister_listener(stays);
    });
    CHECK(loop.probe.trace[id] == "^");
    CHECK(loop.probe.count(ErrorKind::unknown_id) == 2 * strangers.size() + 1);
    CHECK(loop.probe.errors.size() == 2 * strangers.size() + 1);
    write_to(other.theirs, "x");
    loop.turns(2);
    CHECK(loop.probe.trace[stays] == "x");
}

TEMPLATE_TEST_CASE("a registration that the kernel refuses is given back, open, and leaves no mark",
                   "[runtime]", PlannedEpollPoller, PlannedPollPoller) {
    const Plans plans;
    Options options;
    options.transports = 1; // so that an id which is not free again would be missed
    Loop<TestType> loop(options);
    loop.turns(1);
    const int error = GENERATE(ENOSPC, ENOMEM);
    Pair pair = socket_pair();
    write_to(pair.theirs, "unread");
    const std::size_t open = open_descriptors();
    ResourceId id;
    Stream stream(std::move(pair.ours));
    loop.ask([&](ProbeActions& actions) {
        PlannedKernel::controlling.fail(error, 0, 1);
        PlannedKernel::polling.fail(error, 0, 1);
        id = actions.register_transport(std::move(stream));
        actions.send(id, "too late");
    });
    REQUIRE(loop.probe.errors.size() == 2);
    CHECK(loop.probe.errors[0].kind == ErrorKind::registration_failed);
    CHECK(loop.probe.errors[0].id == id);
    CHECK(loop.probe.errors[0].code == system_code(error));
    CHECK(loop.probe.errors[1].kind == ErrorKind::unknown_id);
    CHECK(loop.probe.errors[1].payload == "too late");
    CHECK(loop.probe.registered.empty());
    CHECK(open_descriptors() == open);

    // Nothing has changed but the id: it comes in at the second try, with its unread bytes.
    const ResourceId again = loop.add(std::move(loop.probe.gone.at(id)));
    CHECK(again != id);
    loop.turns(2);
    CHECK(loop.probe.trace[id] == "!");
    CHECK(loop.probe.trace[again] == "unread");
    CHECK(loop.probe.errors.size() == 2);
}

TEMPLATE_TEST_CASE("what is no descriptor is given back as EBADF", "[runtime]", EpollPoller,
                   PollPoller) {
    Loop<TestType> loop;
    const ResourceId none = loop.add(Stream(Fd(), os::FdTraits{true, false, true, true}));
    const ResourceId closed = loop.add(Stream(Fd(19'999), os::FdTraits{true, false, true, true}));
    REQUIRE(loop.probe.errors.size() == 2);
    CHECK(loop.probe.errors[0].id == none);
    CHECK(loop.probe.errors[0].code == system_code(EBADF));
    CHECK(loop.probe.errors[1].id == closed);
    CHECK(loop.probe.errors[1].code == system_code(EBADF));
    Runtime<Watcher, TestType> runtime(Watcher{});
    runtime.listen(Watch{Fd()}); // here the loop finds out as it makes it non-blocking
    runtime.turn(0ns);
    REQUIRE(runtime.service().errors.size() == 1);
    CHECK(runtime.service().errors[0].code == system_code(EBADF));
}

TEMPLATE_TEST_CASE("a poller that refuses an interest ends the resource with the cause",
                   "[runtime]", PlannedEpollPoller) {
    const Plans plans;
    Options options;
    options.stream.cap = 64 * 1024 * 1024;
    Loop<TestType> loop(options);
    Pair pair = socket_pair();
    Pair other = socket_pair();
    const ResourceId id = loop.add(std::move(pair.ours));
    const ResourceId stays = loop.add(std::move(other.ours));
    PlannedKernel::controlling.fail(ENOMEM, 0, 1);
    loop.ask([&](ProbeActions& actions) { actions.send(id, std::string(8'000'000, 'm')); });
    REQUIRE(!loop.probe.errors.empty());
    CHECK(loop.probe.errors[0].kind == ErrorKind::interest_failed);
    CHECK(loop.probe.errors[0].code == system_code(ENOMEM));
    CHECK(loop.probe.gone.at(id).unsent() > 0);
    write_to(other.theirs, "x");
    loop.turns(2);
    CHECK(loop.probe.trace[stays] == "x");
    CHECK(loop.probe.errors.size() == 1);
}

TEMPLATE_TEST_CASE("what can be read when it is registered is read in the next turn", "[runtime]",
                   EpollPoller, PollPoller) {
    Loop<TestType> loop;
    Pair pair = socket_pair();
    write_to(pair.theirs, "early");
    pair.theirs.reset();
    const ResourceId id = loop.add(std::move(pair.ours));
    loop.turn(Duration::max());
    CHECK(loop.probe.trace[id] == "early");
    loop.turn(Duration::max());
    CHECK(loop.probe.trace[id] == "early$");
}

TEMPLATE_TEST_CASE("another thread registers while the loop waits", "[runtime]", EpollPoller,
                   PollPoller) {
    Loop<TestType> loop;
    Pair pair = socket_pair();
    write_to(pair.theirs, "x");
    loop.turns(2);
    bool accepted = true;
    std::thread other([&accepted, controller = loop.runtime.controller(),
                       stream = Stream(std::move(pair.ours))]() mutable {
        std::this_thread::sleep_for(2ms);
        accepted = static_cast<bool>(controller.register_transport(std::move(stream)));
    });
    while (loop.probe.trace.empty()) {
        loop.turn(Duration::max()); // hangs if nobody rings
    }
    other.join();
    CHECK(accepted);
    REQUIRE(loop.probe.registered.size() == 1);
    CHECK(loop.probe.trace[loop.probe.registered[0]] == "x");
}

TEMPLATE_TEST_CASE("coming and going leaves nothing behind, and no id comes twice", "[runtime]",
                   EpollPoller, PollPoller) {
    Loop<TestType> loop;
    Pair stays = socket_pair();
    Pair pair = socket_pair();
    const ResourceId rock = loop.add(std::move(stays.ours));
    ResourceId id;
    std::set<ResourceId> ids;
    std::size_t open = 0;
    constexpr int cycles = 5'000;
    Stream stream(std::move(pair.ours));
    for (int n = 0; n < cycles; ++n) {
        loop.ask([&](ProbeActions& actions) {
            id = actions.register_transport(std::move(stream));
            actions.unregister_transport(id);
        });
        REQUIRE(loop.probe.gone.size() == 1);
        stream = std::move(loop.probe.gone.at(id));
        loop.probe.gone.clear();
        loop.probe.trace.clear();
        ids.insert(id);
        if (n == 10) {
            open = open_descriptors();
        }
    }
    CHECK(ids.size() == cycles);
    CHECK(ids.count(rock) == 0);
    CHECK(ids.rbegin()->slot() < 256); // the tables did not grow
    CHECK(open_descriptors() == open);
    CHECK(loop.probe.errors.empty());
    CHECK(loop.runtime.stale_reports() == 0);
    write_to(pair.theirs, "x");
    CHECK(loop.sleeps());
    write_to(stays.theirs, "y");
    loop.turns(2);
    CHECK(loop.probe.trace == std::map<ResourceId, std::string>{{rock, "y"}});
}

TEMPLATE_TEST_CASE("one descriptor in two runtimes: both hear of it", "[runtime]", EpollPoller,
                   PollPoller) {
    Pair pair = socket_pair();
    Fd twin(os::Kernel::duplicate(pair.ours.get()).fd());
    Runtime<Watcher, TestType> one(Watcher{});
    Runtime<Watcher, TestType> two(Watcher{});
    const auto asked_one = std::make_shared<std::string>();
    const auto asked_two = std::make_shared<std::string>();
    const int number = pair.ours.get();
    one.listen(Watch{std::move(pair.ours), Interest{true, false}, asked_one});
    const ResourceId lent = two.listen(Watch{Fd(number), Interest{true, false}, asked_two});
    two.service().at_leave = [](ResourceId, Watch watch, auto&) {
        static_cast<void>(watch.descriptor.release()); // it belongs to the first one
    };
    one.turn(0ns);
    two.turn(0ns);
    write_to(pair.theirs, "x");
    one.turn(0ns);
    CHECK(!asked_one->empty());
    write_to(pair.theirs, "y");
    two.turn(0ns);
    CHECK(!asked_two->empty());
    CHECK(one.service().events.size() == 1);
    CHECK(two.service().events.size() == 1);

    // The one that leaves does the other no harm.
    two.service().at_event = [](ResourceId id, auto& actions) { actions.unregister_listener(id); };
    write_to(pair.theirs, "z");
    two.turn(0ns);
    CHECK(two.service().left == std::vector<ResourceId>{lent});
    asked_one->clear();
    write_to(pair.theirs, "w");
    one.turn(0ns);
    CHECK(!asked_one->empty());
    CHECK(one.service().errors.empty());
}

TEMPLATE_TEST_CASE("a blocking descriptor is made non-blocking as it comes in", "[runtime]",
                   EpollPoller, PollPoller) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const Fd theirs(ends[1]);
    SECTION("a resource that knows nothing of it") {
        Runtime<Watcher, TestType> runtime(Watcher{});
        runtime.listen(Watch{Fd(ends[0])});
        runtime.turn(0ns);
        CHECK((::fcntl(ends[0], F_GETFL) & O_NONBLOCK) != 0);
        write_to(theirs, "x");
        runtime.turn(Duration::max()); // would hang in its second read
        CHECK(runtime.service().events.size() == 1);
    }
    SECTION("a stream") {
        Loop<TestType> loop;
        const ResourceId id = loop.add(Fd(ends[0]));
        CHECK((::fcntl(ends[0], F_GETFL) & O_NONBLOCK) != 0);
        write_to(theirs, std::string(65536, 'x')); // as long as the read buffer
        loop.turn(Duration::max());
        CHECK(loop.probe.trace[id].size() == 65536);
    }
}

// -- what is gone, and what was never there -------------------------------------------------------

TEMPLATE_TEST_CASE("a timer that is cancelled in the turn it is due in does not fire", "[runtime]",
                   EpollPoller, PollPoller) {
    Loop<TestType> loop;
    std::vector<TimerId> timers;
    loop.ask([&](ProbeActions& actions) {
        const Timestamp when = os::Kernel::now() + 1ms;
        for (int n = 0; n < 3; ++n) {
            timers.push_back(actions.set_timer_at(when));
        }
    });
    bool cancelled = false;
    loop.probe.at_timer = [&](TimerId, ProbeActions& actions) {
        cancelled = actions.cancel_timer(timers[1]) && !actions.cancel_timer(timers[1]);
        actions.cancel_timer(timers[2]);
    };
    while (loop.probe.fired.empty()) {
        loop.turn(Duration::max());
    }
    CHECK(cancelled);
    loop.turns(2);
    CHECK(loop.probe.fired == std::vector<TimerId>{timers[0]});
    CHECK(loop.runtime.until_next() == Duration::max());
}

TEMPLATE_TEST_CASE("what is asked of a dead id comes back, and its successor hears nothing",
                   "[runtime]", EpollPoller, PollPoller) {
    Loop<TestType> loop;
    Pair dead = socket_pair();
    Pair alive = socket_pair();
    const ResourceId old = loop.add(std::move(dead.ours));
    loop.remove(old);
    const ResourceId now = loop.add(std::move(alive.ours));
    REQUIRE(now.slot() == old.slot());
    loop.ask([&](ProbeActions& actions) {
        actions.send(old, "letter");
        actions.send(old, Buffer("parcel"));
        actions.pause(old);
        actions.resume(old);
        actions.close_write(old);
        actions.unregister_transport(old);
    });
    CHECK(loop.probe.count(ErrorKind::unknown_id) == 6);
    REQUIRE(loop.probe.errors.size() == 6);
    CHECK(loop.probe.errors[0].payload == "letter");
    CHECK(loop.probe.errors[1].payload == "parcel");
    for (const Told& told : loop.probe.errors) {
        CHECK(told.id == old);
    }
    CHECK(all_of(alive.theirs) == "");
    write_to(alive.theirs, "x");
    loop.turns(2);
    CHECK(loop.probe.trace[now] == "x");
    loop.ask([&](ProbeActions& actions) { actions.send(now, "still open"); });
    CHECK(all_of(alive.theirs) == "still open");
}

TEST_CASE("ids do not repeat where 16 or 32 bits would", "[runtime]") {
    for (const std::uint64_t first : {(std::uint64_t{1} << 16) - 4, (std::uint64_t{1} << 32) - 4}) {
        detail::Registry<Watch, Role::listener> registry(4, first);
        std::set<ResourceId> ids;
        ResourceId before;
        for (int n = 0; n < 8; ++n) {
            const ResourceId id = registry.reserve();
            registry.occupy(id, Watch{bell()});
            REQUIRE(registry.find(id) != nullptr);
            CHECK(registry.find(before) == nullptr);
            CHECK(registry.find(ResourceId::from_value(id.value() & 0xffff'ffff)) == nullptr);
            CHECK(id.slot() == 1);
            ids.insert(id);
            static_cast<void>(registry.extract(*registry.find(id)));
            before = id;
        }
        CHECK(ids.size() == 8);
    }
}

namespace {

/// A poller that also reports whom nobody knows.
template <class Base>
struct Babbling : Base {
    std::size_t said = 0;

    PollResult wait(Duration timeout, std::size_t most) {
        PollResult result = Base::wait(std::min(timeout, Duration{1ms}), most);
        said = result.count;
        result.count += 4;
        return result;
    }
    PollEvent event(std::size_t index) const {
        if (index < said) {
            return Base::event(index);
        }
        constexpr std::uint64_t strangers[] = {~std::uint64_t{0}, 0x0000'0002'0000'0000, 1,
                                               (std::uint64_t{99} << 24) | 2};
        return {ResourceId::from_value(strangers[index - said]), {true, true, true, true}};
    }
};

} // namespace

TEMPLATE_TEST_CASE("a report of an unknown id is counted, and that is all", "[runtime]",
                   Babbling<EpollPoller>, Babbling<PollPoller>) {
    Loop<TestType> loop;
    Pair pair = socket_pair();
    const ResourceId id = loop.add(std::move(pair.ours));
    const std::uint64_t before = loop.runtime.stale_reports();
    write_to(pair.theirs, "x");
    loop.turns(3);
    CHECK(loop.runtime.stale_reports() >= before + 3);
    CHECK(loop.probe.trace[id] == "x");
    CHECK(loop.probe.errors.empty());
    loop.runtime.controller().wake();
    loop.turn(Duration::max());
    loop.ask([&](ProbeActions& actions) { actions.send(id, "y"); });
    CHECK(all_of(pair.theirs) == "y");
}

TEMPLATE_TEST_CASE("whoever rings after the end rings nobody's descriptor", "[runtime]",
                   EpollPoller, PollPoller) {
    const std::size_t open = open_descriptors();
    {
        auto runtime = std::make_unique<Runtime<Probe, TestType>>(Probe{});
        auto controller = runtime->controller();
        runtime->turn(0ns);
        runtime.reset();
        std::vector<Fd> successors;
        for (int n = 0; n < 8; ++n) {
            successors.push_back(bell());
        }
        controller.wake();
        controller.shutdown();
        controller.drain(1s);
        auto answer = controller.command([](ProbeActions&) {});
        CHECK(!answer);
        CHECK(answer.closed());
        CHECK(answer.take());
        Pair pair = socket_pair();
        auto refused = controller.register_transport(Stream(std::move(pair.ours)));
        CHECK(refused.closed());
        REQUIRE(refused.take());
        CHECK(std::none_of(successors.begin(), successors.end(),
                           [](const Fd& fd) { return is_readable(fd.get()); }));
    }
    CHECK(open_descriptors() == open);
}

TEMPLATE_TEST_CASE("a descriptor closed behind the runtime's back is its own harm only",
                   "[runtime]", PlannedEpollPoller, PlannedPollPoller) {
    const Plans plans;
    Loop<TestType> loop;
    Pair pair = socket_pair();
    Pair other = socket_pair();
    const ResourceId stays = loop.add(std::move(other.ours));
    const int number = pair.ours.get();
    const ResourceId id = loop.add(std::move(pair.ours));
    Fd duplicate;
    SECTION("and it is gone for good") { REQUIRE(duplicate.get() == -1); }
    SECTION("while a duplicate lives") {
        duplicate.reset(os::Kernel::duplicate(number).fd());
        REQUIRE(duplicate.get() >= 0);
    }
    loop.turns(2);
    REQUIRE(::close(number) == 0);
    write_to(other.theirs, "1");
    if (duplicate) {
        write_to(pair.theirs, "for a ghost");
    }
    loop.turns(4);
    CHECK(loop.probe.trace[stays] == "1");
    if (duplicate || std::is_same_v<TestType, PlannedPollPoller>) {
        REQUIRE(loop.probe.errors.size() == 1);
        CHECK(loop.probe.errors[0].kind == ErrorKind::ended);
        CHECK(loop.probe.errors[0].id == id);
        CHECK(loop.probe.errors[0].code == system_code(EBADF));
        static_cast<void>(loop.probe.gone.at(id).release().release());
    } else {
        loop.ask([&](ProbeActions& actions) { actions.unregister_transport(id); });
        CHECK(loop.probe.trace[id] == "^");
        static_cast<void>(loop.probe.gone.at(id).release().release());
    }
    const std::size_t before = PlannedKernel::waits();
    CHECK(loop.sleeps());
    CHECK(PlannedKernel::waits() == before + 1);
    CHECK(loop.runtime.stale_reports() <= 2);
    write_to(other.theirs, "2");
    loop.turn(Duration::max());
    CHECK(loop.probe.trace[stays] == "12");
    loop.runtime.controller().wake();
    loop.turn(Duration::max());
    CHECK(loop.probe.errors.size() <= 1);
}

namespace {

/// A loop with a ghost: a registration that is reported and cannot be named any more.
struct HauntedLoop : Loop<PlannedEpollPoller> {
    Pair other = socket_pair();
    ResourceId stays = add(std::move(other.ours));
    Pair pipe = pipe_pair();
    Fd duplicate{os::Kernel::duplicate(pipe.ours.get()).fd()};
    int number = pipe.ours.get();
    ResourceId ghost = add(std::move(pipe.ours));

    HauntedLoop() {
        turns(2);
        write_to(pipe.theirs, "boo");
    }
    void close_behind() {
        REQUIRE(::close(number) == 0);
        probe.at_error = [this](const Told& told, ProbeActions&) {
            if (told.id == ghost) {
                static_cast<void>(probe.gone.at(ghost).release().release());
            }
        };
    }
};

} // namespace

TEST_CASE("a ghost that cannot be driven out for want of a descriptor does not spin the loop",
          "[runtime]") {
    const Plans plans;
    HauntedLoop loop;
    PlannedKernel::creating.fail(EMFILE);
    loop.close_behind();
    for (int n = 0; n < 6; ++n) {
        loop.turn(1h);
    }
    CHECK(loop.probe.trace[loop.ghost] == "!");
    CHECK(loop.probe.count(ErrorKind::poll_failed) == 1);
    CHECK(PlannedKernel::sleeping.calls >= 3);
    write_to(loop.other.theirs, "x");
    const Duration slept = PlannedKernel::slept;
    loop.turns(2);
    CHECK(loop.probe.trace[loop.stays] == "x");
    CHECK(PlannedKernel::slept == slept); // these turns may not wait at all
    PlannedKernel::creating.heal();
    loop.turns(3);
    CHECK(loop.sleeps());
}

TEST_CASE("a poller that fails to start afresh does not leave the loop deaf", "[runtime]") {
    const Plans plans;
    HauntedLoop loop;
    loop.close_behind();
    PlannedKernel::controlling.fail(ENOSPC, 1, 1); // the first is the ghost's, the second the waker
    loop.turns(6);
    write_to(loop.other.theirs, "x");
    loop.turns(2);
    CHECK(loop.probe.trace[loop.stays] == "x");
    CHECK(loop.sleeps());
    std::atomic<bool> rung{false};
    std::thread other([&, controller = loop.runtime.controller()] {
        std::this_thread::sleep_for(2ms);
        rung = true;
        controller.wake();
    });
    test::calmly([&] { loop.turn(20ms); });
    const bool heard = rung;
    other.join();
    CHECK(heard);
    CHECK(loop.probe.count(ErrorKind::poll_failed) <= 1);
}

TEST_CASE("a ghost whose number has a new owner is driven out, and the owner is served",
          "[runtime]") {
    const Plans plans;
    HauntedLoop loop;
    Pair pair = socket_pair();
    REQUIRE(::dup3(pair.ours.get(), loop.number, O_CLOEXEC) == loop.number); // closes it, too
    pair.ours.reset();
    // From here on the ghost is reported, and reads from the owner's descriptor, which is silent.
    const ResourceId owner = loop.add(Stream(Fd(loop.number)));
    loop.ask([&](ProbeActions& actions) { actions.unregister_transport(loop.ghost); });
    static_cast<void>(loop.probe.gone.at(loop.ghost).release().release());
    loop.turns(6);
    CHECK(loop.sleeps());
    write_to(pair.theirs, "mine");
    loop.turns(2);
    CHECK(loop.probe.trace[owner] == "mine");
    CHECK(loop.probe.errors.empty());
}

// -- bounds and re-entrancy -----------------------------------------------------------------------

TEMPLATE_TEST_CASE("actions without end do not keep a turn from ending", "[runtime]", EpollPoller,
                   PollPoller) {
    Options options;
    options.actions_per_turn = 50;
    Loop<TestType> loop(options);
    Pair pair = socket_pair();
    const ResourceId id = loop.add(std::move(pair.ours));
    loop.probe.at_error = [](const Told& told, ProbeActions& actions) {
        if (told.kind == ErrorKind::unknown_id) {
            actions.unregister_transport({}); // and so on for ever
            actions.unregister_transport({});
            static_cast<void>(actions.cancel_timer({}));
        }
    };
    loop.ask([](ProbeActions& actions) { actions.unregister_transport({}); });
    for (std::size_t n = 1; n <= 3; ++n) {
        const std::size_t before = loop.probe.errors.size();
        write_to(pair.theirs, "x");
        CHECK(loop.runtime.until_next() == 0ns);
        loop.turn(Duration::max());
        CHECK(loop.probe.errors.size() <= before + 51);
        CHECK(loop.probe.trace[id] == std::string(n, 'x'));
    }
    loop.probe.at_error = {};
}

TEMPLATE_TEST_CASE("run and turn within a callback are refused, and do no harm", "[runtime]",
                   EpollPoller, PollPoller) {
    Loop<TestType> loop;
    const std::error_code deadlock =
        std::make_error_code(std::errc::resource_deadlock_would_occur);
    std::error_code from_run;
    std::error_code from_turn;
    bool thrown = false;
    loop.ask([&](ProbeActions& actions) {
        actions.set_timer(0ns);
        loop.runtime.run(from_run);
        loop.runtime.turn(0ns, from_turn);
        try {
            loop.runtime.run();
        } catch (const std::system_error& error) {
            thrown = error.code() == deadlock;
        }
    });
    CHECK(from_run == deadlock);
    CHECK(from_turn == deadlock);
    CHECK(thrown);
    loop.turns(2);
    CHECK(loop.probe.fired.size() == 1);
}

TEMPLATE_TEST_CASE("limits of zero do not stop the loop, nor make it spin", "[runtime]",
                   EpollPoller, PollPoller) {
    Options options;
    options.events_per_wait = 0;
    options.events_per_resource = 0;
    options.bytes_per_resource = 0;
    options.accepts_per_turn = 0;
    options.commands_per_turn = 0;
    options.timers_per_turn = 0;
    options.actions_per_turn = 0;
    options.read_buffer = 0;
    options.gather_buffer = 0;
    SECTION("a service of streams") {
        Loop<TestType> loop(options);
        Pair pair = socket_pair();
        loop.probe.at_event = [](ResourceId id, const StreamEvent& event, ProbeActions& actions) {
            if (event.data() != nullptr) {
                actions.send(id, *event.data());
            }
        };
        loop.probe.at_start = [](ProbeActions& actions) { actions.set_timer(0ns); };
        REQUIRE(loop.runtime.controller().register_transport(Stream(std::move(pair.ours))));
        REQUIRE(loop.runtime.controller().command([](ProbeActions& actions) {
            actions.unregister_transport({});
        }));
        write_to(pair.theirs, "abc");
        loop.turns(12);
        CHECK(loop.probe.fired.size() == 1);
        CHECK(loop.probe.count(ErrorKind::unknown_id) == 1);
        CHECK(all_of(pair.theirs) == "abc");
        CHECK(loop.runtime.until_next() == Duration::max());
        pair.theirs.reset();
        loop.turns(4);
        REQUIRE(loop.probe.trace.size() == 1);
        CHECK(loop.probe.trace.begin()->second == "abc$");
    }
    SECTION("a service of listeners") {
        Runtime<Watcher, TestType> runtime(Watcher{}, options);
        const ResourceId id = runtime.listen(Watch{bell(1)});
        for (int n = 0; n < 4; ++n) {
            runtime.turn(0ns);
        }
        CHECK(runtime.service().events[id] == 1);
        CHECK(runtime.until_next() == Duration::max());

        // Zero is no budget without end either.
        Pair pipe = pipe_pair();
        write_to(pipe.theirs, std::string(64 * 10, 'x'));
        const ResourceId busy = runtime.listen(Watch{std::move(pipe.ours)});
        runtime.turn(0ns);
        for (int n = 1; n <= 3; ++n) {
            CHECK(runtime.service().events[busy] <= n);
            runtime.turn(0ns);
        }
        CHECK(runtime.service().events[busy] >= 2);
    }
}

TEMPLATE_TEST_CASE("what a throw at the end of a turn interrupts is done in the next", "[runtime]",
                   EpollPoller, PollPoller) {
    Options options;
    options.stream.cap = 64 * 1024 * 1024;
    Loop<TestType> loop(options);
    Pair pair = socket_pair();
    Pair other = socket_pair();
    const ResourceId id = loop.add(std::move(pair.ours));
    const ResourceId behind = loop.add(std::move(other.ours));
    loop.probe.at_event = [](ResourceId, const StreamEvent& event, ProbeActions&) {
        if (event.blocked()) {
            throw std::runtime_error("at blocked");
        }
    };
    const std::string much(8 * 1024 * 1024, 'm');
    const Task send = [&](ProbeActions& actions) {
        actions.send(id, much);
        actions.send(behind, "small");
    };
    REQUIRE(loop.runtime.controller().command(send));
    CHECK_THROWS_AS(loop.turn(), std::runtime_error);
    std::size_t got = 0;
    for (int n = 0; n < 300 && got < much.size(); ++n) {
        loop.turn(5ms); // finds the stream writable as often as it is read
        got += all_of(pair.theirs).size();
    }
    CHECK(got == much.size());
    CHECK(all_of(other.theirs) == "small");
}

namespace {

/// Yields one event, then wishes for nothing and has ended.
struct OneShot {
    using Event = int;

    Fd descriptor;
    bool over = false;

    [[nodiscard]] int fd() const noexcept { return descriptor.get(); }
    [[nodiscard]] Interest interest() const noexcept { return {!over, false}; }
    std::optional<Event> handle_io(Io) {
        return std::exchange(over, true) ? std::nullopt : std::optional(1);
    }
    [[nodiscard]] std::optional<std::error_code> ended() const noexcept {
        return over ? std::optional(std::error_code()) : std::nullopt;
    }
};

struct OneShots : Service<OneShot, NoTransport> {
    int events = 0;
    int ends = 0;
    void handle_listener_event(ResourceId, int, Actions&) { ++events; }
    void handle_error(Error error, Actions&) { ends += error.is_end() ? 1 : 0; }
};

} // namespace

TEMPLATE_TEST_CASE("a listener that has ended with its last event leaves", "[runtime]", EpollPoller,
                   PollPoller) {
    Runtime<OneShots, TestType> runtime(OneShots{});
    runtime.listen(OneShot{bell(1)});
    for (int n = 0; n < 4; ++n) {
        runtime.turn(0ns);
    }
    CHECK(runtime.service().events == 1);
    CHECK(runtime.service().ends == 1);
}

namespace {

/// A stream that reads ahead: it holds what came in a stock, and yields one byte at a time.
struct Stocked : Stream {
    using Stream::Stream;

    std::vector<std::byte> stock;
    std::size_t yielded = 0;

    std::optional<Event> handle_io(Io io, std::span<std::byte> scratch) {
        if (io == Io::write) {
            return Stream::handle_io(io, scratch);
        }
        if (yielded == stock.size()) {
            const std::optional<Event> event = Stream::handle_io(io, scratch);
            if (!event || event->data() == nullptr) {
                return event;
            }
            stock.assign(event->data()->begin(), event->data()->end());
            yielded = 0;
        }
        return Event(std::span<const std::byte>(stock).subspan(yielded++, 1));
    }
};

struct Pieces : Service<NoListener, Stocked> {
    std::string got;
    std::string answer;
    char bad = '\0';

    void handle_transport_event(ResourceId id, Stocked::Event event, Actions& actions) {
        if (const auto* const bytes = event.data()) {
            got += text_of(*bytes);
            if (got.back() == bad) {
                throw std::runtime_error("bad");
            }
            if (!answer.empty()) {
                actions.send(id, answer);
            }
        }
    }
};

} // namespace

TEMPLATE_TEST_CASE("what a stream holds in stock comes although its own sends held it back",
                   "[runtime]", EpollPoller, PollPoller) {
    Runtime<Pieces, TestType> runtime(Pieces{});
    runtime.service().answer = std::string(100'000, 'a'); // more than the high watermark
    Pair pair = socket_pair();
    REQUIRE(runtime.controller().register_transport(Stocked(std::move(pair.ours))));
    runtime.turn(0ns);
    write_to(pair.theirs, "abcd");
    std::size_t answered = 0;
    for (int n = 0; n < 20; ++n) {
        runtime.turn(0ns);
        answered += all_of(pair.theirs).size();
    }
    CHECK(runtime.service().got == "abcd");
    CHECK(answered == 400'000);
    CHECK(runtime.until_next() == Duration::max());
}

TEMPLATE_TEST_CASE("what a stream holds in stock comes although a callback threw", "[runtime]",
                   EpollPoller, PollPoller) {
    Runtime<Pieces, TestType> runtime(Pieces{});
    runtime.service().bad = 'b';
    Pair pair = socket_pair();
    REQUIRE(runtime.controller().register_transport(Stocked(std::move(pair.ours))));
    runtime.turn(0ns);
    write_to(pair.theirs, "abcd");
    CHECK_THROWS_AS(runtime.turn(Duration::max()), std::runtime_error);
    CHECK(runtime.service().got == "ab");
    for (int n = 0; n < 4; ++n) {
        runtime.turn(0ns);
    }
    CHECK(runtime.service().got == "abcd");
}

namespace {

/// Greets its transports when a listener ends.
struct Herald : Service<OneShot, Stream> {
    int ends = 0;
    ResourceId stream;

    void handle_listener_event(ResourceId, int, Actions&) {}
    void handle_transport_event(ResourceId, StreamEvent, Actions&) {}
    void handle_registered(ResourceId id, Role role, int, Actions& actions) {
        if (role == Role::transport) {
            stream = id;
        } else if (stream) {
            actions.send(stream, "come ");
        }
    }
    void handle_error(Error error, Actions& actions) {
        ends += error.is_end() ? 1 : 0;
        actions.send(stream, "gone");
    }
};

} // namespace

TEMPLATE_TEST_CASE("what the end of a turn causes is sent before the loop sleeps", "[runtime]",
                   EpollPoller, PollPoller) {
    Runtime<Herald, TestType> runtime(Herald{});
    Pair pair = socket_pair();
    REQUIRE(runtime.controller().register_transport(Stream(std::move(pair.ours))));
    runtime.turn(0ns);
    runtime.turn(0ns);
    runtime.listen(OneShot{bell(1)});
    // Each wait may be endless now: whatever has been asked for must be out before.
    runtime.turn(Duration::max());
    while (runtime.until_next() == 0ns) {
        runtime.turn(Duration::max());
    }
    CHECK(runtime.service().ends == 1);
    CHECK(all_of(pair.theirs) == "come gone");
}

TEMPLATE_TEST_CASE("what is asked for before the wait is sent before the loop sleeps", "[runtime]",
                   PlannedEpollPoller, PlannedPollPoller) {
    const Plans plans;
    Runtime<Herald, TestType> runtime(Herald{});
    Pair pair = socket_pair();
    REQUIRE(runtime.controller().register_transport(Stream(std::move(pair.ours))));
    runtime.turn(0ns);
    runtime.turn(0ns);
    runtime.listen(OneShot{bell()}); // sends as it comes in, and is not ready
    runtime.turn(3ms);
    CHECK(PlannedKernel::timeout == 0ns);
    CHECK(all_of(pair.theirs) == "come ");
}

namespace {

/// Cannot take anything back.
struct Refuser : Service<NoListener, Stream> {
    int refused = 0;

    void handle_transport_event(ResourceId, StreamEvent, Actions&) {}
    void handover_transport(ResourceId, Stream, Actions&) {
        ++refused;
        throw std::runtime_error("no");
    }
};

} // namespace

TEMPLATE_TEST_CASE("an end that is thrown out of is work for the next turn, which does not wait",
                   "[runtime]", EpollPoller, PollPoller) {
    Runtime<Refuser, TestType> runtime(Refuser{});
    std::vector<Pair> pairs;
    for (int n = 0; n < 4; ++n) {
        pairs.push_back(socket_pair());
        REQUIRE(runtime.controller().register_transport(Stream(std::move(pairs.back().ours))));
    }
    runtime.turn(0ns);
    runtime.controller().shutdown();
    for (int n = 1; n <= 4; ++n) {
        CHECK_THROWS_AS(runtime.turn(Duration::max()), std::runtime_error);
        CHECK(runtime.service().refused == n);
        REQUIRE(runtime.until_next() == 0ns); // else the next turn would wait for ever
    }
    CHECK(!runtime.turn(Duration::max()));
    CHECK(runtime.farewell().forced == 4);
}

// -- fork and exec --------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("every descriptor of a runtime and its streams is closed by exec", "[runtime]",
                   EpollPoller, PollPoller) {
    std::set<int> before;
    for (int fd = 0; fd < 2'000; ++fd) {
        if (::fcntl(fd, F_GETFD) >= 0) {
            before.insert(fd);
        }
    }
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0); // neither flag is set
    const Fd theirs(ends[1]);
    before.insert(ends[1]);
    Loop<TestType> loop;
    loop.add(Fd(ends[0]));
    loop.turns(2);
    int found = 0;
    for (int fd = 0; fd < 2'000; ++fd) {
        const int flags = ::fcntl(fd, F_GETFD);
        if (flags >= 0 && before.count(fd) == 0) {
            ++found;
            CHECK((flags & FD_CLOEXEC) != 0);
        }
    }
    CHECK(found == (std::is_same_v<TestType, EpollPoller> ? 3 : 2)); // epoll, the waker, a stream
}

TEMPLATE_TEST_CASE("a descriptor that a child still holds is forgotten when we close it",
                   "[runtime]", EpollPoller, PollPoller) {
    Loop<TestType> loop;
    Pair pair = socket_pair();
    const Pair leash = pipe_pair();
    const ResourceId id = loop.add(std::move(pair.ours));
    loop.turns(2);
    const pid_t child = ::fork();
    if (child == 0) {
        pollfd end{leash.ours.get(), POLLIN, 0};
        test::calmly([&] { return ::poll(&end, 1, -1); });
        ::_exit(0);
    }
    REQUIRE(child > 0);
    loop.remove(id);
    write_to(pair.theirs, "nobody reads this");
    CHECK(loop.sleeps());
    CHECK(loop.runtime.stale_reports() == 0);
    CHECK(loop.probe.trace[id] == "^");
    write_to(leash.theirs, "x");
    CHECK(test::calmly([&] { return ::waitpid(child, nullptr, 0); }) == child);
}

TEMPLATE_TEST_CASE("a forked child is refused, and its copy's end does the parent no harm",
                   "[runtime]", EpollPoller, PollPoller) {
    auto loop = std::make_unique<Loop<TestType>>();
    Pair pair = socket_pair();
    const ResourceId id = loop->add(std::move(pair.ours));
    loop->turns(2);
    const int status = in_child([&] {
        const std::error_code refused = std::make_error_code(std::errc::operation_not_permitted);
        std::error_code from_turn;
        std::error_code from_run;
        if (loop->runtime.turn(0ns, from_turn) || from_turn != refused) {
            return 1;
        }
        loop->runtime.run(from_run);
        if (from_run != refused) {
            return 2;
        }
        try {
            loop->runtime.run();
            return 3;
        } catch (const std::system_error& error) {
            if (error.code() != refused) {
                return 4;
            }
        }
        loop.reset();
        // Who makes a runtime of its own has one.
        Loop<TestType> own;
        Pair other = socket_pair();
        const ResourceId mine = own.add(std::move(other.ours));
        write_to(other.theirs, "x");
        own.turns(2);
        return own.probe.trace[mine] == "x" ? 0 : 5;
    });
    CHECK(status == 0);
    write_to(pair.theirs, "still here");
    loop->turn(Duration::max());
    CHECK(loop->probe.trace[id] == "still here");
    loop->runtime.controller().wake();
    loop->turn(Duration::max());
}

TEMPLATE_TEST_CASE("a child forked within a callback cannot harm the parent when it returns",
                   "[runtime]", EpollPoller, PollPoller) {
    auto loop = std::make_unique<Loop<TestType>>();
    Pair pair = socket_pair();
    Pair other = socket_pair();
    const ResourceId id = loop->add(std::move(pair.ours));
    const ResourceId second = loop->add(std::move(other.ours));
    loop->turns(2);
    pid_t child = -1;
    loop->ask([&](ProbeActions& actions) {
        child = ::fork();
        if (child == 0) {
            actions.unregister_transport(id);
            actions.pause(second);
        }
    });
    if (child == 0) {
        loop->probe.gone.clear();
        std::error_code refused;
        loop->runtime.turn(0ns, refused);
        loop.reset();
        ::_exit(refused ? 0 : 1);
    }
    REQUIRE(child > 0);
    int status = 0;
    REQUIRE(test::calmly([&] { return ::waitpid(child, &status, 0); }) == child);
    CHECK(status == 0);
    write_to(pair.theirs, "first");
    write_to(other.theirs, "second");
    loop->turns(3);
    CHECK(loop->probe.trace[id] == "first");
    CHECK(loop->probe.trace[second] == "second");
}

// -- several loops --------------------------------------------------------------------------------

namespace {

/// Sends back what comes, and ends with the first transport that does.
struct Echo : Service<NoListener, Stream> {
    std::size_t bytes = 0;

    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        if (const auto* const data = event.data()) {
            bytes += data->size();
            actions.send(id, *data);
        } else if (event.eof()) {
            actions.shutdown();
        }
    }
};

} // namespace

TEMPLATE_TEST_CASE("two runtimes in two threads share nothing", "[runtime]", EpollPoller,
                   PollPoller) {
    const std::size_t open = open_descriptors();
    constexpr int rounds = 300;
    std::size_t echoed[2] = {};
    std::size_t got[2] = {};
    Pair pairs[2] = {socket_pair(), socket_pair()};
    std::vector<std::thread> threads;
    for (std::size_t n = 0; n < 2; ++n) {
        threads.emplace_back([&, n] {
            Runtime<Echo, TestType> runtime(Echo{});
            const auto sent = runtime.controller().register_transport(
                Stream(std::move(pairs[n].ours)));
            runtime.run();
            echoed[n] = sent ? runtime.service().bytes : 0;
        });
        threads.emplace_back([&, n] {
            const test::Calm calm; // what blocks here are calls of the test
            char byte = 'x';
            for (int round = 0; round < rounds; ++round) {
                pollfd ready{pairs[n].theirs.get(), POLLIN, 0};
                const bool answered = ::write(pairs[n].theirs.get(), &byte, 1) == 1 &&
                                      ::poll(&ready, 1, -1) == 1 &&
                                      ::read(pairs[n].theirs.get(), &byte, 1) == 1;
                got[n] += answered ? 1U : 0U;
            }
            ::shutdown(pairs[n].theirs.get(), SHUT_WR);
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    for (std::size_t n = 0; n < 2; ++n) {
        CHECK(echoed[n] == rounds);
        CHECK(got[n] == rounds);
        pairs[n].theirs.reset();
    }
    CHECK(open_descriptors() == open);
}

TEMPLATE_TEST_CASE("ten thousand runtimes come and go without a trace", "[runtime]", EpollPoller,
                   PollPoller) {
    const std::size_t open = open_descriptors();
    const Fd first = bell();
    for (int n = 0; n < 10'000; ++n) {
        Runtime<Echo, TestType> runtime(Echo{});
        if (n % 1'000 == 0) {
            const auto controller = runtime.controller();
            runtime.turn(0ns);
            controller.shutdown();
            CHECK(!runtime.turn(0ns));
        }
    }
    CHECK(open_descriptors() == open + 1);
    CHECK(bell().get() <= first.get() + 1); // the numbers were used again
}

TEMPLATE_TEST_CASE("a connection moves from one loop to another with its bytes in flight",
                   "[runtime]", EpollPoller, PollPoller) {
    Loop<TestType> from;
    Loop<TestType> to;
    Pair pair = socket_pair();
    const ResourceId first = from.add(std::move(pair.ours));
    std::string sent;
    std::string received;
    for (int n = 0; n < 20; ++n) {
        const std::string piece = std::to_string(n) + ' ';
        write_to(pair.theirs, piece);
        sent += piece;
        if (n < 5 || n > 12) {
            from.turns(1);
            to.turns(1);
        } else if (n == 5) {
            from.ask([&](ProbeActions& actions) {
                actions.send(first, "so far");
                actions.unregister_transport(first);
            });
            REQUIRE(from.probe.gone.count(first) == 1);
            CHECK(to.runtime.controller().register_transport(
                std::move(from.probe.gone.at(first))));
        }
    }
    from.turns(2);
    to.turns(2);
    REQUIRE(to.probe.registered.size() == 1);
    const std::string& head = from.probe.trace[first];
    CHECK(head.back() == '^');
    CHECK(head.substr(0, head.size() - 1) + to.probe.trace[to.probe.registered[0]] == sent);
    CHECK(from.probe.trace.size() == 1);
    CHECK(from.runtime.stale_reports() == 0);
    CHECK(from.sleeps());
    to.ask([&](ProbeActions& actions) { actions.send(to.probe.registered[0], ", and on"); });
    CHECK(all_of(pair.theirs) == "so far, and on");
}

// -- kinds of descriptors -------------------------------------------------------------------------

TEMPLATE_TEST_CASE("files, directories and /dev/null answer alike on every poller", "[runtime]",
                   EpollPoller, PollPoller) {
    Loop<TestType> loop;
    SECTION("a file is read to its end") {
        Fd file = memory_file();
        const std::string text(700'000, 't');
        write_to(file, text);
        REQUIRE(::lseek(file.get(), 0, SEEK_SET) == 0);
        const ResourceId id = loop.add(std::move(file));
        loop.turns(12);
        CHECK(loop.probe.trace[id] == text + '$');
        CHECK(loop.sleeps());
    }
    SECTION("two files and a socket, all at once") {
        Pair pair = socket_pair();
        const ResourceId socket = loop.add(std::move(pair.ours));
        std::vector<ResourceId> ids;
        for (int n = 0; n < 2; ++n) {
            Fd file = memory_file();
            write_to(file, "text");
            REQUIRE(::lseek(file.get(), 0, SEEK_SET) == 0);
            ids.push_back(loop.add(std::move(file)));
        }
        write_to(pair.theirs, "x");
        loop.turns(6);
        CHECK(loop.probe.trace[ids[0]] == "text$");
        CHECK(loop.probe.trace[ids[1]] == "text$");
        CHECK(loop.probe.trace[socket] == "x");
        CHECK(loop.sleeps());
    }
    SECTION("/dev/null ends at once, and takes everything") {
        const ResourceId id = loop.add(opened("/dev/null", O_RDWR));
        loop.turns(3);
        CHECK(loop.probe.trace[id] == "$");
        loop.ask([&](ProbeActions& actions) { actions.send(id, "into the void"); });
        loop.turns(2);
        CHECK(loop.probe.errors.empty());
        CHECK(loop.sleeps());
        loop.ask([&](ProbeActions& actions) { actions.unregister_transport(id); });
        CHECK(loop.probe.gone.at(id).unsent() == 0);
    }
    SECTION("a directory is no stream") {
        const ResourceId id = loop.add(opened("/", O_RDONLY | O_DIRECTORY));
        loop.turns(3);
        REQUIRE(loop.probe.errors.size() == 1);
        CHECK(loop.probe.errors[0].kind == ErrorKind::ended);
        CHECK(loop.probe.errors[0].code == system_code(EISDIR));
        CHECK(loop.probe.trace[id] == "!");
        CHECK(loop.sleeps());
    }
}

TEMPLATE_TEST_CASE("timers, processes and high numbers are streams as well", "[runtime]",
                   EpollPoller, PollPoller) {
    Loop<TestType> loop;
    SECTION("timerfd") {
        Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)); // blocking
        const itimerspec soon{{0, 500'000}, {0, 500'000}};
        REQUIRE(::timerfd_settime(timer.get(), 0, &soon, nullptr) == 0);
        const ResourceId id = loop.add(std::move(timer));
        while (loop.probe.trace[id].size() < 3 * 8) {
            loop.turn(Duration::max());
        }
        CHECK(loop.probe.trace[id].size() % 8 == 0);
    }
    SECTION("pidfd") {
        const pid_t child = ::fork();
        if (child == 0) {
            ::_exit(7);
        }
        REQUIRE(child > 0);
        Runtime<Watcher, TestType> runtime(Watcher{});
        const auto asked = std::make_shared<std::string>();
        runtime.listen(Watch{Fd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0))),
                             Interest{true, false}, asked});
        while (asked->empty()) {
            runtime.turn(Duration::max());
        }
        CHECK(test::calmly([&] { return ::waitpid(child, nullptr, 0); }) == child);
    }
    SECTION("1024 and above") {
        Pair pair = socket_pair();
        const ResourceId id = loop.add(Fd(::fcntl(pair.ours.get(), F_DUPFD_CLOEXEC, 1'024)));
        pair.ours.reset();
        write_to(pair.theirs, "x");
        loop.turn(Duration::max());
        CHECK(loop.probe.trace[id] == "x");
    }
}

// -- construction ---------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("a runtime that cannot be made says why, leaks nothing, and has ended",
                   "[runtime]", PlannedEpollPoller, PlannedPollPoller) {
    const Plans plans;
    const bool is_epoll = std::is_same_v<TestType, PlannedEpollPoller>;
    const auto each = [&](CallSite& site, int error) {
        const std::size_t open = open_descriptors();
        site.fail(error, 0, 1);
        {
            std::error_code code;
            Runtime<Probe, TestType> runtime(Probe{}, Options{}, code);
            CHECK(code == system_code(error));
            CHECK(!runtime.turn(Duration::max()));
            runtime.run();
            const auto answer = runtime.controller().command([](ProbeActions&) {});
            CHECK(answer.closed());
            runtime.controller().wake();
            runtime.controller().shutdown();
        }
        CHECK(open_descriptors() == open);
        site.fail(error, 0, 1);
        CHECK_THROWS_AS((Runtime<Probe, TestType>(Probe{})), std::system_error);
        CHECK(open_descriptors() == open);
        site.heal();
    };
    for (const int error : {EMFILE, ENFILE, ENOMEM}) {
        each(PlannedKernel::bell_making, error);
        if (is_epoll) {
            each(PlannedKernel::creating, error);
            each(PlannedKernel::controlling, error); // the waker
        } else {
            each(PlannedKernel::polling, error);
        }
    }
    std::error_code code = std::make_error_code(std::errc::io_error);
    Runtime<Probe, TestType> runtime(Probe{}, Options{}, code);
    CHECK(!code);
    CHECK(runtime.turn(0ns));
    code = std::make_error_code(std::errc::io_error);
    Runtime<Probe, TestType> with_poller(Probe{}, Options{}, TestType{}, code);
    CHECK(!code);
    CHECK(with_poller.turn(0ns));
}

TEMPLATE_TEST_CASE("at the limit of descriptors a runtime cannot be made, and nothing is lost",
                   "[runtime]", EpollPoller, PollPoller) {
    const int status = in_child([] {
        const std::size_t before = open_descriptors();
        std::vector<Fd> all;
        rlimit limit{};
        ::getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = 64;
        ::setrlimit(RLIMIT_NOFILE, &limit);
        for (Fd fd(::eventfd(0, EFD_CLOEXEC)); fd; fd.reset(::eventfd(0, EFD_CLOEXEC))) {
            all.push_back(std::move(fd));
        }
        // With none left, then with one, until there are enough.
        for (int left = 0; left < 3; ++left) {
            std::error_code error;
            Runtime<Probe, TestType> runtime(Probe{}, Options{}, error);
            const int wanted = std::is_same_v<TestType, EpollPoller> ? 2 : 1;
            if (static_cast<bool>(error) != (left < wanted)) {
                return 1 + left;
            }
            if (error && (error != system_code(EMFILE) || runtime.turn(0ns))) {
                return 10 + left;
            }
            if (!error && !runtime.turn(0ns)) {
                return 20 + left;
            }
            all.pop_back();
        }
        all.clear();
        return open_descriptors() == before ? 0 : 30;
    });
    CHECK(status == 0);
}

// -- all pollers alike ----------------------------------------------------------------------------

namespace {

/// One list of operations, the same for every poller; what each resource saw, in order of
/// registration.
template <class P>
std::vector<std::string> play(unsigned seed) {
    std::mt19937 random(seed);
    const auto below = [&](unsigned limit) { return static_cast<unsigned>(random() % limit); };
    Options options;
    options.stream.high_watermark = 4'000;
    options.stream.low_watermark = 1'000;
    options.read_buffer = 300;
    options.events_per_resource = 4;
    Loop<P> loop(options);
    struct Player {
        Pair pair;
        ResourceId id;
        bool peer_ended = false;
    };
    std::vector<Player> players(6);
    const auto gone = [&](const Player& player) {
        const std::string& trace = loop.probe.trace[player.id];
        return !trace.empty() && (trace.back() == '!' || trace.back() == '^');
    };
    for (Player& player : players) {
        player.pair = socket_pair();
        player.id = loop.add(std::move(player.pair.ours));
    }
    for (int step = 0; step < 200; ++step) {
        Player& player = players[below(6)];
        const unsigned size = 1 + below(2'000);
        switch (below(9)) {
        case 0:
        case 1:
        case 2:
            if (!player.peer_ended && player.pair.theirs) {
                const std::string text(size, static_cast<char>('A' + below(26)));
                static_cast<void>(::send(player.pair.theirs.get(), text.data(), text.size(),
                                         MSG_NOSIGNAL));
            }
            break;
        case 3:
            all_of(player.pair.theirs);
            break;
        case 4:
            loop.ask([&](ProbeActions& actions) {
                actions.send(player.id, std::string(100 * size, 's'));
            });
            break;
        case 5:
            loop.ask([&](ProbeActions& actions) { actions.pause(player.id); });
            break;
        case 6:
            loop.ask([&](ProbeActions& actions) { actions.resume(player.id); });
            break;
        case 7:
            if (below(4) == 0) {
                player.peer_ended = true;
                ::shutdown(player.pair.theirs.get(), SHUT_WR);
            }
            break;
        default:
            if (below(3) == 0) {
                loop.ask([&](ProbeActions& actions) { actions.unregister_transport(player.id); });
                player.pair = socket_pair();
                player.peer_ended = false;
                player.id = loop.add(std::move(player.pair.ours));
            }
        }
        loop.turns(12);
        if (gone(player)) {
            player.pair = socket_pair();
            player.peer_ended = false;
            player.id = loop.add(std::move(player.pair.ours));
        }
    }
    std::vector<std::string> traces;
    for (const ResourceId id : loop.probe.registered) {
        traces.push_back(loop.probe.trace[id]);
    }
    traces.push_back(std::to_string(loop.probe.errors.size()));
    return traces;
}

} // namespace

TEST_CASE("the same story is the same on every poller", "[runtime]") {
    for (unsigned seed = 1; seed <= 6; ++seed) {
        CAPTURE(seed);
        const auto told = play<EpollPoller>(seed);
        CHECK(told.size() > 6);
        CHECK(told == play<PollPoller>(seed));
    }
}
