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
#include "runtime/head.h"
#include "runtime/match.h"
#include "runtime/rng.h"
#include "runtime/snapshot.h"

enum { NOWHERE = INT32_MIN };

typedef struct search {
    mest_model *m;
    mest_graph *g;
    const char *output;     /* name, for messages */
    int64_t classes, was;
    mest_id layer;
    int32_t weight, bias;   /* parameters */
    int weight_axis;        /* of the classes */
    int *axis;              /* per value: that of the classes, below 0 from the end; NOWHERE */
    int *rank;              /* 0: not known */
    mest_head *head;
    mest_error *err;
} search;

static mest_status out_of_memory(const search *s) { return mest_fail(s->err, MEST_E_NOMEM, "new head: out of memory"); }

static bool is_one_of(const mest_node *n, const char *const *names)
{
    for (; *names; names++)
        if (mest_is_op(n, *names))
            return true;
    return false;
}

static const char *const elementwise[] = {"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh", "Relu", "Clip", "LeakyRelu", "Elu", "Softplus", "HardSwish", "Identity",
                                          "Dropout", "Cast", "Exp", "Log", NULL};
static const char *const pools[] = {"GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool", NULL};
static const char *const shapes[] = {"Flatten", "Reshape", "Squeeze", "Transpose", "Resize", "ReduceMean", "ReduceMax", "ReduceSum", NULL};
static const char *const sums[] = {"Add", "Sub", "Mul", "Div", NULL};
static const char *const layers[] = {"Gemm", "MatMul", "Conv", "ConvTranspose", NULL};

static int32_t param_of(const mest_graph *g, mest_id v) { return v != MEST_NONE && g->values[v].kind == MEST_VALUE_PARAM ? g->values[v].param : -1; }

/* The other operand of a sum or product is a parameter or a constant: its value, and in *k which input the activation is. */
static mest_id other_operand(const mest_graph *g, const mest_node *n, int *k)
{
    for (*k = 0; *k < 2; ++*k) {
        const mest_value *other = &g->values[n->in[1 - *k]];
        if (g->values[n->in[*k]].kind == MEST_VALUE_RESULT && (other->kind == MEST_VALUE_PARAM || other->kind == MEST_VALUE_CONST))
            return n->in[1 - *k];
    }
    return MEST_NONE;
}

static int64_t count_of(const mest_graph *g, mest_id v)
{
    int64_t n;
    return mest_shape_count(&g->values[v].type.shape, &n) ? n : -1;
}

/* ---- back from the output ---- */

/* The weight of a layer: a parameter, or one that is transposed for it. */
static mest_status take_weight(search *s, const mest_node *n)
{
    const mest_graph *g = s->g;
    const bool is_gemm = mest_is_op(n, "Gemm"), is_matmul = mest_is_op(n, "MatMul");
    mest_id w = n->in[1];
    bool flipped = is_gemm && ((const mest_gemm_params *)n->params)->trans_b;
    if ((is_gemm || is_matmul) && g->values[w].kind == MEST_VALUE_RESULT && mest_is_op(&g->nodes[g->values[w].producer], "Transpose") &&
        param_of(g, g->nodes[g->values[w].producer].in[0]) >= 0) {
        flipped = !flipped;
        w = g->nodes[g->values[w].producer].in[0];
    }
    s->weight = param_of(g, w);
    MEST_CHECK(s->weight >= 0, s->err, MEST_E_UNSUPPORTED, "new head: the last layer before output '%s' is %s '%s', which has no weight of its own (%s)", s->output, n->op->name,
               n->name, g->values[w].kind == MEST_VALUE_CONST ? "it is a constant" : "it multiplies two activations");
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
        s->bias = param_of(g, n->in[2]);
        MEST_CHECK(s->bias >= 0, s->err, MEST_E_UNSUPPORTED, "new head: the bias of %s '%s' is no parameter", n->op->name, n->name);
    }
    return MEST_OK;
}

