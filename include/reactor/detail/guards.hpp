// SPDX-License-Identifier: Apache-2.0
//
// Engines, behind the scenes: what a throw from user code leaves behind.
//
// A stage of the loop that calls user code stands under one of these. Left in the ordinary way they
// do nothing; left by a throw they put what was not finished where the next turn finds it. They
// compare ids: the slot may stand empty by then, or have another resource.
#pragma once

#include <reactor/detail/registry.hpp>

namespace reactor::inline v0 {
namespace detail {

/// Left by a throw, it sees to it that the resource has the rest of its share: it is looked at
/// again when the next turn ends, and then asked for what it may still have.
template <class R, Role role>
struct Interrupted {
    explicit Interrupted(Slot<R, role>& of) noexcept : slot(of), id(of.id) {}
    Interrupted(const Interrupted&) = delete;
    Interrupted& operator=(const Interrupted&) = delete;
    ~Interrupted() {
        if (!over && slot.id == id) {
            slot.held_back = true;
        }
    }
    Slot<R, role>& slot;
    ResourceId id;
    bool over = false;
};
/// Left by a throw, it has the resource looked at again when the next turn ends.
template <class R, Role role>
struct Unfinished {
    Unfinished(Registry<R, role>& in, Slot<R, role>& of) noexcept
        : registry(in), slot(of), id(of.id) {}
    Unfinished(const Unfinished&) = delete;
    Unfinished& operator=(const Unfinished&) = delete;
    ~Unfinished() {
        if (!finished && slot.live && slot.id == id) {
            registry.touch(slot);
        }
    }
    Registry<R, role>& registry;
    Slot<R, role>& slot;
    ResourceId id;
    bool finished = false;
};
/// True while its scope lasts, whatever way it is left.
struct Flag {
    explicit Flag(bool& flag) noexcept : flag_(flag) { flag_ = true; }
    Flag(const Flag&) = delete;
    Flag& operator=(const Flag&) = delete;
    ~Flag() { flag_ = false; }
    bool& flag_;
};

} // namespace detail
} // namespace reactor::inline v0
