/* SPDX-License-Identifier: Apache-2.0 */
/* mest/check.h - does this model train here, and if not, which nodes are in the way and what to change?
 *
 *   mest_session_check    a verdict on every node of the file, and on the whole; nothing is run
 *   mest_check_node       one node: can it run, has it the gradient it needs, by which kernels, why, what to change
 *   mest_check_finding    something about the model as a whole
 *   mest_check_summary    counts, memory and work of a step, and the answer
 *
 * Models that cannot be trained can be checked too: load them with mest_model_options.tolerant.
 */
#ifndef MEST_CHECK_H
#define MEST_CHECK_H

#include "mest/train.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mest_check_gradient {
    MEST_GRADIENT_UNNEEDED = 0, /* no trainable parameter before the node, or no loss behind it */
    MEST_GRADIENT_YES = 1,
    MEST_GRADIENT_NO = 2,       /* needed, and there is none: the model does not train */
    MEST_GRADIENT_ENDS = 3,     /* the operator is not differentiable by nature (ArgMax, Round, a comparison): what is before it does not learn from it */
    MEST_GRADIENT_UNKNOWN = 4   /* not judged: sizes are not known, or nodes behind it cannot run */
} mest_check_gradient;

/* One node of the file. Text is lent until the callback returns; NULL where there is nothing to say. */
typedef struct mest_check_node {
    uint32_t struct_size;
    int index;                   /* number of the node in the file; -1: part of a local function, or not a node (an initializer, an input) */
    const char *name, *op;
    const char *domain;          /* "": ai.onnx */
    int64_t opset;               /* version of its operator set */
    bool forward;                /* it runs, or need not run (folded into a constant, not used, part of another node) */
    mest_check_gradient gradient;
    const char *kernel;          /* of the forward: a kernel's name, "reference" (portable code), "view", "constant", "unused", "fused", "nothing" */
    const char *backward;        /* kernels of the gradient, joined by "+" */
    const char *why;             /* reason of the verdict or of the choice of kernel */
    const char *change;          /* what to change in the model, the export or the options */
    const char *inputs, *outputs;/* as planned: "x[16,3,32,32] lanes16, w csr 90.0%" */
    int64_t forward_macs, backward_macs; /* of one step, at stored entries */
    int64_t bytes;               /* read and written by it in one step, gradient included */
} mest_check_node;

typedef enum mest_check_level {
    MEST_CHECK_NOTE = 0,
    MEST_CHECK_WARNING = 1, /* trains, but perhaps not as meant */
    MEST_CHECK_ERROR = 2    /* does not train */
} mest_check_level;

typedef struct mest_check_finding {
    uint32_t struct_size;
    mest_check_level level;
    const char *text;   /* lent until the callback returns */
    const char *change; /* what to do; NULL: nothing */
} mest_check_finding;

typedef struct mest_check_summary {
    uint32_t struct_size;
    bool trains;            /* every node that is needed runs and has its gradient, and the step was planned */
    int n_nodes;            /* reported */
    int n_no_forward, n_no_gradient;
    int n_errors, n_warnings; /* findings */
    int n_trainable, n_without_gradient; /* trainable parameters; those no gradient reaches */
    bool planned;           /* false: the numbers below are 0 */
    mest_plan_info plan;    /* of one training step */
} mest_check_summary;

typedef struct mest_check_options {
    uint32_t struct_size;
    int64_t batch;               /* samples a step; 0: the session's */
    void (*node)(void *user, const mest_check_node *node);          /* in the order of the file; may be NULL */
    void (*finding)(void *user, const mest_check_finding *finding); /* after the nodes; may be NULL */
    void *user;
} mest_check_options;

MEST_API void mest_check_options_init(mest_check_options *options);

/* Sizes that the model leaves free, and what the targets are, come from mest_session_expect if it was called before; otherwise the targets
 * are taken to be what the loss usually has. Plans one training step of the session's model as it stands (frozen, sparsified) and reports; nothing is run and the memory of
 * activations is not taken. What is wrong with the model is a verdict, not an error. Errors: MEST_E_ARGUMENT, MEST_E_STATE (the run has
 * begun), MEST_E_NOMEM. */
MEST_NODISCARD MEST_API mest_status mest_session_check(mest_session *session, const mest_check_options *options, mest_check_summary *summary,
                                                       mest_error *err);

#ifdef __cplusplus
}
#endif
#endif
