/* SPDX-License-Identifier: Apache-2.0 */
/* GET and POST v2/models/M/train. */
#include <inttypes.h>
#include <microhttpd.h>
#include <stdlib.h>

#include "serve/routes.h"
#include "serve/trainer.h"

static bool trainable(const served *m, fault *f)
{
    if (m->broken.status)
        return refuse(f, 503, "model '%s' cannot be served: %.400s", m->name, m->broken.text);
    return m->trainer || refuse(f, 409, "model '%s' cannot be trained: %.400s", m->name, m->untrained.text);
}

static bool act(served *m, const train_call *c, fault *f)
{
    trainer *t = m->trainer;
    switch (c->action) {
    case TRAIN_ADD: return trainer_add(t, c, f);
    case TRAIN_START: return trainer_start(t, c->settings, f);
    case TRAIN_CANCEL: trainer_cancel(t); return true;
    case TRAIN_PROMOTE: return trainer_promote(t, c->version, f);
    case TRAIN_ROLLBACK: return trainer_rollback(t, c->version, f);
    default: return true;
    }
}

void answer_train(exchange *x, served *m, int64_t version)
{
    (void)version;
    fault f = {0};
    train_call c = {.action = TRAIN_STATUS};
    tensor_limits limits = {.samples = INT64_C(1) << 20, .axis = m->settings.max_axis, .bytes = (size_t)x->server->o.max_body};
    bool good = trainable(m, &f) && train_read(&c, x->body, x->size, x->json_bytes, trainer_samples(m->trainer), &limits, &f) && act(m, &c, &f);
    train_free(&c);
    if (good)
        trainer_status(m->trainer, INT64_MAX, &x->answer);
    else
        http_refuse(x, &f);
    http_done(x);
}

void answer_train_status(exchange *x, served *model, int64_t version)
{
    (void)version;
    fault f = {0};
    const char *since = MHD_lookup_connection_value(x->connection, MHD_GET_ARGUMENT_KIND, "since");
    if (trainable(model, &f))
        trainer_status(model->trainer, since ? strtoll(since, NULL, 10) : 0, &x->answer);
    else
        http_refuse(x, &f);
    http_done(x);
}
