// SPDX-License-Identifier: Apache-2.0
//
// The flagship example: an HTTP/1.1 server that takes uploads and gives them back.
//
//     http_upload --port 8000 --dir DIR [--limit BYTES] [--idle SECONDS] [--grace SECONDS]
//                 [--threads N] [--log]
//     curl --form file=@FILE http://127.0.0.1:8000/upload
//
//     GET /               a form                       GET /healthz    ok
//     POST /upload        multipart/form-data          GET /metrics    for Prometheus
//     PUT, GET /files/X   a file, raw
//
// Digests are made and the disk is waited for by --threads threads beside the loop. SIGTERM drains:
// uploads under way finish, nobody new comes in; after --grace the rest is forced.
//
// Its rooms: request.hpp (llhttp), route.hpp (who is asked for what), multipart.hpp (the splitter),
// storage.hpp (the directory), errand.hpp (what is to be done there), desk.hpp (the threads that do
// it), reply.hpp and metrics.hpp (text), connection.hpp (one connection's state), service.hpp (who
// does what when).
#include "service.hpp"

#include <getopt.h>

#include <csignal>
#include <cstdlib>

namespace {

[[noreturn]] void usage(int status) {
    std::fputs("usage: http_upload --port N --dir DIR [--address IP] [--limit BYTES] "
               "[--idle SECONDS] [--grace SECONDS] [--threads N] [--log]\n",
               status == 0 ? stdout : stderr);
    std::exit(status);
}

std::uint64_t number(const char* text, std::uint64_t most) {
    std::uint64_t value = 0;
    const std::string_view digits(text);
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), value);
    if (error != std::errc{} || end != digits.end() || value > most) {
        std::fprintf(stderr, "http_upload: not a number up to %llu: %s\n",
                     static_cast<unsigned long long>(most), text);
        usage(2);
    }
    return value;
}

} // namespace

int main(int argc, char** argv) {
    using namespace reactor;
    http_upload::Settings settings;
    std::string directory;
    std::string host = "127.0.0.1";
    std::uint64_t port = 0;
    std::uint64_t grace = 30;
    OffloadOptions pool;
    bool has_port = false;
    constexpr option options[] = {{"port", required_argument, nullptr, 'p'},
                                  {"dir", required_argument, nullptr, 'd'},
                                  {"address", required_argument, nullptr, 'a'},
                                  {"limit", required_argument, nullptr, 'l'},
                                  {"idle", required_argument, nullptr, 'i'},
                                  {"grace", required_argument, nullptr, 'g'},
                                  {"threads", required_argument, nullptr, 't'},
                                  {"log", no_argument, nullptr, 'v'},
                                  {"help", no_argument, nullptr, 'h'},
                                  {nullptr, 0, nullptr, 0}};
    for (int which; (which = ::getopt_long(argc, argv, "", options, nullptr)) != -1;) {
        switch (which) {
        case 'p': port = number(optarg, 65535); has_port = true; break;
        case 'd': directory = optarg; break;
        case 'a': host = optarg; break;
        case 'l': settings.limit = number(optarg, std::uint64_t{1} << 62); break;
        case 'i': settings.idle = std::chrono::seconds{number(optarg, 86'400)}; break;
        case 'g': grace = number(optarg, 86'400); break;
        case 't': pool.threads = number(optarg, 1024); break;
        case 'v': settings.log = true; break;
        case 'h': usage(0);
        default: usage(2);
        }
    }
    if (!has_port || directory.empty() || optind != argc) {
        usage(2);
    }
    try {
        std::signal(SIGXFSZ, SIG_IGN); // a file over the limit is an error, not the end of us
        raise_descriptor_limit();
        ListenOptions listening;
        listening.deadlines.write = settings.idle; // who does not take his answer
        TcpListener listener = TcpListener::bind(host + ":" + std::to_string(port), listening);
        std::printf("listening on %s\n", listener.local().to_string().c_str());
        std::fflush(stdout);
        http_upload::Desk desk(http_upload::Store(directory), pool);
        Reactor<http_upload::UploadService> reactor{http_upload::UploadService{desk, settings}};
        desk.answer_to(reactor.controller());
        reactor.listen(std::move(listener));
        const Farewell farewell = reactor.join_until_signal(std::chrono::seconds{grace});
        std::printf("left %s, %zu forced\n", farewell.clean ? "cleanly" : "by force",
                    farewell.forced);
        // Nobody waits for what is left now: who was, has been answered or forced out.
        if (const std::size_t left = desk.shutdown(std::chrono::seconds{5}); left != 0) {
            std::fprintf(stderr, "http_upload: the disk had not done %zu errands\n", left);
        }
    } catch (const std::exception& problem) {
        std::fprintf(stderr, "http_upload: %s\n", problem.what());
        return 1;
    }
}
