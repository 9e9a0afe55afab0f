// SPDX-License-Identifier: Apache-2.0
//
// The library's call sites, one by one: a kernel that knows from which line of which header each
// call was made, and fails the n-th call of one line with one errno.
//
// A SiteKernel stands before a real kernel (os::Kernel, sim::Kernel). Its functions take, besides
// what theirs take, the place of the call, which the compiler fills in. The Plan of this thread
// counts who calls, and says who is to fail; without a plan all goes through. What the library
// tells a service is written down in Books, which know what must be true in the end.
// The list of all sites comes from the headers themselves: what is not in it cannot be forgotten.
#pragma once

#include <reactor/error.hpp>
#include <reactor/os/kernel.hpp>
#include <reactor/resource_id.hpp>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace call_sites {

using namespace reactor;

// -- sites ----------------------------------------------------------------------------------------

/// One place in a header of the library from which the kernel is called.
struct Site {
    std::string operation; ///< the function of the Kernel
    std::string file;      ///< below include/reactor
    int line = 0;
    std::string text;   ///< of the line, without the blanks before it
    bool fixed = false; ///< calls os::Kernel, whatever Kernel its class is given

    [[nodiscard]] auto key() const { return std::tie(file, line, operation); }
    [[nodiscard]] std::string to_string() const {
        return file + ":" + std::to_string(line) + " " + operation;
    }
};

/// All that were met so far, by number.
class Sites {
  public:
    [[nodiscard]] static std::size_t number(const char* operation, const char* file, int line) {
        auto& known = by_pointers()[{operation, file, line}];
        if (known == 0) {
            const std::string path(file);
            const std::string below = "include/reactor/";
            const std::size_t at = path.rfind(below);
            const std::string name = at == path.npos ? path : path.substr(at + below.size());
            if (at != path.npos) {
                root() = path.substr(0, at + below.size());
            }
            auto& number = by_name()[{operation, name, line}];
            if (number == 0) {
                all().push_back({operation, name, line, {}, false});
                number = all().size();
            }
            known = number;
        }
        return known - 1;
    }
    [[nodiscard]] static const Site& of(std::size_t number) { return all()[number]; }
    [[nodiscard]] static std::size_t count() { return all().size(); }
    /// Where the headers are, once any site was met.
    [[nodiscard]] static std::string& root() {
        static std::string path;
        return path;
    }

  private:
    static std::vector<Site>& all() {
        static std::vector<Site> sites;
        return sites;
    }
    static std::map<std::tuple<const char*, const char*, int>, std::size_t>& by_pointers() {
        static std::map<std::tuple<const char*, const char*, int>, std::size_t> map;
        return map;
    }
    static std::map<std::tuple<std::string, std::string, int>, std::size_t>& by_name() {
        static std::map<std::tuple<std::string, std::string, int>, std::size_t> map;
        return map;
    }
};

/// Every line of the headers in `root` that calls a Kernel; those that are one, and the kernel's
/// own, left out.
[[nodiscard]] inline std::vector<Site> sites_of_headers(const std::string& root) {
    static const std::regex call(R"((os::)?\bKernel::(\w+)\()");
    std::vector<Site> sites;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
        const std::string file = entry.path().lexically_relative(root).string();
        if (entry.path().extension() != ".hpp" || file.starts_with("sim/") ||
            file.starts_with("testing/") || file == "os/kernel.hpp") {
            continue;
        }
        std::ifstream in(entry.path());
        std::string text;
        for (int line = 1; std::getline(in, text); ++line) {
            text.erase(0, text.find_first_not_of(' '));
            const std::string code = text.substr(0, text.find("//"));
            const bool is_concept = code.starts_with("{ ");
            for (std::sregex_iterator at(code.begin(), code.end(), call), end;
                 at != end && !is_concept; ++at) {
                sites.push_back({(*at)[2], file, line, text, (*at)[1].matched});
            }
        }
    }
    std::sort(sites.begin(), sites.end(),
              [](const Site& a, const Site& b) { return a.key() < b.key(); });
    return sites;
}

// -- what can go wrong ----------------------------------------------------------------------------

