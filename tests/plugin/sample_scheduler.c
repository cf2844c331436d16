/* SPDX-License-Identifier: Apache-2.0 */
/* A scheduler outside the library, as its author would write it: public headers only, nothing linked. Options: do=WHAT proposes
 * something, honest or not, at epoch_begin; swallow=yes carries on after a refusal. Compiled several times, once as it should be. */
#include <math.h>

#include "mest/plugin.h"
#include "mest/plugin_options.h"

#if !defined(SAMPLE_NO_SYMBOL)

static const char *const acts[] = {
    "nothing", "swap", "drop_range", "drop_negative", "drop_twice", "drop_order", "drop_inactive", "grow_range", "grow_active", "grow_twice",
    "grow_over", "second_list", "bad_param", "bad_units", "late_reserve", "samples_range", "samples_twice", "samples_all", "fail_after", "fail_silent",
    "drop_again", "grow_again", "set", "set_range", "set_inactive", "set_dropped", "set_twice", "set_nan", "set_none", "drop_set", "late_skip",
    "restore_active", "restore_twice", "skip", NULL,
};
enum { NOTHING, SWAP, DROP_RANGE, DROP_NEGATIVE, DROP_TWICE, DROP_ORDER, DROP_INACTIVE, GROW_RANGE, GROW_ACTIVE, GROW_TWICE, GROW_OVER,
       SECOND_LIST, BAD_PARAM, BAD_UNITS, LATE_RESERVE, SAMPLES_RANGE, SAMPLES_TWICE, SAMPLES_ALL, FAIL_AFTER, FAIL_SILENT, DROP_AGAIN, GROW_AGAIN, SET, SET_RANGE, SET_INACTIVE, SET_DROPPED,
       SET_TWICE, SET_NAN, SET_NONE, DROP_SET, LATE_SKIP, RESTORE_ACTIVE, RESTORE_TWICE, SKIP };
static const char *const moments[] = { "epoch_begin", "epoch_end", "step_begin", "step_end", NULL };
enum { EPOCH_BEGIN, EPOCH_END, STEP_BEGIN, STEP_END };

typedef struct sample {
    const mest_host_api *api;
    int act, at;
    bool swallow;
    int64_t epochs, steps;
} sample;

static mest_status sample_create(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err)
{
    sample *s = api->allocate(host, sizeof *s);
    if (!s)
        return mest_plugin_fail(err, MEST_E_NOMEM, "scheduler sample: no memory");
    *s = (sample){ .api = api };
    mest_option o = mest_options("sample", options);
    while (mest_option_next(&o, err)) {
        if (mest_option_is(&o, "do"))
            mest_option_choice(&o, acts, &s->act, err);
        else if (mest_option_is(&o, "at"))
            mest_option_choice(&o, moments, &s->at, err);
        else if (mest_option_is(&o, "swallow"))
            mest_option_bool(&o, &s->swallow, err);
        else
            mest_option_unknown(&o, "do, at, swallow", err);
    }
    if (o.status != MEST_OK) {
        api->release(host, s, sizeof *s);
        return o.status;
    }
    *self = s;
    return MEST_OK;
}

