/* SPDX-License-Identifier: Apache-2.0 */
/* A BatchNormalization that was folded into a Conv at export is put back to train with, and folded again when the model is written.
 *
 *   y = Conv(x) becomes y = scale * (Conv(x) - mean) / sqrt(var + epsilon) + shift
 *
 * At first mean 0, var 1 - epsilon, scale 1, shift 0: nothing changes. Then mean and variance of Conv(x) are measured over data, and
 * scale = sqrt(var + epsilon), shift = mean: still nothing changes in evaluation, and in training, where the statistics of the batch are
 * used, only as much as the batch differs from the data. With the folded weights of a trained network these are, up to the sign of scale, the
 * scale and shift the layer had: its output had the standard deviation |scale| and the mean shift. The Conv's own bias does nothing under a
 * normalisation and stays as it is. Written back, with f = scale / sqrt(var + epsilon):  weight * f  and  (bias - mean) * f + shift. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "ops/nn.h"
#include "runtime/model.h"
#include "runtime/survey.h"

static const double epsilon = 1e-5;

int mest_model_folded_count(const mest_model *model) { return model->n_folded; }

mest_status mest_model_folded(const mest_model *model, int index, mest_folded_info *info, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(info && info->struct_size >= 2 * sizeof(uint32_t), err, MEST_E_ARGUMENT, "folded: info.struct_size is not set");
    MEST_CHECK(index >= 0 && index < model->n_folded, err, MEST_E_ARGUMENT, "folded layer %d of %d", index, model->n_folded);
    const mest_folded *f = &model->folded[index];
    const mest_node *n = &model->graph.nodes[f->node];
    mest_folded_info own = {.struct_size = sizeof own, .node = n->name, .weight = model->params[model->graph.values[n->in[1]].param].name, .sign = f->sign};
    uint32_t size = info->struct_size < sizeof own ? info->struct_size : (uint32_t)sizeof own;
    memcpy((char *)info + sizeof size, (const char *)&own + sizeof size, size - sizeof size);
    return MEST_OK;
}

static mest_status out_of_memory(mest_error *err) { return mest_fail(err, MEST_E_NOMEM, "unfold: out of memory"); }

/* A parameter that is not in the file: `count` times `value`. */
static mest_status add_param(mest_model *m, const char *weight, const char *end, const char *layer, const char *what, mest_role role, int64_t count, double value,
                             mest_id *id, mest_error *err)
{
    if (!MEST_REGION_GROW(&m->region, m->params, m->n_params, m->cap_params))
        return out_of_memory(err);
    mest_param *p = &m->params[m->n_params];
    *p = (mest_param){.role = role, .count = count, .shape = {.rank = 1, .dim = {count}}, .payload = {.dtype = MEST_F32, .count = count}, .loaded = true};
    p->name = mest_region_printf(&m->region, "%s.%s", weight, end);
    p->role_reason = mest_region_printf(&m->region, "%s of the BatchNormalization unfolded behind '%.200s'", what, layer);
    p->values = mest_alloc(&m->heap, (size_t)count + 16, sizeof *p->values);
    if (!p->values)
        return out_of_memory(err);
    m->n_params++; /* owned by the model from here on */
    if (!p->name || !p->role_reason)
        return out_of_memory(err);
    for (int64_t i = 0; i < count + 16; i++)
        p->values[i] = i < count ? (mest_real)value : 0;
    mest_type type = {.dtype = MEST_F32, .shape = p->shape};
    *id = mest_graph_value(&m->graph, p->name, MEST_VALUE_PARAM, &type);
    if (*id == MEST_NONE)
        return out_of_memory(err);
    m->graph.values[*id].param = m->n_params - 1;
    return MEST_OK;
}

