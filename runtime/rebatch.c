/* SPDX-License-Identifier: Apache-2.0 */
/* Walks the nodes at two batches, see runtime/rebatch.h. */
#include "runtime/rebatch.h"

#include "mest/train.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { FOLD_BYTES = 16 << 20, ATTEMPTS = 16 };

bool mest_rebatch_refuse(mest_rebatcher *r, mest_id node, const char *format, ...)
{
    if (r->why[0])
        return false;
    const mest_node *n = node == MEST_NONE ? NULL : &r->to.nodes[node];
    int used = n ? snprintf(r->why, r->why_size, "%.40s '%.160s' ", n->op->name, n->name) : 0;
    va_list ap;
    va_start(ap, format);
    if (used >= 0 && (size_t)used < r->why_size)
        vsnprintf(r->why + used, r->why_size - (size_t)used, format, ap);
    va_end(ap);
    return false;
}

static bool no_memory(mest_rebatcher *r)
{
    if (r->status == MEST_OK)
        r->status = mest_fail(r->err, MEST_E_NOMEM, "no memory for another batch than the file's, of %" PRId64, r->n);
    return false;
}

mest_shape mest_rebatch_scaled(const mest_rebatcher *r, const mest_shape *shape, const mest_spot *s)
{
    mest_shape to = *shape;
    if (s->axis >= 0)
        to.dim[s->axis] = to.dim[s->axis] / r->from * r->n;
    return to;
}

int mest_rebatch_choose(mest_rebatcher *r, int n)
{
    if (n < 2 || r->n_choices == MEST_REBATCH_CHOICES)
        return 0;
    const int at = r->n_choices++;
    if (at >= r->n_given)
        r->pick[at] = 0;
    r->options[at] = n;
    return r->pick[at] < n ? r->pick[at] : 0;
}

/* The last choice that has another possibility takes it. */
static bool choose_otherwise(mest_rebatcher *r)
{
    for (int i = r->n_choices - 1; i >= 0; i--)
        if (r->pick[i] + 1 < r->options[i]) {
            r->pick[i]++;
            r->n_given = i + 1;
            return true;
        }
    return false;
}

/* ---- changes ---- */

static bool room_for_spots(mest_rebatcher *r)
{
    if (r->to.n_values <= r->cap_spots)
        return true;
    const int32_t cap = r->to.n_values * 2 + 64;
    mest_spot *more = mest_region_alloc(&r->to.region, (size_t)cap, sizeof *more);
    if (!more)
        return no_memory(r);
    if (r->cap_spots)
        memcpy(more, r->spot, (size_t)r->cap_spots * sizeof *more);
    for (int32_t i = r->cap_spots; i < cap; i++)
        more[i] = (mest_spot){.axis = -1, .outer = 1};
    r->spot = more;
    r->cap_spots = cap;
    return true;
}

static bool edit(mest_rebatcher *r, mest_id node, int k, mest_id value, mest_id made)
{
    if (value == MEST_NONE || !room_for_spots(r))
        return no_memory(r);
    if (r->n_edits == r->cap_edits) {
        const int32_t cap = r->cap_edits * 2 + 32;
        mest_rebatch_edit *more = mest_region_alloc(&r->to.region, (size_t)cap, sizeof *more);
        if (!more)
            return no_memory(r);
        if (r->n_edits)
            memcpy(more, r->edits, (size_t)r->n_edits * sizeof *more);
        r->edits = more;
        r->cap_edits = cap;
    }
    r->edits[r->n_edits++] = (mest_rebatch_edit){.node = node, .input = k, .value = value, .made = made};
    r->to.nodes[node].in[k] = value;
    return true;
}

bool mest_rebatch_ints(mest_rebatcher *r, mest_id node, int k, int n, const int64_t *v)
{
    const mest_type type = {.dtype = MEST_I64, .shape = {.rank = 1, .dim = {n}}};
    return edit(r, node, k, mest_graph_const(&r->to, NULL, &type, v), MEST_NONE);
}

/* Is each sample's part of a constant like the first one's? */
static bool samples_alike(const char *data, int64_t outer, int64_t samples, size_t bytes)
{
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 1; i < samples; i++)
            if (memcmp(data + (size_t)(o * samples + i) * bytes, data + (size_t)(o * samples) * bytes, bytes) != 0)
                return false;
    return true;
}

