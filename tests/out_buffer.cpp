// SPDX-License-Identifier: Apache-2.0
#include <reactor/detail/out_buffer.hpp>

#include <malloc.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"

using namespace reactor;
using detail::OutBuffer;

// -- memory, counted ------------------------------------------------------------------------------

namespace {

std::size_t memory_in_use = 0;
std::size_t blocks_in_use = 0;
bool memory_exhausted = false; ///< for those who can bear it: new (std::nothrow)

[[gnu::noinline]] void* take_memory(std::size_t size) noexcept {
    void* const block = std::malloc(size);
    memory_in_use += ::malloc_usable_size(block);
    ++blocks_in_use;
    return block;
}
[[gnu::noinline]] void give_memory(void* block) noexcept {
    memory_in_use -= ::malloc_usable_size(block);
    blocks_in_use -= block == nullptr ? 0 : 1;
    std::free(block);
}

} // namespace

void* operator new(std::size_t size) {
    if (void* const block = take_memory(size)) {
        return block;
    }
    throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return memory_exhausted ? nullptr : take_memory(size);
}
void operator delete(void* block) noexcept { give_memory(block); }
void operator delete(void* block, std::size_t) noexcept { give_memory(block); }

namespace {

std::string text_of_parts(const OutBuffer& buffer, std::size_t most) {
    std::vector<iovec> parts(most);
    const std::size_t count = buffer.parts(parts);
    REQUIRE(count <= most);
    std::string text;
    for (std::size_t n = 0; n < count; ++n) {
        REQUIRE(parts[n].iov_len > 0);
        text.append(static_cast<const char*>(parts[n].iov_base), parts[n].iov_len);
    }
    return text;
}

std::string unlike(std::mt19937_64& random, std::size_t size) {
    std::string text(size, '\0');
    for (char& letter : text) {
        letter = static_cast<char>(random() & 0xff);
    }
    return text;
}

} // namespace

