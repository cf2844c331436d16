/* SPDX-License-Identifier: Apache-2.0 */
/* Losses that a file may hold: NegativeLogLikelihoodLoss (log-probabilities) and SoftmaxCrossEntropyLoss (logits; second output: the
 * log-probabilities). X[N,C,...], labels [N,...], weights [C]?; reduction none, sum, mean (by the weights of the labels used);
 * ignore_index. ONNX since 12. A label outside [0, C) that is not ignore_index is an error that names it.
 * mest.NegativeLogLikelihoodLossGrad, mest.SoftmaxCrossEntropyLossGrad (X, labels, weights?, dloss?, dlog_prob?) -> dX. */
#include <inttypes.h>

#include "ops/elements.h"

typedef struct nll_params {
    int64_t ignore_index;
    int32_t ignore; /* the file gives one */
    const char *reduction;
} nll_params;

static bool is(const nll_params *p, const char *reduction) { return !strcmp(p->reduction ? p->reduction : "mean", reduction); }

static mest_status nll_infer(mest_infer *c)
{
    const nll_params *p = c->params;
    const mest_shape *x = &c->in[0]->shape, *t = &c->in[1]->shape;
    char tx[64], tt[64];
    bool fits = x->rank >= 2 && t->rank == x->rank - 1;
    for (int i = 0; fits && i < t->rank; i++)
        fits = t->dim[i] == x->dim[i + (i > 0)];
    MEST_INFER_CHECK(c, fits, "labels %s do not fit scores %s", mest_shape_text(t, tt, sizeof tt), mest_shape_text(x, tx, sizeof tx));
    MEST_INFER_CHECK(c, c->in[0]->dtype == MEST_F32 && mest_dtype_is_index(c->in[1]->dtype), "scores are %s, labels %s; float32 and integers are needed",
                     mest_dtype_name(c->in[0]->dtype), mest_dtype_name(c->in[1]->dtype));
    MEST_INFER_CHECK(c, is(p, "none") || is(p, "sum") || is(p, "mean"), "reduction \"%.30s\" is unknown", p->reduction);
    if (c->n_in > 2 && c->in[2])
        MEST_INFER_CHECK(c, c->in[2]->dtype == MEST_F32 && c->in[2]->shape.rank == 1 && c->in[2]->shape.dim[0] == x->dim[1],
                         "weights must be one number for each of %" PRId64 " classes", x->dim[1]);
    const mest_shape none = { .rank = 0 };
    MEST_TRY(mest_infer_set(c, 0, MEST_F32, is(p, "none") ? t : &none));
    return c->n_out > 1 ? mest_infer_set(c, 1, MEST_F32, x) : MEST_OK;
}

enum { PARTS = 64 };
typedef struct losses {
    const nll_params *p;
    int64_t rows, size, inner, per_part;
    bool softmax;
    const mest_real *x, *weight, *dloss, *dlog;
    mest_dtype itype;
    const void *labels;
    mest_real *loss, *log, *dx;
    double weights; /* of all labels used: what a mean divides by */
    double part[PARTS];
} losses;

/* -1: ignored */
static inline int64_t label_of(const losses *l, int64_t row)
{
    int64_t t = mest_int_at(l->itype, l->labels, row);
    return l->p->ignore && t == l->p->ignore_index ? -1 : t;
}
static inline double weight_of(const losses *l, int64_t t) { return t < 0 ? 0 : l->weight ? (double)l->weight[t] : 1; }

static mest_status begin(const mest_args *a, losses *l, bool softmax)
{
    const mest_shape *x = &a->in[0].type->shape;
    *l = (losses){ .p = a->params, .rows = (int64_t)a->in[1].count, .size = x->dim[1], .inner = mest_shape_span(x, 2, x->rank), .softmax = softmax,
                   .x = a->in[0].data, .weight = a->n_in > 2 ? a->in[2].data : NULL, .itype = a->in[1].type->dtype, .labels = a->in[1].data };
    l->per_part = (l->rows + PARTS - 1) / PARTS;
    for (int64_t r = 0; r < l->rows; r++) {
        int64_t t = mest_int_at(l->itype, l->labels, r);
        if (l->p->ignore && t == l->p->ignore_index)
            continue;
        if (t < 0 || t >= l->size)
            return mest_run_fail(a, MEST_E_DATA, "label %" PRId64 " of row %" PRId64 " is not one of %" PRId64 " classes", t, r, l->size);
        l->weights += weight_of(l, t);
    }
    return MEST_OK;
}

static void run(const mest_threads *threads, losses *l, void (*tile)(void *, size_t))
{
    if (l->rows > 0 && l->size > 0)
        mest_parallel(threads, (size_t)((l->rows + l->per_part - 1) / l->per_part), tile, l);
}

static inline double exponential(mest_real x) { return (double)REAL(exp)(x); }

/* log(sum of exp(x)) of a row */
static double log_sum(const losses *l, const mest_real *x)
{
    mest_real top = x[0];
    double sum = 0;
    for (int64_t k = 1; k < l->size; k++)
        top = x[k * l->inner] > top ? x[k * l->inner] : top;
    for (int64_t k = 0; k < l->size; k++)
        sum += exponential(x[k * l->inner] - top);
    return (double)top + log(sum);
}

#define FOR_ROWS(l, tile, r) for (int64_t r = (int64_t)(tile) * (l)->per_part; r < (l)->rows && r < (int64_t)((tile) + 1) * (l)->per_part; r++)

