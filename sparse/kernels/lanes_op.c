/* SPDX-License-Identifier: Apache-2.0 */
/* Operators on the batch-lane passes: what fits, halo, lists, how the work is cut. Independent of the instruction set.
 *
 * Work is cut by shapes and capacities only, never by the number of threads or the present number of entries, and sums have a fixed
 * order, so results are the same bits for any number of threads and after a resume. */
#include "sparse/kernels/lanes_state.h"

typedef mest_lanes_problem problem;
typedef mest_lanes_state state;

enum { MAX_PARTS = 8 };

/* ---- which problem is it ---- */
bool mest_lanes_problem_of(const mest_kernel_query *q, mest_lanes_op op, problem *p, const char **why)
{
    *p = (problem){.x = 0, .dy = -1, .y_out = 0, .bias = -1};
    p->gradient = op == MEST_LANES_CONV_GRAD || op == MEST_LANES_GEMM_GRAD || op == MEST_LANES_MATMUL_GRAD;
    p->affine = op == MEST_LANES_CONV_AFFINE;
    const bool conv = op == MEST_LANES_CONV || p->affine || op == MEST_LANES_CONV_GRAD, gemm = op == MEST_LANES_GEMM || op == MEST_LANES_GEMM_GRAD;
    if (p->gradient) {
        p->dy = op == MEST_LANES_GEMM_GRAD ? 3 : 2;
        p->y_out = -1;
        p->bias = op == MEST_LANES_MATMUL_GRAD ? -1 : 2;
    } else if (conv || gemm) {
        p->bias = 2;
    }
    const mest_shape *xs = &q->in[0]->shape, *ws = &q->in[1]->shape;
    if (conv) {
        char text[160];
        if (!mest_conv_geometry_of(q->params, xs, ws, &p->g, text, sizeof text)) {
            *why = "shapes do not fit";
            return false;
        }
        return true;
    }
    const mest_gemm_params *params = gemm ? q->params : NULL;
    if (xs->rank != 2 || ws->rank != 2) {
        *why = "operands are not matrices";
        return false;
    }
    if (params && (params->trans_a || params->alpha != 1.0)) {
        *why = "transA or alpha";
        return false;
    }
    p->inputs_first = !(params && params->trans_b);
    const int64_t m = p->inputs_first ? ws->dim[1] : ws->dim[0];
    const mest_type *c = NULL; /* C or its gradient */
    if (gemm && !p->gradient && q->n_in > 2)
        c = q->in[2];
    if (gemm && p->gradient && q->n_out > 2)
        c = q->out[2];
    if (c) {
        int64_t last = c->shape.rank ? c->shape.dim[c->shape.rank - 1] : 1;
        if (params->beta != 1.0 || c->shape.rank < 1 || c->shape.rank > 2 || last != m || (c->shape.rank == 2 && c->shape.dim[0] != 1)) {
            *why = "C is not one bias per output";
            return false;
        }
    }
    p->g = (mest_conv_geometry){.n = xs->dim[0], .c = xs->dim[1], .h = 1, .w = 1, .m = m, .p = 1, .q = 1, .group = 1, .r = 1, .s = 1,
                                .stride_y = 1, .stride_x = 1, .dilation_y = 1, .dilation_x = 1, .spatial = 2};
    return true;
}

static bool is_lanes(const mest_type *t, int v) { return t && t->dtype == MEST_F32 && t->layout.kind == MEST_PIXEL && t->layout.v == v; }

