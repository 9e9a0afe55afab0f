// SPDX-License-Identifier: Apache-2.0
//
// Annex: work that would block the loop, done elsewhere.
//
// An Offload is a pool of threads with one bounded queue. What a loop submits (to hash, to resolve
// a name, to write to a disk) is run there once; its Outcome, a value or what was thrown, comes
// back to the loop that asked, over the library's channel: to a service as a command, to an
// executor as a callback in its thread. Where that channel is full the pool's thread waits for
// room: a loop that does not keep up is owed no more than its channel and the pool hold. Where it
// is closed the outcome is destroyed and counted. Every job that was accepted is run once, or given
// back by shutdown(), never both; only the destructor, without a shutdown() before, destroys what
// waits. The queue has a lock: jobs that are worth another thread do not notice it. Any thread may
// submit; whoever owns the Offload shuts it down. Not for a forked child, which may only destroy
// it.
#pragma once

#include <reactor/controller.hpp>
#include <reactor/detail/callback.hpp>
#include <reactor/detail/fifo.hpp>
#include <reactor/os/kernel.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <type_traits>
#include <variant>
#include <vector>

namespace reactor::inline v0 {

/// What became of work: its result, or what it threw. Work that returns nothing has std::monostate.
template <class T>
class Outcome {
  public:
    /// For whoever runs work, and for tests.
    explicit Outcome(T&& value) : value_(std::move(value)) {}
    explicit Outcome(std::exception_ptr thrown) noexcept : thrown_(std::move(thrown)) {}

    /// Whether it has a value.
    [[nodiscard]] explicit operator bool() const noexcept { return value_.has_value(); }
    /// Precondition: it has one.
    [[nodiscard]] T& value() noexcept { return *value_; }
    /// What the work threw; null if it did not.
    [[nodiscard]] const std::exception_ptr& thrown() const noexcept { return thrown_; }

  private:
    std::optional<T> value_;
    std::exception_ptr thrown_;
};

/// The Outcome of calling this work.
template <class Work>
using OutcomeOf = Outcome<std::conditional_t<std::is_void_v<std::invoke_result_t<Work&>>,
                                             std::monostate,
                                             std::decay_t<std::invoke_result_t<Work&>>>>;

/// How large a pool is.
struct OffloadOptions {
    std::size_t threads = 4;
    /// Jobs that may wait; then submit() says full.
    std::size_t queue = 1024;
};

/// A pool of threads for work that blocks.
class Offload {
  public:
    /// Work with its way home: run it and it is delivered, destroy it and it is not.
    using Job = detail::Callback<void()>;

    /// What was not done when the time was over.
    struct Rest {
        std::vector<Job> given_back;
        /// Jobs that some thread was still at; their outcomes are delivered when they are there.
        std::size_t running = 0;
    };

#ifdef __cpp_exceptions
    /// Starts the threads. Throws std::system_error if there is no room for them all.
    explicit Offload(const OffloadOptions& options = {}) : queue_limit_(limit_of(options)) {
        if (const std::error_code error = start(options.threads)) {
            stop();
            throw std::system_error(error, "reactor::Offload");
        }
    }
#endif
    /// The same, with the failure as a value; then submit() says closed.
    Offload(const OffloadOptions& options, std::error_code& error)
        : queue_limit_(limit_of(options)) {
        error = start(options.threads);
        if (error) {
            stop();
        }
    }
    Offload(const Offload&) = delete;
    Offload& operator=(const Offload&) = delete;
    /// Destroys what waits, and waits for what is being run; an outcome for which there is no room
    /// in its channel then is destroyed.
    ~Offload() { stop(); }

    /// Runs `work()` on a thread of the pool; its service gets `Command(Outcome)`. The answer is
    /// true when accepted; else it says full or closed and holds the work. After `full` the time to
    /// try again is when an outcome has come back.
    template <class Listener, class Transport, class Command, class Work>
    SendAnswer<Work> submit(const Controller<Listener, Transport, Command>& to, Work work) {
        return submit(to, std::move(work),
                      [](OutcomeOf<Work>&& outcome) { return Command(std::move(outcome)); });
    }
    /// The same, with what `wrap(Outcome&&)` makes of it, on the pool's thread, for a command.
    /// `wrap` must not throw; it is moved from only if the work is accepted.
    template <class Listener, class Transport, class Command, class Work, class Wrap>
    SendAnswer<Work> submit(const Controller<Listener, Transport, Command>& to, Work work,
                            Wrap&& wrap) {
        return push(std::move(work), [&](Work&& accepted) {
            return Job([this, to, job = std::move(accepted),
                        make = std::decay_t<Wrap>(std::forward<Wrap>(wrap))]() mutable {
                deliver<Command>(make(outcome_of(job)), [&](Command&& command) {
                    return to.command(std::move(command));
                });
            });
        });
    }
    /// Runs `work()` on a thread of the pool, then `then(executor, Outcome&&)` in the thread of the
    /// executor whose controller this is. `then` is moved from only if the work is accepted.
    template <class ExecutorController, class Work, class Then>
    requires requires { typename ExecutorController::Callback; }
    SendAnswer<Work> submit(const ExecutorController& to, Work work, Then&& then) {
        using Callback = typename ExecutorController::Callback;
        return push(std::move(work), [&](Work&& accepted) {
            return Job([this, to, job = std::move(accepted),
                        next = std::decay_t<Then>(std::forward<Then>(then))]() mutable {
                Callback callback([outcome = outcome_of(job), last = std::move(next)](
                                      auto& executor, auto) mutable {
                    last(executor, std::move(outcome));
                });
                deliver<Callback>(std::move(callback), [&](Callback&& posted) {
                    return to.post(std::move(posted));
                });
            });
        });
    }

