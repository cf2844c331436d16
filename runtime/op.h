/* SPDX-License-Identifier: Apache-2.0 */
/* Operators: identity, attributes, shape rule, reference implementation, gradient. One file per operator in ops/, one line in ops.def.
 *
 *   mest_op      what an operator is
 *   mest_attr    how one ONNX attribute becomes a field of the operator's params structure
 *   mest_infer   context of the shape rule
 *   mest_args    context of a run: typed memory in, typed memory out
 *   mest_vjp     context of the gradient rule, which emits backward nodes
 */
#ifndef MEST_RUNTIME_OP_H
#define MEST_RUNTIME_OP_H

#include "runtime/graph.h"
#include "runtime/threads.h"

/* ---- attributes ---- */
typedef enum mest_attr_kind {
    MEST_ATTR_INT = 0,    /* int64_t */
    MEST_ATTR_FLOAT = 1,  /* double */
    MEST_ATTR_STRING = 2, /* const char *, default NULL unless text is given */
    MEST_ATTR_INTS = 3,   /* mest_ints, default { 0, NULL } */
    MEST_ATTR_FLOATS = 4, /* mest_floats */
    MEST_ATTR_TENSOR = 5, /* mest_attr_tensor, default { .data = NULL } */
    MEST_ATTR_STRINGS = 6 /* mest_strings */
} mest_attr_kind;

typedef struct mest_ints { int32_t n; const int64_t *v; } mest_ints;
typedef struct mest_floats { int32_t n; const double *v; } mest_floats;
typedef struct mest_strings { int32_t n; const char *const *v; } mest_strings;
typedef struct mest_attr_tensor { mest_type type; const void *data; } mest_attr_tensor;

typedef struct mest_attr {
    const char *name;
    mest_attr_kind kind;
    size_t offset;        /* of the field in the params structure */
    double number;        /* default of INT and FLOAT */
    const char *text;     /* default of STRING */
    bool required;
    bool given_used;      /* INT: when set, an int32_t flag right after the field says whether the file gave it (declare it as such) */
} mest_attr;

/* ---- shape rule ---- */
typedef struct mest_infer {
    const mest_graph *graph;
    const mest_node *node;
    const void *params;
    int n_in, n_out;
    const mest_type *const *in;   /* NULL: absent. Shapes are fully known (batch pinned) when programs are built */
    const void *const *in_data;   /* data of inputs that are constants (type as in `in`), else NULL: for shapes given as values */
    mest_type *out;               /* to be filled: dtype, shape, (layout PLAIN already set) */
    mest_error *err;
} mest_infer;
/* Fails with the node's name and op in front: "Conv '/conv1/Conv': group 3 does not divide 16 channels". */
mest_status mest_infer_fail(const mest_infer *c, mest_status code, const char *format, ...) MEST_PRINTF(3, 4);
#define MEST_INFER_CHECK(c, cond, ...)                              \
    do {                                                            \
        if (!(cond))                                                \
            return mest_infer_fail((c), MEST_E_SHAPE, __VA_ARGS__); \
    } while (0)
/* Common rules. */
mest_status mest_infer_same(mest_infer *c);       /* every output like input 0 */
mest_status mest_infer_broadcast(mest_infer *c);  /* output 0: numpy broadcast of all inputs, dtype of input 0 */

/* ---- run ---- */
typedef struct mest_run {   /* one execution of a program */
    uint64_t seed;          /* of the session */
    uint64_t step;          /* number of the training step: keys dropout */
    double lr;              /* of this step, for update nodes */
    bool snapshot_grads;    /* update nodes keep the gradients of sparse parameters */
    bool snapshot_add;      /* added to what is there */
    bool keep_weights;      /* a probe: update nodes do nothing but that */
    double bn_weight;       /* above 0: share of this batch in the running statistics of BatchNormalization, instead of 1 - momentum */
    double logit_scale;     /* the loss sees logits times this; 0: 1 */
    const struct mest_run_hook *hook; /* NULL: nobody looks */
    /* a batch in parts, whose gradients are added before one update; all 0: the batch is whole */
    int32_t part, parts;    /* number of this one, and how many there are */
    int64_t first, samples; /* its first sample in the batch; its samples */
    double share;           /* of the batch's samples */
} mest_run;
/* Is the gradient of the batch complete with this run? */
static inline bool mest_run_completes(const mest_run *run) { return run->part + 1 >= run->parts; }
/* Elements of a value of this shape that belong to samples before this part, where its first axis are the samples; random numbers are those of the whole batch. */
static inline int64_t mest_run_before(const mest_run *run, const mest_shape *shape)
{
    int64_t per = 1;
    if (!run || !run->first || shape->rank < 1 || shape->dim[0] != run->samples)
        return 0;
    for (int i = 1; i < shape->rank; i++)
        per *= shape->dim[i];
    return run->first * per;
}

