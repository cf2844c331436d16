/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/pixel/twin.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cpu.h"
#include "runtime/kernel.h"

enum { GUARD = 32 }; /* reals before and after each buffer */

typedef struct buffer {
    mest_type type;
    mest_real *data; /* between guards */
    int64_t storage;
} buffer;

static const mest_real guard = (mest_real)-7777.25;
static mest_heap heap;
static mest_threads two, one = {.n = 1};

double twin_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 40) / (double)(1 << 24) * 2 - 1;
}

const mest_op *twin_op(const char *name)
{
    return mest_op_find(strncmp(name, "mest.", 5) ? "" : "mest", name, 1000);
}

static void buffer_make(buffer *b, const mest_type *type)
{
    b->type = *type;
    ck_assert(mest_type_storage(type, &b->storage));
    b->data = (mest_real *)aligned_alloc(64, ((size_t)b->storage + 2 * GUARD) * 8 / 64 * 64 + 128) + GUARD;
    for (int64_t i = -GUARD; i < b->storage + GUARD; i++)
        b->data[i] = guard;
}

static void buffer_free(buffer *b)
{
    if (b->data)
        free(b->data - GUARD);
    b->data = NULL;
}

static void buffer_check(const buffer *b, const char *what)
{
    for (int64_t i = 1; i <= GUARD; i++)
        if (b->data[-i] != guard || b->data[b->storage + i - 1] != guard)
            ck_abort_msg("%s: wrote outside its output (%d)", what, (int)i);
}

static mest_type plain_type(const twin_operand *o)
{
    mest_type t = {.dtype = o->kind == TWIN_INDEX ? MEST_I64 : MEST_F32, .shape = {.rank = o->rank}};
    for (int i = 0; i < o->rank; i++)
        t.shape.dim[i] = o->dim[i];
    return t;
}

static mest_type pixel_type(const twin_operand *o, int v, int halo)
{
    mest_type t = plain_type(o);
    if (o->kind != TWIN_VALUE && o->kind != TWIN_GRADIENT)
        return t;
    t.layout = (mest_layout){.kind = MEST_PIXEL, .v = (uint8_t)v, .slots = mest_default_slots(t.shape.rank > 1 ? t.shape.dim[1] : 1, v)};
    if (halo && t.shape.rank == 4) {
        t.layout.top = (uint8_t)halo;
        t.layout.left = 1;
        t.layout.bottom = 1;
        t.layout.right = (uint8_t)halo;
    }
    return t;
}

static mest_tensor tensor_of(const buffer *b)
{
    mest_tensor t = {.type = &b->type, .data = b->data};
    int64_t n = 0;
    if (b->data)
        mest_shape_count(&b->type.shape, &n);
    t.count = (size_t)n;
    return t;
}

static void relayout(const buffer *from, buffer *to)
{
    const mest_op *op = twin_op("mest.Relayout");
    const mest_tensor in = tensor_of(from), out = tensor_of(to);
    mest_error err = {0};
    const mest_node node = {.name = "relayout", .op = op};
    ck_assert_int_eq(op->forward(&(mest_args){.node = &node, .n_in = 1, .n_out = 1, .in = &in, .out = &out, .threads = &one, .err = &err}), 0);
}

/* What a kernel may find in a PIXEL value besides its elements: idle lanes finite, spare slots anything, halo zero. */
static void litter(buffer *b, bool gradient)
{
    if (b->type.layout.kind != MEST_PIXEL)
        return;
    const mest_pixels g = mest_pixel_geometry(&b->type);
    for (int64_t block = 0; block < g.blocks; block++)
        for (int64_t y = 0; y < g.h; y++)
            for (int64_t x = 0; x < g.w; x++)
                for (int64_t c = 0; c < g.slots; c++)
                    for (int64_t l = 0; l < g.v; l++) {
                        mest_real *at = b->data + g.origin + block * g.block + y * g.row + x * g.pixel + c * g.v + l;
                        if (c >= g.c)
                            *at = (mest_real)NAN;
                        else if (block * g.v + l >= g.n)
                            *at = gradient ? 0 : (mest_real)3.25;
                    }
    mest_pixel_clear_halo(&b->type, b->data);
}

