// SPDX-License-Identifier: Apache-2.0
//
// Annex, the testing kit: a poller that plays the kernel's part from a script.
//
// A test reports readiness, the next wait tells it; the clock stands still until the test moves it.
// So a Runtime runs whole, turn by turn, with no descriptor that has to exist and no time that
// passes. Nothing here sleeps. What the runtime asks for is kept as a list of calls, to be looked
// at. A poller is moved into its runtime; `runtime.poller()` is the way back to it.
//
//     Runtime<Service, testing::FakePoller> runtime{Service{}};
//     runtime.poller().report(fd, {.read = true});
//     runtime.turn(Duration::zero());
//
// The one real thing is the runtime's waker, an eventfd that nobody watches here.
#pragma once

#include <reactor/os/kernel.hpp>
#include <reactor/poller.hpp>

#include <algorithm>
#include <cassert>
#include <vector>

namespace reactor::inline v0 {
namespace testing {

/// One call that a FakePoller has had.
struct PollerCall {
    /// Which function was called.
    enum class Kind : std::uint8_t { watch, set_interest, unwatch, watch_waker, wait };

    Kind kind = Kind::wait; ///< which decides what of the rest is set
    int fd = -1;            ///< of all but wait
    ResourceId id{};        ///< of watch, set_interest, unwatch
    Interest interest{};    ///< of watch, set_interest
    Duration timeout{};     ///< of wait

    /// The same call with the same arguments.
    friend bool operator==(const PollerCall&, const PollerCall&) noexcept = default;
};

/// A Poller for tests: scripted readiness and a clock driven by hand. One thread.
class FakePoller {
  public:
    /// As Poller says; the clock is not taken from there.
    using Kernel = os::Kernel;

    // -- the script -------------------------------------------------------------------------------

    /// A wait will report this, of whatever id, watched or not: so a late report can be played.
    void report(ResourceId id, Readiness readiness) {
        current().reports.push_back({{id, readiness}, -1});
    }
    /// The same for who is watched under `fd` when the wait comes; if nobody is, nobody hears of
    /// it.
    void report(int fd, Readiness readiness) { current().reports.push_back({{{}, readiness}, fd}); }
    /// What is reported from here on is told by the wait after the one before.
    void next_batch() { script_.emplace_back(); }
    /// A wait of its own, behind what is reported so far, will fail with this.
    void fail_next_wait(std::error_code error) {
        if (!current().reports.empty()) {
            next_batch();
        }
        current().failure = error;
        next_batch();
    }
    /// The next watch of `fd` will fail with this.
    void refuse_watch(int fd, std::error_code error) {
        refusals_.push_back({PollerCall::Kind::watch, fd, error});
    }
    /// The next set_interest of `fd` will fail with this.
    void refuse_interest(int fd, std::error_code error) {
        refusals_.push_back({PollerCall::Kind::set_interest, fd, error});
    }

    /// Moves the clock; backwards too, though no monotonic clock would.
    void advance(Duration span) noexcept { now_ = saturating_add(now_, span); }
    /// Sets the clock.
    void set_now(Timestamp now) noexcept { now_ = now; }
    /// Whether a wait that has nothing to report lets its timeout pass at once: then the clock
    /// jumps from deadline to deadline. Off at first. A wait without end passes no time.
    void jump_to_deadline(bool on) noexcept { jumps_ = on; }

    // -- what was asked ---------------------------------------------------------------------------

    /// Every call in order; the first `most_calls` since `forget_calls()`.
    [[nodiscard]] const std::vector<PollerCall>& calls() const noexcept { return calls_; }
    /// Forgets the calls so far.
    void forget_calls() noexcept { calls_.clear(); }
    /// How many calls are remembered; further ones are only performed.
    static constexpr std::size_t most_calls = 100'000;

    /// How many waits there were, in all.
    [[nodiscard]] std::size_t waits() const noexcept { return waits_; }
    /// The timeout of the last wait.
    [[nodiscard]] Duration last_timeout() const noexcept { return last_timeout_; }
    /// Whether what was scripted has all been told.
    [[nodiscard]] bool is_done() const noexcept {
        return std::all_of(script_.begin(), script_.end(), [](const Batch& batch) {
            return batch.reports.empty() && !batch.failure;
        });
    }
    /// Whether `id` is watched now.
    [[nodiscard]] bool is_watched(ResourceId id) const noexcept { return find(id) != nullptr; }
    /// What `id` is watched for; none if it is not watched.
    [[nodiscard]] Interest interest_of(ResourceId id) const noexcept {
        const Watched* const watched = find(id);
        return watched == nullptr ? Interest{} : watched->interest;
    }
    /// Who is watched under `fd`; names nothing if nobody is.
    [[nodiscard]] ResourceId id_of(int fd) const noexcept {
        const auto watched = std::find_if(watched_.begin(), watched_.end(),
                                          [fd](const Watched& w) { return w.fd == fd; });
        return watched == watched_.end() ? ResourceId{} : watched->id;
    }
    /// How many are watched, the waker not counted.
    [[nodiscard]] std::size_t watched() const noexcept { return watched_.size(); }

