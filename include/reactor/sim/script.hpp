// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: what a peer shall do, step by step.
//
// A script is written as a chain of words, each of which adds a step behind all others; the Peer
// performs them as time goes on. Where a step leaves something to chance, it is drawn from the
// world's seed when its turn has come.
#pragma once

#include <reactor/time.hpp>

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>

namespace reactor::inline v0 {
namespace sim {

/// One thing that a peer shall do.
struct Step {
    /// What; each is a word of Script.
    enum class Kind : std::uint8_t {
        connect,        ///< to `text`
        listen,         ///< at `text`
        send,           ///< `text`
        send_in_pieces, ///< `text`, with rests of up to `span`
        expect,         ///< `text`
        expect_end,     ///< nothing more
        await,          ///< `count` bytes
        pause,          ///< for `span`
        shut,           ///< half-close
        close,          ///< as close(2)
        reset,          ///< as close(2) with SO_LINGER zero
        vanish,         ///< without a word
        end_somehow,    ///< one of these four
        read_slowly,    ///< `count` bytes every `span`
    };
    Kind kind;             ///< what
    std::string text{};    ///< an address, or bytes
    std::size_t count = 0; ///< of bytes
    Duration span{};       ///< how long
    bool begun = false;    ///< by the peer, once it has started with it
};

/// The words of a script; each returns the one who shall do it (`Self`, which derives from this).
template <class Self>
class Script {
  public:
    /// Connects; the next step comes when it is connected. Refused or given up: a failure, unless
    /// it may fail (see may_fail).
    Self& connect(std::string_view address) { return add({Step::Kind::connect, text(address)}); }
    /// Waits at this address for one who connects.
    Self& listen(std::string_view address) { return add({Step::Kind::listen, text(address)}); }
    /// Sends all of it, as fast as the other end takes it.
    Self& send(std::string_view bytes) { return add({Step::Kind::send, text(bytes)}); }
    /// Sends all of it in random pieces, with random rests of up to `longest_rest` between them.
    Self& send_in_pieces(std::string_view bytes, Duration longest_rest) {
        return add({Step::Kind::send_in_pieces, text(bytes), 0, longest_rest});
    }
    /// What comes next is this, byte for byte.
    Self& expect(std::string_view bytes) { return add({Step::Kind::expect, text(bytes)}); }
    /// The other end has nothing more to say, and had said no more than was expected.
    Self& expect_end() { return add({Step::Kind::expect_end}); }
    /// Waits until so many bytes have come in all, whatever they are.
    Self& await(std::size_t bytes) { return add({Step::Kind::await, {}, bytes}); }
    /// Waits for so long; it reads on meanwhile.
    Self& pause(Duration span) { return add({Step::Kind::pause, {}, 0, span}); }
    /// Half-close: sends no more, and listens on.
    Self& shut() { return add({Step::Kind::shut}); }
    /// Closes; with something unread this resets, as it does in Linux.
    Self& close() { return add({Step::Kind::close}); }
    /// Resets the connection.
    Self& reset() { return add({Step::Kind::reset}); }
    /// Is gone without a word, as behind a cable that was pulled.
    Self& vanish() { return add({Step::Kind::vanish}); }
    /// Closes, half-closes, resets or vanishes, as chance has it.
    Self& end_somehow() { return add({Step::Kind::end_somehow}); }
    /// From now on it takes so many bytes at a time, with such a rest between; none: it does not
    /// read any more.
    Self& read_slowly(std::size_t bytes, Duration every) {
        return add({Step::Kind::read_slowly, {}, bytes, every});
    }
    /// From now on it does not read any more.
    Self& stop_reading() { return read_slowly(0, Duration::zero()); }

    /// Whether nothing is left to do.
    [[nodiscard]] bool is_done() const noexcept { return steps_.empty(); }

  protected:
    Script() = default;
    ~Script() = default;

    /// Still to be done; the first is the present one.
    std::deque<Step> steps_; // NOLINT: the peer's own

  private:
    [[nodiscard]] static std::string text(std::string_view from) { return std::string(from); }
    Self& add(Step&& step) {
        steps_.push_back(std::move(step));
        Self& self = static_cast<Self&>(*this);
        self.wake();
        return self;
    }
};

} // namespace sim
} // namespace reactor::inline v0
