// SPDX-License-Identifier: Apache-2.0
//
// A listener and all its live connections move from the loop of one thread to that of another and
// back, while bytes are under way in both directions and newcomers knock. The clients are plain
// sockets on the thread of the test. HANDOVER_CONNECTIONS: how many connections, if not 200.

#include <reactor/resource_map.hpp>

#include "peers.hpp"
#include "polling_parts.hpp"

#include <poll.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <thread>

using namespace test;

namespace {

/// What the loops tell the thread of the test while they run.
struct Traffic {
    std::atomic<std::size_t> accepted{0};
    std::atomic<std::size_t> given{0};    ///< transports that left one loop,
    std::atomic<std::size_t> arrived{0};  ///< and came to the other
    std::atomic<std::size_t> listeners{0}; ///< moves of the listener
    std::atomic<std::size_t> unsent{0};   ///< bytes that moved in the transports' own buffers
    std::atomic<std::size_t> refused{0};  ///< what the other loop did not take
    std::atomic<std::size_t> errors{0};
    std::atomic<std::size_t> blocked{0}; ///< transports that met a peer who does not read
    std::atomic<bool> over{false}; ///< what leaves now is closed
};

enum class Order { give };

/// An echo that can be told to give all it has to the other loop.
struct Ferry : Service<TcpListener, TcpStream, Order> {
    void handle_registered(ResourceId id, Role role, int, Actions& actions) {
        if (role == Role::listener) {
            listener = id;
            if (pauses_listener) {
                actions.pause(id);
            }
            return;
        }
        if (!own.contains(id)) {
            own.emplace(id);
            ++traffic->arrived;
        }
    }
    void handle_listener_event(ResourceId, TcpListener::Event event, Actions& actions) {
        ++traffic->accepted;
        own.emplace(actions.register_transport(std::move(event.stream)));
    }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        if (const auto* const data = event.data()) {
            actions.send(id, *data);
        } else if (event.eof()) {
            actions.close_write(id);
            leaving.emplace(id);
        } else if (event.blocked()) {
            ++traffic->blocked;
        }
    }
    void handle_command(Order, Actions& actions) {
        if (listener) {
            actions.unregister_listener(listener);
        }
        for (const auto& [id, nothing] : own) {
            actions.unregister_transport(id);
        }
    }
    void handover_listener(ResourceId, TcpListener gone, Actions&) {
        listener = {};
        if (traffic->over) {
            return;
        }
        ++traffic->listeners;
        traffic->refused += other.register_listener(std::move(gone)) ? 0U : 1U;
    }
    void handover_transport(ResourceId id, TcpStream gone, Actions&) {
        own.erase(id);
        // Whose both halves are closed leaves by itself, and one who has only bytes to send may
        // still be given away.
        if (traffic->over || (leaving.contains(id) && gone.unsent() == 0)) {
            leaving.erase(id);
            return;
        }
        leaving.erase(id);
        traffic->unsent += gone.unsent();
        ++traffic->given;
        traffic->refused += other.register_transport(std::move(gone)) ? 0U : 1U;
    }
    void handle_error(Error error, Actions&) {
        own.erase(error.id());
        leaving.erase(error.id());
        // Cleanly: one that was given away when it only had bytes left to send.
        traffic->errors += error.kind() == ErrorKind::ended && !error.code() ? 0U : 1U;
    }

    struct Nothing {};
    Traffic* traffic;
    typename Ferry::Service::Controller other{};
    bool pauses_listener = false;
    ResourceId listener{};
    ResourceMap<Nothing> own{};
    ResourceMap<Nothing> leaving{};

    explicit Ferry(Traffic& with) : traffic(&with) {}
};

/// Two loops, a thread each, that give to one another.
template <class Poller>
struct Banks {
    explicit Banks(const Options& options)
        : left(Ferry(traffic), options), right(Ferry(traffic), options) {
        left.service().other = right.controller();
        right.service().other = left.controller();
    }
    Banks(const Banks&) = delete;
    Banks& operator=(const Banks&) = delete;
    ~Banks() { stop(); }

    void start() {
        threads.emplace_back([this] { left.run(); });
        threads.emplace_back([this] { right.run(); });
    }
    void stop() {
        traffic.over = true;
        left.controller().shutdown();
        right.controller().shutdown();
        for (std::thread& thread : threads) {
            thread.join();
        }
        threads.clear();
    }

