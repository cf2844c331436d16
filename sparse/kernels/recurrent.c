/* SPDX-License-Identifier: Apache-2.0 */
/* mest.Recurrent with a sparse R: v rows of the batch in the lanes of vectors. Each step is the product of the list of R with the states, then
 * the cell on whole vectors; back through time the transposed list, and dR at the stored entries afterwards, over all steps at once.
 *
 * A tile is some blocks of v rows, which go through all steps on their own; the number of tiles depends on the batch only. Workspaces:
 * ops/recurrent.h. */
#include "ops/recurrent.h"

#include "sparse/kernels/lanes_state.h"
#include "sparse/kernels/lanes_turn.h"
#include "sparse/kernels/recurrent_cells.h"

enum { MOST_TILES = 8 };

typedef struct state {
    mest_recurrent_params p;
    int64_t t, n, h, gh, rows;      /* rows of R */
    int64_t blocks, each, tiles;    /* blocks of V rows; blocks of a tile */
    mest_lanes_key key;
    mest_derived_list *list;
    int64_t entries;
    size_t worker;                  /* reals of scratch of a worker */
    size_t parts_at, sums_at;       /* reals before the parts of dR [tiles][entries] and of dB [tiles][2][G*H] */
} state;

typedef struct job {
    const state *s;
    mest_recurrent_lanes l;
    mest_lanes_list list;
    const int32_t *perm, *lens;
    int64_t n_entries, place[4];    /* of ONNX's gates, in elements of lanes */
    const mest_real *p, *b, *h0, *c0, *dy, *dyh, *dyc;
    mest_real *ws, *y, *yh, *yc, *grad, *dp, *dr, *db, *dh0, *dc0, *scratch;
} job;

/* ---- one block of V rows ---- */
typedef struct block {
    int64_t row, valid;             /* first row of the batch, rows in use */
    mest_real *gates, *extra, *h, *c; /* of this block: [T].., [T + 1].. */
    mest_real *d, *dh, *dc;
} block;

static block block_at(const job *j, int64_t b)
{
    const state *s = j->s;
    const int64_t v = V, left = s->n - b * v;
    block k = {.row = b * v, .valid = left < v ? left : v};
    k.gates = j->ws + b * s->t * s->gh * v;
    k.extra = j->ws + j->l.extra + b * s->t * s->h * v;
    k.h = j->ws + j->l.h + b * (s->t + 1) * s->h * v;
    k.c = j->ws + j->l.c + b * (s->t + 1) * s->h * v;
    if (j->grad) {
        k.d = j->grad + b * s->t * s->rows * v;
        k.dh = j->grad + j->l.grad_h + b * s->h * v;
        k.dc = j->grad + j->l.grad_c + b * s->h * v;
    }
    return k;
}

/* State [1, N, H] of the block to lanes; NULL: zero. */
static void take(const state *s, const block *k, const mest_real *state_, mest_real *lanes)
{
    if (state_)
        turn_to_lanes(state_ + k->row * s->h, s->h, k->valid, 0, s->h, lanes);
    else
        memset(lanes, 0, (size_t)(s->h * V) * sizeof *lanes);
}
static void give(const state *s, const block *k, const mest_real *lanes, mest_real *state_)
{
    if (state_)
        turn_to_rows(lanes, k->valid, 0, s->h, state_ + k->row * s->h, s->h);
}

/* Bit l: the sequence of lane l is over before step t. */
static uint32_t over(const job *j, const block *k, int64_t t)
{
    uint32_t bits = 0;
    for (int64_t l = 0; j->lens && l < k->valid; l++)
        bits |= (uint32_t)(t >= j->lens[k->row + l]) << l;
    return bits;
}

/* Lanes of `bits` of n channels: copied from another array, or zero. */
static void set_lanes(uint32_t bits, int64_t n, const mest_real *from, mest_real *to)
{
    for (int64_t c = 0; bits && c < n; c++)
        for (int l = 0; l < V; l++)
            if (bits >> l & 1)
                to[c * V + l] = from ? from[c * V + l] : 0;
}

