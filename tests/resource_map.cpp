// SPDX-License-Identifier: Apache-2.0
#include <reactor/resource_map.hpp>

#include <algorithm>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "catch.hpp"

using namespace reactor;

namespace {

/// Counts how many of it live.
struct Counted {
    static inline int living = 0;

    explicit Counted(int with = 0) : value(with) { ++living; }
    Counted(Counted&& other) noexcept : value(other.value) { ++living; }
    Counted& operator=(Counted&&) = default;
    ~Counted() { --living; }

    int value;
};

/// Stays where it was made.
struct Immovable {
    explicit Immovable(int with) : value(with), self(this) {
        if (with < 0) {
            throw std::runtime_error("negative");
        }
    }
    Immovable(const Immovable&) = delete;
    Immovable& operator=(const Immovable&) = delete;

    int value;
    const Immovable* self;
};

ResourceId id(std::uint32_t slot, std::uint64_t generation = 1) {
    return ResourceId::of(slot, generation);
}

} // namespace

TEST_CASE("ResourceMap: a value is found by its id, by no other") {
    ResourceMap<std::string> map;
    CHECK(map.empty());
    CHECK(map.find(id(0)) == nullptr);
    CHECK(map.find(ResourceId{}) == nullptr);

    std::string& value = map.emplace(id(4, 7), 3U, 'x');
    CHECK(value == "xxx");
    CHECK(map.size() == 1);
    CHECK(map.find(id(4, 7)) == &value);
    CHECK(std::as_const(map).find(id(4, 7)) == &value);
    CHECK(map.contains(id(4, 7)));
    for (const ResourceId other : {id(4, 6), id(4, 8), id(5, 7), id(6, 7), id(4 + 128, 7),
                                   id(0xffffff, 7), ResourceId{}, id(0), id(1)}) {
        CHECK(map.find(other) == nullptr);
        CHECK_FALSE(map.contains(other));
        CHECK_FALSE(map.erase(other));
        CHECK_FALSE(map.take(other));
    }
    CHECK(map.size() == 1);
    CHECK(map.erase(id(4, 7)));
    CHECK_FALSE(map.erase(id(4, 7)));
    CHECK(map.empty());
    CHECK(map.find(id(4, 7)) == nullptr);
    CHECK(map.find(ResourceId{}) == nullptr);
}

TEST_CASE("ResourceMap: the first slot is one like the others") {
    ResourceMap<int> map;
    map[id(0)] = 1;
    map[id(1)] = 2;
    CHECK(map.find(ResourceId{}) == nullptr);
    CHECK(map.find(ResourceId::from_value(1)) == nullptr); // the first listener, generation 0
    CHECK(*map.find(id(0)) == 1);
    CHECK(*map.find(id(1)) == 2);
    map.erase(id(0));
    CHECK(map.find(ResourceId{}) == nullptr);
    CHECK(*map.find(id(1)) == 2);
}

TEST_CASE("ResourceMap: the last slot and the last generation") {
    ResourceMap<int> map;
    const ResourceId last = id(ResourceId::slot_count - 1, ResourceId::last_generation);
    map[last] = 7;
    CHECK(*map.find(last) == 7);
    std::size_t seen = 0;
    for (auto& [key, value] : map) {
        CHECK(key == last);
        CHECK(value == 7);
        ++seen;
    }
    CHECK(seen == 1);
}

TEST_CASE("ResourceMap: operator[] makes a value once") {
    ResourceMap<int> map;
    CHECK(map[id(2)] == 0);
    map[id(2)] = 5;
    CHECK(map[id(2)] == 5);
    CHECK(map.size() == 1);
    CHECK(map[id(2, 2)] == 0); // another resource, another value
    CHECK(map.size() == 1);
    CHECK(map.find(id(2)) == nullptr);
}

TEST_CASE("ResourceMap: emplace replaces what stands in the slot") {
    ResourceMap<std::string> map;
    map.emplace(id(2), "old");
    map.emplace(id(2, 3), "new");
    CHECK(map.size() == 1);
    CHECK(map.find(id(2)) == nullptr);
    CHECK(*map.find(id(2, 3)) == "new");
    // From what it replaces.
    map.emplace(id(2, 4), *map.find(id(2, 3)) + "er, and too long for the string to hold itself");
    map.emplace(id(2, 5), *map.find(id(2, 4)));
    CHECK(*map.find(id(2, 5)) == "newer, and too long for the string to hold itself");
    map.emplace(id(2, 5), std::move(*map.find(id(2, 5))));
    CHECK(*map.find(id(2, 5)) == "newer, and too long for the string to hold itself");
    CHECK(map.size() == 1);
}

TEST_CASE("ResourceMap: take moves the value out") {
    ResourceMap<std::unique_ptr<int>> map;
    map.emplace(id(3), std::make_unique<int>(9));
    CHECK_FALSE(map.take(id(3, 2)));
    auto taken = map.take(id(3));
    REQUIRE(taken);
    CHECK(**taken == 9);
    CHECK(map.empty());
    CHECK_FALSE(map.take(id(3)));
}

