/* SPDX-License-Identifier: Apache-2.0 */
/* Data efficiency by forgetting events (Toneva et al., ICLR 2019; used by MEST in two phases).
 *
 * A sample is forgotten when a presentation is wrong and the one before it was right. Phase 1 counts these events per sample. At the
 * start of epoch `epoch` the samples are ordered by their count, those never learned last, ties at random, and the easiest go.
 *
 * State per sample, 16 bits: bit 0 the last presentation was right, bit 1 some presentation was right, bits 2.. the number of events.
 * Selection needs a histogram of the counts and one pass over the samples; all of it is freed when phase 2 begins. */
#include "mest/plugin.h"
#include "mest/plugin_options.h"
#include "schedulers/forgetting_file.h"

enum { NOTHING, BY_COUNT, BY_FRACTION, BY_FORGETS };

typedef struct forgetting {
    const mest_host_api *api;
    mest_host *host;              /* load is called without it */
    double epoch;                 /* whole epoch, or a fraction of the run below 1; < 0: not given */
    int rule;
    double amount;                /* of the rule: samples, fraction, events */
    int64_t keep_lowest;
    bool class_balance;
    char import_file[256], export_file[256];
    bool done;                    /* phase 2 */
    bool ready;                   /* n is known and, in phase 1, state is there */
    bool imported;                /* by this process */
    int64_t n;                    /* samples of the source */
    uint16_t *state;              /* n, NULL in phase 2 */
} forgetting;

static const char option_text[] =
    "epoch=.4375       when samples are removed: an epoch, or a fraction of the run below 1 (with import=: 0, with class_balance too: 1)\n"
    "remove=           how many: a fraction below 1, or a count\n"
    "fraction=         the same, as a fraction 0..1\n"
    "count=            the same, as a count\n"
    "max_forgets=      instead: all learned samples forgotten at most this often\n"
    "keep_lowest=0     keep this many of the easiest\n"
    "class_balance=no  remove the same share of every class\n"
    "export=FILE       write id,forgets,learned of each active sample when phase 1 ends\n"
    "import=FILE       take them from such a file instead of counting\n";
static const char option_names[] = "epoch, remove, fraction, count, max_forgets, keep_lowest, class_balance, export, import";

static mest_status parse(forgetting *f, const char *options, mest_error *err)
{
    mest_option o = mest_options("forgetting", options);
    int n_rules = 0;
    while (mest_option_next(&o, err)) {
        if (mest_option_is(&o, "epoch")) {
            mest_option_real(&o, 0, 1e9, &f->epoch, err);
            if (o.status == MEST_OK && f->epoch >= 1 && f->epoch != (double)(int64_t)f->epoch)
                mest_option_fail(&o, "a whole epoch or a fraction below 1", err);
        } else if (mest_option_is(&o, "remove")) {
            mest_option_real(&o, 0, 1e15, &f->amount, err);
            f->rule = f->amount < 1 ? BY_FRACTION : BY_COUNT;
            n_rules++;
            if (o.status == MEST_OK && f->rule == BY_COUNT && f->amount != (double)(int64_t)f->amount)
                mest_option_fail(&o, "a fraction below 1 or a whole count", err);
        } else if (mest_option_is(&o, "fraction")) {
            mest_option_real(&o, 0, 1, &f->amount, err);
            f->rule = BY_FRACTION;
            n_rules++;
        } else if (mest_option_is(&o, "count") || mest_option_is(&o, "max_forgets")) {
            int64_t n = 0;
            bool count = mest_option_is(&o, "count");
            mest_option_int(&o, 0, count ? INT64_MAX / 1024 : MEST_FORGET_MOST, &n, err);
            f->amount = (double)n;
            f->rule = count ? BY_COUNT : BY_FORGETS;
            n_rules++;
        } else if (mest_option_is(&o, "keep_lowest")) {
            mest_option_int(&o, 0, INT64_MAX / 1024, &f->keep_lowest, err);
        } else if (mest_option_is(&o, "class_balance")) {
            mest_option_bool(&o, &f->class_balance, err);
        } else if (mest_option_is(&o, "export")) {
            mest_option_text(&o, f->export_file, sizeof f->export_file - 5, err); /* 250: tools/pictures.c knows */
        } else if (mest_option_is(&o, "import")) {
            mest_option_text(&o, f->import_file, sizeof f->import_file, err);
        } else {
            mest_option_unknown(&o, option_names, err);
        }
    }
    if (o.status != MEST_OK)
        return o.status;
    if (n_rules > 1 || (n_rules == 0 && !f->export_file[0]))
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler forgetting: give one of remove, fraction, count, max_forgets (or only export)");
    if (f->class_balance && (f->rule == BY_FORGETS || f->keep_lowest > 0))
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler forgetting: class_balance does not go with max_forgets or keep_lowest");
    if (f->epoch < 0)
        f->epoch = !f->import_file[0] ? .4375 : f->class_balance ? 1 : 0; /* classes are seen in the first epoch */
    if (f->epoch == 0 && !f->import_file[0])
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler forgetting: at epoch 0 nothing was counted yet; give a later epoch or import=");
    if (f->epoch == 0 && f->class_balance)
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler forgetting: class_balance needs the classes of the samples, which are seen in the first epoch; give epoch=1 or later");
    return MEST_OK;
}

