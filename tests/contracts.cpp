// SPDX-License-Identifier: Apache-2.0
//
// The values that pass between a service and its runtime, and the tables they stand in: each alone,
// with no loop around it.
#include <reactor/action.hpp>
#include <reactor/detail/fifo.hpp>
#include <reactor/detail/gather.hpp>
#include <reactor/detail/registry.hpp>
#include <reactor/error.hpp>
#include <reactor/handler.hpp>
#include <reactor/options.hpp>

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <limits>
#include <map>
#include <new>
#include <random>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "catch.hpp"

using namespace reactor;
using namespace std::chrono_literals;
using namespace std::string_view_literals;

// --- Memory, counted -----------------------------------------------------------------------------

namespace {

struct Memory {
    std::size_t bytes = 0;       ///< that stand now
    std::size_t allocations = 0; ///< that were made
    std::size_t fail_in = 0;     ///< the so manieth allocation from now fails; 0: none does
};
Memory memory;

void* take_memory(std::size_t size) noexcept {
    constexpr std::size_t there_is = std::size_t{1} << 30; // checkers do not let malloc(3) refuse
    if (size > there_is || (memory.fail_in != 0 && --memory.fail_in == 0)) {
        return nullptr;
    }
    void* const taken = std::malloc(size == 0 ? 1 : size);
    if (taken != nullptr) {
        memory.bytes += ::malloc_usable_size(taken);
        ++memory.allocations;
    }
    return taken;
}
void leave_memory(void* taken) noexcept {
    if (taken != nullptr) {
        memory.bytes -= ::malloc_usable_size(taken);
        std::free(taken);
    }
}

/// Whether this throws std::bad_alloc if the next allocation fails.
template <class Work>
bool fails_without_memory(Work&& work) {
    memory.fail_in = 1;
    try {
        work();
    } catch (const std::bad_alloc&) {
        return true;
    }
    memory.fail_in = 0;
    return false;
}

} // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
    void* const taken = take_memory(size);
    if (taken == nullptr) {
        throw std::bad_alloc();
    }
    return taken;
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return take_memory(size);
}
[[gnu::noinline]] void operator delete(void* taken) noexcept { leave_memory(taken); }
[[gnu::noinline]] void operator delete(void* taken, std::size_t) noexcept { leave_memory(taken); }

namespace {

// --- Resources that are nothing but a number -----------------------------------------------------

/// Counts how many of it live; tells whether it was moved from.
struct Counted {
    using Event = NoCommand;

    inline static int living = 0;

    explicit Counted(int with) noexcept : number(with) { ++living; }
    Counted(Counted&& other) noexcept : number(std::exchange(other.number, -1)) { ++living; }
    Counted& operator=(Counted&&) = delete;
    ~Counted() { --living; }

    [[nodiscard]] bool moved_from() const noexcept { return number == -1; }

    [[nodiscard]] int fd() const noexcept { return number; }
    [[nodiscard]] Interest interest() const noexcept { return {}; }
    std::optional<Event> handle_io(Io) noexcept { return std::nullopt; }

    int number;
};

struct Listening : Counted {
    using Counted::Counted;
};
static_assert(Resource<Listening>);

/// Notes what it was offered, and how.
struct Writing : Counted {
    using Counted::Counted;

    WriteStatus write_atomic(std::span<const std::byte> bytes) { return take("copied ", bytes); }
    WriteStatus write_borrowed(std::span<const std::byte> bytes) { return take("lent ", bytes); }
    WriteStatus write_shared(const Buffer& buffer) { return take("shared ", buffer.bytes()); }
    [[nodiscard]] bool is_ready_to_write() const noexcept { return true; }
    void flush() noexcept {}
    void close_write() noexcept {}
    [[nodiscard]] std::size_t unsent() const noexcept { return 0; }

    WriteStatus take(const char* how, std::span<const std::byte> bytes) {
        if (answer == WriteStatus::accepted) {
            offered.push_back(how + std::string(text_of(bytes)));
        }
        return answer;
    }

    WriteStatus answer = WriteStatus::accepted;
    std::vector<std::string> offered;
};
static_assert(Writable<Writing>);

using Actions = BasicActions<Listening, Writing>;
using Error = BasicError<Listening, Writing>;

ResourceId id(std::uint32_t slot, std::uint64_t generation = 1) {
    return ResourceId::of(slot, generation);
}
TimerId timer(std::uint32_t slot, std::uint64_t generation = 1) {
    return TimerId::of(slot, generation);
}

} // namespace

// --- Interest and Readiness ----------------------------------------------------------------------

TEST_CASE("Interest: the wish for one half, for both, for none") {
    CHECK(Interest{}.none());
    CHECK_FALSE(Interest{true, false}.none());
    CHECK_FALSE(Interest{false, true}.none());
    for (const bool read : {false, true}) {
        for (const bool write : {false, true}) {
            const Interest interest{read, write};
            CHECK(interest.has(Io::read) == read);
            CHECK(interest.has(Io::write) == write);
            CHECK((interest == Interest{true, true}) == (read && write));
        }
    }
}

TEST_CASE("Readiness: a hang-up and an error call for both halves") {
    for (int bits = 0; bits < 16; ++bits) {
        const Readiness fact{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0};
        CAPTURE(bits);
        CHECK(fact.none() == (bits == 0));
        CHECK(fact.calls_for(Io::read) == ((bits & 1) != 0 || bits >= 4));
        CHECK(fact.calls_for(Io::write) == ((bits & 2) != 0 || bits >= 4));
        CHECK((fact == Readiness{}) == (bits == 0));
    }
}

