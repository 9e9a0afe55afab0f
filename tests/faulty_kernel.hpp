// SPDX-License-Identifier: Apache-2.0
//
// The Linux kernel on a bad day: an os::Kernel whose calls can be made to fail, to take less than
// they were given, and whose clock can be put forward. What is not planned is the kernel's own.
#pragma once

#include <reactor/os/kernel.hpp>

#include <array>
#include <cstddef>
#include <deque>
#include <functional>
#include <limits>

namespace test {

using namespace reactor;

/// The calls that can go wrong.
enum class Call {
    read,
    recv,
    write,
    send,
    accept,
    shutdown_write,
    set_option,
    option,
    bind,
    socket,
    connect,
    peer_name,
    local_name,
    watch, ///< of a poller that begins to watch a descriptor
    last,
};

/// What one call answers: `error`, with nothing done, or as the kernel does for `most` bytes.
struct Fault {
    int error = 0;
    std::size_t most = std::numeric_limits<std::size_t>::max();
};

/// What is to go wrong on this thread. It is all over when this goes.
class Faults {
  public:
    Faults() { current() = this; }
    Faults(const Faults&) = delete;
    Faults& operator=(const Faults&) = delete;
    ~Faults() { current() = nullptr; }

    /// The next such call, after those that were planned before, answers this.
    void then(Call call, Fault fault) { of(call).planned.push_back(fault); }
    void then_fails(Call call, int error, std::size_t times = 1) {
        of(call).planned.insert(of(call).planned.end(), times, Fault{error});
    }
    void then_takes(Call call, std::size_t most) { of(call).planned.push_back(Fault{0, most}); }
    /// How many such calls there were.
    [[nodiscard]] std::size_t calls(Call call) { return of(call).calls; }
    /// Nothing more is planned for such calls.
    [[nodiscard]] bool done(Call call) { return of(call).planned.empty(); }

    /// Asked where nothing is planned.
    std::function<Fault(Call)> otherwise;
    /// How far the clock has been put forward.
    Duration ahead{};

    [[nodiscard]] static Faults*& current() {
        static thread_local Faults* faults = nullptr;
        return faults;
    }
    [[nodiscard]] static Fault next(Call call) {
        Faults* const faults = current();
        if (faults == nullptr) {
            return {};
        }
        Of& of = faults->of(call);
        ++of.calls;
        if (!of.planned.empty()) {
            const Fault fault = of.planned.front();
            of.planned.pop_front();
            return fault;
        }
        return faults->otherwise ? faults->otherwise(call) : Fault{};
    }

  private:
    struct Of {
        std::deque<Fault> planned;
        std::size_t calls = 0;
    };
    [[nodiscard]] Of& of(Call call) { return of_[static_cast<std::size_t>(call)]; }

    std::array<Of, static_cast<std::size_t>(Call::last)> of_;
};

struct FaultyKernel : os::Kernel {
    using Real = os::Kernel;
    using Result = os::Result;

