// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: the kernel that a program on trial runs on.
//
// sim::Kernel has the static functions of os::Kernel that pollers, runtimes, TCP and buffered
// streams use, over the World of this thread; give it to anything that is a template over a Kernel,
// and that runs unchanged. What has no meaning here (signals, threads, the environment, files at a
// path, and so UNIX sockets with a name) is absent: to use it does not compile.
//
// Where it is not Linux: nothing ever blocks, whether a descriptor is non-blocking or not; a UNIX
// pair counts bytes where Linux counts the memory they take, so it is full at another number; TCP
// has no half of a second to lose packets in (what is sent arrives, late or never); options are
// taken and, but for SO_LINGER, the buffers and reuse of ports, have no effect.
// Without a world every call answers ENOSYS, and close() does nothing.
#pragma once

#include <reactor/sim/world.hpp>

namespace reactor::inline v0 {
namespace sim {

/// The kernel of the current World.
struct Kernel {
    using Result = os::Result;

    // -- time and process -------------------------------------------------------------------------

    [[nodiscard]] static Timestamp now() noexcept {
        World* const world = World::current();
        if (world == nullptr) {
            return {};
        }
        world->pass(world->weather.call_cost);
        const Timestamp shown = world->clock();
        world->trace.add(shown, Call::now, -1, 0, {});
        return shown;
    }
    /// The world is one process.
    [[nodiscard]] static int process_id() noexcept { return 1; }
    static void sleep(Duration span) noexcept {
        answer(Call::sleep, -1, static_cast<std::uint64_t>(span.count()), [&](World& world) {
            world.wait(span, [] { return std::size_t{0}; });
            return Result{};
        });
    }
    /// Drawn from the seed.
    [[nodiscard]] static std::uint64_t random() noexcept {
        World* const world = World::current();
        return world == nullptr ? 0 : world->random.next();
    }
    static Result raise_descriptor_limit() noexcept {
        return answer(Call::note, -1, 0, [](World& world) {
            return Result{static_cast<long>(world.weather.descriptors), 0};
        });
    }

    // -- descriptors ------------------------------------------------------------------------------

    static void close(int fd) noexcept {
        answer(Call::close, fd, 0, [&](World& world) { return world.close(fd); });
    }
    static Result set_non_blocking(int fd) noexcept {
        return on(Call::set_flag, fd, O_NONBLOCK, [](World&, File& file) {
            file.non_blocking = true;
            return Result{};
        });
    }
    static Result set_close_on_exec(int fd) noexcept {
        return on(Call::set_flag, fd, FD_CLOEXEC, [](World&, File&) { return Result{}; });
    }
    static Result duplicate(int fd) noexcept {
        return answer(Call::duplicate, fd, 0, [&](World& world) {
            return shortage(world) != 0 ? Result{0, EMFILE} : world.duplicate(fd);
        });
    }
    static Result traits(int fd, os::FdTraits& out) noexcept {
        return on(Call::traits, fd, 0, [&](World&, File& file) {
            out = {file.is_socket(), false, file.kind != File::Kind::pipe_write,
                   file.kind != File::Kind::pipe_read};
            return Result{};
        });
    }

    // -- bytes ------------------------------------------------------------------------------------

    static Result read(int fd, std::span<std::byte> into) noexcept {
        return on(Call::read, fd, into.size(),
                  [&](World& world, File& file) { return read_from(world, file, into); });
    }
    static Result recv(int fd, std::span<std::byte> into) noexcept {
        return on(Call::recv, fd, into.size(), [&](World& world, File& file) {
            return file.is_socket() ? read_from(world, file, into) : Result{0, ENOTSOCK};
        });
    }
    static Result peek(int fd, std::span<std::byte> into) noexcept {
        return on(Call::peek, fd, into.size(), [&](World&, File& file) {
            if (!file.is_socket()) {
                return Result{0, ENOTSOCK};
            }
            const std::size_t waiting = file.connection ? file.side()->in.size() : 0;
            if (waiting == 0 || into.empty()) {
                return take(file, into);
            }
            const std::size_t count = std::min(waiting, into.size());
            std::copy_n(file.side()->in.front().begin(), count, into.begin());
            return Result{static_cast<long>(count), 0};
        });
    }
    static Result send(int fd, std::span<const std::byte> bytes) noexcept {
        return on(Call::send, fd, bytes.size(), [&](World& world, File& file) {
            return file.is_socket() ? write_to(world, file, bytes) : Result{0, ENOTSOCK};
        });
    }
    static Result send(int fd, std::span<const iovec> parts) noexcept {
        const std::vector<std::byte> bytes = joined(parts);
        return send(fd, std::span<const std::byte>(bytes));
    }
    static Result write(int fd, std::span<const iovec> parts) noexcept {
        const std::vector<std::byte> bytes = joined(parts);
        return on(Call::write, fd, bytes.size(),
                  [&](World& world, File& file) { return write_to(world, file, bytes); });
    }

