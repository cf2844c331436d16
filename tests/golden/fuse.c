/* SPDX-License-Identifier: Apache-2.0 */
/* Fusion keeps bits: networks are trained a few steps with the passes of runtime/fuse.c on and off, and the exported files and the outputs of
 * evaluation must be equal byte by byte: in plain, NHWC and lanes, dense and sparse, with one and two threads. Where the layouts are left to
 * the program, a graph with fewer nodes may get others, which sum in another order: there the outputs must be close.
 * Usage: fuse DIGITS.onnx; the fixtures are found by the environment MEST_SHARED. Ends with "N passed, N failed, N skipped". */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mest/train.h"
#include "runtime/session.h"

enum { BATCH = 5, STEPS = 5 }; /* 5: idle lanes whatever their number */

static int passed, failed, skipped;

typedef struct setup { const char *layout, *kernels, *scheme; int threads; const char *batch_norm; bool xnnpack; } setup;
typedef struct result {
    char *file;         /* as exported */
    size_t file_bytes;
    float *out;         /* of evaluation, for the last batch */
    size_t n_out;
    int relus, norms;   /* nodes of the training program */
} result;

static void give_up(const char *what)
{
    perror(what);
    exit(2);
}

static void *get(size_t n)
{
    void *p = calloc(n + 1, 1);
    if (!p)
        give_up("memory");
    return p;
}

static char *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END))
        give_up(path);
    *n = (size_t)ftell(f);
    rewind(f);
    char *bytes = get(*n);
    if (fread(bytes, 1, *n, f) != *n)
        give_up(path);
    fclose(f);
    return bytes;
}

static void count(void *user, const mest_node_info *info)
{
    result *r = user;
    r->relus += !strcmp(info->op, "Relu");
    r->norms += strstr(info->op, "BatchNorm") != NULL && !strstr(info->op, "Grad");
}

static bool train(const char *model, const setup *u, const char *no_fuse, result *r, mest_error *err)
{
    mest_model *m = NULL;
    mest_session *s = NULL;
    mest_sparsity sp;
    mest_train_config c;
    mest_tensor_info info = {.struct_size = sizeof info};
    int rank = 0;
    int64_t dim[MEST_MAX_RANK], per = 1, classes = 1, *labels = get(BATCH * sizeof *labels);
    float *x = NULL;
    char path[] = "fuse-XXXXXX";
    bool good = false;
    memset(r, 0, sizeof *r);
    if (mest_model_load(&m, model, NULL, err) != MEST_OK || mest_model_input(m, 0, &info, err) != MEST_OK)
        goto done;
    for (int i = 1; i < info.rank; i++)
        per *= info.dim[i];
    int64_t batch = info.dim[0] > 0 ? info.dim[0] : BATCH;
    labels = realloc(labels, (size_t)batch * sizeof *labels);
    x = get((size_t)(batch * per) * sizeof *x);
    if (!labels)
        give_up("memory");
    mest_sparsity_init(&sp);
    sp.scheme = u->scheme;
    sp.sparsity = 0.8;
    if (u->scheme && mest_model_sparsify(m, &sp, err) != MEST_OK)
        goto done;
    mest_train_config_init(&c);
    c.batch = batch;
    c.weight_decay = 1e-3;
    c.kernels = u->kernels;
    c.threads = u->threads;
    c.use_xnnpack = u->xnnpack;
    c.batch_norm = u->batch_norm ? u->batch_norm : "auto";
    c.no_fuse = no_fuse;
    if (mest_session_create(&s, m, &c, err) != MEST_OK)
        goto done;
    s->force_layout = u->layout;
    if (mest_session_output_shape(s, &rank, dim, err) != MEST_OK)
        goto done;
    for (int i = 0; i < rank; i++)
        classes *= dim[i];
    uint32_t state = 77;
    for (int step = 0; step < STEPS; step++) {
        mest_metrics metrics = {.struct_size = sizeof metrics};
        for (int64_t i = 0; i < batch * per; i++) {
            state = state * 1664525u + 1013904223u;
            x[i] = (float)(state >> 8) / (float)(1 << 23) - 1;
        }
        for (int64_t i = 0; i < batch; i++)
            labels[i] = (i * 7 + step) % classes;
        if (mest_session_step(s, x, labels, batch, &metrics, err) != MEST_OK)
            goto done;
    }
    r->n_out = (size_t)(batch * classes);
    r->out = get(r->n_out * sizeof *r->out);
    int fd = mkstemp(path);
    if (fd < 0)
        give_up(path);
    close(fd);
    mest_export_options export = {.struct_size = sizeof export};
    good = mest_session_infer(s, x, batch, r->out, r->n_out, err) == MEST_OK && mest_model_export(m, path, &export, err) == MEST_OK &&
           mest_session_explain(s, MEST_PROGRAM_TRAIN, batch, count, r, &(mest_plan_info){.struct_size = sizeof(mest_plan_info)}, err) == MEST_OK;
    if (good)
        r->file = read_file(path, &r->file_bytes);
    unlink(path);
done:
    mest_session_destroy(s);
    mest_model_destroy(m);
    free(labels);
    free(x);
    return good;
}