static mest_status unfold(mest_model *m, mest_id conv, mest_bn_fold *fold, mest_error *err)
{
    mest_graph *g = &m->graph;
    const mest_node *n = &g->nodes[conv];
    const int32_t weight = g->values[n->in[1]].param;
    const char *name = m->params[weight].name, *layer = n->name;
    const int64_t channels = m->params[weight].shape.dim[0];
    mest_id in[5], y = n->out[0], before;
    *fold = (mest_bn_fold){.weight = weight, .bias = n->n_in > 2 && n->in[2] != MEST_NONE ? g->values[n->in[2]].param : -1, .origin = n->origin, .epsilon = epsilon};
    MEST_TRY(add_param(m, name, "bn.weight", layer, "scale", MEST_ROLE_TRAINABLE, channels, 1, &in[1], err));
    MEST_TRY(add_param(m, name, "bn.bias", layer, "bias", MEST_ROLE_TRAINABLE, channels, 0, &in[2], err));
    MEST_TRY(add_param(m, name, "bn.running_mean", layer, "running mean", MEST_ROLE_STATISTIC, channels, 0, &in[3], err));
    MEST_TRY(add_param(m, name, "bn.running_var", layer, "running variance", MEST_ROLE_STATISTIC, channels, 1 - epsilon, &in[4], err));
    fold->scale = m->n_params - 4; /* shift, mean, variance follow */
    fold->measured = mest_region_alloc(&m->region, 2 * (size_t)channels, sizeof *fold->measured);
    mest_type type = g->values[y].type;
    char text[320];
    snprintf(text, sizeof text, "%.250s/folded", g->values[y].name);
    before = fold->measured ? mest_graph_value(g, text, MEST_VALUE_RESULT, &type) : MEST_NONE;
    mest_bn_params *p = mest_region_alloc(&g->region, 1, sizeof *p);
    const mest_op *op = mest_op_find("", "BatchNormalization", 15);
    if (before == MEST_NONE || !p || !op)
        return out_of_memory(err);
    *p = (mest_bn_params){.epsilon = epsilon, .momentum = 0.9, .spatial = 1};
    g->nodes[conv].out[0] = before;
    g->values[before].producer = conv;
    g->values[before].output = 0;
    in[0] = before;
    snprintf(text, sizeof text, "%.250s/BatchNormalization", layer);
    mest_id bn = mest_graph_node(g, text, op, p, 5, in, 1, &y);
    if (bn == MEST_NONE)
        return out_of_memory(err);
    if (fold->bias >= 0) {
        mest_param *bias = &m->params[fold->bias];
        bias->role = MEST_ROLE_CONSTANT;
        bias->role_reason = mest_region_printf(&m->region, "bias of Conv '%.200s': does nothing under the BatchNormalization unfolded behind it", layer);
        if (!bias->role_reason)
            return out_of_memory(err);
    }
    return MEST_OK;
}

/* Nodes have new numbers after sorting; what the model knows by number follows. */
static mest_status renumber(mest_model *m, int32_t n_before, mest_error *err)
{
    mest_graph *g = &m->graph;
    MEST_TRY(mest_graph_sort(g, err));
    mest_id *place = mest_alloc(&m->heap, (size_t)n_before + 1, sizeof *place);
    if (!place)
        return out_of_memory(err);
    for (mest_id i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i].source >= 0)
            place[g->nodes[i].source] = i;
        g->nodes[i].source = i;
    }
    for (int32_t k = 0; k < m->n_imported; k++)
        if (m->imported[k].node != MEST_NONE)
            m->imported[k].node = place[m->imported[k].node];
    mest_free(&m->heap, place, (size_t)n_before + 1, sizeof *place);
    m->n_folded = 0; /* none is folded any more */
    return mest_graph_check(g, "unfold", err);
}

mest_status mest_model_unfold_batch_norm(mest_model *m, int *n_layers, mest_error *err)
{
    mest_error_clear(err);
    if (n_layers)
        *n_layers = 0;
    MEST_CHECK(m->n_sessions == 0 && !m->sparsified, err, MEST_E_STATE, "unfold: the model has a session or was made sparse already");
    if (m->n_folded == 0)
        return MEST_OK;
    const int32_t before = m->graph.n_nodes, n = m->n_folded;
    m->folds = mest_region_alloc(&m->region, (size_t)n, sizeof *m->folds);
    if (!m->folds)
        return out_of_memory(err);
    for (int32_t i = 0; i < n; i++) {
        MEST_TRY(unfold(m, m->folded[i].node, &m->folds[i], err));
        m->n_folds++;
    }
    for (int32_t i = 0; i < n; i++) { /* the array of parameters does not move any more */
        m->params[m->folds[i].weight].fold = &m->folds[i];
        if (m->folds[i].bias >= 0)
            m->params[m->folds[i].bias].fold = &m->folds[i];
    }
    if (n_layers)
        *n_layers = n;
    return renumber(m, before, err);
}

void mest_fold_measured(mest_model *m)
{
    for (int32_t i = 0; i < m->n_folds; i++) {
        const mest_bn_fold *f = &m->folds[i];
        mest_param *p = &m->params[f->scale];
        const int64_t n = p->count;
        for (int64_t c = 0; c < n; c++) {
            const mest_real mean = (mest_real)f->measured[c], var = (mest_real)f->measured[n + c];
            p[2].values[c] = mean;
            p[3].values[c] = var;
            p[0].values[c] = (mest_real)sqrt((double)var + f->epsilon);
            p[1].values[c] = mean;
        }
        for (int k = 0; k < 4; k++)
            p[k].value_version++;
    }
    m->folds_measured = true;
}

void mest_fold_channel(const mest_model *m, const mest_bn_fold *f, int64_t channel, double *factor, double *shift)
{
    const mest_param *p = &m->params[f->scale];
    *factor = (double)p[0].values[channel] / sqrt((double)p[3].values[channel] + f->epsilon);
    *shift = (double)p[1].values[channel] - (double)p[2].values[channel] * *factor;
}
