/* SPDX-License-Identifier: Apache-2.0 */
/* Transfer learning: the last layer is replaced by a fresh one with another number of classes. From the output back through what may follow a
 * layer (activations, pools, changes of shape, a bias that is added) to the last Gemm, MatMul, Conv or ConvTranspose with a weight; then forward again
 * through everything that reads it, to see along which axis of which value the classes lie, and to change sizes that are written down. Nothing of the
 * model is changed before all of it is known to be possible.
 *
 * Values are drawn as PyTorch's modules do it: weight and bias uniform in +-1 / sqrt(fan_in), where fan_in is the size of axis 1 times the kernel. */
#include <inttypes.h>
#include <math.h>

#include "mest/plugin.h"
#include "ops/elements.h"
#include "ops/nn.h"
#include "runtime/head_search.h"
#include "runtime/match.h"
#include "runtime/rng.h"
#include "runtime/snapshot.h"

static mest_status out_of_memory(const head_search *s) { return mest_fail(s->err, MEST_E_NOMEM, "new head: out of memory"); }

bool head_is_one_of(const mest_node *n, const char *const *names)
{
    for (; *names; names++)
        if (mest_is_op(n, *names))
            return true;
    return false;
}

const char *const head_elementwise[] = {"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh", "Relu", "Clip", "LeakyRelu", "Elu", "Softplus", "HardSwish", "Identity",
                                          "Dropout", "Cast", "Exp", "Log", NULL};
const char *const head_pools[] = {"GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool", NULL};
const char *const head_shapes[] = {"Flatten", "Reshape", "Squeeze", "Transpose", "Resize", "ReduceMean", "ReduceMax", "ReduceSum", NULL};
const char *const head_sums[] = {"Add", "Sub", "Mul", "Div", NULL};
static const char *const layers[] = {"Gemm", "MatMul", "Conv", "ConvTranspose", NULL};

mest_id head_other_operand(const mest_graph *g, const mest_node *n, int *k)
{
    for (*k = 0; *k < 2; ++*k) {
        const mest_value *other = &g->values[n->in[1 - *k]];
        if (g->values[n->in[*k]].kind == MEST_VALUE_RESULT && (other->kind == MEST_VALUE_PARAM || other->kind == MEST_VALUE_CONST))
            return n->in[1 - *k];
    }
    return MEST_NONE;
}

int64_t head_count(const mest_graph *g, mest_id v)
{
    int64_t n;
    return mest_shape_count(&g->values[v].type.shape, &n) ? n : -1;
}

/* ---- back from the output ---- */

/* The weight of a layer: a parameter, or one that is transposed for it. */
static mest_status take_weight(head_search *s, const mest_node *n)
{
    const mest_graph *g = s->g;
    const bool is_gemm = mest_is_op(n, "Gemm"), is_matmul = mest_is_op(n, "MatMul");
    mest_id w = n->in[1];
    bool flipped = is_gemm && ((const mest_gemm_params *)n->params)->trans_b;
    if ((is_gemm || is_matmul) && g->values[w].kind == MEST_VALUE_RESULT && mest_is_op(&g->nodes[g->values[w].producer], "Transpose") &&
        head_param(g, g->nodes[g->values[w].producer].in[0]) >= 0) {
        flipped = !flipped;
        w = g->nodes[g->values[w].producer].in[0];
    }
    s->weight = head_param(g, w);
    MEST_CHECK(s->weight >= 0, s->err, MEST_E_UNSUPPORTED, "new head: the last layer before output '%s' is %s '%s', which has no weight of its own (%s)", s->output, n->op->name,
               n->name, g->values[w].kind == MEST_VALUE_CONST ? "it is a constant" : "it is computed, or another activation");
    const mest_shape *shape = &s->m->params[s->weight].shape;
    if (is_gemm || is_matmul) {
        MEST_CHECK(shape->rank == 2, s->err, MEST_E_UNSUPPORTED, "new head: the weight '%s' of %s '%s' has %d axes, not 2", s->m->params[s->weight].name, n->op->name, n->name,
                   shape->rank);
        MEST_CHECK(!is_gemm || !((const mest_gemm_params *)n->params)->trans_a, s->err, MEST_E_UNSUPPORTED, "new head: Gemm '%s' has a transposed input", n->name);
        s->weight_axis = flipped ? 0 : 1;
    } else {
        const int64_t group = ((const mest_conv_params *)n->params)->group;
        MEST_CHECK(group <= 1, s->err, MEST_E_UNSUPPORTED, "new head: %s '%s' has %" PRId64 " groups", n->op->name, n->name, group);
        s->weight_axis = mest_is_op(n, "Conv") ? 0 : 1;
    }
    s->was = shape->dim[s->weight_axis];
    if (!is_matmul && n->n_in > 2 && n->in[2] != MEST_NONE) {
        s->bias = head_param(g, n->in[2]);
        MEST_CHECK(s->bias >= 0, s->err, MEST_E_UNSUPPORTED, "new head: the bias of %s '%s' is no parameter", n->op->name, n->name);
    }
    return MEST_OK;
}

