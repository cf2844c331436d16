/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/infer.h"

#include <string.h>

#include "runtime/survey.h"

enum { MANY = 64 }; /* nodes with more inputs or outputs take memory from the region */

static const void *const_data(const mest_graph *g, mest_id v) { return v != MEST_NONE && g->values[v].kind == MEST_VALUE_CONST ? g->values[v].data : NULL; }

mest_status mest_infer_node(mest_graph *g, mest_id id, mest_error *err)
{
    mest_node *n = &g->nodes[id];
    const mest_type *in_small[MANY];
    const void *data_small[MANY];
    mest_type out_small[MANY];
    const mest_type **in = in_small;
    const void **data = data_small;
    mest_type *out = out_small;
    if (n->n_in > MANY || n->n_out > MANY) {
        in = mest_region_alloc(&g->region, (size_t)n->n_in + 1, sizeof *in);
        data = mest_region_alloc(&g->region, (size_t)n->n_in + 1, sizeof *data);
        out = mest_region_alloc(&g->region, (size_t)n->n_out + 1, sizeof *out);
        MEST_CHECK(in && data && out, err, MEST_E_NOMEM, "%s '%s': no memory for %d inputs", n->op->name, n->name, n->n_in);
    }
    for (int i = 0; i < n->n_in; i++) {
        in[i] = n->in[i] == MEST_NONE ? NULL : &g->values[n->in[i]].type;
        data[i] = const_data(g, n->in[i]);
        MEST_CHECK(!in[i] || in[i]->dtype != MEST_UNDEFINED, err, MEST_E_SHAPE, "%s '%s': the type of input '%s' is unknown", n->op->name,
                   n->name, g->values[n->in[i]].name);
    }
    for (int i = 0; i < n->n_in; i++)
        MEST_CHECK(in[i] || i >= n->op->in_min || (n->op->domain && n->op->domain[0]), err, MEST_E_FORMAT,
                   "%s '%s': required input %d is absent", n->op->name, n->name, i);
    /* Forwards read their inputs as floats unless the operator says that it looks at types itself. Helpers may have indices behind input 0. */
    bool onnx = !n->op->domain || !n->op->domain[0];
    for (int i = 0; i < n->n_in && !(n->op->flags & MEST_OP_ANY_TYPE); i++)
        MEST_CHECK(!in[i] || in[i]->dtype == MEST_F32 || (i > 0 && !onnx), err, MEST_E_UNSUPPORTED, "%s '%s': input %d is %s; only float32 is supported",
                   n->op->name, n->name, i, mest_dtype_name(in[i]->dtype));
    memset(out, 0, (size_t)n->n_out * sizeof *out);
    mest_infer c = {.graph = g, .node = n, .params = n->params, .n_in = n->n_in, .n_out = n->n_out, .in = in, .in_data = data, .out = out, .err = err};
    MEST_TRY(n->op->infer(&c));
    for (int i = 0; i < n->n_out; i++) {
        if (n->out[i] == MEST_NONE)
            continue;
        int64_t count;
        MEST_CHECK(out[i].dtype != MEST_UNDEFINED && out[i].shape.rank <= MEST_MAX_RANK, err, MEST_E_INTERNAL, "%s '%s': no type for output %d",
                   n->op->name, n->name, i);
        MEST_CHECK(mest_shape_count(&out[i].shape, &count) && count <= (int64_t)1 << 40, err, MEST_E_SHAPE,
                   "%s '%s': output %d would have more than 2^40 elements or a negative size", n->op->name, n->name, i);
        g->values[n->out[i]].type = out[i];
    }
    return MEST_OK;
}

static bool can_fold(const mest_graph *g, const mest_node *n)
{
    if (!n->op->forward || (n->op->flags & (MEST_OP_RANDOM | MEST_OP_SIDE_EFFECT)) || n->n_in > MANY || n->n_out > MANY)
        return false;
    if (n->op->flags & MEST_OP_TYPE_ONLY)
        return true;
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] != MEST_NONE && !const_data(g, n->in[i]))
            return false;
    return true;
}

