// SPDX-License-Identifier: Apache-2.0
//
// Engines: the timer wheel. It is told the time and knows no clock; the Runtime owns one, tells it
// the time once a turn and pops what is due. One thread.
//
// A tick is 2^19 ns (0.5 ms). Level n has 64 buckets of 32^n ticks, so that nine levels span every
// Timestamp: nothing wraps, nothing overflows. A bucket covers 32 of the level below, whose 64 thus
// hold the coarse bucket under way and the next one: that one is spread over the finer level ahead
// of time, in step with the clock, so that no advance pays for a bucket of a million timers. One
// word of occupancy a level finds the next bucket by counting zeros: empty time costs nothing. A
// tick that has come is sorted into `ready` by exact deadline and order of setting; what is due is
// its front. Memory: links and settings in two flat blocks, as a cancel touches links only; they
// stay at the high-water mark until the wheel dies, and only growth allocates. Roads not taken:
// pages of timers (an indirection more each access: set 5.5 for 4.8 ns, cancel 4.3 for 3.2); six
// levels of 64 and a list beyond (cascades of 64^n ticks at once, and a special case); a heap.
#pragma once

#include <reactor/resource_id.hpp>
#include <reactor/time.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>

namespace reactor::inline v0 {

/// Timers by the million: set, reset and cancel in O(1), delivered in order of exact deadline, then
/// of setting (a reset is a setting). Any Timestamp will do, far past and max() included. An
/// unknown, stale or null id is answered with false.
class TimerWheel {
  public:
    /// As many as there are slots in a TimerId, but one.
    static constexpr std::size_t max_timers = TimerId::slot_count - 1;

    /// A timer whose moment has come; `deadline` is the one it was set to.
    struct Due {
        TimerId id;         ///< as set() gave it
        std::uint64_t tag;  ///< as it was given to set()
        Timestamp deadline; ///< the one it was set to, not when it was found due
    };

    /// `limit`: most timers alive at once. `first_generation` is for tests that want to see a slot
    /// retire: where the generations of each begin, 1 to last_generation. Allocates nothing.
    explicit TimerWheel(std::size_t limit = max_timers, std::uint64_t first_generation = 1) noexcept
        : limit_(limit < max_timers ? limit : max_timers), first_generation_(first_generation) {}
    TimerWheel(const TimerWheel&) = delete;
    TimerWheel& operator=(const TimerWheel&) = delete;

    /// Makes room for as many timers at once: up to there set() allocates nothing. Without it the
    /// room doubles when it is used up, which with hundreds of thousands of timers can take some
    /// milliseconds. False: no memory, and nothing has changed.
    bool reserve(std::size_t timers) noexcept {
        const auto wanted = timers < TimerId::slot_count ? timers : TimerId::slot_count;
        if (wanted <= capacity_) {
            return true;
        }
        if (!links_.resize(first_index + wanted) || !settings_.resize(wanted)) {
            return false;
        }
        for (std::uint32_t head = 0; capacity_ == 0 && head < first_index; ++head) {
            link(head) = {0, head, head};
        }
        capacity_ = static_cast<std::uint32_t>(wanted);
        return true;
    }

    /// Sets a timer for `deadline`; with an `interval` above zero it comes again every `interval`
    /// after it, missed periods being skipped. `tag` is the owner's and comes back in Due. A
    /// deadline that has passed is due at the next advance(), not before. Null at the limit,
    /// without memory, or when all slots are retired.
    TimerId set(Timestamp deadline, Duration interval = Duration::zero(),
                std::uint64_t tag = 0) noexcept {
        if (free_ == none && !grow()) {
            return {};
        }
        const auto index = free_;
        auto& timer = link(index);
        const auto key = key_of(deadline);
        free_ = timer.next;
        setting(index) = {key, ++order_, interval.count(), tag};
        const auto mark = ++timer.mark; // from `unused` to the next generation
        place(index, key);
        ++size_;
        return TimerId::of(index - first_index, mark >> state_bits);
    }

