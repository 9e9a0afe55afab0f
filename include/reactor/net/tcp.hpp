// SPDX-License-Identifier: Apache-2.0
//
// Net: TCP (tcp(7)). A TcpListener accepts; a TcpStream is a SocketStream with what is TCP's.
//
// Options are set where a socket begins: on a listener, from which every accepted socket inherits
// them without a system call of its own, or before a connect, as buffer sizes take part in the
// handshake. What could not be set is an error of the making, not a silent default.
#pragma once

#include <reactor/net/listener.hpp>
#include <reactor/net/tcp_options.hpp>

namespace reactor::inline v0 {

/// A TCP connection: a Writable; see BasicSocketStream and BasicStream. NODELAY is on unless asked
/// otherwise (RFC 896 is for terminals).
template <class KernelType = os::Kernel>
class BasicTcpStream : public BasicSocketStream<KernelType> {
    using Base = BasicSocketStream<KernelType>;

  public:
    /// What its system calls go through.
    using Kernel = KernelType;
    /// How it owns its descriptor.
    using Fd = os::BasicFd<Kernel>;

    /// Takes over a connected TCP socket that may be in any state; makes it non-blocking and
    /// close-on-exec and sets NODELAY. On an error the descriptor is closed.
    BasicTcpStream(Fd fd, std::error_code& error) noexcept : Base(std::move(fd), error) {
        error = error ? error : set_no_delay(true);
        if (error) {
            static_cast<void>(this->release());
        }
    }
#ifdef __cpp_exceptions
    /// The same; throws std::system_error.
    explicit BasicTcpStream(Fd fd) : Base(std::move(fd)) {
        if (const std::error_code error = set_no_delay(true)) {
            throw std::system_error(error, "reactor::BasicTcpStream");
        }
    }
#endif
    /// For listeners: from accept4(2), with all set.
    BasicTcpStream(Fd fd, detail::Accepted) noexcept
        : Base(std::move(fd), os::FdTraits{true, false, true, true}) {}

    /// Begins to connect to `address`; the transport says `connected` once, or ends with the cause,
    /// whatever that is: a bad address, refused, unreachable, no descriptor or local port left, or
    /// timed_out once `limit` has passed from now. Until then it is sent to as any other; what is
    /// unsent at an end is counted there. Duration::max(): the kernel's limit (about two minutes).
    [[nodiscard]] static BasicTcpStream connect(const Address& address, Duration limit,
                                                const ConnectOptions& options = {}) noexcept {
        if (!address.is_ipv4() && !address.is_ipv6()) {
            return failed(EAFNOSUPPORT);
        }
        const os::Result made = Kernel::stream_socket(address.family());
        if (!made.ok()) {
            return failed(made.error);
        }
        BasicTcpStream stream(Fd(made.fd()), nullptr);
        if (const os::Result set = detail::prepare_connect<Kernel>(made.fd(), options); !set.ok()) {
            stream.fail_early(set.error);
        } else {
            stream.begin(address, limit);
        }
        return stream;
    }
    /// The same for an address in text, see Address::parse().
    [[nodiscard]] static BasicTcpStream connect(std::string_view address, Duration limit,
                                                const ConnectOptions& options = {}) noexcept {
        std::error_code error;
        const Address parsed = Address::parse(address, error);
        return error ? failed(error.value()) : connect(parsed, limit, options);
    }

    /// Nagle's algorithm off (true) or on (false); TCP_NODELAY.
    std::error_code set_no_delay(bool on) noexcept {
        return Kernel::set_option(this->fd(), IPPROTO_TCP, TCP_NODELAY, on ? 1 : 0).code();
    }
    /// Sets what `options` names, at any time; see TcpOptions for what takes effect when.
    std::error_code set_options(const TcpOptions& options) noexcept {
        return detail::apply<Kernel>(this->fd(), options).code();
    }
    /// How the kernel sees the connection (TCP_INFO); the error if it does not tell.
    [[nodiscard]] TcpInfo info(std::error_code& error) const noexcept {
        return detail::tcp_info_of<Kernel>(this->fd(), error);
    }

  private:
    BasicTcpStream(Fd fd, std::nullptr_t) noexcept : Base(std::move(fd), nullptr) {}
    [[nodiscard]] static BasicTcpStream failed(int error) noexcept {
        BasicTcpStream stream(Fd(), nullptr);
        stream.fail_early(error);
        return stream;
    }
};

/// Accepts TCP connections: a Resource. See BasicSocketListener for how it bears shortages.
template <class KernelType = os::Kernel>
class BasicTcpListener : public BasicSocketListener<BasicTcpStream<KernelType>> {
    using Base = BasicSocketListener<BasicTcpStream<KernelType>>;

  public:
    /// What its system calls go through.
    using Kernel = KernelType;
    /// How it owns its descriptor.
    using Fd = os::BasicFd<Kernel>;

    /// Adopts a socket that listens already (from a service manager, another process, another
    /// runtime): makes it non-blocking and close-on-exec, and keeps its options. Fails with
    /// invalid_argument if it does not listen, or is not TCP; the descriptor is then closed.
    BasicTcpListener(Fd fd, std::error_code& error) noexcept {
        this->take(std::move(fd));
        constexpr int families[] = {AF_INET, AF_INET6};
        error = this->adopt(families);
        if (error) {
            static_cast<void>(this->release());
        }
    }
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
            listener.take(Fd(made.fd()));
            error = detail::prepare_listen<Kernel>(made.fd(), address, options).code();
            error = error ? error : listener.begin(options.backlog);
            listener.set_deadlines(options.deadlines);
        }
        if (error) {
            static_cast<void>(listener.release());
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
    /// Adopts a socket that listens already; throws std::system_error.
    explicit BasicTcpListener(Fd fd) {
        std::error_code error;
        *this = BasicTcpListener(std::move(fd), error);
        if (error) {
            throw std::system_error(error, "reactor::BasicTcpListener");
        }
    }
    /// As the other bind; throws std::system_error.
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

  private:
    BasicTcpListener() noexcept = default;
};

/// A TCP connection of the operating system.
using TcpStream = BasicTcpStream<os::Kernel>;
/// A TCP listener of the operating system.
using TcpListener = BasicTcpListener<os::Kernel>;

static_assert(Writable<TcpStream>);
static_assert(Resource<TcpListener>);

} // namespace reactor::inline v0