/// What the manual documents of one operation.
struct Documented {
    const char* operation;
    const char* page;        ///< of section 2, or as it says
    std::vector<int> errors; ///< without EINTR, which os::Kernel keeps to itself
};

[[nodiscard]] inline const std::vector<Documented>& documented() {
    static const std::vector<Documented> table{
        {"epoll_create", "epoll_create1", {EINVAL, EMFILE, ENFILE, ENOMEM}},
        {"epoll_control",
         "epoll_ctl",
         {EBADF, EEXIST, EINVAL, ELOOP, ENOENT, ENOMEM, ENOSPC, EPERM}},
        {"epoll_wait", "epoll_wait", {EBADF, EFAULT, EINVAL}},
        {"epoll_wait_precise",
         "epoll_wait (epoll_pwait2), seccomp",
         {EBADF, EFAULT, EINVAL, ENOSYS, EPERM}},
        {"poll", "poll", {EFAULT, EINVAL, ENOMEM}},
        {"event_fd", "eventfd", {EINVAL, EMFILE, ENFILE, ENODEV, ENOMEM}},
        {"set_non_blocking", "fcntl (F_GETFL, F_SETFL)", {EBADF, EPERM}},
        {"set_close_on_exec", "fcntl (F_SETFD)", {EBADF}},
        {"duplicate", "fcntl (F_DUPFD_CLOEXEC)", {EBADF, EINVAL, EMFILE}},
        {"traits", "fstat, fcntl", {EBADF, EFAULT, ENOMEM, EOVERFLOW}},
        {"file_traits",
         "lstat",
         {EACCES, EFAULT, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, EOVERFLOW}},
        {"set_mode", "fchmod", {EBADF, EIO, EPERM, EROFS}},
        {"set_mode_at",
         "fchmodat",
         {EACCES, EFAULT, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, ENOTSUP, EPERM,
          EROFS}},
        {"unlink",
         "unlink",
         {EACCES, EBUSY, EFAULT, EIO, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, EPERM,
          EROFS}},
        {"read", "read", {EAGAIN, EBADF, EFAULT, EINVAL, EIO, EISDIR}},
        {"recv",
         "recv, tcp(7)",
         {EAGAIN, EBADF, ECONNREFUSED, ECONNRESET, EFAULT, EHOSTUNREACH, EINVAL, ENOMEM, ENOTCONN,
          ENOTSOCK, ETIMEDOUT}},
        {"peek",
         "recv, tcp(7)",
         {EAGAIN, EBADF, ECONNREFUSED, ECONNRESET, EFAULT, EHOSTUNREACH, EINVAL, ENOMEM, ENOTCONN,
          ENOTSOCK, ETIMEDOUT}},
        {"send",
         "send, tcp(7)",
         {EACCES,    EAGAIN,   EALREADY, EBADF,   ECONNRESET, EDESTADDRREQ, EFAULT,    EHOSTUNREACH,
          EINVAL,    EISCONN,  EMSGSIZE, ENOBUFS, ENOMEM,     ENOTCONN,     ENOTSOCK,  EOPNOTSUPP,
          EPIPE,     ETIMEDOUT}},
        {"write",
         "writev",
         {EAGAIN, EBADF, EDESTADDRREQ, EDQUOT, EFAULT, EFBIG, EINVAL, EIO, ENOSPC, EPERM, EPIPE}},
        {"stream_socket",
         "socket",
         {EACCES, EAFNOSUPPORT, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTONOSUPPORT}},
        {"stream_pair",
         "socketpair",
         {EAFNOSUPPORT, EFAULT, EMFILE, ENFILE, EOPNOTSUPP, EPROTONOSUPPORT}},
        {"bind",
         "bind",
         {EACCES, EADDRINUSE, EADDRNOTAVAIL, EBADF, EFAULT, EINVAL, ELOOP, ENAMETOOLONG, ENOENT,
          ENOMEM, ENOTDIR, ENOTSOCK, EROFS}},
        {"connect",
         "connect",
         {EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EALREADY, EBADF, ECONNREFUSED,
          EFAULT, EISCONN, ENETUNREACH, ENOTSOCK, EPERM, EPROTOTYPE, ETIMEDOUT}},
        {"listen", "listen", {EADDRINUSE, EBADF, ENOTSOCK, EOPNOTSUPP}},
        {"accept",
         "accept",
         {EAGAIN,       EBADF,      ECONNABORTED, EFAULT,          EHOSTDOWN,       EHOSTUNREACH,
          EINVAL,       EMFILE,     ENETDOWN,     ENETUNREACH,     ENFILE,          ENOBUFS,
          ENOMEM,       ENONET,     ENOPROTOOPT,  ENOSR,           ENOTSOCK,        EOPNOTSUPP,
          EPERM,        EPROTO,     EPROTONOSUPPORT, ESOCKTNOSUPPORT, ETIMEDOUT}},
        {"shutdown_write", "shutdown", {EBADF, EINVAL, ENOTCONN, ENOTSOCK}},
        {"local_name", "getsockname", {EBADF, EFAULT, EINVAL, ENOBUFS, ENOTSOCK}},
        {"peer_name", "getpeername", {EBADF, EFAULT, EINVAL, ENOBUFS, ENOTCONN, ENOTSOCK}},
        {"set_option", "setsockopt, socket(7)",
         {EBADF, EFAULT, EINVAL, ENOPROTOOPT, ENOTSOCK, ENOMEM, EPERM}},
        {"set_option_to", "setsockopt", {EBADF, EFAULT, EINVAL, ENOPROTOOPT, ENOTSOCK}},
        {"set_text_option", "setsockopt, socket(7)",
         {EBADF, EFAULT, EINVAL, ENODEV, ENOPROTOOPT, ENOTSOCK, EPERM}},
        {"option_into", "getsockopt", {EBADF, EFAULT, EINVAL, ENOPROTOOPT, ENOTSOCK}},
        {"option", "getsockopt", {EBADF, EFAULT, EINVAL, ENOPROTOOPT, ENOTSOCK}},
        {"add_signal", "sigaddset(3)", {EINVAL}},
        {"signal_fd", "signalfd", {EBADF, EINVAL, EMFILE, ENFILE, ENODEV, ENOMEM}},
    };
    return table;
}
/// What SO_ERROR may tell: an answer, not a failure (connect(2), tcp(7)).
[[nodiscard]] inline const std::vector<int>& pending_errors() {
    static const std::vector<int> errors{ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ENETUNREACH,
                                         ETIMEDOUT};
    return errors;
}
[[nodiscard]] inline const Documented* documented(const std::string& operation) {
    for (const Documented& each : documented()) {
        if (each.operation == operation) {
            return &each;
        }
    }
    return nullptr;
}

