/* SPDX-License-Identifier: Apache-2.0 */
/* The passes of images.h for one instruction set (compiled once for each), and the kernels' table. */
#include "sparse/kernels/images.h"

#include "sparse/kernels/unchecked.h"
MEST_UNCHECKED_BEGIN
#include "sparse/kernels/lanes_micro.h"

#define IMAGE_PASTE(name, w) name##_w##w
#define IMAGE_EXPAND(name, w) IMAGE_PASTE(name, w)
#define IMAGE(name) IMAGE_EXPAND(name, W)
#define PIXEL_ARGS const mest_lanes_forward *j, int32_t tile, int32_t r0, int32_t r1, const char *x, mest_real *y, int64_t rest
#define CHANNEL_ARGS const mest_lanes_forward *j, int32_t tile, int32_t r0, int32_t r1, const char *x, mest_real *y
/* Most positions whose sums of p vectors stay in registers. */
#if defined(MEST_ISA_AVX512) || defined(MEST_ISA_NEON)
#define CHANNEL_RUN(p) ((p) == 1 ? 8 : (p) == 2 ? 8 : 4)
#else
#define CHANNEL_RUN(p) ((p) == 1 ? 8 : (p) == 2 ? 4 : 2)
#endif

#if defined(MEST_ISA_AVX512)
#define IMAGE_WIDEST 16
#elif defined(MEST_ISA_AVX2)
#define IMAGE_WIDEST 8
#else
#define IMAGE_WIDEST 4
#endif
#define W 4
#include "sparse/kernels/images_micro.h"
#undef W
#if IMAGE_WIDEST >= 8
#define W 8
#include "sparse/kernels/images_micro.h"
#undef W
#endif
#if IMAGE_WIDEST >= 16
#define W 16
#include "sparse/kernels/images_micro.h"
#undef W
#endif

