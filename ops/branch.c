/* SPDX-License-Identifier: Apache-2.0 */
/* If: inputs are the condition, the results of the branch for true, those of the branch for false. The importer puts the nodes of both
 * branches into the graph, each with its condition as guard; once shapes are known the condition is a constant, whoever reads If reads the
 * taken branch, and the rest goes. So If never runs and needs no gradient. */
#include "runtime/op.h"

static mest_status undecided(mest_infer *c)
{
    return mest_infer_fail(c, MEST_E_UNSUPPORTED, "the condition depends on the data; only what follows from shapes can be decided");
}

const mest_op mest_ops_branch[] = {
    {.domain = "", .name = "If", .limits = "conditions that depend on data", .since = 1, .in_min = 1, .in_max = -1, .out_min = 1, .out_max = -1, .flags = MEST_OP_ANY_TYPE, .infer = undecided},
    {.name = NULL},
};
