/* SPDX-License-Identifier: Apache-2.0 */
/* The host side of mest/plugin.h: what schedulers may look at, their proposals, and when those are applied.
 *
 *   mest_host        what a session shows to its schedulers; embedded in the session
 *   mest_host_param  one sparse parameter: pattern, optimizer state that must follow it, gradient snapshot, open proposals
 *   mest_schedulers  the schedulers of a session, in the order of addition
 *
 * Order of calls: mest_host_init, fill in params; mest_schedulers_add (create may reserve); mest_host_plan, which raises capacities and
 * allocates the scratch of edits; set slots (arrays for sparse->cap_units units), samples; then the epochs:
 *     mest_schedulers_epoch_begin
 *       mest_schedulers_step_begin, step, mest_schedulers_batch_seen, mest_schedulers_step_end    (allocates nothing)
 *       after the last step, before the update's gradients are gone: mest_host_take_gradients for each parameter, if gradients_wanted
 *     mest_schedulers_epoch_end
 */
#ifndef MEST_RUNTIME_PLUGIN_H
#define MEST_RUNTIME_PLUGIN_H

#include "mest/plugin.h"
#include "runtime/loader.h"
#include "runtime/watch.h"
#include "sparse/format.h"

enum { MEST_HOST_SLOTS = 4 };

typedef enum mest_host_phase {
    MEST_HOST_NONE, MEST_HOST_CREATE, MEST_HOST_BEGIN, MEST_HOST_BATCH, MEST_HOST_END, MEST_HOST_STEP, MEST_HOST_STEP_END
} mest_host_phase;

/* A list of units or samples that was accepted but not applied, ascending. From callback to callback empty; its memory stays, so that
 * mutations of every step allocate nothing once it is large enough. */
typedef struct mest_proposal {
    int64_t *ids;
    int64_t n, cap;
    mest_real *values;          /* `width` a unit, for lists that carry values; else NULL */
    int32_t width;
} mest_proposal;

struct mest_optimizer;

typedef struct mest_host_param {
    const char *name;
    int32_t model_param;              /* its number among the model's parameters; of a group, one that makes the channels */
    int32_t group;                    /* 1 + number of a group of channels (structured sparsity), whose units `sparse` holds; 0: a weight */
    mest_sparse *sparse;
    double target_sparsity;
    mest_real *slots[MEST_HOST_SLOTS]; /* optimizer state: cap_units * unit_elements values each; remapped by every edit */
    int n_slots;
    bool has_momentum;       /* slot 0 is an average of gradients */
    mest_real *grad_snapshot;         /* the host's own; NULL when nobody asked */
    uint8_t *turned;                  /* [cap_units] the host's own; NULL when nobody asked: perturb */
    mest_real *remembered;            /* values that rewind brings back; NULL: none. Follows the pattern */
    bool frozen, freeze;              /* does not train any more; asked for in this epoch_begin */
    int64_t reserved;                 /* largest wish of a scheduler, units */
    mest_proposal drop, grow, set;
} mest_host_param;

struct mest_host {
    mest_heap *heap;
    uint64_t seed;
    mest_host_param *params;
    int n_params;
    mest_sample_set *samples;      /* NULL while there is no data */
    const int32_t *sample_class;   /* class of each sample id, -1 unknown; NULL: none is known */
    bool gradients_wanted;         /* set by epoch_begin: take the gradients of this epoch's last step */
    bool gradients_taken;          /* grad_snapshot holds them */
    void *scratch;
    size_t scratch_bytes;
    mest_host_phase phase;
    const char *who;               /* scheduler that is being called, and its number */
    int who_index;
    bool keep_gradients;           /* asked for in the epoch_begin that is running */
    mest_proposal removed_samples, restored_samples;
    mest_watch *account;           /* keeps account of what was applied; NULL: nobody asked */
    bool skip_update;              /* asked for in the step_begin that is running */
    /* Runs the batch of the step that begins and fills in the probe; set by the session while a step begins, else NULL. */
    mest_status (*prober)(void *self, mest_probe *probe, mest_error *err);
    void *prober_self;
    bool perturbed;                /* this step's update is disturbed: by l1 and noise */
    double l1, noise;
    mest_probe *watch;             /* asked for in this step_begin: to be filled in during the step */
    /* Copies what is not in `params` (dense parameters, statistics), or brings it back and clears the optimizer; set by the session, NULL:
     * there is nothing else. Only copying can fail. */
    mest_status (*keeper)(void *self, bool bring_back, mest_error *err);
    void *keeper_self;
    /* Makes a parameter of the model, and what is before it, stay as it is; sets `frozen`. NULL: nobody can. */
    mest_status (*freezer)(void *self, int model_param, mest_error *err);
    bool rewind;                   /* asked for in this epoch_begin */
    int64_t lr_epoch, lr_epochs;   /* this epoch's place in the learning-rate schedule; lr_epochs 0: its own */
    mest_model *model;             /* of the groups; NULL while there are none */
    struct mest_optimizer *optimizer;
    int64_t epochs;                /* of the run, 0: not known */
    uint64_t now;                  /* epoch and step of the callback: keys what grows */
};

