// SPDX-License-Identifier: Apache-2.0
//
// http_upload: the service. One Connection a transport: its parser, the request that it is in, and
// what is done with the body as it comes (a part of a form into a file, a raw file, nothing). One
// request at a time: while an answer is streamed, the connection is paused and what was read beyond
// the request waits, at most one read buffer.
//
// Who is too slow is found by a look at all connections once a second: within `idle` a request must
// get on by a kilobyte or come to its end, else 408; who asks for nothing is dismissed; who does
// not take his answer is ended by the stream's own deadline. After a refusal what still comes is
// read and dropped until the peer's end, as closing at once would reset the connection and take the
// answer along (RFC 9112, 9.6).
#pragma once

#include "multipart.hpp"
#include "reply.hpp"
#include "request.hpp"
#include "storage.hpp"

#include <reactor/net/tcp.hpp>
#include <reactor/reactor.hpp>
#include <reactor/resource_map.hpp>

#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace http_upload {

using namespace reactor;

struct Settings {
    std::uint64_t limit = std::uint64_t{10} << 30; ///< bytes of one body
    Duration idle = std::chrono::seconds{30};
    bool log = false;
};

/// What has happened so far, for /metrics.
struct Counters {
    std::map<int, std::uint64_t> answers;
    std::uint64_t connections = 0;
    std::uint64_t files_stored = 0;
    std::uint64_t bytes_stored = 0;
    std::uint64_t bytes_served = 0;
    std::uint64_t connections_lost = 0;
};

class UploadService : public Service<TcpListener, TcpStream> {
  public:
    UploadService(Store store, Settings settings)
        : store_(std::move(store)), settings_(std::move(settings)) {}

    void handle_start(Actions& actions) { look_ = actions.set_interval(std::chrono::seconds{1}); }

    void handle_listener_event(ResourceId, TcpListener::Event accepted, Actions& actions) {
        if (const ResourceId id = actions.register_transport(std::move(accepted.stream))) {
            connections_.emplace(id, std::make_unique<Connection>(actions.now()));
            ++counters_.connections;
        }
    }

    void handle_transport_event(ResourceId id, TcpStream::Event event, Actions& actions) {
        Connection& connection = **connections_.find(id);
        if (const auto* const bytes = event.data()) {
            connection.received += bytes->size();
            take(id, connection, text_of(*bytes), actions);
        } else if (event.eof()) {
            connection.peer_is_done = true;
            if (connection.download == nullptr) {
                actions.close_write(id);
            }
        } else if (event.blocked()) {
            connection.is_blocked = true;
        } else if (event.drained()) {
            connection.is_blocked = false;
            pump_later(actions);
        }
    }

    void handle_timer(TimerId timer, Actions& actions) {
        if (timer == look_) {
            dismiss_the_slow(actions);
        } else if (timer == pump_) {
            pump_ = {};
            pump(actions);
        }
    }

    void handle_drain(Timestamp, Actions& actions) {
        draining_ = true;
        for (const auto& [id, connection] : connections_) {
            if (!connection->is_busy()) {
                actions.close_write(id);
            }
        }
    }

    void handle_error(Error error, Actions& actions) {
        if (error.is_end()) {
            counters_.connections_lost += connections_.contains(error.id()) ? 1U : 0U;
            forget(error.id());
        } else if (error.kind() == ErrorKind::send_returned) {
            actions.unregister_transport(error.id()); // no answer with a hole in it
        } else if (error.kind() == ErrorKind::trouble) {
            std::fprintf(stderr, "http_upload: cannot accept: %s\n",
                         error.code().message().c_str());
        }
    }
    void handover_transport(ResourceId id, TcpStream, Actions&) { forget(id); }

    [[nodiscard]] const Counters& counters() const noexcept { return counters_; }

  private:
    /// What is done with a request.
    enum class Task { none, page, health, metrics, form, put, get };

