/* SPDX-License-Identifier: Apache-2.0 */
/* Operators that draw random numbers become mest.Draw, which knows the node that draws. */
#include "ops/draw.h"
#include "runtime/match.h"
#include "runtime/survey.h"

static mest_status lower(mest_pass_args *a, mest_id id, mest_draw_kind kind)
{
    const mest_node *n = &a->graph->nodes[id];
    mest_draw_params *p = mest_pass_alloc(a, sizeof *p);
    if (!p)
        return MEST_E_NOMEM;
    *p = *(const mest_draw_params *)n->params;
    p->kind = kind;
    p->key = (uint64_t)(n->origin >= 0 ? n->origin : id);
    return mest_rewrite(a, id, "mest.Draw", p, n->n_in, n->in, 1, true);
}

static mest_status run(mest_pass_args *a)
{
    static const struct { const char *op; mest_draw_kind kind; } ops[] = {
        {"RandomNormal", MEST_DRAW_NORMAL}, {"RandomNormalLike", MEST_DRAW_NORMAL}, {"RandomUniform", MEST_DRAW_UNIFORM},
        {"RandomUniformLike", MEST_DRAW_UNIFORM}, {"Bernoulli", MEST_DRAW_BERNOULLI}};
    for (mest_id i = 0; i < a->graph->n_nodes; i++)
        for (size_t k = 0; k < sizeof ops / sizeof *ops; k++)
            if (mest_is_op(&a->graph->nodes[i], ops[k].op)) {
                MEST_TRY(mest_survey_forward(a->graph, i, lower(a, i, ops[k].kind), a->err));
                break;
            }
    return MEST_OK;
}

const mest_pass mest_pass_draw_form = {"draw_form", "random numbers as a function of seed, step and node", MEST_PASS_FORM, MEST_FOR_ALL, true, run};
