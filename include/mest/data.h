/* SPDX-License-Identifier: Apache-2.0 */
/* mest/data.h - where samples come from.
 *
 *   mest_source        a set of samples with stable ids 0..count-1; a vtable, so that callers can bring their own
 *   mest_source_info   what one sample looks like
 *   mest_sample_input  the same for one input of a network that has several
 *
 * A source hands out raw samples (float32 or int64 inputs, float32 or int64 targets). Normalisation and augmentation of
 * image sources are done by the source itself while it fetches, keyed by (seed, epoch, sample id), so that the same
 * sample in the same epoch always looks the same, whichever thread fetches it and in whichever batch it falls.
 */
#ifndef MEST_DATA_H
#define MEST_DATA_H

#include "mest/base.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MEST_SAMPLE_MAX_RANK 7
#define MEST_SAMPLE_MAX_INPUTS 16

typedef enum mest_sample_type { MEST_SAMPLE_F32 = 1, MEST_SAMPLE_I64 = 7 } mest_sample_type; /* ONNX's numbers */

/* One of several inputs: token ids, attention mask, a condition. */
typedef struct mest_sample_input {
    const char *name;                       /* input of the model that it is for; NULL: the one at this position. Lent until destroy */
    mest_sample_type type;
    int rank;                               /* without the batch axis */
    int64_t dim[MEST_SAMPLE_MAX_RANK];
    int64_t reserved[2];                    /* 0. An element of an array: it keeps its size */
} mest_sample_input;

typedef struct mest_source_info {
    uint32_t struct_size;
    int64_t count; /* samples; ids are 0..count-1 and never change their meaning */
    mest_sample_type input_type;
    int input_rank;                             /* without the batch axis */
    int64_t input_dim[MEST_SAMPLE_MAX_RANK];    /* images: C, H, W */
    mest_sample_type target_type;               /* I64: class indices; F32: regression or multi-label targets */
    int target_rank;                            /* without the batch axis; 0 for one class index a sample */
    int64_t target_dim[MEST_SAMPLE_MAX_RANK];
    int64_t n_classes;                          /* class targets: number of classes (idx, npy, csv: largest label + 1), 0 if unknown */
    bool has_targets;                           /* false: only inference is possible */
    /* Several inputs a sample. n_inputs 0: one input without a name, described by input_type, input_rank and input_dim above; 1 and
     * more: described here, and the fields above repeat input[0]. */
    int n_inputs;
    mest_sample_input input[MEST_SAMPLE_MAX_INPUTS];
} mest_source_info;

/* How samples are to be fetched: the same id gives the same bits for the same (seed, epoch, augment). */
typedef struct mest_fetch {
    uint32_t struct_size;
    uint64_t seed;
    int64_t epoch;
    bool augment; /* true in training: the source applies its configured augmentation */
} mest_fetch;

typedef struct mest_source {
    uint32_t struct_size; /* sizeof(mest_source) */
    void *self;
    /* Describes the samples. Called once before anything else. */
    mest_status (*info)(void *self, mest_source_info *info, mest_error *err);
    /* Writes samples ids[0..n-1] one after another: inputs (packed, C order) to `inputs`, targets to `targets`
     * (NULL if the caller does not want them). Called from a worker thread, one call at a time. */
    mest_status (*fetch)(void *self, const int64_t *ids, int64_t n, const mest_fetch *how, void *inputs, void *targets,
                         mest_error *err);
    /* Optional: a short name of class `index` ("tulips"), NULL if unknown. Lent until destroy. */
    const char *(*class_name)(void *self, int64_t index);
    /* Optional: where sample `id` came from (a file name, "record 17"); written to `text`. For reports and errors. */
    void (*sample_name)(void *self, int64_t id, char *text, size_t size);
    /* Frees self. Called by mest_source_close; may be NULL. */
    void (*destroy)(void *self);
    /* Sources of several inputs (n_inputs >= 1) provide this instead of fetch: like it, but input k of all samples goes to inputs[k]. */
    mest_status (*fetch_inputs)(void *self, const int64_t *ids, int64_t n, const mest_fetch *how, void *const *inputs, void *targets,
                                mest_error *err);
    void (*reserved[6])(void); /* NULL. Callers own the structure that mest_source_open fills, so it keeps its size: later fields come from here */
} mest_source;

