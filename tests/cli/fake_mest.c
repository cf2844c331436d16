/* SPDX-License-Identifier: Apache-2.0 */
/* A library that only pretends: the public functions with canned behaviour, so that the command line (options, progress, exit codes,
 * signals, files) is tested in milliseconds and in situations that are hard to bring about for real.
 *
 *   a model   a file that begins with "FAKE"; it has input x[?,4], output y[?,3], parameters fc1.weight[8,4], fc1.bias, fc2.weight, mask
 *   a source  any of the known kinds; 100 samples of 4 numbers, 3 classes; the path "missing", "damaged", "narrow" (3 numbers),
 *             "eleven" (11 classes), "float" (float targets), "bare" (no targets), "named" (class names) decides otherwise
 *   FAKE_FAIL     FUNCTION=STATUS: that function fails, as mest_session_train=8
 *   FAKE_STEP_MS  duration of a training step
 *   FAKE_ECHO     file to which what arrives (configuration, source options, schedulers, ...) is appended as "key value" lines
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fake.h"

mest_status fail(mest_error *err, mest_status status, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    if (err) {
        err->code = status;
        vsnprintf(err->msg, sizeof err->msg, format, list);
    }
    va_end(list);
    return status;
}

bool asked(const char *function, mest_status *status, mest_error *err)
{
    const char *wish = getenv("FAKE_FAIL");
    size_t n = strlen(function);
    if (!wish || strncmp(wish, function, n) != 0 || wish[n] != '=')
        return false;
    *status = (mest_status)atoi(wish + n + 1);
    fail(err, *status, "%s was asked to fail", function);
    return true;
}

void echo(const char *format, ...)
{
    const char *path = getenv("FAKE_ECHO");
    FILE *file = path ? fopen(path, "a") : NULL;
    va_list list;
    if (!file)
        return;
    va_start(list, format);
    vfprintf(file, format, list);
    va_end(list);
    fputc('\n', file);
    fclose(file);
}

/* ---- base ---- */

const char *mest_status_text(mest_status status)
{
    switch (status) {
#define TEXT(name, value, text) \
    case name: return text;
        MEST_STATUS_LIST(TEXT)
#undef TEXT
    }
    return "unknown status";
}

int mest_version(void) { return MEST_VERSION; }

/* ---- model ---- */

void mest_model_options_init(mest_model_options *options) { *options = (mest_model_options){.struct_size = sizeof *options}; }

mest_status mest_model_load(mest_model **model, const char *path, const mest_model_options *options, mest_error *err)
{
    char begin[5] = "";
    *model = NULL;
    MAY_FAIL(err);
    FILE *file = fopen(path, "rb");
    if (!file)
        return fail(err, MEST_E_IO, "%s: %s", path, strerror(errno));
    size_t n = fread(begin, 1, 4, file);
    fclose(file);
    if (n != 4 || memcmp(begin, "FAKE", 4) != 0)
        return fail(err, MEST_E_FORMAT, "%s: damaged at byte 0", path);
    if (options && options->logger && options->logger->log)
        options->logger->log(options->logger->user, MEST_LOG_INFO, "a note of the library");
    if (options && options->allocator) {
        void *memory = options->allocator->allocate(options->allocator->user, 2000000, 64);
        if (!memory)
            return fail(err, MEST_E_NOMEM, "%s: no memory for 2000000 bytes", path);
        options->allocator->release(options->allocator->user, memory, 2000000);
    }
    *model = calloc(1, sizeof **model);
    if (!*model)
        return fail(err, MEST_E_NOMEM, "no memory");
    snprintf((*model)->scheme, sizeof (*model)->scheme, "dense");
    return MEST_OK;
}

void mest_model_destroy(mest_model *model) { free(model); }

int mest_model_parameter_count(const mest_model *model) { return model ? N_PARAMETERS : 0; }

