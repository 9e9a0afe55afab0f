// SPDX-License-Identifier: Apache-2.0
//
// A program that is built without exceptions and run-time types: makes a Runtime and a Reactor by
// their std::error_code& forms, lets bytes and commands through them, and shuts them down. Returns
// 0 if all was well, else says what was not.
#include <reactor/net/tcp.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/reactor.hpp>

#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <string_view>

#if defined(__cpp_exceptions) || defined(__GXX_RTTI)
#error "this is to be built with -fno-exceptions -fno-rtti"
#endif

using namespace reactor;

namespace {

int failures = 0;

void expect(bool right, const char* what) {
    if (!right) {
        std::fprintf(stderr, "not so: %s\n", what);
        ++failures;
    }
}

/// What the service saw; read when its loop is over.
struct Seen {
    int commands = 0;
    int registered = 0;
    int timers = 0;
    int handovers = 0;
    int errors = 0;
    std::size_t bytes = 0;
};

struct Echo : Service<TcpListener, Stream, int> {
    explicit Echo(Seen& with) noexcept : seen(&with) {}

    void handle_start(Actions& actions) { actions.set_timer(std::chrono::milliseconds{1}); }
    void handle_timer(TimerId, Actions&) { ++seen->timers; }
    void handle_registered(ResourceId, Role, int, Actions&) { ++seen->registered; }
    void handle_listener_event(ResourceId, TcpListener::Event, Actions&) {}
    void handle_transport_event(ResourceId id, Stream::Event event, Actions& actions) {
        if (const auto* const bytes = event.data()) {
            seen->bytes += bytes->size();
            actions.send(id, *bytes);
        } else if (event.eof()) {
            actions.close_write(id);
        }
    }
    void handle_command(int command, Actions& actions) {
        ++seen->commands;
        if (command == 0) {
            actions.shutdown();
        }
    }
    void handle_error(Error, Actions&) { ++seen->errors; }
    void handover_transport(ResourceId, Stream, Actions&) { ++seen->handovers; }

    Seen* seen;
};

/// One end for the loop, one for us.
struct Pair {
    Pair() noexcept {
        int ends[2] = {-1, -1};
        expect(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "a socket pair");
        theirs.reset(ends[0]);
        ours.reset(ends[1]);
    }
    [[nodiscard]] Stream stream() noexcept {
        std::error_code error;
        Stream made(std::move(theirs), error);
        expect(!error, "a stream takes the descriptor over");
        return made;
    }
    void write(std::string_view text) const noexcept {
        expect(::write(ours.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()),
               "the peer writes");
    }
    [[nodiscard]] bool reads(std::string_view text) const noexcept {
        char bytes[64];
        const ssize_t count = ::read(ours.get(), bytes, sizeof bytes);
        return count == static_cast<ssize_t>(text.size()) &&
               std::string_view(bytes, text.size()) == text;
    }

    os::Fd theirs;
    os::Fd ours;
};

template <class P>
void try_runtime() {
    Seen seen;
    Pair pair;
    std::error_code error;
    Runtime<Echo, P> runtime(Echo(seen), Options{}, error);
    expect(!error, "a runtime is made");

    TcpListener listener = TcpListener::bind("127.0.0.1:0", error);
    expect(!error, "a listener is bound");
    expect(static_cast<bool>(runtime.listen(std::move(listener))), "a listener has an id");
    const auto controller = runtime.controller();
    expect(static_cast<bool>(controller.register_transport(pair.stream())), "a stream is sent");
    expect(static_cast<bool>(controller.command(1)), "a command is sent");
    pair.write("text");
    for (int n = 0; n < 1000 && (seen.timers == 0 || seen.bytes < 4); ++n) {
        expect(runtime.turn(std::chrono::milliseconds{10}, error) && !error, "a turn goes on");
    }
    expect(pair.reads("text"), "the bytes come back");

    expect(static_cast<bool>(controller.command(0)), "the last command is sent");
    const Farewell farewell = runtime.run(error);
    expect(!error, "the run ends well");
    expect(farewell.forced == 1 && farewell.unsent_bytes == 0, "the farewell counts the stream");
    expect(!runtime.turn(Duration::zero(), error) && !error, "the end is final");
    expect(!controller.command(1), "after the end a command is given back");

    expect(seen.commands == 2, "both commands were handled");
    expect(seen.registered == 2, "both resources were registered");
    expect(seen.timers == 1, "the timer fired once");
    expect(seen.handovers == 1 && seen.errors == 0, "the stream was handed over");
}

template <class P>
void try_reactor() {
    Seen seen;
    Pair pair;
    {
        std::error_code error;
        Reactor<Echo, P> reactor(Echo(seen), Options{}, error);
        expect(!error, "a reactor is made");
        TcpListener listener = TcpListener::bind("127.0.0.1:0", error);
        reactor.listen(std::move(listener), error);
        expect(!error, "a reactor listens");
        const auto controller = reactor.controller();
        expect(static_cast<bool>(controller.register_transport(pair.stream())), "a stream is sent");
        pair.write("text");
        expect(pair.reads("text"), "the bytes come back");
        expect(static_cast<bool>(controller.command(0)), "the last command is sent");
        expect(reactor.join().forced == 1, "the thread ends");
        reactor.listen(TcpListener::bind("127.0.0.1:0", error), error);
        expect(error == std::errc::operation_canceled, "after the end nobody listens");
    }
    expect(seen.commands == 1 && seen.handovers == 1, "the command was handled, the stream left");
    {
        std::error_code error;
        const Reactor<Echo, P> reactor(Echo(seen), Options{}, error); // the destructor ends it
        expect(!error, "a reactor is made");
    }
}

void try_failures() {
    std::error_code error;
    expect(TcpListener::bind("nowhere", error).fd() < 0 && error, "no address, no listener");
    const Stream stream(os::Fd(-1), error);
    expect(stream.fd() < 0 && error == std::errc::bad_file_descriptor, "no descriptor, no stream");
    expect(static_cast<bool>(ResourceId::of(0, 1)), "an id names something");
}

} // namespace

int main() {
    try_runtime<EpollPoller>();
    try_runtime<PollPoller>();
    try_reactor<EpollPoller>();
    try_reactor<PollPoller>();
    try_failures();
    return failures == 0 ? 0 : 1;
}
