// SPDX-License-Identifier: Apache-2.0
//
// Net: what can be set on a TCP socket, and what the kernel tells of one (tcp(7), socket(7)).
//
// Every option has a value that leaves it as the system has it, and that is the default but for
// NODELAY. A listener's options are inherited by what it accepts. Spans are rounded up to what the
// kernel counts in: seconds for keep-alive and linger, milliseconds for the user timeout.
#pragma once

#include <reactor/net/address.hpp>
#include <reactor/options.hpp>
#include <reactor/os/kernel.hpp>

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>

namespace reactor::inline v0 {

/// Probes on a connection where nothing moves (SO_KEEPALIVE): a peer that is gone is found out, the
/// connection then ends with timed_out.
struct KeepAlive {
    /// Quiet for this long before the first probe (TCP_KEEPIDLE); zero: no probes.
    Duration idle{};
    /// Between probes (TCP_KEEPINTVL); zero: the system's.
    Duration interval{};
    /// Unanswered probes that end the connection (TCP_KEEPCNT); zero: the system's.
    int probes = 0;
};

/// Of one TCP socket.
struct TcpOptions {
    /// Nagle's algorithm is off (TCP_NODELAY).
    bool no_delay = true;
    /// Probes of a silent connection; none unless asked for.
    KeepAlive keep_alive;
    /// Bytes that the peer does not acknowledge for this long end the connection with timed_out
    /// (TCP_USER_TIMEOUT, RFC 5482); zero: the system's.
    Duration user_timeout{};
    /// What close(2) does with unsent bytes (SO_LINGER): zero resets the connection at once. A span
    /// above zero has no meaning for a non-blocking socket but "in the background".
    std::optional<Duration> linger;
    /// Sizes of the kernel's buffers (SO_RCVBUF, SO_SNDBUF; the kernel doubles them and stops
    /// adapting); zero: the system's. To take part in the window's scale: before the handshake.
    int receive_buffer = 0;
    /// See `receive_buffer`.
    int send_buffer = 0;
};

/// How a connection is made.
struct ConnectOptions {
    /// Set before the handshake.
    TcpOptions tcp;
    /// Where from; empty: as the routes say. With port 0 the kernel chooses a port that is free for
    /// this peer, not for all (IP_BIND_ADDRESS_NO_PORT), so that 64 Ki ports last for each peer.
    Address local;
    /// Only through this network device (SO_BINDTODEVICE); empty: any.
    std::string_view device{};
};

/// How a listener is made.
struct ListenOptions {
    /// Connections that may wait for accept; the kernel cuts it to net.core.somaxconn.
    int backlog = 4096;
    /// May bind although connections of an earlier listener linger (SO_REUSEADDR).
    bool reuse_address = true;
    /// Several listeners share one port, the kernel spreads the clients (SO_REUSEPORT).
    bool reuse_port = false;
    /// An IPv6 address takes no IPv4 clients (true), or takes them as mapped addresses (false: dual
    /// stack); IPV6_V6ONLY. Not set: the system's.
    std::optional<bool> only_ipv6{};
    /// Only clients that come through this network device (SO_BINDTODEVICE); empty: any.
    std::string_view device{};
    /// Inherited by what is accepted.
    TcpOptions tcp{};
    /// Given to each stream that is accepted.
    StreamDeadlines deadlines{};
};

/// A connection as the kernel sees it at one moment (TCP_INFO).
struct TcpInfo {
    /// TCP_ESTABLISHED and so on, see <netinet/tcp.h>.
    int state = 0;
    Duration round_trip{};                ///< smoothed
    Duration round_trip_variation{};      ///< its mean deviation
    Duration least_round_trip{};          ///< the shortest seen of late
    Duration retransmission_timeout{};    ///< after this the kernel sends again
    std::uint32_t congestion_window = 0;  ///< in segments
    std::uint32_t segment_size = 0;       ///< bytes of ours in one segment, at most
    std::uint32_t unacknowledged = 0;     ///< segments under way
    std::uint32_t lost = 0;               ///< of these, taken for lost
    std::uint32_t retransmissions = 0;    ///< since the beginning
    std::uint64_t bytes_acknowledged = 0; ///< of ours
    std::uint64_t bytes_received = 0;     ///< of the peer's
    std::uint64_t bytes_unsent = 0;       ///< in the kernel's buffer, not sent yet
    std::uint64_t delivery_rate = 0;      ///< bytes a second
};

namespace detail {

/// In whole units of the kernel, rounded up, at least one.
template <class Unit>
[[nodiscard]] constexpr int rounded_up(Duration span) noexcept {
    const auto whole = std::chrono::ceil<Unit>(std::clamp(
        span, Duration{1}, Duration{std::chrono::seconds{std::numeric_limits<int>::max() / 1000}}));
    return static_cast<int>(whole.count());
}

/// Sets options one after the other, until one fails.
template <class Kernel>
class OptionSetter {
  public:
    explicit OptionSetter(int fd) noexcept : fd_(fd) {}

