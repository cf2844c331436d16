/* SPDX-License-Identifier: Apache-2.0 */
/* Update rules, all on flat arrays: entries that are not stored have no state and no gradient, and are nobody's business here. An entry that a
 * mutation brings in starts with slots of 0, whatever the rule. Formulas are PyTorch's; tests/methods/test_optim.c has its numbers. */
#include <math.h>
#include <string.h>

#include "runtime/optim.h"

/* SGD as in PyTorch: g += wd * w; v = m * v + g; w -= lr * (nesterov ? g + m * v : v). v starts at 0, which equals PyTorch's first step.
 * v is summed in double and rounded once: what accumulates over steps loses least. */
static void sgd_step(const mest_optimizer *o, mest_real *restrict w, const mest_real *restrict g, mest_real *const *slots, int64_t n, double scale, double lr,
                     double wd, uint64_t t)
{
    (void)t;
    const double m = o->momentum;
    const mest_real l = (mest_real)lr;
    mest_real *restrict v = slots[0];
    if (m == 0) {
        for (int64_t i = 0; i < n; i++)
            w[i] -= l * (mest_real)(wd * (double)w[i] + scale * (double)g[i]);
    } else if (o->nesterov) {
        for (int64_t i = 0; i < n; i++) {
            const double x = wd * (double)w[i] + scale * (double)g[i];
            v[i] = (mest_real)(m * (double)v[i] + x);
            w[i] -= l * (mest_real)(x + m * (double)v[i]);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            v[i] = (mest_real)(m * (double)v[i] + (wd * (double)w[i] + scale * (double)g[i]));
            w[i] -= l * v[i];
        }
    }
}

/* Adam (Kingma and Ba), bias correction and order of operations as in PyTorch: the gradient has weight decay in it already. */
static void adam_entries(const mest_optimizer *o, mest_real *w, const mest_real *g, mest_real *const *slots, int64_t n, double scale, double lr, double keep, double l2,
                         uint64_t t)
{
    const mest_real b1 = (mest_real)o->beta1, b2 = (mest_real)o->beta2, s = (mest_real)scale, eps = (mest_real)o->eps, k = (mest_real)keep, decay = (mest_real)l2;
    const mest_real step = (mest_real)(lr / (1 - pow(o->beta1, (double)t))), root = (mest_real)sqrt(1 - pow(o->beta2, (double)t));
    mest_real *m = slots[0], *v = slots[1];
    for (int64_t i = 0; i < n; i++) {
        const mest_real x = s * g[i] + decay * w[i];
        m[i] += (1 - b1) * (x - m[i]);
        v[i] = b2 * v[i] + (1 - b2) * x * x;
        const mest_real root_v = (mest_real)sqrt((double)v[i]);
        w[i] = w[i] * k - step * m[i] / (root_v / root + eps);
    }
}

/* Weight decay is part of the gradient: g + wd * w. */
static void adam_step(const mest_optimizer *o, mest_real *w, const mest_real *g, mest_real *const *slots, int64_t n, double scale, double lr, double wd, uint64_t t)
{
    adam_entries(o, w, g, slots, n, scale, lr, 1, wd, t);
}

/* AdamW (Loshchilov and Hutter): weight decay is decoupled, w * (1 - lr * wd). */
static void adamw_step(const mest_optimizer *o, mest_real *w, const mest_real *g, mest_real *const *slots, int64_t n, double scale, double lr, double wd, uint64_t t)
{
    adam_entries(o, w, g, slots, n, scale, lr, 1 - lr * wd, 0, t);
}

/* Adagrad (Duchi, Hazan, Singer) as in PyTorch: g += wd * w; v += g^2; w -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(v) + eps). v is summed in double
 * and rounded once a step. */
static void adagrad_step(const mest_optimizer *o, mest_real *restrict w, const mest_real *restrict g, mest_real *const *slots, int64_t n, double scale, double lr,
                         double wd, uint64_t t)
{
    const double rate = lr / (1 + ((double)t - 1) * o->lr_decay);
    mest_real *restrict v = slots[0];
    for (int64_t i = 0; i < n; i++) {
        const double x = wd * (double)w[i] + scale * (double)g[i];
        v[i] = (mest_real)((double)v[i] + x * x);
        w[i] -= (mest_real)(rate * x / (sqrt((double)v[i]) + o->eps));
    }
}

static const mest_optim_rule rules[] = {
    {.name = "sgd", .n_slots = 1, .has_momentum = true, .step = sgd_step},
    {.name = "adamw", .n_slots = 2, .has_momentum = true, .eps = 1e-8, .step = adamw_step},
    {.name = "adam", .n_slots = 2, .has_momentum = true, .eps = 1e-8, .step = adam_step},
    {.name = "adagrad", .n_slots = 1, .eps = 1e-10, .step = adagrad_step},
};
const char mest_optim_rule_names[] = "sgd, adamw, adam, adagrad";

const mest_optim_rule *mest_optim_rule_find(const char *name)
{
    for (size_t i = 0; name && i < sizeof rules / sizeof *rules; i++)
        if (!strcmp(rules[i].name, name))
            return &rules[i];
    return NULL;
}
