// SPDX-License-Identifier: Apache-2.0
//
// http_upload: what one connection is in the middle of.
//
// The parser and the splitter tell a Connection what comes: it gathers what there is to write, or
// notes why the request is refused. It sends nothing and knows no loop: that is for the service,
// which looks at it after each piece. A request is answered when it is complete and nothing of it
// is at the desk; until then what was read beyond it waits, at most one read buffer.
#pragma once

#include "errand.hpp"
#include "multipart.hpp"
#include "request.hpp"
#include "route.hpp"

#include <reactor/time.hpp>

#include <memory>

namespace http_upload {

/// One a transport. Does not move: the parser keeps its address.
template <class System>
class BasicConnection final : public RequestSink {
  public:
    /// `limit`: bytes of one body.
    BasicConnection(std::uint64_t limit, reactor::Timestamp now)
        : progress_at(now), limit_(limit) {}

    /// Whether a request has begun that is not answered yet.
    [[nodiscard]] bool is_busy() const { return parser.is_within() || is_complete; }
    /// Whether no more should be read: what was read last has nowhere to go.
    [[nodiscard]] bool is_stuffed(bool desk_is_crowded) const {
        return !is_dropped &&
               (!waiting.empty() || (at_desk && (writing.has_steps() || desk_is_crowded)));
    }
    /// The first reason counts.
    void refuse(int status) { refused = refused == 0 ? status : refused; }
    /// The request has come to its end.
    void complete() {
        is_complete = true;
        if (refused == 0 && task == Task::form && form->finish(*this) != Multipart::Status::done) {
            refuse(400);
        }
        if (refused == 0 && task == Task::put) {
            writing.finish();
        }
    }
    /// What waits to be written or is being written, in bytes.
    [[nodiscard]] std::size_t unwritten() const { return writing.size() + bytes_at_desk; }

    // What the parser calls.
    void handle_head(Request&& head) override {
        request = std::move(head);
        Route route = route_of(request, limit_);
        task = route.task;
        refused = route.status;
        name = std::move(route.name);
        body_size = 0;
        stored.clear();
        form.reset();
        wants_continue = refused == 0 && request.header("expect") != nullptr &&
                         request.has_body && request.is_http_1_1;
        if (refused == 0 && task == Task::form) {
            form.emplace(route.boundary);
        } else if (refused == 0 && task == Task::put) {
            writing.begin(name);
        }
    }
    void handle_body(std::string_view bytes) override {
        body_size += bytes.size();
        if (body_size > limit_) {
            refuse(413);
        }
        if (refused != 0) {
            return;
        }
        if (task == Task::put) {
            writing.write(bytes);
        } else if (task == Task::form && form->feed(bytes, *this) == Multipart::Status::error) {
            refuse(400);
        }
    }

    // What the splitter calls.
    void part_begin(const Part& part) {
        is_file = false;
        if (refused != 0 || !part.filename || part.filename->empty()) {
            return; // a field that is no file, or a file input that was left empty
        }
        if (auto safe = safe_name(*part.filename)) {
            writing.begin(std::move(*safe));
            is_file = true;
        } else {
            refuse(400);
        }
    }
    void part_data(std::string_view bytes) {
        if (is_file && refused == 0) {
            writing.write(bytes);
        }
    }
    void part_end() {
        if (is_file && refused == 0) {
            writing.finish();
        }
    }

    RequestParser parser;
    Request request;
    Task task = Task::none;
    int refused = 0;             ///< status of a request that is not served
    bool wants_continue = false; ///< before it sends the body
    bool is_complete = false;    ///< read, and not answered
    std::uint64_t body_size = 0;
    std::string name; ///< of the file to put or get
    std::optional<Multipart> form;
    bool is_file = false; ///< the part that the form is in
    std::vector<StoredFile> stored;

    BasicWriting<System> writing;                ///< gathered for the desk
    std::optional<BasicReading<System>> reading; ///< has to wait until the peer has read
    bool at_desk = false;                        ///< an errand of it is
    std::size_t bytes_at_desk = 0;
    bool is_sending = false; ///< the head of a file has been sent, and not all of its bytes
    std::string waiting;     ///< read behind a complete request

    bool is_paused = false;
    bool is_blocked = false;
    bool is_dropped = false; ///< answered for the last time: what still comes is not looked at
    bool peer_is_done = false;
    reactor::Timestamp progress_at;
    std::uint64_t received = 0;
    std::uint64_t received_then = 0;

  private:
    std::uint64_t limit_;
};

} // namespace http_upload
