// SPDX-License-Identifier: Apache-2.0
//
// http_upload: from the head of a request to what is done with it, or the status that refuses it.
// Nothing is looked up: a name that is safe may still be the name of no file.
#pragma once

#include "multipart.hpp"
#include "request.hpp"
#include "storage.hpp"

namespace http_upload {

/// What is done with a request.
enum class Task { none, page, health, metrics, form, put, get };

struct Route {
    Task task = Task::none;
    int status = 0;         ///< not zero: it is refused
    std::string name{};     ///< of the file to put or get
    std::string boundary{}; ///< of the form
};

namespace routes {

[[nodiscard]] inline Route to_upload(const Request& request) {
    if (request.method != "POST") {
        return {Task::none, 405};
    }
    const std::string* const type = request.header("content-type");
    auto boundary = type != nullptr ? boundary_of(*type) : std::nullopt;
    if (!boundary) {
        return {Task::none, 415};
    }
    return {Task::form, 0, {}, std::move(*boundary)};
}

[[nodiscard]] inline Route to_file(const Request& request, std::string_view name, bool gets) {
    if (request.method == "POST") {
        return {Task::none, 405};
    }
    const auto safe = safe_name(name);
    if (!safe || *safe != name) {
        return {Task::none, 400}; // a name that leads elsewhere
    }
    return {gets ? Task::get : Task::put, 0, *safe};
}

[[nodiscard]] inline Route by_path(const Request& request) {
    const std::optional<std::string> path = decoded_path(request.target);
    if (!path || path->empty() || path->front() != '/') {
        return {Task::none, 400};
    }
    const bool gets = request.method == "GET" || request.method == "HEAD";
    if (!gets && request.method != "POST" && request.method != "PUT") {
        return {Task::none, 501};
    }
    if (*path == "/" || *path == "/healthz" || *path == "/metrics") {
        const Task task = *path == "/"          ? Task::page
                          : *path == "/healthz" ? Task::health
                                                : Task::metrics;
        return {task, gets ? 0 : 405};
    }
    if (*path == "/upload") {
        return to_upload(request);
    }
    constexpr std::string_view files = "/files/";
    if (path->starts_with(files)) {
        return to_file(request, std::string_view(*path).substr(files.size()), gets);
    }
    return {Task::none, 404};
}

} // namespace routes

/// `limit`: bytes that a body may have.
[[nodiscard]] inline Route route_of(const Request& request, std::uint64_t limit) {
    Route route = routes::by_path(request);
    const std::string* const expect = request.header("expect");
    if (route.status == 0 && request.length && *request.length > limit) {
        route.status = 413;
    } else if (route.status == 0 && expect != nullptr && !same_word(*expect, "100-continue")) {
        route.status = 417;
    }
    return route;
}

} // namespace http_upload
