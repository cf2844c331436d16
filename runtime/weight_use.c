/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/weight_use.h"

#include <string.h>

#include "ops/nn.h"
#include "runtime/match.h"

mest_status mest_weights_graph(mest_model *m, mest_graph *g, mest_error *err)
{
    MEST_TRY(mest_graph_copy(g, &m->graph, err));
    mest_status status = mest_graph_sort(g, err);
    if (status == MEST_OK)
        status = mest_passes_run(MEST_PASS_WEIGHTS, g, m, NULL, NULL, NULL, NULL, err);
    if (status != MEST_OK)
        mest_graph_free(g);
    return status;
}

void mest_weight_use_find(const mest_graph *g, int32_t param, mest_weight_use *u)
{
    memset(u, 0, sizeof *u);
    u->sparse_possible = true;
    for (mest_id i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++) {
            mest_id v = g->nodes[i].in[k];
            if (v == MEST_NONE || g->values[v].kind != MEST_VALUE_PARAM || g->values[v].param != param)
                continue;
            if (!u->n_uses++) {
                u->first = &g->nodes[i];
                u->first_input = k;
                u->shape = g->values[v].type.shape;
            }
            u->sparse_possible &= k < 32 && (g->nodes[i].op->sparse_in >> k & 1);
        }
    for (int i = 0; i < g->n_outputs; i++) /* a weight that is itself an output is read densely by the caller */
        if (g->values[g->outputs[i]].kind == MEST_VALUE_PARAM && g->values[g->outputs[i]].param == param)
            u->sparse_possible = false;
    u->sparse_possible &= u->n_uses > 0;
}

bool mest_is_layer(const mest_node *n)
{
    return mest_is_op(n, "Conv") || mest_is_op(n, "ConvTranspose") || mest_is_op(n, "Gemm") || mest_is_op(n, "MatMul") || mest_is_op(n, "mest.Linear");
}

/* A 1x1 convolution beside another convolution of the same input, whose result goes (through BatchNormalization) into an Add. */
static bool is_shortcut(const mest_graph *g, const mest_node *n, const mest_shape *w)
{
    if (!mest_is_op(n, "Conv"))
        return false;
    for (int i = 2; i < w->rank; i++)
        if (w->dim[i] != 1)
            return false;
    bool branch = false;
    mest_id out = n->out[0];
    for (mest_id i = 0; i < g->n_nodes; i++)
        branch |= &g->nodes[i] != n && mest_is_op(&g->nodes[i], "Conv") && g->nodes[i].in[0] == n->in[0];
    if (!branch)
        return false;
    for (int hop = 0; hop < 2; hop++)
        for (mest_id i = 0; i < g->n_nodes; i++) {
            const mest_node *c = &g->nodes[i];
            bool reads = false;
            for (int k = 0; k < c->n_in; k++)
                reads |= c->in[k] == out;
            if (!reads)
                continue;
            if (mest_is_op(c, "Add"))
                return true;
            if (mest_is_op(c, "BatchNormalization") && c->in[0] == out) {
                out = c->out[0];
                break;
            }
        }
    return false;
}

const char *mest_weight_dense_by_default(const mest_graph *g, const mest_param *p, const mest_weight_use *u)
{
    const mest_node *first_conv = NULL, *last = NULL;
    int layers = 0;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        if (!mest_is_layer(&g->nodes[i]))
            continue;
        layers++;
        if (!first_conv && mest_is_op(&g->nodes[i], "Conv"))
            first_conv = &g->nodes[i];
        last = &g->nodes[i];
    }
    if (mest_is_op(u->first, "Conv") && ((const mest_conv_params *)u->first->params)->group > 1)
        return "grouped convolution";
    if (u->first == first_conv)
        return "first convolution";
    if (u->first == last && layers > 1)
        return "last layer";
    if (is_shortcut(g, u->first, &p->shape))
        return "shortcut convolution";
    return NULL;
}

bool mest_weight_inputs_first(const mest_weight_use *u)
{
    const mest_node *n = u->first;
    return n && (mest_is_op(n, "MatMul") || mest_is_op(n, "ConvTranspose") ||
                 ((mest_is_op(n, "Gemm") || mest_is_op(n, "mest.Linear")) && !((const mest_gemm_params *)n->params)->trans_b));
}
