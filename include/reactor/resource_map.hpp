// SPDX-License-Identifier: Apache-2.0
//
// Engines: what a service knows of its resources, found by id.
//
// A ResourceMap holds one value an id, where the id's slot says, and compares the id: a lookup is
// indexing and one comparison, without a hash, and what belongs to a predecessor in the same slot
// is never found. Values stand in pages of 64 and do not move; pages come when they are needed and
// go when their last value goes, but for one that is kept, so that a value that comes and goes at
// the edge of a page costs no allocation. Transports have even slots and listeners odd ones; each
// role has pages of its own, so that a service that keeps state of the one pays nothing for the
// other.
#pragma once

#include <reactor/resource_id.hpp>

#include <bit>
#include <cassert>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace reactor::inline v0 {

/// Values by ResourceId. Movable. One thread.
template <class T>
class ResourceMap {
    static_assert(std::is_object_v<T> && std::is_nothrow_destructible_v<T>);

    template <bool>
    class Cursor;

  public:
    /// What iterating yields; the names are for structured bindings.
    struct Item {
        ResourceId id; ///< whose value it is
        T& value;      ///< to be looked at and changed
    };
    /// The same of a map that is constant.
    struct ConstItem {
        ResourceId id;  ///< whose value it is
        const T& value; ///< to be looked at
    };
    /// @{
    /// Input iterators: what they yield is made as it is asked for, and is not in the map.
    using iterator = Cursor<false>;
    using const_iterator = Cursor<true>;
    /// @}

    ResourceMap() noexcept = default;
    /// Takes over; the other one is empty then.
    ResourceMap(ResourceMap&& other) noexcept { swap(other); }
    /// Destroys its values, and takes over.
    ResourceMap& operator=(ResourceMap&& other) noexcept {
        ResourceMap(std::move(other)).swap(*this);
        return *this;
    }
    ~ResourceMap() { clear(); }

    /// Makes the value of this id, in place of what stands in its slot: the value of an older
    /// generation, or of the id itself. The reference stays good until the value is erased. Throws
    /// std::bad_alloc and what T does; the slot may then be empty, if T's move can throw.
    /// Precondition: the id names something, and nothing newer stands in its slot.
    template <class... Args>
    T& emplace(ResourceId id, Args&&... args) {
        assert(id);
        if (Cell* const cell = cell_of(id); cell != nullptr && cell->id) {
            assert(cell->id.generation() <= id.generation());
            if constexpr (std::is_nothrow_move_constructible_v<T>) {
                T value = made_of(std::forward<Args>(args)...); // it may be of the old one
                remove(*cell);
                return make(id, std::move(value));
            } else {
                remove(*cell);
            }
        }
        return make(id, std::forward<Args>(args)...);
    }
    /// The value of this id; null if it has none.
    [[nodiscard]] T* find(ResourceId id) noexcept { return value_of(id); }
    /// The same, to be looked at only.
    [[nodiscard]] const T* find(ResourceId id) const noexcept { return value_of(id); }
    /// The value of this id, made first if it has none; as `emplace`.
    T& operator[](ResourceId id) requires std::default_initializable<T> {
        T* const value = find(id);
        return value != nullptr ? *value : emplace(id);
    }
    /// Whether this id has a value.
    [[nodiscard]] bool contains(ResourceId id) const noexcept { return find(id) != nullptr; }

    /// Whether there was a value of this id, which is gone now.
    bool erase(ResourceId id) noexcept {
        if (!contains(id)) {
            return false;
        }
        remove(*cell_of(id));
        return true;
    }
    /// The value of this id, moved out; nothing if it has none.
    [[nodiscard]] std::optional<T> take(ResourceId id) requires std::move_constructible<T> {
        std::optional<T> taken;
        if (T* const value = find(id)) {
            taken.emplace(std::move(*value));
            erase(id);
        }
        return taken;
    }
    /// Erases all and gives back all memory.
    void clear() noexcept {
        for (std::size_t place = 0; (place = next(place)) != nowhere;) {
            remove(cell_at(place));
        }
        for (auto& pages : pages_) {
            std::vector<std::unique_ptr<Page>>().swap(pages);
        }
        spare_.reset();
    }

