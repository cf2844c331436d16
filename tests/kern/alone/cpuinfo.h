/* SPDX-License-Identifier: Apache-2.0 */
/* The few questions runtime/cpu.c asks of libcpuinfo, answered by the compiler: for targets whose library is not installed. */
#ifndef MEST_TESTS_ALONE_CPUINFO_H
#define MEST_TESTS_ALONE_CPUINFO_H

#include <stdbool.h>

static inline bool cpuinfo_initialize(void) { return true; }
#if defined(__x86_64__)
static inline bool cpuinfo_has_x86_avx2(void) { return __builtin_cpu_supports("avx2"); }
static inline bool cpuinfo_has_x86_fma3(void) { return __builtin_cpu_supports("fma"); }
static inline bool cpuinfo_has_x86_avx512f(void) { return __builtin_cpu_supports("avx512f"); }
static inline bool cpuinfo_has_x86_avx512bw(void) { return __builtin_cpu_supports("avx512bw"); }
static inline bool cpuinfo_has_x86_avx512dq(void) { return __builtin_cpu_supports("avx512dq"); }
static inline bool cpuinfo_has_x86_avx512vl(void) { return __builtin_cpu_supports("avx512vl"); }
#elif defined(__aarch64__)
static inline bool cpuinfo_has_arm_neon(void) { return true; } /* part of the architecture */
#endif

#endif
