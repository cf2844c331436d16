/* SPDX-License-Identifier: Apache-2.0 */
/* Initializers to sparse parameters, by rule, straight from the mapped file. */
#include "runtime/sparsify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/match.h"
#include "runtime/distribution.h"
#include "runtime/mapfile.h"
#include "runtime/ratios.h"
#include "runtime/rules.h"
#include "runtime/scheme_auto.h"
#include "runtime/snapshot.h"
#include "runtime/weight_use.h"

/* What pattern leaves to another scheme: its masks are for 3x3 kernels. */
static const char *instead_of(const mest_scheme *scheme, const mest_weight_use *u)
{
    return strcmp(scheme->format->family, "pattern") != 0 ? NULL : u->shape.dim[0] >= 4 ? "block4" : "csr";
}

typedef struct job {
    mest_model *m;
    const mest_sparsity *s;
    mest_graph graph;          /* as layers see their weights */
    mest_ratios ratios;
    mest_patterns patterns;    /* n == 0: the default */
    mest_weight_plan *plans;               /* one a parameter */
    bool structured;           /* some are to lose channels */
    int asked, made;           /* weights that are to be sparse; those that will be */
    char why[400];             /* why one of the others will not */
    mest_log_level why_level;
    mest_tuner *tuner;         /* times for scheme "auto"; NULL: models of cost */
} job;

static void stays_dense(job *j, mest_log_level level, const mest_param *p, const char *format, ...) MEST_PRINTF(4, 5);

static void stays_dense(job *j, mest_log_level level, const mest_param *p, const char *format, ...)
{
    char why[300];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    mest_logf(&j->m->heap, level, "'%s' stays dense: %s", p->name, why);
    if (*j->why && level >= j->why_level) /* what is wrong says more than what is usual */
        return;
    j->why_level = level;
    snprintf(j->why, sizeof j->why, "'%s' stays dense: %s", p->name, why);
}

/* An empty sparse weight for the rule's scheme, or for what stands in for it. sparse stays NULL where the weight must stay dense. */
static mest_status open_sparse(job *j, int32_t index, const mest_rule *r, mest_error *err)
{
    mest_model *m = j->m;
    mest_weight_plan *one = &j->plans[index];
    const mest_patterns *patterns = j->patterns.n ? &j->patterns : NULL;
    mest_param *p = &m->params[index];
    mest_scheme scheme;
    mest_error own = {MEST_OK, ""};
    mest_sparse_spec spec = {.scheme = r->scheme, .shape = &one->u.shape, .inputs_first = mest_weight_inputs_first(&one->u), .patterns = patterns};
    MEST_TRY(mest_scheme_find(r->scheme, &scheme, err));
    mest_status status = mest_sparse_make(&one->sparse, &m->heap, &spec, 0, &own);
    if (status == MEST_E_SHAPE && instead_of(&scheme, &one->u)) {
        spec.scheme = instead_of(&scheme, &one->u);
        mest_logf(&m->heap, MEST_LOG_INFO, "'%s' is %s: %s", p->name, spec.scheme, own.msg);
        return mest_sparse_make(&one->sparse, &m->heap, &spec, 0, err);
    }
    if (status == MEST_E_SHAPE && !r->named) {
        stays_dense(j, MEST_LOG_WARNING, p, "%s", own.msg);
        return MEST_OK;
    }
    return status == MEST_OK ? MEST_OK : mest_fail(err, status, "sparsify: '%s': %s", p->name, own.msg);
}

void mest_sparsity_init(mest_sparsity *s)
{
    memset(s, 0, sizeof *s);
    s->struct_size = sizeof *s;
    s->scheme = "csr";
    s->dense_layers = "auto";
    s->distribution = "uniform";
}

static mest_status read_patterns(job *j, mest_error *err)
{
    enum { MOST = 16384 };
    mest_mapfile file;
    char text[MOST + 1];
    MEST_TRY(mest_mapfile_open(&file, j->s->patterns, err));
    const size_t n = file.size <= MOST ? file.size : 0;
    if (n)
        memcpy(text, file.bytes, n);
    text[n] = 0;
    mest_status status = file.size <= MOST && !memchr(text, 0, n) ? mest_patterns_parse(&j->patterns, text, j->s->patterns, err)
                         : mest_fail(err, MEST_E_FORMAT, "patterns '%s': not a text of at most %d bytes", j->s->patterns, (int)MOST);
    mest_mapfile_close(&file);
    return status;
}