mest_status mest_model_parameter(const mest_model *model, int index, mest_tensor_info *info, mest_error *err)
{
    static const char *const names[N_PARAMETERS] = {"fc1.weight", "fc1.bias", "fc2.weight", "mask"};
    MAY_FAIL(err);
    bool weight = index == 0 || index == 2;
    *info = (mest_tensor_info){.struct_size = sizeof *info, .name = names[index], .dtype = 1, .rank = weight ? 2 : 1};
    info->dim[0] = index == 2 ? 3 : 8;
    info->dim[1] = index == 2 ? 8 : 4;
    info->role = index == 3 ? MEST_ROLE_CONSTANT : model->frozen[index] ? MEST_ROLE_FROZEN : MEST_ROLE_TRAINABLE;
    info->role_reason = index == 3 ? "operand of Mul" : "weight of Gemm '/fc/Gemm'";
    info->scheme = index == 0 ? model->scheme : "dense";
    info->sparsity = index == 0 ? model->sparsity : 0;
    info->stored = (int64_t)((double)(info->dim[0] * (weight ? info->dim[1] : 1)) * (1 - info->sparsity) + 0.5);
    return MEST_OK;
}

int mest_model_input_count(const mest_model *model) { return model ? 1 : 0; }

mest_status mest_model_input(const mest_model *model, int index, mest_tensor_info *info, mest_error *err)
{
    (void)model;
    (void)index;
    MAY_FAIL(err);
    *info = (mest_tensor_info){.struct_size = sizeof *info, .name = "x", .dtype = 1, .rank = 2, .dim = {-1, 4}};
    return MEST_OK;
}

int mest_model_output_count(const mest_model *model) { return model ? 1 : 0; }

mest_status mest_model_output(const mest_model *model, int index, mest_tensor_info *info, mest_error *err)
{
    (void)model;
    (void)index;
    MAY_FAIL(err);
    *info = (mest_tensor_info){.struct_size = sizeof *info, .name = "y\xff\"", .dtype = 1, .rank = 2, .dim = {-1, 3}};
    return MEST_OK;
}

mest_status mest_model_summarize(const mest_model *model, mest_model_summary *summary, mest_error *err)
{
    (void)model;
    MAY_FAIL(err);
    *summary = (mest_model_summary){.struct_size = sizeof *summary, .ir_version = 8, .opset = 17, .producer = "fake", .graph_name = "g",
                                    .file_bytes = 4, .n_nodes = 3, .n_trainable = 3, .n_constants = 1, .trainable_elements = 64};
    return MEST_OK;
}

const char *mest_model_metadata(const mest_model *model, const char *key)
{
    return model && strcmp(key, "mest.normalisation") == 0 ? getenv("FAKE_NORMALISATION") : NULL;
}

mest_status mest_model_freeze(mest_model *model, const char *pattern, bool freeze, int *n_matched, mest_error *err)
{
    MAY_FAIL(err);
    echo("freeze %s %d", pattern, freeze);
    for (int i = 0; i < N_PARAMETERS; i++)
        model->frozen[i] = freeze;
    if (n_matched)
        *n_matched = N_PARAMETERS;
    return MEST_OK;
}

void mest_sparsity_init(mest_sparsity *s) { *s = (mest_sparsity){.struct_size = sizeof *s, .scheme = "csr", .dense_layers = "auto"}; }

mest_status mest_model_sparsify(mest_model *model, const mest_sparsity *s, mest_error *err)
{
    MAY_FAIL(err);
    echo("sparsity %g %s dense_layers=%s rules=%s from_scratch=%d seed=%" PRIu64, s->sparsity, s->scheme, s->dense_layers,
         s->rules ? s->rules : "", s->from_scratch, s->seed);
    if (strcmp(s->distribution, "uniform") || s->ratios || s->patterns)
        echo("layers distribution=%s ratios=%s patterns=%s", s->distribution, s->ratios ? s->ratios : "", s->patterns ? s->patterns : "");
    echo("start_dense=%d", s->start_dense);
    model->sparsity = s->sparsity;
    snprintf(model->scheme, sizeof model->scheme, "%s", s->scheme);
    return MEST_OK;
}

mest_status mest_model_export(const mest_model *model, const char *path, const mest_export_options *options, mest_error *err)
{
    MAY_FAIL(err);
    FILE *file = fopen(path, "wb");
    if (!file)
        return fail(err, MEST_E_IO, "%s: %s", path, strerror(errno));
    fprintf(file, "FAKE sparse=%d sparsity=%g form=%s\n", options->sparse, model->sparsity, options->form ? options->form : "");
    for (int i = 0; options->metadata && options->metadata[i]; i += 2)
        fprintf(file, "%s=%s\n", options->metadata[i], options->metadata[i + 1]);
    return fclose(file) == 0 ? MEST_OK : fail(err, MEST_E_IO, "%s: %s", path, strerror(errno));
}