// --- Ids -----------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("an id is a slot and a generation, and zero names nothing", "", ResourceId,
                   TimerId) {
    using Id = TestType;
    constexpr std::uint32_t last_slot = (std::uint32_t{1} << 24) - 1;
    constexpr std::uint64_t last_generation = (std::uint64_t{1} << 40) - 1;
    CHECK(Id::slot_count == last_slot + 1);
    CHECK(Id::last_generation == last_generation);

    CHECK_FALSE(Id{});
    CHECK(Id{}.value() == 0);
    CHECK(Id{} == Id::from_value(0));
    for (const std::uint32_t slot : {0U, 1U, 2U, 63U, 64U, 65'535U, 65'536U, last_slot}) {
        for (const std::uint64_t generation :
             {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{0xffff'ffff},
              std::uint64_t{0x1'0000'0000}, last_generation - 1, last_generation}) {
            const Id made = Id::of(slot, generation);
            CAPTURE(slot, generation);
            CHECK(made);
            CHECK(made.slot() == slot);
            CHECK(made.generation() == generation);
            CHECK(Id::from_value(made.value()) == made);
            CHECK(made != Id{});
            CHECK(std::hash<Id>{}(made) == std::hash<Id>{}(Id::from_value(made.value())));
        }
    }
    CHECK(Id::of(last_slot, last_generation).value() == ~std::uint64_t{0});
    // Older generations come first, whatever their slots.
    CHECK(Id::of(last_slot, 1) < Id::of(0, 2));
    CHECK(Id::of(1, 2) > Id::of(0, 2));
}

TEST_CASE("ids can be keys") {
    std::unordered_set<ResourceId> hashed;
    std::set<ResourceId> sorted;
    for (std::uint32_t slot = 0; slot < 100; ++slot) {
        for (std::uint64_t generation = 1; generation <= 3; ++generation) {
            hashed.insert(id(slot, generation));
            sorted.insert(id(slot, generation));
        }
    }
    CHECK(hashed.size() == 300);
    CHECK(sorted.size() == 300);
    CHECK(hashed.count(id(99, 3)) == 1);
    CHECK(hashed.count(id(99, 4)) == 0);
}

// --- Time ----------------------------------------------------------------------------------------

namespace {

__extension__ using Wide = __int128;

Duration held(Wide nanoseconds) {
    const Wide most = Duration::max().count();
    const Wide least = Duration::min().count();
    return Duration{static_cast<Duration::rep>(std::clamp(nanoseconds, least, most))};
}
Wide wide(Duration span) { return span.count(); }
Wide wide(Timestamp when) { return when.time_since_epoch().count(); }

} // namespace

TEST_CASE("time saturates: for ever and a second is still for ever") {
    CHECK(saturating_add(Timestamp{5s}, 2s) == Timestamp{7s});
    CHECK(saturating_add(Timestamp{5s}, -7s) == Timestamp{-2s});
    CHECK(saturating_sub(Timestamp{5s}, Timestamp{7s}) == -2s);
    CHECK(saturating_add(Timestamp::max(), 1ns) == Timestamp::max());
    CHECK(saturating_add(Timestamp::max() - 1ns, 1ns) == Timestamp::max());
    CHECK(saturating_add(Timestamp::max() - 1ns, 2ns) == Timestamp::max());
    CHECK(saturating_add(Timestamp{1h}, Duration::max()) == Timestamp::max());
    CHECK(saturating_add(Timestamp::min(), -1ns) == Timestamp::min());
    CHECK(saturating_add(Timestamp::max(), Duration::min()) == Timestamp{-1ns});
    CHECK(saturating_sub(Timestamp::max(), Timestamp{-1ns}) == Duration::max());
    CHECK(saturating_sub(Timestamp::min(), Timestamp{1ns}) == Duration::min());
    CHECK(saturating_sub(Timestamp::min(), Timestamp::min()) == 0ns);
    CHECK(saturating_sub(Timestamp::max(), Timestamp::min()) == Duration::max());
    CHECK(saturating_sub(Timestamp::min(), Timestamp::max()) == Duration::min());
}

TEST_CASE("time is what whole numbers of any size would be, held at the ends") {
    std::vector<Duration> spans;
    for (const Duration near : {Duration::min(), Duration::min() / 2, Duration::zero(),
                                Duration::max() / 2, Duration::max()}) {
        for (Duration off = -3ns; off <= 3ns; off += 1ns) {
            spans.push_back(held(wide(near) + wide(off)));
        }
    }
    std::mt19937_64 random(20);
    for (int n = 0; n < 200; ++n) {
        spans.push_back(Duration{static_cast<Duration::rep>(random()) >> (random() % 64)});
    }
    std::size_t wrong = 0;
    for (const Duration a : spans) {
        for (const Duration b : spans) {
            const Timestamp when{a};
            wrong += saturating_add(when, b) != Timestamp{held(wide(when) + wide(b))} ? 1U : 0U;
            wrong += saturating_sub(when, Timestamp{b}) != held(wide(when) - wide(b)) ? 1U : 0U;
        }
    }
    CHECK(wrong == 0);
    static_assert(saturating_add(Timestamp::max(), Duration{1}) == Timestamp::max());
    static_assert(saturating_sub(Timestamp::max(), Timestamp::min()) == Duration::max());
}

// --- Options -------------------------------------------------------------------------------------

TEST_CASE("Options: every limit is finite by default, and is this (I8)") {
    // All of them by position, so that a new one cannot be forgotten here.
    const auto [events_per_wait, events_per_resource, bytes_per_resource, accepts_per_turn,
                commands_per_turn, timers_per_turn, actions_per_turn, command_queue, action_queue,
                timers, listeners, transports, read_buffer, gather_buffer, stream, owed_bytes,
                shedding, return_memory, auto_pause, poll_failures] = Options{};
    const auto [high_watermark, low_watermark, cap] = stream;
    CHECK(events_per_wait == 256);
    CHECK(events_per_resource == 16);
    CHECK(bytes_per_resource == 256 * 1024);
    CHECK(accepts_per_turn == 4);
    CHECK(commands_per_turn == 1024);
    CHECK(timers_per_turn == 1024);
    CHECK(actions_per_turn == 65'536);
    CHECK(command_queue == 65'536);
    CHECK(action_queue == 65'536);
    CHECK(timers == 1'000'000);
    CHECK(listeners == 65'536);
    CHECK(transports == 1'000'000);
    CHECK(read_buffer == 64 * 1024);
    CHECK(gather_buffer == 256 * 1024);
    CHECK(high_watermark == 64 * 1024);
    CHECK(low_watermark == 16 * 1024);
    CHECK(cap == 1024 * 1024);
    CHECK(owed_bytes == 1024 * 1024 * 1024);
    CHECK(shedding == Shedding::give_back);
    CHECK(return_memory);
    CHECK(auto_pause);
    CHECK(poll_failures == 10);
    CHECK((low_watermark <= high_watermark && high_watermark <= cap));
}

// --- Buffer --------------------------------------------------------------------------------------

TEST_CASE("Buffer: an empty one owns nothing") {
    const std::size_t before = memory.allocations;
    Buffer empty;
    Buffer none(std::string_view{});
    Buffer of_no_size = Buffer::uninitialized(0);
    Buffer copy = empty;
    CHECK(memory.allocations == before);
    for (Buffer* const buffer : {&empty, &none, &of_no_size, &copy}) {
        CHECK(buffer->empty());
        CHECK(buffer->size() == 0);
        CHECK(buffer->bytes().empty());
        CHECK(buffer->writable().empty());
        CHECK(buffer->text().empty());
        CHECK_FALSE(buffer->shared());
    }
}

TEST_CASE("Buffer: holds a copy of what it was made of") {
    std::string text = "some text";
    const Buffer buffer(text);
    const Buffer of_bytes(bytes_of(text));
    text.assign(text.size(), 'x');
    CHECK(buffer.text() == "some text");
    CHECK(of_bytes.text() == "some text");
    CHECK(buffer.size() == 9);
    CHECK_FALSE(buffer.empty());
    CHECK(text_of(bytes_of("\0a\xff"sv)) == "\0a\xff"sv);
}

TEST_CASE("Buffer: copies share one block, a move hands the handle on") {
    const std::size_t before = memory.bytes;
    {
        Buffer first("text");
        const std::size_t one = memory.bytes;
        const std::byte* const where = first.bytes().data();
        Buffer second = first;
        const Buffer third = second;
        CHECK(memory.bytes == one);
        CHECK(first.shared());
        CHECK(second.shared());
        CHECK(second.bytes().data() == where);
        CHECK(third.bytes().data() == where);

        Buffer fourth = std::move(first);
        CHECK(first.empty()); // NOLINT: a moved-from Buffer is empty
        CHECK(first.bytes().empty());
        CHECK(fourth.bytes().data() == where);
        CHECK(memory.bytes == one);

        second = Buffer("other");
        CHECK(second.text() == "other");
        CHECK(third.text() == "text");
        fourth = third;
        CHECK(fourth.bytes().data() == where);
        Buffer& same = fourth;
        fourth = same;
        CHECK(fourth.text() == "text");
        fourth = std::move(same);
        CHECK(fourth.text() == "text");
    }
    CHECK(memory.bytes == before);
}

TEST_CASE("Buffer: is written while it has one handle, and constant from the first share on") {
    Buffer buffer = Buffer::uninitialized(3);
    REQUIRE(buffer.size() == 3);
    REQUIRE(buffer.writable().size() == 3);
    CHECK(buffer.writable().data() == buffer.bytes().data());
    std::ranges::fill(buffer.writable(), std::byte{'a'});
    CHECK(buffer.text() == "aaa");
    {
        Buffer other = buffer;
        CHECK(buffer.writable().empty());
        CHECK(other.writable().empty());
        CHECK(other.text() == "aaa");
    }
    CHECK_FALSE(buffer.shared());
    REQUIRE(buffer.writable().size() == 3);
    buffer.writable()[1] = std::byte{'b'};
    CHECK(buffer.text() == "aba");
    const Buffer moved = std::move(buffer);
    CHECK_FALSE(moved.shared());
}

TEST_CASE("Buffer: without memory it is not made, and leaves nothing") {
    const std::size_t before = memory.bytes;
    CHECK(fails_without_memory([] { Buffer buffer("text"); }));
    CHECK(fails_without_memory([] { static_cast<void>(Buffer::uninitialized(1)); }));
    CHECK(memory.bytes == before);
}

TEST_CASE("Buffer: a size that no memory has is refused") {
    constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
    for (const std::size_t size : {most, most - 1, most - 15, most - 16, most / 2}) {
        CAPTURE(size);
        CHECK_THROWS_AS(Buffer::uninitialized(size), std::bad_alloc);
    }
}

// --- Error ---------------------------------------------------------------------------------------

TEST_CASE("Error: three kinds are the end of what they name, the others are none") {
    const std::map<ErrorKind, bool> ends{
        {ErrorKind::ended, true},           {ErrorKind::registration_failed, true},
        {ErrorKind::interest_failed, true}, {ErrorKind::shed, true}, {ErrorKind::trouble, false},
        {ErrorKind::send_returned, false},  {ErrorKind::unknown_id, false},
        {ErrorKind::actions_refused, false}, {ErrorKind::poll_failed, false},
    };
    for (const auto& [kind, is_end] : ends) {
        const Error error(kind);
        CHECK(error.kind() == kind);
        CHECK(error.is_end() == is_end);
    }
}

TEST_CASE("Error: brings only what was put in") {
    Error error(ErrorKind::trouble, id(4, 2), std::make_error_code(std::errc::not_enough_memory));
    CHECK(error.id() == id(4, 2));
    CHECK(error.code() == std::errc::not_enough_memory);
    CHECK(error.unsent() == 0);
    CHECK_FALSE(error.take_listener());
    CHECK_FALSE(error.take_transport());
    CHECK(error.take_payload().empty());
    CHECK_FALSE(Error(ErrorKind::poll_failed).id());
    CHECK_FALSE(Error(ErrorKind::poll_failed).code());
}

TEST_CASE("Error: gives back what is the service's, once") {
    {
        Error error(ErrorKind::registration_failed, id(1));
        error.put_listener(Listening(7));
        std::optional<Listening> listener = error.take_listener();
        REQUIRE(listener);
        CHECK(listener->number == 7);
        CHECK_FALSE(error.take_listener());
        CHECK_FALSE(error.take_transport());

        error.put_transport(Writing(8));
        std::optional<Writing> transport = error.take_transport();
        REQUIRE(transport);
        CHECK(transport->number == 8);
        CHECK_FALSE(error.take_transport());
        CHECK_FALSE(error.take_listener());

        error.put_payload(Buffer("12345"));
        CHECK(error.unsent() == 5);
        CHECK(error.take_payload().text() == "12345");
        CHECK(error.take_payload().empty());
        CHECK(error.unsent() == 5); // it was not sent, whoever has it now

        error.put_unsent(99);
        CHECK(error.unsent() == 99);
    }
    CHECK(Counted::living == 0);
}

TEST_CASE("Error: what is not taken out goes with it, and with it it moves") {
    static_assert(!std::is_copy_constructible_v<Error> && !std::is_copy_assignable_v<Error>);
    static_assert(std::is_nothrow_move_constructible_v<Error>);
    {
        Error error(ErrorKind::ended, id(2));
        error.put_transport(Writing(8));
        error.put_payload(Buffer("123"));
        Error moved(std::move(error));
        CHECK(moved.kind() == ErrorKind::ended);
        CHECK(moved.id() == id(2));
        CHECK(moved.unsent() == 3);
        CHECK(Counted::living > 0);
        std::optional<Writing> transport = moved.take_transport();
        REQUIRE(transport);
        CHECK(transport->number == 8);
        Error untouched(ErrorKind::ended, id(2));
        untouched.put_listener(Listening(9));
    }
    CHECK(Counted::living == 0);
}

// --- Actions with no runtime behind them ---------------------------------------------------------

namespace {

std::vector<ActionKind> kinds_of(const Actions& actions) {
    std::vector<ActionKind> kinds;
    for (const Action& action : actions) {
        kinds.push_back(action.kind());
    }
    return kinds;
}

} // namespace

TEST_CASE("Actions: ids are known at once, even for transports and odd for listeners") {
    Actions actions;
    std::set<ResourceId> ids;
    for (std::uint32_t n = 0; n < 5; ++n) {
        const ResourceId listener = actions.register_listener(Listening(1));
        const ResourceId transport = actions.register_transport(Writing(2));
        CHECK(listener == id(2 * n + 1));
        CHECK(transport == id(2 * n));
        CHECK(detail::role_of(listener) == Role::listener);
        CHECK(detail::role_of(transport) == Role::transport);
        ids.insert({listener, transport});
    }
    CHECK(ids.size() == 10);
}

TEST_CASE("Actions: what was asked for is read back, in order, as it was asked") {
    Actions actions;
    CHECK(actions.empty());
    const ResourceId listener = actions.register_listener(Listening(1));
    const ResourceId transport = actions.register_transport(Writing(2));
    CHECK(actions.send(transport, "text"));
    CHECK(actions.send(transport, bytes_of("bytes")));
    CHECK(actions.send(transport, Buffer("buffer")));
    const TimerId once = actions.set_timer(3s);
    const TimerId at = actions.set_timer_at(Timestamp{4s});
    const TimerId often = actions.set_interval(5s);
    CHECK(actions.reset_timer(once, 6s));
    CHECK(actions.cancel_timer(at));
    CHECK(actions.pause(transport));
    CHECK(actions.resume(transport));
    CHECK(actions.close_write(transport));
    CHECK(actions.unregister_transport(transport));
    CHECK(actions.unregister_listener(listener));
    CHECK(actions.drain(7s));
    CHECK(actions.shutdown());
    CHECK(once);
    CHECK(at);
    CHECK(often);
    CHECK((once != at && at != often && once != often));

    struct Expected {
        ActionKind kind;
        ResourceId id{};
        TimerId timer{};
        Duration duration{};
        Timestamp deadline{};
        std::string_view text{};
    };
    const std::vector<Expected> expected{
        {.kind = ActionKind::register_listener, .id = listener},
        {.kind = ActionKind::register_transport, .id = transport},
        {.kind = ActionKind::send, .id = transport, .text = "text"},
        {.kind = ActionKind::send, .id = transport, .text = "bytes"},
        {.kind = ActionKind::send, .id = transport, .text = "buffer"},
        {.kind = ActionKind::set_timer, .timer = once, .duration = 3s},
        {.kind = ActionKind::set_timer_at, .timer = at, .deadline = Timestamp{4s}},
        {.kind = ActionKind::set_interval, .timer = often, .duration = 5s},
        {.kind = ActionKind::reset_timer, .timer = once, .duration = 6s},
        {.kind = ActionKind::cancel_timer, .timer = at},
        {.kind = ActionKind::pause, .id = transport},
        {.kind = ActionKind::resume, .id = transport},
        {.kind = ActionKind::close_write, .id = transport},
        {.kind = ActionKind::unregister_transport, .id = transport},
        {.kind = ActionKind::unregister_listener, .id = listener},
        {.kind = ActionKind::drain, .duration = 7s},
        {.kind = ActionKind::shutdown},
    };
    REQUIRE(actions.size() == expected.size());
    auto next = expected.begin();
    for (const Action& action : actions) {
        CAPTURE(next - expected.begin());
        CHECK(action.kind() == next->kind);
        CHECK(action.id() == next->id);
        CHECK(action.timer() == next->timer);
        CHECK(action.duration() == next->duration);
        CHECK(action.deadline() == next->deadline);
        CHECK(text_of(action.bytes()) == next->text);
        CHECK(action.payload().text() == next->text);
        ++next;
    }
    // Iterating takes nothing; take() does, from the front.
    CHECK(actions.size() == expected.size());
    CHECK(actions.take().kind() == ActionKind::register_listener);
    CHECK(actions.take_listener().number == 1);
    CHECK(actions.take().kind() == ActionKind::register_transport);
    CHECK(actions.take_transport().number == 2);
    CHECK(actions.take().id() == transport);
    CHECK(actions.size() == expected.size() - 3);
    CHECK(actions.take_refused() == 0);
}

TEST_CASE("Actions: resources wait in the order of their registration, each role for itself") {
    Actions actions;
    for (int n = 0; n < 20; ++n) {
        actions.register_transport(Writing(n));
        actions.register_listener(Listening(100 + n));
    }
    for (int n = 0; n < 20; ++n) {
        CHECK(actions.take_listener().number == 100 + n);
    }
    for (int n = 0; n < 20; ++n) {
        CHECK(actions.take_transport().number == n);
    }
    CHECK(Counted::living == 0);
}

TEST_CASE("Actions: a Buffer is sent without a copy") {
    Actions actions;
    Buffer buffer("one for all");
    const std::byte* const where = buffer.bytes().data();
    CHECK(actions.send(id(0), buffer));
    CHECK(actions.send(id(2), std::move(buffer)));
    CHECK(buffer.empty()); // NOLINT: a moved-from Buffer is empty
    for (const Action& action : actions) {
        CHECK(action.bytes().data() == where);
    }
    std::string text = "gone soon";
    CHECK(actions.send(id(4), text));
    text.assign(text.size(), '-');
    static_cast<void>(actions.take());
    static_cast<void>(actions.take());
    CHECK(text_of(actions.take().bytes()) == "gone soon");
}

TEST_CASE("Actions: to send nothing is done at once") {
    Actions actions;
    CHECK(actions.send(id(0), ""));
    CHECK(actions.send(id(0), std::span<const std::byte>{}));
    CHECK(actions.send(id(0), Buffer{}));
    CHECK(actions.empty());
    CHECK(actions.take_refused() == 0);
}

TEST_CASE("Actions: their time is what the test says") {
    Actions actions;
    CHECK(actions.now() == Timestamp{});
    actions.set_now(Timestamp{5h});
    CHECK(actions.now() == Timestamp{5h});
    // At the ends of time nothing wraps, nor is anything refused.
    actions.set_now(Timestamp::max());
    CHECK(actions.set_timer(Duration::max()));
    CHECK(actions.set_timer(Duration::min()));
    CHECK(actions.set_timer_at(Timestamp::min()));
    CHECK(actions.set_interval(Duration::max()));
    CHECK(actions.size() == 4);
}

TEST_CASE("Actions: an interval is at least a nanosecond") {
    Actions actions;
    for (const Duration period : {Duration::min(), Duration{-1}, Duration{0}, Duration{1}}) {
        actions.set_interval(period);
        CHECK(actions.take().duration() == 1ns);
    }
}

TEST_CASE("Actions: forgets what waits, and what is to be registered with it") {
    Actions actions;
    const ResourceId before = actions.register_transport(Writing(1));
    actions.register_listener(Listening(2));
    actions.send(before, "text");
    actions.clear();
    CHECK(actions.empty());
    CHECK(actions.begin() == actions.end());
    CHECK(Counted::living == 0);
    CHECK(actions.register_transport(Writing(3)) != before);
    CHECK(actions.take_transport().number == 3);
}

TEST_CASE("Actions: a log gets a copy of each, until it is taken away") {
    Actions actions;
    std::vector<Action> log;
    actions.record_to(&log);
    actions.pause(id(0));
    actions.set_timer(1s);
    actions.send(id(0), "text");
    actions.record_to(nullptr);
    actions.shutdown();
    REQUIRE(log.size() == 3);
    CHECK(log[0].kind() == ActionKind::pause);
    CHECK(log[1].kind() == ActionKind::set_timer);
    CHECK(text_of(log[2].bytes()) == "text");
    CHECK(actions.size() == 4);
}

TEST_CASE("Actions: without memory nothing is asked for, and nothing was moved") {
    Actions actions;
    Writing writing(5);
    Listening listening(6);
    Buffer buffer("text");
    CHECK(fails_without_memory([&] { actions.register_transport(std::move(writing)); }));
    CHECK(fails_without_memory([&] { actions.register_listener(std::move(listening)); }));
    CHECK(fails_without_memory([&] { actions.pause(id(0)); }));
    CHECK_FALSE(writing.moved_from());
    CHECK_FALSE(listening.moved_from());
    CHECK(actions.empty());
    // The id is not used up: what comes next has the one it would have had.
    CHECK(actions.register_transport(std::move(writing)) == id(0));
    CHECK(actions.take_transport().number == 5);
}

// --- Actions in front of a Desk ------------------------------------------------------------------

namespace {

/// Stands where a runtime would.
struct TestDesk final : detail::Desk<Listening, Writing> {
    explicit TestDesk(std::size_t gather_limit = 16, std::size_t owed_limit = 1024 * 1024)
        : Desk(gather_limit, owed_limit) {}

    ResourceId reserve(Role role) override {
        return has_room ? id(role == Role::listener ? 11 : 10) : ResourceId{};
    }
    Writing* reach(ResourceId which) override { return which == id(10) ? &transport : nullptr; }
    void leave_hole(ResourceId which) noexcept override { holes.push_back(which); }
    TimerId set_timer(Timestamp deadline, Duration interval) override {
        set.emplace_back(deadline, interval);
        return has_room ? timer(3) : TimerId{};
    }
    bool reset_timer(TimerId which, Timestamp deadline) noexcept override {
        reset_to = deadline;
        return which == timer(3);
    }
    bool cancel_timer(TimerId which) noexcept override { return which == timer(3); }
    Timestamp clock() override { return time += 1s; }

    bool has_room = true;
    Writing transport{1};
    std::vector<ResourceId> holes;
    std::vector<std::pair<Timestamp, Duration>> set;
    Timestamp reset_to{};
    Timestamp time{};
};

} // namespace

TEST_CASE("Actions: at the limit the answer is no, and nothing was moved from") {
    TestDesk desk;
    Actions actions(desk, 2);
    CHECK(actions.pause(id(10)));
    CHECK(actions.pause(id(10)));
    CHECK(actions.take_refused() == 0);

    Writing writing(5);
    Listening listening(6);
    Buffer buffer("text");
    CHECK_FALSE(actions.resume(id(10)));
    CHECK_FALSE(actions.register_transport(std::move(writing)));
    CHECK_FALSE(actions.register_listener(std::move(listening)));
    CHECK_FALSE(writing.moved_from());
    CHECK_FALSE(listening.moved_from());
    CHECK(actions.refused() == 3);
    CHECK(desk.holes.empty());

    // A send leaves a hole in its stream, of which the transport must hear.
    CHECK_FALSE(actions.send(id(10), std::move(buffer)));
    CHECK(buffer.text() == "text"); // NOLINT: not moved from
    CHECK_FALSE(actions.send(id(12), "text"));
    CHECK(desk.holes == std::vector{id(10), id(12)});
    CHECK(actions.size() == 2);
    CHECK(actions.refused() == 5);
    CHECK(actions.take_refused() == 5);
    CHECK(actions.take_refused() == 0);

    // There is room again as soon as one was taken.
    CHECK(actions.take().kind() == ActionKind::pause);
    CHECK(actions.register_transport(std::move(writing)) == id(10));
    CHECK(actions.take_transport().number == 5);
}

TEST_CASE("Actions: a limit of zero counts as one") {
    TestDesk desk;
    Actions actions(desk, 0);
    CHECK(actions.pause(id(10)));
    CHECK_FALSE(actions.pause(id(10)));
}

TEST_CASE("Actions: where there is no room for a resource or a timer, nothing is asked for") {
    TestDesk desk;
    Actions actions(desk, 100);
    desk.has_room = false;
    Writing writing(5);
    CHECK_FALSE(actions.register_transport(std::move(writing)));
    CHECK_FALSE(writing.moved_from());
    CHECK_FALSE(actions.set_timer(1s));
    CHECK_FALSE(actions.set_timer_at(Timestamp{}));
    CHECK_FALSE(actions.set_interval(1s));
    CHECK(actions.empty());
    CHECK(actions.take_refused() == 4);
}

TEST_CASE("Actions: a send goes straight to its transport if nothing waits before it") {
    TestDesk desk;
    Actions actions(desk, 100);
    CHECK(actions.send(id(10), "a"));
    CHECK(actions.empty());
    CHECK(actions.pause(id(10)));
    CHECK(actions.send(id(10), "b")); // behind the pause
    CHECK(desk.transport.offered == std::vector<std::string>{"lent a"});
    CHECK(kinds_of(actions) == std::vector{ActionKind::pause, ActionKind::send});
    actions.clear();

    CHECK(actions.send(id(12), "c")); // nobody there: to be told when it is performed
    CHECK(kinds_of(actions) == std::vector{ActionKind::send});
    actions.clear();
    CHECK(actions.send(ResourceId{}, "d"));
    CHECK(kinds_of(actions) == std::vector{ActionKind::send});
    actions.clear();

    // What the transport does not take waits whole.
    for (const WriteStatus status :
         {WriteStatus::full, WriteStatus::not_ready, WriteStatus::ended}) {
        desk.transport.answer = status;
        CHECK(actions.send(id(10), "e"));
        REQUIRE(actions.size() == 1);
        CHECK(text_of(actions.take().bytes()) == "e");
    }
    CHECK(desk.transport.offered.size() == 1);
    CHECK(actions.take_refused() == 0);
}

TEST_CASE("Actions: bytes are lent while there is room, then copied; large Buffers shared") {
    TestDesk desk(4);
    Actions actions(desk, 100);
    CHECK(actions.send(id(10), "abc"));
    CHECK(actions.send(id(10), "de"));
    CHECK(actions.send(id(10), Buffer("f")));
    CHECK(actions.send(id(10), Buffer("g")));
    const std::string large(4096, 'h');
    CHECK(actions.send(id(10), Buffer(large)));
    CHECK(actions.send(id(10), std::string_view(large)));
    CHECK(desk.transport.offered == std::vector<std::string>{"lent abc", "copied de", "lent f",
                                                             "copied g", "shared " + large,
                                                             "copied " + large});
}

TEST_CASE("Actions: the transport whose event it is has been reached already") {
    TestDesk desk;
    Actions actions(desk, 100);
    Writing current(2);
    desk.current = &current;
    desk.current_id = id(14);
    CHECK(actions.send(id(14), "a"));
    CHECK(actions.send(id(10), "b"));
    CHECK(current.offered == std::vector<std::string>{"lent a"});
    CHECK(desk.transport.offered == std::vector<std::string>{"lent b"});
}

TEST_CASE("Actions: the turn's time is read once, a timer counts from a fresh reading") {
    TestDesk desk;
    Actions actions(desk, 100);
    CHECK(actions.now() == Timestamp{1s});
    CHECK(actions.now() == Timestamp{1s});
    CHECK(actions.set_timer(10s) == timer(3));
    CHECK(actions.set_interval(10s) == timer(3));
    CHECK(actions.set_timer_at(Timestamp{7s}) == timer(3));
    CHECK(desk.set == std::vector<std::pair<Timestamp, Duration>>{{Timestamp{12s}, 0s},
                                                                  {Timestamp{13s}, 10s},
                                                                  {Timestamp{7s}, 0s}});
    CHECK(actions.reset_timer(timer(3), 10s));
    CHECK(desk.reset_to == Timestamp{14s});
    CHECK_FALSE(actions.reset_timer(timer(4), 10s));
    CHECK(actions.cancel_timer(timer(3)));
    CHECK_FALSE(actions.cancel_timer(timer(4)));
    CHECK(actions.empty()); // all was done at once
    CHECK(actions.now() == Timestamp{1s});
}

TEST_CASE("Actions: a log also gets what is done at once") {
    TestDesk desk;
    Actions actions(desk, 100);
    std::vector<Action> log;
    actions.record_to(&log);
    actions.send(id(10), "text");
    actions.set_timer(1s);
    actions.reset_timer(timer(3), 2s);
    actions.cancel_timer(timer(3));
    CHECK(actions.empty());
    REQUIRE(log.size() == 4);
    CHECK(text_of(log[0].bytes()) == "text");
    CHECK(log[0].id() == id(10));
    CHECK(log[1].timer() == timer(3));
    CHECK(log[2].duration() == 2s);
    CHECK(log[3].kind() == ActionKind::cancel_timer);
}

// --- Fifo ----------------------------------------------------------------------------------------

TEST_CASE("Fifo: is a queue, whatever is done to it") {
    std::mt19937 random(7);
    detail::Fifo<std::unique_ptr<int>> fifo;
    std::deque<int> model;
    std::size_t wrong = 0;
    int next = 0;
    for (int n = 0; n < 100'000; ++n) {
        // Phases of growth and of emptying.
        const bool grows = random() % 100 < (n / 1000 % 2 == 0 ? 60U : 40U);
        if (random() % 5000 == 0) {
            fifo.clear();
            model.clear();
        } else if (grows) {
            fifo.push(std::make_unique<int>(next));
            model.push_back(next++);
        } else if (!model.empty()) {
            wrong += *fifo.take() != model.front() ? 1U : 0U;
            model.pop_front();
        }
        wrong += fifo.size() != model.size() || fifo.empty() != model.empty() ? 1U : 0U;
        if (n % 100 == 0) {
            wrong += std::ranges::equal(fifo.waiting(), model, {}, [](auto& p) { return *p; }) ? 0U
                                                                                               : 1U;
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("Fifo: in a steady state it allocates nothing, and does not grow") {
    detail::Fifo<int> fifo;
    fifo.push(0);
    fifo.push(0);
    for (int n = 0; n < 1000; ++n) { // never empty
        fifo.push(int{n});
        static_cast<void>(fifo.take());
    }
    const Memory before = memory;
    for (int n = 0; n < 100'000; ++n) {
        fifo.push(int{n});
        static_cast<void>(fifo.take());
    }
    CHECK(memory.allocations == before.allocations);
    CHECK(memory.bytes == before.bytes);
    CHECK(fifo.size() == 2);
}

TEST_CASE("Fifo: gives its memory back once a burst is over") {
    const std::size_t before = memory.bytes;
    detail::Fifo<std::uint64_t> fifo;
    for (std::uint64_t n = 0; n < 100'000; ++n) {
        fifo.push(std::uint64_t{n});
    }
    CHECK(memory.bytes - before >= 800'000);
    std::uint64_t wrong = 0;
    for (std::uint64_t n = 0; n < 100'000; ++n) {
        wrong += fifo.take() != n ? 1U : 0U;
    }
    CHECK(wrong == 0);
    CHECK(memory.bytes - before <= 64 * 1024);
}

TEST_CASE("Fifo: without memory a push throws, and nothing has changed") {
    detail::Fifo<Counted> fifo;
    Counted first(1);
    CHECK(fails_without_memory([&] { fifo.push(std::move(first)); }));
    CHECK_FALSE(first.moved_from());
    CHECK(fifo.empty());
    while (!fails_without_memory([&] { fifo.make_room(); })) {
        fifo.push(Counted(2));
    }
    const std::size_t count = fifo.size();
    CHECK(fails_without_memory([&] { fifo.push(std::move(first)); }));
    CHECK(fifo.size() == count);
    fifo.make_room();
    memory.fail_in = 1; // there is room
    fifo.push(std::move(first));
    memory.fail_in = 0;
    CHECK(first.moved_from());
    CHECK(fifo.size() == count + 1);
    fifo.clear();
    CHECK(Counted::living == 1);
}

// --- Gather --------------------------------------------------------------------------------------

TEST_CASE("Gather: keeps a copy where it stands, one behind the other, up to its limit") {
    detail::Gather gather(8);
    std::string text = "abc";
    const auto first = gather.keep(bytes_of(text));
    text = "xyz";
    const auto second = gather.keep(bytes_of("de"));
    REQUIRE(first.size() == 3);
    REQUIRE(second.size() == 2);
    CHECK(first.data() + 3 == second.data());
    CHECK(gather.keep(bytes_of("fghi")).empty()); // no room, and nothing was taken
    const auto third = gather.keep(bytes_of("fgh"));
    CHECK(third.data() == second.data() + 2);
    CHECK(gather.keep(bytes_of("i")).empty());
    CHECK(text_of({first.data(), 8}) == "abcdefgh");

    gather.clear();
    const auto again = gather.keep(bytes_of("12345678"));
    CHECK(again.data() == first.data());
    CHECK(text_of(again) == "12345678");
}

TEST_CASE("Gather: one without room keeps nothing") {
    detail::Gather gather(0);
    CHECK(gather.keep(bytes_of("a")).empty());
}

// --- Registry ------------------------------------------------------------------------------------

namespace {

using Transports = detail::Registry<Counted, Role::transport>;
using Listeners = detail::Registry<Counted, Role::listener>;

template <class Registry>
ResourceId put(Registry& registry, int number) {
    const ResourceId made = registry.reserve();
    if (made) {
        registry.occupy(made, Counted(number));
    }
    return made;
}
template <class Registry>
int take(Registry& registry, ResourceId which) {
    return registry.extract(*registry.find(which)).number;
}

} // namespace

TEST_CASE("Registry: finds by its id who is there, and nobody else (I1)") {
    Transports registry(100);
    CHECK(registry.find(ResourceId{}) == nullptr);
    CHECK(registry.find(id(0)) == nullptr);
    const ResourceId first = registry.reserve();
    CHECK(first);
    CHECK(registry.find(first) == nullptr); // reserved only
    CHECK(registry.live() == 0);
    auto& slot = registry.occupy(first, Counted(7));
    CHECK(registry.find(first) == &slot);
    CHECK(slot.resource.number == 7);
    CHECK(slot.id == first);
    CHECK(registry.live() == 1);
    for (const ResourceId other :
         {id(first.slot(), first.generation() + 1), id(first.slot() + 1, first.generation()),
          id(first.slot() + 2, first.generation()), id(first.slot() + 128, first.generation()),
          id(0xff'ffff, 1), id(0xff'fffe, ResourceId::last_generation), ResourceId{}}) {
        CHECK(registry.find(other) == nullptr);
    }
    CHECK(take(registry, first) == 7);
    CHECK(registry.find(first) == nullptr);
    CHECK(registry.live() == 0);
    CHECK(Counted::living == 0);
    CHECK(registry.reserve() != first);
}

TEST_CASE("Registry: the id tells the role") {
    Transports transports(200);
    Listeners listeners(200);
    for (int n = 0; n < 200; ++n) {
        CHECK(detail::role_of(put(transports, n)) == Role::transport);
        CHECK(detail::role_of(put(listeners, n)) == Role::listener);
    }
}

TEST_CASE("Registry: an id never comes twice, not after 2^16 and not after 2^32 of them (I1)") {
    for (const std::uint64_t first :
         {std::uint64_t{1}, (std::uint64_t{1} << 32) - 35'000,
          ResourceId::last_generation - 70'000}) {
        Transports registry(1, first);
        ResourceId before;
        std::uint64_t wrong = 0;
        for (int n = 0; n < 70'000; ++n) {
            const ResourceId made = put(registry, n);
            wrong += made > before && registry.find(before) == nullptr ? 0U : 1U;
            wrong += take(registry, made) != n ? 1U : 0U;
            before = made;
            registry.trim();
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("Registry: a slot whose generations are used up is retired (I1)") {
    Listeners registry(1, ResourceId::last_generation - 1);
    std::set<ResourceId> ids;
    for (int n = 0; n < 300; ++n) {
        const ResourceId made = put(registry, n);
        REQUIRE(made);
        CHECK(ids.insert(made).second);
        CHECK(take(registry, made) == n);
        CHECK(registry.find(made) == nullptr);
        CHECK(registry.find(ResourceId{}) == nullptr);
        registry.trim();
    }
    // Two generations a slot at most, then the next.
    CHECK(ids.begin()->generation() == ResourceId::last_generation - 1);
    CHECK(ids.rbegin()->generation() == ResourceId::last_generation);
    CHECK(ids.rbegin()->slot() >= 299);
}

TEST_CASE("Registry: a reservation that is given up frees the slot, not the id") {
    Transports registry(1);
    const ResourceId first = registry.reserve();
    CHECK_FALSE(registry.reserve());
    registry.cancel(first);
    const ResourceId second = registry.reserve();
    CHECK(second);
    CHECK(second != first);
    CHECK(second.slot() == first.slot());
}

TEST_CASE("Registry: what a slot remembers is of its resource alone") {
    Transports registry(1);
    auto& slot = registry.occupy(registry.reserve(), Counted(1));
    slot.armed = {true, true};
    slot.left_over = slot.paused = slot.closing = slot.hole = true;
    static_cast<void>(registry.extract(slot));
    const auto& next = registry.occupy(registry.reserve(), Counted(2));
    REQUIRE(&next == &slot);
    CHECK(next.armed.none());
    CHECK_FALSE((next.left_over || next.paused || next.closing || next.hole));
}

TEST_CASE("Registry: at its limit it says no; reserved ones count") {
    for (const std::size_t limit : {std::size_t{0}, std::size_t{1}, std::size_t{64},
                                    std::size_t{65}, std::size_t{1000}}) {
        Transports registry(limit);
        std::vector<ResourceId> ids;
        while (const ResourceId made = registry.reserve()) {
            if (ids.size() % 2 == 0) {
                registry.occupy(made, Counted(1));
            }
            ids.push_back(made);
        }
        CHECK(ids.size() == limit);
        CHECK_FALSE(registry.reserve());
        if (limit != 0) {
            static_cast<void>(take(registry, ids.front()));
            CHECK(registry.reserve());
            CHECK_FALSE(registry.reserve());
        }
    }
}

TEST_CASE("Registry: slots never move (I16)") {
    Transports registry(10'000);
    const ResourceId first = put(registry, 42);
    const auto* const where = registry.find(first);
    std::vector<ResourceId> ids;
    for (int n = 0; n < 9'999; ++n) {
        ids.push_back(put(registry, n));
    }
    CHECK(registry.find(first) == where);
    for (const ResourceId which : ids) {
        static_cast<void>(take(registry, which));
    }
    registry.trim();
    CHECK(registry.find(first) == where);
    CHECK(where->resource.number == 42);
}

TEST_CASE("Registry: after a burst its pages are given back, their ids do not come again (I1)") {
    std::vector<ResourceId> ids;
    ids.reserve(100'000);
    const std::size_t before = memory.bytes;
    Transports registry(100'000);
    for (std::uint64_t burst = 1; burst <= 3; ++burst) {
        while (const ResourceId made = put(registry, 1)) {
            ids.push_back(made);
        }
        CHECK(ids.size() == 100'000);
        // Each slot had one user a burst: a page that is made again goes on where it stood.
        CHECK(std::ranges::all_of(
            ids, [&](ResourceId which) { return which.generation() == burst; }));
        const std::size_t high = memory.bytes - before;
        CHECK(high > 100'000 * sizeof(Transports::Slot));
        for (const ResourceId which : ids) {
            static_cast<void>(take(registry, which));
        }
        registry.trim();
        CHECK(memory.bytes - before < high / 50);
        CHECK(std::ranges::none_of(
            ids, [&](ResourceId which) { return registry.find(which) != nullptr; }));
        ids.clear();
    }
}

TEST_CASE("Registry: no page is given back while a slot is touched") {
    Transports registry(1000);
    std::vector<ResourceId> ids;
    for (int n = 0; n < 1000; ++n) {
        ids.push_back(put(registry, n));
    }
    auto* const last = registry.find(ids.back());
    registry.touch(*last);
    registry.touch(*last);
    for (const ResourceId which : ids) {
        static_cast<void>(take(registry, which));
    }
    registry.trim();
    REQUIRE(registry.any_touched());
    CHECK(registry.last_touched() == last);
    auto& touched = registry.take_touched();
    CHECK(&touched == last);
    CHECK_FALSE(touched.touched);
    CHECK_FALSE(touched.live);
    CHECK_FALSE(registry.any_touched());
    const std::size_t before = memory.bytes;
    registry.trim();
    CHECK(memory.bytes < before);
}

TEST_CASE("Registry: the touched ones come once each, in order, even those touched meanwhile") {
    Transports registry(10);
    std::vector<Transports::Slot*> slots;
    for (int n = 0; n < 4; ++n) {
        slots.push_back(registry.find(put(registry, n)));
    }
    registry.touch(*slots[2]);
    registry.touch(*slots[0]);
    registry.touch(*slots[2]);
    CHECK(registry.last_touched() == slots[0]);
    CHECK(&registry.take_touched() == slots[2]);
    registry.touch(*slots[2]);
    registry.touch(*slots[3]);
    CHECK(&registry.take_touched() == slots[0]);
    CHECK(&registry.take_touched() == slots[2]);
    CHECK(&registry.take_touched() == slots[3]);
    CHECK_FALSE(registry.any_touched());
    // The next list knows nothing of the last one.
    registry.touch(*slots[2]);
    CHECK(&registry.take_touched() == slots[2]);
    CHECK_FALSE(registry.any_touched());
}

TEST_CASE("Registry: the walk meets all, whoever leaves or comes on the way") {
    Transports registry(1000);
    std::vector<ResourceId> ids;
    for (int n = 0; n < 300; ++n) {
        ids.push_back(put(registry, n));
    }
    static_cast<void>(registry.reserve()); // reserved ones are not met
    std::size_t index = 0;
    std::vector<int> met;
    while (auto* const slot = registry.next(index)) {
        met.push_back(slot->resource.number);
        // The one itself leaves, and so does the one behind the next; the first of all too.
        const std::size_t at = static_cast<std::size_t>(met.back());
        for (const std::size_t gone : {at, at + 2, std::size_t{0}}) {
            if (gone < ids.size() && registry.find(ids[gone]) != nullptr && gone % 3 != 1) {
                static_cast<void>(take(registry, ids[gone]));
            }
        }
        registry.trim();
    }
    CHECK(std::ranges::is_sorted(met));
    for (int n = 1; n < 300; n += 3) {
        CHECK(std::ranges::count(met, n) == 1);
    }
    CHECK(registry.next(index) == nullptr);
    index = 0;
    std::size_t left = 0;
    while (registry.next(index) != nullptr) {
        ++left;
    }
    CHECK(left == registry.live());
}

TEST_CASE("Registry: destroys what is left, once (I17)") {
    {
        Transports registry(1000);
        for (int n = 0; n < 500; ++n) {
            put(registry, n);
        }
        static_cast<void>(registry.reserve());
        CHECK(Counted::living == 500);
    }
    CHECK(Counted::living == 0);
}

TEST_CASE("Registry: without memory an id is not reserved, and nothing has changed") {
    Transports registry(1000);
    CHECK(fails_without_memory([&] { static_cast<void>(registry.reserve()); }));
    memory.fail_in = 2; // the table grows, the page does not come
    CHECK_THROWS_AS(registry.reserve(), std::bad_alloc);
    std::size_t index = 0;
    CHECK(registry.next(index) == nullptr);
    CHECK(registry.find(id(0)) == nullptr);
    CHECK(put(registry, 1) == id(0));
}

TEST_CASE("Registry: is a map by id, whatever is done to it") {
    std::mt19937 random(11);
    for (const std::size_t limit : {std::size_t{3}, std::size_t{200}, std::size_t{5000}}) {
        Listeners registry(limit);
        std::map<ResourceId, int> live;
        std::vector<ResourceId> reserved;
        std::vector<ResourceId> gone;
        std::set<ResourceId> known;
        std::size_t wrong = 0;
        const auto check = [&](bool right) { wrong += right ? 0U : 1U; };
        for (int n = 0; n < 60'000; ++n) {
            const bool grows = random() % 100 < (n / 10'000 % 2 == 0 ? 65U : 35U);
            const auto any_live = [&] {
                const auto found = live.lower_bound(
                    id(static_cast<std::uint32_t>(random()) & 0xffff, 1 + random() % 20));
                return found != live.end() ? found : live.begin();
            };
            if (grows) {
                const ResourceId made = registry.reserve();
                check(static_cast<bool>(made) == (live.size() + reserved.size() < limit));
                if (made) {
                    check(known.insert(made).second);
                    reserved.push_back(made);
                }
                if (made && random() % 4 != 0) {
                    registry.occupy(made, Counted(n));
                    live.emplace(made, n);
                    reserved.pop_back();
                }
            } else if (random() % 4 == 0 && !reserved.empty()) {
                registry.cancel(reserved.back());
                gone.push_back(reserved.back());
                reserved.pop_back();
            } else if (!live.empty()) {
                const auto one = any_live();
                auto* const slot = registry.find(one->first);
                check(slot != nullptr && slot->resource.number == one->second);
                check(registry.extract(*slot).number == one->second);
                gone.push_back(one->first);
                live.erase(one);
            }
            if (!gone.empty()) {
                check(registry.find(gone[random() % gone.size()]) == nullptr);
            }
            if (!live.empty()) {
                const auto one = any_live();
                const auto* const slot = registry.find(one->first);
                check(slot != nullptr && slot->resource.number == one->second);
            }
            check(registry.live() == live.size());
            if (random() % 10 == 0) {
                registry.trim();
            }
            if (n % 5000 == 0) {
                std::map<ResourceId, int> met;
                std::size_t index = 0;
                while (const auto* const slot = registry.next(index)) {
                    met.emplace(slot->id, slot->resource.number);
                }
                check(met == live);
                check(Counted::living == static_cast<int>(live.size()));
            }
        }
        CHECK(wrong == 0);
    }
    CHECK(Counted::living == 0);
}
