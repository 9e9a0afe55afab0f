// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: calls that set options on a socket and ask for them.
//
// The options that the library knows are kept and told again as Linux does; which of them have an
// effect stands with SocketOptions. Others are unknown here: ENOPROTOOPT. Network devices all
// exist, and to be bound to one changes nothing. TCP_INFO tells what the simulator knows: state,
// round trip, bytes; there are no windows and no losses, so the rest is zero.
#pragma once

#include <reactor/sim/calls/gate.hpp>

namespace reactor::inline v0 {
namespace sim {

/// Calls of os::Kernel, as they are in the current World; each contract there holds here.
struct OptionCalls {
    /// EINVAL: not a value that Linux takes.
    static os::Result set_option(int fd, int level, int name, int value) noexcept {
        return detail::on_socket(
            Call::set_option, fd, key(level, name), [&](World& world, File& file) {
                const int error = set(world, file, level, name, value);
                if (error == 0 && file.connection) {
                    file.side()->heed(file.options);
                }
                return Result{0, error};
            });
    }
    /// SO_LINGER.
    template <class Value>
    static os::Result set_option_to(int fd, int level, int name, const Value& value) noexcept {
        return detail::on_socket(Call::set_option, fd, key(level, name), [&](World&, File& file) {
            if constexpr (std::same_as<Value, ::linger>) {
                if (level == SOL_SOCKET && name == SO_LINGER) {
                    file.options.linger = value.l_onoff == 0 ? -1 : value.l_linger;
                    file.options.lingers = file.options.linger != 0;
                    return Result{};
                }
            }
            return Result{0, ENOPROTOOPT};
        });
    }
    /// SO_BINDTODEVICE; no effect.
    static os::Result set_text_option(int fd, int level, int name, std::string_view) noexcept {
        return detail::on_socket(Call::set_option, fd, key(level, name), [&](World&, File&) {
            return Result{0, level == SOL_SOCKET && name == SO_BINDTODEVICE ? 0 : ENOPROTOOPT};
        });
    }
    /// TCP_INFO, SO_PEERCRED, SO_LINGER.
    template <class Value>
    static os::Result option_into(int fd, int level, int name, Value& value) noexcept {
        return detail::on_socket(
            Call::option, fd, key(level, name), [&](World& world, File& file) {
                if constexpr (std::same_as<Value, os::TcpInfoFields>) {
                    if (level == IPPROTO_TCP && name == TCP_INFO && !file.is_unix()) {
                        inform(world, file, value);
                        return Result{};
                    }
                } else if constexpr (std::same_as<Value, ::linger>) {
                    if (level == SOL_SOCKET && name == SO_LINGER) {
                        const int span = file.options.linger;
                        value = {span < 0 ? 0 : 1, std::max(span, 0)};
                        return Result{};
                    }
                } else if constexpr (std::same_as<Value, ::ucred>) {
                    if (level == SOL_SOCKET && name == SO_PEERCRED) {
                        // The world is one process, of root.
                        const bool known = file.is_unix() && (file.connection || file.backlog);
                        value = known ? ::ucred{1, 0, 0}
                                      : ::ucred{0, static_cast<uid_t>(-1), static_cast<gid_t>(-1)};
                        return Result{};
                    }
                }
                return Result{0, unknown(file, level)};
            });
    }
    /// The options that are numbers; SO_ERROR is told once.
    static os::Result option(int fd, int level, int name) noexcept {
        return detail::on_socket(
            Call::option, fd, key(level, name),
            [&](World& world, File& file) { return get(world, file, level, name); });
    }

  private:
    using Result = os::Result;

