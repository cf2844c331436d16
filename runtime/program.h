/* SPDX-License-Identifier: Apache-2.0 */
/* Programs: the model's graph for one purpose and one batch size, with kernels chosen and memory planned, ready to run.
 *
 *   mest_program_spec   what the program is for
 *   mest_program        graph + kernels + arena offsets; built once, run many times without allocating
 *   mest_arena          activation memory shared by all programs of a session (one runs at a time)
 *
 * Build: copy the model's graph, pin shapes, infer and fold, attach the loss, differentiate, append update nodes, assign layouts and
 * kernels, plan memory; the passes of runtime/pass.h run between these.
 */
#ifndef MEST_RUNTIME_PROGRAM_H
#define MEST_RUNTIME_PROGRAM_H

#include "runtime/kernel.h"
#include "runtime/model.h"
#include "runtime/pass.h"
#include "runtime/process.h"
#include "mest/train.h"

typedef struct mest_arena {
    mest_heap *heap;
    char *base;
    size_t bytes;
    uint32_t generation; /* +1 whenever base moved: programs bind their pointers again */
} mest_arena;

/* Optimizer rule and state, shared by all programs of a session; see runtime/optim.h. */
struct mest_optimizer;

typedef struct mest_profile {         /* who wants to know how long nodes take; mest_session_profile, mest_session_trace */
    void (*node)(void *user, mest_program_kind kind, int index, double seconds); /* NULL: nobody */
    void *user;
    void (*trace)(void *user, const mest_node_time *time); /* NULL: nobody */
    void *trace_user;
    int counter;                      /* of cycles, for trace; negative: none */
} mest_profile;

/* Which forward values a training program may drop and compute again (runtime/recompute.h); results do not change. */
typedef enum mest_recompute_kind {
    MEST_RECOMPUTE_OFF = 0,
    MEST_RECOMPUTE_LIMIT = 1,         /* as little as arena_limit needs */
    MEST_RECOMPUTE_SHARE = 2,         /* for the least memory, but at most recompute_share of a step's time */
    MEST_RECOMPUTE_LEAST = 3          /* for the least memory */
} mest_recompute_kind;

typedef struct mest_program_spec {
    mest_program_kind kind;
    int64_t batch;
    const mest_shape *input_shapes;   /* of every graph input, without the batch axis; rank -1: as the file has it. NULL: all as in the file */
    const char *output;               /* name of the output that is wanted; NULL: all of them (INFER), the first (TRAIN, EVAL) */
    const char *loss;                 /* TRAIN, EVAL */
    double label_smoothing;
    bool ignores;                     /* ce: targets of ignore_index do not count */
    int64_t ignore_index;
    const mest_type *target;          /* TRAIN, EVAL: type of the whole target batch */
    const char *batch_norm;           /* "train", "frozen", "auto" */
    bool measure_unfolded;            /* INFER: statistics of what goes into unfolded layers are taken */
    bool bn_biased;                   /* running variance by ONNX's rule */
    const char *no_fuse;              /* passes that are off, as in the session's config */
    double dropout;                   /* < 0: as in the file */
    double clip_norm;
    bool keep_gradients;
    bool no_update;                   /* TRAIN without update nodes (gradient checks) */
    bool input_gradients;             /* TRAIN: gradients of the float graph inputs too (gradient checks) */
    struct mest_optimizer *optimizer; /* TRAIN with updates */
    const uint8_t *frozen;            /* [n_params] 1: does not train, whatever its role says; NULL: none. Lent as long as the program lives */
    unsigned cpu;
    bool use_xnnpack;
    bool weights_rest;                /* parameters change seldom: kernels may keep packed copies, which notice when they do */
    const char *force_layout;         /* tests: NULL auto, "plain", "nhwc", "lanes": prefer that layout wherever a kernel has it */
    const mest_threads *threads;
    mest_derived *derived;
    mest_arena *arena;
    const mest_profile *profile;      /* may be NULL; may change between runs */
    bool counts_only;                 /* INFER: only n_folded_nodes and n_fused_nodes are wanted: no kernel, no memory; never run */
    struct mest_survey *survey;       /* not NULL: for verdicts only (runtime/survey.h); the program is never run and takes no arena */
    mest_recompute_kind recompute;    /* TRAIN */
    double recompute_share;           /* SHARE: by modelled time, 0.1 is a tenth more */
    size_t arena_limit;               /* LIMIT: bytes; the program is built even if it cannot be met */
    bool halves;                      /* TRAIN: activations are stored as bfloat16 for the backward part (halves.c) */
    bool accumulate;                  /* TRAIN with updates: the batch may come in parts, whose gradients are added (accumulate.c) */
    struct mest_tuner *tuner;         /* kernels of layers are chosen by measurement (runtime/tune.h); NULL: by their models of cost */
} mest_program_spec;

