// SPDX-License-Identifier: Apache-2.0
//
// The runtime in a storm: random schedules under a shadow model.
//
// One seed is one schedule: clients come and go, a service registers, sends, pauses, half-closes,
// sets timers, hands over and takes back, throws, and is at last drained or shut down, while the
// simulated kernel does to it whatever its weather allows. Beside it a model keeps account of what
// was asked for and told, and holds the runtime to the invariants of DESIGN.md after every step.
//
// REACTOR_SIM_SEEDS is how many schedules to run on each poller, REACTOR_SIM_FIRST the first seed.
#include "catch.hpp"

#include <reactor/net/tcp.hpp>
#include <reactor/reactor.hpp>
#include <reactor/sim/peer.hpp>
#include <reactor/sim/runtime.hpp>
#include <reactor/sim/storm.hpp>

#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <set>

using namespace reactor;
using namespace std::chrono_literals;

namespace {

using Stream = BasicTcpStream<sim::Kernel>;
using Listener = BasicTcpListener<sim::Kernel>;

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* const text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

struct Thrown : std::exception {};

/// What client number `who` sends at this place of its stream.
char byte_of(std::size_t who, std::uint64_t place) {
    return static_cast<char>((who * 131 + place * 7 + place / 251) & 0xff);
}

// -- the model ------------------------------------------------------------------------------------

/// One connection: what was said on it, in both directions, whoever has it at the moment.
struct Talk {
    static constexpr std::size_t nobody = ~std::size_t{0};

    std::size_t client = nobody; ///< whose stream comes in; nobody's is not checked
    std::uint64_t received = 0;
    std::list<std::string> sends; ///< accepted and not given back
    std::uint64_t accepted = 0;   ///< the bytes of these
    std::uint64_t told = nobody;  ///< when it left: what the kernel took, and what was unsent
    int fd = -1;
    bool eof = false;
    bool connects = false;
};

/// One id, from the moment it is known until it has left.
struct Known {
    std::shared_ptr<Talk> talk; ///< of a transport
    bool registered = false;
    bool paused = false;
    bool left = false;
    std::uint64_t registered_in = 0; ///< which turn
};

struct Timer {
    Timestamp not_before{};
    Timestamp exact{}; ///< of set_timer_at
    Duration period{};        ///< of set_interval
    int left = 0;             ///< times that it may still fire, of set_interval
    std::uint64_t set_in = 0; ///< which turn
};

class Model {
  public:
    explicit Model(sim::World& of) : world(of) {}

    void violated(const std::string& what) { world.fail(what); }
    void hold(bool holds, const char* what) {
        if (!holds) {
            violated(what);
        }
    }

    /// An id that the runtime gave out just now.
    Known& meet(ResourceId id) {
        hold(ids.insert(id.value()).second, "I1: an id is given out twice");
        return known[id];
    }
    Known* find(ResourceId id) {
        const auto found = known.find(id);
        return found == known.end() ? nullptr : &found->second;
    }
    /// Through a door.
    std::shared_ptr<Talk> leave(ResourceId id, const char* door) {
        Known* const who = find(id);
        if (who == nullptr) {
            violated(std::string("I4: one who is not known leaves by ") + door);
            return nullptr;
        }
        std::shared_ptr<Talk> talk = std::move(who->talk);
        known.erase(id);
        return talk;
    }

    sim::World& world;
    sim::Random& random = world.random;
    std::map<ResourceId, Known> known;
    std::set<std::uint64_t> ids;
    std::map<TimerId, Timer> timers;
    std::set<TimerId> dead_timers;
    std::list<std::unique_ptr<sim::Peer>> clients;
    std::vector<sim::Peer*> by_number;
    std::vector<std::pair<std::shared_ptr<Talk>, std::size_t>> talks; ///< with their client
    Options limits;
    std::uint64_t turns = 0;
    std::uint32_t next_send = 0;
    int wishes = 0; ///< things that the service is to do when it is next called back
    std::uint64_t commands_sent = 0;
    std::uint64_t commands_handled = 0;
    std::uint64_t last_command = 0;
    bool stopping = false;
    bool throws = false;
    double throwing = 0;
    std::size_t forced = 0;
    bool ending = false;
    Timestamp last_fired{};
    std::uint64_t fired_in = 0;
};

// -- the service ----------------------------------------------------------------------------------

/// Does what chance says, and tells the model of everything.
struct Trial : Service<Listener, Stream, std::uint64_t> {
    explicit Trial(Model& of) : model(&of) {}