static int64_t before(const state *s, int64_t t) { return s->p.reverse ? t + 1 : t; }
static int64_t after(const state *s, int64_t t) { return s->p.reverse ? t : t + 1; }

/* ---- forward ---- */
/* Wb + Rb of each gate in the weights' order, in lanes; GRU's Rb_h apart, behind them. */
static void spread_bias(const job *j, mest_real *to)
{
    const state *s = j->s;
    const int gates = (int)(s->gh / s->h);
    for (int k = 0; k <= gates; k++) {
        const bool hidden = s->p.kind == MEST_GRU && k >= 2; /* k == gates: Rb_h itself */
        mest_real *at = to + (k < gates ? j->place[k] : s->gh * V);
        for (int64_t u = 0; u < s->h; u++) {
            const mest_real *b = j->b ? j->b + (k < gates ? k : 2) * s->h + u : NULL;
            const mest_real value = !b || (k == gates && !hidden) ? 0 : k == gates ? b[s->gh] : b[0] + (hidden ? 0 : b[s->gh]);
            for (int l = 0; l < V; l++)
                at[u * V + l] = value;
        }
    }
}

static void forward_step(const job *j, const block *k, int64_t t, const mest_real *product, const mest_real *bias, mest_real *p)
{
    const state *s = j->s;
    const int64_t hv = s->h * V;
    mest_real *gates = k->gates + t * s->gh * V, *h0 = k->h + before(s, t) * hv, *h1 = k->h + after(s, t) * hv;
    mest_real *c0 = k->c + before(s, t) * hv, *c1 = k->c + after(s, t) * hv;
    turn_to_lanes(j->p + (t * s->n + k->row) * s->gh, s->gh, k->valid, 0, s->gh, p);
    for (int64_t i = 0; i < s->gh * V; i++)
        p[i] += bias[i];
    if (s->p.kind == MEST_LSTM)
        lstm_cell(hv, j->place, p, product, gates, c0, c1, h1);
    else if (s->p.kind == MEST_GRU)
        gru_cell(hv, j->place, p, product, bias + s->gh * V, gates, k->extra + t * hv, h0, h1);
    else
        rnn_cell(hv, s->p.relu, p, product, gates, h1);
    const uint32_t bits = over(j, k, t);
    set_lanes(bits, s->h, h0, h1);
    if (s->p.kind == MEST_LSTM)
        set_lanes(bits, s->h, c0, c1);
    if (!j->y)
        return;
    mest_real *y = j->y + (t * s->n + k->row) * s->h;
    turn_to_rows(h1, k->valid, 0, s->h, y, s->h);
    for (int64_t l = 0; bits && l < k->valid; l++)
        if (bits >> l & 1)
            memset(y + l * s->h, 0, (size_t)s->h * sizeof *y);
}

static void forward_tile(void *context, size_t worker, size_t tile)
{
    const job *j = context;
    const state *s = j->s;
    const int64_t b0 = (int64_t)tile * s->each, nb = s->blocks - b0 < s->each ? s->blocks - b0 : s->each, hv = s->h * V;
    mest_real *bias = j->scratch + worker * s->worker, *p = bias + (s->gh + s->h) * V, *product = p + s->gh * V;
    spread_bias(j, bias);
    const int64_t start = s->p.reverse ? s->t : 0, end = s->p.reverse ? 0 : s->t;
    for (int64_t b = 0; b < nb; b++) {
        const block k = block_at(j, b0 + b);
        take(s, &k, j->h0, k.h + start * hv);
        if (s->p.kind == MEST_LSTM)
            take(s, &k, j->c0, k.c + start * hv);
    }
    const block first = block_at(j, b0);
    const int32_t r0 = (int32_t)(s->p.first / s->key.height), r1 = (int32_t)((s->p.first + s->gh + s->key.height - 1) / s->key.height);
    for (int64_t step = 0; step < s->t; step++) {
        const int64_t t = s->p.reverse ? s->t - 1 - step : step;
        const mest_lanes_forward f = {.blocks = 1, .rows = 1, .run = nb, .x = first.h + before(s, t) * hv, .x_step = (s->t + 1) * hv,
                                      .y = product - s->p.first * V, .y_step = s->gh * V, .outs = s->p.first + s->gh, .list = j->list};
        MEST_LANES_ISA.forward(&f, 0, 0, r0, r1);
        for (int64_t b = 0; b < nb; b++) {
            const block k = block_at(j, b0 + b);
            forward_step(j, &k, t, product + b * s->gh * V, bias, p);
        }
    }
    for (int64_t b = 0; b < nb; b++) {
        const block k = block_at(j, b0 + b);
        give(s, &k, k.h + end * hv, j->yh);
        give(s, &k, k.c + end * hv, j->yc);
    }
}