static mest_status act(sample *s, mest_host *host, mest_error *err)
{
    const mest_host_api *api = s->api;
    mest_sparse_info info;
    info.struct_size = sizeof info;
    mest_status status = api->sparse_info(host, 0, &info, err);
    int64_t a[4], f[4], n = info.n_units, all[64];
    const float one[2] = { 1.5f, -2 }, nan[2] = { 1, (float)NAN };
    if (status == MEST_OK)
        status = api->active_units(host, 0, 0, 4, a, err);
    if (status == MEST_OK)
        status = api->sample_inactive(host, 0, 1, NULL, 0, 4, f, err);
    if (status != MEST_OK)
        return status;
    if (s->act != NOTHING && s->act != BAD_PARAM) /* something honest first: it must not be applied when the rest is refused */
        status = api->drop(host, 0, a, 2, err);
    switch (s->act) {
    case SWAP: status = api->grow(host, 0, f, 2, err); break;
    case DROP_RANGE: status = api->drop(host, 0, (int64_t[]){ n }, 1, err); break;
    case DROP_NEGATIVE: status = api->drop(host, 0, (int64_t[]){ -1 }, 1, err); break;
    case DROP_TWICE: status = api->drop(host, 0, (int64_t[]){ a[2], a[2] }, 2, err); break;
    case DROP_ORDER: status = api->drop(host, 0, (int64_t[]){ a[3], a[2] }, 2, err); break;
    case DROP_INACTIVE: status = api->drop(host, 0, f, 1, err); break;
    case DROP_AGAIN: status = api->drop(host, 0, a, 1, err); break;
    case GROW_RANGE: status = api->grow(host, 0, (int64_t[]){ f[0], n + 5 }, 2, err); break;
    case GROW_ACTIVE: status = api->grow(host, 0, a + 2, 1, err); break;
    case GROW_TWICE: status = api->grow(host, 0, (int64_t[]){ f[0], f[0] }, 2, err); break;
    case GROW_AGAIN:
        status = api->grow(host, 0, f, 1, err);
        status = status ? status : api->grow(host, 0, f, 1, err);
        break;
    case GROW_OVER: status = api->grow(host, 0, f, 3, err); break;
    case SECOND_LIST: /* lists may come in pieces, and what was dropped may come back */
        status = api->drop(host, 0, a + 2, 2, err);
        status = status ? status : api->grow(host, 0, a + 3, 1, err);
        status = status ? status : api->grow(host, 0, a, 1, err);
        status = status ? status : api->sample_inactive(host, 0, 2, f, 4, 2, all, err); /* not a[0], not a[3], not f */
        for (int i = 0; i < 2; i++)
            for (int k = 0; k < 4; k++)
                if (all[i] == f[k] || all[i] == a[0] || all[i] == a[3])
                    status = mest_plugin_fail(err, MEST_E_PLUGIN, "scheduler sample: drew a unit that is taken");
        status = status ? status : api->grow(host, 0, all, 2, err);
        break;
    case BAD_PARAM: status = api->drop(host, 7, a, 1, err); break;
    case BAD_UNITS: status = api->active_units(host, 0, info.n_active - 1, 2, all, err); break;
    case LATE_RESERVE: status = api->reserve(host, 0, info.n_units, err); break;
    case SAMPLES_RANGE: status = api->remove_samples(host, (int64_t[]){ 1, 1000 }, 2, err); break;
    case SAMPLES_TWICE:
        status = api->remove_samples(host, (int64_t[]){ 1, 3 }, 2, err);
        status = status ? status : api->remove_samples(host, (int64_t[]){ 3 }, 1, err);
        break;
    case SAMPLES_ALL:
        for (int i = 0; i < 9; i++)
            all[i] = i;
        status = api->remove_samples(host, all, 9, err);
        break;
    case SET: /* a survivor and a new one */
        status = api->grow(host, 0, f, 2, err);
        status = status ? status : api->set_values(host, 0, f + 1, 1, one + 1, err);
        status = status ? status : api->set_values(host, 0, a + 2, 1, one, err);
        break;
    case SET_RANGE: status = api->set_values(host, 0, (int64_t[]){ n }, 1, one, err); break;
    case SET_INACTIVE: status = api->set_values(host, 0, f, 1, one, err); break;
    case SET_DROPPED: status = api->set_values(host, 0, a, 1, one, err); break;
    case SET_TWICE:
        status = api->set_values(host, 0, a + 2, 1, one, err);
        status = status ? status : api->set_values(host, 0, a + 2, 2, one, err);
        break;
    case SET_NAN: status = api->set_values(host, 0, a + 2, 2, nan, err); break;
    case SET_NONE: status = api->set_values(host, 0, a + 2, 1, NULL, err); break;
    case DROP_SET:
        status = api->set_values(host, 0, a + 2, 1, one, err);
        status = status ? status : api->drop(host, 0, a + 2, 1, err);
        break;
    case LATE_SKIP: status = api->skip_update(host, err); break;
    case SKIP: status = api->skip_update(host, err); break;
    case RESTORE_ACTIVE: status = api->restore_samples(host, (int64_t[]){ 3 }, 1, err); break;
    case RESTORE_TWICE:
        status = api->restore_samples(host, (int64_t[]){ 9 }, 1, err);
        status = status ? status : api->restore_samples(host, (int64_t[]){ 9 }, 1, err);
        break;
    case FAIL_AFTER:
        api->remove_samples(host, (int64_t[]){ 1 }, 1, NULL);
        status = mest_plugin_fail(err, MEST_E_NUMERIC, "scheduler sample: changed its mind");
        break;
    case FAIL_SILENT: status = MEST_E_LIMIT; break;
    default: break;
    }
    return s->swallow ? MEST_OK : status;
}