TEST_CASE("ResourceMap: values need not move, and do not") {
    ResourceMap<Immovable> map;
    std::vector<const Immovable*> places;
    for (std::uint32_t slot = 0; slot < 1000; ++slot) {
        places.push_back(&map.emplace(id(slot), static_cast<int>(slot)));
    }
    for (std::uint32_t slot = 0; slot < 1000; ++slot) {
        const Immovable* const found = map.find(id(slot));
        REQUIRE(found == places[slot]);
        REQUIRE(found->self == found);
        REQUIRE(found->value == static_cast<int>(slot));
    }
}

TEST_CASE("ResourceMap: a constructor that throws leaves no value") {
    ResourceMap<Immovable> map;
    CHECK_THROWS_AS(map.emplace(id(2), -1), std::runtime_error);
    CHECK(map.empty());
    CHECK(map.begin() == map.end());
    map.emplace(id(2), 1);
    CHECK_THROWS_AS(map.emplace(id(2, 2), -1), std::runtime_error);
    CHECK(map.empty()); // Immovable: it had to go first
    map.emplace(id(2, 2), 2);
    CHECK(map.size() == 1);

    struct Picky {
        explicit Picky(int with) : value(with) {
            if (with < 0) {
                throw std::runtime_error("negative");
            }
        }
        int value;
    };
    ResourceMap<Picky> movable;
    movable.emplace(id(2), 1);
    CHECK_THROWS_AS(movable.emplace(id(2, 2), -1), std::runtime_error);
    CHECK(movable.find(id(2))->value == 1); // it stays
}

TEST_CASE("ResourceMap: every value is destroyed once") {
    Counted::living = 0;
    {
        ResourceMap<Counted> map;
        for (std::uint32_t slot = 0; slot < 500; ++slot) {
            map.emplace(id(slot), 1);
        }
        CHECK(Counted::living == 500);
        for (std::uint32_t slot = 0; slot < 500; slot += 2) {
            map.emplace(id(slot, 2), 2);
        }
        CHECK(Counted::living == 500);
        for (std::uint32_t slot = 0; slot < 100; ++slot) {
            map.erase(id(slot, 2));
        }
        CHECK(Counted::living == 450);
        CHECK(map.take(id(101))->value == 1);
        CHECK(Counted::living == 449);

        ResourceMap<Counted> other = std::move(map);
        CHECK(Counted::living == 449);
        CHECK(other.size() == 449);
        CHECK(map.empty()); // NOLINT: a map that was moved from is empty
        CHECK(map.begin() == map.end());
        map.emplace(id(1), 1);
        map = std::move(other);
        CHECK(Counted::living == 449);
        map.clear();
        CHECK(Counted::living == 0);
        CHECK(map.empty());
        map.emplace(id(7), 1);
    }
    CHECK(Counted::living == 0);
}

TEST_CASE("ResourceMap: aggregates are made of their members") {
    struct Session {
        std::string name;
        int count = 0;
    };
    ResourceMap<Session> map;
    map.emplace(id(2), "anna", 3);
    map.emplace(id(4), Session{"bert", 4});
    map[id(6)] = {"carl", 5};
    CHECK(map.find(id(2))->name == "anna");
    CHECK(map.find(id(4))->count == 4);
    CHECK(map[id(6)].name == "carl");
    CHECK(map.emplace(id(8)).count == 0);
}

TEST_CASE("ResourceMap: over-aligned values") {
    struct alignas(64) Line {
        int value = 0;
    };
    ResourceMap<Line> map;
    for (std::uint32_t slot = 0; slot < 200; ++slot) {
        const auto address = reinterpret_cast<std::uintptr_t>(&map[id(slot)]);
        REQUIRE(address % 64 == 0);
    }
}

TEST_CASE("ResourceMap: iteration") {
    ResourceMap<int> map;
    for (const std::uint32_t slot : {9U, 0U, 4U, 1U, 128U, 1000U, 4001U}) {
        map[id(slot)] = static_cast<int>(slot);
    }
    const std::vector<std::uint32_t> transports_first{0, 4, 128, 1000, 1, 9, 4001};

    std::vector<std::uint32_t> seen;
    for (auto& [key, value] : map) {
        CHECK(key == id(static_cast<std::uint32_t>(value)));
        seen.push_back(key.slot());
        ++value;
    }
    CHECK(seen == transports_first);

    seen.clear();
    for (auto [key, value] : map) { // a reference all the same
        CHECK(static_cast<std::uint32_t>(value) == key.slot() + 1);
        seen.push_back(key.slot());
        --value;
    }
    CHECK(seen == transports_first);

    seen.clear();
    for (const auto& [key, value] : std::as_const(map)) {
        static_assert(std::is_same_v<decltype(value), const int&>);
        CHECK(static_cast<std::uint32_t>(value) == key.slot());
        seen.push_back(key.slot());
    }
    CHECK(seen == transports_first);

    CHECK(std::count_if(map.begin(), map.end(), [](auto& item) { return item.value > 4; }) == 4);
    auto at = map.begin();
    CHECK(at->id == id(0));
    CHECK((at++)->id == id(0));
    CHECK((*at).value == 4);
    static_assert(std::input_iterator<ResourceMap<int>::iterator>);
    static_assert(std::input_iterator<ResourceMap<int>::const_iterator>);

    ResourceMap<std::unique_ptr<int>> owners;
    owners.emplace(id(2), std::make_unique<int>(1));
    for (auto [key, owner] : owners) {
        CHECK(*owner == 1);
        CHECK(key);
    }
}

