// SPDX-License-Identifier: Apache-2.0
//
// The types of the library, as the unit that includes this sees them.
#pragma once

#include "layout.hpp"

#include <reactor/net/tcp.hpp>
#include <reactor/poller/poll.hpp>
#include <reactor/reactor.hpp>

#include <array>
#include <string>

#define LAYOUT_OF(...)                                                                             \
    Layout { #__VA_ARGS__, sizeof(__VA_ARGS__), alignof(__VA_ARGS__) }

namespace {

using namespace reactor;

struct Served : Service<TcpListener, TcpStream, std::string> {
    void handle_listener_event(ResourceId, TcpListener::Event, Actions&) {}
    void handle_transport_event(ResourceId, TcpStream::Event, Actions&) {}
    void handle_command(std::string, Actions&) {}
};

constexpr std::array layouts{
    LAYOUT_OF(Interest),
    LAYOUT_OF(Readiness),
    LAYOUT_OF(ResourceId),
    LAYOUT_OF(TimerId),
    LAYOUT_OF(Buffer),
    LAYOUT_OF(StreamLimits),
    LAYOUT_OF(Options),
    LAYOUT_OF(os::Fd),
    LAYOUT_OF(os::Result),
    LAYOUT_OF(PollEvent),
    LAYOUT_OF(PollResult),
    LAYOUT_OF(Action),
    LAYOUT_OF(Served::Actions),
    LAYOUT_OF(Served::Error),
    LAYOUT_OF(Served::Controller),
    LAYOUT_OF(SendAnswer<std::string>),
    LAYOUT_OF(Farewell),
    LAYOUT_OF(Served),
    LAYOUT_OF(TimerWheel),
    LAYOUT_OF(EpollPoller),
    LAYOUT_OF(PollPoller),
    LAYOUT_OF(detail::Fifo<Action>),
    LAYOUT_OF(detail::Gather),
    LAYOUT_OF(detail::OutBuffer),
    LAYOUT_OF(detail::Desk<TcpListener, TcpStream>),
    LAYOUT_OF(detail::Slot<TcpListener, Role::listener>),
    LAYOUT_OF(detail::Slot<TcpStream, Role::transport>),
    LAYOUT_OF(detail::Registry<TcpStream, Role::transport>),
    LAYOUT_OF(detail::Mailbox<std::string>),
    LAYOUT_OF(detail::Line<TcpListener, TcpStream, std::string>),
    LAYOUT_OF(detail::Holdings<TcpListener, TcpStream, EpollPoller>),
    LAYOUT_OF(detail::Dispatcher<Served, EpollPoller>),
    LAYOUT_OF(detail::StopSignal),
    LAYOUT_OF(Address),
    LAYOUT_OF(StreamEvent),
    LAYOUT_OF(Stream),
    LAYOUT_OF(TcpStream),
    LAYOUT_OF(TcpListener),
    LAYOUT_OF(TcpListener::Event),
    LAYOUT_OF(ResourceMap<std::string>),
    LAYOUT_OF(Runtime<Served>),
    LAYOUT_OF(Runtime<Served, PollPoller>),
    LAYOUT_OF(Reactor<Served>),
};

} // namespace
