/* SPDX-License-Identifier: Apache-2.0 */
/* What the importer's tests share: paths, loading, a capped counting allocator, the second stage (inference with pinned shapes). */
#ifndef MEST_TESTS_IMPORT_FIXTURE_H
#define MEST_TESTS_IMPORT_FIXTURE_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/infer.h"
#include "runtime/model.h"

#define OK(call)                                                                                    \
    do {                                                                                            \
        mest_error e_ = { 0 };                                                                      \
        mest_error *err = &e_;                                                                      \
        mest_status s_ = (call);                                                                    \
        ck_assert_msg(s_ == MEST_OK, "%s: %s: %s", #call, mest_status_text(s_), e_.msg);            \
    } while (0)

/* ---- memory: counted, with a cap, and with a failure on demand ---- */
typedef struct meter {
    int64_t now, peak, calls, fail_at, cap;
} meter;

static inline void *meter_allocate(void *user, size_t size, size_t align)
{
    meter *m = user;
    if (m->calls++ == m->fail_at || (m->cap && m->now + (int64_t)size > m->cap))
        return NULL;
    void *p = aligned_alloc(align, (size + align - 1) / align * align);
    if (p) {
        m->now += (int64_t)size;
        m->peak = m->now > m->peak ? m->now : m->peak;
    }
    return p;
}

static inline void meter_release(void *user, void *p, size_t size)
{
    ((meter *)user)->now -= (int64_t)size;
    free(p);
}

static inline mest_allocator meter_allocator(meter *m)
{
    m->fail_at = -1;
    return (mest_allocator){ sizeof(mest_allocator), m, meter_allocate, meter_release };
}

/* ---- paths ---- */
static inline const char *shared_path(char buf[1024], const char *rest)
{
    snprintf(buf, 1024, "%s/fixtures/%s", getenv("MEST_SHARED"), rest);
    return buf;
}

static inline const char *data_path(char buf[1024], const char *rest)
{
    snprintf(buf, 1024, "%s/import/%s", getenv("MEST_TEST_DATA") ? getenv("MEST_TEST_DATA") : "tests/data", rest);
    return buf;
}

/* A fresh name for a file that the test removes again. */
static inline const char *temporary(char buf[1024])
{
    snprintf(buf, 1024, "%s/mest-import-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : P_tmpdir);
    int fd = mkstemp(buf);
    ck_assert(fd >= 0);
    close(fd);
    return buf;
}

/* The shared fixtures are not part of the source: without them their tests say so and pass. */
static inline bool no_shared(const char *test)
{
    if (getenv("MEST_SHARED"))
        return false;
    printf("%s: skipped, MEST_SHARED is not set (fixtures are not there)\n", test);
    return true;
}

static inline mest_model *load(const char *path)
{
    mest_model *m;
    OK(mest_model_load(&m, path, NULL, err));
    return m;
}

static inline const mest_param *find_param(const mest_model *m, const char *name)
{
    for (int i = 0; i < m->n_params; i++)
        if (!strcmp(m->params[i].name, name))
            return &m->params[i];
    return NULL;
}

static inline int count_ops(const mest_model *m, const char *op)
{
    int n = 0;
    for (int i = 0; i < m->graph.n_nodes; i++)
        n += !strcmp(m->graph.nodes[i].op->name, op);
    return n;
}

/* What building a program does first: free dimensions become `batch`, types are inferred, constants folded. */
static inline mest_status infer_model(mest_model *m, int64_t batch, mest_error *err)
{
    mest_graph g;
    mest_status status = mest_graph_copy(&g, &m->graph, err);
    if (status != MEST_OK)
        return status;
    for (int i = 0; i < g.n_inputs; i++) {
        mest_shape *s = &g.values[g.inputs[i]].type.shape;
        for (int k = 0; k < s->rank; k++)
            if (s->dim[k] < 0)
                s->dim[k] = batch;
    }
    status = mest_infer_graph(&g, true, (size_t)16 << 20, err);
    mest_graph_free(&g);
    return status;
}

#endif
