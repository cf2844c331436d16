/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/op.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MEST_OPS(file) extern const mest_op mest_ops_##file[];
#include "ops/ops.def"
#undef MEST_OPS

static const mest_op *const tables[] = {
#define MEST_OPS(file) mest_ops_##file,
#include "ops/ops.def"
#undef MEST_OPS
    NULL};

const mest_op *mest_op_at(int index)
{
    for (int t = 0; tables[t]; t++)
        for (const mest_op *op = tables[t]; op->name; op++)
            if (index-- == 0)
                return op;
    return NULL;
}

const mest_op *(*mest_op_replace)(const mest_op *op);

const mest_op *mest_op_find(const char *domain, const char *name, int64_t opset)
{
    if (!domain || !strcmp(domain, "ai.onnx"))
        domain = "";
    bool helper = !strcmp(domain, "mest");
    const mest_op *best = NULL;
    for (int t = 0; tables[t]; t++)
        for (const mest_op *op = tables[t]; op->name; op++) {
            if (strcmp(op->name, name) || strcmp(op->domain ? op->domain : "", domain))
                continue;
            if ((helper || op->since <= opset) && (!best || op->since > best->since))
                best = op;
        }
    return best && mest_op_replace ? mest_op_replace(best) : best;
}

uint32_t mest_op_over(const mest_op *op)
{
    if (!(op->flags & MEST_OP_INPLACE))
        return 0;
    return !(op->flags & MEST_OP_ELEMENTWISE) ? 1 : op->in_max < 0 ? 3 : ~0u;
}

static mest_status fail_at(const mest_node *node, mest_error *err, mest_status code, const char *format, va_list ap)
{
    char text[400];
    vsnprintf(text, sizeof text, format, ap);
    return mest_fail(err, code, "%s '%s': %s", node->op->name, node->name, text);
}

mest_status mest_infer_fail(const mest_infer *c, mest_status code, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    mest_status s = fail_at(c->node, c->err, code, format, ap);
    va_end(ap);
    return s;
}

mest_status mest_run_fail(const mest_args *a, mest_status code, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    mest_status s = fail_at(a->node, a->err, code, format, ap);
    va_end(ap);
    return s;
}

mest_status mest_infer_same(mest_infer *c)
{
    for (int i = 0; i < c->n_out; i++)
        c->out[i] = *c->in[0];
    return MEST_OK;
}

mest_status mest_infer_broadcast(mest_infer *c)
{
    mest_shape s = c->in[0]->shape;
    for (int i = 1; i < c->n_in; i++) {
        char a[128], b[128];
        if (!c->in[i])
            continue;
        MEST_INFER_CHECK(c, mest_shape_broadcast(&s, &c->in[i]->shape, &s), "shapes %s and %s do not broadcast",
                         mest_shape_text(&s, a, sizeof a), mest_shape_text(&c->in[i]->shape, b, sizeof b));
    }
    c->out[0].dtype = c->in[0]->dtype;
    c->out[0].shape = s;
    return MEST_OK;
}

/* ---- row walks ---- */
typedef struct row_walk {
    void (*fn)(void *context, int64_t offset, int64_t n);
    void *context;
    bool pixel;
    int64_t count;
    mest_pixels g;
} row_walk;

enum { ROW_CHUNK = 8192 }; /* elements a tile: 32 KB, small enough to share, large enough to pay for the call */

static void row_tile(void *context, size_t tile)
{
    const row_walk *w = context;
    if (!w->pixel) {
        int64_t from = (int64_t)tile * ROW_CHUNK, n = w->count - from;
        w->fn(w->context, from, n < ROW_CHUNK ? n : ROW_CHUNK);
        return;
    }
    int64_t block = (int64_t)tile / w->g.h, y = (int64_t)tile % w->g.h;
    w->fn(w->context, w->g.origin + block * w->g.block + y * w->g.row, w->g.w * w->g.pixel);
}

void mest_for_rows(const mest_threads *threads, const mest_type *type, void (*fn)(void *context, int64_t offset, int64_t n), void *context)
{
    row_walk w = {.fn = fn, .context = context, .pixel = type->layout.kind == MEST_PIXEL};
    size_t tiles;
    if (w.pixel) {
        w.g = mest_pixel_geometry(type);
        /* without halo the rows of a block (and the blocks) are one run */
        if (w.g.storage == w.g.blocks * w.g.h * w.g.w * w.g.pixel) {
            w.pixel = false;
            w.count = w.g.storage;
        }
    } else if (!mest_shape_count(&type->shape, &w.count)) {
        return;
    }
    if (w.pixel)
        tiles = (size_t)(w.g.blocks * w.g.h);
    else
        tiles = (size_t)((w.count + ROW_CHUNK - 1) / ROW_CHUNK);
    mest_parallel(threads, tiles, row_tile, &w);
}
