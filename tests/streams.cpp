// SPDX-License-Identifier: Apache-2.0
//
// Streams over sockets, pipes and terminals: what a peer does to them, and what they do with bytes.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <termios.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <new>

#include "faulty_kernel.hpp"
#include "peers.hpp"

using namespace test;

// -- memory, counted ------------------------------------------------------------------------------

namespace {

struct Memory {
    std::atomic<std::size_t> bytes{0};
    std::atomic<std::size_t> peak{0};
    std::atomic<bool> exhausted{false}; ///< for those who can bear it: new (std::nothrow)
};
constinit Memory memory;

[[gnu::noinline]] void* take_memory(std::size_t size) noexcept {
    void* const block = std::malloc(size);
    const std::size_t bytes = memory.bytes += ::malloc_usable_size(block);
    if (bytes > memory.peak) {
        memory.peak = bytes;
    }
    return block;
}
[[gnu::noinline]] void give_memory(void* block) noexcept {
    memory.bytes -= ::malloc_usable_size(block);
    std::free(block);
}

} // namespace

void* operator new(std::size_t size) {
    if (void* const block = take_memory(size)) {
        return block;
    }
    throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return memory.exhausted ? nullptr : take_memory(size);
}
void operator delete(void* block) noexcept { give_memory(block); }
void operator delete(void* block, std::size_t) noexcept { give_memory(block); }

namespace {

// -- what the tests share -------------------------------------------------------------------------

using FaultyEpoll = BasicEpollPoller<FaultyKernel>;
using FaultyPoll = BasicPollPoller<FaultyKernel>;

struct Kind {
    const char* name;
    Ends (*make)();
};
constexpr Kind two_way[] = {{"tcp", tcp_ends}, {"unix", unix_ends}};
constexpr Kind read_by_us[] = {{"tcp", tcp_ends}, {"unix", unix_ends}, {"pipe", pipe_to_us}};
constexpr Kind written_by_us[] = {{"tcp", tcp_ends}, {"unix", unix_ends}, {"pipe", pipe_from_us}};

constexpr std::size_t budget = 1024;

/// Both budgets are met after four reads of 256.
Options tight() {
    Options options;
    options.read_buffer = budget / 4;
    options.bytes_per_resource = budget;
    options.events_per_resource = 4;
    return options;
}

Options with_limits(StreamLimits limits, bool auto_pause = true) {
    Options options;
    options.stream = limits;
    options.auto_pause = auto_pause;
    return options;
}

bool is(std::error_code code, int error) {
    return code == std::error_code(error, std::system_category());
}

std::span<const std::byte> bytes(std::string_view text) { return bytes_of(text); }

/// A pseudo-terminal in raw mode: its master, and the other side's name.
os::Fd terminal(std::string& other_side) {
    os::Fd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    require_ok(::grantpt(master.get()) == 0 && ::unlockpt(master.get()) == 0, "posix_openpt");
    char name[64];
    require_ok(::ptsname_r(master.get(), name, sizeof name) == 0, "ptsname_r");
    other_side = name;
    return master;
}
os::Fd open_raw(const std::string& name) {
    os::Fd side(::open(name.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    require_ok(static_cast<bool>(side), "open");
    termios settings{};
    ::tcgetattr(side.get(), &settings);
    ::cfmakeraw(&settings);
    ::tcsetattr(side.get(), TCSANOW, &settings);
    return side;
}

} // namespace

// -- the peer's end -------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("stream: every byte of a peer that closes comes, then one end", "", EpollPoller,
                   PollPoller) {
    const std::size_t sizes[] = {0, 1, budget - 1, budget, budget + 1};
    for (const Kind& kind : read_by_us) {
        for (const std::size_t size : sizes) {
            for (const bool closed_before : {true, false}) {
                CAPTURE(kind.name, size, closed_before);
                Watched<TestType> watched(tight());
                Ends ends = kind.make();
                const std::string text = pattern(size);
                ResourceId id;
                if (closed_before) {
                    REQUIRE(write_some(ends.theirs, text) == size);
                    ends.theirs.reset();
                    id = watched.add(std::move(ends.ours));
                } else {
                    id = watched.add(std::move(ends.ours));
                    watched.turn();
                    REQUIRE(write_some(ends.theirs, text) == size);
                    ends.theirs.reset();
                }
                REQUIRE(watched.until_gone(id));
                CHECK(watched.rests());
                CHECK(watched.heard(id).trace == (size == 0 ? "eh" : "deh"));
                CHECK((watched.heard(id).bytes == text));
                REQUIRE(watched.heard(id).back);
                CHECK(watched.heard(id).back->fd() >= 0);
                CHECK(watched.heard(id).unsent == 0);
            }
        }
    }
}

TEMPLATE_TEST_CASE("stream: every byte of a TCP peer that resets comes, then one error", "",
                   EpollPoller, PollPoller) {
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{1}, budget - 1, budget, budget + 1}) {
        for (const bool reset_before : {true, false}) {
            CAPTURE(size, reset_before);
            Watched<TestType, BasicTcpStream> watched(tight());
            Ends ends = tcp_ends();
            const std::string text = pattern(size);
            ResourceId id;
            if (!reset_before) {
                id = watched.add(std::move(ends.ours));
                watched.turn();
            }
            REQUIRE(write_some(ends.theirs, text) == size);
            REQUIRE(has_arrived(ends.theirs));
            reset(ends.theirs);
            if (reset_before) {
                id = watched.add(std::move(ends.ours));
            }
            REQUIRE(watched.until_gone(id));
            CHECK(watched.rests());
            CHECK(watched.heard(id).trace == (size == 0 ? "x" : "dx"));
            CHECK((watched.heard(id).bytes == text));
            CHECK(is(watched.heard(id).code, ECONNRESET));
            CHECK(watched.heard(id).back.has_value());
        }
    }
}

TEMPLATE_TEST_CASE("stream: ten million bytes come whole before the end", "", EpollPoller,
                   PollPoller) {
    const std::string text = pattern(10'000'000);
    for (const Kind& kind : read_by_us) {
        CAPTURE(kind.name);
        Watched<TestType> watched;
        Ends ends = kind.make();
        const ResourceId id = watched.add(std::move(ends.ours));
        REQUIRE(watched.write_all(ends.theirs, text));
        ends.theirs.reset();
        REQUIRE(watched.until_gone(id));
        CHECK(watched.heard(id).trace == "deh");
        CHECK((watched.heard(id).bytes == text));
    }
    SECTION("and before a reset") {
        Watched<TestType> watched;
        Ends ends = tcp_ends();
        const ResourceId id = watched.add(std::move(ends.ours));
        REQUIRE(watched.write_all(ends.theirs, text));
        REQUIRE(watched.until([&] { return unacknowledged(ends.theirs) == 0; }));
        reset(ends.theirs);
        REQUIRE(watched.until_gone(id));
        CHECK(watched.heard(id).trace == "dx");
        CHECK((watched.heard(id).bytes == text));
        CHECK(is(watched.heard(id).code, ECONNRESET));
    }
}

TEMPLATE_TEST_CASE("stream: a UNIX peer that leaves without reading is a reset, told last", "",
                   EpollPoller, PollPoller) {
    for (const std::size_t size : {std::size_t{0}, budget, budget + 1}) {
        CAPTURE(size);
        Watched<TestType> watched(tight());
        Ends ends = unix_ends();
        const std::string text = pattern(size);
        const ResourceId id = watched.add(std::move(ends.ours));
        watched.perform([&](auto& actions) { actions.send(id, "?"); });
        REQUIRE(write_some(ends.theirs, text) == size);
        ends.theirs.reset();
        REQUIRE(watched.until_gone(id));
        CHECK(watched.rests());
        CHECK(watched.heard(id).trace == (size == 0 ? "x" : "dx"));
        CHECK((watched.heard(id).bytes == text));
        CHECK(is(watched.heard(id).code, ECONNRESET));
    }
}

TEMPLATE_TEST_CASE("stream: a write that meets the reset first takes no input with it", "",
                   FaultyEpoll, FaultyPoll) {
    Faults faults;
    Watched<TestType> watched(tight());
    Ends ends = tcp_ends();
    const std::string text = pattern(3 * budget);
    const int fd = ends.ours.get();
    const ResourceId id = watched.add(std::move(ends.ours));
    watched.perform([&](auto& actions) { actions.pause(id); });
    REQUIRE(write_some(ends.theirs, text) == text.size());
    REQUIRE(has_arrived(ends.theirs));
    reset(ends.theirs);
    REQUIRE(has_hung_up(fd));

    watched.perform([&](auto& actions) { actions.send(id, "lost"); });
    CHECK(watched.rests());
    CHECK(watched.heard(id).trace.empty());

    watched.perform([&](auto& actions) { actions.resume(id); });
    REQUIRE(watched.until_gone(id));
    CHECK(watched.rests());
    CHECK(watched.heard(id).trace == "dx");
    CHECK((watched.heard(id).bytes == text));
    CHECK(is(watched.heard(id).code, ECONNRESET));
    CHECK(watched.heard(id).unsent == 4);
    // A look at SO_ERROR would have taken the cause away (fact 4 of the kernel).
    CHECK(faults.calls(Call::option) == 0);
}

