/* SPDX-License-Identifier: Apache-2.0 */
#include "dense_libs.h"

#include <cblas-openblas.h>
#include <dnnl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double shortest(void (*call)(void *), void *context)
{
    double best = 1e9, spent = 0;
    call(context);
    for (int i = 0; i < 3 || (i < 16 && spent < 0.05); i++) {
        double t = now();
        call(context);
        t = now() - t;
        best = t < best ? t : best;
        spent += t;
    }
    return best;
}

static float *numbers(size_t n)
{
    float *p = malloc(n * sizeof *p + 64);
    for (size_t i = 0; p && i < n; i++)
        p[i] = (float)(i % 61 + 1) / 64;
    if (!p)
        exit(1);
    return p;
}

/* ---- oneDNN ---- */
typedef struct call {
    dnnl_primitive_t primitive;
    dnnl_stream_t stream;
    dnnl_exec_arg_t args[3];
} call;

static void execute(void *context)
{
    call *c = context;
    if (dnnl_primitive_execute(c->primitive, c->stream, 3, c->args) != dnnl_success || dnnl_stream_wait(c->stream) != dnnl_success)
        exit(1);
}

static dnnl_memory_t memory_of(const_dnnl_primitive_desc_t pd, dnnl_query_t what, dnnl_engine_t engine)
{
    dnnl_memory_t memory = NULL;
    void *data = NULL;
    const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(pd, what, 0);
    if (!md || dnnl_memory_create(&memory, md, engine, DNNL_MEMORY_ALLOCATE) != dnnl_success || dnnl_memory_get_data_handle(memory, &data) != dnnl_success)
        exit(1);
    float *x = data;
    for (size_t i = 0; i < dnnl_memory_desc_get_size(md) / sizeof *x; i++)
        x[i] = (float)(i % 61 + 1) / 64;
    return memory;
}

double onednn_seconds(const bench_layer *l, int64_t batch, int pass)
{
    static dnnl_engine_t engine;
    static dnnl_stream_t stream;
    if (!engine && (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success || dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) != dnnl_success))
        return 0;
    const int64_t half = l->kernel / 2;
    const dnnl_dims_t x_dims = {batch, l->c, l->size, l->size}, w_dims = {l->m, l->c, l->kernel, l->kernel}, y_dims = {batch, l->m, l->size, l->size}, strides = {1, 1},
                      pads = {half, half};
    dnnl_memory_desc_t x, w, y;
    dnnl_memory_desc_init_by_tag(&x, 4, x_dims, dnnl_f32, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&w, 4, w_dims, dnnl_f32, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&y, 4, y_dims, dnnl_f32, dnnl_format_tag_any);
    dnnl_convolution_desc_t forward, other;
    dnnl_primitive_desc_t hint = NULL, pd = NULL;
    if (dnnl_convolution_forward_desc_init(&forward, dnnl_forward_training, dnnl_convolution_direct, &x, &w, NULL, &y, strides, pads, pads) != dnnl_success ||
        dnnl_primitive_desc_create(&hint, &forward, NULL, engine, NULL) != dnnl_success)
        return 0;
    if (pass == PASS_FORWARD)
        pd = hint;
    else if ((pass == PASS_DATA ? dnnl_convolution_backward_data_desc_init(&other, dnnl_convolution_direct, &x, &w, &y, strides, pads, pads)
                                : dnnl_convolution_backward_weights_desc_init(&other, dnnl_convolution_direct, &x, &w, NULL, &y, strides, pads, pads)) != dnnl_success ||
             dnnl_primitive_desc_create(&pd, &other, NULL, engine, hint) != dnnl_success)
        return 0;
    const bool data = pass == PASS_DATA, weights = pass == PASS_WEIGHTS;
    call c = {.stream = stream};
    if (dnnl_primitive_create(&c.primitive, pd) != dnnl_success)
        return 0;
    c.args[0] = (dnnl_exec_arg_t){data ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, memory_of(pd, data ? dnnl_query_diff_src_md : dnnl_query_src_md, engine)};
    c.args[1] = (dnnl_exec_arg_t){weights ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, memory_of(pd, weights ? dnnl_query_diff_weights_md : dnnl_query_weights_md, engine)};
    c.args[2] = (dnnl_exec_arg_t){pass == PASS_FORWARD ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST,
                                  memory_of(pd, pass == PASS_FORWARD ? dnnl_query_dst_md : dnnl_query_diff_dst_md, engine)};
    const double seconds = shortest(execute, &c);
    for (int i = 0; i < 3; i++)
        dnnl_memory_destroy(c.args[i].memory);
    dnnl_primitive_destroy(c.primitive);
    if (pd != hint)
        dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_desc_destroy(hint);
    return seconds;
}

/* ---- OpenBLAS ---- */
typedef struct product {
    const bench_layer *l;
    blasint rows;
    int pass;
    float *x, *w, *y;
} product;

/* Rows of x are positions: y = x w^T, dx = dy w, dw = dy^T x. */
static void multiply(void *context)
{
    const product *p = context;
    const blasint c = (blasint)p->l->c, m = (blasint)p->l->m;
    if (p->pass == PASS_FORWARD)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, p->rows, m, c, 1, p->x, c, p->w, c, 0, p->y, m);
    else if (p->pass == PASS_DATA)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, p->rows, c, m, 1, p->y, m, p->w, c, 0, p->x, c);
    else
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, m, c, p->rows, 1, p->y, m, p->x, c, 0, p->w, c);
}

double openblas_seconds(const bench_layer *l, int64_t batch, int pass)
{
    if (l->kernel != 1)
        return 0;
    const int64_t rows = batch * l->size * l->size;
    product p = {.l = l, .rows = (blasint)rows, .pass = pass, .x = numbers((size_t)(rows * l->c)), .w = numbers((size_t)(l->m * l->c)), .y = numbers((size_t)(rows * l->m))};
    const double seconds = shortest(multiply, &p);
    free(p.x);
    free(p.w);
    free(p.y);
    return seconds;
}

const char *dense_versions(void)
{
    static char text[160];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d, %.100s", v->major, v->minor, v->patch, openblas_get_config());
    return text;
}
