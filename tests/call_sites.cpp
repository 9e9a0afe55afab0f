// SPDX-License-Identifier: Apache-2.0
//
// Every call site fails: each line of the library that calls the kernel, with each errno that the
// manual documents of the call, at its first calls and its last.
//
// A scenario is a short life of a service, with all that it may meet on a good day. It is lived
// once to see who calls the kernel how often, and then once for each fault. After each the loop has
// gone on or ended with a value, every id left by one door, every byte is accounted for, nothing
// spun, and nothing is left. What only a fault leads to is found so, and failed in a second round.
// Whoever adds a call adds the life that meets it: the list of sites is read from the headers.
//
// `call_sites "[.table]" -s` prints what was done.
#include "call_sites.hpp"

#include "catch.hpp"

#include <reactor/executor.hpp>
#include <reactor/net/connector.hpp>
#include <reactor/net/either.hpp>
#include <reactor/net/inherited.hpp>
#include <reactor/net/unix.hpp>
#include <reactor/offload.hpp>
#include <reactor/reactor.hpp>
#include <reactor/signals.hpp>
#include <reactor/sim/kernel.hpp>
#include <reactor/sim/peer.hpp>

#include <cstdlib>
#include <functional>
#include <memory>

using namespace call_sites;
using namespace std::chrono_literals;

namespace {

using Simulated = SiteKernel<sim::Kernel>;
using Real = SiteKernel<os::Kernel>;

TcpOptions every_option() {
    TcpOptions tcp;
    tcp.keep_alive = {10s, 5s, 3};
    tcp.user_timeout = 30s;
    tcp.linger = 1s;
    tcp.receive_buffer = 16 * 1024;
    tcp.send_buffer = 16 * 1024;
    return tcp;
}

// -- a service ------------------------------------------------------------------------------------

/// What all services here do: keep the books.
template <class Listener, class Transport, class Command = NoCommand>
struct Keeper : Service<Listener, Transport, Command> {
    using Base = Service<Listener, Transport, Command>;
    using Actions = typename Base::Actions;
    using Error = typename Base::Error;

    explicit Keeper(Books& with) : books(&with), life(with) {}

    void handle_registered(ResourceId id, Role, int, Actions&) { books->registered(id); }
    void handle_timer(TimerId, Actions&) { ++books->timers; }
    void handle_error(Error error, Actions&) { note(error); }
    void handover_listener(ResourceId id, Listener, Actions&) { books->left(id); }
    void handover_transport(ResourceId id, Transport transport, Actions&) {
        books->left(id);
        books->unsent += transport.unsent();
    }
    void note(Error& error) {
        books->told(error.code());
        if (error.is_end()) {
            books->left(error.id(), error.kind() == ErrorKind::registration_failed);
        }
        books->unsent += error.unsent();
    }
    bool send(ResourceId id, std::string_view text, Actions& actions) {
        const bool sent = actions.send(id, text);
        books->sent += sent ? text.size() : 0;
        return sent;
    }
    ResourceId take(Transport&& transport, Actions& actions) {
        const ResourceId id = actions.register_transport(std::move(transport));
        books->asked(id);
        return id;
    }
    /// Counts what came. False: it is no data.
    bool received(ResourceId id, const StreamEvent& event) {
        books->event_of(id);
        books->received += event.data() ? event.data()->size() : 0;
        return event.data() != nullptr;
    }

    Books* books;
    Life life;
};

/// Takes turns until the condition holds, the time is over, or too many turns were taken.
template <class Loop, class Done>
void live(Loop& loop, Books& books, Done&& done, Duration span, sim::World& world) {
    constexpr std::size_t too_many = 3000;
    const Timestamp end = saturating_add(world.time(), span);
    std::error_code refused;
    std::size_t turns = 0;
    while (!done() && world.time() < end && turns < too_many &&
           loop.turn(end - world.time(), refused)) {
        ++turns;
    }
    books.is_hot |= turns == too_many;
    books.require(!refused, "a turn was refused");
}
/// The end of a run, which needs no more than a few turns.
template <class Loop>
void end(Loop& loop, Books& books) {
    std::error_code refused;
    loop.controller().shutdown();
    bool goes_on = true;
    for (int turns = 0; turns < 3 && goes_on; ++turns) {
        goes_on = loop.turn(Duration::zero(), refused);
    }
    books.require(!goes_on && !refused, "the run did not end");
}

// -- a server -------------------------------------------------------------------------------------

enum class Order { pause, resume };

/// Echoes; "!" leaves and comes back, as another program would take it over.
template <class K>
struct Server : Keeper<BasicTcpListener<K>, BasicTcpStream<K>, Order> {
    using Base = Keeper<BasicTcpListener<K>, BasicTcpStream<K>, Order>;
    using typename Base::Actions;
    using typename Base::Error;
    using Stream = BasicTcpStream<K>;
    using Base::Base;

