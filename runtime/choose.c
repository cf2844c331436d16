/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel a node gets in given layouts: the registered one that fits with the least time, modelled or measured. */
#include <string.h>

#include "runtime/program.h"
#include "runtime/tune.h"

void mest_make_query(const mest_program *p, mest_id id, mest_kernel_query *q, mest_query_storage *s)
{
    const mest_graph *g = &p->graph;
    const mest_node *n = &g->nodes[id];
    memset(q, 0, sizeof *q);
    q->node = n;
    q->params = n->params;
    q->n_in = n->n_in < 64 ? n->n_in : 64;
    q->n_out = n->n_out < 64 ? n->n_out : 64;
    for (int i = 0; i < q->n_in; i++) {
        const mest_value *v = n->in[i] == MEST_NONE ? NULL : &g->values[n->in[i]];
        s->in[i] = v ? &v->type : NULL;
        s->data[i] = v && v->kind == MEST_VALUE_CONST ? v->data : NULL;
        s->sparse[i] = v && v->type.layout.kind == MEST_SPARSE ? p->model->params[v->type.layout.param].sparse : NULL;
        s->fixed[i] = v && (v->kind == MEST_VALUE_CONST || (v->kind == MEST_VALUE_PARAM && (p->spec.weights_rest || p->model->params[v->param].role == MEST_ROLE_FROZEN || (p->spec.frozen && p->spec.frozen[v->param]))));
    }
    for (int i = 0; i < q->n_out; i++)
        s->out[i] = n->out[i] == MEST_NONE ? NULL : &g->values[n->out[i]].type;
    q->in = s->in;
    q->out = s->out;
    q->sparse = s->sparse;
    q->in_data = s->data;
    q->in_fixed = s->fixed;
    q->learns = p->spec.kind == MEST_PROGRAM_TRAIN;
    q->cpu = p->spec.cpu;
    q->use_xnnpack = p->spec.use_xnnpack;
    q->threads = p->spec.threads;
    q->heap = &p->model->heap;
    q->derived = p->spec.derived;
}

static double bytes_cost(const mest_kernel_query *q)
{
    double bytes = 0;
    for (int i = 0; i < q->n_in; i++) {
        int64_t n = 0;
        if (q->in[i] && mest_shape_count(&q->in[i]->shape, &n))
            bytes += (double)n * 4;
    }
    for (int i = 0; i < q->n_out; i++) {
        int64_t n = 0;
        if (q->out[i] && mest_shape_count(&q->out[i]->shape, &n))
            bytes += (double)n * 4;
    }
    return bytes / 10e9 + 1e-7;
}

double mest_reference_cost(const mest_kernel_query *q)
{
    double macs = q->node->op->macs ? (double)q->node->op->macs(q->node, q->in, q->out) : 0;
    return macs / 2e9 + bytes_cost(q);
}

/* A candidate: counted, or measured. True: *cost is what was measured. */
static bool measure(const mest_kernel_query *q, const mest_kernel *kernel, double *cost)
{
    double time;
    q->measure->candidates++;
    if (!q->measure->tuner)
        return false;
    if (mest_tuner_seconds(q->measure->tuner, q, kernel, *cost, &time)) {
        *cost = time;
        return true;
    }
    q->measure->missing = true;
    return false;
}

const mest_kernel *mest_fastest_kernel(const mest_kernel_query *q, double *seconds, const char **why)
{
    const mest_kernel *best = NULL;
    *seconds = MEST_NO_KERNEL;
    const mest_kernel *kernel;
    for (int list = 0; (kernel = mest_kernel_list(list)); list++)
        for (; kernel->name; kernel++) {
            const char *reason = "";
            if (strcmp(kernel->op, q->node->op->name) || (kernel->cpu & ~q->cpu) || !kernel->fits(q, &reason))
                continue;
            double cost = kernel->cost ? kernel->cost(q) : bytes_cost(q);
            const bool measured = q->measure && cost <= q->measure->below && measure(q, kernel, &cost);
            if (cost < *seconds) {
                *seconds = cost;
                *why = reason && *reason ? reason : "fastest that fits, by the cost model";
                best = kernel;
                if (q->measure)
                    q->measure->measured = measured;
            }
        }
    return best;
}
