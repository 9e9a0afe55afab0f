// SPDX-License-Identifier: Apache-2.0
//
// The timer wheel alone. First table: nanoseconds an operation at n timers whose deadlines are
// random in 1 to 60 000 ms, best of some rounds; "fresh" is the very first setting, which grows;
// "shuffled" takes the timers in random order, as a server with many clients does, else they are
// taken in the order they were set. Second table: how long one advance takes (CPU time of the
// thread, less that of reading it) while a clock walks by milliseconds over n timers.
#include <reactor/timer_wheel.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <vector>

using namespace reactor;
using namespace std::chrono_literals;

namespace {

constexpr int rounds = 9;
constexpr std::size_t sizes[] = {1'000, 100'000, 1'000'000};

double wall() {
    return static_cast<double>(std::chrono::steady_clock::now().time_since_epoch().count());
}

double cpu() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

struct Best {
    double ns = 1e18;
    template <class Work>
    void operator()(std::size_t operations, Work&& work) {
        const auto begin = wall();
        work();
        ns = std::min(ns, (wall() - begin) / static_cast<double>(operations));
    }
};

void check(bool fine, const char* what) {
    if (!fine) {
        std::fprintf(stderr, "wrong: %s\n", what);
        std::exit(1);
    }
}

std::mt19937_64 source{1};

Duration any_span() {
    return Duration{1ms} * static_cast<int>(1 + source() % 60'000);
}

void operations(std::size_t n) {
    std::vector<TimerId> ids(n), shuffled;
    std::vector<Duration> spans(n);
    const auto draw = [&] { std::generate(spans.begin(), spans.end(), any_span); };
    auto now = Timestamp{} + 1h;
    TimerWheel wheel;
    wheel.advance(now);
    const auto set_all = [&] {
        for (std::size_t i = 0; i < n; ++i) {
            ids[i] = wheel.set(now + spans[i]);
        }
    };
    const auto reset_all = [&](const std::vector<TimerId>& order) {
        for (std::size_t i = 0; i < n; ++i) {
            wheel.reset(order[i], now + spans[i]);
        }
    };
    const auto cancel = [&](const std::vector<TimerId>& order, std::size_t most) {
        for (std::size_t i = 0; i < most; ++i) {
            wheel.cancel(order[i]);
        }
    };
    const auto fire = [&] {
        const auto all = wheel.size();
        std::size_t fired = 0;
        for (int step = 0; step < 100; ++step) {
            wheel.advance(now += 600ms);
            while (wheel.pop_due()) {
                ++fired;
            }
        }
        check(fired == all && wheel.empty(), "the rest fired");
    };
    Best fresh, set, reset, reset_shuffled, cancel_all, cancel_most, fire_rest;
    draw();
    fresh(n, set_all);
    const auto repeats = rounds * std::max<std::size_t>(1, 1'000'000 / n);
    for (std::size_t round = 0; round < repeats; ++round) {
        cancel_all(n, [&] { cancel(ids, n); });
        check(wheel.empty(), "all cancelled");
        draw();
        set(n, set_all);
        draw();
        reset(n, [&] { reset_all(ids); });
        draw();
        shuffled = ids;
        std::shuffle(shuffled.begin(), shuffled.end(), source);
        reset_shuffled(n, [&] { reset_all(shuffled); });
        cancel_most(n * 9 / 10, [&] { cancel(shuffled, n * 9 / 10); });
        fire_rest(n - n * 9 / 10, fire);
        set_all();
    }
    std::printf("%8zu %8.1f %8.1f %8.1f %8.1f %8.1f %8.1f %8.1f\n", n, fresh.ns, set.ns, reset.ns,
                reset_shuffled.ns, cancel_all.ns, cancel_most.ns, fire_rest.ns);
}

/// `again`: what fires is set anew, so that n stay alive.
void advances(std::size_t n, bool again) {
    TimerWheel wheel;
    auto now = Timestamp{} + 1h;
    wheel.advance(now);
    for (std::size_t i = 0; i < n; ++i) {
        wheel.set(now + any_span());
    }
    double reading = 1e18;
    for (int i = 0; i < 1'000; ++i) {
        const auto begin = cpu();
        reading = std::min(reading, cpu() - begin);
    }
    std::vector<double> took;
    double total = 0;
    std::size_t fired = 0;
    for (int step = 0; step < (again ? 120'000 : 60'000); ++step) {
        now += 1ms;
        const auto begin = cpu();
        wheel.advance(now);
        took.push_back(std::max(0.0, cpu() - begin - reading));
        total += took.back();
        while (wheel.pop_due()) {
            ++fired;
            if (again) {
                wheel.set(now + any_span());
            }
        }
    }
    check(again ? wheel.size() == n : wheel.empty(), "all fired");
    std::sort(took.begin(), took.end());
    const auto at = [&](double part) {
        return took[static_cast<std::size_t>(part * static_cast<double>(took.size() - 1))];
    };
    std::printf("%8zu %8s %8.0f %8.0f %8.0f %8.0f %8.1f\n", n, again ? "yes" : "no", at(0.5),
                at(0.99), at(0.999), took.back(), total / static_cast<double>(fired));
}

} // namespace

int main() {
    std::printf("ns an operation\n%8s %8s %8s %8s %8s %8s %8s %8s\n", "n", "fresh", "set", "reset",
                "shuffled", "cancel", "shuffled", "fire");
    for (const auto n : sizes) {
        operations(n);
    }
    std::printf("\nns an advance, in steps of 1 ms (again: what fires is set anew)\n"
                "%8s %8s %8s %8s %8s %8s %8s\n",
                "n", "again", "p50", "p99", "p99.9", "max", "a timer");
    for (const auto n : sizes) {
        advances(n, false);
        advances(n, true);
    }
}