    struct StoredFile {
        std::string name;
        std::uint64_t size;
        std::string sha256;
    };
    struct Download {
        StoredForReading file;
        std::uint64_t left;
    };

    struct Connection {
        explicit Connection(Timestamp now) : progress_at(now) {}

        /// Whether a request has begun that is not answered yet.
        [[nodiscard]] bool is_busy() const { return parser.is_within() || download != nullptr; }

        RequestParser parser;
        Request request;
        Task task = Task::none;
        std::uint64_t body_size = 0;
        int refused = 0; ///< status of a request that is not served
        std::optional<Multipart> form;
        std::optional<Upload> upload;
        std::string part_name;
        std::vector<StoredFile> stored;
        std::unique_ptr<Download> download;
        std::string waiting;   ///< read while an answer was under way
        bool is_blocked = false;
        bool is_dropped = false; ///< answered for the last time: what still comes is not looked at
        bool peer_is_done = false;
        Timestamp progress_at;
        std::uint64_t received = 0;
        std::uint64_t received_then = 0;
    };

    /// Takes what the parser and the splitter tell to the connection that it is about.
    class Exchange final : public RequestSink {
      public:
        Exchange(UploadService& service, ResourceId id, Connection& connection, Actions& actions)
            : service_(service), id_(id), connection_(connection), actions_(actions) {}

        void handle_head(Request&& request) override {
            connection_.request = std::move(request);
            service_.begin(id_, connection_, actions_);
        }
        void handle_body(std::string_view bytes) override {
            connection_.body_size += bytes.size();
            if (connection_.body_size > service_.settings_.limit) {
                refuse(413);
            }
            if (connection_.refused != 0) {
                return;
            }
            if (connection_.task == Task::put) {
                part_data(bytes);
            } else if (connection_.task == Task::form) {
                if (connection_.form->feed(bytes, *this) == Multipart::Status::error) {
                    refuse(400);
                }
            }
        }

        // What the splitter calls.
        void part_begin(const Part& part) {
            if (connection_.refused != 0 || !part.filename || part.filename->empty()) {
                return; // a field that is no file, or a file input that was left empty
            }
            if (const auto name = safe_name(*part.filename)) {
                connection_.part_name = *name;
                begin_upload();
            } else {
                refuse(400);
            }
        }
        void part_data(std::string_view bytes) {
            if (connection_.upload && connection_.refused == 0) {
                check(connection_.upload->write(bytes));
            }
        }
        void part_end() {
            if (connection_.upload && connection_.refused == 0) {
                finish_upload();
            }
        }

        void begin_upload() {
            std::error_code error;
            connection_.upload.emplace(service_.store_.begin(error));
            check(error);
        }
        void finish_upload() {
            if (check(connection_.upload->finish(connection_.part_name))) {
                const Upload& upload = *connection_.upload;
                ++service_.counters_.files_stored;
                service_.counters_.bytes_stored += upload.size();
                connection_.stored.push_back(
                    {connection_.part_name, upload.size(), upload.sha256()});
                connection_.upload.reset();
            }
        }
        void refuse(int status) {
            if (connection_.refused == 0) {
                connection_.refused = status;
                connection_.upload.reset();
            }
        }

      private:
        /// A file that cannot be written is the server's fault, and is said where it is looked for.
        bool check(std::error_code error) {
            if (error) {
                const bool full = error == std::errc::no_space_on_device ||
                                  error.value() == EDQUOT || error == std::errc::file_too_large;
                std::fprintf(stderr, "http_upload: cannot store %s: %s\n",
                             connection_.part_name.c_str(), error.message().c_str());
                refuse(full ? 507 : 500);
            }
            return !error;
        }

        UploadService& service_;
        ResourceId id_;
        Connection& connection_;
        Actions& actions_;
    };

