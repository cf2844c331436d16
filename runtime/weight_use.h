/* SPDX-License-Identifier: Apache-2.0 */
/* How the graph uses a weight, and what is known of it before it becomes sparse.
 *
 *   mest_weight_use    the layers that read a parameter
 *   mest_weight_plan   what becomes of it
 */
#ifndef MEST_RUNTIME_WEIGHT_USE_H
#define MEST_RUNTIME_WEIGHT_USE_H

#include "runtime/channels.h"
#include "runtime/model.h"

typedef struct mest_weight_use {
    int n_uses;
    bool sparse_possible;    /* every use has a sparse kernel */
    const mest_node *first;
    int first_input;
    mest_shape shape;        /* as its layer sees it: a stack of matrices may be one matrix */
} mest_weight_use;

/* The model's graph as layers see their weights: behind paths that passes take away. To be freed. */
mest_status mest_weights_graph(mest_model *m, mest_graph *g, mest_error *err);
void mest_weight_use_find(const mest_graph *g, int32_t param, mest_weight_use *u);
/* Why dense_layers "auto" keeps this parameter dense; NULL: it does not. */
const char *mest_weight_dense_by_default(const mest_graph *g, const mest_param *p, const mest_weight_use *u);
bool mest_is_layer(const mest_node *n);
/* Is the weight's first axis its input ([in, out] of MatMul, Gemm transB = 0, ConvTranspose)? */
bool mest_weight_inputs_first(const mest_weight_use *u);

/* Decided first for all, so that a distribution can look at all of them. */
typedef struct mest_weight_plan {
    mest_sparse *sparse;   /* empty yet; NULL: stays dense */
    double sparsity;
    bool given;            /* the sparsity is that of a rule, the ratios file or the scheme itself: no distribution changes it */
    bool counts;           /* a layer's weight: part of what a distribution shares */
    mest_channel_wish wish; /* structured: instead of sparse */
    mest_weight_use u;
} mest_weight_plan;

/* ---- sparsify_fill.c ---- */
/* Reading a page of the file maps the pages around it too, up to a window's bytes. What was touched is counted in such windows, not in what was read:
 * selection reads rows side by side, and samples. */
enum { MEST_PAGE_WINDOW = 64 << 10, MEST_PAGE_RECENT = MEST_FORGET_BYTES / MEST_PAGE_WINDOW };

typedef struct mest_pages_touched {
    int64_t n;                          /* windows since the file's pages were let go */
    uintptr_t window[MEST_PAGE_RECENT]; /* seen last among those with the same number modulo MEST_PAGE_RECENT; 0: none */
} mest_pages_touched;

/* Pattern and values of plan->sparse, which becomes the parameter's. */
mest_status mest_weight_fill(mest_model *m, int32_t index, mest_weight_plan *plan, const mest_sparsity *s, mest_pages_touched *pages, mest_error *err);
/* Dense parameters under from_scratch. */
mest_status mest_weight_draw_dense(mest_model *m, int32_t index, const mest_weight_use *u, uint64_t seed, mest_error *err);

#endif