    void handle_start(Actions& actions) {
        actions.set_interval(20ms);
        actions.set_timer(5ms);
    }
    void handle_timer(TimerId timer, Actions& actions) {
        if (++this->books->timers == 6) {
            actions.cancel_timer(timer);
        }
    }
    void handle_listener_event(ResourceId id, typename BasicTcpListener<K>::Event accepted,
                               Actions& actions) {
        this->books->event_of(id);
        static_cast<void>(accepted.stream.local());
        static_cast<void>(accepted.stream.peer());
        std::error_code error;
        static_cast<void>(accepted.stream.info(error));
        this->books->told(error);
        this->books->told(accepted.stream.set_options(every_option()));
        last = this->take(std::move(accepted.stream), actions);
    }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        if (this->received(id, event)) {
            const auto bytes = *event.data();
            const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
            for (int n = 0; n < (text == "much" ? 64 : 1); ++n) {
                this->send(id, text == "much" ? std::string(4096, 'm') : text, actions);
            }
            if (text == "!") {
                actions.unregister_transport(id);
            }
        } else if (event.eof()) {
            actions.close_write(id);
        }
    }
    void handle_command(Order order, Actions& actions) {
        if (this->books->is_here(last)) {
            order == Order::pause ? actions.pause(last) : actions.resume(last);
        }
    }
    void handover_transport(ResourceId id, Stream stream, Actions& actions) {
        const bool had_enough = stream.interest().none();
        this->books->unsent += stream.unsent();
        this->books->left(id);
        if (had_enough || leaving) {
            return;
        }
        std::error_code error;
        Stream again(stream.release(), error);
        if (!this->books->told(error)) {
            this->take(std::move(again), actions);
        }
    }

    ResourceId last;
    bool leaving = false;
};

template <class Poller>
void serve(Books& books) {
    using K = typename Poller::Kernel;
    sim::Weather weather;
    weather.receive_buffer = weather.send_buffer = 32 * 1024;
    weather.latency_least = weather.latency_most = 1ms;
    sim::World world(1, weather);
    {
        std::error_code error;
        ListenOptions options;
        options.tcp = every_option();
        options.device = "lo";
        options.reuse_port = true;
        options.deadlines.idle = 60s;
        auto listener = BasicTcpListener<K>::bind("127.0.0.1:7000", error, options);
        books.told(error);
        options.only_ipv6 = true;
        auto other = BasicTcpListener<K>::bind("[::1]:7001", error, options);
        books.told(error);
        static_cast<void>(listener.local());
        const bool listens = listener.fd() >= 0;

        Runtime<Server<K>, Poller> runtime(Server<K>(books), {}, error);
        const bool runs = !books.told(error);
        const ResourceId door = runtime.listen(std::move(listener));
        books.asked(door);
        books.asked(runtime.listen(std::move(other)));

        sim::Peer ada(world, "ada");
        ada.may_fail().connect("127.0.0.1:7000").send("hello").expect("hello");
        ada.send("!").expect("!").pause(100ms).send("again").expect("again").shut().expect_end();
        sim::Peer ben(world, "ben");
        ben.may_fail().connect("127.0.0.1:7000").read_slowly(4096, 1ms).send("much");
        ben.await(64 * 4096).send("more").reset();
        sim::Peer cid(world, "cid");
        cid.may_fail().connect("[::1]:7001").pause(200ms).send("late").expect("late");
        cid.vanish();
        live(runtime, books, [] { return false; }, 150ms, world);
        static_cast<void>(runtime.controller().command(Order::pause));
        live(runtime, books, [] { return false; }, 100ms, world);
        static_cast<void>(runtime.controller().command(Order::resume));
        live(runtime, books, [] { return false; }, 5s, world);

        // Whatever went wrong before, who comes now is served; if somebody still listens.
        const bool was_met = Plan::current()->all_met();
        const bool is_open = runs && listens && books.is_here(door) && !books.is_hot;
        sim::Peer dan(world, "dan");
        dan.may_fail().connect("127.0.0.1:7000").send("well?").expect("well?");
        live(runtime, books, [&] { return dan.is_done(); }, 2s, world);
        books.require(!is_open || !was_met || dan.received() == "well?",
                      "after the fault nobody is served any more");
        books.require(!runs || books.timers >= 6 || books.is_hot, "timers did not fire");

        runtime.service().leaving = true;
        runtime.controller().drain(1s);
        live(runtime, books, [] { return false; }, 2s, world);
        end(runtime, books);
        books.require(world.failure().empty(), world.failure().c_str());
    }
    books.require(world.open_descriptors() == 0, "a descriptor leaked");
    books.require(world.careless_closes() == 0, "closed while it was watched");
}

// -- a client -------------------------------------------------------------------------------------

/// Connects by itself and through a connector; says "hi" and goes when it was answered.
template <class K>
struct Client : Keeper<BasicTcpConnector<K>, BasicTcpStream<K>> {
    using Base = Keeper<BasicTcpConnector<K>, BasicTcpStream<K>>;
    using typename Base::Actions;
    using Stream = BasicTcpStream<K>;
    using Base::Base;

    void handle_start(Actions& actions) {
        ConnectOptions options;
        options.tcp = every_option();
        options.device = "lo";
        options.local = Address::parse("127.0.0.1:0");
        call(Stream::connect("127.0.0.1:7101", 2s, options), actions);
        options.local = Address::parse("127.0.0.1:6000");
        call(Stream::connect("127.0.0.1:7102", 2s, options), actions);
        call(Stream::connect("127.0.0.1:1", 2s), actions);
        call(Stream::connect("nonsense", 2s), actions);
        ConnectorOptions race;
        race.attempt_delay = 20ms;
        race.tcp = every_option();
        const Address nobody = Address::parse("127.0.0.1:1");
        const Address v6 = Address::parse("[::1]:7100");
        const Address v4 = Address::parse("127.0.0.1:7100");
        this->books->asked(actions.register_listener(
            BasicTcpConnector<K>::connect({nobody, v6, v4}, 2s, race)));
        this->books->asked(
            actions.register_listener(BasicTcpConnector<K>::connect({nobody}, 1s, race)));
    }
    void handle_listener_event(ResourceId id, typename BasicTcpConnector<K>::Event made,
                               Actions& actions) {
        this->books->event_of(id);
        call(std::move(made.stream), actions);
    }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        if (this->received(id, event) || event.eof()) {
            actions.close_write(id);
        }
    }

  private:
    void call(Stream&& stream, Actions& actions) {
        const ResourceId id = this->take(std::move(stream), actions);
        this->send(id, "hi", actions);
    }
};

