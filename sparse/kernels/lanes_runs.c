/* SPDX-License-Identifier: Apache-2.0 */
/* Entries of a list in runs of neighbouring taps (lanes.h). */
#include "sparse/kernels/lanes.h"

enum { WINDOW = 1024 }; /* entries that are looked at: what tiles leave of a row is far less */

typedef struct found {
    int32_t two[WINDOW / 2][2], three[WINDOW / 3][3], one[WINDOW];
    int32_t twos, threes, ones;
} found;

/* Runs of one to three entries; longer ones are cut. Entries come by input, then by tap: one of the next two is beside an entry, or none is (the second
 * where taps stand two apart for positions that do). */
static void find(int32_t step, int32_t n, const int32_t *off, found *f)
{
    bool used[WINDOW] = {false};
    for (int32_t i = 0; i < n; i++) {
        if (used[i])
            continue;
        int32_t run[3] = {i}, length = 1;
        for (; length < 3; length++) {
            const int32_t at = run[length - 1], end = at + 3 < n ? at + 3 : n;
            int32_t next = at + 1;
            while (next < end && (used[next] || off[next] - off[at] != step))
                next++;
            if (next >= end)
                break;
            run[length] = next;
        }
        int32_t *to = length == 3 ? f->three[f->threes++] : length == 2 ? f->two[f->twos++] : &f->one[f->ones++];
        for (int32_t k = 0; k < length; k++) {
            used[run[k]] = true;
            to[k] = run[k];
        }
    }
    while (f->threes > f->ones) { /* none to go with it */
        const int32_t *t = f->three[--f->threes];
        f->two[f->twos][0] = t[0];
        f->two[f->twos++][1] = t[1];
        f->one[f->ones++] = t[2];
    }
}

int32_t mest_lanes_order_runs(int32_t step, int32_t n, int32_t *off, int32_t *perm)
{
    found f = {.twos = 0};
    int32_t order[WINDOW], old_off[WINDOW], old_perm[WINDOW], to = 0, one = 0;
    n = n < WINDOW ? n : WINDOW;
    find(step, n, off, &f);
    for (int32_t i = 0; i < f.twos / 2 * 2; i++)
        for (int32_t k = 0; k < 2; k++)
            order[to++] = f.two[i][k];
    for (int32_t i = 0; i < f.threes; i++) {
        for (int32_t k = 0; k < 3; k++)
            order[to++] = f.three[i][k];
        order[to++] = f.one[one++];
    }
    for (int32_t k = 0; k < 2 && f.twos % 2; k++)
        order[to++] = f.two[f.twos - 1][k];
    while (one < f.ones)
        order[to++] = f.one[one++];
    memcpy(old_off, off, (size_t)n * sizeof *off);
    memcpy(old_perm, perm, (size_t)n * sizeof *perm);
    for (int32_t i = 0; i < n; i++) {
        off[i] = old_off[order[i]];
        perm[i] = old_perm[order[i]];
    }
    return mest_lanes_runs_pack((mest_lanes_runs){f.twos / 2, f.threes});
}
