// SPDX-License-Identifier: Apache-2.0
//
// Annex, behind the scenes: what the two sides of an executor say to each other.
//
// What the side of the callbacks wants of the side of the poller is an Order; what that one has to
// tell is a Fired. Both are values, so that they go by a call where the two are one thread, and
// over a channel where they are two. A link is what both sides know of one descriptor; unlike a
// descriptor its id is never used twice, so neither side can take a successor for it.
#pragma once

#include <reactor/io.hpp>
#include <reactor/resource_id.hpp>

#include <system_error>

namespace reactor::inline v0 {
namespace detail {

struct LinkTag;
/// Names a descriptor for as long as somebody awaits it.
using LinkId = Id<LinkTag>;

/// What the callbacks' side wants: to hear of this interest from now on, or of nothing any more.
template <class Fd>
struct Order {
    LinkId link;
    int fd = -1;
    Interest interest;       ///< none: the descriptor leaves the poller
    std::uint32_t round = 0; ///< comes back with what is fired
    Fd to_close;             ///< closed once the descriptor has left
};

/// What the poller's side tells: the link's descriptor is ready, or cannot be watched.
struct Fired {
    LinkId link;
    std::uint32_t round = 0;
    Readiness readiness;
    /// Why it cannot be watched: an error code in its parts, as an empty one costs a call to make.
    const std::error_category* category = nullptr;
    int value = 0;

    void put_cause(std::error_code cause) noexcept {
        category = &cause.category();
        value = cause.value();
    }
    [[nodiscard]] bool has_failed() const noexcept { return category != nullptr; }
    /// Precondition: it has failed.
    [[nodiscard]] std::error_code cause() const noexcept { return {value, *category}; }
};

} // namespace detail
} // namespace reactor::inline v0
