// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: two sides, and what is on its way between them.
//
// Bytes go from the sender's `out` over the link, in segments that never overtake each other, to
// the receiver's `in`; what has arrived and finds no room waits for the reader. A FIN goes behind
// the last byte. How long it takes, and in how many pieces, is the weather's. Two UNIX sockets have
// no network between them: there everything arrives in the call that sends it.
//
// A Link lives as long as anybody holds it: the files of its two sides, and whatever is on its way.
#pragma once

#include <reactor/sim/nature.hpp>
#include <reactor/sim/side.hpp>

namespace reactor::inline v0 {
namespace sim {

/// What joins two sides; which is 0, who connected, or 1. Made by std::make_shared.
class Link : public std::enable_shared_from_this<Link> {
  public:
    /// Over a network, or within the machine.
    enum class Kind : std::uint8_t {
        tcp,         ///< of TCP
        unix_stream, ///< of UNIX sockets
    };

    /// Nobody is connected yet.
    Link(Nature& nature, Kind kind) : nature_(nature), kind_(kind) {
        for (Side& side : sides_) {
            side.in_limit = nature.weather.receive_buffer;
            side.out_limit = nature.weather.send_buffer;
        }
    }
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;

    /// The state of one end.
    [[nodiscard]] Side& side(int which) noexcept { return sides_[which]; }
    /// Whether a network is between the two.
    [[nodiscard]] bool is_tcp() const noexcept { return kind_ == Kind::tcp; }
    /// What the kernel calls TCP_CLOSE: there is nothing left of the connection on this side.
    [[nodiscard]] bool is_over(int which) noexcept {
        const Side& me = side(which);
        return me.cut ||
               (is_tcp() && me.read_ended && me.write_ended && other(which).read_ended);
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
    /// From now on nothing comes and nothing arrives, and nobody is told: the cable is pulled. Who
    /// has sent something, or probes, finds out in time.
    void vanish() {
        if (!std::exchange(vanished_, true)) {
            probe(0);
            probe(1);
        }
    }
    /// Whether the cable is pulled.
    [[nodiscard]] bool has_vanished() const noexcept { return vanished_; }

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

  protected:
    /// The one at the other end.
    [[nodiscard]] Side& other(int which) noexcept { return sides_[1 - which]; }

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
    /// Sends the FIN.
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
            return knock_in_vain(from);
        }
        const std::size_t room =
            is_tcp() ? reader.in_limit - std::min(reader.in_limit, reader.in.size())
                     : sender.arrived;
        if (const std::size_t count = std::min(sender.arrived, room); count > 0) {
            reader.in.push(sender.out.front().first(count));
            reader.received += count;
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

  private:
    /// Nobody is there to take it: what comes after the end is answered with a reset.
    void knock_in_vain(int from) {
        Side& sender = side(from);
        Side& reader = other(from);
        const bool knocks = sender.arrived > 0 && !reader.open;
        sender.out.pop(std::exchange(sender.arrived, 0));
        if (knocks) {
            arrive(1 - from, [self = shared_from_this(), from] { self->hear_reset(from); });
        } else if (sender.end_arrived && sender.out.empty() && !reader.open) {
            reader.read_ended = true; // nobody looks, but the sender's side is over
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
    /// Nobody acknowledges: after its time the kernel gives up.
    void give_up_later(int which) {
        if (!std::exchange(gives_up_[which], true)) {
            time_out_after(side(which).gives_up_after, which);
        }
    }
    /// Nobody answers the probes of a side that sends any.
    void probe(int which) {
        if (side(which).finds_out_after != Duration::max()) {
            time_out_after(side(which).finds_out_after, which);
        }
    }
    void time_out_after(Duration span, int which) {
        nature_.after(span, [self = shared_from_this(), which] {
            if (self->side(which).open) {
                self->fail(which, ETIMEDOUT);
            }
        });
    }

    Nature& nature_;
    Kind kind_;
    bool vanished_ = false;
    bool gives_up_[2] = {};
    Side sides_[2];
};

} // namespace sim
} // namespace reactor::inline v0
