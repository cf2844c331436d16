/* SPDX-License-Identifier: Apache-2.0 */
/* mest/plugin.h - the scheduler ABI: plugins propose changes of patterns and of the active samples, the host disposes.
 *
 *   mest_scheduler   what a plugin gives: name and callbacks
 *   mest_host_api    what the host gives: look at sparse parameters, propose drop and grow, remove samples
 *   unit             the smallest thing a scheme removes or grows: an element (csr), h x 1 rows of one column (blockH), a 3x3 kernel with
 *                    one of a few masks (pattern), one position of a block of kernels (punchedFxC), an element of an N:M group
 *   slot             what is active or not: a unit; or, for pattern, the `choices` units (masks) of a kernel, of which at most one is active
 *
 * A plugin is one shared object with one exported symbol, mest_scheduler_entry; it needs only mest/base.h and this header and
 * links nothing. Built-in schedulers use the same ABI. Proposals are checked when they are made (range, duplicates, capacity);
 * they are applied together after the callback returned MEST_OK, and none is applied when it did not.
 * All callbacks come from the thread that trains.
 * Both tables grow at their end only, and struct_size says how far: a plugin built against an older header works with a newer host,
 * one built against a newer header finds out with MEST_HOST_HAS what an older host lacks.
 */
#ifndef MEST_PLUGIN_H
#define MEST_PLUGIN_H

#include "mest/base.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MEST_SCHEDULER_ABI 1u

typedef struct mest_host mest_host; /* opaque; belongs to one session */

/* How many of n_units units a part of them leaves: round((1 - part) * n_units), halves up. Schedulers ask units_at, which knows schemes.
 * The 1e-7 makes halves those of the decimal number that was written: (1 - 0.9) * 15 is a little below 1.5 in binary. */
static inline int64_t mest_units_at(double part, int64_t n_units)
{
    double n = (1.0 - part) * (double)n_units + 0.5 + 1e-7;
    return n <= 0 ? 0 : n >= (double)n_units ? n_units : (int64_t)n;
}

/* A sparse parameter as a plugin sees it. */
typedef struct mest_sparse_info {
    uint32_t struct_size;
    const char *name;        /* lent until the callback returns */
    const char *scheme;      /* "csr", "block4", "pattern", "nm2:4", ... "filter" and "channel": a unit is a channel of several layers. How many
                              * there are changes in epoch_begin and epoch_end only; set_values, unit_momentum, unit_products, probe, watch,
                              * perturb, remember and freeze are refused, best in create */
    int rank;
    int64_t dim[8];          /* dense shape */
    int64_t n_units;         /* U: all slots, active or not. Unit ids are below n_units * choices */
    int64_t n_active;        /* u: units stored now */
    int64_t capacity;        /* units that may ever be stored in this run */
    int32_t unit_elements;   /* elements of one unit */
    double target_sparsity;  /* what the user asked for, 0..1: of elements, see units_at */
    int32_t choices;         /* unit id = slot * choices + choice; 1 unless the scheme is pattern */
    int64_t group_units;     /* slots of a group that is kept balanced, g = slot / group_units (kernels of a filter, M of N:M); 0: none.
                              * lowest_units and sample_inactive keep the balance; a group never holds more than an even share of the
                              * capacity, rounded up */
    int32_t frozen;          /* 1: does not train any more (freeze); proposals for it are refused */
} mest_sparse_info;

typedef struct mest_epoch {
    uint32_t struct_size;
    int64_t epoch;        /* 0-based: the epoch that begins or has just ended */
    int64_t n_epochs;     /* of the whole run: those that its steps last for, with all samples, where max_steps ends it before */
    int64_t step;         /* steps done since the run began */
    int64_t n_samples;    /* samples of the data source */
    int64_t n_active_samples;
    double train_loss, train_accuracy; /* of the epoch that ended; 0 at epoch_begin */
    int64_t n_batches;    /* steps of this epoch; 0: not known, the loop is the caller's own. Hosts before it have a shorter structure: see struct_size */
    int64_t n_steps;      /* of the whole run, with all samples; 0: not known */
} mest_epoch;

/* A training step. */
typedef struct mest_training_step {
    uint32_t struct_size;
    int64_t step;         /* steps done since the run began: the number of the step that begins or has just ended */
    int64_t epoch, n_epochs;
    int64_t batch, n_batches; /* place in this epoch */
    double progress;      /* part of the run that is done when the step begins, 0..1: schedules that are fractions of the run */
    double lr;            /* of this step */
    double loss;          /* step_end: of this step, mean over its samples; otherwise 0 */
} mest_training_step;

