/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters that hold the channels of their groups only: filled from the file, resized, edited in place, read back at full size. */
#include "runtime/channels.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/nn.h"
#include "runtime/op.h"
#include "runtime/rng.h"
#include "sparse/cursor.h"

/* ---- axes ---- */

static int64_t kept_of(const mest_model *m, const mest_channel_axis *axis, int64_t whole, bool peak)
{
    int64_t n = 0;
    if (axis->n_parts == 0)
        return whole;
    for (int32_t k = 0; k < axis->n_parts; k++) {
        const mest_channel_part *part = &axis->part[k];
        const mest_sparse *units = part->group < 0 ? NULL : m->channels->group[part->group].units;
        n += (!units ? part->n : peak ? units->cap_units : units->active_units) * part->repeat;
    }
    return n;
}

/* Walks the present positions of an axis in order. */
typedef struct axis_walk {
    const mest_model *m;
    const mest_channel_axis *axis;
    int64_t whole;           /* size in the file */
    int32_t k;               /* part */
    int64_t first;           /* of the part, in the file */
    int64_t i, r;            /* channel of the part (in its present ones, or all), position in it */
    mest_cursor units;
} axis_walk;

static void walk_part(axis_walk *w)
{
    w->i = w->r = 0;
    if (w->axis->n_parts && w->k < w->axis->n_parts && w->axis->part[w->k].group >= 0)
        mest_cursor_init(&w->units, w->m->channels->group[w->axis->part[w->k].group].units);
}

static void walk_init(axis_walk *w, const mest_model *m, const mest_channel_axis *axis, int64_t whole)
{
    w->m = m;
    w->axis = axis;
    w->whole = whole;
    w->k = 0;
    w->first = 0;
    walk_part(w);
}

/* Position in the file, -1 at the end; *unit: the channel of its group, or -1. */
static int64_t walk_next(axis_walk *w, int32_t *group, int64_t *unit)
{
    *group = -1;
    *unit = -1;
    if (w->axis->n_parts == 0)
        return w->i < w->whole ? w->i++ : -1;
    for (;;) {
        if (w->k == w->axis->n_parts)
            return -1;
        const mest_channel_part *part = &w->axis->part[w->k];
        int64_t channel = w->i;
        bool more = w->i < part->n;
        if (part->group >= 0) {
            w->units.at = w->i;
            more = w->i < w->units.s->active_units;
            channel = more ? mest_cursor_peek(&w->units) : 0;
            *group = part->group;
            *unit = channel;
        }
        if (!more) {
            w->first += part->n * part->repeat;
            w->k++;
            *group = -1;
            *unit = -1;
            walk_part(w);
            continue;
        }
        const int64_t at = w->first + channel * part->repeat + w->r;
        if (++w->r == part->repeat) {
            w->r = 0;
            w->i++;
        }
        return at;
    }
}

static int64_t dim_of(const mest_shape *s, int axis) { return axis < s->rank ? s->dim[axis] : 1; }
static int64_t rest_of(const mest_shape *s) { return s->rank > 2 ? mest_shape_span(s, 2, s->rank) : 1; }

/* ---- sizes ---- */

static void resize(mest_model *m, bool peak)
{
    mest_channels *c = m->channels;
    bool changed = false;
    for (int32_t i = 0; i < m->n_params; i++) {
        mest_param *p = &m->params[i];
        if (!p->axes)
            continue;
        mest_shape s = p->axes->file_shape;
        for (int axis = 0; axis < 2 && axis < s.rank; axis++)
            s.dim[axis] = kept_of(m, &p->axes->axis[axis], s.dim[axis], peak);
        const bool other = !mest_shape_equal(&s, &p->shape);
        changed |= other;
        p->value_version += other; /* what is packed of it is of the other shape */
        p->shape = s;
        p->count = mest_shape_span(&s, 0, s.rank);
    }
    for (int32_t v = 0; v < m->graph.n_values; v++)
        if (m->graph.values[v].kind == MEST_VALUE_PARAM && m->params[m->graph.values[v].param].axes)
            m->graph.values[v].type.shape = m->params[m->graph.values[v].param].shape;
    for (int32_t i = 0; i < c->n_convs; i++) { /* attributes are the graph's own memory, shared by its copies: all follow */
        mest_conv_params *conv = (mest_conv_params *)(uintptr_t)m->graph.nodes[c->conv[i].node].params;
        conv->group = m->params[c->conv[i].param].shape.dim[0];
    }
    c->version += changed;
}