// -- the plan -------------------------------------------------------------------------------------

/// One call that does not go as it would.
struct Fault {
    std::size_t site = 0;
    std::size_t nth = 1; ///< call of that site
    int error = 0;
    bool is_answer = false; ///< the call succeeds, and this is its value

    [[nodiscard]] std::string to_string() const {
        return Sites::of(site).to_string() + " #" + std::to_string(nth) +
               (is_answer ? " answers " : " fails with ") + std::strerror(error);
    }
};

/// What becomes of the calls of this thread, from its construction to its destruction.
class Plan {
  public:
    explicit Plan(std::vector<Fault> with) : faults(std::move(with)), met(faults.size(), false) {
        current() = this;
    }
    Plan(const Plan&) = delete;
    Plan& operator=(const Plan&) = delete;
    ~Plan() { current() = nullptr; }

    /// Null: all goes through, and nobody counts.
    [[nodiscard]] static Plan*& current() {
        static thread_local Plan* plan = nullptr;
        return plan;
    }
    /// A call arrives; null if it is to go through.
    [[nodiscard]] const Fault* arrive(const char* operation, const char* file, int line) {
        const std::size_t site = Sites::number(operation, file, line);
        if (site >= counts.size()) {
            counts.resize(site + 1);
        }
        const std::size_t nth = ++counts[site];
        ++calls;
        for (std::size_t n = 0; n < faults.size(); ++n) {
            if (faults[n].site == site && faults[n].nth == nth) {
                met[n] = true;
                return &faults[n];
            }
        }
        return nullptr;
    }
    [[nodiscard]] bool all_met() const {
        return std::find(met.begin(), met.end(), false) == met.end();
    }

