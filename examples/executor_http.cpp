// SPDX-License-Identifier: Apache-2.0
//
// A small HTTP server for uploads, made of callbacks: no service, only an Executor. It reads each
// body to its end, as content-length says, and answers with how much came.
//
//   executor_http [PORT, 8000]
//   curl --location --request POST 'http://localhost:8000/upload' --form 'file=@IMAGE'
//
// Each client has one callback that is kept for reading, now and then one that is run once for
// writing (when the kernel did not take a whole answer), and a timer. SIGINT and SIGTERM end it.
#include <reactor/executor.hpp>
#include <reactor/net/tcp.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <string_view>

using namespace reactor;
using namespace std::chrono_literals;
using os::Kernel;

namespace {

constexpr std::size_t head_limit = 16 * 1024;
constexpr std::size_t body_limit = 64 * 1024 * 1024;
constexpr Duration patience = 30s; // for a request, or for the next one
Executor::Controller controller;

/// What the head says behind this name, which stands in small letters; nothing if it does not.
std::optional<std::string_view> field(std::string_view head, std::string_view name) {
    const std::size_t at = head.find("\r\n" + std::string(name) + ":");
    if (at == std::string_view::npos) {
        return std::nullopt;
    }
    head.remove_prefix(head.find_first_not_of(" \t", at + name.size() + 3));
    return head.substr(0, head.find("\r\n"));
}

struct Client {
    std::string head, out;                 ///< what came of a head; what the kernel did not take
    std::size_t length = 0, body_left = 0; ///< of the body: all of it, and what is to come
    bool in_body = false, last = false;    ///< last: it goes when `out` is empty
    EventId timer;
};

class Server {
  public:
    void listen(Executor& executor, int listener) {
        executor.await_keep(readable(listener), [this, listener](Executor& self, Readiness) {
            accept(self, listener);
        });
    }

  private:
    void accept(Executor& executor, int listener) {
        const os::Result accepted = Kernel::accept(listener, nullptr, nullptr);
        const int fd = accepted.ok() ? executor.adopt(os::Fd(accepted.fd())) : -1;
        if (accepted.would_block()) {
            return;
        }
        if (fd < 0) { // there are none: the next try has to wait, or it would be tried for ever
            executor.cancel(executor.current());
            executor.await_after(100ms,
                                 [this, listener](Executor& self) { listen(self, listener); });
            return;
        }
        std::printf("%d: new client\n", fd);
        Client& client = clients_[fd] = Client{};
        restart(executor, fd, client);
        executor.await_keep(readable(fd), [this, fd](Executor& self, Readiness) {
            read(self, fd, clients_[fd]);
        });
    }
    void restart(Executor& executor, int fd, Client& client) {
        executor.cancel(client.timer);
        client.timer = executor.await_after(patience, [this, fd](Executor& self) {
            close(self, fd);
        });
    }
    void close(Executor& executor, int fd) {
        executor.cancel(clients_[fd].timer);
        clients_.erase(fd);
        executor.close(fd);
    }

    void read(Executor& executor, int fd, Client& client) {
        const os::Result got = Kernel::recv(fd, buffer_);
        if (got.would_block()) {
            return;
        }
        if (!got.ok() || got.count() == 0) {
            std::printf("%d: gone%s\n", fd, client.in_body ? ", in the midst of a body" : "");
            return close(executor, fd);
        }
        std::string_view bytes(reinterpret_cast<const char*>(buffer_.data()), got.count());
        while (!bytes.empty() && !client.last) {
            const std::size_t taken = client.in_body ? std::min(bytes.size(), client.body_left)
                                                     : take_head(fd, client, bytes);
            client.body_left -= client.in_body ? taken : 0;
            bytes.remove_prefix(taken);
            if (client.in_body && client.body_left == 0) {
                client.in_body = false;
                answer(client, "200 OK", "received " + std::to_string(client.length) + " bytes\n");
                std::printf("%d: answered\n", fd);
                restart(executor, fd, client);
            }
        }
        if (!client.out.empty()) {
            write(executor, fd, client);
        }
    }
    /// How much of `bytes` belongs to the head.
    static std::size_t take_head(int fd, Client& client, std::string_view bytes) {
        const std::size_t before = client.head.size();
        client.head += bytes.substr(0, head_limit + 1 - before);
        const std::size_t end = client.head.find("\r\n\r\n", before < 3 ? 0 : before - 3);
        if (end == std::string::npos) {
            if (client.head.size() > head_limit) {
                refuse(fd, client, "431 Request Header Fields Too Large");
            }
            return client.head.size() - before;
        }
        client.head.resize(end + 4);
        for (char& letter : client.head) {
            letter = letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter + 32) : letter;
        }
        begin_body(fd, client);
        client.head.clear();
        return end + 4 - before;
    }
    static void begin_body(int fd, Client& client) {
        const std::string_view length = field(client.head, "content-length").value_or("0");
        const auto read = std::from_chars(length.begin(), length.end(), client.length);
        const bool is_number = read.ec == std::errc{} && read.ptr == length.end();
        const char* const refusal = field(client.head, "transfer-encoding") ? "411 Length Required"
                                    : !is_number                            ? "400 Bad Request"
                                    : client.length > body_limit ? "413 Content Too Large"
                                                                 : nullptr;
        if (refusal != nullptr) {
            return refuse(fd, client, refusal);
        }
        std::printf("%d: content length %zu\n", fd, client.length);
        if (field(client.head, "expect")) {
            client.out += "HTTP/1.1 100 Continue\r\n\r\n";
        }
        client.in_body = true;
        client.body_left = client.length;
    }
    static void refuse(int fd, Client& client, std::string_view status) {
        std::printf("%d: refused\n", fd);
        client.last = true;
        answer(client, status, "");
    }
    static void answer(Client& client, std::string_view status, std::string_view text) {
        client.out.append("HTTP/1.1 ").append(status);
        client.out += "\r\nContent-Length: " + std::to_string(text.size());
        client.out.append(client.last ? "\r\nConnection: close\r\n\r\n" : "\r\n\r\n").append(text);
    }

    void write(Executor& executor, int fd, Client& client) {
        const os::Result sent = Kernel::send(fd, std::as_bytes(std::span(client.out)));
        client.out.erase(0, sent.ok() ? sent.count() : 0);
        if ((!sent.ok() && !sent.would_block()) || client.out.size() > head_limit) {
            return close(executor, fd); // it is gone, or reads no answers
        }
        if (client.out.empty()) {
            return client.last ? close(executor, fd) : void();
        }
        executor.await_once(writable(fd), [this, fd](Executor& self, Readiness) {
            write(self, fd, clients_[fd]);
        });
    }

    std::map<int, Client> clients_;
    std::array<std::byte, 64 * 1024> buffer_{};
};

} // namespace

int main(int argc, char** argv) {
    std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
    raise_descriptor_limit();
    Executor executor;
    controller = executor.controller();
    std::signal(SIGINT, [](int) { controller.shutdown(); });
    std::signal(SIGTERM, [](int) { controller.shutdown(); });
    const TcpListener listener =
        TcpListener::bind(std::string("127.0.0.1:") + (argc > 1 ? argv[1] : "8000"));
    std::printf("listening on %s\n", listener.local().to_string().c_str());
    Server server;
    server.listen(executor, listener.fd());
    executor.run();
}
