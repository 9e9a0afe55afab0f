// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: the production runtime, living in a world.
//
// A sim::Runtime is a reactor::Runtime over the simulated kernel that takes its turns in
// World::run_for and run_until beside all others. Several may share a world: then they share its
// network, and time passes for all. One may also be run by hand, with turn() or run().
#pragma once

#include <reactor/poller/epoll.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/runtime.hpp>
#include <reactor/sim/kernel.hpp>

namespace reactor::inline v0 {
namespace sim {

/// The production poller on the simulated kernel.
using EpollPoller = BasicEpollPoller<Kernel>;

namespace detail {

/// Takes note of what it watches, so that whether it would wait can be seen from outside, as an
/// epoll set's descriptor shows it.
class NotingPollPoller : public BasicPollPoller<Kernel> {
    using Base = BasicPollPoller<Kernel>;

  public:
    using Base::Base;

    [[nodiscard]] std::error_code watch(int fd, ResourceId id, Interest interest) {
        const std::error_code error = Base::watch(fd, id, interest);
        if (!error) {
            watched_.push_back({fd, id, interest});
        }
        return error;
    }
    [[nodiscard]] std::error_code set_interest(int fd, ResourceId id, Interest interest) noexcept {
        const std::error_code error = Base::set_interest(fd, id, interest);
        for (Watched& each : watched_) {
            if (!error && each.fd == fd && each.id == id) {
                each.interest = interest;
            }
        }
        return error;
    }
    void unwatch(int fd, ResourceId id) noexcept {
        Base::unwatch(fd, id);
        std::erase_if(watched_,
                      [&](const Watched& each) { return each.fd == fd && each.id == id; });
    }
    [[nodiscard]] std::error_code watch_waker(int fd) {
        waker_ = fd;
        return Base::watch_waker(fd);
    }
    /// Whether a wait would return at once.
    [[nodiscard]] bool is_ready(World& world) const {
        return shows(world, waker_, {true, false}) ||
               std::any_of(watched_.begin(), watched_.end(), [&](const Watched& each) {
                   return shows(world, each.fd, each.interest);
               });
    }

  private:
    struct Watched {
        int fd;
        ResourceId id;
        Interest interest;
    };
    [[nodiscard]] static bool shows(World& world, int fd, Interest interest) {
        const File* const file = world.find(fd);
        const std::uint32_t wanted = EPOLLERR | EPOLLHUP |
                                     (interest.read ? EPOLLIN | EPOLLRDHUP : 0U) |
                                     (interest.write ? EPOLLOUT : 0U);
        return file == nullptr || (file->readiness() & wanted) != 0;
    }

    std::vector<Watched> watched_;
    int waker_ = -1;
};

} // namespace detail

/// The portable production poller on the simulated kernel.
using PollPoller = detail::NotingPollPoller;

/// A runtime that lives in the world of its thread.
template <class Service, class Poller>
class BasicRuntime final : public reactor::Runtime<Service, Poller>, private Actor {
    using Base = reactor::Runtime<Service, Poller>;

  public:
#ifdef __cpp_exceptions
    /// As reactor::Runtime; the world must be there.
    explicit BasicRuntime(Service service, const Options& options = {})
        : Base(std::move(service), options) {
        settle();
    }
#endif
    /// The same, with the failure as a value; one that failed never has a turn.
    BasicRuntime(Service service, const Options& options, std::error_code& error)
        : Base(std::move(service), options, error) {
        settle();
    }
    ~BasicRuntime() {
        if (lives_) {
            world_->leave(*this);
        }
    }
    /// The world that it lives in.
    [[nodiscard]] World& world() const noexcept { return *world_; }
    /// Whether its run has ended.
    [[nodiscard]] bool has_ended() const noexcept { return !lives_; }

  private:
    void settle() {
        assert(world_ != nullptr && "a sim::Runtime is made within a World");
        world_->enter(*this);
    }
    bool act() override {
        std::error_code error;
        due_ = {}; // should it throw
        const bool goes_on = Base::turn(Duration::max(), error);
        if (error) { // one of its own callbacks lets the world run: the turn around goes on
            world_->fail("a turn was refused: " + error.message());
            return true;
        }
        lives_ = goes_on;
        due_ = saturating_add(world_->time(), Base::until_next());
        return lives_;
    }
    [[nodiscard]] bool is_awake() override {
        if (world_->time() >= due_) {
            return true;
        }
        if constexpr (reactor::detail::can_be_nested<Poller>) {
            const File* const set = world_->find(Base::fd());
            return set != nullptr && set->readiness() != 0;
        } else {
            return Base::poller().is_ready(*world_);
        }
    }
    [[nodiscard]] Timestamp due() const override { return due_; }

    World* world_ = World::current();
    Timestamp due_{};
    bool lives_ = true;
};

/// The loop of one service on the simulated kernel, by epoll.
template <class Service>
using Runtime = BasicRuntime<Service, EpollPoller>;

/// The same by poll.
template <class Service>
using PollRuntime = BasicRuntime<Service, PollPoller>;

static_assert(Poller<EpollPoller>);
static_assert(Poller<PollPoller>);

} // namespace sim
} // namespace reactor::inline v0
