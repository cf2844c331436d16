/* SPDX-License-Identifier: Apache-2.0 */
/* Lifetimes of values over an order of execution. Numbers only: neither program nor operators, so that a search can try thousands of orders.
 *
 *   mest_lives        the problem: operations in the order of the graph, values with their sizes
 *   mest_lives_run    what one order of execution needs: who lives from when to when, and how much at each step
 *
 * An order is the graph's own, or one in which some forward values are dropped after their last forward use and computed again when the
 * backward part first wants them. Such a value has two lives: as itself (number v), read by the forward part, and as its twin (number
 * v + n_values), made by running its operation again and read by the backward part.
 */
#ifndef MEST_RUNTIME_LIVES_H
#define MEST_RUNTIME_LIVES_H

#include "runtime/alloc.h"

typedef struct mest_lives_form { /* one way to run an operation */
    const int32_t *in;        /* numbers of values, -1: absent */
    int32_t n_in;
    uint32_t over;            /* bit k: output 0 may be written over input k, if that is not read again */
    bool view;                /* output 0 is input 0: no memory of its own */
    double seconds;           /* modelled time */
    size_t scratch;           /* bytes needed while it runs */
} mest_lives_form;

typedef struct mest_lives_op {
    mest_lives_form form;     /* in the order of the graph */
    mest_lives_form again;    /* when it is run a second time; it may read outputs of the first time */
    const int32_t *out;
    int32_t n_out;
    bool forward;
} mest_lives_op;

typedef struct mest_lives_value {
    size_t bytes;
    int32_t producer;         /* operation, -1: none */
    bool planned;             /* has memory in the arena: the result of an operation */
    bool kept;                /* read after the run */
    bool again;               /* a second run of its producer makes it, with the same content */
} mest_lives_value;

typedef struct mest_lives {
    mest_heap *heap;
    mest_lives_op *ops;
    mest_lives_value *values;
    int32_t n_ops, n_values;
} mest_lives;

typedef struct mest_lives_run {
    int32_t n_steps;
    int32_t *op;              /* per step: the operation */
    bool *again;              /* per step: it is run a second time */
    size_t *live;             /* per step: bytes in use while it runs, scratch included */
    int32_t *first, *last;    /* per value and per twin (2 n_values): first and last step; first > last: does not exist */
    int32_t *root;            /* per value and twin: the one whose memory it shares */
    size_t peak;              /* largest of live: no placement can need less */
    int32_t peak_step;
    double excess;            /* sum over steps of what lies above the limit */
    double seconds_again;     /* modelled time of the second runs */
    /* internal */
    int32_t *stack;
    const mest_lives *problem;
} mest_lives_run;

mest_status mest_lives_create(mest_lives *l, mest_heap *heap, int32_t n_ops, int32_t n_values, mest_error *err); /* all zero */
void mest_lives_free(mest_lives *l);

/* Memory for every order of the problem, which must outlive it. */
mest_status mest_lives_run_create(mest_lives_run *r, const mest_lives *l, mest_error *err);
void mest_lives_run_free(mest_lives_run *r);

/* dropped: per value, != 0 where the backward part reads a twin (NULL: nowhere); only values with `again` may be marked. Allocates nothing. */
void mest_lives_evaluate(mest_lives_run *r, const uint8_t *dropped, size_t limit);

static inline const mest_lives_form *mest_lives_form_of(const mest_lives_run *r, int32_t step)
{
    const mest_lives_op *op = &r->problem->ops[r->op[step]];
    return r->again[step] ? &op->again : &op->form;
}
/* The number under which a step reads value v: its own or the twin's. */
static inline int32_t mest_lives_seen(const mest_lives_run *r, const uint8_t *dropped, int32_t v, int32_t step)
{
    return dropped && dropped[v] && (r->again[step] || !r->problem->ops[r->op[step]].forward) ? v + r->problem->n_values : v;
}
static inline int32_t mest_lives_root(const mest_lives_run *r, int32_t id)
{
    while (r->root[id] != id)
        id = r->root[id];
    return id;
}

#endif
