/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/measure.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ENGINES = 2 }; /* that a measurement compares: the one that trains, the one that answers */

struct measure {
    sample_spec spec;
    char loss[8];
    int64_t batch;
    unsigned char *sample, *target;  /* of the store */
    char *in[MAX_TENSORS];           /* a batch, in the model's types */
    char *out;
    engine *engine[ENGINES];
    mest_predictor *predictor[ENGINES];
    int oldest;
};

measure *measure_create(const sample_spec *spec, const char *loss, int64_t batch)
{
    measure *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->spec = *spec;
    m->batch = batch;
    snprintf(m->loss, sizeof m->loss, "%s", loss);
    m->sample = malloc(spec->input_bytes);
    m->target = malloc(spec->target_bytes * (size_t)batch);
    m->out = malloc((size_t)(batch * spec->out->count) * spec->out->item);
    bool good = m->sample && m->target && m->out;
    for (int k = 0; k < spec->n_inputs; k++)
        good = (m->in[k] = malloc((size_t)(batch * spec->in[k].count) * spec->in[k].item)) != NULL && good;
    if (good)
        return m;
    measure_destroy(m);
    return NULL;
}

void measure_destroy(measure *m)
{
    if (!m)
        return;
    for (int i = 0; i < ENGINES; i++) {
        mest_predictor_destroy(m->predictor[i]);
        engine_release(m->engine[i]);
    }
    for (int k = 0; k < MAX_TENSORS; k++)
        free(m->in[k]);
    free(m->sample);
    free(m->target);
    free(m->out);
    free(m);
}

static mest_predictor *predictor_of(measure *m, engine *e, fault *f)
{
    for (int i = 0; i < ENGINES; i++)
        if (m->engine[i] == e && m->predictor[i])
            return m->predictor[i];
    int i = m->oldest;
    m->oldest = (m->oldest + 1) % ENGINES;
    mest_predictor_destroy(m->predictor[i]);
    engine_release(m->engine[i]);
    m->engine[i] = engine_hold(e);
    input_shapes shapes = {{0}};
    for (int k = 0; k < m->spec.n_inputs; k++)
        memcpy(shapes[k], m->spec.in[k].dim, sizeof shapes[k]);
    m->predictor[i] = engine_predictor(e, shapes, m->batch, f);
    return m->predictor[i];
}

static void unpack(measure *m, int64_t row)
{
    const unsigned char *at = m->sample;
    for (int k = 0; k < m->spec.n_inputs; k++) {
        const tensor_spec *s = &m->spec.in[k];
        for (int64_t i = 0; i < s->count; i++) {
            float x;
            int64_t n;
            bool real = sample_is_float(s);
            memcpy(real ? (void *)&x : (void *)&n, at, real ? sizeof x : sizeof n);
            at += real ? sizeof x : sizeof n;
            tensor_put(s, m->in[k], row * s->count + i, real ? (double)x : (double)n);
        }
    }
}

/* Cross-entropy of the softmax at one point: c numbers from `at` on, `step` apart. */
static double point_loss(const tensor *y, int64_t at, int64_t c, int64_t step, int64_t label, bool *right)
{
    int64_t best = 0;
    double sum = 0, high = -INFINITY;
    for (int64_t i = 0; i < c; i++)
        if (tensor_value(y, at + i * step) > high)
            high = tensor_value(y, at + (best = i) * step);
    for (int64_t i = 0; i < c; i++)
        sum += exp(tensor_value(y, at + i * step) - high);
    *right = best == label;
    return log(sum) + high - tensor_value(y, at + label * step);
}

/* Of one sample: cross-entropy of the softmax (mean over its points), mean squared error, binary cross-entropy of the logistic function (both means over
 * the outputs). *right: share of the points with the right class. */
static double loss_of(const measure *m, const tensor *y, int64_t row, double *right)
{
    int64_t c = m->spec.out->count, inner = 1;
    double sum = 0;
    if (m->spec.classes) {
        int64_t hits = 0, label;
        for (int i = m->spec.class_axis + 1; i < m->spec.out->rank; i++)
            inner *= m->spec.out->dim[i];
        for (int64_t i = 0; i < m->spec.points; i++) {
            bool hit;
            memcpy(&label, m->target + (size_t)row * m->spec.target_bytes + (size_t)i * sizeof label, sizeof label);
            sum += point_loss(y, row * c + i / inner * inner * m->spec.n_classes + i % inner, m->spec.n_classes, inner, label, &hit);
            hits += hit;
        }
        *right = (double)hits / (double)m->spec.points;
        return sum / (double)m->spec.points;
    }
    for (int64_t i = 0; i < c; i++) {
        float want;
        memcpy(&want, m->target + (size_t)row * m->spec.target_bytes + (size_t)i * sizeof want, sizeof want);
        double v = tensor_value(y, row * c + i), w = (double)want;
        sum += !strcmp(m->loss, "bce") ? fmax(v, 0) - v * w + log1p(exp(-fabs(v))) : (v - w) * (v - w);
    }
    return sum / (double)c;
}

static bool run(measure *m, mest_predictor *p, int64_t n, measured *r, double *right, fault *f)
{
    mest_input_data in[MAX_TENSORS];
    for (int k = 0; k < m->spec.n_inputs; k++)
        in[k] = (mest_input_data){m->spec.in[k].name, m->in[k], (size_t)(n * m->spec.in[k].count) * m->spec.in[k].item};
    tensor y = {.spec = m->spec.out, .n = n, .data = m->out, .bytes = (size_t)(n * m->spec.out->count) * m->spec.out->item};
    mest_output_data out = {m->spec.out->name, m->out, y.bytes};
    mest_error err;
    if (mest_predictor_run(p, n, in, m->spec.n_inputs, &out, 1, NULL, &err) != MEST_OK)
        return refuse_error(f, &err);
    for (int64_t i = 0; i < n; i++) {
        double share = 0;
        r->loss += loss_of(m, &y, i, &share);
        *right += share;
    }
    r->samples += n;
    return true;
}

bool measure_version(measure *m, engine *e, int64_t id, replay *store, int64_t most, uint64_t seed, bool (*rest)(void *user), void *user,
                     measured *result, fault *f)
{
    measured r = {0};
    *result = (measured){.loss = (double)NAN, .accuracy = (double)NAN};
    mest_predictor *p = predictor_of(m, e, f);
    mest_snapshot *version = id ? mest_model_acquire_id(e->model, id) : mest_model_acquire(e->model);
    mest_error err;
    bool good = p && version ? mest_predictor_pin(p, version, &err) == MEST_OK || refuse_error(f, &err) : refuse(f, 404, "version %" PRId64 " is not in memory", id);
    int64_t held = replay_count(store, true), n = held < most ? held : most, waiting = 0;
    double right = 0;
    bool complete = true;
    for (int64_t i = 0; good && complete && i < n; i++) {
        uint64_t rank = held <= most ? (uint64_t)i : replay_mix(seed, (uint64_t)i);
        if (replay_read(store, true, rank, m->sample, m->target + (size_t)waiting * m->spec.target_bytes)) {
            unpack(m, waiting);
            waiting++;
        }
        if (waiting == m->batch || (i == n - 1 && waiting)) {
            good = run(m, p, waiting, &r, &right, f);
            waiting = 0;
            complete = !rest || rest(user);
        }
    }
    if (p && mest_predictor_pin(p, NULL, &err) != MEST_OK)
        good = false;
    mest_snapshot_release(version);
    if (good && complete && r.samples)
        *result = (measured){r.samples, r.loss / (double)r.samples, m->spec.classes ? right / (double)r.samples : (double)NAN};
    return good;
}
