/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/outer.h"

#include <string.h>

#include "ops/dense.h"

enum { ROWS = 64, COLS = 128, DEPTH = MEST_PANEL_DEPTH }; /* rows that share packed columns, columns of a pass, positions of a pass */

mest_operand mest_operand_of(const mest_tensor *t)
{
    const mest_type *type = t->type;
    mest_operand o = { .data = t->data, .v = 1, .lane = 1 };
    if (type->layout.kind == MEST_PIXEL) {
        mest_pixels p = mest_pixel_geometry(type);
        o.data += p.origin;
        o.v = p.v;
        o.block = p.block;
        o.channel = p.v;
        o.step[1] = p.row;
        o.step[2] = p.pixel;
        return o;
    }
    const mest_shape *s = &type->shape;
    int64_t step = 1;
    for (int i = s->rank - 1; i >= 2; i--) {
        o.step[2 - (s->rank - 1 - i)] = step;
        step *= s->dim[i];
    }
    o.channel = step;
    o.block = step * s->dim[1];
    return o;
}

void mest_outer_matrix(mest_outer *o, int64_t n, const mest_operand *rows, const mest_operand *cols, double alpha)
{
    *o = (mest_outer){ .rows = *rows, .cols = *cols, .n = n, .group = 1, .group_rows = INT64_MAX, .alpha = alpha };
    for (int i = 0; i < 3; i++)
        o->window.in[i] = o->window.out[i] = o->window.kernel[i] = o->window.stride[i] = o->window.dilation[i] = 1;
}

size_t mest_outer_scratch(void) { return (size_t)(ROWS * DEPTH + DEPTH * MEST_PANEL + ROWS * COLS); }

/* A pass over positions. Images go v at a time, v the larger of the two operands' lanes, so that lanes are neighbours in memory. Lanes
 * past the batch are zero in gradients and finite elsewhere, one operand is a gradient: they add nothing, if both operands have them. */
typedef struct walk {
    const mest_outer *o;
    int64_t v, pixels, total;   /* positions in all */
    int64_t n;                  /* positions of the pass */
    int64_t rows_at[DEPTH], with_at[DEPTH], cols_at[DEPTH], start[DEPTH][3];
} walk;

static int64_t place(const mest_operand *o, int64_t image, int64_t z, int64_t y, int64_t x)
{
    return image / o->v * o->block + image % o->v * o->lane + z * o->step[0] + y * o->step[1] + x * o->step[2];
}

/* Offsets of positions from..from+n-1. */
static void find_positions(walk *w, int64_t from, int64_t n)
{
    const mest_outer *o = w->o;
    const mest_window *k = &o->window;
    w->n = n;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = from + i, lane = at % w->v, pixel = at / w->v % w->pixels, image = at / w->v / w->pixels * w->v + lane;
        int64_t x = pixel % k->out[2], y = pixel / k->out[2] % k->out[1], z = pixel / k->out[2] / k->out[1];
        if (image >= o->n) { /* an operand without these lanes must not be read there */
            w->rows_at[i] = -1;
            continue;
        }
        w->rows_at[i] = place(&o->rows, image, z, y, x);
        if (o->rows_map)
            w->with_at[i] = place(&o->rows_with, image, z, y, x);
        w->cols_at[i] = place(&o->cols, image, 0, 0, 0);
        w->start[i][0] = z * k->stride[0] - k->lo[0];
        w->start[i][1] = y * k->stride[1] - k->lo[1];
        w->start[i][2] = x * k->stride[2] - k->lo[2];
    }
}

static void pack_rows(const walk *w, int64_t row0, int64_t n_rows, mest_real *a)
{
    const mest_operand *from = &w->o->rows;
    for (int64_t r = 0; r < n_rows; r++) {
        const mest_real *data = from->data + (row0 + r) * from->channel;
        for (int64_t i = 0; i < w->n; i++)
            a[r * DEPTH + i] = w->rows_at[i] < 0 ? 0 : data[w->rows_at[i]];
        if (!w->o->rows_map)
            continue;
        const mest_real *with = w->o->rows_with.data + (row0 + r) * w->o->rows_with.channel, *map = w->o->rows_map + row0 + r;
        const int64_t k = w->o->rows_channels;
        for (int64_t i = 0; i < w->n; i++)
            if (w->rows_at[i] >= 0)
                a[r * DEPTH + i] = (a[r * DEPTH + i] * map[k] + map[3 * k]) + (with[w->with_at[i]] - map[0]) * map[2 * k];
    }
}

