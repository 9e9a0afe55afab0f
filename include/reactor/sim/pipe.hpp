// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator: a pipe.
//
// A pipe is sixteen pages (pipe(7)). A write begins a page of its own unless its odd bytes fit into
// the last one, so a pipe of few bytes can be full, and one byte drained from a full pipe makes no
// room (kernel fact 14 in the tests).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

namespace reactor::inline v0 {
namespace sim {

/// What two descriptors share: one end to read, one to write.
struct Pipe {
    static constexpr std::size_t page_size = 4096; ///< up to this much is written whole
    static constexpr std::size_t most_pages = 16;  ///< then it is full

    std::deque<std::vector<std::byte>> pages{}; ///< what waits to be read
    std::size_t begin = 0;                      ///< in the first page
    std::size_t last_room = 0;                  ///< behind the last page
    bool readable_end = true;                   ///< somebody has it
    bool writable_end = true;                   ///< somebody has it
    std::uint64_t changes = 0;                  ///< for edges

    /// Takes as much as there is room for; returns how much.
    [[nodiscard]] std::size_t write(std::span<const std::byte> bytes) {
        std::size_t done = 0;
        const std::size_t odd = bytes.size() % page_size;
        if (!pages.empty() && odd != 0 && odd <= last_room) {
            pages.back().insert(pages.back().end(), bytes.begin(),
                                bytes.begin() + static_cast<std::ptrdiff_t>(odd));
            last_room -= odd;
            done = odd;
        }
        while (done < bytes.size() && pages.size() < most_pages) {
            const auto part = bytes.subspan(done, std::min(page_size, bytes.size() - done));
            pages.emplace_back(part.begin(), part.end());
            last_room = page_size - part.size();
            done += part.size();
        }
        changes += done != 0 ? 1U : 0U;
        return done;
    }
    /// Gives as much as there is and fits; returns how much.
    [[nodiscard]] std::size_t read(std::span<std::byte> into) {
        std::size_t done = 0;
        while (done < into.size() && !pages.empty()) {
            const std::vector<std::byte>& page = pages.front();
            const std::size_t count = std::min(into.size() - done, page.size() - begin);
            std::copy_n(page.begin() + static_cast<std::ptrdiff_t>(begin), count,
                        into.begin() + static_cast<std::ptrdiff_t>(done));
            done += count;
            begin += count;
            if (begin == page.size()) {
                pages.pop_front();
                begin = 0;
            }
        }
        changes += done != 0 ? 1U : 0U;
        return done;
    }
};

} // namespace sim
} // namespace reactor::inline v0