static bool lift_constant(mest_rebatcher *r, mest_id node, int k, mest_id v, const mest_spot *to)
{
    const mest_value *x = &r->at.values[v];
    const mest_shape *s = &x->type.shape;
    const int64_t outer = mest_shape_span(s, 0, to->axis) * to->outer;
    const size_t bytes = (size_t)(mest_rebatch_inner(r, s, to) * mest_shape_span(s, to->axis + 1, s->rank)) * mest_dtype_size(x->type.dtype);
    const mest_type type = {.dtype = x->type.dtype, .shape = mest_rebatch_scaled(r, s, to)};
    if (!samples_alike(x->data, outer, r->from, bytes))
        return mest_rebatch_refuse(r, node, "has '%.160s' with other numbers for each sample of the file's batch", x->name);
    if (bytes > 0 && (size_t)(outer * r->n) > ((size_t)1 << 30) / bytes)
        return mest_rebatch_refuse(r, node, "needs more than 1 GiB of '%.160s'", x->name);
    char *data = mest_region_alloc(&r->to.region, (size_t)(outer * r->n) * bytes + 64, 1);
    if (!data)
        return no_memory(r);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < r->n; i++)
            memcpy(data + (size_t)(o * r->n + i) * bytes, (const char *)x->data + (size_t)(o * r->from) * bytes, bytes);
    const mest_id c = mest_graph_value(&r->to, NULL, MEST_VALUE_CONST, &type);
    if (c != MEST_NONE)
        r->to.values[c].data = data;
    return edit(r, node, k, c, MEST_NONE);
}

/* Y = op(x, ints) in front of input k. */
static bool lift_by(mest_rebatcher *r, mest_id node, int k, const char *op, mest_id x, int n, const int64_t *ints)
{
    const mest_type type = {.dtype = MEST_I64, .shape = {.rank = 1, .dim = {n}}};
    const mest_id in[2] = {x, mest_graph_const(&r->to, NULL, &type, ints)};
    const mest_id made = in[1] == MEST_NONE ? MEST_NONE : mest_graph_node(&r->to, r->to.nodes[node].name, mest_op_find("", op, 13), NULL, 2, in, 1, NULL);
    if (made == MEST_NONE)
        return no_memory(r);
    mest_error err = {0};
    if (mest_infer_node(&r->to, made, &err) != MEST_OK)
        return mest_rebatch_refuse(r, node, "cannot take its input %d for another batch: %.200s", k, err.msg);
    return edit(r, node, k, r->to.nodes[made].out[0], made);
}

/* What Expand reads where it made the size of this axis of v, an axis that was 1 or absent; MEST_NONE otherwise. */
static mest_id expanded_from(const mest_graph *g, mest_id v, int axis)
{
    const mest_node *p = g->values[v].producer == MEST_NONE ? NULL : &g->nodes[g->values[v].producer];
    if (!p || strcmp(p->op->name, "Expand"))
        return MEST_NONE;
    const mest_shape *x = &g->values[p->in[0]].type.shape;
    axis -= g->values[v].type.shape.rank - x->rank;
    return axis < 0 || x->dim[axis] == 1 ? p->in[0] : MEST_NONE;
}

bool mest_rebatch_lift(mest_rebatcher *r, mest_id node, int k, const mest_spot *to)
{
    const mest_id v = r->at.nodes[node].in[k];
    const mest_value *x0 = &r->at.values[v];
    const mest_shape *s = &x0->type.shape;
    for (int i = 0; i < r->n_edits; i++) /* a mask of many layers is repeated once */
        if (r->edits[i].node != node && r->spot[r->edits[i].value].axis == to->axis && r->spot[r->edits[i].value].outer == to->outer &&
            r->edits[i].made == MEST_NONE && r->at.nodes[r->edits[i].node].in[r->edits[i].input] == v)
            return edit(r, node, k, r->edits[i].value, MEST_NONE);
    bool done;
    if (r->spot[v].by_size)
        return mest_rebatch_refuse(r, node, "has '%.160s', which depends on the size of the batch", x0->name);
    if (x0->kind == MEST_VALUE_CONST) {
        done = lift_constant(r, node, k, v, to);
    } else if (x0->type.layout.kind == MEST_SPARSE || to->outer > 1) {
        return mest_rebatch_refuse(r, node, "would need '%.160s' repeated for every sample", x0->name);
    } else if (r->from == 1) {
        int64_t repeats[MEST_MAX_RANK];
        for (int i = 0; i < s->rank; i++)
            repeats[i] = i == to->axis ? r->n : 1;
        done = lift_by(r, node, k, "Tile", v, s->rank, repeats);
    } else { /* of several equal rows only Expand is known to make any */
        const mest_id from = expanded_from(&r->at, v, to->axis);
        const mest_shape want = mest_rebatch_scaled(r, s, to);
        if (from == MEST_NONE)
            return mest_rebatch_refuse(r, node, "has '%.160s', of which it cannot be seen that all samples have the same", x0->name);
        done = lift_by(r, node, k, "Expand", from, want.rank, want.dim);
    }
    if (done)
        r->spot[r->to.nodes[node].in[k]] = *to;
    return done;
}

