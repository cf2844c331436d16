/* SPDX-License-Identifier: Apache-2.0 */
/* Whoever reads the result of an Identity, or of a Cast to the type there already is, reads its input instead. */
#include "runtime/match.h"

static mest_status run(mest_pass_args *a)
{
    mest_graph *g = a->graph;
    for (mest_id i = 0; i < g->n_nodes; i++)
        if (mest_is_op(&g->nodes[i], "Identity") ||
            (mest_is_op(&g->nodes[i], "Cast") && g->values[g->nodes[i].in[0]].type.dtype == g->values[g->nodes[i].out[0]].type.dtype)) {
            mest_graph_replace(g, g->nodes[i].out[0], g->nodes[i].in[0]);
            a->count++;
        }
    return MEST_OK;
}

const mest_pass mest_pass_identity = {"identity", "Identity nodes and casts to the same type disappear", MEST_PASS_FORM, MEST_FOR_ALL, true, run};
