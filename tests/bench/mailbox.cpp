// SPDX-License-Identifier: Apache-2.0
//
// What a command costs on its way into the loop (row B9). Each round sends 400 000 commands a
// producer through a Mailbox and then, on the same terms, through a mutex, two vectors and an
// eventfd; a quarter as many go before, unmeasured. The consumer has cpu 0, the producers share the
// others. The consumer is
//   busy      as a loop with ready resources: every turn asks the kernel without waiting, then
//             handles what was sent
//   sleeping  it has nothing else: every turn sleeps unless something was sent
// ns: time from the first measured send to the last handled command, divided by the commands; of
// the rounds the median and, behind it, the best. wakes: writes to the eventfd, a command. full:
// sends that were refused and tried again, a command.
// Usage: mailbox [rounds, 15] [commands a producer, 400000]
#include <reactor/detail/mailbox.hpp>

#include <poll.h>
#include <pthread.h>
#include <sched.h>
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
    double ns, wakes, full;
};

// The first cpu, or all but the first.
void stay_on(bool first) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    const unsigned count = std::thread::hardware_concurrency();
    if (first || count < 2)
        CPU_SET(0, &cpus);
    else
        for (unsigned cpu = 1; cpu != count; ++cpu)
            CPU_SET(cpu, &cpus);
    ::pthread_setaffinity_np(::pthread_self(), sizeof cpus, &cpus);
}

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
    const std::uint32_t before = each / 4;
    std::atomic<unsigned> ready{0};
    std::atomic<std::uint64_t> refused{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> threads;
    for (unsigned producer = 0; producer != producers; ++producer)
        threads.emplace_back([&, producer] {
            stay_on(false);
            std::uint64_t full = 0;
            const auto send = [&](std::uint32_t count) {
                for (std::uint32_t number = 0; number != count; ++number) {
                    Message message{producer, number, {}};
                    for (; !channel->send(message); ++full)
                        std::this_thread::yield();
                }
            };
            send(before);
            full = 0;
            ready.fetch_add(1);
            while (!go.load())
                std::this_thread::yield();
            send(each);
            refused.fetch_add(full);
        });
    std::uint64_t seen = 0;
    std::uint64_t sum = 0;
    const auto turns_until = [&](std::uint64_t total) {
        while (seen != total) {
            const bool sleep = sleeping && channel->prepare_sleep();
            wait(channel->fd(), sleep ? -1 : 0);
            if (sleeping)
                channel->awake();
            channel->handle_all([&](const Message& message) {
                ++seen;
                sum += message.number;
            });
        }
    };
    turns_until(std::uint64_t{before} * producers);
    while (ready.load() != producers)
        std::this_thread::yield();
    seen = sum = 0;
    rings.store(0);
    const std::uint64_t total = std::uint64_t{each} * producers;
    const auto start = Clock::now();
    go.store(true);
    turns_until(total);
    const auto wall = std::chrono::nanoseconds(Clock::now() - start).count();
    for (std::thread& thread : threads)
        thread.join();
    if (sum != std::uint64_t{each} * (each - 1) / 2 * producers) {
        std::fputs("commands were lost or doubled\n", stderr);
        std::exit(1);
    }
    const auto count = static_cast<double>(total);
    return {static_cast<double>(wall) / count, static_cast<double>(rings.load()) / count,
            static_cast<double>(refused.load()) / count};
}

template <class Message>
void table(const char* size, unsigned rounds, std::uint32_t each) {
    const auto sorted = [](std::vector<Result> results) {
        std::sort(results.begin(), results.end(),
                  [](const Result& a, const Result& b) { return a.ns < b.ns; });
        return results;
    };
    for (const bool sleeping : {false, true})
        for (const unsigned producers : {1U, 2U, 4U}) {
            std::vector<Result> ours;
            std::vector<Result> locked;
            for (unsigned round = 0; round != rounds; ++round) {
                ours.push_back(run<Ours, Message>(producers, each, sleeping));
                locked.push_back(run<Locked, Message>(producers, each, sleeping));
            }
            ours = sorted(ours);
            locked = sorted(locked);
            const Result& a = ours[rounds / 2];
            const Result& b = locked[rounds / 2];
            std::printf(
                "%5s %-9s %9u | %6.1f %6.1f %8.5f %6.3f | %6.1f %6.1f %8.5f %6.3f | %5.2f\n", size,
                sleeping ? "sleeping" : "busy", producers, a.ns, ours[0].ns, a.wakes, a.full, b.ns,
                locked[0].ns, b.wakes, b.full, a.ns / b.ns);
        }
}

} // namespace

int main(int argc, char** argv) {
    const unsigned rounds = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 15;
    const auto each = static_cast<std::uint32_t>(argc > 2 ? std::atoi(argv[2]) : 400'000);
    if (rounds == 0 || each == 0)
        return 2;
    stay_on(true);
    std::puts("                          | mailbox                       | mutex, vectors, eventfd"
              "       | ratio");
    std::puts(" size consumer  producers |     ns   best    wakes   full |     ns   best    wakes"
              "   full |");
    table<Command<16>>("16 B", rounds, each);
    table<Command<64>>("64 B", rounds, each);
}
