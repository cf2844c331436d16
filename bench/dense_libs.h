/* SPDX-License-Identifier: Apache-2.0 */
/* The dense libraries that sparse layers are measured against: oneDNN (2.x, plain C) and OpenBLAS, on one thread. */
#ifndef BENCH_DENSE_LIBS_H
#define BENCH_DENSE_LIBS_H

#include <stdint.h>

typedef struct bench_layer {
    const char *name;
    int64_t c, m, size, kernel; /* size 1 and kernel 1: fully connected */
} bench_layer;

enum { PASS_FORWARD, PASS_DATA, PASS_WEIGHTS };

/* Shortest of several runs, seconds of this thread. oneDNN in the layouts it chooses itself, direct algorithm. 0: it cannot. */
double onednn_seconds(const bench_layer *l, int64_t batch, int pass);
/* One matrix product; 1x1 convolutions and fully connected layers only, else 0. */
double openblas_seconds(const bench_layer *l, int64_t batch, int pass);
const char *dense_versions(void);
/* The shortest of a few calls after a first one. */
double shortest(void (*call)(void *), void *context);

#endif
