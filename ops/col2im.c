/* SPDX-License-Identifier: Apache-2.0 */
/* Col2Im(X, image_shape, block_shape): X[N, C prod(block), L] holds the blocks of an image side by side, as a convolution sees them; where
 * blocks overlap they are summed: Y[N, C, image...]. Any number of axes; image_shape and block_shape are constants. ONNX since 18.
 * mest.Col2ImGrad(dY): the blocks of dY (params: col_places). */
#include <inttypes.h>

#include "ops/elements.h"

typedef struct col_params { mest_ints dilations, pads, strides; } col_params;

enum { AXES = MEST_MAX_RANK - 2 };
typedef struct col_places {
    int rank;                    /* of the image, without N and C */
    int64_t n, c, size, taps, l; /* size: elements of an image plane; taps: of a block; l: blocks */
    int64_t image[AXES], block[AXES], blocks[AXES], step[AXES], dilation[AXES], pad[AXES];
} col_places;

/* NULL, or what is wrong. */
static const char *resolve(const col_params *p, const mest_shape *x, const int64_t *image, int n_image, const int64_t *block, int n_block, col_places *t)
{
    *t = (col_places){.rank = n_image, .n = x->dim[0], .size = 1, .taps = 1, .l = 1};
    if (x->rank != 3)
        return "the input must have three axes: N, C x block, L";
    if (n_image < 1 || n_image != n_block || n_image > AXES)
        return "image_shape and block_shape must have one number per axis of the image";
    if ((p->dilations.n && p->dilations.n != n_image) || (p->strides.n && p->strides.n != n_image) || (p->pads.n && p->pads.n != 2 * n_image))
        return "dilations, strides or pads do not fit the axes of the image";
    for (int i = 0; i < n_image; i++) {
        t->image[i] = image[i];
        t->block[i] = block[i];
        t->step[i] = p->strides.n ? p->strides.v[i] : 1;
        t->dilation[i] = p->dilations.n ? p->dilations.v[i] : 1;
        t->pad[i] = p->pads.n ? p->pads.v[i] : 0;
        int64_t end = p->pads.n ? p->pads.v[n_image + i] : 0;
        const int64_t limit = (int64_t)1 << 31;
        if (image[i] < 1 || block[i] < 1 || t->step[i] < 1 || t->dilation[i] < 1 || t->pad[i] < 0 || end < 0 || image[i] > limit || block[i] > limit ||
            t->step[i] > limit || t->dilation[i] > limit || t->pad[i] > limit || end > limit)
            return "sizes, strides and dilations must be positive, pads not negative, all below 2^31";
        int64_t room = image[i] + t->pad[i] + end - (t->dilation[i] * (block[i] - 1) + 1);
        t->blocks[i] = room < 0 ? 0 : room / t->step[i] + 1;
        if (__builtin_mul_overflow(t->size, image[i], &t->size) || __builtin_mul_overflow(t->taps, block[i], &t->taps) ||
            __builtin_mul_overflow(t->l, t->blocks[i], &t->l))
            return "the sizes are too large";
    }
    if (t->l != x->dim[2])
        return "the number of blocks L does not follow from image_shape, block_shape, strides, dilations and pads";
    if (x->dim[1] % t->taps)
        return "the second axis is not a multiple of the block's size";
    t->c = x->dim[1] / t->taps;
    return NULL;
}

static mest_status col2im_infer(mest_infer *c)
{
    int64_t image[AXES], block[AXES];
    int n_image, n_block;
    col_places t;
    MEST_INFER_CHECK(c, c->in[0]->dtype == MEST_F32, "element type %s is not supported", mest_dtype_name(c->in[0]->dtype));
    MEST_TRY(mest_infer_ints(c, 1, AXES, image, &n_image));
    MEST_TRY(mest_infer_ints(c, 2, AXES, block, &n_block));
    const char *why = resolve(c->params, &c->in[0]->shape, image, n_image, block, n_block, &t);
    MEST_INFER_CHECK(c, !why, "%s", why);
    mest_shape y = {.rank = 2 + t.rank, .dim = {t.n, t.c}};
    for (int i = 0; i < t.rank; i++)
        y.dim[2 + i] = t.image[i];
    return mest_infer_set(c, 0, MEST_F32, &y);
}

typedef struct job {
    const col_places *t;
    mest_real *columns, *image; /* one is read, the other written */
    bool gather;                /* columns from the image */
} job;

