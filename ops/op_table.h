/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MEST_OPS_OP_TABLE_H
#define MEST_OPS_OP_TABLE_H
#include "runtime/op.h"
#define MEST_OPS(file) extern const mest_op mest_ops_##file[];
#include "ops/ops.def"
#undef MEST_OPS
#endif
