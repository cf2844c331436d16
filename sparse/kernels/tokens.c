/* SPDX-License-Identifier: Apache-2.0 */
/* Rows to lanes and back for one instruction set, and the table of tokens.h. */
#include "sparse/kernels/tokens.h"

#include "sparse/kernels/lanes_micro.h"

/* A square of V rows and V columns is transposed in log2(V) steps: step d swaps the blocks of d x d beside the diagonal. */
#define LOW(d, l) (((l) & (d)) ? V + (l) - (d) : (l))
#define HIGH(d, l) (((l) & (d)) ? V + (l) : (l) + (d))
#if defined(MEST_ISA_AVX512)
#define PICK(a, b, which, d)                                                                                                               \
    __builtin_shufflevector(a, b, which(d, 0), which(d, 1), which(d, 2), which(d, 3), which(d, 4), which(d, 5), which(d, 6), which(d, 7), \
                            which(d, 8), which(d, 9), which(d, 10), which(d, 11), which(d, 12), which(d, 13), which(d, 14), which(d, 15))
#elif defined(MEST_ISA_AVX2)
#define PICK(a, b, which, d) \
    __builtin_shufflevector(a, b, which(d, 0), which(d, 1), which(d, 2), which(d, 3), which(d, 4), which(d, 5), which(d, 6), which(d, 7))
#else
#define PICK(a, b, which, d) __builtin_shufflevector(a, b, which(d, 0), which(d, 1), which(d, 2), which(d, 3))
#endif
#define STEP(d)                                                   \
    UNROLL for (int i = 0; i < V; i++) if (!(i & (d)))            \
    {                                                             \
        const vec a = r[i], b = r[i + (d)];                       \
        r[i] = PICK(a, b, LOW, d);                                \
        r[i + (d)] = PICK(a, b, HIGH, d);                         \
    }

INLINE void transpose(vec *r)
{
#if defined(MEST_ISA_AVX512)
    STEP(8)
#endif
#if defined(MEST_ISA_AVX512) || defined(MEST_ISA_AVX2)
    STEP(4)
#endif
    STEP(2)
    STEP(1)
}

static void to_lanes(const mest_real *row, int64_t ld, int64_t valid, int64_t c0, int64_t c1, mest_real *lanes)
{
    int64_t c = c0;
    for (; c + V <= c1; c += V) {
        vec r[V];
        UNROLL for (int i = 0; i < V; i++)
        {
            r[i] = (vec){0};
            if (i < valid)
                r[i] = LOAD(row + i * ld + c);
        }
        transpose(r);
        UNROLL for (int i = 0; i < V; i++) STORE(lanes + (c + i) * V, r[i]);
    }
    for (; c < c1; c++)
        for (int64_t i = 0; i < V; i++)
            lanes[c * V + i] = i < valid ? row[i * ld + c] : 0;
}

static void to_rows(const mest_real *lanes, int64_t valid, int64_t c0, int64_t c1, mest_real *row, int64_t ld)
{
    int64_t c = c0;
    for (; c + V <= c1; c += V) {
        vec r[V];
        UNROLL for (int i = 0; i < V; i++) r[i] = LOAD(lanes + (c + i) * V);
        transpose(r);
        UNROLL for (int i = 0; i < V; i++) if (i < valid) STORE(row + i * ld + c, r[i]);
    }
    for (; c < c1; c++)
        for (int64_t i = 0; i < valid; i++)
            row[i * ld + c] = lanes[c * V + i];
}

static const mest_tokens_isa turn = {to_lanes, to_rows};

#define OPERATOR(name, op)                                                                                                            \
    static bool name##_fits(const mest_kernel_query *q, const char **why) { return mest_tokens_fits(q, op, why); }                    \
    static double name##_cost(const mest_kernel_query *q) { return mest_tokens_cost(q, op, MEST_LANES_ISA.flops_per_second); }        \
    static mest_status name##_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)               \
    {                                                                                                                                 \
        return mest_tokens_prepare(q, op, &MEST_LANES_ISA, &turn, state, scratch_bytes, err);                                         \
    }
OPERATOR(gemm, MEST_LANES_GEMM)
OPERATOR(gemm_grad, MEST_LANES_GEMM_GRAD)

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define LINE(kernel, onnx)                                                                                               \
    {.name = #kernel "_tokens_" TEXT(MEST_ISA), .op = onnx, .cpu = MEST_LANES_CPU, .fits = kernel##_fits,                \
     .cost = kernel##_cost, .prepare = kernel##_prepare, .run = mest_tokens_run, .release = mest_tokens_release}
extern const mest_kernel MEST_KERNEL_TABLE(tokens)[];
const mest_kernel MEST_KERNEL_TABLE(tokens)[] = {LINE(gemm, "Gemm"), LINE(gemm_grad, "mest.GemmGrad"), {.name = NULL}};
