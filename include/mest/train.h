/* SPDX-License-Identifier: Apache-2.0 */
/* mest/train.h - sessions: train, evaluate, infer, checkpoint.
 *
 *   mest_session        one model being trained or run: plan, optimizer state, schedulers, thread pool; opaque
 *   mest_train_config   the recipe; mest_train_config_init sets every default
 *   mest_metrics        loss, accuracy and counts of a step, an epoch or an evaluation
 *   mest_event          what the progress callback gets
 *
 * Threads: one session from one thread at a time, except mest_session_cancel, which may be called from any thread and from a
 * signal handler. Callbacks run on the calling thread.
 */
#ifndef MEST_TRAIN_H
#define MEST_TRAIN_H

#include "mest/base.h"
#include "mest/data.h"
#include "mest/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mest_session mest_session;

typedef struct mest_train_config {
    uint32_t struct_size;
    /* data */
    int64_t batch;        /* samples a step; default 32; 0: 32, or what the file fixes (mest_model_batch) */
    int64_t eval_batch;   /* 0 = batch */
    bool shuffle;         /* default true: keyed by (seed, epoch) */
    bool drop_last;       /* default false: the last, smaller batch is trained too */
    /* length */
    int64_t epochs;       /* default 1 */
    int64_t max_steps;    /* 0 = no limit; with max_steps and epochs 0 the data is repeated until then */
    /* loss */
    const char *loss;     /* "ce" softmax cross-entropy (class axis: the one that the targets lack; where axis 1 and the last both
                           * fit, axis 1 for outputs of rank 4 and more, else the last), "mse", "bce" with logits; default "ce" */
    double label_smoothing; /* 0..1, ce only */
    /* optimizer */
    const char *optimizer; /* "sgd", "adamw", "adam" or "adagrad", PyTorch's formulas; default "sgd" */
    double lr;             /* default 0.01 (sgd) */
    double momentum;       /* default 0.9 */
    bool nesterov;
    double weight_decay;   /* default 0; g + wd * w (PyTorch), adamw: decoupled */
    double beta1, beta2, eps; /* adamw, adam: 0.9, 0.999, 1e-8; adagrad's eps: 1e-10. eps -1, the default: the optimizer's own */
    const char *no_decay;  /* comma-separated name patterns without weight decay; NULL: none */
    double clip_norm;      /* global L2 norm limit of the gradient, 0 = off */
    /* learning-rate schedule, by epoch: "constant", "step" (lr * gamma^(epoch / step_epochs)), "cosine" (to min_lr at the end) */
    const char *schedule;
    double min_lr;
    double gamma;
    int64_t step_epochs;
    int64_t warmup_epochs; /* linear from warmup_lr, any schedule */
    double warmup_lr;
    bool schedule_per_step; /* interpolate within the epoch; default false: constant inside an epoch */
    /* network */
    const char *batch_norm; /* "train": batch statistics, tracked in the running ones; "frozen": the file's, nothing is tracked; "auto": frozen
                             * where scale and bias are both frozen (mest_model_freeze), train elsewhere, whatever form the file has; default "auto" */
    double dropout;         /* < 0: as in the file; otherwise the ratio of every Dropout node */
    /* machine */
    int threads;            /* 0 = the cores that are idle when the session is created; results do not depend on it */
    uint64_t seed;
    const char *kernels;    /* "auto", or a CPU level that must not be exceeded: "scalar", "avx2", "avx512", "neon" */
    bool use_xnnpack;       /* default true */
    /* safety */
    bool keep_gradients;    /* keep every gradient readable after a step (tests, debugging); costs memory */
    /* passes over the graph */
    const char *no_fuse;    /* optional passes that are off: "all" or NAME[,NAME] (mest_pass_list); NULL: every pass is on. Copied. Results are
                             * equal up to rounding either way */
    /* network, continued */
    const char *output;     /* name of the model's output that is inferred and that the loss is put on; NULL: the first */
    /* memory */
    const char *recompute;  /* activations that are dropped and computed again in the backward part of a step; results are the same to the bit. "auto"
                             * (default): what a limit on memory needs; "off"; "10%": for the least memory that costs at most a tenth of the time, by the
                             * model of costs; "least": for the least memory. Copied */
    bool watch_patterns;    /* remember the pattern of the beginning and what grew last (about two bytes a unit), for the numbers of
                             * mest_session_pattern and MUTATION events; default false */
    const char *bn_stats;   /* running variance of BatchNormalization: "pytorch" tracks the unbiased variance of the batch, "onnx" the biased one, as
                             * the text of the operator says; default "pytorch" */
    double lr_decay;        /* adagrad: the rate of step t, from 0, is lr / (1 + t * lr_decay); default 0 */
    /* machine, continued */
    const char *tune;       /* which kernels layers get: "off" (default) by models of cost, always the same; "fast", "full": by measuring them on this machine when programs are
                             * built, for a quarter of a second or ten seconds a session. Kernels round differently: the bits of a run are the same again with the
                             * same tune_cache file, and after a resume (the checkpoint has the times). Copied */
    const char *tune_cache; /* file that keeps the times; NULL: one for this kind of processor in $XDG_CACHE_HOME/mest or $HOME/.cache/mest; "": none. Copied */
    bool nice;              /* leave the cores to others: threads that wait do not spin (they do otherwise, for some milliseconds), XNNPACK has one thread, and after each
                             * node of a program the core is offered to whoever waits for it. Same results; default false */
    int64_t memory_limit;   /* bytes that the process may have resident at most (mest/memory.h); 0 = no limit */
    int64_t micro_batch;    /* samples that are computed at once; it must divide `batch`. A step is then made of parts whose gradients are added before one update of the
                             * weights: those of the whole batch up to rounding, except that BatchNormalization normalises over a part and tracks its statistics once a
                             * part, as accumulated gradients do in PyTorch. 0 (default): whole steps, parts only where memory_limit cannot be obeyed otherwise; -1: never */
    const char *activations; /* what the forward part of a step leaves to the backward part: "f32" (default); "bf16": stored as bfloat16, half the bytes, where nothing depends
                             * on equal numbers (mest/memory.h: chosen says how many); the forward part and its loss are the same, gradients are those of rounded activations;
                             * "auto": only where memory_limit cannot be obeyed otherwise. Copied */
    int64_t ignore_index;   /* ce: rows with this target do not count, neither in loss and gradient (means are over the others) nor in the accuracy, as with
                             * PyTorch's cross_entropy; a batch of nothing else has loss 0. Default -100 */
    const char *freeze_front; /* "auto": where memory_limit cannot be obeyed otherwise, the fewest parameters in front (from the input on, never the last layer) are frozen,
                             * which keep no activations, gradients and optimizer state then (mest/memory.h: chosen names them). They stay so when the run is resumed.
                             * Not where whole channels are removed. "off" (default): never. Copied */
    const char *recipe;     /* what makes a run this one beside the settings above, in lines of the caller's: how its data are prepared, say. They are stored in checkpoints, and one
                             * with other lines is not resumed. NULL (default): none are stored, and none are compared. At most 64 KiB. Copied */
} mest_train_config;