    /// Moves a timer to `deadline`; the interval stays. One that is due and was not popped is no
    /// longer due, whatever the deadline. False: no such timer.
    bool reset(TimerId id, Timestamp deadline) noexcept {
        const auto index = find(id);
        if (index == none) {
            return false;
        }
        const auto key = key_of(deadline);
        const auto bucket = bucket_of(index);
        auto& timer = setting(index);
        timer.order = ++order_;
        if (bucket == ready || in_wheel(key) < start_of(bucket)) {
            remove(index);
            timer.deadline = key;
            place(index, key);
        } else { // it stays and moves on when the bucket's time comes
            wake_known_ = wake_known_ && wake_ < timer.deadline;
            timer.deadline = key;
            wake_by(key, bucket);
        }
        return true;
    }

    /// Ends a timer: it will not be popped, not even if it is due. False: no such timer.
    bool cancel(TimerId id) noexcept {
        const auto index = find(id);
        if (index == none) {
            return false;
        }
        remove(index);
        release(index);
        return true;
    }

    /// Whether the timer is set, or due and not popped.
    [[nodiscard]] bool alive(TimerId id) const noexcept { return find(id) != none; }
    /// How many timers are alive.
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    /// Whether no timer is alive.
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }

    /// The moment to wake at: never later than the earliest deadline, and that deadline itself
    /// unless dozens of timers are near it. Not later than now if something is due. Nothing when no
    /// timer is set. Remembers its answer, hence not const.
    [[nodiscard]] std::optional<Timestamp> next_deadline() noexcept {
        if (size_ == 0) {
            return std::nullopt;
        }
        if (!wake_known_) {
            find_wake();
        }
        return timestamp_of(wake_);
    }

    /// Tells the time. What is due by then (deadline <= now) can be popped afterwards. A time that
    /// is not later than the one told before counts as that one.
    void advance(Timestamp now) noexcept {
        const auto told = key_of(now);
        now_ = told > now_ ? told : now_;
        const auto tick = now_ >> tick_bits;
        const auto before = tick_;
        if (tick == before && !has(occupied_, bucket_at(0, tick))) {
            return;
        }
        for (auto first = earliest(occupied_); first.start <= tick; first = earliest(occupied_)) {
            tick_ = first.start;
            if (first.bucket < buckets_a_level) {
                collect(first.bucket);
            } else {
                spread(first.bucket, counts_[first.bucket]);
            }
        }
        tick_ = tick;
        if (tick_ != before) {
            spread_ahead(tick_ - before);
        }
    }

    /// Whether pop_due() has something to give.
    [[nodiscard]] bool has_due() const noexcept {
        return occupied_[levels] != 0 && setting(link(ready).next).deadline <= now_;
    }

    /// Takes the next timer that is due. A one-shot is gone by then; an interval is set anew first,
    /// for its first moment after the time told: so it may be reset or cancelled at once.
    std::optional<Due> pop_due() noexcept {
        if (!has_due()) {
            return std::nullopt;
        }
        const auto index = link(ready).next;
        auto& timer = setting(index);
        const Due due{TimerId::of(index - first_index, link(index).mark >> state_bits), timer.tag,
                      timestamp_of(timer.deadline)};
        remove(index);
        if (timer.interval <= 0) {
            release(index);
            return due;
        }
        timer.deadline = next_period(timer.deadline, static_cast<std::uint64_t>(timer.interval));
        timer.order = ++order_;
        place(index, timer.deadline);
        return due;
    }

  private:
    static constexpr unsigned tick_bits = 19;
    static constexpr unsigned level_bits = 5;
    static constexpr unsigned levels = 9;
    static_assert(tick_bits + level_bits * levels == 64);
    static constexpr std::uint32_t buckets_a_level = 64;
    // Indices: first the heads of the lists, then the timers (slot + first_index).
    static constexpr std::uint32_t ready = levels * buckets_a_level;
    static constexpr std::uint32_t first_index = ready + 1;
    static constexpr std::uint32_t none = ~std::uint32_t{0};
    // A mark is a timer's generation and, below it, its bucket, or `unused`.
    static constexpr unsigned state_bits = 24;
    static constexpr std::uint64_t state_mask = (std::uint64_t{1} << state_bits) - 1;
    static constexpr std::uint64_t unused = state_mask;
    static constexpr std::uint64_t never = ~std::uint64_t{0};
    static constexpr std::uint32_t first_capacity = 64;
    static constexpr std::uint64_t scan_limit = 32; // timers that next_deadline() looks at

