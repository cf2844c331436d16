/* SPDX-License-Identifier: Apache-2.0 */
/* Recurrent cells with activations other than the default ones, with clip (of what goes into the activations of gates) and input_forget (f = 1 - i): what
 * ONNX has and hardly any file uses, so plain loops. Each activation is monotone, and its slope follows from its value, which the workspace holds:
 *
 *   Sigmoid y (1 - y)    Tanh 1 - y^2    Relu 1 or 0    HardSigmoid alpha strictly inside    Softsign (1 - |y|)^2    Softplus 1 - e^-y
 *   LeakyRelu 1 or alpha    Elu 1 or y + alpha    ThresholdedRelu 1 or 0    Affine alpha    ScaledTanh alpha beta - beta y^2 / alpha
 *
 * What clip cut has the value of the activation there, and slope 0. Definitions of the activations: ONNX, operator LSTM; alpha and beta where a file does
 * not give them: those of the operators of the same name. */
#include <strings.h>

#include "ops/elements.h"
#include "ops/rnn_parts.h"

static const struct { const char *name; mest_cell_kind kind; bool alpha, beta; double usual_alpha, usual_beta; } activations[] = {
    { "Sigmoid", MEST_CELL_SIGMOID, false, false, 0, 0 }, { "Tanh", MEST_CELL_TANH, false, false, 0, 0 }, { "Relu", MEST_CELL_RELU, false, false, 0, 0 },
    { "HardSigmoid", MEST_CELL_HARD_SIGMOID, true, true, 0.2, 0.5 }, { "Softsign", MEST_CELL_SOFTSIGN, false, false, 0, 0 },
    { "Softplus", MEST_CELL_SOFTPLUS, false, false, 0, 0 }, { "LeakyRelu", MEST_CELL_LEAKY_RELU, true, false, 0.01, 0 }, { "Elu", MEST_CELL_ELU, true, false, 1, 0 },
    { "ThresholdedRelu", MEST_CELL_THRESHOLDED_RELU, true, false, 1, 0 }, { "Affine", MEST_CELL_AFFINE, true, true, 1, 0 },
    { "ScaledTanh", MEST_CELL_SCALED_TANH, true, true, 1, 1 },
};

const char *mest_rnn_activations(const mest_rnn_params *p, mest_rnn *g, int *which)
{
    static const mest_cell_kind usual[][3] = { { MEST_CELL_SIGMOID, MEST_CELL_TANH, MEST_CELL_TANH }, { MEST_CELL_SIGMOID, MEST_CELL_TANH }, { MEST_CELL_TANH } };
    const int per = 3 - (int)g->kind, n = per * g->directions;
    int alphas = 0, betas = 0;
    bool standard = true, relu = g->kind == MEST_RNN;
    for (int i = 0; i < n; i++) {
        mest_cell *cell = &g->act[i / per][i % per];
        *cell = (mest_cell){ .kind = usual[g->kind][i % per] };
        *which = i;
        if (p->activations.n == 0)
            continue;
        size_t k = 0, known = sizeof activations / sizeof *activations;
        while (k < known && strcasecmp(activations[k].name, p->activations.v[i]) != 0)
            k++;
        if (k == known)
            return "is unknown";
        cell->kind = activations[k].kind;
        cell->alpha = activations[k].alpha && alphas < p->alpha.n ? p->alpha.v[alphas++] : activations[k].usual_alpha;
        cell->beta = activations[k].beta && betas < p->beta.n ? p->beta.v[betas++] : activations[k].usual_beta;
        if (cell->alpha < 0 || (cell->alpha == 0 && cell->kind == MEST_CELL_SCALED_TANH))
            return "with an alpha below 0 (or of 0) is not supported";
        standard &= cell->kind == usual[g->kind][i % per];
        relu &= cell->kind == MEST_CELL_RELU;
    }
    g->clip = p->clip;
    g->coupled = p->input_forget != 0 && g->kind == MEST_LSTM;
    g->relu = relu && p->activations.n > 0 && g->clip == 0;
    g->other = (!standard && !g->relu) || g->clip != 0 || g->coupled;
    return NULL;
}