static mest_status forgetting_create(const mest_host_api *api, mest_host *host, const char *options, void **self, mest_error *err)
{
    forgetting *f = api->allocate(host, sizeof *f);
    if (!f)
        return mest_plugin_fail(err, MEST_E_NOMEM, "scheduler forgetting: no memory");
    memset(f, 0, sizeof *f);
    f->api = api;
    f->host = host;
    f->epoch = -1;
    mest_status status = parse(f, options, err);
    if (status == MEST_OK && f->import_file[0]) /* before anything else was done: a sweep tries its sessions first */
        status = mest_forgetting_look(f->import_file, err);
    if (status == MEST_OK && f->export_file[0])
        status = mest_forgetting_may_export(f->export_file, f->import_file, err);
    if (status != MEST_OK) {
        api->release(host, f, sizeof *f);
        return status;
    }
    *self = f;
    return MEST_OK;
}

static void free_state(forgetting *f, mest_host *host)
{
    if (f->state)
        f->api->release(host, f->state, (size_t)f->n * sizeof *f->state);
    f->state = NULL;
}

static void forgetting_destroy(void *self, mest_host *host)
{
    forgetting *f = self;
    free_state(f, host);
    f->api->release(host, f, sizeof *f);
}

static bool get_state(forgetting *f, mest_host *host, int64_t n)
{
    if (n < 0 || (uint64_t)n > SIZE_MAX / sizeof *f->state)
        return false;
    f->n = n;
    f->state = f->api->allocate(host, (size_t)n * sizeof *f->state);
    if (f->state)
        memset(f->state, 0, (size_t)n * sizeof *f->state);
    return f->state != NULL;
}

static mest_status forgetting_batch_seen(void *self, mest_host *host, const int64_t *ids, const uint8_t *correct, int64_t n, mest_error *err)
{
    forgetting *f = self;
    (void)host;
    if (f->done || !f->state || f->import_file[0])
        return MEST_OK;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= f->n)
            return mest_plugin_fail(err, MEST_E_DATA, "scheduler forgetting: sample %lld of %lld", (long long)ids[i], (long long)f->n);
        if (correct[i] > 1)
            return mest_plugin_fail(err, MEST_E_UNSUPPORTED, "scheduler forgetting: the task has no classes, so nothing can be forgotten");
        uint16_t s = f->state[ids[i]];
        if ((s & MEST_FORGET_PREVIOUS) && !correct[i] && s / MEST_FORGET_EVENT < MEST_FORGET_MOST)
            s = (uint16_t)(s + MEST_FORGET_EVENT);
        f->state[ids[i]] = (uint16_t)((s & ~MEST_FORGET_PREVIOUS) | (correct[i] ? MEST_FORGET_PREVIOUS | MEST_FORGET_LEARNED : 0));
    }
    return MEST_OK;
}

/* ---- selection ---- */

typedef struct bin {
    int64_t left, keep, remove; /* members not decided yet; how many of them stay as easiest, how many go */
} bin;

typedef struct choice {
    int n_groups, n_bins;       /* groups: classes when balanced (0: unknown), otherwise one; bins: 0..most events, never learned */
    bin *bins;                  /* [n_groups, n_bins] */
    int n_classes;              /* + 1 for unknown */
    int64_t *before, *after;    /* per class, unknown first */
    int64_t active;
} choice;

static int bin_of(const choice *c, uint16_t s) { return s & MEST_FORGET_LEARNED ? s / MEST_FORGET_EVENT : c->n_bins - 1; }

