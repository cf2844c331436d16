/* SPDX-License-Identifier: Apache-2.0 */
/* A scheduler outside of the library: evolution with a period of grace.
 *
 * After every `every` epochs, in each sparse parameter, the part `rate` of the active units of smallest norm goes and as many grow at random
 * places, but a unit that grew less than `grace` epochs ago is not looked at: a new weight starts at 0 and needs time to show what it is
 * worth. Needs the installed headers only and links nothing; the README beside it says how it is built and loaded.
 *
 * What it shows: options, looking at units piece by piece, proposals, random numbers that a resumed run draws again, state that goes
 * into checkpoints, and what to do when memory runs out. */
#include <stdlib.h>

#include <mest/plugin.h>
#include <mest/plugin_options.h>

enum { PIECE = 256 };

typedef struct young {      /* units that grew and are still in their period of grace */
    int64_t *unit, *since;  /* ascending units; the epoch in which each grew */
    int64_t n, room;
} young;

typedef struct grace {
    const mest_host_api *api;
    mest_host *host;        /* load is called without it */
    double rate;
    int64_t every, grace;
    int n_params;
    young *params;
} grace;

static const char option_text[] = "rate=.2           part of the active units that is replaced\n"
                                  "every=1           epochs between replacements\n"
                                  "grace=3           epochs in which a new unit stays\n";

/* ---- memory: everything through the host, so that it counts ---- */

static void *take(const grace *g, int64_t n, size_t size, mest_error *err)
{
    void *p = g->api->allocate(g->host, (size_t)n * size);
    if (!p)
        mest_plugin_fail(err, MEST_E_NOMEM, "scheduler grace: no memory for %lld numbers", (long long)n);
    return p;
}

static void give(const grace *g, void *p, int64_t n, size_t size)
{
    if (p)
        g->api->release(g->host, p, (size_t)n * size);
}

static void drop_young(const grace *g, young *y)
{
    give(g, y->unit, 2 * y->room, sizeof *y->unit);
    memset(y, 0, sizeof *y);
}

static void destroy(void *self, mest_host *host)
{
    grace *g = (grace *)self;
    g->host = host;
    for (int i = 0; g->params && i < g->n_params; i++)
        drop_young(g, &g->params[i]);
    give(g, g->params, g->n_params, sizeof *g->params);
    g->api->release(host, g, sizeof *g);
}

static mest_status create(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err)
{
    grace v = {.api = api, .host = host, .rate = .2, .every = 1, .grace = 3, .n_params = api->sparse_count(host)};
    mest_option o = mest_options("grace", options);
    while (mest_option_next(&o, err)) {
        if (mest_option_is(&o, "rate"))
            mest_option_real(&o, 0, 1, &v.rate, err);
        else if (mest_option_is(&o, "every"))
            mest_option_int(&o, 1, 1000000, &v.every, err);
        else if (mest_option_is(&o, "grace"))
            mest_option_int(&o, 0, 1000000, &v.grace, err);
        else
            mest_option_unknown(&o, "rate, every, grace", err);
    }
    if (o.status != MEST_OK)
        return o.status;
    for (int i = 0; i < v.n_params; i++) {
        mest_sparse_info info = {.struct_size = sizeof info};
        mest_status status = api->sparse_info(host, i, &info, err);
        if (status == MEST_OK && info.group_units > 0) /* what goes here does not look at groups */
            status = mest_plugin_fail(err, MEST_E_UNSUPPORTED, "scheduler grace: '%.100s' is %s, a balanced scheme", info.name, info.scheme);
        if (status != MEST_OK)
            return status;
    }
    grace *g = (grace *)take(&v, 1, sizeof v, err);
    if (!g)
        return MEST_E_NOMEM;
    *g = v;
    g->params = (young *)take(g, g->n_params, sizeof *g->params, err);
    if (!g->params) {
        destroy(g, host);
        return MEST_E_NOMEM;
    }
    memset(g->params, 0, (size_t)g->n_params * sizeof *g->params);
    *self = g;
    return MEST_OK;
}

/* ---- who goes ---- */

typedef struct candidate {
    float score;
    int64_t unit;
} candidate;

static int by_score(const void *a, const void *b)
{
    const candidate *x = (const candidate *)a, *y = (const candidate *)b;
    if (x->score != y->score)
        return x->score < y->score ? -1 : 1;
    return x->unit < y->unit ? -1 : x->unit > y->unit;
}

