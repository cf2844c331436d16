/* SPDX-License-Identifier: Apache-2.0 */
/* Operators that are written out in others before a program is differentiated (runtime/passes/composed_form.c, spectrum_form.c): their
 * attributes. */
#ifndef MEST_OPS_COMPOSED_H
#define MEST_OPS_COMPOSED_H

#include "runtime/op.h"

typedef struct mest_lp_norm_params { int64_t axis, p; } mest_lp_norm_params;
typedef struct mest_axes_params { mest_ints axes; } mest_axes_params; /* MeanVarianceNormalization, CenterCropPad */

typedef struct mest_spectrum_params { /* DFT, STFT */
    int64_t axis;     /* DFT, as an attribute */
    int64_t inverse, onesided;
} mest_spectrum_params;

/* What a DFT or STFT node does, with everything resolved. */
typedef struct mest_spectrum {
    int axis;              /* DFT: along which it goes */
    int64_t n, parts;      /* numbers along the axis; 1: real, 2: complex */
    int64_t length, bins;  /* of the transform; bins in the result */
    bool inverse;
    int64_t frames, step;  /* STFT */
    const mest_real *window; /* STFT: `length` numbers, NULL: ones */
} mest_spectrum;

/* Do weights of this shape have one number for each element of x's axes from `axis` on? Otherwise LayerNormalization and RMSNormalization of x are
 * written out: the normalisation, then the product and the sum. ops/layernorm.c */
bool mest_norm_row_shaped(const mest_shape *weights, const mest_shape *x, int axis);
/* Reference for the others, which constant folding may meet: output 0, normalised, times input 1 plus input 2 (if there is one), in place. */
void mest_norm_broadcast(const mest_args *a);

/* For a DFT or STFT whose inputs have these types and data (NULL: not a constant). NULL, or what is wrong; *unsupported: it is not the file's fault. */
const char *mest_spectrum_of(const mest_node *node, const mest_type *const *in, const void *const *data, mest_spectrum *s, bool *unsupported);

#endif
