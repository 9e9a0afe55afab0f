// SPDX-License-Identifier: Apache-2.0
//
// 8 of 8: how to test a service in a storm: the production loop, poller and TCP streams on a kernel
// that is simulated, with a network that is late, breaks messages in pieces and cuts connections.
// A seed is a whole history; one that fails will fail again, call by call.
//
// The service keeps words: "set KEY VALUE" is answered with "ok", "get KEY" with the value. One of
// the two below has a bug that no test on a good network finds: it takes what one read brings for
// whole lines.
//
//     8_in_a_storm           searches, finds the bug, and shows that the other one has none
//     8_in_a_storm SEED      replays the history of that seed, with every call
#include <reactor/net/tcp.hpp>
#include <reactor/reactor.hpp>
#include <reactor/sim/peer.hpp>
#include <reactor/sim/runtime.hpp>
#include <reactor/sim/storm.hpp>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>

using namespace reactor;
using namespace std::chrono_literals;

/// A service that is a template over the kernel runs on both: Store<> is what the program uses.
template <bool keeps_rest, class Kernel = os::Kernel>
struct Store : Service<BasicTcpListener<Kernel>, BasicTcpStream<Kernel>> {
    using typename Store::Service::Actions;
    using typename Store::Service::Error;

    void handle_listener_event(ResourceId, typename BasicTcpListener<Kernel>::Event client,
                               Actions& actions) {
        actions.register_transport(std::move(client.stream));
    }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        if (const auto* const bytes = event.data()) {
            std::string& begun = unfinished[id];
            begun += text_of(*bytes);
            std::size_t end;
            while ((end = begun.find('\n')) != std::string::npos) {
                actions.send(id, answer(begun.substr(0, end)));
                begun.erase(0, end + 1);
            }
            if (!keeps_rest) {
                begun.clear(); // the bug: the beginning of a line that is still on its way
            }
        } else if (event.eof()) {
            actions.close_write(id);
        }
    }
    void handover_transport(ResourceId id, BasicTcpStream<Kernel>, Actions&) {
        unfinished.erase(id);
    }
    void handle_error(Error error, Actions& actions) {
        unfinished.erase(error.id());
        if (error.kind() == ErrorKind::send_returned) {
            actions.unregister_transport(error.id());
        }
    }

    std::string answer(const std::string& line) {
        const std::size_t key = line.find(' ') + 1;
        const std::size_t value = line.find(' ', key) + 1;
        if (line.starts_with("set ") && value != 0) {
            words[line.substr(key, value - key - 1)] = line.substr(value);
            return "ok\n";
        }
        if (line.starts_with("get ")) {
            return words[line.substr(key)] + "\n";
        }
        return "what?\n";
    }

    std::map<std::string, std::string> words;
    std::map<ResourceId, std::string> unfinished;
};
static_assert(Handler<Store<true>>);

/// The one without the bug.
template <class Kernel = os::Kernel>
using Words = Store<true, Kernel>;

namespace {

// The README's sample: the smallest test in a storm.
void scenario(sim::World& world) {
    sim::Runtime<Words<sim::Kernel>> runtime{Words<sim::Kernel>{}};
    runtime.listen(BasicTcpListener<sim::Kernel>::bind("127.0.0.1:7000"));
    sim::Peer ada(world, "Ada");
    ada.connect("127.0.0.1:7000").send("set a 1\nget a\n").expect("ok\n1\n").close();
    if (!world.run_until([&] { return ada.is_done(); }, 10min)) {
        world.fail("no answer");
    }
}

bool holds_in_a_storm() {
    const auto found = sim::search(1, 1000, sim::Weather::drizzle(), scenario);
    if (found) {
        std::puts(found->to_string().c_str()); // the last calls, the seed, what was wrong
    }
    return !found;
}
// The sample ends here.

/// Some clients, each with words of its own, talk to the service until all have said everything.
template <bool keeps_rest>
void talk(sim::World& world) {
    using Trial = Store<keeps_rest, sim::Kernel>;
    sim::Runtime<Trial> runtime{Trial{}};
    runtime.listen(BasicTcpListener<sim::Kernel>::bind("127.0.0.1:7000"));

    std::vector<std::unique_ptr<sim::Peer>> clients;
    for (int n = 0; n < 4; ++n) {
        const std::string name = "client" + std::to_string(n);
        sim::Peer& client = *clients.emplace_back(std::make_unique<sim::Peer>(world, name));
        client.pause(world.random.between(1ms, 50ms)).connect("127.0.0.1:7000");
        for (int round = 0; round < 5; ++round) {
            const std::string value(world.random.between(std::size_t{1}, std::size_t{30}), 'a');
            client.send("set " + name + " " + value + "\n" + "get " + name + "\n");
            client.expect("ok\n" + value + "\n");
        }
        client.shut().expect_end().may_fail(); // the network may cut it off: no fault of ours
    }
    const auto all_are_done = [&] {
        for (const auto& client : clients) {
            if (!client->is_done()) {
                return false;
            }
        }
        return true;
    };
    if (!world.run_until(all_are_done, 10min) && world.failure().empty()) {
        world.fail("somebody still waits for an answer");
    }
}

} // namespace

int main(int argc, char** argv) {
    const sim::Weather weather = sim::Weather::drizzle(); // late and in pieces; nothing is cut
    if (argc > 1) {
        std::puts(sim::replay(std::strtoull(argv[1], nullptr, 10), weather, talk<false>, 100'000)
                      .to_string()
                      .c_str());
        return 0;
    }
    const auto found = sim::search(1, 1000, weather, talk<false>);
    if (!found) {
        std::puts("FAILED: 1000 seeds, and the bug was not found");
        return 1;
    }
    std::printf("found: %s", found->to_string().c_str());
    if (!holds_in_a_storm()) {
        return 1;
    }
    if (const auto wrong = sim::search(1, 1000, weather, talk<true>)) {
        std::printf("FAILED: the service without the bug: %s", wrong->to_string().c_str());
        return 1;
    }
    std::puts("ok: the service that keeps the rest of a line answers right under 1000 seeds");
    return 0;
}
