/* SPDX-License-Identifier: Apache-2.0 */
/* The batch-lane passes for one instruction set (compiled once for each), and their table. The operators are in lanes_op.c, the lists in
 * lanes_list.c; neither depends on the instruction set. */
#include "sparse/kernels/unchecked.h"
MEST_UNCHECKED_BEGIN
#include "sparse/kernels/lanes_micro.h"

#define PANEL_ARGS const mest_lanes_forward *j, int32_t tile, int32_t r0, int32_t r1, const char *x, char *y
#define SINGLES(u, sets)                                                                                 \
    static __attribute__((noinline)) void singles_##u(PANEL_ARGS) { forward_singles(u, sets, false, j, tile, r0, r1, x, y); }
SINGLES(1, 8)
SINGLES(2, 4)
SINGLES(3, 2)
SINGLES(4, 2)
SINGLES(5, 1)
SINGLES(6, 1)
SINGLES(7, 1)
SINGLES(8, 1)
static void (*const singles[])(PANEL_ARGS) = {NULL, singles_1, singles_2, singles_3, singles_4, singles_5, singles_6, singles_7, singles_8};

/* With entries in runs; panels of few positions take them one by one. */
#define SINGLES_RUNS(u, sets) \
    static __attribute__((noinline)) void singles_runs_##u(PANEL_ARGS) { forward_singles(u, sets, true, j, tile, r0, r1, x, y); }
SINGLES_RUNS(3, 2)
SINGLES_RUNS(4, 2)
SINGLES_RUNS(5, 1)
SINGLES_RUNS(6, 1)
SINGLES_RUNS(7, 1)
SINGLES_RUNS(8, 1)
static void (*const singles_runs[])(PANEL_ARGS) = {NULL, singles_1, singles_2, singles_runs_3, singles_runs_4, singles_runs_5, singles_runs_6, singles_runs_7,
                                                   singles_runs_8};

#define QUADS(u) \
    static __attribute__((noinline)) void quads_##u(PANEL_ARGS) { forward_quads(u, j, tile, r0, r1, x, y); }
QUADS(1)
QUADS(2)
#if !defined(MEST_ISA_SCALAR)
QUADS(3)
#endif
#if defined(MEST_ISA_AVX512) || defined(MEST_ISA_NEON)
QUADS(4)
#endif
#if defined(MEST_ISA_AVX512)
QUADS(5)
QUADS(6)
static void (*const quads[])(PANEL_ARGS) = {NULL, quads_1, quads_2, quads_3, quads_4, quads_5, quads_6};
#elif defined(MEST_ISA_NEON)
static void (*const quads[])(PANEL_ARGS) = {NULL, quads_1, quads_2, quads_3, quads_4};
#elif defined(MEST_ISA_AVX2)
static void (*const quads[])(PANEL_ARGS) = {NULL, quads_1, quads_2, quads_3};
#else
static void (*const quads[])(PANEL_ARGS) = {NULL, quads_1, quads_2};
#endif

static void forward(const mest_lanes_forward *j, int64_t block, int64_t row, int32_t r0, int32_t r1)
{
    const mest_real *x = j->x + block * j->x_block + row * j->x_row;
    mest_real *y = j->y + block * j->y_block + row * j->y_row;
    const bool four = j->list.height == 4;
    const runs r = runs_of(j->run, four ? RUN_QUAD : RUN_SINGLE);
    for (int64_t i = 0; i < r.n; i++) {
        const int64_t u = r.base + (i < r.longer);
        void (*const panel)(PANEL_ARGS) = four ? quads[u] : j->list.runs ? singles_runs[u] : singles[u];
        for (int32_t tile = 0; tile < j->list.n_tiles; tile++)
            panel(j, tile, r0, r1, (const char *)x, (char *)y);
        x += u * j->x_step;
        y += u * j->y_step;
    }
}

#define BACKWARD_ARGS \
    const mest_lanes_backward *j, int32_t tile, int32_t r0, int32_t r1, const char *x, char *dx, const char *dy, mest_real *dw
#define BACKWARD(u)                                                                                                         \
    static __attribute__((noinline)) void fused_##u(BACKWARD_ARGS) { backward_rows(u, true, j, tile, r0, r1, x, dx, dy, dw); } \
    static __attribute__((noinline)) void only_weight_##u(BACKWARD_ARGS) { backward_rows(u, false, j, tile, r0, r1, x, dx, dy, dw); }
BACKWARD(1)
BACKWARD(2)
BACKWARD(3)
BACKWARD(4)
#if defined(MEST_ISA_AVX512) || defined(MEST_ISA_NEON)
BACKWARD(5)
BACKWARD(6)
BACKWARD(7)
BACKWARD(8)
static void (*const fused[])(BACKWARD_ARGS) = {NULL, fused_1, fused_2, fused_3, fused_4, fused_5, fused_6, fused_7, fused_8};
static void (*const only_weight[])(BACKWARD_ARGS) = {NULL, only_weight_1, only_weight_2, only_weight_3, only_weight_4, only_weight_5, only_weight_6, only_weight_7, only_weight_8};
#else
static void (*const fused[])(BACKWARD_ARGS) = {NULL, fused_1, fused_2, fused_3, fused_4};
static void (*const only_weight[])(BACKWARD_ARGS) = {NULL, only_weight_1, only_weight_2, only_weight_3, only_weight_4};
#endif

