// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: the tables of the simulated kernel: descriptors, epoll sets, addresses.
//
// A new descriptor is the lowest free number, as POSIX has it, so numbers are reused at once; they
// begin at `first_descriptor`, so that one that finds its way into the real kernel fails there. An
// epoll set names what it watches by descriptor and file: what was closed while a duplicate lives
// goes on being reported and can no longer be named (kernel fact 2 in the tests).
#pragma once

#include <reactor/sim/file.hpp>

namespace reactor::inline v0 {
namespace sim {

/// Descriptors, epoll sets and the network. One thread.
class System : public Nature {
  public:
    using Result = os::Result;
    static constexpr int first_descriptor = 10'000;

    System(std::uint64_t seed, const Weather& today) : Nature(seed, today) {}
    ~System() {
        for (std::size_t n = 0; n < table_.size(); ++n) {
            close(first_descriptor + static_cast<int>(n));
        }
    }

    // -- descriptors ------------------------------------------------------------------------------

    /// The file behind a descriptor; null if it is none.
    [[nodiscard]] File* find(int fd) const noexcept {
        const auto place = static_cast<std::size_t>(fd - first_descriptor);
        return fd < first_descriptor || place >= table_.size() ? nullptr : table_[place].get();
    }
    /// How many descriptors are open.
    [[nodiscard]] std::size_t open_descriptors() const noexcept { return open_; }
    /// How many descriptors were closed while an epoll set still watched them by that number.
    [[nodiscard]] std::size_t careless_closes() const noexcept { return careless_closes_; }
    [[nodiscard]] Result open(std::shared_ptr<File> file) {
        if (open_ >= weather.descriptors) {
            return {0, EMFILE};
        }
        std::size_t place = 0;
        while (place < table_.size() && table_[place]) {
            ++place;
        }
        if (place == table_.size()) {
            table_.emplace_back();
        }
        ++open_;
        ++file->descriptors;
        table_[place] = std::move(file);
        return {first_descriptor + static_cast<long>(place), 0};
    }
    [[nodiscard]] Result open(File::Kind kind) { return open(std::make_shared<File>(kind)); }
    [[nodiscard]] Result duplicate(int fd) {
        return find(fd) == nullptr
                   ? Result{0, EBADF}
                   : open(table_[static_cast<std::size_t>(fd - first_descriptor)]);
    }
    Result close(int fd) {
        if (find(fd) == nullptr) {
            return {0, EBADF};
        }
        const std::shared_ptr<File> file =
            std::move(table_[static_cast<std::size_t>(fd - first_descriptor)]);
        const auto names_it = [&](const Watch& w) { return w.fd == fd && w.file == file.get(); };
        const bool is_watched =
            std::any_of(file->watched_by.begin(), file->watched_by.end(), [&](const File* set) {
                return std::any_of(set->watches.begin(), set->watches.end(), names_it);
            });
        careless_closes_ += is_watched ? 1U : 0U;
        --open_;
        if (--file->descriptors == 0) {
            release(*file);
        }
        return {};
    }
    /// Two ends of a pipe, to read and to write.
    [[nodiscard]] Result pipe(int& reading, int& writing) {
        auto shared = std::make_shared<Pipe>();
        return open_two(File::Kind::pipe_read, File::Kind::pipe_write, reading, writing,
                        [&](File& one, File& other) { one.pipe = other.pipe = shared; });
    }
    [[nodiscard]] Result stream_pair(int& first, int& second) {
        auto both = std::make_shared<Connection>(*this, Connection::Kind::pair);
        return open_two(File::Kind::pair, File::Kind::pair, first, second,
                        [&](File& one, File& other) {
                            one.connection = other.connection = both;
                            other.which = 1;
                        });
    }

    // -- epoll ------------------------------------------------------------------------------------

