/* SPDX-License-Identifier: Apache-2.0 */
/* Preparing and running Gemm on plain rows by the batch-lane passes.
 *
 * Work is cut by shapes and capacities only, and sums have a fixed order, so results are the same bits for any number of threads. Either a part
 * is a range of chunks, each worker with a panel of its own; or, where there are few chunks or parts of dW would be large, a part is a range of
 * list rows: then chunk follows chunk, turned into one panel that all parts read. */
#include "sparse/kernels/tokens.h"

#include "sparse/kernels/lanes_state.h"

enum { MAX_PARTS = 8, PACK_ROWS = 16, BIAS_COLUMNS = 32 };

typedef struct state {
    const mest_lanes_isa *isa;
    const mest_tokens_isa *turn;
    mest_lanes_problem p;
    bool want_dx, want_dw;
    mest_lanes_key key;
    mest_derived_list *list;
    int64_t entries;                 /* capacity of a part of dW */
    int64_t reads;                   /* channels that every row of the list may read: C, or M backward */
    int64_t read_slots, row_slots;   /* of a panel of those, and of a panel of what belongs to a part's list rows */
    int64_t blocks, chunk, chunks;   /* of v rows; blocks of a chunk */
    int32_t chunk_parts, row_parts;
    int32_t panels;                  /* in scratch: one a worker, or one a part where these are fewer */
    bool shared;                     /* one panel is read by all parts; it stands behind those of the workers */
    size_t read_panel, panel;        /* reals of that panel, and of what a worker or part has for itself */
    size_t parts_at;                 /* reals before the parts of dW in scratch */
} state;

bool mest_tokens_fits(const mest_kernel_query *q, mest_lanes_op op, const char **why)
{
    mest_lanes_problem p;
    if (q->n_in < 2 || !q->in[0] || !q->in[1] || q->in[1]->layout.kind != MEST_SPARSE || !q->sparse[1])
        return false;
    for (int i = 0; i < q->n_in; i++)
        if (i != 1 && !mest_plain_real(q->in[i]))
            return false;
    for (int i = 0; i < q->n_out; i++)
        if (q->out[i] && (i == 1 ? q->out[i]->layout.kind != MEST_SPARSE : !mest_plain_real(q->out[i])))
            return false;
    if (!mest_lanes_problem_of(q, op, &p, why) || (p.gradient && (q->n_in <= p.dy || !q->in[p.dy])))
        return false;
    if ((double)(p.g.c > p.g.m ? p.g.c : p.g.m) * 64 * sizeof(mest_real) > 2e9 || (double)q->sparse[1]->cap_units * q->sparse[1]->unit_elements > 2e9) {
        *why = "offsets beyond 32 bits";
        return false;
    }
    *why = "sparse weight, rows turned into lanes a chunk at a time";
    return true;
}

double mest_tokens_cost(const mest_kernel_query *q, mest_lanes_op op, double flops_per_second)
{
    const char *why = NULL;
    mest_lanes_problem p;
    if (!mest_lanes_problem_of(q, op, &p, &why))
        return 1e9;
    const double rows = (double)(mest_ceil_div(p.g.n, 16) * 16), entries = (double)q->sparse[1]->cap_units * q->sparse[1]->unit_elements;
    const bool dx = p.gradient && q->out[0], dw = p.gradient && q->n_out > 1 && q->out[1];
    const int passes = p.gradient ? dx + dw : 1;
    const bool block = mest_quads(q->sparse[1], p.inputs_first, p.g.m, 1);
    const double rate = flops_per_second * (p.gradient ? 1.5 : block ? 1.9 : 1.0);
    /* turning costs about a third of a nanosecond an element */
    const double turned = rows * ((double)p.g.m + (p.gradient ? (dw ? 1 : 0) + (dx ? 1 : 0) : 1) * (double)p.g.c);
    return 2 * entries * rows * passes / rate + turned * 3.5e-10 + 2e-6;
}

static int32_t part_count(double flops)
{
    const int64_t n = (int64_t)(flops / 2e6);
    return (int32_t)(n < 1 ? 1 : n > 64 ? 64 : n);
}

static void cut(state *s, double flops)
{
    const int64_t rows = mest_ceil_div(s->p.gradient ? s->p.g.c : s->p.g.m, s->key.height);
    const int32_t n = part_count(flops), few = n < MAX_PARTS ? n : MAX_PARTS;
    if (s->want_dw) /* parts by chunk need an array of gradients each: scratch must stay modest beside the weight */
        s->chunk_parts = s->chunks >= few && s->entries * few * (int64_t)sizeof(mest_real) <= 4 << 20 ? few : 1;
    else
        s->chunk_parts = s->chunks >= few ? (int32_t)(s->chunks < n ? s->chunks : n) : 1;
    s->row_parts = s->chunk_parts > 1 ? 1 : (int32_t)(few < rows ? few : rows);
    s->row_parts = s->row_parts < 1 ? 1 : s->row_parts;
}

