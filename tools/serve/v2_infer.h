/* SPDX-License-Identifier: Apache-2.0 */
/* v2_infer.h - the body of POST v2/models/M/infer and of its answer, with numbers in JSON or as binary data behind the JSON. */
#ifndef TOOLS_SERVE_V2_INFER_H
#define TOOLS_SERVE_V2_INFER_H

#include "serve/v2_tensor.h"

typedef struct infer_call {
    char id[128];               /* "" if the client gave none */
    int64_t n;                  /* samples */
    int n_inputs;
    tensor in[MAX_TENSORS];     /* in the order of the model's inputs */
    int n_outputs;
    int output[MAX_TENSORS];    /* which of the model's outputs */
    bool binary[MAX_TENSORS];   /* how each is wanted */
    tensor out[MAX_TENSORS];    /* the answer */
    int64_t version;            /* that gave it; before: the one that was asked for, 0: the current one */
    double deadline_ms;         /* that the client is willing to wait (parameters.timeout, microseconds); 0: not said */
} infer_call;

/* Reads a body of `size` bytes, the first json_bytes of which are JSON (0: all of them). False: f says why; the call is to be freed either way. */
bool infer_read(infer_call *c, const unsigned char *body, size_t size, size_t json_bytes, const tensor_spec *inputs, int n_inputs,
                const tensor_spec *outputs, int n_outputs, const tensor_limits *limits, fault *f);
/* The answer's body; *json_bytes is the length of its JSON part when binary data follow, else 0. */
void infer_write(const infer_call *c, const char *model, text *out, size_t *json_bytes);
void infer_free(infer_call *c);

/* The "inputs" of a body: in[k] is input k of the model, all of them with the same number *n of samples. in[] is to be freed either way. */
bool infer_read_inputs(tensor in[MAX_TENSORS], int64_t *n, const cJSON *list, const tensor_spec *inputs, int n_inputs, const tensor_limits *limits,
                       const unsigned char *tail, size_t tail_bytes, fault *f);
/* Parses exactly one JSON value (no bytes behind it but blanks), with limits on depth and number of values. NULL: f says why. */
cJSON *json_read(const unsigned char *body, size_t size, fault *f);

#endif
