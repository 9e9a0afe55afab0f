// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: one connection, both sides of it and what is on the way between them.
//
// A TCP connection behaves as Linux does where a program can see it (tcp(7), and the kernel facts
// that the differential test checks): what was received is read before any end; an error is told
// once, by whichever of recv, send and SO_ERROR comes first; after a reset both halves are over; a
// close with unread input resets; a write to one who has left succeeds once. A UNIX pair is the
// same with the rules of unix(7): no network between, EPIPE at once.
//
// Bytes go from the sender's `out` over the link, in segments that never overtake each other, to
// the receiver's `in`; what has arrived and finds no room waits for the reader.
#pragma once

#include <reactor/net/address.hpp>
#include <reactor/sim/nature.hpp>

namespace reactor::inline v0 {
namespace sim {

/// Bytes in the order of their coming.
class ByteQueue {
  public:
    [[nodiscard]] bool empty() const noexcept { return begin_ == bytes_.size(); }
    [[nodiscard]] std::size_t size() const noexcept { return bytes_.size() - begin_; }
    [[nodiscard]] std::span<const std::byte> front() const noexcept {
        return std::span(bytes_).subspan(begin_);
    }
    void push(std::span<const std::byte> more) {
        bytes_.insert(bytes_.end(), more.begin(), more.end());
    }
    void pop(std::size_t count) {
        begin_ += count;
        if (begin_ == bytes_.size()) {
            clear();
        } else if (begin_ > 4096 && begin_ * 2 > bytes_.size()) {
            bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(begin_));
            begin_ = 0;
        }
    }
    /// Takes from the front as much as there is and fits; returns how much.
    std::size_t pop_into(std::span<std::byte> into) {
        const std::size_t count = std::min(into.size(), size());
        std::copy_n(front().begin(), count, into.begin());
        pop(count);
        return count;
    }
    void clear() noexcept {
        bytes_.clear();
        begin_ = 0;
    }

  private:
    std::vector<std::byte> bytes_;
    std::size_t begin_ = 0;
};

/// Is told when something changed that readiness depends on.
struct Watcher {
    virtual void changed() = 0;

  protected:
    ~Watcher() = default;
};

/// One end of a connection.
struct Side {
    ByteQueue in;                 ///< arrived, not read yet
    ByteQueue out;                ///< sent, not taken in by the other side yet
    std::size_t arrived = 0;      ///< the part of `out` that stands before the other's door
    std::size_t in_limit = 0;
    std::size_t out_limit = 0;
    Timestamp last_arrival{};     ///< nothing that we send overtakes
    Address name;
    bool established = false;
    bool open = true;             ///< somebody has it; else it was closed
    bool read_ended = false;      ///< the other's FIN was received
    bool write_ended = false;     ///< we shut, or closed
    bool end_arrived = false;     ///< our FIN stands before the other's door
    bool cut = false;             ///< reset, refused, given up: both halves are over
    bool lingers = true;          ///< false: close resets (SO_LINGER zero)
    int error = 0;                ///< to be told once
    std::uint64_t sent = 0;       ///< bytes that the kernel has taken from us, ever
    std::uint64_t changes = 0;    ///< for edges
    Watcher* watcher = nullptr;

    void changed() {
        ++changes;
        if (watcher != nullptr) {
            watcher->changed();
        }
    }
};

/// Two sides and the link between them. Held by whoever has one of them, and by what is on its way.
class Connection : public std::enable_shared_from_this<Connection> {
  public:
    enum class Kind : std::uint8_t { tcp, pair };

    Connection(Nature& nature, Kind kind) : nature_(nature), kind_(kind) {
        for (Side& side : sides_) {
            side.in_limit = nature.weather.receive_buffer;
            side.out_limit = nature.weather.send_buffer;
            side.established = kind == Kind::pair;
        }
    }

    [[nodiscard]] Side& side(int which) noexcept { return sides_[which]; }
    [[nodiscard]] bool is_tcp() const noexcept { return kind_ == Kind::tcp; }
    /// What the kernel calls TCP_CLOSE: there is nothing left of the connection on this side.
    [[nodiscard]] bool is_over(int which) noexcept {
        const Side& me = side(which);
        return me.cut ||
               (is_tcp() && me.read_ended && me.write_ended && other(which).read_ended);
    }

