/* SPDX-License-Identifier: Apache-2.0 */
/* What is done to samples between the raw set and the network: normalisation, measuring it, augmentation, resizing.
 * Shape letters: C channels (groups), H height, W width, P = H * W elements of a group. */
#ifndef MEST_IMPORTERS_IMAGE_OPS_H
#define MEST_IMPORTERS_IMAGE_OPS_H

#include "importers/source.h"

#define MEST_MAX_GROUPS 16

/* y = (x / scale - mean[c]) / std[c], computed in float32 in this order (the bits PyTorch's ToTensor and Normalize give). */
typedef struct mest_normaliser {
    bool active;
    double scale;
    int n;          /* entries of mean and std: one per group, or 1 for all groups */
    double mean[MEST_MAX_GROUPS], std[MEST_MAX_GROUPS];
    int64_t groups; /* C: the input's first axis */
    int64_t span;   /* P: elements of one group */
    float (*table)[256]; /* n rows: the result for each 8-bit value; heap memory, NULL for other inputs */
} mest_normaliser;

/* Decides from the options what is to be done; measuring comes later. MEST_E_ARGUMENT when mean or std do not fit the samples. */
mest_status mest_normaliser_init(mest_normaliser *norm, mest_heap *heap, const mest_dataset *data, const mest_source_options *options,
                                 mest_error *err);
/* Replaces mean and std by those of samples ids[0..n-1] (ids NULL: 0..n-1). `scratch` holds one raw sample. */
mest_status mest_normaliser_measure(mest_normaliser *norm, const mest_dataset *data, const int64_t *ids, int64_t n, void *scratch,
                                    mest_error *err);
void mest_normaliser_free(mest_normaliser *norm, mest_heap *heap);
/* One raw sample to float32: normalised if active, else converted. */
void mest_normalise(const mest_normaliser *norm, mest_raw_type raw, const void *from, float *to);

/* Augmentation: the raw image [C,H,W] (elements of `size` bytes) is padded with zeros by `pad`, cropped back at a random place and flipped
 * left to right with probability `flip`. Draws are keyed by (seed, epoch, id). from and to must not overlap. */
typedef struct mest_augmenter {
    int64_t c, h, w;
    size_t size;
    int pad;
    double flip;
} mest_augmenter;
void mest_augment(const mest_augmenter *a, const mest_fetch *how, int64_t id, const void *from, void *to);

/* Resize so that the image covers (out_h, out_w) with its aspect kept, then crop the centre: bilinear, with the filter widened when
 * shrinking (antialias). from: 8-bit RGB, interleaved [H,W,3]; to: 8-bit planes [3,out_h,out_w]. MEST_E_NOMEM. */
mest_status mest_resize_crop(mest_heap *heap, const uint8_t *from, int64_t h, int64_t w, uint8_t *to, int64_t out_h, int64_t out_w,
                             mest_error *err);

#endif