    void take(ResourceId id, Connection& connection, std::string_view bytes, Actions& actions) {
        while (!bytes.empty() && !connection.is_dropped) {
            if (connection.download != nullptr) {
                connection.waiting.assign(bytes);
                actions.pause(id);
                return;
            }
            Exchange exchange(*this, id, connection, actions);
            const RequestParser::Fed fed = connection.parser.feed(bytes, exchange);
            if (fed.status != 0) {
                connection.request.keep_alive = false;
                exchange.refuse(fed.status);
            }
            if (connection.refused != 0 && (fed.status != 0 || !fed.at_end)) {
                return dismiss(id, connection, connection.refused, actions);
            }
            bytes.remove_prefix(fed.taken);
            if (fed.at_end) {
                answer(id, connection, exchange, actions);
            }
        }
    }

    /// A head is there: what is to be done with the request, and whether its body is wanted.
    void begin(ResourceId id, Connection& connection, Actions& actions) {
        const Request& request = connection.request;
        connection.task = Task::none;
        connection.refused = 0;
        connection.body_size = 0;
        connection.stored.clear();
        connection.form.reset();
        connection.upload.reset();
        Exchange exchange(*this, id, connection, actions);
        if (const int status = choose(connection, exchange)) {
            return exchange.refuse(status);
        }
        if (request.length && *request.length > settings_.limit) {
            return exchange.refuse(413);
        }
        if (const std::string* const expect = request.header("expect")) {
            if (!same_word(*expect, "100-continue")) {
                return exchange.refuse(417);
            }
            if (request.has_body && request.is_http_1_1) {
                actions.send(id, "HTTP/1.1 100 Continue\r\n\r\n");
            }
        }
    }
    /// Zero, or the status of what cannot be served.
    int choose(Connection& connection, Exchange& exchange) {
        const Request& request = connection.request;
        const std::optional<std::string> path = decoded_path(request.target);
        if (!path || path->empty() || path->front() != '/') {
            return 400;
        }
        const bool gets = request.method == "GET" || request.method == "HEAD";
        if (!gets && request.method != "POST" && request.method != "PUT") {
            return 501;
        }
        constexpr std::string_view files = "/files/";
        if (*path == "/" || *path == "/healthz" || *path == "/metrics") {
            connection.task = *path == "/"          ? Task::page
                              : *path == "/healthz" ? Task::health
                                                    : Task::metrics;
            return gets ? 0 : 405;
        }
        if (*path == "/upload") {
            if (request.method != "POST") {
                return 405;
            }
            const std::string* const type = request.header("content-type");
            const auto boundary = type != nullptr ? boundary_of(*type) : std::nullopt;
            if (!boundary) {
                return 415;
            }
            connection.task = Task::form;
            connection.form.emplace(*boundary);
            return 0;
        }
        if (path->starts_with(files)) {
            const std::string_view name = std::string_view(*path).substr(files.size());
            if (request.method == "POST") {
                return 405;
            }
            const auto safe = safe_name(name);
            if (!safe || *safe != name) {
                return 400; // a name that leads elsewhere
            }
            connection.part_name = *safe;
            connection.task = gets ? Task::get : Task::put;
            if (!gets) {
                exchange.begin_upload();
            }
            return connection.refused;
        }
        return 404;
    }

    /// A request is complete: its answer.
    void answer(ResourceId id, Connection& connection, Exchange& exchange, Actions& actions) {
        if (connection.refused == 0 && connection.task == Task::form &&
            connection.form->finish(exchange) != Multipart::Status::done) {
            exchange.refuse(400);
        }
        if (connection.refused == 0 && connection.task == Task::put) {
            exchange.finish_upload();
        }
        if (connection.refused != 0) {
            return reply_error(id, connection, connection.refused, actions);
        }
        switch (connection.task) {
        case Task::page:
            return reply(id, connection, 200, "text/html; charset=utf-8", form_page, actions);
        case Task::metrics:
            return reply(id, connection, 200, "text/plain; version=0.0.4", metrics(), actions);
        case Task::form:
            return reply(id, connection, 200, "application/json", listing(connection), actions);
        case Task::put:
            return reply(id, connection, 201, "application/json", listing(connection), actions);
        case Task::get:
            return begin_download(id, connection, actions);
        case Task::health:
        case Task::none:
            return reply(id, connection, 200, "text/plain; charset=utf-8", "ok\n", actions);
        }
    }

