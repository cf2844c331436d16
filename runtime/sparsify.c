/* SPDX-License-Identifier: Apache-2.0 */
/* Initializers to sparse parameters, by rule, straight from the mapped file. */
#include "runtime/sparsify.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mest/plugin.h"
#include "ops/nn.h"
#include "runtime/match.h"
#include "runtime/channels.h"
#include "runtime/distribution.h"
#include "runtime/mapfile.h"
#include "runtime/ratios.h"
#include "runtime/rng.h"
#include "runtime/rules.h"
#include "runtime/scheme_auto.h"
#include "runtime/snapshot.h"

typedef struct usage {       /* how the graph uses a parameter */
    int n_uses;
    bool sparse_possible;    /* every use has a sparse kernel */
    const mest_node *first;
    int first_input;
    mest_shape shape;        /* as its layer sees it: a stack of matrices may be one matrix */
} usage;

/* The model's graph as layers see their weights: behind paths that passes take away. To be freed. */
static mest_status weights_graph(mest_model *m, mest_graph *g, mest_error *err)
{
    MEST_TRY(mest_graph_copy(g, &m->graph, err));
    mest_status status = mest_graph_sort(g, err);
    if (status == MEST_OK)
        status = mest_passes_run(MEST_PASS_WEIGHTS, g, m, NULL, NULL, NULL, NULL, err);
    if (status != MEST_OK)
        mest_graph_free(g);
    return status;
}

static void find_usage(const mest_graph *g, int32_t param, usage *u)
{
    memset(u, 0, sizeof *u);
    u->sparse_possible = true;
    for (mest_id i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++) {
            mest_id v = g->nodes[i].in[k];
            if (v == MEST_NONE || g->values[v].kind != MEST_VALUE_PARAM || g->values[v].param != param)
                continue;
            if (!u->n_uses++) {
                u->first = &g->nodes[i];
                u->first_input = k;
                u->shape = g->values[v].type.shape;
            }
            u->sparse_possible &= k < 32 && (g->nodes[i].op->sparse_in >> k & 1);
        }
    for (int i = 0; i < g->n_outputs; i++) /* a weight that is itself an output is read densely by the caller */
        if (g->values[g->outputs[i]].kind == MEST_VALUE_PARAM && g->values[g->outputs[i]].param == param)
            u->sparse_possible = false;
    u->sparse_possible &= u->n_uses > 0;
}

static bool is_op(const mest_node *n, const char *name) { return mest_is_op(n, name); }

static bool is_layer(const mest_node *n)
{
    return is_op(n, "Conv") || is_op(n, "ConvTranspose") || is_op(n, "Gemm") || is_op(n, "MatMul") || is_op(n, "mest.Linear");
}

/* A 1x1 convolution beside another convolution of the same input, whose result goes (through BatchNormalization) into an Add. */
static bool is_shortcut(const mest_graph *g, const mest_node *n, const mest_shape *w)
{
    if (!is_op(n, "Conv"))
        return false;
    for (int i = 2; i < w->rank; i++)
        if (w->dim[i] != 1)
            return false;
    bool branch = false;
    mest_id out = n->out[0];
    for (mest_id i = 0; i < g->n_nodes; i++)
        branch |= &g->nodes[i] != n && is_op(&g->nodes[i], "Conv") && g->nodes[i].in[0] == n->in[0];
    if (!branch)
        return false;
    for (int hop = 0; hop < 2; hop++)
        for (mest_id i = 0; i < g->n_nodes; i++) {
            const mest_node *c = &g->nodes[i];
            bool reads = false;
            for (int k = 0; k < c->n_in; k++)
                reads |= c->in[k] == out;
            if (!reads)
                continue;
            if (is_op(c, "Add"))
                return true;
            if (is_op(c, "BatchNormalization") && c->in[0] == out) {
                out = c->out[0];
                break;
            }
        }
    return false;
}

