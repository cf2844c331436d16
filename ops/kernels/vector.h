/* SPDX-License-Identifier: Apache-2.0 */
/* The vector of the instruction set a kernel file is compiled for, by compiler vector extensions.
 *
 *   vec         full vector of mest_real; VL lanes
 *   VEC_LOAD, VEC_STORE, VEC_SPLAT
 *   VEC_REGISTERS   how many the processor has: sizes register blocks
 */
#ifndef MEST_OPS_KERNELS_VECTOR_H
#define MEST_OPS_KERNELS_VECTOR_H

#include "runtime/tensor.h"

#if defined(MEST_ISA_AVX512)
#define VEC_BYTES 64
#define VEC_REGISTERS 32
#elif defined(MEST_ISA_AVX2)
#define VEC_BYTES 32
#define VEC_REGISTERS 16
#elif defined(MEST_ISA_NEON)
#define VEC_BYTES 16
#define VEC_REGISTERS 32
#else
#define VEC_BYTES 16
#define VEC_REGISTERS 16
#endif

typedef mest_real vec __attribute__((vector_size(VEC_BYTES)));
typedef mest_real vec_loose __attribute__((vector_size(VEC_BYTES), aligned(sizeof(mest_real)), may_alias));
enum { VL = VEC_BYTES / sizeof(mest_real) };
#define VEC_LOAD(p) ((vec) * (const vec_loose *)(const void *)(p))
#define VEC_STORE(p, value) (*(vec_loose *)(void *)(p) = (vec_loose)(value))
#define VEC_SPLAT(s) ((s) - (vec){0}) /* x - 0 is x for every x, so this folds to a broadcast */
#define VEC_INLINE static inline __attribute__((always_inline))

#endif
