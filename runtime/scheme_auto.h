/* SPDX-License-Identifier: Apache-2.0 */
/* Scheme "auto": which scheme a layer gets under the sparsity that is wanted, by the times of a training step in each (docs/methods.md):
 *
 *   3x3 convolution of density <= 4/9      pattern, where none is faster
 *   everything else                        the smallest block (csr is 1, then block4, block8, block16) within a tenth of the fastest
 *
 * Smaller blocks cost less accuracy. Times are those of runtime/tune.h where the table has them or they may be measured, else the kernels'
 * models of cost; all of a layer's times are of one kind. */
#ifndef MEST_RUNTIME_SCHEME_AUTO_H
#define MEST_RUNTIME_SCHEME_AUTO_H

#include "runtime/model.h"
#include "runtime/tune.h"

typedef struct mest_auto_layer {
    const mest_node *node;           /* its first layer: Conv, Gemm, MatMul .. */
    const mest_graph *graph;
    const mest_shape *weight;        /* as the layer sees it */
    bool inputs_first;
    double sparsity;
    const mest_patterns *patterns;   /* NULL: the default */
} mest_auto_layer;

/* tuner NULL: by the models. *why, in the model's region, says what was compared. */
mest_status mest_scheme_choose(mest_model *m, mest_tuner *tuner, const mest_auto_layer *layer, char scheme[16], const char **why, mest_error *err);

#endif
