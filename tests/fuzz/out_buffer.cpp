// SPDX-License-Identifier: Apache-2.0
//
// OutBuffer against a string: bytes go in by copy and by handle, and leave at the front as a
// gathering write would take them, in part, whole, or not at all.
#include <reactor/detail/out_buffer.hpp>

#include <vector>

#include "fuzz.hpp"

using namespace reactor;
using fuzz::require;

namespace {

constexpr std::size_t most_bytes = 1 << 20;

class Trial {
  public:
    explicit Trial(fuzz::Tape& tape) : tape_(tape) {}

    void run() {
        while (!tape_.at_end()) {
            step();
            require(buffer_.size() == expected_.size(), "it counts its bytes");
            require(buffer_.empty() == expected_.empty(), "it knows when it is empty");
            require(buffer_.held() >= buffer_.size(), "it holds what it has");
            require(!buffer_.empty() || buffer_.held() == 0, "an empty one owns nothing");
        }
        require(front(10'000) == expected_, "what is there at last is what was put in");
        take(expected_.size());
        require(buffer_.empty() && buffer_.held() == 0, "all that was put in can be taken");
    }

  private:
    void step() {
        switch (tape_.below(8)) {
        case 0:
        case 1: {
            const std::string text = made();
            require(buffer_.append(bytes_of(text)), "there is memory");
            expected_ += text;
            return;
        }
        case 2: {
            const std::string text = made();
            if (!text.empty()) {
                shared_ = Buffer(std::string_view(text));
            }
            return hang_in();
        }
        case 3:
            return hang_in(); // the same block once more
        case 4:
            return take(std::min(tape_.size(17), expected_.size()));
        case 5: {
            // As a stream does: what one gathering write would name, and part of that.
            const std::string written = front(1 + tape_.below(16));
            require(std::string_view(expected_).starts_with(written), "the front comes first");
            require(written.empty() == expected_.empty(), "a write names something to write");
            return take(written.size() * tape_.byte() / 255);
        }
        case 6: {
            detail::OutBuffer moved(std::move(buffer_));
            require(buffer_.empty() && buffer_.held() == 0, "who was moved from owns nothing");
            buffer_ = std::move(moved);
            return;
        }
        default:
            if (tape_.below(8) == 0) {
                buffer_.clear();
                expected_.clear();
            }
        }
    }
    std::string made() {
        const std::size_t size =
            std::min(tape_.size(17), most_bytes - std::min(most_bytes, expected_.size()));
        std::string text(size, '\0');
        for (char& letter : text) {
            letter = static_cast<char>(next_++ * 31 >> 3);
        }
        return text;
    }
    void hang_in() {
        if (!shared_.empty() && expected_.size() < most_bytes) {
            require(buffer_.append(shared_), "there is memory");
            expected_ += shared_.text();
        }
    }
    void take(std::size_t count) {
        buffer_.consume(count);
        expected_.erase(0, count);
    }
    std::string front(std::size_t most) {
        std::vector<iovec> parts(most);
        const std::size_t count = buffer_.parts(parts);
        require(count <= most, "no more parts than there is room for");
        std::string text;
        for (std::size_t n = 0; n < count; ++n) {
            require(parts[n].iov_len > 0, "no part is empty");
            text.append(static_cast<const char*>(parts[n].iov_base), parts[n].iov_len);
        }
        return text;
    }

    fuzz::Tape& tape_;
    detail::OutBuffer buffer_;
    Buffer shared_;
    std::string expected_;
    std::uint32_t next_ = 0;
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Tape tape(data, std::min<std::size_t>(size, 512));
    Trial(tape).run();
    return 0;
}
