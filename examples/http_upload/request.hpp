// SPDX-License-Identifier: Apache-2.0
//
// http_upload: from bytes to requests (RFC 9112), by llhttp.
//
// A RequestParser is fed what comes, in any pieces, and tells a RequestSink of a request's head,
// its body as it comes, and its end. It stops at each end, so that one request of a pipeline is
// answered before the next is looked at. A head is bounded; a body is not kept here at all.
#pragma once

#include <llhttp.h>

#include <cctype>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace http_upload {

[[nodiscard]] inline bool same_word(std::string_view a, std::string_view b) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    if (a.size() != b.size()) {
        return false;
    }
    for (std::size_t n = 0; n < a.size(); ++n) {
        if (lower(a[n]) != lower(b[n])) {
            return false;
        }
    }
    return true;
}

/// The head of a request.
struct Request {
    std::string method;
    std::string target;
    std::vector<std::pair<std::string, std::string>> headers;
    bool is_http_1_1 = false;
    bool keep_alive = false;
    bool has_body = false;
    std::optional<std::uint64_t> length; ///< of the body; none if it comes in chunks

    /// The first header of that name, or null.
    [[nodiscard]] const std::string* header(std::string_view name) const {
        for (const auto& [key, value] : headers) {
            if (same_word(key, name)) {
                return &value;
            }
        }
        return nullptr;
    }
    [[nodiscard]] std::size_t count(std::string_view name) const {
        std::size_t times = 0;
        for (const auto& [key, value] : headers) {
            times += same_word(key, name) ? 1U : 0U;
        }
        return times;
    }
};

/// Who is told.
class RequestSink {
  public:
    /// A head is complete.
    virtual void handle_head(Request&& request) = 0;
    /// A piece of its body.
    virtual void handle_body(std::string_view bytes) = 0;

  protected:
    ~RequestSink() = default;
};

/// One a connection. Does not move: llhttp keeps its address.
class RequestParser {
  public:
    /// What came of some bytes.
    struct Fed {
        std::size_t taken = 0; ///< of them; less than all only at an end
        bool at_end = false;   ///< a request is complete; the rest belongs to the next
        int status = 0;        ///< not zero: this is no request; what to answer
    };

    RequestParser() {
        llhttp_init(&parser_, HTTP_REQUEST, &settings());
        parser_.data = this;
    }
    RequestParser(const RequestParser&) = delete;
    RequestParser& operator=(const RequestParser&) = delete;

    Fed feed(std::string_view bytes, RequestSink& sink) {
        sink_ = &sink;
        const llhttp_errno_t result = llhttp_execute(&parser_, bytes.data(), bytes.size());
        switch (result) {
        case HPE_OK:
            return {bytes.size(), false, 0};
        case HPE_PAUSED: {
            const auto taken =
                static_cast<std::size_t>(llhttp_get_error_pos(&parser_) - bytes.data());
            llhttp_resume(&parser_);
            in_head_ = false;
            return {taken, true, 0};
        }
        case HPE_USER:
            return {0, false, refusal_};
        case HPE_INVALID_METHOD:
            return {0, false, 501};
        case HPE_INVALID_TRANSFER_ENCODING:
            return {0, false, 501};
        default:
            return {0, false, 400};
        }
    }
    /// Whether a request has begun and is not complete.
    [[nodiscard]] bool is_within() const noexcept { return within_; }

  private:
    static constexpr std::size_t longest_target = 8 * 1024;
    static constexpr std::size_t longest_head = 32 * 1024;
    static constexpr std::size_t most_headers = 100;

