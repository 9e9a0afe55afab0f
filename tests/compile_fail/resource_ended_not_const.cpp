// SPDX-License-Identifier: Apache-2.0
// expect: the optional power of a Resource must read: std::optional<std::error_code> ended() const
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : MinimalResource {
    std::optional<std::error_code> ended() { return std::nullopt; }
};

struct Served : Service<Wrong, MinimalWritable> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
