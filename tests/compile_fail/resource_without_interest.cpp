// SPDX-License-Identifier: Apache-2.0
// expect: a Resource must have a public Interest interest() const
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

using Wrong = Without<AnswersInterest, MinimalResource>;

struct Served : Service<Wrong, MinimalWritable> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
