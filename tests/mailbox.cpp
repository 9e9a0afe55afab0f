// SPDX-License-Identifier: Apache-2.0
//
// The mailbox keeps what invariants I8, I10 and I11 promise: an exact limit, no message lost or
// handled twice, one ring a sleep, and a clear answer to those who come too late.
#include <reactor/detail/mailbox.hpp>

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "sanitized.hpp"

namespace {

using reactor::detail::Doorbell;
using reactor::detail::Mailbox;
using reactor::detail::SendStatus;

constexpr int lost_ms = 50'000; // a sleep that takes this long was never going to end

// A bell that only counts; it spoils errno as a failing write would.
std::atomic<int> rings{0};
std::atomic<int> closes{0};

void count_ring(int) noexcept {
    rings.fetch_add(1);
    errno = EBADF;
}
void count_close(int) noexcept { closes.fetch_add(1); }

Doorbell counting_bell() {
    rings.store(0);
    closes.store(0);
    return {7, count_ring, count_close};
}

// A bell that rings.
void ring_eventfd(int fd) noexcept {
    rings.fetch_add(1);
    const std::uint64_t one = 1;
    if (::write(fd, &one, sizeof one) < 0)
        return; // only if it is saturated, so it rings already
}
void close_eventfd(int fd) noexcept {
    closes.fetch_add(1);
    ::close(fd);
}

Doorbell eventfd_bell() {
    rings.store(0);
    closes.store(0);
    return {::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), ring_eventfd, close_eventfd};
}

// So that a test that goes wrong ends: its consumer gives up, and then its senders do.
std::atomic<bool> given_up{false};

class Patience {
  public:
    Patience() { given_up.store(false); }
    bool lasts() {
        if (std::chrono::steady_clock::now() > end_)
            given_up.store(true);
        return !given_up.load();
    }

  private:
    std::chrono::steady_clock::time_point end_ =
        std::chrono::steady_clock::now() + std::chrono::milliseconds{lost_ms};
};

// Sleeps as a loop does, and gives up if nobody rings.
template <class Message>
void sleep_if_allowed(Mailbox<Message>& mailbox, std::uint64_t& sleeps) {
    if (mailbox.prepare_sleep()) {
        ++sleeps;
        pollfd entry{mailbox.bell_fd(), POLLIN, 0};
        const int ready = ::poll(&entry, 1, lost_ms); // -1: a signal ended it
        std::uint64_t count = 0;
        if (ready == 0 || (ready == 1 && ::read(entry.fd, &count, sizeof count) < 0))
            given_up.store(true);
    }
    mailbox.awake();
}

template <class Message>
std::size_t send_until_full(Mailbox<Message>& mailbox, Message (*make)(std::size_t)) {
    std::size_t accepted = 0;
    for (;; ++accepted) {
        Message message = make(accepted);
        if (mailbox.send(std::move(message)) != SendStatus::accepted)
            return accepted;
    }
}

template <class Message>
void insist(Mailbox<Message>& mailbox, Message message) {
    while (mailbox.send(std::move(message)) == SendStatus::full && !given_up.load())
        std::this_thread::yield();
}

template <class Message>
std::size_t take_all(Mailbox<Message>& mailbox) {
    std::size_t taken = 0;
    mailbox.collect();
    for (; mailbox.has_next(); ++taken)
        (void)mailbox.take_next();
    return taken;
}

// Counts those alive, each value exactly once however often it is moved.
struct Token {
    static inline std::atomic<int> live{0};
    int value = -1;

    explicit Token(int value_in) : value{value_in} { live.fetch_add(1); }
    Token(Token&& other) noexcept : value{std::exchange(other.value, -1)} { live.fetch_add(1); }
    Token& operator=(Token&& other) noexcept {
        value = std::exchange(other.value, -1);
        return *this;
    }
    ~Token() { live.fetch_sub(1); }
};

// Its move throws while the thread says so.
struct Volatile {
    static inline thread_local int moves_left = -1; // negative: it does not throw
    static inline std::atomic<int> live{0};
    std::unique_ptr<int> value;

    explicit Volatile(int value_in) : value{std::make_unique<int>(value_in)} { live.fetch_add(1); }
    Volatile(Volatile&& other) noexcept(false) {
        if (moves_left >= 0 && moves_left-- == 0)
            throw std::runtime_error{"will not be moved"};
        value = std::move(other.value);
        live.fetch_add(1);
    }
    Volatile& operator=(Volatile&& other) noexcept(false) {
        value = std::move(other.value);
        return *this;
    }
    ~Volatile() { live.fetch_sub(1); }
};

// May be constructed from another, never assigned.
struct Sealed {
    const std::uint32_t producer;
    const std::uint32_t number;
};
static_assert(!std::is_move_assignable_v<Sealed>);

