/* SPDX-License-Identifier: Apache-2.0 */
/* Small networks, and training runs on keyed random samples through the public functions, for the memory tests: an allocator counts, and a
 * fingerprint of losses and weights tells whether two runs were the same to the bit. */
#ifndef TESTS_MEMORY_NETS_H
#define TESTS_MEMORY_NETS_H

#include "mest/memory.h"
#include "mest/train.h"

typedef struct net {
    const char *name, *path;
    bool shared;             /* path is relative to MEST_SHARED/fixtures */
    const char *loss;
    int rank, target_rank;
    int64_t dim[3], target_dim[3];
    int64_t classes;         /* ce */
    int64_t tokens;          /* inputs are integers below this; 0: floats */
    bool batch_statistics;   /* the network normalises over the batch */
} net;
extern const net nets[];     /* name NULL at the end */

typedef struct net_how {
    mest_train_config config; /* net_how_init sets the test's defaults */
    const char *scheme;      /* NULL: dense */
    double sparsity;
    int64_t samples, epochs; /* samples that are no multiple of the batch exercise the smaller last batch */
    bool validate;
    bool plan_first;         /* mest_session_plan_memory before training; always with a limit */
    bool scheduler;          /* mest, moving the pattern each epoch */
    const char *method, *method_options; /* another one; NULL: none */
} net_how;

typedef struct net_result {
    mest_error error;
    uint64_t weights;        /* fingerprint of every parameter's bits */
    double loss;             /* of the last epoch */
    float *values;           /* all parameters, n_values; to be freed with net_result_free */
    size_t n_values;
    size_t peak, now;        /* of the allocator */
    long calls_in_steps;     /* allocations between the first and the last step of an epoch, all epochs */
    mest_plan_info plan;
    mest_memory_plan memory; /* plan_first */
    int64_t steps;
} net_result;

/* Keyed samples of a network; `samples` must outlive the source. */
typedef struct net_samples { const net *n; int64_t count; } net_samples;
mest_source net_source(net_samples *samples);
/* Every parameter's values and fingerprint into the result. */
mest_status net_read(const mest_model *m, net_result *r, mest_error *err);

void net_how_init(net_how *how);
/* The file of the network, or NULL if it belongs to the shared fixtures and they are not here. */
const char *net_path(const net *n, char *path, size_t size);
/* Trains; the error is in the result. */
mest_status net_train(const net *n, const net_how *how, net_result *result);
/* 38 samples: all epochs; or the first one, and a checkpoint in `to`; or those after the checkpoint `from`. Parameters are in the result. */
mest_status net_half(const net *n, const mest_train_config *c, const char *from, const char *to, net_result *r);
void net_result_free(net_result *r);
/* |a - b| / |b| over all parameters. */
double net_distance(const net_result *a, const net_result *b);

#endif