/* ---- the walk ---- */

static bool same_constant(const mest_value *a, const mest_value *b)
{
    int64_t count;
    if (a->type.dtype != b->type.dtype || !mest_shape_equal(&a->type.shape, &b->type.shape))
        return false;
    if (a->kind != MEST_VALUE_CONST || b->kind != MEST_VALUE_CONST)
        return a->kind == b->kind;
    return a->data == b->data ||
           (mest_shape_count(&a->type.shape, &count) && !memcmp(a->data, b->data, (size_t)count * mest_dtype_size(a->type.dtype)));
}

/* What the file's own arithmetic makes of the size of the batch: an axis for the samples, with the same for each of them? */
static bool made_for_samples(mest_rebatcher *r, mest_id v)
{
    const mest_value *x = &r->to.values[v], *x0 = &r->at.values[v];
    const mest_shape *s = &x->type.shape, *s0 = &x0->type.shape;
    int axis = -1;
    if (s->rank != s0->rank || x->type.dtype != x0->type.dtype)
        return false;
    for (int i = 0; i < s->rank; i++)
        if (s->dim[i] != s0->dim[i]) {
            if (axis >= 0 || s0->dim[i] != r->from || s->dim[i] != r->n)
                return false;
            axis = i;
        }
    if (axis < 0)
        return false;
    r->spot[v] = (mest_spot){.axis = axis, .outer = 1};
    const mest_id from = expanded_from(&r->to, v, axis);
    if (from != MEST_NONE && from == expanded_from(&r->at, v, axis) && r->spot[from].axis == -1 && !r->spot[from].by_size)
        return true;
    const size_t bytes = (size_t)mest_shape_span(s, axis + 1, s->rank) * mest_dtype_size(x->type.dtype);
    const int64_t outer = mest_shape_span(s, 0, axis);
    bool alike = x->kind == MEST_VALUE_CONST && x0->kind == MEST_VALUE_CONST && samples_alike(x->data, outer, r->n, bytes);
    for (int64_t i = 0; alike && i < outer; i++)
        alike = !memcmp((const char *)x->data + (size_t)(i * r->n) * bytes, (const char *)x0->data + (size_t)(i * r->from) * bytes, bytes);
    if (!alike)
        r->spot[v] = (mest_spot){.axis = -1, .outer = 1};
    return alike;
}

/* Shapes at the wanted batch are those of the file's, scaled where the samples are. */
static bool fits(mest_rebatcher *r, mest_id node, mest_id v)
{
    char have[160], want[160];
    if (r->spot[v].axis == MEST_REBATCH_OWN)
        return true;
    const mest_shape *s = mest_rebatch_shape(r, v), *got = &r->to.values[v].type.shape, scaled = mest_rebatch_scaled(r, s, &r->spot[v]);
    if (mest_shape_equal(&scaled, got))
        return true;
    return mest_rebatch_refuse(r, node, "gives %s and not %s", mest_shape_text(got, have, sizeof have), mest_shape_text(&scaled, want, sizeof want));
}

