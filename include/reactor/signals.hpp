// SPDX-License-Identifier: Apache-2.0
//
// Annex: signals as events (signalfd(2)), a Resource for the role of a listener.
//
// A signal is pending until it is read, and below SIGRTMIN the kernel keeps one of each number:
// five kills may be one event. So SIGCHLD means "ask waitpid(2) until it has nothing more"; who
// wants to hear of one certain child watches its pidfd, a Resource like any other. Real-time
// signals queue.
//
// A signal can only be read if no thread takes it in the old way first. So a Signals holds its own
// back in the mask of the thread that makes it, and threads started later inherit that: make it
// before there are others, so before a Reactor too. Of several that read one signal, each is heard
// by one; what join_until_signal() waits for is not for a Signals as well. A program started from
// here inherits the mask: give it an empty one (posix_spawnattr_setsigmask(3) with
// POSIX_SPAWN_SETSIGMASK, or pthread_sigmask(3) between fork and exec).
//
// The road not taken: handlers that write to a pipe; there is one handler for all of a process.
#pragma once

#include <reactor/os/fd.hpp>
#include <reactor/resource.hpp>

#include <array>
#include <atomic>
#include <csignal>
#include <initializer_list>
#include <optional>
#include <span>
#include <utility>

namespace reactor::inline v0 {
namespace detail {

/// Which signals are held back in the mask of one thread, and for how many. A signal that was held
/// back before the first of them came stays so when the last has gone.
template <class Kernel>
class SignalLedger {
  public:
    [[nodiscard]] static SignalLedger& of_this_thread() noexcept {
        static thread_local constinit SignalLedger ledger;
        return ledger;
    }
    /// Which thread this is: no other has the number, not even one that comes after its end.
    [[nodiscard]] std::uint64_t thread() noexcept {
        if (thread_ == 0) {
            thread_ = threads_.fetch_add(1, std::memory_order_relaxed) + 1;
        }
        return thread_;
    }
    void hold(const sigset_t& set) noexcept {
        sigset_t before{};
        Kernel::hold_signals(set, before);
        for (std::size_t n = 1; n < users_.size(); ++n) {
            if (has(set, n) && users_[n]++ == 0) {
                ours_[n] = !has(before, n);
            }
        }
    }
    void release(const sigset_t& set) noexcept {
        sigset_t free{};
        bool any = false;
        for (std::size_t n = 1; n < users_.size(); ++n) {
            if (has(set, n) && --users_[n] == 0 && ours_[n]) {
                any = Kernel::add_signal(free, static_cast<int>(n)).ok() || any;
            }
        }
        if (any) {
            Kernel::release_signals(free);
        }
    }

  private:
    [[nodiscard]] static bool has(const sigset_t& set, std::size_t signal) noexcept {
        return sigismember(&set, static_cast<int>(signal)) == 1;
    }

    inline static std::atomic<std::uint64_t> threads_{0};

    std::uint64_t thread_ = 0;
    std::array<std::uint32_t, _NSIG> users_{};
    std::array<bool, _NSIG> ours_{};
};

/// Signals held back in the mask of the thread that made it, until it goes on that thread.
template <class Kernel>
class HeldSignals {
  public:
    HeldSignals() noexcept = default;
    explicit HeldSignals(const sigset_t& set) noexcept
        : set_(set), thread_(Ledger::of_this_thread().thread()) {
        Ledger::of_this_thread().hold(set_);
    }
    HeldSignals(HeldSignals&& other) noexcept
        : set_(other.set_), thread_(std::exchange(other.thread_, 0)) {}
    HeldSignals& operator=(HeldSignals&& other) noexcept {
        if (this != &other) {
            release();
            set_ = other.set_;
            thread_ = std::exchange(other.thread_, 0);
        }
        return *this;
    }
    ~HeldSignals() { release(); }

  private:
    using Ledger = SignalLedger<Kernel>;

    void release() noexcept {
        if (std::exchange(thread_, 0) == Ledger::of_this_thread().thread()) {
            Ledger::of_this_thread().release(set_);
        }
    }

