/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/memory/toy.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/place.h"

uint32_t toy_below(toy *t, uint32_t n)
{
    t->state ^= t->state << 13, t->state ^= t->state >> 7, t->state ^= t->state << 17;
    return (uint32_t)(t->state >> 20) % n;
}

static int32_t value(toy *t, int32_t producer, size_t bytes)
{
    const int32_t v = t->lives.n_values++;
    t->lives.values[v] = (mest_lives_value){.bytes = bytes, .producer = producer, .planned = producer >= 0};
    return v;
}

static mest_lives_op *operation(toy *t, int n_in, int n_out, bool forward)
{
    const int32_t i = t->lives.n_ops++;
    mest_lives_op *op = &t->lives.ops[i];
    *op = (mest_lives_op){.form = {.in = t->in[i], .n_in = n_in, .seconds = 1 + toy_below(t, 9)}, .out = t->out[i], .n_out = n_out, .forward = forward};
    if (toy_below(t, 6) == 0)
        op->form.scratch = 64 * (1 + toy_below(t, 4));
    return op;
}

void toy_make(toy *t, uint64_t seed, int n)
{
    mest_error err = {0};
    memset(t, 0, sizeof *t);
    t->state = seed * 0x9e3779b97f4a7c15u + 1;
    if (mest_heap_init(&t->heap, NULL, NULL, &err) || mest_lives_create(&t->lives, &t->heap, TOY_OPS, TOY_VALUES, &err))
        exit(2);
    t->lives.n_ops = t->lives.n_values = 0;
    int32_t main_value[TOY_OPS], gradient = -1;
    main_value[0] = value(t, -1, 0); /* the input */
    for (int i = 1; i <= n; i++) {
        const bool two = i > 2 && toy_below(t, 4) == 0, side = toy_below(t, 5) == 0;
        const int32_t at = t->lives.n_ops;
        mest_lives_op *op = operation(t, two ? 2 : 1, side ? 2 : 1, true);
        t->in[at][0] = main_value[i - 1];
        if (two)
            t->in[at][1] = main_value[toy_below(t, (uint32_t)i - 1)];
        const size_t before = t->lives.values[main_value[i - 1]].bytes;
        op->form.view = before && toy_below(t, 7) == 0;
        if (!op->form.view && before && toy_below(t, 2))
            op->form.over = 1;
        if (op->form.view)
            op->form.seconds = 0;
        t->out[at][0] = main_value[i] = value(t, at, op->form.view || op->form.over ? before : 64 * (1 + toy_below(t, 20)));
        if (side)
            t->out[at][1] = value(t, at, 64);
        op->again = op->form;
        if (side && !op->form.view && toy_below(t, 2)) { /* cheaper from what it noted the first time, as batch normalization is */
            t->again[at][0] = t->in[at][0];
            t->again[at][1] = t->out[at][1];
            op->again = (mest_lives_form){.in = t->again[at], .n_in = 2, .over = op->form.over, .seconds = 0.5};
            t->lives.values[t->out[at][0]].again = true;
        } else if (op->form.view || toy_below(t, 8)) {
            for (int k = 0; k < op->n_out; k++)
                t->lives.values[t->out[at][k]].again = true;
        }
    }
    for (int i = n; i >= 1; i--) { /* the gradient of value i - 1 from that of value i and from what operation i read or wrote */
        const int32_t at = t->lives.n_ops, forward = i - 1;
        int k = 0;
        mest_lives_op *op = operation(t, 1, 1, false);
        if (gradient >= 0) {
            t->in[at][k++] = gradient;
            op->form.over = toy_below(t, 2);
        }
        if (toy_below(t, 2))
            t->in[at][k++] = main_value[i];
        if (toy_below(t, 3) || k == 0)
            t->in[at][k++] = main_value[i - 1];
        if (t->lives.ops[forward].n_out > 1)
            t->in[at][k++] = t->out[forward][1];
        op->form.n_in = k;
        const size_t bytes = t->lives.values[main_value[i - 1]].bytes;
        t->out[at][0] = gradient = value(t, at, bytes ? bytes : 64);
    }
    t->lives.values[gradient].kept = true;
}

