/* SPDX-License-Identifier: Apache-2.0 */
/* A new head, forward: through everything that reads the layer's result, to see along which axis of which value the classes lie, and which
 * constants with sizes must change. Where the sizes of the model's inputs are known, shapes are inferred: before, to see through changes of shape; and
 * once more as they will be, so that a number of classes that is written down where nobody looked is found before anything is changed. */
#include <inttypes.h>

#include "ops/elements.h"
#include "ops/nn.h"
#include "runtime/head_search.h"
#include "runtime/infer.h"
#include "runtime/match.h"

enum { SOME_BATCH = 3, MOST_CONSTANT = 1024, MOST_FOLDED = 1 << 24 };

static mest_status out_of_memory(const head_search *s) { return mest_fail(s->err, MEST_E_NOMEM, "new head: out of memory"); }

/* Whole numbers that are constant, or follow from constants; -1: they are not. */
static int n_ints(const head_search *s, mest_id v, int64_t *x)
{
    const mest_value *value = v == MEST_NONE ? NULL : &s->g->values[v];
    const int64_t *data = NULL;
    int64_t n = value ? head_count(s->g, v) : 0;
    if (value && value->kind == MEST_VALUE_CONST && value->type.dtype == MEST_I64)
        data = value->data;
    else if (value && s->shape && (data = s->known[v]) != NULL && !mest_shape_count(&s->shape[v], &n))
        n = -1;
    if (!data || n < 0 || n > MEST_MAX_RANK)
        return -1;
    memcpy(x, data, (size_t)n * sizeof *x);
    return (int)n;
}

static mest_status refuse(const head_search *s, const mest_node *n, const char *why)
{
    return mest_fail(s->err, MEST_E_UNSUPPORTED, "new head: %s '%s' behind the last layer %s", n->op->name, n->name, why);
}

/* Element `at` of the constant `v`, which only node n reads, will be the new number of classes. */
static mest_status change_sizes(head_search *s, const mest_node *n, mest_id v, int at)
{
    mest_head *h = s->head;
    mest_value *value = &s->g->values[v];
    const int64_t count = head_count(s->g, v);
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
    data[at] = data[at] / s->was * s->classes;
    h->sizes[h->n_sizes++] = (mest_head_sizes){value->name, data, count, value->type.shape.rank == 0};
    return MEST_OK;
}

/* The same where sizes are put together from pieces, as in [N, 10] from the size of an axis and a constant. What does not come from a constant stays. */
static mest_status change_pieces(head_search *s, const mest_node *n, mest_id v, int at)
{
    static const char *const same[] = {"Reshape", "Squeeze", "Unsqueeze", "Cast", "Identity", NULL};
    for (int hops = 0; hops <= s->g->n_nodes; hops++) {
        const mest_value *value = &s->g->values[v];
        if (value->kind == MEST_VALUE_CONST)
            return value->type.dtype == MEST_I64 ? change_sizes(s, n, v, at) : refuse(s, n, "has the number of classes in a constant that is no int64");
        if (value->kind != MEST_VALUE_RESULT || !s->shape)
            return MEST_OK;
        n = &s->g->nodes[value->producer];
        int64_t many = 0;
        int piece = 0;
        if (mest_is_op(n, "Concat")) {
            while (piece < n->n_in && mest_shape_count(&s->shape[n->in[piece]], &many) && at >= many)
                at -= (int)many, piece++;
            if (piece == n->n_in)
                return MEST_OK;
        } else if (!head_is_one_of(n, same)) {
            return MEST_OK;
        }
        v = n->in[piece];
    }
    return MEST_OK;
}

static mest_status through_reshape(head_search *s, const mest_node *n, int axis, int rank, int *to_axis, int *to_rank)
{
    int64_t size[MEST_MAX_RANK];
    const int k = n_ints(s, n->in[1], size);
    const mest_shape *x = s->shape ? &s->shape[n->in[0]] : NULL, *y = s->shape ? &s->shape[n->out[0]] : NULL;
    int at = -1, places = 0;
    if (k < 0 && !y)
        return refuse(s, n, "computes its shape");
    if (y) {
        for (int i = 0; i < y->rank && at < 0; i++) /* as much lies before them as before */
            if (mest_shape_span(y, 0, i) == mest_shape_span(x, 0, axis) && y->dim[i] > 0 && y->dim[i] % s->was == 0)
                at = i;
    } else {
        for (int i = 0; i < k; i++)
            if (size[i] == s->was) {
                at = i;
                places++;
            }
        if (places > 1)
            return refuse(s, n, "has the old number of classes twice among its sizes");
        for (int i = 0; i < k && !places; i++) /* [0, -1], [1, -1], [N, -1, 1, 1]: what is left over are the classes; 0 keeps the size of its axis */
            if ((size[i] == 0 && i == axis) || (size[i] == -1 && i > 0 && axis == 1 && rank > 0))
                at = i;
    }
    if (at < 0)
        return refuse(s, n, "hides along which axis the classes lie");
    *to_axis = at;
    *to_rank = y ? y->rank : k;
    return k >= 0 && size[at] > 0 ? change_pieces(s, n, n->in[1], at) : MEST_OK;
}