/* An activation as a run uses it: with the values at which clip cut, none: infinite ones that no value equals. */
typedef struct cell { mest_cell_kind kind; mest_real alpha, beta, clip, low, high; } cell;

static mest_real value(const cell *f, mest_real x)
{
    switch (f->kind) {
    case MEST_CELL_SIGMOID: return 1 / (1 + REAL(exp)(-x));
    case MEST_CELL_TANH: return REAL(tanh)(x);
    case MEST_CELL_RELU: return x > 0 ? x : 0;
    case MEST_CELL_HARD_SIGMOID: return REAL(fmax)(0, REAL(fmin)(1, f->alpha * x + f->beta));
    case MEST_CELL_SOFTSIGN: return x / (1 + REAL(fabs)(x));
    case MEST_CELL_SOFTPLUS: return REAL(fmax)(x, 0) + REAL(log1p)(REAL(exp)(-REAL(fabs)(x)));
    case MEST_CELL_LEAKY_RELU: return x > 0 ? x : f->alpha * x;
    case MEST_CELL_ELU: return x > 0 ? x : f->alpha * REAL(expm1)(x);
    case MEST_CELL_THRESHOLDED_RELU: return x > f->alpha ? x : 0;
    case MEST_CELL_AFFINE: return f->alpha * x + f->beta;
    case MEST_CELL_SCALED_TANH: return f->alpha * REAL(tanh)(f->beta * x);
    }
    return x;
}

static mest_real slope(const cell *f, mest_real y)
{
    if (y == f->low || y == f->high)
        return 0;
    switch (f->kind) {
    case MEST_CELL_SIGMOID: return y * (1 - y);
    case MEST_CELL_TANH: return 1 - y * y;
    case MEST_CELL_RELU: case MEST_CELL_THRESHOLDED_RELU: return y > 0 ? 1 : 0;
    case MEST_CELL_HARD_SIGMOID: return y > 0 && y < 1 ? f->alpha : 0;
    case MEST_CELL_SOFTSIGN: return (1 - REAL(fabs)(y)) * (1 - REAL(fabs)(y));
    case MEST_CELL_SOFTPLUS: return -REAL(expm1)(-y);
    case MEST_CELL_LEAKY_RELU: return y > 0 ? 1 : f->alpha;
    case MEST_CELL_ELU: return y > 0 ? 1 : y + f->alpha;
    case MEST_CELL_AFFINE: return f->alpha;
    case MEST_CELL_SCALED_TANH: return f->beta * (f->alpha - y * y / f->alpha);
    }
    return 1;
}

/* Of a gate; of the state (number 2 of LSTM) without the clip. */
static cell cell_of(const mest_rnn_rows *s, int number)
{
    const mest_rnn *g = &s->run->g;
    const mest_cell *c = &g->act[s->direction][number];
    cell f = { .kind = c->kind, .alpha = (mest_real)c->alpha, .beta = (mest_real)c->beta, .low = -(mest_real)INFINITY, .high = (mest_real)INFINITY };
    if (g->clip > 0 && number < 2) {
        f.clip = (mest_real)g->clip;
        f.low = value(&f, -f.clip);
        f.high = value(&f, f.clip);
    }
    return f;
}

static mest_real gate(const cell *f, mest_real x) { return value(f, f->clip <= 0 ? x : x > f->clip ? f->clip : x < -f->clip ? -f->clip : x); }

/* ---- forward ---- */
/* out[n][H] += a[n][H] R_gate^T */
static void recur(const mest_rnn_rows *s, const mest_rnn_parts *p, const mest_real *a, int number, mest_real *out, int64_t out_row)
{
    _Alignas(64) mest_rnn_block part;
    for (int64_t j = 0; j < p->h; j += MEST_RNN_WIDE) {
        const int64_t wide = p->h - j < MEST_RNN_WIDE ? p->h - j : MEST_RNN_WIDE;
        mest_rnn_product(a, p->h, s->n, mest_rnn_panel(p->panels, p->h, number, j), p->h, part, false);
        for (int64_t n = 0; n < s->n; n++)
            for (int64_t k = 0; k < wide; k++)
                out[n * out_row + j + k] += part[n * MEST_RNN_WIDE + k];
    }
}

