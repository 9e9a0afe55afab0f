// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: calls for time, chance, and what belongs to the process.
//
// Time is the world's, numbers are drawn from its seed, the environment is `world.process`, and a
// signal comes when the scenario raises it (World::raise). There is one thread and one process, so
// what starts, joins or waits for another thread is absent: to use it does not compile.
#pragma once

#include <reactor/sim/calls/gate.hpp>

namespace reactor::inline v0 {
namespace sim {

/// Calls of os::Kernel, as they are in the current World; each contract there holds here.
struct ProcessCalls {
    /// What a call answers.
    using Result = os::Result;

    // -- time and chance --------------------------------------------------------------------------

    /// The world's time, as the weather lets it show. A default Timestamp where there is no world.
    [[nodiscard]] static Timestamp now() noexcept {
        World* const world = World::current();
        if (world == nullptr) {
            return {};
        }
        world->begin(Call::now, -1);
        const Timestamp shown = world->clock();
        world->trace.add(shown, Call::now, -1, 0, {});
        return shown;
    }
    /// Lets the world go on for so long.
    static void sleep(Duration span) {
        detail::answer(Call::sleep, -1, static_cast<std::uint64_t>(span.count()),
                       [&](World& world) {
                           world.wait(span, [] { return std::size_t{0}; });
                           return Result{};
                       });
    }
    /// Drawn from the seed.
    [[nodiscard]] static std::uint64_t random() noexcept {
        World* const world = World::current();
        return world == nullptr ? 0 : world->random.next();
    }

    // -- the process ------------------------------------------------------------------------------

    /// The world is one process: number 1.
    [[nodiscard]] static int process_id() noexcept { return 1; }
    /// Nothing: what memory the simulator holds is no business of the program on trial.
    static void return_memory() noexcept {}
    /// The weather's number of descriptors.
    static Result raise_descriptor_limit() noexcept {
        return detail::answer(Call::raise_limit, -1, 0, [](World& world) {
            return Result{static_cast<long>(world.weather.descriptors), 0};
        });
    }
    /// A variable of `world.process.environment`; null if there is none. Valid until it is changed.
    [[nodiscard]] static const char* environment(const char* name) noexcept {
        const char* text = nullptr;
        detail::answer(Call::environment, -1, 0, [&](World& world) {
            const auto& variables = world.process.environment;
            const auto found = variables.find(name);
            text = found == variables.end() ? nullptr : found->second.c_str();
            return Result{};
        });
        return text;
    }
    /// Takes it out of there.
    static void unset_environment(const char* name) noexcept {
        detail::answer(Call::environment, -1, 1, [&](World& world) {
            world.process.environment.erase(name);
            return Result{};
        });
    }

    // -- signals ----------------------------------------------------------------------------------

    /// From now on World::raise calls the handler where the signal is not held back.
    static Result handle_signal(int signal, void (*handler)(int),
                                struct sigaction& before) noexcept {
        return detail::answer(Call::handle_signal, -1, number(signal), [&](World& world) {
            if (!can_be_held(signal)) {
                return Result{0, EINVAL};
            }
            struct sigaction action {};
            action.sa_handler = handler;
            before = world.process.handle(signal, action);
            return Result{};
        });
    }
    /// Gives the signal back to what had it.
    static void restore_signal(int signal, const struct sigaction& before) noexcept {
        detail::answer(Call::handle_signal, -1, number(signal), [&](World& world) {
            world.process.handle(signal, before);
            return Result{};
        });
    }
    /// Adds a signal to a set; no world is needed.
    static Result add_signal(sigset_t& set, int signal) noexcept {
        return os::Kernel::add_signal(set, signal);
    }
    /// A descriptor that is readable while one of these signals is pending.
    static Result signal_fd(const sigset_t& set) noexcept {
        return detail::answer(Call::signal_fd, -1, 0, [&](World& world) {
            const Result made = detail::made(world, File::Kind::signals);
            if (made.ok()) {
                File& file = *world.find(made.fd());
                file.process = &world.process;
                file.signals = Process::mask_of(set);
            }
            return made;
        });
    }
    /// Holds these back, as far as the world goes; no signal of the real process is touched.
    static void hold_signals(const sigset_t& set, sigset_t& before) noexcept {
        detail::answer(Call::mask_signals, -1, 1, [&](World& world) {
            before = Process::set_of(world.process.held);
            world.process.held |= Process::mask_of(set);
            return Result{};
        });
    }
    /// Lets them in again; what is pending of them is forgotten.
    static void release_signals(const sigset_t& set) noexcept {
        detail::answer(Call::mask_signals, -1, 0, [&](World& world) {
            world.process.forget(Process::mask_of(set));
            world.process.held &= ~Process::mask_of(set);
            return Result{};
        });
    }

  private:
    [[nodiscard]] static std::uint64_t number(int signal) noexcept {
        return static_cast<std::uint64_t>(signal);
    }
    [[nodiscard]] static bool can_be_held(int signal) noexcept {
        sigset_t set;
        sigemptyset(&set);
        return os::Kernel::add_signal(set, signal).ok();
    }
};

} // namespace sim
} // namespace reactor::inline v0
