/* SPDX-License-Identifier: Apache-2.0 */
/* served.h - one model that is served: its folder, the engine that answers now, its requests. And all of them. */
#ifndef TOOLS_SERVE_SERVED_H
#define TOOLS_SERVE_SERVED_H

#include <pthread.h>

#include "serve/batcher.h"
#include "serve/metrics.h"
#include "serve/version_dirs.h"

typedef struct trainer trainer;

typedef struct served {
    char name[64], folder[DIR_PATH];
    settings settings;
    fault broken;                   /* status 0: it answers; otherwise why it does not */
    int n_inputs, n_outputs, target;
    tensor_spec in[MAX_TENSORS], out[MAX_TENSORS];
    char *names;                    /* of the tensors: engines come and go */
    pthread_mutex_t lock;           /* of engine */
    engine *engine;                 /* that answers now */
    batcher *batcher;
    model_metrics metrics;
    trainer *trainer;               /* NULL: it cannot be trained */
    fault untrained;                /* why not */
} served;

typedef struct models {
    int count;
    served **list;                  /* by name */
} models;

/* Loads every model of the folder, the version that is current in each. A model that cannot be loaded is in the list, with the reason; false:
 * the folder itself cannot be read or holds no model. */
bool models_open(models *m, const char *folder, fault *f);
void models_close(models *m);
served *models_find(const models *m, const char *name);

/* A reference to the engine that answers now. */
engine *served_engine(served *s);
/* Lets another engine answer from the next batch on, and takes over the caller's reference. Refused when its tensors are not the same. */
bool served_replace(served *s, engine *e, fault *f);
/* Number of the version that answers now. */
int64_t served_version(served *s);

#endif
