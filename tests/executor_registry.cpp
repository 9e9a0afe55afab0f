// SPDX-License-Identifier: Apache-2.0
//
// The tables behind an executor, without a loop: the poller's side is played by a map that does
// what it is ordered, and callbacks that ask for anything at random.
#include "catch.hpp"

#include <reactor/detail/callback.hpp>
#include <reactor/executor/registry.hpp>

#include <map>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <vector>

namespace {

using namespace reactor;

/// Notes what is closed.
struct ClosingKernel {
    static inline std::multiset<int> closed;

    static void close(int fd) noexcept { closed.insert(fd); }
};
using TestFd = os::BasicFd<ClosingKernel>;
using Callback = detail::Callback<void(Readiness)>;
using TestRegistry = Registry<Callback, TestFd>;
using detail::LinkId;

/// The poller's side.
struct Poller {
    struct Watched {
        int fd;
        Interest interest;
        std::uint32_t round;
    };

    explicit Poller(bool disarming) : disarms(disarming) {}

    void carry_out(TestRegistry& registry) {
        while (auto order = registry.next_order()) {
            ++orders;
            if (order->interest.none()) {
                in_vain += watched.erase(order->link) == 0 && left.count(order->link) == 0 ? 1 : 0;
            } else {
                watched[order->link] = {order->fd, order->interest, order->round};
            }
        }
    }
    /// What is watched of this descriptor; nothing if it is not watched as one.
    std::optional<Interest> interest(int fd) const {
        std::optional<Interest> found;
        for (const auto& [link, each] : watched) {
            if (each.fd == fd && found) {
                return std::nullopt;
            }
            found = each.fd == fd ? each.interest : found;
        }
        return found.value_or(Interest{});
    }

    bool disarms;
    std::map<LinkId, Watched> watched;
    std::set<LinkId> left; ///< unasked
    int orders = 0;
    int in_vain = 0;
};

constexpr int first_fd = 3;
constexpr int last_fd = 9;

/// Asks a registry for anything.
class Asker {
  public:
    Asker(TestRegistry& of, std::uint64_t seed) : registry_(of), random_(seed) {}

    int any(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }
    int any_fd() { return first_fd + any(last_fd - first_fd + 1); }
    Callback callback() {
        return Callback([this](Readiness) {
            for (int n = any(3); n > 0; --n) {
                ask();
            }
            if (any(20) == 0) {
                throw std::runtime_error("a callback");
            }
        });
    }
    void ask() {
        const int fd = any_fd();
        switch (any(10)) {
        case 0:
        case 1:
        case 2:
        case 3:
            return await(fd);
        case 4:
        case 5:
            return cancel();
        case 6:
            if (!events_.empty()) {
                registry_.replace(events_[static_cast<std::size_t>(
                                      any(static_cast<int>(events_.size())))], callback());
            }
            return;
        case 7: // nobody else opens descriptors here, so one that is not owned is free
            if (TestFd mine(fd); owned.count(fd) == 0 && registry_.interest(fd).none() &&
                                 registry_.adopt(std::move(mine))) {
                owned.insert(fd);
            } else {
                static_cast<void>(mine.release());
            }
            return;
        case 8:
            if (owned.count(fd) != 0) {
                owned.erase(fd);
                returned += registry_.forget(fd).release() == fd ? 0 : 1;
            } else {
                returned += registry_.forget(fd).get() < 0 ? 0 : 1;
            }
            return;
        default:
            returned += registry_.close(fd) == (owned.count(fd) != 0) ? 0 : 1;
            closing += owned.erase(fd);
        }
    }

    /// What is awaited of this descriptor, by what was asked for.
    Interest awaited_of(int fd) {
        Interest all;
        for (const auto& [id, event] : asked_) {
            if (event.fd == fd && registry_.awaits(id)) {
                all.read = all.read || event.interest.read;
                all.write = all.write || event.interest.write;
            }
        }
        return all;
    }

    std::set<int> owned;
    std::size_t closing = 0; ///< what has to be closed by now, or soon
    int returned = 0;        ///< answers that were wrong
    int reused = 0;          ///< ids that came twice