typedef struct mest_step {            /* one planned node */
    const mest_kernel *kernel;        /* NULL: reference forward of the op; views: neither */
    const char *why;
    void *state;
    double seconds;                   /* modelled time of one run; only ratios mean something */
    size_t scratch_bytes, scratch_offset;
    mest_args args;
    mest_job_times times;             /* of the jobs its threads share */
    int32_t weight_param;             /* gradient node whose dense weight gradient can be read: the sparse parameter; else -1 */
    bool nothing;                     /* a view: no code runs */
    bool clear_halo;                  /* an output has a halo that must be cleared after the node */
    bool again;                       /* a second run of an earlier node (runtime/recompute.c) */
    bool borrowed;                    /* state belongs to another node: not to be released */
} mest_step;

typedef struct mest_program {
    mest_program_spec spec;
    mest_model *model;
    mest_graph graph;
    mest_step *steps;                 /* one per node */
    mest_tensor *tensors;             /* one per value */
    size_t *offset;                   /* per value: place in the arena, SIZE_MAX = not there */
    int32_t *root;                    /* per value: value whose memory it shares */
    int32_t *first, *last;            /* per value: nodes between which it (not what shares its memory) is alive; first > last: never */
    size_t *bytes;                    /* per value: of its block, alignment and slack included */
    size_t arena_bytes;
    size_t peak_live_bytes;           /* alive at once at most, while peak_node runs: no arena can be smaller */
    mest_id peak_node;
    mest_tensor *in_pool, *out_pool;  /* argument tensors of all steps */
    int32_t *in_ids, *out_ids;
    int n_pool_in, n_pool_out;
    mest_id input, target, logits, loss, row_loss, correct; /* values of interest; MEST_NONE if absent */
    int32_t first_backward;           /* number of forward nodes: the loss is known after them */
    uint32_t bound_generation;
    int n_halves, n_floats;           /* activations stored as bfloat16; those that the backward part reads and that had to stay float */
    int n_again;                      /* nodes that run a second time */
    double seconds, again_seconds;    /* modelled time of a run without them; of them */
    int n_conversions;
    int n_measured;                   /* layers whose kernel was chosen by measurement */
    int64_t macs;
    int *pass_counts;                 /* per pass: places where it did something */
    int n_folded_nodes, n_fused_nodes; /* forward nodes, views not counted: once constants are folded; after the passes, with the loss */
} mest_program;

mest_status mest_program_build(mest_program **program, mest_model *model, const mest_program_spec *spec, mest_error *err);
void mest_program_destroy(mest_program *program);
/* The stages after differentiation, for a program whose graph is complete: kernels, memory, arguments. */
mest_status mest_program_finish(mest_program *program, mest_error *err);

