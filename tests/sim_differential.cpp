// SPDX-License-Identifier: Apache-2.0
//
// The simulated kernel beside the real one: the same random operations on both, and the same
// answers, readiness, reports, names and options from both.
//
// Known differences, which the operations here keep away from: how many bytes fit (a UNIX socket
// counts memory in Linux, bytes here; TCP adapts its buffers), which of several ready descriptors
// comes first in a batch, port numbers, a TCP socket that is used again after its connection, ports
// that linger after a close, a TCP socket that connects to itself, what a connection between two machines would do, and after a reset
// whether bytes that were still on their way had arrived. What TCP does takes a moment in Linux, so
// its state is awaited, not asked for once.
//
// REACTOR_SIM_SEEDS is how many histories to run, REACTOR_SIM_FIRST the first seed; with the first
// of them set, what was run is printed as a table.
#include "catch.hpp"
#include "from_environment.hpp"

#include <reactor/buffer.hpp>
#include <reactor/net/address.hpp>
#include <reactor/os/kernel.hpp>
#include <reactor/sim/kernel.hpp>
#include <reactor/sim/storm.hpp>

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <map>
#include <string>
#include <thread>

using namespace reactor;
using namespace std::chrono_literals;

namespace {

/// The real kernel, with what the simulated world has besides.
struct Real : os::Kernel {
    static os::Result pipe(int& reading, int& writing) {
        int ends[2];
        if (::pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) {
            return {0, errno};
        }
        reading = ends[0];
        writing = ends[1];
        return {};
    }
    static os::Result always() {
        const int fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
        return fd < 0 ? os::Result{0, errno} : os::Result{fd, 0};
    }
    static void raise(int signal) { ::raise(signal); }
};
struct Simulated : sim::Kernel {
    static os::Result pipe(int& reading, int& writing) {
        return sim::World::current()->pipe(reading, writing);
    }
    static os::Result always() { return sim::World::current()->always_ready(); }
    static void raise(int signal) { sim::World::current()->raise(signal); }
};

constexpr std::size_t places = 16;

/// Descriptors by a number of our own: on both kernels number n is the same thing.
template <class KernelType>
class Side {
  public:
    using Kernel = KernelType;

    Side() { fds.fill(-1); }
    Side(const Side&) = delete;
    Side& operator=(const Side&) = delete;
    ~Side() {
        for (const int fd : fds) {
            if (fd >= 0) {
                Kernel::close(fd);
            }
        }
    }
    [[nodiscard]] int at(std::size_t place) const { return fds[place]; }
    void put(std::size_t place, int fd) { fds[place] = fd; }
    void close(std::size_t place) { Kernel::close(std::exchange(fds[place], -1)); }

    /// poll(2) of everything, every bit asked for.
    [[nodiscard]] std::array<short, places> readiness() const {
        std::array<pollfd, places> polled{};
        for (std::size_t n = 0; n < places; ++n) {
            polled[n] = {fds[n], POLLIN | POLLOUT | POLLRDHUP | POLLPRI, 0};
        }
        Kernel::poll(polled, Duration::zero());
        std::array<short, places> bits{};
        for (std::size_t n = 0; n < places; ++n) {
            bits[n] = polled[n].revents;
        }
        return bits;
    }
    /// What an epoll set reports: bits by the data that was registered.
    [[nodiscard]] std::map<std::uint64_t, std::uint32_t> reports(std::size_t place) const {
        std::array<epoll_event, 64> events{};
        const os::Result waited = Kernel::epoll_wait(fds[place], events, 0);
        std::map<std::uint64_t, std::uint32_t> bits;
        for (std::size_t n = 0; n < waited.count(); ++n) {
            const std::uint64_t data = events[n].data.u64; // a packed struct: no reference to it
            bits[data] |= events[n].events;
        }
        return bits;
    }
    /// Its own address, or its peer's.
    [[nodiscard]] Address name(std::size_t place, bool of_peer = false) const {
        return Address::filled([&](sockaddr* name, socklen_t* size) {
            of_peer ? Kernel::peer_name(fds[place], name, size)
                    : Kernel::local_name(fds[place], name, size);
        });
    }
    [[nodiscard]] int tcp_state(std::size_t place) const {
        os::TcpInfoFields info{};
        const os::Result asked = Kernel::option_into(fds[place], IPPROTO_TCP, TCP_INFO, info);
        return asked.ok() ? info.kernel.tcpi_state : -asked.error;
    }

