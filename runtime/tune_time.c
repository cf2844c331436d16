/* SPDX-License-Identifier: Apache-2.0 */
/* How long a kernel takes, on operands of the shapes that a program has. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "runtime/program.h"
#include "runtime/tune.h"

enum { MOST = 16, FAST_SAMPLES = 16, FAST_IMAGES = 4, SLACK = 64 };

/* ---- what it depends on ---- */
static bool is_act(uint32_t mask, int i) { return i < 32 && (mask >> i & 1); }

static size_t put_type(char *text, size_t size, const mest_type *t, const mest_sparse *s)
{
    if (!t)
        return (size_t)snprintf(text, size, " -");
    size_t n = (size_t)snprintf(text, size, " %s", s ? s->name : t->layout.kind == MEST_PIXEL ? "p" : t->dtype == MEST_F32 ? "f" : "i");
    if (t->layout.kind == MEST_PIXEL && n < size)
        n += (size_t)snprintf(text + n, size - n, "%d", t->layout.v);
    for (int i = 0; i < t->shape.rank && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%c%" PRId64, i ? 'x' : ':', t->shape.dim[i]);
    if (s && n < size) /* to a percent of what may be stored, which does not move during a run */
        n += (size_t)snprintf(text + n, size - n, "@%.0f", 100.0 * (double)(s->cap_units * s->unit_elements) / ((double)s->rows * (double)s->cols));
    return n;
}

bool mest_tune_key(const mest_kernel_query *q, const mest_kernel *kernel, mest_tune_mode mode, char key[MEST_TUNE_KEY])
{
    size_t n = (size_t)snprintf(key, MEST_TUNE_KEY, "%s %s %s%s", mode == MEST_TUNE_FULL ? "full" : "fast", kernel->name, q->node->op->name, q->learns ? " learns" : "");
    for (int i = 0; i < q->n_in && n < MEST_TUNE_KEY; i++) {
        n += put_type(key + n, MEST_TUNE_KEY - n, q->in[i], q->sparse[i]);
        if (q->in_fixed[i] && n < MEST_TUNE_KEY)
            n += (size_t)snprintf(key + n, MEST_TUNE_KEY - n, "!");
    }
    if (n < MEST_TUNE_KEY)
        n += (size_t)snprintf(key + n, MEST_TUNE_KEY - n, " ->");
    for (int i = 0; i < q->n_out && n < MEST_TUNE_KEY; i++)
        n += put_type(key + n, MEST_TUNE_KEY - n, q->out[i], q->out[i] && q->out[i]->layout.kind == MEST_SPARSE && q->n_in > 1 ? q->sparse[1] : NULL);
    return n < MEST_TUNE_KEY;
}

/* ---- operands ---- */
typedef struct operand {
    mest_type type;
    void *data;
    size_t bytes;
} operand;

typedef struct trial {
    mest_heap *heap;
    operand in[MOST], out[MOST];
    int n_in, n_out;
} trial;

static void free_operands(trial *t)
{
    for (int i = 0; i < t->n_in; i++)
        mest_free(t->heap, t->in[i].data, t->in[i].bytes, 1);
    for (int i = 0; i < t->n_out; i++)
        mest_free(t->heap, t->out[i].data, t->out[i].bytes, 1);
}

/* Memory with something in it: pages that were never written are all one. */
static bool make(trial *t, operand *o, const mest_sparse *s)
{
    int64_t n = 0;
    if (s)
        n = s->cap_units * s->unit_elements;
    else if (!mest_type_storage(&o->type, &n))
        return false;
    o->bytes = (size_t)n * (s ? sizeof(mest_real) : mest_dtype_size(o->type.dtype)) + SLACK;
    o->data = mest_calloc(t->heap, o->bytes, 1);
    if (!o->data) {
        o->bytes = 0;
        return false;
    }
    mest_real *x = o->data;
    for (int64_t i = 0; i < n && o->type.dtype == MEST_F32; i++)
        x[i] = (mest_real)((double)(i % 61 + 1) / 64);
    if (o->type.layout.kind == MEST_PIXEL)
        mest_pixel_clear_halo(&o->type, o->data);
    return true;
}

/* Samples of all activations, 0 if they do not agree. */
static int64_t samples_of(const mest_kernel_query *q)
{
    int64_t n = -1;
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < (side ? q->n_out : q->n_in); i++) {
            const mest_type *t = side ? q->out[i] : q->in[i];
            if (!t || !is_act(side ? q->node->op->act_out : q->node->op->act_in, i) || t->layout.kind == MEST_SPARSE)
                continue;
            if (t->shape.rank < 2 || (n >= 0 && t->shape.dim[0] != n))
                return 0;
            n = t->shape.dim[0];
        }
    return n < 0 ? 0 : n;
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Samples that a kernel works on at a time. */
static int64_t lanes_of(const mest_kernel_query *q)
{
    return q->n_in && q->in[0] && q->in[0]->layout.kind == MEST_PIXEL ? q->in[0]->layout.v : 1;
}

/* Copies of the types with fewer samples and the halo the kernel wants. */
static void set_types(const mest_kernel_query *q, const mest_kernel *kernel, trial *t, int64_t all, int64_t samples)
{
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < (side ? q->n_out : q->n_in); i++) {
            operand *o = side ? &t->out[i] : &t->in[i];
            const mest_type *given = side ? q->out[i] : q->in[i];
            if (!given)
                continue;
            o->type = *given;
            if (samples < all && is_act(side ? q->node->op->act_out : q->node->op->act_in, i))
                o->type.shape.dim[0] = samples;
            uint8_t pad[4] = {0};
            if (!side && o->type.layout.kind == MEST_PIXEL && kernel->halo) {
                kernel->halo(q, i, pad);
                o->type.layout.top = pad[0], o->type.layout.left = pad[1], o->type.layout.bottom = pad[2], o->type.layout.right = pad[3];
            }
        }
}

