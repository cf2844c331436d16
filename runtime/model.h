/* SPDX-License-Identifier: Apache-2.0 */
/* The model behind the public handle: the mapped file, the imported graph, the parameters.
 *
 *   mest_param     one initializer that is a weight or a statistic: where its values come from, and what it is now
 *   mest_payload   bytes of an initializer in the mapped file (or external file, or unpacked message)
 */
#ifndef MEST_RUNTIME_MODEL_H
#define MEST_RUNTIME_MODEL_H

#include "runtime/graph.h"
#include "sparse/format.h"

typedef struct mest_payload {
    mest_dtype dtype;        /* element type in the file */
    const uint8_t *raw;      /* little-endian elements, maybe unaligned; borrowed from a mapping or the model's region */
    int64_t count;           /* dense elements */
    /* sparse_initializer: raw holds nnz values, linear the ascending linear indices (region memory) */
    int64_t nnz;
    const int64_t *linear;
    /* not in the file (raw is NULL): drawn uniform in +-bound whenever it is read, by mest_rng(seed, stream, element) */
    double bound;
    uint64_t seed, stream;
} mest_payload;

/* A BatchNormalization unfolded behind a Conv (runtime/unfold.c): written back, the Conv is weight * factor, bias * factor + shift. */
typedef struct mest_bn_fold {
    int32_t weight, bias;    /* parameters of the Conv; bias -1: it has none in the file */
    int32_t scale;           /* parameter; shift, mean and variance follow it */
    int32_t origin;          /* number of the Conv in the file */
    double epsilon;
    double *measured;        /* mean, then variance, of the Conv's results: 2 C numbers */
} mest_bn_fold;

typedef struct mest_folded { /* a Conv that looks as if a BatchNormalization had been folded into it */
    mest_id node;
    const char *sign;        /* trace that the exporter left; NULL: it only looks so */
} mest_folded;

typedef struct mest_param {
    const char *name;        /* initializer's name; for an untied alias, the Identity's output */
    mest_shape shape;
    mest_role role;
    const char *role_reason;
    bool stated;             /* the file's metadata says that it does not train */
    bool untied;             /* had been an alias Identity(initializer) */
    bool no_decay;           /* set by the session from its config */
    bool reshaped;           /* its shape is not that of the file any more; the payload is not the file's either */
    mest_payload payload;    /* the file's values */
    bool loaded;             /* values (dense) or sparse hold the present values */
    mest_sparse *sparse;     /* not NULL: sparse parameter, its values are sparse->values */
    mest_real *values;       /* dense: count elements (+16 of slack for XNNPACK); owned */
    int64_t count;           /* dense elements */
    uint32_t value_version;  /* dense: +1 whenever values change */
    double target_sparsity;
    const char *scheme_reason; /* why it has its scheme, where "auto" chose; NULL: it was asked for */
    const mest_bn_fold *fold;   /* weight or bias of a Conv with an unfolded BatchNormalization behind it; NULL otherwise */
    struct mest_axes *axes;  /* structured sparsity (runtime/channels.h): shape and count are those of the channels that are there */
} mest_param;

typedef struct mest_mapping {  /* a mapped file: the model, external data */
    const uint8_t *bytes;
    size_t size;
    const char *path;
    bool borrowed;           /* not mapped by us: memory of the caller or of the region */
    struct mest_mapping *next;
} mest_mapping;

typedef struct mest_metadata { /* one of the file's metadata_props */
    const char *key, *value;
} mest_metadata;

struct mest_model {
    mest_heap heap;
    mest_region region;      /* what the importer keeps besides the graph */
    mest_mapping *mappings;  /* first: the model file itself */
    mest_graph graph;
    mest_param *params;
    int32_t n_params, cap_params;
    int64_t ir_version, opset;
    const char *producer, *graph_name;
    mest_metadata *metadata; /* in the order of the file; region memory */
    size_t n_metadata;
    int n_untied;
    bool sparsified;
    int n_sessions;          /* alive */
    int64_t read_bytes;      /* of the files since mest_model_forget */
    int64_t external_bytes;
    bool read_files;         /* rather than map them */
    int32_t n_fixed;         /* initializers that are not floating point: indices, shapes, masks (not among params) */
    struct mest_registry *registry; /* its versions (runtime/snapshot.h) */
    struct mest_imported *imported; /* tolerant loads: every node of the file (runtime/survey.h), in its order */
    int32_t n_imported;
    int32_t n_file_nodes;    /* of the file, branches and functions written out */
    mest_error refusal;      /* tolerant loads: why the model cannot be used; code MEST_OK: it can */
    mest_folded *folded;     /* found by the importer */
    int32_t n_folded;
    mest_bn_fold *folds;        /* after mest_model_unfold_batch_norm */
    int32_t n_folds;
    bool folds_measured;
    struct mest_head *head;  /* runtime/head.h; NULL: the head is the file's */
    struct mest_channels *channels; /* structured sparsity: groups of channels; NULL: none */
    struct mest_onnx_notes *notes; /* what the exporter must know of the file (importers/onnx.h) */
};

/* importers/onnx_file.c: the model file, mapped (regular files only), or bytes in memory, copied or as they are, as the model's first mapping. */
mest_status mest_onnx_map(mest_model *m, const char *path, mest_error *err);
mest_status mest_onnx_lend(mest_model *m, const void *bytes, size_t size, bool copy, mest_error *err);
/* importers/onnx_import.c fills an initialised, empty model from its first mapping. */
mest_status mest_onnx_import(mest_model *m, const mest_model_options *options, mest_error *err);
/* runtime/params.c */
mest_status mest_param_read(const mest_param *p, int64_t first, int64_t n, float *out, mest_error *err); /* present values, dense order */
mest_status mest_param_load(mest_model *m, mest_param *p, mest_error *err); /* dense: payload to aligned values, once */
mest_status mest_payload_read(const mest_payload *p, int64_t first, int64_t n, float *out, mest_error *err);
/* Takes the pages of the model's files that were read out of the process; they come back from the system's cache when they are read again.
 * Otherwise loading would need twice the memory of training. mest_model_read counts what was read and forgets now and then. */
enum { MEST_FORGET_BYTES = 1 << 20 };
void mest_model_forget(const mest_model *m);
static inline void mest_model_read(mest_model *m, int64_t bytes)
{
    m->read_bytes += bytes;
    if (m->read_bytes >= MEST_FORGET_BYTES) {
        m->read_bytes = 0;
        mest_model_forget(m);
    }
}
/* unfold.c: statistics that were measured become those of the unfolded layers, with scale and shift that change nothing. */
void mest_fold_measured(mest_model *m);
/* What the Conv's channel is multiplied by, and what is added, when it is written back. */
void mest_fold_channel(const mest_model *m, const mest_bn_fold *fold, int64_t channel, double *factor, double *shift);
/* Values the kernels use: sparse->values or values; NULL before loading. */
static inline mest_real *mest_param_data(const mest_param *p) { return p->sparse ? p->sparse->values : p->values; }
static inline int64_t mest_param_stored(const mest_param *p) { return p->sparse ? p->sparse->stored : p->count; }
/* Shell-style match of `name` against a comma-separated list of patterns. */
bool mest_match_any(const char *patterns, const char *name);

#endif