mest_status mest_tokens_prepare(const mest_kernel_query *q, mest_lanes_op op, const mest_lanes_isa *isa, const mest_tokens_isa *turn, void **out,
                                size_t *scratch_bytes, mest_error *err)
{
    *out = NULL;
    *scratch_bytes = 0;
    const char *why = "kernel does not fit";
    mest_lanes_problem p;
    MEST_CHECK(mest_lanes_problem_of(q, op, &p, &why), err, MEST_E_INTERNAL, "%s: %s", q->node->name, why);
    state *s = mest_calloc(q->heap, 1, sizeof *s);
    MEST_CHECK(s, err, MEST_E_NOMEM, "%s: no memory for the state of a kernel", q->node->name);
    const mest_sparse *weight = q->sparse[1];
    const int64_t v = isa->v;
    s->isa = isa;
    s->turn = turn;
    s->p = p;
    s->want_dx = p.gradient && q->out[0];
    s->want_dw = p.gradient && q->n_out > 1 && q->out[1];
    s->reads = p.gradient ? p.g.m : p.g.c;
    const int64_t own = p.gradient ? p.g.c : p.g.m;
    const int row_panels = p.gradient ? s->want_dx + s->want_dw : 1;
    s->read_slots = mest_default_slots(s->reads, (int)v);
    s->entries = weight->cap_units * weight->unit_elements;
    s->blocks = mest_ceil_div(p.g.n, v);
    const bool quads = !p.gradient && mest_quads(weight, p.inputs_first, p.g.m, 1);
    const int64_t run = p.gradient && s->want_dw ? isa->run_backward : quads ? isa->run_quad : isa->run_single;
    const int64_t position = (row_panels * mest_default_slots(own, (int)v) + s->read_slots) * v * (int64_t)sizeof(mest_real);
    s->chunk = (256 << 10) / (position * run) * run; /* a quarter of a second-level cache */
    s->chunk = s->chunk < run ? run : s->chunk;
    s->chunk = s->chunk > s->blocks ? s->blocks : s->chunk;
    s->chunks = s->chunk > 0 ? mest_ceil_div(s->blocks, s->chunk) : 0;
    s->key = (mest_lanes_key){
        .cap = s->entries / (quads ? 4 : 1), .c = (int32_t)p.g.c, .m = (int32_t)p.g.m, .group = 1, .r = 1, .s = 1, .stride_y = 1, .stride_x = 1,
        .dilation_y = 1, .dilation_x = 1, .lanes = (uint8_t)v, .backward = p.gradient, .inputs_first = p.inputs_first, .height = quads ? 4 : 1,
        .tile = mest_lanes_tile(isa, &p, true, (double)s->entries, p.gradient, s->reads),
    };
    s->key.direct = !p.gradient && !p.inputs_first && mest_row_order(weight, s->key.height) && s->key.tile >= s->reads;
    cut(s, 2.0 * (double)s->entries * (double)(s->blocks * v) * (s->want_dx && s->want_dw ? 2 : 1));
    const int64_t workers = q->threads && q->threads->n > 1 ? q->threads->n : 1;
    s->row_slots = mest_default_slots(mest_ceil_div(mest_ceil_div(own, s->key.height), s->row_parts) * s->key.height, (int)v);
    s->shared = s->row_parts > 1;
    s->read_panel = (size_t)(s->chunk * v * s->read_slots);
    s->panel = (size_t)(s->chunk * v * row_panels * s->row_slots) + (s->shared ? 0 : s->read_panel);
    s->panels = (int32_t)(s->row_parts * s->chunk_parts <= workers ? s->row_parts * s->chunk_parts : workers);
    s->parts_at = s->panel * (size_t)s->panels + (s->shared ? s->read_panel : 0);
    *scratch_bytes = (s->parts_at + (s->want_dw ? (size_t)s->chunk_parts * (size_t)s->entries : 0)) * sizeof(mest_real);
    mest_status status = MEST_OK;
    if (s->want_dx || s->want_dw || !p.gradient)
        status = mest_derived_get(q->derived, weight, &s->key, sizeof s->key, mest_lanes_bytes(&s->key), mest_lanes_build, mest_lanes_refresh, &s->list, err);
    if (status != MEST_OK) {
        mest_tokens_release(s, q->heap);
        return status;
    }
    *out = s;
    return MEST_OK;
}

void mest_tokens_release(void *state_, mest_heap *heap) { mest_free(heap, state_, state_ ? 1 : 0, sizeof(state)); }

