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

/* Offsets of positions from..from+n-1: lanes turn fastest, then x, y, z, then blocks of images. */
static void find_positions(walk *w, int64_t from, int64_t n)
{
    const mest_outer *o = w->o;
    const mest_window *k = &o->window;
    int64_t lane = from % w->v, pixel = from / w->v % w->pixels, first = from / w->v / w->pixels * w->v;
    int64_t x = pixel % k->out[2], y = pixel / k->out[2] % k->out[1], z = pixel / k->out[2] / k->out[1];
    w->n = n;
    for (int64_t i = 0; i < n; i++) {
        const int64_t image = first + lane;
        if (image >= o->n) { /* an operand without these lanes must not be read there */
            w->rows_at[i] = -1;
        } else {
            w->rows_at[i] = place(&o->rows, image, z, y, x);
            if (o->rows_map)
                w->with_at[i] = place(&o->rows_with, image, z, y, x);
            w->start[i][0] = z * k->stride[0] - k->lo[0];
            w->start[i][1] = y * k->stride[1] - k->lo[1];
            w->start[i][2] = x * k->stride[2] - k->lo[2];
            w->cols_at[i] = place(&o->cols, image, w->start[i][0], w->start[i][1], w->start[i][2]);
        }
        if (++lane < w->v)
            continue;
        lane = 0;
        if (++x < k->out[2])
            continue;
        x = 0;
        if (++y < k->out[1])
            continue;
        y = 0;
        if (++z < k->out[0])
            continue;
        z = 0;
        first += w->v;
    }
}

/* Do the w->v lanes of a position lie beside each other? */
static bool side_by_side(const walk *w, const mest_operand *o) { return o->lane == 1 && o->v == w->v; }

static void pack_rows(const walk *w, int64_t row0, int64_t n_rows, mest_real *a)
{
    const mest_outer *o = w->o;
    const bool beside = side_by_side(w, &o->rows) && (!o->rows_map || side_by_side(w, &o->rows_with));
    const int64_t step = beside ? w->v : 1;
    for (int64_t r = 0; r < n_rows; r++) {
        const mest_real *data = o->rows.data + (row0 + r) * o->rows.channel, *with = NULL;
        mest_real map[4] = { 0 };
        for (int m = 0; o->rows_map && m < 4; m++)
            map[m] = o->rows_map[m * o->rows_channels + row0 + r];
        if (o->rows_map)
            with = o->rows_with.data + (row0 + r) * o->rows_with.channel;
        for (int64_t i = 0; i < w->n; i += step) { /* lanes past the batch are there to be read, where lanes lie side by side */
            const int64_t at = w->rows_at[i], n = w->n - i < step ? w->n - i : step;
            mest_real *to = a + r * DEPTH + i;
            if (at < 0)
                memset(to, 0, (size_t)n * sizeof *to);
            else if (!with)
                for (int64_t l = 0; l < n; l++)
                    to[l] = data[at + l];
            else
                for (int64_t l = 0; l < n; l++)
                    to[l] = (data[at + l] * map[1] + map[3]) + (with[w->with_at[i] + l] - map[0]) * map[2];
            for (int64_t l = n; l-- > 1 && w->rows_at[i + l] < 0;) /* they add nothing */
                to[l] = 0;
        }
    }
}

/* What the map of channel c and the activation make of a column's value. */
static inline mest_real map_value(const mest_outer *o, mest_real mean, mest_real scale, mest_real shift, mest_real value)
{
    const mest_real t = (value - mean) * scale + shift, low = t < o->lo ? o->lo : t;
    return low > o->hi ? o->hi : low;
}

static mest_real mapped(const mest_outer *o, int64_t c, mest_real value)
{
    const mest_real *map = o->cols_map + c;
    return map_value(o, map[0], map[o->cols_channels], map[2 * o->cols_channels], value);
}

/* A column of a panel: where its element lies, counted from the first one of the window, its place in the window, its channel. */
typedef struct column {
    int64_t at, tap[3], channel;
} column;

static void find_columns(const walk *w, int64_t channel0, int64_t col0, int64_t n_cols, column *col)
{
    const mest_window *k = &w->o->window;
    const mest_operand *from = &w->o->cols;
    const int64_t taps = mest_window_volume(k->kernel);
    for (int64_t j = 0; j < n_cols; j++) {
        const int64_t tap = (col0 + j) % taps;
        col[j] = (column){ .channel = channel0 + (col0 + j) / taps,
                           .tap = { tap / k->kernel[2] / k->kernel[1] * k->dilation[0], tap / k->kernel[2] % k->kernel[1] * k->dilation[1],
                                    tap % k->kernel[2] * k->dilation[2] } };
        col[j].at = col[j].channel * from->channel + col[j].tap[0] * from->step[0] + col[j].tap[1] * from->step[1] + col[j].tap[2] * from->step[2];
    }
}

/* Position i of a panel; edge: parts of the window may be outside of the image. */
static void pack_position(const walk *w, const column *col, int64_t n_cols, int64_t i, bool edge, mest_real *to)
{
    const mest_window *k = &w->o->window;
    const mest_real *data = w->o->cols.data;
    const int64_t at = w->cols_at[i];
    for (int64_t j = 0; j < n_cols; j++) {
        bool inside = true;
        for (int d = 2; d >= 0 && edge && inside; d--) /* x first: it is out most often */
            inside = (uint64_t)(w->start[i][d] + col[j].tap[d]) < (uint64_t)k->in[d];
        to[j] = inside ? data[at + col[j].at] : 0;
        if (inside && w->o->cols_map)
            to[j] = mapped(w->o, col[j].channel, to[j]);
    }
}

/* panel[i][j] = column col0 + j at position i; channel0: first channel of the group. */
static void pack_cols(const walk *w, int64_t channel0, int64_t col0, int64_t n_cols, mest_real *panel)
{
    const mest_window *k = &w->o->window;
    const mest_real *data = w->o->cols.data;
    column col[MEST_PANEL];
    mest_real map[3][MEST_PANEL];
    int64_t reach[3]; /* a window that starts below it is inside */
    find_columns(w, channel0, col0, n_cols, col);
    for (int64_t j = 0; j < n_cols && w->o->cols_map; j++)
        for (int m = 0; m < 3; m++)
            map[m][j] = w->o->cols_map[m * w->o->cols_channels + col[j].channel];
    for (int d = 0; d < 3; d++)
        reach[d] = k->in[d] - (k->kernel[d] - 1) * k->dilation[d];
    if (n_cols < MEST_PANEL)
        memset(panel, 0, (size_t)(w->n * MEST_PANEL) * sizeof *panel);
    for (int64_t i = 0; i < w->n; i++) {
        mest_real *to = panel + i * MEST_PANEL;
        const int64_t at = w->cols_at[i], *x = w->start[i];
        if (w->rows_at[i] < 0) {
            memset(to, 0, MEST_PANEL * sizeof *to);
            continue;
        }
        const bool inside = x[0] >= 0 && x[0] < reach[0] && x[1] >= 0 && x[1] < reach[1] && x[2] >= 0 && x[2] < reach[2];
        if (!inside || n_cols < MEST_PANEL) {
            pack_position(w, col, n_cols, i, !inside, to);
            continue;
        }
        for (int j = 0; j < MEST_PANEL; j++)
            to[j] = data[at + col[j].at];
        for (int j = 0; j < MEST_PANEL && w->o->cols_map; j++) /* as `mapped` does it */
            to[j] = map_value(w->o, map[0][j], map[1][j], map[2][j], to[j]);
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
