// SPDX-License-Identifier: Apache-2.0
//
// What the fuzz targets share: bytes read as decisions, and a way to say that something is wrong.
//
// A target is one function, LLVMFuzzerTestOneInput, that any bytes may be given to. libFuzzer calls
// it with bytes of its own making (tests/fuzz.sh); replay.cpp calls it with each file of a corpus,
// with any compiler. A broken promise ends the process: that is what libFuzzer understands.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace fuzz {

/// What the target promises; else the process ends with this sentence.
inline void require(bool holds, const char* promise) {
    if (!holds) {
        std::fprintf(stderr, "fuzz: this does not hold: %s\n", promise);
        std::abort();
    }
}

/// Bytes as decisions. After the last byte every number is zero.
class Tape {
  public:
    Tape(const std::uint8_t* data, std::size_t size) : left_(data, size) {}

    [[nodiscard]] bool at_end() const noexcept { return left_.empty(); }
    [[nodiscard]] std::size_t left() const noexcept { return left_.size(); }
    [[nodiscard]] std::uint8_t byte() noexcept {
        if (left_.empty()) {
            return 0;
        }
        const std::uint8_t value = left_.front();
        left_ = left_.subspan(1);
        return value;
    }
    /// Of so many bytes, the first one being the lowest.
    [[nodiscard]] std::uint64_t number(unsigned bytes) noexcept {
        std::uint64_t value = 0;
        for (unsigned n = 0; n < bytes; ++n) {
            value |= std::uint64_t{byte()} << (8 * n);
        }
        return value;
    }
    /// From 0 to `bound` - 1, a byte's worth; 0 if there is nothing to choose from.
    [[nodiscard]] std::size_t below(std::size_t bound) noexcept {
        const std::size_t value = byte();
        return bound == 0 ? 0 : value % bound;
    }
    /// A size of any magnitude up to 2^`bits`, of two bytes: half of them are small.
    [[nodiscard]] std::size_t size(unsigned bits) noexcept {
        const std::size_t magnitude = below(bits + 1);
        const std::size_t detail = byte();
        const std::size_t base = std::size_t{1} << magnitude;
        return base - 1 + (base * detail >> 8);
    }
    /// The next bytes, as many as there are.
    [[nodiscard]] std::string_view text(std::size_t most) noexcept {
        const auto taken = left_.first(std::min(most, left_.size()));
        left_ = left_.subspan(taken.size());
        return {reinterpret_cast<const char*>(taken.data()), taken.size()};
    }
    /// All that is left.
    [[nodiscard]] std::string_view rest() noexcept { return text(left_.size()); }

  private:
    std::span<const std::uint8_t> left_;
};

} // namespace fuzz
