/* SPDX-License-Identifier: Apache-2.0 */
/* Whole runs of a small convolutional network, for every scheme and mode: the number of units after every mutation is that of the method,
 * what was reserved is the peak, a run that is cut after any epoch goes on to the same bytes, a learning rate of 0 (grown weights stay 0)
 * loses no unit, and the densest stages of soft memory bound come down to the target. */
#include <math.h>
#include <unistd.h>

#include "mest/train.h"
#include "runtime/channels.h"
#include "runtime/model.h"
#include "runtime/session.h"
#include "tests/onnx_write.h"

enum { C = 8, SIDE = 6, WIDTH = 16, CLASSES = 4, SAMPLES = 48, EPOCHS = 8 };

static int passed, failed;
static char what[120];

static bool check(bool ok, const char *claim, double got, double want)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL %s: %s: %.9g, must be %.9g\n", what, claim, got, want);
    return ok;
}

static mest_error err;
static void must(mest_status status, const char *call)
{
    if (status == MEST_OK)
        return;
    printf("FAIL %s: %s: %s\n", what, call, err.msg);
    exit(1);
}
#define MUST(call) must(call, #call)

static float pseudo(uint64_t i)
{
    const uint32_t state = (uint32_t)(i + 1) * 2654435761u;
    return (float)((double)(state >> 8) / (1 << 24) - 0.5) * 0.4f;
}

static void write_model(const char *path)
{
    onnx_bytes g = {0};
    onnx_node(&g, "Conv:x,a.weight,a.bias:h:pads=1/1/1/1,kernel_shape=3/3");
    onnx_node(&g, "Relu:h:r");
    onnx_node(&g, "Conv:r,b.weight:s:pads=1/1/1/1,kernel_shape=3/3,strides=2/2");
    onnx_node(&g, "Relu:s:t");
    onnx_node(&g, "Conv:t,c.weight:u:kernel_shape=1/1");
    onnx_node(&g, "Relu:u:v");
    onnx_node(&g, "GlobalAveragePool:v:p");
    onnx_node(&g, "Flatten:p:f:axis=1");
    onnx_node(&g, "MatMul:f,d.weight:y");
    onnx_weight(&g, "a.weight", 4, (int64_t[]){WIDTH, C, 3, 3}, pseudo);
    onnx_weight(&g, "a.bias", 1, (int64_t[]){WIDTH}, pseudo);
    onnx_weight(&g, "b.weight", 4, (int64_t[]){2 * WIDTH, WIDTH, 3, 3}, pseudo);
    onnx_weight(&g, "c.weight", 4, (int64_t[]){WIDTH, 2 * WIDTH, 1, 1}, pseudo);
    onnx_weight(&g, "d.weight", 2, (int64_t[]){WIDTH, CLASSES}, pseudo); /* inputs first */
    onnx_value(&g, 11, "x", 3, (int64_t[]){C, SIDE, SIDE});
    onnx_value(&g, 12, "y", 1, (int64_t[]){CLASSES});
    onnx_save(&g, path);
}

/* ---- data: each class has a direction ---- */
static mest_status info(void *self, mest_source_info *i, mest_error *e)
{
    (void)self, (void)e;
    const uint32_t size = i->struct_size;
    *i = (mest_source_info){.struct_size = size, .count = SAMPLES, .input_type = MEST_SAMPLE_F32, .input_rank = 3, .input_dim = {C, SIDE, SIDE}, .target_type = MEST_SAMPLE_I64,
                            .n_classes = CLASSES, .has_targets = true};
    return MEST_OK;
}

static mest_status fetch(void *self, const int64_t *ids, int64_t n, const mest_fetch *how, void *inputs, void *targets, mest_error *e)
{
    (void)self, (void)how, (void)e;
    for (int64_t k = 0; k < n; k++) {
        const int64_t id = ids[k], label = id % CLASSES;
        for (int i = 0; i < C * SIDE * SIDE; i++)
            ((float *)inputs)[k * C * SIDE * SIDE + i] = (float)sin(0.7 * (double)(i * (label + 1)) + 0.05 * (double)id);
        if (targets)
            ((int64_t *)targets)[k] = label;
    }
    return MEST_OK;
}

