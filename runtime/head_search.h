/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of mest_model_new_head share: new_head.c finds the layer and changes it, head_follow.c goes forward from it.
 *
 *   head_search   the layer, its parameters, and for each value of the graph along which axis the classes lie
 */
#ifndef MEST_RUNTIME_HEAD_SEARCH_H
#define MEST_RUNTIME_HEAD_SEARCH_H

#include "runtime/head.h"
#include "runtime/op.h"

enum { HEAD_NOWHERE = INT32_MIN };

typedef struct head_search {
    mest_model *m;
    mest_graph *g;
    const char *output;     /* name, for messages */
    int64_t classes, was;
    mest_id layer;
    int32_t weight, bias;   /* parameters; bias -1: none */
    int weight_axis, bias_axis; /* of the classes */
    int *axis;              /* per value: that of the classes, below 0 from the end; HEAD_NOWHERE */
    int *rank;              /* 0: not known */
    mest_shape *shape;      /* per value, as the file has it, for some batch; NULL: sizes are left free, shapes are not known */
    const int64_t **known;  /* per value: small whole numbers that follow from constants, as many as the shape says; NULL: not so */
    mest_head *head;        /* filled while following */
    mest_error *err;
} head_search;

bool head_is_one_of(const mest_node *n, const char *const *names);
extern const char *const head_elementwise[], *const head_pools[], *const head_shapes[], *const head_sums[];
/* The other operand of a sum or product is a parameter or a constant: its value, and in *k which input the activation is. */
mest_id head_other_operand(const mest_graph *g, const mest_node *n, int *k);
int64_t head_count(const mest_graph *g, mest_id v);
static inline int32_t head_param(const mest_graph *g, mest_id v) { return v != MEST_NONE && g->values[v].kind == MEST_VALUE_PARAM ? g->values[v].param : -1; }

/* head_follow.c: from the layer to all that reads it; fills axis, rank and head. MEST_E_UNSUPPORTED names a node that cannot be given other classes.
 * Nothing of the model changes. */
mest_status head_follow(head_search *s);

#endif
