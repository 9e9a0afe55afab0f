// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: somebody at the other end.
//
// A Peer is a client or a server of one connection that lives in the network, with no descriptor
// and no weather of its own: it follows a script (sim/script.hpp), step by step, as time goes on.
//
//     sim::Peer ada{world};
//     ada.connect("127.0.0.1:7000").send("name Ada\n").expect("hello Ada\n").shut().expect_end();
//     world.run_until([&] { return ada.is_done(); });
//
// It reads all the time, unless told otherwise, and keeps what it has read; `expect` is held
// against that. What does not fit is a failure of the world, with the peer's name. Steps may be
// added at any time. A peer is made after its world and destroyed before it; it stays where it is.
#pragma once

#include <reactor/buffer.hpp>
#include <reactor/sim/contact.hpp>
#include <reactor/sim/script.hpp>

namespace reactor::inline v0 {
namespace sim {

/// One scripted end of one connection, by TCP or UNIX socket.
class Peer final : public Contact, public Script<Peer> {
  public:
    /// Who has nothing to do yet; the name is for failures.
    explicit Peer(World& world, std::string name = "peer")
        : Contact(world), name_(std::move(name)), self_(std::make_shared<Peer*>(this)) {}
    /// A connection that it still has is closed.
    ~Peer() { *self_ = nullptr; }
    /// Whatever ends the connection is no failure: the rest of the script is left out.
    Peer& may_fail() {
        may_fail_ = true;
        return *this;
    }

    // -- what became of it ------------------------------------------------------------------------

    /// All that has come so far.
    [[nodiscard]] const std::string& received() const noexcept { return received_; }
    /// Whether the other end has said that no more will come.
    [[nodiscard]] bool has_end() const noexcept { return has_end_; }
    /// How the connection broke; zero if it did not.
    [[nodiscard]] int error() const noexcept { return error_; }

  private:
    friend class Script<Peer>;

    void wake() { changed(); }
    /// Looks at everything as soon as the one who caused this has finished.
    void changed() override {
        if (!std::exchange(is_called_, true)) {
            call_after(Duration::zero());
        }
    }
    void call_after(Duration span) {
        world_.after(span, [self = self_] {
            if (*self != nullptr) {
                (*self)->is_called_ = false;
                (*self)->go_on();
            }
        });
    }

    void go_on() {
        read();
        while (!steps_.empty() && take(steps_.front())) {
            steps_.pop_front();
            read();
        }
    }

    void read() {
        if (!connection_ || !side().established) {
            return;
        }
        const bool slow = every_ != Duration::max();
        if (slow && (portion_ == 0 || world_.time() < next_read_)) {
            return;
        }
        std::byte room[4096];
        for (;;) {
            const std::size_t most = slow ? std::min(portion_, sizeof room) : sizeof room;
            const os::Result result = connection_->recv(which_, std::span(room, most));
            if (!result.ok()) {
                error_ = result.would_block() ? error_ : result.error;
                return;
            }
            if (result.value == 0) {
                has_end_ = true;
                return;
            }
            received_.append(reinterpret_cast<const char*>(room), result.count());
            if (slow) {
                next_read_ = world_.time() + every_;
                return call_after(every_);
            }
        }
    }

