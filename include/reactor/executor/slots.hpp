// SPDX-License-Identifier: Apache-2.0
//
// Annex, behind the scenes: where the callbacks of an executor stand.
//
// Each event has a slot, and its id is the slot's number and generation, so that finding it is
// indexing and a comparison. A slot that was taken for a link stays with it, so that what is
// awaited of a descriptor again and again finds its place without a search; the others go round
// among those that await time. A slot whose generations are used up is retired. One thread.
#pragma once

#include <reactor/executor/event.hpp>

#include <utility>
#include <vector>

namespace reactor::inline v0 {
namespace detail {

/// The events of one executor, by id.
template <class Callback>
class Slots {
  public:
    static constexpr std::uint32_t none = ~std::uint32_t{0};

    struct Slot {
        EventId id;                ///< whose slot it is, or will be next; nothing: it is retired
        TimerId timer;             ///< that fulfils it
        std::uint32_t link = none; ///< the number of the link it stays with; none: it awaits time
        Times times = Times::once;
        bool live = false;
        Callback callback;         ///< empty while it runs
    };

    explicit Slots(std::uint64_t first_generation) noexcept
        : first_generation_(first_generation) {}

    [[nodiscard]] std::size_t size() const noexcept { return count_; }
    [[nodiscard]] Slot& at(std::uint32_t number) noexcept { return slots_[number]; }
    /// The slot of an event that is not over; null if it is.
    [[nodiscard]] Slot* find(EventId id) noexcept {
        if (id.slot() >= count_) [[unlikely]] {
            return nullptr;
        }
        Slot& slot = slots_[id.slot()];
        return slot.live && slot.id == id ? &slot : nullptr;
    }

    /// The number of a free slot, for this link or for none; none: all numbers are used up.
    [[nodiscard]] std::uint32_t take(std::uint32_t link = none) {
        if (free_.empty() && !make_one()) {
            return none;
        }
        const std::uint32_t number = free_.back();
        free_.pop_back();
        slots_[number].link = link;
        return number;
    }
    /// Begins an event in a slot that was taken.
    EventId fill(Slot& slot, Times times, Callback&& callback) noexcept {
        slot.times = times;
        slot.live = true;
        slot.callback = std::move(callback);
        return slot.id;
    }
    /// The event is over; its callback is the caller's. The slot is free if no link keeps it.
    [[nodiscard, gnu::always_inline]] Callback vacate(Slot& slot) noexcept {
        const std::uint32_t number = slot.id.slot();
        const std::uint64_t generation = slot.id.generation();
        slot.live = false;
        slot.id = generation < EventId::last_generation ? EventId::of(number, generation + 1)
                                                        : EventId{};
        if (slot.link == none) {
            slot.timer = {};
            if (slot.id) {
                free_.push_back(number);
            }
        }
        return std::move(slot.callback);
    }

  private:
    [[gnu::noinline]] bool make_one() {
        if (slots_.size() == EventId::slot_count) {
            return false;
        }
        if (slots_.size() == slots_.capacity()) {
            slots_.reserve(2 * slots_.size() + 8);
        }
        free_.reserve(slots_.capacity()); // so that giving back allocates nothing
        const auto number = static_cast<std::uint32_t>(slots_.size());
        slots_.emplace_back();
        ++count_;
        slots_.back().id = EventId::of(number, first_generation_);
        free_.push_back(number);
        return true;
    }

    std::uint64_t first_generation_;
    std::vector<Slot> slots_;
    std::uint32_t count_ = 0; ///< slots_.size(), without the division
    std::vector<std::uint32_t> free_;
};

} // namespace detail
} // namespace reactor::inline v0
