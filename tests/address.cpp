// SPDX-License-Identifier: Apache-2.0
#include <reactor/net/address.hpp>
#include <reactor/os/fd.hpp>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <unordered_set>
#include <vector>

#include "catch.hpp"

using namespace reactor;
using namespace std::string_literals;

namespace {

Address parsed(std::string_view text) {
    auto error = std::make_error_code(std::errc::io_error);
    const Address address = Address::parse(text, error);
    INFO(text);
    CHECK_FALSE(error);
    CHECK_FALSE(address.empty());
    return address;
}

template <class Sockaddr>
Address from(const Sockaddr& address, std::size_t size) {
    return Address::from(reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(size));
}

sockaddr_un unix_address(std::string_view name) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name.copy(address.sun_path, name.size());
    return address;
}

constexpr std::size_t path_at = offsetof(sockaddr_un, sun_path);

} // namespace

TEST_CASE("Address: what parse reads, and how it is printed") {
    struct {
        std::string text;
        int family;
        int port;
        std::string printed;
    } const good[] = {
        {"127.0.0.1:7000", AF_INET, 7000, ""},
        {"0.0.0.0:0", AF_INET, 0, ""},
        {"255.255.255.255:65535", AF_INET, 65535, ""},
        {":7000", AF_INET, 7000, "0.0.0.0:7000"},
        {"*:7000", AF_INET, 7000, "0.0.0.0:7000"},
        {":0", AF_INET, 0, "0.0.0.0:0"},
        {"[::1]:7000", AF_INET6, 7000, ""},
        {"[::]:80", AF_INET6, 80, ""},
        {"[fe80::1%2]:80", AF_INET6, 80, ""},
        {"[fe80::1%4294967295]:80", AF_INET6, 80, ""},
        {"[fe80::1%0]:80", AF_INET6, 80, "[fe80::1]:80"},
        {"[2001:DB8:0:0:0:0:0:1]:443", AF_INET6, 443, "[2001:db8::1]:443"},
        {"[::ffff:1.2.3.4]:1", AF_INET6, 1, ""},
        {"[1:2:3:4:5:6:255.255.255.255]:1", AF_INET6, 1, "[1:2:3:4:5:6:ffff:ffff]:1"},
        {"unix:/run/my.sock", AF_UNIX, 0, ""},
        {"unix:relative", AF_UNIX, 0, ""},
        {"unix:/a:80", AF_UNIX, 0, ""},
        {"unix:unix:", AF_UNIX, 0, ""},
        {"unix: ", AF_UNIX, 0, ""},
        {"unix:/" + std::string(106, 'x'), AF_UNIX, 0, ""},
        {"unix:/" + std::string(107, 'x'), AF_UNIX, 0, ""},
        {"unix:@name", AF_UNIX, 0, ""},
        {"unix:@@", AF_UNIX, 0, ""},
        {"unix:@a\0b\0"s, AF_UNIX, 0, ""},
        {"unix:@\0"s, AF_UNIX, 0, ""},
        {"unix:@" + std::string(107, 'x'), AF_UNIX, 0, ""},
    };
    for (const auto& [text, family, port, printed] : good) {
        const Address address = parsed(text);
        CHECK(address.family() == family);
        CHECK(address.port() == port);
        CHECK(address.is_ipv4() == (family == AF_INET));
        CHECK(address.is_ipv6() == (family == AF_INET6));
        CHECK(address.is_unix() == (family == AF_UNIX));
        CHECK(address.to_string() == (printed.empty() ? text : printed));
        CHECK(parsed(address.to_string()) == address);
        CHECK(Address::from(address.data(), address.size()) == address);
    }
}