    // -- answers ----------------------------------------------------------------------------------

    void send_head(ResourceId id, Connection& connection, const ReplyHead& head, Actions& actions) {
        ++counters_.answers[head.status];
        if (settings_.log) {
            std::printf("%s %s %d %llu\n", connection.request.method.c_str(),
                        connection.request.target.c_str(), head.status,
                        static_cast<unsigned long long>(connection.body_size));
        }
        actions.send(id, to_text(head, date_.now()));
        connection.progress_at = actions.now();
        connection.received_then = connection.received;
    }
    [[nodiscard]] bool closes_after(const Connection& connection) const {
        return draining_ || !connection.request.keep_alive;
    }
    void reply(ResourceId id, Connection& connection, int status, std::string_view type,
               std::string_view body, Actions& actions, std::string_view more = {}) {
        const bool closes = closes_after(connection);
        send_head(id, connection, {status, type, body.size(), closes, more}, actions);
        if (connection.request.method != "HEAD") {
            actions.send(id, body);
        }
        if (closes) {
            leave(id, connection, actions);
        }
    }
    void reply_error(ResourceId id, Connection& connection, int status, Actions& actions) {
        const std::string body = std::to_string(status) + " " + std::string(reason_of(status)) +
                                 "\n";
        const bool post = connection.request.target.starts_with("/upload");
        reply(id, connection, status, "text/plain; charset=utf-8", body, actions,
              status != 405 ? ""
              : post        ? "Allow: POST\r\n"
                            : "Allow: GET, HEAD\r\n");
    }
    /// Answers before the request is complete: it is the last answer of this connection.
    void dismiss(ResourceId id, Connection& connection, int status, Actions& actions) {
        connection.request.keep_alive = false;
        connection.upload.reset();
        reply_error(id, connection, status, actions);
    }
    /// Nothing more will be answered; what still comes is read and dropped.
    void leave(ResourceId id, Connection& connection, Actions& actions) {
        connection.is_dropped = true;
        actions.close_write(id);
        actions.resume(id); // the peer's end is to be heard
    }
    [[nodiscard]] static std::string listing(const Connection& connection) {
        std::string text = "[";
        for (const StoredFile& file : connection.stored) {
            text += text.size() == 1 ? "" : ",";
            text += "{\"name\":" + json(file.name) + ",\"size\":" + std::to_string(file.size) +
                    ",\"sha256\":\"" + file.sha256 + "\"}";
        }
        return text += "]\n";
    }
    [[nodiscard]] std::string metrics() const {
        std::string text;
        const auto add = [&](std::string_view name, std::string_view type, std::string_view help,
                             std::uint64_t value) {
            text += "# HELP http_upload_" + std::string(name) + " " + std::string(help) +
                    "\n# TYPE http_upload_" + std::string(name) + " " + std::string(type) +
                    "\nhttp_upload_" + std::string(name) + " " + std::to_string(value) + "\n";
        };
        add("connections", "gauge", "Connections that are open.", connections_.size());
        add("connections_total", "counter", "Connections accepted.", counters_.connections);
        add("connections_lost_total", "counter", "Connections that ended by an error or in time.",
            counters_.connections_lost);
        add("files_stored_total", "counter", "Files stored.", counters_.files_stored);
        add("stored_bytes_total", "counter", "Bytes of them.", counters_.bytes_stored);
        add("served_bytes_total", "counter", "Bytes of files sent.", counters_.bytes_served);
        text += "# HELP http_upload_answers_total Answers by status.\n"
                "# TYPE http_upload_answers_total counter\n";
        for (const auto& [status, count] : counters_.answers) {
            text += "http_upload_answers_total{code=\"" + std::to_string(status) + "\"} " +
                    std::to_string(count) + "\n";
        }
        return text;
    }

