// SPDX-License-Identifier: Apache-2.0
//
// The upload server beside a disk that blocks, fails or throws: the loop goes on, a client gets no
// further than the disk, and nothing is answered before it is stored.
#include "../examples/http_upload/service.hpp"

#include "calm.hpp"
#include "catch.hpp"
#include "peers.hpp"

#include <reactor/poller/poll.hpp>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <list>
#include <stdexcept>

namespace {

using namespace http_upload;
using test::pattern;
using test::Reader;
using test::write_some;
using namespace std::chrono_literals;
using namespace std::string_literals;
namespace fs = std::filesystem;

/// The file system, but for what a test makes of its disk. Notes who calls it.
struct Disk : FileSystem {
    static Result write(int fd, std::string_view bytes) {
        writes.fetch_add(1);
        wait();
        if (throws) {
            throw std::runtime_error("the disk is on fire");
        }
        return full ? Result{-1, ENOSPC} : FileSystem::write(fd, bytes);
    }
    static Result read(int fd, std::span<std::byte> space) {
        wait();
        return FileSystem::read(fd, space);
    }
    static Result open_unnamed(int directory) {
        note();
        return FileSystem::open_unnamed(directory);
    }
    static Result create(int directory, const char* name) {
        note();
        return FileSystem::create(directory, name);
    }
    static Result open_beneath(int directory, const char* name) {
        note();
        return FileSystem::open_beneath(directory, name);
    }
    static Result link_unnamed(int fd, int directory, const char* name) {
        note();
        return FileSystem::link_unnamed(fd, directory, name);
    }
    static Result rename(int directory, const char* from, const char* to) {
        note();
        return FileSystem::rename(directory, from, to);
    }
    static Result unlink(int directory, const char* name) {
        note();
        return FileSystem::unlink(directory, name);
    }
    static Result close(int fd) {
        note();
        return FileSystem::close(fd);
    }

    static void note() {
        calls.fetch_add(1);
        calls_in_loop.fetch_add(in_loop ? 1 : 0);
    }
    static void wait() {
        note();
        blocked.fetch_add(1);
        while (blocks) {
            os::Kernel::sleep(100us);
        }
        blocked.fetch_sub(1);
    }
    static void reset() { blocks = throws = full = false; }

    static inline std::atomic<bool> blocks{false};
    static inline std::atomic<bool> throws{false};
    static inline std::atomic<bool> full{false};
    static inline std::atomic<int> blocked{0}; ///< threads that wait for it
    static inline std::atomic<int> writes{0};
    static inline std::atomic<int> calls{0};
    static inline std::atomic<int> calls_in_loop{0};
    static inline thread_local bool in_loop = false; ///< this thread is in a turn
};

class Directory {
  public:
    Directory() : path_(fs::temp_directory_path() / "reactor-desk-XXXXXX") {
        std::string text = path_.string();
        test::require_ok(::mkdtemp(text.data()) != nullptr, "mkdtemp");
        path_ = text;
    }
    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;
    ~Directory() { fs::remove_all(path_); }

    [[nodiscard]] std::string path() const { return path_.string(); }
    /// All that is in it, hidden or not.
    [[nodiscard]] std::size_t size() const {
        return static_cast<std::size_t>(
            std::distance(fs::directory_iterator(path_), fs::directory_iterator{}));
    }
    [[nodiscard]] std::string contents(const std::string& name) const {
        std::ifstream file(path_ / name, std::ios::binary);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    void put(const std::string& name, const std::string& text) const {
        std::ofstream(path_ / name, std::ios::binary) << text;
    }

  private:
    fs::path path_;
};

std::string put(const std::string& name, const std::string& body) {
    return "PUT /files/" + name + " HTTP/1.1\r\nHost: t\r\nContent-Length: " +
           std::to_string(body.size()) + "\r\n\r\n" + body;
}
std::string get(const std::string& path) {
    return "GET " + path + " HTTP/1.1\r\nHost: t\r\n\r\n";
}

/// A client: what it has to send, and what it got.
class Client {
  public:
    Client(const Address& server, std::string request) : request_(std::move(request)) {
        const test::Calm calm;
        fd_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        test::require_ok(::connect(fd_.get(), server.data(), server.size()) == 0, "connect");
        test::require_ok(os::Kernel::set_non_blocking(fd_.get()).ok(), "fcntl");
    }
    /// Sends and reads what can be; never waits.
    void go_on() {
        sent_ += write_some(fd_, std::string_view(request_).substr(sent_));
        reader_.read(fd_);
    }
    void also(const std::string& request) { request_ += request; }
    [[nodiscard]] bool has_sent_all() const { return sent_ == request_.size(); }
    [[nodiscard]] std::size_t sent() const { return sent_; }
    [[nodiscard]] const std::string& got() const { return reader_.bytes; }
    [[nodiscard]] bool got(std::string_view text) const {
        return reader_.bytes.find(text) != std::string::npos;
    }
    [[nodiscard]] bool at_end() const { return reader_.at_end(); }
    void vanish() { fd_.reset(); }
    void vanish_with_a_reset() { test::reset(fd_); }

