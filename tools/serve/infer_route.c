/* SPDX-License-Identifier: Apache-2.0 */
/* POST v2/models/M/infer: read, put aside, batched, answered by a worker. */
#include <inttypes.h>
#include <stdlib.h>

#include "serve/clock.h"
#include "serve/routes.h"

typedef struct infer_job {
    batch_item item; /* first: batcher gives it back */
    infer_call call;
    exchange *x;
    served *model;
} infer_job;

static void finish(infer_job *j, const fault *why)
{
    exchange *x = j->x;
    if (why->status)
        http_refuse(x, why);
    else
        infer_write(&j->call, j->model->name, &x->answer, &x->answer_json_bytes);
    metrics_infer(&j->model->metrics, (clock_ms() - x->begun_ms) / 1e3, !why->status);
    infer_free(&j->call);
    free(j);
    http_done(x);
}

static void answered(batch_item *item) { finish(item->user, &item->fault); }

void answer_infer(exchange *x, served *model, int64_t version)
{
    fault f = {0};
    infer_job *j = calloc(1, sizeof *j);
    if (!j) {
        refuse(&f, 503, "out of memory");
        http_refuse(x, &f);
        http_done(x);
        return;
    }
    j->x = x;
    j->model = model;
    j->item = (batch_item){.call = &j->call, .done = answered, .user = j};
    tensor_limits limits = {.samples = model->settings.max_batch, .axis = model->settings.max_axis, .bytes = (size_t)x->server->o.max_body};
    bool good = !model->broken.status || refuse(&f, 503, "model '%s' cannot be served: %.400s", model->name, model->broken.text);
    good = good && infer_read(&j->call, x->body, x->size, x->json_bytes, model->in, model->n_inputs, model->out, model->n_outputs, &limits, &f);
    if (!good) {
        finish(j, &f);
        return;
    }
    j->call.version = version;
    http_later(x);
    if (!batcher_add(model->batcher, &j->item, &f))
        finish(j, &f);
}
