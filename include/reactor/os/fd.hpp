// SPDX-License-Identifier: Apache-2.0
//
// Cellar: the owner of a descriptor. Whoever holds an Fd closes it, once, when it goes; it can be
// moved, not copied. A descriptor must have left its poller before its Fd goes (invariant I3): the
// runtime sees to that for what is registered.
#pragma once

#include <reactor/os/kernel.hpp>

#include <utility>

namespace reactor::inline v0 {
namespace os {

/// Owns one descriptor of this Kernel, or none (-1).
template <class Kernel>
class BasicFd {
  public:
    /// Owns none.
    BasicFd() noexcept = default;
    /// Takes over `fd`; from now on nobody else closes it.
    explicit BasicFd(int fd) noexcept : fd_(fd) {}
    /// Takes over; the other one owns nothing then.
    BasicFd(BasicFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    /// Closes what it owns, and takes over.
    BasicFd& operator=(BasicFd&& other) noexcept {
        if (this != &other) {
            reset(std::exchange(other.fd_, -1));
        }
        return *this;
    }
    ~BasicFd() { reset(); }

    /// The descriptor, -1 if none is owned.
    [[nodiscard]] int get() const noexcept { return fd_; }
    /// Whether it owns a descriptor.
    [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }
    /// Gives the descriptor away: the caller closes it.
    [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
    /// Closes what is owned and takes over `fd`.
    void reset(int fd = -1) noexcept {
        const int old = std::exchange(fd_, fd);
        if (old >= 0) {
            Kernel::close(old);
        }
    }

  private:
    int fd_ = -1;
};

/// Owns one descriptor of the operating system.
using Fd = BasicFd<Kernel>;

} // namespace os
} // namespace reactor::inline v0
