/* SPDX-License-Identifier: Apache-2.0 */
#include "sparse/moves.h"

#include <string.h>

/* [from, to) of the old places moves by `by`. */
static void slide(char *array, size_t size, int64_t from, int64_t to, int64_t by)
{
    memmove(array + (size_t)(from + by) * size, array + (size_t)from * size, (size_t)(to - from) * size);
}

/* A run of survivors moves by the number of units that grew before it less those that went. Runs that move down go first, ascending: where one
 * goes, nothing lies but what has moved already, as a run before it that moves up ends where its own room begins. Then those that move up, from the end. */
void mest_moves_apply(const mest_moves *m, void *array, size_t size)
{
    int64_t d = 0, g = 0;
    for (int64_t from = 0; from < m->n_old;) {
        const int64_t next_drop = d < m->n_drop ? m->drop_at[d] : m->n_old, next_grow = g < m->n_grow ? m->grow_at[g] : m->n_old;
        const int64_t to = next_drop < next_grow ? next_drop : next_grow;
        if (g < d && to > from)
            slide(array, size, from, to, g - d);
        from = to;
        if (g < m->n_grow && next_grow <= next_drop) {
            g++;
        } else if (d < m->n_drop) {
            d++;
            from++;
        }
    }
    d = m->n_drop;
    g = m->n_grow;
    for (int64_t to = m->n_old; to > 0 && g > 0;) { /* before the first that grows nothing moves up */
        const int64_t last_drop = d > 0 ? m->drop_at[d - 1] : -1, last_grow = m->grow_at[g - 1], from = last_drop >= last_grow ? last_drop + 1 : last_grow;
        if (g > d && to > from)
            slide(array, size, from, to, g - d);
        to = from;
        if (last_drop >= last_grow) {
            d--;
            to--;
        } else {
            g--;
        }
    }
}

void mest_moves_grown(const mest_moves *m, void (*fn)(void *context, int64_t i, int64_t at), void *context)
{
    int64_t d = 0;
    for (int64_t g = 0; g < m->n_grow; g++) {
        while (d < m->n_drop && m->drop_at[d] < m->grow_at[g])
            d++;
        fn(context, g, m->grow_at[g] + g - d);
    }
}
