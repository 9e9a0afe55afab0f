// SPDX-License-Identifier: Apache-2.0
//
// The runtime in a storm: random schedules under a shadow model.
//
// One seed is one schedule: clients and servers come and go; services register, send, pause,
// half-close, connect, set timers, hand over to each other and take back, throw, and are at last
// drained, shut down or destroyed, while the simulated kernel does to them whatever its weather
// allows. Beside them a model keeps account of what was asked for and told, and holds the runtime
// to the invariants of DESIGN.md after every step. Its parts stand in tests/sim.
//
// REACTOR_SIM_SEEDS is how many schedules to run on each poller, REACTOR_SIM_FIRST the first seed.
#include "catch.hpp"
#include "from_environment.hpp"

#include "sim/schedule.hpp"

#include <reactor/sim/storm.hpp>


using namespace reactor;

namespace {

std::uint64_t seeds_wanted() { return from_environment("REACTOR_SIM_SEEDS", 1000); }

} // namespace

TEMPLATE_TEST_CASE("under random schedules in a storm the invariants hold", "", trial::Epoll,
                   trial::Poll) {
    const std::uint64_t seeds = seeds_wanted();
    const std::uint64_t first = from_environment("REACTOR_SIM_FIRST", 1);
    const auto found =
        sim::search(first, seeds, sim::Weather::storm(), trial::scenario<TestType>);
    INFO((found ? found->to_string() + "REACTOR_SIM_FIRST=" + std::to_string(found->seed) +
                      " REACTOR_SIM_SEEDS=1 build/tests/tests/sim_runtime 'under random*'\n"
                : ""));
    CHECK(!found);
}

TEMPLATE_TEST_CASE("a schedule in a storm is the same schedule when it is run again", "",
                   trial::Epoll, trial::Poll) {
    const std::uint64_t seeds = seeds_wanted() / 10;
    const std::uint64_t first = from_environment("REACTOR_SIM_FIRST", 1);
    std::size_t different = 0;
    for (std::uint64_t seed = first; seed - first < seeds; ++seed) {
        const auto one = sim::replay(seed, sim::Weather::storm(), trial::scenario<TestType>, 0);
        const auto other = sim::replay(seed, sim::Weather::storm(), trial::scenario<TestType>, 0);
        different += one.hash != other.hash || one.calls != other.calls ? 1U : 0U;
    }
    CHECK(different == 0);
}
