/* SPDX-License-Identifier: Apache-2.0 */
/* Losses, attached by name; each gives the mean over rows (a scalar), the loss of each row, and a gradient.
 *   mest.SoftmaxCrossEntropy  logits [outer..., C, inner...] with the classes on class_axis, targets int64 without that axis. Row loss:
 *                             -sum_c q_c log p_c, q = (1 - eps) * onehot + eps / C (PyTorch's label smoothing); correct: the first largest
 *                             logit is the target's. A row whose target is ignore_index has loss 0, no gradient, MEST_ROW_IGNORED for correct,
 *                             and means are over the others; 0 where there are none. Any other target outside [0, C) is an error that names its row
 *   mest.MSELoss              (y - t)^2, mean over elements; row loss: mean over the elements of a sample
 *   mest.BCELoss              y are logits: max(y, 0) - y t + log(1 + exp(-|y|)), means as above
 * Sums are in double and in an order that depends on the shape only. */
#include "ops/loss.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>

enum { PARTS = 64 }; /* most pieces a loss is summed in */

/* ---- softmax cross-entropy ---- */
typedef struct classes {
    int64_t rows, counted, size, inner; /* counted: rows that are not ignored */
    bool ignores;
    int64_t ignore;
    double smoothing, scale; /* scale: of the logits */
    const mest_real *x;
    const int64_t *target;
    mest_real *row_loss, *dx;
    uint8_t *correct;
    double dloss, part[PARTS];
    int64_t per_part, bad[PARTS];
} classes;

static mest_status ce_infer(mest_infer *c)
{
    const mest_loss_params *p = c->params;
    const mest_shape *x = &c->in[0]->shape, *t = &c->in[1]->shape;
    int axis = mest_axis(p->class_axis, x->rank);
    char tx[64], tt[64];
    MEST_INFER_CHECK(c, axis >= 0, "class axis %" PRId64 " of logits of rank %d", p->class_axis, (int)x->rank);
    bool fits = t->rank == x->rank - 1;
    for (int i = 0; fits && i < t->rank; i++)
        fits = t->dim[i] == x->dim[i < axis ? i : i + 1];
    MEST_INFER_CHECK(c, fits, "targets %s are not logits %s without class axis %d", mest_shape_text(t, tt, sizeof tt), mest_shape_text(x, tx, sizeof tx), axis);
    MEST_INFER_CHECK(c, c->in[1]->dtype == MEST_I64, "targets must be int64 class numbers");
    MEST_INFER_CHECK(c, p->label_smoothing >= 0 && p->label_smoothing <= 1, "label smoothing %g is not in [0, 1]", p->label_smoothing);
    return MEST_OK;
}

static mest_status ce_loss_infer(mest_infer *c)
{
    MEST_TRY(ce_infer(c));
    int64_t rows = mest_shape_span(&c->in[1]->shape, 0, c->in[1]->shape.rank);
    for (int i = 0; i < c->n_out; i++) {
        c->out[i].dtype = i == 2 ? MEST_BOOL : c->in[0]->dtype;
        c->out[i].shape = i == 0 ? (mest_shape){ .rank = 0 } : (mest_shape){ .rank = 1, .dim = { rows } };
    }
    return MEST_OK;
}

static mest_status ce_grad_infer(mest_infer *c)
{
    MEST_TRY(ce_infer(c));
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = c->in[0]->shape;
    return MEST_OK;
}

static classes classes_of(const mest_args *a)
{
    const mest_ce_params *ce = a->params;
    const mest_loss_params *p = &ce->loss;
    const mest_shape *x = &a->in[0].type->shape;
    int axis = mest_axis(p->class_axis, x->rank);
    classes c = { .rows = (int64_t)a->in[1].count, .size = x->dim[axis], .inner = mest_shape_span(x, axis + 1, x->rank),
                  .smoothing = p->label_smoothing, .scale = a->run && a->run->logit_scale > 0 ? a->run->logit_scale : 1, .x = a->in[0].data, .target = a->in[1].data };
    c.per_part = (c.rows + PARTS - 1) / PARTS;
    c.ignores = ce->ignores;
    c.ignore = ce->ignore_index;
    for (int64_t r = 0; r < c.rows; r++)
        c.counted += !(c.ignores && c.target[r] == c.ignore);
    return c;
}

