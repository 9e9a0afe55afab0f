// SPDX-License-Identifier: Apache-2.0
//
// Engines: where the nodes of a mailbox come from and go to.
//
// Memory is made by the chunk, on demand, and stays until the pool goes. The free nodes are a queue
// of numbers: any thread takes from its front, in one compare-exchange that also counts how many
// are out, and one thread, the consumer, puts back at its end by plain stores. The pool knows
// nothing of messages: a node is room for one.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace reactor::inline v0 {
namespace detail {

/// Raw nodes for the mailbox: any thread borrows, one puts back, never more than `limit` are out.
/// They are a queue, so that they stay in the order of their addresses. Borrowing takes the front
/// and counts in one compare-exchange, which makes the limit exact; the count is also what tells a
/// node that left the queue and came back from one that stayed.
template <class T>
class NodePool {
  public:
    /// Nodes have numbers, so that a word has room for more than a link.
    using Number = std::uint32_t;
    static constexpr unsigned number_bits = 24;
    static constexpr Number number_mask = (Number{1} << number_bits) - 1;
    static constexpr Number none = 0;
    static constexpr Number first = 1;
    static constexpr std::size_t max_limit = number_mask - first;

    /// Link and object share their lines: links side by side would be fought for.
    struct Node {
        std::atomic<Number> link = none;
        alignas(T) std::byte room[sizeof(T)];

        T& object() noexcept { return *std::launder(reinterpret_cast<T*>(room)); }
    };

    explicit NodePool(std::size_t limit) noexcept
        : limit_{static_cast<Number>(limit < max_limit ? limit : max_limit)},
          chunks_{new (std::nothrow) std::atomic<Node*>[chunk_of(last()) + 1]} {
        if (!has_memory(first))
            limit_ = 0;
    }
    ~NodePool() {
        for (Number i = 0; chunks_ != nullptr && i <= chunk_of(last()); ++i)
            deallocate(chunks_[i].load(std::memory_order_acquire));
    }
    NodePool(const NodePool&) = delete;
    NodePool& operator=(const NodePool&) = delete;

    /// How many nodes it lends at once; zero if there was no memory for the first.
    [[nodiscard]] Number limit() const noexcept { return limit_; }

    Node& operator[](Number number) const noexcept {
        return chunks_[chunk_of(number)].load(
            std::memory_order_acquire)[(number - first) % chunk_nodes];
    }

    /// Any thread. A node, or none: the limit is out, or there is no memory.
    Number borrow() noexcept {
        Tagged front = front_.load(std::memory_order_acquire);
        for (;;) {
            if (all_out(front, back_.load(std::memory_order_acquire))) {
                const Tagged back = returned_.load(std::memory_order_acquire) +
                                    cancelled_.load(std::memory_order_acquire);
                const Tagged before = front;
                if (all_out(before, back)) {
                    front = front_.load(std::memory_order_acquire);
                    if (count_of(front) == count_of(before))
                        return none;
                    continue; // not all out: it was an old front
                }
                back_.store(back, std::memory_order_release);
            }
            const Number number = number_of(front);
            const Number next = (*this)[number].link.load(std::memory_order_acquire);
            if (!front_.compare_exchange_weak(
                    front, tagged(count_of(front) + 1, next != none ? next : number),
                    std::memory_order_acq_rel, std::memory_order_acquire))
                continue;
            if (next != none)
                return number;
            // The last one must stay in the queue, but the count promises one: of those cancelled
            // or of those never used. Where others were faster it is undone and tried again.
            if (const Number spare = pop_spare(); spare != none)
                return spare;
            if (const Number made = make(); made != none)
                return made;
            cancelled_.fetch_add(1, std::memory_order_release);
            if (made_.load(std::memory_order_relaxed) != last())
                return none; // no memory
            front = front_.load(std::memory_order_acquire);
        }
    }

