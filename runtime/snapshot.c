/* SPDX-License-Identifier: Apache-2.0 */
/* One version of the weights: made from the model's present ones, read, written to a file, put back, freed. */
#include "runtime/snapshot.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "runtime/session.h"
#include "runtime/sparsify.h"

/* ---- blocks ---- */
enum { BLOCK_HEAD = MEST_ALIGN };
_Static_assert(sizeof(mest_block) <= BLOCK_HEAD, "the array follows at an aligned address");

static void *array_of(mest_block *b) { return (char *)b + BLOCK_HEAD; }

static mest_block *block_new(mest_snapshot *s, size_t bytes)
{
    mest_block *b = mest_alloc(&s->model->heap, BLOCK_HEAD + bytes, 1);
    if (!b)
        return NULL;
    atomic_init(&b->refs, 1);
    b->bytes = bytes;
    b->serial = ++s->registry->serial;
    atomic_fetch_add(&s->registry->bytes, (int64_t)bytes);
    s->info.copied_bytes += (int64_t)bytes;
    return b;
}

static mest_block *block_share(mest_block *b)
{
    atomic_fetch_add(&b->refs, 1);
    return b;
}

static void block_release(mest_snapshot *s, mest_block *b)
{
    if (!b || atomic_fetch_sub(&b->refs, 1) != 1)
        return;
    atomic_fetch_sub(&s->registry->bytes, (int64_t)b->bytes);
    mest_free(&s->model->heap, b, BLOCK_HEAD + b->bytes, 1);
}

/* ---- life ---- */
static void destroy(mest_snapshot *s)
{
    mest_heap *heap = &s->model->heap;
    mest_registry *r = s->registry;
    size_t n = (size_t)s->n_params + 1;
    for (int32_t i = 0; s->blocks && i < s->n_params; i++) {
        block_release(s, s->blocks[i].values);
        block_release(s, s->blocks[i].index);
    }
    mest_free(heap, s->params, n, sizeof *s->params);
    mest_free(heap, s->sparse, n, sizeof *s->sparse);
    mest_free(heap, s->blocks, n, sizeof *s->blocks);
    bool borrowed = s->borrowed;
    unsigned slot = s->slot;
    mest_free(heap, s, 1, sizeof *s);
    if (slot)
        atomic_store(&r->slot[slot], NULL); /* from here on it may be used again */
    if (borrowed)
        atomic_fetch_sub(&r->n_borrowed, 1);
    atomic_fetch_sub(&r->n_alive, 1); /* last: the model may go when it is 0 */
}

void mest_snapshot_retain(mest_snapshot *s) { atomic_fetch_add(&s->refs, 1); }

void mest_snapshot_release(mest_snapshot *s)
{
    if (s && atomic_fetch_sub(&s->refs, 1) == 1)
        destroy(s);
}

/* ---- capture ---- */
static mest_status capture_dense(mest_snapshot *s, int32_t i, const mest_snapshot_param *before, mest_error *err)
{
    const mest_param *from = &s->model->params[i];
    mest_snapshot_param *to = &s->blocks[i];
    /* running statistics are written in place, without a count */
    if (before && before->values && from->role == MEST_ROLE_TRAINABLE && before->from_value_version == from->value_version) {
        to->values = block_share(before->values);
    } else {
        size_t bytes = ((size_t)from->count + 16) * sizeof *from->values; /* the slack of mest_param_load comes along */
        to->values = block_new(s, bytes);
        MEST_CHECK(to->values, err, MEST_E_NOMEM, "version: no memory for %zu bytes of '%s'", bytes, from->name);
        memcpy(array_of(to->values), from->values, bytes);
    }
    s->params[i].values = array_of(to->values);
    s->params[i].value_version = to->values->serial;
    return MEST_OK;
}

