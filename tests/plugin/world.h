/* SPDX-License-Identifier: Apache-2.0 */
/* A host with a few sparse parameters, optimizer slots and samples, and a pretended training that depends only on (epoch, place). */
#ifndef MEST_TESTS_PLUGIN_WORLD_H
#define MEST_TESTS_PLUGIN_WORLD_H

#include "mest/train.h"
#include "runtime/growth.h"
#include "tests/sparse/fixture.h"

enum { WORLD_SLOTS = 2, WORLD_PARAMS = 4 };

typedef struct world {
    bench_heap b;
    mest_host host;
    mest_schedulers *list;
    mest_sample_set samples;
    int32_t *classes;
    int64_t n_samples;
    char log[8192];
    int64_t step;     /* of the gradients that a probe finds */
    int probes;
} world;

static inline void world_log(void *user, mest_log_level level, const char *text)
{
    world *w = user;
    size_t used = strlen(w->log);
    snprintf(w->log + used, sizeof w->log - used, "%d %s\n", (int)level, text);
}

typedef struct world_param {
    const char *format;
    mest_shape shape;
    double sparsity;
} world_param;

static inline void world_open(world *w, uint64_t seed, const world_param *params, int n, int64_t n_samples)
{
    static const char *const names[] = { "conv1.weight", "conv2.weight", "fc.weight", "head.weight" };
    memset(w, 0, sizeof *w);
    heap_open(&w->b);
    w->b.heap.logger = (mest_logger){ sizeof(mest_logger), w, world_log };
    OK(mest_host_init(&w->host, &w->b.heap, seed, n, err));
    for (int i = 0; i < n; i++) {
        mest_sparse *s;
        s = sparse_make(&w->b, params[i].format, &params[i].shape, 0);
        int64_t u = mest_sparse_units_at(s, params[i].sparsity);
        OK(mest_sparse_reserve(s, u, err));
        OK(mest_sparse_from_random(s, u, seed, (uint64_t)i, .1, err));
        w->host.params[i].name = names[i];
        w->host.params[i].sparse = s;
        w->host.params[i].target_sparsity = params[i].sparsity;
    }
    OK(mest_schedulers_create(&w->list, &w->host, err));
    if (n_samples > 0) {
        OK(mest_sample_set_create(&w->samples, &w->b.heap, n_samples, err));
        w->host.samples = &w->samples;
        w->n_samples = n_samples;
    }
}

static inline void world_slots(world *w)
{
    for (int i = 0; i < w->host.n_params; i++) {
        mest_host_param *p = &w->host.params[i];
        p->n_slots = WORLD_SLOTS;
        p->has_momentum = true;
        for (int k = 0; k < WORLD_SLOTS; k++)
            p->slots[k] = mest_calloc(&w->b.heap, (size_t)p->sparse->cap_units * (size_t)p->sparse->unit_elements, sizeof(mest_real));
    }
}

/* After the schedulers were added: capacities are final, slots follow them. */
static inline void world_plan(world *w)
{
    OK(mest_host_plan(&w->host, err));
    world_slots(w);
}

static inline void world_close(world *w)
{
    mest_schedulers_destroy(w->list);
    mest_host_free_arrays(&w->host); /* sized by the weights, so they go first */
    for (int i = 0; i < w->host.n_params; i++) {
        mest_host_param *p = &w->host.params[i];
        for (int k = 0; k < p->n_slots; k++)
            mest_free(&w->b.heap, p->slots[k], (size_t)p->sparse->cap_units * (size_t)p->sparse->unit_elements, sizeof(mest_real));
        mest_sparse_destroy(p->sparse);
    }
    mest_host_free(&w->host);
    mest_sample_set_destroy(&w->samples);
    free(w->classes);
    heap_close(&w->b);
}

static inline mest_epoch world_epoch(const world *w, int64_t epoch, int64_t n_epochs)
{
    return (mest_epoch){ .struct_size = sizeof(mest_epoch), .epoch = epoch, .n_epochs = n_epochs, .n_samples = w->n_samples,
                         .n_active_samples = w->samples.active };
}

/* The value a place has after an epoch of pretended training; `what` separates weights, slots and gradients. */
static inline mest_real trained(uint64_t what, int param, int64_t epoch, int64_t place)
{
    return (mest_real)((double)mest_rng_below(what, (uint64_t)param << 32 | (uint64_t)epoch, (uint64_t)place, 401) / 100 - 2);
}

