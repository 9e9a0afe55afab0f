// SPDX-License-Identifier: Apache-2.0
//
// http_upload: the service. One Connection a transport: its parser, the request that it is in, and
// what is to be written of the body as it comes. One request at a time. Nothing here blocks: what
// may is handed in at the desk and comes back as a command. A connection has one errand there at a
// time, which keeps its bytes in order, and gathers the next meanwhile; then it is paused, so a
// peer is no faster than the disk. A download is the mirror of that: a piece is sent while the next
// is read, as long as the peer takes them. A request is answered when its files have their names;
// of a form that is refused, files that were whole before may have theirs.
//
// Who is too slow is found by a look at all connections once a second: within `idle` a request must
// get on by a kilobyte or come to its end, else 408; who asks for nothing is dismissed; who does
// not take his answer is ended by the stream's own deadline. Nobody is too slow while his errand is
// at the desk. After a refusal what still comes is read and dropped until the peer's end, as
// closing at once would reset the connection and take the answer along (RFC 9112, 9.6).
#pragma once

#include "connection.hpp"
#include "desk.hpp"
#include "metrics.hpp"
#include "reply.hpp"

#include <reactor/net/tcp.hpp>
#include <reactor/reactor.hpp>
#include <reactor/resource_map.hpp>

#include <cstdio>

