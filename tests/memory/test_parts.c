/* SPDX-License-Identifier: Apache-2.0 */
/* Steps in parts: the gradients of the parts add up to those of the whole batch, a last batch that is no multiple of anything included; clipping,
 * dropout, moving patterns and methods that look at dense gradients see the whole batch; BatchNormalization is that of the parts, one by one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/memory/nets.h"

static int passed, failed, skipped;

static void check(bool ok, const net *n, const char *how, const char *what, double value)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL %s (%s): %s (%g)\n", n->name, how, what, value);
}

/* A run of whole steps and one in parts of `part` samples, in the same words. */
static void compare(const net *n, net_how how, int64_t part, double tolerance, const char *name)
{
    net_result whole, parts, again;
    check(net_train(n, &how, &whole) == MEST_OK, n, name, whole.error.msg, 0);
    how.config.micro_batch = part;
    how.plan_first = true;
    const bool good = net_train(n, &how, &parts) == MEST_OK;
    check(good, n, name, parts.error.msg, 0);
    if (good) {
        const double distance = net_distance(&parts, &whole), loss = fabs(parts.loss - whole.loss) / (1e-3 + fabs(whole.loss));
        check(distance <= tolerance, n, name, "the weights are not those of whole steps", distance);
        check(loss <= 10 * tolerance, n, name, "the loss is not that of whole steps", loss);
        check(parts.steps == whole.steps, n, name, "another number of steps", (double)parts.steps);
        check(how.method || parts.calls_in_steps == 0, n, name, "allocations in the steps", (double)parts.calls_in_steps);
        check(parts.now == 0, n, name, "memory is left", (double)parts.now);
        check(parts.memory.micro_batch == part, n, name, "the plan does not say what a part is", (double)parts.memory.micro_batch);
        check((int64_t)parts.peak <= parts.memory.heap_bytes, n, name, "the allocator held more than was predicted",
              (double)parts.peak - (double)parts.memory.heap_bytes);
        how.config.threads = 1;
        check(net_train(n, &how, &again) == MEST_OK && again.weights == parts.weights, n, name, "one thread gives other bits", 0);
        net_result_free(&again);
    }
    net_result_free(&whole);
    net_result_free(&parts);
}

/* ---- gradients, with the statistics of BatchNormalization: parts, one by one, in a session of their own ---- */

typedef struct trained { mest_model *m; mest_session *s; float *gradient; size_t n; } trained;

static bool open_trained(const net *n, int64_t batch, int64_t part, trained *t, mest_error *err)
{
    char path[600];
    mest_train_config c;
    mest_train_config_init(&c);
    c.batch = batch;
    c.micro_batch = part;
    c.lr = 0;
    c.momentum = 0;
    c.threads = 2;
    c.loss = n->loss;
    c.keep_gradients = true;
    memset(t, 0, sizeof *t);
    return mest_model_load(&t->m, net_path(n, path, sizeof path), NULL, err) == MEST_OK && mest_session_create(&t->s, t->m, &c, err) == MEST_OK;
}

static bool step_and_read(const net *n, trained *t, int64_t first, int64_t count, mest_error *err)
{
    net_samples samples = {n, 64};
    const mest_source source = net_source(&samples);
    const mest_fetch how = {.struct_size = sizeof how};
    mest_source_info info = {.struct_size = sizeof info};
    static float inputs[65536], targets[65536];
    int64_t ids[64];
    for (int64_t i = 0; i < count; i++)
        ids[i] = first + i;
    if (source.info(source.self, &info, err) != MEST_OK || mest_session_expect(t->s, &info, err) != MEST_OK ||
        source.fetch(source.self, ids, count, &how, inputs, targets, err) != MEST_OK || mest_session_step(t->s, inputs, targets, count, NULL, err) != MEST_OK)
        return false;
    t->n = 0;
    for (int i = 0; i < mest_model_parameter_count(t->m); i++) {
        mest_tensor_info p = {.struct_size = sizeof p};
        size_t size = 1;
        if (mest_model_parameter(t->m, i, &p, err) != MEST_OK)
            return false;
        for (int k = 0; k < p.rank; k++)
            size *= (size_t)p.dim[k];
        t->gradient = realloc(t->gradient, (t->n + size + 1) * sizeof(float));
        if (!t->gradient)
            exit(2);
        if (mest_session_read_gradient(t->s, i, t->gradient + t->n, size, err) == MEST_OK)
            t->n += size;
    }
    return t->n > 0;
}

static void close_trained(trained *t)
{
    free(t->gradient);
    mest_session_destroy(t->s);
    mest_model_destroy(t->m);
}

