// SPDX-License-Identifier: Apache-2.0
//
// What all connections of a runtime share: the memory that is owed to peers, and the number of
// transports that there may be.

#include <reactor/poller/epoll.hpp>

#include "peers.hpp"

using namespace test;

namespace {

/// A runtime with many UNIX streams whose peers do not read.
template <class Poller>
struct Crowd {
    static constexpr std::size_t limit = 100'000;

    explicit Crowd(Shedding shedding) : party(options(shedding)) { party.service().stays = true; }

    static Options options(Shedding shedding) {
        Options options;
        options.owed_bytes = limit;
        options.shedding = shedding;
        options.auto_pause = false;
        options.gather_buffer = 1'000;
        return options;
    }
    ResourceId add() {
        Ends ends = unix_ends();
        make_small(ends.ours);
        make_small(ends.theirs);
        peers.push_back(std::move(ends.theirs));
        ids.push_back(party.add(std::move(ends.ours)));
        return ids.back();
    }
    /// Sends in a turn of its own.
    void send(ResourceId id, std::size_t bytes) {
        party.perform([&](auto& actions) { actions.send(id, std::string(bytes, 's')); });
    }
    /// What the kernel took of all that was sent to this peer.
    [[nodiscard]] std::size_t taken(std::size_t n) const {
        int bytes = 0;
        ::ioctl(peers[n].get(), FIONREAD, &bytes);
        return static_cast<std::size_t>(bytes);
    }

    Watched<Poller> party;
    std::vector<os::Fd> peers;
    std::vector<ResourceId> ids;
};

} // namespace