static bool walk_node(mest_rebatcher *r, mest_id i, size_t *left)
{
    mest_id small[64], *out = small;
    const int32_t n_out = r->to.nodes[i].n_out;
    bool batched = false, by_size = false;
    if (n_out > 64 && !(out = mest_region_alloc(&r->to.region, (size_t)n_out, sizeof *out)))
        return no_memory(r);
    memcpy(out, r->to.nodes[i].out, (size_t)n_out * sizeof *out); /* folding takes them away */
    bool known = false;
    for (int32_t k = 0; k < n_out; k++)
        known |= out[k] != MEST_NONE && r->at.values[out[k]].type.dtype != MEST_UNDEFINED;
    for (int32_t k = 0; k < r->to.nodes[i].n_in; k++) {
        const mest_id v = r->to.nodes[i].in[k];
        batched |= v != MEST_NONE && r->spot[v].axis >= 0;
        by_size |= v != MEST_NONE && r->spot[v].by_size;
    }
    const bool looks = (r->to.nodes[i].op->flags & MEST_OP_TYPE_ONLY) != 0, branch = !strcmp(r->to.nodes[i].op->name, "If");
    const bool ruled = known && batched && !looks && !branch;
    if (known && !batched && (r->to.nodes[i].op->flags & MEST_OP_RANDOM))
        return mest_rebatch_refuse(r, i, "draws numbers for the batch of the file");
    if (ruled && !mest_rebatch_rule(r, i))
        return false;
    mest_error err = {0};
    if (mest_infer_step(&r->to, i, true, left, &err) != MEST_OK)
        return mest_rebatch_refuse(r, i, "does not fit: %.200s", err.msg);
    for (int32_t k = 0; k < n_out && known && !branch; k++) {
        const mest_id v = out[k];
        if (v == MEST_NONE || r->to.values[v].type.dtype == MEST_UNDEFINED || r->at.values[v].type.dtype == MEST_UNDEFINED)
            continue;
        if (ruled && !fits(r, i, v))
            return false;
        if (!ruled && !same_constant(&r->at.values[v], &r->to.values[v])) {
            if (!by_size && !looks)
                return mest_rebatch_refuse(r, i, "gives something else at another batch");
            r->spot[v].by_size = !made_for_samples(r, v);
        }
    }
    return true;
}

static bool walk(mest_rebatcher *r)
{
    size_t left = FOLD_BYTES;
    const mest_id n_nodes = r->to.n_nodes;
    if (!room_for_spots(r))
        return false;
    for (int i = 0; i < r->to.n_inputs; i++) {
        const mest_id v = r->to.inputs[i];
        if (!mest_shape_equal(mest_rebatch_shape(r, v), &r->to.values[v].type.shape))
            r->spot[v].axis = 0;
    }
    for (mest_id i = 0; i < n_nodes; i++)
        if (!walk_node(r, i, &left))
            return false;
    for (int i = 0; i < r->to.n_outputs; i++) {
        const mest_spot *s = &r->spot[r->to.outputs[i]];
        if (i == 0 && (s->axis != 0 || s->outer != 1))
            return mest_rebatch_refuse(r, MEST_NONE, "output '%.160s' does not begin with the samples", r->to.values[r->to.outputs[i]].name);
    }
    return true;
}

/* The same changes to g. */
static mest_status carry_over(const mest_rebatcher *r, mest_graph *g, mest_error *err)
{
    for (int i = 0; i < r->n_edits; i++) {
        const mest_rebatch_edit *e = &r->edits[i];
        const mest_value *v = &r->to.values[e->value];
        mest_id to = MEST_NONE;
        for (int j = 0; j < i && to == MEST_NONE; j++)
            if (r->edits[j].value == e->value)
                to = g->nodes[r->edits[j].node].in[r->edits[j].input];
        if (to == MEST_NONE && e->made == MEST_NONE) {
            to = mest_graph_const(g, NULL, &v->type, v->data);
        } else if (to == MEST_NONE) {
            const mest_node *m = &r->to.nodes[e->made];
            const mest_value *ints = &r->to.values[m->in[1]];
            const mest_id in[2] = {m->in[0], mest_graph_const(g, NULL, &ints->type, ints->data)};
            const mest_id made = in[1] == MEST_NONE ? MEST_NONE : mest_graph_node(g, m->name, m->op, NULL, 2, in, 1, NULL);
            if (made != MEST_NONE) {
                g->nodes[made].source = g->nodes[e->node].source;
                to = g->nodes[made].out[0];
            }
        }
        MEST_CHECK(to != MEST_NONE, err, MEST_E_NOMEM, "no memory for another batch than the file's, of %" PRId64, r->n);
        g->nodes[e->node].in[e->input] = to;
    }
    return r->n_edits ? mest_graph_sort(g, err) : MEST_OK;
}

