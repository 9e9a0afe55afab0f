// SPDX-License-Identifier: Apache-2.0
// expect: a Resource must have a public Interest interest() const
// The fact in place of the wish: they are two types to keep them apart.
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : Without<AnswersInterest, MinimalResource> {
    Readiness interest() const { return {}; }
};

struct Served : Service<Wrong, MinimalWritable> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
