/* SPDX-License-Identifier: Apache-2.0 */
/* Separable triangle-filter resampling of 8-bit images.
 *
 * Output pixel i of a row of n_out pixels made from n_in: its centre lies at (i + 0.5) * s - 0.5 with s = n_in / n_out; source pixel j counts
 * with weight max(0, 1 - |j - centre| / max(s, 1)), weights normalised to 1. With s <= 1 this is bilinear interpolation, with s > 1 an
 * average over the area that one output pixel covers. Columns first, then rows, each rounded to 8 bits with weights of 22 fractional bits
 * (so that results do not depend on the compiler's floating point). */
#include <math.h>

#include "importers/image_ops.h"

enum { FRACTION = 22 };

typedef struct taps {
    int64_t n;       /* output pixels */
    int64_t width;   /* most weights an output pixel has */
    int64_t *first;  /* [n] first source pixel */
    int64_t *count;  /* [n] weights in use */
    int32_t *weight; /* [n, width] */
} taps;

static void free_taps(mest_heap *heap, taps *t)
{
    mest_free(heap, t->first, (size_t)t->n, sizeof *t->first);
    mest_free(heap, t->count, (size_t)t->n, sizeof *t->count);
    mest_free(heap, t->weight, (size_t)(t->n * t->width), sizeof *t->weight);
}

/* Weights for output pixels [skip, skip + n) of a row of n_out made from n_in. */
static mest_status make_taps(mest_heap *heap, taps *t, int64_t n_in, int64_t n_out, int64_t skip, int64_t n, mest_error *err)
{
    double step = (double)n_in / (double)n_out, reach = step > 1 ? step : 1;
    *t = (taps){.n = n, .width = (int64_t)ceil(reach) * 2 + 1};
    MEST_NEW(heap, t->first, n, err, "resize");
    MEST_NEW(heap, t->count, n, err, "resize");
    MEST_NEW(heap, t->weight, n * t->width, err, "resize");
    for (int64_t i = 0; i < n; i++) {
        double centre = ((double)(skip + i) + 0.5) * step, sum = 0;
        int64_t from = (int64_t)(centre - reach + 0.5), to = (int64_t)(centre + reach + 0.5);
        from = from < 0 ? 0 : from;
        to = to > n_in ? n_in : to;
        int32_t *weight = t->weight + i * t->width;
        t->first[i] = from;
        t->count[i] = to - from;
        for (int pass = 0; pass < 2; pass++) /* first the sum, then the normalised weights */
            for (int64_t j = from; j < to; j++) {
                double d = fabs(((double)j - centre + 0.5) / reach), w = d < 1 ? 1 - d : 0;
                if (pass == 0)
                    sum += w;
                else
                    weight[j - from] = (int32_t)floor(w / sum * (1 << FRACTION) + 0.5);
            }
    }
    return MEST_OK;
}

static uint8_t rounded(int64_t sum)
{
    sum = (sum + (1 << (FRACTION - 1))) >> FRACTION;
    return sum < 0 ? 0 : sum > 255 ? 255 : (uint8_t)sum;
}

/* Where `out` pixels of the middle begin in `n` pixels; halves go to the even number. */
static int64_t middle(int64_t n, int64_t out)
{
    int64_t extra = n - out, half = extra / 2;
    return extra % 2 && half % 2 ? half + 1 : half;
}

mest_status mest_resize_crop(mest_heap *heap, const uint8_t *from, int64_t h, int64_t w, uint8_t *to, int64_t out_h, int64_t out_w,
                             mest_error *err)
{
    mest_status status;
    if (h == out_h && w == out_w) {
        for (int64_t c = 0; c < 3; c++)
            for (int64_t i = 0; i < h * w; i++)
                *to++ = from[i * 3 + c];
        return MEST_OK;
    }
    /* size of the whole resized image, of which the middle is kept */
    bool wide = (double)w * (double)out_h >= (double)h * (double)out_w;
    int64_t full_h = wide ? out_h : (int64_t)((double)out_w * (double)h / (double)w);
    int64_t full_w = wide ? (int64_t)((double)out_h * (double)w / (double)h) : out_w;
    full_h = full_h < out_h ? out_h : full_h;
    full_w = full_w < out_w ? out_w : full_w;
    taps columns = {0}, rows = {0};
    uint8_t *narrow = NULL; /* [n_rows, out_w, 3]: the source rows that matter, columns resampled */
    int64_t row0 = 0, n_rows = 0;
    MEST_TRY_OUT(make_taps(heap, &columns, w, full_w, middle(full_w, out_w), out_w, err));
    MEST_TRY_OUT(make_taps(heap, &rows, h, full_h, middle(full_h, out_h), out_h, err));
    row0 = rows.first[0];
    n_rows = rows.first[out_h - 1] + rows.count[out_h - 1] - row0;
    narrow = mest_alloc(heap, (size_t)n_rows, (size_t)out_w * 3);
    if (!narrow) {
        status = mest_fail(err, MEST_E_NOMEM, "resize: no memory");
        goto out;
    }
    for (int64_t y = 0; y < n_rows; y++)
        for (int64_t x = 0; x < out_w; x++) {
            const uint8_t *p = from + ((row0 + y) * w + columns.first[x]) * 3;
            const int32_t *weight = columns.weight + x * columns.width;
            int64_t r = 0, g = 0, b = 0;
            for (int64_t k = 0; k < columns.count[x]; k++, p += 3) {
                r += (int64_t)weight[k] * p[0];
                g += (int64_t)weight[k] * p[1];
                b += (int64_t)weight[k] * p[2];
            }
            uint8_t *q = narrow + (y * out_w + x) * 3;
            q[0] = rounded(r);
            q[1] = rounded(g);
            q[2] = rounded(b);
        }
    for (int64_t c = 0; c < 3; c++)
        for (int64_t y = 0; y < out_h; y++)
            for (int64_t x = 0; x < out_w; x++) {
                const uint8_t *p = narrow + ((rows.first[y] - row0) * out_w + x) * 3 + c;
                const int32_t *weight = rows.weight + y * rows.width;
                int64_t sum = 0;
                for (int64_t k = 0; k < rows.count[y]; k++)
                    sum += (int64_t)weight[k] * p[k * out_w * 3];
                *to++ = rounded(sum);
            }
out:
    mest_free(heap, narrow, (size_t)n_rows, (size_t)out_w * 3);
    free_taps(heap, &columns);
    free_taps(heap, &rows);
    return status;
}