TEST_CASE("Address: what is no address") {
    const auto invalid = std::errc::invalid_argument;
    const auto too_long = std::errc::filename_too_long;
    struct {
        std::string text;
        std::errc error;
    } const bad[] = {
        {"", invalid},
        {":", invalid},
        {"::", invalid},
        {"7000", invalid},
        {"127.0.0.1", invalid},
        {"1.2.3.4:", invalid},
        {"1.2.3.4: ", invalid},
        {"1.2.3.4:65536", invalid},
        {"1.2.3.4:99999999999999999999", invalid},
        {"1.2.3.4:-1", invalid},
        {"1.2.3.4:+80", invalid},
        {"1.2.3.4: 80", invalid},
        {"1.2.3.4:80 ", invalid},
        {"1.2.3.4:080", invalid},
        {"1.2.3.4:00", invalid},
        {"1.2.3.4:0x50", invalid},
        {"1.2.3.4:80:80", invalid},
        {"1.2.3.4:http", invalid},
        {"1.2.3.4:8\0"s, invalid},
        {"1.2.3.4\0:80"s, invalid},
        {"\0"s
         "1.2.3.4:80",
         invalid},
        {" 1.2.3.4:80", invalid},
        {"1.2.3.4 :80", invalid},
        {"1.2.3:80", invalid},
        {"1.2.3.4.5:80", invalid},
        {"1.2.3.256:80", invalid},
        {"1.2.3.04:80", invalid},
        {"0x7f.0.0.1:80", invalid},
        {"2130706433:80", invalid},
        {"1.2.3.4/24:80", invalid},
        {"**:80", invalid},
        {"localhost:80", invalid},
        {"example.org:80", invalid},
        {"http://1.2.3.4:80", invalid},
        {"[127.0.0.1]:80", invalid},
        {"::1:80", invalid},
        {"::1", invalid},
        {"[::1", invalid},
        {"[::1]", invalid},
        {"[::1]80", invalid},
        {"[::1]:", invalid},
        {"[::1]:65536", invalid},
        {"[::1]:+80", invalid},
        {"[::1]x:80", invalid},
        {"::1]:80", invalid},
        {"[[::1]]:80", invalid},
        {"[]:80", invalid},
        {"[:80", invalid},
        {"]:80", invalid},
        {"[ ::1]:80", invalid},
        {"[::1 ]:80", invalid},
        {"[::1%]:80", invalid},
        {"[::1%eth0]:80", invalid},
        {"[::1%-1]:80", invalid},
        {"[::1%01]:80", invalid},
        {"[::1%1%1]:80", invalid},
        {"[::1%4294967296]:80", invalid},
        {"[%1]:80", invalid},
        {"[::1\0]:80"s, invalid},
        {"[1:2:3:4:5:6:7:8:9]:80", invalid},
        {"[1::2::3]:80", invalid},
        {"[12345::]:80", invalid},
        {"[::1.2.3.400]:80", invalid},
        {"unix:", invalid},
        {"unix:@", invalid},
        {"unix:/a\0b"s, invalid},
        {"unix:\0"s, invalid},
        {"unix:/a\0"s, invalid},
        {"unix", invalid},
        {"UNIX:/a", invalid},
        {" unix:/a", invalid},
        {"/run/my.sock", invalid},
        {"unix:/" + std::string(108, 'x'), too_long},
        {"unix:@" + std::string(108, 'x'), too_long},
        {"unix:/" + std::string(300, 'x'), too_long},
        {std::string(300, '1'), invalid},
        {std::string(300, '1') + ":80", invalid},
        {"1.2.3.4:" + std::string(300, '0'), invalid},
        {"1.2.3.4:" + std::string(300, '1'), invalid},
        {"[" + std::string(300, ':') + "]:80", invalid},
        {"[::1%" + std::string(300, '1') + "]:80", invalid},
        {std::string(300, '\xff'), invalid},
        {std::string(300, '\0'), invalid},
    };
    for (const auto& [text, expected] : bad) {
        std::error_code error;
        const Address address = Address::parse(text, error);
        INFO('"' << text << '"');
        CHECK(error == expected);
        CHECK(address.empty());
    }
}

TEST_CASE("Address: the throwing parse names the text") {
    CHECK(Address::parse("127.0.0.1:80") == Address::loopback_ipv4(80));
    try {
        static_cast<void>(Address::parse("1.2.3.4:65536"));
        FAIL("accepted");
    } catch (const std::system_error& error) {
        CHECK(error.code() == std::errc::invalid_argument);
        CHECK_THAT(error.what(), Catch::Matchers::ContainsSubstring("\"1.2.3.4:65536\""));
    }
}

TEST_CASE("Address: every port and no other is read and printed") {
    bool right = true;
    for (int port = 0; port <= 0xffff; ++port) {
        const auto number = static_cast<std::uint16_t>(port);
        std::error_code error;
        const Address address = Address::loopback_ipv6(number);
        right = right && address.port() == number;
        right = right && address.to_string() == "[::1]:" + std::to_string(port);
        right = right && Address::parse(address.to_string(), error) == address && !error;
    }
    CHECK(right);
}

TEST_CASE("Address: factories, ports and the empty one") {
    CHECK(Address::any_ipv4(80).to_string() == "0.0.0.0:80");
    CHECK(Address::loopback_ipv4(80).to_string() == "127.0.0.1:80");
    CHECK(Address::any_ipv6(80).to_string() == "[::]:80");
    CHECK(Address::loopback_ipv6(80).to_string() == "[::1]:80");
    CHECK(Address::loopback_ipv4(80).size() == sizeof(sockaddr_in));
    CHECK(Address::loopback_ipv6(80).size() == sizeof(sockaddr_in6));

    CHECK(parsed("1.2.3.4:80").with_port(65535).to_string() == "1.2.3.4:65535");
    CHECK(parsed("[fe80::1%7]:80").with_port(258) == parsed("[fe80::1%7]:258"));
    CHECK(parsed("unix:/a").with_port(80) == parsed("unix:/a"));

    const Address empty;
    CHECK(empty.empty());
    CHECK(empty.size() == 0);
    CHECK(empty.family() == AF_UNSPEC);
    CHECK(empty.to_string().empty());
    CHECK(empty.with_port(80).empty());
    CHECK(empty == Address{});
}

