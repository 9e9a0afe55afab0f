// SPDX-License-Identifier: Apache-2.0
//
// Catch2 for the tests, version 2 or version 3, under the names of version 3.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>

using Catch::Approx;
#else
#include <catch2/catch.hpp>

#include <string>

namespace Catch::Matchers {
inline auto ContainsSubstring(const std::string& text) { return Contains(text); }
} // namespace Catch::Matchers
#endif
