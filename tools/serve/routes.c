/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/routes.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct route_entry {
    const char *method;
    const char *path;       /* M: a model, N: a number of a version */
    void (*answer)(exchange *x, served *model, int64_t version);
    bool slow;              /* waits for a disk: answered by the thread for that */
} route_entry;

static const route_entry routes[] = {
    {"GET", "v2/health/live", answer_live, false},
    {"GET", "v2/health/ready", answer_ready, false},
    {"GET", "v2", answer_server, false},
    {"GET", "v2/models", answer_models, false},
    {"GET", "v2/models/M", answer_model, false},
    {"GET", "v2/models/M/ready", answer_model_ready, false},
    {"GET", "v2/models/M/versions", answer_versions, true},
    {"GET", "v2/models/M/versions/N", answer_model, false},
    {"GET", "v2/models/M/versions/N/ready", answer_model_ready, false},
    {"POST", "v2/models/M/infer", answer_infer, false},
    {"POST", "v2/models/M/versions/N/infer", answer_infer, false},
    {"GET", "v2/models/M/train", answer_train_status, false},
    {"POST", "v2/models/M/train", answer_train, true},
    {"GET", "metrics", answer_metrics, false},
    {"GET", "", answer_page, false},
};

/* Does the path have the form? The texts that stand for M and N are written out. */
static bool matches(const char *form, const char *path, char model[64], char version[20])
{
    while (*form && *path) {
        if ((*form == 'M' || *form == 'N') && (form[1] == '/' || !form[1])) {
            char *to = *form == 'M' ? model : version;
            size_t room = *form == 'M' ? 64 : 20, n = strcspn(path, "/");
            if (n == 0 || n >= room)
                return false;
            memcpy(to, path, n);
            to[n] = 0;
            path += n;
            form++;
        } else if (*form++ != *path++) {
            return false;
        }
    }
    return !*form && !*path;
}

static bool find(exchange *x, const route_entry **entry, served **model, int64_t *version, fault *f)
{
    const char *path = x->path + (*x->path == '/');
    char name[64] = "", number[20] = "";
    bool known = false;
    *entry = NULL;
    for (size_t i = 0; i < sizeof routes / sizeof *routes && !*entry; i++) {
        if (!matches(routes[i].path, path, name, number))
            continue;
        known = true;
        if (!strcmp(x->method, routes[i].method) || (!strcmp(x->method, "HEAD") && !strcmp(routes[i].method, "GET")))
            *entry = &routes[i];
    }
    if (!*entry)
        return known ? refuse(f, 405, "%s is not for this path", x->method) : refuse(f, 404, "there is nothing at this path");
    if (*name && !(*model = models_find(&x->server->models, name)))
        return refuse(f, 404, "there is no model '%s'", name);
    if (*number) {
        char *end;
        long long n = strtoll(number, &end, 10);
        if (*end || *number < '1' || *number > '9')
            return refuse(f, 404, "'%s' is no number of a version", number);
        *version = n;
    }
    return true;
}

static void run(job *j)
{
    exchange *x = (exchange *)(void *)((char *)j - offsetof(exchange, slow.job));
    x->slow.answer(x, x->slow.model, x->slow.version);
}

static void put_aside(exchange *x, const route_entry *entry, served *model, int64_t version)
{
    x->slow = (struct route_job){.job.run = run, .answer = entry->answer, .model = model, .version = version};
    http_later(x);
    if (jobs_add(x->server->jobs, &x->slow.job))
        return;
    fault f = {0};
    refuse(&f, 503, "too many requests are waiting");
    http_refuse(x, &f);
    http_done(x);
}

void route(exchange *x)
{
    const route_entry *entry;
    served *model = NULL;
    int64_t version = 0;
    fault f = {0};
    server *s = x->server;
    x->status = 200;
    /* counted before it looks: whoever closes waits for the count to be 0 after closing */
    atomic_fetch_add(&s->aside, 1);
    bool good = !atomic_load(&s->closed) || refuse(&f, 503, "the service ends");
    if (good && find(x, &entry, &model, &version, &f)) {
        if (entry->slow)
            put_aside(x, entry, model, version);
        else
            entry->answer(x, model, version);
    } else {
        http_refuse(x, &f);
        http_done(x);
    }
    atomic_fetch_sub(&s->aside, 1);
}
