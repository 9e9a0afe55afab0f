// SPDX-License-Identifier: Apache-2.0
//
// The same script, four times: epoll and poll, on Linux and on the simulated kernel. What the
// service is told about each connection is the same, line by line (I19).
//
// A script is drawn from a seed and uses only what is deterministic on all of them: connections
// whose other ends the test holds, few bytes at a time, timers that are due already, and turns that
// do not wait until nothing is left to do. Between connections no order is promised, so each has
// its own lines; timers, commands and the end have theirs.
#include "catch.hpp"

#include <reactor/net/stream.hpp>
#include <reactor/net/tcp.hpp>
#include <reactor/runtime.hpp>
#include <reactor/sim/runtime.hpp>

#include <cstdlib>
#include <map>
#include <string>

using namespace reactor;
using namespace std::chrono_literals;

namespace {

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* const text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

/// Lines by whom they are about.
using Lines = std::map<std::string, std::vector<std::string>>;

/// What the service is to do when it is next called back.
struct Wish {
    enum class Kind : std::uint8_t {
        send,
        pause,
        resume,
        close_write,
        unregister,
        set_timers,
        cancel_timers,
        shutdown,
        drain,
    };
    Kind kind;
    std::size_t who;
    std::size_t count;
};

/// Writes down what it is told; its state is shared with the script.
template <class Kernel>
struct Scribe : Service<BasicTcpListener<Kernel>, BasicTcpStream<Kernel>, int> {
    using Base = Service<BasicTcpListener<Kernel>, BasicTcpStream<Kernel>, int>;
    using typename Base::Actions;
    using typename Base::Error;
    using typename Base::Listener;
    using typename Base::Transport;

    struct Book {
        Lines lines;
        std::map<ResourceId, std::size_t> numbers; ///< of connections, as they were registered
        std::vector<ResourceId> ids;
        std::map<int, std::size_t> by_descriptor;
        std::vector<Wish> wishes;
        std::vector<TimerId> timers;
        std::map<TimerId, std::size_t> timer_numbers;
        std::size_t next_timer = 0;

        void note(const std::string& about, std::string line) {
            lines[about].push_back(std::move(line));
        }
    };
    explicit Scribe(Book& in) : book(&in) {}

    void tick(Actions& actions) {
        for (const Wish& wish : std::exchange(book->wishes, {})) {
            grant(wish, actions);
        }
    }
    void handle_timer(TimerId id, Actions&) {
        book->note("timers", std::to_string(book->timer_numbers[id]));
    }
    void handle_command(int command, Actions&) {
        book->note("commands", std::to_string(command));
    }
    void handle_listener_event(ResourceId, typename Listener::Event, Actions&) {}
    void handle_registered(ResourceId id, Role, int fd, Actions&) {
        const std::size_t number = book->by_descriptor[fd];
        book->numbers[id] = number;
        book->ids[number] = id;
        note(id, "registered");
    }
    void handle_transport_event(ResourceId id, typename Transport::Event event, Actions& actions) {
        if (const auto* const bytes = event.data()) {
            note(id, "data " + std::string(text_of(*bytes)));
            if (text_of(*bytes).find('!') != std::string_view::npos) { // an answer, from within
                actions.send(id, "answer");
            }
        } else {
            note(id, event.eof() ? "eof" : event.blocked() ? "blocked" : "drained");
        }
    }
    void handle_error(Error error, Actions&) {
        std::string line = "error " + std::to_string(static_cast<int>(error.kind())) + " " +
                           std::to_string(error.code().value()) + " " +
                           std::to_string(error.unsent());
        line += " " + std::string(text_of(error.take_payload().bytes()));
        note(error.id(), line);
    }
    void handover_transport(ResourceId id, Transport stream, Actions& actions) {
        note(id, "leaves " + std::to_string(stream.unsent()));
        if (!stream.ended() && book->numbers[id] % 2 == 0) { // every other one comes back
            actions.register_transport(std::move(stream));
        }
    }
    void handle_drain(Timestamp, Actions& actions) {
        book->note("end", "drain");
        for (const auto& [id, number] : book->numbers) {
            actions.close_write(id);
        }
    }

