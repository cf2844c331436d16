/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/hostile/hostile.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/infer.h"
#include "runtime/model.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif
#else
enum { SANITIZED = 0 };
#endif

enum { STACK = 256 << 10, BATCH = 2, MEMORY = 64 << 20 };

typedef struct job {
    hostile_result *r;
    const char *path;
    const void *bytes;
    size_t size;
    int64_t now;
} job;

static void *take(void *user, size_t size, size_t align)
{
    job *j = user;
    if ((int64_t)size < 0 || (int64_t)size > MEMORY - j->now)
        return NULL;
    void *p = aligned_alloc(align, (size + align - 1) / align * align);
    if (!p)
        return NULL;
    j->now += (int64_t)size;
    if (j->now > j->r->peak_bytes)
        j->r->peak_bytes = j->now;
    return p;
}

static void give(void *user, void *p, size_t size)
{
    ((job *)user)->now -= (int64_t)size;
    free(p);
}

/* What building a program does first, with what is free pinned. */
static mest_status infer(mest_model *m, mest_error *err)
{
    mest_graph g;
    mest_status status = mest_graph_copy(&g, &m->graph, err);
    if (status != MEST_OK)
        return status;
    for (int i = 0; i < g.n_inputs; i++) {
        mest_shape *s = &g.values[g.inputs[i]].type.shape;
        for (int k = 0; k < s->rank; k++)
            if (s->dim[k] < 0)
                s->dim[k] = BATCH;
    }
    status = mest_infer_graph(&g, true, (size_t)16 << 20, err);
    mest_graph_free(&g);
    return status;
}

static void *work(void *user)
{
    job *j = user;
    hostile_result *r = j->r;
    struct timespec from, to;
    mest_allocator allocator = { sizeof allocator, j, take, give };
    mest_model_options o;
    mest_model *m = NULL;
    mest_session *s = NULL;
    mest_train_config c;
    mest_plan_info plan = { .struct_size = sizeof plan };
    mest_model_options_init(&o);
    o.allocator = &allocator;
    o.lend_memory = true;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    r->stage = "load";
    r->status = j->path ? mest_model_load(&m, j->path, &o, &r->err) : mest_model_load_memory(&m, j->bytes, j->size, &o, &r->err);
    if (r->status == MEST_OK) {
        r->stage = "infer";
        r->status = infer(m, &r->err);
    }
    if (r->status == MEST_OK) {
        r->stage = "session";
        mest_train_config_init(&c);
        c.batch = BATCH;
        c.threads = 1;
        c.loss = "mse";
        c.use_xnnpack = false; /* its memory is not ours to count */
        r->status = mest_session_create(&s, m, &c, &r->err);
    }
    if (r->status == MEST_OK) {
        r->stage = "plan";
        r->status = mest_session_explain(s, MEST_PROGRAM_TRAIN, BATCH, NULL, NULL, &plan, &r->err);
    }
    mest_session_destroy(s);
    mest_model_destroy(m);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    r->cpu_seconds = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
    r->leaked_bytes = j->now;
    return NULL;
}

void hostile_try(hostile_result *r, const char *path, const void *bytes, size_t size)
{
    job j = { r, path, bytes, size, 0 };
    pthread_attr_t attr;
    pthread_t thread;
    memset(r, 0, sizeof *r);
    if (pthread_attr_init(&attr) || pthread_attr_setstacksize(&attr, SANITIZED ? 4 * STACK : STACK) || pthread_create(&thread, &attr, work, &j) ||
        pthread_join(thread, NULL)) {
        perror("thread");
        exit(2);
    }
    pthread_attr_destroy(&attr);
}

const char *hostile_wrong(const hostile_result *r)
{
    if (r->status != MEST_OK && (r->err.code != r->status || !r->err.msg[0]))
        return "a failure without its text";
    if (r->status == MEST_E_INTERNAL)
        return "an internal error";
    static const char loss[] = "the loss does not depend on any trainable parameter"; /* what is left of a model may be fine but for that */
    if (r->status != MEST_OK && (strchr(r->err.msg, '\n') || (!strchr(r->err.msg, '\'') && !strstr(r->err.msg, "byte") && strcmp(r->err.msg, loss) != 0)))
        return "a message that names no place";
    if (r->leaked_bytes)
        return "memory that was not released";
    if (r->cpu_seconds > (SANITIZED ? 10 : 1))
        return "more than a second";
    return NULL;
}
