/* SPDX-License-Identifier: Apache-2.0 */
/* The cells of LSTM, GRU and RNN: one step forward or back for a few rows of the batch, a panel of hidden units at a time. */
#include "ops/rnn_parts.h"

#include <string.h>

#include "ops/elements.h"
#include "ops/gate_math.h"

enum { WIDE = MEST_RNN_WIDE };

/* ---- forward ---- */
static void lstm_step(const mest_rnn_rows *s, const mest_rnn_parts *p)
{
    _Alignas(64) mest_rnn_block part[4];
    for (int64_t j = 0; j < p->h; j += WIDE) {
        int64_t wide = p->h - j < WIDE ? p->h - j : WIDE;
        for (int g = 0; g < 4; g++)
            mest_rnn_product(p->before, p->h, s->n, mest_rnn_panel(p->panels, p->h, g, j), p->h, part[g], false);
        for (int64_t n = 0; n < s->n; n++) {
            mest_real *i = p->gates + n * p->row + j, *o = i + p->h, *f = o + p->h, *u = f + p->h;
            const mest_real *c0 = p->c_before + n * p->h + j, *pi = p->p ? p->p + j : NULL;
            mest_real *c1 = p->c_after + n * p->h + j, *h1 = p->after + n * p->h + j;
            mest_real *xi = part[0] + n * WIDE, *xo = part[1] + n * WIDE, *xf = part[2] + n * WIDE, *xu = part[3] + n * WIDE;
            for (int64_t k = 0; pi && k < wide; k++) {
                xi[k] += pi[k] * c0[k];
                xf[k] += pi[2 * p->h + k] * c0[k];
            }
            MEST_IVDEP
            for (int64_t k = 0; k < wide; k++) {
                i[k] = mest_gate_sigmoid(i[k] + xi[k]);
                f[k] = mest_gate_sigmoid(f[k] + xf[k]);
                u[k] = mest_gate_tanh(u[k] + xu[k]);
                c1[k] = f[k] * c0[k] + i[k] * u[k];
            }
            for (int64_t k = 0; pi && k < wide; k++)
                xo[k] += pi[p->h + k] * c1[k];
            MEST_IVDEP
            for (int64_t k = 0; k < wide; k++) {
                o[k] = mest_gate_sigmoid(o[k] + xo[k]);
                h1[k] = o[k] * mest_gate_tanh(c1[k]);
            }
        }
    }
}

/* z and r; then the hidden gate, which may need r of all units. */
static void gru_step(const mest_rnn_rows *s, const mest_rnn_parts *p)
{
    bool linear = s->run->g.linear_before_reset;
    _Alignas(64) mest_rnn_block part[3];
    for (int64_t j = 0; j < p->h; j += WIDE) {
        int64_t wide = p->h - j < WIDE ? p->h - j : WIDE;
        for (int g = 0; g < (linear ? 3 : 2); g++)
            mest_rnn_product(p->before, p->h, s->n, mest_rnn_panel(p->panels, p->h, g, j), p->h, part[g], false);
        for (int64_t n = 0; n < s->n; n++) {
            mest_real *z = p->gates + n * p->row + j, *r = z + p->h, *q = p->extra + n * p->h + j;
            const mest_real *h0 = p->before + n * p->h + j;
            const mest_real *xz = part[0] + n * WIDE, *xr = part[1] + n * WIDE, *xq = part[2] + n * WIDE;
            MEST_IVDEP
            for (int64_t k = 0; k < wide; k++) {
                z[k] = mest_gate_sigmoid(z[k] + xz[k]);
                r[k] = mest_gate_sigmoid(r[k] + xr[k]);
            }
            for (int64_t k = 0; k < wide; k++)
                q[k] = linear ? xq[k] + (p->rb ? p->rb[j + k] : 0) : r[k] * h0[k];
        }
    }
    for (int64_t j = 0; j < p->h; j += WIDE) {
        int64_t wide = p->h - j < WIDE ? p->h - j : WIDE;
        if (!linear)
            mest_rnn_product(p->extra, p->h, s->n, mest_rnn_panel(p->panels, p->h, 2, j), p->h, part[2], false);
        for (int64_t n = 0; n < s->n; n++) {
            const mest_real *z = p->gates + n * p->row + j, *r = z + p->h, *q = p->extra + n * p->h + j, *h0 = p->before + n * p->h + j;
            mest_real *u = p->gates + n * p->row + 2 * p->h + j, *h1 = p->after + n * p->h + j;
            mest_real *xu = part[2] + n * WIDE;
            for (int64_t k = 0; linear && k < wide; k++)
                xu[k] = r[k] * q[k];
            MEST_IVDEP
            for (int64_t k = 0; k < wide; k++) {
                u[k] = mest_gate_tanh(u[k] + xu[k]);
                h1[k] = (1 - z[k]) * u[k] + z[k] * h0[k];
            }
        }
    }
}