TEMPLATE_TEST_CASE("stream: a broken write is told when reading has met its end, not before", "",
                   FaultyEpoll, FaultyPoll) {
    const int error = GENERATE(EPIPE, ECONNRESET, ETIMEDOUT);
    for (const Kind& kind : two_way) {
        CAPTURE(kind.name, error);
        Faults faults;
        faults.then_fails(Call::send, error);
        Watched<TestType> watched(tight());
        Ends ends = kind.make();
        const std::string text = pattern(3 * budget);
        const ResourceId id = watched.add(std::move(ends.ours));
        watched.perform([&](auto& actions) { actions.send(id, "lost"); });
        CHECK(faults.done(Call::send));
        CHECK(watched.rests());
        CHECK(watched.heard(id).trace.empty());

        REQUIRE(write_some(ends.theirs, text) == text.size());
        REQUIRE(watched.until([&] { return watched.heard(id).bytes.size() == text.size(); }));
        CHECK(watched.rests());
        CHECK(watched.heard(id).trace == "d");

        ends.theirs.reset();
        REQUIRE(watched.until_gone(id));
        CHECK(watched.heard(id).trace == "dx");
        CHECK((watched.heard(id).bytes == text));
        CHECK(is(watched.heard(id).code, error));
        CHECK(watched.heard(id).unsent == 4);
    }
}

TEMPLATE_TEST_CASE("stream: what the network did to a connection comes behind its bytes", "",
                   FaultyEpoll, FaultyPoll) {
    const int error = GENERATE(ETIMEDOUT, EHOSTUNREACH, ECONNABORTED);
    CAPTURE(error);
    Faults faults;
    Watched<TestType> watched;
    Ends ends = tcp_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    write_some(ends.theirs, "hello");
    faults.then(Call::recv, {});
    faults.then_fails(Call::recv, error);
    REQUIRE(watched.until([&] { return watched.heard(id).bytes == "hello"; }));
    write_some(ends.theirs, "never read"); // wakes the loop, as the error would
    REQUIRE(watched.until_gone(id));
    CHECK(watched.rests());
    CHECK(watched.heard(id).trace == "dx");
    CHECK(is(watched.heard(id).code, error));
}

TEMPLATE_TEST_CASE("stream: a peer that half-closes gets everything that is still sent", "",
                   EpollPoller, PollPoller) {
    const std::string text = pattern(3'000'000);
    for (const Kind& kind : two_way) {
        CAPTURE(kind.name);
        Watched<TestType> watched(with_limits({1 << 20, 1 << 18, 1 << 22}));
        Ends ends = kind.make();
        make_small(ends.ours);
        make_small(ends.theirs);
        const ResourceId id = watched.add(std::move(ends.ours));
        watched.service().stays = true;
        write_some(ends.theirs, "request");
        ::shutdown(ends.theirs.get(), SHUT_WR);
        REQUIRE(watched.until([&] { return watched.heard(id).trace == "de"; }));
        CHECK(watched.rests());

        watched.perform([&](auto& actions) { actions.send(id, text); });
        watched.perform([&](auto& actions) { actions.close_write(id); });
        Reader reader;
        REQUIRE(watched.read_to_end(ends.theirs, reader));
        CHECK(reader.eof);
        CHECK((reader.bytes == text));
        REQUIRE(watched.until_gone(id));
        CHECK(watched.rests());
        CHECK(watched.heard(id).trace == "debrh");
        CHECK(watched.heard(id).unsent == 0);
    }
}

TEMPLATE_TEST_CASE("stream: we half-close, the peer answers and ends, and the stream leaves", "",
                   EpollPoller, PollPoller) {
    const Kind& kind = two_way[GENERATE(0, 1)];
    CAPTURE(kind.name);
    Watched<TestType> watched;
    Ends ends = kind.make();
    const ResourceId id = watched.add(std::move(ends.ours));
    SECTION("after an answer") {
        watched.perform([&](auto& actions) {
            actions.send(id, "request");
            actions.close_write(id);
        });
        Reader reader;
        REQUIRE(watched.read_to_end(ends.theirs, reader));
        CHECK(reader.bytes == "request");
        CHECK(watched.rests());
        CHECK(watched.heard(id).trace.empty());
        REQUIRE(watched.write_all(ends.theirs, "answer"));
        ends.theirs.reset();
        REQUIRE(watched.until_gone(id));
        CHECK(watched.heard(id).trace == "deh");
        CHECK(watched.heard(id).bytes == "answer");
    }
    SECTION("both at once, which is no error") {
        ::shutdown(ends.theirs.get(), SHUT_WR);
        watched.perform([&](auto& actions) { actions.close_write(id); });
        REQUIRE(watched.until_gone(id));
        CHECK(watched.heard(id).trace == "eh");
    }
    SECTION("asked twice") {
        watched.perform([&](auto& actions) {
            actions.close_write(id);
            actions.close_write(id);
        });
        watched.perform([&](auto& actions) { actions.close_write(id); });
        CHECK(watched.rests());
        ends.theirs.reset();
        REQUIRE(watched.until_gone(id));
        CHECK(watched.heard(id).trace == "eh");
    }
    SECTION("into a connection that was reset") {
        write_some(ends.theirs, "hello");
        if (kind.make == tcp_ends) {
            REQUIRE(has_arrived(ends.theirs));
            reset(ends.theirs);
        } else {
            watched.perform([&](auto& actions) {
                actions.send(id, "?");
                actions.pause(id);
            });
            watched.heard(id) = {};
            write_some(ends.theirs, "hello");
            ends.theirs.reset();
        }
        watched.perform([&](auto& actions) {
            actions.close_write(id);
            actions.resume(id);
        });
        REQUIRE(watched.until_gone(id));
        CHECK(watched.heard(id).trace == "dx");
        CHECK(is(watched.heard(id).code, ECONNRESET));
    }
    CHECK(watched.rests());
    CHECK(watched.heard(id).unsent == 0);
    CHECK(watched.heard(id).back.has_value());
}

TEMPLATE_TEST_CASE("stream: a half-close that fails is told, unless the connection is gone anyway",
                   "", FaultyEpoll, FaultyPoll) {
    const int error = GENERATE(ENOTCONN, EIO);
    Faults faults;
    faults.then_fails(Call::shutdown_write, error);
    Watched<TestType> watched;
    Ends ends = unix_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    watched.perform([&](auto& actions) { actions.close_write(id); });
    write_some(ends.theirs, "hello");
    ends.theirs.reset();
    REQUIRE(watched.until_gone(id));
    CHECK(watched.heard(id).trace == (error == ENOTCONN ? "deh" : "dx"));
    CHECK(watched.heard(id).bytes == "hello");
    CHECK(is(watched.heard(id).code, error == ENOTCONN ? 0 : error));
}