  private:
    os::Fd fd_;
    std::string request_;
    std::size_t sent_ = 0;
    Reader reader_;
};

using Service = BasicUploadService<Disk>;

constexpr std::size_t read_size = Options{}.read_buffer; ///< a piece
constexpr std::size_t not_worth_while = 16 * 1024;       ///< less than this waits for more

/// The server, whose loop is the thread of the test, and its clients.
template <class Poller>
struct Server {
    explicit Server(const OffloadOptions& pool = {2, 256})
        : desk(std::in_place, BasicStore<Disk>(directory.path()), pool),
          runtime(Service(*desk, Settings{})) {
        Disk::writes = Disk::calls = Disk::calls_in_loop = 0;
        desk->answer_to(runtime.controller());
        TcpListener listener = TcpListener::bind("127.0.0.1:0");
        address = listener.local();
        runtime.listen(std::move(listener));
    }
    ~Server() { Disk::reset(); } // the desk waits for its threads

    Client& client(const std::string& request) { return clients.emplace_back(address, request); }
    /// Turns until this is so; false: it will never be.
    template <class Condition>
    bool until(Condition condition) {
        for (int turns = 0; turns < 30'000; ++turns) {
            if (condition()) {
                return true;
            }
            for (Client& each : clients) {
                each.go_on();
            }
            Disk::in_loop = true;
            runtime.turn(1ms);
            Disk::in_loop = false;
        }
        return condition();
    }
    /// The loop comes to rest with this: a hundred turns in which nobody can send any more.
    bool until_stuffed() {
        std::size_t sent = 0;
        int still = 0;
        return until([&] {
            std::size_t now = 0;
            for (const Client& each : clients) {
                now += each.sent();
            }
            still = now == sent ? still + 1 : 0;
            sent = now;
            return still == 100;
        });
    }
    [[nodiscard]] Gauges gauges() { return runtime.service().gauges(); }
    /// The status that a new client gets for this.
    std::string status_of(const std::string& request) {
        Client& each = client(request);
        const bool answered = until([&] { return each.got("\r\n\r\n"); });
        return answered ? each.got().substr(9, 3) : "none";
    }

