/* SPDX-License-Identifier: Apache-2.0 */
/* Which channels belong together. Operators unite sites (channels_rules.c); what is left are classes, and classes that touch the same axes
 * in the same order are the channels of one group. */
#include "runtime/channels_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ops/nn.h"
#include "runtime/infer.h"
#include "runtime/match.h"

/* ---- the graph with shapes ---- */

static mest_status type_graph(mest_finder *f)
{
    MEST_TRY(mest_graph_copy(&f->g, &f->m->graph, f->err));
    for (int i = 0; i < f->g.n_inputs; i++) {
        mest_value *v = &f->g.values[f->g.inputs[i]];
        for (int k = 0; k < v->type.shape.rank; k++) {
            MEST_CHECK(k == 0 || v->type.shape.dim[k] >= 0, f->err, MEST_E_UNSUPPORTED,
                       "input '%s': schemes filter and channel need a model whose sizes are fixed, but for the batch", v->name);
            if (v->type.shape.dim[k] < 0)
                v->type.shape.dim[k] = 3;
        }
    }
    MEST_TRY(mest_graph_sort(&f->g, f->err));
    MEST_TRY(mest_infer_graph(&f->g, true, (size_t)1 << 20, f->err));
    return mest_graph_prune(&f->g, f->err);
}

static mest_status make_sites(mest_finder *f)
{
    int64_t n = 1;
    mest_region *r = &f->scratch;
    f->value_site = mest_region_alloc(r, (size_t)f->g.n_values + 1, sizeof *f->value_site);
    f->param_site = mest_region_alloc(r, (size_t)f->m->n_params + 1, sizeof *f->param_site);
    f->axes = mest_region_alloc(r, (size_t)f->m->n_params + 1, sizeof *f->axes);
    f->seen = mest_region_alloc(r, (size_t)f->m->n_params + 1, sizeof *f->seen);
    MEST_CHECK(f->value_site && f->param_site && f->axes && f->seen, f->err, MEST_E_NOMEM, "channels: out of memory");
    for (int32_t i = 0; i < f->g.n_values; i++) {
        const int64_t c = mest_finder_channels(f, i);
        f->value_site[i] = c > 0 ? (int32_t)n : -1;
        n += c;
        MEST_CHECK(n < INT32_MAX / 2, f->err, MEST_E_LIMIT, "channels: too many of them");
    }
    for (int32_t i = 0; i < f->m->n_params; i++)
        for (int axis = 0; axis < 2; axis++) {
            const mest_param *p = &f->m->params[i];
            f->param_site[i][axis] = axis < p->shape.rank ? (int32_t)n : -1;
            n += axis < p->shape.rank ? p->shape.dim[axis] : 0;
            MEST_CHECK(n < INT32_MAX / 2, f->err, MEST_E_LIMIT, "channels: too many of them");
        }
    f->n_sites = (int32_t)n;
    f->up = mest_region_alloc(r, (size_t)n, sizeof *f->up);
    MEST_CHECK(f->up, f->err, MEST_E_NOMEM, "channels: out of memory");
    for (int32_t i = 0; i < f->n_sites; i++)
        f->up[i] = i;
    return MEST_OK;
}

/* Parameters whose channels may not change at all. */
static void keep_fixed_parameters(mest_finder *f)
{
    bool *used = mest_region_alloc(&f->scratch, (size_t)f->m->n_params + 1, 1);
    for (int32_t i = 0; used && i < f->g.n_nodes; i++)
        for (int k = 0; k < f->g.nodes[i].n_in; k++)
            if (mest_finder_is_param(f, f->g.nodes[i].in[k]))
                used[f->g.values[f->g.nodes[i].in[k]].param] = true;
    for (int32_t i = 0; i < f->m->n_params; i++) {
        const mest_param *p = &f->m->params[i];
        const bool fixed = !used || !used[i] || !f->seen[i] || p->role == MEST_ROLE_CONSTANT || p->role == MEST_ROLE_FROZEN || p->payload.linear;
        for (int axis = 0; axis < 2 && fixed; axis++)
            for (int64_t c = 0; f->param_site[i][axis] >= 0 && c < p->shape.dim[axis]; c++)
                mest_finder_unite(f, f->param_site[i][axis] + (int32_t)c, MEST_SITE_STAYS);
    }
}