    [[nodiscard]] static std::uint64_t key(int level, int name) noexcept {
        return static_cast<std::uint64_t>(level) << 32 | static_cast<std::uint32_t>(name);
    }
    [[nodiscard]] static int unknown(const File& file, int level) noexcept {
        return file.is_unix() && level != SOL_SOCKET ? EOPNOTSUPP : ENOPROTOOPT;
    }
    /// A yes or no of the library's; null if it is none.
    [[nodiscard]] static bool* flag(File& file, int level, int name) noexcept {
        SocketOptions& options = file.options;
        if (level == SOL_SOCKET) {
            return name == SO_REUSEADDR   ? &options.reuse_address
                   : name == SO_REUSEPORT ? &options.reuse_port
                   : name == SO_KEEPALIVE ? &options.keep_alive
                                          : nullptr;
        }
        if (file.is_unix()) {
            return nullptr;
        }
        return level == IPPROTO_TCP && name == TCP_NODELAY            ? &options.no_delay
               : level == IPPROTO_IP && name == IP_BIND_ADDRESS_NO_PORT ? &options.late_port
               : level == IPPROTO_IPV6 && name == IPV6_V6ONLY && file.family == AF_INET6
                   ? &options.only_ipv6
                   : nullptr;
    }
    /// A number of TCP's, and what it may be; null if it is none.
    struct Number {
        int* value = nullptr;
        int least = 0;
        int most = 0;
    };
    [[nodiscard]] static Number number(File& file, int level, int name) noexcept {
        SocketOptions& options = file.options;
        if (level != IPPROTO_TCP || file.is_unix()) {
            return {};
        }
        switch (name) {
        case TCP_KEEPIDLE:
            return {&options.keep_idle, 1, 32767};
        case TCP_KEEPINTVL:
            return {&options.keep_interval, 1, 32767};
        case TCP_KEEPCNT:
            return {&options.keep_probes, 1, 127};
        case TCP_USER_TIMEOUT:
            return {&options.user_timeout, 0, std::numeric_limits<int>::max()};
        default:
            return {};
        }
    }
    /// Returns the errno.
    [[nodiscard]] static int set(World&, File& file, int level, int name, int value) noexcept {
        if (level == SOL_SOCKET && name == SO_REUSEPORT && file.is_unix() && value != 0) {
            return EOPNOTSUPP;
        }
        if (bool* const yes = flag(file, level, name); yes != nullptr) {
            // When it has a port it is too late.
            const bool has_port = file.bound.port() != 0 || file.connection;
            const bool fixed = name == IPV6_V6ONLY && level == IPPROTO_IPV6 && has_port;
            *yes = fixed ? *yes : value != 0;
            return fixed ? EINVAL : 0;
        }
        if (const Number wanted = number(file, level, name); wanted.value != nullptr) {
            const bool fits = value >= wanted.least && value <= wanted.most;
            *wanted.value = fits ? value : *wanted.value;
            return fits ? 0 : EINVAL;
        }
        // The kernel doubles a buffer, for what it needs besides, and has a least one.
        if (level == SOL_SOCKET && name == SO_RCVBUF) {
            file.options.receive_buffer = std::clamp(value, 1152, 1 << 29) * 2;
            return 0;
        }
        if (level == SOL_SOCKET && name == SO_SNDBUF) {
            file.options.send_buffer = std::clamp(value, 2304, 1 << 29) * 2;
            return 0;
        }
        return unknown(file, level);
    }
    [[nodiscard]] static Result get(World& world, File& file, int level, int name) noexcept {
        if (const bool* const yes = flag(file, level, name); yes != nullptr) {
            return {*yes ? 1 : 0, 0};
        }
        if (const Number wanted = number(file, level, name); wanted.value != nullptr) {
            return {*wanted.value, 0};
        }
        if (level != SOL_SOCKET) {
            // IPv4 does not know the questions of IPv6.
            return {0, level == IPPROTO_IPV6 ? EOPNOTSUPP : unknown(file, level)};
        }
        const auto size_or = [](int set, std::size_t otherwise) {
            return Result{set != 0 ? set : static_cast<long>(otherwise), 0};
        };
        switch (name) {
        case SO_ERROR:
            return {file.connection ? std::exchange(file.side()->error, 0) : 0, 0};
        case SO_ACCEPTCONN:
            return {file.backlog ? 1 : 0, 0};
        case SO_DOMAIN:
            return {file.family, 0};
        case SO_TYPE:
            return {SOCK_STREAM, 0};
        case SO_RCVBUF:
            return size_or(file.options.receive_buffer, world.weather.receive_buffer);
        case SO_SNDBUF:
            return size_or(file.options.send_buffer, world.weather.send_buffer);
        default:
            return {0, ENOPROTOOPT};
        }
    }
    static void inform(World& world, const File& file, os::TcpInfoFields& info) noexcept {
        info = {};
        info.kernel.tcpi_state = file.backlog ? TCP_LISTEN : TCP_CLOSE;
        if (!file.connection) {
            return;
        }
        const Side& side = *file.side();
        const Weather& weather = world.weather;
        const Duration round_trip = weather.latency_least + weather.latency_most;
        info.kernel.tcpi_state =
            static_cast<std::uint8_t>(file.connection->state(file.which));
        info.kernel.tcpi_rtt = static_cast<std::uint32_t>(
            std::chrono::duration_cast<std::chrono::microseconds>(round_trip).count());
        info.bytes_acked = side.sent - std::min<std::uint64_t>(side.sent, side.out.size());
        info.bytes_received = side.received;
    }
};

} // namespace sim
} // namespace reactor::inline v0
