// SPDX-License-Identifier: Apache-2.0
//
// Engines: the epoll demultiplexer (epoll(7)), level-triggered.
//
// The kernel keeps the registrations, with the id in their user data, so a wait costs what is ready
// and nothing is looked up here. What epoll refuses to watch because it is always ready (regular
// files, directories, /dev/null: EPERM) is kept in a list of our own and reported with every wait,
// as poll(2) does. The waker is edge-triggered and never read: its counter only grows.
//
// Level, not edge: a resource that was not read dry is simply reported again, which no budget and
// no throw can lose. The descriptor of the instance is private: closing it ends all registrations.
#pragma once

#include <reactor/os/fd.hpp>
#include <reactor/poller.hpp>

#include <algorithm>
#include <limits>
#include <vector>

namespace reactor::inline v0 {

/// The Poller to use. One thread.
template <class KernelType = os::Kernel>
class BasicEpollPoller {
  public:
    /// As Poller says.
    using Kernel = KernelType;

#ifdef __cpp_exceptions
    /// Throws std::system_error (EMFILE, ENFILE, ENOMEM).
    BasicEpollPoller() {
        std::error_code error;
        *this = BasicEpollPoller(error);
        if (error) {
            throw std::system_error(error, "epoll_create1");
        }
    }
#endif
    /// The same, with the failure as a value.
    explicit BasicEpollPoller(std::error_code& error) noexcept {
        const os::Result epoll = Kernel::epoll_create();
        error = epoll.code();
        if (epoll.ok()) {
            epoll_.reset(epoll.fd());
        }
    }

    /// @{
    /// As Poller says.
    [[nodiscard]] Timestamp now() noexcept { return Kernel::now(); }

    [[nodiscard]] std::error_code watch(int fd, ResourceId id, Interest interest) {
        const os::Result added =
            Kernel::epoll_control(epoll_.get(), EPOLL_CTL_ADD, fd, events_of(interest), id.value());
        if (added.error != EPERM) [[likely]] {
            return added.code();
        }
        if (always_entry(fd) != always_.end()) {
            return {EEXIST, std::system_category()};
        }
        always_.push_back({fd, id, interest});
        return {};
    }

    [[nodiscard]] std::error_code set_interest(int fd, ResourceId id, Interest interest) noexcept {
        if (!always_.empty()) [[unlikely]] {
            if (const auto entry = always_entry(fd); entry != always_.end() && entry->id == id) {
                entry->interest = interest;
                return {};
            }
        }
        return Kernel::epoll_control(epoll_.get(), EPOLL_CTL_MOD, fd, events_of(interest),
                                     id.value())
            .code();
    }

    void unwatch(int fd, ResourceId id) noexcept {
        if (!always_.empty()) [[unlikely]] {
            if (const auto entry = always_entry(fd); entry != always_.end() && entry->id == id) {
                always_.erase(entry);
                return;
            }
        }
        if (!Kernel::epoll_control(epoll_.get(), EPOLL_CTL_DEL, fd, 0, 0).ok()) [[unlikely]] {
            haunted_ = true;
        }
    }

    [[nodiscard]] std::error_code watch_waker(int fd) noexcept {
        waker_ = fd;
        return watch_waker(epoll_.get(), fd);
    }

    [[nodiscard]] PollResult wait(Duration timeout, std::size_t most) {
        most = std::clamp<std::size_t>(most, 1, std::numeric_limits<int>::max());
        if (batch_.size() != most) [[unlikely]] {
            batch_.resize(most);
        }
        std::size_t from_kernel = batch_.size();
        always_ready_.clear();
        if (!always_.empty()) [[unlikely]] {
            timeout = Duration::zero();
            from_kernel -= collect_always_ready(from_kernel);
        }
        const os::Result waited =
            from_kernel > 0 ? wait_for_kernel({batch_.data(), from_kernel}, timeout) : os::Result{};
        from_kernel_ = waited.count();
        return {from_kernel_ + always_ready_.size(), waited.code()};
    }

    [[nodiscard]] PollEvent event(std::size_t index) const noexcept {
        if (index >= from_kernel_) [[unlikely]] {
            return always_ready_[index - from_kernel_];
        }
        const epoll_event& event = batch_[index];
        const std::uint32_t bits = event.events;
        return {ResourceId::from_value(event.data.u64),
                {(bits & (EPOLLIN | EPOLLPRI)) != 0, (bits & EPOLLOUT) != 0,
                 (bits & (EPOLLHUP | EPOLLRDHUP)) != 0, (bits & EPOLLERR) != 0}};
    }
    /// @}

