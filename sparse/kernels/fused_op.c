/* SPDX-License-Identifier: Apache-2.0 */
/* What fits, strips, ring and scratch of the fused convolutions.
 *
 * The number of parts by position follows from shapes alone, for sums depend on it; parts by rows of the list do not change a bit, so there are
 * as many as there are threads to feed. */
#include "sparse/kernels/fused.h"

typedef mest_fused_state state;

enum { RING_BYTES = 512 << 10 /* half of a second-level cache of 1 MB */, PANEL_BYTES = 128 << 10 /* without taps below each other nothing is kept */ };
enum { FORWARD_PARTS = 32, WEIGHT_PARTS = 8, ROW_PARTS = 8 };

static mest_lanes_op op_of(bool gradient) { return gradient ? MEST_LANES_CONV_GRAD : MEST_LANES_CONV; }
static const mest_type *in(const mest_kernel_query *q, int i) { return i < q->n_in ? q->in[i] : NULL; }
static const mest_type *out(const mest_kernel_query *q, int i) { return i < q->n_out ? q->out[i] : NULL; }
static bool lanes(const mest_type *t, int v) { return !t || (t->dtype == MEST_F32 && t->layout.kind == MEST_PIXEL && t->layout.v == v); }

/* Is the tensor whose taps are read made from something else, row by row? */
static bool mapped(const mest_kernel_query *q, bool gradient) { return in(q, gradient ? FUSED_DMAP : FUSED_MAP) != NULL; }

/* Image blocks that are run side by side, where a row of one alone would not fill a panel: a divisor of their number. */
static int64_t group_of(const mest_kernel_query *q, bool gradient, const mest_lanes_isa *isa)
{
    const char *why;
    mest_lanes_problem p;
    if (!mest_lanes_problem_of(q, op_of(gradient), &p, &why) || (!gradient && p.g.stride_x > 1))
        return 1;
    const int64_t most = gradient ? isa->run_backward : isa->run_single, run = gradient ? mest_ceil_div(p.g.w, p.g.stride_x) : p.g.q;
    const int64_t blocks = mest_ceil_div(p.g.n, isa->v);
    int64_t n = 1;
    for (int64_t d = 2; d <= blocks && n * run < most && run <= most / 2; d++)
        n = blocks % d == 0 ? d : n;
    return n * run <= 2 * most ? n : 1;
}

static bool through(const mest_kernel_query *q, bool gradient, const mest_lanes_isa *isa) { return mapped(q, gradient) || group_of(q, gradient, isa) > 1; }

bool mest_fused_fits(const mest_kernel_query *q, bool gradient, const mest_lanes_isa *isa, const char **why)
{
    if (!mest_lanes_fits(q, op_of(gradient), isa, why))
        return false;
    for (int i = FUSED_V; gradient && i <= FUSED_U; i++)
        if (i != FUSED_DMAP && !lanes(in(q, i), isa->v))
            return false;
    if (gradient && !out(q, 0) && (in(q, FUSED_D) || in(q, FUSED_U) || out(q, 3)))
        return false;
    if (gradient && out(q, 3) && !in(q, FUSED_U))
        return false;
    if (gradient && out(q, 2) && mapped(q, gradient)) {
        *why = "the gradient of a bias wants dY in memory";
        return false;
    }
    mest_lanes_problem p;
    if (!mest_lanes_problem_of(q, op_of(gradient), &p, why))
        return false;
    if (gradient && q->in[1]->layout.kind != MEST_SPARSE && p.g.group == 1) {
        *why = "the gradient of a dense weight is a pass of its own";
        return false;
    }
    *why = "with what stands before and behind it";
    return true;
}

double mest_fused_cost(const mest_kernel_query *q, bool gradient, const mest_lanes_isa *isa) { return mest_lanes_cost(q, op_of(gradient), isa) * 1.1; }