    Traffic traffic;
    Runtime<Ferry, Poller> left;
    Runtime<Ferry, Poller> right;
    std::vector<std::thread> threads;
};

[[nodiscard]] char byte_at(std::size_t stream, std::size_t offset) {
    std::uint64_t x = (stream << 32) + offset + 1;
    x = (x ^ (x >> 15)) * 0x9E3779B97F4A7C15U;
    return static_cast<char>(x >> 56);
}

/// A client that sends so many known bytes and wants to have the same back, then the end.
struct Client {
    Client(const Address& to, std::size_t name_, std::size_t size_, std::size_t may_send)
        : fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)),
          name(name_),
          size(size_),
          limit(may_send) {
        const int room = 16 * 1024;
        ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
        const Calm calm;
        require_ok(::connect(fd.get(), to.data(), to.size()) == 0, "connect");
        ::fcntl(fd.get(), F_SETFL, O_NONBLOCK);
    }
    [[nodiscard]] bool done() const { return is_over; }
    [[nodiscard]] short wish() const {
        return static_cast<short>((received < may_read ? POLLIN : 0) |
                                  (sent < limit ? POLLOUT : 0));
    }
    void go_on() {
        char piece[4096];
        while (sent < limit) {
            const std::size_t count = std::min(limit - sent, sizeof piece);
            for (std::size_t n = 0; n < count; ++n) {
                piece[n] = byte_at(name, sent + n);
            }
            const ssize_t taken = ::send(fd.get(), piece, count, MSG_NOSIGNAL);
            if (taken < 0) {
                failed = failed || errno != EAGAIN;
                break;
            }
            sent += static_cast<std::size_t>(taken);
        }
        if (sent == size && !shut) {
            shut = true;
            ::shutdown(fd.get(), SHUT_WR);
        }
        if (received >= may_read) {
            return;
        }
        const ssize_t got = ::recv(fd.get(), piece, sizeof piece, 0);
        if (got < 0) {
            failed = failed || errno != EAGAIN;
        } else if (got == 0) {
            failed = failed || received != size;
            is_over = true;
        }
        for (ssize_t n = 0; n < got; ++n) {
            failed = failed || piece[n] != byte_at(name, received);
            ++received;
        }
        is_over = is_over || failed;
    }

    os::Fd fd;
    std::size_t name;
    std::size_t size;
    std::size_t limit; ///< how much of it may be sent by now
    std::size_t may_read = std::numeric_limits<std::size_t>::max(); ///< no more, once it has this
    std::size_t sent = 0;
    std::size_t received = 0;
    bool shut = false;
    bool failed = false; ///< a byte too many, too few, or a wrong one; or an error
    bool is_over = false;
};

/// Lets all clients go on until this is so. False: it takes too long.
template <class Condition>
bool go_on_until(std::deque<Client>& clients, Condition condition) {
    const Timestamp end = os::Kernel::now() + 40s;
    std::vector<pollfd> polled;
    while (!condition()) {
        if (os::Kernel::now() > end) {
            return false;
        }
        polled.clear();
        for (const Client& client : clients) {
            polled.push_back({client.done() ? -1 : client.fd.get(), client.wish(), 0});
        }
        ::poll(polled.data(), polled.size(), 1);
        for (std::size_t n = 0; n < polled.size(); ++n) {
            if (polled[n].revents != 0) {
                clients[n].go_on();
            }
        }
    }
    return true;
}

[[nodiscard]] std::size_t connections_wanted() {
    const char* const text = std::getenv("HANDOVER_CONNECTIONS");
    return text == nullptr ? 200 : std::strtoul(text, nullptr, 10);
}

} // namespace