    /// How many values there are.
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    /// Whether there is none.
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }

    /// Transports first, then listeners, each in the order of their slots. Whatever is erased while
    /// one iterates, the current value too, does no harm; whether one comes by what is added
    /// meanwhile is left open. An item lives until its iterator moves on.
    [[nodiscard]] iterator begin() noexcept { return iterator(this, next(0)); }
    /// @{
    /// See `begin()`.
    [[nodiscard]] iterator end() noexcept { return iterator(this, nowhere); }
    [[nodiscard]] const_iterator begin() const noexcept { return const_iterator(this, next(0)); }
    [[nodiscard]] const_iterator end() const noexcept { return const_iterator(this, nowhere); }
    /// @}

    /// Exchanges the values; none is moved, pointers to them stay good.
    void swap(ResourceMap& other) noexcept {
        pages_[0].swap(other.pages_[0]);
        pages_[1].swap(other.pages_[1]);
        spare_.swap(other.spare_);
        std::swap(size_, other.size_);
    }

  private:
    static constexpr std::size_t page_size = 64;

    struct Cell {
        Cell() noexcept {}
        Cell(const Cell&) = delete;
        Cell& operator=(const Cell&) = delete;
        ~Cell() {}

        ResourceId id; ///< names nothing: there is no value
        union {
            T value;
        };
    };
    struct Page {
        Cell cells[page_size];
        std::uint64_t used = 0;
    };

    // A place is what an iterator stands on: transports from 0, listeners from role_size.
    static constexpr std::size_t role_size = ResourceId::slot_count / 2;
    static constexpr std::size_t nowhere = 2 * role_size;

    [[nodiscard]] Cell& cell_at(std::size_t place) const noexcept {
        const std::size_t index = place % role_size;
        return pages_[place / role_size][index / page_size]->cells[index % page_size];
    }
    /// The first place with a value, from this one on.
    [[nodiscard]] std::size_t next(std::size_t place) const noexcept {
        while (place < nowhere) {
            const auto& pages = pages_[place / role_size];
            const std::size_t index = place % role_size;
            if (index / page_size >= pages.size()) {
                place += role_size - index;
                continue;
            }
            const Page* const page = pages[index / page_size].get();
            const std::uint64_t rest = page == nullptr ? 0 : page->used >> (index % page_size);
            if (rest != 0) {
                return place + static_cast<std::size_t>(std::countr_zero(rest));
            }
            place += page_size - index % page_size;
        }
        return nowhere;
    }
    /// Where a value of that id would stand; null if there is no such page.
    [[nodiscard]] Cell* cell_of(ResourceId id) const noexcept {
        const auto& pages = pages_[id.slot() & 1];
        const std::size_t index = id.slot() >> 1;
        if (index / page_size >= pages.size()) [[unlikely]] {
            return nullptr;
        }
        Page* const page = pages[index / page_size].get();
        return page == nullptr ? nullptr : &page->cells[index % page_size];
    }
    [[nodiscard]] T* value_of(ResourceId id) const noexcept {
        Cell* const cell = cell_of(id);
        return cell != nullptr && cell->id == id && id ? std::addressof(cell->value) : nullptr;
    }

    /// Also of the members of an aggregate, whatever the compiler thinks of parentheses.
    template <class... Args>
    [[nodiscard]] static T made_of(Args&&... args) {
        if constexpr (std::is_constructible_v<T, Args...>) {
            return T(std::forward<Args>(args)...);
        } else {
            return T{std::forward<Args>(args)...};
        }
    }
    template <class... Args>
    T& make(ResourceId id, Args&&... args) {
        auto& pages = pages_[id.slot() & 1];
        const std::size_t index = id.slot() >> 1;
        if (index / page_size >= pages.size()) {
            pages.resize(index / page_size + 1);
        }
        if (pages[index / page_size] == nullptr) {
            pages[index / page_size] =
                spare_ != nullptr ? std::move(spare_) : std::make_unique<Page>();
        }
        Page& page = *pages[index / page_size];
        Cell& cell = page.cells[index % page_size];
        ::new (static_cast<void*>(std::addressof(cell.value)))
            T(made_of(std::forward<Args>(args)...));
        page.used |= bit(index);
        cell.id = id;
        ++size_;
        return cell.value;
    }
    /// The destructor of T may erase others: so the cell is empty before, the page released after.
    void remove(Cell& cell) noexcept {
        const std::size_t index = cell.id.slot() >> 1;
        auto& pages = pages_[cell.id.slot() & 1];
        cell.id = {};
        --size_;
        cell.value.~T();
        auto& page = pages[index / page_size];
        page->used &= ~bit(index);
        if (page->used == 0) {
            spare_ = std::move(page);
        }
    }
    [[nodiscard]] static std::uint64_t bit(std::size_t index) noexcept {
        return std::uint64_t{1} << (index % page_size);
    }

    std::vector<std::unique_ptr<Page>> pages_[2]; ///< of transports, of listeners
    std::unique_ptr<Page> spare_;
    std::size_t size_ = 0;
};

/// A forward iterator that makes its item as it is asked for it.
template <class T>
template <bool is_const>
class ResourceMap<T>::Cursor {
    using Map = std::conditional_t<is_const, const ResourceMap, ResourceMap>;

  public:
    using value_type = std::conditional_t<is_const, ConstItem, Item>;
    using reference = value_type&;
    using pointer = value_type*;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::input_iterator_tag; // its items are not in the map

    Cursor() noexcept = default;

    [[nodiscard]] reference operator*() const noexcept {
        Cell& cell = map_->cell_at(place_);
        return *::new (static_cast<void*>(item_)) value_type{cell.id, cell.value};
    }
    [[nodiscard]] pointer operator->() const noexcept { return std::addressof(**this); }
    Cursor& operator++() noexcept {
        place_ = map_->next(place_ + 1);
        return *this;
    }
    Cursor operator++(int) noexcept {
        const Cursor before = *this;
        ++*this;
        return before;
    }
    friend bool operator==(const Cursor& a, const Cursor& b) noexcept {
        return a.place_ == b.place_;
    }

  private:
    friend class ResourceMap;

    Cursor(Map* map, std::size_t place) noexcept : map_(map), place_(place) {}

    Map* map_ = nullptr;
    std::size_t place_ = nowhere;
    alignas(value_type) mutable std::byte item_[sizeof(value_type)];
};

} // namespace reactor::inline v0