  private:
    std::array<int, places> fds{};
};

/// What was run, by the name of the call.
struct Tally {
    std::map<std::string, std::size_t> calls{};
    std::size_t operations = 0;
    std::size_t comparisons = 0; ///< of all that can be seen from outside, once a step
};

class Comparison {
  public:
    Comparison(sim::World& of, Tally& into, const std::string& directory)
        : world(of), tally(into), paths(directory) {
        sigset_t set;
        ::sigemptyset(&set);
        ::sigaddset(&set, SIGUSR1);
        ::sigaddset(&set, SIGUSR2);
        held = set;
        sigset_t before;
        Real::hold_signals(held, before);
        Simulated::hold_signals(held, before);
    }
    Comparison(const Comparison&) = delete;
    Comparison& operator=(const Comparison&) = delete;
    ~Comparison() {
        Real::release_signals(held);
        for (std::size_t n = 0; n < 3; ++n) {
            Real::unlink(path(n).c_str());
        }
    }

    void run(std::size_t steps) {
        for (std::size_t n = 0; n < steps && world.failure().empty(); ++n) {
            step();
            settle();
        }
    }

  private:
    enum class What { none, tcp, unix_socket, pipe_read, pipe_write, event, epoll, edges, signals,
                      always };

    [[nodiscard]] bool is_socket(std::size_t place) const {
        return is[place] == What::tcp || is[place] == What::unix_socket;
    }
    [[nodiscard]] bool chance(std::uint64_t of) { return world.random.below(of) == 0; }
    template <class T, std::size_t count>
    [[nodiscard]] const T& one_of(const T (&all)[count]) {
        return all[world.random.below(count)];
    }

    void same(const char* what, os::Result here, os::Result there, bool values = true) {
        ++tally.operations;
        ++tally.calls[what];
        world.note(std::string(what) + " " + show(here));
        if (here.error != there.error || (values && here.value != there.value)) {
            world.fail(std::string(what) + ": Linux says " + show(here) + ", the simulator " +
                       show(there));
        }
    }
    static std::string show(os::Result result) {
        return result.ok() ? std::to_string(result.value) : result.code().message();
    }
    /// `call(side)` on both; what it answers is the same. Returns whether it was done.
    template <class Call>
    bool both(const char* what, std::size_t place, Call&& call, bool values = true) {
        const os::Result here = call(real);
        const os::Result there = call(simulated);
        world.note("place " + std::to_string(place));
        same(what, here, there, values);
        return here.ok();
    }
    template <class Side>
    using KernelOf = typename std::decay_t<Side>::Kernel;

    // -- what can be done -------------------------------------------------------------------------

