// SPDX-License-Identifier: Apache-2.0
//
// Engines: where what is registered stands.
//
// A Registry owns the listeners or the transports of one runtime by value, each in a slot that
// never moves; slots come in pages of 64. An id is the slot's number and its generation, so finding
// is indexing and one comparison. Listeners have odd slots, transports even ones: the id tells the
// role. After a burst, pages that stand empty are given back; what remains of a page is the
// generation its slots go on from, so an id is never used twice. A slot whose generations are used
// up is retired.
//
// The roads not taken: an indexed std::deque (150 instructions an echo more), a hash by id.
#pragma once

#include <reactor/resource.hpp>
#include <reactor/resource_id.hpp>

#include <algorithm>
#include <bit>
#include <memory>
#include <new>
#include <vector>

namespace reactor::inline v0 {
namespace detail {

/// The lazy timer of a resource with the power `deadline()`; nothing for others.
struct LazyTimer {
    TimerId timer;
    Timestamp set_for{};
};
struct NoLazyTimer {};

/// One registered resource, and what the runtime remembers of it.
template <class R, Role role_>
struct Slot {
    using Resource = R;
    static constexpr Role role = role_;

    Slot() noexcept {}
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;
    ~Slot() {
        if (live) {
            resource.~R();
        }
    }

    ResourceId id;                ///< whose slot it is, or will be next
    Slot* next_touched = nullptr; ///< in the list of this turn's touched ones
    std::uint32_t served = 0;     ///< the turn in which it last had its turn
    Interest armed;               ///< what the poller was told
    bool live = false;            ///< `resource` exists
    bool touched = false;         ///< stands in that list, whoever has the slot by then
    bool left_over = false;       ///< stands in the list of those that had more to yield
    bool paused = false;          ///< the service does not want it read
    bool closing = false;         ///< the service asked for close_write
    bool hole = false;            ///< a send to it was refused at the limit of actions
    bool held_back = false;       ///< its own unsent bytes kept it from being read
    std::uint32_t owing_since = 0; ///< the turn since which `owed` has not been zero
    std::size_t owed = 0;          ///< unsent bytes when it was last asked
    /// Sends that were asked for up to this action come back, as one before them did: the stream
    /// has no hole that its service does not know.
    std::uint64_t returns_until = 0;
    [[no_unique_address]] std::conditional_t<has_deadline<R>, LazyTimer, NoLazyTimer> lazy;
    union {
        R resource;
    };
};

/// The role of whom an id names.
[[nodiscard]] constexpr Role role_of(ResourceId id) noexcept {
    return (id.slot() & 1) != 0 ? Role::listener : Role::transport;
}

template <class R, Role role_>
class Registry {
  public:
    using Slot = detail::Slot<R, role_>;
    static constexpr Role role = role_;

    /// `first_generation`: for tests of retirement.
    explicit Registry(std::size_t limit, std::uint64_t first_generation = 1) noexcept
        : limit_(std::min<std::size_t>(limit, page_size * max_pages)),
          first_generation_(first_generation) {}

    /// The live slot of that id, or null. The slot does not move; but after user code has run, its
    /// id must be compared again.
    [[nodiscard]] Slot* find(ResourceId id) noexcept {
        const std::size_t index = id.slot() >> 1;
        if (index / page_size >= pages_.size()) [[unlikely]] {
            return nullptr;
        }
        Page* const page = pages_[index / page_size].page.get();
        if (page == nullptr) [[unlikely]] {
            return nullptr;
        }
        Slot& slot = page->slots[index % page_size];
        return slot.id == id && slot.live ? &slot : nullptr;
    }

    /// An id for a resource to come, in the lowest page with room; names nothing at the limit.
    [[nodiscard]] ResourceId reserve() {
        if (used_ >= limit_) {
            return {};
        }
        while (first_with_room_ < pages_.size() && !pages_[first_with_room_].has_room()) {
            ++first_with_room_;
        }
        if (first_with_room_ == pages_.size() || pages_[first_with_room_].page == nullptr) {
            if (!make_page()) {
                return {};
            }
        }
        Page& page = *pages_[first_with_room_].page;
        const int place = std::countr_zero(page.free);
        page.free &= page.free - 1;
        empty_ -= page.used == 0 ? 1 : 0;
        ++page.used;
        ++used_;
        return page.slots[place].id;
    }

    /// Puts the resource into its reserved slot.
    Slot& occupy(ResourceId id, R&& resource) noexcept {
        Slot& slot = at(id);
        ::new (static_cast<void*>(std::addressof(slot.resource))) R(std::move(resource));
        slot.live = true;
        ++live_;
        return slot;
    }

    /// Takes the resource out; the id names nothing from now on.
    [[nodiscard]] R extract(Slot& slot) noexcept {
        R resource = std::move(slot.resource);
        slot.resource.~R();
        slot.live = false;
        --live_;
        cancel(slot.id);
        return resource;
    }

    /// Frees a slot that is reserved and not live.
    void cancel(ResourceId id) noexcept {
        const std::size_t index = id.slot() >> 1;
        const std::size_t number = index / page_size;
        Page& page = *pages_[number].page;
        Slot& slot = page.slots[index % page_size];
        slot.armed = {};
        slot.returns_until = 0;
        slot.held_back = slot.left_over = slot.paused = slot.closing = slot.hole = false;
        slot.lazy = {};
        if (id.generation() < ResourceId::last_generation) {
            slot.id = ResourceId::of(id.slot(), id.generation() + 1);
            page.free |= std::uint64_t{1} << (index % page_size);
            first_with_room_ = std::min(first_with_room_, number);
        } else {
            slot.id = {};
            page.retired = true;
        }
        --page.used;
        --used_;
        empty_ += page.used == 0 ? 1 : 0;
        worth_trimming_ = empty_ > kept_empty + standing_ / 8;
    }

