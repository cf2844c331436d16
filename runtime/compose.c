/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/compose.h"

#include "ops/nn.h"
#include "ops/elements.h"

static mest_status out_of_memory(mest_pass_args *a) { return mest_fail(a->err, MEST_E_NOMEM, "out of memory"); }

mest_status mest_compose_ints(mest_pass_args *a, int n, const int64_t *v, mest_id *id)
{
    const mest_type type = {.dtype = MEST_I64, .shape = mest_shape_vector(n)};
    *id = mest_graph_const(a->graph, NULL, &type, v);
    return *id == MEST_NONE ? out_of_memory(a) : MEST_OK;
}

mest_status mest_compose_scalar(mest_pass_args *a, double v, mest_id *id)
{
    const mest_type type = {.dtype = MEST_F32};
    const mest_real x = (mest_real)v;
    *id = mest_graph_const(a->graph, NULL, &type, &x);
    return *id == MEST_NONE ? out_of_memory(a) : MEST_OK;
}

static void *table(mest_pass_args *a, mest_dtype dtype, const mest_shape *shape, mest_id *id)
{
    const mest_type type = {.dtype = dtype, .shape = *shape};
    int64_t n;
    void *v = mest_shape_count(shape, &n) ? mest_pass_alloc(a, (size_t)(n + 16) * mest_dtype_size(dtype)) : NULL;
    *id = v ? mest_graph_value(a->graph, NULL, MEST_VALUE_CONST, &type) : MEST_NONE;
    if (*id == MEST_NONE) {
        (void)out_of_memory(a);
        return NULL;
    }
    a->graph->values[*id].data = v;
    return v;
}

mest_real *mest_compose_table(mest_pass_args *a, const mest_shape *shape, mest_id *id) { return table(a, MEST_F32, shape, id); }
uint8_t *mest_compose_bools(mest_pass_args *a, const mest_shape *shape, mest_id *id) { return table(a, MEST_BOOL, shape, id); }

mest_status mest_compose_reshape(mest_pass_args *a, mest_id at, const mest_shape *shape, mest_id *v)
{
    mest_shape_params *p = mest_pass_alloc(a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    p->shape = *shape;
    return mest_insert(a, at, "mest.Reshape", p, 1, v, v);
}

mest_status mest_compose_transpose(mest_pass_args *a, mest_id at, int rank, const int64_t *perm, mest_id *v)
{
    mest_transpose_params *p = mest_pass_alloc(a, sizeof *p);
    int64_t *order = mest_pass_alloc(a, (size_t)rank * sizeof *order);
    if (!p || !order)
        return MEST_E_NOMEM;
    memcpy(order, perm, (size_t)rank * sizeof *order);
    p->perm = (mest_ints){rank, order};
    return mest_insert(a, at, "Transpose", p, 1, v, v);
}

mest_status mest_compose_two(mest_pass_args *a, mest_id at, const char *op, mest_id x, mest_id y, mest_id *out)
{
    return mest_insert(a, at, op, NULL, 2, (mest_id[]){x, y}, out);
}
