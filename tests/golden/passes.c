/* SPDX-License-Identifier: Apache-2.0 */
/* Passes leave results as they are: for every network of a list and every optional pass that does something there, outputs of evaluation, all
 * gradients of a step and ten steps of training are compared with the pass on and off; and each pass finds what the list says it must find.
 * With a sparse scheme that is done for every instruction set there is (in double: for portable code), for it brings kernels that fuse. Usage: passes
 * FOLDER; FOLDER/expected.txt has lines "FILE LOSS [PASS=COUNT ..]"; FILE may begin with "shared:", under the environment's
 * MEST_SHARED. Ends with "N passed, N failed, N skipped". */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mest/train.h"
#include "runtime/cpu.h"
#include "runtime/tensor.h"

/* The proof is in double: only the constants of the file are rounded there (1 / sqrt 2, 1/6), and what the API hands out as float. In float,
 * where kernels and layouts may differ with the nodes and the processor, sums are rounded in another order; a bias in front of a
 * BatchNormalization, whose gradient is 0, has nothing but that. */
static const double most_output = MEST_REAL_IS_DOUBLE ? 2e-7 : 5e-6, most_gradient = MEST_REAL_IS_DOUBLE ? 1e-6 : 5e-4;

enum { BATCH = 5, STEPS = 10, MANY = 64 };
enum { SURE_STEPS = 4 }; /* in float; later on rounding may decide on which side of a Relu's kink a number falls */

static int passed, failed, skipped;

typedef struct result {
    float *out, *grads, *after; /* all parameters one after the other */
    bool *stored;               /* element of a dense parameter, or one that a sparse one stores */
    size_t n_out, n_params, count;
    size_t size[2048];
    double loss[STEPS];
    int nodes;
    struct { char name[40]; int count; } pass[MANY];
    int n_pass;
} result;

static void *get(size_t n)
{
    void *p = calloc(n + 1, 1);
    if (!p) {
        perror("memory");
        exit(2);
    }
    return p;
}

static void forget(result *r)
{
    free(r->out);
    free(r->grads);
    free(r->after);
    free(r->stored);
    memset(r, 0, sizeof *r);
}

static void note_pass(void *user, const mest_pass_info *p)
{
    result *r = user;
    bool known = false;
    for (int i = 0; i < r->n_pass; i++)
        known |= !strcmp(r->pass[i].name, p->name);
    if (!p->required && p->count && !known && r->n_pass < MANY) {
        snprintf(r->pass[r->n_pass].name, sizeof r->pass[0].name, "%s", p->name);
        r->pass[r->n_pass++].count = p->count;
    }
}

static uint32_t state;
static float uniform(void)
{
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (float)(1 << 23) - 1;
}

/* Loads, makes sparse, trains. level: what the processor is taken to have. dense: where the weights are written as they are before training,
 * densely; NULL: nowhere. */
