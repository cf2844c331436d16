/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/dense.h"

#include <string.h>

/* The inner kernel is written with vectors of 32 bytes; the compiler splits them where the target has narrower ones. On x86 a second
 * copy for AVX2 is picked when the library is loaded. It gives the same bits (no contraction, same order), so it is not a kernel of its
 * own. Sanitizers run before such picks can be made; clang's spelling differs. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define WIDE_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define WIDE_CLONES
#endif

typedef mest_real vec __attribute__((vector_size(32), may_alias));
enum { LANES = 32 / sizeof(mest_real), VECS = MEST_PANEL / LANES };

static inline __attribute__((always_inline)) void block_rows(int n_rows, const mest_real *a, int64_t a_row, int64_t a_col,
                                                             const mest_real *panel, int64_t depth, mest_real *block, bool add)
{
    const vec *p = (const vec *)panel;
    vec sum[4][VECS];
    for (int r = 0; r < n_rows; r++)
        for (int j = 0; j < VECS; j++)
            sum[r][j] = (vec){ 0 };
    for (int64_t k = 0; k < depth; k++, p += VECS)
        for (int r = 0; r < n_rows; r++) {
            mest_real x = a[r * a_row + k * a_col];
            for (int j = 0; j < VECS; j++)
                sum[r][j] += x * p[j];
        }
    for (int r = 0; r < n_rows; r++) {
        vec *out = (vec *)(block + r * MEST_PANEL);
        for (int j = 0; j < VECS; j++) {
            if (add)
                out[j] += sum[r][j];
            else
                out[j] = sum[r][j];
        }
    }
}

WIDE_CLONES
static void by_panel(const mest_real *a, int64_t a_row, int64_t a_col, int64_t rows, const mest_real *panel, int64_t depth, mest_real *block,
                     bool add)
{
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4)
        block_rows(4, a + r * a_row, a_row, a_col, panel, depth, block + r * MEST_PANEL, add);
    switch (rows - r) {
    case 3: block_rows(3, a + r * a_row, a_row, a_col, panel, depth, block + r * MEST_PANEL, add); break;
    case 2: block_rows(2, a + r * a_row, a_row, a_col, panel, depth, block + r * MEST_PANEL, add); break;
    case 1: block_rows(1, a + r * a_row, a_row, a_col, panel, depth, block + r * MEST_PANEL, add); break;
    default: break;
    }
}

/* The clones are local: the symbol that picks one would be exported whatever its visibility. */
void mest_dense_block(const mest_real *a, int64_t a_row, int64_t a_col, int64_t rows, const mest_real *panel, int64_t depth,
                      mest_real *block, bool add)
{
    by_panel(a, a_row, a_col, rows, panel, depth, block, add);
}

/* panel[k][0..MEST_PANEL) = b(k, j..j+n), zero past n. */
static void pack(const mest_real *b, int64_t b_row, int64_t b_col, int64_t depth, int64_t n, mest_real *panel)
{
    if (n < MEST_PANEL)
        memset(panel, 0, (size_t)(depth * MEST_PANEL) * sizeof *panel);
    if (b_col == 1) {
        for (int64_t k = 0; k < depth; k++)
            memcpy(panel + k * MEST_PANEL, b + k * b_row, (size_t)n * sizeof *panel);
    } else {
        for (int64_t j = 0; j < n; j++)
            for (int64_t k = 0; k < depth; k++)
                panel[k * MEST_PANEL + j] = b[k * b_row + j * b_col];
    }
}

typedef struct run_context {
    const mest_dense_job *job;
    int64_t row_blocks, col_panels;
} run_context;

static void run_tile(void *context, size_t tile)
{
    const run_context *c = context;
    const mest_dense_job *g = c->job;
    _Alignas(64) mest_real panel[MEST_PANEL_DEPTH * MEST_PANEL];
    _Alignas(64) mest_real block[MEST_BLOCK_ROWS * MEST_PANEL];
    int64_t t = (int64_t)tile;
    int64_t j0 = t % c->col_panels * MEST_PANEL;
    t /= c->col_panels;
    int64_t i0 = t % c->row_blocks * MEST_BLOCK_ROWS;
    int64_t outer = t / c->row_blocks;
    int64_t n = g->n - j0 < MEST_PANEL ? g->n - j0 : MEST_PANEL;
    int64_t rows = g->m - i0 < MEST_BLOCK_ROWS ? g->m - i0 : MEST_BLOCK_ROWS;
    bool add = false;
    for (int64_t inner = 0; inner < g->inner; inner++) {
        int64_t at_a = 0, at_b = 0;
        if (g->offset)
            g->offset(g->context, outer, inner, &at_a, &at_b);
        for (int64_t k0 = 0; k0 < g->k; k0 += MEST_PANEL_DEPTH) {
            int64_t depth = g->k - k0 < MEST_PANEL_DEPTH ? g->k - k0 : MEST_PANEL_DEPTH;
            pack(g->b + at_b + k0 * g->b_row + j0 * g->b_col, g->b_row, g->b_col, depth, n, panel);
            mest_dense_block(g->a + at_a + i0 * g->a_row + k0 * g->a_col, g->a_row, g->a_col, rows, panel, depth, block, add);
            add = true;
        }
    }
    if (!add)
        memset(block, 0, sizeof block);
    mest_real alpha = (mest_real)g->alpha, beta = (mest_real)g->beta;
    int64_t c_row = g->c_row ? g->c_row : g->n;
    mest_real *c_start = g->c + (g->c_offset ? g->c_offset(g->context, outer) : outer * g->m * g->n);
    for (int64_t i = 0; i < rows; i++) {
        mest_real *out = c_start + (i0 + i) * c_row + j0;
        const mest_real *from = block + i * MEST_PANEL;
        if (g->d) {
            const mest_real *d = g->d + (i0 + i) * g->d_row + j0 * g->d_col;
            for (int64_t j = 0; j < n; j++)
                out[j] = alpha * from[j] + beta * d[j * g->d_col];
        } else {
            for (int64_t j = 0; j < n; j++)
                out[j] = alpha * from[j];
        }
    }
}

void mest_dense_run(const mest_threads *threads, const mest_dense_job *job)
{
    run_context c = { job, (job->m + MEST_BLOCK_ROWS - 1) / MEST_BLOCK_ROWS, (job->n + MEST_PANEL - 1) / MEST_PANEL };
    int64_t tiles = c.row_blocks * c.col_panels * job->outer;
    if (tiles > 0)
        mest_parallel(threads, (size_t)tiles, run_tile, &c);
}