    void step() {
        const auto place = static_cast<std::size_t>(world.random.below(places));
        if (is[place] == What::none) {
            return make(place);
        }
        switch (world.random.below(14)) {
        case 0:
        case 1:
            return write(place);
        case 2:
        case 3:
            return read(place);
        case 4:
            return shut(place);
        case 5:
            return chance(2) ? close(place) : ask(place);
        case 6:
            return duplicate(place);
        case 7:
            return options(place);
        case 8:
        case 9:
            return join(place);
        case 10:
            return chance(2) ? files() : signal();
        default:
            return control(place);
        }
    }
    std::size_t free_place() {
        for (std::size_t n = 0; n < places; ++n) {
            if (is[n] == What::none) {
                return n;
            }
        }
        return places;
    }
    /// Another place that is such a thing; `places` if there is none.
    std::size_t another(std::size_t place, What what) {
        const auto from = static_cast<std::size_t>(world.random.below(places));
        for (std::size_t n = 0; n < places; ++n) {
            const std::size_t other = (from + n) % places;
            if (other != place && is[other] == what) {
                return other;
            }
        }
        return places;
    }
    void adopt(std::size_t place, What what, int here, int there) {
        real.put(place, here);
        simulated.put(place, there);
        is[place] = what;
        births[place] = ++next_birth;
    }
    void make(std::size_t place) {
        is[place] = What::event; // taken, while another is looked for
        const std::size_t other = free_place();
        is[place] = What::none;
        int a = -1;
        int b = -1;
        int c = -1;
        int d = -1;
        switch (world.random.below(13)) {
        case 0:
            return adopt(place, What::event, Real::event_fd().fd(), Simulated::event_fd().fd());
        case 1:
        case 2:
            return adopt(place, What::epoll, Real::epoll_create().fd(),
                         Simulated::epoll_create().fd());
        case 3:
            return adopt(place, What::edges, Real::epoll_create().fd(),
                         Simulated::epoll_create().fd());
        case 4:
            return chance(2) ? adopt(place, What::always, Real::always().fd(),
                                     Simulated::always().fd())
                             : make_signals(place);
        case 5:
            if (other < places) {
                same("pipe", Real::pipe(a, b), Simulated::pipe(c, d));
                adopt(place, What::pipe_read, a, c);
                adopt(other, What::pipe_write, b, d);
            }
            return;
        case 6:
            if (other < places) {
                same("stream_pair", Real::stream_pair(a, b), Simulated::stream_pair(c, d));
                adopt(place, What::unix_socket, a, c);
                adopt(other, What::unix_socket, b, d);
            }
            return;
        case 7:
        case 8:
            if (other < places) {
                const bool made = tcp_pair<Real>(a, b) && tcp_pair<Simulated>(c, d);
                adopt(place, What::tcp, a, c);
                adopt(other, What::tcp, b, d);
                made ? void() : world.fail("no TCP connection can be made");
            }
            return;
        case 9:
            return make_socket(place, AF_UNIX, What::unix_socket);
        case 10:
            return make_socket(place, AF_INET6, What::tcp);
        default:
            return make_socket(place, chance(2) ? AF_UNIX : AF_INET, What::tcp);
        }
    }
    void make_socket(std::size_t place, int family, What what) {
        const os::Result here = Real::stream_socket(family);
        const os::Result there = Simulated::stream_socket(family);
        same("stream_socket", here, there, false);
        adopt(place, family == AF_UNIX ? What::unix_socket : what, here.fd(), there.fd());
    }
    void make_signals(std::size_t place) {
        sigset_t set;
        ::sigemptyset(&set);
        if (chance(2)) {
            ::sigaddset(&set, SIGUSR1);
        }
        ::sigaddset(&set, SIGUSR2);
        adopt(place, What::signals, Real::signal_fd(set).fd(), Simulated::signal_fd(set).fd());
    }

    /// A connected pair by TCP, through a listener that is gone when this returns.
    template <class Kernel>
    static bool tcp_pair(int& client, int& server) {
        const os::Result listener = Kernel::stream_socket(AF_INET);
        const Address any = Address::loopback_ipv4(0);
        bool good = listener.ok() && Kernel::bind(listener.fd(), any.data(), any.size()).ok() &&
                    Kernel::listen(listener.fd(), 8).ok();
        const Address at = Address::filled([&](sockaddr* name, socklen_t* size) {
            Kernel::local_name(listener.fd(), name, size);
        });
        const os::Result made = Kernel::stream_socket(AF_INET);
        good = good && made.ok();
        client = made.fd();
        good = good && Kernel::connect(client, at.data(), at.size()).error == EINPROGRESS;
        pollfd waiting{listener.fd(), POLLIN, 0};
        Kernel::poll({&waiting, 1}, 2s);
        const os::Result accepted = Kernel::accept(listener.fd(), nullptr, nullptr);
        server = accepted.fd_or_none();
        pollfd connecting{client, POLLOUT, 0};
        Kernel::poll({&connecting, 1}, 2s);
        Kernel::close(listener.fd());
        return good && accepted.ok();
    }

    // -- bytes ------------------------------------------------------------------------------------

