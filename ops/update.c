/* SPDX-License-Identifier: Apache-2.0 */
/* Weight update and gradient clipping as nodes, so that the memory plan and the order of execution know them.
 *   mest.Update     gradient, scale[]?  -> nothing; writes the parameter and its optimizer slots
 *   mest.ClipScale  gradients...        -> scale[] = min(1, max_norm / (||all gradients|| + 1e-6)), PyTorch's clip_grad_norm_ */
#include <math.h>

#include "runtime/optim.h"
#include "runtime/op.h"

static mest_status update_infer(mest_infer *c)
{
    (void)c;
    return MEST_OK;
}

typedef struct update_job {
    const mest_optimizer *o;
    mest_real *w, *slots[MEST_OPTIM_SLOTS], *snapshot;
    const mest_real *g;
    int64_t n;
    double scale, lr, wd;
    uint64_t t;
} update_job;

enum { UPDATE_CHUNK = 16384 };

static void update_tile(void *context, size_t tile)
{
    const update_job *j = context;
    int64_t from = (int64_t)tile * UPDATE_CHUNK, n = j->n - from < UPDATE_CHUNK ? j->n - from : UPDATE_CHUNK;
    mest_real *slots[MEST_OPTIM_SLOTS];
    for (int k = 0; k < MEST_OPTIM_SLOTS; k++)
        slots[k] = j->slots[k] ? j->slots[k] + from : NULL;
    if (j->snapshot)
        for (int64_t i = from; i < from + n; i++)
            j->snapshot[i] = j->g[i] < 0 ? -j->g[i] : j->g[i];
    j->o->rule->step(j->o, j->w + from, j->g + from, slots, n, j->scale, j->lr, j->wd, j->t);
}

static mest_status update_forward(const mest_args *a)
{
    const mest_update_params *u = a->params;
    mest_param *p = &u->optimizer->model->params[u->param];
    const mest_param_state *s = &u->optimizer->state[u->param];
    update_job job = {.o = u->optimizer, .w = mest_param_data(p), .g = a->in[0].data, .n = mest_param_stored(p), .scale = 1, .lr = a->run->lr,
                      .wd = p->no_decay ? 0 : u->optimizer->weight_decay, .t = a->run->step + 1};
    for (int k = 0; k < MEST_OPTIM_SLOTS; k++)
        job.slots[k] = s->slot[k];
    if (a->run->snapshot_grads)
        job.snapshot = s->snapshot;
    if (a->n_in > 1 && a->in[1].data)
        job.scale = (double)*(const mest_real *)a->in[1].data;
    mest_parallel(a->threads, (size_t)((job.n + UPDATE_CHUNK - 1) / UPDATE_CHUNK), update_tile, &job);
    if (p->sparse)
        p->sparse->value_version++;
    else
        p->value_version++;
    return MEST_OK;
}

static mest_status clip_infer(mest_infer *c)
{
    c->out[0].dtype = MEST_F32;
    return MEST_OK;
}

static mest_status clip_forward(const mest_args *a)
{
    double sum = 0;
    for (int i = 0; i < a->n_in; i++) {
        const mest_real *g = a->in[i].data;
        for (size_t k = 0; k < a->in[i].count; k++)
            sum += (double)g[k] * (double)g[k];
    }
    double scale = *(const double *)a->params / (sqrt(sum) + 1e-6);
    *(mest_real *)a->out[0].data = (mest_real)(scale < 1 ? scale : 1);
    return MEST_OK;
}

const mest_op mest_ops_update[] = {
    {.domain = "mest", .name = "mest.Update", .since = 1, .in_min = 1, .in_max = 2, .out_min = 0, .out_max = 0, .flags = MEST_OP_SIDE_EFFECT | MEST_OP_FLAT,
     .infer = update_infer, .forward = update_forward, .no_grad = true},
    {.domain = "mest", .name = "mest.ClipScale", .since = 1, .in_min = 1, .in_max = -1, .out_min = 1, .out_max = 1, .flags = MEST_OP_FLAT, .infer = clip_infer,
     .forward = clip_forward, .no_grad = true},
    {0}};
