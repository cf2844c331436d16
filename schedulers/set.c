/* SPDX-License-Identifier: Apache-2.0 */
/* SET, sparse evolutionary training (Mocanu et al., Nature Communications 2018). After every epoch, per parameter: the part `rate` of the
 * smallest positive weights and the same part of the negative weights nearest to zero go, and as many grow at random places.
 *
 * The number of units stays. Units of several weights have no sign, and balanced groups no room for it: of them the smallest norms go. No state. */
#include "schedulers/method.h"

typedef struct set {
    method m;
    bool by_sign, exclude;
} set;

static const char option_text[] =
    "rate=.3           part of the active units that is replaced\n"
    "decay=constant    how rate falls to 0 at stop: constant, cosine, linear\n"
    "every=1           epochs (or steps) between updates\n"
    "unit=epochs       what every counts\n"
    "start=0, stop=1   parts of the run between which updates happen\n"
    "select=sign       sign: positive and negative weights apart; magnitude: together\n"
    "init=normal       new weights: normal with deviation sigma, or zero\n"
    "sigma=.1          see init\n"
    "exclude_just_removed=no  do not grow what was removed a moment ago, while there are enough others\n";
static const char option_names[] = "rate, decay, every, unit, start, stop, select, init, sigma, exclude_just_removed";

static mest_status set_create(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err)
{
    static const char *const selects[] = { "magnitude", "sign", NULL };
    set s = { .m = { .name = "set", .api = api, .every = 1, .unit = METHOD_EPOCHS, .stop = 1, .rate = .3, .init = METHOD_NORMAL, .sigma = .1 }, .by_sign = true };
    mest_option o = mest_options("set", options);
    while (mest_option_next(&o, err)) {
        int select = 1;
        if (method_when_option(&s.m, &o, err) || method_rate_option(&s.m, &o, err))
            continue;
        if (mest_option_is(&o, "select")) {
            mest_option_choice(&o, selects, &select, err);
            s.by_sign = o.status == MEST_OK && select == 1;
        } else if (mest_option_is(&o, "exclude_just_removed")) {
            mest_option_bool(&o, &s.exclude, err);
        } else {
            mest_option_unknown(&o, option_names, err);
        }
    }
    mest_status status = o.status ? o.status : method_window(&s.m, err);
    return status ? status : method_keep(&s.m, host, &s, sizeof s, self, err);
}

/* One side of zero: |w| there, and +infinity on the other side and at 0, which belongs to the positive weights. */
static float one_side(float w, int side) { return (w >= 0) == (side == 0) ? fabsf(w) : INFINITY; }

/* The k smallest of one side of zero among n values with ids, appended to `out`; unordered. `key` is scratch of n. */
static int64_t smallest_of_side(const float *value, const int64_t *unit, int64_t n, int side, int64_t k, uint32_t *key, int64_t *out)
{
    /* bit by bit from the top: the k-th smallest key */
    uint32_t at = 0;
    int64_t need = k, found = 0;
    if (k == 0)
        return 0;
    for (int64_t i = 0; i < n; i++)
        key[i] = method_key(one_side(value[i], side));
    for (int bit = 31; bit >= 0; bit--) {
        int64_t zeros = 0;
        for (int64_t i = 0; i < n; i++)
            zeros += (key[i] >> bit | 1) == ((at >> bit) | 1) && !(key[i] >> bit & 1);
        if (need > zeros) {
            need -= zeros;
            at |= 1u << bit;
        }
    }
    for (int64_t i = 0; i < n && found < k; i++)
        if (key[i] < at || (key[i] == at && need-- > 0))
            out[found++] = unit[i];
    return found;
}