static inline void world_train(world *w, int64_t epoch)
{
    for (int i = 0; i < w->host.n_params; i++) {
        mest_host_param *p = &w->host.params[i];
        mest_sparse *s = p->sparse;
        mest_real *grad = malloc((size_t)s->stored * sizeof *grad + 8);
        for (int64_t k = 0; k < s->stored; k++) {
            int64_t at;
            mest_sparse_coords(s, k, 1, &at);
            s->values[k] = at < 0 ? 0 : trained(1, i, epoch, at);
            for (int t = 0; t < p->n_slots; t++)
                p->slots[t][k] = at < 0 ? 0 : trained(2 + (uint64_t)t, i, epoch, at);
            grad[k] = at < 0 ? 0 : trained(9, i, epoch, at);
        }
        if (w->host.gradients_wanted)
            mest_host_take_gradients(&w->host, i, grad);
        free(grad);
    }
}

/* The gradient that a place, stored or not, has at a step. Few distinct values: ties are common. */
static inline float gradient_at(int param, int64_t step, int64_t row, int64_t col, int64_t cols) { return (float)trained(9, param, step, row * cols + col); }

static inline float unit_gradient(const mest_sparse *s, int param, int64_t step, int64_t unit)
{
    int32_t row[MEST_UNIT_MOST], col[MEST_UNIT_MOST];
    double sum = 0;
    mest_sparse_unit_entries(s, unit, row, col);
    for (int32_t e = 0; e < s->unit_elements; e++) {
        double g = row[e] < s->rows && col[e] >= 0 ? (double)gradient_at(param, step, row[e], col[e], s->cols) : 0;
        sum += g * g;
    }
    return (float)sqrt(sum);
}

/* Shows all units of a parameter to a visitor. */
static inline mest_status world_visit(const world *w, const mest_probe *probe, int param, mest_error *err)
{
    const mest_host_param *p = &w->host.params[param];
    const mest_sparse *s = p->sparse;
    enum { PIECE = 100 };
    int32_t row[MEST_UNIT_MOST], col[MEST_UNIT_MOST];
    int64_t unit[PIECE];
    uint8_t active[PIECE];
    float *g = malloc(PIECE * (size_t)s->unit_elements * sizeof *g);
    mest_status status = MEST_OK;
    for (int64_t at = 0; at < mest_sparse_ids(s) && status == MEST_OK; at += PIECE) {
        int64_t n = mest_sparse_ids(s) - at < PIECE ? mest_sparse_ids(s) - at : PIECE;
        for (int64_t i = 0; i < n; i++) {
            unit[i] = at + i;
            active[i] = mest_sparse_active(s, at + i);
            mest_sparse_unit_entries(s, at + i, row, col);
            for (int32_t e = 0; e < s->unit_elements; e++)
                g[i * s->unit_elements + e] = row[e] < s->rows && col[e] >= 0 ? gradient_at(param, w->step, row[e], col[e], s->cols) : 0;
        }
        mest_gradient_piece piece = { sizeof piece, param, n, unit, active, g };
        status = probe->visit(probe->user, &piece, err);
    }
    free(g);
    return status;
}

/* What a session does for a probe, with pretended gradients. */
static inline mest_status world_prober(void *self, mest_probe *probe, mest_error *err)
{
    world *w = self;
    w->probes++;
    for (int i = 0; i < probe->n_top; i++) {
        mest_gradient_top *t = &probe->top[i];
        const mest_host_param *p = &w->host.params[t->param];
        mest_growth_lists lists = { { p->drop.ids, t->also, p->grow.ids }, { p->drop.n, t->n_also, p->grow.n } };
        mest_growth growth;
        MEST_TRY(mest_growth_open(&growth, p->sparse, &lists, t->k, t->units, t->norms, err));
        for (int64_t u = 0; u < mest_sparse_ids(p->sparse); u++) {
            bool also = bsearch(&u, t->also, (size_t)t->n_also, 8, id_compare) != NULL;
            mest_growth_put(&growth, u, unit_gradient(p->sparse, t->param, w->step, u), mest_sparse_active(p->sparse, u) && !also);
        }
        t->found = mest_growth_close(&growth);
    }
    for (int i = 0; probe->visit && i < w->host.n_params; i++)
        if (probe->visit_param < 0 || probe->visit_param == i)
            MEST_TRY(world_visit(w, probe, i, err));
    for (int i = 0; probe->keep && i < w->host.n_params; i++) {
        mest_host_param *p = &w->host.params[i];
        for (int64_t k = 0; k < p->sparse->stored; k++) {
            int64_t at;
            mest_sparse_coords(p->sparse, k, 1, &at);
            mest_real g = at < 0 ? 0 : trained(probe->hessian ? 11 : 9, i, w->step, at);
            p->grad_snapshot[k] = probe->add ? p->grad_snapshot[k] + g : g;
        }
    }
    return MEST_OK;
}

static inline mest_training_step world_at(int64_t epoch, int64_t batch, int64_t n_epochs, int64_t n_batches)
{
    mest_training_step s = { .struct_size = sizeof s, .step = epoch * n_batches + batch, .epoch = epoch, .n_epochs = n_epochs, .batch = batch,
                             .n_batches = n_batches, .lr = .1 };
    s.progress = ((double)epoch + (double)batch / (double)n_batches) / (double)n_epochs;
    return s;
}

