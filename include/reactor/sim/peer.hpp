// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: somebody at the other end.
//
// A Peer is a client or a server of one connection that lives in the network, with no descriptor
// and no weather of its own: it follows a script, step by step, as time goes on.
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
#include <reactor/sim/world.hpp>

#include <string_view>

namespace reactor::inline v0 {
namespace sim {

/// One scripted end of one TCP connection.
class Peer final : private Watcher {
  public:
    explicit Peer(World& world, std::string name = "peer")
        : world_(world), name_(std::move(name)), self_(std::make_shared<Peer*>(this)) {}
    Peer(const Peer&) = delete;
    Peer& operator=(const Peer&) = delete;
    /// A connection that it still has is closed.
    ~Peer() {
        *self_ = nullptr;
        leave();
        unlisten();
    }

    // -- the script -------------------------------------------------------------------------------

    /// Connects; the next step comes when it is connected. Refused or given up: a failure, unless
    /// it may fail (see may_fail).
    Peer& connect(std::string_view address) { return add({Step::Kind::connect, text(address)}); }
    /// Waits at this address for one who connects.
    Peer& listen(std::string_view address) { return add({Step::Kind::listen, text(address)}); }
    /// Sends all of it, as fast as the other end takes it.
    Peer& send(std::string_view bytes) { return add({Step::Kind::send, text(bytes)}); }
    /// What comes next is this, byte for byte.
    Peer& expect(std::string_view bytes) { return add({Step::Kind::expect, text(bytes)}); }
    /// The other end has nothing more to say, and had said no more than was expected.
    Peer& expect_end() { return add({Step::Kind::expect_end}); }
    /// Waits until so many bytes have come in all, whatever they are.
    Peer& await(std::size_t bytes) {
        Step step{Step::Kind::await};
        step.count = bytes;
        return add(std::move(step));
    }
    Peer& pause(Duration span) {
        Step step{Step::Kind::pause};
        step.span = span;
        return add(std::move(step));
    }
    /// Half-close: sends no more, and listens on.
    Peer& shut() { return add({Step::Kind::shut}); }
    Peer& close() { return add({Step::Kind::close}); }
    Peer& reset() { return add({Step::Kind::reset}); }
    /// Is gone without a word, as behind a cable that was pulled.
    Peer& vanish() { return add({Step::Kind::vanish}); }
    /// From now on it takes so many bytes at a time, with such a rest between; none: it does not
    /// read any more.
    Peer& read_slowly(std::size_t bytes, Duration every) {
        Step step{Step::Kind::read_slowly};
        step.count = bytes;
        step.span = every;
        return add(std::move(step));
    }
    Peer& stop_reading() { return read_slowly(0, Duration::zero()); }
    /// Whatever ends the connection is no failure: the rest of the script is left out.
    Peer& may_fail() {
        may_fail_ = true;
        return *this;
    }

    // -- what became of it ------------------------------------------------------------------------

    /// Whether it has nothing more to do.
    [[nodiscard]] bool is_done() const noexcept { return steps_.empty(); }
    [[nodiscard]] bool is_connected() const noexcept {
        return connection_ && side().established && !side().cut;
    }
    /// All that has come so far.
    [[nodiscard]] const std::string& received() const noexcept { return received_; }
    /// Whether the other end has said that no more will come.
    [[nodiscard]] bool has_end() const noexcept { return has_end_; }
    /// Where it connected from; empty before.
    [[nodiscard]] const Address& address() const noexcept { return address_; }
    /// How the connection broke; zero if it did not.
    [[nodiscard]] int error() const noexcept { return error_; }

  private:
    struct Step {
        enum class Kind : std::uint8_t {
            connect,
            listen,
            send,
            expect,
            expect_end,
            await,
            pause,
            shut,
            close,
            reset,
            vanish,
            read_slowly,
        };
        Kind kind;
        std::string text{};
        std::size_t count = 0;
        Duration span{};
        bool begun = false;
    };

    [[nodiscard]] static std::string text(std::string_view from) { return std::string(from); }
    Peer& add(Step&& step) {
        steps_.push_back(std::move(step));
        changed();
        return *this;
    }
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
    [[nodiscard]] Side& side() const noexcept { return connection_->side(which_); }

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
            return step.begun ? accepted() : begin_to_listen(step);
        case Step::Kind::send:
            return sent(step);
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
        case Step::Kind::close:
            return leave();
        case Step::Kind::reset:
            if (connection_) {
                side().lingers = false;
            }
            return leave();
        case Step::Kind::vanish:
            if (connection_) {
                connection_->vanish();
            }
            return leave();
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
        step.begun = true;
        std::error_code error;
        const Address to = Address::parse(step.text, error);
        if (error) {
            return complain("cannot read the address " + step.text);
        }
        connection_ = std::make_shared<Connection>(world_, Connection::Kind::tcp);
        which_ = 0;
        side().watcher = this;
        address_ = to.with_port(world_.free_port());
        world_.call(connection_, to, address_);
        return is_connected();
    }
    bool begin_to_listen(Step& step) {
        step.begun = true;
        std::error_code error;
        backlog_.address = Address::parse(step.text, error);
        if (error || world_.is_taken(backlog_.address, false)) {
            return complain("cannot listen at " + step.text);
        }
        backlog_.limit = 1;
        backlog_.watcher = this;
        listens_ = true;
        world_.publish(backlog_);
        return false;
    }
    bool accepted() {
        if (backlog_.waiting.empty()) {
            return false;
        }
        connection_ = std::move(backlog_.waiting.front());
        backlog_.waiting.pop_front();
        unlisten();
        which_ = 1;
        side().watcher = this;
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
    bool leave() {
        if (connection_) {
            std::exchange(connection_, nullptr)->close(which_);
        }
        return true;
    }
    void unlisten() {
        if (std::exchange(listens_, false)) {
            world_.withdraw(backlog_);
        }
    }

    World& world_;
    std::string name_;
    std::shared_ptr<Peer*> self_; ///< null once it has gone: for what is still on the agenda
    std::deque<Step> steps_;
    std::shared_ptr<Connection> connection_;
    int which_ = 0;
    Address address_;
    Backlog backlog_;
    bool listens_ = false;
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
