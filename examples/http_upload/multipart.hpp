// SPDX-License-Identifier: Apache-2.0
//
// http_upload: from the bytes of a form to its parts (multipart/form-data, RFC 7578 and RFC 2046).
//
// A Multipart is fed what comes, in any pieces, and tells a sink of each part: its begin with what
// its headers say, its data as it comes, its end. Data is passed on as views into what was fed;
// what might be the begin of a boundary is held back as a count, since its text is known. So memory
// does not depend on the size of a part: a header block is bounded, and a boundary line.
//
// Where the RFCs leave room: lines end with CRLF and nothing else. A boundary counts only where its
// whole line is one: "--boundary", perhaps "--", blanks, CRLF. A line that begins like it is data,
// so a file that holds another form arrives whole. What is malformed is refused, not repaired:
// another reader of the same bytes might repair it otherwise.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace http_upload {

/// What the headers of a part say.
struct Part {
    std::string name;                    ///< of the form's field
    std::optional<std::string> filename; ///< none: no file. As sent: see safe_name in storage.hpp
    std::string content_type;            ///< empty if there is none
};

/// Who is told of the parts: for each part_begin, any number of part_data, part_end.
template <class T>
concept PartSink = requires(T& sink, const Part& part, std::string_view bytes) {
    sink.part_begin(part);
    sink.part_data(bytes);
    sink.part_end();
};