    void write(std::size_t place) {
        if (is[place] == What::event) {
            static constexpr std::uint64_t numbers[] = {
                0, 1, 1, 2, ~std::uint64_t{0}, ~std::uint64_t{0} - 1, ~std::uint64_t{0} - 2};
            const std::uint64_t number = one_of(numbers);
            return write_as(place, std::as_bytes(std::span(&number, 1)));
        }
        const std::size_t size = world.random.between(std::size_t{1}, std::size_t{60});
        const std::string text(size, static_cast<char>('a' + world.random.below(3)));
        write_as(place, bytes_of(text));
    }
    void write_as(std::size_t place, std::span<const std::byte> bytes) {
        const std::size_t half = bytes.size() / 2;
        auto* const begin = const_cast<std::byte*>(bytes.data());
        const iovec parts[] = {{begin, half}, {begin + half, bytes.size() - half}};
        const bool whole = chance(2) || is[place] == What::event;
        const iovec one[] = {{begin, bytes.size()}};
        if (is_socket(place) && chance(2)) {
            both("send", place, [&](auto& side) {
                return KernelOf<decltype(side)>::send(side.at(place), bytes);
            });
        } else if (is_socket(place)) {
            both("send of parts", place, [&](auto& side) {
                return KernelOf<decltype(side)>::send(side.at(place), std::span(parts));
            });
        } else if (is[place] != What::epoll && is[place] != What::edges) {
            both("write", place, [&](auto& side) {
                return KernelOf<decltype(side)>::write(
                    side.at(place), whole ? std::span<const iovec>(one) : std::span(parts));
            });
        }
    }
    void read(std::size_t place) {
        if (is[place] == What::signals) {
            return read_signal(place);
        }
        std::array<std::byte, 64> here{};
        std::array<std::byte, 64> there{};
        const std::size_t most = is[place] == What::event
                                     ? 8
                                     : world.random.between(std::size_t{1}, here.size());
        const auto into = [&](auto& side) {
            return std::same_as<KernelOf<decltype(side)>, Real> ? std::span(here).first(most)
                                                                : std::span(there).first(most);
        };
        if (is_socket(place) && chance(4)) {
            both("peek", place, [&](auto& side) {
                return KernelOf<decltype(side)>::peek(side.at(place), into(side));
            });
        } else if (is_socket(place) && chance(2)) {
            both("recv", place, [&](auto& side) {
                return KernelOf<decltype(side)>::recv(side.at(place), into(side));
            });
        } else if (is[place] != What::epoll && is[place] != What::edges) {
            both("read", place, [&](auto& side) {
                return KernelOf<decltype(side)>::read(side.at(place), into(side));
            });
        } else {
            both("recv of what is no socket", place, [&](auto& side) {
                return KernelOf<decltype(side)>::recv(side.at(place), into(side));
            });
        }
        if (here != there) {
            world.fail("other bytes are read");
        }
    }
    void read_signal(std::size_t place) {
        signalfd_siginfo here{};
        signalfd_siginfo there{};
        same("read of signals",
             Real::read(real.at(place), std::as_writable_bytes(std::span(&here, 1))),
             Simulated::read(simulated.at(place), std::as_writable_bytes(std::span(&there, 1))));
        if (here.ssi_signo != there.ssi_signo) {
            world.fail("another signal is read");
        }
    }
    void signal() {
        const int number = chance(2) ? SIGUSR1 : SIGUSR2;
        Real::raise(number);
        Simulated::raise(number);
    }

    // -- sockets ----------------------------------------------------------------------------------