/* ---- a run ---- */
typedef struct mode { const char *name, *options; double rate[3], bound[3]; } mode;
static const mode modes[] = {
    {"vanilla", "mode=vanilla,rate=.3,freq=1", {.3, .3, .3}, {0}},
    {"em", "mode=em,lambda=.1,freq=1", {.2, .1, 0}, {0}},
    {"ems", "mode=ems,bound=.1/.05/0,freq=1", {0}, {.1, .05, 0}},
};

typedef struct run {
    mest_model *model;
    mest_session *session;
    const mode *mode;
    int64_t stop_after; /* epochs; -1: never */
    const char *method, *options; /* instead of MEST in a mode; "": none */
    bool start_dense;
} run;

static int stage_of(int64_t epoch) { return (double)epoch >= .75 * EPOCHS ? 2 : (double)epoch >= .5625 * EPOCHS ? 1 : 0; }

static void check_pattern(const mest_sparse *s, double sparsity, const char *claim)
{
    mest_error own = {MEST_OK, ""};
    check(s->active_units == mest_sparse_units_at(s, sparsity), claim, (double)s->active_units, (double)mest_sparse_units_at(s, sparsity));
    check(s->format->check(s, &own) == MEST_OK, own.msg, 0, 0);
    const int64_t span = s->group_units * s->choices;
    int64_t least = INT64_MAX, most = 0;
    for (int64_t g = 0; span && g < s->n_units / s->group_units; g++) {
        const int64_t n = mest_sparse_lower_bound(s, (g + 1) * span) - mest_sparse_lower_bound(s, g * span);
        least = n < least ? n : least;
        most = n > most ? n : most;
    }
    if (span)
        check(most - least <= (s->choices > 1 ? 0 : 1), "units of the fullest group beyond the emptiest", (double)(most - least), 1);
    if (!strncmp(s->name, "nm", 2) && sparsity >= mest_sparse_least_sparsity(s) - 1e-9)
        check(most <= s->scheme.n, "elements of an N:M group", (double)most, (double)s->scheme.n);
}

/* Weight k of those a scheduler sees: sparse parameters, then groups of channels. NULL: there are no more. */
static mest_sparse *pattern_of(const mest_model *m, int k, double *target)
{
    for (int i = 0; i < m->n_params; i++)
        if (m->params[i].sparse && k-- == 0) {
            *target = m->params[i].target_sparsity;
            return m->params[i].sparse;
        }
    if (!m->channels || k >= m->channels->n_groups)
        return NULL;
    *target = m->channels->group[k].target;
    return m->channels->group[k].units;
}

/* Parameters have the shapes of their groups, and no more values than that. */
static void check_shapes(const mest_model *m)
{
    for (int i = 0; i < m->n_params; i++) {
        const mest_param *p = &m->params[i];
        if (!p->axes)
            continue;
        int64_t count = p->shape.rank > 2 ? mest_shape_span(&p->shape, 2, p->shape.rank) : 1;
        for (int axis = 0; axis < 2 && axis < p->shape.rank; axis++) {
            int64_t n = p->axes->axis[axis].n_parts ? 0 : p->axes->file_shape.dim[axis];
            for (int32_t q = 0; q < p->axes->axis[axis].n_parts; q++) {
                const mest_channel_part *part = &p->axes->axis[axis].part[q];
                n += (part->group < 0 ? part->n : m->channels->group[part->group].units->active_units) * part->repeat;
            }
            check(p->shape.dim[axis] == n, "channels of a parameter", (double)p->shape.dim[axis], (double)n);
            count *= n;
        }
        check(p->count == count && p->count <= p->axes->room, "values of a parameter", (double)p->count, (double)count);
    }
}

