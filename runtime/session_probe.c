/* SPDX-License-Identifier: Apache-2.0 */
/* Probes: the batch of the step that begins, forward and backward, without a trace in weights, statistics or optimizer state; and training
 * steps that are watched. */
#include <math.h>
#include <string.h>

#include "runtime/channels.h"
#include "runtime/perturb.h"
#include "runtime/probe.h"
#include "runtime/session.h"

/* Where update nodes put the gradients of sparse parameters: the host's snapshots, or the arrays given. */
static void lend_snapshots(mest_session *s, mest_real *const *arrays)
{
    for (int k = 0; k < s->host.n_params; k++)
        if (!s->host.params[k].group)
            s->optimizer.state[s->host_param[k]].snapshot = arrays ? arrays[k] : s->host.params[k].grad_snapshot;
    for (int i = 0; s->model->channels && i < s->model->n_params; i++)
        if (s->model->params[i].axes)
            s->optimizer.state[i].snapshot = s->model->params[i].axes->snapshot;
}

/* ---- statistics: a forward pass in training form moves them ---- */

static int64_t copy_statistics(mest_session *s, mest_real *saved, bool back)
{
    int64_t n = 0;
    for (int i = 0; i < s->model->n_params; i++) {
        mest_param *p = &s->model->params[i];
        if (p->role != MEST_ROLE_STATISTIC || !p->values)
            continue;
        if (saved && back) {
            memcpy(p->values, saved + n, (size_t)p->count * sizeof *saved);
            p->value_version++;
        } else if (saved) {
            memcpy(saved + n, p->values, (size_t)p->count * sizeof *saved);
        }
        n += p->count;
    }
    return n;
}

/* ---- one pass ---- */

static mest_status pass(mest_session *s, const mest_probe *probe, bool keep, const mest_run_hook *hook, mest_error *err)
{
    const mest_run run = { .seed = s->config.seed, .step = (uint64_t)s->at.step, .snapshot_grads = keep, .snapshot_add = probe->add, .keep_weights = true,
                           .logit_scale = probe->logit_scale, .hook = hook };
    return mest_session_run_parts(s, &run, false, err);
}

/* A reader for the step at work. */
static mest_status open_reader(mest_session *s, mest_gradient_reader *reader, mest_probe *probe, mest_error *err)
{
    mest_program *p;
    MEST_TRY(mest_session_program(s, MEST_PROGRAM_TRAIN, s->step.n < s->part ? s->step.n : s->part, &p, err));
    return mest_gradient_reader_open(reader, &s->host, probe, p, mest_session_n_parts(s, s->step.n), err);
}

/* Passes until the reader has seen everything: one, where the batch is whole. */
static mest_status passes(mest_session *s, const mest_probe *probe, mest_gradient_reader *reader, mest_error *err)
{
    bool keep = probe->keep;
    do {
        MEST_TRY(pass(s, probe, keep, reader->band ? &reader->hook : NULL, err));
        keep = false;
    } while (mest_gradient_reader_next(reader));
    return MEST_OK;
}

/* Where the batch is in parts, a watched step is looked at before it is made: its gradients are not known while it runs. */
static mest_status look_first(mest_session *s, mest_probe *probe, mest_gradient_reader *reader, mest_error *err)
{
    const int64_t n = copy_statistics(s, NULL, false);
    const bool keep = probe->keep;
    mest_real *saved;
    MEST_NEW(s->heap, saved, n, err, "watched step: statistics");
    copy_statistics(s, saved, false);
    probe->keep = false; /* the step does that */
    mest_status status = passes(s, probe, reader, err);
    probe->keep = keep;
    copy_statistics(s, saved, true);
    mest_free(s->heap, saved, (size_t)n, sizeof *saved);
    return status;
}

/* ---- the Hessian times the gradient ---- */

typedef struct product {
    mest_real **weights, **sum; /* per sparse parameter: the weights as they were; gradient at the first point */
    int n;
} product;

static void free_product(mest_session *s, product *h)
{
    for (int k = 0; k < h->n; k++) {
        const size_t n = (size_t)s->host.params[k].sparse->stored;
        if (h->weights)
            mest_free(s->heap, h->weights[k], n, sizeof **h->weights);
        if (h->sum)
            mest_free(s->heap, h->sum[k], n, sizeof **h->sum);
    }
    mest_free(s->heap, h->weights, (size_t)h->n, sizeof *h->weights);
    mest_free(s->heap, h->sum, (size_t)h->n, sizeof *h->sum);
}

static mest_status make_product(mest_session *s, product *h, int64_t *bytes, mest_error *err)
{
    *h = (product){ .n = s->host.n_params };
    h->weights = mest_calloc(s->heap, (size_t)h->n, sizeof *h->weights);
    h->sum = mest_calloc(s->heap, (size_t)h->n, sizeof *h->sum);
    MEST_CHECK(h->weights && h->sum, err, MEST_E_NOMEM, "probe: out of memory");
    for (int k = 0; k < h->n; k++) {
        const mest_sparse *w = s->host.params[k].sparse;
        h->weights[k] = mest_alloc(s->heap, (size_t)w->stored, sizeof **h->weights);
        h->sum[k] = mest_calloc(s->heap, (size_t)w->stored, sizeof **h->sum);
        MEST_CHECK(h->weights[k] && h->sum[k], err, MEST_E_NOMEM, "probe: no memory for the weights of '%s'", s->host.params[k].name);
        memcpy(h->weights[k], w->values, (size_t)w->stored * sizeof **h->weights);
        *bytes += 2 * w->stored * (int64_t)sizeof(mest_real);
    }
    return MEST_OK;
}

