/* SPDX-License-Identifier: Apache-2.0 */
/* Trains the networks of a fixtures folder (environment MEST_SHARED) and compares losses, gradients, weights and statistics with the
 * framework's numbers stored beside each model. Usage: fixtures [NAME...]. Ends with "N passed, N failed, N skipped". */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mest/train.h"

static int passed, failed, skipped;
static char root[512];

typedef struct array { char *bytes; size_t size; char type[8]; size_t count; } array;

static int load_npy(const char *dir, const char *name, array *a)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s/%s", root, dir, name);
    memset(a, 0, sizeof *a);
    FILE *f = fopen(path, "rb");
    if (!f)
        return 0;
    unsigned char head[10];
    if (fread(head, 1, 10, f) != 10)
        exit(2);
    size_t skip = head[8] | (size_t)head[9] << 8;
    char *text = calloc(skip + 1, 1);
    if (!text || fread(text, 1, skip, f) != skip)
        exit(2);
    const char *d = strstr(text, "'descr': '");
    snprintf(a->type, sizeof a->type, "%.3s", d ? d + 10 : "?");
    free(text);
    fseek(f, 0, SEEK_END);
    a->size = (size_t)ftell(f) - 10 - skip;
    fseek(f, (long)(10 + skip), SEEK_SET);
    a->bytes = malloc(a->size + 64);
    if (!a->bytes || fread(a->bytes, 1, a->size, f) != a->size)
        exit(2);
    fclose(f);
    a->count = a->size / (a->type[1] == 'u' ? 1 : (size_t)(a->type[2] - '0'));
    return 1;
}

/* Data that are fed: the library that computes in double takes them so. */
static void load_fed(array *a)
{
#if defined(MEST_REAL_DOUBLE)
    if (strcmp(a->type, "<f4"))
        return;
    double *wide = malloc(a->count * sizeof *wide + 64);
    if (!wide)
        exit(2);
    for (size_t i = 0; i < a->count; i++)
        wide[i] = (double)((const float *)(const void *)a->bytes)[i];
    free(a->bytes);
    a->bytes = (char *)wide;
    a->size = a->count * sizeof *wide;
#else
    (void)a;
#endif
}

static double meta(const char *dir, const char *key, double otherwise, char *text)
{
    char path[700], line[400];
    snprintf(path, sizeof path, "%s/%s/meta.txt", root, dir);
    FILE *f = fopen(path, "r");
    double v = otherwise;
    while (f && fgets(line, sizeof line, f)) {
        size_t n = strlen(key);
        if (!strncmp(line, key, n) && line[n] == ' ') {
            v = atof(line + n + 1);
            if (text)
                sscanf(line + n + 1, "%60s", text);
        }
    }
    if (f)
        fclose(f);
    return v;
}

static void verdict(const char *dir, const char *how, const char *what, double got, double limit)
{
    if (got <= limit) {
        passed++;
    } else {
        failed++;
        printf("FAIL %s (%s): %s: %.3g > %.3g\n", dir, how, what, got, limit);
    }
}

typedef struct entry { char name[200]; size_t offset, count; int model_index; } entry;

static int read_table(const char *dir, const char *file, entry *e, int max)
{
    char path[700], line[1000];
    snprintf(path, sizeof path, "%s/%s/%s", root, dir, file);
    FILE *f = fopen(path, "r");
    int n = 0;
    while (f && n < max && fgets(line, sizeof line, f)) {
        char name[200], kind[60], dims[100];
        size_t offset, count;
        if (line[0] == '#' || sscanf(line, "%199s %59s %99s %zu %zu", name, kind, dims, &offset, &count) != 5)
            continue;
        snprintf(e[n].name, sizeof e[n].name, "%s", name);
        e[n].offset = offset;
        e[n++].count = count;
    }
    if (f)
        fclose(f);
    return n;
}

/* Largest err_i = |a_i - r_i| / (|r_i| + 1e-3 |r|) over the parameters. */
static double compare(const float *got, const float *want, const entry *e, int n, size_t total, const char **worst)
{
    double all = 0, max = 0;
    for (size_t i = 0; i < total; i++)
        all += (double)want[i] * want[i];
    all = sqrt(all);
    for (int p = 0; p < n; p++) {
        double d = 0, r = 0;
        for (size_t i = e[p].offset; i < e[p].offset + e[p].count; i++) {
            d += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
            r += (double)want[i] * want[i];
        }
        double err = sqrt(d) / (sqrt(r) + 1e-3 * all);
        if (!(err <= max)) {
            max = err;
            *worst = e[p].name;
        }
    }
    return max;
}

