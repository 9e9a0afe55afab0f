// SPDX-License-Identifier: Apache-2.0
// expect: the service must name a type Listener: derive it
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Served = Without<NamesListener<MinimalResource>, MinimalHandler>;

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
