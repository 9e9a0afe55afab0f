// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: a world to run services in, out of a seed.
//
//     sim::World world{seed};
//     sim::Runtime<Chat<sim::Kernel>> runtime{Chat<sim::Kernel>{}};
//     world.run_for(10min);                      // of its time; milliseconds of ours
//
// A World is current on its thread from its construction to its destruction; there is one at a
// time, as a second would make two histories out of one. Whatever uses it (runtimes, sockets,
// peers) is made after it and destroyed before it. Its actors take turns: one that has something to
// do is picked by chance; if nobody has, one waits, and time goes on to whatever is due next. So
// waits, their time-outs and their rounding are those of the production code.
//
// The world, its peers and all descriptors belong to one thread.
#pragma once

#include <reactor/sim/actor.hpp>
#include <reactor/sim/system.hpp>

#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace reactor::inline v0 {
namespace sim {

/// A kernel, a network and a clock, and whoever lives there.
class World : public System {
  public:
    /// The same seed and the same program: the same history.
    explicit World(std::uint64_t seed, const Weather& today = {})
        : System(seed, today), seed_(seed) {
        assert(current() == nullptr && "there is one World a thread at a time");
        current() = this;
    }
    World(const World&) = delete;
    World& operator=(const World&) = delete;
    ~World() { current() = nullptr; }

    /// The world of this thread; null if there is none.
    [[nodiscard]] static World*& current() noexcept {
        static thread_local World* world = nullptr;
        return world;
    }
    /// What it was made of.
    [[nodiscard]] std::uint64_t seed() const noexcept { return seed_; }

    // -- time -------------------------------------------------------------------------------------

    /// Lets everybody live for so long, or until something goes wrong. Throws what a callback of a
    /// service throws; the run can be taken up again then.
    void run_for(Duration span) {
        run_until([] { return false; }, span);
    }
    /// Lets everybody live until the condition holds, which is asked after every turn and whenever
    /// something happened. False: it did not within `limit`, or something has gone wrong. Throws as
    /// run_for does.
    template <class Holds>
    bool run_until(Holds&& holds, Duration limit = std::chrono::hours{24}) {
        Asked<std::remove_reference_t<Holds>> asked(holds);
        return run(asked, saturating_add(time(), limit));
    }

    // -- what went wrong --------------------------------------------------------------------------

    /// Something is not as it should be: the first one counts, and ends the run.
    void fail(std::string what) {
        trace.add(time(), "FAILED: " + what);
        if (failure_.empty()) {
            failure_ = std::move(what);
        }
    }
    /// Empty if nothing went wrong.
    [[nodiscard]] const std::string& failure() const noexcept { return failure_; }
    /// A line for the trace.
    void note(std::string text) { trace.add(time(), std::move(text)); }

    // -- what else may happen ---------------------------------------------------------------------

    /// A signal comes to the process of this world; `record` says what more there is to say of it.
    /// One that nobody holds back, handles or may ignore is a failure: it ends a program.
    void raise(int signal, signalfd_siginfo record = {}) {
        record.ssi_signo = static_cast<std::uint32_t>(signal);
        record.ssi_pid = record.ssi_pid != 0 ? record.ssi_pid : 1;
        note("signal " + std::to_string(signal));
        if (!process.take(record)) {
            fail("signal " + std::to_string(signal) + " would have ended the program");
        }
    }
    /// From now on this one is shown every call, until it is null or another.
    void show_to(Onlooker* onlooker) noexcept { onlooker_ = onlooker; }

    // -- for actors and kernels -------------------------------------------------------------------