static const mest_ratio *ratio_of(const job *j, int32_t i)
{
    for (int32_t k = 0; k < j->ratios.n; k++)
        if (j->ratios.ratio[k].param == i)
            return &j->ratios.ratio[k];
    return NULL;
}

static mest_status decide(job *j, int32_t i, mest_error *err)
{
    mest_model *m = j->m;
    const mest_sparsity *s = j->s;
    mest_param *p = &m->params[i];
    mest_weight_plan *one = &j->plans[i];
    const char *dense = s->dense_layers ? s->dense_layers : "auto";
    const bool is_auto = !strcmp(dense, "auto"), is_none = !strcmp(dense, "none");
    mest_rule r;
    const mest_ratio *ratio = ratio_of(j, i);
    mest_weight_use_find(&j->graph, i, &one->u);
    const mest_weight_use *u = &one->u;
    const char *op = u->first ? u->first->op->name : "no node", *node = u->first ? u->first->name : "";
    const bool movable = p->role == MEST_ROLE_TRAINABLE || p->role == MEST_ROLE_FROZEN;
    if (!movable || p->shape.rank < 2) {
        MEST_CHECK(!ratio, err, MEST_E_ARGUMENT, "ratios '%s': '%s' is no weight of a layer", s->ratios, p->name);
        return MEST_OK;
    }
    MEST_TRY(mest_rule_find(s->rules, s->scheme, p->name, &r, err));
    one->counts = u->sparse_possible;
    one->sparsity = r.sparsity >= 0 ? r.sparsity : ratio ? ratio->sparsity : s->ratios ? 0 : s->sparsity;
    one->given = r.sparsity >= 0 || ratio != NULL;
    const bool is_chosen = !strcmp(r.scheme, "auto");
    bool says = false; /* what the scheme itself leaves out, once its weight is there, where nobody said */
    if (one->sparsity < 0 && !mest_rule_structured(r.scheme) && !is_chosen && strcmp(r.scheme, "dense") != 0) {
        mest_scheme scheme;
        MEST_TRY(mest_scheme_find(r.scheme, &scheme, err));
        says = scheme.format->least_sparsity != NULL;
    }
    if (one->sparsity < 0 && !says) {
        MEST_CHECK(!r.named || strcmp(r.scheme, "dense") == 0, err, MEST_E_ARGUMENT,
                   "sparsify: '%s' is to be %s, but nothing says how sparse: put it behind the scheme (%s:0.9), or give a sparsity for all", p->name, r.scheme, r.scheme);
        one->sparsity = 0;
    }
    const bool named = r.named || ratio;
    if (one->sparsity == 0 || strcmp(r.scheme, "dense") == 0)
        return MEST_OK;
    j->asked++;
    if (!u->sparse_possible) {
        MEST_CHECK(!named, err, MEST_E_UNSUPPORTED, "sparsify: '%s' cannot be sparse: %s '%s' has no sparse kernel for it", p->name, op, node);
        stays_dense(j, MEST_LOG_WARNING, p, "%s '%s' has no sparse kernel for it", op, node);
        return MEST_OK;
    }
    if (!named) {
        const char *why = is_auto ? mest_weight_dense_by_default(&j->graph, p, u) : !is_none && mest_match_any(dense, p->name) ? "dense_layers asks for it" : NULL;
        if (why) {
            stays_dense(j, MEST_LOG_DEBUG, p, "%s%s", why, is_auto ? " (dense_layers is auto)" : "");
            return MEST_OK;
        }
    }
    r.named = named;
    if (mest_rule_structured(r.scheme)) {
        one->wish = (mest_channel_wish){!strcmp(r.scheme, "filter") ? "filter" : "channel", one->sparsity, named};
        j->structured = true;
        j->made++;
        return MEST_OK;
    }
    if (is_chosen) {
        const mest_auto_layer layer = {.node = u->first, .graph = &j->graph, .weight = &u->shape, .inputs_first = mest_weight_inputs_first(u), .sparsity = one->sparsity,
                                       .patterns = j->patterns.n ? &j->patterns : NULL};
        MEST_TRY(mest_scheme_choose(m, j->tuner, &layer, r.scheme, &p->scheme_reason, err));
        mest_logf(&m->heap, MEST_LOG_DEBUG, "'%s' is %s", p->name, p->scheme_reason);
    }
    MEST_TRY(open_sparse(j, i, &r, err));
    j->made += one->sparse != NULL;
    if (one->sparse && one->sparsity < 0) {
        one->sparsity = mest_sparse_least_sparsity(one->sparse); /* 0 for what stands in for it */
        one->given = true;
        if (one->sparsity == 0) {
            mest_sparse_destroy(one->sparse);
            one->sparse = NULL;
            j->made--;
            stays_dense(j, MEST_LOG_INFO, p, "%s says no sparsity for it", r.scheme);
        }
    }
    return MEST_OK;
}

