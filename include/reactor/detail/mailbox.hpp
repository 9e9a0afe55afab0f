// SPDX-License-Identifier: Apache-2.0
//
// Engines: the way into the loop for what other threads say. Many senders, one consumer, a limit.
//
// A sender borrows a node from the pool (one CAS), moves its message in and pushes the node on the
// inbox (one CAS). The consumer takes the whole inbox with one exchange, turns it into the order of
// sending and hands it out; each node goes back behind the free ones by plain stores. The inbox
// word also holds the marks asleep, notified and closed, so "is there something" and "must somebody
// ring" are one question: who clears asleep rings, and only by a read-modify-write.
// The mailbox owns nodes, messages and bell and dies with its last holder, so that a late sender
// rings a bell that is still ours. Roads not taken: a ring of slots, where a sender preempted
// between claim and fill holds up everyone, and close() with them; free nodes as a stack with links
// beside them, whose cache misses made a command cost two to three times as much.
#pragma once

#include <reactor/detail/node_pool.hpp>

#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace reactor::inline v0 {
namespace detail {

/// The consumer's bell: rings a descriptor. Type-erased, so that senders need not know the Kernel.
/// `ring` must be async-signal-safe. What is null is not called.
struct Doorbell {
    int fd = -1;
    void (*ring)(int fd) noexcept = nullptr;
    void (*close)(int fd) noexcept = nullptr;
};

/// What became of a message: it was taken over, or it is still the sender's.
enum class SendStatus : std::uint8_t { accepted, full, closed };

/// Many senders, one consumer. Held by std::shared_ptr on both sides.
template <class Message>
class Mailbox {
    static_assert(std::is_move_constructible_v<Message> && std::is_nothrow_destructible_v<Message>);
    static_assert(std::is_move_assignable_v<Message> ||
                      std::is_nothrow_move_constructible_v<Message>,
                  "a message that comes too late must find its way back to its sender");

  public:
    /// A larger limit counts as this one.
    static constexpr std::size_t max_limit = NodePool<Message>::max_limit;

    /// Accepts up to `limit` messages that are not yet taken (none if there is no memory to begin
    /// with). Takes the bell over: the destructor closes it. Nodes are made on demand, and stay.
    Mailbox(std::size_t limit, Doorbell bell) noexcept : bell_{bell}, nodes_{limit} {}

    /// Destroys what was never taken. Whoever is the last holder may do it.
    ~Mailbox() {
        destroy(next_);
        destroy(inbox_.load(std::memory_order_acquire) & number_mask);
        if (bell_.close != nullptr && bell_.fd != -1)
            bell_.close(bell_.fd);
    }

    Mailbox(const Mailbox&) = delete;
    Mailbox& operator=(const Mailbox&) = delete;

    /// Whether there was memory to begin with. Else it accepts nothing, ever.
    [[nodiscard]] bool has_memory() const noexcept { return nodes_.limit() != 0; }

    /// The bell's descriptor, for the consumer's poll set.
    [[nodiscard]] int bell_fd() const noexcept { return bell_.fd; }

    /// Any thread. Moves from `message` only if it is accepted; else the sender still has it (one
    /// that meets close() half-way is moved there and back). `full`: the limit, or no memory. Rings
    /// once a sleep of the consumer, and not while it is awake. What the message's move throws goes
    /// to the sender, and nothing has changed here.
    [[nodiscard]] SendStatus send(Message&& message) {
        if (closed())
            return SendStatus::closed;
        Loan loan{nodes_, nodes_.borrow()};
        if (loan.number == none)
            return SendStatus::full;
        auto& node = nodes_[loan.number];
        Message* sent = ::new (static_cast<void*>(node.room)) Message(std::move(message));
        loan.filled = true;
        Number head = inbox_.load(std::memory_order_relaxed);
        do {
            if ((head & closed_mark) != 0) {
                give_back(message, *sent);
                return SendStatus::closed;
            }
            node.link.store(head & number_mask, std::memory_order_relaxed);
        } while (!inbox_.compare_exchange_weak(head, (head & notified_mark) | loan.number,
                                               std::memory_order_release,
                                               std::memory_order_relaxed));
        loan.number = none;
        if ((head & asleep_mark) != 0)
            ring();
        return SendStatus::accepted;
    }

    /// Any thread, also in a signal handler: the consumer's sleep, this one or the next, returns at
    /// once, and after collect() it sees what the caller had written. Keeps errno.
    void wake() noexcept {
        Number head = inbox_.load(std::memory_order_relaxed);
        while (!inbox_.compare_exchange_weak(head, (head | notified_mark) & ~asleep_mark,
                                             std::memory_order_release,
                                             std::memory_order_relaxed)) {
        }
        if ((head & asleep_mark) != 0)
            ring();
    }

    /// Any thread. Whether send() can only say `closed`.
    [[nodiscard]] bool closed() const noexcept {
        return (inbox_.load(std::memory_order_relaxed) & closed_mark) != 0;
    }

