// SPDX-License-Identifier: Apache-2.0
// expect: a Resource must have a public int fd() const
// What it lacks as a Resource comes first.
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Wrong = Without<AnswersFd, MinimalWritable>;

struct Served : Service<MinimalResource, Wrong> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
