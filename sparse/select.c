/* SPDX-License-Identifier: Apache-2.0 */
/* Which units are large, which are small: from_magnitude, scores, lowest. Norms are floats, so that ties are the same wherever they
 * are counted. */
#include "sparse/format.h"

#include <inttypes.h>
#include <math.h>

#include "sparse/cursor.h"
#include "sparse/kth.h"

enum { PIECE = 4096 };

/* ---- from a dense tensor that is read in pieces ---- */

typedef struct unit_reader {
    const mest_sparse *s;
    const mest_reader *reader;
    int64_t block_row, col0, n_cols; /* the piece: columns col0 .. col0 + n_cols - 1 of one block row */
    int64_t width;                   /* columns of a full piece */
    float piece[PIECE];              /* [height, width] */
} unit_reader;

static void rewind_units(unit_reader *u)
{
    u->block_row = u->col0 = u->n_cols = 0;
    u->width = PIECE / u->s->height;
}

/* Reads the next piece; n_cols == 0 at the end. Rows past the matrix are zero. */
static mest_status next_piece(unit_reader *u, mest_error *err)
{
    const mest_sparse *s = u->s;
    u->col0 += u->n_cols;
    if (u->col0 >= s->cols) {
        u->col0 = 0;
        u->block_row++;
    }
    u->n_cols = 0;
    if (u->block_row >= mest_block_rows(s) || s->cols == 0)
        return MEST_OK;
    int64_t n = s->cols - u->col0 < u->width ? s->cols - u->col0 : u->width;
    for (int64_t e = 0; e < s->height; e++) {
        int64_t row = u->block_row * s->height + e;
        if (row < s->rows)
            MEST_TRY(u->reader->read(u->reader->self, row * s->cols + u->col0, n, u->piece + e * u->width, err));
        else
            memset(u->piece + e * u->width, 0, (size_t)n * sizeof(float));
    }
    u->n_cols = n;
    return MEST_OK;
}

static float column_norm(const unit_reader *u, int64_t c)
{
    if (u->s->height == 1)
        return fabsf(u->piece[c]);
    double sum = 0;
    for (int64_t e = 0; e < u->s->height; e++) {
        double w = (double)u->piece[e * u->width + c];
        sum += w * w;
    }
    return (float)sqrt(sum);
}

/* Largest first is smallest first of the complement; equal norms keep the order of ids. */
static uint32_t descending(float norm) { return ~mest_float_bits(norm); }

mest_status mest_sparse_from_magnitude(mest_sparse *s, const mest_reader *reader, int64_t n_units, mest_error *err)
{
    MEST_CHECK(n_units >= 0 && n_units <= s->cap_units, err, MEST_E_LIMIT, "%s: %" PRId64 " units do not fit in room for %" PRId64, s->name,
               n_units, s->cap_units);
    unit_reader u = { .s = s, .reader = reader };
    mest_kth kth;
    mest_kth_init(&kth, n_units);
    for (int pass = 0; pass < MEST_KTH_PASSES && n_units > 0 && n_units < s->n_units; pass++) {
        rewind_units(&u);
        for (;;) {
            MEST_TRY(next_piece(&u, err));
            if (u.n_cols == 0)
                break;
            for (int64_t c = 0; c < u.n_cols; c++)
                mest_kth_count(&kth, descending(column_norm(&u, c)));
        }
        mest_kth_next(&kth);
    }
    mest_appender to;
    int64_t n = 0;
    mest_status status = MEST_OK;
    mest_appender_init(&to, s);
    rewind_units(&u);
    while (n < n_units) {
        MEST_TRY_OUT(next_piece(&u, err));
        if (u.n_cols == 0)
            break;
        for (int64_t c = 0; c < u.n_cols; c++) {
            if (n_units < s->n_units && !mest_kth_take(&kth, descending(column_norm(&u, c))))
                continue;
            for (int64_t e = 0; e < s->height; e++)
                s->values[n * s->height + e] = (mest_real)u.piece[e * u.width + c];
            mest_appender_put(&to, u.block_row * s->cols + u.col0 + c);
            n++;
        }
    }
out:
    mest_appender_finish(&to); /* also after a failed read: whatever stands is a valid pattern */
    return status;
}

/* ---- scores of active units ---- */

typedef struct score_terms {
    const mest_sparse *s;
    const mest_real *grad;
    double w_scale, g_scale;
} score_terms;

static double unit_norm(const mest_real *x, int32_t n)
{
    if (n == 1)
        return fabs((double)x[0]);
    double sum = 0;
    for (int32_t e = 0; e < n; e++)
        sum += (double)x[e] * (double)x[e];
    return sqrt(sum);
}

static score_terms make_terms(const mest_sparse *s, const mest_real *grad, double lambda, bool normalised)
{
    score_terms t = { .s = s, .grad = lambda != 0 ? grad : NULL, .w_scale = 1, .g_scale = lambda };
    if (!normalised)
        return t;
    double w = 0, g = 0;
    for (int64_t i = 0; i < s->active_units; i++) {
        w += unit_norm(s->values + i * s->unit_elements, s->unit_elements);
        if (t.grad)
            g += unit_norm(t.grad + i * s->unit_elements, s->unit_elements);
    }
    t.w_scale = w > 0 ? (double)s->active_units / w : 0;
    t.g_scale = g > 0 ? lambda * (double)s->active_units / g : 0;
    return t;
}

static float score_of(const score_terms *t, int64_t i)
{
    int32_t n = t->s->unit_elements;
    double score = t->w_scale * unit_norm(t->s->values + i * n, n);
    if (t->grad)
        score += t->g_scale * unit_norm(t->grad + i * n, n);
    return (float)score;
}

void mest_sparse_scores(const mest_sparse *s, const mest_real *grad, double lambda, bool normalised, int64_t first, int64_t n, float *out)
{
    score_terms t = make_terms(s, grad, lambda, normalised);
    for (int64_t i = 0; i < n; i++)
        out[i] = score_of(&t, first + i);
}

void mest_sparse_norms(const mest_sparse *s, const mest_real *x, int64_t first, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)unit_norm(x + (first + i) * s->unit_elements, s->unit_elements);
}

mest_status mest_sparse_lowest(const mest_sparse *s, const mest_real *grad, double lambda, bool normalised, int64_t k, int64_t *out, mest_error *err)
{
    MEST_CHECK(k >= 0 && k <= s->active_units, err, MEST_E_ARGUMENT, "%s: the lowest %" PRId64 " of %" PRId64 " active units were asked for",
               s->name, k, s->active_units);
    MEST_CHECK(lambda >= 0 && isfinite(lambda), err, MEST_E_ARGUMENT, "%s: lambda must be finite and not negative", s->name);
    if (k == 0)
        return MEST_OK;
    if (k == s->active_units) {
        s->format->units(s, 0, k, out);
        return MEST_OK;
    }
    score_terms t = make_terms(s, grad, lambda, normalised);
    mest_kth kth;
    mest_kth_init(&kth, k);
    for (int pass = 0; pass < MEST_KTH_PASSES; pass++) {
        for (int64_t i = 0; i < s->active_units; i++)
            mest_kth_count(&kth, mest_float_bits(fabsf(score_of(&t, i)))); /* fabsf: a NaN's sign must not decide */
        mest_kth_next(&kth);
    }
    mest_cursor c;
    int64_t n = 0;
    mest_cursor_init(&c, s);
    for (; c.at < s->active_units && n < k; c.at++)
        if (mest_kth_take(&kth, mest_float_bits(fabsf(score_of(&t, c.at)))))
            out[n++] = mest_cursor_peek(&c);
    return MEST_OK;
}