static bool look(void *user, const mest_event *e)
{
    const run *r = user;
    const int st = stage_of(e->epoch);
    mest_sparse *s;
    double target;
    for (int k = 0; r->mode && e->kind == MEST_EVENT_EPOCH && (s = pattern_of(r->model, k, &target)); k++)
        check_pattern(s, target - r->mode->bound[st], "units in an epoch");
    if (e->kind == MEST_EVENT_EPOCH)
        check_shapes(r->model);
    return !(e->kind == MEST_EVENT_EPOCH && e->epoch + 1 == r->stop_after);
}

static void open_run(run *r, const char *path, const char *scheme, double sparsity, double lr, int threads)
{
    mest_sparsity how;
    mest_train_config c;
    mest_sparsity_init(&how);
    how.scheme = scheme;
    how.sparsity = sparsity;
    how.dense_layers = "none";
    how.seed = 5;
    how.from_scratch = true;
    how.start_dense = r->start_dense;
    mest_train_config_init(&c);
    c.batch = 16;
    c.epochs = EPOCHS;
    c.lr = lr;
    c.seed = 5;
    c.threads = threads;
    MUST(mest_model_load(&r->model, path, NULL, &err));
    MUST(mest_model_sparsify(r->model, &how, &err));
    MUST(mest_session_create(&r->session, r->model, &c, &err));
    if (!r->method || *r->method)
        MUST(mest_session_add_scheduler(r->session, r->method ? r->method : "mest", r->method ? r->options : r->mode->options, &err));
}

static void close_run(run *r)
{
    mest_session_destroy(r->session);
    mest_model_destroy(r->model);
}

typedef struct state { unsigned char bytes[1 << 19]; size_t n; } state;

static void append(state *s, const void *from, size_t n)
{
    if (s->n + n > sizeof s->bytes)
        exit(2);
    memcpy(s->bytes + s->n, from, n);
    s->n += n;
}

/* Values and patterns of everything. */
static void take(const run *r, state *s)
{
    s->n = 0;
    for (int i = 0; i < r->model->n_params; i++) {
        const mest_param *p = &r->model->params[i];
        append(s, mest_param_data(p), (size_t)mest_param_stored(p) * sizeof(mest_real));
        append(s, &p->count, sizeof p->count);
        for (int64_t u = 0, id; p->sparse && u < p->sparse->active_units; u++) {
            p->sparse->format->units(p->sparse, u, 1, &id);
            append(s, &id, sizeof id);
        }
    }
}

static bool same(const state *a, const state *b) { return a->n == b->n && memcmp(a->bytes, b->bytes, a->n) == 0; }

static void run_scheme(const char *model, const char *scheme, double sparsity, const mode *m)
{
    static state whole, parts;
    char checkpoint[120];
    mest_source source = {.struct_size = sizeof source, .info = info, .fetch = fetch};
    mest_run_options o;
    mest_run_options_init(&o);
    o.progress = look;
    snprintf(checkpoint, sizeof checkpoint, "%s.checkpoint", model);
    snprintf(what, sizeof what, "%s %s", scheme, m->name);
    run r = {.mode = m, .stop_after = -1};
    open_run(&r, model, scheme, sparsity, .05, 1);
    o.progress_user = &r;
    mest_metrics before = {.struct_size = sizeof before}, after = before;
    MUST(mest_session_evaluate(r.session, &source, NULL, &before, &err));
    MUST(mest_session_train(r.session, &source, &o, &err));
    MUST(mest_session_evaluate(r.session, &source, NULL, &after, &err));
    check(after.loss < before.loss, "loss after training", after.loss, before.loss);
    int sparse = 0;
    mest_sparse *s;
    double target;
    for (; (s = pattern_of(r.model, sparse, &target)); sparse++) {
        check_pattern(s, target, "units at the end");
        const int64_t peak = mest_sparse_units_at(s, target - m->bound[0]), start = mest_sparse_units_at(s, target);
        check(s->cap_units == (peak > start ? peak : start), "units reserved", (double)s->cap_units, (double)peak);
    }
    check(sparse >= 3, "sparse weights", sparse, 3);
    take(&r, &whole);
    close_run(&r);
    for (int64_t cut = 1; cut < EPOCHS; cut += m->bound[0] > 0 || m->rate[2] == 0 ? 1 : 3) { /* vanilla is the same at any time */
        r.stop_after = cut;
        o.checkpoint_path = checkpoint;
        open_run(&r, model, scheme, sparsity, .05, 2);
        check(mest_session_train(r.session, &source, &o, &err) == MEST_E_CANCELLED, "cut run", 0, 0);
        close_run(&r);
        r.stop_after = -1;
        open_run(&r, model, scheme, sparsity, .05, 1 + (int)(cut % 2));
        MUST(mest_session_resume(r.session, checkpoint, &err));
        MUST(mest_session_train(r.session, &source, &o, &err));
        take(&r, &parts);
        check(same(&whole, &parts), "bytes of a run that was cut after epoch", (double)cut, (double)cut);
        close_run(&r);
        o.checkpoint_path = NULL;
        err = (mest_error){0};
    }
    unlink(checkpoint);
    strcat(checkpoint, ".prev");
    unlink(checkpoint);
    /* nothing learns: what grew stays 0, and stays */
    open_run(&r, model, scheme, sparsity, 0, 1);
    MUST(mest_session_train(r.session, &source, &o, &err));
    for (int k = 0; (s = pattern_of(r.model, k, &target)); k++)
        check_pattern(s, target, "units of a run without learning");
    close_run(&r);
}