TEST_CASE("Address: equal places are equal and hash alike, others are not") {
    const std::vector<Address> different{
        Address{},
        parsed("1.2.3.4:80"),
        parsed("1.2.3.4:81"),
        parsed("1.2.3.5:80"),
        parsed("[::1]:80"),
        parsed("[::2]:80"),
        parsed("[::1%1]:80"),
        parsed("[::1%2]:80"),
        parsed("[::ffff:1.2.3.4]:80"),
        parsed("unix:/a"),
        parsed("unix:@/a"),
        parsed("unix:@a"),
        parsed("unix:/ab"),
        parsed("unix:@a\0"s),
        Address::any_ipv4(0),
        Address::any_ipv6(0),
    };
    for (std::size_t a = 0; a < different.size(); ++a) {
        for (std::size_t b = 0; b < different.size(); ++b) {
            CHECK((different[a] == different[b]) == (a == b));
        }
    }
    CHECK(std::unordered_set<Address>(different.begin(), different.end()).size() ==
          different.size());

    const std::hash<Address> hash;
    CHECK(hash(parsed("[0::1]:80")) == hash(parsed("[::1]:80")));

    // Garbage where nothing is meant makes no difference.
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(80);
    v4.sin_addr.s_addr = htonl(0x01020304);
    std::fill(std::begin(v4.sin_zero), std::end(v4.sin_zero), static_cast<unsigned char>(7));
    CHECK(from(v4, sizeof v4) == parsed("1.2.3.4:80"));
    CHECK(hash(from(v4, sizeof v4)) == hash(parsed("1.2.3.4:80")));

    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(80);
    v6.sin6_addr = in6addr_loopback;
    v6.sin6_flowinfo = 7;
    CHECK(from(v6, sizeof v6) == parsed("[::1]:80"));

    sockaddr_un file = unix_address("/a\0garbage"s);
    CHECK(from(file, sizeof file) == parsed("unix:/a"));
    CHECK(from(file, path_at + 3) == parsed("unix:/a"));
    CHECK(from(file, path_at + 2) == parsed("unix:/a")); // not terminated
    file = unix_address("\0name"s);
    CHECK(from(file, path_at + 5) == parsed("unix:@name"));
    CHECK(from(file, path_at + 6) == parsed("unix:@name\0"s));
}

TEST_CASE("Address: names of UNIX sockets") {
    CHECK(parsed("unix:/run/a").path() == "/run/a");
    CHECK(parsed("unix:/" + std::string(107, 'x')).path() == "/" + std::string(107, 'x'));
    CHECK(parsed("unix:@name").path().empty());
    CHECK(parsed("1.2.3.4:80").path().empty());
    CHECK(parsed("unix:/run/a").size() == path_at + sizeof "/run/a");
    CHECK(parsed("unix:@name").size() == path_at + 5);

    const Address unnamed = from(unix_address(""), sizeof(sa_family_t));
    CHECK(unnamed.is_unix());
    CHECK(unnamed.size() == sizeof(sa_family_t));
    CHECK(unnamed.path().empty());
    CHECK(unnamed.to_string() == "unix:");

    // A file whose name begins like an abstract one is printed as the same file.
    const Address at_sign = from(unix_address("@a"), sizeof(sockaddr_un));
    CHECK(at_sign.path() == "@a");
    CHECK(at_sign.to_string() == "unix:./@a");
}

TEST_CASE("Address: what is cut short is empty, what is too long is cut") {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    CHECK(from(v4, sizeof v4).is_ipv4());
    CHECK(from(v4, sizeof v4 - 1).empty());
    CHECK(from(v4, 1).empty());
    CHECK(from(v4, 0).empty());
    CHECK(Address::from(nullptr, 0).empty());
    CHECK(Address::from(nullptr, 16).empty());
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    CHECK(from(v6, sizeof v6 - 4).empty());
    CHECK(from(sockaddr_storage{}, sizeof(sockaddr_storage)).empty());

    sockaddr_storage other{};
    other.ss_family = AF_NETLINK;
    const Address netlink = from(other, sizeof other);
    CHECK(netlink.family() == AF_NETLINK);
    CHECK(netlink.size() == 110);
    CHECK(netlink.port() == 0);
    CHECK(netlink.to_string() == "family:16");

    CHECK(Address::filled([](sockaddr*, socklen_t*) {}).empty());
    CHECK(Address::filled([](sockaddr* at, socklen_t* size) {
              at->sa_family = AF_UNIX;
              *size = 0;
          }).empty());
    const Address cut = Address::filled([](sockaddr* at, socklen_t* size) {
        CHECK(*size == sizeof(sockaddr_un));
        const sockaddr_un name = unix_address("/" + std::string(107, 'x'));
        std::memcpy(at, &name, *size);
        *size = 111; // as the kernel says for a path with no room for its terminator
    });
    CHECK(cut == parsed("unix:/" + std::string(107, 'x')));
}

