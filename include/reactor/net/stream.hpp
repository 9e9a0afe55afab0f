// SPDX-License-Identifier: Apache-2.0
//
// Net: the buffered stream over any descriptor that reads and writes: pipe, UNIX socket, terminal.
//
// Reading: the loop's scratch buffer is filled once an event; a short read means drained, so the
// next call answers nothing without a system call (the poller is level-triggered and will say so
// again). Writing: bytes of this turn are borrowed from the loop; flush() sends them in one call
// and copies only what the kernel left. The two halves end apart: `eof` is the peer's end,
// close_write() ours, and the stream has ended when both have. A hang-up is no end: what reading
// says is. A write that failed is kept to itself until reading has met its end, so that no byte we
// were sent is lost. close(2) with unread input makes TCP reset the connection: read to the end
// before you leave.
#pragma once

#include <reactor/detail/out_buffer.hpp>
#include <reactor/detail/progress.hpp>
#include <reactor/os/fd.hpp>
#include <reactor/resource.hpp>

#include <memory>
#include <new>

namespace reactor::inline v0 {

/// What a stream yields: exactly one of these.
class StreamEvent {
  public:
    /// Which it is.
    enum class Kind : std::uint8_t { data, eof, blocked, drained, connected };

    /// One without bytes. For streams, and for tests of a service.
    explicit StreamEvent(Kind kind) noexcept : kind_(kind) {}
    /// Bytes that came; they must outlive the event.
    explicit StreamEvent(std::span<const std::byte> bytes) noexcept
        : kind_(Kind::data), bytes_(bytes) {}

    /// Which it is, for a switch.
    [[nodiscard]] Kind kind() const noexcept { return kind_; }
    /// The bytes that came, in the loop's read buffer: until the callback returns. Else null.
    [[nodiscard]] const std::span<const std::byte>* data() const noexcept {
        return kind_ == Kind::data ? &bytes_ : nullptr;
    }
    /// The peer will send no more. Once; we may still send.
    [[nodiscard]] bool eof() const noexcept { return kind_ == Kind::eof; }
    /// More waits to be sent than the high watermark. Once, until drained.
    [[nodiscard]] bool blocked() const noexcept { return kind_ == Kind::blocked; }
    /// A blocked stream is down to its low watermark. Once, until blocked.
    [[nodiscard]] bool drained() const noexcept { return kind_ == Kind::drained; }
    /// A connecting stream is connected. Once.
    [[nodiscard]] bool connected() const noexcept { return kind_ == Kind::connected; }

  private:
    Kind kind_;
    std::span<const std::byte> bytes_;
};

/// A Writable over one descriptor, which it owns. On the loop's thread, or before registration and
/// after handover on any one thread.
template <class KernelType = os::Kernel>
class BasicStream {
  public:
    /// What its system calls go through.
    using Kernel = KernelType;
    /// What it yields.
    using Event = StreamEvent;
    /// As Resource says: it was made so, or has been set so.
    static constexpr bool born_non_blocking = true;

    /// Takes a descriptor over: makes it non-blocking (a flag that duplicates share) and
    /// close-on-exec, and sees which halves it has. On an error the descriptor is closed.
    BasicStream(os::BasicFd<Kernel> fd, std::error_code& error) noexcept : fd_(std::move(fd)) {
        os::FdTraits traits;
        os::Result result = Kernel::traits(fd_.get(), traits);
        result = result.ok() ? Kernel::set_non_blocking(fd_.get()) : result;
        result = result.ok() ? Kernel::set_close_on_exec(fd_.get()) : result;
        error = result.code();
        become(traits);
        if (error) {
            fd_.reset();
            reading_ = writing_ = ready_ = false;
        }
    }
    /// The same for a descriptor that is known to be all that: without a system call.
    BasicStream(os::BasicFd<Kernel> fd, const os::FdTraits& traits) noexcept : fd_(std::move(fd)) {
        become(traits);
    }
#ifdef __cpp_exceptions
    /// The same; throws std::system_error.
    explicit BasicStream(os::BasicFd<Kernel> fd) {
        std::error_code error;
        *this = BasicStream(std::move(fd), error);
        if (error) {
            throw std::system_error(error, "reactor::BasicStream");
        }
    }
#endif

    // -- Resource ---------------------------------------------------------------------------------

    /// The descriptor; -1 if there is none (any more).
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    /// To read until the end of reading; to write while bytes wait.
    [[nodiscard]] Interest interest() const noexcept { return {reading_, writing_ && waits()}; }

