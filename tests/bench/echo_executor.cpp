// SPDX-License-Identifier: Apache-2.0
//
// The echo server of echo.cpp, made of callbacks: to be measured beside it, on the same terms.
// Stops after so many echoes, or at SIGTERM; prints its port.
// Usage: echo_executor [--beside] [--once] [echoes, 0: without end]
//   --beside: the loop has a thread of its own; --once: each echo awaits the next anew
#include <reactor/executor.hpp>
#include <reactor/net/tcp.hpp>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace reactor;
using os::Kernel;

Executor::Controller controller_of_main;

struct Server {
    long left;
    bool once;
    std::array<std::byte, 64 * 1024> buffer{};
    std::vector<std::string> rests{}; ///< by descriptor: what the kernel did not take yet
};

/// One connection.
struct Echo {
    Server* server;
    int fd;

    void operator()(Executor& executor, Readiness readiness) {
        std::string& rest = server->rests[static_cast<std::size_t>(fd)];
        if (!rest.empty() && !send(std::exchange(rest, {}))) {
            return;
        }
        if (readiness.calls_for(Io::read) && !receive(executor)) {
            return;
        }
        if (server->once) {
            executor.await_once(rest.empty() ? readable(fd) : writable(fd), *this);
        }
    }
    bool receive(Executor& executor) {
        const os::Result got = Kernel::recv(fd, server->buffer);
        if (got.would_block()) {
            return true;
        }
        if (!got.ok() || got.value == 0) {
            executor.close(fd);
            return false;
        }
        const auto bytes = std::span(server->buffer).first(got.count());
        if (!send({reinterpret_cast<const char*>(bytes.data()), bytes.size()})) {
            return false;
        }
        if (--server->left == 0) {
            executor.shutdown();
        }
        return true;
    }
    bool send(std::string_view text) {
        const os::Result sent = Kernel::send(fd, std::as_bytes(std::span(text)));
        const std::size_t taken = sent.ok() ? sent.count() : 0;
        if (taken < text.size()) {
            server->rests[static_cast<std::size_t>(fd)] = text.substr(taken);
        }
        return sent.ok() || sent.would_block();
    }
};

} // namespace

int main(int argc, char** argv) {
    Server server{-1, false};
    Placement placement = Placement::in_loop;
    for (int n = 1; n < argc; ++n) {
        const std::string_view word = argv[n];
        if (word == "--beside") {
            placement = Placement::beside;
        } else if (word == "--once") {
            server.once = true;
        } else if (const long echoes = std::atol(argv[n]); echoes != 0) {
            server.left = echoes;
        }
    }
    raise_descriptor_limit();
    Executor executor(placement);
    controller_of_main = executor.controller();
    std::signal(SIGTERM, [](int) { controller_of_main.shutdown(); });

    const TcpListener listener = TcpListener::bind("127.0.0.1:0");
    std::printf("listening on %s\n", listener.local().to_string().c_str());
    std::fflush(stdout);
    executor.await_keep(readable(listener.fd()), [&](Executor& self, Readiness) {
        const os::Result accepted = Kernel::accept(listener.fd(), nullptr, nullptr);
        if (!accepted.ok()) {
            return;
        }
        const int fd = self.adopt(os::Fd(accepted.fd()));
        server.rests.resize(std::max(server.rests.size(), static_cast<std::size_t>(fd) + 1));
        server.rests[static_cast<std::size_t>(fd)].clear();
        Kernel::set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        if (server.once) {
            self.await_once(readable(fd), Echo{&server, fd});
        } else {
            self.await_keep(readable(fd), Echo{&server, fd});
        }
    });
    executor.run();
}
