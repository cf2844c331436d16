/* SPDX-License-Identifier: Apache-2.0 */
/* v2_tensor.h - tensors of the Open Inference Protocol: data types, shapes, numbers from JSON and to JSON.
 *
 *   tensor_spec    an input or output of a served model: name, type, shape of one sample
 *   tensor         n samples of it in memory, packed, in the type of the model
 */
#ifndef TOOLS_SERVE_V2_TENSOR_H
#define TOOLS_SERVE_V2_TENSOR_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

#include "mest/model.h"
#include "serve/fault.h"
#include "serve/text.h"

enum { MAX_TENSORS = 16 };

typedef struct tensor_spec {
    const char *name;         /* lent by the model */
    int dtype;                /* ONNX's number */
    const char *datatype;     /* the protocol's name of it: "FP32" */
    size_t item;              /* bytes of one element */
    int rank;                 /* without the batch axis */
    int64_t dim[MEST_MAX_RANK]; /* -1: free, each request says how long it is */
    int64_t count;            /* elements of one sample; 0: some axis is free */
} tensor_spec;

typedef struct tensor {
    const tensor_spec *spec;
    int64_t n;                /* samples */
    int64_t dim[MEST_MAX_RANK], count; /* of one sample; all axes have a size here */
    void *data;               /* owned */
    size_t bytes;
} tensor;

/* Fills datatype, item and count from dtype, rank and dim. False: the protocol has no such type, or an axis is too long. */
bool tensor_spec_complete(tensor_spec *spec);
void tensor_free(tensor *t);
/* Element i, of all samples together. */
double tensor_value(const tensor *t, int64_t i);
/* Writes element i of data that are of the type of `spec`. */
void tensor_put(const tensor_spec *spec, void *data, int64_t i, double value);

/* What one call may be. */
typedef struct tensor_limits {
    int64_t samples, axis;      /* most of them; longest a free axis may be */
    size_t bytes;               /* of one tensor */
} tensor_limits;

/* One entry of a request's "inputs": {"name", "shape", "datatype", "data"}; with parameters.binary_data_size the values are the next bytes of *tail,
 * which is moved on. `known` has n_known inputs of the model. Values that are not finite, not
 * of the type, or not as many as the shape says are refused. */
bool tensor_from_json(tensor *t, const cJSON *entry, const tensor_spec *known, int n_known, const tensor_limits *limits,
                      const unsigned char **tail, size_t *tail_bytes, fault *f);
/* The numbers of a JSON array, with brackets. Values that are not finite become null. */
void tensor_numbers(text *out, const tensor *t);
/* "[n,d,d]"; n < 0: "[-1,d,d]". */
void tensor_shape(text *out, int rank, const int64_t *dim, int64_t n);
/* An empty tensor of n samples of that shape, no data yet. False: more bytes than a size_t has. */
bool tensor_make(tensor *t, const tensor_spec *spec, const int64_t *dim, int64_t n);

#endif
