// SPDX-License-Identifier: Apache-2.0
//
// Every allocation fails once. A life of a service is lived again and again, and the n-th
// allocation that the library makes in it, or the service by what it asks for, finds no memory:
// n is 1, 2, and so on, until a life has fewer. Whatever that leads to (bad_alloc out of a turn, an
// errno, an answer that says full), the runtime stays fit to run, every id leaves by one door,
// every byte is accounted for, who comes later is served, and nothing is left in the end.
#include "catch.hpp"

#include <reactor/executor.hpp>
#include <reactor/net/connector.hpp>
#include <reactor/net/either.hpp>
#include <reactor/net/unix.hpp>
#include <reactor/offload.hpp>
#include <reactor/reactor.hpp>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>

using namespace reactor;
using namespace std::chrono_literals;

namespace {

/// Allocations of this thread that succeed until one fails; negative: all do.
thread_local long until_failure = -1;
thread_local bool has_failed = false;

[[nodiscard]] bool is_refused() noexcept {
    if (until_failure < 0 || until_failure-- > 0) {
        return false;
    }
    has_failed = true;
    return true;
}
void* allocate(std::size_t size, std::size_t alignment = 0) noexcept {
    if (is_refused()) {
        return nullptr;
    }
    size = size == 0 ? 1 : size;
    return alignment == 0 ? std::malloc(size)
                          : std::aligned_alloc(alignment, (size + alignment - 1) / alignment *
                                                              alignment);
}
void* allocate_or_throw(std::size_t size, std::size_t alignment = 0) {
    void* const memory = allocate(size, alignment);
    if (memory == nullptr) {
        throw std::bad_alloc();
    }
    return memory;
}

} // namespace