/* ---- running ---- */
typedef struct job {
    const state *s;
    mest_lanes_list list;
    const mest_real *x, *dy, *bias;
    mest_real *y, *dx, *dw, *db, *scratch;
    const int32_t *perm;
    int64_t n_entries;
    int64_t chunk; /* at work, where all parts share it */
} job;

static int64_t share(int64_t n, int64_t part, int64_t parts) { return n * part / parts; }

/* Rows of the chunk's blocks [from, to) of a plain [T, width] array to a panel, channels [c0, c1), or back. */
static void turn_chunk(const state *s, const mest_real *rows, mest_real *out, mest_real *panel, int64_t slots, int64_t width, int64_t from, int64_t to, int64_t c0,
                       int64_t c1)
{
    const int64_t v = s->isa->v;
    for (int64_t b = from; b < to; b++) {
        const int64_t left = s->p.g.n - b * v, valid = left < v ? left : v;
        mest_real *lanes = panel + (b - from) * slots * v;
        if (out)
            s->turn->to_rows(lanes, valid, c0, c1, out + b * v * width, width);
        else
            s->turn->to_lanes(rows + b * v * width, width, valid, c0, c1, lanes);
    }
}

/* What a part works on: its chunks, its rows of the list, its panels. */
typedef struct part_of {
    int64_t chunk0, chunk1;
    int32_t r0, r1;
    mest_real *read, *own;
} part_of;

static part_of part_at(const job *j, size_t worker, size_t tile)
{
    const state *s = j->s;
    mest_real *mine = j->scratch + (s->panels == s->row_parts * s->chunk_parts ? tile : worker) * s->panel;
    part_of p = {.read = mine, .own = mine + s->read_panel, .r1 = j->list.n_rows};
    if (s->shared) {
        p.r0 = (int32_t)share(j->list.n_rows, (int64_t)tile, s->row_parts);
        p.r1 = (int32_t)share(j->list.n_rows, (int64_t)tile + 1, s->row_parts);
        p.chunk0 = j->chunk;
        p.chunk1 = j->chunk + 1;
        p.read = j->scratch + s->parts_at - s->read_panel;
        p.own = mine;
        return p;
    }
    p.chunk0 = share(s->chunks, (int64_t)tile, s->chunk_parts);
    p.chunk1 = share(s->chunks, (int64_t)tile + 1, s->chunk_parts);
    return p;
}

static int64_t chunk_end(const state *s, int64_t chunk) { return (chunk + 1) * s->chunk < s->blocks ? (chunk + 1) * s->chunk : s->blocks; }

/* What the list reads, X or dY, to a panel. */
static void read_blocks(const job *j, int64_t from, int64_t to, mest_real *panel)
{
    turn_chunk(j->s, j->s->p.gradient ? j->dy : j->x, NULL, panel, j->s->read_slots, j->s->reads, from, to, 0, j->s->reads);
}

static void read_part(void *context, size_t block)
{
    const job *j = context;
    const state *s = j->s;
    const int64_t b = j->chunk * s->chunk + (int64_t)block;
    read_blocks(j, b, b + 1, j->scratch + s->parts_at - s->read_panel + (int64_t)block * s->read_slots * s->isa->v);
}

/* Y from X; or dX from dY alone, over the transposed list. */
static void forward_part(void *context, size_t worker, size_t tile)
{
    const job *j = context;
    const state *s = j->s;
    const bool back = s->p.gradient;
    const int64_t v = s->isa->v, outs = back ? s->p.g.c : s->p.g.m;
    const part_of p = part_at(j, worker, tile);
    const int64_t o0 = (int64_t)p.r0 * s->key.height, o1 = (int64_t)p.r1 * s->key.height < outs ? (int64_t)p.r1 * s->key.height : outs;
    mest_real *write = p.own - o0 * v; /* channel o0 comes first */
    for (int64_t k = p.chunk0; k < p.chunk1; k++) {
        const int64_t from = k * s->chunk, to = chunk_end(s, k);
        if (!s->shared)
            read_blocks(j, from, to, p.read);
        const mest_lanes_forward f = {.blocks = 1, .rows = 1, .run = to - from, .x = p.read, .x_step = s->read_slots * v, .y = write,
                                      .y_step = s->row_slots * v, .bias = j->bias, .outs = outs, .list = j->list};
        s->isa->forward(&f, 0, 0, p.r0, p.r1);
        turn_chunk(s, NULL, back ? j->dx : j->y, write, s->row_slots, outs, from, to, o0, o1);
    }
}

