/* SPDX-License-Identifier: Apache-2.0 */
/* From settings to model and session. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "options.h"
#include "report.h"
#include "rundir.h"
#include "tool.h"

static int check_forgetting(tool *t)
{
    const settings *s = t->s;
    bool max = options_given(s, "forget-max");
    if (s->forget_epoch <= 0 && (s->forget_remove || max))
        return tool_refuse(t, EXIT_USAGE, "--%s needs --forget-epoch", max ? "forget-max" : "forget-remove");
    if (s->forget_epoch > 0 && (s->forget_remove != NULL) == max)
        return tool_refuse(t, EXIT_USAGE, "--forget-epoch needs --forget-remove or --forget-max, one of the two");
    if (s->forget_remove) {
        char *rest;
        double remove = strtod(s->forget_remove, &rest);
        if (*rest || !(remove > 0) || remove > 9e15 || (remove >= 1 && remove != floor(remove)))
            return tool_refuse(t, EXIT_USAGE, "--forget-remove: '%s' is neither a fraction below 1 nor a count", s->forget_remove);
    }
    return 0;
}

int tool_check_settings(tool *t)
{
    const settings *s = t->s;
    if (options_given(s, "jobs") || s->dry_run)
        return tool_refuse(t, EXIT_USAGE, "--%s needs --sweep", s->dry_run ? "dry-run" : "jobs");
    if (!s->model)
        return tool_refuse(t, EXIT_USAGE, "no model given: mest-run MODEL.onnx --train | --eval | --infer | --info | --check | --gradcheck | --bench infer | --bench train | --explain; or mest-run --report DIR");
    if (s->mode == MODE_NONE)
        return tool_refuse(t, EXIT_USAGE, "what shall be done with '%s'? --train, --eval, --infer, --info, --check, --gradcheck, --bench, --explain or --report", s->model);
    if (s->mode <= MODE_INFER && !s->data)
        return tool_refuse(t, EXIT_USAGE, "--data is missing: the samples to %s",
                           s->mode == MODE_TRAIN ? "train on" : s->mode == MODE_EVAL ? "evaluate on" : "run");
    if (s->profile && s->mode != MODE_TRAIN && s->mode != MODE_EVAL && s->mode != MODE_INFER && s->mode != MODE_BENCH)
        return tool_refuse(t, EXIT_USAGE, "--profile goes with --train, --eval, --infer and --bench");
    if (s->profile) { /* it is put in place by renaming: a device would be replaced */
        int code = rundir_check_writable(t, "profile", s->profile);
        if (code)
            return code;
    }
    if (s->mode == MODE_REPORT)
        return 0; /* a folder, not a model: nothing else is looked at */
    char word[64], known[128];
    if (log_unknown(s->log, word, sizeof word))
        return tool_refuse(t, EXIT_USAGE, "--log: '%s' is none of %s", word, log_known(known, sizeof known));
    if (options_given(s, "log") && !s->output_dir)
        tool_note(t, "--log has no effect: logs are written to the folder of --output-dir");
    if (s->val && s->val_split > 0)
        return tool_refuse(t, EXIT_USAGE, "--val and --val-split exclude each other");
    if (s->new_head > 0 && s->mode != MODE_TRAIN && s->mode != MODE_CHECK && s->mode != MODE_EXPLAIN)
        return tool_refuse(t, EXIT_USAGE, "--new-head goes with --train, --check and --explain: a head that was not trained says nothing");
    if (s->freeze && s->train_only)
        return tool_refuse(t, EXIT_USAGE, "--freeze and --train-only exclude each other");
    if (s->opt_betas.n != 2)
        return tool_refuse(t, EXIT_USAGE, "--opt-betas takes two numbers");
    if (s->smoothing > 0 && strcmp(s->loss, "ce") != 0)
        return tool_refuse(t, EXIT_USAGE, "--smoothing needs --loss ce");
    if (s->opt_lr_decay > 0 && strcmp(s->opt, "adagrad") != 0)
        return tool_refuse(t, EXIT_USAGE, "--opt-lr-decay is for --opt adagrad");
    if (s->nesterov && s->momentum <= 0)
        return tool_refuse(t, EXIT_USAGE, "--nesterov needs a --momentum above 0");
    if (options_given(s, "epochs") && s->epochs == 0 && s->max_steps == 0)
        return tool_refuse(t, EXIT_USAGE, "--epochs 0 needs --max-steps");
    int code = tool_check_method(t);
    return code ? code : check_forgetting(t);
}

/* ---- model ---- */

