// SPDX-License-Identifier: Apache-2.0
//
// The shadow model: what was asked for and what was told, of everything in one world.
//
// A World has one Model, and each runtime in it one House: who is known there, which timers run,
// which commands are under way. A Talk is one connection, whoever has it at the moment: it goes
// from house to house. The model draws no conclusion by itself but from what the service is told
// and what the simulated kernel knows; it says with `violated` what does not fit together.
#pragma once

#include "kernel.hpp"

#include <reactor/controller.hpp>
#include <reactor/options.hpp>
#include <reactor/sim/peer.hpp>

#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <set>
#include <string>

namespace trial {

/// What callbacks and moves throw.
struct Thrown : std::exception {};

/// What client number `who` sends at this place of its stream.
[[nodiscard]] inline char byte_of(std::size_t who, std::uint64_t place) {
    return static_cast<char>((who * 131 + place * 7 + place / 251) & 0xff);
}

/// A command; now and then its move throws.
struct Order {
    explicit Order(std::uint64_t with) noexcept : number(with) {}
    Order(Order&& other) : number(other.number) {
        throw_perhaps();
        other.number = 0;
    }
    Order& operator=(Order&& other) {
        throw_perhaps();
        number = std::exchange(other.number, 0);
        return *this;
    }
    ~Order() = default;

    static void throw_perhaps() {
        if (chance() != nullptr && chance()->chance(0.05)) {
            throw Thrown();
        }
    }
    /// Null: no move throws.
    [[nodiscard]] static sim::Random*& chance() noexcept {
        static thread_local sim::Random* random = nullptr;
        return random;
    }

    std::uint64_t number;
};

using Controller = reactor::Controller<Listener, Stream, Order>;

/// One connection: what was said on it, in both directions.
struct Talk {
    static constexpr std::size_t nobody = ~std::size_t{0};
    static constexpr std::size_t server = 1000; ///< all servers say the same

