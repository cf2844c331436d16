/* SPDX-License-Identifier: Apache-2.0 */
/* mest/gradcheck.h - are the gradients of this model right? A library of its own (link with -lmest-gradcheck): the runtime compiled a second
 * time with double in place of float, portable code only.
 *
 *   mest_gradcheck            checks a model file; nothing of the caller's is changed
 *   mest_gradcheck_item       one thing that was checked
 *   mest_gradcheck_options    what to check on, and for how long
 *
 * Three questions, in this order:
 *   1. kernels     do float32 kernels give the gradients that double gives? (Only if the caller can run a step, see float_step.)
 *   2. nodes       is the gradient rule of each node right, at the shapes, attributes and values that it has in this model? Each node is run
 *                  alone: random direction u, (L(x + h u) - L(x - h u)) / 2h against <dL/dx, u>, L a random linear function of its results.
 *   3. model       is the whole gradient right: the same with the loss, along random directions over all parameters, then parameter by parameter.
 * 2 and 3 are computed in double, 3 at a point near the model's weights (moved by 0.1 %, so that ties such as Relu(0) are left). A kink
 * between x - h u and x + h u disturbs the quotient in proportion to h: it is repeated with smaller h before a gradient is called wrong.
 * What time does not allow is reported as unchecked, never as good.
 */
#ifndef MEST_GRADCHECK_H
#define MEST_GRADCHECK_H

#include "mest/train.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mest_gradcheck_kind {
    MEST_GRADCHECK_KERNELS = 0,  /* gradient of a parameter in float32 against double: analytic is the norm of the first, numeric of the second */
    MEST_GRADCHECK_NODE = 1,     /* one input of one node */
    MEST_GRADCHECK_MODEL = 2,    /* one direction over all parameters */
    MEST_GRADCHECK_PARAMETER = 3
} mest_gradcheck_kind;

typedef enum mest_gradcheck_result { MEST_GRADCHECK_GOOD = 0, MEST_GRADCHECK_OFF = 1, MEST_GRADCHECK_UNCHECKED = 2 } mest_gradcheck_result;

typedef struct mest_gradcheck_item {
    uint32_t struct_size;
    mest_gradcheck_kind kind;
    mest_gradcheck_result result;
    const char *name, *op;   /* node or parameter (op "": none); lent until the callback returns */
    const char *input;       /* NODE: name of the value differentiated by; otherwise "" */
    double analytic, numeric;/* the two directional derivatives */
    double error;            /* |analytic - numeric| relative to the length of the gradient along the direction */
    double step;             /* h, relative to the size of the values; 0 for KERNELS */
    const char *why;         /* of UNCHECKED; otherwise NULL */
} mest_gradcheck_item;

typedef struct mest_gradcheck_summary {
    uint32_t struct_size;
    int n_good, n_off, n_unchecked; /* items */
    int n_nodes, n_parameters;      /* checked: nodes with at least one input, parameters one by one */
    double worst;                   /* largest error of a good item of double */
    double worst_float;             /* largest error of KERNELS, good or not */
    double loss;
    double seconds;
    char first[256];                /* what is off, first node in the order of the file, else first parameter, else ""; with the operator */
} mest_gradcheck_summary;

typedef struct mest_gradcheck_options {
    uint32_t struct_size;
    const mest_allocator *allocator; /* NULL: default */
    const mest_logger *logger;       /* NULL: silent */
    const mest_train_config *config; /* loss, batch norm, dropout, seed, threads; batch is the number of samples. NULL: defaults, 4 samples */
    const mest_source *source;       /* its first samples are used; NULL: made-up ones, for models with every size but the batch known */
    bool (*frozen)(void *user, const char *parameter); /* NULL: every parameter that would train is checked */
    /* One step on the same samples by the float32 library, in the caller's hands; both NULL: no question 1. Inputs and targets as
     * mest_session_step_inputs takes them. float_gradient gives the gradient of that step densely. False: it could not be had. */
    bool (*float_step)(void *user, const mest_source_info *info, const void *const *inputs, const void *targets, int64_t n);
    bool (*float_gradient)(void *user, const char *parameter, float *out, size_t count);
    void (*item)(void *user, const mest_gradcheck_item *item); /* may be NULL */
    void *user;
    double seconds;         /* default 60: no new item is begun later */
    double tolerance;       /* default 1e-4: largest error that is good, in double */
    double float_tolerance; /* default 1e-2 */
} mest_gradcheck_options;

MEST_API void mest_gradcheck_options_init(mest_gradcheck_options *options);

/* A gradient that is off is a result, not an error: look at summary->n_off. Errors: those of mest_model_load and mest_session_create;
 * MEST_E_NUMERIC (the loss is not finite), MEST_E_DATA (samples), MEST_E_SHAPE (sizes that nobody gives), MEST_E_NOMEM. */
MEST_NODISCARD MEST_API mest_status mest_gradcheck(const char *model_path, const mest_gradcheck_options *options, mest_gradcheck_summary *summary,
                                                   mest_error *err);

#ifdef __cplusplus
}
#endif
#endif
