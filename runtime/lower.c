/* SPDX-License-Identifier: Apache-2.0 */
/* The first stage of a program: shapes pinned, types inferred, constants folded. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/infer.h"
#include "runtime/program.h"
#include "runtime/rebatch.h"
#include "runtime/survey.h"

/* One output, if one is wanted: what only the others need goes before anything is asked about it. */
static mest_status choose_output(mest_graph *g, const mest_program_spec *spec, mest_error *err)
{
    if (!spec->output)
        return MEST_OK;
    for (int i = 0; i < g->n_outputs; i++)
        if (!strcmp(g->values[g->outputs[i]].name, spec->output)) {
            g->outputs[0] = g->outputs[i];
            g->n_outputs = 1;
            return mest_graph_prune(g, err);
        }
    return mest_fail(err, MEST_E_ARGUMENT, "the model has no output '%s'", spec->output);
}

static bool is_read(const mest_graph *g, mest_id v)
{
    for (int i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] == v)
            return true;
    for (mest_id i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] == v)
                return true;
    return false;
}

static mest_status pin_inputs(mest_graph *g, const mest_program_spec *spec, mest_error *err)
{
    const int64_t baked = mest_model_fixed_batch(g);
    for (int i = 0; i < g->n_inputs; i++) {
        mest_value *v = &g->values[g->inputs[i]];
        mest_shape *s = &v->type.shape;
        char have[160], want[160];
        if (spec->input_shapes && spec->input_shapes[i].rank >= 0) {
            const mest_shape *given = &spec->input_shapes[i];
            mest_shape full = {.rank = given->rank + 1};
            MEST_CHECK(full.rank <= MEST_MAX_RANK, err, MEST_E_SHAPE, "input '%s': rank %d is too large", v->name, full.rank);
            full.dim[0] = spec->batch;
            memcpy(full.dim + 1, given->dim, (size_t)given->rank * sizeof full.dim[0]);
            bool fits = s->rank == full.rank;
            for (int k = 1; k < full.rank && fits; k++)
                fits = s->dim[k] < 0 || s->dim[k] == full.dim[k];
            MEST_CHECK(fits, err, MEST_E_SHAPE, "input '%s' of the model is %s, the data gives %s", v->name, mest_shape_text(s, have, sizeof have),
                       mest_shape_text(&full, want, sizeof want));
            *s = full;
        } else if (s->rank > 0 && (s->dim[0] < 0 || s->dim[0] == baked)) { /* another fixed size is no batch axis: a table, a graph's edges */
            s->dim[0] = spec->batch;
        }
        int64_t count;
        MEST_CHECK(mest_shape_count(s, &count) || !is_read(g, g->inputs[i]), err, MEST_E_SHAPE, "input '%s' is %s: give the sizes that are free", v->name,
                   mest_shape_text(s, have, sizeof have));
    }
    return MEST_OK;
}

/* Types of everything; where the file fixes another batch, constants that have it are changed first. */
static mest_status infer(mest_graph *g, const mest_program_spec *spec, const mest_shape *at_file, int64_t baked, mest_error *err)
{
    char why[512] = "";
    if (at_file && baked != spec->batch)
        MEST_TRY(mest_rebatch(g, at_file, baked, spec->batch, why, sizeof why, err));
    mest_error own = {0};
    mest_error *to = err ? err : &own;
    const mest_status status = mest_infer_graph(g, true, (size_t)16 << 20, to);
    if (why[0])
        mest_survey_fixed_batch(g, baked, why);
    if (status != MEST_E_SHAPE || !why[0])
        return status;
    char text[sizeof to->msg];
    snprintf(text, sizeof text, "%s", to->msg);
    mest_error_clear(to);
    return mest_fail(to, MEST_E_SHAPE, "%.400s; the file fixes its batch at %" PRId64 " and cannot be taken for one of %" PRId64 " (%.300s): take a batch of %" PRId64
                     ", or export with a dynamic batch axis", text, baked, spec->batch, why, baked);
}

/* Shapes of the inputs at the file's batch, the sizes that the caller gave filled in; NULL: it fixes none, or memory ran out. */
static mest_shape *inputs_of_file(mest_graph *g, const mest_program_spec *spec)
{
    const int64_t baked = mest_model_fixed_batch(g);
    mest_shape *s = baked > 0 ? mest_region_alloc(&g->region, (size_t)g->n_inputs, sizeof *s) : NULL;
    for (int i = 0; s && i < g->n_inputs; i++) {
        s[i] = g->values[g->inputs[i]].type.shape;
        for (int k = 1; spec->input_shapes && k < s[i].rank && k <= spec->input_shapes[i].rank; k++)
            s[i].dim[k] = s[i].dim[k] < 0 ? spec->input_shapes[i].dim[k - 1] : s[i].dim[k];
        if (s[i].rank > 0 && s[i].dim[0] < 0)
            s[i].dim[0] = baked;
    }
    return s;
}

mest_status mest_lower_pin(mest_graph *g, mest_model *m, const mest_program_spec *spec, mest_error *err)
{
    MEST_TRY(choose_output(g, spec, err));
    const int64_t baked = mest_model_fixed_batch(g);
    const mest_shape *at_file = inputs_of_file(g, spec);
    mest_status pinned = pin_inputs(g, spec, err);
    if (pinned != MEST_OK)
        mest_survey_forget_inputs(g), at_file = NULL;
    MEST_TRY(mest_survey_failure(g, pinned, err));
    for (int i = 0; i < g->n_values; i++) {
        mest_value *v = &g->values[i];
        if (v->kind != MEST_VALUE_PARAM)
            continue;
        mest_param *p = &m->params[v->param];
        if (p->sparse) {
            v->type.layout = (mest_layout){.kind = MEST_SPARSE, .param = v->param};
            continue;
        }
        MEST_TRY(mest_param_load(m, p, err));
        if (p->role == MEST_ROLE_CONSTANT) { /* shapes, scales and masks given as floats fold like any constant */
            v->kind = MEST_VALUE_CONST;
            v->data = p->values;
        }
    }
    MEST_TRY(mest_graph_sort(g, err));
    MEST_TRY(mest_graph_check(g, "import", err));
    MEST_TRY(infer(g, spec, at_file, baked, err));
    MEST_TRY(mest_survey_cut(g, err));
    return mest_graph_prune(g, err);
}
