/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/memory/nets.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const net nets[] = {
    {.name = "residual", .path = "residual", .loss = "ce", .rank = 3, .dim = {3, 16, 16}, .classes = 10, .batch_statistics = true},
    {.name = "dropout", .path = "dropout", .loss = "ce", .rank = 3, .dim = {3, 16, 16}, .classes = 10},
    {.name = "mixer", .path = "mixer", .loss = "ce", .rank = 3, .dim = {3, 16, 16}, .classes = 10},
    {.name = "mlp", .path = "mlp", .shared = true, .loss = "mse", .rank = 1, .dim = {8}, .target_rank = 1, .target_dim = {2}},
    {.name = "lenet5", .path = "lenet5", .shared = true, .loss = "ce", .rank = 3, .dim = {1, 28, 28}, .classes = 10},
    {.name = "resnet8", .path = "resnet8", .shared = true, .loss = "ce", .rank = 3, .dim = {3, 32, 32}, .classes = 10, .batch_statistics = true},
    {.name = "mobilenetv2", .path = "mobilenetv2", .shared = true, .loss = "ce", .rank = 3, .dim = {3, 32, 32}, .classes = 10, .batch_statistics = true},
    {.name = "dscnn1d", .path = "dscnn1d", .shared = true, .loss = "ce", .rank = 2, .dim = {10, 49}, .classes = 10, .batch_statistics = true},
    {.name = "unet", .path = "unet", .shared = true, .loss = "mse", .rank = 3, .dim = {2, 16, 16}, .target_rank = 3, .target_dim = {1, 16, 16},
     .batch_statistics = true},
    {.name = "vit", .path = "vit", .shared = true, .loss = "ce", .rank = 3, .dim = {3, 16, 16}, .classes = 10},
    {.name = "lstm", .path = "lstm", .shared = true, .loss = "ce", .rank = 1, .dim = {14}, .classes = 4, .tokens = 8},
    {.name = NULL},
};

void net_how_init(net_how *how)
{
    *how = (net_how){.samples = 40, .epochs = 2, .sparsity = 0.8};
    mest_train_config_init(&how->config);
    how->config.batch = 16;
    how->config.lr = 0.02;
    how->config.threads = 2;
}

const char *net_path(const net *n, char *path, size_t size)
{
    const char *shared = getenv("MEST_SHARED"), *here = getenv("MEST_MEMORY_MODELS");
    if (n->shared && !shared)
        return NULL;
    if (n->shared)
        snprintf(path, size, "%s/fixtures/%s/model.onnx", shared, n->path);
    else
        snprintf(path, size, "%s/%s.onnx", here ? here : "tests/memory/models", n->path);
    FILE *f = fopen(path, "rb");
    if (f)
        fclose(f);
    return f ? path : NULL;
}

/* ---- allocator ---- */
typedef struct watch { size_t now, peak; _Atomic long calls; } watch;

