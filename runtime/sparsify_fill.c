/* SPDX-License-Identifier: Apache-2.0 */
/* Values of weights, sparse or drawn anew, straight from the mapped file. */
#include <math.h>
#include <string.h>

#include "mest/plugin.h"
#include "ops/nn.h"
#include "runtime/match.h"
#include "runtime/rng.h"
#include "runtime/weight_use.h"

typedef struct file_reader {
    mest_model *m;
    const mest_payload *payload;
    mest_pages_touched *touched;
} file_reader;

static mest_status read_payload(const void *self, int64_t first, int64_t n, float *out, mest_error *err)
{
    const file_reader *r = self;
    mest_pages_touched *t = r->touched;
    const size_t size = mest_dtype_size(r->payload->dtype);
    const uintptr_t base = (uintptr_t)r->payload->raw, last = (base + (size_t)(first + n) * size) / MEST_PAGE_WINDOW;
    for (uintptr_t w = (base + (size_t)first * size) / MEST_PAGE_WINDOW; w <= last; w++) {
        if (t->window[w % MEST_PAGE_RECENT] == w)
            continue;
        if (t->n >= MEST_PAGE_RECENT) {
            mest_model_forget(r->m);
            memset(t, 0, sizeof *t);
        }
        t->window[w % MEST_PAGE_RECENT] = w;
        t->n++;
    }
    return mest_payload_read(r->payload, first, n, out, err);
}

static int64_t fan_in_of(const mest_param *p, const mest_weight_use *u)
{
    const mest_shape *w = u->first ? &u->shape : &p->shape;
    if (u->first && mest_is_op(u->first, "MatMul"))
        return w->rank >= 2 ? w->dim[w->rank - 2] : 1;
    if (u->first && (mest_is_op(u->first, "Gemm") || mest_is_op(u->first, "mest.Linear")))
        return ((const mest_gemm_params *)u->first->params)->trans_b ? w->dim[1] : w->dim[0];
    if (u->first && mest_is_op(u->first, "ConvTranspose"))
        return w->dim[0] * mest_shape_span(w, 2, w->rank);
    return w->rank > 1 ? mest_shape_span(w, 1, w->rank) : 1;
}

static uint64_t init_stream(int32_t param) { return (uint64_t)MEST_STREAM_INIT << 32 | (uint32_t)param; }

static mest_status check_sparsity(const mest_param *p, const mest_sparse *s, double sparsity, mest_error *err)
{
    const double least = mest_sparse_least_sparsity(s);
    MEST_CHECK(sparsity >= least - 1e-9, err, MEST_E_ARGUMENT, "sparsify: '%s': %s stores at most %.4g %% of a weight, sparsity %g is below %.4g", p->name,
               s->name, 100 * (1 - least), sparsity, least);
    return MEST_OK;
}

mest_status mest_weight_fill(mest_model *m, int32_t index, mest_weight_plan *one, const mest_sparsity *s, mest_pages_touched *pages, mest_error *err)
{
    mest_param *p = &m->params[index];
    mest_sparse *sp = one->sparse;
    MEST_TRY(check_sparsity(p, sp, one->sparsity, err));
    const int64_t keep = s->start_dense ? sp->n_units : mest_sparse_units_at(sp, one->sparsity); /* as the schedulers count */
    MEST_TRY(mest_sparse_reserve(sp, keep, err));
    if (s->from_scratch) {
        /* Fan-in of what is stored: keeps the variance of a layer's output whatever the sparsity (kaiming_uniform, gain of ReLU). */
        const double stored = (double)keep * sp->unit_elements, all = (double)sp->n_units * mest_sparse_slot_elements(sp);
        const double fan_in = (double)fan_in_of(p, &one->u) * (all > 0 ? stored / all : 1);
        MEST_TRY(mest_sparse_from_random(sp, keep, s->seed, init_stream(index), sqrt(6.0 / (fan_in < 1 ? 1 : fan_in)), err));
    } else {
        const file_reader file = {m, &p->payload, pages};
        mest_reader reader = {read_payload, &file};
        MEST_TRY(mest_sparse_from_magnitude(sp, &reader, keep, err));
    }
    p->sparse = sp;
    p->loaded = true;
    p->target_sparsity = one->sparsity;
    one->sparse = NULL;
    return MEST_OK;
}

mest_status mest_weight_draw_dense(mest_model *m, int32_t index, const mest_weight_use *u, uint64_t seed, mest_error *err)
{
    mest_param *p = &m->params[index];
    MEST_TRY(mest_param_load(m, p, err));
    bool norm = u->first && (strstr(u->first->op->name, "Normalization") != NULL);
    if (p->role == MEST_ROLE_STATISTIC) {
        for (int64_t i = 0; i < p->count; i++)
            p->values[i] = u->first_input == 4 ? 1 : 0;
    } else if (p->role == MEST_ROLE_TRAINABLE && p->shape.rank >= 2) {
        double fan_in = (double)fan_in_of(p, u), bound = sqrt(6.0 / (fan_in < 1 ? 1 : fan_in));
        for (int64_t i = 0; i < p->count; i++)
            p->values[i] = (mest_real)((2 * mest_rng_uniform(seed, init_stream(index), (uint64_t)i) - 1) * bound);
    } else if (p->role == MEST_ROLE_TRAINABLE && norm) {
        for (int64_t i = 0; i < p->count; i++)
            p->values[i] = u->first_input == 1 ? 1 : 0;
    } else if (p->role == MEST_ROLE_TRAINABLE && u->first && mest_is_layer(u->first)) {
        memset(p->values, 0, (size_t)p->count * sizeof *p->values);
    }
    p->value_version++;
    return MEST_OK;
}