bool mest_lanes_fits(const mest_kernel_query *q, mest_lanes_op op, const mest_lanes_isa *isa, const char **why)
{
    if (q->n_in < 2 || !q->in[0] || !q->in[1] || !is_lanes(q->in[0], isa->v))
        return false;
    problem p;
    if (!mest_lanes_problem_of(q, op, &p, why))
        return false;
    if (p.gradient) {
        if (q->n_in <= p.dy || !is_lanes(q->in[p.dy], isa->v) || (q->out[0] && !is_lanes(q->out[0], isa->v)))
            return false;
    } else if (q->out[0] && !is_lanes(q->out[0], isa->v)) {
        return false;
    }
    const mest_type *bias = p.bias < 0 ? NULL : p.gradient ? (p.bias < q->n_out ? q->out[p.bias] : NULL) : (p.bias < q->n_in ? q->in[p.bias] : NULL);
    if (!mest_plain_real(bias) || (p.affine && q->n_in > 3 && !mest_plain_real(q->in[3])))
        return false;
    const mest_type *w = q->in[1], *dw = p.gradient && q->n_out > 1 ? q->out[1] : NULL;
    const mest_sparse *sparse = w->layout.kind == MEST_SPARSE ? q->sparse[1] : NULL;
    if (w->dtype != MEST_F32 || w->layout.kind == MEST_PIXEL || (w->layout.kind == MEST_SPARSE && !sparse))
        return false;
    if (dw && dw->layout.kind != w->layout.kind)
        return false;
    const mest_conv_geometry *g = &p.g;
    if (g->top > 255 || g->left > 255 || g->bottom > 255 || g->right > 255 || g->r > 16384 || g->s > 16384 || g->stride_y > 64 ||
        g->stride_x > 64 || g->dilation_y > 16384 || g->dilation_x > 16384) {
        *why = "geometry beyond the lists' range";
        return false;
    }
    uint8_t pad[4];
    for (int i = 0; i < q->n_in; i++) {
        mest_lanes_halo(q, op, i, pad);
        for (int k = 0; k < 4; k++)
            if (pad[k] == 255) {
                *why = "needs too wide a halo";
                return false;
            }
    }
    const double wide = (double)(g->w > g->q ? g->w : g->q) + 510, deep = (double)(g->c > g->m ? g->c : g->m) + 33;
    if (((double)g->r * (double)g->dilation_y + 2) * wide * deep * isa->v * (double)sizeof(mest_real) > 2e9 ||
        (sparse && (double)sparse->cap_units * sparse->unit_elements > 2e9)) {
        *why = "offsets beyond 32 bits";
        return false;
    }
    *why = sparse ? "sparse weight, batch in the vector lanes" : "dense weight, batch in the vector lanes";
    return true;
}

/* Rows beyond [0, size) that taps reach when `count` positions read at position * step + tap * dilation - pad. */
static uint8_t below(int64_t n) { return (uint8_t)(n < 0 ? 0 : n > 255 ? 255 : n); }

void mest_lanes_halo(const mest_kernel_query *q, mest_lanes_op op, int input, uint8_t pad[4])
{
    const char *why = NULL;
    problem p;
    memset(pad, 0, 4);
    if (!mest_lanes_problem_of(q, op, &p, &why))
        return;
    const mest_conv_geometry *g = &p.g;
    const bool dense_dw = p.gradient && g->group == 1 && q->in[1]->layout.kind == MEST_PLAIN && q->n_out > 1 && q->out[1];
    if ((!p.gradient || dense_dw) && input == 0) {
        pad[0] = below(g->top);
        pad[1] = below(g->left);
        pad[2] = below((g->p - 1) * g->stride_y + (g->r - 1) * g->dilation_y - g->top - (g->h - 1));
        pad[3] = below((g->q - 1) * g->stride_x + (g->s - 1) * g->dilation_x - g->left - (g->w - 1));
    } else if (p.gradient && input == p.dy) {
        /* dX[y] reads dY[(y + top - r * dilation) / stride], r = R - 1 .. 0 */
        pad[0] = below(mest_ceil_div((g->r - 1) * g->dilation_y - g->top, g->stride_y));
        pad[1] = below(mest_ceil_div((g->s - 1) * g->dilation_x - g->left, g->stride_x));
        pad[2] = below(mest_floor_div(g->h - 1 + g->top, g->stride_y) - (g->p - 1));
        pad[3] = below(mest_floor_div(g->w - 1 + g->left, g->stride_x) - (g->q - 1));
    }
}