[[gnu::noinline]] void* operator new(std::size_t size) { return allocate_or_throw(size); }
[[gnu::noinline]] void* operator new[](std::size_t size) { return allocate_or_throw(size); }
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
    return allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size);
}
[[gnu::noinline]] void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size);
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment,
                                     const std::nothrow_t&) noexcept {
    return allocate(size, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
    std::free(memory);
}

namespace {

/// Within, allocations are the test's own and do not count.
class Aside {
  public:
    Aside() noexcept : kept_(std::exchange(until_failure, -1)) {}
    Aside(const Aside&) = delete;
    Aside& operator=(const Aside&) = delete;
    ~Aside() { until_failure = kept_; }

  private:
    long kept_;
};

std::size_t open_descriptors() {
    const Aside aside;
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

/// The operating system's; what it takes from streams and gives to them is counted.
struct Counting : os::Kernel {
    static inline std::size_t taken = 0;
    static inline std::size_t given = 0;

    static os::Result send(int fd, std::span<const std::byte> bytes) noexcept {
        return count(taken, os::Kernel::send(fd, bytes));
    }
    static os::Result send(int fd, std::span<const iovec> parts) noexcept {
        return count(taken, os::Kernel::send(fd, parts));
    }
    static os::Result recv(int fd, std::span<std::byte> into) noexcept {
        return count(given, os::Kernel::recv(fd, into));
    }

  private:
    static os::Result count(std::size_t& sum, os::Result result) noexcept {
        sum += result.count();
        return result;
    }
};

/// What a service asked for, and what it was told. Allocates nothing.
struct Books {
    enum class State : std::uint8_t { known, registered, left };
    struct Entry {
        ResourceId id;
        State state = State::known;
    };
    std::array<Entry, 256> entries{};
    std::size_t count = 0;
    std::size_t sent = 0;
    std::size_t unsent = 0;
    std::size_t received = 0;
    std::size_t timers = 0;
    int lives = 0;
    int thrown_within = 0;         ///< callbacks that bad_alloc passed through
    const char* wrong = nullptr; ///< the first thing that must not be

    void require(bool condition, const char* what) noexcept {
        wrong = condition || wrong != nullptr ? wrong : what;
    }
    Entry* find(ResourceId id) noexcept {
        const auto last = entries.begin() + static_cast<std::ptrdiff_t>(count);
        const auto at =
            std::find_if(entries.begin(), last, [&](const Entry& entry) { return entry.id == id; });
        return at == last ? nullptr : &*at;
    }
    Entry& known(ResourceId id) noexcept {
        if (Entry* const entry = find(id)) {
            return *entry;
        }
        require(count + 1 < entries.size(), "too many ids for the test");
        entries[count] = {id, State::known};
        return entries[count < entries.size() - 1 ? count++ : count];
    }
    void registered(ResourceId id) noexcept {
        Entry& entry = known(id);
        require(entry.state == State::known, "registered twice, or after its end");
        entry.state = State::registered;
    }
    void event_of(ResourceId id) noexcept {
        const Entry* const entry = find(id);
        require(entry != nullptr && entry->state == State::registered,
                "an event of what is not registered");
    }
    void left(ResourceId id) noexcept {
        if (!id) {
            return;
        }
        Entry& entry = known(id);
        require(entry.state != State::left, "an end told twice");
        entry.state = State::left;
    }
    bool has_left(ResourceId id) noexcept {
        const Entry* const entry = find(id);
        return entry != nullptr && entry->state == State::left;
    }
    void close() noexcept {
        for (std::size_t n = 0; n < count; ++n) {
            require(entries[n].state == State::left, "a resource that never left");
        }
        require(sent == Counting::taken + unsent, "bytes were lost, or sent twice");
        require(received == Counting::given, "bytes that came were not delivered");
        require(lives == 0, "an object of the service is left");
    }
};

class Life {
  public:
    explicit Life(Books& of) noexcept : books_(&of) { ++books_->lives; }
    Life(Life&& other) noexcept : books_(other.books_) { ++books_->lives; }
    Life& operator=(Life&&) noexcept { return *this; }
    ~Life() { --books_->lives; }

  private:
    Books* books_;
};

/// Notes that bad_alloc leaves a callback.
struct Watched {
    explicit Watched(Books& with) noexcept : books(with), before(std::uncaught_exceptions()) {}
    Watched(const Watched&) = delete;
    Watched& operator=(const Watched&) = delete;
    ~Watched() { books.thrown_within += std::uncaught_exceptions() > before ? 1 : 0; }
    Books& books;
    int before;
};

/// What comes over the channel: it holds memory and a life.
struct Message {
    Life life;
    std::unique_ptr<int> number;
};

using Listeners = BasicTcpListener<Counting>;
using Connections = BasicTcpStream<Counting>;

/// Echoes. "much" is answered with a lot, "!" leaves and comes back, "call" calls its own listener.
struct Server : Service<Listeners, Connections, Message> {
    explicit Server(Books& with) : books(&with), life(with) {}

    void handle_start(Actions& actions) {
        const Watched watched(*books);
        has_timers = static_cast<bool>(actions.set_interval(1ms));
        actions.set_timer(1ms);
    }
    void handle_timer(TimerId, Actions& actions) {
        const Watched watched(*books);
        ++books->timers;
        if (books->timers % 4 == 0) {
            actions.set_timer(1ms);
        }
    }
    void handle_registered(ResourceId id, Role, int, Actions&) { books->registered(id); }
    void handle_listener_event(ResourceId id, Listeners::Event accepted, Actions& actions) {
        const Watched watched(*books);
        books->event_of(id);
        register_one(std::move(accepted.stream), actions);
    }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        const Watched watched(*books);
        books->event_of(id);
        if (event.eof()) {
            actions.close_write(id);
        }
        if (event.data() == nullptr) {
            return;
        }
        books->received += event.data()->size();
        const std::string_view text(reinterpret_cast<const char*>(event.data()->data()),
                                    event.data()->size());
        if (text == "much") {
            send_much(id, actions);
        } else if (text == "!") {
            actions.unregister_transport(id);
        } else if (text == "call") {
            call(id, actions);
        } else if (actions.send(id, text)) {
            books->sent += text.size();
        }
    }
    void handle_command(Message message, Actions& actions) {
        const Watched watched(*books);
        books->require(message.number != nullptr, "a command came empty");
        if (message.number && *message.number == 1 && last && actions.pause(last)) {
            actions.resume(last);
        }
    }
    void handle_error(Error error, Actions&) {
        if (error.is_end()) {
            books->left(error.id());
        }
        books->unsent += error.unsent();
    }
    void handover_listener(ResourceId id, Listeners, Actions&) { books->left(id); }
    void handover_transport(ResourceId id, Connections stream, Actions& actions) {
        const Watched watched(*books);
        books->left(id);
        books->unsent += stream.unsent();
        if (!stream.interest().none() && !leaving) {
            std::error_code error;
            Connections again(stream.release(), error);
            books->require(!error, "a stream could not be adopted");
            has_come_back = true;
            register_one(std::move(again), actions);
        }
    }

    void register_one(Connections&& stream, Actions& actions) {
        const ResourceId id = actions.register_transport(std::move(stream));
        if (id) {
            books->known(id);
            last = id;
        }
    }
    void send_much(ResourceId id, Actions& actions) {
        static constexpr std::size_t size = 64 * 1024;
        static const std::string text(size, 'm');
        for (int n = 0; n < 8; ++n) {
            books->sent += actions.send(id, text) ? size : 0;
        }
        Buffer shared(bytes_of(text));
        books->sent += actions.send(id, shared) ? size : 0;
        books->sent += actions.send(id, std::move(shared)) ? size : 0;
    }
    void call(ResourceId id, Actions& actions) {
        Connections out = Connections::connect(address, 1s);
        static_cast<void>(out.set_deadlines({.idle = 10s}));
        register_one(std::move(out), actions);
        books->sent += actions.send(last, "q") ? 1U : 0U;
        actions.close_write(last);
        books->sent += actions.send(id, "call") ? 4U : 0U;
    }

    Books* books;
    Life life;
    Address address;
    ResourceId last;
    bool has_timers = false;
    bool has_come_back = false;
    bool leaving = false;
};

/// A client: a blocking socket of the test's.
class Client {
  public:
    explicit Client(const Address& to) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        is_connected_ = ::connect(fd_.get(), to.data(), to.size()) == 0;
    }
    void say(std::string_view text) const {
        static_cast<void>(::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL));
    }
    /// Reads what there is. True once `bytes` have come, or the end.
    bool has(std::size_t bytes) {
        char room[16 * 1024];
        for (;;) {
            const auto count = ::recv(fd_.get(), room, sizeof room, MSG_DONTWAIT);
            if (count <= 0) {
                has_end_ |= count == 0 || errno != EAGAIN;
                return received_ >= bytes || has_end_;
            }
            received_ += static_cast<std::size_t>(count);
        }
    }
    [[nodiscard]] std::size_t received() const { return received_; }
    [[nodiscard]] bool has_end() const { return has_end_; }
    [[nodiscard]] bool is_connected() const { return is_connected_; }

  private:
    os::Fd fd_;
    bool is_connected_ = false;
    bool has_end_ = false;
    std::size_t received_ = 0;
};