/* weights = saved + by * g, g in the snapshots; by = 0: as they were. */
static void shift(mest_session *s, const product *h, double by)
{
    for (int k = 0; k < h->n; k++) {
        mest_sparse *w = s->host.params[k].sparse;
        const mest_real *g = s->host.params[k].grad_snapshot;
        for (int64_t i = 0; i < w->stored; i++)
            w->values[i] = by == 0 ? h->weights[k][i] : (mest_real)((double)h->weights[k][i] + by * (double)g[i]);
        w->value_version++;
    }
}

/* H g ~ (gradient(w + e g) - gradient(w - e g)) / (2 e). The snapshots hold g and end as H g. ||e g|| / ||w|| must be so small that hardly
 * any activation crosses the kink of its Relu, where automatic differentiation sees no curvature, and so large that the difference stands
 * out from rounding. Measured against automatic differentiation (tests/plugin/test_probe.c): 1e-4 is off by half, 1e-5 by 0.1 % in float. */
static mest_status hessian_gradient(mest_session *s, const mest_probe *probe, int64_t *bytes, mest_error *err)
{
    const double part = 1e-5;
    product h;
    double gg = 0, ww = 0;
    mest_status status;
    MEST_TRY_OUT(make_product(s, &h, bytes, err));
    for (int k = 0; k < h.n; k++)
        for (int64_t i = 0; i < s->host.params[k].sparse->stored; i++) {
            double g = (double)s->host.params[k].grad_snapshot[i], w = (double)h.weights[k][i];
            gg += g * g;
            ww += w * w;
        }
    if (gg == 0 || ww == 0) { /* no gradient: its product is 0 as well */
        for (int k = 0; k < h.n; k++)
            memset(s->host.params[k].grad_snapshot, 0, (size_t)s->host.params[k].sparse->stored * sizeof(mest_real));
        goto out;
    }
    const double e = part * sqrt(ww / gg);
    lend_snapshots(s, h.sum);
    shift(s, &h, e);
    status = pass(s, probe, true, NULL, err);
    lend_snapshots(s, NULL);
    if (status == MEST_OK) {
        shift(s, &h, -e);
        status = pass(s, probe, true, NULL, err);
    }
    for (int k = 0; k < h.n && status == MEST_OK; k++) {
        mest_real *g = s->host.params[k].grad_snapshot;
        for (int64_t i = 0; i < s->host.params[k].sparse->stored; i++)
            g[i] = (mest_real)(((double)h.sum[k][i] - (double)g[i]) / (2 * e));
    }
    shift(s, &h, 0);
out:
    free_product(s, &h);
    return status;
}

/* ---- services ---- */

mest_status mest_session_probe(void *session, mest_probe *probe, mest_error *err)
{
    mest_session *s = session;
    mest_gradient_reader reader = { 0 };
    int64_t bytes = 0, n_saved = copy_statistics(s, NULL, false);
    mest_real *saved;
    MEST_CHECK(probe->logit_scale == 0 || !strcmp(s->config.loss, "ce"), err, MEST_E_UNSUPPORTED, "scheduler %s: logits are scaled for the loss ce only",
               s->host.who);
    MEST_NEW(s->heap, saved, n_saved, err, "probe: statistics");
    copy_statistics(s, saved, false);
    lend_snapshots(s, NULL);
    mest_status status = open_reader(s, &reader, probe, err);
    if (status == MEST_OK)
        status = passes(s, probe, &reader, err);
    mest_gradient_reader_close(&reader, status == MEST_OK);
    if (status == MEST_OK && probe->hessian)
        status = hessian_gradient(s, probe, &bytes, err);
    copy_statistics(s, saved, true);
    mest_free(s->heap, saved, (size_t)n_saved, sizeof *saved);
    probe->extra_bytes = (bytes > probe->extra_bytes ? bytes : probe->extra_bytes) + n_saved * (int64_t)sizeof *saved;
    s->step.computed = status == MEST_OK && !probe->hessian && probe->logit_scale == 0;
    return status;
}

mest_status mest_session_learn(mest_session *s, double lr, bool snapshot, mest_error *err)
{
    mest_probe *watch = s->host.watch;
    mest_gradient_reader reader = { 0 };
    mest_run run = { .seed = s->config.seed, .step = (uint64_t)s->at.step, .lr = lr, .snapshot_grads = snapshot || (watch && watch->keep) };
    if (run.snapshot_grads) /* the update nodes write the gradients straight into the host's snapshots */
        lend_snapshots(s, NULL);
    if (watch)
        MEST_TRY(open_reader(s, &reader, watch, err));
    const bool first = reader.sum != NULL;
    mest_status status = first ? look_first(s, watch, &reader, err) : MEST_OK;
    run.hook = reader.band && !first ? &reader.hook : NULL;
    const mest_perturbation perturbation = { s->host.l1, s->host.noise, s->config.seed, (uint64_t)s->at.step };
    s->optimizer.perturb = s->host.perturbed ? &perturbation : NULL;
    for (int k = 0; k < s->host.n_params && s->host.perturbed; k++)
        s->optimizer.state[s->host_param[k]].turned = s->host.params[k].turned;
    if (status == MEST_OK)
        status = mest_session_run_parts(s, &run, false, err);
    s->optimizer.perturb = NULL;
    mest_gradient_reader_close(&reader, status == MEST_OK);
    s->host.watch = NULL;
    s->host.gradients_taken |= run.snapshot_grads && status == MEST_OK;
    for (int k = 0; k < s->host.n_params && run.snapshot_grads && status == MEST_OK; k++)
        if (s->host.params[k].group && s->host.params[k].grad_snapshot)
            mest_channels_gradient_norms(s->model, s->host.params[k].group - 1, s->host.params[k].grad_snapshot);
    return status;
}