static void rnn_step(const mest_rnn_rows *s, const mest_rnn_parts *p)
{
    _Alignas(64) mest_rnn_block part;
    for (int64_t j = 0; j < p->h; j += WIDE) {
        int64_t wide = p->h - j < WIDE ? p->h - j : WIDE;
        mest_rnn_product(p->before, p->h, s->n, mest_rnn_panel(p->panels, p->h, 0, j), p->h, part, false);
        for (int64_t n = 0; n < s->n; n++) {
            mest_real *u = p->gates + n * p->row + j, *h1 = p->after + n * p->h + j;
            const mest_real *x = part + n * WIDE;
            if (s->run->g.relu) {
                for (int64_t k = 0; k < wide; k++)
                    h1[k] = u[k] = u[k] + x[k] > 0 ? u[k] + x[k] : 0;
                continue;
            }
            MEST_IVDEP
            for (int64_t k = 0; k < wide; k++)
                h1[k] = u[k] = mest_gate_tanh(u[k] + x[k]);
        }
    }
}

void mest_rnn_step(const mest_rnn_rows *s)
{
    const mest_rnn_run *run = s->run;
    mest_rnn_parts p = mest_rnn_parts_of(s);
    if (run->g.other)
        mest_rnn_step_other(s, &p);
    else if (run->g.kind == MEST_LSTM)
        lstm_step(s, &p);
    else if (run->g.kind == MEST_GRU)
        gru_step(s, &p);
    else
        rnn_step(s, &p);
    size_t bytes = (size_t)p.h * sizeof(mest_real);
    for (int64_t n = 0; n < s->n; n++) {
        bool over = mest_rnn_over(run, s->first + n, s->t);
        if (over) {
            memcpy(p.after + n * p.h, p.before + n * p.h, bytes);
            if (run->g.kind == MEST_LSTM)
                memcpy(p.c_after + n * p.h, p.c_before + n * p.h, bytes);
        }
        if (run->y) {
            mest_real *y = run->y + mest_rnn_y(&run->g, s->direction, s->t, s->first + n);
            if (over)
                memset(y, 0, bytes);
            else
                memcpy(y, p.after + n * p.h, bytes);
        }
    }
}

/* ---- backward ---- */
static void lstm_back(const mest_rnn_rows *s, const mest_rnn_parts *p, const mest_rnn_grads *d, int64_t n)
{
    const mest_real *i = p->gates + n * p->row, *o = i + p->h, *f = o + p->h, *u = f + p->h, *w = p->p;
    const mest_real *c0 = p->c_before + n * p->h, *c1 = p->c_after + n * p->h;
    mest_real *di = d->gates + n * p->row, *dout = di + p->h, *df = dout + p->h, *du = df + p->h, *dh = d->h + n * p->h, *dc = d->c + n * p->h;
    (void)s;
    MEST_IVDEP
    for (int64_t k = 0; k < p->h; k++) {
        mest_real t = mest_gate_tanh(c1[k]);
        dout[k] = dh[k] * t * o[k] * (1 - o[k]);
        mest_real dcell = dc[k] + dh[k] * o[k] * (1 - t * t) + (w ? w[p->h + k] * dout[k] : 0);
        di[k] = dcell * u[k] * i[k] * (1 - i[k]);
        df[k] = dcell * c0[k] * f[k] * (1 - f[k]);
        du[k] = dcell * i[k] * (1 - u[k] * u[k]);
        dc[k] = dcell * f[k] + (w ? w[k] * di[k] + w[2 * p->h + k] * df[k] : 0);
        dh[k] = 0;
    }
}