TEST_CASE("OutBuffer: is a queue of bytes, whatever goes in and out how (property)") {
    for (std::uint64_t seed = 1; seed <= 30; ++seed) {
        CAPTURE(seed);
        std::mt19937_64 random(seed);
        const auto below = [&](std::size_t end) {
            return static_cast<std::size_t>(random() % end);
        };
        const auto size = [&](std::size_t most) {
            return 1 + below(std::size_t{1} << below(18)) % most;
        };
        const std::size_t before = memory_in_use;
        {
            OutBuffer buffer;
            std::string expected;
            for (int step = 0; step < 400; ++step) {
                switch (below(6)) {
                case 0:
                case 1: {
                    const std::string text = unlike(random, size(100'000));
                    REQUIRE(buffer.append(bytes_of(text)));
                    expected += text;
                    break;
                }
                case 2: {
                    const std::string text = unlike(random, size(100'000));
                    const Buffer shared{std::string_view(text)};
                    REQUIRE(buffer.append(shared));
                    expected += text;
                    if (below(2) == 0) {
                        REQUIRE(buffer.append(shared)); // twice the same
                        expected += text;
                    }
                    break;
                }
                case 3: {
                    const std::size_t count =
                        std::min(expected.size(), below(8) == 0 ? expected.size() : size(150'000));
                    buffer.consume(count);
                    expected.erase(0, count);
                    break;
                }
                case 4: {
                    // As a stream does: what one gathering write could name, and part of that.
                    const std::string front = text_of_parts(buffer, 1 + below(6));
                    REQUIRE(std::string_view(expected).starts_with(front));
                    if (!front.empty()) {
                        const std::size_t count = 1 + below(front.size());
                        buffer.consume(count);
                        expected.erase(0, count);
                    }
                    break;
                }
                default: {
                    OutBuffer moved(std::move(buffer));
                    CHECK(buffer.empty());
                    buffer = std::move(moved);
                }
                }
                REQUIRE(buffer.size() == expected.size());
                REQUIRE(buffer.empty() == expected.empty());
                if (step % 16 == 0) {
                    REQUIRE((text_of_parts(buffer, 5'000) == expected));
                }
            }
            REQUIRE((text_of_parts(buffer, 5'000) == expected));
            if (below(2) == 0) {
                buffer.consume(expected.size());
            }
        }
        REQUIRE(memory_in_use == before);
    }
}

TEST_CASE("OutBuffer: an empty one owns nothing, and a burst leaves nothing behind") {
    const std::size_t before = memory_in_use;
    OutBuffer buffer;
    CHECK(memory_in_use == before);
    const std::string text(1'000'000, 'x');
    const std::size_t with_text = memory_in_use;
    for (int round = 0; round < 3; ++round) {
        REQUIRE(buffer.append(bytes_of(text)));
        CHECK(memory_in_use >= with_text + text.size());
        CHECK(memory_in_use <= with_text + text.size() + 4'096);
        buffer.consume(text.size() - 1);
        CHECK_FALSE(buffer.empty());
        buffer.consume(1);
        CHECK(buffer.empty());
        CHECK(memory_in_use == with_text);
    }
    REQUIRE(buffer.append(bytes_of(text)));
    buffer.clear();
    CHECK(buffer.empty());
    CHECK(memory_in_use == with_text);
}

TEST_CASE("OutBuffer: small pieces stand together, in few blocks") {
    OutBuffer buffer;
    const std::size_t bytes_before = memory_in_use;
    const std::size_t blocks_before = blocks_in_use;
    for (int n = 0; n < 50'000; ++n) {
        REQUIRE(buffer.append(bytes_of("0123456789")));
    }
    CHECK(buffer.size() == 500'000);
    CHECK(blocks_in_use - blocks_before <= 20);
    CHECK(memory_in_use - bytes_before <= 500'000 + 80'000);
}

TEST_CASE("OutBuffer: sent blocks leave at once, although more is behind them") {
    OutBuffer buffer;
    const std::string text(100'000, 'x');
    const std::size_t before = memory_in_use;
    for (int n = 0; n < 10; ++n) {
        REQUIRE(buffer.append(bytes_of(text)));
    }
    buffer.consume(900'001);
    CHECK(buffer.size() == 99'999);
    CHECK(memory_in_use - before <= 250'000);
    // And one that is never quite empty does not grow.
    for (int n = 0; n < 1'000; ++n) {
        REQUIRE(buffer.append(bytes_of(text)));
        buffer.consume(text.size());
    }
    CHECK(buffer.size() == 99'999);
    CHECK(memory_in_use - before <= 350'000);
}

TEST_CASE("OutBuffer: a shared buffer is held by its handle, and let go when it is sent") {
    const Buffer shared(std::string_view("0123456789"));
    OutBuffer a;
    OutBuffer b;
    const std::size_t before = memory_in_use;
    REQUIRE(a.append(shared));
    REQUIRE(b.append(shared));
    REQUIRE(b.append(bytes_of("tail"))); // does not go into the shared block
    CHECK(shared.shared());
    CHECK(shared.text() == "0123456789");
    CHECK(text_of_parts(b, 9) == "0123456789tail");
    CHECK(memory_in_use > before);
    a.consume(10);
    CHECK(shared.shared());
    b.consume(9);
    CHECK(shared.shared());
    b.consume(1);
    CHECK_FALSE(shared.shared());
    CHECK(text_of_parts(b, 9) == "tail");
}

TEST_CASE("OutBuffer: gives the parts in front, as many as there is room for") {
    OutBuffer buffer;
    std::array<iovec, 4> parts{};
    CHECK(buffer.parts(parts) == 0);
    for (int n = 0; n < 6; ++n) {
        REQUIRE(buffer.append(Buffer(std::string(1, static_cast<char>('a' + n)))));
    }
    CHECK(buffer.parts(parts) == 4);
    CHECK(text_of_parts(buffer, 4) == "abcd");
    buffer.consume(3);
    CHECK(text_of_parts(buffer, 4) == "def");
    CHECK(buffer.parts({}) == 0);
}

TEST_CASE("OutBuffer: without memory it says no and stays as it is") {
    OutBuffer buffer;
    memory_exhausted = true;
    const bool first = buffer.append(bytes_of("first"));
    memory_exhausted = false;
    CHECK_FALSE(first);
    CHECK(buffer.empty());

    REQUIRE(buffer.append(bytes_of("first")));
    const std::string large(100'000, 'x');
    const Buffer shared{std::string_view(large)};
    memory_exhausted = true;
    const bool copied = buffer.append(bytes_of(large)); // part of it would fit
    const bool hung_in = buffer.append(shared);
    const bool small = buffer.append(bytes_of(" second")); // fits where the first stands
    memory_exhausted = false;
    CHECK_FALSE(copied);
    CHECK_FALSE(hung_in);
    CHECK(small);
    CHECK_FALSE(shared.shared());
    CHECK(buffer.size() == 12);
    CHECK(text_of_parts(buffer, 9) == "first second");
    REQUIRE(buffer.append(bytes_of(large)));
    CHECK((text_of_parts(buffer, 9) == "first second" + large));
}

TEST_CASE("OutBuffer: moved from it is empty, moved to it has what was there") {
    OutBuffer a;
    REQUIRE(a.append(bytes_of("bytes")));
    OutBuffer b(std::move(a));
    CHECK(a.empty());
    CHECK(text_of_parts(b, 9) == "bytes");
    OutBuffer c;
    c = std::move(b);
    CHECK(b.empty());
    CHECK(text_of_parts(c, 9) == "bytes");
    REQUIRE(a.append(bytes_of("again")));
    CHECK(text_of_parts(a, 9) == "again");
}