MEST_API void mest_train_config_init(mest_train_config *config);

typedef struct mest_metrics {
    uint32_t struct_size;
    double loss;      /* mean over samples (rows) */
    double accuracy;  /* 0..1; NaN when the task has no classes */
    int64_t samples;  /* samples that were counted */
    int64_t steps;
    double seconds;
    double reserved[6]; /* 0. Other structures hold this one, so it keeps its size: later fields come from here */
} mest_metrics;

/* Samples a step that the model can be taken for: `wanted`, or the number that the file fixes (it was exported from one example, without a
 * dynamic batch axis) where it cannot be shown that another one computes the same for each sample; `why`, which may be NULL, then gets
 * MEST_E_SHAPE and the reason. */
MEST_API int64_t mest_model_batch(const mest_model *model, int64_t wanted, mest_error *why);

/* Creates a session. The model must outlive it; its weights are trained in place. On failure *session is NULL.
 * Errors: MEST_E_ARGUMENT (config), MEST_E_UNSUPPORTED (no gradient for a node on a live path), MEST_E_SHAPE, MEST_E_NOMEM. */
MEST_NODISCARD MEST_API mest_status mest_session_create(mest_session **session, mest_model *model, const mest_train_config *config,
                                                        mest_error *err);
MEST_API void mest_session_destroy(mest_session *session);