static void check_idle(const buffer *b, const char *what)
{
    const mest_pixels g = mest_pixel_geometry(&b->type);
    for (int64_t y = 0; y < g.h; y++)
        for (int64_t x = 0; x < g.w; x++)
            for (int64_t c = 0; c < g.c; c++)
                for (int64_t l = 0; l < g.v; l++) {
                    const mest_real at = b->data[g.origin + (g.blocks - 1) * g.block + y * g.row + x * g.pixel + c * g.v + l];
                    if ((g.blocks - 1) * g.v + l >= g.n && at != 0)
                        ck_abort_msg("%s: idle lane %d of a gradient holds %g", what, (int)l, (double)at);
                }
}

static void compare(const buffer *got, const buffer *want, double tolerance, const char *what)
{
    for (int64_t i = 0; i < want->storage; i++) {
        const double a = (double)got->data[i], b = (double)want->data[i];
        if (!(fabs(a - b) <= tolerance * (1 + fabs(b))) && !(a == b))
            ck_abort_msg("%s: element %lld is %.9g, reference %.9g", what, (long long)i, a, b);
    }
}

typedef struct setting {
    const twin_case *c;
    const mest_op *op;
    mest_node node;
    int n_in, n_out;
    mest_id ids[TWIN_IN];
    buffer in[TWIN_IN], want[TWIN_OUT], after[TWIN_IN]; /* plain; after: inputs as the reference left them */
} setting;

static void fill(buffer *b, const twin_operand *o, uint64_t *random)
{
    for (int64_t i = 0; i < b->storage; i++) {
        const double r = twin_random(random);
        b->data[i] = (mest_real)(o->positive ? 1 + r / 2 : o->ties ? floor(r * 3) / 2 : o->reach > 0 ? r * o->reach : r);
    }
}

/* Runs a plain reference. */
static void reference(const setting *s, const mest_op *op, int n_in, buffer *in, int n_out, buffer *out)
{
    mest_tensor tin[TWIN_IN], tout[TWIN_OUT];
    mest_error err = {0};
    for (int i = 0; i < n_in; i++)
        tin[i] = tensor_of(&in[i]);
    for (int i = 0; i < n_out; i++)
        tout[i] = tensor_of(&out[i]);
    mest_node node = s->node;
    node.op = op;
    const mest_run run = {.seed = 5, .step = 7};
    ck_assert_msg(op->forward(&(mest_args){.node = &node, .params = s->c->params, .n_in = n_in, .n_out = n_out, .in = tin, .out = tout,
                                           .threads = &one, .run = &run, .err = &err}) == MEST_OK, "%s: %s", op->name, err.msg);
}

static void start(setting *s, const twin_case *c)
{
    uint64_t random = 12345;
    *s = (setting){.c = c, .op = twin_op(c->op)};
    ck_assert_msg(s->op && s->op->forward, "%s has no reference", c->op);
    for (int i = 0; i < TWIN_IN; i++)
        if (c->in[i].kind)
            s->n_in = i + 1;
    for (int i = 0; i < TWIN_OUT; i++)
        if (c->out[i].kind)
            s->n_out = i + 1;
    s->node = (mest_node){.name = "case", .op = s->op, .params = c->params, .in = s->ids, .out = s->ids, .n_in = s->n_in, .n_out = s->n_out};
    for (int i = 0; i < s->n_in; i++)
        if (c->in[i].kind) {
            const mest_type t = plain_type(&c->in[i]);
            buffer_make(&s->in[i], &t);
            fill(&s->in[i], &c->in[i], &random);
            if (c->in[i].copy_of)
                reference(s, twin_op(c->source), 1, s->in, 1, &s->in[i]);
            buffer_make(&s->after[i], &t);
            memcpy(s->after[i].data, s->in[i].data, (size_t)s->in[i].storage * sizeof(mest_real));
        }
    for (int i = 0; i < s->n_out; i++)
        if (c->out[i].kind) {
            const mest_type t = plain_type(&c->out[i]);
            buffer_make(&s->want[i], &t);
        }
    reference(s, s->op, s->n_in, s->after, s->n_out, s->want);
}

