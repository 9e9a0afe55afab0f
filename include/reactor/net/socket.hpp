// SPDX-License-Identifier: Apache-2.0
//
// Net: a stream over a socket, which may have to be connected first.
//
// A SocketStream that was made by a connect() is a transport from the first moment: it can be
// registered and sent to, and keeps what it is sent under its cap. It is connected when the kernel
// says so twice: SO_ERROR is zero and there is a peer's name (connect(2)); writability alone proves
// nothing. Then it says `connected`, once, and sends. Else it ends, once, with the cause: refused,
// unreachable, timed out, no descriptor left. So connecting out never fails at the call, and there
// is one place to handle it. A success that is seen after the deadline is none.
//
// A UNIX socket whose listener has no room left (EAGAIN, unix(7)) gives no readiness to wait for:
// it is tried again after a rest, by the stream's deadline.
#pragma once

#include <reactor/net/address.hpp>
#include <reactor/net/stream.hpp>

#include <memory>
#include <new>

namespace reactor::inline v0 {
namespace detail {

/// Tells a stream's constructor that the socket comes from accept4(2), with all set.
struct Accepted {};

} // namespace detail

/// A stream over a connected or connecting socket: a Writable; see BasicStream.
template <class KernelType = os::Kernel>
class BasicSocketStream : public BasicStream<KernelType> {
    using Base = BasicStream<KernelType>;

  public:
    /// What its system calls go through.
    using Kernel = KernelType;
    /// What it yields.
    using Event = typename Base::Event;
    /// How it owns its descriptor.
    using Fd = os::BasicFd<Kernel>;

    using Base::Base;

    /// Whether it is still to be connected.
    [[nodiscard]] bool is_connecting() const noexcept { return connecting_ != nullptr; }
    /// The address of our end; empty if it has none.
    [[nodiscard]] Address local() const noexcept {
        return Address::filled([this](sockaddr* at, socklen_t* size) {
            return Kernel::local_name(this->fd(), at, size);
        });
    }
    /// The address of the peer; empty if there is none (yet, or any more).
    [[nodiscard]] Address peer() const noexcept {
        return Address::filled([this](sockaddr* at, socklen_t* size) {
            return Kernel::peer_name(this->fd(), at, size);
        });
    }

    // -- Resource and Writable: while it connects, and then as any stream -------------------------

    /// While it connects: to hear how that ended, but not while it waits to try again.
    [[nodiscard]] Interest interest() const noexcept {
        if (is_connecting()) [[unlikely]] {
            return {false, connecting_->retry_at == Timestamp::max()};
        }
        return Base::interest();
    }
    /// While it connects: yields `connected`, once.
    [[nodiscard]] std::optional<Event> handle_io(Io io, std::span<std::byte> scratch) noexcept {
        if (is_connecting()) [[unlikely]] {
            return io == Io::write ? look() : std::nullopt;
        }
        return Base::handle_io(io, scratch);
    }
    /// While it connects: when it gives up or tries again.
    [[nodiscard]] std::optional<Timestamp> deadline() const noexcept {
        if (is_connecting()) [[unlikely]] {
            return std::min(connecting_->until, connecting_->retry_at);
        }
        return Base::deadline();
    }
    /// While it connects: tries again, or ends with timed_out.
    void handle_deadline() noexcept {
        if (!is_connecting()) {
            return Base::handle_deadline();
        }
        if (const Timestamp now = Kernel::now(); now >= connecting_->until) {
            give_up(StreamTimeout::connect);
        } else if (now >= connecting_->retry_at) {
            attempt();
        }
    }
    /// Not while it connects: that has a deadline of its own.
    [[nodiscard]] bool keeps_time() const noexcept {
        return Base::keeps_time() && !is_connecting();
    }
    /// While it connects, bytes wait.
    void flush() noexcept {
        if (is_connecting()) [[unlikely]] {
            return this->hold();
        }
        Base::flush();
    }
    /// Gives the socket up, connected or not; see BasicStream.
    [[nodiscard]] Fd release() noexcept {
        connecting_.reset();
        return Base::release();
    }

  protected:
    /// For what connect() makes: a socket of its own (none, if it could not be made).
    BasicSocketStream(Fd fd, std::nullptr_t) noexcept : Base(std::move(fd), nullptr) {}

    /// Begins to connect.
    void begin(const Address& to, Duration limit) noexcept {
        const Timestamp until = saturating_add(Kernel::now(), limit);
        connecting_.reset(new (std::nothrow) Connecting{to, until});
        if (connecting_ == nullptr) {
            return this->fail(ENOMEM);
        }
        attempt();
    }
    /// It did not get so far.
    void fail_early(int error) noexcept { this->fail(error); }

  private:
    static constexpr Duration first_rest = std::chrono::milliseconds{1};
    static constexpr Duration longest_rest = std::chrono::milliseconds{100};

    struct Connecting {
        Address to;
        Timestamp until;
        Timestamp retry_at = Timestamp::max(); ///< when to try again, if the kernel has to be asked
        Duration rest = first_rest;
        bool told_to_wait = false; ///< the turn of its registration brings no event yet
    };

    void attempt() noexcept {
        Connecting& to = *connecting_;
        to.retry_at = Timestamp::max();
        const os::Result result = Kernel::connect(this->fd(), to.to.data(), to.to.size());
        if (result.error == EAGAIN && to.to.is_unix()) {
            to.retry_at = saturating_add(Kernel::now(), to.rest);
            to.rest = std::min(2 * to.rest, longest_rest);
        } else if (!result.ok() && result.error != EINPROGRESS) {
            give_up(result.error);
        }
    }
    /// Whether it is connected by now.
    [[nodiscard]] std::optional<Event> look() noexcept {
        if (!std::exchange(connecting_->told_to_wait, true) ||
            connecting_->retry_at != Timestamp::max()) {
            return this->what_writing_caused();
        }
        const os::Result error = Kernel::option(this->fd(), SOL_SOCKET, SO_ERROR);
        if (!error.ok() || error.value != 0) {
            const int cause = error.ok() ? static_cast<int>(error.value) : error.error;
            std::byte first;
            if (Kernel::now() < connecting_->until &&
                Kernel::peek(this->fd(), {&first, 1}).value > 0) {
                // It was connected, and has been reset: what came before is to be read first.
                connecting_.reset();
                this->open(cause);
                return Event(Event::Kind::connected);
            }
            give_up(cause);
            return std::nullopt;
        }
        const Address name = peer();
        if (name.empty()) {
            return this->what_writing_caused(); // ready, but not for us: not connected
        }
        if (Kernel::now() >= connecting_->until) {
            give_up(StreamTimeout::connect);
            return std::nullopt;
        }
        if (!name.is_unix() && name == local()) { // nobody listens: TCP connected it to itself
            give_up(ECONNREFUSED);
            return std::nullopt;
        }
        connecting_.reset();
        this->open();
        return Event(Event::Kind::connected);
    }
    void give_up(int error) noexcept {
        connecting_.reset();
        this->fail(error);
    }
    void give_up(StreamTimeout timeout) noexcept {
        connecting_.reset();
        this->expire(timeout);
    }

    std::unique_ptr<Connecting> connecting_;
};

} // namespace reactor::inline v0
