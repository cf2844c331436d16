/* SPDX-License-Identifier: Apache-2.0 */
/* Weights that nothing was asked for: dense ones are loaded, sparse initializers of the file become csr. */
#include "runtime/sparsify.h"
#include "runtime/weight_use.h"

static mest_status adopt(mest_model *m, const mest_graph *g, int32_t i, mest_error *err)
{
    mest_param *p = &m->params[i];
    mest_weight_use u;
    if (p->loaded || p->sparse || !p->payload.linear || p->shape.rank < 2 || p->role == MEST_ROLE_CONSTANT || p->role == MEST_ROLE_STATISTIC)
        return MEST_OK;
    mest_weight_use_find(g, i, &u);
    if (!u.sparse_possible)
        return MEST_OK;
    mest_sparse *sp;
    MEST_TRY(mest_sparse_create(&sp, &m->heap, "csr", &u.shape, p->payload.nnz, err));
    mest_status status = mest_sparse_from_units(sp, p->payload.linear, p->payload.nnz, NULL, err);
    float chunk[256];
    mest_payload stored = p->payload; /* the nnz values, as if they were a dense tensor */
    stored.linear = NULL;
    stored.count = p->payload.nnz;
    for (int64_t at = 0; at < stored.count && status == MEST_OK; at += 256) {
        int64_t n = stored.count - at < 256 ? stored.count - at : 256;
        status = mest_payload_read(&stored, at, n, chunk, err);
        for (int64_t k = 0; k < n && status == MEST_OK; k++)
            sp->values[at + k] = (mest_real)chunk[k];
    }
    if (status != MEST_OK) {
        mest_sparse_destroy(sp);
        return status;
    }
    sp->value_version++;
    p->sparse = sp;
    p->loaded = true;
    p->target_sparsity = 1 - (double)p->payload.nnz / (double)(p->count ? p->count : 1);
    return MEST_OK;
}

static mest_status adopt_sparse_initializers(mest_model *m, mest_error *err)
{
    bool any = false;
    for (int32_t i = 0; i < m->n_params; i++)
        any |= m->params[i].payload.linear != NULL;
    if (!any)
        return MEST_OK;
    mest_graph g;
    MEST_TRY(mest_weights_graph(m, &g, err));
    mest_status status = MEST_OK;
    for (int32_t i = 0; i < m->n_params && status == MEST_OK; i++)
        status = adopt(m, &g, i, err);
    mest_graph_free(&g);
    return status;
}

mest_status mest_model_materialise(mest_model *m, mest_error *err)
{
    MEST_TRY(adopt_sparse_initializers(m, err));
    for (int32_t i = 0; i < m->n_params; i++)
        if (!m->params[i].sparse)
            MEST_TRY(mest_param_load(m, &m->params[i], err));
    return MEST_OK;
}