static void backward(const mest_lanes_backward *j, int64_t block, int64_t row, int32_t r0, int32_t r1, mest_real *dw)
{
    const mest_real *x = j->x + block * j->x_block + row * j->x_row, *dy = j->dy + block * j->dy_block + row * j->dy_row;
    mest_real *dx = j->dx ? j->dx + block * j->dx_block + row * j->dx_row : NULL;
    const runs r = runs_of(j->run, RUN_BACKWARD);
    for (int64_t i = 0; i < r.n; i++) {
        const int64_t u = r.base + (i < r.longer);
        void (*const panel)(BACKWARD_ARGS) = j->dx ? fused[u] : only_weight[u];
        for (int32_t tile = 0; tile < j->list.n_tiles; tile++)
            panel(j, tile, r0, r1, (const char *)x, (char *)dx, (const char *)dy, dw);
        x += u * j->x_step;
        dy += u * j->dy_step;
        if (dx)
            dx += u * j->dx_step;
    }
}

static void weight(const mest_lanes_weight *j, int64_t unit0, int64_t unit1, int64_t m0, int64_t m1, mest_real *dw)
{
    /* Inputs of as many columns as stay in the first-level cache while all outputs go by. */
    const int64_t columns = j->taps * j->c, tile = 128 / V;
    for (int64_t first = 0; first < columns; first += tile)
        for (int64_t m = m0; m < m1; m += WEIGHT_M)
            for (int64_t column = first; column < first + tile && column < columns; column += 4)
                weight_tile(j, unit0, unit1, m, m1, column, dw);
}

static void channel_sums(const mest_pixels *p, const mest_real *dy, int64_t c0, int64_t c1, mest_real *db)
{
    for (int64_t c = c0; c < c1; c += 4) {
        vec sum[4] = {{0}, {0}, {0}, {0}};
        const int64_t n = c1 - c < 4 ? c1 - c : 4;
        for (int64_t b = 0; b < p->blocks; b++)
            for (int64_t y = 0; y < p->h; y++) {
                const mest_real *at = dy + p->origin + b * p->block + y * p->row + c * V;
                for (int64_t x = 0; x < p->w; x++, at += p->pixel)
                    if (n == 4) {
                        UNROLL for (int k = 0; k < 4; k++) sum[k] += LOAD(at + k * V);
                    } else {
                        for (int64_t k = 0; k < n; k++)
                            sum[k] += LOAD(at + k * V);
                    }
            }
        quad r;
        reduce4(sum, &r);
        for (int64_t k = 0; k < n; k++)
            db[c + k] = r[k];
    }
}

const mest_lanes_isa MEST_LANES_ISA = {V, RUN_SINGLE, RUN_QUAD, RUN_BACKWARD, FLOPS_PER_SECOND, forward, backward, weight, channel_sums};

#define OPERATOR(name, op)                                                                                                           \
    static bool name##_fits(const mest_kernel_query *q, const char **why) { return mest_lanes_fits(q, op, &MEST_LANES_ISA, why); }              \
    static double name##_cost(const mest_kernel_query *q) { return mest_lanes_cost(q, op, &MEST_LANES_ISA); }                 \
    static void name##_halo(const mest_kernel_query *q, int input, uint8_t pad[4]) { mest_lanes_halo(q, op, input, pad); }           \
    static mest_status name##_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)              \
    {                                                                                                                                \
        return mest_lanes_prepare(q, op, &MEST_LANES_ISA, state, scratch_bytes, err);                                                           \
    }
OPERATOR(conv, MEST_LANES_CONV)
OPERATOR(conv_affine, MEST_LANES_CONV_AFFINE)
OPERATOR(conv_grad, MEST_LANES_CONV_GRAD)
OPERATOR(gemm, MEST_LANES_GEMM)
OPERATOR(gemm_grad, MEST_LANES_GEMM_GRAD)
OPERATOR(matmul, MEST_LANES_MATMUL)
OPERATOR(matmul_grad, MEST_LANES_MATMUL_GRAD)

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define LINE(kernel, onnx)                                                                                                        \
    {.name = #kernel "_lanes_" TEXT(MEST_ISA), .op = onnx, .cpu = MEST_LANES_CPU, .fits = kernel##_fits, .cost = kernel##_cost,            \
     .halo = kernel##_halo, .prepare = kernel##_prepare, .run = mest_lanes_run, .release = mest_lanes_release,                    \
     .state_bytes = mest_lanes_state_bytes}
extern const mest_kernel MEST_KERNEL_TABLE(lanes)[];
const mest_kernel MEST_KERNEL_TABLE(lanes)[] = {
    LINE(conv, "Conv"), LINE(conv_affine, "mest.ConvAffine"), LINE(conv_grad, "mest.ConvGrad"), LINE(gemm, "Gemm"), LINE(gemm_grad, "mest.GemmGrad"),
    LINE(matmul, "MatMul"), LINE(matmul_grad, "mest.MatMulGrad"), {.name = NULL},
};
MEST_UNCHECKED_END
