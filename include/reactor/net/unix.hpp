// SPDX-License-Identifier: Apache-2.0
//
// Net: UNIX stream sockets (unix(7)). A UnixListener accepts; a UnixStream is a SocketStream that
// knows who is at the other end.
//
// The name of a UNIX socket is a file, and most of this room is about that file. It is born with
// the mode that was asked for and listens only then. One that a dead process has left is replaced,
// one that anybody listens on is not, and what is no socket is never touched. It leaves with its
// listener, unless somebody else's stands there by then: the inode is compared while the socket is
// still open and so holds it.
//
// The kernel removes a path, not a socket, so between a look and the removal another process may
// put its own there; the moment is as short as can be, and where listeners of one path may start at
// once, a lock or a service manager (net/inherited.hpp) has to decide. The road not taken is to
// bind elsewhere and to rename: local() and the peers would then tell a path that is not there.
#pragma once

#include <reactor/detail/bound_file.hpp>
#include <reactor/net/listener.hpp>

#include <utility>

namespace reactor::inline v0 {

/// Who is at the other end of a UNIX connection (SO_PEERCRED), as of connect(2) or listen(2) there.
struct UnixCredentials {
    int process = 0;    ///< 0: in a process namespace that we do not see into
    unsigned user = 0;  ///< effective, at that moment
    unsigned group = 0; ///< effective, at that moment
};

/// How a UNIX listener is made.
struct UnixListenOptions {
    /// Connections that may wait for accept; the kernel cuts it to net.core.somaxconn. Who comes
    /// then tries again (see UnixStream::connect).
    int backlog = 4096;
    /// Permission bits of the file, exactly these whatever the umask is: to connect is to write.
    /// Not set: 0777 less the umask. An abstract name has no file and cannot be kept from anybody.
    std::optional<unsigned> mode{};
    /// A socket file that nobody listens on is removed first.
    bool replace_stale = true;
    /// Given to each stream that is accepted.
    StreamDeadlines deadlines{};
    /// Of each stream that is accepted (SO_SNDBUF); zero: the system's. There is no receive buffer:
    /// what waits to be read counts as the sender's.
    int send_buffer = 0;
};

namespace detail {

/// Zero if this is a UNIX stream socket, else why it is none.
template <class Kernel>
[[nodiscard]] std::error_code is_unix_stream(int fd) noexcept {
    const os::Result family = Kernel::option(fd, SOL_SOCKET, SO_DOMAIN);
    const os::Result type = Kernel::option(fd, SOL_SOCKET, SO_TYPE);
    if (!family.ok() || !type.ok()) {
        return family.ok() ? type.code() : family.code();
    }
    if (family.value != AF_UNIX) {
        return std::make_error_code(std::errc::address_family_not_supported);
    }
    return type.value == SOCK_STREAM ? std::error_code{}
                                     : std::make_error_code(std::errc::invalid_argument);
}

} // namespace detail

/// A UNIX stream connection: a Writable; see BasicSocketStream and BasicStream. A peer that closes
/// it, or exits, without having read what we sent resets it: after the last byte that it sent us
/// the end is ECONNRESET.
template <class KernelType = os::Kernel>
class BasicUnixStream : public BasicSocketStream<KernelType> {
    using Base = BasicSocketStream<KernelType>;

  public:
    /// What its system calls go through.
    using Kernel = KernelType;
    /// How it owns its descriptor.
    using Fd = os::BasicFd<Kernel>;

    /// Takes over a connected UNIX stream socket that may be in any state; makes it non-blocking
    /// and close-on-exec. Fails with address_family_not_supported or invalid_argument if it is
    /// another kind of socket. On an error the descriptor is closed.
    BasicUnixStream(Fd fd, std::error_code& error) noexcept : Base(std::move(fd), error) {
        error = error ? error : detail::is_unix_stream<Kernel>(this->fd());
        if (error) {
            static_cast<void>(this->release());
        }
    }
#ifdef __cpp_exceptions
    /// The same; throws std::system_error.
    explicit BasicUnixStream(Fd fd) : Base(std::move(fd)) {
        if (const std::error_code error = detail::is_unix_stream<Kernel>(this->fd())) {
            throw std::system_error(error, "reactor::BasicUnixStream");
        }
    }
#endif
    /// For listeners: from accept4(2), with all set.
    BasicUnixStream(Fd fd, detail::Accepted) noexcept
        : Base(std::move(fd), os::FdTraits{true, false, true, true}) {}