    Directory directory;
    std::optional<BasicDesk<Disk>> desk;
    Runtime<Service, Poller> runtime;
    Address address;
    std::list<Client> clients;
};

} // namespace

#define POLLERS EpollPoller, PollPoller

TEMPLATE_TEST_CASE("A disk that blocks delays nobody but those who wait for it", "", POLLERS) {
    Server<TestType> server;
    const std::string body = pattern(300'000);
    server.directory.put("there", pattern(1000));

    SECTION("while it is written to") {
        Disk::blocks = true;
        Client& upload = server.client(put("file", body));
        REQUIRE(server.until([] { return Disk::blocked == 1; }));
        for (int n = 0; n < 20; ++n) {
            CHECK(server.status_of(get("/healthz")) == "200");
        }
        CHECK(upload.got().empty());
        CHECK(server.directory.size() == 1);
        Disk::blocks = false;
        REQUIRE(server.until([&] { return upload.got("\"size\":300000"); }));
        CHECK(upload.got().starts_with("HTTP/1.1 201"));
        CHECK(server.directory.contents("file") == body);
    }
    SECTION("while it is read") {
        Disk::blocks = true;
        Client& download = server.client(get("/files/there"));
        REQUIRE(server.until([] { return Disk::blocked == 1; }));
        for (int n = 0; n < 20; ++n) {
            CHECK(server.status_of(get("/healthz")) == "200");
        }
        CHECK(download.got().empty());
        Disk::blocks = false;
        CHECK(server.until([&] { return download.got("\r\n\r\n" + pattern(1000)); }));
    }
}

TEMPLATE_TEST_CASE("A client gets at most two pieces further than the disk", "", POLLERS) {
    Server<TestType> server;
    const std::string body = pattern(16'000'000);
    Disk::blocks = true;
    Client& upload = server.client(put("file", body));
    REQUIRE(server.until([] { return Disk::blocked == 1; }));
    REQUIRE(server.until_stuffed());
    CHECK_FALSE(upload.has_sent_all());
    CHECK(server.gauges().bytes_waiting >= not_worth_while);
    CHECK(server.gauges().bytes_waiting <= 2 * read_size + not_worth_while);
    Disk::blocks = false;
    REQUIRE(server.until([&] { return upload.got("\"size\":16000000"); }));
    CHECK(server.gauges().bytes_waiting == 0);
    CHECK(server.directory.contents("file") == body);
}

TEMPLATE_TEST_CASE("Of a crowd, most get only one piece further than the disk", "", POLLERS) {
    Server<TestType> server;
    Disk::blocks = true;
    for (unsigned n = 0; n < 200; ++n) {
        server.client(put("file." + std::to_string(n), pattern(150'000, n)));
    }
    REQUIRE(server.until_stuffed());
    CHECK(server.gauges().bytes_waiting >= 200 * not_worth_while);
    CHECK(server.gauges().bytes_waiting <= 200 * (read_size + not_worth_while) + 65 * read_size);
    Disk::blocks = false;
    REQUIRE(server.until([&] {
        return std::all_of(server.clients.begin(), server.clients.end(),
                           [](const Client& each) { return each.got("\"size\":150000"); });
    }));
    CHECK(server.directory.size() == 200);
}

TEMPLATE_TEST_CASE("The file system is never called in the loop's thread", "", POLLERS) {
    Server<TestType> server;
    const std::string body = pattern(300'000);
    CHECK(server.status_of(put("file", body)) == "201");
    CHECK(server.status_of(put("file", "another")) == "201");
    CHECK(server.status_of(put("large", pattern(16'000'000))) == "201");
    CHECK(server.status_of(get("/files/file")) == "200");
    CHECK(server.status_of("HEAD" + get("/files/file").substr(3)) == "200");
    CHECK(server.status_of(get("/files/none")) == "404");
    CHECK(server.status_of("PUT /files/x HTTP/1.1\r\nHost: t\r\n"
                           "Transfer-Encoding: chunked\r\n\r\n10000\r\n" +
                           pattern(0x10000) + "\r\nno size\r\n") == "400");
    Client& rude = server.client(put("file", body).substr(0, 200'000));
    Client& deaf = server.client(get("/files/large")); // takes the head of it, and no more
    REQUIRE(server.until([&] { return rude.has_sent_all() && deaf.got("\r\n\r\n"); }));
    rude.vanish_with_a_reset();
    deaf.vanish_with_a_reset();
    server.clients.remove_if([&](const Client& each) { return &each == &rude || &each == &deaf; });
    REQUIRE(server.until([&] { return server.gauges().bytes_waiting == 0; }));
    server.clients.clear();
    CHECK(server.until([&] { return server.gauges().connections == 0; }));
    CHECK(server.desk->shutdown(1h) == 0);
    CHECK(Disk::calls > 20);
    CHECK(Disk::calls_in_loop == 0);
    CHECK(server.directory.size() == 2);
}

TEMPLATE_TEST_CASE("Bytes that come one by one go to the disk together", "", POLLERS) {
    Server<TestType> server;
    const std::string body = pattern(500);
    const std::string whole = put("file", body);
    Client& upload = server.client("");
    for (const char c : whole) {
        upload.also(std::string(1, c));
        REQUIRE(server.until([&] { return upload.has_sent_all(); }));
    }
    REQUIRE(server.until([&] { return upload.got("\"size\":500"); }));
    CHECK(Disk::writes == 1);
    CHECK(server.directory.contents("file") == body);
}

TEMPLATE_TEST_CASE("Who vanishes while his bytes are at the disk leaves no file", "", POLLERS) {
    Server<TestType> server;
    const bool with_a_reset = GENERATE(false, true);
    const std::string whole = put("file", pattern(300'000));
    Disk::blocks = true;
    Client& upload = server.client(whole.substr(0, 200'000));
    REQUIRE(server.until([&] { return Disk::blocked == 1 && upload.has_sent_all(); }));
    with_a_reset ? upload.vanish_with_a_reset() : upload.vanish();
    server.clients.clear();
    Disk::blocks = false;
    CHECK(server.until([&] { return server.gauges().connections == 0; }));
    CHECK(server.desk->shutdown(1h) == 0);
    CHECK(server.directory.size() == 0);
    CHECK(server.runtime.service().counters().files_stored == 0);
}

TEMPLATE_TEST_CASE("A full disk is a 507 at once, an exception a 500, and nobody else is harmed",
                   "", POLLERS) {
    Server<TestType> server;
    const std::string whole = put("file", pattern(500'000));
    const bool full = GENERATE(true, false);
    const std::string status = full ? "507" : "500";
    (full ? Disk::full : Disk::throws) = true;
    Client& upload = server.client(whole.substr(0, 200'000));
    REQUIRE(server.until([&] { return upload.got("\r\n\r\n"); }));
    CHECK(upload.got().substr(9, 3) == status);
    CHECK(upload.got("Connection: close"));
    CHECK(server.until([&] { return upload.at_end(); }));
    CHECK(server.until([&] { return server.directory.size() == 0; }));
    CHECK(server.status_of(put("small", "small")) == status); // also when all of it is there
    Disk::reset();
    CHECK(server.status_of(put("small", "small")) == "201");
    CHECK(server.directory.contents("small") == "small");
}

TEMPLATE_TEST_CASE("What the pool has no room for is kept, and done when there is", "", POLLERS) {
    Server<TestType> server({1, 1});
    Disk::blocks = true;
    for (unsigned n = 0; n < 30; ++n) {
        server.client(put("file." + std::to_string(n), pattern(20'000, 7 + n)));
    }
    REQUIRE(server.until([&] {
        return std::all_of(server.clients.begin(), server.clients.end(),
                           [](const Client& each) { return each.has_sent_all(); }) &&
               server.gauges().bytes_waiting == 600'000;
    }));
    Disk::blocks = false;
    REQUIRE(server.until([&] {
        return std::all_of(server.clients.begin(), server.clients.end(),
                           [](const Client& each) { return each.got("\"size\":20000"); });
    }));
    for (unsigned n = 0; n < 30; ++n) {
        CHECK(server.directory.contents("file." + std::to_string(n)) ==
              pattern(20'000, 7 + n));
    }
}

TEMPLATE_TEST_CASE("What is asked behind an upload waits for it, and is answered in order", "",
                   POLLERS) {
    Server<TestType> server;
    Disk::blocks = true;
    Client& client = server.client(put("one", pattern(100'000)) + get("/files/one") +
                                   put("one", "another") + get("/files/one") + get("/healthz"));
    REQUIRE(server.until([&] { return client.has_sent_all() && Disk::blocked == 1; }));
    CHECK(client.got().empty());
    Disk::blocks = false;
    REQUIRE(server.until([&] { return client.got("\r\n\r\nok\n"); }));
    const std::size_t first = client.got().find("HTTP/1.1 201");
    const std::size_t second = client.got().find("\r\n\r\n" + pattern(100'000));
    const std::size_t third = client.got().find("HTTP/1.1 201", 1);
    const std::size_t fourth = client.got().find("\r\n\r\nanother");
    CHECK(first == 0);
    CHECK(second < third);
    CHECK(third < fourth);
    CHECK(fourth < client.got().size());
}

TEMPLATE_TEST_CASE("A drain answers the uploads that are at the disk", "", POLLERS) {
    Server<TestType> server;
    const std::string body = pattern(300'000);
    Disk::blocks = true;
    Client& upload = server.client(put("file", body));
    Client& idle = server.client("");
    REQUIRE(server.until([] { return Disk::blocked == 1; }));
    server.runtime.controller().drain(1h);
    REQUIRE(server.until([&] { return idle.at_end(); }));
    idle.vanish();
    CHECK(upload.got().empty());
    Disk::blocks = false;
    REQUIRE(server.until([&] { return upload.got("\"size\":300000") && upload.at_end(); }));
    CHECK(upload.got("Connection: close"));
    upload.vanish();
    CHECK(server.until([&] { return !server.runtime.turn(Duration::zero()); }));
    CHECK(server.runtime.farewell().clean);
    CHECK(server.desk->shutdown(1h) == 0);
    CHECK(server.directory.contents("file") == body);
}

TEMPLATE_TEST_CASE("An end that is forced leaves no part of a file", "", POLLERS) {
    Server<TestType> server({1, 1});
    Disk::blocks = true;
    for (int n = 0; n < 5; ++n) {
        server.client(put("file." + std::to_string(n), pattern(30'000)).substr(0, 25'000));
    }
    REQUIRE(server.until(
        [&] { return server.gauges().bytes_waiting > 5 * 24'000; }));
    server.runtime.controller().shutdown();
    REQUIRE(server.until([&] { return !server.runtime.turn(Duration::zero()); }));
    CHECK(server.runtime.farewell().forced == 5);
    CHECK(server.desk->shutdown(Duration::zero()) == 5);
    Disk::blocks = false;
    server.desk.reset();
    CHECK(server.directory.size() == 0);
}
