// SPDX-License-Identifier: Apache-2.0
//
// Net, behind the scenes: the file that is the name of a UNIX listener.
//
// Whoever binds a path owns the file until somebody else puts another there. So before a file is
// removed it is looked at: one's own by device and inode, while the socket is open and so keeps
// that inode from being given again; a stale one by the time of its last change as well, as nobody
// holds it. The kernel tells a path's file, not a socket's, and removes a path, not a file: what
// another process puts there between bind(2) and the look, or the look and the removal, is not
// seen.
#pragma once

#include <reactor/net/address.hpp>
#include <reactor/os/fd.hpp>

#include <cstddef>
#include <utility>

namespace reactor::inline v0 {
namespace detail {

/// The file of a listener; removes it as it goes if it is still that one.
template <class Kernel>
class BoundFile {
  public:
    BoundFile() noexcept = default;
    BoundFile(BoundFile&& other) noexcept { take(other); }
    BoundFile& operator=(BoundFile&&) = delete;
    ~BoundFile() { remove(); }

    /// Takes note of the file that a socket has just been bound to. False: it is gone already.
    [[nodiscard]] bool own(const Address& at) noexcept {
        if (!look(at, traits_).ok() || !traits_.socket) {
            return false;
        }
        at_ = at;
        process_ = Kernel::process_id();
        return true;
    }
    [[nodiscard]] bool is_owned() const noexcept { return !at_.empty(); }
    /// Whether that very file stands there. The socket must be open: it keeps the inode from being
    /// given to another file.
    [[nodiscard]] bool stands() const noexcept {
        os::FileTraits now;
        return look(at_, now).ok() && now.device == traits_.device && now.inode == traits_.inode;
    }
    [[nodiscard]] bool has_mode(unsigned mode) const noexcept { return traits_.mode == mode; }
    /// It is somebody else's business from now on.
    void forget() noexcept { at_ = Address(); }
    /// A forked child has it by accident, and removes nothing.
    void remove() noexcept {
        if (is_owned() && process_ == Kernel::process_id() && stands()) {
            Kernel::unlink(Path(at_).text);
        }
        forget();
    }
    /// Takes over what another owns; it must own nothing itself.
    void take(BoundFile& other) noexcept {
        at_ = std::exchange(other.at_, Address());
        traits_ = other.traits_;
        process_ = other.process_;
    }

    /// Sets the permission bits of what stands at this address.
    [[nodiscard]] static os::Result set_mode(const Address& at, unsigned mode) noexcept {
        return Kernel::set_mode_at(Path(at).text, mode);
    }
    /// Removes a socket that nobody listens on. Whether the path is free then.
    [[nodiscard]] static bool remove_stale(const Address& at) noexcept {
        os::FileTraits before;
        os::FileTraits after;
        os::Result result = look(at, before);
        if (result.ok() && (!before.socket || !refuses(at))) {
            return false;
        }
        result = result.ok() ? look(at, after) : result;
        // Nobody holds it: the number of its inode alone does not prove that it is the same.
        if (result.ok() && (after.device != before.device || after.inode != before.inode ||
                            after.changed != before.changed)) {
            return false;
        }
        result = result.ok() ? Kernel::unlink(Path(at).text) : result;
        return result.ok() || result.error == ENOENT;
    }

  private:
    /// A path with a zero at its end, which it need not have in an address.
    struct Path {
        explicit Path(const Address& at) noexcept { at.path().copy(text, sizeof text - 1); }
        char text[sizeof(sockaddr_un::sun_path) + 1] = {};
    };

    [[nodiscard]] static os::Result look(const Address& at, os::FileTraits& traits) noexcept {
        return Kernel::file_traits(Path(at).text, traits);
    }
    /// Whoever listens there sees this as a client that leaves at once.
    [[nodiscard]] static bool refuses(const Address& at) noexcept {
        const os::BasicFd<Kernel> probe(Kernel::stream_socket(AF_UNIX).fd_or_none());
        return probe && Kernel::connect(probe.get(), at.data(), at.size()).error == ECONNREFUSED;
    }

    Address at_;
    os::FileTraits traits_;
    int process_ = 0;
};

} // namespace detail
} // namespace reactor::inline v0
