// SPDX-License-Identifier: Apache-2.0
// expect: a Resource must have a public int fd() const
// As a class is, unless told otherwise.
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

class Wrong : public Without<AnswersFd, MinimalResource> {
    int fd() const { return -1; }
};

struct Served : Service<Wrong, MinimalWritable> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
