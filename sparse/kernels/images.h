/* SPDX-License-Identifier: Apache-2.0 */
/* Forward convolution and matrix products with a sparse weight for batches smaller than the lanes: image after image, with the vector lanes filled
 * by what one image has.
 *
 *   pixel lanes    plain layout, any format: a vector is neighbouring pixels of one channel. Rows of a list hold one output, or four that share
 *                  their columns. What the taps read is copied once, shifted (planes below), so that all loads are whole vectors and positions run
 *                  through the image without gaps
 *   channel lanes  NHWC, blocks of 4, 8 or 16 outputs: a vector is the block's outputs, what is read is one number for all of them. What taps
 *                  reach past the image is copied with zeros around it, unless the input has a halo that is wide enough
 *
 * Lists, and the words of a job, are those of lanes.h: y_row is the distance of two outputs (pixel lanes), y_step that of two positions (channel
 * lanes). Work is cut by shapes and capacities only, and every sum has a fixed order: the same bits for any number of threads.
 *
 * Letters: C inputs, M outputs, H W image, R S kernel, P Q output image.
 */
#ifndef MEST_SPARSE_KERNELS_IMAGES_H
#define MEST_SPARSE_KERNELS_IMAGES_H

#include "sparse/kernels/lanes_state.h"

typedef struct mest_images_isa {
    int widest;                        /* elements of the widest vector: 16, 8 or 4 */
    double flops_per_second;
    /* Positions [first, last) of an image for rows [r0, r1), in vectors of `width` = 4, 8 or 16 <= widest; first is a multiple of it. */
    void (*pixels)(const mest_lanes_forward *job, int width, int64_t first, int64_t last, int32_t r0, int32_t r1);
    /* Positions [first, last) for rows [r0, r1) of list.height = 4, 8 or 16 outputs. */
    void (*channels)(const mest_lanes_forward *job, int64_t first, int64_t last, int32_t r0, int32_t r1);
    int (*most_positions)(int height); /* of a run of channels() */
    /* to[i] = keep[i] ? x[at[i]] : 0 for i < n; at NULL: x[i]. All that would be read exists. */
    void (*pick)(const mest_real *x, const int32_t *at, const int32_t *keep, int64_t n, mest_real *to);
} mest_images_isa;

typedef enum mest_images_kind { MEST_IMAGES_PIXELS, MEST_IMAGES_CHANNELS } mest_images_kind;

bool mest_images_fits(const mest_kernel_query *q, mest_images_kind kind, mest_lanes_op op, const char **why);
double mest_images_cost(const mest_kernel_query *q, mest_images_kind kind, mest_lanes_op op, const mest_images_isa *isa);
mest_status mest_images_prepare(const mest_kernel_query *q, mest_images_kind kind, mest_lanes_op op, const mest_images_isa *isa, void **state,
                                size_t *scratch_bytes, mest_error *err);
mest_status mest_images_run(const mest_args *a);
void mest_images_release(void *state, mest_heap *heap);
size_t mest_images_state_bytes(const void *state);

#endif
