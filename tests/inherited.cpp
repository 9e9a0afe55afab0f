// SPDX-License-Identifier: Apache-2.0
//
// Descriptors from a service manager, and listeners from another process. The programs that are
// started here are this one, in a test case that is run only so.
#include <reactor/net/inherited.hpp>
#include <reactor/net/unix.hpp>
#include <reactor/poller/epoll.hpp>

#include <filesystem>
#include <iterator>

#include "peers.hpp"

using namespace test;

namespace {

namespace fs = std::filesystem;

std::size_t descriptors() {
    const fs::directory_iterator all("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(fs::begin(all), fs::end(all)));
}
bool is_close_on_exec(int fd) { return (::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0; }
bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

struct Directory {
    Directory() {
        path = (fs::temp_directory_path() / "reactor.XXXXXX").string();
        require_ok(::mkdtemp(path.data()) != nullptr, "mkdtemp");
    }
    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;
    ~Directory() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    [[nodiscard]] Address at(const char* name) const {
        return Address::parse("unix:" + path + "/" + name);
    }
    std::string path;
};

/// What a manager would set; absent where it is null.
struct Variables {
    const char* process; ///< "self": whoever asks
    const char* count;
    const char* names;
};
void set(const char* name, const char* value) {
    if (value != nullptr) {
        ::setenv(name, value, 1);
    } else {
        ::unsetenv(name);
    }
}
void set(const Variables& variables) {
    const std::string self = std::to_string(::getpid());
    const bool is_self =
        variables.process != nullptr && std::string_view(variables.process) == "self";
    set("LISTEN_PID", is_self ? self.c_str() : variables.process);
    set("LISTEN_FDS", variables.count);
    set("LISTEN_FDNAMES", variables.names);
}
bool none_is_set() {
    return ::getenv("LISTEN_PID") == nullptr && ::getenv("LISTEN_FDS") == nullptr &&
           ::getenv("LISTEN_FDNAMES") == nullptr;
}

/// A program that has been started.
struct Program {
    Program() = default;
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;
    ~Program() {
        if (process > 0) {
            ::kill(process, SIGKILL);
            static_cast<void>(status());
        }
    }
    /// How it ended; waits for it.
    int status() {
        int status = 0;
        while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
        }
        process = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
    }
    pid_t process = -1;
};

/// Starts this program anew, in that test case only, with `fds` as descriptors 3 and up.
void start(Program& program, const char* test_case, Variables variables, std::vector<int> fds) {
    program.process = ::fork();
    require_ok(program.process >= 0, "fork");
    if (program.process != 0) {
        return;
    }
    constexpr int above = 100; // out of the way of where they go
    for (int& fd : fds) {
        fd = ::fcntl(fd, F_DUPFD_CLOEXEC, above);
    }
    int next = 3;
    for (const int fd : fds) {
        ::dup2(fd, next++); // which a service manager leaves open over exec
    }
    ::close_range(static_cast<unsigned>(next), ~0U, 0); // what who started us has left open
    set(variables);
    ::execl("/proc/self/exe", "inherited", test_case, static_cast<char*>(nullptr));
    ::_exit(98);
}

os::Fd listening(const Address& at) {
    os::Fd fd(::socket(at.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    require_ok(::bind(fd.get(), at.data(), at.size()) == 0, "bind");
    require_ok(::listen(fd.get(), 4) == 0, "listen");
    return fd;
}
Address name_of(const os::Fd& fd) {
    return Address::filled(
        [&](sockaddr* at, socklen_t* size) { ::getsockname(fd.get(), at, size); });
}
os::Fd client_of(const Address& at) {
    os::Fd fd(::socket(at.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    require_ok(calmly([&] { return ::connect(fd.get(), at.data(), at.size()); }) == 0, "connect");
    return fd;
}
/// What the other side sends until its end; waits for it.
std::string read_to_end(const os::Fd& fd) {
    Reader reader;
    reader.read(fd);
    return reader.bytes + (reader.eof ? "" : " without an end");
}

/// Greets one client and is done when that one has left.
template <class Listener, class Stream>
struct Greeter : Service<Listener, Stream> {
    using typename Greeter::Service::Actions;
    void handle_listener_event(ResourceId, typename Listener::Event accepted, Actions& actions) {
        const ResourceId id = actions.register_transport(std::move(accepted.stream));
        actions.send(id, "hello from " + greeting);
        actions.close_write(id);
    }
    void handle_transport_event(ResourceId, StreamEvent, Actions&) {}
    void handover_transport(ResourceId, Stream, Actions& actions) { actions.shutdown(); }
    void handle_error(typename Greeter::Error error, Actions& actions) {
        failed = error.code();
        actions.shutdown();
    }
    std::string greeting;
    std::error_code failed;
};
template <class Listener, class Stream>
std::error_code greet(Listener listener, std::string greeting) {
    using Service = Greeter<Listener, Stream>;
    Service service;
    service.greeting = std::move(greeting);
    Runtime<Service> runtime(std::move(service), Options{});
    runtime.listen(std::move(listener));
    runtime.run();
    return runtime.service().failed;
}

/// Sends a descriptor over a UNIX socket.
void pass(const os::Fd& over, int fd) {
    char byte = 'x';
    iovec part{&byte, 1};
    alignas(cmsghdr) char room[CMSG_SPACE(sizeof fd)] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    require_ok(::sendmsg(over.get(), &message, MSG_NOSIGNAL) == 1, "sendmsg");
}
/// Waits for one.
os::Fd passed(const os::Fd& over) {
    char byte = 0;
    iovec part{&byte, 1};
    alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    pollfd look{over.get(), POLLIN, 0};
    while (::poll(&look, 1, -1) < 0 && errno == EINTR) {
    }
    require_ok(calmly([&] { return ::recvmsg(over.get(), &message, 0); }) == 1, "recvmsg");
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    require_ok(header != nullptr && header->cmsg_type == SCM_RIGHTS, "SCM_RIGHTS");
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return os::Fd(fd);
}

} // namespace

// -- programs that are started below --------------------------------------------------------------

TEST_CASE("inherited: (as a program) one client of each of two sockets is served",
          "[.][program-serves]") {
    std::error_code error;
    auto taken = take_inherited_descriptors(error);
    REQUIRE_FALSE(error);
    CHECK(none_is_set());
    REQUIRE(taken.size() == 2);
    CHECK(taken[0].fd.get() == 3);
    CHECK(taken[1].fd.get() == 4);
    CHECK(is_close_on_exec(3));
    CHECK(is_close_on_exec(4));
    CHECK(take_inherited_descriptors().empty()); // once
    CHECK(is_open(3));
    CHECK_FALSE(greet<TcpListener, TcpStream>(TcpListener(std::move(taken[0].fd)), taken[0].name));
    CHECK_FALSE(
        greet<UnixListener, UnixStream>(UnixListener(std::move(taken[1].fd)), taken[1].name));
    CHECK_FALSE(is_open(3));
}
TEST_CASE("inherited: (as a program) nothing is meant for it", "[.][program-empty]") {
    std::error_code error = std::make_error_code(std::errc::io_error);
    CHECK(take_inherited_descriptors(error).empty());
    CHECK_FALSE(error);
    CHECK(none_is_set());
    CHECK(is_open(3));
    CHECK_FALSE(is_close_on_exec(3));
}
TEST_CASE("inherited: (as a program) a descriptor that was promised is missing",
          "[.][program-missing]") {
    std::error_code error;
    CHECK(take_inherited_descriptors(error).empty());
    CHECK(error == std::errc::bad_file_descriptor);
    CHECK(none_is_set());
    CHECK(is_open(3));
    CHECK_FALSE(is_open(4));
}

// -- from a service manager -----------------------------------------------------------------------

TEST_CASE("inherited: a program that is started with sockets serves their clients") {
    const std::size_t before = descriptors();
    {
        const Directory directory;
        os::Fd tcp = listening(Address::loopback_ipv4(0));
        os::Fd local = listening(directory.at("socket"));
        const Address tcp_at = name_of(tcp);
        // They come before anybody serves them.
        const os::Fd first = client_of(tcp_at);
        const os::Fd second = client_of(directory.at("socket"));
        Program program;
        start(program, "[program-serves]", {"self", "2", "web:admin"}, {tcp.get(), local.get()});
        tcp.reset(); // if the program fails, nobody is left to wait for
        local.reset();
        CHECK(read_to_end(first) == "hello from web");
        ::shutdown(first.get(), SHUT_WR);
        CHECK(read_to_end(second) == "hello from admin");
        ::shutdown(second.get(), SHUT_WR);
        CHECK(program.status() == 0);
        CHECK(fs::exists(directory.path + "/socket")); // it is the manager's
    }
    CHECK(descriptors() == before);
}

TEST_CASE("inherited: what is meant for another process is left alone") {
    const Directory directory;
    const os::Fd fd = listening(directory.at("socket"));
    const std::string parent = std::to_string(::getpid());
    for (const Variables variables :
         {Variables{parent.c_str(), "1", "web"}, // not for the child
          Variables{nullptr, "1", "web"}, Variables{"self", nullptr, "web"},
          Variables{nullptr, nullptr, nullptr}}) {
        Program program;
        start(program, "[program-empty]", variables, {fd.get()});
        CHECK(program.status() == 0);
    }
}

TEST_CASE("inherited: a descriptor that was promised and is not open is an error") {
    const Directory directory;
    const os::Fd fd = listening(directory.at("socket"));
    Program program;
    start(program, "[program-missing]", {"self", "2", nullptr}, {fd.get()});
    CHECK(program.status() == 0);
}

TEST_CASE("inherited: variables that make no sense are an error, and nothing is taken") {
    const std::size_t before = descriptors();
    const std::string self = std::to_string(::getpid());
    const std::string spaced = " " + self;
    const std::string longer = self + "x";
    for (const Variables variables : {
             Variables{"", "1", nullptr},
             {"x", "1", nullptr},
             {"0", "1", nullptr},
             {"-1", "1", nullptr},
             {"99999999999999999999", "1", nullptr},
             {spaced.c_str(), "1", nullptr},
             {longer.c_str(), "1", nullptr},
             {"self", "", nullptr},
             {"self", "0", nullptr},
             {"self", "-1", nullptr},
             {"self", "+1", nullptr},
             {"self", "1 ", nullptr},
             {"self", "one", nullptr},
             {"self", "2147483647", nullptr},
             {"self", "99999999999999999999", nullptr},
             {"self", "2", "web"},
             {"self", "1", "web:admin"},
             {"self", "2", ""},
         }) {
        CAPTURE(variables.process, variables.count);
        set(variables);
        std::error_code error;
        CHECK(take_inherited_descriptors(error).empty());
        CHECK(error == std::errc::invalid_argument);
        CHECK(none_is_set());
        set(variables);
        CHECK_THROWS_AS(take_inherited_descriptors(), std::system_error);
        CHECK(none_is_set());
    }
    CHECK(descriptors() == before);
}

TEST_CASE("inherited: each has its name, and unknown where the manager names none") {
    // In a child, as descriptors 3 and up may be in use here.
    const auto names_of = [](const char* count, const char* names) {
        Ends ends = pipe_to_us();
        const int status = in_child([&] {
            const int out = ::fcntl(ends.theirs.get(), F_DUPFD, 100);
            for (int fd = 3; fd < 3 + std::atoi(count); ++fd) {
                ::dup2(out, fd);
            }
            set(Variables{"self", count, names});
            std::string told;
            for (const auto& taken : take_inherited_descriptors()) {
                told += std::to_string(taken.fd.get()) + '=' + taken.name + ' ';
            }
            return write_some(os::Fd(out), told) == told.size() ? 0 : 1;
        });
        ends.theirs.reset();
        return status == 0 ? read_to_end(ends.ours) : "failed";
    };
    CHECK(names_of("1", nullptr) == "3=unknown ");
    CHECK(names_of("3", nullptr) == "3=unknown 4=unknown 5=unknown ");
    CHECK(names_of("1", "web") == "3=web ");
    CHECK(names_of("1", "") == "3= ");
    CHECK(names_of("3", "a::b.socket") == "3=a 4= 5=b.socket ");
}

// -- from another process -------------------------------------------------------------------------

TEST_CASE("inherited: a listener that another process passes on is served here") {
    const std::size_t before = descriptors();
    {
        const Directory directory;
        const Address at = directory.at("socket");
        Ends ends = unix_ends();
        const auto hands_over = [&](auto make) {
            const int status = in_child([&] {
                auto listener = make();
                pass(ends.theirs, listener.fd());
                return 0;
            });
            REQUIRE(status == 0);
            return passed(ends.ours);
        };
        {
            const os::Fd tcp = hands_over([] { return TcpListener::bind("127.0.0.1:0"); });
            const os::Fd client = client_of(name_of(tcp));
            std::error_code error;
            TcpListener adopted(os::Fd(::dup(tcp.get())), error);
            REQUIRE_FALSE(error);
            CHECK(is_close_on_exec(adopted.fd()));
            CHECK((::fcntl(adopted.fd(), F_GETFL) & O_NONBLOCK) != 0);
            ::shutdown(client.get(), SHUT_WR);
            CHECK_FALSE(greet<TcpListener, TcpStream>(std::move(adopted), "here"));
            CHECK(read_to_end(client) == "hello from here");
        }
        os::Fd local = hands_over([&] {
            UnixListener listener = UnixListener::bind(at);
            listener.leave_file(); // it is listened on after this process
            return listener;
        });
        const os::Fd client = client_of(at);
        ::shutdown(client.get(), SHUT_WR);
        UnixListener adopted(std::move(local));
        CHECK(adopted.local() == at);
        CHECK_FALSE(greet<UnixListener, UnixStream>(std::move(adopted), "there"));
        CHECK(read_to_end(client) == "hello from there");
        // The next owner of the path finds it stale.
        CHECK(UnixListener::bind(at).fd() != -1);
    }
    CHECK(descriptors() == before);
}