/* "*" and "?" as the library matches them. */
static bool matches(const char *pattern, size_t n, const char *name)
{
    size_t p = 0, star = n, mark = 0, i = 0;
    while (name[i]) {
        if (p < n && pattern[p] == '*') {
            star = p++;
            mark = i;
        } else if (p < n && (pattern[p] == '?' || pattern[p] == name[i])) {
            p++;
            i++;
        } else if (star < n) {
            p = star + 1;
            i = ++mark;
        } else {
            return false;
        }
    }
    while (p < n && pattern[p] == '*')
        p++;
    return p == n;
}

/* A pattern that matches nothing is a typing error that would change the result silently. */
static int check_patterns(tool *t, const char *which, const char *patterns)
{
    for (const char *word = patterns; word && *word;) {
        size_t n = strcspn(word, ",");
        bool any = false;
        for (int i = 0; i < mest_model_parameter_count(t->model) && !any; i++) {
            mest_tensor_info info = {.struct_size = sizeof info};
            any = mest_model_parameter(t->model, i, &info, NULL) == MEST_OK && matches(word, n, info.name);
        }
        if (!any)
            return tool_refuse(t, EXIT_USAGE, "--%s: '%.*s' matches no parameter; --info lists their names", which, (int)n, word);
        word += n + (word[n] == ',');
    }
    return 0;
}

static int freeze(tool *t, const char *patterns, bool on)
{
    for (const char *word = patterns; word && *word;) {
        char pattern[512];
        mest_error err = {0};
        size_t n = strcspn(word, ",");
        if (n >= sizeof pattern)
            return tool_refuse(t, EXIT_USAGE, "a pattern of %zu characters is too long", n);
        memcpy(pattern, word, n);
        pattern[n] = 0;
        if (n > 0 && mest_model_freeze(t->model, pattern, on, NULL, &err) != MEST_OK)
            return tool_fail(t, STAGE_PREPARE, &err);
        word += n + (word[n] == ',');
    }
    return 0;
}

/* --new-head. Models that are not trained have the head of their file. */
static int new_head(tool *t)
{
    const settings *s = t->s;
    mest_error err = {0};
    if (s->new_head <= 0)
        return 0;
    t->head.struct_size = sizeof t->head;
    if (mest_model_new_head(t->model, s->output_name, s->new_head, (uint64_t)s->seed, &t->head, &err) != MEST_OK)
        return tool_fail(t, STAGE_MODEL, &err);
    if (!t->told_head)
        tool_note(t, "new head: %s '%s' has %" PRId64 " classes instead of %" PRId64 "; '%s'%s%s%s drawn with --seed %" PRId64, t->head.op, report_plain(t->head.node).s, s->new_head,
                  t->head.classes_before, report_plain(t->head.weight).s, t->head.bias ? " and '" : "", t->head.bias ? report_plain(t->head.bias).s : "", t->head.bias ? "'" : "",
                  s->seed);
    t->told_head = true;
    return 0;
}

static bool is_listed(const char *list, const char *name)
{
    for (const char *word = list; word && *word; word += strcspn(word, ","), word += *word == ',')
        if (strcspn(word, ",") == strlen(name) && !strncmp(word, name, strlen(name)))
            return true;
    return false;
}

/* A head that was asked for is to learn, whatever patterns say of the layers that came with the file; but --freeze may name it in full. */
static int thaw_head(tool *t)
{
    const char *names[] = {t->head.weight, t->head.bias};
    mest_error err = {0};
    for (int i = 0; i < 2; i++)
        if (names[i] && !is_listed(t->s->freeze, names[i]) && mest_model_freeze(t->model, names[i], false, NULL, &err) != MEST_OK)
            return tool_fail(t, STAGE_PREPARE, &err);
    return 0;
}

/* --bn unfold, where something is trained or planned. Without it, somebody who trains is told. */
static int unfold(tool *t)
{
    const settings *s = t->s;
    const int n = mest_model_folded_count(t->model);
    mest_folded_info first = {.struct_size = sizeof first};
    mest_error err = {0};
    bool asked = strcmp(s->bn, "unfold") == 0;
    if (n > 0 && mest_model_folded(t->model, 0, &first, &err) != MEST_OK)
        return tool_fail(t, STAGE_MODEL, &err);
    if (!asked || (s->mode != MODE_TRAIN && s->mode != MODE_CHECK && s->mode != MODE_EXPLAIN)) {
        if (s->mode == MODE_TRAIN && first.sign)
            tool_note(t, "BatchNormalization was folded into %d Conv nodes at export (%s, '%s'): --bn unfold trains with it", n, first.sign, first.weight);
        return 0;
    }
    if (n == 0)
        return tool_refuse(t, EXIT_MODEL, "--bn unfold: no Conv of the model looks as if a BatchNormalization had been folded into it");
    if (mest_model_unfold_batch_norm(t->model, NULL, &err) != MEST_OK)
        return tool_fail(t, STAGE_MODEL, &err);
    if (!t->told_unfold)
        tool_note(t, "BatchNormalization unfolded behind %d Conv nodes (%s); it is folded again in what is written", n, first.sign ? first.sign : "they look so");
    t->told_unfold = true;
    return 0;
}