/* Splits `lo` kept and `hi - lo` removed over the bins of a group, easiest first. */
static void split(bin *bins, int n_bins, int64_t lo, int64_t hi)
{
    int64_t start = 0;
    for (int b = 0; b < n_bins; b++) {
        int64_t n = bins[b].left, a = lo - start, z = hi - start;
        a = a < 0 ? 0 : a > n ? n : a;
        z = z < 0 ? 0 : z > n ? n : z;
        bins[b].keep = a;
        bins[b].remove = z - a;
        start += n;
    }
}

static int64_t rounded_share(int64_t part, int64_t whole, int64_t n) { return whole ? (int64_t)((double)n * (double)part / (double)whole + .5) : 0; }

/* How many of n samples a count or fraction removes; 0 for a rule that only the counts decide. */
static int64_t plain_amount(const forgetting *f, int64_t n)
{
    return f->rule == BY_COUNT ? (int64_t)f->amount : f->rule == BY_FRACTION ? (int64_t)(f->amount * (double)n + .5) : 0;
}

/* How many samples the rule removes. */
static int64_t amount_of(const forgetting *f, const choice *c)
{
    int64_t n = 0;
    if (f->rule != BY_FORGETS)
        return plain_amount(f, c->active);
    for (int b = 0; b < c->n_bins - 1 && b <= (int)f->amount; b++)
        for (int g = 0; g < c->n_groups; g++)
            n += c->bins[g * c->n_bins + b].left;
    n -= f->keep_lowest;
    return n < 0 ? 0 : n;
}

static void report(const forgetting *f, mest_host *host, const choice *c, int64_t removed)
{
    char text[480];
    int64_t zero = 0, one = 0, never = 0;
    for (int g = 0; g < c->n_groups; g++) {
        zero += c->n_bins > 1 ? c->bins[g * c->n_bins].left : 0;
        one += c->n_bins > 2 ? c->bins[g * c->n_bins + 1].left : 0;
        never += c->bins[g * c->n_bins + c->n_bins - 1].left;
    }
    snprintf(text, sizeof text, "%lld samples: %lld learned and never forgotten, %lld forgotten once, %lld never learned; %lld removed",
             (long long)c->active, (long long)zero, (long long)one, (long long)never, (long long)removed);
    f->api->log(host, MEST_LOG_INFO, text);
}

static void report_classes(const forgetting *f, mest_host *host, const choice *c)
{
    char text[480];
    size_t used = 0;
    for (int k = 0; k < c->n_classes; k++) {
        if (c->before[k] == 0)
            continue;
        if (k == 0)
            used += (size_t)snprintf(text + used, sizeof text - used, "%sunknown class", used ? ", " : "");
        else
            used += (size_t)snprintf(text + used, sizeof text - used, "%sclass %d", used ? ", " : "", k - 1);
        used += (size_t)snprintf(text + used, sizeof text - used, ": %lld -> %lld", (long long)c->before[k], (long long)c->after[k]);
        if (used > sizeof text - 80) {
            f->api->log(host, MEST_LOG_INFO, text);
            used = 0;
        }
    }
    if (used)
        f->api->log(host, MEST_LOG_INFO, text);
}

/* Decides sample by sample: within a bin every sample has the same chance (selection sampling), keyed by its id. */
static int64_t pick(const forgetting *f, mest_host *host, choice *c, int64_t *out)
{
    int64_t n = 0;
    for (int64_t id = 0; id < f->n; id++) {
        if (!f->api->sample_active(host, id))
            continue;
        int class = (int)f->api->sample_class(host, id) + 1;
        bin *b = &c->bins[(f->class_balance ? class : 0) * c->n_bins + bin_of(c, f->state[id])];
        int64_t x = (int64_t)(f->api->random(host, 0, (uint64_t)id) % (uint64_t)b->left);
        bool remove = x >= b->keep && x < b->keep + b->remove;
        b->keep -= x < b->keep;
        b->remove -= remove;
        b->left--;
        c->after[class] -= remove;
        if (remove)
            out[n++] = id;
    }
    return n;
}

