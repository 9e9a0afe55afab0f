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
// The road not taken: a queue for each thread, and work that is stolen.
#pragma once

#include <reactor/controller.hpp>
#include <reactor/detail/callback.hpp>
#include <reactor/detail/fifo.hpp>
#include <reactor/offload/delivery.hpp>
#include <reactor/offload/outcome.hpp>
#include <reactor/os/kernel.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace reactor::inline v0 {

/// How large a pool is. A zero is read as one.
struct OffloadOptions {
    /// Threads, all started at once: as many jobs run at a time.
    std::size_t threads = 4;
    /// Jobs that may wait; then submit() says full.
    std::size_t queue = 1024;
};

/// A pool of threads for work that blocks. Is destroyed by its owner, while nobody submits, and not
/// on a thread of its own.
class Offload {
  public:
    /// Work with its way home: run it, while the Offload is there, and its outcome is delivered;
    /// destroy it, whenever, and it is not.
    using Job = detail::Callback<void()>;

    /// What was not done when the time was over.
    struct Rest {
        /// Jobs that no thread has begun, in the order in which they were submitted.
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

    /// Runs `work()` on a thread of the pool; the service whose controller this is gets
    /// `Command(Outcome)`. The answer is true when accepted; else it says full or closed and holds
    /// the work. After `full` the time to try again is when an outcome has come back. What moving
    /// the work throws goes to the caller, with nothing submitted; it must not use the pool.
    template <class Listener, class Transport, class Command, class Work>
    SendAnswer<Work> submit(const Controller<Listener, Transport, Command>& to, Work work) {
        return submit(to, std::move(work),
                      [](OutcomeOf<Work>&& outcome) { return Command(std::move(outcome)); });
    }
    /// The same, with what `wrap(Outcome&&)` makes of it, on the pool's thread, for a command. What
    /// that throws, or moving the result, is the outcome instead, and is wrapped. `wrap` is moved
    /// from only if the work is accepted.
    template <class Listener, class Transport, class Command, class Work, class Wrap>
    SendAnswer<Work> submit(const Controller<Listener, Transport, Command>& to, Work work,
                            Wrap&& wrap) {
        return push(std::move(work), [&](Work&& accepted) {
            return Job([this, to, job = std::move(accepted),
                        make = std::decay_t<Wrap>(std::forward<Wrap>(wrap))]() mutable {
                const auto send = [&](Command&& command) { return to.command(std::move(command)); };
                OutcomeOf<Work> outcome = detail::outcome_of(job);
                delivery_.bring(
                    [&] { delivery_.deliver<Command>(make(std::move(outcome)), send); },
                    [&](std::exception_ptr thrown) {
                        delivery_.deliver<Command>(make(OutcomeOf<Work>(std::move(thrown))), send);
                    });
            });
        });
    }
    /// Runs `work()` on a thread of the pool, then `then(executor, Outcome&&)` in the thread of the
    /// executor whose controller this is: what `then` throws leaves its run(), as what any callback
    /// throws. `then` is moved from only if the work is accepted.
    template <class To, class Work, class Then>
    requires requires { typename To::Callback; }
    SendAnswer<Work> submit(const To& to, Work work, Then&& then) {
        using Callback = typename To::Callback;
        using Reply = detail::Reply<OutcomeOf<Work>, std::decay_t<Then>>;
        return push(std::move(work), [&](Work&& accepted) {
            return Job([this, to, job = std::move(accepted),
                        next = std::decay_t<Then>(std::forward<Then>(then))]() mutable {
                const auto send = [&](Callback&& posted) { return to.post(std::move(posted)); };
                OutcomeOf<Work> outcome = detail::outcome_of(job);
                std::optional<Reply> reply;
                delivery_.bring(
                    [&] {
                        reply.emplace(std::move(outcome), std::move(next));
                        delivery_.deliver<Callback>(Callback(std::move(*reply)), send);
                    },
                    [&](std::exception_ptr thrown) {
                        Reply instead(OutcomeOf<Work>(std::move(thrown)),
                                      std::move(reply ? reply->then : next));
                        delivery_.deliver<Callback>(Callback(std::move(instead)), send);
                    });
            });
        });
    }

    /// Accepts no more, and goes on with what waits for at most `limit`; what has not begun by then
    /// is given back. Any thread, more than once, of several at once: each job is given back to one
    /// of them. Blocks until nothing runs or waits: for the loop's thread only with a limit of zero
    /// or when its run is over; for a job, which runs itself, with a limit of zero.
    [[nodiscard]] Rest shutdown(Duration limit) {
        const Timestamp deadline = saturating_add(os::Kernel::now(), limit);
        close();
        for (Timestamp now = os::Kernel::now(); !idle() && now < deadline;
             now = os::Kernel::now()) {
            os::Kernel::sleep(std::min<Duration>(deadline - now, std::chrono::milliseconds{1}));
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
    /// Outcomes that were destroyed: their loop had ended, or did not take them while this was
    /// being destroyed, or there was no memory to deliver them with. Any thread.
    [[nodiscard]] std::size_t undeliverable() const noexcept { return delivery_.undeliverable(); }

  private:
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
            calls_.fetch_add(1);
        }
        calls_.notify_all();
    }
    void stop() {
        if (os::Kernel::process_id() != owner_) {
            return forsake();
        }
        delivery_.abandon();
        close();
        while (take_waiting()) { // destroyed outside of the lock
        }
        for (const pthread_t thread : std::exchange(threads_, {})) {
            os::Kernel::join_thread(thread);
        }
    }
    /// In a forked child the threads are its parent's. If one of them was at the queue just then,
    /// what stands in it here is not to be touched.
    void forsake() {
        if (std::unique_lock lock(mutex_, std::try_to_lock); !lock) {
            ::new (static_cast<void*>(std::addressof(waiting_))) detail::Fifo<Job>();
        }
    }
    /// The job that waits longest; an empty one if none does.
    [[nodiscard]] Job take_waiting() {
        const std::lock_guard lock(mutex_);
        return waiting_.empty() ? Job{} : waiting_.take();
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
            calls_.fetch_add(1);
        }
        calls_.notify_one();
        return SendAnswer<Work>(SendStatus::accepted);
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
                const std::uint32_t heard = calls_.load();
                lock.unlock();
                calls_.wait(heard);
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
    detail::Delivery delivery_;
    std::vector<pthread_t> threads_;
    int owner_ = 0;
};

} // namespace reactor::inline v0
