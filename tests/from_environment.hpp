// SPDX-License-Identifier: Apache-2.0
//
// How much a test is to do, from the environment.
#pragma once

#include <cstdint>
#include <cstdlib>

/// The number that the variable holds, or `otherwise` if there is none.
inline std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* const text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}