/* ---- session ---- */

void mest_train_config_init(mest_train_config *c)
{
    *c = (mest_train_config){.struct_size = sizeof *c, .batch = 32, .shuffle = true, .epochs = 1, .loss = "ce", .optimizer = "sgd",
                             .lr = 0.01, .momentum = 0.9, .schedule = "constant", .batch_norm = "auto", .bn_stats = "pytorch", .dropout = -1, .kernels = "auto"};
}

void mest_run_options_init(mest_run_options *o)
{
    *o = (mest_run_options){.struct_size = sizeof *o, .validate_every = 1, .checkpoint_every_epochs = 1};
}

mest_status mest_session_create(mest_session **session, mest_model *model, const mest_train_config *c, mest_error *err)
{
    *session = NULL;
    MAY_FAIL(err);
    *session = calloc(1, sizeof **session);
    if (!*session)
        return fail(err, MEST_E_NOMEM, "no memory");
    (*session)->model = model;
    (*session)->config = *c;
    echo("config batch=%" PRId64 " eval_batch=%" PRId64 " shuffle=%d drop_last=%d epochs=%" PRId64 " max_steps=%" PRId64 " loss=%s smoothing=%g",
         c->batch, c->eval_batch, c->shuffle, c->drop_last, c->epochs, c->max_steps, c->loss, c->label_smoothing);
    echo("optimizer %s lr=%g momentum=%g nesterov=%d wd=%g betas=%g,%g eps=%g no_decay=%s clip=%g lr_decay=%g", c->optimizer, c->lr, c->momentum,
         c->nesterov, c->weight_decay, c->beta1, c->beta2, c->eps, c->no_decay ? c->no_decay : "", c->clip_norm, c->lr_decay);
    echo("schedule %s min_lr=%g gamma=%g step_epochs=%" PRId64 " warmup=%" PRId64 ":%g per_step=%d", c->schedule, c->min_lr, c->gamma,
         c->step_epochs, c->warmup_epochs, c->warmup_lr, c->schedule_per_step);
    echo("tune %s nice=%d", c->tune, c->nice);
    echo("machine bn=%s,%s dropout=%g threads=%d seed=%" PRIu64 " kernels=%s xnnpack=%d no_fuse=%s recompute=%s", c->batch_norm, c->bn_stats, c->dropout,
         c->threads, c->seed, c->kernels, c->use_xnnpack, c->no_fuse ? c->no_fuse : "", c->recompute);
    return MEST_OK;
}

void mest_session_destroy(mest_session *session) { free(session); }

mest_status mest_session_add_scheduler(mest_session *session, const char *name, const char *options, mest_error *err)
{
    (void)session;
    MAY_FAIL(err);
    echo("scheduler %s %s", name, options ? options : "");
    if (strchr(name, '/'))
        return fail(err, MEST_E_PLUGIN, "%s: cannot open shared object", name);
    return MEST_OK;
}

const char *mest_scheduler_builtin(int index, const char **summary, const char **options)
{
    static const char *const names[] = {"mest", "rigl", "snip"};
    if (summary)
        *summary = "pretends";
    if (options)
        *options = index == 0 ? "freq=5      epochs between mutations\nmode=em    how" : index == 1 ? "rate=.3   part\nevery=100  steps" : "scope=global   of all";
    return index < 3 ? names[index] : NULL;
}

unsigned mest_scheduler_flags(const char *name) { return !strcmp(name, "snip") ? 3 : !strcmp(name, "rigl") || !strcmp(name, "mest") ? 1 : 0; }

static bool tell(mest_session *s, const mest_run_options *o, mest_event *e)
{
    e->struct_size = sizeof *e;
    e->sparsity = s->model->sparsity;
    e->lr = s->config.lr;
    e->peak_bytes = 1234567;
    e->n_samples = e->active_samples = 100;
    return o->progress ? o->progress(o->progress_user, e) : true;
}

