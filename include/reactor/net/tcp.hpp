// SPDX-License-Identifier: Apache-2.0
//
// Net: TCP (tcp(7)). A TcpListener accepts; a TcpStream is a BasicStream with what is TCP's.
//
// Accepting never fails for good because of a peer or a shortage. Errors that belong to one
// connection are passed over. Out of descriptors or memory, the listener turns one waiting client
// away cleanly, with a descriptor it kept in reserve for this, says so once (the power `trouble`),
// and rests, longer each time, out of the poll set (the power `deadline`): never a hot loop.
// Accepted sockets are non-blocking and close-on-exec from birth and inherit TCP_NODELAY from the
// listener, so a connection costs one accept4(2) and nothing else before its first byte.
#pragma once

#include <reactor/net/address.hpp>
#include <reactor/net/stream.hpp>

namespace reactor::inline v0 {

/// A TCP connection: a Writable; see BasicStream. NODELAY is on (RFC 896 is for terminals).
template <class KernelType = os::Kernel>
class BasicTcpStream : public BasicStream<KernelType> {
  public:
    using Kernel = KernelType;
    using Fd = os::BasicFd<Kernel>;

    /// Takes over a connected TCP socket that may be in any state; makes it non-blocking and
    /// close-on-exec and sets NODELAY. On an error the descriptor is closed.
    BasicTcpStream(Fd fd, std::error_code& error) noexcept
        : BasicStream<Kernel>(std::move(fd), error) {
        error = error ? error : set_no_delay(true);
        if (error) {
            static_cast<void>(this->release());
        }
    }
#ifdef __cpp_exceptions
    /// The same; throws std::system_error.
    explicit BasicTcpStream(Fd fd) : BasicStream<Kernel>(std::move(fd)) {
        if (const std::error_code error = set_no_delay(true)) {
            throw std::system_error(error, "reactor::BasicTcpStream");
        }
    }
#endif

    /// Nagle's algorithm off (true) or on (false); TCP_NODELAY.
    std::error_code set_no_delay(bool on) noexcept {
        return Kernel::set_option(this->fd(), IPPROTO_TCP, TCP_NODELAY, on ? 1 : 0).code();
    }
    /// The address of our end; empty if it has none.
    [[nodiscard]] Address local() const noexcept {
        return Address::filled([this](sockaddr* at, socklen_t* size) {
            return Kernel::local_name(this->fd(), at, size);
        });
    }
    /// The address of the peer; empty if there is none any more.
    [[nodiscard]] Address peer() const noexcept {
        return Address::filled([this](sockaddr* at, socklen_t* size) {
            return Kernel::peer_name(this->fd(), at, size);
        });
    }

  private:
    template <class>
    friend class BasicTcpListener;

    /// An accepted socket: all is set already.
    struct Accepted {};
    BasicTcpStream(Fd fd, Accepted) noexcept
        : BasicStream<Kernel>(std::move(fd), os::FdTraits{true, false, true, true}) {}
};

/// How a listener is made.
struct ListenOptions {
    /// Connections that may wait for accept; the kernel cuts it to net.core.somaxconn.
    int backlog = 4096;
    /// May bind although connections of an earlier listener linger (SO_REUSEADDR).
    bool reuse_address = true;
    /// Several listeners share one port, the kernel spreads the clients (SO_REUSEPORT).
    bool reuse_port = false;
};

/// Accepts TCP connections: a Resource.
template <class KernelType = os::Kernel>
class BasicTcpListener {
  public:
    using Kernel = KernelType;
    using Fd = os::BasicFd<Kernel>;
    static constexpr bool born_non_blocking = true;

    /// A client: the connection, and where it came from.
    struct Event {
        BasicTcpStream<Kernel> stream;
        Address peer;
    };

    /// Listens on `address`; port 0 lets the kernel choose (see local()). On an error the listener
    /// is empty, and registering it fails with EBADF.
    [[nodiscard]] static BasicTcpListener bind(const Address& address, std::error_code& error,
                                               const ListenOptions& options = {}) noexcept {
        BasicTcpListener listener;
        if (!address.is_ipv4() && !address.is_ipv6()) {
            error = std::make_error_code(std::errc::address_family_not_supported);
            return listener;
        }
        const os::Result made = Kernel::stream_socket(address.family());
        error = made.code();
        if (made.ok()) {
            listener.fd_.reset(made.fd());
            error = listener.set_up(address, options);
        }
        if (error) {
            listener.fd_.reset();
        }
        return listener;
    }
    /// The same for an address in text, see Address::parse().
    [[nodiscard]] static BasicTcpListener bind(std::string_view address, std::error_code& error,
                                               const ListenOptions& options = {}) noexcept {
        const Address parsed = Address::parse(address, error);
        return error ? BasicTcpListener() : bind(parsed, error, options);
    }
#ifdef __cpp_exceptions
    /// The same; throws std::system_error.
    [[nodiscard]] static BasicTcpListener bind(const Address& address,
                                               const ListenOptions& options = {}) {
        std::error_code error;
        BasicTcpListener listener = bind(address, error, options);
        if (error) {
            throw std::system_error(error, "reactor: cannot listen on " + address.to_string());
        }
        return listener;
    }
    /// The same for an address in text; throws std::system_error.
    [[nodiscard]] static BasicTcpListener bind(std::string_view address,
                                               const ListenOptions& options = {}) {
        return bind(Address::parse(address), options);
    }
#endif

