// SPDX-License-Identifier: Apache-2.0
//
// The multipart splitter of the upload server: what it takes, what it refuses, and that neither
// depends on the pieces in which a form comes. multipart_differential.py compares it with another.

#include "../examples/http_upload/multipart.hpp"

#include <algorithm>
#include <ostream>

#include "catch.hpp"

using namespace http_upload;
using namespace std::string_literals;
using Error = Multipart::Error;
using Status = Multipart::Status;

namespace {

struct Seen {
    Part part;
    std::string data;
    bool ended = false;

    bool operator==(const Seen& other) const {
        return part.name == other.part.name && part.filename == other.part.filename &&
               part.content_type == other.part.content_type && data == other.data &&
               ended == other.ended;
    }
    friend std::ostream& operator<<(std::ostream& out, const Seen& seen) {
        return out << seen.part.name << '/' << seen.part.filename.value_or("(none)") << '/'
                   << seen.part.content_type << '/' << seen.data << (seen.ended ? "" : "...");
    }
};

/// Keeps what it is told, and holds the splitter to the order of telling.
struct Keeper {
    void part_begin(const Part& part) {
        in_order = in_order && (parts.empty() || parts.back().ended);
        parts.push_back({part, {}, false});
    }
    void part_data(std::string_view bytes) {
        in_order = in_order && !parts.empty() && !parts.back().ended && !bytes.empty();
        parts.back().data += bytes;
        ++pieces;
    }
    void part_end() {
        in_order = in_order && !parts.empty() && !parts.back().ended;
        parts.back().ended = true;
    }
    std::vector<Seen> parts;
    std::size_t pieces = 0;
    bool in_order = true;
};

struct Outcome {
    Status status = Status::ok;
    Error error = Error::none;
    std::vector<Seen> parts;
};

Outcome split_in(std::string_view body, std::size_t size, std::string_view boundary) {
    Multipart form(boundary);
    Keeper keeper;
    for (; !body.empty(); body.remove_prefix(std::min(size, body.size()))) {
        // On the heap, and of this size: a sanitizer sees a look beyond it.
        const std::string_view piece = body.substr(0, size);
        const std::vector<char> copy(piece.begin(), piece.end());
        form.feed({copy.data(), copy.size()}, keeper);
    }
    const Status status = form.finish(keeper);
    CHECK(keeper.in_order);
    CHECK((status == Status::error) == (form.error() != Error::none));
    CHECK(status != Status::ok);
    return {status, form.error(), keeper.parts};
}

/// The same in pieces of every size, at least of each up to 64.
Outcome split(std::string_view body, std::string_view boundary = "b") {
    const Outcome whole = split_in(body, std::max<std::size_t>(body.size(), 1), boundary);
    const std::size_t most = std::min<std::size_t>(body.size(), 64);
    for (std::size_t size = 1; size <= most; ++size) {
        const Outcome other = split_in(body, size, boundary);
        INFO("in pieces of " << size);
        CHECK(whole.status == other.status);
        CHECK(whole.error == other.error);
        CHECK(whole.parts == other.parts);
    }
    return whole;
}

/// A form of one part with these headers: what the part says, or the error.
Outcome split_headers(const std::string& headers) {
    return split("--b\r\n" + headers + "\r\ndata\r\n--b--\r\n");
}
Part part_of(const std::string& disposition) {
    const Outcome outcome = split_headers("Content-Disposition: " + disposition + "\r\n");
    CHECK(outcome.error == Error::none);
    REQUIRE(outcome.parts.size() == 1);
    CHECK(outcome.parts[0].data == "data");
    return outcome.parts[0].part;
}
Error error_of(const std::string& disposition) {
    const Outcome outcome = split_headers("Content-Disposition: " + disposition + "\r\n");
    CHECK(outcome.parts.empty());
    return outcome.error;
}

const std::string x = "Content-Disposition: form-data; name=x\r\n\r\n";

/// The data of a form whose one part holds this.
void check_is_data(const std::string& data, std::string_view boundary = "b") {
    const std::string line = "--" + std::string(boundary);
    const Outcome outcome = split(line + "\r\n" + x + data + "\r\n" + line + "--\r\n", boundary);
    INFO("data " << data);
    CHECK(outcome.status == Status::done);
    CHECK(outcome.parts == std::vector<Seen>{{{"x", {}, {}}, data, true}});
}

} // namespace