    void note(ResourceId id, std::string line) {
        book->note("connection " + std::to_string(book->numbers[id]), std::move(line));
    }
    void grant(const Wish& wish, Actions& actions) {
        const ResourceId id = book->ids[wish.who];
        switch (wish.kind) {
        case Wish::Kind::send:
            actions.send(id, std::string(wish.count, static_cast<char>('a' + wish.who)));
            break;
        case Wish::Kind::pause:
            actions.pause(id);
            break;
        case Wish::Kind::resume:
            actions.resume(id);
            break;
        case Wish::Kind::close_write:
            actions.close_write(id);
            break;
        case Wish::Kind::unregister:
            actions.unregister_transport(id);
            break;
        case Wish::Kind::set_timers:
            for (std::size_t n = 0; n < wish.count; ++n) { // due, the later ones first
                const auto before = Duration{std::chrono::seconds{1 + (n * 5) % 3}};
                const TimerId timer = actions.set_timer_at(Timestamp{} + before);
                book->timers.push_back(timer);
                book->timer_numbers[timer] = book->next_timer++;
            }
            break;
        case Wish::Kind::cancel_timers:
            for (const TimerId timer : std::exchange(book->timers, {})) {
                book->note("timers", actions.cancel_timer(timer) ? "cancelled" : "gone");
            }
            break;
        case Wish::Kind::shutdown:
            actions.shutdown();
            break;
        case Wish::Kind::drain:
            actions.drain(1h);
            break;
        }
    }

    Book* book;
};

/// One performance of a script.
template <class PollerType>
class Play {
    using Kernel = typename PollerType::Kernel;
    using Service = Scribe<Kernel>;
    using Stream = BasicTcpStream<Kernel>;
    static constexpr std::size_t connections = 4;

  public:
    explicit Play(std::uint64_t seed) : random(seed) {}
    ~Play() {
        for (const int fd : others) {
            if (fd >= 0) {
                Kernel::close(fd);
            }
        }
    }

    Lines run() {
        Options options;
        options.events_per_wait = random.between(std::size_t{1}, std::size_t{4});
        options.events_per_resource = random.between(std::size_t{1}, std::size_t{3});
        options.timers_per_turn = random.between(std::size_t{1}, std::size_t{3});
        options.commands_per_turn = random.between(std::size_t{1}, std::size_t{3});
        options.read_buffer = random.between(std::size_t{1}, std::size_t{50});
        options.stream = {400, 100, 1000};
        book.ids.resize(connections);
        perform(options);
        for (std::size_t n = 0; n < connections; ++n) {
            listen_to(n, 10s);
            book.note("heard from " + std::to_string(n), heard[n]);
        }
        return std::move(book.lines);
    }

  private:
    void perform(const Options& options) {
        Runtime<Service, PollerType> runtime(Service(book), options);
        controller = runtime.controller();
        for (std::size_t n = 0; n < connections; ++n) {
            connect(n);
        }
        settle(runtime);
        bool goes_on = true;
        for (int n = 0; n < 30 && goes_on; ++n) {
            step(n == 29);
            goes_on = settle(runtime);
            if (n == 29 && goes_on) {
                controller.shutdown();
                settle(runtime);
            }
        }
        const Farewell farewell = runtime.farewell();
        book.note("end", std::to_string(farewell.forced) + " forced, " +
                             std::to_string(farewell.unsent_bytes) + " unsent");
        controller = {};
    }
    /// A pair of UNIX sockets, or a TCP connection over loopback.
    void connect(std::size_t number) {
        int ours = -1;
        if (number % 2 == 0) {
            Kernel::stream_pair(ours, others[number]);
        } else {
            connect_by_tcp(ours, others[number]);
        }
        // A UNIX socket takes no options of TCP: it is given as from accept4.
        Stream stream(os::BasicFd<Kernel>(ours), detail::Accepted{});
        book.by_descriptor[ours] = number;
        mine[number] = ours;
        controller.register_transport(std::move(stream));
    }
    static void connect_by_tcp(int& ours, int& theirs) {
        const Address any = Address::loopback_ipv4(0);
        const os::BasicFd<Kernel> listener(Kernel::stream_socket(AF_INET).fd());
        Kernel::bind(listener.get(), any.data(), any.size());
        Kernel::listen(listener.get(), 1);
        const Address at = Address::filled([&](sockaddr* name, socklen_t* size) {
            return Kernel::local_name(listener.get(), name, size);
        });
        theirs = Kernel::stream_socket(AF_INET).fd();
        Kernel::set_option(theirs, IPPROTO_TCP, TCP_NODELAY, 1);
        Kernel::connect(theirs, at.data(), at.size());
        await(listener.get(), POLLIN);
        ours = Kernel::accept(listener.get(), nullptr, nullptr).fd();
        Kernel::set_option(ours, IPPROTO_TCP, TCP_NODELAY, 1);
        await(theirs, POLLOUT);
    }
    static void await(int fd, short events, Duration patience = 10s) {
        pollfd waiting{fd, events, 0};
        if (fd >= 0 && patience != Duration::zero()) {
            Kernel::poll({&waiting, 1}, patience);
        }
    }