/* Why "auto" keeps this parameter dense; NULL: it does not. */
static const char *dense_by_default(const mest_graph *g, const mest_param *p, const usage *u)
{
    const mest_node *first_conv = NULL, *last = NULL;
    int layers = 0;
    for (mest_id i = 0; i < g->n_nodes; i++) {
        if (!is_layer(&g->nodes[i]))
            continue;
        layers++;
        if (!first_conv && is_op(&g->nodes[i], "Conv"))
            first_conv = &g->nodes[i];
        last = &g->nodes[i];
    }
    if (is_op(u->first, "Conv") && ((const mest_conv_params *)u->first->params)->group > 1)
        return "grouped convolution";
    if (u->first == first_conv)
        return "first convolution";
    if (u->first == last && layers > 1)
        return "last layer";
    if (is_shortcut(g, u->first, &p->shape))
        return "shortcut convolution";
    return NULL;
}

/* ---- making one parameter sparse ---- */
/* Reading a page of the file maps the pages around it too, up to WINDOW bytes. What was touched is counted in such windows, not in what was read:
 * selection reads rows side by side, and samples. */
enum { WINDOW = 64 << 10, RECENT = MEST_FORGET_BYTES / WINDOW };

typedef struct touched {
    int64_t n;                /* windows since the file's pages were let go */
    uintptr_t window[RECENT]; /* seen last among those with the same number modulo RECENT; 0: none */
} touched;

typedef struct file_reader {
    mest_model *m;
    const mest_payload *payload;
    touched *touched;
} file_reader;

static mest_status read_payload(const void *self, int64_t first, int64_t n, float *out, mest_error *err)
{
    const file_reader *r = self;
    touched *t = r->touched;
    const size_t size = mest_dtype_size(r->payload->dtype);
    const uintptr_t base = (uintptr_t)r->payload->raw, last = (base + (size_t)(first + n) * size) / WINDOW;
    for (uintptr_t w = (base + (size_t)first * size) / WINDOW; w <= last; w++) {
        if (t->window[w % RECENT] == w)
            continue;
        if (t->n >= RECENT) {
            mest_model_forget(r->m);
            memset(t, 0, sizeof *t);
        }
        t->window[w % RECENT] = w;
        t->n++;
    }
    return mest_payload_read(r->payload, first, n, out, err);
}

static int64_t fan_in_of(const mest_param *p, const usage *u)
{
    const mest_shape *w = u->first ? &u->shape : &p->shape;
    if (u->first && is_op(u->first, "MatMul"))
        return w->rank >= 2 ? w->dim[w->rank - 2] : 1;
    if (u->first && (is_op(u->first, "Gemm") || is_op(u->first, "mest.Linear")))
        return ((const mest_gemm_params *)u->first->params)->trans_b ? w->dim[1] : w->dim[0];
    if (u->first && is_op(u->first, "ConvTranspose"))
        return w->dim[0] * mest_shape_span(w, 2, w->rank);
    return w->rank > 1 ? mest_shape_span(w, 1, w->rank) : 1;
}

static uint64_t init_stream(int32_t param) { return (uint64_t)MEST_STREAM_INIT << 32 | (uint32_t)param; }

/* Is the weight's first axis its input ([in, out] of MatMul, Gemm transB = 0, ConvTranspose)? */
static bool inputs_first(const usage *u)
{
    const mest_node *n = u->first;
    return n && (is_op(n, "MatMul") || is_op(n, "ConvTranspose") ||
                 ((is_op(n, "Gemm") || is_op(n, "mest.Linear")) && !((const mest_gemm_params *)n->params)->trans_b));
}

/* What pattern leaves to another scheme: its masks are for 3x3 kernels. */
static const char *instead_of(const mest_scheme *scheme, const usage *u)
{
    return strcmp(scheme->format->family, "pattern") != 0 ? NULL : u->shape.dim[0] >= 4 ? "block4" : "csr";
}

/* What becomes of a parameter: decided first for all, so that a distribution can look at all of them. */
typedef struct plan {
    mest_sparse *sparse;   /* empty yet; NULL: stays dense */
    double sparsity;
    bool given;            /* the sparsity is that of a rule, the ratios file or the scheme itself: no distribution changes it */
    bool counts;           /* a layer's weight: part of what a distribution shares */
    mest_channel_wish wish; /* structured: instead of sparse */
    usage u;
} plan;

