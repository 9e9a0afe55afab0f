// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: chance, all of it, out of one seed.
//
// Whatever is left to chance in a simulated world is drawn here and nowhere else, in the order of
// the calls, so that a seed is a whole history (invariant I20). The generator is splitmix64 with
// integer arithmetic of our own: the distributions of <random> differ between standard libraries,
// and then a seed would mean another history elsewhere.
#pragma once

#include <reactor/time.hpp>

#include <cstddef>
#include <cstdint>

namespace reactor::inline v0 {
namespace sim {

/// Numbers from a seed: the same seed, the same numbers. A value: a copy goes on by itself.
class Random {
  public:
    /// Any seed will do.
    explicit constexpr Random(std::uint64_t seed) noexcept : state_(seed) {}

    /// The next 64 bits.
    constexpr std::uint64_t next() noexcept {
        std::uint64_t bits = state_ += 0x9e3779b97f4a7c15U;
        bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9U;
        bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebU;
        return bits ^ (bits >> 31);
    }
    /// From 0 to `bound` - 1; 0 if there is nothing to choose from.
    constexpr std::uint64_t below(std::uint64_t bound) noexcept {
        return bound < 2 ? 0 : next() % bound;
    }
    /// From `least` to `most`, both included.
    constexpr std::size_t between(std::size_t least, std::size_t most) noexcept {
        return least >= most ? least
                             : least + static_cast<std::size_t>(below(most - least + 1));
    }
    /// The same for spans of time.
    constexpr Duration between(Duration least, Duration most) noexcept {
        const auto span = static_cast<std::uint64_t>((most - least).count());
        return least >= most ? least
                             : least + Duration{static_cast<Duration::rep>(below(span + 1))};
    }
    /// True with this probability. One that is zero draws nothing.
    constexpr bool chance(double probability) noexcept {
        constexpr double unit = 1.0 / 9007199254740992.0; // 2^-53
        return probability > 0 && static_cast<double>(next() >> 11) * unit < probability;
    }

  private:
    std::uint64_t state_;
};

} // namespace sim
} // namespace reactor::inline v0
