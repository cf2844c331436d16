/* SPDX-License-Identifier: Apache-2.0 */
/* A head that was put in place of the file's: another number of classes (runtime/new_head.c).
 *
 *   mest_head          what of the file it changes besides the layer's weight and bias; the exporter reads it
 *   mest_head_result   a value along one axis of which the classes lie
 *   mest_head_sizes    a constant with the sizes of a Reshape or Resize behind the layer
 */
#ifndef MEST_RUNTIME_HEAD_H
#define MEST_RUNTIME_HEAD_H

#include "runtime/model.h"

typedef struct mest_head_result {
    const char *name;
    int axis;              /* below 0: from the end */
} mest_head_result;

typedef struct mest_head_sizes {
    const char *name;
    const int64_t *data;   /* n of them */
    int64_t n;
    bool scalar;           /* of rank 0 */
} mest_head_sizes;

typedef struct mest_head {
    int64_t classes, was;
    int32_t weight, bias;  /* parameters; bias -1: none */
    mest_head_result *results;
    int32_t n_results;
    mest_head_sizes *sizes;
    int32_t n_sizes;
} mest_head;

/* importers/onnx_export_head.c: the exporter can write other values for this constant of the file (not one inside of a function). */
bool mest_onnx_can_change(const mest_model *m, const char *constant);

#endif