/* What goes through the ring gets its halo there. */
void mest_fused_halo(const mest_kernel_query *q, bool gradient, const mest_lanes_isa *isa, int input, uint8_t pad[4])
{
    memset(pad, 0, 4);
    if (input == (gradient ? FUSED_DY : FUSED_X) && !through(q, gradient, isa))
        mest_lanes_halo(q, op_of(gradient), input, pad);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Rows and columns of positions, taps around them. */
static void positions(state *s)
{
    const mest_conv_geometry *g = &s->lanes.p.g;
    if (!s->lanes.p.gradient) {
        s->n_rows = g->p;
        s->run = g->q;
        s->step_y = g->stride_y;
        s->step_x = g->stride_x;
        s->low_y = -g->top;
        s->low_x = -g->left;
        s->span_y = (g->r - 1) * g->dilation_y + 1;
        s->span_x = (g->s - 1) * g->dilation_x + 1;
        return;
    }
    /* position i stands for inputs i * stride + phase; tap r of it reads dY row i + ceil((top - r * dilation) / stride) */
    s->n_rows = mest_ceil_div(g->h, g->stride_y);
    s->run = mest_ceil_div(g->w, g->stride_x);
    s->step_y = s->step_x = 1;
    s->low_y = mest_ceil_div(g->top - (g->r - 1) * g->dilation_y, g->stride_y);
    s->low_x = mest_ceil_div(g->left - (g->s - 1) * g->dilation_x, g->stride_x);
    s->span_y = mest_ceil_div(g->top, g->stride_y) - s->low_y + 1;
    s->span_x = mest_ceil_div(g->left, g->stride_x) - s->low_x + 1;
}

/* Segments so narrow that the ring stays in cache, then as many rows as fit: the more, the fewer are written twice. */
static void ring(state *s)
{
    const int64_t bytes = (int64_t)sizeof(mest_real), rows = 2 * s->span_y, budget = s->span_y == 1 ? PANEL_BYTES : RING_BYTES;
    s->segments = 1;
    s->segment = s->run;
    if (!s->through)
        return;
    const int64_t columns = budget / (rows * s->group * s->pixel * bytes);
    int64_t fits = (columns - s->span_x) / s->step_x + 1;
    fits = most(fits, 8);
    if (fits < s->run && s->group == 1) {
        s->segments = mest_ceil_div(s->run, fits);
        s->segment = mest_ceil_div(s->run, s->segments);
        s->segments = mest_ceil_div(s->run, s->segment);
    }
    s->ring_row = ((s->segment - 1) * s->step_x + s->span_x) * s->group * s->pixel;
    const int64_t all = (s->n_rows - 1) * s->step_y + s->span_y;
    s->ring_rows = most(s->span_y, budget / (s->ring_row * bytes) - (s->span_y - 1));
    s->ring_rows = s->span_y == 1 ? 1 : least(s->ring_rows, least(all, 4 * s->span_y));
}

/* Parts by rows for each part by position, at most `limit`: two parts for each thread, and no more than an eighth of the threads' time idle in the last turn. */
static int64_t feeding(int64_t threads, int64_t position_parts, int64_t limit)
{
    int64_t n = 1;
    for (; n < limit; n++) {
        const int64_t parts = position_parts * n, turns = mest_ceil_div(parts, threads);
        if (parts >= 2 * threads && 8 * (turns * threads - parts) <= parts)
            break;
    }
    return n;
}

static void cut(state *s, int threads)
{
    mest_lanes_state *l = &s->lanes;
    s->units = l->y.blocks / s->group * s->segments * s->n_rows;
    const double flops = 2.0 * (double)l->entries * (double)(l->y.blocks * l->isa->v * l->y.h * l->y.w) * (l->want_dx && l->want_dw ? 2 : 1);
    const int64_t rows = l->p.gradient ? l->p.g.c : mest_ceil_div(l->p.g.m, l->key.height);
    int64_t n = least((int64_t)(flops / 2e6), s->units / most(4, 4 * (s->span_y - 1)));
    if (l->want_dw) {
        const double read = (double)l->y.storage, part = (double)l->entries * 3; /* a part costs its own gradients, twice */
        n = least(n, WEIGHT_PARTS);
        if (l->entries * n * (int64_t)sizeof(mest_real) > 4 << 20 || part * (double)n > read * (double)(n - 1))
            n = 1;
    }
    l->position_parts = (int32_t)most(1, least(n, FORWARD_PARTS));
    const int64_t row_parts = threads > 1 ? least(ROW_PARTS, least(rows / 4, (int64_t)(flops / 2e6) / l->position_parts)) : 1;
    l->row_parts = (int32_t)feeding(threads, l->position_parts, row_parts);
    s->parts = l->position_parts * l->row_parts;
}

static size_t align16(size_t n) { return (n + 15) / 16 * 16; }

/* Scratch: parts of dW, packed weights, workers, statistics of parts. */
static size_t scratch(const mest_kernel_query *q, state *s)
{
    mest_lanes_state *l = &s->lanes;
    const int64_t v = l->isa->v, channels = l->p.gradient ? l->p.g.c : l->p.g.m;
    size_t n = 0;
    s->ring_at = n;
    n += s->through ? align16((size_t)((s->ring_rows + s->span_y - 1) * s->ring_row)) : 0;
    const int64_t columns = s->segment * l->p.g.stride_x * s->group;
    s->dx_pixel = l->x.pixel;
    s->x_at = n;
    n += l->p.gradient && (in(q, FUSED_MAP) || s->group > 1) ? align16((size_t)(columns * s->dx_pixel)) : 0;
    s->dx_at = n;
    n += l->want_dx ? align16((size_t)(columns * s->dx_pixel)) : 0;
    s->y_at = n;
    n += !l->p.gradient && s->group > 1 ? align16((size_t)(s->segment * s->group * l->y.pixel)) : 0;
    s->sums_at = n;
    n += out(q, l->p.gradient ? 3 : 1) ? align16((size_t)(2 * channels * v + channels)) : 0;
    s->worker_reals = n + 64;
    l->parts_bytes = l->want_dw ? ((size_t)l->position_parts * (size_t)l->entries * sizeof(mest_real) + 63) / 64 * 64 : 0;
    s->workers_at = (l->parts_bytes + (l->pack_in_scratch ? l->pack_values * sizeof *l->pack : 0) + 63) / 64 * 64;
    const int workers = q->threads && q->threads->n > 1 ? q->threads->n : 1;
    s->stats_at = s->workers_at + ((size_t)workers * s->worker_reals * sizeof(mest_real) + 63) / 64 * 64;
    s->stats_doubles = out(q, l->p.gradient ? 3 : 1) ? (size_t)(2 * channels + 1) : 0;
    return s->stats_at + (size_t)l->position_parts * s->stats_doubles * sizeof(double);
}

mest_status mest_fused_prepare(const mest_kernel_query *q, bool gradient, const mest_lanes_isa *isa, const mest_fused_isa *rows, void **out_state,
                               size_t *scratch_bytes, mest_error *err)
{
    *out_state = NULL;
    *scratch_bytes = 0;
    state *s = mest_calloc(q->heap, 1, sizeof *s);
    MEST_CHECK(s, err, MEST_E_NOMEM, "%s: no memory for the state of a kernel", q->node->name);
    const mest_fused_conv_params *params = q->params;
    mest_status status = MEST_OK;
    MEST_TRY_OUT(mest_lanes_describe(q, op_of(gradient), isa, &s->lanes, err));
    s->rows = rows;
    s->clamp = params->clamp;
    s->gate = gradient && params->gate;
    s->group = group_of(q, gradient, isa);
    s->through = through(q, gradient, isa);
    if (gradient && in(q, FUSED_D))
        s->d = mest_pixel_geometry(q->in[FUSED_D]);
    if (gradient && in(q, FUSED_U))
        s->u = mest_pixel_geometry(q->in[FUSED_U]);
    if (gradient && in(q, FUSED_V))
        s->v = mest_pixel_geometry(q->in[FUSED_V]);
    const mest_pixels *read = gradient ? &s->lanes.y : &s->lanes.x;
    s->pixel = read->pixel;
    positions(s);
    ring(s);
    MEST_TRY_OUT(mest_lanes_lists(q, &s->lanes, s->group * s->pixel, s->through ? s->ring_row : read->row, s->group == 1 ? s->step_x * s->pixel : 0, err));
    cut(s, q->threads ? q->threads->n : 1);
    *scratch_bytes = scratch(q, s);
    *out_state = s;
out:
    if (status != MEST_OK)
        mest_fused_release(s, q->heap);
    return status;
}

void mest_fused_release(void *state_, mest_heap *heap)
{
    state *s = state_;
    if (!s)
        return;
    mest_lanes_free(&s->lanes, heap);
    mest_free(heap, s, 1, sizeof *s);
}

size_t mest_fused_state_bytes(const void *state_)
{
    const state *s = state_;
    return s ? sizeof *s - sizeof s->lanes + mest_lanes_state_bytes(&s->lanes) : 0;
}
