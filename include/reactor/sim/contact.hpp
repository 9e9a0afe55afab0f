// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: how somebody who lives in the network gets a connection, and loses it.
//
// A Contact has no descriptor: it holds a side of a connection, or a place where it listens, as the
// kernel itself would. It says nothing and reads nothing by itself; a Peer does.
#pragma once

#include <reactor/sim/world.hpp>

namespace reactor::inline v0 {
namespace sim {

/// One end of at most one connection, by TCP or UNIX socket, with no program behind it.
class Contact : protected Watcher {
  public:
    Contact(const Contact&) = delete;
    Contact& operator=(const Contact&) = delete;

    /// Whether it has a connection now, and knows it.
    [[nodiscard]] bool is_connected() const noexcept {
        return connection_ && side().established && !side().cut;
    }
    /// Where it connected from; empty before, and of a UNIX socket.
    [[nodiscard]] const Address& address() const noexcept { return address_; }

  protected:
    /// In this world, which outlives it.
    explicit Contact(World& world) noexcept : world_(world) {}
    ~Contact() {
        leave();
        unlisten();
    }

    /// Begins to connect. EAGAIN: a UNIX listener has no room, it is to be tried again; another
    /// errno: refused at once. What comes of a TCP connect shows later.
    [[nodiscard]] int call(const Address& to) {
        Backlog* listener = nullptr;
        if (to.is_unix()) {
            if (const int error = world_.find_unix(to, listener); error != 0) {
                return error;
            }
        }
        connection_ = std::make_shared<Connection>(
            world_, to.is_unix() ? Connection::Kind::unix_stream : Connection::Kind::tcp);
        which_ = 0;
        side().watcher = this;
        if (listener != nullptr) {
            world_.join(connection_, *listener, address_);
            return 0;
        }
        address_ = to.with_port(world_.free_port());
        world_.call(connection_, to, address_);
        return 0;
    }
    /// Listens. False: somebody has the address.
    [[nodiscard]] bool listen_at(const Address& at) {
        if (world_.is_taken(at, {})) {
            return false;
        }
        backlog_.address = at;
        if (const std::string path(at.path()); !path.empty()) {
            const os::FileTraits* const made = world_.make_path(path, true, 0777);
            if (made == nullptr) {
                return false;
            }
            backlog_.inode = made->inode;
        }
        backlog_.limit = 1;
        backlog_.watcher = this;
        listens_ = true;
        world_.publish(backlog_);
        return true;
    }
    /// Takes the first who called, and listens no more. False: nobody has.
    [[nodiscard]] bool accept() {
        if (backlog_.waiting.empty()) {
            return false;
        }
        connection_ = std::move(backlog_.waiting.front());
        backlog_.waiting.pop_front();
        unlisten();
        which_ = 1;
        side().watcher = this;
        return true;
    }
    /// Closes what it has.
    void leave() {
        if (connection_) {
            std::exchange(connection_, nullptr)->close(which_);
        }
    }
    /// Its own side. Precondition: it has a connection.
    [[nodiscard]] Side& side() const noexcept { return connection_->side(which_); }

    World& world_;                           ///< where it lives
    std::shared_ptr<Connection> connection_; ///< null if it has none
    int which_ = 0;                          ///< of its sides

  private:
    void unlisten() {
        if (std::exchange(listens_, false)) {
            world_.withdraw(backlog_);
            world_.remove_path(std::string(backlog_.address.path()));
        }
    }

    Address address_;
    Backlog backlog_;
    bool listens_ = false;
};

} // namespace sim
} // namespace reactor::inline v0
