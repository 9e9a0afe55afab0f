// SPDX-License-Identifier: Apache-2.0
//
// What the two processes of the soak say to each other. A frame is a letter, the size of its
// payload, and the payload; each is answered by one:
//
//   e  echo: the same frame
//   o  offload: a frame with the checksum of the payload, made by another thread
//   h  handover: the other reactor of the server takes the connection over and says `h`
//   c  close: nothing; the server unregisters the connection
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace soak {

constexpr std::size_t head_size = 1 + sizeof(std::uint32_t);

inline std::string frame(char letter, std::string_view payload) {
    std::string made(head_size, letter);
    const auto size = static_cast<std::uint32_t>(payload.size());
    std::memcpy(made.data() + 1, &size, sizeof size);
    return made.append(payload);
}
/// The size of the frame that these bytes begin with, once that is known; else zero.
inline std::size_t frame_size(std::string_view bytes) {
    if (bytes.size() < head_size) {
        return 0;
    }
    std::uint32_t size = 0;
    std::memcpy(&size, bytes.data() + 1, sizeof size);
    return head_size + size;
}

inline std::uint64_t checksum(std::string_view bytes) {
    std::uint64_t sum = 0xcbf29ce484222325U;
    for (const char byte : bytes) {
        sum = (sum ^ static_cast<unsigned char>(byte)) * 0x100000001b3U;
    }
    return sum;
}
inline std::string checksum_text(std::string_view bytes) {
    const std::uint64_t sum = checksum(bytes);
    return {reinterpret_cast<const char*>(&sum), sizeof sum};
}

/// Where the server listens.
struct Doors {
    std::uint16_t port = 0;
    char path[64] = {};
};

/// What the clients have done so far, all together.
struct Tally {
    std::uint64_t opened = 0;
    std::uint64_t closed = 0;
    std::uint64_t bytes_checked = 0;
    std::uint64_t half_closed = 0;
    std::uint64_t reset = 0;
    std::uint64_t left_at_once = 0;
    std::uint64_t closed_by_server = 0;
    std::uint64_t stalled_reading = 0;
    std::uint64_t timed_out = 0; ///< were silent until the server's deadline
    std::uint64_t vanished = 0;  ///< their process was killed
    std::uint64_t handed_over = 0;
    std::uint64_t offloaded = 0;
    std::uint64_t no_port = 0;   ///< the system had none left: no connection then
    std::uint64_t wrong = 0;     ///< an answer that was another, or none
};

} // namespace soak