static mest_status find_layer(search *s, mest_id v)
{
    const mest_graph *g = s->g;
    int32_t added = -1; /* by a node of its own */
    for (int hops = 0; hops <= g->n_nodes; hops++) {
        const mest_id id = g->values[v].producer;
        MEST_CHECK(g->values[v].kind == MEST_VALUE_RESULT && id != MEST_NONE, s->err, MEST_E_UNSUPPORTED, "new head: there is no layer with a weight before output '%s'", s->output);
        const mest_node *n = &g->nodes[id];
        int k = 0;
        if (is_one_of(n, layers)) {
            s->layer = id;
            MEST_TRY(take_weight(s, n));
            if (added >= 0 && s->bias < 0 && s->m->params[added].count == s->was)
                s->bias = added;
            return MEST_OK;
        }
        if (is_one_of(n, sums)) {
            mest_id other = other_operand(g, n, &k);
            MEST_CHECK(other != MEST_NONE, s->err, MEST_E_UNSUPPORTED, "new head: %s '%s' before output '%s' combines two activations: there is no one last layer", n->op->name,
                       n->name, s->output);
            if (mest_is_op(n, "Add") && param_of(g, other) >= 0 && count_of(g, other) > 1)
                added = param_of(g, other);
        } else {
            MEST_CHECK(is_one_of(n, elementwise) || is_one_of(n, pools) || is_one_of(n, shapes), s->err, MEST_E_UNSUPPORTED,
                       "new head: %s '%s' stands between the last layer and output '%s'; a layer is only looked for behind activations, pools and changes of shape", n->op->name,
                       n->name, s->output);
        }
        v = n->in[k];
    }
    return mest_fail(s->err, MEST_E_INTERNAL, "new head: the graph has a cycle");
}

/* One node reads it, and no output is it. */
static mest_status check_own(const search *s, int32_t param, const char *what)
{
    const mest_graph *g = s->g;
    const mest_param *p = &s->m->params[param];
    int uses = 0;
    for (mest_id i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++) {
            if (param_of(g, g->nodes[i].in[k]) != param)
                continue;
            MEST_CHECK(uses++ == 0, s->err, MEST_E_UNSUPPORTED,
                       "new head: the %s '%s' is shared: %s '%s' reads it too. A new number of classes would not fit there; untie it in the export", what, p->name,
                       g->nodes[i].op->name, g->nodes[i].name);
            const mest_id out = g->nodes[i].out[0];
            for (mest_id j = 0; i != s->layer && mest_is_op(&g->nodes[i], "Transpose") && j < g->n_nodes; j++)
                for (int l = 0; l < g->nodes[j].n_in; l++)
                    MEST_CHECK(g->nodes[j].in[l] != out || j == s->layer, s->err, MEST_E_UNSUPPORTED, "new head: the %s '%s' is shared, transposed, with %s '%s'", what, p->name,
                               g->nodes[j].op->name, g->nodes[j].name);
        }
    for (int i = 0; i < g->n_outputs; i++)
        MEST_CHECK(param_of(g, g->outputs[i]) != param, s->err, MEST_E_UNSUPPORTED, "new head: the %s '%s' is an output of the model", what, p->name);
    return MEST_OK;
}

/* ---- forward to the outputs ---- */

static int n_ints(const mest_graph *g, mest_id v, int64_t *x)
{
    const mest_value *value = v == MEST_NONE ? NULL : &g->values[v];
    int64_t n = value ? count_of(g, v) : 0;
    if (!value || value->kind != MEST_VALUE_CONST || value->type.dtype != MEST_I64 || n < 0 || n > MEST_MAX_RANK)
        return -1;
    memcpy(x, value->data, (size_t)n * sizeof *x);
    return (int)n;
}

static mest_status refuse(const search *s, const mest_node *n, const char *why)
{
    return mest_fail(s->err, MEST_E_UNSUPPORTED, "new head: %s '%s' behind the last layer %s", n->op->name, n->name, why);
}

/* Element `at` of the constant `v`, which only node n reads, will be the new number of classes. */
static mest_status change_sizes(search *s, const mest_node *n, mest_id v, int at)
{
    mest_head *h = s->head;
    mest_value *value = &s->g->values[v];
    const int64_t count = count_of(s->g, v);
    for (mest_id i = 0; i < s->g->n_nodes; i++)
        for (int k = 0; k < s->g->nodes[i].n_in; k++)
            if (s->g->nodes[i].in[k] == v && &s->g->nodes[i] != n)
                return refuse(s, n, "has the number of classes in a constant that other nodes read, too");
    if (!mest_onnx_can_change(s->m, value->name))
        return refuse(s, n, "has the number of classes in a constant inside of a function");
    int64_t *data = mest_region_alloc(&s->m->region, (size_t)count, sizeof *data);
    if (!data)
        return out_of_memory(s);
    memcpy(data, value->data, (size_t)count * sizeof *data);
    data[at] = s->classes;
    h->sizes[h->n_sizes++] = (mest_head_sizes){value->name, data, count};
    return MEST_OK;
}

