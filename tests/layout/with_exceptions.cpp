// SPDX-License-Identifier: Apache-2.0
#include "types.hpp"

#if !defined(__cpp_exceptions) || !defined(__GXX_RTTI)
#error "this is to be built with exceptions and run-time types"
#endif

std::span<const Layout> with_exceptions() { return layouts; }