void mest_channels_resize(mest_model *m) { resize(m, false); }
void mest_channels_pretend(mest_model *m, bool peak) { resize(m, peak); }

/* ---- values ---- */

mest_status mest_channels_load(mest_model *m, mest_param *p, mest_error *err)
{
    enum { PIECE = 1024 };
    mest_axes *a = p->axes;
    const mest_shape *s = &a->file_shape;
    const int64_t cols = dim_of(s, 1), rest = rest_of(s);
    mest_real *values = mest_calloc(&m->heap, (size_t)p->count + 16, sizeof *values);
    MEST_CHECK(values, err, MEST_E_NOMEM, "parameter '%s': no memory for %" PRId64 " values", p->name, p->count);
    a->room = p->count;
    axis_walk rows, columns;
    int32_t group;
    int64_t unit, n = 0;
    float x[PIECE];
    mest_status status = MEST_OK;
    walk_init(&rows, m, &a->axis[0], dim_of(s, 0));
    for (int64_t r; (r = walk_next(&rows, &group, &unit)) >= 0;) {
        int64_t have = 0, first = 0; /* of the row: elements x[0..have) from `first` */
        walk_init(&columns, m, &a->axis[1], cols);
        for (int64_t col; (col = walk_next(&columns, &group, &unit)) >= 0;)
            for (int64_t k = 0; k < rest; k++) {
                const int64_t at = col * rest + k;
                if (at < first || at >= first + have) {
                    first = at;
                    have = cols * rest - at < PIECE ? cols * rest - at : PIECE;
                    MEST_TRY_OUT(mest_payload_read(&p->payload, r * cols * rest + at, have, x, err));
                }
                values[n++] = (mest_real)x[at - first];
            }
    }
    p->values = values;
    p->loaded = true;
    p->value_version++;
out:
    if (status != MEST_OK)
        mest_free(&m->heap, values, (size_t)p->count + 16, sizeof *values);
    return status;
}

void mest_channels_expand(const mest_param *p, const mest_real *values, float gone, int64_t first, int64_t n, float *out)
{
    const mest_axes *a = p->axes;
    const mest_model *m = a->model;
    const mest_shape *s = &a->file_shape;
    const int64_t cols = dim_of(s, 1), rest = rest_of(s);
    axis_walk rows, columns;
    int32_t group;
    int64_t unit, at = 0;
    const int64_t row_size = p->shape.rank && dim_of(&p->shape, 0) ? p->count / dim_of(&p->shape, 0) : 0;
    for (int64_t i = 0; i < n; i++)
        out[i] = gone;
    walk_init(&rows, m, &a->axis[0], dim_of(s, 0));
    for (int64_t r; (r = walk_next(&rows, &group, &unit)) >= 0; at += row_size) {
        const int64_t begin = r * cols * rest;
        if (begin >= first + n)
            break;
        if (begin + cols * rest <= first)
            continue;
        int64_t from = at;
        walk_init(&columns, m, &a->axis[1], cols);
        for (int64_t col; (col = walk_next(&columns, &group, &unit)) >= 0;)
            for (int64_t k = 0; k < rest; k++, from++) {
                const int64_t to = begin + col * rest + k - first;
                if (to >= 0 && to < n)
                    out[to] = (float)values[from];
            }
    }
}

/* ---- scores ---- */

/* Adds the squares of every number to its channel of the group: of the axis that makes channels, or of those that read them. */
static void add_squares(const mest_model *m, const mest_param *p, int32_t group, int axis, const mest_real *x, double *sum)
{
    const mest_axes *a = p->axes;
    const int64_t rows = dim_of(&p->shape, 0), cols = dim_of(&p->shape, 1), rest = rest_of(&p->shape);
    int64_t at = 0;
    for (int32_t k = 0; k < a->axis[axis].n_parts; k++) {
        const mest_channel_part *part = &a->axis[axis].part[k];
        const int64_t n = part->group < 0 ? part->n : m->channels->group[part->group].units->active_units;
        for (int64_t i = 0; part->group == group && i < n * part->repeat; i++) {
            double s = 0;
            if (axis == 0)
                for (int64_t e = (at + i) * cols * rest; e < (at + i + 1) * cols * rest; e++)
                    s += (double)x[e] * (double)x[e];
            else
                for (int64_t r = 0; r < rows; r++)
                    for (int64_t e = (r * cols + at + i) * rest; e < (r * cols + at + i + 1) * rest; e++)
                        s += (double)x[e] * (double)x[e];
            sum[i / part->repeat] += s;
        }
        at += n * part->repeat;
    }
}

