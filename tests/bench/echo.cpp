// SPDX-License-Identifier: Apache-2.0
//
// Our echo server, to be measured: on a Runtime in a process of one thread, or on a Reactor. On the
// same terms as raw_epoll.c. An echo is one read that was answered, as there.
// Stops after so many echoes, or at SIGTERM; prints its port.
// Usage: echo [--reactor] [echoes, 0: without end]
#include <reactor/net/tcp.hpp>
#include <reactor/reactor.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace {

using namespace reactor;

struct Echo : Service<TcpListener, TcpStream> {
    explicit Echo(long echoes) noexcept : left(echoes != 0 ? echoes : -1) {}

    void handle_listener_event(ResourceId, TcpListener::Event accepted, Actions& actions) {
        actions.register_transport(std::move(accepted.stream));
    }
    void handle_transport_event(ResourceId id, TcpStream::Event event, Actions& actions) {
        if (auto* bytes = event.data()) {
            actions.send(id, *bytes);
            if (--left == 0) {
                actions.shutdown();
            }
        } else if (event.eof()) {
            actions.close_write(id);
        }
    }

    long left;
};

Runtime<Echo>::Controller controller_of_main;

TcpListener make_listener() {
    TcpListener listener = TcpListener::bind("127.0.0.1:0");
    std::printf("listening on %s\n", listener.local().to_string().c_str());
    std::fflush(stdout);
    return listener;
}

/// The whole server on the main thread, and no other thread.
void run_runtime(long echoes) {
    Runtime<Echo> runtime{Echo{echoes}};
    controller_of_main = runtime.controller();
    std::signal(SIGTERM, [](int) { controller_of_main.shutdown(); }); // a store and a wake()
    runtime.listen(make_listener());
    runtime.run();
}

void run_reactor(long echoes) {
    Reactor<Echo> reactor{Echo{echoes}};
    reactor.listen(make_listener());
    reactor.join_until_signal();
}

} // namespace

int main(int argc, char** argv) {
    const bool on_reactor = argc > 1 && std::string_view(argv[1]) == "--reactor";
    const char* const echoes = argc > (on_reactor ? 2 : 1) ? argv[argc - 1] : "0";
    raise_descriptor_limit();
    (on_reactor ? run_reactor : run_runtime)(std::atol(echoes));
}
