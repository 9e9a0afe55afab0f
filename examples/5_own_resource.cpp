// SPDX-License-Identifier: Apache-2.0
//
// 5 of 8: a resource of your own: a directory that is watched with inotify(7).
//
//     5_own_resource DIRECTORY [COUNT]     prints COUNT changes (default: until Ctrl-C)
//
// A Resource has a descriptor, says what it wants to hear, and turns readiness into events; it is
// owned by value. Here it is a service's Listener, the role for whatever is only read.
#include <reactor/os/fd.hpp>
#include <reactor/reactor.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>

#include <sys/inotify.h>

using namespace reactor;

class Directory {
  public:
    struct Event {
        std::string name;
        const char* change;
    };

    explicit Directory(const char* path) : fd_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
        if (::inotify_add_watch(fd_.get(), path, IN_CREATE | IN_DELETE | IN_CLOSE_WRITE) < 0) {
            failure_ = errno;
        }
    }

    int fd() const { return fd_.get(); }
    Interest interest() const { return {.read = failure_ == 0, .write = false}; }

    /// One event a call; what the kernel gave besides waits for the next.
    std::optional<Event> handle_io(Io) {
        if (at_ == end_) {
            const ssize_t got = ::read(fd_.get(), room_, sizeof room_);
            if (got <= 0) {
                failure_ = got < 0 && errno != EAGAIN && errno != EINTR ? errno : 0;
                return std::nullopt;
            }
            at_ = 0;
            end_ = static_cast<std::size_t>(got);
        }
        const auto* change = reinterpret_cast<const inotify_event*>(room_ + at_);
        at_ += sizeof *change + change->len;
        return Event{change->len > 0 ? change->name : "",
                     (change->mask & IN_CREATE) != 0   ? "created"
                     : (change->mask & IN_DELETE) != 0 ? "deleted"
                                                       : "written"};
    }

    /// An optional power: asked when nothing was yielded. A value is the end, with its cause.
    std::optional<std::error_code> ended() const {
        return failure_ == 0 ? std::nullopt
                             : std::optional(std::error_code(failure_, std::system_category()));
    }

  private:
    os::Fd fd_;
    int failure_ = 0;
    alignas(inotify_event) char room_[4096];
    std::size_t at_ = 0;
    std::size_t end_ = 0;
};

struct Watch : Service<Directory, NoTransport> {
    explicit Watch(int count) : left(count) {}

    void handle_listener_event(ResourceId, Directory::Event event, Actions& actions) {
        std::printf("%s %s\n", event.change, event.name.c_str());
        std::fflush(stdout);
        if (--left == 0) {
            actions.shutdown();
        }
    }
    void handle_registered(ResourceId, Role, int, Actions&) {
        std::printf("watching\n");
        std::fflush(stdout);
    }
    void handle_error(Error error, Actions& actions) {
        std::fprintf(stderr, "%s\n", error.code().message().c_str());
        actions.shutdown();
    }

    int left;
};

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s DIRECTORY [COUNT]\n", argv[0]);
        return 2;
    }
    Reactor<Watch> reactor{Watch{argc > 2 ? std::atoi(argv[2]) : 0}};
    reactor.listen(Directory{argv[1]});
    reactor.join_until_signal();
}
