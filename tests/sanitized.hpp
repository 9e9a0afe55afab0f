// SPDX-License-Identifier: Apache-2.0
//
// Whether this program runs under a sanitizer of addresses or of threads, by gcc or clang: tests of
// many rounds then run fewer.
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#elif defined(__has_feature)
inline constexpr bool sanitized =
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
inline constexpr bool sanitized = false;
#endif
