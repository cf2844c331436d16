/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/probe.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "ops/outer.h"
#include "sparse/cursor.h"

enum { BAND = 65536, PIECE = 256, TILE_ROWS = 64, TILE_COLS = 128 };

/* ---- geometry: a unit row is row_span rows of M, its units have consecutive ids ---- */

/* Unit rows in a band of parameter s. */
static int64_t band_rows(const mest_sparse *s)
{
    int64_t n = s->cols ? BAND / ((int64_t)s->row_span * s->cols) : 1;
    n = n < 1 ? 1 : n;
    return n < s->unit_rows ? n : s->unit_rows;
}

static int64_t row_numbers(const mest_sparse *s) { return (int64_t)s->row_span * s->cols; }

/* ---- opening ---- */

static bool wanted(const mest_probe *p, int param, int *wish)
{
    *wish = -1;
    for (int i = 0; i < p->n_top; i++)
        if (p->top[i].param == param && p->top[i].k > 0)
            *wish = i;
    return *wish >= 0 || (p->visit && (p->visit_param < 0 || p->visit_param == param));
}

static mest_status take(mest_gradient_reader *r, void *memory, size_t n, size_t size, mest_error *err)
{
    void *p = mest_alloc(r->host->heap, n, size);
    MEST_CHECK(p, err, MEST_E_NOMEM, "dense gradients: no memory for %zu x %zu bytes", n, size);
    memcpy(memory, &p, sizeof p);
    r->probe->extra_bytes += n ? (int64_t)(n * size) : 1;
    return MEST_OK;
}

static mest_status look(void *context, const mest_args *a, int32_t param);

mest_status mest_gradient_reader_open(mest_gradient_reader *r, mest_host *host, mest_probe *probe, const mest_program *program, int32_t parts, mest_error *err)
{
    int32_t elements = 1;
    int64_t longest = 0;
    *r = (mest_gradient_reader){ .host = host, .probe = probe, .threads = program->spec.threads, .piece_units = PIECE, .hook = { r, look } };
    probe->extra_bytes = 0;
    for (int i = 0; i < host->n_params; i++) {
        const mest_host_param *p = &host->params[i];
        int wish;
        if (!wanted(probe, i, &wish))
            continue;
        int nodes = mest_program_weight_nodes(program, p->model_param);
        MEST_CHECK(nodes == 1, err, MEST_E_UNSUPPORTED, "scheduler %s: the dense gradient of '%s' cannot be read: %s", host->who, p->name,
                   nodes ? "the weight is used more than once" : "its layer has no rule for it");
        size_t n = (size_t)(band_rows(p->sparse) * p->sparse->row_span * p->sparse->cols);
        r->band_count = n > r->band_count ? n : r->band_count;
        longest = row_numbers(p->sparse) > longest ? row_numbers(p->sparse) : longest;
        r->total += p->sparse->unit_rows * row_numbers(p->sparse);
        r->window += p->sparse->stored;
        elements = p->sparse->unit_elements > elements ? p->sparse->unit_elements : elements;
    }
    if (r->band_count == 0)
        return MEST_OK;
    r->scratch_count = mest_outer_scratch() * (size_t)r->threads->n;
    r->gradient_count = (size_t)PIECE * (size_t)elements;
    mest_status status;
    if (parts > 1) {
        r->window = r->window > (int64_t)r->band_count ? r->window : (int64_t)r->band_count;
        r->sum_count = (size_t)((r->window < r->total ? r->window : r->total) + longest);
        MEST_TRY_OUT(take(r, &r->sum, r->sum_count, sizeof *r->sum, err));
    }
    MEST_TRY_OUT(take(r, &r->band, r->band_count, sizeof *r->band, err));
    MEST_TRY_OUT(take(r, &r->scratch, r->scratch_count, sizeof *r->scratch, err));
    MEST_TRY_OUT(take(r, &r->units, PIECE, sizeof *r->units, err));
    MEST_TRY_OUT(take(r, &r->active, PIECE, 1, err));
    MEST_TRY_OUT(take(r, &r->gradients, r->gradient_count, sizeof *r->gradients, err));
    MEST_TRY_OUT(take(r, &r->growth, (size_t)probe->n_top, sizeof *r->growth, err));
    memset(r->growth, 0, (size_t)probe->n_top * sizeof *r->growth);
    for (int i = 0; i < probe->n_top; i++) {
        const mest_gradient_top *t = &probe->top[i];
        const mest_host_param *p = &host->params[t->param];
        const mest_growth_lists lists = { { p->drop.ids, t->also, p->grow.ids }, { p->drop.n, t->n_also, p->grow.n } };
        MEST_TRY_OUT(mest_growth_open(&r->growth[i], p->sparse, &lists, t->k, t->units, t->norms, err));
        probe->extra_bytes += mest_growth_bytes(&r->growth[i]);
    }
out:
    if (status != MEST_OK)
        mest_gradient_reader_close(r, false);
    return status;
}