    /// Read: `data` in `scratch`, or `eof`. Write: what writing has caused, `blocked` or `drained`.
    [[nodiscard]] std::optional<Event> handle_io(Io io, std::span<std::byte> scratch) noexcept {
        return io == Io::read ? read_once(scratch) : what_writing_caused();
    }
    /// The end, once reading has met its own: of both halves (zero), or of the connection.
    [[nodiscard]] std::optional<std::error_code> ended() const noexcept {
        if (reading_) [[likely]] {
            return std::nullopt;
        }
        const int cause = read_error_ != 0 ? read_error_ : write_error_;
        if (cause == 0 && writing_) {
            return std::nullopt;
        }
        return std::error_code(cause, std::system_category());
    }

    /// The next moment at which one of its StreamDeadlines may have passed.
    [[nodiscard]] std::optional<Timestamp> deadline() const noexcept {
        if (!keeps_time() || progress_->next() == Timestamp::max()) [[likely]] {
            return std::nullopt;
        }
        return progress_->next();
    }
    /// That moment has come; whether one has passed, keep_time() finds out.
    void handle_deadline() noexcept {
        if (keeps_time()) {
            progress_->ring();
        }
    }
    /// Whether it was given any StreamDeadlines.
    [[nodiscard]] bool keeps_time() const noexcept { return progress_ != nullptr; }
    /// Measures its progress, and ends it with timed_out if that is too slow.
    void keep_time(Timestamp now, bool reads) noexcept {
        const auto timeout = progress_->keep_time(now, {reads, writing_ && waits()});
        if (timeout != StreamTimeout::none) [[unlikely]] {
            expire(timeout);
        }
    }

    // -- Writable ---------------------------------------------------------------------------------

    /// Copies; `full` at the cap, or without memory.
    [[nodiscard]] WriteStatus write_atomic(std::span<const std::byte> bytes) noexcept {
        const WriteStatus status = admits(bytes.size());
        if (status != WriteStatus::accepted || bytes.empty()) {
            return status;
        }
        return keep_borrowed() && out_.append(bytes) ? status : WriteStatus::full;
    }
    /// Remembers where the bytes stand until the next flush(); copies if others wait before them.
    [[nodiscard]] WriteStatus write_borrowed(std::span<const std::byte> bytes) noexcept {
        const WriteStatus status = admits(bytes.size());
        if (status != WriteStatus::accepted || bytes.empty()) [[unlikely]] {
            return status;
        }
        if (out_.empty()) [[likely]] {
            if (borrowed_.empty()) [[likely]] {
                borrowed_ = bytes;
                return status;
            }
            if (borrowed_.data() + borrowed_.size() == bytes.data()) {
                borrowed_ = {borrowed_.data(), borrowed_.size() + bytes.size()};
                return status;
            }
        }
        return keep_borrowed() && out_.append(bytes) ? status : WriteStatus::full;
    }
    /// Keeps a handle on the block.
    [[nodiscard]] WriteStatus write_shared(const Buffer& buffer) noexcept {
        const WriteStatus status = admits(buffer.size());
        if (status != WriteStatus::accepted || buffer.empty()) {
            return status;
        }
        return keep_borrowed() && out_.append(buffer) ? status : WriteStatus::full;
    }
    /// As Writable says: false from the high watermark down to the low one.
    [[nodiscard]] bool is_ready_to_write() const noexcept { return ready_; }
    /// One system call at most; then the watermarks and the half-close.
    void flush() noexcept {
        if (writing_ && waits()) {
            send_once();
        }
        if (closing_ && writing_ && !waits()) [[unlikely]] {
            shut_write();
        }
    }
    /// Half-closes with the flush that leaves nothing behind.
    void close_write() noexcept { closing_ = true; }
    /// Bytes that wait, and those that an end has lost.
    [[nodiscard]] std::size_t unsent() const noexcept { return waiting() + lost_; }

    /// As Writable says: whole blocks, and the bytes of this turn that are borrowed.
    [[nodiscard]] std::size_t held() const noexcept { return borrowed_.size() + out_.held(); }

    // -- settings ---------------------------------------------------------------------------------

