/* SPDX-License-Identifier: Apache-2.0 */
/* The list of schedulers: finding, loading, calling, saving them. */
#include "runtime/plugin.h"

#include "runtime/channels.h"
#include "runtime/elf_whole.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "mest/train.h"

#define MEST_SCHEDULER(file) extern const mest_scheduler mest_scheduler_##file;
#include "schedulers/schedulers.def"
#undef MEST_SCHEDULER

static const mest_scheduler *const builtin[] = {
#define MEST_SCHEDULER(file) &mest_scheduler_##file,
#include "schedulers/schedulers.def"
#undef MEST_SCHEDULER
    NULL,
};

enum { MAX_SCHEDULERS = 16, NAME_SIZE = 256 };

typedef struct loaded {
    const mest_scheduler *vtable;
    void *self;
    void *object;      /* of dlopen; NULL for built-ins */
    char *options;     /* a copy */
    char name[64];     /* for messages and checkpoints: the scheduler's own name */
} loaded;

struct mest_schedulers {
    mest_host *host;
    loaded item[MAX_SCHEDULERS];
    int n;
};

const char *mest_scheduler_builtin(int index, const char **summary, const char **options)
{
    int n = (int)(sizeof builtin / sizeof *builtin) - 1;
    if (index < 0 || index >= n)
        return NULL;
    if (summary)
        *summary = builtin[index]->summary;
    if (options)
        *options = builtin[index]->options;
    return builtin[index]->name;
}

unsigned mest_scheduler_flags(const char *name)
{
    for (int i = 0; name && builtin[i]; i++)
        if (!strcmp(builtin[i]->name, name))
            return builtin[i]->flags;
    return 0;
}

mest_status mest_schedulers_create(mest_schedulers **list, mest_host *host, mest_error *err)
{
    *list = NULL;
    mest_schedulers *l;
    MEST_NEW(host->heap, l, 1, err, "schedulers");
    memset(l, 0, sizeof *l);
    l->host = host;
    *list = l;
    return MEST_OK;
}

void mest_schedulers_destroy(mest_schedulers *list)
{
    if (!list)
        return;
    mest_heap *heap = list->host->heap;
    for (int i = list->n; i-- > 0;) {
        mest_host_enter(list->host, MEST_HOST_NONE, list->item[i].name, i);
        list->item[i].vtable->destroy(list->item[i].self, list->host);
        mest_free(heap, list->item[i].options, strlen(list->item[i].options) + 1, 1);
    }
    list->host->who = "";
    for (int i = list->n; i-- > 0;) /* one object may serve several schedulers: unload when all are gone */
        if (list->item[i].object)
            dlclose(list->item[i].object);
    mest_free(heap, list, 1, sizeof *list);
}