    void shut(std::size_t place) {
        if (is[place] == What::epoll || is[place] == What::edges || chance(2) ||
            is_in_making(place)) {
            return;
        }
        both("shutdown_write", place, [&](auto& side) {
            return KernelOf<decltype(side)>::shutdown_write(side.at(place));
        });
    }
    /// A UNIX socket that is not connected keeps in mind that it was shut.
    [[nodiscard]] bool is_in_making(std::size_t place) {
        const sim::File& file = *world.find(simulated.at(place));
        return file.is_socket() && !file.connection;
    }
    void ask(std::size_t place) {
        if (!is_socket(place) && chance(4)) {
            both("traits", place, [&](auto& side) {
                os::FdTraits traits;
                const os::Result result =
                    KernelOf<decltype(side)>::traits(side.at(place), traits);
                return os::Result{(traits.socket ? 1 : 0) + (traits.character_device ? 2 : 0) +
                                      (traits.readable ? 4 : 0) + (traits.writable ? 8 : 0),
                                  result.error};
            });
        }
        for (const int name : {SO_ERROR, SO_ACCEPTCONN, SO_DOMAIN, SO_TYPE}) {
            both("option", place, [&](auto& side) {
                return KernelOf<decltype(side)>::option(side.at(place), SOL_SOCKET, name);
            });
        }
        for (const bool of_peer : {false, true}) {
            both(
                of_peer ? "peer_name" : "local_name", place,
                [&](auto& side) {
                    sockaddr_un name{};
                    socklen_t size = sizeof name;
                    auto* const at = reinterpret_cast<sockaddr*>(&name);
                    using Kernel = KernelOf<decltype(side)>;
                    const os::Result result =
                        of_peer ? Kernel::peer_name(side.at(place), at, &size)
                                : Kernel::local_name(side.at(place), at, &size);
                    return os::Result{result.ok() ? static_cast<long>(size) : 0, result.error};
                });
            const Address here = real.name(place, of_peer);
            const Address there = simulated.name(place, of_peer);
            if (here.with_port(0) != there.with_port(0) ||
                (here.port() == 0) != (there.port() == 0)) {
                world.fail("other names: " + here.to_string() + " and " + there.to_string());
            }
        }
    }
    void options(std::size_t place) {
        struct Option {
            int level;
            int name;
            int values[4];
        };
        static constexpr Option all[] = {
            {SOL_SOCKET, SO_REUSEADDR, {0, 1, 2, 1}},
            {SOL_SOCKET, SO_REUSEPORT, {0, 1, 2, 1}},
            {SOL_SOCKET, SO_KEEPALIVE, {0, 1, 1, 1}},
            {SOL_SOCKET, SO_RCVBUF, {60'000, 100'000, 80'000, 70'000}},
            {SOL_SOCKET, SO_SNDBUF, {60'000, 100'000, 80'000, 70'000}},
            {IPPROTO_TCP, TCP_NODELAY, {0, 1, 7, 1}},
            {IPPROTO_TCP, TCP_KEEPIDLE, {0, 100, 32'767, 32'768}},
            {IPPROTO_TCP, TCP_KEEPINTVL, {0, 100, 32'767, 32'768}},
            {IPPROTO_TCP, TCP_KEEPCNT, {0, 1, 127, 128}},
            {IPPROTO_TCP, TCP_USER_TIMEOUT, {0, 1'000'000, 2'000'000, -1}},
            {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, {0, 1, 1, 1}},
            {IPPROTO_IPV6, IPV6_V6ONLY, {0, 1, 1, 1}},
        };
        const Option& option = one_of(all);
        const sim::File& file = *world.find(simulated.at(place));
        const bool is_over = file.connection && file.connection->is_over(file.which);
        if (chance(2) && !(is_over && option.name == IPV6_V6ONLY)) {
            const int value = one_of(option.values);
            both("set_option", place, [&](auto& side) {
                return KernelOf<decltype(side)>::set_option(side.at(place), option.level,
                                                            option.name, value);
            });
        }
        // The sizes that a socket begins with are the system's, and TCP changes them.
        const bool has_size = (option.name != SO_RCVBUF || file.options.receive_buffer != 0) &&
                              (option.name != SO_SNDBUF || file.options.send_buffer != 0);
        both(
            "option", place,
            [&](auto& side) {
                return KernelOf<decltype(side)>::option(side.at(place), option.level, option.name);
            },
            option.level != SOL_SOCKET || has_size);
        if (chance(4)) {
            both("option SO_LINGER", place, [&](auto& side) {
                ::linger value{-1, -1};
                const os::Result result = KernelOf<decltype(side)>::option_into(
                    side.at(place), SOL_SOCKET, SO_LINGER, value);
                return os::Result{value.l_onoff * 1000 + value.l_linger, result.error};
            });
            both("option SO_PEERCRED", place, [&](auto& side) {
                ::ucred value{};
                const os::Result result = KernelOf<decltype(side)>::option_into(
                    side.at(place), SOL_SOCKET, SO_PEERCRED, value);
                return os::Result{result.ok() && value.pid != 0 ? 1 : 0, result.error};
            });
        }
    }
    [[nodiscard]] std::string path(std::size_t n) const { return paths + "/" + std::to_string(n); }

