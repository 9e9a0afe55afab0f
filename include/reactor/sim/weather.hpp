// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: what a day the simulated kernel has.
//
// Every member is a probability (0: never, 1: each time), a span or a size, and whatever comes of
// it is drawn from the world's seed. A default Weather is calm: nothing is lost, late or cut, so a
// scripted test says exactly what happens. `storm()` has everything a Linux kernel and a network
// may do to a program that is right. The weather may be changed at any time; it counts from the
// next call on. EINTR has no place here: os::Kernel retries it below the surface that is simulated,
// and a signal shows as a wait that ends early.
#pragma once

#include <reactor/time.hpp>

#include <cstddef>
#include <cstdint>

namespace reactor::inline v0 {
namespace sim {

/// How the world treats whoever lives in it. A value.
struct Weather {
    // -- of each call to read or write ------------------------------------------------------------
    double short_read = 0;  ///< fewer bytes than there are
    double short_write = 0; ///< fewer bytes than there is room for
    double would_block = 0; ///< EAGAIN although something was there
    double no_buffers = 0;  ///< a send meets ENOBUFS
    double reset = 0;       ///< a TCP connection is reset by the network: ECONNRESET
    double timed_out = 0;   ///< a TCP connection is given up by the kernel: ETIMEDOUT
    double vanish = 0;      ///< at a send: from now on nothing of the peer comes or arrives

    // -- of each call that makes something --------------------------------------------------------
    double no_descriptors = 0; ///< EMFILE
    double no_files = 0;       ///< ENFILE
    double no_memory = 0;      ///< ENOMEM: also of registrations; a socket may say ENOBUFS
    double no_ports = 0;       ///< a connect meets EADDRNOTAVAIL: no local port is left
    double aborted = 0;        ///< an accept meets ECONNABORTED; that client is gone
    double refused = 0;        ///< a connect meets ECONNREFUSED although somebody listens
    double unreachable = 0;    ///< a connect meets EHOSTUNREACH

    // -- of each wait -----------------------------------------------------------------------------
    double early_wait = 0;    ///< ends before its time with nothing ready, as by a signal
    double spurious = 0;      ///< of each descriptor: reported although it is not ready
    double failing_wait = 0;  ///< ENOMEM
    bool shuffle = false;     ///< reports come in any order; else in turns

    // -- of the network ---------------------------------------------------------------------------
    Duration latency_least{};    ///< one way
    Duration latency_most{};     ///< one way; what is sent later never arrives earlier
    std::uint64_t bandwidth = 0; ///< bytes a second and direction; 0: any number
    double fragment = 0;         ///< what was sent at once arrives in pieces

    // -- of the clock -----------------------------------------------------------------------------
    double stand_still = 0; ///< at a reading: the clock shows the same for `still_for`
    Duration still_for = std::chrono::milliseconds{5};  ///< how long it stands
    double leap = 0;                                    ///< at a reading: a suspend
    Duration leap_most = std::chrono::seconds{10};      ///< the longest of these
    Duration call_cost{}; ///< what each call takes; what is due then happens in mid-turn

    // -- sizes ------------------------------------------------------------------------------------
    std::size_t receive_buffer = 64 * 1024; ///< of a TCP socket that is made from now on
    std::size_t send_buffer = 64 * 1024;    ///< the same of what is not acknowledged yet
    std::size_t descriptors = 1024; ///< open at once; then EMFILE

    /// A bad day: everything happens, nothing so often that nobody gets anywhere.
    [[nodiscard]] static Weather storm() noexcept {
        Weather weather;
        weather.short_read = weather.short_write = 0.2;
        weather.would_block = weather.no_buffers = 0.02;
        weather.reset = weather.timed_out = weather.vanish = 0.001;
        weather.no_descriptors = weather.no_files = weather.no_memory = 0.01;
        weather.no_ports = 0.01;
        weather.aborted = weather.refused = weather.unreachable = 0.01;
        weather.early_wait = 0.02;
        weather.spurious = 0.01;
        weather.shuffle = true;
        return weather.network();
    }
    /// A bad network under a kernel that always has room: no connection is cut, everything is late
    /// and in pieces.
    [[nodiscard]] static Weather drizzle() noexcept {
        Weather weather;
        weather.short_read = weather.short_write = 0.2;
        weather.would_block = 0.02;
        weather.shuffle = true;
        return weather.network();
    }

  private:
    Weather& network() noexcept {
        latency_most = std::chrono::milliseconds{20};
        bandwidth = 1'000'000;
        fragment = 0.5;
        stand_still = 0.01;
        leap = 0.0005;
        call_cost = std::chrono::microseconds{1};
        receive_buffer = 4096;
        send_buffer = 8192;
        return *this;
    }
};

} // namespace sim
} // namespace reactor::inline v0
