// SPDX-License-Identifier: Apache-2.0
//
// UNIX sockets: the file of a listener, clients that come and wait, and who is at the other end.
#include <reactor/net/unix.hpp>
#include <reactor/poller/epoll.hpp>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "faulty_kernel.hpp"
#include "peers.hpp"

using namespace test;

namespace {

namespace fs = std::filesystem;

using FaultyEpoll = BasicEpollPoller<FaultyKernel>;
using FaultyPoll = BasicPollPoller<FaultyKernel>;

using FaultyStream = BasicUnixStream<FaultyKernel>;

template <class Poller>
using Party = Watched<Poller, BasicUnixStream>;

bool is(std::error_code code, int error) {
    return code == std::error_code(error, std::system_category());
}
std::size_t descriptors() {
    const fs::directory_iterator all("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(fs::begin(all), fs::end(all)));
}

/// A directory that others can look into, and that goes with all that is in it.
struct Place {
    Place() {
        std::string name = (fs::temp_directory_path() / "reactor.XXXXXX").string();
        require_ok(::mkdtemp(name.data()) != nullptr, "mkdtemp");
        require_ok(::chmod(name.c_str(), 0755) == 0, "chmod");
        directory = name;
    }
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    ~Place() {
        std::error_code ignored;
        fs::remove_all(directory, ignored);
    }
    [[nodiscard]] std::string path(const char* name = "socket") const {
        return (directory / name).string();
    }
    [[nodiscard]] Address at(const char* name = "socket") const {
        return Address::parse("unix:" + path(name));
    }
    fs::path directory;
};

bool exists(const std::string& path) {
    return fs::symlink_status(path).type() != fs::file_type::not_found;
}
struct stat status_of(const std::string& path) {
    struct stat status {};
    require_ok(::lstat(path.c_str(), &status) == 0, "lstat");
    return status;
}
unsigned mode_of(const std::string& path) { return status_of(path).st_mode & 07777; }

os::Fd socket_of(int type = SOCK_STREAM) {
    os::Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    require_ok(static_cast<bool>(fd), "socket");
    return fd;
}
os::Fd bound(const Address& at, int type = SOCK_STREAM) {
    os::Fd fd = socket_of(type);
    require_ok(::bind(fd.get(), at.data(), at.size()) == 0, "bind");
    return fd;
}
/// Listens without a reactor, for `backlog` + 1 clients.
os::Fd host(const Address& at, int backlog) {
    os::Fd fd = bound(at);
    require_ok(::listen(fd.get(), backlog) == 0, "listen");
    return fd;
}
/// The file of a listener that has died.
void leave_stale(const Address& at) { const os::Fd dead = host(at, 1); }

/// A client without a reactor; none, with errno, if it is not connected at once.
os::Fd try_client(const Address& at) {
    os::Fd fd = socket_of();
    if (calmly([&] { return ::connect(fd.get(), at.data(), at.size()); }) != 0) {
        const int kept = errno;
        fd.reset();
        errno = kept;
    }
    return fd;
}
os::Fd client_of(const Address& at) {
    os::Fd fd = try_client(at);
    require_ok(static_cast<bool>(fd), "connect");
    return fd;
}
os::Fd accept_of(const os::Fd& host) {
    os::Fd fd(::accept4(host.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    require_ok(static_cast<bool>(fd), "accept4");
    return fd;
}

/// Sets the umask as long as it lives.
struct Umask {
    explicit Umask(mode_t mask) : before(::umask(mask)) {}
    Umask(const Umask&) = delete;
    Umask& operator=(const Umask&) = delete;
    ~Umask() { ::umask(before); }
    mode_t before;
};

/// Lets something happen within bind(), and calls fail.
struct BusyKernel : FaultyKernel {
    static inline std::function<void()> after_bind;
    static inline std::function<void()> before_listen;
    static inline std::function<void()> after_probe;
    static inline int listen_error = 0;
    static inline int mode_error = 0;

    static Result bind(int fd, const sockaddr* address, socklen_t size) noexcept {
        const Result result = FaultyKernel::bind(fd, address, size);
        if (result.ok() && after_bind) {
            std::exchange(after_bind, nullptr)();
        }
        return result;
    }
    static Result connect(int fd, const sockaddr* address, socklen_t size) noexcept {
        const Result result = FaultyKernel::connect(fd, address, size);
        if (after_probe) {
            std::exchange(after_probe, nullptr)();
        }
        return result;
    }
    static Result listen(int fd, int backlog) noexcept {
        if (before_listen) {
            std::exchange(before_listen, nullptr)();
        }
        return listen_error != 0 ? Result{0, listen_error} : FaultyKernel::listen(fd, backlog);
    }
    static Result set_mode(int fd, unsigned mode) noexcept {
        return mode_error != 0 ? Result{0, mode_error} : FaultyKernel::set_mode(fd, mode);
    }
};
using BusyListener = BasicUnixListener<BusyKernel>;

/// Sends back what comes; notes what listeners yield.
template <class KernelType>
struct Gate : Service<BasicUnixListener<KernelType>, BasicUnixStream<KernelType>> {
    using Listener = BasicUnixListener<KernelType>;
    using Stream = BasicUnixStream<KernelType>;
    using typename Gate::Service::Actions;
    using typename Gate::Service::Error;

    void tick(Actions& actions) {
        if (const auto job = std::exchange(next, nullptr)) {
            job(actions);
        }
    }
    void handle_listener_event(ResourceId, typename Listener::Event accepted, Actions& actions) {
        peers.push_back(accepted.peer);
        fds.push_back(accepted.stream.fd());
        std::error_code error;
        credentials.push_back(accepted.stream.peer_credentials(error));
        errors.push_back(error);
        ids.push_back(actions.register_transport(std::move(accepted.stream)));
    }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        if (const auto* const data = event.data()) {
            actions.send(id, *data);
        } else if (event.eof()) {
            actions.close_write(id);
        }
    }
    void handle_error(Error error, Actions&) {
        ends.push_back(error.code());
        back = error.take_listener();
    }
    void handover_listener(ResourceId, Listener listener, Actions&) {
        back.emplace(std::move(listener));
    }
    void handover_transport(ResourceId, Stream, Actions&) { ++left; }

    std::function<void(Actions&)> next;
    std::vector<Address> peers;
    std::vector<int> fds;
    std::vector<UnixCredentials> credentials;
    std::vector<std::error_code> errors;
    std::vector<ResourceId> ids;
    std::vector<std::error_code> ends;
    std::optional<Listener> back;
    std::size_t left = 0;
};

/// A runtime with a Gate.
template <class Poller>
struct House : Driver<House<Poller>> {
    using Driver<House>::perform;
    using Driver<House>::service;
    using Driver<House>::until;
    using Kernel = typename Poller::Kernel;
    using Listener = BasicUnixListener<Kernel>;
    using Service = Gate<Kernel>;
    using Actions = typename Service::Actions;

    ResourceId listen(Listener listener) {
        ResourceId id;
        perform([&](Actions& actions) { id = actions.register_listener(std::move(listener)); });
        return id;
    }

    Runtime<Service, Poller> runtime{Service{}, Options{}};
};

/// A client's transport, and turns of both sides until this is so.
template <class Poller, class Condition>
bool both_until(House<Poller>& house, Party<Poller>& party, Condition condition) {
    return party.until([&] {
        house.turn();
        return condition();
    });
}

/// In a child that may do no more than others: what became of connecting there. 0: connected, else
/// the errno of its end.
template <class Poller>
int connect_as_nobody(const Address& at) {
    const int status = in_child([&] {
        constexpr uid_t nobody = 65534;
        if (::geteuid() == 0 && (::setresgid(nobody, nobody, nobody) != 0 ||
                                 ::setresuid(nobody, nobody, nobody) != 0)) {
            return 98;
        }
        Party<Poller> party;
        const ResourceId id = party.add(UnixStream::connect(at, 60s));
        if (!party.until([&] { return !party.heard(id).trace.empty(); })) {
            return 97;
        }
        return party.heard(id).trace == "c" ? 0 : party.heard(id).code.value();
    });
    return WIFEXITED(status) ? WEXITSTATUS(status) : 96;
}

} // namespace

// -- bytes ----------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("unix: bytes go both ways, through a path and through an abstract name", "",
                   EpollPoller, PollPoller) {
    const std::size_t before = descriptors();
    {
        const Place place;
        const std::string abstract = "unix:@reactor-test-" + std::to_string(::getpid()) + "-" +
                                     place.directory.filename().string();
        for (const Address& at : {place.at(), Address::parse(abstract)}) {
            CAPTURE(at.to_string());
            House<TestType> house;
            Party<TestType> party;
            house.listen(UnixListener::bind(at));
            const ResourceId id = party.add(UnixStream::connect(at.to_string(), 10s));
            CHECK(party.heard(id).trace.empty()); // not in the turn of its registration
            const std::string text = pattern(300'000);
            party.perform([&](auto& actions) { actions.send(id, text); });
            REQUIRE(both_until(house, party,
                               [&] { return party.heard(id).bytes.size() == text.size(); }));
            CHECK((party.heard(id).bytes == text));
            CHECK(party.heard(id).trace.starts_with("c"));
            CHECK(party.heard(id).trace.find('c', 1) == std::string::npos);
            party.perform([&](auto& actions) { actions.close_write(id); });
            REQUIRE(both_until(house, party, [&] { return party.heard(id).gone(); }));
            CHECK(party.heard(id).trace.ends_with("eh"));
            CHECK(house.until([&] { return house.service().left == 1; }));
            CHECK(house.service().ends.empty());
            CHECK(party.rests());
        }
    }
    CHECK(descriptors() == before);
}

TEMPLATE_TEST_CASE("unix: what is sent before it is connected arrives first and in order", "",
                   EpollPoller, PollPoller) {
    const Place place;
    const os::Fd listener = host(place.at(), 0);
    const os::Fd first = client_of(place.at()); // there is no room for more
    Party<TestType> party;
    const std::string large = pattern(500'000);
    ResourceId id;
    party.perform([&](auto& actions) {
        id = actions.register_transport(UnixStream::connect(place.at(), 60s));
        actions.send(id, "first ");
        actions.send(id, Buffer(large));
    });
    party.perform([&](auto& actions) { actions.send(id, " last"); });
    CHECK(party.heard(id).trace.find('c') == std::string::npos);
    const os::Fd turned_out = accept_of(listener);
    REQUIRE(party.until([&] { return party.heard(id).trace.find('c') != std::string::npos; }));
    const os::Fd peer = accept_of(listener);
    Reader reader;
    REQUIRE(party.read_until(peer, reader, large.size() + 11));
    CHECK((reader.bytes == "first " + large + " last"));
    CHECK(party.heard(id).trace.find('s') == std::string::npos);
}

TEMPLATE_TEST_CASE("unix: each half ends by itself", "", EpollPoller, PollPoller) {
    const Place place;
    const os::Fd listener = host(place.at(), 4);
    Party<TestType> party;
    party.service().stays = true;
    const ResourceId id = party.add(UnixStream::connect(place.at(), 60s));
    REQUIRE(party.until([&] { return party.heard(id).trace == "c"; }));
    os::Fd peer = accept_of(listener);
    Reader reader;
    SECTION("the peer's first: we may still send") {
        write_some(peer, "question");
        ::shutdown(peer.get(), SHUT_WR);
        REQUIRE(party.until([&] { return party.heard(id).trace == "cde"; }));
        CHECK(party.rests());
        party.perform([&](auto& actions) {
            actions.send(id, "answer");
            actions.close_write(id);
        });
        REQUIRE(party.read_to_end(peer, reader));
        CHECK(reader.bytes == "answer");
        REQUIRE(party.until_gone(id));
        CHECK(party.heard(id).trace == "cdeh");
    }
    SECTION("ours first: we still hear all") {
        party.perform([&](auto& actions) {
            actions.send(id, "question");
            actions.close_write(id);
        });
        REQUIRE(party.read_to_end(peer, reader));
        CHECK(reader.bytes == "question");
        CHECK(party.rests());
        write_some(peer, "answer");
        peer.reset();
        REQUIRE(party.until_gone(id));
        CHECK(party.heard(id).trace == "cdeh");
        CHECK(party.heard(id).bytes == "answer");
    }
    CHECK(party.heard(id).unsent == 0);
}

TEMPLATE_TEST_CASE("unix: a peer that leaves with unread input resets, after its last byte", "",
                   EpollPoller, PollPoller) {
    Party<TestType> party;
    std::error_code error;
    auto [ours, theirs] = UnixStream::pair(error);
    REQUIRE_FALSE(error);
    os::Fd peer = theirs.release();
    const ResourceId id = party.add(std::move(ours));
    party.perform([&](auto& actions) { actions.send(id, "never read"); });
    SECTION("it closes") {
        REQUIRE(write_some(peer, "bye") == 3);
        peer.reset();
    }
    SECTION("its process exits") {
        Ends leave = pipe_to_us();
        const pid_t child = ::fork();
        require_ok(child >= 0, "fork");
        if (child == 0) {
            char signal = 0;
            write_some(peer, "bye");
            ::_exit(::read(leave.ours.get(), &signal, 1) == 1 ? 0 : 1);
        }
        peer.reset(); // from now on it is the child's alone
        write_some(leave.theirs, "x");
        int status = 0;
        require_ok(calmly([&] { return ::waitpid(child, &status, 0); }) == child, "waitpid");
        REQUIRE((WIFEXITED(status) && WEXITSTATUS(status) == 0));
    }
    REQUIRE(party.until_gone(id));
    CHECK(party.heard(id).trace == "dx");
    CHECK(party.heard(id).bytes == "bye");
    CHECK(is(party.heard(id).code, ECONNRESET));
    CHECK(party.rests());
}

TEMPLATE_TEST_CASE("unix: who waits to be accepted is reset when the listener goes", "",
                   EpollPoller, PollPoller) {
    const Place place;
    Party<TestType> party;
    auto listener = std::make_optional(UnixListener::bind(place.at()));
    const ResourceId id = party.add(UnixStream::connect(place.at(), 60s));
    REQUIRE(party.until([&] { return party.heard(id).trace == "c"; }));
    listener.reset();
    REQUIRE(party.until_gone(id));
    CHECK(party.heard(id).trace == "cx");
    CHECK(is(party.heard(id).code, ECONNRESET));
}

TEMPLATE_TEST_CASE("unix: a peer that has written and left before the first look loses nothing", "",
                   EpollPoller, PollPoller) {
    const Place place;
    const os::Fd listener = host(place.at(), 4);
    Party<TestType> party;
    auto stream = UnixStream::connect(place.at(), 60s);
    {
        const os::Fd peer = accept_of(listener);
        write_some(peer, "short visit");
    }
    const ResourceId id = party.add(std::move(stream));
    REQUIRE(party.until_gone(id));
    CHECK(party.heard(id).trace == "cdeh");
    CHECK(party.heard(id).bytes == "short visit");
}

TEMPLATE_TEST_CASE("unix: two of a pair are each other's peer", "", EpollPoller, PollPoller) {
    const std::size_t before = descriptors();
    {
        Party<TestType> party;
        auto [a, b] = UnixStream::pair();
        CHECK((::fcntl(a.fd(), F_GETFL) & O_NONBLOCK) != 0);
        CHECK((::fcntl(b.fd(), F_GETFD) & FD_CLOEXEC) != 0);
        const ResourceId one = party.add(std::move(a));
        const ResourceId other = party.add(std::move(b));
        party.perform([&](auto& actions) {
            actions.send(one, "there");
            actions.send(other, "back");
            actions.close_write(one);
        });
        REQUIRE(party.until([&] { return party.heard(one).gone() && party.heard(other).gone(); }));
        CHECK(party.heard(other).bytes == "there");
        CHECK(party.heard(one).bytes == "back");
        CHECK(party.heard(one).trace == "deh");
        CHECK(party.heard(other).trace == "deh");
    }
    CHECK(descriptors() == before);
}

// -- connecting -----------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("unix: with no room at the listener it is tried again, and connected then", "",
                   FaultyEpoll, FaultyPoll) {
    const std::size_t before = descriptors();
    {
        Faults faults;
        const Place place;
        const os::Fd listener = host(place.at(), 0);
        const os::Fd first = client_of(place.at());
        REQUIRE((!try_client(place.at()) && errno == EAGAIN)); // that is the premise
        Party<TestType> party;
        const ResourceId id = party.add(FaultyStream::connect(place.at(), 1h));
        REQUIRE(party.until([&] { return faults.calls(Call::connect) >= 4; }));
        CHECK(party.heard(id).trace.empty());
        const os::Fd one = accept_of(listener);
        REQUIRE(party.until([&] { return !party.heard(id).trace.empty(); }));
        CHECK(party.heard(id).trace == "c");
        const std::size_t attempts = faults.calls(Call::connect);
        const os::Fd peer = accept_of(listener);
        party.perform([&](auto& actions) { actions.send(id, "made it"); });
        Reader reader;
        REQUIRE(party.read_until(peer, reader, 7));
        CHECK(reader.bytes == "made it");
        CHECK(party.rests());
        CHECK(faults.calls(Call::connect) == attempts);
    }
    CHECK(descriptors() == before);
}

TEMPLATE_TEST_CASE("unix: with no room until its deadline it ends there, and the loop rests", "",
                   FaultyEpoll, FaultyPoll) {
    Faults faults;
    const Place place;
    const os::Fd listener = host(place.at(), 0);
    const os::Fd first = client_of(place.at());
    Party<TestType> party;
    const Timestamp begin = os::Kernel::now();
    ResourceId id;
    party.perform([&](auto& actions) {
        id = actions.register_transport(FaultyStream::connect(place.at(), 400ms));
        actions.send(id, "unsent");
    });
    std::size_t turns = 0;
    {
        const Calm calm; // a signal may end a turn
        while (!party.heard(id).gone() && turns < 1'000) {
            party.runtime.turn(10s);
            ++turns;
        }
    }
    CHECK(os::Kernel::now() - begin >= 400ms);
    CHECK(party.heard(id).trace == "x");
    CHECK(is(party.heard(id).code, ETIMEDOUT));
    CHECK(party.heard(id).unsent == 6);
    CHECK(party.heard(id).back->timeout() == StreamTimeout::connect);
    // Rests of 1, 2, 4, 8, 16, 32, 64 and 100 ms: ten attempts and the end, of a turn or two each.
    CHECK(faults.calls(Call::connect) >= 2);
    CHECK(faults.calls(Call::connect) <= 11);
    CHECK(turns <= 24);
    CHECK(party.rests());
}

TEMPLATE_TEST_CASE("unix: who unregisters one that waits for room has it back, and it goes on", "",
                   EpollPoller, PollPoller) {
    const Place place;
    const os::Fd listener = host(place.at(), 0);
    const os::Fd first = client_of(place.at());
    Party<TestType> party;
    ResourceId id;
    party.perform([&](auto& actions) {
        id = actions.register_transport(UnixStream::connect(place.at(), 60s));
        actions.send(id, "kept");
        actions.unregister_transport(id);
    });
    REQUIRE(party.until_gone(id));
    CHECK(party.heard(id).trace == "h");
    CHECK(party.heard(id).unsent == 4);
    CHECK(party.heard(id).back->is_connecting());
    CHECK(party.rests());
    Party<TestType> second;
    const ResourceId there = second.add(std::move(*party.heard(id).back));
    const os::Fd one = accept_of(listener);
    REQUIRE(second.until([&] { return second.heard(there).trace == "c"; }));
    const os::Fd peer = accept_of(listener);
    Reader reader;
    REQUIRE(second.read_until(peer, reader, 4));
    CHECK(reader.bytes == "kept");
}

TEMPLATE_TEST_CASE("unix: whatever goes wrong is one end, with its cause and what was unsent", "",
                   FaultyEpoll, FaultyPoll) {
    const std::size_t before = descriptors();
    {
        Faults faults;
        const Place place;
        Party<TestType> party;
        const auto end_of = [&](FaultyStream stream, int expected) {
            CAPTURE(expected);
            ResourceId id;
            party.perform([&](auto& actions) {
                id = actions.register_transport(std::move(stream));
                actions.send(id, "unsent");
            });
            REQUIRE(party.until_gone(id));
            CHECK(party.heard(id).code.value() == expected);
            CHECK((party.heard(id).trace == "x" || party.heard(id).trace == "sx"));
            const auto& returned = party.heard(id).returned;
            CHECK(party.heard(id).unsent + (returned.empty() ? 0 : returned[0].size()) == 6);
            CHECK(party.heard(id).back.has_value());
            CHECK(party.rests());
        };
        SECTION("no such file") { end_of(FaultyStream::connect(place.at(), 60s), ENOENT); }
        SECTION("nobody listens there") {
            leave_stale(place.at());
            end_of(FaultyStream::connect(place.at(), 60s), ECONNREFUSED);
        }
        SECTION("an abstract name that nobody has") {
            end_of(FaultyStream::connect("unix:@" + place.path(), 60s), ECONNREFUSED);
        }
        SECTION("no socket, or one of another kind") {
            std::ofstream(place.path("file")) << "text";
            end_of(FaultyStream::connect(place.at("file"), 60s), ECONNREFUSED);
            const os::Fd datagrams = bound(place.at(), SOCK_DGRAM);
            end_of(FaultyStream::connect(place.at(), 60s), EPROTOTYPE);
        }
        SECTION("no permission, no descriptor, no memory") {
            faults.then_fails(Call::connect, EACCES);
            end_of(FaultyStream::connect(place.at(), 60s), EACCES);
            faults.then_fails(Call::socket, EMFILE);
            end_of(FaultyStream::connect(place.at(), 60s), EMFILE);
            faults.then_fails(Call::connect, ENOMEM);
            end_of(FaultyStream::connect(place.at(), 60s), ENOMEM);
        }
        SECTION("a path that is too long") {
            end_of(FaultyStream::connect("unix:/" + std::string(108, 'x'), 60s), ENAMETOOLONG);
        }
        SECTION("a bad address, or one of another family") {
            end_of(FaultyStream::connect("unix:", 60s), EINVAL);
            end_of(FaultyStream::connect("", 60s), EINVAL);
            end_of(FaultyStream::connect("127.0.0.1:80", 60s), EAFNOSUPPORT);
            end_of(FaultyStream::connect(Address(), 60s), EAFNOSUPPORT);
        }
    }
    CHECK(descriptors() == before);
}

TEMPLATE_TEST_CASE("unix: who may not write to the file is kept out, and who may is not", "",
                   EpollPoller, PollPoller) {
    const Place place;
    const Umask strict(077);
    UnixListenOptions options;
    options.mode = 0;
    const UnixListener closed = UnixListener::bind(place.at("closed"), options);
    CHECK(connect_as_nobody<TestType>(place.at("closed")) == EACCES);
    options.mode = 0666;
    const UnixListener open = UnixListener::bind(place.at("open"), options);
    CHECK(connect_as_nobody<TestType>(place.at("open")) == 0);
}

// -- who is there ---------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("unix: the kernel says who the peer is", "", EpollPoller, PollPoller) {
    const Place place;
    House<TestType> house;
    house.listen(UnixListener::bind(place.at()));
    SECTION("of who connects, and of who listens") {
        Party<TestType> party;
        auto stream = UnixStream::connect(place.at(), 60s);
        std::error_code error;
        const ResourceId id = party.add(std::move(stream));
        REQUIRE(both_until(house, party, [&] {
            return party.heard(id).trace == "c" && house.service().ids.size() == 1;
        }));
        party.perform([&](auto& actions) { actions.unregister_transport(id); });
        REQUIRE(party.until_gone(id));
        const UnixCredentials server = party.heard(id).back->peer_credentials(error);
        CHECK_FALSE(error);
        CHECK(server.process == ::getpid());
        CHECK(server.user == ::geteuid());
        CHECK(server.group == ::getegid());
        CHECK(house.service().credentials[0].process == ::getpid());
        CHECK(house.service().peers[0].to_string() == "unix:"); // a client has no name
        CHECK(party.heard(id).back->peer() == place.at());
    }
    SECTION("of another process, though it is gone") {
        const int status = in_child([&] { return client_of(place.at()) ? 0 : 1; });
        REQUIRE((WIFEXITED(status) && WEXITSTATUS(status) == 0));
        REQUIRE(house.until([&] { return house.service().ids.size() == 1; }));
        CHECK_FALSE(house.service().errors[0]);
        CHECK(house.service().credentials[0].process > 0);
        CHECK(house.service().credentials[0].process != ::getpid());
        CHECK(house.service().credentials[0].user == ::geteuid());
    }
    SECTION("of nobody, as long as there is none") {
        const os::Fd full = host(place.at("full"), 0);
        const os::Fd first = client_of(place.at("full"));
        const auto waiting = UnixStream::connect(place.at("full"), 60s);
        std::error_code error;
        CHECK(waiting.peer_credentials(error).process == 0);
        CHECK(is(error, ENOTCONN));
        const auto failed = UnixStream::connect("unix:", 60s);
        CHECK(failed.peer_credentials(error).process == 0);
        CHECK(is(error, EBADF));
    }
}

TEST_CASE("unix: a stream takes over UNIX stream sockets and nothing else") {
    const std::size_t before = descriptors();
    {
        std::error_code error;
        Ends tcp = tcp_ends();
        CHECK(UnixStream(std::move(tcp.ours), error).fd() == -1);
        CHECK(error == std::errc::address_family_not_supported);
        CHECK_THROWS_AS(UnixStream(std::move(tcp.theirs)), std::system_error);
        CHECK(UnixStream(socket_of(SOCK_DGRAM), error).fd() == -1);
        CHECK(error == std::errc::invalid_argument);
        CHECK(UnixStream(socket_of(SOCK_SEQPACKET), error).fd() == -1);
        CHECK(error == std::errc::invalid_argument);
        Ends pipe = pipe_to_us();
        CHECK(UnixStream(std::move(pipe.ours), error).fd() == -1);
        CHECK(is(error, ENOTSOCK));
        CHECK(UnixStream(os::Fd(), error).fd() == -1);
        CHECK(is(error, EBADF));
        Ends ends = unix_ends();
        const UnixStream stream(std::move(ends.ours), error);
        CHECK_FALSE(error);
        CHECK((::fcntl(stream.fd(), F_GETFL) & O_NONBLOCK) != 0);
        CHECK((::fcntl(stream.fd(), F_GETFD) & FD_CLOEXEC) != 0);
    }
    CHECK(descriptors() == before);
}

// -- the file of a listener -----------------------------------------------------------------------

TEST_CASE("unix: what it cannot listen on is an error, costs no descriptor and leaves no file") {
    const std::size_t before = descriptors();
    {
        const Place place;
        std::error_code error;
        const auto fails = [&](const Address& at, int expected, UnixListenOptions options = {}) {
            CAPTURE(at.to_string(), expected);
            CHECK(UnixListener::bind(at, error, options).fd() == -1);
            CHECK(error.value() == expected);
            CHECK_THROWS_AS(UnixListener::bind(at, options), std::system_error);
        };
        fails(place.at("missing/socket"), ENOENT);
        fails(Address::parse("127.0.0.1:0"), EAFNOSUPPORT);
        fails(Address(), EAFNOSUPPORT);
        UnixListenOptions kept_out;
        kept_out.mode = 0600;
        fails(Address::parse("unix:@" + place.path()), EINVAL, kept_out);
        CHECK(UnixListener::bind("unix:/" + std::string(108, 'x'), error).fd() == -1);
        CHECK(error == std::errc::filename_too_long);
        CHECK(UnixListener::bind("socket", error).fd() == -1);
        CHECK(error == std::errc::invalid_argument);

        BusyKernel::listen_error = EOPNOTSUPP;
        CHECK(BusyListener::bind(place.at(), error).fd() == -1);
        CHECK(is(error, EOPNOTSUPP));
        BusyKernel::listen_error = 0;
        BusyKernel::mode_error = EPERM;
        CHECK(BusyListener::bind(place.at(), error, kept_out).fd() == -1);
        CHECK(is(error, EPERM));
        BusyKernel::mode_error = 0;
        CHECK(fs::is_empty(place.directory));
    }
    CHECK(descriptors() == before);
}

TEST_CASE("unix: the file has the mode that was asked for before anybody can connect") {
    const Place place;
    for (const mode_t mask : {0U, 022U, 077U, 0777U}) {
        for (const unsigned mode : {0U, 0600U, 0660U, 0666U, 0777U}) {
            CAPTURE(mask, mode);
            const Umask umask(mask);
            UnixListenOptions options;
            options.mode = mode;
            unsigned born = 07777;
            unsigned heard = 07777;
            int refused = 0;
            BusyKernel::after_bind = [&] { born = mode_of(place.path()); };
            BusyKernel::before_listen = [&] {
                heard = mode_of(place.path());
                refused = try_client(place.at()) ? 0 : errno;
            };
            std::error_code error;
            const auto listener = BusyListener::bind(place.at(), error, options);
            REQUIRE_FALSE(error);
            CHECK(born == (mode & ~mask)); // never more than was asked for
            CHECK(heard == mode);
            CHECK(refused == ECONNREFUSED);
            CHECK(mode_of(place.path()) == mode);
            CHECK(::umask(mask) == mask); // it belongs to the whole process
        }
    }
    const Umask usual(027);
    const UnixListener listener = UnixListener::bind(place.at());
    CHECK(mode_of(place.path()) == 0750);
}

TEST_CASE("unix: a socket file that nobody listens on is replaced, and only on request") {
    const Place place;
    leave_stale(place.at());
    const ino_t stale = status_of(place.path()).st_ino;
    std::error_code error;
    UnixListenOptions strict;
    strict.replace_stale = false;
    CHECK(UnixListener::bind(place.at(), error, strict).fd() == -1);
    CHECK(is(error, EADDRINUSE));
    CHECK(status_of(place.path()).st_ino == stale);
    {
        UnixListenOptions options;
        options.mode = 0640;
        const UnixListener listener = UnixListener::bind(place.at(), error, options);
        CHECK_FALSE(error);
        CHECK(mode_of(place.path()) == 0640);
        CHECK(listener.local() == place.at());
        CHECK(client_of(place.at()));
    }
    CHECK_FALSE(exists(place.path()));
    { const os::Fd datagrams = bound(place.at(), SOCK_DGRAM); }
    CHECK(UnixListener::bind(place.at(), error).fd() != -1);
    CHECK_FALSE(error);
}

TEMPLATE_TEST_CASE("unix: a path that somebody listens on is in use, and stays theirs", "",
                   EpollPoller, PollPoller) {
    const std::size_t before = descriptors();
    {
        const Place place;
        std::error_code error;
        House<TestType> house;
        house.listen(UnixListener::bind(place.at()));
        CHECK(UnixListener::bind(place.at(), error).fd() == -1);
        CHECK(is(error, EADDRINUSE));
        Party<TestType> party;
        const ResourceId id = party.add(UnixStream::connect(place.at(), 60s));
        party.perform([&](auto& actions) { actions.send(id, "still there"); });
        REQUIRE(both_until(house, party, [&] { return party.heard(id).bytes == "still there"; }));
        CHECK(house.service().ends.empty());

        // Also if it has no room, or is another kind of socket.
        const os::Fd full = host(place.at("full"), 0);
        const os::Fd first = client_of(place.at("full"));
        CHECK(UnixListener::bind(place.at("full"), error).fd() == -1);
        CHECK(is(error, EADDRINUSE));
        CHECK(exists(place.path("full")));
        const os::Fd datagrams = bound(place.at("datagrams"), SOCK_DGRAM);
        CHECK(UnixListener::bind(place.at("datagrams"), error).fd() == -1);
        CHECK(is(error, EADDRINUSE));
        CHECK(exists(place.path("datagrams")));

        const Address abstract = Address::parse("unix:@" + place.path());
        const UnixListener one = UnixListener::bind(abstract, error);
        CHECK_FALSE(error);
        CHECK(UnixListener::bind(abstract, error).fd() == -1);
        CHECK(is(error, EADDRINUSE));
    }
    CHECK(descriptors() == before);
}

TEST_CASE("unix: a file that is no socket is never touched") {
    const Place place;
    std::ofstream(place.path("file")) << "precious";
    fs::create_directory(place.path("directory"));
    fs::create_symlink("nowhere", place.path("dangling"));
    leave_stale(place.at("stale"));
    fs::create_symlink("stale", place.path("link"));
    require_ok(::mkfifo(place.path("pipe").c_str(), 0600) == 0, "mkfifo");
    std::error_code error;
    for (const char* const name : {"file", "directory", "dangling", "link", "pipe"}) {
        CAPTURE(name);
        const struct stat status = status_of(place.path(name));
        UnixListenOptions options;
        options.mode = 0666;
        CHECK(UnixListener::bind(place.at(name), error, options).fd() == -1);
        CHECK(is(error, EADDRINUSE));
        const struct stat after = status_of(place.path(name));
        CHECK(after.st_ino == status.st_ino);
        CHECK(after.st_mode == status.st_mode);
    }
    CHECK(exists(place.path("stale")));
    std::string text;
    std::getline(std::ifstream(place.path("file")), text);
    CHECK(text == "precious");
}

TEST_CASE("unix: the file goes with its listener, not when that is moved or released") {
    const Place place;
    const std::string path = place.path();
    SECTION("destroyed") {
        {
            const UnixListener listener = UnixListener::bind(place.at());
            CHECK(exists(path));
        }
        CHECK_FALSE(exists(path));
    }
    SECTION("a path that fills the address to the last byte") {
        std::string name = place.path("x");
        name.append(108 - name.size(), 'x');
        {
            const Address at = Address::parse("unix:" + name);
            const UnixListener listener = UnixListener::bind(at);
            CHECK(exists(name));
            CHECK(listener.local() == at);
            CHECK(client_of(at));
        }
        CHECK(fs::is_empty(place.directory));
    }
    SECTION("moved") {
        std::optional<UnixListener> last;
        {
            UnixListener listener = UnixListener::bind(place.at());
            UnixListener second = std::move(listener);
            last.emplace(std::move(second));
        }
        CHECK(client_of(place.at()));
        last.reset();
        CHECK_FALSE(exists(path));
    }
    SECTION("assigned to") {
        UnixListener listener = UnixListener::bind(place.at());
        listener = UnixListener::bind(place.at("other"));
        CHECK_FALSE(exists(path));
        CHECK(client_of(place.at("other")));
        UnixListener& same = listener;
        listener = std::move(same);
        CHECK(client_of(place.at("other")));
    }
    SECTION("released") {
        os::Fd fd;
        {
            UnixListener listener = UnixListener::bind(place.at());
            fd = listener.release();
            CHECK(listener.fd() == -1);
        }
        CHECK(client_of(place.at()));
        {
            const UnixListener adopted(std::move(fd));
            CHECK(adopted.local() == place.at());
        }
        CHECK(exists(path)); // it did not bind it
    }
    SECTION("left on purpose") {
        {
            UnixListener listener = UnixListener::bind(place.at());
            listener.leave_file();
        }
        CHECK(exists(path));
    }
    SECTION("by a forked child, which has it by accident") {
        auto listener = std::make_optional(UnixListener::bind(place.at()));
        const int status = in_child([&] {
            listener.reset();
            return exists(path) ? 0 : 1;
        });
        CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
        CHECK(client_of(place.at()));
    }
}

TEMPLATE_TEST_CASE("unix: a listener that is handed over keeps its file until it is destroyed", "",
                   EpollPoller, PollPoller) {
    const Place place;
    House<TestType> house;
    const ResourceId id = house.listen(UnixListener::bind(place.at()));
    house.perform([&](auto& actions) { actions.unregister_listener(id); });
    REQUIRE(house.until([&] { return house.service().back.has_value(); }));
    const os::Fd client = client_of(place.at()); // it still listens
    House<TestType> second;
    second.listen(std::move(*house.service().back));
    house.service().back.reset();
    REQUIRE(second.until([&] { return second.service().ids.size() == 1; }));
    CHECK(exists(place.path()));
    second.perform([&](auto& actions) { actions.shutdown(); });
    static_cast<void>(second.runtime.run());
    CHECK(exists(place.path()));
    REQUIRE(second.service().back.has_value());
    second.service().back.reset();
    CHECK_FALSE(exists(place.path()));
}

TEST_CASE("unix: a successor at the path keeps it when the predecessor goes") {
    const Place place;
    auto first = std::make_optional(UnixListener::bind(place.at()));
    SECTION("a listener") {
        fs::remove(place.path());
        auto second = std::make_optional(UnixListener::bind(place.at()));
        first.reset();
        CHECK(client_of(place.at()));
        second.reset();
        CHECK_FALSE(exists(place.path()));
    }
    SECTION("many, one after the other: no inode is taken for another") {
        for (int n = 0; n < 20; ++n) {
            fs::remove(place.path());
            auto next = std::make_optional(UnixListener::bind(place.at()));
            first.reset();
            CHECK(client_of(place.at()));
            std::swap(first, next);
        }
    }
    SECTION("one that was put there by rename") {
        auto second = std::make_optional(UnixListener::bind(place.at("new")));
        fs::rename(place.path("new"), place.path());
        first.reset();
        CHECK(client_of(place.at()));
        second.reset();
        CHECK(exists(place.path())); // it looks where it was bound
    }
    SECTION("a file") {
        fs::remove(place.path());
        std::ofstream(place.path()) << "text";
        first.reset();
        CHECK(fs::is_regular_file(place.path()));
    }
    SECTION("nobody: the directory is gone") {
        fs::remove_all(place.directory);
        first.reset();
        CHECK_FALSE(exists(place.path()));
    }
}

TEST_CASE("unix: of two that take a path in the same moment none believes to have it in vain") {
    const std::size_t before = descriptors();
    {
        const Place place;
        std::error_code error;
        std::optional<UnixListener> other;
        SECTION("the other comes between our bind and our listen, and takes ours for stale") {
            BusyKernel::before_listen = [&] { other = UnixListener::bind(place.at()); };
            CHECK(BusyListener::bind(place.at(), error).fd() == -1);
            CHECK(is(error, EADDRINUSE));
            CHECK(client_of(place.at()));
        }
        SECTION("our file is gone before we have looked at it") {
            BusyKernel::after_bind = [&] { fs::remove(place.path()); };
            CHECK(BusyListener::bind(place.at(), error).fd() == -1);
            CHECK(is(error, EADDRINUSE));
            CHECK_FALSE(exists(place.path()));
        }
        SECTION("the other replaces what is stale just before we do") {
            leave_stale(place.at());
            // The inode may be the same then; the time is not, by the file system's clock.
            const auto time_of = [](const timespec& time) {
                return std::pair(time.tv_sec, time.tv_nsec);
            };
            const auto stale = time_of(status_of(place.path()).st_ctim);
            REQUIRE(eventually([&] {
                std::ofstream(place.path("clock")) << "tick";
                return time_of(status_of(place.path("clock")).st_ctim) > stale;
            }));
            BusyKernel::after_probe = [&] { other = UnixListener::bind(place.at()); };
            CHECK(BusyListener::bind(place.at(), error).fd() == -1);
            CHECK(is(error, EADDRINUSE));
            CHECK(client_of(place.at()));
        }
        SECTION("somebody else removes what is stale just before we do") {
            leave_stale(place.at());
            BusyKernel::after_probe = [&] { fs::remove(place.path()); };
            const auto listener = BusyListener::bind(place.at(), error);
            CHECK_FALSE(error);
            CHECK(client_of(place.at()));
        }
    }
    CHECK(descriptors() == before);
}

// -- listening ------------------------------------------------------------------------------------

TEST_CASE("unix: a listener adopts UNIX stream sockets that listen, and nothing else") {
    const std::size_t before = descriptors();
    {
        const Place place;
        std::error_code error;
        CHECK(UnixListener(host(place.at("a"), 4), error).fd() != -1);
        CHECK_FALSE(error);
        CHECK(UnixListener(bound(place.at("b")), error).fd() == -1);
        CHECK(error == std::errc::invalid_argument);
        CHECK_THROWS_AS(UnixListener(bound(place.at("c"))), std::system_error);
        os::Fd packets = bound(place.at("d"), SOCK_SEQPACKET);
        REQUIRE(::listen(packets.get(), 4) == 0);
        CHECK(UnixListener(std::move(packets), error).fd() == -1);
        CHECK(error == std::errc::invalid_argument);
        TcpListener tcp = TcpListener::bind("127.0.0.1:0");
        CHECK(UnixListener(tcp.release(), error).fd() == -1);
        CHECK(error == std::errc::address_family_not_supported);
        CHECK(TcpListener(host(place.at("e"), 4), error).fd() == -1);
        CHECK(error == std::errc::address_family_not_supported);
        CHECK(UnixListener(os::Fd(), error).fd() == -1);
        CHECK(is(error, EBADF));
        CHECK(exists(place.path("a")));
    }
    CHECK(descriptors() == before);
}

TEMPLATE_TEST_CASE("unix: what is accepted has the buffer and the deadlines it was to have", "",
                   FaultyEpoll, FaultyPoll) {
    Faults faults;
    const Place place;
    House<TestType> house;
    UnixListenOptions options;
    options.send_buffer = 20'000;
    options.deadlines.idle = 1h;
    house.listen(BasicUnixListener<FaultyKernel>::bind(place.at(), options));
    const os::Fd client = client_of(place.at());
    REQUIRE(house.until([&] { return house.service().ids.size() == 1; }));
    const int fd = house.service().fds[0];
    CHECK(os::Kernel::option(fd, SOL_SOCKET, SO_SNDBUF).value == 40'000); // doubled, socket(7)
    CHECK((::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    house.turn();
    CHECK(house.service().ends.empty());
    faults.ahead = 2h;
    REQUIRE(house.until([&] { return !house.service().ends.empty(); }));
    CHECK(is(house.service().ends[0], ETIMEDOUT));
}

TEMPLATE_TEST_CASE("unix: out of descriptors one client is turned away, and the next is served", "",
                   FaultyEpoll, FaultyPoll) {
    const std::size_t before = descriptors();
    {
        Faults faults;
        const Place place;
        House<TestType> house;
        house.listen(BasicUnixListener<FaultyKernel>::bind(place.at()));
        const os::Fd first = client_of(place.at());
        const os::Fd second = client_of(place.at());
        faults.then_fails(Call::accept, EMFILE);
        REQUIRE(house.until([&] { return house.service().ids.size() == 1; }));
        Reader turned_away;
        turned_away.read(first);
        CHECK(turned_away.at_end());
        write_some(second, "hello");
        Reader served;
        REQUIRE(house.until([&] {
            served.read(second);
            return served.bytes == "hello";
        }));
        REQUIRE(house.service().ends.size() == 1);
        CHECK(is(house.service().ends[0], EMFILE));
    }
    CHECK(descriptors() == before);
}