namespace http_upload {

using namespace reactor;

struct Settings {
    std::uint64_t limit = std::uint64_t{10} << 30; ///< bytes of one body
    Duration idle = std::chrono::seconds{30};
    bool log = false;
};

template <class System>
class BasicUploadService
    : public Service<TcpListener, TcpStream, typename BasicDesk<System>::Done> {
  public:
    using Desk = BasicDesk<System>;
    using Done = typename Desk::Done;
    using typename BasicUploadService::Service::Actions;
    using typename BasicUploadService::Service::Error;

    /// The desk outlives the service, and is its own.
    BasicUploadService(Desk& desk, Settings settings)
        : desk_(&desk), settings_(std::move(settings)) {}

    void handle_start(Actions& actions) { look_ = actions.set_interval(std::chrono::seconds{1}); }

    void handle_listener_event(ResourceId, TcpListener::Event accepted, Actions& actions) {
        if (const ResourceId id = actions.register_transport(std::move(accepted.stream))) {
            connections_.emplace(id, std::make_unique<Connection>(settings_.limit, actions.now()));
            ++counters_.connections;
        }
    }

    void handle_transport_event(ResourceId id, TcpStream::Event event, Actions& actions) {
        Connection& connection = **connections_.find(id);
        if (const auto* const bytes = event.data()) {
            connection.received += bytes->size();
            take(id, connection, text_of(*bytes), actions);
            regulate(id, connection, actions);
        } else if (event.eof()) {
            connection.peer_is_done = true;
            if (!connection.is_complete) {
                actions.close_write(id);
            }
        } else if (event.blocked()) {
            connection.is_blocked = true;
        } else if (event.drained()) {
            connection.is_blocked = false;
            if (auto reading = std::exchange(connection.reading, std::nullopt)) {
                hand_in(id, connection, std::move(*reading));
            }
        }
    }

    void handle_command(Done done, Actions& actions) {
        desk_->came_back();
        auto* const errand = done.outcome ? &done.outcome.value() : nullptr;
        auto* const writing = errand != nullptr ? std::get_if<Writing>(errand) : nullptr;
        if (writing != nullptr) {
            count(*writing);
        }
        auto* const found = connections_.find(done.from);
        if (found != nullptr) {
            (*found)->at_desk = false;
            (*found)->bytes_at_desk = 0;
        }
        if (found == nullptr || (*found)->is_dropped) {
            if (errand != nullptr) {
                desk_->put_away(std::move(*errand)); // nobody waits for it any more
            }
            return;
        }
        Connection& connection = **found;
        if (writing != nullptr) {
            go_on(done.from, connection, std::move(*writing), actions);
        } else if (errand != nullptr) {
            send_on(done.from, connection, std::move(*std::get_if<Reading>(errand)), actions);
        } else {
            complain("serve", connection.request.target, told_by(done.outcome.thrown()));
            fail(done.from, connection, 500, actions);
        }
        regulate(done.from, connection, actions);
    }

    void handle_timer(TimerId timer, Actions& actions) {
        if (timer == look_) {
            dismiss_the_slow(actions);
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
    [[nodiscard]] Gauges gauges() const noexcept {
        Gauges gauges{connections_.size()};
        for (const auto& [id, connection] : connections_) {
            gauges.bytes_waiting += connection->unwritten();
        }
        return gauges;
    }

  private:
    using Connection = BasicConnection<System>;
    using Writing = BasicWriting<System>;
    using Reading = BasicReading<System>;

    // -- requests ---------------------------------------------------------------------------------

    void take(ResourceId id, Connection& connection, std::string_view bytes, Actions& actions) {
        while (!bytes.empty() && !connection.is_dropped) {
            if (connection.is_complete) {
                connection.waiting.assign(bytes);
                return;
            }
            const RequestParser::Fed fed = connection.parser.feed(bytes, connection);
            if (fed.status != 0) {
                connection.request.keep_alive = false;
                connection.refuse(fed.status);
            }
            if (connection.refused != 0 && (fed.status != 0 || !fed.at_end)) {
                return dismiss(id, connection, connection.refused, actions);
            }
            if (std::exchange(connection.wants_continue, false) && !fed.at_end) {
                actions.send(id, "HTTP/1.1 100 Continue\r\n\r\n");
            }
            bytes.remove_prefix(fed.taken);
            if (fed.at_end) {
                connection.complete();
            }
            proceed(id, connection, actions);
        }
    }
    /// Hands in what is worth it, or answers if nothing is left to be done.
    void proceed(ResourceId id, Connection& connection, Actions& actions) {
        if (connection.at_desk) {
            return;
        }
        const Writing& writing = connection.writing;
        if (connection.refused == 0 && writing.has_steps() &&
            (connection.is_complete || writing.is_worth_while())) {
            connection.bytes_at_desk = writing.size();
            hand_in(id, connection, std::exchange(connection.writing, Writing{}));
        } else if (connection.is_complete) {
            answer(id, connection, actions);
        }
    }
    void hand_in(ResourceId id, Connection& connection, BasicErrand<System> errand) {
        connection.at_desk = true;
        desk_->hand_in(id, std::move(errand));
    }
    /// Reads on, or not, as there is room for what comes.
    void regulate(ResourceId id, Connection& connection, Actions& actions) {
        const bool is_stuffed = connection.is_stuffed(desk_->is_crowded());
        if (is_stuffed != connection.is_paused) {
            connection.is_paused = is_stuffed;
            is_stuffed ? actions.pause(id) : actions.resume(id);
        }
    }

    // -- what came back from the desk -------------------------------------------------------------

    void count(const Writing& writing) {
        for (const StoredFile& file : writing.stored()) {
            ++counters_.files_stored;
            counters_.bytes_stored += file.size;
        }
    }
    void go_on(ResourceId id, Connection& connection, Writing&& writing, Actions& actions) {
        if (const std::error_code error = writing.error()) {
            const bool full = error == std::errc::no_space_on_device || error.value() == EDQUOT ||
                              error == std::errc::file_too_large;
            complain("store", writing.name(), error.message());
            return fail(id, connection, full ? 507 : 500, actions);
        }
        for (const StoredFile& file : writing.stored()) {
            connection.stored.push_back(file);
        }
        connection.writing.go_on_from(std::move(writing));
        proceed(id, connection, actions);
    }
    void send_on(ResourceId id, Connection& connection, Reading&& reading, Actions& actions) {
        if (const std::error_code error = reading.error()) {
            const int status = status_of(error);
            if (status == 500) {
                complain("read", reading.name(), error.message());
            }
            desk_->put_away(std::move(reading));
            return fail(id, connection, status, actions);
        }
        if (!std::exchange(connection.is_sending, true)) {
            send_head(id, connection, {200, "application/octet-stream", reading.size(),
                                       closes_after(connection), {}}, actions);
        }
        if (Buffer piece = reading.take_piece(); !piece.empty()) {
            counters_.bytes_served += piece.size();
            actions.send(id, std::move(piece));
            connection.progress_at = actions.now();
        }
        if (reading.left() == 0) {
            end_answer(id, connection, actions);
        } else if (connection.is_blocked) {
            connection.reading.emplace(std::move(reading));
        } else {
            hand_in(id, connection, std::move(reading));
        }
    }
    /// The disk's fault, or that of who asked for what is not there.
    void fail(ResourceId id, Connection& connection, int status, Actions& actions) {
        connection.refuse(status);
        if (connection.is_sending) {
            actions.unregister_transport(id); // the length is promised: only an end says the truth
        } else if (connection.is_complete) {
            answer(id, connection, actions);
        } else {
            dismiss(id, connection, connection.refused, actions);
        }
    }
    [[nodiscard]] static int status_of(std::error_code error) {
        return error == std::errc::no_such_file_or_directory   ? 404
               : error == std::errc::io_error                  ? 500
               : error == std::errc::not_enough_memory         ? 500
               : error == std::errc::too_many_files_open       ? 500
               : error == std::errc::too_many_files_open_in_system ? 500
                                                               : 400;
    }
    static void complain(const char* about, const std::string& name, const std::string& why) {
        std::fprintf(stderr, "http_upload: cannot %s %s: %s\n", about, name.c_str(), why.c_str());
    }
    [[nodiscard]] static std::string told_by(const std::exception_ptr& thrown) {
        try {
            std::rethrow_exception(thrown);
        } catch (const std::exception& problem) {
            return problem.what();
        } catch (...) {
            return "unknown";
        }
    }

    // -- answers ----------------------------------------------------------------------------------

    /// A request is complete, and nothing of it is at the desk.
    void answer(ResourceId id, Connection& connection, Actions& actions) {
        if (connection.refused != 0) {
            put_away(connection);
            return reply_error(id, connection, connection.refused, actions);
        }
        switch (connection.task) {
        case Task::page:
            return reply(id, connection, {200, "text/html; charset=utf-8"}, form_page, actions);
        case Task::metrics:
            return reply(id, connection, {200, "text/plain; version=0.0.4"},
                         to_text(counters_, gauges()), actions);
        case Task::form:
            return reply(id, connection, {200, "application/json"}, listing(connection), actions);
        case Task::put:
            return reply(id, connection, {201, "application/json"}, listing(connection), actions);
        case Task::get:
            return hand_in(id, connection,
                           Reading(connection.name, connection.request.method != "HEAD"));
        case Task::health:
        case Task::none:
            return reply(id, connection, {200}, "ok\n", actions);
        }
    }
    [[nodiscard]] bool closes_after(const Connection& connection) const {
        return draining_ || !connection.request.keep_alive;
    }
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
    /// The whole answer: `head` without what follows from the rest.
    void reply(ResourceId id, Connection& connection, ReplyHead head, std::string_view body,
               Actions& actions) {
        head.length = body.size();
        head.closes = closes_after(connection);
        send_head(id, connection, head, actions);
        if (connection.request.method != "HEAD") {
            actions.send(id, body);
        }
        end_answer(id, connection, actions);
    }
    void reply_error(ResourceId id, Connection& connection, int status, Actions& actions) {
        const std::string body = std::to_string(status) + " " + std::string(reason_of(status)) +
                                 "\n";
        ReplyHead head{status};
        if (status == 405) {
            const bool post = connection.request.target.starts_with("/upload");
            head.more = post ? "Allow: POST\r\n" : "Allow: GET, HEAD\r\n";
        }
        reply(id, connection, head, body, actions);
    }
    /// Answers before the request is complete: it is the last answer of this connection.
    void dismiss(ResourceId id, Connection& connection, int status, Actions& actions) {
        connection.request.keep_alive = false;
        put_away(connection);
        reply_error(id, connection, status, actions);
    }
    /// An answer has been given whole: on to what waits behind its request.
    void end_answer(ResourceId id, Connection& connection, Actions& actions) {
        connection.is_complete = connection.is_sending = false;
        connection.refused = 0;
        if (closes_after(connection) || connection.peer_is_done) {
            return leave(id, connection, actions);
        }
        if (const std::string waiting = std::exchange(connection.waiting, {}); !waiting.empty()) {
            take(id, connection, waiting, actions);
        }
    }
    /// Nothing more will be answered; what still comes is read and dropped.
    void leave(ResourceId id, Connection& connection, Actions& actions) {
        connection.is_dropped = true;
        actions.close_write(id);
        regulate(id, connection, actions); // the peer's end is to be heard
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

    // -- the slow, and the gone -------------------------------------------------------------------

    void dismiss_the_slow(Actions& actions) {
        constexpr std::uint64_t enough = 1024;
        for (const auto& [id, connection] : connections_) {
            if (connection->at_desk || connection->is_complete ||
                connection->received - connection->received_then >= enough) {
                connection->progress_at = actions.now();
                connection->received_then = connection->received;
            } else if (actions.now() - connection->progress_at >= settings_.idle) {
                if (connection->parser.is_within() && !connection->is_dropped) {
                    dismiss(id, *connection, 408, actions);
                } else {
                    actions.unregister_transport(id); // it asks for nothing, or does not leave
                }
            }
        }
    }
    /// What was written of a file that will not be whole.
    void put_away(Connection& connection) {
        desk_->put_away(std::exchange(connection.writing, Writing{}));
    }
    void forget(ResourceId id) {
        if (auto* const found = connections_.find(id)) {
            put_away(**found);
            if (auto reading = std::exchange((*found)->reading, std::nullopt)) {
                desk_->put_away(std::move(*reading));
            }
            connections_.erase(id);
        }
    }

    Desk* desk_;
    Settings settings_;
    Counters counters_;
    DateText date_;
    ResourceMap<std::unique_ptr<Connection>> connections_;
    TimerId look_;
    bool draining_ = false;
};

using UploadService = BasicUploadService<FileSystem>;

} // namespace http_upload