TEST_CASE("ResourceMap: erasing while iterating") {
    ResourceMap<Counted> map;
    Counted::living = 0;
    for (std::uint32_t slot = 0; slot < 1000; ++slot) {
        map.emplace(id(slot), static_cast<int>(slot));
    }
    std::size_t seen = 0;
    SECTION("the current one") {
        for (auto& [key, value] : map) {
            ++seen;
            const bool odd = value.value % 3 == 0;
            if (odd) {
                CHECK(map.erase(key));
                CHECK_FALSE(map.contains(key)); // the key is our own
            }
        }
        CHECK(seen == 1000);
        CHECK(map.size() == 666);
    }
    SECTION("all of them, page by page") {
        for (auto [key, value] : map) {
            ++seen;
            map.erase(key);
        }
        CHECK(seen == 1000);
        CHECK(map.empty());
    }
    SECTION("one that would have come next") {
        for (auto [key, value] : map) {
            ++seen;
            map.erase(id(key.slot() + 2));
        }
        CHECK(seen == 500);
        CHECK(map.size() == 500);
    }
    SECTION("all of them at once") {
        for ([[maybe_unused]] auto& item : map) {
            ++seen;
            map.clear();
        }
        CHECK(seen == 1);
    }
    SECTION("adding behind") {
        for (auto [key, value] : map) {
            ++seen;
            if (key.slot() < 10) {
                map.emplace(id(key.slot() + 100'000), 1);
            }
        }
        CHECK(seen == 1010);
    }
    CHECK(Counted::living == static_cast<int>(map.size()));
}

TEST_CASE("ResourceMap: a destructor may erase others") {
    struct Chain {
        ResourceMap<Chain>* map = nullptr;
        ResourceId next;
        ~Chain() {
            if (map != nullptr) {
                map->erase(next);
            }
        }
    };
    ResourceMap<Chain> map;
    for (std::uint32_t slot = 0; slot < 400; slot += 2) {
        Chain& chain = map[id(slot)];
        chain.map = &map;
        chain.next = id(slot + 2);
    }
    map.erase(id(200));
    CHECK(map.size() == 100);
    map.erase(id(0));
    CHECK(map.empty());
}

TEST_CASE("ResourceMap: behaves like a map by id, for any history") {
    for (unsigned seed = 0; seed < 20; ++seed) {
        std::mt19937 random(seed);
        const std::uint32_t slots = seed % 2 == 0 ? 12 : 2000;
        Counted::living = 0;
        ResourceMap<Counted> map;
        std::unordered_map<ResourceId, int> model;
        std::vector<std::uint64_t> generations(slots, 1);
        bool right = true;
        for (int step = 0; step < 4000; ++step) {
            const auto slot = static_cast<std::uint32_t>(random() % slots);
            std::uint64_t& generation = generations[slot];
            const ResourceId now = id(slot, generation);
            const ResourceId stale = id(slot, generation > 1 ? generation - 1 : 99);
            const int value = static_cast<int>(random() % 1000);
            switch (random() % 8) {
            case 0:
            case 1:
                map.emplace(now, value);
                model.insert_or_assign(now, value);
                break;
            case 2:
                map[now].value += value;
                model[now] += value;
                break;
            case 3:
                right = right && map.erase(now) == (model.erase(now) != 0);
                break;
            case 4: { // its successor comes before anybody erased it
                map.emplace(id(slot, generation + 1), value);
                model.erase(now);
                model.emplace(id(slot, generation + 1), value);
                ++generation;
                break;
            }
            case 5: {
                const auto taken = map.take(now);
                const auto known = model.find(now);
                right = right && taken.has_value() == (known != model.end());
                right = right && (!taken || taken->value == known->second);
                model.erase(now);
                ++generation;
                break;
            }
            case 6:
                right = right && !map.contains(stale) && !map.erase(stale) && !map.take(stale);
                break;
            default:
                if (random() % 50 == 0) {
                    map.clear();
                    model.clear();
                }
            }
            const Counted* const found = map.find(now);
            const auto known = model.find(now);
            right = right && (found != nullptr) == (known != model.end());
            right = right && (found == nullptr || found->value == known->second);
            right = right && map.size() == model.size();
            right = right && Counted::living == static_cast<int>(model.size());
        }
        std::size_t seen = 0;
        for (auto& [key, value] : map) {
            ++seen;
            right = right && model.count(key) == 1 && model[key] == value.value;
        }
        CHECK(seen == model.size());
        CHECK(right);
    }
}
