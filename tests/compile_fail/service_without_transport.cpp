// SPDX-License-Identifier: Apache-2.0
// expect: the service must name a type Transport: derive it
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Served = Without<NamesTransport<MinimalWritable>, MinimalHandler>;

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