static int64_t capacity(const mest_kernel_query *q, const problem *p)
{
    const mest_sparse *s = q->in[1]->layout.kind == MEST_SPARSE ? q->sparse[1] : NULL;
    return s ? s->cap_units * s->unit_elements : p->g.m * (p->g.c / p->g.group) * p->g.r * p->g.s;
}

/* Do taps of a kernel beside each other make up enough of a weight? Measured (Zen 4, forward, docs/results/layers.md): patterns 8 to 33 % faster; csr at 50 %
 * sparsity 11 to 26 %, at 80 % up to 12 %, at 90 % between 6 % slower and 8 % faster. Backward passes are bound by their multiply-adds: nothing is won there. */
static bool runs_pay(const mest_sparse *weight, const problem *p)
{
    const mest_conv_geometry *g = &p->g;
    const double all = (double)g->m * (double)(g->c / g->group) * (double)(g->r * g->s);
    return g->s > 1 && (weight->choices > 1 || (double)weight->cap_units * weight->unit_elements >= 0.19 * all);
}

double mest_lanes_cost(const mest_kernel_query *q, mest_lanes_op op, const mest_lanes_isa *isa)
{
    const char *why = NULL;
    problem p;
    if (!mest_lanes_problem_of(q, op, &p, &why))
        return 1e9;
    const mest_conv_geometry *g = &p.g;
    const double lanes = (double)(mest_ceil_div(g->n, isa->v) * isa->v);
    const double entries = (double)capacity(q, &p), pixels = lanes * (double)(g->p * g->q);
    int passes = p.gradient ? (q->out[0] ? 1 : 0) + (q->n_out > 1 && q->out[1] ? 1 : 0) : 1;
    const bool block = !q->sparse[1] || mest_quads(q->sparse[1], p.inputs_first, p.g.m, p.g.group);
    /* measured in cache: blocks that share columns run almost twice as fast, the fused backward one and a half times */
    const bool pattern = q->sparse[1] && q->sparse[1]->choices > 1 && g->stride_x == g->dilation_x;
    const double rate = isa->flops_per_second * (p.gradient ? 1.5 : block ? 1.9 : pattern ? 1.2 : 1.0);
    const double bytes = (double)sizeof(mest_real) * (lanes * (double)(g->c * g->h * g->w) + pixels * (double)g->m) * (p.gradient ? 1.5 : 1.0);
    return 2 * entries * pixels * passes / rate + bytes / (p.affine ? 30e9 : 20e9) + 2e-6; /* inference: what the layer before wrote is near */
}

/* ---- preparation ---- */
int32_t mest_lanes_tile(const mest_lanes_isa *isa, const problem *p, bool sparse, double entries, bool backward, int64_t channels)
{
    const mest_conv_geometry *g = &p->g;
    /* Dense: two thirds of a 48 KB first-level cache. Sparse: each visit of a row and tile loads and stores its sums, for few entries; measured,
     * twice the cache is best (32 KB, Zen 4: a step of ResNet-18 took 5 % less than with 32 KB, and than with no tiles). */
    const double vectors = (sparse ? 65536.0 : 32768.0) / ((double)isa->v * (double)sizeof(mest_real));
    const int run = backward ? isa->run_backward : isa->run_single;
    const double panel = (double)g->r * (double)(run * (backward ? 1 : g->stride_x) + g->s - 1);
    const double all = (double)g->m * (double)(g->c / g->group) * (double)(g->r * g->s);
    double tile = vectors / panel;
    if (sparse && entries > 0 && all > 0) { /* no fewer than about three entries of a row in a tile */
        const double least = 8 * all / entries / (double)(g->r * g->s);
        tile = tile < least ? least : tile;
    }
    int64_t t = (int64_t)tile / 4 * 4;
    t = t < 4 ? 4 : t;
    if (t >= channels)
        return (int32_t)(channels > 0 ? channels : 1);
    const int64_t n = (channels + t - 1) / t; /* tiles of nearly equal size */
    t = ((channels + n - 1) / n + 3) / 4 * 4;
    return (int32_t)t;
}

