/* SPDX-License-Identifier: Apache-2.0 */
/* Freezing as a way to obey a limit on memory: layers in front of the first one that learns keep no activations, no gradients and no optimizer
 * state. A layer begins with a weight of rank 2 or more and has what is read up to the next one; the last layer always learns. */
#include <string.h>

#include "runtime/session_fit.h"

enum { MARGIN_BYTES = 256 << 10 };

typedef struct front {
    mest_session *s;
    uint8_t *before;    /* what was frozen when the search began; NULL: nothing */
    uint8_t *marks;     /* [n_params + 1] what is tried */
    mest_id *depth;     /* [n_params] first node that reads it; MEST_NONE: nobody */
    int32_t *order;     /* trainable parameters by depth */
    int32_t *layer;     /* [n_layers] where in `order` a layer begins */
    int n, n_layers;
} front;

static void close_front(front *w)
{
    const size_t n = (size_t)w->s->model->n_params + 1;
    mest_free(w->s->heap, w->marks, n, 1);
    mest_free(w->s->heap, w->depth, n, sizeof *w->depth);
    mest_free(w->s->heap, w->order, n, sizeof *w->order);
    mest_free(w->s->heap, w->layer, n, sizeof *w->layer);
}

static mest_status open_front(front *w, mest_session *s, mest_error *err)
{
    const mest_graph *g = &s->model->graph;
    const size_t n = (size_t)s->model->n_params + 1;
    *w = (front){.s = s, .before = s->frozen, .marks = mest_calloc(s->heap, n, 1), .depth = mest_alloc(s->heap, n, sizeof *w->depth),
                 .order = mest_alloc(s->heap, n, sizeof *w->order), .layer = mest_alloc(s->heap, n, sizeof *w->layer)};
    if (!w->marks || !w->depth || !w->order || !w->layer) {
        close_front(w);
        return mest_fail(err, MEST_E_NOMEM, "freeze: out of memory");
    }
    for (int i = 0; i < s->model->n_params; i++)
        w->depth[i] = MEST_NONE;
    for (mest_id i = 0; i < g->n_nodes; i++) /* in an order in which they run */
        for (int k = 0; k < g->nodes[i].n_in; k++) {
            const mest_id in = g->nodes[i].in[k];
            const int p = in != MEST_NONE && g->values[in].kind == MEST_VALUE_PARAM ? g->values[in].param : -1;
            if (p < 0 || w->depth[p] != MEST_NONE)
                continue;
            w->depth[p] = i;
            if (s->model->params[p].role == MEST_ROLE_TRAINABLE && !(w->before && w->before[p]))
                w->order[w->n++] = p;
        }
    for (int i = 0; i < w->n; i++)
        if (s->model->params[w->order[i]].shape.rank >= 2 && (i == 0 || w->depth[w->order[i]] != w->depth[w->order[i - 1]]))
            w->layer[w->n_layers++] = i;
    return MEST_OK;
}

/* Bytes of optimizer state, which the search only counts as gone: a search that fails must not lose any. */
static int64_t state_bytes(const mest_session *s, int param)
{
    const mest_param_state *state = &s->optimizer.state[param];
    int slots = state->sum != NULL;
    for (int k = 0; k < MEST_OPTIM_SLOTS; k++)
        slots += state->slot[k] != NULL;
    return slots * state->capacity * (int64_t)sizeof(mest_real);
}

/* Everything in front of layer number `first` is frozen from here on, for programs that are built. */
static void set_front(mest_fitting *f, front *w, int first)
{
    mest_session *s = w->s;
    const size_t n = (size_t)s->model->n_params + 1;
    memset(w->marks, 0, n);
    if (w->before)
        memcpy(w->marks, w->before, n);
    for (int i = 0; i < w->layer[first]; i++)
        w->marks[w->order[i]] = 1;
    s->frozen = w->marks;
    f->n_front = w->layer[first];
    f->front_name = s->model->params[w->order[w->layer[first]]].name;
    mest_session_drop_programs(s);
}

static mest_status try_front(mest_fitting *f, front *w, int first)
{
    set_front(f, w, first);
    MEST_TRY(mest_session_set_part(f->s, f->s->part, f->err)); /* sums of the parts before go, and are not counted again */
    f->released = 0;
    for (int i = 0; i < w->layer[first]; i++)
        f->released += state_bytes(f->s, w->order[i]);
    return mest_fit_try(f);
}

static void restore(mest_fitting *f, front *w)
{
    f->s->frozen = w->before;
    f->released = 0;
    f->n_front = 0;
    mest_session_drop_programs(f->s);
}

const char *mest_fit_no_front(const mest_session *s)
{
    if (s->at.step > 0 || s->at.epoch > 0)
        return "the run has begun";
    return s->model->channels ? "whole channels are removed" : NULL;
}

/* The fewest layers that do, by halves; more layers frozen may need more in odd cases, but what is taken was built and does. */
static mest_status search(mest_fitting *f, front *w, int *taken)
{
    int low = 0, high = w->n_layers - 1; /* `high` does, `low` does not */
    *taken = -1;
    if (high < 1)
        return MEST_OK;
    MEST_TRY(try_front(f, w, high));
    if (mest_fit_exceeds(f))
        return MEST_OK;
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        MEST_TRY(try_front(f, w, middle));
        if (mest_fit_exceeds(f))
            low = middle;
        else
            high = middle;
    }
    MEST_TRY(try_front(f, w, high));
    *taken = high;
    return MEST_OK;
}

mest_status mest_fit_freeze_front(mest_fitting *f)
{
    front w;
    int taken;
    MEST_TRY(open_front(&w, f->s, f->err));
    f->margin = MARGIN_BYTES;
    mest_status status = search(f, &w, &taken);
    f->margin = 0;
    const int n_front = f->n_front;
    const char *name = f->front_name;
    restore(f, &w);
    if (status == MEST_OK && taken >= 0) {
        set_front(f, &w, taken); /* the marks */
        f->s->frozen = w.before;
        status = mest_session_set_frozen(f->s, w.marks, f->err); /* parts, halves and recomputation stand as the search left them */
        if (status == MEST_OK)
            status = mest_fit_build(f);
        f->n_front = n_front;
        f->front_name = name;
    }
    if (status == MEST_OK && taken < 0) /* sums again for all */
        status = mest_session_set_part(f->s, f->s->part, f->err);
    close_front(&w);
    return status;
}

mest_status mest_fit_least_front(mest_fitting *f)
{
    front w;
    const int64_t part = f->s->part;
    MEST_TRY(open_front(&w, f->s, f->err));
    mest_status status = MEST_OK;
    if (w.n_layers > 1) {
        set_front(f, &w, w.n_layers - 1);
        status = mest_session_set_part(f->s, part, f->err);
        for (int i = 0; i < w.layer[w.n_layers - 1]; i++)
            f->released += state_bytes(f->s, w.order[i]);
        if (status == MEST_OK)
            status = mest_fit_build(f);
    }
    restore(f, &w);
    if (status == MEST_OK) /* sums again for all */
        status = mest_session_set_part(f->s, part, f->err);
    close_front(&w);
    return status;
}