static void lstm_step(const mest_rnn_rows *s, const mest_rnn_parts *p)
{
    const cell f = cell_of(s, 0), g = cell_of(s, 1), h = cell_of(s, 2);
    const mest_real *w = p->p;
    for (int k = 0; k < 4; k++)
        recur(s, p, p->before, k, p->gates + k * p->h, p->row);
    for (int64_t n = 0; n < s->n; n++) {
        mest_real *i = p->gates + n * p->row, *o = i + p->h, *forget = o + p->h, *u = forget + p->h;
        const mest_real *c0 = p->c_before + n * p->h;
        mest_real *c1 = p->c_after + n * p->h, *h1 = p->after + n * p->h;
        for (int64_t k = 0; k < p->h; k++) {
            i[k] = gate(&f, i[k] + (w ? w[k] * c0[k] : 0));
            forget[k] = s->run->g.coupled ? 1 - i[k] : gate(&f, forget[k] + (w ? w[2 * p->h + k] * c0[k] : 0));
            u[k] = gate(&g, u[k]);
            c1[k] = forget[k] * c0[k] + i[k] * u[k];
            o[k] = gate(&f, o[k] + (w ? w[p->h + k] * c1[k] : 0));
            h1[k] = o[k] * value(&h, c1[k]);
        }
    }
}

static void gru_step(const mest_rnn_rows *s, const mest_rnn_parts *p)
{
    const cell f = cell_of(s, 0), g = cell_of(s, 1);
    const bool linear = s->run->g.linear_before_reset;
    for (int k = 0; k < 2; k++)
        recur(s, p, p->before, k, p->gates + k * p->h, p->row);
    for (int64_t n = 0; n < s->n; n++) {
        mest_real *z = p->gates + n * p->row, *r = z + p->h, *q = p->extra + n * p->h;
        for (int64_t k = 0; k < p->h; k++) {
            z[k] = gate(&f, z[k]);
            r[k] = gate(&f, r[k]);
            q[k] = linear ? (p->rb ? p->rb[k] : 0) : r[k] * p->before[n * p->h + k];
        }
    }
    if (linear)
        recur(s, p, p->before, 2, p->extra, p->h);
    else
        recur(s, p, p->extra, 2, p->gates + 2 * p->h, p->row);
    for (int64_t n = 0; n < s->n; n++) {
        mest_real *z = p->gates + n * p->row, *r = z + p->h, *u = r + p->h, *q = p->extra + n * p->h;
        for (int64_t k = 0; k < p->h; k++) {
            u[k] = gate(&g, u[k] + (linear ? r[k] * q[k] : 0));
            p->after[n * p->h + k] = (1 - z[k]) * u[k] + z[k] * p->before[n * p->h + k];
        }
    }
}

void mest_rnn_step_other(const mest_rnn_rows *s, const mest_rnn_parts *p)
{
    if (s->run->g.kind == MEST_LSTM) {
        lstm_step(s, p);
    } else if (s->run->g.kind == MEST_GRU) {
        gru_step(s, p);
    } else {
        const cell f = cell_of(s, 0);
        recur(s, p, p->before, 0, p->gates, p->row);
        for (int64_t k = 0; k < s->n * p->h; k++)
            p->after[k] = p->gates[k] = gate(&f, p->gates[k]);
    }
}

