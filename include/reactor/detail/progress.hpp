// SPDX-License-Identifier: Apache-2.0
//
// Net, behind the scenes: whether a stream gets on.
//
// While bytes move, the stream only adds their number here; once a turn, if it was touched at all,
// the turn's time is put to it, and the marks from which its deadlines count are moved on. The next
// deadline stands ready in one field, for the one lazy timer that a resource has. A deadline that
// is met is no end yet: the loop first tries to read, and only if that brought nothing has the
// stream expired. So a peer is never cut off for what already stands in our own kernel.
#pragma once

#include <reactor/options.hpp>
#include <reactor/time.hpp>

#include <cstddef>
#include <optional>

namespace reactor::inline v0 {
namespace detail {

class Progress {
  public:
    explicit Progress(const StreamDeadlines& deadlines) noexcept : limits_(deadlines) {}

    void add_read(std::size_t bytes) noexcept { read_ += bytes; }
    void add_written(std::size_t bytes) noexcept { written_ += bytes; }

    /// What the stream is about, at the end of a turn.
    struct State {
        bool reads; ///< the loop reads it
        bool owes;  ///< bytes wait to be sent
    };
    /// Moves the marks on. Tells which deadline has passed for good.
    [[nodiscard]] StreamTimeout keep_time(Timestamp now, State state) noexcept {
        advance(now, state);
        read_ = written_ = 0;
        const StreamTimeout which = find_next();
        const bool passed = overdue_ && next_ <= now;
        overdue_ = false;
        return passed ? which : StreamTimeout::none;
    }
    /// The next moment at which one of them passes; Timestamp::max() if none runs.
    [[nodiscard]] Timestamp next() const noexcept { return next_; }
    /// That moment has come: if this turn brings nothing, it has passed.
    void ring() noexcept { overdue_ = true; }

  private:
    /// From when something counts, and how far it has come since.
    struct Mark {
        Timestamp since{};
        std::size_t bytes = 0;
        bool runs = false;

        void run(Timestamp now) noexcept { *this = {now, 0, true}; }
        void stop() noexcept { runs = false; }
        /// Counts what came; with enough of it, from now on again.
        void count(Timestamp now, std::size_t more, std::size_t enough) noexcept {
            bytes += more;
            if (!runs || (more != 0 && bytes >= enough)) {
                run(now);
            }
        }
    };

    void advance(Timestamp now, State state) noexcept {
        // Who is neither read nor owed anything is in the hands of the service.
        if (!state.reads && !state.owes) {
            idle_.stop();
        } else {
            idle_.count(now, read_ + written_, 1);
        }
        if (!state.reads) {
            reading_.stop();
        } else {
            reading_.count(now, read_, limits_.read_bytes);
        }
        if (!state.owes) {
            writing_.stop();
        } else {
            writing_.count(now, written_, limits_.write_bytes);
        }
        if (written_ != 0 && !state.owes) {
            exchange_.stop();
        } else if (read_ != 0 && !exchange_.runs) {
            exchange_.run(now);
        }
    }
    /// Which of them passes next.
    StreamTimeout find_next() noexcept {
        StreamTimeout which = StreamTimeout::none;
        next_ = Timestamp::max();
        const auto look = [&](const Mark& mark, Duration limit, StreamTimeout timeout) {
            if (mark.runs && limit > Duration::zero()) {
                if (const Timestamp at = saturating_add(mark.since, limit); at < next_) {
                    next_ = at;
                    which = timeout;
                }
            }
        };
        look(idle_, limits_.idle, StreamTimeout::idle);
        look(reading_, limits_.read, StreamTimeout::read);
        look(writing_, limits_.write, StreamTimeout::write);
        look(exchange_, limits_.exchange, StreamTimeout::exchange);
        return which;
    }

    StreamDeadlines limits_;
    std::size_t read_ = 0;
    std::size_t written_ = 0;
    Mark idle_;
    Mark reading_;
    Mark writing_;
    Mark exchange_;
    Timestamp next_ = Timestamp::max();
    bool overdue_ = false;
};

} // namespace detail
} // namespace reactor::inline v0
