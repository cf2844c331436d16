/* SPDX-License-Identifier: Apache-2.0 */
/* mest/model.h - load, inspect, choose what trains, make sparse.
 *
 *   mest_model         graph and parameters of one ONNX file; opaque
 *   mest_tensor_info   what the caller may know of an initializer, input or output
 *   mest_sparsity      how initializers become sparse
 *
 * Threads: distinct models may be used from distinct threads at once; one model from one thread at a time.
 */
#ifndef MEST_MODEL_H
#define MEST_MODEL_H

#include "mest/base.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MEST_MAX_RANK 8

typedef struct mest_model mest_model;

typedef struct mest_model_options {
    uint32_t struct_size;
    const mest_allocator *allocator; /* NULL: default; copied */
    const mest_logger *logger;       /* NULL: silent; copied */
    bool keep_aliases;               /* keep Identity(initializer) tied; default false: each alias becomes a parameter of its own */
    uint64_t max_metadata_bytes;     /* limit on everything but tensor payloads; 0 = 64 MiB */
    bool tolerant;                   /* load a model with nodes, types or operators that are not supported as well: it can be inspected,
                                      * and judged by mest_session_check (mest/check.h), but not run */
    bool lend_memory;                /* mest_model_load_memory: use the bytes where they are (flash, a file the caller mapped); they must
                                      * stay as they are until the model is destroyed */
    const char *trainable;           /* names (patterns with * and ?, separated by commas) of what is a parameter although the file does not
                                      * show it: outputs of Constant nodes of the main graph, buffers, what looks like a mask or a table.
                                      * Exported as initializers. A pattern that matches no floating-point tensor is MEST_E_ARGUMENT.
                                      * Running statistics stay what they are. NULL: nothing. Read during the call only */
    bool read_files;                 /* mest_model_load: read the file and its external data into memory instead of mapping them. A file that
                                      * is cut or written over in place while it is mapped changes the model, or ends the process (SIGBUS);
                                      * what was read is safe from that, and takes memory of the file's size */
} mest_model_options;

MEST_API void mest_model_options_init(mest_model_options *options);

/* Loads an ONNX file. The file stays mapped until the model is destroyed (but see options->read_files); payloads are not copied before they are needed.
 * `options` may be NULL. On failure *model is NULL. All unsupported nodes are named in one message.
 * Errors: MEST_E_IO, MEST_E_FORMAT (place of the damage), MEST_E_UNSUPPORTED (ops, opsets, types), MEST_E_SHAPE, MEST_E_LIMIT,
 * MEST_E_NOMEM. */
MEST_NODISCARD MEST_API mest_status mest_model_load(mest_model **model, const char *path, const mest_model_options *options,
                                                    mest_error *err);

/* The same from memory: the bytes of an ONNX file. They are copied unless options->lend_memory. External data cannot be reached from here
 * (MEST_E_UNSUPPORTED). Messages call the file "(memory)". */
MEST_NODISCARD MEST_API mest_status mest_model_load_memory(mest_model **model, const void *bytes, size_t size, const mest_model_options *options,
                                                           mest_error *err);

/* Frees the model. NULL is fine. No session of the model may be alive. */
MEST_API void mest_model_destroy(mest_model *model);

typedef enum mest_role {
    MEST_ROLE_TRAINABLE = 0, /* updated by the optimizer */
    MEST_ROLE_STATISTIC = 1, /* running mean or variance of BatchNormalization */
    MEST_ROLE_CONSTANT = 2,  /* masks, scales, indices, shapes: never changed */
    MEST_ROLE_FROZEN = 3     /* trainable, but the caller asked for it to stay as it is */
} mest_role;

typedef struct mest_tensor_info {
    uint32_t struct_size;
    const char *name;           /* lent by the model */
    int dtype;                  /* ONNX TensorProto.DataType: 1 float, 7 int64, ... */
    int rank;
    int64_t dim[MEST_MAX_RANK]; /* -1: symbolic (the batch axis, for example) */
    mest_role role;             /* parameters only */
    const char *role_reason;    /* parameters only: the rule that decided, "weight of Conv '/conv1/Conv'" */
    const char *scheme;         /* "dense", "csr", "block4", "pattern", ... */
    int64_t stored;             /* elements stored now (equals the product of dims when dense) */
    double sparsity;            /* 1 - stored / elements */
    const char *scheme_reason;  /* parameters whose scheme "auto" chose: why that one, with the times of a step in each; else NULL */
} mest_tensor_info;

