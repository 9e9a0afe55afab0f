// SPDX-License-Identifier: Apache-2.0
//
// 4 of 8: commands from another thread. A chat room; what is typed on standard input is said to
// everybody by the house.
//
//     4_remote_control [ADDRESS]       default 127.0.0.1:7001
//     ncat 127.0.0.1 7001
//
// The main thread blocks on standard input and holds nothing of the reactor but a Controller. A
// command is accepted, or comes back with the reason; "quit" drains: the room says goodbye.
#include <reactor/net/tcp.hpp>
#include <reactor/reactor.hpp>

#include <cstdio>
#include <iostream>
#include <string>

using namespace reactor;

struct Room : Service<TcpListener, TcpStream, std::string> {
    void handle_listener_event(ResourceId, TcpListener::Event accepted, Actions& actions) {
        const ResourceId id = actions.register_transport(std::move(accepted.stream));
        guests[id] = accepted.peer.to_string();
        actions.send(id, "welcome\n");
    }

    void handle_transport_event(ResourceId id, TcpStream::Event event, Actions& actions) {
        if (auto* bytes = event.data()) {
            say(guests[id] + ": " + std::string(text_of(*bytes)), actions);
        } else if (event.eof()) {
            actions.unregister_transport(id);
        }
    }

    void handle_command(std::string line, Actions& actions) {
        say("the house: " + line + "\n", actions);
    }

    void handle_drain(Timestamp, Actions& actions) {
        say("the house: goodbye\n", actions);
        for (auto [id, name] : guests) {
            actions.unregister_transport(id);
        }
    }

    void handover_transport(ResourceId id, TcpStream, Actions&) { guests.erase(id); }

    void handle_error(Error error, Actions& actions) {
        if (error.is_end()) {
            guests.erase(error.id());
        } else if (error.kind() == ErrorKind::send_returned) {
            actions.unregister_transport(error.id()); // too slow for this room
        }
    }

    /// One block of memory, however many guests there are.
    void say(std::string_view line, Actions& actions) {
        const Buffer buffer(line);
        for (auto [id, name] : guests) {
            actions.send(id, buffer);
        }
    }

    ResourceMap<std::string> guests;
};

int main(int argc, char** argv) {
    Reactor<Room> reactor{Room{}};
    TcpListener listener = TcpListener::bind(argc > 1 ? argv[1] : "127.0.0.1:7001");
    std::printf("listening on %s\n", listener.local().to_string().c_str());
    std::fflush(stdout);
    reactor.listen(std::move(listener));

    auto controller = reactor.controller();
    for (std::string line; std::getline(std::cin, line) && line != "quit";) {
        if (auto answer = controller.command(line); !answer) {
            std::fprintf(stderr, "not said, the room is %s: %s\n",
                         answer.full() ? "full" : "closed", answer.take()->c_str());
        }
    }
    controller.drain(std::chrono::seconds{2});
    const Farewell farewell = reactor.join();
    std::printf("clean %d, forced %zu, unsent %zu\n", farewell.clean, farewell.forced,
                farewell.unsent_bytes);
}
