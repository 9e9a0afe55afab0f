// SPDX-License-Identifier: Apache-2.0
//
// Net: where a socket is, as a value.
//
// An Address is an IPv4 or IPv6 address with its port, or the name of a UNIX socket: what bind and
// connect are given, and what accept and getsockname fill in. It owns its bytes, can be copied as
// plain memory, compared, hashed, printed and read back. It never asks anybody: there is no name
// resolution here, which would block the loop, and no interface names, which are system calls.
//
// Its bytes are kept in one canonical form (zero where they mean nothing, no flow label, a path
// with one terminator), so that equal places are equal bytes. The road not taken: sockaddr_storage,
// which makes 128 bytes of 112.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace reactor::inline v0 {

/// The address of a socket. A value; any thread.
class Address {
  public:
    /// Empty: no address.
    Address() noexcept = default;

#ifdef __cpp_exceptions
    /// Reads an address:
    ///
    /// - `127.0.0.1:7000`: IPv4. `:7000` and `*:7000` are `0.0.0.0:7000`, any IPv4 address.
    /// - `[::1]:7000`, `[fe80::1%2]:7000`: IPv6; behind the % the number of the interface.
    /// - `unix:/run/my.sock`: a path, up to 108 bytes, none of them zero.
    /// - `unix:@name`: an abstract name, up to 107 bytes of any value.
    ///
    /// Ports are 0 to 65535 in plain decimal, without sign or leading zeros; a port is always
    /// there. Host names are not addresses. Throws std::system_error with what the other form says.
    [[nodiscard]] static Address parse(std::string_view text) {
        std::error_code error;
        const Address address = parse(text, error);
        if (error) {
            throw std::system_error(error,
                                    "reactor::Address::parse(\"" + std::string(text) + "\")");
        }
        return address;
    }
#endif
    /// The same, with the failure as a value: invalid_argument, or filename_too_long for the name
    /// of a UNIX socket. The address is then empty.
    [[nodiscard]] static Address parse(std::string_view text, std::error_code& error) noexcept {
        constexpr std::string_view scheme = "unix:";
        Address address;
        auto failure = std::errc::invalid_argument;
        if (text.starts_with(scheme)) {
            text.remove_prefix(scheme.size());
            const bool abstract = text.starts_with('@');
            if (text.size() > sizeof(sockaddr_un::sun_path)) {
                failure = std::errc::filename_too_long;
            } else if (text.size() > (abstract ? 1 : 0)) {
                address = of_unix(text, abstract);
            }
        } else if (const std::size_t colon = text.rfind(':'); colon != text.npos) {
            if (const auto port = decimal<std::uint16_t>(text.substr(colon + 1))) {
                address = of_host(text.substr(0, colon)).with_port(*port);
            }
        }
        error = address.empty() ? std::make_error_code(failure) : std::error_code{};
        return address;
    }

    /// A copy of what a system call wrote or would be given. Empty if it is cut short; of a family
    /// that is not known here the bytes are kept as they are, as far as there is room.
    [[nodiscard]] static Address from(const sockaddr* address, socklen_t size) noexcept {
        return filled([&](sockaddr* at, socklen_t* room) {
            *room = address == nullptr ? 0 : std::min(*room, size);
            std::memcpy(at, address == nullptr ? at : address, *room);
        });
    }
    /// What `fill(sockaddr* at, socklen_t* size)` writes: `*size` is the room at first, and then
    /// what there was to write, which may be more. Empty if nothing is written. For accept4(2),
    /// getsockname(2) and getpeername(2).
    template <class Fill>
    [[nodiscard]] static Address filled(Fill&& fill) {
        Address address;
        socklen_t size = room;
        fill(reinterpret_cast<sockaddr*>(address.bytes_), &size);
        address.settle(size);
        return address;
    }
    /// 0.0.0.0: to listen on every IPv4 address of the machine.
    [[nodiscard]] static Address any_ipv4(std::uint16_t port) noexcept {
        return of_ipv4(INADDR_ANY).with_port(port);
    }
    /// 127.0.0.1: this machine alone.
    [[nodiscard]] static Address loopback_ipv4(std::uint16_t port) noexcept {
        return of_ipv4(INADDR_LOOPBACK).with_port(port);
    }
    /// [::]: to listen on every IPv6 address, and on the IPv4 ones where the socket allows it.
    [[nodiscard]] static Address any_ipv6(std::uint16_t port) noexcept {
        return of_ipv6(in6addr_any, 0).with_port(port);
    }
    /// [::1]: this machine alone.
    [[nodiscard]] static Address loopback_ipv6(std::uint16_t port) noexcept {
        return of_ipv6(in6addr_loopback, 0).with_port(port);
    }

