/* SPDX-License-Identifier: Apache-2.0 */
#include "sparse/piece.h"

#include <math.h>
#include <string.h>

/* Is every unit one column of the piece, from its first row to its last? */
static bool upright(const mest_sparse *s)
{
    return !s->format->element || (s->choices == 1 && s->cell_cols == 1 && s->cell_units == 1 && s->row_span == s->unit_elements);
}

static int64_t full_width(const mest_sparse *s) { return MEST_PIECE / s->row_span / s->cell_cols * s->cell_cols; }

static int64_t full_slots(const mest_sparse *s) { return full_width(s) / s->cell_cols * s->cell_units; }

void mest_piece_rewind(mest_piece *p) { mest_piece_seek(p, 0); }

int64_t mest_piece_count(const mest_sparse *s)
{
    const int64_t slots = s->unit_cols / s->choices;
    return s->cols == 0 ? 0 : s->unit_rows * ((slots + full_slots(s) - 1) / full_slots(s));
}

void mest_piece_seek(mest_piece *p, int64_t at)
{
    const mest_sparse *s = p->s;
    const int64_t n = full_slots(s), in_row = (s->unit_cols / s->choices + n - 1) / n;
    p->width = full_width(s);
    p->upright = upright(s);
    p->n_cols = p->n_slots = 0;
    p->b = in_row ? at / in_row : 0;
    p->slot0 = in_row ? at % in_row * n : 0;
    p->col0 = in_row ? at % in_row * p->width : 0;
}

mest_status mest_piece_next(mest_piece *p, mest_error *err)
{
    const mest_sparse *s = p->s;
    const int64_t slots = s->unit_cols / s->choices;
    p->col0 += p->n_slots / s->cell_units * s->cell_cols;
    p->slot0 += p->n_slots;
    if (p->slot0 >= slots) {
        p->col0 = p->slot0 = 0;
        p->b++;
    }
    p->n_cols = p->n_slots = 0;
    if (p->b >= s->unit_rows || s->cols == 0 || slots == 0)
        return MEST_OK;
    const int64_t n = s->cols - p->col0 < p->width ? s->cols - p->col0 : p->width;
    for (int64_t r = 0; r < s->row_span; r++) {
        const int64_t row = p->b * s->row_span + r;
        float *to = p->value + r * p->width;
        if (row < s->rows)
            MEST_TRY(p->reader->read(p->reader->self, row * s->cols + p->col0, n, to, err));
        else
            memset(to, 0, (size_t)n * sizeof *to);
        memset(to + n, 0, (size_t)(p->width - n) * sizeof *to);
    }
    p->n_cols = n;
    p->n_slots = full_slots(s);
    if (p->n_slots > slots - p->slot0)
        p->n_slots = slots - p->slot0;
    return MEST_OK;
}

/* Entries of a unit column, as places in the piece, -1 for padding. */
static void places(const mest_piece *p, int64_t k, int32_t *at)
{
    const mest_sparse *s = p->s;
    int32_t row[MEST_UNIT_MOST], col[MEST_UNIT_MOST];
    s->format->element(s, k, row, col);
    for (int32_t e = 0; e < s->unit_elements; e++)
        at[e] = col[e] < 0 ? -1 : (int32_t)(row[e] * p->width + col[e] - p->col0);
}

float mest_piece_norm(const mest_piece *p, int64_t slot, int32_t choice)
{
    const mest_sparse *s = p->s;
    double sum = 0;
    if (p->upright) {
        if (s->unit_elements == 1)
            return fabsf(p->value[slot - p->col0]);
        for (int32_t e = 0; e < s->unit_elements; e++) {
            const double w = (double)p->value[e * p->width + slot - p->col0];
            sum += w * w;
        }
        return (float)sqrt(sum);
    }
    int32_t at[MEST_UNIT_MOST];
    places(p, slot * s->choices + choice, at);
    if (s->unit_elements == 1)
        return at[0] < 0 ? 0 : fabsf(p->value[at[0]]);
    for (int32_t e = 0; e < s->unit_elements; e++) {
        const double w = at[e] < 0 ? 0 : (double)p->value[at[e]];
        sum += w * w;
    }
    return (float)sqrt(sum);
}

void mest_piece_norms(const mest_piece *p, float *out)
{
    const mest_sparse *s = p->s;
    if (!p->upright) {
        for (int64_t i = 0; i < p->n_slots; i++)
            out[i] = mest_piece_norm(p, p->slot0 + i, 0);
        return;
    }
    const float *from = p->value + (p->slot0 - p->col0); /* the first slot's column */
    if (s->unit_elements == 1) {
        for (int64_t i = 0; i < p->n_slots; i++)
            out[i] = fabsf(from[i]);
        return;
    }
    enum { BAND = 64 }; /* sums in registers and the first cache */
    for (int64_t first = 0; first < p->n_slots; first += BAND) {
        double sum[BAND] = {0};
        const int64_t n = p->n_slots - first < BAND ? p->n_slots - first : BAND;
        for (int32_t e = 0; e < s->unit_elements; e++) {
            const float *row = from + e * p->width + first;
            for (int64_t i = 0; i < n; i++)
                sum[i] += (double)row[i] * (double)row[i];
        }
        for (int64_t i = 0; i < n; i++)
            out[first + i] = (float)sqrt(sum[i]);
    }
}

void mest_piece_values(const mest_piece *p, int64_t slot, int32_t choice, mest_real *out)
{
    const mest_sparse *s = p->s;
    if (p->upright) {
        for (int32_t e = 0; e < s->unit_elements; e++)
            out[e] = (mest_real)p->value[e * p->width + slot - p->col0];
        return;
    }
    int32_t at[MEST_UNIT_MOST];
    places(p, slot * s->choices + choice, at);
    for (int32_t e = 0; e < s->unit_elements; e++)
        out[e] = at[e] < 0 ? 0 : (mest_real)p->value[at[e]];
}
