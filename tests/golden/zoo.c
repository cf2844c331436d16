/* SPDX-License-Identifier: Apache-2.0 */
/* Small networks as PyTorch's exporters wrote them (tests/fixtures/zoo, tests/data/zoo): outputs, gradients, losses of ten steps, weights
 * after them and outputs of the exported result, compared with PyTorch's numbers in double precision. Each network runs with all passes and
 * without the optional ones, with the processor's kernels and the portable ones. Usage: zoo FOLDER [NAME...] */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mest/train.h"

enum { STEPS = 10, MAX_PARAMS = 200, MAX_NETS = 200 };
static int passed, failed;
static const char *root;

typedef struct array {
    char *bytes;
    char type[4]; /* "<f4" */
    int rank;
    int64_t dim[8];
    size_t count;
} array;

typedef struct network {
    char name[120], loss[8], bn[16], output[64], inputs[200], freeze[200];
    double lr, momentum, weight_decay, limit_gradient, limit_change, adamw_lr, adamw_weight_decay, adamw_eps, limit_adamw;
    int untied, n_inputs, n_params;
    struct { char name[128]; size_t offset, count; int index; } param[MAX_PARAMS];
    array input[MEST_SAMPLE_MAX_INPUTS], target, grad, after, adamw, losses, eval, eval10;
    mest_source_info info;
    const void *pointer[MEST_SAMPLE_MAX_INPUTS];
    int64_t batch;
} network;

static void check(const network *n, const char *how, const char *what, double got, double limit)
{
    if (got <= limit) {
        passed++;
        return;
    }
    failed++;
    printf("FAIL %s (%s): %s: %.3g > %.3g\n", n->name, how, what, got, limit);
}

/* ---- files ---- */
static bool read_npy(const char *net, const char *name, array *a)
{
    char path[800], head[256];
    unsigned char magic[10];
    snprintf(path, sizeof path, "%s/%s/%s.npy", root, net, name);
    FILE *f = fopen(path, "rb");
    memset(a, 0, sizeof *a);
    if (!f || fread(magic, 1, 10, f) != 10)
        return false;
    size_t length = magic[8] | (size_t)magic[9] << 8;
    if (length >= sizeof head || fread(head, 1, length, f) != length)
        return false;
    head[length] = 0;
    const char *type = strstr(head, "'descr': '"), *shape = strstr(head, "'shape': (");
    if (!type || !shape)
        return false;
    memcpy(a->type, type + 10, 3);
    a->count = 1;
    for (const char *p = shape + 10; *p && *p != ')' && a->rank < 8;) {
        char *end;
        int64_t d = strtoll(p, &end, 10);
        if (end == p)
            break;
        a->dim[a->rank++] = d;
        a->count *= (size_t)d;
        p = end + strspn(end, ", ");
    }
    size_t bytes = a->count * (a->type[1] == 'b' ? 1 : (size_t)(a->type[2] - '0'));
    a->bytes = malloc(bytes + 64);
    bool good = a->bytes && fread(a->bytes, 1, bytes, f) == bytes;
    fclose(f);
    return good;
}

/* What the library takes: int64 or float32. */
static void widen(array *a)
{
    if (a->type[1] != 'b')
        return;
    int64_t *wide = malloc(a->count * sizeof *wide);
    for (size_t i = 0; wide && i < a->count; i++)
        wide[i] = a->bytes[i] != 0;
    free(a->bytes);
    a->bytes = (char *)wide;
    memcpy(a->type, "<i8", 4);
}

static bool read_meta(network *n)
{
    char path[800], key[40], value[400], line[600];
    snprintf(path, sizeof path, "%s/%s/meta.txt", root, n->name);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%39s %399s", key, value) != 2)
            continue;
        struct { const char *key; double *number; } numbers[] = { { "lr", &n->lr }, { "momentum", &n->momentum }, { "weight_decay", &n->weight_decay },
                                                                  { "limit_gradient", &n->limit_gradient }, { "limit_change", &n->limit_change },
                                                                  { "adamw_lr", &n->adamw_lr }, { "adamw_weight_decay", &n->adamw_weight_decay },
                                                                  { "adamw_eps", &n->adamw_eps }, { "limit_adamw", &n->limit_adamw } };
        struct { const char *key; char *text; size_t size; } texts[] = { { "loss", n->loss, sizeof n->loss }, { "bn", n->bn, sizeof n->bn },
            { "output", n->output, sizeof n->output }, { "inputs", n->inputs, sizeof n->inputs }, { "freeze", n->freeze, sizeof n->freeze } };
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            if (!strcmp(key, numbers[i].key))
                *numbers[i].number = atof(value);
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
            if (!strcmp(key, texts[i].key))
                snprintf(texts[i].text, texts[i].size, "%s", value);
        if (!strcmp(key, "untied"))
            n->untied = atoi(value);
    }
    if (f)
        fclose(f);
    snprintf(path, sizeof path, "%s/%s/params.tsv", root, n->name);
    f = fopen(path, "r");
    while (f && n->n_params < MAX_PARAMS && fgets(line, sizeof line, f))
        if (sscanf(line, "%127s %zu %zu", n->param[n->n_params].name, &n->param[n->n_params].offset, &n->param[n->n_params].count) == 3)
            n->n_params++;
    if (f)
        fclose(f);
    return n->n_params > 0 && n->loss[0];
}

