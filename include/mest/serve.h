/* SPDX-License-Identifier: Apache-2.0 */
/* mest/serve.h - serve while training: immutable versions of the weights, and inference on them beside a training session.
 *
 *   mest_snapshot       one version: the weights and statistics of one moment; never changes, counted references
 *   mest_predictor      runs a model on versions: memory, kernels and threads of its own, whole batches or single samples
 *   publish             copies the present weights into a new version and, unless told otherwise, makes it the current one
 *   current             the version that predictors follow and mest_model_acquire gives
 *
 * A version copies the stored values of trained parameters and running statistics, and the pattern where it moved since the version
 * before; everything else (graph, frozen parameters, constants) is shared with the model, which must outlive versions and predictors.
 *
 * Threads. The thread that trains calls mest_session_publish, mest_model_publish and mest_session_restore, as it calls everything else
 * of that session and model. All other functions of this header may be called from any thread while the session trains, on the same
 * model too. One predictor belongs to one thread at a time; use one per serving thread. mest_model_acquire, and a predictor following
 * the current version, never wait for anybody (two atomic operations); publish, promote, retain and look-up by id share a short lock.
 * A version is freed by whoever lets go of it last, so the allocator and the logger of the model must be fit for several threads.
 */
#ifndef MEST_SERVE_H
#define MEST_SERVE_H

#include "mest/base.h"
#include "mest/model.h"
#include "mest/train.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MEST_VERSION_NOTE 64 /* bytes of a note, the terminating 0 included */
#define MEST_MAX_VERSIONS 255 /* that are alive at once: kept by the model or held by readers */

typedef struct mest_snapshot mest_snapshot;
typedef struct mest_predictor mest_predictor;

typedef struct mest_version_info {
    uint32_t struct_size;
    bool current;            /* readers get it now */
    bool kept;               /* among the versions the model keeps: can be acquired by id, promoted */
    int64_t id;              /* 1, 2, ... in the order of publication; 0: there is no such version */
    int64_t parent;          /* version that training went on from: published or restored last; 0: none */
    int64_t epoch, step;     /* whole epochs and steps of the session at that moment; 0 without a session */
    int64_t time_ms;         /* wall clock at publication, milliseconds since 1970 */
    int64_t samples;         /* that loss and accuracy were measured on */
    double loss, accuracy;   /* NaN: not known */
    int64_t bytes;           /* of the arrays it refers to, not counting what belongs to the model */
    int64_t copied_bytes;    /* of them, those made for it; the rest it shares with versions before */
    char note[MEST_VERSION_NOTE];
} mest_version_info;

typedef struct mest_publish_options {
    uint32_t struct_size;
    int64_t id;                    /* 0: one more than the newest; otherwise larger than any before */
    int64_t samples;               /* loss and accuracy of these weights on validation data; NaN (default): not known */
    double loss, accuracy;
    const char *note;              /* cut at MEST_VERSION_NOTE - 1 bytes; NULL: none */
    /* Guards: the weights are refused (MEST_E_LIMIT, the text has both numbers) unless they pass all that are set; NaN (default): not
     * set. A guard whose metric is not known refuses; those against the current version pass when it has no such metric. */
    double max_loss, min_accuracy; /* absolute */
    double max_loss_rise;          /* loss - current version's loss, at most */
    double max_accuracy_drop;      /* current version's accuracy - accuracy, at most */
    bool hold;                     /* keep it, but readers stay where they are: mest_model_promote makes it current */
    bool borrow;                   /* mest_model_publish only: no copy, the version refers to the model's own memory. While it is alive no
                                    * session can be created. For inference without training. */
} mest_publish_options;

MEST_API void mest_publish_options_init(mest_publish_options *options);

/* Makes a version of the weights as they are: between steps of a loop of one's own, or from a progress callback of mest_session_train
 * (which can also do it by itself: mest_run_options.publish). `options` and `info` may be NULL. Weights that are not finite are refused.
 * Errors: MEST_E_NUMERIC, MEST_E_LIMIT (a guard; MEST_MAX_VERSIONS are alive), MEST_E_ARGUMENT, MEST_E_NOMEM; nothing has changed then. */
MEST_NODISCARD MEST_API mest_status mest_session_publish(mest_session *session, const mest_publish_options *options, mest_version_info *info,
                                                         mest_error *err);
/* The same for a model without a session: the first version of a service, or inference alone (options.borrow). */
MEST_NODISCARD MEST_API mest_status mest_model_publish(mest_model *model, const mest_publish_options *options, mest_version_info *info,
                                                       mest_error *err);

/* Makes a kept version current: the held one that passed its test, or an older one (roll back). MEST_E_ARGUMENT: not kept. */
MEST_NODISCARD MEST_API mest_status mest_model_promote(mest_model *model, int64_t id, mest_error *err);
/* How many versions the model keeps for acquisition by id, promotion and roll back, 1..MEST_MAX_VERSIONS - 1; default 4. The oldest go first,
 * the current one stays. Those that go are freed when their last reader leaves. */
MEST_NODISCARD MEST_API mest_status mest_model_keep_versions(mest_model *model, int n, mest_error *err);
/* The kept version with the smallest id above `after` (0: the first); info->id is 0 past the end. */
MEST_NODISCARD MEST_API mest_status mest_model_next_version(mest_model *model, int64_t after, mest_version_info *info, mest_error *err);
/* Bytes of the arrays of all versions alive, shared ones counted once, and how many versions there are. NULL pointers are fine. */
MEST_API void mest_model_version_memory(const mest_model *model, int64_t *bytes, int *n_alive);