struct mest_args;
/* Called before each gradient node of a layer whose weight is a sparse parameter (of the model's list): its operands are there. */
typedef struct mest_run_hook {
    void *context;
    mest_status (*before)(void *context, const struct mest_args *a, int32_t param);
} mest_run_hook;

typedef struct mest_args {
    const mest_node *node;
    const void *params;
    int n_in, n_out;
    const mest_tensor *in;  /* data NULL: absent */
    const mest_tensor *out; /* data is writable; NULL: not wanted */
    void *state;            /* the kernel's, from prepare; NULL for reference forwards */
    void *scratch;          /* what the kernel asked for */
    const mest_threads *threads;
    const mest_run *run;
    mest_error *err;
} mest_args;
/* Fails with node and op in front, like mest_infer_fail. */
mest_status mest_run_fail(const mest_args *a, mest_status code, const char *format, ...) MEST_PRINTF(3, 4);

/* ---- gradient rule ---- */
typedef struct mest_vjp mest_vjp;
bool mest_wants(const mest_vjp *v, int input);      /* is the gradient of this input needed? (false for absent or non-float inputs) */
mest_id mest_in(const mest_vjp *v, int input);      /* the node's inputs and outputs as value ids; MEST_NONE if absent */
mest_id mest_out(const mest_vjp *v, int output);    /* marks that output as wanted: kernels may otherwise skip it */
mest_id mest_need_out(mest_vjp *v, int output);     /* the same, and makes it where nobody wanted it so far; MEST_NONE when out of memory */
mest_id mest_dout(const mest_vjp *v, int output);   /* gradient of an output; MEST_NONE when it is zero */
const mest_node *mest_vjp_node(const mest_vjp *v);
const mest_type *mest_vjp_type(const mest_vjp *v, mest_id value);
const void *mest_vjp_data(const mest_vjp *v, mest_id value); /* of a constant, otherwise NULL: axes, sizes, slice bounds */
/* Emits a backward node of operator `op` ("mest.ReluGrad" or an ONNX name) with the forward node's params (params NULL) or others
 * (region memory, see mest_vjp_alloc). Output ids are written to out[0..n_out-1]; pass want[i] = false for outputs that are not needed
 * (want NULL: all). Types come from the op's infer rule. */
mest_status mest_emit(mest_vjp *v, const char *op, const void *params, int n_in, const mest_id *in, int n_out, const bool *want, mest_id *out);
/* Adds `gradient` to the gradient of input i. If input i was broadcast, the driver sums the extra axes; contributions of several
 * uses are added. A sparse parameter's gradient must have its type (copy the type of the weight in the grad op's infer). */
mest_status mest_give(mest_vjp *v, int input, mest_id gradient);
/* Shorthand: emit an op with one output and give it to input i. */
mest_status mest_give_op(mest_vjp *v, int input, const char *op, const void *params, int n_in, const mest_id *in);
/* Shorthand: emit an op whose first n outputs (at most 4) are the gradients of the first n inputs; those that are wanted are made and given. */
mest_status mest_give_grads(mest_vjp *v, const char *op, const void *params, int n_in, const mest_id *in, int n);
void *mest_vjp_alloc(mest_vjp *v, size_t bytes);    /* zeroed memory that lives as long as the graph; NULL when out of memory */
mest_id mest_vjp_const(mest_vjp *v, const mest_type *type, const void *data);
mest_error *mest_vjp_err(mest_vjp *v);

