// SPDX-License-Identifier: Apache-2.0
//
// Net: one TCP connection to whichever of several addresses answers first (RFC 8305).
//
// A name has many addresses, and some lead nowhere. A TcpConnector tries them in turn, each after a
// short delay or as soon as one has failed, without giving up those under way; the first that is
// connected is its one event, all others are closed. It stands in the role of a listener: it spawns
// a connection, of the same type that a TcpListener accepts, and then has ended.
//
// A Resource has one descriptor for life, so the attempts' sockets stand in an epoll set of the
// connector's own, which any poller can watch. It follows that nothing is lost by a handover: the
// attempts go on in the kernel, and the next loop hears of them. The road not taken is a Transport
// for each attempt: then the service would keep the race, and could have two winners.
#pragma once

#include <reactor/net/tcp.hpp>

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <new>

namespace reactor::inline v0 {

/// How a TcpConnector tries (RFC 8305, section 8).
struct ConnectorOptions {
    /// After so long without an answer the next address is tried as well; 10 ms to 2 s.
    Duration attempt_delay = std::chrono::milliseconds{250};
    /// So many addresses of the first one's family come before one of another; at least 1.
    std::size_t first_family_count = 1;
    /// Of the connection.
    TcpOptions tcp{};
};

/// Connects to one of several addresses: a Resource that yields one connection, or none, and ends.
///
/// Its end, with the cause: zero after the event; ETIMEDOUT at the deadline; otherwise, with all
/// addresses tried in vain, what the most telling attempt met. That is the first one that met
/// anything but these, else the first that this machine or a router turned back (unreachable, no
/// such family, no address of ours), else the first that timed out by itself.
template <class KernelType = os::Kernel>
class BasicTcpConnector {
  public:
    /// What its system calls go through.
    using Kernel = KernelType;
    /// How it owns its descriptor.
    using Fd = os::BasicFd<Kernel>;
    /// The connection, non-blocking and with its options set, and the address that answered.
    using Event = typename BasicTcpListener<Kernel>::Event;
    /// As Resource says: the epoll set is.
    static constexpr bool born_non_blocking = true;
    /// More addresses than this are not tried: those last in the order are left out.
    static constexpr std::size_t most_addresses = 64;

    /// Begins to connect, at once, to `addresses`, in the order of preference that a resolver gives
    /// (RFC 6724); families take turns (RFC 8305, section 4). The deadline counts from here.
    ///
    /// Nothing fails here: whatever does, out of descriptors or memory too, is the end of the
    /// connector, which is told as soon as it is registered. With no address at all that is EINVAL;
    /// an empty address fails with EINVAL, one that is not TCP's with EAFNOSUPPORT.
    [[nodiscard]] static BasicTcpConnector connect(std::span<const Address> addresses,
                                                   Duration deadline,
                                                   const ConnectorOptions& options = {}) noexcept {
        BasicTcpConnector connector(options);
        const Timestamp now = Kernel::now();
        connector.deadline_ = saturating_add(now, std::max(deadline, Duration::zero()));
        if (const int error = connector.prepare(addresses, options); error != 0) {
            connector.finish(error);
        } else {
            connector.start_next(now);
        }
        return connector;
    }
    /// The same for a list in braces.
    [[nodiscard]] static BasicTcpConnector connect(std::initializer_list<Address> addresses,
                                                   Duration deadline,
                                                   const ConnectorOptions& options = {}) noexcept {
        return connect(std::span(addresses.begin(), addresses.size()), deadline, options);
    }

    // -- Resource ---------------------------------------------------------------------------------

    /// The epoll set of the attempts; -1 if it could not be made.
    [[nodiscard]] int fd() const noexcept { return epoll_.get(); }
    /// Until its end it waits for an attempt to be ready.
    [[nodiscard]] Interest interest() const noexcept { return {!end_, false}; }