TEST_CASE("multipart: a form as a browser sends it is split into its parts") {
    const std::string line = "------WebKitFormBoundaryabc";
    const Outcome outcome = split(line +
                                      "\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\n"
                                      "words\r\n" +
                                      line +
                                      "\r\nContent-Disposition: form-data; name=\"f\"; "
                                      "filename=\"a b.bin\"\r\nContent-Type: image/png\r\n\r\n" +
                                      "\0\r\n\xff\r\n"s + "\r\n" + line +
                                      "\r\nContent-Disposition: form-data; name=\"g\"; "
                                      "filename=\"\"\r\n"
                                      "Content-Type: application/octet-stream\r\n\r\n\r\n" +
                                      line + "--\r\n",
                                  "----WebKitFormBoundaryabc");
    CHECK(outcome.status == Status::done);
    CHECK(outcome.parts ==
          std::vector<Seen>{{{"text", {}, {}}, "words", true},
                            {{"f", "a b.bin", "image/png"}, "\0\r\n\xff\r\n"s, true},
                            {{"g", "", "application/octet-stream"}, "", true}});
}

TEST_CASE("multipart: preamble and epilogue are skipped, and blanks behind a boundary") {
    const std::vector<Seen> one{{{"x", {}, {}}, "data", true}};
    for (const std::string preamble : {"", "\r\n", "words\r\n", "--bb\r\n", "--bx\r\n",
                                       "--b-\r\n\r\n", "x--b\r\n\r\n", "\r--b\n\r\n"}) {
        INFO("preamble " << preamble);
        CHECK(split(preamble + "--b\r\n" + x + "data\r\n--b--\r\n").parts == one);
    }
    for (const std::string& epilogue :
         {""s, "\r\n"s, " \t\r\n"s, "\r\nwords"s, "\r\n--b\r\n"s, "\r\n\r\n--b\r\n" + x}) {
        INFO("epilogue " << epilogue);
        const Outcome outcome = split("--b \t\r\n" + x + "data\r\n--b--" + epilogue);
        CHECK(outcome.status == Status::done);
        CHECK(outcome.parts == one);
    }
}

TEST_CASE("multipart: a form may be empty, and so may a part, with or without a body") {
    for (const std::string form : {"--b--", "--b--\r\n", "\r\n--b-- \r\n", "preamble\r\n--b--"}) {
        const Outcome outcome = split(form);
        CHECK(outcome.status == Status::done);
        CHECK(outcome.parts.empty());
    }
    const std::vector<Seen> two{{{"x", {}, {}}, "", true}, {{"x", {}, {}}, "", true}};
    CHECK(split("--b\r\n" + x + "\r\n--b\r\n" + x + "\r\n--b--").parts == two);
    CHECK(split("--b\r\n" + x + "--b\r\n" + x + "--b--").parts == two);
}

TEST_CASE("multipart: what only begins like a boundary is data, to the last byte") {
    for (const std::string data : {"\r",
                                   "\n",
                                   "\r\n",
                                   "\r\n\r\n",
                                   "\r\n-",
                                   "\r\n--",
                                   "\r\n--B\r\n",
                                   "\n--b\r\n",
                                   "\r--b\r\n",
                                   "\r\n--bb\r\n",
                                   "\r\n--b-\r\n",
                                   "\r\n--b-x",
                                   "\r\n--b--x\r\n",
                                   "\r\n--b---\r\n",
                                   "\r\n--b\rx",
                                   "\r\n--b\n",
                                   "\r\n--b \t-\r\n",
                                   "\r\n--b--\r",
                                   "\r\n--b--\n",
                                   "\r\n--b- -\r\n",
                                   "\r\r\n--b\r\r\r\n-",
                                   "\r\n--b\r\r\n--",
                                   "\r\n--b  \r\r\n--b-\r\n",
                                   "x\r\n\r\n--bx\r\n",
                                   "--bx",
                                   "-",
                                   "--",
                                   "--bb",
                                   "--b-",
                                   "b--b\r\n",
                                   "\r\r\r\r\n\n",
                                   "\r\n--\r\n--\r\n--bc"}) {
        check_is_data(data);
    }
    check_is_data("\r\n--\r\n--- -\r\n----x\r\n----", "-");
    check_is_data("\r\n--a:b:c: d\r\n--a", "a:b");
    check_is_data("\r\n--" + std::string(70, 'z') + "z\r\n", std::string(70, 'z'));
    check_is_data("\r\n--" + std::string(69, 'z') + "\r\n", std::string(70, 'z'));
    check_is_data("\0\0\r\n--b\0\r\n"s);
}

TEST_CASE("multipart: another form arrives whole as a file, though its boundary begins like ours") {
    const std::string inner = "--b2\r\n" + x + "inner\r\n--b2--\r\n";
    check_is_data(inner);
    check_is_data("\r\n" + inner + inner);
    check_is_data("--b\r\n" + x + "inner\r\n--b--\r\n", "b2");
}

