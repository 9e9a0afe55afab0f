// SPDX-License-Identifier: Apache-2.0
//
// Engines: the way into the loop for what other threads say. Many senders, one consumer, a limit.
//
// A message is moved into a node, the node is pushed on the inbox (one CAS), and the consumer takes
// the whole inbox with one exchange, turns it into the order of sending and hands it out one by
// one. The inbox word also holds the marks asleep, notified and closed, so "is there something" and
// "does somebody have to ring" are one question: whoever clears asleep rings, nobody else does.
// Every change of that word is a read-modify-write; a plain store to clear a mark has lost wakes.
// The mailbox owns nodes, messages and bell, and lives as long as its last holder: a late sender
// rings a bell that is still ours. The limit is exact and counts messages, not nodes: `free_`
// counts the nodes lent, the consumer tells how many came back, and a few nodes more than the limit
// let it return them in batches. Roads not taken: a ring of slots, where a sender that is preempted
// between claim and fill stops everyone behind it and close() would have to wait for it; a counter
// of what is queued, one more contended line.
#pragma once

#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

namespace reactor::inline v0 {
namespace detail {

/// The consumer's bell: rings a descriptor. Type-erased, so that senders need not know the Kernel.
/// `ring` must be async-signal-safe. An empty bell is never rung.
struct Doorbell {
    int fd = -1;
    void (*ring)(int fd) noexcept = nullptr;
    void (*close)(int fd) noexcept = nullptr;
};

/// What became of a message: taken over, or still the sender's.
enum class SendStatus : std::uint8_t { accepted, full, closed };

/// Many senders, one consumer. Held by std::shared_ptr on both sides.
template <class Message>
class Mailbox {
    static_assert(std::is_move_constructible_v<Message> && std::is_nothrow_destructible_v<Message>);
    static_assert(std::is_move_assignable_v<Message> ||
                      std::is_nothrow_move_constructible_v<Message>,
                  "a message that comes too late must find its way back to its sender");

  public:
    /// The largest limit; a larger one counts as this one.
    static constexpr std::size_t max_limit = (std::size_t{1} << 24) - 128;

    /// Accepts up to `limit` messages that are not taken yet. Takes the bell over: the destructor
    /// closes it. Memory for nodes comes when it is needed, and stays.
    Mailbox(std::size_t limit, Doorbell bell) noexcept
        : bell_{bell},
          limit_{static_cast<Number>(limit < max_limit ? limit : max_limit)},
          batch_{limit_ < 64 ? limit_ : 64},
          chunks_{new (std::nothrow) std::atomic<Chunk*>[chunk_count()]} {}

    /// Destroys what was never taken.
    ~Mailbox() {
        for (Number node = next_; node != none; node = link(node).load(std::memory_order_relaxed))
            message(node).~Message();
        Number node = inbox_.load(std::memory_order_acquire) & number_mask;
        for (; node != none; node = link(node).load(std::memory_order_relaxed))
            message(node).~Message();
        for (Number i = 0; chunks_ != nullptr && i != chunk_count(); ++i)
            discard(chunks_[i].load(std::memory_order_relaxed));
        delete[] chunks_;
        if (bell_.fd != -1 && bell_.close != nullptr) bell_.close(bell_.fd);
    }

    Mailbox(const Mailbox&) = delete;
    Mailbox& operator=(const Mailbox&) = delete;

    /// The bell's descriptor, for the consumer's poll set.
    [[nodiscard]] int bell_fd() const noexcept { return bell_.fd; }

    /// Any thread. Moves from `message` only if it is accepted; else the sender still has it. (One
    /// that meets close() half-way is moved there and back.) `full`: the limit, or no memory for a
    /// node. Rings once a sleep of the consumer, and never while it is awake. What the message's
    /// move throws goes to the sender, and nothing has changed here.
    [[nodiscard]] SendStatus send(Message&& message) {
        if (closed()) return SendStatus::closed;
        Loan loan{*this, borrow()};
        if (loan.node == none) return SendStatus::full;
        auto* sent = ::new (room(loan.node)) Message(std::move(message));
        Number head = inbox_.load(std::memory_order_relaxed);
        do {
            if ((head & closed_mark) != 0) {
                give_back(message, *sent);
                return SendStatus::closed;
            }
            link(loan.node).store(head & number_mask, std::memory_order_relaxed);
        } while (!inbox_.compare_exchange_weak(head, (head & notified_mark) | loan.node,
                                               std::memory_order_release,
                                               std::memory_order_relaxed));
        loan.node = none;
        if ((head & asleep_mark) != 0) ring();
        return SendStatus::accepted;
    }

    /// Any thread, also in a signal handler: the consumer's sleep, this one or the next, returns at
    /// once. Keeps errno.
    void wake() noexcept {
        Number head = inbox_.load(std::memory_order_relaxed);
        while (!inbox_.compare_exchange_weak(head, (head | notified_mark) & ~asleep_mark,
                                             std::memory_order_release,
                                             std::memory_order_relaxed)) {
        }
        if ((head & asleep_mark) != 0) ring();
    }