  private:
    void await(int fd) {
        const int half = any(3);
        const Event event{fd, {half != 1, half != 0}};
        const Awaited awaited =
            registry_.await(event, any(2) == 0 ? Times::once : Times::keep, callback());
        if (awaited) {
            reused += asked_.emplace(awaited.id, event).second ? 0 : 1;
            events_.push_back(awaited.id);
        }
    }
    void cancel() {
        if (!events_.empty()) {
            const auto at = static_cast<std::size_t>(any(static_cast<int>(events_.size())));
            registry_.cancel(events_[at]);
            events_.erase(events_.begin() + static_cast<std::ptrdiff_t>(at));
        }
    }

    TestRegistry& registry_;
    std::mt19937_64 random_;
    std::vector<EventId> events_;
    std::map<EventId, Event> asked_;
};

} // namespace

TEST_CASE("Whatever callbacks ask for, the poller's side is told what is awaited and nothing else") {
    const bool disarms = GENERATE(false, true);
    std::uint64_t seed_that_fails = 0;
    std::size_t fired = 0;
    for (std::uint64_t seed = 1; seed <= 200 && seed_that_fails == 0; ++seed) {
        ClosingKernel::closed.clear();
        bool agreed = true;
        std::size_t owned = 0;
        std::size_t closing = 0;
        {
            TestRegistry registry(5, disarms);
            Poller poller(disarms);
            Asker asker(registry, seed);
            for (int step = 0; step < 200 && agreed; ++step) {
                asker.ask();
                if (!poller.watched.empty() && asker.any(2) == 0) {
                    auto at = poller.watched.begin();
                    std::advance(at, asker.any(static_cast<int>(poller.watched.size())));
                    auto& [link, watched] = *at;
                    detail::Fired fact{link, watched.round,
                                       {asker.any(2) == 0, asker.any(2) == 0, asker.any(8) == 0,
                                        false}};
                    if (disarms) {
                        watched.interest = {}; // it is mute until the next order
                    }
                    if (asker.any(10) == 0) { // it had to leave
                        fact.put_cause(std::make_error_code(std::errc::bad_file_descriptor));
                        poller.left.insert(link);
                        poller.watched.erase(at);
                    }
                    try {
                        registry.fire(fact, [](EventId, Callback& callback, Readiness readiness) {
                            callback(readiness);
                        });
                    } catch (const std::runtime_error&) {
                    }
                    ++fired;
                }
                if (asker.any(3) == 0) {
                    poller.carry_out(registry);
                    for (int fd = first_fd; fd <= last_fd; ++fd) {
                        agreed = agreed && poller.interest(fd) == registry.interest(fd) &&
                                 registry.interest(fd) == asker.awaited_of(fd);
                    }
                    agreed = agreed && !registry.has_orders() && poller.in_vain == 0;
                }
            }
            agreed = agreed && asker.returned == 0 && asker.reused == 0;
            owned = asker.owned.size();
            closing = asker.closing;
        }
        agreed = agreed && ClosingKernel::closed.size() == owned + closing;
        seed_that_fails = agreed ? 0 : seed;
    }
    CHECK(seed_that_fails == 0);
    CHECK(fired > 2000);
}

TEST_CASE("What is awaited anew by its own callback, as it was before, costs no order") {
    TestRegistry registry(5);
    Poller poller(false);
    int runs = 0;
    struct Again {
        TestRegistry* registry;
        int* runs;

        void operator()(Readiness) {
            ++*runs;
            CHECK(registry->await(readable(3), Times::once, Again(*this)));
        }
    };
    REQUIRE(registry.await(readable(3), Times::once, Again{&registry, &runs}));
    poller.carry_out(registry);
    CHECK(poller.orders == 1);
    for (int n = 0; n < 100; ++n) {
        const auto& [link, watched] = *poller.watched.begin();
        registry.fire({link, watched.round, {true, false, false, false}},
                      [](EventId, Callback& callback, Readiness told) { callback(told); });
        CHECK_FALSE(registry.has_orders());
    }
    CHECK(runs == 100);
}