/* One row: largest logit, where it is first, sum of exp(x - top) and of x - top. */
static void row_sums(const classes *c, const mest_real *x, mest_real *top, int64_t *best, double *sum, double *total)
{
    *top = x[0];
    *best = 0;
    for (int64_t k = 1; k < c->size; k++)
        if (x[k * c->inner] > *top) {
            *top = x[k * c->inner];
            *best = k;
        }
    *sum = *total = 0;
    for (int64_t k = 0; k < c->size; k++) {
        double d = c->scale * (double)(x[k * c->inner] - *top);
        *sum += exp(d);
        *total += d;
    }
}

static void ce_tile(void *context, size_t tile)
{
    classes *c = context;
    double part = 0;
    for (int64_t r = (int64_t)tile * c->per_part; r < c->rows && r < (int64_t)(tile + 1) * c->per_part; r++) {
        int64_t offset = r / c->inner * c->size * c->inner + r % c->inner, best, t = c->target[r];
        mest_real top;
        double sum, total;
        if (c->ignores && t == c->ignore) {
            if (c->row_loss)
                c->row_loss[r] = 0;
            if (c->correct)
                c->correct[r] = MEST_ROW_IGNORED;
            continue;
        }
        if (t < 0 || t >= c->size) {
            c->bad[tile] = r;
            return;
        }
        row_sums(c, c->x + offset, &top, &best, &sum, &total);
        double lse = log(sum), d = c->scale * (double)(c->x[offset + t * c->inner] - top);
        double loss = (1 - c->smoothing) * (lse - d);
        if (c->smoothing > 0)
            loss += c->smoothing * (lse - total / (double)c->size);
        part += loss;
        if (c->row_loss)
            c->row_loss[r] = (mest_real)loss;
        if (c->correct)
            c->correct[r] = best == t;
    }
    c->part[tile] = part;
}

static void ce_grad_tile(void *context, size_t tile)
{
    classes *c = context;
    double even = c->smoothing / (double)c->size;
    for (int64_t r = (int64_t)tile * c->per_part; r < c->rows && r < (int64_t)(tile + 1) * c->per_part; r++) {
        int64_t offset = r / c->inner * c->size * c->inner + r % c->inner, best, t = c->target[r];
        const mest_real *x = c->x + offset;
        mest_real top, *dx = c->dx + offset;
        double sum, total;
        if (c->ignores && t == c->ignore) {
            for (int64_t k = 0; k < c->size; k++)
                dx[k * c->inner] = 0;
            continue;
        }
        if (t < 0 || t >= c->size) {
            c->bad[tile] = r;
            return;
        }
        row_sums(c, x, &top, &best, &sum, &total);
        for (int64_t k = 0; k < c->size; k++) {
            double q = even + (k == t ? 1 - c->smoothing : 0);
            dx[k * c->inner] = (mest_real)(c->dloss * (exp(c->scale * (double)(x[k * c->inner] - top)) / sum - q));
        }
    }
}

static mest_status ce_run(const mest_args *a, classes *c, void (*tile)(void *, size_t), int64_t *parts)
{
    *parts = c->per_part ? (c->rows + c->per_part - 1) / c->per_part : 0;
    if (c->rows == 0 || c->size == 0)
        return mest_run_fail(a, MEST_E_DATA, "no rows or no classes");
    for (int i = 0; i < PARTS; i++)
        c->bad[i] = -1;
    mest_parallel(a->threads, (size_t)*parts, tile, c);
    for (int64_t i = 0; i < *parts; i++)
        if (c->bad[i] >= 0)
            return mest_run_fail(a, MEST_E_DATA, "target %" PRId64 " of row %" PRId64 " is not one of %" PRId64 " classes", c->target[c->bad[i]],
                                 c->bad[i], c->size);
    return MEST_OK;
}

