// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: what belongs to the one process of a world: its environment and signals.
//
// A signal that is held back waits until a signalfd reads it, one of a number at a time (kernel
// fact 13 in the tests); one that has a handler calls it where it is raised; one that has neither
// would have ended the program, unless its default is to be ignored. Nobody raises any but the
// scenario, and only between two calls: a wait that a signal ends early is the weather's.
#pragma once

#include <reactor/os/kernel.hpp>

#include <array>
#include <bitset>
#include <map>
#include <string>
#include <utility>

namespace reactor::inline v0 {
namespace sim {

/// Which signals, by their numbers.
using SignalMask = std::bitset<_NSIG>;

/// The environment and the signals of a world.
class Process {
  public:
    /// The variables that the program finds.
    std::map<std::string, std::string> environment;

    /// What sigset_t says.
    [[nodiscard]] static SignalMask mask_of(const sigset_t& set) noexcept {
        SignalMask mask;
        for (std::size_t n = 1; n < mask.size(); ++n) {
            mask[n] = sigismember(&set, static_cast<int>(n)) == 1;
        }
        return mask;
    }
    /// The same the other way.
    [[nodiscard]] static sigset_t set_of(const SignalMask& mask) noexcept {
        sigset_t set;
        sigemptyset(&set);
        for (std::size_t n = 1; n < mask.size(); ++n) {
            if (mask[n]) {
                sigaddset(&set, static_cast<int>(n));
            }
        }
        return set;
    }

    /// A signal comes. False: nobody is there for it, and the program would have ended.
    [[nodiscard]] bool take(const signalfd_siginfo& record) {
        const auto number = static_cast<std::size_t>(record.ssi_signo);
        if (held[number]) {
            if (!pending_[number]) {
                pending_[number] = true;
                records_[number] = record;
                ++changes;
            }
            return true;
        }
        const struct sigaction& action = actions_[number];
        if (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN) {
            action.sa_handler(static_cast<int>(number));
            return true;
        }
        return action.sa_handler == SIG_IGN || number == SIGCHLD || number == SIGURG ||
               number == SIGWINCH || number == SIGCONT;
    }
    /// Lets another have the signal; returns what had it before.
    struct sigaction handle(int signal, const struct sigaction& action) noexcept {
        return std::exchange(actions_[static_cast<std::size_t>(signal)], action);
    }
    /// Whether one of these waits to be read.
    [[nodiscard]] bool is_pending(const SignalMask& mask) const noexcept {
        return (pending_ & mask).any();
    }
    /// The first of these that waits; it waits no longer. Precondition: is_pending(mask).
    [[nodiscard]] signalfd_siginfo read(const SignalMask& mask) noexcept {
        std::size_t number = 1;
        while (!(pending_[number] && mask[number])) {
            ++number;
        }
        pending_[number] = false;
        return records_[number];
    }
    /// None of these waits any longer.
    void forget(const SignalMask& mask) noexcept { pending_ &= ~mask; }

    SignalMask held{};         ///< held back in the mask of the one thread
    std::uint64_t changes = 0; ///< for edges

  private:
    SignalMask pending_{};
    std::array<signalfd_siginfo, _NSIG> records_{};
    std::array<struct sigaction, _NSIG> actions_{};
};

} // namespace sim
} // namespace reactor::inline v0
