/* SPDX-License-Identifier: Apache-2.0 */
/* The samples of a check: the first ones of a source, or made up for a model whose sizes are known. */
#include <inttypes.h>
#include <math.h>

#include "runtime/gradcheck/gradcheck.h"

static size_t product(const int64_t *dim, int rank)
{
    size_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= (size_t)dim[i];
    return n;
}

static mest_status out_of_memory(gradcheck *c) { return mest_fail(c->err, MEST_E_NOMEM, "gradcheck: out of memory"); }

static int n_inputs(const gradcheck *c) { return c->info.n_inputs ? c->info.n_inputs : 1; }

static void input_like(const gradcheck *c, int k, mest_sample_input *in)
{
    if (c->info.n_inputs) {
        *in = c->info.input[k];
        return;
    }
    *in = (mest_sample_input){.type = c->info.input_type, .rank = c->info.input_rank};
    memcpy(in->dim, c->info.input_dim, sizeof in->dim);
}

/* Sizes of every input and what the targets are, without a source: as the model says. */
static mest_status describe(gradcheck *c)
{
    const mest_graph *g = &c->model->graph;
    mest_source_info *info = &c->info;
    *info = (mest_source_info){.struct_size = sizeof *info, .count = c->n, .n_inputs = g->n_inputs, .has_targets = true};
    MEST_CHECK(g->n_inputs >= 1 && g->n_inputs <= MEST_SAMPLE_MAX_INPUTS, c->err, MEST_E_LIMIT, "gradcheck: the model has %d inputs", g->n_inputs);
    for (int k = 0; k < g->n_inputs; k++) {
        const mest_value *v = &g->values[g->inputs[k]];
        mest_sample_input *in = &info->input[k];
        MEST_CHECK(v->type.shape.rank >= 1, c->err, MEST_E_SHAPE, "gradcheck: input '%s' has no batch axis; give data", v->name);
        in->type = v->type.dtype == MEST_F32 ? MEST_SAMPLE_F32 : MEST_SAMPLE_I64;
        in->rank = v->type.shape.rank - 1;
        for (int i = 0; i < in->rank; i++) {
            in->dim[i] = v->type.shape.dim[i + 1];
            MEST_CHECK(in->dim[i] >= 0, c->err, MEST_E_SHAPE, "gradcheck: input '%s' has a size that is free; give data", v->name);
        }
    }
    info->input_type = info->input[0].type;
    info->input_rank = info->input[0].rank;
    memcpy(info->input_dim, info->input[0].dim, sizeof info->input_dim);
    info->has_targets = false;
    MEST_TRY(mest_session_set_source(c->session, info, c->err));
    MEST_TRY(mest_session_shapes(c->session, c->err)); /* the targets follow from the output */
    info->has_targets = true;
    info->target_type = (mest_sample_type)c->session->target_type;
    info->target_rank = c->session->target_shape.rank;
    memcpy(info->target_dim, c->session->target_shape.dim, (size_t)info->target_rank * sizeof info->target_dim[0]);
    return MEST_OK;
}

static mest_status take_memory(gradcheck *c)
{
    for (int k = 0; k < n_inputs(c); k++) {
        mest_sample_input in;
        input_like(c, k, &in);
        c->input_count[k] = (size_t)c->n * product(in.dim, in.rank);
        c->input_bytes[k] = c->input_count[k] * (in.type == MEST_SAMPLE_I64 ? 8 : 4);
        c->inputs[k] = mest_calloc(c->session->heap, c->input_bytes[k] + 64, 1);
        if (in.type == MEST_SAMPLE_F32)
            c->real_inputs[k] = mest_calloc(c->session->heap, c->input_count[k] + 16, sizeof(mest_real));
        if (!c->inputs[k] || (in.type == MEST_SAMPLE_F32 && !c->real_inputs[k]))
            return out_of_memory(c);
    }
    c->target_count = (size_t)c->n * product(c->info.target_dim, c->info.target_rank);
    c->target_bytes = c->target_count * (c->info.target_type == MEST_SAMPLE_I64 ? 8 : 4);
    c->targets = mest_calloc(c->session->heap, c->target_bytes + 64, 1);
    c->real_targets = mest_calloc(c->session->heap, c->target_count + 16, sizeof(mest_real));
    return c->targets && c->real_targets ? MEST_OK : out_of_memory(c);
}

void gradcheck_data_free(gradcheck *c)
{
    for (int k = 0; c->session && k < MEST_SAMPLE_MAX_INPUTS; k++) {
        mest_free(c->session->heap, c->inputs[k], c->input_bytes[k] + 64, 1);
        mest_free(c->session->heap, c->real_inputs[k], c->input_count[k] + 16, sizeof(mest_real));
    }
    if (c->session) {
        mest_free(c->session->heap, c->targets, c->target_bytes + 64, 1);
        mest_free(c->session->heap, c->real_targets, c->target_count + 16, sizeof(mest_real));
    }
}

