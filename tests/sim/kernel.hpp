// SPDX-License-Identifier: Apache-2.0
//
// The simulated kernel with somebody who looks on: before each call others may act, as other
// threads do at any moment, and after it the answer is told. And pollers that can be asked what
// they were told, as the model holds that against what it ought to be.
#pragma once

#include <reactor/net/tcp.hpp>
#include <reactor/poller/epoll.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/sim/kernel.hpp>

#include <algorithm>
#include <utility>
#include <vector>

namespace trial {

using namespace reactor;

/// What is looked at; the rest of the kernel is not.
enum class Call : std::uint8_t { now, recv, send, accept, duplicate, control, wait, shut, close };

/// Looks on at the calls of one world.
struct Onlooker {
    /// A call is about to be made: a moment at which other threads may do something.
    virtual void before(Call call) noexcept = 0;
    /// A call was answered.
    virtual void after(Call call, int fd, os::Result result) noexcept = 0;
    /// A send was answered: so many of its bytes the kernel did not take.
    virtual void kept(int fd, std::size_t bytes) noexcept = 0;
    /// A wait begins that may sleep.
    virtual void sleeps() noexcept = 0;
    /// The clock was read.
    virtual void shown(Timestamp now) noexcept = 0;

  protected:
    ~Onlooker() = default;
};

/// sim::Kernel, looked on at. One onlooker a thread.
struct Kernel : sim::Kernel {
    [[nodiscard]] static Onlooker*& onlooker() noexcept {
        static thread_local Onlooker* one = nullptr;
        return one;
    }

    [[nodiscard]] static Timestamp now() noexcept {
        announce(Call::now);
        const Timestamp shown = sim::Kernel::now();
        if (Onlooker* const one = onlooker()) {
            one->shown(shown);
        }
        return shown;
    }
    static Result recv(int fd, std::span<std::byte> into) noexcept {
        announce(Call::recv);
        return tell(Call::recv, fd, sim::Kernel::recv(fd, into));
    }
    static Result send(int fd, std::span<const std::byte> bytes) noexcept {
        announce(Call::send);
        return tell_send(fd, bytes.size(), sim::Kernel::send(fd, bytes));
    }
    static Result send(int fd, std::span<const iovec> parts) noexcept {
        announce(Call::send);
        std::size_t size = 0;
        for (const iovec& part : parts) {
            size += part.iov_len;
        }
        return tell_send(fd, size, sim::Kernel::send(fd, parts));
    }
    static Result accept(int fd, sockaddr* address, socklen_t* size) noexcept {
        announce(Call::accept);
        return tell(Call::accept, fd, sim::Kernel::accept(fd, address, size));
    }
    static Result duplicate(int fd) noexcept {
        return tell(Call::duplicate, fd, sim::Kernel::duplicate(fd));
    }
    static Result shutdown_write(int fd) noexcept {
        announce(Call::shut);
        return sim::Kernel::shutdown_write(fd);
    }
    static void close(int fd) noexcept {
        announce(Call::close);
        sim::Kernel::close(fd);
        tell(Call::close, fd, {});
    }
    static Result epoll_control(int epoll, int operation, int fd, std::uint32_t events,
                                std::uint64_t data) noexcept {
        announce(Call::control);
        return sim::Kernel::epoll_control(epoll, operation, fd, events, data);
    }
    static Result epoll_wait(int epoll, std::span<epoll_event> into, int milliseconds) {
        return wait_for(milliseconds != 0, [&] {
            return sim::Kernel::epoll_wait(epoll, into, milliseconds);
        });
    }
    static Result epoll_wait_precise(int epoll, std::span<epoll_event> into, Duration timeout) {
        return wait_for(timeout > Duration::zero(), [&] {
            return sim::Kernel::epoll_wait_precise(epoll, into, timeout);
        });
    }
    static Result poll(std::span<pollfd> fds, Duration timeout) {
        return wait_for(timeout > Duration::zero(), [&] {
            return sim::Kernel::poll(fds, timeout);
        });
    }