    struct Link {
        std::uint64_t mark;
        std::uint32_t next;
        std::uint32_t prev;
    };
    struct Setting {
        std::uint64_t deadline; // a key
        std::uint64_t order;
        std::int64_t interval;
        std::uint64_t tag;
    };
    // Grown by realloc(3), which moves a large block's pages and not its bytes where it can.
    template <class T>
    class Block {
      public:
        Block() noexcept = default;
        Block(const Block&) = delete;
        Block& operator=(const Block&) = delete;
        ~Block() { std::free(data_); }
        T& operator[](std::size_t i) const noexcept { return data_[i]; }
        bool resize(std::size_t size) noexcept {
            auto* const data = std::realloc(data_, size * sizeof(T));
            data_ = data != nullptr ? static_cast<T*>(data) : data_;
            return data != nullptr;
        }

      private:
        T* data_ = nullptr;
    };
    struct First {
        std::uint64_t start; // tick
        std::uint32_t bucket;
    };
    using Occupancy = std::array<std::uint64_t, levels + 1>; // the last: ready

    // A key is a Timestamp counted from Timestamp::min(): unsigned, in the same order.
    static constexpr std::uint64_t epoch = std::uint64_t{1} << 63;
    static std::uint64_t key_of(Timestamp when) noexcept {
        return static_cast<std::uint64_t>(when.time_since_epoch().count()) ^ epoch;
    }
    static Timestamp timestamp_of(std::uint64_t key) noexcept {
        return Timestamp{Duration{static_cast<std::int64_t>(key ^ epoch)}};
    }

    Link& link(std::uint32_t index) const noexcept { return links_[index]; }
    Setting& setting(std::uint32_t index) const noexcept { return settings_[index - first_index]; }
    std::uint32_t bucket_of(std::uint32_t index) const noexcept {
        return static_cast<std::uint32_t>(link(index).mark & state_mask);
    }
    static bool has(const Occupancy& words, std::uint32_t bucket) noexcept {
        return (words[bucket / buckets_a_level] >> bucket % buckets_a_level & 1) != 0;
    }
    static void flip(Occupancy& words, std::uint32_t bucket) noexcept {
        words[bucket / buckets_a_level] ^= std::uint64_t{1} << bucket % buckets_a_level;
    }
    static std::uint32_t bucket_at(unsigned level, std::uint64_t start) noexcept {
        return level * buckets_a_level + static_cast<std::uint32_t>(start % buckets_a_level);
    }
    std::uint32_t find(TimerId id) const noexcept {
        if (id.slot() >= used_) {
            return none;
        }
        const auto index = id.slot() + first_index;
        const auto mark = link(index).mark;
        const bool same = mark >> state_bits == id.generation() && (mark & state_mask) != unused;
        return same ? index : none;
    }

    // Makes one more slot, if limit, slots and memory allow.
    [[gnu::noinline]] bool grow() noexcept {
        if (size_ >= limit_ || used_ == TimerId::slot_count ||
            (used_ == capacity_ && !reserve(used_ == 0 ? first_capacity : 2 * used_))) {
            return false;
        }
        free_ = first_index + used_++;
        link(free_) = {(first_generation_ - 1) << state_bits | unused, none, none};
        return true;
    }

    void release(std::uint32_t index) noexcept {
        auto& gone = link(index);
        gone.mark |= unused;
        --size_;
        if (gone.mark >> state_bits != TimerId::last_generation) { // else the slot is retired
            gone.next = free_;
            free_ = index;
        }
    }

    std::uint64_t in_wheel(std::uint64_t key) const noexcept {
        const auto tick = key >> tick_bits;
        return tick > tick_ ? tick : tick_; // what has passed goes to the present tick
    }
    std::uint64_t start_of(std::uint32_t bucket) const noexcept {
        const auto shift = bucket / buckets_a_level * level_bits;
        const auto present = tick_ >> shift;
        return (present + ((bucket - present) % buckets_a_level)) << shift;
    }

