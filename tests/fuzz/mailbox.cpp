// SPDX-License-Identifier: Apache-2.0
//
// Mailbox against a list, in one thread: whatever the order of sends, wakes, sleeps, collects,
// takes and the close, with sends from within a move, and moves that throw. What several threads
// may do to it is for tests/mailbox.cpp and for the model in tests/spin.
#include <reactor/detail/mailbox.hpp>

#include <deque>
#include <optional>

#include "fuzz.hpp"

using namespace reactor;
using fuzz::require;

namespace {

struct Thrown {};

/// Counts who is alive; its moves throw when they are told to.
class Message {
  public:
    explicit Message(std::uint64_t number) : number_(number) { ++alive; }
    Message(Message&& other) : number_(other.number_) {
        move();
        ++alive;
        other.number_ = 0;
    }
    Message& operator=(Message&& other) {
        move();
        number_ = std::exchange(other.number_, 0);
        return *this;
    }
    ~Message() { --alive; }

    [[nodiscard]] std::uint64_t number() const noexcept { return number_; }

    static inline std::size_t alive = 0;
    static inline std::size_t throw_in = 0; ///< moves until one throws; 0: none

  private:
    static void move() {
        if (throw_in != 0 && --throw_in == 0) {
            throw Thrown();
        }
    }
    std::uint64_t number_;
};

int rings = 0;
int closes = 0;

class Trial {
  public:
    explicit Trial(fuzz::Tape& tape)
        : tape_(tape),
          limit_(tape.below(4) == 0 ? tape.below(5) : 1 + tape.below(200)),
          mailbox_(
              std::in_place, limit_,
              detail::Doorbell{7, [](int) noexcept { ++rings; }, [](int) noexcept { ++closes; }}) {}

    void run() {
        while (!tape_.at_end()) {
            step();
            require(mailbox_->has_next() == !collected_.empty(), "what is collected waits");
            require(mailbox_->closed() == closed_, "it knows whether it is closed");
            require(Message::alive == sent_.size() + collected_.size(),
                    "it has what was accepted and not taken, and nothing else");
        }
        const int before = closes;
        mailbox_.reset();
        require(closes == before + 1, "the bell is closed with it, once");
        require(Message::alive == 0, "what was never taken is destroyed");
    }

  private:
    void step() {
        switch (tape_.below(16)) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
            return send();
        case 5:
            for (std::size_t n = tape_.byte(); n > 0; --n) {
                send();
            }
            return;
        case 6: {
            const int before = rings;
            mailbox_->wake();
            require(rings == before + (asleep_ ? 1 : 0), "wake() rings who sleeps");
            asleep_ = false;
            notified_ = true;
            return;
        }
        case 7: {
            const bool nothing = sent_.empty() && collected_.empty() && !notified_;
            require(mailbox_->prepare_sleep() == nothing, "sleep only where nothing waits");
            asleep_ = nothing || asleep_;
            return;
        }
        case 8:
            mailbox_->awake();
            asleep_ = false;
            return;
        case 9:
        case 10: {
            require(mailbox_->collect() == notified_, "collect() tells of a wake, once");
            asleep_ = asleep_ && sent_.empty() && !notified_;
            notified_ = false;
            collected_.insert(collected_.end(), sent_.begin(), sent_.end());
            sent_.clear();
            return;
        }
        case 11:
        case 12:
        case 13:
            return take();
        case 14:
            Message::throw_in = tape_.below(4);
            return;
        default:
            if (tape_.below(16) == 0) {
                mailbox_->close();
                closed_ = true;
            }
        }
    }
    void send() {
        const std::uint64_t number = ++last_;
        const int before = rings;
        Message message(number);
        bool thrown = false;
        std::optional<detail::SendStatus> status;
        try {
            status = mailbox_->send(std::move(message));
        } catch (const Thrown&) {
            thrown = true;
        }
        const bool room = sent_.size() + collected_.size() < limit_;
        require(!thrown || (room && !closed_), "a refusal moves nothing");
        if (status == detail::SendStatus::accepted) {
            require(room && !closed_, "never more than the limit, and none after the close");
            require(message.number() == 0, "what is accepted is moved from");
            require(rings == before + (asleep_ ? 1 : 0), "a send rings who sleeps, once");
            asleep_ = false;
            sent_.push_back(number);
            return;
        }
        require(message.number() == number, "what is not accepted is still the sender's");
        require(rings == before, "and nobody is woken for it");
        require(thrown ||
                    status == (closed_ ? detail::SendStatus::closed : detail::SendStatus::full),
                "closed before full");
        require(thrown || closed_ || !room, "full only at the limit");
    }
    void take() {
        if (collected_.empty()) {
            return;
        }
        try {
            const Message message = mailbox_->take_next();
            require(message.number() == collected_.front(), "in the order of sending");
            collected_.pop_front();
            if (tape_.below(8) == 0 && !closed_) {
                Message::throw_in = 0;
                // The one taken is still alive; its place is free already.
                Message answer(++last_);
                require(mailbox_->send(std::move(answer)) == detail::SendStatus::accepted,
                        "a handler may send even at the limit");
                sent_.push_back(last_);
                asleep_ = false;
            }
        } catch (const Thrown&) { // and it stays the next one
        }
    }

    fuzz::Tape& tape_;
    std::size_t limit_;
    std::optional<detail::Mailbox<Message>> mailbox_;
    std::deque<std::uint64_t> sent_;      ///< and not collected
    std::deque<std::uint64_t> collected_; ///< and not taken
    std::uint64_t last_ = 0;
    bool asleep_ = false;
    bool notified_ = false;
    bool closed_ = false;
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Tape tape(data, std::min<std::size_t>(size, 1024));
    Message::throw_in = 0;
    Trial(tape).run();
    return 0;
}