template <class Poller>
void call_out(Books& books) {
    using K = typename Poller::Kernel;
    sim::Weather weather;
    weather.latency_least = weather.latency_most = 1ms;
    sim::World world(2, weather);
    {
        std::error_code error;
        Runtime<Client<K>, Poller> runtime(Client<K>(books), {}, error);
        books.told(error);
        sim::Peer peers[] = {sim::Peer(world, "first"), sim::Peer(world, "second"),
                             sim::Peer(world, "third"), sim::Peer(world, "fourth")};
        const char* const addresses[] = {"127.0.0.1:7100", "[::1]:7100", "127.0.0.1:7101",
                                         "127.0.0.1:7102"};
        for (std::size_t n = 0; n < 4; ++n) {
            peers[n].may_fail().listen(addresses[n]).send(n == 3 ? "greetings" : "");
            if (n == 3) {
                peers[n].reset(); // with bytes on their way
            } else {
                peers[n].expect("hi").send("yes?").shut().expect_end();
            }
        }
        live(runtime, books, [] { return false; }, 4s, world);
        end(runtime, books);
    }
    books.require(world.open_descriptors() == 0, "a descriptor leaked");
}

// -- streams of other kinds -----------------------------------------------------------------------

/// Any stream, as a program would write one that does not say it is non-blocking.
template <class K>
struct Plain : BasicStream<K> {
    using BasicStream<K>::BasicStream;
    static constexpr bool born_non_blocking = false;
};

template <class K>
struct Piper : Keeper<NoListener, Plain<K>> {
    using Base = Keeper<NoListener, Plain<K>>;
    using typename Base::Actions;
    using Base::Base;

    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        if (!this->received(id, event) && event.eof()) {
            actions.close_write(id);
        }
    }
    void handle_registered(ResourceId id, Role, int fd, Actions& actions) {
        this->books->registered(id);
        if (fd == writing) {
            for (int n = 0; n < 40; ++n) {
                this->send(id, std::string(4000, 'p'), actions);
            }
        }
        if (fd == doomed) {
            doomed_id = id;
        }
    }
    void handle_timer(TimerId, Actions& actions) {
        if (this->books->is_here(doomed_id)) {
            actions.unregister_transport(doomed_id);
        }
    }
    void handover_transport(ResourceId id, Plain<K> stream, Actions&) {
        this->books->left(id);
        this->books->unsent += stream.unsent();
        if (id == doomed_id) {
            static_cast<void>(stream.release().release()); // closed already
        }
    }
    void handle_start(Actions& actions) { actions.set_timer(50ms); }

    int writing = -1;
    int doomed = -1;
    ResourceId doomed_id;
};

template <class Poller>
void pipe_through(Books& books) {
    using K = typename Poller::Kernel;
    sim::World world(3);
    {
        int reading = -1;
        int writing = -1;
        int first = -1;
        int second = -1;
        static_cast<void>(world.pipe(reading, writing));
        static_cast<void>(world.stream_pair(first, second));
        const os::BasicFd<sim::Kernel> other(second);
        std::error_code error;
        Piper<K> piper(books);
        piper.writing = writing;
        piper.doomed = first;
        Runtime<Piper<K>, Poller> runtime(std::move(piper), {}, error);
        books.told(error);
        bool comes = false;
        for (const int fd : {reading, writing, first}) {
            Plain<K> stream(os::BasicFd<K>(fd), error);
            if (!books.told(error)) {
                const auto answer = runtime.controller().register_transport(std::move(stream));
                books.require(answer || answer.closed(), "a stream was not taken");
                comes |= fd == first && static_cast<bool>(answer);
            }
        }
        live(runtime, books, [] { return false; }, 20ms, world);
        // Somebody closes a descriptor behind the reactor's back, while a duplicate of it lives on
        // and is reported for ever: what has no name any more has to be driven out.
        const os::BasicFd<sim::Kernel> duplicate(comes ? sim::Kernel::duplicate(first).fd_or_none()
                                                       : -1);
        if (comes && books.is_here(runtime.service().doomed_id)) {
            sim::Kernel::close(first);
        }
        live(runtime, books, [] { return false; }, 40ms, world);
        static_cast<void>(sim::Kernel::send(other.get(), std::as_bytes(std::span("boo", 3))));
        live(runtime, books, [] { return false; }, 2s, world);
        end(runtime, books);
    }
    books.require(world.open_descriptors() == 0, "a descriptor leaked");
}

// -- callbacks instead of a service ---------------------------------------------------------------

