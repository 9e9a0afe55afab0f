// SPDX-License-Identifier: Apache-2.0
//
// Story: the only thing that another thread may hold.
//
// A Controller is a handle on the line into a runtime: a bounded mailbox, two requests, and the
// bell that ends the loop's wait. All copies share the line and may be used on any thread; it
// outlives the runtime, and then says `closed`. What is not accepted comes back with the answer.
// One bell a burst, none while the loop is awake; messages of one thread keep their order. What was
// accepted is handled once, or destroyed when the runtime ends before its turn came. Not for a
// forked child.
#pragma once

#include <reactor/detail/mailbox.hpp>
#include <reactor/handler.hpp>

#include <atomic>
#include <memory>
#include <variant>

namespace reactor::inline v0 {

using detail::SendStatus;

/// The answer of a Controller: true when accepted; else it says why, and holds what was sent.
template <class T>
class SendAnswer {
  public:
    /// For controllers: accepted, or with nothing to give back.
    explicit SendAnswer(SendStatus status) noexcept : status_(status) {}
    /// For controllers: not accepted; gives the item back.
    SendAnswer(SendStatus status, T&& item) : status_(status), item_(std::move(item)) {}

    /// Whether it was accepted.
    [[nodiscard]] explicit operator bool() const noexcept {
        return status_ == SendStatus::accepted;
    }
    /// Accepted, or why not.
    [[nodiscard]] SendStatus status() const noexcept { return status_; }
    /// The channel is full (Options::command_queue): later it may be taken.
    [[nodiscard]] bool full() const noexcept { return status_ == SendStatus::full; }
    /// The run has ended: it will never be taken.
    [[nodiscard]] bool closed() const noexcept { return status_ == SendStatus::closed; }
    /// What was sent; nothing if it was accepted. Once.
    [[nodiscard]] std::optional<T> take() { return std::exchange(item_, std::nullopt); }

  private:
    SendStatus status_;
    std::optional<T> item_;
};

namespace detail {

/// What comes over the line; told apart by index, as the types may be the same.
template <class Listener, class Transport, class Command>
using Message = std::variant<Command, Listener, Transport>;

/// What a runtime and its controllers share.
template <class Listener, class Transport, class Command>
struct Line {
    Line(std::size_t limit, Doorbell bell) : mailbox(limit, bell) {}

    Mailbox<Message<Listener, Transport, Command>> mailbox;
    std::atomic<bool> shutdown{false};
    /// The shortest drain that was asked for and not taken up yet; nanoseconds, negative: none.
    std::atomic<Duration::rep> drain{-1};
};

} // namespace detail

/// Sends commands, listeners and transports into a runtime from any thread, and ends it.
template <class Listener, class Transport, class Command>
class Controller {
    using Message = detail::Message<Listener, Transport, Command>;

  public:
    /// For runtimes: what they share with their controllers.
    using Line = detail::Line<Listener, Transport, Command>;

    /// Is not connected: says `closed`.
    Controller() noexcept = default;
    /// For runtimes.
    explicit Controller(std::shared_ptr<Line> line) noexcept : line_(std::move(line)) {}

    /// Lets the service's `handle_command` have this.
    SendAnswer<Command> command(Command command) const { return send<0>(std::move(command)); }
    /// Registers a listener; its id comes with `handle_registered`.
    SendAnswer<Listener> register_listener(Listener listener) const {
        return send<1>(std::move(listener));
    }
    /// Registers a transport; its id comes with `handle_registered`.
    SendAnswer<Transport> register_transport(Transport transport) const {
        return send<2>(std::move(transport));
    }

    /// Asks for the gentle end: see BasicActions::drain(). Counts from when the loop hears of it.
    /// Never refused; of several the shortest counts.
    void drain(Duration limit) const noexcept {
        if (line_ == nullptr) {
            return;
        }
        const Duration::rep wanted = limit < Duration::zero() ? 0 : limit.count();
        Duration::rep known = line_->drain.load(std::memory_order_relaxed);
        while ((known < 0 || wanted < known) &&
               !line_->drain.compare_exchange_weak(known, wanted, std::memory_order_acq_rel)) {
        }
        line_->mailbox.wake();
    }
    /// Asks for the end now: see BasicActions::shutdown(). Never refused.
    void shutdown() const noexcept {
        if (line_ != nullptr) {
            line_->shutdown.store(true, std::memory_order_release);
            line_->mailbox.wake();
        }
    }
    /// Ends the loop's present wait, or its next. May be called in a signal handler.
    void wake() const noexcept {
        if (line_ != nullptr) {
            line_->mailbox.wake();
        }
    }

  private:
    template <std::size_t Index, class T>
    SendAnswer<T> send(T&& item) const {
        if (line_ == nullptr) {
            return {SendStatus::closed, std::move(item)};
        }
        Message message(std::in_place_index<Index>, std::move(item));
        const SendStatus status = line_->mailbox.send(std::move(message));
        if (status == SendStatus::accepted) [[likely]] {
            return SendAnswer<T>(status);
        }
        return {status, std::move(*std::get_if<Index>(&message))};
    }

    std::shared_ptr<Line> line_;
};

} // namespace reactor::inline v0