    // -- sockets ----------------------------------------------------------------------------------

    static Result stream_socket(int family) noexcept {
        return answer(Call::socket, -1, static_cast<std::uint64_t>(family), [&](World& world) {
            if (family != AF_INET && family != AF_INET6) {
                return Result{0, EAFNOSUPPORT};
            }
            const int error = shortage(world);
            return error != 0 ? Result{0, error} : world.open(File::Kind::socket);
        });
    }
    static Result stream_pair(int& first, int& second) noexcept {
        first = second = -1;
        return answer(Call::pair, -1, 0, [&](World& world) {
            const int error = shortage(world);
            return error != 0 ? Result{0, error} : world.stream_pair(first, second);
        });
    }
    static Result bind(int fd, const sockaddr* address, socklen_t size) noexcept {
        return on_socket(Call::bind, fd, 0, [&](World& world, File& file) {
            Address wanted = Address::from(address, size);
            if (!file.bound.empty() || wanted.empty()) {
                return Result{0, EINVAL};
            }
            wanted = wanted.port() != 0 ? wanted : wanted.with_port(world.free_port());
            if (world.is_taken(wanted, file.reuse_port)) {
                return Result{0, EADDRINUSE};
            }
            file.bound = wanted;
            return Result{};
        });
    }
    static Result connect(int fd, const sockaddr* address, socklen_t size) noexcept {
        return on_socket(Call::connect, fd, 0, [&](World& world, File& file) {
            return connect(world, file, Address::from(address, size));
        });
    }
    static Result listen(int fd, int backlog) noexcept {
        return on_socket(Call::listen, fd, static_cast<std::uint64_t>(backlog),
                         [&](World& world, File& file) { return listen(world, file, backlog); });
    }
    static Result accept(int fd, sockaddr* address, socklen_t* size) noexcept {
        return on_socket(Call::accept, fd, 0, [&](World& world, File& file) {
            return accept(world, file, address, size);
        });
    }
    static Result shutdown_write(int fd) noexcept {
        return on_socket(Call::shutdown_write, fd, 0, [&](World&, File& file) {
            if (file.backlog) {
                return Result{};
            }
            return file.connection ? file.connection->shutdown_write(file.which)
                                   : Result{0, ENOTCONN};
        });
    }
    static Result local_name(int fd, sockaddr* address, socklen_t* size) noexcept {
        return on_socket(Call::name, fd, 0, [&](World&, File& file) {
            fill(file.connection ? file.side()->name : file.bound, address, size);
            return Result{};
        });
    }
    static Result peer_name(int fd, sockaddr* address, socklen_t* size) noexcept {
        return on_socket(Call::name, fd, 1, [&](World&, File& file) {
            const Side* const side = file.side();
            if (side == nullptr || !side->established ||
                (file.connection->is_tcp() && file.connection->is_over(file.which))) {
                return Result{0, ENOTCONN};
            }
            fill(file.connection->side(1 - file.which).name, address, size);
            return Result{};
        });
    }
    static Result set_option(int fd, int level, int name, int value) noexcept {
        return on_socket(Call::set_option, fd, static_cast<std::uint64_t>(name),
                         [&](World&, File& file) {
                             set(file, level, name, value);
                             return Result{};
                         });
    }
    template <class Value>
    static Result set_option_to(int fd, int level, int name, const Value& value) noexcept {
        return on_socket(Call::set_option, fd, static_cast<std::uint64_t>(name),
                         [&](World&, File& file) {
                             if constexpr (std::same_as<Value, ::linger>) {
                                 if (level == SOL_SOCKET && name == SO_LINGER) {
                                     file.lingers = value.l_onoff == 0 || value.l_linger != 0;
                                 }
                             }
                             return Result{};
                         });
    }
    static Result set_text_option(int fd, int, int name, std::string_view) noexcept {
        return on_socket(Call::set_option, fd, static_cast<std::uint64_t>(name),
                         [](World&, File&) { return Result{}; });
    }
    /// There is nothing behind TCP_INFO here: all zero.
    template <class Value>
    static Result option_into(int fd, int, int name, Value&) noexcept {
        return on_socket(Call::option, fd, static_cast<std::uint64_t>(name),
                         [](World&, File&) { return Result{}; });
    }
    static Result option(int fd, int level, int name) noexcept {
        return on_socket(Call::option, fd, static_cast<std::uint64_t>(name),
                         [&](World&, File& file) { return look_up(file, level, name); });
    }