template <class Poller>
void await_events(Books& books) {
    using Executor = BasicExecutor<Poller>;
    sim::World world(4);
    {
        std::error_code error;
        Executor executor(Placement::in_loop, {}, error);
        const bool runs = !books.told(error);
        int first = -1;
        int second = -1;
        static_cast<void>(world.stream_pair(first, second));
        const os::BasicFd<sim::Kernel> mine(first);
        const os::BasicFd<sim::Kernel> other(second);
        const auto note = [&books](Executor& e, Readiness) { books.told(e.cause()); };
        const Awaited reads = executor.await_keep(readable(first), [&](Executor& e, Readiness r) {
            std::byte room[16];
            books.told(e.cause());
            if (r.calls_for(Io::read) && sim::Kernel::recv(first, room).value == 0) {
                e.cancel(e.current());
            }
        });
        const Awaited writes = executor.await_once(writable(first), note);
        books.told(reads.error);
        books.told(writes.error);
        const Awaited timer =
            executor.await_every(10ms, [&books](Executor&) { ++books.timers; });
        books.require(timer || !runs, "no timer was to be had");
        static_cast<void>(sim::Kernel::send(second, std::as_bytes(std::span("boo", 3))));
        live(executor, books, [] { return false; }, 100ms, world);
        books.require(!runs || books.timers >= 5 || books.is_hot, "timers did not fire");
        executor.forget(first);
        live(executor, books, [] { return false; }, 10ms, world);
        end(executor, books);
    }
    books.require(world.open_descriptors() == 0, "a descriptor leaked");
}

// -- on the real kernel: what the simulated one has not -------------------------------------------

std::size_t open_descriptors() {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}
/// A directory of this process's own.
const std::string& directory() {
    struct Made {
        Made() : path((std::filesystem::temp_directory_path() / "reactor.XXXXXX").string()) {
            if (::mkdtemp(path.data()) == nullptr) {
                throw std::runtime_error("mkdtemp");
            }
        }
        ~Made() {
            std::error_code ignored;
            std::filesystem::remove_all(path, ignored);
        }
        std::string path;
    };
    static const Made made;
    return made.path;
}

/// Listens on one path, connects to it, and answers itself; ends when both have had their say.
template <class K>
struct Neighbours : Keeper<BasicUnixListener<K>, BasicUnixStream<K>> {
    using Base = Keeper<BasicUnixListener<K>, BasicUnixStream<K>>;
    using typename Base::Actions;
    using typename Base::Error;
    using Stream = BasicUnixStream<K>;

    Neighbours(Books& with, const Address& at) : Base(with), address(at) {}

    void handle_start(Actions& actions) {
        std::error_code error;
        call(Stream::connect(address, 20ms), actions);
        auto [one, two] = Stream::pair(error);
        if (!this->books->told(error)) {
            call(std::move(one), actions);
            this->take(std::move(two), actions);
            ++expected;
        }
    }
    void handle_listener_event(ResourceId id, typename BasicUnixListener<K>::Event accepted,
                               Actions& actions) {
        this->books->event_of(id);
        std::error_code error;
        static_cast<void>(accepted.stream.peer_credentials(error));
        this->books->told(error);
        this->take(std::move(accepted.stream), actions);
        ++expected;
    }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        if (this->received(id, event) || event.eof()) {
            actions.close_write(id);
        }
    }
    void handle_error(Error error, Actions&) {
        gone += error.is_end() ? 1 : 0;
        this->note(error);
    }
    void handover_transport(ResourceId id, Stream stream, Actions&) {
        ++gone;
        this->books->left(id);
        this->books->unsent += stream.unsent();
    }
    void call(Stream&& stream, Actions& actions) {
        const ResourceId id = this->take(std::move(stream), actions);
        this->send(id, "hi", actions);
        ++expected;
    }

    Address address;
    int expected = 0;
    int gone = 0;
};

/// Turns until the condition holds or, after a fault, nothing has happened for a while.
template <class Loop, class Done>
void live_really(Loop& loop, Books& books, Done&& done) {
    constexpr int too_many = 300;
    const Duration patience = Plan::current()->faults.empty() ? Duration{10s} : Duration{8ms};
    std::error_code refused;
    int busy = 0;
    Timestamp since = os::Kernel::now();
    while (!done() && busy < too_many && os::Kernel::now() - since < patience) {
        const std::size_t calls = Plan::current()->calls;
        if (!loop.turn(2ms, refused)) {
            break;
        }
        if (Plan::current()->calls - calls > 4) {
            ++busy;
            since = os::Kernel::now();
        }
    }
    books.is_hot |= busy == too_many;
    books.require(!refused, "a turn was refused");
}

template <class Poller>
void meet_neighbours(Books& books) {
    using K = typename Poller::Kernel;
    const std::size_t before = open_descriptors();
    const std::string path = directory() + "/socket";
    const Address address = Address::parse("unix:" + path);
    {
        // A socket file that a dead process has left.
        const os::Fd dead(os::Kernel::stream_socket(AF_UNIX).fd());
        books.require(os::Kernel::bind(dead.get(), address.data(), address.size()).ok(),
                      "no stale file could be made");
    }
    {
        std::error_code error;
        UnixListenOptions options;
        options.mode = 0777;
        options.send_buffer = 8192;
        options.deadlines.idle = 10s;
        const mode_t mask = ::umask(022);
        auto bound = BasicUnixListener<K>::bind(address, error, options);
        ::umask(mask);
        const bool is_bound = !books.told(error);
        const auto abstract = BasicUnixListener<K>::bind("unix:@" + path, error);
        books.told(error);
        if (is_bound) { // another process takes the socket over as well; the file is the first's
            os::BasicFd<K> copy(os::Kernel::duplicate(bound.fd()).fd());
            const BasicUnixListener<K> adopted(std::move(copy), error);
            books.told(error);
        }
        Runtime<Neighbours<K>, Poller> runtime(Neighbours<K>(books, address), {}, error);
        books.told(error);
        books.asked(runtime.listen(std::move(bound)));
        auto& service = runtime.service();
        live_really(runtime, books, [&] { return service.expected == 4 && service.gone == 4; });
        {
            os::BasicFd<K> copy(os::Kernel::stream_socket(AF_UNIX).fd());
            BasicUnixStream<K> adopted(std::move(copy), error);
            books.told(error);
        }
        end(runtime, books);
    }
    std::error_code ignored;
    std::filesystem::remove(path, ignored); // what the library was kept from
    books.require(open_descriptors() == before, "a descriptor leaked");
}