    /// The address it listens on, with the port that the kernel chose.
    [[nodiscard]] Address local() const noexcept {
        return Address::filled([this](sockaddr* at, socklen_t* size) {
            return Kernel::local_name(fd_.get(), at, size);
        });
    }

    // -- Resource ---------------------------------------------------------------------------------

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    [[nodiscard]] Interest interest() const noexcept { return {!resting_until_, false}; }

    /// Accepts one client.
    [[nodiscard]] std::optional<Event> handle_io(Io io) noexcept {
        if (io == Io::write || resting_until_ || end_ != 0) {
            return std::nullopt;
        }
        for (int tries = 0; tries < 64; ++tries) {
            os::Result accepted;
            const Address peer = Address::filled([&](sockaddr* at, socklen_t* size) {
                accepted = Kernel::accept(fd_.get(), at, size);
                return accepted;
            });
            if (accepted.ok()) [[likely]] {
                rest_ = shortest_rest;
                trouble_told_ = false;
                return Event{{Fd(accepted.fd()), typename BasicTcpStream<Kernel>::Accepted{}},
                             peer};
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
        return std::nullopt;
    }
    [[nodiscard]] std::optional<std::error_code> ended() const noexcept {
        return end_ == 0 ? std::nullopt
                         : std::optional(std::error_code(end_, std::system_category()));
    }
    /// Out of descriptors or memory: told once, until a client is accepted again.
    [[nodiscard]] std::error_code trouble() noexcept {
        return {std::exchange(trouble_, 0), std::system_category()};
    }
    [[nodiscard]] std::optional<Timestamp> deadline() const noexcept { return resting_until_; }
    void handle_deadline() noexcept {
        resting_until_.reset();
        if (!reserve_) {
            keep_reserve();
        }
    }

  private:
    static constexpr Duration shortest_rest = std::chrono::milliseconds{100};
    static constexpr Duration longest_rest = std::chrono::seconds{1};

    BasicTcpListener() noexcept = default;

    [[nodiscard]] std::error_code set_up(const Address& address,
                                         const ListenOptions& options) noexcept {
        const int fd = fd_.get();
        os::Result result;
        const auto set = [&](int level, int name, bool on) {
            if (result.ok() && on) {
                result = Kernel::set_option(fd, level, name, 1);
            }
        };
        set(SOL_SOCKET, SO_REUSEADDR, options.reuse_address);
        set(SOL_SOCKET, SO_REUSEPORT, options.reuse_port);
        set(IPPROTO_TCP, TCP_NODELAY, true); // inherited by what is accepted
        result = result.ok() ? Kernel::bind(fd, address.data(), address.size()) : result;
        result = result.ok() ? Kernel::listen(fd, options.backlog) : result;
        if (result.ok()) {
            keep_reserve();
        }
        return result.code();
    }

    /// accept(2): these belong to the connection that was to be accepted, or pass by themselves.
    [[nodiscard]] static bool is_of_one_connection(int error) noexcept {
        switch (error) {
        case ECONNABORTED:
        case ECONNRESET:
        case EPROTO:
        case EPERM:
        case ETIMEDOUT:
        case ENETDOWN:
        case ENETUNREACH:
        case EHOSTDOWN:
        case EHOSTUNREACH:
        case ENONET:
        case ENOPROTOOPT:
        case EOPNOTSUPP:
            return true;
        default:
            return false;
        }
    }
    [[nodiscard]] static bool is_shortage(int error) noexcept {
        return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
    }
    /// Turns the first waiting client away, so that it is not left hanging, and rests.
    void bear_shortage(int error) noexcept {
        if (reserve_ && (error == EMFILE || error == ENFILE)) {
            reserve_.reset();
            Fd turned_away(Kernel::accept(fd_.get(), nullptr, nullptr).fd_or_none());
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
};

/// A TCP connection of the operating system.
using TcpStream = BasicTcpStream<os::Kernel>;
/// A TCP listener of the operating system.
using TcpListener = BasicTcpListener<os::Kernel>;

static_assert(Writable<TcpStream>);
static_assert(Resource<TcpListener>);

} // namespace reactor::inline v0