MEST_API int mest_model_parameter_count(const mest_model *model);
MEST_NODISCARD MEST_API mest_status mest_model_parameter(const mest_model *model, int index, mest_tensor_info *info, mest_error *err);
MEST_API int mest_model_input_count(const mest_model *model);
MEST_NODISCARD MEST_API mest_status mest_model_input(const mest_model *model, int index, mest_tensor_info *info, mest_error *err);
MEST_API int mest_model_output_count(const mest_model *model);
MEST_NODISCARD MEST_API mest_status mest_model_output(const mest_model *model, int index, mest_tensor_info *info, mest_error *err);

typedef struct mest_model_summary {
    uint32_t struct_size;
    int64_t ir_version, opset;
    const char *producer; /* lent; "" if absent */
    const char *graph_name;
    int64_t file_bytes, external_bytes;
    int n_nodes, n_trainable, n_statistics, n_constants, n_untied;
    int64_t trainable_elements;
} mest_model_summary;

MEST_NODISCARD MEST_API mest_status mest_model_summarize(const mest_model *model, mest_model_summary *summary, mest_error *err);

/* Value of `key` in the file's metadata_props (the first, if the key is there twice); lent by the model. NULL if the file has no such key. */
MEST_API const char *mest_model_metadata(const mest_model *model, const char *key);

/* Reads parameter `index` densely into out[0..count-1] in C order (as the file would hold it). MEST_E_ARGUMENT if count differs. */
MEST_NODISCARD MEST_API mest_status mest_model_read_parameter(const mest_model *model, int index, float *out, size_t count,
                                                              mest_error *err);

/* Where the stored entries of sparse parameter `index` are: linear positions in its dense tensor (C order), ascending within a unit
 * and -1 for padding, of entries first..first+n-1 in the order of storage. At most mest_tensor_info.stored plus padding entries exist;
 * *n_read tells how many were written, fewer than n at the end, 0 for a dense parameter. */
MEST_NODISCARD MEST_API mest_status mest_model_entries(const mest_model *model, int index, int64_t first, int64_t n, int64_t *positions,
                                                       int64_t *n_read, mest_error *err);

/* Freezes (or thaws) trainable parameters whose name matches `pattern` ("*" and "?" as in a shell). *n_matched may be NULL. */
MEST_NODISCARD MEST_API mest_status mest_model_freeze(mest_model *model, const char *pattern, bool freeze, int *n_matched,
                                                      mest_error *err);

/* What mest_model_new_head replaced. Text is lent by the model. */
typedef struct mest_head_info {
    uint32_t struct_size;
    const char *node, *op;     /* the layer */
    const char *weight, *bias; /* its parameters; bias NULL: it has none */
    int64_t classes_before;
} mest_head_info;

/* Replaces the last layer before `output` (NULL: the first output) by a fresh one with another number of classes: the last Gemm, MatMul, Conv or
 * ConvTranspose with a weight, found back through activations, pools, changes of shape and an added bias. Weight and bias are drawn as PyTorch's modules
 * do it, uniform in +-1/sqrt(fan_in), keyed by `seed` and their names, and trainable, whatever they were. Sizes behind the layer that hold the number
 * of classes (of Reshape, Resize) are changed; mest_model_export writes them and the declared shapes. To be called before freezing,
 * unfolding, sparsification and sessions, at most once; `info` may be NULL. On failure nothing has changed. Errors: MEST_E_ARGUMENT, MEST_E_STATE,
 * MEST_E_UNSUPPORTED (no such layer; a weight that other nodes share; a node behind it that fixes the number of classes: the text names it),
 * MEST_E_NOMEM. */
MEST_NODISCARD MEST_API mest_status mest_model_new_head(mest_model *model, const char *output, int64_t classes, uint64_t seed, mest_head_info *info,
                                                        mest_error *err);

/* Convolutions that look as if a BatchNormalization had been folded into them at export. Networks train better with it. */
typedef struct mest_folded_info {
    uint32_t struct_size;
    const char *node, *weight; /* lent by the model */
    const char *sign;          /* trace that the exporter left ("the exporter's own name of the weight"); NULL: the layer only looks so */
} mest_folded_info;

MEST_API int mest_model_folded_count(const mest_model *model);
MEST_NODISCARD MEST_API mest_status mest_model_folded(const mest_model *model, int index, mest_folded_info *info, mest_error *err);

/* Puts an identity BatchNormalization behind each of them, with parameters WEIGHT.bn.weight, .bn.bias, .bn.running_mean and
 * .bn.running_var. Its statistics are measured when training begins, over the data (mest_session_measure_unfolded), with scale and shift
 * such that the outputs do not change. mest_model_export folds it again: the file has the nodes it had. Call it before
 * mest_model_sparsify and mest_session_create; *n_layers (may be NULL) 0: there is none. Errors: MEST_E_STATE, MEST_E_NOMEM. */
MEST_NODISCARD MEST_API mest_status mest_model_unfold_batch_norm(mest_model *model, int *n_layers, mest_error *err);