/* Adds a scheduler before the first step: the name of a built-in ("mest", "forgetting") or the path of a shared object
 * ("./mine.so"). `options` is "key=value,...", NULL for defaults. Called in the order of addition. Refused (MEST_E_ARGUMENT): a built-in
 * one for the second time, a second one that moves weights or that chooses samples (MEST_SCHEDULER_... of mest/plugin.h). */
MEST_NODISCARD MEST_API mest_status mest_session_add_scheduler(mest_session *session, const char *name, const char *options,
                                                               mest_error *err);
/* Built-in schedulers, for help texts: name, summary and option lines of number `index`; NULL past the end. */
MEST_API const char *mest_scheduler_builtin(int index, const char **summary, const char **options);
/* MEST_SCHEDULER_... flags (mest/plugin.h) of a built-in scheduler, 0 if there is none of that name. */
MEST_API unsigned mest_scheduler_flags(const char *name);

typedef enum mest_event_kind {
    MEST_EVENT_STEP = 0,     /* after each training step */
    MEST_EVENT_EPOCH = 1,    /* after each epoch, with validation metrics if there is a validation source */
    MEST_EVENT_MUTATION = 2, /* after a scheduler changed patterns */
    MEST_EVENT_SAMPLES = 3,  /* after samples were removed */
    MEST_EVENT_CHECKPOINT = 4,
    MEST_EVENT_EVALUATION = 5, /* after each batch of an evaluation */
    MEST_EVENT_VERSION = 6,  /* a version was published, or a guard refused it (mest/serve.h); `text` says which */
    MEST_EVENT_PAUSE = 7,    /* the guest (mest/guest.h) pauses; `text` says why */
    MEST_EVENT_CONTINUE = 8  /* and goes on */
} mest_event_kind;

typedef struct mest_event {
    uint32_t struct_size;
    mest_event_kind kind;
    int64_t epoch, n_epochs;            /* 0-based */
    int64_t step, n_steps;              /* in this epoch (or evaluation) */
    int64_t total_step, n_total_steps;  /* in the run; n_total_steps is an estimate when samples will be removed */
    double lr;
    mest_metrics batch;      /* this step */
    mest_metrics train;      /* the epoch so far */
    mest_metrics validation; /* EPOCH: samples == 0 when there was none */
    double sparsity;         /* of the parameters that are sparse; 0 if none is */
    int64_t removed, grown;  /* MUTATION: units; SAMPLES: samples taken out and put back */
    int64_t active_samples, n_samples;
    int64_t peak_bytes;      /* allocator's peak so far */
    const char *text;        /* MUTATION, SAMPLES, CHECKPOINT, VERSION: one line; may be NULL */
    double scheduler_seconds;    /* MUTATION: what choosing and applying it took; EPOCH: all that schedulers took in the epoch */
    int64_t earlier, survivors;  /* MUTATION, with watch_patterns: units that had grown before, and how many of them are still active */
    double distance;             /* MUTATION, with watch_patterns: mean of mest_pattern_info.distance over parameters, by active units */
} mest_event;

/* Return false to stop after this step, as mest_session_cancel does. */
typedef bool (*mest_progress)(void *user, const mest_event *event);

struct mest_publish_options;

typedef struct mest_run_options {
    uint32_t struct_size;
    const mest_source *validation;  /* NULL: none */
    int64_t validate_every;         /* epochs; default 1 */
    const char *checkpoint_path;    /* NULL: no checkpoints; written at epoch ends and when cancelled */
    int64_t checkpoint_every_steps; /* 0 = only at epoch ends */
    int64_t checkpoint_every_epochs;/* default 1 */
    mest_progress progress;
    void *progress_user;
    const struct mest_publish_options *publish; /* mest/serve.h: after each validation, publish the weights if its guards pass; loss,
                                     * accuracy and samples are filled in from the validation. NULL: never */
    int64_t max_epochs;             /* of this call; 0 (default): to the end of the run */
    struct mest_guest *guest;       /* mest/guest.h: rests between steps, training and evaluation alike; when its time limit is over, training stops
                                     * as if it had been cancelled (checkpoint, MEST_E_CANCELLED). Lent for the call. NULL (default): none */
} mest_run_options;