TEMPLATE_TEST_CASE("handover: a listener and its live connections move between threads, and no "
                   "byte is lost or reordered",
                   "", EpollPoller, PollPoller) {
    const std::size_t connections = connections_wanted();
    constexpr std::size_t size = 256 * 1024;
    constexpr std::size_t newcomer_size = 1000;
    constexpr std::size_t moves = 4;
    const std::size_t descriptors = open_descriptors();
    {
        Options options;
        options.stream.high_watermark = 16 * 1024;
        options.stream.low_watermark = 4 * 1024;
        Banks<TestType> banks(options);
        Traffic& traffic = banks.traffic;
        ListenOptions listen;
        listen.tcp.send_buffer = 16 * 1024;
        auto listener = TcpListener::bind("127.0.0.1:0", listen);
        const Address at = listener.local();
        banks.left.listen(std::move(listener));
        banks.start();

        // The last eighth is sent when all moves are made: so all live through all of them. Every
        // tenth client reads nothing until then but its first bytes, so that there is always
        // something that the kernel does not take.
        constexpr std::size_t at_first = size - size / 8;
        const std::size_t lazy = (connections + 9) / 10;
        std::deque<Client> clients;
        for (std::size_t n = 0; n < connections; ++n) {
            clients.emplace_back(at, n, size, at_first);
            clients[n].may_read = n % 10 == 0 ? 1 : clients[n].may_read;
        }
        const auto progress = [&] {
            std::size_t bytes = 0;
            for (std::size_t n = 0; n < connections; ++n) {
                bytes += clients[n].received;
            }
            return bytes;
        };
        REQUIRE(go_on_until(clients, [&] {
            return traffic.blocked >= lazy &&
                   std::all_of(clients.begin(), clients.end(),
                               [](const Client& client) { return client.received > 0; });
        }));

        bool in_time = true;
        for (std::size_t move = 0; move < moves && in_time; ++move) {
            const std::size_t given_before = traffic.given;
            auto& from = move % 2 == 0 ? banks.left : banks.right;
            REQUIRE(from.controller().command(Order::give));
            // Newcomers, all the while; nobody knows which loop will have them.
            const std::size_t enough =
                (connections - lazy) * at_first * (move + 1) / (moves + 1);
            std::size_t to_come = std::max<std::size_t>(connections / moves, 1);
            in_time = go_on_until(clients, [&] {
                if (to_come > 0) {
                    --to_come;
                    clients.emplace_back(at, clients.size(), newcomer_size, newcomer_size);
                }
                return to_come == 0 && progress() >= enough &&
                       traffic.listeners == move + 1 &&
                       traffic.given >= given_before + connections &&
                       traffic.arrived == traffic.given;
            });
        }
        CHECK(in_time);
        for (std::size_t n = 0; n < connections; ++n) {
            clients[n].limit = size;
            clients[n].may_read = std::numeric_limits<std::size_t>::max();
        }
        CHECK(go_on_until(clients, [&] {
            return std::all_of(clients.begin(), clients.end(),
                               [](const Client& client) { return client.done(); });
        }));
        banks.stop();

        CHECK(std::none_of(clients.begin(), clients.end(),
                           [](const Client& client) { return client.failed; }));
        CHECK(progress() == connections * size);
        CHECK(traffic.accepted == clients.size());
        CHECK(traffic.given >= moves * connections);
        CHECK(traffic.arrived == traffic.given);
        CHECK(traffic.unsent >= moves * lazy);
        CHECK(traffic.refused == 0);
        CHECK(traffic.errors == 0);
        if (std::getenv("HANDOVER_CONNECTIONS") != nullptr) {
            std::printf("handover: %zu connections of %zu bytes each way, %zu newcomers, %zu moves "
                        "with %zu transports and %zu unsent bytes in their buffers\n",
                        connections, size, clients.size() - connections, moves,
                        traffic.given.load(), traffic.unsent.load());
        }
    }
    CHECK(open_descriptors() == descriptors);
}

TEMPLATE_TEST_CASE("handover: who waits in a listener to be accepted moves with it", "",
                   EpollPoller, PollPoller) {
    constexpr std::size_t waiting = 50;
    Banks<TestType> banks({});
    banks.left.service().pauses_listener = true;
    auto listener = TcpListener::bind("127.0.0.1:0");
    const Address at = listener.local();
    banks.left.listen(std::move(listener));
    banks.start();
    std::deque<Client> clients;
    for (std::size_t n = 0; n < waiting; ++n) {
        clients.emplace_back(at, n, 100, 100);
    }
    REQUIRE(banks.left.controller().command(Order::give));
    CHECK(go_on_until(clients, [&] {
        return std::all_of(clients.begin(), clients.end(),
                           [](const Client& client) { return client.done(); });
    }));
    banks.stop();
    CHECK(std::none_of(clients.begin(), clients.end(),
                       [](const Client& client) { return client.failed; }));
    CHECK(banks.traffic.accepted == waiting);
    CHECK(banks.traffic.listeners == 1);
    CHECK(banks.traffic.errors == 0);
}