/* Is the score of the group made of this axis of this parameter? */
static bool scores(const mest_channel_group *g, const mest_axes *a, int axis)
{
    return a->kind == MEST_CHANNEL_WEIGHT && a->axis[axis].n_parts && (axis == a->out_axis) == !g->by_inputs;
}

static void norms(const mest_model *m, int32_t group, bool gradients, mest_real *out)
{
    const mest_channel_group *g = &m->channels->group[group];
    double *sum = m->channels->norm;
    const int64_t n = g->units->active_units;
    memset(sum, 0, (size_t)n * sizeof *sum);
    for (int32_t k = 0; k < g->n_params; k++) {
        const mest_param *p = &m->params[g->param[k]];
        for (int axis = 0; axis < 2; axis++)
            if (scores(g, p->axes, axis) && (!gradients || p->axes->snapshot))
                add_squares(m, p, group, axis, gradients ? p->axes->snapshot : p->values, sum);
    }
    for (int64_t i = 0; i < n; i++)
        out[i] = (mest_real)sqrt(sum[i]);
}

void mest_channels_score(mest_model *m, int32_t group)
{
    mest_sparse *units = m->channels->group[group].units;
    norms(m, group, false, units->values);
    units->value_version++;
}

void mest_channels_gradient_norms(const mest_model *m, int32_t group, mest_real *out) { norms(m, group, true, out); }

mest_status mest_channels_keep(mest_model *m, int32_t group, mest_error *err)
{
    const mest_channel_group *g = &m->channels->group[group];
    for (int32_t k = 0; k < g->n_params; k++) {
        mest_axes *a = m->params[g->param[k]].axes;
        if (a->snapshot || !(scores(g, a, 0) || scores(g, a, 1)))
            continue;
        a->snapshot = mest_calloc(&m->heap, (size_t)a->room, sizeof *a->snapshot);
        MEST_CHECK(a->snapshot, err, MEST_E_NOMEM, "%s: no memory for gradients", g->name);
    }
    return MEST_OK;
}

void mest_channels_forget(mest_model *m, int32_t group)
{
    const mest_channel_group *g = &m->channels->group[group];
    for (int32_t k = 0; k < g->n_params; k++) {
        mest_axes *a = m->params[g->param[k]].axes;
        mest_free(&m->heap, a->snapshot, (size_t)a->room, sizeof *a->snapshot);
        a->snapshot = NULL;
    }
}

/* ---- the first channels ---- */

/* Norms of the file's channels, streamed. */
static mest_status file_norms(mest_model *m, int32_t group, double *sum, mest_error *err)
{
    enum { PIECE = 1024 };
    const mest_channel_group *g = &m->channels->group[group];
    float x[PIECE];
    for (int32_t k = 0; k < g->n_params; k++) {
        const mest_param *p = &m->params[g->param[k]];
        const mest_axes *a = p->axes;
        const int64_t cols = dim_of(&a->file_shape, 1), rest = rest_of(&a->file_shape);
        for (int axis = 0; axis < 2; axis++) {
            if (!scores(g, a, axis))
                continue;
            for (int64_t at = 0; at < a->file_count; at += PIECE) {
                const int64_t n = a->file_count - at < PIECE ? a->file_count - at : PIECE;
                MEST_TRY(mest_payload_read(&p->payload, at, n, x, err));
                for (int64_t i = 0; i < n; i++) {
                    int64_t position = axis == 0 ? (at + i) / rest / cols : (at + i) / rest % cols;
                    for (int32_t q = 0; q < a->axis[axis].n_parts; q++) {
                        const mest_channel_part *part = &a->axis[axis].part[q];
                        if (position < part->n * part->repeat) {
                            if (part->group == group)
                                sum[position / part->repeat] += (double)x[i] * (double)x[i];
                            break;
                        }
                        position -= part->n * part->repeat;
                    }
                }
            }
        }
    }
    return MEST_OK;
}

static mest_status read_norms(const void *self, int64_t first, int64_t n, float *out, mest_error *err)
{
    (void)err;
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)sqrt(((const double *)self)[first + i]);
    return MEST_OK;
}