    /// Any thread: whether send() can only say `closed`.
    [[nodiscard]] bool closed() const noexcept {
        return (inbox_.load(std::memory_order_relaxed) & closed_mark) != 0;
    }

    /// Consumer. True: nothing waits, and from now on a sender rings. False: something waits, or
    /// wake() was called: do not sleep.
    [[nodiscard]] bool prepare_sleep() noexcept {
        Number head = inbox_.load(std::memory_order_relaxed);
        do {
            if (has_next() || (head & (number_mask | notified_mark)) != 0) return false;
        } while (!inbox_.compare_exchange_weak(head, head | asleep_mark, std::memory_order_acq_rel,
                                               std::memory_order_relaxed));
        return true;
    }

    /// Consumer, after the sleep, whatever prepare_sleep() said: senders do not ring any more. One
    /// that has just won the right to ring may still do so.
    void awake() noexcept {
        if ((inbox_.load(std::memory_order_relaxed) & asleep_mark) != 0)
            inbox_.fetch_and(~asleep_mark, std::memory_order_acq_rel);
    }

    /// Consumer. Takes over all that was sent, behind what was collected before; implies awake().
    /// Returns whether wake() was called since the last time. Where nothing was sent, one load.
    bool collect() noexcept {
        Number head = inbox_.load(std::memory_order_relaxed);
        if ((head & (number_mask | notified_mark)) == 0) return false;
        head = inbox_.exchange(head & closed_mark, std::memory_order_acq_rel);
        if ((head & number_mask) != 0) append(head & number_mask);
        return (head & notified_mark) != 0;
    }

    /// Consumer. Whether something that was collected waits.
    [[nodiscard]] bool has_next() const noexcept { return next_ != none; }