    // Into the finest level whose 64 buckets, from the present one on, reach so far.
    void place(std::uint32_t index, std::uint64_t key) noexcept {
        const auto tick = in_wheel(key);
        const auto away = static_cast<unsigned>(std::bit_width((tick - tick_) | 63));
        auto level = (away - 2) / level_bits;
        auto shift = level * level_bits;
        if ((tick >> shift) - (tick_ >> shift) == buckets_a_level) {
            ++level;
            shift += level_bits;
        }
        const auto bucket = bucket_at(level, tick >> shift);
        insert(index, bucket, bucket);
        wake_by(key, bucket);
    }

    void wake_by(std::uint64_t key, std::uint32_t bucket) noexcept {
        if (key < wake_) {
            wake_ = key;
            wake_bucket_ = bucket;
        }
    }

    // Into the list of `bucket`, before `where` (its head: at the end).
    void insert(std::uint32_t index, std::uint32_t bucket, std::uint32_t where) noexcept {
        auto& timer = link(index);
        auto& after = link(where);
        const auto last = after.prev;
        timer.mark = (timer.mark & ~state_mask) | bucket;
        timer.next = where;
        timer.prev = last;
        after.prev = index;
        link(last).next = index;
        if (counts_[bucket]++ == 0) {
            flip(occupied_, bucket);
        }
    }

    // Out of its list. What next_deadline() remembers goes if it may have been this timer.
    void remove(std::uint32_t index) noexcept {
        const auto timer = link(index);
        const auto bucket = static_cast<std::uint32_t>(timer.mark & state_mask);
        link(timer.next).prev = timer.prev;
        link(timer.prev).next = timer.next;
        const auto left = --counts_[bucket];
        if (left == 0) {
            flip(occupied_, bucket);
        }
        if (bucket == wake_bucket_ && (left == 0 || setting(index).deadline <= wake_)) {
            wake_known_ = false;
        }
    }

    // Whose time comes first; of two with one start the coarser, which may fill the other.
    First earliest(const Occupancy& words) const noexcept {
        First first{never, none};
        for (unsigned level = 0; level < levels; ++level) {
            if (words[level] == 0) {
                continue;
            }
            const auto shift = level * level_bits;
            const auto present = tick_ >> shift;
            const auto turned = std::rotr(words[level], static_cast<int>(present % 64));
            const auto found = present + static_cast<unsigned>(std::countr_zero(turned));
            if (found << shift <= first.start) {
                first = {found << shift, bucket_at(level, found)};
            }
        }
        return first;
    }

    // Places `most` timers of a bucket of a coarse level anew.
    void spread(std::uint32_t bucket, std::uint64_t most) noexcept {
        for (; most > 0; --most) {
            const auto index = link(bucket).next;
            remove(index);
            place(index, setting(index).deadline);
        }
    }

    // After `passed` ticks: the part in proportion of each bucket that is the next on its level.
    void spread_ahead(std::uint64_t passed) noexcept {
        for (unsigned level = 1; level < levels; ++level) {
            const auto shift = level * level_bits;
            const auto next = (tick_ >> shift) + 1;
            const auto bucket = bucket_at(level, next);
            if (has(occupied_, bucket)) {
                const auto left = (next << shift) - tick_;
                const std::uint64_t count = counts_[bucket];
                spread(bucket, passed < left ? (count * passed + left - 1) / left : count);
            }
        }
    }

    bool comes_before(std::uint32_t a, std::uint32_t b) const noexcept {
        const auto& first = setting(a);
        const auto& second = setting(b);
        return first.deadline != second.deadline ? first.deadline < second.deadline
                                                 : first.order < second.order;
    }