static int read_all(mest_model *m, const entry *e, int n, float *flat)
{
    mest_error err = {0};
    for (int p = 0; p < n; p++)
        if (e[p].model_index < 0 || mest_model_read_parameter(m, e[p].model_index, flat + e[p].offset, e[p].count, &err) != MEST_OK) {
            printf("FAIL reading %s: %s\n", e[p].name, err.msg);
            return 0;
        }
    return 1;
}

static void bind_names(mest_model *m, entry *e, int n)
{
    for (int p = 0; p < n; p++) {
        e[p].model_index = -1;
        for (int i = 0; i < mest_model_parameter_count(m); i++) {
            mest_tensor_info info = {.struct_size = sizeof info};
            if (mest_model_parameter(m, i, &info, NULL) == MEST_OK && !strcmp(info.name, e[p].name))
                e[p].model_index = i;
        }
    }
}

/* kinked: networks in which, in this setup, a pre-activation comes within rounding (1e-7) of a kink of Relu or Clip during the ten steps and falls
 * on the other side than in exact arithmetic: the run is right up to there and then follows another branch. Only what comes before is compared.
 * The same test in the library that computes in double knows no such networks: there all ten steps of all setups must be right. */
typedef struct setup { const char *how; const char *kinked; bool masked, adamw; const char *scheme, *kernels; bool xnnpack; int threads; const char *model; const char *bn_stats; } setup;

static void say(void *user, mest_log_level level, const char *text)
{
    (void)user;
    if (getenv("MEST_VERBOSE"))
        fprintf(stderr, "[%d] %s\n", (int)level, text);
}