    static RequestParser& self(llhttp_t* parser) {
        return *static_cast<RequestParser*>(parser->data);
    }
    int refuse(int status) {
        refusal_ = status;
        return HPE_USER;
    }
    int add(std::string& to, const char* at, std::size_t size, std::size_t most, int status) {
        head_size_ += size;
        if (to.size() + size > most || head_size_ > longest_head) {
            return refuse(status);
        }
        to.append(at, size);
        return 0;
    }
    int begin() {
        request_ = {};
        head_size_ = 0;
        within_ = in_head_ = true;
        return 0;
    }
    int field(const char* at, std::size_t size) {
        if (!in_head_) {
            return 0; // a trailer: nobody asks for it
        }
        auto& headers = request_.headers;
        if (field_ended_ || headers.empty()) {
            field_ended_ = false;
            if (headers.size() == most_headers) {
                return refuse(431);
            }
            headers.emplace_back();
        }
        return add(headers.back().first, at, size, longest_head, 431);
    }
    int value(const char* at, std::size_t size) {
        return in_head_ ? add(request_.headers.back().second, at, size, longest_head, 431) : 0;
    }
    int head() {
        in_head_ = false;
        const auto method = static_cast<llhttp_method_t>(llhttp_get_method(&parser_));
        request_.method = llhttp_method_name(method);
        request_.is_http_1_1 = parser_.http_major == 1 && parser_.http_minor >= 1;
        request_.keep_alive = llhttp_should_keep_alive(&parser_) != 0;
        if ((request_.is_http_1_1 && request_.count("host") != 1) || parser_.http_major != 1 ||
            parser_.http_minor > 1 || method == HTTP_CONNECT) {
            return refuse(parser_.http_major != 1 || parser_.http_minor > 1 ? 505
                          : method == HTTP_CONNECT                          ? 501
                                                                            : 400);
        }
        if (request_.count("") != 0) {
            return refuse(400); // llhttp lets a header without a name pass
        }
        if (const std::string* const coding = request_.header("transfer-encoding")) {
            if (!same_word(*coding, "chunked") || request_.count("transfer-encoding") != 1) {
                return refuse(501);
            }
            request_.has_body = true;
        } else if (const std::string* const length = request_.header("content-length")) {
            std::uint64_t number = 0;
            std::from_chars(length->data(), length->data() + length->size(), number);
            request_.length = number; // llhttp has read it already, and refuses what is no number
            request_.has_body = number != 0;
        }
        sink_->handle_head(std::move(request_));
        return 0;
    }

    static const llhttp_settings_t& settings() {
        static const llhttp_settings_t these = [] {
            llhttp_settings_t made;
            llhttp_settings_init(&made);
            made.on_message_begin = [](llhttp_t* p) { return self(p).begin(); };
            made.on_url = [](llhttp_t* p, const char* at, std::size_t size) {
                RequestParser& it = self(p);
                return it.add(it.request_.target, at, size, longest_target, 414);
            };
            made.on_header_field = [](llhttp_t* p, const char* at, std::size_t size) {
                return self(p).field(at, size);
            };
            made.on_header_value = [](llhttp_t* p, const char* at, std::size_t size) {
                return self(p).value(at, size);
            };
            made.on_header_value_complete = [](llhttp_t* p) {
                self(p).field_ended_ = true;
                return 0;
            };
            made.on_headers_complete = [](llhttp_t* p) {
                const int answer = self(p).head();
                p->upgrade = 0; // nothing is upgraded here: the request is answered as it is
                return answer;
            };
            made.on_body = [](llhttp_t* p, const char* at, std::size_t size) {
                self(p).sink_->handle_body({at, size});
                return 0;
            };
            made.on_message_complete = [](llhttp_t* p) {
                self(p).within_ = false;
                return static_cast<int>(HPE_PAUSED);
            };
            return made;
        }();
        return these;
    }

    llhttp_t parser_;
    RequestSink* sink_ = nullptr;
    Request request_;
    std::size_t head_size_ = 0;
    bool field_ended_ = false;
    bool in_head_ = false;
    bool within_ = false;
    int refusal_ = 400;
};

/// A target's path with its %XX read; nothing if they are malformed. What follows a ? is left out.
[[nodiscard]] inline std::optional<std::string> decoded_path(std::string_view target) {
    std::string path;
    target = target.substr(0, target.find('?'));
    for (std::size_t n = 0; n < target.size(); ++n) {
        if (target[n] != '%') {
            path += target[n];
            continue;
        }
        unsigned code = 0;
        const char* const from = target.data() + n + 1;
        if (n + 2 >= target.size() ||
            std::from_chars(from, from + 2, code, 16).ptr != from + 2) {
            return std::nullopt;
        }
        path += static_cast<char>(code);
        n += 2;
    }
    return path;
}

} // namespace http_upload