    std::vector<Fault> faults;
    std::vector<bool> met;
    std::vector<std::size_t> counts; ///< by site
    std::size_t calls = 0;
    std::size_t taken = 0; ///< bytes that the kernel took from streams
    std::size_t given = 0; ///< bytes that it gave to streams
};

// -- the kernel -----------------------------------------------------------------------------------

/// `Real`, under the plan of the thread. What cannot fail is only counted.
template <class Real>
struct SiteKernel {
    using Result = os::Result;
    using File = const char*;

    static Timestamp now(File file = __builtin_FILE(), int line = __builtin_LINE()) noexcept {
        count("now", file, line);
        return Real::now();
    }
    static int process_id(File file = __builtin_FILE(), int line = __builtin_LINE()) noexcept {
        count("process_id", file, line);
        return Real::process_id();
    }
    static void sleep(Duration span, File file = __builtin_FILE(),
                      int line = __builtin_LINE()) noexcept {
        count("sleep", file, line);
        Real::sleep(span);
    }
    static std::uint64_t random(File file = __builtin_FILE(),
                                int line = __builtin_LINE()) noexcept {
        count("random", file, line);
        return Real::random();
    }
    static const char* environment(const char* name, File file = __builtin_FILE(),
                                   int line = __builtin_LINE()) noexcept {
        count("environment", file, line);
        return Real::environment(name);
    }
    static void unset_environment(const char* name, File file = __builtin_FILE(),
                                  int line = __builtin_LINE()) noexcept {
        count("unset_environment", file, line);
        Real::unset_environment(name);
    }

    // The two whose address is taken: a template is second choice for a call, and the only one for
    // a pointer to a function of one argument.
    static void close(int fd, File file = __builtin_FILE(), int line = __builtin_LINE()) noexcept {
        count("close", file, line);
        Real::close(fd);
    }
    template <class = void>
    static void close(int fd) noexcept {
        Real::close(fd);
    }
    static void ring(int fd, File file = __builtin_FILE(), int line = __builtin_LINE()) noexcept {
        count("ring", file, line);
        Real::ring(fd);
    }
    template <class = void>
    static void ring(int fd) noexcept {
        Real::ring(fd);
    }
    static void silence(int fd, File file = __builtin_FILE(),
                        int line = __builtin_LINE()) noexcept {
        count("silence", file, line);
        Real::silence(fd);
    }

    static Result set_non_blocking(int fd, File file = __builtin_FILE(),
                                   int line = __builtin_LINE()) noexcept {
        return through("set_non_blocking", file, line, [&] { return Real::set_non_blocking(fd); });
    }
    static Result set_close_on_exec(int fd, File file = __builtin_FILE(),
                                    int line = __builtin_LINE()) noexcept {
        return through("set_close_on_exec", file, line,
                       [&] { return Real::set_close_on_exec(fd); });
    }
    static Result duplicate(int fd, File file = __builtin_FILE(),
                            int line = __builtin_LINE()) noexcept {
        return through("duplicate", file, line, [&] { return Real::duplicate(fd); });
    }
    static Result traits(int fd, os::FdTraits& out, File file = __builtin_FILE(),
                         int line = __builtin_LINE()) noexcept {
        return through("traits", file, line, [&] { return Real::traits(fd, out); });
    }
    static Result file_traits(const char* path, os::FileTraits& out, File file = __builtin_FILE(),
                              int line = __builtin_LINE()) noexcept {
        return through("file_traits", file, line, [&] { return Real::file_traits(path, out); });
    }
    static Result set_mode(int fd, unsigned mode, File file = __builtin_FILE(),
                           int line = __builtin_LINE()) noexcept {
        return through("set_mode", file, line, [&] { return Real::set_mode(fd, mode); });
    }
    static Result set_mode_at(const char* path, unsigned mode, File file = __builtin_FILE(),
                              int line = __builtin_LINE()) noexcept {
        return through("set_mode_at", file, line, [&] { return Real::set_mode_at(path, mode); });
    }
    static Result unlink(const char* path, File file = __builtin_FILE(),
                         int line = __builtin_LINE()) noexcept {
        return through("unlink", file, line, [&] { return Real::unlink(path); });
    }

