/* SPDX-License-Identifier: Apache-2.0 */
/* One reduction engine per element type; included by fold.c with T (element), ACC (accumulator) and FOLD_NAME(x) defined, MATH = 1 for
 * floating types. Not a header of its own.
 *
 * Axes are merged so that kept and reduced ones alternate. Two shapes of the innermost work:
 *   last axis kept:    LANES results at once, vectors added
 *   last axis reduced: one result at a time, its rows summed in lanes
 */

static ACC FOLD_NAME(identity)(mest_fold_kind kind)
{
    switch (kind) {
    case MEST_FOLD_MAX: return ACC_LOWEST;
    case MEST_FOLD_MIN: return ACC_HIGHEST;
    case MEST_FOLD_PROD: case MEST_FOLD_PROD_NONZERO: return (ACC)1;
    default: return (ACC)0;
    }
}

/* acc[j] += x[j] in the sense of `kind`, j < n. w[j]: the group's value (TIES) or its maximum (LOG_SUM_EXP). */
static void FOLD_NAME(add_vector)(mest_fold_kind kind, ACC *acc, const T *x, const ACC *w, int64_t n)
{
    switch (kind) {
    case MEST_FOLD_SUM: case MEST_FOLD_MEAN: case MEST_FOLD_LOG_SUM:
        for (int64_t j = 0; j < n; j++)
            acc[j] = ACC_ADD(acc[j], (ACC)x[j]);
        break;
    case MEST_FOLD_MAX: /* NaN wins */
        for (int64_t j = 0; j < n; j++)
            acc[j] = (ACC)x[j] > acc[j] || ACC_NAN((ACC)x[j]) ? (ACC)x[j] : acc[j];
        break;
    case MEST_FOLD_MIN:
        for (int64_t j = 0; j < n; j++)
            acc[j] = (ACC)x[j] < acc[j] || ACC_NAN((ACC)x[j]) ? (ACC)x[j] : acc[j];
        break;
    case MEST_FOLD_PROD:
        for (int64_t j = 0; j < n; j++)
            acc[j] = ACC_MUL(acc[j], (ACC)x[j]);
        break;
    case MEST_FOLD_PROD_NONZERO:
        for (int64_t j = 0; j < n; j++)
            acc[j] = x[j] != 0 ? ACC_MUL(acc[j], (ACC)x[j]) : acc[j];
        break;
    case MEST_FOLD_L1:
        for (int64_t j = 0; j < n; j++)
            acc[j] = ACC_ADD(acc[j], (ACC)x[j] < 0 ? ACC_NEG((ACC)x[j]) : (ACC)x[j]);
        break;
    case MEST_FOLD_L2: case MEST_FOLD_SUM_SQUARE:
        for (int64_t j = 0; j < n; j++)
            acc[j] = ACC_ADD(acc[j], ACC_MUL((ACC)x[j], (ACC)x[j]));
        break;
    case MEST_FOLD_LOG_SUM_EXP:
        for (int64_t j = 0; j < n; j++)
            acc[j] += (ACC)exp((double)((ACC)x[j] - w[j]));
        break;
    case MEST_FOLD_TIES:
        for (int64_t j = 0; j < n; j++)
            acc[j] += (ACC)x[j] == w[j] ? 1 : 0;
        break;
    case MEST_FOLD_ZEROS:
        for (int64_t j = 0; j < n; j++)
            acc[j] += x[j] == 0 ? 1 : 0;
        break;
    }
}

static ACC FOLD_NAME(combine)(mest_fold_kind kind, ACC a, ACC b)
{
    switch (kind) {
    case MEST_FOLD_MAX: return b > a || ACC_NAN(b) ? b : a;
    case MEST_FOLD_MIN: return b < a || ACC_NAN(b) ? b : a;
    case MEST_FOLD_PROD: case MEST_FOLD_PROD_NONZERO: return ACC_MUL(a, b);
    default: return ACC_ADD(a, b);
    }
}

static T FOLD_NAME(finish)(mest_fold_kind kind, ACC acc, ACC w, int64_t count)
{
    switch (kind) {
    case MEST_FOLD_MEAN: return count > 0 || MATH ? (T)(acc / (ACC)count) : (T)0;
    case MEST_FOLD_L2: return (T)sqrt((double)acc);
    case MEST_FOLD_LOG_SUM: return (T)log((double)acc);
    case MEST_FOLD_LOG_SUM_EXP: return (T)(log((double)acc) + (double)w);
    default: return (T)acc;
    }
}

