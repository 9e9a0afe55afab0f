// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: calls that join sockets and part them.
//
// A TCP connect is answered with EINPROGRESS and goes over the network; a UNIX connect is done or
// refused at once, and answered with EAGAIN while the listener has no room.
#pragma once

#include <reactor/sim/calls/addresses.hpp>

namespace reactor::inline v0 {
namespace sim {

/// Calls of os::Kernel, as they are in the current World; each contract there holds here.
struct ConnectionCalls {
    /// See the room's first lines; asked again, it tells how far it is.
    static os::Result connect(int fd, const sockaddr* address, socklen_t size) noexcept {
        return detail::on_socket(Call::connect, fd, 0, [&](World& world, File& file) {
            if (!file.is_unix() && (file.connection || file.backlog)) {
                return progress(file);
            }
            const Address to = Address::from(address, size);
            if (const int error = detail::mismatch(file, to); error != 0) {
                return Result{0, error};
            }
            return file.is_unix() ? connect_unix(world, file, to) : begin(world, file, to);
        });
    }
    /// Looks for a descriptor first, as Linux does, and then whether anybody is there.
    static os::Result accept(int fd, sockaddr* address, socklen_t* size) noexcept {
        return detail::on_socket(Call::accept, fd, 0, [&](World& world, File& file) {
            return take_client(world, file, address, size);
        });
    }
    /// Our half.
    static os::Result shutdown_write(int fd) noexcept {
        return detail::on_socket(Call::shutdown_write, fd, 0, [&](World&, File& file) {
            if (file.connection) {
                file.was_connecting = false; // connect() is no longer asked how far it is
                return file.connection->shutdown_write(file.which);
            }
            return Result{0, file.backlog || file.is_unix() ? 0 : ENOTCONN};
        });
    }

  private:
    using Result = os::Result;

    /// Looks for the listener first, as Linux does, and then at the socket.
    static Result connect_unix(World& world, File& file, const Address& to) {
        Backlog* listener = nullptr;
        if (const int error = world.find_unix(to, listener); error != 0) {
            return {0, error};
        }
        if (file.connection || file.backlog) {
            return {0, file.connection ? EISCONN : EINVAL};
        }
        file.connection = std::make_shared<Connection>(world, Connection::Kind::unix_stream);
        file.which = 0;
        file.side()->heed(file.options);
        world.join(file.connection, *listener, file.bound);
        return {};
    }
    /// What connect() says of a TCP socket that is not fresh.
    static Result progress(File& file) {
        if (file.backlog) {
            return {0, EISCONN};
        }
        Side& side = *file.side();
        if (side.error != 0) {
            return {0, std::exchange(side.error, 0)};
        }
        if (side.established) {
            return {0, std::exchange(file.was_connecting, false) ? 0 : EISCONN};
        }
        return {0, side.cut ? ECONNABORTED : EALREADY};
    }
    static Result begin(World& world, File& file, const Address& to) {
        const bool needs_port = file.bound.port() == 0;
        if (needs_port && world.random.chance(world.weather.no_ports)) {
            return {0, EADDRNOTAVAIL};
        }
        file.connection = std::make_shared<Connection>(world, Connection::Kind::tcp);
        file.which = 0;
        file.was_connecting = true;
        file.side()->heed(file.options);
        if (needs_port) {
            file.bound = (file.bound.empty() ? to : file.bound).with_port(world.free_port());
        }
        Address from = file.bound;
        if (Network::is_any(from)) {
            from = (Network::is_any(to) ? Network::loopback(to) : to).with_port(from.port());
        }
        world.call(file.connection, to, from);
        return {0, EINPROGRESS};
    }
    static Result take_client(World& world, File& file, sockaddr* address,
                              socklen_t* size) {
        if (!file.backlog) {
            return {0, EINVAL};
        }
        if (const int error = detail::shortage_of_sockets(world); error != 0) {
            return {0, error};
        }
        if (world.open_descriptors() >= world.weather.descriptors) {
            return {0, EMFILE};
        }
        Backlog& backlog = *file.backlog;
        if (backlog.waiting.empty() || world.random.chance(world.weather.would_block)) {
            return {0, EAGAIN};
        }
        auto accepted = std::make_shared<File>(File::Kind::socket);
        accepted->family = file.family;
        accepted->options = file.options;
        accepted->connection = std::move(backlog.waiting.front());
        accepted->which = 1;
        backlog.waiting.pop_front();
        if (accepted->connection->is_tcp() && world.random.chance(world.weather.aborted)) {
            accepted->connection->fail(1, ECONNABORTED);
            accepted->connection->close(1);
            return {0, ECONNABORTED};
        }
        accepted->side()->heed(accepted->options);
        detail::tell(*accepted, accepted->connection->side(0).name, address, size);
        return world.open(std::move(accepted));
    }

};

} // namespace sim
} // namespace reactor::inline v0