    void handle_start(Actions& actions) { act(actions); }
    void tick(Actions& actions) {
        ++model->turns;
        act(actions);
    }
    void handle_timer(TimerId id, Actions& actions) {
        const auto found = model->timers.find(id);
        if (found == model->timers.end()) {
            model->violated("I12: a timer fires that is cancelled, or has fired");
            return;
        }
        model->hold(actions.now() >= found->second.not_before, "I12: a timer fires early");
        if (found->second.exact != Timestamp{}) {
            if (found->second.set_in != model->turns) {
                model->hold(model->fired_in != model->turns ||
                                found->second.exact >= model->last_fired,
                            "I12: timers fire in another order than that of their deadlines");
                model->last_fired = found->second.exact;
                model->fired_in = model->turns;
            }
        }
        if (found->second.period == Duration::zero()) {
            model->timers.erase(found);
        } else if (--found->second.left > 0) {
            found->second.not_before += found->second.period;
        } else {
            model->timers.erase(found);
            model->hold(actions.cancel_timer(id), "an interval cannot be cancelled as it fires");
        }
        act(actions);
    }
    void handle_command(std::uint64_t number, Actions& actions) {
        model->hold(number > model->last_command, "I10: a command comes twice, or out of order");
        model->last_command = number;
        ++model->commands_handled;
        act(actions);
    }
    void handle_listener_event(ResourceId id, Listener::Event event, Actions& actions) {
        check_event(id);
        auto talk = std::make_shared<Talk>();
        for (std::size_t n = 0; n < model->by_number.size(); ++n) {
            if (model->by_number[n]->address() == event.peer) {
                talk->client = n;
                model->talks.emplace_back(talk, n);
            }
        }
        model->hold(talk->client != Talk::nobody, "a connection of nobody was accepted");
        if (model->random.chance(0.05)) {
            return; // and so it is closed
        }
        enter(std::move(event.stream), std::move(talk), actions);
        act(actions);
    }
    void handle_transport_event(ResourceId id, Stream::Event event, Actions& actions) {
        const bool of_reading = event.data() != nullptr || event.eof();
        Known* const who = check_event(id, of_reading);
        if (who == nullptr) {
            return;
        }
        if (const auto* const bytes = event.data()) {
            model->hold(!who->paused, "a paused transport is read");
            take_in(*who->talk, *bytes);
        } else if (event.connected()) {
            who->talk->connects = false;
        } else if (event.eof()) {
            model->hold(!who->paused, "the end of a paused transport is told");
            model->hold(!std::exchange(who->talk->eof, true), "H1: the end is told twice");
            const sim::File* const file = model->world.find(who->talk->fd);
            model->hold(file != nullptr &&
                            file->connection->side(1 - file->which).sent == who->talk->received,
                        "I5: the end is told before the last byte");
            if (model->random.chance(0.6)) {
                actions.close_write(id);
            }
        }
        act(actions, id);
    }
    void handle_registered(ResourceId id, Role role, int fd, Actions& actions) {
        Known* const who = model->find(id);
        if (who == nullptr) {
            model->violated("somebody unknown is registered");
            return;
        }
        model->hold(!who->registered, "somebody is registered twice");
        who->registered = true;
        who->registered_in = model->turns;
        if (role == Role::transport) {
            who->talk->fd = fd;
        }
        act(actions);
    }
    void handle_error(Error error, Actions& actions) {
        if (error.kind() == ErrorKind::send_returned || error.kind() == ErrorKind::unknown_id) {
            give_back(error);
        }
        if (error.kind() == ErrorKind::send_returned && model->random.chance(0.5)) {
            actions.unregister_transport(error.id());
        }
        if (error.is_end()) {
            const bool was_paused = paused(error.id());
            const std::shared_ptr<Talk> talk = model->leave(error.id(), "handle_error");
            std::optional<Stream> stream = error.take_transport();
            if (talk && stream && error.kind() == ErrorKind::ended) {
                check_end(*talk, error, stream->fd(), was_paused);
            } else if (talk && stream && (error.kind() == ErrorKind::interest_failed ||
                                         error.kind() == ErrorKind::shed)) {
                check_account(*talk, stream->fd(), error.unsent());
            }
            if (talk && stream && error.kind() == ErrorKind::registration_failed &&
                model->random.chance(0.5)) {
                enter(std::move(*stream), talk, actions); // tries again
            }
            std::optional<Listener> listener = error.take_listener();
            if (listener && model->random.chance(0.9)) {
                note_new(actions.register_listener(std::move(*listener)));
            }
        }
        act(actions);
    }
    void handover_listener(ResourceId id, Listener listener, Actions& actions) {
        model->leave(id, "handover_listener");
        if (!model->ending) {
            note_new(actions.register_listener(std::move(listener)));
        }
        act(actions);
    }
    void handover_transport(ResourceId id, Stream stream, Actions& actions) {
        const std::shared_ptr<Talk> talk = model->leave(id, "handover_transport");
        if (model->stopping) {
            ++model->forced;
        }
        if (talk == nullptr) {
            return;
        }
        check_account(*talk, stream.fd(), stream.unsent());
        if (!model->ending && !stream.ended() && model->random.chance(0.7)) {
            enter(std::move(stream), talk, actions); // nothing may be lost between the two
        }
        act(actions);
    }

