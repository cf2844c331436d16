/* SPDX-License-Identifier: Apache-2.0 */
/* Sparsities layer by layer from a YAML file, in the form MEST's profiles have:
 *
 *     prune_ratios:
 *       layer1.0.conv1.weight:
 *         0.9
 *
 * Other keys of the file are skipped, and named to the logger. Names are those of the framework's parameters. */
#ifndef MEST_RUNTIME_RATIOS_H
#define MEST_RUNTIME_RATIOS_H

#include "runtime/model.h"

typedef struct mest_ratio {
    char *name;       /* as the file has it */
    double sparsity;  /* [0, 1) */
    int32_t param;    /* parameter of the model it is meant for, -1: none */
} mest_ratio;

typedef struct mest_ratios {
    mest_heap *heap;
    mest_ratio *ratio;
    int32_t n, room;
} mest_ratios;

/* MEST_E_IO; MEST_E_FORMAT with file and line. At most 1 MiB, 65,536 entries. */
mest_status mest_ratios_read(mest_ratios *r, mest_heap *heap, const char *path, mest_error *err);
void mest_ratios_free(mest_ratios *r);

/* Finds the parameter of each name: the same name, also without "module." (DataParallel) at its front; the one parameter whose name ends
 * with it, behind a dot; the name without its first part; or, where the model's file lost its names ("onnx::Conv_12"), the weight of the
 * node whose name is the path of modules ("/layer1/layer1.0/conv1/Conv"). graph: as the layers see their weights. MEST_E_ARGUMENT lists
 * all names without a parameter. */
mest_status mest_ratios_match(mest_ratios *r, const mest_model *m, const mest_graph *graph, const char *path, mest_error *err);

#endif