TEMPLATE_TEST_CASE("crowds: what is owed to all together is bounded: the send that does not fit "
                   "comes back whole",
                   "", EpollPoller, PollPoller) {
    Crowd<TestType> crowd(Shedding::give_back);
    std::size_t owed = 0;
    std::size_t returned = 0;
    for (std::size_t n = 0; n < 20; ++n) {
        const ResourceId id = crowd.add();
        crowd.send(id, 10'000);
        if (crowd.party.heard(id).trace == "s") {
            ++returned;
            REQUIRE(crowd.party.heard(id).returned.size() == 1);
            CHECK(crowd.party.heard(id).returned[0].size() == 10'000);
            CHECK(crowd.party.heard(id).code == std::errc::no_buffer_space);
            CHECK(crowd.taken(n) == 0);
        } else {
            CHECK(crowd.party.heard(id).trace.empty());
            owed += 10'000 - crowd.taken(n);
        }
    }
    CHECK(returned > 0);
    CHECK(owed <= crowd.limit);
    CHECK((20 - returned) * 10'000 + 10'000 > crowd.limit); // a buffer counts whole
    // As soon as one peer reads, or leaves, there is room again.
    Reader reader;
    REQUIRE(crowd.party.read_until(crowd.peers[0], reader, 10'000));
    crowd.send(crowd.ids[0], 5'000);
    CHECK(crowd.party.heard(crowd.ids[0]).trace.empty());
    crowd.party.perform([&](auto& actions) { actions.unregister_transport(crowd.ids[1]); });
    crowd.send(crowd.ids[19], 5'000);
    CHECK(crowd.party.heard(crowd.ids[19]).trace == "s");
}

TEMPLATE_TEST_CASE("crowds: the bound holds for all sends of one turn together", "", EpollPoller,
                   PollPoller) {
    Crowd<TestType> crowd(Shedding::give_back);
    for (int n = 0; n < 20; ++n) {
        crowd.add();
    }
    const Buffer shared{std::string(10'000, 's')};
    crowd.party.perform([&](auto& actions) {
        for (const ResourceId id : crowd.ids) {
            actions.send(id, shared);
            actions.send(id, std::string(5'000, 't'));
        }
    });
    std::size_t owed = 0;
    std::size_t sent = 0;
    for (std::size_t n = 0; n < 20; ++n) {
        std::size_t whole = 15'000;
        for (const Buffer& back : crowd.party.heard(crowd.ids[n]).returned) {
            whole -= back.size();
        }
        sent += whole;
        owed += whole - crowd.taken(n);
    }
    CHECK(owed <= crowd.limit + 1'000); // and what one turn gathers
    CHECK(sent > crowd.limit / 2);
}

TEMPLATE_TEST_CASE("crowds: those that owe most leave, if so chosen, and are told what was lost",
                   "", EpollPoller, PollPoller) {
    Crowd<TestType> crowd(Shedding::end_largest);
    const ResourceId large = crowd.add();
    crowd.send(large, 60'000);
    std::vector<ResourceId> small;
    for (int n = 0; n < 3; ++n) {
        small.push_back(crowd.add());
        crowd.send(small.back(), 10'000);
    }
    CHECK(crowd.party.heard(large).trace.empty());
    const ResourceId last = crowd.add();
    crowd.send(last, 40'000);
    CHECK(crowd.party.heard(large).trace == "x");
    CHECK(crowd.party.heard(large).code == std::errc::no_buffer_space);
    CHECK(crowd.party.heard(large).unsent == 60'000 - crowd.taken(0));
    CHECK(crowd.party.heard(large).back);
    for (const ResourceId id : small) {
        CHECK(crowd.party.heard(id).trace.empty());
    }
    CHECK(crowd.party.heard(last).trace.empty());
    CHECK(crowd.party.rests());
}

TEMPLATE_TEST_CASE("crowds: those that have owed for longest leave, if so chosen", "", EpollPoller,
                   PollPoller) {
    Crowd<TestType> crowd(Shedding::end_longest);
    const ResourceId oldest = crowd.add();
    crowd.send(oldest, 30'000);
    const ResourceId second = crowd.add();
    crowd.send(second, 30'000);
    const ResourceId newest = crowd.add();
    crowd.send(newest, 35'000);
    CHECK(crowd.party.heard(oldest).trace.empty());
    crowd.send(newest, 25'000);
    CHECK(crowd.party.heard(oldest).trace == "x");
    CHECK(crowd.party.heard(newest).trace.empty());
}

TEMPLATE_TEST_CASE("crowds: a send larger than all that may be owed sheds nobody", "", EpollPoller,
                   PollPoller) {
    Crowd<TestType> crowd(Shedding::end_largest);
    const ResourceId other = crowd.add();
    crowd.send(other, 50'000);
    const ResourceId id = crowd.add();
    crowd.send(id, crowd.limit + 1);
    CHECK(crowd.party.heard(id).trace == "s");
    CHECK(crowd.party.heard(other).trace.empty());
}

TEMPLATE_TEST_CASE("crowds: who sends to himself what only his own end makes room for, ends", "",
                   EpollPoller, PollPoller) {
    Crowd<TestType> crowd(Shedding::end_largest);
    const ResourceId id = crowd.add();
    crowd.send(id, 90'000);
    crowd.send(id, 50'000);
    CHECK(crowd.party.heard(id).trace == "bux"); // the send first, then the end
    REQUIRE(crowd.party.heard(id).returned.size() == 1);
    CHECK(crowd.party.heard(id).returned[0].size() == 50'000);
}

TEMPLATE_TEST_CASE("crowds: what is bounded is memory: a buffer of which a part was sent still "
                   "counts whole",
                   "", EpollPoller, PollPoller) {
    Crowd<TestType> crowd(Shedding::give_back);
    const ResourceId half_read = crowd.add();
    crowd.send(half_read, 90'000);
    Reader reader;
    CHECK(crowd.party.until([&] {
        reader.read(crowd.peers[0], 80'000 - reader.bytes.size());
        return reader.bytes.size() == 80'000;
    }));
    const ResourceId other = crowd.add();
    crowd.send(other, 60'000);
    CHECK(crowd.party.heard(other).trace == "s");
    // Once the rest is out there is nothing left of it.
    REQUIRE(crowd.party.read_until(crowd.peers[0], reader, 90'000));
    crowd.send(other, 60'000);
    CHECK(crowd.party.heard(other).trace == "s");
}

TEMPLATE_TEST_CASE("crowds: who sends from his drained event, turn by turn, uses up nobody's room",
                   "", EpollPoller, PollPoller) {
    // Then no turn ends with everybody at rest, and still each turn's sends are counted once.
    Options options = Crowd<TestType>::options(Shedding::give_back);
    options.gather_buffer = 1;
    Watched<TestType> party(options);
    party.service().stays = true;
    std::vector<os::Fd> peers;
    std::vector<ResourceId> ids;
    for (int n = 0; n < 8; ++n) {
        Ends ends = unix_ends();
        make_small(ends.ours);
        make_small(ends.theirs);
        peers.push_back(std::move(ends.theirs));
        ids.push_back(party.add(std::move(ends.ours),
                                StreamLimits{.high_watermark = 0, .low_watermark = 0}));
    }
    std::size_t drained = 0;
    std::size_t returned = 0;
    party.service().reaction = [&](ResourceId whose, StreamEvent& event, auto& actions) {
        if (event.drained()) {
            ++drained;
            actions.send(whose, std::string(6'000, 's'));
        }
    };
    for (const ResourceId id : ids) {
        party.perform([&](auto& actions) { actions.send(id, std::string(6'000, 's')); });
    }
    std::size_t step = 0;
    REQUIRE(party.until([&] {
        Reader reader;
        ++step;
        for (std::size_t n = 0; n < peers.size(); ++n) {
            if ((n + step) % 4 != 0) { // so that in each turn some have an event
                reader.read(peers[n]);
            }
            returned += party.heard(ids[n]).returned.size();
        }
        return drained >= 500 || returned != 0;
    }));
    CHECK(returned == 0); // 3 000 000 bytes, of which 48 000 at most were owed at once
}

// -- the number of transports ---------------------------------------------------------------------

namespace {

struct Door : Service<TcpListener, TcpStream> {
    void handle_listener_event(ResourceId, TcpListener::Event event, Actions& actions) {
        if (keeps) {
            kept.push_back(std::move(event.stream));
        } else {
            ids.push_back(actions.register_transport(std::move(event.stream)));
        }
        ++accepted;
        peers.push_back(event.peer);
    }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        if (event.eof()) {
            actions.close_write(id);
        }
    }
    void handle_error(Error error, Actions&) { errors += error.is_end() ? "x" : "?"; }
    void handover_transport(ResourceId, TcpStream, Actions&) { ++left; }

    bool keeps = false;
    std::vector<TcpStream> kept;
    std::vector<Address> peers;
    std::vector<ResourceId> ids;
    std::size_t accepted = 0;
    std::size_t left = 0;
    std::string errors;
};

} // namespace

TEMPLATE_TEST_CASE("crowds: with all transports there may be, listeners accept no more until one "
                   "has left",
                   "", EpollPoller, PollPoller) {
    Options options;
    options.transports = 5;
    options.accepts_per_turn = 100;
    Runtime<Door, TestType> runtime(Door{}, options);
    std::vector<Address> doors;
    for (int n = 0; n < 2; ++n) {
        auto listener = TcpListener::bind("127.0.0.1:0");
        doors.push_back(listener.local());
        runtime.listen(std::move(listener));
    }
    std::vector<os::Fd> clients;
    for (std::size_t n = 0; n < 12; ++n) {
        clients.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        // Ports of their own: to two listeners the kernel may give one port twice.
        const Address own = Address::loopback_ipv4(0);
        require_ok(::bind(clients.back().get(), own.data(), own.size()) == 0, "bind");
        const Address& to = doors[n % 2];
        const Calm calm; // connect(2)
        require_ok(::connect(clients.back().get(), to.data(), to.size()) == 0, "connect");
    }
    const auto settle = [&] {
        const Calm calm; // a signal may end a turn
        int waits = 0;
        for (int turns = 0; turns < 2'000 && waits < 3; ++turns) {
            const Timestamp before = os::Kernel::now();
            runtime.turn(1ms);
            waits = os::Kernel::now() - before >= 1ms ? waits + 1 : 0;
        }
        return waits == 3; // it sleeps: who waits in the kernel does not wake it
    };
    Door& door = runtime.service();
    REQUIRE(settle());
    CHECK(door.accepted == 5);
    for (std::size_t gone = 1; gone <= 7; ++gone) {
        // One of those inside leaves; somebody from outside comes in.
        const Address inside = door.peers[gone - 1];
        for (auto& client : clients) {
            const Address own = Address::filled([&](sockaddr* into, socklen_t* size) {
                ::getsockname(client.get(), into, size);
            });
            if (own == inside) {
                client.reset();
            }
        }
        REQUIRE(settle());
        CHECK(door.left == gone);
        CHECK(door.accepted == 5 + gone);
        CHECK(door.errors.empty());
    }
}

TEMPLATE_TEST_CASE("crowds: what a service keeps to itself does not count", "", EpollPoller,
                   PollPoller) {
    Options options;
    options.transports = 1;
    Runtime<Door, TestType> runtime(Door{}, options);
    runtime.service().keeps = true;
    auto listener = TcpListener::bind("127.0.0.1:0");
    const Address at = listener.local();
    runtime.listen(std::move(listener));
    std::vector<os::Fd> clients;
    for (std::size_t n = 0; n < 8; ++n) {
        clients.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const Calm calm; // connect(2)
        require_ok(::connect(clients.back().get(), at.data(), at.size()) == 0, "connect");
    }
    for (int turns = 0; turns < 1'000 && runtime.service().accepted < 8; ++turns) {
        runtime.turn(1ms);
    }
    CHECK(runtime.service().accepted == 8);
}

TEST_CASE("crowds: a promise counts until its transport has been asked, though others make new ones") {
    detail::Ledger ledger(100);
    ledger.promise(50);
    ledger.begin_pass();
    ledger.promise(20); // from within the pass: its transport has the next one
    ledger.end_pass();
    CHECK(ledger.room() == 80);
    ledger.begin_pass();
    ledger.end_pass();
    CHECK(ledger.room() == 100);
}