/* Binds an input (packed, plain layout) for the next run. The memory must stay valid during the run. */
void mest_program_feed(mest_program *program, mest_id value, const void *data);
/* Runs all nodes, or the forward part only. MEST_E_NUMERIC when the loss is not finite (then nothing after the forward part ran). */
mest_status mest_program_run(mest_program *program, const mest_run *run, bool forward_only, mest_error *err);
/* Takes the arena it needs; done by begin and run where it was not before. MEST_E_NOMEM names the node where most is alive. */
mest_status mest_program_reserve(const mest_program *program, mest_error *err);
/* The same node by node: begin, then every node in its order. */
mest_status mest_program_begin(mest_program *program, mest_error *err);
mest_status mest_program_step(mest_program *program, mest_id node, const mest_run *run, mest_error *err);
/* Memory of a value after a run (outputs, loss, kept gradients); NULL if it has none. */
const void *mest_program_data(const mest_program *program, mest_id value);
mest_id mest_program_find(const mest_program *program, const char *name);
/* Gradient value of parameter `param` (MEST_NONE if it has none). */
mest_id mest_program_param_grad(const mest_program *program, int32_t param);
/* Gradient nodes of sparse parameter `param` whose dense gradient can be read; its gradient is theirs if there is one. */
int mest_program_weight_nodes(const mest_program *program, int32_t param);
/* Multiply-accumulates of one node, at stored entries. */
int64_t mest_program_macs(const mest_program *program, mest_id node);
/* Stored entries of the sparse weights that a node reads or whose gradient it computes; bytes it reads and writes. */
int64_t mest_program_nonzeros(const mest_program *program, mest_id node);
int64_t mest_program_node_bytes(const mest_program *program, mest_id node);
const char *mest_program_kernel(const mest_program *program, mest_id node); /* name; "reference", "view" */
const char *mest_phase_name(mest_phase phase);
void mest_program_nodes(const mest_program *program, void (*node)(void *user, const mest_node_info *info), void *user);

/* ---- stages, in their own files ---- */
mest_status mest_lower_pin(mest_graph *g, mest_model *m, const mest_program_spec *spec, mest_error *err);              /* lower.c */
mest_status mest_attach_loss(mest_program *p, mest_error *err);                                                        /* loss.c */
void mest_default_target(const char *loss, const mest_type *output, mest_type *target);
/* A node of the update phase; MEST_NONE: it cannot be added. */
mest_id mest_append_update_node(mest_graph *g, const char *name, const char *op, const void *params, int n_in, const mest_id *in, int n_out, mest_error *err);
/* Every gradient of a parameter goes through a node that adds it to those of earlier parts of the batch. */
mest_status mest_append_accumulation(mest_program *p, mest_error *err);                                                /* accumulate.c */
mest_status mest_append_updates(mest_program *p, mest_error *err);                                                     /* optim.c */
mest_status mest_assign_layouts(mest_program *p, mest_error *err); /* without halo */                                 /* layout.c */
mest_status mest_assign_halo(mest_program *p, mest_error *err);
#define MEST_NO_KERNEL 1e30 /* seconds of what cannot run */
/* The registered kernel that fits with the least time (q->measure says whether it may be measured), NULL if none does: then *why is untouched. choose.c */
const mest_kernel *mest_fastest_kernel(const mest_kernel_query *q, double *seconds, const char **why);
double mest_reference_cost(const mest_kernel_query *q); /* of the operator's reference */
/* mest_graph_prune, steps included: after kernels were chosen, before they are prepared. */
mest_status mest_program_prune(mest_program *p, mest_error *err);                                                     /* refit.c */
mest_status mest_prepare_kernels(mest_program *p, mest_error *err);
mest_status mest_store_halves(mest_program *p, mest_error *err);                                                       /* halves.c */
mest_status mest_plan_memory(mest_program *p, mest_error *err);                                                        /* plan.c */
/* Fills a kernel query for node i from present types; arrays live in q's own storage. */
typedef struct mest_query_storage {
    const mest_type *in[64], *out[64];
    const mest_sparse *sparse[64];
    const void *data[64];
    bool fixed[64];
} mest_query_storage;
void mest_make_query(const mest_program *p, mest_id node, mest_kernel_query *q, mest_query_storage *s);

mest_status mest_arena_reserve(mest_arena *arena, size_t bytes, mest_error *err);
void mest_arena_free(mest_arena *arena);

#endif
