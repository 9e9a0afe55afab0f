// SPDX-License-Identifier: Apache-2.0
//
// Each callback of a Resource throws once: a stream of the library, whose every member counts its
// calls and throws at one of them, before or after it has done its work. What is thrown passes
// through the turn. Afterwards the runtime goes on, whoever was not thrown at is served, every id
// leaves by one door, every byte is accounted for, and nothing is left.
// (What a service's own callbacks throw, and handle_io, is in throws.cpp.)
#include "call_sites.hpp"

#include "catch.hpp"

#include <reactor/net/stream.hpp>
#include <reactor/poller/epoll.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/runtime.hpp>

#include <sys/socket.h>

#include <array>

using namespace call_sites;
using namespace std::chrono_literals;

namespace {

struct Bomb : std::exception {};

/// The members of a Resource that may throw.
enum class Member {
    handle_io,
    ended,
    trouble,
    deadline,
    handle_deadline,
    keeps_time,
    keep_time,
    write_atomic,
    flush,
    close_write,
    inherit_limits,
    last,
};
const char* name_of(Member member) {
    static constexpr const char* names[] = {"handle_io",     "ended",      "trouble",
                                            "deadline",      "handle_deadline", "keeps_time",
                                            "keep_time",     "write_atomic", "flush",
                                            "close_write",   "inherit_limits"};
    return names[static_cast<std::size_t>(member)];
}

/// Where it is to go off.
struct Fuse {
    Member member = Member::last;
    std::size_t nth = 0;
    bool late = false; ///< when the work is done
    bool gone_off = false;
    std::array<std::size_t, static_cast<std::size_t>(Member::last)> calls{};

    [[nodiscard]] static Fuse*& current() {
        static Fuse* fuse = nullptr;
        return fuse;
    }
};

using Kernel = SiteKernel<os::Kernel>;

template <class Work>
auto at(Member member, Work&& work, bool may_be_late = true) {
    Fuse* const fuse = Fuse::current();
    const bool now = fuse != nullptr &&
                     ++fuse->calls[static_cast<std::size_t>(member)] == fuse->nth &&
                     fuse->member == member;
    const bool late = now && fuse->late && may_be_late;
    const auto go_off = [&](bool when) {
        if (when) {
            fuse->gone_off = true;
            throw Bomb();
        }
    };
    go_off(now && !late);
    if constexpr (std::is_void_v<decltype(work())>) {
        work();
        go_off(late);
    } else {
        auto result = work();
        go_off(late);
        return result;
    }
}

/// A stream that can go off.
class Trap : public BasicStream<Kernel> {
    using Base = BasicStream<Kernel>;

  public:
    using Base::Base;

    std::optional<Event> handle_io(Io io, std::span<std::byte> scratch) {
        // What was read would be lost with a late throw, as the resource itself would say.
        return at(Member::handle_io, [&] { return Base::handle_io(io, scratch); }, false);
    }
    [[nodiscard]] std::optional<std::error_code> ended() const {
        return at(Member::ended, [&] { return Base::ended(); });
    }
    std::error_code trouble() {
        return at(Member::trouble, [] { return std::error_code(); });
    }
    [[nodiscard]] std::optional<Timestamp> deadline() const {
        return at(Member::deadline, [&] { return Base::deadline(); });
    }
    void handle_deadline() {
        at(Member::handle_deadline, [&] { Base::handle_deadline(); });
    }
    [[nodiscard]] bool keeps_time() const {
        return at(Member::keeps_time, [&] { return Base::keeps_time(); });
    }
    void keep_time(Timestamp now, bool reads) {
        at(Member::keep_time, [&] { Base::keep_time(now, reads); });
    }
    [[nodiscard]] WriteStatus write_atomic(std::span<const std::byte> bytes) {
        // A late throw would leave bytes in the stream that nobody was told are there.
        return at(Member::write_atomic, [&] { return Base::write_atomic(bytes); }, false);
    }
    void flush() {
        at(Member::flush, [&] { Base::flush(); });
    }
    void close_write() {
        at(Member::close_write, [&] { Base::close_write(); });
    }
    void inherit_limits(const StreamLimits& limits) {
        at(Member::inherit_limits, [&] { Base::inherit_limits(limits); });
    }

    // Left out, so that all goes through write_atomic.
    WriteStatus write_borrowed(std::span<const std::byte>) = delete;
    WriteStatus write_shared(const Buffer&) = delete;
};

/// Echoes; "!" leaves for good.
struct Echo : Service<NoListener, Trap> {
    explicit Echo(Books& with) : books(&with), life(with) {}

    void handle_registered(ResourceId id, Role, int, Actions&) { books->registered(id); }
    void handle_transport_event(ResourceId id, StreamEvent event, Actions& actions) {
        books->event_of(id);
        if (event.eof()) {
            actions.close_write(id);
        } else if (const auto* const bytes = event.data()) {
            books->received += bytes->size();
            if (bytes->size() == 1) {
                actions.unregister_transport(id);
            } else if (actions.send(id, *bytes)) {
                books->sent += bytes->size();
            }
        }
    }
    void handle_error(Error error, Actions&) {
        if (error.is_end()) {
            books->left(error.id(), error.kind() == ErrorKind::registration_failed);
        }
        books->unsent += error.unsent();
    }
    void handover_transport(ResourceId id, Trap trap, Actions&) {
        books->left(id);
        books->unsent += trap.unsent();
    }

