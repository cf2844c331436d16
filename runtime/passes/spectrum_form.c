/* SPDX-License-Identifier: Apache-2.0 */
/* Fourier transforms are products with a constant table: DFT a MatMul along its axis, STFT a convolution along the signal, whose stride is the step
 * from frame to frame. Kernels and gradients are those of MatMul and Conv. See ops/composed.c. */
#include <math.h>

#include "ops/composed.h"
#include "ops/elements.h"
#include "ops/nn.h"
#include "runtime/compose.h"
#include "runtime/survey.h"

/* Params of a Transpose that brings axis `from` to the place `to`, the others in their order. */
static mest_transpose_params *moved(mest_pass_args *a, int rank, int from, int to)
{
    mest_transpose_params *p = mest_pass_alloc(a, sizeof *p);
    int64_t *perm = mest_pass_alloc(a, (size_t)rank * sizeof *perm);
    if (!p || !perm)
        return NULL;
    for (int i = 0, next = 0; i < rank; i++) {
        next += next == from;
        perm[i] = i == to ? from : next++;
    }
    p->perm = (mest_ints){rank, perm};
    return p;
}

/* cos and sin of 2 pi k / length, exact at the quarters. */
static double turn(int64_t k, int64_t length, bool sine)
{
    const int64_t at = k % length;
    if (4 * at % length == 0)
        return (double)(sine ? (int[]){0, 1, 0, -1} : (int[]){1, 0, -1, 0})[4 * at / length];
    const double angle = 2 * 3.14159265358979323846 * (double)at / (double)length;
    return sine ? sin(angle) : cos(angle);
}

static mest_status lower_dft(mest_pass_args *a, mest_id at, const mest_spectrum *s)
{
    const mest_node *n = &a->graph->nodes[at];
    const mest_shape x = a->graph->values[n->in[0]].type.shape, y = a->graph->values[n->out[0]].type.shape;
    const int last = x.rank - 1, place = last - 1;
    mest_id v = n->in[0], product[2];
    mest_real *w = mest_compose_table(a, &(mest_shape){.rank = 2, .dim = {s->n * s->parts, 2 * s->bins}}, &product[1]);
    if (!w)
        return MEST_E_NOMEM;
    const double factor = s->inverse ? 1 / (double)s->length : 1, sign = s->inverse ? -1 : 1;
    for (int64_t t = 0; t < s->n && t < s->length; t++)
        for (int64_t f = 0; f < s->bins; f++) {
            const double c = factor * turn(t * f, s->length, false), d = factor * sign * turn(t * f, s->length, true);
            mest_real *real = w + t * s->parts * 2 * s->bins + 2 * f, *imaginary = real + 2 * s->bins;
            real[0] = (mest_real)c; /* of the result's real part, then of its imaginary one */
            real[1] = (mest_real)-d;
            if (s->parts == 2) {
                imaginary[0] = (mest_real)d;
                imaginary[1] = (mest_real)c;
            }
        }
    mest_shape flat = {.rank = last}, whole = {.rank = x.rank};
    for (int i = 0, next = 0; i < place; i++) {
        next += next == s->axis;
        flat.dim[i] = whole.dim[i] = x.dim[next++];
    }
    flat.dim[place] = s->n * s->parts;
    whole.dim[place] = s->bins;
    whole.dim[last] = 2;
    if (s->axis != place) {
        mest_transpose_params *p = moved(a, x.rank, s->axis, place);
        if (!p)
            return MEST_E_NOMEM;
        MEST_TRY(mest_insert(a, at, "Transpose", p, 1, &v, &v));
    }
    MEST_TRY(mest_compose_reshape(a, at, &flat, &v));
    product[0] = v;
    MEST_TRY(mest_insert(a, at, "MatMul", NULL, 2, product, &v));
    if (s->axis == place) {
        mest_shape_params *p = mest_pass_alloc(a, sizeof *p);
        if (!p)
            return MEST_E_NOMEM;
        p->shape = y;
        return mest_rewrite(a, at, "mest.Reshape", p, 1, &v, 1, true);
    }
    MEST_TRY(mest_compose_reshape(a, at, &whole, &v));
    mest_transpose_params *back = moved(a, x.rank, place, s->axis);
    return back ? mest_rewrite(a, at, "Transpose", back, 1, &v, 1, true) : MEST_E_NOMEM;
}