    /// False: it is not done yet.
    bool take(Step& step) {
        switch (step.kind) {
        case Step::Kind::connect:
            return step.begun ? is_connected() || broke() : begin_to_connect(step);
        case Step::Kind::listen:
            return step.begun ? accept() : begin_to_listen(step);
        case Step::Kind::send:
            return sent(step);
        case Step::Kind::send_in_pieces:
            return sent_in_pieces(step);
        case Step::Kind::end_somehow:
            return end_by_chance(step);
        case Step::Kind::expect:
            return came(step);
        case Step::Kind::expect_end:
            if (has_end_ && expected_ != received_.size()) {
                return complain("did not expect \"" + received_.substr(expected_) + "\"");
            }
            return has_end_ || broke();
        case Step::Kind::await:
            return received_.size() >= step.count || broke();
        case Step::Kind::pause:
            if (!std::exchange(step.begun, true)) {
                until_ = world_.time() + step.span;
                call_after(step.span);
            }
            return world_.time() >= until_;
        case Step::Kind::shut:
            return !connection_ || (connection_->shutdown_write(which_), true);
        case Step::Kind::reset:
        case Step::Kind::vanish:
        case Step::Kind::close:
            return part_as(step.kind);
        case Step::Kind::read_slowly:
            portion_ = step.count;
            every_ = step.span;
            next_read_ = world_.time();
            changed();
            return true;
        }
        return true;
    }
    bool begin_to_connect(Step& step) {
        std::error_code error;
        const Address to = Address::parse(step.text, error);
        if (error) {
            return complain("cannot read the address " + step.text);
        }
        const int refused = call(to);
        step.begun = refused != EAGAIN;
        if (refused == EAGAIN) {
            call_after(std::chrono::milliseconds{1});
        }
        error_ = step.begun ? refused : error_;
        return is_connected() || broke();
    }
    bool begin_to_listen(Step& step) {
        step.begun = true;
        std::error_code error;
        const Address at = Address::parse(step.text, error);
        return (error || !listen_at(at)) && complain("cannot listen at " + step.text);
    }
    bool part_as(Step::Kind kind) {
        if (connection_ && kind == Step::Kind::reset) {
            side().lingers = false;
        } else if (connection_ && kind == Step::Kind::vanish) {
            connection_->vanish();
        }
        leave();
        return true;
    }
    bool sent(Step& step) {
        if (broke()) {
            return true;
        }
        if (!connection_) {
            return complain("is not connected");
        }
        const os::Result result = connection_->send(which_, bytes_of(step.text));
        if (result.ok()) {
            step.text.erase(0, result.count());
        } else if (!result.would_block()) {
            error_ = result.error;
            return broke();
        }
        return step.text.empty();
    }
    bool sent_in_pieces(Step& step) {
        if (broke() || step.text.empty()) {
            return true;
        }
        if (world_.time() >= until_) {
            Step piece{Step::Kind::send};
            piece.text = step.text.substr(0, world_.random.between(std::size_t{1},
                                                                   step.text.size()));
            const std::size_t whole = piece.text.size();
            sent(piece);
            if (broke() || !connection_) {
                return true;
            }
            step.text.erase(0, whole - piece.text.size());
            const Duration rest = world_.random.between(Duration::zero(), step.span);
            until_ = world_.time() + rest;
            call_after(std::max(rest, Duration{1}));
        }
        return step.text.empty();
    }
    bool end_by_chance(Step& step) {
        constexpr Step::Kind ends[] = {Step::Kind::close, Step::Kind::shut, Step::Kind::reset,
                                       Step::Kind::vanish};
        step.kind = ends[world_.random.below(std::size(ends))];
        return take(step);
    }
    bool came(const Step& step) {
        const std::size_t there = std::min(step.text.size(), received_.size() - expected_);
        const std::string_view have = std::string_view(received_).substr(expected_, there);
        if (have != std::string_view(step.text).substr(0, there)) {
            return complain("expected \"" + step.text + "\", and there came \"" +
                            std::string(have) + "\"");
        }
        if (there == step.text.size()) {
            expected_ += there;
            return true;
        }
        if (has_end_) {
            return may_fail_ ? give_up()
                             : complain("expected \"" + step.text + "\", and there came \"" +
                                        std::string(have) + "\" and the end");
        }
        return broke();
    }
    /// Whether the connection is broken; then there is nothing left to do.
    bool broke() {
        if (connection_ && side().cut && error_ == 0) {
            error_ = side().error;
        }
        if (error_ == 0) {
            return false;
        }
        if (may_fail_) {
            return give_up();
        }
        return complain("the connection broke: " +
                        std::error_code(error_, std::system_category()).message());
    }
    bool give_up() {
        steps_.erase(steps_.begin() + 1, steps_.end()); // the present one goes as it returns
        return true;
    }
    bool complain(const std::string& what) {
        world_.fail(name_ + ": " + what);
        return give_up();
    }

    std::string name_;
    std::shared_ptr<Peer*> self_; ///< null once it has gone: for what is still on the agenda
    bool is_called_ = false;
    bool may_fail_ = false;
    bool has_end_ = false;
    int error_ = 0;
    std::string received_;
    std::size_t expected_ = 0;
    std::size_t portion_ = 0;
    Duration every_ = Duration::max();
    Timestamp next_read_{};
    Timestamp until_{};
};

} // namespace sim
} // namespace reactor::inline v0
