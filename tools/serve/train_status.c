/* SPDX-License-Identifier: Apache-2.0 */
/* What GET v2/models/M/train tells. */
#include <inttypes.h>

#include "serve/trainer_parts.h"

static void put_number(text *out, const char *name, double value)
{
    text_printf(out, ",\"%s\":", name);
    text_number(out, value);
}

static void put_point(text *out, const curve_point *p, bool first)
{
    text_printf(out, "%s{\"round\":%" PRId64 ",\"steps\":%" PRId64 ",\"version\":%" PRId64 ",\"samples\":%" PRId64, first ? "" : ",", p->round, p->steps, p->version,
                p->candidate.samples);
    put_number(out, "seconds", p->seconds);
    put_number(out, "train_loss", p->train_loss);
    put_number(out, "loss", p->candidate.loss);
    put_number(out, "accuracy", p->candidate.accuracy);
    put_number(out, "current_loss", p->current.loss);
    put_number(out, "current_accuracy", p->current.accuracy);
    text_printf(out, "}");
}

void trainer_status(trainer *t, int64_t since, text *out)
{
    replay_state store;
    replay_look(t->store, &store);
    int64_t version = served_version(t->model);
    pthread_mutex_lock(&t->lock);
    text_printf(out, "{\"state\":\"%s\",\"wanted\":%s,\"version\":\"%" PRId64 "\",\"candidate\":%" PRId64 ",\"rounds\":%" PRId64 ",\"steps\":%" PRId64, t->state,
                t->wanted ? "true" : "false", version, t->candidate, t->rounds, t->steps);
    put_number(out, "loss", t->loss);
    put_number(out, "lr", t->settings.lr);
    put_number(out, "duty", t->settings.duty);
    text_printf(out, ",\"note\":");
    text_quote(out, t->note);
    text_printf(out, ",\"store\":{\"held\":%" PRId64 ",\"training\":%" PRId64 ",\"testing\":%" PRId64 ",\"ever\":%" PRId64 ",\"damaged\":%" PRId64 ",\"slots\":%" PRId64
                     ",\"bytes\":%" PRId64 "},\"curve\":[",
                store.held, store.training, store.testing, store.ever, store.damaged, store.slots, store.file_bytes);
    bool first = true;
    for (int64_t i = t->n_curve > CURVE ? t->n_curve - CURVE : 0; i < t->n_curve; i++)
        if (t->curve[i % CURVE].round >= since) {
            put_point(out, &t->curve[i % CURVE], first);
            first = false;
        }
    pthread_mutex_unlock(&t->lock);
    text_printf(out, "]}\n");
}