static mest_status through_reduction(head_search *s, const mest_node *n, bool keep, int axis, int rank, int *to_axis, int *to_rank)
{
    int64_t axes[MEST_MAX_RANK];
    const int k = n->n_in > 1 && n->in[1] != MEST_NONE ? n_ints(s, n->in[1], axes) : -1;
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

static mest_status through_shape(head_search *s, const mest_node *n, int axis, int rank, int *to_axis, int *to_rank)
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
        if (n->n_in < 4 || n->in[3] == MEST_NONE || head_count(s->g, n->in[3]) == 0)
            return MEST_OK; /* by scales */
        const int k = n_ints(s, n->in[3], size);
        if (axis < 0 || (k < 0 && !s->shape))
            return refuse(s, n, "computes its sizes");
        return k > axis && size[axis] == s->was ? change_pieces(s, n, n->in[3], axis) : MEST_OK;
    }
    return through_reduction(s, n, ((const mest_reduce_params *)n->params)->keepdims != 0, axis, rank, to_axis, to_rank);
}

/* The classes of value v lie along this axis. */
static void place(head_search *s, mest_id v, int axis, int rank)
{
    s->rank[v] = s->shape ? s->shape[v].rank : rank;
    s->axis[v] = axis < 0 && s->rank[v] ? axis + s->rank[v] : axis;
}

/* A node that reads the classes: where they are in its result. */
static mest_status through(head_search *s, const mest_node *n, int input)
{
    static const char *const ends[] = {"ArgMax", "ArgMin", "Shape", NULL};
    const int axis = s->axis[n->in[input]], rank = s->rank[n->in[input]];
    int to_axis = axis, to_rank = rank, k;
    if (head_is_one_of(n, ends) && (s->shape || !mest_is_op(n, "Shape")))
        return MEST_OK; /* a class, not classes; a size, that will be the new one */
    if (head_is_one_of(n, head_sums)) {
        const mest_id other = head_other_operand(s->g, n, &k);
        if (other == MEST_NONE || k != input)
            return refuse(s, n, "combines it with another activation");
        if (head_count(s->g, other) != 1 && (s->bias < 0 || head_param(s->g, other) != s->bias))
            return refuse(s, n, "has an operand for each of the old classes");
    } else if (input != 0) {
        return refuse(s, n, "does not take it as its data");
    } else if (head_is_one_of(n, head_pools) && axis != 1) {
        return refuse(s, n, "pools over the classes");
    } else if (head_is_one_of(n, head_shapes)) {
        MEST_TRY(through_shape(s, n, axis, rank, &to_axis, &to_rank));
    } else if (!head_is_one_of(n, head_elementwise) && !head_is_one_of(n, head_pools)) {
        return refuse(s, n, "cannot be given another number of classes");
    }
    place(s, n->out[0], to_axis, to_rank);
    return MEST_OK;
}

/* A copy of the graph with the sizes of a batch; to be freed where the result is MEST_OK. No weight is loaded for it. */
static mest_status pinned(const head_search *s, mest_graph *g, mest_error *err)
{
    MEST_TRY(mest_graph_copy(g, s->g, err));
    mest_status status = MEST_OK;
    for (int i = 0; i < g->n_inputs && status == MEST_OK; i++) {
        mest_shape *shape = &g->values[g->inputs[i]].type.shape;
        int64_t count;
        if (shape->rank > 0 && shape->dim[0] < 0)
            shape->dim[0] = SOME_BATCH;
        if (!mest_shape_count(shape, &count))
            status = mest_fail(err, MEST_E_SHAPE, "new head: the sizes of input '%s' are left free", g->values[g->inputs[i]].name);
    }
    for (mest_id v = 0; v < g->n_values && status == MEST_OK; v++) { /* scales given as floats are constants, as sessions have them */
        mest_param *p = g->values[v].kind == MEST_VALUE_PARAM ? &s->m->params[g->values[v].param] : NULL;
        if (!p || p->role != MEST_ROLE_CONSTANT || p->count > MOST_CONSTANT)
            continue;
        status = mest_param_load(s->m, p, err);
        g->values[v].kind = MEST_VALUE_CONST;
        g->values[v].data = p->values;
    }
    if (status != MEST_OK)
        mest_graph_free(g);
    return status;
}

static bool note_value(head_search *s, const mest_value *from, mest_shape *shape, const int64_t **known)
{
    int64_t n, *copy;
    *shape = from->type.shape;
    if (from->kind != MEST_VALUE_CONST || from->type.dtype != MEST_I64 || !mest_shape_count(shape, &n) || n > MEST_MAX_RANK)
        return true;
    copy = mest_region_alloc(&s->m->region, (size_t)n + 1, sizeof *copy);
    if (copy)
        memcpy(copy, from->data, (size_t)n * sizeof *copy);
    *known = copy;
    return copy != NULL;
}

