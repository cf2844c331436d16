/* SPDX-License-Identifier: Apache-2.0 */
/* The gradient as a whole: against the float32 library, and against differences of the loss. */
#include <math.h>

#include "runtime/gradcheck/gradcheck.h"

enum { DIRECTIONS = 2 };
static const double jitter = 1e-3;

typedef struct slope { /* a parameter and its gradient */
    mest_param *param;
    mest_real *w, *w0, *g;
    size_t n;
    double size;
} slope;

typedef struct slopes {
    gradcheck *c;
    mest_region region;
    slope *of;
    int n;
} slopes;

static mest_status out_of_memory(gradcheck *c) { return mest_fail(c->err, MEST_E_NOMEM, "gradcheck: out of memory"); }

/* A whole run: loss, and gradients in the program. */
static mest_status run(gradcheck *c, bool forward_only, double *loss)
{
    MEST_TRY(gradcheck_feed(c));
    MEST_TRY(mest_program_run(c->p, &c->run, forward_only, c->err));
    *loss = (double)*(const mest_real *)mest_program_data(c->p, c->p->loss);
    return MEST_OK;
}

/* ---- float32 ---- */
static void dense_gradient(const mest_param *p, const mest_real *g, float *out)
{
    if (p->sparse)
        mest_sparse_dense_rows(p->sparse, g, 0, p->sparse->rows, out);
    else
        for (int64_t i = 0; i < p->count; i++)
            out[i] = (float)g[i];
}

