// SPDX-License-Identifier: Apache-2.0
//
// Annex, behind the scenes: a descriptor that somebody else reads and writes, as a Resource.
//
// When a Watch is ready, all it yields is that fact. A Resource is asked half by half and not told
// of hang-ups; so a NotingPoller, which stands before the real one, notes what the kernel said
// last, and the Watch it was said of takes the note. What a Watch wants stands in its Cell, where
// others can change it: the Watch itself is the runtime's. All on the loop's thread.
// The road not taken: poll(2) for each event, a system call more to learn what was known.
#pragma once

#include <reactor/executor/order.hpp>
#include <reactor/poller.hpp>
#include <reactor/resource.hpp>

#include <optional>
#include <utility>

namespace reactor::inline v0 {
namespace detail {

/// What the poller reported last, until somebody takes it.
using Note = PollEvent;

/// A Poller that notes what it reports.
template <class P>
class NotingPoller {
  public:
    using Kernel = typename P::Kernel;

    /// `note` outlives the poller.
    NotingPoller(Note& note, P&& poller) noexcept : poller_(std::move(poller)), note_(&note) {}

    [[nodiscard]] Timestamp now() { return poller_.now(); }
    [[nodiscard]] std::error_code watch(int fd, ResourceId id, Interest interest) {
        return poller_.watch(fd, id, interest);
    }
    [[nodiscard]] std::error_code set_interest(int fd, ResourceId id, Interest interest) {
        return poller_.set_interest(fd, id, interest);
    }
    void unwatch(int fd, ResourceId id) { poller_.unwatch(fd, id); }
    [[nodiscard]] std::error_code watch_waker(int fd) { return poller_.watch_waker(fd); }
    [[nodiscard]] PollResult wait(Duration timeout, std::size_t most) {
        *note_ = {};
        return poller_.wait(timeout, most);
    }
    [[nodiscard]] PollEvent event(std::size_t index) const {
        const PollEvent event = poller_.event(index);
        *note_ = event;
        return event;
    }
    [[nodiscard]] int fd() const requires can_be_nested<P> { return poller_.fd(); }
    [[nodiscard]] bool never_waits() const requires tells_that_it_never_waits<P> {
        return poller_.never_waits();
    }
    [[nodiscard]] std::error_code start_afresh() requires can_start_afresh<P> {
        return poller_.start_afresh();
    }

  private:
    P poller_;
    Note* note_;
};

/// What is remembered of one Watch.
template <class Fd>
struct Cell {
    ResourceId id;
    LinkId link; ///< names nothing: it is to leave
    Interest interest;
    std::uint32_t round = 0;
    Fd to_close; ///< closed when it has left
};

/// A descriptor whose readiness is an event in itself.
template <class Fd>
class Watch {
  public:
    using Event = Fired;
    static constexpr bool born_non_blocking = true; // seen to when it was awaited

    Watch(int fd, Cell<Fd>& cell, Note& note) noexcept : fd_(fd), cell_(&cell), note_(&note) {}

    [[nodiscard]] int fd() const noexcept { return fd_; }
    [[nodiscard]] Interest interest() const noexcept { return cell_->interest; }
    /// What was noted of it, once, whichever half is asked.
    std::optional<Event> handle_io(Io) noexcept {
        if (note_->id != cell_->id) {
            return std::nullopt;
        }
        note_->id = {};
        return Fired{cell_->link, cell_->round, note_->readiness};
    }
    [[nodiscard]] Cell<Fd>& cell() const noexcept { return *cell_; }

  private:
    int fd_;
    Cell<Fd>* cell_;
    Note* note_;
};

} // namespace detail
} // namespace reactor::inline v0