    /// Sees how the attempts stand; yields the first connection, once. One that is noticed after
    /// the deadline is none.
    [[nodiscard]] std::optional<Event> handle_io(Io io) noexcept {
        if (io == Io::write || end_) {
            return std::nullopt;
        }
        const Timestamp now = Kernel::now();
        if (now >= deadline_) {
            finish(ETIMEDOUT);
            return std::nullopt;
        }
        epoll_event ready[events_per_look];
        const os::Result looked = Kernel::epoll_wait(epoll_.get(), ready, 0);
        if (!looked.ok()) {
            finish(looked.error);
            return std::nullopt;
        }
        // If several are connected, the one that was preferred wins.
        std::sort(ready, ready + looked.count(),
                  [](const auto& a, const auto& b) { return a.data.u64 < b.data.u64; });
        bool failed = false;
        for (const epoll_event& event : std::span(ready, looked.count())) {
            std::optional<Event> connection = look_at(event.data.u64, event.events);
            if (connection) {
                finish(0);
                return connection;
            }
            failed |= !attempts_[event.data.u64].fd;
        }
        if (failed) {
            start_next(now);
        }
        return std::nullopt;
    }
    /// The end: zero when the connection was yielded, else why there is none.
    [[nodiscard]] std::optional<std::error_code> ended() const noexcept {
        return end_ ? std::optional(std::error_code(*end_, std::system_category())) : std::nullopt;
    }
    /// True: it yields no connection that could not be registered.
    [[nodiscard]] bool brings_transports() const noexcept { return true; }
    /// The next attempt, or the end of all.
    [[nodiscard]] std::optional<Timestamp> deadline() const noexcept {
        if (end_) {
            return std::nullopt;
        }
        return next_ < count_ ? std::min(next_start_, deadline_) : deadline_;
    }
    /// Starts the next attempt, or gives up.
    void handle_deadline() noexcept {
        const std::optional<Timestamp> due = deadline();
        if (!due) {
            return;
        }
        // A loop may run on a clock of its own; by that one the moment has come.
        const Timestamp now = std::max(Kernel::now(), *due);
        if (now >= deadline_) {
            finish(ETIMEDOUT);
        } else {
            start_next(now);
        }
    }

  private:
    static constexpr std::size_t events_per_look = 16;
    static constexpr Duration shortest_delay = std::chrono::milliseconds{10};
    static constexpr Duration longest_delay = std::chrono::seconds{2};

    /// An address, and the socket that is connecting to it, if one is.
    struct Attempt {
        Address address;
        Fd fd;
    };

    explicit BasicTcpConnector(const ConnectorOptions& options) noexcept
        : delay_(std::clamp(options.attempt_delay, shortest_delay, longest_delay)),
          tcp_(options.tcp) {}

    /// Makes the list and the epoll set. Answers with an errno.
    [[nodiscard]] int prepare(std::span<const Address> addresses,
                              const ConnectorOptions& options) noexcept {
        if (addresses.empty()) {
            return EINVAL;
        }
        count_ = std::min(addresses.size(), most_addresses);
        attempts_.reset(new (std::nothrow) Attempt[count_]);
        if (attempts_ == nullptr) {
            return ENOMEM;
        }
        interleave(addresses, std::max<std::size_t>(options.first_family_count, 1));
        const os::Result made = Kernel::epoll_create();
        epoll_.reset(made.fd_or_none());
        return made.error;
    }
    /// RFC 8305, section 4: `head` addresses of the first family, then the others and it in turn.
    void interleave(std::span<const Address> addresses, std::size_t head) noexcept {
        const int family = addresses.front().family();
        const auto next_from = [&](std::size_t at, bool of_family) {
            while (at < addresses.size() && (addresses[at].family() == family) != of_family) {
                ++at;
            }
            return at;
        };
        std::size_t same = 0;
        std::size_t other = next_from(0, false);
        for (std::size_t n = 0; n < count_; ++n) {
            const bool turn_of_same = n < head || (n - head) % 2 == 1;
            const bool takes_same =
                same < addresses.size() && (turn_of_same || other >= addresses.size());
            std::size_t& from = takes_same ? same : other;
            attempts_[n].address = addresses[from];
            from = next_from(from + 1, takes_same);
        }
    }

    /// Starts the next attempt; those that fail at once are passed over. With nothing left to hope
    /// for this is the end.
    void start_next(Timestamp now) noexcept {
        while (next_ < count_) {
            const int error = start(next_);
            if (error == 0) {
                ++next_;
                next_start_ = saturating_add(now, delay_);
                return;
            }
            if (is_shortage(error) && under_way_ != 0) {
                next_start_ = saturating_add(now, delay_); // those under way may make room
                return;
            }
            note(next_++, error);
        }
        if (under_way_ == 0) {
            finish(cause_);
        }
    }
    /// Answers with an errno; zero: it is under way, or even connected: the epoll set will say so.
    [[nodiscard]] int start(std::size_t index) noexcept {
        const Address& address = attempts_[index].address;
        if (!address.is_ipv4() && !address.is_ipv6()) {
            return address.empty() ? EINVAL : EAFNOSUPPORT;
        }
        const os::Result made = Kernel::stream_socket(address.family());
        if (!made.ok()) {
            return made.error;
        }
        Fd fd(made.fd());
        os::Result result = detail::prepare_connect<Kernel>(fd.get(), {.tcp = tcp_, .local = {}});
        if (!result.ok()) {
            return result.error;
        }
        result = Kernel::connect(fd.get(), address.data(), address.size());
        if (result.ok() || result.error == EINPROGRESS) {
            result = Kernel::epoll_control(epoll_.get(), EPOLL_CTL_ADD, fd.get(), EPOLLOUT, index);
        }
        if (result.ok()) {
            attempts_[index].fd = std::move(fd);
            ++under_way_;
        }
        return result.error;
    }

