/* SPDX-License-Identifier: Apache-2.0 */
/* Rows to lanes and back for one instruction set, and the table of tokens.h. */
#include "sparse/kernels/tokens.h"

#include "sparse/kernels/lanes_turn.h"

static const mest_tokens_isa turn = {turn_to_lanes, turn_to_rows};

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