static mest_status train(const char *path, const char *loss, const char *scheme, const char *level, const char *no_fuse, const char *dense, result *r,
                         mest_error *err)
{
    mest_model *m = NULL;
    mest_session *s = NULL;
    mest_tensor_info in = {.struct_size = sizeof in}, p = {.struct_size = sizeof p};
    mest_train_config c;
    mest_plan_info plan = {.struct_size = sizeof plan};
    int rank = 0;
    int64_t dim[MEST_MAX_RANK], per = 1, outs = 1, labels = 1, classes = 1;
    void *x = NULL, *y = NULL;
    memset(r, 0, sizeof *r);
    mest_status status = mest_model_load(&m, path, NULL, err);
    if (status == MEST_OK)
        status = mest_model_input(m, 0, &in, err);
    if (status == MEST_OK && scheme) {
        mest_sparsity sp;
        mest_sparsity_init(&sp);
        sp.scheme = scheme;
        sp.sparsity = 0.6;
        sp.dense_layers = "none";
        status = mest_model_sparsify(m, &sp, err);
    }
    mest_train_config_init(&c);
    const int64_t batch = in.dim[0] > 0 ? in.dim[0] : BATCH;
    c.batch = batch;
    c.loss = loss;
    c.lr = 0.02;
    c.threads = 1;
    c.keep_gradients = true;
    c.no_fuse = no_fuse;
    c.kernels = level;
    if (status == MEST_OK)
        status = mest_session_create(&s, m, &c, err);
    if (status == MEST_OK)
        status = mest_session_output_shape(s, &rank, dim, err);
    if (status == MEST_OK) {
        for (int i = 1; i < in.rank; i++)
            per *= in.dim[i];
        for (int i = 0; i < rank; i++)
            outs *= dim[i];
        classes = rank ? dim[rank - 1] : 1;
        labels = strcmp(loss, "ce") ? outs : outs / classes;
        state = 77;
        x = get((size_t)(batch * per) * 8);
        y = get((size_t)(batch * labels) * 8);
        for (int64_t i = 0; i < batch * per; i++) {
            if (in.dtype == 7)
                ((int64_t *)x)[i] = (int64_t)(fabsf(uniform()) * 9.99f);
            else
                ((mest_real *)x)[i] = 2 * uniform();
        }
        for (int64_t i = 0; i < batch * labels; i++) {
            if (!strcmp(loss, "ce"))
                ((int64_t *)y)[i] = (i * 7) % classes;
            else
                ((mest_real *)y)[i] = 0.5f + 0.5f * uniform();
        }
        r->n_out = (size_t)(batch * outs);
        r->out = get(2 * r->n_out * sizeof *r->out);
        status = mest_session_infer(s, x, batch, r->out, r->n_out, err);
    }
    r->n_params = (size_t)mest_model_parameter_count(m);
    for (size_t i = 0; i < r->n_params && i < 2048 && status == MEST_OK; i++) {
        status = mest_model_parameter(m, (int)i, &p, err);
        r->size[i] = 1;
        for (int k = 0; k < p.rank; k++)
            r->size[i] *= (size_t)p.dim[k];
        r->count += r->size[i];
    }
    r->grads = get(r->count * sizeof *r->grads);
    r->after = get(r->count * sizeof *r->after);
    r->stored = get(r->count * sizeof *r->stored);
    for (size_t i = 0, at = 0; i < r->n_params && i < 2048 && status == MEST_OK; at += r->size[i++]) {
        status = mest_model_parameter(m, (int)i, &p, err);
        if (status == MEST_OK)
            status = mest_model_read_parameter(m, (int)i, r->after + at, r->size[i], err);
        for (size_t k = at; k < at + r->size[i]; k++)
            r->stored[k] = !strcmp(p.scheme, "dense") || r->after[k] != 0;
    }
    const mest_export_options export = {.struct_size = sizeof export};
    if (status == MEST_OK && dense)
        status = mest_model_export(m, dense, &export, err);
    for (int step = 0; step < STEPS && status == MEST_OK; step++) {
        mest_metrics metrics = {.struct_size = sizeof metrics};
        status = mest_session_step(s, x, y, batch, &metrics, err);
        r->loss[step] = metrics.loss;
        for (size_t i = 0, at = 0; step == 0 && i < r->n_params && status == MEST_OK; at += r->size[i++])
            if (mest_model_parameter(m, (int)i, &p, err) == MEST_OK && p.role == MEST_ROLE_TRAINABLE)
                (void)!mest_session_read_gradient(s, (int)i, r->grads + at, r->size[i], NULL); /* none: the loss does not depend on it */
    }
    for (size_t i = 0, at = 0; i < r->n_params && status == MEST_OK; at += r->size[i++])
        status = mest_model_read_parameter(m, (int)i, r->after + at, r->size[i], err);
    if (status == MEST_OK)
        status = mest_session_passes(s, MEST_PROGRAM_TRAIN, batch, note_pass, r, err);
    if (status == MEST_OK) /* what only inference has comes behind */
        status = mest_session_passes(s, MEST_PROGRAM_INFER, batch, note_pass, r, err);
    if (status == MEST_OK)
        status = mest_session_infer(s, x, batch, r->out + r->n_out, r->n_out, err);
    if (status == MEST_OK)
        status = mest_session_explain(s, MEST_PROGRAM_TRAIN, batch, NULL, NULL, &plan, err);
    r->nodes = plan.n_fused_nodes;
    mest_session_destroy(s);
    mest_model_destroy(m);
    free(x);
    free(y);
    return status;
}

static void verdict(bool ok, const char *file, const char *pass, const char *what, const char *more)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL %s, %s: %s: %s\n", file, pass, what, more);
}