/// The text of headers: names, parameters, quoted strings.
namespace header_text {

[[nodiscard]] inline bool is_blank(char c) noexcept { return c == ' ' || c == '\t'; }

[[nodiscard]] inline std::string lower(std::string_view text) {
    std::string result(text);
    for (char& c : result) {
        c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
    return result;
}

[[nodiscard]] inline std::string_view trimmed(std::string_view text) noexcept {
    while (!text.empty() && is_blank(text.front())) {
        text.remove_prefix(1);
    }
    while (!text.empty() && is_blank(text.back())) {
        text.remove_suffix(1);
    }
    return text;
}

/// Takes a quoted string from the front of `text`, which begins with the quote. None if it has no
/// end. A backslash escapes a quote or a backslash and is itself before all else, as browsers send
/// C:\dir\file unescaped; for the same reason the last quote ends the string in any case.
[[nodiscard]] inline std::optional<std::string> take_quoted(std::string_view& text) {
    const std::size_t last = text.rfind('"');
    std::string value;
    for (std::size_t at = 1; at < text.size(); ++at) {
        if (text[at] == '"') {
            text.remove_prefix(at + 1);
            return value;
        }
        if (text[at] == '\\' && at + 1 < last && (text[at + 1] == '"' || text[at + 1] == '\\')) {
            ++at;
        }
        value += text[at];
    }
    return std::nullopt;
}

/// What stands behind the first word of a header: `; name=value; name="value"`, names in lower
/// case. None if it is malformed or says a thing twice.
using Parameters = std::vector<std::pair<std::string, std::string>>;

[[nodiscard]] inline const std::string* find(const Parameters& parameters,
                                             std::string_view name) noexcept {
    for (const auto& [key, value] : parameters) {
        if (key == name) {
            return &value;
        }
    }
    return nullptr;
}

[[nodiscard]] inline std::optional<Parameters> parameters_of(std::string_view text) {
    Parameters parameters;
    for (text = trimmed(text); !text.empty(); text = trimmed(text)) {
        if (text.front() != ';') {
            return std::nullopt;
        }
        text = trimmed(text.substr(1));
        if (text.empty() || text.front() == ';') {
            continue; // RFC 9110, 5.6.6: a parameter may be missing
        }
        const std::size_t name_end = text.find_first_of("=; \t\"");
        if (name_end == 0 || name_end == text.npos || text[name_end] != '=') {
            return std::nullopt;
        }
        std::string name = lower(text.substr(0, name_end));
        text.remove_prefix(name_end + 1);
        std::optional<std::string> value;
        if (!text.empty() && text.front() == '"') {
            value = take_quoted(text);
        } else {
            value = text.substr(0, text.find_first_of("; \t\""));
            text.remove_prefix(value->size());
            if (value->empty()) {
                value.reset();
            }
        }
        if (!value || find(parameters, name) != nullptr) {
            return std::nullopt;
        }
        parameters.emplace_back(std::move(name), std::move(*value));
    }
    return parameters;
}

/// A header's first word, in lower case, and its parameters.
[[nodiscard]] inline std::pair<std::string, std::optional<Parameters>>
split(std::string_view value) {
    const std::size_t end = value.find(';');
    return {lower(trimmed(value.substr(0, end))),
            parameters_of(end == value.npos ? std::string_view{} : value.substr(end))};
}

/// The text of an extended value, UTF-8'language'percent-encoded (RFC 8187). None if it is not one.
[[nodiscard]] inline std::optional<std::string> extended(std::string_view value) {
    const std::size_t first = value.find('\'');
    const std::size_t second = first == value.npos ? first : value.find('\'', first + 1);
    if (second == value.npos || lower(value.substr(0, first)) != "utf-8") {
        return std::nullopt;
    }
    const auto digit = [](char c) {
        return c >= '0' && c <= '9'   ? c - '0'
               : c >= 'a' && c <= 'f' ? c - 'a' + 10
               : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                      : -1;
    };
    std::string text;
    for (value.remove_prefix(second + 1); !value.empty(); value.remove_prefix(1)) {
        if (value.front() != '%') {
            text += value.front();
            continue;
        }
        if (value.size() < 3 || digit(value[1]) < 0 || digit(value[2]) < 0) {
            return std::nullopt;
        }
        text += static_cast<char>(digit(value[1]) * 16 + digit(value[2]));
        value.remove_prefix(2);
    }
    return text;
}

} // namespace header_text

/// Whether `text` may be a boundary: 1 to 70 of the characters of RFC 2046, the last no blank.
[[nodiscard]] inline bool is_boundary(std::string_view text) noexcept {
    for (const char c : text) {
        const bool alphanumeric =
            (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!alphanumeric && std::string_view("'()+_,-./:=? ").find(c) == std::string_view::npos) {
            return false;
        }
    }
    return !text.empty() && text.size() <= 70 && text.back() != ' ';
}

/// The boundary that a request's Content-Type names. None if it is no form of this kind, or names
/// no boundary, or a bad one.
[[nodiscard]] inline std::optional<std::string> boundary_of(std::string_view content_type) {
    const auto [type, parameters] = header_text::split(content_type);
    if (type != "multipart/form-data" || !parameters) {
        return std::nullopt;
    }
    const std::string* const boundary = header_text::find(*parameters, "boundary");
    if (boundary == nullptr || !is_boundary(*boundary)) {
        return std::nullopt;
    }
    return *boundary;
}

/// Splits one form. One thread at a time; it may be moved between pieces.
class Multipart {
  public:
    enum class Status {
        ok,    ///< more is to come
        done,  ///< the last boundary was seen; what comes after it is skipped
        error, ///< see error(); nothing more is told to the sink
    };
    enum class Error {
        none,
        bad_boundary_line, ///< more than `longest_padding` blanks behind a boundary
        header_too_long,   ///< more than `longest_headers` bytes or `most_headers` headers
        bad_header,        ///< no name and colon, a line that does not end with CRLF, a NUL
        no_disposition,    ///< a part without Content-Disposition
        bad_disposition,   ///< not form-data with a name, malformed, or there twice
        too_many_parts,    ///< more than `most_parts`
        truncated,         ///< the end came before the last boundary
    };

    static constexpr std::size_t longest_padding = 128;
    static constexpr std::size_t longest_headers = 8 * 1024; ///< of a part, in bytes, all lines
    static constexpr std::size_t most_headers = 32;          ///< of a part
    static constexpr std::size_t most_parts = 1000;          ///< what is told of each may be kept

    /// `boundary` as boundary_of gives it. Precondition: is_boundary(boundary).
    explicit Multipart(std::string_view boundary) : delimiter_("\r\n--") {
        assert(is_boundary(boundary));
        delimiter_ += boundary;
    }

