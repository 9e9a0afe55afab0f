// SPDX-License-Identifier: Apache-2.0
#include "types.hpp"

#if defined(__cpp_exceptions) || defined(__GXX_RTTI)
#error "this is to be built with -fno-exceptions -fno-rtti"
#endif

std::span<const Layout> without_exceptions() { return layouts; }
