/* SPDX-License-Identifier: Apache-2.0 */
/* mest/memory.h - what a session needs in memory, who holds it, and how a limit is kept.
 *
 *   mest_memory_plan     the prediction: the parts, their sum for the allocator and for the whole process, and what was chosen to obey
 *   mest_memory_value    one value of a step: who made it, how large it is, from when to when it lives
 *
 * Set config.memory_limit (mest/train.h) to have a limit obeyed. What it covers is the process as the system counts it (VmHWM): code and
 * libraries, stacks, what the data source holds, the allocator's blocks, what XNNPACK packs. The first training step, a call of
 * mest_session_train or of mest_session_plan_memory makes the plan; if no way to obey is left, it fails with MEST_E_LIMIT and the number
 * of bytes that would do, before anything was trained.
 */
#ifndef MEST_MEMORY_H
#define MEST_MEMORY_H

#include "mest/train.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All in bytes but where it says otherwise. */
typedef struct mest_memory_plan {
    uint32_t struct_size;
    int64_t batch;             /* samples a step */
    /* one step: values in an arena that all programs of the session share; alive at the node where most is alive */
    int64_t arena_bytes;
    int64_t live_bytes;        /* alive there: no placement needs less; the rest of the arena are holes */
    int64_t activation_bytes;  /* of these: forward values */
    int64_t recomputed_bytes;  /* forward values that were dropped and have been computed again */
    int64_t gradient_bytes;    /* gradients of activations */
    int64_t weight_gradient_bytes;
    int64_t scratch_bytes;     /* of the kernel that runs there */
    const char *peak_node, *peak_op; /* lent until the session plans anew */
    /* what lives from step to step */
    int64_t weight_bytes;      /* values of parameters and statistics, stored entries only */
    int64_t index_bytes;       /* patterns of sparse weights */
    int64_t derived_bytes;     /* lists that kernels derive from patterns */
    int64_t optimizer_bytes;
    int64_t pipeline_bytes;    /* batches in preparation and in work, order of the samples */
    int64_t other_bytes;       /* graphs, plans, names, schedulers, states of kernels */
    /* sums */
    int64_t heap_bytes;        /* the allocator at most */
    int64_t base_bytes;        /* the process beside it, as measured when the plan was made */
    int64_t outside_bytes;     /* what it will grow by outside of the allocator: stacks, code that has not run yet, XNNPACK's copies */
    int64_t process_bytes;     /* the process at most: heap + base + outside */
    int64_t limit_bytes;       /* config.memory_limit; 0: none */
    /* what was chosen */
    int n_again;               /* nodes that run a second time in a step */
    double again_share;        /* their part of a step's time, by the model of costs: 0.1 is a tenth more */
    int64_t eval_batch;        /* samples of a step of an evaluation, made smaller if the limit asks for it */
    char chosen[200];          /* the same in words; "" when nothing had to be done */
    int64_t micro_batch;       /* samples that are computed at once: those of a step, or fewer, and then gradients are added (mest/train.h: micro_batch) */
    double parts_share;        /* what that adds to a step's time, by the model of costs, where a plan has chosen it: 0.1 is a tenth more */
} mest_memory_plan;

/* Plans the training of `source` (NULL: steps of config.batch samples, whatever their number) with the validation in `options` (may be NULL):
 * builds the programs that the run will use, takes their memory, and says what it comes to. plan may be NULL.
 * Errors: MEST_E_LIMIT; those of mest_session_train before its first step. */
MEST_NODISCARD MEST_API mest_status mest_session_plan_memory(mest_session *session, const mest_source *source, const mest_run_options *options,
                                                             mest_memory_plan *plan, mest_error *err);

typedef struct mest_memory_value {
    uint32_t struct_size;
    const char *name;          /* of the value; scratch: of the node */
    const char *op;            /* operator that makes it */
    const char *kind;          /* "activation", "recomputed", "gradient", "weight gradient", "scratch" */
    int64_t bytes, offset;     /* in the arena, alignment and halo included */
    int born, dies;            /* numbers of nodes (mest_node_info.index): made by the first, in use until the last has run */
    const char *born_name, *dies_name; /* their names; dies_name is "end" for what is read after the step */
    bool at_peak;              /* alive at the node where most is alive */
} mest_memory_value;

/* Every block of the program's arena, largest first. Values that share a block (views, results written over an input) are one, under the name of
 * the first. The program is planned if it is not yet. Text is lent until the callback returns. */
MEST_NODISCARD MEST_API mest_status mest_session_memory_values(mest_session *session, mest_program_kind kind, int64_t batch,
                                                               void (*value)(void *user, const mest_memory_value *value), void *user, mest_error *err);

/* The process now and at most so far, as the system counts it (VmRSS, VmHWM); 0 where it does not. Pointers may be NULL. */
MEST_API void mest_process_memory(int64_t *current_bytes, int64_t *peak_bytes);

#ifdef __cplusplus
}
#endif
#endif
