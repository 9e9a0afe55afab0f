// SPDX-License-Identifier: Apache-2.0
//
// A Runtime compiles with archetypes, whole: it asks no more of a type than its concept does.
#include "../archetypes.hpp"

#include <reactor/runtime.hpp>

using namespace archetypes;

template class reactor::Runtime<MinimalHandler>;
template class reactor::Runtime<CommandedHandler>;

// Each form and each power of a Resource, in both roles.
template class reactor::Runtime<HandlerOf<ScratchResource, ScratchWritable>>;
template class reactor::Runtime<HandlerOf<ResourceWith<TellsEnd>, WritableWith<TellsEnd>>>;
template class reactor::Runtime<HandlerOf<ResourceWith<TellsTrouble>, WritableWith<TellsTrouble>>>;
template class reactor::Runtime<HandlerOf<ResourceWith<HasDeadline>, WritableWith<HasDeadline>>>;
template class reactor::Runtime<
    HandlerOf<ResourceWith<TakesStreamLimits>, WritableWith<TakesStreamLimits>>>;
template class reactor::Runtime<
    HandlerOf<ResourceWith<BornNonBlocking>, WritableWith<BornNonBlocking>>>;
template class reactor::Runtime<HandlerOf<MinimalResource, WritableWith<Borrows>>>;
template class reactor::Runtime<HandlerOf<MinimalResource, WritableWith<SharesBuffers>>>;

// A role that is not used; one type in both roles; the optional callback.
template class reactor::Runtime<HandlerOf<NoListener, MinimalWritable>>;
template class reactor::Runtime<HandlerOf<MinimalResource, NoTransport>>;
template class reactor::Runtime<HandlerOf<MinimalWritable, MinimalWritable>>;
template class reactor::Runtime<
    HandlerOf<MinimalResource, MinimalWritable, HandlesDrain<MinimalResource, MinimalWritable>>>;

// Each power of a Poller.
template class reactor::Runtime<MinimalHandler, PollerWith<DefaultMade>>;
template class reactor::Runtime<MinimalHandler, PollerWith<DefaultMade, CanBeNested>>;
template class reactor::Runtime<MinimalHandler, PollerWith<DefaultMade, CanStartAfresh>>;

// What another thread holds.
template class reactor::Controller<MinimalResource, MinimalWritable, Command>;
template class reactor::Controller<MinimalResource, MinimalWritable, NoCommand>;

