/* SPDX-License-Identifier: Apache-2.0 */
/* Every update rule against PyTorch's numbers (tests/data/optim, made by tests/fixtures/make_optim.py): 25 steps on one tensor, entries whose gradient is
 * exactly 0 among them. Built with float and with double; in double the numbers agree but for rounding. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/optim.h"

enum { MOST = 32 };

static int n_passed, n_failed;

typedef struct settings {
    char rule[32];
    double lr, momentum, beta1, beta2, eps, lr_decay, wd;
    int nesterov, n, steps;
} settings;

static bool read_row(FILE *f, int n, double *to)
{
    for (int i = 0; i < n; i++)
        if (fscanf(f, "%lf", &to[i]) != 1)
            return false;
    return true;
}

/* Largest error relative to the size of the weights, or a negative number when the file is not as it should be. */
static double worst_of(FILE *f, char *why, size_t size)
{
    settings s;
    mest_optimizer o;
    mest_error err = {0};
    double row[MOST], worst = 0;
    mest_real w[MOST], g[MOST], m[MOST] = {0}, v[MOST] = {0}, *slots[MEST_OPTIM_SLOTS] = {m, v};
    if (fscanf(f, "rule %31s lr %lf momentum %lf nesterov %d beta1 %lf beta2 %lf eps %lf lr_decay %lf wd %lf n %d steps %d", s.rule, &s.lr, &s.momentum, &s.nesterov, &s.beta1,
               &s.beta2, &s.eps, &s.lr_decay, &s.wd, &s.n, &s.steps) != 11 || s.n < 1 || s.n > MOST || s.steps < 1 || !read_row(f, s.n, row)) {
        snprintf(why, size, "settings");
        return -1;
    }
    if (mest_optimizer_init(&o, NULL, s.rule, &err) != MEST_OK) {
        snprintf(why, size, "%s", err.msg);
        return -1;
    }
    o.momentum = s.momentum;
    o.nesterov = s.nesterov != 0;
    o.beta1 = s.beta1;
    o.beta2 = s.beta2;
    o.eps = s.eps;
    o.lr_decay = s.lr_decay;
    for (int i = 0; i < s.n; i++)
        w[i] = (mest_real)row[i];
    for (int t = 1; t <= s.steps; t++) {
        if (!read_row(f, s.n, row))
            return -1;
        for (int i = 0; i < s.n; i++)
            g[i] = (mest_real)(2 * row[i]); /* clipping halves it again */
        o.rule->step(&o, w, g, slots, s.n, 0.5, s.lr, s.wd, (uint64_t)t);
        if (!read_row(f, s.n, row))
            return -1;
        for (int i = 0; i < s.n; i++) {
            double e = fabs((double)w[i] - row[i]) / (fabs(row[i]) + 0.1);
            if (!(e <= worst))
                worst = e;
        }
    }
    return worst;
}

int main(int argc, char **argv)
{
    static const char *const files[] = {"sgd", "sgd_nesterov", "adamw", "adam", "adam_decay", "adagrad", "adagrad_decay"};
    const double limit = sizeof(mest_real) == sizeof(double) ? 1e-12 : 3e-6;
    for (size_t i = 0; argc > 1 && i < sizeof files / sizeof *files; i++) {
        char path[1024], why[300] = "steps are missing";
        snprintf(path, sizeof path, "%s/%s.txt", argv[1], files[i]);
        FILE *f = fopen(path, "r");
        double worst = f ? worst_of(f, why, sizeof why) : -1;
        if (f)
            fclose(f);
        if (worst >= 0 && worst <= limit) {
            printf("%s: %.2g\n", files[i], worst);
            n_passed++;
        } else if (worst < 0) {
            printf("FAILED %s: %s\n", files[i], f ? why : "no file");
            n_failed++;
        } else {
            printf("FAILED %s: off by %.3g, at most %.3g\n", files[i], worst, limit);
            n_failed++;
        }
    }
    printf("%d passed, %d failed, 0 skipped\n", n_passed, n_failed);
    return n_failed || !n_passed;
}