    /// Begins to connect to `address`; the transport says `connected` once, or ends with the cause,
    /// whatever that is: a bad address or family, no such file, refused, no permission, no
    /// descriptor left. While the listener has no room for more it is tried again, with rests of 1
    /// to 100 ms, until `limit` has passed from now: then it ends with timed_out; Duration::max()
    /// tries for ever. Until it is connected it is sent to as any other; what is unsent at an end
    /// is counted there.
    [[nodiscard]] static BasicUnixStream connect(const Address& address, Duration limit) noexcept {
        if (!address.is_unix()) {
            return failed(EAFNOSUPPORT);
        }
        const os::Result made = Kernel::stream_socket(AF_UNIX);
        if (!made.ok()) {
            return failed(made.error);
        }
        BasicUnixStream stream(Fd(made.fd()), nullptr);
        stream.begin(address, limit);
        return stream;
    }
    /// The same for an address in text: `unix:/path` or `unix:@name`, see Address::parse().
    [[nodiscard]] static BasicUnixStream connect(std::string_view address,
                                                 Duration limit) noexcept {
        std::error_code error;
        const Address parsed = Address::parse(address, error);
        return error ? failed(error.value()) : connect(parsed, limit);
    }
    /// Two streams that are each other's peer (socketpair(2)); both empty on an error.
    [[nodiscard]] static std::pair<BasicUnixStream, BasicUnixStream>
    pair(std::error_code& error) noexcept {
        int first = -1;
        int second = -1;
        error = Kernel::stream_pair(first, second).code();
        if (error) {
            return {failed(error.value()), failed(error.value())};
        }
        return {BasicUnixStream(Fd(first), detail::Accepted{}),
                BasicUnixStream(Fd(second), detail::Accepted{})};
    }
#ifdef __cpp_exceptions
    /// The same; throws std::system_error.
    [[nodiscard]] static std::pair<BasicUnixStream, BasicUnixStream> pair() {
        std::error_code error;
        auto both = pair(error);
        if (error) {
            throw std::system_error(error, "reactor::BasicUnixStream::pair");
        }
        return both;
    }
#endif

    /// Who the peer is, by word of the kernel. Of a stream that was accepted, who connected; of one
    /// that connected, who listened; of a pair, who made it. Fails with ENOTCONN until it is
    /// connected.
    [[nodiscard]] UnixCredentials peer_credentials(std::error_code& error) const noexcept {
        ucred peer{};
        error = Kernel::option_into(this->fd(), SOL_SOCKET, SO_PEERCRED, peer).code();
        if (!error && peer.uid == static_cast<uid_t>(-1)) {
            error = {ENOTCONN, std::system_category()}; // what the kernel says for nobody
        }
        return error ? UnixCredentials{} : UnixCredentials{peer.pid, peer.uid, peer.gid};
    }
    /// How much the kernel takes for the peer to read (SO_SNDBUF; it doubles the number).
    std::error_code set_send_buffer(int size) noexcept {
        return Kernel::set_option(this->fd(), SOL_SOCKET, SO_SNDBUF, size).code();
    }

  private:
    BasicUnixStream(Fd fd, std::nullptr_t) noexcept : Base(std::move(fd), nullptr) {}
    [[nodiscard]] static BasicUnixStream failed(int error) noexcept {
        BasicUnixStream stream(Fd(), nullptr);
        stream.fail_early(error);
        return stream;
    }
};

/// Accepts UNIX stream connections: a Resource. See BasicSocketListener for how it bears shortages.
///
/// As it goes it removes its file, if that is still its own: when it is destroyed or assigned to,
/// in the process that bound it. Not when it is moved, handed over or released. A relative path is
/// looked for where the process then stands.
template <class KernelType = os::Kernel>
class BasicUnixListener : public BasicSocketListener<BasicUnixStream<KernelType>> {
    using Base = BasicSocketListener<BasicUnixStream<KernelType>>;

  public:
    /// What its system calls go through.
    using Kernel = KernelType;
    /// How it owns its descriptor.
    using Fd = os::BasicFd<Kernel>;
    /// What it yields.
    using Event = typename Base::Event;

    /// Adopts a socket that listens already (from a service manager, another process, another
    /// runtime): makes it non-blocking and close-on-exec. Its file is whoever bound it's: it stays.
    /// Fails with invalid_argument if it does not listen, or is not UNIX; the descriptor is then
    /// closed.
    BasicUnixListener(Fd fd, std::error_code& error) noexcept {
        this->take(std::move(fd));
        constexpr int families[] = {AF_UNIX};
        error = this->adopt(families);
        if (error) {
            static_cast<void>(release());
        }
    }
    /// Takes over the socket, and the care of its file.
    BasicUnixListener(BasicUnixListener&&) noexcept = default;
    /// The same; what it had before goes, its file first.
    BasicUnixListener& operator=(BasicUnixListener&& other) noexcept {
        if (this != &other) {
            file_.remove(); // while the socket is open
            Base::operator=(std::move(other));
            file_.take(other.file_);
            send_buffer_ = other.send_buffer_;
        }
        return *this;
    }
    ~BasicUnixListener() = default; // file_ goes before the socket