typedef void (*pixel_panel)(PIXEL_ARGS);
#define PIXEL_TABLE(w)                                                                                                                   \
    {NULL, pixels_1_w##w, pixels_2_w##w, pixels_3_w##w, pixels_4_w##w, pixels_5_w##w, pixels_6_w##w, pixels_7_w##w, pixels_8_w##w},      \
    {NULL, pixel_quads_1_w##w, pixel_quads_2_w##w, pixel_quads_3_w##w, pixel_quads_4_w##w, pixel_quads_5_w##w, pixel_quads_6_w##w}
static const pixel_panel pixel_panels[][9] = { /* twice the logarithm of width / 4, plus one for quads */
    PIXEL_TABLE(4),
#if IMAGE_WIDEST >= 8
    PIXEL_TABLE(8),
#endif
#if IMAGE_WIDEST >= 16
    PIXEL_TABLE(16),
#endif
};

static void pixels(const mest_lanes_forward *j, int width, int64_t first, int64_t last, int32_t r0, int32_t r1)
{
    const bool four = j->list.height == 4;
    const pixel_panel *const panel = pixel_panels[(width == 16 ? 4 : width == 8 ? 2 : 0) + four];
    const runs r = runs_of((last - first + width - 1) / width, four ? RUN_QUAD : RUN_SINGLE);
    int64_t at = first;
    for (int64_t i = 0; i < r.n; i++) {
        const int64_t u = r.base + (i < r.longer), rest = last - at - (u - 1) * width;
        for (int32_t tile = 0; tile < j->list.n_tiles; tile++)
            panel[u](j, tile, r0, r1, (const char *)(j->x + at), j->y + at, rest < width ? rest : width);
        at += u * width;
    }
}

typedef void (*channel_panel)(CHANNEL_ARGS);
#define CHANNEL_TABLE(p, w)                                                                                                             \
    {NULL, channels_##p##_1_w##w, channels_##p##_2_w##w, channels_##p##_3_w##w, channels_##p##_4_w##w, channels_##p##_5_w##w,            \
     channels_##p##_6_w##w, channels_##p##_7_w##w, channels_##p##_8_w##w}
static const channel_panel channel_panels[3][9] = { /* heights 4, 8, 16 */
    CHANNEL_TABLE(1, 4),
#if IMAGE_WIDEST >= 16
    CHANNEL_TABLE(1, 8), CHANNEL_TABLE(1, 16),
#elif IMAGE_WIDEST >= 8
    CHANNEL_TABLE(1, 8), CHANNEL_TABLE(2, 8),
#else
    CHANNEL_TABLE(2, 4), CHANNEL_TABLE(4, 4),
#endif
};

static int most_positions(int height)
{
    const int p = height <= IMAGE_WIDEST ? 1 : height / IMAGE_WIDEST;
    return CHANNEL_RUN(p);
}

static void channels(const mest_lanes_forward *j, int64_t first, int64_t last, int32_t r0, int32_t r1)
{
    const channel_panel *const panel = channel_panels[j->list.height == 16 ? 2 : j->list.height == 8];
    const runs r = runs_of(last - first, most_positions(j->list.height));
    int64_t at = first;
    for (int64_t i = 0; i < r.n; i++) {
        const int64_t u = r.base + (i < r.longer);
        for (int32_t tile = 0; tile < j->list.n_tiles; tile++)
            panel[u](j, tile, r0, r1, (const char *)(j->x + at * j->x_step), j->y + at * j->y_step);
        at += u;
    }
}

static void pick(const mest_real *restrict x, const int32_t *restrict at, const int32_t *restrict keep, int64_t n, mest_real *restrict to)
{
    if (at)
        for (int64_t i = 0; i < n; i++) {
            const mest_real value = x[at[i]]; /* read in any case: a conditional load would keep the loop scalar */
            to[i] = keep[i] ? value : 0;
        }
    else
        for (int64_t i = 0; i < n; i++) {
            const mest_real value = x[i];
            to[i] = keep[i] ? value : 0;
        }
}

static const mest_images_isa isa = {IMAGE_WIDEST, FLOPS_PER_SECOND, pixels, channels, most_positions, pick};

#define OPERATOR(name, kind, op)                                                                                                     \
    static bool name##_fits(const mest_kernel_query *q, const char **why) { return mest_images_fits(q, kind, op, why); }             \
    static double name##_cost(const mest_kernel_query *q) { return mest_images_cost(q, kind, op, &isa); }                            \
    static mest_status name##_prepare(const mest_kernel_query *q, void **state, size_t *scratch_bytes, mest_error *err)              \
    {                                                                                                                                \
        return mest_images_prepare(q, kind, op, &isa, state, scratch_bytes, err);                                                    \
    }
OPERATOR(conv_pixels, MEST_IMAGES_PIXELS, MEST_LANES_CONV)
OPERATOR(conv_affine_pixels, MEST_IMAGES_PIXELS, MEST_LANES_CONV_AFFINE)
OPERATOR(conv_channels, MEST_IMAGES_CHANNELS, MEST_LANES_CONV)
OPERATOR(conv_affine_channels, MEST_IMAGES_CHANNELS, MEST_LANES_CONV_AFFINE)
OPERATOR(gemm_channels, MEST_IMAGES_CHANNELS, MEST_LANES_GEMM)
OPERATOR(matmul_channels, MEST_IMAGES_CHANNELS, MEST_LANES_MATMUL)

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define LINE(kernel, title, onnx)                                                                                                 \
    {.name = title "_" TEXT(MEST_ISA), .op = onnx, .cpu = MEST_LANES_CPU, .fits = kernel##_fits, .cost = kernel##_cost,           \
     .prepare = kernel##_prepare, .run = mest_images_run, .release = mest_images_release, .state_bytes = mest_images_state_bytes}
extern const mest_kernel MEST_KERNEL_TABLE(images)[];
const mest_kernel MEST_KERNEL_TABLE(images)[] = {
    LINE(conv_channels, "conv_channel_lanes", "Conv"),
    LINE(conv_affine_channels, "conv_affine_channel_lanes", "mest.ConvAffine"),
    LINE(gemm_channels, "gemm_channel_lanes", "Gemm"),
    LINE(matmul_channels, "matmul_channel_lanes", "MatMul"),
    LINE(conv_pixels, "conv_pixel_lanes", "Conv"),
    LINE(conv_affine_pixels, "conv_affine_pixel_lanes", "mest.ConvAffine"),
    {.name = NULL},
};
MEST_UNCHECKED_END