static void forget(result *r)
{
    free(r->file);
    free(r->out);
}

static void verdict(bool ok, const char *name, const setup *u, const char *what, const char *more)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL %s (%s, %s, %s, %d threads): %s%s%s\n", name, u->layout ? u->layout : "auto", u->kernels, u->scheme ? u->scheme : "dense", u->threads, what,
               more ? ": " : "", more ? more : "");
}

/* fused: Relu nodes that must disappear. */
static void compare(const char *model, const char *name, const setup *u, int fused)
{
    mest_error err = {0};
    result on, off;
    bool good = train(model, u, NULL, &on, &err) && train(model, u, "bn_relu", &off, &err);
    verdict(good, name, u, "training", err.msg);
    if (good) {
        char text[120];
        snprintf(text, sizeof text, "%d Relu nodes of %d are left, %d are to go", on.relus, off.relus, fused);
        verdict(off.relus - on.relus == fused && on.norms == off.norms, name, u, "nodes", text);
        bool same = !u->layout || (on.file_bytes == off.file_bytes && !memcmp(on.file, off.file, on.file_bytes));
        size_t at = 0;
        while (!same && at < on.file_bytes && at < off.file_bytes && on.file[at] == off.file[at])
            at++;
        snprintf(text, sizeof text, "from byte %zu of %zu", at, on.file_bytes);
        verdict(same, name, u, "exported files differ", text);
        double d = 0, r = 0;
        for (size_t i = 0; i < on.n_out; i++) {
            d += pow((double)on.out[i] - (double)off.out[i], 2);
            r += pow((double)off.out[i], 2);
        }
        bool close = sqrt(d) <= (u->layout ? 0 : 1e-4) * sqrt(r) && (!u->layout || !memcmp(on.out, off.out, on.n_out * sizeof *on.out));
        snprintf(text, sizeof text, "%g of %g", sqrt(d), sqrt(r));
        verdict(close, name, u, "outputs of evaluation differ", text);
        forget(&off);
    }
    forget(&on);
}

int main(int argc, char **argv)
{
    static const struct { const char *name; int fused; } networks[] = {
        /* mobilenetv2 has Clip behind its normalisations: nothing may happen */
        {"digits", 3}, {"resnet8", 4}, {"dscnn1d", 7}, {"mobilenetv2", 0},
    };
    static const setup setups[] = {
        {"plain", "auto", NULL, 1, NULL, false},    {"lanes", "auto", NULL, 2, NULL, false},   {NULL, "auto", NULL, 1, NULL, true},
        {"plain", "auto", "csr", 2, NULL, false},   {"lanes", "auto", "csr", 1, NULL, false},  {NULL, "auto", "csr", 2, NULL, true},
        {"lanes", "scalar", NULL, 1, NULL, false},  {"nhwc", "auto", NULL, 2, NULL, true},     {"plain", "auto", NULL, 2, "frozen", false},
        {"lanes", "auto", "csr", 2, "frozen", false},
    };
    const char *shared = getenv("MEST_SHARED");
    char path[700];
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
        bool digits = i == 0;
        if (digits)
            snprintf(path, sizeof path, "%s", argc > 1 ? argv[1] : "");
        else
            snprintf(path, sizeof path, "%s/fixtures/%s/model.onnx", shared ? shared : "", networks[i].name);
        if (access(path, R_OK)) {
            skipped++;
            printf("skip %s: %s\n", networks[i].name, digits ? "give the file as argument" : "not under MEST_SHARED");
            continue;
        }
        for (size_t k = 0; k < sizeof setups / sizeof *setups; k++)
            compare(path, networks[i].name, &setups[k], networks[i].fused);
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed ? 1 : passed ? 0 : 77;
}