static void loss_tile(void *context, size_t tile)
{
    losses *l = context;
    double part = 0;
    FOR_ROWS(l, tile, r)
    {
        int64_t at = r / l->inner * l->size * l->inner + r % l->inner, t = label_of(l, r);
        const mest_real *x = l->x + at;
        double shift = l->softmax && (l->log || t >= 0) ? log_sum(l, x) : 0;
        double loss = t < 0 ? 0 : weight_of(l, t) * (shift - (double)x[t * l->inner]);
        part += loss;
        if (l->loss && is(l->p, "none"))
            l->loss[r] = (mest_real)loss;
        for (int64_t k = 0; l->log && k < l->size; k++)
            l->log[at + k * l->inner] = (mest_real)((double)x[k * l->inner] - shift);
    }
    l->part[tile] = part;
}

static mest_status forward(const mest_args *a, bool softmax)
{
    losses l;
    MEST_TRY(begin(a, &l, softmax));
    l.loss = a->out[0].data;
    l.log = a->n_out > 1 ? a->out[1].data : NULL;
    run(a->threads, &l, loss_tile);
    double sum = 0;
    for (int i = 0; i < PARTS; i++)
        sum += l.part[i];
    if (l.loss && !is(l.p, "none"))
        *l.loss = (mest_real)(is(l.p, "mean") ? sum / l.weights : sum);
    return MEST_OK;
}
static mest_status nll_forward(const mest_args *a) { return forward(a, false); }
static mest_status sce_forward(const mest_args *a) { return forward(a, true); }

static void grad_tile(void *context, size_t tile)
{
    const losses *l = context;
    FOR_ROWS(l, tile, r)
    {
        int64_t at = r / l->inner * l->size * l->inner + r % l->inner, t = label_of(l, r);
        const mest_real *x = l->x + at, *dlog = l->dlog ? l->dlog + at : NULL;
        mest_real *dx = l->dx + at;
        double g = 0, total = 0, shift = l->softmax ? log_sum(l, x) : 0;
        if (l->dloss && t >= 0)
            g = weight_of(l, t) * (double)l->dloss[is(l->p, "none") ? r : 0] / (is(l->p, "mean") ? l->weights : 1);
        for (int64_t k = 0; dlog && k < l->size; k++)
            total += (double)dlog[k * l->inner];
        for (int64_t k = 0; k < l->size; k++) {
            double d = k == t ? -g : 0;
            if (l->softmax) /* of the log-probabilities: what comes in, less its sum spread by the probabilities */
                d += (dlog ? (double)dlog[k * l->inner] : 0) + (g - total) * exp((double)x[k * l->inner] - shift);
            dx[k * l->inner] = (mest_real)d;
        }
    }
}

static mest_status grad(const mest_args *a, bool softmax)
{
    losses l;
    MEST_TRY(begin(a, &l, softmax));
    l.dloss = a->in[3].data;
    l.dlog = a->in[4].data;
    l.dx = a->out[0].data;
    run(a->threads, &l, grad_tile);
    return MEST_OK;
}
static mest_status nll_grad(const mest_args *a) { return grad(a, false); }
static mest_status sce_grad(const mest_args *a) { return grad(a, true); }

static mest_status vjp(mest_vjp *v, const char *op)
{
    mest_id in[5] = { mest_in(v, 0), mest_in(v, 1), mest_in(v, 2), mest_dout(v, 0), mest_dout(v, 1) };
    if (mest_wants(v, 2))
        return mest_fail(mest_vjp_err(v), MEST_E_UNSUPPORTED, "%s '%s': no gradient for the class weights; freeze them", mest_vjp_node(v)->op->name,
                         mest_vjp_node(v)->name);
    return in[3] == MEST_NONE && in[4] == MEST_NONE ? MEST_OK : mest_give_op(v, 0, op, NULL, 5, in);
}
static mest_status nll_vjp(mest_vjp *v) { return vjp(v, "mest.NegativeLogLikelihoodLossGrad"); }
static mest_status sce_vjp(mest_vjp *v) { return vjp(v, "mest.SoftmaxCrossEntropyLossGrad"); }

static const mest_attr nll_attrs[] = {
    { .name = "ignore_index", .kind = MEST_ATTR_INT, .offset = offsetof(nll_params, ignore_index), .given_used = true },
    { .name = "reduction", .kind = MEST_ATTR_STRING, .offset = offsetof(nll_params, reduction), .text = "mean" },
    { .name = NULL } };

#define LOSS(name_, outs_, c_name)                                                                                                          \
    { .domain = "", .name = name_, .limits = "gradients for class weights", .since = 12, .in_min = 2, .in_max = 3, .out_min = 1, .out_max = outs_, .flags = MEST_OP_ANY_TYPE,        \
      .attrs = nll_attrs, .params_bytes = sizeof(nll_params), .infer = nll_infer, .forward = c_name##_forward, .vjp = c_name##_vjp },       \
    { .domain = "mest", .name = "mest." name_ "Grad", .since = 1, .in_min = 5, .in_max = 5, .out_min = 1, .out_max = 1,                     \
      .params_bytes = sizeof(nll_params), .infer = mest_infer_same, .forward = c_name##_grad }

const mest_op mest_ops_nll[] = {
    LOSS("NegativeLogLikelihoodLoss", 1, nll),
    LOSS("SoftmaxCrossEntropyLoss", 2, sce),
    { .name = NULL },
};