static mest_status capture_sparse(mest_snapshot *s, int32_t i, const mest_snapshot_param *before, mest_error *err)
{
    const mest_sparse *from = s->model->params[i].sparse;
    mest_snapshot_param *to = &s->blocks[i];
    mest_sparse *copy = &s->sparse[i];
    bool same_pattern = before && before->index && before->from_version == from->version;
    *copy = *from;
    copy->cap_units = from->active_units;
    if (same_pattern) {
        to->index = block_share(before->index);
    } else {
        size_t bytes = from->format->index_bytes(from, from->active_units);
        to->index = block_new(s, bytes);
        MEST_CHECK(to->index, err, MEST_E_NOMEM, "version: no memory for %zu bytes of the pattern of '%s'", bytes, s->params[i].name);
        copy->index = array_of(to->index);
        copy->index_size = bytes;
        mest_sparse_copy_pattern(copy, from);
    }
    copy->index = array_of(to->index);
    copy->index_size = to->index->bytes;
    copy->version = to->index->serial;
    if (same_pattern && before->from_value_version == from->value_version) {
        to->values = block_share(before->values);
    } else {
        size_t bytes = (size_t)from->stored * sizeof *from->values;
        to->values = block_new(s, bytes);
        MEST_CHECK(to->values, err, MEST_E_NOMEM, "version: no memory for %zu bytes of '%s'", bytes, s->params[i].name);
        memcpy(array_of(to->values), from->values, bytes);
    }
    copy->values = array_of(to->values);
    copy->value_version = to->values->serial;
    s->params[i].sparse = copy;
    to->from_version = from->version;
    to->cap_units = from->cap_units;
    return MEST_OK;
}

static mest_status capture_param(mest_snapshot *s, int32_t i, const mest_snapshot *newest, mest_error *err)
{
    const mest_param *p = &s->model->params[i];
    const mest_snapshot_param *before = newest ? &newest->blocks[i] : NULL;
    mest_snapshot_param *to = &s->blocks[i];
    if (p->sparse)
        to->cap_units = p->sparse->cap_units;
    if (s->borrowed || (p->role != MEST_ROLE_TRAINABLE && p->role != MEST_ROLE_STATISTIC))
        return MEST_OK;
    MEST_TRY(p->sparse ? capture_sparse(s, i, before, err) : capture_dense(s, i, before, err));
    to->from_value_version = p->sparse ? p->sparse->value_version : p->value_version;
    s->info.bytes += (int64_t)(to->values->bytes + (to->index ? to->index->bytes : 0));
    return MEST_OK;
}

static mest_status check_finite(const mest_model *m, mest_error *err)
{
    for (int32_t i = 0; i < m->n_params; i++) {
        const mest_param *p = &m->params[i];
        const mest_real *values = mest_param_data(p);
        if (p->role != MEST_ROLE_TRAINABLE && p->role != MEST_ROLE_STATISTIC)
            continue;
        for (int64_t k = 0, n = mest_param_stored(p); k < n; k++)
            MEST_CHECK(isfinite((double)values[k]), err, MEST_E_NUMERIC, "version: '%s' holds a number that is not finite", p->name);
    }
    return MEST_OK;
}

mest_status mest_snapshot_capture(mest_snapshot **snapshot, mest_model *m, bool borrow, mest_error *err)
{
    *snapshot = NULL;
    MEST_TRY(mest_model_materialise(m, err));
    MEST_TRY(check_finite(m, err));
    mest_snapshot *s = mest_calloc(&m->heap, 1, sizeof *s);
    MEST_CHECK(s, err, MEST_E_NOMEM, "version: out of memory");
    size_t n = (size_t)m->n_params + 1;
    s->model = m;
    s->registry = m->registry;
    s->n_params = m->n_params;
    s->borrowed = borrow;
    atomic_init(&s->refs, 1);
    atomic_fetch_add(&m->registry->n_alive, 1);
    if (borrow)
        atomic_fetch_add(&m->registry->n_borrowed, 1);
    s->params = mest_calloc(&m->heap, n, sizeof *s->params);
    s->sparse = mest_calloc(&m->heap, n, sizeof *s->sparse);
    s->blocks = mest_calloc(&m->heap, n, sizeof *s->blocks);
    mest_status status = s->params && s->sparse && s->blocks ? MEST_OK : mest_fail(err, MEST_E_NOMEM, "version: out of memory");
    if (status == MEST_OK && m->n_params)
        memcpy(s->params, m->params, (size_t)m->n_params * sizeof *s->params);
    for (int32_t i = 0; i < m->n_params && status == MEST_OK; i++)
        status = capture_param(s, i, m->registry->newest, err);
    if (status != MEST_OK)
        destroy(s);
    else
        *snapshot = s;
    return status;
}

