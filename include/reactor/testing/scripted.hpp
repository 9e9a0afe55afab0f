// SPDX-License-Identifier: Apache-2.0
//
// Annex, the testing kit: resources without a descriptor.
//
// A Wire is the test's end of a connection: what the peer says goes in, what the service sent comes
// out. A ScriptedTransport is the runtime's end, over a descriptor number that the test makes up
// and no kernel ever sees; a ScriptedListener yields such transports. Both ends share the wire, as
// the runtime owns the transport by value and hands it over at its end. With a FakePoller, which
// reports these made-up descriptors, a service runs in a whole runtime and all it did can be looked
// at.
//
//     auto wire = std::make_shared<testing::Wire>();
//     wire->say("hello");
//     actions.register_transport(testing::ScriptedTransport(1000, wire));
#pragma once

#include <reactor/net/address.hpp>
#include <reactor/net/stream.hpp>

#include <deque>
#include <limits>
#include <memory>
#include <string>

namespace reactor::inline v0 {
namespace testing {

/// What the peer does and gets, in the hands of a test. One thread.
struct Wire {
    /// The peer sends this: one event of data.
    void say(std::string_view text) {
        reading.push_back({StreamEvent::Kind::data, std::string(text)});
    }
    /// The peer sends no more: one eof.
    void say_eof() { reading.push_back({StreamEvent::Kind::eof, {}}); }
    /// What a flush will cause, by default nothing: blocked, drained or connected.
    void cause(StreamEvent::Kind kind) { writing.push_back({kind, {}}); }
    /// Behind what was said, the connection ends with this cause (zero: clean). Without this it
    /// ends cleanly when eof was told and the service has closed its half.
    void end_with(std::error_code cause = {}) { end = cause; }

    /// What the transport took and gave to the wire, in order.
    std::string written;
    /// Bytes that may wait in the transport; a send that would pass this is `full`.
    std::size_t cap = std::numeric_limits<std::size_t>::max();
    /// Bytes that the wire still takes; what is more waits in the transport.
    std::size_t takes = std::numeric_limits<std::size_t>::max();
    /// How many flushes had something to give: writes, were there a kernel.
    std::size_t writes = 0;
    /// The service closed its half, and all it sent is out.
    bool closed_write = false;
    /// The transport was destroyed.
    bool gone = false;

    /// One event to come; `text` is what `data` carries.
    struct Said {
        StreamEvent::Kind kind; ///< which event
        std::string text;       ///< its bytes; empty if it is not data
    };
    std::deque<Said> reading;           ///< what handle_io(Io::read) will yield
    std::deque<Said> writing;           ///< and handle_io(Io::write)
    std::optional<std::error_code> end; ///< what end_with() was given
};

/// The runtime's end of a Wire: a Writable that yields the events of a stream.
class ScriptedTransport {
  public:
    /// @{
    /// As Resource says; the events are those of a stream.
    using Event = StreamEvent;
    static constexpr bool born_non_blocking = true; // there is no descriptor to ask
    /// @}

    /// `fd` is a number for a FakePoller: nothing is read from it, and it is not closed.
    ScriptedTransport(int fd, std::shared_ptr<Wire> wire) noexcept
        : fd_(fd), wire_(std::move(wire)) {}
    /// @{
    /// Moves its end of the wire.
    ScriptedTransport(ScriptedTransport&&) noexcept = default;
    ScriptedTransport& operator=(ScriptedTransport&&) noexcept = default;
    /// @}
    ~ScriptedTransport() {
        if (wire_ != nullptr) {
            wire_->gone = true;
        }
    }

    /// @{
    /// As Resource and Writable say, of what the wire was told to do.
    [[nodiscard]] int fd() const noexcept { return fd_; }
    [[nodiscard]] Interest interest() const noexcept {
        return {!over_ && !heard_out_, !unsent_.empty()};
    }
    [[nodiscard]] std::optional<Event> handle_io(Io io) {
        auto& events = io == Io::read ? wire_->reading : wire_->writing;
        if (events.empty()) {
            over_ = over_ || (io == Io::read && wire_->end);
            return std::nullopt;
        }
        said_ = std::move(events.front());
        events.pop_front();
        heard_out_ = heard_out_ || said_.kind == StreamEvent::Kind::eof;
        return said_.kind == StreamEvent::Kind::data ? Event(bytes_of(said_.text))
                                                     : Event(said_.kind);
    }
    [[nodiscard]] std::optional<std::error_code> ended() const noexcept {
        if (over_) {
            return wire_->end;
        }
        return heard_out_ && wire_->closed_write ? std::optional<std::error_code>(std::in_place)
                                                 : std::nullopt;
    }

    [[nodiscard]] WriteStatus write_atomic(std::span<const std::byte> bytes) {
        if (closing_ || over_) {
            return WriteStatus::ended;
        }
        if (bytes.size() > wire_->cap - std::min(wire_->cap, unsent_.size())) {
            return WriteStatus::full;
        }
        unsent_ += text_of(bytes);
        return WriteStatus::accepted;
    }
    [[nodiscard]] bool is_ready_to_write() const noexcept {
        return !closing_ && !over_ && unsent_.size() < wire_->cap;
    }
    void flush() {
        const std::size_t size = std::min(unsent_.size(), wire_->takes);
        if (size != 0) {
            ++wire_->writes;
            wire_->takes -= size;
            wire_->written.append(unsent_, 0, size);
            unsent_.erase(0, size);
        }
        wire_->closed_write = closing_ && unsent_.empty();
    }
    void close_write() noexcept { closing_ = true; }
    [[nodiscard]] std::size_t unsent() const noexcept { return unsent_.size(); }
    /// @}

  private:
    int fd_;
    std::shared_ptr<Wire> wire_;
    Wire::Said said_{};
    std::string unsent_;
    bool closing_ = false;
    bool heard_out_ = false; ///< the eof was told
    bool over_ = false;      ///< reading has met the end
};

static_assert(Writable<ScriptedTransport>);

/// Yields a ScriptedTransport for each client that a test lets come.
class ScriptedListener {
  public:
    /// The shape of TcpListener::Event.
    struct Event {
        ScriptedTransport stream; ///< the connection
        Address peer;             ///< where it comes from
    };
    /// The clients to come; shared by the test and the listener.
    using Clients = std::deque<Event>;
    /// As Resource says: there is no descriptor to ask.
    static constexpr bool born_non_blocking = true;

    /// `fd` is a number for a FakePoller; see ScriptedTransport.
    ScriptedListener(int fd, std::shared_ptr<Clients> clients) noexcept
        : fd_(fd), clients_(std::move(clients)) {}

    /// @{
    /// As Resource says: yields the clients in order, one a call.
    [[nodiscard]] int fd() const noexcept { return fd_; }
    [[nodiscard]] Interest interest() const noexcept { return {true, false}; }
    [[nodiscard]] std::optional<Event> handle_io(Io io) {
        if (io == Io::write || clients_->empty()) {
            return std::nullopt;
        }
        std::optional<Event> event(std::move(clients_->front()));
        clients_->pop_front();
        return event;
    }
    /// @}

  private:
    int fd_;
    std::shared_ptr<Clients> clients_;
};

static_assert(Resource<ScriptedListener>);

} // namespace testing
} // namespace reactor::inline v0
