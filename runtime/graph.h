/* SPDX-License-Identifier: Apache-2.0 */
/* The graph: values and nodes in arrays, ids instead of pointers. Forward, backward and update nodes live in one graph.
 *
 *   mest_value   something with a type: input, parameter, constant, or the result of one node (SSA)
 *   mest_node    an application of an operator; nodes are kept in an order in which they can run
 *   mest_graph   both, plus the region that holds names, attributes and constants
 *
 * The model holds the imported graph (shapes may be symbolic); a program is a copy with the batch pinned, lowered and differentiated.
 */
#ifndef MEST_RUNTIME_GRAPH_H
#define MEST_RUNTIME_GRAPH_H

#include "runtime/alloc.h"
#include "runtime/tensor.h"

typedef int32_t mest_id; /* of a value or node; -1 = none */
#define MEST_NONE ((mest_id)-1)

struct mest_op;

typedef enum mest_value_kind {
    MEST_VALUE_INPUT = 0,  /* fed by the caller each run: samples, targets */
    MEST_VALUE_PARAM = 1,  /* weights and statistics: data is in model->params[param] */
    MEST_VALUE_CONST = 2,  /* data is in `data`, type.dtype elements in C order, aligned */
    MEST_VALUE_RESULT = 3  /* computed by `producer` */
} mest_value_kind;

typedef struct mest_value {
    const char *name;      /* never NULL; unique among named file values */
    mest_type type;        /* dtype MEST_UNDEFINED until inferred */
    mest_value_kind kind;
    int32_t param;         /* PARAM: index into the model's parameters; otherwise -1 */
    const void *data;      /* CONST only */
    mest_id producer;      /* RESULT: node; otherwise MEST_NONE */
    int32_t output;        /* which output of the producer */
    mest_id grad;          /* after autodiff: value of its gradient, MEST_NONE if none */
} mest_value;

typedef enum mest_phase { MEST_PHASE_FORWARD = 0, MEST_PHASE_BACKWARD = 1, MEST_PHASE_UPDATE = 2 } mest_phase;

typedef struct mest_node {
    const char *name;            /* never NULL: the file's, or made from op and number */
    const struct mest_op *op;
    const void *params;          /* op's parsed attributes (op->params_bytes), shared by copies */
    mest_id *in, *out;           /* MEST_NONE: absent optional input, output nobody wants */
    int32_t n_in, n_out;
    mest_phase phase;
    int32_t origin;              /* number of the node in the file, -1 if made here */
    int32_t source;              /* number of the node in the model's graph as imported: passes that replace a node keep it; -1 if made here */
    int32_t mark;                /* scratch of the pass at work; moves with the node */
    mest_id forward;             /* backward nodes: the forward node they belong to; otherwise MEST_NONE */
    int32_t guard;               /* 0: none. v + 1: the node is in a branch that runs when bool value v is true; -(v + 1): when it is false.
                                  * Shape inference decides branches; programs have none */
} mest_node;

typedef struct mest_graph {
    mest_region region;          /* everything below and all names, attributes, constants made here */
    mest_value *values;
    int32_t n_values, cap_values;
    mest_node *nodes;
    int32_t n_nodes, cap_nodes;
    mest_id *inputs, *outputs;   /* graph inputs (without initializers) and outputs, in file order */
    int32_t n_inputs, n_outputs;
    mest_id loss;                /* scalar, after the loss is attached; else MEST_NONE */
    struct mest_survey *survey;  /* not NULL: stages write down what fails and go on without it (runtime/survey.h) */
} mest_graph;

/* The condition of the branch that the node is in; MEST_NONE: in none. */
static inline mest_id mest_guard_value(const mest_node *n) { return (n->guard < 0 ? -n->guard : n->guard) - 1; }

void mest_graph_init(mest_graph *g, mest_heap *heap);
void mest_graph_free(mest_graph *g);
/* Deep enough copy: values, nodes, id arrays are new; names, params and constant data stay shared with `from`, which must outlive it. */
mest_status mest_graph_copy(mest_graph *to, const mest_graph *from, mest_error *err);

/* Appends a value; name is copied (NULL: "%<id>" is made). Returns its id or MEST_NONE when out of memory. */
mest_id mest_graph_value(mest_graph *g, const char *name, mest_value_kind kind, const mest_type *type);
/* Constant with a copy of the data (type gives the size; MEST_F32 as mest_real). */
mest_id mest_graph_const(mest_graph *g, const char *name, const mest_type *type, const void *data);
/* Appends a node with n_out fresh result values named after the node (or out given: uses those ids, sets their producer).
 * params is not copied. Returns the node id or MEST_NONE when out of memory. */
mest_id mest_graph_node(mest_graph *g, const char *name, const struct mest_op *op, const void *params, int n_in, const mest_id *in,
                        int n_out, const mest_id *out);
/* Puts nodes into an order in which they can run. MEST_E_FORMAT naming a node on a cycle. Keeps file order where it can. */
mest_status mest_graph_sort(mest_graph *g, mest_error *err);
/* Drops nodes whose results reach no output, loss, or node with side effects. */
mest_status mest_graph_prune(mest_graph *g, mest_error *err);
/* Outputs (but the first, and those that a second run of the node would read) that nobody reads become absent: kernels need not compute them. Gradient rules may still want them, so this
 * comes after autodiff. read: scratch, one byte per value. */
void mest_graph_trim(mest_graph *g, uint8_t *read);
/* Orders nodes by ascending key (n_nodes keys; equal keys keep their order). Ids of nodes change. */
mest_status mest_graph_order(mest_graph *g, const double *key, mest_error *err);
/* Every use of `from` (inputs of nodes, graph outputs) becomes a use of `to`. */
void mest_graph_replace(mest_graph *g, mest_id from, mest_id to);
/* Checks: ids in range, one producer, order, arity of ops, types of constants. Run after each stage. */
mest_status mest_graph_check(const mest_graph *g, const char *stage, mest_error *err);
/* Stable text, one node a line; write is called with pieces. */
void mest_graph_dump(const mest_graph *g, void (*write)(void *user, const char *text), void *user);

#endif
