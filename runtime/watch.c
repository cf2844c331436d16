/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/watch.h"

#include <inttypes.h>
#include <string.h>

#include "sparse/cursor.h"

static mest_status take_start(mest_watch_param *p, mest_error *err)
{
    mest_cursor c;
    mest_unit_list_clear(&p->start);
    mest_unit_list_clear(&p->grown);
    p->distance_known = false;
    mest_cursor_init(&c, p->sparse);
    for (; c.at < p->sparse->active_units; c.at++)
        MEST_CHECK(mest_unit_list_put(&p->start, mest_cursor_peek(&c)), err, MEST_E_INTERNAL, "watch: the room for a pattern is too small");
    return MEST_OK;
}

static mest_status open_param(mest_watch_param *p, mest_heap *heap, const mest_sparse *weight, mest_error *err)
{
    p->sparse = weight;
    MEST_TRY(mest_unit_list_create(&p->start, heap, weight->cap_units, mest_sparse_ids(weight), err));
    MEST_TRY(mest_unit_list_create(&p->grown, heap, weight->cap_units, mest_sparse_ids(weight), err));
    return take_start(p, err);
}

mest_status mest_watch_create(mest_watch **watch, mest_heap *heap, mest_sparse *const *weights, int n, mest_error *err)
{
    *watch = NULL;
    mest_watch *w = mest_calloc(heap, 1, sizeof *w);
    MEST_CHECK(w, err, MEST_E_NOMEM, "watch: out of memory");
    w->heap = heap;
    w->params = mest_calloc(heap, (size_t)n + 1, sizeof *w->params);
    mest_status status = w->params ? MEST_OK : mest_fail(err, MEST_E_NOMEM, "watch: out of memory");
    w->n = w->params ? n : 0;
    for (int i = 0; i < n && status == MEST_OK; i++)
        status = open_param(&w->params[i], heap, weights[i], err);
    if (status == MEST_OK)
        *watch = w;
    else
        mest_watch_destroy(w);
    return status;
}

mest_status mest_watch_restart(mest_watch *w, mest_error *err)
{
    for (int i = 0; i < w->n; i++)
        MEST_TRY(take_start(&w->params[i], err));
    return MEST_OK;
}

void mest_watch_destroy(mest_watch *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->n; i++) {
        mest_unit_list_free(&w->params[i].start);
        mest_unit_list_free(&w->params[i].grown);
    }
    if (w->params)
        mest_free(w->heap, w->params, (size_t)w->n + 1, sizeof *w->params);
    mest_free(w->heap, w, 1, sizeof *w);
}

void mest_watch_note(mest_watch *w, int param, const int64_t *drop, int64_t n_drop, const int64_t *grow, int64_t n_grow)
{
    mest_watch_param *p = &w->params[param];
    int64_t lost = 0, d = 0;
    mest_unit_reader r = mest_unit_list_read(&p->grown);
    for (int64_t unit = mest_unit_next(&r); unit != INT64_MAX && n_drop > 0; unit = mest_unit_next(&r)) {
        while (d < n_drop && drop[d] < unit)
            d++;
        lost += d < n_drop && drop[d] == unit;
    }
    p->n_earlier += p->grown.n;
    p->n_survivors += p->grown.n - lost;
    p->n_removed += n_drop;
    p->n_grown += n_grow;
    mest_unit_list_clear(&p->grown);
    for (int64_t i = 0; i < n_grow; i++)
        (void)mest_unit_list_put(&p->grown, grow[i]); /* there is room for a whole pattern */
}

void mest_watch_reset(mest_watch *w)
{
    for (int i = 0; w && i < w->n; i++)
        w->params[i].n_removed = w->params[i].n_grown = w->params[i].n_earlier = w->params[i].n_survivors = 0;
}

static double compute_distance(const mest_watch_param *p)
{
    mest_unit_reader r = mest_unit_list_read(&p->start);
    mest_cursor c;
    mest_cursor_init(&c, p->sparse);
    int64_t both = 0, was = mest_unit_next(&r), is = mest_cursor_peek(&c);
    while (was != INT64_MAX && is != INT64_MAX) {
        both += was == is;
        bool next_was = was <= is, next_is = is <= was;
        if (next_was)
            was = mest_unit_next(&r);
        if (next_is) {
            c.at++;
            is = mest_cursor_peek(&c);
        }
    }
    int64_t either = p->start.n + p->sparse->active_units - both;
    return either ? 1 - (double)both / (double)either : 0;
}

double mest_watch_distance(mest_watch_param *p)
{
    if (!p->distance_known || p->distance_version != p->sparse->version) {
        p->distance = compute_distance(p);
        p->distance_version = p->sparse->version;
        p->distance_known = true;
    }
    return p->distance;
}

/* ---- state ---- */

static mest_status save_list(const mest_unit_list *list, mest_state_io write, void *stream)
{
    int64_t head[2] = {list->n, (int64_t)list->used};
    mest_status status = write(stream, head, sizeof head);
    return status == MEST_OK ? write(stream, list->bytes, list->used) : status;
}

mest_status mest_watch_save(const mest_watch *w, mest_state_io write, void *stream, mest_error *err)
{
    int64_t n = w->n;
    mest_status status = write(stream, &n, sizeof n);
    for (int i = 0; i < w->n && status == MEST_OK; i++) {
        status = save_list(&w->params[i].start, write, stream);
        if (status == MEST_OK)
            status = save_list(&w->params[i].grown, write, stream);
    }
    return status == MEST_OK ? MEST_OK : mest_fail(err, status, "watch: its state cannot be written");
}

static mest_status load_list(mest_watch *w, mest_unit_list *list, int64_t limit, mest_state_io read, void *stream, mest_error *err)
{
    int64_t head[2];
    MEST_TRY(read(stream, head, sizeof head));
    MEST_CHECK(head[0] >= 0 && head[1] >= 0 && head[1] <= (int64_t)list->size, err, MEST_E_STATE, "watch: a pattern of %" PRId64 " units does not fit", head[0]);
    uint8_t *bytes = mest_alloc(w->heap, (size_t)head[1] + 1, 1);
    MEST_CHECK(bytes, err, MEST_E_NOMEM, "watch: out of memory");
    mest_status status = read(stream, bytes, (size_t)head[1]);
    if (status == MEST_OK)
        status = mest_unit_list_load(list, bytes, (size_t)head[1], head[0], limit, err);
    mest_free(w->heap, bytes, (size_t)head[1] + 1, 1);
    return status;
}

mest_status mest_watch_load(mest_watch *w, mest_state_io read, void *stream, mest_error *err)
{
    int64_t n;
    MEST_TRY(read(stream, &n, sizeof n));
    MEST_CHECK(n == w->n, err, MEST_E_STATE, "watch: written for %" PRId64 " sparse parameters, there are %d", n, w->n);
    for (int i = 0; i < w->n; i++) {
        mest_watch_param *p = &w->params[i];
        p->distance_known = false;
        MEST_TRY(load_list(w, &p->start, mest_sparse_ids(p->sparse), read, stream, err));
        MEST_TRY(load_list(w, &p->grown, mest_sparse_ids(p->sparse), read, stream, err));
    }
    return MEST_OK;
}