/* An empty sparse weight for the rule's scheme, or for what stands in for it. sparse stays NULL where the weight must stay dense. */
static mest_status open_sparse(mest_model *m, int32_t index, const mest_rule *r, const mest_patterns *patterns, plan *one, mest_error *err)
{
    mest_param *p = &m->params[index];
    mest_scheme scheme;
    mest_error own = {MEST_OK, ""};
    mest_sparse_spec spec = {.scheme = r->scheme, .shape = &one->u.shape, .inputs_first = inputs_first(&one->u), .patterns = patterns};
    MEST_TRY(mest_scheme_find(r->scheme, &scheme, err));
    mest_status status = mest_sparse_make(&one->sparse, &m->heap, &spec, 0, &own);
    if (status == MEST_E_SHAPE && instead_of(&scheme, &one->u)) {
        spec.scheme = instead_of(&scheme, &one->u);
        mest_logf(&m->heap, MEST_LOG_INFO, "'%s' is %s: %s", p->name, spec.scheme, own.msg);
        return mest_sparse_make(&one->sparse, &m->heap, &spec, 0, err);
    }
    if (status == MEST_E_SHAPE && !r->named) {
        mest_logf(&m->heap, MEST_LOG_WARNING, "'%s' stays dense: %s", p->name, own.msg);
        return MEST_OK;
    }
    return status == MEST_OK ? MEST_OK : mest_fail(err, status, "sparsify: '%s': %s", p->name, own.msg);
}

static mest_status check_sparsity(const mest_param *p, const mest_sparse *s, double sparsity, mest_error *err)
{
    const double least = mest_sparse_least_sparsity(s);
    MEST_CHECK(sparsity >= least - 1e-9, err, MEST_E_ARGUMENT, "sparsify: '%s': %s stores at most %.4g %% of a weight, sparsity %g is below %.4g", p->name,
               s->name, 100 * (1 - least), sparsity, least);
    return MEST_OK;
}

/* Pattern and values. */
static mest_status fill(mest_model *m, int32_t index, plan *one, const mest_sparsity *s, touched *pages, mest_error *err)
{
    mest_param *p = &m->params[index];
    mest_sparse *sp = one->sparse;
    MEST_TRY(check_sparsity(p, sp, one->sparsity, err));
    const int64_t keep = s->start_dense ? sp->n_units : mest_sparse_units_at(sp, one->sparsity); /* as the schedulers count */
    MEST_TRY(mest_sparse_reserve(sp, keep, err));
    if (s->from_scratch) {
        /* Fan-in of what is stored: keeps the variance of a layer's output whatever the sparsity (kaiming_uniform, gain of ReLU). */
        const double stored = (double)keep * sp->unit_elements, all = (double)sp->n_units * mest_sparse_slot_elements(sp);
        const double fan_in = (double)fan_in_of(p, &one->u) * (all > 0 ? stored / all : 1);
        MEST_TRY(mest_sparse_from_random(sp, keep, s->seed, init_stream(index), sqrt(6.0 / (fan_in < 1 ? 1 : fan_in)), err));
    } else {
        const file_reader file = {m, &p->payload, pages};
        mest_reader reader = {read_payload, &file};
        MEST_TRY(mest_sparse_from_magnitude(sp, &reader, keep, err));
    }
    p->sparse = sp;
    p->loaded = true;
    p->target_sparsity = one->sparsity;
    one->sparse = NULL;
    return MEST_OK;
}