TEMPLATE_TEST_CASE("stream: a hang-up that nobody waits for does not spin", "", EpollPoller,
                   PollPoller) {
    Watched<TestType> watched;
    watched.service().stays = true;
    SECTION("of a peer whose end was told") {
        for (const Kind& kind : two_way) {
            Ends ends = kind.make();
            const ResourceId id = watched.add(std::move(ends.ours));
            ::shutdown(ends.theirs.get(), SHUT_WR);
            REQUIRE(watched.until([&] { return watched.heard(id).trace == "e"; }));
            ends.theirs.reset();
            CHECK(watched.rests());
            watched.perform([&](auto& actions) { actions.send(id, "too"); });
            watched.perform([&](auto& actions) { actions.send(id, "late"); });
            REQUIRE(watched.until([&] {
                watched.perform([&](auto& actions) { actions.send(id, "..."); });
                return watched.heard(id).gone();
            }));
            CHECK(watched.rests());
        }
    }
    SECTION("of a drained pipe") {
        Ends ends = pipe_to_us();
        const ResourceId id = watched.add(std::move(ends.ours));
        write_some(ends.theirs, "hello");
        ends.theirs.reset();
        REQUIRE(watched.until_gone(id));
        // There is no other half: with the end of input it has ended, by itself.
        CHECK(watched.heard(id).trace == "dex");
        CHECK(is(watched.heard(id).code, 0));
    }
    SECTION("of a paused peer that reset the connection") {
        Ends ends = tcp_ends();
        const ResourceId id = watched.add(std::move(ends.ours));
        watched.perform([&](auto& actions) { actions.pause(id); });
        write_some(ends.theirs, "hello");
        REQUIRE(has_arrived(ends.theirs));
        reset(ends.theirs);
        CHECK(watched.rests());
        CHECK(watched.heard(id).trace.empty());
        watched.perform([&](auto& actions) { actions.resume(id); });
        REQUIRE(watched.until_gone(id));
        CHECK(watched.heard(id).trace == "dx");
        CHECK(is(watched.heard(id).code, ECONNRESET));
    }
    SECTION("of a paused peer that died while bytes wait for it") {
        Ends ends = unix_ends();
        const ResourceId id = watched.add(std::move(ends.ours));
        watched.perform([&](auto& actions) {
            actions.pause(id);
            actions.send(id, pattern(900'000));
        });
        REQUIRE(watched.heard(id).trace == "b");
        ends.theirs.reset();
        CHECK(watched.rests());
        CHECK_FALSE(watched.heard(id).gone());
        watched.perform([&](auto& actions) { actions.resume(id); });
        REQUIRE(watched.until_gone(id));
        CHECK(is(watched.heard(id).code, ECONNRESET));
        CHECK(watched.heard(id).unsent > 0);
    }
    SECTION("of the reader of a pipe that we have nothing for") {
        Ends ends = pipe_from_us();
        const ResourceId id = watched.add(std::move(ends.ours));
        ends.theirs.reset();
        CHECK(watched.rests());
        CHECK(watched.heard(id).trace.empty());
        watched.perform([&](auto& actions) { actions.send(id, "lost"); });
        REQUIRE(watched.until_gone(id));
        CHECK(watched.heard(id).trace == "x");
        CHECK(is(watched.heard(id).code, EPIPE));
        CHECK(watched.heard(id).unsent == 4);
    }
    CHECK(watched.rests());
}

TEMPLATE_TEST_CASE("stream: a terminal whose other side hung up is read to the end", "",
                   EpollPoller, PollPoller) {
    Options options;
    options.read_buffer = 100;
    options.events_per_resource = 3;
    Watched<TestType> watched(options);
    std::string name;
    os::Fd ours = terminal(name);
    os::Fd theirs = open_raw(name);
    const ResourceId id = watched.add(std::move(ours));
    const std::string text = pattern(20'000);
    REQUIRE(watched.write_all(theirs, text.substr(0, 18'000)));
    // The rest is still to be read when it hangs up.
    REQUIRE(watched.until([&] { return watched.heard(id).bytes.size() == 18'000; }));
    REQUIRE(write_some(theirs, text.substr(18'000)) == 2'000);
    theirs.reset();
    REQUIRE(watched.until_gone(id));
    CHECK(watched.rests());
    CHECK(watched.heard(id).trace == "deh");
    CHECK((watched.heard(id).bytes == text));
}

TEMPLATE_TEST_CASE("stream: a terminal is written to, and hears of the master's hang-up", "",
                   EpollPoller, PollPoller) {
    Watched<TestType> watched;
    std::string name;
    os::Fd theirs = terminal(name);
    REQUIRE(os::Kernel::set_non_blocking(theirs.get()).ok());
    const ResourceId id = watched.add(open_raw(name));
    watched.perform([&](auto& actions) { actions.send(id, "hello"); });
    Reader reader;
    REQUIRE(watched.read_until(theirs, reader, 5));
    CHECK(reader.bytes == "hello");
    theirs.reset();
    REQUIRE(watched.until_gone(id));
    CHECK(watched.rests());
    CHECK(watched.heard(id).trace == "eh");
}

TEMPLATE_TEST_CASE("stream: a regular file is read to its end", "", EpollPoller, PollPoller) {
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, budget, 5 * budget + 1}) {
        CAPTURE(size);
        Watched<TestType> watched(tight());
        char name[] = "/tmp/reactor-stream-XXXXXX";
        os::Fd file(::mkostemp(name, O_CLOEXEC));
        REQUIRE(file);
        ::unlink(name);
        const std::string text = pattern(size);
        REQUIRE(write_some(file, text) == size);
        ::lseek(file.get(), 0, SEEK_SET);
        const ResourceId id = watched.add(std::move(file));
        REQUIRE(watched.until_gone(id));
        CHECK(watched.heard(id).trace == (size == 0 ? "eh" : "deh"));
        CHECK((watched.heard(id).bytes == text));
    }
}

TEMPLATE_TEST_CASE("stream: who leaves with unread input resets the connection", "", EpollPoller,
                   PollPoller) {
    const bool reads_first = GENERATE(false, true);
    Watched<TestType> watched;
    Ends ends = tcp_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    if (!reads_first) {
        watched.perform([&](auto& actions) { actions.pause(id); });
    }
    write_some(ends.theirs, "hello");
    REQUIRE(has_arrived(ends.theirs));
    if (reads_first) {
        REQUIRE(watched.until([&] { return watched.heard(id).bytes == "hello"; }));
    }
    watched.perform([&](auto& actions) { actions.unregister_transport(id); });
    REQUIRE(watched.heard(id).trace.back() == 'h');
    watched.heard(id).back.reset(); // closes it
    Reader reader;
    REQUIRE(watched.read_to_end(ends.theirs, reader));
    CHECK(reader.error == (reads_first ? 0 : ECONNRESET));
}

// -- writing --------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE(
    "stream: whatever the kernel takes at a time, a send is there whole or given back", "",
    FaultyEpoll, FaultyPoll) {
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
        CAPTURE(seed);
        Random random(seed);
        Faults faults;
        faults.otherwise = [&](Call call) -> Fault {
            switch (random.below(8)) {
            case 0:
            case 1:
            case 2:
                return {0, 1 + random.below(call == Call::recv ? 300 : 3000)};
            case 3:
                return {call == Call::send ? EAGAIN : 0, 7};
            case 4:
                return {call == Call::send ? (random.below(2) == 0 ? ENOBUFS : ENOMEM) : 0, 7};
            default:
                return {};
            }
        };
        Options options = tight();
        options.gather_buffer = 20'000;
        options.stream.cap = 10'000 + random.below(50'000);
        options.stream.high_watermark = random.below(options.stream.cap);
        options.stream.low_watermark = random.below(options.stream.high_watermark + 1);
        options.auto_pause = random.below(2) == 0;
        Watched<TestType> watched(options);
        Ends ends = unix_ends();
        make_small(ends.ours);
        make_small(ends.theirs);
        const ResourceId id = watched.add(std::move(ends.ours));
        auto& heard = watched.heard(id);

        std::size_t sends_left = 150;
        std::string expected;
        std::vector<std::string> attempts;
        std::uint64_t piece_seed = seed << 32;
        const auto send_one = [&](auto& actions, std::size_t size) {
            std::string piece = pattern(size, ++piece_seed);
            switch (random.below(3)) {
            case 0:
                actions.send(id, piece);
                break;
            case 1:
                actions.send(id, Buffer(piece));
                break;
            default: {
                const Buffer buffer(piece);
                actions.send(id, buffer);
            }
            }
            attempts.push_back(std::move(piece));
        };
        watched.service().every_turn = [&](auto& actions) {
            if (sends_left == 0) {
                return;
            }
            // Of several in a turn it must be clear which one comes back.
            const std::size_t count = std::min(sends_left, random.below(4));
            for (std::size_t n = 0; n < count; ++n) {
                send_one(actions, (count == 1 ? 0 : 9) + random.size(12'000));
            }
            sends_left -= count;
        };
        watched.service().reaction = [&](ResourceId, StreamEvent& event, auto& actions) {
            if ((event.drained() || event.blocked()) && sends_left != 0) {
                send_one(actions, 9 + random.size(500));
            }
        };
        const auto settle = [&] {
            std::size_t next_returned = 0;
            for (const std::string& attempt : attempts) {
                if (next_returned < heard.returned.size() &&
                    heard.returned[next_returned].text() == attempt) {
                    ++next_returned;
                } else {
                    expected += attempt;
                }
            }
            CHECK(next_returned == heard.returned.size());
            attempts.clear();
            heard.returned.clear();
        };

        const std::string input = pattern(60'000, seed);
        std::string_view to_write = input;
        Reader reader;
        bool closed = false;
        for (int turns = 0; turns < 100'000 && !(heard.gone() && reader.eof); ++turns) {
            watched.turn();
            settle();
            if (random.below(3) != 0) {
                reader.read(ends.theirs, random.size(5'000));
            }
            if (!to_write.empty()) {
                const std::size_t size = std::min(to_write.size(), random.size(4'000));
                to_write.remove_prefix(write_some(ends.theirs, to_write.substr(0, size)));
                if (to_write.empty()) {
                    ::shutdown(ends.theirs.get(), SHUT_WR);
                }
            }
            if (sends_left == 0 && !std::exchange(closed, true)) {
                watched.service().next = [&](auto& actions) { actions.close_write(id); };
            }
        }
        CHECK(heard.trace.ends_with('h'));
        CHECK((heard.bytes == input));
        CHECK(reader.eof);
        CHECK(reader.bytes.size() == expected.size());
        CHECK((reader.bytes == expected));
        CHECK(heard.unsent == 0);
    }
}

TEMPLATE_TEST_CASE("stream: a small send behind a large one stays behind it", "", EpollPoller,
                   PollPoller) {
    for (const Kind& kind : written_by_us) {
        CAPTURE(kind.name);
        Watched<TestType> watched(with_limits({1 << 20, 1 << 18, 1 << 22}));
        Ends ends = kind.make();
        const ResourceId id = watched.add(std::move(ends.ours));
        const std::string large = pattern(700'000, 1);
        const std::string shared = pattern(700'000, 2);
        watched.perform([&](auto& actions) {
            actions.send(id, large);
            actions.send(id, "small");
            actions.send(id, Buffer(shared));
            actions.send(id, Buffer(std::string_view("tiny")));
        });
        watched.perform([&](auto& actions) {
            actions.send(id, "last");
            actions.close_write(id);
        });
        Reader reader;
        REQUIRE(watched.read_until(ends.theirs, reader, 1'400'013));
        CHECK((reader.bytes == large + "small" + shared + "tiny" + "last"));
    }
}

TEMPLATE_TEST_CASE("stream: what the kernel would not take waits for readiness and nothing else",
                   "", FaultyEpoll, FaultyPoll) {
    const int error = GENERATE(EAGAIN, ENOBUFS, ENOMEM);
    CAPTURE(error);
    for (const Kind& kind : written_by_us) {
        CAPTURE(kind.name);
        const Call call = kind.make == pipe_from_us ? Call::write : Call::send;
        Faults faults;
        faults.then_fails(call, error);
        faults.then_takes(call, 2);
        faults.then_fails(call, error);
        Watched<TestType> watched;
        Ends ends = kind.make();
        const ResourceId id = watched.add(std::move(ends.ours));
        watched.perform([&](auto& actions) { actions.send(id, "hel"); });
        watched.perform([&](auto& actions) { actions.send(id, "lo"); });
        Reader reader;
        REQUIRE(watched.read_until(ends.theirs, reader, 5));
        CHECK(reader.bytes == "hello");
        CHECK(faults.calls(call) == 4);
        CHECK(watched.rests());
        CHECK(faults.calls(call) == 4);
        CHECK(watched.heard(id).trace.empty());
    }
}

TEMPLATE_TEST_CASE("stream: sends of a turn leave in one write", "", FaultyEpoll, FaultyPoll) {
    Faults faults;
    Watched<TestType> watched;
    Ends ends = tcp_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    watched.perform([&](auto& actions) {
        for (int n = 0; n < 100; ++n) {
            actions.send(id, "0123456789");
        }
    });
    CHECK(faults.calls(Call::send) == 1);
    Reader reader;
    REQUIRE(watched.read_until(ends.theirs, reader, 1000));
    CHECK(reader.bytes.size() == 1000);
}

TEMPLATE_TEST_CASE("stream: sending nothing is nothing", "", FaultyEpoll, FaultyPoll) {
    Faults faults;
    Watched<TestType> watched;
    Ends ends = unix_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    watched.perform([&](auto& actions) {
        CHECK(actions.send(id, ""));
        CHECK(actions.send(id, Buffer()));
    });
    CHECK(watched.rests());
    CHECK(faults.calls(Call::send) == 0);
    CHECK(watched.heard(id).trace.empty());
}

TEMPLATE_TEST_CASE("stream: more pieces than one write can name arrive in order", "", EpollPoller,
                   PollPoller) {
    for (const Kind& kind : written_by_us) {
        CAPTURE(kind.name);
        Watched<TestType> watched(with_limits({16 << 20, 1 << 20, 16 << 20}));
        Ends ends = kind.make();
        const ResourceId id = watched.add(std::move(ends.ours));
        std::string expected;
        watched.perform([&](auto& actions) {
            for (std::uint64_t n = 0; n < 1'500; ++n) { // IOV_MAX is 1024
                const std::string piece = pattern(4'096 + n % 3, n);
                expected += piece;
                actions.send(id, Buffer(piece));
            }
        });
        Reader reader;
        REQUIRE(watched.read_until(ends.theirs, reader, expected.size()));
        CHECK((reader.bytes == expected));
    }
}

TEMPLATE_TEST_CASE("stream: a send after the end comes back", "", EpollPoller, PollPoller) {
    Watched<TestType> watched;
    Ends ends = unix_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    SECTION("of our half") {
        watched.perform([&](auto& actions) {
            actions.close_write(id);
            actions.send(id, "late");
            actions.send(id, Buffer(std::string_view("later")));
        });
        CHECK(watched.heard(id).trace == "ss");
        CHECK(is(watched.heard(id).code, 0) == false);
        CHECK(watched.heard(id).code == std::errc::broken_pipe);
        REQUIRE(watched.heard(id).returned.size() == 2);
        CHECK(watched.heard(id).returned[0].text() == "late");
        CHECK(watched.heard(id).returned[1].text() == "later");
        write_some(ends.theirs, "still heard");
        ends.theirs.reset();
        REQUIRE(watched.until_gone(id));
        CHECK(watched.heard(id).trace == "ssdeh");
        CHECK(watched.heard(id).bytes == "still heard");
    }
    SECTION("of the connection, before it was told") {
        watched.perform([&](auto& actions) { actions.pause(id); });
        write_some(ends.theirs, "hello");
        ends.theirs.reset();
        watched.perform([&](auto& actions) { actions.send(id, "lost"); });
        watched.perform([&](auto& actions) { actions.send(id, "late"); });
        CHECK(watched.heard(id).trace == "s");
        watched.perform([&](auto& actions) { actions.resume(id); });
        REQUIRE(watched.until_gone(id));
        CHECK(watched.heard(id).trace == "sdx");
        CHECK(watched.heard(id).bytes == "hello");
    }
    SECTION("of the id") {
        ends.theirs.reset();
        REQUIRE(watched.until_gone(id));
        watched.perform([&](auto& actions) { actions.send(id, "late"); });
        CHECK(watched.heard(id).trace == "ehu");
        REQUIRE(watched.heard(id).returned.size() == 1);
        CHECK(watched.heard(id).returned[0].text() == "late");
    }
}

TEMPLATE_TEST_CASE("stream: bytes sent from within its own drained event are those that arrive", "",
                   EpollPoller, PollPoller) {
    // What is sent there is only borrowed, and another transport sends before it leaves.
    Watched<TestType> watched(with_limits({1'000, 0, 1 << 22}));
    Ends ends = unix_ends();
    Ends other = unix_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    const ResourceId other_id = watched.add(std::move(other.ours));
    const std::string first = pattern(600'000, 1);
    const std::string second = pattern(5'000, 2);
    const std::string others = pattern(5'000, 3);
    int drained = 0;
    watched.service().reaction = [&](ResourceId whose, StreamEvent& event, auto& actions) {
        if (whose == id && event.drained() && ++drained == 1) {
            actions.send(id, second);
            watched.service().next = [&](auto& then) { then.send(other_id, others); };
        }
    };
    watched.perform([&](auto& actions) { actions.send(id, first); });
    REQUIRE(watched.heard(id).trace == "b");
    Reader reader;
    Reader other_reader;
    REQUIRE(watched.read_until(ends.theirs, reader, first.size() + second.size()));
    REQUIRE(watched.read_until(other.theirs, other_reader, others.size()));
    CHECK((other_reader.bytes == others));
    CHECK((reader.bytes == first + second));
}

TEMPLATE_TEST_CASE("stream: a drained event that always sends again leaves the loop turning", "",
                   FaultyEpoll, FaultyPoll) {
    Faults faults;
    Watched<TestType> watched(with_limits({100, 0, 1 << 20}));
    Ends ends = unix_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    int drained = 0;
    watched.service().reaction = [&](ResourceId, StreamEvent& event, auto& actions) {
        if (event.drained() && ++drained < 200) {
            faults.then_fails(Call::send, EAGAIN);
            actions.send(id, pattern(200));
        }
    };
    int ticks = 0;
    watched.service().every_turn = [&](auto&) { ++ticks; };
    faults.then_fails(Call::send, EAGAIN);
    watched.perform([&](auto& actions) { actions.send(id, pattern(200)); });
    Reader reader;
    REQUIRE(watched.read_until(ends.theirs, reader, 200 * 200));
    CHECK(reader.bytes.size() == 200 * 200);
    CHECK(drained == 200);
    CHECK(ticks >= 200);
    CHECK(watched.rests());
}

TEMPLATE_TEST_CASE("stream: a throw from its blocked event leaves no byte behind", "", EpollPoller,
                   PollPoller) {
    Watched<TestType> watched(with_limits({1'000, 100, 1 << 22}));
    Ends ends = unix_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    const std::string text = pattern(900'000);
    watched.service().reaction = [&](ResourceId, StreamEvent& event, auto&) {
        if (event.blocked()) {
            throw std::runtime_error("blocked");
        }
    };
    CHECK_THROWS(watched.perform([&](auto& actions) { actions.send(id, text); }));
    Reader reader;
    REQUIRE(watched.read_until(ends.theirs, reader, text.size()));
    CHECK((reader.bytes == text));
    CHECK(watched.rests());
    CHECK(watched.heard(id).trace == "br");
}

TEMPLATE_TEST_CASE("stream: who unregisters it in its data event gets it back with the rest", "",
                   EpollPoller, PollPoller) {
    for (const Kind& kind : read_by_us) {
        CAPTURE(kind.name);
        Watched<TestType> watched(tight());
        Ends ends = kind.make();
        const std::string text = pattern(2 * budget);
        write_some(ends.theirs, text);
        ends.theirs.reset();
        watched.service().reaction = [&](ResourceId whose, StreamEvent& event, auto& actions) {
            if (event.data() != nullptr) {
                actions.unregister_transport(whose);
            }
        };
        const ResourceId id = watched.add(std::move(ends.ours));
        REQUIRE(watched.until_gone(id));
        CHECK(watched.rests());
        CHECK(watched.heard(id).trace == "dh");
        CHECK(watched.heard(id).bytes.size() == budget / 4);
        Reader rest;
        rest.read(os::Fd(watched.heard(id).back->release().release()));
        CHECK(rest.eof);
        CHECK((watched.heard(id).bytes + rest.bytes == text));
    }
}

TEMPLATE_TEST_CASE("stream: one that never runs dry has its budget a turn and no more", "",
                   EpollPoller, PollPoller) {
    Options options = tight();
    (GENERATE(true, false) ? options.events_per_resource : options.bytes_per_resource) = 1 << 20;
    Watched<TestType> watched(options);
    Ends loud = unix_ends();
    Ends quiet = unix_ends();
    const ResourceId loud_id = watched.add(std::move(loud.ours));
    const ResourceId quiet_id = watched.add(std::move(quiet.ours));
    REQUIRE(write_some(loud.theirs, pattern(50 * budget)) == 50 * budget);
    for (std::size_t n = 1; n <= 20; ++n) {
        write_some(quiet.theirs, "?");
        const std::size_t before = watched.heard(loud_id).bytes.size();
        watched.turn();
        CHECK(watched.heard(loud_id).bytes.size() - before <= budget);
        CHECK(watched.heard(quiet_id).bytes.size() == n);
    }
    REQUIRE(watched.until([&] { return watched.heard(loud_id).bytes.size() == 50 * budget; }));
}

// -- back-pressure --------------------------------------------------------------------------------

TEST_CASE("stream: a write past the cap changes nothing, by whatever road it comes") {
    Faults faults;
    faults.otherwise = [](Call) -> Fault { return {EAGAIN, 0}; };
    Ends ends = unix_ends();
    BasicStream<FaultyKernel> stream{os::BasicFd<FaultyKernel>(ends.ours.release())};
    stream.set_limits({10'000, 5'000, 20'000});
    const std::string a = pattern(9'000, 1);
    const std::string b = pattern(9'000, 2);
    const std::string over = pattern(2'001, 3);
    const std::string exact = pattern(2'000, 4);
    const Buffer shared_over(over);

    REQUIRE(stream.write_borrowed(bytes(a)) == WriteStatus::accepted);
    const bool flushed_between = GENERATE(false, true);
    if (flushed_between) {
        stream.flush();
    }
    REQUIRE(stream.write_shared(Buffer(b)) == WriteStatus::accepted);
    REQUIRE(stream.unsent() == 18'000);
    for (int n = 0; n < 3; ++n) {
        CHECK(stream.write_atomic(bytes(over)) == WriteStatus::full);
        CHECK(stream.write_borrowed(bytes(over)) == WriteStatus::full);
        CHECK(stream.write_shared(shared_over) == WriteStatus::full);
        CHECK(stream.unsent() == 18'000);
        stream.flush();
    }
    CHECK_FALSE(shared_over.shared());
    CHECK_FALSE(stream.is_ready_to_write());
    CHECK(stream.write_atomic({}) == WriteStatus::accepted);
    CHECK(stream.write_shared(Buffer()) == WriteStatus::accepted);

    SECTION("and up to the cap there is room") {
        switch (GENERATE(0, 1, 2)) {
        case 0:
            CHECK(stream.write_atomic(bytes(exact)) == WriteStatus::accepted);
            break;
        case 1:
            CHECK(stream.write_borrowed(bytes(exact)) == WriteStatus::accepted);
            break;
        default:
            CHECK(stream.write_shared(Buffer(exact)) == WriteStatus::accepted);
        }
        CHECK(stream.unsent() == 20'000);
        CHECK(stream.write_atomic(bytes("x")) == WriteStatus::full);
        faults.otherwise = nullptr;
        stream.flush();
        Reader reader;
        reader.read(ends.theirs);
        CHECK((reader.bytes == a + b + exact));
    }
    SECTION("nor does one while it closes") {
        stream.close_write();
        for (const std::string& late : {over, std::string("small")}) {
            CHECK(stream.write_atomic(bytes(late)) == WriteStatus::ended);
            CHECK(stream.write_borrowed(bytes(late)) == WriteStatus::ended);
            CHECK(stream.write_shared(Buffer(late)) == WriteStatus::ended);
        }
        CHECK(stream.unsent() == 18'000);
        faults.otherwise = nullptr;
        stream.flush();
        Reader reader;
        reader.read(ends.theirs);
        CHECK(reader.eof);
        CHECK((reader.bytes == a + b));
    }
    CHECK(stream.unsent() == 0);
}

TEST_CASE("stream: without memory a write is refused and nothing is lost") {
    Ends ends = unix_ends();
    Stream stream{std::move(ends.ours)};
    const std::string a = pattern(3'000, 1);
    const std::string b = pattern(3'000, 2);
    REQUIRE(stream.write_borrowed(bytes(a)) == WriteStatus::accepted);
    memory.exhausted = true;
    const WriteStatus copied = stream.write_atomic(bytes(b));
    const WriteStatus shared = stream.write_shared(Buffer(b));
    const WriteStatus borrowed = stream.write_borrowed(bytes(b)); // is not next to the first
    memory.exhausted = false;
    CHECK(copied == WriteStatus::full);
    CHECK(shared == WriteStatus::full);
    CHECK(borrowed == WriteStatus::full);
    CHECK(stream.unsent() == 3'000);
    CHECK(stream.write_atomic(bytes(b)) == WriteStatus::accepted);
    stream.flush();
    Reader reader;
    reader.read(ends.theirs);
    CHECK((reader.bytes == a + b));
}

TEST_CASE("stream: borrowed bytes that no memory can keep are counted, and writing ends") {
    Faults faults;
    faults.then_takes(Call::send, 1'000);
    Ends ends = unix_ends();
    BasicStream<FaultyKernel> stream{os::BasicFd<FaultyKernel>(ends.ours.release())};
    const std::string text = pattern(3'000);
    REQUIRE(stream.write_borrowed(bytes(text)) == WriteStatus::accepted);
    memory.exhausted = true;
    stream.flush();
    memory.exhausted = false;
    CHECK(stream.unsent() == 2'000);
    CHECK(stream.write_atomic(bytes(text)) == WriteStatus::ended);
    CHECK_FALSE(stream.ended()); // reading has not met its end
    std::array<std::byte, 100> scratch;
    ends.theirs.reset();
    while (stream.handle_io(Io::read, scratch)) {
    }
    REQUIRE(stream.ended());
    CHECK(stream.unsent() == 2'000);
}

TEMPLATE_TEST_CASE("stream: a send past the cap comes back whole, and the rest is as it was", "",
                   FaultyEpoll, FaultyPoll) {
    Faults faults;
    faults.otherwise = [](Call call) -> Fault { return {call == Call::send ? EAGAIN : 0}; };
    Watched<TestType> watched(with_limits({10'000, 5'000, 20'000}));
    Ends ends = unix_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    const std::string a = pattern(15'000, 1);
    const std::string over = pattern(5'001, 2);
    const std::string exact = pattern(5'000, 3);
    watched.perform([&](auto& actions) {
        actions.send(id, a);
        actions.send(id, over);
        actions.send(id, Buffer(over));
    });
    watched.perform([&](auto& actions) {
        actions.send(id, exact);
        actions.send(id, "x");
        actions.close_write(id);
    });
    CHECK(watched.heard(id).trace == "ssbs");
    CHECK(watched.heard(id).code == std::errc::no_buffer_space);
    REQUIRE(watched.heard(id).returned.size() == 3);
    CHECK((watched.heard(id).returned[0].text() == over));
    CHECK((watched.heard(id).returned[1].text() == over));
    CHECK(watched.heard(id).returned[2].text() == "x");
    faults.otherwise = nullptr;
    Reader reader;
    REQUIRE(watched.read_to_end(ends.theirs, reader));
    CHECK((reader.bytes == a + exact));
    CHECK(watched.heard(id).trace == "ssbsr");
}

TEMPLATE_TEST_CASE("stream: a send that would pass the cap is first made room for", "", EpollPoller,
                   PollPoller) {
    Watched<TestType> watched(with_limits({1'000, 500, 1'000}));
    Ends ends = unix_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    std::string expected;
    watched.perform([&](auto& actions) {
        for (std::uint64_t n = 0; n < 50; ++n) {
            const std::string piece = pattern(700, n);
            actions.send(id, piece);
            expected += piece;
        }
    });
    Reader reader;
    REQUIRE(watched.read_until(ends.theirs, reader, expected.size()));
    CHECK((reader.bytes == expected));
    CHECK(watched.heard(id).trace.empty());
}

TEMPLATE_TEST_CASE("stream: blocked above the high watermark, drained at the low one, once each",
                   "", FaultyEpoll, FaultyPoll) {
    Faults faults;
    const auto kernel_takes = [&](std::size_t most) {
        faults.then(Call::send, most == 0 ? Fault{EAGAIN} : Fault{0, most});
    };
    Watched<TestType> watched(with_limits({100, 40, 1'000}));
    Ends ends = unix_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    auto& trace = watched.heard(id).trace;
    // Each turn the kernel is ready to be tried once, and takes what is said here.
    const auto turn_with = [&](std::size_t sent, std::size_t taken) {
        kernel_takes(taken);
        watched.perform([&](auto& actions) { actions.send(id, pattern(sent)); });
        REQUIRE(faults.done(Call::send));
    };
    turn_with(100, 0); // 100 wait
    CHECK(trace.empty());
    turn_with(51, 50); // 101
    CHECK(trace == "b");
    turn_with(0, 60); // 41
    CHECK(trace == "b");
    turn_with(100, 0); // 141
    CHECK(trace == "b");
    turn_with(0, 101); // 40
    CHECK(trace == "br");
    turn_with(60, 0); // 100
    CHECK(trace == "br");
    turn_with(0, 99); // 1
    CHECK(trace == "br");
    turn_with(200, 1); // 200
    CHECK(trace == "brb");
    turn_with(0, 200); // 0
    CHECK(trace == "brbr");
    turn_with(500, 500); // above in between, but not when it counts
    CHECK(trace == "brbr");
    CHECK(watched.rests());
    CHECK(trace == "brbr");
}

TEMPLATE_TEST_CASE("stream: one that breaks while it is blocked is not said to have drained", "",
                   EpollPoller, PollPoller) {
    for (const Kind& kind : written_by_us) {
        CAPTURE(kind.name);
        Watched<TestType> watched(with_limits({1'000, 0, 16 << 20}));
        Ends ends = kind.make();
        const ResourceId id = watched.add(std::move(ends.ours));
        watched.perform([&](auto& actions) { actions.send(id, pattern(12'000'000)); });
        REQUIRE(watched.heard(id).trace == "b");
        ends.theirs.reset();
        REQUIRE(watched.until_gone(id));
        CHECK(watched.heard(id).trace == "bx");
        CHECK(watched.heard(id).unsent > 0);
    }
}

TEMPLATE_TEST_CASE("stream: while it is blocked it is not read, with auto_pause", "", EpollPoller,
                   PollPoller) {
    const bool auto_pause = GENERATE(true, false);
    CAPTURE(auto_pause);
    Watched<TestType> watched(with_limits({1'000, 100, 1 << 22}, auto_pause));
    Ends ends = unix_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    const std::string text = pattern(900'000);
    watched.perform([&](auto& actions) { actions.send(id, text); });
    write_some(ends.theirs, "hello");
    CHECK(watched.rests());
    CHECK(watched.heard(id).trace == (auto_pause ? "b" : "bd"));
    Reader reader;
    REQUIRE(watched.read_until(ends.theirs, reader, text.size()));
    CHECK((reader.bytes == text));
    REQUIRE(watched.until([&] { return watched.heard(id).trace == (auto_pause ? "brd" : "bdr"); }));
    CHECK(watched.heard(id).bytes == "hello");
}

TEMPLATE_TEST_CASE("stream: one that closes is read on while its last bytes wait", "", EpollPoller,
                   PollPoller) {
    // Fewer than the high watermark, so nothing holds reading back; else two that take leave of
    // each other would wait for ever.
    Watched<TestType> watched;
    Ends ends = unix_ends();
    make_small(ends.ours);
    make_small(ends.theirs);
    const ResourceId id = watched.add(std::move(ends.ours));
    const std::string text = pattern(40'000, 1);
    const std::string answer = pattern(400'000, 2);
    watched.perform([&](auto& actions) {
        actions.send(id, text);
        actions.close_write(id);
    });
    REQUIRE(watched.write_all(ends.theirs, answer)); // before it reads
    ::shutdown(ends.theirs.get(), SHUT_WR);
    Reader reader;
    REQUIRE(watched.read_to_end(ends.theirs, reader));
    CHECK((reader.bytes == text));
    REQUIRE(watched.until_gone(id));
    CHECK(watched.heard(id).trace == "deh");
    CHECK((watched.heard(id).bytes == answer));
}

TEMPLATE_TEST_CASE("stream: a pause closes the peer's window, and resuming loses nothing", "",
                   EpollPoller, PollPoller) {
    for (const Kind& kind : read_by_us) {
        CAPTURE(kind.name);
        Watched<TestType> watched;
        Ends ends = kind.make();
        const ResourceId id = watched.add(std::move(ends.ours));
        write_some(ends.theirs, "x");
        REQUIRE(watched.until([&] { return watched.heard(id).bytes == "x"; }));
        watched.perform([&](auto& actions) { actions.pause(id); });
        const std::string text = pattern(30'000'000);
        std::string_view rest = text;
        while (const std::size_t count = write_some(ends.theirs, rest)) {
            rest.remove_prefix(count);
            for (int n = 0; n < 3; ++n) {
                watched.turn();
            }
        }
        CHECK_FALSE(rest.empty());
        CHECK(watched.rests());
        CHECK(watched.heard(id).bytes == "x");
        watched.perform([&](auto& actions) { actions.resume(id); });
        REQUIRE(watched.write_all(ends.theirs, rest));
        ends.theirs.reset();
        REQUIRE(watched.until_gone(id));
        CHECK(watched.heard(id).trace == "deh");
        CHECK((watched.heard(id).bytes == "x" + text));
    }
}

TEMPLATE_TEST_CASE("stream: pausing in the data event stops there, resuming twice reads once", "",
                   EpollPoller, PollPoller) {
    Watched<TestType> watched(tight());
    Ends ends = unix_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    watched.service().reaction = [&](ResourceId, StreamEvent& event, auto& actions) {
        if (event.data() != nullptr) {
            actions.pause(id);
        }
    };
    const std::string text = pattern(1'000);
    REQUIRE(write_some(ends.theirs, text) == 1'000);
    for (std::size_t n = 1; n <= 4; ++n) {
        REQUIRE(watched.until([&] {
            return watched.heard(id).bytes.size() >= std::min<std::size_t>(n * 256, 1'000);
        }));
        CHECK(watched.rests());
        CHECK(watched.heard(id).bytes.size() == std::min<std::size_t>(n * 256, 1'000));
        watched.perform([&](auto& actions) {
            actions.resume(id);
            actions.resume(id);
        });
    }
    CHECK(watched.heard(id).bytes == text);
}

namespace {

/// A transport with bytes of its own to yield, of which the kernel knows nothing, as under TLS.
struct Layered {
    using Event = int;

    os::Fd fd_;
    int inside = 10;
    bool gathered = false;

    [[nodiscard]] int fd() const { return fd_.get(); }
    [[nodiscard]] Interest interest() const { return {true, gathered}; }
    std::optional<int> handle_io(Io io) {
        return io == Io::read && inside > 0 ? std::optional(inside--) : std::nullopt;
    }
    WriteStatus write_atomic(std::span<const std::byte>) {
        gathered = true;
        return WriteStatus::accepted;
    }
    [[nodiscard]] bool is_ready_to_write() const { return !gathered; }
    void flush() { gathered = false; }
    void close_write() {}
    [[nodiscard]] std::size_t unsent() const { return gathered ? 1 : 0; }
};

struct Answerer : Service<NoListener, Layered> {
    void handle_registered(ResourceId id, Role, int, Actions& actions) { actions.resume(id); }
    void handle_transport_event(ResourceId id, int, Actions& actions) {
        ++events;
        actions.send(id, "answer");
    }
    int events = 0;
};

} // namespace

TEMPLATE_TEST_CASE("stream: what reading was held back for and a flush cured is asked for again",
                   "", EpollPoller, PollPoller) {
    Ends ends = unix_ends();
    Runtime<Answerer, TestType> runtime{Answerer{}};
    runtime.controller().register_transport(Layered{std::move(ends.ours)});
    for (int turns = 0; turns < 100 && runtime.service().events < 10; ++turns) {
        runtime.turn(1ms);
    }
    CHECK(runtime.service().events == 10);
}

TEST_CASE("stream: a burst leaves no memory behind") {
    Ends ends = unix_ends();
    Stream stream{std::move(ends.ours)};
    const std::string text = pattern(900'000);
    Reader reader;
    reader.bytes.reserve(3 * text.size());
    const std::size_t before = memory.bytes;
    for (int n = 0; n < 3; ++n) {
        REQUIRE(stream.write_atomic(bytes(text)) == WriteStatus::accepted);
        CHECK(memory.bytes > before);
        while (stream.unsent() > 0) {
            stream.flush();
            reader.read(ends.theirs);
        }
        CHECK(memory.bytes == before);
    }
    reader.read(ends.theirs);
    CHECK((reader.bytes == text + text + text));
}

TEMPLATE_TEST_CASE("stream: a hundred that had a burst cost what they cost before", "", EpollPoller,
                   PollPoller) {
    Watched<TestType> watched;
    std::vector<ResourceId> ids;
    std::vector<Ends> ends;
    for (int n = 0; n < 100; ++n) {
        ends.push_back(unix_ends());
        make_small(ends.back().ours);
        ids.push_back(watched.add(std::move(ends.back().ours)));
        watched.heard(ids.back()).trace.reserve(64);
    }
    const std::string text = pattern(60'000);
    std::size_t after_first = 0;
    for (int round = 0; round < 3; ++round) {
        watched.perform([&](auto& actions) {
            for (const ResourceId id : ids) {
                actions.send(id, text);
            }
        });
        const std::size_t full = memory.bytes;
        for (const Ends& pair : ends) {
            Reader reader;
            REQUIRE(watched.read_until(pair.theirs, reader, text.size()));
            CHECK((reader.bytes == text));
        }
        CHECK(full > memory.bytes + 100 * 30'000);
        after_first = round == 0 ? memory.bytes.load() : after_first;
        CHECK(memory.bytes <= after_first + 4'096);
    }
}

TEMPLATE_TEST_CASE("stream: a client that never reads costs its cap at most and gets everything",
                   "", EpollPoller, PollPoller) {
    constexpr std::size_t cap = 256 * 1024;
    constexpr std::size_t piece = 16 * 1024;
    for (const bool heeds_blocked : {false, true}) {
        CAPTURE(heeds_blocked);
        Watched<TestType> watched(with_limits({64 * 1024, 16 * 1024, cap}));
        Ends ends = tcp_ends();
        make_small(ends.ours);
        make_small(ends.theirs);
        const ResourceId id = watched.add(std::move(ends.ours));
        const std::string text = pattern(8 << 20);
        Reader reader;
        reader.bytes.reserve(text.size());
        auto& heard = watched.heard(id);
        std::size_t position = 0;
        watched.service().every_turn = [&](auto& actions) {
            for (; !heard.returned.empty(); heard.returned.pop_back()) {
                position -= piece;
            }
            const bool blocked = heard.trace.ends_with('b') || heard.trace.ends_with("bs");
            if (position < text.size() && !(heeds_blocked && blocked)) {
                actions.send(id, std::string_view(text).substr(position, piece));
                position += piece;
            }
            if (position == text.size() && heard.returned.empty()) {
                actions.close_write(id);
            }
        };
        watched.turn();
        const std::size_t before = memory.bytes;
        memory.peak = before;
        for (int n = 0; n < 400; ++n) {
            watched.turn();
        }
        CHECK(heard.trace.starts_with("b"));
        CHECK((heard.trace.find('s') != std::string::npos) == !heeds_blocked);
        CHECK(memory.peak - before <= cap + 128 * 1024);
        CHECK(position < text.size());
        REQUIRE(watched.read_to_end(ends.theirs, reader));
        CHECK((reader.bytes == text));
    }
}

TEMPLATE_TEST_CASE("stream: a Buffer for many transports stands in memory once", "", EpollPoller,
                   PollPoller) {
    Watched<TestType> watched;
    std::vector<ResourceId> ids;
    std::vector<Ends> ends;
    for (int n = 0; n < 50; ++n) {
        ends.push_back(unix_ends());
        make_small(ends.back().ours);
        ids.push_back(watched.add(std::move(ends.back().ours)));
        watched.heard(ids.back()).trace.reserve(64);
    }
    const std::string text = pattern(600'000);
    const std::size_t before = memory.bytes;
    Buffer buffer{std::string_view(text)};
    watched.perform([&](auto& actions) {
        for (const ResourceId id : ids) {
            actions.send(id, buffer);
        }
    });
    CHECK(buffer.shared());
    CHECK(memory.bytes - before < 2 * text.size());
    for (const Ends& pair : ends) {
        Reader reader;
        REQUIRE(watched.read_until(pair.theirs, reader, text.size()));
        CHECK((reader.bytes == text));
    }
    CHECK_FALSE(buffer.shared());
}

TEMPLATE_TEST_CASE("stream: two that both send first come through without auto_pause", "",
                   EpollPoller, PollPoller) {
    const bool auto_pause = GENERATE(false, true);
    CAPTURE(auto_pause);
    Watched<TestType> watched(with_limits({64 * 1024, 16 * 1024, 1 << 20}, auto_pause));
    Ends ends = unix_ends();
    const ResourceId a = watched.add(std::move(ends.ours));
    const ResourceId b = watched.add(std::move(ends.theirs));
    const std::string from_a = pattern(1'000'000, 1);
    const std::string from_b = pattern(1'000'000, 2);
    watched.perform([&](auto& actions) {
        actions.send(a, from_a);
        actions.send(b, from_b);
        actions.send(a, from_a); // past the cap
        actions.send(b, from_b);
    });
    CHECK(watched.heard(a).returned.size() == 1);
    CHECK(watched.heard(b).returned.size() == 1);
    if (auto_pause) {
        // Each waits for the other to read: that is what back-pressure means where both do it. It
        // costs no turns and no memory; whoever talks like this turns it off, or sets a deadline.
        CHECK(watched.rests());
        CHECK(watched.heard(a).trace == "sb");
        CHECK(watched.heard(b).trace == "sb");
        watched.perform([&](auto& actions) { actions.unregister_transport(a); });
        CHECK(watched.heard(a).trace == "sbh");
        CHECK(watched.heard(a).unsent > 0);
    } else {
        REQUIRE(watched.until([&] {
            return watched.heard(a).bytes.size() == 1'000'000 &&
                   watched.heard(b).bytes.size() == 1'000'000;
        }));
        CHECK((watched.heard(a).bytes == from_b));
        CHECK((watched.heard(b).bytes == from_a));
        CHECK(watched.rests());
    }
}

// -- leaving and coming back ----------------------------------------------------------------------

TEMPLATE_TEST_CASE("stream: handed over it carries what is unread and counts what is unsent", "",
                   EpollPoller, PollPoller) {
    const Kind& kind = two_way[GENERATE(0, 1)];
    // Less than the loop gathers in its own memory, and more.
    const std::size_t size = GENERATE(std::size_t{200'000}, std::size_t{3'000'000});
    CAPTURE(kind.name, size);
    Options options = tight();
    options.stream.cap = 4'000'000;
    Watched<TestType> a(options);
    Watched<TestType> b;
    Ends ends = kind.make();
    make_small(ends.ours);
    make_small(ends.theirs);
    Ends other = unix_ends();
    const ResourceId other_id = a.add(std::move(other.ours));
    const std::string input = pattern(1'000, 1);
    const std::string output = pattern(size, 2);
    REQUIRE(write_some(ends.theirs, input) == input.size());
    REQUIRE((kind.make != tcp_ends || has_arrived(ends.theirs)));
    a.service().reaction = [&](ResourceId whose, StreamEvent& event, auto& actions) {
        if (event.data() != nullptr) {
            actions.send(whose, output);
            actions.unregister_transport(whose);
            actions.unregister_transport(whose);
        }
    };
    const ResourceId first = a.add(std::move(ends.ours));
    REQUIRE(a.until_gone(first));
    CHECK(a.rests());
    CHECK(a.heard(first).trace == "dhu");
    CHECK(a.heard(first).bytes == input.substr(0, budget / 4));
    const std::size_t unsent = a.heard(first).unsent;
    CHECK(a.heard(first).back->unsent() == unsent);
    CHECK(unsent < output.size()); // one flush was tried
    CHECK((unsent > 0 || kind.make == tcp_ends));
    Reader reader;
    CHECK(eventually([&] {
        reader.read(ends.theirs);
        return reader.bytes.size() == output.size() - unsent;
    }));

    // What the first loop does now is nothing to it; another goes on with it.
    a.perform([&](auto& actions) { actions.send(other_id, pattern(200'000, 3)); });
    b.service().stays = true;
    const ResourceId second = b.add(std::move(*a.heard(first).back));
    REQUIRE(b.read_until(ends.theirs, reader, output.size()));
    CHECK((reader.bytes == output));
    REQUIRE(b.until([&] { return b.heard(second).bytes.size() == 1'000 - budget / 4; }));
    write_some(ends.theirs, " and more");
    b.perform([&](auto& actions) { actions.close_write(second); });
    ends.theirs.reset();
    REQUIRE(b.until_gone(second));
    CHECK((a.heard(first).bytes + b.heard(second).bytes == input + " and more"));
    CHECK(b.heard(second).trace.ends_with("deh"));
    CHECK(a.rests());
    CHECK(a.heard(first).trace == "dhu");
}

TEMPLATE_TEST_CASE("stream: what was sent before it left is on its way", "", EpollPoller,
                   PollPoller) {
    for (const Kind& kind : written_by_us) {
        CAPTURE(kind.name);
        Watched<TestType> watched;
        Ends ends = kind.make();
        const ResourceId id = watched.add(std::move(ends.ours));
        watched.perform([&](auto& actions) {
            actions.send(id, "good");
            actions.send(id, Buffer(std::string_view("bye")));
            actions.unregister_transport(id);
        });
        CHECK(watched.heard(id).trace == "h");
        CHECK(watched.heard(id).unsent == 0);
        watched.heard(id).back.reset();
        Reader reader;
        REQUIRE(watched.read_to_end(ends.theirs, reader));
        CHECK(reader.eof);
        CHECK(reader.bytes == "goodbye");
    }
}

TEMPLATE_TEST_CASE("stream: urgent bytes of TCP neither spin nor harm the others", "", EpollPoller,
                   PollPoller) {
    Watched<TestType> watched;
    Ends ends = tcp_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    ::send(ends.theirs.get(), "!", 1, MSG_OOB | MSG_NOSIGNAL);
    REQUIRE(has_arrived(ends.theirs));
    CHECK(watched.rests());
    write_some(ends.theirs, "hel");
    ::send(ends.theirs.get(), "!", 1, MSG_OOB | MSG_NOSIGNAL);
    write_some(ends.theirs, "lo");
    ends.theirs.reset();
    REQUIRE(watched.until_gone(id));
    CHECK(watched.heard(id).trace == "deh");
    CHECK(watched.heard(id).bytes == "hello");
}

TEST_CASE("stream: takes a blocking descriptor over and makes it non-blocking, close-on-exec") {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    const os::Fd other(ends[1]);
    Stream stream{os::Fd(ends[0])};
    CHECK((::fcntl(stream.fd(), F_GETFL) & O_NONBLOCK) != 0);
    CHECK((::fcntl(stream.fd(), F_GETFD) & FD_CLOEXEC) != 0);
    const os::Fd back = stream.release();
    CHECK(back.get() == ends[0]);
    CHECK(stream.fd() == -1);
    CHECK(stream.write_atomic(bytes("late")) == WriteStatus::ended);
    CHECK(stream.interest().none());
}

TEST_CASE("stream: what cannot be taken over is an error, and is closed") {
    std::error_code error;
    const Stream none(os::Fd(), error);
    CHECK(is(error, EBADF));
    CHECK(none.fd() == -1);
    CHECK_THROWS_AS(Stream(os::Fd()), std::system_error);

    SECTION("such as a UNIX socket as TCP") {
        Ends ends = unix_ends();
        const TcpStream stream(std::move(ends.ours), error);
        CHECK(is(error, EOPNOTSUPP));
        CHECK(stream.fd() == -1);
        CHECK(stream.interest().none());
        Reader reader;
        reader.read(ends.theirs);
        CHECK(reader.eof);
        ends = unix_ends();
        CHECK_THROWS_AS(TcpStream(std::move(ends.ours)), std::system_error);
    }
}

TEST_CASE("stream: a TCP one has NODELAY and knows where it is") {
    Ends ends = tcp_ends();
    TcpStream stream{std::move(ends.ours)};
    CHECK(os::Kernel::option(stream.fd(), IPPROTO_TCP, TCP_NODELAY).value != 0);
    CHECK_FALSE(stream.set_no_delay(false));
    CHECK(os::Kernel::option(stream.fd(), IPPROTO_TCP, TCP_NODELAY).value == 0);
    const Address theirs = Address::filled(
        [&](sockaddr* at, socklen_t* size) { ::getsockname(ends.theirs.get(), at, size); });
    CHECK(stream.peer() == theirs);
    CHECK(stream.local().is_ipv4());
    CHECK(stream.local() != theirs);
}

TEMPLATE_TEST_CASE("stream: a loop without a read buffer still reads", "", EpollPoller,
                   PollPoller) {
    Options options;
    options.read_buffer = 0; // read as one
    Watched<TestType> watched(options);
    Ends ends = unix_ends();
    const ResourceId id = watched.add(std::move(ends.ours));
    write_some(ends.theirs, "hello");
    REQUIRE(watched.until(
        [&] { return watched.heard(id).bytes == "hello" || watched.heard(id).gone(); }));
    CHECK(watched.heard(id).trace == "d");
}

// -- SIGPIPE --------------------------------------------------------------------------------------

namespace {

/// From now on this process has no pwritev2(2), as on old kernels. False: that is not allowed here.
bool take_pwritev2_away() {
    sock_filter program[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_pwritev2},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | ENOSYS},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
    };
    const sock_fprog filter{4, program};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

sigset_t signal_mask() {
    sigset_t mask;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    return mask;
}

bool sigpipe_is_pending() {
    sigset_t pending;
    ::sigpending(&pending);
    return sigismember(&pending, SIGPIPE) == 1;
}

/// Writes to peers that are gone, with SIGPIPE as a process is born with it. 0: all is well.
template <class Poller>
int write_to_the_gone() {
    ::signal(SIGPIPE, SIG_DFL);
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    ::pthread_sigmask(SIG_UNBLOCK, &pipe, nullptr);
    int number = 1;
    for (const Kind& kind : written_by_us) {
        Watched<Poller> watched;
        Ends ends = kind.make();
        const ResourceId id = watched.add(std::move(ends.ours));
        ends.theirs.reset();
        watched.service().stays = true;
        for (int n = 0; n < 10'000 && !watched.heard(id).gone(); ++n) {
            watched.perform([&](auto& actions) {
                actions.send(id, "lost");
                actions.send(id, Buffer(pattern(10'000)));
            });
            watched.runtime.turn(1ms);
        }
        if (!watched.heard(id).gone()) {
            return number;
        }
        ++number;
    }
    return sigpipe_is_pending() || sigismember(&pipe, SIGPIPE) != 1 ? 50 : 0;
}

} // namespace

TEMPLATE_TEST_CASE("stream: no peer can kill the process with SIGPIPE", "", EpollPoller,
                   PollPoller) {
    const int status = in_child([] { return write_to_the_gone<TestType>(); });
    CHECK_FALSE(WIFSIGNALED(status));
    CHECK(WEXITSTATUS(status) == 0);
}

TEMPLATE_TEST_CASE("stream: nor where the kernel cannot leave the signal out", "", EpollPoller,
                   PollPoller) {
    static constexpr int not_allowed = 77;
    int status =
        in_child([] { return take_pwritev2_away() ? write_to_the_gone<TestType>() : not_allowed; });
    if (WIFEXITED(status) && WEXITSTATUS(status) == not_allowed) {
        WARN("seccomp is not allowed here");
        return;
    }
    CHECK_FALSE(WIFSIGNALED(status));
    CHECK(WEXITSTATUS(status) == 0);

    // And nothing of it can be seen from outside: not the mask, nor a signal that was there before.
    status = in_child([] {
        if (!take_pwritev2_away()) {
            return not_allowed;
        }
        ::signal(SIGPIPE, SIG_DFL);
        Ends ends = pipe_from_us();
        ends.theirs.reset();
        const iovec part{const_cast<char*>("lost"), 4};
        const sigset_t before = signal_mask();
        const os::Result broken = os::Kernel::write(ends.ours.get(), {&part, 1});
        const sigset_t after = signal_mask();
        if (broken.error != EPIPE || sigpipe_is_pending() ||
            sigismember(&before, SIGPIPE) != sigismember(&after, SIGPIPE)) {
            return 1;
        }
        sigset_t pipe;
        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE);
        ::pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
        ::raise(SIGPIPE);
        return os::Kernel::write(ends.ours.get(), {&part, 1}).error == EPIPE && sigpipe_is_pending()
                   ? 0
                   : 2;
    });
    CHECK_FALSE(WIFSIGNALED(status));
    CHECK(WEXITSTATUS(status) == 0);
}
