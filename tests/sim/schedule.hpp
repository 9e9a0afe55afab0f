// SPDX-License-Identifier: Apache-2.0
//
// One seed, one schedule: what happens to one or two runtimes in a world, and what is held against
// them after every step.
//
// Clients and servers are peers in the network; other threads are played by whoever looks on at the
// system calls. At each step the model is asked whether a runtime that sleeps has nothing left to
// do, and whether its poller knows what it ought to. At the end all comes to rest in fair weather,
// or the end comes in the midst of everything: by a drain, a shutdown, or a destructor.
#pragma once

#include "lodger.hpp"

namespace trial {

template <class PollerType>
class Schedule final : private Onlooker {
  public:
    explicit Schedule(sim::World& of) : world(of), storm(of.weather), model(of) {
        Kernel::onlooker() = this;
        world.weather = {};
        model.is_silent = true;
        const std::size_t houses = random.chance(0.5) ? 2 : 1;
        for (std::size_t n = 0; n < houses; ++n) {
            settle(*model.houses.emplace_back(std::make_unique<House>()));
        }
        model.is_silent = false;
        is_haunted = random.chance(0.5);
        world.weather = storm;
        world.weather.failing_wait = random.chance(0.1) ? 0.01 : 0;
    }
    Schedule(const Schedule&) = delete;
    Schedule& operator=(const Schedule&) = delete;
    ~Schedule() {
        model.is_silent = true;
        Order::chance() = nullptr;
        lodgings.clear();
        for (const auto& house : model.houses) {
            house->controller = {};
        }
        Kernel::onlooker() = nullptr;
    }

    void run(std::size_t steps) {
        if (random.chance(0.3)) {
            model.throwing = 0.02;
            Order::chance() = &random;
        }
        const bool ends_at_rest = random.chance(0.6);
        steps = ends_at_rest ? steps : random.between(std::size_t{0}, steps);
        for (std::size_t n = 0; n < steps && is_well(); ++n) {
            step();
            check();
        }
        if (ends_at_rest && is_well()) {
            come_to_rest();
        }
        for (std::size_t n = 0; n < lodgings.size() && is_well(); ++n) {
            ends_at_rest ? end_at_rest(n) : end_in_the_midst(n);
        }
        if (is_well()) {
            leave();
        }
    }

  private:
    [[nodiscard]] bool is_well() const { return world.failure().empty(); }

    // -- the runtimes -----------------------------------------------------------------------------

