/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/scheme_auto.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/nn.h"
#include "ops/convolve.h"
#include "runtime/cpu.h"
#include "runtime/match.h"
#include "runtime/program.h"

enum { SAMPLES = 16, ROWS = 64, IMAGE = 8, N_BLOCKS = 4, RULED_OUT = 4 };
#define TOLERANCE 1.1

static const char *const blocks[N_BLOCKS] = {"csr", "block4", "block8", "block16"}; /* ascending */

typedef struct problem { /* a layer as kernels are asked about it */
    bool conv;
    const void *params;
    mest_gemm_params gemm;
    mest_shape x, y;
} problem;

/* Operands of the layer: images as large as the graph says, small ones where it does not. False: no times for this operator. */
static bool describe(const mest_auto_layer *l, problem *p)
{
    memset(p, 0, sizeof *p);
    p->conv = mest_is_op(l->node, "Conv");
    if (p->conv) {
        const mest_shape *in = &l->graph->values[l->node->in[0]].type.shape;
        const mest_conv_params *params = l->node->params;
        if (l->weight->rank != 4)
            return false;
        p->params = params;
        p->x = (mest_shape){.rank = 4, .dim = {SAMPLES, l->weight->dim[1] * params->group, IMAGE, IMAGE}};
        for (int i = 2; i < 4; i++) {
            if (in->rank == 4 && in->dim[i] > 0)
                p->x.dim[i] = in->dim[i];
            if (p->x.dim[i] < l->weight->dim[i])
                p->x.dim[i] = l->weight->dim[i];
        }
        mest_conv_geometry g;
        char why[160];
        if (!mest_conv_geometry_of(params, &p->x, l->weight, &g, why, sizeof why))
            return false;
        p->y = (mest_shape){.rank = 4, .dim = {SAMPLES, g.m, g.p, g.q}};
        return true;
    }
    if (l->weight->rank != 2 || (!mest_is_op(l->node, "Gemm") && !mest_is_op(l->node, "MatMul") && !mest_is_op(l->node, "mest.Linear")))
        return false;
    p->gemm = (mest_gemm_params){.alpha = 1, .beta = 1, .trans_b = !l->inputs_first};
    p->params = &p->gemm;
    p->x = (mest_shape){.rank = 2, .dim = {ROWS, l->weight->dim[l->inputs_first ? 0 : 1]}};
    p->y = (mest_shape){.rank = 2, .dim = {ROWS, l->weight->dim[l->inputs_first ? 1 : 0]}};
    return true;
}

/* The fastest kernel of one pass in either layout that sparse layers train in. */
static double pass_seconds(mest_model *m, mest_tuner *tuner, const problem *p, const mest_sparse *s, bool backward, bool *missing)
{
    const char *name = p->conv ? (backward ? "mest.ConvGrad" : "Conv") : backward ? "mest.GemmGrad" : "Gemm";
    const mest_op *op = mest_op_find(backward ? "mest" : "", name, 1000);
    const mest_node node = {.name = "scheme", .op = op};
    const int dy = p->conv ? 2 : 3;
    const unsigned cpu = mest_cpu_features();
    double modelled[2] = {MEST_NO_KERNEL, MEST_NO_KERNEL}, best = MEST_NO_KERNEL;
    for (int turn = 0; op && turn < 4; turn++) { /* both layouts by the models, then by measurement where they do not rule it out */
        const int plain = turn % 2;
        const double least = modelled[0] < modelled[1] ? modelled[0] : modelled[1];
        if (turn >= 2 && (!tuner || modelled[plain] > RULED_OUT * least))
            continue;
        mest_type x = {.dtype = MEST_F32, .shape = p->x}, y = {.dtype = MEST_F32, .shape = p->y}, w = {.dtype = MEST_F32, .shape = s->shape, .layout = {.kind = MEST_SPARSE}};
        if (!plain) {
            x.layout = y.layout = (mest_layout){.kind = MEST_PIXEL, .v = (uint8_t)mest_cpu_lanes(cpu)};
            x.layout.slots = mest_default_slots(p->x.dim[1], x.layout.v);
            y.layout.slots = mest_default_slots(p->y.dim[1], y.layout.v);
        }
        const mest_type *in[4] = {&x, &w, NULL, NULL}, *out[3] = {backward ? &x : &y, backward ? &w : NULL, NULL};
        if (backward)
            in[dy] = &y;
        const mest_sparse *sparse[4] = {NULL, s, NULL, NULL};
        const void *data[4] = {NULL, NULL, NULL, NULL};
        const bool fixed[4] = {false, false, false, false};
        mest_measure measure = {.tuner = tuner, .below = modelled[plain]};
        const mest_kernel_query q = {.node = &node, .params = p->params, .n_in = backward ? dy + 1 : 2, .n_out = backward ? 3 : 1, .in = in, .out = out, .sparse = sparse,
                                     .in_data = data, .in_fixed = fixed, .learns = true, .cpu = cpu, .heap = &m->heap, .measure = turn >= 2 ? &measure : NULL};
        double seconds;
        const char *why = "";
        if (!mest_fastest_kernel(&q, &seconds, &why))
            continue;
        if (turn < 2)
            modelled[plain] = seconds;
        else
            *missing |= measure.missing;
        if (turn >= 2 || !tuner)
            best = seconds < best ? seconds : best;
    }
    return best;
}