/* What a scheduler did, for logs, progress and reports. */
typedef struct mest_mutation_report {
    uint32_t struct_size;
    int64_t removed, grown; /* units */
} mest_mutation_report;

/* ---- gradients of weights that are not stored ----
 * They exist one layer at a time: when the backward pass comes to a layer, its dense weight gradient is computed in pieces (at most
 * 65,536 numbers or one row of units, whichever is more, plus a few small buffers for each thread) from the two activations it is made of,
 * looked at, and forgotten. Cost: one dense weight-gradient product for each layer that is asked for. */

/* Units of one parameter with the loss gradient of all their elements, as if they were stored; 0 where a unit reaches past the matrix. */
typedef struct mest_gradient_piece {
    uint32_t struct_size;
    int param;
    int64_t n;
    const int64_t *units;    /* [n] ascending; pieces of a parameter come in ascending order, each unit once */
    const uint8_t *active;   /* [n] 1: stored now */
    const float *gradients;  /* [n, unit_elements] */
} mest_gradient_piece;
typedef mest_status (*mest_gradient_visitor)(void *user, const mest_gradient_piece *piece, mest_error *err);

/* The k units of largest gradient (L2 norm over their elements; equal ones: lower id) that are inactive, proposed for dropping in this
 * callback, or in `also`, and not proposed for growth. Kept in the caller's two arrays, nothing else. */
typedef struct mest_gradient_top {
    int param;
    const int64_t *also; /* [n_also] active units that count as inactive, ascending */
    int64_t n_also;
    int64_t k;
    int64_t *units;  /* out [k]: ascending ids */
    float *norms;    /* out [k]: norm of units[i]'s gradient */
    int64_t found;   /* out: less than k when there are fewer such units */
} mest_gradient_top;

/* A look at the gradients of the batch that is about to be trained (step_begin). */
typedef struct mest_probe {
    uint32_t struct_size;
    bool keep;                /* keep the gradients of stored weights for unit_scores and unit_products, as keep_gradients does */
    bool hessian;             /* with keep: what is kept is H g, the product of the Hessian with the gradient g over all sparse parameters,
                               * by central differences: two more passes, three arrays of the stored size for their duration */
    bool add;                 /* with keep: added to what is kept already in this epoch (means over several batches) */
    double logit_scale;       /* cross-entropy: logits are multiplied by this (GraSP: 1 / temperature); 0: by 1 */
    int n_top;                /* wishes, each for another parameter */
    mest_gradient_top *top;
    mest_gradient_visitor visit; /* NULL: nobody */
    void *user;
    int visit_param;          /* the parameter visit is called for, -1: all */
    int64_t extra_bytes;      /* out: most memory that was needed beside that of a training step, the caller's arrays not counted */
} mest_probe;