static mest_status fill(const forgetting *f, mest_host *host, choice *c, mest_error *err)
{
    int most = -1;
    int64_t classes = 1;
    for (int64_t id = 0; id < f->n; id++) {
        int64_t class = f->api->sample_class(host, id) + 1;
        classes = class + 1 > classes ? class + 1 : classes;
        if ((f->state[id] & MEST_FORGET_LEARNED) && f->state[id] / MEST_FORGET_EVENT > most)
            most = f->state[id] / MEST_FORGET_EVENT;
    }
    if (classes > 1000000)
        return mest_plugin_fail(err, MEST_E_LIMIT, "scheduler forgetting: %lld classes are too many", (long long)classes);
    c->n_classes = (int)classes;
    c->n_bins = most + 2;
    c->n_groups = f->class_balance ? c->n_classes : 1;
    size_t bins = (size_t)c->n_groups * (size_t)c->n_bins;
    c->bins = f->api->allocate(host, bins * sizeof *c->bins);
    c->before = f->api->allocate(host, (size_t)classes * 2 * sizeof *c->before);
    if (!c->bins || !c->before)
        return mest_plugin_fail(err, MEST_E_NOMEM, "scheduler forgetting: no memory for %d x %d bins", c->n_groups, c->n_bins);
    memset(c->bins, 0, bins * sizeof *c->bins);
    memset(c->before, 0, (size_t)classes * 2 * sizeof *c->before);
    c->after = c->before + classes;
    for (int64_t id = 0; id < f->n; id++) {
        if (!f->api->sample_active(host, id))
            continue;
        int class = (int)f->api->sample_class(host, id) + 1;
        c->bins[(f->class_balance ? class : 0) * c->n_bins + bin_of(c, f->state[id])].left++;
        c->before[class]++;
        c->after[class]++;
        c->active++;
    }
    return MEST_OK;
}

static mest_status leaves_none(const forgetting *f, int64_t n, int64_t of, mest_error *err)
{
    return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler forgetting: %lld of %lld samples to remove and %lld to keep leave none", (long long)n,
                            (long long)of, (long long)f->keep_lowest);
}

static mest_status remove_easiest(forgetting *f, mest_host *host, mest_error *err)
{
    choice c = { 0 };
    int64_t *out = NULL, n = 0;
    mest_status status = fill(f, host, &c, err);
    if (status == MEST_OK) {
        n = amount_of(f, &c);
        if (f->rule == BY_FORGETS && n > 0 && n + f->keep_lowest >= c.active) { /* only known now: no reason to end the run */
            f->api->log(host, MEST_LOG_WARNING, "every sample is below max_forgets; none is removed");
            n = 0;
        }
        if (n > 0 && n + f->keep_lowest >= c.active)
            status = leaves_none(f, n, c.active, err);
    }
    if (status == MEST_OK) {
        report(f, host, &c, n);
        int64_t before = 0;
        for (int g = 0; g < c.n_groups; g++) { /* shares of cumulative sizes: they add up to n exactly */
            int64_t upto = f->class_balance ? before + c.before[g] : c.active;
            int64_t hi = rounded_share(upto, c.active, n) - rounded_share(before, c.active, n);
            split(c.bins + g * c.n_bins, c.n_bins, f->keep_lowest, f->keep_lowest + hi);
            before = upto;
        }
        out = f->api->allocate(host, (size_t)n * sizeof *out);
        if (!out)
            status = mest_plugin_fail(err, MEST_E_NOMEM, "scheduler forgetting: no memory for %lld samples", (long long)n);
    }
    if (status == MEST_OK) {
        int64_t got = pick(f, host, &c, out);
        report_classes(f, host, &c);
        status = f->api->remove_samples(host, out, got, err);
    }
    if (out)
        f->api->release(host, out, (size_t)n * sizeof *out);
    if (c.before)
        f->api->release(host, c.before, (size_t)c.n_classes * 2 * sizeof *c.before);
    if (c.bins)
        f->api->release(host, c.bins, (size_t)c.n_groups * (size_t)c.n_bins * sizeof *c.bins);
    return status;
}

/* ---- phases ---- */

/* A fraction of a short run is still one epoch: before it nothing was counted. */
static int64_t end_of_phase_1(const forgetting *f, int64_t n_epochs)
{
    if (f->epoch == 0 || f->epoch >= 1)
        return (int64_t)f->epoch;
    int64_t epoch = (int64_t)(f->epoch * (double)n_epochs + .5);
    return epoch > 1 ? epoch : 1;
}

static mest_status end_phase_1(forgetting *f, mest_host *host, bool remove, mest_error *err)
{
    mest_status status = MEST_OK;
    if (f->import_file[0] && !f->imported) /* resumed */
        status = mest_forgetting_import(f->import_file, f->state, f->n, err);
    if (status == MEST_OK && f->export_file[0])
        status = mest_forgetting_may_export(f->export_file, f->import_file, err);
    if (status == MEST_OK && f->export_file[0])
        status = mest_forgetting_export(f->export_file, f->state, f->n, f->api, host, err);
    if (status == MEST_OK && remove)
        status = remove_easiest(f, host, err);
    if (status == MEST_OK) {
        f->done = true;
        free_state(f, host);
    }
    return status;
}

