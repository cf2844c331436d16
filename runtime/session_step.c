/* SPDX-License-Identifier: Apache-2.0 */
/* Single steps and inference on the caller's tensors. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "runtime/rebatch.h"
#include "runtime/session.h"

mest_status mest_session_run(mest_session *s, mest_program *p, const void *const *inputs, const void *targets, double lr, bool learn, bool snapshot,
                             mest_error *err)
{
    MEST_TRY(mest_session_feed(s, p, inputs, err));
    mest_program_feed(p, p->target, targets);
    mest_run run = {.seed = s->config.seed, .step = (uint64_t)s->at.step, .lr = lr, .snapshot_grads = snapshot};
    return mest_program_run(p, &run, !learn, err);
}

static int64_t fixed_batch(const mest_session *s, int64_t otherwise)
{
    const int64_t fixed = mest_model_fixed_batch(&s->model->graph);
    return fixed > 0 ? fixed : otherwise;
}

/* Samples in one inference: a batch that the file fixes is kept, unless it can be shown that another one gives the same. */
static int64_t infer_batch(mest_session *s)
{
    if (!s->rebatches)
        s->rebatches = mest_model_rebatches(s->model, 2 * fixed_batch(s, 1), false, NULL) ? 1 : -1;
    return s->rebatches > 0 ? s->config.eval_batch : fixed_batch(s, s->config.eval_batch);
}

/* Without a source the targets follow from the output: class indices for ce (class axis last), numbers like the output otherwise. */
mest_status mest_session_shapes(mest_session *s, mest_error *err)
{
    if (s->target_type)
        return MEST_OK;
    mest_program *p;
    MEST_TRY(mest_session_sketch(s, fixed_batch(s, 1), &p, err));
    const mest_value *y = &p->graph.values[p->logits];
    const mest_shape *out = &y->type.shape;
    bool ce = !strcmp(s->config.loss, "ce");
    mest_shape target = {.rank = out->rank - 1 - (ce ? 1 : 0)};
    mest_status status = MEST_OK;
    if (target.rank < 0)
        status = mest_fail(err, MEST_E_SHAPE, "output '%s' has no class axis", y->name);
    for (int i = 0; i < target.rank; i++)
        target.dim[i] = out->dim[i + 1];
    mest_program_destroy(p);
    MEST_TRY(status);
    s->target_type = ce ? MEST_I64 : MEST_F32;
    s->target_shape = target;
    return MEST_OK;
}

static mest_status check_one_input(const mest_session *s, const char *what, mest_error *err)
{
    int n = s->n_feeds ? s->n_feeds : s->model->graph.n_inputs;
    MEST_CHECK(n == 1, err, MEST_E_ARGUMENT, "%s: %d inputs are to be given; mest_session_%s_inputs takes several", what, n, what);
    return MEST_OK;
}

static mest_status step(mest_session *s, const void *const *inputs, const void *targets, int64_t n, mest_metrics *metrics, mest_error *err)
{
    MEST_CHECK(n >= 1 && n <= s->config.batch, err, MEST_E_ARGUMENT, "step: %" PRId64 " samples, the batch is %" PRId64, n, s->config.batch);
    MEST_TRY(mest_session_settle_unfolded(s, NULL, err));
    return mest_session_step_on(s, inputs, targets, n, metrics, err);
}

mest_status mest_session_step(mest_session *s, const void *inputs, const void *targets, int64_t n, mest_metrics *metrics, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s && inputs && targets, err, MEST_E_ARGUMENT, "step: session, inputs and targets must be given");
    MEST_TRY(check_one_input(s, "step", err));
    return step(s, &inputs, targets, n, metrics, err);
}

mest_status mest_session_step_inputs(mest_session *s, const void *const *inputs, const void *targets, int64_t n, mest_metrics *metrics, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s && inputs && targets, err, MEST_E_ARGUMENT, "step: session, inputs and targets must be given");
    return step(s, inputs, targets, n, metrics, err);
}

