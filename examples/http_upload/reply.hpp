// SPDX-License-Identifier: Apache-2.0
//
// http_upload: what is answered (RFC 9110), as text.
#pragma once

#include <cstdint>
#include <cstdio>
#include <ctime>
#include <string>
#include <string_view>

namespace http_upload {

[[nodiscard]] inline std::string_view reason_of(int status) {
    switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 204: return "No Content";
    case 400: return "Bad Request";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    case 507: return "Insufficient Storage";
    default: return "Unknown";
    }
}

/// The time as a Date header wants it, made once a second.
class DateText {
  public:
    [[nodiscard]] std::string_view now() {
        const std::time_t time = std::time(nullptr);
        if (time != time_) {
            time_ = time;
            std::tm parts{};
            ::gmtime_r(&time, &parts);
            size_ = std::strftime(text_, sizeof text_, "%a, %d %b %Y %H:%M:%S GMT", &parts);
        }
        return {text_, size_};
    }

  private:
    std::time_t time_ = -1;
    char text_[40] = {};
    std::size_t size_ = 0;
};

/// The head of an answer, to be followed by `length` bytes.
struct ReplyHead {
    int status = 200;
    std::string_view type = "text/plain; charset=utf-8";
    std::uint64_t length = 0;
    bool closes = false;
    std::string_view more{}; ///< whole lines
};

[[nodiscard]] inline std::string to_text(const ReplyHead& head, std::string_view date) {
    std::string text;
    text.reserve(256);
    text += "HTTP/1.1 ";
    text += std::to_string(head.status);
    text += ' ';
    text += reason_of(head.status);
    text += "\r\nDate: ";
    text += date;
    text += "\r\nContent-Type: ";
    text += head.type;
    text += "\r\nContent-Length: ";
    text += std::to_string(head.length);
    text += head.closes ? "\r\nConnection: close\r\n" : "\r\nConnection: keep-alive\r\n";
    text += head.more;
    text += "\r\n";
    return text;
}

/// A JSON string (RFC 8259).
[[nodiscard]] inline std::string json(std::string_view text) {
    std::string quoted = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            quoted += '\\';
            quoted += c;
        } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
            char code[8];
            std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
            quoted += code;
        } else {
            quoted += c;
        }
    }
    return quoted += '"';
}

inline constexpr std::string_view form_page = R"(<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Upload</title>
<style>body{font:16px sans-serif;max-width:40em;margin:3em auto}pre{background:#eee;padding:1em}</style>
</head>
<body>
<h1>Upload</h1>
<form action="/upload" method="post" enctype="multipart/form-data">
<input type="file" name="file" id="file" multiple required>
<button id="send">Send</button>
</form>
</body>
</html>
)";

} // namespace http_upload