struct Outcome {
    bool failed = false; ///< an allocation did
    int thrown = 0;      ///< out of the library
    std::string wrong;
};

/// A loop that is driven from outside, whatever it throws.
template <class Loop>
struct Driver {
    Loop& loop;
    int thrown = 0;
    bool goes_on = true;

    /// False: it did not come to that, in as much time as there is when something has failed.
    template <class Done>
    bool until(Done&& done, Duration patience = 120ms) {
        const Timestamp begin = os::Kernel::now();
        std::error_code refused;
        while (goes_on) {
            try {
                goes_on = loop.turn(1ms, refused);
            } catch (const std::bad_alloc&) {
                ++thrown;
            }
            const Aside aside;
            if (done()) {
                return true;
            }
            if (os::Kernel::now() - begin > (has_failed ? patience : Duration{10s})) {
                return false;
            }
        }
        return false;
    }
};

template <class P>
Outcome live(long nth, bool drains) {
    using Loop = Runtime<Server, P>;
    Outcome outcome;
    Books books;
    Counting::taken = Counting::given = 0;
    has_failed = false;
    const std::size_t before = open_descriptors();
    {
        std::error_code error;
        auto listener = Listeners::bind("127.0.0.1:0", error, {.deadlines = {.idle = 10s}});
        const Address address = listener.local();
        std::optional<Loop> loop;
        ResourceId door;
        until_failure = nth;
        try {
            Server server(books);
            server.address = address;
            loop.emplace(std::move(server), Options{}, error);
            if (error) {
                books.require(error == std::errc::not_enough_memory, "made with another error");
                loop.reset();
            } else {
                door = loop->listen(std::move(listener));
                books.known(door);
            }
        } catch (const std::bad_alloc&) {
            ++outcome.thrown;
            if (loop) { // the listener went with what was thrown: another one can be had
                door = loop->listen(Listeners::bind(address, error));
                books.known(door);
                books.require(!error, "the port was still taken");
            }
        }
        if (loop) {
            Driver<Loop> driver{*loop};
            const auto controller = loop->controller();
            for (int n = 0; n < 3; ++n) {
                Message message{Life(books), nullptr};
                {
                    const Aside aside;
                    message.number = std::make_unique<int>(n);
                }
                auto answer = controller.command(std::move(message));
                if (!answer && answer.full()) { // no memory: then it can be sent again
                    books.require(static_cast<bool>(controller.command(*answer.take())),
                                  "a command was not taken the second time");
                }
            }
            Client ada(address);
            Client ben(address);
            ada.say("hello");
            const bool greeted = driver.until([&] { return ada.has(5); });
            ben.say("much");
            driver.until([&] { return ben.has(10 * 64 * 1024); });
            ada.say("call");
            driver.until([&] { return ada.has(9); });
            ada.say("!");
            driver.until([&] { return loop->service().has_come_back; });
            ada.say("again");
            const bool again = driver.until([&] { return ada.has(14); });
            books.require((greeted && again) || books.thrown_within != 0 || driver.thrown != 0 ||
                              books.has_left(door),
                          "an answer was lost without a word");
            Client cid(address);
            cid.say("late");
            driver.until(
                [&] { return cid.has(4) || books.has_left(door) || books.thrown_within != 0; },
                10s);
            books.require(cid.received() == 4 || cid.has_end() || books.thrown_within != 0 ||
                              books.has_left(door),
                          "nobody is served any more");
            {
                const Aside aside;
                Client dan(address);
                dan.say("later");
                driver.until([&] { return dan.has(5) || books.has_left(door); }, 10s);
                books.require(dan.received() == 5 || books.has_left(door),
                              "who came later was not served");
            }
            driver.until([&] { return books.timers > 3 || !loop->service().has_timers; }, 10s);
            books.require(books.timers > 3 || !loop->service().has_timers, "no timer fired");
            books.require(ada.is_connected() && ben.is_connected(), "not connected");
            loop->service().leaving = true;
            drains ? controller.drain(2ms) : controller.shutdown();
            driver.until([] { return false; }, 10s);
            books.require(!driver.goes_on, "the run did not end");
            outcome.thrown += driver.thrown;
        }
    }
    until_failure = -1;
    books.close();
    books.require(open_descriptors() == before, "a descriptor leaked");
    outcome.failed = has_failed;
    outcome.wrong = books.wrong == nullptr ? "" : books.wrong;
    return outcome;
}