static void *take(void *user, size_t size, size_t align)
{
    watch *w = user;
    size_t now = __atomic_add_fetch(&w->now, size, __ATOMIC_SEQ_CST), peak = __atomic_load_n(&w->peak, __ATOMIC_SEQ_CST);
    while (now > peak && !__atomic_compare_exchange_n(&w->peak, &peak, now, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
    w->calls++;
    return aligned_alloc(align, (size + align - 1) / align * align);
}
static void give(void *user, void *p, size_t size)
{
    __atomic_sub_fetch(&((watch *)user)->now, size, __ATOMIC_SEQ_CST);
    free(p);
}

/* ---- samples: number k of sample id is a function of (id, k) ---- */
typedef net_samples samples;

static uint64_t mix(uint64_t x)
{
    x ^= x >> 31, x *= 0x7fb5d329728ea185u, x ^= x >> 27, x *= 0x81dadef4bc2dd44du;
    return x ^ x >> 33;
}
static int64_t product(const int64_t *dim, int rank)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dim[i];
    return n;
}
static mest_status info(void *self, mest_source_info *i, mest_error *err)
{
    const samples *s = self;
    (void)err;
    i->count = s->count;
    i->input_type = s->n->tokens ? MEST_SAMPLE_I64 : MEST_SAMPLE_F32;
    i->input_rank = s->n->rank;
    memcpy(i->input_dim, s->n->dim, sizeof s->n->dim);
    i->target_type = s->n->classes ? MEST_SAMPLE_I64 : MEST_SAMPLE_F32;
    i->target_rank = s->n->target_rank;
    memcpy(i->target_dim, s->n->target_dim, sizeof s->n->target_dim);
    i->n_classes = s->n->classes;
    i->has_targets = true;
    return MEST_OK;
}
static mest_status fetch(void *self, const int64_t *ids, int64_t n, const mest_fetch *how, void *inputs, void *targets, mest_error *err)
{
    const samples *s = self;
    const int64_t per = product(s->n->dim, s->n->rank), per_target = product(s->n->target_dim, s->n->target_rank);
    (void)how, (void)err;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < per; k++) {
            const uint64_t x = mix((uint64_t)ids[i] << 32 | (uint64_t)k);
            if (s->n->tokens)
                ((int64_t *)inputs)[i * per + k] = (int64_t)(x % (uint64_t)s->n->tokens);
            else
                ((float *)inputs)[i * per + k] = (float)((double)(x >> 11) / 9007199254740992.0 * 2 - 1);
        }
        for (int64_t k = 0; targets && k < per_target; k++) {
            const uint64_t x = mix(~((uint64_t)ids[i] << 32 | (uint64_t)k));
            if (s->n->classes)
                ((int64_t *)targets)[i] = (int64_t)(x % (uint64_t)s->n->classes);
            else
                ((float *)targets)[i * per_target + k] = (float)((double)(x >> 11) / 9007199254740992.0);
        }
    }
    return MEST_OK;
}

mest_source net_source(net_samples *s) { return (mest_source){.struct_size = sizeof(mest_source), .self = s, .info = info, .fetch = fetch}; }

/* ---- a run ---- */
typedef struct listener { watch *w; net_result *r; long last_calls; } listener;

static bool progress(void *user, const mest_event *e)
{
    listener *l = user;
    if (e->kind == MEST_EVENT_STEP) {
        if (e->step > 1 || e->n_steps == 1)
            l->r->calls_in_steps += l->w->calls - l->last_calls;
        l->last_calls = l->w->calls;
    } else if (e->kind == MEST_EVENT_EPOCH) {
        l->r->loss = e->train.loss;
    }
    return true;
}

mest_status net_read(const mest_model *m, net_result *r, mest_error *err)
{
    const int n = mest_model_parameter_count(m);
    r->weights = 14695981039346656037u;
    for (int i = 0; i < n; i++) {
        mest_tensor_info t = {.struct_size = sizeof t};
        mest_status status = mest_model_parameter(m, i, &t, err);
        if (status != MEST_OK)
            return status;
        const size_t count = (size_t)product(t.dim, t.rank);
        r->values = realloc(r->values, (r->n_values + count + 1) * sizeof *r->values);
        if (!r->values)
            exit(2);
        status = mest_model_read_parameter(m, i, r->values + r->n_values, count, err);
        if (status != MEST_OK)
            return status;
        r->n_values += count;
    }
    for (size_t i = 0; i < r->n_values; i++) {
        uint32_t bits;
        memcpy(&bits, &r->values[i], sizeof bits);
        r->weights = (r->weights ^ bits) * 1099511628211u;
    }
    return MEST_OK;
}