  private:
    static void announce(Call call) noexcept {
        if (Onlooker* const one = onlooker()) {
            one->before(call);
        }
    }
    static Result tell(Call call, int fd, Result result) noexcept {
        if (Onlooker* const one = onlooker()) {
            one->after(call, fd, result);
        }
        return result;
    }
    static Result tell_send(int fd, std::size_t size, Result result) noexcept {
        if (Onlooker* const one = onlooker()) {
            one->after(Call::send, fd, result);
            one->kept(fd, size - (result.ok() ? result.count() : 0));
        }
        return result;
    }
    template <class Wait>
    static Result wait_for(bool sleeps, Wait&& wait) {
        announce(Call::wait);
        if (Onlooker* const one = onlooker(); one != nullptr && sleeps) {
            one->sleeps();
        }
        const Result result = wait();
        announce(Call::wait);
        return result;
    }
};

using Stream = BasicTcpStream<Kernel>;
using Listener = BasicTcpListener<Kernel>;

/// A production poller that remembers what it was told.
template <class Base>
class Recording : public Base {
  public:
    struct Told {
        int fd;
        ResourceId id;
        Interest interest;
    };

    using Base::Base;

    [[nodiscard]] std::error_code watch(int fd, ResourceId id, Interest interest) {
        const std::error_code error = Base::watch(fd, id, interest);
        if (!error) {
            told_.push_back({fd, id, interest});
        }
        return error;
    }
    [[nodiscard]] std::error_code set_interest(int fd, ResourceId id, Interest interest) noexcept {
        const std::error_code error = Base::set_interest(fd, id, interest);
        for (Told& each : told_) {
            if (!error && each.fd == fd && each.id == id) {
                each.interest = interest;
            }
        }
        return error;
    }
    void unwatch(int fd, ResourceId id) noexcept {
        Base::unwatch(fd, id);
        std::erase_if(told_, [&](const Told& each) { return each.fd == fd && each.id == id; });
    }
    [[nodiscard]] std::error_code watch_waker(int fd) {
        waker_ = fd;
        return Base::watch_waker(fd);
    }
    [[nodiscard]] std::error_code start_afresh() noexcept requires detail::can_start_afresh<Base> {
        const std::error_code error = Base::start_afresh();
        if (!error) {
            told_.clear();
        }
        return error;
    }

    [[nodiscard]] int waker() const noexcept { return waker_; }
    [[nodiscard]] const std::vector<Told>& told() const noexcept { return told_; }
    /// What it was told of this one; nothing if it does not watch it.
    [[nodiscard]] Interest interest_of(ResourceId id) const noexcept {
        const auto found = std::find_if(told_.begin(), told_.end(),
                                        [&](const Told& each) { return each.id == id; });
        return found == told_.end() ? Interest{} : found->interest;
    }
    /// Whether a wait would return at once.
    [[nodiscard]] bool is_ready(sim::World& world) const {
        if constexpr (detail::can_be_nested<Base>) {
            const sim::File* const set = world.find(Base::fd());
            return set != nullptr && set->readiness() != 0;
        } else {
            return shows(world, waker_, {true, false}) ||
                   std::any_of(told_.begin(), told_.end(), [&](const Told& each) {
                       return shows(world, each.fd, each.interest);
                   });
        }
    }
    /// Whether somebody who is asked about now has something for the loop.
    [[nodiscard]] static bool shows(sim::World& world, int fd, Interest interest) {
        const sim::File* const file = world.find(fd);
        const std::uint32_t wanted = EPOLLERR | EPOLLHUP |
                                     (interest.read ? EPOLLIN | EPOLLRDHUP : 0U) |
                                     (interest.write ? EPOLLOUT : 0U);
        return file == nullptr || (file->readiness() & wanted) != 0;
    }

  private:
    std::vector<Told> told_;
    int waker_ = -1;
};

using Epoll = Recording<BasicEpollPoller<Kernel>>;
using Poll = Recording<BasicPollPoller<Kernel>>;

static_assert(Poller<Epoll>);
static_assert(Poller<Poll>);

} // namespace trial