/* Dense parameters under from_scratch. */
static mest_status draw_dense(mest_model *m, int32_t index, const usage *u, uint64_t seed, mest_error *err)
{
    mest_param *p = &m->params[index];
    MEST_TRY(mest_param_load(m, p, err));
    bool norm = u->first && (strstr(u->first->op->name, "Normalization") != NULL);
    if (p->role == MEST_ROLE_STATISTIC) {
        for (int64_t i = 0; i < p->count; i++)
            p->values[i] = u->first_input == 4 ? 1 : 0;
    } else if (p->role == MEST_ROLE_TRAINABLE && p->shape.rank >= 2) {
        double fan_in = (double)fan_in_of(p, u), bound = sqrt(6.0 / (fan_in < 1 ? 1 : fan_in));
        for (int64_t i = 0; i < p->count; i++)
            p->values[i] = (mest_real)((2 * mest_rng_uniform(seed, init_stream(index), (uint64_t)i) - 1) * bound);
    } else if (p->role == MEST_ROLE_TRAINABLE && norm) {
        for (int64_t i = 0; i < p->count; i++)
            p->values[i] = u->first_input == 1 ? 1 : 0;
    } else if (p->role == MEST_ROLE_TRAINABLE && u->first && is_layer(u->first)) {
        memset(p->values, 0, (size_t)p->count * sizeof *p->values);
    }
    p->value_version++;
    return MEST_OK;
}

void mest_sparsity_init(mest_sparsity *s)
{
    memset(s, 0, sizeof *s);
    s->struct_size = sizeof *s;
    s->scheme = "csr";
    s->dense_layers = "auto";
    s->distribution = "uniform";
}