    /// Its own limits, instead of those of Options::stream.
    void set_limits(const StreamLimits& limits) noexcept {
        take_limits(limits);
        own_limits_ = true;
    }
    /// The limits of Options::stream; does nothing if it has its own.
    void inherit_limits(const StreamLimits& limits) noexcept {
        if (!own_limits_) {
            take_limits(limits);
        }
    }
    /// The limits that it keeps to.
    [[nodiscard]] const StreamLimits& limits() const noexcept { return limits_; }
    /// From now on it ends with timed_out when one of these passes; all zero: with none. Fails with
    /// not_enough_memory, with those that it had. Before registration or after handover.
    [[nodiscard]] std::error_code set_deadlines(const StreamDeadlines& deadlines) noexcept {
        const bool any = deadlines.idle > Duration::zero() || deadlines.read > Duration::zero() ||
                         deadlines.write > Duration::zero() ||
                         deadlines.exchange > Duration::zero();
        auto* const progress = any ? new (std::nothrow) detail::Progress(deadlines) : nullptr;
        if (any && progress == nullptr) {
            return std::make_error_code(std::errc::not_enough_memory);
        }
        progress_.reset(progress);
        return {};
    }
    /// Which deadline ended it.
    [[nodiscard]] StreamTimeout timeout() const noexcept { return timeout_; }
    /// Takes the descriptor out, open; what was not sent is dropped. The stream is then empty.
    [[nodiscard]] os::BasicFd<Kernel> release() noexcept {
        reading_ = writing_ = ready_ = false;
        borrowed_ = {};
        out_.clear();
        return std::move(fd_);
    }

  protected:
    // -- for sockets that are not connected yet ---------------------------------------------------

    /// A stream to be: it takes bytes as far as its cap and keeps them.
    BasicStream(os::BasicFd<Kernel> fd, std::nullptr_t) noexcept
        : fd_(std::move(fd)), socket_(true), writing_(true) {}
    /// In place of a flush until then.
    void hold() noexcept {
        if (!keep_borrowed()) {
            return fail_writing(ENOMEM);
        }
        blocked_ = out_.size() > (blocked_ ? limits_.low_watermark : limits_.high_watermark);
    }
    /// It is connected; an `error` that the kernel has told, and tells no more, is its end once all
    /// is read.
    void open(int error = 0) noexcept {
        reading_ = true;
        read_error_ = error;
        ready_ = writing_ && !blocked_;
    }
    /// It will not be: the end, with its cause.
    void fail(int error) noexcept {
        reading_ = false;
        read_error_ = error;
        if (writing_) {
            fail_writing(error);
        }
    }
    /// It took too long: the end.
    void expire(StreamTimeout timeout) noexcept {
        timeout_ = timeout;
        fail(ETIMEDOUT);
    }
    /// `blocked` or `drained`, each once; else nothing.
    [[nodiscard]] std::optional<Event> what_writing_caused() noexcept {
        if (blocked_ == blocked_is_told_) [[likely]] {
            return std::nullopt;
        }
        blocked_is_told_ = blocked_;
        return Event(blocked_ ? Event::Kind::blocked : Event::Kind::drained);
    }

  private:
    void become(const os::FdTraits& traits) noexcept {
        socket_ = traits.socket;
        character_device_ = traits.character_device;
        reading_ = traits.readable;
        writing_ = ready_ = traits.writable;
    }
    void take_limits(const StreamLimits& limits) noexcept {
        limits_ = limits;
        limits_.high_watermark = std::min(limits_.high_watermark, limits_.cap);
        limits_.low_watermark = std::min(limits_.low_watermark, limits_.high_watermark);
    }

    [[nodiscard]] std::size_t waiting() const noexcept { return borrowed_.size() + out_.size(); }
    [[nodiscard]] bool waits() const noexcept { return waiting() != 0; }

    // -- reading ----------------------------------------------------------------------------------

    [[nodiscard]] std::optional<Event> read_once(std::span<std::byte> scratch) noexcept {
        if (!reading_ || drained_) {
            drained_ = false;
            return std::nullopt;
        }
        const os::Result result =
            socket_ ? Kernel::recv(fd_.get(), scratch) : Kernel::read(fd_.get(), scratch);
        if (result.value > 0) [[likely]] {
            drained_ = result.count() < scratch.size();
            if (keeps_time()) {
                progress_->add_read(result.count());
            }
            return Event(std::span<const std::byte>(scratch.first(result.count())));
        }
        if (result.would_block()) {
            return std::nullopt;
        }
        reading_ = false;
        // A terminal whose other side is closed reads as EIO (pty(7)): that is its end of input.
        const bool at_end = result.ok() || (character_device_ && result.error == EIO);
        if (!at_end) {
            read_error_ = result.error;
        } else if (read_error_ != 0) {
            return std::nullopt; // it was told before
        } else if (write_error_ == 0) {
            return Event(Event::Kind::eof);
        }
        return std::nullopt;
    }

