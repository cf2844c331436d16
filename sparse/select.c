/* SPDX-License-Identifier: Apache-2.0 */
/* Which units are large, which are small: from_magnitude, scores, lowest. Norms are floats, so that ties are the same wherever they
 * are counted. */
#include "sparse/format.h"

#include <inttypes.h>
#include <math.h>

#include "sparse/balance.h"
#include "sparse/cursor.h"
#include "sparse/kth.h"
#include "sparse/threshold.h"

/* ---- from a dense tensor that is read in pieces ---- */

/* Keys of all slots: mest_keys over a mest_piece. */
static void seek_slots(void *self, int64_t part) { mest_piece_seek(self, part); }

static mest_status next_slots(void *self, uint32_t *key, int64_t *n, mest_error *err)
{
    mest_piece *p = self;
    float norm[MEST_PIECE];
    MEST_TRY(mest_piece_next(p, err));
    *n = p->n_slots;
    if (p->n_slots > 0)
        mest_piece_norms(p, norm, NULL);
    for (int64_t i = 0; i < p->n_slots; i++)
        key[i] = mest_descending(norm[i]);
    return MEST_OK;
}

/* The n_units slots of largest norm, values copied in the last pass. Formats without groups have one choice a slot. */
static mest_status largest(mest_sparse *s, mest_piece *p, int64_t n_units, mest_error *err)
{
    const int64_t slots = s->unit_cols;
    const mest_keys keys = { .total = s->n_units, .parts = mest_piece_count(s), .seek = seek_slots, .next = next_slots, .self = p, .heap = s->heap };
    uint32_t key[MEST_PIECE];
    mest_threshold last = {0};
    if (n_units > 0 && n_units < s->n_units)
        MEST_TRY(mest_threshold_find(&last, &keys, n_units, err));
    mest_appender to;
    int64_t n = 0;
    mest_status status = MEST_OK;
    mest_appender_init(&to, s);
    mest_piece_rewind(p);
    while (n < n_units) {
        int64_t have;
        MEST_TRY_OUT(next_slots(p, key, &have, err));
        if (have == 0)
            break;
        for (int64_t i = 0; i < have; i++) {
            const int64_t slot = p->slot0 + i;
            if (n_units < s->n_units && !mest_threshold_take(&last, key[i]))
                continue;
            mest_piece_values(p, slot, 0, s->values + n * s->unit_elements);
            mest_appender_put(&to, p->b * slots + slot);
            n++;
        }
    }
out:
    mest_appender_finish(&to); /* also after a failed read: whatever stands is a valid pattern */
    return status;
}

mest_status mest_sparse_from_magnitude(mest_sparse *s, const mest_reader *reader, int64_t n_units, mest_error *err)
{
    MEST_CHECK(n_units >= 0 && n_units <= s->cap_units, err, MEST_E_LIMIT, "%s: %" PRId64 " units do not fit in room for %" PRId64, s->name,
               n_units, s->cap_units);
    mest_piece p = { .s = s, .reader = reader };
    return s->group_units ? mest_balance_magnitude(s, reader, n_units, err) : largest(s, &p, n_units, err);
}

/* ---- scores of active units ---- */

void mest_sparse_scores(const mest_sparse *s, const mest_real *grad, double lambda, bool normalised, int64_t first, int64_t n, float *out)
{
    mest_score t = mest_score_make(s, grad, lambda, normalised);
    for (int64_t i = 0; i < n; i++)
        out[i] = mest_score_of(&t, first + i);
}

void mest_sparse_norms(const mest_sparse *s, const mest_real *x, int64_t first, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)mest_unit_norm(x + (first + i) * s->unit_elements, s->unit_elements);
}

mest_status mest_sparse_lowest(const mest_sparse *s, const mest_real *grad, double lambda, bool normalised, int64_t k, int64_t *out, mest_error *err)
{
    MEST_CHECK(k >= 0 && k <= s->active_units, err, MEST_E_ARGUMENT, "%s: the lowest %" PRId64 " of %" PRId64 " active units were asked for",
               s->name, k, s->active_units);
    MEST_CHECK(lambda >= 0 && isfinite(lambda), err, MEST_E_ARGUMENT, "%s: lambda must be finite and not negative", s->name);
    if (k == 0)
        return MEST_OK;
    if (k == s->active_units) {
        s->format->units(s, 0, k, out);
        return MEST_OK;
    }
    mest_score t = mest_score_make(s, grad, lambda, normalised);
    if (s->group_units) {
        mest_balance_lowest(&t, k, out);
        return MEST_OK;
    }
    mest_kth kth;
    mest_kth_init(&kth, k);
    for (int pass = 0; pass < MEST_KTH_PASSES; pass++) {
        for (int64_t i = 0; i < s->active_units; i++)
            mest_kth_count(&kth, mest_float_bits(fabsf(mest_score_of(&t, i)))); /* fabsf: a NaN's sign must not decide */
        mest_kth_next(&kth);
    }
    mest_cursor c;
    int64_t n = 0;
    mest_cursor_init(&c, s);
    for (; c.at < s->active_units && n < k; c.at++)
        if (mest_kth_take(&kth, mest_float_bits(fabsf(mest_score_of(&t, c.at)))))
            out[n++] = mest_cursor_peek(&c);
    return MEST_OK;
}
