/* SPDX-License-Identifier: Apache-2.0 */
/* A batch in parts: the gradients of parameters are added part by part, each with its share of the samples, and the last part gives the
 * gradient of the whole batch to clipping, update and whoever keeps it. Sums have an entry for each stored one: as large as the weight is. */
#include <stdio.h>
#include <string.h>

#include "ops/nn.h"
#include "runtime/optim.h"
#include "runtime/program.h"

mest_status mest_optimizer_sums(mest_optimizer *o, bool wanted, const uint8_t *frozen, mest_error *err)
{
    for (int i = 0; o->state && i < o->n_state; i++) {
        mest_param_state *s = &o->state[i];
        const bool want = wanted && o->model->params[i].role == MEST_ROLE_TRAINABLE && !(frozen && frozen[i]);
        if (want == (s->sum != NULL))
            continue;
        mest_free(&o->model->heap, s->sum, (size_t)s->capacity, sizeof *s->sum);
        s->sum = want ? mest_alloc(&o->model->heap, (size_t)s->capacity, sizeof *s->sum) : NULL;
        MEST_CHECK(!want || s->sum, err, MEST_E_NOMEM, "optimizer: no memory for the gradient sums of '%s'", o->model->params[i].name);
    }
    return MEST_OK;
}

enum { CHUNK = 16384 };

typedef struct sum_job {
    const mest_real *g;
    mest_real *sum, *out; /* out NULL: more parts are to come */
    int64_t n;
    double share;
    bool first;
} sum_job;

static void sum_tile(void *context, size_t tile)
{
    const sum_job *j = context;
    const int64_t from = (int64_t)tile * CHUNK, to = from + CHUNK < j->n ? from + CHUNK : j->n;
    mest_real *to_where = j->out ? j->out : j->sum;
    for (int64_t i = from; i < to; i++)
        to_where[i] = (mest_real)((j->first ? 0 : (double)j->sum[i]) + j->share * (double)j->g[i]);
}

/* What a mest.Accumulate node does. */
static void accumulate(const mest_update_params *u, const mest_args *a)
{
    const mest_param_state *s = &u->optimizer->state[u->param];
    const mest_run *run = a->run;
    sum_job job = {.g = a->in[0].data, .sum = s->sum, .n = mest_param_stored(&u->optimizer->model->params[u->param]), .share = run->share, .first = run->part == 0};
    if (run->parts > 1) {
        job.out = mest_run_completes(run) ? a->out[0].data : NULL;
        mest_parallel(a->threads, (size_t)((job.n + CHUNK - 1) / CHUNK), sum_tile, &job);
    } else if (a->out[0].data != a->in[0].data) {
        memcpy(a->out[0].data, a->in[0].data, (size_t)job.n * sizeof(mest_real));
    }
}

mest_status mest_append_accumulation(mest_program *p, mest_error *err)
{
    mest_graph *g = &p->graph;
    const int n_values = g->n_values;
    for (int i = 0; i < n_values; i++) {
        if (g->values[i].kind != MEST_VALUE_PARAM || g->values[i].grad == MEST_NONE)
            continue;
        mest_update_params *u = mest_region_alloc(&g->region, 1, sizeof *u);
        MEST_CHECK(u, err, MEST_E_NOMEM, "optimizer: out of memory");
        *u = (mest_update_params){.apply = accumulate, .optimizer = p->spec.optimizer, .param = g->values[i].param};
        char name[300];
        snprintf(name, sizeof name, "%.280s/sum", g->values[i].name);
        const mest_id part = g->values[i].grad, node = mest_append_update_node(g, name, "mest.Accumulate", u, 1, &part, 1, err);
        MEST_CHECK(node != MEST_NONE, err, MEST_E_NOMEM, "optimizer: cannot add the sum of '%s'", g->values[i].name);
        const mest_id whole = g->nodes[node].out[0];
        g->values[i].grad = whole;
        for (int k = 0; k < g->n_outputs; k++)
            if (g->outputs[k] == part)
                g->outputs[k] = whole;
    }
    return MEST_OK;
}