/* A plane of the image: nobody else touches it. */
static void tile(void *context, size_t index)
{
    const job *j = context;
    const col_places *t = j->t;
    mest_real *plane = j->image + (int64_t)index * t->size, *columns = j->columns + (int64_t)index * t->taps * t->l;
    const int last = t->rank - 1;
    const int64_t rows = t->blocks[last] ? t->l / t->blocks[last] : 0;
    if (!j->gather)
        memset(plane, 0, (size_t)t->size * sizeof *plane);
    for (int64_t k = 0; k < t->taps; k++)
        for (int64_t row = 0; row < rows; row++) {
            int64_t at_k[AXES], rest_k = k, rest = row, base = 0, stride = 1;
            bool inside = true;
            for (int i = last; i >= 0; i--) {
                at_k[i] = rest_k % t->block[i] * t->dilation[i] - t->pad[i];
                rest_k /= t->block[i];
            }
            for (int i = last - 1; i >= 0; i--) {
                const int64_t at = rest % t->blocks[i] * t->step[i] + at_k[i];
                rest /= t->blocks[i];
                stride *= t->image[i + 1];
                inside &= at >= 0 && at < t->image[i];
                base += at * stride;
            }
            mest_real *line = columns + (k * rows + row) * t->blocks[last];
            for (int64_t b = 0; b < t->blocks[last]; b++) {
                const int64_t at = b * t->step[last] + at_k[last];
                const bool here = inside && at >= 0 && at < t->image[last];
                if (j->gather)
                    line[b] = here ? plane[base + at] : 0;
                else if (here)
                    plane[base + at] += line[b];
            }
        }
}

static mest_status col2im_forward(const mest_args *a)
{
    int64_t image[AXES], block[AXES];
    int n_image = mest_read_ints(&a->in[1], AXES, image), n_block = mest_read_ints(&a->in[2], AXES, block);
    col_places t;
    const char *why = resolve(a->params, &a->in[0].type->shape, image, n_image, block, n_block, &t);
    if (why)
        return mest_run_fail(a, MEST_E_DATA, "%s", why);
    job j = {.t = &t, .columns = a->in[0].data, .image = a->out[0].data};
    mest_parallel(a->threads, (size_t)(t.n * t.c), tile, &j);
    return MEST_OK;
}

static mest_status grad_infer(mest_infer *c)
{
    const col_places *t = c->params;
    return mest_infer_set(c, 0, MEST_F32, &(mest_shape){.rank = 3, .dim = {t->n, t->c * t->taps, t->l}});
}

static mest_status grad_forward(const mest_args *a)
{
    job j = {.t = a->params, .columns = a->out[0].data, .image = a->in[0].data, .gather = true};
    mest_parallel(a->threads, (size_t)(j.t->n * j.t->c), tile, &j);
    return MEST_OK;
}

static mest_status col2im_vjp(mest_vjp *v)
{
    const mest_id dy = mest_dout(v, 0);
    col_places *t = mest_vjp_alloc(v, sizeof *t);
    int64_t sizes[2][AXES];
    int n[2];
    if (!t)
        return mest_vjp_nomem(v);
    for (int i = 0; i < 2; i++) {
        const mest_type *type = mest_vjp_type(v, mest_in(v, 1 + i));
        mest_tensor tensor = {.type = type, .data = (void *)(uintptr_t)mest_vjp_data(v, mest_in(v, 1 + i)), .count = (size_t)type->shape.dim[0]};
        n[i] = mest_read_ints(&tensor, AXES, sizes[i]);
    }
    const char *why = resolve(mest_vjp_node(v)->params, &mest_vjp_type(v, mest_in(v, 0))->shape, sizes[0], n[0], sizes[1], n[1], t);
    if (why)
        return mest_fail(mest_vjp_err(v), MEST_E_INTERNAL, "Col2Im '%s': %s", mest_vjp_node(v)->name, why);
    return mest_give_op(v, 0, "mest.Col2ImGrad", t, 1, &dy);
}

static const mest_attr attrs[] = {
    {.name = "dilations", .kind = MEST_ATTR_INTS, .offset = offsetof(col_params, dilations)},
    {.name = "pads", .kind = MEST_ATTR_INTS, .offset = offsetof(col_params, pads)},
    {.name = "strides", .kind = MEST_ATTR_INTS, .offset = offsetof(col_params, strides)},
    {.name = NULL},
};

const mest_op mest_ops_col2im[] = {
    {.domain = "", .name = "Col2Im", .since = 18, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE, .attrs = attrs,
     .params_bytes = sizeof(col_params), .infer = col2im_infer, .forward = col2im_forward, .vjp = col2im_vjp},
    {.domain = "mest", .name = "mest.Col2ImGrad", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .infer = grad_infer, .forward = grad_forward},
    {.name = NULL},
};
