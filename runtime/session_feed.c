/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the data's inputs goes to which input of the graph, and in which type. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/session.h"

/* "ids, mask, ..." of the graph's inputs, for messages. */
static const char *input_names(const mest_graph *g, char *text, size_t size)
{
    size_t n = 0;
    text[0] = 0;
    for (int i = 0; i < g->n_inputs && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%.40s", i ? ", " : "", g->values[g->inputs[i]].name);
    return text;
}

mest_id mest_session_chosen_output(const mest_session *s)
{
    const mest_graph *g = &s->model->graph;
    for (int i = 0; s->config.output && i < g->n_outputs; i++)
        if (!strcmp(g->values[g->outputs[i]].name, s->config.output))
            return g->outputs[i];
    return g->n_outputs ? g->outputs[0] : MEST_NONE;
}

/* Inputs that the chosen output depends on; the others need not be fed. live: one byte per value. */
static mest_status find_needed(const mest_session *s, uint8_t *live, mest_error *err)
{
    const mest_graph *g = &s->model->graph;
    mest_id y = mest_session_chosen_output(s);
    MEST_CHECK(y != MEST_NONE, err, MEST_E_FORMAT, "the model has no output");
    live[y] = 1;
    for (mest_id i = g->n_nodes - 1; i >= 0; i--) {
        const mest_node *n = &g->nodes[i];
        bool wanted = false;
        for (int k = 0; k < n->n_out; k++)
            wanted |= n->out[k] != MEST_NONE && live[n->out[k]];
        for (int k = 0; wanted && k < n->n_in; k++)
            if (n->in[k] != MEST_NONE)
                live[n->in[k]] = 1;
    }
    return MEST_OK;
}

static mest_status map_by_name(const mest_session *s, const mest_source_info *info, mest_feed *feed, mest_error *err)
{
    const mest_graph *g = &s->model->graph;
    char names[300];
    for (int k = 0; k < info->n_inputs; k++) {
        feed[k].graph_input = -1;
        for (int i = 0; i < g->n_inputs; i++)
            if (!strcmp(g->values[g->inputs[i]].name, info->input[k].name))
                feed[k].graph_input = i;
        MEST_CHECK(feed[k].graph_input >= 0, err, MEST_E_DATA, "the model has no input '%.80s' (it has %s)", info->input[k].name,
                   input_names(g, names, sizeof names));
        for (int i = 0; i < k; i++)
            MEST_CHECK(feed[i].graph_input != feed[k].graph_input, err, MEST_E_DATA, "the data give input '%.80s' twice", info->input[k].name);
    }
    uint8_t *live = mest_calloc(s->heap, (size_t)g->n_values + 1, 1);
    MEST_CHECK(live, err, MEST_E_NOMEM, "session: out of memory");
    mest_status status = find_needed(s, live, err);
    for (int i = 0; status == MEST_OK && i < g->n_inputs; i++) {
        bool given = !live[g->inputs[i]];
        for (int k = 0; k < info->n_inputs; k++)
            given |= feed[k].graph_input == i;
        if (!given)
            status = mest_fail(err, MEST_E_DATA, "input '%.80s' of the model is missing in the data (it has %s)", g->values[g->inputs[i]].name,
                               input_names(g, names, sizeof names));
    }
    mest_free(s->heap, live, (size_t)g->n_values + 1, 1);
    return status;
}

static mest_status map_by_place(const mest_session *s, int n, mest_feed *feed, mest_error *err)
{
    const mest_graph *g = &s->model->graph;
    char names[300];
    MEST_CHECK(n == g->n_inputs, err, MEST_E_DATA, "the model has %d input%s (%s), the data give %d", g->n_inputs, g->n_inputs == 1 ? "" : "s",
               input_names(g, names, sizeof names), n);
    for (int k = 0; k < n; k++)
        feed[k].graph_input = k;
    return MEST_OK;
}

/* Can every number of the data's type be looked at as one of the model's? What does not fit is found batch by batch. */
static bool convertible(mest_dtype to) { return to == MEST_F32 || to == MEST_I64 || to == MEST_I32 || to == MEST_I16 || to == MEST_I8 || to == MEST_U8 || to == MEST_BOOL; }

static mest_status set_feeds(mest_session *s, const mest_source_info *info, mest_feed *feed, int *n_feeds, mest_error *err)
{
    const mest_graph *g = &s->model->graph;
    int named = 0, n = info->n_inputs ? info->n_inputs : 1;
    MEST_CHECK(info->n_inputs >= 0 && n <= MEST_SAMPLE_MAX_INPUTS, err, MEST_E_DATA, "source: %d inputs, at most %d are possible", n, MEST_SAMPLE_MAX_INPUTS);
    for (int k = 0; k < info->n_inputs; k++)
        named += info->input[k].name != NULL;
    MEST_CHECK(named == 0 || named == n, err, MEST_E_DATA, "source: %d of %d inputs have names; all or none must have one", named, n);
    MEST_TRY(named ? map_by_name(s, info, feed, err) : map_by_place(s, n, feed, err));
    for (int k = 0; k < n; k++) {
        const mest_sample_input one = {.type = info->input_type, .rank = info->input_rank}, *in = info->n_inputs ? &info->input[k] : &one;
        const mest_value *v = &g->values[g->inputs[feed[k].graph_input]];
        MEST_CHECK(in->rank >= 0 && in->rank <= MEST_SAMPLE_MAX_RANK, err, MEST_E_DATA, "source: rank %d of an input is not in 0..%d", in->rank, MEST_SAMPLE_MAX_RANK);
        feed[k].shape = (mest_shape){.rank = in->rank};
        memcpy(feed[k].shape.dim, info->n_inputs ? in->dim : info->input_dim, (size_t)in->rank * sizeof *feed[k].shape.dim);
        feed[k].type = (mest_dtype)in->type;
        MEST_CHECK(feed[k].type == MEST_F32 || feed[k].type == MEST_I64, err, MEST_E_DATA, "source: type %d of an input", (int)in->type);
        MEST_CHECK(convertible(v->type.dtype), err, MEST_E_SHAPE, "input '%s' of the model is %s, the data give %s", v->name, mest_dtype_name(v->type.dtype),
                   mest_dtype_name(feed[k].type));
    }
    *n_feeds = n;
    return MEST_OK;
}

mest_status mest_session_set_source(mest_session *s, const mest_source_info *info, mest_error *err)
{
    mest_feed feed[MEST_SAMPLE_MAX_INPUTS] = {{.graph_input = 0}};
    int n = 0;
    MEST_CHECK(info->target_rank >= 0 && info->target_rank <= MEST_SAMPLE_MAX_RANK, err, MEST_E_DATA, "source: rank %d of the targets is not in 0..%d",
               info->target_rank, MEST_SAMPLE_MAX_RANK);
    MEST_TRY(set_feeds(s, info, feed, &n, err));
    mest_shape target = {.rank = info->target_rank};
    memcpy(target.dim, info->target_dim, (size_t)target.rank * sizeof target.dim[0]);
    mest_dtype type = info->has_targets ? (mest_dtype)info->target_type : MEST_UNDEFINED;
    bool same = s->n_feeds == n && (!type || (type == s->target_type && mest_shape_equal(&target, &s->target_shape)));
    for (int k = 0; same && k < n; k++)
        same = feed[k].graph_input == s->feed[k].graph_input && feed[k].type == s->feed[k].type && mest_shape_equal(&feed[k].shape, &s->feed[k].shape);
    if (same)
        return MEST_OK;
    mest_session_drop_programs(s);
    mest_session_feed_free(s);
    memcpy(s->feed, feed, sizeof feed);
    if (type || !s->n_feeds) {
        s->target_shape = target;
        s->target_type = type;
    }
    s->n_feeds = n;
    return MEST_OK;
}

mest_status mest_session_expect(mest_session *s, const mest_source_info *info, mest_error *err)
{
    mest_error_clear(err);
    mest_source_info own = {0};
    MEST_CHECK(s && info && mest_take_options(&own, sizeof own, info), err, MEST_E_ARGUMENT, "expect: session and info (with struct_size) must be given");
    return mest_session_set_source(s, &own, err);
}

void mest_session_input_shapes(const mest_session *s, mest_shape *shapes)
{
    for (int i = 0; i < s->model->graph.n_inputs; i++)
        shapes[i] = (mest_shape){.rank = -1};
    for (int k = 0; k < s->n_feeds; k++)
        shapes[s->feed[k].graph_input] = s->feed[k].shape;
}

void mest_session_feed_free(mest_session *s)
{
    for (int k = 0; k < MEST_SAMPLE_MAX_INPUTS; k++) {
        mest_free(s->heap, s->feed[k].converted, s->feed[k].converted_bytes, 1);
        s->feed[k].converted = NULL;
        s->feed[k].converted_bytes = 0;
    }
}

mest_status mest_session_feed_reserve(mest_session *s, const mest_program *p, mest_error *err)
{
    for (int k = 0; k < s->n_feeds; k++) {
        mest_feed *f = &s->feed[k];
        const mest_type *t = &p->graph.values[p->graph.inputs[f->graph_input]].type;
        int64_t count = 0;
        size_t bytes = 0;
        if (t->dtype == f->type || !mest_shape_count(&t->shape, &count))
            continue;
        MEST_CHECK(mest_mul((size_t)count, t->dtype == MEST_F32 ? sizeof(mest_real) : mest_dtype_size(t->dtype), &bytes) && bytes < SIZE_MAX / 2, err, MEST_E_NOMEM,
                   "session: out of memory");
        bytes += 64; /* kernels may read a vector past the end */
        if (bytes <= f->converted_bytes)
            continue;
        mest_free(s->heap, f->converted, f->converted_bytes, 1);
        f->converted = mest_calloc(s->heap, bytes, 1);
        f->converted_bytes = f->converted ? bytes : 0;
        MEST_CHECK(f->converted, err, MEST_E_NOMEM, "session: no memory for %zu bytes of an input", bytes);
    }
    return MEST_OK;
}

/* One number of the data in the model's type; false if it has none there. */
static bool put(mest_dtype type, void *to, int64_t i, double real, int64_t whole, bool is_whole)
{
    static const struct {
        mest_dtype type;
        int64_t low, high;
    } ranges[] = {{MEST_I32, INT32_MIN, INT32_MAX}, {MEST_I16, INT16_MIN, INT16_MAX}, {MEST_I8, INT8_MIN, INT8_MAX}, {MEST_U8, 0, UINT8_MAX}};
    if (type == MEST_F32)
        return ((mest_real *)to)[i] = is_whole ? (mest_real)whole : (mest_real)real, true;
    if (type == MEST_BOOL)
        return ((uint8_t *)to)[i] = is_whole ? whole != 0 : real != 0, !isnan(real);
    if (!is_whole) {
        if (!(real >= -9007199254740992.0 && real <= 9007199254740992.0) || real != floor(real))
            return false;
        whole = (int64_t)real;
    }
    for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++)
        if (type == ranges[r].type && (whole < ranges[r].low || whole > ranges[r].high))
            return false;
    switch (type) {
    case MEST_I64: ((int64_t *)to)[i] = whole; break;
    case MEST_I32: ((int32_t *)to)[i] = (int32_t)whole; break;
    case MEST_I16: ((int16_t *)to)[i] = (int16_t)whole; break;
    default: ((uint8_t *)to)[i] = (uint8_t)whole; break;
    }
    return true;
}