/* ---- groups ---- */

/* Classes by what they touch: a number for each distinct sequence of (parameter, axis). Classes with one number are one group. */
typedef struct sorter {
    uint64_t *mark;        /* per root: hash of the axes it touches */
    int32_t *group;        /* per root: -1 not looked at, -2 no group */
    int32_t *member;       /* per root: number within its group */
} sorter;

static bool named_structured(const mest_channel_wish *w) { return w->scheme && (!strcmp(w->scheme, "filter") || !strcmp(w->scheme, "channel")); }

static void explain(mest_finder *f, int32_t param, const char *why)
{
    mest_logf(&f->m->heap, f->wish[param].named ? MEST_LOG_WARNING : MEST_LOG_INFO, "'%s' keeps all its channels: %s", f->m->params[param].name, why);
}

/* May the class of site `r` be removed? Its makers must all be wished for, what reads it must be dense. The first maker, or -1. */
static int32_t maker_of(mest_finder *f, int32_t r, const char **why)
{
    int32_t maker = -1;
    bool read = false;
    *why = NULL;
    for (int32_t i = 0; i < f->m->n_params; i++)
        for (int axis = 0; axis < 2; axis++) {
            bool touches = false;
            for (int64_t c = 0; f->param_site[i][axis] >= 0 && c < f->m->params[i].shape.dim[axis] && !touches; c++)
                touches = mest_finder_root(f, f->param_site[i][axis] + (int32_t)c) == r;
            if (!touches)
                continue;
            const mest_channel_wish *w = &f->wish[i];
            const char *name = f->m->params[i].name;
            if (w->scheme && !named_structured(w))
                *why = mest_region_printf(f->region, "'%s', which has them too, is %s; only dense weights can lose channels", name, w->scheme);
            if (f->axes[i].kind == MEST_CHANNEL_WEIGHT && axis == f->axes[i].out_axis) {
                if (!named_structured(w))
                    *why = mest_region_printf(f->region, "'%s' makes them too and stays whole", name);
                else if (maker < 0)
                    maker = i;
            }
            read |= f->axes[i].kind == MEST_CHANNEL_WEIGHT && axis != f->axes[i].out_axis;
        }
    if (!*why && !read)
        *why = "nothing with weights reads them";
    return maker;
}

/* Parts of an axis in runs of one group; false where its channels are not in the group's order. */
static bool cut_axis(mest_finder *f, const sorter *s, const int32_t *size, int32_t param, int axis, mest_channel_axis *out)
{
    const int64_t n = f->m->params[param].shape.dim[axis];
    const int32_t first = f->param_site[param][axis];
    mest_channel_part part[64];
    int32_t n_parts = 0;
    bool any = false;
    for (int64_t at = 0; at < n;) {
        const int32_t r = mest_finder_root(f, first + (int32_t)at), g = r == MEST_SITE_STAYS || s->group[r] < 0 ? -1 : s->group[r];
        int64_t end = at;
        if (n_parts == 64)
            return false;
        if (g < 0) {
            for (; end < n; end++) {
                const int32_t q = mest_finder_root(f, first + (int32_t)end);
                if (q != MEST_SITE_STAYS && s->group[q] >= 0)
                    break;
            }
            part[n_parts++] = (mest_channel_part){-1, end - at, 1};
        } else {
            int64_t repeat = 0;
            while (at + repeat < n && mest_finder_root(f, first + (int32_t)(at + repeat)) == r)
                repeat++;
            end = at + repeat * size[g];
            if (s->member[r] != 0 || end > n)
                return false;
            for (int64_t i = at; i < end; i++) {
                const int32_t q = mest_finder_root(f, first + (int32_t)i);
                if (q == MEST_SITE_STAYS || s->group[q] != g || s->member[q] != (i - at) / repeat)
                    return false;
            }
            part[n_parts++] = (mest_channel_part){g, size[g], repeat};
            any = true;
        }
        at = end;
    }
    *out = (mest_channel_axis){0};
    if (!any)
        return true;
    out->part = mest_region_alloc(f->region, (size_t)n_parts, sizeof *out->part);
    if (!out->part)
        return false;
    memcpy(out->part, part, (size_t)n_parts * sizeof *part);
    out->n_parts = n_parts;
    return true;
}

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

