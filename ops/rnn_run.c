/* SPDX-License-Identifier: Apache-2.0 */
/* What LSTM, GRU and RNN do around their cells, whoever made X W^T: workspace, states, the walk over time, sums. */
#include "ops/rnn.h"

#include <string.h>

static int64_t round_up(int64_t n) { return (n + MEST_PANEL - 1) / MEST_PANEL * MEST_PANEL; }

void mest_rnn_place(mest_rnn *g)
{
    int64_t panels = g->gates * round_up(g->h) * g->h + MEST_PANEL; /* with room for aligning */
    g->at_extra = round_up(g->t * g->n * g->gates * g->h);
    g->at_h = g->at_extra + (g->kind == MEST_GRU ? round_up(g->t * g->n * g->h) : 0);
    g->at_c = g->at_h + round_up((g->t + 1) * g->n * g->h);
    g->at_bias = g->at_c + (g->kind == MEST_LSTM ? round_up((g->t + 1) * g->n * g->h) : 0);
    g->at_panels = g->at_bias + round_up(g->gates * g->h);
    g->size = g->at_panels + panels;
    g->grad_extra = g->at_extra;
    g->grad_h = g->at_h;
    g->grad_c = g->grad_h + round_up(g->n * g->h);
    g->grad_panels = g->grad_c + round_up(g->n * g->h);
    g->grad_size = g->grad_panels + panels;
}

/* One gate: strips of columns, each [k][MEST_PANEL]. */
static void pack_gate(const mest_real *r, int64_t h, int64_t row, int64_t col, mest_real *to)
{
    for (int64_t j = 0; j < h; j += MEST_PANEL)
        for (int64_t k = 0; k < h; k++, to += MEST_PANEL)
            for (int64_t i = 0; i < MEST_PANEL; i++)
                to[i] = j + i < h ? r[k * row + (j + i) * col] : 0;
}

void mest_rnn_pack(const mest_rnn_run *run, int direction, bool transposed, mest_real *panels)
{
    const mest_rnn *g = &run->g;
    panels = (mest_real *)(((uintptr_t)panels + 63) & ~(uintptr_t)63);
    for (int k = 0; k < g->gates; k++)
        pack_gate(run->r + (direction * g->gates + g->order[k]) * g->h * g->h, g->h, transposed ? 1 : g->h, transposed ? g->h : 1,
                  panels + k * round_up(g->h) * g->h);
}

void mest_rnn_bias(const mest_rnn_run *run, int direction, mest_real *bias)
{
    const mest_rnn *g = &run->g;
    const int64_t gh = g->gates * g->h;
    for (int64_t i = 0; i < gh; i++) {
        const mest_real *b = run->b ? run->b + direction * 2 * gh + i : NULL;
        const bool apart = g->kind == MEST_GRU && g->linear_before_reset && i >= 2 * g->h; /* Rb_h is added before the reset */
        bias[i] = b ? b[0] + (apart ? 0 : b[gh]) : 0;
    }
}

void mest_rnn_copy_state(const mest_rnn *g, int direction, mest_real *rows, mest_real *state, bool out)
{
    for (int64_t n = 0; n < g->n; n++) {
        mest_real *s = state + mest_rnn_state(g, direction, n), *r = rows + n * g->h;
        memcpy(out ? s : r, out ? r : s, (size_t)g->h * sizeof(mest_real));
    }
}
/* Into rows [N][H], zero if there is no state given. */
void mest_rnn_take_state(const mest_rnn *g, int direction, mest_real *rows, const mest_real *state)
{
    if (state)
        mest_rnn_copy_state(g, direction, rows, (mest_real *)(uintptr_t)state, false);
    else
        memset(rows, 0, (size_t)(g->n * g->h) * sizeof(mest_real));
}

static int64_t row_tiles(const mest_rnn *g) { return (g->n + MEST_RNN_ROWS - 1) / MEST_RNN_ROWS; }

static mest_rnn_rows rows_of_tile(const mest_rnn_run *r, size_t tile)
{
    mest_rnn_rows s = { .run = r, .direction = (int)((int64_t)tile / row_tiles(&r->g)), .first = (int64_t)tile % row_tiles(&r->g) * MEST_RNN_ROWS };
    s.n = r->g.n - s.first < MEST_RNN_ROWS ? r->g.n - s.first : MEST_RNN_ROWS;
    return s;
}

static void forward_tile(void *context, size_t tile)
{
    const mest_rnn_run *r = context;
    mest_rnn_rows s = rows_of_tile(r, tile);
    for (int64_t k = 0; k < r->g.t; k++) {
        s.t = mest_rnn_reversed(&r->g, s.direction) ? r->g.t - 1 - k : k;
        mest_rnn_step(&s);
    }
}

