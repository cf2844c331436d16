/* SPDX-License-Identifier: Apache-2.0 */
/* Params of the quantisation operators (ops/quantize.c), for the pass that makes mest.FakeQuantize. */
#ifndef MEST_OPS_QUANTIZE_H
#define MEST_OPS_QUANTIZE_H

#include "runtime/op.h"

typedef struct mest_quantize_params {
    int64_t axis, block, output_dtype;
    double lo, hi;       /* mest.FakeQuantize: range of the whole numbers */
} mest_quantize_params;

#endif
