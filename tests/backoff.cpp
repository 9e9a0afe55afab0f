// SPDX-License-Identifier: Apache-2.0
//
// How long to wait before the next attempt: within its step, up to the cap, and never in step with
// others.
#include <reactor/backoff.hpp>

#include <array>
#include <chrono>
#include <limits>
#include <set>
#include <vector>

#include "catch.hpp"

using namespace reactor;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t many_seeds = 2'000;

/// The operating system with a source of numbers that is none.
struct PlainKernel : os::Kernel {
    static inline std::uint64_t number = 0;
    static inline int asked = 0;

    [[nodiscard]] static std::uint64_t random() noexcept {
        ++asked;
        return number;
    }
};

std::vector<Duration> row(Backoff& backoff, std::size_t length) {
    std::vector<Duration> waits;
    for (std::size_t n = 0; n < length; ++n) {
        waits.push_back(backoff.next());
    }
    return waits;
}
std::vector<Duration> row(Backoff&& backoff, std::size_t length) { return row(backoff, length); }

/// Whether each answer lies in the upper half of its step, for many seeds.
void check_steps(const BackoffLimits& limits, const std::vector<Duration>& steps) {
    std::size_t outside = 0;
    for (std::uint64_t seed = 0; seed < many_seeds; ++seed) {
        Backoff backoff(limits, seed);
        for (const Duration step : steps) {
            const Duration wait = backoff.next();
            outside += wait < step / 2 || wait > step ? 1U : 0U;
        }
    }
    CHECK(outside == 0);
}

} // namespace

TEST_CASE("backoff: each wait lies in the upper half of a step that doubles up to the longest") {
    check_steps(
        {}, {100ms, 200ms, 400ms, 800ms, 1600ms, 3200ms, 6400ms, 12800ms, 25600ms, 30s, 30s, 30s});
}

TEST_CASE("backoff: steps grow by the factor that was asked for") {
    check_steps({1s, 100s, 10}, {1s, 10s, 100s, 100s});
    check_steps({1s, 50s, 7}, {1s, 7s, 49s, 50s, 50s});
    check_steps({3ns, 20ns, 3}, {3ns, 9ns, 20ns, 20ns});
}

TEST_CASE("backoff: with a factor of one or none every step is the first") {
    check_steps({1s, 30s, 1}, {1s, 1s, 1s, 1s});
    check_steps({1s, 30s, 0}, {1s, 1s, 1s, 1s});
}

TEST_CASE("backoff: a first step beyond the longest is the longest") {
    check_steps({1min, 1s, 2}, {1s, 1s, 1s});
}

TEST_CASE("backoff: limits of zero or below it wait not at all, and divide by nothing") {
    for (const BackoffLimits& limits :
         {BackoffLimits{0s, 30s, 2}, BackoffLimits{0s, 0s, 0}, BackoffLimits{1s, 0s, 2},
          BackoffLimits{-1s, 30s, 2}, BackoffLimits{-1s, -2s, 2},
          BackoffLimits{Duration::min(), Duration::min(), 2}}) {
        Backoff backoff(limits, 7);
        CHECK(row(backoff, 5) == std::vector<Duration>(5, Duration::zero()));
        CHECK(backoff.attempts() == 5);
    }
}

TEST_CASE("backoff: the smallest step there is does not vanish") {
    std::set<Duration> waits;
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
        waits.insert(Backoff({1ns, 1ns, 2}, seed).next());
    }
    CHECK(waits == std::set<Duration>{0ns, 1ns});
}

TEST_CASE("backoff: the largest limits and endless attempts saturate") {
    constexpr Duration most = Duration::max();
    check_steps({most, most, 2}, {most, most, most});
    check_steps({most / 3, most, 4}, {most / 3, most, most});
    constexpr std::uint32_t large = std::numeric_limits<std::uint32_t>::max();
    check_steps({1ns, most, large}, {1ns, Duration{large}, most, most});
    Backoff backoff({1ns, most, 2}, 3);
    std::size_t outside = 0;
    for (int n = 0; n < 1'000'000; ++n) {
        const Duration step = n < 63 ? Duration{std::int64_t{1} << n} : most;
        const Duration wait = backoff.next();
        outside += wait < step / 2 || wait > step ? 1U : 0U;
    }
    CHECK(outside == 0);
    CHECK(backoff.attempts() == 1'000'000);
}

TEST_CASE("backoff: after a success it begins with the first step again") {
    Backoff backoff({1s, 1h, 10}, 5);
    static_cast<void>(row(backoff, 4));
    CHECK(backoff.attempts() == 4);
    backoff.reset();
    CHECK(backoff.attempts() == 0);
    const Duration first = backoff.next();
    CHECK(first >= 500ms);
    CHECK(first <= 1s);
    const Duration second = backoff.next();
    CHECK(second >= 5s);
    CHECK(second <= 10s);
    CHECK(backoff.attempts() == 2);
}

TEST_CASE("backoff: the same seed gives the same waits, another one others") {
    const std::vector<Duration> waits = row(Backoff({}, 42), 20);
    CHECK(row(Backoff({}, 42), 20) == waits);
    CHECK(row(Backoff({}, 43), 20) != waits);
    Backoff original({}, 42);
    static_cast<void>(row(original, 3));
    Backoff copy = original;
    CHECK(row(copy, 10) == row(original, 10));
}

TEST_CASE("backoff: after a reset the waits are not those of before") {
    Backoff backoff({1s, 1h, 2}, 42);
    const std::vector<Duration> before = row(backoff, 8);
    backoff.reset();
    CHECK(row(backoff, 8) != before);
}

TEST_CASE("backoff: without a seed it asks the kernel for one, once") {
    PlainKernel::number = 42;
    PlainKernel::asked = 0;
    BasicBackoff<PlainKernel> backoff;
    CHECK(PlainKernel::asked == 1);
    Backoff same({}, 42);
    for (int n = 0; n < 10; ++n) {
        CHECK(backoff.next() == same.next());
    }
    CHECK(PlainKernel::asked == 1);
    CHECK(row(Backoff(), 8) != row(Backoff(), 8));
}

TEST_CASE("backoff: waits are spread evenly over the upper half of the step") {
    constexpr std::size_t parts = 10;
    constexpr std::size_t all = 10'000;
    const auto spread = [&](auto wait_of) {
        std::array<std::size_t, parts> counts{};
        for (std::size_t n = 0; n < all; ++n) {
            const Duration above = wait_of(n) - 500ms;
            const auto part = static_cast<std::size_t>(above * parts / 500ms);
            ++counts[std::min(part, parts - 1)];
        }
        return counts;
    };
    // Seeds are fixed, so this is the same in each run.
    Backoff one({1s, 1s, 2}, 1);
    for (const std::size_t count : spread([&](std::size_t) { return one.next(); })) {
        CHECK(count > all / parts * 8 / 10);
        CHECK(count < all / parts * 12 / 10);
    }
    // Of many clients at their first attempt, the seeds of which are neighbours.
    for (const std::size_t count :
         spread([](std::size_t n) { return Backoff({1s, 1s, 2}, n).next(); })) {
        CHECK(count > all / parts * 8 / 10);
        CHECK(count < all / parts * 12 / 10);
    }
}