    /// What a system call wants, together with `size()`; lives as long as this value.
    [[nodiscard]] const sockaddr* data() const noexcept {
        return reinterpret_cast<const sockaddr*>(bytes_);
    }
    /// The length of `data()`; 0 if empty.
    [[nodiscard]] socklen_t size() const noexcept { return size_; }
    /// Whether it is no address.
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
    /// AF_INET, AF_INET6, AF_UNIX; AF_UNSPEC if empty.
    [[nodiscard]] int family() const noexcept {
        sa_family_t family = AF_UNSPEC;
        std::memcpy(&family, bytes_ + offsetof(sockaddr, sa_family), sizeof family);
        return family;
    }
    /// @{
    /// Of which family it is; an empty one is of none.
    [[nodiscard]] bool is_ipv4() const noexcept { return family() == AF_INET; }
    [[nodiscard]] bool is_ipv6() const noexcept { return family() == AF_INET6; }
    [[nodiscard]] bool is_unix() const noexcept { return family() == AF_UNIX; }
    /// @}
    /// 0 for what has no port.
    [[nodiscard]] std::uint16_t port() const noexcept {
        return has_port() ? static_cast<std::uint16_t>(bytes_[port_at] << 8 | bytes_[port_at + 1])
                          : std::uint16_t{0};
    }
    /// The same host and that port; what has no port stays as it is. With port 0, the host as a
    /// key.
    [[nodiscard]] Address with_port(std::uint16_t port) const noexcept {
        Address address = *this;
        if (has_port()) {
            address.bytes_[port_at] = static_cast<unsigned char>(port >> 8);
            address.bytes_[port_at + 1] = static_cast<unsigned char>(port & 0xff);
        }
        return address;
    }
    /// The file of a UNIX socket; empty for what has none. Lives as long as this value.
    [[nodiscard]] std::string_view path() const noexcept {
        const std::string_view name = unix_name();
        return name.starts_with('\0') ? std::string_view{} : name;
    }

    /// As text that parse() reads as an equal address. What cannot be bound or connected to has
    /// none: an empty address is "", a UNIX socket without a name "unix:", others their family;
    /// nor have the abstract name of no bytes, and a path that begins with `@` and fills all room.
    [[nodiscard]] std::string to_string() const {
        switch (family()) {
        case AF_UNSPEC:
            return {};
        case AF_INET:
            return host_text(AF_INET, bytes_ + offsetof(sockaddr_in, sin_addr)) + ':' +
                   std::to_string(port());
        case AF_INET6: {
            const std::uint32_t scope = scope_id();
            return '[' + host_text(AF_INET6, bytes_ + offsetof(sockaddr_in6, sin6_addr)) +
                   (scope != 0 ? '%' + std::to_string(scope) : std::string{}) +
                   "]:" + std::to_string(port());
        }
        case AF_UNIX: {
            std::string name(unix_name());
            if (name.starts_with('\0')) {
                name.front() = '@';
            } else if (name.starts_with('@')) {
                name.insert(0, "./"); // a file of that name, nothing abstract
            }
            return "unix:" + name;
        }
        default:
            return "family:" + std::to_string(family());
        }
    }

    /// The same place: family, address, port and scope, or name.
    friend bool operator==(const Address& a, const Address& b) noexcept {
        return a.size_ == b.size_ && std::memcmp(a.bytes_, b.bytes_, a.size_) == 0;
    }

  private:
    friend struct std::hash<Address>;

    static constexpr std::size_t room = sizeof(sockaddr_un);
    static constexpr std::size_t path_at = offsetof(sockaddr_un, sun_path);
    static constexpr std::size_t port_at = offsetof(sockaddr_in, sin_port);
    static_assert(port_at == offsetof(sockaddr_in6, sin6_port));
    static_assert(sizeof(sockaddr_in) <= room && sizeof(sockaddr_in6) <= room);