int64_t mest_gradient_reader_bytes(const mest_host *host, int threads, bool in_parts)
{
    int64_t longest = 0, band = 0, stored = 0, total = 0, units = 0;
    for (int i = 0; i < host->n_params; i++) {
        const mest_sparse *s = host->params[i].sparse;
        if (host->params[i].group)
            continue;
        const int64_t n = band_rows(s) * row_numbers(s);
        band = n > band ? n : band;
        longest = row_numbers(s) > longest ? row_numbers(s) : longest;
        stored += s->stored;
        total += s->unit_rows * row_numbers(s);
        units += s->active_units;
    }
    const int64_t window = stored > band ? stored : band, sum = in_parts ? (window < total ? window : total) + longest : 0;
    return (band + sum + (int64_t)mest_outer_scratch() * threads) * (int64_t)sizeof(mest_real) + 12 * units + 32 * PIECE;
}

void mest_gradient_reader_close(mest_gradient_reader *r, bool done)
{
    if (!r->host)
        return;
    mest_heap *heap = r->host->heap;
    for (int i = 0; i < r->probe->n_top; i++) {
        const int64_t found = r->growth ? mest_growth_close(&r->growth[i]) : 0;
        r->probe->top[i].found = done ? found : 0;
    }
    mest_free(heap, r->sum, r->sum_count, sizeof *r->sum);
    mest_free(heap, r->band, r->band_count, sizeof *r->band);
    mest_free(heap, r->scratch, r->scratch_count, sizeof *r->scratch);
    mest_free(heap, r->units, PIECE, sizeof *r->units);
    mest_free(heap, r->active, PIECE, 1);
    mest_free(heap, r->gradients, r->gradient_count, sizeof *r->gradients);
    mest_free(heap, r->growth, (size_t)r->probe->n_top, sizeof *r->growth);
    *r = (mest_gradient_reader){ 0 };
}

/* ---- looking ---- */

typedef struct band {
    const mest_outer *outer;
    mest_gradient_reader *reader;
    int64_t row0, rows, cols; /* of M */
    int64_t col_tiles;
} band;

static void fill_tile(void *context, size_t worker, size_t tile)
{
    const band *b = context;
    int64_t r = (int64_t)tile / b->col_tiles * TILE_ROWS, c = (int64_t)tile % b->col_tiles * TILE_COLS;
    int64_t rows = b->rows - r < TILE_ROWS ? b->rows - r : TILE_ROWS, cols = b->cols - c < TILE_COLS ? b->cols - c : TILE_COLS;
    mest_outer_tile(b->outer, b->row0 + r, rows, c, cols, b->reader->band + r * b->cols + c, b->cols,
                    b->reader->scratch + worker * mest_outer_scratch());
}

typedef struct layer {
    mest_gradient_reader *reader;
    const mest_host_param *p;
    int param, wish;
    bool visit;
    mest_cursor active;     /* next active unit */
    int64_t drop, grow, also; /* next entry of the proposals and of the wish's list */
} layer;

static bool next_is(const int64_t *ids, int64_t n, int64_t *at, int64_t unit)
{
    while (*at < n && ids[*at] < unit)
        ++*at;
    return *at < n && ids[*at] == unit;
}

