/* SPDX-License-Identifier: Apache-2.0 */
/* CPU features (cpuinfo), and the level a session may use. */
#ifndef MEST_RUNTIME_CPU_H
#define MEST_RUNTIME_CPU_H

#include "runtime/status.h"

enum { MEST_CPU_AVX2 = 1u << 0 /* AVX2 and FMA */, MEST_CPU_AVX512 = 1u << 1 /* F, BW, DQ, VL */, MEST_CPU_NEON = 1u << 2 };

/* Features of this machine that the build has kernels for. */
unsigned mest_cpu_features(void);
/* "auto", "scalar", "avx2", "avx512", "neon": the mask a session may use, within mest_cpu_features. Asking for what the machine lacks
 * is MEST_E_ARGUMENT. */
mest_status mest_cpu_limit(const char *level, unsigned *mask, mest_error *err);
/* Batch lanes that suit the mask: 16, 8, 4; scalar: 4. */
int mest_cpu_lanes(unsigned mask);
const char *mest_cpu_text(unsigned mask);

#endif
