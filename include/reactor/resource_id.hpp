// SPDX-License-Identifier: Apache-2.0
//
// Words: the names of what is registered.
//
// An id is 64 bits: a slot (24) and the slot's generation (40). It is never made from a descriptor
// or an address, and never used twice: a slot whose generations are used up is retired. So a late
// event, command or action that names something gone can always be told from one that names its
// successor. The road not taken: the descriptor as the id, which the kernel reuses at once.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string_view> // std::hash

namespace reactor::inline v0 {

namespace detail {

/// What ResourceId and TimerId have in common. The zero value names nothing.
template <class Tag>
class Id {
  public:
    static constexpr unsigned slot_bits = 24;
    static constexpr std::uint64_t slot_count = std::uint64_t{1} << slot_bits;
    static constexpr std::uint64_t last_generation = (std::uint64_t{1} << (64 - slot_bits)) - 1;

    /// Names nothing.
    constexpr Id() noexcept = default;

    /// The id of this slot in this generation (1 to last_generation). For tables of resources and
    /// for tests; a service gets its ids from the library.
    [[nodiscard]] static constexpr Id of(std::uint32_t slot, std::uint64_t generation) noexcept {
        return from_value(generation << slot_bits | slot);
    }
    /// The id that `value()` gave. For the kernel's user data and for serialising.
    [[nodiscard]] static constexpr Id from_value(std::uint64_t value) noexcept {
        Id id;
        id.value_ = value;
        return id;
    }

    /// All 64 bits, to print or to store. Opaque: the split into two may change.
    [[nodiscard]] constexpr std::uint64_t value() const noexcept { return value_; }
    /// An index that is small and dense: for tables such as ResourceMap, with the id compared.
    [[nodiscard]] constexpr std::uint32_t slot() const noexcept {
        return static_cast<std::uint32_t>(value_ & (slot_count - 1));
    }
    /// How many users the slot has had, this one included.
    [[nodiscard]] constexpr std::uint64_t generation() const noexcept {
        return value_ >> slot_bits;
    }
    /// Whether it names anything (that may be gone by now).
    [[nodiscard]] explicit constexpr operator bool() const noexcept { return value_ != 0; }

    friend constexpr auto operator<=>(Id, Id) noexcept = default;

  private:
    std::uint64_t value_ = 0;
};

struct ResourceTag;
struct TimerTag;

} // namespace detail

/// Names one registered listener or transport, for as long as the process lives.
using ResourceId = detail::Id<detail::ResourceTag>;

/// Names one timer from the moment it is set until it has fired for the last time or was cancelled.
using TimerId = detail::Id<detail::TimerTag>;

} // namespace reactor::inline v0

template <class Tag>
struct std::hash<reactor::detail::Id<Tag>> {
    std::size_t operator()(reactor::detail::Id<Tag> id) const noexcept {
        return std::hash<std::uint64_t>{}(id.value());
    }
};