static mest_status through_reshape(search *s, const mest_node *n, int axis, int rank, int *to_axis, int *to_rank)
{
    int64_t size[MEST_MAX_RANK];
    const int k = n_ints(s->g, n->in[1], size);
    int at = -1, places = 0;
    if (k < 0)
        return refuse(s, n, "computes its shape");
    for (int i = 0; i < k; i++)
        if (size[i] == s->was) {
            at = i;
            places++;
        }
    if (places > 1)
        return refuse(s, n, "has the old number of classes twice among its sizes");
    *to_rank = k;
    if (places == 1) {
        *to_axis = at;
        return change_sizes(s, n, n->in[1], at);
    }
    for (int i = 0; i < k; i++) /* [0, -1], [1, -1], [N, -1, 1, 1]: what is left over are the classes; 0 keeps the size of its axis */
        if ((size[i] == 0 && i == axis) || (size[i] == -1 && i > 0 && axis == 1 && rank > 0))
            at = i;
    if (at < 0)
        return refuse(s, n, "hides along which axis the classes lie");
    *to_axis = at;
    return MEST_OK;
}

static mest_status through_reduction(search *s, const mest_node *n, bool keep, int axis, int rank, int *to_axis, int *to_rank)
{
    int64_t axes[MEST_MAX_RANK];
    const int k = n->n_in > 1 && n->in[1] != MEST_NONE ? n_ints(s->g, n->in[1], axes) : -1;
    if (k < 1 || rank == 0 || axis < 0)
        return refuse(s, n, "has axes that the file does not say");
    for (int i = 0; i < k; i++) {
        const int64_t a = axes[i] < 0 ? axes[i] + rank : axes[i];
        if (a == axis)
            return refuse(s, n, "takes the axis of the classes away");
        *to_axis -= !keep && a < axis;
    }
    *to_rank = keep ? rank : rank - k;
    return MEST_OK;
}

static mest_status through_shape(search *s, const mest_node *n, int axis, int rank, int *to_axis, int *to_rank)
{
    if (mest_is_op(n, "Reshape"))
        return through_reshape(s, n, axis, rank, to_axis, to_rank);
    if (mest_is_op(n, "Squeeze"))
        return through_reduction(s, n, false, axis, rank, to_axis, to_rank);
    if (mest_is_op(n, "Flatten")) {
        *to_rank = 2;
        return axis == 1 && ((const mest_axis_params *)n->params)->axis == 1 ? MEST_OK : refuse(s, n, "hides along which axis the classes lie");
    }
    if (mest_is_op(n, "Transpose")) {
        const mest_ints *perm = &((const mest_transpose_params *)n->params)->perm;
        const int all = perm->n ? perm->n : rank, from = axis < 0 ? axis + all : axis;
        if (all == 0)
            return refuse(s, n, "hides along which axis the classes lie");
        for (int i = 0; i < all; i++)
            if ((perm->n ? perm->v[i] : all - 1 - i) == from)
                *to_axis = i;
        *to_rank = all;
        return MEST_OK;
    }
    if (mest_is_op(n, "Resize")) {
        int64_t size[MEST_MAX_RANK];
        if (n->n_in < 4 || n->in[3] == MEST_NONE || count_of(s->g, n->in[3]) == 0)
            return MEST_OK; /* by scales */
        const int k = n_ints(s->g, n->in[3], size);
        if (k < 0 || axis < 0)
            return refuse(s, n, "computes its sizes");
        return k > axis && size[axis] == s->was ? change_sizes(s, n, n->in[3], axis) : MEST_OK;
    }
    return through_reduction(s, n, ((const mest_reduce_params *)n->params)->keepdims != 0, axis, rank, to_axis, to_rank);
}

/* A node that reads the classes: where they are in its result. */
static mest_status through(search *s, const mest_node *n, int input)
{
    static const char *const ends[] = {"ArgMax", "ArgMin", NULL};
    const int axis = s->axis[n->in[input]], rank = s->rank[n->in[input]];
    int to_axis = axis, to_rank = rank, k;
    if (is_one_of(n, ends))
        return MEST_OK; /* a class, not classes */
    if (is_one_of(n, sums)) {
        const mest_id other = other_operand(s->g, n, &k);
        if (other == MEST_NONE || k != input)
            return refuse(s, n, "combines it with another activation");
        if (count_of(s->g, other) != 1 && (s->bias < 0 || param_of(s->g, other) != s->bias))
            return refuse(s, n, "has an operand for each of the old classes");
    } else if (input != 0) {
        return refuse(s, n, "does not take it as its data");
    } else if (is_one_of(n, pools) && axis != 1) {
        return refuse(s, n, "pools over the classes");
    } else if (is_one_of(n, shapes)) {
        MEST_TRY(through_shape(s, n, axis, rank, &to_axis, &to_rank));
    } else if (!is_one_of(n, elementwise) && !is_one_of(n, pools)) {
        return refuse(s, n, "cannot be given another number of classes");
    }
    s->axis[n->out[0]] = to_axis;
    s->rank[n->out[0]] = to_rank;
    return MEST_OK;
}