static void run(const char *dir, const setup *u)
{
    static entry params[600], buffers[400];
    array input, label, loss, grad = {0}, after1 = {0}, after10, buf1 = {0}, buf10 = {0}, mask = {0}, eval = {0};
    mest_error err = {0};
    char kind[64] = "", path[700], how[200];
    snprintf(how, sizeof how, "%s", u->how);
    if (!load_npy(dir, "input.npy", &input) || !load_npy(dir, "label.npy", &label) || !load_npy(dir, u->masked ? "masked_loss.npy" : "loss.npy", &loss) ||
        !load_npy(dir, u->adamw ? "adamw_after10.npy" : u->masked ? "masked_after10.npy" : "after10.npy", &after10)) {
        skipped++;
        printf("skip %s (%s): files are missing\n", dir, how);
        return;
    }
    load_fed(&input);
    load_fed(&label);
    load_npy(dir, u->masked ? "masked_grad.npy" : "grad.npy", &grad);
    if (!u->masked && !u->adamw) {
        load_npy(dir, "after1.npy", &after1);
        load_npy(dir, u->bn_stats ? "bufbiased1.npy" : "buf1.npy", &buf1);
        load_npy(dir, u->bn_stats ? "bufbiased10.npy" : "buf10.npy", &buf10);
        if (!u->bn_stats) /* made with PyTorch's */
            load_npy(dir, "eval_out10.npy", &eval);
    }
    load_npy(dir, "mask.npy", &mask);
    int n = read_table(dir, "params.tsv", params, 600), nb = read_table(dir, "buffers.tsv", buffers, 400);
    meta(dir, "loss", 0, kind);

    mest_model *m = NULL;
    mest_session *s = NULL;
    mest_logger logger = {sizeof logger, NULL, say};
    mest_model_options mo;
    mest_model_options_init(&mo);
    mo.logger = &logger;
    snprintf(path, sizeof path, u->model ? "%s/variants/%s.onnx" : "%s/%s/model.onnx", root, u->model ? u->model : dir);
    float *flat = calloc(after10.count + 64, sizeof *flat), *start = calloc(after10.count + 64, sizeof *start);
    if (!flat || !start)
        exit(2);
    if (mest_model_load(&m, path, &mo, &err) != MEST_OK)
        goto broken;
    bind_names(m, params, n);
    bind_names(m, buffers, nb);
    if (!read_all(m, params, n, start)) {
        failed++;
        goto done;
    }
    if (u->masked && !u->model) {
        mest_sparsity sp;
        mest_sparsity_init(&sp);
        sp.scheme = u->scheme;
        sp.sparsity = 0.8;
        sp.dense_layers = "none";
        if (mest_model_sparsify(m, &sp, &err) != MEST_OK)
            goto broken;
    }
    mest_train_config c;
    mest_train_config_init(&c);
    int64_t batch = 1;
    {
        /* the batch is the input's first axis; the sample's size follows from the model's input */
        mest_tensor_info info = {.struct_size = sizeof info};
        if (mest_model_input(m, 0, &info, &err) != MEST_OK)
            goto broken;
        int64_t per = 1;
        for (int i = 1; i < info.rank; i++)
            per *= info.dim[i];
        batch = (int64_t)input.count / per;
    }
    c.batch = batch;
    c.loss = !strcmp(kind, "softmax_ce") ? "ce" : !strcmp(kind, "mse") ? "mse" : "bce";
    c.lr = meta(dir, "lr", 0.05, NULL);
    c.momentum = meta(dir, "momentum", 0.9, NULL);
    c.weight_decay = meta(dir, "weight_decay", 0, NULL);
    if (u->adamw) {
        c.optimizer = "adamw";
        c.lr = 1e-3;
        c.weight_decay = 0.01;
    }
    c.kernels = u->kernels;
    c.use_xnnpack = u->xnnpack;
    c.threads = u->threads;
    if (u->bn_stats)
        c.bn_stats = u->bn_stats;
    c.keep_gradients = true;
    if (mest_session_create(&s, m, &c, &err) != MEST_OK)
        goto broken;
    const double *want_loss = (const double *)loss.bytes;
    double worst_loss = 0;
    const char *worst = "";
#if defined(MEST_REAL_DOUBLE)
    const bool kinked = false;
#else
    const bool kinked = u->kinked && strstr(u->kinked, dir);
#endif
    for (int step = 0; step < (kinked ? 6 : 10); step++) {
        mest_metrics metrics;
        if (mest_session_step(s, input.bytes, label.bytes, batch, &metrics, &err) != MEST_OK)
            goto broken;
        double d = fabs(metrics.loss - want_loss[step]) / (fabs(want_loss[step]) + 1e-3);
        if (!u->adamw && !(d <= worst_loss))
            worst_loss = d;
        if (step == 0 && grad.bytes && !u->adamw) {
            float *want = (float *)grad.bytes;
            for (int p = 0; p < n; p++) {
                if (params[p].model_index >= 0 && mest_session_read_gradient(s, params[p].model_index, flat + params[p].offset, params[p].count, &err) != MEST_OK)
                    goto broken;
                for (size_t i = params[p].offset; u->masked && i < params[p].offset + params[p].count; i++)
                    want[i] *= (float)(mask.bytes[i] != 0);
            }
            double limit = fmax(20 * meta(dir, u->masked ? "f32_dev_masked_grad" : "f32_dev_grad", 0, NULL), 2e-5);
            double got = compare(flat, want, params, n, grad.count, &worst);
            char text[260];
            snprintf(text, sizeof text, "gradient (%s)", worst);
            verdict(dir, how, text, got, limit);
        }
        if (step == 0 && after1.bytes && read_all(m, params, n, flat))
            verdict(dir, how, "weights after 1 step", compare(flat, (float *)after1.bytes, params, n, after1.count, &worst), 1e-5);
        if (step == 0 && buf1.bytes && nb && read_all(m, buffers, nb, flat))
            verdict(dir, how, "statistics after 1 step", compare(flat, (float *)buf1.bytes, buffers, nb, buf1.count, &worst), 1e-5);
    }
    if (!u->adamw)
        verdict(dir, how, kinked ? "losses of 6 steps" : "losses of 10 steps", worst_loss, 2e-5);
    if (kinked)
        goto done;
    if (read_all(m, params, n, flat)) {
        const float *want = (const float *)after10.bytes;
        verdict(dir, how, "weights after 10 steps", compare(flat, want, params, n, after10.count, &worst), 1e-5);
        double d = 0, r = 0;
        for (size_t i = 0; i < after10.count; i++) {
            double from = u->masked && !mask.bytes[i] ? 0 : start[i];
            d += ((double)flat[i] - want[i]) * ((double)flat[i] - want[i]);
            r += (want[i] - from) * (want[i] - from);
        }
        verdict(dir, how, "change over 10 steps", sqrt(d / r), 1e-3);
        if (u->masked) {
            size_t off = 0;
            for (size_t i = 0; i < after10.count; i++)
                off += !mask.bytes[i] && flat[i] != 0;
            verdict(dir, how, "weights outside the mask", (double)off, 0);
        }
    }
    if (buf10.bytes && nb && read_all(m, buffers, nb, flat))
        verdict(dir, how, "statistics after 10 steps", compare(flat, (float *)buf10.bytes, buffers, nb, buf10.count, &worst), 1e-5);
    if (eval.bytes) {
        float *out = calloc(eval.count, sizeof *out);
        if (!out || mest_session_infer(s, input.bytes, batch, out, eval.count, &err) != MEST_OK) {
            free(out);
            goto broken;
        }
        double d = 0, r = 0;
        for (size_t i = 0; i < eval.count; i++) {
            d += ((double)out[i] - ((float *)eval.bytes)[i]) * ((double)out[i] - ((float *)eval.bytes)[i]);
            r += (double)((float *)eval.bytes)[i] * ((float *)eval.bytes)[i];
        }
        verdict(dir, how, "evaluation output after 10 steps", sqrt(d / r), 1e-4);
        free(out);
    }
    goto done;
broken:
    failed++;
    printf("FAIL %s (%s): %s: %s\n", dir, how, mest_status_text(err.code), err.msg);
done:
    mest_session_destroy(s);
    mest_model_destroy(m);
    free(flat);
    free(start);
    array *all[] = {&input, &label, &loss, &grad, &after1, &after10, &buf1, &buf10, &mask, &eval};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]->bytes);
}