    void settle(House& house) {
        choose_limits(house);
        if (random.chance(0.5)) {
            lodgings.push_back(std::make_unique<Lodger<Trial, PollerType>>(model, house));
        } else {
            lodgings.push_back(std::make_unique<Lodger<GentleTrial, PollerType>>(model, house));
        }
        const auto number = static_cast<std::uint16_t>(7000 + lodgings.size());
        model.meet(house, lodgings.back()->listen(Listener::bind(Address::loopback_ipv4(number))));
    }
    /// Small ones, so that they are met.
    void choose_limits(House& house) {
        Options& limits = house.limits;
        const auto some = [&](std::size_t least, std::size_t most) {
            return random.between(least, most);
        };
        limits.events_per_wait = some(1, 4);
        limits.events_per_resource = some(1, 3);
        limits.bytes_per_resource = some(1, 4000);
        limits.accepts_per_turn = some(1, 2);
        limits.timers_per_turn = some(1, 3);
        limits.commands_per_turn = some(1, 3);
        house.is_hasty = random.chance(0.3);
        model.is_hasty |= house.is_hasty;
        limits.actions_per_turn = house.is_hasty ? some(1, 20) : 1000;
        limits.read_buffer = some(1, 2000);
        limits.gather_buffer = some(0, 20'000);
        limits.stream = {8000, 2000, 20'000};
        limits.auto_pause = random.chance(0.7);
        limits.command_queue = random.chance(0.3) ? some(1, 4) : limits.command_queue;
        limits.action_queue = random.chance(0.2) ? some(2, 20) : limits.action_queue;
        limits.transports = random.chance(0.2) ? some(1, 4) : limits.transports;
        limits.timers = random.chance(0.2) ? some(1, 3) : limits.timers;
        if (random.chance(0.2)) {
            limits.owed_bytes = some(1000, 20'000);
            limits.shedding = static_cast<Shedding>(random.below(3));
        }
    }

    // -- what happens -----------------------------------------------------------------------------

    void step() {
        House& house = any_house();
        switch (random.below(6)) {
        case 0:
            if (model.clients.size() < 8) {
                add_client();
            } else if (model.servers.size() < 4) {
                add_server();
            }
            break;
        case 1:
        case 2:
            ++house.wishes;
            house.controller.wake();
            break;
        case 3:
            ++house.wishes;
            send_commands(house, 1);
            break;
        case 4:
            if (random.chance(0.02)) {
                squeeze();
            } else if (model.servers.size() < 4 && random.chance(0.1)) {
                add_server();
            }
            break;
        default:
            break;
        }
        live(random.chance(0.1) ? random.between(Duration{0}, milliseconds(100))
                                : random.between(Duration{0}, milliseconds(2)));
    }
    [[nodiscard]] static constexpr Duration milliseconds(Duration::rep count) {
        return std::chrono::milliseconds{count};
    }
    [[nodiscard]] House& any_house() {
        return *model.houses[static_cast<std::size_t>(random.below(model.houses.size()))];
    }
    /// A burst; for a loop that is asleep it rings once.
    void send_commands(House& house, std::uint64_t count) {
        const sim::File* const bell = world.find(house.waker);
        const std::uint64_t before = bell == nullptr ? 0 : bell->rings;
        for (; count > 0; --count) {
            Trial::send_command(model, house);
        }
        model.hold(bell == nullptr || bell->rings <= before + 1, "I10: a burst rings twice");
    }
    /// Not a descriptor is left, for a while: nobody may spin.
    void squeeze() {
        const std::size_t before =
            std::exchange(world.weather.descriptors, world.open_descriptors());
        live(milliseconds(150));
        world.weather.descriptors = before;
    }
    void live(Duration span) {
        constexpr std::uint64_t most = 10'000;
        const std::uint64_t before = turns();
        const auto spins = [&] { return turns() - before > most; };
        model.hold(!world.run_until(spins, span), "the loop spins");
    }
    [[nodiscard]] std::uint64_t turns() const {
        std::uint64_t all = 0;
        for (const auto& house : model.houses) {
            all += house->turns;
        }
        return all;
    }

    void add_client() {
        const std::size_t number = model.clients.size();
        auto& client = *model.clients.emplace_back(
            std::make_unique<sim::Peer>(world, "client " + std::to_string(number)));
        client.may_fail().connect(random.below(lodgings.size()) == 0 ? "127.0.0.1:7001"
                                                                     : "127.0.0.1:7002");
        talk(client, number, random.between(std::size_t{0}, std::size_t{8}));
    }
    void add_server() {
        auto& server = *model.servers.emplace_back(std::make_unique<sim::Peer>(world, "server"));
        server.may_fail().listen("127.0.0.1:900" + std::to_string(model.servers.size() - 1));
        talk(server, Talk::server, random.between(std::size_t{0}, std::size_t{4}));
    }
    /// The rest of a peer's script.
    void talk(sim::Peer& peer, std::size_t number, std::size_t words) {
        std::uint64_t place = 0;
        for (; words > 0; --words) {
            switch (random.below(6)) {
            case 0:
                peer.pause(random.between(Duration{0}, milliseconds(30)));
                break;
            case 1:
                peer.read_slowly(random.between(std::size_t{0}, std::size_t{2000}),
                                 random.between(Duration{1000}, milliseconds(5)));
                break;
            default:
                std::string bytes(random.between(std::size_t{1}, std::size_t{6000}), 0);
                for (char& byte : bytes) {
                    byte = byte_of(number, place++);
                }
                peer.send(bytes);
                break;
            }
        }
        switch (random.below(8)) {
        case 0:
            peer.reset();
            break;
        case 1:
            peer.vanish();
            break;
        case 2:
        case 3:
            peer.close();
            break;
        case 4:
        case 5:
            peer.shut();
            break;
        default:
            break; // stays
        }
    }

    // -- other threads, and what the system calls tell --------------------------------------------

    void before(Call) noexcept override {
        if (!is_haunted || model.is_silent || !random.chance(0.005)) {
            return;
        }
        model.is_silent = true;
        House& house = any_house();
        switch (random.below(4)) {
        case 0:
        case 1:
            house.wishes += random.chance(0.5) ? 1 : 0;
            house.controller.wake();
            house.woken |= house.in_turn;
            break;
        default:
            send_commands(house, random.between(std::size_t{1}, std::size_t{3}));
            break;
        }
        model.is_silent = false;
    }
    void after(Call call, int fd, os::Result result) noexcept override {
        if (fd < sim::System::first_descriptor) {
            return;
        }
        if (call == Call::close) {
            model.rest_of(fd) = {};
        } else if (call == Call::duplicate) {
            Rest& rest = model.rest_of(fd);
            rest.has_reserve = result.ok();
            rest.owes_reserve = false;
        } else if (call == Call::accept) {
            look_at_accept(model.rest_of(fd), result);
        } else if (result.value > 0) {
            if (const auto talk = model.talk_of(fd)) {
                talk->stirs = true;
            }
        }
    }
    void kept(int fd, std::size_t bytes) noexcept override {
        if (const auto talk = model.talk_of(fd)) {
            talk->least_kept = std::min(talk->least_kept, bytes);
        }
    }
    /// I13: after a shortage a listener rests, longer each time, but that it turns a client away.
    void look_at_accept(Rest& rest, os::Result result) noexcept {
        if (std::exchange(rest.may_turn_away, false)) {
            rest.has_reserve = false;
            rest.owes_reserve = true;
            return;
        }
        model.hold(rest.since == Timestamp{} ||
                       world.time() >= rest.since + rest.span - Model::clock_lags,
                   "I13: a listener that has met a shortage does not rest");
        if (result.ok()) {
            rest.since = {};
            rest.span = {};
            rest.told = false;
        } else if (result.error == EMFILE || result.error == ENFILE || result.error == ENOMEM ||
                   result.error == ENOBUFS) {
            rest.since = world.time();
            rest.untimed = true;
            rest.span = std::clamp(2 * rest.span, milliseconds(100), milliseconds(1000));
            rest.untold = !rest.told;
            rest.may_turn_away =
                rest.has_reserve && (result.error == EMFILE || result.error == ENFILE);
        }
    }
    void sleeps() noexcept override {
        model.hold(model.acting == nullptr || !model.acting->must_not_sleep,
                   "it sleeps, and had said that its next turn would not wait");
    }
    void shown(Timestamp now) noexcept override {
        const bool leaps = now > previous + milliseconds(100);
        leaped = leaps ? world.time() : leaped; // perhaps: what counts from now may count from here
        for (Rest& rest : model.rests) {
            if (std::exchange(rest.untimed, false) && rest.since != Timestamp{}) {
                rest.since = world.time(); // it rests from this reading on, however long that took
            }
        }
        model.last_shown = previous = now;
    }

    // -- what is held against them ----------------------------------------------------------------

    void check() {
        if (!is_well()) {
            return;
        }
        model.hold(world.careless_closes() == 0, "I3: closed while the poller still watched it");
        if (random.below(16) == 0) { // costs
            check_arrivals();
        }
        bool all_rest = true;
        for (std::size_t n = 0; n < lodgings.size(); ++n) {
            model.hold(!lodgings[n]->has_ended() || model.houses[n]->end_asked,
                       "it has ended, and nobody asked for that");
            wakes[n] = lodgings[n]->rest();
            asked[n] = world.time();
            all_rest = all_rest && (wakes[n] || lodgings[n]->has_ended());
        }
        const bool any_ended = std::any_of(lodgings.begin(), lodgings.end(),
                                           [](const auto& each) { return each->has_ended(); });
        if (any_ended) {
            model.must_return.clear(); // what waited there is only counted
        } else if (all_rest) {
            for (const std::uint32_t number : std::exchange(model.must_return, {})) {
                model.hold(!model.sent[number].talk || model.sent[number].talk->torn,
                           "I6: a send was to come back, and did not");
            }
        }
        for (std::size_t n = 0; n < lodgings.size() && is_well(); ++n) {
            if (wakes[n]) {
                check_rest(n, *model.houses[n], *wakes[n], all_rest);
            }
        }
    }
    /// Who sleeps has nothing to do.
    void check_rest(std::size_t n, House& house, Timestamp at, bool all_rest) {
        Lodging& lodging = *lodgings[n];
        model.hold(house.commands_handled == house.commands_sent,
                   "I10: it sleeps while a command waits");
        model.hold(!house.woken, "I10: who was woken in a turn is owed a whole one");
        model.hold(house.sent_here.empty() && house.listeners_sent_here.empty(),
                   "I10: it sleeps while somebody waits to be registered");
        // What is refused while a turn ends is told when the next one does.
        model.hold(!house.was_refused || house.refused_in == house.turns,
                   "it sleeps and has not told what was refused");
        model.hold(lodging.is_kept_by_kernel(), "the kernel was told another interest");
        for (const auto& [id, timer] : house.timers) {
            model.hold(at <= timer.deadline + clock_lags, "I12: it sleeps past a timer");
        }
        model.hold(at <= saturating_add(house.drain_deadline, clock_lags),
                   "it sleeps past the end of a drain");
        model.hold(house.transports() <= house.limits.transports, "I8: more transports");
        std::uint64_t owed = 0;
        for (auto& [id, who] : house.known) {
            model.hold(who.registered, "it sleeps while somebody waits to be registered");
            who.surely = who.paused;
            who.closes = who.closing;
            const Interest interest = lodging.interest_of(id);
            if (!who.talk) {
                check_listener(house, who, interest, asked[n]);
                continue;
            }
            const sim::File* const file = world.find(who.talk->fd);
            if (file != nullptr && file->connection) {
                const std::uint64_t waits = who.talk->accepted - file->side()->sent;
                owed += file->side()->cut || who.talk->torn ? 0 : waits;
                if (all_rest && !who.talk->torn) {
                    check_transport(house, who, interest, *file->side(), waits);
                }
                if (std::exchange(who.talk->stirs, false)) {
                    who.talk->stirred = asked[n]; // the turn that saw it may have taken long
                }
                check_deadlines(who, *file->side(), waits, at);
            }
        }
        const Options& limits = house.limits;
        model.hold(!all_rest || owed <= limits.owed_bytes + limits.gather_buffer + house.brought,
                   "I8: more is owed than may be");
    }
    void check_listener(const House& house, const Known& who, Interest interest, Timestamp now) {
        const bool full = house.transports() >= house.limits.transports;
        const Rest& rest = model.rest_of(who.fd);
        const bool rests = rest.since != Timestamp{} && now < rest.since + rest.span - clock_lags;
        const bool may_rest =
            rest.since != Timestamp{} && now < rest.since + rest.span + clock_lags;
        model.hold(!interest.write && !(interest.read && (who.paused || full || rests)),
                   "I7: a listener is asked that is not to accept");
        model.hold(interest.read || who.paused || full || may_rest,
                   "a listener is not asked any more");
        model.hold(!rest.untold, "I13: a shortage is not told");
        model.hold(!rest.may_turn_away, "I13: nobody is turned away");
        model.hold(!rest.owes_reserve, "I13: no reserve is made again");
    }
    /// I7, and what goes with it.
    void check_transport(const House& house, const Known& who, Interest interest,
                         const sim::Side& side, std::uint64_t waits) {
        const Talk& talk = *who.talk;
        const auto hold = [&](bool holds, const char* rule) {
            if (!holds) {
                model.violated(std::string(rule) + " (descriptor " + std::to_string(talk.fd) +
                               ", waiting " + std::to_string(waits) + ", sent " +
                               std::to_string(side.sent) + ")");
            }
        };
        const bool broke = side.cut || side.write_ended;
        if (interest.write) {
            hold(waits > 0 || talk.connects, "I7: write interest, and nothing waits");
        } else {
            hold(waits == 0 || broke, "I7: bytes wait, and there is no write interest");
        }
        if (who.paused || talk.eof || talk.connects) {
            hold(!interest.read, "I7: read interest of one who is not to be read");
        } else if (!broke && house.limits.auto_pause && talk.blocked) {
            hold(!interest.read, "I7: read interest of one whose bytes hold it back");
        } else { // who was held back when it broke hears of it without
            hold(interest.read || (broke && house.limits.auto_pause && talk.blocked),
                 "I7: one who is to be read has no read interest");
        }
        if (side.write_ended && !side.cut) {
            hold(waits == 0, "a half is closed before the last byte");
        } else if (who.closing && !side.cut && !talk.connects) {
            hold(waits > 0, "a half is not closed");
        }
        hold(!who.closing || !talk.eof || waits > 0, "both halves are closed, and it stays");
        if (!broke) {
            const StreamLimits& limits = house.limits.stream;
            hold(waits <= limits.cap, "I8: more waits than the cap");
            hold(talk.blocked || waits <= limits.high_watermark, "blocked is not told");
            hold(!talk.blocked || waits > limits.low_watermark, "drained is not told");
        }
    }
    /// Who is awaited and does nothing is not awaited for ever.
    void check_deadlines(const Known& who, const sim::Side& side, std::uint64_t waits,
                         Timestamp at) {
        const Talk& talk = *who.talk;
        if (talk.connects) {
            model.hold(at <= saturating_add(talk.connect_until, clock_lags),
                       "it sleeps past the end of a connect");
        } else if (!who.paused && !talk.eof && !talk.blocked && !side.cut && waits == 0) {
            for (const Duration limit :
                 {talk.deadlines.idle, talk.deadlines.read_bytes == 1 ? talk.deadlines.read
                                                                      : Duration::zero()}) {
                const Timestamp from = std::max(talk.stirred, leaped);
                model.hold(limit == Duration::zero() || at <= from + limit + clock_lags,
                           "it sleeps past the deadline of a stream");
            }
        }
    }
    void check_arrivals() {
        for (const auto& talk : model.talks) {
            if (talk->client < model.clients.size() && !talk->torn) {
                model.check_arrived(*talk, model.clients[talk->client]->received());
            }
        }
        for (const auto& server : model.servers) {
            const std::string& received = server->received();
            std::uint32_t number = 0;
            if (received.size() < sizeof number) {
                continue;
            }
            std::memcpy(&number, received.data(), sizeof number);
            if (number >= model.sent.size() || !model.sent[number].talk) {
                model.violated("I6: what arrived was not sent, or was given back");
            } else if (!model.sent[number].talk->torn) {
                model.check_arrived(*model.sent[number].talk, received);
            }
        }
    }
    void check_accounts() {
        std::set<const Talk*> here;
        for (const auto& house : model.houses) {
            for (const auto& [id, who] : house->known) {
                here.insert(who.talk.get());
            }
        }
        for (const auto& talk : model.talks) {
            if (!here.contains(talk.get()) && !talk->torn && talk->told != Talk::nobody &&
                talk->told != talk->accepted) {
                model.violated("I5: unsent bytes are not counted right: of " +
                               std::to_string(talk->accepted) + " bytes " +
                               std::to_string(talk->told) + " were sent or told, on " +
                               std::to_string(talk->fd));
            }
        }
    }

    // -- the end ----------------------------------------------------------------------------------

    /// Fair weather: everything comes to rest.
    void come_to_rest() {
        model.throwing = 0;
        is_haunted = false;
        Order::chance() = nullptr;
        world.weather = {};
        for (const auto& house : model.houses) {
            send_commands(*house, 20); // more than one turn takes
        }
        live(std::chrono::minutes{15});
        for (std::size_t n = 0; n < lodgings.size(); ++n) {
            House& house = *model.houses[n];
            model.hold(house.timers.empty(), "I12: a timer never fires");
            model.hold(lodgings[n]->rest().has_value(), "all is done, and it does not sleep");
            for (const auto& [id, who] : house.known) {
                model.hold(!who.talk || !who.talk->connects, "a connect does not end");
            }
        }
        const std::uint64_t before = turns();
        live(std::chrono::minutes{60});
        model.hold(turns() - before < 20, "an idle loop turns and turns");
        check();
        check_arrivals();
        check_accounts();
        check_sleep();
    }
    /// Who waits for a timer sleeps until it is due, and not less.
    void check_sleep() {
        for (std::size_t n = 0; n < lodgings.size() && is_well(); ++n) {
            House& house = *model.houses[n];
            if (house.limits.timers == 0) {
                continue;
            }
            house.wants_timer = random.between(Duration{1}, Duration{30'000'000});
            house.controller.wake();
            live(Duration::zero());
            live(Duration{1000});
            const std::uint64_t before = house.turns;
            live(milliseconds(40)); // and one turn as the world stops
            model.hold(house.timers.empty(), "I12: a timer never fires");
            model.hold(house.turns - before <= 2, "it does not sleep until its timer is due");
        }
    }
    void end_at_rest(std::size_t place) {
        Lodging& lodging = *lodgings[place];
        House& house = *model.houses[place];
        house.quiet = house.refuses = true;
        house.end_asked = true;
        send_commands(house, random.below(3)); // these may come too late
        switch (random.below(3)) {
        case 0:
            lodgings[place].reset();
            house.known.clear();
            house.commands_handled = house.commands_sent;
            lodgings[place] = std::make_unique<Nobody>();
            return;
        case 1:
            house.handed_over = house.unsent = 0;
            house.controller.shutdown();
            live(std::chrono::seconds{1});
            model.hold(lodging.has_ended(), "the end does not come");
            model.hold(lodging.farewell().forced == house.handed_over,
                       "the farewell counts others than were forced");
            model.hold(lodging.farewell().unsent_bytes == house.unsent,
                       "the farewell counts other bytes than were unsent");
            break;
        default:
            drain(lodging, house);
            break;
        }
        check_end(lodging, house);
    }
    void drain(Lodging& lodging, House& house) {
        const Duration limit = random.between(Duration{0}, Duration{10'000'000'000});
        const Timestamp began = world.time();
        house.controller.drain(2 * limit);
        house.controller.drain(limit);
        const bool early = world.run_until([&] { return lodging.has_ended(); }, limit);
        model.hold(early || world.time() >= began + limit, "time goes wrong");
        live(std::chrono::seconds{1});
        model.hold(lodging.has_ended(), "a drain does not end at its limit");
        model.hold(!early || lodging.farewell().forced == 0 || world.time() >= began + limit,
                   "a drain forces somebody before its limit");
    }
    /// By whoever has enough: the service, another thread, or the owner.
    void end_in_the_midst(std::size_t place) {
        Lodging& lodging = *lodgings[place];
        House& house = *model.houses[place];
        house.refuses = random.chance(0.5);
        house.end_asked = true;
        const Duration limit = random.between(Duration{-1}, Duration{3'000'000'000});
        switch (random.below(4)) {
        case 0:
            house.quiet = true;
            lodgings[place].reset();
            house.known.clear();
            lodgings[place] = std::make_unique<Nobody>();
            return;
        case 1:
            house.controller.shutdown();
            break;
        case 2:
            house.controller.drain(limit);
            break;
        default:
            house.may_end = true;
            house.wishes += 100;
            house.controller.wake();
            break;
        }
        for (int n = 0; n < 20 && is_well() && !lodging.has_ended(); ++n) {
            step();
            check();
        }
        house.quiet = true;
        model.throwing = 0;
        Order::chance() = nullptr;
        if (!house.ends_itself) {
            house.controller.drain(std::max(limit, Duration::zero()));
        }
        live(std::chrono::seconds{30}); // the clock may leap
        model.hold(lodging.has_ended(), "the end does not come");
        check_end(lodging, house);
    }
    void check_end(const Lodging& lodging, House& house) {
        for (const auto& [id, who] : house.known) { // what the last callbacks ask for is not done
            model.hold(!who.registered && !who.must_leave && who.met_in > house.completed,
                       "I4: somebody is still here after the end");
        }
        model.hold(house.sent_here.empty() && house.listeners_sent_here.empty(),
                   "I17: somebody is lost on the way");
        const Farewell farewell = lodging.farewell();
        model.hold(farewell.clean == (farewell.forced == 0 && farewell.unsent_bytes == 0),
                   "a farewell that contradicts itself");
        check_closed(house);
    }
    /// I11.
    void check_closed(House& house) {
        house.controller.wake();
        for (int n = 0; n < 2; ++n) {
            const auto answer = house.controller.command(Order(~std::uint64_t{0}));
            model.hold(answer.closed(), "I11: a command after the end");
        }
    }
    void leave() {
        model.is_silent = true;
        Order::chance() = nullptr;
        lodgings.clear();
        for (const auto& house : model.houses) {
            check_closed(*house);
            house->controller = {};
        }
        model.hold(world.open_descriptors() == 0, "I17: a descriptor is left");
        model.hold(world.careless_closes() == 0, "I3: closed while the poller still watched it");
    }

    /// In place of one who has been destroyed.
    struct Nobody final : Lodging {
        ResourceId listen(Listener) override { return {}; }
        [[nodiscard]] bool has_ended() const override { return true; }
        [[nodiscard]] Farewell farewell() const override { return {}; }
        [[nodiscard]] std::optional<Timestamp> rest() override { return std::nullopt; }
        [[nodiscard]] Interest interest_of(ResourceId) override { return {}; }
        [[nodiscard]] bool is_kept_by_kernel() override { return true; }
    };
    static constexpr Duration clock_lags = Model::clock_lags;

    sim::World& world;
    sim::Weather storm;
    Model model;
    sim::Random& random = world.random;
    bool is_haunted = false; ///< other threads act at any moment
    Timestamp previous{};    ///< reading of the clock
    Timestamp leaped{};      ///< when it last leaped, or nobody had read it for long
    std::optional<Timestamp> wakes[2]; ///< when each would wake,
    Timestamp asked[2]; ///< and when it was asked
    std::vector<std::unique_ptr<Lodging>> lodgings;
};

template <class PollerType>
void scenario(sim::World& world) {
    Schedule<PollerType>(world).run(200);
}

} // namespace trial
