/* SPDX-License-Identifier: Apache-2.0 */
/* LpNormalization, MeanVarianceNormalization and CenterCropPad in other operators, see ops/composed.c; LayerNormalization and RMSNormalization
 * whose weights broadcast in a way that their kernels do not know: the normalisation alone, then Mul and Add. */
#include "ops/composed.h"
#include "ops/elements.h"
#include "ops/nn.h"
#include "runtime/compose.h"
#include "runtime/survey.h"

/* op(x) over constant axes, which stay as 1. */
static mest_status reduce(mest_pass_args *a, mest_id at, const char *op, mest_id x, mest_id axes, mest_id *out)
{
    mest_reduce_params *p = mest_pass_alloc(a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    p->keepdims = 1;
    return mest_insert(a, at, op, p, 2, (mest_id[]){x, axes}, out);
}

/* x / max(norm, tiny): zeros stay zeros. */
static mest_status lp_norm(mest_pass_args *a, mest_id at)
{
    const mest_node *n = &a->graph->nodes[at];
    const mest_lp_norm_params *p = n->params;
    const int64_t axis = mest_axis(p->axis, a->graph->values[n->in[0]].type.shape.rank);
    const char *op = p->p == 1 ? "ReduceL1" : "ReduceL2";
    mest_id x = n->in[0], axes, tiny, norm;
    MEST_TRY(mest_compose_ints(a, 1, &axis, &axes));
    MEST_TRY(mest_compose_scalar(a, 1e-30, &tiny));
    MEST_TRY(reduce(a, at, op, x, axes, &norm));
    MEST_TRY(mest_insert(a, at, "Max", NULL, 2, (mest_id[]){norm, tiny}, &norm));
    return mest_rewrite(a, at, "Div", NULL, 2, (mest_id[]){x, norm}, 1, true);
}

static mest_status mean_variance(mest_pass_args *a, mest_id at)
{
    const mest_node *n = &a->graph->nodes[at];
    const mest_axes_params *p = n->params;
    static const int64_t usual[] = {0, 2, 3};
    mest_id x = n->in[0], axes, tiny, mean, centred, variance;
    MEST_TRY(mest_compose_ints(a, p->axes.n ? p->axes.n : 3, p->axes.n ? p->axes.v : usual, &axes));
    MEST_TRY(mest_compose_scalar(a, 1e-9, &tiny));
    MEST_TRY(reduce(a, at, "ReduceMean", x, axes, &mean));
    MEST_TRY(mest_insert(a, at, "Sub", NULL, 2, (mest_id[]){x, mean}, &centred));
    MEST_TRY(mest_insert(a, at, "Mul", NULL, 2, (mest_id[]){centred, centred}, &variance));
    MEST_TRY(reduce(a, at, "ReduceMean", variance, axes, &variance));
    MEST_TRY(mest_insert(a, at, "Sqrt", NULL, 1, &variance, &variance));
    MEST_TRY(mest_insert(a, at, "Add", NULL, 2, (mest_id[]){variance, tiny}, &variance));
    return mest_rewrite(a, at, "Div", NULL, 2, (mest_id[]){centred, variance}, 1, true);
}

/* A Slice where an axis shrinks, then a Pad where one grows; an odd number leaves the larger half behind. */
static mest_status crop(mest_pass_args *a, mest_id at)
{
    const mest_node *n = &a->graph->nodes[at];
    const mest_shape x = a->graph->values[n->in[0]].type.shape, y = a->graph->values[n->out[0]].type.shape;
    int64_t start[MEST_MAX_RANK], end[MEST_MAX_RANK], axis[MEST_MAX_RANK], pads[2 * MEST_MAX_RANK];
    for (int i = 0; i < x.rank; i++) {
        const int64_t less = x.dim[i] - y.dim[i];
        axis[i] = i;
        start[i] = less > 0 ? less / 2 : 0;
        end[i] = less > 0 ? start[i] + y.dim[i] : x.dim[i];
        pads[i] = less < 0 ? -less / 2 : 0;
        pads[i + x.rank] = less < 0 ? -less - pads[i] : 0;
    }
    mest_id in[4] = {n->in[0]}, pad[2];
    MEST_TRY(mest_compose_ints(a, x.rank, start, &in[1]));
    MEST_TRY(mest_compose_ints(a, x.rank, end, &in[2]));
    MEST_TRY(mest_compose_ints(a, x.rank, axis, &in[3]));
    MEST_TRY(mest_compose_ints(a, 2 * x.rank, pads, &pad[1]));
    const char **mode = mest_pass_alloc(a, sizeof *mode); /* params of Pad: its mode alone */
    if (!mode)
        return MEST_E_NOMEM;
    *mode = "constant";
    MEST_TRY(mest_insert(a, at, "Slice", NULL, 4, in, &pad[0]));
    return mest_rewrite(a, at, "Pad", mode, 2, pad, 1, true);
}

/* Weights that its kernels know are left alone. */
static mest_status norm(mest_pass_args *a, mest_id at)
{
    mest_graph *g = a->graph;
    const mest_node *n = &g->nodes[at];
    const mest_norm_params *p = n->params;
    const bool rms = n->op->name[0] == 'R';
    const mest_shape x = g->values[n->in[0]].type.shape;
    const int axis = mest_axis(p->axis, x.rank);
    const mest_id in[3] = {n->in[0], n->in[1], n->n_in > 2 ? n->in[2] : MEST_NONE};
    bool known = true;
    for (int i = 1; i < 3; i++) {
        const mest_shape *s = in[i] == MEST_NONE ? NULL : &g->values[in[i]].type.shape;
        known &= !s || mest_norm_row_shaped(s, &x, axis) || (rms && mest_shape_span(s, 0, s->rank) == 1);
    }
    if (known)
        return MEST_OK;
    for (int i = 1; i < n->n_out; i++)
        MEST_CHECK(n->out[i] == MEST_NONE || a->uses[n->out[i]] == 0, a->err, MEST_E_UNSUPPORTED, "%s '%s': output %d with weights that broadcast", n->op->name, n->name, i);
    mest_shape row = {.rank = x.rank - axis};
    for (int i = axis; i < x.rank; i++)
        row.dim[i - axis] = x.dim[i];
    mest_id unit;
    mest_real *ones = mest_compose_table(a, &row, &unit);
    for (int64_t i = 0, n_ones = mest_shape_span(&row, 0, row.rank); ones && i < n_ones; i++)
        ones[i] = 1;
    if (!ones)
        return MEST_E_NOMEM;
    mest_id v;
    MEST_TRY(mest_insert(a, at, rms ? "RMSNormalization" : "LayerNormalization", p, 2, (mest_id[]){in[0], unit}, &v));
    if (in[2] == MEST_NONE)
        return mest_rewrite(a, at, "Mul", NULL, 2, (mest_id[]){v, in[1]}, 1, true);
    MEST_TRY(mest_insert(a, at, "Mul", NULL, 2, (mest_id[]){v, in[1]}, &v));
    return mest_rewrite(a, at, "Add", NULL, 2, (mest_id[]){v, in[2]}, 1, true);
}

static mest_status run(mest_pass_args *a)
{
    static const struct { const char *op; mest_status (*lower)(mest_pass_args *a, mest_id at); } ops[] = {
        {"LpNormalization", lp_norm}, {"MeanVarianceNormalization", mean_variance}, {"CenterCropPad", crop},
        {"LayerNormalization", norm}, {"RMSNormalization", norm}};
    const mest_id n = a->graph->n_nodes;
    for (mest_id i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof ops / sizeof *ops; k++)
            if (mest_is_op(&a->graph->nodes[i], ops[k].op)) {
                MEST_TRY(mest_survey_forward(a->graph, i, ops[k].lower(a, i), a->err));
                break;
            }
    return MEST_OK;
}

const mest_pass mest_pass_composed_form = {"composed_form", "LpNormalization, MeanVarianceNormalization, CenterCropPad, normalisations with weights that broadcast in other operators", MEST_PASS_FORM,
                                           MEST_FOR_ALL, true, run};
