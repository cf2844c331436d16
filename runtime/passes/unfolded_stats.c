/* SPDX-License-Identifier: Apache-2.0 */
/* In the program that measures, mest.ChannelStats looks at what goes into each unfolded BatchNormalization (runtime/unfold.c). */
#include "ops/nn.h"
#include "runtime/match.h"
#include "runtime/program.h"

static const mest_bn_fold *fold_of(const mest_pass_args *a, const mest_node *n)
{
    const mest_value *scale = &a->graph->values[n->in[1]];
    for (int32_t i = 0; i < a->model->n_folds && scale->kind == MEST_VALUE_PARAM; i++)
        if (a->model->folds[i].scale == scale->param)
            return &a->model->folds[i];
    return NULL;
}

static mest_status run(mest_pass_args *a)
{
    const mest_id n = a->spec->measure_unfolded ? a->graph->n_nodes : 0;
    for (mest_id i = 0; i < n; i++) {
        const mest_bn_fold *fold = mest_is_op(&a->graph->nodes[i], "BatchNormalization") ? fold_of(a, &a->graph->nodes[i]) : NULL;
        if (!fold)
            continue;
        mest_channel_stats_params *p = mest_pass_alloc(a, sizeof *p);
        if (!p)
            return MEST_E_NOMEM;
        *p = (mest_channel_stats_params){.mean = fold->measured, .var = fold->measured + a->model->params[fold->scale].count};
        mest_id nothing;
        MEST_TRY(mest_insert(a, i, "mest.ChannelStats", p, 1, &a->graph->nodes[i].in[0], &nothing));
        a->count++;
    }
    return MEST_OK;
}

const mest_pass mest_pass_unfolded_stats = {"unfolded_stats", "statistics of what goes into an unfolded BatchNormalization, while they are measured", MEST_PASS_FORM,
                                            MEST_FOR_INFER, true, run};