    template <class Int>
    [[nodiscard]] static std::optional<Int> decimal(std::string_view text) noexcept {
        Int number = 0;
        const char* const end = text.data() + text.size();
        const auto [at, error] = std::from_chars(text.data(), end, number);
        const bool padded = text.size() > 1 && text.front() == '0';
        return error == std::errc{} && at == end && !padded ? std::optional(number) : std::nullopt;
    }
    /// What stands before the port.
    [[nodiscard]] static Address of_host(std::string_view host) noexcept {
        if (host.empty() || host == "*") {
            return of_ipv4(INADDR_ANY);
        }
        if (!host.starts_with('[')) {
            in_addr number{};
            return translate(AF_INET, host, &number) ? of_ipv4(ntohl(number.s_addr)) : Address{};
        }
        if (!host.ends_with(']')) {
            return {};
        }
        host = host.substr(1, host.size() - 2);
        std::optional<std::uint32_t> scope = 0;
        if (const std::size_t percent = host.find('%'); percent != host.npos) {
            scope = decimal<std::uint32_t>(host.substr(percent + 1));
            host = host.substr(0, percent);
        }
        in6_addr number{};
        return scope && translate(AF_INET6, host, &number) ? of_ipv6(number, *scope) : Address{};
    }
    [[nodiscard]] static bool translate(int family, std::string_view host, void* into) noexcept {
        char text[INET6_ADDRSTRLEN] = {};
        if (host.size() >= sizeof text || host.find('\0') != host.npos) {
            return false;
        }
        host.copy(text, host.size());
        return inet_pton(family, text, into) == 1;
    }

    [[nodiscard]] static Address of_ipv4(std::uint32_t host) noexcept {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(host);
        return of(address, sizeof address);
    }
    [[nodiscard]] static Address of_ipv6(const in6_addr& host, std::uint32_t scope) noexcept {
        sockaddr_in6 address{};
        address.sin6_family = AF_INET6;
        address.sin6_addr = host;
        address.sin6_scope_id = scope;
        return of(address, sizeof address);
    }
    /// Empty if a path has a zero in it.
    [[nodiscard]] static Address of_unix(std::string_view name, bool abstract) noexcept {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        name.copy(address.sun_path, name.size());
        if (abstract) {
            address.sun_path[0] = '\0';
        } else if (name.find('\0') != name.npos) {
            return {};
        }
        return of(address, path_at + name.size());
    }
    template <class Sockaddr>
    [[nodiscard]] static Address of(const Sockaddr& address, std::size_t size) noexcept {
        Address result;
        std::memcpy(result.bytes_, &address, size);
        result.settle(size);
        return result;
    }

    /// Takes note of what was written to `bytes_`, and makes it canonical.
    void settle(std::size_t written) noexcept {
        std::size_t size = std::min(written, room);
        const std::size_t least = is_ipv4()   ? sizeof(sockaddr_in)
                                  : is_ipv6() ? sizeof(sockaddr_in6)
                                              : sizeof(sa_family_t);
        if (family() == AF_UNSPEC || size < least) {
            *this = Address{};
            return;
        }
        std::size_t meant = size;
        if (is_ipv4()) {
            size = least;
            meant = offsetof(sockaddr_in, sin_zero);
        } else if (is_ipv6()) {
            size = meant = least;
            std::memset(bytes_ + offsetof(sockaddr_in6, sin6_flowinfo), 0, sizeof(std::uint32_t));
        } else if (is_unix() && size > path_at && bytes_[path_at] != 0) {
            meant =
                static_cast<std::size_t>(std::find(bytes_ + path_at, bytes_ + size, 0) - bytes_);
            size = std::min(meant + 1, room);
        }
        std::memset(bytes_ + meant, 0, room - meant);
        size_ = static_cast<std::uint16_t>(size);
    }

    [[nodiscard]] bool has_port() const noexcept { return is_ipv4() || is_ipv6(); }
    [[nodiscard]] std::uint32_t scope_id() const noexcept {
        std::uint32_t scope = 0;
        std::memcpy(&scope, bytes_ + offsetof(sockaddr_in6, sin6_scope_id), sizeof scope);
        return scope;
    }
    /// The name of a UNIX socket; an abstract one starts with a zero.
    [[nodiscard]] std::string_view unix_name() const noexcept {
        if (!is_unix() || size_ <= path_at) {
            return {};
        }
        const std::string_view name(reinterpret_cast<const char*>(bytes_ + path_at),
                                    size_ - path_at);
        return name.starts_with('\0') ? name : name.substr(0, name.find('\0'));
    }
    [[nodiscard]] static std::string host_text(int family, const void* host) {
        char text[INET6_ADDRSTRLEN] = {};
        inet_ntop(family, host, text, sizeof text);
        return text;
    }

    alignas(sockaddr_in6) unsigned char bytes_[room] = {};
    std::uint16_t size_ = 0;
};

static_assert(std::is_trivially_copyable_v<Address> && sizeof(Address) == 112);

} // namespace reactor::inline v0

template <>
struct std::hash<reactor::Address> {
    std::size_t operator()(const reactor::Address& address) const noexcept {
        return std::hash<std::string_view>{}(
            {reinterpret_cast<const char*>(address.bytes_), address.size_});
    }
};
