/* SPDX-License-Identifier: Apache-2.0 */
/* train_body.h - the body of POST v2/models/M/train: {"action": ...} and what belongs to it. */
#ifndef TOOLS_SERVE_TRAIN_BODY_H
#define TOOLS_SERVE_TRAIN_BODY_H

#include "serve/v2_infer.h"

typedef enum train_action { TRAIN_STATUS, TRAIN_ADD, TRAIN_START, TRAIN_CANCEL, TRAIN_PROMOTE, TRAIN_ROLLBACK } train_action;

/* What samples of a model look like. Inputs are kept as float32 or int64 (the types that training takes), targets as int64 class numbers or float32. */
typedef struct sample_spec {
    int n_inputs;
    const tensor_spec *in;
    const tensor_spec *out;     /* the output that is trained */
    bool classes;               /* class numbers; false: float32 of the output's shape */
    int64_t n_classes, points;  /* class numbers of a sample: 1, or one for each place of the output without its axis of classes */
    int class_axis;             /* of the output, without the batch axis */
    size_t input_bytes, target_bytes; /* of one sample, all inputs together */
} sample_spec;

typedef struct train_call {
    train_action action;
    int64_t version;            /* promote, rollback; 0: not said */
    cJSON *settings;            /* start; NULL: none. Owned */
    int64_t n;                  /* add */
    void *inputs, *targets;     /* add: n samples, packed one after another. Owned */
} train_call;

/* All axes of inputs and output have a size. classes_first: axis of the classes where the output has several, otherwise the last. False: loss and
 * model do not fit each other, f says why. */
bool sample_spec_make(sample_spec *s, const tensor_spec *inputs, int n_inputs, const tensor_spec *output, const char *loss, bool classes_first, fault *f);
/* Gives each free axis of inputs its size from a text: "64", "3,32,32", "64;64" for two inputs. */
bool sample_shape_read(tensor_spec *inputs, int n_inputs, const char *text, fault *f);
/* True: input k is kept as float32, false: as int64. */
bool sample_is_float(const tensor_spec *input);
/* Converts sample `row` of a request's tensors to the form in which samples are kept. */
void sample_pack(const sample_spec *s, const tensor *in, int64_t row, void *to);
bool train_read(train_call *c, const unsigned char *body, size_t size, size_t json_bytes, const sample_spec *spec, const tensor_limits *limits, fault *f);
void train_free(train_call *c);

#endif