static mest_status find_layer(head_search *s, mest_id v)
{
    const mest_graph *g = s->g;
    int32_t added = -1; /* by a node of its own */
    for (int hops = 0; hops <= g->n_nodes; hops++) {
        const mest_id id = g->values[v].producer;
        MEST_CHECK(g->values[v].kind == MEST_VALUE_RESULT && id != MEST_NONE, s->err, MEST_E_UNSUPPORTED, "new head: there is no layer with a weight before output '%s'", s->output);
        const mest_node *n = &g->nodes[id];
        int k = 0;
        if (head_is_one_of(n, layers)) {
            s->layer = id;
            MEST_TRY(take_weight(s, n));
            if (added >= 0 && s->bias < 0 && s->m->params[added].count == s->was)
                s->bias = added;
            return MEST_OK;
        }
        if (head_is_one_of(n, head_sums)) {
            mest_id other = head_other_operand(g, n, &k);
            MEST_CHECK(other != MEST_NONE, s->err, MEST_E_UNSUPPORTED, "new head: %s '%s' before output '%s' combines two activations: there is no one last layer", n->op->name,
                       n->name, s->output);
            if (mest_is_op(n, "Add") && head_param(g, other) >= 0 && head_count(g, other) > 1)
                added = head_param(g, other);
        } else {
            MEST_CHECK(head_is_one_of(n, head_elementwise) || head_is_one_of(n, head_pools) || head_is_one_of(n, head_shapes), s->err, MEST_E_UNSUPPORTED,
                       "new head: %s '%s' stands between the last layer and output '%s'; a layer is only looked for behind activations, pools and changes of shape", n->op->name,
                       n->name, s->output);
        }
        v = n->in[k];
    }
    return mest_fail(s->err, MEST_E_INTERNAL, "new head: the graph has a cycle");
}

/* One node reads it, and no output is it. */
static mest_status check_own(const head_search *s, int32_t param, const char *what)
{
    const mest_graph *g = s->g;
    const mest_param *p = &s->m->params[param];
    const mest_node *layer = &g->nodes[s->layer];
    int adds = 0;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        const mest_node *n = &g->nodes[i];
        int uses = 0;
        bool transposed = false;
        for (int k = 0; k < n->n_in; k++)
            uses += n->in[k] != MEST_NONE && (head_param(g, n->in[k]) == param || (param == s->weight && n->in[k] == layer->in[1]));
        if (uses == 1 && (i == s->layer || (param == s->bias && mest_is_op(n, "Add") && adds++ == 0)))
            continue;
        for (int k = 0; k < layer->n_in; k++)
            transposed |= uses == 1 && n->out[0] == layer->in[k];
        MEST_CHECK(uses == 0 || transposed, s->err, MEST_E_UNSUPPORTED,
                   "new head: the %s '%s' of %s '%s' is shared: %s '%s' reads it too. Another number of classes would not fit there; untie them before the export", what, p->name,
                   layer->op->name, layer->name, n->op->name, n->name);
    }
    for (int i = 0; i < g->n_outputs; i++)
        MEST_CHECK(head_param(g, g->outputs[i]) != param, s->err, MEST_E_UNSUPPORTED, "new head: the %s '%s' is an output of the model", what, p->name);
    return MEST_OK;
}

