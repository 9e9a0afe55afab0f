// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: the same scenario under many seeds.
//
//     const auto found = sim::search(1, 10'000, sim::Weather::storm(), scenario);
//     if (found) std::puts(found->to_string().c_str());
//
// A scenario is a function of a World: it makes services and peers, lets them live, and says with
// World::fail what is not as it should be; what it throws counts as well. The first seed that fails
// is run again with its trace kept: the same history, and now it can be read. To replay it under a
// debugger, call `replay` with that seed.
#pragma once

#include <reactor/sim/world.hpp>

#include <exception>
#include <optional>

namespace reactor::inline v0 {
namespace sim {

/// What one seed led to.
struct History {
    std::uint64_t seed = 0;  ///< which
    std::uint64_t hash = 0;  ///< of every call and answer
    std::uint64_t calls = 0; ///< of the simulated kernel
    std::string failure{};   ///< empty if nothing went wrong
    std::string trace{};     ///< the last calls, if they were kept

    /// What to show to whoever has to find the reason.
    [[nodiscard]] std::string to_string() const {
        return trace + "seed " + std::to_string(seed) + ", after " + std::to_string(calls) +
               " calls: " + failure + "\nreplay it with this seed: it will be the same, call by " +
               "call\n";
    }
};

/// Runs the scenario in the world of this seed. With `kept` the last so many calls are kept to be
/// read.
template <class Scenario>
[[nodiscard]] History replay(std::uint64_t seed, const Weather& weather, Scenario&& scenario,
                             std::size_t kept = 200) {
    World world(seed, weather);
    world.trace.keep(kept);
#ifdef __cpp_exceptions
    try {
        scenario(world);
    } catch (const std::exception& thrown) {
        world.fail(std::string("thrown: ") + thrown.what());
    }
#else
    scenario(world);
#endif
    return {seed, world.trace.hash(), world.trace.calls(), world.failure(),
            world.trace.to_string()};
}

/// Runs the scenario under `count` seeds from `first` on, until one fails: that one's history.
template <class Scenario>
[[nodiscard]] std::optional<History> search(std::uint64_t first, std::uint64_t count,
                                            const Weather& weather, Scenario&& scenario) {
    for (std::uint64_t seed = first; seed - first < count; ++seed) {
        if (!replay(seed, weather, scenario, 0).failure.empty()) {
            return replay(seed, weather, scenario);
        }
    }
    return std::nullopt;
}

} // namespace sim
} // namespace reactor::inline v0