static mest_status train(const net *n, const net_how *how, net_result *r, watch *w, mest_error *err)
{
    mest_allocator allocator = {sizeof allocator, w, take, give};
    mest_model_options mo;
    mest_model_options_init(&mo);
    mo.allocator = &allocator;
    mest_model *m = NULL;
    mest_session *s = NULL;
    mest_sparsity sp;
    mest_sparsity_init(&sp);
    sp.scheme = how->scheme;
    sp.sparsity = how->sparsity;
    mest_train_config c = how->config;
    c.loss = n->loss;
    c.epochs = how->epochs;
    samples data = {n, how->samples}, held = {n, how->samples / 2 + 3};
    mest_source source = net_source(&data), validation = net_source(&held);
    listener l = {w, r, 0};
    mest_run_options o;
    mest_run_options_init(&o);
    o.progress = progress;
    o.progress_user = &l;
    o.validation = how->validate ? &validation : NULL;
    char path[600];
    mest_status status = mest_model_load(&m, net_path(n, path, sizeof path), &mo, err);
    if (status == MEST_OK && how->scheme)
        status = mest_model_sparsify(m, &sp, err);
    if (status == MEST_OK)
        status = mest_session_create(&s, m, &c, err);
    if (status == MEST_OK && how->scheduler)
        status = mest_session_add_scheduler(s, "mest", "mode=em,freq=1", err);
    if (status == MEST_OK && how->method)
        status = mest_session_add_scheduler(s, how->method, how->method_options, err);
    r->memory.struct_size = sizeof r->memory;
    if (status == MEST_OK && how->plan_first)
        status = mest_session_plan_memory(s, &source, &o, &r->memory, err);
    if (status == MEST_OK)
        status = mest_session_train(s, &source, &o, err);
    if (s)
        mest_session_position(s, NULL, &r->steps);
    if (status == MEST_OK)
        status = net_read(m, r, err);
    r->plan.struct_size = sizeof r->plan;
    r->peak = w->peak; /* what follows is the test's own curiosity */
    if (status == MEST_OK)
        status = mest_session_explain(s, MEST_PROGRAM_TRAIN, c.batch, NULL, NULL, &r->plan, err);
    mest_session_destroy(s);
    mest_model_destroy(m);
    return status;
}

mest_status net_train(const net *n, const net_how *how, net_result *r)
{
    watch w = {0};
    *r = (net_result){.weights = 0};
    const mest_status status = train(n, how, r, &w, &r->error);
    r->now = w.now;
    return status;
}

mest_status net_half(const net *n, const mest_train_config *c, const char *from, const char *to, net_result *r)
{
    char path[600];
    mest_model *m = NULL;
    mest_session *s = NULL;
    samples data = {n, 38};
    const mest_source source = net_source(&data);
    mest_run_options o;
    mest_run_options_init(&o);
    *r = (net_result){.weights = 0};
    mest_status status = mest_model_load(&m, net_path(n, path, sizeof path), NULL, &r->error);
    if (status == MEST_OK)
        status = mest_session_create(&s, m, c, &r->error);
    if (status == MEST_OK && from)
        status = mest_session_resume(s, from, &r->error);
    o.max_epochs = to ? 1 : 0;
    r->memory.struct_size = sizeof r->memory;
    if (status == MEST_OK && c->memory_limit)
        status = mest_session_plan_memory(s, &source, NULL, &r->memory, &r->error);
    if (status == MEST_OK)
        status = mest_session_train(s, &source, &o, &r->error);
    if (status == MEST_OK && to)
        status = mest_session_checkpoint(s, to, &r->error);
    if (status == MEST_OK)
        status = net_read(m, r, &r->error);
    mest_session_destroy(s);
    mest_model_destroy(m);
    return status;
}

void net_result_free(net_result *r)
{
    free(r->values);
    r->values = NULL;
}

double net_distance(const net_result *a, const net_result *b)
{
    double d = 0, n = 0;
    if (a->n_values != b->n_values)
        return INFINITY;
    for (size_t i = 0; i < a->n_values; i++) {
        d += ((double)a->values[i] - (double)b->values[i]) * ((double)a->values[i] - (double)b->values[i]);
        n += (double)b->values[i] * (double)b->values[i];
    }
    return sqrt(d / (n > 0 ? n : 1));
}
