/* SPDX-License-Identifier: Apache-2.0 */
/* What a session is asked to do: defaults, and what of it makes no sense. */
#include "runtime/session.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/tune.h"

void mest_train_config_init(mest_train_config *c)
{
    memset(c, 0, sizeof *c);
    c->struct_size = sizeof *c;
    c->batch = MEST_DEFAULT_BATCH;
    c->ignore_index = -100;
    c->shuffle = true;
    c->epochs = 1;
    c->loss = "ce";
    c->optimizer = "sgd";
    c->lr = 0.01;
    c->momentum = 0.9;
    c->beta1 = 0.9;
    c->beta2 = 0.999;
    c->eps = -1;
    c->schedule = "constant";
    c->gamma = 0.1;
    c->step_epochs = 30;
    c->batch_norm = "auto";
    c->bn_stats = "pytorch";
    c->dropout = -1;
    c->kernels = "auto";
    c->use_xnnpack = true;
    c->recompute = "auto";
    c->tune = "off";
    c->activations = "f32";
    c->freeze_front = "off";
}

static bool one_of(const char *text, const char *const *names)
{
    for (; text && *names; names++)
        if (!strcmp(text, *names))
            return true;
    return false;
}

mest_status mest_session_check_config(const mest_train_config *c, mest_error *err)
{
#define WANT(cond, ...) MEST_CHECK(cond, err, MEST_E_ARGUMENT, __VA_ARGS__)
    WANT(c->batch >= 1 && c->batch <= 1 << 20, "config: batch %" PRId64 " is not in 1..2^20", c->batch);
    WANT(c->eval_batch >= 0 && c->eval_batch <= 1 << 20, "config: eval_batch %" PRId64 " is not in 0..2^20", c->eval_batch);
    WANT(c->epochs >= 0 && c->max_steps >= 0, "config: epochs and max_steps must not be negative");
    WANT(one_of(c->loss, (const char *const[]){"ce", "mse", "bce", NULL}), "config: loss '%s' is not one of ce, mse, bce", c->loss ? c->loss : "");
    WANT(c->label_smoothing >= 0 && c->label_smoothing < 1, "config: label smoothing %g is not in [0, 1)", c->label_smoothing);
    WANT(mest_optim_rule_find(c->optimizer), "config: optimizer '%s' is not one of %s", c->optimizer ? c->optimizer : "", mest_optim_rule_names);
    WANT(c->lr >= 0 && isfinite(c->lr), "config: learning rate %g is negative or not finite", c->lr);
    WANT(c->momentum >= 0 && c->momentum < 1, "config: momentum %g is not in [0, 1)", c->momentum);
    WANT(!c->nesterov || c->momentum > 0, "config: nesterov needs a momentum");
    WANT(c->weight_decay >= 0 && isfinite(c->weight_decay), "config: weight decay %g is negative or not finite", c->weight_decay);
    WANT(c->beta1 >= 0 && c->beta1 < 1 && c->beta2 >= 0 && c->beta2 < 1 && (c->eps >= 0 || c->eps == -1), "config: betas must be in [0, 1), eps >= 0");
    WANT(c->lr_decay >= 0 && isfinite(c->lr_decay), "config: lr_decay %g is negative or not finite", c->lr_decay);
    WANT(c->clip_norm >= 0, "config: gradient clipping %g is negative", c->clip_norm);
    WANT(one_of(c->schedule, (const char *const[]){"constant", "step", "cosine", NULL}), "config: schedule '%s' is not one of constant, step, cosine",
         c->schedule ? c->schedule : "");
    WANT(c->min_lr >= 0 && c->warmup_lr >= 0 && c->gamma >= 0 && c->step_epochs >= 1 && c->warmup_epochs >= 0,
         "config: min_lr, warmup_lr, gamma, warmup_epochs must not be negative, step_epochs at least 1");
    WANT(one_of(c->batch_norm, (const char *const[]){"auto", "train", "frozen", NULL}), "config: batch_norm '%s' is not one of auto, train, frozen",
         c->batch_norm ? c->batch_norm : "");
    WANT(one_of(c->bn_stats, (const char *const[]){"pytorch", "onnx", NULL}), "config: bn_stats '%s' is not one of pytorch, onnx", c->bn_stats ? c->bn_stats : "");
    WANT(c->dropout < 1, "config: dropout %g is not below 1", c->dropout);
    WANT(c->micro_batch >= -1 && c->micro_batch <= c->batch && (c->micro_batch < 1 || c->batch % c->micro_batch == 0),
         "config: micro_batch %" PRId64 " does not divide the batch of %" PRId64, c->micro_batch, c->batch);
    WANT(c->threads >= 0 && c->threads <= 1024, "config: threads %d is not in 0..1024", c->threads);
#undef WANT
    MEST_CHECK(!c->recipe || strlen(c->recipe) <= 64 << 10, err, MEST_E_ARGUMENT, "config: the recipe is longer than 64 KiB");
    mest_tune_mode mode;
    MEST_CHECK(one_of(c->activations, (const char *const[]){"f32", "bf16", "auto", NULL}), err, MEST_E_ARGUMENT, "config: activations '%s' is not one of f32, bf16, auto",
               c->activations ? c->activations : "");
    MEST_CHECK(one_of(c->freeze_front, (const char *const[]){"off", "auto", NULL}), err, MEST_E_ARGUMENT, "config: freeze_front '%s' is not one of off, auto",
               c->freeze_front ? c->freeze_front : "");
    MEST_TRY(mest_tune_parse(c->tune, &mode, err));
    return mest_passes_check(c->no_fuse, err);
}

mest_status mest_session_check_output(const mest_model *m, const char *name, mest_error *err)
{
    const mest_graph *g = &m->graph;
    char names[300] = "";
    size_t n = 0;
    for (int i = 0; i < g->n_outputs; i++) {
        const char *have = g->values[g->outputs[i]].name;
        if (!name || !strcmp(have, name))
            return MEST_OK;
        if (n < sizeof names)
            n += (size_t)snprintf(names + n, sizeof names - n, "%s%.60s", i ? ", " : "", have);
    }
    MEST_CHECK(!name, err, MEST_E_ARGUMENT, "config: the model has no output '%s' (it has %s)", name, names);
    return MEST_OK;
}
