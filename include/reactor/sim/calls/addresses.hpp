// SPDX-License-Identifier: Apache-2.0
//
// Annex, the simulator, behind the scenes: addresses as a socket takes and tells them.
//
// A socket of one family refuses addresses of others, each family in its own way; an IPv6 socket
// tells an IPv4 client as a mapped address; a UNIX socket without a name tells its family alone.
#pragma once

#include <reactor/sim/calls/gate.hpp>

namespace reactor::inline v0 {
namespace sim {
namespace detail {

/// The errno of an address that is none for this socket.
[[nodiscard]] inline int mismatch(const File& file, const Address& address) noexcept {
    if (file.is_unix()) {
        return address.is_unix() && address.size() > sizeof(sa_family_t) ? 0 : EINVAL;
    }
    if (address.family() == file.family) {
        return 0;
    }
    const socklen_t least = file.family == AF_INET ? sizeof(sockaddr_in) : 24;
    return address.size() < least ? EINVAL : EAFNOSUPPORT;
}
/// 0.0.0.0 or [::], with no port.
[[nodiscard]] inline Address any(const File& file) noexcept {
    return file.family == AF_INET ? Address::any_ipv4(0) : Address::any_ipv6(0);
}
/// An IPv4 address as an IPv6 socket tells it: ::ffff:a.b.c.d.
[[nodiscard]] inline Address mapped(const Address& from) noexcept {
    sockaddr_in narrow{};
    sockaddr_in6 wide{};
    std::memcpy(&narrow, from.data(), sizeof narrow);
    wide.sin6_family = AF_INET6;
    wide.sin6_port = narrow.sin_port;
    wide.sin6_addr.s6_addr[10] = wide.sin6_addr.s6_addr[11] = 0xff;
    std::memcpy(&wide.sin6_addr.s6_addr[12], &narrow.sin_addr, sizeof narrow.sin_addr);
    return Address::from(reinterpret_cast<const sockaddr*>(&wide), sizeof wide);
}
/// Writes an address as this socket tells it, as far as there is room.
inline void tell(const File& file, Address from, sockaddr* address, socklen_t* size) noexcept {
    if (address == nullptr || size == nullptr) {
        return;
    }
    if (from.empty() && file.is_unix()) {
        const sockaddr unnamed{AF_UNIX, {}};
        from = Address::from(&unnamed, sizeof unnamed.sa_family);
    } else if (from.empty()) {
        from = any(file);
    } else if (file.family == AF_INET6 && from.is_ipv4()) {
        from = mapped(from);
    }
    std::memcpy(address, from.data(), std::min(*size, from.size()));
    *size = from.size();
}

} // namespace detail
} // namespace sim
} // namespace reactor::inline v0
