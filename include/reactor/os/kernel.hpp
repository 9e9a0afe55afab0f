// SPDX-License-Identifier: Apache-2.0
//
// Cellar: every system call of the library is spelled in this header and nowhere else.
//
// os::Kernel is a set of static functions, the default of the template parameter `Kernel` that
// pollers, wakers, streams and listeners have; another type with the same functions (a simulated
// kernel, one that fails on purpose, one that does nothing) takes its place with no other change.
// A call answers with a Result, errno being a value; EINTR is retried here. The exception is a
// wait: a signal ends it early, with nothing ready, as deadlines are absolute and a turn is cheap.
//
// The calls of the fast path trap into the kernel themselves (by syscall(2) where we do not know
// the machine), not through the C library's wrappers: those are cancellation points and cost 100
// to 146 instructions an echo more in a process with several threads.
// Nothing here owns a descriptor (os::Fd does); all functions may be called on any thread.
#pragma once

#include <reactor/io.hpp>
#include <reactor/time.hpp>

#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <concepts>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace reactor::inline v0 {
namespace os {

/// What a system call answered: a value, or the errno.
struct Result {
    long value = 0; ///< zero if it failed
    int error = 0;  ///< errno; zero if it did not fail

    /// Whether it did not fail.
    [[nodiscard]] bool ok() const noexcept { return error == 0; }
    /// Whether it failed only because it would have had to wait.
    [[nodiscard]] bool would_block() const noexcept {
        return error == EAGAIN || error == EWOULDBLOCK;
    }
    /// The value as a descriptor. Precondition: ok().
    [[nodiscard]] int fd() const noexcept { return static_cast<int>(value); }
    /// The descriptor, or -1 if there is none.
    [[nodiscard]] int fd_or_none() const noexcept { return ok() ? fd() : -1; }
    /// The value as a number of bytes or of things. Precondition: ok().
    [[nodiscard]] std::size_t count() const noexcept { return static_cast<std::size_t>(value); }
    /// The errno as a code; zero if it did not fail.
    [[nodiscard]] std::error_code code() const noexcept { return {error, std::system_category()}; }
};

/// What a descriptor is good for: fstat(2) and the access mode of open(2).
struct FdTraits {
    bool socket = false;           ///< recv and send work on it
    bool character_device = false; ///< a terminal, /dev/null
    bool readable = false;         ///< opened to read
    bool writable = false;         ///< opened to write
};

/// What stands at a path; of a symbolic link, the link itself: lstat(2).
struct FileTraits {
    bool socket = false;      ///< the file of a UNIX socket
    unsigned mode = 0;        ///< the permission bits
    std::uint64_t device = 0; ///< with the inode: which file
    std::uint64_t inode = 0;  ///< may be given again once nobody holds the file
    Duration changed{};       ///< when anything but its bytes last changed, since 1970
};

/// What TCP_INFO fills in: as the C library knows it, and what the kernel has put behind that since
/// (Linux 4.9; zero where it did not).
struct TcpInfoFields {
    /// @{
    /// As in struct tcp_info of linux/tcp.h, in its order.
    ::tcp_info kernel;
    std::uint64_t pacing_rate;
    std::uint64_t max_pacing_rate;
    std::uint64_t bytes_acked;
    std::uint64_t bytes_received;
    std::uint32_t segs_out;
    std::uint32_t segs_in;
    std::uint32_t notsent_bytes;
    std::uint32_t min_rtt;
    std::uint32_t data_segs_in;
    std::uint32_t data_segs_out;
    std::uint64_t delivery_rate;
    /// @}
};

/// The Linux kernel.
struct Kernel {
    // -- time and process ------------------------------------------------------------------------

    /// CLOCK_MONOTONIC. Aborts if the clock fails: without time no promise can be kept.
    [[nodiscard]] static Timestamp now() noexcept {
        timespec time{};
        if (::clock_gettime(CLOCK_MONOTONIC, &time) != 0) {
            std::fputs("reactor: clock_gettime(CLOCK_MONOTONIC) failed\n", stderr);
            std::abort();
        }
        return Timestamp{std::chrono::seconds{time.tv_sec} + Duration{time.tv_nsec}};
    }

    /// This process's id, without a system call but the first time after a fork: it stands on a
    /// page that the kernel wipes in a child (MADV_WIPEONFORK, madvise(2)).
    [[nodiscard]] static int process_id() noexcept {
        static std::atomic<int>* const page = wiped_on_fork();
        if (page == nullptr) {
            return static_cast<int>(::getpid());
        }
        int id = page->load(std::memory_order_relaxed);
        if (id == 0) {
            id = static_cast<int>(::getpid());
            page->store(id, std::memory_order_relaxed);
        }
        return id;
    }

