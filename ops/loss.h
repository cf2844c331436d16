/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters of mest.SoftmaxCrossEntropy and its gradient, and what its third output says of a row. */
#ifndef MEST_OPS_LOSS_H
#define MEST_OPS_LOSS_H

#include "ops/nn.h"

typedef struct mest_ce_params {
    mest_loss_params loss;    /* first: what all losses have */
    bool ignores;             /* rows whose target is ignore_index do not count */
    int64_t ignore_index;
} mest_ce_params;

enum { MEST_ROW_WRONG = 0, MEST_ROW_RIGHT = 1, MEST_ROW_IGNORED = 2 };

#endif
