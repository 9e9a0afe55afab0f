// SPDX-License-Identifier: Apache-2.0
//
// Net: a Resource that is one of two Resources.
//
// A service names one type for each role. One that both accepts and connects names
// `Either<TcpListener, TcpConnector>` as its Listener: each converts to it, so that registering
// reads as ever, and if both yield the same Event, so does it; otherwise its Event is a variant of
// the two. Of two Writables it is a Writable. Everything is handed on to the one that is held; a
// power is there if either has it, and answers for the other as one that has nothing to say.
//
// The road not taken is a base class with virtual members: an Either is owned by value, without an
// allocation, and its cost is one predictable branch a call.
#pragma once

#include <reactor/resource.hpp>

#include <utility>
#include <variant>

namespace reactor::inline v0 {

namespace detail {

template <class A, class B>
struct EventOfEither {
    using type = std::variant<typename A::Event, typename B::Event>;
};
template <class A, class B>
    requires std::same_as<typename A::Event, typename B::Event>
struct EventOfEither<A, B> {
    using type = typename A::Event;
};

} // namespace detail

/// Holds an A or a B, for life. Precondition of all: it has not been moved from.
template <Resource A, Resource B>
    requires(!std::same_as<A, B>)
class Either {
    static constexpr bool both_writable = Writable<A> && Writable<B>;

  public:
    /// What both yield, else the one or the other.
    using Event = typename detail::EventOfEither<A, B>::type;
    /// As Resource says: if both are.
    static constexpr bool born_non_blocking =
        detail::born_non_blocking<A> && detail::born_non_blocking<B>;

    /// Holds this one. Implicit, so that an A or a B can be given where an Either is wanted.
    Either(A held) noexcept : held_(std::in_place_type<A>, std::move(held)) {}
    /// The same for the other.
    Either(B held) noexcept : held_(std::in_place_type<B>, std::move(held)) {}

    /// The one that is held, if it is of that type, else null.
    template <class R>
        requires(std::same_as<R, A> || std::same_as<R, B>)
    [[nodiscard]] R* get_if() noexcept {
        return std::get_if<R>(&held_);
    }
    /// The same, to be looked at only.
    template <class R>
        requires(std::same_as<R, A> || std::same_as<R, B>)
    [[nodiscard]] const R* get_if() const noexcept {
        return std::get_if<R>(&held_);
    }

    // -- Resource ---------------------------------------------------------------------------------

    /// @{
    /// As Resource says, of the one that is held.
    [[nodiscard]] int fd() const {
        return ask(*this, [](const auto& held) { return held.fd(); });
    }
    [[nodiscard]] Interest interest() const {
        return ask(*this, [](const auto& held) { return held.interest(); });
    }
    [[nodiscard]] std::optional<Event> handle_io(Io io)
        requires(!detail::reads_into_scratch<A> && !detail::reads_into_scratch<B>)
    {
        return ask(*this, [&](auto& held) { return event_of(held.handle_io(io)); });
    }
    [[nodiscard]] std::optional<Event> handle_io(Io io, std::span<std::byte> scratch)
        requires(detail::reads_into_scratch<A> || detail::reads_into_scratch<B>)
    {
        return ask(*this, [&]<class R>(R& held) {
            if constexpr (detail::reads_into_scratch<R>) {
                return event_of(held.handle_io(io, scratch));
            } else {
                return event_of(held.handle_io(io));
            }
        });
    }
    /// @}

    // -- the powers of a Resource, each if either has it ------------------------------------------