static void pause_step(void)
{
    const char *text = getenv("FAKE_STEP_MS");
    long ms = text ? atol(text) : 0;
    struct timespec wait = {ms / 1000, ms % 1000 * 1000000};
    if (ms >= 1000)
        echo("a long step begins");
    while (nanosleep(&wait, &wait) != 0 && errno == EINTR)
        ;
}

mest_status mest_session_checkpoint(mest_session *session, const char *path, mest_error *err)
{
    MAY_FAIL(err);
    FILE *file = fopen(path, "w");
    if (!file)
        return fail(err, MEST_E_IO, "%s: %s", path, strerror(errno));
    fprintf(file, "step %" PRId64 "\n", session->steps);
    fclose(file);
    return MEST_OK;
}

mest_status mest_session_resume(mest_session *session, const char *path, mest_error *err)
{
    MAY_FAIL(err);
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "step %" SCNd64, &session->steps) != 1) {
        if (file)
            fclose(file);
        return fail(err, MEST_E_FORMAT, "%s: not a checkpoint", path);
    }
    fclose(file);
    echo("resumed %" PRId64, session->steps);
    return MEST_OK;
}

void mest_session_position(const mest_session *session, int64_t *epochs, int64_t *steps)
{
    *epochs = session->steps / ((100 + session->config.batch - 1) / session->config.batch);
    *steps = session->steps;
}

mest_status mest_session_train(mest_session *s, const mest_source *source, const mest_run_options *o, mest_error *err)
{
    const fake_source *f = source->self;
    int64_t per = (f->count + s->config.batch - 1) / s->config.batch;
    int64_t total = s->config.epochs > 0 ? per * s->config.epochs : s->config.max_steps;
    if (s->config.max_steps > 0 && total > s->config.max_steps)
        total = s->config.max_steps;
    MAY_FAIL(err);
    while (s->steps < total) {
        pause_step();
        mest_event e = {.kind = MEST_EVENT_STEP, .epoch = s->steps / per, .n_epochs = s->config.epochs, .step = s->steps % per + 1,
                        .n_steps = per, .total_step = ++s->steps, .n_total_steps = total};
        e.batch = e.train = (mest_metrics){.loss = 2.0 / (double)(s->steps + 1), .accuracy = 0.5, .samples = s->config.batch, .steps = 1,
                                           .seconds = 0.001};
        bool go = tell(s, o, &e) && !s->cancelled;
        if (go && e.step == per) {
            e.kind = MEST_EVENT_MUTATION;
            e.removed = e.grown = 2;
            tell(s, o, &e);
            e.kind = MEST_EVENT_EPOCH;
            mest_event batch = {.kind = MEST_EVENT_EVALUATION, .step = 1, .n_steps = 1};
            if (o->validation)
                tell(s, o, &batch);
            if (o->validation)
                e.validation = (mest_metrics){.loss = 0.25, .accuracy = 0.875, .samples = 20, .steps = 1, .seconds = 0.01};
            tell(s, o, &e);
            if (o->checkpoint_path && mest_session_checkpoint(s, o->checkpoint_path, err) != MEST_OK)
                return err->code;
        }
        if (!go) {
            if (o->checkpoint_path && mest_session_checkpoint(s, o->checkpoint_path, err) != MEST_OK)
                return err->code;
            return fail(err, MEST_E_CANCELLED, "cancelled after step %" PRId64, s->steps);
        }
    }
    return MEST_OK;
}

mest_status mest_session_evaluate(mest_session *s, const mest_source *source, const mest_run_options *o, mest_metrics *m, mest_error *err)
{
    const fake_source *f = source->self;
    MAY_FAIL(err);
    mest_event e = {.kind = MEST_EVENT_EVALUATION, .step = 1, .n_steps = 1};
    if (o && !tell(s, o, &e))
        return fail(err, MEST_E_CANCELLED, "cancelled");
    *m = (mest_metrics){.struct_size = sizeof *m, .loss = 0.5 + s->model->sparsity, .accuracy = f->floats ? NAN : 0.75, .samples = f->count,
                        .steps = 1, .seconds = 0.01};
    return MEST_OK;
}