    // -- writing ----------------------------------------------------------------------------------

    [[nodiscard]] WriteStatus admits(std::size_t size) noexcept {
        if (!writing_ || closing_) [[unlikely]] {
            return WriteStatus::ended;
        }
        const std::size_t before = waiting();
        if (before > limits_.cap || size > limits_.cap - before) [[unlikely]] {
            return WriteStatus::full;
        }
        if (before + size > limits_.high_watermark) [[unlikely]] {
            ready_ = false; // until the flush has decided
        }
        return WriteStatus::accepted;
    }
    /// What was borrowed becomes our own. False: no memory, and it is still borrowed.
    [[nodiscard]] bool keep_borrowed() noexcept {
        if (borrowed_.empty()) {
            return true;
        }
        if (!out_.append(borrowed_)) {
            return false;
        }
        borrowed_ = {};
        return true;
    }
    void send_once() noexcept {
        const os::Result result = borrowed_.empty() ? send_parts() : send_borrowed();
        if (result.ok()) [[likely]] {
            consume(result.count());
        } else if (!result.would_block() && result.error != ENOBUFS && result.error != ENOMEM) {
            return fail_writing(result.error);
        }
        if (!keep_borrowed()) {
            return fail_writing(ENOMEM);
        }
        const std::size_t mark = blocked_ ? limits_.low_watermark : limits_.high_watermark;
        blocked_ = out_.size() > mark;
        ready_ = !blocked_;
    }
    [[nodiscard]] os::Result send_borrowed() noexcept {
        if (socket_) [[likely]] {
            return Kernel::send(fd_.get(), borrowed_);
        }
        const iovec part{const_cast<std::byte*>(borrowed_.data()), borrowed_.size()};
        return Kernel::write(fd_.get(), std::span<const iovec>(&part, 1));
    }
    [[nodiscard]] os::Result send_parts() noexcept {
        iovec parts[64];
        const std::span<const iovec> front(parts, out_.parts(parts));
        return socket_ ? Kernel::send(fd_.get(), front) : Kernel::write(fd_.get(), front);
    }
    void consume(std::size_t count) noexcept {
        if (keeps_time()) {
            progress_->add_written(count);
        }
        if (borrowed_.empty()) {
            out_.consume(count);
        } else {
            borrowed_ = borrowed_.subspan(count);
        }
    }
    void fail_writing(int error) noexcept {
        lost_ = waiting();
        write_error_ = error;
        writing_ = blocked_ = blocked_is_told_ = ready_ = false;
        borrowed_ = {};
        out_.clear();
    }
    /// Sockets have two halves; of anything else our half is simply over.
    void shut_write() noexcept {
        writing_ = ready_ = false;
        if (socket_) {
            if (const os::Result result = Kernel::shutdown_write(fd_.get());
                !result.ok() && result.error != ENOTCONN) {
                write_error_ = result.error;
            }
        }
    }

    os::BasicFd<Kernel> fd_;
    int read_error_ = 0;
    int write_error_ = 0;
    bool socket_ = false;           ///< recv and send, not read and write
    bool character_device_ = false; ///< perhaps a terminal
    bool reading_ = false;          ///< the peer's half: its end has not been read
    bool writing_ = false;          ///< our half: not shut, not broken
    bool drained_ = false;          ///< the last read was short
    bool closing_ = false;          ///< close_write() was called
    bool blocked_ = false;          ///< from above the high watermark until the low one
    bool ready_ = false;            ///< is_ready_to_write(): kept, as it is asked often
    bool blocked_is_told_ = false;  ///< what the service knows of it
    bool own_limits_ = false;       ///< set_limits() was called
    StreamTimeout timeout_ = StreamTimeout::none;
    StreamLimits limits_;
    std::size_t lost_ = 0; ///< unsent when writing broke
    std::span<const std::byte> borrowed_;
    detail::OutBuffer out_;
    std::unique_ptr<detail::Progress> progress_; ///< there, if it has deadlines
};

/// A buffered stream of the operating system.
using Stream = BasicStream<os::Kernel>;

static_assert(Writable<Stream>);

} // namespace reactor::inline v0
