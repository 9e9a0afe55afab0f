// SPDX-License-Identifier: Apache-2.0
//
// The limit: an echo server that is nothing but its system calls. One thread, level-triggered
// epoll, one read buffer, TCP_NODELAY, backlog 4096: the terms of all servers measured here. What
// the kernel does not take at once is waited for, so it is fit for clients that read, and no more.
// Stops after so many echoes, or at SIGTERM; prints its port.
// Usage: raw_epoll [echoes, 0: without end]
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { batch = 256, read_size = 64 * 1024 };

static volatile sig_atomic_t stopped;
static char buffer[read_size];

static void stop(int signal) {
    (void)signal;
    stopped = 1;
}

static void fail(const char* what) {
    perror(what);
    exit(1);
}

static void watch(int epoll, int fd) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data = {.fd = fd}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        fail("epoll_ctl");
    }
}

static int make_listener(void) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); // connections inherit it
    if (bind(fd, (struct sockaddr*)&address, size) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, (struct sockaddr*)&address, &size) != 0) {
        fail("listener");
    }
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void send_rest(int fd, const char* bytes, ssize_t left) {
    while (left > 0) {
        const ssize_t sent = send(fd, bytes, (size_t)left, MSG_NOSIGNAL);
        if (sent > 0) {
            bytes += sent;
            left -= sent;
        } else if (errno == EAGAIN) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            poll(&room, 1, 1000);
        } else {
            return; // reading will say why
        }
    }
}

int main(int argc, char** argv) {
    long left = argc > 1 ? atol(argv[1]) : 0;
    if (left == 0) {
        left = -1;
    }
    struct rlimit descriptors;
    getrlimit(RLIMIT_NOFILE, &descriptors);
    descriptors.rlim_cur = descriptors.rlim_max;
    setrlimit(RLIMIT_NOFILE, &descriptors);
    struct sigaction action = {.sa_handler = stop}; // no SA_RESTART: it ends the wait
    sigaction(SIGTERM, &action, NULL);

    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    const int listener = make_listener();
    watch(epoll, listener);
    static struct epoll_event events[batch];
    while (!stopped && left != 0) {
        const int ready = epoll_wait(epoll, events, batch, -1);
        for (int n = 0; n < ready; ++n) {
            const int fd = events[n].data.fd;
            if (fd == listener) {
                const int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (client >= 0) {
                    watch(epoll, client);
                }
                continue;
            }
            const ssize_t count = recv(fd, buffer, sizeof buffer, 0);
            if (count > 0) {
                const ssize_t sent = send(fd, buffer, (size_t)count, MSG_NOSIGNAL);
                if (sent != count) {
                    send_rest(fd, buffer + (sent > 0 ? sent : 0), count - (sent > 0 ? sent : 0));
                }
                --left;
            } else if (count == 0 || errno != EAGAIN) {
                close(fd);
            }
        }
    }
    return 0;
}
