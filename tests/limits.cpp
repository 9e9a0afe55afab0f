// SPDX-License-Identifier: Apache-2.0
//
// What a machine refuses that nothing can be built without: a thread, and the time.
#include <reactor/reactor.hpp>

#include <sys/resource.h>
#include <sys/syscall.h>

#include <atomic>
#include <ctime>

#include "peers.hpp"
#include "polling_parts.hpp"

using namespace test;

namespace {

// -- threads --------------------------------------------------------------------------------------

/// While it stands, no thread can be made: each would have a stack that no memory has room for.
class NoRoomForThreads {
  public:
    NoRoomForThreads() {
        ::pthread_attr_init(&before_);
        require_ok(::pthread_getattr_default_np(&before_) == 0, "pthread_getattr_default_np");
        pthread_attr_t vast{};
        ::pthread_attr_init(&vast);
        require_ok(::pthread_attr_setstacksize(&vast, std::size_t{1} << 50) == 0, "stack size");
        require_ok(::pthread_setattr_default_np(&vast) == 0, "pthread_setattr_default_np");
        ::pthread_attr_destroy(&vast);
    }
    NoRoomForThreads(const NoRoomForThreads&) = delete;
    NoRoomForThreads& operator=(const NoRoomForThreads&) = delete;
    ~NoRoomForThreads() {
        ::pthread_setattr_default_np(&before_);
        ::pthread_attr_destroy(&before_);
    }

  private:
    pthread_attr_t before_{};
};

struct Idle : Service<TcpListener, TcpStream> {
    void handle_start(Actions&) { ++*starts; }
    void handle_listener_event(ResourceId, TcpListener::Event, Actions&) {}
    void handle_transport_event(ResourceId, TcpStream::Event, Actions&) {}

    std::shared_ptr<std::atomic<int>> starts = std::make_shared<std::atomic<int>>(0);
};

} // namespace

TEMPLATE_TEST_CASE("a reactor whose thread cannot be made says so, and leaves nothing behind",
                   "[limits]", EpollPoller, PollPoller) {
    using Idling = Reactor<Idle, TestType>;
    { Idling warm{Idle{}}; }
    const std::size_t open = open_descriptors();
    const Idle idle;
    {
        const NoRoomForThreads none;
        try {
            Idling reactor{Idle(idle)};
            FAIL("there was room for a thread");
        } catch (const std::system_error& error) {
            CHECK(error.code() == std::errc::resource_unavailable_try_again);
        }
        CHECK(open_descriptors() == open);

        std::error_code error;
        Idling reactor(Idle(idle), {}, error);
        CHECK(error == std::errc::resource_unavailable_try_again);
        // There is nothing to wait for, and nobody who would hear of a signal.
        CHECK(reactor.join().clean);
        CHECK(reactor.join_until_signal(1h).clean);
    }
    CHECK(open_descriptors() == open);
    CHECK(*idle.starts == 0);

    Idling reactor{Idle(idle)}; // with room again
    reactor.controller().shutdown();
    reactor.join();
    CHECK(idle.starts.use_count() >= 2);
}

// -- the time -------------------------------------------------------------------------------------

namespace {

std::atomic<bool> clock_is_broken{false};

} // namespace

// In the place of the C library's, for this program.
extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
    if (clock_is_broken && clock == CLOCK_MONOTONIC) {
        errno = EINVAL;
        return -1;
    }
    return static_cast<int>(::syscall(SYS_clock_gettime, clock, time));
}

TEMPLATE_TEST_CASE("without a clock the process ends, and says why", "[limits]", EpollPoller,
                   PollPoller) {
    const Pair words = pipe_pair();
    const int status = in_child([&] {
        const rlimit none{};
        ::setrlimit(RLIMIT_CORE, &none);
        ::signal(SIGABRT, SIG_DFL);
        ::dup2(words.theirs.get(), STDERR_FILENO);
        Runtime<Idle, TestType> runtime{Idle{}};
        runtime.listen(TcpListener::bind("127.0.0.1:0"));
        runtime.turn(Duration::zero());
        clock_is_broken = true;
        static_cast<void>(os::Kernel::now());
        return 0;
    });
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGABRT);
    std::string said(200, '\0');
    const ssize_t count = ::read(words.ours.get(), said.data(), said.size());
    REQUIRE(count > 0);
    said.resize(static_cast<std::size_t>(count));
    CHECK(said == "reactor: clock_gettime(CLOCK_MONOTONIC) failed\n");
}