typedef struct job {
    mest_model *m;
    const mest_sparsity *s;
    mest_graph graph;          /* as layers see their weights */
    mest_ratios ratios;
    mest_patterns patterns;    /* n == 0: the default */
    plan *plans;               /* one a parameter */
    bool structured;           /* some are to lose channels */
    mest_tuner *tuner;         /* times for scheme "auto"; NULL: models of cost */
} job;

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
    plan *one = &j->plans[i];
    const char *dense = s->dense_layers ? s->dense_layers : "auto";
    const bool is_auto = !strcmp(dense, "auto"), is_none = !strcmp(dense, "none");
    mest_rule r;
    const mest_ratio *ratio = ratio_of(j, i);
    find_usage(&j->graph, i, &one->u);
    const usage *u = &one->u;
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
    if (!u->sparse_possible) {
        MEST_CHECK(!named, err, MEST_E_UNSUPPORTED, "sparsify: '%s' cannot be sparse: %s '%s' has no sparse kernel for it", p->name, op, node);
        mest_logf(&m->heap, MEST_LOG_WARNING, "'%s' stays dense: %s '%s' has no sparse kernel for it", p->name, op, node);
        return MEST_OK;
    }
    if (!named) {
        const char *why = is_auto ? dense_by_default(&j->graph, p, u) : !is_none && mest_match_any(dense, p->name) ? "asked for" : NULL;
        if (why) {
            mest_logf(&m->heap, MEST_LOG_DEBUG, "'%s' stays dense: %s", p->name, why);
            return MEST_OK;
        }
    }
    r.named = named;
    if (mest_rule_structured(r.scheme)) {
        one->wish = (mest_channel_wish){!strcmp(r.scheme, "filter") ? "filter" : "channel", one->sparsity, named};
        j->structured = true;
        return MEST_OK;
    }
    if (is_chosen) {
        const mest_auto_layer layer = {.node = u->first, .graph = &j->graph, .weight = &u->shape, .inputs_first = inputs_first(u), .sparsity = one->sparsity,
                                       .patterns = j->patterns.n ? &j->patterns : NULL};
        MEST_TRY(mest_scheme_choose(m, j->tuner, &layer, r.scheme, &p->scheme_reason, err));
        mest_logf(&m->heap, MEST_LOG_DEBUG, "'%s' is %s", p->name, p->scheme_reason);
    }
    MEST_TRY(open_sparse(m, i, &r, j->patterns.n ? &j->patterns : NULL, one, err));
    if (one->sparse && one->sparsity < 0) {
        one->sparsity = mest_sparse_least_sparsity(one->sparse); /* 0 for what stands in for it */
        one->given = true;
        if (one->sparsity == 0) {
            mest_sparse_destroy(one->sparse);
            one->sparse = NULL;
        }
    }
    return MEST_OK;
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
        const plan *one = &j->plans[i];
        if (one->counts)
            layer[n++] = (mest_layer_density){
                .name = m->params[i].name, .shape = &m->params[i].shape, .fixed = !one->sparse ? 1 : one->given ? 1 - one->sparsity : -1,
                .most = one->sparse ? 1 - mest_sparse_least_sparsity(one->sparse) : 1};
    }
    mest_status status = mest_distribute(layer, n, j->s->sparsity, !er, &eps, err);
    n = 0;
    for (int32_t i = 0; i < m->n_params && status == MEST_OK; i++) {
        plan *one = &j->plans[i];
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
    MEST_TRY(weights_graph(m, &j->graph, err));
    if (s->patterns)
        MEST_TRY(read_patterns(j, err));
    if (s->ratios) {
        MEST_TRY(mest_ratios_read(&j->ratios, &m->heap, s->ratios, err));
        MEST_TRY(mest_ratios_match(&j->ratios, m, &j->graph, s->ratios, err));
    }
    for (int32_t i = 0; i < m->n_params; i++)
        MEST_TRY(decide(j, i, err));
    if (s->sparsity > 0 && strcmp(s->distribution, "uniform") != 0)
        MEST_TRY(distribute(j, err));
    if (j->structured)
        MEST_TRY(remove_channels(j, err));
    touched pages = {0};
    for (int32_t i = 0; i < m->n_params; i++) {
        mest_param *p = &m->params[i];
        if (j->plans[i].sparse)
            MEST_TRY(fill(m, i, &j->plans[i], s, &pages, err));
        else if (s->from_scratch && p->role != MEST_ROLE_CONSTANT && p->role != MEST_ROLE_FROZEN)
            MEST_TRY(draw_dense(m, i, &j->plans[i].u, s->seed, err));
    }
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

static mest_status adopt(mest_model *m, const mest_graph *g, int32_t i, mest_error *err)
{
    mest_param *p = &m->params[i];
    usage u;
    if (p->loaded || p->sparse || !p->payload.linear || p->shape.rank < 2 || p->role == MEST_ROLE_CONSTANT || p->role == MEST_ROLE_STATISTIC)
        return MEST_OK;
    find_usage(g, i, &u);
    if (!u.sparse_possible)
        return MEST_OK;
    mest_sparse *sp;
    MEST_TRY(mest_sparse_create(&sp, &m->heap, "csr", &u.shape, p->payload.nnz, err));
    mest_status status = mest_sparse_from_units(sp, p->payload.linear, p->payload.nnz, NULL, err);
    float chunk[256];
    mest_payload stored = p->payload; /* the nnz values, as if they were a dense tensor */
    stored.linear = NULL;
    stored.count = p->payload.nnz;
    for (int64_t at = 0; at < stored.count && status == MEST_OK; at += 256) {
        int64_t n = stored.count - at < 256 ? stored.count - at : 256;
        status = mest_payload_read(&stored, at, n, chunk, err);
        for (int64_t k = 0; k < n && status == MEST_OK; k++)
            sp->values[at + k] = (mest_real)chunk[k];
    }
    if (status != MEST_OK) {
        mest_sparse_destroy(sp);
        return status;
    }
    sp->value_version++;
    p->sparse = sp;
    p->loaded = true;
    p->target_sparsity = 1 - (double)p->payload.nnz / (double)(p->count ? p->count : 1);
    return MEST_OK;
}

static mest_status adopt_sparse_initializers(mest_model *m, mest_error *err)
{
    bool any = false;
    for (int32_t i = 0; i < m->n_params; i++)
        any |= m->params[i].payload.linear != NULL;
    if (!any)
        return MEST_OK;
    mest_graph g;
    MEST_TRY(weights_graph(m, &g, err));
    mest_status status = MEST_OK;
    for (int32_t i = 0; i < m->n_params && status == MEST_OK; i++)
        status = adopt(m, &g, i, err);
    mest_graph_free(&g);
    return status;
}

mest_status mest_model_materialise(mest_model *m, mest_error *err)
{
    MEST_TRY(adopt_sparse_initializers(m, err));
    for (int32_t i = 0; i < m->n_params; i++)
        if (!m->params[i].sparse)
            MEST_TRY(mest_param_load(m, &m->params[i], err));
    return MEST_OK;
}