/* Opens a shared object and asks it for its scheduler; refusals name the file and both versions. */
static mest_status load_object(const char *path, loaded *item, mest_error *err)
{
    char local[NAME_SIZE];
    if (!strchr(path, '/')) { /* without a slash dlopen would search the system's folders */
        MEST_CHECK(strlen(path) < sizeof local - 2, err, MEST_E_ARGUMENT, "scheduler file name is too long");
        snprintf(local, sizeof local, "./%s", path);
        path = local;
    }
    MEST_TRY(mest_elf_whole(path, err));
    item->object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!item->object) {
        const char *why = dlerror();
        return mest_fail(err, MEST_E_PLUGIN, "scheduler '%s' cannot be loaded: %s", path, why ? why : "unknown reason");
    }
    mest_scheduler_entry_fn entry = NULL;
    void *symbol = dlsym(item->object, "mest_scheduler_entry");
    memcpy(&entry, &symbol, sizeof entry); /* POSIX's way from object to function pointer without a cast ISO C lacks */
    const mest_scheduler *s = entry ? entry(MEST_SCHEDULER_ABI) : NULL;
    mest_status status = MEST_OK;
    size_t least = offsetof(mest_scheduler, destroy) + sizeof s->destroy; /* all of ABI 1 */
    if (!entry)
        status = mest_fail(err, MEST_E_PLUGIN, "scheduler '%s' has no symbol mest_scheduler_entry", path);
    else if (!s)
        status = mest_fail(err, MEST_E_PLUGIN, "scheduler '%s' cannot serve a host of ABI %u", path, MEST_SCHEDULER_ABI);
    else if (s->abi != MEST_SCHEDULER_ABI)
        status = mest_fail(err, MEST_E_PLUGIN, "scheduler '%s' has ABI %u, this library has ABI %u", path, s->abi, MEST_SCHEDULER_ABI);
    else if (s->struct_size < least)
        status = mest_fail(err, MEST_E_PLUGIN, "scheduler '%s' gives a mest_scheduler of %u bytes, ABI %u needs %zu", path, s->struct_size,
                           MEST_SCHEDULER_ABI, least);
    else if (!s->name || !s->create || !s->destroy)
        status = mest_fail(err, MEST_E_PLUGIN, "scheduler '%s' lacks a name, create or destroy", path);
    if (status != MEST_OK) {
        dlclose(item->object);
        item->object = NULL;
        return status;
    }
    item->vtable = s;
    return MEST_OK;
}

