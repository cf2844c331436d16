/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/window.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LARGEST ((int64_t)1 << 31) /* of a size or step: sums and products of a few stay in 64 bits */

#define WINDOW_CHECK(cond, ...)                  \
    do {                                         \
        if (!(cond)) {                           \
            snprintf(why, why_size, __VA_ARGS__); \
            return false;                        \
        }                                        \
    } while (0)

/* Everything that does not depend on the image. */
static bool attributes(const mest_window_spec *s, const mest_shape *x, mest_window *w, char *why, size_t why_size)
{
    int n = x->rank - 2;
    WINDOW_CHECK(n >= 1 && n <= 3, "input of rank %d, 3 to 5 (one to three spatial axes) are supported", (int)x->rank);
    WINDOW_CHECK(s->kernel->n == n, "kernel_shape has %d entries for %d spatial axes", (int)s->kernel->n, n);
    WINDOW_CHECK(s->strides->n == 0 || s->strides->n == n, "strides has %d entries for %d spatial axes", (int)s->strides->n, n);
    WINDOW_CHECK(s->dilations->n == 0 || s->dilations->n == n, "dilations has %d entries for %d spatial axes", (int)s->dilations->n, n);
    WINDOW_CHECK(s->pads->n == 0 || s->pads->n == 2 * n, "pads has %d entries for %d spatial axes", (int)s->pads->n, n);
    w->spatial = n;
    for (int i = 0; i < 3; i++) {
        w->in[i] = w->out[i] = w->kernel[i] = w->stride[i] = w->dilation[i] = 1;
        w->lo[i] = w->hi[i] = 0;
    }
    for (int i = 0; i < n; i++) {
        int at = 3 - n + i;
        int64_t size = x->dim[2 + i], kernel = s->kernel->v[i];
        int64_t stride = s->strides->n ? s->strides->v[i] : 1, dilation = s->dilations->n ? s->dilations->v[i] : 1;
        int64_t lo = s->pads->n ? s->pads->v[i] : 0, hi = s->pads->n ? s->pads->v[n + i] : 0;
        WINDOW_CHECK(size >= 1 && size < LARGEST, "spatial size %" PRId64 " of axis %d", size, 2 + i);
        WINDOW_CHECK(kernel >= 1 && kernel < LARGEST, "kernel size %" PRId64 " of axis %d", kernel, 2 + i);
        WINDOW_CHECK(stride >= 1 && stride < LARGEST, "stride %" PRId64 " of axis %d", stride, 2 + i);
        WINDOW_CHECK(dilation >= 1 && dilation < LARGEST, "dilation %" PRId64 " of axis %d", dilation, 2 + i);
        WINDOW_CHECK(lo >= 0 && lo < LARGEST && hi >= 0 && hi < LARGEST, "pads %" PRId64 " and %" PRId64 " of axis %d", lo, hi, 2 + i);
        WINDOW_CHECK((kernel - 1) * dilation < LARGEST, "kernel size %" PRId64 " with dilation %" PRId64, kernel, dilation);
        w->in[at] = size;
        w->kernel[at] = kernel;
        w->stride[at] = stride;
        w->dilation[at] = dilation;
        w->lo[at] = lo;
        w->hi[at] = hi;
    }
    return true;
}

typedef enum auto_pad { PAD_GIVEN, PAD_UPPER, PAD_LOWER, PAD_VALID, PAD_UNKNOWN } auto_pad;

static auto_pad auto_pad_of(const char *text)
{
    if (!text || !text[0] || !strcmp(text, "NOTSET"))
        return PAD_GIVEN;
    if (!strcmp(text, "SAME_UPPER"))
        return PAD_UPPER;
    if (!strcmp(text, "SAME_LOWER"))
        return PAD_LOWER;
    return !strcmp(text, "VALID") ? PAD_VALID : PAD_UNKNOWN;
}