/* Seconds of a step with this scheme; MEST_NO_KERNEL: it is not for this weight. */
static mest_status step_seconds(mest_model *m, mest_tuner *tuner, const mest_auto_layer *l, const problem *p, const char *scheme, double *seconds, bool *missing,
                                mest_error *err)
{
    const mest_sparse_spec spec = {.scheme = scheme, .shape = l->weight, .inputs_first = l->inputs_first, .patterns = l->patterns};
    mest_sparse *s = NULL;
    mest_error own = {MEST_OK, ""};
    *seconds = MEST_NO_KERNEL;
    mest_status status = mest_sparse_make(&s, &m->heap, &spec, 0, &own);
    if (status == MEST_E_SHAPE || (status == MEST_OK && l->sparsity < mest_sparse_least_sparsity(s) - 1e-9)) {
        mest_sparse_destroy(s);
        return MEST_OK;
    }
    const int64_t units = status == MEST_OK ? mest_sparse_units_at(s, l->sparsity) : 0;
    if (status == MEST_OK)
        status = mest_sparse_reserve(s, units, &own);
    if (status == MEST_OK)
        status = mest_sparse_from_random(s, units, 1, 1, 1.0, &own);
    if (status == MEST_OK)
        *seconds = pass_seconds(m, tuner, p, s, false, missing) + pass_seconds(m, tuner, p, s, true, missing);
    mest_sparse_destroy(s);
    return status == MEST_OK ? MEST_OK : mest_fail(err, status, "scheme auto: %s", own.msg);
}

mest_status mest_scheme_choose(mest_model *m, mest_tuner *tuner, const mest_auto_layer *l, char scheme[16], const char **why, mest_error *err)
{
    problem p;
    double block[N_BLOCKS], pattern = MEST_NO_KERNEL, fastest = MEST_NO_KERNEL;
    const bool square = l->weight->rank == 4 && l->weight->dim[2] == 3 && l->weight->dim[3] == 3;
    bool missing = false;
    char text[320];
    if (!describe(l, &p)) {
        snprintf(scheme, 16, "csr");
        *why = "csr: no times for this operator";
        return MEST_OK;
    }
    for (int i = 0; i < N_BLOCKS; i++) {
        MEST_TRY(step_seconds(m, tuner, l, &p, blocks[i], &block[i], &missing, err));
        fastest = block[i] < fastest ? block[i] : fastest;
    }
    if (square)
        MEST_TRY(step_seconds(m, tuner, l, &p, "pattern", &pattern, &missing, err));
    if (missing) /* times of two kinds do not compare */
        return mest_scheme_choose(m, NULL, l, scheme, why, err);
    int chosen = 0;
    while (chosen < N_BLOCKS - 1 && block[chosen] > TOLERANCE * fastest)
        chosen++;
    const bool patterns = pattern < fastest;
    snprintf(scheme, 16, "%s", patterns ? "pattern" : blocks[chosen]);
    size_t n = (size_t)snprintf(text, sizeof text, "%s: %s; a step by %s:", scheme, patterns ? "no other is faster" : chosen == 0 ? "no block is a tenth faster" : "the smallest block within a tenth of the fastest",
                                tuner ? "measurement" : "the model of cost");
    for (int i = 0; i < N_BLOCKS && n < sizeof text; i++)
        if (block[i] < MEST_NO_KERNEL)
            n += (size_t)snprintf(text + n, sizeof text - n, " %s %.3g ms", blocks[i], 1e3 * block[i]);
    if (pattern < MEST_NO_KERNEL && n < sizeof text)
        snprintf(text + n, sizeof text - n, " pattern %.3g ms", 1e3 * pattern);
    *why = mest_region_strdup(&m->region, text);
    MEST_CHECK(*why, err, MEST_E_NOMEM, "scheme auto: out of memory");
    return MEST_OK;
}