/* Channels of the group in the file. */
static int64_t file_channels(const mest_model *m, int32_t group)
{
    const mest_channel_group *g = &m->channels->group[group];
    const mest_axes *a = m->params[g->param[0]].axes;
    for (int axis = 0; axis < 2; axis++)
        for (int32_t k = 0; k < a->axis[axis].n_parts; k++)
            if (a->axis[axis].part[k].group == group)
                return a->axis[axis].part[k].n;
    return 0;
}

static mest_status choose(mest_model *m, int32_t index, const mest_sparsity *how, mest_error *err)
{
    mest_channel_group *g = &m->channels->group[index];
    const mest_shape shape = {.rank = 2, .dim = {file_channels(m, index), 1}};
    const int64_t keep = how->start_dense ? shape.dim[0] : mest_units_at(g->target, shape.dim[0]);
    MEST_CHECK(keep > 0, err, MEST_E_ARGUMENT, "%s: a sparsity of %g leaves none of %" PRId64, g->name, g->target, shape.dim[0]);
    MEST_TRY(mest_sparse_create(&g->units, &m->heap, "csr", &shape, keep, err));
    snprintf(g->units->name, sizeof g->units->name, "%s", g->by_inputs ? "channel" : "filter");
    if (how->from_scratch)
        return mest_sparse_from_random(g->units, keep, how->seed, (uint64_t)MEST_STREAM_PATTERN << 32 | (uint32_t)index, 0, err);
    double *sum = mest_calloc(&m->heap, (size_t)shape.dim[0], sizeof *sum);
    MEST_CHECK(sum, err, MEST_E_NOMEM, "%s: no memory for norms", g->name);
    mest_status status = file_norms(m, index, sum, err);
    if (status == MEST_OK)
        status = mest_sparse_from_magnitude(g->units, &(mest_reader){read_norms, sum}, keep, err);
    mest_free(&m->heap, sum, (size_t)shape.dim[0], sizeof *sum);
    return status;
}

const char *mest_param_channel_scheme(const mest_param *p)
{
    for (int axis = 0; axis < 2; axis++)
        for (int32_t k = 0; k < p->axes->axis[axis].n_parts; k++)
            if (p->axes->axis[axis].part[k].group >= 0)
                return p->axes->model->channels->group[p->axes->axis[axis].part[k].group].units->name;
    return "dense";
}

mest_status mest_channels_install(mest_model *m, mest_channels *c, const mest_sparsity *how, mest_error *err)
{
    m->channels = c;
    mest_status status = MEST_OK;
    int64_t most = 0;
    for (int32_t g = 0; g < c->n_groups && status == MEST_OK; g++) {
        status = choose(m, g, how, err);
        most = status == MEST_OK && c->group[g].units->n_units > most ? c->group[g].units->n_units : most;
    }
    if (status == MEST_OK) {
        c->n_norm = most;
        c->norm = mest_calloc(&m->heap, (size_t)most, sizeof *c->norm);
        if (!c->norm)
            status = mest_fail(err, MEST_E_NOMEM, "channels: out of memory");
    }
    if (status != MEST_OK) {
        mest_channels_destroy(m);
        return status;
    }
    for (int32_t g = 0; g < c->n_groups; g++)
        for (int32_t k = 0; k < c->group[g].n_params; k++)
            m->params[c->group[g].param[k]].target_sparsity = c->group[g].target;
    resize(m, false);
    return MEST_OK;
}

void mest_channels_destroy(mest_model *m)
{
    mest_channels *c = m->channels;
    if (!c)
        return;
    for (int32_t i = 0; i < m->n_params; i++) {
        mest_param *p = &m->params[i];
        if (!p->axes)
            continue;
        if (p->loaded)
            mest_free(&m->heap, p->values, (size_t)p->axes->room + 16, sizeof *p->values);
        mest_free(&m->heap, p->axes->snapshot, (size_t)p->axes->room, sizeof *p->axes->snapshot);
        p->values = NULL;
        p->loaded = false;
        p->shape = p->axes->file_shape;
        p->count = p->axes->file_count;
        p->axes = NULL;
    }
    for (int32_t g = 0; g < c->n_groups; g++)
        mest_sparse_destroy(c->group[g].units);
    mest_free(&m->heap, c->norm, (size_t)c->n_norm, sizeof *c->norm);
    mest_free(&m->heap, c->scratch, (size_t)c->scratch_count, sizeof *c->scratch);
    mest_free(&m->heap, c->map, (size_t)c->map_count, sizeof *c->map);
    mest_free(&m->heap, c->index, c->index_size, 1);
    mest_region_free(&c->region);
    mest_free(&m->heap, c, 1, sizeof *c);
    m->channels = NULL;
}

