// SPDX-License-Identifier: Apache-2.0
//
// Annex, behind the scenes: what an executor knows of descriptors.
//
// A link is one descriptor that somebody awaits or that the executor owns: who awaits which half,
// and what the poller's side was told last. What changed waits as Orders, of which each descriptor
// has at most one, until somebody takes them to the poller. While a link is served it is not looked
// at for each change, but once, behind its callbacks: what is awaited anew there, as it was before,
// costs no order. The only system call here closes what is owned. One thread.
#pragma once

#include <reactor/detail/fifo.hpp>
#include <reactor/executor/event.hpp>
#include <reactor/executor/order.hpp>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

namespace reactor::inline v0 {
namespace detail {

/// The descriptors of one executor, by number and by id.
template <class Fd>
class Links {
  public:
    using Order = detail::Order<Fd>;
    static constexpr std::uint32_t none = ~std::uint32_t{0};

    struct Link {
        LinkId id;
        EventId reader;                   ///< who awaits which half
        EventId writer;
        std::uint32_t reads_at = none;    ///< the slots that stay with the halves
        std::uint32_t writes_at = none;
        std::uint32_t round = 0;          ///< which order was the last,
        Interest armed;                   ///< and what it said
        bool known = false;               ///< the poller's side has heard of it
        bool changed = false;             ///< stands in the list of those, whoever has it by then
        std::uint32_t next_changed = none;
        int fd = -1;                      ///< negative: nobody's
        Fd owned;

        [[nodiscard]] Interest interest() const noexcept {
            return {static_cast<bool>(reader), static_cast<bool>(writer)};
        }
    };

    Links(std::size_t limit, bool disarms, std::uint64_t first_generation) noexcept
        : limit_(limit), disarms_(disarms), first_generation_(first_generation) {}

    [[nodiscard]] Link& at(std::uint32_t number) noexcept { return links_[number]; }
    [[nodiscard]] Link* find(LinkId id) noexcept {
        if (id.slot() >= count_) [[unlikely]] {
            return nullptr;
        }
        Link& link = links_[id.slot()];
        return link.id == id && link.fd >= 0 ? &link : nullptr;
    }
    /// The link of this descriptor; null if there is none.
    [[nodiscard]] Link* of(int fd) noexcept {
        const auto number = static_cast<std::size_t>(fd); // of a negative one: beyond any table
        return number >= by_fd_.size() || by_fd_[number] == none ? nullptr
                                                                 : &links_[by_fd_[number]];
    }
    /// The same, made if there is none; null at the limit. Precondition: fd is not negative.
    [[nodiscard]] Link* make(int fd) {
        Link* const link = of(fd);
        return link != nullptr ? link : make_one(static_cast<std::size_t>(fd));
    }

    /// What is wanted of it may have changed.
    void mark(Link& link) noexcept {
        if (link.id.slot() != served_) {
            put_on_list(link);
        }
    }
    /// What has fired is not armed any more; `unknown`: the poller's side has let go of it.
    void disarm(Link& link, bool unknown) noexcept {
        if (disarms_ || unknown) {
            link.armed = {};
            link.known = link.known && !unknown;
            put_on_list(link);
        }
    }
    /// While it stands, the callbacks of a link run.
    class [[nodiscard]] Serving {
      public:
        Serving(Links& links, const Link& link) noexcept : links_(links) {
            links_.served_ = link.id.slot();
        }
        Serving(const Serving&) = delete;
        Serving& operator=(const Serving&) = delete;
        ~Serving() { links_.end_serving(); }

      private:
        Links& links_;
    };

    /// What part() needs to be noexcept.
    void make_room_to_part() { leaving_.make_room(); }
    /// Takes leave of a descriptor that nobody awaits any more. Precondition: there is room.
    void part(Link& link, Fd&& to_close) noexcept {
        if (link.known) {
            leaving_.push(Order{link.id, link.fd, {}, link.round, std::move(to_close)});
        }
        unlink(link);
    }