/* Largest relative distance of a parameter's numbers; the norm of all of them sets a floor. */
static double distance(const float *a, const float *b, const result *r)
{
    double all = 0, worst = 0;
    for (size_t i = 0; i < r->count; i++)
        all += isfinite(b[i]) ? (double)b[i] * (double)b[i] : 0; /* constants may hold -inf */
    for (size_t i = 0, at = 0; i < r->n_params; at += r->size[i++]) {
        double d = 0, n = 0;
        for (size_t k = at; k < at + r->size[i]; k++) {
            d += a[k] == b[k] ? 0 : ((double)a[k] - (double)b[k]) * ((double)a[k] - (double)b[k]);
            n += isfinite(b[k]) ? (double)b[k] * (double)b[k] : 0;
        }
        double e = sqrt(d) / (sqrt(n) + 1e-3 * sqrt(all) + 1e-30);
        worst = e > worst || isnan(e) ? e : worst;
    }
    return worst;
}

static void limit(const char *file, const char *pass, const char *what, double got, double most)
{
    char text[80];
    snprintf(text, sizeof text, "%.3g > %.3g", got, most);
    verdict(got <= most, file, pass, what, text);
}

static void compare(const char *file, const char *pass, const result *on, const result *off)
{
    double d = 0, n = 0, loss = 0;
    for (size_t i = 0; i < on->n_out; i++) {
        d += ((double)on->out[i] - (double)off->out[i]) * ((double)on->out[i] - (double)off->out[i]);
        n += (double)off->out[i] * (double)off->out[i];
    }
    for (int i = 0; i < (MEST_REAL_IS_DOUBLE ? STEPS : SURE_STEPS); i++)
        loss = fmax(loss, fabs(on->loss[i] - off->loss[i]) / (1e-3 + fabs(off->loss[i])));
    limit(file, pass, "outputs", sqrt(d / (n + 1e-30)), most_output);
    limit(file, pass, "gradients", distance(on->grads, off->grads, on), most_gradient);
    limit(file, pass, "losses", loss, most_gradient);
    /* Passes that only inference has leave training as it is, to the bit: outputs of the trained network can be compared. */
    const bool inference = !strcmp(pass, "conv_bn") || !strcmp(pass, "conv_act");
    d = n = 0;
    for (size_t i = on->n_out; i < 2 * on->n_out && (MEST_REAL_IS_DOUBLE || inference); i++) {
        d += ((double)on->out[i] - (double)off->out[i]) * ((double)on->out[i] - (double)off->out[i]);
        n += (double)off->out[i] * (double)off->out[i];
    }
    limit(file, pass, "outputs after ten steps", sqrt(d / (n + 1e-30)), inference ? most_output : most_gradient);
    if (MEST_REAL_IS_DOUBLE)
        limit(file, pass, "parameters after ten steps", distance(on->after, off->after, on), most_gradient);
}

/* The sparse network against the same weights kept densely: equal outputs, and equal gradients wherever something is stored. */
static void compare_dense(const char *file, const char *loss, const char *level, const char *dense, const result *sparse)
{
    static result twin;
    mest_error err = {0};
    if (train(dense, loss, NULL, level, NULL, NULL, &twin, &err) != MEST_OK || twin.count != sparse->count) {
        verdict(false, file, "dense twin", "training", err.msg);
        return;
    }
    double d = 0, n = 0;
    for (size_t i = 0; i < sparse->n_out; i++) {
        d += ((double)sparse->out[i] - (double)twin.out[i]) * ((double)sparse->out[i] - (double)twin.out[i]);
        n += (double)twin.out[i] * (double)twin.out[i];
    }
    for (size_t i = 0; i < twin.count; i++)
        if (!sparse->stored[i]) {
            verdict(sparse->grads[i] == 0, file, "dense twin", "gradient", "where nothing is stored");
            twin.grads[i] = 0;
        }
    limit(file, "dense twin", "outputs", sqrt(d / (n + 1e-30)), most_output);
    limit(file, "dense twin", "gradients", distance(sparse->grads, twin.grads, sparse), most_gradient);
    forget(&twin);
}

/* Passes that depend on the kernels that dense weights get, so on the processor: the list need not name them. */
static int by_kernel(const result *r)
{
    int n = 0;
    for (int i = 0; i < r->n_pass; i++)
        n += !strcmp(r->pass[i].name, "conv_moments") || !strcmp(r->pass[i].name, "conv_grad") || !strcmp(r->pass[i].name, "bn_load") || !strcmp(r->pass[i].name, "bn_add");
    return n;
}