bool mest_window_of(const mest_window_spec *spec, const mest_shape *x, mest_window *w, char *why, size_t why_size)
{
    if (!attributes(spec, x, w, why, why_size))
        return false;
    auto_pad pad = auto_pad_of(spec->auto_pad);
    WINDOW_CHECK(pad != PAD_UNKNOWN, "auto_pad '%s' is not known", spec->auto_pad);
    for (int i = 3 - w->spatial; i < 3; i++) {
        int64_t reach = (w->kernel[i] - 1) * w->dilation[i] + 1;
        if (pad == PAD_UPPER || pad == PAD_LOWER) {
            w->out[i] = (w->in[i] + w->stride[i] - 1) / w->stride[i];
            int64_t total = (w->out[i] - 1) * w->stride[i] + reach - w->in[i];
            total = total < 0 ? 0 : total;
            w->lo[i] = pad == PAD_UPPER ? total / 2 : total - total / 2;
            w->hi[i] = total - w->lo[i];
            continue;
        }
        if (pad == PAD_VALID)
            w->lo[i] = w->hi[i] = 0;
        int64_t span = w->in[i] + w->lo[i] + w->hi[i] - reach;
        WINDOW_CHECK(span >= 0, "window of %" PRId64 " does not fit into %" PRId64 " + %" PRId64 " + %" PRId64 " (axis %d)", reach, w->in[i],
                     w->lo[i], w->hi[i], i - 1 + w->spatial);
        w->out[i] = span / w->stride[i] + 1;
        if (spec->ceil && span % w->stride[i] != 0 && w->out[i] * w->stride[i] < w->in[i] + w->lo[i])
            w->out[i]++;
    }
    return true;
}

bool mest_window_transposed(const mest_window_spec *spec, const mest_ints *output_padding, const mest_ints *output_shape,
                            const mest_shape *x, mest_window *w, char *why, size_t why_size)
{
    if (!attributes(spec, x, w, why, why_size))
        return false;
    auto_pad pad = auto_pad_of(spec->auto_pad);
    int n = w->spatial;
    WINDOW_CHECK(pad != PAD_UNKNOWN, "auto_pad '%s' is not known", spec->auto_pad);
    WINDOW_CHECK(output_padding->n == 0 || output_padding->n == n, "output_padding has %d entries for %d spatial axes",
                 (int)output_padding->n, n);
    /* output_shape may name batch and channels too: the last n entries count */
    WINDOW_CHECK(output_shape->n == 0 || output_shape->n == n || output_shape->n == n + 2, "output_shape has %d entries for %d spatial axes",
                 (int)output_shape->n, n);
    for (int i = 0; i < n; i++) {
        int at = 3 - n + i;
        int64_t size = w->in[at], stride = w->stride[at], extra = output_padding->n ? output_padding->v[i] : 0;
        WINDOW_CHECK(extra >= 0 && extra < LARGEST, "output_padding %" PRId64 " of axis %d", extra, 2 + i);
        int64_t full = (size - 1) * stride + (w->kernel[at] - 1) * w->dilation[at] + 1 + extra;
        int64_t large;
        if (output_shape->n || pad == PAD_UPPER || pad == PAD_LOWER) {
            large = output_shape->n ? output_shape->v[output_shape->n - n + i] : size * stride;
            WINDOW_CHECK(large >= 1 && large < LARGEST, "output size %" PRId64 " of axis %d", large, 2 + i);
            int64_t total = full - large;
            total = total < 0 ? 0 : total;
            w->lo[at] = pad == PAD_UPPER ? total / 2 : total - total / 2;
            w->hi[at] = total - w->lo[at];
        } else {
            if (pad == PAD_VALID)
                w->lo[at] = w->hi[at] = 0;
            large = full - w->lo[at] - w->hi[at];
            WINDOW_CHECK(large >= 1 && large < LARGEST, "output size %" PRId64 " of axis %d", large, 2 + i);
        }
        w->out[at] = size;
        w->in[at] = large;
    }
    return true;
}
