// SPDX-License-Identifier: Apache-2.0
//
// Address: any text, and any bytes that a system call might write.
//
// The first byte says which. What parse() takes it gives back as text that it reads as the same
// address; what it refuses is a value, and an empty address; both forms agree. A sockaddr of any
// size and content is settled into one form, which survives a round trip.
#include <reactor/net/address.hpp>

#include <cstring>
#include <functional>

#include "fuzz.hpp"

using namespace reactor;
using fuzz::require;

namespace {

Address parsed(std::string_view text, std::error_code& error) {
    // A copy of exactly this size: a sanitizer sees a look beyond it.
    const std::string copy(text);
    const Address address = Address::parse(copy, error);
    require(static_cast<bool>(error) == address.empty(), "an address, or a reason");
    bool thrown = false;
    try {
        require(Address::parse(copy) == address, "both forms read the same");
    } catch (const std::system_error& refused) {
        thrown = true;
        require(refused.code() == error, "both forms refuse for the same reason");
    }
    require(thrown == static_cast<bool>(error), "both forms refuse the same");
    return address;
}

/// What holds for every address.
void check(const Address& address) {
    const Address again = Address::from(address.data(), address.size());
    require(again == address, "an address is a sockaddr that reads as itself");
    require(std::hash<Address>()(again) == std::hash<Address>()(address), "equal ones hash alike");
    require(again.to_string() == address.to_string(), "equal ones print alike");
    require(address.size() <= 110, "no more than a sockaddr_un");
    const Address elsewhere = address.with_port(4711);
    const bool has_port = address.is_ipv4() || address.is_ipv6();
    require(elsewhere.port() == (has_port ? 4711 : 0), "a port is where ports are");
    require(elsewhere.with_port(address.port()) == address, "the host stays the same");
    require(address.path().find('\0') == std::string_view::npos, "a path has no zero in it");
}

/// What parse() reads is a place, and its text is the text of that place.
void check_text(std::string_view text) {
    std::error_code error;
    const Address address = parsed(text, error);
    if (error) {
        require(error == std::errc::invalid_argument || error == std::errc::filename_too_long,
                "one of the documented reasons");
        return;
    }
    check(address);
    require(address.is_ipv4() || address.is_ipv6() || address.is_unix(), "of a family it knows");
    const std::string printed = address.to_string();
    require(parsed(printed, error) == address && !error, "what is printed is read back");
    require(parsed(printed, error).to_string() == printed, "and printed again as the same");
    if (address.is_unix() && address.path().empty()) {
        require(printed == text, "an abstract name is kept byte for byte");
    }
}

/// Whatever a system call says.
void check_sockaddr(std::string_view bytes, std::size_t told) {
    const Address address = Address::filled([&](sockaddr* at, socklen_t* size) {
        std::memcpy(at, bytes.data(), std::min<std::size_t>(*size, bytes.size()));
        // Perhaps more than there was room for, or was written.
        *size = static_cast<socklen_t>(told);
    });
    check(address);
    const std::string printed = address.to_string();
    // What bind(2) takes and has no text that is read back: an abstract name of no bytes, and a
    // file whose name begins with an @ and has no room for the "./" that tells it from such a name.
    const bool is_odd =
        printed == "unix:@" || (address.path().starts_with('@') && address.path().size() > 106);
    const bool is_place =
        address.is_ipv4() || address.is_ipv6() || (address.is_unix() && printed != "unix:");
    if (!is_place || is_odd) {
        return;
    }
    std::error_code error;
    const Address again = parsed(printed, error);
    require(!error, "every place has a text");
    if (address.path().starts_with('@')) {
        require(again.path() == "./" + std::string(address.path()), "the same file");
    } else {
        require(again == address, "and it is the same place");
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Tape tape(data, size);
    if (tape.byte() % 4 != 0) {
        check_text(tape.rest());
    } else {
        const std::size_t told = tape.byte();
        check_sockaddr(tape.rest(), told);
    }
    return 0;
}