/* What the map of channel c and the activation make of a column's value. */
static mest_real mapped(const mest_outer *o, int64_t c, mest_real value)
{
    const mest_real *map = o->cols_map + c;
    const mest_real t = (value - map[0]) * map[o->cols_channels] + map[2 * o->cols_channels], low = t < o->lo ? o->lo : t;
    return low > o->hi ? o->hi : low;
}

/* panel[i][j] = column col0 + j at position i; channel0: first channel of the group. */
static void pack_cols(const walk *w, int64_t channel0, int64_t col0, int64_t n_cols, mest_real *panel)
{
    const mest_window *k = &w->o->window;
    const mest_operand *from = &w->o->cols;
    const int64_t taps = mest_window_volume(k->kernel);
    const bool inside = mest_window_volume(k->in) == 1 && taps == 1; /* a matrix: nothing to clip */
    if (n_cols < MEST_PANEL)
        memset(panel, 0, (size_t)(w->n * MEST_PANEL) * sizeof *panel);
    for (int64_t j = 0; j < n_cols; j++) {
        int64_t c = (col0 + j) / taps, tap = (col0 + j) % taps;
        int64_t dx = tap % k->kernel[2] * k->dilation[2], dy = tap / k->kernel[2] % k->kernel[1] * k->dilation[1],
                dz = tap / k->kernel[2] / k->kernel[1] * k->dilation[0];
        const mest_real *data = from->data + (channel0 + c) * from->channel;
        for (int64_t i = 0; i < w->n; i++) {
            mest_real value = 0;
            bool read = w->rows_at[i] >= 0 && inside;
            if (read) {
                value = data[w->cols_at[i]];
            } else if (w->rows_at[i] >= 0) {
                int64_t z = w->start[i][0] + dz, y = w->start[i][1] + dy, x = w->start[i][2] + dx;
                read = z >= 0 && z < k->in[0] && y >= 0 && y < k->in[1] && x >= 0 && x < k->in[2];
                if (read)
                    value = data[w->cols_at[i] + z * from->step[0] + y * from->step[1] + x * from->step[2]];
            }
            panel[i * MEST_PANEL + j] = read && w->o->cols_map ? mapped(w->o, channel0 + c, value) : value;
        }
    }
}

/* Rows of one group, at most ROWS x COLS. */
static void small_tile(walk *w, int64_t row0, int64_t n_rows, int64_t channel0, int64_t col0, int64_t n_cols, mest_real *out, int64_t stride,
                       mest_real *scratch)
{
    mest_real *a = scratch, *panel = a + ROWS * DEPTH, *sums = panel + DEPTH * MEST_PANEL;
    for (int64_t from = 0; from < w->total; from += DEPTH) {
        find_positions(w, from, w->total - from < DEPTH ? w->total - from : DEPTH);
        pack_rows(w, row0, n_rows, a);
        for (int64_t j = 0; j < n_cols; j += MEST_PANEL) {
            pack_cols(w, channel0, col0 + j, n_cols - j < MEST_PANEL ? n_cols - j : MEST_PANEL, panel);
            mest_dense_block(a, DEPTH, 1, n_rows, panel, w->n, sums + j * ROWS, from > 0);
        }
    }
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t j = 0; j < n_cols; j++)
            out[r * stride + j] =
                w->total ? (mest_real)w->o->alpha * sums[j / MEST_PANEL * MEST_PANEL * ROWS + r * MEST_PANEL + j % MEST_PANEL] : 0;
}

void mest_outer_tile(const mest_outer *o, int64_t row0, int64_t n_rows, int64_t col0, int64_t n_cols, mest_real *out, int64_t stride,
                     mest_real *scratch)
{
    walk w = { .o = o, .v = o->rows.v > o->cols.v ? o->rows.v : o->cols.v, .pixels = mest_window_volume(o->window.out) };
    w.total = (o->n + w.v - 1) / w.v * w.v * w.pixels;
    for (int64_t r = 0; r < n_rows;) {
        int64_t group = (row0 + r) / o->group_rows, left = (group + 1) * o->group_rows - (row0 + r);
        int64_t n = n_rows - r < ROWS ? n_rows - r : ROWS;
        n = o->group > 1 && left < n ? left : n;
        for (int64_t c = 0; c < n_cols; c += COLS)
            small_tile(&w, row0 + r, n, group * o->group_channels, col0 + c, n_cols - c < COLS ? n_cols - c : COLS, out + r * stride + c, stride,
                       scratch);
        r += n;
    }
}