    // -- demultiplexers ---------------------------------------------------------------------------

    static Result epoll_create() noexcept {
        return answer(Call::epoll_create, -1, 0, [](World& world) {
            const int error = shortage(world);
            return error != 0 ? Result{0, error} : world.open(File::Kind::epoll);
        });
    }
    static Result epoll_control(int epoll, int operation, int fd, std::uint32_t events,
                                std::uint64_t data) noexcept {
        const auto bits = static_cast<std::uint64_t>(operation) << 32 | events;
        return answer(Call::epoll_control, fd, bits, [&](World& world) {
            return operation == EPOLL_CTL_ADD && world.random.chance(world.weather.no_memory)
                       ? Result{0, ENOMEM}
                       : world.epoll_control(epoll, operation, fd, events, data);
        });
    }
    static Result epoll_wait(int epoll, std::span<epoll_event> into, int milliseconds) {
        return wait_for(epoll, into,
                        milliseconds < 0 ? Duration::max()
                                         : Duration{std::chrono::milliseconds{milliseconds}});
    }
    static Result epoll_wait_precise(int epoll, std::span<epoll_event> into, Duration timeout) {
        return wait_for(epoll, into, timeout);
    }
    static Result poll(std::span<pollfd> fds, Duration timeout) {
        const bool only_looks = timeout == Duration::zero();
        return answer(Call::poll, -1, fds.size(), [&](World& world) {
            if (!only_looks && world.random.chance(world.weather.failing_wait)) {
                return Result{0, ENOMEM};
            }
            const Duration span = early(world, timeout);
            const std::size_t count =
                world.wait(span, [&] { return world.collect(fds, only_looks); });
            for (const pollfd& each : fds) {
                if (each.revents != 0) {
                    world.trace.add(world.time(), Call::poll, each.fd,
                                    static_cast<std::uint64_t>(each.revents), {});
                }
            }
            return Result{static_cast<long>(count), 0};
        });
    }

    // -- the bell of another thread ---------------------------------------------------------------

    static Result event_fd() noexcept {
        return answer(Call::event_fd, -1, 0, [](World& world) {
            const int error = shortage(world);
            return error != 0 ? Result{0, error} : world.open(File::Kind::event);
        });
    }
    static void ring(int fd) noexcept {
        on(Call::ring, fd, 0, [](World&, File& file) {
            ++file.count;
            ++file.rings;
            return Result{};
        });
    }
    static void silence(int fd) noexcept {
        on(Call::silence, fd, 0, [](World&, File& file) {
            file.count = 0;
            return Result{};
        });
    }

  private:
    template <class Body>
    static Result answer(Call call, int fd, std::uint64_t argument, Body&& body) {
        World* const world = World::current();
        if (world == nullptr) {
            return {0, ENOSYS};
        }
        if (world->weather.call_cost != Duration::zero()) {
            world->pass(world->weather.call_cost);
            world->catch_up();
        }
        const Result result = body(*world);
        world->trace.add(world->time(), call, fd, argument, result);
        return result;
    }
    template <class Body>
    static Result on(Call call, int fd, std::uint64_t argument, Body&& body) {
        return answer(call, fd, argument, [&](World& world) {
            File* const file = world.find(fd);
            return file == nullptr ? Result{0, EBADF} : body(world, *file);
        });
    }
    template <class Body>
    static Result on_socket(Call call, int fd, std::uint64_t argument, Body&& body) {
        return on(call, fd, argument, [&](World& world, File& file) {
            return file.is_socket() ? body(world, file) : Result{0, ENOTSOCK};
        });
    }

    // -- weather ----------------------------------------------------------------------------------

    /// Of what makes something.
    [[nodiscard]] static int shortage(World& world) noexcept {
        const Weather& weather = world.weather;
        return world.random.chance(weather.no_descriptors) ? EMFILE
               : world.random.chance(weather.no_files)     ? ENFILE
               : world.random.chance(weather.no_memory)    ? ENOMEM
                                                           : 0;
    }
    /// A network that cuts what was connected.
    static void strike(World& world, File& file) {
        const Weather& weather = world.weather;
        if (file.kind != File::Kind::socket || !file.connection || !file.side()->established) {
            return;
        }
        if (world.random.chance(weather.reset)) {
            file.connection->fail(file.which, ECONNRESET);
        } else if (world.random.chance(weather.timed_out)) {
            file.connection->fail(file.which, ETIMEDOUT);
        }
    }
    [[nodiscard]] static std::size_t part(World& world, double probability, std::size_t whole) {
        return whole > 1 && world.random.chance(probability) ? world.random.between(1, whole - 1)
                                                             : whole;
    }
    [[nodiscard]] static Duration early(World& world, Duration timeout) noexcept {
        return timeout > Duration::zero() && world.random.chance(world.weather.early_wait)
                   ? world.random.between(Duration::zero(),
                                          std::min<Duration>(timeout, std::chrono::seconds{1}))
                   : timeout;
    }