/* Number of parts that share work of `flops`: small work is not worth waking a thread for. */
static int32_t parts_of(double flops, int64_t most)
{
    int64_t n = (int64_t)(flops / 2e6);
    n = n > most ? most : n;
    return (int32_t)(n < 1 ? 1 : n > 64 ? 64 : n);
}

/* Cuts a pass that writes each output once. */
static void cut_outputs(const state *s, double flops, int64_t units, int64_t rows, int32_t *position_parts, int32_t *row_parts)
{
    const int32_t n = parts_of(flops, 64);
    units = s->fold ? 1 : units;
    *position_parts = (int32_t)(units < n ? units : n);
    *position_parts = *position_parts < 1 ? 1 : *position_parts;
    *row_parts = *position_parts < MAX_PARTS ? parts_of(flops / *position_parts, MAX_PARTS) : 1;
    *row_parts = rows < *row_parts ? (int32_t)rows : *row_parts;
    *row_parts = *row_parts < 1 ? 1 : *row_parts;
}

static void cut(state *s, double flops)
{
    const problem *p = &s->p;
    if (!p->gradient) {
        cut_outputs(s, flops, s->y.blocks * s->y.h, mest_ceil_div(p->g.m, s->key.height), &s->position_parts, &s->row_parts);
        return;
    }
    cut_outputs(s, flops, s->x.blocks * s->x.h, mest_ceil_div(p->g.c, s->key.height), &s->dx_position_parts, &s->dx_row_parts);
    if (s->want_dw) {
        /* Parts by position need an array of gradients each, parts by channel read all of the other tensor each. */
        const int64_t units = s->fold ? 1 : s->dense_dw ? s->y.blocks * s->y.h : s->x.blocks * mest_ceil_div(s->x.h, p->g.stride_y);
        const int64_t rows = s->dense_dw ? mest_ceil_div(s->weight_m, 4) : p->g.c, vectors = s->y.blocks * s->y.h * s->y.w;
        const double read = (double)(s->dense_dw ? s->x.storage : s->y.storage), part = (double)s->entries * 3;
        const int32_t n = parts_of(flops, MAX_PARTS);
        const int64_t by_position = vectors / 16 < units ? vectors / 16 : units;
        const bool small = s->entries * n * (int64_t)sizeof(mest_real) <= 4 << 20; /* scratch must stay modest beside the weight */
        if (small && by_position >= n && part * n < read * (n - 1)) {
            s->position_parts = n;
            s->row_parts = 1;
        } else {
            s->row_parts = n < rows ? n : (int32_t)rows;
            s->position_parts = 1;
        }
    }
    s->position_parts = s->position_parts < 1 ? 1 : s->position_parts;
    s->row_parts = s->row_parts < 1 ? 1 : s->row_parts;
}

mest_status mest_lanes_describe(const mest_kernel_query *q, mest_lanes_op op, const mest_lanes_isa *isa, state *s, mest_error *err)
{
    const char *why = "kernel does not fit";
    MEST_CHECK(mest_lanes_problem_of(q, op, &s->p, &why), err, MEST_E_INTERNAL, "%s: %s", q->node->name, why);
    s->isa = isa;
    s->act = mest_act_for(q->cpu);
    s->sparse = q->in[1]->layout.kind == MEST_SPARSE;
    s->fixed = q->in_fixed && q->in_fixed[1];
    s->want_dx = s->p.gradient && q->out[0];
    s->want_dw = s->p.gradient && q->n_out > 1 && q->out[1];
    s->x = mest_pixel_geometry(q->in[0]);
    const mest_type *yt = s->p.gradient ? q->in[s->p.dy] : q->out[0];
    if (yt)
        s->y = mest_pixel_geometry(yt);
    if (s->want_dx)
        s->dx = mest_pixel_geometry(q->out[0]);
    s->dense_dw = s->p.gradient && !s->sparse && s->p.g.group == 1;
    s->entries = capacity(q, &s->p);
    return MEST_OK;
}

