// SPDX-License-Identifier: Apache-2.0
//
// The runtime under the schedules of tests/sim, with its fortune told by the input: the same
// services, clients, weather and shadow model, but chance is set anew whenever somebody is to have
// a turn. So a byte is a small piece of history that can be kept, moved and combined with others,
// where a seed is all of it at once. When the bytes are used up chance goes on by itself.
//
// First come the poller, the weather, the number of steps and the first seed.
#include <reactor/sim/storm.hpp>

#include "../sim/schedule.hpp"
#include "fuzz.hpp"

using namespace reactor;

namespace {

/// Sits among the runtimes, is asked before each turn whether it wants one, and sets chance then.
class Fortune final : private sim::Actor {
  public:
    Fortune(sim::World& world, fuzz::Tape& tape) : world_(world), tape_(tape) {
        world_.enter(*this);
    }
    Fortune(const Fortune&) = delete;
    Fortune& operator=(const Fortune&) = delete;
    ~Fortune() { world_.leave(*this); }

  private:
    /// Nobody is awake, and chance has picked this one to wait. Who sleeps until a deadline beside
    /// it would not be woken, so it waits in pieces, which grow while nothing is done at all.
    bool act() override {
        const bool is_quiet = std::exchange(calls_, world_.trace.calls()) == world_.trace.calls();
        piece_ = is_quiet ? std::min(2 * piece_, longest) : shortest;
        world_.wait(piece_, [] { return std::size_t{0}; });
        return true;
    }
    [[nodiscard]] bool is_awake() override {
        if (const std::uint8_t byte = tape_.byte(); byte != 0) {
            world_.random = sim::Random(byte);
        }
        return false;
    }

    static constexpr Duration shortest = std::chrono::milliseconds{1};
    static constexpr Duration longest = std::chrono::milliseconds{500};

    sim::World& world_;
    fuzz::Tape& tape_;
    std::uint64_t calls_ = 0;
    Duration piece_ = shortest;
};

sim::Weather weather_of(std::uint8_t byte) {
    sim::Weather weather = byte % 4 == 0   ? sim::Weather{}
                           : byte % 4 == 1 ? sim::Weather::drizzle()
                                           : sim::Weather::storm();
    if (byte % 4 == 3) { // much of everything that is no end
        weather.would_block = weather.no_buffers = weather.spurious = weather.early_wait = 0.2;
        weather.no_descriptors = weather.no_memory = 0.1;
    }
    if ((byte & 4) != 0) {
        weather.latency_most = {};
        weather.call_cost = {};
    }
    if ((byte & 8) != 0) {
        weather.receive_buffer = weather.send_buffer = 512;
    }
    return weather;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Tape tape(data, std::min<std::size_t>(size, 4096));
    const bool by_poll = tape.below(2) != 0;
    const sim::Weather weather = weather_of(tape.byte());
    const std::size_t steps = tape.byte() % 64;
    const auto played = [&](sim::World& world) {
        fuzz::Tape rest = tape; // it may be played twice
        const Fortune fortune(world, rest);
        if (by_poll) {
            trial::Schedule<trial::Poll>(world).run(steps);
        } else {
            trial::Schedule<trial::Epoll>(world).run(steps);
        }
    };
    const std::uint64_t seed = tape.number(2);
    const sim::History history = sim::replay(seed, weather, played, 0);
    if (!history.failure.empty()) {
        std::fputs(sim::replay(seed, weather, played, 200).to_string().c_str(), stderr);
        fuzz::require(false, "what the model says, above");
    }
    return 0;
}