struct Letter {
    std::uint32_t producer = 0;
    std::uint32_t number = 0;
};

// May be moved only, and is counted.
struct Parcel {
    Token token;
    std::unique_ptr<Letter> letter;
};

// What a run with many senders showed, to be asserted on when its threads are gone.
struct Ledger {
    std::vector<std::vector<std::uint8_t>> taken; // by producer and number: how often
    std::vector<std::uint32_t> next;
    std::uint64_t total = 0;
    std::uint64_t sleeps = 0;
    std::size_t longest_batch = 0;
    bool in_order = true;

    Ledger(std::size_t producers, std::uint32_t each)
        : taken(producers, std::vector<std::uint8_t>(each)), next(producers) {}

    void note(std::uint32_t producer, std::uint32_t number) {
        ++taken[producer][number];
        in_order = in_order && number >= next[producer];
        next[producer] = number + 1;
        ++total;
    }
    template <class Message>
    void take_batch(Mailbox<Message>& mailbox) {
        mailbox.collect();
        std::size_t batch = 0;
        for (; mailbox.has_next(); ++batch) {
            const Message letter = mailbox.take_next();
            note(letter.producer, letter.number);
        }
        longest_batch = std::max(longest_batch, batch);
    }
    bool each_exactly_once() const {
        return std::all_of(taken.begin(), taken.end(), [](const auto& numbers) {
            return std::all_of(numbers.begin(), numbers.end(), [](auto n) { return n == 1; });
        });
    }
};

} // namespace

TEST_CASE("messages come in the order of sending, behind those collected before", "[mailbox]") {
    Mailbox<int> mailbox{100, counting_bell()};
    int sent = 0;
    int expected = 0;
    for (int round = 0; round != 50; ++round) {
        for (int i = 0; i != 7; ++i) {
            int message = sent++;
            REQUIRE(mailbox.send(std::move(message)) == SendStatus::accepted);
        }
        REQUIRE_FALSE(mailbox.collect());
        for (int i = 0; i != 5 + round % 5 && mailbox.has_next(); ++i)
            REQUIRE(mailbox.take_next() == expected++);
    }
    while (mailbox.has_next())
        REQUIRE(mailbox.take_next() == expected++);
    REQUIRE(expected == sent);
}

TEST_CASE("the limit is exact, and one taken makes room for one", "[mailbox]") {
    const std::size_t limit = GENERATE(0U, 1U, 2U, 3U, 63U, 64U, 65U, 1'000U, 65'536U);
    Mailbox<std::size_t> mailbox{limit, counting_bell()};
    const auto same = +[](std::size_t number) { return number; };
    for (int round = 0; round != 4; ++round) {
        REQUIRE(send_until_full(mailbox, same) == limit);
        mailbox.collect();
        REQUIRE(send_until_full(mailbox, same) == 0); // collected is not taken
        if (limit != 0) {
            REQUIRE(mailbox.take_next() == 0);
            REQUIRE(send_until_full(mailbox, same) == 1);
        }
        REQUIRE(take_all(mailbox) == limit);
        REQUIRE_FALSE(mailbox.has_next());
    }
}

TEST_CASE("the limit stays exact at every filling", "[mailbox]") {
    const std::size_t limit = GENERATE(1U, 2U, 5U, 64U, 130U);
    Mailbox<std::size_t> mailbox{limit, counting_bell()};
    const auto same = +[](std::size_t number) { return number; };
    REQUIRE(send_until_full(mailbox, same) == limit);
    for (std::size_t round = 0; round != 3 * limit; ++round) {
        mailbox.collect();
        const std::size_t away = 1 + round % limit;
        for (std::size_t i = 0; i != away; ++i)
            (void)mailbox.take_next();
        REQUIRE(send_until_full(mailbox, same) == away);
    }
}

TEST_CASE("full and closed leave the message untouched", "[mailbox]") {
    Mailbox<std::unique_ptr<int>> mailbox{1, counting_bell()};
    auto first = std::make_unique<int>(1);
    auto second = std::make_unique<int>(2);
    int* const address = second.get();
    REQUIRE(mailbox.send(std::move(first)) == SendStatus::accepted);
    REQUIRE(first == nullptr);
    REQUIRE(mailbox.send(std::move(second)) == SendStatus::full);
    REQUIRE(second.get() == address);
    mailbox.close();
    REQUIRE(mailbox.closed());
    REQUIRE(mailbox.send(std::move(second)) == SendStatus::closed);
    REQUIRE(second.get() == address);
    mailbox.collect();
    REQUIRE(*mailbox.take_next() == 1);
    REQUIRE_FALSE(mailbox.has_next());
    REQUIRE(mailbox.send(std::move(second)) == SendStatus::closed);
    REQUIRE(mailbox.send(std::make_unique<int>(3)) == SendStatus::closed);
}

