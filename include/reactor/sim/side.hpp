// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: one end of a connection, and what is set on a socket.
//
// A Side is plain state: the Link moves bytes between two of them, the Connection says what a
// program sees of one. Options are kept by the socket, which has them before there is a connection;
// what takes effect is copied to the side.
#pragma once

#include <reactor/net/address.hpp>
#include <reactor/sim/byte_queue.hpp>
#include <reactor/time.hpp>

namespace reactor::inline v0 {
namespace sim {

/// Is told when something changed that readiness depends on.
struct Watcher {
    /// Called in the middle of the change: to take note, not to act.
    virtual void changed() = 0;

  protected:
    ~Watcher() = default;
};

/// What setsockopt(2) has set, as getsockopt(2) tells it. What is accepted inherits it.
struct SocketOptions {
    bool reuse_address = false; ///< SO_REUSEADDR: a port whose holders all say so can be bound
    bool reuse_port = false;    ///< SO_REUSEPORT: listeners share a port
    bool only_ipv6 = false;     ///< IPV6_V6ONLY: no IPv4 clients at an IPv6 listener
    bool no_delay = false;      ///< TCP_NODELAY: nothing is ever held back here; told, no effect
    bool late_port = false;     ///< IP_BIND_ADDRESS_NO_PORT: bind leaves the port to connect
    bool keep_alive = false;    ///< SO_KEEPALIVE: one who vanished is found out
    bool lingers = true;        ///< false: close resets (SO_LINGER with zero)
    int linger = -1;            ///< l_linger as it was set; -1: off
    int keep_idle = 7200;       ///< TCP_KEEPIDLE, in seconds
    int keep_interval = 75;     ///< TCP_KEEPINTVL, in seconds
    int keep_probes = 9;        ///< TCP_KEEPCNT
    int user_timeout = 0;       ///< TCP_USER_TIMEOUT, in milliseconds; zero: two minutes
    int receive_buffer = 0;     ///< SO_RCVBUF; zero: the weather's
    int send_buffer = 0;        ///< SO_SNDBUF; zero: the weather's
};

/// One end of a connection.
struct Side {
    ByteQueue in;             ///< arrived, not read yet
    ByteQueue out;            ///< sent, not taken in by the other side yet
    std::size_t arrived = 0;  ///< the part of `out` that stands before the other's door
    std::size_t in_limit = 0; ///< how much `in` holds
    std::size_t out_limit = 0; ///< how much `out` holds
    Timestamp last_arrival{};  ///< nothing that we send overtakes
    Address name;              ///< as getsockname(2) tells it
    bool established = false;  ///< connected, as this side knows
    bool open = true;          ///< somebody has it; else it was closed
    bool read_ended = false;   ///< the other's FIN was received
    bool write_ended = false;  ///< we shut, or closed
    bool end_arrived = false;  ///< our FIN stands before the other's door
    bool cut = false;          ///< reset, refused, given up: both halves are over
    bool lingers = true;       ///< false: close resets
    int error = 0;             ///< to be told once
    std::uint64_t sent = 0;    ///< bytes that the kernel has taken from us, ever
    std::uint64_t received = 0; ///< bytes that came in, ever
    std::uint64_t changes = 0;  ///< for edges
    Watcher* watcher = nullptr; ///< hears of each change; null: nobody
    /// Without an acknowledgement for so long, the connection is given up.
    Duration gives_up_after = std::chrono::minutes{2};
    /// A peer that vanished is found out after so long; Duration::max(): never.
    Duration finds_out_after = Duration::max();

    /// Something happened that readiness depends on.
    void changed() {
        ++changes;
        if (watcher != nullptr) {
            watcher->changed();
        }
    }
    /// What was set on its socket takes effect.
    void heed(const SocketOptions& options) noexcept {
        using std::chrono::seconds;
        lingers = options.lingers;
        if (options.receive_buffer != 0) {
            in_limit = static_cast<std::size_t>(options.receive_buffer);
        }
        if (options.send_buffer != 0) {
            out_limit = static_cast<std::size_t>(options.send_buffer);
        }
        if (options.user_timeout != 0) {
            gives_up_after = std::chrono::milliseconds{options.user_timeout};
        }
        finds_out_after = options.keep_alive ? Duration{seconds{options.keep_idle}} +
                                                   seconds{options.keep_interval} *
                                                       options.keep_probes
                                             : Duration::max();
    }
};

} // namespace sim
} // namespace reactor::inline v0