    /// Takes the next piece, whole, and tells `sink` what it can of it. The views are good within
    /// the call only. What the sink throws passes through: the form is then of no more use.
    template <PartSink Sink>
    Status feed(std::string_view bytes, Sink& sink) {
        while (!bytes.empty() && status_ == Status::ok) {
            bytes.remove_prefix(place_ == Place::headers ? take_header(bytes, sink)
                                                         : take_content(bytes, sink));
        }
        return status_;
    }
    template <PartSink Sink>
    Status feed(std::span<const std::byte> bytes, Sink& sink) {
        return feed({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, sink);
    }

    /// Nothing more comes: done, or an error. The last boundary may lack its CRLF, so this may be
    /// what ends the last part.
    template <PartSink Sink>
    Status finish(Sink& sink) {
        if (status_ == Status::ok) {
            if (rest_.starts_with("--") && rest_.back() != '\r') {
                end_line(sink);
            } else {
                fail(Error::truncated);
            }
        }
        return status_;
    }

    /// Why the status is error.
    [[nodiscard]] Error error() const noexcept { return error_; }

  private:
    enum class Place { preamble, headers, data };

    void fail(Error error) noexcept {
        status_ = Status::error;
        error_ = error;
    }

    // -- preamble and data: up to a boundary ------------------------------------------------------
    // Held back are delimiter_[skipped_, matched_) and rest_. The delimiter's CR is its first
    // character and nowhere else, so what fails to match is wholly data: no later start within it.

    /// Takes from the front of `bytes` and answers how many, perhaps none if the state has changed.
    template <class Sink>
    std::size_t take_content(std::string_view bytes, Sink& sink) {
        if (matched_ == 0) {
            const std::size_t plain = find_candidate(bytes);
            if (plain != 0) {
                tell(bytes.substr(0, plain), sink);
                return plain;
            }
        }
        const char c = bytes.front();
        if (matched_ < delimiter_.size()) {
            if (c == delimiter_[matched_]) {
                ++matched_;
                return 1;
            }
            release(sink);
            return 0;
        }
        const bool line_ends = rest_.ends_with('\r');
        if (line_ends && c == '\n') {
            end_line(sink);
            return 1;
        }
        const bool may_follow = c == '-' ? rest_.empty() || rest_ == "-"
                                         : (c == '\r' || header_text::is_blank(c)) && rest_ != "-";
        if (line_ends || !may_follow) {
            release(sink);
            return 0;
        }
        if (rest_.size() == longest_padding && c != '\r') {
            fail(Error::bad_boundary_line);
        }
        rest_ += c;
        return 1;
    }

    /// Where the first thing begins that is a delimiter as far as `bytes` goes.
    [[nodiscard]] std::size_t find_candidate(std::string_view bytes) const noexcept {
        for (std::size_t at = 0; at < bytes.size(); ++at) {
            const void* const found = std::memchr(bytes.data() + at, '\r', bytes.size() - at);
            if (found == nullptr) {
                break;
            }
            at = static_cast<std::size_t>(static_cast<const char*>(found) - bytes.data());
            const std::string_view candidate = bytes.substr(at, delimiter_.size());
            if (delimiter_.starts_with(candidate)) {
                return at;
            }
        }
        return bytes.size();
    }

    template <class Sink>
    void tell(std::string_view bytes, Sink& sink) {
        if (place_ == Place::data && !bytes.empty()) {
            sink.part_data(bytes);
        }
    }

    /// What was held back is no boundary.
    template <class Sink>
    void release(Sink& sink) {
        tell(std::string_view(delimiter_).substr(skipped_, matched_ - skipped_), sink);
        tell(rest_, sink);
        begin_content(place_, 0);
    }

    /// `given`: how much of a delimiter counts as seen. Two, its CRLF, at the begin of a form and
    /// behind the headers, whose last CRLF may serve twice (RFC 2046: a body may be missing).
    void begin_content(Place place, std::size_t given) {
        place_ = place;
        matched_ = skipped_ = given;
        rest_.clear();
    }

    template <class Sink>
    void end_line(Sink& sink) {
        if (place_ == Place::data) {
            sink.part_end();
        }
        if (rest_.starts_with("--")) {
            status_ = Status::done;
        }
        begin_content(Place::headers, 0);
        headers_.clear();
        headers_size_ = 0;
    }

    // -- headers ----------------------------------------------------------------------------------

    template <class Sink>
    std::size_t take_header(std::string_view bytes, Sink& sink) {
        const std::size_t end = bytes.find('\n');
        const std::size_t size = end == bytes.npos ? bytes.size() : end + 1;
        headers_size_ += size;
        if (headers_size_ > longest_headers) {
            fail(Error::header_too_long);
            return size;
        }
        line_.append(bytes.substr(0, size));
        if (end != bytes.npos) {
            take_line(sink);
            line_.clear();
        }
        return size;
    }

    template <class Sink>
    void take_line(Sink& sink) {
        std::string_view line = line_;
        if (!line.ends_with("\r\n")) {
            return fail(Error::bad_header);
        }
        line.remove_suffix(2);
        if (line.find_first_of(std::string_view("\r\0", 2)) != line.npos) {
            return fail(Error::bad_header);
        }
        if (line.empty()) {
            return begin_part(sink);
        }
        if (header_text::is_blank(line.front())) { // the last header goes on (RFC 5322, 2.2.3)
            if (headers_.empty()) {
                return fail(Error::bad_header);
            }
            headers_.back().second += line;
            return;
        }
        const std::size_t colon = line.find(':');
        if (colon == 0 || colon == line.npos || is_boundary_line(line)) {
            return fail(Error::bad_header);
        }
        for (const char c : line.substr(0, colon)) {
            if (c <= ' ' || c > '~') {
                return fail(Error::bad_header);
            }
        }
        if (headers_.size() == most_headers) {
            return fail(Error::header_too_long);
        }
        headers_.emplace_back(header_text::lower(line.substr(0, colon)), line.substr(colon + 1));
    }

    /// A boundary may hold a colon, and is no header for that.
    [[nodiscard]] bool is_boundary_line(std::string_view line) const noexcept {
        if (!line.starts_with(std::string_view(delimiter_).substr(2))) {
            return false;
        }
        line.remove_prefix(delimiter_.size() - 2);
        line.remove_prefix(line.starts_with("--") ? 2 : 0);
        return header_text::trimmed(line).empty();
    }

    template <class Sink>
    void begin_part(Sink& sink) {
        Part part;
        bool has_disposition = false;
        for (const auto& [name, value] : headers_) {
            if (name == "content-disposition") {
                if (has_disposition || !read_disposition(value, part)) {
                    return fail(Error::bad_disposition);
                }
                has_disposition = true;
            } else if (name == "content-type" && part.content_type.empty()) {
                part.content_type = header_text::trimmed(value);
            }
        }
        if (!has_disposition) {
            return fail(Error::no_disposition);
        }
        if (parts_ == most_parts) {
            return fail(Error::too_many_parts);
        }
        ++parts_;
        begin_content(Place::data, 2);
        sink.part_begin(part);
    }

    [[nodiscard]] static bool read_disposition(std::string_view value, Part& part) {
        const auto [type, parameters] = header_text::split(value);
        if (type != "form-data" || !parameters) {
            return false;
        }
        const std::string* const name = header_text::find(*parameters, "name");
        if (name == nullptr) {
            return false;
        }
        part.name = *name;
        // What is extended is the better one of the two (RFC 6266, 4.3).
        if (const std::string* const extended = header_text::find(*parameters, "filename*")) {
            part.filename = header_text::extended(*extended);
            return part.filename.has_value();
        }
        if (const std::string* const filename = header_text::find(*parameters, "filename")) {
            part.filename = *filename;
        }
        return true;
    }

    Status status_ = Status::ok;
    Error error_ = Error::none;
    Place place_ = Place::preamble;
    std::string delimiter_;   // CRLF, two dashes, the boundary
    std::size_t matched_ = 2; // of the delimiter
    std::size_t skipped_ = 2; // of that, what is not there in fact, or belongs to the headers
    std::string rest_;        // of the boundary's line, behind the delimiter
    std::string line_;        // of a header block, not yet ended
    std::size_t headers_size_ = 0;
    std::size_t parts_ = 0;
    std::vector<std::pair<std::string, std::string>> headers_;
};

} // namespace http_upload