/* ---- backward ---- */
static void backward_step(const job *j, const block *k, int64_t t, mest_real *dp, mest_real *dy, mest_real *sums)
{
    const state *s = j->s;
    const int64_t hv = s->h * V;
    const bool gru = s->p.kind == MEST_GRU;
    const mest_real *gates = k->gates + t * s->gh * V, *h0 = k->h + before(s, t) * hv, *c0 = k->c + before(s, t) * hv, *c1 = k->c + after(s, t) * hv;
    mest_real *d = k->d + t * s->rows * V + s->p.first * V, *side = gru ? dp : d;
    const uint32_t bits = over(j, k, t);
    if (j->dy) {
        turn_to_lanes(j->dy + (t * s->n + k->row) * s->h, s->h, k->valid, 0, s->h, dy);
        set_lanes(bits, s->h, NULL, dy);
        for (int64_t i = 0; i < hv; i++)
            k->dh[i] += dy[i];
    }
    mest_real *kept_h = dy, *kept_c = dy + hv; /* dy has been used */
    set_lanes(bits, s->h, k->dh, kept_h);
    if (s->p.kind == MEST_LSTM) {
        set_lanes(bits, s->h, k->dc, kept_c);
        lstm_back(hv, j->place, gates, c0, c1, d, k->dh, k->dc);
        set_lanes(bits, s->h, kept_c, k->dc);
    } else if (gru) {
        gru_back(hv, j->place, gates, k->extra + t * hv, h0, d, dp, k->dh);
        set_lanes(bits, s->gh, NULL, dp);
    } else {
        rnn_back(hv, s->p.relu, gates, d, k->dh);
    }
    set_lanes(bits, s->gh, NULL, d);
    set_lanes(bits, s->h, kept_h, k->dh);
    if (j->dp)
        turn_to_rows(side, k->valid, 0, s->gh, j->dp + (t * s->n + k->row) * s->gh, s->gh);
    for (int64_t i = 0; j->db && i < s->gh * V; i++) {
        sums[i] += side[i];
        sums[s->gh * V + i] += d[i];
    }
}

/* Lanes of the sums of a tile meet; in ONNX's order. */
static void fold_sums(const job *j, const mest_real *sums, double *to)
{
    const state *s = j->s;
    for (int side = 0; side < 2; side++)
        for (int64_t g = 0; g < s->gh / s->h; g++)
            for (int64_t u = 0; u < s->h; u++) {
                const mest_real *at = sums + side * s->gh * V + j->place[g] + u * V;
                double sum = 0;
                for (int l = 0; l < V; l++)
                    sum += (double)at[l];
                to[side * s->gh + g * s->h + u] = sum;
            }
}