typedef struct mest_sparsity {
    uint32_t struct_size;
    const char *scheme;       /* "csr", "block4" ("block" is short for it), "punched8x4", "pattern", "nm2:4", "nm2:4x4", "filter", "channel", "auto" (csr, a block or
                               * pattern, which trains fastest at this sparsity: docs/methods.md); NULL: csr. Or layer
                               * by layer "PATTERN=SCHEME[:SPARSITY],...,SCHEME": first match wins, a SCHEME alone is for all others */
    double sparsity;          /* 0..1 of each sparse parameter; 0 leaves everything dense; -1: what a scheme says by itself (nmN:M
                               * 1 - N/M, pattern 5/9), and dense with the others (an error where a pattern of rules or scheme names the weight) */
    const char *dense_layers; /* comma-separated name patterns that stay dense; "auto": first conv, last layer, 1x1 shortcut
                               * convs, grouped convs; "none": every parameter of rank >= 2 becomes sparse */
    const char *rules;        /* "PATTERN=SCHEME:SPARSITY;..." overrides per parameter, first match wins; NULL: none. Patterns here and in
                               * scheme match a name with or without ".weight", and may name what dense_layers keeps dense */
    bool from_scratch;        /* false: keep the largest values of the file; true: random pattern, fan-in init, file values unread */
    uint64_t seed;            /* of the random pattern and values */
    bool start_dense;         /* all units are stored at first, in the sparse format; sparsity is where a scheduler shall take them
                               * (magnitude, snip, grasp, lottery). Memory is that of all weights until it has */
    const char *distribution; /* "uniform" (NULL): sparsity is that of each parameter. "erk", "er": it is that of all weights of layers
                               * together, those that stay dense included; densities go by the Erdos-Renyi rule, with or without kernels */
    const char *ratios;       /* path of a YAML file with prune_ratios (a sparsity for each name); what it does not name stays dense */
    const char *patterns;     /* path of a text with the masks of the pattern scheme (numbers, or three rows of "x.."); NULL: the default eight */
    const char *tune;         /* scheme "auto": "off" (NULL) by models of cost, "fast", "full" by measurement, as mest_train_config.tune */
    const char *tune_cache;   /* as mest_train_config.tune_cache */
} mest_sparsity;

MEST_API void mest_sparsity_init(mest_sparsity *sparsity);

/* Turns initializers into sparse parameters, straight from the mapped file: no dense copy is made. With `from_scratch`, dense
 * parameters of rank >= 2 are drawn anew too, biases are zeroed and normalisations reset to 1 and 0 (mean 0, variance 1).
 * Count per parameter: round((1 - sparsity) * units), largest L2 norm first, ties to the lower index; docs/methods.md says it for pattern
 * and nm, whose counts are per filter and per group.
 * To be called at most once, before mest_session_create. Errors: MEST_E_ARGUMENT, MEST_E_STATE, MEST_E_UNSUPPORTED (a named
 * parameter's consumers have no sparse kernel), MEST_E_NOMEM. */
MEST_NODISCARD MEST_API mest_status mest_model_sparsify(mest_model *model, const mest_sparsity *sparsity, mest_error *err);

typedef struct mest_export_options {
    uint32_t struct_size;
    bool sparse;              /* true: sparse_initializer with linear indices; false: dense with zeros */
    const char *const *metadata; /* key, value, key, value, ..., NULL: added to metadata_props (replacing equal keys); may be NULL */
    const char *form;         /* of BatchNormalization and Dropout: "as-is" (NULL), as the file has them; "inference", what other runtimes need to give
                               * the outputs of mest_session_infer; "training", what a file needs to be trained elsewhere */
    bool shrunk;              /* schemes filter and channel: tensors have the sizes of the channels that are there, value_info is left out.
                               * false: the sizes of the file, removed channels are zeros */
} mest_export_options;

/* Writes the model with its present weights: original nodes and names, opset and IR as in the file (IR >= 8 with sparse).
 * Written to a temporary name in the same folder, synced, then renamed; an existing file is replaced only on success. */
MEST_NODISCARD MEST_API mest_status mest_model_export(const mest_model *model, const char *path, const mest_export_options *options,
                                                      mest_error *err);
/* The same into memory: `out` has room for `room` bytes; *size (may be NULL) gets how many there are. With `out` NULL only the size is told,
 * which holds until the next training step. MEST_E_ARGUMENT names the number when there is not enough room. */
MEST_NODISCARD MEST_API mest_status mest_model_export_memory(const mest_model *model, void *out, size_t room, size_t *size,
                                                             const mest_export_options *options, mest_error *err);


#ifdef __cplusplus
}
#endif
#endif
