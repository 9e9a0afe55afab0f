// SPDX-License-Identifier: Apache-2.0
//
// The server of the soak: a service that two reactors run, and an executor beside each. What is
// alive is counted in Gauges, where the main thread sees it; while `resting` is set nothing new is
// begun, so that all of it comes to rest.
#pragma once

#include "wire.hpp"

#include <reactor/executor.hpp>
#include <reactor/net/either.hpp>
#include <reactor/net/tcp.hpp>
#include <reactor/net/unix.hpp>
#include <reactor/offload.hpp>
#include <reactor/reactor.hpp>

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <string>
#include <utility>
#include <variant>

namespace soak {

using namespace reactor;
using namespace std::chrono_literals;

using Count = std::atomic<std::int64_t>;

struct Gauges {
    Count connections{0}; ///< registered transports
    Count timers{0};      ///< alive
    Count offloaded{0};   ///< jobs whose result has not come back
    Count awaited{0};     ///< events of the executors
    Count accepted{0};
    Count left{0};
    Count commands{0};
    Count callbacks{0};
    Count timers_fired{0};
    Count wrong{0};
    std::atomic<bool> resting{true};

    /// What must not happen; the first of it is told at once.
    void expect(bool fulfilled, const char* what, std::int64_t detail = 0) {
        if (!fulfilled && ++wrong <= 20) {
            std::fprintf(stderr, "wrong: %s (%lld)\n", what, static_cast<long long>(detail));
        }
    }

    /// Whether nothing is alive but the interval of each service.
    [[nodiscard]] bool at_rest(std::int64_t services) const {
        return connections == 0 && timers == services && offloaded == 0 && awaited == 0;
    }
};

/// From another thread; each thread numbers its own.
struct Numbered {
    unsigned thread = 0;
    std::uint64_t number = 0;
};
/// From the pool.
struct Hashed {
    ResourceId id;
    std::string sum;
};
/// What comes over the channel.
using Word = std::variant<Numbered, Hashed>;

using Door = Either<TcpListener, UnixListener>;
using Pipe = Either<TcpStream, UnixStream>;

struct Node : Service<Door, Pipe, Word> {
    /// What both services know; filled in before either of them listens.
    struct Wiring {
        Gauges gauges;
        Offload* pool = nullptr;
        std::array<Controller, 2> to;
        Doors doors;
    };
    static constexpr unsigned senders = 2;

    Node(Wiring& with, unsigned its_number) : wiring(&with), gauges(&with.gauges), me(its_number) {}

    void handle_start(Actions& actions) {
        errands = actions.set_interval(20ms);
        ++gauges->timers;
    }
    void handle_timer(TimerId timer, Actions& actions) {
        if (timer == errands) {
            run_errands(actions);
            return;
        }
        // A connection has said nothing for a while: its deadline will see to it.
        --gauges->timers;
        ++gauges->timers_fired;
        for (auto [id, client] : clients) {
            if (client.timer == timer) {
                client.timer = {};
            }
        }
    }
    void handle_listener_event(ResourceId, Door::Event accepted, Actions& actions) {
        ++gauges->accepted;
        std::visit(
            [&](auto& event) {
                enter(actions.register_transport(std::move(event.stream)), actions);
            },
            accepted);
    }
    void handle_registered(ResourceId id, Role role, int, Actions& actions) {
        if (role == Role::transport && !clients.contains(id)) {
            enter(id, actions); // from the other reactor
            actions.send(id, frame('h', {}));
        }
    }
    void handle_transport_event(ResourceId id, Pipe::Event event, Actions& actions) {
        Client& client = *clients.find(id);
        if (event.connected()) {
            actions.send(id, frame('e', "an errand"));
        } else if (const auto* const bytes = event.data()) {
            client.in.append(reinterpret_cast<const char*>(bytes->data()), bytes->size());
            if (client.is_errand) {
                if (client.in == frame('e', "an errand")) {
                    actions.close_write(id);
                }
            } else {
                answer(id, client, actions);
            }
        } else if (event.eof()) {
            actions.close_write(id);
        }
    }
    void handle_command(Word word, Actions& actions) {
        if (const auto* const numbered = std::get_if<Numbered>(&word)) {
            ++gauges->commands;
            gauges->expect(numbered->number == ++heard[numbered->thread], "a command is missing");
        } else {
            auto& hashed = std::get<Hashed>(word);
            --gauges->offloaded;
            if (clients.contains(hashed.id)) {
                actions.send(hashed.id, frame('o', hashed.sum));
            }
        }
    }
    void handle_error(Error error, Actions& actions) {
        if (error.is_end() && clients.contains(error.id())) {
            leave(error.id(), actions);
        } else if (error.kind() == ErrorKind::send_returned) {
            // Nobody is owed more than the cap: the connection is broken, and the end to be read.
            gauges->expect(error.code() == std::errc::broken_pipe ||
                               error.code() == std::errc::connection_reset,
                           "a send came back", error.code().value());
            actions.unregister_transport(error.id());
        } else if (error.kind() != ErrorKind::unknown_id) {
            gauges->expect(false, "an error of this kind", static_cast<int>(error.kind()));
        }
    }
    void handover_transport(ResourceId id, Pipe stream, Actions& actions) {
        const bool moves = clients.find(id)->moves;
        leave(id, actions);
        if (moves) {
            const auto answer = wiring->to[1 - me].register_transport(std::move(stream));
            gauges->expect(static_cast<bool>(answer), "a handover was refused");
        }
    }