    /// Gives empty pages back, but for a few. No slot may be referred to, none may be touched.
    void trim() noexcept {
        if (worth_trimming_ && !any_touched()) [[unlikely]] {
            give_pages_back();
        }
    }

    /// The resource will be looked at when the turn ends.
    void touch(Slot& slot) noexcept {
        if (slot.touched) {
            return;
        }
        slot.touched = true;
        slot.next_touched = nullptr;
        (first_touched_ == nullptr ? first_touched_ : last_touched_->next_touched) = &slot;
        last_touched_ = &slot;
    }
    /// Whether any slot stands in the list of the touched ones.
    [[nodiscard]] bool any_touched() const noexcept { return first_touched_ != nullptr; }
    /// Takes the slot that was touched first, which may have been left by now. Precondition: any.
    [[nodiscard]] Slot& take_touched() noexcept {
        Slot& slot = *first_touched_;
        first_touched_ = slot.next_touched;
        slot.touched = false;
        return slot;
    }
    /// The slot that was touched last: where a pass over the list is to end. Precondition: any.
    [[nodiscard]] const Slot* last_touched() const noexcept { return last_touched_; }

    /// Calls `look` with each touched slot that is live, and leaves the list as it is.
    template <class Look>
    void each_touched(Look&& look) noexcept {
        for (Slot* slot = first_touched_; slot != nullptr; slot = slot->next_touched) {
            if (slot->live) {
                look(*slot);
            }
        }
    }

    /// Whether no more can be reserved.
    [[nodiscard]] bool full() const noexcept { return used_ >= limit_; }
    /// How many are live.
    [[nodiscard]] std::size_t live() const noexcept { return live_; }

    /// Some live slot at `index` or behind it, which moves on; null behind the last. To walk over
    /// all while any may leave.
    [[nodiscard]] Slot* next(std::size_t& index) noexcept {
        for (; index < pages_.size() * page_size; ++index) {
            Page* const page = pages_[index / page_size].page.get();
            if (page == nullptr || page->used == 0) {
                index |= page_size - 1;
            } else if (page->slots[index % page_size].live) {
                return &page->slots[index++ % page_size];
            }
        }
        return nullptr;
    }

  private:
    static constexpr std::size_t page_size = 64;
    static constexpr std::size_t max_pages = (ResourceId::slot_count >> 1) / page_size;
    static constexpr std::size_t kept_empty = 2;

    struct Page {
        Slot slots[page_size];
        std::uint64_t free = ~std::uint64_t{0};
        std::uint32_t used = 0;
        bool retired = false; ///< some slot is; the page stays, as it alone knows which
    };
    struct Entry {
        std::unique_ptr<Page> page;
        std::uint64_t generation; ///< where the slots go on when the page is made again

        [[nodiscard]] bool has_room() const noexcept { return page == nullptr || page->free != 0; }
    };

    [[nodiscard]] Slot& at(ResourceId id) noexcept {
        const std::size_t index = id.slot() >> 1;
        return pages_[index / page_size].page->slots[index % page_size];
    }
    [[gnu::cold]] void give_pages_back() noexcept {
        worth_trimming_ = false;
        for (std::size_t n = pages_.size(); n-- > 0 && empty_ > kept_empty;) {
            Entry& entry = pages_[n];
            if (entry.page != nullptr && entry.page->used == 0 && !entry.page->retired) {
                for (const Slot& slot : entry.page->slots) {
                    entry.generation = std::max(entry.generation, slot.id.generation());
                }
                entry.page.reset();
                --standing_;
                --empty_;
            }
        }
    }
    /// The page `first_with_room_`, made or made again. False: no more numbers.
    [[gnu::cold]] bool make_page() {
        if (first_with_room_ == max_pages) {
            return false;
        }
        if (first_with_room_ == pages_.size()) {
            pages_.push_back(Entry{nullptr, first_generation_});
        }
        Entry& entry = pages_[first_with_room_];
        entry.page = std::make_unique<Page>();
        for (std::size_t n = 0; n < page_size; ++n) {
            constexpr std::uint32_t role_bit = role == Role::listener ? 1 : 0;
            const auto slot = static_cast<std::uint32_t>((first_with_room_ * page_size + n) << 1);
            entry.page->slots[n].id = ResourceId::of(slot | role_bit, entry.generation);
        }
        ++standing_;
        ++empty_;
        return true;
    }

    std::size_t limit_;
    std::uint64_t first_generation_;
    std::vector<Entry> pages_;
    std::size_t first_with_room_ = 0;
    bool worth_trimming_ = false;
    Slot* first_touched_ = nullptr;
    Slot* last_touched_ = nullptr;
    std::size_t used_ = 0;     ///< slots reserved or live
    std::size_t live_ = 0;     ///< slots live
    std::size_t standing_ = 0; ///< pages in memory
    std::size_t empty_ = 0;    ///< of these, those of which no slot is used
};

} // namespace detail
} // namespace reactor::inline v0
