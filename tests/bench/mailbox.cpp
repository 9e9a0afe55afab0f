// SPDX-License-Identifier: Apache-2.0
//
// What a command costs on its way into the loop (row B9). Each row is one run of 400 000 commands a
// producer through a Mailbox and, on the same terms, through a mutex, two vectors and an eventfd.
// The consumer is
//   busy     it always has other work: every turn asks the kernel without waiting, as a loop with
//            ready resources does, then handles what was sent
//   sleeping it has nothing else: every turn sleeps unless something was sent
// ns: wall time from the first send to the last handled command, divided by the commands; the
// median of the rounds. send: what a producer spends in its loop, a command. wakes: writes to the
// eventfd, a command. full: sends that were refused and tried again, a command.
// Usage: mailbox [rounds, 9] [commands a producer, 400000]
#include <reactor/detail/mailbox.hpp>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace {

using reactor::detail::Doorbell;
using reactor::detail::Mailbox;
using reactor::detail::SendStatus;
using Clock = std::chrono::steady_clock;

constexpr std::size_t limit = 65'536;

std::atomic<std::uint64_t> rings{0};

void ring(int fd) noexcept {
    rings.fetch_add(1, std::memory_order_relaxed);
    const std::uint64_t one = 1;
    if (::write(fd, &one, sizeof one) < 0)
        std::perror("write");
}

void close_fd(int fd) noexcept {
    ::close(fd);
}

template <std::size_t size>
struct Command {
    std::uint32_t producer;
    std::uint32_t number;
    unsigned char rest[size - 8];
};

template <class Message>
struct Ours {
    Mailbox<Message> mailbox{limit,
                             Doorbell{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), ring, close_fd}};

    bool send(Message& message) { return mailbox.send(std::move(message)) == SendStatus::accepted; }
    int fd() const { return mailbox.bell_fd(); }
    bool prepare_sleep() { return mailbox.prepare_sleep(); }
    void awake() { mailbox.awake(); }

    template <class Use>
    void handle_all(Use use) {
        mailbox.collect();
        while (mailbox.has_next())
            use(mailbox.take_next());
    }
};

template <class Message>
struct Locked {
    std::mutex mutex;
    std::vector<Message> sent;
    std::vector<Message> taken;
    bool asleep = false;
    int bell = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    ~Locked() { ::close(bell); }

    bool send(Message& message) {
        bool must_ring = false;
        {
            const std::lock_guard lock{mutex};
            if (sent.size() >= limit)
                return false;
            sent.push_back(message);
            must_ring = std::exchange(asleep, false);
        }
        if (must_ring)
            ring(bell);
        return true;
    }
    int fd() const { return bell; }
    bool prepare_sleep() {
        const std::lock_guard lock{mutex};
        return asleep = sent.empty();
    }
    void awake() {
        const std::lock_guard lock{mutex};
        asleep = false;
    }

    template <class Use>
    void handle_all(Use use) {
        {
            const std::lock_guard lock{mutex};
            sent.swap(taken);
        }
        for (Message& message : taken)
            use(message);
        taken.clear();
    }
};

struct Result {
    double ns, send_ns, wakes, full;
};

void wait(int fd, int timeout) {
    pollfd entry{fd, POLLIN, 0};
    if (::poll(&entry, 1, timeout) == 1) {
        std::uint64_t count = 0;
        if (::read(fd, &count, sizeof count) < 0)
            std::perror("read");
    }
}

template <template <class> class Channel, class Message>
Result run(unsigned producers, std::uint32_t each, bool sleeping) {
    auto channel = std::make_unique<Channel<Message>>();
    std::atomic<unsigned> ready{0};
    std::atomic<bool> go{false};
    std::atomic<std::uint64_t> refused{0};
    std::atomic<std::int64_t> sending{0};
    std::vector<std::thread> threads;
    for (unsigned producer = 0; producer != producers; ++producer)
        threads.emplace_back([&, producer] {
            std::uint64_t full = 0;
            ready.fetch_add(1);
            while (!go.load())
                std::this_thread::yield();
            const auto start = Clock::now();
            for (std::uint32_t number = 0; number != each; ++number) {
                Message message{producer, number, {}};
                while (!channel->send(message)) {
                    ++full;
                    std::this_thread::yield();
                }
            }
            sending.fetch_add(std::chrono::nanoseconds(Clock::now() - start).count());
            refused.fetch_add(full);
        });
    while (ready.load() != producers)
        std::this_thread::yield();
    const std::uint64_t total = std::uint64_t{each} * producers;
    std::uint64_t seen = 0;
    std::uint64_t sum = 0;
    rings.store(0);
    const auto start = Clock::now();
    go.store(true);
    while (seen != total) {
        if (!sleeping) {
            wait(channel->fd(), 0);
        } else {
            const bool sleep = channel->prepare_sleep();
            wait(channel->fd(), sleep ? -1 : 0);
            channel->awake();
        }
        channel->handle_all([&](const Message& message) {
            ++seen;
            sum += message.number;
        });
    }
    const auto wall = std::chrono::nanoseconds(Clock::now() - start).count();
    for (std::thread& thread : threads)
        thread.join();
    const std::uint64_t expected = std::uint64_t{each} * (each - 1) / 2 * producers;
    if (sum != expected) {
        std::fputs("commands were lost or doubled\n", stderr);
        std::exit(1);
    }
    const auto count = static_cast<double>(total);
    return {static_cast<double>(wall) / count, static_cast<double>(sending.load()) / count,
            static_cast<double>(rings.load()) / count, static_cast<double>(refused.load()) / count};
}

template <class Message>
void table(const char* size, unsigned rounds, std::uint32_t each) {
    const auto middle = [](std::vector<Result>& results) {
        std::sort(results.begin(), results.end(),
                  [](const Result& a, const Result& b) { return a.ns < b.ns; });
        return results[results.size() / 2];
    };
    for (const bool sleeping : {false, true})
        for (const unsigned producers : {1U, 2U, 4U}) {
            std::vector<Result> ours;
            std::vector<Result> locked;
            for (unsigned round = 0; round != rounds; ++round) {
                ours.push_back(run<Ours, Message>(producers, each, sleeping));
                locked.push_back(run<Locked, Message>(producers, each, sleeping));
            }
            const Result a = middle(ours);
            const Result b = middle(locked);
            std::printf(
                "%5s %-9s %9u | %7.1f %6.1f %8.5f %6.3f | %7.1f %6.1f %8.5f %6.3f | %6.2f\n", size,
                sleeping ? "sleeping" : "busy", producers, a.ns, a.send_ns, a.wakes, a.full, b.ns,
                b.send_ns, b.wakes, b.full, a.ns / b.ns);
        }
}

} // namespace

int main(int argc, char** argv) {
    const unsigned rounds = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 9;
    const auto each = static_cast<std::uint32_t>(argc > 2 ? std::atoi(argv[2]) : 400'000);
    std::puts(
        "                          | mailbox                        | mutex, vectors, eventfd");
    std::puts(" size consumer  producers |      ns   send    wakes   full |      ns   send    wakes"
              "   full |  ratio");
    table<Command<16>>("16 B", rounds, each);
    table<Command<64>>("64 B", rounds, each);
}