/* list: what each pass must find, as NAME=COUNT .. */
static void check_level(const char *name_of_file, const char *path, const char *loss, const char *scheme, const char *level, char *list)
{
    char file[300];
    snprintf(file, sizeof file, "%s%s%s, %s", name_of_file, scheme ? " " : "", scheme ? scheme : "", level);
    mest_error err = {0};
    static result on, off;
    char dense[] = "/tmp/mest-passes-XXXXXX";
    const int fd = scheme ? mkstemp(dense) : -1;
    if (fd >= 0)
        close(fd);
    const mest_status status = train(path, loss, scheme, level, NULL, fd >= 0 ? dense : NULL, &on, &err);
    if (status == MEST_OK && fd >= 0)
        compare_dense(file, loss, level, dense, &on);
    if (fd >= 0)
        unlink(dense);
    if (status != MEST_OK) {
        verdict(false, file, "all on", "training", err.msg);
        return;
    }
    int n_expected = 0;
    for (char *e = strtok(list, " \n"); e; e = strtok(NULL, " \n")) {
        char *eq = strchr(e, '='), text[60];
        int got = 0;
        if (!eq)
            continue;
        *eq = 0;
        for (int i = 0; i < on.n_pass; i++)
            if (!strcmp(on.pass[i].name, e))
                got = on.pass[i].count;
        snprintf(text, sizeof text, "%d places, not %s", got, eq + 1);
        verdict(got == atoi(eq + 1), file, e, "found", text);
        n_expected += atoi(eq + 1) > 0;
    }
    char found[400] = "";
    for (int i = 0; i < on.n_pass; i++)
        snprintf(found + strlen(found), sizeof found - strlen(found), " %s=%d", on.pass[i].name, on.pass[i].count);
    verdict(n_expected + (scheme ? 0 : by_kernel(&on)) >= on.n_pass && n_expected <= on.n_pass, file, "all", "the list must name every pass that does something", found);
    for (int i = on.n_pass > 1 ? -1 : 0; i < on.n_pass; i++) {
        const char *name = i < 0 ? "all" : on.pass[i].name;
        if (train(path, loss, scheme, level, name, NULL, &off, &err) == MEST_OK)
            compare(file, name, &on, &off);
        else if (scheme && strstr(err.msg, "pass"))
            passed++; /* a sparse weight that cannot be reached without the pass: said so, and no dense copy made */
        else
            verdict(false, file, name, "training with the pass off", err.msg);
        for (int k = 0; k < off.n_pass; k++)
            verdict(i >= 0 ? strcmp(off.pass[k].name, name) != 0 : false, file, name, "is off", "and yet did something");
        forget(&off);
    }
    forget(&on);
}

static void check(const char *folder, char *line)
{
    char *file = strtok(line, " \n"), *loss = strtok(NULL, " \n"), path[800];
    const char *shared = getenv("MEST_SHARED"), *scheme = NULL;
    if (!file || *file == '#' || !loss)
        return;
    char *colon = strchr(loss, ':'); /* LOSS:SCHEME */
    if (colon) {
        *colon = 0;
        scheme = colon + 1;
    }
    if (!strncmp(file, "shared:", 7))
        snprintf(path, sizeof path, "%s/%s", shared ? shared : "", file + 7);
    else
        snprintf(path, sizeof path, "%s/%s", folder, file);
    if (access(path, R_OK)) {
        skipped++;
        printf("skip %s: %s\n", file, strncmp(file, "shared:", 7) ? "no such file" : "not under MEST_SHARED");
        return;
    }
    char *rest = strtok(NULL, "\n"), list[400];
#if MEST_REAL_IS_DOUBLE
    const char *const levels[] = {scheme ? "scalar" : "auto", NULL};
#else
    const char *const levels[] = {"auto", scheme ? "avx2" : NULL, "scalar", NULL};
#endif
    for (int i = 0; levels[i]; i++) {
        unsigned mask;
        if (mest_cpu_limit(levels[i], &mask, NULL) != MEST_OK)
            continue;
        snprintf(list, sizeof list, "%s", rest ? rest : "");
        check_level(file, path, loss, scheme, levels[i], list);
    }
}

int main(int argc, char **argv)
{
    char path[700], line[1000];
    snprintf(path, sizeof path, "%s/expected.txt", argc > 1 ? argv[1] : ".");
    FILE *f = fopen(path, "r");
    if (!f) {
        perror(path);
        return 2;
    }
    while (fgets(line, sizeof line, f))
        check(argv[1], line);
    fclose(f);
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed ? 1 : passed ? 0 : 77;
}
