// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: epoll sets, and what a wait finds ready.
//
// An epoll set names what it watches by descriptor and file: what was closed while a duplicate
// lives goes on being reported and can no longer be named (kernel fact 2 in the tests). Reports
// come in turns, as in Linux, so that a small batch starves nobody (fact 15), or, if the weather
// shuffles, in any order.
#pragma once

#include <reactor/sim/descriptors.hpp>

namespace reactor::inline v0 {
namespace sim {

/// A kernel's state: descriptors, epoll sets, a network, a process. One thread.
class System : public Descriptors {
  public:
    using Descriptors::Descriptors;

    Process process; ///< its environment and its signals

    /// As epoll_ctl(2).
    Result epoll_control(int epoll, int operation, int fd, std::uint32_t events,
                         std::uint64_t data) {
        File* const set = find(epoll);
        File* const file = find(fd);
        if (set == nullptr || file == nullptr) {
            return {0, EBADF};
        }
        if (file->kind == File::Kind::always) {
            return {0, EPERM};
        }
        if (set->kind != File::Kind::epoll || set == file) {
            return {0, EINVAL};
        }
        const auto found =
            std::find_if(set->watches.begin(), set->watches.end(),
                         [&](const Watch& w) { return w.fd == fd && w.file == file; });
        if (operation == EPOLL_CTL_ADD) {
            if (found != set->watches.end()) {
                return {0, EEXIST};
            }
            set->watches.push_back({fd, file, events, data, never});
            file->watched_by.push_back(set);
            return {};
        }
        if (found == set->watches.end()) {
            return {0, ENOENT};
        }
        if (operation == EPOLL_CTL_MOD) {
            *found = {fd, file, events, data, never};
            return {};
        }
        file->watched_by.erase(
            std::find(file->watched_by.begin(), file->watched_by.end(), set));
        set->watches.erase(found);
        return {};
    }
    /// What is ready now in an epoll set: as epoll_wait(2), without a wait.
    std::size_t collect(File& set, std::span<epoll_event> into) {
        std::size_t count = 0;
        const std::size_t watches = set.watches.size();
        std::size_t place = weather.shuffle ? static_cast<std::size_t>(random.below(watches))
                            : set.next_watch < watches ? set.next_watch
                                                       : 0;
        for (std::size_t n = 0; n < watches && count < into.size(); ++n) {
            Watch& watch = set.watches[place];
            std::uint32_t bits = File::ready_bits(watch);
            if (!watch.spent && random.chance(weather.spurious)) {
                bits |= watch.events & (EPOLLIN | EPOLLOUT);
            }
            if (bits != 0) {
                into[count].events = bits;
                into[count].data.u64 = watch.data;
                watch.seen = watch.file->changes();
                watch.spent = (watch.events & EPOLLONESHOT) != 0;
                ++count;
            }
            place = place + 1 == watches ? 0 : place + 1;
        }
        set.next_watch = place;
        if (weather.shuffle) {
            for (std::size_t n = count; n > 1; --n) {
                std::swap(into[n - 1], into[static_cast<std::size_t>(random.below(n))]);
            }
        }
        return count;
    }
    /// As poll(2), without a wait. `honest`: the weather has no say.
    std::size_t collect(std::span<pollfd> fds, bool honest) {
        std::size_t count = 0;
        for (pollfd& each : fds) {
            each.revents = 0;
            if (each.fd < 0) {
                continue;
            }
            const File* const file = find(each.fd);
            constexpr std::uint32_t always_told = EPOLLERR | EPOLLHUP;
            std::uint32_t bits = POLLNVAL;
            if (file != nullptr) {
                const auto wanted = static_cast<std::uint32_t>(
                    static_cast<unsigned short>(each.events));
                bits = file->readiness() & (wanted | always_told);
                if (!honest && random.chance(weather.spurious)) {
                    bits |= wanted & (POLLIN | POLLOUT);
                }
            }
            each.revents = static_cast<short>(bits);
            count += bits != 0 ? 1U : 0U;
        }
        return count;
    }

  private:
    static constexpr std::uint64_t never = ~std::uint64_t{0};
};

} // namespace sim
} // namespace reactor::inline v0
