// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: calls that move bytes.
//
// The weather of each call: fewer bytes than could be, EAGAIN although something was there, no
// buffers, a network that cuts the connection. Up to a page is written to a pipe whole, as pipe(7)
// has it, and an eventfd or a signalfd moves whole records, whatever the weather is.
#pragma once

#include <reactor/sim/calls/gate.hpp>

namespace reactor::inline v0 {
namespace sim {

/// Calls of os::Kernel, as they are in the current World; each contract there holds here.
struct ByteCalls {
    /// From any descriptor.
    static os::Result read(int fd, std::span<std::byte> into) noexcept {
        return detail::on(Call::read, fd, into.size(),
                          [&](World& world, File& file) { return read_from(world, file, into); });
    }
    /// From a socket.
    static os::Result recv(int fd, std::span<std::byte> into) noexcept {
        return detail::on_socket(
            Call::recv, fd, into.size(),
            [&](World& world, File& file) { return read_from(world, file, into); });
    }
    /// From a socket; they stay there. An error or an end is told as recv tells it.
    static os::Result peek(int fd, std::span<std::byte> into) noexcept {
        return detail::on_socket(Call::peek, fd, into.size(), [&](World&, File& file) {
            const std::size_t waiting = file.connection ? file.side()->in.size() : 0;
            if (waiting == 0 || into.empty()) {
                return take(file, into);
            }
            const std::size_t count = std::min(waiting, into.size());
            std::copy_n(file.side()->in.front().begin(), count, into.begin());
            return os::Result{static_cast<long>(count), 0};
        });
    }
    /// To a socket.
    static os::Result send(int fd, std::span<const std::byte> bytes) noexcept {
        return detail::on_socket(
            Call::send, fd, bytes.size(),
            [&](World& world, File& file) { return write_to(world, file, bytes); });
    }
    /// The same for bytes that stand in several places.
    static os::Result send(int fd, std::span<const iovec> parts) noexcept {
        const Joined bytes(parts);
        return send(fd, bytes.all);
    }
    /// To any descriptor.
    static os::Result write(int fd, std::span<const iovec> parts) noexcept {
        const Joined bytes(parts);
        return detail::on(Call::write, fd, bytes.all.size(), [&](World& world, File& file) {
            return write_to(world, file, bytes.all);
        });
    }

  private:
    using Result = os::Result;

    /// Bytes in one place; copied only if they stand in several.
    struct Joined {
        explicit Joined(std::span<const iovec> parts) {
            if (parts.size() > 1) {
                for (const iovec& part : parts) {
                    const std::span<const std::byte> more = bytes_at(part);
                    copied.insert(copied.end(), more.begin(), more.end());
                }
                all = copied;
            } else if (!parts.empty()) {
                all = bytes_at(parts.front());
            }
        }
        [[nodiscard]] static std::span<const std::byte> bytes_at(const iovec& part) noexcept {
            return {static_cast<const std::byte*>(part.iov_base), part.iov_len};
        }
        std::vector<std::byte> copied{};
        std::span<const std::byte> all{};
    };

    static Result read_from(World& world, File& file, std::span<std::byte> into) {
        detail::strike(world, file);
        if (world.random.chance(world.weather.would_block)) {
            return {0, EAGAIN};
        }
        if (is_divisible(file)) {
            into = into.first(detail::part(world, world.weather.short_read, into.size()));
        }
        const Result result = take(file, into);
        world.trace.add(into.first(result.count()));
        return result;
    }
    static Result write_to(World& world, File& file, std::span<const std::byte> bytes) {
        detail::strike(world, file);
        if (world.random.chance(world.weather.would_block)) {
            return {0, EAGAIN};
        }
        if (file.is_socket() && world.random.chance(world.weather.no_buffers)) {
            return {0, ENOBUFS};
        }
        if (file.is_socket() && file.connection && file.connection->is_tcp() &&
            world.random.chance(world.weather.vanish)) {
            file.connection->vanish();
        }
        if (file.is_socket() || (is_divisible(file) && bytes.size() > Pipe::page_size)) {
            bytes = bytes.first(detail::part(world, world.weather.short_write, bytes.size()));
        }
        const Result result = put(file, bytes);
        world.trace.add(bytes.first(result.count()));
        return result;
    }
    [[nodiscard]] static bool is_divisible(const File& file) noexcept {
        return file.kind != File::Kind::event && file.kind != File::Kind::signals;
    }

    static Result take(File& file, std::span<std::byte> into) {
        switch (file.kind) {
        case File::Kind::socket:
            return file.connection ? file.connection->recv(file.which, into)
                                   : Result{0, file.is_unix() ? EINVAL : ENOTCONN};
        case File::Kind::pipe_read:
            if (const std::size_t count = file.pipe->read(into); count != 0 || into.empty()) {
                return {static_cast<long>(count), 0};
            }
            return {0, file.pipe->writable_end ? EAGAIN : 0};
        case File::Kind::event:
            if (into.size() < sizeof file.count) {
                return {0, EINVAL};
            }
            if (file.count == 0) {
                return {0, EAGAIN};
            }
            return copied(std::exchange(file.count, 0), into);
        case File::Kind::signals:
            if (into.size() < sizeof(signalfd_siginfo)) {
                return {0, EINVAL};
            }
            if (!file.process->is_pending(file.signals)) {
                return {0, EAGAIN};
            }
            return copied(file.process->read(file.signals), into);
        case File::Kind::always:
            return {};
        case File::Kind::pipe_write:
            return {0, EBADF};
        case File::Kind::epoll:
            break;
        }
        return {0, EINVAL};
    }
    template <class Record>
    static Result copied(const Record& record, std::span<std::byte> into) noexcept {
        std::memcpy(into.data(), &record, sizeof record);
        return {sizeof record, 0};
    }
    static Result put(File& file, std::span<const std::byte> bytes) {
        switch (file.kind) {
        case File::Kind::socket:
            return file.connection ? file.connection->send(file.which, bytes)
                                   : Result{0, file.is_unix() ? ENOTCONN : EPIPE};
        case File::Kind::pipe_write: {
            if (bytes.empty()) {
                return {};
            }
            if (!file.pipe->readable_end) {
                return {0, EPIPE};
            }
            const std::size_t count = file.pipe->write(bytes);
            return {static_cast<long>(count), count == 0 ? EAGAIN : 0};
        }
        case File::Kind::event:
            return add(file, bytes);
        case File::Kind::always:
            return {static_cast<long>(bytes.size()), 0};
        case File::Kind::pipe_read:
            return {0, EBADF};
        case File::Kind::signals:
        case File::Kind::epoll:
            break;
        }
        return {0, EINVAL};
    }
    /// To an eventfd.
    static Result add(File& file, std::span<const std::byte> bytes) noexcept {
        std::uint64_t more = 0;
        if (bytes.size() < sizeof more) {
            return {0, EINVAL};
        }
        std::memcpy(&more, bytes.data(), sizeof more);
        if (more > File::most_count) {
            return {0, EINVAL};
        }
        if (more > File::most_count - file.count) {
            return {0, EAGAIN};
        }
        file.count += more;
        ++file.rings;
        return {sizeof more, 0};
    }
};

} // namespace sim
} // namespace reactor::inline v0
