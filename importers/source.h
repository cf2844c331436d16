/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the built-in data sources.
 *
 *   mest_source_kind   one text form ("idx:..."): name, help, open; a file lists its kinds, sources.def lists the files
 *   mest_dataset       an opened set of raw samples; what a kind has to provide
 *
 * A kind only finds and decodes samples. Held-out split, limit, normalisation, augmentation and the public vtable are done once for all
 * kinds in sources.c on top of mest_dataset.
 */
#ifndef MEST_IMPORTERS_SOURCE_H
#define MEST_IMPORTERS_SOURCE_H

#include "mest/data.h"
#include "runtime/alloc.h"

/* Element type of what mest_dataset.read writes for an input. U8 and F32 become float32 samples, I64 stays. */
typedef enum mest_raw_type { MEST_RAW_U8 = 0, MEST_RAW_F32 = 1, MEST_RAW_I64 = 2 } mest_raw_type;

typedef struct mest_dataset {
    mest_source_info info;  /* of all samples, before split and limit; input_type as the caller will see it */
    mest_raw_type raw;
    bool is_image;          /* 8-bit images: divided by 255 unless the options say otherwise */
    bool is_split;          /* the kind has chosen the held-out part itself (val_part): val_split is not applied again */
    void *self;
    /* Raw sample `id` in C order to `input` (NULL: not wanted) and its target to `target` (NULL: not wanted). One call at a time.
     * MEST_E_DATA names file and place. */
    mest_status (*read)(void *self, int64_t id, void *input, void *target, mest_error *err);
    /* Sets with info.n_inputs >= 1 have this instead of read; inputs[k] may be NULL one by one. Normalisation and augmentation do not apply. */
    mest_status (*read_inputs)(void *self, int64_t id, void *const *inputs, void *target, mest_error *err);
    const char *(*class_name)(void *self, int64_t index); /* may be NULL */
    void (*sample_name)(void *self, int64_t id, char *text, size_t size);
    void (*destroy)(void *self); /* called even after a failed open, when self is set */
} mest_dataset;

typedef struct mest_source_kind {
    const char *name; /* "idx"; a list ends with name NULL */
    const char *help; /* one line for --help, what follows "KIND:", two blanks, what it is: "INPUT[,TARGET]  NumPy files" */
    /* `rest` is the text after "KIND:"; `heap` outlives the data set. */
    mest_status (*open)(mest_heap *heap, const char *rest, const mest_source_options *options, mest_dataset *data, mest_error *err);
} mest_source_kind;

/* ---- helpers of sources.c ---- */

/* Splits "A,B" into two names (copies in `region`); *second is NULL when there is no comma or a file of the whole name exists. */
mest_status mest_split_pair(mest_region *region, const char *text, char **first, char **second, mest_error *err);

/* First of the names (NULL-terminated list) that exists in `folder` as FOLDER/NAME; region memory. NULL when none does. */
char *mest_find_in_folder(mest_region *region, const char *folder, const char *const *names);

bool mest_is_folder(const char *path);

/* Names in a folder that `wanted` accepts, in byte order. MEST_E_IO. */
typedef struct mest_name_list {
    char **names; /* region memory */
    int32_t n, cap;
} mest_name_list;
mest_status mest_list_folder(mest_region *region, const char *folder, bool (*wanted)(const char *folder, const char *name),
                             mest_name_list *list, mest_error *err);

#endif
