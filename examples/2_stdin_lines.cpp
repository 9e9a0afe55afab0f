// SPDX-License-Identifier: Apache-2.0
//
// 2 of 8: lines from standard input, numbered, until it ends. Works on a terminal, a pipe and a
// file alike (a file counts as always ready).
//
//     2_stdin_lines < FILE
//
// A stream owns its descriptor and makes it non-blocking, a flag that everybody shares who has the
// same terminal open; so this program opens its standard input anew.
#include <reactor/net/stream.hpp>
#include <reactor/reactor.hpp>

#include <cstdio>
#include <string>
#include <string_view>

#include <fcntl.h>

using namespace reactor;

struct Lines : Service<NoListener, Stream> {
    void handle_transport_event(ResourceId, Stream::Event event, Actions& actions) {
        if (const auto* bytes = event.data()) {
            rest += text_of(*bytes);
            std::size_t begin = 0;
            for (std::size_t end; (end = rest.find('\n', begin)) != rest.npos; begin = end + 1) {
                print(std::string_view(rest).substr(begin, end - begin));
            }
            rest.erase(0, begin);
        } else if (event.eof()) {
            if (!rest.empty()) {
                print(rest); // the last line had no end
            }
            actions.shutdown();
        }
    }

    void handle_error(Error error, Actions& actions) {
        std::fprintf(stderr, "standard input: %s\n", error.code().message().c_str());
        actions.shutdown();
    }

    void print(std::string_view line) {
        std::printf("%6zu  %.*s\n", ++count, static_cast<int>(line.size()), line.data());
    }

    std::string rest;
    std::size_t count = 0;
};

int main() {
    // A socket cannot be opened anew.
    const int opened = ::open("/proc/self/fd/0", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const int fd = opened >= 0 ? opened : ::fcntl(0, F_DUPFD_CLOEXEC, 3);
    Runtime<Lines> runtime{Lines{}};
    runtime.controller().register_transport(Stream{os::Fd{fd}});
    runtime.run();
}
