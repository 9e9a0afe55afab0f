// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: the table of descriptors.
//
// A new descriptor is the lowest free number, as POSIX has it, so numbers are reused at once; they
// begin at `first_descriptor`, so that one that finds its way into the real kernel fails there. The
// last descriptor of a file releases it: it leaves its epoll sets, its network, its other end.
#pragma once

#include <reactor/sim/network.hpp>

namespace reactor::inline v0 {
namespace sim {

/// What descriptors stand for. One thread.
class Descriptors : public Network {
  public:
    /// What a call answers.
    using Result = os::Result;
    /// The lowest number that is given out.
    static constexpr int first_descriptor = 10'000;

    using Network::Network;
    ~Descriptors() {
        for (std::size_t n = 0; n < table_.size(); ++n) {
            close(first_descriptor + static_cast<int>(n));
        }
    }

    /// The file behind a descriptor; null if it is none.
    [[nodiscard]] File* find(int fd) const noexcept {
        const auto place = static_cast<std::size_t>(fd - first_descriptor);
        return fd < first_descriptor || place >= table_.size() ? nullptr : table_[place].get();
    }
    /// How many descriptors are open.
    [[nodiscard]] std::size_t open_descriptors() const noexcept { return open_; }
    /// How many descriptors were closed while an epoll set still watched them by that number.
    [[nodiscard]] std::size_t careless_closes() const noexcept { return careless_closes_; }

    /// A new descriptor for this file; EMFILE if the weather has no more.
    [[nodiscard]] Result open(std::shared_ptr<File> file) {
        if (open_ >= weather.descriptors) {
            return {0, EMFILE};
        }
        while (lowest_ < table_.size() && table_[lowest_]) {
            ++lowest_;
        }
        if (lowest_ == table_.size()) {
            table_.emplace_back();
        }
        ++open_;
        ++file->descriptors;
        table_[lowest_] = std::move(file);
        return {first_descriptor + static_cast<long>(lowest_++), 0};
    }
    /// The same for a fresh file.
    [[nodiscard]] Result open(File::Kind kind) { return open(std::make_shared<File>(kind)); }
    /// A file that is always ready, as /dev/null: what is written is gone, what is read is the end.
    [[nodiscard]] Result always_ready() { return open(File::Kind::always); }
    /// Another descriptor for the same file.
    [[nodiscard]] Result duplicate(int fd) {
        return find(fd) == nullptr ? Result{0, EBADF} : open(table_[place_of(fd)]);
    }
    /// As close(2).
    Result close(int fd) {
        if (find(fd) == nullptr) {
            return {0, EBADF};
        }
        lowest_ = std::min(lowest_, place_of(fd));
        const std::shared_ptr<File> file = std::move(table_[place_of(fd)]);
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
    /// As socketpair(2).
    [[nodiscard]] Result stream_pair(int& first, int& second) {
        auto both = std::make_shared<Connection>(*this, Connection::Kind::unix_stream);
        both->join();
        return open_two(File::Kind::socket, File::Kind::socket, first, second,
                        [&](File& one, File& other) {
                            one.family = other.family = AF_UNIX;
                            one.connection = other.connection = both;
                            other.which = 1;
                        });
    }
    /// Whether a socket cannot have this address, as another is bound to it.
    [[nodiscard]] bool is_bound(const Address& address, const File& by) const noexcept {
        return std::any_of(table_.begin(), table_.end(), [&](const std::shared_ptr<File>& each) {
            if (!each || each.get() == &by || !each->is_socket()) {
                return false;
            }
            const SocketOptions& one = each->options;
            const SocketOptions& other = by.options;
            if ((one.reuse_port && other.reuse_port) ||
                (one.reuse_address && other.reuse_address && !each->backlog)) {
                return false;
            }
            const Address& its = each->connection && !each->is_unix() ? each->side()->name
                                                                      : each->bound;
            return overlap(its, one.only_ipv6, address, other.only_ipv6);
        });
    }

  private:
    [[nodiscard]] static std::size_t place_of(int fd) noexcept {
        return static_cast<std::size_t>(fd - first_descriptor);
    }
    template <class Join>
    Result open_two(File::Kind one, File::Kind other, int& first, int& second, Join&& join) {
        const Result opened = open(one);
        const Result opened_too = opened.ok() ? open(other) : opened;
        if (!opened_too.ok()) {
            if (opened.ok()) {
                close(opened.fd());
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
            file.connection->side(file.which).lingers = file.options.lingers;
            file.connection->close(file.which);
        }
        if (file.pipe) {
            (file.kind == File::Kind::pipe_read ? file.pipe->readable_end
                                                : file.pipe->writable_end) = false;
            ++file.pipe->changes;
        }
    }

    std::vector<std::shared_ptr<File>> table_;
    std::size_t lowest_ = 0; ///< no place below it is free
    std::size_t open_ = 0;
    std::size_t careless_closes_ = 0;
};

} // namespace sim
} // namespace reactor::inline v0