/* Other methods that move whole channels: cut after any epoch they go on to the same bytes; the number of all channels in the end is that of the targets. */
static void run_on_channels(const char *model, const char *scheme, const char *method, const char *options, bool start_dense)
{
    static state whole, parts;
    char checkpoint[120];
    mest_source source = {.struct_size = sizeof source, .info = info, .fetch = fetch};
    mest_run_options o;
    mest_run_options_init(&o);
    o.progress = look;
    snprintf(checkpoint, sizeof checkpoint, "%s.checkpoint", model);
    snprintf(what, sizeof what, "%s %s:%s", scheme, method, options);
    for (int64_t cut = 0; cut < EPOCHS; cut++) {
        run r = {.stop_after = cut ? cut : -1, .method = method, .options = options, .start_dense = start_dense};
        o.progress_user = &r;
        o.checkpoint_path = cut ? checkpoint : NULL;
        open_run(&r, model, scheme, .5, .05, 1 + (int)(cut % 2));
        const mest_status status = mest_session_train(r.session, &source, &o, &err);
        check(status == (cut ? MEST_E_CANCELLED : MEST_OK), err.msg, status, cut ? MEST_E_CANCELLED : MEST_OK);
        if (cut) {
            close_run(&r);
            r.stop_after = -1;
            open_run(&r, model, scheme, .5, .05, 1);
            MUST(mest_session_resume(r.session, checkpoint, &err));
            MUST(mest_session_train(r.session, &source, &o, &err));
        }
        take(&r, cut ? &parts : &whole);
        check(cut == 0 || same(&whole, &parts), "bytes of a run that was cut after epoch", (double)cut, (double)cut);
        int64_t units = 0, wanted = 0;
        double target;
        mest_sparse *s;
        for (int k = 0; (s = pattern_of(r.model, k, &target)); k++) {
            units += s->active_units;
            wanted += mest_sparse_units_at(s, target);
        }
        check(units == wanted && wanted > 0, "channels in the end", (double)units, (double)wanted);
        check_shapes(r.model);
        close_run(&r);
        err = (mest_error){0};
    }
    unlink(checkpoint);
    strcat(checkpoint, ".prev");
    unlink(checkpoint);
}