/* Somebody who asked for sparsity and would get none is told before a dense network is trained. */
static mest_status check_made(const job *j, mest_error *err)
{
    const mest_sparsity *s = j->s;
    if (j->made || (!j->asked && !s->ratios && (s->sparsity <= 0 || s->rules || (s->scheme && !strcmp(s->scheme, "dense")))))
        return MEST_OK;
    MEST_CHECK(j->asked || !s->ratios, err, MEST_E_ARGUMENT, "sparsify: ratios '%s' leave every weight dense", s->ratios);
    MEST_CHECK(j->asked, err, MEST_E_UNSUPPORTED, "sparsify: the model has no weight that could be sparse");
    return mest_fail(err, MEST_E_UNSUPPORTED, "sparsify: no weight would be sparse: %s", j->why);
}

/* Erdos-Renyi densities for the layers whose sparsity nobody gave; those that stay dense take their part of what there is. */
static mest_status distribute(job *j, mest_error *err)
{
    mest_model *m = j->m;
    const bool er = strcmp(j->s->distribution, "er") == 0;
    mest_layer_density *layer;
    int n = 0;
    double eps;
    MEST_NEW(&m->heap, layer, m->n_params + 1, err, "distribution");
    for (int32_t i = 0; i < m->n_params; i++) {
        const mest_weight_plan *one = &j->plans[i];
        if (one->counts)
            layer[n++] = (mest_layer_density){
                .name = m->params[i].name, .shape = &m->params[i].shape, .fixed = !one->sparse ? 1 : one->given ? 1 - one->sparsity : -1,
                .most = one->sparse ? 1 - mest_sparse_least_sparsity(one->sparse) : 1};
    }
    mest_status status = mest_distribute(layer, n, j->s->sparsity, !er, &eps, err);
    n = 0;
    for (int32_t i = 0; i < m->n_params && status == MEST_OK; i++) {
        mest_weight_plan *one = &j->plans[i];
        if (!one->counts)
            continue;
        if (one->sparse && !one->given)
            one->sparsity = 1 - layer[n].density;
        n++;
    }
    mest_free(&m->heap, layer, (size_t)m->n_params + 1, sizeof *layer);
    return status;
}

/* Structured schemes: the model becomes smaller before anything is filled. */
static mest_status remove_channels(job *j, mest_error *err)
{
    mest_model *m = j->m;
    mest_channel_wish *wish;
    mest_channels *c = NULL;
    MEST_CHECK(!strcmp(j->s->distribution, "uniform"), err, MEST_E_UNSUPPORTED, "sparsify: distribution %s is not for schemes filter and channel",
               j->s->distribution);
    MEST_NEW(&m->heap, wish, m->n_params + 1, err, "channels");
    for (int32_t i = 0; i < m->n_params; i++) {
        wish[i] = j->plans[i].wish;
        if (j->plans[i].sparse)
            wish[i].scheme = j->plans[i].sparse->name;
    }
    mest_status status = mest_channels_find(&c, m, wish, err);
    mest_free(&m->heap, wish, (size_t)m->n_params + 1, sizeof *wish);
    MEST_TRY(status);
    MEST_TRY(mest_channels_install(m, c, j->s, err));
    for (int32_t i = 0; i < m->n_params; i++)
        if (m->params[i].axes)
            MEST_TRY(mest_param_load(m, &m->params[i], err));
    return MEST_OK;
}