    // -- Poller -----------------------------------------------------------------------------------

    /// @{
    /// As Poller says, of the script and the clock driven by hand.
    [[nodiscard]] Timestamp now() noexcept { return now_; }

    [[nodiscard]] std::error_code watch(int fd, ResourceId id, Interest interest) {
        assert(!interest.none());
        note({PollerCall::Kind::watch, fd, id, interest});
        if (const std::error_code refusal = take_refusal(PollerCall::Kind::watch, fd)) {
            return refusal;
        }
        if (fd < 0 || id_of(fd)) {
            return {fd < 0 ? EBADF : EEXIST, std::system_category()};
        }
        watched_.push_back({fd, id, interest});
        return {};
    }
    [[nodiscard]] std::error_code set_interest(int fd, ResourceId id, Interest interest) {
        assert(!interest.none());
        note({PollerCall::Kind::set_interest, fd, id, interest});
        if (const std::error_code refusal = take_refusal(PollerCall::Kind::set_interest, fd)) {
            return refusal;
        }
        for (Watched& watched : watched_) {
            if (watched.fd == fd && watched.id == id) {
                watched.interest = interest;
                return {};
            }
        }
        return {ENOENT, std::system_category()};
    }
    void unwatch(int fd, ResourceId id) noexcept {
        note({PollerCall::Kind::unwatch, fd, id});
        std::erase_if(watched_, [&](const Watched& w) { return w.fd == fd && w.id == id; });
    }
    [[nodiscard]] std::error_code watch_waker(int fd) {
        note({PollerCall::Kind::watch_waker, fd});
        return {};
    }
    [[nodiscard]] PollResult wait(Duration timeout, std::size_t most) {
        note({PollerCall::Kind::wait, -1, {}, {}, timeout});
        ++waits_;
        last_timeout_ = timeout;
        batch_.clear();
        if (script_.empty()) {
            pass(timeout);
            return {};
        }
        Batch& next = script_.front();
        const std::error_code failure = next.failure;
        std::size_t told = 0;
        for (; told < next.reports.size() && batch_.size() < most; ++told) {
            const Report& report = next.reports[told];
            const ResourceId id = report.fd < 0 ? report.event.id : id_of(report.fd);
            if (report.fd < 0 || id) {
                batch_.push_back({id, report.event.readiness});
            }
        }
        next.reports.erase(next.reports.begin(),
                           next.reports.begin() + static_cast<std::ptrdiff_t>(told));
        if (next.reports.empty()) {
            script_.erase(script_.begin());
        }
        if (batch_.empty() && !failure) {
            pass(timeout);
        }
        return {batch_.size(), failure};
    }
    [[nodiscard]] PollEvent event(std::size_t index) const noexcept { return batch_[index]; }
    /// @}

  private:
    struct Watched {
        int fd;
        ResourceId id;
        Interest interest;
    };
    struct Report {
        PollEvent event;
        int fd; ///< -1: the event has its id
    };
    /// What one wait will answer.
    struct Batch {
        std::vector<Report> reports;
        std::error_code failure;
    };

    struct Refusal {
        PollerCall::Kind of;
        int fd;
        std::error_code error;
    };

    [[nodiscard]] Batch& current() {
        if (script_.empty()) {
            script_.emplace_back();
        }
        return script_.back();
    }
    void note(const PollerCall& call) {
        if (calls_.size() < most_calls) {
            calls_.push_back(call);
        }
    }
    void pass(Duration timeout) noexcept {
        if (jumps_ && timeout != Duration::max()) {
            advance(timeout);
        }
    }
    [[nodiscard]] std::error_code take_refusal(PollerCall::Kind of, int fd) noexcept {
        const auto refusal =
            std::find_if(refusals_.begin(), refusals_.end(),
                         [&](const Refusal& known) { return known.of == of && known.fd == fd; });
        if (refusal == refusals_.end()) {
            return {};
        }
        const std::error_code error = refusal->error;
        refusals_.erase(refusal);
        return error;
    }
    [[nodiscard]] const Watched* find(ResourceId id) const noexcept {
        const auto watched = std::find_if(watched_.begin(), watched_.end(),
                                          [id](const Watched& w) { return w.id == id; });
        return watched == watched_.end() ? nullptr : &*watched;
    }

    Timestamp now_{};
    bool jumps_ = false;
    std::vector<Batch> script_;
    std::vector<PollEvent> batch_;
    std::vector<Watched> watched_;
    std::vector<Refusal> refusals_;
    std::vector<PollerCall> calls_;
    std::size_t waits_ = 0;
    Duration last_timeout_{};
};

static_assert(Poller<FakePoller>);

} // namespace testing
} // namespace reactor::inline v0