    Result epoll_control(int epoll, int operation, int fd, std::uint32_t events,
                         std::uint64_t data) {
        File* const set = find(epoll);
        File* const file = find(fd);
        if (set == nullptr || file == nullptr) {
            return {0, EBADF};
        }
        if (file->kind == File::Kind::always) {
            return {0, EPERM};
        }
        if (set->kind != File::Kind::epoll || set == file) {
            return {0, EINVAL};
        }
        const auto found =
            std::find_if(set->watches.begin(), set->watches.end(),
                         [&](const Watch& w) { return w.fd == fd && w.file == file; });
        if (operation == EPOLL_CTL_ADD) {
            if (found != set->watches.end()) {
                return {0, EEXIST};
            }
            set->watches.push_back({fd, file, events, data, ~std::uint64_t{0}});
            file->watched_by.push_back(set);
            return {};
        }
        if (found == set->watches.end()) {
            return {0, ENOENT};
        }
        if (operation == EPOLL_CTL_MOD) {
            *found = {fd, file, events, data, ~std::uint64_t{0}};
            return {};
        }
        file->watched_by.erase(
            std::find(file->watched_by.begin(), file->watched_by.end(), set));
        set->watches.erase(found);
        return {};
    }
    /// What is ready now, in turns or, if the weather shuffles, in any order.
    std::size_t collect(File& set, std::span<epoll_event> into) {
        std::size_t count = 0;
        const std::size_t watches = set.watches.size();
        std::size_t place = weather.shuffle ? static_cast<std::size_t>(random.below(watches))
                            : set.next_watch < watches ? set.next_watch
                                                       : 0;
        for (std::size_t n = 0; n < watches && count < into.size(); ++n) {
            Watch& watch = set.watches[place];
            std::uint32_t bits = File::ready_bits(watch);
            if (random.chance(weather.spurious)) {
                bits |= watch.events & (EPOLLIN | EPOLLOUT);
            }
            if (bits != 0) {
                into[count].events = bits;
                into[count].data.u64 = watch.data;
                watch.seen = watch.file->changes();
                ++count;
            }
            place = place + 1 == watches ? 0 : place + 1;
        }
        set.next_watch = place;
        if (weather.shuffle) {
            for (std::size_t n = count; n > 1; --n) {
                std::swap(into[n - 1], into[static_cast<std::size_t>(random.below(n))]);
            }
        }
        return count;
    }
    /// poll(2), without a wait.
    std::size_t collect(std::span<pollfd> fds, bool honest) {
        std::size_t count = 0;
        for (pollfd& each : fds) {
            each.revents = 0;
            if (each.fd < 0) {
                continue;
            }
            const File* const file = find(each.fd);
            constexpr std::uint32_t always_told = EPOLLERR | EPOLLHUP;
            std::uint32_t bits = POLLNVAL;
            if (file != nullptr) {
                const auto wanted = static_cast<std::uint32_t>(
                    static_cast<unsigned short>(each.events));
                bits = file->readiness() & (wanted | always_told);
                if (!honest && random.chance(weather.spurious)) {
                    bits |= wanted & (POLLIN | POLLOUT);
                }
            }
            each.revents = static_cast<short>(bits);
            count += bits != 0 ? 1U : 0U;
        }
        return count;
    }

    // -- the network ------------------------------------------------------------------------------

    /// Somebody who listens, with a descriptor or without.
    void publish(Backlog& backlog) { listening_.push_back(&backlog); }
    void withdraw(Backlog& backlog) {
        listening_.erase(std::find(listening_.begin(), listening_.end(), &backlog));
        while (!backlog.waiting.empty()) {
            backlog.waiting.front()->reset(1);
            backlog.waiting.front()->side(1).open = false;
            backlog.waiting.pop_front();
        }
    }
    [[nodiscard]] bool is_taken(const Address& address, bool reuse_port) const noexcept {
        return std::any_of(listening_.begin(), listening_.end(), [&](const Backlog* backlog) {
            return backlog->address.port() == address.port() &&
                   (accepts(*backlog, address) || is_any(address)) &&
                   !(reuse_port && backlog->reuse_port);
        });
    }
    /// A port that nobody has had.
    [[nodiscard]] std::uint16_t free_port() noexcept {
        next_port_ = next_port_ < 60'000 ? static_cast<std::uint16_t>(next_port_ + 1) : 20'000;
        return next_port_;
    }
    /// Begins to connect side 0 to `to`; the outcome comes over the network.
    void call(const std::shared_ptr<Connection>& connection, const Address& to,
              const Address& from) {
        connection->side(0).name = from;
        connection->side(1).name = to;
        if (random.chance(weather.unreachable)) {
            return connection->refuse(EHOSTUNREACH);
        }
        const bool refused = random.chance(weather.refused);
        knock(connection, refused, 0);
    }