    /// From now on it has turns.
    void enter(Actor& actor) { actors_.push_back(&actor); }
    /// It has none any more.
    void leave(Actor& actor) noexcept {
        actors_.erase(std::find(actors_.begin(), actors_.end(), &actor));
    }
    /// Before a call: time passes, and who looks on is shown it.
    void begin(Call call, int fd) {
        if (weather.call_cost != Duration::zero()) {
            pass(weather.call_cost);
            catch_up();
        }
        if (onlooker_ != nullptr && !std::exchange(is_shown_, true)) {
            onlooker_->look(call, fd);
            is_shown_ = false;
        }
    }
    /// Waits until `ready()` yields something, for `span` at most; may end early with nothing.
    template <class Ready>
    std::size_t wait(Duration span, Ready&& ready) {
        constexpr Duration least_cost = std::chrono::microseconds{1};
        pass(least_cost); // or a loop that never sleeps would stop the world
        catch_up();
        const Timestamp until = saturating_add(time(), span);
        for (;;) {
            const std::size_t count = ready();
            if (count != 0 || time() >= until || is_wanted_elsewhere()) {
                return count;
            }
            if (next_due() == Timestamp::max() && until == Timestamp::max() &&
                limit_ == Timestamp::max()) {
                forget_it();
                return 0;
            }
            go_on(std::min({until, limit_, next_turn()}));
        }
    }

  private:
    struct Condition {
        virtual bool holds() = 0;

      protected:
        ~Condition() = default;
    };
    template <class Holds>
    struct Asked final : Condition {
        explicit Asked(Holds& with) : asks(with) {}
        bool holds() override { return asks(); }
        Holds& asks;
    };
    /// For the time of a run.
    struct Running {
        Running(World& of, Condition& until, Timestamp limit) : world(of) {
            world.condition_ = &until;
            world.limit_ = limit;
        }
        Running(const Running&) = delete;
        Running& operator=(const Running&) = delete;
        ~Running() {
            world.condition_ = nullptr;
            world.limit_ = Timestamp::max();
            world.acting_ = nullptr;
        }
        World& world;
    };

    bool run(Condition& condition, Timestamp limit) {
        const Running running(*this, condition, limit);
        while (!condition.holds()) {
            if (time() >= limit || !failure_.empty()) {
                return false;
            }
            acting_ = pick();
            if (acting_ == nullptr) {
                go_on(limit);
            } else if (!acting_->act()) {
                leave(*acting_);
            }
        }
        return true;
    }
    /// One who is awake, by chance; if nobody is, anybody.
    [[nodiscard]] Actor* pick() {
        const std::size_t count = actors_.size();
        if (count == 0) {
            return nullptr;
        }
        const auto from = static_cast<std::size_t>(random.below(count));
        for (std::size_t n = 0; n < count; ++n) {
            Actor* const actor = actors_[(from + n) % count];
            if (actor->is_awake()) {
                return actor;
            }
        }
        return actors_[from];
    }
    /// Whether who waits has to make room: the run is to end, or somebody else is awake.
    [[nodiscard]] bool is_wanted_elsewhere() {
        if (condition_ == nullptr) {
            return false;
        }
        return time() >= limit_ || !failure_.empty() || condition_->holds() ||
               std::any_of(actors_.begin(), actors_.end(), [this](Actor* actor) {
                   return actor != acting_ && actor->is_awake();
               });
    }
    /// When another than who waits will be awake by itself.
    [[nodiscard]] Timestamp next_turn() const {
        Timestamp next = Timestamp::max();
        if (condition_ != nullptr) {
            for (const Actor* const actor : actors_) {
                const Timestamp due = actor == acting_ ? Timestamp::max() : actor->due();
                next = due > time() ? std::min(next, due) : next;
            }
        }
        return next;
    }
    /// Somebody waits for ever for what will never come: then the program would hang.
    void forget_it() {
        if (++hopeless_waits_ > 1000) {
            std::fprintf(stderr,
                         "reactor::sim: nothing will ever happen in the world of seed %llu, and "
                         "somebody waits for it; use World::run_for or run_until\n",
                         static_cast<unsigned long long>(seed_));
            std::abort();
        }
    }

    std::uint64_t seed_;
    std::string failure_;
    std::vector<Actor*> actors_;
    Onlooker* onlooker_ = nullptr;
    bool is_shown_ = false; ///< the onlooker looks just now
    Actor* acting_ = nullptr;
    Condition* condition_ = nullptr;
    Timestamp limit_ = Timestamp::max();
    std::size_t hopeless_waits_ = 0;
};

} // namespace sim
} // namespace reactor::inline v0
