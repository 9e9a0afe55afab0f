// SPDX-License-Identifier: Apache-2.0
//
// Net: whoever accepts connections, of whatever family (accept(2)).
//
// Accepting never fails for good because of a peer or a shortage. Errors that belong to one
// connection are passed over. Out of descriptors or memory, the listener turns one waiting client
// away cleanly, with a descriptor it kept in reserve for this, says so once (the power `trouble`),
// and rests, longer each time, out of the poll set (the power `deadline`): never a hot loop. While
// the reactor has all the transports that it may have, the listener is not asked: who comes waits
// in the kernel. Accepted sockets are non-blocking and close-on-exec from birth and inherit the
// options of the listener, so a connection costs one accept4(2) and nothing else before its first
// byte.
#pragma once

#include <reactor/net/socket.hpp>

#include <algorithm>

namespace reactor::inline v0 {

/// Accepts connections: a Resource. What is common to the listeners of all families; see there.
template <class Stream>
class BasicSocketListener {
  public:
    /// What its system calls go through.
    using Kernel = typename Stream::Kernel;
    /// How it owns its descriptor.
    using Fd = os::BasicFd<Kernel>;
    /// As Resource says: it was made so, or has been set so.
    static constexpr bool born_non_blocking = true;

    /// A client: the connection, and where it came from.
    struct Event {
        Stream stream; ///< connected, non-blocking, its options set
        Address peer;  ///< where it comes from
    };

    /// The address it listens on, with the port that the kernel chose.
    [[nodiscard]] Address local() const noexcept {
        return Address::filled([this](sockaddr* at, socklen_t* size) {
            return Kernel::local_name(fd_.get(), at, size);
        });
    }
    /// Every stream accepted from now on has these deadlines.
    void set_deadlines(const StreamDeadlines& deadlines) noexcept { deadlines_ = deadlines; }
    /// Takes the descriptor out, open, with who waits to be accepted. The listener is then empty.
    [[nodiscard]] Fd release() noexcept {
        reserve_.reset();
        return std::move(fd_);
    }

    // -- Resource ---------------------------------------------------------------------------------

    /// The listening socket.
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    /// To accept, but not while it rests after a shortage.
    [[nodiscard]] Interest interest() const noexcept { return {!resting_until_, false}; }

    /// Accepts one client.
    [[nodiscard]] std::optional<Event> handle_io(Io io) noexcept {
        if (io == Io::write || resting_until_ || end_ != 0) {
            return std::nullopt;
        }
        os::Result accepted;
        for (int tries = 0; tries < 64; ++tries) {
            const Address peer = Address::filled([&](sockaddr* at, socklen_t* size) {
                accepted = Kernel::accept(fd_.get(), at, size);
                return accepted;
            });
            if (accepted.ok()) [[likely]] {
                Event event{{Fd(accepted.fd()), detail::Accepted{}}, peer};
                if (event.stream.set_deadlines(deadlines_)) [[unlikely]] {
                    bear_shortage(ENOMEM); // without them it is not let in
                    return std::nullopt;
                }
                rest_ = shortest_rest;
                trouble_told_ = false;
                return event;
            }
            if (accepted.would_block()) {
                return std::nullopt;
            }
            if (is_shortage(accepted.error)) {
                bear_shortage(accepted.error);
                return std::nullopt;
            }
            if (!is_of_one_connection(accepted.error)) {
                end_ = accepted.error;
                return std::nullopt;
            }
        }
        // A filter (LSM, seccomp) may refuse before the connection has left the backlog.
        if (is_refused(accepted.error)) {
            bear_shortage(accepted.error);
        }
        return std::nullopt;
    }
    /// Why it can never accept again; a shortage is no end.
    [[nodiscard]] std::optional<std::error_code> ended() const noexcept {
        return end_ == 0 ? std::nullopt
                         : std::optional(std::error_code(end_, std::system_category()));
    }
    /// Out of descriptors or memory: told once, until a client is accepted again.
    [[nodiscard]] std::error_code trouble() noexcept {
        return {std::exchange(trouble_, 0), std::system_category()};
    }
    /// When it has rested.
    [[nodiscard]] std::optional<Timestamp> deadline() const noexcept { return resting_until_; }
    /// True: see Resource.
    [[nodiscard]] bool brings_transports() const noexcept { return true; }
    /// Accepts again.
    void handle_deadline() noexcept {
        resting_until_.reset();
        if (!reserve_) {
            keep_reserve();
        }
    }