mest_status mest_session_expect(mest_session *session, const mest_source_info *info, mest_error *err)
{
    (void)session;
    (void)info;
    MAY_FAIL(err);
    return MEST_OK;
}

mest_status mest_session_output_shape(mest_session *session, int *rank, int64_t dim[MEST_MAX_RANK], mest_error *err)
{
    (void)session;
    MAY_FAIL(err);
    *rank = 1;
    dim[0] = 3;
    return MEST_OK;
}

void mest_session_cancel(mest_session *session) { session->cancelled = true; }

void mest_check_options_init(mest_check_options *o) { *o = (mest_check_options){.struct_size = sizeof *o}; }

mest_status mest_session_check(mest_session *session, const mest_check_options *o, mest_check_summary *v, mest_error *err)
{
    MAY_FAIL(err);
    bool good = !getenv("FAKE_UNTRAINABLE");
    mest_check_node n = {.struct_size = sizeof n, .index = 0, .name = "/fc1/Gemm", .op = "Gemm", .domain = "", .opset = 17, .forward = true,
                         .gradient = MEST_GRADIENT_YES, .kernel = "gemm_avx2", .backward = "gemm_grad_avx2", .why = "fastest", .forward_macs = 100, .backward_macs = 200};
    o->node(o->user, &n);
    n = (mest_check_node){.struct_size = sizeof n, .index = 1, .name = "odd", .op = "Odd", .domain = "my", .opset = 1, .forward = good, .gradient = good ? 0 : 2,
                          .why = "not supported", .change = "leave it out"};
    o->node(o->user, &n);
    mest_check_finding f = {.struct_size = sizeof f, .level = MEST_CHECK_WARNING, .text = "beware", .change = "do better"};
    o->finding(o->user, &f);
    *v = (mest_check_summary){.struct_size = sizeof *v, .trains = good, .n_nodes = 2, .n_no_forward = !good, .n_no_gradient = !good, .n_warnings = 1, .n_trainable = 4,
                              .planned = good, .plan = {.total_bytes = 1000000 + session->config.batch, .macs = 3000000}};
    return MEST_OK;
}

mest_status mest_session_explain(mest_session *session, mest_program_kind kind, int64_t batch,
                                 void (*node)(void *user, const mest_node_info *info), void *user, mest_plan_info *plan, mest_error *err)
{
    (void)session;
    MAY_FAIL(err);
    for (int i = 0; node && i < (kind == MEST_PROGRAM_TRAIN ? 3 : 1); i++) {
        static const char *const phases[] = {"forward", "backward", "update"};
        mest_node_info info = {.struct_size = sizeof info, .index = i, .name = "/fc1/Gemm", .op = "Gemm", .kernel = "gemm_csr_f32_avx2",
                               .why = "xnnpack: weight is sparse", .phase = phases[i], .inputs = "x[32,4]", .outputs = "y[32,3]",
                               .macs = 100, .bytes = 200};
        node(user, &info);
    }
    *plan = (mest_plan_info){.struct_size = sizeof *plan, .arena_bytes = 1000 * batch, .parameter_bytes = 2000, .optimizer_bytes = 3000,
                             .total_bytes = 5000 + 1000 * batch, .macs = 100 * batch, .n_nodes = 3, .n_file_nodes = 5, .n_folded_nodes = 4, .n_fused_nodes = 1};
    return MEST_OK;
}

mest_status mest_session_node_counts(mest_session *session, int64_t batch, mest_node_counts *counts, mest_error *err)
{
    (void)session;
    (void)batch;
    MAY_FAIL(err);
    *counts = (mest_node_counts){.struct_size = sizeof *counts, .file = 5, .folded = 4, .fused = 1};
    return MEST_OK;
}

mest_status mest_session_passes(mest_session *session, mest_program_kind kind, int64_t batch, void (*pass)(void *user, const mest_pass_info *info), void *user,
                                mest_error *err)
{
    (void)session;
    (void)kind;
    (void)batch;
    MAY_FAIL(err);
    pass(user, &(mest_pass_info){.struct_size = sizeof(mest_pass_info), .name = "gelu", .summary = "a chain as one node", .phase = "forward", .count = 2});
    pass(user, &(mest_pass_info){.struct_size = sizeof(mest_pass_info), .name = "silu", .summary = "another", .phase = "forward", .off = true});
    return MEST_OK;
}