static int by_unit(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static bool is_young(const young *y, int64_t unit) { return bsearch(&unit, y->unit, (size_t)y->n, sizeof unit, by_unit) != NULL; }

/* All active units that may go, into list[0..*n-1]. */
static mest_status candidates(const grace *g, int param, const mest_sparse_info *info, candidate *list, int64_t *n, mest_error *err)
{
    int64_t unit[PIECE];
    float score[PIECE];
    *n = 0;
    for (int64_t at = 0; at < info->n_active; at += PIECE) {
        const int64_t k = info->n_active - at < PIECE ? info->n_active - at : PIECE;
        mest_status status = g->api->active_units(g->host, param, at, k, unit, err);
        if (status == MEST_OK)
            status = g->api->unit_scores(g->host, param, 0, false, at, k, score, err);
        if (status != MEST_OK)
            return status;
        for (int64_t i = 0; i < k; i++)
            if (!is_young(&g->params[param], unit[i])) {
                list[*n].score = score[i];
                list[(*n)++].unit = unit[i];
            }
    }
    return MEST_OK;
}

/* ---- the young ---- */

/* Those that are older than the period of grace leave the list, the new ones join it. Both are ascending. */
static mest_status join(const grace *g, young *y, const int64_t *grown, int64_t n_grown, int64_t epoch, mest_error *err)
{
    young next = {NULL, NULL, 0, y->n + n_grown};
    next.unit = (int64_t *)take(g, 2 * next.room, sizeof *next.unit, err);
    if (!next.unit)
        return MEST_E_NOMEM;
    next.since = next.unit + next.room;
    for (int64_t i = 0, k = 0; i < y->n || k < n_grown;) {
        const bool is_new = i == y->n || (k < n_grown && grown[k] < y->unit[i]);
        const int64_t since = is_new ? epoch : y->since[i];
        if (epoch - since < g->grace) {
            next.unit[next.n] = is_new ? grown[k] : y->unit[i];
            next.since[next.n++] = since;
        }
        k += is_new;
        i += !is_new;
    }
    drop_young(g, y);
    *y = next;
    return MEST_OK;
}

static mest_status replace(grace *g, int param, const mest_epoch *epoch, mest_error *err)
{
    mest_sparse_info info = {.struct_size = sizeof info};
    mest_status status = g->api->sparse_info(g->host, param, &info, err);
    if (status != MEST_OK || info.frozen) /* another scheduler may freeze layers */
        return status;
    candidate *list = (candidate *)take(g, info.n_active, sizeof *list, err);
    if (!list)
        return MEST_E_NOMEM;
    int64_t n = 0, n_list = 0;
    status = candidates(g, param, &info, list, &n_list, err);
    if (status == MEST_OK) {
        qsort(list, (size_t)n_list, sizeof *list, by_score);
        n = (int64_t)(g->rate * (double)info.n_active);
        n = n > n_list ? n_list : n;                                                       /* only so many are old enough */
        n = n > info.n_units - info.n_active ? info.n_units - info.n_active : n;           /* only so many places are free */
    }
    int64_t *drop = status == MEST_OK ? (int64_t *)take(g, 2 * n, sizeof *drop, err) : NULL, *grow = NULL;
    if (status == MEST_OK && !drop)
        status = MEST_E_NOMEM;
    if (status == MEST_OK) {
        grow = drop + n;
        for (int64_t i = 0; i < n; i++)
            drop[i] = list[i].unit;
        qsort(drop, (size_t)n, sizeof *drop, by_unit);
        status = g->api->drop(g->host, param, drop, n, err);
    }
    if (status == MEST_OK) /* keyed by the epoch: a resumed run draws the same; what has just gone does not come back at once */
        status = g->api->sample_inactive(g->host, param, (uint64_t)epoch->epoch, drop, n, n, grow, err);
    if (status == MEST_OK)
        status = g->api->grow(g->host, param, grow, n, err);
    if (status == MEST_OK)
        status = join(g, &g->params[param], grow, n, epoch->epoch, err);
    give(g, drop, 2 * n, sizeof *drop);
    give(g, list, info.n_active, sizeof *list);
    return status;
}

static mest_status epoch_end(void *self, mest_host *host, const mest_epoch *epoch, mest_error *err)
{
    grace *g = (grace *)self;
    mest_status status = MEST_OK;
    g->host = host;
    if ((epoch->epoch + 1) % g->every != 0 || epoch->epoch + 1 == epoch->n_epochs) /* at the end of the run nothing new could learn */
        return MEST_OK;
    for (int i = 0; i < g->n_params && status == MEST_OK; i++)
        status = replace(g, i, epoch, err);
    return status;
}

/* ---- checkpoints ---- */

static mest_status save(void *self, mest_state_io write, void *stream)
{
    grace *g = (grace *)self;
    mest_status status = MEST_OK;
    for (int i = 0; i < g->n_params && status == MEST_OK; i++) {
        young *y = &g->params[i];
        status = write(stream, &y->n, sizeof y->n);
        if (status == MEST_OK)
            status = write(stream, y->unit, (size_t)y->n * sizeof *y->unit);
        if (status == MEST_OK)
            status = write(stream, y->since, (size_t)y->n * sizeof *y->since);
    }
    return status;
}

static mest_status load(void *self, mest_state_io read, void *stream)
{
    grace *g = (grace *)self;
    for (int i = 0; i < g->n_params; i++) {
        young *y = &g->params[i];
        mest_sparse_info info = {.struct_size = sizeof info};
        int64_t n = 0;
        mest_status status = read(stream, &n, sizeof n);
        if (status == MEST_OK)
            status = g->api->sparse_info(g->host, i, &info, NULL);
        if (status != MEST_OK)
            return status;
        if (n < 0 || n > info.n_units) /* a file may hold anything */
            return MEST_E_FORMAT;
        drop_young(g, y);
        y->unit = (int64_t *)take(g, 2 * n, sizeof *y->unit, NULL);
        if (!y->unit)
            return MEST_E_NOMEM;
        y->n = y->room = n;
        y->since = y->unit + n;
        status = read(stream, y->unit, (size_t)n * sizeof *y->unit);
        if (status == MEST_OK)
            status = read(stream, y->since, (size_t)n * sizeof *y->since);
        if (status != MEST_OK)
            return status;
    }
    return MEST_OK;
}

static const mest_scheduler scheduler = {
    .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof(mest_scheduler), .name = "grace",
    .summary = "smallest out, random in, but new units stay for some epochs", .options = option_text,
    .create = create, .epoch_end = epoch_end, .save = save, .load = load, .destroy = destroy,
    .flags = MEST_SCHEDULER_MOVES_WEIGHTS,
};

const mest_scheduler *mest_scheduler_entry(uint32_t host_abi) { return host_abi == MEST_SCHEDULER_ABI ? &scheduler : NULL; }