    std::size_t client = nobody; ///< whose stream comes in; nobody's is not checked
    std::uint64_t received = 0;
    std::vector<std::uint32_t> sends; ///< accepted and not given back, by number
    std::uint64_t accepted = 0;       ///< the bytes of these
    std::uint64_t told = nobody;      ///< when it left: what the kernel took, and what was unsent
    int fd = -1;
    bool eof = false;
    bool connects = false;
    bool torn = false;           ///< left at an end that may have dropped sends to it
    bool blocked = false;        ///< told so, and not told that it has drained
    std::size_t least_kept = 0;  ///< since: by any of its sends, of what it was given
    Timestamp connect_until{};   ///< while it connects
    StreamDeadlines deadlines{};
    Timestamp entered{};         ///< when it was first registered
    Timestamp last_read{};       ///< the turn's time when bytes last came
    bool stirs = false;          ///< something came, left, or was resumed
    Timestamp stirred{};         ///< when its house first rested after that
};

/// One id, from the moment it is known until it has left.
struct Known {
    std::shared_ptr<Talk> talk; ///< of a transport
    bool registered = false;
    bool paused = false;      ///< asked for
    bool surely = false;      ///< `paused` has been performed
    bool in_trouble = false;  ///< of a listener: told, and nobody accepted since
    bool closing = false;     ///< close_write was asked for,
    bool closes = false;      ///< and has been performed
    bool must_leave = false;  ///< asked for before the end
    int fd = -1;
    std::uint64_t met_in = 0;        ///< which turn, thrown ones and the last one counted
    std::uint64_t registered_in = 0; ///< which turn that had a tick
    std::uint64_t turn = 0;          ///< of what follows
    std::size_t events = 0;
    std::size_t bytes = 0;
};

struct Timer {
    Timestamp deadline{};
    Duration period{};         ///< of set_interval
    int left = 0;              ///< times that it may still fire, of set_interval
    std::uint64_t order = 0;   ///< of setting
    std::uint64_t overdue = 0; ///< turns that saw it due
    bool connects = false;     ///< when it fires
};

/// A send that is still somewhere, by its number.
struct Sent {
    std::shared_ptr<Talk> talk;
    std::size_t size;
};

/// What a listener, by its descriptor, has met: a shortage, after which it rests.
struct Rest {
    Timestamp since{};
    bool untimed = false;        ///< the clock was not read since
    Duration span{};             ///< how long, at least
    bool may_turn_away = false;  ///< one client, at once
    bool has_reserve = false;    ///< a descriptor to do that with
    bool owes_reserve = false;   ///< it was used
    bool untold = false;         ///< the service has not heard of it
    bool told = false;           ///< and nobody was accepted since
};

/// What the world knows of one runtime.
struct House {
    Options limits;
    bool is_hasty = false; ///< a budget of actions that may be met: what was asked may come later
    std::map<ResourceId, Known> known;
    std::set<std::uint64_t> ids;
    std::map<TimerId, Timer> timers;
    std::vector<TimerId> dead_timers;
    std::uint64_t settings = 0;       ///< of timers
    std::uint64_t set_before = 0;     ///< those up to here were set before this turn's timers
    std::map<int, std::shared_ptr<Talk>> sent_here; ///< transports under way, by descriptor
    std::set<int> listeners_sent_here;
    Controller controller;
    std::vector<ResourceId> gone;     ///< a few that have left
    std::uint64_t commands_sent = 0;
    std::uint64_t commands_handled = 0;
    std::uint64_t last_command = 0;
    std::uint64_t turns = 0;          ///< that had a tick
    std::uint64_t acts = 0;           ///< turns of any kind
    std::uint64_t completed = 0;      ///< the last of these that was not thrown out of, nor the end
    std::uint64_t fired = 0;          ///< timers, in this turn
    std::uint64_t commanded = 0;      ///< commands, in this turn
    std::uint64_t refusals_told = 0;  ///< in this turn
    bool was_refused = false;         ///< and was not told yet
    std::uint64_t refused_in = 0;     ///< which turn
    bool in_turn = false;             ///< behind tick
    Timestamp now{};                  ///< what the turn has shown
    bool has_now = false;             ///< in this turn
    int waker = -1;
    Duration wants_timer{};           ///< the next tick sets it, and nothing else
    std::uint64_t last_number = 0;    ///< of commands
    int wishes = 0;                   ///< what the service is to do when it is next called back
    bool quiet = false;               ///< the service does nothing more
    bool may_end = false;             ///< the service may ask for the end
    bool end_asked = false;
    bool ends_itself = false;         ///< the service has asked for the end
    bool woken = false;               ///< by wake(), and has had no turn since
    bool must_not_sleep = false;      ///< it said that its next turn does not wait
    std::uint64_t performed = 0;      ///< registrations, in this turn
    bool refuses = false;             ///< whoever comes is left alone: the end is near
    bool draining = false;            ///< handle_drain was called
    Timestamp drain_deadline = Timestamp::max();
    std::size_t brought = 0;          ///< bytes that were owed already by who came
    std::size_t handed_over = 0;      ///< transports
    std::size_t unsent = 0;           ///< in these

    [[nodiscard]] std::size_t transports() const {
        return static_cast<std::size_t>(std::count_if(
            known.begin(), known.end(), [](const auto& each) { return each.second.talk; }));
    }
};

/// All that is known of one world.
class Model {
  public:
    explicit Model(sim::World& of) : world(of) {}

    void violated(const std::string& what) { world.fail(what); }
    void hold(bool holds, const char* what) {
        if (!holds) [[unlikely]] {
            violated(what);
        }
    }

    /// An id that the runtime gave out just now.
    Known& meet(House& house, ResourceId id) {
        hold(house.ids.insert(id.value()).second, "I1: an id is given out twice");
        Known& who = house.known[id];
        who.met_in = house.acts;
        return who;
    }
    [[nodiscard]] static Known* find(House& house, ResourceId id) {
        const auto found = house.known.find(id);
        return found == house.known.end() ? nullptr : &found->second;
    }
    /// Through a door.
    std::shared_ptr<Talk> leave(House& house, ResourceId id, const char* door) {
        Known* const who = find(house, id);
        if (who == nullptr) {
            violated(std::string("I4: one who is not known leaves by ") + door);
            return nullptr;
        }
        std::shared_ptr<Talk> talk = std::move(who->talk);
        house.known.erase(id);
        if (house.gone.size() < 8) {
            house.gone.push_back(id);
        } else {
            house.gone[static_cast<std::size_t>(random.below(8))] = id;
        }
        return talk;
    }
    [[nodiscard]] std::shared_ptr<Talk> begin_talk(std::size_t client) {
        auto talk = std::make_shared<Talk>();
        talk->client = client;
        talks.push_back(talk);
        return talk;
    }