template <class K>
struct Hearer : Keeper<BasicSignals<K>, NoTransport> {
    using Base = Keeper<BasicSignals<K>, NoTransport>;
    using typename Base::Actions;
    using Base::Base;

    void handle_listener_event(ResourceId id, SignalEvent event, Actions&) {
        this->books->event_of(id);
        this->books->require(event.number == SIGUSR1, "another signal came");
        heard = true;
    }
    bool heard = false;
};

template <class Poller>
void hear_signals(Books& books) {
    using K = typename Poller::Kernel;
    const std::size_t before = open_descriptors();
    sigset_t mask{};
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    {
        std::error_code error;
        BasicSignals<K> signals({SIGUSR1, SIGUSR2}, error);
        const bool hears = !books.told(error);
        Runtime<Hearer<K>, Poller> runtime(Hearer<K>(books), {}, error);
        books.told(error);
        books.asked(runtime.listen(std::move(signals)));
        if (hears) {
            ::raise(SIGUSR1);
        }
        live_really(runtime, books, [&] { return runtime.service().heard; });
        end(runtime, books);
    }
    sigset_t after{};
    ::pthread_sigmask(SIG_SETMASK, nullptr, &after);
    // Where a signal could not be named to the kernel, it stays held back.
    const bool named = books.causes.empty() && Plan::current()->faults.empty();
    books.require(!named || sigismember(&after, SIGUSR1) == sigismember(&mask, SIGUSR1),
                  "a signal stayed held back");
    ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
    books.require(open_descriptors() == before, "a descriptor leaked");
}

/// What a service manager would have opened: this process's own 3 and 4, for the while of a run.
void inherit(Books& books) {
    const int saved[] = {::fcntl(3, F_DUPFD_CLOEXEC, 10), ::fcntl(4, F_DUPFD_CLOEXEC, 10)};
    const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (const int fd : {3, 4}) {
        if (null != fd) {
            books.require(::dup2(null, fd) == fd, "no descriptor could be placed");
        }
    }
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    ::setenv("LISTEN_FDS", "2", 1);
    ::setenv("LISTEN_FDNAMES", "one:two", 1);
    {
        std::error_code error;
        const auto taken = take_inherited_descriptors<Real>(error);
        const bool failed = books.told(error);
        books.require(taken.size() == (failed ? 0U : 2U), "neither all nor nothing");
        books.require(::getenv("LISTEN_FDS") == nullptr, "a child could take it for its own");
        books.require(failed == (::fcntl(3, F_GETFD) >= 0 && taken.empty()),
                      "what was not taken was closed");
    }
    for (const int n : {0, 1}) {
        if (saved[n] >= 0) {
            ::dup2(saved[n], 3 + n);
            ::close(saved[n]);
        } else {
            ::close(3 + n);
        }
    }
    if (null > 4) {
        ::close(null);
    }
}

/// The forms that throw: their cause is the errno too.
template <class Poller>
void make_or_throw(Books& books) {
    using K = typename Poller::Kernel;
    const std::size_t before = open_descriptors();
    try {
        Runtime<Server<K>, Poller> runtime{Server<K>(books)};
        auto listener = BasicTcpListener<K>::bind("127.0.0.1:0");
        BasicTcpListener<K> again(listener.release());
        BasicSignals<K> signals{SIGUSR2};
        auto [one, two] = BasicUnixStream<K>::pair();
        BasicUnixStream<K> adopted(one.release());
        BasicStream<K> stream(two.release());
        BasicTcpStream<K> tcp(os::BasicFd<K>(os::Kernel::stream_socket(AF_INET).fd()));
        auto neighbour = BasicUnixListener<K>::bind("unix:@" + directory());
        BasicUnixListener<K> neighbours(neighbour.release());
        BasicExecutor<Poller> executor;
    } catch (const std::system_error& error) {
        books.told(error.code());
    }
    books.require(open_descriptors() == before, "a descriptor leaked");
}

/// Callbacks in this thread, fed by a loop in another, whose calls go through.
template <class Poller>
void await_beside(Books& books) {
    using Executor = BasicExecutor<Poller>;
    const std::size_t before = open_descriptors();
    {
        std::error_code error;
        Executor executor(Placement::beside, {}, error);
        books.told(error);
        int first = -1;
        int second = -1;
        static_cast<void>(os::Kernel::stream_pair(first, second));
        const os::Fd mine(first);
        const os::Fd other(second);
        bool fired = false;
        const Awaited writes = executor.await_once(writable(first), [&](Executor& e, Readiness) {
            books.told(e.cause());
            fired = true;
        });
        books.told(writes.error);
        live_really(executor, books, [&] { return fired || !writes; });
        end(executor, books);
    }
    books.require(open_descriptors() == before, "a descriptor leaked");
}

