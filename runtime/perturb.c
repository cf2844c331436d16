/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/perturb.h"

#include <math.h>
#include <string.h>

#include "runtime/rng.h"

enum { TILE = 4096, ROOM = 512 }; /* units of a tile; values that are updated together */

/* Standard normal numbers of values 2k and 2k + 1: Box and Muller's pairs, of uniform numbers 2k and 2k + 1. */
static void normal_pair(uint64_t seed, uint64_t stream, int64_t k, double z[2])
{
    const uint64_t pair = 2 * (uint64_t)k;
    const double a = 1 - mest_rng_uniform(seed, stream, pair), b = 6.28318530717958647692 * mest_rng_uniform(seed, stream, pair + 1);
    const double r = sqrt(-2 * log(a));
    z[0] = r * cos(b);
    z[1] = r * sin(b);
}

/* Adds scaled noise to the gradients g of values [from, from + n). */
static void add_noise(const mest_perturbation *p, uint64_t stream, int64_t from, int64_t n, double *g)
{
    double z[2];
    for (int64_t k = from / 2; 2 * k < from + n; k++) {
        normal_pair(p->seed, stream, k, z);
        for (int64_t i = 2 * k < from ? from : 2 * k; i < 2 * k + 2 && i < from + n; i++)
            g[i - from] += p->noise * z[i & 1];
    }
}

static void tile(void *context, size_t number)
{
    const mest_perturb_job *j = context;
    const mest_perturbation *p = j->o->perturb;
    const uint64_t stream = mest_rng((uint64_t)MEST_STREAM_NOISE << 32, (uint64_t)j->param, p->step);
    const int64_t end = ((int64_t)number + 1) * TILE < j->units ? ((int64_t)number + 1) * TILE : j->units, together = ROOM / j->elements;
    double sum[ROOM];
    mest_real g[ROOM], before[ROOM], *slots[MEST_OPTIM_SLOTS];
    for (int64_t u = (int64_t)number * TILE; u < end; u += together) {
        const int64_t units = end - u < together ? end - u : together, from = u * j->elements, n = units * j->elements;
        for (int64_t i = 0; i < n; i++) {
            const double w = (double)j->w[from + i];
            sum[i] = j->scale * (double)j->g[from + i] + p->l1 * ((w > 0) - (w < 0));
        }
        if (p->noise > 0)
            add_noise(p, stream, from, n, sum);
        for (int64_t i = 0; i < n; i++)
            g[i] = (mest_real)sum[i];
        memcpy(before, j->w + from, (size_t)n * sizeof *before);
        for (int k = 0; k < MEST_OPTIM_SLOTS; k++)
            slots[k] = j->slots[k] ? j->slots[k] + from : NULL;
        j->o->rule->step(j->o, j->w + from, g, slots, n, 1, j->lr, j->wd, j->t);
        for (int64_t i = 0; i < units && j->turned; i++) {
            double product = 0;
            for (int64_t e = i * j->elements; e < (i + 1) * j->elements; e++)
                product += (double)before[e] * (double)j->w[from + e];
            j->turned[u + i] = product < 0;
        }
    }
}

void mest_perturbed_update(const mest_perturb_job *job, const mest_threads *threads)
{
    mest_parallel(threads, (size_t)((job->units + TILE - 1) / TILE), tile, (void *)(uintptr_t)job);
}
