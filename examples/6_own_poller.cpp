// SPDX-License-Identifier: Apache-2.0
//
// 6 of 8: a poller of your own, around one that exists: it spins for a while before it sleeps,
// which trades processor time for latency. Counts how often that paid.
//
//     6_own_poller [ADDRESS]           default 127.0.0.1:7002; an echo server
//
// A Poller is a policy of the Runtime: no virtual call, and the loop does not know the difference.
#include <reactor/net/tcp.hpp>
#include <reactor/reactor.hpp>

#include <cstdio>

using namespace reactor;

template <Poller Inner>
class SpinningPoller : public Inner {
  public:
    explicit SpinningPoller(Duration span) : span_(span) {}

    PollResult wait(Duration timeout, std::size_t most) {
        const Duration spin = std::min(span_, timeout);
        const Timestamp until = saturating_add(this->now(), spin);
        do {
            const PollResult result = Inner::wait(Duration::zero(), most);
            if (result.count > 0 || result.error || timeout <= Duration::zero()) {
                ++spun_;
                return result;
            }
        } while (this->now() < until);
        ++slept_;
        return Inner::wait(timeout == Duration::max() ? timeout : timeout - spin, most);
    }

    unsigned long spun() const { return spun_; }
    unsigned long slept() const { return slept_; }

  private:
    Duration span_;
    unsigned long spun_ = 0;
    unsigned long slept_ = 0;
};

struct Echo : Service<TcpListener, TcpStream> {
    void handle_listener_event(ResourceId, TcpListener::Event accepted, Actions& actions) {
        actions.register_transport(std::move(accepted.stream));
    }
    void handle_transport_event(ResourceId id, TcpStream::Event event, Actions& actions) {
        if (auto* bytes = event.data()) {
            actions.send(id, *bytes);
        } else if (event.eof()) {
            actions.close_write(id);
        }
    }
    void handover_transport(ResourceId, TcpStream, Actions& actions) {
        actions.shutdown(); // one client is enough
    }
};

int main(int argc, char** argv) {
    using Spinning = SpinningPoller<EpollPoller>;
    Runtime<Echo, Spinning> runtime{Echo{}, Options{}, Spinning{std::chrono::microseconds{100}}};
    TcpListener listener = TcpListener::bind(argc > 1 ? argv[1] : "127.0.0.1:7002");
    std::printf("listening on %s\n", listener.local().to_string().c_str());
    std::fflush(stdout);
    runtime.listen(std::move(listener));
    runtime.run();
    std::printf("waits that spinning answered: %lu, waits that slept: %lu\n",
                runtime.poller().spun(), runtime.poller().slept());
}
