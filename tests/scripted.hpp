// SPDX-License-Identifier: Apache-2.0
//
// For the tests of the loop: a service whose callbacks are a test's lambdas, resources without a
// kernel behind them, and a FakePoller with a clock that moves only when it waits. What happens is
// noted in one text, so that an order can be compared as a string.
#pragma once

#include <reactor/controller.hpp>
#include <reactor/runtime.hpp>
#include <reactor/testing/fake_poller.hpp>

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace scripted {

using namespace reactor;
using namespace std::chrono_literals;

/// What happened, in words with a blank between them.
inline std::string noted;

inline void note(const std::string& word) { noted += noted.empty() ? word : " " + word; }
inline std::string take_notes() { return std::exchange(noted, std::string()); }

/// The operating system's; the rings of the waker are counted.
struct RungKernel : os::Kernel {
    inline static std::atomic<int> rings{0};

    static void ring(int fd) noexcept {
        ++rings;
        os::Kernel::ring(fd);
    }
};

/// Thrown where a loop would wait for something that never comes.
struct WaitsForEver : std::logic_error {
    WaitsForEver() : std::logic_error("the loop would wait for ever") {}
};

/// A FakePoller whose waits let their timeouts pass on the clock, and never hang.
class ScriptedPoller : public testing::FakePoller {
  public:
    using Kernel = RungKernel;

    ScriptedPoller() {
        set_now(Timestamp{1h});
        jump_to_deadline(true);
    }

    using FakePoller::report;
    void report_read(ResourceId id) { report(id, {true, false, false, false}); }

    /// How often it was told to watch, to change and to forget.
    [[nodiscard]] std::vector<std::ptrdiff_t> told() const {
        const auto of = [&](testing::PollerCall::Kind kind) {
            return std::count_if(calls().begin(), calls().end(),
                                 [&](const auto& call) { return call.kind == kind; });
        };
        using Kind = testing::PollerCall::Kind;
        return {of(Kind::watch), of(Kind::set_interest), of(Kind::unwatch)};
    }
    [[nodiscard]] PollResult wait(Duration timeout, std::size_t most) {
        if (notes_waits) {
            scripted::note("wait");
        }
        sleeps += timeout > Duration::zero() ? 1 : 0;
        const PollResult result = FakePoller::wait(timeout, most);
        if (result.count == 0 && !result.error && timeout == Duration::max()) {
            throw WaitsForEver();
        }
        return result;
    }

    /// Waits with a timeout above zero.
    int sleeps = 0;
    bool notes_waits = false;
};

/// Counts the objects that stand for something: moved-from ones do not.
class Token {
  public:
    Token() noexcept { ++live; }
    Token(Token&& other) noexcept : counts_(std::exchange(other.counts_, false)) {}
    Token& operator=(Token&& other) noexcept {
        live -= counts_ ? 1 : 0;
        counts_ = std::exchange(other.counts_, false);
        return *this;
    }
    ~Token() { live -= counts_ ? 1 : 0; }

    inline static int live = 0;

  private:
    bool counts_ = true;
};

/// The other side of a toy: what it will yield, what became of what was sent, what it was asked.
struct Wire {
    std::string name;
    int fd = -1;
    bool endless = false;               ///< yields `input` and never runs out
    std::deque<std::string> input;      ///< yielded by the read half, one an event
    std::deque<std::string> caused;     ///< yielded by the write half, one an event
    std::optional<std::error_code> end; ///< told when nothing is yielded
    std::error_code trouble;            ///< told once
    std::optional<Timestamp> deadline;
    std::function<void(Wire&)> at_deadline;
    std::size_t cap = 1024 * 1024;
    std::size_t room = std::string::npos; ///< what flush() can get rid of
    bool blocks = false;                  ///< is not ready to write while something waits
    bool closing = false;                 ///< close_write() was called
    std::string waiting;
    std::string sent;
    bool notes_flushes = false;
    int reads = 0;
    int writes = 0;
    int flushes = 0;
    mutable int interests = 0;
    std::function<void(Io)> on_io;
};

/// A transport and a listener without a kernel: a fake descriptor and a wire.
class Toy {
  public:
    using Event = std::string;
    static constexpr bool born_non_blocking = true;

    explicit Toy(Wire& wire) noexcept : wire_(&wire) {}

    [[nodiscard]] int fd() const noexcept { return wire_->fd; }
    [[nodiscard]] Interest interest() const noexcept {
        ++wire_->interests;
        return {true, !wire_->waiting.empty()};
    }
    [[nodiscard]] std::optional<Event> handle_io(Io io) {
        ++(io == Io::read ? wire_->reads : wire_->writes);
        if (wire_->on_io) {
            wire_->on_io(io);
        }
        auto& from = io == Io::read ? wire_->input : wire_->caused;
        if (from.empty()) {
            return std::nullopt;
        }
        std::string event = from.front();
        if (!(io == Io::read && wire_->endless)) {
            from.pop_front();
        }
        return event;
    }
    [[nodiscard]] std::optional<std::error_code> ended() const noexcept { return wire_->end; }
    [[nodiscard]] std::error_code trouble() noexcept {
        return std::exchange(wire_->trouble, std::error_code());
    }
    [[nodiscard]] std::optional<Timestamp> deadline() const noexcept { return wire_->deadline; }
    void handle_deadline() {
        wire_->deadline.reset();
        if (wire_->at_deadline) {
            wire_->at_deadline(*wire_);
        }
    }

    [[nodiscard]] WriteStatus write_atomic(std::span<const std::byte> bytes) {
        if (wire_->closing || wire_->end) {
            return WriteStatus::ended;
        }
        if (wire_->waiting.size() + bytes.size() > wire_->cap) {
            return WriteStatus::full;
        }
        wire_->waiting += text_of(bytes);
        return WriteStatus::accepted;
    }
    [[nodiscard]] bool is_ready_to_write() const noexcept {
        return !wire_->blocks || wire_->waiting.empty();
    }
    void flush() {
        ++wire_->flushes;
        if (wire_->notes_flushes) {
            note("flush(" + wire_->name + ")");
        }
        const std::size_t taken = std::min(wire_->room, wire_->waiting.size());
        wire_->sent += wire_->waiting.substr(0, taken);
        wire_->waiting.erase(0, taken);
        if (wire_->room != std::string::npos) {
            wire_->room -= taken;
        }
    }
    void close_write() noexcept { wire_->closing = true; }
    [[nodiscard]] std::size_t unsent() const noexcept { return wire_->waiting.size(); }

    [[nodiscard]] Wire& wire() const noexcept { return *wire_; }

  private:
    Wire* wire_;
    Token token_;
};
static_assert(reactor::Writable<Toy> && reactor::detail::has_deadline<Toy>);

/// As many wires as are asked for; they stay where they are.
class Wires {
  public:
    Wire& add(const std::string& name) {
        Wire& wire = wires_.emplace_back();
        wire.name = name;
        wire.fd = 1'000'000 + static_cast<int>(wires_.size());
        return wire;
    }

  private:
    std::deque<Wire> wires_;
};

inline std::string name_of(ErrorKind kind) {
    switch (kind) {
    case ErrorKind::ended:
        return "ended";
    case ErrorKind::registration_failed:
        return "registration_failed";
    case ErrorKind::interest_failed:
        return "interest_failed";
    case ErrorKind::shed:
        return "shed";
    case ErrorKind::trouble:
        return "trouble";
    case ErrorKind::send_returned:
        return "send_returned";
    case ErrorKind::unknown_id:
        return "unknown_id";
    case ErrorKind::actions_refused:
        return "actions_refused";
    case ErrorKind::poll_failed:
        return "poll_failed";
    }
    return "?";
}

/// A test's answers to the callbacks, each optional; and who is who.
template <class L, class T, class C>
struct Answers {
    using Actions = BasicActions<L, T>;
    using Error = BasicError<L, T>;

    std::function<void(Actions&)> start;
    std::function<void(Actions&)> tick;
    std::function<void(TimerId, Actions&)> timer;
    std::function<void(ResourceId, typename L::Event&, Actions&)> listener_event;
    std::function<void(ResourceId, typename T::Event&, Actions&)> transport_event;
    std::function<void(ResourceId, Role, int, Actions&)> registered;
    std::function<void(C&, Actions&)> command;
    std::function<void(Timestamp, Actions&)> drain;
    std::function<void(Error&, Actions&)> error;
    std::function<void(ResourceId, L&, Actions&)> listener_back;
    std::function<void(ResourceId, T&, Actions&)> transport_back;
    bool notes_ticks = false;
    bool notes_registered = true;
    std::map<ResourceId, std::string> names;

    [[nodiscard]] std::string name(ResourceId id) const {
        const auto found = names.find(id);
        return found == names.end() ? "?" : found->second;
    }
};

/// The service: notes every callback, then lets the test answer it.
template <class L = Toy, class T = Toy, class C = int>
struct ScriptedService : Service<L, T, C> {
    using Base = Service<L, T, C>;
    using Actions = typename Base::Actions;
    using Error = typename Base::Error;

    explicit ScriptedService(Answers<L, T, C>& answers) noexcept : to(&answers) {}

    void handle_start(Actions& actions) {
        note("start");
        call(to->start, actions);
    }
    void tick(Actions& actions) {
        if (to->notes_ticks) {
            note("tick");
        }
        call(to->tick, actions);
    }
    void handle_timer(TimerId timer, Actions& actions) {
        note("timer");
        call(to->timer, timer, actions);
    }
    void handle_listener_event(ResourceId id, typename L::Event event, Actions& actions) {
        note("accept(" + to->name(id) + text(event) + ")");
        call(to->listener_event, id, event, actions);
    }
    void handle_transport_event(ResourceId id, typename T::Event event, Actions& actions) {
        note("event(" + to->name(id) + text(event) + ")");
        call(to->transport_event, id, event, actions);
    }
    void handle_registered(ResourceId id, Role role, int fd, Actions& actions) {
        if (to->notes_registered) {
            note("registered(" + to->name(id) + ")");
        }
        call(to->registered, id, role, fd, actions);
    }
    void handle_command(C command, Actions& actions) {
        if constexpr (std::same_as<C, int>) {
            note("command(" + std::to_string(command) + ")");
        } else {
            note("command");
        }
        call(to->command, command, actions);
    }
    void handle_error(Error error, Actions& actions) {
        note(name_of(error.kind()) + (error.id() ? "(" + to->name(error.id()) + ")" : ""));
        if (to->error) {
            to->error(error, actions);
        } else {
            Base::handle_error(std::move(error), actions);
        }
    }
    void handover_listener(ResourceId id, L listener, Actions& actions) {
        note("back(" + to->name(id) + ")");
        call(to->listener_back, id, listener, actions);
    }
    void handover_transport(ResourceId id, T transport, Actions& actions) {
        note("back(" + to->name(id) + ")");
        call(to->transport_back, id, transport, actions);
    }

    Answers<L, T, C>* to;

  private:
    template <class Answer, class... Args>
    static void call(Answer& answer, Args&&... args) {
        if (answer) {
            answer(std::forward<Args>(args)...);
        }
    }
    template <class Event>
    static std::string text(const Event& event) {
        if constexpr (std::same_as<Event, std::string>) {
            return " " + event;
        } else {
            return "";
        }
    }
};

/// The same with a handle_drain.
template <class L = Toy, class T = Toy, class C = int>
struct DrainingService : ScriptedService<L, T, C> {
    using ScriptedService<L, T, C>::ScriptedService;
    void handle_drain(Timestamp deadline, typename ScriptedService<L, T, C>::Actions& actions) {
        note("drain");
        if (this->to->drain) {
            this->to->drain(deadline, actions);
        }
    }
};

using ToyAnswers = Answers<Toy, Toy, int>;
using ToyActions = ToyAnswers::Actions;

/// Registers a toy under its wire's name.
inline ResourceId add_transport(ToyAnswers& answers, ToyActions& actions, Wire& wire) {
    const ResourceId id = actions.register_transport(Toy(wire));
    if (id) {
        answers.names[id] = wire.name;
    }
    return id;
}
inline ResourceId add_listener(ToyAnswers& answers, ToyActions& actions, Wire& wire) {
    const ResourceId id = actions.register_listener(Toy(wire));
    if (id) {
        answers.names[id] = wire.name;
    }
    return id;
}

/// A runtime of toys, run turn by turn.
template <class S>
struct BasicWorld {
    explicit BasicWorld(const Options& options = {}) : runtime(S(answers), options) {
        noted.clear();
    }

    /// The first turn: registers these, and forgets the notes of it.
    std::vector<ResourceId> begin(const std::vector<Wire*>& transports,
                                  const std::vector<Wire*>& listeners = {}) {
        std::vector<ResourceId> ids;
        answers.start = [&](ToyActions& actions) {
            for (Wire* const wire : transports) {
                ids.push_back(add_transport(answers, actions, *wire));
            }
            for (Wire* const wire : listeners) {
                ids.push_back(add_listener(answers, actions, *wire));
            }
        };
        runtime.turn(0s);
        answers.start = nullptr;
        noted.clear();
        return ids;
    }
    /// A turn whose tick asks for this.
    bool act(const std::function<void(ToyActions&)>& ask) {
        answers.tick = ask;
        const bool goes_on = runtime.turn(0s);
        answers.tick = nullptr;
        return goes_on;
    }
    /// A turn that may wait an hour: the timeout that the poller was given.
    Duration timeout_of_turn() {
        runtime.turn(1h);
        return poller().last_timeout();
    }
    [[nodiscard]] ScriptedPoller& poller() { return runtime.poller(); }

    ToyAnswers answers;
    Wires wires;
    Runtime<S, ScriptedPoller> runtime;
};

using World = BasicWorld<ScriptedService<>>;
using DrainingWorld = BasicWorld<DrainingService<>>;

} // namespace scripted