/* ---- reading ---- */
void mest_snapshot_view(const mest_snapshot *s, mest_model *view)
{
    const mest_model *m = s->model;
    memset(view, 0, sizeof *view);
    mest_heap_init_child(&view->heap, (mest_heap *)(uintptr_t)&m->heap);
    view->graph = m->graph;
    view->graph.region.heap = &view->heap; /* copies of the graph are paid by whoever made the view */
    view->mappings = m->mappings;
    view->params = s->params;
    view->n_params = s->n_params;
    view->ir_version = m->ir_version;
    view->opset = m->opset;
    view->producer = m->producer;
    view->graph_name = m->graph_name;
    view->metadata = m->metadata;
    view->n_metadata = m->n_metadata;
    view->notes = m->notes;
}

mest_status mest_snapshot_read_parameter(const mest_snapshot *snapshot, int index, float *out, size_t count, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(snapshot && out, err, MEST_E_ARGUMENT, "version: snapshot and memory must be given");
    mest_model view;
    mest_snapshot_view(snapshot, &view);
    return mest_model_read_parameter(&view, index, out, count, err);
}

mest_status mest_snapshot_export(const mest_snapshot *snapshot, const char *path, const mest_export_options *options, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(snapshot, err, MEST_E_ARGUMENT, "export: no version");
    mest_model view;
    mest_snapshot_view(snapshot, &view);
    return mest_model_export(&view, path, options, err);
}

mest_status mest_snapshot_export_memory(const mest_snapshot *snapshot, void *out, size_t room, size_t *size, const mest_export_options *options,
                                        mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(snapshot, err, MEST_E_ARGUMENT, "export: no version");
    mest_model view;
    mest_snapshot_view(snapshot, &view);
    return mest_model_export_memory(&view, out, room, size, options, err);
}

/* ---- putting back ---- */
mest_status mest_session_restore(mest_session *session, const mest_snapshot *snapshot, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(session && snapshot, err, MEST_E_ARGUMENT, "restore: session and version must be given");
    mest_model *m = session->model;
    MEST_CHECK(snapshot->model == m, err, MEST_E_STATE, "restore: version %" PRId64 " is of another model", snapshot->info.id);
    MEST_TRY(mest_session_prepare(session, err));
    for (int32_t i = 0; i < m->n_params; i++) {
        const mest_sparse *from = snapshot->params[i].sparse, *to = m->params[i].sparse;
        MEST_CHECK(!from || from->active_units <= to->cap_units, err, MEST_E_LIMIT,
                   "restore: '%s' has %" PRId64 " entries in version %" PRId64 ", this session has room for %" PRId64, m->params[i].name,
                   from->active_units, snapshot->info.id, to->cap_units);
    }
    for (int32_t i = 0; i < m->n_params; i++) {
        const mest_snapshot_param *b = &snapshot->blocks[i];
        mest_param *p = &m->params[i];
        if (!b->values)
            continue;
        if (p->sparse) {
            if (b->from_version != p->sparse->version)
                mest_sparse_copy_pattern(p->sparse, snapshot->params[i].sparse);
            memcpy(p->sparse->values, snapshot->params[i].sparse->values, (size_t)p->sparse->stored * sizeof *p->sparse->values);
            p->sparse->value_version++;
        } else {
            memcpy(p->values, snapshot->params[i].values, (size_t)p->count * sizeof *p->values);
            p->value_version++;
        }
    }
    mest_optimizer_clear(&session->optimizer, session->at.step);
    session->host.gradients_taken = false;
    mest_session_forget(session); /* a copy that follows patterns step by step cannot follow this one */
    m->registry->parent = snapshot->info.id;
    return MEST_OK;
}
