// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: calls for descriptors, and for what stands at a path.
//
// A path names a UNIX socket, or what Network::make_path put there; there are no other files, and
// permissions are kept but bind nobody: the program on trial is root.
#pragma once

#include <reactor/sim/calls/gate.hpp>

namespace reactor::inline v0 {
namespace sim {

/// Calls of os::Kernel, as they are in the current World; each contract there holds here.
struct DescriptorCalls {
    // -- descriptors ------------------------------------------------------------------------------

    /// Nothing, where there is no world or no such descriptor.
    static void close(int fd) noexcept {
        detail::answer(Call::close, fd, 0, [&](World& world) { return world.close(fd); });
    }
    /// Notes it; nothing ever blocks here.
    static os::Result set_non_blocking(int fd) noexcept {
        return detail::on(Call::set_flag, fd, O_NONBLOCK, [](World&, File& file) {
            file.non_blocking = true;
            return os::Result{};
        });
    }
    /// Nothing is ever executed here: only whether the descriptor is open.
    static os::Result set_close_on_exec(int fd) noexcept {
        return detail::on(Call::set_flag, fd, FD_CLOEXEC,
                          [](World&, File&) { return os::Result{}; });
    }
    /// The lowest free number; may meet EMFILE.
    static os::Result duplicate(int fd) noexcept {
        return detail::answer(Call::duplicate, fd, 0, [&](World& world) {
            return world.random.chance(world.weather.no_descriptors) ? os::Result{0, EMFILE}
                                                                     : world.duplicate(fd);
        });
    }
    /// What it is good for; what is always ready counts as a character device.
    static os::Result traits(int fd, os::FdTraits& out) noexcept {
        return detail::on(Call::traits, fd, 0, [&](World&, File& file) {
            out = {file.is_socket(), file.kind == File::Kind::always,
                   file.kind != File::Kind::pipe_write, file.kind != File::Kind::pipe_read};
            return os::Result{};
        });
    }

    // -- files at a path --------------------------------------------------------------------------

    /// ENOENT where nothing stands.
    static os::Result file_traits(const char* path, os::FileTraits& out) noexcept {
        return at_path(Call::file_traits, path, [&](os::FileTraits& there) { out = there; });
    }
    /// Of a socket: the bits that its file will be born with; the umask of a world is 022.
    static os::Result set_mode(int fd, unsigned mode) noexcept {
        return detail::on(Call::set_mode, fd, mode, [&](World&, File& file) {
            file.mode = mode;
            return os::Result{};
        });
    }
    /// ENOENT where nothing stands.
    static os::Result set_mode_at(const char* path, unsigned mode) noexcept {
        return at_path(Call::set_mode, path, [&](os::FileTraits& there) {
            there.mode = mode;
            there.changed = World::current()->time().time_since_epoch();
        });
    }
    /// Whoever listens there goes on to listen, and nobody finds him.
    static os::Result unlink(const char* path) noexcept {
        return detail::answer(Call::unlink, -1, 0, [&](World& world) {
            return os::Result{0, world.remove_path(path) ? 0 : ENOENT};
        });
    }

  private:
    template <class Act>
    static os::Result at_path(Call call, const char* path, Act&& act) {
        return detail::answer(call, -1, 0, [&](World& world) {
            os::FileTraits* const there = world.find_path(path);
            if (there == nullptr) {
                return os::Result{0, ENOENT};
            }
            act(*there);
            return os::Result{};
        });
    }
};

} // namespace sim
} // namespace reactor::inline v0
