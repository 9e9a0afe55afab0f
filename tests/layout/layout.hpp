// SPDX-License-Identifier: Apache-2.0
//
// What two units of one program know of the library's types.
#pragma once

#include <cstddef>
#include <span>

struct Layout {
    const char* type;
    std::size_t size;
    std::size_t alignment;
};

/// The same types in the same order, as each unit sees them.
std::span<const Layout> with_exceptions();
std::span<const Layout> without_exceptions();