  protected:
    BasicSocketListener() noexcept = default;
    ~BasicSocketListener() = default;
    /// Takes over the socket; the other one is empty then.
    BasicSocketListener(BasicSocketListener&&) noexcept = default;
    /// The same; what it had before is closed.
    BasicSocketListener& operator=(BasicSocketListener&&) noexcept = default;

    /// Takes over a socket that is still to be bound, or listens already.
    void take(Fd fd) noexcept { fd_ = std::move(fd); }
    /// It listens from now on; makes the reserve.
    [[nodiscard]] std::error_code begin(int backlog) noexcept {
        const os::Result result = Kernel::listen(fd_.get(), backlog);
        if (result.ok()) {
            keep_reserve();
        }
        return result.code();
    }
    /// Makes a socket that somebody else made a listener's: looks whether it listens.
    [[nodiscard]] std::error_code adopt(std::span<const int> families) noexcept {
        const os::Result listens = Kernel::option(fd_.get(), SOL_SOCKET, SO_ACCEPTCONN);
        const os::Result family = Kernel::option(fd_.get(), SOL_SOCKET, SO_DOMAIN);
        const os::Result type = Kernel::option(fd_.get(), SOL_SOCKET, SO_TYPE);
        for (const os::Result& result : {listens, family, type}) {
            if (!result.ok()) {
                return result.code();
            }
        }
        if (std::find(families.begin(), families.end(), family.value) == families.end()) {
            return std::make_error_code(std::errc::address_family_not_supported);
        }
        if (listens.value == 0 || type.value != SOCK_STREAM) {
            return std::make_error_code(std::errc::invalid_argument);
        }
        os::Result result = Kernel::set_non_blocking(fd_.get());
        result = result.ok() ? Kernel::set_close_on_exec(fd_.get()) : result;
        if (result.ok()) {
            keep_reserve();
        }
        return result.code();
    }

  private:
    static constexpr Duration shortest_rest = std::chrono::milliseconds{100};
    static constexpr Duration longest_rest = std::chrono::seconds{1};

    /// accept(2): these belong to the connection that was to be accepted, or pass by themselves.
    [[nodiscard]] static bool is_of_one_connection(int error) noexcept {
        switch (error) {
        case ECONNABORTED:
        case ECONNRESET:
        case EPROTO:
        case ETIMEDOUT:
        case ENETDOWN:
        case ENETUNREACH:
        case EHOSTDOWN:
        case EHOSTUNREACH:
        case ENONET:
        case ENOPROTOOPT:
            return true;
        default:
            return is_refused(error);
        }
    }
    [[nodiscard]] static bool is_refused(int error) noexcept {
        return error == EPERM || error == EOPNOTSUPP || error == ESOCKTNOSUPPORT ||
               error == EPROTONOSUPPORT;
    }
    [[nodiscard]] static bool is_shortage(int error) noexcept {
        return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM ||
               error == ENOSR;
    }
    /// Turns the first waiting client away, so that it is not left hanging, and rests.
    void bear_shortage(int error) noexcept {
        if (reserve_ && (error == EMFILE || error == ENFILE)) {
            reserve_.reset();
            Fd turned_away(Kernel::accept(fd_.get(), nullptr, nullptr).fd_or_none());
            if (turned_away) {
                // What it has said already is read: closed with that unread, it would be reset.
                std::byte unread[4096];
                for (int reads = 0; reads < 16; ++reads) {
                    if (const os::Result got = Kernel::recv(turned_away.get(), unread);
                        !got.ok() || got.value == 0) {
                        break;
                    }
                }
            }
            turned_away.reset();
            keep_reserve();
        }
        if (!trouble_told_) {
            trouble_told_ = true;
            trouble_ = error;
        }
        resting_until_ = saturating_add(Kernel::now(), rest_);
        rest_ = std::min(2 * rest_, longest_rest);
    }
    void keep_reserve() noexcept { reserve_.reset(Kernel::duplicate(fd_.get()).fd_or_none()); }

    Fd fd_;
    Fd reserve_;
    int end_ = 0;
    int trouble_ = 0;
    bool trouble_told_ = false;
    std::optional<Timestamp> resting_until_;
    Duration rest_ = shortest_rest;
    StreamDeadlines deadlines_;
};

} // namespace reactor::inline v0
