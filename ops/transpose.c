/* SPDX-License-Identifier: Apache-2.0 */
/* Transpose (perm; default: reversed), DepthToSpace (DCR, CRD), SpaceToDepth: permutations of axes, any fixed-size type.
 * Gradients: the inverse permutation; DepthToSpace and SpaceToDepth undo each other. */
#include <inttypes.h>

#include "ops/elements.h"

/* out = in with axes permuted: out axis i is in axis perm[i]. Dims are the input's. */
static void permute(const mest_args *a, int rank, const int64_t *dim, const int *perm)
{
    int64_t stride[MEST_SPREAD_RANK], out_stride = 1;
    mest_spread s = {.n = 2, .rank = rank};
    for (int64_t i = rank - 1, n = 1; i >= 0; i--) {
        stride[i] = n;
        n *= dim[i];
    }
    for (int i = rank - 1; i >= 0; i--) {
        s.dim[i] = dim[perm[i]];
        s.stride[1][i] = stride[perm[i]];
        s.stride[0][i] = out_stride;
        out_stride *= s.dim[i];
    }
    mest_spread_copy(a->threads, &s, mest_dtype_size(a->out[0].type->dtype), a->out[0].data, a->in[0].data);
}

static mest_status transpose_infer(mest_infer *c)
{
    const mest_ints *perm = &((const mest_transpose_params *)c->params)->perm;
    const mest_shape *x = &c->in[0]->shape;
    bool seen[MEST_MAX_RANK] = {false};
    mest_shape y = {.rank = x->rank};
    MEST_INFER_CHECK(c, perm->n == 0 || perm->n == x->rank, "perm has %d entries for an input of rank %d", perm->n, x->rank);
    for (int i = 0; i < x->rank; i++) {
        int64_t from = perm->n ? perm->v[i] : x->rank - 1 - i;
        MEST_INFER_CHECK(c, from >= 0 && from < x->rank, "perm[%d] = %" PRId64 " is out of range for rank %d", i, from, x->rank);
        MEST_INFER_CHECK(c, !seen[from], "perm names axis %" PRId64 " twice", from);
        seen[from] = true;
        y.dim[i] = x->dim[from];
    }
    return mest_infer_set(c, 0, c->in[0]->dtype, &y);
}

static mest_status transpose_forward(const mest_args *a)
{
    const mest_ints *given = &((const mest_transpose_params *)a->params)->perm;
    const mest_shape *x = &a->in[0].type->shape;
    int perm[MEST_MAX_RANK];
    for (int i = 0; i < x->rank; i++)
        perm[i] = given->n ? (int)given->v[i] : x->rank - 1 - i;
    permute(a, x->rank, x->dim, perm);
    return MEST_OK;
}

static mest_status transpose_vjp(mest_vjp *v)
{
    const mest_ints *perm = &((const mest_transpose_params *)mest_vjp_node(v)->params)->perm;
    mest_id dy = mest_dout(v, 0);
    mest_transpose_params *p = mest_vjp_alloc(v, sizeof *p);
    int64_t *inverse = mest_vjp_alloc(v, (MEST_MAX_RANK + 1) * sizeof *inverse);
    if (!p || !inverse)
        return mest_vjp_nomem(v);
    for (int i = 0; i < perm->n; i++)
        inverse[perm->v[i]] = i;
    p->perm = (mest_ints){perm->n, inverse}; /* reversal is its own inverse */
    return mest_give_op(v, 0, "Transpose", p, 1, &dy);
}

/* ---- DepthToSpace, SpaceToDepth ---- */
typedef struct block_params { int64_t blocksize; const char *mode; } block_params;

static bool is_crd(const block_params *p) { return p->mode && !strcmp(p->mode, "CRD"); }