/* dW at the stored entries, and dX with it where wanted. Rows of the list are inputs. */
static void backward_part(void *context, size_t worker, size_t tile)
{
    const job *j = context;
    const state *s = j->s;
    const int64_t v = s->isa->v, c = s->p.g.c;
    const part_of p = part_at(j, worker, tile);
    mest_real *x = p.own - p.r0 * v, *dx = x + s->chunk * s->row_slots * v;
    mest_real *dw = j->scratch + s->parts_at + (s->shared ? 0 : (int64_t)tile * s->entries);
    for (int64_t k = p.chunk0; k < p.chunk1; k++) {
        const int64_t from = k * s->chunk, to = chunk_end(s, k);
        if (!s->shared)
            read_blocks(j, from, to, p.read);
        turn_chunk(s, j->x, NULL, x, s->row_slots, c, from, to, p.r0, p.r1);
        const mest_lanes_backward b = {.blocks = 1, .rows = 1, .run = to - from, .x = x, .x_step = s->row_slots * v, .dx = s->want_dx ? dx : NULL,
                                       .dx_step = s->row_slots * v, .dy = p.read, .dy_step = s->read_slots * v, .list = j->list};
        s->isa->backward(&b, 0, 0, p.r0, p.r1, dw);
        if (s->want_dx)
            turn_chunk(s, NULL, j->dx, dx, s->row_slots, c, from, to, p.r0, p.r1);
    }
}

static void run_parts(const mest_args *a, job *j, void (*part)(void *context, size_t worker, size_t tile))
{
    const state *s = j->s;
    if (!s->shared) {
        mest_parallel_worker(a->threads, (size_t)s->chunk_parts, part, j);
        return;
    }
    for (j->chunk = 0; j->chunk < s->chunks; j->chunk++) {
        mest_parallel(a->threads, (size_t)(chunk_end(s, j->chunk) - j->chunk * s->chunk), read_part, j);
        mest_parallel_worker(a->threads, (size_t)s->row_parts, part, j);
    }
}

/* Sums the parts of dW in order and returns them to the order of storage. */
static void collect_part(void *context, size_t part)
{
    const job *j = context;
    const state *s = j->s;
    const mest_real *parts = j->scratch + s->parts_at;
    for (int64_t e = share(j->n_entries, (int64_t)part, PACK_ROWS); e < share(j->n_entries, (int64_t)part + 1, PACK_ROWS); e++) {
        mest_real sum = parts[e];
        for (int32_t i = 1; i < s->chunk_parts; i++)
            sum += parts[i * s->entries + e];
        j->dw[j->perm[e]] = sum;
    }
}

/* db: sums over rows, 16 at a time in float, those in double. */
static void bias_part(void *context, size_t part)
{
    const job *j = context;
    const int64_t m = j->s->p.g.m, n = j->s->p.g.n, from = (int64_t)part * BIAS_COLUMNS, width = m - from < BIAS_COLUMNS ? m - from : BIAS_COLUMNS;
    double sum[BIAS_COLUMNS] = {0};
    for (int64_t i = 0; i < n; i += 16) {
        mest_real some[BIAS_COLUMNS] = {0};
        for (int64_t k = i; k < i + 16 && k < n; k++)
            for (int64_t o = 0; o < width; o++)
                some[o] += j->dy[k * m + from + o];
        for (int64_t o = 0; o < width; o++)
            sum[o] += (double)some[o];
    }
    for (int64_t o = 0; o < width; o++)
        j->db[from + o] = (mest_real)sum[o];
}

mest_status mest_tokens_run(const mest_args *a)
{
    const state *s = a->state;
    const mest_lanes_problem *p = &s->p;
    job j = {.s = s, .x = a->in[0].data, .scratch = a->scratch};
    if (p->gradient) {
        j.dy = a->in[p->dy].data;
        j.dx = a->out[0].data;
        j.dw = a->n_out > 1 ? a->out[1].data : NULL;
        j.db = p->bias >= 0 && a->n_out > p->bias ? a->out[p->bias].data : NULL;
    } else {
        j.y = a->out[0].data;
        j.bias = p->bias >= 0 && a->n_in > p->bias ? a->in[p->bias].data : NULL;
    }
    if (j.y || j.dx || j.dw)
        j.list = mest_lanes_view(mest_derived_use(s->list), &s->key, a->in[1].data, 0, &j.perm, &j.n_entries);
    if (j.dw) {
        for (int32_t i = 0; i < s->chunk_parts; i++)
            memset(j.scratch + s->parts_at + i * s->entries, 0, (size_t)j.n_entries * sizeof *j.scratch);
        run_parts(a, &j, backward_part);
        if (j.n_entries < a->in[1].sparse->stored)
            memset(j.dw, 0, (size_t)a->in[1].sparse->stored * sizeof *j.dw); /* padding entries */
        mest_parallel(a->threads, PACK_ROWS, collect_part, &j);
    } else if (j.y || j.dx) {
        run_parts(a, &j, forward_part);
    }
    if (j.db)
        mest_parallel(a->threads, (size_t)mest_ceil_div(p->g.m, BIAS_COLUMNS), bias_part, &j);
    return MEST_OK;
}