static bool read_network(network *n)
{
    if (!read_meta(n) || !read_npy(n->name, "target", &n->target) || !read_npy(n->name, "grad", &n->grad) || !read_npy(n->name, "after10", &n->after) ||
        (n->adamw_lr > 0 && !read_npy(n->name, "adamw10", &n->adamw)) || !read_npy(n->name, "losses", &n->losses) || !read_npy(n->name, "eval", &n->eval) || !read_npy(n->name, "eval10", &n->eval10))
        return false;
    char names[200], *save = NULL;
    snprintf(names, sizeof names, "%s", n->inputs);
    n->info = (mest_source_info){.struct_size = sizeof n->info, .has_targets = true};
    for (char *name = strtok_r(names, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        char file[80];
        array *a = &n->input[n->n_inputs];
        mest_sample_input *in = &n->info.input[n->n_inputs];
        snprintf(file, sizeof file, "in_%.60s", name);
        if (!read_npy(n->name, file, a))
            return false;
        widen(a);
        in->name = strdup(name);
        in->type = a->type[1] == 'i' ? MEST_SAMPLE_I64 : MEST_SAMPLE_F32;
        in->rank = a->rank - 1;
        memcpy(in->dim, a->dim + 1, (size_t)in->rank * sizeof *in->dim);
        n->pointer[n->n_inputs++] = a->bytes;
    }
    n->batch = n->target.dim[0];
    n->info.n_inputs = n->n_inputs;
    n->info.target_type = n->target.type[1] == 'i' ? MEST_SAMPLE_I64 : MEST_SAMPLE_F32;
    n->info.target_rank = n->target.rank - 1;
    memcpy(n->info.target_dim, n->target.dim + 1, (size_t)n->info.target_rank * sizeof *n->info.target_dim);
    return true;
}

static void free_network(network *n)
{
    for (int i = 0; i < n->n_inputs; i++) {
        free(n->input[i].bytes);
        free((void *)(uintptr_t)n->info.input[i].name);
    }
    array *all[] = { &n->target, &n->grad, &n->after, &n->adamw, &n->losses, &n->eval, &n->eval10 };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]->bytes);
}

/* ---- comparing ---- */
/* Largest |a - r| / (|r| + 1e-3 |all r|) of the parameters, in L2 norms. `start` is taken off both. */
static double distance(const network *n, const float *got, const float *want, const float *start, const char **worst)
{
    double all = 0, most = 0;
    for (size_t i = 0; i < n->grad.count; i++)
        all += ((double)want[i] - (start ? start[i] : 0)) * ((double)want[i] - (start ? start[i] : 0));
    for (int p = 0; p < n->n_params; p++) {
        double d = 0, r = 0;
        for (size_t i = n->param[p].offset; i < n->param[p].offset + n->param[p].count; i++) {
            double w = (double)want[i] - (start ? start[i] : 0);
            d += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
            r += w * w;
        }
        double e = sqrt(d) / (sqrt(r) + 1e-3 * sqrt(all));
        if (!(e <= most)) {
            most = e;
            *worst = n->param[p].name;
        }
    }
    return most;
}

static double outputs_differ(const float *got, const array *want)
{
    double most = 0, size = 0;
    const float *w = (const float *)want->bytes;
    for (size_t i = 0; i < want->count; i++) {
        double d = fabs((double)got[i] - w[i]);
        most = !(d <= most) ? d : most;
        size = fabs((double)w[i]) > size ? fabs((double)w[i]) : size;
    }
    return most / (size + 1e-30);
}

typedef struct setup {
    const char *how, *no_fuse, *kernels;
    bool xnnpack, adamw;
    int threads;
} setup;