TEST_CASE("A slot whose generations are used up is retired, and what it stood for goes on") {
    TestRegistry registry(5, false, EventId::last_generation - 1);
    Poller poller(false);
    std::set<EventId> events;
    std::set<LinkId> links;
    int runs = 0;
    for (int n = 0; n < 20; ++n) {
        const Awaited awaited =
            registry.await(readable(3), Times::once, Callback([&](Readiness) { ++runs; }));
        REQUIRE(awaited);
        CHECK(events.insert(awaited.id).second);
        poller.carry_out(registry);
        REQUIRE(poller.watched.size() == 1);
        const auto [link, watched] = *poller.watched.begin();
        registry.fire({link, watched.round, {true, false, false, false}},
                      [](EventId, Callback& callback, Readiness told) { callback(told); });
        CHECK(runs == n + 1);
        if (n % 3 == 0) {
            registry.forget(3);
            CHECK(links.insert(link).second);
        }
        CHECK_FALSE(registry.awaits(awaited.id));
        CHECK(registry.add(Times::once, Callback([](Readiness) {})) != awaited.id);
    }
    for (const EventId event : events) {
        CHECK_FALSE(registry.cancel(event));
    }
}

TEST_CASE("What was refused takes up no room") {
    TestRegistry registry(2);
    Poller poller(false);
    const auto nothing = [](Readiness) {};
    for (int fd = 3; fd < 20; ++fd) {
        const auto refuse = [](int) { return std::make_error_code(std::errc::io_error); };
        CHECK(registry.await(readable(fd), Times::once, nothing, refuse).error ==
              std::errc::io_error);
        const Awaited refused = registry.await(Event{fd, {}}, Times::once, nothing);
        CHECK(refused.error == std::errc::invalid_argument);
        poller.carry_out(registry);
    }
    CHECK(registry.await(readable(3), Times::once, nothing));
    CHECK(registry.await(readable(4), Times::once, nothing));
    CHECK(registry.await(readable(5), Times::once, nothing).error == std::errc::no_buffer_space);
    poller.carry_out(registry);
    CHECK(poller.orders == 2);
}

TEST_CASE("What fires too late, or of a link that never was, runs nothing") {
    TestRegistry registry(5, true); // what has fired is not armed any more
    Poller poller(true);
    int runs = 0;
    const auto call = [](EventId, Callback& callback, Readiness told) { callback(told); };
    const auto count = [&](Readiness) { ++runs; };
    REQUIRE(registry.adopt(TestFd(3)));
    REQUIRE(registry.await(readable(3), Times::once, count));
    poller.carry_out(registry);
    REQUIRE(poller.watched.size() == 1);
    const auto [link, watched] = *poller.watched.begin();
    const detail::Fired fact{link, watched.round, {true, false, false, false}};
    registry.fire({LinkId::of(1000, 1), 0, {true, false, false, false}}, call);
    CHECK(runs == 0);
    registry.fire(fact, call);
    CHECK(runs == 1);
    poller.carry_out(registry); // nobody awaits it: the poller lets go, and the registry keeps it
    CHECK(poller.watched.empty());
    registry.fire(fact, call);
    CHECK(runs == 1);
    poller.carry_out(registry);
    CHECK(poller.in_vain == 0);
    CHECK(registry.await(readable(3), Times::once, count));
    poller.carry_out(registry);
    CHECK(poller.watched.size() == 1);
    registry.fire(fact, call); // of the round before
    CHECK(runs == 1);
}

TEST_CASE("A link and an event whose generations are used up are never found again") {
    TestRegistry registry(5, false, EventId::last_generation);
    Poller poller(false);
    int runs = 0;
    const auto count = [&](Readiness) { ++runs; };
    REQUIRE(registry.await(readable(3), Times::keep, count));
    poller.carry_out(registry);
    REQUIRE(poller.watched.size() == 1);
    const auto [link, watched] = *poller.watched.begin();
    registry.forget(3);
    registry.fire({link, watched.round, {true, false, false, false}},
                  [](EventId, Callback& callback, Readiness told) { callback(told); });
    CHECK(runs == 0);

    const EventId first = registry.add(Times::once, count);
    registry.set_timer(first, TimerId::of(1, 1));
    CHECK(registry.timer(first) == TimerId::of(1, 1));
    CHECK(registry.cancel(first));
    const EventId second = registry.add(Times::once, count);
    CHECK(second.slot() != first.slot());
    registry.set_timer(first, TimerId::of(2, 1)); // it is over
    CHECK_FALSE(registry.timer(first));
    CHECK_FALSE(registry.timer(second));
}

TEST_CASE("A descriptor of a number beyond all that can be linked is refused") {
    TestRegistry registry(5);
    const int beyond = 1 << 24;
    CHECK(registry.await(readable(beyond), Times::once, [](Readiness) {}).error ==
          std::errc::no_buffer_space);
    CHECK(registry.interest(beyond).none());
    CHECK_FALSE(registry.has_orders());
}
