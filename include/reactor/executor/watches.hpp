// SPDX-License-Identifier: Apache-2.0
//
// Annex, behind the scenes: the executor's side of the poller.
//
// Watches carry out orders: one registers a Watch for a descriptor, changes what it wants, or lets
// it go, by the Actions of the loop's service, so that all of it is done when the callback has
// returned. Each has a Cell, found by its link; cells never move, and go when their Watch has left
// the runtime, and only then is a descriptor closed that was to be closed. On the loop's thread.
#pragma once

#include <reactor/executor/watch.hpp>

#include <deque>
#include <vector>

namespace reactor::inline v0 {
namespace detail {

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
            fired.emplace(Fired{cell.link, cell.round, {}}).put_cause(error);
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
