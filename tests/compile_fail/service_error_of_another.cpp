// SPDX-License-Identifier: Apache-2.0
// expect: the service must name Error: BasicError<Listener, Transport>
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    using Error = std::error_code;
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
