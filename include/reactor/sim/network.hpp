// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: who listens where, and how a client gets there.
//
// Every IP address is an address of the one machine there is, and every port below 20000 is free
// until somebody binds it. A TCP client's call travels as its bytes will; a full backlog drops it,
// and it is sent again, later each time. A UNIX client is connected in the call or told why not.
// The name of a UNIX socket is a file or an abstract name; directories are taken to be there.
#pragma once

#include <reactor/sim/file.hpp>

#include <map>
#include <string>

namespace reactor::inline v0 {
namespace sim {

/// The network of a world, and the files that are names of UNIX sockets. One thread.
class Network : public Nature {
  public:
    using Nature::Nature;

    // -- files at a path --------------------------------------------------------------------------

    /// What stands at this path; null if nothing does.
    [[nodiscard]] os::FileTraits* find_path(const std::string& path) noexcept {
        const auto found = paths_.find(path);
        return found == paths_.end() ? nullptr : &found->second;
    }
    /// Puts something there: the name of a socket, or a file that is none. Null if it is taken.
    os::FileTraits* make_path(const std::string& path, bool socket, unsigned mode) {
        const auto [place, is_new] = paths_.try_emplace(path);
        if (!is_new) {
            return nullptr;
        }
        place->second = {socket, mode, 1, ++last_inode_, time().time_since_epoch()};
        return &place->second;
    }
    /// Whether something stood there; nothing does now.
    bool remove_path(const std::string& path) noexcept { return paths_.erase(path) != 0; }

    // -- who listens ------------------------------------------------------------------------------

    /// Somebody listens, with a descriptor or without; until it is withdrawn.
    void publish(Backlog& backlog) { listening_.push_back(&backlog); }
    /// Nobody listens there any more; who waits is reset.
    void withdraw(Backlog& backlog) {
        listening_.erase(std::find(listening_.begin(), listening_.end(), &backlog));
        while (!backlog.waiting.empty()) {
            const std::shared_ptr<Connection> left = std::move(backlog.waiting.front());
            backlog.waiting.pop_front();
            if (left->is_tcp()) {
                left->reset(1);
                left->side(1).open = false;
            } else {
                left->side(0).error = ECONNRESET;
                left->close(1);
            }
        }
    }
    /// Whether a port cannot be listened on, as somebody does already.
    [[nodiscard]] bool is_taken(const Address& address, const SocketOptions& with) const noexcept {
        return std::any_of(listening_.begin(), listening_.end(), [&](const Backlog* backlog) {
            return !(with.reuse_port && backlog->reuse_port) &&
                   overlap(backlog->address, backlog->only_ipv6, address, with.only_ipv6);
        });
    }
    /// Whether a socket at the one address stands in the way of a socket at the other.
    [[nodiscard]] static bool overlap(const Address& one, bool only_ipv6, const Address& other,
                                      bool other_only_ipv6) noexcept {
        return covers(one, only_ipv6, other) || covers(other, other_only_ipv6, one);
    }
    /// A port that nobody has had of late.
    [[nodiscard]] std::uint16_t free_port() noexcept {
        next_port_ = next_port_ < 60'000 ? static_cast<std::uint16_t>(next_port_ + 1) : 20'000;
        return next_port_;
    }

    // -- who calls --------------------------------------------------------------------------------

    /// Begins to connect side 0 by TCP; the outcome comes over the network.
    void call(const std::shared_ptr<Connection>& connection, const Address& to,
              const Address& from) {
        connection->side(0).name = from;
        connection->side(1).name = is_any(to) ? loopback(to) : to;
        if (random.chance(weather.unreachable)) {
            return connection->refuse(EHOSTUNREACH);
        }
        const bool refused = random.chance(weather.refused);
        knock(connection, refused, 0);
    }
    /// Who listens at the name of a UNIX socket and has room; else the errno.
    [[nodiscard]] int find_unix(const Address& at, Backlog*& listener) {
        const os::FileTraits* const file =
            at.path().empty() ? nullptr : find_path(std::string(at.path()));
        if (file == nullptr && !at.path().empty()) {
            return ENOENT;
        }
        const auto found =
            std::find_if(listening_.begin(), listening_.end(), [&](const Backlog* backlog) {
                return file == nullptr ? backlog->address == at : backlog->inode == file->inode;
            });
        if (found == listening_.end() || random.chance(weather.refused)) {
            return ECONNREFUSED;
        }
        listener = *found;
        return listener->is_full() ? EAGAIN : 0;
    }
    /// Connects side 0 to him, at once.
    static void join(const std::shared_ptr<Connection>& connection, Backlog& listener,
                     const Address& from) {
        connection->side(0).name = from;
        connection->side(1).name = listener.address;
        connection->join();
        listener.push(connection);
    }
    /// The same host as it is reached from the machine itself: 0.0.0.0 is 127.0.0.1.
    [[nodiscard]] static Address loopback(const Address& any) noexcept {
        return any.is_ipv4() ? Address::loopback_ipv4(any.port())
                             : Address::loopback_ipv6(any.port());
    }
    /// Whether it is 0.0.0.0 or [::], with any port.
    [[nodiscard]] static bool is_any(const Address& address) noexcept {
        const std::uint16_t port = address.port();
        return address == Address::any_ipv4(port) || address == Address::any_ipv6(port);
    }

  private:
    /// Whether a socket at `wide` has what comes to `one`.
    [[nodiscard]] static bool covers(const Address& wide, bool only_ipv6,
                                     const Address& one) noexcept {
        if (wide.port() == 0 && !wide.is_unix()) {
            return false;
        }
        if (wide == one) {
            return true;
        }
        const bool same_family = wide.family() == one.family();
        return wide.port() == one.port() && is_any(wide) &&
               (same_family || (wide.is_ipv6() && one.is_ipv4() && !only_ipv6));
    }
    /// One who listens there; of several that share the port, any.
    [[nodiscard]] Backlog* listener_at(const Address& address) noexcept {
        const auto takes = [&](const Backlog* backlog) {
            return covers(backlog->address, backlog->only_ipv6, address);
        };
        auto found = std::find_if(listening_.begin(), listening_.end(), takes);
        while (found != listening_.end() && (*found)->reuse_port && random.below(2) == 0) {
            const auto next = std::find_if(found + 1, listening_.end(), takes);
            if (next == listening_.end()) {
                break;
            }
            found = next;
        }
        return found == listening_.end() ? nullptr : *found;
    }
    /// The client's SYN arrives.
    void knock(const std::shared_ptr<Connection>& connection, bool refused, int tries) {
        connection->arrive(0, [this, connection, refused, tries] {
            const Side& client = connection->side(0);
            if (!client.open || client.cut || connection->has_vanished()) {
                return;
            }
            Backlog* const backlog = listener_at(connection->side(1).name);
            if (backlog == nullptr || refused) {
                return connection->refuse(ECONNREFUSED);
            }
            if (!backlog->is_full()) {
                connection->answer();
                return backlog->push(connection);
            }
            if (tries == 6) {
                return connection->fail(0, ETIMEDOUT);
            }
            after(std::chrono::seconds{1 << tries}, [this, connection, tries] {
                knock(connection, false, tries + 1);
            });
        });
    }

    std::vector<Backlog*> listening_;
    std::map<std::string, os::FileTraits> paths_;
    std::uint64_t last_inode_ = 0;
    std::uint16_t next_port_ = 30'000;
};

} // namespace sim
} // namespace reactor::inline v0
