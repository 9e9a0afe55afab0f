// SPDX-License-Identifier: Apache-2.0
//
// http_upload: the desk, where the service hands in its errands: the only room that knows of
// threads.
//
// A Desk has the directory and a pool. An errand that is handed in is run by some thread of the
// pool, one of a connection at a time, and comes back to the service as a Done, whether it went
// well, badly, or was thrown out of. What the pool has no room for waits here, in order, and is
// tried again whenever an errand has come back, as only then there is room. So a connection owes
// the memory of its own errand, and no more.
//
// The end: the service drains, which answers whom it can; then shutdown() has the pool go on with
// what nobody waits for any more, up to a deadline; then the Desk goes, and with it every file that
// was not finished. It outlives the Reactor. What a thread is at by then is waited for.
#pragma once

#include "errand.hpp"

#include <reactor/net/tcp.hpp>
#include <reactor/offload.hpp>

#include <deque>

namespace http_upload {

/// Only the loop's thread hands in; making, connecting and ending it is for its owner.
template <class System>
class BasicDesk {
  public:
    using Store = BasicStore<System>;
    using Errand = BasicErrand<System>;
    /// What the service is told: an errand has come back.
    struct Done {
        reactor::ResourceId from; ///< whose it was; names nothing if it was only put away
        reactor::Outcome<Errand> outcome;
    };
    using Controller = reactor::Controller<reactor::TcpListener, reactor::TcpStream, Done>;

    /// Throws std::system_error if there is no room for the threads.
    BasicDesk(Store store, const reactor::OffloadOptions& options)
        : store_(std::move(store)), pool_(options) {}

    /// Whose service it works for; before anybody listens.
    void answer_to(Controller controller) { controller_ = std::move(controller); }

    /// Comes back as a Done.
    void hand_in(reactor::ResourceId from, Errand errand) {
        waiting_.push_back({&store_, from, std::move(errand)});
        pass_on();
    }
    /// Nobody wants it any more: its file is closed where that may block.
    void put_away(Errand errand) {
        if (is_open<System>(errand)) {
            hand_in({}, std::move(errand));
        }
    }
    /// To be called for each Done.
    void came_back() {
        --out_;
        pass_on();
    }
    /// Whether so many are out that nobody should bring a second one before his first is back.
    [[nodiscard]] bool is_crowded() const noexcept { return out_ + waiting_.size() > 64; }

    /// Goes on for at most `limit`, when the service has ended. How many errands were not done.
    std::size_t shutdown(reactor::Duration limit) {
        const reactor::Offload::Rest rest = pool_.shutdown(limit);
        return rest.given_back.size() + rest.running + waiting_.size();
    }

  private:
    /// What a thread does.
    struct Job {
        const Store* store;
        reactor::ResourceId from;
        Errand errand;

        Errand operator()() {
            if (!from) {
                const Errand gone = std::move(errand);
                return {};
            }
            std::visit([this](auto& kind) { kind.run(*store); }, errand);
            return std::move(errand);
        }
    };
    static_assert(std::is_nothrow_move_constructible_v<Job>);

    void pass_on() {
        while (!waiting_.empty()) {
            const reactor::ResourceId from = waiting_.front().from;
            auto answer = pool_.submit(controller_, std::move(waiting_.front()),
                                       [from](reactor::Outcome<Errand>&& outcome) {
                                           return Done{from, std::move(outcome)};
                                       });
            waiting_.pop_front();
            if (!answer) {
                waiting_.push_front(std::move(*answer.take())); // closed: it goes with this desk
                return;
            }
            ++out_;
        }
    }

    Store store_;
    Controller controller_;
    std::deque<Job> waiting_; ///< for room in the pool
    std::size_t out_ = 0;     ///< in the pool, or on their way back
    reactor::Offload pool_;   // goes first: its threads use the store
};

using Desk = BasicDesk<FileSystem>;

} // namespace http_upload
