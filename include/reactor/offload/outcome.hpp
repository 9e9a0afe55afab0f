// SPDX-License-Identifier: Apache-2.0
//
// Annex: what became of work that was done elsewhere.
//
// An Outcome is a value or what was thrown instead of it, so that an exception can cross from the
// thread that ran the work to the one that wanted it. It owns its value, and is moved along the
// way: from the pool's thread, over the channel, to the service or the callback.
#pragma once

#include <exception>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

namespace reactor::inline v0 {

/// What became of work: its result, or what it threw; work that returns nothing has std::monostate.
/// Whoever gets it owns it.
template <class T>
class Outcome {
  public:
    /// The result. For whoever runs work, and for tests.
    explicit Outcome(T&& value) : value_(std::move(value)) {}
    /// What was thrown. For the same.
    explicit Outcome(std::exception_ptr thrown) noexcept : thrown_(std::move(thrown)) {}

    /// Whether it has a value.
    [[nodiscard]] explicit operator bool() const noexcept { return value_.has_value(); }
    /// The value; it may be moved from. Precondition: it has one.
    [[nodiscard]] T& value() noexcept { return *value_; }
    /// What the work threw; null if it did not.
    [[nodiscard]] const std::exception_ptr& thrown() const noexcept { return thrown_; }

  private:
    std::optional<T> value_;
    std::exception_ptr thrown_;
};

/// The Outcome of calling this work.
template <class Work>
using OutcomeOf = Outcome<std::conditional_t<std::is_void_v<std::invoke_result_t<Work&>>,
                                             std::monostate,
                                             std::decay_t<std::invoke_result_t<Work&>>>>;

namespace detail {

/// Runs the work; what it throws passes through.
template <class Work>
[[nodiscard]] OutcomeOf<Work> value_of(Work& work) {
    if constexpr (std::is_void_v<std::invoke_result_t<Work&>>) {
        work();
        return OutcomeOf<Work>(std::monostate{});
    } else {
        return OutcomeOf<Work>(work());
    }
}
/// Runs the work; what it throws, or what moving its result throws, is the outcome.
template <class Work>
[[nodiscard]] OutcomeOf<Work> outcome_of(Work& work) {
#ifdef __cpp_exceptions
    try {
        return value_of(work);
    } catch (...) {
        return OutcomeOf<Work>(std::current_exception());
    }
#else
    return value_of(work);
#endif
}

} // namespace detail
} // namespace reactor::inline v0
