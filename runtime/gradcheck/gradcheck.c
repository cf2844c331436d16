/* SPDX-License-Identifier: Apache-2.0 */
/* mest_gradcheck: loads the model in double, runs the parts, adds up. */
#include "runtime/gradcheck/gradcheck.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#if !defined(MEST_REAL_DOUBLE)
#error "gradients are checked in the build with mest_real = double"
#endif

enum { DEFAULT_SAMPLES = 4 };

void mest_gradcheck_options_init(mest_gradcheck_options *o)
{
    memset(o, 0, sizeof *o);
    o->struct_size = sizeof *o;
    o->seconds = 60;
    o->tolerance = 1e-4;
    o->float_tolerance = 1e-2;
}

bool gradcheck_time_left(const gradcheck *c, double share) { return mest_seconds() - c->began < share * c->o->seconds; }

double gradcheck_step(int k)
{
    static const double steps[] = {1e-5, 1e-6, 1e-4, 1e-7};
    return k < (int)(sizeof steps / sizeof *steps) ? steps[k] : 0;
}

bool gradcheck_agree(const gradcheck *c, double analytic, double numeric, double length, double noise, double *error)
{
    double gap = fabs(analytic - numeric), scale = length + fabs(numeric);
    if (!isfinite(gap)) {
        *error = INFINITY;
        return false;
    }
    *error = scale > 0 ? gap / scale : 0;
    return gap - noise <= c->o->tolerance * scale; /* what rounding of the two losses makes up does not count */
}

void gradcheck_report(gradcheck *c, mest_gradcheck_item *item)
{
    mest_gradcheck_summary *s = c->sum;
    item->struct_size = sizeof *item;
    item->op = item->op ? item->op : "";
    item->input = item->input ? item->input : "";
    s->n_good += item->result == MEST_GRADCHECK_GOOD;
    s->n_off += item->result == MEST_GRADCHECK_OFF;
    s->n_unchecked += item->result == MEST_GRADCHECK_UNCHECKED;
    if (item->kind != MEST_GRADCHECK_KERNELS && item->result == MEST_GRADCHECK_GOOD && item->error > s->worst)
        s->worst = item->error;
    if (item->kind == MEST_GRADCHECK_KERNELS && item->result != MEST_GRADCHECK_UNCHECKED && !(item->error <= s->worst_float))
        s->worst_float = item->error;
    bool node = item->kind == MEST_GRADCHECK_NODE;
    if (item->result == MEST_GRADCHECK_OFF && item->kind != MEST_GRADCHECK_MODEL && (!s->first[0] || (node && !c->first_is_node))) {
        if (node)
            snprintf(s->first, sizeof s->first, "%.40s '%.120s' by '%.60s'", item->op, item->name, item->input);
        else
            snprintf(s->first, sizeof s->first, "parameter '%.200s'%s", item->name, item->kind == MEST_GRADCHECK_KERNELS ? " in float32" : "");
        c->first_is_node = node;
    }
    if (c->o->item)
        c->o->item(c->o->user, item);
}

static mest_status open_session(gradcheck *c, const char *path)
{
    mest_model_options load;
    mest_train_config config;
    mest_model_options_init(&load);
    load.allocator = c->o->allocator;
    load.logger = c->o->logger;
    MEST_TRY(mest_model_load(&c->model, path, &load, c->err));
    for (int i = 0; c->o->frozen && i < c->model->n_params; i++) {
        mest_param *p = &c->model->params[i];
        if (p->role == MEST_ROLE_TRAINABLE && c->o->frozen(c->o->user, p->name))
            p->role = MEST_ROLE_FROZEN;
    }
    mest_train_config_init(&config);
    config.batch = DEFAULT_SAMPLES;
    if (c->o->config)
        MEST_CHECK(mest_take_options(&config, sizeof config, c->o->config), c->err, MEST_E_ARGUMENT, "gradcheck: config.struct_size is not set");
    config.kernels = "scalar";
    config.use_xnnpack = false;
    config.clip_norm = 0;
    MEST_TRY(mest_session_create(&c->session, c->model, &config, c->err));
    c->session->plain_gradients = true;
    c->n = config.batch;
    c->run = (mest_run){.seed = config.seed};
    return MEST_OK;
}