void toy_free(toy *t)
{
    t->lives.n_ops = TOY_OPS;
    t->lives.n_values = TOY_VALUES;
    mest_lives_free(&t->lives);
}

enum { CELLS = 1 << 16 };

bool toy_plays(toy *t, const mest_lives_run *r, const uint8_t *dropped)
{
    const mest_lives *l = &t->lives;
    const int32_t n_values = l->n_values, n_ids = 2 * n_values;
    mest_span spans[4 * TOY_VALUES];
    size_t offset[2 * TOY_VALUES], end = 0;
    int32_t tag[2 * TOY_VALUES], n = 0; /* what a reader of the value must find in its cells; a view is what it looks at */
    static int32_t cell[CELLS];
    mest_error err = {0};
    for (int32_t id = 0; id < n_ids; id++) {
        tag[id] = -1;
        if (l->values[id % n_values].planned && r->first[id] <= r->last[id] && r->root[id] == id)
            spans[n++] = (mest_span){.id = id, .first = r->first[id], .last = r->last[id], .bytes = l->values[id % n_values].bytes};
    }
    for (int32_t s = 0; s < r->n_steps; s++)
        if (mest_lives_form_of(r, s)->scratch)
            spans[n++] = (mest_span){.id = n_ids + s, .first = s, .last = s, .bytes = mest_lives_form_of(r, s)->scratch};
    if (mest_place(&t->heap, spans, n, r->peak, &end, &err) != MEST_OK || end < r->peak || end / 64 > CELLS)
        return false;
    size_t scratch_at[2 * TOY_OPS] = {0};
    for (int32_t i = 0; i < n; i++) {
        if (spans[i].id < n_ids)
            offset[spans[i].id] = spans[i].offset;
        else
            scratch_at[spans[i].id - n_ids] = spans[i].offset;
    }
    memset(cell, 0xff, sizeof cell);
    for (int32_t s = 0; s < r->n_steps; s++) {
        const mest_lives_op *op = &l->ops[r->op[s]];
        const mest_lives_form *form = mest_lives_form_of(r, s);
        const bool again = r->again[s];
        for (size_t b = 0; b < form->scratch / 64; b++)
            cell[scratch_at[s] / 64 + b] = -2;
        for (int32_t k = 0; k < form->n_in; k++) {
            const int32_t id = mest_lives_seen(r, dropped, form->in[k], s);
            if (!l->values[form->in[k]].planned)
                continue;
            for (size_t b = 0; b < l->values[form->in[k]].bytes / 64; b++)
                if (tag[id] < 0 || cell[offset[mest_lives_root(r, id)] / 64 + b] != tag[id])
                    return false;
        }
        for (int32_t k = 0; k < op->n_out; k++) {
            const int32_t id = again ? op->out[k] + n_values : op->out[k];
            if (r->first[id] != s)
                continue;
            tag[id] = id;
            if (again && !l->values[op->out[k]].again && dropped && dropped[op->out[k]])
                return false;
            if (form->view && k == 0 && mest_lives_root(r, id) != id) {
                tag[id] = tag[mest_lives_seen(r, dropped, form->in[0], s)];
                continue;
            }
            for (size_t b = 0; b < l->values[op->out[k]].bytes / 64; b++)
                cell[offset[mest_lives_root(r, id)] / 64 + b] = id;
        }
    }
    for (int32_t v = 0; v < n_values; v++) /* what is kept is there at the end */
        for (size_t b = 0; l->values[v].kept && b < l->values[v].bytes / 64; b++)
            if (cell[offset[mest_lives_root(r, v)] / 64 + b] != tag[v])
                return false;
    return true;
}