static bool open_session(const network *n, const setup *u, const char *path, mest_model **m, mest_session **s, mest_error *err)
{
    mest_train_config c;
    mest_train_config_init(&c);
    c.batch = n->batch;
    c.loss = n->loss;
    c.lr = n->lr;
    c.momentum = n->momentum;
    c.weight_decay = n->weight_decay;
    if (u->adamw) {
        c.optimizer = "adamw";
        c.lr = n->adamw_lr;
        c.weight_decay = n->adamw_weight_decay;
        c.eps = n->adamw_eps;
    }
    c.batch_norm = n->bn;
    c.output = n->output;
    c.dropout = 0;
    c.keep_gradients = true;
    c.no_fuse = u->no_fuse;
    c.kernels = u->kernels;
    c.use_xnnpack = u->xnnpack;
    c.threads = u->threads;
    if (mest_model_load(m, path, NULL, err) != MEST_OK)
        return false;
    char names[200], *save = NULL;
    snprintf(names, sizeof names, "%s", n->freeze);
    for (char *name = strtok_r(names, ",", &save); name && strcmp(names, "-"); name = strtok_r(NULL, ",", &save))
        if (mest_model_freeze(*m, name, true, NULL, err) != MEST_OK)
            return false;
    return mest_session_create(s, *m, &c, err) == MEST_OK && mest_session_expect(*s, &n->info, err) == MEST_OK;
}

static bool bind_parameters(network *n, const mest_model *m)
{
    int trainable = 0;
    for (int p = 0; p < n->n_params; p++)
        n->param[p].index = -1;
    for (int i = 0; i < mest_model_parameter_count(m); i++) {
        mest_tensor_info t = {.struct_size = sizeof t};
        if (mest_model_parameter(m, i, &t, NULL) != MEST_OK)
            return false;
        trainable += t.role == MEST_ROLE_TRAINABLE;
        for (int p = 0; p < n->n_params; p++)
            if (!strcmp(t.name, n->param[p].name))
                n->param[p].index = t.role == MEST_ROLE_TRAINABLE ? i : -1;
    }
    for (int p = 0; p < n->n_params; p++)
        if (n->param[p].index < 0) {
            printf("FAIL %s: '%s' is not a trainable parameter\n", n->name, n->param[p].name);
            return false;
        }
    if (trainable < n->n_params)
        printf("FAIL %s: %d parameters train, %d should\n", n->name, trainable, n->n_params);
    return trainable >= n->n_params;
}

static bool read_values(const network *n, mest_model *m, mest_session *gradients, float *flat, mest_error *err)
{
    for (int p = 0; p < n->n_params; p++) {
        float *to = flat + n->param[p].offset;
        mest_status status = gradients ? mest_session_read_gradient(gradients, n->param[p].index, to, n->param[p].count, err)
                                       : mest_model_read_parameter(m, n->param[p].index, to, n->param[p].count, err);
        if (status != MEST_OK)
            return false;
    }
    return true;
}

/* Exports, loads again, and compares what comes out. */
static bool round_trip(const network *n, const setup *u, const mest_model *trained, float *out, mest_error *err)
{
    char path[64] = "/tmp/mest-zoo-XXXXXX";
    mest_model *m = NULL;
    mest_session *s = NULL;
    int fd = mkstemp(path);
    if (fd < 0)
        return false;
    close(fd);
    bool good = mest_model_export(trained, path, NULL, err) == MEST_OK && open_session(n, u, path, &m, &s, err) &&
                mest_session_infer_inputs(s, n->pointer, n->batch, out, n->eval10.count, err) == MEST_OK;
    mest_session_destroy(s);
    mest_model_destroy(m);
    unlink(path);
    return good;
}

