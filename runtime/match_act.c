/* SPDX-License-Identifier: Apache-2.0 */
/* Activations that a layer can do in place of the node behind it. */
#include <string.h>

#include "ops/elements.h"
#include "ops/nn.h"
#include "runtime/match.h"

bool mest_match_act(const mest_graph *g, const mest_node *n, mest_act *act)
{
    static const struct { const char *op; mest_act_kind kind; bool has_alpha; } known[] = {
        {"LeakyRelu", MEST_ACT_LEAKY_RELU, true}, {"Sigmoid", MEST_ACT_SIGMOID, false}, {"Tanh", MEST_ACT_TANH, false},
        {"HardSigmoid", MEST_ACT_HARD_SIGMOID, true}, {"HardSwish", MEST_ACT_HARD_SWISH, false}, {"Swish", MEST_ACT_SWISH, true},
        {"Mish", MEST_ACT_MISH, false},
    };
    memset(act, 0, sizeof *act);
    if (n->n_in < 1 || n->in[0] == MEST_NONE || g->values[n->in[0]].type.dtype != MEST_F32)
        return false;
    if (mest_is_op(n, "Gelu")) {
        const char *form = ((const mest_gelu_params *)n->params)->approximate;
        act->kind = form && !strcmp(form, "tanh") ? MEST_ACT_GELU_TANH : MEST_ACT_GELU;
        return true;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (mest_is_op(n, known[i].op)) {
            act->kind = known[i].kind;
            if (known[i].has_alpha) {
                const mest_alpha_params *p = n->params;
                act->alpha = p->alpha;
                act->beta = p->beta;
            }
            return true;
        }
    return false;
}