static mest_status sparsify(job *j, mest_error *err)
{
    mest_model *m = j->m;
    const mest_sparsity *s = j->s;
    MEST_TRY(mest_rules_match(s->rules, s->scheme, m, err));
    MEST_TRY(mest_weights_graph(m, &j->graph, err));
    if (s->patterns)
        MEST_TRY(read_patterns(j, err));
    if (s->ratios) {
        MEST_TRY(mest_ratios_read(&j->ratios, &m->heap, s->ratios, err));
        MEST_TRY(mest_ratios_match(&j->ratios, m, &j->graph, s->ratios, err));
    }
    for (int32_t i = 0; i < m->n_params; i++)
        MEST_TRY(decide(j, i, err));
    MEST_TRY(check_made(j, err));
    if (s->sparsity > 0 && strcmp(s->distribution, "uniform") != 0)
        MEST_TRY(distribute(j, err));
    if (j->structured)
        MEST_TRY(remove_channels(j, err));
    mest_pages_touched pages = {0};
    int filled = 0, empty = 0;
    for (int32_t i = 0; i < m->n_params; i++) {
        mest_param *p = &m->params[i];
        if (j->plans[i].sparse) {
            MEST_TRY(mest_weight_fill(m, i, &j->plans[i], s, &pages, err));
            filled++;
            empty += !p->sparse->active_units;
            if (!p->sparse->active_units)
                mest_logf(&m->heap, MEST_LOG_WARNING, "nothing of '%s' is stored: %.9g of %" PRId64 " units of %s round to none, and what follows sees no input", p->name,
                          1 - p->target_sparsity, p->sparse->n_units, p->sparse->name);
        } else if (s->from_scratch && p->role != MEST_ROLE_CONSTANT && p->role != MEST_ROLE_FROZEN)
            MEST_TRY(mest_weight_draw_dense(m, i, &j->plans[i].u, s->seed, err));
    }
    MEST_CHECK(!filled || empty < filled, err, MEST_E_ARGUMENT, "sparsify: so sparse that nothing is stored of any weight");
    return MEST_OK;
}

mest_status mest_model_sparsify(mest_model *m, const mest_sparsity *sparsity, mest_error *err)
{
    mest_error_clear(err);
    mest_sparsity own;
    mest_sparsity_init(&own);
    MEST_CHECK(m && sparsity && mest_take_options(&own, sizeof own, sparsity), err, MEST_E_ARGUMENT,
               "sparsify: model and sparsity must be given, struct_size must be set");
    MEST_CHECK(!m->sparsified, err, MEST_E_STATE, "sparsify: the model is sparse already");
    MEST_CHECK(m->n_sessions == 0, err, MEST_E_STATE, "sparsify: a session of the model exists");
    MEST_TRY(mest_registry_idle(m, false, "sparsify", err));
    MEST_CHECK((own.sparsity >= 0 && own.sparsity < 1) || own.sparsity == -1, err, MEST_E_ARGUMENT, "sparsify: sparsity %g is not in [0, 1)", own.sparsity);
    if (!own.distribution)
        own.distribution = "uniform";
    MEST_CHECK(!strcmp(own.distribution, "uniform") || !strcmp(own.distribution, "erk") || !strcmp(own.distribution, "er"), err, MEST_E_ARGUMENT,
               "sparsify: distribution '%s' is not one of uniform, erk, er", own.distribution);
    MEST_CHECK(own.sparsity >= 0 || !strcmp(own.distribution, "uniform"), err, MEST_E_ARGUMENT, "sparsify: distribution %s needs a sparsity",
               own.distribution);
    MEST_CHECK(!own.ratios || !strcmp(own.distribution, "uniform"), err, MEST_E_ARGUMENT,
               "sparsify: a file of ratios and distribution %s exclude each other", own.distribution);
    job j = {.m = m, .s = &own};
    MEST_NEW(&m->heap, j.plans, m->n_params + 1, err, "sparsify");
    memset(j.plans, 0, ((size_t)m->n_params + 1) * sizeof *j.plans);
    mest_tune_mode mode;
    mest_status status = mest_tune_parse(own.tune, &mode, err);
    if (status == MEST_OK && mode != MEST_TUNE_OFF)
        status = mest_tuner_create(&j.tuner, &m->heap, mode, own.tune_cache, err);
    if (status == MEST_OK)
        status = sparsify(&j, err);
    if (j.tuner)
        mest_tuner_save(j.tuner);
    mest_tuner_destroy(j.tuner);
    for (int32_t i = 0; i < m->n_params; i++)
        mest_sparse_destroy(j.plans[i].sparse);
    mest_free(&m->heap, j.plans, (size_t)m->n_params + 1, sizeof *j.plans);
    mest_ratios_free(&j.ratios);
    mest_graph_free(&j.graph);
    m->sparsified = status == MEST_OK;
    return status;
}