    void step(bool last) {
        const auto who = static_cast<std::size_t>(random.below(connections));
        const std::size_t count = random.between(std::size_t{1}, std::size_t{60});
        using Kind = Wish::Kind;
        switch (random.below(last ? 1 : 14)) {
        case 0:
            book.wishes.push_back({random.chance(0.5) ? Kind::drain : Kind::shutdown, who, 0});
            if (!last && random.chance(0.9)) { // seldom as early as this
                book.wishes.back().kind = Kind::resume;
            }
            break;
        case 1:
        case 2:
        case 3:
            speak(who, count);
            break;
        case 4:
            half_close(who);
            break;
        case 5:
            close(who);
            break;
        case 6:
            for (std::size_t n = 0; n < count / 8; ++n) {
                static_cast<void>(controller.command(++commands));
            }
            break;
        case 7:
            book.wishes.push_back({Kind::set_timers, who, count / 8});
            if (random.chance(0.3)) {
                book.wishes.push_back({Kind::cancel_timers, who, 0});
            }
            break;
        case 8:
            book.wishes.push_back({Kind::pause, who, 0});
            break;
        case 9:
            book.wishes.push_back({Kind::resume, who, 0});
            break;
        case 10:
            book.wishes.push_back({random.chance(0.5) ? Kind::unregister : Kind::close_write,
                                   who, 0});
            break;
        default:
            for (std::size_t n = random.between(std::size_t{1}, std::size_t{4}); n > 0; --n) {
                book.wishes.push_back({Kind::send, who, count * 5});
            }
            break;
        }
        controller.wake();
    }
    void speak(std::size_t who, std::size_t count) {
        if (others[who] < 0) {
            return;
        }
        std::string text;
        for (std::size_t n = 0; n < count; ++n) {
            text += static_cast<char>(random.chance(0.05) ? '!' : 'A' + random.below(26));
        }
        said[who] += Kernel::send(others[who], bytes_of(text)).count();
    }
    void half_close(std::size_t who) {
        if (others[who] >= 0) {
            Kernel::shutdown_write(others[who]);
            has_ended[who] = true;
        }
    }
    /// Of UNIX sockets: when TCP hears of that has no fixed place among what else it hears.
    void close(std::size_t who) {
        if (others[who] >= 0 && who % 2 == 0) {
            listen_to(who);
            Kernel::close(std::exchange(others[who], -1));
        }
    }
    /// Until what was said has arrived: in Linux TCP takes a moment.
    void await_arrival() const {
        if constexpr (std::is_same_v<Kernel, os::Kernel>) {
            for (const std::size_t who : {std::size_t{1}, std::size_t{3}}) {
                for (int n = 0; n < 10'000 && !has_arrived(who); ++n) {
                    Kernel::sleep(Duration{100'000});
                }
            }
        }
    }
    [[nodiscard]] bool has_arrived(std::size_t who) const {
        os::TcpInfoFields info{};
        pollfd state{mine[who], POLLRDHUP, 0};
        return !Kernel::option_into(mine[who], IPPROTO_TCP, TCP_INFO, info).ok() ||
               (info.bytes_received >= said[who] &&
                (!has_ended[who] || !Kernel::poll({&state, 1}, Duration::zero()).ok() ||
                 state.revents != 0));
    }
    /// What came at the other end is kept too.
    void listen_to(std::size_t who, Duration patience = Duration::zero()) {
        std::byte room[4096];
        for (;;) {
            await(others[who], POLLIN, patience);
            const os::Result got = others[who] < 0 ? os::Result{0, EBADF}
                                                   : Kernel::recv(others[who], room);
            if (!got.ok() || got.value == 0) {
                return;
            }
            heard[who] += text_of(std::span(room).first(got.count()));
        }
    }
    /// Turns until nothing is left to do, and nothing is on its way.
    template <class R>
    bool settle(R& runtime) {
        bool goes_on = true;
        std::size_t before = 0;
        do {
            await_arrival();
            before = lines();
            for (int n = 0; n < 4 && goes_on; ++n) {
                goes_on = runtime.turn(Duration::zero());
            }
        } while (goes_on && (lines() != before || runtime.until_next() == Duration::zero()));
        for (std::size_t who = 0; who < connections; ++who) {
            listen_to(who);
        }
        return goes_on;
    }
    [[nodiscard]] std::size_t lines() const {
        std::size_t all = 0;
        for (const auto& [about, each] : book.lines) {
            all += each.size();
        }
        return all;
    }

    sim::Random random;
    typename Service::Book book;
    typename Service::Controller controller;
    int mine[connections] = {-1, -1, -1, -1};   ///< the service's, while it has them
    int others[connections] = {-1, -1, -1, -1}; ///< the ends that the script holds
    std::uint64_t said[connections] = {}; ///< bytes, at the other ends
    bool has_ended[connections] = {};
    std::string heard[connections];
    int commands = 0;
};

template <class PollerType>
Lines play(std::uint64_t seed) {
    if constexpr (std::is_same_v<typename PollerType::Kernel, sim::Kernel>) {
        sim::World world(seed);
        return Play<PollerType>(seed).run();
    } else {
        return Play<PollerType>(seed).run();
    }
}

/// Where two performances first differ; empty if they do not.
std::string difference(const Lines& one, const Lines& other) {
    Lines all = one;
    all.insert(other.begin(), other.end());
    for (const auto& [about, unused] : all) {
        const auto lines_of = [&about = about](const Lines& in) {
            const auto found = in.find(about);
            return found == in.end() ? std::vector<std::string>{} : found->second;
        };
        const auto here = lines_of(one);
        const auto there = lines_of(other);
        for (std::size_t n = 0; n < std::max(here.size(), there.size()); ++n) {
            const std::string left = n < here.size() ? here[n] : "nothing";
            const std::string right = n < there.size() ? there[n] : "nothing";
            if (left != right) {
                return about + ", line " + std::to_string(n) + ": " + left + " | " + right;
            }
        }
    }
    return {};
}

} // namespace

TEST_CASE("a script leads to the same callbacks on every poller and on every kernel") {
    const std::uint64_t scripts = from_environment("REACTOR_TRACE_SCRIPTS", 300);
    const std::uint64_t first = from_environment("REACTOR_TRACE_FIRST", 1);
    std::map<std::string, std::size_t> kinds;
    std::size_t lines = 0;
    std::string found;
    for (std::uint64_t seed = first; seed - first < scripts && found.empty(); ++seed) {
        const Lines epoll = play<EpollPoller>(seed);
        for (const auto& [about, each] : epoll) {
            lines += each.size();
            for (const std::string& line : each) {
                ++kinds[line.substr(0, line.find(' '))];
            }
        }
        const std::pair<const char*, Lines> rest[] = {
            {"poll", play<PollPoller>(seed)},
            {"simulated epoll", play<sim::EpollPoller>(seed)},
            {"simulated poll", play<sim::PollPoller>(seed)},
        };
        for (const auto& [name, other] : rest) {
            if (const std::string where = difference(epoll, other); !where.empty()) {
                found += "script " + std::to_string(seed) + ", epoll | " + name + ": " + where +
                         "\nrun it with REACTOR_TRACE_SCRIPTS=1 REACTOR_TRACE_FIRST=" +
                         std::to_string(seed) + "\n";
            }
        }
    }
    INFO(found);
    CHECK(found.empty());
    if (scripts >= 300) { // and something has happened
        CHECK(lines > 10 * scripts);
        for (const char* kind : {"registered", "data", "eof", "error", "leaves", "drain",
                                 "cancelled", "gone"}) {
            INFO(kind);
            CHECK(kinds[kind] > 0);
        }
    }
}