static void backward_tile(void *context, size_t worker, size_t tile)
{
    const job *j = context;
    const state *s = j->s;
    const int64_t b0 = (int64_t)tile * s->each, nb = s->blocks - b0 < s->each ? s->blocks - b0 : s->each, hv = s->h * V;
    mest_real *dp = j->scratch + worker * s->worker, *dy = dp + s->gh * V, *sums = dy + 2 * hv, *product = sums + 2 * s->gh * V;
    memset(sums, 0, 2 * (size_t)(s->gh * V) * sizeof *sums);
    for (int64_t b = 0; b < nb; b++) {
        const block k = block_at(j, b0 + b);
        take(s, &k, j->dyh, k.dh);
        take(s, &k, j->dyc, k.dc);
        if (s->rows > s->gh) /* rows of the other direction get nothing from here */
            memset(k.d, 0, (size_t)(s->t * s->rows * V) * sizeof *k.d);
    }
    const block first = block_at(j, b0);
    for (int64_t step = 0; step < s->t; step++) {
        const int64_t t = s->p.reverse ? step : s->t - 1 - step;
        for (int64_t b = 0; b < nb; b++) {
            const block k = block_at(j, b0 + b);
            backward_step(j, &k, t, dp, dy, sums);
        }
        const mest_lanes_forward f = {.blocks = 1, .rows = 1, .run = nb, .x = first.d + t * s->rows * V, .x_step = s->t * s->rows * V, .y = product,
                                      .y_step = hv, .outs = s->h, .list = j->list};
        MEST_LANES_ISA.forward(&f, 0, 0, 0, (int32_t)s->h);
        for (int64_t b = 0; b < nb; b++) {
            const block k = block_at(j, b0 + b);
            for (int64_t i = 0; i < hv; i++)
                k.dh[i] += product[b * hv + i];
        }
    }
    mest_real *dr = j->scratch + s->parts_at + (int64_t)tile * s->entries;
    if (j->dr)
        memset(dr, 0, (size_t)j->n_entries * sizeof *dr);
    for (int64_t b = 0; b < nb; b++) {
        const block k = block_at(j, b0 + b);
        give(s, &k, k.dh, j->dh0);
        give(s, &k, k.dc, j->dc0);
        const mest_lanes_backward w = {.blocks = 1, .rows = 1, .run = s->t, .x = k.h + before(s, 0) * hv, .x_step = hv, .dy = k.d, .dy_step = s->rows * V,
                                       .list = j->list};
        if (j->dr)
            MEST_LANES_ISA.backward(&w, 0, 0, 0, (int32_t)s->h, dr);
    }
    if (j->db)
        fold_sums(j, sums, (double *)(void *)(j->scratch + s->sums_at) + (int64_t)tile * 2 * s->gh);
}

static void collect(const job *j)
{
    const state *s = j->s;
    for (int64_t e = 0; j->dr && e < j->n_entries; e++) {
        mest_real sum = j->scratch[s->parts_at + (size_t)e];
        for (int64_t i = 1; i < s->tiles; i++)
            sum += j->scratch[s->parts_at + (size_t)(i * s->entries + e)];
        j->dr[j->perm[e]] = sum;
    }
    const double *sums = (const double *)(const void *)(j->scratch + s->sums_at);
    for (int64_t i = 0; j->db && i < 2 * s->gh; i++) {
        double sum = 0;
        for (int64_t t = 0; t < s->tiles; t++)
            sum += sums[t * 2 * s->gh + i];
        j->db[i] = (mest_real)sum;
    }
}

/* ---- the kernels ---- */
static const void *in_data(const mest_args *a, int i) { return i < a->n_in ? a->in[i].data : NULL; }
static void *out_data(const mest_args *a, int i) { return i < a->n_out ? a->out[i].data : NULL; }

static void begin(const mest_args *a, int r, job *j)
{
    const state *s = a->state;
    *j = (job){.s = s, .l = mest_recurrent_lanes_of(s->p.kind, s->t, s->n, s->h, s->rows), .scratch = a->scratch};
    j->list = mest_lanes_view(mest_derived_use(s->list), &s->key, a->in[r].data, 0, &j->perm, &j->n_entries);
    for (int k = 0; k < 4; k++)
        j->place[k] = s->p.order[k] * s->h * V;
}

static mest_status run_forward(const mest_args *a)
{
    const state *s = a->state;
    job j;
    begin(a, MEST_RECUR_R, &j);
    j.p = a->in[MEST_RECUR_P].data;
    j.b = in_data(a, MEST_RECUR_B);
    j.lens = in_data(a, MEST_RECUR_LENS);
    j.h0 = in_data(a, MEST_RECUR_H0);
    j.c0 = in_data(a, MEST_RECUR_C0);
    for (int64_t i = 0; j.lens && i < s->n; i++)
        if (j.lens[i] < 0 || j.lens[i] > s->t)
            return mest_run_fail(a, MEST_E_DATA, "a sequence has %d steps, there are %d", (int)j.lens[i], (int)s->t);
    j.ws = a->out[0].data;
    j.y = out_data(a, 1);
    j.yh = out_data(a, 2);
    j.yc = out_data(a, 3);
    mest_parallel_worker(a->threads, (size_t)s->tiles, forward_tile, &j);
    return MEST_OK;
}

