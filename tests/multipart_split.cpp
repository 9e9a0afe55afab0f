// SPDX-License-Identifier: Apache-2.0
//
// Splits forms for multipart_differential.py. Of each line of stdin, "BOUNDARY SIZES BODY", the
// boundary and the body in hexadecimal, it feeds the body to a Multipart in pieces of these sizes
// ("7,1,300", over and over), and prints the outcome as a line of JSON, bytes in hexadecimal.

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>

#include "../examples/http_upload/multipart.hpp"

namespace {

using http_upload::Multipart;
using http_upload::Part;

std::string from_hex(const std::string& text) {
    std::string bytes;
    for (std::size_t at = 0; at + 1 < text.size(); at += 2) {
        bytes += static_cast<char>(std::stoi(text.substr(at, 2), nullptr, 16));
    }
    return bytes;
}
std::string to_hex(std::string_view bytes) {
    constexpr char digits[] = "0123456789abcdef";
    std::string text = "\"";
    for (const char c : bytes) {
        const auto value = static_cast<unsigned char>(c);
        text += digits[value >> 4];
        text += digits[value & 15];
    }
    return text += '"';
}
const char* name_of(Multipart::Error error) {
    switch (error) {
    case Multipart::Error::none:
        return "none";
    case Multipart::Error::bad_boundary_line:
        return "bad_boundary_line";
    case Multipart::Error::header_too_long:
        return "header_too_long";
    case Multipart::Error::bad_header:
        return "bad_header";
    case Multipart::Error::no_disposition:
        return "no_disposition";
    case Multipart::Error::bad_disposition:
        return "bad_disposition";
    case Multipart::Error::too_many_parts:
        return "too_many_parts";
    case Multipart::Error::truncated:
        return "truncated";
    }
    return "unknown";
}

struct Printer {
    void part_begin(const Part& part) {
        text += text.empty() ? "" : ",";
        text += "{\"name\":" + to_hex(part.name) +
                ",\"filename\":" + (part.filename ? to_hex(*part.filename) : "null") +
                ",\"type\":" + to_hex(part.content_type);
        data.clear();
        is_open = true;
    }
    void part_data(std::string_view bytes) { data += bytes; }
    void part_end() { close(true); }
    void close(bool ended) {
        if (is_open) {
            text += ",\"data\":" + to_hex(data);
            text += ended ? ",\"ended\":true}" : ",\"ended\":false}";
            is_open = false;
        }
    }
    std::string text;
    std::string data;
    bool is_open = false;
};

std::string split(const std::string& boundary, const std::vector<std::size_t>& sizes,
                  std::string_view body) {
    Printer printer;
    Multipart form(boundary);
    for (std::size_t n = 0; !body.empty(); ++n) {
        // A copy of exactly this size: a sanitizer sees a look beyond it.
        const std::string_view piece = body.substr(0, sizes[n % sizes.size()]);
        const std::vector<char> copy(piece.begin(), piece.end());
        form.feed({copy.data(), copy.size()}, printer);
        body.remove_prefix(piece.size());
    }
    form.finish(printer);
    printer.close(false);
    return std::string("{\"error\":\"") + name_of(form.error()) + "\",\"parts\":[" + printer.text +
           "]}";
}

} // namespace

int main() {
    std::ios::sync_with_stdio(false);
    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream fields(line);
        std::string boundary;
        std::string sizes_text;
        std::string body;
        fields >> boundary >> sizes_text >> body;
        std::vector<std::size_t> sizes;
        std::istringstream sizes_stream(sizes_text);
        for (std::string size; std::getline(sizes_stream, size, ',');) {
            sizes.push_back(std::stoul(size));
        }
        if (sizes.empty() || !http_upload::is_boundary(from_hex(boundary))) {
            std::cerr << "multipart_split: not a case: " << line << '\n';
            return 2;
        }
        std::cout << split(from_hex(boundary), sizes, from_hex(body)) << '\n';
    }
    return 0;
}