// -- all of them ----------------------------------------------------------------------------------

struct Scenario {
    const char* name;
    void (*live)(Books&);
    std::set<std::string> files; ///< whose sites are failed here; none: all
    bool simulated = true;
};

const std::vector<Scenario>& scenarios() {
    static const std::set<std::string> unix_files{"net/unix.hpp", "detail/bound_file.hpp"};
    static const std::vector<Scenario> all{
        {"serve, epoll", serve<BasicEpollPoller<Simulated>>, {}},
        {"serve, poll", serve<BasicPollPoller<Simulated>>, {}},
        {"call out, epoll", call_out<BasicEpollPoller<Simulated>>, {}},
        {"call out, poll", call_out<BasicPollPoller<Simulated>>, {}},
        {"pipes, epoll", pipe_through<BasicEpollPoller<Simulated>>, {}},
        {"pipes, poll", pipe_through<BasicPollPoller<Simulated>>, {}},
        {"callbacks, epoll", await_events<BasicEpollPoller<Simulated>>, {}},
        {"callbacks, poll", await_events<BasicPollPoller<Simulated>>, {}},
        {"neighbours, epoll", meet_neighbours<BasicEpollPoller<Real>>, unix_files, false},
        {"neighbours, poll", meet_neighbours<BasicPollPoller<Real>>, unix_files, false},
        {"signals, epoll", hear_signals<BasicEpollPoller<Real>>, {"signals.hpp"}, false},
        {"signals, poll", hear_signals<BasicPollPoller<Real>>, {"signals.hpp"}, false},
        {"callbacks beside, epoll", await_beside<BasicEpollPoller<Real>>, {}, false},
        {"callbacks beside, poll", await_beside<BasicPollPoller<Real>>, {}, false},
        {"inherited", inherit, {}, false},
        {"made or thrown, epoll", make_or_throw<BasicEpollPoller<Real>>, {}, false},
        {"made or thrown, poll", make_or_throw<BasicPollPoller<Real>>, {}, false},
    };
    return all;
}

struct Outcome {
    std::vector<std::size_t> counts;
    std::size_t calls = 0;
    bool met = false;
    bool is_hot = false;
    std::vector<std::string> errors;
    std::set<int> causes;
};

Outcome run(const Scenario& scenario, const std::vector<Fault>& faults) {
    Plan plan(faults);
    Books books;
    try {
        scenario.live(books);
        books.close(plan);
    } catch (const std::exception& error) {
        books.wrong(std::string("thrown: ") + error.what());
    }
    books.require(books.lives == 0, "an object of the service is left");
    return {plan.counts, plan.calls, plan.all_met(), books.is_hot, books.errors, books.causes};
}

/// What was done at one site.
struct Record {
    std::set<int> errors;
    std::size_t runs = 0;
    std::size_t most = 0;  ///< the last call that was failed
    std::set<int> told;    ///< of these errors, those that came out as a value
};

/// Of one scenario, or of all.
struct Report {
    std::map<std::size_t, Record> records; ///< by site
    std::set<std::size_t> reached;
    std::size_t runs = 0;
    std::vector<std::string> wrong;
};

class Campaign {
  public:
    explicit Campaign(const Scenario& of) : scenario_(of) {}

    Report wage() {
        const Outcome good = run(scenario_, {});
        calls_ = good.calls;
        note({}, good);
        fail_all(good, {}, [](std::size_t) { return true; });
        // What only a fault leads to is failed behind that fault; and what that leads to.
        for (int round = 0; round < 2; ++round) {
            for (const auto& [site, faults] : std::exchange(detours_, {})) {
                const Outcome there = run(scenario_, faults);
                fail_all(there, faults, [only = site](std::size_t n) { return n == only; });
            }
        }
        return std::move(report_);
    }

  private:
    template <class Wanted>
    void fail_all(const Outcome& before, const std::vector<Fault>& first, Wanted&& wanted) {
        for (std::size_t site = 0; site < before.counts.size(); ++site) {
            const std::size_t count = before.counts[site];
            if (count == 0 || !wanted(site) || !is_meant(Sites::of(site).file)) {
                continue;
            }
            if (const Documented* const what = documented(Sites::of(site).operation)) {
                for (const int error : what->errors) {
                    fail(first, {site, 1, error}, count);
                }
                if (Sites::of(site).operation == std::string("option") && is_pending(site)) {
                    for (const int error : pending_errors()) {
                        fail(first, {site, 1, error, true}, count);
                    }
                }
            }
        }
    }
    void fail(const std::vector<Fault>& first, Fault fault, std::size_t count) {
        constexpr std::size_t in_a_row = 5;
        for (std::size_t nth = 1; nth <= count; ++nth) {
            if (nth > in_a_row && nth < count) {
                continue;
            }
            fault.nth = nth;
            std::vector<Fault> faults = first;
            faults.push_back(fault);
            note(faults, run(scenario_, faults));
        }
    }
    void note(const std::vector<Fault>& faults, const Outcome& outcome) {
        ++report_.runs;
        std::string name = scenario_.name;
        for (const Fault& fault : faults) {
            name += "; " + fault.to_string();
        }
        for (const std::string& error : outcome.errors) {
            report_.wrong.push_back(name + ": " + error);
        }
        if (scenario_.simulated && faults.size() < 2 && !outcome.met) {
            report_.wrong.push_back(name + ": did not happen");
        }
        if (!may_be_hot(faults) && (outcome.is_hot || outcome.calls > 3 * calls_ + 500)) {
            report_.wrong.push_back(name + ": " + std::to_string(outcome.calls) +
                                    " calls instead of " + std::to_string(calls_));
        }
        for (std::size_t site = 0; site < outcome.counts.size(); ++site) {
            if (outcome.counts[site] != 0 && report_.reached.insert(site).second &&
                !faults.empty()) {
                detours_.emplace(site, faults);
            }
        }
        if (!faults.empty() && outcome.met) {
            const Fault& fault = faults.back();
            Record& record = report_.records[fault.site];
            ++record.runs;
            record.errors.insert(fault.error);
            record.most = std::max(record.most, fault.nth);
            if (outcome.causes.count(fault.error) != 0) {
                record.told.insert(fault.error);
            }
        }
    }
    [[nodiscard]] bool is_meant(const std::string& file) const {
        return scenario_.files.empty() || scenario_.files.count(file) != 0;
    }
    /// Whether this is a look at SO_ERROR.
    [[nodiscard]] static bool is_pending(std::size_t site) {
        const std::string& file = Sites::of(site).file;
        return file == "net/socket.hpp" || file == "net/connector.hpp";
    }
    /// What epoll will not watch is always ready (EPERM): a socket said to be that is asked again
    /// and again.
    [[nodiscard]] static bool may_be_hot(const std::vector<Fault>& faults) {
        return std::any_of(faults.begin(), faults.end(), [](const Fault& fault) {
            return fault.error == EPERM && Sites::of(fault.site).operation == "epoll_control";
        });
    }