/* Sorts classes into groups; returns how many. size: classes of each; maker: the parameter it is named after. */
static int32_t sort_classes(mest_finder *f, sorter *s, int32_t *size, int32_t *maker, int32_t most)
{
    int32_t n = 0;
    uint64_t *mark_of = mest_region_alloc(&f->scratch, (size_t)most, sizeof *mark_of);
    for (int32_t i = 0; i < f->m->n_params; i++)
        for (int axis = 0; axis < 2; axis++)
            for (int64_t c = 0; f->param_site[i][axis] >= 0 && c < f->m->params[i].shape.dim[axis]; c++) {
                const int32_t r = mest_finder_root(f, f->param_site[i][axis] + (int32_t)c);
                s->mark[r] = mix(s->mark[r], (uint64_t)i * 2 + (uint64_t)axis + 1);
            }
    for (int32_t i = 0; mark_of && i < f->m->n_params; i++)
        for (int axis = 0; axis < 2; axis++) {
            if (f->axes[i].kind != MEST_CHANNEL_WEIGHT || axis != f->axes[i].out_axis || !f->seen[i])
                continue;
            for (int64_t c = 0; c < f->m->params[i].shape.dim[axis]; c++) {
                const int32_t r = mest_finder_root(f, f->param_site[i][axis] + (int32_t)c);
                if (r == MEST_SITE_STAYS || s->group[r] != -1)
                    continue;
                int32_t g = 0;
                while (g < n && mark_of[g] != s->mark[r])
                    g++;
                if (g == n) {
                    const char *why;
                    if (n == most)
                        return n;
                    maker[n] = maker_of(f, r, &why);
                    if (why && named_structured(&f->wish[i]))
                        explain(f, i, why);
                    maker[n] = why ? -1 : maker[n];
                    mark_of[n] = s->mark[r];
                    size[n++] = 0;
                }
                s->group[r] = maker[g] < 0 ? -2 - g : g;
                s->member[r] = size[g]++;
            }
        }
    return n;
}

/* ---- the result ---- */