/// Callbacks and jobs.
template <class P>
Outcome call_back(long nth, Placement placement) {
    Outcome outcome;
    has_failed = false;
    const char* wrong = nullptr;
    const std::size_t before = open_descriptors();
    std::size_t fired = 0;
    std::size_t asked = 0;
    {
        int ends[2] = {-1, -1};
        static_cast<void>(os::Kernel::stream_pair(ends[0], ends[1]));
        const os::Fd mine(ends[0]);
        const os::Fd other(ends[1]);
        std::error_code error;
        std::optional<BasicExecutor<P>> executor;
        const auto guarded = [&](auto&& act) {
            try {
                act();
            } catch (const std::bad_alloc&) {
                ++outcome.thrown;
            }
        };
        until_failure = nth;
        guarded([&] { executor.emplace(placement, Options{}, error); });
        if (executor && !error) {
            const std::array<char, 128> bulk{}; // more than a callback holds without memory
            for (const bool reads : {true, false}) {
                guarded([&] {
                    const Event event{mine.get(), {reads, !reads}};
                    const auto awaited = executor->await_once(
                        event, [&fired, bulk](auto&, Readiness) { fired += 1U + (bulk[0] != 0); });
                    asked += awaited ? 1U : 0U;
                });
            }
            for (int n = 0; n < 3; ++n) {
                guarded([&] {
                    const auto awaited = executor->await_after(
                        1ms, [&fired, bulk](auto&) { fired += 1U + (bulk[0] != 0); });
                    asked += awaited ? 1U : 0U;
                });
            }
            guarded([&] {
                const auto answer = executor->controller().post(
                    [&fired, bulk](auto&, Readiness) { fired += 1U + (bulk[0] != 0); });
                asked += answer ? 1U : 0U;
            });
            static_cast<void>(::write(other.get(), "x", 1));
            Driver<BasicExecutor<P>> driver{*executor};
            if (!driver.until([&] { return fired == asked; }, 10s)) {
                wrong = "what was awaited did not come";
            }
            executor->shutdown();
            driver.until([] { return false; }, 10s);
            wrong = driver.goes_on ? "the run did not end" : wrong;
            outcome.thrown += driver.thrown;
        }
    }
    until_failure = -1;
    wrong = open_descriptors() == before ? wrong : "a descriptor leaked";
    outcome.failed = has_failed;
    outcome.wrong = wrong == nullptr ? "" : wrong;
    return outcome;
}