    /// Listens on `address`, a path or an abstract name. On an error the listener is empty, and
    /// registering it fails with EBADF. EADDRINUSE: something stands at the path, and is no socket
    /// file that nobody listens on; of two that bind one path in the same moment it may be both.
    /// Fails with invalid_argument if an abstract name was to have a mode.
    [[nodiscard]] static BasicUnixListener bind(const Address& address, std::error_code& error,
                                                const UnixListenOptions& options = {}) noexcept {
        BasicUnixListener listener;
        if (!address.is_unix()) {
            error = std::make_error_code(std::errc::address_family_not_supported);
            return listener;
        }
        if (options.mode && address.path().empty()) {
            error = std::make_error_code(std::errc::invalid_argument);
            return listener;
        }
        const os::Result made = Kernel::stream_socket(AF_UNIX);
        error = made.code();
        if (made.ok()) {
            listener.take(Fd(made.fd()));
            listener.set_deadlines(options.deadlines);
            listener.send_buffer_ = options.send_buffer;
            error = listener.bind_to(address, options).code();
            error = error ? error : listener.begin(options.backlog);
            error = error ? error : listener.confirm();
        }
        if (error) {
            listener.file_.remove();
            static_cast<void>(listener.release());
        }
        return listener;
    }
    /// The same for an address in text: `unix:/path` or `unix:@name`, see Address::parse().
    [[nodiscard]] static BasicUnixListener bind(std::string_view address, std::error_code& error,
                                                const UnixListenOptions& options = {}) noexcept {
        const Address parsed = Address::parse(address, error);
        return error ? BasicUnixListener() : bind(parsed, error, options);
    }
#ifdef __cpp_exceptions
    /// Adopts a socket that listens already; throws std::system_error.
    explicit BasicUnixListener(Fd fd) {
        std::error_code error;
        *this = BasicUnixListener(std::move(fd), error);
        if (error) {
            throw std::system_error(error, "reactor::BasicUnixListener");
        }
    }
    /// As the other bind; throws std::system_error.
    [[nodiscard]] static BasicUnixListener bind(const Address& address,
                                                const UnixListenOptions& options = {}) {
        std::error_code error;
        BasicUnixListener listener = bind(address, error, options);
        if (error) {
            throw std::system_error(error, "reactor: cannot listen on " + address.to_string());
        }
        return listener;
    }
    /// The same for an address in text; throws std::system_error.
    [[nodiscard]] static BasicUnixListener bind(std::string_view address,
                                                const UnixListenOptions& options = {}) {
        return bind(Address::parse(address), options);
    }
#endif

    /// The file stays when this goes: for a socket that another process listens on as well.
    void leave_file() noexcept { file_.forget(); }
    /// Takes the descriptor out, open, with who waits to be accepted; the file stays. The listener
    /// is then empty.
    [[nodiscard]] Fd release() noexcept {
        leave_file();
        return Base::release();
    }

    /// Accepts one client.
    [[nodiscard]] std::optional<Event> handle_io(Io io) noexcept {
        std::optional<Event> event = Base::handle_io(io);
        if (event && send_buffer_ > 0) {
            event->stream.set_send_buffer(send_buffer_); // fails for no socket that is one
        }
        return event;
    }

  private:
    BasicUnixListener() noexcept = default;

    [[nodiscard]] os::Result bind_to(const Address& address,
                                     const UnixListenOptions& options) noexcept {
        const bool has_file = !address.path().empty();
        const int fd = this->fd();
        // The file is born with the socket's mode less the umask: never with more than was asked.
        os::Result result = options.mode ? Kernel::set_mode(fd, *options.mode) : os::Result{};
        if (!result.ok()) {
            return result;
        }
        result = Kernel::bind(fd, address.data(), address.size());
        if (result.error == EADDRINUSE && has_file && options.replace_stale &&
            detail::BoundFile<Kernel>::remove_stale(address)) {
            result = Kernel::bind(fd, address.data(), address.size());
        }
        if (!result.ok() || !has_file) {
            return result;
        }
        if (!file_.own(address)) {
            return {0, EADDRINUSE};
        }
        // What the umask took is given back before anybody can connect.
        if (options.mode && !file_.has_mode(*options.mode)) {
            return detail::BoundFile<Kernel>::set_mode(address, *options.mode);
        }
        return result;
    }
    /// Until it listened, another listener may have taken its file for one that is stale.
    [[nodiscard]] std::error_code confirm() const noexcept {
        const bool lost = file_.is_owned() && !file_.stands();
        return {lost ? EADDRINUSE : 0, std::system_category()};
    }

    detail::BoundFile<Kernel> file_;
    int send_buffer_ = 0;
};

/// A UNIX stream connection of the operating system.
using UnixStream = BasicUnixStream<os::Kernel>;
/// A UNIX listener of the operating system.
using UnixListener = BasicUnixListener<os::Kernel>;

static_assert(Writable<UnixStream>);
static_assert(Resource<UnixListener>);

} // namespace reactor::inline v0