mest_status mest_session_plan_memory(mest_session *session, const mest_source *source, const mest_run_options *options, mest_memory_plan *plan, mest_error *err)
{
    (void)source;
    (void)options;
    MAY_FAIL(err);
    *plan = (mest_memory_plan){.struct_size = sizeof *plan, .batch = session->config.batch, .arena_bytes = 4000, .live_bytes = 3900, .activation_bytes = 3000,
                               .gradient_bytes = 900, .weight_bytes = 2000, .heap_bytes = 9000, .base_bytes = 3000000, .outside_bytes = 50000,
                               .process_bytes = 3059000, .limit_bytes = session->config.memory_limit, .peak_node = "/fc1/Gemm", .peak_op = "Gemm",
                               .chosen = "2 nodes computed again"};
    return MEST_OK;
}

mest_status mest_session_memory_values(mest_session *session, mest_program_kind kind, int64_t batch, void (*value)(void *user, const mest_memory_value *value),
                                       void *user, mest_error *err)
{
    (void)session;
    (void)kind;
    MAY_FAIL(err);
    value(user, &(mest_memory_value){.struct_size = sizeof(mest_memory_value), .name = "h", .op = "Gemm", .kind = "activation", .bytes = 100 * batch, .born = 1, .dies = 3,
                                     .born_name = "/fc1/Gemm", .dies_name = "/fc1/grad", .at_peak = true});
    return MEST_OK;
}

void mest_guest_options_init(mest_guest_options *o) { *o = (mest_guest_options){.struct_size = sizeof *o, .cpu_share = 1, .poll_seconds = 1}; }
mest_status mest_guest_create(mest_guest **guest, const mest_guest_options *o, mest_error *err)
{
    MAY_FAIL(err);
    *guest = NULL;
    echo("time_limit %g\ncpu_share %g\npause_file %s\nmin_battery %g\nmax_temperature %g\nsys_root %s\n", o->time_limit, o->cpu_share,
         o->pause_file ? o->pause_file : "", o->min_battery, o->max_temperature, o->sys_root ? o->sys_root : "");
    return MEST_OK;
}
void mest_guest_destroy(mest_guest *guest) { (void)guest; }
bool mest_guest_time_over(const mest_guest *guest)
{
    (void)guest;
    return false;
}

void mest_process_memory(int64_t *current, int64_t *peak)
{
    if (current)
        *current = 1000000;
    if (peak)
        *peak = 5000000;
}

static void *take(void *user, size_t size, size_t align)
{
    (void)user;
    return aligned_alloc(align, (size + align - 1) / align * align);
}
static void give(void *user, void *memory, size_t size)
{
    (void)user;
    (void)size;
    free(memory);
}
void mest_allocator_default(mest_allocator *a) { *a = (mest_allocator){.struct_size = sizeof *a, .allocate = take, .release = give}; }

void mest_session_memory(const mest_session *session, int64_t *current_bytes, int64_t *peak_bytes)
{
    (void)session;
    if (current_bytes)
        *current_bytes = 1000000;
    if (peak_bytes)
        *peak_bytes = 2000000;
}

void mest_session_samples(const mest_session *session, int64_t *active, int64_t *total)
{
    (void)session;
    *active = *total = 100;
}

bool mest_session_pattern(const mest_session *session, int index, mest_pattern_info *info)
{
    (void)session;
    if (index > 0)
        return false;
    *info = (mest_pattern_info){.struct_size = sizeof *info, .name = "fc1.weight", .n_units = 8, .n_active = 4, .density = 0.5, .removed = 2, .grown = 2,
                                .earlier = 2, .survivors = 1, .distance = 0.25};
    return true;
}

/* Every second element of the weight. */
mest_status mest_model_entries(const mest_model *model, int index, int64_t first, int64_t n, int64_t *positions, int64_t *n_read, mest_error *err)
{
    int64_t all = 8 * 4 / 2;
    (void)model, (void)index, (void)err;
    *n_read = first >= all ? 0 : n < all - first ? n : all - first;
    for (int64_t i = 0; i < *n_read; i++)
        positions[i] = 2 * (first + i);
    return MEST_OK;
}