    [[nodiscard]] bool has_orders() const noexcept {
        return first_changed_ != none || !leaving_.empty() || returned_;
    }
    /// The next order, in the order in which they have to be carried out; nothing: no more.
    [[nodiscard]] std::optional<Order> next_order() {
        if (returned_) {
            return std::exchange(returned_, std::nullopt);
        }
        if (!leaving_.empty()) {
            return leaving_.take();
        }
        while (first_changed_ != none) {
            Link& link = links_[first_changed_];
            first_changed_ = link.next_changed;
            link.changed = false;
            if (link.fd >= 0) {
                if (auto order = order_for(link)) {
                    return order;
                }
            }
        }
        return std::nullopt;
    }
    /// It could not be carried out now: it is the next one again.
    void put_back(Order&& order) noexcept { returned_.emplace(std::move(order)); }

  private:
    [[gnu::noinline]] Link* make_one(std::size_t fd) {
        if (linked_ >= limit_ || fd >= LinkId::slot_count) {
            return nullptr;
        }
        if (fd >= by_fd_.size()) {
            by_fd_.resize(std::max(fd + 1, 2 * by_fd_.size()), none);
        }
        if (free_.empty()) {
            if (links_.size() == LinkId::slot_count) {
                return nullptr;
            }
            if (links_.size() == links_.capacity()) {
                links_.reserve(2 * links_.size() + 8);
            }
            free_.reserve(links_.capacity()); // so that giving back allocates nothing
            const auto number = static_cast<std::uint32_t>(links_.size());
            links_.emplace_back();
            ++count_;
            links_.back().id = LinkId::of(number, first_generation_);
            free_.push_back(number);
        }
        Link& link = links_[free_.back()];
        by_fd_[fd] = free_.back();
        free_.pop_back();
        link.fd = static_cast<int>(fd);
        ++linked_;
        put_on_list(link); // it goes again if nothing comes of it
        return &link;
    }
    /// The link is nobody's from now on. Its id, if there is no next one, is never found again.
    void unlink(Link& link) noexcept {
        by_fd_[static_cast<std::size_t>(link.fd)] = none;
        --linked_;
        link.reader = link.writer = {};
        link.armed = {};
        link.fd = -1;
        link.known = false;
        if (link.id.generation() < LinkId::last_generation) {
            link.id = LinkId::of(link.id.slot(), link.id.generation() + 1);
            free_.push_back(link.id.slot());
        }
    }
    [[gnu::always_inline]] void end_serving() noexcept {
        Link& link = links_[std::exchange(served_, none)]; // whoever has it by now
        if (link.interest() != link.armed) {
            put_on_list(link);
        }
    }
    void put_on_list(Link& link) noexcept {
        if (link.changed) {
            return;
        }
        const std::uint32_t number = link.id.slot();
        link.changed = true;
        link.next_changed = none;
        (first_changed_ == none ? first_changed_ : links_[last_changed_].next_changed) = number;
        last_changed_ = number;
    }
    /// What has to be ordered for a link that may have changed.
    [[nodiscard]] std::optional<Order> order_for(Link& link) noexcept {
        const Interest wish = link.interest();
        if (wish.none()) {
            std::optional<Order> order;
            if (link.known) {
                order.emplace(Order{link.id, link.fd, {}, link.round, Fd{}});
            }
            link.armed = {};
            link.known = false;
            if (!link.owned) {
                unlink(link);
            }
            return order;
        }
        if (wish == link.armed) { // what is armed is known
            return std::nullopt;
        }
        link.armed = wish;
        link.known = true;
        link.round += disarms_ ? 1 : 0;
        return Order{link.id, link.fd, wish, link.round, Fd{}};
    }

    std::size_t limit_;
    bool disarms_;
    std::uint64_t first_generation_;
    std::uint32_t served_ = none;
    std::uint32_t first_changed_ = none;
    std::uint32_t last_changed_ = none;
    std::vector<Link> links_;
    std::uint32_t count_ = 0; ///< links_.size(), without the division
    std::vector<std::uint32_t> free_;
    std::vector<std::uint32_t> by_fd_;
    std::size_t linked_ = 0;
    Fifo<Order> leaving_;
    std::optional<Order> returned_;
};

} // namespace detail
} // namespace reactor::inline v0