static double norm(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

static mest_status compare_floats(gradcheck *c, double total)
{
    for (int i = 0; i < c->model->n_params; i++) {
        const mest_param *p = &c->model->params[i];
        const mest_real *g = mest_program_data(c->p, mest_program_param_grad(c->p, i));
        if (p->role != MEST_ROLE_TRAINABLE || !g)
            continue;
        size_t n = (size_t)p->count;
        float *both = mest_alloc(c->session->heap, 2 * n + 1, sizeof *both);
        if (!both)
            return out_of_memory(c);
        mest_gradcheck_item item = {.kind = MEST_GRADCHECK_KERNELS, .name = p->name};
        dense_gradient(p, g, both);
        if (!c->o->float_gradient(c->o->user, p->name, both + n, n)) {
            item.result = MEST_GRADCHECK_UNCHECKED;
            item.why = "the gradient of the step could not be read";
        } else {
            double gap = 0;
            item.numeric = norm(both, n);
            item.analytic = norm(both + n, n);
            for (size_t k = 0; k < n; k++)
                gap += ((double)both[k] - (double)both[n + k]) * ((double)both[k] - (double)both[n + k]);
            item.error = sqrt(gap) / (item.numeric + 1e-3 * total + 1e-30);
            item.result = item.error <= c->o->float_tolerance ? MEST_GRADCHECK_GOOD : MEST_GRADCHECK_OFF; /* not a number: off */
        }
        gradcheck_report(c, &item);
        mest_free(c->session->heap, both, 2 * n + 1, sizeof *both);
    }
    return MEST_OK;
}

mest_status gradcheck_kernels(gradcheck *c)
{
    MEST_TRY(run(c, false, &c->sum->loss));
    if (!c->o->float_step)
        return MEST_OK;
    double total = 0;
    for (int i = 0; i < c->model->n_params; i++) {
        const mest_real *g = mest_program_data(c->p, mest_program_param_grad(c->p, i));
        for (int64_t k = 0; g && k < mest_param_stored(&c->model->params[i]); k++)
            total += (double)g[k] * (double)g[k];
    }
    const void *inputs[MEST_SAMPLE_MAX_INPUTS];
    for (int k = 0; k < MEST_SAMPLE_MAX_INPUTS; k++)
        inputs[k] = c->inputs[k];
    if (c->o->float_step(c->o->user, &c->info, inputs, c->targets, c->n))
        return compare_floats(c, sqrt(total));
    mest_gradcheck_item item = {.kind = MEST_GRADCHECK_KERNELS, .result = MEST_GRADCHECK_UNCHECKED, .name = "", .why = "the float32 step could not be run"};
    gradcheck_report(c, &item);
    return MEST_OK;
}

/* ---- differences of the loss ---- */
static void moved(slope *s)
{
    if (s->param->sparse)
        s->param->sparse->value_version++;
    else
        s->param->value_version++;
}

static mest_status collect(slopes *s)
{
    gradcheck *c = s->c;
    s->of = mest_region_alloc(&s->region, (size_t)c->model->n_params + 1, sizeof *s->of);
    if (!s->of)
        return out_of_memory(c);
    for (int i = 0; i < c->model->n_params; i++) {
        mest_param *p = &c->model->params[i];
        if (p->role != MEST_ROLE_TRAINABLE)
            continue;
        slope *o = &s->of[s->n++];
        *o = (slope){.param = p, .w = mest_param_data(p), .n = (size_t)mest_param_stored(p)};
        o->w0 = mest_region_alloc(&s->region, 2 * (o->n + 1), sizeof *o->w0);
        if (!o->w0)
            return out_of_memory(c);
        o->g = o->w0 + o->n + 1;
        double sum = 0;
        for (size_t k = 0; k < o->n; k++)
            sum += (double)o->w[k] * (double)o->w[k];
        o->size = sum > 0 ? sqrt(sum / (double)o->n) : 1e-2;
        for (size_t k = 0; k < o->n; k++)
            o->w[k] += (mest_real)(jitter * o->size * gradcheck_noise(c->run.seed + 31 * (uint64_t)i, k));
        memcpy(o->w0, o->w, o->n * sizeof *o->w);
        moved(o);
    }
    double loss;
    MEST_TRY(run(c, false, &loss));
    for (int i = 0; i < s->n; i++) {
        const mest_real *g = mest_program_data(c->p, mest_program_param_grad(c->p, (int32_t)(s->of[i].param - c->model->params)));
        if (g) /* without one it is taken to be zero, and the differences must say so, too */
            memcpy(s->of[i].g, g, s->of[i].n * sizeof *g);
    }
    return MEST_OK;
}

/* Parameters [from, to) by h along the direction `key`. */
static void move(slopes *s, int from, int to, double h, uint64_t key)
{
    for (int i = from; i < to; i++) {
        slope *o = &s->of[i];
        for (size_t k = 0; k < o->n; k++)
            o->w[k] = o->w0[k] + (mest_real)(h * o->size * gradcheck_sign(key + (uint64_t)i, k));
        moved(o);
    }
}

static mest_status along(slopes *s, int from, int to, uint64_t key, mest_gradcheck_item *item)
{
    gradcheck *c = s->c;
    double length = 0, error = 0, best = INFINITY;
    item->analytic = 0;
    for (int i = from; i < to; i++)
        for (size_t k = 0; k < s->of[i].n; k++) {
            double term = (double)s->of[i].g[k] * s->of[i].size * gradcheck_sign(key + (uint64_t)i, k);
            item->analytic += term;
            length += term * term;
        }
    length = sqrt(length);
    bool good = false;
    for (int k = 0; !good && gradcheck_step(k) > 0; k++) {
        double h = gradcheck_step(k), plus = 0, minus = 0;
        move(s, from, to, h, key);
        mest_status status = run(c, true, &plus);
        move(s, from, to, -h, key);
        if (status == MEST_OK)
            status = run(c, true, &minus);
        move(s, from, to, 0, key);
        MEST_TRY(status);
        double numeric = (plus - minus) / (2 * h);
        good = gradcheck_agree(c, item->analytic, numeric, length, 16 * 2.3e-16 * (fabs(plus) + fabs(minus)) / (2 * h), &error);
        if (good || error < best || k == 0) {
            best = error;
            item->numeric = numeric;
            item->step = h;
        }
    }
    item->error = best;
    item->result = good ? MEST_GRADCHECK_GOOD : MEST_GRADCHECK_OFF;
    gradcheck_report(c, item);
    return MEST_OK;
}

mest_status gradcheck_model(gradcheck *c)
{
    slopes s = {.c = c};
    mest_region_init(&s.region, c->session->heap);
    mest_status status = collect(&s);
    for (int d = 0; status == MEST_OK && d < DIRECTIONS && s.n; d++) {
        mest_gradcheck_item item = {.kind = MEST_GRADCHECK_MODEL, .name = d ? "all parameters, second direction" : "all parameters"};
        status = along(&s, 0, s.n, c->run.seed + 5000 + 1000000 * (uint64_t)d, &item);
    }
    for (int i = s.n - 1; status == MEST_OK && i >= 0; i--) {
        mest_gradcheck_item item = {.kind = MEST_GRADCHECK_PARAMETER, .name = s.of[i].param->name};
        if (!gradcheck_time_left(c, 1)) {
            item.result = MEST_GRADCHECK_UNCHECKED;
            item.why = "no time was left";
            gradcheck_report(c, &item);
            continue;
        }
        status = along(&s, i, i + 1, c->run.seed + 9000, &item);
        c->sum->n_parameters++;
    }
    mest_region_free(&s.region);
    return status;
}