TEST_CASE("multipart: data is handed on at once, but for what may be a boundary") {
    Multipart form("boundary");
    Keeper keeper;
    form.feed("--boundary\r\n" + x, keeper);
    REQUIRE(keeper.parts.size() == 1);
    std::string fed;
    const std::string data = "plain \r\n--boundary \r-\r\n\r\n--bound!\r\r\n";
    for (const char c : data) {
        fed += c;
        form.feed({&c, 1}, keeper);
        const std::string& told = keeper.parts[0].data;
        CHECK(fed.starts_with(told));
        const std::string_view held = std::string_view(fed).substr(told.size());
        CHECK((std::string_view("\r\n--boundary").starts_with(held) ||
               held.starts_with("\r\n--boundary")));
    }
    CHECK(keeper.parts[0].data == data.substr(0, data.size() - 2));
    // A large piece without a boundary is one view, of what was fed.
    Keeper large;
    Multipart other("boundary");
    other.feed("--boundary\r\n" + x, large);
    other.feed(std::string(1'000'000, '\r') + "\n--boundar", large);
    CHECK(large.pieces == 1);
    CHECK(large.parts[0].data.size() == 999'999);
}

TEST_CASE("multipart: bytes may be fed as such") {
    const std::string body = "--b\r\n" + x + "data\r\n--b--\r\n";
    Multipart form("b");
    Keeper keeper;
    CHECK(form.feed(std::as_bytes(std::span(body)).first(10), keeper) == Status::ok);
    CHECK(form.feed(std::as_bytes(std::span(body)).subspan(10), keeper) == Status::done);
    CHECK(keeper.parts.at(0).data == "data");
    CHECK(form.feed("--b\r\n" + x, keeper) == Status::done);
    CHECK(form.finish(keeper) == Status::done);
    CHECK(keeper.parts.size() == 1);
}

TEST_CASE("multipart: a form that ends before its last boundary is truncated, wherever it ends") {
    const std::string body = "--b\r\n" + x + "data\r\n--b\r\n" + x + "more\r\n--b--";
    for (std::size_t size = 0; size < body.size(); ++size) {
        INFO("cut at " << size);
        const Outcome outcome = split(body.substr(0, size));
        CHECK(outcome.error == Error::truncated);
        CHECK(outcome.parts.size() <= 2);
    }
    CHECK(split(body).status == Status::done);
    CHECK(split(body + "\r").error == Error::truncated);
    CHECK(split("no boundary at all").error == Error::truncated);
    CHECK(split("--c\r\n" + x + "data\r\n--c--\r\n").error == Error::truncated);
}

TEST_CASE("multipart: lines end with CRLF, and a header has a name and a colon") {
    const std::string good = "Content-Disposition: form-data; name=x\r\n";
    CHECK(split_headers(good + "X: y\r\n").error == Error::none);
    CHECK(split_headers(good + "!#$%&'*+.^`|~: y\r\n").error == Error::none);
    CHECK(split_headers(good + "X:\r\n").error == Error::none);
    for (const std::string& bad : {"X: y\n"s, "X: y\rz\r\n"s, "X: y\r\r\n"s, "X\r\n"s, ": y\r\n"s,
                                   "X : y\r\n"s, "X\t: y\r\n"s, "X: \0\r\n"s, "\xc3\xa4: y\r\n"s,
                                   "X y: z\r\n"s, "\n"s, "--b\r\n"s, "--b--\r\n"s}) {
        INFO("header " << bad);
        const Outcome outcome = split_headers(good + bad);
        CHECK(outcome.error == Error::bad_header);
        CHECK(outcome.parts.empty());
    }
    CHECK(split_headers(" folded: nothing\r\n" + good).error == Error::bad_header);
    CHECK(split("--b\r\n--b\r\n" + x + "\r\n--b--").error == Error::bad_header);
    // A boundary with a colon is still no header.
    CHECK(split("--a:b\r\n" + good + "--a:b--\r\n\r\n\r\n--a:b--", "a:b").error ==
          Error::bad_header);
    CHECK(split("--a:b\r\n" + good + "--a:b-: c\r\n\r\n\r\n--a:b--", "a:b").error == Error::none);
}

TEST_CASE("multipart: a header may be folded, and its name is in any case") {
    const Outcome outcome = split_headers("content-TYPE:\r\n\ttext/plain;\r\n  charset=x \r\n"
                                          "CONTENT-disposition:form-data;\r\n"
                                          " name=\"a\r\n b\"\r\n");
    REQUIRE(outcome.parts.size() == 1);
    CHECK(outcome.parts[0].part.name == "a b");
    CHECK(outcome.parts[0].part.content_type == "text/plain;  charset=x");
}

TEST_CASE("multipart: headers are bounded, by bytes and by number, in the same place always") {
    const std::string good = "Content-Disposition: form-data; name=x\r\n";
    const std::size_t room = Multipart::longest_headers - good.size() - "X: \r\n"s.size() - 2;
    CHECK(split_headers(good + "X: " + std::string(room, 'y') + "\r\n").error == Error::none);
    CHECK(split_headers(good + "X: " + std::string(room + 1, 'y') + "\r\n").error ==
          Error::header_too_long);
    CHECK(split_headers(good + "X: " + std::string(100'000, 'y')).error == Error::header_too_long);
    CHECK(split_headers(good + "\n" + std::string(100'000, 'y')).error == Error::bad_header);
    std::string many = good;
    for (std::size_t n = 1; n < Multipart::most_headers; ++n) {
        many += "X: y\r\n";
    }
    CHECK(split_headers(many).error == Error::none);
    CHECK(split_headers(many + "X: y\r\n").error == Error::header_too_long);
    // Each part has the whole of it.
    std::string body;
    for (int n = 0; n < 3; ++n) {
        body += "--b\r\n" + many + "\r\n\r\n";
        body += "--b\r\n" + good + "X: " + std::string(room, 'y') + "\r\n\r\n\r\n";
    }
    CHECK(split_in(body + "--b--", 1000, "b").parts.size() == 6);
}

TEST_CASE("multipart: parts are bounded by number") {
    std::string body;
    for (std::size_t n = 0; n < Multipart::most_parts; ++n) {
        body += "--b\r\n" + x + "\r\n";
    }
    const Outcome most = split_in(body + "--b--", 1000, "b");
    CHECK(most.status == Status::done);
    CHECK(most.parts.size() == Multipart::most_parts);
    const Outcome more = split_in(body + "--b\r\n" + x + "\r\n--b--", 1000, "b");
    CHECK(more.error == Error::too_many_parts);
    CHECK(more.parts == most.parts);
}

TEST_CASE("multipart: blanks behind a boundary are bounded, so that nothing must be kept") {
    const std::string blanks(Multipart::longest_padding, ' ');
    CHECK(split("--b" + blanks + "\r\n" + x + "data\r\n--b--").status == Status::done);
    CHECK(split("--b " + blanks + "\r\n" + x).error == Error::bad_boundary_line);
    const Outcome outcome = split("--b\r\n" + x + "data\r\n--b " + blanks + "\r\n" + x);
    CHECK(outcome.error == Error::bad_boundary_line);
    CHECK(outcome.parts == std::vector<Seen>{{{"x", {}, {}}, "data", false}});
    check_is_data("\r\n--b" + blanks + "x\r\n");
}

TEST_CASE("multipart: a part needs one Content-Disposition, of form-data, with a name") {
    CHECK(split_headers("X: y\r\n").error == Error::no_disposition);
    CHECK(split_headers("").error == Error::no_disposition);
    CHECK(split_headers("Content-Disposition: form-data; name=x\r\n"
                        "Content-Disposition: form-data; name=x\r\n")
              .error == Error::bad_disposition);
    for (const std::string bad : {"attachment; name=x",
                                  "",
                                  "; name=x",
                                  "form-data",
                                  "form-data;",
                                  "form-data; filename=x",
                                  "form-data name=x",
                                  "form-data; name",
                                  "form-data; name=",
                                  "form-data; name =x",
                                  "form-data; name= x",
                                  "form-data; name=\"x",
                                  "form-data; name=\"x\"y",
                                  "form-data; =x",
                                  "form-data; name=x y",
                                  "form-data; name=x; name=y",
                                  "form-data; name=x; NAME=x",
                                  "form-data; name=x\"y\"",
                                  "form-data; name=x; filename=a; filename=b",
                                  "form-data; name=x; filename*=a",
                                  "form-data; name=x; filename*=UTF-8''%4",
                                  "form-data; name=x; filename*=UTF-8''%4g",
                                  "form-data; name=x; filename*=latin-1''a",
                                  "form-data; name=x; filename*=UTF-8'a",
                                  "form-data; name=x filename=y"}) {
        INFO("disposition " << bad);
        CHECK(error_of(bad) == Error::bad_disposition);
    }
}

TEST_CASE("multipart: names are read as browsers and curl write them") {
    CHECK(part_of("form-data; name=x").name == "x");
    CHECK(part_of("FORM-DATA;NAME=x").name == "x");
    CHECK(part_of("form-data;;\t; name=x ; ").name == "x");
    CHECK(part_of("form-data; name=\"\"").name.empty());
    CHECK_FALSE(part_of("form-data; name=x").filename);
    CHECK(part_of("form-data; filename=\"a;b=c\"; name=\"x;y\"").filename == "a;b=c");
    CHECK(part_of("form-data; filename=\"a;b=c\"; name=\"x;y\"").name == "x;y");
    CHECK(part_of("form-data; name=x; filename=\"\"").filename == "");
    // Browsers encode a quote, and nothing else; it stays as it is.
    CHECK(part_of("form-data; name=x; filename=\"a%22b%0D%41\"").filename == "a%22b%0D%41");
    CHECK(part_of("form-data; name=x; filename=\"C:\\dir\\new.txt\"").filename ==
          "C:\\dir\\new.txt");
    CHECK(part_of("form-data; name=x; filename=\"\xe6\x96\x87\xff.txt\"").filename ==
          "\xe6\x96\x87\xff.txt");
    // curl of old, and many a library, escape.
    CHECK(part_of("form-data; name=x; filename=\"a\\\"b\\\\c\"").filename == "a\"b\\c");
    CHECK(part_of("form-data; filename=\"\\\\\"; name=x").filename == "\\");
    CHECK(part_of("form-data; filename=\"\\\"\\\"\"; name=\"\\\"\"").filename == "\"\"");
    // A browser's file that ends with a backslash.
    CHECK(part_of("form-data; name=\"x\"; filename=\"dir\\\"").filename == "dir\\");
}

TEST_CASE("multipart: an extended file name is decoded, and goes before the plain one") {
    CHECK(part_of("form-data; name=x; filename*=UTF-8''%e6%96%87%20a.txt").filename ==
          "\xe6\x96\x87 a.txt");
    CHECK(part_of("form-data; name=x; filename*=utf-8'de-AT'a; filename=b").filename == "a");
    CHECK(part_of("form-data; filename=b; filename*=UTF-8''%2e%2E%2f%00; name=x").filename ==
          "../\0"s);
    CHECK(part_of("form-data; name=x; filename*=\"UTF-8''a%22\"").filename == "a\"");
    CHECK(part_of("form-data; name=x; filename*=UTF-8''").filename == "");
}

TEST_CASE("multipart: after an error nothing more is told, and the error stays") {
    Multipart form("b");
    Keeper keeper;
    CHECK(form.feed("--b\r\nbad\r\n--b\r\n" + x + "data", keeper) == Status::error);
    CHECK(form.feed("\r\n--b\r\n" + x + "data\r\n--b--\r\n", keeper) == Status::error);
    CHECK(form.finish(keeper) == Status::error);
    CHECK(form.error() == Error::bad_header);
    CHECK(keeper.parts.empty());
}

TEST_CASE("multipart: a Content-Type names its boundary, or is refused") {
    CHECK(boundary_of("multipart/form-data; boundary=b") == "b");
    CHECK(boundary_of("Multipart/Form-Data;charset=x; BOUNDARY=\"a b\"") == "a b");
    CHECK(boundary_of("multipart/form-data ; boundary=a/b:c=d;") == "a/b:c=d");
    CHECK(boundary_of("multipart/form-data; x=\"; boundary=no\"; boundary=yes") == "yes");
    CHECK(boundary_of("multipart/form-data; boundary=" + std::string(70, 'b')) ==
          std::string(70, 'b'));
    for (const std::string bad :
         {"", "text/plain; boundary=b", "multipart/mixed; boundary=b", "multipart/form-data",
          "multipart/form-data; boundary", "multipart/form-data; boundary=",
          "multipart/form-data; boundary=\"\"", "multipart/form-data; boundary=\"b",
          "multipart/form-data; boundary=\"b \"", "multipart/form-data; boundary=a b",
          "multipart/form-data; boundary=a; boundary=b", "multipart/form-data; xboundary=b",
          "multipart/form-data; boundary=\"a\\\\b\"", "multipart/form-data; boundary=\"\r\n\"",
          "multipart/form-data, boundary=b", "multipart/form-databoundary=b",
          "multipart/form-data; boundary=\xc3\xa4", "multipart/form-data; boundary =b"}) {
        INFO("type " << bad);
        CHECK_FALSE(boundary_of(bad));
    }
    CHECK_FALSE(boundary_of("multipart/form-data; boundary=" + std::string(71, 'b')));
}