    // Moves the present tick to `ready`: sorted, then put into place from the end backwards.
    void collect(std::uint32_t bucket) noexcept {
        for (auto index = link(bucket).next; index != bucket;) {
            const auto next = link(index).next;
            if (const auto key = setting(index).deadline; key >> tick_bits > tick_) { // reset
                remove(index);
                place(index, key);
            }
            index = next;
        }
        if (counts_[bucket] == 0) {
            return;
        }
        auto& head = link(bucket);
        link(head.next).prev = none;
        auto chain = counts_[bucket] == 1 ? head.prev : sorted(head.prev);
        head = {0, bucket, bucket};
        counts_[bucket] = 0;
        flip(occupied_, bucket);
        wake_known_ = wake_known_ && bucket != wake_bucket_;
        auto where = ready;
        while (chain != none) {
            const auto index = chain;
            chain = link(index).prev;
            const auto front = link(ready).next;
            if (front != ready && comes_before(index, front)) {
                where = front;
            }
            while (link(where).prev != ready && comes_before(index, link(where).prev)) {
                where = link(where).prev;
            }
            insert(index, ready, where);
            where = index;
        }
    }

    // Sorts a chain (by `prev`, to `none`), latest first: runs, each merged with one of its size.
    std::uint32_t sorted(std::uint32_t chain) noexcept {
        std::array<std::uint32_t, TimerId::slot_bits + 1> runs;
        runs.fill(none);
        while (chain != none) {
            auto run = chain;
            auto end = chain;
            while ((chain = link(end).prev) != none && comes_before(chain, end)) {
                end = chain;
            }
            link(end).prev = none;
            std::size_t size = 0;
            for (; runs[size] != none; ++size) {
                run = merged(runs[size], run);
                runs[size] = none;
            }
            runs[size] = run;
        }
        for (const auto run : runs) {
            chain = merged(run, chain);
        }
        return chain;
    }

    std::uint32_t merged(std::uint32_t a, std::uint32_t b) noexcept {
        auto first = none;
        auto* end = &first;
        while (a != none && b != none) {
            auto& latest = comes_before(a, b) ? b : a;
            *end = latest;
            end = &link(latest).prev;
            latest = *end;
        }
        *end = a != none ? a : b;
        return first;
    }

    // The earliest deadline; from a bucket of too many its start, but the present one is no bound:
    // it holds what has passed, and only what was set since the last advance.
    void find_wake() noexcept {
        wake_ = occupied_[levels] != 0 ? setting(link(ready).next).deadline : never;
        wake_bucket_ = ready;
        wake_known_ = true;
        auto words = occupied_;
        auto most = scan_limit;
        for (auto first = earliest(words);
             first.start == tick_ || first.start <= wake_ >> tick_bits; first = earliest(words)) {
            const auto count = first.start == tick_ ? 0 : counts_[first.bucket];
            if (count > most) {
                wake_by(first.start << tick_bits, first.bucket);
                return;
            }
            most -= count;
            for (auto index = link(first.bucket).next; index != first.bucket;) {
                wake_by(setting(index).deadline, first.bucket);
                index = link(index).next;
            }
            flip(words, first.bucket);
        }
    }

    // The first of deadline + n * interval after the time told, or the end of time.
    std::uint64_t next_period(std::uint64_t deadline, std::uint64_t interval) const noexcept {
        const auto late = now_ - deadline;
        const auto ahead = interval - (late < interval ? late : late % interval);
        return ahead < never - now_ ? now_ + ahead : never;
    }

    std::size_t limit_;
    std::size_t size_ = 0;
    std::uint64_t first_generation_;
    std::uint64_t order_ = 0;
    std::uint64_t now_ = 0;            // key: the time told
    std::uint64_t tick_ = 0;           // the present tick: buckets count from here
    std::uint64_t wake_ = never;       // key: what next_deadline() says, if known
    std::uint32_t wake_bucket_ = none; // where that timer is
    bool wake_known_ = false;
    std::uint32_t free_ = none; // chain by `next`
    std::uint32_t used_ = 0;    // slots ever used
    Occupancy occupied_{};
    std::array<std::uint32_t, first_index> counts_{};
    std::uint32_t capacity_ = 0; // slots there is memory for
    Block<Link> links_;
    Block<Setting> settings_;
};

} // namespace reactor::inline v0
