/* SPDX-License-Identifier: Apache-2.0 */
/* engine.h - a model file in memory, with the versions of its weights that training makes. Counted references: what serves, what trains and each
 * worker hold one, so that a folder that was loaded anew takes over while the last answers of the one before are still being computed. */
#ifndef TOOLS_SERVE_ENGINE_H
#define TOOLS_SERVE_ENGINE_H

#include <stdatomic.h>

#include "mest/serve.h"
#include "serve/settings.h"
#include "serve/v2_tensor.h"

typedef struct engine {
    atomic_int references;
    mest_model *model;
    int64_t base;               /* number of the folder that the file came from: the first version */
    int n_inputs, n_outputs;
    tensor_spec in[MAX_TENSORS], out[MAX_TENSORS];
    bool open;                  /* some axis of an input, other than that of the batch, is free */
    int target;                 /* output that is trained */
} engine;

/* Shapes of one sample of each input. */
typedef int64_t input_shapes[MAX_TENSORS][MEST_MAX_RANK];

/* Loads FOLDER/model.onnx, makes it sparse as the settings say and publishes it as version `base`. The caller has the only reference. */
engine *engine_load(const char *folder, int64_t base, const settings *s, fault *f);
engine *engine_hold(engine *e);
void engine_release(engine *e); /* NULL is fine */
/* `shapes` are looked at if the engine is open, then every axis has a size there. */
mest_predictor *engine_predictor(engine *e, input_shapes shapes, int64_t max_batch, fault *f);
/* Shape of one sample of output k. */
bool engine_output_shape(mest_predictor *p, int k, int rank, int64_t dim[MEST_MAX_RANK], fault *f);

#endif
