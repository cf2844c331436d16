/* SPDX-License-Identifier: Apache-2.0 */
#include "sparse/piece.h"

#include <math.h>
#include <string.h>

static int64_t full_width(const mest_sparse *s) { return MEST_PIECE / s->row_span / s->cell_cols * s->cell_cols; }

static int64_t full_slots(const mest_sparse *s) { return full_width(s) / s->cell_cols * s->cell_units; }

/* Where entries lie in the piece: as in its first cell, whose padding is that of a matrix of one cell, so that elsewhere padding is read as the zeros
 * past the matrix. */
static void find_places(mest_piece *p)
{
    const mest_sparse *s = p->s;
    const int64_t units = s->cell_units * s->choices;
    int32_t row[MEST_UNIT_MOST], col[MEST_UNIT_MOST];
    p->ready = true;
    p->upright = true;
    if (!s->format->element || p->width == 0)
        return;
    p->upright = s->choices == 1 && s->cell_cols == s->cell_units && s->row_span == s->unit_elements;
    for (int64_t k = 0; k < units && k < s->unit_cols; k++) {
        s->format->element(s, k, row, col);
        for (int32_t e = 0; e < s->unit_elements; e++) {
            p->place[k * s->unit_elements + e] = (int16_t)(col[e] < 0 ? -1 : row[e] * p->width + col[e]);
            p->upright &= row[e] == e && col[e] == k;
        }
    }
}

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
    if (!p->ready)
        find_places(p);
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

/* Entry e of a unit whose cell begins at `cell`, with its places. */
static inline double entry(const float *cell, const int16_t *place, int32_t e) { return place[e] < 0 ? 0 : (double)cell[place[e]]; }

static void norms_by_cells(const mest_piece *p, float *norm)
{
    const mest_sparse *s = p->s;
    const int32_t n = s->unit_elements;
    const float *cell = p->value;
    for (int64_t i = 0; i < p->n_slots; cell += s->cell_cols) {
        const int64_t end = i + s->cell_units < p->n_slots ? i + s->cell_units : p->n_slots;
        const int16_t *place = p->place;
        if (n == 1)
            for (; i < end; i++, place++)
                norm[i] = *place < 0 ? 0 : fabsf(cell[*place]);
        else
            for (; i < end; i++, place += n) {
                double sum = 0;
                for (int32_t e = 0; e < n; e++)
                    sum += entry(cell, place, e) * entry(cell, place, e);
                norm[i] = (float)sqrt(sum);
            }
    }
}

/* Cells of one slot with choices: all choices have the same number of entries, so they are compared by sums of squares, and by norms where those
 * are so close that two norms may be one float. */
static void best_choices(const mest_piece *p, float *norm, uint8_t *choice)
{
    const mest_sparse *s = p->s;
    const int32_t n = s->unit_elements, choices = s->choices;
    double sum[MEST_PATTERNS_MOST];
    for (int64_t i = 0; i < p->n_slots; i++) {
        const float *cell = p->value + i * s->cell_cols;
        double most = 0, check = 0;
        for (int32_t c = 0; c < choices; c++) {
            double x = 0;
            for (int32_t e = 0; e < n; e++)
                x += entry(cell, p->place + c * n, e) * entry(cell, p->place + c * n, e);
            sum[c] = x;
            most = x > most ? x : most;
            check += x;
        }
        int32_t best = 0;
        if (check != check) { /* a NaN is larger than everything */
            while (sum[best] == sum[best])
                best++;
            norm[i] = (float)sum[best];
        } else {
            norm[i] = (float)sqrt(most);
            while (sum[best] < most * (1 - 0x1p-20) || (sum[best] != most && (float)sqrt(sum[best]) != norm[i]))
                best++;
        }
        choice[i] = (uint8_t)best;
    }
}

void mest_piece_norms(const mest_piece *p, float *norm, uint8_t *choice)
{
    const mest_sparse *s = p->s;
    if (!p->upright) {
        if (s->choices > 1)
            best_choices(p, norm, choice);
        else
            norms_by_cells(p, norm);
        return;
    }
    const float *from = p->value + (p->slot0 - p->col0); /* the first slot's column */
    if (s->unit_elements == 1) {
        for (int64_t i = 0; i < p->n_slots; i++)
            norm[i] = fabsf(from[i]);
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
            norm[first + i] = (float)sqrt(sum[i]);
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
    const uint32_t in_piece = (uint32_t)(slot - p->slot0), units = (uint32_t)s->cell_units, cell = in_piece / units;
    const int16_t *place = p->place + ((in_piece - cell * units) * (uint32_t)s->choices + (uint32_t)choice) * (uint32_t)s->unit_elements;
    for (int32_t e = 0; e < s->unit_elements; e++)
        out[e] = (mest_real)entry(p->value + cell * s->cell_cols, place, e);
}