/* ---- the change ---- */

static double fan_in_of(const head_search *s)
{
    const mest_shape *w = &s->m->params[s->weight].shape;
    const bool is_conv = w->rank > 2 || mest_is_op(&s->g->nodes[s->layer], "Conv") || mest_is_op(&s->g->nodes[s->layer], "ConvTranspose");
    if (!is_conv)
        return (double)w->dim[1 - s->weight_axis];
    return (double)(s->weight_axis == 1 ? s->classes : w->dim[1]) * (double)mest_shape_span(w, 2, w->rank);
}

/* Values keyed by the seed and the name: they do not depend on what else the model has. They are drawn when they are read, so that a head that
 * becomes sparse never lies densely in memory. */
static mest_status draw(head_search *s, int32_t param, int axis, double bound, uint64_t seed)
{
    mest_param *p = &s->m->params[param];
    mest_shape shape = p->shape;
    int64_t count;
    uint32_t key = 2166136261u;
    for (const char *c = p->name; *c; c++)
        key = (key ^ (unsigned char)*c) * 16777619u;
    shape.dim[axis] = s->classes;
    MEST_CHECK(mest_shape_count(&shape, &count) && count < (int64_t)1 << 31, s->err, MEST_E_LIMIT, "new head: '%s' would be too large", p->name);
    p->shape = shape;
    p->count = count;
    p->payload = (mest_payload){.dtype = p->payload.dtype, .count = count, .bound = bound, .seed = seed, .stream = (uint64_t)MEST_STREAM_HEAD << 32 | key};
    p->role = MEST_ROLE_TRAINABLE;
    p->stated = false;
    p->reshaped = true;
    for (mest_id v = 0; v < s->g->n_values; v++)
        if (head_param(s->g, v) == param)
            s->g->values[v].type.shape = shape;
    return MEST_OK;
}

static mest_status apply(head_search *s, uint64_t seed)
{
    mest_graph *g = s->g;
    const double bound = 1 / sqrt(fmax(fan_in_of(s), 1));
    if (s->bias >= 0)
        MEST_TRY(draw(s, s->bias, s->bias_axis, bound, seed));
    MEST_TRY(draw(s, s->weight, s->weight_axis, bound, seed));
    for (mest_id v = 0; v < g->n_values; v++)
        if (s->axis[v] != HEAD_NOWHERE && g->values[v].type.dtype) {
            mest_shape *shape = &g->values[v].type.shape;
            const int at = s->axis[v] < 0 ? s->axis[v] + shape->rank : s->axis[v];
            if (at >= 0 && at < shape->rank && shape->dim[at] > 0)
                shape->dim[at] = shape->dim[at] / s->was * s->classes;
        }
    for (int32_t i = 0; i < s->head->n_sizes; i++)
        for (mest_id v = 0; v < g->n_values; v++)
            if (g->values[v].kind == MEST_VALUE_CONST && g->values[v].name == s->head->sizes[i].name)
                g->values[v].data = s->head->sizes[i].data;
    int32_t kept = 0; /* no BatchNormalization was folded into a layer that is new */
    for (int32_t i = 0; i < s->m->n_folded; i++)
        if (s->m->folded[i].node != s->layer)
            s->m->folded[kept++] = s->m->folded[i];
    s->m->n_folded = kept;
    return MEST_OK;
}

