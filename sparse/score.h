/* SPDX-License-Identifier: Apache-2.0 */
/* Scores of active units: ||w|| + lambda * ||g||, both norms L2 over the unit's entries. */
#ifndef MEST_SPARSE_SCORE_H
#define MEST_SPARSE_SCORE_H

#include <math.h>

#include "sparse/format.h"

typedef struct mest_score {
    const mest_sparse *s;
    const mest_real *grad;
    double w_scale, g_scale;
} mest_score;

static inline double mest_unit_norm(const mest_real *x, int32_t n)
{
    if (n == 1)
        return fabs((double)x[0]);
    double sum = 0;
    for (int32_t e = 0; e < n; e++)
        sum += (double)x[e] * (double)x[e];
    return sqrt(sum);
}

/* normalised: each term is divided by its mean over the active units. */
static inline mest_score mest_score_make(const mest_sparse *s, const mest_real *grad, double lambda, bool normalised)
{
    mest_score t = { .s = s, .grad = lambda != 0 ? grad : NULL, .w_scale = 1, .g_scale = lambda };
    if (!normalised)
        return t;
    double w = 0, g = 0;
    for (int64_t i = 0; i < s->active_units; i++) {
        w += mest_unit_norm(s->values + i * s->unit_elements, s->unit_elements);
        if (t.grad)
            g += mest_unit_norm(t.grad + i * s->unit_elements, s->unit_elements);
    }
    t.w_scale = w > 0 ? (double)s->active_units / w : 0;
    t.g_scale = g > 0 ? lambda * (double)s->active_units / g : 0;
    return t;
}

static inline float mest_score_of(const mest_score *t, int64_t i)
{
    const int32_t n = t->s->unit_elements;
    double score = t->w_scale * mest_unit_norm(t->s->values + i * n, n);
    if (t->grad)
        score += t->g_scale * mest_unit_norm(t->grad + i * n, n);
    return (float)score;
}

#endif