    /// @{
    /// As Resource says, of the one that is held; without the power, as if nothing were to be told.
    [[nodiscard]] std::optional<std::error_code> ended() const
        requires(detail::tells_end<A> || detail::tells_end<B>)
    {
        return ask(*this, []<class R>(const R& held) -> std::optional<std::error_code> {
            if constexpr (detail::tells_end<R>) {
                return held.ended();
            }
            return std::nullopt;
        });
    }
    [[nodiscard]] std::error_code trouble()
        requires(detail::tells_trouble<A> || detail::tells_trouble<B>)
    {
        return ask(*this, []<class R>(R& held) -> std::error_code {
            if constexpr (detail::tells_trouble<R>) {
                return held.trouble();
            }
            return {};
        });
    }
    [[nodiscard]] std::optional<Timestamp> deadline() const
        requires(detail::has_deadline<A> || detail::has_deadline<B>)
    {
        return ask(*this, []<class R>(const R& held) -> std::optional<Timestamp> {
            if constexpr (detail::has_deadline<R>) {
                return held.deadline();
            }
            return std::nullopt;
        });
    }
    void handle_deadline()
        requires(detail::has_deadline<A> || detail::has_deadline<B>)
    {
        ask(*this, []<class R>(R& held) {
            if constexpr (detail::has_deadline<R>) {
                held.handle_deadline();
            }
        });
    }
    [[nodiscard]] bool keeps_time() const
        requires(detail::keeps_time<A> || detail::keeps_time<B>)
    {
        return ask(*this, []<class R>(const R& held) {
            if constexpr (detail::keeps_time<R>) {
                return held.keeps_time();
            }
            return false;
        });
    }
    void keep_time(Timestamp now, bool reads)
        requires(detail::keeps_time<A> || detail::keeps_time<B>)
    {
        ask(*this, [&]<class R>(R& held) {
            if constexpr (detail::keeps_time<R>) {
                held.keep_time(now, reads);
            }
        });
    }
    [[nodiscard]] bool brings_transports() const
        requires(detail::brings_transports<A> || detail::brings_transports<B>)
    {
        return ask(*this, []<class R>(const R& held) {
            if constexpr (detail::brings_transports<R>) {
                return held.brings_transports();
            }
            return false;
        });
    }
    void inherit_limits(const StreamLimits& limits)
        requires(detail::takes_stream_limits<A> || detail::takes_stream_limits<B>)
    {
        ask(*this, [&]<class R>(R& held) {
            if constexpr (detail::takes_stream_limits<R>) {
                held.inherit_limits(limits);
            }
        });
    }
    /// @}

    // -- Writable, if both are --------------------------------------------------------------------

    /// @{
    /// As Writable says, of the one that is held.
    [[nodiscard]] WriteStatus write_atomic(std::span<const std::byte> bytes)
        requires both_writable
    {
        return ask(*this, [&](auto& held) { return held.write_atomic(bytes); });
    }
    [[nodiscard]] bool is_ready_to_write() const
        requires both_writable
    {
        return ask(*this, [](const auto& held) { return held.is_ready_to_write(); });
    }
    void flush()
        requires both_writable
    {
        ask(*this, [](auto& held) { held.flush(); });
    }
    void close_write()
        requires both_writable
    {
        ask(*this, [](auto& held) { held.close_write(); });
    }
    [[nodiscard]] std::size_t unsent() const
        requires both_writable
    {
        return ask(*this, [](const auto& held) { return held.unsent(); });
    }
    [[nodiscard]] WriteStatus write_borrowed(std::span<const std::byte> bytes)
        requires(both_writable && (detail::borrows<A> || detail::borrows<B>))
    {
        return ask(*this, [&]<class W>(W& held) {
            if constexpr (detail::borrows<W>) {
                return held.write_borrowed(bytes);
            } else {
                return held.write_atomic(bytes);
            }
        });
    }
    [[nodiscard]] WriteStatus write_shared(const Buffer& buffer)
        requires(both_writable && (detail::shares_buffers<A> || detail::shares_buffers<B>))
    {
        return ask(*this, [&]<class W>(W& held) {
            if constexpr (detail::shares_buffers<W>) {
                return held.write_shared(buffer);
            } else {
                return held.write_atomic(buffer.bytes());
            }
        });
    }
    [[nodiscard]] std::size_t held() const
    requires(both_writable && (detail::tells_held<A> || detail::tells_held<B>))
    {
        return ask(*this, [](const auto& held) { return detail::held_by(held); });
    }
    /// @}

  private:
    /// Asks the one that is held.
    template <class Self, class Question>
    static auto ask(Self& self, Question&& question) {
        if (auto* const held = std::get_if<A>(&self.held_)) {
            return question(*held);
        }
        return question(*std::get_if<B>(&self.held_));
    }
    template <class Yielded>
    [[nodiscard]] static std::optional<Event> event_of(std::optional<Yielded>&& yielded) {
        if constexpr (std::same_as<Yielded, Event>) {
            return std::move(yielded);
        } else {
            return yielded ? std::optional<Event>(std::in_place, std::in_place_type<Yielded>,
                                                  std::move(*yielded))
                           : std::nullopt;
        }
    }

    std::variant<A, B> held_;
};

} // namespace reactor::inline v0