TEST_CASE("a handler may send at the limit", "[mailbox]") {
    const std::size_t limit = GENERATE(1U, 2U, 64U);
    Mailbox<int> mailbox{limit, counting_bell()};
    for (std::size_t i = 0; i != limit; ++i)
        REQUIRE(mailbox.send(0) == SendStatus::accepted);
    for (int handled = 0; handled != 1'000; ++handled) {
        if (!mailbox.has_next())
            mailbox.collect();
        int message = mailbox.take_next();
        REQUIRE(mailbox.send(message + 1) == SendStatus::accepted);
        REQUIRE(mailbox.send(0) == SendStatus::full);
    }
}

TEST_CASE("the bell is rung once a sleep and never while the consumer is awake", "[mailbox]") {
    Mailbox<int> mailbox{100, counting_bell()};
    for (int sleep = 1; sleep != 4; ++sleep) {
        REQUIRE(mailbox.prepare_sleep());
        REQUIRE(rings == sleep - 1);
        for (int i = 0; i != 3; ++i)
            REQUIRE(mailbox.send(int{i}) == SendStatus::accepted);
        mailbox.wake();
        REQUIRE(rings == sleep); // also not for the wake behind them
        mailbox.awake();
        REQUIRE(mailbox.send(3) == SendStatus::accepted);
        mailbox.wake();
        REQUIRE(mailbox.collect());
        REQUIRE(mailbox.send(4) == SendStatus::accepted);
        REQUIRE_FALSE(mailbox.prepare_sleep());
        REQUIRE(mailbox.send(5) == SendStatus::accepted);
        mailbox.awake();
        REQUIRE(take_all(mailbox) == 6);
        REQUIRE(rings == sleep);
    }
}

TEST_CASE("a sleep that ended by itself is not rung", "[mailbox]") {
    Mailbox<int> mailbox{100, counting_bell()};
    REQUIRE(mailbox.prepare_sleep());
    mailbox.awake();
    REQUIRE(mailbox.send(1) == SendStatus::accepted);
    REQUIRE(take_all(mailbox) == 1);
    REQUIRE(mailbox.prepare_sleep());
    mailbox.awake();
    mailbox.wake();
    REQUIRE(rings == 0);
}

TEST_CASE("the consumer does not sleep while something waits", "[mailbox]") {
    Mailbox<int> mailbox{100, counting_bell()};
    REQUIRE(mailbox.send(1) == SendStatus::accepted);
    REQUIRE_FALSE(mailbox.prepare_sleep()); // sent
    mailbox.awake();
    mailbox.collect();
    REQUIRE_FALSE(mailbox.prepare_sleep()); // collected
    mailbox.awake();
    REQUIRE(mailbox.take_next() == 1);
    REQUIRE(mailbox.prepare_sleep());
}

TEST_CASE("wake ends this sleep or the next, and is told once", "[mailbox]") {
    Mailbox<int> mailbox{100, counting_bell()};
    REQUIRE_FALSE(mailbox.collect());
    mailbox.wake();
    mailbox.wake();
    REQUIRE(rings == 0);
    REQUIRE_FALSE(mailbox.prepare_sleep());
    mailbox.awake();
    REQUIRE(mailbox.collect());
    REQUIRE_FALSE(mailbox.collect());
    REQUIRE(mailbox.prepare_sleep());
    mailbox.wake();
    mailbox.wake();
    REQUIRE(mailbox.send(1) == SendStatus::accepted);
    REQUIRE(rings == 1);
    mailbox.awake();
    REQUIRE(mailbox.collect());
    REQUIRE(mailbox.has_next());
    mailbox.wake(); // a sender in between does not forget it
    REQUIRE(mailbox.send(2) == SendStatus::accepted);
    REQUIRE(mailbox.collect());
}

TEST_CASE("wake and close do not forget each other", "[mailbox]") {
    Mailbox<int> mailbox{100, counting_bell()};
    mailbox.wake();
    mailbox.close();
    REQUIRE(mailbox.collect());
    REQUIRE(mailbox.closed());
    REQUIRE(mailbox.prepare_sleep());
    mailbox.wake();
    REQUIRE(rings == 1);
    mailbox.awake();
    REQUIRE(mailbox.collect());
    REQUIRE(mailbox.closed());
}