/* What can be known before the first step fails before it, not in the middle of the run. */
static mest_status look_ahead(forgetting *f, mest_host *host, const mest_epoch *e, mest_error *err)
{
    const int64_t wanted = plain_amount(f, f->n);
    if (wanted > 0 && wanted + f->keep_lowest >= f->n)
        return leaves_none(f, wanted, f->n, err);
    if (e->n_epochs > 0 && end_of_phase_1(f, e->n_epochs) >= e->n_epochs)
        f->api->log(host, MEST_LOG_WARNING, "the run ends before samples would be removed");
    mest_status status = MEST_OK;
    if (f->import_file[0])
        status = mest_forgetting_import(f->import_file, f->state, f->n, err);
    f->imported = true;
    return status == MEST_OK && f->export_file[0] ? mest_forgetting_may_export(f->export_file, f->import_file, err) : status;
}

static mest_status forgetting_epoch_begin(void *self, mest_host *host, const mest_epoch *e, mest_error *err)
{
    forgetting *f = self;
    if (f->epoch > 0 && f->epoch < 1 && e->n_epochs <= 0)
        return mest_plugin_fail(err, MEST_E_ARGUMENT, "scheduler forgetting: the number of epochs is not known; give epoch= as a whole epoch");
    if (f->ready && f->n != e->n_samples)
        return mest_plugin_fail(err, MEST_E_DATA, "scheduler forgetting: %lld samples were counted, now there are %lld", (long long)f->n,
                                (long long)e->n_samples);
    if (!f->ready && !f->done) {
        if (!get_state(f, host, e->n_samples))
            return mest_plugin_fail(err, MEST_E_NOMEM, "scheduler forgetting: no memory for %lld samples", (long long)e->n_samples);
        f->ready = true;
        mest_status status = look_ahead(f, host, e, err);
        if (status != MEST_OK)
            return status;
    }
    return !f->done && e->epoch >= end_of_phase_1(f, e->n_epochs) ? end_phase_1(f, host, true, err) : MEST_OK;
}

/* A run that ends in phase 1 still writes what it counted. */
static mest_status forgetting_epoch_end(void *self, mest_host *host, const mest_epoch *e, mest_error *err)
{
    forgetting *f = self;
    bool last = e->n_epochs > 0 && e->epoch == e->n_epochs - 1;
    return last && !f->done && f->ready && !f->import_file[0] && f->export_file[0] ? end_phase_1(f, host, false, err) : MEST_OK;
}

static mest_status forgetting_save(void *self, mest_state_io write, void *stream)
{
    forgetting *f = self;
    int64_t head[2] = { f->ready || f->done ? f->n : -1, f->done };
    mest_status status = write(stream, head, sizeof head);
    return status == MEST_OK && f->state ? write(stream, f->state, (size_t)f->n * sizeof *f->state) : status;
}

static mest_status forgetting_load(void *self, mest_state_io read, void *stream)
{
    forgetting *f = self;
    int64_t head[2];
    mest_status status = read(stream, head, sizeof head);
    if (status != MEST_OK)
        return status;
    if (head[0] < -1 || head[1] < 0 || head[1] > 1)
        return MEST_E_FORMAT;
    free_state(f, f->host);
    f->ready = head[0] >= 0;
    f->done = head[1];
    f->n = f->ready ? head[0] : 0;
    if (!f->ready || f->done)
        return MEST_OK;
    if (!get_state(f, f->host, f->n))
        return MEST_E_NOMEM;
    return read(stream, f->state, (size_t)f->n * sizeof *f->state);
}

extern const mest_scheduler mest_scheduler_forgetting;
const mest_scheduler mest_scheduler_forgetting = {
    .abi = MEST_SCHEDULER_ABI, .struct_size = sizeof(mest_scheduler),
    .name = "forgetting", .summary = "two-phase training: count forgetting events, then go on without the easiest samples",
    .options = option_text,
    .create = forgetting_create, .epoch_begin = forgetting_epoch_begin, .batch_seen = forgetting_batch_seen,
    .epoch_end = forgetting_epoch_end, .save = forgetting_save, .load = forgetting_load, .destroy = forgetting_destroy,
    .flags = MEST_SCHEDULER_CHOOSES_SAMPLES,
};