    // -- what the calls do ------------------------------------------------------------------------

    static Result read_from(World& world, File& file, std::span<std::byte> into) {
        strike(world, file);
        if (world.random.chance(world.weather.would_block)) {
            return {0, EAGAIN};
        }
        into = into.first(part(world, world.weather.short_read, into.size()));
        const Result result = take(file, into);
        world.trace.add(into.first(result.count()));
        return result;
    }
    static Result take(File& file, std::span<std::byte> into) {
        switch (file.kind) {
        case File::Kind::socket:
        case File::Kind::pair:
            return file.connection ? file.connection->recv(file.which, into) : Result{0, ENOTCONN};
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
            std::copy_n(std::as_bytes(std::span(&file.count, 1)).begin(), sizeof file.count,
                        into.begin());
            file.count = 0;
            return {sizeof file.count, 0};
        case File::Kind::always:
            return {};
        case File::Kind::pipe_write:
            return {0, EBADF};
        case File::Kind::epoll:
            break;
        }
        return {0, EINVAL};
    }
    static Result write_to(World& world, File& file, std::span<const std::byte> bytes) {
        strike(world, file);
        if (world.random.chance(world.weather.would_block)) {
            return {0, EAGAIN};
        }
        if (file.is_socket() && world.random.chance(world.weather.no_buffers)) {
            return {0, ENOBUFS};
        }
        if (file.kind == File::Kind::socket && file.connection &&
            world.random.chance(world.weather.vanish)) {
            file.connection->vanish();
        }
        const bool divisible = file.is_socket() || bytes.size() > Pipe::page_size;
        if (divisible) {
            bytes = bytes.first(part(world, world.weather.short_write, bytes.size()));
        }
        const Result result = put(file, bytes);
        world.trace.add(bytes.first(result.count()));
        return result;
    }
    static Result put(File& file, std::span<const std::byte> bytes) {
        switch (file.kind) {
        case File::Kind::socket:
        case File::Kind::pair:
            return file.connection ? file.connection->send(file.which, bytes) : Result{0, EPIPE};
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
        case File::Kind::event: {
            std::uint64_t more = 0;
            if (bytes.size() < sizeof more) {
                return {0, EINVAL};
            }
            std::copy_n(bytes.begin(), sizeof more,
                        std::as_writable_bytes(std::span(&more, 1)).begin());
            if (more == ~std::uint64_t{0}) {
                return {0, EINVAL};
            }
            if (more > ~std::uint64_t{0} - 1 - file.count) {
                return {0, EAGAIN};
            }
            file.count += more;
            ++file.rings;
            return {sizeof more, 0};
        }
        case File::Kind::always:
            return {static_cast<long>(bytes.size()), 0};
        case File::Kind::pipe_read:
            return {0, EBADF};
        case File::Kind::epoll:
            break;
        }
        return {0, EINVAL};
    }
    [[nodiscard]] static std::vector<std::byte> joined(std::span<const iovec> parts) {
        std::vector<std::byte> bytes;
        for (const iovec& part : parts) {
            const auto* const begin = static_cast<const std::byte*>(part.iov_base);
            bytes.insert(bytes.end(), begin, begin + part.iov_len);
        }
        return bytes;
    }

