// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include <reactor/io.hpp>

TEST_CASE("smoke") { CHECK(reactor::Interest{}.none()); }
