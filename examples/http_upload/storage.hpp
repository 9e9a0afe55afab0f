// SPDX-License-Identifier: Apache-2.0
//
// http_upload: the directory that files are put into and taken from.
//
// A Store is the directory. Store::begin gives an Upload, which is written to, digests what it is
// given (SHA-256), and is published under a name by finish, whole and at once; a file of that name
// is replaced. Before, it has no name: it is gone if the Upload or the process goes. Where the file
// system has no unnamed files, it has a name that begins with a dot, which nobody can ask for.
//
// Names are one component, checked by safe_name: nothing leads out of the directory, and symbolic
// links are not followed. All of this blocks while the disk does. Nothing is shared but the
// directory's descriptor, which is only read: an Upload may be used on another thread than its
// Store, by one at a time. The system calls are a template parameter, so each can be made to fail.
#pragma once

#include <reactor/os/fd.hpp>

#include <fcntl.h>
#include <linux/openat2.h>
#include <openssl/evp.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace http_upload {

using reactor::os::Result;

/// The system calls that a store makes. EINTR is retried here. Names are within the directory.
struct FileSystem {
    static Result open_directory(const char* path) {
        return retried([&] { return ::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
    }
    static Result open_unnamed(int directory) {
        return retried(
            [&] { return ::openat(directory, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644); });
    }
    static Result create(int directory, const char* name) {
        constexpr int flags = O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC;
        return retried([&] { return ::openat(directory, name, flags, 0644); });
    }
    /// For reading. The kernel refuses what leads out of the directory or over a symbolic link.
    static Result open_beneath(int directory, const char* name) {
        open_how how{};
        how.flags = read_flags;
        how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
        return retried([&] { return ::syscall(SYS_openat2, directory, name, &how, sizeof how); });
    }
    /// For reading, where there is no openat2. As good for a name of one component.
    static Result open_component(int directory, const char* name) {
        return retried([&] { return ::openat(directory, name, read_flags | O_NOFOLLOW); });
    }
    static Result status(int fd, struct stat& status) {
        return retried([&] { return ::fstat(fd, &status); });
    }
    static Result write(int fd, std::string_view bytes) {
        return retried([&] { return ::write(fd, bytes.data(), bytes.size()); });
    }
    static Result read(int fd, std::span<std::byte> space) {
        return retried([&] { return ::read(fd, space.data(), space.size()); });
    }
    /// To the disk: data, size, and for a directory its entries.
    static Result synchronize(int fd) {
        return retried([&] { return ::fsync(fd); });
    }
    /// Names an unnamed file. EEXIST if the name is in use.
    static Result link_unnamed(int fd, int directory, const char* name) {
        char path[40];
        std::snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        return retried(
            [&] { return ::linkat(AT_FDCWD, path, directory, name, AT_SYMLINK_FOLLOW); });
    }
    /// Whether link_unnamed can work at all.
    static bool can_link_unnamed() { return ::access("/proc/self/fd", X_OK) == 0; }
    static Result rename(int directory, const char* from, const char* to) {
        return retried([&] { return ::renameat(directory, from, directory, to); });
    }
    static Result unlink(int directory, const char* name) {
        return retried([&] { return ::unlinkat(directory, name, 0); });
    }
    static Result random(std::uint64_t& value) {
        return retried([&] { return ::getrandom(&value, sizeof value, 0); });
    }
    static Result close(int fd) { // not retried: the descriptor is gone in any case
        return ::close(fd) == 0 || errno == EINTR ? Result{} : Result{-1, errno};
    }

  private:
    // O_NONBLOCK: to open a pipe does not wait for its other end.
    static constexpr int read_flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;

    template <class Call>
    static Result retried(Call call) {
        for (;;) {
            if (const auto value = static_cast<long>(call()); value >= 0) {
                return {value, 0};
            }
            if (errno != EINTR) {
                return {-1, errno};
            }
        }
    }
};

/// Whether this is UTF-8 (RFC 3629: shortest forms, no surrogates) without control characters.
[[nodiscard]] inline bool is_printable_utf8(std::string_view text) noexcept {
    while (!text.empty()) {
        const auto first = static_cast<unsigned char>(text.front());
        const std::size_t size = first < 0x80                    ? 1
                                 : first >= 0xc2 && first < 0xe0 ? 2
                                 : first >= 0xe0 && first < 0xf0 ? 3
                                 : first >= 0xf0 && first < 0xf5 ? 4
                                                                 : 0;
        if (size == 0 || text.size() < size) {
            return false;
        }
        std::uint32_t point = size == 1 ? first : first & (0xffU >> (size + 1));
        for (const char c : text.substr(1, size - 1)) {
            const auto byte = static_cast<unsigned char>(c);
            if ((byte & 0xc0) != 0x80) {
                return false;
            }
            point = point << 6 | (byte & 0x3fU);
        }
        const bool longer_than_need_be =
            (size == 3 && point < 0x800) || (size == 4 && point < 0x10000);
        if (longer_than_need_be || point > 0x10ffff || (point >= 0xd800 && point < 0xe000) ||
            point < 0x20 || (point >= 0x7f && point < 0xa0)) {
            return false;
        }
        text.remove_prefix(size);
    }
    return true;
}

/// The name under which a file that is called `text` may be stored; none if there is none. Of a
/// path with backslashes, as clients on Windows may send it, the last component. A name has 1 to
/// 255 bytes of UTF-8, no slash, no control character, and no leading dot. Nothing is decoded:
/// "%2e%2e" is a name like another.
[[nodiscard]] inline std::optional<std::string> safe_name(std::string_view text) {
    constexpr std::size_t longest_name = 255;
    if (const std::size_t backslash = text.rfind('\\'); backslash != text.npos) {
        if (text.find('/') != text.npos) {
            return std::nullopt; // two kinds of path in one
        }
        text.remove_prefix(backslash + 1);
    }
    if (text.empty() || text.size() > longest_name || text.front() == '.' ||
        text.find('/') != text.npos || !is_printable_utf8(text)) {
        return std::nullopt;
    }
    return std::string(text);
}

/// SHA-256 of what is added.
class Sha256 {
  public:
    /// False if the library fails (no memory, or it does not provide the digest).
    [[nodiscard]] bool begin() {
        context_.reset(::EVP_MD_CTX_new());
        return context_ && ::EVP_DigestInit_ex(context_.get(), ::EVP_sha256(), nullptr) == 1;
    }
    [[nodiscard]] bool add(std::string_view bytes) {
        return ::EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1;
    }
    /// In hexadecimal; empty if the library fails. Ends it.
    [[nodiscard]] std::string end() {
        unsigned char digest[EVP_MAX_MD_SIZE];
        unsigned int size = 0;
        if (::EVP_DigestFinal_ex(context_.get(), digest, &size) != 1) {
            return {};
        }
        constexpr char digits[] = "0123456789abcdef";
        std::string text;
        for (const unsigned char byte : std::span(digest, size)) {
            text += digits[byte >> 4];
            text += digits[byte & 15];
        }
        return text;
    }

  private:
    struct Free {
        void operator()(EVP_MD_CTX* context) const { ::EVP_MD_CTX_free(context); }
    };
    std::unique_ptr<EVP_MD_CTX, Free> context_;
};

template <class System>
class BasicStore;

/// A name in the directory that is removed when this goes, unless it is released.
template <class System>
class BasicTemporaryName {
  public:
    using Directory = std::shared_ptr<const reactor::os::BasicFd<System>>;

    BasicTemporaryName() = default;
    BasicTemporaryName(Directory directory, std::string name)
        : directory_(std::move(directory)), name_(std::move(name)) {}
    BasicTemporaryName(BasicTemporaryName&& other) noexcept
        : directory_(std::move(other.directory_)), name_(std::move(other.name_)) {}
    BasicTemporaryName& operator=(BasicTemporaryName&& other) noexcept {
        std::swap(directory_, other.directory_);
        std::swap(name_, other.name_);
        return *this;
    }
    ~BasicTemporaryName() {
        if (directory_) {
            System::unlink(directory_->get(), name_.c_str());
        }
    }

    [[nodiscard]] explicit operator bool() const noexcept { return directory_ != nullptr; }
    [[nodiscard]] const char* text() const noexcept { return name_.c_str(); }
    void release() noexcept { directory_.reset(); }

    /// Tries names of the kind that nobody can ask for, until `make(name)` makes one that is new.
    template <class Make>
    static BasicTemporaryName find(const Directory& directory, Make make, Result& result) {
        for (int attempt = 0; attempt < 100; ++attempt) {
            std::uint64_t number = 0;
            if (result = System::random(number); !result.ok()) {
                return {};
            }
            char name[32];
            std::snprintf(name, sizeof name, ".upload-%016llx",
                          static_cast<unsigned long long>(number));
            if (result = make(static_cast<const char*>(name)); result.ok()) {
                return {directory, name};
            }
            if (result.error != EEXIST) {
                return {};
            }
        }
        return {};
    }

  private:
    Directory directory_;
    std::string name_;
};

/// A file that is being written. When it goes unfinished, nothing is left of it.
template <class System>
class BasicUpload {
  public:
    /// Appends all of it, or says why not (full disk, error of the device). Small pieces are
    /// gathered, so an error may be told by a later call, at the latest by finish. After an error
    /// nothing else works, and every call answers with that error.
    std::error_code write(std::string_view bytes) {
        if (!error_ && !file_) {
            error_ = std::make_error_code(std::errc::bad_file_descriptor); // finished, or none
        }
        if (!error_ && !digest_.add(bytes)) {
            error_ = std::make_error_code(std::errc::not_enough_memory);
        }
        if (!error_ && gathered_.size() + bytes.size() >= gathering_size) {
            write_out(gathered_);
            gathered_.clear();
        }
        if (bytes.size() >= gathering_size) {
            write_out(bytes);
        } else if (!error_) {
            gathered_ += bytes;
        }
        size_ += error_ ? 0 : bytes.size();
        return error_;
    }

    /// Gives the file its name, atomically: who opens it sees the file that was there before, or
    /// this one, whole. A name that is not safe is refused, and another may be tried; after any
    /// other error nothing else works, and nothing is left when this goes. (But for the last step:
    /// if the directory cannot be brought to the disk, the file has its name, until a crash.)
    std::error_code finish(std::string_view name) {
        const std::optional<std::string> safe = safe_name(name);
        if (!error_ && file_ && safe != name) {
            return std::make_error_code(std::errc::invalid_argument);
        }
        if (!error_ && !file_) {
            error_ = std::make_error_code(std::errc::bad_file_descriptor);
        }
        write_out(gathered_);
        if (!error_) {
            error_ = publish(safe->c_str());
        }
        return error_;
    }

    /// What write has taken so far, in bytes.
    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
    /// Of what was written, in hexadecimal. Empty before it is finished.
    [[nodiscard]] const std::string& sha256() const noexcept { return sha256_; }

  private:
    friend class BasicStore<System>;
    using Fd = reactor::os::BasicFd<System>;
    using TemporaryName = BasicTemporaryName<System>;

    // Less is not worth a system call: a client may send its bytes one by one.
    static constexpr std::size_t gathering_size = 16 * 1024;

    BasicUpload(std::shared_ptr<const Fd> directory, bool unnamed, bool durable)
        : directory_(std::move(directory)), durable_(durable) {
        Result opened{-1, EOPNOTSUPP};
        if (unnamed) {
            opened = System::open_unnamed(directory_->get());
        }
        // EISDIR: a kernel that does not know the flag (open(2)).
        if (opened.error == EOPNOTSUPP || opened.error == EISDIR) {
            const auto create = [&](const char* name) {
                return System::create(directory_->get(), name);
            };
            temporary_ = TemporaryName::find(directory_, create, opened);
        }
        file_.reset(opened.fd_or_none());
        if (!opened.ok()) {
            error_ = opened.code();
        } else if (!digest_.begin()) {
            error_ = std::make_error_code(std::errc::not_enough_memory);
        }
    }

    void write_out(std::string_view bytes) {
        while (!error_ && !bytes.empty()) {
            const Result written = System::write(file_.get(), bytes);
            if (!written.ok() || written.count() == 0) {
                error_ = written.ok() ? std::make_error_code(std::errc::io_error) : written.code();
                break;
            }
            bytes.remove_prefix(written.count());
        }
    }

    std::error_code publish(const char* name) {
        sha256_ = digest_.end();
        if (sha256_.empty()) {
            return std::make_error_code(std::errc::not_enough_memory);
        }
        if (Result done = durable_ ? System::synchronize(file_.get()) : Result{}; !done.ok()) {
            return done.code();
        }
        Result linked{-1, EEXIST};
        if (!temporary_) {
            linked = System::link_unnamed(file_.get(), directory_->get(), name);
            if (linked.error == EEXIST) { // a name cannot be linked over, only renamed over
                const auto link = [&](const char* other) {
                    return System::link_unnamed(file_.get(), directory_->get(), other);
                };
                temporary_ = TemporaryName::find(directory_, link, linked);
            }
            if (!linked.ok()) {
                return linked.code();
            }
        }
        // Some file systems tell only now that there was no room.
        if (Result closed = System::close(file_.release()); !closed.ok()) {
            if (!temporary_) {
                System::unlink(directory_->get(), name);
            }
            return closed.code();
        }
        if (temporary_) {
            const Result renamed = System::rename(directory_->get(), temporary_.text(), name);
            if (!renamed.ok()) {
                return renamed.code();
            }
            temporary_.release();
        }
        return durable_ ? System::synchronize(directory_->get()).code() : std::error_code{};
    }

    std::shared_ptr<const Fd> directory_;
    TemporaryName temporary_; // none while the file is unnamed
    Fd file_;
    Sha256 digest_;
    std::string gathered_; // taken, and not yet written out
    std::uint64_t size_ = 0;
    std::string sha256_;
    std::error_code error_;
    bool durable_;
};

/// A stored file, opened. It stays what it was when it is replaced meanwhile.
template <class System>
class BasicStoredForReading {
  public:
    /// In bytes, when it was opened.
    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

    /// Fills `space` with what comes next, wholly: ask for no more than is left. An I/O error if
    /// the file has become shorter than it was.
    std::error_code read(std::span<std::byte> space) {
        while (!space.empty()) {
            const Result got = System::read(file_.get(), space);
            if (!got.ok() || got.count() == 0) {
                return got.ok() ? std::make_error_code(std::errc::io_error) : got.code();
            }
            space = space.subspan(got.count());
        }
        return {};
    }

  private:
    friend class BasicStore<System>;

    reactor::os::BasicFd<System> file_;
    std::uint64_t size_ = 0;
};

/// The directory. Cheap to copy; what it began may outlive it.
template <class System>
class BasicStore {
  public:
    using Upload = BasicUpload<System>;
    using StoredForReading = BasicStoredForReading<System>;

    /// The directory must be there. `durable`: finish answers when the file is on the disk (fsync).
    /// Throws std::system_error.
    explicit BasicStore(const std::string& directory, bool durable = false) : durable_(durable) {
        const Result opened = System::open_directory(directory.c_str());
        if (!opened.ok()) {
            throw std::system_error(opened.code(), directory);
        }
        directory_ = std::make_shared<const Fd>(opened.fd());
        unnamed_ = System::can_link_unnamed();
    }

    /// An upload that is empty, or the error, which it then answers with as well.
    [[nodiscard]] Upload begin(std::error_code& error) const {
        Upload upload(directory_, unnamed_, durable_);
        error = upload.error_;
        return upload;
    }

    /// Opens a stored file: a regular file under a safe name. What cannot be named is an invalid
    /// argument, a symbolic link ELOOP, a directory EISDIR, what is no file either not supported.
    [[nodiscard]] StoredForReading open(std::string_view name, std::error_code& error) const {
        StoredForReading stored;
        const std::optional<std::string> safe = safe_name(name);
        if (safe != name) {
            error = std::make_error_code(std::errc::invalid_argument);
            return stored;
        }
        Result opened = System::open_beneath(directory_->get(), safe->c_str());
        if (opened.error == ENOSYS || opened.error == EPERM) { // old, or a filter of system calls
            opened = System::open_component(directory_->get(), safe->c_str());
        }
        stored.file_.reset(opened.fd_or_none());
        struct stat status {};
        if (opened.ok()) {
            opened = System::status(opened.fd(), status);
        }
        error = opened.code();
        if (opened.ok() && !S_ISREG(status.st_mode)) {
            error = std::make_error_code(S_ISDIR(status.st_mode) ? std::errc::is_a_directory
                                                                 : std::errc::not_supported);
        }
        if (error) {
            stored.file_.reset();
        } else {
            stored.size_ = static_cast<std::uint64_t>(status.st_size);
        }
        return stored;
    }

  private:
    using Fd = reactor::os::BasicFd<System>;

    std::shared_ptr<const Fd> directory_;
    bool durable_;
    bool unnamed_ = false;
};

using Store = BasicStore<FileSystem>;
using Upload = BasicUpload<FileSystem>;
using StoredForReading = BasicStoredForReading<FileSystem>;

} // namespace http_upload