    static Result connect(World& world, File& file, const Address& to) {
        if (file.kind == File::Kind::pair || file.backlog) {
            return {0, EISCONN};
        }
        if (file.connection) {
            const Side& side = *file.side();
            if (side.error != 0) {
                return {0, std::exchange(file.side()->error, 0)};
            }
            if (side.established) {
                return {0, std::exchange(file.was_connecting, false) ? 0 : EISCONN};
            }
            return {0, side.cut ? ECONNABORTED : EALREADY};
        }
        if (!to.is_ipv4() && !to.is_ipv6()) {
            return {0, EAFNOSUPPORT};
        }
        file.connection = std::make_shared<Connection>(world, Connection::Kind::tcp);
        file.which = 0;
        file.was_connecting = true;
        size(file, *file.side());
        if (file.bound.empty()) {
            file.bound = to.with_port(world.free_port());
        }
        world.call(file.connection, to, file.bound);
        return {0, EINPROGRESS};
    }
    static Result listen(World& world, File& file, int backlog) {
        const auto limit = static_cast<std::size_t>(std::max(backlog, 0));
        if (file.backlog) {
            file.backlog->limit = limit;
            return {};
        }
        if (file.connection || file.kind == File::Kind::pair) {
            return {0, EINVAL};
        }
        if (file.bound.empty()) {
            file.bound = Address::any_ipv4(world.free_port());
        }
        if (world.is_taken(file.bound, file.reuse_port)) {
            return {0, EADDRINUSE};
        }
        file.backlog = std::make_unique<Backlog>();
        file.backlog->address = file.bound;
        file.backlog->limit = limit;
        file.backlog->reuse_port = file.reuse_port;
        world.publish(*file.backlog);
        return {};
    }
    static Result accept(World& world, File& file, sockaddr* address, socklen_t* size) {
        if (!file.backlog) {
            return {0, EINVAL};
        }
        // Linux looks for a descriptor first, and then whether anybody is there.
        if (const int error = shortage(world); error != 0) {
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
        accepted->connection = std::move(backlog.waiting.front());
        accepted->which = 1;
        accepted->lingers = file.lingers;
        backlog.waiting.pop_front();
        if (world.random.chance(world.weather.aborted)) {
            accepted->connection->fail(1, ECONNABORTED);
            accepted->connection->close(1);
            return {0, ECONNABORTED};
        }
        Kernel::size(file, *accepted->side());
        fill(accepted->connection->side(0).name, address, size);
        return world.open(std::move(accepted));
    }
    /// Gives a side the buffers that were set on the socket.
    static void size(const File& file, Side& side) noexcept {
        if (file.receive_buffer != 0) {
            side.in_limit = file.receive_buffer;
        }
        if (file.send_buffer != 0) {
            side.out_limit = file.send_buffer;
        }
    }
    static void set(File& file, int level, int name, int value) noexcept {
        if (level != SOL_SOCKET) {
            return;
        }
        const auto bytes = static_cast<std::size_t>(std::max(value, 1024)) * 2;
        if (name == SO_REUSEADDR) {
            file.reuse_address = value != 0;
        } else if (name == SO_REUSEPORT) {
            file.reuse_port = value != 0;
        } else if (name == SO_RCVBUF) {
            file.receive_buffer = bytes;
        } else if (name == SO_SNDBUF) {
            file.send_buffer = bytes;
        }
        if (Side* const side = file.side(); side != nullptr) {
            size(file, *side);
        }
    }
    static Result look_up(File& file, int level, int name) noexcept {
        if (level != SOL_SOCKET) {
            return {};
        }
        Side* const side = file.side();
        switch (name) {
        case SO_ERROR:
            return {side == nullptr ? 0 : std::exchange(side->error, 0), 0};
        case SO_ACCEPTCONN:
            return {file.backlog ? 1 : 0, 0};
        case SO_DOMAIN:
            return {file.kind == File::Kind::pair ? AF_UNIX
                    : file.bound.is_ipv6()        ? AF_INET6
                                                  : AF_INET,
                    0};
        case SO_TYPE:
            return {SOCK_STREAM, 0};
        default:
            return {};
        }
    }
    static void fill(const Address& from, sockaddr* address, socklen_t* size) noexcept {
        if (address == nullptr || size == nullptr) {
            return;
        }
        std::copy_n(std::as_bytes(std::span(from.data(), 1)).data(),
                    std::min<std::size_t>(*size, from.size()),
                    reinterpret_cast<std::byte*>(address));
        *size = from.size();
    }

    static Result wait_for(int epoll, std::span<epoll_event> into, Duration timeout) {
        return answer(Call::epoll_wait, epoll, static_cast<std::uint64_t>(timeout.count()),
                      [&](World& world) {
                          File* const set = world.find(epoll);
                          if (set == nullptr || set->kind != File::Kind::epoll || into.empty()) {
                              return Result{0, set == nullptr ? EBADF : EINVAL};
                          }
                          if (world.random.chance(world.weather.failing_wait)) {
                              return Result{0, ENOMEM};
                          }
                          const std::size_t count = world.wait(
                              early(world, timeout), [&] { return world.collect(*set, into); });
                          for (const epoll_event& event : into.first(count)) {
                              world.trace.add(world.time(), Call::epoll_wait, epoll,
                                              event.events ^ event.data.u64, {});
                          }
                          return Result{static_cast<long>(count), 0};
                      });
    }
};

} // namespace sim
} // namespace reactor::inline v0