static void run(network *n, const setup *u)
{
    char path[800], text[160];
    mest_model *m = NULL;
    mest_session *s = NULL;
    mest_error err = {0};
    const char *worst = "";
    size_t count = n->grad.count;
    float *start = calloc(count + 1, sizeof *start), *now = calloc(count + 1, sizeof *now), *out = calloc(n->eval.count + 1, sizeof *out);
    snprintf(path, sizeof path, "%s/%s/model.onnx", root, n->name);
    bool good = start && now && out && open_session(n, u, path, &m, &s, &err) && bind_parameters(n, m) && read_values(n, m, NULL, start, &err) &&
                mest_session_infer_inputs(s, n->pointer, n->batch, out, n->eval.count, &err) == MEST_OK;
    if (good) {
        mest_model_summary summary = {.struct_size = sizeof summary};
        good = mest_model_summarize(m, &summary, &err) == MEST_OK;
        check(n, u->how, "untied parameters", fabs((double)(summary.n_untied - n->untied)), 0);
        check(n, u->how, "output", outputs_differ(out, &n->eval), 2e-5);
    }
    double off = 0;
    for (int step = 0; good && step < STEPS; step++) {
        mest_metrics metrics = {.struct_size = sizeof metrics};
        good = mest_session_step_inputs(s, n->pointer, n->target.bytes, n->batch, &metrics, &err) == MEST_OK;
        double want = ((const double *)(const void *)n->losses.bytes)[step];
        off = fmax(off, fabs(metrics.loss - want) / fabs(want));
        if (good && step == 0 && (good = read_values(n, m, s, now, &err))) {
            double e = distance(n, now, (const float *)(const void *)n->grad.bytes, NULL, &worst);
            snprintf(text, sizeof text, "gradient of '%.100s'", worst);
            check(n, u->how, text, e, n->limit_gradient);
        }
    }
    good = good && read_values(n, m, NULL, now, &err);
    if (good) {
        check(n, u->how, "losses", off, fmax(1e-4, n->limit_change / 10));
        double e = distance(n, now, (const float *)(const void *)n->after.bytes, start, &worst);
        snprintf(text, sizeof text, "weight '%.100s' after ten steps", worst);
        check(n, u->how, text, e, n->limit_change);
        good = round_trip(n, u, m, out, &err);
        check(n, u->how, "output of the exported model", good ? outputs_differ(out, &n->eval10) : 1, fmax(1e-3, n->limit_change));
    }
    if (!good) {
        failed++;
        printf("FAIL %s (%s): %s\n", n->name, u->how, err.msg);
    }
    mest_session_destroy(s);
    mest_model_destroy(m);
    free(start);
    free(now);
    free(out);
}

/* Ten steps of AdamW from the file's weights. */
static void run_adamw(network *n, const setup *u)
{
    char path[800], text[160];
    mest_model *m = NULL;
    mest_session *s = NULL;
    mest_error err = {0};
    const char *worst = "";
    float *start = calloc(n->grad.count + 1, sizeof *start), *now = calloc(n->grad.count + 1, sizeof *now);
    snprintf(path, sizeof path, "%s/%s/model.onnx", root, n->name);
    bool good = start && now && open_session(n, u, path, &m, &s, &err) && bind_parameters(n, m) && read_values(n, m, NULL, start, &err);
    for (int step = 0; good && step < STEPS; step++) {
        mest_metrics metrics = {.struct_size = sizeof metrics};
        good = mest_session_step_inputs(s, n->pointer, n->target.bytes, n->batch, &metrics, &err) == MEST_OK;
    }
    if (good && (good = read_values(n, m, NULL, now, &err))) {
        double e = distance(n, now, (const float *)(const void *)n->adamw.bytes, start, &worst);
        snprintf(text, sizeof text, "weight '%.100s' after ten steps", worst);
        check(n, u->how, text, e, n->limit_adamw);
    }
    if (!good) {
        failed++;
        printf("FAIL %s (%s): %s\n", n->name, u->how, err.msg);
    }
    mest_session_destroy(s);
    mest_model_destroy(m);
    free(start);
    free(now);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

int main(int argc, char **argv)
{
    static const setup setups[] = { { "passes, kernels", NULL, "auto", true, false, 2 }, { "no passes, portable", "all", "scalar", false, false, 1 } };
    static const setup adamw = { "AdamW", NULL, "auto", true, true, 2 };
    char *names[MAX_NETS];
    int n = 0;
    root = argc > 1 ? argv[1] : "tests/data/zoo";
    DIR *list = opendir(root);
    for (struct dirent *e; list && (e = readdir(list)) && n < MAX_NETS;) {
        bool wanted = argc < 3;
        for (int i = 2; i < argc; i++)
            wanted |= !strcmp(argv[i], e->d_name);
        if (e->d_name[0] != '.' && wanted)
            names[n++] = strdup(e->d_name);
    }
    if (list)
        closedir(list);
    qsort(names, (size_t)n, sizeof *names, by_name);
    for (int i = 0; i < n; i++) {
        static network net;
        memset(&net, 0, sizeof net);
        snprintf(net.name, sizeof net.name, "%s", names[i]);
        if (read_network(&net)) {
            for (size_t u = 0; u < sizeof setups / sizeof *setups; u++)
                run(&net, &setups[u]);
            if (net.adamw_lr > 0)
                run_adamw(&net, &adamw);
        } else {
            failed++;
            printf("FAIL %s: its files cannot be read\n", names[i]);
        }
        free_network(&net);
        free(names[i]);
    }
    if (n == 0) {
        failed++;
        printf("FAIL no networks in '%s'\n", root);
    }
    printf("%d networks\n%d passed, %d failed, 0 skipped\n", n, passed, failed);
    return failed != 0;
}
