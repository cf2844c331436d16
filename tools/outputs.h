/* SPDX-License-Identifier: Apache-2.0 */
/* outputs.h - results of --infer as a file that appears whole or not at all: NumPy (.npy) or CSV, by the ending of the name. */
#ifndef TOOLS_OUTPUTS_H
#define TOOLS_OUTPUTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct outputs {
    FILE *file;
    char path[4096], temporary[4200]; /* path "-": CSV on stdout */
    bool csv;
    int64_t row; /* numbers of one sample */
} outputs;

/* n samples of shape dim[0..rank-1]. False: errno says why. */
bool outputs_open(outputs *o, const char *path, int64_t n, const int64_t *dim, int rank);
bool outputs_write(outputs *o, const float *values, int64_t n_samples);
bool outputs_commit(outputs *o);
void outputs_abort(outputs *o); /* removes what was written; after a commit, or without open, it does nothing */

#endif