/* Calls add for each row of the reduced axes in front of the last one. */
static void FOLD_NAME(sweep_vector)(const fold_plan *p, mest_fold_kind kind, const T *x, ACC *acc, const ACC *w, int64_t n)
{
    int64_t index[MEST_SPREAD_RANK] = {0};
    for (int64_t r = 0; r < p->n_reduced_rows; r++) {
        FOLD_NAME(add_vector)(kind, acc, x, w, n);
        for (int i = p->n_reduced - 1; i >= 0; i--) {
            x += p->reduced_stride[i];
            if (++index[i] < p->reduced_dim[i])
                break;
            x -= p->reduced_dim[i] * p->reduced_stride[i];
            index[i] = 0;
        }
    }
}

static ACC FOLD_NAME(sweep_row)(const fold_plan *p, mest_fold_kind kind, const T *x, ACC w)
{
    ACC acc[FOLD_LANES], ww[FOLD_LANES];
    for (int j = 0; j < FOLD_LANES; j++) {
        acc[j] = FOLD_NAME(identity)(kind);
        ww[j] = w;
    }
    int64_t index[MEST_SPREAD_RANK] = {0};
    for (int64_t r = 0; r < p->n_reduced_rows; r++) {
        int64_t n = p->inner;
        const T *q = x;
        for (; n >= FOLD_LANES; n -= FOLD_LANES, q += FOLD_LANES)
            FOLD_NAME(add_vector)(kind, acc, q, ww, FOLD_LANES);
        FOLD_NAME(add_vector)(kind, acc, q, ww, n);
        for (int i = p->n_reduced - 1; i >= 0; i--) {
            x += p->reduced_stride[i];
            if (++index[i] < p->reduced_dim[i])
                break;
            x -= p->reduced_dim[i] * p->reduced_stride[i];
            index[i] = 0;
        }
    }
    for (int step = FOLD_LANES / 2; step > 0; step /= 2)
        for (int j = 0; j < step; j++)
            acc[j] = FOLD_NAME(combine)(kind, acc[j], acc[j + step]);
    return acc[0];
}

static void FOLD_NAME(tile)(void *context, size_t tile)
{
    const fold_plan *p = context;
    const T *with = p->with;
    T *out = p->out;
    if (p->last_kept) {
        int64_t chunks = (p->inner + FOLD_CHUNK - 1) / FOLD_CHUNK;
        int64_t row = (int64_t)tile / chunks, begin = (int64_t)tile % chunks * FOLD_CHUNK;
        int64_t n = p->inner - begin < FOLD_CHUNK ? p->inner - begin : FOLD_CHUNK;
        const T *x = (const T *)p->in + fold_offset(p, row) + begin;
        ACC acc[FOLD_CHUNK], w[FOLD_CHUNK] = {0};
        int64_t at = row * p->inner + begin;
        for (int64_t j = 0; j < n; j++) {
            acc[j] = FOLD_NAME(identity)(p->kind);
            w[j] = with ? (ACC)with[at + j] : p->kind == MEST_FOLD_LOG_SUM_EXP ? ACC_LOWEST : 0;
        }
        if (p->kind == MEST_FOLD_LOG_SUM_EXP) {
            FOLD_NAME(sweep_vector)(p, MEST_FOLD_MAX, x, w, w, n);
            for (int64_t j = 0; j < n; j++)
                w[j] = ACC_FINITE(w[j]) ? w[j] : 0;
        }
        FOLD_NAME(sweep_vector)(p, p->kind, x, acc, w, n);
        for (int64_t j = 0; j < n; j++)
            out[at + j] = FOLD_NAME(finish)(p->kind, acc[j], w[j], p->count);
        return;
    }
    int64_t first = (int64_t)tile * p->rows_per_tile, last = first + p->rows_per_tile;
    for (int64_t row = first; row < last && row < p->n_kept; row++) {
        const T *x = (const T *)p->in + fold_offset(p, row);
        ACC w = with ? (ACC)with[row] : 0;
        if (p->kind == MEST_FOLD_LOG_SUM_EXP) {
            w = FOLD_NAME(sweep_row)(p, MEST_FOLD_MAX, x, 0);
            w = ACC_FINITE(w) ? w : 0;
        }
        out[row] = FOLD_NAME(finish)(p->kind, FOLD_NAME(sweep_row)(p, p->kind, x, w), w, p->count);
    }
}