static void backward_tile(void *context, size_t tile)
{
    const mest_rnn_run *r = context;
    mest_rnn_rows s = rows_of_tile(r, tile);
    for (int64_t k = 0; k < r->g.t; k++) {
        s.t = mest_rnn_reversed(&r->g, s.direction) ? k : r->g.t - 1 - k;
        mest_rnn_step_back(&s);
    }
}

void mest_rnn_forward(const mest_threads *threads, const mest_rnn_run *run)
{
    mest_parallel(threads, (size_t)(run->g.directions * row_tiles(&run->g)), forward_tile, (void *)(uintptr_t)run);
}

void mest_rnn_backward(const mest_threads *threads, const mest_rnn_run *run)
{
    mest_parallel(threads, (size_t)(run->g.directions * row_tiles(&run->g)), backward_tile, (void *)(uintptr_t)run);
}

void mest_rnn_recurrent_gradient(const mest_threads *threads, const mest_rnn_run *r, int d)
{
    const mest_rnn *g = &r->g;
    const mest_real *ws = r->ws + d * g->size, *gates = r->grad + d * g->grad_size;
    const int64_t gh = g->gates * g->h;
    /* dR = dgates^T h before the step: all steps lie one after another */
    for (int k = 0; k < g->gates; k++) {
        mest_dense_job job = { .m = g->h, .n = g->h, .k = g->t * g->n, .a = gates + k * g->h, .a_row = 1, .a_col = gh,
                               .b = ws + g->at_h + mest_rnn_before(g, d, 0) * g->n * g->h, .b_row = g->h, .b_col = 1, .alpha = 1,
                               .c = r->dr + (d * g->gates + g->order[k]) * g->h * g->h, .outer = 1, .inner = 1 };
        if (g->kind == MEST_GRU && k == 2 && g->linear_before_reset) {
            job.a = gates + g->grad_extra;
            job.a_col = g->h;
        } else if (g->kind == MEST_GRU && k == 2) {
            job.b = ws + g->at_extra; /* r * h */
        }
        mest_dense_run(threads, &job);
    }
}

/* Sums over all rows, in double, a strip of columns a tile: dB and dP. */
enum { STRIP = 64 };
typedef struct sums { const mest_rnn_run *r; int64_t strips; } sums;

static void sums_tile(void *context, size_t tile)
{
    const sums *s = context;
    const mest_rnn_run *r = s->r;
    const mest_rnn *g = &r->g;
    int d = (int)((int64_t)tile / s->strips);
    int64_t gh = g->gates * g->h, from = (int64_t)tile % s->strips * STRIP, n = gh - from < STRIP ? gh - from : STRIP;
    const mest_real *gates = r->grad + d * g->grad_size, *extra = gates + g->grad_extra, *ws = r->ws + d * g->size;
    double bias[STRIP] = { 0 }, hidden[STRIP] = { 0 }, peep[STRIP] = { 0 };
    bool apart = g->kind == MEST_GRU && g->linear_before_reset;
    for (int64_t row = 0; row < g->t * g->n; row++) {
        int64_t t = row / g->n, b = row % g->n;
        const mest_real *x = gates + row * gh + from;
        const mest_real *c0 = ws + g->at_c + (mest_rnn_before(g, d, t) * g->n + b) * g->h, *c1 = ws + g->at_c + (mest_rnn_after(g, d, t) * g->n + b) * g->h;
        for (int64_t k = 0; k < n; k++) {
            int64_t gate = (from + k) / g->h, unit = (from + k) % g->h;
            bias[k] += (double)x[k];
            if (apart)
                hidden[k] += gate == 2 ? (double)extra[row * g->h + unit] : (double)x[k];
            if (r->dp && gate < 3)
                peep[k] += (double)x[k] * (double)(gate == 1 ? c1 : c0)[unit];
        }
    }
    for (int64_t k = 0; k < n; k++) {
        if (r->db) {
            mest_real *db = r->db + d * 2 * gh + from + k;
            db[0] = (mest_real)bias[k];
            db[gh] = (mest_real)(apart ? hidden[k] : bias[k]);
        }
        if (r->dp && (from + k) / g->h < 3)
            r->dp[d * 3 * g->h + from + k] = (mest_real)peep[k];
    }
}

void mest_rnn_sums(const mest_threads *threads, const mest_rnn_run *run)
{
    const mest_rnn *g = &run->g;
    sums s = { run, (g->gates * g->h + STRIP - 1) / STRIP };
    mest_parallel(threads, (size_t)(g->directions * s.strips), sums_tile, &s);
}