typedef struct mest_host_api {
    uint32_t abi, struct_size;

    /* Number of sparse parameters; they are numbered 0..n-1 in graph order. */
    int (*sparse_count)(mest_host *host);
    mest_status (*sparse_info)(mest_host *host, int param, mest_sparse_info *info, mest_error *err);
    /* Unit ids of the active units first..first+n-1, ascending (csr: id = row * columns + column; others: sparse/<format>.c). */
    mest_status (*active_units)(mest_host *host, int param, int64_t first, int64_t n, int64_t *units, mest_error *err);
    /* Score of those units: ||w|| + lambda * ||g||, L2 over the unit's elements; g is the snapshot of keep_gradients (zero if none).
     * normalised: each term divided by its mean over the active units. MEST paper, section on importance; see docs/methods. */
    mest_status (*unit_scores)(mest_host *host, int param, double lambda, bool normalised, int64_t first, int64_t n, float *scores,
                               mest_error *err);
    /* The k active units of smallest score, ties to the lower unit id, written ascending by id. With groups, those whose removal leaves
     * an even share to each, the smallest inside each group. */
    mest_status (*lowest_units)(mest_host *host, int param, double lambda, bool normalised, int64_t k, int64_t *units, mest_error *err);
    /* n distinct inactive units, uniform (with groups: the emptiest are filled first, uniform inside a group; so is the choice in a
     * slot), written ascending. Units proposed for dropping in this callback count as inactive, units
     * proposed for growing as active; `exclude` (ascending, n_exclude) is left out too. Keyed by (session seed, parameter, key):
     * same key, same answer. No memory of the order of U is used. MEST_E_LIMIT when there are fewer than n. */
    mest_status (*sample_inactive)(mest_host *host, int param, uint64_t key, const int64_t *exclude, int64_t n_exclude, int64_t n,
                                   int64_t *units, mest_error *err);
    /* Only in create: the number of units this parameter may hold at its peak. The plan reserves the largest wish. */
    mest_status (*reserve)(mest_host *host, int param, int64_t units, mest_error *err);
    /* Only in epoch_begin: keep the gradients of the last step of this epoch for unit_scores and unit_products. */
    mest_status (*keep_gradients)(mest_host *host, mest_error *err);

    /* Proposals, in epoch_begin, epoch_end, step_begin and step_end. Units must be ascending and distinct; drop: active; grow: inactive, or already dropped
     * in the same callback, in a slot that is free, and within the capacity once the drops so far are taken off. New units get value 0 and optimizer state 0;
     * survivors keep value and state bit for bit. A refused proposal leaves no trace. */
    mest_status (*drop)(mest_host *host, int param, const int64_t *units, int64_t n, mest_error *err);
    mest_status (*grow)(mest_host *host, int param, const int64_t *units, int64_t n, mest_error *err);

    /* Samples. ids ascending, distinct and active, and never all that are left; they leave the active set from the next epoch on (epoch_begin: from this one on). */
    mest_status (*remove_samples)(mest_host *host, const int64_t *ids, int64_t n, mest_error *err);
    bool (*sample_active)(mest_host *host, int64_t id);
    /* Class of a sample as seen in training, -1 if unknown or not a class. */
    int64_t (*sample_class)(mest_host *host, int64_t id);

    /* Uniform 64 bits keyed by (session seed, scheduler, stream, counter). */
    uint64_t (*random)(mest_host *host, uint64_t stream, uint64_t counter);
    /* Memory through the session's allocator. */
    void *(*allocate)(mest_host *host, size_t bytes);
    void (*release)(mest_host *host, void *memory, size_t bytes);
    void (*log)(mest_host *host, mest_log_level level, const char *text);

    /* ---- 0.2: a plugin that uses one of these looks at MEST_HOST_HAS(api, name) in create ---- */

    /* Values of active units first..first+n-1, unit_elements a unit (0 where a unit reaches past the matrix). */
    mest_status (*get_values)(mest_host *host, int param, int64_t first, int64_t n, float *values, mest_error *err);
    /* L2 norm of the optimizer's first moment (momentum of sgd, m of adamw) over those units. MEST_E_STATE when there is none. */
    mest_status (*unit_momentum)(mest_host *host, int param, int64_t first, int64_t n, float *norms, mest_error *err);
    /* A proposal like drop and grow: new values for units that are active, or were proposed for growth before in this callback.
     * values: unit_elements a unit, finite. Optimizer state stays (0 for new units). A unit may be set once in a callback. */
    mest_status (*set_values)(mest_host *host, int param, const int64_t *units, int64_t n, const float *values, mest_error *err);
    /* Undoes remove_samples for those ids (ascending, distinct, removed), from the next epoch on (epoch_begin: from this one on). */
    mest_status (*restore_samples)(mest_host *host, const int64_t *ids, int64_t n, mest_error *err);
    /* Only in step_begin: this step computes loss and metrics, but the optimizer does nothing. */
    mest_status (*skip_update)(mest_host *host, mest_error *err);
    /* Only in step_begin: runs the batch that is about to be trained forward and backward without changing weights, statistics or
     * optimizer state, and fills in the probe. If the step is skipped (skip_update), it costs no pass of its own.
     * MEST_E_UNSUPPORTED names a parameter whose dense gradient cannot be read; MEST_E_NUMERIC: loss or gradients are not finite. */
    mest_status (*probe)(mest_host *host, mest_probe *probe, mest_error *err);
    /* Only in step_begin: the same during the training step itself, without a pass of its own; results are there in step_end. `probe` and
     * its arrays must live until then. hessian and logit_scale are not possible. One watch a step. */
    mest_status (*watch)(mest_host *host, mest_probe *probe, mest_error *err);
    /* Sum over the elements of each unit of weight times kept gradient (of keep_gradients or probe), signed; MEST_E_STATE if none is kept. */
    mest_status (*unit_products)(mest_host *host, int param, int64_t first, int64_t n, float *products, mest_error *err);

    /* How many units a sparsity of the parameter's elements leaves: the one rule for targets and stages of any scheme (csr and block:
     * mest_units_at; pattern: kernels by the part of each that its mask leaves out, rounded per filter). -1: no such parameter. */
    int64_t (*units_at)(mest_host *host, int param, double sparsity);

    /* Going back, only in epoch_begin. remember: a copy of all that trains and of statistics, as it is before the proposals of this callback,
     * in place of an earlier copy: sparse parameters at their stored entries (as many numbers as may ever be stored), dense ones whole. It
     * follows the patterns: what goes leaves it, what grows is 0 in it. A resumed run has it. */
    mest_status (*remember)(mest_host *host, mest_error *err);
    /* A proposal: when the patterns of this callback have changed, every parameter gets the values of the copy (those of set_values are
     * lost), and the optimizer begins anew. MEST_E_STATE when nothing was remembered. */
    mest_status (*rewind)(mest_host *host, mest_error *err);
    /* In this epoch, and in no other, the learning rate is that of epoch `epoch` (0-based) of a run of n_epochs. */
    mest_status (*schedule_at)(mest_host *host, int64_t epoch, int64_t n_epochs, mest_error *err);

    /* A proposal, only in epoch_begin: from this epoch on, for good, this parameter and everything that trains before it in the network stays as it
     * is. Backward passes end behind it: no gradients, no updates, no optimizer state, and activations that only they needed are not kept.
     * BatchNormalization still follows its batches. MEST_E_ARGUMENT when nothing would be left to train. */
    mest_status (*freeze)(mest_host *host, int param, mest_error *err);

    /* Only in step_begin: in this step's update every stored weight w of the sparse parameters gets the gradient g + l1 * sign(w) +
     * noise * n with n standard normal, keyed by seed, parameter, step and place. Units that turn around are noted for turned_units: the
     * inner product of their weights before and after is negative (one weight: its sign changed; a weight of 0 does not turn). */
    mest_status (*perturb)(mest_host *host, double l1, double noise, mest_error *err);
    /* Only in step_end of a step that was disturbed: *n = number of units that turned around; the first `room` of them, ascending. */
    mest_status (*turned_units)(mest_host *host, int param, int64_t room, int64_t *units, int64_t *n, mest_error *err);

    /* Epochs of the run, for create: what does not go with their number is best refused there, before anything was done. 0: not known yet, as
     * only steps are counted. */
    int64_t (*epochs)(mest_host *host);
} mest_host_api;

