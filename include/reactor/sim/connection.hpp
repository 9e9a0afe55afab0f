// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: what a program sees of one connection.
//
// A TCP connection behaves as Linux does (tcp(7), and the kernel facts that the differential test
// checks): what was received is read before any end; an error is told once, by whichever of recv,
// send and SO_ERROR comes first; after a reset both halves are over; a close with unread input
// resets; a write to one who has left succeeds once. UNIX sockets have the rules of unix(7): no
// network between, EPIPE at once, and an ECONNRESET for who wrote what the other did not read.
#pragma once

#include <reactor/sim/link.hpp>

namespace reactor::inline v0 {
namespace sim {

/// A link, with the rules of the kernel.
class Connection : public Link {
  public:
    using Link::Link;

    /// Both sides are connected from the beginning, as socketpair(2) and a UNIX connect have it.
    void join() noexcept { side(0).established = side(1).established = true; }

    // -- what a program does with a side ----------------------------------------------------------

    /// As send(2): as much as there is room for, else EAGAIN, or the error.
    [[nodiscard]] os::Result send(int which, std::span<const std::byte> bytes) {
        Side& me = side(which);
        if (const int error = send_error(which); error != 0) {
            return {0, error};
        }
        const std::size_t used = is_tcp() ? me.out.size() : other(which).in.size();
        const std::size_t room = me.out_limit - std::min(used, me.out_limit);
        const std::size_t count = std::min(bytes.size(), room);
        if (count == 0) {
            return {0, bytes.empty() ? 0 : EAGAIN};
        }
        me.out.push(bytes.first(count));
        me.sent += count;
        travel(which, count);
        return {static_cast<long>(count), 0};
    }
    /// As recv(2): what came, then the error, once, then the end.
    [[nodiscard]] os::Result recv(int which, std::span<std::byte> into) {
        Side& me = side(which);
        if (!me.in.empty()) {
            const std::size_t count = me.in.pop_into(into);
            deliver(1 - which);
            other(which).changed();
            return {static_cast<long>(count), 0};
        }
        if (is_tcp() && me.read_ended) {
            return {};
        }
        if (me.error != 0) {
            return {0, std::exchange(me.error, 0)};
        }
        return {0, me.read_ended || me.cut ? 0 : EAGAIN};
    }
    /// As shutdown(2) of our half.
    os::Result shutdown_write(int which) {
        Side& me = side(which);
        if (is_tcp() && is_over(which)) {
            me.write_ended = true;
            return {0, ENOTCONN};
        }
        if (!me.established) {
            me.cut = true; // nobody is called any more
            return {};
        }
        end_writing(which);
        return {};
    }
    /// As the last close(2).
    void close(int which) {
        Side& me = side(which);
        me.open = false;
        me.watcher = nullptr;
        if (!is_tcp()) {
            Side& them = other(which);
            them.error = me.in.empty() ? them.error : ECONNRESET;
            them.read_ended = them.write_ended = true;
            them.changed();
        } else if (!me.established) {
            me.cut = true;
        } else if (!me.cut) {
            if (!me.in.empty() || !me.lingers) {
                reset(which);
            } else {
                end_writing(which);
            }
        }
        me.in.clear();
    }

    // -- what the kernel tells of a side ----------------------------------------------------------

    /// The bits of poll(2) that are true now.
    [[nodiscard]] std::uint32_t readiness(int which) noexcept {
        const Side& me = side(which);
        std::uint32_t bits = me.error != 0 ? std::uint32_t{EPOLLERR} : 0;
        const bool no_reading = me.read_ended || me.cut;
        const bool no_writing = me.write_ended || me.cut;
        bits |= no_reading && no_writing ? EPOLLHUP : 0U;
        bits |= no_reading ? EPOLLIN | EPOLLRDHUP : 0U;
        if (!me.established && !me.cut) {
            return bits;
        }
        bits |= me.in.empty() ? 0U : EPOLLIN;
        bits |= can_write(which) ? EPOLLOUT : 0U;
        return bits;
    }
    /// The state of a TCP connection as TCP_INFO names it: TCP_ESTABLISHED and so on.
    [[nodiscard]] int state(int which) noexcept {
        const Side& me = side(which);
        if (is_over(which)) {
            return TCP_CLOSE;
        }
        if (!me.established) {
            return TCP_SYN_SENT;
        }
        if (me.write_ended) {
            const bool is_known = other(which).read_ended; // our FIN is acknowledged
            return me.read_ended ? TCP_LAST_ACK : is_known ? TCP_FIN_WAIT2 : TCP_FIN_WAIT1;
        }
        return me.read_ended ? TCP_CLOSE_WAIT : TCP_ESTABLISHED;
    }

    // -- the handshake ----------------------------------------------------------------------------

    /// The server's side stands in a backlog now; its answer is on its way.
    void answer() {
        side(1).established = true;
        arrive(1, [self = shared_from_this()] {
            Side& client = self->side(0);
            if (client.open && !client.cut) {
                client.established = true;
                client.changed();
            }
        });
    }
    /// There is nobody: the client hears why.
    void refuse(int error) {
        arrive(1, [self = shared_from_this(), error] {
            Side& client = self->side(0);
            if (client.open && !client.cut) {
                client.error = error;
                client.cut = true;
                client.changed();
            }
        });
    }

  private:
    [[nodiscard]] int send_error(int which) noexcept {
        Side& me = side(which);
        if (!is_tcp() && me.write_ended) {
            return EPIPE;
        }
        if (me.error != 0) {
            return std::exchange(me.error, 0);
        }
        if (me.write_ended || me.cut) {
            return EPIPE;
        }
        return me.established ? 0 : EAGAIN;
    }
    [[nodiscard]] bool can_write(int which) noexcept {
        const Side& me = side(which);
        if (!is_tcp()) {
            return other(which).in.size() * 4 <= me.out_limit;
        }
        const std::size_t used = me.out.size();
        return me.write_ended || me.cut || (used < me.out_limit && me.out_limit - used >= used / 2);
    }
};

} // namespace sim
} // namespace reactor::inline v0