/* ---- growing and shrinking ---- */

mest_status mest_channels_reserve(mest_model *m, mest_error *err)
{
    mest_channels *c = m->channels;
    int64_t largest = 0, longest = 0;
    for (int32_t i = 0; i < m->n_params; i++) {
        mest_param *p = &m->params[i];
        if (!p->axes)
            continue;
        int64_t room = rest_of(&p->axes->file_shape);
        for (int axis = 0; axis < 2; axis++) {
            const int64_t peak = kept_of(m, &p->axes->axis[axis], dim_of(&p->axes->file_shape, axis), true);
            room *= peak;
            longest = peak > longest ? peak : longest;
        }
        largest = room > largest ? room : largest;
        if (room <= p->axes->room)
            continue;
        mest_real *larger = mest_calloc(&m->heap, (size_t)room + 16, sizeof *larger);
        MEST_CHECK(larger, err, MEST_E_NOMEM, "parameter '%s': no memory for %" PRId64 " values", p->name, room);
        memcpy(larger, p->values, (size_t)p->count * sizeof *larger);
        mest_free(&m->heap, p->values, (size_t)p->axes->room + 16, sizeof *larger);
        p->values = larger;
        p->axes->room = room;
        p->value_version++;
    }
    mest_free(&m->heap, c->scratch, (size_t)c->scratch_count, sizeof *c->scratch);
    mest_free(&m->heap, c->map, (size_t)c->map_count, sizeof *c->map);
    mest_free(&m->heap, c->index, c->index_size, 1);
    c->scratch_count = largest;
    c->map_count = 2 * longest;
    c->index_size = 0;
    for (int32_t g = 0; g < c->n_groups; g++)
        if (c->group[g].units->index_size > c->index_size)
            c->index_size = c->group[g].units->index_size;
    c->index = mest_alloc(&m->heap, c->index_size, 1);
    c->scratch = mest_alloc(&m->heap, (size_t)largest, sizeof *c->scratch);
    c->map = mest_alloc(&m->heap, (size_t)c->map_count, sizeof *c->map);
    MEST_CHECK(c->scratch && c->map && c->index, err, MEST_E_NOMEM, "channels: no memory for edits");
    return MEST_OK;
}

/* Where each position along an axis was before the group's units changed: map[new] = old, or -1 for channels that are new. Returns the
 * number of positions before. old_units: the group's units as they were, `fresh` those that grow though they were there. */
static int64_t make_map(const mest_model *m, const mest_channel_axis *axis, int64_t whole, int32_t group, const mest_sparse *old_units,
                        const int64_t *grow, int64_t n_grow, int32_t *map)
{
    int64_t old = 0, new = 0;
    if (axis->n_parts == 0) {
        for (; new < whole; new++)
            map[new] = (int32_t)new;
        return whole;
    }
    for (int32_t k = 0; k < axis->n_parts; k++) {
        const mest_channel_part *part = &axis->part[k];
        const mest_sparse *units = part->group < 0 ? NULL : m->channels->group[part->group].units;
        const int64_t n = units ? units->active_units : part->n;
        if (part->group != group) {
            for (int64_t i = 0; i < n * part->repeat; i++)
                map[new++] = (int32_t)old++;
            continue;
        }
        int64_t g = 0;
        for (int64_t i = 0; i < n; i++) {
            int64_t unit;
            units->format->units(units, i, 1, &unit);
            while (g < n_grow && grow[g] < unit)
                g++;
            const bool is_new = g < n_grow && grow[g] == unit;
            const int64_t was = is_new ? 0 : mest_sparse_lower_bound(old_units, unit);
            for (int64_t r = 0; r < part->repeat; r++)
                map[new++] = is_new ? -1 : (int32_t)(old + was * part->repeat + r);
        }
        old += old_units->active_units * part->repeat;
    }
    return old;
}

typedef struct move {
    const int32_t *rows, *cols;   /* of the new shape */
    int64_t n_rows, n_cols, rest, old_cols;
} move;

