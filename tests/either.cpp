// SPDX-License-Identifier: Apache-2.0
//
// An Either hands every question on to the one that it holds; where that one lacks a power that the
// other has, it answers as a resource that has nothing to say.
#include "catch.hpp"

#include <reactor/net/either.hpp>

#include <string>
#include <utility>

namespace {

using namespace reactor;
using namespace std::chrono_literals;

struct Happened {
    int what = 0;
};

/// The least that a Writable is; remembers what it was asked.
struct Bare {
    using Event = Happened;

    [[nodiscard]] int fd() const { return 3; }
    [[nodiscard]] Interest interest() const { return {true, !text.empty()}; }
    std::optional<Event> handle_io(Io io) { return Happened{io == Io::read ? 1 : 2}; }
    WriteStatus write_atomic(std::span<const std::byte> bytes) {
        text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        return WriteStatus::accepted;
    }
    [[nodiscard]] bool is_ready_to_write() const { return text.empty(); }
    void flush() { text.clear(); }
    void close_write() { closed = true; }
    [[nodiscard]] std::size_t unsent() const { return text.size(); }

    std::string text{};
    bool closed = false;
};

/// The same with every power that there is.
struct Able : Bare {
    using Event = Happened;

    std::optional<Event> handle_io(Io, std::span<std::byte> scratch) {
        return Happened{static_cast<int>(scratch.size())};
    }
    [[nodiscard]] std::optional<std::error_code> ended() const {
        return std::make_error_code(std::errc::broken_pipe);
    }
    std::error_code trouble() { return std::make_error_code(std::errc::too_many_files_open); }
    [[nodiscard]] std::optional<Timestamp> deadline() const { return Timestamp{7s}; }
    void handle_deadline() { text += "deadline"; }
    [[nodiscard]] bool keeps_time() const { return true; }
    void keep_time(Timestamp, bool reads) { text += reads ? "reads" : "does not read"; }
    [[nodiscard]] bool brings_transports() const { return true; }
    void inherit_limits(const StreamLimits& limits) { cap = limits.cap; }
    WriteStatus write_borrowed(std::span<const std::byte> bytes) {
        return bytes.empty() ? WriteStatus::full : WriteStatus::not_ready;
    }
    WriteStatus write_shared(const Buffer& buffer) {
        return buffer.empty() ? WriteStatus::full : WriteStatus::not_ready;
    }

    std::size_t cap = 0;
};

using Both = Either<Bare, Able>;
static_assert(Writable<Both> && detail::borrows<Both> && detail::shares_buffers<Both>);
static_assert(detail::tells_end<Both> && detail::tells_trouble<Both> && detail::has_deadline<Both>);
static_assert(detail::keeps_time<Both> && detail::brings_transports<Both>);
static_assert(detail::takes_stream_limits<Both> && detail::reads_into_scratch<Both>);

std::span<const std::byte> raw(const std::string& text) {
    return std::as_bytes(std::span(text));
}

} // namespace

TEST_CASE("an Either answers as the one that it holds does") {
    Both either{Able{}};
    std::byte scratch[5];
    CHECK(either.get_if<Able>() != nullptr);
    CHECK(either.get_if<Bare>() == nullptr);
    CHECK(either.fd() == 3);
    CHECK(either.handle_io(Io::read, scratch)->what == 5);
    CHECK(either.ended() == std::make_error_code(std::errc::broken_pipe));
    CHECK(either.trouble() == std::errc::too_many_files_open);
    CHECK(either.deadline() == Timestamp{7s});
    CHECK(either.keeps_time());
    CHECK(either.brings_transports());
    either.inherit_limits({.cap = 77});
    CHECK(either.get_if<Able>()->cap == 77);
    either.handle_deadline();
    either.keep_time(Timestamp{}, true);
    CHECK(either.get_if<Able>()->text == "deadlinereads");
    CHECK(either.write_borrowed(raw("x")) == WriteStatus::not_ready);
    CHECK(either.write_shared(Buffer(raw("x"))) == WriteStatus::not_ready);
}

TEST_CASE("a power that the one lacks and the other has answers nothing") {
    Both either{Bare{}};
    std::byte scratch[5];
    CHECK(std::as_const(either).get_if<Bare>() != nullptr);
    CHECK(either.handle_io(Io::write, scratch)->what == 2);
    CHECK_FALSE(either.ended().has_value());
    CHECK_FALSE(either.trouble());
    CHECK_FALSE(either.deadline().has_value());
    CHECK_FALSE(either.keeps_time());
    CHECK_FALSE(either.brings_transports());
    either.inherit_limits({.cap = 77});
    either.handle_deadline();
    either.keep_time(Timestamp{}, true);
    CHECK(either.unsent() == 0);
}

TEST_CASE("a Writable that neither borrows nor shares is written to, whatever is asked") {
    Both either{Bare{}};
    CHECK(either.is_ready_to_write());
    CHECK(either.write_atomic(raw("a")) == WriteStatus::accepted);
    CHECK(either.write_borrowed(raw("bc")) == WriteStatus::accepted);
    CHECK(either.write_shared(Buffer(raw("def"))) == WriteStatus::accepted);
    CHECK(either.get_if<Bare>()->text == "abcdef");
    CHECK(either.unsent() == 6);
    CHECK_FALSE(either.is_ready_to_write());
    CHECK(either.interest() == Interest{true, true});
    either.flush();
    CHECK(either.unsent() == 0);
    either.close_write();
    CHECK(either.get_if<Bare>()->closed);
}
