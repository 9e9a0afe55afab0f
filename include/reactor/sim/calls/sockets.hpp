// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: calls that make sockets and give them names.
//
// TCP over IPv4 and IPv6, and UNIX stream sockets with a path, an abstract name or none. Every IP
// address is the machine's own, and a port is free as soon as its last socket is closed.
#pragma once

#include <reactor/sim/calls/addresses.hpp>

namespace reactor::inline v0 {
namespace sim {

/// Calls of os::Kernel, as they are in the current World; each contract there holds here.
struct SocketCalls {
    /// Of AF_INET, AF_INET6 or AF_UNIX.
    static os::Result stream_socket(int family) noexcept {
        return detail::answer(
            Call::socket, -1, static_cast<std::uint64_t>(family), [&](World& world) {
                if (family != AF_INET && family != AF_INET6 && family != AF_UNIX) {
                    return Result{0, EAFNOSUPPORT};
                }
                const int error = detail::shortage_of_sockets(world);
                const Result made = error != 0 ? Result{0, error}
                                               : world.open(File::Kind::socket);
                if (made.ok()) {
                    world.find(made.fd())->family = family;
                }
                return made;
            });
    }
    /// Two UNIX sockets, each the other's peer; both -1 on an error.
    static os::Result stream_pair(int& first, int& second) noexcept {
        first = second = -1;
        return detail::answer(Call::pair, -1, 0, [&](World& world) {
            const int error = detail::shortage_of_sockets(world);
            return error != 0 ? Result{0, error} : world.stream_pair(first, second);
        });
    }
    /// With port 0: to a port that nobody has.
    static os::Result bind(int fd, const sockaddr* address, socklen_t size) noexcept {
        return detail::on_socket(Call::bind, fd, 0, [&](World& world, File& file) {
            Address wanted = Address::from(address, size);
            if (const int error = detail::mismatch(file, wanted); error != 0) {
                return Result{0, error};
            }
            if (file.is_unix()) {
                return bind_unix(world, file, wanted);
            }
            if (file.bound.port() != 0 || file.connection) {
                return Result{0, EINVAL};
            }
            if (wanted.port() == 0 && !file.options.late_port) {
                wanted = wanted.with_port(world.free_port());
            }
            if (world.is_taken(wanted, file.options) || world.is_bound(wanted, file)) {
                return Result{0, EADDRINUSE};
            }
            file.bound = wanted;
            file.options.only_ipv6 |= file.family == AF_INET6 && !Network::is_any(wanted);
            return Result{};
        });
    }
    /// A TCP socket that is not bound gets a port; a UNIX socket must be bound.
    static os::Result listen(int fd, int backlog) noexcept {
        return detail::on_socket(
            Call::listen, fd, static_cast<std::uint64_t>(backlog), [&](World& world, File& file) {
                const auto limit = static_cast<std::size_t>(std::max(backlog, 0));
                if (file.backlog) {
                    file.backlog->limit = limit;
                    return Result{};
                }
                return begin_to_listen(world, file, limit);
            });
    }
    /// getsockname(2).
    static os::Result local_name(int fd, sockaddr* address, socklen_t* size) noexcept {
        return detail::on_socket(Call::name, fd, 0, [&](World&, File& file) {
            detail::tell(file, file.connection ? file.side()->name : file.bound, address, size);
            return Result{};
        });
    }
    /// getpeername(2).
    static os::Result peer_name(int fd, sockaddr* address, socklen_t* size) noexcept {
        return detail::on_socket(Call::name, fd, 1, [&](World&, File& file) {
            const Side* const side = file.side();
            if (side == nullptr || !side->established ||
                (file.connection->is_tcp() && file.connection->is_over(file.which))) {
                return Result{0, ENOTCONN};
            }
            detail::tell(file, file.connection->side(1 - file.which).name, address, size);
            return Result{};
        });
    }

  private:
    using Result = os::Result;

    /// Linux looks first whether a path is taken, and then whether the socket has a name already.
    static Result bind_unix(World& world, File& file, const Address& to) {
        const std::string path(to.path());
        if (!path.empty() && world.find_path(path) != nullptr) {
            return {0, EADDRINUSE};
        }
        if (!file.bound.empty() || (file.connection && !file.side()->name.empty())) {
            return {0, EINVAL};
        }
        if (!path.empty()) {
            constexpr unsigned mask = 022;
            file.inode = world.make_path(path, true, file.mode & ~mask)->inode;
        } else if (world.is_bound(to, file)) {
            return {0, EADDRINUSE};
        }
        file.bound = to;
        if (file.connection) {
            file.side()->name = to;
        }
        return {};
    }
    static Result begin_to_listen(World& world, File& file, std::size_t limit) {
        if (file.connection || (file.is_unix() && file.bound.empty())) {
            return {0, EINVAL};
        }
        if (!file.is_unix() && file.bound.port() == 0) {
            const Address host = file.bound.empty() ? detail::any(file) : file.bound;
            file.bound = host.with_port(world.free_port());
        }
        if (!file.is_unix() && world.is_taken(file.bound, file.options)) {
            return {0, EADDRINUSE};
        }
        file.backlog = std::make_unique<Backlog>();
        file.backlog->address = file.bound;
        file.backlog->inode = file.inode;
        file.backlog->limit = limit;
        file.backlog->reuse_port = file.options.reuse_port;
        file.backlog->only_ipv6 = file.options.only_ipv6;
        world.publish(*file.backlog);
        return {};
    }
};

} // namespace sim
} // namespace reactor::inline v0