    // -- how it keeps account ---------------------------------------------------------------------

    void note_new(ResourceId id) {
        if (id) {
            model->meet(id);
        }
    }
    void enter(Stream&& stream, std::shared_ptr<Talk> talk, Actions& actions) {
        if (const ResourceId id = actions.register_transport(std::move(stream))) {
            model->meet(id).talk = std::move(talk);
        }
    }
    bool paused(ResourceId id) {
        const Known* const who = model->find(id);
        return who != nullptr && who->paused;
    }
    Known* check_event(ResourceId id, bool of_reading = true) {
        Known* const who = model->find(id);
        if (who == nullptr) {
            model->violated("I2: an event of one who has left");
            return nullptr;
        }
        model->hold(who->registered, "an event comes before handle_registered");
        model->hold(!of_reading || who->registered_in != model->turns,
                    "an event in the turn of registration");
        return who;
    }
    void take_in(Talk& talk, std::span<const std::byte> bytes) {
        model->hold(!bytes.empty(), "an event of no bytes");
        model->hold(!talk.eof, "H12: bytes after the end");
        for (const std::byte byte : bytes) {
            if (talk.client != Talk::nobody &&
                static_cast<char>(byte) != byte_of(talk.client, talk.received)) {
                model->violated("I5: a byte is lost, doubled or out of place");
                return;
            }
            ++talk.received;
        }
    }
    void give_back(Error& error) {
        const Buffer payload = error.take_payload();
        const std::string bytes(text_of(payload.bytes()));
        if (bytes.empty() || bytes == "nobody") {
            return; // it was no send, or one that named nobody
        }
        for (const auto& [talk, client] : model->talks) {
            const auto found = std::find(talk->sends.begin(), talk->sends.end(), bytes);
            if (found != talk->sends.end()) {
                talk->accepted -= bytes.size();
                talk->sends.erase(found);
                return;
            }
        }
        model->violated("I6: a send comes back that was not made, or not whole, or twice");
    }
    /// What was accepted is what the kernel took, and what is told as unsent. Sends that still wait
    /// to be performed come back later: who has left is looked at when all is at rest.
    void check_account(Talk& talk, int fd, std::size_t unsent) {
        const sim::File* const file = model->world.find(fd);
        if (file != nullptr && file->connection) {
            talk.told = file->side()->sent + unsent;
            model->hold(talk.told <= talk.accepted, "I5: more is unsent than was to be sent");
        }
    }
    void check_end(Talk& talk, Error& error, int fd, bool was_paused) {
        check_account(talk, fd, error.unsent());
        const sim::File* const file = model->world.find(fd);
        // A connection that is seen after its deadline is none, whatever came on it.
        if (file != nullptr && file->connection && !was_paused && !talk.connects) {
            model->hold(file->side()->in.empty(), "I5: an end is told before the last byte");
        }
        model->hold(error.code() || talk.eof, "a clean end without the peer's");
    }

