/* SPDX-License-Identifier: Apache-2.0 */
/* Cells of recurrent layers in lanes: n = H * V numbers of each gate lie together. Formulas: ops/rnn_cells.c. Static: included by recurrent.c
 * only.
 *
 * Gates are addressed by o[k], the place of ONNX's gate k in an array of gates: p (X W^T + bias), r (R h), y (after the activations). */
#ifndef MEST_SPARSE_KERNELS_RECURRENT_CELLS_H
#define MEST_SPARSE_KERNELS_RECURRENT_CELLS_H

#include "ops/elements.h"
#include "ops/gate_math.h"

static void lstm_cell(int64_t n, const int64_t *o, const mest_real *p, const mest_real *r, mest_real *y, const mest_real *c0, mest_real *c1, mest_real *h1)
{
    const mest_real *pi = p + o[0], *po = p + o[1], *pf = p + o[2], *pu = p + o[3], *ri = r + o[0], *ro = r + o[1], *rf = r + o[2], *ru = r + o[3];
    mest_real *yi = y + o[0], *yo = y + o[1], *yf = y + o[2], *yu = y + o[3];
    MEST_IVDEP
    for (int64_t k = 0; k < n; k++) {
        const mest_real i = mest_gate_sigmoid(pi[k] + ri[k]), f = mest_gate_sigmoid(pf[k] + rf[k]), u = mest_gate_tanh(pu[k] + ru[k]), c = f * c0[k] + i * u;
        yi[k] = i;
        yf[k] = f;
        yu[k] = u;
        c1[k] = c;
    }
    MEST_IVDEP
    for (int64_t k = 0; k < n; k++) {
        const mest_real out = mest_gate_sigmoid(po[k] + ro[k]);
        yo[k] = out;
        h1[k] = out * mest_gate_tanh(c1[k]);
    }
}

/* rb: Rb_h, n numbers; q: R_h h + Rb_h. */
static void gru_cell(int64_t n, const int64_t *o, const mest_real *p, const mest_real *r, const mest_real *rb, mest_real *y, mest_real *q, const mest_real *h0,
                     mest_real *h1)
{
    const mest_real *pz = p + o[0], *pr = p + o[1], *pu = p + o[2], *rz = r + o[0], *rr = r + o[1], *ru = r + o[2];
    mest_real *yz = y + o[0], *yr = y + o[1], *yu = y + o[2];
    MEST_IVDEP
    for (int64_t k = 0; k < n; k++) {
        const mest_real z = mest_gate_sigmoid(pz[k] + rz[k]), reset = mest_gate_sigmoid(pr[k] + rr[k]), hidden = ru[k] + rb[k];
        const mest_real u = mest_gate_tanh(pu[k] + reset * hidden);
        yz[k] = z;
        yr[k] = reset;
        yu[k] = u;
        q[k] = hidden;
        h1[k] = (1 - z) * u + z * h0[k];
    }
}

static void rnn_cell(int64_t n, bool relu, const mest_real *p, const mest_real *r, mest_real *y, mest_real *h1)
{
    if (relu) {
        for (int64_t k = 0; k < n; k++) {
            const mest_real x = p[k] + r[k];
            h1[k] = y[k] = x > 0 ? x : 0;
        }
        return;
    }
    MEST_IVDEP
    for (int64_t k = 0; k < n; k++)
        h1[k] = y[k] = mest_gate_tanh(p[k] + r[k]);
}

/* d: gradients of the gates. dh comes in and leaves as what reaches the state before without R; dc likewise. */
static void lstm_back(int64_t n, const int64_t *o, const mest_real *y, const mest_real *c0, const mest_real *c1, mest_real *d, mest_real *dh, mest_real *dc)
{
    const mest_real *i = y + o[0], *out = y + o[1], *f = y + o[2], *u = y + o[3];
    mest_real *di = d + o[0], *dout = d + o[1], *df = d + o[2], *du = d + o[3];
    MEST_IVDEP
    for (int64_t k = 0; k < n; k++) {
        const mest_real t = mest_gate_tanh(c1[k]), cell = dc[k] + dh[k] * out[k] * (1 - t * t);
        dout[k] = dh[k] * t * out[k] * (1 - out[k]);
        di[k] = cell * u[k] * i[k] * (1 - i[k]);
        df[k] = cell * c0[k] * f[k] * (1 - f[k]);
        du[k] = cell * i[k] * (1 - u[k] * u[k]);
        dc[k] = cell * f[k];
        dh[k] = 0;
    }
}

/* dp: gradients on the side of X, of which the hidden gate's differs. */
static void gru_back(int64_t n, const int64_t *o, const mest_real *y, const mest_real *q, const mest_real *h0, mest_real *d, mest_real *dp, mest_real *dh)
{
    const mest_real *z = y + o[0], *r = y + o[1], *u = y + o[2];
    mest_real *dz = d + o[0], *dr = d + o[1], *dq = d + o[2], *pz = dp + o[0], *pr = dp + o[1], *pu = dp + o[2];
    MEST_IVDEP
    for (int64_t k = 0; k < n; k++) {
        const mest_real gu = dh[k] * (1 - z[k]) * (1 - u[k] * u[k]), gz = dh[k] * (h0[k] - u[k]) * z[k] * (1 - z[k]), gr = gu * q[k] * r[k] * (1 - r[k]);
        pz[k] = dz[k] = gz;
        pr[k] = dr[k] = gr;
        pu[k] = gu;
        dq[k] = gu * r[k];
        dh[k] *= z[k];
    }
}

static void rnn_back(int64_t n, bool relu, const mest_real *y, mest_real *d, mest_real *dh)
{
    for (int64_t k = 0; k < n; k++) {
        const mest_real slope = relu ? (y[k] > 0 ? 1 : 0) : 1 - y[k] * y[k];
        d[k] = dh[k] * slope;
        dh[k] = 0;
    }
}

#endif