/* Share of tap rows that are above or below the image, over all rows of positions. */
static double outside(const mest_conv_geometry *g)
{
    mest_lanes_list l = {.parts = 2};
    int64_t inside = 0;
    for (int64_t y = 0; y < g->p; y++) {
        mest_lanes_inside(&l, g, false, y);
        inside += l.to - l.from;
    }
    return 1 - (double)inside / (double)(g->p * g->r);
}

mest_status mest_lanes_lists(const mest_kernel_query *q, state *s, int64_t pixel, int64_t row, int64_t step, mest_error *err)
{
    const problem *p = &s->p;
    const mest_sparse *weight = s->sparse ? q->sparse[1] : NULL;
    const int64_t bytes = (int64_t)sizeof(mest_real);
    const int32_t height = s->dense_dw ? 4 : p->gradient ? 1 : s->sparse ? (mest_quads(weight, p->inputs_first, p->g.m, p->g.group) ? 4 : 1)
                                                                         : (p->g.group == 1 ? 4 : 1);
    const int64_t entries = capacity(q, p), reads = (p->gradient ? p->g.m : p->g.c) / (s->sparse ? 1 : p->g.group);
    mest_lanes_key *k = &s->key; /* zero before: no stray bytes in what is compared */
    k->cap = entries / height;
    k->pixel_bytes = (int32_t)(pixel * bytes);
    k->row_bytes = (int32_t)(row * bytes);
    k->c = (int32_t)p->g.c;
    k->m = (int32_t)p->g.m;
    k->group = (int32_t)p->g.group;
    k->tile = mest_lanes_tile(s->isa, p, s->sparse, (double)entries, p->gradient, reads);
    k->r = (int16_t)p->g.r;
    k->s = (int16_t)p->g.s;
    k->stride_y = (int16_t)p->g.stride_y;
    k->stride_x = (int16_t)p->g.stride_x;
    k->dilation_y = (int16_t)p->g.dilation_y;
    k->dilation_x = (int16_t)p->g.dilation_x;
    k->top = (int16_t)p->g.top;
    k->left = (int16_t)p->g.left;
    k->lanes = (uint8_t)s->isa->v;
    k->backward = p->gradient;
    k->inputs_first = p->inputs_first;
    k->height = (uint8_t)height;
    k->direct = s->sparse && !p->gradient && !p->inputs_first && mest_row_order(weight, height) && k->tile >= reads;
    k->by_rows = s->sparse && p->g.r > 1 && p->g.r <= 16 && outside(&p->g) >= (k->direct ? 0.04 : 0.015);
    if (s->sparse && !p->gradient && height == 1 && runs_pay(weight, p))
        k->step_bytes = (int32_t)(step * bytes);
    k->direct = k->direct && !k->by_rows && !k->step_bytes;
    if (s->sparse)
        return s->want_dx || s->want_dw || !p->gradient ? mest_derived_get(q->derived, weight, k, sizeof *k, mest_lanes_bytes(k), mest_lanes_build,
                                                                           mest_lanes_refresh, &s->list, err)
                                                        : MEST_OK;
    s->offsets_bytes = mest_lanes_dense_bytes(k);
    s->offsets = mest_alloc(q->heap, s->offsets_bytes, 1);
    s->pack_values = (size_t)mest_lanes_dense_entries(k) * (size_t)height;
    s->pack_in_scratch = q->learns && !s->fixed;
    if (!s->pack_in_scratch)
        s->pack = mest_alloc(q->heap, s->pack_values, sizeof *s->pack);
    MEST_CHECK(s->offsets && (s->pack || s->pack_in_scratch), err, MEST_E_NOMEM, "%s: no memory for %zu packed weights", q->node->name, s->pack_values);
    mest_lanes_dense_offsets(k, s->offsets);
    s->entries = s->dense_dw ? entries : mest_lanes_dense_entries(k);
    return MEST_OK;
}