/* Classes of the output: the size of the axis that the targets lack. */
static int64_t classes(const gradcheck *c)
{
    mest_program *p;
    if (mest_session_program(c->session, MEST_PROGRAM_INFER, c->n, &p, NULL) != MEST_OK)
        return 2;
    const mest_shape *y = &p->graph.values[p->logits].type.shape;
    return y->rank ? y->dim[y->rank - 1] : 2;
}

static void make_up(gradcheck *c)
{
    const uint64_t key = c->run.seed;
    for (int k = 0; k < n_inputs(c); k++)
        for (size_t i = 0; i < c->input_count[k]; i++)
            if (c->real_inputs[k])
                ((float *)c->inputs[k])[i] = (float)(1.5 * gradcheck_noise(key + (uint64_t)k, i));
            else
                ((int64_t *)c->inputs[k])[i] = (mest_rng(key + (uint64_t)k, 79, i) & 3) != 0; /* ids that any table has; masks that keep most */
    const int64_t n_classes = c->info.target_type == MEST_SAMPLE_I64 ? classes(c) : 0;
    const bool bce = !strcmp(c->session->config.loss, "bce");
    for (size_t i = 0; i < c->target_count; i++)
        if (c->info.target_type == MEST_SAMPLE_I64)
            ((int64_t *)c->targets)[i] = (int64_t)mest_rng_below(key, 80, i, n_classes > 0 ? (uint64_t)n_classes : 1);
        else
            ((float *)c->targets)[i] = bce ? (float)(mest_rng(key, 81, i) & 1) : (float)gradcheck_noise(key + 99, i);
}

static mest_status read_source(gradcheck *c)
{
    const mest_source *source = c->o->source;
    int64_t *ids = mest_alloc(c->session->heap, (size_t)c->n, sizeof *ids);
    if (!ids)
        return out_of_memory(c);
    for (int64_t i = 0; i < c->n; i++)
        ids[i] = i % c->info.count;
    mest_fetch how = {.struct_size = sizeof how, .seed = c->run.seed};
    mest_status status = c->info.n_inputs && source->struct_size >= offsetof(mest_source, fetch_inputs) + sizeof source->fetch_inputs && source->fetch_inputs
                             ? source->fetch_inputs(source->self, ids, c->n, &how, c->inputs, c->targets, c->err)
                             : source->fetch(source->self, ids, c->n, &how, c->inputs[0], c->targets, c->err);
    mest_free(c->session->heap, ids, (size_t)c->n, sizeof *ids);
    return status;
}

mest_status gradcheck_data(gradcheck *c)
{
    const mest_source *source = c->o->source;
    if (source) {
        c->info = (mest_source_info){.struct_size = sizeof c->info};
        MEST_TRY(source->info(source->self, &c->info, c->err));
        MEST_CHECK(c->info.count > 0 && c->info.has_targets, c->err, MEST_E_DATA, "gradcheck: the data have no samples, or no targets");
        MEST_TRY(mest_session_set_source(c->session, &c->info, c->err));
    } else {
        MEST_TRY(describe(c));
    }
    MEST_TRY(take_memory(c));
    if (source)
        MEST_TRY(read_source(c));
    else
        make_up(c);
    for (int k = 0; k < n_inputs(c); k++)
        for (size_t i = 0; c->real_inputs[k] && i < c->input_count[k]; i++)
            c->real_inputs[k][i] = (mest_real)((const float *)c->inputs[k])[i];
    for (size_t i = 0; c->info.target_type == MEST_SAMPLE_F32 && i < c->target_count; i++)
        c->real_targets[i] = (mest_real)((const float *)c->targets)[i];
    return MEST_OK;
}

mest_status gradcheck_feed(gradcheck *c)
{
    const void *inputs[MEST_SAMPLE_MAX_INPUTS];
    for (int k = 0; k < n_inputs(c); k++)
        inputs[k] = c->inputs[k];
    MEST_TRY(mest_session_feed(c->session, c->p, inputs, c->err)); /* converts whole numbers */
    for (int k = 0; k < c->session->n_feeds; k++)
        if (c->real_inputs[k] && c->session->feed[k].type == c->p->graph.values[c->p->graph.inputs[c->session->feed[k].graph_input]].type.dtype)
            mest_program_feed(c->p, c->p->graph.inputs[c->session->feed[k].graph_input], c->real_inputs[k]);
    mest_program_feed(c->p, c->p->target, c->info.target_type == MEST_SAMPLE_F32 ? (const void *)c->real_targets : c->targets);
    return MEST_OK;
}