int tool_load_model(tool *t)
{
    const settings *s = t->s;
    mest_model_options options;
    mest_error err = {0};
    mest_model_options_init(&options);
    options.allocator = s->memory_limit > 0 ? &t->allocator : NULL;
    options.logger = &t->logger;
    options.tolerant = s->mode == MODE_CHECK;
    options.trainable = s->trainable;
    if (mest_model_load(&t->model, s->model, &options, &err) != MEST_OK)
        return tool_fail(t, STAGE_MODEL, &err);
    int done = new_head(t);
    if (done == 0)
        done = unfold(t);
    if (done)
        return done;
    bool names = strcmp(s->dense_layers, "auto") != 0 && strcmp(s->dense_layers, "none") != 0;
    int code = check_patterns(t, "freeze", s->freeze);
    if (code == 0)
        code = check_patterns(t, "train-only", s->train_only);
    if (code == 0)
        code = check_patterns(t, "no-decay", s->no_decay);
    if (code == 0 && names)
        code = check_patterns(t, "dense-layers", s->dense_layers);
    if (code == 0 && s->train_only)
        code = freeze(t, "*", true);
    if (code == 0)
        code = s->train_only ? freeze(t, s->train_only, false) : freeze(t, s->freeze, true);
    return code ? code : thaw_head(t);
}

/* auto may choose pattern */
static bool has_masks(const char *schemes) { return strstr(schemes, "pattern") || strstr(schemes, "auto"); }

/* Options that say how weights become sparse, where nothing says how much; tell: a note for each. */
static bool idle_sparsity(tool *t, bool tell)
{
    static const char *const how[] = {"scheme", "distribution", "patterns", "dense-layers", "start-dense"};
    bool any = false;
    for (size_t i = 0; i < sizeof how / sizeof *how; i++)
        if (!tool_wants_sparsity(t->s) && options_given(t->s, how[i])) {
            if (tell)
                tool_note(t, "--%s has no effect: without --sparsity, --ratios or --rules no weight is made sparse", how[i]);
            any = true;
        }
    if (tell && tool_wants_sparsity(t->s) && t->s->ratios && options_given(t->s, "sparsity"))
        tool_note(t, "--sparsity has no effect: --ratios says it for each weight, and all others stay dense");
    if (tell && tool_wants_sparsity(t->s) && t->s->patterns && !has_masks(t->s->scheme) && !(t->s->rules && has_masks(t->s->rules)))
        tool_note(t, "--patterns has no effect: neither --scheme nor --rules names the scheme pattern");
    return any;
}

int tool_sparsify(tool *t)
{
    const settings *s = t->s;
    mest_sparsity how;
    mest_error err = {0};
    const bool idle = idle_sparsity(t, false); /* a name that is wrong is an error all the same */
    if (!tool_wants_sparsity(s) && !s->from_scratch && !idle)
        return 0;
    mest_sparsity_init(&how);
    how.scheme = s->scheme;
    how.sparsity = tool_scheme_says(s) ? -1 : s->sparsity;
    how.distribution = s->distribution;
    how.ratios = s->ratios;
    how.patterns = s->patterns;
    how.dense_layers = s->dense_layers;
    how.rules = s->rules;
    how.from_scratch = s->from_scratch;
    how.seed = (uint64_t)s->seed;
    how.start_dense = tool_starts_dense(s);
    how.tune = s->tune;
    if (mest_model_sparsify(t->model, &how, &err) != MEST_OK)
        return tool_fail(t, STAGE_PREPARE, &err);
    idle_sparsity(t, true);
    t->sparsified = tool_wants_sparsity(s);
    return 0;
}

/* ---- session ---- */

int tool_create_guest(tool *t)
{
    const settings *s = t->s;
    mest_guest_options o;
    mest_error err = {0};
    mest_guest_options_init(&o);
    o.time_limit = s->time_limit;
    o.cpu_share = s->cpu_share / 100;
    o.pause_file = s->pause_file;
    o.min_battery = s->min_battery;
    o.max_temperature = s->max_temp;
    o.sys_root = s->sys_root;
    if (o.time_limit <= 0 && o.cpu_share >= 1 && !o.pause_file && o.min_battery <= 0 && o.max_temperature <= 0)
        return 0;
    if (mest_guest_create(&t->guest, &o, &err) != MEST_OK)
        return tool_refuse(t, EXIT_USAGE, "%s", err.msg);
    return 0;
}

