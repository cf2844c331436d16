/* SPDX-License-Identifier: Apache-2.0 */
/* What runs for an operator of a file in training. */
#ifndef MEST_TESTS_DOCS_TRAINING_FORM_H
#define MEST_TESTS_DOCS_TRAINING_FORM_H

#include <stdio.h>
#include <string.h>

#include "runtime/op.h"

static inline bool is_helper(const mest_op *op) { return op->domain && op->domain[0]; }

/* The operator itself or the form that lowering gives it. */
static inline const mest_op *training_form(const mest_op *op)
{
    char name[80];
    const mest_op *train = NULL;
    if (!strcmp(op->name, "BatchNormalization"))
        train = mest_op_find("mest", "mest.BatchNormTrain", 1);
    else if (!strcmp(op->name, "Dropout"))
        train = mest_op_find("mest", "mest.DropoutTrain", 1);
    else if (!op->vjp && !is_helper(op)) {
        snprintf(name, sizeof name, "mest.%.60s", op->name);
        train = mest_op_find("mest", name, 1);
    }
    return train ? train : op;
}

#endif
