/* SPDX-License-Identifier: Apache-2.0 */
/* Where the batch size is fixed, exporters fold the Expand of a parameter over the batch (a class token, the first state of a recurrent layer)
 * and what is computed from zeros (the first step of nn.RNN leaves its bias): the file holds the same row once a sample, and each would go its
 * own way in training. An initializer of as many equal rows as the batch has samples becomes one row and its Expand; if the row is, bit for bit,
 * another parameter, it becomes that one's. Export writes all rows. */
#include <stdio.h>

#include "importers/onnx.h"

static mest_status out_of_memory(onnx_importer *im) { return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory", im->path); }

/* Do inputs of the network have n as their first or second size, in all files of a fixed batch? */
static bool is_batch(const onnx_importer *im, int64_t n)
{
    const mest_graph *g = &im->m->graph;
    bool any = false;
    for (int i = 0; i < g->n_inputs; i++) {
        const mest_shape *s = &g->values[g->inputs[i]].type.shape;
        if (s->rank > 0 && s->dim[0] < 0)
            return false; /* the batch is free: nothing was folded over it */
        any |= (s->rank > 0 && s->dim[0] == n) || (s->rank > 1 && s->dim[1] == n);
    }
    return any;
}

/* The axis over which t, made by the exporter, is one row n times; -1: it is none. The row is not all of one value: zeros tell nothing. */
static int spread_axis(const onnx_importer *im, const onnx_tensor *t)
{
    const mest_shape *s = &t->shape;
    const size_t size = mest_dtype_file_size(t->payload.dtype);
    int axis = 0;
    while (axis < s->rank && s->dim[axis] == 1)
        axis++;
    if (!t->is_float || t->kind != KIND_UNKNOWN || t->payload.linear || !t->payload.raw || t->mirror || t->value != MEST_NONE || axis + 1 >= s->rank ||
        !is_batch(im, s->dim[axis]) || s->dim[axis] < 2)
        return -1;
    const size_t row = (size_t)(t->payload.count / s->dim[axis]) * size;
    if (row <= size || memcmp(t->payload.raw, t->payload.raw + row, row * (size_t)(s->dim[axis] - 1)) != 0)
        return -1;
    return memcmp(t->payload.raw, t->payload.raw + size, row - size) != 0 ? axis : -1;
}

/* Nobody else stands for these numbers: no parameter that was untied from it. */
static bool is_alone(const onnx_importer *im, const onnx_tensor *t)
{
    for (int32_t i = 0; i < im->m->n_params; i++)
        if (i != t->param && im->m->params[i].payload.raw == t->payload.raw)
            return false;
    return !onnx_find_symbol(im, t->name)->is_output;
}

/* The bias that is row `t` n times; NULL: there is none. */
static const onnx_tensor *find_row(const onnx_importer *im, const onnx_tensor *t, int64_t count)
{
    for (int32_t i = 0; i < im->n_tensors; i++) {
        const onnx_tensor *b = &im->tensors[i];
        if (b != t && b->is_float && b->shape.rank == 1 && b->payload.count == count && b->payload.dtype == t->payload.dtype && !b->payload.linear &&
            b->payload.raw && b->kind != KIND_BUFFER && b->kind != KIND_CONSTANT && onnx_find_symbol(im, b->name)->uses > 0 &&
            !memcmp(b->payload.raw, t->payload.raw, (size_t)count * mest_dtype_file_size(t->payload.dtype)))
            return b;
    }
    return NULL;
}

/* Expand(row) under a new name, which all who read t read instead. */
static mest_status expand(onnx_importer *im, const onnx_tensor *t, const onnx_tensor *row, const mest_shape *shape)
{
    const char *name = mest_region_printf(&im->scratch, "%.200s/spread", t->name), *sizes = mest_region_printf(&im->scratch, "%.200s/sizes", t->name);
    Onnx__AttributeProto *value = mest_onnx_ints_attribute(im, "value_ints", 0);
    int64_t *dims = mest_region_alloc(&im->scratch, MEST_MAX_RANK, sizeof *dims);
    if (!name || !sizes || !value || !dims)
        return out_of_memory(im);
    memcpy(dims, shape->dim, (size_t)shape->rank * sizeof *dims);
    value->ints = dims;
    value->n_ints = (size_t)shape->rank;
    for (int32_t i = 0; i < im->n_nodes; i++)
        for (int32_t k = 0; k < im->nodes[i].n_in; k++)
            if (!strcmp(im->nodes[i].in_names[k], t->name))
                im->nodes[i].in_names[k] = name;
    const int32_t uses = onnx_find_symbol(im, t->name)->uses;
    const char *in[2] = { row->name, sizes };
    MEST_TRY(mest_onnx_insert_late(im, "Constant", 13, 0, NULL, sizes, 1, &value));
    MEST_TRY(mest_onnx_insert_late(im, "Expand", 13, 2, in, name, 0, NULL));
    onnx_find_symbol(im, name)->uses = uses;
    if (row == t)
        onnx_find_symbol(im, t->name)->uses = 1;
    return MEST_OK;
}

mest_status mest_onnx_spread(onnx_importer *im)
{
    for (int32_t i = 0; i < im->n_tensors && !im->keep_aliases; i++) {
        onnx_tensor *t = &im->tensors[i];
        const int axis = spread_axis(im, t);
        if (axis < 0 || !onnx_find_symbol(im, t->name)->uses || !is_alone(im, t))
            continue;
        const mest_shape shape = t->shape;
        const int64_t n = shape.dim[axis], count = t->payload.count / n;
        const onnx_tensor *row = find_row(im, t, count);
        t->repeats = n;
        t->mirror = row;
        if (!row) {
            mest_param *p = &im->m->params[t->param];
            t->shape.dim[axis] = p->shape.dim[axis] = 1;
            t->payload.count = p->payload.count = p->count = count;
        }
        MEST_TRY(expand(im, t, row ? row : t, &shape));
        mest_logf(&im->m->heap, MEST_LOG_INFO, "'%s' is %s%s%s, once for each of %lld samples (the exporter folded that): it is one again", t->name, row ? "'" : "one row",
                  row ? row->name : "", row ? "'" : "", (long long)n);
    }
    return MEST_OK;
}