/* Of this thread: what else the machine does is nobody's speed. */
static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static mest_status run_once(const mest_kernel *kernel, mest_args *a, double *seconds)
{
    const double from = thread_seconds();
    const mest_status status = kernel->run(a);
    *seconds = thread_seconds() - from;
    return status;
}

/* The shortest of a few runs after a first one, which builds lists and packs. */
static mest_status time_runs(const mest_kernel *kernel, mest_args *a, mest_tune_mode mode, double *seconds)
{
    const double enough = mode == MEST_TUNE_FULL ? 0.05 : 0.004;
    const int least = mode == MEST_TUNE_FULL ? 3 : 1;
    double spent = 0, one;
    MEST_TRY(run_once(kernel, a, &one));
    *seconds = INFINITY;
    for (int i = 0; i < least || (i < 16 && spent < enough); i++) {
        MEST_TRY(run_once(kernel, a, &one));
        *seconds = one < *seconds ? one : *seconds;
        spent += one;
    }
    return MEST_OK;
}

static bool run_trial(const mest_kernel_query *q, const mest_kernel *kernel, trial *t, mest_tune_mode mode, double *seconds)
{
    const mest_type *in[MOST] = {NULL}, *out[MOST] = {NULL};
    mest_tensor tin[MOST], tout[MOST];
    memset(tin, 0, sizeof tin);
    memset(tout, 0, sizeof tout);
    for (int i = 0; i < q->n_in; i++) {
        const mest_sparse *s = q->sparse[i];
        if (!q->in[i])
            continue;
        in[i] = &t->in[i].type;
        if (!s && q->in[i]->layout.kind == MEST_SPARSE) /* the gradient of a sparse weight: no layer's kernel */
            return false;
        if (!s && !q->in_data[i] && !make(t, &t->in[i], NULL))
            return false;
        int64_t count = s ? s->stored : 0;
        if (!s && !mest_shape_count(&in[i]->shape, &count))
            return false;
        tin[i] = (mest_tensor){.type = in[i], .data = s ? (void *)s->values : q->in_data[i] ? (void *)(uintptr_t)q->in_data[i] : t->in[i].data, .count = (size_t)count, .sparse = (mest_sparse *)(uintptr_t)s,
                               .value_version = s ? &s->value_version : NULL};
    }
    for (int i = 0; i < q->n_out; i++) {
        const mest_sparse *s = q->out[i] && q->out[i]->layout.kind == MEST_SPARSE && q->n_in > 1 ? q->sparse[1] : NULL;
        if (!q->out[i])
            continue;
        out[i] = &t->out[i].type;
        int64_t count = s ? s->stored : 0;
        if ((q->out[i]->layout.kind == MEST_SPARSE && !s) || !make(t, &t->out[i], s) || (!s && !mest_shape_count(&out[i]->shape, &count)))
            return false;
        tout[i] = (mest_tensor){.type = out[i], .data = t->out[i].data, .count = (size_t)count, .sparse = (mest_sparse *)(uintptr_t)s};
    }
    mest_kernel_query own = *q;
    mest_derived *derived = NULL;
    mest_error err = {MEST_OK, ""};
    void *state = NULL, *scratch = NULL;
    size_t scratch_bytes = 0;
    const char *why = "";
    own.in = in;
    own.out = out;
    own.threads = NULL; /* one thread: the choice must not depend on their number */
    mest_status status = mest_derived_create(&derived, q->heap, &err);
    own.derived = derived;
    if (status == MEST_OK && !kernel->fits(&own, &why))
        status = MEST_E_UNSUPPORTED;
    if (status == MEST_OK && kernel->prepare)
        status = kernel->prepare(&own, &state, &scratch_bytes, &err);
    if (status == MEST_OK && !(scratch = mest_alloc(q->heap, scratch_bytes + SLACK, 1)))
        status = MEST_E_NOMEM;
    const mest_run run = {.seed = 1};
    mest_args a = {.node = q->node, .params = q->params, .n_in = q->n_in, .n_out = q->n_out, .in = tin, .out = tout, .state = state, .scratch = scratch, .run = &run, .err = &err};
    if (status == MEST_OK)
        status = time_runs(kernel, &a, mode, seconds);
    if (state && kernel->release)
        kernel->release(state, q->heap);
    if (scratch)
        mest_free(q->heap, scratch, scratch_bytes + SLACK, 1);
    mest_derived_destroy(derived);
    return status == MEST_OK && isfinite(*seconds) && *seconds > 0;
}

bool mest_tune_time(const mest_kernel_query *q, const mest_kernel *kernel, mest_tune_mode mode, double *seconds)
{
    trial t = {.heap = q->heap, .n_in = q->n_in, .n_out = q->n_out};
    if (q->n_in > MOST || q->n_out > MOST)
        return false;
    const int64_t all = samples_of(q), few = q->in[0] && q->in[0]->layout.kind == MEST_PIXEL && lanes_of(q) == 1 ? FAST_IMAGES : FAST_SAMPLES;
    const int64_t samples = mode == MEST_TUNE_FULL || all < few ? all : few;
    set_types(q, kernel, &t, all, samples);
    const bool good = run_trial(q, kernel, &t, mode, seconds);
    if (good && samples < all)
        *seconds *= lanes_of(q) > 1 ? (double)ceil_div(all, lanes_of(q)) / (double)ceil_div(samples, lanes_of(q)) : (double)all / (double)samples;
    free_operands(&t);
    return good;
}