    // -- what a program does with a side ----------------------------------------------------------

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
    /// This side resets the connection.
    void reset(int which) {
        side(which).cut = true;
        arrive(which, [self = shared_from_this(), which] { self->hear_reset(1 - which); });
    }
    /// The kernel of this side gives the connection up; the other hears of a reset.
    void fail(int which, int error) {
        Side& me = side(which);
        if (!me.cut) {
            me.error = error;
            reset(which);
            me.changed();
        }
    }
    /// From now on nothing comes and nothing arrives, and nobody is told.
    void vanish() noexcept { vanished_ = true; }

    /// The bits of poll(2).
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

    /// Does this when something that `from` sends now will have arrived: at once, where nothing
    /// takes time.
    template <class Act>
    void arrive(int from, Act&& act) {
        Side& me = side(from);
        const Timestamp when =
            std::max(me.last_arrival, is_tcp() ? nature_.time() + nature_.latency() : Timestamp{});
        if (when <= nature_.time()) {
            return act();
        }
        me.last_arrival = when;
        nature_.at(when, std::forward<Act>(act));
    }

  private:
    [[nodiscard]] Side& other(int which) noexcept { return sides_[1 - which]; }

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

    /// Sends the last `count` bytes of `out` on their way, in one piece or in several.
    void travel(int which, std::size_t count) {
        while (count > 0) {
            const std::size_t piece = nature_.random.chance(nature_.weather.fragment)
                                          ? nature_.random.between(1, count)
                                          : count;
            count -= piece;
            if (is_tcp() && nature_.weather.bandwidth != 0) {
                Side& me = side(which);
                const auto span = std::chrono::nanoseconds{std::chrono::seconds{1}}.count() *
                                  static_cast<Duration::rep>(piece) /
                                  static_cast<Duration::rep>(nature_.weather.bandwidth);
                me.last_arrival = std::max(me.last_arrival, nature_.time()) + Duration{span};
            }
            arrive(which, [self = shared_from_this(), which, piece] {
                Side& sender = self->side(which);
                // A reset has dropped what was under way.
                sender.arrived = std::min(sender.arrived + piece, sender.out.size());
                self->deliver(which);
            });
        }
    }
    void end_writing(int which) {
        if (std::exchange(side(which).write_ended, true)) {
            return;
        }
        arrive(which, [self = shared_from_this(), which] {
            self->side(which).end_arrived = true;
            self->deliver(which);
        });
        side(which).changed();
    }
    /// What `from` has sent and has arrived goes in, as far as there is room.
    void deliver(int from) {
        Side& sender = side(from);
        Side& reader = other(from);
        if (vanished_) {
            return give_up_later(from);
        }
        if (!reader.open || reader.cut) {
            const bool knocks = sender.arrived > 0 && !reader.open;
            sender.out.pop(std::exchange(sender.arrived, 0));
            if (knocks) {
                arrive(1 - from, [self = shared_from_this(), from] { self->hear_reset(from); });
            } else if (sender.end_arrived && sender.out.empty() && !reader.open) {
                reader.read_ended = true; // nobody looks, but the sender's side is over
            }
            return;
        }
        const std::size_t room =
            is_tcp() ? reader.in_limit - std::min(reader.in_limit, reader.in.size())
                     : sender.arrived;
        if (const std::size_t count = std::min(sender.arrived, room); count > 0) {
            reader.in.push(sender.out.front().first(count));
            sender.out.pop(count);
            sender.arrived -= count;
            reader.changed();
            sender.changed();
        }
        if (sender.end_arrived && sender.out.empty() && !reader.read_ended) {
            reader.read_ended = true;
            reader.changed();
            sender.changed();
        }
    }
    void hear_reset(int which) {
        Side& me = side(which);
        if (vanished_ || is_over(which)) {
            return;
        }
        me.error = me.read_ended ? EPIPE : ECONNRESET;
        me.cut = true;
        me.out.clear();
        me.arrived = 0;
        me.changed();
    }
    /// Nobody acknowledges: after two minutes the kernel gives up.
    void give_up_later(int which) {
        if (!std::exchange(gives_up_[which], true)) {
            nature_.after(std::chrono::minutes{2}, [self = shared_from_this(), which] {
                if (self->side(which).open) {
                    self->fail(which, ETIMEDOUT);
                }
            });
        }
    }

    Nature& nature_;
    Kind kind_;
    bool vanished_ = false;
    bool gives_up_[2] = {};
    Side sides_[2];
};

} // namespace sim
} // namespace reactor::inline v0
