// SPDX-License-Identifier: Apache-2.0
//
// The service on trial: does what chance says, in every callback, and tells the model.
//
// It knows its Model and its House; it owns nothing but what it was just handed. Whatever it is
// told is first held against the model, then noted there, and only then does it ask for more.
#pragma once

#include "model.hpp"

#include <reactor/backoff.hpp>
#include <reactor/handler.hpp>

namespace trial {

struct Trial : Service<Listener, Stream, Order> {
    Trial(Model& of, House& in) noexcept : model(&of), house(&in) {}

    void handle_start(Actions& actions) {
        model->hold(house->turns == 0, "handle_start comes late");
        act(actions);
    }
    void tick(Actions& actions) {
        ++house->turns;
        house->in_turn = true;
        house->has_now = false;
        house->woken = false;
        house->fired = house->commanded = 0;
        house->set_before = house->settings;
        if (model->random.chance(0.5)) {
            look_for_overdue(now(actions));
        }
        if (const Duration span = std::exchange(house->wants_timer, {}); span != Duration{}) {
            const TimerId timer = actions.set_timer(span);
            keep(timer, {model->last_shown + span});
        }
        act(actions);
    }
    void handle_timer(TimerId id, Actions& actions) {
        model->hold(++house->fired <= house->limits.timers_per_turn, "I9: more timers a turn");
        const auto found = house->timers.find(id);
        if (found == house->timers.end()) {
            return model->violated("I12: a timer fires that is cancelled, or has fired");
        }
        Timer& timer = found->second;
        model->hold(now(actions) >= timer.deadline, "I12: a timer fires early");
        for (const auto& [other_id, other] : house->timers) {
            model->hold(other.order > house->set_before ||
                            std::pair(other.deadline, other.order) >=
                                std::pair(timer.deadline, timer.order),
                        "I12: timers fire in another order than that of their deadlines");
        }
        if (timer.connects && !house->quiet) {
            connect(actions);
        }
        if (timer.period == Duration::zero()) {
            bury(id);
        } else if (--timer.left > 0) {
            const auto missed = (now(actions) - timer.deadline) / timer.period;
            timer.deadline += timer.period * (missed + 1);
            timer.order = ++house->settings;
            timer.overdue = 0;
        } else {
            model->hold(actions.cancel_timer(id), "an interval cannot be cancelled as it fires");
            bury(id);
        }
        act(actions);
    }
    void handle_command(Order&& order, Actions& actions) {
        model->hold(++house->commanded <= house->limits.commands_per_turn,
                    "I9: more commands a turn");
        model->hold(order.number > house->last_command,
                    "I10: a command comes twice, or out of order");
        house->last_command = order.number;
        ++house->commands_handled;
        act(actions);
    }
    void handle_listener_event(ResourceId id, Listener::Event event, Actions& actions) {
        Known* const who = check_event(id, true, 0);
        if (who == nullptr) {
            return;
        }
        who->in_trouble = false;
        model->hold(!house->draining, "a listener is asked in a drain");
        model->hold(house->limits.shedding != Shedding::give_back ||
                        house->transports() < house->limits.transports,
                    "I8: a listener accepts, and there is no room for a transport");
        const auto& clients = model->clients;
        const auto from = std::find_if(clients.begin(), clients.end(), [&](const auto& client) {
            return client->address() == event.peer;
        });
        if (from == clients.end()) {
            return model->violated("a connection of nobody was accepted");
        }
        const auto number = static_cast<std::size_t>(from - clients.begin());
        std::shared_ptr<Talk> talk = model->begin_talk(number);
        if (model->random.chance(0.05)) {
            return; // and so it is closed
        }
        if (model->random.chance(0.15)) {
            give_deadlines(event.stream, *talk);
        }
        enter(std::move(event.stream), std::move(talk), actions);
        act(actions);
    }
    void handle_transport_event(ResourceId id, Stream::Event event, Actions& actions) {
        const auto* const bytes = event.data();
        Known* const who =
            check_event(id, bytes != nullptr || event.eof(), bytes == nullptr ? 0 : bytes->size());
        if (who == nullptr) {
            return;
        }
        Talk& talk = *who->talk;
        if (bytes != nullptr) {
            talk.last_read = now(actions);
            take_in(talk, *bytes);
            if (model->random.chance(0.03)) {
                pause(*who, id, actions);
            }
        } else if (event.connected()) {
            model->hold(std::exchange(talk.connects, false), "it is told twice to be connected");
            model->hold(model->world.time() < talk.connect_until + Model::clock_lags &&
                            now(actions) < talk.connect_until,
                        "it is connected after its deadline");
            const sim::File* const file = model->world.find(talk.fd);
            model->hold(file != nullptr && file->side()->established,
                        "it is told to be connected and is not");
            backoff.reset();
            talk.stirs = true;
        } else if (event.eof()) {
            hear_the_end(talk);
            if (model->random.chance(0.6)) {
                close_write(*who, id, actions);
            }
        } else {
            hear_of_watermarks(talk, event.blocked());
        }
        act(actions, id);
    }
    void handle_registered(ResourceId id, Role role, int fd, Actions& actions) {
        Known* who = model->find(*house, id);
        if (who == nullptr) {
            who = &receive(id, role, fd);
        } else {
            model->hold(++house->performed <= house->limits.actions_per_turn,
                        "I9: more actions a turn");
        }
        who->fd = fd;
        model->hold(!who->registered, "somebody is registered twice");
        model->hold((role == Role::transport) == (who->talk != nullptr),
                    "somebody is registered in another role");
        who->registered = true;
        who->registered_in = house->turns;
        if (Talk* const talk = who->talk.get()) {
            model->hold(talk->fd == fd, "somebody is registered with another descriptor");
            talk->stirs = true;
            talk->entered = talk->entered == Timestamp{} ? now(actions) : talk->entered;
        }
        act(actions);
    }
    void handle_error(Error error, Actions& actions) {
        switch (error.kind()) {
        case ErrorKind::send_returned:
        case ErrorKind::unknown_id:
            give_back(error);
            if (error.kind() == ErrorKind::send_returned && model->random.chance(0.5)) {
                push(actions.unregister_transport(error.id()));
            }
            break;
        case ErrorKind::actions_refused:
            model->hold(std::exchange(house->was_refused, false), "nothing was refused");
            model->hold(++house->refusals_told == 1, "refusals are told twice a turn");
            break;
        case ErrorKind::trouble: {
            Known* const who = model->find(*house, error.id());
            model->hold(who != nullptr && !std::exchange(who->in_trouble, true),
                        "I13: a trouble is told of nobody, or twice");
            if (who != nullptr) {
                Rest& rest = model->rest_of(who->fd);
                model->hold(std::exchange(rest.untold, false), "I13: a trouble that is none");
                rest.told = true;
            }
            break;
        }
        case ErrorKind::poll_failed:
            model->hold(model->world.weather.failing_wait > 0, "no wait has failed");
            break;
        case ErrorKind::ended:
        case ErrorKind::registration_failed:
        case ErrorKind::interest_failed:
        case ErrorKind::shed:
            see_off(error, actions);
            break;
        }
        act(actions);
    }
    void handover_listener(ResourceId id, Listener listener, Actions& actions) {
        model->leave(*house, id, "handover_listener");
        pass_on(std::move(listener), actions);
        act(actions);
    }
    void handover_transport(ResourceId id, Stream stream, Actions& actions) {
        const std::shared_ptr<Talk> talk = model->leave(*house, id, "handover_transport");
        if (talk == nullptr) {
            return;
        }
        talk->torn |= house->end_asked; // sends that wait for an end are only counted
        ++house->handed_over;
        house->unsent += stream.unsent();
        model->hold(stream.fd() == talk->fd, "another stream is handed over");
        check_account(*talk, stream.fd(), stream.unsent());
        if (!house->refuses && !stream.ended()) {
            if (model->random.chance(0.3)) {
                pass_on(std::move(stream), talk);
            } else if (model->random.chance(0.6)) {
                enter(std::move(stream), talk, actions); // nothing may be lost between the two
            }
        }
        act(actions);
    }

