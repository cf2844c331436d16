/* SPDX-License-Identifier: Apache-2.0 */
/* What the cells of recurrent layers share (rnn_cells.c: the default activations; rnn_cells_other.c: any): where the rows of a tile find their gates and
 * states at a step, and the products with R, a panel of hidden units at a time. */
#ifndef MEST_OPS_RNN_PARTS_H
#define MEST_OPS_RNN_PARTS_H

#include "ops/rnn.h"

enum { MEST_RNN_WIDE = MEST_PANEL };
typedef mest_real mest_rnn_block[MEST_RNN_ROWS * MEST_RNN_WIDE];

static inline mest_real *mest_rnn_aligned(mest_real *p) { return (mest_real *)(((uintptr_t)p + 63) & ~(uintptr_t)63); }

/* Where the parts of one direction are, for the rows of a tile at their step. */
typedef struct mest_rnn_parts {
    mest_real *gates, *extra;              /* [n][G][H], [n][H] of step t */
    mest_real *before, *after;             /* h */
    mest_real *c_before, *c_after;
    const mest_real *panels, *p;
    const mest_real *rb;                   /* recurrence bias of GRU's hidden gate, or NULL */
    int64_t h, row;                        /* H, G * H */
} mest_rnn_parts;

static inline mest_rnn_parts mest_rnn_parts_of(const mest_rnn_rows *s)
{
    const mest_rnn *g = &s->run->g;
    mest_real *ws = s->run->ws + s->direction * g->size;
    int64_t at = s->t * g->n + s->first;
    int64_t before = mest_rnn_before(g, s->direction, s->t) * g->n + s->first, after = mest_rnn_after(g, s->direction, s->t) * g->n + s->first;
    mest_rnn_parts p = { .gates = ws + at * g->gates * g->h, .extra = ws + g->at_extra + at * g->h, .before = ws + g->at_h + before * g->h,
                .after = ws + g->at_h + after * g->h, .c_before = ws + g->at_c + before * g->h, .c_after = ws + g->at_c + after * g->h,
                .panels = mest_rnn_aligned(ws + g->at_panels), .h = g->h, .row = g->gates * g->h };
    if (s->run->p)
        p.p = s->run->p + s->direction * 3 * g->h;
    if (s->run->b)
        p.rb = s->run->b + (s->direction * 2 * g->gates + g->gates + 2) * g->h; /* read by GRU only */
    return p;
}

/* Panel of gate `gate` that holds the columns [j, j + MEST_RNN_WIDE). */
static inline const mest_real *mest_rnn_panel(const mest_real *panels, int64_t h, int gate, int64_t j)
{
    int64_t per_gate = (h + MEST_RNN_WIDE - 1) / MEST_RNN_WIDE;
    return panels + (gate * per_gate + j / MEST_RNN_WIDE) * h * MEST_RNN_WIDE;
}

/* out[rows][MEST_RNN_WIDE] (+)= a[rows][H] * panel; a panel is taken in pieces that stay in the first-level cache. */
static inline void mest_rnn_product(const mest_real *a, int64_t a_row, int64_t rows, const mest_real *from, int64_t depth, mest_real *out, bool add)
{
    for (int64_t k = 0; k < depth; k += MEST_PANEL_DEPTH) {
        int64_t n = depth - k < MEST_PANEL_DEPTH ? depth - k : MEST_PANEL_DEPTH;
        mest_dense_block(a + k, a_row, 1, rows, from + k * MEST_RNN_WIDE, n, out, add || k > 0);
    }
}

typedef struct mest_rnn_grads {
    mest_real *gates, *extra; /* of step t */
    mest_real *h, *c;         /* of the rows' states */
    const mest_real *panels;
} mest_rnn_grads;

static inline mest_rnn_grads mest_rnn_grads_of(const mest_rnn_rows *s)
{
    const mest_rnn *g = &s->run->g;
    mest_real *ws = s->run->grad + s->direction * g->grad_size;
    int64_t at = s->t * g->n + s->first;
    return (mest_rnn_grads){ .gates = ws + at * g->gates * g->h, .extra = ws + g->grad_extra + at * g->h, .h = ws + g->grad_h + s->first * g->h,
                    .c = ws + g->grad_c + s->first * g->h, .panels = mest_rnn_aligned(ws + g->grad_panels) };
}

/* dh += sum over the gates [from, to) of d[rows][H] * R_gate */
static inline void mest_rnn_add_products(const mest_rnn_rows *s, const mest_rnn_parts *p, const mest_rnn_grads *d, const mest_real *a, int64_t a_row, int from, int to)
{
    _Alignas(64) mest_rnn_block part;
    for (int64_t j = 0; j < p->h; j += MEST_RNN_WIDE) {
        int64_t wide = p->h - j < MEST_RNN_WIDE ? p->h - j : MEST_RNN_WIDE;
        for (int g = from; g < to; g++)
            mest_rnn_product(a + (g - from) * p->h, a_row, s->n, mest_rnn_panel(d->panels, p->h, g, j), p->h, part, g > from);
        for (int64_t n = 0; n < s->n; n++)
            for (int64_t k = 0; k < wide; k++)
                d->h[n * p->h + j + k] += part[n * MEST_RNN_WIDE + k];
    }
}

/* Cells with other activations, clip or input_forget. ops/rnn_cells_other.c */
void mest_rnn_step_other(const mest_rnn_rows *rows, const mest_rnn_parts *p);
void mest_rnn_back_other(const mest_rnn_rows *rows, const mest_rnn_parts *p, const mest_rnn_grads *d, int64_t n);
void mest_rnn_back_reset_other(const mest_rnn_rows *rows, const mest_rnn_parts *p, const mest_rnn_grads *d);

#endif
