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

// Each power of a Poller. To instantiate all of the Runtime, the Poller must be made from nothing
// and, for clang 14, have fd().
template class reactor::Runtime<MinimalHandler, FromNothing<PollerWith<CanBeNested>>>;
template class reactor::Runtime<MinimalHandler,
                                FromNothing<PollerWith<CanBeNested, TellsThatItNeverWaits>>>;
template class reactor::Runtime<MinimalHandler,
                                FromNothing<PollerWith<CanBeNested, CanStartAfresh>>>;

// What another thread holds.
template class reactor::Controller<MinimalResource, MinimalWritable, archetypes::Command>;
template class reactor::Controller<MinimalResource, MinimalWritable, NoCommand>;

// A Poller that is given needs none of this.
Farewell run(MinimalPoller poller) {
    std::error_code error;
    Runtime<CommandedHandler, MinimalPoller> runtime(CommandedHandler(0), Options{},
                                                     std::move(poller), error);
    runtime.listen(MinimalResource(0));
    const auto controller = runtime.controller();
    if (auto answer = controller.command(archetypes::Command(0)); !answer) {
        static_cast<void>(answer.take());
    }
    if (auto answer = controller.register_transport(MinimalWritable(0)); !answer) {
        static_cast<void>(answer.take());
    }
    controller.drain(Duration::zero());
    return runtime.turn(runtime.until_next(), error) ? runtime.farewell() : runtime.run(error);
}