static mest_status find_builtin(const char *name, loaded *item, mest_error *err)
{
    char known[200] = "";
    for (int i = 0; builtin[i]; i++) {
        if (strcmp(builtin[i]->name, name) == 0) {
            item->vtable = builtin[i];
            return MEST_OK;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", builtin[i]->name);
    }
    return mest_fail(err, MEST_E_ARGUMENT, "there is no scheduler '%s'; there are: %s, or the path of a shared object", name, known);
}

static unsigned flags_of(const mest_scheduler *s)
{
    return s->struct_size >= offsetof(mest_scheduler, flags) + sizeof s->flags ? s->flags : 0; /* absent in the table of an older plugin */
}

/* Two that decide the same thing undo each other's work, or do it twice. */
static mest_status check_company(const mest_schedulers *list, const loaded *item, mest_error *err)
{
    for (int i = 0; i < list->n; i++) {
        const loaded *other = &list->item[i];
        const unsigned both = flags_of(item->vtable) & flags_of(other->vtable);
        MEST_CHECK(item->object || other->vtable != item->vtable, err, MEST_E_ARGUMENT, "scheduler %s is there already: it would do its work twice", item->name);
        MEST_CHECK(!(both & MEST_SCHEDULER_MOVES_WEIGHTS), err, MEST_E_ARGUMENT, "schedulers %s and %s both move weights: a run has one method of sparse training",
                   other->name, item->name);
        MEST_CHECK(!(both & MEST_SCHEDULER_CHOOSES_SAMPLES), err, MEST_E_ARGUMENT, "schedulers %s and %s both choose the samples that are trained on: a run has one of them",
                   other->name, item->name);
    }
    return MEST_OK;
}

mest_status mest_schedulers_add(mest_schedulers *list, const char *name, const char *options, mest_error *err)
{
    mest_heap *heap = list->host->heap;
    MEST_CHECK(name && name[0], err, MEST_E_ARGUMENT, "a scheduler needs a name");
    MEST_CHECK(list->n < MAX_SCHEDULERS, err, MEST_E_LIMIT, "more than %d schedulers", MAX_SCHEDULERS);
    loaded item = { 0 };
    size_t n = strlen(name);
    if (strchr(name, '/') || (n > 3 && strcmp(name + n - 3, ".so") == 0))
        MEST_TRY(load_object(name, &item, err));
    else
        MEST_TRY(find_builtin(name, &item, err));
    snprintf(item.name, sizeof item.name, "%s", item.vtable->name);
    mest_status status = check_company(list, &item, err);
    if (status != MEST_OK) {
        if (item.object)
            dlclose(item.object);
        return status;
    }

    mest_error own = { MEST_OK, "" };
    size_t size = strlen(options ? options : "") + 1;
    item.options = mest_alloc(heap, size, 1);
    if (!item.options) {
        status = mest_fail(err, MEST_E_NOMEM, "scheduler %s: no memory for its options", item.name);
    } else {
        memcpy(item.options, options ? options : "", size);
        /* In its place before create is called: the name must last as long as the scheduler. */
        loaded *slot = &list->item[list->n];
        *slot = item;
        mest_host_enter(list->host, MEST_HOST_CREATE, slot->name, list->n);
        status = slot->vtable->create(mest_host_functions(), list->host, slot->options, &slot->self, &own);
        (void)mest_host_leave(list->host, false, NULL, NULL);
        list->host->who = "";
        if (status == MEST_OK) {
            list->n++;
            return MEST_OK;
        }
        mest_fail(err, status, "%s", own.msg[0] ? own.msg : mest_status_text(status));
        memset(slot, 0, sizeof *slot);
    }
    mest_free(heap, item.options, size, 1);
    if (item.object)
        dlclose(item.object);
    return status;
}

int mest_schedulers_count(const mest_schedulers *list) { return list ? list->n : 0; }

const char *mest_schedulers_name(const mest_schedulers *list, int index, const char **options)
{
    if (!list || index < 0 || index >= list->n)
        return NULL;
    if (options)
        *options = list->item[index].options;
    return list->item[index].name;
}

/* ---- callbacks ---- */

/* Whether the host refused something or the scheduler did: in a callback of a shared object it is that object's failure. Of those built in an
 * argument is an option that does not go with the run. */
static mest_status of_callback(const loaded *item, mest_status status)
{
    return item->object && (status == MEST_E_ARGUMENT || status == MEST_E_STATE || status == MEST_E_LIMIT) ? MEST_E_PLUGIN : status;
}

/* A scheduler's failure, with its name in front if the text does not start with it. */
static mest_status blame(const loaded *item, mest_status status, const mest_error *own, mest_error *err)
{
    const mest_status code = of_callback(item, status);
    if (own->msg[0] && strstr(own->msg, item->name))
        return mest_fail(err, code, "%s", own->msg);
    return mest_fail(err, code, "scheduler %s: %.400s", item->name, own->msg[0] ? own->msg : mest_status_text(status));
}

/* A callback of a table that grew: absent where the plugin's table ends before it. */
#define CALLBACK(item, field) \
    ((item)->vtable->struct_size >= offsetof(mest_scheduler, field) + sizeof (item)->vtable->field ? (item)->vtable->field : NULL)

typedef mest_status (*epoch_callback)(void *, mest_host *, const mest_epoch *, mest_error *);
typedef mest_status (*step_callback)(void *, mest_host *, const mest_training_step *, mest_error *);

/* One of epoch and step is NULL, as the phase wants it. */
static mest_status at_boundary(mest_schedulers *list, mest_host_phase phase, const mest_epoch *epoch, const mest_training_step *step,
                               mest_host_report *report, mest_error *err)
{
    for (int i = 0; i < list->n; i++) {
        loaded *item = &list->item[i];
        epoch_callback of_epoch = phase == MEST_HOST_BEGIN ? item->vtable->epoch_begin : phase == MEST_HOST_END ? item->vtable->epoch_end : NULL;
        step_callback of_step = phase == MEST_HOST_STEP ? CALLBACK(item, step_begin) : phase == MEST_HOST_STEP_END ? CALLBACK(item, step_end) : NULL;
        if (!of_epoch && !of_step)
            continue;
        mest_error own = { MEST_OK, "" };
        mest_status status;
        mest_host_enter(list->host, phase, item->name, i);
        list->host->now = (uint64_t)(of_epoch ? epoch->epoch : step->epoch) << 40 | (uint64_t)(of_epoch ? epoch->step : step->step);
        if (of_epoch) {
            mest_epoch now = *epoch;
            if (list->host->samples)
                now.n_active_samples = list->host->samples->active; /* one before may have removed some */
            status = of_epoch(item->self, list->host, &now, &own);
        } else {
            mest_training_step now = *step;
            status = of_step(item->self, list->host, &now, &own);
        }
        mest_status applied = mest_host_leave(list->host, status == MEST_OK, report, err);
        list->host->who = "";
        if (status != MEST_OK)
            return blame(item, status, &own, err);
        if (applied != MEST_OK && err)
            err->code = of_callback(item, applied);
        if (applied != MEST_OK)
            return of_callback(item, applied);
    }
    return MEST_OK;
}

mest_status mest_schedulers_epoch_begin(mest_schedulers *list, const mest_epoch *epoch, mest_host_report *report, mest_error *err)
{
    if (report)
        memset(report, 0, sizeof *report);
    list->host->keep_gradients = false;
    MEST_TRY(at_boundary(list, MEST_HOST_BEGIN, epoch, NULL, report, err));
    mest_host_settle_gradients(list->host);
    return MEST_OK;
}

mest_status mest_schedulers_epoch_end(mest_schedulers *list, const mest_epoch *epoch, mest_host_report *report, mest_error *err)
{
    if (report)
        memset(report, 0, sizeof *report);
    return at_boundary(list, MEST_HOST_END, epoch, NULL, report, err);
}

bool mest_schedulers_watch_steps(const mest_schedulers *list)
{
    bool any = false;
    for (int i = 0; i < list->n; i++)
        any |= CALLBACK(&list->item[i], step_begin) || CALLBACK(&list->item[i], step_end);
    return any;
}

mest_status mest_schedulers_step_begin(mest_schedulers *list, const mest_training_step *step, mest_host_report *report, mest_error *err)
{
    if (report)
        memset(report, 0, sizeof *report);
    list->host->skip_update = list->host->perturbed = false;
    return at_boundary(list, MEST_HOST_STEP, NULL, step, report, err);
}

mest_status mest_schedulers_step_end(mest_schedulers *list, const mest_training_step *step, mest_host_report *report, mest_error *err)
{
    if (report)
        memset(report, 0, sizeof *report);
    return at_boundary(list, MEST_HOST_STEP_END, NULL, step, report, err);
}

mest_status mest_schedulers_batch_seen(mest_schedulers *list, const int64_t *ids, const uint8_t *correct, int64_t n, mest_error *err)
{
    for (int i = 0; i < list->n; i++) {
        loaded *item = &list->item[i];
        if (!item->vtable->batch_seen)
            continue;
        mest_error own = { MEST_OK, "" };
        mest_host_enter(list->host, MEST_HOST_BATCH, item->name, i);
        mest_status status = item->vtable->batch_seen(item->self, list->host, ids, correct, n, &own);
        mest_host_enter(list->host, MEST_HOST_NONE, "", 0);
        if (status != MEST_OK)
            return blame(item, status, &own, err);
    }
    return MEST_OK;
}

/* The options as they must be equal for a run to go on: all but where something is written to (export=FILE), which is free to change. To be freed with the size of the options. */
static mest_status identity_of(const mest_schedulers *list, const loaded *item, char **text, mest_error *err)
{
    const size_t size = strlen(item->options) + 1;
    size_t n = 0;
    *text = mest_alloc(list->host->heap, size, 1);
    MEST_CHECK(*text, err, MEST_E_NOMEM, "scheduler %s: no memory for its options", item->name);
    for (const char *at = item->options; *at;) {
        const size_t k = strcspn(at, ",");
        if (k && strncmp(at, "export=", 7) != 0)
            n += (size_t)snprintf(*text + n, size - n, "%s%.*s", n ? "," : "", (int)k, at);
        at += k + (at[k] == ',');
    }
    (*text)[n] = 0;
    return MEST_OK;
}

/* ---- state: "MSCH", version, count; per scheduler name, options, size and bytes of its own state; then the gradient snapshot ---- */

static const uint32_t STATE_MAGIC = 0x4843534du, STATE_VERSION = 1;

typedef struct metered {      /* passes bytes on (next NULL: only counts), at most `left` of them */
    mest_state_io next;
    void *stream;
    uint64_t left, done;
} metered;

static mest_status metered_io(void *stream, void *bytes, size_t n)
{
    metered *m = stream;
    if (n > m->left)
        return MEST_E_FORMAT;
    m->left -= n;
    m->done += n;
    return m->next ? m->next(m->stream, bytes, n) : MEST_OK;
}

static mest_status put(mest_state_io write, void *stream, const void *bytes, size_t n, mest_error *err)
{
    mest_status status = write(stream, (void *)(uintptr_t)bytes, n);
    MEST_CHECK(status == MEST_OK, err, status, "state of the schedulers cannot be written");
    return MEST_OK;
}

static mest_status put_text(mest_state_io write, void *stream, const char *text, mest_error *err)
{
    uint32_t n = (uint32_t)strlen(text);
    MEST_TRY(put(write, stream, &n, sizeof n, err));
    return put(write, stream, text, n, err);
}

mest_status mest_schedulers_save(const mest_schedulers *list, mest_state_io write, void *stream, mest_error *err)
{
    uint32_t head[4] = { STATE_MAGIC, STATE_VERSION, (uint32_t)list->n, (uint32_t)list->host->n_params };
    MEST_TRY(put(write, stream, head, sizeof head, err));
    for (int i = 0; i < list->n; i++) {
        const loaded *item = &list->item[i];
        MEST_TRY(put_text(write, stream, item->name, err));
        char *options;
        MEST_TRY(identity_of(list, item, &options, err));
        mest_status put_options = put_text(write, stream, options, err);
        mest_free(list->host->heap, options, strlen(item->options) + 1, 1);
        MEST_TRY(put_options);
        metered m = { .left = UINT64_MAX }; /* once to learn the size, once to write */
        mest_status status = item->vtable->save ? item->vtable->save(item->self, metered_io, &m) : MEST_OK;
        uint64_t size = m.done;
        MEST_CHECK(status == MEST_OK, err, status, "scheduler %s: its state cannot be saved", item->name);
        MEST_TRY(put(write, stream, &size, sizeof size, err));
        m = (metered){ .next = write, .stream = stream, .left = size };
        status = item->vtable->save ? item->vtable->save(item->self, metered_io, &m) : MEST_OK;
        MEST_CHECK(status == MEST_OK && m.left == 0, err, status != MEST_OK ? status : MEST_E_PLUGIN,
                   "scheduler %s: its state cannot be saved", item->name);
    }
    const mest_host *host = list->host;
    uint8_t flags[2] = { host->gradients_wanted, host->gradients_taken };
    MEST_TRY(put(write, stream, flags, sizeof flags, err));
    for (int i = 0; i < host->n_params && host->gradients_taken; i++) {
        uint64_t n = (uint64_t)host->params[i].sparse->stored;
        MEST_TRY(put(write, stream, &n, sizeof n, err));
        MEST_TRY(put(write, stream, host->params[i].grad_snapshot, (size_t)n * sizeof(mest_real), err));
    }
    return MEST_OK;
}

static mest_status get(mest_state_io read, void *stream, void *bytes, size_t n, mest_error *err)
{
    mest_status status = read(stream, bytes, n);
    MEST_CHECK(status == MEST_OK, err, status, "state of the schedulers is incomplete");
    return MEST_OK;
}

/* Reads a text and compares it; MEST_E_STATE says what was found. */
static mest_status expect_text(mest_state_io read, void *stream, const char *what, const char *who, const char *want, mest_error *err)
{
    uint32_t n;
    char found[200];
    MEST_TRY(get(read, stream, &n, sizeof n, err));
    size_t shown = n < sizeof found - 1 ? n : sizeof found - 1;
    MEST_TRY(get(read, stream, found, shown, err));
    found[shown] = 0;
    bool same = strlen(want) == n && memcmp(found, want, shown) == 0;
    for (size_t at = shown; same && at < n;) { /* the rest of a long one */
        char more[200];
        size_t k = n - at < sizeof more ? n - at : sizeof more;
        MEST_TRY(get(read, stream, more, k, err));
        same = memcmp(more, want + at, k) == 0;
        at += k;
    }
    MEST_CHECK(same, err, MEST_E_STATE, "the checkpoint was written with %s '%s'%s%s, not '%s'", what, found, who ? " of scheduler " : "",
               who ? who : "", want);
    return MEST_OK;
}

mest_status mest_schedulers_load(mest_schedulers *list, mest_state_io read, void *stream, mest_error *err)
{
    uint32_t head[4];
    mest_host *host = list->host;
    MEST_TRY(get(read, stream, head, sizeof head, err));
    MEST_CHECK(head[0] == STATE_MAGIC && head[1] == STATE_VERSION, err, MEST_E_FORMAT, "state of the schedulers is not of this version");
    MEST_CHECK(head[2] == (uint32_t)list->n, err, MEST_E_STATE, "the checkpoint was written with %u schedulers, not %d", head[2], list->n);
    MEST_CHECK(head[3] == (uint32_t)host->n_params, err, MEST_E_STATE, "the checkpoint was written with %u sparse parameters, not %d", head[3],
               host->n_params);
    for (int i = 0; i < list->n; i++) {
        loaded *item = &list->item[i];
        uint64_t size;
        MEST_TRY(expect_text(read, stream, "scheduler", NULL, item->name, err));
        char *options;
        MEST_TRY(identity_of(list, item, &options, err));
        mest_status equal = expect_text(read, stream, "options", item->name, options, err);
        mest_free(host->heap, options, strlen(item->options) + 1, 1);
        MEST_TRY(equal);
        MEST_TRY(get(read, stream, &size, sizeof size, err));
        metered m = { .next = read, .stream = stream, .left = size };
        mest_host_enter(host, MEST_HOST_NONE, item->name, i);
        mest_status status = item->vtable->load ? item->vtable->load(item->self, metered_io, &m) : MEST_OK;
        host->who = "";
        MEST_CHECK(status == MEST_OK, err, status, "scheduler %s: its saved state does not fit", item->name);
        MEST_CHECK(m.left == 0, err, MEST_E_FORMAT, "scheduler %s: its saved state is longer than expected", item->name);
    }
    uint8_t flags[2];
    MEST_TRY(get(read, stream, flags, sizeof flags, err));
    MEST_CHECK(flags[0] <= 1 && flags[1] <= 1, err, MEST_E_FORMAT, "state of the schedulers is damaged");
    host->gradients_taken = false;
    host->gradients_wanted = flags[0];
    for (int i = 0; i < host->n_params && (flags[0] || flags[1]); i++) {
        mest_host_param *p = &host->params[i];
        size_t cap = (size_t)p->sparse->cap_units * (size_t)p->sparse->unit_elements;
        if (!p->grad_snapshot) {
            MEST_NEW(host->heap, p->grad_snapshot, cap, err, "gradient snapshot");
            memset(p->grad_snapshot, 0, cap * sizeof *p->grad_snapshot);
        }
        if (p->group)
            MEST_TRY(mest_channels_keep(host->model, p->group - 1, err));
        if (!flags[1])
            continue;
        uint64_t n;
        MEST_TRY(get(read, stream, &n, sizeof n, err));
        MEST_CHECK(n == (uint64_t)p->sparse->stored, err, MEST_E_STATE, "%s: the checkpoint holds %" PRIu64 " gradients, not %" PRId64, p->name, n,
                   p->sparse->stored);
        MEST_TRY(get(read, stream, p->grad_snapshot, (size_t)n * sizeof(mest_real), err));
    }
    host->gradients_taken = flags[1];
    return MEST_OK;
}