    /// Names, listens, connects, accepts.
    void join(std::size_t place) {
        if (is[place] == What::unix_socket) {
            return join_unix(place);
        }
        switch (world.random.below(5)) {
        case 0:
            return bind(place);
        case 1:
            // TCP drops who finds the backlog full, and tries again in a second.
            both("listen", place, [&](auto& side) {
                return KernelOf<decltype(side)>::listen(side.at(place), 64);
            });
            return;
        case 2:
            return accept(place);
        default:
            return connect(place);
        }
    }
    void bind(std::size_t place) {
        if (world.find(simulated.at(place))->connection) {
            return; // once it is over Linux lets it begin again
        }
        const std::size_t other = another(place, What::tcp);
        if (other < places && chance(2) && !has_lingering_port(other)) {
            both("bind", place, [&](auto& side) {
                const Address at = side.name(other);
                return KernelOf<decltype(side)>::bind(side.at(place), at.data(), at.size());
            });
            return;
        }
        const Address addresses[] = {Address::loopback_ipv4(0), Address::any_ipv4(0),
                                     Address::loopback_ipv6(0), Address::any_ipv6(0)};
        const Address& at = one_of(addresses);
        both("bind", place, [&](auto& side) {
            return KernelOf<decltype(side)>::bind(side.at(place), at.data(), at.size());
        });
    }
    /// Of a connection Linux holds a port longer than its sockets live.
    [[nodiscard]] bool has_lingering_port(std::size_t place) {
        const sim::File& file = *world.find(simulated.at(place));
        return file.connection != nullptr || real.name(place).port() == 0 || was_called[place];
    }
    void connect(std::size_t place) {
        const std::size_t other = another(place, What::tcp);
        if (is[place] != What::tcp || other == places) {
            return;
        }
        const sim::File& mine = *world.find(simulated.at(place));
        const sim::File& its = *world.find(simulated.at(other));
        const bool to_listener = its.backlog != nullptr;
        const bool to_bound = !its.bound.empty() && !its.connection && !its.backlog;
        const bool again = mine.connection && mine.side()->established &&
                           !mine.connection->is_over(mine.which) && mine.side()->error == 0;
        const bool to_itself = &mine == &its;
        if ((!to_listener && !to_bound) || (mine.connection && !again) || to_itself) {
            return;
        }
        was_called[other] = true;
        if (both("connect", place, [&](auto& side) {
                const Address to = side.name(other);
                return KernelOf<decltype(side)>::connect(side.at(place), to.data(), to.size());
            })) {
            was_called[place] = true;
        }
    }
    void accept(std::size_t place) {
        const std::size_t other = free_place();
        if (other == places) {
            return;
        }
        Address from_here;
        Address from_there;
        os::Result here;
        os::Result there;
        from_here = Address::filled([&](sockaddr* at, socklen_t* size) {
            here = Real::accept(real.at(place), at, size);
            *size = here.ok() ? *size : 0;
        });
        from_there = Address::filled([&](sockaddr* at, socklen_t* size) {
            there = Simulated::accept(simulated.at(place), at, size);
            *size = there.ok() ? *size : 0;
        });
        const What what = is[place];
        if (here.ok() && there.ok()) {
            adopt(other, what, here.fd(), there.fd());
            was_called[other] = true;
            if (from_here.with_port(0) != from_there.with_port(0)) {
                world.fail("another client: " + from_here.to_string() + " and " +
                           from_there.to_string());
            }
        } else if (here.ok()) {
            Real::close(here.fd());
        }
        same("accept", here, there, false);
    }
    void join_unix(std::size_t place) {
        const sim::File& mine = *world.find(simulated.at(place));
        std::error_code error;
        const bool abstract = chance(3);
        const auto n = static_cast<std::size_t>(world.random.below(3));
        const Address name =
            Address::parse(abstract ? "unix:@" + path(n) : "unix:" + path(n), error);
        const Address odd = Address::loopback_ipv4(1);
        const Address& at = chance(20) ? odd : name;
        switch (world.random.below(6)) {
        case 0:
            if (!mine.connection && !mine.backlog) {
                const unsigned mode = chance(2) ? 0700 : 0666;
                if (chance(2)) {
                    both("set_mode", place, [&](auto& side) {
                        return KernelOf<decltype(side)>::set_mode(side.at(place), mode);
                    });
                }
            }
            both("bind", place, [&](auto& side) {
                return KernelOf<decltype(side)>::bind(side.at(place), at.data(), at.size());
            });
            return;
        case 1: {
            const auto limit = static_cast<int>(world.random.below(3));
            both("listen", place, [&](auto& side) {
                return KernelOf<decltype(side)>::listen(side.at(place), limit);
            });
            return;
        }
        case 2:
        case 3:
            return accept(place);
        default:
            both("connect", place, [&](auto& side) {
                return KernelOf<decltype(side)>::connect(side.at(place), at.data(), at.size());
            });
            return;
        }
    }
    void files() {
        const std::string at = path(static_cast<std::size_t>(world.random.below(3)));
        const unsigned mode = chance(2) ? 0755 : 0600;
        switch (world.random.below(3)) {
        case 0:
            both("file_traits", 0, [&](auto& side) {
                os::FileTraits traits;
                const os::Result result =
                    KernelOf<decltype(side)>::file_traits(at.c_str(), traits);
                return os::Result{static_cast<long>(traits.mode) + (traits.socket ? 100'000 : 0),
                                  result.error};
            });
            return;
        case 1:
            both("set_mode_at", 0, [&](auto& side) {
                return KernelOf<decltype(side)>::set_mode_at(at.c_str(), mode);
            });
            return;
        default:
            both("unlink", 0,
                 [&](auto& side) { return KernelOf<decltype(side)>::unlink(at.c_str()); });
            return;
        }
    }

    // -- descriptors and epoll --------------------------------------------------------------------

    void close(std::size_t place) {
        if (is[place] == What::tcp && chance(3)) {
            const ::linger at_once{1, 0};
            Real::set_option_to(real.at(place), SOL_SOCKET, SO_LINGER, at_once);
            Simulated::set_option_to(simulated.at(place), SOL_SOCKET, SO_LINGER, at_once);
        }
        real.close(place);
        simulated.close(place);
        ++tally.operations;
        ++tally.calls["close"];
        is[place] = What::none;
        was_called[place] = false;
    }
    void duplicate(std::size_t place) {
        const std::size_t other = free_place();
        if (other < places && chance(2)) {
            const os::Result here = Real::duplicate(real.at(place));
            const os::Result there = Simulated::duplicate(simulated.at(place));
            adopt(other, is[place], here.fd(), there.fd());
            births[other] = births[place];
            was_called[other] = was_called[place];
            same("duplicate", here, there, false);
        }
    }
    void control(std::size_t place) {
        const bool to_edges = chance(4);
        const std::size_t set = another(place, to_edges ? What::edges : What::epoll);
        if (set == places) {
            return;
        }
        const bool is_set = is[place] == What::epoll || is[place] == What::edges;
        // Sets in sets: one within another, never round in a circle, and none that counts edges.
        if (is_set && (to_edges || is[place] == What::edges || births[set] % 2 == 0 ||
                       births[place] % 2 == 1)) {
            return;
        }
        // Where something takes a moment, an edge may be seen before it is compared.
        if (to_edges && is[place] != What::event && is[place] != What::pipe_read) {
            return;
        }
        const auto operation = static_cast<int>(1 + world.random.below(3));
        auto events = static_cast<std::uint32_t>((chance(2) ? EPOLLIN | EPOLLRDHUP : 0U) |
                                                 (chance(2) ? EPOLLOUT : 0U));
        if (to_edges) {
            events = EPOLLIN | (is[place] == What::event ? static_cast<std::uint32_t>(EPOLLET)
                                                         : static_cast<std::uint32_t>(EPOLLONESHOT));
        }
        const std::uint64_t data = ++next_data;
        both("epoll_control", place, [&](auto& side) {
            return KernelOf<decltype(side)>::epoll_control(side.at(set), operation, side.at(place),
                                                           events, data);
        });
    }

    // -- what can be seen -------------------------------------------------------------------------

    /// Both show the same, by poll and by every epoll set; TCP has a moment for it.
    void settle() {
        if (!world.failure().empty()) {
            return;
        }
        ++tally.comparisons;
        for (std::size_t n = 0; n < places; ++n) {
            if (is[n] == What::edges && real.reports(n) != simulated.reports(n)) {
                return world.fail("epoll: other edges in set " + std::to_string(n));
            }
        }
        const Seen there = seen(simulated);
        for (int tries = 0;; ++tries) {
            const std::string difference = differs(seen(real), there);
            if (difference.empty()) {
                return;
            }
            if (tries == 2000) {
                return world.fail(difference);
            }
            std::this_thread::sleep_for(tries < 10 ? 10us : 1ms);
        }
    }
    /// What one of the two shows.
    struct Seen {
        std::array<short, places> readiness{};
        std::array<std::map<std::uint64_t, std::uint32_t>, places> reports{};
        std::array<int, places> states{};  ///< of TCP
        std::array<int, places> waiting{}; ///< bytes to be read
    };
    template <class Kernel>
    [[nodiscard]] Seen seen(const Side<Kernel>& side) const {
        Seen seen;
        seen.readiness = side.readiness();
        for (std::size_t n = 0; n < places; ++n) {
            if (is[n] == What::epoll) {
                seen.reports[n] = side.reports(n);
            } else if (is[n] == What::tcp) {
                seen.states[n] = side.tcp_state(n);
                seen.waiting[n] = waiting(side, n);
            }
        }
        return seen;
    }
    [[nodiscard]] int waiting(const Side<Real>& side, std::size_t place) const {
        int count = 0;
        return ::ioctl(side.at(place), FIONREAD, &count) == 0 ? count : 0;
    }
    [[nodiscard]] int waiting(const Side<Simulated>& side, std::size_t place) const {
        const sim::File& file = *world.find(side.at(place));
        return file.connection ? static_cast<int>(file.side()->in.size()) : 0;
    }
    static std::string differs(const Seen& here, const Seen& there) {
        std::string text;
        const auto hold = [&](const char* what, std::size_t n, auto one, auto other) {
            if (one != other) {
                text += std::string(what) + " of " + std::to_string(n) + ": Linux says " +
                        std::to_string(one) + ", the simulator " + std::to_string(other) + "; ";
            }
        };
        for (std::size_t n = 0; n < places; ++n) {
            hold("readiness", n, here.readiness[n], there.readiness[n]);
            hold("TCP state", n, here.states[n], there.states[n]);
            hold("bytes waiting", n, here.waiting[n], there.waiting[n]);
            if (here.reports[n] != there.reports[n]) {
                text += "other reports in set " + std::to_string(n) + "; ";
            }
        }
        return text;
    }

    sim::World& world;
    Tally& tally;
    std::string paths;
    Side<Real> real;
    Side<Simulated> simulated;
    std::array<What, places> is{};
    std::array<std::uint64_t, places> births{};
    std::array<bool, places> was_called{};
    std::uint64_t next_birth = 0;
    std::uint64_t next_data = 0;
    sigset_t held{};
};

/// A directory of its own for the names of sockets, and the umask that a world has.
struct Scene {
    Scene() {
        char name[] = "/tmp/sim_differential_XXXXXX";
        directory = ::mkdtemp(name) != nullptr ? name : "";
    }
    Scene(const Scene&) = delete;
    Scene& operator=(const Scene&) = delete;
    ~Scene() {
        ::umask(before);
        ::rmdir(directory.c_str());
    }
    mode_t before = ::umask(022);
    std::string directory;
};

} // namespace

TEST_CASE("the simulated kernel answers as Linux does, whatever is asked for") {
    const std::uint64_t seeds = from_environment("REACTOR_SIM_SEEDS", 100);
    const std::uint64_t first = from_environment("REACTOR_SIM_FIRST", 1);
    const Scene scene;
    REQUIRE(!scene.directory.empty());
    Tally tally;
    const auto found = sim::search(first, seeds, {}, [&](sim::World& world) {
        if (seeds == 1) {
            world.trace.keep(1'000'000); // to be read
        }
        Comparison comparison(world, tally, scene.directory);
        comparison.run(150);
    });
    INFO((found ? found->to_string() : ""));
    CHECK(!found);
    CHECK(tally.operations > (found ? 0 : seeds * 60)); // else it compares next to nothing
    if (std::getenv("REACTOR_SIM_SEEDS") != nullptr) {
        std::printf("histories %llu, operations %zu, comparisons of all readiness %zu, "
                    "disagreements %d\n",
                    static_cast<unsigned long long>(seeds), tally.operations, tally.comparisons,
                    found ? 1 : 0);
        for (const auto& [name, count] : tally.calls) {
            std::printf("  %-28s %10zu\n", name.c_str(), count);
        }
    }
}