  private:
    struct Client {
        std::string in{};
        TimerId timer{};
        bool moves = false;
        bool is_errand = false;
    };

    void enter(ResourceId id, Actions& actions) {
        gauges->expect(static_cast<bool>(id), "a registration was refused");
        ++gauges->connections;
        ++gauges->timers;
        clients.emplace(id).timer = actions.set_timer(2s);
    }
    void leave(ResourceId id, Actions& actions) {
        if (const TimerId timer = clients.find(id)->timer) {
            actions.cancel_timer(timer);
            --gauges->timers;
        }
        clients.erase(id);
        --gauges->connections;
        ++gauges->left;
    }
    void answer(ResourceId id, Client& client, Actions& actions) {
        if (client.timer) {
            actions.reset_timer(client.timer, 2s);
        }
        std::string_view rest = client.in;
        for (std::size_t size = frame_size(rest); size != 0 && size <= rest.size();
             size = frame_size(rest)) {
            const std::string_view whole = rest.substr(0, size);
            rest.remove_prefix(size);
            switch (whole.front()) {
            case 'e': actions.send(id, whole); break;
            case 'o': offload(id, whole.substr(head_size), actions); break;
            case 'h':
                client.moves = true;
                actions.unregister_transport(id);
                break;
            default: actions.unregister_transport(id);
            }
        }
        client.in.erase(0, client.in.size() - rest.size());
    }
    void offload(ResourceId id, std::string_view payload, Actions& actions) {
        ++gauges->offloaded;
        const auto answer = wiring->pool->submit(
            wiring->to[me], [text = std::string(payload)] { return checksum_text(text); },
            [id](Outcome<std::string>&& sum) { return Word(Hashed{id, std::move(sum.value())}); });
        if (!answer) {
            --gauges->offloaded;
            actions.send(id, frame('o', checksum_text(payload)));
        }
    }
    /// A listener comes and goes, and a client of the server's own.
    void run_errands(Actions& actions) {
        if (const ResourceId old = std::exchange(passing_door, {})) {
            actions.unregister_listener(old);
        }
        if (gauges->resting) {
            return;
        }
        const std::string name =
            "unix:@reactor-soak-" + std::to_string(::getpid()) + "-" + std::to_string(me);
        std::error_code error;
        UnixListener door = UnixListener::bind(name, error);
        if (error) {
            return; // the last one of this name is just leaving
        }
        passing_door = actions.register_listener(std::move(door));
        const auto to = std::string("unix:") + wiring->doors.path;
        const ResourceId id = actions.register_transport(UnixStream::connect(to, 5s));
        enter(id, actions);
        clients.find(id)->is_errand = true;
    }

    Wiring* wiring;
    Gauges* gauges;
    unsigned me;
    TimerId errands;
    ResourceId passing_door;
    ResourceMap<Client> clients;
    std::array<std::uint64_t, senders> heard{};
};

/// What an executor is kept busy with: descriptors that are adopted, awaited, cancelled and closed,
/// time, and work for the pool.
template <class P>
class Chores {
  public:
    Chores(BasicExecutor<P>& executor, Gauges& gauges, Offload& pool)
        : gauges_(gauges), pool_(pool), self_(executor.controller()) {
        executor.await_every(5ms, [this](BasicExecutor<P>& inside) {
            for (int n = 0; n < 4 && !gauges_.resting && gauges_.awaited < 100; ++n) {
                begin(inside);
            }
        });
    }

  private:
    void begin(BasicExecutor<P>& executor) {
        int ends[2] = {-1, -1};
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
            gauges_.expect(false, "socketpair", errno);
            return;
        }
        const int near = executor.adopt(os::Fd(ends[0]));
        const int far = ends[1];
        ++gauges_.awaited;
        const auto read = executor.await_once(
            readable(near), [this, near, end = os::Fd(far)](BasicExecutor<P>& inside, Readiness) {
                char byte = 0;
                gauges_.expect(::read(near, &byte, 1) == 1 && byte == 'x', "a read", errno);
                ++gauges_.callbacks;
                gauges_.expect(inside.close(near), "what was adopted is not closed");
                compute(inside);
            });
        const auto never = executor.await_keep(
            writable(near), [this](BasicExecutor<P>&, Readiness) {
                gauges_.expect(false, "what was cancelled has run");
            });
        const auto later = executor.await_after(1ms, [this, far](BasicExecutor<P>&) {
            ++gauges_.callbacks;
            gauges_.expect(::write(far, "x", 1) == 1, "a write", errno);
        });
        gauges_.expect(read && never && later && executor.cancel(never), "an await");
    }
    /// The last step of a chore.
    void compute(BasicExecutor<P>&) {
        auto answer = pool_.submit(
            self_, [] { return checksum("a chore"); },
            [this](BasicExecutor<P>&, Outcome<std::uint64_t>&& sum) {
                gauges_.expect(sum.value() == checksum("a chore"), "a sum");
                ++gauges_.callbacks;
                --gauges_.awaited;
            });
        if (!answer) {
            --gauges_.awaited;
        }
    }

    Gauges& gauges_;
    Offload& pool_;
    typename BasicExecutor<P>::Controller self_;
};

} // namespace soak