static mest_status sample_epoch_begin(void *self, mest_host *host, const mest_epoch *epoch, mest_error *err)
{
    sample *s = self;
    s->epochs++;
    (void)epoch;
    return s->at == EPOCH_BEGIN ? act(s, host, err) : MEST_OK;
}

static mest_status sample_epoch_end(void *self, mest_host *host, const mest_epoch *epoch, mest_error *err)
{
    (void)epoch;
    return ((sample *)self)->at == EPOCH_END ? act(self, host, err) : MEST_OK;
}

static mest_status sample_step_begin(void *self, mest_host *host, const mest_training_step *step, mest_error *err)
{
    sample *s = self;
    s->steps++;
    (void)step;
    return s->at == STEP_BEGIN ? act(s, host, err) : MEST_OK;
}

static mest_status sample_step_end(void *self, mest_host *host, const mest_training_step *step, mest_error *err)
{
    (void)step;
    return ((sample *)self)->at == STEP_END ? act(self, host, err) : MEST_OK;
}

static mest_status sample_save(void *self, mest_state_io write, void *stream) { return write(stream, &((sample *)self)->epochs, sizeof(int64_t)); }
static mest_status sample_load(void *self, mest_state_io read, void *stream) { return read(stream, &((sample *)self)->epochs, sizeof(int64_t)); }

static void sample_destroy(void *self, mest_host *host)
{
    sample *s = self;
    char text[60];
    snprintf(text, sizeof text, "saw %lld epochs, %lld steps", (long long)s->epochs, (long long)s->steps);
    s->api->log(host, MEST_LOG_INFO, text);
    s->api->release(host, s, sizeof *s);
}

static const mest_scheduler scheduler = {
    .abi = MEST_SCHEDULER_ABI
#if defined(SAMPLE_OTHER_ABI)
           + 1
#endif
    ,
#if defined(SAMPLE_SHORT_STRUCT)
    .struct_size = offsetof(mest_scheduler, destroy),
#elif defined(SAMPLE_OLDER) /* built against a header without step callbacks */
    .struct_size = offsetof(mest_scheduler, step_begin),
#else
    .struct_size = sizeof(mest_scheduler),
#endif
#if !defined(SAMPLE_NO_NAME)
    .name = "sample",
#endif
    .summary = "test", .options = "",
    .create = sample_create, .epoch_begin = sample_epoch_begin, .epoch_end = sample_epoch_end, .save = sample_save, .load = sample_load, .destroy = sample_destroy,
    .step_begin = sample_step_begin, .step_end = sample_step_end,
};

const mest_scheduler *mest_scheduler_entry(uint32_t host_abi)
{
#if defined(SAMPLE_REFUSES)
    return host_abi == 0 ? &scheduler : NULL;
#else
    (void)host_abi; /* an honest one would compare; the library must not rely on that */
    return &scheduler;
#endif
}

#else
extern int sample_without_entry;
int sample_without_entry = 1;
#endif