MEST_API void mest_run_options_init(mest_run_options *options);

/* Trains to the end of the run (config.epochs, config.max_steps), from wherever the session stands: at its beginning or where
 * mest_session_resume put it. MEST_E_CANCELLED after a cancel: the step was finished and, with a checkpoint path, saved.
 * MEST_E_NUMERIC: the loss is not finite; the weights are those after the last good step's update. */
MEST_NODISCARD MEST_API mest_status mest_session_train(mest_session *session, const mest_source *source, const mest_run_options *options,
                                                       mest_error *err);

/* The same to the end of one epoch: a loop of the caller's own over epochs. `metrics` (of training; may be NULL). MEST_E_STATE when the run
 * is complete. */
MEST_NODISCARD MEST_API mest_status mest_session_train_epoch(mest_session *session, const mest_source *source, const mest_run_options *options,
                                                             mest_metrics *metrics, mest_error *err);

/* One training step on the caller's tensors: inputs [n, ...] as the model's input says, targets as the loss wants them. n <= batch.
 * The learning rate is the schedule's at the session's present epoch. Schedulers that act around steps do so; those that act at epochs do
 * when mest_session_end_epoch says that one is over. */
MEST_NODISCARD MEST_API mest_status mest_session_step(mest_session *session, const void *inputs, const void *targets, int64_t n,
                                                      mest_metrics *metrics, mest_error *err);

/* Ends an epoch of steps on the caller's tensors: schedulers act (patterns may change), the learning rate goes on in its schedule. `metrics`
 * of the steps since the last end (may be NULL). MEST_E_STATE when there was none. */
MEST_NODISCARD MEST_API mest_status mest_session_end_epoch(mest_session *session, mest_metrics *metrics, mest_error *err);

/* Another config.lr from the next step on; the schedule goes on with it. A checkpoint taken later belongs to that rate: set it again before
 * mest_session_resume. */
MEST_NODISCARD MEST_API mest_status mest_session_set_learning_rate(mest_session *session, double lr, mest_error *err);

/* Loss and accuracy over a source, evaluation mode. */
MEST_NODISCARD MEST_API mest_status mest_session_evaluate(mest_session *session, const mest_source *source, const mest_run_options *options,
                                                          mest_metrics *metrics, mest_error *err);

/* Says what samples look like before any are seen: shapes of inputs whose axes are free in the file, their types, names and order
 * (as for a source; info->count is not used). Needed before mest_session_step_inputs and mest_session_infer_inputs unless the caller's
 * tensors are the model's inputs, all of them, in its order and types. The same call with other shapes re-plans. */
MEST_NODISCARD MEST_API mest_status mest_session_expect(mest_session *session, const mest_source_info *info, mest_error *err);

/* mest_session_step for networks with several inputs: inputs[k] holds n packed samples of input k, in the order of mest_session_expect. */
MEST_NODISCARD MEST_API mest_status mest_session_step_inputs(mest_session *session, const void *const *inputs, const void *targets, int64_t n,
                                                             mest_metrics *metrics, mest_error *err);

/* The output (config.output, else output 0) in evaluation mode for n samples. `out` holds out_count floats; MEST_E_ARGUMENT names the number if it differs. */
MEST_NODISCARD MEST_API mest_status mest_session_infer(mest_session *session, const void *inputs, int64_t n, float *out, size_t out_count,
                                                       mest_error *err);
/* The same for networks with several inputs, in the order of mest_session_expect. */
MEST_NODISCARD MEST_API mest_status mest_session_infer_inputs(mest_session *session, const void *const *inputs, int64_t n, float *out,
                                                              size_t out_count, mest_error *err);
/* Elements of that output for one sample. */
MEST_NODISCARD MEST_API mest_status mest_session_output_shape(mest_session *session, int *rank, int64_t dim[MEST_MAX_RANK], mest_error *err);

/* Estimates the running statistics of every BatchNormalization that trains anew, as PyTorch's update_bn does: the mean over batches of the
 * statistics of each, on samples as training sees them (order, augmentation, dropout; present weights). The first `batches` batches of an
 * epoch, 0: all. *n_layers, which may be NULL, is the number of layers; 0: none tracks statistics, nothing was done. */
