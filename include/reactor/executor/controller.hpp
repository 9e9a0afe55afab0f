// SPDX-License-Identifier: Apache-2.0
//
// Annex: the only thing of an executor that another thread may hold.
//
// An ExecutorController posts callbacks into the executor's thread, over the channel of its
// runtime, and ends its run. All copies share the channel and may be used on any thread; they
// outlive the executor, and then say `closed`. A callback that is not accepted comes back with the
// answer; one that was accepted runs once, or is destroyed when the run ends before its turn came.
// Not for a forked child.
#pragma once

#include <reactor/controller.hpp>
#include <reactor/executor/order.hpp>

#include <utility>
#include <variant>

namespace reactor::inline v0 {

namespace detail {
/// What comes over an executor's channel: readiness, from the feeding loop, or a callback.
template <class Callback>
using ExecutorCommand = std::variant<Fired, Callback>;
} // namespace detail

/// Posts callbacks to an executor from any thread. `C`: its callbacks; `Line`: the controller of
/// its runtime.
template <class C, class Line>
class ExecutorController {
  public:
    /// What can be posted: see BasicExecutor::Callback.
    using Callback = C;

    /// Is not connected: says `closed`.
    ExecutorController() noexcept = default;
    /// For executors.
    explicit ExecutorController(Line line) noexcept : line_(std::move(line)) {}

    /// Runs the callback in the executor's thread, in the order in which this thread posts. Given
    /// back when the channel is full (Options::command_queue) or the run has ended. Does not wait.
    SendAnswer<Callback> post(Callback callback) const {
        auto answer = line_.command(detail::ExecutorCommand<Callback>(std::move(callback)));
        if (answer) {
            return SendAnswer<Callback>(answer.status());
        }
        return {answer.status(), std::get<Callback>(*answer.take())};
    }
    /// Ends the run. Never refused.
    void shutdown() const noexcept { line_.shutdown(); }
    /// Ends the present wait, or the next. May be called in a signal handler.
    void wake() const noexcept { line_.wake(); }

  private:
    Line line_;
};

} // namespace reactor::inline v0