TEST_CASE("ringing keeps errno", "[mailbox]") {
    Mailbox<int> mailbox{100, counting_bell()};
    errno = ENOENT;
    REQUIRE(mailbox.prepare_sleep());
    mailbox.wake();
    const int after_wake = errno;
    mailbox.awake();
    mailbox.collect();
    REQUIRE(mailbox.prepare_sleep());
    errno = ENOENT;
    const SendStatus status = mailbox.send(1);
    const int after_send = errno;
    REQUIRE(status == SendStatus::accepted);
    REQUIRE(rings == 2);
    REQUIRE(after_wake == ENOENT);
    REQUIRE(after_send == ENOENT);
}

TEST_CASE("the bell is closed by the last holder, once", "[mailbox]") {
    auto consumer = std::make_shared<Mailbox<int>>(10U, counting_bell());
    auto sender = consumer;
    consumer->close();
    consumer.reset();
    REQUIRE(closes == 0);
    sender->wake();
    REQUIRE(sender->send(1) == SendStatus::closed);
    sender.reset();
    REQUIRE(closes == 1);
    { const Mailbox<int> mute{10, Doorbell{}}; }
    REQUIRE(closes == 1);
}

TEST_CASE("what was never taken is destroyed, once", "[mailbox]") {
    REQUIRE(Token::live == 0);
    {
        Mailbox<Token> mailbox{200, counting_bell()};
        for (int i = 0; i != 100; ++i)
            REQUIRE(mailbox.send(Token{i}) == SendStatus::accepted);
        mailbox.collect();
        for (int i = 0; i != 30; ++i)
            REQUIRE(mailbox.take_next().value == i);
        REQUIRE(Token::live == 70);
        for (int i = 100; i != 150; ++i)
            REQUIRE(mailbox.send(Token{i}) == SendStatus::accepted);
        REQUIRE(Token::live == 120);
        mailbox.close();
        REQUIRE(mailbox.send(Token{0}) == SendStatus::closed);
        REQUIRE(Token::live == 120);
    }
    REQUIRE(Token::live == 0);
}

TEST_CASE("a move that throws in send changes nothing", "[mailbox]") {
    {
        Mailbox<Volatile> mailbox{2, counting_bell()};
        REQUIRE(mailbox.prepare_sleep());
        for (int round = 0; round != 200; ++round) {
            Volatile message{round};
            Volatile::moves_left = 0;
            REQUIRE_THROWS_AS(mailbox.send(std::move(message)), std::runtime_error);
            Volatile::moves_left = -1;
            REQUIRE(*message.value == round);
        }
        REQUIRE(rings == 0);
        REQUIRE_FALSE(mailbox.collect());
        REQUIRE_FALSE(mailbox.has_next());
        const auto make = +[](std::size_t number) { return Volatile{static_cast<int>(number)}; };
        for (int round = 0; round != 5; ++round) {
            REQUIRE(send_until_full(mailbox, make) == 2);
            REQUIRE(take_all(mailbox) == 2);
        }
    }
    REQUIRE(Volatile::live == 0);
}

TEST_CASE("a move that throws in take_next leaves the message the next one", "[mailbox]") {
    {
        Mailbox<Volatile> mailbox{2, counting_bell()};
        REQUIRE(mailbox.send(Volatile{1}) == SendStatus::accepted);
        REQUIRE(mailbox.send(Volatile{2}) == SendStatus::accepted);
        mailbox.collect();
        Volatile::moves_left = 0;
        REQUIRE_THROWS_AS(mailbox.take_next(), std::runtime_error);
        Volatile::moves_left = -1;
        REQUIRE(mailbox.send(Volatile{3}) == SendStatus::full);
        REQUIRE(*mailbox.take_next().value == 1);
        REQUIRE(mailbox.send(Volatile{3}) == SendStatus::accepted);
        REQUIRE(*mailbox.take_next().value == 2);
    }
    REQUIRE(Volatile::live == 0);
}

TEST_CASE("large and over-aligned messages arrive whole and aligned", "[mailbox]") {
    struct alignas(256) Large {
        std::array<std::uint32_t, 256> numbers;
    };
    Mailbox<Large> mailbox{100, counting_bell()};
    bool aligned = true;
    for (std::uint32_t round = 0; round != 3; ++round) {
        for (std::uint32_t i = 0; i != 100; ++i) {
            Large message{};
            std::iota(message.numbers.begin(), message.numbers.end(), i + round);
            REQUIRE(mailbox.send(std::move(message)) == SendStatus::accepted);
        }
        mailbox.collect();
        for (std::uint32_t i = 0; i != 100; ++i) {
            const Large message = mailbox.take_next();
            aligned = aligned && reinterpret_cast<std::uintptr_t>(&message) % 256 == 0;
            REQUIRE(message.numbers.front() == i + round);
            REQUIRE(message.numbers.back() == i + round + 255);
        }
    }
    REQUIRE(aligned);
}