static mest_status ce_forward(const mest_args *a)
{
    classes c = classes_of(a);
    int64_t parts;
    double loss = 0;
    c.row_loss = a->n_out > 1 ? a->out[1].data : NULL;
    c.correct = a->n_out > 2 ? a->out[2].data : NULL;
    MEST_TRY(ce_run(a, &c, ce_tile, &parts));
    for (int64_t i = 0; i < parts; i++)
        loss += c.part[i];
    if (a->out[0].data)
        *(mest_real *)a->out[0].data = (mest_real)(c.counted ? loss / (double)c.counted : 0);
    return MEST_OK;
}

static mest_status ce_grad_forward(const mest_args *a)
{
    classes c = classes_of(a);
    int64_t parts;
    c.dloss = c.scale * (double)*(const mest_real *)a->in[2].data / (double)(c.counted ? c.counted : 1);
    c.dx = a->out[0].data;
    return ce_run(a, &c, ce_grad_tile, &parts);
}

static mest_status give_loss_grad(mest_vjp *v, const char *op)
{
    mest_id in[3] = { mest_in(v, 0), mest_in(v, 1), mest_dout(v, 0) };
    if (mest_dout(v, 1) != MEST_NONE)
        return mest_fail(mest_vjp_err(v), MEST_E_UNSUPPORTED, "%s: no gradient through the losses of single rows", mest_vjp_node(v)->name);
    return in[2] == MEST_NONE ? MEST_OK : mest_give_op(v, 0, op, NULL, 3, in);
}

static mest_status ce_vjp(mest_vjp *v) { return give_loss_grad(v, "mest.SoftmaxCrossEntropyGrad"); }

/* ---- losses of single elements ---- */
typedef struct elements {
    int64_t rows, size, per_part;
    bool logits;
    const mest_real *y, *t;
    mest_real *row_loss, *dy;
    double scale, part[PARTS];
} elements;

static mest_status pair_infer(mest_infer *c)
{
    const mest_shape *y = &c->in[0]->shape, *t = &c->in[1]->shape;
    char ty[64], tt[64];
    bool fits = mest_shape_span(y, 0, y->rank) == mest_shape_span(t, 0, t->rank) && (y->rank == 0 || t->rank == 0 || y->dim[0] == t->dim[0]);
    MEST_INFER_CHECK(c, fits, "targets %s do not match outputs %s", mest_shape_text(t, tt, sizeof tt), mest_shape_text(y, ty, sizeof ty));
    MEST_INFER_CHECK(c, c->in[1]->dtype == c->in[0]->dtype, "targets must be float");
    return MEST_OK;
}

static mest_status pair_loss_infer(mest_infer *c)
{
    MEST_TRY(pair_infer(c));
    const mest_shape *y = &c->in[0]->shape;
    for (int i = 0; i < c->n_out; i++) {
        c->out[i].dtype = c->in[0]->dtype;
        c->out[i].shape = i == 0 ? (mest_shape){ .rank = 0 } : (mest_shape){ .rank = 1, .dim = { y->rank ? y->dim[0] : 1 } };
    }
    return MEST_OK;
}

static mest_status pair_grad_infer(mest_infer *c)
{
    MEST_TRY(pair_infer(c));
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = c->in[0]->shape;
    return MEST_OK;
}

static elements elements_of(const mest_args *a, bool logits)
{
    const mest_shape *y = &a->in[0].type->shape;
    elements e = { .rows = y->rank ? y->dim[0] : 1, .size = y->rank ? mest_shape_span(y, 1, y->rank) : 1, .logits = logits, .y = a->in[0].data,
                   .t = a->in[1].data };
    e.per_part = (e.rows + PARTS - 1) / PARTS;
    return e;
}

static void pair_tile(void *context, size_t tile)
{
    elements *e = context;
    double part = 0;
    for (int64_t r = (int64_t)tile * e->per_part; r < e->rows && r < (int64_t)(tile + 1) * e->per_part; r++) {
        double row = 0;
        for (int64_t i = r * e->size; i < (r + 1) * e->size; i++) {
            double y = (double)e->y[i], t = (double)e->t[i];
            row += e->logits ? (y > 0 ? y : 0) - y * t + log1p(exp(-fabs(y))) : (y - t) * (y - t);
        }
        part += row;
        if (e->row_loss)
            e->row_loss[r] = (mest_real)(row / (double)e->size);
    }
    e->part[tile] = part;
}