/* Options of the built-in sources; mest_source_options_init sets every default. */
typedef struct mest_source_options {
    uint32_t struct_size;
    const mest_allocator *allocator; /* NULL: default */
    const mest_logger *logger;       /* NULL: silent */
    /* Normalisation of image sources: y = (x / scale - mean[c]) / std[c]; n_channels entries are used, 1 entry is
     * repeated. scale <= 0 means 255 for 8-bit images. */
    double scale;
    int n_mean, n_std;
    double mean[16], std[16];
    bool measure;       /* measure mean and std over the set (after /scale) instead of using mean and std */
    int pad_crop;       /* augmentation: zero-pad (before normalisation) by this many pixels, crop back at a random place; 0 = off */
    double flip;        /* augmentation: probability of a horizontal flip; 0 = off */
    int resize_height, resize_width; /* image folders: size of the network input; 0 = the first image's size */
    int64_t limit;      /* use only the first `limit` samples (of the part that val_split gives); 0 = all */
    double val_split;   /* 0..1: the last part of a seeded shuffle is held out; each part keeps the set's order */
    bool val_part;      /* true: this source is the held-out part, false: the rest */
    uint64_t split_seed;
    int64_t max_bad;    /* image folders: unreadable images that are skipped and counted before opening fails. When > 0, every
                         * image is decoded once at opening; when 0, only headers are read and a damaged body fails its fetch */
    int input_rank;     /* csv: shape of one sample without the batch axis; 0 = [columns] */
    int64_t input_dim[MEST_SAMPLE_MAX_RANK];
} mest_source_options;

MEST_API void mest_source_options_init(mest_source_options *options);

/* Opens a data set by its text form "KIND:REST":
 *   idx:IMAGES,LABELS    MNIST idx files (idx3-ubyte, idx1-ubyte), gzip allowed;  idx:DIR picks train-* in DIR, idx-test:DIR t10k-*
 *   cifar10:PATH         CIFAR-10 binary: a file, or a directory with data_batch_*.bin;  cifar10-test:PATH a file or DIR/test_batch.bin
 *   images:DIR           a folder per class with JPEG and PNG files; DIR/train and DIR/val (or test) are found when they exist
 *   npy:INPUT[,TARGET]   NumPy .npy files, first axis = samples. More than two: npy:IDS,MASK,TARGET feeds the inputs in the model's order,
 *                        the last is the target ("-": none). By name: npy:input_ids=A,attention_mask=B,target=C in any order
 *   csv:FILE             comma-separated numbers, last column = class index; gzip allowed; options after '?': label=first|last|none,
 *                        header=yes|no, target=class|float (csv:digits.csv.gz?label=last,header=no)
 * On success *source is filled; close it with mest_source_close. Errors: MEST_E_ARGUMENT (unknown kind), MEST_E_IO,
 * MEST_E_DATA (damaged file, with its name and place), MEST_E_NOMEM. */
MEST_NODISCARD MEST_API mest_status mest_source_open(mest_source *source, const char *spec, const mest_source_options *options,
                                                     mest_error *err);

/* Built-in kinds for help texts: name ("idx") of number `index` and its help line (what follows "idx:",
 * two blanks, what it is); NULL past the end. `help` may be NULL. */
MEST_API const char *mest_source_kind_at(int index, const char **help);

/* The normalisation in force (after measuring), n entries each. n is 0 when the source does not normalise. */
MEST_API void mest_source_normalisation(const mest_source *source, double *scale, int *n, double mean[16], double std[16]);

/* Calls destroy and clears the structure. Closing a zeroed structure is fine. */
MEST_API void mest_source_close(mest_source *source);

#ifdef __cplusplus
}
#endif
#endif