mest_status mest_lanes_prepare(const mest_kernel_query *q, mest_lanes_op op, const mest_lanes_isa *isa, void **out, size_t *scratch_bytes,
                               mest_error *err)
{
    *out = NULL;
    *scratch_bytes = 0;
    state *s = mest_calloc(q->heap, 1, sizeof *s);
    MEST_CHECK(s, err, MEST_E_NOMEM, "%s: no memory for the state of a kernel", q->node->name);
    mest_status status = MEST_OK;
    MEST_TRY_OUT(mest_lanes_describe(q, op, isa, s, err));
    const problem p = s->p;
    if (!(p.gradient ? q->in[p.dy] : q->out[0])) { /* nothing is wanted */
        *out = s;
        return MEST_OK;
    }
    /* One position an image: image blocks become the positions of a panel. */
    s->fold = s->x.h == 1 && s->x.w == 1 && s->y.h == 1 && s->y.w == 1;
    const mest_pixels *read = p.gradient ? &s->y : &s->x;
    const int64_t bytes = (int64_t)sizeof(mest_real), entries = s->entries;
    MEST_TRY_OUT(mest_lanes_lists(q, s, read->pixel, read->row, s->fold ? 0 : (p.gradient ? 1 : p.g.stride_x) * read->pixel, err));
    if (s->dense_dw) {
        s->weight_m = p.inputs_first ? p.g.c : p.g.m; /* [C, M]: the roles of X and dY are swapped */
        s->n_taps = p.g.r * p.g.s;
        s->tap_off = mest_alloc(q->heap, (size_t)s->n_taps, sizeof *s->tap_off);
        if (!s->tap_off) {
            status = mest_fail(err, MEST_E_NOMEM, "%s: no memory for the state of a kernel", q->node->name);
            goto out;
        }
        for (int64_t t = 0; t < s->n_taps; t++)
            s->tap_off[t] = (int32_t)((t / p.g.s * p.g.dilation_y * s->x.row + t % p.g.s * p.g.dilation_x * s->x.pixel) * bytes);
    }
    cut(s, 2.0 * (double)entries * (double)(s->y.blocks * s->y.h * s->y.w * isa->v) * (s->want_dx && s->want_dw ? 2 : 1));
    if (s->want_dw)
        s->parts_bytes = ((size_t)s->position_parts * (size_t)s->entries * sizeof(mest_real) + 63) / 64 * 64;
    *scratch_bytes = s->parts_bytes + (s->pack_in_scratch ? s->pack_values * sizeof *s->pack : 0);
out:
    if (status != MEST_OK) {
        mest_lanes_release(s, q->heap);
        return status;
    }
    *out = s;
    return MEST_OK;
}

void mest_lanes_free(state *s, mest_heap *heap)
{
    mest_free(heap, s->offsets, s->offsets_bytes, 1);
    if (!s->pack_in_scratch)
        mest_free(heap, s->pack, s->pack_values, sizeof *s->pack);
    mest_free(heap, s->tap_off, (size_t)s->n_taps, sizeof *s->tap_off);
}

void mest_lanes_release(void *state_, mest_heap *heap)
{
    state *s = state_;
    if (!s)
        return;
    mest_lanes_free(s, heap);
    mest_free(heap, s, 1, sizeof *s);
}

size_t mest_lanes_state_bytes(const void *state_)
{
    const state *s = state_;
    return s ? sizeof *s + s->offsets_bytes + (s->pack_in_scratch ? 0 : s->pack_values * sizeof *s->pack) : 0;
}
