// SPDX-License-Identifier: Apache-2.0
//
// Annex: the library's values in {fmt}, version 8 or later.
//
// Include this header and link fmt, and ids, words, times, addresses, errors and actions can be
// printed: fmt::print("{}", action). All of them are text as far as the format is concerned, so
// they take its fill, width and alignment. What is printed is for people: it may change.
//
//     #4.1                          an id: slot and generation; #- if it names nothing
//     read+hangup                   Interest, Readiness; none if empty
//     t+12.345678s                  a Timestamp: since the clock began, mostly the boot
//     send #4.1 "hello\r\n" (7 B)   an Action
//     ended #4.1: Broken pipe, 12 B unsent
#pragma once

#include <reactor/net/address.hpp>
#include <reactor/runtime.hpp>

#include <fmt/format.h>

#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace reactor::inline v0 {
namespace detail {

/// Where text is put together.
using Text = fmt::memory_buffer;

[[nodiscard]] inline std::string_view view(const Text& text) noexcept {
    return {text.data(), text.size()};
}
inline void add(Text& text, std::string_view more) {
    text.append(more.data(), more.data() + more.size());
}
template <class... Args>
void add(Text& text, fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(fmt::appender(text), format, std::forward<Args>(args)...);
}

// -- words for enumerators, in the order of their values ------------------------------------------

template <class Enum>
constexpr std::string_view words[1] = {};
template <>
inline constexpr std::string_view words<Io>[] = {"read", "write"};
template <>
inline constexpr std::string_view words<Role>[] = {"listener", "transport"};
template <>
inline constexpr std::string_view words<WriteStatus>[] = {"accepted", "not_ready", "full", "ended"};
template <>
inline constexpr std::string_view words<SendStatus>[] = {"accepted", "full", "closed"};
template <>
inline constexpr std::string_view words<ErrorKind>[] = {
    "ended",         "registration_failed", "interest_failed", "shed",       "trouble",
    "send_returned", "unknown_id",          "actions_refused", "poll_failed"};
template <>
inline constexpr std::string_view words<ActionKind>[] = {"register_listener",
                                                         "register_transport",
                                                         "unregister_listener",
                                                         "unregister_transport",
                                                         "send",
                                                         "set_timer",
                                                         "set_timer_at",
                                                         "set_interval",
                                                         "reset_timer",
                                                         "cancel_timer",
                                                         "pause",
                                                         "resume",
                                                         "close_write",
                                                         "shutdown",
                                                         "drain"};

template <class Enum>
requires std::is_enum_v<Enum>
void write(Text& text, Enum value) {
    const auto index = static_cast<std::size_t>(value);
    add(text, index < std::size(words<Enum>) ? words<Enum>[index] : "?");
}

template <class Tag>
void write(Text& text, Id<Tag> id) {
    if (id) {
        add(text, "#{}.{}", id.slot(), id.generation());
    } else {
        add(text, "#-");
    }
}

/// Of these words those that hold, with a plus between.
inline void write_flags(Text& text,
                        std::initializer_list<std::pair<bool, std::string_view>> flags) {
    const std::size_t before = text.size();
    for (const auto& [holds, word] : flags) {
        if (holds) {
            add(text, text.size() == before ? "" : "+");
            add(text, word);
        }
    }
    if (text.size() == before) {
        add(text, "none");
    }
}
inline void write(Text& text, Interest interest) {
    write_flags(text, {{interest.read, "read"}, {interest.write, "write"}});
}
inline void write(Text& text, Readiness readiness) {
    write_flags(text, {{readiness.read, "read"},
                       {readiness.write, "write"},
                       {readiness.hangup, "hangup"},
                       {readiness.error, "error"}});
}
inline void write(Text& text, const PollEvent& event) {
    write(text, event.id);
    add(text, " ");
    write(text, event.readiness);
}

/// In the largest unit in which it has a whole part: 1.5ms.
inline void write(Text& text, Duration span) {
    if (span == Duration::max()) {
        return add(text, "for ever");
    }
    const auto count = static_cast<double>(span.count());
    const double size = count < 0 ? -count : count;
    if (size < 1e3) {
        add(text, "{}ns", span.count());
    } else if (size < 1e6) {
        add(text, "{:.6g}us", count / 1e3);
    } else if (size < 1e9) {
        add(text, "{:.9g}ms", count / 1e6);
    } else {
        add(text, "{:.12g}s", count / 1e9);
    }
}
inline void write(Text& text, Timestamp when) {
    if (when == Timestamp::max()) {
        return add(text, "never");
    }
    const auto since =
        std::chrono::duration_cast<std::chrono::microseconds>(when.time_since_epoch());
    const auto count = since.count() < 0 ? -since.count() : since.count();
    add(text, "t{}{}.{:06}s", since.count() < 0 ? '-' : '+', count / 1'000'000, count % 1'000'000);
}

inline void write(Text& text, const Address& address) {
    add(text, address.empty() ? "none" : address.to_string());
}

/// Quoted, with what is not plain ASCII escaped; what is long is cut.
inline void write_bytes(Text& text, std::span<const std::byte> bytes) {
    constexpr std::size_t most = 32;
    add(text, "\"");
    for (const char c : text_of(bytes.first(std::min(bytes.size(), most)))) {
        if (c == '\r' || c == '\n' || c == '\t') {
            add(text, c == '\r' ? "\\r" : c == '\n' ? "\\n" : "\\t");
        } else if (c == '"' || c == '\\') {
            add(text, "\\{}", c);
        } else if (c >= ' ' && c <= '~') {
            text.push_back(c);
        } else {
            add(text, "\\x{:02x}", static_cast<unsigned char>(c));
        }
    }
    add(text, bytes.size() > most ? "\"..." : "\"");
}

/// An action; of what it sends the size, and before it, if wanted, the bytes.
inline void write(Text& text, const Action& action, bool with_bytes) {
    write(text, action.kind());
    if (action.id()) {
        add(text, " ");
        write(text, action.id());
    }
    if (action.timer()) {
        add(text, " ");
        write(text, action.timer());
    }
    switch (action.kind()) {
    case ActionKind::send:
        if (with_bytes) {
            add(text, " ");
            write_bytes(text, action.bytes());
            add(text, " ({} B)", action.bytes().size());
        } else {
            add(text, " {} B", action.bytes().size());
        }
        break;
    case ActionKind::set_timer_at:
        add(text, " ");
        write(text, action.deadline());
        break;
    case ActionKind::set_timer:
    case ActionKind::set_interval:
    case ActionKind::reset_timer:
    case ActionKind::drain:
        add(text, " ");
        write(text, action.duration());
        break;
    default:
        break;
    }
}
inline void write(Text& text, const Action& action) { write(text, action, true); }

template <class Listener, class Transport>
void write(Text& text, const BasicActions<Listener, Transport>& actions) {
    std::string_view between = "[";
    for (const Action& action : actions) {
        add(text, between);
        write(text, action);
        between = ", ";
    }
    add(text, actions.empty() ? "[]" : "]");
}

template <class Listener, class Transport>
void write(Text& text, const BasicError<Listener, Transport>& error) {
    write(text, error.kind());
    if (error.id()) {
        add(text, " ");
        write(text, error.id());
    }
    if (error.code()) {
        add(text, ": {}", error.code().message());
    }
    if (error.unsent() != 0) {
        add(text, ", {} B unsent", error.unsent());
    }
}

inline void write(Text& text, const Farewell& farewell) {
    if (farewell.clean) {
        return add(text, "clean");
    }
    add(text, "{} forced, {} B unsent", farewell.forced, farewell.unsent_bytes);
}

/// Formats by `write`, with the options of text.
template <class T>
class TextFormatter {
  public:
    constexpr auto parse(fmt::format_parse_context& context) { return options_.parse(context); }
    template <class Context>
    auto format(const T& value, Context& context) const {
        Text text;
        write(text, value);
        return options_.format({text.data(), text.size()}, context);
    }