/* Units first..first+n-1, whose rows are in the band. */
static mest_status read_units(layer *l, const band *b, int64_t first, int64_t n, mest_error *err)
{
    mest_gradient_reader *r = l->reader;
    const mest_sparse *s = l->p->sparse;
    int32_t row[MEST_UNIT_MOST], col[MEST_UNIT_MOST];
    const int32_t elements = s->unit_elements;
    for (int64_t i = 0; i < n; i++) {
        const int64_t unit = first + i;
        double sum = 0;
        mest_sparse_unit_entries(s, unit, row, col);
        for (int32_t e = 0; e < elements; e++) {
            bool inside = row[e] < s->rows && col[e] >= 0 && col[e] < s->cols;
            mest_real g = inside ? r->band[(row[e] - b->row0) * s->cols + col[e]] : 0;
            r->gradients[i * elements + e] = (float)g;
            sum += (double)g * (double)g;
        }
        MEST_CHECK(isfinite(sum), err, MEST_E_NUMERIC, "the gradient of '%s' is not finite", l->p->name);
        while (mest_cursor_peek(&l->active) < unit)
            l->active.at++;
        bool active = mest_cursor_peek(&l->active) == unit;
        r->units[i] = unit;
        r->active[i] = active;
        if (l->wish < 0)
            continue;
        const mest_gradient_top *wish = &r->probe->top[l->wish];
        bool free = !active || next_is(l->p->drop.ids, l->p->drop.n, &l->drop, unit) || next_is(wish->also, wish->n_also, &l->also, unit);
        bool taken = next_is(l->p->grow.ids, l->p->grow.n, &l->grow, unit);
        mest_growth_put(&r->growth[l->wish], unit, (float)sqrt(sum), !free || taken);
    }
    if (!l->visit)
        return MEST_OK;
    mest_gradient_piece piece = { .struct_size = sizeof piece, .param = l->param, .n = n, .units = r->units, .active = r->active,
                                  .gradients = r->gradients };
    return r->probe->visit(r->probe->user, &piece, err);
}

bool mest_gradient_reader_next(mest_gradient_reader *r)
{
    if (!r->sum || r->total - r->low <= r->window)
        return false;
    r->low += r->window;
    return true;
}

/* Numbers before those of parameter i. */
static int64_t numbers_before(const mest_gradient_reader *r, int i)
{
    int64_t n = 0;
    int wish;
    for (int k = 0; k < i; k++)
        if (wanted(r->probe, k, &wish))
            n += r->host->params[k].sparse->unit_rows * row_numbers(r->host->params[k].sparse);
    return n;
}

/* Adds the band of a part to `sum`; with the last part the band has the sum of all. */
static void add_part(const mest_gradient_reader *r, const mest_run *run, mest_real *sum, int64_t n)
{
    const bool last = mest_run_completes(run);
    mest_real *out = last ? r->band : sum;
    for (int64_t i = 0; i < n; i++)
        out[i] = (mest_real)((run->part ? (double)sum[i] : 0) + run->share * (double)r->band[i]);
}

static mest_status look(void *context, const mest_args *a, int32_t model_param)
{
    mest_gradient_reader *r = context;
    mest_outer outer;
    layer l = { .reader = r, .param = -1 };
    for (int i = 0; i < r->host->n_params; i++)
        if (r->host->params[i].model_param == model_param)
            l.param = i;
    if (l.param < 0 || !wanted(r->probe, l.param, &l.wish))
        return MEST_OK;
    l.p = &r->host->params[l.param];
    l.visit = r->probe->visit && (r->probe->visit_param < 0 || r->probe->visit_param == l.param);
    MEST_TRY(a->node->op->weight_outer(a, &outer));
    const mest_sparse *s = l.p->sparse;
    const int64_t step = band_rows(s), per_row = s->unit_cols, numbers = row_numbers(s);
    const bool in_parts = a->run->parts > 1;
    int64_t from = 0, to = s->unit_rows, before = 0;
    if (in_parts) { /* the rows that begin in the window */
        before = numbers_before(r, l.param);
        from = r->low > before ? (r->low - before + numbers - 1) / numbers : 0;
        to = r->low + r->window > before ? (r->low + r->window - before + numbers - 1) / numbers : 0;
        to = to < s->unit_rows ? to : s->unit_rows;
    }
    mest_cursor_init(&l.active, s);
    for (int64_t at = from; at < to; at += step) {
        int64_t n = to - at < step ? to - at : step;
        band b = { .outer = &outer, .reader = r, .row0 = at * s->row_span, .cols = s->cols, .col_tiles = (s->cols + TILE_COLS - 1) / TILE_COLS };
        b.rows = s->rows - b.row0 < n * s->row_span ? s->rows - b.row0 : n * s->row_span;
        mest_parallel_worker(r->threads, (size_t)((b.rows + TILE_ROWS - 1) / TILE_ROWS * b.col_tiles), fill_tile, &b);
        if (in_parts)
            add_part(r, a->run, r->sum + before + at * numbers - r->low, b.rows * b.cols);
        if (!mest_run_completes(a->run))
            continue;
        for (int64_t u = at * per_row, end = (at + n) * per_row; u < end; u += PIECE)
            MEST_TRY(read_units(&l, &b, u, end - u < PIECE ? end - u : PIECE, a->err));
    }
    return MEST_OK;
}