    // -- what it does -----------------------------------------------------------------------------

    void act(Actions& actions, ResourceId about = {}) {
        if (model->ending) {
            return;
        }
        if (about && model->random.chance(0.4)) {
            send(about, actions);
        }
        while (model->wishes > 0) {
            --model->wishes;
            wish(actions);
        }
        if (model->random.chance(model->throwing)) {
            throw Thrown();
        }
    }
    ResourceId anybody() {
        if (model->known.empty()) {
            return {};
        }
        auto at = model->known.begin();
        std::advance(at, static_cast<std::ptrdiff_t>(model->random.below(model->known.size())));
        return at->first;
    }
    void send(ResourceId id, Actions& actions) {
        Known* const who = model->find(id);
        if (who == nullptr || who->talk == nullptr) {
            return;
        }
        const std::size_t size = model->random.between(
            std::size_t{4}, std::size_t{1} << model->random.between(std::size_t{2},
                                                                    std::size_t{14}));
        std::string bytes(size, static_cast<char>(model->next_send));
        std::memcpy(bytes.data(), &model->next_send, sizeof model->next_send);
        ++model->next_send;
        who->talk->sends.push_back(bytes);
        who->talk->accepted += size;
        const bool taken = model->random.chance(0.5) ? actions.send(id, std::string_view(bytes))
                                                     : actions.send(id, Buffer(bytes_of(bytes)));
        if (!taken) { // and nothing of it is in the stream
            model->hold(model->limits.action_queue < 100,
                        "a send is refused that no limit forbids");
            who->talk->sends.pop_back();
            who->talk->accepted -= size;
        }
    }
    void wish(Actions& actions) {
        const ResourceId id = anybody();
        Known* const who = model->find(id);
        const bool transport = who != nullptr && who->talk != nullptr;
        switch (model->random.below(17)) {
        case 16: {
            const Duration period = model->random.between(Duration{1us}, Duration{20ms});
            return keep(actions.set_interval(period), {actions.now() + period, {}, period, 5});
        }
        case 0:
        case 1:
        case 2:
        case 3:
            return send(id, actions);
        case 4:
            if (transport) {
                actions.close_write(id);
            }
            return;
        case 5:
            if (transport) {
                actions.unregister_transport(id);
            } else if (who != nullptr && model->random.chance(0.3)) {
                actions.unregister_listener(id);
            }
            return;
        case 6:
        case 7:
            if (transport && actions.pause(id)) {
                who->paused = true;
            }
            return;
        case 8:
        case 9:
            if (transport) {
                actions.resume(id);
                who->paused = false;
            }
            return;
        case 10: {
            const Timestamp now = actions.now();
            const Duration span = model->random.between(Duration{-1000}, Duration{50ms});
            return keep(actions.set_timer(span), {now + std::max(span, Duration{}), {}});
        }
        case 11: {
            const Timestamp when =
                actions.now() + model->random.between(Duration{0}, Duration{100ms});
            return keep(actions.set_timer_at(when), {when, when});
        }
        case 12:
            if (!model->timers.empty()) {
                const TimerId timer = any_timer();
                model->hold(actions.cancel_timer(timer), "a live timer cannot be cancelled");
                model->timers.erase(timer);
            }
            return;
        case 13:
            if (!model->timers.empty()) {
                const TimerId timer = any_timer();
                const Duration span = model->random.between(Duration{0}, Duration{50ms});
                Timer& entry = model->timers[timer];
                entry.not_before = actions.now() + span;
                entry.exact = {};
                entry.set_in = model->turns;
                model->hold(actions.reset_timer(timer, span), "a live timer cannot be reset");
            }
            return;
        case 14: {
            Stream stream = Stream::connect("127.0.0.1:9000", 50ms);
            auto talk = std::make_shared<Talk>();
            talk->connects = true;
            model->talks.emplace_back(talk, Talk::nobody);
            return enter(std::move(stream), std::move(talk), actions);
        }
        default:
            actions.send(ResourceId::of(4, 999), "nobody");
            return;
        }
    }
    void keep(TimerId id, const Timer& timer) {
        model->hold(static_cast<bool>(id), "a timer is refused that no limit forbids");
        model->hold(!model->timers.contains(id), "I1: a timer's id is given out twice");
        model->timers[id] = timer;
        model->timers[id].set_in = model->turns;
    }
    TimerId any_timer() {
        auto at = model->timers.begin();
        std::advance(at, static_cast<std::ptrdiff_t>(model->random.below(model->timers.size())));
        return at->first;
    }