/* Up to the hidden gate; r needs the product with R_h first unless linear_before_reset. */
static void gru_back(const mest_rnn_rows *s, const mest_rnn_parts *p, const mest_rnn_grads *d, int64_t n)
{
    const mest_real *z = p->gates + n * p->row, *r = z + p->h, *u = r + p->h, *q = p->extra + n * p->h, *h0 = p->before + n * p->h;
    mest_real *dz = d->gates + n * p->row, *dr = dz + p->h, *du = dr + p->h, *dq = d->extra + n * p->h, *dh = d->h + n * p->h;
    bool linear = s->run->g.linear_before_reset;
    MEST_IVDEP
    for (int64_t k = 0; k < p->h; k++) {
        dz[k] = dh[k] * (h0[k] - u[k]) * z[k] * (1 - z[k]);
        du[k] = dh[k] * (1 - z[k]) * (1 - u[k] * u[k]);
        dr[k] = linear ? du[k] * q[k] * r[k] * (1 - r[k]) : 0;
        dq[k] = linear ? du[k] * r[k] : 0;
        dh[k] *= z[k];
    }
}

static void gru_back_reset(const mest_rnn_rows *s, const mest_rnn_parts *p, const mest_rnn_grads *d)
{
    _Alignas(64) mest_rnn_block part;
    for (int64_t j = 0; j < p->h; j += WIDE) {
        int64_t wide = p->h - j < WIDE ? p->h - j : WIDE;
        mest_rnn_product(d->gates + 2 * p->h, p->row, s->n, mest_rnn_panel(d->panels, p->h, 2, j), p->h, part, false);
        for (int64_t n = 0; n < s->n; n++) {
            const mest_real *r = p->gates + n * p->row + p->h + j, *h0 = p->before + n * p->h + j;
            mest_real *dr = d->gates + n * p->row + p->h + j, *dh = d->h + n * p->h + j;
            MEST_IVDEP
            for (int64_t k = 0; k < wide; k++) {
                mest_real dq = part[n * WIDE + k];
                dr[k] = dq * h0[k] * r[k] * (1 - r[k]);
                dh[k] += dq * r[k];
            }
        }
    }
}

static void rnn_back(const mest_rnn_rows *s, const mest_rnn_parts *p, const mest_rnn_grads *d, int64_t n)
{
    const mest_real *u = p->gates + n * p->row;
    mest_real *du = d->gates + n * p->row, *dh = d->h + n * p->h;
    MEST_IVDEP
    for (int64_t k = 0; k < p->h; k++) {
        du[k] = s->run->g.relu ? (u[k] > 0 ? dh[k] : 0) : dh[k] * (1 - u[k] * u[k]);
        dh[k] = 0;
    }
}

void mest_rnn_step_back(const mest_rnn_rows *s)
{
    const mest_rnn_run *run = s->run;
    const mest_rnn *g = &run->g;
    mest_rnn_parts p = mest_rnn_parts_of(s);
    mest_rnn_grads d = mest_rnn_grads_of(s);
    for (int64_t n = 0; n < s->n; n++) {
        if (mest_rnn_over(run, s->first + n, s->t)) { /* the states' gradients pass; no gate has one */
            memset(d.gates + n * p.row, 0, (size_t)p.row * sizeof(mest_real));
            if (g->kind == MEST_GRU)
                memset(d.extra + n * p.h, 0, (size_t)p.h * sizeof(mest_real));
            continue;
        }
        if (run->dy) {
            const mest_real *dy = run->dy + mest_rnn_y(g, s->direction, s->t, s->first + n);
            for (int64_t k = 0; k < p.h; k++)
                d.h[n * p.h + k] += dy[k];
        }
        if (g->other)
            mest_rnn_back_other(s, &p, &d, n);
        else if (g->kind == MEST_LSTM)
            lstm_back(s, &p, &d, n);
        else if (g->kind == MEST_GRU)
            gru_back(s, &p, &d, n);
        else
            rnn_back(s, &p, &d, n);
    }
    if (g->kind != MEST_GRU) {
        mest_rnn_add_products(s, &p, &d, d.gates, p.row, 0, g->gates);
        return;
    }
    if (g->linear_before_reset)
        mest_rnn_add_products(s, &p, &d, d.extra, p.h, 2, 3);
    else if (g->other)
        mest_rnn_back_reset_other(s, &p, &d);
    else
        gru_back_reset(s, &p, &d);
    mest_rnn_add_products(s, &p, &d, d.gates, p.row, 0, 2);
}
