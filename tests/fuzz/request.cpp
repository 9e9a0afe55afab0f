// SPDX-License-Identifier: Apache-2.0
//
// http_upload's RequestParser: any bytes in any pieces. The pieces must not matter: the same
// requests, the same bodies, and the same answer to what is no request. The first two bytes are a
// number to cut with, the rest is the stream.
#include <http_upload/request.hpp>

#include <memory>

#include "fuzz.hpp"

using fuzz::require;
using http_upload::Request;
using http_upload::RequestParser;

namespace {

/// Writes down what it is told, so that only the cuts do not show.
struct Record final : http_upload::RequestSink {
    void handle_head(Request&& request) override {
        std::size_t bytes = request.target.size();
        text += "head " + request.method + ' ' + request.target;
        for (const auto& [name, value] : request.headers) {
            text += '\n' + name + ": " + value;
            bytes += name.size() + value.size();
            require(!name.empty(), "a header has a name");
            require(request.header(name) != nullptr && request.count(name) > 0,
                    "a header is found by its name");
        }
        text += request.is_http_1_1 ? " 1.1" : " 1.0";
        text += request.keep_alive ? " keeps" : " closes";
        text += request.has_body ? " body " : " none ";
        text += request.length ? std::to_string(*request.length) : "?";
        require(request.headers.size() <= 100 && bytes <= 32 * 1024, "a head is bounded");
        require(!request.is_http_1_1 || request.count("host") == 1, "HTTP/1.1 names one host");
        require(!request.length || request.has_body == (*request.length != 0),
                "a body is as long as it is said to be");
        if (const auto path = http_upload::decoded_path(request.target)) {
            require(path->size() <= request.target.size(), "a path gets no longer");
        }
        expected = request.length;
        body = 0;
        has_head = true;
    }
    void handle_body(std::string_view bytes) override {
        require(has_head, "a body comes after its head");
        require(!bytes.empty(), "a piece of a body is some");
        text += bytes;
        body += bytes.size();
        require(!expected || body <= *expected, "no more of a body than was said");
    }
    std::string text;
    std::optional<std::uint64_t> expected;
    std::uint64_t body = 0;
    bool has_head = false;
};

template <class Cut>
std::string parse(std::string_view stream, Cut&& cut) {
    Record record;
    RequestParser parser;
    while (!stream.empty()) {
        // A copy of exactly this size: a sanitizer sees a look beyond it.
        std::string_view piece = stream.substr(0, std::max<std::size_t>(1, cut(stream.size())));
        stream.remove_prefix(piece.size());
        const auto copy = std::make_unique<char[]>(piece.size());
        piece.copy(copy.get(), piece.size());
        piece = {copy.get(), piece.size()};
        while (!piece.empty()) {
            const RequestParser::Fed fed = parser.feed(piece, record);
            if (fed.status != 0) {
                require(fed.status >= 400 && fed.status <= 505, "a refusal has a status");
                // Which limit or error is met first depends on the pieces.
                return record.text + "\nrefused";
            }
            require(fed.taken <= piece.size(), "no more is taken than came");
            require(fed.at_end || fed.taken == piece.size(), "all is taken, up to an end");
            piece.remove_prefix(fed.taken);
            if (fed.at_end) {
                require(record.has_head, "an end is that of a request");
                require(!record.expected || record.body == *record.expected,
                        "a request ends with its body");
                require(!parser.is_within(), "between two requests it is within none");
                record.has_head = false;
                record.text += "\nend\n";
            }
        }
    }
    return record.text + (parser.is_within() ? "\nwithin" : "");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Tape tape(data, std::min<std::size_t>(size, 64 * 1024));
    std::uint64_t cutter = tape.number(2);
    const std::string_view stream = tape.rest();
    const std::string whole = parse(stream, [](std::size_t left) { return left; });
    require(parse(stream, [](std::size_t) { return std::size_t{1}; }) == whole,
            "byte by byte it is the same stream");
    const std::string cut = parse(stream, [&](std::size_t left) {
        cutter = cutter * 6364136223846793005U + 1442695040888963407U;
        const auto most = static_cast<std::size_t>(1 + (cutter >> 60) * (cutter >> 60));
        return std::min(left, 1 + static_cast<std::size_t>(cutter >> 33) % most);
    });
    require(cut == whole, "however it is cut, it is the same stream");
    return 0;
}