    static Result read(int fd, std::span<std::byte> into, File file = __builtin_FILE(),
                       int line = __builtin_LINE()) noexcept {
        return given(through("read", file, line, [&] { return Real::read(fd, into); }), file);
    }
    static Result recv(int fd, std::span<std::byte> into, File file = __builtin_FILE(),
                       int line = __builtin_LINE()) noexcept {
        return given(through("recv", file, line, [&] { return Real::recv(fd, into); }), file);
    }
    static Result peek(int fd, std::span<std::byte> into, File file = __builtin_FILE(),
                       int line = __builtin_LINE()) noexcept {
        return through("peek", file, line, [&] { return Real::peek(fd, into); });
    }
    static Result send(int fd, std::span<const std::byte> bytes, File file = __builtin_FILE(),
                       int line = __builtin_LINE()) noexcept {
        return taken(through("send", file, line, [&] { return Real::send(fd, bytes); }));
    }
    static Result send(int fd, std::span<const iovec> parts, File file = __builtin_FILE(),
                       int line = __builtin_LINE()) noexcept {
        return taken(through("send", file, line, [&] { return Real::send(fd, parts); }));
    }
    static Result write(int fd, std::span<const iovec> parts, File file = __builtin_FILE(),
                        int line = __builtin_LINE()) noexcept {
        return taken(through("write", file, line, [&] { return Real::write(fd, parts); }));
    }

    static Result stream_socket(int family, File file = __builtin_FILE(),
                                int line = __builtin_LINE()) noexcept {
        return through("stream_socket", file, line, [&] { return Real::stream_socket(family); });
    }
    static Result stream_pair(int& first, int& second, File file = __builtin_FILE(),
                              int line = __builtin_LINE()) noexcept {
        first = second = -1;
        return through("stream_pair", file, line, [&] { return Real::stream_pair(first, second); });
    }
    static Result bind(int fd, const sockaddr* address, socklen_t size,
                       File file = __builtin_FILE(), int line = __builtin_LINE()) noexcept {
        return through("bind", file, line, [&] { return Real::bind(fd, address, size); });
    }
    static Result connect(int fd, const sockaddr* address, socklen_t size,
                          File file = __builtin_FILE(), int line = __builtin_LINE()) noexcept {
        return through("connect", file, line, [&] { return Real::connect(fd, address, size); });
    }
    static Result listen(int fd, int backlog, File file = __builtin_FILE(),
                         int line = __builtin_LINE()) noexcept {
        return through("listen", file, line, [&] { return Real::listen(fd, backlog); });
    }
    static Result accept(int fd, sockaddr* address, socklen_t* size, File file = __builtin_FILE(),
                         int line = __builtin_LINE()) noexcept {
        return through("accept", file, line, [&] { return Real::accept(fd, address, size); });
    }
    static Result shutdown_write(int fd, File file = __builtin_FILE(),
                                 int line = __builtin_LINE()) noexcept {
        return through("shutdown_write", file, line, [&] { return Real::shutdown_write(fd); });
    }
    static Result local_name(int fd, sockaddr* address, socklen_t* size,
                             File file = __builtin_FILE(), int line = __builtin_LINE()) noexcept {
        return through("local_name", file, line,
                       [&] { return Real::local_name(fd, address, size); });
    }
    static Result peer_name(int fd, sockaddr* address, socklen_t* size,
                            File file = __builtin_FILE(), int line = __builtin_LINE()) noexcept {
        return through("peer_name", file, line, [&] { return Real::peer_name(fd, address, size); });
    }
    static Result set_option(int fd, int level, int name, int value, File file = __builtin_FILE(),
                             int line = __builtin_LINE()) noexcept {
        return through("set_option", file, line,
                       [&] { return Real::set_option(fd, level, name, value); });
    }
    template <class Value>
    static Result set_option_to(int fd, int level, int name, const Value& value,
                                File file = __builtin_FILE(),
                                int line = __builtin_LINE()) noexcept {
        return through("set_option_to", file, line,
                       [&] { return Real::set_option_to(fd, level, name, value); });
    }
    static Result set_text_option(int fd, int level, int name, std::string_view text,
                                  File file = __builtin_FILE(),
                                  int line = __builtin_LINE()) noexcept {
        return through("set_text_option", file, line,
                       [&] { return Real::set_text_option(fd, level, name, text); });
    }
    template <class Value>
    static Result option_into(int fd, int level, int name, Value& value,
                              File file = __builtin_FILE(),
                              int line = __builtin_LINE()) noexcept {
        return through("option_into", file, line,
                       [&] { return Real::option_into(fd, level, name, value); });
    }
    static Result option(int fd, int level, int name, File file = __builtin_FILE(),
                         int line = __builtin_LINE()) noexcept {
        return through("option", file, line, [&] { return Real::option(fd, level, name); });
    }

