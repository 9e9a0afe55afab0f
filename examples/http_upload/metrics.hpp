// SPDX-License-Identifier: Apache-2.0
//
// http_upload: what has happened so far, and how Prometheus reads it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace http_upload {

struct Counters {
    std::map<int, std::uint64_t> answers;
    std::uint64_t connections = 0;
    std::uint64_t files_stored = 0;
    std::uint64_t bytes_stored = 0;
    std::uint64_t bytes_served = 0;
    std::uint64_t connections_lost = 0;
};

/// How things stand.
struct Gauges {
    std::size_t connections = 0;
    std::size_t bytes_waiting = 0;
};

[[nodiscard]] inline std::string to_text(const Counters& counters, const Gauges& gauges) {
    std::string text;
    const auto add = [&](std::string_view name, std::string_view type, std::string_view help,
                         std::uint64_t value) {
        text += "# HELP http_upload_" + std::string(name) + " " + std::string(help) +
                "\n# TYPE http_upload_" + std::string(name) + " " + std::string(type) +
                "\nhttp_upload_" + std::string(name) + " " + std::to_string(value) + "\n";
    };
    add("connections", "gauge", "Connections that are open.", gauges.connections);
    add("waiting_bytes", "gauge", "Bytes that were read and wait for the disk.",
        gauges.bytes_waiting);
    add("connections_total", "counter", "Connections accepted.", counters.connections);
    add("connections_lost_total", "counter", "Connections that ended by an error or in time.",
        counters.connections_lost);
    add("files_stored_total", "counter", "Files stored.", counters.files_stored);
    add("stored_bytes_total", "counter", "Bytes of them.", counters.bytes_stored);
    add("served_bytes_total", "counter", "Bytes of files sent.", counters.bytes_served);
    text += "# HELP http_upload_answers_total Answers by status.\n"
            "# TYPE http_upload_answers_total counter\n";
    for (const auto& [status, count] : counters.answers) {
        text += "http_upload_answers_total{code=\"" + std::to_string(status) + "\"} " +
                std::to_string(count) + "\n";
    }
    return text;
}

} // namespace http_upload