TEST_CASE("without memory for a node send says full, and recovers", "[mailbox]") {
    if (sanitized) { // their allocators end the process instead
        SUCCEED("not with sanitizers");
        return;
    }
    struct Page {
        std::array<char, 65'536> bytes;
    };
    const auto without_memory = [](auto&& action) {
        rlimit limit{};
        ::getrlimit(RLIMIT_AS, &limit);
        const rlimit none{1, limit.rlim_max};
        ::setrlimit(RLIMIT_AS, &none);
        action();
        ::setrlimit(RLIMIT_AS, &limit);
    };
    auto page = std::make_unique<Page>();
    page->bytes.back() = 'x';
    Mailbox<Page> mailbox{1'000, counting_bell()};
    int accepted = 0;
    without_memory([&] {
        while (mailbox.send(std::move(*page)) == SendStatus::accepted)
            ++accepted;
    });
    REQUIRE(accepted > 0);
    REQUIRE(accepted < 1'000);
    REQUIRE(page->bytes.back() == 'x');
    REQUIRE(mailbox.send(std::move(*page)) == SendStatus::accepted);
    REQUIRE(take_all(mailbox) == static_cast<std::size_t>(accepted) + 1);

    without_memory([&] {
        Mailbox<Page> empty{1'000, Doorbell{}};
        accepted = empty.send(std::move(*page)) == SendStatus::full ? 0 : 1;
    });
    REQUIRE(accepted == 0);
}

TEST_CASE("8 senders: each message once, in each one's order, one ring a sleep", "[mailbox]") {
    constexpr std::size_t producers = 8;
    constexpr std::uint32_t each = sanitized ? 10'000 : 125'000;
    const std::size_t limit = GENERATE(1'000U, 65'536U);
    Patience patience;
    Mailbox<Letter> mailbox{limit, eventfd_bell()};
    std::vector<std::thread> threads;
    for (std::uint32_t producer = 0; producer != producers; ++producer)
        threads.emplace_back([&mailbox, producer] {
            for (std::uint32_t number = 0; number != each; ++number)
                insist(mailbox, Letter{producer, number});
        });
    Ledger ledger{producers, each};
    while (ledger.total < producers * each && patience.lasts()) {
        sleep_if_allowed(mailbox, ledger.sleeps);
        ledger.take_batch(mailbox);
    }
    for (std::thread& thread : threads)
        thread.join();
    REQUIRE(ledger.each_exactly_once());
    REQUIRE(ledger.in_order);
    REQUIRE(ledger.longest_batch <= limit);
    REQUIRE(static_cast<std::uint64_t>(rings.load()) <= ledger.sleeps + 1);
    REQUIRE(send_until_full(
                mailbox, +[](std::size_t) { return Letter{}; }) == limit);
}

TEST_CASE("small limits hold among many senders, and no node is lost", "[mailbox]") {
    constexpr std::uint32_t each = sanitized ? 300 : 1'500;
    const std::size_t limit = GENERATE(1U, 2U, 3U, 8U);
    Patience patience;
    Mailbox<Letter> mailbox{limit, eventfd_bell()};
    std::vector<std::thread> threads;
    for (std::uint32_t producer = 0; producer != 4; ++producer)
        threads.emplace_back([&mailbox, producer] {
            for (std::uint32_t number = 0; number != each; ++number)
                insist(mailbox, Letter{producer, number});
        });
    Ledger ledger{4, each};
    while (ledger.total < 4 * each && patience.lasts()) {
        const std::uint64_t before = ledger.total;
        ledger.take_batch(mailbox);
        if (ledger.total == before)
            std::this_thread::yield();
    }
    for (std::thread& thread : threads)
        thread.join();
    REQUIRE(ledger.each_exactly_once());
    REQUIRE(ledger.in_order);
    for (int round = 0; round != 3; ++round) {
        REQUIRE(send_until_full(
                    mailbox, +[](std::size_t) { return Letter{}; }) == limit);
        REQUIRE(take_all(mailbox) == limit);
    }
}

namespace {

// Senders go on until they hear `closed`; the consumer closes in the middle, takes the rest and
// leaves before them. True if every message was taken or refused, never both, never neither.
template <class Message, class Make, class Holds>
bool close_amid_senders(std::uint64_t close_after, std::size_t limit, Make make, Holds holds) {
    constexpr std::uint32_t producers = 4;
    auto consumer = std::make_shared<Mailbox<Message>>(limit, eventfd_bell());
    std::array<std::uint32_t, producers> accepted{};
    std::array<bool, producers> kept{};
    std::vector<std::thread> threads;
    for (std::uint32_t producer = 0; producer != producers; ++producer)
        threads.emplace_back([&, producer, mailbox = consumer] {
            for (std::uint32_t number = 0;;) {
                Message message = make(producer, number);
                const SendStatus status = mailbox->send(std::move(message));
                if (status == SendStatus::accepted) {
                    accepted[producer] = ++number;
                    continue;
                }
                kept[producer] = holds(message, producer, number);
                if (status == SendStatus::closed || !kept[producer])
                    break;
                std::this_thread::yield();
            }
            mailbox->wake();
        });
    std::array<std::uint32_t, producers> next{};
    std::uint64_t taken = 0;
    bool good = true;
    Patience patience;
    const auto take = [&] {
        consumer->collect();
        while (consumer->has_next()) {
            const Message message = consumer->take_next();
            std::uint32_t producer = 0;
            while (producer != producers && !holds(message, producer, next[producer]))
                ++producer;
            good = good && producer != producers;
            if (producer != producers)
                ++next[producer];
            ++taken;
        }
    };
    std::uint64_t sleeps = 0;
    while (taken < close_after && good && patience.lasts()) {
        sleep_if_allowed(*consumer, sleeps);
        take();
    }
    consumer->close();
    take();
    consumer.reset();
    for (std::thread& thread : threads)
        thread.join();
    return good && patience.lasts() && next == accepted && closes.load() == 1 &&
           std::all_of(kept.begin(), kept.end(), [](bool one) { return one; });
}

} // namespace

TEST_CASE("close amid senders: each message is taken or refused, and none outlives", "[mailbox]") {
    constexpr std::uint64_t rounds = sanitized ? 30 : 100;
    std::uint64_t good = 0;
    for (std::uint64_t round = 0; round != rounds; ++round) {
        good += close_amid_senders<Parcel>(
            round * 20, round % 3 == 0 ? 3 : 1'000,
            [](std::uint32_t producer, std::uint32_t number) {
                return Parcel{Token{0}, std::make_unique<Letter>(Letter{producer, number})};
            },
            [](const Parcel& parcel, std::uint32_t producer, std::uint32_t number) {
                return parcel.token.value == 0 && parcel.letter != nullptr &&
                       parcel.letter->producer == producer && parcel.letter->number == number;
            });
    }
    REQUIRE(good == rounds);
    REQUIRE(Token::live == 0);
}

TEST_CASE("close amid senders of what cannot be assigned", "[mailbox]") {
    constexpr std::uint64_t rounds = sanitized ? 15 : 50;
    std::uint64_t good = 0;
    for (std::uint64_t round = 0; round != rounds; ++round)
        good += close_amid_senders<Sealed>(
            round * 10, 1'000,
            [](std::uint32_t producer, std::uint32_t number) {
                return Sealed{producer, number};
            },
            [](const Sealed& sealed, std::uint32_t producer, std::uint32_t number) {
                return sealed.producer == producer && sealed.number == number;
            });
    REQUIRE(good == rounds);
}

namespace {

// Its first move closes the mailbox that it is sent to: between send()'s first look and the last.
template <bool assignable>
struct Bolt {
    Bolt(int given, Mailbox<Bolt>& closing) : number(given), mailbox(&closing) {}
    Bolt(Bolt&& from) noexcept
        : number(std::exchange(from.number, 0)), mailbox(std::exchange(from.mailbox, nullptr)) {
        if (mailbox != nullptr)
            std::exchange(mailbox, nullptr)->close();
    }
    Bolt& operator=(Bolt&& from) noexcept requires assignable {
        number = std::exchange(from.number, 0);
        return *this;
    }

    int number;
    Mailbox<Bolt>* mailbox;
};

} // namespace

TEMPLATE_TEST_CASE_SIG("who meets close half-way has the message back", "[mailbox]",
                       ((bool assignable), assignable), true, false) {
    STATIC_REQUIRE(std::is_move_assignable_v<Bolt<assignable>> == assignable);
    Mailbox<Bolt<assignable>> mailbox{1, counting_bell()};
    Bolt<assignable> bolt{7, mailbox};
    REQUIRE(mailbox.send(std::move(bolt)) == SendStatus::closed);
    REQUIRE(bolt.number == 7);
    mailbox.collect();
    REQUIRE_FALSE(mailbox.has_next());
}

TEST_CASE("where the limit cannot be met no sender hears full", "[mailbox]") {
    constexpr std::uint32_t each = sanitized ? 500 : 3'000;
    const std::uint32_t producers = GENERATE(1U, 2U, 4U); // one message out at a time for each
    Patience patience;
    Mailbox<Letter> mailbox{producers, eventfd_bell()};
    std::array<std::atomic<std::uint32_t>, 4> taken{};
    std::atomic<std::uint64_t> refused{0};
    std::vector<std::thread> threads;
    for (std::uint32_t producer = 0; producer != producers; ++producer)
        threads.emplace_back([&, producer] {
            for (std::uint32_t number = 0; number != each; ++number) {
                while (mailbox.send(Letter{producer, number}) != SendStatus::accepted &&
                       !given_up.load())
                    refused.fetch_add(1);
                while (taken[producer].load(std::memory_order_acquire) == number &&
                       !given_up.load())
                    std::this_thread::yield();
            }
        });
    std::uint64_t total = 0;
    while (total != std::uint64_t{producers} * each && patience.lasts()) {
        mailbox.collect();
        if (!mailbox.has_next())
            std::this_thread::yield();
        for (; mailbox.has_next(); ++total)
            taken[mailbox.take_next().producer].fetch_add(1, std::memory_order_release);
    }
    for (std::thread& thread : threads)
        thread.join();
    REQUIRE(total == std::uint64_t{producers} * each);
    REQUIRE(refused.load() == 0);
}

TEST_CASE("moves that throw among senders lose no message and no node", "[mailbox]") {
    constexpr int each = sanitized ? 1'000 : 12'000;
    const std::size_t limit = GENERATE(1U, 5U, 100U);
    {
        Patience patience;
        Mailbox<Volatile> mailbox{limit, eventfd_bell()};
        std::array<std::uint64_t, 4> sums{};
        std::array<bool, 4> whole{true, true, true, true};
        std::atomic<int> sending{4};
        std::vector<std::thread> threads;
        for (std::size_t producer = 0; producer != 4; ++producer)
            threads.emplace_back([&, producer] {
                for (int number = 0; number != each; ++number) {
                    Volatile message{number};
                    for (SendStatus status = SendStatus::full;
                         status != SendStatus::accepted && !given_up.load();) {
                        Volatile::moves_left = number % 3 == 0 ? 0 : -1;
                        try {
                            status = mailbox.send(std::move(message));
                            if (status == SendStatus::full)
                                std::this_thread::yield();
                        } catch (const std::runtime_error&) {
                            whole[producer] = whole[producer] && *message.value == number;
                            break;
                        }
                        if (status == SendStatus::accepted)
                            sums[producer] += static_cast<std::uint64_t>(number);
                    }
                }
                sending.fetch_sub(1);
                mailbox.wake();
            });
        std::uint64_t sum = 0;
        std::uint64_t sleeps = 0;
        for (bool more = true; more && patience.lasts();) {
            sleep_if_allowed(mailbox, sleeps);
            more = sending.load() != 0;
            mailbox.collect();
            while (mailbox.has_next())
                sum += static_cast<std::uint64_t>(*mailbox.take_next().value);
        }
        for (std::thread& thread : threads)
            thread.join();
        REQUIRE(patience.lasts());
        REQUIRE(whole == std::array<bool, 4>{true, true, true, true});
        REQUIRE(sum == std::accumulate(sums.begin(), sums.end(), std::uint64_t{0}));
        const auto make = +[](std::size_t number) { return Volatile{static_cast<int>(number)}; };
        for (int round = 0; round != 3; ++round) {
            REQUIRE(send_until_full(mailbox, make) == limit);
            REQUIRE(take_all(mailbox) == limit);
        }
    }
    REQUIRE(Volatile::live == 0);
}

TEST_CASE("no wake is lost: a consumer that always sleeps hears every message", "[mailbox]") {
    constexpr std::uint32_t rounds = sanitized ? 3'000 : 30'000;
    Patience patience;
    Mailbox<std::uint32_t> mailbox{1, eventfd_bell()};
    std::atomic<std::uint32_t> answered{0};
    std::thread sender{[&] {
        for (std::uint32_t number = 1; number <= rounds; ++number) {
            for (std::uint32_t pause = number % 97; pause != 0; --pause)
                (void)answered.load();
            insist(mailbox, std::uint32_t{number});
        }
    }};
    std::uint64_t sleeps = 0;
    bool in_order = true;
    while (answered.load() != rounds && patience.lasts()) {
        sleep_if_allowed(mailbox, sleeps);
        mailbox.collect();
        while (mailbox.has_next())
            in_order = mailbox.take_next() == answered.fetch_add(1) + 1 && in_order;
    }
    sender.join();
    REQUIRE(patience.lasts());
    REQUIRE(in_order);
    REQUIRE(static_cast<std::uint64_t>(rings.load()) <= sleeps);
}

TEST_CASE("a sleep that ends by itself beside senders forgets nothing", "[mailbox]") {
    constexpr std::uint32_t each = sanitized ? 20'000 : 100'000;
    Patience patience;
    Mailbox<Letter> mailbox{1'000, eventfd_bell()};
    std::vector<std::thread> threads;
    for (std::uint32_t producer = 0; producer != 2; ++producer)
        threads.emplace_back([&mailbox, producer] {
            for (std::uint32_t number = 0; number != each; ++number)
                insist(mailbox, Letter{producer, number});
        });
    Ledger ledger{2, each};
    while (ledger.total < 2 * each && patience.lasts()) {
        if (mailbox.prepare_sleep())
            ++ledger.sleeps; // and its time is already over
        mailbox.awake();
        ledger.take_batch(mailbox);
    }
    for (std::thread& thread : threads)
        thread.join();
    REQUIRE(ledger.each_exactly_once());
    REQUIRE(ledger.in_order);
    REQUIRE(static_cast<std::uint64_t>(rings.load()) <= ledger.sleeps);
}

TEST_CASE("no wake is lost: what was written before wake is seen after it", "[mailbox]") {
    constexpr int rounds = sanitized ? 3'000 : 30'000;
    Patience patience;
    Mailbox<int> mailbox{1, eventfd_bell()};
    int written = 0; // not atomic: wake and collect are what orders it
    std::atomic<int> seen{0};
    std::thread waker{[&] {
        for (int number = 1; number <= rounds; ++number) {
            written = number;
            mailbox.wake();
            while (seen.load() != number && !given_up.load())
                std::this_thread::yield();
        }
    }};
    std::uint64_t sleeps = 0;
    while (seen.load() != rounds && patience.lasts()) {
        sleep_if_allowed(mailbox, sleeps);
        if (mailbox.collect())
            seen.store(written);
    }
    waker.join();
    REQUIRE(patience.lasts());
    REQUIRE(static_cast<std::uint64_t>(rings.load()) <= sleeps);
}

namespace {

std::atomic<Mailbox<int>*> signalled{nullptr};

void wake_on_signal(int) {
    if (Mailbox<int>* mailbox = signalled.load())
        mailbox->wake();
}

// Handles SIGUSR1 by waking this mailbox, until it goes.
class WakeOnSignal {
  public:
    explicit WakeOnSignal(Mailbox<int>& mailbox) {
        signalled.store(&mailbox);
        struct sigaction action {};
        action.sa_handler = wake_on_signal;
        ::sigaction(SIGUSR1, &action, &before_);
    }
    ~WakeOnSignal() {
        ::sigaction(SIGUSR1, &before_, nullptr);
        signalled.store(nullptr);
    }
    WakeOnSignal(const WakeOnSignal&) = delete;
    WakeOnSignal& operator=(const WakeOnSignal&) = delete;

  private:
    struct sigaction before_ {};
};

} // namespace

TEST_CASE("wake from a signal handler ends a sleep and keeps errno", "[mailbox]") {
    Mailbox<int> mailbox{10, counting_bell()};
    const WakeOnSignal handler{mailbox};
    REQUIRE(mailbox.prepare_sleep());
    errno = ENOENT;
    ::raise(SIGUSR1);
    const int after = errno;
    REQUIRE(after == ENOENT);
    REQUIRE(rings == 1);
    mailbox.awake();
    REQUIRE(mailbox.collect());
    ::raise(SIGUSR1);
    REQUIRE_FALSE(mailbox.prepare_sleep());
    REQUIRE(rings == 1);
    REQUIRE(mailbox.collect());
}

TEST_CASE("wake from handlers that interrupt senders and consumer breaks neither", "[mailbox]") {
    constexpr int messages = sanitized ? 10'000 : 50'000;
    Patience patience;
    Mailbox<int> mailbox{64, eventfd_bell()};
    const WakeOnSignal handler{mailbox};
    std::atomic<bool> done{false};
    std::thread sender{[&] {
        for (int number = 0; number != messages; ++number)
            insist(mailbox, int{number});
        while (!done.load())
            std::this_thread::yield();
    }};
    const pthread_t consumer = ::pthread_self();
    std::thread troubler{[&, target = sender.native_handle()] {
        for (int i = 0; !done.load(); ++i) {
            ::pthread_kill(i % 2 == 0 ? target : consumer, SIGUSR1);
            std::this_thread::sleep_for(std::chrono::microseconds{50});
        }
    }};
    std::uint64_t sleeps = 0;
    int expected = 0;
    bool in_order = true;
    while (expected != messages && patience.lasts()) {
        sleep_if_allowed(mailbox, sleeps);
        mailbox.collect();
        while (mailbox.has_next())
            in_order = mailbox.take_next() == expected++ && in_order;
    }
    done.store(true);
    troubler.join();
    sender.join();
    REQUIRE(patience.lasts());
    REQUIRE(in_order);
    REQUIRE(static_cast<std::uint64_t>(rings.load()) <= sleeps);
}