/* Does the host know a service (field) of the table? Hosts before it have a shorter table. */
#define MEST_HOST_HAS(api, field) ((api)->struct_size >= offsetof(mest_host_api, field) + sizeof (api)->field)

/* Sequential state: write appends, read must ask for the same bytes in the same order. Non-zero status: give up. */
typedef mest_status (*mest_state_io)(void *stream, void *bytes, size_t n);

typedef struct mest_scheduler {
    uint32_t abi, struct_size;
    const char *name;    /* "mest" */
    const char *summary; /* one line for --help */
    const char *options; /* one line per option: "freq=5      epochs between mutations\n..." */
    /* options: "key=value,key=value" ("" for all defaults). Validate everything here. */
    mest_status (*create)(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err);
    /* Before the first step of an epoch, from epoch 0 on. May be NULL. */
    mest_status (*epoch_begin)(void *self, mest_host *host, const mest_epoch *epoch, mest_error *err);
    /* After a step, before its update is visible to anybody: ids of the batch and whether each prediction was right (255: not a
     * class task). May be NULL. */
    mest_status (*batch_seen)(void *self, mest_host *host, const int64_t *ids, const uint8_t *correct, int64_t n, mest_error *err);
    mest_status (*epoch_end)(void *self, mest_host *host, const mest_epoch *epoch, mest_error *err); /* may be NULL */
    /* State that must survive a resume, beyond what create derives from the options. May be NULL. */
    mest_status (*save)(void *self, mest_state_io write, void *stream);
    mest_status (*load)(void *self, mest_state_io read, void *stream);
    void (*destroy)(void *self, mest_host *host);

    /* ---- 0.2 ---- */

    /* Around each training step; both may be NULL. step_begin: the batch is there, nothing was computed yet; what it proposes holds
     * for this step. step_end: after the update. A resumed run goes on with the step that follows the last one that ended. */
    mest_status (*step_begin)(void *self, mest_host *host, const mest_training_step *step, mest_error *err);
    mest_status (*step_end)(void *self, mest_host *host, const mest_training_step *step, mest_error *err);
    uint32_t flags; /* MEST_SCHEDULER_... */
} mest_scheduler;

enum {
    MEST_SCHEDULER_MOVES_WEIGHTS = 1,  /* a method of sparse training: decides which weights are stored. A session takes one */
    MEST_SCHEDULER_STARTS_DENSE = 2,   /* begins with all weights stored (mest_sparsity.start_dense) */
    MEST_SCHEDULER_CHOOSES_SAMPLES = 4 /* decides which samples are trained on. A session takes one */
};

/* The one symbol of a plugin. Returns NULL when it cannot serve a host of that ABI. */
typedef const mest_scheduler *(*mest_scheduler_entry_fn)(uint32_t host_abi);
MEST_API const mest_scheduler *mest_scheduler_entry(uint32_t host_abi);

#ifdef __cplusplus
}
#endif
#endif
