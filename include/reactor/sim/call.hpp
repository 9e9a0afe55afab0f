// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: the names of what can be asked of the simulated kernel.
//
// A call that is made goes into the world's trace under one of these names, and whoever looks on
// (sim::Onlooker) is told it. Functions that are one call to a reader, as the two sends are, share
// a name. The list only grows at its end: the numbers are part of a history's hash.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace reactor::inline v0 {
namespace sim {

/// @{
/// The calls of a sim::Kernel, by what they do; `note` is a line that a program wrote itself.
enum class Call : std::uint8_t {
    now,
    sleep,
    random,
    close,
    traits,
    set_flag,
    duplicate,
    read,
    recv,
    peek,
    write,
    send,
    socket,
    pair,
    bind,
    connect,
    listen,
    accept,
    shutdown_write,
    name,
    set_option,
    option,
    epoll_create,
    epoll_control,
    epoll_wait,
    poll,
    event_fd,
    ring,
    silence,
    note,
    file_traits,
    set_mode,
    unlink,
    environment,
    handle_signal,
    mask_signals,
    signal_fd,
    raise_limit,
};
/// @}

/// As it stands in a trace.
[[nodiscard]] constexpr std::string_view name_of(Call call) noexcept {
    constexpr std::array<std::string_view, 38> names = {
        "now",         "sleep",         "random",        "close",       "traits",
        "set_flag",    "duplicate",     "read",          "recv",        "peek",
        "write",       "send",          "socket",        "pair",        "bind",
        "connect",     "listen",        "accept",        "shutdown",    "name",
        "set_option",  "option",        "epoll_create",  "epoll_ctl",   "epoll_wait",
        "poll",        "event_fd",      "ring",          "silence",     "--",
        "file_traits", "set_mode",      "unlink",        "environment", "handle_signal",
        "signal_mask", "signal_fd",     "raise_limit",
    };
    static_assert(names.size() == static_cast<std::size_t>(Call::raise_limit) + 1);
    return names[static_cast<std::size_t>(call)];
}

} // namespace sim
} // namespace reactor::inline v0
