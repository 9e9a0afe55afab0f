// SPDX-License-Identifier: Apache-2.0
//
// Shelter from the storm of storm.c: for a wait whose length is measured, which a signal may end
// early, and for the blocking calls of a test's own.
#pragma once

#include <csignal>

namespace test {

/// While it stands, this thread is not interrupted by SIGURG; one that comes meanwhile waits.
class Calm {
  public:
    Calm() noexcept {
        sigset_t storm{};
        sigaddset(&storm, SIGURG);
        ::pthread_sigmask(SIG_BLOCK, &storm, &before_);
    }
    Calm(const Calm&) = delete;
    Calm& operator=(const Calm&) = delete;
    ~Calm() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

  private:
    sigset_t before_{};
};

/// Makes a call that is not interrupted.
template <class Call>
auto calmly(Call call) {
    const Calm calm;
    return call();
}

} // namespace test
