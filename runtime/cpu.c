/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/cpu.h"

#include <cpuinfo.h>
#include <stdio.h>
#include <string.h>

#include "mest_config.h"

unsigned mest_cpu_features(void)
{
    unsigned mask = 0;
    if (!cpuinfo_initialize()) /* idempotent and thread-safe */
        return 0;
#if MEST_HAVE_AVX2
    if (cpuinfo_has_x86_avx2() && cpuinfo_has_x86_fma3())
        mask |= MEST_CPU_AVX2;
#endif
#if MEST_HAVE_AVX512
    if (cpuinfo_has_x86_avx512f() && cpuinfo_has_x86_avx512bw() && cpuinfo_has_x86_avx512dq() && cpuinfo_has_x86_avx512vl())
        mask |= MEST_CPU_AVX512;
#endif
#if MEST_HAVE_NEON
    if (cpuinfo_has_arm_neon())
        mask |= MEST_CPU_NEON;
#endif
    return mask;
}

mest_status mest_cpu_limit(const char *level, unsigned *mask, mest_error *err)
{
    unsigned have = mest_cpu_features(), want, allowed;
    if (!level || !strcmp(level, "auto")) {
        *mask = have;
        return MEST_OK;
    }
    if (!strcmp(level, "scalar"))
        want = 0, allowed = 0;
    else if (!strcmp(level, "avx2"))
        want = MEST_CPU_AVX2, allowed = MEST_CPU_AVX2;
    else if (!strcmp(level, "avx512"))
        want = MEST_CPU_AVX512, allowed = MEST_CPU_AVX2 | MEST_CPU_AVX512;
    else if (!strcmp(level, "neon"))
        want = MEST_CPU_NEON, allowed = MEST_CPU_NEON;
    else
        return mest_fail(err, MEST_E_ARGUMENT, "kernels: '%s' is not one of auto, scalar, avx2, avx512, neon", level);
    MEST_CHECK((have & want) == want, err, MEST_E_ARGUMENT, "kernels: this processor or build has no %s (it has: %s)", level,
               mest_cpu_text(have));
    *mask = have & allowed;
    return MEST_OK;
}

int mest_cpu_lanes(unsigned mask) { return mask & MEST_CPU_AVX512 ? 16 : mask & MEST_CPU_AVX2 ? 8 : 4; }

const char *mest_cpu_text(unsigned mask)
{
    return mask & MEST_CPU_AVX512 ? "avx512" : mask & MEST_CPU_AVX2 ? "avx2" : mask & MEST_CPU_NEON ? "neon" : "scalar";
}