static mest_status run_backward(const mest_args *a)
{
    const state *s = a->state;
    job j;
    begin(a, MEST_RECUR_GRAD_R, &j);
    j.b = in_data(a, MEST_RECUR_GRAD_B);
    j.lens = in_data(a, MEST_RECUR_GRAD_LENS);
    j.ws = (mest_real *)(uintptr_t)in_data(a, MEST_RECUR_GRAD_WS);
    j.dy = in_data(a, MEST_RECUR_GRAD_DY);
    j.dyh = in_data(a, MEST_RECUR_GRAD_DYH);
    j.dyc = in_data(a, MEST_RECUR_GRAD_DYC);
    j.grad = a->out[0].data;
    j.dp = out_data(a, 1);
    j.dr = out_data(a, 2);
    j.db = out_data(a, 3);
    j.dh0 = out_data(a, 4);
    j.dc0 = out_data(a, 5);
    mest_parallel_worker(a->threads, (size_t)s->tiles, backward_tile, &j);
    if (j.dr && j.n_entries < a->in[MEST_RECUR_GRAD_R].sparse->stored)
        memset(j.dr, 0, (size_t)a->in[MEST_RECUR_GRAD_R].sparse->stored * sizeof *j.dr); /* padding entries */
    collect(&j);
    return MEST_OK;
}

/* Forward and backward share a workspace, so they must be of one kind: the first in the list that the processor runs. */
static bool is_first(const mest_kernel_query *q)
{
    const mest_kernel *k;
    for (int list = 0; (k = mest_kernel_list(list)); list++)
        for (; k->name; k++)
            if (!strcmp(k->op, q->node->op->name) && !(k->cpu & ~q->cpu))
                return k->cpu == MEST_LANES_CPU;
    return false;
}

static bool fits(const mest_kernel_query *q, int r, const char **why)
{
    if (q->n_in <= r || !q->in[r] || q->in[r]->layout.kind != MEST_SPARSE || !q->sparse[r] || !is_first(q))
        return false;
    for (int i = 0; i < q->n_in; i++)
        if (i != r && q->in[i] && q->in[i]->layout.kind != MEST_PLAIN)
            return false;
    const mest_recurrent_params *p = q->params;
    if (p->kind == MEST_GRU && !p->linear_before_reset)
        return false;
    *why = "sparse weight, batch in the vector lanes";
    return true;
}
static bool forward_fits(const mest_kernel_query *q, const char **why) { return fits(q, MEST_RECUR_R, why); }
static bool backward_fits(const mest_kernel_query *q, const char **why) { return fits(q, MEST_RECUR_GRAD_R, why); }

static double cost(const mest_kernel_query *q)
{
    return 1e-5 + (q->node->op->macs ? (double)q->node->op->macs(q->node, q->in, q->out) : 0) / FLOPS_PER_SECOND;
}