    /// Consumer, where has_next(). The oldest message; its place is free before it is handled, so a
    /// handler may send even at the limit. If its move throws it stays the next.
    [[nodiscard]] Message take_next() {
        assert(has_next());
        const Number node = next_;
        Message& stored = message(node);
        Message taken(std::move(stored));
        stored.~Message();
        next_ = link(node).load(std::memory_order_relaxed);
        if (next_ != none) __builtin_prefetch(room(next_));
        taken_.store(taken_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
        if (++spent_ == batch_) return_spent(node);
        return taken;
    }

    /// Consumer. Final: send() says `closed` from now on. What was accepted before is the
    /// consumer's to collect() and take.
    void close() noexcept { inbox_.fetch_or(closed_mark, std::memory_order_acq_rel); }

  private:
    // A node has a number; 0 names none. A list is a number and the links from there.
    using Number = std::uint32_t;
    static constexpr Number none = 0;
    static constexpr unsigned number_bits = 24;
    static constexpr Number number_mask = (Number{1} << number_bits) - 1;
    static constexpr Number asleep_mark = Number{1} << number_bits;
    static constexpr Number notified_mark = asleep_mark << 1;
    static constexpr Number closed_mark = asleep_mark << 2;
    static constexpr Number chunk_nodes = 128;
    static constexpr std::uint64_t one_lent = std::uint64_t{1} << number_bits;

    // Links stand apart from the messages: to turn a batch round touches one line for 16 nodes.
    struct alignas(64) Chunk {
        std::atomic<Number> links[chunk_nodes] = {};
        alignas(Message) std::byte room[1]; // the allocation goes on behind it
    };

    // A borrowed node goes back unless it was sent.
    struct Loan {
        Mailbox& mailbox;
        Number node;
        ~Loan() {
            if (node == none) return;
            mailbox.release(node, node);
            mailbox.refunded_.fetch_add(1, std::memory_order_release);
        }
    };

    static_assert(std::atomic<Number>::is_always_lock_free);
    static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

    // Numbers go up to limit + batch: all that can be waiting and all that waits to be returned.
    Number last_number() const noexcept { return limit_ + batch_; }
    Number chunk_count() const noexcept { return last_number() / chunk_nodes + 1; }

    Chunk& chunk(Number node) const noexcept {
        return *chunks_[node / chunk_nodes].load(std::memory_order_acquire);
    }
    std::atomic<Number>& link(Number node) const noexcept {
        return chunk(node).links[node % chunk_nodes];
    }
    void* room(Number node) const noexcept {
        return chunk(node).room + node % chunk_nodes * sizeof(Message);
    }
    Message& message(Number node) const noexcept {
        return *std::launder(static_cast<Message*>(room(node)));
    }

    // What is lent and not known to be back. `free` is a word of free_, 40 bits of it a count.
    static std::uint64_t outstanding(std::uint64_t free, std::uint64_t back) noexcept {
        return ((free >> number_bits) - back) & (~std::uint64_t{0} >> number_bits);
    }

    // A node for one message, or none. The count in free_ is the reservation, and it is also what
    // tells a node that was lent and returned meanwhile from one that was never touched.
    Number borrow() noexcept {
        std::uint64_t free = free_.load(std::memory_order_acquire);
        for (;;) {
            if (outstanding(free, back_.load(std::memory_order_acquire)) >= limit_) {
                const std::uint64_t back = taken_.load(std::memory_order_acquire) +
                                           refunded_.load(std::memory_order_acquire);
                if (outstanding(free, back) >= limit_) {
                    const std::uint64_t before = std::exchange(
                        free, free_.load(std::memory_order_acquire));
                    if (before >> number_bits == free >> number_bits) return none;
                    continue;
                }
                back_.store(back, std::memory_order_release);
            }
            const auto node = static_cast<Number>(free & number_mask);
            const Number rest = node == none ? none : link(node).load(std::memory_order_relaxed);
            if (free_.compare_exchange_weak(free, ((free + one_lent) & ~std::uint64_t{number_mask}) | rest,
                                            std::memory_order_acq_rel, std::memory_order_acquire))
                return node != none ? node : make();
        }
    }

    // A node that was never used. The reservation in borrow() is what keeps the number in range:
    // nothing was free, so every number given out is reserved or waits to be returned.
    Number make() noexcept {
        Number node = made_.load(std::memory_order_relaxed);
        do {
            assert(node < last_number());
            if (!has_chunk(node + 1)) {
                refunded_.fetch_add(1, std::memory_order_release);
                return none;
            }
        } while (!made_.compare_exchange_weak(node, node + 1, std::memory_order_relaxed));
        return node + 1;
    }

    bool has_chunk(Number node) noexcept {
        if (chunks_ == nullptr) return false;
        std::atomic<Chunk*>& place = chunks_[node / chunk_nodes];
        if (place.load(std::memory_order_acquire) != nullptr) return true;
        const Number first = node / chunk_nodes * chunk_nodes;
        const Number left = last_number() + 1 - first;
        const std::size_t nodes = left < chunk_nodes ? left : chunk_nodes;
        void* memory = ::operator new(sizeof(Chunk) + nodes * sizeof(Message),
                                      std::align_val_t{alignof(Chunk)}, std::nothrow);
        if (memory == nullptr) return false;
        auto* fresh = ::new (memory) Chunk;
        Chunk* other = nullptr;
        if (!place.compare_exchange_strong(other, fresh, std::memory_order_acq_rel)) discard(fresh);
        return true;
    }

    static void discard(Chunk* chunk) noexcept {
        ::operator delete(chunk, std::align_val_t{alignof(Chunk)});
    }

    // Puts a list of nodes back on top of the free ones.
    void release(Number first, Number last) noexcept {
        std::uint64_t free = free_.load(std::memory_order_relaxed);
        do {
            link(last).store(static_cast<Number>(free & number_mask), std::memory_order_relaxed);
        } while (!free_.compare_exchange_weak(free, (free & ~std::uint64_t{number_mask}) | first,
                                              std::memory_order_release,
                                              std::memory_order_relaxed));
    }

    static void give_back(Message& message, Message& sent) {
        struct Gone {
            Message& sent;
            ~Gone() { sent.~Message(); }
        } gone{sent};
        if constexpr (std::is_move_assignable_v<Message>) {
            message = std::move(sent);
        } else {
            message.~Message();
            ::new (static_cast<void*>(std::addressof(message))) Message(std::move(sent));
        }
    }

    void ring() const noexcept {
        if (bell_.ring == nullptr) return;
        const int kept = errno;
        bell_.ring(bell_.fd);
        errno = kept;
    }

    // The consumer's list: spent nodes first, then those that wait; `last_` ends it.
    void append(Number newest) noexcept {
        Number oldest = none;
        for (Number node = newest; node != none;) {
            std::atomic<Number>& older = link(node);
            const Number following = older.load(std::memory_order_relaxed);
            older.store(oldest, std::memory_order_relaxed);
            oldest = std::exchange(node, following);
        }
        if (next_ == none) next_ = oldest;
        if (last_ == none) first_ = oldest;
        else link(last_).store(oldest, std::memory_order_relaxed);
        last_ = newest;
    }

    void return_spent(Number last) noexcept {
        const Number first = std::exchange(first_, next_);
        if (next_ == none) last_ = none;
        spent_ = 0;
        release(first, last);
    }

    // Each line has one kind of writer. First what never changes.
    alignas(64) const Doorbell bell_;
    const Number limit_;
    const Number batch_;
    std::atomic<Chunk*>* const chunks_;
    alignas(64) std::atomic<Number> inbox_ = none;        // newest node and marks
    alignas(64) std::atomic<std::uint64_t> free_ = 0;     // how many were lent, and a free node
    std::atomic<std::uint64_t> back_ = 0;                 // senders' last look at taken_, refunded_
    alignas(64) std::atomic<Number> made_ = 0;            // nodes that were ever used
    std::atomic<std::uint64_t> refunded_ = 0;             // reservations that came to nothing
    alignas(64) std::atomic<std::uint64_t> taken_ = 0;    // from here on: the consumer writes
    Number first_ = none;
    Number next_ = none;
    Number last_ = none;
    Number spent_ = 0;
};

} // namespace detail
} // namespace reactor::inline v0