    /// Any thread. Undoes borrow().
    void cancel(Number number) noexcept {
        Tagged spare = spare_.load(std::memory_order_relaxed);
        do {
            (*this)[number].link.store(number_of(spare), std::memory_order_relaxed);
        } while (!spare_.compare_exchange_weak(spare, tagged(count_of(spare), number),
                                               std::memory_order_release,
                                               std::memory_order_relaxed));
        cancelled_.fetch_add(1, std::memory_order_release);
    }

    /// One thread. The node is in reach before it counts: who sees the count finds a node.
    void put_back(Number number) noexcept {
        (*this)[number].link.store(none, std::memory_order_relaxed);
        (*this)[rear_].link.store(number, std::memory_order_release);
        rear_ = number;
        returned_.store(returned_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    }

  private:
    // A number, and a count that makes a late compare-exchange fail.
    using Tagged = std::uint64_t;
    static constexpr Tagged tagged(Tagged count, Number number) noexcept {
        return count << number_bits | number;
    }
    static constexpr Tagged count_of(Tagged word) noexcept { return word >> number_bits; }
    static constexpr Number number_of(Tagged word) noexcept {
        return static_cast<Number>(word & number_mask);
    }
    static_assert(std::atomic<Tagged>::is_always_lock_free);

    static constexpr Number chunk_nodes = 64;
    static constexpr std::align_val_t alignment{alignof(Node) > 64 ? alignof(Node) : 64};
    static constexpr Number chunk_of(Number number) noexcept {
        return (number - first) / chunk_nodes;
    }
    Number last() const noexcept { return limit_ + first; } // the queue keeps one for itself

    bool all_out(Tagged front, Tagged back) const noexcept {
        return count_of((count_of(front) - back) << number_bits) >= limit_;
    }

    Number make() noexcept {
        Number made = made_.load(std::memory_order_relaxed);
        do {
            if (made == last() || !has_memory(made + 1))
                return none;
        } while (!made_.compare_exchange_weak(made, made + 1, std::memory_order_relaxed));
        return made + 1;
    }

    bool has_memory(Number number) noexcept {
        if (chunks_ == nullptr)
            return false;
        std::atomic<Node*>& chunk = chunks_[chunk_of(number)];
        if (chunk.load(std::memory_order_acquire) != nullptr)
            return true;
        const Number left = last() - chunk_of(number) * chunk_nodes;
        const std::size_t size = left < chunk_nodes ? left : chunk_nodes;
        void* memory = ::operator new(size * sizeof(Node), alignment, std::nothrow);
        if (memory == nullptr)
            return false;
        Node* nodes = static_cast<Node*>(memory);
        for (std::size_t i = 0; i != size; ++i)
            ::new (static_cast<void*>(nodes + i)) Node;
        Node* other = nullptr;
        if (!chunk.compare_exchange_strong(other, nodes, std::memory_order_acq_rel))
            deallocate(nodes);
        return true;
    }
    static void deallocate(Node* nodes) noexcept { ::operator delete(nodes, alignment); }

    Number pop_spare() noexcept {
        Tagged spare = spare_.load(std::memory_order_acquire);
        while (number_of(spare) != none) {
            const Number next = (*this)[number_of(spare)].link.load(std::memory_order_relaxed);
            if (spare_.compare_exchange_weak(spare, tagged(count_of(spare) + 1, next),
                                             std::memory_order_acquire, std::memory_order_acquire))
                return number_of(spare);
        }
        return none;
    }

    // Each line has its writers: none, every borrower, borrowers in rare cases, who puts back.
    alignas(64) Number limit_;
    const std::unique_ptr<std::atomic<Node*>[]> chunks_;
    alignas(64) std::atomic<Tagged> front_ = first; // the front, and how many were ever lent
    std::atomic<Tagged> back_ = 0;                  // how many of those were last seen to be back:
    alignas(64) std::atomic<Tagged> cancelled_ = 0;
    std::atomic<Tagged> spare_ = none; // nodes that were cancelled
    std::atomic<Number> made_ = first; // nodes up to this one were ever used
    alignas(64) std::atomic<Tagged> returned_ = 0;
    Number rear_ = first;
};

} // namespace detail
} // namespace reactor::inline v0