static mest_status find_output(const head_search *s, const char *name, mest_id *v)
{
    const mest_graph *g = s->g;
    MEST_CHECK(g->n_outputs > 0, s->err, MEST_E_UNSUPPORTED, "new head: the model has no output");
    *v = g->outputs[0];
    if (!name)
        return MEST_OK;
    for (int i = 0; i < g->n_outputs; i++)
        if (!strcmp(g->values[g->outputs[i]].name, name)) {
            *v = g->outputs[i];
            return MEST_OK;
        }
    return mest_fail(s->err, MEST_E_ARGUMENT, "new head: the model has no output '%s'", name);
}

mest_status mest_model_new_head(mest_model *m, const char *output, int64_t classes, uint64_t seed, mest_head_info *info, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(m && (!info || info->struct_size >= 2 * sizeof(uint32_t)), err, MEST_E_ARGUMENT, "new head: no model, or info.struct_size is not set");
    MEST_CHECK(classes >= 1 && classes <= 1 << 24, err, MEST_E_ARGUMENT, "new head: %" PRId64 " classes are not 1 to 2^24", classes);
    MEST_CHECK(m->n_sessions == 0 && !m->sparsified && m->n_folds == 0 && !m->head, err, MEST_E_STATE,
               "new head: it comes before sessions, sparsification and unfolded BatchNormalization, and once");
    MEST_TRY(mest_registry_idle(m, false, "new head", err));
    MEST_CHECK(m->refusal.code == MEST_OK, err, m->refusal.code, "new head: %s", m->refusal.msg);
    const size_t n = (size_t)m->graph.n_values + 1;
    head_search s = {.m = m, .g = &m->graph, .classes = classes, .weight = -1, .bias = -1, .err = err};
    mest_id v = MEST_NONE;
    MEST_TRY(find_output(&s, output, &v));
    s.output = m->graph.values[v].name;
    s.axis = mest_region_alloc(&m->region, n, sizeof *s.axis);
    s.rank = mest_region_alloc(&m->region, n, sizeof *s.rank);
    s.head = mest_region_alloc(&m->region, 1, sizeof *s.head);
    if (!s.axis || !s.rank || !s.head)
        return out_of_memory(&s);
    s.head->results = mest_region_alloc(&m->region, n, sizeof *s.head->results);
    s.head->sizes = mest_region_alloc(&m->region, n, sizeof *s.head->sizes);
    if (!s.head->results || !s.head->sizes)
        return out_of_memory(&s);
    for (size_t i = 0; i < n; i++)
        s.axis[i] = HEAD_NOWHERE;
    MEST_TRY(find_layer(&s, v));
    MEST_TRY(check_own(&s, s.weight, "weight"));
    if (s.bias >= 0)
        MEST_TRY(check_own(&s, s.bias, "bias"));
    MEST_CHECK(s.was > 0 && (s.bias < 0 || m->params[s.bias].count == s.was), err, MEST_E_UNSUPPORTED, "new head: the bias '%s' does not have a number for each of %" PRId64 " classes",
               s.bias < 0 ? "" : m->params[s.bias].name, s.was);
    for (int i = 0; s.bias >= 0 && i < m->params[s.bias].shape.rank; i++)
        if (m->params[s.bias].shape.dim[i] == s.was)
            s.bias_axis = i;
    MEST_TRY(head_follow(&s));
    MEST_TRY(apply(&s, seed));
    s.head->classes = classes;
    s.head->was = s.was;
    s.head->weight = s.weight;
    s.head->bias = s.bias;
    m->head = s.head;
    const mest_node *layer = &m->graph.nodes[s.layer];
    mest_head_info own = {.struct_size = sizeof own, .node = layer->name, .op = layer->op->name, .weight = m->params[s.weight].name,
                          .bias = s.bias < 0 ? NULL : m->params[s.bias].name, .classes_before = s.was};
    if (info) {
        const uint32_t size = info->struct_size < sizeof own ? info->struct_size : (uint32_t)sizeof own;
        memcpy((char *)info + sizeof size, (const char *)&own + sizeof size, size - sizeof size);
    }
    return MEST_OK;
}
