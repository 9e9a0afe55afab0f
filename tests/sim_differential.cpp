// SPDX-License-Identifier: Apache-2.0
//
// The simulated kernel beside the real one: the same random operations on both, and the same
// answers and readiness from both.
//
// Known differences, which the operations here keep away from: how many bytes fit (a socket pair
// counts memory in Linux, bytes here; TCP adapts its buffers), which of several ready descriptors
// comes first in a batch, port numbers, what a connection between two machines would do, and after
// a reset whether bytes that were still on their way had arrived. What TCP does takes a moment in
// Linux, so its state is awaited, not asked for once.
#include "catch.hpp"

#include <reactor/buffer.hpp>
#include <reactor/net/address.hpp>
#include <reactor/os/kernel.hpp>
#include <reactor/sim/kernel.hpp>
#include <reactor/sim/storm.hpp>

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <array>
#include <cstdlib>
#include <map>
#include <string>
#include <thread>

using namespace reactor;
using namespace std::chrono_literals;

namespace {

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* const text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

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
};
struct Simulated : sim::Kernel {
    static os::Result pipe(int& reading, int& writing) {
        return sim::World::current()->pipe(reading, writing);
    }
    static os::Result always() { return sim::World::current()->open(sim::File::Kind::always); }
};

/// Descriptors by a number of our own: on both kernels number n is the same thing.
template <class Kernel>
class Side {
  public:
    static constexpr std::size_t places = 12;

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
            bits[events[n].data.u64] |= events[n].events;
        }
        return bits;
    }

    std::array<int, places> fds = [] {
        std::array<int, places> none{};
        none.fill(-1);
        return none;
    }();
};