    Model* model;
};

// -- one schedule ---------------------------------------------------------------------------------

template <class PollerType>
class Schedule {
    using Loop = sim::BasicRuntime<Trial, PollerType>;

  public:
    explicit Schedule(sim::World& of) : world(of), storm(of.weather), model(of) {
        world.weather = {};
        runtime = std::make_unique<Loop>(Trial(model), options());
        model.meet(runtime->listen(Listener::bind("127.0.0.1:7000")));
        server.may_fail().listen("127.0.0.1:9000").send("welcome");
        world.weather = storm;
    }

    void run(std::size_t steps) {
        model.throwing = may_throw && random.chance(0.3) ? 0.02 : 0;
        for (std::size_t n = 0; n < steps && is_well() && !runtime->has_ended(); ++n) {
            step();
            if (is_well()) {
                check();
            }
        }
        if (is_well()) {
            end();
        }
    }

  private:
    [[nodiscard]] bool is_well() const { return world.failure().empty(); }
    /// Small limits, so that they are met.
    Options options() {
        Options& limits = model.limits;
        limits.events_per_wait = random.between(std::size_t{1}, std::size_t{4});
        limits.events_per_resource = random.between(std::size_t{1}, std::size_t{3});
        limits.accepts_per_turn = random.between(std::size_t{1}, std::size_t{2});
        limits.timers_per_turn = random.between(std::size_t{1}, std::size_t{3});
        limits.commands_per_turn = random.between(std::size_t{1}, std::size_t{3});
        limits.actions_per_turn = random.between(std::size_t{1}, std::size_t{50});
        limits.read_buffer = random.between(std::size_t{1}, std::size_t{2000});
        limits.gather_buffer = random.between(std::size_t{0}, std::size_t{20'000});
        limits.stream = {8000, 2000, 20'000};
        limits.auto_pause = random.chance(0.7);
        if (random.chance(0.2)) {
            limits.action_queue = random.between(std::size_t{2}, std::size_t{20});
        }
        if (random.chance(0.2)) {
            limits.transports = random.between(std::size_t{1}, std::size_t{4});
        }
        if (random.chance(0.2)) {
            limits.owed_bytes = random.between(std::size_t{1000}, std::size_t{20'000});
            limits.shedding = static_cast<Shedding>(random.below(3));
        }
        return limits;
    }

    void step() {
        switch (random.below(6)) {
        case 0:
            if (model.by_number.size() < 8) {
                add_client();
            }
            break;
        case 1:
        case 2:
            ++model.wishes;
            runtime->controller().wake();
            break;
        case 3:
            if (runtime->controller().command(model.commands_sent + 1)) {
                ++model.commands_sent;
                ++model.wishes;
            }
            break;
        case 4:
            if (random.chance(0.02)) {
                squeeze();
            }
            break;
        default:
            break;
        }
        live(random.chance(0.1) ? random.between(Duration{0}, Duration{100ms})
                                : random.between(Duration{0}, Duration{2ms}));
    }
    void send_commands(std::uint64_t count) {
        for (; count > 0; --count) {
            if (runtime->controller().command(model.commands_sent + 1)) {
                ++model.commands_sent;
                ++model.wishes;
            }
        }
    }
    /// Not a descriptor is left, for a while: nobody may spin.
    void squeeze() {
        const std::size_t before = std::exchange(world.weather.descriptors,
                                                 world.open_descriptors());
        live(150ms);
        world.weather.descriptors = before;
    }
    void live(Duration span) {
        constexpr std::uint64_t most = 10'000;
        const Timestamp until = world.time() + span;
        const std::uint64_t before = model.turns;
        const auto spins = [&] { return model.turns - before > most; };
        do {
            try {
                model.hold(!world.run_until(spins, until - world.time()), "the loop spins");
            } catch (const Thrown&) { // and the next run goes on
            }
        } while (world.time() < until && is_well());
    }
    void add_client() {
        const std::size_t number = model.by_number.size();
        auto& client = *model.clients.emplace_back(
            std::make_unique<sim::Peer>(world, "client " + std::to_string(number)));
        model.by_number.push_back(&client);
        client.may_fail().connect("127.0.0.1:7000");
        std::uint64_t place = 0;
        for (std::size_t n = random.between(std::size_t{0}, std::size_t{8}); n > 0; --n) {
            switch (random.below(6)) {
            case 0:
                client.pause(random.between(Duration{0}, Duration{30ms}));
                break;
            case 1:
                client.read_slowly(random.between(std::size_t{0}, std::size_t{2000}),
                                   random.between(Duration{1us}, Duration{5ms}));
                break;
            default:
                std::string bytes(random.between(std::size_t{1}, std::size_t{6000}), 0);
                for (char& byte : bytes) {
                    byte = byte_of(number, place++);
                }
                client.send(bytes);
                break;
            }
        }
        switch (random.below(8)) {
        case 0:
            client.reset();
            break;
        case 1:
            client.vanish();
            break;
        case 2:
        case 3:
            client.close();
            break;
        case 4:
        case 5:
            client.shut();
            break;
        default:
            break; // stays
        }
    }

    /// Between turns.
    void check() {
        model.hold(world.careless_closes() == 0, "I3: closed while the poller still watched it");
        if (random.below(16) == 0) { // costs
            check_arrivals();
        }
        if constexpr (std::same_as<PollerType, sim::EpollPoller>) {
            if (runtime->until_next() != Duration::zero()) {
                check_interest();
            }
        }
    }
    void check_arrivals() {
        for (const auto& [talk, number] : model.talks) {
            if (number != Talk::nobody) {
                check_what_arrived(*talk, model.by_number[number]->received());
            }
        }
    }
    /// I6: what the peer has is the beginning of what was sent and did not come back.
    void check_what_arrived(const Talk& talk, std::string_view received) {
        for (const std::string& sent : talk.sends) {
            const std::string_view here = received.substr(0, sent.size());
            model.hold(std::string_view(sent).substr(0, here.size()) == here,
                       "I6: what arrived is not what was sent");
            received.remove_prefix(here.size());
        }
        model.hold(received.empty(), "I6: more arrived than was sent");
    }
    /// I7: write interest if and only if bytes wait or it connects.
    void check_interest() {
        const sim::File* const set = world.find(runtime->poller().fd());
        for (const auto& [id, who] : model.known) {
            const sim::File* const file = who.talk ? world.find(who.talk->fd) : nullptr;
            if (file == nullptr || !who.registered || !file->connection) {
                continue;
            }
            std::uint32_t events = 0;
            for (const sim::Watch& watch : set->watches) {
                events |= watch.data == id.value() ? watch.events : 0;
            }
            const sim::Side& side = *file->side();
            const bool waits = who.talk->accepted > side.sent;
            const bool asks = (events & EPOLLOUT) != 0;
            if (asks) {
                model.hold(waits || who.talk->connects, "I7: write interest, and nothing waits");
            } else if (waits && !side.cut && !side.write_ended) {
                model.hold(false, "I7: bytes wait, and there is no write interest");
            }
            if (who.paused) {
                model.hold((events & EPOLLIN) == 0, "I7: read interest of one who is paused");
            }
        }
    }
    /// Fair weather: everything comes to rest. Then the end, of one kind or another.
    void end() {
        model.throwing = 0;
        world.weather = {};
        send_commands(20); // more than one turn takes
        live(5min);
        model.hold(model.timers.empty(), "I12: a timer never fires");
        model.hold(model.commands_handled == model.commands_sent, "I10: a command is lost");
        const std::uint64_t before = model.turns;
        live(60min);
        model.hold(model.turns - before < 20, "an idle loop turns and turns");
        if (is_well()) {
            check();
            check_arrivals();
        }
        check_accounts();
        model.ending = true;
        send_commands(random.below(3)); // these may come too late
        auto controller = runtime->controller();
        switch (random.below(3)) {
        case 0:
            controller = {}; // it has the bell
            return leave();
        case 1:
            controller.shutdown();
            break;
        default:
            controller.drain(random.between(Duration{0}, Duration{10s}));
            break;
        }
        live(1min);
        model.hold(runtime->has_ended(), "the end does not come");
        model.hold(model.known.empty(), "I4: somebody is still here after the end");
        model.hold(controller.command(~std::uint64_t{0}).closed(), "I11: a command after the end");
        controller = {};
        leave();
    }
    void check_accounts() {
        std::set<const Talk*> here;
        for (const auto& [id, who] : model.known) {
            here.insert(who.talk.get());
        }
        for (const auto& [talk, number] : model.talks) {
            if (!here.contains(talk.get()) && talk->told != Talk::nobody) {
                if (talk->told != talk->accepted) {
                    model.violated("I5: unsent bytes are not counted right: of " +
                                   std::to_string(talk->accepted) + " bytes " +
                                   std::to_string(talk->told) + " were sent or told, on " +
                                   std::to_string(talk->fd));
                }
            }
        }
    }
    void leave() {
        runtime.reset();
        model.hold(world.open_descriptors() == 0, "I17: a descriptor is left");
        model.hold(world.careless_closes() == 0, "I3: closed while the poller still watched it");
    }

    sim::World& world;
    sim::Weather storm;
    bool may_throw = true;
    Model model;
    sim::Random& random = world.random;
    sim::Peer server{world, "server"};
    std::unique_ptr<Loop> runtime;
};

template <class PollerType>
void scenario(sim::World& world) {
    Schedule<PollerType>(world).run(200);
}

} // namespace

TEMPLATE_TEST_CASE("under random schedules in a storm the invariants hold", "", sim::EpollPoller,
                   sim::PollPoller) {
    const std::uint64_t seeds = from_environment("REACTOR_SIM_SEEDS", 1000);
    const std::uint64_t first = from_environment("REACTOR_SIM_FIRST", 1);
    const auto found =
        sim::search(first, seeds, sim::Weather::storm(), scenario<TestType>);
    INFO((found ? found->to_string() : ""));
    CHECK(!found);
}

TEMPLATE_TEST_CASE("a schedule in a storm is the same schedule when it is run again", "",
                   sim::EpollPoller, sim::PollPoller) {
    const std::uint64_t seeds = from_environment("REACTOR_SIM_SEEDS", 1000) / 10;
    const std::uint64_t first = from_environment("REACTOR_SIM_FIRST", 1);
    std::size_t different = 0;
    for (std::uint64_t seed = first; seed - first < seeds; ++seed) {
        const auto one = sim::replay(seed, sim::Weather::storm(), scenario<TestType>, 0);
        const auto other = sim::replay(seed, sim::Weather::storm(), scenario<TestType>, 0);
        different += one.hash != other.hash || one.calls != other.calls ? 1U : 0U;
    }
    CHECK(different == 0);
}