static bool micro_batch(const char *text, int64_t *samples)
{
    char *end;
    *samples = strcmp(text, "off") == 0 ? -1 : 0;
    if (*samples || strcmp(text, "auto") == 0)
        return true;
    *samples = strtoll(text, &end, 10);
    return end != text && !*end && *samples > 0;
}

/* Without -b: the usual number of samples, or the one that the file fixes and cannot be freed from. */
static void choose_batch(tool *t)
{
    mest_error why = {0};
    const int64_t wanted = t->config.batch, batch = mest_model_batch(t->model, wanted, &why);
    if (batch == wanted)
        return;
    t->config.batch = batch;
    if (!t->told_batch)
        tool_note(t, "-b %" PRId64 ": the file fixes its batch at that and cannot be taken for another (%s); exported with a dynamic batch axis it could", batch, why.msg);
    t->told_batch = true;
}

int tool_create_session(tool *t)
{
    const settings *s = t->s;
    mest_train_config *c = &t->config;
    mest_error err = {0};
    bool adam = strncmp(s->opt, "adam", 4) == 0; /* adamw, too */
    mest_train_config_init(c);
    c->batch = s->batch;
    c->eval_batch = s->eval_batch;
    c->shuffle = !s->no_shuffle;
    c->drop_last = s->drop_last;
    /* --max-steps alone counts steps, over as many epochs as they take; a plan is no run and has none unless they are said. */
    const bool plan = s->mode == MODE_EXPLAIN || s->mode == MODE_CHECK;
    c->epochs = (plan || s->max_steps > 0) && !options_given(s, "epochs") ? 0 : s->epochs;
    c->max_steps = s->max_steps;
    c->loss = s->loss;
    c->label_smoothing = s->smoothing;
    c->ignore_index = s->ignore_index;
    c->optimizer = s->opt;
    c->lr = !isnan(s->lr) ? s->lr : adam ? 0.001 : 0.01;
    c->momentum = s->momentum;
    c->nesterov = s->nesterov;
    c->weight_decay = s->weight_decay;
    c->beta1 = s->opt_betas.v[0];
    c->beta2 = s->opt_betas.v[1];
    c->eps = isnan(s->opt_eps) ? -1 : s->opt_eps;
    c->lr_decay = s->opt_lr_decay;
    c->no_decay = s->no_decay;
    c->clip_norm = s->clip_grad;
    c->schedule = s->sched;
    c->min_lr = s->min_lr;
    c->gamma = s->decay_rate;
    c->step_epochs = s->decay_epochs;
    c->warmup_epochs = s->warmup_epochs;
    c->warmup_lr = s->warmup_lr;
    c->schedule_per_step = s->sched_on_updates;
    c->output = s->output_name;
    c->batch_norm = strcmp(s->bn, "unfold") == 0 ? "auto" : s->bn;
    c->bn_stats = s->bn_stats;
    c->dropout = isnan(s->drop) ? -1 : s->drop;
    c->threads = (int)s->threads;
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (cores > 0 && s->threads > cores)
        tool_note(t, "--threads %d on %ld core%s: threads that wait for a core make it slower", (int)s->threads, cores, cores == 1 ? "" : "s");
    c->seed = (uint64_t)s->seed;
    c->kernels = s->kernels;
    c->watch_patterns = s->json || s->output_dir; /* its numbers stand in events only */
    c->use_xnnpack = !s->no_xnnpack;
    c->no_fuse = s->no_fuse;
    c->tune = s->tune;
    c->nice = s->nice;
    if (s->mode == MODE_GRADCHECK)
        tool_gradcheck_config(s, c);
    if (!options_given(s, "batch-size"))
        choose_batch(t);
    if (!micro_batch(s->micro_batch, &c->micro_batch))
        return tool_refuse(t, EXIT_USAGE, "--micro-batch %s is neither auto nor off nor a number of samples that divides %" PRId64, s->micro_batch, c->batch);
    c->recompute = s->recompute;
    c->activations = s->activations;
    c->freeze_front = s->freeze_front;
    c->memory_limit = s->memory_limit;
    c->recipe = t->data.info ? t->recipe : NULL;
    if (mest_session_create(&t->session, t->model, c, &err) != MEST_OK)
        return tool_fail(t, STAGE_PREPARE, &err);
    /* shapes of the samples decide what a file leaves open, before anything is planned */
    if (t->data.info && mest_session_expect(t->session, &t->data_info, &err) != MEST_OK)
        return tool_fail(t, STAGE_DATA, &err);
    return 0;
}