int main(int argc, char **argv)
{
    const char *shared = getenv("MEST_SHARED");
    static const char *const names[] = {"mlp", "lenet5", "resnet8", "mobilenetv2", "dscnn1d", "unet", "vit", "bert", "lstm", NULL};
    static const setup setups[] = {
        {.how = "dense", .xnnpack = true, .threads = 1},
        {.how = "dense, 2 threads, own kernels", .kinked = "mobilenetv2", .xnnpack = false, .threads = 2},
        {.how = "dense, scalar", .kinked = "mobilenetv2 dscnn1d", .kernels = "scalar", .threads = 1},
        {.how = "dense, statistics by ONNX's rule", .xnnpack = true, .threads = 1, .bn_stats = "onnx"},
        {.how = "dense, scalar, statistics by ONNX's rule", .kinked = "mobilenetv2 dscnn1d", .kernels = "scalar", .threads = 1, .bn_stats = "onnx"},
        {.how = "masked csr", .kinked = "mobilenetv2 resnet8", .masked = true, .scheme = "csr", .xnnpack = true, .threads = 2},
        {.how = "masked csr, scalar", .kinked = "resnet8", .masked = true, .scheme = "csr", .kernels = "scalar", .threads = 1},
    };
    if (!shared) {
        printf("the fixtures are not here (MEST_SHARED is not set)\n0 passed, 0 failed, 1 skipped\n");
        return 77;
    }
    snprintf(root, sizeof root, "%s/fixtures", shared);
    for (int i = 0; names[i]; i++) {
        bool wanted = argc < 2; /* networks 2 to 4 have BatchNormalization */
        for (int k = 1; k < argc; k++)
            wanted |= !strcmp(argv[k], names[i]);
        for (size_t k = 0; wanted && k < sizeof setups / sizeof *setups; k++)
            if ((i < 6 || !setups[k].masked) && (!setups[k].bn_stats || (i >= 2 && i < 5))) /* the weights of the last three reach their layers through Transpose, Slice, Concat */
                run(names[i], &setups[k]);
        if (wanted && i == 0) {
            run("mlp", &(setup){.how = "adamw", .adamw = true, .xnnpack = true, .threads = 1});
            static const char *const same[] = {"mlp_external", "mlp_typed", "mlp_ir3", "mlp_identity", "mlp_function", NULL};
            for (int k = 0; same[k]; k++)
                run("mlp", &(setup){.how = same[k], .model = same[k], .xnnpack = true, .threads = 1});
            run("mlp", &(setup){.how = "sparse_initializer, linear", .model = "mlp_sparse_linear", .masked = true, .threads = 1});
            run("mlp", &(setup){.how = "sparse_initializer, coordinates", .model = "mlp_sparse_coo", .masked = true, .threads = 1});
        }
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed ? 1 : 0;
}