  private:
    fmt::formatter<fmt::string_view> options_;
};

} // namespace detail
} // namespace reactor::inline v0

// Actions are a range too, and fmt/ranges.h, where it is included, must leave them to us.
FMT_BEGIN_NAMESPACE
template <typename T, typename Char>
struct is_range;
template <class Listener, class Transport, typename Char>
struct is_range<reactor::BasicActions<Listener, Transport>, Char> {
    static constexpr bool value = false;
};
FMT_END_NAMESPACE

template <class Tag>
struct fmt::formatter<reactor::detail::Id<Tag>>
    : reactor::detail::TextFormatter<reactor::detail::Id<Tag>> {};
template <class Listener, class Transport>
struct fmt::formatter<reactor::BasicActions<Listener, Transport>>
    : reactor::detail::TextFormatter<reactor::BasicActions<Listener, Transport>> {};
template <class Listener, class Transport>
struct fmt::formatter<reactor::BasicError<Listener, Transport>>
    : reactor::detail::TextFormatter<reactor::BasicError<Listener, Transport>> {};
template <>
struct fmt::formatter<reactor::Io> : reactor::detail::TextFormatter<reactor::Io> {};
template <>
struct fmt::formatter<reactor::Role> : reactor::detail::TextFormatter<reactor::Role> {};
template <>
struct fmt::formatter<reactor::WriteStatus> : reactor::detail::TextFormatter<reactor::WriteStatus> {
};
template <>
struct fmt::formatter<reactor::SendStatus> : reactor::detail::TextFormatter<reactor::SendStatus> {};
template <>
struct fmt::formatter<reactor::ErrorKind> : reactor::detail::TextFormatter<reactor::ErrorKind> {};
template <>
struct fmt::formatter<reactor::ActionKind> : reactor::detail::TextFormatter<reactor::ActionKind> {};
template <>
struct fmt::formatter<reactor::Interest> : reactor::detail::TextFormatter<reactor::Interest> {};
template <>
struct fmt::formatter<reactor::Readiness> : reactor::detail::TextFormatter<reactor::Readiness> {};
template <>
struct fmt::formatter<reactor::PollEvent> : reactor::detail::TextFormatter<reactor::PollEvent> {};
template <>
struct fmt::formatter<reactor::Timestamp> : reactor::detail::TextFormatter<reactor::Timestamp> {};
template <>
struct fmt::formatter<reactor::Address> : reactor::detail::TextFormatter<reactor::Address> {};
template <>
struct fmt::formatter<reactor::Action> : reactor::detail::TextFormatter<reactor::Action> {};
template <>
struct fmt::formatter<reactor::Farewell> : reactor::detail::TextFormatter<reactor::Farewell> {};