/* value of what is new at row i, column j, position k within */
static void remap(const move *v, mest_real *x, mest_real *scratch, mest_real (*fresh)(void *context, int64_t i, int64_t j, int64_t k), void *context)
{
    int64_t to = 0;
    for (int64_t i = 0; i < v->n_rows; i++)
        for (int64_t j = 0; j < v->n_cols; j++)
            for (int64_t k = 0; k < v->rest; k++, to++)
                scratch[to] = v->rows[i] >= 0 && v->cols[j] >= 0 ? x[((int64_t)v->rows[i] * v->old_cols + v->cols[j]) * v->rest + k]
                              : fresh ? fresh(context, i, j, k) : 0;
    memcpy(x, scratch, (size_t)to * sizeof *x);
}

typedef struct grower {
    const mest_axes *axes;
    const int32_t *rows, *cols;
    uint64_t seed, stream;
    double bound;
    int64_t n_cols, rest;
} grower;

static mest_real grown(void *context, int64_t i, int64_t j, int64_t k)
{
    const grower *g = context;
    if (g->axes->kind == MEST_CHANNEL_VECTOR)
        return (mest_real)g->axes->fresh;
    /* What reads a new channel begins at 0, what makes it does not: else both would be 0, and so would all their gradients for ever. */
    const bool made = g->axes->kind == MEST_CHANNEL_DEPTHWISE || (g->axes->out_axis == 0 ? g->rows[i] < 0 : g->cols[j] < 0);
    const bool read = g->axes->kind == MEST_CHANNEL_WEIGHT && (g->axes->out_axis == 0 ? g->cols[j] < 0 : g->rows[i] < 0);
    if (!made || read)
        return 0;
    return (mest_real)((2 * mest_rng_uniform(g->seed, g->stream, (uint64_t)((i * g->n_cols + j) * g->rest + k)) - 1) * g->bound);
}

mest_status mest_channels_edit(mest_model *m, mest_optimizer *o, int32_t index, const int64_t *drop, int64_t n_drop, const int64_t *grow, int64_t n_grow,
                               mest_real *const *follow, int n_follow, void *scratch, uint64_t seed, uint64_t key, mest_error *err)
{
    mest_channels *c = m->channels;
    mest_channel_group *g = &c->group[index];
    MEST_CHECK(g->units->index_size <= c->index_size, err, MEST_E_INTERNAL, "%s: no room was planned for its index", g->name);
    mest_sparse before = *g->units; /* the units as they were: their index is all that is asked of it */
    before.index = c->index;
    memcpy(before.index, g->units->index, g->units->index_size);
    MEST_TRY(mest_sparse_edit(g->units, drop, n_drop, grow, n_grow, follow, n_follow, scratch, err));
    if (n_drop == 0 && n_grow == 0)
        return MEST_OK;
    for (int32_t k = 0; k < g->n_params; k++) {
        mest_param *p = &m->params[g->param[k]];
        const mest_axes *a = p->axes;
        const mest_shape *s = &a->file_shape;
        int32_t *rows = c->map, *cols = c->map + c->map_count / 2;
        const int64_t n_rows = kept_of(m, &a->axis[0], dim_of(s, 0), false), n_cols = kept_of(m, &a->axis[1], dim_of(s, 1), false);
        make_map(m, &a->axis[0], dim_of(s, 0), index, &before, grow, n_grow, rows);
        const int64_t old_cols = make_map(m, &a->axis[1], dim_of(s, 1), index, &before, grow, n_grow, cols);
        const move v = {rows, cols, n_rows, n_cols, rest_of(s), old_cols};
        const int64_t fan_in = a->kind == MEST_CHANNEL_DEPTHWISE ? v.rest : (a->out_axis == 0 ? n_cols : n_rows) * v.rest;
        grower grows = {.axes = a, .rows = rows, .cols = cols, .seed = seed, .stream = mest_rng((uint64_t)MEST_STREAM_GROW << 32, (uint64_t)g->param[k], key),
                        .bound = sqrt(6.0 / (double)(fan_in > 0 ? fan_in : 1)), .n_cols = n_cols, .rest = v.rest};
        remap(&v, p->values, c->scratch, grown, &grows);
        if (a->snapshot)
            remap(&v, a->snapshot, c->scratch, NULL, NULL);
        for (int t = 0; o && o->state && t < MEST_OPTIM_SLOTS; t++)
            if (o->state[g->param[k]].slot[t])
                remap(&v, o->state[g->param[k]].slot[t], c->scratch, NULL, NULL);
        p->value_version++;
    }
    resize(m, false);
    return MEST_OK;
}
