// SPDX-License-Identifier: Apache-2.0
//
// Roof: what a user includes. A Reactor is a thread that runs a Runtime.
//
// The thread starts with the Reactor and ends with the run. The service lives in the Runtime and is
// only ever called on that thread; everybody else talks to it through a Controller. What a callback
// throws ends the run and is rethrown by join(). Whoever wants no thread uses Runtime, which is the
// same loop, and whoever wants fewer headers includes runtime.hpp.
#pragma once

#include <reactor/detail/stop_signal.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/resource_map.hpp>
#include <reactor/runtime.hpp>

#include <exception>

namespace reactor::inline v0 {

/// Raises the soft limit of open descriptors to the hard one (getrlimit(2)); answers with the limit
/// that holds then, zero if it could not be raised. Once, at the beginning of a program.
inline std::size_t raise_descriptor_limit() noexcept {
    return os::Kernel::raise_descriptor_limit().count();
}

/// Chosen for a Service that is no Handler, or a Poller that is none: says what is missing.
template <class Service, class Poller = EpollPoller>
class Reactor {
    static_assert(detail::ExplainHandler<Service>::explained);
    static_assert(detail::ExplainPoller<Poller>::explained);
};

/// A thread that runs a service.
template <class S, class P>
requires Handler<S> && Poller<P>
class Reactor<S, P> {
    using Listener = typename S::Listener;

  public:
    /// What another thread may hold.
    using Controller = typename Runtime<S, P>::Controller;

#ifdef __cpp_exceptions
    /// Starts the thread. Throws std::system_error if poller, waker or thread cannot be made.
    explicit Reactor(S service, const Options& options = {}, P poller = P{})
        : runtime_(std::move(service), options, std::move(poller)) {
        if (const std::error_code error = start()) {
            throw std::system_error(error, "reactor::Reactor");
        }
    }
#endif
    /// The same, with the failure as a value; then there is no thread, and join() returns at once.
    Reactor(S service, const Options& options, std::error_code& error)
        : runtime_(std::move(service), options, error) {
        if (!error) {
            error = start();
        }
    }
    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;
    /// Shuts down and joins. What a callback threw is dropped here; join() tells it.
    ~Reactor() {
        controller().shutdown();
        join_thread();
    }

#ifdef __cpp_exceptions
    /// Has the service listen. Throws std::system_error if the channel is full or the run has
    /// ended; whether the listener can be registered is told to the service.
    void listen(Listener listener) {
        std::error_code error;
        listen(std::move(listener), error);
        if (error) {
            throw std::system_error(error, "reactor::Reactor::listen");
        }
    }
#endif
    /// The same, with the failure as a value: no_buffer_space, operation_canceled.
    void listen(Listener listener, std::error_code& error) {
        const auto answer = controller().register_listener(std::move(listener));
        error = answer          ? std::error_code()
                : answer.full() ? std::make_error_code(std::errc::no_buffer_space)
                                : std::make_error_code(std::errc::operation_canceled);
    }

    /// The handle for any thread; it may outlive the reactor.
    [[nodiscard]] Controller controller() const noexcept { return runtime_.controller(); }

    /// Waits until the run has ended, and says how. Rethrows what a callback threw, once.
    Farewell join() {
        join_thread();
#ifdef __cpp_exceptions
        if (thrown_) {
            std::rethrow_exception(std::exchange(thrown_, nullptr));
        }
#endif
        return runtime_.farewell();
    }

    /// Waits for SIGINT or SIGTERM, or for the run to end. A signal drains for at most `grace`;
    /// with no grace, or at a second signal, it shuts down. Then as join(). The handlers that the
    /// signals had before come back. If the signals cannot be had (no descriptor), waits as join()
    /// does.
    Farewell join_until_signal(Duration grace = Duration::zero()) {
        if (!joinable_) {
            return join(); // it has ended, or never begun
        }
        std::error_code error;
        detail::StopSignal signal(error);
        if (!error) {
            on_end_.store(&signal, std::memory_order_seq_cst);
            bool asked = false;
            while (!done_.load(std::memory_order_seq_cst)) {
                signal.wait();
                if (asked || grace <= Duration::zero()) {
                    controller().shutdown();
                } else {
                    controller().drain(grace);
                }
                asked = true;
            }
        }
        join_thread();
        return join();
    }

  private:
    [[nodiscard]] std::error_code start() noexcept {
        const os::Result started = os::Kernel::start_thread(thread_, &Reactor::body, this);
        joinable_ = started.ok();
        return started.code();
    }
    static void* body(void* self) noexcept {
        auto& reactor = *static_cast<Reactor*>(self);
#ifdef __cpp_exceptions
        try {
            reactor.runtime_.run();
        } catch (...) {
            reactor.thrown_ = std::current_exception();
            reactor.runtime_.refuse_commands(); // nobody would handle them
        }
#else
        std::error_code error;
        reactor.runtime_.run(error);
#endif
        reactor.done_.store(true, std::memory_order_seq_cst);
        if (auto* const signal = reactor.on_end_.load(std::memory_order_seq_cst)) {
            signal->ring();
        }
        return nullptr;
    }
    void join_thread() noexcept {
        if (std::exchange(joinable_, false)) {
            os::Kernel::join_thread(thread_);
        }
    }

    Runtime<S, P> runtime_;
    std::exception_ptr thrown_;
    std::atomic<bool> done_{false};
    std::atomic<detail::StopSignal*> on_end_{nullptr};
    pthread_t thread_{};
    bool joinable_ = false;
};

} // namespace reactor::inline v0
