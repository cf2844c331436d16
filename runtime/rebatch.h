/* SPDX-License-Identifier: Apache-2.0 */
/* Files with a fixed batch, at another batch. An exporter that was given one example and no dynamic axes writes sizes with that batch into
 * the shapes of Reshape and Expand, the first states of recurrent layers, masks and tables. This stage follows the samples through the
 * graph and rewrites those constants, where each sample provably goes through what it would go through at the file's batch.
 *
 *   mest_spot        where the samples are in a value
 *   mest_rebatcher   one attempt: the graph at the file's batch, the graph at the wanted one, spots, what is to change
 *   mest_rebatch     the stage: all or nothing
 *
 * What is proven. Along one axis a value has, for each of `outer` positions, a block per sample: size outer * batch * inner. A rule per
 * operator (rebatch_rules.c) says where the samples are in its results, given where they are in its inputs, and refuses operators that
 * mix them (BatchNormalization and the loss mix them as they do in PyTorch). Whatever is the same for all samples stays as it is, or is
 * repeated where the operator wants it at the size of the batch. An operator without a rule refuses. After each node the shape inference
 * at the wanted batch must give the shape of the file's batch with the sample axis scaled. A file's own shape arithmetic (Shape, Gather,
 * Concat ..) is run at both batches; what it makes is told from constants of the file by that.
 */
#ifndef MEST_RUNTIME_REBATCH_H
#define MEST_RUNTIME_REBATCH_H

#include "runtime/infer.h"
#include "runtime/model.h"

/* g: inputs pinned to `to` samples, types not inferred; `at`: shapes of its inputs at `from` samples, the file's. MEST_OK with why[0] = 0:
 * constants were changed where they had to be. MEST_OK with a text in why: it cannot be shown to be right, g is as it was. Otherwise memory
 * ran out. */
mest_status mest_rebatch(mest_graph *g, const mest_shape *at, int64_t from, int64_t to, char *why, size_t why_size, mest_error *err);

/* The batch that the file fixes, by the first axis of its first input; -1: none. */
int64_t mest_model_fixed_batch(const mest_graph *g);
/* Can the model be taken for n samples? True where the file fixes none. as_it_is: also where nothing can be shown, but its shapes fit. `why`
 * gets the reason where it cannot. */
bool mest_model_rebatches(const mest_model *m, int64_t n, bool as_it_is, mest_error *why);

/* ---- for the rules ---- */
enum { MEST_REBATCH_OWN = -2 };
typedef struct mest_spot {
    int32_t axis;          /* -1: the same for all samples; MEST_REBATCH_OWN: memory of the operator that nobody else reads */
    bool by_size;          /* the same for all, but it depends on how many there are: made from Shape */
    int64_t outer;         /* positions of the axis in front of the sample */
} mest_spot;

typedef struct mest_rebatch_edit {
    mest_id node;          /* whose input changes */
    int32_t input;
    mest_id value;         /* of `to`: a constant, or the result of `made` */
    mest_id made;          /* of `to`: a node that was added; MEST_NONE: none */
} mest_rebatch_edit;

enum { MEST_REBATCH_CHOICES = 64 };
typedef struct mest_rebatcher {
    mest_graph at, to;     /* ids are the same, those of added values and nodes come behind */
    int64_t from, n;       /* samples */
    mest_spot *spot;       /* by value of `to` */
    int32_t cap_spots;
    mest_rebatch_edit *edits;
    int32_t n_edits, cap_edits;
    int32_t pick[MEST_REBATCH_CHOICES], options[MEST_REBATCH_CHOICES]; /* places where a Reshape can put the samples */
    int32_t n_choices, n_given;
    char *why;
    size_t why_size;
    mest_status status;    /* memory ran out */
    mest_error *err;
} mest_rebatcher;

/* Writes the reason (once) and returns false. */
bool mest_rebatch_refuse(mest_rebatcher *r, mest_id node, const char *format, ...) MEST_PRINTF(3, 4);
/* Shape of value v at the file's batch; where `s` is the spot, elements of one sample in one block of its axis. */
static inline const mest_shape *mest_rebatch_shape(const mest_rebatcher *r, mest_id v) { return &r->at.values[v].type.shape; }
static inline int64_t mest_rebatch_inner(const mest_rebatcher *r, const mest_shape *shape, const mest_spot *s)
{
    return shape->dim[s->axis] / (s->outer * r->from);
}
/* The shape with the axis of the samples scaled. */
mest_shape mest_rebatch_scaled(const mest_rebatcher *r, const mest_shape *shape, const mest_spot *s);
/* Input k, of any kind but samples, gets the size of the batch at this place, its content repeated. */
bool mest_rebatch_lift(mest_rebatcher *r, mest_id node, int k, const mest_spot *to);
/* Input k becomes an int64 vector. */
bool mest_rebatch_ints(mest_rebatcher *r, mest_id node, int k, int n, const int64_t *v);
/* Chooses one of n possibilities, sorted by preference; another one if what follows refuses. */
int mest_rebatch_choose(mest_rebatcher *r, int n);
/* The rule of a node with samples in some input. Sets the spots of its outputs (they are -1), changes inputs; false: refused. */
bool mest_rebatch_rule(mest_rebatcher *r, mest_id node);

#endif