/* Shapes of all values as they are. Sizes that are left free, or a model that cannot run as it is: none, and that is no error. */
static mest_status look(head_search *s)
{
    mest_graph g;
    mest_error own = {0};
    mest_shape *shape = mest_region_alloc(&s->m->region, (size_t)s->g->n_values + 1, sizeof *shape);
    const int64_t **known = mest_region_alloc(&s->m->region, (size_t)s->g->n_values + 1, sizeof *known);
    if (!shape || !known)
        return out_of_memory(s);
    mest_status status = pinned(s, &g, &own);
    if (status == MEST_E_NOMEM)
        return out_of_memory(s);
    if (status != MEST_OK)
        return MEST_OK;
    status = mest_infer_graph(&g, true, MOST_FOLDED, &own);
    for (mest_id v = 0; v < s->g->n_values && status == MEST_OK; v++)
        if (!note_value(s, &g.values[v], &shape[v], &known[v]))
            status = MEST_E_NOMEM;
    mest_graph_free(&g);
    if (status == MEST_OK) {
        s->shape = shape;
        s->known = known;
    }
    return status == MEST_E_NOMEM ? out_of_memory(s) : MEST_OK;
}

/* Shapes as they will be. */
static mest_status verify(const head_search *s)
{
    mest_graph g;
    MEST_TRY(pinned(s, &g, s->err));
    mest_status status = MEST_OK;
    for (mest_id v = 0; v < g.n_values; v++) {
        mest_shape *shape = &g.values[v].type.shape;
        if (head_param(&g, v) == s->weight)
            shape->dim[s->weight_axis] = s->classes;
        else if (s->bias >= 0 && head_param(&g, v) == s->bias)
            shape->dim[s->bias_axis] = s->classes;
        for (int32_t i = 0; i < s->head->n_sizes; i++)
            if (g.values[v].kind == MEST_VALUE_CONST && g.values[v].name == s->head->sizes[i].name)
                g.values[v].data = s->head->sizes[i].data;
    }
    mest_error own = {0};
    status = mest_infer_graph(&g, true, MOST_FOLDED, &own);
    if (status != MEST_OK)
        status = mest_fail(s->err, status == MEST_E_NOMEM ? status : MEST_E_UNSUPPORTED, "new head: with %" PRId64 " classes the model does not fit: %.600s", s->classes, own.msg);
    for (mest_id v = 0; v < s->g->n_values && status == MEST_OK; v++) {
        const mest_value *value = &g.values[v];
        if (s->axis[v] == HEAD_NOWHERE || value->type.dtype == MEST_UNDEFINED)
            continue;
        const int64_t was = s->shape[v].dim[s->axis[v]], is = value->type.shape.dim[s->axis[v]];
        if (value->type.shape.rank != s->shape[v].rank || is != was / s->was * s->classes)
            status = mest_fail(s->err, MEST_E_UNSUPPORTED, "new head: value '%s' behind the last layer would have %" PRId64 " along axis %d where %" PRId64 " classes are: the number is fixed in front of it",
                               s->g->values[v].name, is, s->axis[v], s->classes);
    }
    mest_graph_free(&g);
    return status;
}

mest_status head_follow(head_search *s)
{
    const mest_node *layer = &s->g->nodes[s->layer];
    const bool is_matmul = mest_is_op(layer, "MatMul");
    MEST_TRY(look(s));
    place(s, layer->out[0], is_matmul ? -1 : 1, is_matmul ? 0 : s->m->params[s->weight].shape.rank);
    for (mest_id i = 0; i < s->g->n_nodes; i++) {
        const mest_node *n = &s->g->nodes[i];
        int input = -1;
        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] != MEST_NONE && s->axis[n->in[k]] != HEAD_NOWHERE) {
                if (input >= 0)
                    return refuse(s, n, "reads it twice");
                input = k;
            }
        if (input >= 0)
            MEST_TRY(through(s, n, input));
    }
    for (mest_id v = 0; v < s->g->n_values; v++) {
        if (s->axis[v] == HEAD_NOWHERE)
            continue;
        const mest_type *t = &s->g->values[v].type;
        const int at = s->axis[v] < 0 ? s->axis[v] + t->shape.rank : s->axis[v];
        const int64_t dim = t->dtype && at >= 0 && at < t->shape.rank ? t->shape.dim[at] : -1;
        MEST_CHECK(dim < 0 || dim % s->was == 0, s->err, MEST_E_UNSUPPORTED, "new head: value '%s' has %" PRId64 " along axis %d, no multiple of the %" PRId64 " classes of before",
                   s->g->values[v].name, dim, at, s->was);
        s->head->results[s->head->n_results++] = (mest_head_result){s->g->values[v].name, s->axis[v]};
    }
    return s->shape ? verify(s) : MEST_OK;
}