TEST_CASE("Address: any bytes are refused or come round") {
    std::mt19937 random(7);
    const std::string_view pieces[] = {
        "127.0.0.1", "[::1]", "[fe80::", "%1", "]", ":", "80", "65536", "unix:", "@",
        "/a",        "*",     ".",       "::", "0", "+", " ",  "ff",    "255"};
    std::size_t accepted = 0;
    std::size_t wrong = 0;
    const auto expect = [&](bool right) { wrong += right ? 0U : 1U; };
    for (int round = 0; round < 100'000; ++round) {
        std::string text;
        if (round % 2 == 0) {
            for (auto n = random() % 7; n > 0; --n) {
                text += pieces[random() % std::size(pieces)];
            }
            if (random() % 4 == 0 && !text.empty()) {
                text[random() % text.size()] = static_cast<char>(random());
            }
        } else {
            text = round % 3 == 0 ? "unix:" : "";
            for (auto n = random() % 160; n > 0; --n) {
                text += static_cast<char>(random());
            }
        }
        std::error_code error;
        const Address address = Address::parse(text, error);
        expect(address.empty() == static_cast<bool>(error));
        if (!error) {
            ++accepted;
            const Address again = Address::parse(address.to_string(), error);
            expect(!error && again == address);
            expect(Address::from(address.data(), address.size()) == address);
        }
        // And as bytes that a kernel might write.
        const Address raw = Address::filled([&](sockaddr* at, socklen_t* size) {
            text.copy(reinterpret_cast<char*>(at), *size);
            const sa_family_t families[] = {AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, AF_VSOCK};
            at->sa_family = families[random() % 5];
            *size = static_cast<socklen_t>(random() % 130);
        });
        expect(raw.size() <= sizeof(sockaddr_un));
        expect(Address::from(raw.data(), raw.size()) == raw);
        expect(raw.to_string().size() < 128);
    }
    CHECK(wrong == 0);
    CHECK(accepted > 5'000);
}

TEST_CASE("Address: the kernel takes them and gives them back") {
    const auto bound_as = [](const Address& address) {
        const os::Fd socket(os::Kernel::stream_socket(address.family()).fd_or_none());
        REQUIRE(socket);
        const os::Result bound = os::Kernel::bind(socket.get(), address.data(), address.size());
        INFO(address.to_string() << ": " << bound.code().message());
        CHECK(bound.ok());
        return Address::filled([&](sockaddr* at, socklen_t* size) {
            CHECK(os::Kernel::local_name(socket.get(), at, size).ok());
        });
    };
    const Address v4 = bound_as(Address::loopback_ipv4(0));
    CHECK(v4.port() != 0);
    CHECK(v4.with_port(0) == Address::loopback_ipv4(0));
    if (const os::Fd probe(os::Kernel::stream_socket(AF_INET6).fd_or_none()); probe) {
        const Address v6 = bound_as(Address::any_ipv6(0));
        CHECK(v6.with_port(0) == Address::any_ipv6(0));
    }

    std::array<char, 32> directory{"/tmp/reactor-address-XXXXXX"};
    REQUIRE(mkdtemp(directory.data()) != nullptr);
    const std::string folder(directory.data());
    for (const std::size_t size : {40U, 107U, 108U}) {
        const std::string path = folder + "/" + std::string(size - folder.size() - 1, 'x');
        const Address address = parsed("unix:" + path);
        CHECK(bound_as(address) == address);
        CHECK(std::remove(path.c_str()) == 0); // the file has that name, to the last letter
    }
    CHECK(std::remove(folder.c_str()) == 0);

    const Address abstract = parsed("unix:@" + folder);
    CHECK(bound_as(abstract) == abstract);
    const Address with_zero = parsed("unix:@" + folder + "\0b"s);
    CHECK(bound_as(with_zero) == with_zero);

    // An unnamed one is given a name by bind.
    const Address given = bound_as(from(unix_address(""), sizeof(sa_family_t)));
    CHECK(parsed(given.to_string()) == given);
}