  protected:
    // -- how it keeps account ---------------------------------------------------------------------

    /// The turn's time, which is the same for a whole turn.
    Timestamp now(Actions& actions) {
        const Timestamp shown = actions.now();
        if (house->in_turn && std::exchange(house->has_now, true)) {
            model->hold(shown == house->now, "I12: the time of a turn changes");
        }
        model->hold(shown >= house->now, "I12: time goes back");
        return house->now = shown;
    }
    void look_for_overdue(Timestamp now) {
        const std::size_t most = 3 * (house->timers.size() + house->known.size() + 3);
        for (auto& [id, timer] : house->timers) {
            if (timer.deadline < now) {
                model->hold(++timer.overdue <= most, "I9: a due timer waits for many turns");
            }
        }
    }
    void bury(TimerId id) {
        house->timers.erase(id);
        house->dead_timers.push_back(id);
    }
    /// What an action answers: only at the limit of the queue is it refused.
    bool push(bool taken) {
        if (!taken) {
            model->hold(house->limits.action_queue < 100, "an action is refused below the limit");
            note_refusal();
        }
        return taken;
    }
    void note_refusal() {
        if (!std::exchange(house->was_refused, true)) {
            house->refused_in = house->turns;
        }
    }
    Known* check_event(ResourceId id, bool of_reading, std::size_t bytes) {
        Known* const who = model->find(*house, id);
        if (who == nullptr) {
            model->violated("I2: an event of one who has left");
            return nullptr;
        }
        model->hold(who->registered, "an event comes before handle_registered");
        if (!of_reading) {
            return who;
        }
        model->hold(who->registered_in != house->turns, "an event in the turn of registration");
        model->hold(!(who->paused && who->surely), "one who is paused is read");
        if (const Talk* const talk = who->talk.get()) {
            model->hold(!talk->connects, "one who connects is read");
            const sim::File* const file = model->world.find(talk->fd);
            const bool may_be_read = !talk->blocked || !house->limits.auto_pause || talk->torn ||
                                     model->is_hasty || model->throwing > 0 || file == nullptr ||
                                     file->side()->cut || file->side()->write_ended;
            model->hold(may_be_read || talk->least_kept <= house->limits.stream.low_watermark,
                        "one is read whose own bytes hold it back");
        }
        if (std::exchange(who->turn, house->turns) != house->turns) {
            who->events = who->bytes = 0;
        }
        model->hold(who->bytes < house->limits.bytes_per_resource, "I9: more bytes a turn");
        who->bytes += bytes;
        const Options& limits = house->limits;
        model->hold(++who->events <=
                        (who->talk ? limits.events_per_resource : limits.accepts_per_turn),
                    "I9: more events a turn");
        return who;
    }
    void hear_of_watermarks(Talk& talk, bool blocked) {
        model->hold(blocked || talk.least_kept <= house->limits.stream.low_watermark,
                    "drained is told above the low watermark");
        talk.least_kept = blocked ? std::numeric_limits<std::size_t>::max() : 0;
        model->hold(std::exchange(talk.blocked, blocked) != blocked,
                    "blocked or drained is told twice");
    }
    void close_write(Known& who, ResourceId id, Actions& actions) {
        if (push(actions.close_write(id))) {
            who.closing = true;
            who.closes |= !house->is_hasty;
        }
    }
    void pause(Known& who, ResourceId id, Actions& actions) {
        if (push(actions.pause(id))) {
            who.surely = (who.paused && who.surely) || !house->is_hasty;
            who.paused = true;
        }
    }
    void take_in(Talk& talk, std::span<const std::byte> bytes) {
        model->hold(!bytes.empty(), "an event of no bytes");
        model->hold(!talk.eof, "H12: bytes after the end");
        talk.stirs = true;
        for (const std::byte byte : bytes) {
            if (talk.client != Talk::nobody &&
                static_cast<char>(byte) != byte_of(talk.client, talk.received)) {
                return model->violated("I5: a byte is lost, doubled or out of place");
            }
            ++talk.received;
        }
    }
    void hear_the_end(Talk& talk) {
        model->hold(!std::exchange(talk.eof, true), "H1: the end is told twice");
        const sim::File* const file = model->world.find(talk.fd);
        model->hold(file != nullptr &&
                        file->connection->side(1 - file->which).sent == talk.received,
                    "I5: the end is told before the last byte");
    }
    void give_back(Error& error) {
        const std::size_t unsent = error.unsent();
        const Buffer payload = error.take_payload();
        model->hold(payload.size() == unsent, "I5: unsent bytes of a send are not counted right");
        const std::string_view bytes = reactor::text_of(payload.bytes());
        if (!bytes.empty() && bytes != "nobody") { // else it was no send, or one to nobody
            if (error.kind() == ErrorKind::send_returned) {
                model->note_hole(bytes);
            }
            model->take_back(bytes);
        }
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
    /// Somebody leaves with an error.
    void see_off(Error& error, Actions& actions) {
        std::optional<Stream> stream = error.take_transport();
        std::optional<Listener> listener = error.take_listener();
        model->hold(stream.has_value() != listener.has_value(), "I17: an end gives nothing back");
        const Known* const who = model->find(*house, error.id());
        const bool never_came = who == nullptr && error.kind() == ErrorKind::registration_failed;
        const bool was_read = who != nullptr && who->registered && !who->paused;
        model->hold(error.kind() != ErrorKind::ended || error.code() || who == nullptr ||
                        !who->closes,
                    "a clean end that was asked for is told as an error");
        if (listener) {
            model->hold(error.kind() != ErrorKind::ended, "I13: an error of accept is an end");
            if (never_came) {
                model->hold(house->listeners_sent_here.erase(listener->fd()) == 1,
                            "a listener is turned away that nobody sent");
            } else {
                model->leave(*house, error.id(), "handle_error");
            }
            pass_on(std::move(*listener), actions);
        } else if (stream) {
            const std::shared_ptr<Talk> talk = never_came
                                                   ? take_sent(stream->fd())
                                                   : model->leave(*house, error.id(),
                                                                  "handle_error");
            if (talk) {
                see_off(error, *stream, talk, was_read, actions);
            }
        }
    }
    void see_off(Error& error, Stream& stream, const std::shared_ptr<Talk>& talk, bool was_read,
                 Actions& actions) {
        if (error.kind() == ErrorKind::registration_failed) {
            if (!house->refuses && model->random.chance(0.5)) {
                enter(std::move(stream), talk, actions); // tries again
            }
            return;
        }
        check_account(*talk, stream.fd(), error.unsent());
        if (error.kind() != ErrorKind::ended) {
            model->hold(error.kind() != ErrorKind::shed ||
                            house->limits.shedding != Shedding::give_back,
                        "somebody is shed, and sends are to come back");
            return;
        }
        check_timeout(*talk, stream.timeout(), error.code(), actions);
        const sim::File* const file = model->world.find(stream.fd());
        if (file != nullptr && file->connection && was_read && !talk->connects &&
            stream.timeout() == StreamTimeout::none) {
            model->hold(file->side()->in.empty(), "I5: an end is told before the last byte");
        }
        model->hold(error.code() || talk->eof, "a clean end without the peer's");
        if (talk->connects && !house->quiet && model->random.chance(0.5)) {
            try_again_later(actions);
        }
    }
    void try_again_later(Actions& actions) {
        const BackoffLimits limits{Duration{1'000'000}, Duration{10'000'000}, 2};
        const std::uint64_t tries = std::min<std::uint64_t>(backoff.attempts(), 10);
        const Duration step = std::min(limits.longest, limits.first * (1 << tries));
        const Duration wait = backoff.next();
        model->hold(wait >= step / 2 && wait <= step, "a wait is not as its backoff has it");
        const TimerId timer = actions.set_timer(wait);
        Timer entry{model->last_shown + wait};
        entry.connects = true;
        keep(timer, entry);
    }
    /// A deadline is never early.
    void check_timeout(const Talk& talk, StreamTimeout timeout, std::error_code code,
                       Actions& actions) {
        if (timeout == StreamTimeout::none) {
            return;
        }
        const StreamDeadlines& limits = talk.deadlines;
        const Timestamp at = timeout == StreamTimeout::connect ? model->last_shown : now(actions);
        Timestamp least = talk.connect_until;
        Duration limit{1};
        switch (timeout) {
        case StreamTimeout::none:
        case StreamTimeout::connect:
            break;
        case StreamTimeout::idle:
            limit = limits.idle;
            least = std::max(talk.last_read, talk.entered) + limit;
            break;
        case StreamTimeout::read:
            limit = limits.read;
            least = (limits.read_bytes == 1 ? std::max(talk.last_read, talk.entered)
                                            : talk.entered) + limit;
            model->hold(!talk.eof, "nothing is awaited behind the end");
            break;
        case StreamTimeout::write:
            limit = limits.write;
            least = talk.entered + limit;
            break;
        case StreamTimeout::exchange:
            limit = limits.exchange;
            least = talk.entered + limit;
            model->hold(talk.received != 0, "an exchange that has not begun is too long");
            break;
        }
        model->hold(code == std::errc::timed_out, "a deadline passes, and the end is another");
        model->hold(limit > Duration::zero(), "a deadline passes that was not set");
        model->hold(timeout != StreamTimeout::connect || talk.connects,
                    "one who is connected is told to have taken too long for it");
        model->hold(at >= least, "I12: a deadline passes early");
    }

    // -- coming, going, and between houses --------------------------------------------------------

    void note_new(ResourceId id, bool refused_rightly) {
        if (id) {
            model->meet(*house, id);
        } else {
            if (house->limits.action_queue >= 100 && !refused_rightly && !house->end_asked) {
                model->violated("I8: a registration is refused, and there are only " +
                                std::to_string(house->transports()) + " transports of " +
                                std::to_string(house->limits.transports));
            }
            note_refusal();
        }
    }
    ResourceId enter(Stream&& stream, std::shared_ptr<Talk> talk, Actions& actions) {
        const int fd = talk->fd = stream.fd();
        note_descriptor(talk);
        house->brought += stream.unsent();
        const bool full = house->transports() >= house->limits.transports;
        const ResourceId id = actions.register_transport(std::move(stream));
        note_new(id, full);
        model->hold(!id || !full || house->limits.shedding != Shedding::give_back,
                    "I8: more transports");
        if (id) {
            model->find(*house, id)->talk = std::move(talk);
        } else {
            model->hold(stream.fd() == fd, "what was refused is gone");
        }
        return id;
    }
    void note_descriptor(const std::shared_ptr<Talk>& talk) {
        if (talk->fd >= sim::System::first_descriptor) {
            const auto place =
                static_cast<std::size_t>(talk->fd - sim::System::first_descriptor);
            model->by_descriptor.resize(std::max(model->by_descriptor.size(), place + 1));
            model->by_descriptor[place] = talk;
        }
    }
    [[nodiscard]] House& any_house() {
        return *model->houses[static_cast<std::size_t>(
            model->random.below(model->houses.size()))];
    }
    /// A live connection moves to another runtime, or comes back to this one over the channel.
    void pass_on(Stream&& stream, const std::shared_ptr<Talk>& talk) {
        House& other = any_house();
        const int fd = stream.fd();
        talk->fd = fd;
        other.brought += stream.unsent();
        other.sent_here[fd] = talk;
        auto answer = other.controller.register_transport(std::move(stream));
        if (!answer) {
            other.sent_here.erase(fd);
            check_refusal(other, answer.closed());
            const auto back = answer.take();
            model->hold(back && back->fd() == fd, "what was not accepted does not come back");
        }
    }
    void pass_on(Listener&& listener, Actions& actions) {
        if (house->refuses || model->random.chance(0.05)) {
            return;
        }
        if (model->random.chance(0.3)) {
            House& other = any_house();
            const int fd = listener.fd();
            other.listeners_sent_here.insert(fd);
            if (!other.controller.register_listener(std::move(listener))) {
                other.listeners_sent_here.erase(fd);
            }
        } else {
            note_new(actions.register_listener(std::move(listener)), false);
        }
    }
    void check_refusal(const House& other, bool closed) {
        const std::size_t waiting = other.commands_sent - other.commands_handled +
                                    other.sent_here.size() + other.listeners_sent_here.size();
        model->hold(closed ? other.end_asked : waiting >= other.limits.command_queue,
                    "I10: a channel is closed or full that is not");
    }
    [[nodiscard]] std::shared_ptr<Talk> take_sent(int fd) {
        const auto found = house->sent_here.find(fd);
        if (found == house->sent_here.end()) {
            model->violated("a transport came that nobody sent");
            return nullptr;
        }
        std::shared_ptr<Talk> talk = std::move(found->second);
        house->sent_here.erase(found);
        return talk;
    }
    /// Somebody came over the channel, and has an id only now.
    Known& receive(ResourceId id, Role role, int fd) {
        Known& who = model->meet(*house, id);
        if (role == Role::transport) {
            who.talk = take_sent(fd);
            if (who.talk) {
                note_descriptor(who.talk);
            }
        } else {
            model->hold(house->listeners_sent_here.erase(fd) == 1,
                        "a listener came that nobody sent");
        }
        return who;
    }

    // -- what it does -----------------------------------------------------------------------------

    void act(Actions& actions, ResourceId about = {}) {
        if (house->quiet) {
            return;
        }
        if (about && model->random.chance(0.4)) {
            send(about, actions);
        }
        while (house->wishes > 0) {
            --house->wishes;
            wish(actions);
        }
        if (model->random.chance(model->throwing)) {
            throw Thrown();
        }
    }
    ResourceId anybody() {
        if (house->known.empty()) {
            return {};
        }
        auto at = house->known.begin();
        std::advance(at, static_cast<std::ptrdiff_t>(model->random.below(house->known.size())));
        return at->first;
    }
    void send(ResourceId id, Actions& actions) {
        Known* const who = model->find(*house, id);
        if (who == nullptr || who->talk == nullptr) {
            return;
        }
        const std::size_t size = model->random.between(
            std::size_t{4}, std::size_t{1} << model->random.between(std::size_t{2},
                                                                    std::size_t{14}));
        const auto number = static_cast<std::uint32_t>(model->sent.size());
        model->sent.push_back({who->talk, size});
        who->talk->sends.push_back(number);
        who->talk->accepted += size;
        if (who->closes) {
            model->must_return.push_back(number);
        }
        const std::string bytes = Model::text_of(number, size);
        const bool taken = model->random.chance(0.5) ? actions.send(id, std::string_view(bytes))
                                                     : actions.send(id, Buffer(bytes_of(bytes)));
        if (!push(taken)) {
            model->forget(number); // nothing of it is in the stream
        }
    }
    void wish(Actions& actions) {
        const ResourceId id = anybody();
        Known* const who = model->find(*house, id);
        const bool transport = who != nullptr && who->talk != nullptr;
        switch (model->random.below(22)) {
        case 0:
        case 1:
        case 2:
        case 3:
            return send(id, actions);
        case 4:
            if (transport) {
                close_write(*who, id, actions);
            }
            return;
        case 5:
            if (transport) {
                push(actions.unregister_transport(id));
            } else if (who != nullptr && model->random.chance(0.3)) {
                push(actions.unregister_listener(id));
            }
            return;
        case 6:
        case 7:
            if (who != nullptr && (transport || model->random.chance(0.2))) {
                pause(*who, id, actions);
            }
            return;
        case 8:
        case 9:
            if (who != nullptr && push(actions.resume(id))) {
                who->paused = false;
                if (transport) {
                    who->talk->stirs = true;
                }
            }
            return;
        case 10: {
            const Duration span = model->random.between(Duration{-1000}, Duration{50'000'000});
            const TimerId timer = actions.set_timer(span);
            return keep(timer, {model->last_shown + span});
        }
        case 11: {
            Timestamp when =
                now(actions) + model->random.between(Duration{-1000}, Duration{100'000'000});
            if (model->random.chance(0.5)) { // some fall together
                when -= when.time_since_epoch() % Duration{10'000'000};
            }
            return keep(actions.set_timer_at(when), {when});
        }
        case 12:
            return cancel(actions);
        case 13:
            return reset(actions);
        case 14:
        case 15:
            connect(actions);
            return;
        case 16: {
            const Duration period = model->random.between(Duration{1000}, Duration{20'000'000});
            const TimerId timer = actions.set_interval(period);
            return keep(timer, {model->last_shown + period, period, 5});
        }
        case 17:
            return command(any_house());
        case 18:
            return name_the_gone(actions);
        case 19:
            return end(actions);
        case 20:
            return flood(actions);
        default:
            push(actions.send(ResourceId::of(4, 999), "nobody"));
            return;
        }
    }
    void keep(TimerId id, Timer timer) {
        if (!id) {
            model->hold(house->timers.size() >= house->limits.timers,
                        "a timer is refused that no limit forbids");
            note_refusal();
            return;
        }
        model->hold(house->timers.size() < house->limits.timers, "I8: more timers");
        model->hold(!house->timers.contains(id) &&
                        std::find(house->dead_timers.begin(), house->dead_timers.end(), id) ==
                            house->dead_timers.end(),
                    "I1: a timer's id is given out twice");
        timer.order = ++house->settings;
        house->timers[id] = timer;
    }
    void cancel(Actions& actions) {
        if (!house->dead_timers.empty() && model->random.chance(0.3)) {
            const TimerId gone = house->dead_timers[static_cast<std::size_t>(
                model->random.below(house->dead_timers.size()))];
            model->hold(!actions.cancel_timer(gone), "a timer that is gone can be cancelled");
            model->hold(!actions.reset_timer(gone, Duration{1}), "a timer that is gone is reset");
        } else if (!house->timers.empty()) {
            const TimerId timer = any_timer();
            model->hold(actions.cancel_timer(timer), "a live timer cannot be cancelled");
            bury(timer);
        }
    }
    void reset(Actions& actions) {
        if (house->timers.empty()) {
            return;
        }
        const TimerId timer = any_timer();
        const Duration span = model->random.between(Duration{0}, Duration{50'000'000});
        Timer& entry = house->timers[timer];
        model->hold(actions.reset_timer(timer, span), "a live timer cannot be reset");
        entry.deadline = model->last_shown + span;
        entry.order = ++house->settings;
        entry.overdue = 0;
    }
    TimerId any_timer() {
        auto at = house->timers.begin();
        std::advance(at, static_cast<std::ptrdiff_t>(model->random.below(house->timers.size())));
        return at->first;
    }
    /// To a server, which takes one, or to a port where nobody is.
    ResourceId connect(Actions& actions) {
        const Duration limit = model->random.between(Duration{0}, Duration{100'000'000});
        model->last_shown = {};
        Stream stream = Stream::connect(
            "127.0.0.1:900" + std::to_string(model->random.below(5)), limit);
        std::shared_ptr<Talk> talk = model->begin_talk(Talk::server);
        talk->connects = true;
        talk->connect_until = model->last_shown + limit;
        if (stream.fd() >= 0 && model->random.chance(0.2)) {
            give_deadlines(stream, *talk);
        }
        return enter(std::move(stream), std::move(talk), actions);
    }
    void give_deadlines(Stream& stream, Talk& talk) {
        const auto some = [&] {
            return model->random.chance(0.4)
                       ? model->random.between(Duration{1'000'000}, Duration{60'000'000})
                       : Duration::zero();
        };
        talk.deadlines.idle = some();
        talk.deadlines.read = some();
        talk.deadlines.write = some();
        talk.deadlines.exchange = some();
        talk.deadlines.read_bytes = model->random.chance(0.5) ? 1 : 500;
        talk.deadlines.write_bytes = model->random.chance(0.5) ? 1 : 500;
        model->hold(!stream.set_deadlines(talk.deadlines), "deadlines cannot be set");
    }
    /// To another runtime, or to this one, whose bell stays silent while it is awake.
    void command(House& other) {
        const sim::File* const bell = model->world.find(other.waker);
        const std::uint64_t before = bell == nullptr ? 0 : bell->rings;
        send_command(*model, other);
        // Behind a throw the loop may not know yet that it is awake.
        const bool knows = house->completed + 1 == house->acts;
        if (&other == house && house->in_turn && knows && bell != nullptr) {
            model->hold(bell->rings == before, "I10: a bell is rung for a loop that is awake");
            if (model->random.chance(0.2)) {
                house->controller.wake();
                house->woken = true;
            }
        }
    }
    /// Whoever has left is named once more: it comes back as a value.
    void name_the_gone(Actions& actions) {
        if (house->gone.empty()) {
            return;
        }
        const ResourceId id = house->gone[static_cast<std::size_t>(
            model->random.below(house->gone.size()))];
        switch (model->random.below(5)) {
        case 0:
            push(actions.pause(id));
            return;
        case 1:
            push(actions.resume(id));
            return;
        case 2:
            push(actions.close_write(id));
            return;
        case 3:
            push(actions.unregister_transport(id));
            return;
        default:
            push(actions.send(id, "nobody"));
            return;
        }
    }
    /// More than may wait.
    void flood(Actions& actions) {
        if (house->limits.action_queue < 100) {
            bool all = true;
            for (std::size_t n = 0; n <= house->limits.action_queue; ++n) {
                all = push(actions.resume(ResourceId::of(4, 999))) && all;
            }
            model->hold(!all, "I8: more actions");
        }
    }
    /// Perhaps the service itself has enough.
    void end(Actions& actions) {
        if (!house->may_end) {
            return;
        }
        if (model->random.chance(0.5)) { // there is a command that nobody has seen
            send_command(*model, *house);
        }
        const bool is_first = !house->ends_itself;
        if (model->random.chance(0.5)) {
            house->ends_itself |= push(actions.shutdown());
            if (const ResourceId id = connect(actions)) {
                model->find(*house, id)->must_leave =
                    is_first && house->ends_itself && !house->is_hasty;
            }
        } else {
            house->ends_itself |= push(
                actions.drain(model->random.between(Duration{-1}, Duration{2'000'000'000})));
        }
        model->world.note(house->ends_itself ? "asks for the end" : "may not ask for the end");
    }

  public:
    /// Any thread may do this at any time.
    static void send_command(Model& model, House& other) {
        const std::uint64_t number = ++other.last_number;
        try {
            auto answer = other.controller.command(Order(number));
            if (answer) {
                ++other.commands_sent;
                return;
            }
            const std::size_t waiting = other.commands_sent - other.commands_handled +
                                        other.sent_here.size() +
                                        other.listeners_sent_here.size();
            model.hold(answer.closed() ? other.end_asked
                                       : waiting >= other.limits.command_queue,
                       "I10: a channel is closed or full that is not");
            const auto back = answer.take();
            model.hold(back && back->number == number, "I10: a command does not come back whole");
        } catch (const Thrown&) { // its move threw: it was not sent
        }
    }

    Model* model;
    House* house;
    BasicBackoff<Kernel> backoff{{Duration{1'000'000}, Duration{10'000'000}, 2}};
};

/// The same with a word of its own when a drain begins.
struct GentleTrial : Trial {
    using Trial::Trial;

    void handle_drain(Timestamp deadline, Actions& actions) {
        model->hold(!std::exchange(house->draining, true), "a drain begins twice");
        model->hold(house->end_asked, "a drain that nobody asked for");
        house->drain_deadline = deadline;
        for (const auto& [id, who] : house->known) {
            model->hold(who.talk || !who.registered, "a drain begins, and a listener is here");
            if (who.talk && model->random.chance(0.8)) {
                push(model->random.chance(0.7) ? actions.close_write(id)
                                               : actions.unregister_transport(id));
            }
        }
        act(actions);
    }
};

static_assert(Handler<Trial>);
static_assert(Handler<GentleTrial>);
static_assert(!detail::answers_drain<Trial> && detail::answers_drain<GentleTrial>);

} // namespace trial
