// SPDX-License-Identifier: Apache-2.0
// expect: the service must name Actions: BasicActions<Listener, Transport>
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Served = Without<NamesActions<MinimalResource, MinimalWritable>, MinimalHandler>;

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
