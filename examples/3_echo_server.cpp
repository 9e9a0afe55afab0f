// SPDX-License-Identifier: Apache-2.0
//
// 3 of 8: the README's first sample with an address on the command line.
//
//     3_echo_server [ADDRESS]          default 127.0.0.1:7000; port 0: the kernel chooses
//     ncat 127.0.0.1 7000
//
// What a client sends comes back. A client that does not read stops being read once more than the
// high watermark waits for it: back-pressure costs no line here.
#include <reactor/net/tcp.hpp>
#include <reactor/reactor.hpp>

#include <cstdio>

using namespace reactor;

struct Echo : Service<TcpListener, TcpStream> {
    void handle_listener_event(ResourceId, TcpListener::Event accepted, Actions& actions) {
        actions.register_transport(std::move(accepted.stream));
    }

    void handle_transport_event(ResourceId id, TcpStream::Event event, Actions& actions) {
        if (auto* bytes = event.data()) {
            actions.send(id, *bytes);
        } else if (event.eof()) {
            actions.close_write(id); // send what is left, then leave
        }
    }
};

int main(int argc, char** argv) {
    raise_descriptor_limit();
    Reactor<Echo> reactor{Echo{}};
    TcpListener listener = TcpListener::bind(argc > 1 ? argv[1] : "127.0.0.1:7000");
    std::printf("listening on %s\n", listener.local().to_string().c_str());
    std::fflush(stdout);
    reactor.listen(std::move(listener));
    reactor.join_until_signal();
}
