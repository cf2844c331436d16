/* SPDX-License-Identifier: Apache-2.0 */
/* Between MEST_UNCHECKED_BEGIN and MEST_UNCHECKED_END clang's sanitizers and fuzzer add no checks: in unrolled vector loops they make it work on a file
 * for half an hour. gcc's check everything. */
#ifndef MEST_SPARSE_KERNELS_UNCHECKED_H
#define MEST_SPARSE_KERNELS_UNCHECKED_H

#define MEST_UNCHECKED_BEGIN
#define MEST_UNCHECKED_END
#if defined(__clang__)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#undef MEST_UNCHECKED_BEGIN
#undef MEST_UNCHECKED_END
#define MEST_UNCHECKED_BEGIN _Pragma("clang attribute push(__attribute__((no_sanitize(\"address\", \"thread\", \"undefined\", \"coverage\"))), apply_to = function)")
#define MEST_UNCHECKED_END _Pragma("clang attribute pop")
#endif
#endif

#endif