/* What goes: ids ascending into drop, their number into *n (at most round(rate * active) + 1: two halves are rounded). */
static mest_status choose(const set *s, mest_host *host, int param, const mest_sparse_info *info, double rate, int64_t *drop, int64_t *n, mest_error *err)
{
    const method *m = &s->m;
    *n = method_part(rate, info->n_active, info->n_active);
    if (!s->by_sign || info->unit_elements > 1 || info->group_units > 0)
        return m->api->lowest_units(host, param, 0, false, *n, drop, err);
    int64_t u = info->n_active, positive = 0;
    float *value = (float *)method_take(m, host, u, sizeof *value, err);
    int64_t *unit = (int64_t *)method_take(m, host, u, sizeof *unit, err);
    uint32_t *key = (uint32_t *)method_take(m, host, u, sizeof *key, err);
    mest_status status = value && unit && key ? m->api->get_values(host, param, 0, u, value, err) : MEST_E_NOMEM;
    if (status == MEST_OK)
        status = m->api->active_units(host, param, 0, u, unit, err);
    if (status == MEST_OK) {
        for (int64_t i = 0; i < u; i++)
            positive += value[i] >= 0;
        int64_t first = method_part(rate, positive, *n), second = *n - first < u - positive ? *n - first : u - positive;
        first = *n - second; /* the rounding of both sides together is that of their sum */
        *n = smallest_of_side(value, unit, u, 0, first, key, drop);
        *n += smallest_of_side(value, unit, u, 1, second, key, drop + *n);
        method_sort_ids(drop, *n);
    }
    method_give(m, host, key, u, sizeof *key);
    method_give(m, host, unit, u, sizeof *unit);
    method_give(m, host, value, u, sizeof *value);
    return status;
}

static mest_status evolve(const set *s, mest_host *host, int param, const mest_training_step *step, mest_error *err)
{
    const method *m = &s->m;
    mest_sparse_info info;
    mest_status status = method_info(m, host, param, &info, err);
    int64_t room = status == MEST_OK ? method_part(method_rate(m, step), info.n_active, info.n_active) : 0, n;
    if (status != MEST_OK || room == 0 || info.frozen || info.n_active == info.n_units)
        return status;
    int64_t *drop = (int64_t *)method_take(m, host, 2 * room, sizeof *drop, err), *grow = drop + room;
    if (!drop)
        return MEST_E_NOMEM;
    status = choose(s, host, param, &info, method_rate(m, step), drop, &n, err);
    bool exclude = s->exclude && n <= info.n_units - info.n_active;
    if (status == MEST_OK)
        status = m->api->drop(host, param, drop, n, err);
    if (status == MEST_OK)
        status = m->api->sample_inactive(host, param, (uint64_t)step->step, exclude ? drop : NULL, exclude ? n : 0, n, grow, err);
    if (status == MEST_OK)
        status = m->api->grow(host, param, grow, n, err);
    if (status == MEST_OK)
        status = method_fill(m, host, param, &info, (uint64_t)step->step, grow, n, err);
    method_give(m, host, drop, 2 * room, sizeof *drop);
    return status;
}

static mest_status set_step_begin(void *self, mest_host *host, const mest_training_step *step, mest_error *err)
{
    const set *s = (const set *)self;
    mest_status status = MEST_OK;
    for (int p = 0; method_due(&s->m, step) && p < s->m.api->sparse_count(host) && status == MEST_OK; p++)
        status = evolve(s, host, p, step, err);
    return status;
}

static mest_status set_epoch_begin(void *self, mest_host *host, const mest_epoch *e, mest_error *err)
{
    (void)err;
    return method_note_idle(&((set *)self)->m, host, e);
}

static void set_destroy(void *self, mest_host *host) { method_give(&((set *)self)->m, host, self, 1, sizeof(set)); }

extern const mest_scheduler mest_scheduler_set;
const mest_scheduler mest_scheduler_set = {
    .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof(mest_scheduler), .name = "set",
    .summary = "sparse evolutionary training: the weights nearest to zero go, random ones grow, after every epoch", .options = option_text,
    .create = set_create, .destroy = set_destroy, .epoch_begin = set_epoch_begin, .step_begin = set_step_begin,
    .flags = MEST_SCHEDULER_MOVES_WEIGHTS,
};
