// SPDX-License-Identifier: Apache-2.0
//
// Annex, behind the scenes: the loop that an executor has beside it.
//
// A Feeder is a thread with a Runtime of its own. The executor sends it Orders; it watches what
// they name, and sends back what fired. What has fired is mute until the next order for it, which
// the executor gives when the callback has run: so a fact is told once, although the loop turns on,
// and a callback that blocks holds up no loop. Where the executor's channel is full the loop keeps
// what fired, at most one fact a descriptor, and offers it again; where the feeder's is full the
// executor keeps its orders. Neither waits for the other.
#pragma once

#include <reactor/detail/fifo.hpp>
#include <reactor/executor/controller.hpp>
#include <reactor/executor/watches.hpp>
#include <reactor/runtime.hpp>

#include <exception>
#include <utility>
#include <variant>

namespace reactor::inline v0 {
namespace detail {

/// The loop of its own that feeds an executor: one thread, the orders come as commands.
template <class Executor>
class Feeder {
    using Fd = typename Executor::Fd;
    using P = typename Executor::Poller;
    using Kernel = typename P::Kernel;
    using Order = detail::Order<Fd>;
    struct FeederService;
    using Loop = Runtime<FeederService, NotingPoller<P>>;

  public:
    using Command = ExecutorCommand<typename Executor::Callback>;
    using Consumer = Controller<Watch<Fd>, NoTransport, Command>;

    Feeder(const Options& options, P&& poller, Consumer consumer, std::error_code& error)
        : consumer_(std::move(consumer)),
          loop_(FeederService(*this), options,
                NotingPoller<P>(watches_.note, std::move(poller)), error),
          orders_(loop_.controller()) {
        if (!error) {
            const os::Result started = os::Kernel::start_thread(thread_, &Feeder::body, this);
            joinable_ = started.ok();
            owner_ = Kernel::process_id();
            error = started.code();
        }
    }
    Feeder(const Feeder&) = delete;
    Feeder& operator=(const Feeder&) = delete;
    ~Feeder() { stop(); }

    /// Moved from only if it was accepted, or if nobody carries out orders any more.
    [[nodiscard]] bool send(Order& order) {
        auto answer = orders_.command(std::move(order));
        if (answer.full()) {
            order = std::move(*answer.take());
            return false;
        }
        return true;
    }
    /// Ends the loop and waits for its thread; in a forked child there is none.
    void stop() noexcept {
        if (std::exchange(joinable_, false) && Kernel::process_id() == owner_) {
            orders_.shutdown();
            os::Kernel::join_thread(thread_);
        }
    }
    /// What ended the loop, if anything was thrown there (no memory); once, after stop().
    [[nodiscard]] std::exception_ptr take_thrown() noexcept {
        return std::exchange(thrown_, nullptr);
    }

  private:
    struct FeederService : Service<Watch<Fd>, NoTransport, Order> {
        using typename FeederService::Service::Actions;
        using typename FeederService::Service::Error;

        explicit FeederService(Feeder& of) noexcept : feeder(&of) {}

        void handle_timer(TimerId, Actions& actions) { feeder->offer_again(actions); }
        void handle_listener_event(ResourceId, Fired fired, Actions& actions) {
            feeder->watches_.mute(fired.link);
            feeder->feed(std::move(fired), actions);
        }
        void handle_command(Order order, Actions& actions) {
            if (!feeder->watches_.carry_out(order, {}, actions)) {
                Fired fired{order.link, order.round, {}};
                fired.put_cause(std::make_error_code(std::errc::no_buffer_space));
                feeder->feed(std::move(fired), actions);
            }
        }
        void handle_error(Error error, Actions& actions) {
            if (const auto watch = error.take_listener()) {
                if (auto fired = feeder->watches_.left(*watch, error.code())) {
                    feeder->feed(std::move(*fired), actions);
                }
            }
        }
        void handover_listener(ResourceId, Watch<Fd> watch, Actions&) {
            static_cast<void>(feeder->watches_.left(watch, {}));
        }

        Feeder* feeder;
    };
    using Actions = typename FeederService::Actions;

    static constexpr Duration rest = std::chrono::milliseconds{1};

    /// To the executor; kept while the channel is full, in order.
    void feed(Fired&& fired, Actions& actions) {
        if (kept_.empty()) {
            auto answer = consumer_.command(Command(std::move(fired)));
            if (!answer.full()) {
                return;
            }
            fired = std::get<Fired>(*answer.take());
            actions.set_timer(rest);
        }
        kept_.push(std::move(fired));
    }
    void offer_again(Actions& actions) {
        while (!kept_.empty()) {
            const auto answer = consumer_.command(Command(Fired(kept_.front())));
            if (answer.full()) {
                actions.set_timer(rest);
                return;
            }
            static_cast<void>(kept_.take());
        }
    }
    static void* body(void* self) noexcept {
        auto& feeder = *static_cast<Feeder*>(self);
        std::error_code error;
#ifdef __cpp_exceptions
        try {
            feeder.loop_.run(error);
        } catch (...) {
            feeder.thrown_ = std::current_exception();
            feeder.loop_.refuse_commands();
        }
#else
        feeder.loop_.run(error);
#endif
        feeder.consumer_.shutdown(); // who is fed by nobody has nothing to run for
        return nullptr;
    }

    Consumer consumer_;
    Watches<Fd> watches_;
    Fifo<Fired> kept_;
    Loop loop_;
    typename Loop::Controller orders_;
    std::exception_ptr thrown_;
    pthread_t thread_{};
    int owner_ = 0;
    bool joinable_ = false;
};

} // namespace detail
} // namespace reactor::inline v0