/// A connected pair by TCP, through a listener that is gone when this returns.
template <class Kernel>
bool tcp_pair(int& client, int& server) {
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

std::string text_of_bits(const std::array<short, 12>& bits) {
    std::string text;
    for (const short each : bits) {
        text += std::to_string(each) + " ";
    }
    return text;
}

class Comparison {
  public:
    explicit Comparison(sim::World& of) : world(of) {}

    void run(std::size_t steps) {
        for (std::size_t n = 0; n < steps && world.failure().empty(); ++n) {
            step();
            settle();
        }
    }
    std::size_t operations = 0;

  private:
    enum class What { none, pair, tcp, pipe_read, pipe_write, event, epoll, always };

    void same(const char* what, os::Result here, os::Result there, bool values = true) {
        ++operations;
        world.note(std::string(what) + " " + show(here));
        if (here.error != there.error || (values && here.value != there.value)) {
            world.fail(std::string(what) + ": Linux says " + show(here) + ", the simulator " +
                       show(there));
        }
    }
    static std::string show(os::Result result) {
        return result.ok() ? std::to_string(result.value) : result.code().message();
    }

    void step() {
        const auto place = static_cast<std::size_t>(world.random.below(places));
        if (is[place] == What::none) {
            return make(place);
        }
        switch (world.random.below(10)) {
        case 0:
        case 1:
        case 2:
            return write(place);
        case 3:
        case 4:
            return read(place);
        case 5:
            return shut(place);
        case 6:
            return world.random.below(2) == 0 ? close(place) : ask_error(place);
        case 7:
            return duplicate(place);
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
    void make(std::size_t place) {
        is[place] = What::event; // taken, while another is looked for
        const std::size_t other = free_place();
        is[place] = What::none;
        int a = -1;
        int b = -1;
        int c = -1;
        int d = -1;
        switch (world.random.below(7)) {
        case 0:
            real.put(place, Real::event_fd().fd());
            simulated.put(place, Simulated::event_fd().fd());
            is[place] = What::event;
            return;
        case 1:
        case 2:
            real.put(place, Real::epoll_create().fd());
            simulated.put(place, Simulated::epoll_create().fd());
            is[place] = What::epoll;
            return;
        case 3:
            if (world.random.below(3) == 0) {
                real.put(place, Real::always().fd());
                simulated.put(place, Simulated::always().fd());
                is[place] = What::always;
            }
            return;
        case 4:
            if (other < places) {
                same("pipe", Real::pipe(a, b), Simulated::pipe(c, d));
                adopt(place, other, What::pipe_read, What::pipe_write, a, b, c, d);
            }
            return;
        case 5:
            if (other < places) {
                same("pair", Real::stream_pair(a, b), Simulated::stream_pair(c, d));
                adopt(place, other, What::pair, What::pair, a, b, c, d);
            }
            return;
        default:
            if (other < places) {
                if (!tcp_pair<Real>(a, b) || !tcp_pair<Simulated>(c, d)) {
                    world.fail("no TCP connection can be made");
                }
                adopt(place, other, What::tcp, What::tcp, a, b, c, d);
            }
            return;
        }
    }
    void adopt(std::size_t place, std::size_t other, What one, What two, int a, int b, int c,
               int d) {
        real.put(place, a);
        real.put(other, b);
        simulated.put(place, c);
        simulated.put(other, d);
        is[place] = one;
        is[other] = two;
    }

    void write(std::size_t place) {
        const std::size_t size =
            is[place] == What::event ? 8 : world.random.between(std::size_t{1}, std::size_t{60});
        const std::string text(size, static_cast<char>('a' + world.random.below(3)));
        const std::span<const std::byte> bytes = bytes_of(text);
        const iovec part{const_cast<char*>(text.data()), size};
        const std::span<const iovec> parts(&part, 1);
        if (is[place] == What::pair || is[place] == What::tcp) {
            same("send", Real::send(real.at(place), bytes),
                 Simulated::send(simulated.at(place), bytes));
        } else if (is[place] != What::epoll) {
            same("write", Real::write(real.at(place), parts),
                 Simulated::write(simulated.at(place), parts));
        }
    }
    void read(std::size_t place) {
        std::array<std::byte, 64> one{};
        std::array<std::byte, 64> other{};
        const std::size_t most = is[place] == What::event
                                     ? 8
                                     : world.random.between(std::size_t{1}, one.size());
        const auto into = std::span(one).first(most);
        const auto into_other = std::span(other).first(most);
        if (is[place] == What::pair || is[place] == What::tcp) {
            same("recv", Real::recv(real.at(place), into),
                 Simulated::recv(simulated.at(place), into_other));
        } else if (is[place] != What::epoll) {
            same("read", Real::read(real.at(place), into),
                 Simulated::read(simulated.at(place), into_other));
        }
        if (one != other) {
            world.fail("other bytes are read");
        }
    }
    void shut(std::size_t place) {
        if (is[place] == What::epoll || world.random.below(2) == 0) {
            return;
        }
        same("shutdown_write", Real::shutdown_write(real.at(place)),
             Simulated::shutdown_write(simulated.at(place)));
    }
    void ask_error(std::size_t place) {
        same("SO_ERROR", Real::option(real.at(place), SOL_SOCKET, SO_ERROR),
             Simulated::option(simulated.at(place), SOL_SOCKET, SO_ERROR));
        socklen_t size = 0;
        socklen_t other = 0;
        same("peer_name", Real::peer_name(real.at(place), nullptr, &size),
             Simulated::peer_name(simulated.at(place), nullptr, &other), false);
    }
    void close(std::size_t place) {
        if (is[place] == What::tcp && world.random.below(3) == 0) {
            const ::linger at_once{1, 0};
            Real::set_option_to(real.at(place), SOL_SOCKET, SO_LINGER, at_once);
            Simulated::set_option_to(simulated.at(place), SOL_SOCKET, SO_LINGER, at_once);
        }
        real.close(place);
        simulated.close(place);
        is[place] = What::none;
    }
    void duplicate(std::size_t place) {
        const std::size_t other = free_place();
        if (other < places && world.random.below(2) == 0) {
            real.put(other, Real::duplicate(real.at(place)).fd());
            simulated.put(other, Simulated::duplicate(simulated.at(place)).fd());
            is[other] = is[place];
        }
    }
    void control(std::size_t place) {
        for (std::size_t n = 0; n < places; ++n) {
            const std::size_t set = (place + n) % places;
            if (is[set] != What::epoll || n == 0) {
                continue;
            }
            if (is[place] == What::epoll) {
                return; // sets in sets: a test of its own
            }
            const auto operation = static_cast<int>(1 + world.random.below(3));
            const auto events = static_cast<std::uint32_t>(
                (world.random.below(2) == 0 ? EPOLLIN | EPOLLRDHUP : 0U) |
                (world.random.below(2) == 0 ? EPOLLOUT : 0U));
            const std::uint64_t data = ++next_data;
            same("epoll_ctl",
                 Real::epoll_control(real.at(set), operation, real.at(place), events, data),
                 Simulated::epoll_control(simulated.at(set), operation, simulated.at(place), events,
                                          data));
            return;
        }
    }

    /// Both show the same, by poll and by every epoll set; TCP has a moment for it.
    void settle() {
        if (!world.failure().empty()) {
            return;
        }
        for (int tries = 0;; ++tries) {
            const std::string difference = differs();
            if (difference.empty()) {
                return;
            }
            if (tries == 2000) {
                return world.fail(difference);
            }
            std::this_thread::sleep_for(tries < 10 ? 10us : 1ms);
        }
    }
    std::string differs() {
        const auto one = real.readiness();
        const auto other = simulated.readiness();
        if (one != other) {
            return "poll: Linux says " + text_of_bits(one) + ", the simulator " +
                   text_of_bits(other);
        }
        for (std::size_t n = 0; n < places; ++n) {
            if (is[n] == What::epoll && real.reports(n) != simulated.reports(n)) {
                return "epoll: other reports in set " + std::to_string(n);
            }
            if (is[n] == What::tcp) {
                int waiting = 0;
                ::ioctl(real.at(n), FIONREAD, &waiting);
                const sim::File* const file = world.find(simulated.at(n));
                if (static_cast<std::size_t>(waiting) != file->side()->in.size()) {
                    return "other bytes wait in " + std::to_string(n) + ": " +
                           std::to_string(waiting) + ", the simulator " +
                           std::to_string(file->side()->in.size());
                }
            }
        }
        return {};
    }

    static constexpr std::size_t places = Side<Real>::places;
    sim::World& world;
    Side<Real> real;
    Side<Simulated> simulated;
    std::array<What, places> is{};
    std::uint64_t next_data = 0;
};

} // namespace

TEST_CASE("the simulated kernel answers as Linux does, whatever is asked for") {
    const std::uint64_t seeds = from_environment("REACTOR_SIM_SEEDS", 150);
    const std::uint64_t first = from_environment("REACTOR_SIM_FIRST", 1);
    std::size_t operations = 0;
    const auto found = sim::search(first, seeds, {}, [&](sim::World& world) {
        Comparison comparison(world);
        comparison.run(150);
        operations += comparison.operations;
    });
    INFO((found ? found->to_string() : ""));
    CHECK(!found);
    CHECK(operations > (found ? 0 : seeds * 20)); // else it compares next to nothing
}
