// SPDX-License-Identifier: Apache-2.0
//
// The server of tests/load.sh: one loop, one door (a listener) for each kind of service.
//
//   lines     answers each line with itself
//   push      sends everybody --push bytes at once, and nothing else
//   states    does what a client's letter says, see below, and leaves the connection so
//   distant   as states; the connections have deadlines that are far away
//   read      as lines; at least 64 bytes within --deadline
//   exchange  as lines; an answer must have left within --deadline of a line's first byte
//   idle      as lines; nobody may be silent for --deadline
//
// Says "NAME listening on 127.0.0.1:PORT" for each, "trouble CODE" as often as it is told of it,
// its counts at SIGUSR1 and at its end, which comes with SIGTERM.
#include <reactor/net/tcp.hpp>
#include <reactor/reactor.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

using namespace reactor;

namespace {

enum class Door : char { lines, push, states };

struct Counts {
    std::size_t live = 0;
    std::size_t accepted = 0;
    std::size_t ended = 0;     ///< by themselves, cleanly or with an error
    std::size_t timed_out = 0; ///< of these, by a deadline
    std::size_t shed = 0;      ///< of these, to make room
    std::size_t handed_over = 0;
    std::size_t returned = 0; ///< sends that came back
    std::size_t trouble = 0;
    std::size_t other_errors = 0;

    void print() const {
        std::printf("counts: live=%zu accepted=%zu ended=%zu timed_out=%zu shed=%zu "
                    "handed_over=%zu returned=%zu trouble=%zu other_errors=%zu\n",
                    live, accepted, ended, timed_out, shed, handed_over, returned, trouble,
                    other_errors);
        std::fflush(stdout);
    }
};

volatile std::sig_atomic_t end_wanted = 0;
volatile std::sig_atomic_t counts_wanted = 0;

struct Crowd : Service<TcpListener, TcpStream> {
    struct Client {
        Door door = Door::lines;
        std::string line;
    };

    void tick(Actions& actions) {
        if (counts_wanted != 0) {
            counts_wanted = 0;
            counts.print();
        }
        if (end_wanted != 0) {
            actions.shutdown();
        }
    }
    void handle_listener_event(ResourceId listener, TcpListener::Event accepted, Actions& actions) {
        ++counts.accepted;
        const auto id = actions.register_transport(std::move(accepted.stream));
        if (!id) {
            ++counts.other_errors;
            return;
        }
        ++counts.live;
        Door door = Door::lines;
        for (const auto& [known, its_door] : doors) {
            door = known == listener ? its_door : door;
        }
        clients.emplace(id, Client{door, {}});
        if (door == Door::push) {
            owed.push_back(id);
            actions.send(id, pushed);
        }
    }
    void handle_transport_event(ResourceId id, TcpStream::Event event, Actions& actions) {
        Client& client = *clients.find(id);
        if (client.door == Door::states) {
            if (const auto* const bytes = event.data()) {
                take_letter(id, static_cast<char>(bytes->front()), actions);
            }
        } else if (event.eof()) {
            actions.close_write(id);
        } else if (const auto* const bytes = event.data(); bytes && client.door == Door::lines) {
            answer(id, client, *bytes, actions);
        }
    }
    void handle_error(Error error, Actions& actions) {
        if (error.is_end()) {
            leave(error.id());
            ++counts.ended;
            counts.timed_out += error.code() == std::errc::timed_out ? 1U : 0U;
            counts.shed += error.kind() == ErrorKind::shed ? 1U : 0U;
        } else if (error.kind() == ErrorKind::send_returned) {
            ++counts.returned;
            make_room(error, actions);
        } else if (error.kind() == ErrorKind::trouble) {
            ++counts.trouble;
            std::printf("trouble %d\n", error.code().value());
            std::fflush(stdout);
        } else if (error.kind() != ErrorKind::unknown_id) {
            ++counts.other_errors;
        }
    }
    void handover_transport(ResourceId id, TcpStream, Actions&) {
        leave(id);
        ++counts.handed_over;
    }