/* ---- backward ---- */
static void lstm_back(const mest_rnn_rows *s, const mest_rnn_parts *p, const mest_rnn_grads *d, int64_t n)
{
    const cell f = cell_of(s, 0), g = cell_of(s, 1), h = cell_of(s, 2);
    const bool coupled = s->run->g.coupled;
    const mest_real *i = p->gates + n * p->row, *o = i + p->h, *forget = o + p->h, *u = forget + p->h, *w = p->p;
    const mest_real *c0 = p->c_before + n * p->h, *c1 = p->c_after + n * p->h;
    mest_real *di = d->gates + n * p->row, *dout = di + p->h, *df = dout + p->h, *du = df + p->h, *dh = d->h + n * p->h, *dc = d->c + n * p->h;
    for (int64_t k = 0; k < p->h; k++) {
        const mest_real t = value(&h, c1[k]);
        dout[k] = dh[k] * t * slope(&f, o[k]);
        const mest_real dcell = dc[k] + dh[k] * o[k] * slope(&h, t) + (w ? w[p->h + k] * dout[k] : 0);
        di[k] = dcell * (u[k] - (coupled ? c0[k] : 0)) * slope(&f, i[k]);
        df[k] = coupled ? 0 : dcell * c0[k] * slope(&f, forget[k]);
        du[k] = dcell * i[k] * slope(&g, u[k]);
        dc[k] = dcell * forget[k] + (w ? w[k] * di[k] + w[2 * p->h + k] * df[k] : 0);
        dh[k] = 0;
    }
}

static void gru_back(const mest_rnn_rows *s, const mest_rnn_parts *p, const mest_rnn_grads *d, int64_t n)
{
    const cell f = cell_of(s, 0), g = cell_of(s, 1);
    const mest_real *z = p->gates + n * p->row, *r = z + p->h, *u = r + p->h, *q = p->extra + n * p->h, *h0 = p->before + n * p->h;
    mest_real *dz = d->gates + n * p->row, *dr = dz + p->h, *du = dr + p->h, *dq = d->extra + n * p->h, *dh = d->h + n * p->h;
    const bool linear = s->run->g.linear_before_reset;
    for (int64_t k = 0; k < p->h; k++) {
        dz[k] = dh[k] * (h0[k] - u[k]) * slope(&f, z[k]);
        du[k] = dh[k] * (1 - z[k]) * slope(&g, u[k]);
        dr[k] = linear ? du[k] * q[k] * slope(&f, r[k]) : 0;
        dq[k] = linear ? du[k] * r[k] : 0;
        dh[k] *= z[k];
    }
}

void mest_rnn_back_other(const mest_rnn_rows *s, const mest_rnn_parts *p, const mest_rnn_grads *d, int64_t n)
{
    if (s->run->g.kind == MEST_LSTM) {
        lstm_back(s, p, d, n);
    } else if (s->run->g.kind == MEST_GRU) {
        gru_back(s, p, d, n);
    } else {
        const cell f = cell_of(s, 0);
        for (int64_t k = n * p->h; k < (n + 1) * p->h; k++) {
            d->gates[k] = d->h[k] * slope(&f, p->gates[k]);
            d->h[k] = 0;
        }
    }
}

void mest_rnn_back_reset_other(const mest_rnn_rows *s, const mest_rnn_parts *p, const mest_rnn_grads *d)
{
    const cell f = cell_of(s, 0);
    _Alignas(64) mest_rnn_block part;
    for (int64_t j = 0; j < p->h; j += MEST_RNN_WIDE) {
        const int64_t wide = p->h - j < MEST_RNN_WIDE ? p->h - j : MEST_RNN_WIDE;
        mest_rnn_product(d->gates + 2 * p->h, p->row, s->n, mest_rnn_panel(d->panels, p->h, 2, j), p->h, part, false);
        for (int64_t n = 0; n < s->n; n++) {
            const mest_real *r = p->gates + n * p->row + p->h + j, *h0 = p->before + n * p->h + j;
            for (int64_t k = 0; k < wide; k++) {
                const mest_real dq = part[n * MEST_RNN_WIDE + k];
                d->gates[n * p->row + p->h + j + k] = dq * h0[k] * slope(&f, r[k]);
                d->h[n * p->h + j + k] += dq * r[k];
            }
        }
    }
}