static mest_status prepare(const mest_kernel_query *q, bool backward, void **out, size_t *scratch_bytes, mest_error *err)
{
    const int r = backward ? MEST_RECUR_GRAD_R : MEST_RECUR_R;
    const mest_sparse *weight = q->sparse[r];
    state *s = mest_calloc(q->heap, 1, sizeof *s);
    MEST_CHECK(s, err, MEST_E_NOMEM, "%s: no memory for the state of a kernel", q->node->name);
    s->p = *(const mest_recurrent_params *)q->params;
    s->t = backward ? s->p.t : q->in[MEST_RECUR_P]->shape.dim[0];
    s->n = backward ? s->p.n : q->in[MEST_RECUR_P]->shape.dim[1];
    s->h = q->in[r]->shape.dim[1];
    s->rows = q->in[r]->shape.dim[0];
    s->gh = (s->p.kind == MEST_LSTM ? 4 : s->p.kind == MEST_GRU ? 3 : 1) * s->h;
    s->blocks = mest_ceil_div(s->n, V);
    s->tiles = s->blocks < 4 ? s->blocks : mest_ceil_div(s->blocks, 2) < MOST_TILES ? mest_ceil_div(s->blocks, 2) : MOST_TILES; /* two blocks share a load of R */
    s->each = s->tiles ? mest_ceil_div(s->blocks, s->tiles) : 0;
    s->tiles = s->each ? mest_ceil_div(s->blocks, s->each) : 0;
    s->entries = weight->cap_units * weight->unit_elements;
    const bool quads = !backward && mest_quads(weight, false, s->rows, 1) && s->p.first % 4 == 0 && s->gh % 4 == 0;
    const mest_lanes_problem p = {.g = {.n = s->n, .c = s->h, .h = 1, .w = 1, .m = s->rows, .p = 1, .q = 1, .group = 1, .r = 1, .s = 1, .stride_y = 1, .stride_x = 1,
                                        .dilation_y = 1, .dilation_x = 1, .spatial = 2}};
    const int64_t reads = backward ? s->rows : s->h;
    s->key = (mest_lanes_key){.cap = s->entries / (quads ? 4 : 1), .c = (int32_t)s->h, .m = (int32_t)s->rows, .group = 1, .r = 1, .s = 1, .stride_y = 1,
                              .stride_x = 1, .dilation_y = 1, .dilation_x = 1, .lanes = V, .backward = backward, .height = quads ? 4 : 1,
                              .tile = mest_lanes_tile(&MEST_LANES_ISA, &p, true, (double)s->entries, backward, reads)};
    s->key.direct = !backward && mest_row_order(weight, s->key.height) && s->key.tile >= reads;
    const size_t workers = (size_t)(q->threads && q->threads->n > 1 ? q->threads->n : 1), v = V;
    s->worker = backward ? (size_t)(3 * s->gh + 2 * s->h + s->each * s->h) * v : (size_t)(2 * s->gh + s->h + s->each * s->gh) * v;
    s->parts_at = s->worker * workers;
    s->sums_at = s->parts_at + (backward && q->n_out > 2 && q->out[2] ? (size_t)(s->tiles * s->entries) : 0);
    s->sums_at = (s->sums_at + 15) / 16 * 16;
    *scratch_bytes = s->sums_at * sizeof(mest_real) + (backward ? (size_t)(s->tiles * 2 * s->gh) * sizeof(double) : 0);
    mest_status status = mest_derived_get(q->derived, weight, &s->key, sizeof s->key, mest_lanes_bytes(&s->key), mest_lanes_build, mest_lanes_refresh, &s->list, err);
    if (status != MEST_OK)
        mest_free(q->heap, s, 1, sizeof *s);
    else
        *out = s;
    return status;
}
static mest_status forward_prepare(const mest_kernel_query *q, void **state_, size_t *scratch_bytes, mest_error *err)
{
    return prepare(q, false, state_, scratch_bytes, err);
}
static mest_status backward_prepare(const mest_kernel_query *q, void **state_, size_t *scratch_bytes, mest_error *err)
{
    return prepare(q, true, state_, scratch_bytes, err);
}
static void release(void *state_, mest_heap *heap) { mest_free(heap, state_, state_ ? 1 : 0, sizeof(state)); }

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
extern const mest_kernel MEST_KERNEL_TABLE(recurrent)[];
const mest_kernel MEST_KERNEL_TABLE(recurrent)[] = {
    {.name = "recurrent_lanes_" TEXT(MEST_ISA), .op = "mest.Recurrent", .cpu = MEST_LANES_CPU, .fits = forward_fits, .cost = cost, .prepare = forward_prepare,
     .run = run_forward, .release = release},
    {.name = "recurrent_grad_lanes_" TEXT(MEST_ISA), .op = "mest.RecurrentGrad", .cpu = MEST_LANES_CPU, .fits = backward_fits, .cost = cost,
     .prepare = backward_prepare, .run = run_backward, .release = release},
    {.name = NULL},
};