    /// Consumer. True: nothing waits, and from now on a sender rings. False: something waits, or
    /// wake() was called: do not sleep.
    [[nodiscard]] bool prepare_sleep() noexcept {
        if (has_next())
            return false;
        Number head = inbox_.load(std::memory_order_relaxed);
        do {
            if ((head & (number_mask | notified_mark)) != 0)
                return false;
        } while (!inbox_.compare_exchange_weak(head, head | asleep_mark, std::memory_order_acq_rel,
                                               std::memory_order_relaxed));
        return true;
    }

    /// Consumer, after the sleep, whatever prepare_sleep() said: senders do not ring any more. One
    /// that was about to may still do so.
    void awake() noexcept {
        if ((inbox_.load(std::memory_order_relaxed) & asleep_mark) != 0)
            inbox_.fetch_and(~asleep_mark, std::memory_order_acq_rel);
    }

    /// Consumer. Takes over all that was sent, behind what was collected before. Returns whether
    /// wake() was called since the last time. Where nothing happened it costs one load.
    bool collect() noexcept {
        Number head = inbox_.load(std::memory_order_relaxed);
        if ((head & (number_mask | notified_mark)) == 0)
            return false;
        head = inbox_.exchange(head & closed_mark, std::memory_order_acq_rel);
        if ((head & number_mask) != 0)
            append(head & number_mask);
        return (head & notified_mark) != 0;
    }

    /// Consumer. Whether something collected waits.
    [[nodiscard]] bool has_next() const noexcept { return next_ != none; }

    /// Consumer, only where has_next(). The oldest message. Its place is free before it is handled,
    /// so that a handler may send even at the limit. If its move throws, it stays the next one.
    [[nodiscard]] Message take_next() {
        assert(has_next());
        const Number number = next_;
        auto& node = nodes_[number];
        Message message(std::move(node.object()));
        std::destroy_at(&node.object());
        next_ = node.link.load(std::memory_order_relaxed);
        nodes_.put_back(number);
        return message;
    }

    /// Consumer, only where has_next(). Destroys the oldest message where it stands: what its move
    /// would throw cannot be borne where this is called.
    void drop_next() noexcept {
        assert(has_next());
        const Number number = next_;
        next_ = nodes_[number].link.load(std::memory_order_relaxed);
        std::destroy_at(&nodes_[number].object());
        nodes_.put_back(number);
    }

    /// Consumer. Final: from now on send() says `closed`. What was accepted before is there to
    /// collect() and take: each message was taken over or refused, never both, never neither.
    void close() noexcept { inbox_.fetch_or(closed_mark, std::memory_order_acq_rel); }

  private:
    using Number = typename NodePool<Message>::Number;
    static constexpr Number none = NodePool<Message>::none;
    static constexpr Number number_mask = NodePool<Message>::number_mask;
    static constexpr Number asleep_mark = number_mask + 1;
    static constexpr Number notified_mark = asleep_mark << 1;
    static constexpr Number closed_mark = asleep_mark << 2;
    static_assert(std::atomic<Number>::is_always_lock_free);

    // A borrowed node, which goes back unless it was sent.
    struct Loan {
        NodePool<Message>& nodes;
        Number number;
        bool filled = false;

        ~Loan() {
            if (number == none)
                return;
            if (filled)
                std::destroy_at(&nodes[number].object());
            nodes.cancel(number);
        }
    };

    static void give_back(Message& message, Message& sent) {
        if constexpr (std::is_move_assignable_v<Message>) {
            message = std::move(sent);
        } else {
            std::destroy_at(std::addressof(message));
            ::new (static_cast<void*>(std::addressof(message))) Message(std::move(sent));
        }
    }

    void ring() const noexcept {
        if (bell_.ring == nullptr)
            return;
        const int kept = errno;
        bell_.ring(bell_.fd);
        errno = kept;
    }

    // The inbox has the newest first, the consumer's list has it last.
    void append(Number newest) noexcept {
        Number oldest = none;
        for (Number number = newest; number != none;) {
            std::atomic<Number>& link = nodes_[number].link;
            const Number older = link.load(std::memory_order_relaxed);
            link.store(oldest, std::memory_order_relaxed);
            oldest = std::exchange(number, older);
        }
        if (has_next())
            nodes_[last_].link.store(oldest, std::memory_order_relaxed);
        else
            next_ = oldest;
        last_ = newest;
    }

    void destroy(Number number) noexcept {
        for (; number != none; number = nodes_[number].link.load(std::memory_order_relaxed))
            std::destroy_at(&nodes_[number].object());
    }

    const Doorbell bell_;
    NodePool<Message> nodes_;
    alignas(64) std::atomic<Number> inbox_ = none; // the newest node, and the marks
    alignas(64) Number next_ = none;               // from here on the consumer's
    Number last_ = none;                           // of those that wait, if any does
};

} // namespace detail
} // namespace reactor::inline v0