    /// Accepts no more, and goes on with what waits for at most `limit`; what has not begun by then
    /// is given back. Blocks: for the loop's thread only with a limit of zero, or when it is over.
    [[nodiscard]] Rest shutdown(Duration limit) {
        const Timestamp deadline = saturating_add(os::Kernel::now(), limit);
        close();
        while (!idle() && os::Kernel::now() < deadline) {
            os::Kernel::sleep(std::chrono::milliseconds{1});
        }
        const std::lock_guard lock(mutex_);
        Rest left;
        left.given_back.reserve(waiting_.size());
        while (!waiting_.empty()) {
            left.given_back.push_back(waiting_.take());
        }
        left.running = running_;
        return left;
    }
    /// Outcomes that could not be delivered, as their loop had ended.
    [[nodiscard]] std::size_t undeliverable() const noexcept {
        return undeliverable_.load(std::memory_order_relaxed);
    }

  private:
    static constexpr Duration rest_when_full = std::chrono::microseconds{100};

    [[nodiscard]] static std::size_t limit_of(const OffloadOptions& options) noexcept {
        return options.queue == 0 ? 1 : options.queue;
    }
    [[nodiscard]] std::error_code start(std::size_t threads) {
        owner_ = os::Kernel::process_id();
        threads = threads == 0 ? 1 : threads;
        threads_.reserve(threads);
        while (threads_.size() < threads) {
            pthread_t thread{};
            if (const os::Result started = os::Kernel::start_thread(thread, &Offload::body, this);
                !started.ok()) {
                return started.code();
            }
            threads_.push_back(thread);
        }
        return {};
    }
    void close() {
        {
            const std::lock_guard lock(mutex_);
            closed_ = true;
            calls_.fetch_add(1, std::memory_order_relaxed);
        }
        calls_.notify_all();
    }
    void stop() {
        if (os::Kernel::process_id() != owner_) {
            return; // a forked child: the threads are the parent's
        }
        abandoned_.store(true, std::memory_order_relaxed);
        close();
        {
            const Rest destroyed = shutdown(Duration::zero()); // outside of the lock
        }
        for (const pthread_t thread : std::exchange(threads_, {})) {
            os::Kernel::join_thread(thread);
        }
    }
    [[nodiscard]] bool idle() {
        const std::lock_guard lock(mutex_);
        return waiting_.empty() && running_ == 0;
    }

    template <class Work, class Make>
    SendAnswer<Work> push(Work&& work, Make&& make) {
        {
            const std::lock_guard lock(mutex_);
            if (closed_) {
                return {SendStatus::closed, std::move(work)};
            }
            if (waiting_.size() >= queue_limit_) {
                return {SendStatus::full, std::move(work)};
            }
            waiting_.make_room();
            waiting_.push(make(std::move(work)));
            calls_.fetch_add(1, std::memory_order_relaxed);
        }
        calls_.notify_one();
        return SendAnswer<Work>(SendStatus::accepted);
    }

    template <class Work>
    [[nodiscard]] static OutcomeOf<Work> outcome_of(Work& work) {
#ifdef __cpp_exceptions
        try {
            return run(work);
        } catch (...) {
            return OutcomeOf<Work>(std::current_exception());
        }
#else
        return run(work);
#endif
    }
    template <class Work>
    [[nodiscard]] static OutcomeOf<Work> run(Work& work) {
        if constexpr (std::is_void_v<std::invoke_result_t<Work&>>) {
            work();
            return OutcomeOf<Work>(std::monostate{});
        } else {
            return OutcomeOf<Work>(work());
        }
    }
    /// Sends until there is room.
    template <class Parcel, class Send>
    void deliver(Parcel&& parcel, Send&& send) {
        for (;;) {
            auto answer = send(std::move(parcel));
            if (answer) {
                return;
            }
            if (answer.closed() || abandoned_.load(std::memory_order_relaxed)) {
                undeliverable_.fetch_add(1, std::memory_order_relaxed);
                return;
            }
            std::destroy_at(std::addressof(parcel)); // it may not be assignable
            ::new (static_cast<void*>(std::addressof(parcel))) Parcel(std::move(*answer.take()));
            os::Kernel::sleep(rest_when_full);
        }
    }

    static void* body(void* self) noexcept {
        static_cast<Offload*>(self)->serve();
        return nullptr;
    }
    void serve() {
        std::unique_lock lock(mutex_);
        for (;;) {
            if (!waiting_.empty()) {
                run_next(lock);
            } else if (closed_) {
                return;
            } else {
                const std::uint32_t heard = calls_.load(std::memory_order_relaxed);
                lock.unlock();
                calls_.wait(heard, std::memory_order_relaxed);
                lock.lock();
            }
        }
    }
    void run_next(std::unique_lock<std::mutex>& lock) {
        ++running_;
        {
            Job job = waiting_.take();
            lock.unlock();
            job();
        } // what it holds goes before it counts as done
        lock.lock();
        --running_;
    }

    std::size_t queue_limit_;
    std::mutex mutex_;                    ///< of the queue and what follows it
    detail::Fifo<Job> waiting_;
    std::size_t running_ = 0;
    bool closed_ = false;
    std::atomic<std::uint32_t> calls_{0}; ///< counts what a thread that sleeps has to see
    std::atomic<bool> abandoned_{false};
    std::atomic<std::size_t> undeliverable_{0};
    std::vector<pthread_t> threads_;
    int owner_ = 0;
};

} // namespace reactor::inline v0
