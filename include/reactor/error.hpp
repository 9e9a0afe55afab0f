// SPDX-License-Identifier: Apache-2.0
//
// Contracts: what happened that the service did not ask for, as a value.
//
// An Error is moved into `handle_error` and carries with it everything that is the service's: the
// resource that ended or could not be registered, the bytes that could not be sent. What the
// service does not take out is destroyed with the Error, which closes it. Unknown ids, full buffers
// and failed system calls all come this way; none of them throws and none of them aborts.
#pragma once

#include <reactor/buffer.hpp>
#include <reactor/io.hpp>
#include <reactor/resource.hpp>
#include <reactor/resource_id.hpp>

#include <optional>
#include <system_error>
#include <utility>

namespace reactor::inline v0 {

/// What an Error tells.
enum class ErrorKind : std::uint8_t {
    ended,               ///< a resource ended by itself; the code says why (zero: clean). An end
    registration_failed, ///< a resource could not be registered. An end: its id was known already
    interest_failed,     ///< the poller would not watch a resource any more. An end
    shed,                ///< a transport left as too much was owed (Options::shedding). An end
    trouble,             ///< a resource reports a cause that is no end of it
    send_returned,       ///< a live transport did not take a send: it comes back whole
    unknown_id,          ///< an action named what is not registered; a send comes back whole
    actions_refused,     ///< a limit of Options was met: what was asked for is not done
    poll_failed,         ///< the poller could not wait; told once a row of failures
};

/// What happened, with what is the service's. Move-only.
template <class Listener, class Transport>
class BasicError {
  public:
    /// For runtimes, and for tests of a service.
    explicit BasicError(ErrorKind kind, ResourceId id = {}, std::error_code code = {}) noexcept
        : kind_(kind), code_(code), id_(id) {}

    /// @{
    /// Moves what it gives back too; what was moved from is not to be asked any more.
    BasicError(BasicError&&) noexcept = default;
    BasicError& operator=(BasicError&&) noexcept = default;
    /// @}
    [[gnu::cold]] ~BasicError() = default;

    /// What happened.
    [[nodiscard]] ErrorKind kind() const noexcept { return kind_; }
    /// Which resource it is about; names nothing where it is about none.
    [[nodiscard]] ResourceId id() const noexcept { return id_; }
    /// The cause. Zero with ErrorKind::ended: a clean end.
    [[nodiscard]] std::error_code code() const noexcept { return code_; }
    /// Whether the resource `id()` has left with this; no event of it follows.
    [[nodiscard]] bool is_end() const noexcept {
        return kind_ == ErrorKind::ended || kind_ == ErrorKind::registration_failed ||
               kind_ == ErrorKind::interest_failed || kind_ == ErrorKind::shed;
    }
    /// Bytes that were accepted for sending and never taken by the kernel, or came back unsent.
    [[nodiscard]] std::size_t unsent() const noexcept { return unsent_; }

    /// The listener, if this gives one back. Once.
    [[nodiscard]] std::optional<Listener> take_listener() noexcept {
        return std::exchange(listener_, std::nullopt);
    }
    /// The transport, if this gives one back. Once.
    [[nodiscard]] std::optional<Transport> take_transport() noexcept {
        return std::exchange(transport_, std::nullopt);
    }
    /// The bytes of a send that came back; empty if this gives none back. Once.
    [[nodiscard]] Buffer take_payload() noexcept { return std::exchange(payload_, Buffer{}); }

    /// @{
    /// For whoever makes the Error: puts in what will be taken out.
    void put_listener(Listener&& listener) noexcept { listener_.emplace(std::move(listener)); }
    void put_transport(Transport&& transport) noexcept { transport_.emplace(std::move(transport)); }
    void put_payload(Buffer payload) noexcept {
        unsent_ = payload.size();
        payload_ = std::move(payload);
    }
    void put_unsent(std::size_t bytes) noexcept { unsent_ = bytes; }
    /// @}

  private:
    ErrorKind kind_;
    std::error_code code_;
    ResourceId id_;
    std::size_t unsent_ = 0;
    std::optional<Listener> listener_;
    std::optional<Transport> transport_;
    Buffer payload_;
};

} // namespace reactor::inline v0