MEST_NODISCARD MEST_API mest_status mest_session_recompute_statistics(mest_session *session, const mest_source *source, int64_t batches, int *n_layers,
                                                                      mest_error *err);

/* Measures the statistics of unfolded layers (mest_model_unfold_batch_norm) over the first `samples` samples, 0: all. mest_session_train does it by
 * itself, over 2,048 samples, unless it was done or the session was resumed; mest_session_step wants it done. */
MEST_NODISCARD MEST_API mest_status mest_session_measure_unfolded(mest_session *session, const mest_source *source, int64_t samples, mest_error *err);

/* Stops the run after the current step. Async-signal-safe. */
MEST_API void mest_session_cancel(mest_session *session);

/* Gradient of a parameter in the last step, densely in C order (zero where nothing is stored). Needs config.keep_gradients. */
MEST_NODISCARD MEST_API mest_status mest_session_read_gradient(mest_session *session, int parameter, float *out, size_t count,
                                                               mest_error *err);

/* Writes or reads a checkpoint: weights, patterns, optimizer state, keys, data order, samples, scheduler state. Resume needs the same
 * model file, the same sparsity and an equal config (what differs is named: MEST_E_STATE); call it after the schedulers are added. */
MEST_NODISCARD MEST_API mest_status mest_session_checkpoint(mest_session *session, const char *path, mest_error *err);
MEST_NODISCARD MEST_API mest_status mest_session_resume(mest_session *session, const char *path, mest_error *err);

/* Where the run stands: whole epochs done and steps done, those before a resumption too. NULL pointers are fine. */
MEST_API void mest_session_position(const mest_session *session, int64_t *epochs, int64_t *steps);

typedef enum mest_program_kind { MEST_PROGRAM_TRAIN = 0, MEST_PROGRAM_EVAL = 1, MEST_PROGRAM_INFER = 2 } mest_program_kind;

/* One planned node, for --explain. All text is lent until the callback returns. */
typedef struct mest_node_info {
    uint32_t struct_size;
    int index;
    const char *name, *op, *kernel, *why; /* why this kernel */
    const char *phase;                    /* "forward", "backward", "update" */
    const char *inputs, *outputs;         /* "x[16,3,32,32] lanes16, w csr 90.0%" */
    int64_t macs, bytes;                  /* multiply-accumulates at stored entries; bytes read and written */
    int64_t nonzeros;                     /* stored entries of the sparse weights it reads */
} mest_node_info;

typedef struct mest_plan_info {
    uint32_t struct_size;
    int64_t arena_bytes;     /* activations and gradients, after sharing */
    int64_t parameter_bytes; /* values, indices and derived lists */
    int64_t optimizer_bytes;
    int64_t total_bytes;     /* all memory of the session as planned */
    int64_t macs;            /* of one run of the program */
    int n_nodes, n_conversions;
    int n_file_nodes;        /* of the file, local functions and branches written out */
    int n_folded_nodes;      /* once shapes are known and constants are folded away; this and the next without views, which do nothing */
    int n_fused_nodes;       /* forward nodes after the passes, the loss included */
    uint64_t kernels;        /* of the names of all kernels in their order: programs that differ in it round differently */
    int64_t n_measured;      /* layers whose kernel was chosen by measurement (config.tune) */
    int64_t reserved[6];     /* 0. mest_check_summary holds this structure, so it keeps its size: later fields come from here */
} mest_plan_info;

/* A pass over the graph of a program. Text is lent: it lives as long as the library. */
typedef struct mest_pass_info {
    uint32_t struct_size;
    const char *name, *summary;
    const char *phase;       /* "weights", "form", "forward" (before differentiation), "backward" (after it) */
    bool required;           /* cannot be turned off */
    bool off;                /* mest_session_passes: turned off by the config */
    int count;               /* mest_session_passes: places in the program where it did something */
} mest_pass_info;

/* Pass number `index` in the order in which they run; false past the end. */
MEST_API bool mest_pass_list(int index, mest_pass_info *info);