static mest_status fold(mest_graph *g, mest_id id, size_t *left, mest_error *err)
{
    mest_node *n = &g->nodes[id];
    mest_tensor in[MANY], out[MANY];
    memset(in, 0, sizeof in);
    memset(out, 0, sizeof out);
    size_t bytes = 0;
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] == MEST_NONE)
            continue;
        const mest_value *v = &g->values[n->in[i]];
        int64_t count = 0;
        if (!mest_shape_count(&v->type.shape, &count))
            return MEST_OK;
        const void *data = const_data(g, n->in[i]);
        in[i] = (mest_tensor){.type = &v->type, .data = data ? (void *)(uintptr_t)data : (void *)(uintptr_t)"", .count = (size_t)count};
    }
    for (int i = 0; i < n->n_out; i++) {
        if (n->out[i] == MEST_NONE)
            continue;
        int64_t count = 0;
        size_t size = mest_dtype_size(g->values[n->out[i]].type.dtype);
        if (!mest_shape_count(&g->values[n->out[i]].type.shape, &count) || size == 0)
            return MEST_OK;
        size_t want = (size_t)count * size + 64; /* count <= 2^40: no overflow */
        if (want > *left - bytes || bytes > *left)
            return MEST_OK; /* too large to fold: stays a node and is planned like any other */
        bytes += want;
        out[i] = (mest_tensor){.type = &g->values[n->out[i]].type, .count = (size_t)count};
        out[i].data = mest_region_alloc(&g->region, want, 1);
        MEST_CHECK(out[i].data, err, MEST_E_NOMEM, "%s '%s': no memory for a constant of %zu bytes", n->op->name, n->name, want);
    }
    *left -= bytes;
    mest_run run = {0};
    mest_args a = {.node = n, .params = n->params, .n_in = n->n_in, .n_out = n->n_out, .in = in, .out = out, .run = &run, .err = err};
    MEST_TRY(n->op->forward(&a));
    for (int i = 0; i < n->n_out; i++) {
        if (n->out[i] == MEST_NONE)
            continue;
        mest_value *v = &g->values[n->out[i]];
        v->kind = MEST_VALUE_CONST;
        v->data = out[i].data;
        v->producer = MEST_NONE;
        n->out[i] = MEST_NONE;
    }
    return MEST_OK;
}

/* Is the branch of this node taken? *taken is false as well where the condition itself is in a branch that is not. */
static mest_status decide(mest_graph *g, const mest_node *n, mest_id condition, bool when, bool *taken, mest_error *err)
{
    const mest_value *v = &g->values[condition];
    const void *data = const_data(g, condition);
    *taken = false;
    if (!data && v->type.dtype == MEST_UNDEFINED)
        return MEST_OK;
    MEST_CHECK(data && v->type.dtype == MEST_BOOL, err, MEST_E_UNSUPPORTED,
               "%s '%s': the condition '%s' depends on the data; only what follows from shapes can be decided: fix it before the export, or cut the branch "
               "away", n->op->name, n->name, v->name);
    *taken = (*(const uint8_t *)data != 0) == when;
    return MEST_OK;
}

/* If [condition, results of one branch.., of the other..]: whoever reads it reads the taken branch. */
static mest_status take_branch(mest_graph *g, mest_id id, mest_error *err)
{
    mest_node *n = &g->nodes[id];
    bool yes;
    MEST_TRY(decide(g, n, n->in[0], true, &yes, err));
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] != MEST_NONE)
            mest_graph_replace(g, n->out[i], n->in[1 + i + (yes ? 0 : n->n_out)]);
    return MEST_OK;
}

/* *runs: false for a node of a branch that is not taken, and for If, once its readers read what it stands for. */
static mest_status settle_branch(mest_graph *g, mest_id id, bool *runs, mest_error *err)
{
    mest_node *n = &g->nodes[id];
    if (n->guard) {
        mest_status status = decide(g, n, mest_guard_value(n), n->guard > 0, runs, err);
        if (status != MEST_OK && mest_survey_undecided(g, id, mest_guard_value(n))) {
            *runs = false; /* the If is to blame, not what is in it */
            mest_error_clear(err);
            return MEST_OK;
        }
        MEST_TRY(status);
        for (int k = 0; !*runs && k < n->n_out; k++)
            if (n->out[k] != MEST_NONE)
                g->values[n->out[k]].type.dtype = MEST_UNDEFINED;
        if (!*runs)
            return MEST_OK;
        n->guard = 0;
    }
    *runs = strcmp(n->op->name, "If") != 0 || (n->op->domain && *n->op->domain);
    return *runs ? MEST_OK : take_branch(g, id, err);
}

mest_status mest_infer_step(mest_graph *g, mest_id i, bool do_fold, size_t *left, mest_error *err)
{
    bool runs = true;
    mest_status status = settle_branch(g, i, &runs, err);
    if (status == MEST_OK && (!runs || !mest_survey_takes(g, i)))
        return MEST_OK;
    if (status == MEST_OK)
        status = mest_infer_node(g, i, err);
    if (status == MEST_OK && do_fold && can_fold(g, &g->nodes[i]))
        status = fold(g, i, left, err);
    return mest_survey_forward(g, i, status, err);
}

mest_status mest_infer_graph(mest_graph *g, bool do_fold, size_t max_fold_bytes, mest_error *err)
{
    size_t left = max_fold_bytes;
    for (mest_id i = 0; i < g->n_nodes; i++)
        MEST_TRY(mest_infer_step(g, i, do_fold, &left, err));
    return MEST_OK;
}