    Books* books;
    Life life;
};

/// The other end of a trap.
struct Friend {
    explicit Friend(int with) : fd(with) {}
    void say(std::string_view text) const {
        static_cast<void>(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL));
    }
    [[nodiscard]] bool hears(std::size_t bytes) {
        char room[256];
        long count = 0;
        while ((count = ::recv(fd.get(), room, sizeof room, MSG_DONTWAIT)) > 0) {
            heard += static_cast<std::size_t>(count);
        }
        is_over |= count == 0 || errno != EAGAIN;
        return heard >= bytes || is_over;
    }
    os::Fd fd;
    std::size_t heard = 0;
    bool is_over = false;
};

struct Outcome {
    bool gone_off = false;
    std::vector<std::string> wrong;
};

template <class Poller>
Outcome live(Fuse fuse) {
    Plan plan({});
    Books books;
    int thrown = 0;
    Fuse::current() = &fuse;
    {
        Runtime<Echo, Poller> runtime(Echo{books});
        std::vector<Friend> friends;
        const auto add_friend = [&](Duration idle) {
            int ends[2] = {-1, -1};
            static_cast<void>(os::Kernel::stream_pair(ends[0], ends[1]));
            friends.emplace_back(ends[1]);
            os::BasicFd<Kernel> mine(ends[0]);
            std::error_code error;
            Trap trap(std::move(mine), error);
            static_cast<void>(trap.set_deadlines({.idle = idle}));
            static_cast<void>(runtime.controller().register_transport(std::move(trap)));
        };
        bool goes_on = true;
        const auto until = [&](auto&& done, Duration patience = {}) {
            const Timestamp begin = os::Kernel::now();
            std::error_code refused;
            while (goes_on && !done()) {
                patience = std::max<Duration>(patience, fuse.gone_off ? 10ms : 10s);
                if (os::Kernel::now() - begin > patience) {
                    break;
                }
                try {
                    goes_on = runtime.turn(1ms, refused);
                } catch (const Bomb&) {
                    ++thrown;
                    patience = {};
                }
                books.require(!refused, "a turn was refused");
            }
        };
        for (const Duration idle : {Duration{4ms}, Duration{60s}, Duration::zero()}) {
            add_friend(idle);
        }
        friends[1].say("hello");
        until([&] { return friends[1].hears(5); });
        friends[2].say("hello");
        until([&] { return friends[2].hears(5); });
        until([&] { return friends[0].hears(1); });
        books.require(friends[0].is_over || fuse.gone_off, "a deadline did not end it");
        friends[2].say("!");
        until([&] { return friends[2].hears(99); });
        friends[1].say("again");
        until([&] { return friends[1].hears(10); });
        ::shutdown(friends[1].fd.get(), SHUT_WR);
        until([&] { return friends[1].hears(99); });
        books.require(friends[1].heard == 10 || fuse.gone_off, "an answer was lost");
        if (fuse.gone_off) { // who comes afterwards finds all as it was
            add_friend(60s);
            friends[3].say("well?");
            until([&] { return friends[3].hears(5); }, 10s);
            books.require(friends[3].heard == 5, "nobody is served any more");
        }
        runtime.controller().shutdown();
        until([] { return false; }, 10s);
        books.require(!goes_on, "the run did not end");
        books.require(thrown == (fuse.gone_off ? 1 : 0), "what was thrown was swallowed");
    }
    Fuse::current() = nullptr;
    books.close(plan);
    books.require(books.lives == 0, "an object of the service is left");
    return {fuse.gone_off, books.errors};
}

std::size_t open_descriptors() {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

} // namespace

TEMPLATE_TEST_CASE("each member of a resource throws once, and the reactor gets over it", "",
                   BasicEpollPoller<Kernel>, BasicPollPoller<Kernel>) {
    const std::size_t before = open_descriptors();
    CHECK(live<TestType>({}).wrong.empty());
    std::string table;
    for (std::size_t member = 0; member < static_cast<std::size_t>(Member::last); ++member) {
        std::size_t runs = 0;
        for (const bool late : {false, true}) {
            for (std::size_t nth = 1; nth <= 8; ++nth) {
                const Outcome outcome =
                    live<TestType>({static_cast<Member>(member), nth, late, false, {}});
                INFO(name_of(static_cast<Member>(member)) << ", call " << nth
                                                          << (late ? ", late" : ", early"));
                for (const std::string& wrong : outcome.wrong) {
                    FAIL_CHECK(wrong);
                }
                runs += outcome.gone_off ? 1 : 0;
                if (!outcome.gone_off) {
                    break;
                }
            }
        }
        INFO(name_of(static_cast<Member>(member)));
        CHECK(runs > 0);
        table += std::string(name_of(static_cast<Member>(member))) + " " + std::to_string(runs) +
                 " ";
    }
    INFO("runs in which it was thrown: " << table);
    CHECK(open_descriptors() == before);
}
