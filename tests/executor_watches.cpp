// SPDX-License-Identifier: Apache-2.0
//
// An executor's side of the poller, without a loop: orders are carried out by Actions that a test
// can fill up, and what is late, or of somebody else, does nothing.
#include "catch.hpp"

#include <reactor/executor/watches.hpp>
#include <reactor/os/fd.hpp>

#include <vector>

namespace {

using namespace reactor;

/// Notes what is closed.
struct ClosingKernel {
    static inline std::vector<int> closed;

    static void close(int fd) noexcept { closed.push_back(fd); }
};
using TestFd = os::BasicFd<ClosingKernel>;
using TestWatches = detail::Watches<TestFd>;
using Watch = TestWatches::Watch;
using Order = TestWatches::Order;
using detail::LinkId;

/// As much of Actions as Watches want.
struct ToyActions {
    ResourceId register_listener(Watch watch) {
        if (full) {
            return {};
        }
        const auto number = static_cast<std::uint32_t>(registered.size());
        registered.push_back(watch);
        return ResourceId::of(number, 1);
    }
    bool unregister_listener(ResourceId id) {
        unregistered.push_back(id);
        return !full;
    }
    bool resume(ResourceId) {
        ++resumed;
        return !full;
    }

    bool full = false;
    std::vector<Watch> registered{};
    std::vector<ResourceId> unregistered{};
    int resumed = 0;
};

Order order_of(LinkId link, Interest interest, std::uint32_t round = 0, TestFd to_close = {}) {
    return {link, 7, interest, round, std::move(to_close)};
}
constexpr Interest reading{true, false};
constexpr Interest writing{false, true};

const LinkId its_link = LinkId::of(3, 1);
const LinkId next_of_its_slot = LinkId::of(3, 2);

} // namespace

TEST_CASE("an order that finds the actions full leaves everything as it was, to be tried again") {
    TestWatches watches;
    ToyActions actions;
    Order begin = order_of(its_link, reading);
    actions.full = true;
    CHECK_FALSE(watches.carry_out(begin, {}, actions));
    CHECK(actions.registered.empty());
    actions.full = false;
    REQUIRE(watches.carry_out(begin, {}, actions));
    REQUIRE(actions.registered.size() == 1);
    const Watch& watch = actions.registered[0];
    CHECK(watch.fd() == 7);
    CHECK(watch.interest() == reading);

    Order change = order_of(its_link, writing, 1);
    actions.full = true;
    CHECK_FALSE(watches.carry_out(change, {}, actions));
    CHECK(watch.interest() == reading);
    CHECK(watches.carry_out(change, its_link, actions)); // served just now
    CHECK(watch.interest() == writing);
    CHECK(actions.resumed == 1);

    ClosingKernel::closed.clear();
    Order end = order_of(its_link, {}, 1, TestFd(7));
    CHECK_FALSE(watches.carry_out(end, {}, actions));
    CHECK(watch.interest() == writing);
    CHECK(end.to_close);
    actions.full = false;
    CHECK(watches.carry_out(end, {}, actions));
    CHECK(watch.interest().none());
    CHECK(ClosingKernel::closed.empty()); // not before it has left
    CHECK_FALSE(watches.left(watch, {}));
    CHECK(ClosingKernel::closed == std::vector<int>{7});
}

TEST_CASE("what has left by itself tells its link, and is not asked to leave again") {
    TestWatches watches;
    ToyActions actions;
    Order begin = order_of(its_link, reading, 5);
    REQUIRE(watches.carry_out(begin, {}, actions));
    const auto told = watches.left(actions.registered[0],
                                   std::make_error_code(std::errc::bad_file_descriptor));
    REQUIRE(told);
    CHECK(told->link == its_link);
    CHECK(told->round == 5);
    CHECK(told->cause() == std::errc::bad_file_descriptor);

    Order end = order_of(its_link, {}); // on its way when it left
    CHECK(watches.carry_out(end, {}, actions));
    CHECK(actions.unregistered.empty());
}

TEST_CASE("only a link's own Watch is muted, and a link that names nothing has none") {
    TestWatches watches;
    ToyActions actions;
    Order begin = order_of(its_link, reading);
    REQUIRE(watches.carry_out(begin, {}, actions));
    const Watch& watch = actions.registered[0];
    watches.mute({});
    watches.mute(next_of_its_slot);
    watches.mute(LinkId::of(1000, 1));
    CHECK(watch.interest() == reading);
    watches.mute(its_link);
    CHECK(watch.interest().none());
}
