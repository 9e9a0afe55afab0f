// SPDX-License-Identifier: Apache-2.0
//
// Engines: the poll(2) demultiplexer.
//
// The registrations stand in our own table, in the order the kernel reads them, with a second one
// that finds a descriptor's place; a wait costs what is watched. It is here for a handful of
// descriptors, for systems that refuse epoll, and to hold EpollPoller to account: the same tests
// run on both. A batch is collected from where the last one ended, so that none starves. The waker
// is level-triggered here, so it is silenced when it rang.
#pragma once

#include <reactor/os/fd.hpp>
#include <reactor/poller.hpp>

#include <algorithm>
#include <vector>

namespace reactor::inline v0 {

/// The portable Poller. One thread.
template <class KernelType = os::Kernel>
class BasicPollPoller {
  public:
    /// As Poller says.
    using Kernel = KernelType;

    /// Needs nothing from the kernel. Throws std::bad_alloc.
    BasicPollPoller() = default;
    /// The same; never fails but by std::bad_alloc.
    explicit BasicPollPoller(std::error_code& error) { error.clear(); }

    /// @{
    /// As Poller says.
    [[nodiscard]] Timestamp now() noexcept { return Kernel::now(); }

    [[nodiscard]] std::error_code watch(int fd, ResourceId id, Interest interest) {
        if (fd < 0) {
            return {EBADF, std::system_category()};
        }
        pollfd probe{fd, 0, 0};
        if (const os::Result probed = Kernel::poll({&probe, 1}, Duration::zero()); !probed.ok()) {
            return probed.code();
        }
        if ((probe.revents & POLLNVAL) != 0) {
            return {EBADF, std::system_category()};
        }
        const auto number = static_cast<std::size_t>(fd);
        if (number >= places_.size()) {
            places_.resize(number + 1, none);
        }
        if (places_[number] != none) {
            return {EEXIST, std::system_category()};
        }
        if (watched_.size() == watched_.capacity()) {
            watched_.reserve(2 * watched_.size() + 8);
        }
        ids_.push_back(id);
        watched_.push_back({fd, events_of(interest), 0});
        places_[number] = static_cast<std::uint32_t>(watched_.size() - 1);
        return {};
    }

    [[nodiscard]] std::error_code set_interest(int fd, ResourceId id, Interest interest) noexcept {
        const std::uint32_t place = place_of(fd, id);
        if (place == none) {
            return {ENOENT, std::system_category()};
        }
        watched_[place].events = events_of(interest);
        return {};
    }

    void unwatch(int fd, ResourceId id) noexcept {
        const std::uint32_t place = place_of(fd, id);
        if (place == none) {
            return;
        }
        places_[static_cast<std::size_t>(fd)] = none;
        if (place + 1 != watched_.size()) {
            watched_[place] = watched_.back();
            ids_[place] = ids_.back();
            places_[static_cast<std::size_t>(watched_[place].fd)] = place;
        }
        watched_.pop_back();
        ids_.pop_back();
    }

    /// Called first, so that the waker's place is 0.
    [[nodiscard]] std::error_code watch_waker(int fd) {
        return watch(fd, ResourceId{}, Interest{true, false});
    }

    [[nodiscard]] PollResult wait(Duration timeout, std::size_t most) {
        most = std::max<std::size_t>(most, 1);
        batch_.clear();
        batch_.reserve(std::min(most, watched_.size()));
        const os::Result polled = Kernel::poll(watched_, std::max(timeout, Duration::zero()));
        std::size_t ready = polled.count();
        const std::size_t count = watched_.size();
        std::size_t place = next_ < count ? next_ : 0;
        for (std::size_t n = 0; n < count && ready > 0 && batch_.size() < most; ++n) {
            if (watched_[place].revents != 0) {
                --ready;
                take(place);
            }
            place = place + 1 == count ? 0 : place + 1;
        }
        next_ = place;
        return {batch_.size(), polled.code()};
    }

    [[nodiscard]] PollEvent event(std::size_t index) const noexcept { return batch_[index]; }
    /// @}

  private:
    static constexpr std::uint32_t none = ~std::uint32_t{0};

    [[nodiscard]] static short events_of(Interest interest) noexcept {
        return static_cast<short>((interest.read ? POLLIN | POLLRDHUP : 0) |
                                  (interest.write ? POLLOUT : 0));
    }
    [[nodiscard]] std::uint32_t place_of(int fd, ResourceId id) const noexcept {
        const auto number = static_cast<std::size_t>(fd);
        if (fd < 0 || number >= places_.size() || places_[number] == none ||
            ids_[places_[number]] != id) {
            return none;
        }
        return places_[number];
    }
    void take(std::size_t place) {
        const auto bits = static_cast<unsigned short>(watched_[place].revents);
        if (!ids_[place]) {
            Kernel::silence(watched_[place].fd);
            return;
        }
        batch_.push_back(
            {ids_[place],
             {(bits & (POLLIN | POLLPRI)) != 0, (bits & POLLOUT) != 0,
              (bits & (POLLHUP | POLLRDHUP)) != 0, (bits & (POLLERR | POLLNVAL)) != 0}});
    }

    std::vector<pollfd> watched_;
    std::vector<ResourceId> ids_;
    std::vector<std::uint32_t> places_;
    std::vector<PollEvent> batch_;
    std::size_t next_ = 0;
};

/// The portable Poller, on the operating system.
using PollPoller = BasicPollPoller<os::Kernel>;

static_assert(Poller<PollPoller>);

} // namespace reactor::inline v0
