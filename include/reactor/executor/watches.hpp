// SPDX-License-Identifier: Apache-2.0
//
// Annex, behind the scenes: the executor's side of the poller.
//
// A Watch is a Resource for a descriptor that somebody else reads and writes: when it is ready, all
// it yields is that fact. A Resource is asked half by half and not told of hang-ups; so a
// NotingPoller, which stands before the real one, notes what the kernel said last, and the Watch it
// was said of takes the note. What a Watch wants stands in its Cell, where Watches can change it;
// cells never move, and go when their Watch has left the runtime. All on the loop's thread.
// The road not taken: poll(2) for each event, a system call more to learn what was known.
#pragma once

#include <reactor/executor/event.hpp>
#include <reactor/poller.hpp>
#include <reactor/resource.hpp>

#include <deque>
#include <optional>
#include <utility>
#include <vector>

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
        *note_ = poller_.event(index);
        return *note_;
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
        const Readiness readiness = std::exchange(*note_, Note{}).readiness;
        return Fired{cell_->link, cell_->round, readiness, {}};
    }
    [[nodiscard]] Cell<Fd>& cell() const noexcept { return *cell_; }

  private:
    int fd_;
    Cell<Fd>* cell_;
    Note* note_;
};

/// Carries out orders, by Actions. Outlives the runtime that it is used with.
template <class Fd>
class Watches {
  public:
    using Watch = detail::Watch<Fd>;
    using Order = detail::Order<Fd>;

    Note note;

    /// False, with nothing done: the actions are full. `served` is the link whose event is being
    /// handled, if any: it is looked at in this turn anyway.
    template <class Actions>
    [[nodiscard]] bool carry_out(Order& order, LinkId served, Actions& actions) {
        Cell<Fd>* const cell = cell_of(order.link);
        if (order.interest.none()) {
            return cell == nullptr || let_go(*cell, order, actions);
        }
        if (cell == nullptr) {
            return begin(order, actions);
        }
        if (order.link != served && !actions.resume(cell->id)) { // to have it looked at
            return false;
        }
        cell->interest = order.interest;
        cell->round = order.round;
        return true;
    }
    /// It is not to fire until it is ordered again. Precondition: it is being served.
    void mute(LinkId link) noexcept {
        if (Cell<Fd>* const cell = cell_of(link)) {
            cell->interest = {};
        }
    }
    /// A Watch has left the runtime; answers with what its link should be told, if that knows
    /// nothing of it.
    std::optional<Fired> left(const Watch& watch, std::error_code error) noexcept {
        Cell<Fd>& cell = watch.cell();
        std::optional<Fired> fired;
        if (cell.link) {
            fired.emplace(Fired{cell.link, cell.round, {}, error});
            cells_of_links_[cell.link.slot()] = nullptr;
        }
        cell = Cell<Fd>{};
        free_.push_back(&cell);
        return fired;
    }

  private:
    [[nodiscard]] Cell<Fd>* cell_of(LinkId link) noexcept {
        Cell<Fd>* const cell =
            link && link.slot() < cells_of_links_.size() ? cells_of_links_[link.slot()] : nullptr;
        return cell != nullptr && cell->link == link ? cell : nullptr;
    }
    template <class Actions>
    bool begin(Order& order, Actions& actions) {
        if (order.link.slot() >= cells_of_links_.size()) {
            cells_of_links_.resize(order.link.slot() + 1);
        }
        if (free_.empty()) {
            if (cells_.size() == free_.capacity()) {
                free_.reserve(2 * cells_.size() + 8); // so that giving back allocates nothing
            }
            free_.push_back(&cells_.emplace_back());
        }
        Cell<Fd>& cell = *free_.back();
        const ResourceId id = actions.register_listener(Watch(order.fd, cell, note));
        if (!id) {
            return false;
        }
        free_.pop_back();
        cell.id = id;
        cell.link = order.link;
        cell.interest = order.interest;
        cell.round = order.round;
        cells_of_links_[order.link.slot()] = &cell;
        return true;
    }
    template <class Actions>
    bool let_go(Cell<Fd>& cell, Order& order, Actions& actions) {
        if (!actions.unregister_listener(cell.id)) {
            return false;
        }
        cell.to_close = std::move(order.to_close);
        cell.interest = {};
        cells_of_links_[order.link.slot()] = nullptr;
        cell.link = {};
        return true;
    }

    std::deque<Cell<Fd>> cells_;
    std::vector<Cell<Fd>*> free_;
    std::vector<Cell<Fd>*> cells_of_links_;
};

} // namespace detail
} // namespace reactor::inline v0
