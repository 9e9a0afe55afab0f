// SPDX-License-Identifier: Apache-2.0
//
// Engines, behind the scenes: who weighs most when more is owed than may be.
//
// A look through all transports finds a handful of them, so that thousands can be shed without
// looking through thousands for each.
#pragma once

#include <reactor/detail/registry.hpp>
#include <reactor/options.hpp>

#include <array>
#include <cstddef>
#include <utility>

namespace reactor::inline v0 {
namespace detail {

struct Weighed {
    std::size_t weight = 0; ///< zero: nobody
    ResourceId id;
};

/// The transports that weigh most under this policy, the heaviest first; who owes nothing weighs
/// nothing.
template <class Transports>
[[nodiscard]] std::array<Weighed, 32> find_heaviest(Transports& transports, Shedding policy,
                                                    std::uint32_t turn) noexcept {
    std::array<Weighed, 32> heaviest;
    std::size_t index = 0;
    while (const auto* const slot = transports.next(index)) {
        const bool by_size = slot->owed == 0 || policy == Shedding::end_largest;
        Weighed weighed{by_size ? slot->owed : std::size_t{turn - slot->owing_since} + 1, slot->id};
        if (weighed.weight <= heaviest.back().weight) {
            continue;
        }
        for (Weighed& place : heaviest) {
            if (place.weight < weighed.weight) {
                std::swap(place, weighed);
            }
        }
    }
    return heaviest;
}

} // namespace detail
} // namespace reactor::inline v0