/* The current version, NULL when nothing was published. Never waits. Each acquisition is given back by mest_snapshot_release. */
MEST_API mest_snapshot *mest_model_acquire(mest_model *model);
/* The kept version `id`, NULL when it is not kept. */
MEST_API mest_snapshot *mest_model_acquire_id(mest_model *model, int64_t id);
/* Lets go; NULL is fine. The last one frees the version, unless the model keeps it. */
MEST_API void mest_snapshot_release(mest_snapshot *snapshot);
MEST_NODISCARD MEST_API mest_status mest_snapshot_describe(const mest_snapshot *snapshot, mest_version_info *info, mest_error *err);
/* As mest_model_read_parameter, mest_model_export and mest_model_export_memory, of the version's weights. */
MEST_NODISCARD MEST_API mest_status mest_snapshot_read_parameter(const mest_snapshot *snapshot, int index, float *out, size_t count, mest_error *err);
MEST_NODISCARD MEST_API mest_status mest_snapshot_export(const mest_snapshot *snapshot, const char *path, const mest_export_options *options,
                                                        mest_error *err);
MEST_NODISCARD MEST_API mest_status mest_snapshot_export_memory(const mest_snapshot *snapshot, void *out, size_t room, size_t *size,
                                                                const mest_export_options *options, mest_error *err);
/* Puts a version's weights and patterns back into the session, which trains on from there (its next version has this one as parent).
 * The optimizer's state is cleared; position, learning rate and samples stay. What readers get does not change. MEST_E_STATE when the
 * version is of another model; MEST_E_LIMIT when a pattern has more entries than this session planned room for: nothing changed then. */
MEST_NODISCARD MEST_API mest_status mest_session_restore(mest_session *session, const mest_snapshot *snapshot, mest_error *err);

typedef struct mest_predictor_options {
    uint32_t struct_size;
    int64_t max_batch;     /* samples run at once; default 32. Larger calls are cut up, smaller ones run at the next power of two */
    int threads;           /* of its own pool; default 1: the calling thread. 0: the cores that are idle */
    const char *kernels;   /* as in mest_train_config; NULL: "auto" */
    bool use_xnnpack;      /* default true */
    const char *output;    /* the only output that is computed; NULL: all of them can be asked for, and all are computed */
    const struct mest_source_info *expect; /* shapes of inputs whose sizes are free in the file, as for mest_session_expect; NULL: as in
                            * the file. Only shapes and names are looked at */
} mest_predictor_options;

MEST_API void mest_predictor_options_init(mest_predictor_options *options);

/* Plans inference for max_batch samples on the current version. `options` may be NULL. MEST_E_STATE: nothing was published yet.
 * Other errors: MEST_E_ARGUMENT, MEST_E_SHAPE, MEST_E_UNSUPPORTED, MEST_E_NOMEM. On failure *predictor is NULL. */
MEST_NODISCARD MEST_API mest_status mest_predictor_create(mest_predictor **predictor, mest_model *model, const mest_predictor_options *options,
                                                          mest_error *err);
MEST_API void mest_predictor_destroy(mest_predictor *predictor);

/* Stays on `snapshot` from the next call on (it takes a reference of its own); NULL: follows the current one, as at the beginning. */
MEST_NODISCARD MEST_API mest_status mest_predictor_pin(mest_predictor *predictor, mest_snapshot *snapshot, mest_error *err);

/* Tensors of one call, n samples each, packed in C order, in the type the model says (mest_model_input, mest_model_output). An input
 * without a batch axis (a table) is given whole. */
typedef struct mest_input_data {
    const char *name;   /* NULL: the input with this place in the list */
    const void *data;
    size_t bytes;       /* MEST_E_ARGUMENT names the number if it differs */
} mest_input_data;
typedef struct mest_output_data {
    const char *name;   /* NULL: the output with this place in the list */
    void *data;
    size_t bytes;
} mest_output_data;

/* Runs n samples, n >= 1, all of them on one version, whose id is written to *version (may be NULL). Every input that the outputs
 * depend on must be given, outputs only as far as they are wanted. Nothing is allocated, except by the first call of a size and after a pattern outgrew its room. */
MEST_NODISCARD MEST_API mest_status mest_predictor_run(mest_predictor *predictor, int64_t n, const mest_input_data *inputs, int n_inputs,
                                                       const mest_output_data *outputs, int n_outputs, int64_t *version, mest_error *err);
/* The common case: one input, output 0 as floats; out_count as in mest_session_infer. */
MEST_NODISCARD MEST_API mest_status mest_predictor_infer(mest_predictor *predictor, const void *inputs, int64_t n, float *out, size_t out_count,
                                                         int64_t *version, mest_error *err);
/* Type and shape of input or output `index` for ONE sample: rank and dims without the batch axis; `info` as from mest_model_input. */
MEST_NODISCARD MEST_API mest_status mest_predictor_input(mest_predictor *predictor, int index, mest_tensor_info *info, mest_error *err);
MEST_NODISCARD MEST_API mest_status mest_predictor_output(mest_predictor *predictor, int index, mest_tensor_info *info, mest_error *err);
/* Bytes this predictor holds and the most it ever held. NULL pointers are fine. */
MEST_API void mest_predictor_memory(const mest_predictor *predictor, int64_t *current_bytes, int64_t *peak_bytes);

#ifdef __cplusplus
}
#endif
#endif