    /// Shedding::give_back, which leaves it to the service whom it would rather serve: who is
    /// pushed to gets nothing, and stays; for an answer, one of them has to go.
    void make_room(Error& error, Actions& actions) {
        const Client* const client = clients.find(error.id());
        if (client == nullptr) {
            return;
        }
        if (client->door == Door::push) {
            std::erase(owed, error.id());
            return;
        }
        while (!owed.empty() && !clients.contains(owed.back())) {
            owed.pop_back();
        }
        if (!owed.empty()) {
            actions.unregister_transport(owed.back());
            owed.pop_back();
            actions.send(error.id(), error.take_payload());
        }
    }
    void leave(ResourceId id) {
        clients.erase(id);
        --counts.live;
    }
    void answer(ResourceId id, Client& client, std::span<const std::byte> bytes, Actions& actions) {
        std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        for (auto at = text.find('\n'); at != text.npos; at = text.find('\n')) {
            client.line += text.substr(0, at + 1);
            actions.send(id, client.line);
            client.line.clear();
            text.remove_prefix(at + 1);
        }
        client.line += text;
    }
    /// i: as it is; w: our half ends; p: is not read any more; P: both of these; b: is sent more
    /// than it will take; B: and is not read any more.
    void take_letter(ResourceId id, char letter, Actions& actions) {
        actions.send(id, std::string_view("k"));
        if (letter == 'b' || letter == 'B') {
            actions.send(id, pushed);
        }
        if (letter == 'w' || letter == 'P') {
            actions.close_write(id);
        }
        if (letter == 'p' || letter == 'P' || letter == 'B') {
            actions.pause(id);
        }
    }

    Counts& counts;
    std::string pushed;
    std::vector<std::pair<ResourceId, Door>> doors{};
    ResourceMap<Client> clients{};
    std::vector<ResourceId> owed{}; ///< who was pushed to, perhaps gone by now

    Crowd(Counts& in, std::size_t push) : counts(in), pushed(push, 'p') {}
};

Runtime<Crowd>::Controller* waker = nullptr;

void on_signal(int signal) {
    (signal == SIGTERM ? end_wanted : counts_wanted) = 1;
    waker->wake();
}

} // namespace

// server [--push BYTES] [--owed BYTES] [--shedding NAME] [--send-buffer BYTES] [--deadline SECONDS]
int main(int count, char** arguments) {
    std::size_t push = 100'000;
    Options options;
    ListenOptions listen;
    Duration deadline = std::chrono::seconds{3};
    for (int n = 1; n + 1 < count; n += 2) {
        const std::string_view name = arguments[n];
        const std::string_view text = arguments[n + 1];
        const auto number = std::strtoul(arguments[n + 1], nullptr, 10);
        if (name == "--push") {
            push = number;
        } else if (name == "--owed") {
            options.owed_bytes = number;
        } else if (name == "--shedding" && text == "end_largest") {
            options.shedding = Shedding::end_largest;
        } else if (name == "--shedding" && text == "end_longest") {
            options.shedding = Shedding::end_longest;
        } else if (name == "--shedding" && text == "give_back") {
            options.shedding = Shedding::give_back;
        } else if (name == "--send-buffer") {
            listen.tcp.send_buffer = static_cast<int>(number);
        } else if (name == "--deadline") {
            deadline = std::chrono::seconds{number};
        } else {
            std::fprintf(stderr, "server: what is %s %s?\n", arguments[n], arguments[n + 1]);
            return 2;
        }
    }
    raise_descriptor_limit();
    Counts counts;
    Runtime<Crowd> runtime(Crowd(counts, push), options);
    const auto open = [&](const char* name, Door door, const StreamDeadlines& deadlines) {
        ListenOptions own = listen;
        own.deadlines = deadlines;
        auto listener = TcpListener::bind("127.0.0.1:0", own);
        std::printf("%s listening on %s\n", name, listener.local().to_string().c_str());
        runtime.service().doors.emplace_back(runtime.listen(std::move(listener)), door);
    };
    constexpr Duration far = std::chrono::hours{1};
    open("lines", Door::lines, {});
    open("push", Door::push, {});
    open("states", Door::states, {});
    open("distant", Door::states, {.idle = far, .read = far, .write = far, .exchange = far});
    open("read", Door::lines, {.read = deadline, .read_bytes = 64});
    open("exchange", Door::lines, {.exchange = deadline});
    open("idle", Door::lines, {.idle = deadline});
    std::printf("ready\n");
    std::fflush(stdout);

    auto controller = runtime.controller();
    waker = &controller;
    std::signal(SIGTERM, on_signal);
    std::signal(SIGUSR1, on_signal);
    runtime.run();
    counts.print();
}
