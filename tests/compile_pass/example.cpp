// SPDX-License-Identifier: Apache-2.0
//
// The shortest server there is.
#include <reactor/reactor.hpp>
#include <reactor/net/tcp.hpp>
using namespace reactor;

struct Echo : Service<TcpListener, TcpStream> {
    void handle_listener_event(ResourceId, TcpListener::Event accepted, Actions& actions) {
        actions.register_transport(std::move(accepted.stream));
    }

    void handle_transport_event(ResourceId id, TcpStream::Event event, Actions& actions) {
        if (auto* bytes = event.data()) actions.send(id, *bytes);
        else if (event.eof())           actions.close_write(id);   // send what is left, then leave
    }
};

int main() {
    Reactor<Echo> reactor{Echo{}};
    reactor.listen(TcpListener::bind("127.0.0.1:7000"));
    reactor.join_until_signal();                        // SIGINT or SIGTERM: a clean stop, exit status 0
}