  private:
    template <class Join>
    Result open_two(File::Kind one, File::Kind other, int& first, int& second, Join&& join) {
        const Result opened = open(one);
        const Result opened_too = opened.ok() ? open(other) : opened;
        if (!opened_too.ok()) {
            if (opened.ok()) {
                table_[static_cast<std::size_t>(opened.fd() - first_descriptor)].reset();
                --open_;
            }
            first = second = -1;
            return opened_too;
        }
        first = opened.fd();
        second = opened_too.fd();
        join(*find(first), *find(second));
        return {};
    }
    /// The last descriptor of it is gone.
    void release(File& file) {
        for (File* const set : file.watched_by) {
            std::erase_if(set->watches, [&](const Watch& watch) { return watch.file == &file; });
        }
        file.watched_by.clear();
        for (const Watch& watch : file.watches) {
            auto& by = watch.file->watched_by;
            by.erase(std::find(by.begin(), by.end(), &file));
        }
        file.watches.clear();
        if (file.backlog) {
            withdraw(*file.backlog);
        }
        if (file.connection) {
            file.connection->side(file.which).lingers = file.lingers;
            file.connection->close(file.which);
        }
        if (file.pipe) {
            (file.kind == File::Kind::pipe_read ? file.pipe->readable_end
                                                : file.pipe->writable_end) = false;
            ++file.pipe->changes;
        }
    }

    [[nodiscard]] static bool is_any(const Address& address) noexcept {
        const std::uint16_t port = address.port();
        return address == Address::any_ipv4(port) || address == Address::any_ipv6(port);
    }
    [[nodiscard]] static bool accepts(const Backlog& backlog, const Address& to) noexcept {
        return backlog.address == to ||
               (is_any(backlog.address) && backlog.address.port() == to.port());
    }
    /// The client's SYN arrives. A full backlog drops it, and it is sent again, later each time.
    void knock(const std::shared_ptr<Connection>& connection, bool refused, int tries) {
        connection->arrive(0, [this, connection, refused, tries] {
            Side& client = connection->side(0);
            if (!client.open || client.cut) {
                return;
            }
            const auto found = std::find_if(
                listening_.begin(), listening_.end(), [&](const Backlog* backlog) {
                    return accepts(*backlog, connection->side(1).name) &&
                           !(backlog->reuse_port && random.below(2) == 0);
                });
            const auto any = found != listening_.end()
                                 ? found
                                 : std::find_if(listening_.begin(), listening_.end(),
                                                [&](const Backlog* backlog) {
                                                    return accepts(*backlog,
                                                                   connection->side(1).name);
                                                });
            if (any == listening_.end() || refused) {
                return connection->refuse(ECONNREFUSED);
            }
            Backlog& backlog = **any;
            if (backlog.waiting.size() > backlog.limit) {
                if (tries == 6) {
                    return connection->fail(0, ETIMEDOUT);
                }
                after(std::chrono::seconds{1 << tries}, [this, connection, tries] {
                    knock(connection, false, tries + 1);
                });
                return;
            }
            backlog.waiting.push_back(connection);
            connection->answer();
            ++backlog.changes;
            if (backlog.watcher != nullptr) {
                backlog.watcher->changed();
            }
        });
    }

    std::vector<std::shared_ptr<File>> table_;
    std::size_t open_ = 0;
    std::size_t careless_closes_ = 0;
    std::vector<Backlog*> listening_;
    std::uint16_t next_port_ = 30'000;
};

} // namespace sim
} // namespace reactor::inline v0