/* A batch of 20 in parts of 8 (8, 8, 4 samples) has the gradient 0.4 a + 0.4 b + 0.2 c of its parts, and leaves the statistics that they leave. */
static void gradients(const net *n)
{
    static const int64_t size[3] = {8, 8, 4};
    mest_error err = {0};
    trained parts, alone;
    double *sum = NULL, off = 0, all = 0;
    bool good = open_trained(n, 24, 8, &parts, &err) && step_and_read(n, &parts, 0, 20, &err);
    check(good, n, "gradients", err.msg, 0);
    good = good && open_trained(n, 8, 0, &alone, &err);
    sum = good ? calloc(parts.n, sizeof *sum) : NULL;
    for (int k = 0, first = 0; good && sum && k < 3; first += (int)size[k++]) {
        good = step_and_read(n, &alone, first, size[k], &err) && alone.n == parts.n;
        for (size_t i = 0; good && i < parts.n; i++)
            sum[i] += (double)size[k] / 20 * (double)alone.gradient[i];
    }
    check(good, n, "gradients", err.msg, 0);
    for (size_t i = 0; good && i < parts.n; i++) {
        off += pow(sum[i] - (double)parts.gradient[i], 2);
        all += sum[i] * sum[i];
    }
    check(good && all > 0 && sqrt(off / all) < 1e-6, n, "gradients", "they are not those of the parts", sqrt(off / all));
    net_result a = {.weights = 0}, b = {.weights = 0}; /* the learning rate is 0: only statistics have moved */
    good = good && net_read(parts.m, &a, &err) == MEST_OK && net_read(alone.m, &b, &err) == MEST_OK;
    check(good && a.weights == b.weights, n, "gradients", "the running statistics are not those of the parts one by one", 0);
    net_result_free(&a);
    net_result_free(&b);
    free(sum);
    close_trained(&parts);
    close_trained(&alone);
}

/* ---- going on ---- */

static void resume(const net *n)
{
    char file[] = "/tmp/mest-parts-XXXXXX";
    const int fd = mkstemp(file);
    net_how how;
    net_result straight, first, second;
    net_how_init(&how);
    how.config.epochs = 2;
    how.config.micro_batch = 4;
    how.config.loss = n->loss;
    check(fd >= 0 && net_half(n, &how.config, NULL, NULL, &straight) == MEST_OK, n, "resume", straight.error.msg, 0);
    check(net_half(n, &how.config, NULL, file, &first) == MEST_OK, n, "resume", first.error.msg, 0);
    how.config.micro_batch = 0; /* nothing asked for: as it was */
    check(net_half(n, &how.config, file, NULL, &second) == MEST_OK && second.weights == straight.weights, n, "resume", second.error.msg, 0);
    net_result_free(&second);
    how.config.micro_batch = 8;
    check(net_half(n, &how.config, file, NULL, &second) == MEST_E_STATE && strstr(second.error.msg, "micro_batch"), n, "resume", second.error.msg, 0);
    net_result_free(&second);
    how.config.micro_batch = 5; /* no divisor of 16 */
    check(net_half(n, &how.config, NULL, NULL, &second) == MEST_E_ARGUMENT, n, "config", second.error.msg, 0);
    net_result_free(&straight);
    net_result_free(&first);
    net_result_free(&second);
    if (fd >= 0)
        close(fd);
    (void)unlink(file);
}

int main(int argc, char **argv)
{
    char path[600];
    for (const net *n = nets; n->name; n++) {
        net_how how;
        if (argc > 1 && strcmp(argv[1], n->name))
            continue;
        if (!net_path(n, path, sizeof path)) {
            skipped++;
            continue;
        }
        if (strcmp(n->name, "dropout") && strcmp(n->name, "mixer")) /* their random numbers are those of the batch */
            gradients(n);
        net_how_init(&how);
        how.samples = 38; /* the last batch has 6 */
        how.epochs = 1;
        how.config.batch_norm = "frozen"; /* only then are parts and whole steps the same */
        compare(n, how, 8, 1e-4, "dense");
        how.config.clip_norm = 0.1;
        compare(n, how, 4, 1e-4, "dense, clipped, parts of 4");
        how.scheme = "block4";
        how.scheduler = true;
        how.epochs = 2;
        compare(n, how, 8, 2e-4, "block4, mest");
        how.scheduler = false;
        how.scheme = "csr";
        how.method = "rigl";
        how.method_options = "every=2";
        if (!strcmp(n->name, "mixer") || !strcmp(n->name, "residual") || !strcmp(n->name, "dropout"))
            compare(n, how, 4, 2e-4, "csr, rigl");
        how.method = "snfs";
        how.method_options = "window=3";
        if (!strcmp(n->name, "mixer") || !strcmp(n->name, "residual"))
            compare(n, how, 8, 2e-4, "csr, snfs");
        if (!n->shared)
            resume(n);
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed ? 1 : 0;
}