/* Who must have a gradient is asked of the graph, not of the gradients that there are. */
static mest_status find_learners(gradcheck *c)
{
    const mest_graph *g = &c->p->graph;
    c->n_learns = g->n_values;
    c->learns = mest_calloc(c->session->heap, (size_t)g->n_values + 1, 1);
    MEST_CHECK(c->learns, c->err, MEST_E_NOMEM, "gradcheck: out of memory");
    for (int i = 0; i < g->n_values; i++)
        c->learns[i] = g->values[i].kind == MEST_VALUE_PARAM && c->model->params[g->values[i].param].role == MEST_ROLE_TRAINABLE;
    for (mest_id i = 0; i < c->p->first_backward; i++) {
        const mest_node *n = &g->nodes[i];
        bool any = false;
        for (int k = 0; k < n->n_in; k++)
            any |= n->in[k] != MEST_NONE && c->learns[n->in[k]];
        for (int k = 0; k < n->n_out && any && !n->op->no_grad; k++)
            if (n->out[k] != MEST_NONE)
                c->learns[n->out[k]] = g->values[n->out[k]].type.dtype == MEST_F32;
    }
    return MEST_OK;
}

static mest_status check(gradcheck *c, const char *path)
{
    MEST_TRY(open_session(c, path));
    MEST_TRY(gradcheck_data(c));
    MEST_TRY(mest_session_program(c->session, MEST_PROGRAM_TRAIN, c->n, &c->p, c->err));
    MEST_TRY(find_learners(c));
    MEST_TRY(gradcheck_kernels(c));
    MEST_TRY(gradcheck_nodes(c));
    return gradcheck_model(c);
}

mest_status mest_gradcheck(const char *path, const mest_gradcheck_options *options, mest_gradcheck_summary *summary, mest_error *err)
{
    mest_error_clear(err);
    mest_error own = {0};
    mest_gradcheck_options o;
    mest_gradcheck_summary sum = {.struct_size = sizeof sum};
    mest_gradcheck_options_init(&o);
    MEST_CHECK(path && *path && summary && summary->struct_size >= 2 * sizeof(uint32_t), err, MEST_E_ARGUMENT, "gradcheck: model and summary must be given");
    MEST_CHECK(!options || mest_take_options(&o, sizeof o, options), err, MEST_E_ARGUMENT, "gradcheck: options.struct_size is not set");
    MEST_CHECK(o.seconds > 0 && o.tolerance > 0 && o.float_tolerance > 0, err, MEST_E_ARGUMENT, "gradcheck: seconds and tolerances must be above 0");
    MEST_CHECK(!o.float_step == !o.float_gradient, err, MEST_E_ARGUMENT, "gradcheck: float_step and float_gradient go together");
    gradcheck c = {.o = &o, .sum = &sum, .began = mest_seconds(), .err = err ? err : &own};
    mest_status status = check(&c, path);
    if (sum.n_off && !sum.first[0])
        snprintf(sum.first, sizeof sum.first, "the gradient as a whole");
    gradcheck_data_free(&c);
    if (c.session)
        mest_free(c.session->heap, c.learns, (size_t)c.n_learns + 1, 1);
    mest_session_destroy(c.session);
    mest_model_destroy(c.model);
    sum.seconds = mest_seconds() - c.began;
    uint32_t size = summary->struct_size < sizeof sum ? summary->struct_size : (uint32_t)sizeof sum;
    memcpy((char *)summary + sizeof size, (const char *)&sum + sizeof size, size - sizeof size);
    return status;
}