    [[nodiscard]] static Timestamp now() noexcept {
        const Faults* const faults = Faults::current();
        return Real::now() + (faults == nullptr ? Duration{} : faults->ahead);
    }
    static Result read(int fd, std::span<std::byte> into) noexcept {
        const Fault fault = Faults::next(Call::read);
        return fault.error != 0 ? failed(fault) : Real::read(fd, at_most(into, fault.most));
    }
    static Result recv(int fd, std::span<std::byte> into) noexcept {
        const Fault fault = Faults::next(Call::recv);
        return fault.error != 0 ? failed(fault) : Real::recv(fd, at_most(into, fault.most));
    }
    static Result send(int fd, std::span<const std::byte> bytes) noexcept {
        const Fault fault = Faults::next(Call::send);
        return fault.error != 0 ? failed(fault) : Real::send(fd, at_most(bytes, fault.most));
    }
    static Result send(int fd, std::span<const iovec> parts) noexcept {
        const Fault fault = Faults::next(Call::send);
        if (fault.error != 0) {
            return failed(fault);
        }
        std::array<iovec, 64> cut{};
        return Real::send(fd, cut_short(parts, fault.most, cut));
    }
    static Result write(int fd, std::span<const iovec> parts) noexcept {
        const Fault fault = Faults::next(Call::write);
        if (fault.error != 0) {
            return failed(fault);
        }
        std::array<iovec, 64> cut{};
        return Real::write(fd, cut_short(parts, fault.most, cut));
    }
    static Result accept(int fd, sockaddr* address, socklen_t* size) noexcept {
        const Fault fault = Faults::next(Call::accept);
        return fault.error != 0 ? failed(fault) : Real::accept(fd, address, size);
    }
    static Result stream_socket(int family) noexcept {
        const Fault fault = Faults::next(Call::socket);
        return fault.error != 0 ? failed(fault) : Real::stream_socket(family);
    }
    static Result connect(int fd, const sockaddr* address, socklen_t size) noexcept {
        const Fault fault = Faults::next(Call::connect);
        return fault.error != 0 ? failed(fault) : Real::connect(fd, address, size);
    }
    static Result peer_name(int fd, sockaddr* address, socklen_t* size) noexcept {
        const Fault fault = Faults::next(Call::peer_name);
        return fault.error != 0 ? failed(fault) : Real::peer_name(fd, address, size);
    }
    static Result local_name(int fd, sockaddr* address, socklen_t* size) noexcept {
        const Fault fault = Faults::next(Call::local_name);
        return fault.error != 0 ? failed(fault) : Real::local_name(fd, address, size);
    }
    static Result shutdown_write(int fd) noexcept {
        const Fault fault = Faults::next(Call::shutdown_write);
        return fault.error != 0 ? failed(fault) : Real::shutdown_write(fd);
    }
    static Result set_option(int fd, int level, int name, int value) noexcept {
        const Fault fault = Faults::next(Call::set_option);
        return fault.error != 0 ? failed(fault) : Real::set_option(fd, level, name, value);
    }
    static Result option(int fd, int level, int name) noexcept {
        const Fault fault = Faults::next(Call::option);
        return fault.error != 0 ? failed(fault) : Real::option(fd, level, name);
    }
    static Result bind(int fd, const sockaddr* address, socklen_t size) noexcept {
        const Fault fault = Faults::next(Call::bind);
        return fault.error != 0 ? failed(fault) : Real::bind(fd, address, size);
    }

    static Result epoll_control(int epoll, int operation, int fd, std::uint32_t events,
                                std::uint64_t data) noexcept {
        const Fault fault = operation == EPOLL_CTL_ADD ? Faults::next(Call::watch) : Fault{};
        return fault.error != 0 ? failed(fault)
                                : Real::epoll_control(epoll, operation, fd, events, data);
    }
    /// A look at one descriptor, without a wait, is how a PollPoller begins to watch it.
    static Result poll(std::span<pollfd> fds, Duration timeout) noexcept {
        const bool probes = fds.size() == 1 && timeout == Duration::zero();
        const Fault fault = probes ? Faults::next(Call::watch) : Fault{};
        return fault.error != 0 ? failed(fault) : Real::poll(fds, timeout);
    }

  private:
    static Result failed(Fault fault) noexcept { return {0, fault.error}; }
    template <class Byte>
    static std::span<Byte> at_most(std::span<Byte> bytes, std::size_t most) noexcept {
        return bytes.first(bytes.size() < most ? bytes.size() : most);
    }
    static std::span<const iovec> cut_short(std::span<const iovec> parts, std::size_t most,
                                            std::span<iovec, 64> into) noexcept {
        std::size_t count = 0;
        for (iovec part : parts.first(parts.size() < into.size() ? parts.size() : into.size())) {
            if (most == 0) {
                break;
            }
            part.iov_len = part.iov_len < most ? part.iov_len : most;
            most -= part.iov_len;
            into[count++] = part;
        }
        return into.first(count);
    }
};

} // namespace test