    static Result epoll_create(File file = __builtin_FILE(),
                               int line = __builtin_LINE()) noexcept {
        return through("epoll_create", file, line, [&] { return Real::epoll_create(); });
    }
    /// A removal that fails finds nothing there (ENOENT, EBADF), so then there is nothing.
    static Result epoll_control(int epoll, int operation, int fd, std::uint32_t events,
                                std::uint64_t data, File file = __builtin_FILE(),
                                int line = __builtin_LINE()) noexcept {
        Result real;
        const Result planned = through("epoll_control", file, line, [&] {
            return real = Real::epoll_control(epoll, operation, fd, events, data);
        });
        if (!planned.ok() && real.ok() && operation == EPOLL_CTL_DEL) {
            Real::epoll_control(epoll, operation, fd, events, data);
        }
        return planned;
    }
    static Result epoll_wait(int epoll, std::span<epoll_event> into, int milliseconds,
                             File file = __builtin_FILE(), int line = __builtin_LINE()) {
        return through("epoll_wait", file, line,
                       [&] { return Real::epoll_wait(epoll, into, milliseconds); });
    }
    static Result epoll_wait_precise(int epoll, std::span<epoll_event> into, Duration timeout,
                                     File file = __builtin_FILE(), int line = __builtin_LINE()) {
        return through("epoll_wait_precise", file, line,
                       [&] { return Real::epoll_wait_precise(epoll, into, timeout); });
    }
    static Result poll(std::span<pollfd> fds, Duration timeout, File file = __builtin_FILE(),
                       int line = __builtin_LINE()) {
        return through("poll", file, line, [&] { return Real::poll(fds, timeout); });
    }
    static Result event_fd(File file = __builtin_FILE(), int line = __builtin_LINE()) noexcept {
        return through("event_fd", file, line, [&] { return Real::event_fd(); });
    }

    static Result add_signal(sigset_t& set, int signal, File file = __builtin_FILE(),
                             int line = __builtin_LINE()) noexcept {
        return through("add_signal", file, line, [&] { return Real::add_signal(set, signal); });
    }
    static Result signal_fd(const sigset_t& set, File file = __builtin_FILE(),
                            int line = __builtin_LINE()) noexcept {
        return through("signal_fd", file, line, [&] { return Real::signal_fd(set); });
    }
    static void hold_signals(const sigset_t& set, sigset_t& before, File file = __builtin_FILE(),
                             int line = __builtin_LINE()) noexcept {
        count("hold_signals", file, line);
        Real::hold_signals(set, before);
    }
    static void release_signals(const sigset_t& set, File file = __builtin_FILE(),
                                int line = __builtin_LINE()) noexcept {
        count("release_signals", file, line);
        Real::release_signals(set);
    }