static mest_status follow(search *s)
{
    const mest_node *layer = &s->g->nodes[s->layer];
    const mest_id y = layer->out[0];
    const bool is_matmul = mest_is_op(layer, "MatMul");
    s->axis[y] = is_matmul ? -1 : 1;
    s->rank[y] = is_matmul ? 0 : s->m->params[s->weight].shape.rank;
    for (mest_id i = 0; i < s->g->n_nodes; i++) {
        const mest_node *n = &s->g->nodes[i];
        int input = -1;
        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] != MEST_NONE && s->axis[n->in[k]] != NOWHERE) {
                if (input >= 0)
                    return refuse(s, n, "reads it twice");
                input = k;
            }
        if (input >= 0)
            MEST_TRY(through(s, n, input));
    }
    for (mest_id v = 0; v < s->g->n_values; v++) {
        if (s->axis[v] == NOWHERE)
            continue;
        const mest_type *t = &s->g->values[v].type;
        const int at = s->axis[v] < 0 ? s->axis[v] + t->shape.rank : s->axis[v];
        const int64_t dim = t->dtype && at >= 0 && at < t->shape.rank ? t->shape.dim[at] : -1;
        MEST_CHECK(dim < 0 || dim % s->was == 0, s->err, MEST_E_UNSUPPORTED, "new head: value '%s' has %" PRId64 " along axis %d, no multiple of the %" PRId64 " classes of before",
                   s->g->values[v].name, dim, at, s->was);
        s->head->results[s->head->n_results++] = (mest_head_result){s->g->values[v].name, s->axis[v]};
    }
    return MEST_OK;
}

/* ---- the change ---- */

static double fan_in_of(const search *s)
{
    const mest_shape *w = &s->m->params[s->weight].shape;
    const bool is_conv = w->rank > 2 || mest_is_op(&s->g->nodes[s->layer], "Conv") || mest_is_op(&s->g->nodes[s->layer], "ConvTranspose");
    if (!is_conv)
        return (double)w->dim[1 - s->weight_axis];
    return (double)(s->weight_axis == 1 ? s->classes : w->dim[1]) * (double)mest_shape_span(w, 2, w->rank);
}

/* Values keyed by the seed and the name: they do not depend on what else the model has. They are drawn when they are read, so that a head that
 * becomes sparse never lies densely in memory. */
static mest_status draw(search *s, int32_t param, int axis, double bound, uint64_t seed)
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
        if (param_of(s->g, v) == param)
            s->g->values[v].type.shape = shape;
    return MEST_OK;
}

static mest_status apply(search *s, uint64_t seed)
{
    mest_graph *g = s->g;
    const double bound = 1 / sqrt(fmax(fan_in_of(s), 1));
    const mest_shape *b = s->bias >= 0 ? &s->m->params[s->bias].shape : NULL;
    int bias_axis = 0;
    for (int i = 0; b && i < b->rank; i++)
        if (b->dim[i] == s->was)
            bias_axis = i;
    if (s->bias >= 0)
        MEST_TRY(draw(s, s->bias, bias_axis, bound, seed));
    MEST_TRY(draw(s, s->weight, s->weight_axis, bound, seed));
    for (mest_id v = 0; v < g->n_values; v++)
        if (s->axis[v] != NOWHERE && g->values[v].type.dtype) {
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

static mest_status find_output(const search *s, const char *name, mest_id *v)
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
    search s = {.m = m, .g = &m->graph, .classes = classes, .weight = -1, .bias = -1, .err = err};
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
        s.axis[i] = NOWHERE;
    MEST_TRY(find_layer(&s, v));
    MEST_TRY(check_own(&s, s.weight, "weight"));
    if (s.bias >= 0)
        MEST_TRY(check_own(&s, s.bias, "bias"));
    MEST_CHECK(s.was > 0 && (s.bias < 0 || m->params[s.bias].count == s.was), err, MEST_E_UNSUPPORTED, "new head: the bias '%s' does not have a number for each of %" PRId64 " classes",
               s.bias < 0 ? "" : m->params[s.bias].name, s.was);
    MEST_TRY(follow(&s));
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