static mest_status finish(mest_finder *f, mest_channels *c, const sorter *s, const int32_t *size, const int32_t *maker, int32_t n)
{
    /* numbers without gaps */
    int32_t *number = mest_region_alloc(&f->scratch, (size_t)n + 1, sizeof *number);
    c->group = mest_region_alloc(f->region, (size_t)n + 1, sizeof *c->group);
    MEST_CHECK(number && c->group, f->err, MEST_E_NOMEM, "channels: out of memory");
    for (int32_t g = 0; g < n; g++) {
        number[g] = maker[g] < 0 ? -1 : c->n_groups;
        if (maker[g] < 0)
            continue;
        mest_channel_group *group = &c->group[c->n_groups++];
        group->name = mest_region_printf(f->region, "channels of %s", f->m->params[maker[g]].name);
        group->by_inputs = !strcmp(f->wish[maker[g]].scheme, "channel");
        group->target = f->wish[maker[g]].sparsity;
        group->maker = maker[g];
        group->param = mest_region_alloc(f->region, (size_t)f->m->n_params, sizeof *group->param);
        MEST_CHECK(group->name && group->param, f->err, MEST_E_NOMEM, "channels: out of memory");
    }
    for (int32_t i = 0; i < f->m->n_params; i++) {
        mest_axes *a = &f->axes[i];
        bool any = false;
        for (int axis = 0; axis < 2; axis++) {
            if (f->param_site[i][axis] < 0)
                continue;
            MEST_CHECK(cut_axis(f, s, size, i, axis, &a->axis[axis]), f->err, MEST_E_UNSUPPORTED,
                       "'%s' has its channels in an order of its own (a shuffle of channels?); schemes filter and channel cannot follow that",
                       f->m->params[i].name);
            for (int32_t k = 0; k < a->axis[axis].n_parts; k++) {
                mest_channel_part *part = &a->axis[axis].part[k];
                part->group = part->group < 0 ? -1 : number[part->group];
                any |= part->group >= 0;
                if (part->group >= 0) {
                    mest_channel_group *group = &c->group[part->group];
                    if (!group->n_params || group->param[group->n_params - 1] != i)
                        group->param[group->n_params++] = i;
                    if (a->kind == MEST_CHANNEL_WEIGHT && axis == a->out_axis)
                        MEST_CHECK(f->wish[i].sparsity == group->target, f->err, MEST_E_ARGUMENT,
                                   "%s: '%s' makes them too, but its sparsity is %g, not %g", group->name, f->m->params[i].name, f->wish[i].sparsity,
                                   group->target);
                }
            }
        }
        if (!any)
            continue;
        mest_axes *own = mest_region_alloc(f->region, 1, sizeof *own);
        MEST_CHECK(own, f->err, MEST_E_NOMEM, "channels: out of memory");
        *own = *a;
        own->model = f->m;
        own->file_shape = f->m->params[i].shape;
        own->file_count = f->m->params[i].count;
        f->m->params[i].axes = own; /* taken back if anything fails later */
    }
    return MEST_OK;
}

/* Depthwise convolutions of groups, and reshapes that spell out a number of channels. */
static mest_status note_nodes(mest_finder *f, mest_channels *c)
{
    c->conv = mest_region_alloc(f->region, (size_t)f->m->graph.n_nodes + 1, sizeof *c->conv);
    MEST_CHECK(c->conv, f->err, MEST_E_NOMEM, "channels: out of memory");
    for (int32_t i = 0; i < f->m->graph.n_nodes; i++) {
        const mest_node *n = &f->m->graph.nodes[i];
        const mest_value *values = f->m->graph.values;
        if (!mest_is_op(n, "Conv") || n->n_in < 2 || values[n->in[1]].kind != MEST_VALUE_PARAM)
            continue;
        const int32_t p = values[n->in[1]].param;
        if (f->m->params[p].axes && f->m->params[p].axes->kind == MEST_CHANNEL_DEPTHWISE)
            c->conv[c->n_convs++] = (mest_channel_conv){i, p};
    }
    for (int32_t i = 0; i < f->g.n_nodes; i++) {
        const mest_node *n = &f->g.nodes[i];
        if (!mest_is_op(n, "Reshape") || f->value_site[n->out[0]] < 0 || n->source < 0)
            continue;
        bool loses = false;
        for (int64_t k = 0; k < mest_finder_channels(f, n->out[0]); k++)
            loses |= mest_finder_root(f, f->value_site[n->out[0]] + (int32_t)k) != MEST_SITE_STAYS;
        mest_node *own = &f->m->graph.nodes[n->source];
        const mest_value *shape = own->n_in > 1 && own->in[1] != MEST_NONE ? &f->m->graph.values[own->in[1]] : NULL;
        if (!loses || !shape || shape->kind != MEST_VALUE_CONST || shape->type.dtype != MEST_I64 || shape->type.shape.dim[0] < 2)
            continue;
        const int64_t *old = shape->data;
        int64_t dim[MEST_MAX_RANK];
        const int64_t rank = shape->type.shape.dim[0];
        if (old[1] <= 0 || rank > MEST_MAX_RANK)
            continue;
        memcpy(dim, old, (size_t)rank * sizeof *dim);
        const bool flat = mest_finder_channels(f, n->in[0]) != mest_finder_channels(f, n->out[0]);
        dim[0] = dim[0] == -1 ? 0 : dim[0]; /* 0: as in the input */
        dim[1] = flat ? -1 : 0;
        const mest_type type = shape->type;
        const mest_id made = mest_graph_const(&f->m->graph, NULL, &type, dim);
        MEST_CHECK(made != MEST_NONE, f->err, MEST_E_NOMEM, "channels: out of memory");
        f->m->graph.nodes[n->source].in[1] = made;
        c->baked = true;
        c->baked_node = n->name;
    }
    return MEST_OK;
}

