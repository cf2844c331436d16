/* SPDX-License-Identifier: Apache-2.0 */
/* Sorting of non-negative 64-bit numbers in place. */
#ifndef MEST_SPARSE_SORT_H
#define MEST_SPARSE_SORT_H

#include <stdint.h>

/* Ascending, by radix exchange from bit `bit` down (the highest that may be set); depth is at most the number of bits. */
static inline void mest_sort_ids(int64_t *a, int64_t n, int bit)
{
    while (n > 16 && bit >= 0) {
        int64_t i = 0, j = n;
        while (i < j) {
            if (a[i] >> bit & 1) {
                int64_t t = a[i];
                a[i] = a[--j];
                a[j] = t;
            } else {
                i++;
            }
        }
        bit--;
        mest_sort_ids(a, i, bit);
        a += i;
        n -= i;
    }
    for (int64_t i = 1; i < n; i++) {
        int64_t x = a[i], j = i;
        for (; j > 0 && a[j - 1] > x; j--)
            a[j] = a[j - 1];
        a[j] = x;
    }
}

#endif