  private:
    static void count(const char* operation, File file, int line) {
        if (Plan* const plan = Plan::current()) {
            static_cast<void>(plan->arrive(operation, file, line));
        }
    }
    template <class Call>
    static Result through(const char* operation, File file, int line, Call call) {
        Plan* const plan = Plan::current();
        const Fault* const fault = plan == nullptr ? nullptr : plan->arrive(operation, file, line);
        if (fault == nullptr) {
            return call();
        }
        return fault->is_answer ? Result{fault->error, 0} : Result{0, fault->error};
    }
    static Result taken(Result result) {
        if (Plan* const plan = Plan::current()) {
            plan->taken += result.count();
        }
        return result;
    }
    /// Signals are read too, and who is turned away.
    static Result given(Result result, File file) {
        if (Plan* const plan = Plan::current();
            plan != nullptr && std::string_view(file).ends_with("net/stream.hpp")) {
            plan->given += result.count();
        }
        return result;
    }
};

// -- the books ------------------------------------------------------------------------------------

/// What a service asked for, and what it was told.
class Books {
  public:
    /// Something that must not be.
    void wrong(const std::string& what) {
        if (errors.size() < 5) {
            errors.push_back(what);
        }
    }
    void require(bool condition, const char* what) {
        if (!condition) {
            wrong(what);
        }
    }
    /// A failure came as a value.
    bool told(std::error_code error) {
        if (error) {
            causes.insert(error.value());
        }
        return static_cast<bool>(error);
    }

    /// An id is known from now on.
    void asked(ResourceId id) {
        if (id && !states.emplace(id.value(), State::known).second) {
            wrong("an id was given twice");
        }
    }
    void registered(ResourceId id) {
        const auto [at, is_new] = states.emplace(id.value(), State::registered);
        if (!is_new && at->second != State::known) {
            wrong("registered twice, or after its end");
        }
        at->second = State::registered;
    }
    void event_of(ResourceId id) {
        if (!is(id, State::registered)) {
            wrong("an event of what is not registered");
        }
    }
    /// It leaves by a door; where `early`, before it came in.
    void left(ResourceId id, bool early = false) {
        if (!id) {
            return; // never had one: the channel gives back what came too late
        }
        const auto at = states.emplace(id.value(), State::known).first;
        if (at->second == State::left) {
            wrong("an end told twice");
        } else if (early != (at->second == State::known)) {
            wrong("left by the wrong door");
        }
        at->second = State::left;
    }
    [[nodiscard]] bool is_here(ResourceId id) const { return is(id, State::registered); }
    /// The service and what it owned is gone: the final account.
    void close(const Plan& plan) {
        for (const auto& [id, state] : states) {
            if (state != State::left) {
                wrong(state == State::known ? "an id that neither came nor left"
                                            : "a resource that never left");
            }
        }
        if (sent != plan.taken + unsent) {
            wrong("of " + std::to_string(sent) + " bytes the kernel took " +
                  std::to_string(plan.taken) + ", and " + std::to_string(unsent) + " were told");
        }
        if (received != plan.given) {
            wrong("of " + std::to_string(plan.given) + " bytes " + std::to_string(received) +
                  " were delivered");
        }
    }

    std::vector<std::string> errors;
    std::set<int> causes;     ///< of all failures that were told
    std::size_t sent = 0;     ///< bytes that a send accepted
    std::size_t unsent = 0;   ///< bytes of these that came back or were counted at an end
    std::size_t received = 0; ///< bytes that events delivered
    std::size_t timers = 0;   ///< that fired
    int lives = 0;            ///< objects of the service
    bool is_hot = false;      ///< took more turns than there was any reason for

  private:
    enum class State { known, registered, left };
    [[nodiscard]] bool is(ResourceId id, State state) const {
        const auto at = states.find(id.value());
        return at != states.end() && at->second == state;
    }
    std::map<std::uint64_t, State> states;
};

/// Lives as long as what holds it.
class Life {
  public:
    explicit Life(Books& of) : books_(&of) { ++books_->lives; }
    Life(Life&& other) noexcept : books_(other.books_) { ++books_->lives; }
    Life& operator=(Life&&) noexcept { return *this; }
    ~Life() { --books_->lives; }

  private:
    Books* books_;
};

} // namespace call_sites
