// SPDX-License-Identifier: Apache-2.0
//
// Roof, behind the scenes: SIGINT and SIGTERM as something a thread can wait for.
//
// While a StopSignal stands, the two signals ring its bell, an eventfd, whatever thread they come
// to and whatever it masks; the last one that goes puts the old handlers back. Several may stand at
// once, up to eight. The handler does nothing but ring (signal-safety(7)). The roads not taken:
// signalfd, which needs the signals masked in threads that are not ours; a thread for sigwait.
#pragma once

#include <reactor/os/fd.hpp>

#include <atomic>
#include <csignal>

namespace reactor::inline v0 {
namespace detail {

class StopSignal {
  public:
    /// Fails if no bell can be had (EMFILE), or eight stand already (EBUSY).
    explicit StopSignal(std::error_code& error) noexcept {
        const os::Result bell = os::Kernel::event_fd();
        error = bell.code();
        if (error) {
            return;
        }
        bell_.reset(bell.fd());
        lock();
        error = std::make_error_code(std::errc::device_or_resource_busy);
        for (std::atomic<int>& place : bells_) {
            if (place.load() == none) {
                place.store(bell_.get());
                error.clear();
                break;
            }
        }
        if (!error && standing_++ == 0) {
            os::Kernel::handle_signal(SIGINT, &ring_all, before_interrupt_);
            os::Kernel::handle_signal(SIGTERM, &ring_all, before_terminate_);
        }
        rings_ = !error;
        unlock();
    }
    StopSignal(const StopSignal&) = delete;
    StopSignal& operator=(const StopSignal&) = delete;
    ~StopSignal() {
        if (!rings_) {
            return;
        }
        lock();
        for (std::atomic<int>& place : bells_) {
            if (place.load() == bell_.get()) {
                place.store(none);
            }
        }
        if (--standing_ == 0) {
            os::Kernel::restore_signal(SIGINT, before_interrupt_);
            os::Kernel::restore_signal(SIGTERM, before_terminate_);
        }
        unlock();
    }

    /// Waits until the bell rings: for a signal, or by ring().
    void wait() noexcept {
        os::Kernel::await_ring(bell_.get());
        os::Kernel::silence(bell_.get());
    }
    /// Ends the wait. Any thread.
    void ring() noexcept { os::Kernel::ring(bell_.get()); }

  private:
    static constexpr int none = 0; // place of no bell: 0 so that static storage starts empty

    static void ring_all(int) noexcept {
        for (const std::atomic<int>& place : bells_) {
            if (const int fd = place.load(); fd != none) {
                os::Kernel::ring(fd);
            }
        }
    }
    static void lock() noexcept {
        while (locked_.test_and_set(std::memory_order_acquire)) {
        }
    }
    static void unlock() noexcept { locked_.clear(std::memory_order_release); }

    inline static std::atomic<int> bells_[8]{};
    inline static std::atomic_flag locked_;
    inline static int standing_ = 0;
    inline static struct sigaction before_interrupt_ {};
    inline static struct sigaction before_terminate_ {};

    os::Fd bell_;
    bool rings_ = false;
};

} // namespace detail
} // namespace reactor::inline v0