    /// The epoll instance: readable when something is ready.
    [[nodiscard]] int fd() const noexcept { return epoll_.get(); }

    /// Whether the next wait will not wait, although nothing shows at `fd()`.
    [[nodiscard]] bool never_waits() const noexcept { return !always_.empty(); }

    /// A new epoll instance with the waker and nothing else: the way to be rid of what can no
    /// longer be named, because its descriptor was closed behind our back while a duplicate lives.
    /// On an error nothing has changed.
    [[nodiscard]] std::error_code start_afresh() noexcept {
        const os::Result made = Kernel::epoll_create();
        if (!made.ok()) {
            return made.code();
        }
        os::BasicFd<Kernel> epoll(made.fd());
        if (const std::error_code error = watch_waker(epoll.get(), waker_)) {
            return error;
        }
        epoll_ = std::move(epoll);
        always_.clear();
        haunted_ = false;
        return {};
    }
    /// Whether an unwatch failed since: then there may be such a one.
    [[nodiscard]] bool haunted() const noexcept { return haunted_; }

  private:
    struct AlwaysReady {
        int fd;
        ResourceId id;
        Interest interest;
    };

    /// Below this a deadline is near enough for the dearer call that knows nanoseconds.
    static constexpr Duration near = std::chrono::milliseconds{10};

    [[nodiscard]] static std::uint32_t events_of(Interest interest) noexcept {
        return (interest.read ? static_cast<std::uint32_t>(EPOLLIN | EPOLLRDHUP) : 0U) |
               (interest.write ? static_cast<std::uint32_t>(EPOLLOUT) : 0U);
    }

    [[nodiscard]] static std::error_code watch_waker(int epoll, int fd) noexcept {
        return Kernel::epoll_control(epoll, EPOLL_CTL_ADD, fd,
                                     static_cast<std::uint32_t>(EPOLLIN) | EPOLLET, 0)
            .code();
    }
    [[nodiscard]] os::Result wait_for_kernel(std::span<epoll_event> into, Duration timeout) {
        if (timeout > Duration::zero() && timeout < near && precise_) {
            const os::Result waited = Kernel::epoll_wait_precise(epoll_.get(), into, timeout);
            if (waited.error != ENOSYS && waited.error != EPERM) [[likely]] {
                return waited; // EPERM: a filter that is older than the call
            }
            precise_ = false;
        }
        return Kernel::epoll_wait(epoll_.get(), into, milliseconds(timeout));
    }
    [[nodiscard]] static int milliseconds(Duration timeout) noexcept {
        constexpr std::chrono::milliseconds longest{std::numeric_limits<int>::max()};
        if (timeout == Duration::max()) {
            return -1;
        }
        if (timeout >= longest) {
            return std::numeric_limits<int>::max();
        }
        return static_cast<int>(
            std::chrono::ceil<std::chrono::milliseconds>(std::max(timeout, Duration::zero()))
                .count());
    }

    [[nodiscard]] typename std::vector<AlwaysReady>::iterator always_entry(int fd) noexcept {
        return std::find_if(always_.begin(), always_.end(),
                            [fd](const AlwaysReady& entry) { return entry.fd == fd; });
    }
    /// Their share of a batch, the next ones each time: a half, rounded up and down in turn, so
    /// that a batch of one is theirs and the kernel's in turn. Returns how many.
    std::size_t collect_always_ready(std::size_t batch) {
        odd_ = !odd_;
        const std::size_t count = std::min(always_.size(), (batch + (odd_ ? 1 : 0)) / 2);
        for (std::size_t n = 0; n < count; ++n) {
            const AlwaysReady& entry = always_[(next_always_ + n) % always_.size()];
            always_ready_.push_back(
                {entry.id, {entry.interest.read, entry.interest.write, false, false}});
        }
        next_always_ = (next_always_ + count) % always_.size();
        return count;
    }

    os::BasicFd<Kernel> epoll_;
    int waker_ = -1;
    bool precise_ = true;
    bool haunted_ = false;
    std::vector<epoll_event> batch_;
    std::size_t from_kernel_ = 0;
    std::vector<AlwaysReady> always_;
    std::vector<PollEvent> always_ready_;
    std::size_t next_always_ = 0;
    bool odd_ = false;
};

/// The Poller to use, on the operating system.
using EpollPoller = BasicEpollPoller<os::Kernel>;

static_assert(Poller<EpollPoller>);

} // namespace reactor::inline v0