    // -- what was sent ----------------------------------------------------------------------------

    /// The text of a send: its number, and then one letter.
    [[nodiscard]] static std::string text_of(std::uint32_t number, std::size_t size) {
        std::string text(size, static_cast<char>(number));
        std::memcpy(text.data(), &number, std::min(size, sizeof number));
        return text;
    }
    /// Whether this is how that send begins.
    [[nodiscard]] bool begins(std::uint32_t number, std::string_view part) const {
        const std::size_t size = sent[number].size;
        char head[sizeof number];
        std::memcpy(head, &number, sizeof number);
        const std::size_t whole = std::min(part.size(), sizeof head);
        return part.size() <= size && std::memcmp(part.data(), head, whole) == 0 &&
               part.find_first_not_of(static_cast<char>(number), whole) == std::string_view::npos;
    }
    /// I6: what the peer has is the beginning of what was sent and did not come back.
    void check_arrived(const Talk& talk, std::string_view received) {
        for (const std::uint32_t number : talk.sends) {
            const std::string_view here = received.substr(0, sent[number].size);
            hold(begins(number, here), "I6: what arrived is not what was sent");
            received.remove_prefix(here.size());
            if (received.empty()) {
                return;
            }
        }
        hold(received.empty(), "I6: more arrived than was sent");
    }
    void take_back(std::string_view bytes) {
        std::uint32_t number = 0;
        if (bytes.size() >= sizeof number) {
            std::memcpy(&number, bytes.data(), sizeof number);
        }
        if (bytes.size() < sizeof number || number >= sent.size() || !sent[number].talk ||
            sent[number].size != bytes.size() || !begins(number, bytes)) {
            return violated("I6: a send comes back that was not made, or not whole, or twice");
        }
        forget(number);
    }
    /// A send came back for want of room: what was sent on that talk since has to come back too.
    void note_hole(std::string_view bytes) {
        std::uint32_t number = 0;
        if (is_hasty || bytes.size() < sizeof number) {
            return;
        }
        std::memcpy(&number, bytes.data(), sizeof number);
        if (number >= sent.size() || !sent[number].talk) {
            return;
        }
        for (const std::uint32_t other : sent[number].talk->sends) {
            if (other > number) {
                must_return.push_back(other);
            }
        }
    }
    /// Who has this descriptor now; null if it is nobody's.
    [[nodiscard]] std::shared_ptr<Talk> talk_of(int fd) const {
        const auto place = static_cast<std::size_t>(fd - sim::System::first_descriptor);
        const auto talk = fd >= sim::System::first_descriptor && place < by_descriptor.size()
                              ? by_descriptor[place].lock()
                              : nullptr;
        return talk && talk->fd == fd ? talk : nullptr;
    }
    /// The rest of the listener with this descriptor.
    [[nodiscard]] Rest& rest_of(int fd) {
        const auto place =
            static_cast<std::size_t>(std::max(fd - sim::System::first_descriptor, 0));
        rests.resize(std::max(rests.size(), place + 1));
        return rests[place];
    }
    /// That send is not in the stream.
    void forget(std::uint32_t number) {
        const std::shared_ptr<Talk> talk = std::move(sent[number].talk);
        talk->accepted -= sent[number].size;
        talk->sends.erase(std::find(talk->sends.begin(), talk->sends.end(), number));
    }

    sim::World& world;
    sim::Random& random = world.random;
    std::vector<std::unique_ptr<House>> houses;
    std::vector<std::unique_ptr<sim::Peer>> clients;
    std::vector<std::unique_ptr<sim::Peer>> servers;
    std::vector<std::shared_ptr<Talk>> talks;
    std::vector<Sent> sent; ///< by number
    std::vector<std::weak_ptr<Talk>> by_descriptor;
    std::vector<Rest> rests;          ///< by descriptor
    std::vector<std::uint32_t> must_return; ///< sends that have to come back
    bool is_hasty = false;            ///< any house is
    House* acting = nullptr;
    /// How far the clock may be behind.
    static constexpr Duration clock_lags{6'000'000};
    Timestamp last_shown{}; ///< the clock
    double throwing = 0;
    bool is_silent = false; ///< other threads do nothing now
};

} // namespace trial
