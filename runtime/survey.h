/* SPDX-License-Identifier: Apache-2.0 */
/* Verdicts on the nodes of a model that may not run, or not train, as it is. A graph with a survey is lowered and differentiated like any
 * other, but what a stage cannot do with a node is written down here, and the stage goes on without that node.
 *
 *   mest_imported   what the importer says of one node of the file (a tolerant load keeps it; see mest_model_options.tolerant)
 *   mest_verdict    what the stages say of one node of the model's graph
 *   mest_survey     all verdicts, and failures that belong to no single node
 */
#ifndef MEST_RUNTIME_SURVEY_H
#define MEST_RUNTIME_SURVEY_H

#include "runtime/op.h"

typedef enum mest_imported_kind {
    MEST_IMPORTED_NODE = 0,
    MEST_IMPORTED_CONSTANT,     /* a Constant node: a value of the graph, no node */
    MEST_IMPORTED_ALIAS,        /* Identity of an initializer, resolved */
    MEST_IMPORTED_TENSOR        /* no node of the file: an initializer or input that cannot be taken, standing in for whoever makes it */
} mest_imported_kind;

typedef struct mest_imported {
    const char *name, *op, *domain; /* as in the file; domain "" = ai.onnx */
    int64_t opset;
    int32_t origin;             /* number in graph.node; -1 inside a local function, or no node */
    mest_imported_kind kind;
    mest_id node;               /* of the model's graph; MEST_NONE where there is none */
    mest_status status;         /* MEST_OK, or why the importer cannot take the node */
    const char *why, *advice;   /* NULL when status is MEST_OK */
} mest_imported;

typedef struct mest_verdict {
    mest_status forward, backward; /* MEST_OK, or why the node cannot run, or has no gradient */
    const char *forward_why, *backward_why;
    mest_id unknown;            /* not judged: the type of this value, an input, is not known; MEST_NONE otherwise */
    bool live;                  /* a trainable parameter is before it and the loss behind: it needs a gradient */
} mest_verdict;

enum { MEST_SURVEY_FAILURES = 8 };
typedef struct mest_survey {
    mest_region region;
    mest_verdict *verdict;      /* by mest_node.source */
    int32_t n;
    int64_t batch;              /* what a symbolic first axis of a declared type stands for */
    const char *failure[MEST_SURVEY_FAILURES]; /* of no single node, in order */
    int n_failures;
    mest_id *ends;              /* values the graph was cut at: what they go into cannot run */
    int32_t n_ends;
    uint8_t *starts;            /* per value: a result of something that cannot run; 1 where its type is known from elsewhere */
    int32_t n_starts;           /* values of the graph when it was cut */
    bool cut;                   /* something cannot run */
    bool no_loss;               /* the type of the output is not known */
    int64_t fixed_batch;        /* not 0: the file fixes this batch, and it cannot be shown that another one is right: */
    const char *fixed_why;
} mest_survey;

/* Verdicts for a graph of n nodes. Freed by mest_survey_free. */
mest_status mest_survey_init(mest_survey *s, mest_heap *heap, int32_t n, int64_t batch, mest_error *err);
void mest_survey_free(mest_survey *s);

/* A stage failed at a node. With a survey the failure is written down, err is cleared, and the result is MEST_OK: go on. Otherwise, and
 * when memory ran out, `status` comes back. */
mest_status mest_survey_forward(mest_graph *g, mest_id node, mest_status status, mest_error *err);
mest_status mest_survey_backward(mest_graph *g, mest_id node, mest_status status, mest_error *err);
/* The same for a failure that belongs to no node. */
mest_status mest_survey_failure(mest_graph *g, mest_status status, mest_error *err);
/* Before a node's types are inferred: false when the survey leaves the node out, since it cannot run or an input's type is unknown. Its
 * results then have the type that the file declares, if it declares one. Always true without a survey. */
bool mest_survey_takes(mest_graph *g, mest_id node);
/* The node is in a branch of an If that cannot be decided, for want of `value`: it is not judged. False without a survey. */
bool mest_survey_undecided(mest_graph *g, mest_id node, mest_id value);
/* Inputs with a size that is not known have no type from here on. Does nothing without a survey. */
void mest_survey_forget_inputs(mest_graph *g);
/* The file fixes its batch, for this reason (copied). Does nothing without a survey. */
void mest_survey_fixed_batch(mest_graph *g, int64_t batch, const char *why);
/* The node needs a gradient. */
void mest_survey_live(mest_graph *g, mest_id node);
/* After inference: takes out what cannot run. What it made becomes an input, what it read an end. Does nothing without a survey. */
mest_status mest_survey_cut(mest_graph *g, mest_error *err);

/* An operator that stands for one the library does not have; `name` and `domain` are kept as they are. NULL when out of memory. */
const mest_op *mest_unknown_op(mest_region *region, const char *domain, const char *name);

#endif