/* A sketch of the network says it; callers may ask before every inference. */
static mest_status find_output(mest_session *s, mest_error *err)
{
    mest_program *p;
    const int64_t batch = infer_batch(s);
    MEST_TRY(mest_session_sketch(s, batch, &p, err));
    const mest_value *y = &p->graph.values[p->logits];
    const mest_shape *out = &y->type.shape;
    const bool batched = out->rank > 0 && out->dim[0] == batch; /* axis 0 is the batch; otherwise all of it belongs to one run */
    const mest_status status = batched || batch == 1 ? MEST_OK : mest_fail(err, MEST_E_SHAPE, "output '%s' has no batch axis", y->name);
    s->output_shape.rank = batched ? out->rank - 1 : out->rank;
    memcpy(s->output_shape.dim, out->dim + batched, (size_t)s->output_shape.rank * sizeof out->dim[0]);
    s->output_known = status == MEST_OK;
    mest_program_destroy(p);
    return status;
}

mest_status mest_session_output_shape(mest_session *s, int *rank, int64_t dim[MEST_MAX_RANK], mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s && rank && dim, err, MEST_E_ARGUMENT, "output shape: arguments must be given");
    mest_session_follow_channels(s);
    if (!s->output_known)
        MEST_TRY(find_output(s, err));
    *rank = s->output_shape.rank;
    memcpy(dim, s->output_shape.dim, (size_t)*rank * sizeof dim[0]);
    return MEST_OK;
}

static mest_status infer(mest_session *s, const void *const *inputs, int64_t n, float *out, size_t out_count, mest_error *err)
{
    const void *at[MEST_SAMPLE_MAX_INPUTS];
    int n_inputs = s->n_feeds ? s->n_feeds : s->model->graph.n_inputs;
    int64_t done = 0, most = infer_batch(s);
    bool fixed = most != s->config.eval_batch;
    MEST_CHECK(n_inputs <= MEST_SAMPLE_MAX_INPUTS, err, MEST_E_LIMIT, "infer: the model has %d inputs, at most %d are possible", n_inputs, MEST_SAMPLE_MAX_INPUTS);
    MEST_CHECK(!fixed || n % most == 0, err, MEST_E_ARGUMENT, "infer: the model fixes its batch at %" PRId64 ", %" PRId64 " samples are no multiple of it", most, n);
    while (done < n) {
        int64_t now = n - done < most ? n - done : most;
        mest_program *p;
        MEST_TRY(mest_session_program(s, MEST_PROGRAM_INFER, now, &p, err));
        const mest_value *y = &p->graph.values[p->logits];
        int64_t y_count = 0;
        MEST_CHECK(y->type.dtype == MEST_F32, err, MEST_E_UNSUPPORTED, "output '%s' is %s, not float32", y->name, mest_dtype_name(y->type.dtype));
        if (!mest_shape_count(&y->type.shape, &y_count))
            return mest_fail(err, MEST_E_SHAPE, "infer: sizes are not known");
        MEST_CHECK(out_count == (size_t)(y_count / now * n), err, MEST_E_ARGUMENT, "infer: %zu floats given for the output, %" PRId64 " are needed", out_count,
                   y_count / now * n);
        for (int k = 0; k < n_inputs; k++)
            at[k] = (const char *)inputs[k] + (size_t)done * mest_session_sample_bytes(s, p, k, now);
        MEST_TRY(mest_session_run(s, p, at, NULL, 0, false, false, err));
        const mest_real *data = mest_program_data(p, p->logits);
        for (int64_t i = 0; i < y_count; i++)
            out[done * (y_count / now) + i] = (float)data[i];
        done += now;
    }
    return MEST_OK;
}

mest_status mest_session_infer(mest_session *s, const void *inputs, int64_t n, float *out, size_t out_count, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s && inputs && out && n >= 0, err, MEST_E_ARGUMENT, "infer: session, inputs and outputs must be given");
    MEST_TRY(check_one_input(s, "infer", err));
    return infer(s, &inputs, n, out, out_count, err);
}

mest_status mest_session_infer_inputs(mest_session *s, const void *const *inputs, int64_t n, float *out, size_t out_count, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(s && inputs && out && n >= 0, err, MEST_E_ARGUMENT, "infer: session, inputs and outputs must be given");
    return infer(s, inputs, n, out, out_count, err);
}
