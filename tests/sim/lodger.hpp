// SPDX-License-Identifier: Apache-2.0
//
// A runtime that lives in a world and is watched from turn to turn.
//
// Lodging is what a schedule knows of it, whatever its service and its poller are; Lodger is the
// production runtime behind that. What a callback throws ends its turn, and the next one is asked
// for as if nothing had been.
#pragma once

#include "trial.hpp"

#include <reactor/runtime.hpp>
#include <reactor/sim/world.hpp>

#include <optional>

namespace trial {

class Lodging {
  public:
    virtual ~Lodging() = default;

    virtual ResourceId listen(Listener listener) = 0;
    [[nodiscard]] virtual bool has_ended() const = 0;
    [[nodiscard]] virtual Farewell farewell() const = 0;
    /// When it would wake, if nothing happens; nothing if it would not sleep.
    [[nodiscard]] virtual std::optional<Timestamp> rest() = 0;
    [[nodiscard]] virtual Interest interest_of(ResourceId id) = 0;
    /// Whether the kernel knows of each interest what the poller was told.
    [[nodiscard]] virtual bool is_kept_by_kernel() = 0;
};

template <class Service, class PollerType>
class Lodger final : public Runtime<Service, PollerType>, public Lodging, private sim::Actor {
    using Base = Runtime<Service, PollerType>;

  public:
    Lodger(Model& model, House& house)
        : Base(Service(model, house), house.limits), model_(model), house_(house) {
        house.controller = Base::controller();
        house.waker = Base::poller().waker();
        model.world.enter(*this);
    }
    ~Lodger() override {
        if (lives_) {
            model_.world.leave(*this);
        }
    }

    ResourceId listen(Listener listener) override { return Base::listen(std::move(listener)); }
    [[nodiscard]] bool has_ended() const override { return !lives_; }
    [[nodiscard]] Farewell farewell() const override { return Base::farewell(); }
    [[nodiscard]] std::optional<Timestamp> rest() override {
        if (!lives_) {
            return std::nullopt;
        }
        const bool before = std::exchange(model_.is_silent, true);
        const Duration span = Base::until_next();
        model_.is_silent = before;
        plan(span);
        return span == Duration::zero() || Base::poller().is_ready(model_.world)
                   ? std::nullopt
                   : std::optional(due_);
    }
    [[nodiscard]] Interest interest_of(ResourceId id) override {
        return Base::poller().interest_of(id);
    }
    [[nodiscard]] bool is_kept_by_kernel() override {
        if constexpr (detail::can_be_nested<PollerType>) {
            const sim::File* const set = model_.world.find(Base::poller().fd());
            const auto& told = Base::poller().told();
            return set->watches.size() == told.size() + 1 &&
                   std::all_of(told.begin(), told.end(), [&](const auto& each) {
                       return std::any_of(
                           set->watches.begin(), set->watches.end(), [&](const sim::Watch& watch) {
                               return watch.data == each.id.value() && watch.fd == each.fd &&
                                      ((watch.events & EPOLLIN) != 0) == each.interest.read &&
                                      ((watch.events & EPOLLOUT) != 0) == each.interest.write;
                           });
                   });
        }
        return true;
    }

  private:
    bool act() override {
        due_ = {};
        ++house_.acts;
        house_.performed = house_.refusals_told = 0;
        model_.acting = &house_;
        house_.in_turn = false;
        bool thrown = false;
        std::error_code error;
        try {
            lives_ = Base::turn(Duration::max(), error);
        } catch (const Thrown&) {
            thrown = true;
        }
        house_.in_turn = false;
        model_.acting = nullptr;
        if (!thrown && lives_) {
            house_.completed = house_.acts;
        }
        if (error) {
            model_.violated("a turn was refused: " + error.message());
        }
        const Duration span = Base::until_next();
        house_.must_not_sleep = span == Duration::zero();
        model_.hold(!thrown || span == Duration::zero(),
                    "I15: a turn that was thrown out of is not made good at once");
        plan(span);
        return lives_;
    }
    /// Who waits beside it is not to sleep past the moment when it is due.
    void plan(Duration span) {
        due_ = saturating_add(model_.world.time(), span);
        if (model_.houses.size() > 1 && lives_ && due_ != Timestamp::max() && due_ != alarm_) {
            alarm_ = due_;
            model_.world.at(due_, [] {});
        }
    }
    [[nodiscard]] bool is_awake() override {
        return model_.world.time() >= due_ || Base::poller().is_ready(model_.world);
    }

    Model& model_;
    House& house_;
    Timestamp due_{};
    Timestamp alarm_{};
    bool lives_ = true;
};

} // namespace trial