    sigset_t set_{};
    std::uint64_t thread_ = 0; ///< none: nothing is held
};

} // namespace detail

/// One signal, or several of one number that came before the first was read.
struct SignalEvent {
    int number = 0;    ///< which: SIGHUP
    int code = 0;      ///< how it came: SI_USER, SI_QUEUE, CLD_EXITED (sigaction(2))
    int sender = 0;    ///< the process that sent it, or the child that it tells of
    unsigned user = 0; ///< whose process that is
    int status = 0;    ///< of a child: its exit status, or the signal that ended it
    int value = 0;     ///< what sigqueue(3) sent with it

    /// The same in every field.
    friend bool operator==(const SignalEvent&, const SignalEvent&) noexcept = default;
};

/// Yields signals instead of letting them interrupt: a Resource.
///
/// The signals are held back in the mask of the thread that makes it, which is that of the loop or
/// has yet to start it. When it goes on that thread, those that were not held back before it came,
/// and that no other Signals of the thread still wants, are let in again; what is pending of them
/// is forgotten first, so that no default action can strike: who wants it, asks the handed over
/// Signals with `handle_io`. On any other thread only the descriptor is closed: a mask can be
/// changed by its own thread alone.
template <class KernelType = os::Kernel>
class BasicSignals {
  public:
    /// What its system calls go through.
    using Kernel = KernelType;
    /// How it owns its descriptor.
    using Fd = os::BasicFd<Kernel>;
    /// What it yields.
    using Event = SignalEvent;
    /// As Resource says: signalfd(2) makes it so.
    static constexpr bool born_non_blocking = true;

    /// Fails with EINVAL if there is no number, or one that is no signal or cannot be held back
    /// (SIGKILL, SIGSTOP); with EMFILE and the like if there is no descriptor to be had. Then it is
    /// empty, no mask has changed, and registering it fails with EBADF.
    BasicSignals(std::span<const int> numbers, std::error_code& error) noexcept {
        sigset_t set{};
        os::Result result{0, numbers.empty() ? EINVAL : 0};
        for (const int number : numbers) {
            result = result.ok() ? Kernel::add_signal(set, number) : result;
        }
        result = result.ok() ? Kernel::signal_fd(set) : result;
        error = result.code();
        if (!error) {
            fd_.reset(result.fd());
            held_ = Held(set);
        }
    }
    /// The same, of numbers that are written down.
    BasicSignals(std::initializer_list<int> numbers, std::error_code& error) noexcept
        : BasicSignals(std::span<const int>(numbers.begin(), numbers.size()), error) {}
#ifdef __cpp_exceptions
    /// The same; throws std::system_error.
    explicit BasicSignals(std::span<const int> numbers) {
        std::error_code error;
        *this = BasicSignals(numbers, error);
        if (error) {
            throw std::system_error(error, "reactor::Signals");
        }
    }
    /// The same; throws std::system_error.
    BasicSignals(std::initializer_list<int> numbers)
        : BasicSignals(std::span<const int>(numbers.begin(), numbers.size())) {}
#endif

    // -- Resource ---------------------------------------------------------------------------------

    /// The signalfd(2); -1 if there is none.
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    /// To read, until its end.
    [[nodiscard]] Interest interest() const noexcept { return {end_ == 0, false}; }

    /// Reads one signal that is pending for this thread or the process.
    [[nodiscard]] std::optional<Event> handle_io(Io io) noexcept {
        if (io == Io::write || end_ != 0) {
            return std::nullopt;
        }
        signalfd_siginfo record{};
        const os::Result result =
            Kernel::read(fd_.get(), std::as_writable_bytes(std::span(&record, 1)));
        if (result.would_block()) {
            return std::nullopt; // another reader of this signal was first
        }
        if (!result.ok() || result.count() != sizeof record) {
            end_ = result.ok() ? EIO : result.error;
            return std::nullopt;
        }
        return Event{static_cast<int>(record.ssi_signo), record.ssi_code,
                     static_cast<int>(record.ssi_pid),   record.ssi_uid,
                     record.ssi_status,                  record.ssi_int};
    }
    /// Why no signal can be read any more.
    [[nodiscard]] std::optional<std::error_code> ended() const noexcept {
        return end_ == 0 ? std::nullopt
                         : std::optional(std::error_code(end_, std::system_category()));
    }

  private:
    using Held = detail::HeldSignals<Kernel>;

    Held held_; ///< goes after the descriptor
    Fd fd_;
    int end_ = 0;
};

/// The signals of the operating system.
using Signals = BasicSignals<os::Kernel>;

static_assert(Resource<Signals>);

} // namespace reactor::inline v0