static mest_status attempt(mest_rebatcher *r, mest_graph *g, bool *again)
{
    *again = false;
    MEST_TRY(mest_graph_copy(&r->to, g, r->err));
    r->to.survey = NULL;
    r->n_edits = r->cap_edits = r->cap_spots = r->n_choices = 0;
    r->why[0] = 0;
    mest_status status = walk(r) ? carry_over(r, g, r->err) : r->status;
    *again = status == MEST_OK && r->why[0] && choose_otherwise(r);
    mest_graph_free(&r->to);
    return status;
}

mest_status mest_rebatch(mest_graph *g, const mest_shape *at, int64_t from, int64_t to, char *why, size_t why_size, mest_error *err)
{
    mest_rebatcher r = {.from = from, .n = to, .why = why, .why_size = why_size, .err = err};
    mest_error own = {0};
    char first[512] = "";
    why[0] = 0;
    MEST_TRY(mest_graph_copy(&r.at, g, err));
    r.at.survey = NULL;
    for (int i = 0; i < g->n_inputs; i++)
        r.at.values[g->inputs[i]].type.shape = at[i];
    mest_status status = mest_infer_graph(&r.at, true, FOLD_BYTES, &own);
    if (status != MEST_OK) {
        snprintf(why, why_size, "%s", own.msg);
        status = status == MEST_E_NOMEM ? mest_fail(err, MEST_E_NOMEM, "%s", own.msg) : MEST_OK;
        goto out;
    }
    bool again = true;
    for (int i = 0; i < ATTEMPTS && again; i++) {
        MEST_TRY_OUT(attempt(&r, g, &again));
        if (why[0] && !first[0])
            snprintf(first, sizeof first, "%s", why);
    }
    if (why[0]) /* the first try was the likely one */
        snprintf(why, why_size, "%.*s", (int)sizeof first - 1, first);
out:
    mest_graph_free(&r.at);
    return status;
}

/* ---- what a model allows ---- */

/* Inputs of g at n samples; `at` gets their shapes in the file. */
static void pin(mest_graph *g, mest_shape *at, int64_t n)
{
    const int64_t from = mest_model_fixed_batch(g);
    for (int i = 0; i < g->n_inputs; i++) {
        mest_shape *s = &g->values[g->inputs[i]].type.shape;
        at[i] = *s;
        if (s->rank > 0 && s->dim[0] == from)
            s->dim[0] = n;
    }
}

/* At n samples, the constants of the file changed or not, the first output has n times what it has for a sample. */
static bool scales(mest_graph *g, int64_t from, int64_t n)
{
    const mest_shape was = g->n_outputs ? g->values[g->outputs[0]].type.shape : (mest_shape){.rank = 0};
    mest_error own = {0};
    if (mest_infer_graph(g, true, FOLD_BYTES, &own) != MEST_OK || was.rank < 1)
        return false;
    const mest_shape *is = &g->values[g->outputs[0]].type.shape;
    return is->rank > 0 && was.dim[0] > 0 && is->dim[0] * from == was.dim[0] * n;
}

int64_t mest_model_fixed_batch(const mest_graph *g)
{
    const mest_shape *s = g->n_inputs ? &g->values[g->inputs[0]].type.shape : NULL;
    return s && s->rank > 0 ? s->dim[0] : -1;
}

bool mest_model_rebatches(const mest_model *m, int64_t n, bool as_it_is, mest_error *why)
{
    const int64_t from = mest_model_fixed_batch(&m->graph);
    mest_graph g;
    mest_error own = {0};
    char text[512] = "";
    if (from <= 0 || from == n)
        return true;
    if (mest_graph_copy(&g, &m->graph, why) != MEST_OK)
        return false;
    mest_shape *at = mest_region_alloc(&g.region, (size_t)g.n_inputs, sizeof *at);
    bool fits = at != NULL;
    if (fits) {
        pin(&g, at, n);
        fits = mest_rebatch(&g, at, from, n, text, sizeof text, &own) == MEST_OK && (!text[0] || (as_it_is && scales(&g, from, n)));
    }
    if (!fits)
        (void)mest_fail(why, at && own.code == MEST_OK ? MEST_E_SHAPE : MEST_E_NOMEM, "%s", at && own.code == MEST_OK ? text : "no memory for a copy of the graph");
    mest_graph_free(&g);
    return fits;
}

int64_t mest_model_batch(const mest_model *model, int64_t wanted, mest_error *why)
{
    mest_error_clear(why);
    return !model || wanted < 1 || mest_model_rebatches(model, wanted, true, why) ? wanted : mest_model_fixed_batch(&model->graph);
}
