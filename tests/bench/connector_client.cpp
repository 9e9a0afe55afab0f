// SPDX-License-Identifier: Apache-2.0
//
// connector_client epoll|poll MILLISECONDS ANSWERING ADDRESS...
//
// Listens on ANSWERING, connects to the addresses in the order of TcpConnector, and says what came
// of it: each event with its peer, the end with its errno, the time from the connect to whichever
// came first, and how many descriptors are open at last besides those from before. For
// happy_eyeballs.sh.
#include <reactor/net/connector.hpp>
#include <reactor/poller/epoll.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/runtime.hpp>

#include <cstdio>
#include <filesystem>
#include <iterator>
#include <string>
#include <vector>

using namespace reactor;

namespace {

long open_descriptors() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
}

struct Client : Service<TcpConnector, TcpStream> {
    void handle_listener_event(ResourceId, TcpConnector::Event event, Actions& actions) {
        note_time();
        std::printf("event %s\n", event.peer.to_string().c_str());
        actions.register_transport(std::move(event.stream));
    }
    void handle_transport_event(ResourceId, TcpStream::Event, Actions&) {}
    void handle_error(Error error, Actions&) {
        note_time();
        std::printf("end %d\n", error.code().value());
        ended = true;
    }
    void note_time() {
        if (took == Duration::zero()) {
            took = os::Kernel::now() - begun;
        }
    }

    Timestamp begun{};
    Duration took{};
    bool ended = false;
};

template <class Poller>
int connect(Duration deadline, const std::vector<Address>& addresses) {
    Runtime<Client, Poller> runtime{Client{}};
    const long before = open_descriptors();
    runtime.service().begun = os::Kernel::now();
    runtime.listen(TcpConnector::connect(addresses, deadline));
    while (!runtime.service().ended) {
        runtime.turn(Duration::max());
    }
    const Timestamp later = os::Kernel::now() + std::chrono::milliseconds{300};
    while (os::Kernel::now() < later) { // a second event would come by now
        runtime.turn(std::chrono::milliseconds{50});
    }
    std::printf("milliseconds %lld\n",
                static_cast<long long>(
                    std::chrono::floor<std::chrono::milliseconds>(runtime.service().took).count()));
    std::printf("descriptors %ld\n", open_descriptors() - before);
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> words(argv + 1, argv + argc);
    if (words.size() < 4 || (words[0] != "epoll" && words[0] != "poll")) {
        std::fputs("usage: connector_client epoll|poll MILLISECONDS ANSWERING ADDRESS...\n",
                   stderr);
        return 2;
    }
    try {
        const TcpListener answering = TcpListener::bind(words[2]);
        std::vector<Address> addresses;
        for (std::size_t n = 3; n < words.size(); ++n) {
            addresses.push_back(Address::parse(words[n]));
        }
        const Duration deadline = std::chrono::milliseconds{std::stol(words[1])};
        return words[0] == "poll" ? connect<PollPoller>(deadline, addresses)
                                  : connect<EpollPoller>(deadline, addresses);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "connector_client: %s\n", error.what());
        return 1;
    }
}
