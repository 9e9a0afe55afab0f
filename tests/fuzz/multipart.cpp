// SPDX-License-Identifier: Apache-2.0
//
// http_upload's Multipart: any body in any pieces. The pieces must not matter: whole, byte by byte
// and as the input says, a form has the same parts, the same data and the same end. The first bytes
// are the boundary's size, the boundary, and a number to cut with; the rest is the body.
#include <http_upload/multipart.hpp>

#include <memory>

#include "fuzz.hpp"

using fuzz::require;
using http_upload::Multipart;
using http_upload::Part;

namespace {

/// Writes down what it is told, so that only the cuts do not show.
struct Record {
    void part_begin(const Part& part) {
        require(!is_open, "a part begins when the last one has ended");
        is_open = true;
        text += "begin " + quoted(part.name) + (part.filename ? quoted(*part.filename) : "-") +
                quoted(part.content_type);
    }
    void part_data(std::string_view bytes) {
        require(is_open, "data is a part's");
        require(!bytes.empty(), "data is some");
        text += bytes;
        told += bytes.size();
    }
    void part_end() {
        require(is_open, "a part ends once");
        is_open = false;
        text += "end";
    }
    static std::string quoted(std::string_view value) {
        return std::to_string(value.size()) + ':' + std::string(value);
    }
    std::string text;
    std::size_t told = 0;
    bool is_open = false;
};

struct Outcome {
    std::string text;
    Multipart::Status status;
    Multipart::Error error;

    friend bool operator==(const Outcome&, const Outcome&) = default;
};

/// `cut(left)`: the size of the next piece.
template <class Cut>
Outcome split(std::string_view boundary, std::string_view body, Cut&& cut) {
    Record record;
    Multipart form(boundary);
    const std::size_t whole = body.size();
    while (!body.empty()) {
        // A copy of exactly this size: a sanitizer sees a look beyond it.
        const std::string_view piece = body.substr(0, std::max<std::size_t>(1, cut(body.size())));
        const auto copy = std::make_unique<char[]>(piece.size());
        piece.copy(copy.get(), piece.size());
        form.feed(std::string_view(copy.get(), piece.size()), record);
        body.remove_prefix(piece.size());
    }
    const Multipart::Status status = form.finish(record);
    require(status != Multipart::Status::ok, "in the end it is done, or it is an error");
    require((status == Multipart::Status::error) == (form.error() != Multipart::Error::none),
            "an error has a reason, and nothing else has");
    require(status == Multipart::Status::error || !record.is_open, "who is done has ended all");
    require(record.told <= whole, "no more data than came");
    require(form.finish(record) == status, "an end stays the end");
    return {record.text, status, form.error()};
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Tape tape(data, std::min<std::size_t>(size, 64 * 1024));
    std::string boundary(tape.text(tape.byte() % 72));
    std::uint64_t cutter = tape.number(2);
    if (!http_upload::is_boundary(boundary)) {
        boundary = "b";
    }
    const std::string_view body = tape.rest();
    const Outcome whole = split(boundary, body, [](std::size_t left) { return left; });
    require(split(boundary, body, [](std::size_t) { return std::size_t{1}; }) == whole,
            "byte by byte it is the same form");
    const Outcome cut = split(boundary, body, [&](std::size_t left) {
        cutter = cutter * 6364136223846793005U + 1442695040888963407U;
        const auto most = static_cast<std::size_t>(1 + (cutter >> 60) * (cutter >> 60));
        return std::min(left, 1 + static_cast<std::size_t>(cutter >> 33) % most);
    });
    require(cut == whole, "however it is cut, it is the same form");
    return 0;
}
