/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/served.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "serve/trainer.h"

engine *served_engine(served *s)
{
    pthread_mutex_lock(&s->lock);
    engine *e = engine_hold(s->engine);
    pthread_mutex_unlock(&s->lock);
    return e;
}

static engine *engine_of(void *user) { return served_engine(user); }

static void ran(void *user, int64_t samples, double seconds) { metrics_batch(&((served *)user)->metrics, samples, seconds); }

int64_t served_version(served *s)
{
    engine *e = served_engine(s);
    mest_snapshot *now = mest_model_acquire(e->model);
    mest_version_info info = {.struct_size = sizeof info};
    bool good = now && mest_snapshot_describe(now, &info, NULL) == MEST_OK;
    mest_snapshot_release(now);
    engine_release(e);
    return good ? info.id : 0;
}

static bool same(const tensor_spec *a, const tensor_spec *b)
{
    return !strcmp(a->name, b->name) && a->dtype == b->dtype && a->rank == b->rank && !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim);
}

bool served_replace(served *s, engine *e, fault *f)
{
    bool fits = e->n_inputs == s->n_inputs && e->n_outputs == s->n_outputs;
    for (int k = 0; fits && k < s->n_inputs; k++)
        fits = same(&e->in[k], &s->in[k]);
    for (int k = 0; fits && k < s->n_outputs; k++)
        fits = same(&e->out[k], &s->out[k]);
    if (!fits) {
        engine_release(e);
        return refuse(f, 409, "version %" PRId64 " has other inputs or outputs than the model that is served", e->base);
    }
    pthread_mutex_lock(&s->lock);
    engine *before = s->engine;
    s->engine = e;
    pthread_mutex_unlock(&s->lock);
    engine_release(before);
    return true;
}

/* ---- one model ---- */
static bool keep_names(served *s, const engine *e)
{
    size_t bytes = 0;
    for (int k = 0; k < e->n_inputs + e->n_outputs; k++)
        bytes += strlen((k < e->n_inputs ? &e->in[k] : &e->out[k - e->n_inputs])->name) + 1;
    char *at = s->names = malloc(bytes);
    if (!at)
        return false;
    s->n_inputs = e->n_inputs;
    s->n_outputs = e->n_outputs;
    s->target = e->target;
    for (int k = 0; k < e->n_inputs + e->n_outputs; k++) {
        tensor_spec *to = k < e->n_inputs ? &s->in[k] : &s->out[k - e->n_inputs];
        *to = k < e->n_inputs ? e->in[k] : e->out[k - e->n_inputs];
        to->name = strcpy(at, to->name);
        at += strlen(at) + 1;
    }
    return true;
}

static bool open_model(served *s, fault *f)
{
    char path[DIR_PATH + 64];
    snprintf(path, sizeof path, "%s/config.json", s->folder);
    settings_init(&s->settings);
    if (!settings_read(&s->settings, path, f))
        return false;
    int64_t id = version_dirs_current(s->folder);
    if (id < 0)
        return refuse(f, 500, "%s/current names no version that is in the folder", s->folder);
    snprintf(path, sizeof path, "%s/%" PRId64, s->folder, id);
    s->engine = engine_load(path, id, &s->settings, f);
    if (!s->engine)
        return false;
    if (!keep_names(s, s->engine))
        return refuse(f, 503, "out of memory");
    batcher_options o = {.settings = &s->settings, .in = s->in, .out = s->out, .n_inputs = s->n_inputs, .n_outputs = s->n_outputs,
                         .engine = engine_of, .ran = ran, .user = s};
    s->batcher = batcher_create(&o, f);
    if (!s->batcher)
        return false;
    s->trainer = trainer_create(s, &s->untrained);
    return true;
}

static void close_model(served *s)
{
    trainer_destroy(s->trainer); /* it looks at the load of the batcher */
    batcher_destroy(s->batcher);
    engine_release(s->engine);
    pthread_mutex_destroy(&s->lock);
    free(s->names);
    free(s);
}

static served *load_model(const char *folder, const char *name)
{
    served *s = calloc(1, sizeof *s);
    if (!s || (size_t)snprintf(s->folder, sizeof s->folder, "%s/%s", folder, name) >= sizeof s->folder) {
        free(s);
        return NULL;
    }
    snprintf(s->name, sizeof s->name, "%s", name);
    pthread_mutex_init(&s->lock, NULL);
    fault f = {0};
    if (!open_model(s, &f))
        s->broken = f;
    return s;
}

/* ---- all of them ---- */
static bool is_name(const char *name)
{
    size_t n = strlen(name);
    return n > 0 && n < sizeof ((served *)0)->name && *name != '.'
           && !name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")];
}

static int by_name(const void *a, const void *b) { return strcmp((*(served *const *)a)->name, (*(served *const *)b)->name); }

bool models_open(models *m, const char *folder, fault *f)
{
    *m = (models){0};
    DIR *d = opendir(folder);
    if (!d)
        return refuse(f, 500, "%s: %s", folder, strerror(errno));
    bool good = true;
    for (struct dirent *e; good && (e = readdir(d)) != NULL;) {
        char path[DIR_PATH];
        struct stat st;
        if (!is_name(e->d_name) || (size_t)snprintf(path, sizeof path, "%s/%s", folder, e->d_name) >= sizeof path || stat(path, &st) != 0
            || !S_ISDIR(st.st_mode) || !version_dirs_current(path))
            continue;
        served **list = realloc(m->list, (size_t)(m->count + 1) * sizeof *list);
        served *s = list ? load_model(folder, e->d_name) : NULL;
        m->list = list ? list : m->list;
        if (s)
            m->list[m->count++] = s;
        else
            good = refuse(f, 503, "out of memory");
    }
    closedir(d);
    if (m->count)
        qsort(m->list, (size_t)m->count, sizeof *m->list, by_name);
    return good && (m->count || refuse(f, 500, "%s holds no model: NAME/1/model.onnx is looked for", folder));
}

void models_close(models *m)
{
    for (int i = 0; i < m->count; i++)
        close_model(m->list[i]);
    free(m->list);
    *m = (models){0};
}

served *models_find(const models *m, const char *name)
{
    for (int i = 0; i < m->count; i++)
        if (!strcmp(m->list[i]->name, name))
            return m->list[i];
    return NULL;
}
