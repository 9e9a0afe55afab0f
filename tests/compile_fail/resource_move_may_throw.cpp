// SPDX-License-Identifier: Apache-2.0
// expect: a Resource must be an object type with noexcept move construction
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

struct Wrong : NamesEvent, AnswersFd, AnswersInterest, ReadsByItself {
    Wrong(Wrong&&) {}
};

struct Served : Service<Wrong, MinimalWritable> {};

void run(reactor::Runtime<Served>& runtime) { runtime.run(); }
