/* SPDX-License-Identifier: Apache-2.0 */
/* Structured sparsity: whole channels go, from every tensor that has them, and layers become smaller.
 *
 *   mest_channel_group   channels that many tensors share: the filters that make them, biases and normalisations, depthwise filters, the
 *                        inputs of the layers that read them; through Add and Concat as well. The unit of removal and growth is one channel
 *   mest_axes            of a parameter that has such channels: which ones along its first two axes, its shape in the file
 *   mest_channels        all of a model
 *
 * A parameter holds its present channels only, in the order of the file: shape, count and values are those of the smaller layer, and every
 * kernel sees a dense layer of that size. Which channels those are says the group: a csr weight [n, 1] whose units are channels, so that
 * selection, sampling, edits and checkpoints are those of any sparse weight; its values are the channels' scores.
 *
 * channels_rules.c  what operators tie together        channels_find.c  finds the groups of a graph
 * channels.c        fills, resizes and edits parameters
 */
#ifndef MEST_RUNTIME_CHANNELS_H
#define MEST_RUNTIME_CHANNELS_H

#include "runtime/model.h"
#include "runtime/optim.h"

/* Consecutive channels of an axis: `n` channels of `repeat` positions each (repeat > 1: a flattened image before a linear layer). */
typedef struct mest_channel_part {
    int32_t group; /* whose channels, in its order; -1: they stay */
    int64_t n, repeat;
} mest_channel_part;

typedef struct mest_channel_axis {
    int32_t n_parts; /* 0: the axis is whole */
    mest_channel_part *part;
} mest_channel_axis;

typedef enum mest_channel_kind {
    MEST_CHANNEL_WEIGHT = 0,    /* of a layer; out_axis makes channels, the other axis reads them */
    MEST_CHANNEL_DEPTHWISE = 1, /* one filter a channel */
    MEST_CHANNEL_VECTOR = 2     /* one number a channel */
} mest_channel_kind;

typedef struct mest_axes {
    const mest_model *model;
    mest_shape file_shape;
    int64_t file_count;
    int64_t room;               /* elements that values and optimizer slots have room for */
    mest_channel_axis axis[2];
    mest_channel_kind kind;
    int8_t out_axis;            /* WEIGHT */
    float fresh;                /* VECTOR: number of a channel that grows */
    float gone;                 /* number that stands for a removed channel where the file's size is kept */
    mest_real *snapshot;        /* room gradients, while a scheduler wants them */
} mest_axes;

typedef struct mest_channel_group {
    const char *name;           /* "channels of layer1.0.conv1.weight" */
    bool by_inputs;             /* score: norms of what reads the channel ("channel"), not of what makes it ("filter") */
    mest_sparse *units;
    double target;
    int32_t maker;              /* a parameter that makes the channels */
    int32_t *param;             /* parameters that have its channels */
    int32_t n_params;
} mest_channel_group;

/* A depthwise convolution: its group attribute is the number of its channels. */
typedef struct mest_channel_conv {
    mest_id node;
    int32_t param;
} mest_channel_conv;

typedef struct mest_channels {
    mest_region region;
    mest_channel_group *group;
    int32_t n_groups;
    mest_channel_conv *conv;
    int32_t n_convs;
    uint32_t version;           /* +1 whenever a shape changes: programs built before are no longer right */
    bool baked;                 /* a Reshape of the file has the number of channels in its shape */
    const char *baked_node;
    double *norm;               /* one a channel of the largest group */
    int64_t n_norm;
    mest_real *scratch;         /* the largest parameter, for edits */
    int64_t scratch_count;
    int32_t *map;
    int64_t map_count;
    void *index;                /* the largest index of a group's units, as it was before an edit */
    size_t index_size;
} mest_channels;

/* ---- channels_find.c ---- */
/* What is wanted of a parameter: NULL: it stays dense; "filter" or "channel"; anything else: another scheme. */
typedef struct mest_channel_wish {
    const char *scheme;
    double sparsity;
    bool named;
} mest_channel_wish;

/* Groups of the model's graph that the wishes (one a parameter) ask for, complete but for units; no parameter is touched. The reasons why
 * channels of a wish stay go to the logger. No group at all, or a wish that cannot be: MEST_E_UNSUPPORTED with the reason. */
mest_status mest_channels_find(mest_channels **channels, mest_model *m, const mest_channel_wish *wish, mest_error *err);

/* ---- channels.c ---- */
/* Makes the model smaller: chooses channels by norm (from_scratch: at random; start_dense: all), sets shapes; values are loaded (compactly)
 * later. The model owns the result. */
mest_status mest_channels_install(mest_model *m, mest_channels *c, const mest_sparsity *how, mest_error *err);
void mest_channels_destroy(mest_model *m);
/* Reads the values of a parameter with axes from the file. */
mest_status mest_channels_load(mest_model *m, mest_param *p, mest_error *err);
/* n elements from `first` of the full-size tensor whose present channels are in `values`. `gone` for the others. */
void mest_channels_expand(const mest_param *p, const mest_real *values, float gone, int64_t first, int64_t n, float *out);
/* Room for the capacities of the groups (after schedulers reserved): values grow, the scratch of edits is made. */
mest_status mest_channels_reserve(mest_model *m, mest_error *err);
/* Sets shapes and counts to the groups' present channels, in parameters and the graph (after units were set from outside). */
void mest_channels_resize(mest_model *m);
/* As if every group were at its capacity (peak true), or as it is. For plans. Values are not moved. */
void mest_channels_pretend(mest_model *m, bool peak);
/* Norms of the group's channels, into units->values. */
void mest_channels_score(mest_model *m, int32_t group);
/* Norms of the kept gradients, one a channel, into out[units->active_units]. */
void mest_channels_gradient_norms(const mest_model *m, int32_t group, mest_real *out);
/* Room for gradients of the parameters the group's score is made of; until mest_channels_forget. */
mest_status mest_channels_keep(mest_model *m, int32_t group, mest_error *err);
void mest_channels_forget(mest_model *m, int32_t group);
/* Lists as for mest_sparse_edit, which is called for the units (follow: what follows them) once they are checked. Channels that grow: their
 * filters are drawn, keyed by (seed, key), what reads them is 0, normalisations and optimizer state begin anew. */
mest_status mest_channels_edit(mest_model *m, mest_optimizer *o, int32_t group, const int64_t *drop, int64_t n_drop, const int64_t *grow, int64_t n_grow,
                               mest_real *const *follow, int n_follow, void *scratch, uint64_t seed, uint64_t key, mest_error *err);

/* Of a parameter, as the file has it. */
static inline const mest_shape *mest_param_file_shape(const mest_param *p) { return p->axes ? &p->axes->file_shape : &p->shape; }
static inline int64_t mest_param_file_count(const mest_param *p) { return p->axes ? p->axes->file_count : p->count; }
/* Elements there is room for. */
static inline int64_t mest_param_room(const mest_param *p) { return p->axes ? p->axes->room : p->count; }
/* "filter" or "channel" of a parameter with axes. */
const char *mest_param_channel_scheme(const mest_param *p);

#endif