    // -- downloads --------------------------------------------------------------------------------

    void begin_download(ResourceId id, Connection& connection, Actions& actions) {
        std::error_code error;
        StoredForReading file = store_.open(connection.part_name, error);
        if (error) {
            return reply_error(id, connection,
                               error == std::errc::no_such_file_or_directory ? 404 : 400, actions);
        }
        const std::uint64_t size = file.size();
        send_head(id, connection,
                  {200, "application/octet-stream", size, closes_after(connection), {}}, actions);
        if (connection.request.method == "HEAD" || size == 0) {
            return end_answer(id, connection, actions);
        }
        connection.download = std::make_unique<Download>(Download{std::move(file), size});
        downloads_.push_back(id);
        pump_later(actions);
    }
    /// The next turn sends on: a timer of no span costs no wait and lets others have their turn.
    void pump_later(Actions& actions) {
        if (!pump_) {
            pump_ = actions.set_timer(Duration::zero());
        }
    }
    void pump(Actions& actions) {
        bool goes_on = false;
        for (std::size_t n = 0; n < downloads_.size();) {
            const ResourceId id = downloads_[n];
            auto* const found = connections_.find(id);
            if (found == nullptr || (*found)->download == nullptr) {
                downloads_[n] = downloads_.back();
                downloads_.pop_back();
                continue;
            }
            Connection& connection = **found;
            if (!connection.is_blocked) {
                send_piece(id, connection, actions);
                goes_on = true;
            }
            ++n;
        }
        if (goes_on) {
            pump_later(actions);
        }
    }
    void send_piece(ResourceId id, Connection& connection, Actions& actions) {
        Download& download = *connection.download;
        Buffer piece = Buffer::uninitialized(
            static_cast<std::size_t>(std::min<std::uint64_t>(download.left, 64 * 1024)));
        if (const std::error_code error = download.file.read(piece.writable())) {
            std::fprintf(stderr, "http_upload: cannot read %s: %s\n", connection.part_name.c_str(),
                         error.message().c_str());
            connection.download.reset();
            actions.unregister_transport(id); // the length is promised: only an end says the truth
            return;
        }
        download.left -= piece.size();
        counters_.bytes_served += piece.size();
        actions.send(id, std::move(piece));
        connection.progress_at = actions.now();
        if (download.left == 0) {
            connection.download.reset();
            end_answer(id, connection, actions);
        }
    }
    /// An answer has been given whole: on to what waits behind its request.
    void end_answer(ResourceId id, Connection& connection, Actions& actions) {
        if (closes_after(connection) || connection.peer_is_done) {
            return leave(id, connection, actions);
        }
        if (!connection.waiting.empty()) {
            const std::string waiting = std::exchange(connection.waiting, {});
            take(id, connection, waiting, actions);
        }
        if (connection.download == nullptr) {
            actions.resume(id);
        }
    }

    // -- the slow ---------------------------------------------------------------------------------

    void dismiss_the_slow(Actions& actions) {
        constexpr std::uint64_t enough = 1024;
        for (const auto& [id, connection] : connections_) {
            if (connection->download != nullptr ||
                connection->received - connection->received_then >= enough) {
                connection->progress_at = actions.now();
                connection->received_then = connection->received;
            } else if (actions.now() - connection->progress_at >= settings_.idle) {
                if (connection->parser.is_within() && !connection->is_dropped) {
                    connection->progress_at = actions.now();
                    dismiss(id, *connection, 408, actions);
                } else {
                    actions.unregister_transport(id); // it asks for nothing, or does not leave
                }
            }
        }
    }
    void forget(ResourceId id) { connections_.erase(id); }

    Store store_;
    Settings settings_;
    Counters counters_;
    DateText date_;
    ResourceMap<std::unique_ptr<Connection>> connections_;
    std::vector<ResourceId> downloads_;
    TimerId look_;
    TimerId pump_;
    bool draining_ = false;
};

} // namespace http_upload