static struct { const char *name; int runs; } counts[256];

int twin_runs(const char *name)
{
    for (int i = 0; i < 256 && counts[i].name; i++)
        if (!strcmp(counts[i].name, name))
            return counts[i].runs;
    return 0;
}

static void count(const char *name)
{
    for (int i = 0; i < 256; i++)
        if (!counts[i].name || !strcmp(counts[i].name, name)) {
            counts[i].name = name;
            counts[i].runs++;
            return;
        }
}

/* One kernel with one layout. Returns whether it fits. */
static bool run_kernel(setting *s, const mest_kernel *k, int v, int halo)
{
    const twin_case *c = s->c;
    mest_type tin[TWIN_IN], tout[TWIN_OUT];
    const mest_type *qin[TWIN_IN] = {0}, *qout[TWIN_OUT] = {0};
    const mest_sparse *sparse[TWIN_IN] = {0};
    const void *constant[TWIN_IN] = {0};
    bool fixed[TWIN_IN] = {0};
    for (int i = 0; i < s->n_in; i++)
        if (c->in[i].kind) {
            tin[i] = v ? pixel_type(&c->in[i], v, halo) : plain_type(&c->in[i]);
            qin[i] = &tin[i];
        }
    for (int i = 0; i < s->n_out; i++)
        if (c->out[i].kind) {
            tout[i] = v ? pixel_type(&c->out[i], v, (halo + i) % 3) : plain_type(&c->out[i]);
            qout[i] = &tout[i];
        }
    mest_kernel_query q = {.node = &s->node, .params = c->params, .n_in = s->n_in, .n_out = s->n_out, .in = qin, .out = qout, .sparse = sparse,
                           .in_data = constant, .in_fixed = fixed, .cpu = mest_cpu_features(), .use_xnnpack = true, .heap = &heap};
    const char *why = NULL;
    q.threads = &one;
    if ((k->cpu & q.cpu) != k->cpu || (k->fits && !k->fits(&q, &why)))
        return false;
    for (int i = 0; i < s->n_in && k->halo; i++) {
        uint8_t pad[4] = {0};
        k->halo(&q, i, pad);
        const mest_layout *l = qin[i] ? &qin[i]->layout : NULL;
        if (l && l->kind == MEST_PIXEL && (l->top < pad[0] || l->left < pad[1] || l->bottom < pad[2] || l->right < pad[3]))
            return false;
    }
    char what[160];
    count(k->name);
    snprintf(what, sizeof what, "%s, %d lanes, halo %d", k->name, v, halo);
    ck_assert_msg(!k->cost || (k->cost(&q) > 0 && isfinite(k->cost(&q))), "%s: cost", what);
    buffer first[TWIN_OUT] = {0};
    for (int turn = 0; turn < 3; turn++) { /* 1 thread; 2 threads; weights said to rest; XNNPACK's notice if they do not */
        buffer in[TWIN_IN] = {0}, out[TWIN_OUT] = {0}, back = {0};
        mest_tensor ain[TWIN_IN] = {0}, aout[TWIN_OUT] = {0};
        q.threads = turn ? &two : &one;
        for (int i = 0; i < s->n_in; i++)
            fixed[i] = turn == 2 && c->in[i].kind == TWIN_PLAIN;
        for (int i = 0; i < s->n_in; i++)
            if (c->in[i].kind) {
                buffer_make(&in[i], &tin[i]);
                if (tin[i].layout.kind == MEST_PLAIN) {
                    memcpy(in[i].data, s->in[i].data, (size_t)in[i].storage * sizeof(mest_real));
                } else {
                    relayout(&s->in[i], &in[i]);
                    litter(&in[i], c->in[i].kind == TWIN_GRADIENT);
                }
                ain[i] = tensor_of(&in[i]);
            }
        for (int i = 0; i < s->n_out; i++)
            if (c->out[i].kind) {
                buffer_make(&out[i], &tout[i]);
                aout[i] = tensor_of(&out[i]);
            }
        void *state = NULL;
        size_t bytes = 0;
        mest_error err = {0};
        if (k->prepare)
            ck_assert_msg(k->prepare(&q, &state, &bytes, &err) == MEST_OK, "%s: %s", what, err.msg);
        char *scratch = aligned_alloc(64, bytes / 64 * 64 + 128);
        memset(scratch, 0xff, bytes);
        memset(scratch + bytes, 0x5a, 64);
        const mest_run run = {.seed = 5, .step = 7};
        const mest_args args = {.node = &s->node, .params = c->params, .n_in = s->n_in, .n_out = s->n_out, .in = ain, .out = aout, .state = state,
                                .scratch = scratch, .threads = q.threads, .run = &run, .err = &err};
        if (turn == 2 && strstr(k->name, "_xnn") && s->n_in > 1 && ain[1].data && fixed[1] && !c->updates) {
            memset(in[1].data, 0, (size_t)in[1].storage * sizeof(mest_real));
            ck_assert_msg(k->run(&args) == MEST_OK, "%s: %s", what, err.msg);
            memcpy(in[1].data, s->in[1].data, (size_t)in[1].storage * sizeof(mest_real));
        }
        for (int repeat = 0; repeat < (c->updates ? 1 : 2); repeat++) /* again: kept state must not spoil the second run */
            ck_assert_msg(k->run(&args) == MEST_OK, "%s: %s", what, err.msg);
        for (int i = 0; i < 64; i++)
            ck_assert_msg(scratch[bytes + (size_t)i] == 0x5a, "%s: wrote past its scratch", what);
        free(scratch);
        if (k->release)
            k->release(state, &heap);
        for (int i = 0; i < s->n_in; i++)
            if (c->updates >> i & 1)
                compare(&in[i], &s->after[i], c->tolerance, what);
        for (int i = 0; i < s->n_out; i++) {
            if (!c->out[i].kind)
                continue;
            buffer_check(&out[i], what);
            const mest_type t = plain_type(&c->out[i]);
            buffer_make(&back, &t);
            if (out[i].type.layout.kind == MEST_PLAIN)
                memcpy(back.data, out[i].data, (size_t)back.storage * sizeof(mest_real));
            else
                relayout(&out[i], &back);
            compare(&back, &s->want[i], c->tolerance, what);
            if (out[i].type.layout.kind == MEST_PIXEL && c->out[i].kind == TWIN_GRADIENT)
                check_idle(&out[i], what);
            if (turn == 0) {
                first[i] = back;
                back.data = NULL;
            } else if (turn == 2) {
                buffer_free(&back);
            } else {
                ck_assert_msg(!memcmp(first[i].data, back.data, (size_t)back.storage * sizeof(mest_real)), "%s: 2 threads differ from 1", what);
                buffer_free(&back);
            }
            buffer_free(&out[i]);
        }
        for (int i = 0; i < s->n_in; i++)
            buffer_free(&in[i]);
    }
    for (int i = 0; i < s->n_out; i++)
        buffer_free(&first[i]);
    return true;
}

int twin_check(const twin_case *c)
{
    static const int layouts[][2] = {{0, 0}, {1, 0}, {1, 1}, {4, 0}, {4, 2}, {8, 1}, {16, 0}, {16, 1}};
    static bool ready;
    if (!ready) {
        mest_error err = {0};
        ck_assert_int_eq(mest_heap_init(&heap, NULL, NULL, &err), 0);
        ck_assert_int_eq(mest_threads_create(&two, 2, &err), 0);
        ready = true;
    }
    setting s;
    int n = 0;
    start(&s, c);
    const mest_kernel *k;
    for (int i = 0; (k = mest_kernel_at(i)) != NULL; i++) {
        if (strcmp(k->op, c->op))
            continue;
        for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++)
            n += run_kernel(&s, k, layouts[l][0], layouts[l][1]) ? 1 : 0;
    }
    for (int i = 0; i < TWIN_IN; i++) {
        buffer_free(&s.in[i]);
        buffer_free(&s.after[i]);
    }
    for (int i = 0; i < TWIN_OUT; i++)
        buffer_free(&s.want[i]);
    ck_assert_int_eq(heap.current_bytes, 0);
    return n;
}