    /// Sees what became of an attempt: a connection, a failure (it has no descriptor then), or
    /// nothing yet.
    [[nodiscard]] std::optional<Event> look_at(std::size_t index, std::uint32_t events) noexcept {
        Fd& fd = attempts_[index].fd;
        Address peer;
        const int error = outcome(fd.get(), events, peer);
        if (error == EINPROGRESS) {
            return std::nullopt;
        }
        // Before it is closed: a forked child may hold it open, and then the set would keep it.
        Kernel::epoll_control(epoll_.get(), EPOLL_CTL_DEL, fd.get(), 0, 0);
        --under_way_;
        if (error == 0) {
            return Event{{std::move(fd), detail::Accepted{}}, peer};
        }
        fd.reset();
        note(index, error);
        return std::nullopt;
    }
    /// Zero: connected, to `peer`; EINPROGRESS: not yet; else why not.
    [[nodiscard]] static int outcome(int fd, std::uint32_t events, Address& peer) noexcept {
        const os::Result pending = Kernel::option(fd, SOL_SOCKET, SO_ERROR);
        if (!pending.ok() || pending.value != 0) {
            return pending.ok() ? static_cast<int>(pending.value) : pending.error;
        }
        os::Result named;
        peer = Address::filled(
            [&](sockaddr* at, socklen_t* size) { named = Kernel::peer_name(fd, at, size); });
        if (named.error == ENOTCONN) { // ready too early, or for ever: then no wait would help
            return (events & (EPOLLHUP | EPOLLERR)) != 0 ? ECONNABORTED : EINPROGRESS;
        }
        if (!named.ok()) {
            return named.error;
        }
        // A port of this machine that nobody listens on may be given to the very socket that asks
        // for it, which is then connected to itself.
        const Address local = Address::filled(
            [&](sockaddr* at, socklen_t* size) { named = Kernel::local_name(fd, at, size); });
        return named.ok() && local == peer ? ECONNREFUSED : named.error;
    }

    /// Keeps the most telling of the failures.
    void note(std::size_t index, int error) noexcept {
        const int weight = weight_of(error);
        if (cause_ == 0 || weight > weight_of(cause_) ||
            (weight == weight_of(cause_) && index < cause_index_)) {
            cause_ = error;
            cause_index_ = index;
        }
    }
    [[nodiscard]] static int weight_of(int error) noexcept {
        switch (error) {
        case ETIMEDOUT:
            return 0;
        case ENETUNREACH:
        case EHOSTUNREACH:
        case ENETDOWN:
        case EHOSTDOWN:
        case EADDRNOTAVAIL:
        case EAFNOSUPPORT:
            return 1;
        default:
            return 2;
        }
    }
    [[nodiscard]] static bool is_shortage(int error) noexcept {
        return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM ||
               error == ENOSPC;
    }
    /// Closes what is under way. The epoll set stays: fd() is the same to the last. Nothing is
    /// taken out of it here, as nobody looks at it any more.
    void finish(int error) noexcept {
        end_ = error;
        attempts_.reset();
        count_ = next_ = under_way_ = 0;
    }

    Fd epoll_;
    std::unique_ptr<Attempt[]> attempts_;
    std::size_t count_ = 0;     ///< of attempts_
    std::size_t next_ = 0;      ///< the first that has not been started
    std::size_t under_way_ = 0; ///< that have a descriptor
    Duration delay_;
    TcpOptions tcp_;
    Timestamp next_start_{};
    Timestamp deadline_{};
    std::optional<int> end_; ///< the errno of the end
    int cause_ = 0;          ///< of the end, if all fail
    std::size_t cause_index_ = 0;
};

/// Connects by TCP to one of several addresses of the operating system.
using TcpConnector = BasicTcpConnector<os::Kernel>;

static_assert(Resource<TcpConnector>);

} // namespace reactor::inline v0