    const Scenario& scenario_;
    std::size_t calls_ = 0;
    Report report_;
    std::map<std::size_t, std::vector<Fault>> detours_; ///< how a site is reached, if by a fault
};

/// Of this scenario; found out once.
const Report& report_of(std::size_t scenario) {
    static std::vector<std::unique_ptr<Report>> reports(scenarios().size());
    if (reports[scenario] == nullptr) {
        reports[scenario] = std::make_unique<Report>(Campaign(scenarios()[scenario]).wage());
    }
    return *reports[scenario];
}
Report report_of_all() {
    Report all;
    for (std::size_t n = 0; n < scenarios().size(); ++n) {
        const Report& report = report_of(n);
        all.runs += report.runs;
        all.reached.insert(report.reached.begin(), report.reached.end());
        for (const auto& [site, record] : report.records) {
            Record& sum = all.records[site];
            sum.errors.insert(record.errors.begin(), record.errors.end());
            sum.told.insert(record.told.begin(), record.told.end());
            sum.runs += record.runs;
            sum.most = std::max(sum.most, record.most);
        }
    }
    return all;
}

/// Sites that no scenario here can fail, and why.
struct Exempt {
    const char* file; ///< how its name begins
    const char* operation;
    const char* why;

    [[nodiscard]] bool covers(const Site& site) const {
        return site.fixed && site.operation == operation && site.file.starts_with(file);
    }
};
const std::vector<Exempt>& exempt() {
    static const std::vector<Exempt> list{
        {"detail/stop_signal", "event_fd", "os::Kernel: failed below, by a limit"},
        {"detail/stop_signal", "handle_signal",
         "os::Kernel: sigaction(2) fails only of what is no signal (EINVAL, EFAULT)"},
        {"offload", "start_thread", "os::Kernel: failed below, by a stack too large"},
        {"executor/feeder", "start_thread", "os::Kernel: failed below, by a stack too large"},
        {"reactor", "start_thread", "os::Kernel: failed below, by a stack too large"},
        {"reactor", "raise_descriptor_limit",
         "os::Kernel: to raise the soft limit to the hard one is always allowed"},
    };
    return list;
}
bool is_exempt(const Site& site) {
    return std::any_of(exempt().begin(), exempt().end(),
                       [&](const Exempt& each) { return each.covers(site); });
}
/// Operations that answer nothing that could be an error.
bool cannot_fail(const std::string& operation) {
    static const std::set<std::string> all{
        "now",          "process_id",      "sleep",          "random",     "return_memory",
        "environment",  "unset_environment", "close",        "ring",       "silence",
        "await_ring",   "hold_signals",    "release_signals", "join_thread", "restore_signal"};
    return all.count(operation) != 0;
}

void check(std::size_t scenario) {
    const Report& report = report_of(scenario);
    INFO(scenarios()[scenario].name << ", " << report.runs << " runs");
    std::string wrong;
    for (std::size_t n = 0; n < report.wrong.size() && n < 40; ++n) {
        wrong += report.wrong[n] + "\n";
    }
    INFO(report.wrong.size() << " of them wrong:\n" << wrong);
    CHECK(report.wrong.empty());
    CHECK(report.runs > 1);
}

} // namespace

TEST_CASE("a server bears each fault of each call") {
    check(0);
    check(1);
}
TEST_CASE("a client bears each fault of each call") {
    check(2);
    check(3);
}
TEST_CASE("streams that are no sockets bear each fault of each call") {
    check(4);
    check(5);
}
TEST_CASE("an executor bears each fault of each call") {
    check(6);
    check(7);
}
TEST_CASE("UNIX sockets bear each fault of each call") {
    check(8);
    check(9);
}
TEST_CASE("signals bear each fault of each call") {
    check(10);
    check(11);
}
TEST_CASE("an executor with a thread beside it bears each fault of each call") {
    check(12);
    check(13);
}
TEST_CASE("inherited descriptors bear each fault of each call") { check(14); }
TEST_CASE("what is made by throwing forms bears each fault of each call") {
    check(15);
    check(16);
}