static mest_status convert(const mest_feed *f, const mest_value *v, int64_t count, const void *data, mest_error *err)
{
    for (int64_t i = 0; i < count; i++) {
        bool whole = f->type == MEST_I64;
        double real = whole ? 0 : (double)((const float *)data)[i];
        int64_t n = whole ? ((const int64_t *)data)[i] : 0;
        if (put(v->type.dtype, f->converted, i, real, n, whole))
            continue;
        char text[40];
        if (whole)
            snprintf(text, sizeof text, "%" PRId64, n);
        else
            snprintf(text, sizeof text, "%g", real);
        return mest_fail(err, MEST_E_DATA, "input '%s' of the model is %s; element %" PRId64 " of the batch is %s", v->name, mest_dtype_name(v->type.dtype), i, text);
    }
    return MEST_OK;
}

mest_status mest_session_feed(mest_session *s, mest_program *p, const void *const *inputs, mest_error *err)
{
    if (!s->n_feeds) {
        for (int i = 0; i < p->graph.n_inputs; i++)
            mest_program_feed(p, p->graph.inputs[i], inputs[i]);
        return MEST_OK;
    }
    for (int k = 0; k < s->n_feeds; k++) {
        const mest_feed *f = &s->feed[k];
        mest_id id = p->graph.inputs[f->graph_input];
        const mest_value *v = &p->graph.values[id];
        int64_t count = 0;
        if (v->type.dtype != f->type && mest_shape_count(&v->type.shape, &count))
            MEST_TRY(convert(f, v, count, inputs[k], err));
        mest_program_feed(p, id, v->type.dtype != f->type ? f->converted : inputs[k]);
    }
    return MEST_OK;
}