    void set(int level, int name, int value) noexcept {
        result = result.ok() ? Kernel::set_option(fd_, level, name, value) : result;
    }
    void set_if(bool wanted, int level, int name, int value) noexcept {
        if (wanted) {
            set(level, name, value);
        }
    }
    void set_device(std::string_view device) noexcept {
        if (result.ok() && !device.empty()) {
            result = Kernel::set_text_option(fd_, SOL_SOCKET, SO_BINDTODEVICE, device);
        }
    }
    void apply(const TcpOptions& options) noexcept {
        const KeepAlive& alive = options.keep_alive;
        const bool probes = alive.idle > Duration::zero();
        set_if(probes, SOL_SOCKET, SO_KEEPALIVE, 1);
        set_if(probes, IPPROTO_TCP, TCP_KEEPIDLE, seconds(alive.idle));
        set_if(probes && alive.interval > Duration::zero(), IPPROTO_TCP, TCP_KEEPINTVL,
               seconds(alive.interval));
        set_if(probes && alive.probes > 0, IPPROTO_TCP, TCP_KEEPCNT, alive.probes);
        set_if(options.user_timeout > Duration::zero(), IPPROTO_TCP, TCP_USER_TIMEOUT,
               rounded_up<std::chrono::milliseconds>(options.user_timeout));
        set_if(options.receive_buffer > 0, SOL_SOCKET, SO_RCVBUF, options.receive_buffer);
        set_if(options.send_buffer > 0, SOL_SOCKET, SO_SNDBUF, options.send_buffer);
        if (options.linger && result.ok()) {
            const Duration span = *options.linger;
            const ::linger value{1, span > Duration::zero() ? seconds(span) : 0};
            result = Kernel::set_option_to(fd_, SOL_SOCKET, SO_LINGER, value);
        }
    }

    os::Result result;

  private:
    [[nodiscard]] static int seconds(Duration span) noexcept {
        return rounded_up<std::chrono::seconds>(span);
    }

    int fd_;
};

template <class Kernel>
[[nodiscard]] os::Result apply(int fd, const TcpOptions& options) noexcept {
    OptionSetter<Kernel> setter(fd);
    setter.set(IPPROTO_TCP, TCP_NODELAY, options.no_delay ? 1 : 0);
    setter.apply(options);
    return setter.result;
}

/// All that a socket needs before connect(2).
template <class Kernel>
[[nodiscard]] os::Result prepare_connect(int fd, const ConnectOptions& options) noexcept {
    OptionSetter<Kernel> setter(fd);
    setter.set_if(options.tcp.no_delay, IPPROTO_TCP, TCP_NODELAY, 1);
    setter.apply(options.tcp);
    setter.set_device(options.device);
    if (!options.local.empty()) {
        setter.set_if(options.local.port() == 0, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
        setter.set_if(options.local.port() != 0, SOL_SOCKET, SO_REUSEADDR, 1);
        if (setter.result.ok()) {
            return Kernel::bind(fd, options.local.data(), options.local.size());
        }
    }
    return setter.result;
}

/// All that a socket needs before listen(2).
template <class Kernel>
[[nodiscard]] os::Result prepare_listen(int fd, const Address& address,
                                        const ListenOptions& options) noexcept {
    OptionSetter<Kernel> setter(fd);
    setter.set_if(options.reuse_address, SOL_SOCKET, SO_REUSEADDR, 1);
    setter.set_if(options.reuse_port, SOL_SOCKET, SO_REUSEPORT, 1);
    if (address.is_ipv6() && options.only_ipv6) {
        setter.set(IPPROTO_IPV6, IPV6_V6ONLY, *options.only_ipv6 ? 1 : 0);
    }
    setter.set_device(options.device);
    setter.set_if(options.tcp.no_delay, IPPROTO_TCP, TCP_NODELAY, 1);
    setter.apply(options.tcp);
    return setter.result.ok() ? Kernel::bind(fd, address.data(), address.size()) : setter.result;
}

template <class Kernel>
[[nodiscard]] TcpInfo tcp_info_of(int fd, std::error_code& error) noexcept {
    os::TcpInfoFields fields{};
    error = Kernel::option_into(fd, IPPROTO_TCP, TCP_INFO, fields).code();
    if (error) {
        return {};
    }
    using std::chrono::microseconds;
    TcpInfo info;
    info.state = fields.kernel.tcpi_state;
    info.round_trip = microseconds{fields.kernel.tcpi_rtt};
    info.round_trip_variation = microseconds{fields.kernel.tcpi_rttvar};
    info.least_round_trip = microseconds{fields.min_rtt};
    info.retransmission_timeout = microseconds{fields.kernel.tcpi_rto};
    info.congestion_window = fields.kernel.tcpi_snd_cwnd;
    info.segment_size = fields.kernel.tcpi_snd_mss;
    info.unacknowledged = fields.kernel.tcpi_unacked;
    info.lost = fields.kernel.tcpi_lost;
    info.retransmissions = fields.kernel.tcpi_total_retrans;
    info.bytes_acknowledged = fields.bytes_acked;
    info.bytes_received = fields.bytes_received;
    info.bytes_unsent = fields.notsent_bytes;
    info.delivery_rate = fields.delivery_rate;
    return info;
}

} // namespace detail
} // namespace reactor::inline v0