/* Plans a program for `batch` samples and reports it; `node` may be NULL. */
MEST_NODISCARD MEST_API mest_status mest_session_explain(mest_session *session, mest_program_kind kind, int64_t batch,
                                                         void (*node)(void *user, const mest_node_info *info), void *user,
                                                         mest_plan_info *plan, mest_error *err);

/* How many nodes a model comes down to: in the file (local functions and branches written out), once shapes are known and constants are
 * folded away, and after the passes; of the last two without views, which do nothing. For inference. Nothing is planned and no weight is
 * read that folding does not need. */
typedef struct mest_node_counts {
    uint32_t struct_size;
    int file, folded, fused;
} mest_node_counts;

/* MEST_E_SHAPE and others where `batch` samples, and what mest_session_expect told, do not settle the shapes: only `file` is set then. */
MEST_NODISCARD MEST_API mest_status mest_session_node_counts(mest_session *session, int64_t batch, mest_node_counts *counts, mest_error *err);

/* What each pass that serves the program did, in their order. The program is planned if it is not yet. */
MEST_NODISCARD MEST_API mest_status mest_session_passes(mest_session *session, mest_program_kind kind, int64_t batch,
                                                        void (*pass)(void *user, const mest_pass_info *info), void *user, mest_error *err);

/* Called after each node that ran in any later step, evaluation or inference of the session: its index in the program (that of
 * mest_node_info for the same kind and batch) and its wall time. Nodes that only rename memory are not reported. The calls come from
 * the thread that runs the program; the session must not be used in them. `node` NULL: off, as at the beginning; off costs nothing. */
MEST_API void mest_session_profile(mest_session *session, void (*node)(void *user, mest_program_kind kind, int index, double seconds),
                                   void *user);

/* One run of a node. Text is lent until the callback returns. */
typedef struct mest_node_time {
    uint32_t struct_size;
    mest_program_kind kind;
    int index;                            /* as mest_node_info's, for the same kind and batch */
    int64_t batch;                        /* samples of the program */
    const char *name, *op, *kernel, *phase;
    double start, seconds;                /* wall time, monotonic clock */
    int64_t cycles;                       /* of the processor, spent by the thread that called mest_session_trace, in user mode; -1: not counted */
    int64_t macs, nonzeros, bytes;        /* as mest_node_info's */
} mest_node_time;

/* mest_session_profile with all there is to say of a node, for tables and traces. Cycles are counted where Linux lets the process use the
 * processor's counter (perf_event_open); false: it does not, and the log says why. Call it from the thread that runs the session. `node`
 * NULL: off, as at the beginning; off costs nothing. The two callbacks do not exclude each other. */
MEST_API bool mest_session_trace(mest_session *session, void (*node)(void *user, const mest_node_time *time), void *user);

/* Bytes now in use and the most that ever were, by the allocator of the session's model. */
MEST_API void mest_session_memory(const mest_session *session, int64_t *current_bytes, int64_t *peak_bytes);

/* One sparse parameter's pattern. */
typedef struct mest_pattern_info {
    uint32_t struct_size;
    const char *name;            /* lent by the model */
    int parameter;               /* its number in the model */
    int64_t n_units, n_active;   /* all units, and those stored now */
    double density;              /* stored elements / all elements */
    /* With config.watch_patterns; 0 without. Counts are those of the mutation that is being reported: they are to be read in the
     * progress callback of its MUTATION event. */
    int64_t removed, grown;
    int64_t earlier, survivors;  /* units that grew in the mutation before this one, and how many of them it left */
    double distance;             /* to the pattern the run began with: 1 - |in both| / |in either| (Jaccard), 0 the same .. 1 disjoint */
    int64_t n_reserved;          /* units there is room for, once a training step is planned: the most that schedulers will have */
} mest_pattern_info;

/* Pattern number `index` of the sparse trainable parameters, 0, 1, .. in graph order. False past the end. */
MEST_API bool mest_session_pattern(const mest_session *session, int index, mest_pattern_info *info);

/* Samples still active after removals, and the number in the source of the last run. */
MEST_API void mest_session_samples(const mest_session *session, int64_t *active, int64_t *total);

#ifdef __cplusplus
}
#endif
#endif
