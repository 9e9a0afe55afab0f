// SPDX-License-Identifier: Apache-2.0
// expect: a Resource must have a public int fd() const
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Wrong = Without<AnswersFd, MinimalResource>;

struct Served : Service<Wrong, MinimalWritable> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
