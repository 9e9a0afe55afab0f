// SPDX-License-Identifier: Apache-2.0
// expect: the service must name Actions: BasicActions<Listener, Transport>
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Served : MinimalService {
    using Actions = BasicActions<MinimalWritable, MinimalWritable>;
};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
