// SPDX-License-Identifier: Apache-2.0
//
// Net: the descriptors that a service manager has opened for this program (sd_listen_fds(3)).
//
// The manager binds and listens, and starts the program with the sockets as descriptors 3 and up:
// no client is refused while the program restarts, and it needs no right to bind. What stands where
// is told by the environment: LISTEN_PID, for whom it is meant; LISTEN_FDS, how many there are; and
// LISTEN_FDNAMES, what they are called. All three are taken out, so that no child takes it for its
// own. Give each descriptor to what it is for: TcpListener(std::move(fd)), UnixListener(...).
#pragma once

#include <reactor/os/fd.hpp>

#include <charconv>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace reactor::inline v0 {

/// One of them, open and close-on-exec; whether it blocks is as the manager made it.
template <class KernelType = os::Kernel>
struct BasicInheritedDescriptor {
    /// The descriptor, owned.
    os::BasicFd<KernelType> fd;
    /// FileDescriptorName= of the unit; "unknown" if the manager names none.
    std::string name;
};
/// One of the operating system's.
using InheritedDescriptor = BasicInheritedDescriptor<os::Kernel>;

namespace detail {

/// All of the text, as a decimal number.
template <class Int>
[[nodiscard]] std::optional<Int> whole_number(std::string_view text) noexcept {
    Int number = 0;
    const char* const end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data(), end, number);
    return error == std::errc{} && at == end ? std::optional(number) : std::nullopt;
}

/// What the environment says, as it was when it was taken out.
template <class Kernel>
class InheritedVariables {
  public:
    [[nodiscard]] static InheritedVariables take() {
        InheritedVariables taken;
        taken.process_ = copy("LISTEN_PID");
        taken.count_ = copy("LISTEN_FDS");
        taken.names_ = copy("LISTEN_FDNAMES");
        for (const char* const name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) {
            Kernel::unset_environment(name);
        }
        return taken;
    }

    /// The names of all, in order; none if nothing is meant for this process.
    [[nodiscard]] std::vector<std::string> names(std::error_code& error) const {
        error = {};
        if (!process_ || !count_) {
            return {};
        }
        const auto process = whole_number<int>(*process_);
        if (process && *process > 0 && *process != Kernel::process_id()) {
            return {};
        }
        const auto count = whole_number<int>(*count_);
        std::vector<std::string> names;
        if (process && *process > 0 && count && *count > 0 && *count <= most) {
            names = names_ ? split(*names_)
                           : std::vector<std::string>(static_cast<std::size_t>(*count), "unknown");
        }
        if (names.empty() || names.size() != static_cast<std::size_t>(*count)) {
            error = std::make_error_code(std::errc::invalid_argument);
            return {};
        }
        return names;
    }

  private:
    /// More descriptors than any process has; each costs a string.
    static constexpr int most = 1 << 20;

    [[nodiscard]] static std::optional<std::string> copy(const char* name) {
        const char* const value = Kernel::environment(name);
        return value == nullptr ? std::nullopt : std::optional<std::string>(value);
    }
    [[nodiscard]] static std::vector<std::string> split(std::string_view text) {
        std::vector<std::string> parts;
        for (;;) {
            const std::size_t colon = text.find(':');
            parts.emplace_back(text.substr(0, colon));
            if (colon == text.npos) {
                return parts;
            }
            text.remove_prefix(colon + 1);
        }
    }

    std::optional<std::string> process_;
    std::optional<std::string> count_;
    std::optional<std::string> names_;
};

} // namespace detail

/// Takes over what a service manager opened for this process, in order of its configuration, once:
/// a second call finds nothing. Empty, and no error, if there is nothing, or it is meant for
/// another process, whose descriptors are left alone. Fails with invalid_argument if the variables
/// do not make sense and with bad_file_descriptor if one that is named is not open: the result is
/// then empty, and no descriptor is touched but for being close-on-exec.
///
/// As early in the program as can be: before other threads look at the environment, and before
/// anything is opened, as a descriptor that the manager promised and did not give would else be
/// taken for its own.
template <class Kernel = os::Kernel>
[[nodiscard]] std::vector<BasicInheritedDescriptor<Kernel>>
take_inherited_descriptors(std::error_code& error) {
    constexpr int first = 3;
    std::vector<std::string> names = detail::InheritedVariables<Kernel>::take().names(error);
    std::vector<BasicInheritedDescriptor<Kernel>> taken;
    int next = first;
    for (std::size_t n = 0; n < names.size() && !error; ++n) {
        error = Kernel::set_close_on_exec(next++).code();
    }
    if (error) {
        return taken;
    }
    taken.reserve(names.size());
    next = first;
    for (std::string& name : names) {
        taken.push_back({os::BasicFd<Kernel>(next++), std::move(name)});
    }
    return taken;
}
#ifdef __cpp_exceptions
/// The same; throws std::system_error.
template <class Kernel = os::Kernel>
[[nodiscard]] std::vector<BasicInheritedDescriptor<Kernel>> take_inherited_descriptors() {
    std::error_code error;
    auto taken = take_inherited_descriptors<Kernel>(error);
    if (error) {
        throw std::system_error(error, "reactor::take_inherited_descriptors");
    }
    return taken;
}
#endif

} // namespace reactor::inline v0