static mest_status find(mest_finder *f, mest_channels *c)
{
    enum { MOST = 4096 };
    MEST_CHECK(f->m->n_folds == 0, f->err, MEST_E_UNSUPPORTED,
               "schemes filter and channel are not for a model whose BatchNormalization was unfolded: export it in training form first");
    MEST_TRY(type_graph(f));
    MEST_TRY(make_sites(f));
    for (int i = 0; i < f->g.n_inputs; i++)
        mest_finder_stay(f, f->g.inputs[i]);
    for (int i = 0; i < f->g.n_outputs; i++)
        mest_finder_stay(f, f->g.outputs[i]);
    for (int32_t i = 0; i < f->g.n_nodes; i++)
        mest_finder_apply(f, &f->g.nodes[i]);
    keep_fixed_parameters(f);
    sorter s = {0};
    s.mark = mest_region_alloc(&f->scratch, (size_t)f->n_sites, sizeof *s.mark);
    s.group = mest_region_alloc(&f->scratch, (size_t)f->n_sites, sizeof *s.group);
    s.member = mest_region_alloc(&f->scratch, (size_t)f->n_sites, sizeof *s.member);
    int32_t *size = mest_region_alloc(&f->scratch, MOST, sizeof *size), *maker = mest_region_alloc(&f->scratch, MOST, sizeof *maker);
    MEST_CHECK(s.mark && s.group && s.member && size && maker, f->err, MEST_E_NOMEM, "channels: out of memory");
    for (int32_t i = 0; i < f->n_sites; i++)
        s.group[i] = -1;
    const int32_t n = sort_classes(f, &s, size, maker, MOST);
    MEST_TRY(finish(f, c, &s, size, maker, n));
    if (c->n_groups == 0)
        return mest_fail(f->err, MEST_E_UNSUPPORTED, "schemes filter and channel: no layer's channels can be removed%s%s", f->why ? "; they stay because of " : "",
                         f->why ? f->why : "");
    for (int32_t i = 0; i < f->m->n_params; i++) { /* wishes that came to nothing, and why */
        if (!named_structured(&f->wish[i]) || (f->m->params[i].axes && f->m->params[i].axes->axis[f->axes[i].out_axis].n_parts))
            continue;
        if (mest_finder_root(f, f->param_site[i][f->axes[i].out_axis]) == MEST_SITE_STAYS)
            explain(f, i, f->seen[i] ? "they reach an input, an output, or an operator that needs them all" : "its operator has no rule for channels");
    }
    return note_nodes(f, c);
}

mest_status mest_channels_find(mest_channels **out, mest_model *m, const mest_channel_wish *wish, mest_error *err)
{
    mest_channels *c;
    *out = NULL;
    MEST_NEW(&m->heap, c, 1, err, "channels");
    *c = (mest_channels){0};
    mest_region_init(&c->region, &m->heap);
    mest_finder f = {.m = m, .region = &c->region, .wish = wish, .err = err};
    mest_region_init(&f.scratch, &m->heap);
    mest_graph_init(&f.g, &m->heap);
    const mest_status status = find(&f, c);
    mest_graph_free(&f.g);
    mest_region_free(&f.scratch);
    if (status != MEST_OK) {
        for (int32_t i = 0; i < m->n_params; i++)
            m->params[i].axes = NULL;
        mest_region_free(&c->region);
        mest_free(&m->heap, c, 1, sizeof *c);
        return status;
    }
    *out = c;
    return MEST_OK;
}