    /// Puts the thread to sleep; a signal may end it early.
    static void sleep(Duration span) noexcept {
        const timespec time = to_timespec(span);
        call(SYS_ppoll, nullptr, 0, &time, nullptr, 0);
    }

    /// A number that nobody can foresee (getrandom(2)); the clock, where there is none.
    [[nodiscard]] static std::uint64_t random() noexcept {
        std::uint64_t number = 0;
        if (call(SYS_getrandom, &number, sizeof number, 0) != sizeof number) {
            number = static_cast<std::uint64_t>(now().time_since_epoch().count());
        }
        return number;
    }

    /// Gives memory that was freed back to the system, where the C library keeps it. Takes about
    /// 0.1 ms for each MiB given back.
    static void return_memory() noexcept {
#ifdef __GLIBC__
        ::malloc_trim(0);
#endif
    }

    /// Raises the soft limit of open descriptors to the hard one; the value is the limit then.
    static Result raise_descriptor_limit() noexcept {
        rlimit limit{};
        if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
            return {0, errno};
        }
        limit.rlim_cur = limit.rlim_max;
        if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) {
            return {0, errno};
        }
        return {static_cast<long>(limit.rlim_cur), 0};
    }

    /// A variable of the environment; null if there is none. Not while another thread changes any.
    [[nodiscard]] static const char* environment(const char* name) noexcept {
        return std::getenv(name);
    }
    /// Takes it out, for this process and its children. Not while another thread looks at any.
    static void unset_environment(const char* name) noexcept { ::unsetenv(name); }

    /// pthread_create(3); `thread` is to be joined. EAGAIN: the system has no room for it.
    static Result start_thread(pthread_t& thread, void* (*body)(void*), void* argument) noexcept {
        return {0, ::pthread_create(&thread, nullptr, body, argument)};
    }
    /// pthread_join(3): waits for its end. Once for each thread that was started.
    static void join_thread(pthread_t thread) noexcept { ::pthread_join(thread, nullptr); }

    /// Lets `handler` have this signal, with SA_RESTART; `before` is what had it.
    static Result handle_signal(int signal, void (*handler)(int),
                                struct sigaction& before) noexcept {
        struct sigaction action {};
        action.sa_handler = handler;
        action.sa_flags = SA_RESTART;
        sigemptyset(&action.sa_mask);
        return answer(::sigaction(signal, &action, &before));
    }
    /// Gives the signal back to what had it.
    static void restore_signal(int signal, const struct sigaction& before) noexcept {
        ::sigaction(signal, &before, nullptr);
    }

    // -- descriptors -----------------------------------------------------------------------------

    /// close(2). Never retried: on Linux the descriptor is gone even after EINTR.
    static void close(int fd) noexcept { ::close(fd); }

    /// Sets O_NONBLOCK if it is not set. The flag belongs to the open file, which duplicates share.
    static Result set_non_blocking(int fd) noexcept {
        const int flags = ::fcntl(fd, F_GETFL);
        if (flags < 0) {
            return {0, errno};
        }
        return (flags & O_NONBLOCK) != 0 ? Result{}
                                         : answer(::fcntl(fd, F_SETFL, flags | O_NONBLOCK));
    }
    /// Sets FD_CLOEXEC.
    static Result set_close_on_exec(int fd) noexcept {
        return answer(::fcntl(fd, F_SETFD, FD_CLOEXEC));
    }
    /// Another descriptor for the same open file, close-on-exec.
    static Result duplicate(int fd) noexcept { return answer(::fcntl(fd, F_DUPFD_CLOEXEC, 3)); }

    /// Looks at what the descriptor is; `error` set if it is none.
    static Result traits(int fd, FdTraits& out) noexcept {
        struct stat status {};
        if (::fstat(fd, &status) != 0) {
            return {0, errno};
        }
        const int flags = ::fcntl(fd, F_GETFL);
        if (flags < 0) {
            return {0, errno};
        }
        const int mode = flags & O_ACCMODE;
        out = {S_ISSOCK(status.st_mode), S_ISCHR(status.st_mode), mode != O_WRONLY,
               mode != O_RDONLY};
        return {};
    }

    /// Looks at what stands at the path; `error` set if nothing does.
    static Result file_traits(const char* path, FileTraits& out) noexcept {
        struct stat status {};
        if (::lstat(path, &status) != 0) {
            return {0, errno};
        }
        constexpr mode_t permissions = 07777;
        out = {S_ISSOCK(status.st_mode), status.st_mode & permissions, status.st_dev,
               status.st_ino,
               std::chrono::seconds{status.st_ctim.tv_sec} + Duration{status.st_ctim.tv_nsec}};
        return {};
    }
    /// Sets the permission bits; of a UNIX socket those that its file is born with, less the umask.
    static Result set_mode(int fd, unsigned mode) noexcept { return answer(::fchmod(fd, mode)); }
    /// Sets those of what stands at the path; never follows a symbolic link there.
    static Result set_mode_at(const char* path, unsigned mode) noexcept {
        return answer(::fchmodat(AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW));
    }
    /// unlink(2).
    static Result unlink(const char* path) noexcept { return answer(::unlink(path)); }

    // -- bytes -----------------------------------------------------------------------------------

    /// read(2): from any descriptor.
    static Result read(int fd, std::span<std::byte> into) noexcept {
        return retried([&] { return call(SYS_read, fd, into.data(), into.size()); });
    }
    /// recv(2): from a socket.
    static Result recv(int fd, std::span<std::byte> into) noexcept {
        return retried([&] {
            return call(SYS_recvfrom, fd, into.data(), into.size(), 0, nullptr, nullptr);
        });
    }
    /// The same, and leaves them there.
    static Result peek(int fd, std::span<std::byte> into) noexcept {
        return retried([&] {
            return call(SYS_recvfrom, fd, into.data(), into.size(), MSG_PEEK, nullptr, nullptr);
        });
    }
    /// To a socket; a broken connection is EPIPE, not a signal.
    static Result send(int fd, std::span<const std::byte> bytes) noexcept {
        return retried([&] {
            return call(SYS_sendto, fd, bytes.data(), bytes.size(), MSG_NOSIGNAL, nullptr, 0);
        });
    }
    /// The same for bytes that stand in several places.
    static Result send(int fd, std::span<const iovec> parts) noexcept {
        msghdr message{};
        message.msg_iov = const_cast<iovec*>(parts.data());
        message.msg_iovlen = parts.size();
        return retried([&] { return call(SYS_sendmsg, fd, &message, MSG_NOSIGNAL); });
    }
    /// To a pipe, a terminal, a file; a broken pipe is EPIPE, not a signal: by RWF_NOSIGNAL where
    /// the kernel knows it (Linux 6.18), else by masking SIGPIPE around the call.
    static Result write(int fd, std::span<const iovec> parts) noexcept {
        static std::atomic<bool> kernel_can{true};
        if (kernel_can.load(std::memory_order_relaxed)) {
            constexpr int no_signal = 0x100;
            const Result result = retried([&] {
                return call(SYS_pwritev2, fd, parts.data(), parts.size(), -1L, -1L, no_signal);
            });
            if (result.error == EOPNOTSUPP || result.error == ENOSYS) {
                kernel_can.store(false, std::memory_order_relaxed);
            } else if (result.error != EINVAL) {
                return result;
            }
        }
        return write_with_sigpipe_masked(fd, parts);
    }

    // -- sockets ---------------------------------------------------------------------------------

    /// A stream socket, non-blocking and close-on-exec from birth.
    static Result stream_socket(int family) noexcept {
        return answer(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    }
    /// Two UNIX stream sockets that are connected to each other, both as above.
    static Result stream_pair(int& first, int& second) noexcept {
        int ends[2] = {-1, -1};
        const Result result = answer(
            ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends));
        first = ends[0];
        second = ends[1];
        return result;
    }
    /// bind(2).
    static Result bind(int fd, const sockaddr* address, socklen_t size) noexcept {
        return answer(::bind(fd, address, size));
    }
    /// connect(2): EINPROGRESS is an answer, not retried; after EINTR it goes on by itself, so that
    /// is EINPROGRESS too.
    static Result connect(int fd, const sockaddr* address, socklen_t size) noexcept {
        const Result result = answer(::connect(fd, address, size));
        return result.error == EINTR ? Result{0, EINPROGRESS} : result;
    }
    /// listen(2).
    static Result listen(int fd, int backlog) noexcept { return answer(::listen(fd, backlog)); }
    /// accept4(2): non-blocking and close-on-exec from birth.
    static Result accept(int fd, sockaddr* address, socklen_t* size) noexcept {
        return retried([&] {
            return call(SYS_accept4, fd, address, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        });
    }
    /// shutdown(2) of our half.
    static Result shutdown_write(int fd) noexcept { return answer(::shutdown(fd, SHUT_WR)); }
    /// getsockname(2).
    static Result local_name(int fd, sockaddr* address, socklen_t* size) noexcept {
        return answer(::getsockname(fd, address, size));
    }
    /// getpeername(2).
    static Result peer_name(int fd, sockaddr* address, socklen_t* size) noexcept {
        return answer(::getpeername(fd, address, size));
    }
    /// setsockopt(2) of an int.
    static Result set_option(int fd, int level, int name, int value) noexcept {
        return answer(::setsockopt(fd, level, name, &value, sizeof value));
    }
    /// The same for an option that is no int: `value` is what the kernel expects there.
    template <class Value>
    static Result set_option_to(int fd, int level, int name, const Value& value) noexcept {
        return answer(::setsockopt(fd, level, name, &value, sizeof value));
    }
    /// The same for text (SO_BINDTODEVICE).
    static Result set_text_option(int fd, int level, int name, std::string_view text) noexcept {
        return answer(
            ::setsockopt(fd, level, name, text.data(), static_cast<socklen_t>(text.size())));
    }
    /// Fills `value` as far as the kernel knows it; the rest keeps what it was.
    template <class Value>
    static Result option_into(int fd, int level, int name, Value& value) noexcept {
        socklen_t size = sizeof value;
        return answer(::getsockopt(fd, level, name, &value, &size));
    }
    /// getsockopt(2) of an int.
    static Result option(int fd, int level, int name) noexcept {
        int value = 0;
        socklen_t size = sizeof value;
        const Result result = answer(::getsockopt(fd, level, name, &value, &size));
        return result.ok() ? Result{value, 0} : result;
    }

    // -- demultiplexers --------------------------------------------------------------------------

    /// An epoll set, close-on-exec.
    static Result epoll_create() noexcept { return answer(::epoll_create1(EPOLL_CLOEXEC)); }
    /// epoll_ctl(2); `data` comes back with each report.
    static Result epoll_control(int epoll, int operation, int fd, std::uint32_t events,
                                std::uint64_t data) noexcept {
        epoll_event event{};
        event.events = events;
        event.data.u64 = data;
        const long result = call(SYS_epoll_ctl, epoll, operation, fd, &event);
        return result == 0 ? Result{} : Result{0, static_cast<int>(-result)};
    }
    /// Milliseconds; -1 waits without end.
    static Result epoll_wait(int epoll, std::span<epoll_event> into, int milliseconds) noexcept {
        return interrupted_is_nothing(call(SYS_epoll_pwait, epoll, into.data(),
                                                static_cast<int>(into.size()), milliseconds,
                                                nullptr, 0));
    }
    /// Nanoseconds. ENOSYS on kernels before 5.11 and under some checkers.
    static Result epoll_wait_precise(int epoll, std::span<epoll_event> into,
                                     Duration timeout) noexcept {
        const timespec time = to_timespec(timeout);
        return interrupted_is_nothing(call(SYS_epoll_pwait2, epoll, into.data(),
                                                static_cast<int>(into.size()), &time, nullptr, 0));
    }
    /// ppoll(2): nanoseconds; Duration::max() waits without end.
    static Result poll(std::span<pollfd> fds, Duration timeout) noexcept {
        timespec time = to_timespec(timeout);
        return interrupted_is_nothing(call(SYS_ppoll, fds.data(), fds.size(),
                                                timeout == Duration::max() ? nullptr : &time,
                                                nullptr, 0));
    }

    // -- the bell of another thread --------------------------------------------------------------

    /// An eventfd(2), non-blocking and close-on-exec, to be rung.
    static Result event_fd() noexcept { return answer(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }
    /// Makes an eventfd readable, with a new edge even when its counter is full (eventfd(2)).
    /// Async-signal-safe; keeps errno.
    static void ring(int fd) noexcept {
        const int kept = errno;
        const std::uint64_t one = 1;
        while (::write(fd, &one, sizeof one) < 0 && (errno == EINTR || errno == EAGAIN)) {
            if (errno == EAGAIN) {
                silence(fd);
            }
        }
        errno = kept;
    }
    /// Waits until an eventfd is rung. Through the C library, which a checker that holds signals
    /// back (TSan) knows for a place to let them in; not for the loop.
    static void await_ring(int fd) noexcept {
        pollfd bell{fd, POLLIN, 0};
        while (::poll(&bell, 1, -1) < 0 && errno == EINTR) {
        }
    }
    /// Takes back what was rung. Async-signal-safe; keeps errno.
    static void silence(int fd) noexcept {
        const int kept = errno;
        std::uint64_t count = 0;
        while (::read(fd, &count, sizeof count) < 0 && errno == EINTR) {
        }
        errno = kept;
    }

    // -- signals that are read -------------------------------------------------------------------

    /// Adds a signal to a set. EINVAL: no signal, or one that cannot be held back (SIGKILL,
    /// SIGSTOP).
    static Result add_signal(sigset_t& set, int signal) noexcept {
        return signal == SIGKILL || signal == SIGSTOP ? Result{0, EINVAL}
                                                      : answer(::sigaddset(&set, signal));
    }
    /// signalfd(2): yields a signalfd_siginfo for each of these signals that is pending.
    static Result signal_fd(const sigset_t& set) noexcept {
        return answer(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    }
    /// From now on this thread holds these signals back; `before` is its mask until then.
    static void hold_signals(const sigset_t& set, sigset_t& before) noexcept {
        ::pthread_sigmask(SIG_BLOCK, &set, &before);
    }
    /// This thread holds these signals back no longer; those that are pending are forgotten.
    static void release_signals(const sigset_t& set) noexcept {
        const timespec at_once{};
        while (::sigtimedwait(&set, nullptr, &at_once) > 0 || errno == EINTR) {
        }
        ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
    }

  private:
    template <class T>
    static long word(T* pointer) noexcept {
        return reinterpret_cast<long>(pointer);
    }
    static long word(std::nullptr_t) noexcept { return 0; }
    template <class T>
        requires std::integral<T> || std::is_enum_v<T>
    static long word(T value) noexcept {
        return static_cast<long>(value);
    }
    /// syscall(2), answering with the negated errno.
    template <class... Words>
    static long call(long number, Words... words) noexcept {
        return trap(number, word(words)...);
    }
    static long trap(long number, long a, long b = 0, long c = 0, long d = 0, long e = 0,
                     long f = 0) noexcept {
#if defined(__x86_64__) && !defined(__ILP32__)
        long result; // NOLINT: written by the instruction
        register long r10 asm("r10") = d;
        register long r8 asm("r8") = e;
        register long r9 asm("r9") = f;
        asm volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
        return result;
#else
        const long result = ::syscall(number, a, b, c, d, e, f);
        return result < 0 ? -static_cast<long>(errno) : result;
#endif
    }

    template <class Int>
    static Result answer(Int result) noexcept {
        return result < 0 ? Result{0, errno} : Result{static_cast<long>(result), 0};
    }
    template <class Call>
    static Result retried(Call attempt) noexcept {
        for (;;) {
            const long result = attempt();
            if (result >= 0) [[likely]] {
                return {result, 0};
            }
            if (result != -EINTR) {
                return {0, static_cast<int>(-result)};
            }
        }
    }
    static Result interrupted_is_nothing(long result) noexcept {
        if (result >= 0) [[likely]] {
            return {result, 0};
        }
        return result == -EINTR ? Result{} : Result{0, static_cast<int>(-result)};
    }
    static timespec to_timespec(Duration span) noexcept {
        const auto whole = std::chrono::duration_cast<std::chrono::seconds>(span);
        timespec time{};
        time.tv_sec = static_cast<time_t>(whole.count());
        time.tv_nsec = static_cast<long>((span - whole).count());
        return time;
    }
    static Result write_with_sigpipe_masked(int fd, std::span<const iovec> parts) noexcept {
        sigset_t pipe{};
        sigset_t before{};
        sigset_t pending{};
        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE);
        sigemptyset(&pending);
        ::sigpending(&pending);
        const bool was_pending = sigismember(&pending, SIGPIPE) == 1;
        ::pthread_sigmask(SIG_BLOCK, &pipe, &before);
        const Result result = retried([&] {
            return call(SYS_writev, fd, parts.data(), static_cast<int>(parts.size()));
        });
        if (result.error == EPIPE && !was_pending) {
            const timespec at_once{};
            while (::sigtimedwait(&pipe, nullptr, &at_once) < 0 && errno == EINTR) {
            }
        }
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return result;
    }
    static std::atomic<int>* wiped_on_fork() noexcept {
        const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
        void* page =
            ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) {
            return nullptr;
        }
        if (::madvise(page, size, MADV_WIPEONFORK) != 0) {
            ::munmap(page, size);
            return nullptr;
        }
        return new (page) std::atomic<int>(0);
    }
};

} // namespace os
} // namespace reactor::inline v0