// -- calls that go to os::Kernel, whatever Kernel a class is given --------------------------------

namespace {

/// No thread can be started meanwhile: each would need a stack larger than there are addresses.
class NoThreads {
  public:
    NoThreads() {
        ::pthread_getattr_default_np(&before_);
        pthread_attr_t large{};
        ::pthread_getattr_default_np(&large);
        ::pthread_attr_setstacksize(&large, std::size_t{1} << 47);
        works = ::pthread_setattr_default_np(&large) == 0;
        ::pthread_attr_destroy(&large);
    }
    NoThreads(const NoThreads&) = delete;
    NoThreads& operator=(const NoThreads&) = delete;
    ~NoThreads() {
        ::pthread_setattr_default_np(&before_);
        ::pthread_attr_destroy(&before_);
    }
    bool works = false;

  private:
    pthread_attr_t before_{};
};
/// No descriptor can be opened meanwhile.
class NoDescriptors {
  public:
    NoDescriptors() {
        ::getrlimit(RLIMIT_NOFILE, &before_);
        const int lowest = ::fcntl(0, F_DUPFD_CLOEXEC, 0);
        ::close(lowest);
        rlimit none = before_;
        none.rlim_cur = static_cast<rlim_t>(lowest);
        works = lowest >= 0 && ::setrlimit(RLIMIT_NOFILE, &none) == 0;
    }
    NoDescriptors(const NoDescriptors&) = delete;
    NoDescriptors& operator=(const NoDescriptors&) = delete;
    ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
    bool works = false;

  private:
    rlimit before_{};
};

struct Brief : Service<NoListener, NoTransport> {
    void handle_start(Actions& actions) { actions.set_timer(5ms); }
    void handle_timer(TimerId, Actions& actions) { actions.shutdown(); }
};

} // namespace

TEST_CASE("a thread that cannot be started is told as a value, and nothing is left of it") {
    const std::size_t before = open_descriptors();
    {
        const NoThreads none;
        REQUIRE(none.works);
        std::error_code error;
        Reactor<Brief> reactor(Brief{}, {}, error);
        CHECK(error.value() == EAGAIN);
        CHECK(reactor.join().clean);
        BasicExecutor<EpollPoller> executor(Placement::beside, {}, error);
        CHECK(error.value() == EAGAIN);
        Offload offload({}, error);
        CHECK(error.value() == EAGAIN);
        CHECK(offload.submit(executor.controller(), [] { return 1; }, [](auto&, auto) {})
                  .closed());
        CHECK_THROWS_AS(Reactor<Brief>(Brief{}), std::system_error);
        CHECK_THROWS_AS(Executor(Placement::beside), std::system_error);
        CHECK_THROWS_AS(Offload(), std::system_error);
    }
    CHECK(open_descriptors() == before);
}

TEST_CASE("without a descriptor for the signals, to wait for them is to wait for the end") {
    const std::size_t before = open_descriptors();
    {
        Reactor<Brief> reactor(Brief{});
        const NoDescriptors none;
        REQUIRE(none.works);
        std::error_code error;
        const detail::StopSignal signal(error);
        CHECK(error.value() == EMFILE);
        CHECK(reactor.join_until_signal().clean);
    }
    CHECK(open_descriptors() == before);
}

TEST_CASE("every line of the library that calls the kernel was made to fail") {
    const Report all = report_of_all();
    std::map<std::tuple<std::string, int, std::string>, const Record*> failed;
    for (const auto& [site, record] : all.records) {
        failed[Sites::of(site).key()] = &record;
    }
    REQUIRE_FALSE(Sites::root().empty());
    const std::vector<Site> sites = sites_of_headers(Sites::root());
    CHECK(sites.size() > 100);
    for (const Site& site : sites) {
        INFO(site.to_string() << ": " << site.text);
        if (cannot_fail(site.operation)) {
            CHECK(documented(site.operation) == nullptr);
        } else if (is_exempt(site)) {
            CHECK(failed.count(site.key()) == 0);
        } else if (const Documented* const what = documented(site.operation)) {
            const auto at = failed.find(site.key());
            CHECK(at != failed.end()); // no scenario reaches it: write one, or say why not
            CHECK((at == failed.end() || at->second->errors.size() >= what->errors.size()));
        } else {
            FAIL_CHECK("nobody has looked up what this operation can fail with");
        }
    }
    for (const Exempt& each : exempt()) {
        INFO(each.file << " " << each.operation << ": " << each.why);
        CHECK(std::any_of(sites.begin(), sites.end(),
                          [&](const Site& site) { return each.covers(site); }));
    }
}

TEST_CASE("the table of sites, errors and calls", "[.table]") {
    const Report all = report_of_all();
    std::string table;
    std::size_t pairs = 0;
    for (const auto& [number, record] : all.records) {
        const Site& site = Sites::of(number);
        table += site.to_string() + ": " + std::to_string(record.errors.size()) + " errors (" +
                 std::to_string(record.told.size()) + " told), calls 1.." +
                 std::to_string(record.most) + ", " + std::to_string(record.runs) + " runs\n";
        pairs += record.errors.size();
    }
    WARN(table << all.records.size() << " sites, " << pairs << " pairs of site and error, "
               << all.runs << " runs");
    CHECK(all.runs > all.records.size());
}