struct Sum {
    long allocations = 0;
    int thrown = 0;
    std::string wrong;
};

/// Until a life has no n-th allocation.
template <class Live>
Sum all(Live&& live_once) {
    constexpr long too_many = 2000;
    Sum sum;
    for (; sum.allocations < too_many; ++sum.allocations) {
        const Outcome outcome = live_once(sum.allocations);
        if (!outcome.wrong.empty() && sum.wrong.size() < 2000) {
            sum.wrong += "allocation " + std::to_string(sum.allocations + 1) + ": " +
                         outcome.wrong + "\n";
        }
        sum.thrown += outcome.thrown;
        if (!outcome.failed) {
            break;
        }
    }
    return sum;
}

} // namespace

TEMPLATE_TEST_CASE("each allocation in the life of a server fails once, and nothing is lost", "",
                   BasicEpollPoller<Counting>, BasicPollPoller<Counting>) {
    // Each allocation meets a drain with one poller and a shutdown with the other.
    constexpr bool even_drain = std::same_as<TestType, BasicEpollPoller<Counting>>;
    const Sum sum = all([](long nth) { return live<TestType>(nth, (nth % 2 == 0) == even_drain); });
    INFO(sum.allocations << " allocations, thrown " << sum.thrown << " times\n" << sum.wrong);
    CHECK(sum.wrong.empty());
    CHECK(sum.allocations > 20);
    CHECK(sum.allocations < 2000);
    CHECK(sum.thrown > 0);
}

TEMPLATE_TEST_CASE("each allocation of an executor fails once, and nothing is lost", "",
                   EpollPoller, PollPoller) {
    for (const Placement placement : {Placement::in_loop, Placement::beside}) {
        const Sum sum = all([&](long nth) { return call_back<TestType>(nth, placement); });
        INFO(sum.allocations << " allocations, thrown " << sum.thrown << " times\n" << sum.wrong);
        CHECK(sum.wrong.empty());
        CHECK(sum.allocations > 10);
        CHECK(sum.thrown > 0);
    }
}