/* Methods that are not for channels: refused when they are asked for, with the reason, and nothing is left of them. */
static void refuse_on_channels(const char *model)
{
    static const struct { const char *method, *options, *says; bool dense; } not_for[] = {
        {"rigl", "", "gradients of single weights", false}, {"snfs", "", "gradients of single weights", false}, {"deepr", "", "signs of single weights", false},
        {"snip", "", "gradients of single weights", true}, {"grasp", "", "gradients of single weights", true}, {"lottery", "rounds=2", "values=keep", true},
        {"dsr", "", "unit=epochs", false}, {"magnitude", "", "unit=epochs", true}, {"sieve", "", "freeze_from=1", false},
    };
    static const mode none = {.options = "mode=vanilla"};
    for (size_t i = 0; i < sizeof not_for / sizeof *not_for; i++) {
        run r = {.mode = &none, .method = "", .start_dense = not_for[i].dense};
        snprintf(what, sizeof what, "filter %s", not_for[i].method);
        open_run(&r, model, "filter", .5, .05, 1);
        const mest_status status = mest_session_add_scheduler(r.session, not_for[i].method, not_for[i].options, &err);
        check(status == MEST_E_UNSUPPORTED && strstr(err.msg, not_for[i].says) && strstr(err.msg, "channels of"), err.msg, status, MEST_E_UNSUPPORTED);
        close_run(&r);
        err = (mest_error){0};
    }
}

/* A checkpoint of one scheme is no checkpoint of another, nor of other masks. */
static void refuse_others(const char *model)
{
    char checkpoint[120], masks[120];
    snprintf(checkpoint, sizeof checkpoint, "%s.checkpoint", model);
    snprintf(masks, sizeof masks, "%s.masks", model);
    FILE *f = fopen(masks, "w");
    if (!f || fputs("0x1b 0x36 0xd8 0x1b0", f) < 0 || fclose(f))
        exit(2);
    mest_source source = {.struct_size = sizeof source, .info = info, .fetch = fetch};
    run r = {.mode = &modes[1], .stop_after = -1};
    for (int other = 0; other < 3; other++) {
        static const char *const schemes[] = {"pattern", "csr", "pattern"};
        snprintf(what, sizeof what, "checkpoint of pattern for %s", other == 2 ? "other masks" : schemes[other]);
        mest_sparsity how;
        mest_train_config c;
        mest_sparsity_init(&how);
        how.scheme = schemes[other];
        how.sparsity = .9;
        how.patterns = other == 2 ? masks : NULL;
        mest_train_config_init(&c);
        c.batch = 16;
        c.threads = 1;
        MUST(mest_model_load(&r.model, model, NULL, &err));
        MUST(mest_model_sparsify(r.model, &how, &err));
        MUST(mest_session_create(&r.session, r.model, &c, &err));
        if (other == 0) {
            MUST(mest_session_train(r.session, &source, NULL, &err));
            MUST(mest_session_checkpoint(r.session, checkpoint, &err));
        } else {
            const mest_status status = mest_session_resume(r.session, checkpoint, &err);
            check(status == MEST_E_STATE && err.msg[0], "status", status, MEST_E_STATE);
            err = (mest_error){0};
        }
        close_run(&r);
    }
    unlink(masks);
    unlink(checkpoint);
}

int main(void)
{
    char path[] = "/tmp/mest-runs-XXXXXX";
    const int fd = mkstemp(path);
    if (fd < 0 || close(fd))
        return 2;
    write_model(path);
    static const struct { const char *scheme; double sparsity; } all[] = {
        {"csr", .9}, {"block4", .8}, {"block16", .75}, {"punched8x4", .75}, {"pattern", .8}, {"nm2:4", .5}, {"nm1:4", .75}, {"nm2:8", .75}, {"nm2:4x4", .5}, {"filter", .5},
        {"channel", .5},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (size_t m = 0; m < sizeof modes / sizeof *modes; m++)
            run_scheme(path, all[i].scheme, all[i].sparsity, &modes[m]);
    for (int by_inputs = 0; by_inputs < 2; by_inputs++) {
        const char *scheme = by_inputs ? "channel" : "filter";
        run_on_channels(path, scheme, "set", "", false);
        run_on_channels(path, scheme, "dsr", "unit=epochs,every=1,threshold=.5,share=.3", false);
        run_on_channels(path, scheme, "magnitude", "unit=epochs,every=1", true);
        run_on_channels(path, scheme, "magnitude", "mode=oneshot,scope=global", true);
        run_on_channels(path, scheme, "lottery", "rounds=3,values=keep", true);
    }
    refuse_on_channels(path);
    refuse_others(path);
    unlink(path);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed ? 1 : 0;
}