/* ---- the operator ---- */
struct mest_outer;
enum {
    MEST_OP_INPLACE = 1u << 0,      /* forward may write out[0] over in[0] (same bytes, same index read before written); if ELEMENTWISE too,
                                     * over any input, of variadic operators over the first two (they are folded from the left) */
    MEST_OP_ELEMENTWISE = 1u << 1,  /* out[i] depends on in[*][i] only: the reference runs on storage rows in any layout (all operands
                                     * of one shape); use mest_for_rows */
    MEST_OP_SIDE_EFFECT = 1u << 2,  /* never pruned (statistics, updates) */
    MEST_OP_VIEW = 1u << 3,         /* out[0] is in[0] with another shape (plain layout): no data moves */
    MEST_OP_RANDOM = 1u << 4,       /* not folded */
    MEST_OP_TYPE_ONLY = 1u << 6,    /* forward reads only the types of its inputs (Shape, Size): folded without their data */
    MEST_OP_FLAT = 1u << 7,         /* forward treats every float operand as `count` numbers in storage order: SPARSE operands are fine */
    MEST_OP_ANY_TYPE = 1u << 5      /* forward handles every fixed-size dtype; otherwise only the float type is passed to forward, except
                                     * where the op's doc says so */
};

typedef struct mest_op {
    const char *domain;             /* "" = ai.onnx; "mest" for helpers, whose name then starts with "mest." */
    const char *name;
    int since;                      /* first opset with this meaning; the importer's normalisation gives ops this form */
    signed char in_min, in_max, out_min, out_max; /* in_max -1: variadic */
    unsigned flags;
    uint32_t act_in, act_out;       /* bit i: input / output i may be in PIXEL layout if a kernel (or ELEMENTWISE) can */
    uint32_t sparse_in;             /* bit i: input i may be a sparse parameter (a kernel must exist for it) */
    const mest_attr *attrs;         /* ends with name NULL; NULL: none */
    size_t params_bytes;
    mest_status (*infer)(mest_infer *c);
    mest_status (*forward)(const mest_args *a);  /* reference, plain layout (ELEMENTWISE: any); NULL: kernels only */
    mest_status (*vjp)(mest_vjp *v);             /* NULL: asking for a gradient is an error naming the op */
    int64_t (*macs)(const mest_node *node, const mest_type *const *in, const mest_type *const *out); /* NULL: 0 */
    bool no_grad;                   /* true: not differentiable by nature (ArgMax, Shape): gradient stops silently */
    /* Gradient operators of layers whose weight (input 1, gradient output 1) may be sparse: describes the dense gradient of the weight, so
     * that it can be read in pieces (ops/outer.h), from the operands of a run, before the node runs. NULL: it cannot be read. */
    mest_status (*weight_outer)(const mest_args *a, struct mest_outer *outer);
    /* A second run in the same step, to have output 0 once more without keeping it (runtime/recompute.c). */
    uint32_t state_in;              /* bit i: input i is written too (running statistics); the second run gets it absent */
    const char *again;              /* helper operator that does it cheaper, bit for bit; NULL: this one. Its params are the node's, its inputs: */
    uint32_t again_in, again_out;   /* these inputs of the node, then these outputs; the outputs are not trimmed */
    bool composed;                  /* no forward and no gradient of its own: a pass of the phase FORM writes it out in other operators */
    const char *limits;             /* what forms of it are refused, for docs/operators.md; NULL: none */
} mest_op;

/* Row by row over the storage of one PIXEL or PLAIN value: calls fn with offset and length (in elements) of each contiguous run of the
 * interior; operands of the same type share offsets. Parallel over runs; deterministic. */
void mest_for_rows(const mest_threads *threads, const mest_type *type, void (*fn)(void *context, int64_t offset, int64_t n), void *context);

/* The newest variant of an op with since <= opset; NULL if there is none. domain NULL, "" and "ai.onnx" are the same; "mest" for helpers
 * (opset is ignored). */
const mest_op *mest_op_find(const char *domain, const char *name, int64_t opset);
/* Bit i: forward may write out[0] over in[i], if both have one type, shape and layout (mest_op.flags: MEST_OP_INPLACE). */
uint32_t mest_op_over(const mest_op *op);
/* Tests: gets every operator that mest_op_find found and may give another one in its place (a broken gradient must be noticed). NULL: off. */
extern const mest_op *(*mest_op_replace)(const mest_op *op);
/* Every op, NULL past the end: tables, docs, tests. */
const mest_op *mest_op_at(int index);

#endif
