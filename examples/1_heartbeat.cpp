// SPDX-License-Identifier: Apache-2.0
//
// 1 of 8: a timer, and nothing else. Beats every SPAN milliseconds, COUNT times, then ends.
//
//     1_heartbeat [COUNT [MILLISECONDS]]
//
// A service without listeners and transports names NoListener and NoTransport. Nobody needs a
// thread of its own here, so the Runtime runs on the main thread.
#include <reactor/reactor.hpp>

#include <cstdio>
#include <cstdlib>

using namespace reactor;

struct Heartbeat : Service<NoListener, NoTransport> {
    Heartbeat(int count, Duration span) : left(count), period(span) {}

    void handle_start(Actions& actions) {
        started = actions.now();
        beat = actions.set_interval(period);
    }

    void handle_timer(TimerId, Actions& actions) {
        const auto passed =
            std::chrono::duration_cast<std::chrono::milliseconds>(actions.now() - started);
        std::printf("beat after %lld ms\n", static_cast<long long>(passed.count()));
        if (--left == 0) {
            actions.cancel_timer(beat);
            actions.shutdown();
        }
    }

    int left;
    Duration period;
    Timestamp started{};
    TimerId beat;
};

int main(int argc, char** argv) {
    const int count = argc > 1 ? std::atoi(argv[1]) : 5;
    const int span = argc > 2 ? std::atoi(argv[2]) : 200;
    Runtime<Heartbeat> runtime{Heartbeat{count, std::chrono::milliseconds{span}}};
    runtime.run();
}