static void pair_grad_tile(void *context, size_t tile)
{
    elements *e = context;
    int64_t last = (int64_t)(tile + 1) * e->per_part;
    last = last < e->rows ? last : e->rows;
    for (int64_t i = (int64_t)tile * e->per_part * e->size; i < last * e->size; i++) {
        double y = (double)e->y[i], t = (double)e->t[i];
        if (e->logits) {
            double z = exp(-fabs(y)), sigmoid = y >= 0 ? 1 / (1 + z) : z / (1 + z);
            e->dy[i] = (mest_real)(e->scale * (sigmoid - t));
        } else {
            e->dy[i] = (mest_real)(e->scale * 2 * (y - t));
        }
    }
}

static mest_status pair_run(const mest_args *a, bool logits, bool grad)
{
    elements e = elements_of(a, logits);
    if (e.rows * e.size == 0)
        return mest_run_fail(a, MEST_E_DATA, "no elements");
    int64_t parts = (e.rows + e.per_part - 1) / e.per_part;
    double count = (double)(e.rows * e.size), loss = 0;
    if (grad) {
        e.scale = (double)*(const mest_real *)a->in[2].data / count;
        e.dy = a->out[0].data;
        mest_parallel(a->threads, (size_t)parts, pair_grad_tile, &e);
        return MEST_OK;
    }
    e.row_loss = a->n_out > 1 ? a->out[1].data : NULL;
    mest_parallel(a->threads, (size_t)parts, pair_tile, &e);
    for (int64_t i = 0; i < parts; i++)
        loss += e.part[i];
    if (a->out[0].data)
        *(mest_real *)a->out[0].data = (mest_real)(loss / count);
    return MEST_OK;
}

static mest_status mse_forward(const mest_args *a) { return pair_run(a, false, false); }
static mest_status mse_grad_forward(const mest_args *a) { return pair_run(a, false, true); }
static mest_status bce_forward(const mest_args *a) { return pair_run(a, true, false); }
static mest_status bce_grad_forward(const mest_args *a) { return pair_run(a, true, true); }
static mest_status mse_vjp(mest_vjp *v) { return give_loss_grad(v, "mest.MSELossGrad"); }
static mest_status bce_vjp(mest_vjp *v) { return give_loss_grad(v, "mest.BCELossGrad"); }

#define LOSS(name_, type_, outs_, infer_, forward_, vjp_)                                                                             \
    { .domain = "mest", .name = name_, .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = outs_,                   \
      .params_bytes = sizeof(type_), .infer = infer_, .forward = forward_, .vjp = vjp_ }
#define LOSS_GRAD(name_, type_, infer_, forward_)                                                                                     \
    { .domain = "mest", .name = name_, .since = 1, .in_min = 3, .in_max = 3, .out_min = 1, .out_max = 1,                       \
      .params_bytes = sizeof(type_), .infer = infer_, .forward = forward_ }

const mest_op mest_ops_loss[] = {
    LOSS("mest.SoftmaxCrossEntropy", mest_ce_params, 3, ce_loss_infer, ce_forward, ce_vjp),
    LOSS_GRAD("mest.SoftmaxCrossEntropyGrad", mest_ce_params, ce_grad_infer, ce_grad_forward),
    LOSS("mest.MSELoss", mest_loss_params, 2, pair_loss_infer, mse_forward, mse_vjp),
    LOSS_GRAD("mest.MSELossGrad", mest_loss_params, pair_grad_infer, mse_grad_forward),
    LOSS("mest.BCELoss", mest_loss_params, 2, pair_loss_infer, bce_forward, bce_vjp),
    LOSS_GRAD("mest.BCELossGrad", mest_loss_params, pair_grad_infer, bce_grad_forward),
    { .name = NULL },
};