static mest_status block_infer(mest_infer *c, bool to_space)
{
    const block_params *p = c->params;
    mest_shape s = c->in[0]->shape;
    int64_t b = p->blocksize;
    MEST_INFER_CHECK(c, s.rank == 4, "the input has rank %d, not 4", s.rank);
    MEST_INFER_CHECK(c, b > 0 && b <= INT32_MAX, "blocksize is %" PRId64, b);
    MEST_INFER_CHECK(c, !p->mode || is_crd(p) || !strcmp(p->mode, "DCR"), "mode \"%.20s\" is neither DCR nor CRD", p->mode);
    if (to_space) {
        MEST_INFER_CHECK(c, s.dim[1] % (b * b) == 0, "%" PRId64 " channels are not a multiple of %" PRId64, s.dim[1], b * b);
        MEST_INFER_CHECK(c, !__builtin_mul_overflow(s.dim[2], b, &s.dim[2]) && !__builtin_mul_overflow(s.dim[3], b, &s.dim[3]), "sizes overflow");
        s.dim[1] /= b * b;
    } else {
        MEST_INFER_CHECK(c, s.dim[2] % b == 0 && s.dim[3] % b == 0, "height and width are not multiples of %" PRId64, b);
        MEST_INFER_CHECK(c, !__builtin_mul_overflow(s.dim[1], b * b, &s.dim[1]), "sizes overflow");
        s.dim[2] /= b;
        s.dim[3] /= b;
    }
    return mest_infer_set(c, 0, c->in[0]->dtype, &s);
}

static mest_status to_space_infer(mest_infer *c) { return block_infer(c, true); }
static mest_status to_depth_infer(mest_infer *c) { return block_infer(c, false); }

/* DCR: channel = (by, bx, c); CRD: channel = (c, by, bx); by, bx: place in the block. */
static mest_status to_space_forward(const mest_args *a)
{
    const block_params *p = a->params;
    const int64_t *d = a->in[0].type->shape.dim, b = p->blocksize, c = d[1] / (b * b);
    const int64_t dcr[6] = {d[0], b, b, c, d[2], d[3]}, crd[6] = {d[0], c, b, b, d[2], d[3]};
    static const int dcr_perm[6] = {0, 3, 4, 1, 5, 2}, crd_perm[6] = {0, 1, 4, 2, 5, 3};
    permute(a, 6, is_crd(p) ? crd : dcr, is_crd(p) ? crd_perm : dcr_perm);
    return MEST_OK;
}

static mest_status to_depth_forward(const mest_args *a)
{
    const block_params *p = a->params;
    const int64_t *d = a->in[0].type->shape.dim, b = p->blocksize;
    const int64_t dim[6] = {d[0], d[1], d[2] / b, b, d[3] / b, b};
    static const int dcr_perm[6] = {0, 3, 5, 1, 2, 4}, crd_perm[6] = {0, 1, 3, 5, 2, 4};
    permute(a, 6, dim, is_crd(p) ? crd_perm : dcr_perm);
    return MEST_OK;
}

static mest_status to_space_vjp(mest_vjp *v)
{
    mest_id dy = mest_dout(v, 0);
    return mest_give_op(v, 0, "SpaceToDepth", NULL, 1, &dy);
}
static mest_status to_depth_vjp(mest_vjp *v)
{
    mest_id dy = mest_dout(v, 0);
    return mest_give_op(v, 0, "DepthToSpace", NULL, 1, &dy);
}

static const mest_attr transpose_attrs[] = {{.name = "perm", .kind = MEST_ATTR_INTS, .offset = offsetof(mest_transpose_params, perm)}, {.name = NULL}};
static const mest_attr to_space_attrs[] = {
    {.name = "blocksize", .kind = MEST_ATTR_INT, .offset = offsetof(block_params, blocksize), .required = true},
    {.name = "mode", .kind = MEST_ATTR_STRING, .offset = offsetof(block_params, mode), .text = "DCR"},
    {.name = NULL}};
static const mest_attr to_depth_attrs[] = {
    {.name = "blocksize", .kind = MEST_ATTR_INT, .offset = offsetof(block_params, blocksize), .required = true}, {.name = NULL}};

const mest_op mest_ops_transpose[] = {
    {.domain = "", .name = "Transpose", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = transpose_attrs, .params_bytes = sizeof(mest_transpose_params), .infer = transpose_infer, .forward = transpose_forward,
     .vjp = transpose_vjp},
    {.domain = "", .name = "DepthToSpace", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = to_space_attrs, .params_bytes = sizeof(block_params), .infer = to_space_infer, .forward = to_space_forward, .vjp = to_space_vjp},
    {.domain = "", .name = "SpaceToDepth", .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1, .flags = MEST_OP_ANY_TYPE,
     .attrs = to_depth_attrs, .params_bytes = sizeof(block_params), .infer = to_depth_infer, .forward = to_depth_forward, .vjp = to_depth_vjp},
    {.name = NULL},
};