static mest_status lower_stft(mest_pass_args *a, mest_id at, const mest_spectrum *s)
{
    const mest_node *n = &a->graph->nodes[at];
    const mest_shape y = a->graph->values[n->out[0]].type.shape;
    mest_id v = n->in[0], conv[2];
    mest_real *w = mest_compose_table(a, &(mest_shape){.rank = 3, .dim = {2 * s->bins, 1, s->length}}, &conv[1]);
    mest_conv_params *p = mest_pass_alloc(a, sizeof *p);
    mest_shape_params *whole = mest_pass_alloc(a, sizeof *whole);
    mest_transpose_params *turned = moved(a, 3, 1, 2);
    int64_t *step = mest_pass_alloc(a, sizeof *step);
    if (!w || !p || !whole || !turned || !step)
        return MEST_E_NOMEM;
    for (int64_t f = 0; f < s->bins; f++)
        for (int64_t t = 0; t < s->length; t++) {
            const double window = s->window ? (double)s->window[t] : 1;
            w[2 * f * s->length + t] = (mest_real)(window * turn(t * f, s->length, false));
            w[(2 * f + 1) * s->length + t] = (mest_real)(-window * turn(t * f, s->length, true));
        }
    *step = s->step;
    *p = (mest_conv_params){.strides = {1, step}, .group = 1};
    whole->shape = y;
    MEST_TRY(mest_compose_reshape(a, at, &(mest_shape){.rank = 3, .dim = {y.dim[0], 1, s->n}}, &v));
    conv[0] = v;
    MEST_TRY(mest_insert(a, at, "Conv", p, 2, conv, &v));
    MEST_TRY(mest_insert(a, at, "Transpose", turned, 1, &v, &v));
    return mest_rewrite(a, at, "mest.Reshape", whole, 1, &v, 1, true);
}

static mest_status lower(mest_pass_args *a, mest_id at, bool stft)
{
    const mest_graph *g = a->graph;
    const mest_node *n = &g->nodes[at];
    const mest_type *type[4] = {NULL};
    const void *data[4] = {NULL};
    mest_spectrum s;
    bool unsupported;
    for (int i = 0; i < n->n_in && i < 4; i++)
        if (n->in[i] != MEST_NONE) {
            type[i] = &g->values[n->in[i]].type;
            data[i] = g->values[n->in[i]].kind == MEST_VALUE_CONST ? g->values[n->in[i]].data : NULL;
        }
    const char *why = mest_spectrum_of(n, type, data, &s, &unsupported);
    MEST_CHECK(!why, a->err, MEST_E_INTERNAL, "%s '%s': %s", n->op->name, n->name, why);
    return stft ? lower_stft(a, at, &s) : lower_dft(a, at, &s);
}

static mest_status run(mest_pass_args *a)
{
    const mest_id n = a->graph->n_nodes;
    for (mest_id i = 0; i < n; i++) {
        const bool stft = mest_is_op(&a->graph->nodes[i], "STFT");
        if (stft || mest_is_op(&a->graph->nodes[i], "DFT"))
            MEST_TRY(mest_survey_forward(a->graph, i, lower(a, i, stft), a->err));
    }
    return MEST_OK;
}

const mest_pass mest_pass_spectrum_form = {"spectrum_form", "Fourier transforms are products with a table of cosines and sines", MEST_PASS_FORM, MEST_FOR_ALL,
                                           true, run};