/* One step_begin at (epoch, batch) of a run. */
static inline mest_status world_step(world *w, int64_t epoch, int64_t batch, int64_t n_epochs, int64_t n_batches, mest_host_report *r, mest_error *err)
{
    mest_training_step s = world_at(epoch, batch, n_epochs, n_batches);
    w->step = s.step;
    w->host.prober = world_prober;
    w->host.prober_self = w;
    w->host.watch = NULL;
    mest_status status = mest_schedulers_step_begin(w->list, &s, r, err);
    w->host.prober = NULL;
    return status;
}

/* Does a unit turn around in the pretended update of a step? One in a hundred. */
static inline bool turns(int param, int64_t step, int64_t unit) { return mest_rng_below(13, (uint64_t)param << 32 | (uint64_t)step, (uint64_t)unit, 100) < 3; }

/* The step itself and step_end. */
static inline mest_status world_step_end(world *w, int64_t epoch, int64_t batch, int64_t n_epochs, int64_t n_batches, mest_host_report *r, mest_error *err)
{
    mest_training_step s = world_at(epoch, batch, n_epochs, n_batches);
    if (w->host.watch)
        MEST_TRY(world_prober(w, w->host.watch, err));
    w->host.watch = NULL;
    for (int i = 0; w->host.perturbed && i < w->host.n_params; i++)
        for (int64_t k = 0; k < w->host.params[i].sparse->active_units; k++) {
            int64_t unit;
            w->host.params[i].sparse->format->units(w->host.params[i].sparse, k, 1, &unit);
            w->host.params[i].turned[k] = turns(i, s.step, unit);
        }
    return mest_schedulers_step_end(w->list, &s, r, err);
}

/* A copy of a parameter's pattern and state, to compare with later. */
typedef struct picture {
    int64_t n, *units;
    size_t stored;
    mest_real *values, *slots[WORLD_SLOTS], *grad;
    int64_t e;
} picture;

static inline mest_real *copy_of(const mest_real *x, size_t n)
{
    mest_real *y = malloc(n * sizeof *y + 8);
    if (x)
        memcpy(y, x, n * sizeof *y);
    else
        memset(y, 0, n * sizeof *y);
    return y;
}

static inline picture take_picture(const world *w, int param)
{
    const mest_host_param *p = &w->host.params[param];
    const mest_sparse *s = p->sparse;
    picture c = { .n = s->active_units, .stored = (size_t)s->stored, .e = s->unit_elements };
    c.units = malloc((size_t)c.n * 8 + 8);
    if (c.n)
        s->format->units(s, 0, c.n, c.units);
    c.values = copy_of(s->values, c.stored);
    for (int t = 0; t < WORLD_SLOTS; t++)
        c.slots[t] = copy_of(p->slots[t], c.stored);
    c.grad = copy_of(w->host.gradients_taken ? p->grad_snapshot : NULL, c.stored);
    return c;
}

static inline void drop_picture(picture *c)
{
    free(c->units), free(c->values), free(c->grad);
    for (int t = 0; t < WORLD_SLOTS; t++)
        free(c->slots[t]);
}

static inline bool same_picture(const picture *a, const picture *b)
{
    bool same = a->n == b->n && a->stored == b->stored && memcmp(a->units, b->units, (size_t)a->n * 8) == 0 &&
                memcmp(a->values, b->values, a->stored * sizeof(mest_real)) == 0;
    for (int t = 0; t < WORLD_SLOTS; t++)
        same = same && memcmp(a->slots[t], b->slots[t], a->stored * sizeof(mest_real)) == 0;
    return same;
}

static inline bool unit_in(const int64_t *units, int64_t n, int64_t unit) { return bsearch(&unit, units, (size_t)n, 8, id_compare) != NULL; }

/* State in a growing buffer. */
typedef struct bytes {
    unsigned char *p;
    size_t n, at, fail_at; /* writing fails past fail_at, if set */
} bytes;
static inline mest_status bytes_write(void *stream, void *from, size_t n)
{
    bytes *b = stream;
    if (b->fail_at && b->n + n > b->fail_at)
        return MEST_E_IO;
    b->p = realloc(b->p, b->n + n + 1);
    memcpy(b->p + b->n, from, n);
    b->n += n;
    return MEST_OK;
}
static inline mest_status bytes_read(void *stream, void *to, size_t n)
{
    bytes *b = stream;
    if (n > b->n - b->at)
        return MEST_E_FORMAT;
    memcpy(to, b->p + b->at, n);
    b->at += n;
    return MEST_OK;
}

#endif