/* What one round of callbacks did. */
typedef struct mest_host_report {
    int64_t removed, grown;      /* units */
    int n_params;                /* parameters whose pattern changed */
    int64_t removed_samples, restored_samples;
    char text[240];              /* "mest: 184 units removed, 184 grown in 3 parameters"; "" if nothing changed */
} mest_host_report;

/* n_params zeroed parameters for the caller to fill in. */
mest_status mest_host_init(mest_host *host, mest_heap *heap, uint64_t seed, int n_params, mest_error *err);
/* Raises the capacity of every parameter to what was reserved (and to what it holds), allocates the scratch. Patterns stay. */
mest_status mest_host_plan(mest_host *host, mest_error *err);
/* Copies the gradient of parameter `param` (stored values, in storage order) into its snapshot. No allocation. */
void mest_host_take_gradients(mest_host *host, int param, const mest_real *grad);
/* host_rewind.c: drops the copy of mest_host_remember; writes and reads the part of it that is in `params`. */
void mest_host_forget(mest_host *host);
mest_status mest_host_remembered_save(const mest_host *host, mest_state_io write, void *stream);
mest_status mest_host_remembered_load(mest_host *host, mest_state_io read, void *stream, mest_error *err);
/* Frees what is sized by capacities (snapshots): before they change, or before the weights go. */
void mest_host_free_arrays(mest_host *host);
void mest_host_free(mest_host *host);

/* runtime/host.c: for plugin.c and for tests of the table. */
const mest_host_api *mest_host_functions(void);
void mest_host_enter(mest_host *host, mest_host_phase phase, const char *who, int who_index);
/* Applies (or forgets, when !apply) the proposals of the callback that ended and adds them to the report. */
mest_status mest_host_leave(mest_host *host, bool apply, mest_host_report *report, mest_error *err);
/* After all epoch_begin callbacks: frees a snapshot that nobody wants any longer. */
void mest_host_settle_gradients(mest_host *host);

typedef struct mest_schedulers mest_schedulers;

/* host must outlive the list. */
mest_status mest_schedulers_create(mest_schedulers **list, mest_host *host, mest_error *err);
/* Destroys the schedulers in reverse order, then unloads shared objects. NULL is fine. */
void mest_schedulers_destroy(mest_schedulers *list);
/* name: a built-in, or a path (with '/' or ending in ".so"). options NULL = "". Errors: MEST_E_ARGUMENT (unknown name, bad options, one beside it
 * that does the same), MEST_E_PLUGIN (cannot be loaded, another ABI), whatever create returns. */
mest_status mest_schedulers_add(mest_schedulers *list, const char *name, const char *options, mest_error *err);
int mest_schedulers_count(const mest_schedulers *list);
/* Name and options of number `index`, NULL past the end. */
const char *mest_schedulers_name(const mest_schedulers *list, int index, const char **options);

/* Callbacks of all, in order; each one's proposals are applied before the next one looks. report may be NULL. An error names the
 * scheduler; nothing of the failing one was applied. */
mest_status mest_schedulers_epoch_begin(mest_schedulers *list, const mest_epoch *epoch, mest_host_report *report, mest_error *err);
mest_status mest_schedulers_batch_seen(mest_schedulers *list, const int64_t *ids, const uint8_t *correct, int64_t n, mest_error *err);
mest_status mest_schedulers_epoch_end(mest_schedulers *list, const mest_epoch *epoch, mest_host_report *report, mest_error *err);
/* Does any scheduler want to be called around steps? */
bool mest_schedulers_watch_steps(const mest_schedulers *list);
/* host->skip_update tells afterwards whether one of them wants this step without its update. */
mest_status mest_schedulers_step_begin(mest_schedulers *list, const mest_training_step *step, mest_host_report *report, mest_error *err);
mest_status mest_schedulers_step_end(mest_schedulers *list, const mest_training_step *step, mest_host_report *report, mest_error *err);

/* State of all, with names and options, and the gradient snapshot. Load, into a list with the same schedulers in the same order after
 * patterns were restored, names what differs (MEST_E_STATE) or is damaged (MEST_E_FORMAT). */
mest_status mest_schedulers_save(const mest_schedulers *list, mest_state_io write, void *stream, mest_error *err);
mest_status mest_schedulers_load(mest_schedulers *list, mest_state_io read, void *stream, mest_error *err);

#endif
