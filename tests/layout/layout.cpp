// SPDX-License-Identifier: Apache-2.0
//
// Returns 0 if every type has the same size and alignment with exceptions and without: then objects
// may pass between units that are compiled so and units that are not.
#include "layout.hpp"

#include <cstdio>

int main() {
    const std::span<const Layout> with = with_exceptions();
    const std::span<const Layout> without = without_exceptions();
    if (with.empty() || with.size() != without.size()) {
        std::fputs("there is nothing to compare\n", stderr);
        return 1;
    }
    int different = 0;
    for (std::size_t n = 0; n < with.size(); ++n) {
        if (with[n].size != without[n].size || with[n].alignment != without[n].alignment) {
            std::fprintf(stderr, "%s: %zu bytes with exceptions, %zu without\n", with[n].type,
                         with[n].size, without[n].size);
            ++different;
        }
    }
    return different == 0 ? 0 : 1;
}
